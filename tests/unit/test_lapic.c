/* Unit tests of the local APICs: priorities, delivery modes and destinations, x2APIC, timers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "platform/lapic.h"
#include "platform/platform.h"

#define CPUS 4
#define BASE 0xfee00000ull

struct world {
    struct mull_memory *memory;
    struct mull_loop *loop;
    struct mull_clock *clock;
    struct mull_lapics *apics;
    unsigned signals[CPUS]; /* all signals that came */
    unsigned sipi[CPUS];
    unsigned eois[256];
    int extint; /* what the 8259A offers */
    bool stop_on_irq;
};

static void on_signal(void *opaque, unsigned cpu, enum mull_signal signal, unsigned arg)
{
    struct world *w = opaque;

    w->signals[cpu] |= signal;
    if (signal == MULL_SIGNAL_SIPI)
        w->sipi[cpu] = arg;
    if (w->stop_on_irq)
        mull_loop_stop(w->loop);
}

static void on_eoi(void *opaque, uint8_t vector)
{
    ((struct world *)opaque)->eois[vector]++;
}

static int extint_pending(void *opaque)
{
    return ((struct world *)opaque)->extint;
}

static int extint_accept(void *opaque)
{
    struct world *w = opaque;
    int vector = w->extint;
    w->extint = -1;
    return vector;
}

static uint32_t rd(struct world *w, unsigned cpu, unsigned reg)
{
    return (uint32_t)mull_space_read(w->memory, MULL_SPACE_MMIO, cpu, BASE + reg, 4);
}

static void wr(struct world *w, unsigned cpu, unsigned reg, uint32_t value)
{
    mull_space_write(w->memory, MULL_SPACE_MMIO, cpu, BASE + reg, 4, value);
}

static int rdmsr(struct world *w, unsigned cpu, uint32_t msr, uint64_t *value)
{
    return mull_lapic_msr_read(w->apics, cpu, msr, value);
}

static int wrmsr(struct world *w, unsigned cpu, uint32_t msr, uint64_t value)
{
    return mull_lapic_msr_write(w->apics, cpu, msr, value);
}

static void fixed(struct world *w, unsigned cpu, unsigned vector)
{
    mull_lapics_msi(w->apics, BASE | cpu << 12, vector);
}

static int setup(void **state)
{
    static struct world w;

    memset(&w, 0, sizeof(w));
    w.extint = -1;
    assert_int_equal(mull_memory_create(NULL, &w.memory, NULL), 0);
    assert_int_equal(mull_loop_create(&w.loop, NULL), 0);
    assert_int_equal(mull_clock_create(&w.clock, NULL), 0);
    struct mull_lapics_config config = {
        .memory = w.memory,
        .loop = w.loop,
        .clock = w.clock,
        .cpus = CPUS,
        .opaque = &w,
        .signal = on_signal,
        .eoi = on_eoi,
        .extint_pending = extint_pending,
        .extint_accept = extint_accept,
    };
    assert_int_equal(mull_lapics_create(&config, &w.apics, NULL), 0);
    for (unsigned i = 0; i < CPUS; i++)
        wr(&w, i, 0xf0, 0x1ff);
    memset(w.signals, 0, sizeof(w.signals));
    *state = &w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;

    mull_lapics_destroy(w->apics);
    mull_clock_destroy(w->clock);
    mull_loop_destroy(w->loop);
    mull_memory_destroy(w->memory);
    return 0;
}

