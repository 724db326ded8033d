/*
 * The HTTP server: libmicrohttpd's connections, the life of a request from its first line to its
 * answer, and the workers for what would keep others waiting. Every size and number is bounded.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "api/rest/rest.h"
#include "host/events.h"
#include "host/guests.h"
#include "host/transfers.h"

#define API "/api/v1"
#define QUEUE_MAX 128
#define DRAINED_MAX (4u << 20)
#define JSON_DEPTH_MAX 64

/* ---- Sending ---- */

static const struct {
    const char *name, *value;
} security_headers[] = {
    {"X-Content-Type-Options", "nosniff"},
    {"X-Frame-Options", "DENY"},
    {"Referrer-Policy", "no-referrer"},
    {"Cross-Origin-Opener-Policy", "same-origin"},
    {"Cross-Origin-Resource-Policy", "same-origin"},
    {"Content-Security-Policy",
     "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
     "img-src 'self' data: blob:; connect-src 'self'; object-src 'none'; base-uri 'none'; "
     "form-action 'self'; frame-ancestors 'none'"},
};

/* "bytes=A-B", "bytes=A-", "bytes=-N" (RFC 9110, 14.1.2); several ranges are answered as a whole.
 * @return 0 none, 1 one, -1 none that the file has */
static int parse_range(const char *text, uint64_t size, uint64_t *from, uint64_t *len)
{
    unsigned long long a, b;
    char end;
    if (!text || strncmp(text, "bytes=", 6) || strchr(text, ','))
        return 0;
    text += 6;
    if (sscanf(text, "-%llu%c", &b, &end) == 1 && *text == '-') {
        if (!b || !size)
            return -1;
        *len = b < size ? b : size;
        *from = size - *len;
        return 1;
    }
    int n = sscanf(text, "%llu-%llu%c", &a, &b, &end);
    if (n == 1 && text[strlen(text) - 1] != '-')
        return 0;
    if (n != 1 && n != 2)
        return 0;
    if (n == 2 && b < a)
        return 0;
    if (a >= size)
        return -1;
    *from = a;
    *len = n == 2 && b < size ? b - a + 1 : size - a;
    return 1;
}

static void add(struct MHD_Response *response, const char *name, const char *value)
{
    if (value && *value)
        MHD_add_response_header(response, name, value);
}

static struct MHD_Response *file_response(struct request *r)
{
    struct stat st;
    uint64_t from = 0, len;
    char text[96];
    if (fstat(r->fd, &st))
        return NULL;
    len = (uint64_t)st.st_size;
    int range = r->status == 200 ? parse_range(header(r, "Range"), len, &from, &len) : 0;
    if (range < 0) {
        reply_error(r, HOST_BAD_RANGE, NULL, "the file has %lld bytes", (long long)st.st_size);
        return NULL;
    }
    int fd = r->fd;
    r->fd = -1; /* the response closes it */
    struct MHD_Response *response = MHD_create_response_from_fd_at_offset64(len, fd, from);
    if (!response)
        return NULL;
    if (range) {
        r->status = 206;
        snprintf(text, sizeof(text), "bytes %llu-%llu/%lld", (unsigned long long)from,
                 (unsigned long long)(from + len - 1), (long long)st.st_size);
        add(response, "Content-Range", text);
    }
    add(response, "Accept-Ranges", "bytes");
    return response;
}

static struct MHD_Response *make_response(struct request *r)
{
    struct MHD_Response *response = NULL;
    if (r->fd >= 0 && (response = file_response(r)))
        return response;
    if (r->out) {
        r->text = json_dumps(r->out, JSON_COMPACT);
        r->text_len = r->text ? strlen(r->text) : 0;
    }
    response =
        MHD_create_response_from_buffer(r->text_len, r->text ? r->text : (void *)"",
                                        r->text ? MHD_RESPMEM_MUST_FREE : MHD_RESPMEM_PERSISTENT);
    if (response)
        r->text = NULL;
    return response;
}

