/*
 * isa-debug-exit: a write ends the machine. pc-testdev: a register that keeps what is written, a
 * port that forgets a page's translation, ports that drive interrupt lines, and memory that is a
 * device. Knows lines, not who they lead to.
 */
#include "device/testdev.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct testdev {
    struct mull_device device;
    struct mull_testdev_config cfg;
    pthread_mutex_t lock;
    uint32_t port;  /* what was written to it */
    uint32_t lines; /* bit i: line i is asserted */
    uint8_t iomem[MULL_TESTDEV_IOMEM_SIZE];
    struct mull_region *region[5];
};

static uint64_t mask_of(unsigned size)
{
    return size == 8 ? ~0ull : (1ull << 8 * size) - 1;
}

/* ---- The end ---- */

static uint64_t exit_read(void *opaque, unsigned cpu, uint64_t offset, unsigned size)
{
    return 0;
}

static void exit_write(void *opaque, unsigned cpu, uint64_t offset, unsigned size, uint64_t value)
{
    struct testdev *t = opaque;

    if (t->cfg.exit)
        t->cfg.exit(t->cfg.opaque, (uint32_t)value);
}

/* ---- Ports ---- */

static uint64_t port_read(void *opaque, unsigned cpu, uint64_t offset, unsigned size)
{
    struct testdev *t = opaque;

    pthread_mutex_lock(&t->lock);
    uint64_t value = t->port >> 8 * (offset & 3) & mask_of(size);
    pthread_mutex_unlock(&t->lock);
    return value;
}

static void port_write(void *opaque, unsigned cpu, uint64_t offset, unsigned size, uint64_t value)
{
    struct testdev *t = opaque;
    unsigned shift = 8 * (offset & 3);
    uint32_t mask = (uint32_t)(mask_of(size) << shift);

    pthread_mutex_lock(&t->lock);
    t->port = (t->port & ~mask) | ((uint32_t)(value << shift) & mask);
    pthread_mutex_unlock(&t->lock);
}

/* E4h: the host is to forget how it reaches a page of the guest's, so that a test meets what the
 * first access does. There is nothing here to forget that a guest could see. */
static uint64_t flush_read(void *opaque, unsigned cpu, uint64_t offset, unsigned size)
{
    return 0;
}

static void flush_write(void *opaque, unsigned cpu, uint64_t offset, unsigned size, uint64_t value)
{
}

/* ---- Interrupt lines ---- */

static uint64_t irq_read(void *opaque, unsigned cpu, uint64_t offset, unsigned size)
{
    struct testdev *t = opaque;

    pthread_mutex_lock(&t->lock);
    uint64_t value = t->lines >> offset & 1;
    pthread_mutex_unlock(&t->lock);
    return value;
}

static void irq_write(void *opaque, unsigned cpu, uint64_t offset, unsigned size, uint64_t value)
{
    struct testdev *t = opaque;

    pthread_mutex_lock(&t->lock);
    t->lines = (t->lines & ~(1u << offset)) | (value ? 1u << offset : 0);
    mull_irq_set(&t->cfg.irq[offset], value != 0);
    pthread_mutex_unlock(&t->lock);
}

/* ---- Memory that is a device ---- */

static uint64_t iomem_read(void *opaque, unsigned cpu, uint64_t offset, unsigned size)
{
    struct testdev *t = opaque;
    uint64_t value = 0;

    pthread_mutex_lock(&t->lock);
    memcpy(&value, t->iomem + offset, size);
    pthread_mutex_unlock(&t->lock);
    return value;
}

static void iomem_write(void *opaque, unsigned cpu, uint64_t offset, unsigned size, uint64_t value)
{
    struct testdev *t = opaque;

    pthread_mutex_lock(&t->lock);
    memcpy(t->iomem + offset, &value, size);
    pthread_mutex_unlock(&t->lock);
}

/* ---- Life ---- */

static void set_lines(struct testdev *t)
{
    for (unsigned i = 0; i < MULL_TESTDEV_LINES; i++)
        mull_irq_set(&t->cfg.irq[i], t->lines >> i & 1);
}

static void reset(struct mull_device *device)
{
    struct testdev *t = device->object;

    pthread_mutex_lock(&t->lock);
    t->port = t->lines = 0;
    memset(t->iomem, 0, sizeof(t->iomem));
    set_lines(t);
    pthread_mutex_unlock(&t->lock);
}

static int after_load(void *object, uint32_t version, struct mull_error *err)
{
    struct testdev *t = object;

    t->lines &= (1u << MULL_TESTDEV_LINES) - 1;
    set_lines(t);
    return 0;
}

static const struct mull_field fields[] = {
    MULL_FIELD(struct testdev, port),
    MULL_FIELD(struct testdev, lines),
    MULL_FIELD_BLOB(struct testdev, iomem),
    MULL_FIELDS_END,
};
static const struct mull_state_desc desc = {
    .name = "pc-testdev", .version = 1, .oldest = 1, .fields = fields, .after_load = after_load};

static void destroy(struct mull_device *device)
{
    struct testdev *t = device->object;

    for (unsigned i = 0; i < sizeof(t->region) / sizeof(t->region[0]); i++)
        mull_region_remove(t->region[i]);
    pthread_mutex_destroy(&t->lock);
    free(t);
}

static const struct mull_device_ops ops = {.state = &desc, .reset = reset, .destroy = destroy};

int mull_testdev_create(const struct mull_device_env *env, const struct mull_testdev_config *cfg,
                        struct mull_device **out, struct mull_error *err)
{
    static const struct {
        enum mull_space space;
        uint64_t base, size;
        const char *name;
        struct mull_region_ops ops;
    } map[] = {
        {MULL_SPACE_PORT, MULL_TESTDEV_EXIT_PORT, 4, "debug exit", {exit_read, exit_write, 1, 4}},
        {MULL_SPACE_PORT, MULL_TESTDEV_PORT, 4, "test port", {port_read, port_write, 1, 4}},
        {MULL_SPACE_PORT, MULL_TESTDEV_PORT + 4, 4, "test flush", {flush_read, flush_write, 1, 4}},
        {MULL_SPACE_PORT,
         MULL_TESTDEV_IRQ_PORT,
         MULL_TESTDEV_LINES,
         "test lines",
         {irq_read, irq_write, 1, 1}},
        {MULL_SPACE_MMIO,
         MULL_TESTDEV_IOMEM,
         MULL_TESTDEV_IOMEM_SIZE,
         "test memory",
         {iomem_read, iomem_write, 1, 8}},
    };
    struct testdev *t = calloc(1, sizeof(*t));
    int code = 0;

    if (!t)
        return mull_fail(err, ENOMEM, "test devices: no memory");
    t->device = (struct mull_device){.ops = &ops, .name = "pc-testdev", .object = t};
    t->cfg = *cfg;
    pthread_mutex_init(&t->lock, NULL);
    for (unsigned i = 0; i < sizeof(map) / sizeof(map[0]) && !code; i++)
        code = mull_region_add(env->memory, map[i].space, map[i].base, map[i].size, &map[i].ops, t,
                               map[i].name, &t->region[i], err);
    if (code) {
        destroy(&t->device);
        return code;
    }
    *out = &t->device;
    return 0;
}
