/* The soft engine's MMU: page walks in each paging mode, rights and error codes, accessed and dirty
 * bits, the TLB's invariants, page crossings, MMIO, watched pages. */
#include "soft_fixture.h"

void soft_code_written(struct soft_vm *vm, struct soft_cpu *cpu, uint64_t gpa, uint64_t len)
{
    struct fix *f = cpu->private_run;
    f->code_writes++;
    f->code_gpa = gpa;
}

enum soft_result soft_task_switch(struct soft_cpu *cpu, uint16_t selector, int reason, uint64_t rip,
                                  const void *event);
enum soft_result soft_task_switch(struct soft_cpu *cpu, uint16_t selector, int reason, uint64_t rip,
                                  const void *event)
{
    return SOFT_FAULT;
}

#define VA 0x7f0000123000ull
#define KVA 0xffff888000123000ull
#define DATA 0x100000ull

static enum soft_result probe(struct fix *f, uint64_t va, unsigned access)
{
    struct soft_page page;
    return soft_translate(f->cpu, va, access, &page);
}

static void test_rights(void **state)
{
    struct fix *f = fix_new();
    /* Rights of the leaf, then what CPL 3 and CPL 0 (WP, no SMEP/SMAP) may do: R W X bits. */
    static const struct {
        uint64_t bits;
        unsigned user, kernel;
    } cases[] = {
        {0, 0, 1 | 4},          {FIX_W, 0, 7},          {FIX_U, 1 | 4, 1 | 4},
        {FIX_U | FIX_W, 7, 7},  {FIX_U | FIX_NX, 1, 1}, {FIX_U | FIX_W | FIX_NX, 3, 3},
        {FIX_W | FIX_NX, 0, 3},
    };
    static const unsigned access[3] = {SOFT_READ, SOFT_WRITE, SOFT_EXEC};
    static const unsigned code[3] = {0, 2, 0x10};
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        for (unsigned cpl = 0; cpl <= 3; cpl += 3)
            for (unsigned k = 0; k < 3; k++) {
                fix_long_mode(f, cpl, 0);
                fix_map(f, VA, DATA, cases[i].bits);
                bool may = (cpl == 3 ? cases[i].user : cases[i].kernel) >> k & 1;
                enum soft_result r = probe(f, VA + 5, access[k]);
                assert_int_equal(r, may ? SOFT_NEXT : SOFT_FAULT);
                if (!may)
                    fix_assert_pf(f, VA + 5, 1u | code[k] | (cpl == 3 ? 4u : 0));
            }
    /* Rights of an upper level count too. */
    fix_map(f, VA, DATA, FIX_U | FIX_W);
    fix_set(f, fix_entry(f, VA, 3), fix_get(f, fix_entry(f, VA, 3)) & ~FIX_W);
    fix_long_mode(f, 3, 0);
    assert_int_equal(probe(f, VA, SOFT_WRITE), SOFT_FAULT);
    fix_assert_pf(f, VA, 7);
    fix_set(f, fix_entry(f, VA, 3), (fix_get(f, fix_entry(f, VA, 3)) | FIX_W) & ~FIX_U);
    assert_int_equal(probe(f, VA, SOFT_READ), SOFT_FAULT);
    fix_assert_pf(f, VA, 5);
    fix_set(f, fix_entry(f, VA, 2), fix_get(f, fix_entry(f, VA, 2)) & ~FIX_P);
    assert_int_equal(probe(f, VA, SOFT_EXEC), SOFT_FAULT);
    fix_assert_pf(f, VA, 0x14);
    f->cpu->s.efer &= ~SOFT_EFER_NXE; /* without NX and SMEP there is no I bit */
    assert_int_equal(probe(f, VA, SOFT_EXEC), SOFT_FAULT);
    fix_assert_pf(f, VA, 0x4);
    fix_free(f);
}

static void test_supervisor_rights(void **state)
{
    struct fix *f = fix_new();
    fix_map(f, VA, DATA, FIX_U);
    /* CR0.WP clear: CPL 0 writes read-only pages. */
    fix_long_mode(f, 0, 0);
    assert_int_equal(probe(f, VA, SOFT_WRITE), SOFT_FAULT);
    f->cpu->s.cr0 &= ~SOFT_CR0_WP;
    assert_int_equal(probe(f, VA, SOFT_WRITE), SOFT_NEXT);
    /* SMEP. */
    fix_long_mode(f, 0, SOFT_CR4_SMEP);
    assert_int_equal(probe(f, VA, SOFT_EXEC), SOFT_FAULT);
    fix_assert_pf(f, VA, 0x11);
    /* SMAP, with and without AC; an implicit access does not look at AC. */
    fix_long_mode(f, 0, SOFT_CR4_SMAP);
    assert_int_equal(f->cpu->window_id, SOFT_WIN_KERNEL);
    assert_int_equal(probe(f, VA, SOFT_READ), SOFT_FAULT);
    fix_assert_pf(f, VA, 1);
    assert_int_equal(probe(f, VA, SOFT_EXEC), SOFT_NEXT);
    f->cpu->s.rflags |= SOFT_AC;
    soft_mode_changed(f->cpu);
    assert_int_equal(f->cpu->window_id, SOFT_WIN_KERNEL_AC);
    assert_int_equal(probe(f, VA, SOFT_READ), SOFT_NEXT);
    assert_int_equal(probe(f, VA, SOFT_READ | SOFT_SYSTEM), SOFT_FAULT);
    /* An implicit access at CPL 3 is a supervisor's. */
    fix_long_mode(f, 3, 0);
    fix_map(f, KVA, DATA, FIX_W);
    assert_int_equal(probe(f, KVA, SOFT_READ), SOFT_FAULT);
    assert_int_equal(probe(f, KVA, SOFT_READ | SOFT_SYSTEM), SOFT_NEXT);
    /* No canonical address: #GP. */
    assert_int_equal(probe(f, 0x0000800000000000ull, SOFT_READ), SOFT_FAULT);
    assert_int_equal(f->cpu->fault.vector, SOFT_GP);
    fix_free(f);
}

