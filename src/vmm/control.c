/*
 * Serves JSON-RPC 2.0 (jsonrpc.org/specification) in the machine's loop: one JSON object a line,
 * answered with one line. Requests are answered in order; a peer that does not read its answers is
 * dropped, one that sends too long a line too.
 */
#include "vmm/control.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/listen.h"
#include "vmm/balloon.h"
#include "vmm/parts.h"
#include "vmm/resources.h"
#include "vmm/screen.h"
#include "vmm/tools.h"

#include "vmm/gdb.h"
#ifdef VMM_HOSTILE /* a program that tests alone have: tests/sandbox */
#include "hostile.h"
#endif

#define LINE_MAX_BYTES (128u << 10) /* tools.send: 64 KiB in base64 */
#define PEERS_MAX 8

/* Error codes of the specification, section 5.1. */
enum {
    RPC_PARSE = -32700,
    RPC_INVALID = -32600,
    RPC_NO_METHOD = -32601,
    RPC_PARAMS = -32602,
    RPC_FAILED = -32000, /* ours: the method failed */
};

struct peer {
    struct vmm_control *control;
    int fd;
    bool owner; /* inherited: the machine does not outlive it */
    struct mull_source *source;
    char *line;
    size_t have;
    struct vmm_descriptors descriptors; /* that came with what was read, for the next request */
};

struct vmm_control {
    struct mull_machine *machine;
    const struct mull_log *log;
    int listener;
    struct mull_source *listener_source;
    const char *path; /* of the listener */
    struct vmm_gdb *gdb;
    struct peer peer[PEERS_MAX];
};

/* ---- Methods ---- */

const char *vmm_state_name(enum mull_machine_state state)
{
    static const char *const names[] = {"created", "running", "paused", "ended"};
    return names[state];
}

static json_t *method_status(struct mull_machine *m, struct mull_error *err)
{
    struct mull_machine_info info;
    mull_machine_info(m, &info);
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:f, s:I, s:I}", "name", info.name,
                     "state", vmm_state_name(info.state), "reason", info.paused_by, "engine",
                     info.engine, "engine_reason", info.engine_why, "kernel", info.kernel, "cpus",
                     (json_int_t)info.cpus, "memory", (json_int_t)info.memory, "uptime",
                     (double)info.guest_ns / 1e9, "resets", (json_int_t)info.resets, "pid",
                     (json_int_t)getpid());
}

static void add_stat(void *opaque, unsigned cpu, const char *name, uint64_t value)
{
    json_t *list = opaque;
    while (json_array_size(list) <= cpu)
        if (json_array_append_new(list, json_object()))
            return;
    json_object_set_new(json_array_get(list, cpu), name, json_integer((json_int_t)value));
}

static json_t *method_stats(struct mull_machine *m, struct mull_error *err)
{
    json_t *list = json_array();
    mull_machine_stats(m, add_stat, list);
    return json_pack("{s:o}", "vcpus", list);
}

static json_t *done(int ret)
{
    return ret ? NULL : json_object();
}

static json_t *method_powerdown(struct mull_machine *m, struct mull_error *err)
{
    return done(mull_machine_power_button(m, err));
}

static json_t *method_reset(struct mull_machine *m, struct mull_error *err)
{
    return done(mull_machine_reset(m, err));
}

static json_t *method_pause(struct mull_machine *m, struct mull_error *err)
{
    return done(mull_machine_pause(m, err));
}

static json_t *method_resume(struct mull_machine *m, struct mull_error *err)
{
    return done(mull_machine_resume(m, err));
}

static json_t *method_quit(struct mull_machine *m, struct mull_error *err)
{
    mull_machine_stop(m);
    return json_object();
}

/* become_debugger() has refused already. */
static json_t *method_gdb(struct mull_machine *m, struct mull_error *err)
{
    mull_fail(err, EBUSY,
              "this connection cannot become a debugger's: there is one already, or it "
              "is the machine's owner's");
    return NULL;
}

