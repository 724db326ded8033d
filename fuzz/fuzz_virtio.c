/* A guest that does anything to a virtio device. See fuzz_virtio.h. */
#include "fuzz_virtio.h"

#include <stdlib.h>
#include <string.h>

#define ECAM 0xe0000000ull
#define SLOT (1u << 15)
#define MMIO 0xc0000000ull
#define BAR_SIZE 0x4000u
#define MAX_STEPS 512

/* The common configuration structure (virtio 1.2, 4.1.4.3), at the start of the BAR. */
enum {
    DEVICE_FEATURE_SELECT = 0x00,
    DRIVER_FEATURE_SELECT = 0x08,
    DRIVER_FEATURE = 0x0c,
    STATUS = 0x14,
    QUEUE_SELECT = 0x16,
    QUEUE_SIZE = 0x18,
    QUEUE_VECTOR = 0x1a,
    QUEUE_ENABLE = 0x1c,
    QUEUE_DESC = 0x20,
    QUEUE_DRIVER = 0x28,
    QUEUE_DEVICE = 0x30,
    NOTIFY = 0x3000,
};

struct program {
    const uint8_t *data;
    size_t size;
};

static uint32_t take(struct program *p, unsigned bytes)
{
    uint32_t value = 0;
    for (unsigned i = 0; i < bytes && p->size; i++, p->data++, p->size--)
        value |= (uint32_t)*p->data << 8 * i;
    return value;
}

static void send_msi(void *opaque, uint64_t address, uint32_t data) {}

static void set_intx(void *opaque, unsigned line, bool level) {}

void fuzz_guest_init(struct fuzz_guest *g)
{
    static const struct mull_log silent = {.level = MULL_LOG_ERROR};
    memset(g, 0, sizeof(*g));
    if (mull_memory_create(NULL, &g->memory, NULL) ||
        mull_memory_add_ram(g->memory, 0, FUZZ_RAM, false, NULL) ||
        mull_loop_create(&g->loop, NULL))
        abort();
    struct mull_pci_config config = {.memory = g->memory,
                                     .ecam_base = ECAM,
                                     .mmio_base = MMIO,
                                     .mmio_size = 0x20000000,
                                     .mmio64_base = 0x800000000ull,
                                     .mmio64_size = 0x100000000ull,
                                     .io_base = 0xc000,
                                     .io_size = 0x1000,
                                     .msi = {send_msi, g}};
    for (unsigned i = 0; i < 4; i++)
        config.intx[i] = (struct mull_irq){set_intx, g, i};
    if (mull_pci_bus_create(&config, &g->bus, NULL))
        abort();
    g->env = (struct mull_device_env){.memory = g->memory, .loop = g->loop, .log = &silent};
}

void fuzz_guest_fini(struct fuzz_guest *g)
{
    if (g->device)
        g->device->ops->destroy(g->device);
    mull_pci_bus_destroy(g->bus);
    mull_loop_destroy(g->loop);
    mull_memory_destroy(g->memory);
}

static void stop_loop(void *loop)
{
    mull_loop_stop(loop);
}

void fuzz_guest_turn(struct fuzz_guest *g)
{
    if (!mull_loop_post(g->loop, stop_loop, g->loop))
        mull_loop_run(g->loop);
}

static uint64_t bar_address(struct fuzz_guest *g)
{
    uint32_t low = (uint32_t)mull_space_read(g->memory, MULL_SPACE_MMIO, 0, ECAM + SLOT + 0x10, 4);
    uint32_t high = (uint32_t)mull_space_read(g->memory, MULL_SPACE_MMIO, 0, ECAM + SLOT + 0x14, 4);
    return (low & ~15u) | (uint64_t)high << 32;
}

static void bar_write(struct fuzz_guest *g, unsigned offset, unsigned size, uint64_t value)
{
    mull_space_write(g->memory, MULL_SPACE_MMIO, 0, bar_address(g) + offset, size, value);
}

