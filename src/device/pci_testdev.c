/*
 * pci-testdev: each BAR, one of memory and one of ports, begins with a header. A write of a test's
 * number to its first byte says in the header where to write what; writes there are counted.
 */
#include "device/testdev.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define VENDOR 0x1b36u /* Red Hat's, for QEMU's devices */
#define DEVICE 0x0005u
#define CLASS 0x00ff00u
#define TESTS 3u

/* The header; the name follows. */
#define H_TEST 0u
#define H_WIDTH 1u
#define H_OFFSET 4u
#define H_DATA 8u
#define H_COUNT 12u
#define H_NAME 16u
#define H_SIZE 64u
#define DATA_MATCH 0xfau
#define WIDTH 1u

struct pci_testdev;

struct bar {
    struct pci_testdev *owner;
    const char *kind;
    uint8_t test; /* the one that was chosen; TESTS: none */
    uint32_t count;
};

struct pci_testdev {
    struct mull_device device;
    struct mull_pci_function function;
    pthread_mutex_t lock;
    struct bar bar[2];
};

static const char *const names[TESTS] = {"no-eventfd", "wildcard-eventfd", "datamatch-eventfd"};

static uint8_t header_byte(const struct bar *b, unsigned offset)
{
    bool there = b->test < TESTS;

    if (offset == H_WIDTH)
        return there ? WIDTH : 0;
    if (!there)
        return 0;
    if (offset == H_OFFSET)
        return (uint8_t)(H_SIZE + b->test);
    if (offset == H_DATA)
        return DATA_MATCH;
    if (offset >= H_COUNT && offset < H_NAME)
        return (uint8_t)(b->count >> 8 * (offset - H_COUNT));
    if (offset >= H_NAME && offset < H_SIZE) {
        char name[H_SIZE - H_NAME] = "";
        strcpy(name, b->kind);
        strcat(name, names[b->test]);
        return (uint8_t)name[offset - H_NAME];
    }
    return 0;
}

static uint64_t bar_read(void *opaque, unsigned cpu, uint64_t offset, unsigned size)
{
    struct bar *b = opaque;
    uint64_t value = 0;

    pthread_mutex_lock(&b->owner->lock);
    for (unsigned i = 0; i < size; i++)
        value |= (uint64_t)header_byte(b, (unsigned)offset + i) << 8 * i;
    pthread_mutex_unlock(&b->owner->lock);
    return value;
}

static void bar_write(void *opaque, unsigned cpu, uint64_t offset, unsigned size, uint64_t value)
{
    struct bar *b = opaque;

    pthread_mutex_lock(&b->owner->lock);
    if (offset == H_TEST) {
        b->test = (uint8_t)value < TESTS ? (uint8_t)value : TESTS;
        b->count = 0;
    } else if (b->test < TESTS && offset == H_SIZE + b->test && size == WIDTH &&
               (b->test != 2 || value == DATA_MATCH)) {
        b->count++;
    }
    pthread_mutex_unlock(&b->owner->lock);
}

static const struct mull_region_ops memory_ops = {bar_read, bar_write, 1, 8};
static const struct mull_region_ops port_ops = {bar_read, bar_write, 1, 4};

/* ---- Life ---- */

static void reset(struct mull_device *device)
{
    struct pci_testdev *t = device->object;

    pthread_mutex_lock(&t->lock);
    for (unsigned i = 0; i < 2; i++) {
        t->bar[i].test = TESTS;
        t->bar[i].count = 0;
    }
    pthread_mutex_unlock(&t->lock);
    mull_pci_function_reset(&t->function);
}

static int bar_loaded(void *object, uint32_t version, struct mull_error *err)
{
    struct bar *b = object;

    if (b->test > TESTS)
        b->test = TESTS;
    return 0;
}

static const struct mull_field bar_fields[] = {
    MULL_FIELD(struct bar, test),
    MULL_FIELD(struct bar, count),
    MULL_FIELDS_END,
};
static const struct mull_state_desc bar_desc = {.name = "pci-testdev-bar",
                                                .version = 1,
                                                .oldest = 1,
                                                .fields = bar_fields,
                                                .after_load = bar_loaded};
static const struct mull_field fields[] = {
    MULL_FIELD_NESTED(struct pci_testdev, function, &mull_pci_function_desc),
    MULL_FIELD_NESTED_ARRAY(struct pci_testdev, bar, &bar_desc),
    MULL_FIELDS_END,
};
static const struct mull_state_desc desc = {
    .name = "pci-testdev", .version = 1, .oldest = 1, .fields = fields};

static void destroy(struct mull_device *device)
{
    struct pci_testdev *t = device->object;

    mull_pci_function_fini(&t->function);
    pthread_mutex_destroy(&t->lock);
    free(t);
}

static const struct mull_device_ops ops = {.state = &desc, .reset = reset, .destroy = destroy};

int mull_pci_testdev_create(const struct mull_device_env *env, struct mull_pci_bus *bus,
                            struct mull_device **out, struct mull_error *err)
{
    struct pci_testdev *t = calloc(1, sizeof(*t));
    int code;

    if (!t)
        return mull_fail(err, ENOMEM, "pci-testdev: no memory");
    t->device = (struct mull_device){.ops = &ops, .name = "pci-testdev", .object = t};
    pthread_mutex_init(&t->lock, NULL);
    t->bar[0] = (struct bar){.owner = t, .kind = "mmio-", .test = TESTS};
    t->bar[1] = (struct bar){.owner = t, .kind = "portio-", .test = TESTS};
    mull_pci_function_init(&t->function, NULL, VENDOR, DEVICE, 0x1af4, 0x1100, CLASS, 0);
    if ((code = mull_pci_add_bar(&t->function, 0, 4096, false, false, false, &memory_ops,
                                 &t->bar[0], "pci-testdev", env->memory, err)) < 0 ||
        (code = mull_pci_add_bar(&t->function, 1, 256, true, false, false, &port_ops, &t->bar[1],
                                 "pci-testdev", env->memory, err)) < 0 ||
        (code = mull_pci_bus_attach(bus, &t->function, -1, err)) < 0) {
        destroy(&t->device);
        return code;
    }
    *out = &t->device;
    return 0;
}
