/* Unit tests of the machine's clock: agreement of its views, pause, restore, deadlines. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>
#include <x86intrin.h>

#include <cmocka.h>

#include "base/loop.h"
#include "engine/clock.h"

static int setup(void **state)
{
    struct mull_clock *clock;

    assert_int_equal(mull_clock_create(&clock, NULL), 0);
    *state = clock;
    return 0;
}

static int teardown(void **state)
{
    mull_clock_destroy(*state);
    return 0;
}

static void nap(long ns)
{
    struct timespec t = {.tv_nsec = ns};

    clock_nanosleep(CLOCK_MONOTONIC, 0, &t, NULL);
}

static uint64_t rate(uint64_t ticks, uint64_t ns)
{
    return (uint64_t)((unsigned __int128)ticks * 1000000000u / ns);
}

/* The frequency agrees with the host's own clock over a longer stretch. Readings of the TSC before
 * and after those of the clock bound it, so that being preempted between them does no harm; 1/1000
 * is for the host's slewing of CLOCK_MONOTONIC. */
static void test_frequency(void **state)
{
    uint64_t hz = mull_clock_tsc_hz(*state);
    uint64_t a0 = __rdtsc(), ns = mull_now_ns(), a1 = __rdtsc();

    nap(50000000);
    uint64_t b0 = __rdtsc();
    ns = mull_now_ns() - ns;
    uint64_t b1 = __rdtsc();
    uint64_t low = rate(b0 - a1, ns), high = rate(b1 - a0, ns);
    assert_true(hz > low - low / 1000 && hz < high + high / 1000);
}

static void test_starts_at_zero(void **state)
{
    uint64_t a = mull_clock_now(*state);
    uint64_t b = mull_clock_now(*state);

    assert_true(a < 10000000000u);
    assert_true(b >= a);
    assert_int_equal(mull_clock_tsc_to_ns(*state, 0), 0);
    assert_int_equal(mull_clock_ns_to_tsc(*state, 0), 0);
}

/* What a guest computes from the pvclock multiplier is what everything else shows. */
static void test_pvclock_agrees(void **state)
{
    uint32_t mul;
    int8_t shift;
    uint64_t tsc = 0x123456789abcull;

    mull_clock_pvclock(*state, &mul, &shift);
    uint64_t shifted = shift < 0 ? tsc >> -shift : tsc << shift;
    uint64_t ns = (uint64_t)((unsigned __int128)shifted * mul >> 32);
    assert_int_equal(mull_clock_tsc_to_ns(*state, tsc), ns);

    uint64_t second = mull_clock_tsc_to_ns(*state, mull_clock_tsc_hz(*state));
    assert_true(second >= 999999998 && second <= 1000000000);
}

static void test_round_trip(void **state)
{
    for (uint64_t ns = 1; ns < 1ull << 60; ns = ns * 3 + 1) {
        uint64_t tsc = mull_clock_ns_to_tsc(*state, ns);
        assert_true(mull_clock_tsc_to_ns(*state, tsc) >= ns); /* a timer armed so is not early */
        assert_true(mull_clock_tsc_to_ns(*state, tsc) <= ns + 2);
    }
    assert_int_equal(mull_clock_ns_to_tsc(*state, UINT64_MAX), UINT64_MAX);
}

static void test_pause(void **state)
{
    mull_clock_pause(*state);
    mull_clock_pause(*state);
    uint64_t ns = mull_clock_now(*state), tsc = mull_clock_tsc(*state);
    nap(5000000);
    assert_int_equal(mull_clock_now(*state), ns);
    assert_int_equal(mull_clock_tsc(*state), tsc);
    assert_int_equal(mull_clock_deadline(*state, ns + 1), UINT64_MAX);

    uint64_t host = __rdtsc();
    mull_clock_resume(*state);
    mull_clock_resume(*state);
    uint64_t later = mull_clock_tsc(*state);
    assert_true(later >= tsc);
    assert_true(later - tsc <= __rdtsc() - host); /* the pause is not in it */
    int64_t offset = mull_clock_tsc_offset(*state);
    uint64_t low = __rdtsc() + (uint64_t)offset;
    uint64_t now = mull_clock_tsc(*state);
    assert_true(now >= low && now <= __rdtsc() + (uint64_t)offset);
}

static void test_set(void **state)
{
    mull_clock_set(*state, 5, 5); /* running: refused */
    assert_int_equal(mull_clock_tsc_to_ns(*state, 0), 0);
    mull_clock_pause(*state);
    mull_clock_set(*state, 7000000000u, 1000);
    assert_int_equal(mull_clock_now(*state), 7000000000u);
    assert_int_equal(mull_clock_tsc(*state), 1000);
    assert_int_equal(mull_clock_ns_to_tsc(*state, 7000000000u), 1000);
    assert_true(mull_clock_tsc_to_ns(*state, 0) < 7000000000u);
    mull_clock_resume(*state);
    assert_true(mull_clock_now(*state) >= 7000000000u);
}

static void test_deadline(void **state)
{
    uint64_t before = mull_now_ns();
    uint64_t guest = mull_clock_now(*state);
    uint64_t deadline = mull_clock_deadline(*state, guest + 1000000000u);
    uint64_t after = mull_now_ns();

    /* guest + 1 s lies between one second after `before` and after `after`. */
    assert_true(deadline >= before + 1000000000u - 100000u);
    assert_true(deadline <= after + 1000000000u);
    assert_true(mull_clock_deadline(*state, 0) <= mull_now_ns());
    assert_int_equal(mull_clock_deadline(*state, UINT64_MAX), UINT64_MAX);
}

static uint64_t realtime(void)
{
    struct timespec t;

    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void test_wall(void **state)
{
    uint64_t boot = mull_clock_boot_wall_ns(*state);
    uint64_t before = realtime();
    uint64_t guest_wall = boot + mull_clock_now(*state);
    uint64_t after = realtime();

    assert_true(guest_wall > before - 20000000 && guest_wall < after + 20000000);
    assert_int_equal(mull_clock_boot_wall_ns(*state), boot); /* stable */
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_frequency),  T(test_starts_at_zero), T(test_pvclock_agrees),
        T(test_round_trip), T(test_pause),          T(test_set),
        T(test_deadline),   T(test_wall),
    };
    return cmocka_run_group_tests_name("clock", tests, NULL, NULL);
}
