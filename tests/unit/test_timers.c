/* Unit tests of the 8254, the RTC, the HPET and the ACPI timer: on a clock that the test moves. */
#include "platform_world.h"

#include "platform/acpi_pm.h"
#include "platform/hpet.h"
#include "platform/pit.h"
#include "platform/rtc.h"

#define HPET 0xfed00000ull
#define MS 1000000ull
#define S 1000000000ull

static struct world world;

static int setup(void **state)
{
    world_make(&world);
    *state = &world;
    return 0;
}

static int teardown(void **state)
{
    world_free(&world);
    return 0;
}

static void destroy(struct mull_device *device)
{
    device->ops->destroy(device);
}

/* Nanoseconds at which the 8254 has counted @ticks: rounded up. */
static uint64_t pit_ns(uint64_t ticks)
{
    return (ticks * S + MULL_PIT_HZ - 1) / MULL_PIT_HZ;
}

static void pit_load(struct world *w, unsigned channel, unsigned mode, uint16_t count)
{
    world_out(w, 0x43, 1, channel << 6 | 0x30 | mode << 1);
    world_out(w, (uint16_t)(0x40 + channel), 1, count & 0xff);
    world_out(w, (uint16_t)(0x40 + channel), 1, count >> 8);
}

static unsigned pit_latched(struct world *w, unsigned channel)
{
    world_out(w, 0x43, 1, channel << 6);
    unsigned low = world_in(w, (uint16_t)(0x40 + channel), 1);
    return low | world_in(w, (uint16_t)(0x40 + channel), 1) << 8;
}

static void test_pit(void **state)
{
    struct world *w = *state;
    struct mull_pit *pit;

    assert_int_equal(mull_pit_create(&w->env, world_irq(w, 0), &pit, NULL), 0);
    struct mull_device *d = mull_pit_device(pit);

    pit_load(w, 0, 2, 11932); /* 100 Hz */
    assert_int_equal(pit_latched(w, 0), 11932);
    unsigned before = w->edges[0];
    world_advance(w, d, pit_ns(11932) - 1);
    assert_int_equal(w->edges[0], before);
    assert_int_equal(pit_latched(w, 0), 1);
    world_advance(w, d, pit_ns(11932));
    assert_int_equal(w->edges[0], before + 1);
    assert_int_equal(pit_latched(w, 0), 11932);
    world_advance(w, d, pit_ns(2 * 11932));
    assert_int_equal(w->edges[0], before + 2);
    world_advance(w, d, pit_ns(10 * 11932) + 100); /* what was missed is skipped, */
    assert_int_equal(w->edges[0], before + 3);
    world_advance(w, d, pit_ns(11 * 11932)); /* the phase is kept */
    assert_int_equal(w->edges[0], before + 4);

    uint64_t start = pit_ns(11 * 11932) + 50;
    world_set_time(w, start);
    pit_load(w, 0, 0, 1000); /* one shot */
    assert_false(w->line[0]);
    before = w->edges[0];
    world_advance(w, d, start + pit_ns(1000));
    assert_int_equal(w->edges[0], before + 1);
    world_advance(w, d, start + pit_ns(5000));
    assert_int_equal(w->edges[0], before + 1);
    destroy(d);
}

