/*
 * What comes and goes while the machine runs: PCI functions in the root bus's slots, vCPUs and
 * DIMMs, announced to the guest by ACPI general-purpose events (ACPI 6.4, 5.6.6 and 6.3). This is
 * the register block that the methods in the DSDT read and write (acpi_hotplug.c); the machine puts
 * the things themselves in and takes them away. docs/hotplug.md says why ACPI for all of it.
 *
 * The registers: one page of memory. For each class, from HOTPLUG_CLASS_SIZE times its number on,
 * arrays of one bit a thing (32 bytes each), then the DIMMs' places. All are read as 32 bits.
 *
 *   00h  it is there                          read only
 *   20h  it has come: look at it              write 1 to clear
 *   40h  it shall go: let go of it            write 1 to clear
 *   60h  the guest has let go of it: eject    write 1
 *   80h  32 bits: what the guest says of an event (_OST): class << 24 | thing << 16 |
 *        event << 8 | status                  write only; for all classes
 *   200h (class DIMM) for each slot 32 bytes: base, last byte, size; 64 bits each
 */
#ifndef MULL_PLATFORM_HOTPLUG_H
#define MULL_PLATFORM_HOTPLUG_H

#include <stdbool.h>
#include <stdint.h>

#include "platform/acpi_pm.h"
#include "platform/device.h"

#define MULL_HOTPLUG_BASE 0xfec80000ull
#define MULL_HOTPLUG_SIZE 0x1000u
#define MULL_HOTPLUG_CLASS_SIZE 0x100u
#define MULL_HOTPLUG_PRESENT 0x00u
#define MULL_HOTPLUG_COME 0x20u
#define MULL_HOTPLUG_GO 0x40u
#define MULL_HOTPLUG_EJECT 0x60u
#define MULL_HOTPLUG_OST 0x80u
#define MULL_HOTPLUG_DIMMS 0x400u

enum mull_hotplug_class { MULL_HOTPLUG_PCI, MULL_HOTPLUG_CPU, MULL_HOTPLUG_DIMM };
#define MULL_HOTPLUG_CLASSES 3
#define MULL_HOTPLUG_PCI_SLOTS 32
#define MULL_HOTPLUG_DIMM_SLOTS MULL_RAM_HOT

/** The general-purpose event of each class: 1 + class. */
#define MULL_HOTPLUG_EVENT 1u

/** How far the guest is with what was asked of it. */
enum mull_hotplug_asked {
    MULL_HOTPLUG_IDLE,    /* nothing was asked */
    MULL_HOTPLUG_ASKED,   /* it shall let go, and has not said anything */
    MULL_HOTPLUG_REFUSED, /* it says that it does not */
};

struct mull_hotplug;

struct mull_hotplug_config {
    struct mull_acpi_pm *pm;
    void *opaque;
    /* The guest ejects a thing that was asked for: it is no longer present. From a vCPU's thread;
     * take it away later, with no vCPU running. */
    void (*eject)(void *opaque, enum mull_hotplug_class class, unsigned index);
};

/** Nothing is there yet. @return 0 or a negative errno */
int mull_hotplug_create(const struct mull_device_env *env, const struct mull_hotplug_config *config,
                        struct mull_hotplug **out, struct mull_error *err);

struct mull_device *mull_hotplug_device(struct mull_hotplug *h);

/** Something is there from the start (or again, after a state was loaded): no event. */
void mull_hotplug_there(struct mull_hotplug *h, enum mull_hotplug_class class, unsigned index);

/** It has come: tell the guest. Any thread, as for all below. */
void mull_hotplug_come(struct mull_hotplug *h, enum mull_hotplug_class class, unsigned index);

/** It shall go: ask the guest. */
void mull_hotplug_ask(struct mull_hotplug *h, enum mull_hotplug_class class, unsigned index);

/** It has gone without the guest's doing. */
void mull_hotplug_gone(struct mull_hotplug *h, enum mull_hotplug_class class, unsigned index);

bool mull_hotplug_present(struct mull_hotplug *h, enum mull_hotplug_class class, unsigned index);

/** @param status  the guest's word for the refusal (ACPI 6.4, table 6.50), or 0; may be NULL */
enum mull_hotplug_asked mull_hotplug_asked(struct mull_hotplug *h, enum mull_hotplug_class class,
                                           unsigned index, unsigned *status);

/** Where a DIMM is; before it comes. */
void mull_hotplug_set_dimm(struct mull_hotplug *h, unsigned slot, uint64_t base, uint64_t size);
void mull_hotplug_dimm(struct mull_hotplug *h, unsigned slot, uint64_t *base, uint64_t *size);

#endif
