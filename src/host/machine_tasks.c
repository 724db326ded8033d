/*
 * The work on machines, in tasks' threads: making and deleting them with their files, starting and
 * stopping them, and what a new daemon does about work that was interrupted.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "host/agent.h"
#include "host/auth.h"
#include "host/balance.h"
#include "host/clone.h"
#include "host/disks.h"
#include "host/events.h"
#include "host/guests.h"
#include "host/machines.h"
#include "host/netkeeper.h"
#include "host/seed.h"
#include "host/store/store.h"
#include "host/stores.h"
#include "host/templates.h"
#include "machine/config.h"

#define DESCRIPTION "machine.json"

int machine_write_description(const char *folder, json_t *config, struct mull_error *err)
{
    char *path = host_path(folder, DESCRIPTION);
    char *text = json_dumps(config, JSON_INDENT(2));
    int ret = path && text ? host_write_file(path, text, strlen(text), 0600, err)
                           : mull_fail(err, ENOMEM, "%s: no memory", folder);
    free(path);
    free(text);
    return ret;
}

/* The folder and a copy of the configuration; both to be released. */
static int copy_of(struct host *host, const char *id, char **folder, json_t **config,
                   struct host_problem *p)
{
    host_lock(host);
    json_t *doc = store_get(host->store, KIND_MACHINE, id);
    *folder = doc ? machine_file(host, id, "") : NULL;
    *config = doc ? json_deep_copy(json_object_get(doc, "config")) : NULL;
    host_unlock(host);
    return *folder && *config ? 0
                              : host_problem(p, HOST_NOT_FOUND, NULL, "machine %s: is gone", id);
}

/* ---- Making ---- */

/* What sets the guest up. The password is hashed here, out of the lock, and kept nowhere. */
static int make_seed(struct task *task, const char *folder, json_t *config, struct host_problem *p)
{
    json_t *setup = json_object_get(task->args, "setup");
    const char *password = json_string_value(json_object_get(setup, "password"));
    struct mull_error err = {0};
    char *hash = NULL;
    if (!setup)
        return 0;
    if (password && !(hash = auth_hash(password, p)))
        return -1;
    char *path = host_path(folder, MACHINE_SEED);
    int ret =
        path ? host_seed_write(path, task->object_id, host_text(config, "name"), setup, hash, &err)
             : mull_fail(&err, ENOMEM, "no memory");
    free(path);
    free(hash);
    return ret ? host_problem_from(p, &err) : 0;
}

/* One disk of a machine's plan: a template's, an image's, or an empty one. */
static int make_disk(struct task *task, const char *folder, json_t *disk, struct mull_error *err)
{
    if (*host_text(disk, "clone")) {
        json_t *made =
            clone_disk(task, host_text(disk, "clone"), host_text(disk, "format"), folder,
                       host_text(disk, "stem"), json_is_true(json_object_get(disk, "linked")), err);
        json_decref(made);
        return made ? 0 : -1;
    }
    char *path = host_path(folder, "%s", host_text(disk, "file"));
    int ret = path ? disk_make(task, path, "qcow2",
                               (uint64_t)json_integer_value(json_object_get(disk, "capacity")),
                               json_string_value(json_object_get(disk, "from")),
                               json_string_value(json_object_get(disk, "format")), err)
                   : mull_fail(err, ENOMEM, "no memory");
    free(path);
    return ret;
}

/* What a template has beside its disks. */
static int copy_template(struct task *task, const char *folder, json_t *config,
                         struct mull_error *err)
{
    struct host *host = task->host;
    const char *id = host_text(task->args, "template");
    if (!*id)
        return 0;
    host_lock(host);
    json_t *doc = store_get(host->store, KIND_TEMPLATE, id);
    char *from = doc ? template_folder(host, doc) : NULL;
    host_unlock(host);
    int ret = from ? clone_others(task, config, from, folder, err)
                   : mull_fail(err, ENOENT, "the template is gone");
    free(from);
    return ret;
}

static int make_files(struct task *task, const char *folder, json_t *config, struct host_problem *p)
{
    struct mull_error err = {0};
    json_t *plan = json_object_get(task->args, "plan"), *disk;
    size_t i;
    int ret = host_make_folder(folder, 0700);
    if (ret)
        return host_problem_from(p, &(struct mull_error){.code = -ret});
    json_array_foreach(plan, i, disk)
    {
        if (make_disk(task, folder, disk, &err))
            return host_problem_from(p, &err);
    }
    if (copy_template(task, folder, config, &err))
        return host_problem_from(p, &err);
    if (make_seed(task, folder, config, p))
        return -1;
    return machine_write_description(folder, config, &err) ? host_problem_from(p, &err) : 0;
}

