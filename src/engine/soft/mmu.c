/*
 * The memory management unit: page walks (no paging, 32-bit, PAE, 4-level; SDM volume 3 chapter 4)
 * and the software TLB that translated code looks into. Runs between translated blocks with the
 * guest's vectors in the host's registers, so it calls nothing but what is safe then.
 */
#include "engine/soft/cell.h"
#include "engine/soft/system.h"

#define PTE_P 0x1ull
#define PTE_W 0x2ull
#define PTE_U 0x4ull
#define PTE_A 0x20ull
#define PTE_D 0x40ull
#define PTE_PS 0x80ull
#define PTE_G 0x100ull
#define PTE_NX (1ull << 63)
#define PTE_ADDRESS 0x000ffffffffff000ull

#define PF_P 0x1u
#define PF_W 0x2u
#define PF_U 0x4u
#define PF_RSVD 0x8u
#define PF_I 0x10u

#define ACCESS_KIND 3u

_Static_assert(sizeof(struct soft_cpu) <= SOFT_COMMON_SIZE, "a window's front holds the vCPU");

/* ---- Page-table entries in guest RAM ---- */

struct entry {
    const struct mull_ram *ram;
    uint64_t gpa;
    uint64_t value;
};

/* Each physical address that a CPU makes passes here, on its way into the TLB or to a table. */
static uint64_t through_a20(const struct soft_vm *vm, uint64_t gpa)
{
    return gpa & ~atomic_load_explicit(&vm->a20_holds, memory_order_relaxed);
}

static const struct mull_ram *find_ram(const struct soft_vm *vm, uint64_t gpa)
{
    for (unsigned i = 0; i < vm->ram_count; i++)
        if (gpa - vm->ram[i].gpa < vm->ram[i].size)
            return &vm->ram[i];
    return NULL;
}

/* Tables outside RAM read as not present. */
static void read_entry(const struct soft_vm *vm, uint64_t gpa, bool wide, struct entry *e)
{
    gpa = through_a20(vm, gpa);
    e->gpa = gpa;
    e->ram = find_ram(vm, gpa);
    if (!e->ram) {
        e->value = 0;
        return;
    }
    const uint8_t *host = e->ram->host + (gpa - e->ram->gpa);
    e->value = wide ? __atomic_load_n((const uint64_t *)host, __ATOMIC_RELAXED)
                    : __atomic_load_n((const uint32_t *)host, __ATOMIC_RELAXED);
}

static _Atomic uint8_t *page_flags(const struct mull_ram *ram, const uint8_t *host)
{
    return &ram->flags[(uint64_t)(host - ram->host) >> MULL_PAGE_SHIFT];
}

/* After a write of ours to RAM: dirty tracking and translations of what was there. The flags are
 * looked at after the write is visible, as mull_mem_write() does. */
static void wrote(struct soft_cpu *cpu, const struct mull_ram *ram, const uint8_t *host,
                  uint64_t gpa, unsigned size)
{
    atomic_thread_fence(memory_order_seq_cst);
    uint8_t flags = atomic_load_explicit(page_flags(ram, host), memory_order_relaxed);
    if (flags & MULL_PAGE_CLEAN)
        atomic_fetch_and(page_flags(ram, host), (uint8_t)~MULL_PAGE_CLEAN);
    if (flags & MULL_PAGE_CODE)
        soft_code_written(cpu->vm, cpu, gpa, size);
}

