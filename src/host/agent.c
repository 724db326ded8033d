/* See agent.h. Requests and answers are JSON, a line each; a byte FFh in front of a request makes
 * the agent forget what it has half read, and it answers a "guest-sync-delimited" with FFh in
 * front, so that what an earlier peer had asked for is skipped. */
#include "host/agent.h"

#include <errno.h>
#include <gnutls/gnutls.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define ANSWER_MAX (48u << 20) /* the agent keeps 16 MiB of each output, in base64 */
#define DELIMITER '\xff'
#define FILE_PIECE (256u << 10)
#define CALL_MS 20000
#define POLL_FIRST_MS 10
#define POLL_MOST_MS 500

struct host_agent {
    int fd;
    char *data;
    size_t length, room;
    bool broken; /* an answer is outstanding: what comes next may be it */
};

static long long now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (long long)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* ---- Lines ---- */

static int wait_for(const struct host_agent *a, short what, long long deadline,
                    struct mull_error *err)
{
    for (;;) {
        long long left = deadline - now_ms();
        struct pollfd p = {.fd = a->fd, .events = what};
        int n = left > 0 ? poll(&p, 1, (int)(left < 60000 ? left : 60000)) : 0;

        if (n > 0)
            return 0;
        if (n < 0 && errno != EINTR)
            return mull_fail(err, errno, "guest agent: %s", strerror(errno));
        if (left <= 0)
            return mull_fail(err, ETIMEDOUT,
                             "the guest's agent does not answer; is qemu-guest-agent installed and "
                             "running in the guest?");
    }
}

static int send_all(struct host_agent *a, const char *data, size_t length, long long deadline,
                    struct mull_error *err)
{
    while (length) {
        ssize_t n = send(a->fd, data, length, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n < 0 && errno == EAGAIN) {
            int ret = wait_for(a, POLLOUT, deadline, err);
            if (ret)
                return ret;
        } else if (n < 0 && errno != EINTR) {
            return mull_fail(err, errno, "guest agent: %s", strerror(errno));
        } else if (n > 0) {
            data += n;
            length -= (size_t)n;
        }
    }
    return 0;
}

static int receive(struct host_agent *a, long long deadline, struct mull_error *err)
{
    int ret = wait_for(a, POLLIN, deadline, err);

    if (ret)
        return ret;
    if (a->room - a->length < 4096) {
        size_t room = a->room ? a->room * 2 : 16384;
        char *grown = room <= 2 * ANSWER_MAX ? realloc(a->data, room) : NULL;

        if (!grown)
            return mull_fail(err, EMSGSIZE, "the guest agent's answer is larger than %u MiB",
                             ANSWER_MAX >> 20);
        a->data = grown;
        a->room = room;
    }
    ssize_t n = recv(a->fd, a->data + a->length, a->room - a->length, MSG_DONTWAIT);
    if (n == 0)
        return mull_fail(err, ECONNRESET,
                         "the guest agent's channel was closed: the machine ended");
    if (n < 0 && errno != EAGAIN && errno != EINTR)
        return mull_fail(err, errno, "guest agent: %s", strerror(errno));
    a->length += n > 0 ? (size_t)n : 0;
    return 0;
}

static void drop(struct host_agent *a, size_t length)
{
    a->length -= length;
    memmove(a->data, a->data + length, a->length);
}

/* The next line as JSON; *delimited: FFh was in front of it. */
static json_t *read_answer(struct host_agent *a, bool *delimited, long long deadline,
                           struct mull_error *err)
{
    for (;;) {
        char *end = a->length ? memchr(a->data, '\n', a->length) : NULL;

        if (end) {
            size_t line = (size_t)(end - a->data), from = 0;
            char *mark = memrchr(a->data, DELIMITER, line);

            *delimited = mark != NULL;
            if (mark)
                from = (size_t)(mark - a->data) + 1;
            json_t *answer = json_loadb(a->data + from, line - from, 0, NULL);
            drop(a, line + 1);
            if (answer)
                return answer;
            continue; /* half a line of an earlier answer */
        }
        if (a->length > ANSWER_MAX) {
            mull_fail(err, EMSGSIZE, "the guest agent's answer is larger than %u MiB",
                      ANSWER_MAX >> 20);
            return NULL;
        }
        if (receive(a, deadline, err))
            return NULL;
    }
}

