/*
 * See client.h. The machine's process may be under attack by its guest: its answers are bounded.
 */
#include "cli/client.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/runtime.h"

bool client_open(struct client *c, const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct timeval limit = {.tv_sec = 10};

    memset(c, 0, sizeof(*c));
    c->fd = -1;
    if (strlen(path) >= sizeof(address.sun_path)) {
        errno = ENAMETOOLONG;
        return false;
    }
    strcpy(address.sun_path, path);
    c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd >= 0) {
        setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
        setsockopt(c->fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
        if (!connect(c->fd, (const struct sockaddr *)&address, sizeof(address)))
            return true;
        int saved = errno;
        client_close(c);
        errno = saved;
    }
    return false;
}

void client_close(struct client *c)
{
    if (c->fd >= 0)
        close(c->fd);
    free(c->line);
    c->fd = -1;
    c->line = NULL;
}

struct search {
    const char *machine;
    unsigned found;
    char path[RUNTIME_PATH_MAX];
};

static bool compare(void *opaque, const char *name, int pid, const char *path)
{
    struct search *s = opaque;
    char number[16];

    snprintf(number, sizeof(number), "%d", pid);
    if (strcmp(name, s->machine) && strcmp(number, s->machine))
        return true;
    s->found++;
    snprintf(s->path, sizeof(s->path), "%s", path);
    return true;
}

int client_connect(struct client *c, const char *machine)
{
    struct search s = {.machine = machine};

    if (strchr(machine, '/'))
        snprintf(s.path, sizeof(s.path), "%s", machine);
    else
        runtime_list(compare, &s);
    if (!*s.path)
        return cli_fail(VMM_STATUS_HOST_ERROR,
                        "%s: no such machine runs; see mullion top, or give the path of a control "
                        "socket",
                        machine);
    if (s.found > 1)
        return cli_fail(VMM_STATUS_HOST_ERROR,
                        "%s: %u machines have this name; give the process number that mullion top "
                        "shows",
                        machine, s.found);
    if (!client_open(c, s.path))
        return cli_fail(VMM_STATUS_HOST_ERROR, "%s: %s", s.path, strerror(errno));
    return -1;
}

static char *next_line(struct client *c)
{
    if (!c->line)
        c->line = malloc(CLIENT_LINE_MAX);
    c->have = 0;
    while (c->line && c->have < CLIENT_LINE_MAX) {
        /* One byte more than a line at a time could be the next protocol's: see mullion gdb. */
        ssize_t n = recv(c->fd, c->line + c->have, CLIENT_LINE_MAX - c->have, MSG_PEEK);
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

json_t *client_call(struct client *c, const char *method)
{
    return client_call_with(c, method, json_object());
}

/* Send a line, with descriptors in front of its first byte. */
static bool send_line(struct client *c, const char *line, size_t len, const int *fds,
                      unsigned count)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int) * CLIENT_FDS_MAX)];
    } control = {0};
    struct iovec iov = {(void *)line, len};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

    if (count > CLIENT_FDS_MAX)
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

json_t *client_call_with(struct client *c, const char *method, json_t *params)
{
    return client_call_handing(c, method, params, NULL, 0);
}

json_t *client_call_handing(struct client *c, const char *method, json_t *params, const int *fds,
                            unsigned count)
{
    json_t *request = json_pack("{s:s, s:i, s:s, s:o}", "jsonrpc", "2.0", "id", ++c->id, "method",
                                method, "params", params);
    char *text = json_dumps(request, JSON_COMPACT);
    const char *line = NULL;

    json_decref(request);
    size_t n = text ? strlen(text) : 0;
    if (text)
        text[n] = '\n'; /* in the place of the NUL */
    if (text && send_line(c, text, n + 1, fds, count))
        line = next_line(c);
    free(text);
    if (!line) {
        cli_fail(0, "%s: the machine does not answer", method);
        return NULL;
    }
    json_t *answer = json_loads(line, 0, NULL);
    json_t *result = json_object_get(answer, "result");
    if (result) {
        json_incref(result);
    } else {
        const char *why =
            json_string_value(json_object_get(json_object_get(answer, "error"), "message"));
        cli_fail(0, "%s: %s", method, why ? why : "the machine's answer makes no sense");
    }
    json_decref(answer);
    return result;
}