static void set_ready(json_t *doc, void *opaque)
{
    json_object_set_new(doc, "_lifecycle", json_string("ready"));
}

/* Remove a machine's files and its row. */
static int forget(struct host *host, const char *id, const char *folder, struct host_problem *p)
{
    struct mull_error err = {0};
    int ret = host_remove_tree(folder);
    if (ret)
        return host_problem(p, HOST_INTERNAL, NULL, "%s: %s", folder, strerror(-ret));
    host_lock(host);
    ret = store_delete(host->store, KIND_MACHINE, id, &err);
    if (!ret) {
        host_changed(host, KIND_MACHINE, id);
        vm_forget(host, id);
    }
    host_unlock(host);
    return ret ? host_problem_from(p, &err) : 0;
}

static json_t *object_result(const char *id)
{
    char object[HOST_NAME_MAX + 16];
    snprintf(object, sizeof(object), "machine:%s", id);
    return json_pack("{s:s}", "object", object);
}

static void tell(struct host *host, const char *id, const char *type, const char *user,
                 const char *what)
{
    char object[HOST_NAME_MAX + 16];
    json_t *doc = store_get(host->store, KIND_MACHINE, id);
    snprintf(object, sizeof(object), "machine:%s", id);
    host_event(host, type, object, host_text(doc, "name"), user, "info", NULL, "%s was %s",
               host_text(doc, "name"), what);
}

int machine_create_task(struct task *task, struct host_problem *p)
{
    struct host *host = task->host;
    const char *id = task->object_id;
    char *folder = NULL;
    json_t *config = NULL;
    int ret = copy_of(host, id, &folder, &config, p);
    if (!ret)
        ret = make_files(task, folder, config, p);
    if (!ret) {
        host_lock(host);
        ret = machine_update(host, id, set_ready, NULL, p);
        if (!ret)
            tell(host, id, "machine.created", task->user, "created");
        host_unlock(host);
    }
    if (ret && folder) {
        struct host_problem ignored;
        forget(host, id, folder, &ignored);
    }
    free(folder);
    json_decref(config);
    if (!ret)
        task->result = object_result(id);
    if (!ret && json_is_true(json_object_get(task->args, "start")))
        ret = machine_run_action(task, id, MACHINE_START, false, 0, p);
    return ret;
}

/* ---- Deleting ---- */

/* An image stands for itself: what a disk has from the one below it is copied into it.
 * @return what to keep, malloc'ed; NULL with @err */
static char *whole_disk(const char *folder, const char *from, size_t i, struct mull_error *err)
{
    struct mull_error alone = {0};
    json_t *what = disk_describe(from, NULL, true, &alone);
    if (what) {
        json_decref(what);
        return strdup(from);
    }
    if (!(what = disk_describe(from, NULL, false, err)))
        return NULL;
    char *flat = host_path(folder, "whole-%zu.qcow2", i);
    if (flat)
        unlink(flat);
    if (flat && disk_make(NULL, flat, "qcow2", 0, from, host_text(what, "format"), err)) {
        unlink(flat);
        free(flat);
        flat = NULL;
    }
    json_decref(what);
    return flat;
}

/* A kept disk becomes an image. Done again after a crash it finds what it has done. */
static int keep_disk(struct host *host, json_t *doc, const char *folder, json_t *disk, size_t i,
                     struct host_problem *p)
{
    const char *path = host_text(disk, "path");
    char name[HOST_NAME_MAX], *from = *path == '/' ? NULL : host_path(folder, "%s", path);
    struct stat st;
    if (!strcmp(path, MACHINE_SEED) || !from || stat(from, &st)) {
        free(from);
        return 0; /* not ours, or moved already */
    }
    struct mull_error err = {0};
    char *whole = whole_disk(folder, from, i, &err);
    if (!whole) {
        free(from);
        return host_problem_from(p, &err);
    }
    host_lock(host);
    unsigned n = 0;
    do
        snprintf(name, sizeof(name), n ? "%.30s-disk%u-%u" : "%.30s-disk%u", host_text(doc, "name"),
                 (unsigned)i, n);
    while (n++ < 1000 && store_get(host->store, KIND_IMAGE, name));
    int ret = image_adopt(host, name, "image", whole, host_text(doc, "datastore"),
                          host_text(json_object_get(doc, "config"), "os"), p);
    host_unlock(host);
    if (!ret && strcmp(whole, from))
        unlink(from);
    free(whole);
    free(from);
    return ret;
}

