/*
 * The PVH boot protocol: an ELF kernel whose note XEN_ELFNOTE_PHYS32_ENTRY names a 32-bit entry
 * (Xen: docs/misc/pvh.pandoc, xen/include/public/arch-x86/hvm/start_info.h). Knows nothing of Xen
 * beyond that.
 */
#include <elf.h>
#include <errno.h>
#include <string.h>

#include "boot/internal.h"

#define XEN_ELFNOTE_PHYS32_ENTRY 18
#define HVM_START_MAGIC 0x336ec578u
#define NOTES_MAX 65536u
#define PVH_MODLIST (MULL_BOOT_PARAMS + 0x100)
#define PVH_MEMMAP (MULL_BOOT_PARAMS + 0x200)

struct hvm_start_info {
    uint32_t magic, version, flags, nr_modules;
    uint64_t modlist, cmdline, rsdp, memmap;
    uint32_t memmap_entries, reserved;
};

struct hvm_modlist_entry {
    uint64_t address, size, cmdline, reserved;
};

struct hvm_memmap_entry {
    uint64_t address, size;
    uint32_t type, reserved;
};

/* One program header of either ELF class. */
struct segment {
    uint32_t type;
    uint64_t offset, file_size, address, size;
};

static uint64_t align4(uint64_t n)
{
    return (n + 3) & ~3ull;
}

/* Look for the entry in one PT_NOTE segment. @return 0; *entry stays 0 where it is not there. */
static int find_entry(struct mull_boot *boot, const struct segment *s, uint32_t *entry,
                      struct mull_error *err)
{
    static const char owner[4] = "Xen";
    uint8_t note[64];
    uint64_t size = s->file_size < NOTES_MAX ? s->file_size : NOTES_MAX, at = 0;
    if (s->offset > boot->kernel.size || size > boot->kernel.size - s->offset)
        return mull_fail(err, EINVAL, "%s: truncated: its notes lie beyond the end of the file",
                         boot->kernel.name);
    while (size - at >= sizeof(Elf64_Nhdr)) {
        Elf64_Nhdr head;
        int ret = boot_read(&boot->kernel, s->offset + at, &head, sizeof(head), err);
        if (ret)
            return ret;
        uint64_t whole = sizeof(head) + align4(head.n_namesz) + align4(head.n_descsz);
        if (whole > size - at)
            return 0;
        if (head.n_type == XEN_ELFNOTE_PHYS32_ENTRY && head.n_namesz == sizeof(owner) &&
            head.n_descsz >= 4 && head.n_descsz <= 8) {
            ret = boot_read(&boot->kernel, s->offset + at, note, whole, err);
            if (ret)
                return ret;
            if (!memcmp(note + sizeof(head), owner, sizeof(owner)))
                memcpy(entry, note + sizeof(head) + sizeof(owner), sizeof(*entry));
        }
        at += whole;
    }
    return 0;
}

static int add_segment(struct mull_boot *boot, const struct segment *s, struct mull_error *err)
{
    struct boot_pvh *img = &boot->pvh;
    const char *name = boot->kernel.name;
    if (!s->size)
        return 0;
    if (img->count == BOOT_PVH_SEGMENTS)
        return mull_fail(err, ENOTSUP, "%s: more than %d segments to load", name,
                         BOOT_PVH_SEGMENTS);
    if (s->file_size > s->size)
        return mull_fail(err, EINVAL, "%s: a segment holds more in the file than in memory", name);
    if (s->offset > boot->kernel.size || s->file_size > boot->kernel.size - s->offset)
        return mull_fail(err, EINVAL,
                         "%s: truncated: a segment lies beyond the end of the file; fetch the file "
                         "again",
                         name);
    if (s->address < 0x100000 || s->address >= (4ull << 30) || s->size > (4ull << 30) - s->address)
        return mull_fail(err, EINVAL,
                         "%s: a segment wants to be at 0x%llx; only 1 MiB to 4 GiB can be loaded",
                         name, (unsigned long long)s->address);
    img->segment[img->count].offset = s->offset;
    img->segment[img->count].file_size = s->file_size;
    img->segment[img->count].address = s->address;
    img->segment[img->count].size = s->size;
    img->count++;
    return 0;
}