/* As Linux calibrates with channel 2: gate and output through port 61h, reads in the middle. */
static void test_pit_channel2(void **state)
{
    struct world *w = *state;
    struct mull_pit *pit;

    assert_int_equal(mull_pit_create(&w->env, world_irq(w, 0), &pit, NULL), 0);
    world_out(w, 0x61, 1, 1);
    pit_load(w, 2, 0, 0xffff);
    assert_int_equal(world_in(w, 0x61, 1) & 0x2f, 0x01);
    world_set_time(w, pit_ns(0xfff));
    unsigned low = world_in(w, 0x42, 1);
    assert_int_equal(low | world_in(w, 0x42, 1) << 8, 0xf000);
    world_set_time(w, pit_ns(0xffff) - 1);
    assert_int_equal(world_in(w, 0x61, 1) & 0x20, 0);
    world_set_time(w, pit_ns(0xffff));
    assert_int_equal(world_in(w, 0x61, 1) & 0x20, 0x20);

    world_out(w, 0x43, 1, 0xc8); /* read back count and status of channel 2 */
    assert_int_equal(world_in(w, 0x42, 1), 0xb0);
    assert_int_equal(world_in(w, 0x42, 1), 0x00);
    assert_int_equal(world_in(w, 0x42, 1), 0x00);

    world_out(w, 0x43, 1, 0xb7); /* BCD, mode 3 */
    world_out(w, 0x42, 1, 0x00);
    world_out(w, 0x42, 1, 0x10); /* 1000 */
    assert_int_equal(pit_latched(w, 2), 0x1000);
    uint64_t start = pit_ns(0xffff);
    world_set_time(w, start + pit_ns(100));
    assert_int_equal(pit_latched(w, 2), 0x0800);
    assert_int_equal(world_in(w, 0x61, 1) & 0x20, 0x20);
    world_set_time(w, start + pit_ns(600));
    assert_int_equal(world_in(w, 0x61, 1) & 0x20, 0);
    world_out(w, 0x43, 1, 0x98); /* mode 4, low byte only */
    world_out(w, 0x42, 1, 9);
    assert_int_equal(world_in(w, 0x42, 1), 9);
    destroy(mull_pit_device(pit));
}

static void gate2(struct world *w, bool level)
{
    world_out(w, 0x61, 1, level);
}

static bool out2(struct world *w)
{
    return world_in(w, 0x61, 1) & 0x20;
}

/* The status byte of channel 2: OUT, null count, access, mode, BCD. */
static unsigned status2(struct world *w)
{
    world_out(w, 0x43, 1, 0xe8);
    return world_in(w, 0x42, 1);
}