static int delete_machine(struct host *host, const char *id, struct host_problem *p)
{
    struct mull_error err = {0};
    host_lock(host);
    json_t *stored = store_get(host->store, KIND_MACHINE, id);
    json_t *doc = stored ? json_deep_copy(stored) : NULL;
    char *folder = doc ? machine_file(host, id, "") : NULL;
    int synced = store_sync(host->store, &err);
    host_unlock(host);
    json_t *disk;
    size_t i;
    int ret = folder ? 0 : host_problem(p, HOST_NOT_FOUND, NULL, "machine %s: is gone", id);
    if (!ret && synced)
        ret = host_problem_from(p, &err);
    if (!ret && json_is_true(json_object_get(doc, "_keep"))) {
        json_array_foreach(json_object_get(json_object_get(doc, "config"), "disks"), i, disk)
        {
            if (!ret)
                ret = keep_disk(host, doc, folder, disk, i, p);
        }
    }
    if (!ret)
        ret = forget(host, id, folder, p);
    free(folder);
    json_decref(doc);
    return ret;
}

int machine_delete_task(struct task *task, struct host_problem *p)
{
    struct host *host = task->host;
    host_lock(host);
    json_t *doc = store_get(host->store, KIND_MACHINE, task->object_id);
    char name[HOST_NAME_MAX];
    snprintf(name, sizeof(name), "%s", host_text(doc, "name"));
    host_unlock(host);
    int ret = delete_machine(host, task->object_id, p);
    host_lock(host);
    if (!ret)
        host_event(host, "machine.deleted", NULL, name, task->user, "info", NULL, "%s was deleted",
                   name);
    host_unlock(host);
    return ret;
}

/* ---- Starting and stopping ---- */

static void set_started(json_t *doc, void *opaque)
{
    json_t *pending = json_object_get(doc, "pending_config");
    json_object_set_new(doc, "started", host_now_json());
    if (json_is_object(pending)) {
        json_object_set(doc, "config", pending);
        json_object_set_new(doc, "pending_config", json_null());
    }
    json_object_set(json_object_get(doc, "config"), "name", json_object_get(doc, "name"));
}

static void set_path(json_t *object, const char *key, const char *prefix, char *path)
{
    char text[256];
    snprintf(text, sizeof(text), "%s%s", prefix, path ? path : "");
    json_object_set_new(object, key, json_string(text));
    free(path);
}

/* What runs: the description with whole names, our sockets as its console and its screen. */
static char *runtime_config(struct host *host, const char *id, json_t *config, const char *folder,
                            struct host_problem *p)
{
    struct mull_machine_config parsed;
    struct mull_error err = {0};
    if (!json_array_size(json_object_get(config, "disks")) &&
        !json_array_size(json_object_get(config, "cdroms")) && !*host_text(config, "kernel")) {
        host_problem(p, HOST_CONFLICT, NULL,
                     "the machine has nothing to start from: give it a disk or an ISO");
        return NULL;
    }
    json_t *serial = json_pack("{s:s, s:s}", "type", "unix", "device", "serial");
    set_path(serial, "path", "", vm_file(host, id, "serial.sock"));
    json_t *agent = json_pack("{s:s, s:s, s:s}", "type", "unix", "device", "channel", "name",
                              HOST_AGENT_CHANNEL);
    set_path(agent, "path", "", vm_file(host, id, "agent.sock"));
    json_object_set_new(config, "consoles", json_pack("[o, o]", serial, agent));
    json_t *display = json_pack("{s:s}", "type", "vnc");
    set_path(display, "listen", "unix:", vm_file(host, id, "vnc.sock"));
    json_object_set_new(config, "display", display);
    if (!json_object_get(config, "balloon")) /* memory can be reclaimed, where the guest helps */
        json_object_set_new(config, "balloon", json_true());
    if (mull_machine_config_resolve(config, folder))
        return NULL;
    char *text = json_dumps(config, JSON_COMPACT);
    int ret = text ? mull_machine_config_parse(text, &parsed, &err) : -ENOMEM;
    if (ret)
        host_problem(p, HOST_CONFLICT, NULL, "%s", err.message);
    if (text)
        mull_machine_config_free(&parsed);
    if (ret) {
        free(text);
        return NULL;
    }
    return text;
}

