/* See guests.h. */
#include "host/guests.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "host/agent.h"
#include "host/netkeeper.h"
#include "host/store/store.h"
#include "host/supervisor.h"
#include "host/vix_relay.h"

#define CALLERS_MAX 2
#define OPEN_MS 5000
#define LOOK_SECONDS 10
#define LOOK_OPEN_MS 500    /* an agent that is there answers at once */
#define LOOK_QUIET_ROUNDS 6 /* a guest without one is asked so much less often */
#define EXEC_SECONDS_MAX 3600

struct guests {
    pthread_t thread;
    bool started, closing;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    unsigned callers;
};

/* ---- Addresses ---- */

static void take_id(void *opaque, struct vm *vm)
{
    bool due = vm->agent_quiet == 0;
    vm->agent_quiet -= !due;
    if (vm->state == VM_RUNNING && due)
        vm_ids_add(opaque, vm);
}

/* Has the machine VMware's interface for guests? */
static bool has_tools(struct host *host, const char *id)
{
    host_lock(host);
    json_t *doc = store_get(host->store, KIND_MACHINE, id);
    bool has = json_is_true(json_object_get(json_object_get(doc, "config"), "vmware_tools"));
    host_unlock(host);
    return has;
}

static json_t *text_or_null(const char *text)
{
    return *text ? json_string(text) : json_null();
}

/* What open-vm-tools have told the machine's process. @return addresses, a new reference, or NULL
 */
static json_t *ask_tools(struct host *host, const char *id, json_t **guest)
{
    json_t *answer = NULL, *addresses = NULL;
    if (vm_call(host, id, "tools", NULL, &answer, NULL))
        return NULL;
    if (json_is_true(json_object_get(answer, "running"))) {
        json_t *list = json_object_get(answer, "addresses");
        addresses = json_is_array(list) ? json_incref(list) : json_array();
        *guest = json_pack("{s:s, s:o, s:o, s:o}", "agent", "open-vm-tools", "version",
                           text_or_null(host_text(answer, "version")), "hostname",
                           text_or_null(host_text(answer, "hostname")), "os",
                           text_or_null(host_text(answer, "os")));
    }
    json_decref(answer);
    return addresses;
}

static void look_at(struct host *host, const char *id)
{
    struct mull_error err = {0};
    struct host_agent *agent = NULL;
    char *path = vm_file(host, id, "agent.sock");
    json_t *addresses = NULL, *guest = NULL;
    bool tools = has_tools(host, id); /* whom it costs nothing to ask */
    if (path && !host_agent_open(path, LOOK_OPEN_MS, &agent, &err))
        addresses = host_agent_addresses(agent, &err);
    host_agent_close(agent);
    free(path);
    if (addresses)
        guest = json_pack("{s:s, s:n, s:n, s:n}", "agent", "qemu-guest-agent", "version",
                          "hostname", "os");
    else if (tools)
        addresses = ask_tools(host, id, &guest);
    host_lock(host);
    struct vm *vm = vm_of(host, id);
    if (vm && vm->pidfd >= 0) {
        vm->agent_quiet = addresses || tools ? 0 : LOOK_QUIET_ROUNDS;
        if (guest && !json_equal(guest, vm->guest ? vm->guest : json_null())) {
            json_decref(vm->guest);
            vm->guest = json_incref(guest);
            vm_touch(vm);
        }
        if (addresses && !json_equal(addresses, vm->addresses ? vm->addresses : json_null())) {
            json_decref(vm->addresses);
            vm->addresses = json_incref(addresses);
            vm->leased = false;
            vm_touch(vm);
        }
    }
    host_unlock(host);
    json_decref(addresses);
    json_decref(guest);
}

/* @return false: it ends */
static bool sleep_for(struct guests *g, unsigned seconds)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += seconds;
    pthread_mutex_lock(&g->lock);
    while (!g->closing && !pthread_cond_timedwait(&g->wake, &g->lock, &until))
        ;
    bool go_on = !g->closing;
    pthread_mutex_unlock(&g->lock);
    return go_on;
}

static void *look_around(void *opaque)
{
    struct host *host = opaque;
    while (sleep_for(host->guests, LOOK_SECONDS)) {
        struct vm_ids l = {0};
        host_lock(host);
        vm_each(host, take_id, &l);
        host_unlock(host);
        for (size_t i = 0; i < l.count && !host->guests->closing; i++)
            look_at(host, l.id[i]);
        free(l.id);
        netkeeper_look(host);
    }
    return NULL;
}

int guests_open(struct host *host, struct mull_error *err)
{
    struct guests *g = host->guests = calloc(1, sizeof(*g));
    pthread_condattr_t attr;
    if (!g)
        return mull_fail(err, ENOMEM, "guests: no memory");
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&g->lock, NULL);
    pthread_cond_init(&g->wake, &attr);
    pthread_condattr_destroy(&attr);
    int code = pthread_create(&g->thread, NULL, look_around, host);
    g->started = !code;
    return code ? mull_fail(err, code, "guests: %s", strerror(code)) : 0;
}

