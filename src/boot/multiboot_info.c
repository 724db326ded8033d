/*
 * What a multiboot kernel is told of its machine: "Boot information format" of the Multiboot
 * Specification 0.6.96, 3.3, and of Multiboot2 2.0, 3.6. Built in a buffer whose addresses are
 * known beforehand, then copied into low memory.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "boot/multiboot.h"

#define INFO_BASE MULL_BOOT_CMDLINE
#define INFO_MAX (MULL_BOOT_LOW_END - INFO_BASE)
#define LOADER_NAME "Mullion"

/* Flags of the first version. */
#define I1_MEMORY 0x1u
#define I1_CMDLINE 0x4u
#define I1_MODULES 0x8u
#define I1_MAP 0x40u
#define I1_LOADER 0x200u
#define I1_SIZE 116u

enum {
    I2_END,
    I2_CMDLINE,
    I2_LOADER,
    I2_MODULE,
    I2_MEMORY,
    I2_BOOT_DEVICE,
    I2_MAP,
    I2_ACPI_OLD = 14,
    I2_ACPI_NEW = 15,
    I2_LOAD_BASE = 21,
};

struct info {
    uint8_t *data;
    uint32_t size;
    bool full;
};

static void put(struct info *b, const void *data, uint32_t size)
{
    if (size > INFO_MAX - b->size) {
        b->full = true;
        return;
    }
    memcpy(b->data + b->size, data, size);
    b->size += size;
}

static void put32(struct info *b, uint32_t value)
{
    put(b, &value, 4);
}

static void put64(struct info *b, uint64_t value)
{
    put(b, &value, 8);
}

static void align(struct info *b)
{
    static const uint8_t zero[8];
    put(b, zero, -b->size & 7);
}

static void set32(struct info *b, uint32_t at, uint32_t value)
{
    if (at + 4 <= b->size)
        memcpy(b->data + at, &value, 4);
}

/* The file's own name, then what it is to be told: the first word is the kernel's or module's name
 * by convention, and kernels skip it. */
static void put_words(struct info *b, const char *name, const char *words)
{
    const char *path = strchr(name, ' '); /* "kernel PATH" */
    const char *slash = strrchr(name, '/');
    const char *file = slash ? slash + 1 : path ? path + 1 : name;

    put(b, file, (uint32_t)strlen(file));
    if (words && *words) {
        put(b, " ", 1);
        put(b, words, (uint32_t)strlen(words));
    }
    put(b, "", 1);
}

/* KiB of RAM from 0, and from 1 MiB on up to the first hole. */
static void memory_sizes(const struct mull_boot_map *map, uint32_t *lower, uint32_t *upper)
{
    *lower = *upper = 0;
    for (unsigned i = 0; i < map->count; i++) {
        const struct mull_boot_range *r = &map->range[i];
        if (r->type == MULL_BOOT_RAM && r->base == 0)
            *lower = (uint32_t)((r->size < 0xa0000 ? r->size : 0xa0000) >> 10);
        if (r->type == MULL_BOOT_RAM && r->base == 0x100000)
            *upper = (uint32_t)((r->size < 0xffffffff ? r->size : 0xffffffff) >> 10);
    }
}

/* A loader that could boot such kernels was always started by a BIOS, in whose data they look for the
 * end of low memory: the segment of the extended data area, KiB of base memory. */
static int write_bios_data(const struct boot_target *t)
{
    uint32_t lower, upper;

    memory_sizes(t->map, &lower, &upper);
    int ret = mull_mem_write16(t->mem, 0x40e, (uint16_t)(lower << 6));
    return ret ? ret : mull_mem_load(t->mem, 0x413, &lower, 2);
}

/* ---- 1 ---- */

static void write1(const struct mull_boot *boot, const struct boot_target *t, struct info *b)
{
    static const uint8_t zero[I1_SIZE];
    uint32_t lower, upper, flags = I1_MEMORY | I1_CMDLINE | I1_MAP | I1_LOADER;

    memory_sizes(t->map, &lower, &upper);
    put(b, zero, I1_SIZE);
    set32(b, 4, lower);
    set32(b, 8, upper);
    set32(b, 16, INFO_BASE + b->size);
    put_words(b, boot->kernel.name, boot->cmdline);
    set32(b, 64, INFO_BASE + b->size);
    put(b, LOADER_NAME, sizeof(LOADER_NAME));
    align(b);
    set32(b, 44, t->map->count * 24);
    set32(b, 48, INFO_BASE + b->size);
    for (unsigned i = 0; i < t->map->count; i++) {
        put32(b, 20); /* bytes behind this */
        put64(b, t->map->range[i].base);
        put64(b, t->map->range[i].size);
        put32(b, t->map->range[i].type);
    }
    if (boot->modules) {
        uint32_t list = b->size;
        flags |= I1_MODULES;
        set32(b, 20, boot->modules);
        set32(b, 24, INFO_BASE + list);
        for (unsigned i = 0; i < boot->modules; i++)
            put(b, zero, 16);
        for (unsigned i = 0; i < boot->modules; i++) {
            const struct boot_module *m = &boot->module[i];
            set32(b, list + 16 * i, (uint32_t)m->address);
            set32(b, list + 16 * i + 4, (uint32_t)(m->address + m->source.size));
            set32(b, list + 16 * i + 8, INFO_BASE + b->size);
            put_words(b, m->source.name, m->args);
        }
    }
    set32(b, 0, flags);
}