static int start(struct task *task, const char *id, struct host_problem *p)
{
    struct host *host = task->host;
    struct mull_error err = {0};
    host_lock(host);
    struct vm *vm = vm_of(host, id);
    int ret = 0;
    if (!vm || vm_runs(vm))
        ret = host_problem(p, HOST_CONFLICT, NULL, "the machine runs already");
    json_t *doc = store_get(host->store, KIND_MACHINE, id);
    if (!ret && doc)
        ret = resources_admit(
            host, &(struct resources_change){.kind = KIND_MACHINE, .doc = doc, .starts = true}, p);
    if (!ret)
        ret = machine_update(host, id, set_started, NULL, p);
    if (!ret)
        vm_set_state(vm, VM_STARTING, "");
    host_unlock(host);
    if (ret)
        return ret;
    char *folder = NULL, *log = NULL, *text = NULL;
    json_t *config = NULL;
    int fds[NETKEEPER_CARDS_MAX], cards = 0;
    ret = copy_of(host, id, &folder, &config, p);
    if (!ret && machine_write_description(folder, config, &err))
        ret = host_problem_from(p, &err);
    if (!ret) {
        cards = netkeeper_connect(host, id, config, VM_FIRST_FD, fds, p);
        ret = cards < 0 ? -1 : 0;
    }
    if (!ret) {
        text = runtime_config(host, id, config, folder, p);
        log = host_path(folder, "vmm.log");
        ret = text && log ? 0 : -1;
    }
    if (ret) {
        host_lock(host);
        netkeeper_disconnect(host, id);
        vm_set_state(vm_of(host, id), VM_STOPPED, "");
        host_unlock(host);
    } else {
        ret = vm_start(host, id, text, log, fds, (unsigned)cards, &task->cancelled, p);
        host_lock(host);
        balance_now(host);
        host_unlock(host);
    }
    for (int i = 0; i < cards; i++)
        close(fds[i]);
    free(folder);
    free(log);
    free(text);
    json_decref(config);
    return ret;
}

static int stop(struct task *task, const char *id, bool force, unsigned timeout,
                struct host_problem *p)
{
    struct host *host = task->host;
    host_lock(host);
    struct vm *vm = vm_of(host, id);
    bool runs = vm && vm->pidfd >= 0;
    enum vm_state before = runs ? vm->state : VM_STOPPED;
    if (runs)
        vm_set_state(vm, VM_STOPPING, "");
    host_unlock(host);
    if (!runs)
        return host_problem(p, HOST_CONFLICT, NULL, "the machine does not run");
    if (before == VM_PAUSED && !force)
        vm_call(host, id, "resume", NULL, NULL, NULL);
    int ret = -ETIMEDOUT;
    if (!force)
        guest_shutdown(host, id); /* the power button as well: some guests look at one of the two */
    if (!force && !vm_call(host, id, "powerdown", NULL, NULL, NULL))
        ret = vm_wait_end(host, id, timeout, &task->cancelled);
    if (force) {
        vm_call(host, id, "quit", NULL, NULL, NULL);
        ret = vm_wait_end(host, id, 10, NULL);
        if (ret)
            vm_kill(host, id);
        return 0;
    }
    if (!ret)
        return 0;
    host_lock(host);
    vm = vm_of(host, id);
    if (vm->pidfd >= 0)
        vm_set_state(vm, VM_RUNNING, "");
    host_unlock(host);
    return host_problem(p, HOST_CONFLICT, NULL,
                        "the guest has not switched itself off within %u s; stop it by force",
                        timeout);
}

static int simple(struct host *host, const char *id, const char *method, enum vm_state state,
                  struct host_problem *p)
{
    if (vm_call(host, id, method, NULL, NULL, p))
        return -1;
    host_lock(host);
    struct vm *vm = vm_of(host, id);
    if (vm->pidfd >= 0) {
        if (vm->state == VM_RUNNING && state == VM_PAUSED)
            vm->uptime += (double)(mull_now_ns() - vm->uptime_ns) / 1e9;
        vm->uptime_ns = mull_now_ns();
        vm_set_state(vm, state, "");
    }
    host_unlock(host);
    return 0;
}

