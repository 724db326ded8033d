/*
 * ELF kernels: what is loaded where, and the flat 32-bit state that PVH and multiboot kernels start
 * in. Knows neither protocol.
 */
#include <elf.h>
#include <errno.h>
#include <string.h>

#include "boot/internal.h"

int boot_elf_add(struct mull_boot *boot, const struct boot_elf_segment *s, struct mull_error *err)
{
    struct boot_elf *img = &boot->elf;
    const char *name = boot->kernel.name;
    if (!s->size)
        return 0;
    if (img->count == BOOT_ELF_SEGMENTS)
        return mull_fail(err, ENOTSUP, "%s: more than %d segments to load", name,
                         BOOT_ELF_SEGMENTS);
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
    img->segment[img->count++] = *s;
    return 0;
}

static int read_segment(struct mull_boot *boot, bool is64, uint64_t at, struct boot_elf_segment *s,
                        struct mull_error *err)
{
    if (is64) {
        Elf64_Phdr p;
        int ret = boot_read(&boot->kernel, at, &p, sizeof(p), err);
        *s = (struct boot_elf_segment){p.p_type,  p.p_offset, p.p_filesz,
                                       p.p_paddr, p.p_memsz,  p.p_vaddr};
        return ret;
    }
    Elf32_Phdr p;
    int ret = boot_read(&boot->kernel, at, &p, sizeof(p), err);
    *s = (struct boot_elf_segment){p.p_type,  p.p_offset, p.p_filesz,
                                   p.p_paddr, p.p_memsz,  p.p_vaddr};
    return ret;
}

/* Where the program headers are, for both ELF classes. */
static int read_header(struct mull_boot *boot, bool *is64, uint64_t *phoff, uint64_t *entsize,
                       unsigned *count, uint64_t *entry, struct mull_error *err)
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
        *phoff = e.e_phoff, *entsize = e.e_phentsize, *count = e.e_phnum, *entry = e.e_entry;
        if (*entsize < sizeof(Elf64_Phdr))
            *count = 0;
    } else {
        Elf32_Ehdr e;
        if ((ret = boot_read(&boot->kernel, 0, &e, sizeof(e), err)))
            return ret;
        machine = e.e_machine, want = EM_386;
        *phoff = e.e_phoff, *entsize = e.e_phentsize, *count = e.e_phnum, *entry = e.e_entry;
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

int boot_elf_read(struct mull_boot *boot,
                  int (*note)(struct mull_boot *boot, const struct boot_elf_segment *s,
                              struct mull_error *err),
                  struct mull_error *err)
{
    bool is64;
    uint64_t phoff, entsize, entry;
    unsigned count;
    int ret = read_header(boot, &is64, &phoff, &entsize, &count, &entry, err);
    if (ret)
        return ret;
    boot->elf.count = 0;
    for (unsigned i = 0; i < count; i++) {
        struct boot_elf_segment s;
        ret = read_segment(boot, is64, phoff + i * entsize, &s, err);
        if (!ret && s.type == PT_LOAD)
            ret = boot_elf_add(boot, &s, err);
        if (!ret && s.type == PT_NOTE && note)
            ret = note(boot, &s, err);
        if (ret)
            return ret;
    }
    /* It is a virtual address; what is entered is where that was loaded. */
    boot->elf.entry = (uint32_t)entry;
    for (unsigned i = 0; i < boot->elf.count; i++) {
        const struct boot_elf_segment *s = &boot->elf.segment[i];
        if (entry - s->virtual < s->size)
            boot->elf.entry = (uint32_t)(s->address + (entry - s->virtual));
    }
    return 0;
}

int boot_elf_load(struct mull_boot *boot, const struct boot_target *t, uint64_t *end,
                  struct mull_error *err)
{
    *end = 0;
    for (unsigned i = 0; i < boot->elf.count; i++) {
        uint64_t address = boot->elf.segment[i].address, size = boot->elf.segment[i].size;
        uint64_t file_size = boot->elf.segment[i].file_size;
        if (!boot_map_has_ram(t->map, address, size))
            return mull_fail(err, ENOSPC,
                             "%s: needs memory at 0x%llx to 0x%llx, the machine has %llu MiB; give "
                             "--memory more",
                             boot->kernel.name, (unsigned long long)address,
                             (unsigned long long)(address + size),
                             (unsigned long long)boot_map_total(t->map) >> 20);
        int ret =
            boot_copy(&boot->kernel, boot->elf.segment[i].offset, t->mem, address, file_size, err);
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

int boot_load_flat_gdt(const struct boot_target *t, struct mull_error *err)
{
    /* Flat 32-bit code and data, a busy TSS: the state below, for a guest that looks. */
    static const uint64_t gdt[5] = {0, 0, 0x00cf9b000000ffff, 0x00cf93000000ffff,
                                    0x00008b0000000067};

    if (mull_mem_load(t->mem, MULL_BOOT_GDT, gdt, sizeof(gdt)))
        return mull_fail(err, EFAULT, "boot parameters: no RAM below 0x%x", MULL_BOOT_LOW_END);
    return 0;
}

void boot_set_flat_state(struct mull_cpu_state *s, uint32_t entry)
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
    s->rip = entry;
}
