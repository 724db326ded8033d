/*
 * The two cascaded 8259A interrupt controllers with their edge/level control registers.
 * Knows nothing of who is behind its output line.
 */
#ifndef MULL_PLATFORM_PIC_H
#define MULL_PLATFORM_PIC_H

#include "memory/memory.h"
#include "platform/device.h"

struct mull_pic;

struct mull_pic_config {
    struct mull_memory *memory;
    void *opaque;
    /* INTR changed, or another vector waits now. Called with the controller's lock held. */
    void (*output)(void *opaque, bool level);
};

/** Create both controllers with their ports. The device is owned by the caller. */
int mull_pic_create(const struct mull_pic_config *config, struct mull_pic **out,
                    struct mull_error *err);
struct mull_device *mull_pic_device(struct mull_pic *pic);

/** Set input @line (0..15; 2 is the cascade and ignored). Any thread. */
void mull_pic_set(struct mull_pic *pic, unsigned line, bool level);

/** The vector that an acknowledge would give now, or -1. Lock-free. */
int mull_pic_pending(struct mull_pic *pic);

/** Interrupt acknowledge: the vector; a spurious one if the request has gone; -1 if the output is
 *  not active. Any thread. */
int mull_pic_accept(struct mull_pic *pic);

#endif