/* ---- 2 ---- */

bool boot_multiboot2_tells(uint32_t type)
{
    static const uint32_t known[] = {I2_END, I2_CMDLINE,  I2_LOADER,   I2_MODULE,   I2_MEMORY,
                                     I2_MAP, I2_ACPI_OLD, I2_ACPI_NEW, I2_LOAD_BASE};

    for (unsigned i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (known[i] == type)
            return true;
    return false;
}

static uint32_t begin_tag(struct info *b, uint32_t type)
{
    align(b);
    uint32_t at = b->size;
    put32(b, type);
    put32(b, 0);
    return at;
}

static void end_tag(struct info *b, uint32_t at)
{
    set32(b, at + 4, b->size - at);
}

/* Copies of the ACPI root pointer: of revision 0, of revision 2. */
static void put_acpi(const struct boot_target *t, struct info *b)
{
    uint8_t rsdp[36];

    if (!t->rsdp || mull_mem_read(t->mem, t->rsdp, rsdp, sizeof(rsdp)))
        return;
    uint32_t at = begin_tag(b, I2_ACPI_NEW);
    put(b, rsdp, sizeof(rsdp));
    end_tag(b, at);
}

static void write2(const struct mull_boot *boot, const struct boot_target *t, struct info *b)
{
    uint32_t lower, upper, at;

    memory_sizes(t->map, &lower, &upper);
    put64(b, 0); /* size, reserved */
    at = begin_tag(b, I2_CMDLINE);
    put_words(b, boot->kernel.name, boot->cmdline);
    end_tag(b, at);
    at = begin_tag(b, I2_LOADER);
    put(b, LOADER_NAME, sizeof(LOADER_NAME));
    end_tag(b, at);
    for (unsigned i = 0; i < boot->modules; i++) {
        const struct boot_module *m = &boot->module[i];
        at = begin_tag(b, I2_MODULE);
        put32(b, (uint32_t)m->address);
        put32(b, (uint32_t)(m->address + m->source.size));
        put_words(b, m->source.name, m->args);
        end_tag(b, at);
    }
    at = begin_tag(b, I2_MEMORY);
    put32(b, lower);
    put32(b, upper);
    end_tag(b, at);
    at = begin_tag(b, I2_MAP);
    put32(b, 24);
    put32(b, 0);
    for (unsigned i = 0; i < t->map->count; i++) {
        put64(b, t->map->range[i].base);
        put64(b, t->map->range[i].size);
        put32(b, t->map->range[i].type);
        put32(b, 0);
    }
    end_tag(b, at);
    put_acpi(t, b);
    at = begin_tag(b, I2_LOAD_BASE);
    put32(b, (uint32_t)boot->elf.segment[0].address);
    end_tag(b, at);
    at = begin_tag(b, I2_END);
    end_tag(b, at);
    set32(b, 0, b->size);
}

int boot_multiboot_info(const struct mull_boot *boot, const struct boot_target *t, uint32_t *gpa,
                        struct mull_error *err)
{
    struct info b = {.data = calloc(1, INFO_MAX)};
    int ret = 0;

    if (!b.data)
        return mull_fail(err, ENOMEM, "%s: no memory", boot->kernel.name);
    if (boot->multiboot.version == 1)
        write1(boot, t, &b);
    else
        write2(boot, t, &b);
    if (b.full)
        ret = mull_fail(err, E2BIG,
                        "%s: its command line and its modules' are more than %u KiB together",
                        boot->kernel.name, INFO_MAX >> 10);
    else if (mull_mem_load(t->mem, INFO_BASE, b.data, b.size) || write_bios_data(t))
        ret = mull_fail(err, EFAULT, "boot information: no RAM below 0x%x", MULL_BOOT_LOW_END);
    free(b.data);
    *gpa = INFO_BASE;
    return ret;
}