/* The gate in each mode, and counts written while another runs (data sheet, "Mode Definitions"). */
static void test_pit_modes(void **state)
{
    struct world *w = *state;
    struct mull_pit *pit;
    uint64_t at = 0;
    /* In the middle of ticks, because where a period begins is rounded to nanoseconds. */
#define AFTER(ticks) world_set_time(w, at + pit_ns(ticks) + 300)
#define NEXT(ticks) (at += pit_ns(ticks) + 300, world_set_time(w, at))

    assert_int_equal(mull_pit_create(&w->env, world_irq(w, 0), &pit, NULL), 0);
    /* Mode 0: the gate stops the counting; OUT does not care. */
    gate2(w, false);
    pit_load(w, 2, 0, 1000);
    AFTER(5000);
    assert_int_equal(pit_latched(w, 2), 1000);
    assert_false(out2(w));
    NEXT(5000);
    gate2(w, true);
    AFTER(400);
    assert_int_equal(pit_latched(w, 2), 600);
    gate2(w, false);
    NEXT(9000);
    assert_int_equal(pit_latched(w, 2), 600);
    gate2(w, true);
    AFTER(599);
    assert_false(out2(w));
    AFTER(600);
    assert_true(out2(w));
    NEXT(700);
    gate2(w, false);
    assert_true(out2(w)); /* stays until a count or a control word */
    gate2(w, true);
    world_out(w, 0x42, 1, 0x34); /* the first byte of two: stops, OUT goes low */
    assert_false(out2(w));
    NEXT(1 << 16);
    assert_false(out2(w));
    world_out(w, 0x42, 1, 0x12);
    AFTER(0x1000);
    assert_int_equal(pit_latched(w, 2), 0x234);

    /* Mode 1: a shot each time the gate opens, whatever is written meanwhile. */
    NEXT(0x1000);
    gate2(w, false);
    pit_load(w, 2, 1, 100);
    NEXT(300);
    assert_int_equal(status2(w), 0x80 | 0x40 | 0x30 | 1 << 1); /* not loaded yet */
    gate2(w, true);
    assert_int_equal(status2(w), 0x30 | 1 << 1);
    AFTER(99);
    assert_false(out2(w));
    gate2(w, false); /* has no effect */
    NEXT(100);
    assert_true(out2(w));
    gate2(w, true);
    assert_false(out2(w));
    AFTER(40);
    world_out(w, 0x42, 1, 200); /* for the next shot */
    world_out(w, 0x42, 1, 0);
    assert_int_equal(status2(w), 0x40 | 0x30 | 1 << 1);
    AFTER(99);
    assert_false(out2(w));
    NEXT(100);
    assert_true(out2(w));
    gate2(w, false);
    gate2(w, true);
    AFTER(50);
    gate2(w, false);
    gate2(w, true); /* retriggered */
    NEXT(50);
    AFTER(199);
    assert_false(out2(w));
    NEXT(200);
    assert_true(out2(w));

    /* Mode 2: a new count from the next period on; a closed gate means high, and a new start. */
    pit_load(w, 2, 2, 100);
    AFTER(130);
    world_out(w, 0x42, 1, 40);
    world_out(w, 0x42, 1, 0);
    assert_int_equal(pit_latched(w, 2), 70);
    assert_int_equal(status2(w) & 0x40, 0x40);
    AFTER(199);
    assert_false(out2(w));
    assert_int_equal(pit_latched(w, 2), 1);
    AFTER(210);
    assert_int_equal(pit_latched(w, 2), 30);
    assert_int_equal(status2(w) & 0x40, 0);
    AFTER(239);
    assert_false(out2(w));
    NEXT(239);
    gate2(w, false);
    assert_true(out2(w));
    NEXT(77);
    gate2(w, true);
    AFTER(38);
    assert_true(out2(w));
    AFTER(39);
    assert_false(out2(w));

    /* Mode 3, an odd count: high for a tick longer than low; a new count from the half on. */
    NEXT(39);
    pit_load(w, 2, 3, 7);
    static const bool seven[] = {1, 1, 1, 1, 0, 0, 0, 1};
    for (unsigned i = 0; i < 8; i++) {
        AFTER(i);
        assert_int_equal(out2(w), seven[i]);
        assert_int_equal(pit_latched(w, 2) & 1, 0);
    }
    world_out(w, 0x42, 1, 20);
    world_out(w, 0x42, 1, 0);
    AFTER(10);
    assert_true(out2(w));
    AFTER(11); /* the low half has the new length */
    assert_false(out2(w));
    AFTER(20);
    assert_false(out2(w));
    AFTER(21);
    assert_true(out2(w));
    AFTER(30);
    assert_true(out2(w));
    AFTER(31);
    assert_false(out2(w));

    /* Mode 4: low for the one tick at the end, only while the gate is open. */
    NEXT(31);
    pit_load(w, 2, 4, 10);
    AFTER(9);
    assert_true(out2(w));
    gate2(w, false);
    NEXT(100);
    gate2(w, true);
    assert_true(out2(w));
    AFTER(1);
    assert_false(out2(w));
    AFTER(2);
    assert_true(out2(w));

    /* Mode 5: the same behind a trigger. */
    NEXT(3);
    gate2(w, false);
    pit_load(w, 2, 5, 10);
    AFTER(10);
    assert_true(out2(w));
    NEXT(20);
    gate2(w, true);
    AFTER(9);
    assert_true(out2(w));
    AFTER(10);
    assert_false(out2(w));
    AFTER(11);
    assert_true(out2(w));

    /* Counts that are no BCD; a latch stays until it is read, read-back latches several at once. */
    NEXT(20);
    gate2(w, true);
    world_out(w, 0x43, 1, 0xb1);
    world_out(w, 0x42, 1, 0xff);
    world_out(w, 0x42, 1, 0xff);
    assert_int_equal(pit_latched(w, 2), 0x6665); /* 15 times 1111, without what has no digit */
    struct mull_device *d = mull_pit_device(pit);
    assert_int_equal(d->ops->state->after_load(d->object, 2, NULL), 0);
    pit_load(w, 2, 0, 1000);
    pit_load(w, 1, 2, 50);
    world_out(w, 0x43, 1, 0xcc);
    NEXT(10);
    world_out(w, 0x43, 1, 0xcc);
    world_out(w, 0x43, 1, 0x80);
    assert_int_equal(world_in(w, 0x42, 1), 0xb0 & 0x7f);
    assert_int_equal(world_in(w, 0x42, 1), 1000 & 0xff);
    assert_int_equal(world_in(w, 0x42, 1), 1000 >> 8);
    assert_int_equal(world_in(w, 0x42, 1), 990 & 0xff);
    assert_int_equal(world_in(w, 0x41, 1), 0xb4);
    assert_int_equal(world_in(w, 0x41, 1), 50);
    destroy(d);
#undef AFTER
#undef NEXT
}