static uint64_t bar_read(struct fuzz_guest *g, unsigned offset, unsigned size)
{
    return mull_space_read(g->memory, MULL_SPACE_MMIO, 0, bar_address(g) + offset, size);
}

/* What a sane driver does first, so that programs get deep soon. */
static void set_up(struct fuzz_guest *g, uint32_t features, unsigned log_size)
{
    bar_write(g, STATUS, 1, 3);
    bar_write(g, DRIVER_FEATURE_SELECT, 4, 0);
    bar_write(g, DRIVER_FEATURE, 4, features & (uint32_t)bar_read(g, 4, 4));
    bar_write(g, DRIVER_FEATURE_SELECT, 4, 1);
    bar_write(g, DEVICE_FEATURE_SELECT, 4, 1);
    /* Of the device's own features behind the first 32: all, or none. */
    uint32_t more = features & 0x40000000 ? (uint32_t)bar_read(g, 4, 4) & 0xfffc0000 : 0;
    bar_write(g, DEVICE_FEATURE_SELECT, 4, 0);
    bar_write(g, DRIVER_FEATURE, 4,
              more | (features & 0x80000000 ? 0x101 : 1) | (g->env.packed_rings ? 4 : 0));
    bar_write(g, STATUS, 1, 0xb);
    g->size = (uint16_t)(1u << log_size % 7);
    for (unsigned i = 0; i < g->queues; i++) {
        g->place[i % 16] = 0;
        g->wrap[i % 16] = true;
        bar_write(g, QUEUE_SELECT, 2, i);
        bar_write(g, QUEUE_SIZE, 2, 1u << log_size % 7);
        bar_write(g, QUEUE_VECTOR, 2, i + 1);
        bar_write(g, QUEUE_DESC, 4, 0x1000 * i);
        bar_write(g, QUEUE_DRIVER, 4, 0x1000 * i + 0x400);
        bar_write(g, QUEUE_DEVICE, 4, 0x1000 * i + 0x800);
        bar_write(g, QUEUE_ENABLE, 2, 1);
    }
    bar_write(g, STATUS, 1, 0xf);
    fuzz_guest_turn(g);
}

/* The same in a packed ring: the first descriptor's flags come last. */
static void offer_packed(struct fuzz_guest *g, struct program *p, unsigned queue)
{
    uint64_t first = 0x1000 * queue + 16u * g->place[queue % 16];
    uint16_t first_flags = 0;
    unsigned count = take(p, 1) % 4 + 1;

    for (unsigned i = 0; i < count; i++) {
        uint32_t bits = take(p, 4);
        bool wrap = g->wrap[queue % 16];
        uint16_t flags =
            (uint16_t)((bits >> 16 & 6) | (i + 1 < count ? 1 : 0) | (wrap ? 0x80 : 0x8000));
        const uint64_t desc[2] = {0x8000 + (bits & 0xffff), take(p, 2) |
                                                                (uint64_t)(bits >> 24) << 32 |
                                                                (uint64_t)(i ? flags : 0) << 48};
        if (!i)
            first_flags = flags;
        mull_mem_write(g->memory, 0x1000 * queue + 16u * g->place[queue % 16], desc, sizeof(desc));
        if (++g->place[queue % 16] == g->size) {
            g->place[queue % 16] = 0;
            g->wrap[queue % 16] = !wrap;
        }
    }
    mull_mem_write16(g->memory, first + 14, first_flags);
    bar_write(g, NOTIFY + 4 * queue, 2, queue);
}

