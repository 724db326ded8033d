/*
 * What every virtio device (virtio 1.2, chapter 2) has in common: status, features, queues, the
 * configuration space and its kicks. A device gives an ops table; a transport (virtio over PCI)
 * brings the driver's register accesses here. Only devices and transports include this.
 *
 * Threads: vCPUs access registers, the loop's thread handles queues; both under one lock. A kick
 * only signals. Interrupts go out when the lock is dropped, so that the transport's locks never
 * nest in it.
 */
#ifndef MULL_DEVICE_VIRTIO_VIRTIO_H
#define MULL_DEVICE_VIRTIO_VIRTIO_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "device/virtio/virtqueue.h"
#include "platform/device.h"
#include "platform/pci.h"

#define MULL_VIRTIO_MAX_QUEUES 16
#define MULL_VIRTIO_MAX_CONFIG 256
#define MULL_VIRTIO_NO_VECTOR 0xffff

#define MULL_BIT(n) (1ull << (n))

struct mull_virtio;

struct mull_virtio_ops {
    /* The driver kicked a queue, or there may be work otherwise. Loop's thread (or a vCPU's, for a
     * queue that is handled in place), locked, the device runs and the queue is live. */
    void (*kick)(struct mull_virtio *v, unsigned queue);
    /* DRIVER_OK: the features are final. Loop's thread, locked. May be NULL. */
    void (*start)(struct mull_virtio *v);
    /* The driver reset the device; nothing is in flight. Any thread, locked; must not call a back
     * end. May be NULL. */
    void (*reset)(struct mull_virtio *v);
    /* One queue was reset; none of its chains is in flight. Locked. May be NULL. */
    void (*queue_reset)(struct mull_virtio *v, unsigned queue);
    /* The driver changed v->config[] at [offset, offset + size). Locked. NULL: read-only. */
    void (*config_written)(struct mull_virtio *v, unsigned offset, unsigned size);
    /* Complete what is in flight. Loop's thread, not locked. NULL: nothing ever is for long. */
    void (*drain)(struct mull_virtio *v);
};

/** How a transport interrupts the driver. Called with no lock held. */
struct mull_virtio_transport {
    void (*queue_interrupt)(struct mull_virtio *v, uint16_t vector);
    void (*config_interrupt)(struct mull_virtio *v, uint16_t vector);
    void (*reset)(struct mull_virtio *v); /* the device was reset; locked */
};

/** Another device in the same PCI function: BAR 0 is what it adds, its registers are at the start of
 *  BAR 2, and virtio's come behind them. */
struct mull_virtio_inlay {
    void *opaque;
    const struct mull_region_ops *registers; /* 4 KiB */
    int (*add)(void *opaque, struct mull_pci_function *f, struct mull_error *err);
};

/** The registers of virtio over PCI (4.1.4.3) that are no device state. */
struct mull_virtio_pci {
    const struct mull_virtio_inlay *inlay; /* set before mull_virtio_pci_attach(); NULL: none */
    struct mull_pci_function function;
    pthread_mutex_t isr_lock; /* isr and the INTx line together */
    uint8_t isr;
    uint8_t cfg_capability;
    uint32_t device_feature_select, driver_feature_select;
    uint16_t queue_select;
    struct mull_doorbells doorbells; /* the queues' notify registers, where they can be such */
};

/** The head of each virtio device's own struct. */
struct mull_virtio {
    struct mull_device device; /* must be first */
    const struct mull_virtio_ops *ops;
    const struct mull_virtio_transport *transport;
    struct mull_device_env env;
    uint16_t id; /* virtio device ID (chapter 5) */

    pthread_mutex_t lock; /* everything below but kicks */
    uint64_t device_features, driver_features;
    uint8_t status;
    bool resetting; /* status 0 was written, chains are still in flight */
    bool paused;    /* quiesced */
    bool started;   /* ops->start was called for this DRIVER_OK */
    uint8_t config_generation;
    uint16_t config_vector;
    uint32_t config_size;
    uint8_t config[MULL_VIRTIO_MAX_CONFIG];
    unsigned nqueues;
    struct mull_virtqueue queues[MULL_VIRTIO_MAX_QUEUES];
    struct mull_virtio_pci pci;
    const uint8_t *rom; /* option ROM, set before mull_virtio_pci_attach(); NULL: none */
    uint32_t rom_size;

