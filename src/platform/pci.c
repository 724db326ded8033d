/*
 * PCI functions: configuration space, BARs, capabilities, INTx, MSI and MSI-X (PCI Local Bus 3.0,
 * chapter 6). Knows the bus only for its windows, lines and message sink.
 */
#include "platform/pci.h"

#include <errno.h>
#include <string.h>

#include "platform/pci_internal.h"

#define CAP_MSI 0x05u
#define CAP_MSIX 0x11u
#define MSIX_CONTROL 2u /* offsets in the capability */
#define MSIX_TABLE 4u
#define MSIX_PBA 8u
#define MSIX_ENABLE 0x8000u
#define MSIX_FUNCTION_MASK 0x4000u
#define MSIX_ENTRY_MASKED 1u
#define MSI_CONTROL 2u
#define MSI_ENABLE 1u
#define MSI_64 0x80u

/* The MSI-X BAR: table at 0, pending bits in the second half of the page. */
#define MSIX_BAR_SIZE 4096u
#define MSIX_PBA_OFFSET 2048u

static uint16_t command(const struct mull_pci_function *f)
{
    return pci_get16(f->config + PCI_COMMAND);
}

/* ---- BARs ---- */

static uint64_t bar_address(const struct mull_pci_function *f, unsigned index)
{
    const struct mull_pci_bar *bar = &f->bar[index];
    const uint8_t *p = f->config + PCI_BAR + 4 * index;

    if (bar->io)
        return pci_get32(p) & ~3u;
    return (pci_get32(p) & ~15u) | (bar->is64 ? (uint64_t)pci_get32(p + 4) << 32 : 0);
}

static bool inside(uint64_t address, uint64_t size, uint64_t base, uint64_t length)
{
    return address >= base && size <= length && address - base <= length - size;
}

/* The host bridge passes on only what lies in its windows, so a BAR elsewhere (also while the guest
 * finds out its size) does not cover anything. */
static bool reachable(const struct mull_pci_function *f, const struct mull_pci_bar *bar,
                      uint64_t address)
{
    const struct mull_pci_config *c = &f->bus->config;

    if (bar->io)
        return inside(address, bar->size, 0x1000, 0xf000);
    return inside(address, bar->size, c->mmio_base, c->mmio_size) ||
           inside(address, bar->size, c->mmio64_base, c->mmio64_size);
}

static void map_bars(struct mull_pci_function *f)
{
    for (unsigned i = 0; i < MULL_PCI_BARS; i++) {
        const struct mull_pci_bar *bar = &f->bar[i];
        if (!bar->size)
            continue;
        uint64_t address = bar_address(f, i);
        bool decoding = command(f) & (bar->io ? COMMAND_IO : COMMAND_MEMORY);
        bool visible = f->attached && decoding && reachable(f, bar, address);
        mull_region_move(bar->region, visible ? address : 0, visible);
    }
    if (f->rom.size) {
        uint32_t address = pci_get32(f->config + PCI_ROM);
        bool visible = f->attached && (command(f) & COMMAND_MEMORY) && (address & 1) &&
                       reachable(f, &f->rom, address & ~0x7ffu);
        mull_region_move(f->rom.region, visible ? address & ~0x7ffu : 0, visible);
    }
}

static void put_bar(struct mull_pci_function *f, unsigned index, uint64_t address)
{
    uint8_t *p = f->config + PCI_BAR + 4 * index;

    pci_put32(p, (uint32_t)address | (pci_get32(p) & (f->bar[index].io ? 3u : 15u)));
    if (f->bar[index].is64)
        pci_put32(p + 4, (uint32_t)(address >> 32));
}

void pci_function_place(struct mull_pci_function *f, unsigned index, uint64_t address)
{
    pthread_mutex_lock(&f->lock);
    put_bar(f, index, address);
    map_bars(f);
    pthread_mutex_unlock(&f->lock);
}