static int send_request(struct host_agent *a, const char *command, json_t *arguments,
                        long long deadline, struct mull_error *err)
{
    json_t *request = json_pack("{s:s, s:o*}", "execute", command, "arguments", arguments);
    char *text = json_dumps(request, JSON_COMPACT);
    int ret = text ? send_all(a, text, strlen(text), deadline, err)
                   : mull_fail(err, EINVAL, "%s: arguments are not UTF-8, or no memory", command);

    if (!ret)
        ret = send_all(a, "\n", 1, deadline, err);
    free(text);
    json_decref(request);
    return ret;
}

/* ---- Connecting ---- */

static int synchronize(struct host_agent *a, long long deadline, struct mull_error *err)
{
    static const char delimiter = DELIMITER;
    json_int_t id = (json_int_t)(now_ms() & 0x7fffffff) << 16 | (getpid() & 0xffff);
    int ret = send_all(a, &delimiter, 1, deadline, err);

    a->broken = false;
    if (!ret)
        ret = send_request(a, "guest-sync-delimited", json_pack("{s:I}", "id", id), deadline, err);
    while (!ret) {
        bool delimited;
        json_t *answer = read_answer(a, &delimited, deadline, err);
        json_int_t got = json_integer_value(json_object_get(answer, "return"));

        ret = answer ? 0 : -EIO;
        json_decref(answer);
        if (answer && delimited && got == id)
            return 0;
    }
    a->broken = true;
    return err && err->code ? -err->code : ret;
}

/* A Unix socket whose backlog is full keeps a caller waiting, for ever unless it is told. */
static int connect_within(int fd, const struct sockaddr_un *address, int timeout_ms,
                          struct mull_error *err)
{
    struct timeval limit = {timeout_ms / 1000, timeout_ms % 1000 * 1000};
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)))
        return mull_fail(err, errno, "guest agent: %s", strerror(errno));
    if (!connect(fd, (const struct sockaddr *)address, sizeof(*address)))
        return 0;
    if (errno == EAGAIN)
        return mull_fail(err, ETIMEDOUT,
                         "guest agent at %s: nobody accepts; do others speak with it?",
                         address->sun_path);
    return mull_fail(err, errno, "guest agent at %s: %s", address->sun_path, strerror(errno));
}

int host_agent_open(const char *path, int timeout_ms, struct host_agent **out,
                    struct mull_error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct host_agent *a = calloc(1, sizeof(*a));

    *out = NULL;
    if (!a)
        return mull_fail(err, ENOMEM, "no memory");
    a->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int ret = 0;
    if (strlen(path) >= sizeof(address.sun_path))
        ret = mull_fail(err, ENAMETOOLONG, "%s: longer than a socket's path may be", path);
    else
        strcpy(address.sun_path, path);
    if (!ret)
        ret = connect_within(a->fd, &address, timeout_ms, err);
    if (!ret)
        ret = synchronize(a, now_ms() + timeout_ms, err);
    if (ret)
        host_agent_close(a);
    else
        *out = a;
    return ret;
}

void host_agent_close(struct host_agent *a)
{
    if (!a)
        return;
    if (a->fd >= 0)
        close(a->fd);
    free(a->data);
    free(a);
}

json_t *host_agent_call(struct host_agent *a, const char *command, json_t *arguments,
                        int timeout_ms, struct mull_error *err)
{
    long long deadline = now_ms() + timeout_ms;
    bool delimited;

    if (a->broken && synchronize(a, deadline, err)) {
        json_decref(arguments);
        return NULL;
    }
    a->broken = true;
    if (send_request(a, command, arguments, deadline, err))
        return NULL;
    json_t *answer = read_answer(a, &delimited, deadline, err);
    if (!answer)
        return NULL;
    a->broken = false;
    json_t *value = json_incref(json_object_get(answer, "return"));
    if (!value) {
        const json_t *error = json_object_get(answer, "error");
        const char *why = json_string_value(json_object_get(error, "desc"));

        mull_fail(err, EIO, "guest agent, %s: %s", command,
                  why ? why : "an answer without a result");
    }
    json_decref(answer);
    return value;
}

/* ---- Base64 ---- */

