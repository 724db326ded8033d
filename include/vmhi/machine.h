/*
 * VMHI, the machine interface: make a virtual machine, run it, watch it, end it, from C and without
 * a daemon. This is libmullion's public interface; docs/configuration.md describes the
 * configuration. Version 0: it may still change until 1.0, and says so in VMHI_MACHINE_API.
 *
 * Every function may be called from any thread, but for create and destroy of one machine, which
 * are called once each. Nothing here ends the process. Two machines in one process do not know of
 * each other. The caller should ignore SIGPIPE. What a guest may not be trusted with is in
 * docs/threat-model.md: this library does not lock its process in; mullion-vmm does.
 */
#ifndef VMHI_MACHINE_H
#define VMHI_MACHINE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define VMHI_MACHINE_API 0 /* 1 and on: compatible for ever after */

#if defined(__GNUC__)
#define VMHI_EXPORT __attribute__((visibility("default")))
#else
#define VMHI_EXPORT
#endif

/** A failure: a positive errno and one line for a person, that says what, where and what to do. */
struct vmhi_error {
    int code;
    char message[508];
};

struct vmhi_machine;

enum vmhi_state {
    VMHI_STATE_CREATED = 0,
    VMHI_STATE_RUNNING = 1,
    VMHI_STATE_PAUSED = 2,
    VMHI_STATE_ENDED = 3,
};

/** Why a machine ended. */
enum vmhi_end {
    VMHI_END_NONE = 0,         /* it has not */
    VMHI_END_POWEROFF = 1,     /* the guest switched itself off */
    VMHI_END_RESET = 2,        /* the guest asked for a reset, and "no_reboot" is set */
    VMHI_END_PANIC = 3,        /* the guest's kernel reported a panic */
    VMHI_END_TRIPLE_FAULT = 4, /* a virtual CPU shut down */
    VMHI_END_STOPPED = 5,      /* vmhi_machine_stop() */
    VMHI_END_FAILED = 6,       /* the host could not go on */
    VMHI_END_EXIT = 7,         /* the guest ended it by a test device */
};

enum vmhi_log_level {
    VMHI_LOG_ERROR = 0,
    VMHI_LOG_WARN = 1,
    VMHI_LOG_INFO = 2,
    VMHI_LOG_DEBUG = 3,
};

/** How a machine is made. Set `size` to sizeof(struct vmhi_machine_options) and the rest to zero
 *  but for what you want: later versions only append. */
struct vmhi_machine_options {
    size_t size;
    const char *config; /* JSON, docs/configuration.md */
    /* Receives one line without newline, from any thread; NULL: nothing is logged. */
    void (*log)(void *opaque, enum vmhi_log_level level, const char *line);
    void *log_opaque;
    enum vmhi_log_level log_level; /* lines above it are dropped */
};

/** What a machine is and does. Set `size` before the call; strings live as long as the machine. */
struct vmhi_machine_info {
    size_t size;
    enum vmhi_state state;
    enum vmhi_end end;
    const char *name;
    const char *engine;        /* "soft" or "kvm" */
    const char *engine_reason; /* why this one, in one line */
    const char *kernel;        /* what the kernel calls itself, or "" */
    uint32_t cpus;
    uint32_t resets;
    uint64_t memory;      /* bytes */
    uint64_t nanoseconds; /* guest time since power-on; stands still in a pause */
};

/** The library's version: "0.1.0". */
VMHI_EXPORT const char *vmhi_version(void);

/**
 * Put a machine together: files are opened, the kernel is loaded, helpers (passt) are started, but
 * no guest instruction runs and the library has started no thread.
 *
 * @param out  owned by the caller
 * @return 0, or a negative errno with *err (which may be NULL); nothing is left behind then
 */
VMHI_EXPORT int vmhi_machine_create(const struct vmhi_machine_options *options,
                                    struct vmhi_machine **out, struct vmhi_error *err);

/** Let the guest run. Once. */
VMHI_EXPORT int vmhi_machine_start(struct vmhi_machine *machine, struct vmhi_error *err);

/** Stop the guest and its time, and let both go on. Return when it is so. */
VMHI_EXPORT int vmhi_machine_pause(struct vmhi_machine *machine, struct vmhi_error *err);
VMHI_EXPORT int vmhi_machine_resume(struct vmhi_machine *machine, struct vmhi_error *err);

/** Press the reset button. */
VMHI_EXPORT int vmhi_machine_reset(struct vmhi_machine *machine, struct vmhi_error *err);

/** Press the power button: a guest that listens to ACPI switches itself off some time later. */
VMHI_EXPORT int vmhi_machine_power_button(struct vmhi_machine *machine, struct vmhi_error *err);

/** Pull the plug. */
VMHI_EXPORT void vmhi_machine_stop(struct vmhi_machine *machine);

/** Wait until the machine has ended. @return why; with VMHI_END_FAILED *err says more */
VMHI_EXPORT enum vmhi_end vmhi_machine_wait(struct vmhi_machine *machine, struct vmhi_error *err);

/** @return 0, or -EINVAL where info->size is too small to be one */
VMHI_EXPORT int vmhi_machine_info(struct vmhi_machine *machine, struct vmhi_machine_info *info);

/** End it and free it all. NULL is allowed. */
VMHI_EXPORT void vmhi_machine_destroy(struct vmhi_machine *machine);

#ifdef __cplusplus
}
#endif

#endif