static void add_headers(struct request *r, struct MHD_Response *response)
{
    char text[192];
    for (unsigned i = 0; i < sizeof(security_headers) / sizeof(security_headers[0]); i++)
        add(response, security_headers[i].name, security_headers[i].value);
    add(response, "Content-Type", r->type);
    add(response, "Location", r->location);
    add(response, "Set-Cookie", r->cookie);
    add(response, "Cache-Control",
        r->cacheable ? "public, max-age=31536000, immutable"
        : *r->etag   ? "no-cache"
                     : "no-store");
    if (r->gzip)
        add(response, "Content-Encoding", "gzip");
    if (*r->etag)
        add(response, "ETag", r->etag);
    if (r->version) {
        snprintf(text, sizeof(text), "\"%llu\"", (unsigned long long)r->version);
        add(response, "ETag", text);
    }
    if (*r->file_name) {
        snprintf(text, sizeof(text), "attachment; filename=\"%s\"", r->file_name);
        add(response, "Content-Disposition", text);
    }
    if (r->retry_after) {
        snprintf(text, sizeof(text), "%u", r->retry_after);
        add(response, "Retry-After", text);
    }
    if (r->status == 401)
        add(response, "WWW-Authenticate", "Bearer");
}

static enum MHD_Result send_answer(struct request *r)
{
    struct MHD_Response *response = make_response(r);
    if (!response)
        return MHD_NO;
    add_headers(r, response);
    enum MHD_Result result = MHD_queue_response(r->connection, (unsigned)r->status, response);
    MHD_destroy_response(response);
    return result;
}

/* ---- WebSockets: RFC 6455, section 4.2.2 ---- */

static void upgrade_now(void *cls, struct MHD_Connection *connection, void *con_cls,
                        const char *extra, size_t extra_len, MHD_socket socket,
                        struct MHD_UpgradeResponseHandle *handle)
{
    struct request *r = cls;
    r->upgraded(r, socket, extra, extra_len, handle);
}

static bool accept_of(struct request *r, char out[64])
{
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    const char *key = header(r, "Sec-WebSocket-Key"), *version = header(r, "Sec-WebSocket-Version");
    const char *upgrade = header(r, "Upgrade");
    char text[128];
    uint8_t digest[20];
    if (!key || strlen(key) != 24 || !version || strcmp(version, "13") || !upgrade ||
        strcasecmp(upgrade, "websocket"))
        return false;
    snprintf(text, sizeof(text), "%s%s", key, guid);
    gnutls_hash_fast(GNUTLS_DIG_SHA1, text, strlen(text), digest);
    gnutls_datum_t raw = {digest, sizeof(digest)}, encoded = {NULL, 0};
    if (gnutls_base64_encode2(&raw, &encoded))
        return false;
    snprintf(out, 64, "%.*s", (int)encoded.size, encoded.data);
    gnutls_free(encoded.data);
    return true;
}

static enum MHD_Result send_upgrade(struct request *r)
{
    char accept[64];
    if (!accept_of(r, accept)) {
        reply_error(r, HOST_BAD_REQUEST, NULL, "this is a WebSocket (RFC 6455, version 13)");
        return send_answer(r);
    }
    struct MHD_Response *response = MHD_create_response_for_upgrade(upgrade_now, r);
    if (!response)
        return MHD_NO;
    add(response, "Upgrade", "websocket");
    add(response, "Sec-WebSocket-Accept", accept);
    enum MHD_Result result =
        MHD_queue_response(r->connection, MHD_HTTP_SWITCHING_PROTOCOLS, response);
    MHD_destroy_response(response);
    return result;
}

/* ---- Bodies ---- */

