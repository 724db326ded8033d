/*
 * The small ports of a PC's chipset: port 92h, POST codes at port 80h, pvpanic.
 */
#ifndef MULL_PLATFORM_PORTS_H
#define MULL_PLATFORM_PORTS_H

#include "platform/device.h"

#define MULL_PVPANIC_PORT 0x505u

struct mull_ports;

struct mull_ports_events {
    void *opaque;
    void (*reset)(void *opaque);                    /* with the lock held; may be NULL */
    void (*panic)(void *opaque, bool crash_kernel); /* no lock held; may be NULL */
};

/** Create them. The device is owned by the caller. */
int mull_ports_create(const struct mull_device_env *env, const struct mull_ports_events *events,
                      struct mull_ports **out, struct mull_error *err);
struct mull_device *mull_ports_device(struct mull_ports *ports);

#endif
