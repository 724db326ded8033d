/*
 * Multiboot kernels, as GRUB boots them: the Multiboot Specification 0.6.96 ("1") and Multiboot2
 * 2.0 ("2"). Finds the header, loads the kernel by it or as an ELF file, places the modules and
 * enters 32-bit protected mode. What is told to the kernel is written by multiboot_info.c.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "boot/multiboot.h"

#define MAGIC1 0x1badb002u
#define MAGIC2 0xe85250d6u
#define ENTRY_MAGIC1 0x2badb002u
#define ENTRY_MAGIC2 0x36d76289u

/* Flags of a header (0.6.96, 3.1.2). Bits 0 to 15 must be understood. */
#define H1_ALIGN 0x1u
#define H1_MEMORY 0x2u
#define H1_VIDEO 0x4u
#define H1_ADDRESSES 0x10000u
#define H1_KNOWN (H1_ALIGN | H1_MEMORY | H1_VIDEO)

/* Tags of a header (2.0, 3.1). */
enum {
    H2_END,
    H2_REQUEST,
    H2_ADDRESS,
    H2_ENTRY,
    H2_CONSOLE,
    H2_FRAMEBUFFER,
    H2_ALIGN,
    H2_EFI_SERVICES,
    H2_EFI_ENTRY32,
    H2_EFI_ENTRY64,
    H2_RELOCATABLE,
};
#define H2_OPTIONAL 1u

