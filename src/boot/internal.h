/*
 * What the loaders of src/boot share: reading a source, placing things in the memory map. Nothing
 * outside this folder includes it.
 */
#ifndef MULL_BOOT_INTERNAL_H
#define MULL_BOOT_INTERNAL_H

#include <stdbool.h>

#include "boot/boot.h"

#define BOOT_VERSION_MAX 128

/* What a bzImage's header says, checked. */
struct boot_linux {
    uint32_t setup_size;  /* where the protected-mode kernel starts in the file */
    uint64_t kernel_size; /* its size */
    uint64_t load_address;
    uint64_t init_size; /* bytes the kernel needs from load_address on */
    uint64_t initrd_max;
    uint8_t header[0x100]; /* struct setup_header as it is in the file, zero filled */
    uint32_t header_size;
    bool wide; /* has the 64-bit entry */
};

#define BOOT_ELF_SEGMENTS 32
#define BOOT_ELF_LOAD 1u /* PT_LOAD */

/* One program header of either ELF class. */
struct boot_elf_segment {
    uint32_t type;
    uint64_t offset, file_size, address, size, virtual;
};

/* What is loaded of a kernel, checked. */
struct boot_elf {
    uint32_t entry; /* where the file's entry is loaded */
    unsigned count;
    struct boot_elf_segment segment[BOOT_ELF_SEGMENTS];
};

/* What a multiboot header says. */
struct boot_multiboot {
    unsigned version; /* 1, 2 */
    bool addresses;   /* it says itself what is loaded where */
    bool has_entry;
    uint32_t entry;
};

#define BOOT_MODULES 16

struct boot_module {
    struct mull_boot_source source;
    char *name, *args;
    uint64_t address; /* where it was loaded */
};

struct mull_boot {
    enum mull_boot_kind kind;
    struct mull_boot_source kernel, initrd;
    bool has_initrd;
    char *kernel_name, *initrd_name, *cmdline;
    char version[BOOT_VERSION_MAX];
    struct boot_linux linux_image;
    struct boot_elf elf;
    uint32_t pvh_entry;
    struct boot_multiboot multiboot;
    unsigned modules;
    struct boot_module module[BOOT_MODULES];
};

/* What a loader works with. */
struct boot_target {
    struct mull_memory *mem;
    const struct mull_boot_map *map;
    uint64_t rsdp;
    struct mull_cpu_state *bsp;
};

/** Read @len bytes at @offset. Less there: an error that calls the file truncated. */
int boot_read(const struct mull_boot_source *source, uint64_t offset, void *buf, uint64_t len,
              struct mull_error *err);

/** Copy part of a source into guest memory. */
int boot_copy(const struct mull_boot_source *source, uint64_t offset, struct mull_memory *mem,
              uint64_t gpa, uint64_t len, struct mull_error *err);

/** Is all of [base, base + size) RAM in the map? */
bool boot_map_has_ram(const struct mull_boot_map *map, uint64_t base, uint64_t size);

/** Bytes of RAM in the map. */
uint64_t boot_map_total(const struct mull_boot_map *map);

/** The highest page-aligned place for @size bytes of RAM in [from, to), or 0. */
uint64_t boot_map_place_high(const struct mull_boot_map *map, uint64_t from, uint64_t to,
                             uint64_t size);

/** The lowest page-aligned place for @size bytes of RAM in [from, to), or 0. */
uint64_t boot_map_place_low(const struct mull_boot_map *map, uint64_t from, uint64_t to,
                            uint64_t size);

/** Place and copy the initrd above @floor and below @limit. *gpa and *size are 0 without one. */
int boot_load_initrd(const struct mull_boot *boot, const struct boot_target *t, uint64_t floor,
                     uint64_t limit, uint64_t *gpa, uint64_t *size, struct mull_error *err);

/** Copy the command line to MULL_BOOT_CMDLINE. @param max  longest one this kernel takes */
int boot_load_cmdline(const struct mull_boot *boot, const struct boot_target *t, uint64_t max,
                      struct mull_error *err);

/** Keep printable characters of an untrusted string. */
void boot_set_version(struct mull_boot *boot, const char *text, size_t max);

/* linux.c */
int boot_linux_check(struct mull_boot *boot, struct mull_error *err);
int boot_linux_load(struct mull_boot *boot, const struct boot_target *t, struct mull_error *err);

/* elf.c */

/** Read the program headers into boot->elf; @note is called for each PT_NOTE, NULL: none is. */
int boot_elf_read(struct mull_boot *boot,
                  int (*note)(struct mull_boot *boot, const struct boot_elf_segment *s,
                              struct mull_error *err),
                  struct mull_error *err);

/** Check one segment and add it to what is loaded. */
int boot_elf_add(struct mull_boot *boot, const struct boot_elf_segment *s, struct mull_error *err);

/** Load all segments. @param end  of the highest */
int boot_elf_load(struct mull_boot *boot, const struct boot_target *t, uint64_t *end,
                  struct mull_error *err);

/** Protected mode without paging, flat segments; and a GDT that goes with it. */
void boot_set_flat_state(struct mull_cpu_state *s, uint32_t entry);
int boot_load_flat_gdt(const struct boot_target *t, struct mull_error *err);

/* multiboot.c */

/** @param found  it has a multiboot header; else nothing was done */
int boot_multiboot_check(struct mull_boot *boot, bool *found, struct mull_error *err);
int boot_multiboot_load(struct mull_boot *boot, const struct boot_target *t,
                        struct mull_error *err);

/* pvh.c */
int boot_pvh_check(struct mull_boot *boot, struct mull_error *err);
int boot_pvh_load(struct mull_boot *boot, const struct boot_target *t, struct mull_error *err);

#endif