static void take_body(struct request *r, const char *data, size_t len)
{
    if (r->status)
        return;
    if (r->route && r->route->op->flags & (OP_UPLOAD | OP_SPOOL)) {
        size_t done = 0;
        if (r->route->op->flags & OP_SPOOL && r->body_len + len > GUESTS_FILE_MAX) {
            reply_error(r, HOST_TOO_LARGE, NULL, "the body is longer than %u bytes",
                        GUESTS_FILE_MAX);
            return;
        }
        while (done < len && r->upload_fd >= 0) {
            ssize_t n = write(r->upload_fd, data + done, len - done);
            if (n < 0 && errno == EINTR)
                continue;
            if (n <= 0) {
                reply_error(r,
                            errno == ENOSPC || errno == EDQUOT || errno == EFBIG ? HOST_NO_SPACE
                                                                                 : HOST_INTERNAL,
                            NULL, "the upload cannot be written: %s", strerror(errno));
                return;
            }
            done += (size_t)n;
        }
        r->body_len += len;
        return;
    }
    if (r->body_len + len > REST_BODY_MAX) {
        reply_error(r, HOST_TOO_LARGE, NULL, "the body is longer than %u bytes", REST_BODY_MAX);
        return;
    }
    if (r->body_len + len > r->body_room) {
        size_t room = 2 * (r->body_len + len) + 256;
        char *more = realloc(r->body, room);
        if (!more) {
            reply_error(r, HOST_UNAVAILABLE, NULL, "no memory");
            return;
        }
        r->body = more;
        r->body_room = room;
    }
    memcpy(r->body + r->body_len, data, len);
    r->body_len += len;
}

/* The parser calls itself for each level: a short text must not use up the stack. */
static bool too_deep(const char *text, size_t len)
{
    unsigned depth = 0;
    bool quoted = false;
    for (size_t i = 0; i < len; i++) {
        if (quoted) {
            if (text[i] == '\\')
                i++;
            else if (text[i] == '"')
                quoted = false;
        } else if (text[i] == '"') {
            quoted = true;
        } else if (text[i] == '[' || text[i] == '{') {
            if (++depth > JSON_DEPTH_MAX)
                return true;
        } else if ((text[i] == ']' || text[i] == '}') && depth) {
            depth--;
        }
    }
    return false;
}

static bool parse_body(struct request *r)
{
    const char *type = header(r, "Content-Type");
    struct host_problem p;
    json_error_t where;
    if (!r->route->schema || r->route->op->flags & (OP_UPLOAD | OP_SPOOL))
        return true;
    if (!r->body_len && r->route->body_optional)
        return true;
    if (r->body_len && (!type || (strncasecmp(type, "application/json", 16) &&
                                  strncasecmp(type, "application/merge-patch+json", 28)))) {
        reply_error(r, HOST_BAD_TYPE, NULL, "Content-Type must be application/json");
        return false;
    }
    if (too_deep(r->body ? r->body : "", r->body_len)) {
        reply_error(r, HOST_BAD_REQUEST, NULL, "the body is nested more than %d levels deep",
                    JSON_DEPTH_MAX);
        return false;
    }
    r->json = json_loadb(r->body ? r->body : "", r->body_len,
                         JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &where);
    if (!r->json) {
        /* The parser's message can quote the body, and a body can hold a password. */
        reply_error(r, HOST_BAD_REQUEST, NULL, "the body is no JSON: line %d, column %d",
                    where.line, where.column);
        return false;
    }
    if (schema_check(r->rest->document, r->route->schema, r->json, &p)) {
        reply_problem(r, &p);
        return false;
    }
    return true;
}

/* ---- The life of a request ---- */

static void begin_upload(struct request *r)
{
    struct host_problem p = {0};
    const char *offset = header(r, "Upload-Offset"), *type = header(r, "Content-Type");
    const char *length = header(r, "Content-Length");
    char *end = NULL;
    uint64_t from = offset ? strtoull(offset, &end, 10) : 0;
    if (!type || strncasecmp(type, "application/octet-stream", 24)) {
        reply_error(r, HOST_BAD_TYPE, NULL, "Content-Type must be application/octet-stream");
        return;
    }
    if (!offset || !*offset || *end || !length) {
        reply_error(r, HOST_BAD_REQUEST, NULL,
                    "Upload-Offset and Content-Length must say where the bytes belong");
        return;
    }
    uint64_t size = (uint64_t)json_integer_value(json_object_get(r->object, "size"));
    if (from > size || strtoull(length, NULL, 10) > size - from) {
        reply_error(r, HOST_TOO_LARGE, NULL, "the upload has %llu bytes", (unsigned long long)size);
        return;
    }
    r->upload_fd = upload_open(r->host, r->object, from, &p);
    if (r->upload_fd < 0)
        reply_problem(r, &p);
}

