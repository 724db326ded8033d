/*
 * A debugger outside of the guest: stops a machine's vCPUs, looks at them and at memory, lets them
 * go on or make single steps. One at a time. Every function is for the loop's thread, or for the
 * creator before the machine starts; the callbacks come in the loop's thread. While the debugger
 * holds the machine it is paused, its time too.
 */
#ifndef MULL_MACHINE_DEBUG_H
#define MULL_MACHINE_DEBUG_H

#include "engine/engine.h"
#include "machine/machine.h"

struct mull_debugger {
    void *opaque;
    /** The machine stands still now. @hit: what @cpu has met, NULL: it was interrupted. */
    void (*stopped)(void *opaque, unsigned cpu, const struct mull_debug_hit *hit);
    /** The machine has ended; the debugger stays attached. */
    void (*ended)(void *opaque, enum mull_machine_end end);
};

enum mull_debug_action { MULL_DEBUG_HOLD, MULL_DEBUG_STEP, MULL_DEBUG_RUN };

/** The machine's first instruction waits for a debugger (or a mull_machine_resume()). Before
 *  mull_machine_start(). */
void mull_machine_debug_wait(struct mull_machine *m);

/** Attach, and stop the machine if it runs; stopped() is not called for that.
 *  @return 0; -EBUSY: there is a debugger; -EINVAL: the machine has ended */
int mull_machine_debug_attach(struct mull_machine *m, const struct mull_debugger *debugger,
                              struct mull_error *err);

/** Let go: no breakpoint stays, and the machine runs unless somebody else had paused it. */
void mull_machine_debug_detach(struct mull_machine *m);

/** Is the machine held by the debugger now? */
bool mull_machine_debug_held(const struct mull_machine *m);

/**
 * Go on until something is met. Then stopped() is called, later.
 *
 * @param action  for each vCPU; one must not be MULL_DEBUG_HOLD
 * @param points  where to stop: all there are until the next stop
 * @return 0; -ENOSPC: the engine has not so many; the machine is still held then
 */
int mull_machine_debug_resume(struct mull_machine *m, const enum mull_debug_action *action,
                              const struct mull_debug_point *points, unsigned count,
                              struct mull_error *err);

/** Would the engine take these points? While the machine is held. @return 0 or -ENOSPC */
int mull_machine_debug_check(struct mull_machine *m, const struct mull_debug_point *points,
                             unsigned count, struct mull_error *err);

/** Stop the machine: stopped() is called, perhaps before this returns, if it was not held. */
void mull_machine_debug_interrupt(struct mull_machine *m);

/** The rest: only while the machine is held. */
unsigned mull_machine_debug_cpus(const struct mull_machine *m);
int mull_machine_debug_get(struct mull_machine *m, unsigned cpu, struct mull_cpu_state *state,
                           struct mull_error *err);
int mull_machine_debug_set(struct mull_machine *m, unsigned cpu, const struct mull_cpu_state *state,
                           struct mull_error *err);

/** Copy RAM. @physical: the address is the guest's physical one, else a linear one of @cpu.
 *  @return how many bytes could be copied: up to the first that is not mapped, or not RAM */
size_t mull_machine_debug_read(struct mull_machine *m, unsigned cpu, uint64_t address,
                               bool physical, void *buf, size_t len);
size_t mull_machine_debug_write(struct mull_machine *m, unsigned cpu, uint64_t address,
                                bool physical, const void *buf, size_t len);

#endif