static const struct {
    const char *name;
    json_t *(*fn)(struct mull_machine *m, struct mull_error *err);
    json_t *(*with)(struct mull_machine *m, json_t *params, struct mull_error *err);
    json_t *(*taking)(struct mull_machine *m, json_t *params, struct vmm_descriptors *descriptors,
                      struct mull_error *err);
} methods[] = {
    {"attach", NULL, NULL, vmm_parts_attach},
    {"detach", NULL, vmm_parts_detach, NULL},
    {"parts", NULL, vmm_parts_list, NULL},
    {"balloon.set", NULL, vmm_balloon_set},
    {"balloon.stats", NULL, vmm_balloon_stats},
    {"balloon.trim", vmm_balloon_trim, NULL},
    {"limits.set", NULL, vmm_limits_set},
    {"merge", NULL, vmm_merge},
    {"tools", NULL, vmm_tools},
    {"tools.drop", NULL, vmm_tools_drop},
    {"tools.power", NULL, vmm_tools_power},
    {"tools.receive", NULL, vmm_tools_receive},
    {"tools.send", NULL, vmm_tools_send},
    {"usage", NULL, vmm_usage},
    {"screen", NULL, vmm_screen_text},
    {"screenshot", NULL, vmm_screen_shot},
    {"sendkey", NULL, vmm_screen_keys},
    {"status", method_status, NULL},
    {"stats", method_stats, NULL},
    {"powerdown", method_powerdown, NULL},
    {"reset", method_reset, NULL},
    {"pause", method_pause, NULL},
    {"resume", method_resume, NULL},
    {"quit", method_quit, NULL},
    {"gdb", method_gdb, NULL},
#ifdef VMM_HOSTILE
    {"test.try", NULL, vmm_hostile_try},
#endif
};

static json_t *rpc_error(int code, const char *message)
{
    return json_pack("{s:{s:i, s:s}}", "error", "code", code, "message", message);
}

static json_t *dispatch(struct mull_machine *m, json_t *request,
                        struct vmm_descriptors *descriptors)
{
    json_t *version = json_object_get(request, "jsonrpc");
    json_t *method = json_object_get(request, "method");
    json_t *params = json_object_get(request, "params");
    if (!json_is_string(version) || strcmp(json_string_value(version), "2.0") ||
        !json_is_string(method))
        return rpc_error(RPC_INVALID, "not a JSON-RPC 2.0 request");
    for (unsigned i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
        if (strcmp(methods[i].name, json_string_value(method)))
            continue;
        struct mull_error err = {0};
        json_t *result;
        if (methods[i].with || methods[i].taking) {
            result = methods[i].with ? methods[i].with(m, params, &err)
                                     : methods[i].taking(m, params, descriptors, &err);
            return result ? json_pack("{s:o}", "result", result)
                          : rpc_error(RPC_FAILED, *err.message ? err.message : "failed");
        }
        if (params && json_object_size(params) + json_array_size(params) > 0)
            return rpc_error(RPC_PARAMS, "this method takes no parameters");
        result = methods[i].fn(m, &err);
        if (!result)
            return rpc_error(RPC_FAILED, *err.message ? err.message : "failed");
        return json_pack("{s:o}", "result", result);
    }
    return rpc_error(RPC_NO_METHOD,
                     "no such method; there are attach, balloon.set, balloon.stats, detach, gdb, "
                     "limits.set, merge, parts, pause, powerdown, quit, reset, resume, screen, "
                     "screenshot, sendkey, stats, status, tools, tools.drop, tools.power, "
                     "tools.receive, tools.send and usage");
}

char *vmm_control_answer(struct mull_machine *machine, const char *line, size_t len)
{
    struct vmm_descriptors none = {0};
    return vmm_control_answer_with(machine, line, len, &none);
}

