/*
 * The high-precision event timer: a 100 MHz counter and three comparators (IA-PC HPET specification
 * 1.0a). Knows the clock, its lines and where messages go.
 */
#ifndef MULL_PLATFORM_HPET_H
#define MULL_PLATFORM_HPET_H

#include "platform/device.h"
#include "platform/irq.h"

#define MULL_HPET_TIMERS 3
#define MULL_HPET_PERIOD_FS 10000000u /* of the main counter: 10 ns */
#define MULL_HPET_ID 0x8086a201u      /* low half of the capabilities, for the ACPI table */

struct mull_hpet;

struct mull_hpet_config {
    uint64_t base;
    struct mull_irq irq[24];   /* I/O APIC pins */
    struct mull_irq legacy[2]; /* IRQ 0 and IRQ 8 in legacy replacement mode */
    struct mull_msi_sink msi;
    void *opaque;
    /* Legacy replacement was switched: the 8254 and the RTC lose or regain their lines. */
    void (*legacy_mode)(void *opaque, bool on);
};

/** Create it. The device is owned by the caller. */
int mull_hpet_create(const struct mull_device_env *env, const struct mull_hpet_config *config,
                     struct mull_hpet **out, struct mull_error *err);
struct mull_device *mull_hpet_device(struct mull_hpet *hpet);

#endif
