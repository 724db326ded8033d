/*
 * See supervisor.h.
 */
#include "host/supervisor.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/rpc.h"
#include "host/balance.h"
#include "host/console.h"
#include "host/events.h"
#include "host/machines.h"
#include "host/netkeeper.h"
#include "host/store/store.h"
#include "vmm/status.h"

#define BUCKETS 1024u
#define VM_FDS_MAX 8 /* below 16: above() */
#define START_SECONDS 120
#define RPC_SECONDS 10
#define ADOPT_SECONDS 30

const char *const vm_state_names[] = {"stopped", "starting", "running",
                                      "paused",  "stopping", "crashed"};

struct supervisor {
    struct vm *bucket[BUCKETS];
};

extern char **environ;

static unsigned hash_of(const char *id)
{
    unsigned h = 5381;
    for (; *id; id++)
        h = h * 33 + (unsigned char)*id;
    return h % BUCKETS;
}

struct vm *vm_of(struct host *host, const char *id)
{
    struct vm **at = &host->supervisor->bucket[hash_of(id)], *vm;
    for (vm = *at; vm; vm = vm->next)
        if (!strcmp(vm->id, id))
            return vm;
    vm = calloc(1, sizeof(*vm));
    if (!vm)
        return NULL;
    snprintf(vm->id, sizeof(vm->id), "%s", id);
    vm->host = host;
    vm->pidfd = -1;
    vm->next = *at;
    *at = vm;
    return vm;
}

void vm_forget(struct host *host, const char *id)
{
    for (struct vm **at = &host->supervisor->bucket[hash_of(id)]; *at; at = &(*at)->next) {
        struct vm *vm = *at;
        if (strcmp(vm->id, id) || vm_runs(vm) || vm->console)
            continue;
        *at = vm->next;
        json_decref(vm->addresses);
        json_decref(vm->guest);
        free(vm);
        return;
    }
}

bool vm_runs(const struct vm *vm)
{
    return vm->pidfd >= 0 || vm->state == VM_STARTING;
}

void vm_each(struct host *host, void (*fn)(void *opaque, struct vm *vm), void *opaque)
{
    for (unsigned i = 0; i < BUCKETS; i++)
        for (struct vm *vm = host->supervisor->bucket[i], *next; vm; vm = next) {
            next = vm->next;
            if (vm->pidfd >= 0)
                fn(opaque, vm);
        }
}

void vm_ids_add(struct vm_ids *ids, const struct vm *vm)
{
    if (ids->count == ids->room) {
        size_t room = ids->room ? 2 * ids->room : 64;
        void *more = realloc(ids->id, room * sizeof(*ids->id));
        if (!more)
            return;
        ids->id = more;
        ids->room = room;
    }
    snprintf(ids->id[ids->count++], HOST_ID_MAX, "%s", vm->id);
}

void vm_touch(struct vm *vm)
{
    struct host *host = vm->host;
    json_t *doc = store_get(host->store, KIND_MACHINE, vm->id);
    if (!doc)
        return;
    /* The object is another one for those who compare ETags. */
    json_object_set_new(doc, "_version", json_integer((json_int_t)++host->store->version));
    host_changed(host, KIND_MACHINE, vm->id);
}

void vm_set_state(struct vm *vm, enum vm_state state, const char *reason)
{
    struct host *host = vm->host;
    bool told = vm->state != state;
    vm->state = state;
    vm->changes++;
    snprintf(vm->reason, sizeof(vm->reason), "%s", reason ? reason : "");
    json_t *doc = store_get(host->store, KIND_MACHINE, vm->id);
    pthread_cond_broadcast(&host->changed);
    if (!doc)
        return;
    vm_touch(vm);
    if (told &&
        (state == VM_RUNNING || state == VM_STOPPED || state == VM_CRASHED || state == VM_PAUSED)) {
        char object[HOST_NAME_MAX + 16], type[32];
        snprintf(object, sizeof(object), "machine:%s", vm->id);
        snprintf(type, sizeof(type), "machine.%s", vm_state_names[state]);
        host_event(host, type, object, host_text(doc, "name"), NULL,
                   state == VM_CRASHED                 ? "error"
                   : state == VM_PAUSED && *vm->reason ? "warning"
                                                       : "info",
                   NULL, "%s is %s%s%s", host_text(doc, "name"), vm_state_names[state],
                   *vm->reason ? ": " : "", vm->reason);
    }
}

