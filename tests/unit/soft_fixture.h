/* A vCPU of the soft engine without translator: guest memory, windows, page tables. */
#ifndef TEST_SOFT_FIXTURE_H
#define TEST_SOFT_FIXTURE_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "engine/soft/soft.h"

#define FIX_RAM 0x400000ull /* RAM at 0 */
#define FIX_ROM 0x800000ull /* 64 KiB of ROM */
#define FIX_PML4 0x1000ull
#define FIX_TABLES 0x2000ull /* page tables grow from here */

#define FIX_P 1ull
#define FIX_W 2ull
#define FIX_U 4ull
#define FIX_A 0x20ull
#define FIX_D 0x40ull
#define FIX_PS 0x80ull
#define FIX_G 0x100ull
#define FIX_NX (1ull << 63)

struct fix {
    struct mull_memory *mem;
    struct soft_vm vm;
    struct soft_cpu *cpu;
    struct mull_engine_bus bus;
    struct mull_cpuid cpuid;
    uint64_t next_table;
    unsigned code_writes; /* by the fake soft_code_written() */
    uint64_t code_gpa;
};

static inline void *fix_pages(size_t size)
{
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1, 0);
    assert_true(p != MAP_FAILED);
    return p;
}

static inline struct fix *fix_new(void)
{
    struct fix *f = calloc(1, sizeof(*f));
    struct mull_error err;
    assert_int_equal(mull_memory_create(NULL, &f->mem, &err), 0);
    assert_int_equal(mull_memory_add_ram(f->mem, 0, FIX_RAM, false, &err), 0);
    assert_int_equal(mull_memory_add_ram(f->mem, FIX_ROM, 0x10000, true, &err), 0);
    f->vm.memory = f->mem;
    f->vm.ram = mull_memory_ram(f->mem, &f->vm.ram_count);
    f->vm.device_ram = mull_memory_device_ram(f->mem);
    f->vm.cpus = 1;
    f->vm.bus = &f->bus;
    f->cpu = fix_pages(SOFT_COMMON_SIZE);
    for (unsigned i = 0; i < SOFT_WINDOWS; i++)
        f->cpu->windows[i] = fix_pages(sizeof(struct soft_window));
    for (unsigned i = 0; i < SOFT_WIN_COUNT; i++)
        f->cpu->window[i] = f->cpu->windows[i];
    f->vm.cpu[0] = f->cpu;
    f->cpu->vm = &f->vm;
    f->cpu->self = f->cpu;
    f->cpu->run_ok = 1;
    f->cpu->xsave_mask = 7;
    f->cpu->cpuid = &f->cpuid;
    f->cpu->private_run = f; /* for the fakes */
    f->next_table = FIX_TABLES;
    mull_cpu_state_reset(&f->cpu->s, 0, true);
    soft_mode_changed(f->cpu);
    soft_tlb_flush(f->cpu, SOFT_FLUSH_ALL);
    return f;
}

static inline void fix_free(struct fix *f)
{
    for (unsigned i = 0; i < SOFT_WINDOWS; i++)
        munmap(f->cpu->windows[i], sizeof(struct soft_window));
    munmap(f->cpu, SOFT_COMMON_SIZE);
    mull_memory_destroy(f->mem);
    free(f);
}

static inline uint64_t fix_get(struct fix *f, uint64_t gpa)
{
    uint64_t v;
    assert_int_equal(mull_mem_read64(f->mem, gpa, &v), 0);
    return v;
}

static inline void fix_set(struct fix *f, uint64_t gpa, uint64_t v)
{
    assert_int_equal(mull_mem_write64(f->mem, gpa, v), 0);
}

/* The address of the 4-level entry that maps @va at @level (1: 4 KiB), making tables. */
static inline uint64_t fix_entry(struct fix *f, uint64_t va, unsigned level)
{
    uint64_t table = FIX_PML4;
    for (unsigned l = 4; l > level; l--) {
        uint64_t at = table + ((va >> (12 + 9 * (l - 1))) & 511) * 8;
        uint64_t e = fix_get(f, at);
        if (!(e & FIX_P)) {
            e = f->next_table | FIX_P | FIX_W | FIX_U;
            f->next_table += 0x1000;
            assert_true(f->next_table < 0x80000);
            fix_set(f, at, e);
        }
        table = e & 0xffffffffff000ull;
    }
    return table + ((va >> (12 + 9 * (level - 1))) & 511) * 8;
}

/* Map a 4 KiB page. */
static inline void fix_map(struct fix *f, uint64_t va, uint64_t gpa, uint64_t bits)
{
    fix_set(f, fix_entry(f, va, 1), gpa | bits | FIX_P);
}

static inline void fix_segment(struct fix *f, unsigned seg, uint16_t selector, uint64_t base,
                               uint32_t limit, uint32_t attr)
{
    f->cpu->s.seg[seg] =
        (struct mull_segment){.base = base, .limit = limit, .attr = attr, .selector = selector};
}

/* 64-bit mode at a privilege level, paging on, WP and NX on; SMEP and SMAP as given in @cr4. */
static inline void fix_long_mode(struct fix *f, unsigned cpl, uint64_t cr4)
{
    struct mull_cpu_state *s = &f->cpu->s;
    uint32_t dpl = cpl << MULL_SEG_DPL_SHIFT;
    s->cr0 = SOFT_CR0_PE | SOFT_CR0_PG | SOFT_CR0_WP | SOFT_CR0_NE | SOFT_CR0_ET;
    s->cr4 = SOFT_CR4_PAE | SOFT_CR4_PGE | SOFT_CR4_OSFXSR | cr4;
    s->cr3 = FIX_PML4;
    s->efer = SOFT_EFER_LME | SOFT_EFER_LMA | SOFT_EFER_NXE | SOFT_EFER_SCE;
    s->rflags = 2;
    fix_segment(f, MULL_CS, (uint16_t)(0x10 | cpl), 0, 0xffffffff,
                0xb | MULL_SEG_S | MULL_SEG_P | MULL_SEG_L | MULL_SEG_G | dpl);
    fix_segment(f, MULL_SS, (uint16_t)(0x18 | cpl), 0, 0xffffffff,
                3 | MULL_SEG_S | MULL_SEG_P | MULL_SEG_DB | MULL_SEG_G | dpl);
    for (unsigned i = 0; i < 6; i++)
        if (i != MULL_CS && i != MULL_SS)
            fix_segment(f, i, 0, 0, 0, MULL_SEG_UNUSABLE);
    soft_mode_changed(f->cpu);
    soft_tlb_flush(f->cpu, SOFT_FLUSH_ALL);
}

static inline void fix_set_cpl(struct fix *f, unsigned cpl)
{
    struct mull_segment *ss = &f->cpu->s.seg[MULL_SS];
    ss->attr = (ss->attr & ~(uint32_t)MULL_SEG_DPL) | cpl << MULL_SEG_DPL_SHIFT;
    soft_mode_changed(f->cpu);
}

/* The last fault is this #PF. */
#define fix_assert_pf(f, va, code)                                                                 \
    do {                                                                                           \
        assert_int_equal((f)->cpu->fault.vector, SOFT_PFV);                                        \
        assert_true((f)->cpu->fault.address == (va));                                              \
        assert_int_equal((f)->cpu->fault.error, (code));                                           \
    } while (0)

#endif
