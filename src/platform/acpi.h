/*
 * The ACPI tables of the machine: written into guest memory before it starts, as firmware would
 * leave them. Knows where things are, not how they work.
 */
#ifndef MULL_PLATFORM_ACPI_H
#define MULL_PLATFORM_ACPI_H

#include <stdint.h>

#include "base/error.h"
#include "memory/memory.h"

/** What the tables say. */
struct mull_acpi_config {
    uint64_t area_base, area_size; /* where they go: RAM the guest will find reserved */
    unsigned cpus;                 /* APIC ids 0..cpus-1 */
    unsigned com_ports;            /* bit i: COM(i + 1) */
    unsigned sci;                  /* GSI of the system control interrupt */
    unsigned intx[4];              /* GSIs of the PCI lines INTA..INTD of slot 0 */
    uint16_t reset_port;           /* writing reset_value there resets the machine */
    uint8_t reset_value;
    uint16_t pvpanic_port; /* 0: none */
    uint64_t ecam_base;
    uint64_t mmio32_base, mmio32_size;
    uint64_t mmio64_base, mmio64_size; /* size 0: none */
};

/**
 * Write RSDP, XSDT, FADT, FACS, MADT, HPET, MCFG and DSDT.
 *
 * @param rsdp  guest-physical address of the root pointer
 * @return 0; -ENOSPC: the area is too small; -EFAULT: it is not RAM
 */
int mull_acpi_write(struct mull_memory *memory, const struct mull_acpi_config *config,
                    uint64_t *rsdp, struct mull_error *err);

#endif
