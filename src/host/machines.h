/*
 * Machines in the inventory: what a caller may ask of one, and the tasks that do it. A machine's
 * row says `creating` until its files are there and `deleting` until they are gone; a new daemon
 * undoes the one and finishes the other. Lock held, but where it is said.
 */
#ifndef MULL_HOST_MACHINES_H
#define MULL_HOST_MACHINES_H

#include "host/auth.h"
#include "host/host.h"
#include "host/supervisor.h"
#include "host/tasks.h"

/** A file of a machine's folder, malloc'ed; NULL: no such machine. @name "": the folder. */
#define MACHINE_SEED "seed.iso" /* what sets a new guest up */
char *machine_file(struct host *host, const char *id, const char *name);

/** As callers see it; a new reference. */
json_t *machine_render(struct host *host, json_t *doc, bool full);

/** Is it there to be worked with: ready, and no task at work on it? */
int machine_is_free(struct host *host, json_t *doc, struct host_problem *p);

/** Each of these begins a task: its document, borrowed, or NULL with @p. */
json_t *machine_create(struct host *host, const struct principal *who, json_t *body,
                       struct host_problem *p);
json_t *machine_delete(struct host *host, const struct principal *who, json_t *doc,
                       const char *disks, struct host_problem *p);

enum machine_action {
    MACHINE_START,
    MACHINE_STOP,
    MACHINE_RESTART,
    MACHINE_PAUSE,
    MACHINE_RESUME,
    MACHINE_RESET,
};
/** @param body  {force, timeout} of stop and restart; may be NULL */
json_t *machine_act(struct host *host, const char *user, json_t *doc, enum machine_action action,
                    json_t *body, struct host_problem *p);

/** A PATCH. What a running machine cannot take is kept as pending. */
int machine_change(struct host *host, const struct principal *who, json_t *doc, json_t *body,
                   struct host_problem *p);

/** Check a configuration and that its files are the caller's to name.
 *  @param own  the machine's folder */
int machine_check_config(struct host *host, const struct principal *who, json_t *config,
                         const char *own, struct host_problem *p);

/** Begin a task on a machine: the machine is taken until it is over. Takes @args. */
json_t *machine_task(struct host *host, const char *user, json_t *doc, const char *type,
                     bool cancellable, json_t *args,
                     int (*fn)(struct task *, struct host_problem *), struct host_problem *p);
/** That task is over: the machine is free again. */
void machine_task_over(struct host *host, const char *id, const char *task);

/** Write machine.json; lock not held. */
int machine_write_description(const char *folder, json_t *config, struct mull_error *err);
/** Make rows and files agree: delete what is `deleting`, undo what is `creating`. At the start. */
void machines_recover(struct host *host);

/** Start those that want it, in their order; a task. */
void machines_autostart(struct host *host);
/** End all that run, in the reverse order, at the host's end; lock not held. */
void machines_stop_all(struct host *host, unsigned seconds);

/** The tasks' functions (machine_tasks.c). */
int machine_create_task(struct task *task, struct host_problem *p);
int machine_delete_task(struct task *task, struct host_problem *p);

/** Run one action now; lock not held. */
int machine_run_action(struct task *task, const char *id, enum machine_action action, bool force,
                       unsigned timeout, struct host_problem *p);
/** Change a machine's document: @fn changes a copy, which is then written. Lock held. */
int machine_update(struct host *host, const char *id, void (*fn)(json_t *doc, void *opaque),
                   void *opaque, struct host_problem *p);

#endif