static void test_accessed_dirty(void **state)
{
    struct fix *f = fix_new();
    fix_long_mode(f, 0, 0);
    fix_map(f, VA, DATA, FIX_U);
    uint64_t leaf = fix_entry(f, VA, 1);
    uint64_t gpa;
    assert_true(soft_translate_quiet(f->cpu, VA + 0x123, &gpa));
    assert_true(gpa == DATA + 0x123);
    assert_false(fix_get(f, leaf) & FIX_A);
    assert_int_equal(probe(f, VA, SOFT_WRITE), SOFT_FAULT); /* no bits when it faults */
    assert_false(fix_get(f, leaf) & (FIX_A | FIX_D));
    assert_int_equal(probe(f, VA, SOFT_READ), SOFT_NEXT);
    for (unsigned level = 1; level <= 4; level++)
        assert_true((fix_get(f, fix_entry(f, VA, level)) & (FIX_A | FIX_D)) == FIX_A);
    fix_set(f, leaf, fix_get(f, leaf) | FIX_W);
    assert_int_equal(probe(f, VA, SOFT_RMW), SOFT_NEXT);
    assert_true(fix_get(f, leaf) & FIX_D);
    assert_false(fix_get(f, fix_entry(f, VA, 2)) & FIX_D);

    /* Page tables on a page with translations and on a clean page. */
    fix_map(f, VA, DATA, FIX_W);
    f->vm.ram[0].flags[leaf >> 12] = MULL_PAGE_CODE | MULL_PAGE_CLEAN;
    assert_int_equal(probe(f, VA, SOFT_READ), SOFT_NEXT);
    assert_int_equal(f->code_writes, 1);
    assert_true(f->code_gpa == leaf);
    assert_int_equal(f->vm.ram[0].flags[leaf >> 12], MULL_PAGE_CODE);
    fix_free(f);
}

static void test_large_and_reserved(void **state)
{
    struct fix *f = fix_new();
    struct soft_page page;
    fix_long_mode(f, 0, 0);
    fix_set(f, fix_entry(f, KVA, 2), 0x200000 | FIX_PS | FIX_P | FIX_W | FIX_G);
    assert_int_equal(soft_translate(f->cpu, KVA + 7, SOFT_READ, &page), SOFT_NEXT);
    assert_true(page.gpa == 0x200000 + ((KVA + 7) & 0x1fffff));
    assert_int_equal(page.log2_size, 21);
    assert_true(page.global);
    assert_true(page.host == f->vm.ram[0].host + page.gpa);
    fix_set(f, fix_entry(f, KVA, 2), 0x202000 | FIX_PS | FIX_P | FIX_W);
    assert_int_equal(probe(f, KVA, SOFT_READ), SOFT_FAULT);
    fix_assert_pf(f, KVA, 9);
    fix_set(f, fix_entry(f, KVA, 3), FIX_PS | FIX_P | FIX_W);
    assert_int_equal(soft_translate(f->cpu, KVA, SOFT_READ, &page), SOFT_NEXT);
    assert_true(page.gpa == (KVA & 0x3fffffff));
    assert_int_equal(page.log2_size, 30);
    fix_set(f, fix_entry(f, KVA, 3), 0x200000 | FIX_PS | FIX_P | FIX_W);
    assert_int_equal(probe(f, KVA, SOFT_WRITE), SOFT_FAULT);
    fix_assert_pf(f, KVA, 0xb);
    fix_set(f, fix_entry(f, KVA, 4), fix_get(f, fix_entry(f, KVA, 4)) | FIX_PS);
    assert_int_equal(probe(f, KVA, SOFT_READ), SOFT_FAULT);
    fix_assert_pf(f, KVA, 9);
    /* Physical address bits beyond 46; NX without NXE. */
    fix_map(f, VA, DATA | 1ull << 46, FIX_W);
    assert_int_equal(probe(f, VA, SOFT_READ), SOFT_FAULT);
    fix_assert_pf(f, VA, 9);
    fix_map(f, VA, DATA, FIX_NX);
    f->cpu->s.efer &= ~SOFT_EFER_NXE;
    assert_int_equal(probe(f, VA, SOFT_READ), SOFT_FAULT);
    fix_assert_pf(f, VA, 9);
    /* Page tables outside RAM do not exist; a page outside RAM has no host address. */
    fix_long_mode(f, 0, 0);
    fix_map(f, VA, 0x10000000, FIX_W);
    assert_int_equal(soft_translate(f->cpu, VA, SOFT_WRITE, &page), SOFT_NEXT);
    assert_null(page.host);
    assert_null(page.ram);
    f->cpu->s.cr3 = 0x3ffffffff000ull;
    assert_int_equal(probe(f, VA, SOFT_READ), SOFT_FAULT);
    fix_assert_pf(f, VA, 0);
    fix_free(f);
}

static void set32(struct fix *f, uint64_t gpa, uint32_t v)
{
    assert_int_equal(mull_mem_write32(f->mem, gpa, v), 0);
}

