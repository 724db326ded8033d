/*
 * Fuzz the PCI root: configuration space by both mechanisms, BARs, INTx, MSI and MSI-X, saved
 * state. The input is a list of accesses. What a guest must never be able to change is checked
 * after each.
 */
#include <stdlib.h>
#include <string.h>

#include "platform/pci.h"

#define ECAM 0xe0000000ull
#define MMIO 0xc0000000ull
#define FUNCTIONS 3

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned line_level[4];

static void set_line(void *opaque, unsigned line, bool level)
{
    line_level[line] = level;
}

static void send_msi(void *opaque, uint64_t address, uint32_t data) {}

static uint64_t bar_read(void *opaque, unsigned cpu, uint64_t offset, unsigned size)
{
    if (offset + size > 8192)
        abort();
    return offset;
}

static void bar_write(void *opaque, unsigned cpu, uint64_t offset, unsigned size, uint64_t value)
{
    if (offset + size > 8192)
        abort();
}

static const struct mull_region_ops bar_ops = {bar_read, bar_write, 1, 4};

static void config_written(struct mull_pci_function *f, unsigned offset, unsigned size)
{
    mull_pci_msix_send(f, offset & 15);
}

static void config_read(struct mull_pci_function *f, unsigned offset, unsigned size)
{
    f->config[0x80] = (uint8_t)offset;
}

static const struct mull_pci_ops hooks = {config_written, config_read};

static void add_functions(struct mull_pci_bus *bus, struct mull_memory *memory,
                          struct mull_pci_function *f)
{
    for (unsigned i = 0; i < FUNCTIONS; i++) {
        mull_pci_function_init(&f[i], i == 1 ? &hooks : NULL, 0x1af4, 0x1041, 0x1af4, 1, 0x20000,
                               1);
        f[i].intx_pin = (uint8_t)(i + 1);
        if (mull_pci_add_bar(&f[i], 0, 8192, false, true, i == 2, &bar_ops, NULL, "a", memory,
                             NULL) ||
            mull_pci_add_bar(&f[i], 2, 64, true, false, false, &bar_ops, NULL, "b", memory, NULL) ||
            mull_pci_add_msix(&f[i], 4, i == 2 ? 64 : 5, memory, NULL) ||
            mull_pci_add_msi(&f[i], NULL) || mull_pci_bus_attach(bus, &f[i], -1, NULL))
            abort();
    }
    if (mull_pci_bus_assign(bus, NULL))
        abort();
}

static void check(struct mull_memory *memory, const struct mull_pci_function *f)
{
    for (unsigned i = 0; i < FUNCTIONS; i++) {
        uint64_t base = ECAM + ((uint64_t)f[i].devfn << 12);
        if (mull_space_read(memory, MULL_SPACE_MMIO, 0, base, 4) != 0x10411af4 ||
            (mull_space_read(memory, MULL_SPACE_MMIO, 0, base + 0x10, 4) & 0x1ff7) != 4 ||
            (f[i].msix_count < 64 && f[i].msix_pending >> f[i].msix_count))
            abort();
    }
}

/* One access: 12 bytes. */
static void step(struct mull_memory *memory, struct mull_pci_bus *bus, struct mull_pci_function *f,
                 const uint8_t *in)
{
    struct mull_pci_function *which = &f[in[1] % FUNCTIONS];
    unsigned width = 1u << (in[2] & 3);
    uint64_t value;
    uint16_t offset;

    memcpy(&offset, in + 2, 2);
    offset >>= 2;
    memcpy(&value, in + 4, 8);
    uint64_t ecam = ECAM + ((uint64_t)which->devfn << 12) + (offset & 0xfff);
    switch (in[0] % 12) {
    case 0:
        mull_space_write(memory, MULL_SPACE_MMIO, 0, ecam, width, value);
        break;
    case 1:
        mull_space_read(memory, MULL_SPACE_MMIO, 0, ecam, width);
        break;
    case 2: /* the header and the capabilities more often */
        mull_space_write(memory, MULL_SPACE_MMIO, 0, ecam & ~0xf00ull, width, value);
        break;
    case 3:
        mull_space_write(memory, MULL_SPACE_PORT, 0, 0xcf8 + (offset & 7), width > 4 ? 4 : width,
                         value);
        break;
    case 4:
        mull_space_read(memory, MULL_SPACE_PORT, 0, 0xcf8 + (offset & 7), width > 4 ? 4 : width);
        break;
    case 5: /* where BARs are, or were */
        mull_space_write(memory, MULL_SPACE_MMIO, 0, MMIO + offset * 4, width, value);
        break;
    case 6:
        mull_space_read(memory, MULL_SPACE_MMIO, 0, MMIO + offset * 4, width);
        break;
    case 7:
        mull_pci_msix_send(which, offset);
        mull_pci_msi_send(which);
        break;
    case 8:
        mull_pci_intx(which, value & 1);
        break;
    case 9:
        mull_space_read(memory, MULL_SPACE_MMIO, 0, value, width);
        mull_space_write(memory, MULL_SPACE_PORT, 0, 0xc000 + offset, 1, value);
        break;
    case 10:
        if (value & 1)
            mull_pci_bus_reset(bus);
        else
            mull_pci_function_reset(which);
        break;
    default: /* a saved state that somebody wrote */
        for (unsigned i = 0; i < 8; i++)
            which->config[(offset + i * 509) % MULL_PCI_CONFIG_SIZE] = in[4 + i];
        which->msix[offset % MULL_PCI_MSIX_MAX].control = (uint32_t)value;
        which->msix_pending = value;
        memcpy(&which->intx_level, in + 4, 1);
        if (mull_pci_function_loaded(which, NULL))
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct mull_pci_function f[FUNCTIONS];
    struct mull_pci_config config = {
        .ecam_base = ECAM,
        .mmio_base = MMIO,
        .mmio_size = 0x20000000,
        .mmio64_base = 1ull << 33,
        .mmio64_size = 1ull << 34,
        .io_base = 0xc000,
        .io_size = 0x3000,
        .msi = {.send = send_msi},
    };
    struct mull_memory *memory;
    struct mull_pci_bus *bus;

    if (mull_memory_create(NULL, &memory, NULL))
        return 0;
    config.memory = memory;
    for (unsigned i = 0; i < 4; i++)
        config.intx[i] = (struct mull_irq){.set = set_line, .line = i};
    if (mull_pci_bus_create(&config, &bus, NULL))
        abort();
    memset(f, 0, sizeof(f));
    add_functions(bus, memory, f);
    for (unsigned n = 0; size >= 12 && n < 500; n++, data += 12, size -= 12) {
        step(memory, bus, f, data);
        check(memory, f);
    }
    for (unsigned i = 0; i < FUNCTIONS; i++)
        mull_pci_function_fini(&f[i]);
    for (unsigned i = 0; i < 4; i++) /* who is gone asserts nothing */
        if (line_level[i])
            abort();
    mull_pci_bus_destroy(bus);
    mull_memory_destroy(memory);
    return 0;
}
