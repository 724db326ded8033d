/*
 * One conversation with GDB: the remote serial protocol (GDB manual, appendix E) over bytes that
 * somebody else carries. A vCPU is a thread; stopping one stops all. The peer is an adversary:
 * packets, breakpoints and answers are bounded. Knows no sockets and no machine but through struct
 * gdb_target.
 */
#ifndef MULL_VMM_GDB_SESSION_H
#define MULL_VMM_GDB_SESSION_H

#include "machine/debug.h"

/** What is debugged; see machine/debug.h for the meaning. Functions return 0 or a negative errno.
 */
struct gdb_target {
    void *opaque;
    unsigned (*cpus)(void *opaque);
    bool (*held)(void *opaque);
    int (*get)(void *opaque, unsigned cpu, struct mull_cpu_state *state);
    int (*set)(void *opaque, unsigned cpu, const struct mull_cpu_state *state);
    size_t (*read)(void *opaque, unsigned cpu, uint64_t address, bool physical, void *buf,
                   size_t len);
    size_t (*write)(void *opaque, unsigned cpu, uint64_t address, bool physical, const void *buf,
                    size_t len);
    int (*check)(void *opaque, const struct mull_debug_point *points, unsigned count);
    int (*resume)(void *opaque, const enum mull_debug_action *action,
                  const struct mull_debug_point *points, unsigned count);
    void (*interrupt)(void *opaque);
    void (*kill)(void *opaque); /* pull the machine's plug */
    /** Send bytes to the peer. */
    void (*send)(void *opaque, const char *bytes, size_t len);
};

struct gdb_session;

/** @param target  must outlive the session. @return NULL: no memory */
struct gdb_session *gdb_session_create(const struct gdb_target *target);
void gdb_session_destroy(struct gdb_session *s);

/** Bytes came from the peer. @return false: the conversation is over (detached, killed, nonsense)
 */
bool gdb_session_input(struct gdb_session *s, const char *bytes, size_t len);

/** The machine stands still: see struct mull_debugger. */
void gdb_session_stopped(struct gdb_session *s, unsigned cpu, const struct mull_debug_hit *hit);

/** The machine has ended, with this exit status of its process. */
void gdb_session_ended(struct gdb_session *s, unsigned status);

#endif
