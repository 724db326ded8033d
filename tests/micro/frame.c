/*
 * The frame buffer of frame.h. Where an engine does not write it itself, the region's functions do,
 * and note it as a graphics adapter's do.
 */
#include "frame.h"

#include <stdlib.h>
#include <string.h>

#define SIZE (MICRO_FRAME_PAGES * MULL_PAGE_SIZE)

struct micro_frame {
    uint8_t *bytes;
    _Atomic uint8_t flags[MICRO_FRAME_PAGES];
    struct mull_device_ram ram;
    struct mull_region *region;
    uint64_t base;
    bool hidden, found;
    _Atomic bool written; /* by the functions */
};

static uint64_t frame_read(void *opaque, unsigned cpu, uint64_t offset, unsigned size)
{
    uint64_t value = 0;

    memcpy(&value, ((struct micro_frame *)opaque)->bytes + offset, size);
    return value;
}

static void frame_write(void *opaque, unsigned cpu, uint64_t offset, unsigned size, uint64_t value)
{
    struct micro_frame *f = opaque;

    memcpy(f->bytes + offset, &value, size);
    atomic_store(&f->written, true);
}

static const struct mull_region_ops ops = {frame_read, frame_write, 1, 8};

int micro_frame_create(struct micro_machine *m, struct mull_error *err)
{
    struct micro_frame *f = m->frame;

    if (!f) {
        f = m->frame = calloc(1, sizeof(*f));
        if (!f || !(f->bytes = aligned_alloc(MULL_PAGE_SIZE, SIZE)))
            abort();
        memset(f->bytes, 0, SIZE);
        f->base = MICRO_FRAME;
    }
    f->ram.ram = (struct mull_ram){.host = f->bytes, .size = SIZE, .flags = f->flags};
    int r = mull_region_add(m->memory, MULL_SPACE_MMIO, f->base, SIZE, &ops, f, "frame buffer",
                            &f->region, err);
    if (r)
        return r;
    mull_region_move(f->region, f->base, !f->hidden);
    return mull_region_set_ram(f->region, &f->ram);
}

void micro_frame_remove(struct micro_machine *m)
{
    if (m->frame && m->frame->region)
        mull_region_remove(m->frame->region);
    if (m->frame)
        m->frame->region = NULL;
}

void micro_frame_destroy(struct micro_machine *m)
{
    micro_frame_remove(m);
    if (m->frame)
        free(m->frame->bytes);
    free(m->frame);
    m->frame = NULL;
}

void micro_frame_do(struct micro_machine *m, unsigned what)
{
    struct micro_frame *f = m->frame;

    switch (what) {
    case 0:
        f->found = mull_device_ram_written(m->memory, &f->ram);
        f->found |= atomic_exchange(&f->written, false);
        return;
    case 1:
    case 2:
        f->base = what == 1 ? MICRO_FRAME_AWAY : MICRO_FRAME;
        break;
    default:
        f->hidden = what == 3;
    }
    mull_region_move(f->region, f->base, !f->hidden);
}

bool micro_frame_found(const struct micro_machine *m)
{
    return m->frame->found;
}
