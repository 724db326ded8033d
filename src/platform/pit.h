/*
 * The 8254 programmable interval timer and the speaker port 61h. Knows the clock and its line.
 */
#ifndef MULL_PLATFORM_PIT_H
#define MULL_PLATFORM_PIT_H

#include "platform/device.h"
#include "platform/irq.h"

#define MULL_PIT_HZ 1193182u

struct mull_pit;

/** Create it. @param irq  the output of channel 0. The device is owned by the caller. */
int mull_pit_create(const struct mull_device_env *env, struct mull_irq irq, struct mull_pit **out,
                    struct mull_error *err);
struct mull_device *mull_pit_device(struct mull_pit *pit);

#endif
