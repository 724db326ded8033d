/*
 * The PCI Express root: host bridge, configuration mechanisms (ECAM, PCI Express Base 3.0, 7.2.2;
 * ports CF8h/CFCh, PCI Local Bus 3.0, 3.2.2.3.2), INTx wiring, and the assignment of BARs that
 * firmware would do. Knows functions, not devices.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "platform/pci_internal.h"

#define ADDRESS_ENABLE 0x80000000u
#define RESET_FULL 0x02u /* port CF9h */
#define RESET_CPU 0x04u

/* The host bridge of Intel's Q35: guests know it. */
#define HOST_VENDOR 0x8086u
#define HOST_DEVICE 0x29c0u
#define HOST_CLASS 0x060000u
/* What firmware and guests take for "a virtual machine with QEMU's interfaces". */
#define HOST_SUBSYSTEM_VENDOR 0x1af4u
#define HOST_SUBSYSTEM 0x1100u

/* ---- Configuration accesses ---- */

static struct mull_pci_function *function_at(struct mull_pci_bus *bus, unsigned number,
                                             unsigned devfn)
{
    return number == 0 ? atomic_load_explicit(&bus->function[devfn], memory_order_acquire) : NULL;
}

static uint64_t ecam_read(void *opaque, unsigned cpu, uint64_t offset, unsigned size)
{
    struct mull_pci_function *f =
        function_at(opaque, (unsigned)(offset >> 20), (unsigned)(offset >> 12) & 0xff);

    return f ? pci_function_read(f, offset & 0xfff, size) : ~0ull;
}

static void ecam_write(void *opaque, unsigned cpu, uint64_t offset, unsigned size, uint64_t value)
{
    struct mull_pci_function *f =
        function_at(opaque, (unsigned)(offset >> 20), (unsigned)(offset >> 12) & 0xff);

    if (f)
        pci_function_write(f, offset & 0xfff, size, (uint32_t)value);
}

/* The function that port CFCh leads to now, NULL: none. */
static struct mull_pci_function *selected(struct mull_pci_bus *bus, unsigned *reg)
{
    pthread_mutex_lock(&bus->lock);
    uint32_t address = bus->address;
    pthread_mutex_unlock(&bus->lock);
    *reg = address & 0xfc;
    if (!(address & ADDRESS_ENABLE))
        return NULL;
    return function_at(bus, address >> 16 & 0xff, address >> 8 & 0xff);
}

static uint64_t port_read(void *opaque, unsigned cpu, uint64_t offset, unsigned size)
{
    struct mull_pci_bus *bus = opaque;
    uint64_t value = ~0ull;
    unsigned reg;

    if (offset >= 4) {
        struct mull_pci_function *f = selected(bus, &reg);
        return f ? pci_function_read(f, reg + (unsigned)offset - 4, size) : ~0ull;
    }
    pthread_mutex_lock(&bus->lock);
    if (offset == 0 && size == 4)
        value = bus->address;
    else if (offset == 1 && size == 1)
        value = bus->reset_control;
    pthread_mutex_unlock(&bus->lock);
    return value;
}

static void write_reset_control(struct mull_pci_bus *bus, uint8_t value)
{
    pthread_mutex_lock(&bus->lock);
    bool rising = (value & RESET_CPU) && !(bus->reset_control & RESET_CPU);
    bus->reset_control = value & (RESET_FULL | 8);
    pthread_mutex_unlock(&bus->lock);
    if (rising && bus->config.reset)
        bus->config.reset(bus->config.opaque);
}

static void port_write(void *opaque, unsigned cpu, uint64_t offset, unsigned size, uint64_t value)
{
    struct mull_pci_bus *bus = opaque;
    unsigned reg;

    if (offset >= 4) {
        struct mull_pci_function *f = selected(bus, &reg);
        if (f)
            pci_function_write(f, reg + (unsigned)offset - 4, size, (uint32_t)value);
    } else if (offset == 0 && size == 4) {
        pthread_mutex_lock(&bus->lock);
        bus->address = (uint32_t)value & ~(0x7f000003u);
        pthread_mutex_unlock(&bus->lock);
    } else if (offset == 1 && size == 1) {
        write_reset_control(bus, (uint8_t)value);
    }
}

static const struct mull_region_ops ecam_ops = {ecam_read, ecam_write, 1, 4};
static const struct mull_region_ops port_ops = {port_read, port_write, 1, 4};

