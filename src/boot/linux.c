/*
 * The Linux x86 boot protocol for bzImage, 64-bit entry for kernels that have one, else 32-bit
 * entry: Documentation/arch/x86/boot.rst ("the boot protocol" below). Builds struct boot_params,
 * the GDT and the identity map that the kernel expects.
 */
#include <asm/bootparam.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/random.h>

#include "boot/internal.h"

#define HEADER_OFFSET offsetof(struct boot_params, hdr)
#define BOOT_PROTOCOL_2_12 0x020c /* first with xloadflags */
#define SETUP_RNG_SEED 9          /* asm/setup_data.h */
#define BOOT_CS 0x10              /* boot protocol, "64-bit Boot Protocol" */
#define BOOT_DS 0x18
#define IDENTITY_GIB 4

/* GDT descriptors: flat code, flat data, a busy TSS of two entries (SDM volume 3, 3.4.5, 7.2.3). */
#define GDT_CODE64 0x00af9b000000ffffull
#define GDT_CODE32 0x00cf9b000000ffffull
static const uint64_t boot_gdt[] = {
    0, 0, GDT_CODE64, 0x00cf93000000ffff, 0x00008b0000000067, 0,
};

static void read_version(struct mull_boot *boot, const struct setup_header *h)
{
    /* Boot protocol, "kernel_version": offset of a string from 0x200, 0: none. */
    char text[BOOT_VERSION_MAX];
    uint64_t at = (uint64_t)h->kernel_version + 0x200;
    if (!h->kernel_version || at + sizeof(text) > boot->kernel.size)
        return;
    if (!boot_read(&boot->kernel, at, text, sizeof(text), NULL))
        boot_set_version(boot, text, sizeof(text));
}

int boot_linux_check(struct mull_boot *boot, struct mull_error *err)
{
    struct boot_linux *img = &boot->linux_image;
    const struct mull_boot_source *k = &boot->kernel;
    struct setup_header h = {0};
    _Static_assert(sizeof(h) <= sizeof(img->header), "room for the setup header");

    /* The header ends at 0x202 plus the byte at 0x201 (boot protocol, "The Real-mode Kernel
     * Header"); older kernels end before what we know, newer ones behind it. */
    uint8_t jump[2];
    int ret = boot_read(k, 0x200, jump, sizeof(jump), err);
    if (ret)
        return ret;
    uint64_t end = 0x202 + (uint64_t)jump[1];
    uint64_t size = end - HEADER_OFFSET;
    if (size > sizeof(h))
        size = sizeof(h);
    ret = boot_read(k, HEADER_OFFSET, &h, size, err);
    if (ret)
        return ret;
    if (h.boot_flag != 0xaa55)
        return mull_fail(err, EINVAL, "%s: not a bzImage: boot flag 0x%04x instead of 0xaa55",
                         k->name, h.boot_flag);
    if (h.version < BOOT_PROTOCOL_2_12)
        return mull_fail(err, ENOTSUP,
                         "%s: boot protocol %u.%02u; 2.12 (Linux 3.8) or newer is needed", k->name,
                         h.version >> 8, h.version & 0xff);
    img->wide = h.xloadflags & XLF_KERNEL_64;
    if (!(h.loadflags & LOADED_HIGH))
        return mull_fail(err, ENOTSUP, "%s: a zImage; give --kernel a bzImage", k->name);

    /* setup_sects 0 means 4 (boot protocol, "setup_sects"). */
    img->setup_size = ((h.setup_sects ? h.setup_sects : 4) + 1) * 512u;
    img->kernel_size = (uint64_t)h.syssize * 16;
    /* In paragraphs of 16 bytes: the last may not be whole. */
    if (k->size > img->setup_size && img->kernel_size > k->size - img->setup_size &&
        img->kernel_size - (k->size - img->setup_size) < 16)
        img->kernel_size = k->size - img->setup_size;
    if (img->kernel_size < 0x400 || k->size < img->setup_size ||
        img->kernel_size > k->size - img->setup_size)
        return mull_fail(err, EINVAL,
                         "%s: truncated: its header speaks of %llu bytes, the file has %llu; fetch "
                         "the file again",
                         k->name, (unsigned long long)img->setup_size + img->kernel_size,
                         (unsigned long long)k->size);
    img->load_address = h.pref_address;
    img->init_size = h.init_size > img->kernel_size ? h.init_size : img->kernel_size;
    img->initrd_max = h.initrd_addr_max;
    if (img->load_address < 0x100000 || img->load_address >= (3ull << 30) ||
        (img->load_address & (MULL_PAGE_SIZE - 1)))
        return mull_fail(err, EINVAL, "%s: its header asks for the strange load address 0x%llx",
                         k->name, (unsigned long long)img->load_address);
    memcpy(img->header, &h, size);
    img->header_size = (uint32_t)size;
    read_version(boot, &h);
    return 0;
}