int machine_run_action(struct task *task, const char *id, enum machine_action action, bool force,
                       unsigned timeout, struct host_problem *p)
{
    struct host *host = task->host;
    host_lock(host);
    enum vm_state state = vm_of(host, id)->state;
    bool runs = vm_of(host, id)->pidfd >= 0;
    host_unlock(host);
    switch (action) {
    case MACHINE_START:
        return start(task, id, p);
    case MACHINE_STOP:
        return stop(task, id, force, timeout, p);
    case MACHINE_RESTART:
        if (runs && stop(task, id, force, timeout, p))
            return -1;
        return start(task, id, p);
    case MACHINE_PAUSE:
        if (state != VM_RUNNING)
            break;
        return simple(host, id, "pause", VM_PAUSED, p);
    case MACHINE_RESUME:
        if (state != VM_PAUSED)
            break;
        return simple(host, id, "resume", VM_RUNNING, p);
    case MACHINE_RESET:
        if (!runs)
            break;
        return simple(host, id, "reset", state == VM_PAUSED ? VM_PAUSED : VM_RUNNING, p);
    }
    return host_problem(p, HOST_CONFLICT, NULL, "the machine is %s", vm_state_names[state]);
}

static int act_task(struct task *task, struct host_problem *p)
{
    return machine_run_action(
        task, task->object_id,
        (enum machine_action)json_integer_value(json_object_get(task->args, "action")),
        json_is_true(json_object_get(task->args, "force")),
        (unsigned)json_integer_value(json_object_get(task->args, "timeout")), p);
}

json_t *machine_act(struct host *host, const char *user, json_t *doc, enum machine_action action,
                    json_t *body, struct host_problem *p)
{
    static const char *const types[] = {"machine.start", "machine.stop",   "machine.restart",
                                        "machine.pause", "machine.resume", "machine.reset"};
    json_t *timeout = json_object_get(body, "timeout");
    struct vm *vm = vm_of(host, host_text(doc, "id"));
    if (machine_is_free(host, doc, p))
        return NULL;
    bool runs = vm_runs(vm);
    if (action == MACHINE_START ? runs : action != MACHINE_RESTART && !runs) {
        host_problem(p, HOST_CONFLICT, NULL, "machine %s: is %s", host_text(doc, "name"),
                     vm_state_names[vm->state]);
        return NULL;
    }
    json_t *args = json_pack("{s:i, s:b, s:I}", "action", (int)action, "force",
                             json_is_true(json_object_get(body, "force")), "timeout",
                             timeout ? json_integer_value(timeout) : (json_int_t)60);
    return machine_task(host, user, doc, types[action], true, args, act_task, p);
}

/* ---- With the host ---- */

struct order {
    char id[HOST_ID_MAX];
    json_int_t order, delay;
};

static int compare_order(const void *a, const void *b)
{
    const struct order *x = a, *y = b;
    return x->order < y->order ? -1 : x->order > y->order;
}

/* Lock held. @return how many, in *out (malloc'ed) */
static size_t in_order(struct host *host, bool running, struct order **out)
{
    json_t *all = store_all(host->store, KIND_MACHINE), *doc;
    const char *id;
    size_t n = 0;
    struct order *list = calloc(json_object_size(all) + 1, sizeof(*list));
    json_object_foreach(all, id, doc)
    {
        json_t *autostart = json_object_get(doc, "autostart");
        struct vm *vm = vm_of(host, id);
        bool take = running ? vm->pidfd >= 0
                            : json_is_true(json_object_get(autostart, "enabled")) && !vm_runs(vm);
        if (!take || !list || strcmp(host_text(doc, "_lifecycle"), "ready"))
            continue;
        snprintf(list[n].id, sizeof(list[n].id), "%s", id);
        list[n].order = json_integer_value(json_object_get(autostart, "order"));
        list[n++].delay = json_integer_value(json_object_get(autostart, "delay"));
    }
    if (list)
        qsort(list, n, sizeof(*list), compare_order);
    *out = list;
    return n;
}

