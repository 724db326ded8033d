/*
 * Two 8259A interrupt controllers (Intel 8259A data sheet, 231468) as a PC cascades them, with the
 * edge/level control registers at 4D0h and 4D1h. The vector that would be delivered is kept in an
 * atomic variable, so that vCPUs can ask without a lock. Knows nothing of CPUs.
 */
#include "platform/pic.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define CASCADE 2u

/* Which word of the initialization sequence the next write to the odd port is. */
enum { READY, ICW2, ICW3, ICW4 };

struct chip {
    uint8_t lines; /* inputs as they are */
    uint8_t irr, isr, imr;
    uint8_t elcr;         /* 1: level-triggered */
    uint8_t base;         /* vector of input 0 */
    uint8_t lowest;       /* the input with the lowest priority */
    uint8_t init;         /* READY.. */
    uint8_t single, icw4; /* from ICW1: no cascade; ICW4 follows */
    uint8_t auto_eoi, rotate_auto_eoi;
    uint8_t nested;       /* special fully nested mode */
    uint8_t special_mask; /* special mask mode */
    uint8_t read_isr, poll;
};

struct mull_pic {
    struct mull_device device;
    struct mull_pic_config config;
    pthread_mutex_t lock;
    struct chip chip[2]; /* master, slave */
    _Atomic int pending;
    struct mull_region *region[3];
};

/* Position of the most urgent input of @mask in priority order, 8: none. */
static unsigned urgency(const struct chip *c, uint8_t mask)
{
    for (unsigned i = 0; i < 8; i++)
        if (mask >> ((c->lowest + 1 + i) & 7) & 1)
            return i;
    return 8;
}

/* The input that asserts INT, or -1. */
static int requested(const struct mull_pic *pic, unsigned which)
{
    const struct chip *c = &pic->chip[which];
    uint8_t serving = c->isr;

    if (c->init != READY)
        return -1;
    unsigned wants = urgency(c, c->irr & ~c->imr);
    if (wants == 8)
        return -1;
    if (c->special_mask)
        serving &= ~c->imr;
    if (c->nested && which == 0)
        serving &= ~(1u << CASCADE);
    return wants < urgency(c, serving) ? (int)((c->lowest + 1 + wants) & 7) : -1;
}

static void set_input(struct chip *c, unsigned line, bool level)
{
    uint8_t bit = (uint8_t)(1u << line);
    bool was = c->lines & bit;

    c->lines = level ? c->lines | bit : c->lines & ~bit;
    if (c->elcr & bit)
        c->irr = level ? c->irr | bit : c->irr & ~bit;
    else if (level && !was)
        c->irr |= bit;
}

/* The vector that an acknowledge would give; -1: INT is not asserted. */
static int peek(const struct mull_pic *pic)
{
    int line = requested(pic, 0);

    if (line != (int)CASCADE)
        return line < 0 ? -1 : pic->chip[0].base + line;
    line = requested(pic, 1);
    return pic->chip[1].base + (line < 0 ? 7 : line);
}

/* Bring the cascade, INTR and the cached vector up to date. The lock is held. */
static void update(struct mull_pic *pic)
{
    uint8_t cascade = 1u << CASCADE;

    /* The slave's output is a level for the master, whatever its ELCR says. */
    if (requested(pic, 1) >= 0)
        pic->chip[0].irr |= cascade;
    else
        pic->chip[0].irr &= ~cascade;
    int vector = peek(pic);
    if (atomic_exchange(&pic->pending, vector) != vector)
        pic->config.output(pic->config.opaque, vector >= 0);
}

static void acknowledge(struct chip *c, unsigned line)
{
    uint8_t bit = (uint8_t)(1u << line);

    if (!(c->elcr & bit))
        c->irr &= ~bit;
    if (!c->auto_eoi)
        c->isr |= bit;
    else if (c->rotate_auto_eoi)
        c->lowest = (uint8_t)line;
}

void mull_pic_set(struct mull_pic *pic, unsigned line, bool level)
{
    if (line > 15 || line == CASCADE)
        return;
    pthread_mutex_lock(&pic->lock);
    set_input(&pic->chip[line / 8], line % 8, level);
    update(pic);
    pthread_mutex_unlock(&pic->lock);
}

int mull_pic_pending(struct mull_pic *pic)
{
    return atomic_load_explicit(&pic->pending, memory_order_acquire);
}

int mull_pic_accept(struct mull_pic *pic)
{
    pthread_mutex_lock(&pic->lock);
    int vector = peek(pic);
    int line = requested(pic, 0);
    if (line >= 0) {
        int below = line == (int)CASCADE ? requested(pic, 1) : -1;
        acknowledge(&pic->chip[0], (unsigned)line);
        if (below >= 0)
            acknowledge(&pic->chip[1], (unsigned)below);
        update(pic);
    }
    pthread_mutex_unlock(&pic->lock);
    return vector;
}