static uint32_t get32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint16_t get16(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

/* ---- Finding the header ---- */

/* @return its offset; -1: there is none */
static int64_t find1(const uint8_t *p, size_t size)
{
    for (size_t at = 0; at + 12 <= size && at < BOOT_MULTIBOOT1_SEARCH; at += 4)
        if (get32(p + at) == MAGIC1 && MAGIC1 + get32(p + at + 4) + get32(p + at + 8) == 0)
            return (int64_t)at;
    return -1;
}

static int64_t find2(const uint8_t *p, size_t size)
{
    for (size_t at = 0; at + 16 <= size; at += 8)
        if (get32(p + at) == MAGIC2 &&
            get32(p + at) + get32(p + at + 4) + get32(p + at + 8) + get32(p + at + 12) == 0)
            return (int64_t)at;
    return -1;
}

static int refuse(const struct mull_boot *boot, struct mull_error *err, const char *what)
{
    return mull_fail(err, ENOTSUP, "%s: its multiboot header %s", boot->kernel.name, what);
}

/* The addresses of a kernel that is not loaded as an ELF file ("a.out kludge"): where the header
 * will be, where what is loaded begins, ends (0: with the file), and where its BSS ends (0: none).
 */
static int set_addresses(struct mull_boot *boot, uint64_t header_offset, const uint32_t a[4],
                         struct mull_error *err)
{
    struct boot_multiboot *mb = &boot->multiboot;
    uint64_t header = a[0], load = a[1], end = a[2], bss = a[3];

    if (load == 0xffffffff) { /* 2.0, 3.1.5: from the beginning of the file */
        if (header < header_offset)
            return refuse(boot, err, "wants to be loaded below address 0");
        load = header - header_offset;
    }
    if (load > header || header - load > header_offset)
        return refuse(boot, err, "lies before what it says is loaded");
    uint64_t from = header_offset - (header - load);
    uint64_t size = end ? end - load : boot->kernel.size - from;
    if ((end && end < load) || size > boot->kernel.size - from)
        return refuse(boot, err, "wants more loaded than the file has; is it truncated?");
    if (bss && bss < load + size)
        return refuse(boot, err, "has a BSS that ends before it begins");
    struct boot_elf_segment s = {.type = BOOT_ELF_LOAD,
                                 .offset = from,
                                 .file_size = size,
                                 .address = load,
                                 .size = bss ? bss - load : size};
    mb->addresses = true;
    boot->elf.count = 0;
    return boot_elf_add(boot, &s, err);
}

/* ---- 1 ---- */

static int check1(struct mull_boot *boot, const uint8_t *p, size_t size, uint64_t at,
                  struct mull_error *err)
{
    struct boot_multiboot *mb = &boot->multiboot;
    uint32_t flags = get32(p + at + 4);

    mb->version = 1;
    if (flags & 0xffff & ~H1_KNOWN)
        return mull_fail(err, ENOTSUP,
                         "%s: its multiboot header wants features (0x%x) that nobody knows",
                         boot->kernel.name, flags & 0xffff & ~H1_KNOWN);
    if (!(flags & H1_ADDRESSES))
        return 0;
    if (at + 32 > size)
        return refuse(boot, err, "is cut off by the end of the file");
    const uint32_t a[4] = {get32(p + at + 12), get32(p + at + 16), get32(p + at + 20),
                           get32(p + at + 24)};
    mb->entry = get32(p + at + 28);
    return set_addresses(boot, at, a, err);
}

/* ---- 2 ---- */

/* What it asks to be told must be something that can be told, unless it is optional. */
static int check_request(struct mull_boot *boot, const uint8_t *tag, uint32_t size,
                         struct mull_error *err)
{
    for (uint32_t i = 8; i + 4 <= size; i += 4)
        if (!boot_multiboot2_tells(get32(tag + i)) && !(get16(tag + 2) & H2_OPTIONAL))
            return mull_fail(err, ENOTSUP,
                             "%s: wants to be told something (multiboot2 tag %u) that is not there",
                             boot->kernel.name, get32(tag + i));
    return 0;
}

static int check_tag(struct mull_boot *boot, uint64_t header_offset, const uint8_t *tag,
                     uint32_t size, struct mull_error *err)
{
    struct boot_multiboot *mb = &boot->multiboot;

    switch (get16(tag)) {
    case H2_REQUEST:
        return check_request(boot, tag, size, err);
    case H2_ADDRESS:
        if (size < 24)
            return refuse(boot, err, "has a short tag");
        const uint32_t a[4] = {get32(tag + 8), get32(tag + 12), get32(tag + 16), get32(tag + 20)};
        return set_addresses(boot, header_offset, a, err);
    case H2_ENTRY:
        if (size < 12)
            return refuse(boot, err, "has a short tag");
        mb->entry = get32(tag + 8);
        mb->has_entry = true;
        return 0;
    case H2_FRAMEBUFFER:
        if (!(get16(tag + 2) & H2_OPTIONAL))
            return refuse(boot, err,
                          "insists on a framebuffer, which only firmware sets up: boot "
                          "it by GRUB from a disk");
        return 0;
    case H2_CONSOLE: /* there is a serial one; whoever needs the screen says H2_FRAMEBUFFER */
    case H2_ALIGN:
    case H2_EFI_SERVICES: /* these four are what it can do, not what it needs */
    case H2_EFI_ENTRY32:
    case H2_EFI_ENTRY64:
    case H2_RELOCATABLE:
        return 0;
    default:
        return get16(tag + 2) & H2_OPTIONAL ? 0 : refuse(boot, err, "has a tag that nobody knows");
    }
}

static int check2(struct mull_boot *boot, const uint8_t *p, size_t size, uint64_t at,
                  struct mull_error *err)
{
    struct boot_multiboot *mb = &boot->multiboot;
    uint32_t length = get32(p + at + 8);

    mb->version = 2;
    if (get32(p + at + 4) != 0)
        return refuse(boot, err, "is for another processor than x86");
    if (length < 16 || length > size - at)
        return refuse(boot, err, "is cut off by the end of the file");
    for (uint64_t i = at + 16; i + 8 <= at + length;) {
        uint32_t tag_size = get32(p + i + 4);
        if (get16(p + i) == H2_END)
            break;
        if (tag_size < 8 || tag_size > at + length - i)
            return refuse(boot, err, "has a tag that is longer than it");
        int ret = check_tag(boot, at, p + i, tag_size, err);
        if (ret)
            return ret;
        i += ((uint64_t)tag_size + 7) & ~7ull;
    }
    if (mb->addresses && !mb->has_entry)
        return refuse(boot, err, "has addresses, but no entry");
    return 0;
}

int boot_multiboot_check(struct mull_boot *boot, bool *found, struct mull_error *err)
{
    size_t size =
        boot->kernel.size < BOOT_MULTIBOOT2_SEARCH ? boot->kernel.size : BOOT_MULTIBOOT2_SEARCH;
    struct boot_multiboot *mb = &boot->multiboot;
    uint8_t *start = malloc(size ? size : 1);

    if (!start)
        return mull_fail(err, ENOMEM, "%s: no memory", boot->kernel.name);
    int ret = boot_read(&boot->kernel, 0, start, size, err);
    int64_t at2 = ret ? -1 : find2(start, size), at1 = ret ? -1 : find1(start, size);
    *found = at1 >= 0 || at2 >= 0;
    memset(mb, 0, sizeof(*mb));
    if (at2 >= 0)
        ret = check2(boot, start, size, (uint64_t)at2, err);
    else if (at1 >= 0)
        ret = check1(boot, start, size, (uint64_t)at1, err);
    free(start);
    if (ret || !*found || mb->addresses)
        return ret;
    ret = boot_elf_read(boot, NULL, err);
    if (!ret && !boot->elf.count)
        ret = mull_fail(err, EINVAL, "%s: an ELF file with nothing to load", boot->kernel.name);
    if (!ret && !mb->has_entry)
        mb->entry = boot->elf.entry;
    return ret;
}

/* ---- Loading ---- */

/* Both specifications, "machine state". */
static void set_entry_state(struct mull_cpu_state *s, unsigned version, uint32_t entry,
                            uint32_t info)
{
    boot_set_flat_state(s, entry);
    s->gpr[MULL_RAX] = version == 1 ? ENTRY_MAGIC1 : ENTRY_MAGIC2;
    s->gpr[MULL_RBX] = info;
}

/* Modules one behind the other above the kernel, each on a page of its own, as GRUB places them. */
static int load_modules(struct mull_boot *boot, const struct boot_target *t, uint64_t from,
                        struct mull_error *err)
{
    for (unsigned i = 0; i < boot->modules; i++) {
        struct boot_module *m = &boot->module[i];
        uint64_t size = m->source.size ? m->source.size : 1;
        m->address = boot_map_place_low(t->map, from, 4ull << 30, size);
        if (!m->address)
            return mull_fail(err, ENOSPC,
                             "%s: %llu KiB do not fit beside the kernel into %llu MiB of guest "
                             "memory; give --memory more",
                             m->source.name, (unsigned long long)size >> 10,
                             (unsigned long long)boot_map_total(t->map) >> 20);
        int ret = boot_copy(&m->source, 0, t->mem, m->address, m->source.size, err);
        if (ret)
            return ret;
        from = m->address + size;
    }
    return 0;
}

int boot_multiboot_load(struct mull_boot *boot, const struct boot_target *t, struct mull_error *err)
{
    uint64_t end;
    uint32_t info;
    int ret = boot_elf_load(boot, t, &end, err);

    if (!ret)
        ret = load_modules(boot, t, end, err);
    if (!ret)
        ret = boot_multiboot_info(boot, t, &info, err);
    if (ret)
        return ret;
    ret = boot_load_flat_gdt(t, err);
    set_entry_state(t->bsp, boot->multiboot.version, boot->multiboot.entry, info);
    return ret;
}