void pci_function_enable(struct mull_pci_function *f)
{
    uint16_t bits = 0;

    for (unsigned i = 0; i < MULL_PCI_BARS; i++)
        if (f->bar[i].size)
            bits |= f->bar[i].io ? COMMAND_IO : COMMAND_MEMORY;
    pthread_mutex_lock(&f->lock);
    pci_put16(f->config + PCI_COMMAND, command(f) | bits);
    map_bars(f);
    pthread_mutex_unlock(&f->lock);
}

static uint64_t power_of_two(uint64_t size)
{
    uint64_t p = 1;

    while (p < size)
        p <<= 1;
    return p;
}

int mull_pci_add_bar(struct mull_pci_function *f, unsigned index, uint64_t size, bool io, bool is64,
                     bool prefetch, const struct mull_region_ops *ops, void *opaque,
                     const char *name, struct mull_memory *mem, struct mull_error *err)
{
    if (index >= MULL_PCI_BARS || (is64 && (io || index + 1 >= MULL_PCI_BARS)) || !size ||
        size > (io     ? 256
                : is64 ? 1ull << 40
                       : 1ull << 31))
        return mull_fail(err, EINVAL, "%s: BAR %u of %llu bytes is not possible", name, index,
                         (unsigned long long)size);
    if (f->bar[index].size || (is64 && f->bar[index + 1].size) || (index && f->bar[index - 1].is64))
        return mull_fail(err, EEXIST, "%s: BAR %u is taken", name, index);

    uint64_t least = io ? 4 : 4096;
    struct mull_pci_bar bar = {.size = power_of_two(size < least ? least : size),
                               .io = io,
                               .is64 = is64,
                               .prefetch = prefetch};
    int code = mull_region_add(mem, io ? MULL_SPACE_PORT : MULL_SPACE_MMIO, 0, bar.size, ops,
                               opaque, name, &bar.region, err);
    if (code < 0)
        return code;
    mull_region_move(bar.region, 0, false);
    f->bar[index] = bar;

    uint64_t mask = ~(bar.size - 1);
    uint8_t *config = f->config + PCI_BAR + 4 * index, *wmask = f->wmask + PCI_BAR + 4 * index;
    pci_put32(config, io ? 1 : (is64 ? 4u : 0) | (prefetch ? 8u : 0));
    /* I/O, too: firmware takes upper bits that read as 0 for a huge BAR. */
    pci_put32(wmask, (uint32_t)mask);
    if (is64)
        pci_put32(wmask + 4, (uint32_t)(mask >> 32));
    return 0;
}

static uint64_t rom_read(void *opaque, unsigned cpu, uint64_t offset, unsigned size)
{
    const struct mull_pci_function *f = opaque;
    uint64_t value = 0;

    if (offset >= f->rom_size || size > f->rom_size - offset)
        return ~0ull;
    memcpy(&value, f->rom_data + offset, size);
    return value;
}

static void rom_write(void *opaque, unsigned cpu, uint64_t offset, unsigned size, uint64_t value) {}

static const struct mull_region_ops rom_ops = {rom_read, rom_write, 1, 8};

int mull_pci_add_rom(struct mull_pci_function *f, const void *data, uint64_t size,
                     struct mull_memory *mem, struct mull_error *err)
{
    if (!size || size > 16 << 20 || f->rom.size)
        return mull_fail(err, EINVAL, "PCI ROM of %llu bytes: not possible; 1 to 16 MiB, once",
                         (unsigned long long)size);
    f->rom_data = data;
    f->rom_size = size;
    f->rom = (struct mull_pci_bar){.size = power_of_two(size < 4096 ? 4096 : size)};
    int code = mull_region_add(mem, MULL_SPACE_MMIO, 0, f->rom.size, &rom_ops, f, "PCI ROM",
                               &f->rom.region, err);
    if (code < 0) {
        f->rom = (struct mull_pci_bar){0};
        return code;
    }
    mull_region_move(f->rom.region, 0, false);
    pci_put32(f->wmask + PCI_ROM, (uint32_t)~(f->rom.size - 1) | 1);
    return 0;
}

