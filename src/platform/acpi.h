/*
 * The ACPI tables of the machine: written into guest memory before it starts, as firmware would
 * leave them. Knows where things are, not how they work.
 */
#ifndef MULL_PLATFORM_ACPI_H
#define MULL_PLATFORM_ACPI_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "memory/memory.h"

/* The TPM's registers, locality 0: where every PC has them. */
#define MULL_TPM_BASE 0xfed40000ull
#define MULL_TPM_SIZE 0x1000u

/** What the tables say. */
struct mull_acpi_config {
    uint64_t area_base, area_size; /* where they go: RAM the guest will find reserved */
    unsigned cpus;                 /* APIC ids 0..cpus-1, there or possible */
    unsigned com_ports;            /* bit i: COM(i + 1) */
    unsigned sci;                  /* GSI of the system control interrupt */
    unsigned intx[4];              /* GSIs of the PCI lines INTA..INTD of slot 0 */
    uint16_t reset_port;           /* writing reset_value there resets the machine */
    uint8_t reset_value;
    uint16_t pvpanic_port; /* 0: none */
    uint64_t vmgenid_base; /* 0: none */
    bool tpm;              /* a TPM 2.0 with a command response buffer at MULL_TPM_BASE */
    uint64_t ecam_base;
    uint64_t mmio32_base, mmio32_size;
    uint64_t mmio64_base, mmio64_size;   /* size 0: none */
    uint64_t upper32_base, upper32_size; /* a second 32-bit window; size 0: none */
    bool pc;                             /* there are a VGA and a keyboard controller */
    uint16_t fw_cfg_port;                /* 0: none */
    struct mull_acpi_hotplug {
        uint32_t pci_slots;   /* bit i: things can come to and go from slot i */
        bool cpus;            /* all vCPUs but the first can come and go */
        uint64_t cpus_absent; /* bit i: not there now */
        uint64_t dimm_base, dimm_size; /* where memory can come; size 0: it cannot */
        uint64_t ram_low, ram_high;    /* the memory that stays, for the SRAT */
    } hotplug;
};

/* Sizes of what firmware is given: fixed, because it asks for them before the tables are final. */
#define MULL_ACPI_TABLES_SIZE 0x10000u
#define MULL_ACPI_LOADER_SIZE 4096u
#define MULL_ACPI_RSDP_SIZE 36u

/** The tables as firmware places them itself: bytes with offsets instead of addresses, and a list
 * of commands that put the addresses in (QEMU's bios-linker-loader interface). */
struct mull_acpi_blobs {
    uint8_t tables[MULL_ACPI_TABLES_SIZE]; /* "etc/acpi/tables" */
    uint8_t rsdp[MULL_ACPI_RSDP_SIZE];     /* "etc/acpi/rsdp" */
    uint8_t loader[MULL_ACPI_LOADER_SIZE]; /* "etc/table-loader" */
};

/** Fill in the blobs; area_base and area_size are not looked at. @return 0 or -ENOSPC */
int mull_acpi_build(const struct mull_acpi_config *config, struct mull_acpi_blobs *blobs,
                    struct mull_error *err);

/**
 * Write RSDP, XSDT, FADT, FACS, MADT, HPET, MCFG and DSDT.
 *
 * @param rsdp  guest-physical address of the root pointer
 * @return 0; -ENOSPC: the area is too small; -EFAULT: it is not RAM
 */
int mull_acpi_write(struct mull_memory *memory, const struct mull_acpi_config *config,
                    uint64_t *rsdp, struct mull_error *err);

#endif