static void begin_spool(struct request *r)
{
    r->upload_fd = open(r->host->places.data, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (r->upload_fd < 0)
        reply_error(r, HOST_UNAVAILABLE, NULL, "%s: %s", r->host->places.data, strerror(errno));
}

/* The head is there: everything that can be refused now is. */
static void begin(struct request *r)
{
    struct host *host = r->host;
    const char *length = header(r, "Content-Length");
    host_lock(host);
    if (strncmp(r->path, API "/", sizeof(API)) && strcmp(r->path, API)) {
        if (!strcmp(r->path, "/metrics") && rest_authenticate(r) &&
            (r->who.role >= ROLE_VIEWER ||
             (reply_error(r, HOST_FORBIDDEN, NULL, "needs viewer"), false)))
            rest_metrics(r);
        else if (!r->status)
            rest_serve_file(r);
    } else if (rest_find_route(r) && rest_authenticate(r) && rest_check_query(r) &&
               rest_authorize(r)) {
        if (r->route->op->flags & OP_UPLOAD)
            begin_upload(r);
        else if (r->route->op->flags & OP_SPOOL)
            begin_spool(r);
        else if (length && strtoull(length, NULL, 10) > REST_BODY_MAX)
            reply_error(r, HOST_TOO_LARGE, NULL, "the body is longer than %u bytes", REST_BODY_MAX);
    }
    host_unlock(host);
}

static void note(struct request *r)
{
    bool change = strcmp(r->method, "GET") && strcmp(r->method, "HEAD");
    if (change || r->status == 401 || r->status == 403)
        host_audit(r->host, r->known ? r->who.user : NULL, r->who.address, r->method, r->path,
                   r->status);
}

/* Run the handler with the lock. */
static void run_locked(struct request *r)
{
    struct host *host = r->host;
    host_lock(host);
    /* The body took its time: is it still so? */
    if (rest_authorize(r) && !answers_replay(r)) {
        r->route->op->fn(r);
        if (!r->status && !r->upgraded)
            reply_error(r, HOST_INTERNAL, NULL, "nothing was answered");
        answers_keep(r);
    }
    note(r);
    host_unlock(host);
}

static void run_slow(struct request *r)
{
    r->object = NULL; /* not ours without the lock */
    r->route->op->fn(r);
    host_lock(r->host);
    note(r);
    host_unlock(r->host);
}

static void *worker(void *opaque)
{
    struct rest *rest = opaque;
    pthread_mutex_lock(&rest->queue_lock);
    for (;;) {
        while (!rest->queue && !rest->closing)
            pthread_cond_wait(&rest->queue_changed, &rest->queue_lock);
        struct request *r = rest->queue;
        if (!r)
            break;
        rest->queue = r->next;
        if (!rest->queue)
            rest->queue_end = &rest->queue;
        pthread_mutex_unlock(&rest->queue_lock);
        run_slow(r);
        r->done = true;
        MHD_resume_connection(r->connection);
        pthread_mutex_lock(&rest->queue_lock);
        rest->queued--;
    }
    pthread_mutex_unlock(&rest->queue_lock);
    return NULL;
}

/* @return false: too many wait already, and it is answered */
static bool run_later(struct request *r)
{
    struct rest *rest = r->rest;
    pthread_mutex_lock(&rest->queue_lock);
    bool room = rest->queued < QUEUE_MAX && !rest->closing;
    if (room) {
        MHD_suspend_connection(r->connection);
        r->next = NULL;
        *rest->queue_end = r;
        rest->queue_end = &r->next;
        rest->queued++;
        pthread_cond_signal(&rest->queue_changed);
    }
    pthread_mutex_unlock(&rest->queue_lock);
    if (!room)
        reply_error(r, HOST_UNAVAILABLE, NULL, "too much to do; try again");
    return room;
}

static struct request *request_new(struct listener *listener, struct MHD_Connection *connection,
                                   const char *method, const char *url)
{
    struct request *r = calloc(1, sizeof(*r));
    if (!r)
        return NULL;
    r->rest = listener->rest;
    r->host = listener->rest->host;
    r->listener = listener;
    r->connection = connection;
    r->fd = r->upload_fd = -1;
    snprintf(r->method, sizeof(r->method), "%s", method);
    r->path = strdup(url);
    if (r->path)
        return r;
    free(r);
    return NULL;
}

static void finish(struct request *r)
{
    if (r->route && r->route->op->flags & OP_UPLOAD) {
        host_lock(r->host);
        if (r->upload_fd >= 0)
            upload_close(r->host, r->param[0], r->upload_fd);
        r->upload_fd = -1;
        host_unlock(r->host);
    }
}

/* Whoever is refused hears it after the body has come, unless that is a long one: an answer before
 * would end the connection, and often be lost with it. */
static bool has_small_body(struct request *r)
{
    const char *length = header(r, "Content-Length");
    unsigned long long n = length ? strtoull(length, NULL, 10) : 0;
    return n <= DRAINED_MAX && !header(r, "Expect") && !header(r, "Transfer-Encoding");
}

static enum MHD_Result handle(void *cls, struct MHD_Connection *connection, const char *url,
                              const char *method, const char *version, const char *data,
                              size_t *size, void **context)
{
    struct request *r = *context;
    if (!r) {
        *context = r = request_new(cls, connection, method, url);
        if (!r)
            return MHD_NO;
        begin(r);
        if (r->status) {
            host_lock(r->host);
            note(r);
            host_unlock(r->host);
        }
        return r->status && !has_small_body(r) ? send_answer(r) : MHD_YES;
    }
    if (*size) {
        take_body(r, data, *size);
        *size = 0;
        return MHD_YES;
    }
    if (r->done)
        return send_answer(r);
    finish(r);
    if (!r->status && parse_body(r)) {
        if (!(r->route->op->flags & OP_SLOW))
            run_locked(r);
        else if (run_later(r))
            return MHD_YES;
    }
    return r->upgraded && !r->status ? send_upgrade(r) : send_answer(r);
}

static void completed(void *cls, struct MHD_Connection *connection, void **context,
                      enum MHD_RequestTerminationCode code)
{
    struct request *r = *context;
    *context = NULL;
    if (!r)
        return;
    finish(r);
    json_decref(r->json);
    json_decref(r->out);
    if (r->body)
        explicit_bzero(r->body, r->body_len); /* it may hold a password */
    free(r->body);
    if (r->upload_fd >= 0)
        close(r->upload_fd);
    free(r->text);
    free(r->path);
    free(r->parts);
    free(r->upgrade);
    if (r->fd >= 0)
        close(r->fd);
    free(r);
}

/* ---- Listening ---- */

static void be_silent(void *cls, const char *fmt, va_list args) {}

static int start(struct rest *rest, struct listener *l, struct mull_error *err)
{
    unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_USE_INTERNAL_POLLING_THREAD |
                     MHD_ALLOW_SUSPEND_RESUME | MHD_ALLOW_UPGRADE | MHD_USE_ITC |
                     MHD_USE_ERROR_LOG | (l->local ? 0 : MHD_USE_TLS);
    struct MHD_OptionItem tls[] = {
        {MHD_OPTION_HTTPS_MEM_KEY, 0, rest->key},
        {MHD_OPTION_HTTPS_MEM_CERT, 0, rest->cert},
        {MHD_OPTION_HTTPS_PRIORITIES, 0,
         (void *)"SECURE128:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2:%SERVER_PRECEDENCE"},
        {MHD_OPTION_PER_IP_CONNECTION_LIMIT, REST_CONNECTIONS_PER_IP, NULL},
        {MHD_OPTION_END, 0, NULL}};
    struct MHD_OptionItem none[] = {{MHD_OPTION_END, 0, NULL}};
    l->rest = rest;
    l->daemon = MHD_start_daemon(
        flags, 0, NULL, NULL, handle, l, MHD_OPTION_EXTERNAL_LOGGER, be_silent, NULL,
        MHD_OPTION_LISTEN_SOCKET, l->fd, MHD_OPTION_CONNECTION_LIMIT, REST_CONNECTIONS,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)REST_CONNECTION_BYTES,
        MHD_OPTION_CONNECTION_TIMEOUT, REST_IDLE_SECONDS, MHD_OPTION_STRICT_FOR_CLIENT, 1,
        MHD_OPTION_NOTIFY_COMPLETED, completed, NULL, MHD_OPTION_ARRAY, l->local ? none : tls,
        MHD_OPTION_END);
    if (!l->daemon) {
        close(l->fd);
        return mull_fail(err, EIO, "HTTP: the server cannot be started");
    }
    return 0;
}

