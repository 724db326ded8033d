/*
 * What a person at the screen does, brought to the devices a machine has for it: keys to the
 * keyboard, the pointer to the tablet where the guest listens to one, else to the mouse.
 */
#ifndef MULL_DEVICE_INPUT_H
#define MULL_DEVICE_INPUT_H

#include <pthread.h>
#include <stdbool.h>

#include "device/legacy/i8042.h"

/** Lights of a keyboard. */
#define MULL_LED_SCROLL 1u
#define MULL_LED_NUM 2u
#define MULL_LED_CAPS 4u

#define MULL_POINTER_RANGE 32767u /* an absolute place is from 0 to this */

/** A device that takes some of it; all functions may be called from any thread. */
struct mull_input_sink {
    /* Does the guest listen? Asked before each event. */
    bool (*listens)(void *opaque);
    void (*key)(void *opaque, unsigned key, bool down); /* NULL: no keyboard */
    /* Place, and how far the wheel has turned (towards the user is positive). NULL: no tablet. */
    void (*place)(void *opaque, unsigned x, unsigned y, int wheel, unsigned buttons);
    unsigned (*leds)(void *opaque); /* NULL: unknown */
    bool (*ready)(void *opaque);    /* see mull_input_ready(); NULL: always */
    void *opaque;
};

#define MULL_INPUT_SINKS 4

struct mull_input {
    pthread_mutex_t lock;
    struct mull_i8042 *ps2; /* NULL: none; the last resort */
    struct mull_input_sink sink[MULL_INPUT_SINKS];
    unsigned sinks;
    unsigned x, y; /* where the pointer was, in pixels */
};

void mull_input_init(struct mull_input *in);
void mull_input_fini(struct mull_input *in);

/** Before the machine runs. @return 0 or -ENOSPC */
int mull_input_add(struct mull_input *in, const struct mull_input_sink *sink);

/** A key of struct mull_i8042's codes goes down or up. Any thread. */
void mull_input_key(struct mull_input *in, unsigned key, bool down);

/** The pointer is at (@x, @y) of a screen of @width by @height pixels; buttons as those of
 *  mull_i8042_mouse(). Any thread. */
void mull_input_pointer(struct mull_input *in, unsigned x, unsigned y, unsigned width,
                        unsigned height, int wheel, unsigned buttons);

/** Has the guest fetched all keys that were pressed? Any thread. */
bool mull_input_ready(struct mull_input *in);

/** MULL_LED_* of the keyboard the guest listens to. Any thread. */
unsigned mull_input_leds(struct mull_input *in);

#endif
