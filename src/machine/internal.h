/*
 * The inside of a machine, shared by assemble.c (what it is made of) and machine.c (its life).
 */
#ifndef MULL_MACHINE_INTERNAL_H
#define MULL_MACHINE_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/bucket.h"
#include "boot/boot.h"
#include "boot/firmware.h"
#include "device/chardev.h"
#include "device/devices.h"
#include "device/display/screen.h"
#include "device/input.h"
#include "device/legacy/fw_cfg.h"
#include "device/net/netdev.h"
#include "engine/engine.h"
#include "image/block.h"
#include "image/file.h"
#include "image/throttle.h"
#include "machine/debug.h"
#include "machine/machine.h"
#include "machine/perf_map.h"
#include "memory/memory.h"
#include "platform/platform.h"

struct machine_vcpu {
    struct mull_machine *machine;
    struct mull_vcpu *vcpu;
    pthread_t thread;
    unsigned index;
    bool started; /* there is a thread to join */
    bool there;   /* it is plugged in; under the machine's lock */
    /* For a debugger; under the machine's lock. */
    bool debug_hold; /* must stay out of the engine */
    bool debug_met;  /* has met this: */
    struct mull_debug_hit debug_hit;
};

/* A debugger's (debug.c); loop's thread only. */
struct machine_debug {
    bool wait;       /* hold the machine before its first instruction */
    bool attached;   /* there is a debugger */
    bool held;       /* the machine is paused for it */
    bool was_paused; /* it was paused before */
    struct mull_debugger debugger;
};

/* A disk or a network card in a PCI slot of its own, which may go while the machine runs. */
enum machine_part_kind { MACHINE_PART_DISK, MACHINE_PART_NETWORK };
#define MACHINE_PARTS (MULL_CONFIG_DISKS + MULL_CONFIG_NETWORKS)
struct machine_part {
    struct mull_device *device; /* NULL: this entry is free */
    enum machine_part_kind kind;
    unsigned index; /* of its back end: block[] or netdev[] */
    unsigned slot;
    struct mull_timer *limit; /* it is taken by force: until then the guest has time; or NULL */
    struct mull_machine *machine; /* for that */
};

/* What it may take of its host (limits.c); loop's thread only. */
struct machine_limits {
    struct mull_bucket cpu; /* ns of CPU time */
    uint64_t cpu_seen;      /* of it, so far */
    uint64_t held_since, held_ns;
    struct mull_timer *timer;
    struct mull_throttle *disk;
    struct mull_netlimit network;
    bool merging;
};

/* What firmware can boot from, by the path it knows it by. */
#define MACHINE_BOOT_PATHS 40
struct machine_boot_path {
    enum mull_boot_device device;
    unsigned index; /* among its kind */
    char path[72];
};

/** An option ROM; NULL: none. */
struct machine_rom {
    uint8_t *data;
    uint32_t size;
};

struct mull_machine {
    const struct mull_log *log;
    char *name;
    char engine_why[256];
    bool no_reboot;
    unsigned cpus; /* with those that may come */
    bool cpus_hot; /* they may come and go */
    uint64_t dimms; /* bytes of memory that may come */
    uint64_t memory_size, ram_low, ram_high;