static void test_priorities(void **state)
{
    struct world *w = *state;

    assert_int_equal(mull_lapic_pending(w->apics, 0), -1);
    assert_int_equal(mull_lapic_accept(w->apics, 0), -1);
    fixed(w, 0, 0x41);
    assert_int_equal(w->signals[0], MULL_SIGNAL_IRQ);
    fixed(w, 0, 0x45);
    fixed(w, 0, 0x61);
    assert_int_equal(rd(w, 0, 0x220), 0x22); /* IRR 40h..5Fh */
    assert_int_equal(rd(w, 0, 0x230), 0x2);
    assert_int_equal(mull_lapic_pending(w->apics, 0), 0x61);
    assert_int_equal(mull_lapic_accept(w->apics, 0), 0x61);
    assert_int_equal(rd(w, 0, 0xa0), 0x60); /* PPR */
    assert_int_equal(rd(w, 0, 0x130), 0x2); /* ISR */
    assert_int_equal(mull_lapic_pending(w->apics, 0), -1);
    fixed(w, 0, 0x6f); /* same class: waits */
    assert_int_equal(mull_lapic_pending(w->apics, 0), -1);
    fixed(w, 0, 0x70); /* higher class: nests */
    assert_int_equal(mull_lapic_accept(w->apics, 0), 0x70);
    wr(w, 0, 0xb0, 0);
    assert_int_equal(mull_lapic_pending(w->apics, 0), -1);
    w->signals[0] = 0;
    wr(w, 0, 0xb0, 0);
    assert_int_equal(w->signals[0], MULL_SIGNAL_IRQ); /* what waited is found again */
    assert_int_equal(mull_lapic_accept(w->apics, 0), 0x6f);
    wr(w, 0, 0xb0, 0);
    assert_int_equal(mull_lapic_accept(w->apics, 0), 0x45);
    wr(w, 0, 0xb0, 0);
    mull_lapic_set_cr8(w->apics, 0, 4);
    assert_int_equal(rd(w, 0, 0x80), 0x40);
    assert_int_equal(mull_lapic_pending(w->apics, 0), -1); /* 41h is not above class 4 */
    w->signals[0] = 0;
    wr(w, 0, 0x80, 0x3f);
    assert_int_equal(w->signals[0], MULL_SIGNAL_IRQ);
    assert_int_equal(mull_lapic_cr8(w->apics, 0), 3);
    assert_int_equal(mull_lapic_accept(w->apics, 0), 0x41);
    wr(w, 0, 0xb0, 0);
    wr(w, 0, 0xb0, 0); /* nothing in service: no harm */
    for (unsigned i = 0; i < 256; i++)
        assert_int_equal(w->eois[i], 0); /* all were edges */
}

static void test_level_eoi(void **state)
{
    struct world *w = *state;

    mull_lapics_msi(w->apics, BASE, 0xc050); /* level, asserted */
    assert_int_equal(rd(w, 0, 0x1a0), 1 << 16);
    assert_int_equal(mull_lapic_accept(w->apics, 0), 0x50);
    wr(w, 0, 0xb0, 0);
    assert_int_equal(w->eois[0x50], 1);
    mull_lapics_msi(w->apics, BASE, 0x8051); /* level, de-asserted: nothing */
    assert_int_equal(mull_lapic_pending(w->apics, 0), -1);
    fixed(w, 0, 0x50); /* the same vector as an edge now */
    assert_int_equal(mull_lapic_accept(w->apics, 0), 0x50);
    wr(w, 0, 0xb0, 0);
    assert_int_equal(w->eois[0x50], 1);
}

static void test_ipi_shorthands(void **state)
{
    struct world *w = *state;

    wr(w, 1, 0x300, 0x40 | 1 << 18);
    assert_int_equal(mull_lapic_pending(w->apics, 1), 0x40);
    assert_int_equal(mull_lapic_pending(w->apics, 0), -1);
    wr(w, 1, 0x300, 0x50 | 2 << 18);
    for (unsigned i = 0; i < CPUS; i++)
        assert_int_equal(mull_lapic_pending(w->apics, i), 0x50);
    wr(w, 1, 0x300, 0x60 | 3 << 18);
    for (unsigned i = 0; i < CPUS; i++)
        assert_int_equal(mull_lapic_pending(w->apics, i), i == 1 ? 0x50 : 0x60);
}