/* Identity-map the first four GiB with 2 MiB pages: "the range of the kernel, the zero page and the
 * command line" is what the boot protocol demands. */
static int build_page_tables(const struct boot_target *t)
{
    const uint64_t table = 0x3, large = 0x83; /* present, writable; page size (SDM 3, 4.5) */
    uint64_t page[512] = {0};
    page[0] = (MULL_BOOT_PAGE_TABLES + 0x1000) | table;
    int ret = mull_mem_load(t->mem, MULL_BOOT_PAGE_TABLES, page, sizeof(page));
    page[0] = 0;
    for (unsigned i = 0; i < IDENTITY_GIB; i++)
        page[i] = (MULL_BOOT_PAGE_TABLES + 0x2000 + i * 0x1000ull) | table;
    if (!ret)
        ret = mull_mem_load(t->mem, MULL_BOOT_PAGE_TABLES + 0x1000, page, sizeof(page));
    for (unsigned i = 0; i < IDENTITY_GIB && !ret; i++) {
        for (unsigned j = 0; j < 512; j++)
            page[j] = ((uint64_t)i << 30) | ((uint64_t)j << 21) | large;
        ret = mull_mem_load(t->mem, MULL_BOOT_PAGE_TABLES + 0x2000 + i * 0x1000ull, page,
                            sizeof(page));
    }
    return ret;
}

/* Entropy for the guest's first random numbers: its own generator mixes it in (Linux 6.0 on; older
 * kernels skip the unknown type). */
static int add_random_seed(const struct boot_target *t, struct boot_params *p)
{
    struct {
        struct setup_data head;
        uint8_t seed[32];
    } data = {.head = {.next = 0, .type = SETUP_RNG_SEED, .len = 32}};
    if (getrandom(data.seed, sizeof(data.seed), GRND_NONBLOCK) != sizeof(data.seed))
        return 0; /* the guest only starts with less */
    p->hdr.setup_data = MULL_BOOT_SETUP_DATA;
    return mull_mem_load(t->mem, MULL_BOOT_SETUP_DATA, &data, sizeof(data));
}

static void fill_memory_map(const struct mull_boot_map *map, struct boot_params *p)
{
    for (unsigned i = 0; i < map->count && i < E820_MAX_ENTRIES_ZEROPAGE; i++) {
        p->e820_table[i].addr = map->range[i].base;
        p->e820_table[i].size = map->range[i].size;
        p->e820_table[i].type = map->range[i].type;
        p->e820_entries = (uint8_t)(i + 1);
    }
}

static struct mull_segment flat(uint16_t selector, uint32_t attr)
{
    return (struct mull_segment){.base = 0,
                                 .limit = 0xffffffff,
                                 .attr = attr | MULL_SEG_P | MULL_SEG_G,
                                 .selector = selector};
}