/* ---- Capabilities ---- */

unsigned mull_pci_add_capability(struct mull_pci_function *f, uint8_t id, unsigned size)
{
    unsigned at = f->next_capability;

    if (size < 2 || at + size > 256)
        return 0;
    f->config[at] = id;
    f->config[at + 1] = 0;
    f->config[f->last_capability ? f->last_capability + 1u : PCI_CAPABILITIES] = (uint8_t)at;
    f->last_capability = (uint8_t)at;
    f->config[PCI_STATUS] |= STATUS_CAPABILITIES;
    unsigned next = (at + size + 3) & ~3u;
    f->next_capability = next < 256 ? (uint8_t)next : 255;
    return at;
}

/* ---- INTx ---- */

static bool messages_enabled(const struct mull_pci_function *f)
{
    return mull_pci_msix_enabled(f) || mull_pci_msi_enabled(f);
}

/* Bring status and line in agreement with what the device wants. The lock is held. */
static void update_intx(struct mull_pci_function *f)
{
    bool messages = messages_enabled(f);

    if (f->intx_level && !messages)
        f->config[PCI_STATUS] |= STATUS_INTERRUPT;
    else
        f->config[PCI_STATUS] &= (uint8_t)~STATUS_INTERRUPT;
    if (f->attached && f->intx_pin)
        pci_bus_intx(f->bus, f, f->intx_level && !messages && !(command(f) & COMMAND_INTX_OFF));
}

void mull_pci_intx(struct mull_pci_function *f, bool level)
{
    pthread_mutex_lock(&f->lock);
    f->intx_level = level;
    update_intx(f);
    pthread_mutex_unlock(&f->lock);
}

/* ---- Messages ---- */

/* A message is a write by the function, so it needs to be a bus master. The lock is held. */
static void send_message(struct mull_pci_function *f, uint64_t address, uint32_t data)
{
    const struct mull_msi_sink *sink = &f->bus->config.msi;

    if ((command(f) & COMMAND_MASTER) && sink->send)
        sink->send(sink->opaque, address, data);
}

static uint16_t msix_control(const struct mull_pci_function *f)
{
    return f->msix_capability ? pci_get16(f->config + f->msix_capability + MSIX_CONTROL) : 0;
}

bool mull_pci_msix_enabled(const struct mull_pci_function *f)
{
    return msix_control(f) & MSIX_ENABLE;
}

static bool msix_masked(const struct mull_pci_function *f, unsigned vector)
{
    return (msix_control(f) & MSIX_FUNCTION_MASK) || (f->msix[vector].control & MSIX_ENTRY_MASKED);
}

/* Send what waited and may go now. The lock is held. */
static void msix_flush(struct mull_pci_function *f)
{
    uint64_t waiting = f->msix_pending;

    if (!f->attached || !mull_pci_msix_enabled(f))
        return;
    for (; waiting; waiting &= waiting - 1) {
        unsigned vector = (unsigned)__builtin_ctzll(waiting);
        if (vector >= f->msix_count || msix_masked(f, vector))
            continue;
        f->msix_pending &= ~(1ull << vector);
        send_message(f, f->msix[vector].address, f->msix[vector].data);
    }
}

void mull_pci_msix_send(struct mull_pci_function *f, unsigned vector)
{
    pthread_mutex_lock(&f->lock);
    if (vector < f->msix_count && f->attached && mull_pci_msix_enabled(f)) {
        if (msix_masked(f, vector))
            f->msix_pending |= 1ull << vector;
        else
            send_message(f, f->msix[vector].address, f->msix[vector].data);
    }
    pthread_mutex_unlock(&f->lock);
}

