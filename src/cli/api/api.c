/*
 * See api.h. The host may be anybody's: what it answers is bounded.
 */
#include "cli/api/api.h"

#include <errno.h>
#include <gnutls/gnutls.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>

#include "cli/api/internal.h"

#define ANSWER_MAX (64u << 20)
#define CONNECT_SECONDS 20L
#define PAGES_MAX 10000

/* ---- The connection ---- */

/* What every handle needs to know of the host. */
void api_aim(struct api *a, CURL *handle)
{
    const struct api_target *t = &a->target;

    a->curl.setopt(handle, CURLOPT_NOSIGNAL, 1L);
    a->curl.setopt(handle, CURLOPT_CONNECTTIMEOUT, CONNECT_SECONDS);
    a->curl.setopt(handle, CURLOPT_PROTOCOLS_STR, "http,https");
    a->curl.setopt(handle, CURLOPT_USERAGENT, "mullion/" MULLION_VERSION);
    if (t->socket) {
        a->curl.setopt(handle, CURLOPT_UNIX_SOCKET_PATH, t->socket);
    } else if (t->pin) {
        /* The key says who it is; a certificate of the host's own making need not be trusted. */
        a->curl.setopt(handle, CURLOPT_PINNEDPUBLICKEY, t->pin);
        a->curl.setopt(handle, CURLOPT_SSL_VERIFYPEER, 0L);
        a->curl.setopt(handle, CURLOPT_SSL_VERIFYHOST, 0L);
    }
}

int api_open(const struct api_target *target, struct api **out, struct mull_error *err)
{
    struct api *a = calloc(1, sizeof(*a));

    *out = NULL;
    if (!a)
        return mull_fail(err, ENOMEM, "no memory");
    a->target = *target;
    int ret = mull_curl_load(&a->curl, err);
    if (!ret && !(a->handle = a->curl.init()))
        ret = mull_fail(err, ENOMEM, "libcurl: no memory");
    if (ret) {
        api_close(a);
        return ret;
    }
    api_aim(a, a->handle);
    a->curl.setopt(a->handle, CURLOPT_COOKIEFILE, ""); /* keep a session's cookie in memory */
    *out = a;
    return 0;
}

void api_close(struct api *a)
{
    if (!a)
        return;
    if (a->handle)
        a->curl.cleanup(a->handle);
    mull_curl_unload(&a->curl);
    free(a->guest_user);
    free(a);
}

int api_status(const struct api *a)
{
    return a->status;
}

long api_http_status(const struct api *a)
{
    return a->http;
}

const char *api_etag(const struct api *a)
{
    return a->etag;
}

/* ---- Names in paths ---- */

char *api_escape(struct api *a, const char *text)
{
    char *escaped = a->curl.escape(a->handle, text, 0), *copy = escaped ? strdup(escaped) : NULL;

    a->curl.free(escaped);
    return copy;
}

char *api_path(struct api *a, const char *format, ...)
{
    char *out = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&out, &size);
    va_list args;

    if (!f)
        return NULL;
    va_start(args, format);
    for (; *format; format++) {
        if (format[0] != '%' || format[1] != 's') {
            fputc(*format, f);
            continue;
        }
        char *escaped = api_escape(a, va_arg(args, const char *));

        fputs(escaped ? escaped : "", f);
        free(escaped);
        format++;
    }
    va_end(args);
    if (fclose(f)) {
        free(out);
        return NULL;
    }
    return out;
}

/* ---- One request ---- */

struct request {
    const char *method, *path, *type;
    const void *body;
    size_t length;
    const char *header, *etag; /* NULL: none */
};

struct answer {
    struct api *api;
    FILE *out; /* the body goes there where the status is 200; else into @body */
    char *body;
    size_t length;
    bool too_large, to_file;
    uint64_t written;
    int (*progress)(void *opaque, uint64_t done, uint64_t total);
    void *opaque;
};

static size_t on_body(char *data, size_t one, size_t length, void *opaque)
{
    struct answer *r = opaque;

    if (r->out) {
        r->api->curl.getinfo(r->api->handle, CURLINFO_RESPONSE_CODE, &r->api->http);
        if (r->api->http == 200) {
            r->to_file = true;
            r->written += length;
            return fwrite(data, 1, length, r->out);
        }
    }
    if (length > ANSWER_MAX - r->length) {
        r->too_large = true;
        return 0;
    }
    char *grown = realloc(r->body, r->length + length + 1);
    if (!grown)
        return 0;
    r->body = grown;
    memcpy(r->body + r->length, data, length);
    r->length += length;
    r->body[r->length] = '\0';
    return length;
}