char *vmm_control_answer_with(struct mull_machine *machine, const char *line, size_t len,
                              struct vmm_descriptors *descriptors)
{
    json_t *request = json_loadb(line, len, JSON_REJECT_DUPLICATES, NULL);
    json_t *id = json_object_get(request, "id");
    bool notification = json_is_object(request) && !id;
    json_t *answer;
    if (!request)
        answer = rpc_error(RPC_PARSE, "not JSON");
    else if (!json_is_object(request) ||
             (id && !json_is_string(id) && !json_is_number(id) && !json_is_null(id)))
        answer = rpc_error(RPC_INVALID, "not a JSON-RPC 2.0 request");
    else
        answer = dispatch(machine, request, descriptors);
    char *text = NULL;
    if (answer && !notification) {
        json_object_set_new(answer, "jsonrpc", json_string("2.0"));
        json_object_set(answer, "id", json_is_string(id) || json_is_number(id) ? id : json_null());
        text = json_dumps(answer, JSON_COMPACT);
    }
    json_decref(answer);
    json_decref(request);
    return text;
}

/* ---- Sockets ---- */

static void drop_peer(struct peer *p)
{
    mull_source_remove(p->source);
    close(p->fd);
    free(p->line);
    vmm_descriptors_close(&p->descriptors);
    bool owner = p->owner;
    struct vmm_control *c = p->control;
    memset(p, 0, sizeof(*p));
    p->fd = -1;
    if (owner)
        mull_machine_stop(c->machine);
}

/* @return false: the peer is gone */
static bool answer_line(struct peer *p, size_t len)
{
    char *answer = vmm_control_answer_with(p->control->machine, p->line, len, &p->descriptors);
    vmm_descriptors_close(&p->descriptors);
    if (!answer)
        return true;
    size_t n = strlen(answer);
    answer[n] = '\n'; /* in the place of the NUL */
    bool sent = send(p->fd, answer, n + 1, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)n + 1;
    free(answer);
    return sent;
}

/* {"method": "gdb"}: from the answer on the peer speaks GDB's protocol. It is no longer ours then.
 * @return false: the line is something else, or cannot be had */
static bool become_debugger(struct peer *p, size_t len)
{
    struct vmm_control *c = p->control;
    struct mull_error err = {0};
    json_t *request = json_loadb(p->line, len, JSON_REJECT_DUPLICATES, NULL);
    const char *method = json_string_value(json_object_get(request, "method"));
    json_t *id = json_object_get(request, "id");
    bool wanted =
        c->gdb && !p->owner && !vmm_gdb_busy(c->gdb) && method && !strcmp(method, "gdb") && id;
    json_t *answer = NULL;

    if (wanted)
        answer = json_pack("{s:s, s:O, s:{}}", "jsonrpc", "2.0", "id", id, "result");
    char *text = answer ? json_dumps(answer, JSON_COMPACT) : NULL;
    json_decref(answer);
    json_decref(request);
    if (!text)
        return false;
    size_t n = strlen(text);
    text[n] = '\n';
    mull_source_remove(p->source);
    p->source = NULL;
    /* The answer comes first: whatever GDB says before is nonsense to it. */
    bool sent = send(p->fd, text, n + 1, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)n + 1;
    free(text);
    if (!sent || vmm_gdb_adopt(c->gdb, p->fd, p->line + len + 1, p->have - len - 1, &err)) {
        mull_log(c->log, MULL_LOG_WARN, "control: %s", sent ? err.message : "peer does not read");
        close(p->fd);
    }
    free(p->line);
    memset(p, 0, sizeof(*p));
    p->fd = -1;
    return true;
}