/* ---- INTx ---- */

/* INTA of slot 0 is line 0, of slot 1 line 1, and so on (PCI-to-PCI Bridge 1.2, 9.1). From slot 25
 * on the chipset's own functions are not rotated: firmware for Q35 computes it so. */
unsigned mull_pci_intx_line(unsigned slot, unsigned pin)
{
    return ((slot < 25 ? slot : 0) + pin - 1) & 3;
}

static unsigned intx_line(const struct mull_pci_function *f)
{
    return mull_pci_intx_line(f->devfn >> 3, f->intx_pin);
}

void pci_bus_intx(struct mull_pci_bus *bus, struct mull_pci_function *f, bool level)
{
    unsigned line = intx_line(f);

    pthread_mutex_lock(&bus->lock);
    if (bus->intx_asserted[f->devfn] != level) {
        bus->intx_asserted[f->devfn] = level;
        bus->intx_count[line] += level ? 1 : -1;
        mull_irq_set(&bus->config.intx[line], bus->intx_count[line] > 0);
    }
    pthread_mutex_unlock(&bus->lock);
}

/* ---- Functions ---- */

int mull_pci_bus_attach(struct mull_pci_bus *bus, struct mull_pci_function *f, int devfn,
                        struct mull_error *err)
{
    pthread_mutex_lock(&bus->lock);
    if (devfn < 0)
        devfn = (int)(mull_pci_bus_free_slot(bus) << 3);
    bool taken = devfn > 255 || atomic_load(&bus->function[devfn]);
    if (!taken) {
        f->bus = bus;
        f->devfn = (uint8_t)devfn;
        f->config[PCI_INTERRUPT_PIN] = f->intx_pin;
        memcpy(f->initial, f->config, sizeof(f->config));
        f->attached = true;
        atomic_store_explicit(&bus->function[devfn], f, memory_order_release);
    }
    pthread_mutex_unlock(&bus->lock);
    if (taken)
        return mull_fail(err, EBUSY, "PCI: no free slot (of 32); use fewer devices");
    /* Several functions in a slot: function 0 says so. */
    struct mull_pci_function *first = atomic_load(&bus->function[devfn & ~7]);
    if ((devfn & 7) && first) {
        first->config[PCI_HEADER_TYPE] |= 0x80;
        first->initial[PCI_HEADER_TYPE] |= 0x80;
    }
    return 0;
}

unsigned mull_pci_bus_free_slot(struct mull_pci_bus *bus)
{
    unsigned first = atomic_load(&bus->first_slot);

    for (unsigned i = 0; i < 32; i++)
        if (!atomic_load(&bus->function[((first + i) & 31) << 3]))
            return (first + i) & 31;
    return 32;
}

void mull_pci_bus_pass_slot(struct mull_pci_bus *bus, unsigned slot)
{
    atomic_store(&bus->first_slot, (slot + 1) & 31);
}

bool mull_pci_bus_taken(struct mull_pci_bus *bus, unsigned slot)
{
    return slot < 32 && atomic_load(&bus->function[slot << 3]);
}

void mull_pci_bus_hide(struct mull_pci_bus *bus, unsigned slot)
{
    for (unsigned i = 0; slot < 32 && i < 8; i++)
        atomic_store(&bus->function[slot << 3 | i], NULL);
}

/* ---- Assignment of BARs ---- */

struct window {
    uint64_t next, end;
};

static bool take(struct window *w, uint64_t size, uint64_t *address)
{
    uint64_t at = (w->next + size - 1) & ~(size - 1);

    if (at < w->next || at > w->end || size > w->end - at)
        return false;
    w->next = at + size;
    *address = at;
    return true;
}

struct windows {
    struct window io, mmio, mmio64;
};

static int assign_one(struct mull_pci_function *f, unsigned index, struct windows *w,
                      struct mull_error *err)
{
    const struct mull_pci_bar *bar = &f->bar[index];
    uint64_t address;
    bool found;