static int listen_local(struct rest *rest, struct mull_error *err)
{
    struct host *host = rest->host;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char *path = host_path(host->places.runtime, "mulliond.sock");
    int ret = 0, fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (!path || strlen(path) >= sizeof(address.sun_path)) {
        ret = mull_fail(err, ENAMETOOLONG, "%s: too long for a socket", path);
    } else {
        strcpy(address.sun_path, path);
        /* The lock on the data says that nobody else serves it. */
        unlink(path);
        mode_t old = umask(0177);
        ret =
            bind(fd, (struct sockaddr *)&address, sizeof(address)) || listen(fd, 512) ? -errno : 0;
        umask(old);
        if (ret)
            mull_fail(err, -ret, "%s: %s", path, strerror(-ret));
        struct group *group = host->places.system ? getgrnam("mullion") : NULL;
        if (!ret && group && !chown(path, (uid_t)-1, group->gr_gid))
            chmod(path, 0660);
    }
    free(path);
    if (ret) {
        close(fd);
        return ret;
    }
    rest->local.fd = fd;
    rest->local.local = true;
    return start(rest, &rest->local, err);
}

static int parse_listen(const char *text, struct sockaddr_storage *out, socklen_t *len,
                        struct mull_error *err)
{
    char host[128];
    const char *colon = strrchr(text, ':');
    char *end = NULL;
    long port = colon ? strtol(colon + 1, &end, 10) : -1;
    size_t n = colon ? (size_t)(colon - text) : 0;
    struct sockaddr_in *in = (struct sockaddr_in *)out;
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)out;
    memset(out, 0, sizeof(*out));
    if (!colon || *end || port < 0 || port > 65535 || n >= sizeof(host))
        return mull_fail(err, EINVAL, "listen: %s: give ADDRESS:PORT or none", text);
    if (*text == '[' && n > 2) {
        text++;
        n -= 2;
    }
    memcpy(host, text, n);
    host[n] = '\0';
    if (inet_pton(AF_INET, host, &in->sin_addr) == 1) {
        in->sin_family = AF_INET;
        in->sin_port = htons((uint16_t)port);
        *len = sizeof(*in);
    } else if (inet_pton(AF_INET6, host, &in6->sin6_addr) == 1) {
        in6->sin6_family = AF_INET6;
        in6->sin6_port = htons((uint16_t)port);
        *len = sizeof(*in6);
    } else {
        return mull_fail(err, EINVAL, "listen: %s: is no address", host);
    }
    return 0;
}