static void test_ipi_destinations(void **state)
{
    struct world *w = *state;

    wr(w, 0, 0x310, 2u << 24);
    wr(w, 0, 0x300, 0x40);
    assert_int_equal(rd(w, 0, 0x310), 2u << 24);
    assert_int_equal(mull_lapic_pending(w->apics, 2), 0x40);
    assert_int_equal(mull_lapic_pending(w->apics, 1), -1);
    wr(w, 0, 0x310, 0xffu << 24); /* physical broadcast */
    wr(w, 0, 0x300, 0x51);
    assert_int_equal(mull_lapic_pending(w->apics, 0), 0x51);
    assert_int_equal(mull_lapic_pending(w->apics, 3), 0x51);
    wr(w, 0, 0x310, 77u << 24); /* nobody */
    wr(w, 0, 0x300, 0x99);

    for (unsigned i = 0; i < CPUS; i++) /* flat logical */
        wr(w, i, 0xd0, 0x01000000u << i);
    wr(w, 0, 0x310, 0x0au << 24);
    wr(w, 0, 0x300, 0x60 | 0x800);
    assert_int_equal(mull_lapic_pending(w->apics, 0), 0x51);
    assert_int_equal(mull_lapic_pending(w->apics, 1), 0x60);
    assert_int_equal(mull_lapic_pending(w->apics, 2), 0x51);
    assert_int_equal(mull_lapic_pending(w->apics, 3), 0x60);

    for (unsigned i = 0; i < CPUS; i++) { /* cluster: 0,1 in cluster 2; 2,3 in cluster 3 */
        wr(w, i, 0xe0, 0x0fffffff);
        wr(w, i, 0xd0, (2 + i / 2) << 28 | 1u << (24 + i % 2));
    }
    wr(w, 0, 0x310, 0x32u << 24);
    wr(w, 0, 0x300, 0x70 | 0x800);
    assert_int_equal(mull_lapic_pending(w->apics, 1), 0x60);
    assert_int_equal(mull_lapic_pending(w->apics, 2), 0x51);
    assert_int_equal(mull_lapic_pending(w->apics, 3), 0x70);
}

static void test_lowest_priority(void **state)
{
    struct world *w = *state;
    unsigned got[CPUS] = {0};

    for (unsigned i = 0; i < CPUS; i++) {
        wr(w, i, 0xd0, 0x01000000u << i);
        wr(w, i, 0x80, i == 2 ? 0x10 : 0x50);
    }
    mull_lapics_msi(w->apics, BASE | 0xf << 12 | 4, 0x100 | 0x90); /* logical, lowest priority */
    assert_int_equal(mull_lapic_accept(w->apics, 2), 0x90);
    wr(w, 2, 0xb0, 0);
    wr(w, 2, 0x80, 0x50);
    for (unsigned n = 0; n < 2 * CPUS; n++) { /* all equal: in turn; by redirection hint */
        mull_lapics_msi(w->apics, BASE | 0xf << 12 | 12, 0x91);
        for (unsigned i = 0; i < CPUS; i++)
            if (mull_lapic_accept(w->apics, i) == 0x91) {
                got[i]++;
                wr(w, i, 0xb0, 0);
            }
    }
    for (unsigned i = 0; i < CPUS; i++)
        assert_int_equal(got[i], 2);
}

static void test_init_sipi_nmi(void **state)
{
    struct world *w = *state;

    wr(w, 0, 0x310, 1u << 24);
    wr(w, 0, 0x300, 0xc500);
    assert_int_equal(w->signals[1], MULL_SIGNAL_INIT);
    w->signals[1] = 0;
    wr(w, 0, 0x300, 0x8500); /* level de-assert */
    assert_int_equal(w->signals[1], 0);
    wr(w, 0, 0x300, 0x4699);
    assert_int_equal(w->signals[1], MULL_SIGNAL_SIPI);
    assert_int_equal(w->sipi[1], 0x99);
    w->signals[1] = 0;
    wr(w, 0, 0x300, 0x400 | 3 << 18);
    assert_int_equal(w->signals[0], 0);
    assert_int_equal(w->signals[1], MULL_SIGNAL_NMI);
    assert_int_equal(w->signals[3], MULL_SIGNAL_NMI);
    assert_int_equal(mull_lapic_pending(w->apics, 1), -1);

    wr(w, 1, 0x80, 0x77);
    mull_lapic_init(w->apics, 1);
    assert_int_equal(rd(w, 1, 0x80), 0);
    assert_int_equal(rd(w, 1, 0xf0), 0xff);
    assert_int_equal(rd(w, 1, 0x350), 0x10000);
    fixed(w, 1, 0x40); /* software-disabled: not accepted */
    assert_int_equal(mull_lapic_pending(w->apics, 1), -1);
}