    if (bar->io)
        found = take(&w->io, bar->size, &address);
    else
        /* 64-bit prefetchable BARs are what is big; the rest stays where every guest reaches it. */
        found = (bar->is64 && bar->prefetch && take(&w->mmio64, bar->size, &address)) ||
                take(&w->mmio, bar->size, &address) ||
                (bar->is64 && take(&w->mmio64, bar->size, &address));
    if (!found)
        return mull_fail(
            err, ENOSPC,
            "PCI: no room for BAR %u (%llu bytes) of device %02x.%u; use fewer devices", index,
            (unsigned long long)bar->size, f->devfn >> 3, f->devfn & 7);
    pci_function_place(f, index, address);
    return 0;
}

/* Largest first, so that alignment wastes nothing. */
int mull_pci_bus_assign(struct mull_pci_bus *bus, struct mull_error *err)
{
    const struct mull_pci_config *c = &bus->config;
    struct windows w = {
        .io = {c->io_base, (uint64_t)c->io_base + c->io_size},
        .mmio = {c->mmio_base, c->mmio_base + c->mmio_size},
        .mmio64 = {c->mmio64_base, c->mmio64_base + c->mmio64_size},
    };

    for (uint64_t size = 1ull << 40; size >= 4; size >>= 1)
        for (unsigned devfn = 0; devfn < 256; devfn++) {
            struct mull_pci_function *f = atomic_load(&bus->function[devfn]);
            for (unsigned i = 0; f && i < MULL_PCI_BARS; i++) {
                int code = f->bar[i].size == size ? assign_one(f, i, &w, err) : 0;
                if (code < 0)
                    return code;
            }
        }
    for (unsigned devfn = 0; devfn < 256; devfn++) {
        struct mull_pci_function *f = atomic_load(&bus->function[devfn]);
        if (f)
            pci_function_enable(f);
    }
    return 0;
}

/* ---- Life ---- */

void mull_pci_bus_reset(struct mull_pci_bus *bus)
{
    pthread_mutex_lock(&bus->lock);
    bus->address = 0;
    bus->reset_control = 0;
    pthread_mutex_unlock(&bus->lock);
    mull_pci_function_reset(&bus->host);
    pci_host_apply(bus);
}

void mull_pci_bus_destroy(struct mull_pci_bus *bus)
{
    if (!bus)
        return;
    mull_region_remove(bus->ecam);
    mull_region_remove(bus->ports);
    mull_pci_function_fini(&bus->host);
    pthread_mutex_destroy(&bus->lock);
    free(bus);
}

int mull_pci_bus_create(const struct mull_pci_config *config, struct mull_pci_bus **out,
                        struct mull_error *err)
{
    struct mull_pci_bus *bus = calloc(1, sizeof(*bus));
    int code;

    *out = NULL;
    if (!bus)
        return mull_fail(err, ENOMEM, "PCI: no memory");
    bus->config = *config;
    pthread_mutex_init(&bus->lock, NULL);
    mull_pci_function_init(&bus->host, NULL, HOST_VENDOR, HOST_DEVICE, HOST_SUBSYSTEM_VENDOR,
                           HOST_SUBSYSTEM, HOST_CLASS, 0);
    if (config->firmware)
        pci_host_setup(bus);
    if ((code = mull_pci_bus_attach(bus, &bus->host, 0, err)) < 0 ||
        (code = mull_region_add(config->memory, MULL_SPACE_MMIO, config->ecam_base, 256u << 20,
                                &ecam_ops, bus, "PCI ECAM", &bus->ecam, err)) < 0 ||
        (code = mull_region_add(config->memory, MULL_SPACE_PORT, 0xcf8, 8, &port_ops, bus,
                                "PCI configuration ports", &bus->ports, err)) < 0) {
        mull_pci_bus_destroy(bus);
        return code;
    }
    pci_host_apply(bus);
    *out = bus;
    return 0;
}

static int after_load(void *object, uint32_t version, struct mull_error *err)
{
    struct mull_pci_bus *bus = object;

    bus->address &= ~0x7f000003u;
    bus->reset_control &= RESET_FULL | 8;
    pci_host_apply(bus);
    return 0;
}

static const struct mull_field fields[] = {
    MULL_FIELD(struct mull_pci_bus, address),
    MULL_FIELD(struct mull_pci_bus, reset_control),
    MULL_FIELD_NESTED(struct mull_pci_bus, host, &mull_pci_function_desc),
    MULL_FIELDS_END,
};
const struct mull_state_desc mull_pci_bus_desc = {
    .name = "pci-bus", .version = 1, .oldest = 1, .fields = fields, .after_load = after_load};
