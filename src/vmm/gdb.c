/*
 * Sockets for GDB, and the machine as a gdb_target. See docs/debugging.md.
 */
#include "vmm/gdb.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/listen.h"
#include "vmm/gdb_session.h"
#include "vmm/status.h"

struct vmm_gdb {
    struct mull_machine *machine;
    const struct mull_log *log;
    struct gdb_target target;
    char *path; /* of the listener, if it has one */
    int listener;
    struct mull_source *listener_source;

    int fd; /* the conversation's; -1: there is none */
    bool broken;
    struct mull_source *source;
    struct gdb_session *session;
};

/* ---- The machine as a target ---- */

static struct mull_machine *machine(void *opaque)
{
    return ((struct vmm_gdb *)opaque)->machine;
}

static unsigned target_cpus(void *opaque)
{
    return mull_machine_debug_cpus(machine(opaque));
}

static bool target_held(void *opaque)
{
    return mull_machine_debug_held(machine(opaque));
}

static int target_get(void *opaque, unsigned cpu, struct mull_cpu_state *state)
{
    return mull_machine_debug_get(machine(opaque), cpu, state, NULL);
}

static int target_set(void *opaque, unsigned cpu, const struct mull_cpu_state *state)
{
    return mull_machine_debug_set(machine(opaque), cpu, state, NULL);
}

static size_t target_read(void *opaque, unsigned cpu, uint64_t address, bool physical, void *buf,
                          size_t len)
{
    return mull_machine_debug_read(machine(opaque), cpu, address, physical, buf, len);
}

static size_t target_write(void *opaque, unsigned cpu, uint64_t address, bool physical,
                           const void *buf, size_t len)
{
    return mull_machine_debug_write(machine(opaque), cpu, address, physical, buf, len);
}

static int target_check(void *opaque, const struct mull_debug_point *points, unsigned count)
{
    return mull_machine_debug_check(machine(opaque), points, count, NULL);
}

static int target_resume(void *opaque, const enum mull_debug_action *action,
                         const struct mull_debug_point *points, unsigned count)
{
    return mull_machine_debug_resume(machine(opaque), action, points, count, NULL);
}

static void target_interrupt(void *opaque)
{
    mull_machine_debug_interrupt(machine(opaque));
}

static void target_kill(void *opaque)
{
    mull_machine_stop(machine(opaque));
}

static void target_send(void *opaque, const char *bytes, size_t len)
{
    struct vmm_gdb *gdb = opaque;

    /* A peer that does not read is dropped: an answer fits into any socket's buffer. */
    if (send(gdb->fd, bytes, len, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)len)
        gdb->broken = true;
}

static void on_stopped(void *opaque, unsigned cpu, const struct mull_debug_hit *hit)
{
    gdb_session_stopped(((struct vmm_gdb *)opaque)->session, cpu, hit);
}

static void on_ended(void *opaque, enum mull_machine_end end)
{
    unsigned status = VMM_STATUS_POWEROFF;

    if (end == MULL_END_SHUTDOWN)
        status = VMM_STATUS_TRIPLE_FAULT;
    else if (end == MULL_END_PANIC)
        status = VMM_STATUS_PANIC;
    else if (end == MULL_END_RESET)
        status = VMM_STATUS_RESET;
    else if (end == MULL_END_FAILED)
        status = VMM_STATUS_HOST_ERROR;
    gdb_session_ended(((struct vmm_gdb *)opaque)->session, status);
}

/* ---- The conversation ---- */

static void hang_up(struct vmm_gdb *gdb)
{
    mull_machine_debug_detach(gdb->machine);
    mull_source_remove(gdb->source);
    close(gdb->fd);
    gdb_session_destroy(gdb->session);
    gdb->source = NULL;
    gdb->session = NULL;
    gdb->fd = -1;
}

static void peer_readable(void *opaque, uint32_t events)
{
    struct vmm_gdb *gdb = opaque;
    char bytes[4096];
    ssize_t n = recv(gdb->fd, bytes, sizeof(bytes), MSG_DONTWAIT);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0 || !gdb_session_input(gdb->session, bytes, (size_t)n) || gdb->broken)
        hang_up(gdb);
}

int vmm_gdb_adopt(struct vmm_gdb *gdb, int fd, const char *bytes, size_t len,
                  struct mull_error *err)
{
    struct mull_debugger debugger = {.opaque = gdb, .stopped = on_stopped, .ended = on_ended};

    if (gdb->fd >= 0)
        return mull_fail(err, EBUSY, "gdb: a debugger is connected already");
    gdb->session = gdb_session_create(&gdb->target);
    if (!gdb->session)
        return mull_fail(err, ENOMEM, "gdb: no memory");
    gdb->broken = false;
    int ret = mull_machine_debug_attach(gdb->machine, &debugger, err);
    if (!ret) {
        ret = mull_loop_watch(mull_machine_loop(gdb->machine), fd, EPOLLIN, peer_readable, gdb,
                              &gdb->source, err);
        if (ret)
            mull_machine_debug_detach(gdb->machine);
    }
    if (ret) {
        gdb_session_destroy(gdb->session);
        gdb->session = NULL;
        return ret;
    }
    gdb->fd = fd;
    if (len && (!gdb_session_input(gdb->session, bytes, len) || gdb->broken))
        hang_up(gdb);
    return 0;
}

