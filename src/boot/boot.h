/*
 * Direct boot: puts a kernel, its initrd and its command line into guest memory the way a boot
 * loader would, and describes the boot processor's first state. Knows guest memory and the
 * canonical CPU state; knows no engine, no device and no machine.
 */
#ifndef MULL_BOOT_BOOT_H
#define MULL_BOOT_BOOT_H

#include <stdint.h>

#include "base/error.h"
#include "engine/cpu_state.h"
#include "memory/memory.h"

/* What a boot loader writes below 1 MiB; the machine must have RAM at [0, MULL_BOOT_LOW_END). */
#define MULL_BOOT_GDT 0x1000u
#define MULL_BOOT_PAGE_TABLES 0x2000u /* PML4, PDPT and four page directories */
#define MULL_BOOT_PARAMS 0x8000u      /* Linux: struct boot_params; PVH: hvm_start_info */
#define MULL_BOOT_SETUP_DATA 0xa000u
#define MULL_BOOT_CMDLINE 0x20000u
#define MULL_BOOT_CMDLINE_MAX 0x10000u
#define MULL_BOOT_LOW_END 0x90000u

/* Types of struct mull_boot_range: ACPI 6.5, table 15.2 (address range types, "E820"). */
enum mull_boot_memory {
    MULL_BOOT_RAM = 1,
    MULL_BOOT_RESERVED = 2,
    MULL_BOOT_ACPI = 3,
    MULL_BOOT_NVS = 4,
};

struct mull_boot_range {
    uint64_t base, size;
    uint32_t type; /* enum mull_boot_memory */
};

/** The memory map that the guest is told. Sorted by address, not overlapping. */
struct mull_boot_map {
    unsigned count;
    struct mull_boot_range range[32];
};

/** Bytes to boot: an open file or a buffer. Its size is fixed when it is opened. */
struct mull_boot_source {
    const char *name; /* for messages: "kernel vmlinuz" */
    int fd;           /* -1: bytes */
    const uint8_t *bytes;
    uint64_t size;
};

enum mull_boot_kind {
    MULL_BOOT_LINUX, /* bzImage, 64-bit entry */
    MULL_BOOT_PVH,   /* ELF with a Xen PVH note */
    MULL_BOOT_MULTIBOOT, /* multiboot 1 or 2: ELF, or by the addresses in its header */
};

struct mull_boot;

/**
 * Open the kernel and the initrd and check what can be checked without a machine. Files stay open,
 * so that a reset loads them again.
 *
 * @param kernel   path of a bzImage or of an ELF file with a PVH entry
 * @param initrd   path, or NULL
 * @param cmdline  NULL: empty; copied
 * @param out      owned by the caller
 * @return 0 or a negative errno
 */
int mull_boot_open(const char *kernel, const char *initrd, const char *cmdline,
                   struct mull_boot **out, struct mull_error *err);

/** The same from buffers, which stay the caller's and must outlive the boot. @param initrd_size 0:
 *  no initrd. */
int mull_boot_open_bytes(const void *kernel, uint64_t kernel_size, const void *initrd,
                         uint64_t initrd_size, const char *cmdline, struct mull_boot **out,
                         struct mull_error *err);

/** One more module for a multiboot kernel; an initrd is the first. @param args  what it is told
 *  behind its name; NULL: nothing */
int mull_boot_add_module(struct mull_boot *boot, const char *path, const char *args,
                         struct mull_error *err);
int mull_boot_add_module_bytes(struct mull_boot *boot, const void *bytes, uint64_t size,
                               const char *args, struct mull_error *err);

void mull_boot_close(struct mull_boot *boot);

enum mull_boot_kind mull_boot_kind(const struct mull_boot *boot);

/** What the kernel calls itself ("6.12.0-amd64 (...) #1 SMP"), or "": printable characters only. */
const char *mull_boot_version(const struct mull_boot *boot);

/**
 * Load everything into guest memory. Fits kernel and initrd into the map's RAM below 4 GiB.
 *
 * @param map   what the guest is told of memory
 * @param rsdp  guest physical address of the ACPI RSDP, 0: none
 * @param bsp   becomes the boot processor's state at the kernel's entry
 * @return 0 or a negative errno; guest memory may be partly written then
 */
int mull_boot_load(struct mull_boot *boot, struct mull_memory *mem, const struct mull_boot_map *map,
                   uint64_t rsdp, struct mull_cpu_state *bsp, struct mull_error *err);

#endif