static json_t *encoded(const void *data, size_t length)
{
    gnutls_datum_t in = {(unsigned char *)data, (unsigned)length}, out;

    if (!length)
        return json_string("");
    if (gnutls_base64_encode2(&in, &out))
        return NULL;
    json_t *text = json_stringn((const char *)out.data, out.size);
    gnutls_free(out.data);
    return text;
}

/* @return malloc'ed, with a 0 behind; NULL: no base64 */
static char *decoded(const json_t *text, size_t *length)
{
    gnutls_datum_t in = {(unsigned char *)json_string_value(text),
                         (unsigned)json_string_length(text)};
    gnutls_datum_t out = {0};

    *length = 0;
    if (!text || !in.size)
        return strdup("");
    if (gnutls_base64_decode2(&in, &out))
        return NULL;
    char *data = malloc(out.size + 1);
    if (data) {
        memcpy(data, out.data, out.size);
        data[out.size] = '\0';
        *length = out.size;
    }
    gnutls_free(out.data);
    return data;
}

/* ---- Commands ---- */

static int take_result(const json_t *status, struct host_agent_result *out, struct mull_error *err)
{
    const json_t *code = json_object_get(status, "exitcode");

    out->status = code ? (int)json_integer_value(code)
                       : 128 + (int)json_integer_value(json_object_get(status, "signal"));
    out->truncated = json_is_true(json_object_get(status, "out-truncated")) ||
                     json_is_true(json_object_get(status, "err-truncated"));
    out->output = decoded(json_object_get(status, "out-data"), &out->output_length);
    out->errors = decoded(json_object_get(status, "err-data"), &out->errors_length);
    if (out->output && out->errors)
        return 0;
    host_agent_result_free(out);
    return mull_fail(err, EPROTO, "guest agent: what the command printed is no base64");
}

static json_t *exec_arguments(const json_t *command, const void *input, size_t length)
{
    const char *path = json_string_value(json_array_get(command, 0));
    json_t *arguments = json_deep_copy(command);

    json_array_remove(arguments, 0);
    json_t *all = json_pack("{s:s, s:o, s:b}", "path", path ? path : "", "arg", arguments,
                            "capture-output", 1);
    if (all && input)
        json_object_set_new(all, "input-data", encoded(input, length));
    return all;
}

int host_agent_exec(struct host_agent *a, const json_t *command, const void *input,
                    size_t input_length, int timeout_ms, struct host_agent_result *out,
                    struct mull_error *err)
{
    long long deadline = now_ms() + timeout_ms;
    long wait_ms = POLL_FIRST_MS;

    memset(out, 0, sizeof(*out));
    json_t *begun = host_agent_call(a, "guest-exec", exec_arguments(command, input, input_length),
                                    CALL_MS, err);
    if (!begun)
        return err && err->code ? -err->code : -EIO;
    json_int_t pid = json_integer_value(json_object_get(begun, "pid"));
    json_decref(begun);
    for (;;) {
        json_t *status =
            host_agent_call(a, "guest-exec-status", json_pack("{s:I}", "pid", pid), CALL_MS, err);
        int ret;

        if (!status)
            return err && err->code ? -err->code : -EIO;
        if (json_is_true(json_object_get(status, "exited"))) {
            ret = take_result(status, out, err);
            json_decref(status);
            return ret;
        }
        json_decref(status);
        if (now_ms() >= deadline)
            return mull_fail(err, ETIMEDOUT,
                             "the command takes longer than %d s and goes on in the guest, as its "
                             "process %lld",
                             timeout_ms / 1000, (long long)pid);
        nanosleep(&(struct timespec){.tv_nsec = wait_ms * 1000000}, NULL);
        wait_ms = wait_ms * 2 < POLL_MOST_MS ? wait_ms * 2 : POLL_MOST_MS;
    }
}

void host_agent_result_free(struct host_agent_result *r)
{
    free(r->output);
    free(r->errors);
    r->output = r->errors = NULL;
}

/* ---- Files ---- */

static json_int_t open_file(struct host_agent *a, const char *path, const char *mode,
                            struct mull_error *err)
{
    json_t *handle = host_agent_call(
        a, "guest-file-open", json_pack("{s:s, s:s}", "path", path, "mode", mode), CALL_MS, err);
    json_int_t number = handle ? json_integer_value(handle) : -1;