/* Channel 0 with a new count while it runs: the edge that is under way comes first. */
static void test_pit_new_count(void **state)
{
    struct world *w = *state;
    struct mull_pit *pit;

    assert_int_equal(mull_pit_create(&w->env, world_irq(w, 0), &pit, NULL), 0);
    struct mull_device *d = mull_pit_device(pit);
    pit_load(w, 0, 2, 11932);
    world_set_time(w, pit_ns(5000));
    world_out(w, 0x40, 1, 5966 & 0xff);
    world_out(w, 0x40, 1, 5966 >> 8);
    unsigned before = w->edges[0];
    world_advance(w, d, pit_ns(11932) - 1);
    assert_int_equal(w->edges[0], before);
    world_advance(w, d, pit_ns(11932));
    assert_int_equal(w->edges[0], before + 1);
    world_advance(w, d, pit_ns(11932) + pit_ns(5966) - 2);
    assert_int_equal(w->edges[0], before + 1);
    world_advance(w, d, pit_ns(11932) + pit_ns(5966));
    assert_int_equal(w->edges[0], before + 2);

    /* In mode 3 the low half of the new count may be first. */
    uint64_t at = pit_ns(30000);
    world_set_time(w, at);
    pit_load(w, 0, 3, 1000);
    world_set_time(w, at + pit_ns(100));
    world_out(w, 0x40, 1, 4000 & 0xff);
    world_out(w, 0x40, 1, 4000 >> 8);
    before = w->edges[0];
    world_advance(w, d, at + pit_ns(2499));
    assert_int_equal(w->edges[0], before);
    world_advance(w, d, at + pit_ns(2500) + 1);
    assert_int_equal(w->edges[0], before + 1);

    /* An edge that is due when it is saved comes afterwards. */
    at = pit_ns(50000);
    world_set_time(w, at);
    pit_load(w, 0, 0, 100);
    world_set_time(w, at + pit_ns(200));
    before = w->edges[0];
    assert_int_equal(d->ops->state->after_load(d->object, 2, NULL), 0);
    world_advance(w, d, at + pit_ns(201));
    assert_int_equal(w->edges[0], before + 1);
    destroy(d);
}

static uint8_t cmos(struct world *w, unsigned index)
{
    world_out(w, 0x70, 1, index);
    return (uint8_t)world_in(w, 0x71, 1);
}

static void set_cmos(struct world *w, unsigned index, uint8_t value)
{
    world_out(w, 0x70, 1, index);
    world_out(w, 0x71, 1, value);
}

/* 29 February 2028, 23:59:58, a Tuesday. */
static void set_date(struct world *w)
{
    static const uint8_t values[][2] = {{0, 0x58}, {2, 0x59}, {4, 0x23}, {6, 3},
                                        {7, 0x29}, {8, 2},    {9, 0x28}, {0x32, 0x20}};

    set_cmos(w, 11, 0x82); /* SET, 24 hours, BCD */
    for (unsigned i = 0; i < 8; i++)
        set_cmos(w, values[i][0], values[i][1]);
    set_cmos(w, 10, 0x76); /* hold the divider, */
    set_cmos(w, 11, 0x02);
    set_cmos(w, 10, 0x26); /* and let go: half a second to the next update */
}

