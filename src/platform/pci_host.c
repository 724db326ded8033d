/*
 * The registers of the host bridge that firmware programs (Intel 3 Series Express Chipset Family
 * data sheet, 5.1): where the configuration space lies (PCIEXBAR) and who answers at C0000h to
 * FFFFFh (PAM). Shadow RAM begins with what the ROM holds and is what is read at any time; the
 * registers decide whether writes reach it. SMRAM can be programmed, but there is no system
 * management mode behind it.
 */
#include <string.h>

#include "platform/pci_internal.h"

#define PCIEXBAR 0x60u
#define PAM0 0x90u
#define SMRAM 0x9du
#define ESMRAMC 0x9eu

#define PCIEXBAR_ENABLE 1u
#define PCIEXBAR_BASE 0xf0000000u /* 256 MiB, below 4 GiB */
#define PAM_WRITE 2u

/* Segment @index: 0 is F0000h to FFFFFh, the others are 16 KiB each from C0000h on. */
static void segment(unsigned index, uint64_t *base, uint64_t *size)
{
    *base = index ? 0xc0000 + (index - 1) * 0x4000ull : 0xf0000;
    *size = index ? 0x4000 : 0x10000;
}

static bool writable(const uint8_t pam[7], unsigned index)
{
    uint8_t reg = pam[(index + 1) / 2];
    return (index & 1 ? reg : reg >> 4) & PAM_WRITE;
}

static void apply_pam(struct mull_pci_bus *bus, const uint8_t pam[7])
{
    for (unsigned i = 0; i < 13; i++) {
        uint64_t base, size;
        if (writable(pam, i) == writable(bus->pam, i))
            continue;
        segment(i, &base, &size);
        mull_memory_set_rom(bus->config.memory, base, size, !writable(pam, i));
    }
    memcpy(bus->pam, pam, sizeof(bus->pam));
}

uint64_t mull_pci_bus_ecam(struct mull_pci_bus *bus)
{
    pthread_mutex_lock(&bus->host.lock);
    uint32_t low = pci_get32(bus->host.config + PCIEXBAR);
    uint32_t high = pci_get32(bus->host.config + PCIEXBAR + 4);
    pthread_mutex_unlock(&bus->host.lock);
    return (low & PCIEXBAR_ENABLE) && !high ? low & PCIEXBAR_BASE : 0;
}

void pci_host_apply(struct mull_pci_bus *bus)
{
    uint8_t pam[7];

    if (!bus->config.firmware)
        return;
    pthread_mutex_lock(&bus->host.lock);
    memcpy(pam, bus->host.config + PAM0, sizeof(pam));
    pthread_mutex_unlock(&bus->host.lock);
    uint64_t ecam = mull_pci_bus_ecam(bus);
    pthread_mutex_lock(&bus->lock);
    apply_pam(bus, pam);
    mull_region_move(bus->ecam, ecam, ecam != 0);
    pthread_mutex_unlock(&bus->lock);
}

static void config_written(struct mull_pci_function *f, unsigned offset, unsigned size)
{
    if (offset + size > PCIEXBAR && offset < SMRAM)
        pci_host_apply(f->bus);
}

static const struct mull_pci_ops host_ops = {.config_written = config_written};

void pci_host_setup(struct mull_pci_bus *bus)
{
    struct mull_pci_function *f = &bus->host;

    f->ops = &host_ops;
    pci_put32(f->wmask + PCIEXBAR, PCIEXBAR_BASE | 7);
    pci_put32(f->wmask + PCIEXBAR + 4, 0xf);
    f->wmask[PAM0] = 0x30;
    memset(f->wmask + PAM0 + 1, 0x33, 6);
    f->config[SMRAM] = 0x02; /* SMRAM is at A0000h, closed */
    f->wmask[SMRAM] = 0x58;
    f->config[ESMRAMC] = 0x38;
    f->wmask[ESMRAMC] = 0x47;
    /* So that the first application protects everything. */
    memset(bus->pam, 0x33, sizeof(bus->pam));
}

void mull_pci_bus_span(struct mull_pci_bus *bus, uint64_t floor, uint64_t *first, uint64_t *last)
{
    *first = UINT64_MAX;
    *last = 0;
    for (unsigned devfn = 0; devfn < 256; devfn++) {
        struct mull_pci_function *f = atomic_load(&bus->function[devfn]);
        for (unsigned i = 0; f && i < MULL_PCI_BARS; i++) {
            const uint8_t *p = f->config + PCI_BAR + 4 * i;
            if (!f->bar[i].size || !f->bar[i].is64)
                continue;
            pthread_mutex_lock(&f->lock);
            uint64_t at = (pci_get32(p) & ~15u) | (uint64_t)pci_get32(p + 4) << 32;
            pthread_mutex_unlock(&f->lock);
            if (at < floor || at + f->bar[i].size < at)
                continue;
            if (at < *first)
                *first = at;
            if (at + f->bar[i].size - 1 > *last)
                *last = at + f->bar[i].size - 1;
        }
    }
}
