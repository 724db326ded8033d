/*
 * The watchdog timer of Intel's 6300ESB I/O controller (its datasheet, chapter 16), for which
 * guests have drivers.
 */
#ifndef MULL_DEVICE_LEGACY_I6300ESB_H
#define MULL_DEVICE_LEGACY_I6300ESB_H

#include "platform/device.h"
#include "platform/pci.h"

struct mull_watchdog_config {
    const char *name;
    int devfn;
    void *opaque;
    /* The guest has not been heard of for both stages. Loop's thread, no lock held. */
    void (*expired)(void *opaque);
};

int mull_i6300esb_create(const struct mull_device_env *env, struct mull_pci_bus *bus,
                         const struct mull_watchdog_config *cfg, struct mull_device **out,
                         struct mull_error *err);

#endif