static void test_legacy_paging(void **state)
{
    struct fix *f = fix_new();
    struct mull_cpu_state *s = &f->cpu->s;
    struct soft_page page;
    /* No paging. */
    assert_int_equal(soft_translate(f->cpu, 0x12345, SOFT_WRITE, &page), SOFT_NEXT);
    assert_true(page.gpa == 0x12345 && page.host == f->vm.ram[0].host + 0x12345);

    /* 32-bit: a 4 KiB page, a 4 MiB page with PSE-36. */
    s->cr0 = SOFT_CR0_PE | SOFT_CR0_PG | SOFT_CR0_WP;
    s->cr3 = FIX_PML4;
    soft_mode_changed(f->cpu);
    set32(f, FIX_PML4 + (0xc0401000u >> 22) * 4, 0x5000 | 7);
    set32(f, 0x5000 + ((0xc0401000u >> 12) & 1023) * 4, 0x9000 | 3);
    assert_int_equal(soft_translate(f->cpu, 0xc0401abc, SOFT_WRITE, &page), SOFT_NEXT);
    assert_true(page.gpa == 0x9abc);
    uint32_t v;
    mull_mem_read32(f->mem, 0x5000 + ((0xc0401000u >> 12) & 1023) * 4, &v);
    assert_int_equal(v, 0x9063);
    set32(f, FIX_PML4 + (0xd0000000u >> 22) * 4, 0x00000000 | 1u << 13 | 0x80 | 3);
    assert_int_equal(probe(f, 0xd0000000u, SOFT_READ),
                     SOFT_FAULT); /* without PSE: a table at 0x2000 */
    s->cr4 |= SOFT_CR4_PSE;
    assert_int_equal(soft_translate(f->cpu, 0xd0012345u, SOFT_READ, &page), SOFT_NEXT);
    assert_true(page.gpa == 0x100012345ull);
    assert_int_equal(page.log2_size, 22);
    set32(f, FIX_PML4 + (0xd0000000u >> 22) * 4, 1u << 21 | 0x80 | 3);
    assert_int_equal(probe(f, 0xd0000000u, SOFT_READ), SOFT_FAULT);
    fix_assert_pf(f, 0xd0000000u, 9);

    /* PAE: pointer table, 2 MiB page, NX. */
    s->cr4 = SOFT_CR4_PAE;
    s->efer = SOFT_EFER_NXE;
    s->cr3 = 0x6020;
    fix_set(f, 0x6020 + 3 * 8, 0x7000 | 1);
    fix_set(f, 0x7000 + 0 * 8, 0x200000 | FIX_PS | FIX_P | FIX_W | FIX_NX);
    assert_int_equal(soft_translate(f->cpu, 0xc0012345, SOFT_READ, &page), SOFT_NEXT);
    assert_true(page.gpa == 0x212345);
    assert_int_equal(probe(f, 0xc0012345, SOFT_EXEC), SOFT_FAULT);
    fix_assert_pf(f, 0xc0012345, 0x11);
    fix_set(f, 0x7000, 1ull << 55 | FIX_PS | FIX_P);
    assert_int_equal(probe(f, 0xc0012345, SOFT_READ), SOFT_FAULT);
    fix_assert_pf(f, 0xc0012345, 9);
    fix_set(f, 0x6020 + 3 * 8, 0x7000 | 3); /* W is reserved there */
    assert_int_equal(probe(f, 0xc0012345, SOFT_READ), SOFT_FAULT);
    fix_assert_pf(f, 0xc0012345, 9);
    assert_int_equal(probe(f, 0x40000000, SOFT_READ), SOFT_FAULT);
    fix_assert_pf(f, 0x40000000, 0);
    fix_free(f);
}

/* Every valid tag of every window leads into the page that a walk finds, with rights. */
static void check_tlb(struct fix *f)
{
    for (unsigned w = 0; w < SOFT_WIN_COUNT; w++)
        for (unsigned i = 0; i < SOFT_TLB_ENTRIES; i++) {
            const struct soft_window *win = f->cpu->window[w];
            for (unsigned k = 0; k < 2; k++) {
                uint64_t tag = k ? win->write_tag[i] : win->read_tag[i];
                if (tag == soft_tlb_invalid(i))
                    continue;
                uint64_t va = -tag, gpa;
                assert_int_equal(soft_tlb_index(va), i);
                assert_true(soft_translate_quiet(f->cpu, va, &gpa));
                const struct mull_ram *ram = mull_memory_find_ram(f->mem, gpa);
                assert_non_null(ram);
                assert_true(win->page[i] == (uint64_t)(ram->host + (gpa - ram->gpa)));
                if (k) {
                    assert_false(ram->readonly);
                    assert_false(ram->flags[(gpa - ram->gpa) >> 12] & MULL_PAGE_SLOW);
                }
            }
        }
}

static bool hits(struct fix *f, enum soft_window_id w, uint64_t va, bool write)
{
    const struct soft_window *win = f->cpu->window[w];
    unsigned i = soft_tlb_index(va);
    return (va & MULL_PAGE_MASK) + (write ? win->write_tag[i] : win->read_tag[i]) == 0;
}

/* As the glue does. */
static void fill_cell(struct soft_window *win, unsigned i)
{
    win->cell[i] = (struct soft_cell){.tag = 0 - VA, .page = 0x1000};
    win->cell_log[win->cell_count++] = (uint16_t)(2 * i);
    win->cell_logged[i] = 1;
}

static uint64_t read_ones(void *opaque, unsigned cpu, uint64_t offset, unsigned size)
{
    return ~0ull;
}

static void write_nowhere(void *opaque, unsigned cpu, uint64_t offset, unsigned size,
                          uint64_t value)
{
}

