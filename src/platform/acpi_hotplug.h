/*
 * What the DSDT says of things that come and go: the guest's side of hotplug.h, in ACPI Machine
 * Language. Used by acpi.c alone.
 */
#ifndef MULL_PLATFORM_ACPI_HOTPLUG_H
#define MULL_PLATFORM_ACPI_HOTPLUG_H

#include "platform/acpi.h"
#include "platform/aml.h"
#include "platform/hotplug.h"

/** In the PCI root's device: its slots. */
void acpi_hotplug_slots(struct mull_aml *a, const struct mull_acpi_hotplug *h);

/** In \_SB: the registers, and one field a thing. */
void acpi_hotplug_registers(struct mull_aml *a, const struct mull_acpi_hotplug *h, unsigned cpus);

/** In processor @index's device: whether it is there, what the MADT would say of it, ejection. */
void acpi_hotplug_cpu(struct mull_aml *a, unsigned index);

/** In \_SB: the DIMM slots. */
void acpi_hotplug_dimms(struct mull_aml *a, const struct mull_acpi_hotplug *h);

/** In \_SB: a method for each class that finds out what has happened and tells the devices. */
void acpi_hotplug_handlers(struct mull_aml *a, const struct mull_acpi_hotplug *h, unsigned cpus);

/** The scope \_GPE: the events that call them. */
void acpi_hotplug_events(struct mull_aml *a, const struct mull_acpi_hotplug *h);

#endif
