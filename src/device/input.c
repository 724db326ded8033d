/*
 * See input.h. A mouse is told how far the pointer went: a guest that accelerates it leaves the
 * viewer's pointer behind, which is what a tablet is for.
 */
#include "device/input.h"

#include <errno.h>
#include <string.h>

void mull_input_init(struct mull_input *in)
{
    memset(in, 0, sizeof(*in));
    pthread_mutex_init(&in->lock, NULL);
}

void mull_input_fini(struct mull_input *in)
{
    pthread_mutex_destroy(&in->lock);
}

int mull_input_add(struct mull_input *in, const struct mull_input_sink *sink)
{
    if (in->sinks == MULL_INPUT_SINKS)
        return -ENOSPC;
    in->sink[in->sinks++] = *sink;
    return 0;
}

static const struct mull_input_sink *keyboard(const struct mull_input *in)
{
    for (unsigned i = 0; i < in->sinks; i++)
        if (in->sink[i].key && in->sink[i].listens(in->sink[i].opaque))
            return &in->sink[i];
    return NULL;
}

void mull_input_key(struct mull_input *in, unsigned key, bool down)
{
    const struct mull_input_sink *sink = keyboard(in);

    if (sink)
        sink->key(sink->opaque, key, down);
    else if (in->ps2)
        mull_i8042_key(in->ps2, key, down);
}

unsigned mull_input_leds(struct mull_input *in)
{
    const struct mull_input_sink *sink = keyboard(in);

    if (sink)
        return sink->leds ? sink->leds(sink->opaque) : 0;
    return in->ps2 ? mull_i8042_leds(in->ps2) : 0;
}

bool mull_input_ready(struct mull_input *in)
{
    const struct mull_input_sink *sink = keyboard(in);

    if (sink)
        return !sink->ready || sink->ready(sink->opaque);
    return in->ps2 && mull_i8042_idle(in->ps2);
}

static unsigned scaled(unsigned at, unsigned size)
{
    if (size < 2)
        return 0;
    return at >= size ? MULL_POINTER_RANGE
                      : (at * MULL_POINTER_RANGE + (size - 1) / 2) / (size - 1);
}

void mull_input_pointer(struct mull_input *in, unsigned x, unsigned y, unsigned width,
                        unsigned height, int wheel, unsigned buttons)
{
    /* Bounded, so that nothing below can overflow. */
    x = x < 0xffff ? x : 0xffff;
    y = y < 0xffff ? y : 0xffff;
    pthread_mutex_lock(&in->lock);
    int dx = (int)x - (int)in->x, dy = (int)y - (int)in->y;
    in->x = x;
    in->y = y;
    pthread_mutex_unlock(&in->lock);
    for (unsigned i = 0; i < in->sinks; i++) {
        const struct mull_input_sink *sink = &in->sink[i];
        if (sink->place && sink->listens(sink->opaque)) {
            sink->place(sink->opaque, scaled(x, width), scaled(y, height), wheel, buttons);
            return;
        }
    }
    if (in->ps2)
        mull_i8042_mouse(in->ps2, dx, dy, wheel, buttons);
}