static uint64_t msix_read(void *opaque, unsigned cpu, uint64_t offset, unsigned size)
{
    struct mull_pci_function *f = opaque;
    unsigned vector = (unsigned)offset / 16;
    uint64_t value = 0;

    pthread_mutex_lock(&f->lock);
    if (vector < f->msix_count) {
        const struct mull_msix_entry *e = &f->msix[vector];
        value = offset & 8 ? (uint64_t)e->control << 32 | e->data : e->address;
    } else if (offset >= MSIX_PBA_OFFSET && offset < MSIX_PBA_OFFSET + 8) {
        value = f->msix_pending;
    }
    pthread_mutex_unlock(&f->lock);
    return offset & 4 ? value >> 32 : value;
}

static void msix_write_word(struct mull_msix_entry *e, unsigned offset, uint32_t value)
{
    switch (offset) {
    case 0:
        e->address = (e->address & ~0xffffffffull) | (value & ~3u);
        break;
    case 4:
        e->address = (uint32_t)e->address | (uint64_t)value << 32;
        break;
    case 8:
        e->data = value;
        break;
    default:
        e->control = value & MSIX_ENTRY_MASKED;
    }
}

static void msix_write(void *opaque, unsigned cpu, uint64_t offset, unsigned size, uint64_t value)
{
    struct mull_pci_function *f = opaque;
    unsigned vector = (unsigned)offset / 16;

    pthread_mutex_lock(&f->lock);
    if (vector < f->msix_count) {
        for (unsigned i = 0; i < size; i += 4)
            msix_write_word(&f->msix[vector], (offset & 15) + i, (uint32_t)(value >> i * 8));
        if (f->msix_pending >> vector & 1)
            msix_flush(f);
    }
    pthread_mutex_unlock(&f->lock);
}

static const struct mull_region_ops msix_ops = {msix_read, msix_write, 4, 8};

int mull_pci_add_msix(struct mull_pci_function *f, unsigned bar, unsigned count,
                      struct mull_memory *mem, struct mull_error *err)
{
    if (count < 1 || count > MULL_PCI_MSIX_MAX || f->msix_capability)
        return mull_fail(err, EINVAL, "MSI-X: %u vectors; 1 to %u are possible, once a function",
                         count, MULL_PCI_MSIX_MAX);
    unsigned cap = mull_pci_add_capability(f, CAP_MSIX, 12);
    if (!cap)
        return mull_fail(err, ENOSPC, "MSI-X: no room for the capability");
    int code = mull_pci_add_bar(f, bar, MSIX_BAR_SIZE, false, false, false, &msix_ops, f, "MSI-X",
                                mem, err);
    if (code < 0)
        return code;
    pci_put16(f->config + cap + MSIX_CONTROL, (uint16_t)(count - 1));
    pci_put16(f->wmask + cap + MSIX_CONTROL, MSIX_ENABLE | MSIX_FUNCTION_MASK);
    pci_put32(f->config + cap + MSIX_TABLE, bar);
    pci_put32(f->config + cap + MSIX_PBA, MSIX_PBA_OFFSET | bar);
    f->msix_capability = (uint8_t)cap;
    f->msix_count = (uint16_t)count;
    f->msix_region = f->bar[bar].region;
    for (unsigned i = 0; i < count; i++)
        f->msix[i].control = MSIX_ENTRY_MASKED;
    return 0;
}

int mull_pci_add_msi(struct mull_pci_function *f, struct mull_error *err)
{
    unsigned cap = f->msi_capability ? 0 : mull_pci_add_capability(f, CAP_MSI, 14);

    if (!cap)
        return mull_fail(err, ENOSPC, "MSI: no room for the capability, or it is there already");
    pci_put16(f->config + cap + MSI_CONTROL, MSI_64);
    pci_put16(f->wmask + cap + MSI_CONTROL, MSI_ENABLE);
    pci_put32(f->wmask + cap + 4, ~3u);     /* address */
    pci_put32(f->wmask + cap + 8, ~0u);     /* its high half */
    pci_put16(f->wmask + cap + 12, 0xffff); /* data */
    f->msi_capability = (uint8_t)cap;
    return 0;
}