static void listener_readable(void *opaque, uint32_t events)
{
    struct vmm_gdb *gdb = opaque;
    struct mull_error err = {0};
    int fd = accept4(gdb->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK), on = 1;

    if (fd < 0)
        return;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)); /* fails on a Unix socket */
    if (vmm_gdb_adopt(gdb, fd, NULL, 0, &err)) {
        mull_log(gdb->log, MULL_LOG_WARN, "%s", err.message);
        close(fd);
    }
}

/* ---- Listening ---- */

/* "[ADDRESS:]PORT" */
static int listen_tcp(struct vmm_gdb *gdb, const char *where, struct mull_error *err)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const char *colon = strrchr(where, ':'), *text = colon ? colon + 1 : where;
    char host[INET_ADDRSTRLEN] = "", *end;
    unsigned long port = strtoul(text, &end, 10);
    int on = 1;

    if (*text < '0' || *text > '9' || *end || port > 65535)
        return mull_fail(err, EINVAL, "--gdb %s: give [ADDRESS:]PORT or unix=PATH", where);
    if (colon) {
        snprintf(host, sizeof(host), "%.*s", (int)(colon - where), where);
        if (inet_pton(AF_INET, host, &address.sin_addr) != 1)
            return mull_fail(err, EINVAL, "--gdb %s: ADDRESS must look like 127.0.0.1", where);
    }
    address.sin_port = htons((uint16_t)port);
    gdb->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (gdb->listener < 0)
        return mull_fail(err, errno, "--gdb %s: %s", where, strerror(errno));
    setsockopt(gdb->listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    socklen_t size = sizeof(address);
    if (bind(gdb->listener, (const struct sockaddr *)&address, size) || listen(gdb->listener, 1) ||
        getsockname(gdb->listener, (struct sockaddr *)&address, &size))
        return mull_fail(err, errno, "--gdb %s: %s", where, strerror(errno));
    inet_ntop(AF_INET, &address.sin_addr, host, sizeof(host));
    mull_log(gdb->log, port ? MULL_LOG_INFO : MULL_LOG_WARN, "gdb: listening on %s:%u", host,
             ntohs(address.sin_port));
    return 0;
}

static int start_listening(struct vmm_gdb *gdb, const char *where, struct mull_error *err)
{
    static const char unix_prefix[] = "unix=", wait_suffix[] = ",wait=on";
    size_t len = strlen(where), suffix = sizeof(wait_suffix) - 1;
    char *copy = strdup(where);
    int ret;

    if (!copy)
        return mull_fail(err, ENOMEM, "gdb: no memory");
    if (len > suffix && !strcmp(copy + len - suffix, wait_suffix)) {
        copy[len - suffix] = '\0';
        mull_machine_debug_wait(gdb->machine);
    }
    if (!strncmp(copy, unix_prefix, sizeof(unix_prefix) - 1)) {
        gdb->path = strdup(copy + sizeof(unix_prefix) - 1);
        ret = gdb->path ? mull_listen_unix(gdb->path, "--gdb unix=", &gdb->listener, err)
                        : mull_fail(err, ENOMEM, "gdb: no memory");
    } else {
        ret = listen_tcp(gdb, copy, err);
    }
    free(copy);
    if (ret)
        return ret;
    return mull_loop_watch(mull_machine_loop(gdb->machine), gdb->listener, EPOLLIN,
                           listener_readable, gdb, &gdb->listener_source, err);
}

const char *vmm_gdb_path(const struct vmm_gdb *gdb)
{
    return gdb ? gdb->path : NULL;
}

bool vmm_gdb_busy(const struct vmm_gdb *gdb)
{
    return gdb->fd >= 0;
}

int vmm_gdb_create(struct mull_machine *m, const struct mull_log *log, const char *where,
                   struct vmm_gdb **out, struct mull_error *err)
{
    struct vmm_gdb *gdb = calloc(1, sizeof(*gdb));

    if (!gdb)
        return mull_fail(err, ENOMEM, "gdb: no memory");
    gdb->machine = m;
    gdb->log = log;
    gdb->fd = gdb->listener = -1;
    gdb->target = (struct gdb_target){
        .opaque = gdb,
        .cpus = target_cpus,
        .held = target_held,
        .get = target_get,
        .set = target_set,
        .read = target_read,
        .write = target_write,
        .check = target_check,
        .resume = target_resume,
        .interrupt = target_interrupt,
        .kill = target_kill,
        .send = target_send,
    };
    int ret = where ? start_listening(gdb, where, err) : 0;
    if (ret) {
        vmm_gdb_destroy(gdb);
        return ret;
    }
    *out = gdb;
    return 0;
}

void vmm_gdb_destroy(struct vmm_gdb *gdb)
{
    if (!gdb)
        return;
    if (gdb->fd >= 0)
        hang_up(gdb);
    if (gdb->listener >= 0) {
        mull_source_remove(gdb->listener_source);
        close(gdb->listener);
        if (gdb->path)
            unlink(gdb->path);
    }
    free(gdb->path);
    free(gdb);
}
