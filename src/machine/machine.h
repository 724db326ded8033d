/*
 * One machine: memory, clock, loop thread, engine, vCPU threads, platform, devices and boot, put
 * together from a configuration, and its life from start to end. Every function may be called from
 * any thread but for create and destroy. Knows no process: signals, terminals and sockets are the
 * caller's.
 */
#ifndef MULL_MACHINE_MACHINE_H
#define MULL_MACHINE_MACHINE_H

#include "base/error.h"
#include "base/log.h"
#include "base/loop.h"
#include "machine/config.h"

struct mull_machine;

enum mull_machine_state {
    MULL_MACHINE_CREATED,
    MULL_MACHINE_RUNNING,
    MULL_MACHINE_PAUSED,
    MULL_MACHINE_ENDED,
};

/** Why a machine ended. */
enum mull_machine_end {
    MULL_END_NONE,     /* it has not */
    MULL_END_POWEROFF, /* the guest switched itself off (ACPI S5) */
    MULL_END_RESET,    /* the guest asked for a reset, and no_reboot is set */
    MULL_END_PANIC,    /* the guest's kernel reported a panic (pvpanic) */
    MULL_END_SHUTDOWN, /* triple fault */
    MULL_END_STOPPED,  /* mull_machine_stop() */
    MULL_END_FAILED,   /* the host could not go on: mull_machine_end() says why */
};

struct mull_machine_info {
    enum mull_machine_state state;
    enum mull_machine_end end;
    const char *name;
    const char *engine;     /* "soft" */
    const char *engine_why; /* one line */
    const char *kernel;     /* what the kernel calls itself */
    unsigned cpus;
    uint64_t memory;   /* bytes */
    uint64_t guest_ns; /* guest time since power-on */
    unsigned resets;
};

/**
 * Put a machine together: everything is opened, started (passt) and loaded, but no vCPU and no
 * thread of the machine runs: the caller can still lock itself in.
 *
 * @param config  copied where needed; console descriptors stay the caller's and must outlive the
 *                machine
 * @param log     must outlive the machine
 * @param out     owned by the caller
 * @return 0 or a negative errno; nothing is left behind then
 */
int mull_machine_create(const struct mull_machine_config *config, const struct mull_log *log,
                        struct mull_machine **out, struct mull_error *err);

/** Start the loop's thread and the vCPUs. Once; only the creating thread may touch the machine
 *  before. */
int mull_machine_start(struct mull_machine *m, struct mull_error *err);

/** Stop the vCPUs and the guest's time until mull_machine_resume(). */
int mull_machine_pause(struct mull_machine *m, struct mull_error *err);
int mull_machine_resume(struct mull_machine *m, struct mull_error *err);

/** The reset button: devices and CPUs as at power-on, the kernel loaded again. */
int mull_machine_reset(struct mull_machine *m, struct mull_error *err);

/** Press the power button: the guest may react, or not. */
int mull_machine_power_button(struct mull_machine *m, struct mull_error *err);

/** Pull the plug. Returns when no vCPU runs any more. */
void mull_machine_stop(struct mull_machine *m);

/** Wait until the machine has ended. @return why; a host failure's reason in *err */
enum mull_machine_end mull_machine_wait(struct mull_machine *m, struct mull_error *err);

void mull_machine_info(struct mull_machine *m, struct mull_machine_info *info);

/** Numbers of all vCPUs, as pairs. @param fn  called for each with the vCPU's index */
void mull_machine_stats(struct mull_machine *m,
                        void (*fn)(void *opaque, unsigned cpu, const char *name, uint64_t value),
                        void *opaque);

/** The screen (device/display/screen.h), for any thread until the machine is destroyed; NULL: it has
 *  none. */
const struct mull_screen *mull_machine_screen(struct mull_machine *m);

/** Keyboard and pointer (device/input.h), for any thread until the machine is destroyed; NULL: it has
 *  none. */
struct mull_input *mull_machine_input(struct mull_machine *m);

/** The balloon (device/virtio/balloon.h), for any thread until the machine is destroyed; NULL: it has
 *  none. */
struct mull_device *mull_machine_balloon(struct mull_machine *m);

/** The I/O loop, for the process's own descriptors and timers. It runs from start to halt. */
struct mull_loop *mull_machine_loop(struct mull_machine *m);

/** Stop the machine and the loop and wait for their threads: whoever watches descriptors in the
 * loop can let go of them now. Not from the loop's thread. NULL is allowed. */
void mull_machine_halt(struct mull_machine *m);

/** Halt and free it all. Not from the loop's thread. NULL is allowed. */
void mull_machine_destroy(struct mull_machine *m);

#endif