bool mull_pci_msi_enabled(const struct mull_pci_function *f)
{
    return f->msi_capability && (f->config[f->msi_capability + MSI_CONTROL] & MSI_ENABLE);
}

void mull_pci_msi_send(struct mull_pci_function *f)
{
    pthread_mutex_lock(&f->lock);
    if (f->attached && mull_pci_msi_enabled(f)) {
        const uint8_t *cap = f->config + f->msi_capability;
        send_message(f, pci_get32(cap + 4) | (uint64_t)pci_get32(cap + 8) << 32,
                     pci_get16(cap + 12));
    }
    pthread_mutex_unlock(&f->lock);
}

/* ---- Configuration space ---- */

uint32_t pci_function_read(struct mull_pci_function *f, unsigned offset, unsigned size)
{
    uint32_t value = 0;

    if (f->ops && f->ops->config_read)
        f->ops->config_read(f, offset, size);
    pthread_mutex_lock(&f->lock);
    memcpy(&value, f->config + offset, size);
    pthread_mutex_unlock(&f->lock);
    return value;
}

static bool touches(unsigned offset, unsigned size, unsigned first, unsigned length)
{
    return offset < first + length && first < offset + size;
}

void pci_function_write(struct mull_pci_function *f, unsigned offset, unsigned size, uint32_t value)
{
    pthread_mutex_lock(&f->lock);
    for (unsigned i = 0; i < size; i++) {
        uint8_t *byte = &f->config[offset + i], mask = f->wmask[offset + i];
        uint8_t written = (uint8_t)(value >> i * 8);
        *byte = (uint8_t)((*byte & ~mask) | (written & mask));
        *byte &= (uint8_t) ~(written & f->w1c[offset + i]);
    }
    if (touches(offset, size, PCI_COMMAND, 2) || touches(offset, size, PCI_ROM, 4) ||
        touches(offset, size, PCI_BAR, 4 * MULL_PCI_BARS))
        map_bars(f);
    if (touches(offset, size, PCI_COMMAND, 2) ||
        (f->msi_capability && touches(offset, size, f->msi_capability, 14)) ||
        (f->msix_capability && touches(offset, size, f->msix_capability, 12)))
        update_intx(f);
    if (f->msix_capability)
        msix_flush(f);
    pthread_mutex_unlock(&f->lock);
    if (f->ops && f->ops->config_written)
        f->ops->config_written(f, offset, size);
}

/* ---- Life ---- */

void mull_pci_function_init(struct mull_pci_function *f, const struct mull_pci_ops *ops,
                            uint16_t vendor, uint16_t device, uint16_t subsystem_vendor,
                            uint16_t subsystem, uint32_t class_code, uint8_t revision)
{
    f->ops = ops;
    pthread_mutex_init(&f->lock, NULL);
    pci_put16(f->config + PCI_VENDOR, vendor);
    pci_put16(f->config + PCI_DEVICE, device);
    pci_put16(f->wmask + PCI_COMMAND, COMMAND_IO | COMMAND_MEMORY | COMMAND_MASTER |
                                          COMMAND_PARITY | COMMAND_SERR | COMMAND_INTX_OFF);
    pci_put16(f->w1c + PCI_STATUS, STATUS_W1C);
    f->config[PCI_REVISION] = revision;
    f->config[PCI_CLASS] = (uint8_t)class_code;
    pci_put16(f->config + PCI_CLASS + 1, (uint16_t)(class_code >> 8));
    f->wmask[PCI_CACHE_LINE] = 0xff;
    pci_put16(f->config + PCI_SUBSYSTEM_VENDOR, subsystem_vendor);
    pci_put16(f->config + PCI_SUBSYSTEM, subsystem);
    f->wmask[PCI_INTERRUPT_LINE] = 0xff;
    f->next_capability = PCI_HEADER_SIZE;
}