static void test_rtc_time(void **state)
{
    struct world *w = *state;
    struct mull_rtc *rtc;

    assert_int_equal(mull_rtc_create(&w->env, world_irq(w, 8), &rtc, NULL), 0);
    assert_int_equal(cmos(w, 13), 0x80);
    set_date(w);
    assert_int_equal(cmos(w, 0), 0x58);
    set_cmos(w, 11, 0x82);
    assert_int_equal(cmos(w, 2), 0x59);
    assert_int_equal(cmos(w, 4), 0x23);
    assert_int_equal(cmos(w, 6), 3);
    assert_int_equal(cmos(w, 7), 0x29);
    assert_int_equal(cmos(w, 8), 2);
    assert_int_equal(cmos(w, 9), 0x28);
    assert_int_equal(cmos(w, 0x32), 0x20);
    set_cmos(w, 0, 0x59);
    set_cmos(w, 11, 0x02); /* go on */
    world_set_time(w, 2 * S);
    set_cmos(w, 11, 0x82);
    assert_int_equal(cmos(w, 4), 0);
    assert_int_equal(cmos(w, 2), 0);
    assert_int_equal(cmos(w, 0), 1);
    assert_int_equal(cmos(w, 7), 1);
    assert_int_equal(cmos(w, 8), 3);
    assert_int_equal(cmos(w, 6), 4);
    set_cmos(w, 4, 0x13);
    set_cmos(w, 11, 0x02);
    set_cmos(w, 11, 0x04); /* binary, 12 hours */
    assert_int_equal(cmos(w, 4), 0x81);
    assert_int_equal(cmos(w, 10) & 0x7f, 0x26);

    mull_rtc_set_cmos(rtc, 0x15, 0x80);
    mull_rtc_set_cmos(rtc, 10, 0xff); /* a register of the clock: refused */
    assert_int_equal(cmos(w, 0x15), 0x80);
    assert_int_equal(cmos(w, 10) & 0x7f, 0x26);
    assert_false(mull_rtc_nmi_masked(rtc));
    cmos(w, 0x80 | 0x20);
    assert_true(mull_rtc_nmi_masked(rtc));
    destroy(mull_rtc_device(rtc));
}

static void test_rtc_interrupts(void **state)
{
    struct world *w = *state;
    struct mull_rtc *rtc;

    assert_int_equal(mull_rtc_create(&w->env, world_irq(w, 8), &rtc, NULL), 0);
    struct mull_device *d = mull_rtc_device(rtc);
    set_date(w);
    cmos(w, 12);
    set_cmos(w, 11, 0x12); /* update-ended */
    world_advance(w, d, 1 * S);
    assert_true(w->line[8]);
    assert_int_equal(cmos(w, 12) & 0x90, 0x90);
    assert_false(w->line[8]);
    world_advance(w, d, 2 * S);
    assert_int_equal(w->edges[8], 2);

    cmos(w, 12);
    set_cmos(w, 11, 0x42); /* periodic, 1024 Hz */
    world_advance(w, d, 2 * S + 1 * MS);
    assert_int_equal(cmos(w, 12) & 0xc0, 0xc0);
    world_advance(w, d, 2 * S + 20 * MS); /* many periods, one interrupt until it is read */
    unsigned edges = w->edges[8];
    world_advance(w, d, 2 * S + 40 * MS);
    assert_int_equal(w->edges[8], edges);
    set_cmos(w, 11, 0x02);
    assert_false(w->line[8]); /* disabled */

    set_cmos(w, 1, 0xff);
    set_cmos(w, 3, 0x05); /* any second of minute 5: the next is at 00:05:00 */
    set_cmos(w, 5, 0xff);
    cmos(w, 12);
    set_cmos(w, 11, 0x22);
    world_advance(w, d, 200 * S);
    assert_false(w->line[8]);
    world_advance(w, d, 303 * S);
    assert_true(w->line[8]);
    assert_int_equal(cmos(w, 12) & 0xa0, 0xa0);
    d->ops->reset(d);
    assert_int_equal(cmos(w, 11) & 0x70, 0);
    destroy(d);
}

static bool hpet_legacy;

static void on_legacy(void *opaque, bool on)
{
    hpet_legacy = on;
}

static struct mull_hpet *make_hpet(struct world *w, bool *legacy)
{
    struct mull_hpet_config config = {
        .base = HPET,
        .legacy = {world_irq(w, 24), world_irq(w, 25)},
        .msi = {.send = world_msi, .opaque = w},
        .legacy_mode = on_legacy,
    };
    struct mull_hpet *hpet;

    for (unsigned i = 0; i < 24; i++)
        config.irq[i] = world_irq(w, i);
    assert_int_equal(mull_hpet_create(&w->env, &config, &hpet, NULL), 0);
    *legacy = false;
    return hpet;
}

