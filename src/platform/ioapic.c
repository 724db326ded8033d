/*
 * The I/O APIC (Intel 82093AA data sheet 290566; the EOI register as in the ICH). A pin becomes a
 * message in the format of PCI's message-signalled interrupts, so that one way leads to the local
 * APICs of any engine. Knows nothing of CPUs.
 */
#include "platform/ioapic.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define ENTRY_MODE 0x700ull
#define ENTRY_LOGICAL 0x800ull
#define ENTRY_REMOTE_IRR 0x4000ull /* read only */
#define ENTRY_LEVEL 0x8000ull
#define ENTRY_MASKED 0x10000ull
#define ENTRY_WRITABLE 0xff0000000001afffull

#define VERSION (0x20u | (MULL_IOAPIC_PINS - 1) << 16)

struct mull_ioapic {
    struct mull_device device;
    struct mull_ioapic_config config;
    pthread_mutex_t lock;
    uint32_t lines; /* pins as they are */
    uint32_t id;
    uint8_t select;
    uint64_t entry[MULL_IOAPIC_PINS];
    uint64_t level_vectors[4]; /* as last told */
    struct mull_region *region;
};

static void deliver(struct mull_ioapic *io, unsigned pin)
{
    uint64_t e = io->entry[pin];
    uint64_t address = 0xfee00000u | (e >> 56) << 12 | (e & ENTRY_LOGICAL ? 4 : 0);
    uint32_t data = (uint32_t)(e & (0xff | ENTRY_MODE));

    if (e & ENTRY_LEVEL) {
        data |= 0xc000; /* level, asserted */
        io->entry[pin] |= ENTRY_REMOTE_IRR;
    }
    io->config.msi.send(io->config.msi.opaque, address, data);
}

/* A level-triggered pin that asks and waits for no EOI. */
static void service_level(struct mull_ioapic *io, unsigned pin)
{
    uint64_t e = io->entry[pin];

    if ((e & ENTRY_LEVEL) && !(e & (ENTRY_MASKED | ENTRY_REMOTE_IRR)) && (io->lines >> pin & 1))
        deliver(io, pin);
}

void mull_ioapic_set(struct mull_ioapic *io, unsigned pin, bool level)
{
    if (pin >= MULL_IOAPIC_PINS)
        return;
    pthread_mutex_lock(&io->lock);
    bool was = io->lines >> pin & 1;
    io->lines = (io->lines & ~(1u << pin)) | (uint32_t)level << pin;
    if (io->entry[pin] & ENTRY_LEVEL)
        service_level(io, pin);
    else if (level && !was && !(io->entry[pin] & ENTRY_MASKED)) /* masked edges are lost: 3.2.4 */
        deliver(io, pin);
    pthread_mutex_unlock(&io->lock);
}

static void end(struct mull_ioapic *io, uint8_t vector)
{
    for (unsigned pin = 0; pin < MULL_IOAPIC_PINS; pin++) {
        uint64_t e = io->entry[pin];
        if ((e & 0xff) != vector || !(e & ENTRY_REMOTE_IRR))
            continue;
        io->entry[pin] &= ~ENTRY_REMOTE_IRR;
        service_level(io, pin);
    }
}

void mull_ioapic_eoi(struct mull_ioapic *io, uint8_t vector)
{
    pthread_mutex_lock(&io->lock);
    end(io, vector);
    pthread_mutex_unlock(&io->lock);
}

/* Masked entries are in the set too, so that masking and unmasking does not change it. */
static void tell_level_vectors(struct mull_ioapic *io)
{
    uint64_t vectors[4] = {0};

    if (!io->config.level_vectors)
        return;
    for (unsigned pin = 0; pin < MULL_IOAPIC_PINS; pin++)
        if (io->entry[pin] & ENTRY_LEVEL)
            vectors[(io->entry[pin] & 0xff) / 64] |= 1ull << (io->entry[pin] & 63);
    if (memcmp(vectors, io->level_vectors, sizeof(vectors)) == 0)
        return;
    memcpy(io->level_vectors, vectors, sizeof(vectors));
    io->config.level_vectors(io->config.opaque, vectors);
}

static void write_entry(struct mull_ioapic *io, unsigned pin, unsigned shift, uint32_t value)
{
    uint64_t mask = ENTRY_WRITABLE & (0xffffffffull << shift);
    uint64_t e = (io->entry[pin] & ~mask) | ((uint64_t)value << shift & mask);

    if (!(e & ENTRY_LEVEL))
        e &= ~ENTRY_REMOTE_IRR; /* means nothing for edges; also how guests force an EOI */
    io->entry[pin] = e;
    tell_level_vectors(io);
    service_level(io, pin);
}