static void mask_entries(struct mull_pci_function *f)
{
    for (unsigned i = 0; i < f->msix_count; i++)
        f->msix[i] = (struct mull_msix_entry){.control = MSIX_ENTRY_MASKED};
    f->msix_pending = 0;
}

void mull_pci_function_reset(struct mull_pci_function *f)
{
    pthread_mutex_lock(&f->lock);
    if (f->attached)
        memcpy(f->config, f->initial, sizeof(f->config));
    mask_entries(f);
    f->intx_level = false;
    update_intx(f);
    if (f->attached)
        map_bars(f);
    pthread_mutex_unlock(&f->lock);
}

int mull_pci_function_loaded(struct mull_pci_function *f, struct mull_error *err)
{
    pthread_mutex_lock(&f->lock);
    if (!f->attached) {
        pthread_mutex_unlock(&f->lock);
        return mull_fail(err, EINVAL, "PCI function: its state came before it was attached");
    }
    /* The saved bytes count only where the guest could have written them. */
    for (unsigned i = 0; i < MULL_PCI_CONFIG_SIZE; i++) {
        uint8_t mask = f->wmask[i] | f->w1c[i];
        f->config[i] = (uint8_t)((f->initial[i] & ~mask) | (f->config[i] & mask));
    }
    for (unsigned i = 0; i < MULL_PCI_MSIX_MAX; i++) {
        f->msix[i].address &= ~3ull;
        f->msix[i].control &= MSIX_ENTRY_MASKED;
    }
    uint8_t level; /* not a bool until it is known to be 0 or 1 */
    memcpy(&level, &f->intx_level, sizeof(level));
    f->intx_level = level != 0;
    f->msix_pending &= f->msix_count ? ~0ull >> (64 - f->msix_count) : 0;
    map_bars(f);
    update_intx(f);
    pthread_mutex_unlock(&f->lock);
    return 0;
}

void mull_pci_function_fini(struct mull_pci_function *f)
{
    if (!f->next_capability) /* never set up */
        return;
    if (f->attached) {
        pthread_mutex_lock(&f->lock);
        f->intx_level = false;
        update_intx(f);
        pthread_mutex_unlock(&f->lock);
        atomic_store(&f->bus->function[f->devfn], NULL);
        f->attached = false;
    }
    for (unsigned i = 0; i < MULL_PCI_BARS; i++) {
        mull_region_remove(f->bar[i].region);
        f->bar[i] = (struct mull_pci_bar){0};
    }
    mull_region_remove(f->rom.region);
    f->rom = (struct mull_pci_bar){0};
    pthread_mutex_destroy(&f->lock);
    f->next_capability = 0;
}

static const struct mull_field msix_fields[] = {
    MULL_FIELD(struct mull_msix_entry, address),
    MULL_FIELD(struct mull_msix_entry, data),
    MULL_FIELD(struct mull_msix_entry, control),
    MULL_FIELDS_END,
};
static const struct mull_state_desc msix_desc = {
    .name = "msix-entry", .version = 1, .oldest = 1, .fields = msix_fields};

static int after_load(void *object, uint32_t version, struct mull_error *err)
{
    return mull_pci_function_loaded(object, err);
}

static const struct mull_field fields[] = {
    MULL_FIELD_BLOB(struct mull_pci_function, config),
    MULL_FIELD_NESTED_ARRAY(struct mull_pci_function, msix, &msix_desc),
    MULL_FIELD(struct mull_pci_function, msix_pending),
    MULL_FIELD(struct mull_pci_function, intx_level),
    MULL_FIELDS_END,
};
const struct mull_state_desc mull_pci_function_desc = {
    .name = "pci-function", .version = 1, .oldest = 1, .fields = fields, .after_load = after_load};
