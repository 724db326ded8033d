/*
 * Devices that bare-metal test kernels of the x86 community (kvm-unit-tests and others) expect, with
 * the interfaces that QEMU gave them: isa-debug-exit, pc-testdev, pci-testdev
 * (docs/specs/pci-testdev.rst there).
 */
#ifndef MULL_DEVICE_TESTDEV_H
#define MULL_DEVICE_TESTDEV_H

#include "platform/device.h"
#include "platform/irq.h"
#include "platform/pci.h"

#define MULL_TESTDEV_EXIT_PORT 0xf4u
#define MULL_TESTDEV_PORT 0xe0u
#define MULL_TESTDEV_IRQ_PORT 0x2000u
#define MULL_TESTDEV_IOMEM 0xff000000ull
#define MULL_TESTDEV_IOMEM_SIZE 0x10000u
#define MULL_TESTDEV_LINES 24u

struct mull_testdev_config {
    struct mull_irq irq[MULL_TESTDEV_LINES]; /* set by writes to the IRQ ports */
    /* The guest ends the machine with this value. From a vCPU's thread; may be NULL. */
    void (*exit)(void *opaque, uint32_t value);
    void *opaque;
};

/** isa-debug-exit and pc-testdev. */
int mull_testdev_create(const struct mull_device_env *env, const struct mull_testdev_config *cfg,
                        struct mull_device **out, struct mull_error *err);

/** pci-testdev: counts writes to where it says. */
int mull_pci_testdev_create(const struct mull_device_env *env, struct mull_pci_bus *bus,
                            struct mull_device **out, struct mull_error *err);

#endif