static uint32_t read_indirect(const struct mull_ioapic *io)
{
    unsigned index = io->select;

    switch (index) {
    case 0:
    case 2: /* arbitration ID */
        return io->id;
    case 1:
        return VERSION;
    default:
        if (index < 0x10 || index >= 0x10 + 2 * MULL_IOAPIC_PINS)
            return 0;
        return (uint32_t)(io->entry[(index - 0x10) / 2] >> (index & 1) * 32);
    }
}

static void write_indirect(struct mull_ioapic *io, uint32_t value)
{
    unsigned index = io->select;

    if (index == 0)
        io->id = value & 0x0f000000;
    else if (index >= 0x10 && index < 0x10 + 2 * MULL_IOAPIC_PINS)
        write_entry(io, (index - 0x10) / 2, (index & 1) * 32, value);
}

static uint64_t mmio_read(void *opaque, unsigned cpu, uint64_t offset, unsigned size)
{
    struct mull_ioapic *io = opaque;
    uint32_t value = 0;

    pthread_mutex_lock(&io->lock);
    if (offset == 0)
        value = io->select;
    else if (offset == 0x10)
        value = read_indirect(io);
    pthread_mutex_unlock(&io->lock);
    return value;
}

static void mmio_write(void *opaque, unsigned cpu, uint64_t offset, unsigned size, uint64_t value)
{
    struct mull_ioapic *io = opaque;

    pthread_mutex_lock(&io->lock);
    if (offset == 0)
        io->select = (uint8_t)value;
    else if (offset == 0x10)
        write_indirect(io, (uint32_t)value);
    else if (offset == 0x40)
        end(io, (uint8_t)value);
    pthread_mutex_unlock(&io->lock);
}

static const struct mull_region_ops mmio_ops = {mmio_read, mmio_write, 4, 4};

static void reset(struct mull_device *device)
{
    struct mull_ioapic *io = device->object;

    pthread_mutex_lock(&io->lock);
    io->id = 0;
    io->select = 0;
    for (unsigned pin = 0; pin < MULL_IOAPIC_PINS; pin++)
        io->entry[pin] = ENTRY_MASKED;
    tell_level_vectors(io);
    pthread_mutex_unlock(&io->lock);
}

static int after_load(void *object, uint32_t version, struct mull_error *err)
{
    struct mull_ioapic *io = object;

    pthread_mutex_lock(&io->lock);
    for (unsigned pin = 0; pin < MULL_IOAPIC_PINS; pin++) {
        io->entry[pin] &= ENTRY_WRITABLE | ENTRY_REMOTE_IRR;
        if (!(io->entry[pin] & ENTRY_LEVEL))
            io->entry[pin] &= ~ENTRY_REMOTE_IRR;
    }
    io->id &= 0x0f000000;
    io->lines &= (1u << MULL_IOAPIC_PINS) - 1;
    tell_level_vectors(io);
    pthread_mutex_unlock(&io->lock);
    return 0;
}

static const struct mull_field fields[] = {
    MULL_FIELD(struct mull_ioapic, lines),
    MULL_FIELD(struct mull_ioapic, id),
    MULL_FIELD(struct mull_ioapic, select),
    MULL_FIELD_ARRAY(struct mull_ioapic, entry),
    MULL_FIELDS_END,
};
static const struct mull_state_desc desc = {
    .name = "ioapic", .version = 1, .oldest = 1, .fields = fields, .after_load = after_load};

static void destroy(struct mull_device *device)
{
    struct mull_ioapic *io = device->object;

    mull_region_remove(io->region);
    pthread_mutex_destroy(&io->lock);
    free(io);
}

static const struct mull_device_ops ops = {.state = &desc, .reset = reset, .destroy = destroy};

struct mull_device *mull_ioapic_device(struct mull_ioapic *io)
{
    return &io->device;
}

int mull_ioapic_create(const struct mull_ioapic_config *config, struct mull_ioapic **out,
                       struct mull_error *err)
{
    struct mull_ioapic *io = calloc(1, sizeof(*io));

    *out = NULL;
    if (!io)
        return mull_fail(err, ENOMEM, "I/O APIC: no memory");
    io->config = *config;
    io->device = (struct mull_device){.ops = &ops, .name = "ioapic", .object = io};
    pthread_mutex_init(&io->lock, NULL);
    reset(&io->device);
    int code = mull_region_add(config->memory, MULL_SPACE_MMIO, config->base, 4096, &mmio_ops, io,
                               "I/O APIC", &io->region, err);
    if (code < 0) {
        destroy(&io->device);
        return code;
    }
    *out = io;
    return 0;
}