/* Set accessed or dirty bits if the entry is still what was read. @return false: walk again. */
static bool set_entry_bits(struct soft_cpu *cpu, struct entry *e, bool wide, uint64_t bits)
{
    if ((e->value & bits) == bits || e->ram->readonly)
        return true;
    uint8_t *host = e->ram->host + (e->gpa - e->ram->gpa);
    bool done;
    if (wide) {
        uint64_t old = e->value;
        done = __atomic_compare_exchange_n((uint64_t *)host, &old, old | bits, false,
                                           __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    } else {
        uint32_t old = (uint32_t)e->value;
        done = __atomic_compare_exchange_n((uint32_t *)host, &old, old | (uint32_t)bits, false,
                                           __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    }
    if (done) {
        e->value |= bits;
        wrote(cpu, e->ram, host, e->gpa, wide ? 8 : 4);
    }
    return done;
}

/* ---- The walk ---- */

struct walk {
    uint64_t va;
    unsigned access;
    bool quiet;     /* change nothing, check no permission */
    bool can_write; /* out: with the privilege of `access`, dirty or not */
    uint32_t error; /* out: of the page fault */
};

enum walk_result { WALK_OK, WALK_FAULT, WALK_AGAIN };

static bool is_user_access(const struct soft_cpu *cpu, unsigned access)
{
    return (cpu->mode & SOFT_MODE_CPL3) && !(access & SOFT_SYSTEM);
}

static enum walk_result page_fault(const struct soft_cpu *cpu, struct walk *w, uint32_t error)
{
    const struct mull_cpu_state *s = &cpu->s;
    if (w->access & SOFT_WRITE)
        error |= PF_W;
    if (is_user_access(cpu, w->access))
        error |= PF_U;
    if ((w->access & ACCESS_KIND) == SOFT_EXEC &&
        ((s->cr4 & SOFT_CR4_SMEP) || ((s->cr4 & SOFT_CR4_PAE) && (s->efer & SOFT_EFER_NXE))))
        error |= PF_I;
    w->error = error;
    return WALK_FAULT;
}

/* SDM volume 3, 4.6: may the access use a page with these rights? */
static bool permitted(const struct soft_cpu *cpu, struct walk *w, bool user, bool writable, bool nx)
{
    const struct mull_cpu_state *s = &cpu->s;
    bool exec = (w->access & ACCESS_KIND) == SOFT_EXEC;

    if (is_user_access(cpu, w->access)) {
        w->can_write = writable;
        if (!user)
            return false;
    } else {
        w->can_write = writable || !(s->cr0 & SOFT_CR0_WP);
        if (user && exec && (s->cr4 & SOFT_CR4_SMEP))
            return false;
        if (user && !exec && (s->cr4 & SOFT_CR4_SMAP) &&
            ((w->access & SOFT_SYSTEM) || !(s->rflags & SOFT_AC)))
            return false;
    }
    if (exec)
        return !nx;
    return w->can_write || !(w->access & SOFT_WRITE);
}

static void set_page(struct soft_cpu *cpu, struct soft_page *page, uint64_t gpa)
{
    gpa = through_a20(cpu->vm, gpa);
    page->gpa = gpa;
    page->ram = find_ram(cpu->vm, gpa);
    page->host = page->ram ? page->ram->host + (gpa - page->ram->gpa) : NULL;
    page->device = NULL;
}

/* For data there is also what devices lend, such as a frame buffer. */
static void find_device_ram(const struct soft_vm *vm, struct soft_page *page)
{
    for (unsigned i = 0; !page->host && i < MULL_DEVICE_RAM_MAX; i++) {
        const struct mull_device_ram *d =
            atomic_load_explicit(&vm->device_ram[i], memory_order_relaxed);
        uint64_t gpa = d ? atomic_load_explicit(&d->gpa, memory_order_relaxed) : MULL_NOWHERE;
        if (gpa == MULL_NOWHERE || page->gpa - gpa >= d->ram.size)
            continue;
        page->ram = &d->ram;
        page->host = d->ram.host + (page->gpa - gpa);
        page->device = d;
    }
}

/* Reserved bits of a present entry of 32-bit or PAE paging. @level: 3 is PAE's pointer table. */
static uint64_t reserved_bits(const struct soft_cpu *cpu, unsigned level, bool large)
{
    if (!(cpu->s.cr4 & SOFT_CR4_PAE)) /* bit 21 of a 4 MiB page; PSE-36 reaches 40 bits */
        return large ? 1ull << 21 : 0;
    uint64_t reserved = cpu->mmu.reserved | 0x7ff0000000000000ull;
    if (level == 3)
        return reserved | PTE_NX | 0x1e6;
    if (!(cpu->s.efer & SOFT_EFER_NXE))
        reserved |= PTE_NX;
    return large ? reserved | 0x1fe000 : reserved;
}

/* Check rights, then set accessed and dirty bits along the way. */
static enum walk_result use_entries(struct soft_cpu *cpu, struct walk *w, struct entry *entry,
                                    unsigned count, bool wide, uint64_t all, bool nx)
{
    if (w->quiet)
        return WALK_OK;
    if (!permitted(cpu, w, all & PTE_U, all & PTE_W, nx))
        return page_fault(cpu, w, PF_P);
    if (!(all & PTE_A)) {
        for (unsigned i = 0; i < count; i++)
            if (!set_entry_bits(cpu, &entry[i], wide, PTE_A))
                return WALK_AGAIN;
    }
    if ((w->access & SOFT_WRITE) && !set_entry_bits(cpu, &entry[count - 1], wide, PTE_D))
        return WALK_AGAIN;
    return WALK_OK;
}

static void fill_page(struct soft_cpu *cpu, struct soft_page *page, uint64_t leaf, uint64_t all,
                      unsigned shift, uint64_t gpa)
{
    page->user = all & PTE_U;
    page->writable = all & PTE_W;
    page->global = (leaf & PTE_G) && (cpu->s.cr4 & SOFT_CR4_PGE);
    page->dirty = leaf & PTE_D;
    page->log2_size = (uint8_t)shift;
    set_page(cpu, page, gpa);
}

/* 4-level paging (SDM volume 3, 4.5). */
static enum walk_result walk_long(struct soft_cpu *cpu, struct walk *w, struct soft_page *page)
{
    const struct mull_cpu_state *s = &cpu->s;
    uint64_t reserved = cpu->mmu.reserved | (s->efer & SOFT_EFER_NXE ? 0 : PTE_NX);
    uint64_t table = s->cr3 & PTE_ADDRESS & ~cpu->mmu.reserved;
    uint64_t all = ~0ull, any = 0;
    struct entry entry[4], *e = entry;
    unsigned shift = 39;

    for (;; shift -= 9, e++) {
        read_entry(cpu->vm, table + (w->va >> shift & 511) * 8, true, e);
        if (!(e->value & PTE_P))
            return page_fault(cpu, w, 0);
        all &= e->value;
        any |= e->value;
        bool large = e->value & PTE_PS && shift != 12;
        uint64_t forbidden = reserved;
        if (large) /* a page of 2 MiB or 1 GiB: its low address bits but PAT; not at the top */
            forbidden |= shift == 39 ? PTE_PS : ((1ull << shift) - 1) & ~0x1fffull;
        if (e->value & forbidden)
            return page_fault(cpu, w, PF_P | PF_RSVD);
        if (large || shift == 12)
            break;
        table = e->value & PTE_ADDRESS;
    }
    enum walk_result r =
        use_entries(cpu, w, entry, (unsigned)(e - entry) + 1, true, all, any & PTE_NX);
    uint64_t offset = (1ull << shift) - 1;
    if (r == WALK_OK)
        fill_page(cpu, page, e->value, all, shift,
                  (e->value & PTE_ADDRESS & ~offset) | (w->va & offset));
    return r;
}

/* 32-bit and PAE paging (SDM volume 3, 4.3 and 4.4). */
static enum walk_result walk_legacy(struct soft_cpu *cpu, struct walk *w, struct soft_page *page)
{
    const struct mull_cpu_state *s = &cpu->s;
    const bool wide = s->cr4 & SOFT_CR4_PAE;
    const unsigned index_bits = wide ? 9 : 10;
    const uint64_t address = wide ? PTE_ADDRESS : 0xfffff000ull;
    const bool large_allowed = wide || (s->cr4 & SOFT_CR4_PSE);
    uint64_t table = s->cr3 & (wide ? 0xffffffe0ull : 0xfffff000ull);
    uint64_t all = ~0ull, any = 0;
    struct entry entry[2], *e = entry;

    if (wide) { /* the pointer table has no rights and no accessed bit */
        read_entry(cpu->vm, table + (w->va >> 30 & 3) * 8, true, e);
        if (!(e->value & PTE_P))
            return page_fault(cpu, w, 0);
        if (e->value & reserved_bits(cpu, 3, false))
            return page_fault(cpu, w, PF_P | PF_RSVD);
        table = e->value & address;
    }
    unsigned level = 2, shift = 12 + index_bits;
    for (;; level--, shift -= index_bits, e++) {
        uint64_t index = w->va >> shift & ((1u << index_bits) - 1);
        read_entry(cpu->vm, table + index * (wide ? 8 : 4), wide, e);
        if (!(e->value & PTE_P))
            return page_fault(cpu, w, 0);
        bool large = level == 2 && large_allowed && (e->value & PTE_PS);
        if (e->value & reserved_bits(cpu, level, large))
            return page_fault(cpu, w, PF_P | PF_RSVD);
        all &= e->value;
        any |= e->value;
        if (large || level == 1)
            break;
        table = e->value & address;
    }
    enum walk_result r =
        use_entries(cpu, w, entry, (unsigned)(e - entry) + 1, wide, all, wide && (any & PTE_NX));
    uint64_t offset = (1ull << shift) - 1;
    uint64_t base = e->value & address & ~offset;
    if (!wide && level == 2) /* PSE-36 */
        base |= (e->value >> 13 & 0xff) << 32;
    if (r == WALK_OK)
        fill_page(cpu, page, e->value, all, shift, base | (w->va & offset));
    return r;
}

static bool walk(struct soft_cpu *cpu, struct walk *w, struct soft_page *page)
{
    enum walk_result r;

    if (!(cpu->s.cr0 & SOFT_CR0_PG)) {
        page->user = page->writable = page->dirty = true;
        page->global = false;
        page->log2_size = 12;
        w->can_write = true;
        set_page(cpu, page, w->va & 0xffffffffu);
        return true;
    }
    cpu->stats.page_walks++;
    do
        r = soft_long_mode(cpu) ? walk_long(cpu, w, page) : walk_legacy(cpu, w, page);
    while (r == WALK_AGAIN); /* another CPU changed an entry meanwhile: it made progress */
    return r == WALK_OK;
}

/* ---- What is in the TLB ---- */

static uint64_t tag_of(uint64_t va)
{
    return 0 - (va & MULL_PAGE_MASK);
}

static unsigned exec_index(uint64_t va)
{
    return (unsigned)(va >> MULL_PAGE_SHIFT) % (SOFT_EXEC_ENTRIES / 2) |
           (unsigned)(va >> 63) * (SOFT_EXEC_ENTRIES / 2);
}

/* Is it known which large pages there are around @va? Of the kernel's half; outside long mode,
 * where the kernel has no half, of all. */
static bool knows_large(const struct soft_cpu *cpu, uint64_t va)
{
    return va >> 63 || !soft_long_mode(cpu);
}

/* Remember that a piece of a large page is entered. */
static void note_large(struct soft_mmu *mmu, uint64_t va, unsigned log2_size)
{
    uint64_t gib = va >> 30;
    unsigned i = mmu->large_last;

    if (i >= mmu->large_count || mmu->large_gib[i] != gib) {
        for (i = 0; i < mmu->large_count && mmu->large_gib[i] != gib; i++)
            ;
        if (i == SOFT_LARGE_REGIONS) {
            mmu->large_overflow = true;
            return;
        }
        if (i == mmu->large_count) {
            mmu->large_count++;
            mmu->large_gib[i] = gib;
            soft_zero(mmu->large_2m[i], sizeof(mmu->large_2m[i]));
        }
        mmu->large_last = (uint8_t)i;
    }
    if (log2_size == 30) {
        for (unsigned k = 0; k < 8; k++)
            mmu->large_2m[i][k] = ~0ull;
    } else {
        unsigned bit = va >> 21 & 511;
        mmu->large_2m[i][bit / 64] |= 1ull << bit % 64;
        if (log2_size == 22) /* 4 MiB, of 32-bit paging */
            mmu->large_2m[i][bit / 64] |= 1ull << (bit ^ 1) % 64;
    }
}

static bool is_large(const struct soft_mmu *mmu, uint64_t va)
{
    unsigned bit = va >> 21 & 511;

    for (unsigned i = 0; i < mmu->large_count; i++)
        if (mmu->large_gib[i] == va >> 30)
            return mmu->large_2m[i][bit / 64] >> bit % 64 & 1;
    return mmu->large_overflow;
}

/* Remember what a later INVLPG or MOV CR3 must know: pieces of large pages, local pages. */
static void note_kind(struct soft_cpu *cpu, struct soft_window *win, uint64_t va,
                      const struct soft_page *page)
{
    bool large = page->log2_size > MULL_PAGE_SHIFT;

    win->has_global |= page->global;
    if (va >> 63)
        win->upper_local |= !page->global;
    if (large && knows_large(cpu, va))
        note_large(&cpu->mmu, va, page->log2_size);
    else
        win->lower_large |= large;
}

/* Log a slot that is going to be filled. The counts are visible before the tags, so that
 * soft_tlb_protect() may rely on them. */
static void note_slot(struct soft_window *win, unsigned slot)
{
    if (slot & (SOFT_TLB_ENTRIES / 2)) {
        __atomic_store_n(&win->upper_filled, true, __ATOMIC_RELAXED);
    } else {
        uint32_t filled = win->lower_filled;
        if (filled < SOFT_TLB_LOG)
            __atomic_store_n(&win->lower_slot[filled], (uint16_t)slot, __ATOMIC_RELAXED);
        if (filled <= SOFT_TLB_LOG)
            __atomic_store_n(&win->lower_filled, filled + 1, __ATOMIC_RELEASE);
    }
}

/* ---- Translation ---- */

enum soft_result soft_translate(struct soft_cpu *cpu, uint64_t va, unsigned access,
                                struct soft_page *page)
{
    struct walk w = {.va = va, .access = access};
    struct soft_window *win = cpu->window[cpu->window_id];
    unsigned exec = exec_index(va);

    if (access == SOFT_EXEC && win->exec_tag[exec] == tag_of(va)) {
        *page = win->exec_page[exec];
        page->gpa |= va & ~MULL_PAGE_MASK;
        page->host += va & ~MULL_PAGE_MASK;
        return SOFT_NEXT;
    }
    if (!soft_canonical(va))
        return soft_raise_error(cpu, SOFT_GP, 0);
    if (!walk(cpu, &w, page))
        return soft_raise_page(cpu, va, w.error);
    if (access == SOFT_EXEC && page->host) {
        win->exec_lower |= !(va >> 63);
        win->exec_tag[exec] = tag_of(va);
        win->exec_page[exec] = *page;
        win->exec_page[exec].gpa &= MULL_PAGE_MASK;
        win->exec_page[exec].host -= va & ~MULL_PAGE_MASK;
        note_kind(cpu, win, va, page);
    }
    return SOFT_NEXT;
}

bool soft_translate_quiet(struct soft_cpu *cpu, uint64_t va, uint64_t *gpa)
{
    struct walk w = {.va = va, .access = SOFT_READ, .quiet = true};
    struct soft_page page;

    if (!soft_canonical(va) || !walk(cpu, &w, &page))
        return false;
    *gpa = page.gpa;
    return true;
}

/* ---- Filling the TLB ---- */

/* Give the page write permission, unless its flags forbid it. */
static bool allow_write(struct soft_window *win, unsigned slot, uint64_t tag,
                        const struct soft_page *page, bool want)
{
    _Atomic uint8_t *flags = page_flags(page->ram, page->host);

    for (;;) {
        uint8_t now = atomic_load_explicit(flags, memory_order_relaxed);
        if (now & (MULL_PAGE_CODE | MULL_PAGE_ROM))
            return false;
        if (now & MULL_PAGE_CLEAN) {
            if (!want)
                return false;
            atomic_fetch_and(flags, (uint8_t)~MULL_PAGE_CLEAN);
        }
        /* Store the tag, then (the exchange is a fence) look again: soft_tlb_protect() sets the
         * flag, then looks for the tag, so one of us sees the other. */
        __atomic_exchange_n(&win->write_tag[slot], tag, __ATOMIC_SEQ_CST);
        if (!(atomic_load(flags) & MULL_PAGE_SLOW))
            return true;
        __atomic_store_n(&win->write_tag[slot], soft_tlb_invalid(slot), __ATOMIC_RELAXED);
    }
}

/* Has a device's memory moved since it was looked up? As in allow_write(), it moves first, then
 * soft_tlb_forget_all() looks for the tags. */
static bool has_moved(struct soft_window *win, unsigned slot, const struct soft_page *page)
{
    if (!page->device)
        return false;
    atomic_thread_fence(memory_order_seq_cst);
    uint64_t gpa = atomic_load(&page->device->gpa);
    if (gpa != MULL_NOWHERE && page->gpa - gpa == (uint64_t)(page->host - page->ram->host))
        return false;
    __atomic_store_n(&win->write_tag[slot], soft_tlb_invalid(slot), __ATOMIC_RELAXED);
    __atomic_store_n(&win->read_tag[slot], soft_tlb_invalid(slot), __ATOMIC_RELAXED);
    return true;
}

/* Enter a page of RAM. @want_write: for a write, @can_write: it may also be written. @return: the
 * access can go through the TLB now. */
static bool install(struct soft_cpu *cpu, enum soft_window_id id, uint64_t va,
                    const struct soft_page *page, bool want_write, bool can_write)
{
    struct soft_window *win = cpu->window[id];
    unsigned slot = soft_tlb_index(va);
    uint64_t tag = tag_of(va);

    if (!page->host)
        return false;
    if ((cpu->s.dr[7] & 0xff) && soft_debug_page_watched(cpu, va))
        return false;
    if (cpu->vm->debug.watches) {
        unsigned watched = soft_debug_watched(&cpu->vm->debug, va);
        if (watched == SOFT_READ || (watched == SOFT_WRITE && want_write))
            return false;
        can_write &= watched != SOFT_WRITE;
    }
    if (win->read_tag[slot] == soft_tlb_invalid(slot))
        note_slot(win, slot);
    note_kind(cpu, win, va, page);
    /* The slot has one page: no tag may stay that belongs to another. */
    __atomic_store_n(&win->write_tag[slot], soft_tlb_invalid(slot), __ATOMIC_RELAXED);
    __atomic_store_n(&win->read_tag[slot], tag, __ATOMIC_RELAXED);
    __atomic_store_n(&win->page[slot], (uint64_t)(uintptr_t)page->host & MULL_PAGE_MASK,
                     __ATOMIC_RELAXED);
    bool writable = can_write && page->dirty && !page->ram->readonly &&
                    allow_write(win, slot, tag, page, want_write);
    return !has_moved(win, slot, page) && (writable || !want_write);
}

/* The window whose rights an access has. */
static enum soft_window_id window_for(const struct soft_cpu *cpu, unsigned access)
{
    if (!(access & SOFT_SYSTEM))
        return cpu->window_id;
    return cpu->s.cr4 & SOFT_CR4_SMAP ? SOFT_WIN_KERNEL : SOFT_WIN_KERNEL_AC;
}

static bool crosses_page(uint64_t va, unsigned size)
{
    return (va & ~MULL_PAGE_MASK) + size > MULL_PAGE_SIZE;
}

bool soft_tlb_fill(struct soft_cpu *cpu, uint64_t va, unsigned size, bool write)
{
    struct walk w = {.va = va, .access = write ? SOFT_WRITE : SOFT_READ};
    struct soft_page page;

    if (crosses_page(va, size) || !soft_canonical(va) || !walk(cpu, &w, &page))
        return false;
    find_device_ram(cpu->vm, &page);
    return install(cpu, cpu->window_id, va, &page, write, w.can_write);
}

static uint8_t *tlb_lookup(const struct soft_window *win, uint64_t va, bool write)
{
    unsigned slot = soft_tlb_index(va);
    uint64_t tag =
        __atomic_load_n(write ? &win->write_tag[slot] : &win->read_tag[slot], __ATOMIC_RELAXED);
    if (tag != tag_of(va))
        return NULL;
    return (uint8_t *)(uintptr_t)(win->page[slot] + (va & ~MULL_PAGE_MASK));
}

void *soft_direct(struct soft_cpu *cpu, uint64_t va, unsigned size, unsigned access)
{
    enum soft_window_id id = window_for(cpu, access);
    bool write = access & SOFT_WRITE;
    struct walk w = {.va = va, .access = access};
    struct soft_page page;

    if (crosses_page(va, size))
        return NULL;
    uint8_t *host = tlb_lookup(cpu->window[id], va, write);
    if (host)
        return host;
    if (!soft_canonical(va) || !walk(cpu, &w, &page))
        return NULL;
    find_device_ram(cpu->vm, &page);
    return install(cpu, id, va, &page, write, w.can_write) ? page.host : NULL;
}

/* ---- Access from C ---- */

static void read_page(struct soft_cpu *cpu, const struct soft_page *page, uint8_t *to,
                      unsigned size)
{
    if (page->host) {
        soft_copy_guest(to, page->host, size);
        return;
    }
    soft_vectors_park(cpu);
    for (unsigned done = 0; done < size;) {
        unsigned part = size - done;
        if (part > 8)
            part = 8;
        uint64_t value =
            mull_space_read(cpu->vm->memory, MULL_SPACE_MMIO, cpu->index, page->gpa + done, part);
        soft_copy(to + done, &value, part);
        done += part;
        cpu->stats.mmio++;
    }
}

static void write_page(struct soft_cpu *cpu, const struct soft_page *page, const uint8_t *from,
                       unsigned size)
{
    if (page->host) {
        if (!page->ram->readonly && !(*page_flags(page->ram, page->host) & MULL_PAGE_ROM)) {
            soft_copy_guest(page->host, from, size);
            wrote(cpu, page->ram, page->host, page->gpa, size);
        }
        return;
    }
    soft_vectors_park(cpu);
    for (unsigned done = 0; done < size;) {
        unsigned part = size - done;
        uint64_t value = 0;
        if (part > 8)
            part = 8;
        soft_copy(&value, from + done, part);
        mull_space_write(cpu->vm->memory, MULL_SPACE_MMIO, cpu->index, page->gpa + done, part,
                         value);
        done += part;
        cpu->stats.mmio++;
    }
}

/* Translate one page for C and enter it into the TLB for the next time. */
static enum soft_result fetch_page(struct soft_cpu *cpu, uint64_t va, unsigned access,
                                   struct soft_page *page)
{
    struct walk w = {.va = va, .access = access};

    if (!soft_canonical(va))
        return soft_raise_error(cpu, SOFT_GP, 0);
    if (!walk(cpu, &w, page))
        return soft_raise_page(cpu, va, w.error);
    if ((access & ACCESS_KIND) != SOFT_EXEC) {
        find_device_ram(cpu->vm, page);
        install(cpu, window_for(cpu, access), va, page, access & SOFT_WRITE, w.can_write);
    }
    if (cpu->vm->debug.watches && (access & SOFT_SYSTEM))
        soft_debug_touch(cpu, va, 1, access); /* soft_linear() does not see it */
    return SOFT_NEXT;
}

enum soft_result soft_read(struct soft_cpu *cpu, uint64_t va, void *buf, unsigned size,
                           unsigned access)
{
    struct soft_page page[2];
    uint8_t *to = buf;

    if (!crosses_page(va, size)) {
        const uint8_t *host = NULL;
        if ((access & ACCESS_KIND) != SOFT_EXEC)
            host = tlb_lookup(cpu->window[window_for(cpu, access)], va, false);
        if (host) {
            soft_copy_guest(to, host, size);
            return SOFT_NEXT;
        }
        if (fetch_page(cpu, va, access, &page[0]) != SOFT_NEXT)
            return SOFT_FAULT;
        read_page(cpu, &page[0], to, size);
        return SOFT_NEXT;
    }
    unsigned first = (unsigned)(MULL_PAGE_SIZE - (va & ~MULL_PAGE_MASK));
    if (fetch_page(cpu, va, access, &page[0]) != SOFT_NEXT)
        return SOFT_FAULT;
    uint64_t next = soft_next_page(cpu, va);
    if (size - first > MULL_PAGE_SIZE) { /* larger than any architectural structure */
        read_page(cpu, &page[0], to, first);
        return soft_read(cpu, next, to + first, size - first, access);
    }
    if (fetch_page(cpu, next, access, &page[1]) != SOFT_NEXT)
        return SOFT_FAULT;
    read_page(cpu, &page[0], to, first);
    read_page(cpu, &page[1], to + first, size - first);
    return SOFT_NEXT;
}

enum soft_result soft_write(struct soft_cpu *cpu, uint64_t va, const void *buf, unsigned size,
                            unsigned access)
{
    struct soft_page page[2];
    const uint8_t *from = buf;

    access |= SOFT_WRITE;
    if (!crosses_page(va, size)) {
        uint8_t *host = tlb_lookup(cpu->window[window_for(cpu, access)], va, true);
        if (host) {
            soft_copy_guest(host, from, size);
            return SOFT_NEXT;
        }
        if (fetch_page(cpu, va, access, &page[0]) != SOFT_NEXT)
            return SOFT_FAULT;
        write_page(cpu, &page[0], from, size);
        return SOFT_NEXT;
    }
    unsigned first = (unsigned)(MULL_PAGE_SIZE - (va & ~MULL_PAGE_MASK));
    if (fetch_page(cpu, va, access, &page[0]) != SOFT_NEXT)
        return SOFT_FAULT;
    uint64_t next = soft_next_page(cpu, va);
    if (size - first > MULL_PAGE_SIZE) {
        /* Larger than any architectural structure: look before the leap. */
        enum soft_result r = soft_probe(cpu, next, size - first, access);
        if (r != SOFT_NEXT)
            return r;
        write_page(cpu, &page[0], from, first);
        return soft_write(cpu, next, from + first, size - first, access);
    }
    if (fetch_page(cpu, next, access, &page[1]) != SOFT_NEXT)
        return SOFT_FAULT;
    write_page(cpu, &page[0], from, first);
    write_page(cpu, &page[1], from + first, size - first);
    return SOFT_NEXT;
}

enum soft_result soft_probe(struct soft_cpu *cpu, uint64_t va, unsigned size, unsigned access)
{
    bool write = access & SOFT_WRITE;
    bool exec = (access & ACCESS_KIND) == SOFT_EXEC;

    for (;;) {
        unsigned room = (unsigned)(MULL_PAGE_SIZE - (va & ~MULL_PAGE_MASK));
        struct soft_page page;
        if (exec || !tlb_lookup(cpu->window[window_for(cpu, access)], va, write))
            if (fetch_page(cpu, va, access, &page) != SOFT_NEXT)
                return SOFT_FAULT;
        if (size <= room)
            return SOFT_NEXT;
        size -= room;
        va = soft_next_page(cpu, va);
    }
}

/* ---- Flushes ---- */

static void fill_words(uint64_t *to, uint64_t value, uint64_t count)
{
    __asm__ volatile("rep stosq" : "+D"(to), "+c"(count) : "a"(value) : "memory");
}

/* The slots [first, first + count) of a tag array. */
static void fill_invalid(uint64_t *tags, unsigned first, unsigned count)
{
    for (unsigned i = first; i < first + count; i++)
        __atomic_store_n(&tags[i], soft_tlb_invalid(i), __ATOMIC_RELAXED);
}

#define TLB_HALF (SOFT_TLB_ENTRIES / 2)
#define JUMP_HALF (SOFT_JUMP_ENTRIES / 2)

/* ---- The jump table ---- */

static unsigned jump_filter(uint64_t va)
{
    return (unsigned)((va >> MULL_PAGE_SHIFT) ^ (va >> (MULL_PAGE_SHIFT + 15))) &
           (SOFT_JUMP_FILTER - 1);
}

uint64_t *soft_jump_enter(struct soft_cpu *cpu, struct soft_window *win, uint64_t key,
                          uint64_t host, bool straddles, bool global)
{
    uint64_t va = soft_key_linear(cpu->mode, key);
    unsigned index = soft_jump_index(key), bit = jump_filter(va);
    uint64_t *slot = &win->jump[index];

    if (*slot == cpu->jump_miss) {
        if (win->jump_filled < SOFT_JUMP_LOG)
            win->jump_slot[win->jump_filled] = (uint16_t)index;
        win->jump_filled++;
    }
    win->jump_local |= !global;
    win->jump_pages[bit / 64] |= 1ull << bit % 64;
    if (straddles) {
        bit = jump_filter(soft_next_page(cpu, va));
        win->jump_pages[bit / 64] |= 1ull << bit % 64;
    }
    __atomic_store_n(slot, host, __ATOMIC_SEQ_CST);
    return slot;
}

void soft_jump_clear(struct soft_cpu *cpu, struct soft_window *win)
{
    if (!win->jump_ready || win->jump_filled > SOFT_JUMP_LOG) {
        fill_words(win->jump, cpu->jump_miss, SOFT_JUMP_ENTRIES);
        win->jump_ready = true;
    } else {
        for (unsigned k = 0; k < win->jump_filled; k++)
            win->jump[win->jump_slot[k]] = cpu->jump_miss;
    }
    win->jump_filled = 0;
    win->jump_local = false;
    soft_zero(win->jump_pages, sizeof(win->jump_pages));
}

/* ---- One window ---- */

static void flush_lower(struct soft_window *win)
{
    soft_cells_clear(win);
    if (win->lower_filled > SOFT_TLB_LOG) {
        fill_invalid(win->read_tag, 0, TLB_HALF);
        fill_invalid(win->write_tag, 0, TLB_HALF);
    } else {
        for (unsigned k = 0; k < win->lower_filled; k++) {
            win->read_tag[win->lower_slot[k]] = win->write_tag[win->lower_slot[k]] =
                soft_tlb_invalid(win->lower_slot[k]);
        }
    }
    __atomic_store_n(&win->lower_filled, 0, __ATOMIC_RELEASE);
    win->lower_large = false;
    if (win->exec_lower)
        fill_words(win->exec_tag, SOFT_EXEC_INVALID, SOFT_EXEC_ENTRIES / 2);
    win->exec_lower = false;
}

static void flush_upper(struct soft_window *win)
{
    soft_cells_clear(win);
    if (win->upper_filled) {
        fill_invalid(win->read_tag, TLB_HALF, TLB_HALF);
        fill_invalid(win->write_tag, TLB_HALF, TLB_HALF);
        __atomic_store_n(&win->upper_filled, false, __ATOMIC_RELEASE);
    }
    win->upper_local = false;
    fill_words(win->exec_tag + SOFT_EXEC_ENTRIES / 2, SOFT_EXEC_INVALID, SOFT_EXEC_ENTRIES / 2);
}

static void flush_window(struct soft_cpu *cpu, struct soft_window *win)
{
    flush_lower(win);
    flush_upper(win);
    win->has_global = false;
    soft_jump_clear(cpu, win);
}

/* ---- All windows in use ---- */

/* What is not global, in the first @count windows. */
static void flush_local(struct soft_cpu *cpu, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        struct soft_window *win = cpu->window[i];
        flush_lower(win);
        if (win->upper_local)
            flush_upper(win);
        if (win->jump_local)
            soft_jump_clear(cpu, win);
    }
}

/* Windows of other address spaces: they are flushed when they are taken into use. */
static void forget_spaces(struct soft_cpu *cpu)
{
    struct soft_mmu *mmu = &cpu->mmu;

    for (unsigned i = 0; i < SOFT_USER_WINDOWS; i++)
        mmu->space[i].valid = i == mmu->user;
    mmu->space[mmu->user].cr3 = cpu->s.cr3;
}

static void flush_everything(struct soft_cpu *cpu)
{
    soft_cells_init(cpu->window[SOFT_WIN_USER]);
    for (unsigned i = 0; i < SOFT_WIN_COUNT; i++)
        flush_window(cpu, cpu->window[i]);
    forget_spaces(cpu);
    cpu->mmu.large_count = 0;
    cpu->mmu.large_overflow = false;
}

/* The first flush finds zeroed tables: zero is the tag of page 0. */
static void empty_tables(struct soft_cpu *cpu)
{
    cpu->mmu.ready = true;
    for (unsigned i = 0; i < SOFT_WINDOWS; i++) {
        cpu->windows[i]->lower_filled = SOFT_TLB_LOG + 1;
        cpu->windows[i]->upper_filled = true;
        cpu->windows[i]->exec_lower = true;
        flush_window(cpu, cpu->windows[i]);
    }
}

void soft_tlb_flush(struct soft_cpu *cpu, enum soft_flush what)
{
    cpu->stats.tlb_flushes++;
    if (!cpu->mmu.ready)
        empty_tables(cpu);
    if (what == SOFT_FLUSH_ALL) {
        flush_everything(cpu);
        return;
    }
    flush_local(cpu, SOFT_WIN_COUNT);
    cpu->mmu.space[cpu->mmu.user].cr3 = cpu->s.cr3;
    if (what == SOFT_FLUSH_ALL_LOCAL)
        forget_spaces(cpu);
}

/* ---- Address spaces ---- */

/* The user window of a PCID, or -1. */
static int find_space(const struct soft_mmu *mmu, uint64_t pcid)
{
    for (unsigned i = 0; i < SOFT_USER_WINDOWS; i++)
        if (mmu->space[i].valid && (mmu->space[i].cr3 & 0xfff) == pcid)
            return (int)i;
    return -1;
}

static unsigned oldest_space(const struct soft_mmu *mmu)
{
    unsigned oldest = 0;

    for (unsigned i = 0; i < SOFT_USER_WINDOWS; i++) {
        if (!mmu->space[i].valid)
            return i;
        if (mmu->space[i].used < mmu->space[oldest].used)
            oldest = i;
    }
    return oldest;
}

void soft_tlb_switch(struct soft_cpu *cpu, bool keep)
{
    struct soft_mmu *mmu = &cpu->mmu;
    int found = find_space(mmu, cpu->s.cr3 & 0xfff);
    unsigned next = found >= 0 ? (unsigned)found : oldest_space(mmu);
    struct soft_window *win = cpu->windows[SOFT_WIN_USER + next];

    cpu->stats.tlb_flushes++;
    soft_cells_init(win);
    if (found < 0 || !keep || mmu->space[next].cr3 != cpu->s.cr3)
        flush_window(cpu, win);
    mmu->space[next].valid = true;
    mmu->space[next].cr3 = cpu->s.cr3;
    mmu->space[next].used = ++mmu->clock;
    mmu->user = next;

    /* The kernel's windows are not tagged: only what is global stays there. */
    flush_local(cpu, SOFT_WIN_USER);
    cpu->window[SOFT_WIN_USER] = win;
    cpu->gs_base = (uint64_t)(uintptr_t)cpu->window[cpu->window_id];
}

void soft_tlb_flush_pcid(struct soft_cpu *cpu, uint64_t pcid)
{
    struct soft_mmu *mmu = &cpu->mmu;
    int found = find_space(mmu, pcid);

    if (pcid == (cpu->s.cr3 & 0xfff))
        soft_tlb_flush(cpu, SOFT_FLUSH_NOT_GLOBAL);
    else if (found >= 0 && (unsigned)found != mmu->user)
        mmu->space[found].valid = false;
}

/* ---- One page ---- */

static void flush_page(struct soft_cpu *cpu, struct soft_window *win, uint64_t va)
{
    unsigned slot = soft_tlb_index(va), jump = jump_filter(va);
    unsigned exec = exec_index(va);
    uint64_t tag = tag_of(va);

    soft_cells_drop_page(win, va);
    if (win->read_tag[slot] == tag)
        win->read_tag[slot] = win->write_tag[slot] = soft_tlb_invalid(slot);
    if (win->exec_tag[exec] == tag)
        win->exec_tag[exec] = SOFT_EXEC_INVALID;
    if (win->jump_pages[jump / 64] >> jump % 64 & 1)
        soft_jump_clear(cpu, win);
}

void soft_tlb_flush_page(struct soft_cpu *cpu, uint64_t va)
{
    struct soft_mmu *mmu = &cpu->mmu;
    const bool known = knows_large(cpu, va);

    cpu->stats.tlb_flushes++;
    /* A large page is here in pieces: any address in it drops them all. */
    if (known && is_large(mmu, va)) {
        flush_everything(cpu);
    } else {
        for (unsigned i = 0; i < SOFT_WIN_COUNT; i++) {
            struct soft_window *win = cpu->window[i];
            if (!known && win->lower_large) {
                flush_lower(win);
                soft_jump_clear(cpu, win);
            } else {
                flush_page(cpu, win, va);
            }
        }
    }
    /* INVLPG is about the current PCID, and about global pages of any. */
    for (unsigned i = 0; i < SOFT_USER_WINDOWS; i++)
        if (i != mmu->user && cpu->windows[SOFT_WIN_USER + i]->has_global)
            mmu->space[i].valid = false;
}

/* ---- Other threads ---- */

static void protect_slot(struct soft_window *win, unsigned slot, uint64_t host)
{
    uint64_t tag = __atomic_load_n(&win->write_tag[slot], __ATOMIC_RELAXED);

    if (tag != soft_tlb_invalid(slot) &&
        __atomic_load_n(&win->page[slot], __ATOMIC_RELAXED) == host)
        __atomic_store_n(&win->write_tag[slot], soft_tlb_invalid(slot), __ATOMIC_RELAXED);
}

/* A half that its vCPU is filling only now is none of ours: see allow_write(). */
static void protect_in_window(struct soft_window *win, uint64_t host)
{
    uint32_t filled = __atomic_load_n(&win->lower_filled, __ATOMIC_ACQUIRE);

    if (filled > SOFT_TLB_LOG) {
        for (unsigned i = 0; i < TLB_HALF; i++)
            protect_slot(win, i, host);
    } else {
        for (unsigned i = 0; i < filled; i++)
            protect_slot(
                win, __atomic_load_n(&win->lower_slot[i], __ATOMIC_RELAXED) & (TLB_HALF - 1), host);
    }
    if (__atomic_load_n(&win->upper_filled, __ATOMIC_ACQUIRE))
        for (unsigned i = TLB_HALF; i < SOFT_TLB_ENTRIES; i++)
            protect_slot(win, i, host);
}

void soft_tlb_protect(struct soft_vm *vm, const struct mull_ram *ram, uint64_t gpa)
{
    uint64_t host = (uint64_t)(uintptr_t)(ram->host + ((gpa - ram->gpa) & MULL_PAGE_MASK));

    atomic_thread_fence(memory_order_seq_cst);
    for (unsigned i = 0; i < vm->cpus; i++) {
        struct soft_cpu *cpu = __atomic_load_n(&vm->cpu[i], __ATOMIC_ACQUIRE);
        for (unsigned k = 0; cpu && k < SOFT_WINDOWS; k++)
            protect_in_window(cpu->windows[k], host);
    }
    atomic_thread_fence(memory_order_seq_cst);
    for (unsigned i = 0; i < vm->cpus; i++) {
        struct soft_cpu *cpu = __atomic_load_n(&vm->cpu[i], __ATOMIC_ACQUIRE);
        for (unsigned k = SOFT_WIN_USER; cpu && k < SOFT_WINDOWS; k++)
            soft_cells_protect(cpu->windows[k], host);
    }
}

void soft_tlb_protect_all(void *opaque)
{
    struct soft_vm *vm = opaque;

    atomic_thread_fence(memory_order_seq_cst);
    for (unsigned i = 0; i < vm->cpus; i++) {
        struct soft_cpu *cpu = __atomic_load_n(&vm->cpu[i], __ATOMIC_ACQUIRE);
        for (unsigned k = 0; cpu && k < SOFT_WINDOWS; k++)
            fill_invalid(cpu->windows[k]->write_tag, 0, SOFT_TLB_ENTRIES);
    }
    atomic_thread_fence(memory_order_seq_cst);
    for (unsigned i = 0; i < vm->cpus; i++) {
        struct soft_cpu *cpu = __atomic_load_n(&vm->cpu[i], __ATOMIC_ACQUIRE);
        for (unsigned k = SOFT_WIN_USER; cpu && k < SOFT_WINDOWS; k++)
            soft_cells_protect_all(cpu->windows[k]);
    }
}

void soft_tlb_forget_all(void *opaque)
{
    struct soft_vm *vm = opaque;

    atomic_thread_fence(memory_order_seq_cst);
    for (unsigned i = 0; i < vm->cpus; i++) {
        struct soft_cpu *cpu = __atomic_load_n(&vm->cpu[i], __ATOMIC_ACQUIRE);
        for (unsigned k = 0; cpu && k < SOFT_WINDOWS; k++) {
            fill_invalid(cpu->windows[k]->write_tag, 0, SOFT_TLB_ENTRIES);
            fill_invalid(cpu->windows[k]->read_tag, 0, SOFT_TLB_ENTRIES);
        }
    }
    atomic_thread_fence(memory_order_seq_cst);
    for (unsigned i = 0; i < vm->cpus; i++) {
        struct soft_cpu *cpu = __atomic_load_n(&vm->cpu[i], __ATOMIC_ACQUIRE);
        for (unsigned k = SOFT_WIN_USER; cpu && k < SOFT_WINDOWS; k++)
            soft_cells_forget_all(cpu->windows[k]);
    }
}
