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
    MULL_END_EXIT,     /* the guest ended it with a value: test devices */
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
    uint32_t exit_value; /* MULL_END_EXIT */
    char paused_by[160]; /* what paused it, where nobody asked for it; or empty */
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

/* ---- What it takes of its host, and may take: loop's thread only ---- */

/** Zeroes: no limits. Arrays are indexed by enum mull_throttle_limit (image/throttle.h) and enum
 *  mull_netlimit_kind (device/net/netdev.h). */
struct mull_machine_limits {
    unsigned cpu;       /* percent of one CPU; of all that its process does */
    uint64_t disk[6];   /* bytes and requests a second */
    uint64_t network[3]; /* bytes a second */
};

/** From now on. */
void mull_machine_limit(struct mull_machine *m, const struct mull_machine_limits *limits);

/** Let the host keep pages that hold the same but once (KSM), or no longer. @return 0, or a negative
 *  errno where it cannot */
int mull_machine_merge(struct mull_machine *m, bool on);

struct mull_machine_usage {
    uint64_t cpu_ns;      /* CPU time of its process */
    uint64_t cpu_held_ns; /* how long its vCPUs had to wait for their limit */
    bool merging;
};
void mull_machine_usage(struct mull_machine *m, struct mull_machine_usage *out);

enum mull_machine_io_kind { MULL_IO_OF_DISK, MULL_IO_OF_CDROM, MULL_IO_OF_NETWORK };

/** What has passed by a disk (in: read) or network card (in: received) since it came. */
struct mull_machine_io {
    enum mull_machine_io_kind kind;
    unsigned index;
    uint64_t in_bytes, in_count, out_bytes, out_count, flushes;
    uint64_t waited; /* requests or frames that came too early for their limit */
};

/** Tell @fn of each. */
void mull_machine_io(struct mull_machine *m,
                     void (*fn)(void *opaque, const struct mull_machine_io *io), void *opaque);

/* ---- Hot plug: loop's thread only; the guest must play along, which takes its time ---- */

struct mull_disk_config;
struct mull_network_config;
struct mull_given_files;

#define MULL_PART_ID_MAX 16

/** Something that was attached, or could be detached. */
struct mull_machine_part {
    char id[MULL_PART_ID_MAX]; /* "disk0", "net1", "memory0", "cpu3" */
    const char *kind;          /* "disk", "net", "memory", "cpu" */
    unsigned slot;             /* disk, net: PCI slot */
    uint64_t size;             /* memory: bytes */
    bool asked;                /* the guest was asked to let go of it */
    bool refused;              /* and does not want to; */
    unsigned status;           /* its word for it (ACPI 6.4, table 6.50) */
};

/**
 * Attach a disk. @param given  files that it is in, opened by somebody else: their ownership passes
 * on, also after an error; NULL: open it here (not in a sandbox)
 * @param id  filled in
 */
int mull_machine_attach_disk(struct mull_machine *m, const struct mull_disk_config *disk,
                             struct mull_given_files *given, char id[MULL_PART_ID_MAX],
                             struct mull_error *err);

/** Attach a network card. @param fds  tap: the open tap; user: passt's socket and its messages, or
 *  -1 (see netdev.h). Theirs is the machine's, also after an error. */
int mull_machine_attach_network(struct mull_machine *m, const struct mull_network_config *net,
                                const int fds[2], char id[MULL_PART_ID_MAX],
                                struct mull_error *err);

/** Attach vCPUs, up to the configuration's cpus_max. */
int mull_machine_attach_cpus(struct mull_machine *m, unsigned count, struct mull_error *err);

/** Attach a DIMM: whole 128 MiB, within the configuration's memory_max. */
int mull_machine_attach_memory(struct mull_machine *m, uint64_t size, char id[MULL_PART_ID_MAX],
                               struct mull_error *err);

/** Ask the guest to let go of a part; it has gone when it is no longer among the parts.
 *  @param force  disks and network cards: take it away within two seconds, whatever the guest does with it */
int mull_machine_detach(struct mull_machine *m, const char *id, bool force,
                        struct mull_error *err);

/** Tell @fn of each part. */
void mull_machine_parts(struct mull_machine *m,
                        void (*fn)(void *opaque, const struct mull_machine_part *part),
                        void *opaque);

/** Bytes of memory that are attached. */
uint64_t mull_machine_dimms(struct mull_machine *m);

/** Free what a caller has gathered; closes the descriptors. NULL is allowed. */
void mull_given_files_free(struct mull_given_files *given);

/** The screen (device/display/screen.h), for any thread until the machine is destroyed; NULL: it has
 *  none. */
const struct mull_screen *mull_machine_screen(struct mull_machine *m);

/** Keyboard and pointer (device/input.h), for any thread until the machine is destroyed; NULL: it has
 *  none. */
struct mull_input *mull_machine_input(struct mull_machine *m);

/** The balloon (device/virtio/balloon.h), for any thread until the machine is destroyed; NULL: it has
 *  none. */
struct mull_device *mull_machine_balloon(struct mull_machine *m);

/** Ask the guest which pages are free, and give them back to the host when it has told; the balloon's
 *  information says whether that is so. Loop's thread. @return 0 or a negative errno */
int mull_machine_trim(struct mull_machine *m, struct mull_error *err);

/** VMware's interface (device/vmware/tools.h); the same. */
struct mull_device *mull_machine_tools(struct mull_machine *m);

/** The I/O loop, for the process's own descriptors and timers. It runs from start to halt. */
struct mull_loop *mull_machine_loop(struct mull_machine *m);

/** Stop the machine and the loop and wait for their threads: whoever watches descriptors in the
 * loop can let go of them now. Not from the loop's thread. NULL is allowed. */
void mull_machine_halt(struct mull_machine *m);

/** Halt and free it all. Not from the loop's thread. NULL is allowed. */
void mull_machine_destroy(struct mull_machine *m);

#endif