    struct mull_memory *memory;
    struct mull_clock *clock;
    struct mull_loop *loop;
    pthread_t loop_thread;
    bool loop_running;
    const struct mull_engine *engine;
    struct mull_platform *platform;
    struct mull_platform_tables tables;
    struct mull_perf_map *perf_map; /* NULL: not wanted */
    struct mull_vm *vm;
    struct machine_vcpu vcpu[MULL_MAX_CPUS];
    struct mull_boot *boot;         /* NULL: firmware runs first */
    struct mull_firmware *firmware; /* NULL: a kernel is loaded directly */
    struct mull_acpi_blobs *acpi;   /* scratch for what firmware reads */
    const struct mull_screen *screen; /* of one of the devices; NULL: none */
    struct mull_input input;
    enum mull_watchdog watchdog;
    uint64_t code_cache;         /* bytes, as configured */
    bool packed_rings;           /* for virtio devices that come later, too */
    struct mull_device *balloon; /* NULL: none; one of the devices, too */
    struct mull_device *tools;   /* the same */
    uint8_t *vga_rom;
    struct machine_rom net_rom[MULL_NICS_THERE]; /* by model */
    unsigned boot_paths;
    struct machine_boot_path boot_path[MACHINE_BOOT_PATHS];
    struct mull_device *devices; /* ours, in order of creation */
    struct mull_block *block[MULL_CONFIG_DISKS];
    struct mull_block *cdrom_block[MULL_CONFIG_CDROMS];
    struct mull_netdev *netdev[MULL_CONFIG_NETWORKS];
    struct mull_chardev *chardev[MULL_CONFIG_CONSOLES];
    struct machine_part part[MACHINE_PARTS];
    struct machine_remains *remains;                   /* of parts that have gone */
    struct mull_given_files *given[MULL_CONFIG_DISKS]; /* of disks that were attached */
    _Atomic uint64_t ejected[MULL_HOTPLUG_CLASSES];    /* bit i: thing i, by the guest */
    struct mull_fw_cfg *fw_cfg;                        /* NULL: no firmware; a device, too */

    struct machine_debug debug;
    struct machine_limits limits;

    pthread_mutex_t lock; /* everything below */
    pthread_cond_t changed;
    enum mull_machine_state state;
    enum mull_machine_end end;
    struct mull_error end_error;
    char paused_by[160]; /* an error that paused it; empty after it is resumed */
    uint32_t exit_value;
    bool hold;       /* vCPU threads must stay out of the engine */
    bool cpu_hold;   /* for the same, until their CPU time is paid for; written by the loop */
    bool quit;       /* and end */
    unsigned active; /* vCPU threads that may be in the engine */
    unsigned resets;
    atomic_bool reset_wanted;
    atomic_bool pause_wanted; /* by a disk that failed */
};

/* assemble.c */

/** Build everything up to a machine that could start. What was built before an error is undone by
 *  machine_disassemble(). */
int machine_assemble(struct mull_machine *m, const struct mull_machine_config *config,
                     struct mull_error *err);

/** Load the kernel and set every vCPU's first state. */
int machine_load(struct mull_machine *m, struct mull_error *err);

/** Reset, quiesce or resume all devices, the platform's included. */
enum machine_device_action { MACHINE_RESET, MACHINE_QUIESCE, MACHINE_RESUME };
void machine_devices(struct mull_machine *m, enum machine_device_action action);

/** Free all parts. No vCPU thread is left, the loop does not run. */
void machine_disassemble(struct mull_machine *m);

/* machine.c: mull_machine_pause() and mull_machine_resume() in the loop's thread. */
int machine_pause_now(struct mull_machine *m, struct mull_error *err);
int machine_resume_now(struct mull_machine *m, struct mull_error *err);

/** Get every vCPU out of the engine and keep it out; let them go on. Loop's thread. */
void machine_hold_vcpus(struct mull_machine *m);
void machine_release_vcpus(struct mull_machine *m);

/* hotplug.c */

/** A disk or network card is in slot @slot and may go. */
void machine_part_add(struct mull_machine *m, enum machine_part_kind kind, unsigned index,
                      unsigned slot, struct mull_device *device);

/** All devices are there: the slots that others take are theirs for good. */
void machine_hotplug_finish(struct mull_machine *m);

/** Complete what the guest was asked for, as it starts anew; before the devices' reset. */
void machine_hotplug_reset(struct mull_machine *m);

/** Free what hot plug has. */
void machine_hotplug_fini(struct mull_machine *m);

/* limits.c */

/** What limits need; they come with mull_machine_limit(). */
int machine_limits_open(struct mull_machine *m, struct mull_error *err);
/** No disk and no network is left; before the loop goes. */
void machine_limits_close(struct mull_machine *m);

/** Put the limits in front of m->netdev[@i]. */
int machine_limit_network(struct mull_machine *m, unsigned i, struct mull_error *err);

/* debug.c */