    /* Interrupts to send when the lock is dropped. */
    uint32_t due_queues;
    bool due_config;

    /* Bit n: queue n was kicked. The eventfd wakes the loop when this leaves zero. */
    _Atomic uint32_t kicks;
    int kick_fd;
    struct mull_source *kick_source;

    unsigned complaints; /* bounds what a guest can make us log */
};

/** Common state, to nest in a device's own description; it includes the PCI function. */
extern const struct mull_state_desc mull_virtio_desc;

/**
 * Set a device up (zeroed before), before its transport.
 *
 * @param features  the device type's own bits; ring and version bits are added
 */
int mull_virtio_init(struct mull_virtio *v, const struct mull_device_env *env, const char *name,
                     uint16_t id, uint64_t features, const struct mull_virtio_ops *ops,
                     struct mull_error *err);

/** Add a queue, numbered in order. */
void mull_virtio_add_queue(struct mull_virtio *v, uint16_t max_size);

/** Free what mull_virtio_init() made. */
void mull_virtio_fini(struct mull_virtio *v);

void mull_virtio_lock(struct mull_virtio *v);
/** Also finishes a reset that waited for chains in flight, and sends the interrupts due. */
void mull_virtio_unlock(struct mull_virtio *v);

/** Has the driver accepted feature @bit? Locked. */
static inline bool mull_virtio_has(const struct mull_virtio *v, unsigned bit)
{
    return v->driver_features >> bit & 1;
}

/** Is the driver running, and are queues processed? Locked. */
bool mull_virtio_running(const struct mull_virtio *v);

/** Has the driver set DRIVER_OK, on a device that is neither broken nor being reset? Locked. */
bool mull_virtio_driver_ok(const struct mull_virtio *v);

/** The driver broke the rules: NEEDS_RESET, and silence until it resets. Locked. */
void mull_virtio_broken(struct mull_virtio *v, const char *why);

/** config[] has changed: new generation, interrupt. Locked. */
void mull_virtio_config_changed(struct mull_virtio *v);

/** Call ops->kick for @queue soon, in the loop's thread. Any thread, no lock needed. */
void mull_virtio_kick(struct mull_virtio *v, unsigned queue);

/** The driver's kick, from a vCPU; no lock held. Signals the loop, or handles a queue that is
 *  marked so in place: for a driver that waits for each answer without sleeping, a wake-up of the
 *  loop costs more than the work. */
void mull_virtio_notified(struct mull_virtio *v, unsigned queue);

/* ---- For transports: locked ---- */

void mull_virtio_set_status(struct mull_virtio *v, uint8_t status);
uint8_t mull_virtio_get_status(const struct mull_virtio *v);
void mull_virtio_set_features(struct mull_virtio *v, unsigned word, uint32_t bits);
void mull_virtio_reset_queue(struct mull_virtio *v, unsigned queue);
uint32_t mull_virtio_read_config(struct mull_virtio *v, uint64_t offset, unsigned size);
void mull_virtio_write_config(struct mull_virtio *v, uint64_t offset, unsigned size,
                              uint32_t value);

/* ---- For a device's mull_device_ops ---- */

/** @device must be a struct mull_virtio. Loop's thread, or while the loop does not run. */
void mull_virtio_device_reset(struct mull_device *device);
void mull_virtio_device_quiesce(struct mull_device *device);
void mull_virtio_device_resume(struct mull_device *device);

/** After mull_virtio_init() and all queues: put the device on the bus with its capabilities.
 *  @param class_code  24 bits */
int mull_virtio_pci_attach(struct mull_virtio *v, struct mull_pci_bus *bus, int devfn,
                           uint32_t class_code, struct mull_error *err);
void mull_virtio_pci_detach(struct mull_virtio *v);

/** State of the transport. */
extern const struct mull_state_desc mull_virtio_pci_desc;

#endif