/* Memory that a device lends is data like RAM, where it is now; it is not executed. */
static void test_device_ram(void **state)
{
    static const struct mull_region_ops ops = {read_ones, write_nowhere, 1, 8};
    static uint8_t memory[0x2000] __attribute__((aligned(4096)));
    static _Atomic uint8_t flags[2];
    struct mull_device_ram ram = {.ram = {.host = memory, .size = sizeof(memory), .flags = flags}};
    struct fix *f = fix_new();
    struct mull_region *region;
    struct soft_page page;
    uint32_t value = 0x12345678;

    fix_long_mode(f, 0, 0);
    f->vm.watch = (struct mull_memory_watch){
        .opaque = &f->vm, .protect = soft_tlb_protect_all, .moved = soft_tlb_forget_all};
    mull_memory_set_watch(f->mem, &f->vm.watch);
    fix_map(f, VA, 0x10001000, FIX_W | FIX_D);
    assert_int_equal(mull_region_add(f->mem, MULL_SPACE_MMIO, 0x10000000, sizeof(memory), &ops,
                                     NULL, "lent", &region, NULL),
                     0);
    assert_int_equal(mull_region_set_ram(region, &ram), 0);
    assert_int_equal(soft_translate(f->cpu, VA, SOFT_EXEC, &page), SOFT_NEXT);
    assert_null(page.host);
    assert_int_equal(soft_write(f->cpu, VA + 8, &value, 4, 0), SOFT_NEXT);
    assert_memory_equal(memory + 0x1008, &value, 4);
    assert_true(hits(f, SOFT_WIN_KERNEL_AC, VA, true));
    assert_ptr_equal(soft_direct(f->cpu, VA + 8, 4, SOFT_WRITE), memory + 0x1008);

    /* Watched: a write is seen once more. */
    assert_true(mull_device_ram_written(f->mem, &ram));
    assert_false(hits(f, SOFT_WIN_KERNEL_AC, VA, true));
    assert_true(soft_tlb_fill(f->cpu, VA, 4, false));
    assert_false(mull_device_ram_written(f->mem, &ram));
    assert_true(soft_tlb_fill(f->cpu, VA, 4, true));
    assert_true(mull_device_ram_written(f->mem, &ram));

    /* Elsewhere: nothing is left of where it was. */
    assert_true(soft_tlb_fill(f->cpu, VA, 4, true));
    struct soft_window *user = f->cpu->windows[SOFT_WINDOWS - 1];
    fill_cell(user, 0);
    fill_cell(user, SOFT_CELLS - 1);
    mull_region_move(region, 0x20000000, true);
    assert_true(user->cell[0].tag == SOFT_CELL_INVALID && user->cell[0].page == SOFT_CELL_POISON);
    assert_true(user->cell[SOFT_CELLS - 1].tag == SOFT_CELL_INVALID);
    assert_false(hits(f, SOFT_WIN_KERNEL_AC, VA, false));
    assert_false(hits(f, SOFT_WIN_KERNEL_AC, VA, true));
    assert_false(soft_tlb_fill(f->cpu, VA, 4, false));
    fix_map(f, VA, 0x20001000, FIX_W | FIX_D);
    assert_true(soft_tlb_fill(f->cpu, VA, 4, true));
    mull_device_ram_remove(f->mem, &ram);
    assert_false(hits(f, SOFT_WIN_KERNEL_AC, VA, true));
    assert_int_equal(soft_read(f->cpu, VA, &value, 4, 0), SOFT_NEXT);
    assert_int_equal(value, 0xffffffff);
    mull_memory_set_watch(f->mem, NULL);
    fix_free(f);
}

static void test_tlb_fill(void **state)
{
    struct fix *f = fix_new();
    fix_long_mode(f, 3, 0);
    fix_map(f, VA, DATA, FIX_U | FIX_W);
    fix_map(f, VA + 0x800000, DATA + 0x1000, FIX_U | FIX_W | FIX_D); /* same slot */
    fix_map(f, VA + 0x1000, FIX_ROM, FIX_U | FIX_W | FIX_D);
    fix_map(f, VA + 0x2000, 0x10000000, FIX_U | FIX_W | FIX_D);
    fix_map(f, VA + 0x3000, DATA + 0x2000, FIX_U);

    /* A read of a page that is not dirty gives no write permission. */
    assert_true(soft_tlb_fill(f->cpu, VA + 8, 8, false));
    assert_true(hits(f, SOFT_WIN_USER, VA, false));
    assert_false(hits(f, SOFT_WIN_USER, VA, true));
    assert_false(hits(f, SOFT_WIN_KERNEL, VA, false));
    assert_true(soft_tlb_fill(f->cpu, VA + 8, 8, true));
    assert_true(hits(f, SOFT_WIN_USER, VA, true));
    assert_true(fix_get(f, fix_entry(f, VA, 1)) & FIX_D);
    /* The other page takes the whole slot. */
    assert_true(soft_tlb_fill(f->cpu, VA + 0x800000, 1, false));
    assert_false(hits(f, SOFT_WIN_USER, VA, false));
    assert_false(hits(f, SOFT_WIN_USER, VA, true));
    assert_true(hits(f, SOFT_WIN_USER, VA + 0x800000, true));
    /* ROM can be read only, MMIO not at all; no page crossing; no fault is raised. */
    assert_true(soft_tlb_fill(f->cpu, VA + 0x1000, 8, false));
    assert_false(soft_tlb_fill(f->cpu, VA + 0x1000, 8, true));
    assert_false(hits(f, SOFT_WIN_USER, VA + 0x1000, true));
    assert_false(soft_tlb_fill(f->cpu, VA + 0x2000, 8, false));
    assert_false(soft_tlb_fill(f->cpu, VA + 0xffc, 8, false));
    assert_false(soft_tlb_fill(f->cpu, VA + 0x3000, 8, true));
    assert_true(soft_tlb_fill(f->cpu, VA + 0x3000, 8, false));
    assert_false(soft_tlb_fill(f->cpu, 0x8000000000000000ull, 8, false));
    check_tlb(f);

    /* Flags: code forbids, clean becomes dirty by a write only. */
    _Atomic uint8_t *flag = &f->vm.ram[0].flags[DATA >> 12];
    *flag = MULL_PAGE_CODE;
    assert_false(soft_tlb_fill(f->cpu, VA, 8, true));
    assert_true(soft_tlb_fill(f->cpu, VA, 8, false));
    *flag = MULL_PAGE_CLEAN;
    assert_true(soft_tlb_fill(f->cpu, VA, 8, false));
    assert_false(hits(f, SOFT_WIN_USER, VA, true));
    assert_int_equal(*flag, MULL_PAGE_CLEAN);
    assert_true(soft_tlb_fill(f->cpu, VA, 8, true));
    assert_int_equal(*flag, 0);
    assert_true(hits(f, SOFT_WIN_USER, VA, true));
    /* Protection by another thread. */
    *flag = MULL_PAGE_CODE;
    soft_tlb_protect(&f->vm, &f->vm.ram[0], DATA + 0x123);
    assert_false(hits(f, SOFT_WIN_USER, VA, true));
    assert_true(hits(f, SOFT_WIN_USER, VA, false));
    *flag = 0;
    assert_true(soft_tlb_fill(f->cpu, VA, 8, true));
    soft_tlb_protect(&f->vm, &f->vm.ram[0], DATA + 0x1000);
    assert_true(hits(f, SOFT_WIN_USER, VA, true));
    soft_tlb_protect_all(&f->vm);
    assert_false(hits(f, SOFT_WIN_USER, VA, true));
    check_tlb(f);
    fix_free(f);
}