void guests_close(struct host *host)
{
    struct guests *g = host->guests;
    if (!g)
        return;
    pthread_mutex_lock(&g->lock);
    g->closing = true;
    pthread_cond_signal(&g->wake);
    pthread_mutex_unlock(&g->lock);
    if (g->started)
        pthread_join(g->thread, NULL);
    pthread_mutex_destroy(&g->lock);
    pthread_cond_destroy(&g->wake);
    free(g);
    host->guests = NULL;
}

/* ---- For callers ---- */

static bool enter(struct guests *g)
{
    pthread_mutex_lock(&g->lock);
    bool room = g->callers < CALLERS_MAX;
    g->callers += room;
    pthread_mutex_unlock(&g->lock);
    return room;
}

static void leave(struct guests *g)
{
    pthread_mutex_lock(&g->lock);
    g->callers--;
    pthread_mutex_unlock(&g->lock);
}

static int problem_of(struct host_problem *p, const struct mull_error *err)
{
    return host_problem(p, HOST_CONFLICT, NULL, "%s", err->message);
}

/* One of the two agents, as long as a caller speaks with it. */
struct talk {
    struct host_agent *agent; /* qemu-guest-agent; or NULL */
    struct vix *vix;          /* open-vm-tools; or NULL */
    struct vix_relay relay;
};

static bool tools_run(struct host *host, const char *id)
{
    json_t *answer = NULL;
    bool run = has_tools(host, id) && !vm_call(host, id, "tools", NULL, &answer, NULL) &&
               json_is_true(json_object_get(answer, "running"));
    json_decref(answer);
    return run;
}

static int open_agent(struct host *host, const char *id, int timeout_ms, struct talk *t,
                      struct mull_error *err)
{
    char *path = vm_file(host, id, "agent.sock");
    int ret = path ? host_agent_open(path, timeout_ms, &t->agent, err) : -ENOMEM;
    free(path);
    return ret;
}

static int open_tools(struct host *host, const char *id, const struct vix_user *user,
                      struct talk *t, struct host_problem *p)
{
    struct mull_error err = {0};
    struct vix_channel channel;
    char *path = vm_file(host, id, "control.sock");
    int ret = path ? vix_relay_open(&t->relay, path, &channel, &err) : -ENOMEM;
    free(path);
    if (ret)
        return problem_of(p, &err);
    ret = vix_open(&channel, user, &t->vix, &err);
    if (!ret)
        return 0;
    vix_relay_close(&t->relay);
    if (ret == -EINVAL)
        return host_problem(p, HOST_INVALID, NULL, "%s", err.message);
    return host_problem(p, ret == -EACCES ? HOST_FORBIDDEN : HOST_CONFLICT, NULL, "%s",
                        err.message);
}

/* qemu-guest-agent does what it is asked for without a user, open-vm-tools with one alone. */
static int open_either(struct host *host, const char *id, const struct vix_user *user,
                       struct talk *t, struct host_problem *p)
{
    struct mull_error err = {0};
    bool tools = tools_run(host, id);
    if (user && tools)
        return open_tools(host, id, user, t, p);
    int ret = open_agent(host, id, tools ? LOOK_OPEN_MS : OPEN_MS, t, &err);
    if (ret && tools)
        return host_problem(p, HOST_CONFLICT, NULL,
                            "the guest runs open-vm-tools, which do nothing without a user of the "
                            "guest: give one (--user)");
    if (ret)
        return problem_of(p, &err);
    if (!user)
        return 0;
    host_agent_close(t->agent);
    return host_problem(p, HOST_CONFLICT, NULL,
                        "the guest runs qemu-guest-agent, which knows no users: leave the user "
                        "out");
}

/* Connect, and be one of the callers until disconnect(). */
static int connect_to(struct host *host, const char *id, const struct vix_user *user,
                      struct talk *t, struct host_problem *p)
{
    *t = (struct talk){0};
    host_lock(host);
    struct vm *vm = vm_of(host, id);
    bool runs = vm && vm->state == VM_RUNNING;
    host_unlock(host);
    if (!runs)
        return host_problem(p, HOST_CONFLICT, NULL, "the machine does not run");
    if (!enter(host->guests))
        return host_problem(p, HOST_UNAVAILABLE, NULL, "%d guests are spoken to already; try again",
                            CALLERS_MAX);
    int ret = open_either(host, id, user, t, p);
    if (ret)
        leave(host->guests);
    return ret;
}

static void disconnect(struct host *host, struct talk *t)
{
    host_agent_close(t->agent);
    if (t->vix) {
        vix_close(t->vix);
        vix_relay_close(&t->relay);
    }
    leave(host->guests);
}