static size_t on_header(char *line, size_t one, size_t length, void *opaque)
{
    struct api *a = opaque;
    size_t at = 5, n = 0;

    if (length < 5 || strncasecmp(line, "etag:", 5))
        return length;
    while (at < length && line[at] == ' ')
        at++;
    while (at < length && line[at] != '\r' && line[at] != '\n' && n < sizeof(a->etag) - 1)
        a->etag[n++] = line[at++];
    a->etag[n] = '\0';
    return length;
}

static int on_progress(void *opaque, curl_off_t total, curl_off_t done, curl_off_t ut,
                       curl_off_t ud)
{
    struct answer *r = opaque;

    return r->progress ? r->progress(r->opaque, (uint64_t)done, (uint64_t)total) : 0;
}

/* A POST that is sent again after a lost connection must not do its work twice. */
static bool idempotency_key(char out[64])
{
    unsigned char random[16] = {0};
    int n = snprintf(out, 64, "Idempotency-Key: ");

    if (getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random))
        return false; /* one that others may have is worse than none */
    for (unsigned i = 0; i < sizeof(random); i++)
        n += snprintf(out + n, 64 - (size_t)n, "%02x", random[i]);
    return true;
}

static struct curl_slist *headers_of(struct api *a, const struct request *q)
{
    struct curl_slist *list = a->curl.append(NULL, "Expect:");
    char line[4096];

    if (q->type) {
        snprintf(line, sizeof(line), "Content-Type: %s", q->type);
        list = a->curl.append(list, line);
    }
    if (a->target.token) {
        snprintf(line, sizeof(line), "Authorization: Bearer %s", a->target.token);
        list = a->curl.append(list, line);
    }
    if (q->etag) {
        snprintf(line, sizeof(line), "If-Match: %s", q->etag);
        list = a->curl.append(list, line);
    }
    if (!strcmp(q->method, "POST") && idempotency_key(line))
        list = a->curl.append(list, line);
    if (a->guest_user)
        list = a->curl.append(list, a->guest_user);
    return q->header ? a->curl.append(list, q->header) : list;
}

int api_set_guest_user(struct api *a, const char *user, const char *password,
                       struct mull_error *err)
{
    gnutls_datum_t text = {0};
    char *plain = NULL;
    int n = asprintf(&plain, "%s:%s", user, password);

    free(a->guest_user);
    a->guest_user = NULL;
    if (n < 0)
        return mull_fail(err, ENOMEM, "no memory");
    gnutls_datum_t in = {(unsigned char *)plain, (unsigned)n};
    if (strchr(user, ':'))
        n = mull_fail(err, EINVAL, "--user: a name has no colon");
    else if (gnutls_base64_encode2(&in, &text) ||
             asprintf(&a->guest_user, "Guest-Authorization: Basic %.*s", (int)text.size,
                      (const char *)text.data) < 0)
        n = mull_fail(err, ENOMEM, "no memory");
    gnutls_free(text.data);
    free(plain);
    return n < 0 ? n : 0;
}

char *api_url(const struct api *a, const char *path)
{
    const char *base = a->target.socket ? "http://localhost" : a->target.url;
    const char *root = strncmp(path, "/api/", 5) ? "/api/v1" : "";
    size_t length = strlen(base), size;

    while (length && base[length - 1] == '/')
        length--;
    size = length + strlen(root) + strlen(path) + 1;
    char *url = malloc(size);
    if (url)
        snprintf(url, size, "%.*s%s%s", (int)length, base, root, path);
    return url;
}

