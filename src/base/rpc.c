/*
 * See rpc.h.
 */
#include "base/rpc.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

int mull_rpc_open(struct mull_rpc *rpc, const char *path, unsigned timeout_s,
                  struct mull_error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct timeval limit = {.tv_sec = (time_t)timeout_s};

    memset(rpc, 0, sizeof(*rpc));
    rpc->fd = -1;
    if (strlen(path) >= sizeof(address.sun_path))
        return mull_fail(err, ENAMETOOLONG, "%s: too long for a socket", path);
    strcpy(address.sun_path, path);
    rpc->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (rpc->fd < 0)
        return mull_fail(err, errno, "%s: %s", path, strerror(errno));
    setsockopt(rpc->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    setsockopt(rpc->fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
    if (!connect(rpc->fd, (const struct sockaddr *)&address, sizeof(address)))
        return 0;
    int saved = errno;
    mull_rpc_close(rpc);
    return mull_fail(err, saved, "%s: %s", path, strerror(saved));
}

void mull_rpc_close(struct mull_rpc *rpc)
{
    if (rpc->fd >= 0)
        close(rpc->fd);
    free(rpc->line);
    rpc->fd = -1;
    rpc->line = NULL;
}

static char *next_line(struct mull_rpc *c)
{
    if (!c->line)
        c->line = malloc(MULL_RPC_LINE_MAX);
    c->have = 0;
    while (c->line && c->have < MULL_RPC_LINE_MAX) {
        /* One byte more than a line at a time could be the next protocol's: see mullion gdb. */
        ssize_t n = recv(c->fd, c->line + c->have, MULL_RPC_LINE_MAX - c->have, MSG_PEEK);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return NULL;
        char *newline = memchr(c->line + c->have, '\n', (size_t)n);
        size_t take = newline ? (size_t)(newline - (c->line + c->have)) + 1 : (size_t)n;
        n = recv(c->fd, c->line + c->have, take, 0);
        if (n <= 0)
            return NULL;
        c->have += (size_t)n;
        if (newline && (size_t)n == take) {
            c->line[c->have - 1] = '\0';
            return c->line;
        }
    }
    return NULL;
}

/* Send a line, with descriptors in front of its first byte. */
static bool send_line(struct mull_rpc *c, const char *line, size_t len, const int *fds,
                      unsigned count)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int) * MULL_RPC_FDS_MAX)];
    } control = {0};
    struct iovec iov = {(void *)line, len};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

    if (count > MULL_RPC_FDS_MAX)
        return false;
    if (count) {
        msg.msg_control = &control;
        msg.msg_controllen = CMSG_SPACE(sizeof(int) * count);
        struct cmsghdr *head = CMSG_FIRSTHDR(&msg);
        head->cmsg_level = SOL_SOCKET;
        head->cmsg_type = SCM_RIGHTS;
        head->cmsg_len = CMSG_LEN(sizeof(int) * count);
        memcpy(CMSG_DATA(head), fds, sizeof(int) * count);
    }
    return sendmsg(c->fd, &msg, MSG_NOSIGNAL) == (ssize_t)len;
}

int mull_rpc_call(struct mull_rpc *rpc, const char *method, json_t *params, json_t **result,
                  struct mull_error *err)
{
    return mull_rpc_call_handing(rpc, method, params, NULL, 0, result, err);
}

int mull_rpc_call_handing(struct mull_rpc *rpc, const char *method, json_t *params,
                          const int *fds, unsigned count, json_t **result, struct mull_error *err)
{
    json_t *request = json_pack("{s:s, s:i, s:s, s:o}", "jsonrpc", "2.0", "id", ++rpc->id, "method",
                                method, "params", params ? params : json_object());
    char *text = json_dumps(request, JSON_COMPACT);
    const char *line = NULL;

    json_decref(request);
    size_t n = text ? strlen(text) : 0;
    if (text)
        text[n] = '\n'; /* in the place of the NUL */
    if (text && send_line(rpc, text, n + 1, fds, count))
        line = next_line(rpc);
    free(text);
    if (!line)
        return mull_fail(err, EIO, "%s: the machine does not answer", method);
    json_t *answer = json_loads(line, 0, NULL);
    json_t *got = json_object_get(answer, "result");
    int ret = 0;
    if (got) {
        if (result)
            *result = json_incref(got);
    } else {
        const char *why =
            json_string_value(json_object_get(json_object_get(answer, "error"), "message"));
        ret = mull_fail(err, EPROTO, "%s: %s", method,
                        why ? why : "the machine's answer makes no sense");
    }
    json_decref(answer);
    return ret;
}