static void test_errors(void **state)
{
    struct world *w = *state;

    wr(w, 0, 0x370, 0xfe);
    wr(w, 0, 0x310, 1u << 24);
    wr(w, 0, 0x300, 0x0f); /* illegal vector */
    assert_int_equal(mull_lapic_accept(w->apics, 0), 0xfe);
    assert_int_equal(rd(w, 0, 0x280), 0);
    wr(w, 0, 0x280, 0);
    assert_int_equal(rd(w, 0, 0x280), 0x20);
    fixed(w, 1, 3);
    wr(w, 1, 0x280, 0);
    assert_int_equal(rd(w, 1, 0x280), 0x40);
    wr(w, 1, 0x280, 0);
    assert_int_equal(rd(w, 1, 0x280), 0);
    wr(w, 2, 0x370, 0x05); /* the error entry's own vector is illegal: no recursion */
    rd(w, 2, 0x2f0 + 0x60);
    rd(w, 2, 0x3f0 - 0x50);
    wr(w, 2, 0x280, 0);
    assert_int_equal(rd(w, 2, 0x280), 0xc0);
}

static void test_lint0(void **state)
{
    struct world *w = *state;

    wr(w, 0, 0x350, 0x10000);
    w->extint = 0x30;
    mull_lapics_lint0(w->apics, true);
    assert_int_equal(mull_lapic_pending(w->apics, 0), -1);
    wr(w, 0, 0x350, 0x700);
    assert_int_equal(w->signals[0], MULL_SIGNAL_IRQ);
    assert_int_equal(mull_lapic_pending(w->apics, 0), 0x30);
    fixed(w, 0, 0xf0);
    assert_int_equal(mull_lapic_accept(w->apics, 0), 0x30);
    assert_int_equal(mull_lapic_accept(w->apics, 0), 0xf0);
    w->extint = 0x31;
    assert_int_equal(mull_lapic_pending(w->apics, 1), -1); /* only where LINT0 says so */
    wr(w, 1, 0x350, 0x41);                                 /* or as a plain vector */
    mull_lapics_lint0(w->apics, true);
    assert_int_equal(mull_lapic_accept(w->apics, 1), 0x41);
    wr(w, 2, 0x360, 0x400);
    w->signals[2] = w->signals[3] = 0;
    mull_lapics_lint1(w->apics);
    assert_int_equal(w->signals[2], MULL_SIGNAL_NMI);
    assert_int_equal(w->signals[3], 0);
    mull_lapics_msi(w->apics, BASE | 3 << 12, 0x700); /* ExtINT from an I/O APIC */
    assert_int_equal(mull_lapic_accept(w->apics, 3), 0x31);
    w->extint = 0x32;
    assert_int_equal(mull_lapic_pending(w->apics, 3), -1); /* that was one */
}