static int read_segment(struct mull_boot *boot, bool is64, uint64_t at, struct segment *s,
                        struct mull_error *err)
{
    if (is64) {
        Elf64_Phdr p;
        int ret = boot_read(&boot->kernel, at, &p, sizeof(p), err);
        *s = (struct segment){p.p_type, p.p_offset, p.p_filesz, p.p_paddr, p.p_memsz};
        return ret;
    }
    Elf32_Phdr p;
    int ret = boot_read(&boot->kernel, at, &p, sizeof(p), err);
    *s = (struct segment){p.p_type, p.p_offset, p.p_filesz, p.p_paddr, p.p_memsz};
    return ret;
}

/* Where the program headers are, for both ELF classes. */
static int read_header(struct mull_boot *boot, bool *is64, uint64_t *phoff, uint64_t *entsize,
                       unsigned *count, struct mull_error *err)
{
    const char *name = boot->kernel.name;
    uint8_t ident[EI_NIDENT];
    int ret = boot_read(&boot->kernel, 0, ident, sizeof(ident), err);
    if (ret)
        return ret;
    uint16_t machine, want;
    *is64 = ident[EI_CLASS] == ELFCLASS64;
    if (*is64) {
        Elf64_Ehdr e;
        if ((ret = boot_read(&boot->kernel, 0, &e, sizeof(e), err)))
            return ret;
        machine = e.e_machine, want = EM_X86_64;
        *phoff = e.e_phoff, *entsize = e.e_phentsize, *count = e.e_phnum;
        if (*entsize < sizeof(Elf64_Phdr))
            *count = 0;
    } else {
        Elf32_Ehdr e;
        if ((ret = boot_read(&boot->kernel, 0, &e, sizeof(e), err)))
            return ret;
        machine = e.e_machine, want = EM_386;
        *phoff = e.e_phoff, *entsize = e.e_phentsize, *count = e.e_phnum;
        if (*entsize < sizeof(Elf32_Phdr))
            *count = 0;
    }
    if (ident[EI_DATA] != ELFDATA2LSB || machine != want)
        return mull_fail(err, EINVAL, "%s: an ELF file, but not for x86; give --kernel an x86 one",
                         name);
    if (!*count)
        return mull_fail(err, EINVAL, "%s: an ELF file without program headers: no kernel", name);
    if (*phoff >= boot->kernel.size)
        return mull_fail(err, EINVAL, "%s: truncated: no program headers at %llu; fetch it again",
                         name, (unsigned long long)*phoff);
    return 0;
}

int boot_pvh_check(struct mull_boot *boot, struct mull_error *err)
{
    bool is64;
    uint64_t phoff, entsize;
    unsigned count;
    int ret = read_header(boot, &is64, &phoff, &entsize, &count, err);
    if (ret)
        return ret;
    boot->pvh.count = 0;
    boot->pvh.entry = 0;
    for (unsigned i = 0; i < count; i++) {
        struct segment s;
        ret = read_segment(boot, is64, phoff + i * entsize, &s, err);
        if (!ret && s.type == PT_LOAD)
            ret = add_segment(boot, &s, err);
        if (!ret && s.type == PT_NOTE && !boot->pvh.entry)
            ret = find_entry(boot, &s, &boot->pvh.entry, err);
        if (ret)
            return ret;
    }
    if (!boot->pvh.entry)
        return mull_fail(err, EINVAL,
                         "%s: an ELF file without a PVH entry (note XEN_ELFNOTE_PHYS32_ENTRY): use "
                         "the bzImage or build with CONFIG_PVH",
                         boot->kernel.name);
    if (!boot->pvh.count)
        return mull_fail(err, EINVAL, "%s: an ELF file with nothing to load", boot->kernel.name);
    return 0;
}