static int unreachable(struct api *a, CURLcode code, struct mull_error *err)
{
    const char *why = a->curl.text(code);

    a->status = API_UNREACHABLE;
    if (a->target.socket)
        return mull_fail(
            err, ECONNREFUSED,
            "no host answers at %s (%s); start it with mullion host start, or name one "
            "with --host URL",
            a->target.socket, why);
    if (code == CURLE_SSL_PINNEDPUBKEYNOTMATCH)
        return mull_fail(err, EACCES,
                         "%s shows another key than the one you trusted; if that is right, add the "
                         "context again",
                         a->target.url);
    if (code == CURLE_PEER_FAILED_VERIFICATION)
        return mull_fail(
            err, EACCES,
            "%s: its certificate is not one that this system trusts; trust its key with "
            "mullion context add NAME %s",
            a->target.url, a->target.url);
    return mull_fail(err, ECONNREFUSED, "%s: %s", a->target.url, why);
}

/* Send @q. @return 0: an answer of whatever status came */
static int perform(struct api *a, const struct request *q, struct answer *r, struct mull_error *err)
{
    struct curl_slist *headers = headers_of(a, q);
    char *url = api_url(a, q->path);
    CURL *h = a->handle;

    a->http = 0;
    a->etag[0] = '\0';
    a->status = API_FAILED;
    r->api = a;
    a->curl.setopt(h, CURLOPT_URL, url);
    a->curl.setopt(h, CURLOPT_CUSTOMREQUEST, q->method);
    a->curl.setopt(h, CURLOPT_HTTPHEADER, headers);
    a->curl.setopt(h, CURLOPT_WRITEFUNCTION, on_body);
    a->curl.setopt(h, CURLOPT_WRITEDATA, r);
    a->curl.setopt(h, CURLOPT_HEADERFUNCTION, on_header);
    a->curl.setopt(h, CURLOPT_HEADERDATA, a);
    a->curl.setopt(h, CURLOPT_XFERINFOFUNCTION, on_progress);
    a->curl.setopt(h, CURLOPT_XFERINFODATA, r);
    a->curl.setopt(h, CURLOPT_NOPROGRESS, r->progress ? 0L : 1L);
    if (q->body) {
        a->curl.setopt(h, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)q->length);
        a->curl.setopt(h, CURLOPT_POSTFIELDS, q->body);
    } else if (!strcmp(q->method, "GET")) {
        a->curl.setopt(h, CURLOPT_HTTPGET, 1L);
    } else {
        a->curl.setopt(h, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)0);
        a->curl.setopt(h, CURLOPT_POSTFIELDS, "");
    }
    CURLcode code = url ? a->curl.perform(h) : CURLE_OUT_OF_MEMORY;
    a->curl.getinfo(h, CURLINFO_RESPONSE_CODE, &a->http);
    a->curl.setopt(h, CURLOPT_HTTPHEADER, NULL);
    a->curl.free_list(headers);
    free(url);
    if (r->too_large)
        return mull_fail(err, EMSGSIZE, "the host's answer is larger than %u MiB",
                         ANSWER_MAX >> 20);
    if (code == CURLE_ABORTED_BY_CALLBACK)
        return mull_fail(err, EINTR, "interrupted");
    if (code == CURLE_WRITE_ERROR)
        return mull_fail(err, errno ? errno : EIO, "writing what the host sends: %s",
                         strerror(errno ? errno : EIO));
    return code == CURLE_OK ? 0 : unreachable(a, code, err);
}

/* ---- What an answer means ---- */

static int meaning(long http)
{
    switch (http) {
    case 401:
    case 403:
        return API_DENIED;
    case 404:
        return API_NOT_FOUND;
    case 409:
    case 412:
        return API_CONFLICT;
    default:
        return http >= 200 && http < 300 ? API_DONE : API_FAILED;
    }
}

int api_problem(const json_t *problem, long http, struct mull_error *err)
{
    const char *detail = json_string_value(json_object_get(problem, "detail"));
    const char *title = json_string_value(json_object_get(problem, "title"));
    const char *field = json_string_value(json_object_get(problem, "field"));

    if (!detail)
        detail = title;
    if (!detail)
        return mull_fail(err, EIO, "the host answers HTTP %ld", http);
    return field && *field
               ? mull_fail(err, EIO, "%s: %s", *field == '/' ? field + 1 : field, detail)
               : mull_fail(err, EIO, "%s", detail);
}

