/*
 * See tasks.h.
 */
#include "host/tasks.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/events.h"
#include "host/machines.h"
#include "host/store/store.h"

#define TELL_NS 200000000ull

struct tasks {
    struct task *first, **last; /* waiting */
    unsigned waiting, running;
    struct task *active[TASKS_RUNNING];
    bool closing;
};

static bool is_over(const json_t *doc)
{
    const char *state = host_text(doc, "state");
    return strcmp(state, "queued") && strcmp(state, "running");
}

/* The oldest that are over make room. */
static void prune(struct host *host)
{
    json_t *all = store_all(host->store, KIND_TASK);
    size_t excess = json_object_size(all) > TASKS_KEPT ? json_object_size(all) - TASKS_KEPT : 0;
    while (excess--) {
        const char *id, *victim = NULL;
        json_t *doc;
        json_object_foreach(all, id, doc)
        {
            if (is_over(doc)) {
                victim = id;
                break;
            }
        }
        char copy[HOST_NAME_MAX];
        if (!victim)
            return;
        snprintf(copy, sizeof(copy), "%s", victim);
        if (store_delete(host->store, KIND_TASK, copy, NULL))
            return;
    }
}

int tasks_open(struct host *host, struct mull_error *err)
{
    host->tasks = calloc(1, sizeof(*host->tasks));
    if (!host->tasks)
        return mull_fail(err, ENOMEM, "tasks: no memory");
    host->tasks->last = &host->tasks->first;
    const char *id;
    json_t *doc;
    void *tmp;
    int ret = 0;
    json_object_foreach_safe(store_all(host->store, KIND_TASK), tmp, id, doc)
    {
        if (is_over(doc) || ret)
            continue;
        struct host_problem p;
        host_problem(&p, HOST_UNAVAILABLE, NULL,
                     "the daemon ended while this ran; what it had begun is undone or finished");
        json_t *now = json_deep_copy(doc);
        json_object_set_new(now, "state", json_string("failed"));
        json_object_set_new(now, "ended", host_now_json());
        json_object_set_new(now, "cancellable", json_false());
        json_object_set_new(now, "error", host_problem_json(&p));
        ret = store_put(host->store, KIND_TASK, id, now, err);
    }
    return ret;
}

static void free_task(struct task *t)
{
    json_decref(t->args);
    json_decref(t->result);
    free(t);
}

/* Lock held. */
static void finish(struct task *t, int ret, const struct host_problem *p)
{
    struct host *host = t->host;
    json_t *old = store_get(host->store, KIND_TASK, t->id);
    json_t *doc = old ? json_deep_copy(old) : NULL;
    const char *state = !ret ? "succeeded" : t->cancelled ? "cancelled" : "failed";
    if (!doc)
        return;
    json_object_set_new(doc, "state", json_string(state));
    json_object_set_new(doc, "ended", host_now_json());
    json_object_set_new(doc, "cancellable", json_false());
    json_object_set_new(doc, "step", json_null());
    if (!ret) {
        json_object_set_new(doc, "progress", json_integer(100));
        json_object_set(doc, "result", t->result ? t->result : json_null());
    } else {
        json_object_set_new(doc, "error", host_problem_json(p));
    }
    machine_task_over(host, t->object_id, t->id);
    char object[160], name[HOST_NAME_MAX + 8];
    snprintf(object, sizeof(object), "task:%s", t->id);
    snprintf(name, sizeof(name), "%s", host_text(doc, "object_name"));
    char *type = strdup(host_text(doc, "type"));
    /* A full disk must not keep a task running for ever. */
    json_incref(doc);
    if (store_put(host->store, KIND_TASK, t->id, doc, NULL))
        store_put_memory(host->store, KIND_TASK, t->id, doc);
    else
        json_decref(doc);
    host_changed(host, KIND_TASK, t->id);
    host_event(host,
               !ret           ? "task.succeeded"
               : t->cancelled ? "task.cancelled"
                              : "task.failed",
               object, name, t->user,
               !ret           ? "info"
               : t->cancelled ? "warning"
                              : "error",
               NULL, "%s%s%s%s%s", type ? type : "task", *name ? " " : "", name, ret ? ": " : "",
               ret ? p->detail : "");
    free(type);
    prune(host);
    pthread_cond_broadcast(&host->changed);
}

static void set_running(struct task *t)
{
    struct host *host = t->host;
    json_t *old = store_get(host->store, KIND_TASK, t->id);
    json_t *doc = old ? json_deep_copy(old) : NULL;
    if (!doc)
        return;
    json_object_set_new(doc, "state", json_string("running"));
    json_object_set_new(doc, "started", host_now_json());
    store_put_memory(host->store, KIND_TASK, t->id, doc);
    host_changed(host, KIND_TASK, t->id);
}

static void *worker(void *opaque)
{
    struct host *host = opaque;
    struct tasks *tasks = host->tasks;
    host_lock(host);
    while (tasks->first) {
        struct task *t = tasks->first;
        struct host_problem p = {0};
        tasks->first = t->next;
        if (!tasks->first)
            tasks->last = &tasks->first;
        tasks->waiting--;
        unsigned slot = 0;
        while (tasks->active[slot])
            slot++;
        tasks->active[slot] = t;
        int ret = -1;
        if (t->cancelled) {
            host_problem(&p, HOST_CONFLICT, NULL, "cancelled");
        } else {
            set_running(t);
            host_unlock(host);
            ret = t->fn(t, &p);
            host_lock(host);
        }
        if (ret && t->cancelled)
            host_problem(&p, HOST_CONFLICT, NULL, "cancelled");
        finish(t, ret, &p);
        tasks->active[slot] = NULL;
        free_task(t);
    }
    tasks->running--;
    pthread_cond_broadcast(&host->changed);
    host_unlock(host);
    return NULL;
}

