/*
 * What pci.c (functions) and pci_bus.c (the root) share. Nobody else includes this.
 */
#ifndef MULL_PLATFORM_PCI_INTERNAL_H
#define MULL_PLATFORM_PCI_INTERNAL_H

#include <stdatomic.h>

#include "platform/pci.h"

/* Configuration header offsets and bits (PCI Local Bus 3.0, 6.1 and 6.2). */
#define PCI_VENDOR 0x00u
#define PCI_DEVICE 0x02u
#define PCI_COMMAND 0x04u
#define PCI_STATUS 0x06u
#define PCI_REVISION 0x08u
#define PCI_CLASS 0x09u
#define PCI_CACHE_LINE 0x0cu
#define PCI_HEADER_TYPE 0x0eu
#define PCI_BAR 0x10u
#define PCI_SUBSYSTEM_VENDOR 0x2cu
#define PCI_SUBSYSTEM 0x2eu
#define PCI_ROM 0x30u
#define PCI_CAPABILITIES 0x34u
#define PCI_INTERRUPT_LINE 0x3cu
#define PCI_INTERRUPT_PIN 0x3du
#define PCI_HEADER_SIZE 0x40u

#define COMMAND_IO 0x0001u
#define COMMAND_MEMORY 0x0002u
#define COMMAND_MASTER 0x0004u
#define COMMAND_PARITY 0x0040u
#define COMMAND_SERR 0x0100u
#define COMMAND_INTX_OFF 0x0400u
#define STATUS_INTERRUPT 0x0008u
#define STATUS_CAPABILITIES 0x0010u
#define STATUS_W1C 0xf900u

struct mull_pci_bus {
    struct mull_pci_config config;
    _Atomic(struct mull_pci_function *) function[256];
    atomic_uint first_slot; /* where the search for a free slot begins */
    pthread_mutex_t lock;   /* everything below */
    uint32_t address;       /* port CF8h */
    uint8_t reset_control;  /* port CF9h */
    uint16_t intx_count[4]; /* functions that assert each line */
    uint8_t intx_asserted[256];
    uint8_t pam[7];         /* as last applied */
    struct mull_region *ecam, *ports;
    struct mull_pci_function host;
};

static inline uint16_t pci_get16(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

static inline uint32_t pci_get32(const uint8_t *p)
{
    return pci_get16(p) | (uint32_t)pci_get16(p + 2) << 16;
}

static inline void pci_put16(uint8_t *p, uint16_t value)
{
    p[0] = (uint8_t)value;
    p[1] = (uint8_t)(value >> 8);
}

static inline void pci_put32(uint8_t *p, uint32_t value)
{
    pci_put16(p, (uint16_t)value);
    pci_put16(p + 2, (uint16_t)(value >> 16));
}

/** Configuration accesses; offset + size within the space, size 1, 2 or 4. */
uint32_t pci_function_read(struct mull_pci_function *f, unsigned offset, unsigned size);
void pci_function_write(struct mull_pci_function *f, unsigned offset, unsigned size,
                        uint32_t value);

/** Put a BAR's address into configuration space and map it if decoding is enabled. */
void pci_function_place(struct mull_pci_function *f, unsigned index, uint64_t address);

/** Enable decoding of what BARs there are. */
void pci_function_enable(struct mull_pci_function *f);

/** The host bridge's registers that only firmware uses (pci_host.c): set them up, bring what they
 *  rule over in agreement with them. */
void pci_host_setup(struct mull_pci_bus *bus);
void pci_host_apply(struct mull_pci_bus *bus);

/** A function's INTx output, after all masks, is now @level (pci_bus.c). */
void pci_bus_intx(struct mull_pci_bus *bus, struct mull_pci_function *f, bool level);

#endif
