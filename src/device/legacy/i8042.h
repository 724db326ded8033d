/*
 * The keyboard controller of a PC, with a keyboard and a mouse behind it or without. Keys are told by the codes
 * of scan code set 1, what wheel mice speak is spoken to guests that ask for it.
 */
#ifndef MULL_DEVICE_LEGACY_I8042_H
#define MULL_DEVICE_LEGACY_I8042_H

#include "platform/device.h"
#include "platform/irq.h"

struct mull_i8042;

/* A key: its code in set 1, plus this where E0h goes before it. */
#define MULL_KEY_EXTENDED 0x100u
#define MULL_KEY_PAUSE 0x145u /* has a sequence of its own */
#define MULL_KEY_PRINT 0x137u

struct mull_i8042_config {
    struct mull_irq keyboard, mouse; /* ISA lines 1 and 12 */
    bool bare;                       /* nothing is plugged in: bytes for devices get no answer */
    void (*reset)(void *opaque);     /* the guest resets the machine */
    void *opaque;
};

/** Create it at ports 60h and 64h. The device is owned by the caller. */
int mull_i8042_create(const struct mull_device_env *env, const struct mull_i8042_config *cfg,
                      struct mull_i8042 **out, struct mull_error *err);
struct mull_device *mull_i8042_device(struct mull_i8042 *k);

/** A key goes down or up. What the guest does not fetch in time is lost. Any thread. */
void mull_i8042_key(struct mull_i8042 *k, unsigned key, bool down);

/** The keyboard's lights as the guest has set them: bit 0 scroll, 1 num, 2 caps lock. Any thread. */
unsigned mull_i8042_leds(struct mull_i8042 *k);

/** Has the guest fetched all keys? Any thread. */
bool mull_i8042_idle(struct mull_i8042 *k);

/** The mouse moves (right and down are positive), buttons: bit 0 left, 1 right, 2 middle; the wheel
 *  turns (towards the user is positive). Any thread. */
void mull_i8042_mouse(struct mull_i8042 *k, int dx, int dy, int wheel, unsigned buttons);

#endif
