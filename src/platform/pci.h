/*
 * The PCI Express root and what a PCI function is: configuration space, BARs, MSI-X, INTx.
 * PCI Local Bus 3.0, PCI Express Base 3.0; ECAM (MMCONFIG) and the 0xCF8/0xCFC ports.
 */
#ifndef MULL_PLATFORM_PCI_H
#define MULL_PLATFORM_PCI_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/fields.h"
#include "memory/memory.h"
#include "platform/irq.h"

#define MULL_PCI_CONFIG_SIZE 4096
#define MULL_PCI_BARS 6
#define MULL_PCI_MSIX_MAX 64

struct mull_pci_bus;
struct mull_pci_function;

/** The hooks of a function's owner; all may be NULL. */
struct mull_pci_ops {
    /* After the generic code has applied a write to configuration space (masked by wmask). */
    void (*config_written)(struct mull_pci_function *f, unsigned offset, unsigned size);
    /* Before a read: bring config[] up to date (vendor capabilities with side effects). */
    void (*config_read)(struct mull_pci_function *f, unsigned offset, unsigned size);
};

struct mull_pci_bar {
    uint64_t size; /* 0: no BAR; power of two */
    bool io, is64, prefetch;
    struct mull_region *region;
};

/** One MSI-X table entry as the guest sees it (PCI 3.0, 6.8.2.6). */
struct mull_msix_entry {
    uint64_t address;
    uint32_t data;
    uint32_t control; /* bit 0: masked */
};

/** A PCI function, embedded in its device. Zero it before mull_pci_function_init(). */
struct mull_pci_function {
    const struct mull_pci_ops *ops;
    struct mull_pci_bus *bus;
    uint8_t devfn;
    uint8_t config[MULL_PCI_CONFIG_SIZE]; /* what the guest reads */
    uint8_t wmask[MULL_PCI_CONFIG_SIZE];  /* 1: the guest may write this bit */
    uint8_t w1c[MULL_PCI_CONFIG_SIZE];    /* 1: writing 1 clears this bit */
    struct mull_pci_bar bar[MULL_PCI_BARS];
    struct mull_pci_bar rom; /* expansion ROM */
    const uint8_t *rom_data;
    uint64_t rom_size;
    uint8_t next_capability; /* where the next capability goes */
    uint8_t last_capability;
    uint8_t msix_capability; /* offset, 0: none */
    uint16_t msix_count;
    struct mull_msix_entry msix[MULL_PCI_MSIX_MAX];
    uint64_t msix_pending; /* bit i: pending while masked */
    struct mull_region *msix_region;
    uint8_t intx_pin; /* 0: none, 1: INTA */
    bool intx_level;
    uint8_t msi_capability; /* offset, 0: none */
    bool attached;
    uint8_t
        initial[MULL_PCI_CONFIG_SIZE]; /* config[] when it was attached: what a reset restores */
    pthread_mutex_t lock;              /* config space and MSI-X; not held while ops are called */
};

/** State description of the generic part, to nest in a device's own description. */
extern const struct mull_state_desc mull_pci_function_desc;

/**
 * Set up a function: IDs, class, header; call before adding BARs and capabilities.
 *
 * @param class_code  24 bits: base class, subclass, programming interface
 */
void mull_pci_function_init(struct mull_pci_function *f, const struct mull_pci_ops *ops,
                            uint16_t vendor, uint16_t device, uint16_t subsystem_vendor,
                            uint16_t subsystem, uint32_t class_code, uint8_t revision);

/** Add a BAR backed by @ops (a region that moves as the guest programs it). Before
 *  mull_pci_bus_attach(). Size is rounded up to a power of two (at least 4096 for memory). */
int mull_pci_add_bar(struct mull_pci_function *f, unsigned index, uint64_t size, bool io, bool is64,
                     bool prefetch, const struct mull_region_ops *ops, void *opaque,
                     const char *name, struct mull_memory *mem, struct mull_error *err);

/** Add an expansion ROM for firmware to run. @param data  stays the caller's and must outlive the
 *  function. Before mull_pci_bus_attach(). */
int mull_pci_add_rom(struct mull_pci_function *f, const void *data, uint64_t size,
                     struct mull_memory *mem, struct mull_error *err);

/** Append a capability of @size bytes including its two-byte header. @return its offset, 0: no
 *  room. The caller fills config[] and wmask[] behind the header. */
unsigned mull_pci_add_capability(struct mull_pci_function *f, uint8_t id, unsigned size);