/* ---- Ports ---- */

static void write_icw1(struct chip *c, uint8_t value)
{
    c->irr &= c->elcr; /* the edge detectors are cleared; levels are still there */
    c->isr = c->imr = 0;
    c->lowest = 7;
    c->special_mask = c->read_isr = c->poll = 0;
    c->auto_eoi = c->rotate_auto_eoi = c->nested = 0;
    c->single = value >> 1 & 1;
    c->icw4 = value & 1;
    c->init = ICW2;
}

static void write_ocw2(struct chip *c, uint8_t value)
{
    unsigned command = value >> 5, line = value & 7;

    switch (command) {
    case 0: /* rotate in automatic EOI mode: clear, set */
    case 4:
        c->rotate_auto_eoi = command == 4;
        break;
    case 1: /* non-specific EOI, and with rotation */
    case 5: {
        uint8_t serving = c->special_mask ? c->isr & ~c->imr : c->isr;
        unsigned first = urgency(c, serving);
        if (first == 8)
            break;
        line = (c->lowest + 1 + first) & 7;
        c->isr &= ~(1u << line);
        if (command == 5)
            c->lowest = (uint8_t)line;
        break;
    }
    case 3: /* specific EOI, and with rotation */
    case 7:
        c->isr &= ~(1u << line);
        if (command == 7)
            c->lowest = (uint8_t)line;
        break;
    case 6: /* set priority */
        c->lowest = (uint8_t)line;
        break;
    default:
        break;
    }
}

static void write_ocw3(struct chip *c, uint8_t value)
{
    if (value & 4)
        c->poll = 1;
    if (value & 2)
        c->read_isr = value & 1;
    if (value & 0x40)
        c->special_mask = value >> 5 & 1;
}

static void write_odd(struct chip *c, uint8_t value)
{
    switch (c->init) {
    case READY:
        c->imr = value;
        break;
    case ICW2:
        c->base = value & 0xf8;
        c->init = !c->single ? ICW3 : c->icw4 ? ICW4 : READY;
        break;
    case ICW3: /* who is cascaded where is wired */
        c->init = c->icw4 ? ICW4 : READY;
        break;
    default:
        c->nested = value >> 4 & 1;
        c->auto_eoi = value >> 1 & 1;
        c->init = READY;
    }
}

static void chip_write(struct mull_pic *pic, unsigned which, uint64_t offset, uint8_t value)
{
    struct chip *c = &pic->chip[which];

    pthread_mutex_lock(&pic->lock);
    if (offset & 1)
        write_odd(c, value);
    else if (value & 0x10)
        write_icw1(c, value);
    else if (value & 8)
        write_ocw3(c, value);
    else
        write_ocw2(c, value);
    update(pic);
    pthread_mutex_unlock(&pic->lock);
}

static uint8_t chip_read(struct mull_pic *pic, unsigned which, uint64_t offset)
{
    struct chip *c = &pic->chip[which];
    uint8_t value;

    pthread_mutex_lock(&pic->lock);
    if (c->poll) { /* a read after OCW3 with P is an acknowledge */
        int line = requested(pic, which);
        value = line < 0 ? 7 : (uint8_t)(0x80 | line);
        c->poll = 0;
        if (line >= 0)
            acknowledge(c, (unsigned)line);
        update(pic);
    } else if (offset & 1) {
        value = c->imr;
    } else {
        value = c->read_isr ? c->isr : c->irr;
    }
    pthread_mutex_unlock(&pic->lock);
    return value;
}

static uint64_t master_read(void *opaque, unsigned cpu, uint64_t offset, unsigned size)
{
    return chip_read(opaque, 0, offset);
}

static void master_write(void *opaque, unsigned cpu, uint64_t offset, unsigned size, uint64_t value)
{
    chip_write(opaque, 0, offset, (uint8_t)value);
}

static uint64_t slave_read(void *opaque, unsigned cpu, uint64_t offset, unsigned size)
{
    return chip_read(opaque, 1, offset);
}

static void slave_write(void *opaque, unsigned cpu, uint64_t offset, unsigned size, uint64_t value)
{
    chip_write(opaque, 1, offset, (uint8_t)value);
}

static uint64_t elcr_read(void *opaque, unsigned cpu, uint64_t offset, unsigned size)
{
    struct mull_pic *pic = opaque;

    pthread_mutex_lock(&pic->lock);
    uint8_t value = pic->chip[offset & 1].elcr;
    pthread_mutex_unlock(&pic->lock);
    return value;
}