/** A vCPU came out of the engine with MULL_EXIT_DEBUG. Its own thread. */
void machine_debug_met(struct machine_vcpu *v, const struct mull_debug_hit *hit);

/** The machine has ended. Loop's thread. */
void machine_debug_ended(struct mull_machine *m);

/** Put a device at the end of the machine's list, which owns it from now on. */
void machine_add_device(struct mull_machine *m, struct mull_device *device);

/** The model that a network card has, or that takes its place. */
enum mull_nic machine_nic_model(const struct mull_network_config *net);

/** Open disks and CD-ROM media and put them on their buses (storage.c). */
int machine_storage_devices(struct mull_machine *m, const struct mull_device_env *env,
                            const struct mull_machine_config *config, struct mull_error *err);

/** What lets guest and host work together: shared folders (interfaces.c). */
int machine_interface_devices(struct mull_machine *m, const struct mull_device_env *env,
                              const struct mull_machine_config *config, struct mull_error *err);

/** One disk, from files that somebody else has opened where @given is not NULL (it must outlive the
 *  disk). */
int machine_storage_add(struct mull_machine *m, const struct mull_device_env *env, unsigned i,
                        const struct mull_disk_config *disk, const struct mull_given_files *given,
                        struct mull_error *err);

/** A network card with back end m->netdev[@i]. (assemble.c) */
int machine_network_card(struct mull_machine *m, const struct mull_device_env *env, unsigned i,
                         const struct mull_network_config *net, struct mull_error *err);

/* screen.c */

/** Has it a screen: firmware wants one, or somebody wants to look? */
bool machine_wants_screen(const struct mull_machine *m, const struct mull_machine_config *config);

/** A USB controller with what is plugged in, where it is asked for. */
int machine_usb_devices(struct mull_machine *m, const struct mull_device_env *env,
                        const struct mull_machine_config *config, struct mull_error *err);

/** Graphics adapter, keyboard and mouse. */
int machine_screen_devices(struct mull_machine *m, const struct mull_device_env *env,
                           const struct mull_machine_config *config, struct mull_error *err);

/* firmware.c */

/** Open what the configuration asks for. */
int machine_firmware_open(struct mull_machine *m, const struct mull_machine_config *config,
                          struct mull_error *err);

/** RAM below 4 GiB around the VGA hole, and the ROM. */
int machine_firmware_memory(struct mull_machine *m, struct mull_error *err);

/** The devices that are there for firmware only: after all that can be booted from. */
int machine_firmware_devices(struct mull_machine *m, const struct mull_device_env *env,
                             const struct mull_machine_config *config, struct mull_error *err);

/** What --test-devices brings; after firmware's devices. */
int machine_test_devices(struct mull_machine *m, const struct mull_device_env *env,
                         const struct mull_machine_config *config, struct mull_error *err);

/** The network cards' option ROMs, where the machine may boot by one: m->net_rom. */
void machine_firmware_net_rom(struct mull_machine *m, const struct mull_machine_config *config);

/** Note that a device in PCI slot @slot can be booted from, in the order of @index. @param node
 *  what firmware calls such a device: "scsi", "ethernet", "pci8086,2922" @param tail  the rest of the
 *  path: "/disk@0,0" */
void machine_boot_path_add(struct mull_machine *m, enum mull_boot_device device, unsigned index,
                           const char *node, unsigned slot, const char *tail);

/* machine.c: what the platform tells us; see struct mull_platform_events. */
void machine_event_poweroff(void *opaque);
void machine_event_reset(void *opaque);
void machine_event_panic(void *opaque, bool crash_kernel);
void machine_event_exit(void *opaque, uint32_t value);
void machine_event_eject(void *opaque, enum mull_hotplug_class class, unsigned index);
/* The machine shall pause, for a reason that was logged. Any thread. */
void machine_event_pause(void *opaque);
/* And a disk that failed, as it was configured; see struct mull_block_options. */
void machine_event_disk_pause(void *opaque, const struct mull_block_request *request, int error);
void machine_event_disk_stop(void *opaque, const struct mull_block_request *request, int error);

#endif