static int autostart_task(struct task *task, struct host_problem *p)
{
    struct host *host = task->host;
    struct order *list;
    unsigned failed = 0;
    host_lock(host);
    size_t n = in_order(host, false, &list);
    host_unlock(host);
    for (size_t i = 0; i < n && !task->cancelled; i++) {
        struct host_problem why;
        task_progress(task, "starting machines", i, n);
        host_lock(host);
        json_t *doc = store_get(host->store, KIND_MACHINE, list[i].id);
        json_t *started =
            doc ? machine_act(host, task->user, doc, MACHINE_START, NULL, &why) : NULL;
        failed += doc && !started;
        host_unlock(host);
        for (json_int_t s = 0; i + 1 < n && s < list[i].delay * 10 && !task->cancelled; s++)
            nanosleep(&(struct timespec){0, 100000000}, NULL);
    }
    free(list);
    return failed ? host_problem(p, HOST_CONFLICT, NULL, "%u machines were not started", failed)
                  : 0;
}

void machines_autostart(struct host *host)
{
    struct host_problem p;
    struct task_request request = {
        .type = "host.autostart", .user = "system", .cancellable = true, .fn = autostart_task};
    struct order *list;
    size_t n = in_order(host, false, &list);
    free(list);
    if (n && !task_start(host, &request, &p))
        mull_log(&host->log, MULL_LOG_ERROR, "autostart: %s", p.detail);
}

void machines_stop_all(struct host *host, unsigned seconds)
{
    struct order *list;
    host_lock(host);
    size_t n = in_order(host, true, &list);
    for (size_t i = 0; i < n; i++)
        vm_set_state(vm_of(host, list[i].id), VM_STOPPING, "the host ends");
    host_unlock(host);
    for (size_t i = n; i-- > 0;)
        vm_call(host, list[i].id, "powerdown", NULL, NULL, NULL);
    uint64_t deadline = mull_now_ns() + seconds * 1000000000ull;
    for (size_t i = n; i-- > 0;) {
        uint64_t now = mull_now_ns();
        unsigned left = now < deadline ? (unsigned)((deadline - now) / 1000000000ull) : 0;
        if (!vm_wait_end(host, list[i].id, left, NULL))
            continue;
        vm_call(host, list[i].id, "quit", NULL, NULL, NULL);
        if (vm_wait_end(host, list[i].id, 5, NULL))
            vm_kill(host, list[i].id);
    }
    free(list);
}

/* ---- After a crash ---- */

/* Temporary folders of imports: ".UUID.XXXXXX" beside the machine's. */
static void remove_temporary(const char *folder)
{
    char *parent = strdup(folder), *slash = parent ? strrchr(parent, '/') : NULL;
    if (slash) {
        *slash++ = '\0';
        DIR *dir = opendir(parent);
        struct dirent *e;
        size_t n = strlen(slash);
        while (dir && (e = readdir(dir))) {
            if (e->d_name[0] != '.' || strncmp(e->d_name + 1, slash, n) || e->d_name[n + 1] != '.')
                continue;
            char *path = host_path(parent, "%s", e->d_name);
            if (path)
                host_remove_tree(path);
            free(path);
        }
        if (dir)
            closedir(dir);
    }
    free(parent);
}

void machines_recover(struct host *host)
{
    json_t *all = json_copy(store_all(host->store, KIND_MACHINE)), *doc;
    const char *id;
    json_object_foreach(all, id, doc)
    {
        struct host_problem p = {0};
        const char *lifecycle = host_text(doc, "_lifecycle");
        char *folder = machine_file(host, id, "");
        int ret = 0;
        if (!folder) {
            mull_log(&host->log, MULL_LOG_ERROR, "machine %s: its datastore is not known", id);
            continue;
        }
        if (!strcmp(lifecycle, "creating")) {
            remove_temporary(folder);
            host_unlock(host);
            ret = forget(host, id, folder, &p);
            host_lock(host);
            host_event(host, "machine.undone", NULL, host_text(doc, "name"), NULL, "warning", NULL,
                       "%s was being made when the daemon ended; it is undone",
                       host_text(doc, "name"));
        } else if (!strcmp(lifecycle, "deleting")) {
            host_unlock(host);
            ret = delete_machine(host, id, &p);
            host_lock(host);
        }
        if (ret)
            mull_log(&host->log, MULL_LOG_ERROR, "machine %s: %s", id, p.detail);
        free(folder);
    }
    json_decref(all);
}
