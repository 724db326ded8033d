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

static uint64_t align4(uint64_t n)
{
    return (n + 3) & ~3ull;
}

/* Look for the entry in one PT_NOTE segment; it stays 0 where it is not there. */
static int find_entry(struct mull_boot *boot, const struct boot_elf_segment *s,
                      struct mull_error *err)
{
    static const char owner[4] = "Xen";
    uint8_t note[64];
    uint64_t size = s->file_size < NOTES_MAX ? s->file_size : NOTES_MAX, at = 0;
    if (boot->pvh_entry)
        return 0;
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
                memcpy(&boot->pvh_entry, note + sizeof(head) + sizeof(owner), 4);
        }
        at += whole;
    }
    return 0;
}

int boot_pvh_check(struct mull_boot *boot, struct mull_error *err)
{
    boot->pvh_entry = 0;
    int ret = boot_elf_read(boot, find_entry, err);
    if (ret)
        return ret;
    if (!boot->pvh_entry)
        return mull_fail(err, EINVAL,
                         "%s: an ELF file without a multiboot header and without a PVH entry (note "
                         "XEN_ELFNOTE_PHYS32_ENTRY): use the bzImage or build with CONFIG_PVH",
                         boot->kernel.name);
    if (!boot->elf.count)
        return mull_fail(err, EINVAL, "%s: an ELF file with nothing to load", boot->kernel.name);
    return 0;
}

int boot_pvh_load(struct mull_boot *boot, const struct boot_target *t, struct mull_error *err)
{
    uint64_t end;
    int ret = boot_elf_load(boot, t, &end, err);
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
    if (mull_mem_load(t->mem, PVH_MODLIST, &module, sizeof(module)) ||
        mull_mem_load(t->mem, PVH_MEMMAP, map, sizeof(map)) ||
        mull_mem_load(t->mem, MULL_BOOT_PARAMS, &info, sizeof(info)))
        return mull_fail(err, EFAULT, "boot parameters: no RAM below 0x%x", MULL_BOOT_LOW_END);
    /* pvh.pandoc: "the register state at the entry point". */
    boot_set_flat_state(t->bsp, boot->pvh_entry);
    t->bsp->gpr[MULL_RBX] = MULL_BOOT_PARAMS;
    return boot_load_flat_gdt(t, err);
}