static void elcr_write(void *opaque, unsigned cpu, uint64_t offset, unsigned size, uint64_t value)
{
    struct mull_pic *pic = opaque;
    struct chip *c = &pic->chip[offset & 1];

    pthread_mutex_lock(&pic->lock);
    /* IRQs 0, 1, 2, 8 and 13 are always edges. */
    c->elcr = (uint8_t)value & (offset & 1 ? 0xde : 0xf8);
    c->irr = (c->irr & ~c->elcr) | (c->lines & c->elcr);
    update(pic);
    pthread_mutex_unlock(&pic->lock);
}

static const struct mull_region_ops master_ops = {master_read, master_write, 1, 1};
static const struct mull_region_ops slave_ops = {slave_read, slave_write, 1, 1};
static const struct mull_region_ops elcr_ops = {elcr_read, elcr_write, 1, 1};

/* ---- Life ---- */

static void reset(struct mull_device *device)
{
    struct mull_pic *pic = device->object;

    pthread_mutex_lock(&pic->lock);
    for (unsigned i = 0; i < 2; i++)
        pic->chip[i] = (struct chip){.lines = pic->chip[i].lines, .lowest = 7, .imr = 0xff};
    update(pic);
    pthread_mutex_unlock(&pic->lock);
}

static int after_load(void *object, uint32_t version, struct mull_error *err)
{
    struct mull_pic *pic = object;

    pthread_mutex_lock(&pic->lock);
    for (unsigned i = 0; i < 2; i++) {
        struct chip *c = &pic->chip[i];
        c->elcr &= i ? 0xde : 0xf8;
        c->base &= 0xf8;
        c->lowest &= 7;
        c->init &= 3;
    }
    update(pic);
    pthread_mutex_unlock(&pic->lock);
    return 0;
}

static const struct mull_field chip_fields[] = {
    MULL_FIELD(struct chip, lines),
    MULL_FIELD(struct chip, irr),
    MULL_FIELD(struct chip, isr),
    MULL_FIELD(struct chip, imr),
    MULL_FIELD(struct chip, elcr),
    MULL_FIELD(struct chip, base),
    MULL_FIELD(struct chip, lowest),
    MULL_FIELD(struct chip, init),
    MULL_FIELD(struct chip, single),
    MULL_FIELD(struct chip, icw4),
    MULL_FIELD(struct chip, auto_eoi),
    MULL_FIELD(struct chip, rotate_auto_eoi),
    MULL_FIELD(struct chip, nested),
    MULL_FIELD(struct chip, special_mask),
    MULL_FIELD(struct chip, read_isr),
    MULL_FIELD(struct chip, poll),
    MULL_FIELDS_END,
};
static const struct mull_state_desc chip_desc = {
    .name = "8259a", .version = 1, .oldest = 1, .fields = chip_fields};
static const struct mull_field fields[] = {
    MULL_FIELD_NESTED_ARRAY(struct mull_pic, chip, &chip_desc),
    MULL_FIELDS_END,
};
static const struct mull_state_desc desc = {
    .name = "pic", .version = 1, .oldest = 1, .fields = fields, .after_load = after_load};

static void destroy(struct mull_device *device)
{
    struct mull_pic *pic = device->object;

    for (unsigned i = 0; i < 3; i++)
        mull_region_remove(pic->region[i]);
    pthread_mutex_destroy(&pic->lock);
    free(pic);
}

static const struct mull_device_ops ops = {.state = &desc, .reset = reset, .destroy = destroy};

struct mull_device *mull_pic_device(struct mull_pic *pic)
{
    return &pic->device;
}

int mull_pic_create(const struct mull_pic_config *config, struct mull_pic **out,
                    struct mull_error *err)
{
    struct mull_memory *mem = config->memory;
    struct mull_pic *pic = calloc(1, sizeof(*pic));
    int code;

    *out = NULL;
    if (!pic)
        return mull_fail(err, ENOMEM, "8259A: no memory");
    pic->config = *config;
    pic->device = (struct mull_device){.ops = &ops, .name = "pic", .object = pic};
    pic->pending = -1;
    pthread_mutex_init(&pic->lock, NULL);
    reset(&pic->device);
    if ((code = mull_region_add(mem, MULL_SPACE_PORT, 0x20, 2, &master_ops, pic, "8259A master",
                                &pic->region[0], err)) < 0 ||
        (code = mull_region_add(mem, MULL_SPACE_PORT, 0xa0, 2, &slave_ops, pic, "8259A slave",
                                &pic->region[1], err)) < 0 ||
        (code = mull_region_add(mem, MULL_SPACE_PORT, 0x4d0, 2, &elcr_ops, pic, "8259A ELCR",
                                &pic->region[2], err)) < 0) {
        destroy(&pic->device);
        return code;
    }
    *out = pic;
    return 0;
}