static void test_flush(void **state)
{
    struct fix *f = fix_new();
    f->cpu->jump_miss = 0x1234;
    fix_long_mode(f, 0, 0);
    fix_map(f, VA, DATA, FIX_U | FIX_W);
    fix_map(f, KVA, DATA, FIX_W | FIX_G);
    fix_map(f, KVA + 0x1000, DATA, FIX_W);
    fix_set(f, fix_entry(f, KVA + 0x40000000, 2), 0x200000 | FIX_PS | FIX_P | FIX_W | FIX_G);
    const enum soft_window_id w = SOFT_WIN_KERNEL_AC;
    struct soft_window *kernel = f->cpu->window[w], *user = f->cpu->window[SOFT_WIN_USER];
    uint64_t *low = &user->jump[soft_jump_index(VA)];
    uint64_t *high = &kernel->jump[soft_jump_index(KVA)];
    kernel->jump_ready = user->jump_ready = false;
    soft_jump_clear(f->cpu, kernel);
    soft_jump_clear(f->cpu, user);

    /* Non-global pages go, global ones stay as long as no local one is there. */
    soft_tlb_fill(f->cpu, VA, 8, true);
    soft_tlb_fill(f->cpu, KVA, 8, true);
    assert_ptr_equal(soft_jump_enter(f->cpu, user, VA, 1, false, false), low);
    assert_ptr_equal(soft_jump_enter(f->cpu, kernel, KVA, 1, false, true), high);
    soft_tlb_flush(f->cpu, SOFT_FLUSH_NOT_GLOBAL);
    assert_false(hits(f, w, VA, false) || hits(f, w, VA, true));
    assert_true(hits(f, w, KVA, false) && hits(f, w, KVA, true));
    assert_true(*low == 0x1234 && *high == 1);
    soft_jump_enter(f->cpu, kernel, KVA + 0x1000, 1, false, false);
    soft_tlb_fill(f->cpu, KVA + 0x1000, 8, false);
    assert_true(f->cpu->window[w]->upper_local);
    soft_tlb_flush(f->cpu, SOFT_FLUSH_NOT_GLOBAL);
    assert_false(hits(f, w, KVA + 0x1000, false));
    assert_true(*high == 0x1234);
    soft_tlb_fill(f->cpu, KVA, 8, true);
    soft_tlb_flush(f->cpu, SOFT_FLUSH_ALL);
    assert_false(hits(f, w, KVA, false));

    /* More slots than the log holds. */
    for (unsigned i = 0; i < 2048; i++)
        fix_map(f, 0x400000000 + i * 0x1000ull, DATA, FIX_U | FIX_W | FIX_D);
    for (unsigned n = 0; n <= 2048; n += 256) {
        for (unsigned i = 0; i < n; i++)
            assert_true(soft_tlb_fill(f->cpu, 0x400000000 + i * 0x1000ull, 8, false));
        soft_tlb_flush(f->cpu, SOFT_FLUSH_NOT_GLOBAL);
        for (unsigned i = 0; i < SOFT_TLB_ENTRIES; i++) {
            assert_true(f->cpu->window[w]->read_tag[i] == soft_tlb_invalid(i));
            assert_true(f->cpu->window[w]->write_tag[i] == soft_tlb_invalid(i));
        }
    }

    /* One page, in all windows, global or not. */
    soft_tlb_fill(f->cpu, VA, 8, true);
    soft_tlb_fill(f->cpu, VA + 0x1000, 8, true);
    fix_map(f, VA + 0x1000, DATA, FIX_U | FIX_W);
    soft_tlb_fill(f->cpu, VA + 0x1000, 8, true);
    fix_set_cpl(f, 3);
    soft_tlb_fill(f->cpu, VA, 8, true);
    fix_set_cpl(f, 0);
    /* Jumps into the page go, also those of an instruction that only ends there. */
    soft_jump_enter(f->cpu, user, VA, 1, false, false);
    const uint64_t alias = KVA + ((uint64_t)SOFT_JUMP_ENTRIES << SOFT_JUMP_SHIFT);
    soft_jump_enter(f->cpu, kernel, alias, 1, false, true); /* the slot of KVA */
    soft_tlb_flush_page(f->cpu, VA + 0x5000);
    assert_true(*low == 1);
    soft_tlb_flush_page(f->cpu, VA + 0x10);
    assert_false(hits(f, w, VA, false) || hits(f, w, VA, true));
    assert_false(hits(f, SOFT_WIN_USER, VA, false));
    assert_true(hits(f, w, VA + 0x1000, false));
    assert_true(*low == 0x1234 && *high == 1);
    soft_jump_enter(f->cpu, user, VA - 2, 1, true, false);
    soft_tlb_flush_page(f->cpu, VA);
    assert_true(user->jump[soft_jump_index(VA - 2)] == 0x1234);
    soft_tlb_fill(f->cpu, KVA, 8, false);
    soft_tlb_flush_page(f->cpu, KVA);
    assert_false(hits(f, w, KVA, false));

    /* A large page goes by any address in it, also when it is no longer mapped. */
    uint64_t large = KVA + 0x40000000;
    soft_tlb_fill(f->cpu, large, 8, false);
    soft_tlb_fill(f->cpu, large + 0x5000, 8, false);
    fix_set(f, fix_entry(f, large, 2), 0);
    soft_tlb_flush_page(f->cpu, large + 0x9000);
    assert_false(hits(f, w, large, false));
    assert_false(hits(f, w, large + 0x5000, false));
    fix_set(f, fix_entry(f, large, 3), FIX_PS | FIX_P | FIX_W | FIX_G);
    soft_tlb_fill(f->cpu, large, 8, false);
    soft_tlb_flush_page(f->cpu, large ^ 0x20000000);
    assert_false(hits(f, w, large, false));
    fix_set(f, fix_entry(f, 0x500000000, 2), 0x200000 | FIX_PS | FIX_P | FIX_W);
    soft_tlb_fill(f->cpu, 0x500000000, 8, false);
    soft_tlb_flush_page(f->cpu, 0x500100000);
    assert_false(hits(f, w, 0x500000000, false));
    check_tlb(f);
    fix_free(f);
}