    json_decref(handle);
    return number;
}

static int close_file(struct host_agent *a, json_int_t handle, struct mull_error *err)
{
    json_t *done =
        host_agent_call(a, "guest-file-close", json_pack("{s:I}", "handle", handle), CALL_MS, err);

    json_decref(done);
    return done ? 0 : -EIO;
}

int host_agent_read_file(struct host_agent *a, const char *path,
                         int (*piece)(void *opaque, const void *data, size_t length), void *opaque,
                         struct mull_error *err)
{
    struct mull_error ignored;
    json_int_t handle = open_file(a, path, "r", err);
    bool end = false;
    int ret = handle < 0 ? -EIO : 0;

    while (!ret && !end) {
        json_t *got = host_agent_call(
            a, "guest-file-read",
            json_pack("{s:I, s:I}", "handle", handle, "count", (json_int_t)FILE_PIECE), CALL_MS,
            err);
        size_t length = 0;
        char *data = got ? decoded(json_object_get(got, "buf-b64"), &length) : NULL;

        if (!got)
            ret = -EIO;
        else if (!data || length > FILE_PIECE)
            ret = mull_fail(err, EPROTO, "guest agent: %s: not what was asked for", path);
        else if (length)
            ret = piece(opaque, data, length);
        /* A read of nothing is an end too: an agent must not keep us for ever. */
        end = ret || !length || json_is_true(json_object_get(got, "eof"));
        free(data);
        json_decref(got);
    }
    if (handle >= 0)
        close_file(a, handle, &ignored);
    return ret;
}

static int write_pieces(struct host_agent *a, json_int_t handle, const char *data, size_t length,
                        struct mull_error *err)
{
    while (length) {
        size_t piece = length < FILE_PIECE ? length : FILE_PIECE;
        json_t *done = host_agent_call(
            a, "guest-file-write",
            json_pack("{s:I, s:o}", "handle", handle, "buf-b64", encoded(data, piece)), CALL_MS,
            err);
        json_int_t count = json_integer_value(json_object_get(done, "count"));

        json_decref(done);
        if (!done)
            return -EIO;
        if (count <= 0 || (size_t)count > piece)
            return mull_fail(err, EPROTO, "guest agent: wrote %lld bytes of %zu", (long long)count,
                             piece);
        data += count;
        length -= (size_t)count;
    }
    return 0;
}

int host_agent_write_file(struct host_agent *a, const char *path, const void *data, size_t length,
                          struct mull_error *err)
{
    struct mull_error ignored;
    json_int_t handle = open_file(a, path, "w", err);

    if (handle < 0)
        return -EIO;
    int ret = write_pieces(a, handle, data, length, err);
    if (ret)
        close_file(a, handle, &ignored);
    else
        ret = close_file(a, handle, err); /* what is not written then is an error too */
    return ret;
}

/* ---- The guest as a whole ---- */

json_t *host_agent_addresses(struct host_agent *a, struct mull_error *err)
{
    json_t *interfaces = host_agent_call(a, "guest-network-get-interfaces", NULL, CALL_MS, err);
    json_t *list = interfaces ? json_array() : NULL, *interface, *address;
    size_t i, j;

    json_array_foreach(interfaces, i, interface)
        json_array_foreach(json_object_get(interface, "ip-addresses"), j, address)
    {
        const char *text = json_string_value(json_object_get(address, "ip-address"));

        if (text && strlen(text) < 64 && strncmp(text, "127.", 4) && strcmp(text, "::1") &&
            json_array_size(list) < 64)
            json_array_append_new(list, json_string(text));
    }
    json_decref(interfaces);
    return list;
}

int host_agent_shutdown(struct host_agent *a, bool reboot, struct mull_error *err)
{
    json_t *arguments = json_pack("{s:s}", "mode", reboot ? "reboot" : "powerdown");
    struct mull_error why = {0};
    json_t *done = host_agent_call(a, "guest-shutdown", arguments, 2000, &why);

    json_decref(done);
    if (done || why.code == ETIMEDOUT || why.code == ECONNRESET)
        return 0;
    return mull_fail(err, why.code ? why.code : EIO, "%s", why.message);
}
