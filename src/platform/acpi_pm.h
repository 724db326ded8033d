/*
 * The ACPI fixed hardware: PM1 event and control blocks, PM timer, a general-purpose event block
 * (ACPI 6.4, chapter 4.8). Knows the clock, its SCI line and what to call for power-off.
 */
#ifndef MULL_PLATFORM_ACPI_PM_H
#define MULL_PLATFORM_ACPI_PM_H

#include "platform/device.h"
#include "platform/irq.h"

/* I/O ports, for the FADT. */
#define MULL_PM1_EVENT_PORT 0x600u
#define MULL_PM1_CONTROL_PORT 0x604u
#define MULL_PM_TIMER_PORT 0x608u
#define MULL_PM_GPE0_PORT 0x620u
#define MULL_PM_GPE0_SIZE 4u /* two bytes of status, two of enables: 16 events */

#define MULL_PM_TIMER_HZ 3579545u
#define MULL_PM_S5_TYPE 5u /* SLP_TYP of the soft-off state, for \_S5 */

struct mull_acpi_pm;

/** Create it. @param sci  the system control interrupt, level-triggered; @param poweroff  the guest
 *  entered S5; called with the lock held. The device is owned by the caller. */
int mull_acpi_pm_create(const struct mull_device_env *env, struct mull_irq sci,
                        void (*poweroff)(void *opaque), void *opaque, struct mull_acpi_pm **out,
                        struct mull_error *err);
struct mull_device *mull_acpi_pm_device(struct mull_acpi_pm *pm);

/** Press the power button. Any thread. */
void mull_acpi_pm_power_button(struct mull_acpi_pm *pm);

/** Raise general-purpose event @event (0..15). Any thread. */
void mull_acpi_pm_event(struct mull_acpi_pm *pm, unsigned event);

#endif