static void make_url(struct host *host, int fd)
{
    struct sockaddr_storage address;
    socklen_t len = sizeof(address);
    char text[64] = "";
    unsigned port = 0;
    getsockname(fd, (struct sockaddr *)&address, &len);
    if (address.ss_family == AF_INET) {
        struct sockaddr_in *in = (struct sockaddr_in *)&address;
        inet_ntop(AF_INET, &in->sin_addr, text, sizeof(text));
        port = ntohs(in->sin_port);
    } else {
        struct sockaddr_in6 *in = (struct sockaddr_in6 *)&address;
        text[0] = '[';
        inet_ntop(AF_INET6, &in->sin6_addr, text + 1, sizeof(text) - 2);
        strcat(text, "]");
        port = ntohs(in->sin6_port);
    }
    if (asprintf(&host->url, "https://%s:%u/",
                 !strcmp(text, "0.0.0.0") || !strcmp(text, "[::]") ? "localhost" : text, port) < 0)
        host->url = NULL;
}

static int listen_tls(struct rest *rest, struct mull_error *err)
{
    struct host *host = rest->host;
    struct sockaddr_storage address;
    socklen_t len = 0;
    int one = 1;
    if (!strcmp(host->options.listen, "none"))
        return 0;
    int ret = parse_listen(host->options.listen, &address, &len, err);
    if (!ret)
        ret = tls_open(rest, err);
    if (ret)
        return ret;
    int fd = socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, len) || listen(fd, 1024)) {
        int code = errno;
        close(fd);
        return mull_fail(err, code, "listen: %s: %s", host->options.listen, strerror(code));
    }
    make_url(host, fd);
    rest->tls.fd = fd;
    return start(rest, &rest->tls, err);
}