char *vm_file(struct host *host, const char *id, const char *name)
{
    return host_path(host->places.runtime, "%s/%s", id, name);
}

/* ---- How a process has ended ---- */

struct life {
    int pid, status;
    bool has_status;
    bool stopped; /* this daemon, or the one before it, was about to end it */
};

/* Said on disk before a process is killed, so that a daemon that dies in between does not leave a
 * machine that was stopped looking like one that crashed. */
static void mark_stopping(struct host *host, const char *id, bool stopping)
{
    char *path = vm_file(host, id, "stopping");
    int fd = -1;
    if (path && stopping)
        fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    else if (path)
        unlink(path);
    if (fd >= 0)
        close(fd);
    free(path);
}

static struct life read_life(struct host *host, const char *id)
{
    struct life life = {0};
    char *path = vm_file(host, id, "life");
    char *text = path ? host_read_file(path, 256, NULL, NULL) : NULL;
    char *word = text ? strstr(text, "pid ") : NULL;
    if (word)
        life.pid = atoi(word + 4);
    word = text ? strstr(text, "status ") : NULL;
    if (word && strchr(word, '\n')) {
        life.status = atoi(word + 7);
        life.has_status = true;
    }
    free(text);
    free(path);
    path = vm_file(host, id, "stopping");
    life.stopped = path && !access(path, F_OK);
    free(path);
    return life;
}

/* The last line that the process has said, without its prefix. */
static void last_words(struct host *host, const char *id, char *out, size_t room)
{
    char *path = machine_file(host, id, "vmm.log");
    size_t len = 0;
    char *text = path ? host_read_file(path, 65536, &len, NULL) : NULL;
    *out = '\0';
    while (len && text[len - 1] == '\n')
        text[--len] = '\0';
    if (len) {
        char *line = strrchr(text, '\n');
        line = line ? line + 1 : text;
        if (!strncmp(line, "mullion: ", 9))
            line += 9;
        snprintf(out, room, "%s", line);
    }
    free(text);
    free(path);
}

#define GONE ".gone"

/* The whole folder goes in one step: half of one would tell the next daemon of a crash. */
static void remove_runtime(struct host *host, const char *id)
{
    char *folder = host_path(host->places.runtime, "%s", id);
    char *gone = host_path(host->places.runtime, "%s" GONE, id);
    if (folder && gone) {
        host_remove_tree(gone);
        host_remove_tree(rename(folder, gone) ? folder : gone);
    }
    free(folder);
    free(gone);
}

static bool is_gone(const char *name)
{
    size_t n = strlen(name);
    return n == HOST_ID_MAX - 1 + strlen(GONE) && !strcmp(name + HOST_ID_MAX - 1, GONE);
}

static enum vm_state judge(struct vm *vm, const struct life *life, char *reason, size_t room)
{
    *reason = '\0';
    if (!life->has_status) {
        if (vm->state == VM_STOPPING || life->stopped)
            return VM_STOPPED;
        snprintf(reason, room, "its process was killed or crashed");
        return VM_CRASHED;
    }
    switch (life->status) {
    case VMM_STATUS_POWEROFF:
    case VMM_STATUS_TERMINATED:
        return VM_STOPPED;
    case VMM_STATUS_RESET:
        snprintf(reason, room, "the guest asked for a reset");
        return VM_STOPPED;
    case VMM_STATUS_TRIPLE_FAULT:
        snprintf(reason, room, "the guest ended in a triple fault");
        return VM_CRASHED;
    case VMM_STATUS_PANIC:
        snprintf(reason, room, "the guest's kernel panicked");
        return VM_CRASHED;
    default:
        last_words(vm->host, vm->id, reason, room);
        return VM_CRASHED;
    }
}