static void load_cr3(struct fix *f, uint64_t pcid, bool keep)
{
    f->cpu->s.cr3 = FIX_PML4 | pcid;
    soft_tlb_switch(f->cpu, keep);
}

/* Address spaces by PCID: each has its user window; what the architecture drops is dropped. */
static void test_pcid(void **state)
{
    struct fix *f = fix_new();
    fix_long_mode(f, 3, SOFT_CR4_PCIDE);
    fix_map(f, VA, DATA, FIX_U | FIX_W | FIX_D);
    fix_map(f, VA + 0x1000, DATA + 0x1000, FIX_U | FIX_W | FIX_D | FIX_G);
    load_cr3(f, 1, false);
    assert_true(soft_tlb_fill(f->cpu, VA, 8, true));
    load_cr3(f, 2, false);
    assert_false(hits(f, SOFT_WIN_USER, VA, true));
    assert_true(soft_tlb_fill(f->cpu, VA, 8, false));
    assert_true(f->cpu->gs_base == (uint64_t)f->cpu->window[SOFT_WIN_USER]);
    load_cr3(f, 1, true);
    assert_true(hits(f, SOFT_WIN_USER, VA, true));
    /* Without bit 63 what was cached of the PCID goes, of others stays. */
    load_cr3(f, 1, false);
    assert_false(hits(f, SOFT_WIN_USER, VA, true));
    load_cr3(f, 2, true);
    assert_true(hits(f, SOFT_WIN_USER, VA, false));
    /* INVPCID of another one. */
    load_cr3(f, 1, true);
    assert_true(soft_tlb_fill(f->cpu, VA, 8, true));
    soft_tlb_flush_pcid(f->cpu, 2);
    assert_true(hits(f, SOFT_WIN_USER, VA, true));
    load_cr3(f, 2, true);
    assert_false(hits(f, SOFT_WIN_USER, VA, false));
    load_cr3(f, 1, true);
    assert_true(hits(f, SOFT_WIN_USER, VA, true));
    /* INVLPG is about the current one ... */
    load_cr3(f, 2, true);
    soft_tlb_fill(f->cpu, VA, 8, true);
    soft_tlb_flush_page(f->cpu, VA);
    assert_false(hits(f, SOFT_WIN_USER, VA, true));
    load_cr3(f, 1, true);
    assert_true(hits(f, SOFT_WIN_USER, VA, true));
    /* ... and about global pages of all. */
    soft_tlb_fill(f->cpu, VA + 0x1000, 8, true);
    load_cr3(f, 2, true);
    soft_tlb_flush_page(f->cpu, VA + 0x1000);
    load_cr3(f, 1, true);
    assert_false(hits(f, SOFT_WIN_USER, VA + 0x1000, true));
    /* The other flushes. */
    for (unsigned k = 0; k < 2; k++) {
        load_cr3(f, 1, true);
        soft_tlb_fill(f->cpu, VA, 8, true);
        load_cr3(f, 2, true);
        soft_tlb_fill(f->cpu, VA, 8, true);
        soft_tlb_flush(f->cpu, k ? SOFT_FLUSH_ALL : SOFT_FLUSH_ALL_LOCAL);
        assert_false(hits(f, SOFT_WIN_USER, VA, true));
        load_cr3(f, 1, true);
        assert_false(hits(f, SOFT_WIN_USER, VA, true));
    }
    /* More address spaces than windows: never the wrong one's entries, protection reaches all. */
    for (uint64_t pcid = 1; pcid < 20; pcid++) {
        load_cr3(f, pcid, true);
        assert_false(hits(f, SOFT_WIN_USER, VA, true));
        assert_true(soft_tlb_fill(f->cpu, VA, 8, true));
    }
    f->vm.ram[0].flags[DATA >> 12] = MULL_PAGE_CODE;
    soft_tlb_protect(&f->vm, &f->vm.ram[0], DATA);
    for (unsigned i = 0; i < SOFT_WINDOWS; i++)
        assert_true(f->cpu->windows[i]->write_tag[soft_tlb_index(VA)] ==
                    soft_tlb_invalid(soft_tlb_index(VA)));
    /* The kernel's windows keep only what is global. */
    fix_set_cpl(f, 0);
    fix_map(f, KVA, DATA, FIX_W | FIX_G | FIX_D);
    fix_map(f, KVA + 0x1000, DATA, FIX_W | FIX_D);
    soft_tlb_fill(f->cpu, KVA, 8, false);
    load_cr3(f, 1, true);
    assert_true(hits(f, SOFT_WIN_KERNEL_AC, KVA, false));
    soft_tlb_fill(f->cpu, KVA + 0x1000, 8, false);
    soft_tlb_fill(f->cpu, VA, 8, false);
    load_cr3(f, 2, true);
    assert_false(hits(f, SOFT_WIN_KERNEL_AC, KVA + 0x1000, false));
    assert_false(hits(f, SOFT_WIN_KERNEL_AC, VA, false));
    fix_free(f);
}

