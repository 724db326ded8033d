/*
 * Long work: each task runs in a thread of its own, says how far it is, may be cancelled, and is
 * kept with its result. A task that a crash of the daemon interrupts is found as failed afterwards;
 * what it left half-done is the business of whoever made it (recover.c).
 */
#ifndef MULL_HOST_TASKS_H
#define MULL_HOST_TASKS_H

#include <stdatomic.h>

#include "host/host.h"

#define TASKS_RUNNING 16 /* at a time; others wait */
#define TASKS_WAITING 2000
#define TASKS_KEPT 2000

/** One task while it exists. `args` is its maker's; its own thread alone touches `result`. */
struct task {
    struct host *host;
    char id[HOST_ID_MAX];
    char user[HOST_NAME_MAX];
    char object_id[HOST_NAME_MAX]; /* without its kind */
    json_t *args;
    json_t *result; /* to be set by the function; may stay NULL */
    _Atomic bool cancelled;
    /* private */
    int (*fn)(struct task *task, struct host_problem *p);
    uint64_t told_ns;
    struct task *next;
};

struct task_request {
    const char *type;      /* "machine.start" */
    enum host_kind kind;   /* of the object */
    const char *object_id; /* NULL: none */
    const char *object_name, *user;
    bool cancellable;
    json_t *args; /* taken, also on failure; may be NULL */
    /* Runs without the lock. 0, or -1 with @p filled in. */
    int (*fn)(struct task *task, struct host_problem *p);
};

int tasks_open(struct host *host, struct mull_error *err);
/** Cancel what runs and wait for it. Lock not held. */
void tasks_close(struct host *host);

/** Lock held. @return the task's document, borrowed; NULL with @p: too many wait, or the disk is
 *  full */
json_t *task_start(struct host *host, const struct task_request *request, struct host_problem *p);

/** From the task's function: how far it is, of @total (0: unknown). @return non-zero: it is to
 *  stop, with -ECANCELED. Lock not held. */
int task_progress(struct task *task, const char *step, uint64_t done, uint64_t total);

/** Ask a task to stop. Lock held. */
int task_cancel(struct host *host, const char *id, struct host_problem *p);

#endif