/** Add MSI-X with @count vectors whose table and PBA live in a BAR of their own. */
int mull_pci_add_msix(struct mull_pci_function *f, unsigned bar, unsigned count,
                      struct mull_memory *mem, struct mull_error *err);

/** Has the guest enabled MSI-X on this function? */
bool mull_pci_msix_enabled(const struct mull_pci_function *f);

/** Send MSI-X vector @vector (or mark it pending while masked). Any thread. Out of range or
 *  0xffff (VIRTIO_MSI_NO_VECTOR): nothing. */
void mull_pci_msix_send(struct mull_pci_function *f, unsigned vector);

/** Add MSI with one vector (for functions that have no use for MSI-X). */
int mull_pci_add_msi(struct mull_pci_function *f, struct mull_error *err);
bool mull_pci_msi_enabled(const struct mull_pci_function *f);
void mull_pci_msi_send(struct mull_pci_function *f);

/** Drive INTx. Any thread. Without effect while MSI or MSI-X is enabled. */
void mull_pci_intx(struct mull_pci_function *f, bool level);

/** Put a function back to power-on state: BARs, command, MSI-X. */
void mull_pci_function_reset(struct mull_pci_function *f);

/** Validate and re-apply BARs after the state was loaded. */
int mull_pci_function_loaded(struct mull_pci_function *f, struct mull_error *err);

/** Take a function off its bus and free its regions. */
void mull_pci_function_fini(struct mull_pci_function *f);

/* ---- The root ---- */

struct mull_pci_config {
    struct mull_memory *memory;
    uint64_t ecam_base;            /* 256 MiB for buses 0..255 */
    uint64_t mmio_base, mmio_size; /* 32-bit window for BARs */
    uint64_t mmio64_base, mmio64_size;
    uint16_t io_base, io_size;
    struct mull_irq intx[4]; /* lines for swizzled INTA..INTD */
    struct mull_msi_sink msi;
    /* Firmware runs: it places the configuration space (PCIEXBAR) and BARs itself, and rules over
     * the shadow RAM at C0000h (PAM); otherwise the guest finds all that done. */
    bool firmware;
    /* The guest resets the machine through the reset control register, port 0xCF9; may be NULL. */
    void (*reset)(void *opaque);
    void *opaque;
};

/** Create the host bridge (device 0) with ECAM and 0xCF8/0xCFC. The guest finds BARs already
 *  assigned by mull_pci_bus_assign(), as firmware would leave them. */
int mull_pci_bus_create(const struct mull_pci_config *config, struct mull_pci_bus **out,
                        struct mull_error *err);
void mull_pci_bus_destroy(struct mull_pci_bus *bus);

/** Plug a function in. @param devfn  slot << 3 | function, or -1: the next free slot. */
int mull_pci_bus_attach(struct mull_pci_bus *bus, struct mull_pci_function *f, int devfn,
                        struct mull_error *err);

/** Give every BAR an address and enable decoding: what firmware does. */
int mull_pci_bus_assign(struct mull_pci_bus *bus, struct mull_error *err);

/** The slot that mull_pci_bus_attach() would give next; 32: none is free. */
unsigned mull_pci_bus_free_slot(struct mull_pci_bus *bus);

/** Let the search for free slots begin behind this one: what comes next shall not be taken by the
 *  guest for what was here. */
void mull_pci_bus_pass_slot(struct mull_pci_bus *bus, unsigned slot);

/** Is something in this slot? */
bool mull_pci_bus_taken(struct mull_pci_bus *bus, unsigned slot);

/** Functions in this slot do not answer any more: they are about to go. */
void mull_pci_bus_hide(struct mull_pci_bus *bus, unsigned slot);

/** Where firmware has put the configuration space; 0: nowhere. */
uint64_t mull_pci_bus_ecam(struct mull_pci_bus *bus);

/** The span of all 64-bit BARs that are placed above @floor; *first > *last: none. */
void mull_pci_bus_span(struct mull_pci_bus *bus, uint64_t floor, uint64_t *first, uint64_t *last);

/** The line (0..3 for INTA..INTD of slot 0) to which @slot's @pin (1: INTA) is wired. */
unsigned mull_pci_intx_line(unsigned slot, unsigned pin);

/** Power-on state of what belongs to the bus itself; functions are reset by their devices. */
void mull_pci_bus_reset(struct mull_pci_bus *bus);

/** The bus's own state (config address register, host bridge). */
extern const struct mull_state_desc mull_pci_bus_desc;

#endif