/* Instruction fetch has its own cache of translations: it must not outlive a flush. */
static void test_exec(void **state)
{
    struct fix *f = fix_new();
    struct soft_page page;
    fix_long_mode(f, 3, 0);
    fix_map(f, VA, DATA, FIX_U);
    assert_int_equal(soft_translate(f->cpu, VA + 5, SOFT_EXEC, &page), SOFT_NEXT);
    uint64_t walks = f->cpu->stats.page_walks;
    assert_int_equal(soft_translate(f->cpu, VA + 9, SOFT_EXEC, &page), SOFT_NEXT);
    assert_true(f->cpu->stats.page_walks == walks);
    assert_true(page.gpa == DATA + 9 && page.host == f->vm.ram[0].host + DATA + 9);
    fix_set(f, fix_entry(f, VA, 1), DATA | FIX_P | FIX_U | FIX_NX);
    soft_tlb_flush_page(f->cpu, VA);
    assert_int_equal(probe(f, VA, SOFT_EXEC), SOFT_FAULT);
    fix_assert_pf(f, VA, 0x15);
    fix_map(f, VA, DATA, FIX_U);
    assert_int_equal(probe(f, VA, SOFT_EXEC), SOFT_NEXT);
    fix_set(f, fix_entry(f, VA, 1), 0);
    soft_tlb_flush(f->cpu, SOFT_FLUSH_NOT_GLOBAL);
    assert_int_equal(probe(f, VA, SOFT_EXEC), SOFT_FAULT);
    /* It says nothing about data, nor about another privilege level. */
    fix_map(f, VA, DATA, 0);
    assert_int_equal(probe(f, VA, SOFT_EXEC), SOFT_FAULT);
    fix_set_cpl(f, 0);
    assert_int_equal(probe(f, VA, SOFT_EXEC), SOFT_NEXT);
    fix_set_cpl(f, 3);
    assert_int_equal(probe(f, VA, SOFT_EXEC), SOFT_FAULT);
    assert_int_equal(probe(f, VA, SOFT_READ), SOFT_FAULT);
    fix_free(f);
}

static unsigned mmio_size, mmio_calls;
static uint64_t mmio_read(void *opaque, unsigned cpu, uint64_t offset, unsigned size)
{
    mmio_size = size;
    mmio_calls++;
    return 0x8877665544332211ull;
}
static void mmio_write(void *opaque, unsigned cpu, uint64_t offset, unsigned size, uint64_t value)
{
    mmio_size = size;
    mmio_calls++;
    *(uint64_t *)opaque = value;
}