int rest_open(struct host *host, struct rest **out, struct mull_error *err)
{
    struct rest *rest = calloc(1, sizeof(*rest));
    struct rlimit files;
    if (!rest)
        return mull_fail(err, ENOMEM, "HTTP: no memory");
    *out = rest;
    rest->host = host;
    rest->queue_end = &rest->queue;
    pthread_mutex_init(&rest->queue_lock, NULL);
    pthread_cond_init(&rest->queue_changed, NULL);
    if (!getrlimit(RLIMIT_NOFILE, &files)) {
        files.rlim_cur = files.rlim_max < 65536 ? files.rlim_max : 65536;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    int ret = rest_routes_open(rest, err);
    if (!ret && !(rest->limits = limits_open(&host->options)))
        ret = mull_fail(err, ENOMEM, "HTTP: no memory");
    if (!ret)
        ret = sockets_open(rest, err);
    while (!ret && rest->workers < 4) {
        int code = pthread_create(&rest->worker[rest->workers], NULL, worker, rest);
        if (code)
            ret = mull_fail(err, code, "HTTP: %s", strerror(code));
        else
            rest->workers++;
    }
    if (!ret)
        ret = listen_tls(rest, err);
    if (!ret)
        ret = listen_local(rest, err);
    return ret;
}

void rest_stop(struct rest *rest)
{
    pthread_mutex_lock(&rest->queue_lock);
    rest->closing = true;
    pthread_cond_broadcast(&rest->queue_changed);
    pthread_mutex_unlock(&rest->queue_lock);
    for (unsigned i = 0; i < rest->workers; i++)
        pthread_join(rest->worker[i], NULL);
    rest->workers = 0;
}

void rest_close(struct rest *rest)
{
    if (!rest)
        return;
    rest_stop(rest);
    sockets_close(rest);
    if (rest->tls.daemon)
        MHD_stop_daemon(rest->tls.daemon);
    if (rest->local.daemon) {
        MHD_stop_daemon(rest->local.daemon);
        char *path = host_path(rest->host->places.runtime, "mulliond.sock");
        if (path)
            unlink(path);
        free(path);
    }
    rest_routes_close(rest);
    limits_close(rest->limits);
    free(rest->cert);
    if (rest->key)
        explicit_bzero(rest->key, strlen(rest->key));
    free(rest->key);
    pthread_mutex_destroy(&rest->queue_lock);
    pthread_cond_destroy(&rest->queue_changed);
    free(rest);
}