/* Lock held. */
static void ended(struct vm *vm)
{
    char reason[256];
    if (vm->child)
        waitpid(vm->pid, NULL, 0);
    struct life life = read_life(vm->host, vm->id);
    enum vm_state state = judge(vm, &life, reason, sizeof(reason));
    mull_source_remove(vm->source);
    close(vm->pidfd);
    vm->source = NULL;
    vm->pidfd = -1;
    vm->pid = 0;
    vm->cpu = 0;
    vm->memory = vm->cpu_at = vm->io_at = 0;
    vm->io_rate[0] = vm->io_rate[1] = 0;
    *vm->engine = '\0';
    json_decref(vm->addresses);
    vm->addresses = NULL;
    json_decref(vm->guest);
    vm->guest = NULL;
    vm->agent_quiet = 0;
    netkeeper_disconnect(vm->host, vm->id);
    balance_ended(vm);
    remove_runtime(vm->host, vm->id);
    vm_set_state(vm, state, reason);
}

static void process_ended(void *opaque, uint32_t events)
{
    struct vm *vm = opaque;
    struct host *host = vm->host;
    host_lock(host);
    if (vm->pidfd >= 0)
        ended(vm);
    host_unlock(host);
}

/* Lock held. */
static int watch(struct vm *vm, pid_t pid, bool child, struct mull_error *err)
{
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (fd < 0)
        return mull_fail(err, errno, "process %d: %s", (int)pid, strerror(errno));
    vm->pid = pid;
    vm->child = child;
    vm->pidfd = fd;
    int ret = mull_loop_watch(vm->host->loop, fd, EPOLLIN, process_ended, vm, &vm->source, err);
    if (ret) {
        close(fd);
        vm->pidfd = -1;
    }
    return ret;
}

/* ---- Starting ---- */

/* A descriptor above those that a child gets. */
static int above(int fd)
{
    int high = fd >= 0 ? fcntl(fd, F_DUPFD_CLOEXEC, 16) : -1;
    if (fd >= 0)
        close(fd);
    return high;
}

static int config_descriptor(const char *text)
{
    int fd = memfd_create("machine", MFD_CLOEXEC);
    size_t len = strlen(text), done = 0;
    while (fd >= 0 && done < len) {
        ssize_t n = write(fd, text + done, len - done);
        if (n <= 0) {
            close(fd);
            return -1;
        }
        done += (size_t)n;
    }
    if (fd >= 0)
        lseek(fd, 0, SEEK_SET);
    return above(fd);
}

static int spawn(struct host *host, const char *control, int config, int life, int log,
                 const int *fds, unsigned count, pid_t *pid)
{
    enum { CONFIG_FD = 3, LIFE_FD = 4 };
    char *argv[] = {host->options.vmm, (char *)"--config-fd", (char *)"3",     (char *)"--life-fd",
                    (char *)"4",       (char *)"--control",   (char *)control, NULL};
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    sigset_t none;
    sigemptyset(&none);
    posix_spawn_file_actions_init(&files);
    posix_spawnattr_init(&attr);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK);
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&files, log, 1);
    posix_spawn_file_actions_adddup2(&files, log, 2);
    posix_spawn_file_actions_adddup2(&files, config, CONFIG_FD);
    posix_spawn_file_actions_adddup2(&files, life, LIFE_FD);
    for (unsigned i = 0; i < count; i++)
        posix_spawn_file_actions_adddup2(&files, fds[i], VM_FIRST_FD + (int)i);
    posix_spawn_file_actions_addclosefrom_np(&files, VM_FIRST_FD + (int)count);
    int code = posix_spawn(pid, argv[0], &files, &attr, argv, environ);
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&attr);
    return -code;
}