static void test_hpet_counter(void **state)
{
    struct world *w = *state;
    struct mull_hpet *hpet = make_hpet(w, &hpet_legacy);

    assert_true(world_read(w, HPET, 8) == 0x009896808086a201ull);
    assert_int_equal(world_read(w, HPET + 4, 4), MULL_HPET_PERIOD_FS);
    world_set_time(w, 5000);
    assert_int_equal(world_read(w, HPET + 0xf0, 8), 0);
    world_write(w, HPET + 0xf0, 8, 0xfffffffffull);
    world_write(w, HPET + 0x10, 4, 1);
    world_set_time(w, 6000);
    assert_true(world_read(w, HPET + 0xf0, 8) == 0xfffffffffull + 100);
    world_write(w, HPET + 0xf0, 8, 0); /* running: refused */
    assert_true(world_read(w, HPET + 0xf0, 8) == 0xfffffffffull + 100);
    world_write(w, HPET + 0x10, 4, 0);
    world_set_time(w, 7000);
    assert_true(world_read(w, HPET + 0xf0, 8) == 0xfffffffffull + 100);
    assert_int_equal(world_read(w, HPET + 0xf4, 4), 0x10);
    destroy(mull_hpet_device(hpet));
}

static void test_hpet_oneshot(void **state)
{
    struct world *w = *state;
    struct mull_hpet *hpet = make_hpet(w, &hpet_legacy);
    struct mull_device *d = mull_hpet_device(hpet);

    world_write(w, HPET + 0x10, 8, 1);
    world_write(w, HPET + 0x120, 4, 20 << 9 | 4); /* timer 1: edge, pin 20 */
    world_write(w, HPET + 0x128, 8, 1000);
    world_advance(w, d, 9999);
    assert_int_equal(w->edges[20], 0);
    world_advance(w, d, 10000);
    assert_int_equal(w->edges[20], 1);
    world_write(w, HPET + 0x128, 8, 900); /* just missed: now */
    world_drain(w);
    assert_int_equal(w->edges[20], 2);
    world_write(w, HPET + 0x120, 4, 3 << 9 | 4); /* a pin it cannot have */
    world_write(w, HPET + 0x128, 8, 1100);
    world_advance(w, d, 11000);
    assert_int_equal(w->edges[3], 0);

    world_write(w, HPET + 0x140, 4, 21 << 9 | 6); /* timer 2: level */
    world_write(w, HPET + 0x148, 8, 1200);
    world_advance(w, d, 12000);
    assert_true(w->line[21]);
    assert_int_equal(world_read(w, HPET + 0x20, 8), 4);
    world_write(w, HPET + 0x20, 4, 3);
    assert_true(w->line[21]);
    world_write(w, HPET + 0x20, 4, 4);
    assert_false(w->line[21]);

    world_write(w, HPET + 0x140, 4, 0x4004); /* message */
    world_write(w, HPET + 0x150, 8, 0xfee01000ull << 32 | 0x4071);
    world_write(w, HPET + 0x148, 8, 1300);
    world_advance(w, d, 13000);
    assert_int_equal(w->msis, 1);
    assert_true(w->msi_address == 0xfee01000 && w->msi_data == 0x4071);

    world_write(w, HPET + 0x140, 4, 22 << 9 | 0x104); /* 32 bits: wraps */
    world_write(w, HPET + 0x148, 4, 1400);
    world_advance(w, d, 14000);
    assert_int_equal(w->edges[22], 1);
    world_advance(w, d, 14000 + (10ull << 32) - 1);
    assert_int_equal(w->edges[22], 1);
    world_advance(w, d, 14000 + (10ull << 32));
    assert_int_equal(w->edges[22], 2);
    destroy(d);
}