static int start_worker(struct host *host)
{
    pthread_t thread;
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attr, 1u << 20);
    int ret = pthread_create(&thread, &attr, worker, host);
    pthread_attr_destroy(&attr);
    return ret;
}

json_t *task_start(struct host *host, const struct task_request *r, struct host_problem *p)
{
    struct tasks *tasks = host->tasks;
    struct mull_error err = {0};
    struct task *t = calloc(1, sizeof(*t));
    char object[160] = "";
    if (r->object_id)
        snprintf(object, sizeof(object), "%s:%s", host_kind_names[r->kind], r->object_id);
    if (!t || tasks->waiting >= TASKS_WAITING || tasks->closing) {
        json_decref(r->args);
        free(t);
        host_problem(p, HOST_UNAVAILABLE, NULL,
                     "%u tasks wait already, or the host is ending; try again later",
                     tasks->waiting);
        return NULL;
    }
    t->host = host;
    t->args = r->args;
    t->fn = r->fn;
    host_uuid(t->id);
    snprintf(t->user, sizeof(t->user), "%s", r->user ? r->user : "");
    snprintf(t->object_id, sizeof(t->object_id), "%s", r->object_id ? r->object_id : "");
    json_t *doc = json_pack(
        "{s:s, s:s, s:o, s:s?, s:s, s:i, s:n, s:o, s:n, s:n, s:s, s:n, s:n, s:b}", "id", t->id,
        "type", r->type, "object", *object ? json_string(object) : json_null(), "object_name",
        r->object_name, "state", "queued", "progress", 0, "step", "created", host_now_json(),
        "started", "ended", "user", t->user, "result", "error", "cancellable", r->cancellable);
    if (store_put(host->store, KIND_TASK, t->id, doc, &err)) {
        host_problem_from(p, &err);
        free_task(t);
        return NULL;
    }
    if (tasks->running < TASKS_RUNNING && !start_worker(host))
        tasks->running++;
    if (!tasks->running) {
        host_problem(p, HOST_UNAVAILABLE, NULL, "no thread can be started; try again later");
        store_delete(host->store, KIND_TASK, t->id, NULL);
        free_task(t);
        return NULL;
    }
    *tasks->last = t;
    tasks->last = &t->next;
    tasks->waiting++;
    host_changed(host, KIND_TASK, t->id);
    return store_get(host->store, KIND_TASK, t->id);
}

int task_progress(struct task *t, const char *step, uint64_t done, uint64_t total)
{
    struct host *host = t->host;
    uint64_t now = mull_now_ns();
    if (t->cancelled)
        return -ECANCELED;
    if (now - t->told_ns < TELL_NS)
        return 0;
    t->told_ns = now;
    host_lock(host);
    json_t *old = store_get(host->store, KIND_TASK, t->id);
    json_t *doc = old ? json_copy(old) : NULL;
    if (doc) {
        double percent = total ? 100.0 * (double)done / (double)total : 0;
        json_object_set_new(doc, "progress", json_real(percent > 100 ? 100 : percent));
        json_object_set_new(doc, "step", step ? json_string(step) : json_null());
        store_put_memory(host->store, KIND_TASK, t->id, doc);
        host_changed(host, KIND_TASK, t->id);
    }
    host_unlock(host);
    return 0;
}

int task_cancel(struct host *host, const char *id, struct host_problem *p)
{
    struct tasks *tasks = host->tasks;
    json_t *doc = store_get(host->store, KIND_TASK, id);
    if (!doc)
        return host_problem(p, HOST_NOT_FOUND, NULL, "task %s: there is none", id);
    if (is_over(doc))
        return host_problem(p, HOST_CONFLICT, NULL, "task %s: has ended already", id);
    if (!json_is_true(json_object_get(doc, "cancellable")))
        return host_problem(p, HOST_CONFLICT, NULL, "task %s: cannot be cancelled", id);
    for (struct task *t = tasks->first; t; t = t->next)
        if (!strcmp(t->id, id))
            t->cancelled = true;
    for (unsigned i = 0; i < TASKS_RUNNING; i++)
        if (tasks->active[i] && !strcmp(tasks->active[i]->id, id))
            tasks->active[i]->cancelled = true;
    pthread_cond_broadcast(&host->changed);
    return 0;
}

void tasks_close(struct host *host)
{
    struct tasks *tasks = host->tasks;
    if (!tasks)
        return;
    host_lock(host);
    tasks->closing = true;
    for (struct task *t = tasks->first; t; t = t->next)
        t->cancelled = true;
    for (unsigned i = 0; i < TASKS_RUNNING; i++)
        if (tasks->active[i])
            tasks->active[i]->cancelled = true;
    pthread_cond_broadcast(&host->changed);
    while (tasks->running)
        pthread_cond_wait(&host->changed, &host->lock);
    free(tasks);
    host->tasks = NULL;
    host_unlock(host);
}