/* The answer as JSON; takes @r's body. */
static json_t *judge(struct api *a, struct answer *r, struct mull_error *err)
{
    json_t *body = r->length ? json_loadb(r->body, r->length, JSON_DECODE_ANY, NULL) : json_null();

    free(r->body);
    r->body = NULL;
    a->status = meaning(a->http);
    if (a->status == API_DONE && body)
        return body;
    if (a->status == API_DONE) {
        a->status = API_FAILED;
        mull_fail(err, EPROTO, "what answers is no Mullion host: its answer is not JSON");
        return NULL;
    }
    api_problem(body, a->http, err);
    json_decref(body);
    return NULL;
}

static json_t *call(struct api *a, const struct request *q, struct mull_error *err)
{
    struct answer r = {0};

    if (perform(a, q, &r, err)) {
        free(r.body);
        return NULL;
    }
    return judge(a, &r, err);
}

json_t *api_call_if(struct api *a, const char *method, const char *path, const char *etag,
                    json_t *body, struct mull_error *err)
{
    char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
    bool lost = body && !text;
    struct request q = {.method = method,
                        .path = path,
                        .body = text,
                        .length = text ? strlen(text) : 0,
                        .etag = etag};

    if (text)
        q.type = strcmp(method, "PATCH") ? "application/json" : "application/merge-patch+json";
    json_decref(body);
    a->status = API_FAILED;
    if (lost || !path) {
        mull_fail(err, ENOMEM, "no memory");
        free(text);
        return NULL;
    }
    json_t *answer = call(a, &q, err);
    free(text);
    return answer;
}

json_t *api_call(struct api *a, const char *method, const char *path, json_t *body,
                 struct mull_error *err)
{
    return api_call_if(a, method, path, NULL, body, err);
}

json_t *api_send(struct api *a, const char *method, const char *path, const char *header,
                 const void *data, size_t length, struct mull_error *err)
{
    struct request q = {.method = method,
                        .path = path,
                        .type = "application/octet-stream",
                        .header = header,
                        .body = data,
                        .length = length};

    return call(a, &q, err);
}

json_t *api_call_session(struct api *a, const char *csrf, const char *path, const char *body,
                         struct mull_error *err)
{
    char header[256];
    struct request q = {.method = "POST",
                        .path = path,
                        .type = "application/json",
                        .header = header,
                        .body = body,
                        .length = body ? strlen(body) : 0};

    snprintf(header, sizeof(header), "X-CSRF-Token: %s", csrf);
    return call(a, &q, err);
}

json_t *api_list(struct api *a, const char *path, struct mull_error *err)
{
    json_t *all = json_array();
    char *at = strdup(path);

    for (unsigned page = 0; at && all && page < PAGES_MAX; page++) {
        json_t *answer = api_call(a, "GET", at, NULL, err);
        const json_t *items = json_object_get(answer, "items");
        const char *next = json_string_value(json_object_get(answer, "next"));

        if (!answer || json_array_extend(all, (json_t *)items)) {
            if (answer)
                mull_fail(err, EPROTO, "%s: the host's answer is no list", path);
            json_decref(answer);
            json_decref(all);
            free(at);
            return NULL;
        }
        free(at);
        at = NULL;
        if (next) {
            char *cursor = api_escape(a, next);
            size_t size = strlen(path) + (cursor ? strlen(cursor) : 0) + 16;

            if (cursor && (at = malloc(size)))
                snprintf(at, size, "%s%ccursor=%s", path, strchr(path, '?') ? '&' : '?', cursor);
            free(cursor);
        }
        json_decref(answer);
    }
    free(at);
    return all;
}

int64_t api_download(struct api *a, const char *path, FILE *out,
                     int (*progress)(void *opaque, uint64_t done, uint64_t total), void *opaque,
                     struct mull_error *err)
{
    struct request q = {.method = "GET", .path = path};
    struct answer r = {.out = out, .progress = progress, .opaque = opaque};
    int ret = perform(a, &q, &r, err);

    if (ret) {
        free(r.body);
        return ret;
    }
    if (r.to_file || (a->http == 200 && !r.length)) {
        a->status = API_DONE;
        return (int64_t)r.written;
    }
    json_t *body = judge(a, &r, err);
    if (body)
        ret = mull_fail(err, EPROTO, "%s: the host answers HTTP %ld", path, a->http);
    json_decref(body);
    a->status = a->status == API_DONE ? API_FAILED : a->status;
    return ret ? ret : -EIO;
}