static int start_process(struct host *host, const char *id, const char *config, const char *log,
                         const int *given, unsigned count, struct mull_error *err)
{
    int fds[VM_FDS_MAX];
    char *folder = vm_file(host, id, ""), *path = vm_file(host, id, "life");
    char *control = vm_file(host, id, "control.sock");
    int ret = folder && path && control ? host_make_folder(folder, 0700) : -ENOMEM;
    int life = ret ? -1 : above(open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    int log_fd = ret ? -1 : above(open(log, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    int config_fd = ret ? -1 : config_descriptor(config);
    pid_t pid = 0;
    for (unsigned i = 0; i < count; i++) {
        fds[i] = above(fcntl(given[i], F_DUPFD_CLOEXEC, 0));
        if (!ret && fds[i] < 0)
            ret = -errno;
    }
    if (!ret && (life < 0 || log_fd < 0 || config_fd < 0))
        ret = -errno;
    if (!ret && flock(life, LOCK_EX | LOCK_NB))
        ret = -EBUSY; /* a process that has lost its row: recovery ends it */
    if (!ret)
        ret = spawn(host, control, config_fd, life, log_fd, fds, count, &pid);
    if (ret)
        mull_fail(err, -ret, "%s: cannot be started: %s", host->options.vmm, strerror(-ret));
    if (life >= 0)
        close(life);
    if (log_fd >= 0)
        close(log_fd);
    if (config_fd >= 0)
        close(config_fd);
    for (unsigned i = 0; i < count; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    if (!ret) {
        host_lock(host);
        struct vm *vm = vm_of(host, id);
        ret = watch(vm, pid, true, err);
        if (!ret)
            balance_started(vm);
        host_unlock(host);
        if (ret) {
            kill(pid, SIGKILL);
            waitpid(pid, NULL, 0);
        }
    }
    free(folder);
    free(path);
    free(control);
    return ret;
}

static void sleep_ms(long ms)
{
    struct timespec t = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&t, NULL);
}

int vm_ask(struct host *host, const char *id, unsigned seconds, const char *method, json_t *params,
           json_t **result, struct mull_error *err)
{
    struct mull_rpc rpc;
    char *path = vm_file(host, id, "control.sock");
    int ret = path ? mull_rpc_open(&rpc, path, seconds, err) : -ENOMEM;
    free(path);
    if (ret) {
        json_decref(params);
        return 1;
    }
    ret = mull_rpc_call(&rpc, method, params, result, err);
    mull_rpc_close(&rpc);
    return ret;
}

/* Ask a process how its machine is. */
static int ask(struct host *host, const char *id, json_t **status, struct mull_error *err)
{
    return vm_ask(host, id, RPC_SECONDS, "status", NULL, status, err);
}

void vm_take_state(struct vm *vm, const json_t *said, unsigned changes)
{
    const char *state = host_text(said, "state"), *reason = host_text(said, "reason");
    if (vm->changes != changes || vm->state == VM_STOPPING)
        return;
    if (!strcmp(state, "paused") && (vm->state != VM_PAUSED || strcmp(vm->reason, reason)))
        vm_set_state(vm, VM_PAUSED, reason);
    else if (!strcmp(state, "running") && vm->state != VM_RUNNING)
        vm_set_state(vm, VM_RUNNING, "");
}

/* Lock held. */
static void take_status(struct vm *vm, json_t *status)
{
    snprintf(vm->engine, sizeof(vm->engine), "%.7s", host_text(status, "engine"));
    vm->uptime = json_number_value(json_object_get(status, "uptime"));
    vm->uptime_ns = mull_now_ns();
    vm_take_state(vm, status, vm->changes);
}

int vm_start(struct host *host, const char *id, const char *config, const char *log, const int *fds,
             unsigned count, const _Atomic bool *cancelled, struct host_problem *p)
{
    struct mull_error err = {0};
    int ret = count <= VM_FDS_MAX ? start_process(host, id, config, log, fds, count, &err)
                                  : mull_fail(&err, E2BIG, "more than %d descriptors", VM_FDS_MAX);
    if (ret) {
        host_lock(host);
        netkeeper_disconnect(host, id);
        remove_runtime(host, id);
        vm_set_state(vm_of(host, id), VM_STOPPED, "");
        host_unlock(host);
        return host_problem_from(p, &err);
    }
    uint64_t deadline = mull_now_ns() + START_SECONDS * 1000000000ull;
    for (long pause = 5;; pause = pause < 100 ? pause * 2 : 100) {
        json_t *status = NULL;
        bool answered =
            !ask(host, id, &status, &err) && strcmp(host_text(status, "state"), "created");
        host_lock(host);
        struct vm *vm = vm_of(host, id);
        bool gone = vm->pidfd < 0;
        char reason[256];
        snprintf(reason, sizeof(reason), "%s", vm->reason);
        if (answered && !gone) {
            take_status(vm, status);
            console_begin(vm);
        }
        host_unlock(host);
        json_decref(status);
        if (gone && !answered)
            return host_problem(p, HOST_CONFLICT, NULL, "%s",
                                *reason ? reason : "the machine ended at once");
        if (answered)
            return 0;
        if (*cancelled || mull_now_ns() > deadline) {
            vm_kill(host, id);
            return host_problem(p, HOST_UNAVAILABLE, NULL,
                                "the machine's process does not answer; it was ended");
        }
        sleep_ms(pause);
    }
}

int vm_call(struct host *host, const char *id, const char *method, json_t *params, json_t **result,
            struct host_problem *p)
{
    struct mull_error err = {0};
    int ret = vm_ask(host, id, RPC_SECONDS, method, params, result, &err);
    if (ret)
        host_problem(p, HOST_CONFLICT, NULL, "%s",
                     ret > 0 ? "the machine does not run" : err.message);
    return ret ? -1 : 0;
}

int vm_wait_end(struct host *host, const char *id, unsigned seconds, const _Atomic bool *cancelled)
{
    struct timespec until;
    int ret = 0;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += seconds;
    host_lock(host);
    while (vm_of(host, id)->pidfd >= 0 && !ret) {
        if (cancelled && *cancelled)
            ret = -ECANCELED;
        else
            ret = -pthread_cond_timedwait(&host->changed, &host->lock, &until);
    }
    bool over = vm_of(host, id)->pidfd < 0;
    host_unlock(host);
    return over ? 0 : ret;
}

void vm_kill(struct host *host, const char *id)
{
    host_lock(host);
    struct vm *vm = vm_of(host, id);
    if (vm->pidfd >= 0) {
        vm->state = VM_STOPPING;
        mark_stopping(host, id, true);
        syscall(SYS_pidfd_send_signal, vm->pidfd, SIGKILL, NULL, 0);
    }
    host_unlock(host);
    vm_wait_end(host, id, 30, NULL);
}

/* ---- Measuring ---- */

static uint64_t cpu_time(pid_t pid)
{
    char path[64];
    unsigned long user = 0, system = 0;
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    char *text = host_read_file(path, 1024, NULL, NULL);
    char *after = text ? strrchr(text, ')') : NULL;
    /* proc(5): fields 14 and 15; the third is after the name. */
    if (after)
        sscanf(after + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system);
    free(text);
    return (uint64_t)(user + system) * (1000000000ull / (uint64_t)sysconf(_SC_CLK_TCK));
}

static uint64_t resident(pid_t pid)
{
    char path[64];
    unsigned long pages = 0;
    snprintf(path, sizeof(path), "/proc/%d/statm", (int)pid);
    char *text = host_read_file(path, 256, NULL, NULL);
    if (text)
        sscanf(text, "%*u %lu", &pages);
    free(text);
    return (uint64_t)pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static bool io_bytes(pid_t pid, uint64_t out[2])
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/io", (int)pid);
    char *text = host_read_file(path, 1024, NULL, NULL);
    char *read = text ? strstr(text, "\nread_bytes: ") : NULL;
    char *written = text ? strstr(text, "\nwrite_bytes: ") : NULL;
    if (read && written) {
        out[0] = strtoull(read + 13, NULL, 10);
        out[1] = strtoull(written + 14, NULL, 10);
    }
    free(text);
    return read && written;
}

void vm_sample_memory(struct vm *vm)
{
    vm->memory = resident(vm->pid);
}

void vm_sample(struct vm *vm)
{
    uint64_t now = mull_now_ns(), used = cpu_time(vm->pid), io[2];
    if (vm->cpu_at && now > vm->cpu_at && used >= vm->cpu_ns)
        vm->cpu = 100.0 * (double)(used - vm->cpu_ns) / (double)(now - vm->cpu_at);
    vm->cpu_ns = used;
    vm->cpu_at = now;
    vm_sample_memory(vm);
    if (io_bytes(vm->pid, io)) {
        for (unsigned i = 0; i < 2 && vm->io_at && now > vm->io_at; i++)
            vm->io_rate[i] = (double)(io[i] - vm->io[i]) * 1e9 / (double)(now - vm->io_at);
        memcpy(vm->io, io, sizeof(io));
        vm->io_at = now;
    }
}

/* ---- Adopting ---- */

static bool is_locked(struct host *host, const char *id)
{
    char *path = vm_file(host, id, "life");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW) : -1;
    bool locked = fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK;
    if (fd >= 0)
        close(fd);
    free(path);
    return locked;
}

static bool wanted(struct host *host, const char *id)
{
    json_t *doc = store_get(host->store, KIND_MACHINE, id);
    return doc && !strcmp(host_text(doc, "_lifecycle"), "ready");
}

/* A process lives: ask it until it answers. Lock held, and let go of meanwhile by nobody: nothing
 * else runs yet. */
static void adopt(struct host *host, const char *id)
{
    struct vm *vm = vm_of(host, id);
    struct mull_error err = {0};
    uint64_t deadline = mull_now_ns() + ADOPT_SECONDS * 1000000000ull;
    json_t *status = NULL;
    struct life life = {0};
    while (vm && is_locked(host, id) && mull_now_ns() < deadline) {
        life = read_life(host, id);
        if (life.pid > 0 && wanted(host, id) && !ask(host, id, &status, &err)) {
            if (strcmp(host_text(status, "state"), "created"))
                break;
            json_decref(status); /* its machine is not started yet */
            status = NULL;
        }
        if (life.pid > 0 && !wanted(host, id))
            break;
        sleep_ms(20);
    }
    if (!vm || !is_locked(host, id) || life.pid <= 0) {
        json_decref(status);
        return;
    }
    if (!status) { /* nobody's, or deaf */
        mull_log(&host->log, MULL_LOG_WARN, "machine %s: process %d is ended: %s", id, life.pid,
                 wanted(host, id) ? "it does not answer" : "no such machine is known");
        kill(life.pid, SIGKILL);
        while (is_locked(host, id) && mull_now_ns() < deadline + 10000000000ull)
            sleep_ms(10);
        return;
    }
    vm->state = VM_STARTING;
    if (!watch(vm, life.pid, false, &err)) {
        mark_stopping(host, id, false); /* it was not killed in the end */
        take_status(vm, status);
        console_begin(vm);
        mull_log(&host->log, MULL_LOG_INFO, "machine %s: adopted process %d", id, life.pid);
    } else {
        vm->state = VM_STOPPED;
        mull_log(&host->log, MULL_LOG_ERROR, "machine %s: %s", id, err.message);
    }
    json_decref(status);
}

/* It has ended while nobody looked. */
static void bury(struct host *host, const char *id)
{
    struct vm *vm = vm_of(host, id);
    char reason[256];
    if (vm && wanted(host, id)) {
        struct life life = read_life(host, id);
        /* Where no process has put its number, the daemon ended before there was one. */
        enum vm_state state = VM_STOPPED;
        *reason = '\0';
        if (life.pid > 0) {
            vm->state = VM_RUNNING;
            state = judge(vm, &life, reason, sizeof(reason));
        }
        vm_set_state(vm, state, reason);
    }
    remove_runtime(host, id);
}

int supervisor_open(struct host *host, struct mull_error *err)
{
    host->supervisor = calloc(1, sizeof(*host->supervisor));
    DIR *dir = host->supervisor ? opendir(host->places.runtime) : NULL;
    struct dirent *e;
    if (!dir)
        return mull_fail(err, host->supervisor ? errno : ENOMEM, "%s: %s", host->places.runtime,
                         strerror(errno));
    host_lock(host);
    while ((e = readdir(dir))) {
        char id[HOST_ID_MAX];
        if (is_gone(e->d_name)) {
            char *left = host_path(host->places.runtime, "%s", e->d_name);
            if (left)
                host_remove_tree(left);
            free(left);
        }
        if (strlen(e->d_name) != HOST_ID_MAX - 1 || e->d_name[8] != '-')
            continue;
        snprintf(id, sizeof(id), "%.36s", e->d_name);
        if (is_locked(host, id))
            adopt(host, id);
        struct vm *vm = vm_of(host, id);
        if (vm && vm->pidfd < 0)
            bury(host, id);
    }
    host_unlock(host);
    closedir(dir);
    return 0;
}

void supervisor_close(struct host *host)
{
    struct supervisor *s = host->supervisor;
    if (!s)
        return;
    for (unsigned i = 0; i < BUCKETS; i++) {
        while (s->bucket[i]) {
            struct vm *vm = s->bucket[i];
            s->bucket[i] = vm->next;
            console_end(vm);
            mull_source_remove(vm->source);
            if (vm->pidfd >= 0)
                close(vm->pidfd);
            free(vm);
        }
    }
    free(s);
    host->supervisor = NULL;
}