static void set_entry_state(struct mull_cpu_state *s, uint64_t entry, bool wide)
{
    s->seg[MULL_CS] = flat(BOOT_CS, 0xb | MULL_SEG_S | (wide ? MULL_SEG_L : MULL_SEG_DB));
    static const uint8_t data[] = {MULL_DS, MULL_ES, MULL_SS, MULL_FS, MULL_GS};
    for (unsigned i = 0; i < sizeof(data); i++)
        s->seg[data[i]] = flat(BOOT_DS, 0x3 | MULL_SEG_S | MULL_SEG_DB);
    s->seg[MULL_TR] =
        (struct mull_segment){.limit = 0x67, .attr = 0xb | MULL_SEG_P, .selector = 0x20};
    s->seg[MULL_LDTR] = (struct mull_segment){.attr = MULL_SEG_UNUSABLE};
    s->gdt = (struct mull_table){.base = MULL_BOOT_GDT, .limit = sizeof(boot_gdt) - 1};
    s->idt = (struct mull_table){.base = 0, .limit = 0};
    s->cr0 = 0x31;   /* NE, ET, PE */
    s->rflags = 0x2; /* interrupts off */
    if (wide) {
        s->cr0 |= 0x80000000; /* PG */
        s->cr3 = MULL_BOOT_PAGE_TABLES;
        s->cr4 = 0x20;   /* PAE */
        s->efer = 0x500; /* LME, LMA */
    }

    s->gpr[MULL_RSI] = MULL_BOOT_PARAMS;
    s->gpr[MULL_RDX] = 0;
    s->rip = entry;
}

int boot_linux_load(struct mull_boot *boot, const struct boot_target *t, struct mull_error *err)
{
    const struct boot_linux *img = &boot->linux_image;
    struct boot_params p = {0};
    memcpy(&p.hdr, img->header, img->header_size);

    if (!boot_map_has_ram(t->map, img->load_address, img->init_size))
        return mull_fail(err, ENOSPC,
                         "%s: needs %llu MiB of memory to start, the machine has %llu MiB; give "
                         "--memory more",
                         boot->kernel.name,
                         (unsigned long long)(img->load_address + img->init_size + 0xfffff) >> 20,
                         (unsigned long long)boot_map_total(t->map) >> 20);
    int ret = boot_load_cmdline(boot, t, p.hdr.cmdline_size, err);
    if (ret)
        return ret;
    uint64_t initrd = 0, initrd_size = 0;
    uint64_t limit = img->initrd_max + 1 < (4ull << 30) ? img->initrd_max + 1 : 4ull << 30;
    ret = boot_load_initrd(boot, t, img->load_address + img->init_size, limit, &initrd,
                           &initrd_size, err);
    if (ret)
        return ret;
    ret =
        boot_copy(&boot->kernel, img->setup_size, t->mem, img->load_address, img->kernel_size, err);
    if (ret)
        return ret;

    p.hdr.type_of_loader = 0xff; /* no registered loader (boot protocol, "type_of_loader") */
    p.hdr.loadflags &= (uint8_t)~CAN_USE_HEAP;
    p.hdr.vid_mode = 0xffff; /* "normal" */
    p.hdr.code32_start = (uint32_t)img->load_address;
    p.hdr.cmd_line_ptr = MULL_BOOT_CMDLINE;
    p.hdr.ramdisk_image = (uint32_t)initrd;
    p.hdr.ramdisk_size = (uint32_t)initrd_size;
    p.hdr.setup_data = 0;
    p.acpi_rsdp_addr = t->rsdp;
    fill_memory_map(t->map, &p);
    uint64_t gdt[sizeof(boot_gdt) / sizeof(boot_gdt[0])];
    memcpy(gdt, boot_gdt, sizeof(gdt));
    if (!img->wide)
        gdt[BOOT_CS / 8] = GDT_CODE32;
    if (add_random_seed(t, &p) || build_page_tables(t) ||
        mull_mem_load(t->mem, MULL_BOOT_GDT, gdt, sizeof(gdt)) ||
        mull_mem_load(t->mem, MULL_BOOT_PARAMS, &p, sizeof(p)))
        return mull_fail(err, EFAULT, "boot parameters: no RAM below 0x%x", MULL_BOOT_LOW_END);
    /* The 64-bit entry is 0x200 behind the start of the protected-mode kernel, the 32-bit entry. */
    set_entry_state(t->bsp, img->load_address + (img->wide ? 0x200 : 0), img->wide);
    return 0;
}