static void test_hpet_periodic(void **state)
{
    struct world *w = *state;
    struct mull_hpet *hpet = make_hpet(w, &hpet_legacy);
    struct mull_device *d = mull_hpet_device(hpet);

    world_write(w, HPET + 0x10, 8, 3); /* enabled, legacy replacement */
    assert_true(hpet_legacy);
    world_write(w, HPET + 0x100, 4, 0x4c); /* periodic, set value */
    assert_int_equal(world_read(w, HPET + 0x100, 4) & 0x4c, 0x4c);
    world_write(w, HPET + 0x108, 8, 100000); /* first at 1 ms, */
    world_write(w, HPET + 0x108, 8, 200000); /* then every 2 ms */
    world_advance(w, d, 1 * MS);
    assert_int_equal(w->edges[24], 1);
    world_advance(w, d, 3 * MS - 1);
    assert_int_equal(w->edges[24], 1);
    world_advance(w, d, 3 * MS);
    assert_int_equal(w->edges[24], 2);
    assert_int_equal(world_read(w, HPET + 0x108, 8), 500000);
    world_advance(w, d, 10 * MS);
    assert_int_equal(w->edges[24], 3);
    world_advance(w, d, 11 * MS); /* the phase is kept */
    assert_int_equal(w->edges[24], 4);
    world_write(w, HPET + 0x120, 4, 0x0c); /* timer 1 cannot */
    assert_int_equal(world_read(w, HPET + 0x120, 4) & 8, 0);
    world_write(w, HPET + 0x108, 8, 0); /* a period of nothing must not hang */
    world_write(w, HPET + 0x108, 8, 1);
    world_advance(w, d, 12 * MS);
    d->ops->reset(d);
    assert_false(hpet_legacy);
    assert_int_equal(world_read(w, HPET + 0xf0, 8), 0);
    destroy(d);
}

static unsigned poweroffs;

static void on_poweroff(void *opaque)
{
    poweroffs++;
}

static void test_acpi_pm(void **state)
{
    struct world *w = *state;
    struct mull_acpi_pm *pm;

    poweroffs = 0;
    assert_int_equal(mull_acpi_pm_create(&w->env, world_irq(w, 9), on_poweroff, NULL, &pm, NULL),
                     0);
    struct mull_device *d = mull_acpi_pm_device(pm);
    assert_int_equal(world_in(w, 0x608, 4), 0);
    world_set_time(w, S);
    assert_int_equal(world_in(w, 0x608, 4), 3579545);
    assert_int_equal(world_in(w, 0x604, 2), 1); /* SCI_EN */

    mull_acpi_pm_power_button(pm);
    assert_false(w->line[9]); /* not enabled */
    assert_int_equal(world_in(w, 0x600, 2), 0x100);
    world_out(w, 0x602, 2, 0x120);
    assert_true(w->line[9]);
    world_out(w, 0x600, 2, 0x100);
    assert_false(w->line[9]);
    assert_int_equal(world_in(w, 0x600, 4), 0x01200000);

    world_out(w, 0x602, 2, 1); /* timer: the top bit changes after 2^31 ticks */
    world_out(w, 0x600, 2, ~0u);
    uint64_t half = ((1ull << 31) * S + 3579544) / 3579545;
    world_advance(w, d, half - 1000);
    assert_false(w->line[9]);
    world_advance(w, d, half + 1);
    assert_true(w->line[9]);
    world_out(w, 0x600, 1, 1);
    assert_false(w->line[9]);

    mull_acpi_pm_event(pm, 5);
    mull_acpi_pm_event(pm, 16);
    assert_int_equal(world_in(w, 0x620, 4), 0x20);
    world_out(w, 0x622, 1, 0x20);
    assert_true(w->line[9]);
    world_out(w, 0x620, 1, 0x20);
    assert_false(w->line[9]);

    world_out(w, 0x604, 2, 3 << 10 | 0x2000); /* not S5 */
    assert_int_equal(poweroffs, 0);
    world_out(w, 0x604, 2, MULL_PM_S5_TYPE << 10); /* without SLP_EN */
    assert_int_equal(poweroffs, 0);
    world_out(w, 0x604, 2, MULL_PM_S5_TYPE << 10 | 0x2000);
    assert_int_equal(poweroffs, 1);
    destroy(d);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_pit),           T(test_pit_channel2),   T(test_pit_modes),    T(test_pit_new_count),
        T(test_rtc_time),      T(test_rtc_interrupts), T(test_hpet_counter), T(test_hpet_oneshot),
        T(test_hpet_periodic), T(test_acpi_pm),
    };
    return cmocka_run_group_tests_name("timers", tests, NULL, NULL);
}
