/*
 * The processes of running machines: each is a mullion-vmm in a session of its own, which outlives
 * this daemon; a new daemon finds it by the lock it holds on RUNTIME/UUID/life and adopts it.
 */
#ifndef MULL_HOST_SUPERVISOR_H
#define MULL_HOST_SUPERVISOR_H

#include <sys/types.h>

#include "host/host.h"
#include "host/resources.h"

enum vm_state { VM_STOPPED, VM_STARTING, VM_RUNNING, VM_PAUSED, VM_STOPPING, VM_CRASHED };
extern const char *const vm_state_names[];

struct console;

/** What is known of a machine while the daemon runs. Lock held, but for what its comment says. */
struct vm {
    struct host *host;
    char id[HOST_ID_MAX];
    enum vm_state state;
    char reason[256];       /* of its state; or empty */
    unsigned changes;       /* of its state, counted */
    char task[HOST_ID_MAX]; /* at work on it; or empty */
    char engine[8];
    double uptime;           /* guest seconds ... */
    uint64_t uptime_ns;      /* ... at this time */
    double cpu;              /* percent of one CPU */
    uint64_t memory;         /* bytes that its process has */
    uint64_t cpu_ns, cpu_at; /* of the last sample */
    uint64_t io[2], io_at;   /* bytes read and written */
    double io_rate[2];
    pid_t pid;
    bool child; /* ours to reap */
    int pidfd;  /* -1: it does not run */
    struct mull_source *source;
    struct console *console; /* the loop's */
    json_t *addresses;       /* that its agent has told; NULL: not known */
    bool leased;             /* ... or only its leases say */
    json_t *guest;           /* who its agent is and says it is; NULL: not known */
    unsigned agent_quiet;    /* rounds in which it is not asked */
    struct vm_resources resources;
    struct vm *next;
};

int supervisor_open(struct host *host, struct mull_error *err);
/** Let go of what runs; it goes on. */
void supervisor_close(struct host *host);

/** What is known of a machine; made where it is new. NULL: no memory. Lock held. */
struct vm *vm_of(struct host *host, const char *id);
void vm_forget(struct host *host, const char *id);
/** Is there a process of it? Lock held. */
bool vm_runs(const struct vm *vm);
/** Lock held: another state, told to everybody who listens. */
void vm_set_state(struct vm *vm, enum vm_state state, const char *reason);
/** What its process has said of its state ("state", "reason") while @changes was so: it pauses by
 *  itself where a disk's on_error says so. What is older than a change is not believed. Lock held.
 */
void vm_take_state(struct vm *vm, const json_t *said, unsigned changes);
/** Something that callers see of it has changed. Lock held. */
void vm_touch(struct vm *vm);
/** Call for each that has a process. Lock held. */
void vm_each(struct host *host, void (*fn)(void *opaque, struct vm *vm), void *opaque);

/** Names of machines, for who lets go of the lock before looking at each. All zeroes: none. */
struct vm_ids {
    char (*id)[HOST_ID_MAX]; /* the caller frees it */
    size_t count, room;
};
/** Add one; where there is no memory it is left out. */
void vm_ids_add(struct vm_ids *ids, const struct vm *vm);

/* Lock not held: */

/** Ask a machine's process. @param params  taken, or NULL. @param result  a new reference, or NULL:
 * not wanted. @return 0; 1: nobody listens; -errno; with @err */
int vm_ask(struct host *host, const char *id, unsigned seconds, const char *method, json_t *params,
           json_t **result, struct mull_error *err);

/** Start the process of a machine that is STARTING, and wait until it runs.
 *  @param config  what it is to run (JSON), @log where its messages go
 *  @param fds  descriptors that it gets, as VM_FIRST_FD and on
 *  @param cancelled  looked at now and then */
#define VM_FIRST_FD 5
int vm_start(struct host *host, const char *id, const char *config, const char *log, const int *fds,
             unsigned count, const _Atomic bool *cancelled, struct host_problem *p);

/** Call a method of its control channel. @param params  taken. @param result  may be NULL */
int vm_call(struct host *host, const char *id, const char *method, json_t *params, json_t **result,
            struct host_problem *p);

/** Wait until its process has gone. @return 0; -ETIMEDOUT; -ECANCELED */
int vm_wait_end(struct host *host, const char *id, unsigned seconds, const _Atomic bool *cancelled);

/** End its process, whatever it does. */
void vm_kill(struct host *host, const char *id);

/** A file of its runtime folder, malloc'ed. */
char *vm_file(struct host *host, const char *id, const char *name);

/** Measure what runs: processor, memory, I/O. Lock held. */
void vm_sample(struct vm *vm);
/** Its memory alone. Lock held. */
void vm_sample_memory(struct vm *vm);

#endif