static void test_access(void **state)
{
    static const struct mull_region_ops ops = {mmio_read, mmio_write, 0, 0};
    struct fix *f = fix_new();
    uint64_t device = 0, v;
    uint8_t buf[4096 + 16], back[sizeof(buf)];
    struct mull_error err;
    mull_region_add(f->mem, MULL_SPACE_MMIO, 0x10000000, 0x1000, &ops, &device, "d", NULL, &err);
    fix_long_mode(f, 3, 0);
    fix_map(f, VA, DATA, FIX_U | FIX_W);
    fix_map(f, VA + 0x1000, DATA + 0x5000, FIX_U | FIX_W);
    fix_map(f, VA + 0x2000, 0x10000000, FIX_U | FIX_W);
    fix_map(f, VA + 0x3000, FIX_ROM, FIX_U | FIX_W);
    for (unsigned i = 0; i < sizeof(buf); i++)
        buf[i] = (uint8_t)(i * 3 + 1);

    /* Across pages that are not neighbours; twice: by walk and by TLB. */
    for (unsigned k = 0; k < 2; k++) {
        assert_int_equal(soft_write(f->cpu, VA + 0xff9, buf, 16, SOFT_WRITE), SOFT_NEXT);
        assert_int_equal(soft_read(f->cpu, VA + 0xff9, back, 16, SOFT_READ), SOFT_NEXT);
        assert_memory_equal(buf, back, 16);
        mull_mem_read(f->mem, DATA + 0x5000, back, 9);
        assert_memory_equal(buf + 7, back, 9);
    }
    /* A write that faults in its second half writes nothing; CR2 is the second page. */
    fix_set(f, fix_entry(f, VA + 0x1000, 1), 0);
    soft_tlb_flush_page(f->cpu, VA + 0x1000);
    memset(back, 0xee, 16);
    assert_int_equal(soft_write(f->cpu, VA + 0xff9, back, 16, SOFT_WRITE), SOFT_FAULT);
    fix_assert_pf(f, VA + 0x1000, 6);
    mull_mem_read(f->mem, DATA + 0xff9, back, 7);
    assert_memory_equal(buf, back, 7);
    assert_int_equal(soft_probe(f->cpu, VA + 0xff9, 7, SOFT_WRITE), SOFT_NEXT);
    assert_int_equal(soft_probe(f->cpu, VA + 0xff9, 8, SOFT_READ), SOFT_FAULT);
    fix_assert_pf(f, VA + 0x1000, 4);
    fix_map(f, VA + 0x1000, DATA + 0x5000, FIX_U | FIX_W);
    assert_int_equal(soft_write(f->cpu, VA, buf, sizeof(buf), SOFT_WRITE), SOFT_NEXT);
    assert_int_equal(soft_read(f->cpu, VA, back, sizeof(buf), SOFT_READ), SOFT_NEXT);
    assert_memory_equal(buf, back, sizeof(buf));

    /* MMIO in one access; ROM keeps what it has. */
    mmio_calls = 0;
    assert_int_equal(soft_read(f->cpu, VA + 0x2008, &v, 8, SOFT_READ), SOFT_NEXT);
    assert_int_equal(mmio_calls, 1);
    assert_true(mmio_size == 8 && v == 0x8877665544332211ull);
    uint16_t half = 0xbeef;
    assert_int_equal(soft_write(f->cpu, VA + 0x2002, &half, 2, SOFT_WRITE), SOFT_NEXT);
    assert_true(mmio_size == 2 && device == 0xbeef);
    assert_int_equal(soft_write(f->cpu, VA + 0x3000, buf, 8, SOFT_WRITE), SOFT_NEXT);
    assert_true(fix_get(f, FIX_ROM) == 0);
    assert_null(soft_direct(f->cpu, VA + 0x2000, 4, SOFT_READ));
    assert_null(soft_direct(f->cpu, VA + 0x3000, 4, SOFT_WRITE));
    assert_non_null(soft_direct(f->cpu, VA + 0x3000, 4, SOFT_READ));
    assert_null(soft_direct(f->cpu, VA + 0xffe, 4, SOFT_READ));
    assert_ptr_equal(soft_direct(f->cpu, VA + 0x10, 4, SOFT_WRITE),
                     f->vm.ram[0].host + DATA + 0x10);

    /* Code pages are told of writes, byte exact. */
    f->vm.ram[0].flags[DATA >> 12] |= MULL_PAGE_CODE;
    soft_tlb_protect(&f->vm, &f->vm.ram[0], DATA);
    f->code_writes = 0;
    assert_int_equal(soft_write(f->cpu, VA + 0x123, buf, 4, SOFT_WRITE), SOFT_NEXT);
    assert_int_equal(f->code_writes, 1);
    assert_true(f->code_gpa == DATA + 0x123);
    assert_null(soft_direct(f->cpu, VA + 0x10, 4, SOFT_WRITE));

    /* An implicit access at CPL 3 uses the supervisor's rights and does not leave them behind. */
    fix_map(f, KVA, DATA + 0x7000, FIX_W | FIX_G);
    assert_int_equal(soft_write(f->cpu, KVA, buf, 8, SOFT_WRITE | SOFT_SYSTEM), SOFT_NEXT);
    assert_int_equal(soft_read(f->cpu, KVA, back, 8, SOFT_READ), SOFT_FAULT);
    fix_assert_pf(f, KVA, 5);
    check_tlb(f);
    fix_free(f);
}

static void test_vectors(void **state)
{
    struct fix *f = fix_new();
    soft_vectors_load(f->cpu);
    assert_true(f->cpu->vectors_live);
    const uint64_t pattern = 0x1122334455667788ull;
    __asm__ volatile("movq %0, %%xmm3" : : "r"(pattern));
    soft_vectors_park(f->cpu);
    assert_false(f->cpu->vectors_live);
    uint64_t v;
    memcpy(&v, f->cpu->s.xsave + 160 + 3 * 16, 8);
    assert_true(v == pattern);
    uint64_t now = 1;
    soft_vectors_load(f->cpu);
    __asm__ volatile("movq %%xmm3, %0" : "=r"(now));
    soft_vectors_park(f->cpu);
    assert_true(now == pattern);
    /* What came from outside cannot make XRSTOR fault. */
    memset(f->cpu->s.xsave, 0xff, sizeof(f->cpu->s.xsave));
    soft_vectors_sanitize(f->cpu);
    soft_vectors_load(f->cpu);
    soft_vectors_park(f->cpu);
    uint32_t mxcsr;
    __asm__ volatile("stmxcsr %0" : "=m"(mxcsr));
    assert_int_equal(mxcsr & ~0x3fu, 0x1f80);
    fix_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rights),         cmocka_unit_test(test_supervisor_rights),
        cmocka_unit_test(test_accessed_dirty), cmocka_unit_test(test_large_and_reserved),
        cmocka_unit_test(test_legacy_paging),  cmocka_unit_test(test_device_ram),
        cmocka_unit_test(test_tlb_fill),       cmocka_unit_test(test_flush),
        cmocka_unit_test(test_pcid),           cmocka_unit_test(test_exec),
        cmocka_unit_test(test_access),         cmocka_unit_test(test_vectors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