/* One chain of up to four descriptors in the set-up's queue @queue, offered at once. */
static void offer_chain(struct fuzz_guest *g, struct program *p, unsigned queue)
{
    uint64_t base = 0x1000 * queue;
    unsigned count = take(p, 1) % 4 + 1;
    uint16_t idx = 0;

    for (unsigned i = 0; i < count; i++) {
        uint32_t bits = take(p, 4);
        uint32_t gpa = 0x8000 + (bits & 0xffff), len = take(p, 2);
        uint16_t flags = (uint16_t)((bits >> 16 & 2) | (i + 1 < count ? 1 : 0));
        const uint64_t desc[2] = {gpa, len | (uint64_t)flags << 32 | (uint64_t)(i + 1) << 48};
        mull_mem_write(g->memory, base + 16 * i, desc, sizeof(desc));
    }
    mull_mem_read16(g->memory, base + 0x402, &idx);
    for (unsigned i = 0; i < 64; i++) /* whatever the size is: all entries name the chain */
        mull_mem_write16(g->memory, base + 0x404 + 2 * i, 0);
    mull_mem_write16(g->memory, base + 0x402, (uint16_t)(idx + 1));
    bar_write(g, NOTIFY + 4 * queue, 2, queue);
}

static void write_memory(struct fuzz_guest *g, struct program *p)
{
    uint8_t bytes[64];
    uint32_t gpa = take(p, 2), len = take(p, 1) % sizeof(bytes) + 1;
    for (uint32_t i = 0; i < len; i++)
        bytes[i] = (uint8_t)take(p, 1);
    mull_mem_write(g->memory, gpa, bytes, len);
}

static void step(struct fuzz_guest *g, struct program *p)
{
    uint32_t op = take(p, 1), at;

    switch (op % 12) {
    case 0:
        write_memory(g, p);
        break;
    case 1:
        at = take(p, 2) % BAR_SIZE;
        bar_write(g, at, 1u << (op >> 4) % 4, take(p, 4));
        break;
    case 2:
        bar_read(g, take(p, 2) % BAR_SIZE, 1u << (op >> 4) % 4);
        break;
    case 3:
        at = take(p, 2) % 4096;
        mull_space_write(g->memory, MULL_SPACE_MMIO, 0, ECAM + SLOT + at, 1u << (op >> 4) % 3,
                         take(p, 4));
        break;
    case 4:
        mull_space_read(g->memory, MULL_SPACE_MMIO, 0, ECAM + SLOT + take(p, 2) % 4096,
                        1u << (op >> 4) % 3);
        break;
    case 5:
        bar_write(g, NOTIFY + 4 * (op >> 4), 2, op >> 4);
        break;
    case 6:
        fuzz_guest_turn(g);
        break;
    case 7:
        if (g->event)
            g->event(g, take(p, 4));
        break;
    case 8:
        bar_write(g, STATUS, 1, 0);
        fuzz_guest_turn(g);
        at = take(p, 4);
        set_up(g, at, op >> 4);
        break;
    case 9:
        if (op & 0x80 && g->device->ops->quiesce && g->device->ops->resume) {
            g->device->ops->quiesce(g->device);
            fuzz_guest_turn(g);
            g->device->ops->resume(g->device);
        } else if (op & 0x40) {
            g->device->ops->reset(g->device);
        }
        break;
    default:
        if (g->env.packed_rings)
            offer_packed(g, p, (op >> 4) % g->queues);
        else
            offer_chain(g, p, (op >> 4) % g->queues);
        if (op & 0x80)
            fuzz_guest_turn(g);
        break;
    }
}

void fuzz_guest_run(struct fuzz_guest *g, const uint8_t *data, size_t size)
{
    struct program p = {data, size};

    if (mull_pci_bus_assign(g->bus, NULL))
        abort();
    mull_space_write(g->memory, MULL_SPACE_MMIO, 0, ECAM + SLOT + 4, 2, 6);
    uint32_t features = take(&p, 4);
    set_up(g, features, take(&p, 1));
    for (unsigned i = 0; i < MAX_STEPS && p.size; i++)
        step(g, &p);

    /* Whatever happened: when the machine is reset, the device is as new. */
    fuzz_guest_turn(g);
    if (g->settle)
        g->settle(g);
    g->device->ops->reset(g->device);
    if (mull_pci_bus_assign(g->bus, NULL) || bar_read(g, STATUS, 1) != 0)
        abort();
    bar_write(g, QUEUE_SELECT, 2, 0);
    if (bar_read(g, QUEUE_ENABLE, 2) || bar_read(g, QUEUE_DESC, 4))
        abort();
}