static void test_x2apic(void **state)
{
    struct world *w = *state;
    uint64_t v;

    assert_int_equal(rdmsr(w, 1, 0x1b, &v), 0);
    assert_int_equal(v, 0xfee00800);
    assert_int_equal(rdmsr(w, 0, 0x1b, &v), 0);
    assert_int_equal(v, 0xfee00900);
    assert_int_equal(rdmsr(w, 1, 0x802, &v), -1); /* not in xAPIC mode */
    assert_int_equal(wrmsr(w, 1, 0x1b, 0xfee00400), -1);
    assert_int_equal(wrmsr(w, 1, 0x1b, 0xfed00c00), -1);
    assert_int_equal(wrmsr(w, 1, 0x1b, 0xfee00c00), 0);
    assert_int_equal(wrmsr(w, 1, 0x1b, 0xfee00800), -1); /* not back */
    assert_int_equal(rd(w, 1, 0x20), 0xffffffff);        /* the page is gone */
    assert_int_equal(rdmsr(w, 1, 0x802, &v), 0);
    assert_int_equal(v, 1);
    assert_int_equal(rdmsr(w, 1, 0x80d, &v), 0);
    assert_int_equal(v, 2);
    assert_int_equal(wrmsr(w, 1, 0x80d, 2), -1);
    assert_int_equal(wrmsr(w, 1, 0x80e, 0), -1);
    assert_int_equal(rdmsr(w, 1, 0x80e, &v), -1);
    assert_int_equal(rdmsr(w, 1, 0x80b, &v), -1);
    assert_int_equal(wrmsr(w, 1, 0x80b, 1), -1);
    assert_int_equal(wrmsr(w, 1, 0x808, 0x100), -1);
    assert_int_equal(wrmsr(w, 1, 0x828, 1), -1);
    assert_int_equal(wrmsr(w, 1, 0x830, 1u << 20), -1);
    assert_int_equal(wrmsr(w, 1, 0x831, 0), -1);
    assert_int_equal(wrmsr(w, 1, 0x8ff, 0), -1);
    assert_int_equal(wrmsr(w, 1, 0x83f, 0x55), 0); /* self-IPI */
    assert_int_equal(mull_lapic_accept(w->apics, 1), 0x55);
    assert_int_equal(wrmsr(w, 1, 0x80b, 0), 0);

    for (unsigned i = 0; i < CPUS; i++)
        wrmsr(w, i, 0x1b, 0xfee00c00 | (i ? 0 : 0x100));
    assert_int_equal(wrmsr(w, 0, 0x830, 3ull << 32 | 0x60), 0);
    assert_int_equal(mull_lapic_pending(w->apics, 3), 0x60);
    assert_int_equal(rdmsr(w, 0, 0x830, &v), 0);
    assert_true(v == (3ull << 32 | 0x60));
    assert_int_equal(wrmsr(w, 0, 0x830, 6ull << 32 | 0x870), 0); /* logical, cluster 0 */
    assert_int_equal(mull_lapic_pending(w->apics, 0), -1);
    assert_int_equal(mull_lapic_pending(w->apics, 1), 0x70);
    assert_int_equal(mull_lapic_pending(w->apics, 2), 0x70);
    assert_int_equal(wrmsr(w, 0, 0x830, 0xffffffffull << 32 | 0x80), 0);
    assert_int_equal(mull_lapic_pending(w->apics, 0), 0x80);
    assert_int_equal(wrmsr(w, 0, 0x830, 0xffull << 32 | 0x90), 0); /* not a broadcast here */
    assert_int_equal(mull_lapic_pending(w->apics, 2), 0x80);
    fixed(w, 2, 0xa0); /* messages have 8 bits */
    assert_int_equal(mull_lapic_pending(w->apics, 2), 0xa0);

    assert_int_equal(wrmsr(w, 2, 0x1b, 0xfee00000), 0); /* off */
    assert_int_equal(mull_lapic_pending(w->apics, 2), -1);
    fixed(w, 2, 0xa0);
    assert_int_equal(mull_lapic_pending(w->apics, 2), -1);
    assert_int_equal(wrmsr(w, 2, 0x1b, 0xfee00c00), -1);
    assert_int_equal(wrmsr(w, 2, 0x1b, 0xfee00800), 0);
    assert_int_equal(rd(w, 2, 0x20), 2u << 24);
    assert_int_equal(rd(w, 2, 0xd0), 0);
}

