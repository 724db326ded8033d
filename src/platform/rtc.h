/*
 * The real-time clock and CMOS memory (MC146818A) at ports 70h and 71h. Knows the clock and its
 * line.
 */
#ifndef MULL_PLATFORM_RTC_H
#define MULL_PLATFORM_RTC_H

#include "platform/device.h"
#include "platform/irq.h"

#define MULL_RTC_CENTURY 0x32u /* CMOS byte, named in the FADT */

struct mull_rtc;

/** Create it; it shows the host's wall-clock time in UTC. @param irq  IRQ 8. The device is owned by
 *  the caller. */
int mull_rtc_create(const struct mull_device_env *env, struct mull_irq irq, struct mull_rtc **out,
                    struct mull_error *err);
struct mull_device *mull_rtc_device(struct mull_rtc *rtc);

/** Preset a byte of CMOS memory, kept over resets (sizes of memory, for firmware). Registers of the
 *  clock (0 to 0Dh and the century) are not changed. */
void mull_rtc_set_cmos(struct mull_rtc *rtc, unsigned index, uint8_t value);

/** Has the guest masked NMIs (bit 7 of port 70h)? */
bool mull_rtc_nmi_masked(const struct mull_rtc *rtc);

#endif