static int load_segments(struct mull_boot *boot, const struct boot_target *t, uint64_t *end,
                         struct mull_error *err)
{
    *end = 0;
    for (unsigned i = 0; i < boot->pvh.count; i++) {
        uint64_t address = boot->pvh.segment[i].address, size = boot->pvh.segment[i].size;
        uint64_t file_size = boot->pvh.segment[i].file_size;
        if (!boot_map_has_ram(t->map, address, size))
            return mull_fail(err, ENOSPC,
                             "%s: needs memory at 0x%llx to 0x%llx, the machine has %llu MiB; give "
                             "--memory more",
                             boot->kernel.name, (unsigned long long)address,
                             (unsigned long long)(address + size),
                             (unsigned long long)boot_map_total(t->map) >> 20);
        int ret =
            boot_copy(&boot->kernel, boot->pvh.segment[i].offset, t->mem, address, file_size, err);
        if (ret)
            return ret;
        if (size > file_size && mull_mem_set(t->mem, address + file_size, 0, size - file_size))
            return mull_fail(err, EFAULT, "%s: no RAM at 0x%llx", boot->kernel.name,
                             (unsigned long long)address);
        if (address + size > *end)
            *end = address + size;
    }
    return 0;
}

/* pvh.pandoc: "the register state at the entry point". */
static void set_entry_state(struct mull_cpu_state *s, uint32_t entry)
{
    const uint32_t attr = MULL_SEG_P | MULL_SEG_S | MULL_SEG_DB | MULL_SEG_G;
    struct mull_segment data = {.limit = 0xffffffff, .attr = attr | 0x3, .selector = 0x18};
    for (unsigned i = MULL_ES; i <= MULL_GS; i++)
        s->seg[i] = data;
    s->seg[MULL_CS] =
        (struct mull_segment){.limit = 0xffffffff, .attr = attr | 0xb, .selector = 0x10};
    s->seg[MULL_TR] =
        (struct mull_segment){.limit = 0x67, .attr = 0xb | MULL_SEG_P, .selector = 0x20};
    s->seg[MULL_LDTR] = (struct mull_segment){.attr = MULL_SEG_UNUSABLE};
    s->gdt = (struct mull_table){.base = MULL_BOOT_GDT, .limit = 0x27};
    s->idt = (struct mull_table){.base = 0, .limit = 0};
    s->cr0 = 0x11; /* ET, PE */
    s->cr4 = 0;
    s->efer = 0;
    s->rflags = 0x2;
    s->gpr[MULL_RBX] = MULL_BOOT_PARAMS;
    s->rip = entry;
}

int boot_pvh_load(struct mull_boot *boot, const struct boot_target *t, struct mull_error *err)
{
    /* Flat 32-bit code and data, a busy TSS: the state below, for a guest that looks. */
    static const uint64_t gdt[5] = {0, 0, 0x00cf9b000000ffff, 0x00cf93000000ffff,
                                    0x00008b0000000067};
    uint64_t end;
    int ret = load_segments(boot, t, &end, err);
    if (!ret)
        ret = boot_load_cmdline(boot, t, MULL_BOOT_CMDLINE_MAX, err);
    if (ret)
        return ret;
    struct hvm_modlist_entry module = {0};
    ret = boot_load_initrd(boot, t, (end + 0xfff) & MULL_PAGE_MASK, 4ull << 30, &module.address,
                           &module.size, err);
    if (ret)
        return ret;

    struct hvm_memmap_entry map[sizeof(t->map->range) / sizeof(t->map->range[0])] = {0};
    for (unsigned i = 0; i < t->map->count; i++)
        map[i] = (struct hvm_memmap_entry){t->map->range[i].base, t->map->range[i].size,
                                           t->map->range[i].type, 0};
    struct hvm_start_info info = {
        .magic = HVM_START_MAGIC,
        .version = 1,
        .nr_modules = module.size ? 1 : 0,
        .modlist = module.size ? PVH_MODLIST : 0,
        .cmdline = MULL_BOOT_CMDLINE,
        .rsdp = t->rsdp,
        .memmap = PVH_MEMMAP,
        .memmap_entries = t->map->count,
    };
    if (mull_mem_load(t->mem, MULL_BOOT_GDT, gdt, sizeof(gdt)) ||
        mull_mem_load(t->mem, PVH_MODLIST, &module, sizeof(module)) ||
        mull_mem_load(t->mem, PVH_MEMMAP, map, sizeof(map)) ||
        mull_mem_load(t->mem, MULL_BOOT_PARAMS, &info, sizeof(info)))
        return mull_fail(err, EFAULT, "boot parameters: no RAM below 0x%x", MULL_BOOT_LOW_END);
    set_entry_state(t->bsp, boot->pvh.entry);
    return 0;
}