/* JSON holds text only: what is not UTF-8 (or is a 0) becomes U+FFFD. */
static json_t *text_of(const char *data, size_t length)
{
    json_t *whole = json_stringn(data, length);
    char *out = whole ? NULL : malloc(3 * length + 1);
    size_t n = 0;
    if (!out)
        return whole;
    for (size_t i = 0; i < length;) {
        unsigned char c = (unsigned char)data[i];
        size_t size = c < 0x80 ? 1 : c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : 2;
        json_t *one = size <= length - i ? json_stringn(data + i, size) : NULL;
        if (one) {
            memcpy(out + n, data + i, size);
            n += size;
            i += size;
        } else {
            memcpy(out + n, "\xef\xbf\xbd", 3);
            n += 3;
            i++;
        }
        json_decref(one);
    }
    whole = json_stringn(out, n);
    free(out);
    return whole;
}

int guest_exec(struct host *host, const char *id, const struct vix_user *user, const json_t *body,
               json_t **out, struct host_problem *p)
{
    json_t *input = json_object_get(body, "stdin"), *limit = json_object_get(body, "timeout");
    json_int_t seconds = limit ? json_integer_value(limit) : 60;
    const json_t *command = json_object_get(body, "command");
    struct host_agent_result result;
    struct mull_error err = {0};
    struct talk t;
    if (seconds < 1 || seconds > EXEC_SECONDS_MAX)
        return host_problem(p, HOST_INVALID, "/timeout", "must be 1 to %d seconds",
                            EXEC_SECONDS_MAX);
    if (connect_to(host, id, user, &t, p))
        return -1;
    int ret = t.vix
                  ? vix_exec(t.vix, command, json_string_value(input), json_string_length(input),
                             (int)seconds * 1000, &result, &err)
                  : host_agent_exec(t.agent, command, json_string_value(input),
                                    json_string_length(input), (int)seconds * 1000, &result, &err);
    disconnect(host, &t);
    if (ret)
        return problem_of(p, &err);
    *out = json_pack("{s:i, s:o*, s:o*, s:b}", "status", result.status, "stdout",
                     text_of(result.output, result.output_length), "stderr",
                     text_of(result.errors, result.errors_length), "truncated", result.truncated);
    host_agent_result_free(&result);
    return *out ? 0 : host_problem(p, HOST_UNAVAILABLE, NULL, "no memory");
}

struct sink {
    int fd;
    size_t length;
};

static int keep_piece(void *opaque, const void *data, size_t length)
{
    struct sink *s = opaque;
    const char *at = data;
    s->length += length;
    if (s->length > GUESTS_FILE_MAX)
        return -EFBIG;
    while (length) {
        ssize_t n = write(s->fd, at, length);
        if (n < 0 && errno != EINTR)
            return -errno;
        at += n > 0 ? n : 0;
        length -= n > 0 ? (size_t)n : 0;
    }
    return 0;
}

int guest_read_file(struct host *host, const char *id, const struct vix_user *user,
                    const char *path, int *fd, struct host_problem *p)
{
    struct sink sink = {.fd = memfd_create("guest-file", MFD_CLOEXEC)};
    struct mull_error err = {0};
    struct talk t;
    if (sink.fd < 0)
        return host_problem(p, HOST_UNAVAILABLE, NULL, "no memory");
    int ret = connect_to(host, id, user, &t, p);
    if (!ret) {
        ret = t.vix ? vix_read_file(t.vix, path, keep_piece, &sink, &err)
                    : host_agent_read_file(t.agent, path, keep_piece, &sink, &err);
        disconnect(host, &t);
        if (ret && sink.length > GUESTS_FILE_MAX)
            host_problem(p, HOST_TOO_LARGE, NULL, "%.200s: larger than %u MiB", path,
                         GUESTS_FILE_MAX >> 20);
        else if (ret)
            problem_of(p, &err);
    }
    if (ret) {
        close(sink.fd);
        return -1;
    }
    lseek(sink.fd, 0, SEEK_SET);
    *fd = sink.fd;
    return 0;
}

int guest_write_file(struct host *host, const char *id, const struct vix_user *user,
                     const char *path, const void *data, size_t length, struct host_problem *p)
{
    struct mull_error err = {0};
    struct talk t;
    if (connect_to(host, id, user, &t, p))
        return -1;
    int ret = t.vix ? vix_write_file(t.vix, path, data, length, &err)
                    : host_agent_write_file(t.agent, path, data, length, &err);
    disconnect(host, &t);
    return ret ? problem_of(p, &err) : 0;
}

int guest_shutdown(struct host *host, const char *id)
{
    struct host_agent *agent;
    struct mull_error err = {0};
    char *path = vm_file(host, id, "agent.sock");
    int ret = path ? host_agent_open(path, LOOK_OPEN_MS, &agent, &err) : -ENOMEM;
    free(path);
    if (ret && has_tools(host, id))
        return vm_call(host, id, "tools.power", json_pack("{s:s}", "action", "halt"), NULL, NULL);
    if (ret)
        return ret;
    ret = host_agent_shutdown(agent, false, &err);
    host_agent_close(agent);
    return ret;
}