static void test_timer(void **state)
{
    struct world *w = *state;
    uint64_t v;

    w->stop_on_irq = true;
    wr(w, 0, 0x320, 0x40);
    wr(w, 0, 0x3e0, 0xb); /* divide by 1: nanoseconds */
    uint64_t before = mull_clock_now(w->clock);
    wr(w, 0, 0x380, 1000000);
    assert_true(rd(w, 0, 0x390) <= 1000000);
    mull_loop_run(w->loop);
    assert_true(mull_clock_now(w->clock) - before >= 1000000);
    assert_int_equal(mull_lapic_accept(w->apics, 0), 0x40);
    assert_int_equal(rd(w, 0, 0x390), 0);
    assert_int_equal(rd(w, 0, 0x380), 1000000);
    wr(w, 0, 0xb0, 0);

    wr(w, 0, 0x320, 0x20041); /* periodic */
    wr(w, 0, 0x3e0, 0);       /* divide by 2 */
    before = mull_clock_now(w->clock);
    wr(w, 0, 0x380, 500000);
    for (unsigned i = 1; i <= 3; i++) {
        mull_loop_run(w->loop);
        assert_true(mull_clock_now(w->clock) - before >= i * 1000000);
        assert_int_equal(mull_lapic_accept(w->apics, 0), 0x41);
        wr(w, 0, 0xb0, 0);
        assert_true(rd(w, 0, 0x390) <= 500000);
    }
    wr(w, 0, 0x380, 1); /* 2 ns: must not hang the loop */
    mull_loop_run(w->loop);
    wr(w, 0, 0x380, 0);
    while (mull_lapic_accept(w->apics, 0) >= 0)
        wr(w, 0, 0xb0, 0);

    wr(w, 0, 0x380, 100000000);
    wr(w, 0, 0x320, 0x40042); /* TSC deadline: disarms what ran */
    assert_int_equal(rd(w, 0, 0x390), 0);
    wr(w, 0, 0x380, 1000);
    assert_int_equal(rd(w, 0, 0x380), 0);
    uint64_t deadline = mull_clock_tsc(w->clock) + mull_clock_tsc_hz(w->clock) / 1000;
    assert_int_equal(wrmsr(w, 0, 0x6e0, deadline), 0);
    assert_int_equal(rdmsr(w, 0, 0x6e0, &v), 0);
    assert_true(v == deadline || (v == 0 && mull_clock_tsc(w->clock) >= deadline));
    mull_loop_run(w->loop);
    assert_true(mull_clock_tsc(w->clock) >= deadline);
    assert_int_equal(mull_lapic_accept(w->apics, 0), 0x42);
    wr(w, 0, 0xb0, 0);
    assert_int_equal(rdmsr(w, 0, 0x6e0, &v), 0);
    assert_int_equal(v, 0);
    assert_int_equal(wrmsr(w, 0, 0x6e0, 1), 0); /* long past: at once */
    assert_int_equal(mull_lapic_accept(w->apics, 0), 0x42);
    wr(w, 0, 0xb0, 0);

    /* A vCPU whose TSC runs ahead by 2^40: its deadlines mean the same moments. */
    mull_lapic_tsc_offset(w->apics, 0, 1ull << 40);
    deadline = mull_clock_tsc(w->clock) + mull_clock_tsc_hz(w->clock) / 1000;
    assert_int_equal(wrmsr(w, 0, 0x6e0, deadline + (1ull << 40)), 0);
    mull_lapic_tsc_offset(w->apics, 0, 1ull << 41);
    rdmsr(w, 0, 0x6e0, &v);
    assert_true(v == deadline + (1ull << 40) || v == 0);
    wrmsr(w, 0, 0x6e0, 0);
}

static void test_state(void **state)
{
    struct world *w = *state;
    static struct mull_cpu_state s, t;

    wr(w, 0, 0x80, 0x20);
    wr(w, 0, 0x320, 0x400fe);
    wr(w, 0, 0xd0, 0x01000000);
    fixed(w, 0, 0x61);
    fixed(w, 0, 0x31);
    mull_lapics_msi(w->apics, BASE, 0xc045);
    assert_int_equal(mull_lapic_accept(w->apics, 0), 0x61);
    uint64_t deadline = mull_clock_tsc(w->clock) + (1ull << 45);
    wrmsr(w, 0, 0x6e0, deadline);
    mull_lapic_state_get(w->apics, 0, &s);
    assert_int_equal(s.cr8, 2);
    assert_true(s.tsc_deadline == deadline);
    mull_lapic_reset(w->apics, 0);
    assert_int_equal(mull_lapic_pending(w->apics, 0), -1);
    mull_lapic_state_set(w->apics, 0, &s);
    mull_lapic_state_get(w->apics, 0, &t);
    assert_memory_equal(s.lapic, t.lapic, sizeof(s.lapic));
    assert_true(s.tsc_deadline == t.tsc_deadline && s.apic_base == t.apic_base);
    wr(w, 0, 0xb0, 0);
    assert_int_equal(mull_lapic_accept(w->apics, 0), 0x45);
    wr(w, 0, 0xb0, 0);
    assert_int_equal(w->eois[0x45], 1); /* TMR came along */
    assert_int_equal(mull_lapic_accept(w->apics, 0), 0x31);
    memset(&s, 0, sizeof(s));
    mull_lapic_state_set(w->apics, 0, &s);
    assert_int_equal(rd(w, 0, 0xf0), 0xff);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_priorities),      T(test_level_eoi),
        T(test_ipi_shorthands),  T(test_ipi_destinations),
        T(test_lowest_priority), T(test_init_sipi_nmi),
        T(test_errors),          T(test_lint0),
        T(test_x2apic),          T(test_timer),
        T(test_state),
    };
    return cmocka_run_group_tests_name("lapic", tests, NULL, NULL);
}
