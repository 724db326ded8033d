/*
 * The I/O APIC: 24 pins to messages (Intel 82093AA data sheet, with the EOI register of version
 * 20h). Knows nothing of local APICs but the message format.
 */
#ifndef MULL_PLATFORM_IOAPIC_H
#define MULL_PLATFORM_IOAPIC_H

#include "memory/memory.h"
#include "platform/device.h"
#include "platform/irq.h"

#define MULL_IOAPIC_PINS 24

struct mull_ioapic;

struct mull_ioapic_config {
    struct mull_memory *memory;
    uint64_t base;
    struct mull_msi_sink msi; /* where the interrupts go; called with the lock held */
    void *opaque;
    /* The set of vectors of level-triggered entries changed; may be NULL. Lock held. */
    void (*level_vectors)(void *opaque, const uint64_t vectors[4]);
};

/** Create it. The device is owned by the caller. */
int mull_ioapic_create(const struct mull_ioapic_config *config, struct mull_ioapic **out,
                       struct mull_error *err);
struct mull_device *mull_ioapic_device(struct mull_ioapic *ioapic);

/** Set pin @pin. Any thread. */
void mull_ioapic_set(struct mull_ioapic *ioapic, unsigned pin, bool level);

/** A local APIC has ended a level-triggered vector. Any thread. */
void mull_ioapic_eoi(struct mull_ioapic *ioapic, uint8_t vector);

#endif