/* Read more of a line, and descriptors that come with it. */
static ssize_t receive(struct peer *p)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int) * VMM_DESCRIPTORS_MAX)];
    } control;
    struct iovec iov = {p->line + p->have, LINE_MAX_BYTES - p->have};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = &control,
                         .msg_controllen = sizeof(control)};
    ssize_t n = recvmsg(p->fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    for (struct cmsghdr *c = n >= 0 ? CMSG_FIRSTHDR(&msg) : NULL; c; c = CMSG_NXTHDR(&msg, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        for (size_t i = 0; i < (c->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
            if (p->descriptors.count < VMM_DESCRIPTORS_MAX)
                p->descriptors.fd[p->descriptors.count++] = fd;
            else
                close(fd);
        }
    }
    return n;
}

static void peer_readable(void *opaque, uint32_t events)
{
    struct peer *p = opaque;
    ssize_t n = receive(p);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        drop_peer(p);
        return;
    }
    p->have += (size_t)n;
    char *newline;
    while ((newline = memchr(p->line, '\n', p->have))) {
        size_t len = (size_t)(newline - p->line);
        if (len && become_debugger(p, len))
            return;
        if (len && !answer_line(p, len)) {
            drop_peer(p);
            return;
        }
        p->have -= len + 1;
        memmove(p->line, newline + 1, p->have);
    }
    if (p->have == LINE_MAX_BYTES) {
        mull_log(p->control->log, MULL_LOG_WARN,
                 "control: a line of more than %u bytes; peer dropped", LINE_MAX_BYTES);
        drop_peer(p);
    }
}

static int add_peer(struct vmm_control *c, int fd, bool owner, struct mull_error *err)
{
    for (unsigned i = 0; i < PEERS_MAX; i++) {
        struct peer *p = &c->peer[i];
        if (p->fd >= 0)
            continue;
        p->line = malloc(LINE_MAX_BYTES);
        if (!p->line)
            return mull_fail(err, ENOMEM, "control: no memory");
        p->control = c;
        p->owner = owner;
        p->have = 0;
        p->fd = fd;
        int ret = mull_loop_watch(mull_machine_loop(c->machine), fd, EPOLLIN, peer_readable, p,
                                  &p->source, err);
        if (ret) {
            free(p->line);
            p->line = NULL;
            p->fd = -1;
        }
        return ret;
    }
    return mull_fail(err, EBUSY, "control: %d peers are connected already", PEERS_MAX);
}

static void listener_readable(void *opaque, uint32_t events)
{
    struct vmm_control *c = opaque;
    int fd = accept4(c->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0 && add_peer(c, fd, false, NULL))
        close(fd);
}

static int start_listening(struct vmm_control *c, const char *path, struct mull_error *err)
{
    int ret = mull_listen_unix(path, "--control ", &c->listener, err);
    if (ret)
        return ret;
    c->path = path;
    return mull_loop_watch(mull_machine_loop(c->machine), c->listener, EPOLLIN, listener_readable,
                           c, &c->listener_source, err);
}

int vmm_control_create(const struct vmm_control_config *config, struct vmm_control **out,
                       struct mull_error *err)
{
    struct vmm_control *c = calloc(1, sizeof(*c));
    if (!c)
        return mull_fail(err, ENOMEM, "control: no memory");
    c->machine = config->machine;
    c->log = config->log;
    c->gdb = config->gdb;
    c->listener = -1;
    for (unsigned i = 0; i < PEERS_MAX; i++)
        c->peer[i].fd = -1;
    int ret = 0;
    if (config->path)
        ret = start_listening(c, config->path, err);
    if (!ret && config->fd >= 0)
        ret = add_peer(c, config->fd, true, err);
    if (ret) {
        vmm_control_destroy(c);
        return ret;
    }
    *out = c;
    return 0;
}

void vmm_control_destroy(struct vmm_control *c)
{
    if (!c)
        return;
    for (unsigned i = 0; i < PEERS_MAX; i++) {
        c->peer[i].owner = false;
        if (c->peer[i].fd >= 0)
            drop_peer(&c->peer[i]);
    }
    if (c->listener >= 0) {
        mull_source_remove(c->listener_source);
        close(c->listener);
        unlink(c->path);
    }
    free(c);
}
