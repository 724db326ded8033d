/*
 * What every device has in common: a name, its one state description, reset and destruction.
 * A machine keeps its devices in a list and does with it what concerns them all.
 */
#ifndef MULL_PLATFORM_DEVICE_H
#define MULL_PLATFORM_DEVICE_H

#include <stdint.h>

#include "base/fields.h"
#include "base/log.h"
#include "base/loop.h"
#include "engine/clock.h"
#include "memory/memory.h"

struct mull_device;

struct mull_device_ops {
    const struct mull_state_desc *state;         /* describes the object below; never NULL */
    void (*reset)(struct mull_device *device);   /* as at power-on */
    void (*quiesce)(struct mull_device *device); /* stop I/O in flight before a save; may be NULL */
    void (*resume)(struct mull_device *device);  /* go on after it; may be NULL */
    void (*destroy)(struct mull_device *device); /* the loop no longer runs; frees the device */
};

/** The head of each device's own struct. */
struct mull_device {
    const struct mull_device_ops *ops;
    char name[48]; /* unique in the machine: "virtio-blk.0" */
    void *object;  /* what ops->state describes */
    struct mull_device *next;
};

/** What a device is created with: its surroundings. The machine owns all of it. */
struct mull_device_env {
    struct mull_memory *memory;
    struct mull_loop *loop; /* the I/O thread's loop */
    struct mull_clock *clock;
    const struct mull_log *log;
    bool packed_rings; /* virtio devices offer packed virtqueues, too */
};

#endif
