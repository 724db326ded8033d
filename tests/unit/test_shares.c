/* Dividing by shares with reservations and limits: rules that hold for any tree, and small cases
 * whose result anybody can work out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdint.h>
#include <string.h>

#include "host/shares.h"

#define NODES 40
#define NONE SHARES_NONE

static uint64_t seed = 0x9e3779b97f4a7c15ull;

static uint64_t dice(uint64_t sides)
{
    seed ^= seed << 13; /* xorshift64 */
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed % sides;
}

static uint64_t smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static unsigned random_tree(struct share *s)
{
    unsigned n = 1 + (unsigned)dice(NODES);
    for (unsigned i = 0; i < n; i++) {
        int parent = -1;
        if (i && dice(3)) {
            parent = (int)dice(i);
            while (parent >= 0 && !s[parent].pool)
                parent = s[parent].parent;
        }
        s[i] = (struct share){.parent = parent,
                              .pool = dice(3) == 0,
                              .weight = 1 + (uint32_t)dice(dice(2) ? 10 : SHARES_WEIGHT_MOST),
                              .limit = dice(2) ? NONE : dice(2000),
                              .demand = dice(8) ? dice(2000) : SHARES_MOST,
                              .expandable = dice(2),
                              .claims = dice(2)};
        s[i].reservation = dice(2) ? 0 : dice(s[i].limit == NONE ? 1000 : s[i].limit + 1);
    }
    return n;
}

static uint64_t sum_below(const struct share *s, unsigned n, int parent)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < n; i++)
        if (s[i].parent == parent)
            sum += s[i].granted;
    return sum;
}

/* What @i and those below it can take at most, of what they demand or at all. */
static uint64_t appetite(const struct share *s, unsigned n, unsigned i, bool all)
{
    uint64_t sum = 0;
    if (!s[i].pool)
        return all ? smaller(s[i].limit, SHARES_MOST) : smaller(s[i].demand, s[i].limit);
    for (unsigned k = i + 1; k < n; k++)
        if (s[k].parent == (int)i)
            sum += appetite(s, n, k, all);
    return smaller(sum, smaller(s[i].limit, SHARES_MOST));
}

static uint64_t appetites(const struct share *s, unsigned n, int parent, bool all)
{
    uint64_t sum = 0;
    for (unsigned k = 0; k < n; k++)
        if (s[k].parent == parent)
            sum += appetite(s, n, k, all);
    return sum;
}

static void any_tree_is_divided_by_the_rules(void **state)
{
    struct share s[NODES];
    for (unsigned round = 0; round < 5000; round++) {
        unsigned n = random_tree(s);
        uint64_t capacity = dice(5) ? dice(5000) : 0;
        shares_divide(s, n, capacity, false);
        for (int parent = -1; parent < (int)n; parent++) {
            if (parent >= 0 && !s[parent].pool)
                continue;
            uint64_t amount = parent < 0 ? capacity : s[parent].granted;
            /* Nothing is given twice, and nothing kept back that somebody demands. */
            assert_int_equal(sum_below(s, n, parent),
                             smaller(amount, appetites(s, n, parent, false)));
        }
        for (unsigned i = 0; i < n; i++) {
            uint64_t amount = s[i].parent < 0 ? capacity : s[s[i].parent].granted;
            uint64_t wanted = appetite(s, n, i, false);
            assert_true(s[i].granted <= smaller(wanted, amount));
            /* Of two with the same parent: who gets less than it wants, and more than it was
             * promised, has no less for each share than another who got more than its promise. */
            for (unsigned k = 0; k < n; k++) {
                if (k == i || s[k].parent != s[i].parent || s[i].granted >= wanted ||
                    s[k].granted <= s[k].least + n || s[i].granted < s[i].least)
                    continue;
                unsigned __int128 mine = (unsigned __int128)(s[i].granted + 2 + n) * s[k].weight;
                unsigned __int128 other = (unsigned __int128)(s[k].granted - 1) * s[i].weight;
                unsigned __int128 rounding =
                    (unsigned __int128)(n + 2) * (s[i].weight + s[k].weight);
                assert_true(mine + rounding >= other);
            }
        }
    }
}

static void what_was_promised_is_kept(void **state)
{
    struct share s[NODES];
    for (unsigned round = 0; round < 5000; round++) {
        unsigned n = random_tree(s);
        shares_divide(s, n, 0, false); /* to learn what is promised */
        uint64_t promised = 0;
        for (unsigned i = 0; i < n; i++)
            promised += s[i].parent < 0 ? s[i].least : 0;
        shares_divide(s, n, promised + dice(1000), dice(2));
        for (unsigned i = 0; i < n; i++) {
            bool pressed = false; /* a pool's limit may be less than its machines were promised */
            for (int p = s[i].parent; p >= 0; p = s[p].parent) {
                uint64_t below = 0;
                for (unsigned k = 0; k < n; k++)
                    below += s[k].parent == p ? s[k].least : 0;
                pressed |= below > s[p].granted;
            }
            if (!pressed)
                assert_true(s[i].granted >= s[i].least);
            assert_true(s[i].granted <= s[i].limit);
        }
    }
}

static void limits_hold_until_somebody_looks_again(void **state)
{
    struct share s[NODES];
    for (unsigned round = 0; round < 5000; round++) {
        unsigned n = random_tree(s);
        uint64_t capacity = dice(4) ? dice(5000) : NONE;
        shares_divide(s, n, capacity, true);
        for (unsigned i = 0; i < n; i++) {
            assert_true(s[i].granted <= s[i].limit);
            /* The limits of machines together never exceed the limit of a pool. */
            if (s[i].pool && s[i].granted != NONE)
                assert_true(sum_below(s, n, (int)i) <= s[i].granted);
            if (s[i].granted == NONE)
                assert_true(s[i].limit == NONE);
        }
        if (capacity != NONE)
            assert_int_equal(sum_below(s, n, -1), smaller(capacity, appetites(s, n, -1, true)));
    }
}

static void small_cases(void **state)
{
    /* Two to one. */
    struct share a[] = {{.parent = -1, .weight = 2000, .limit = NONE, .demand = 1000},
                        {.parent = -1, .weight = 1000, .limit = NONE, .demand = 1000}};
    shares_divide(a, 2, 300, false);
    assert_int_equal(a[0].granted, 200);
    assert_int_equal(a[1].granted, 100);
    /* What one does not need the other has. */
    a[0].demand = 50;
    shares_divide(a, 2, 300, false);
    assert_int_equal(a[0].granted, 50);
    assert_int_equal(a[1].granted, 250);
    /* As limits, the rest is shared out, too: all of it, by shares where there is room. */
    shares_divide(a, 2, 300, true);
    assert_int_equal(a[0].granted + a[1].granted, 300);
    shares_divide(a, 2, 2000, true);
    assert_int_equal(a[0].granted, 1000); /* 50 and 1000 are demanded; 950 more go to the first */
    assert_int_equal(a[1].granted, 1000);
    /* A reservation goes before shares, a limit too. */
    struct share b[] = {
        {.parent = -1, .weight = 1, .limit = NONE, .reservation = 150, .demand = 1000},
        {.parent = -1, .weight = 1000, .limit = 100, .demand = 1000},
        {.parent = -1, .weight = 1000, .limit = NONE, .demand = 1000}};
    shares_divide(b, 3, 400, false);
    assert_int_equal(b[0].granted, 150);
    assert_int_equal(b[1].granted, 100);
    assert_int_equal(b[2].granted, 150);
    /* Pools compete first, then those in them. */
    struct share c[] = {{.parent = -1, .pool = true, .weight = 3, .limit = NONE},
                        {.parent = -1, .pool = true, .weight = 1, .limit = NONE},
                        {.parent = 0, .weight = 1, .limit = NONE, .demand = 1000},
                        {.parent = 0, .weight = 1, .limit = NONE, .demand = 1000},
                        {.parent = 1, .weight = 1, .limit = NONE, .demand = 1000}};
    shares_divide(c, 5, 400, false);
    assert_int_equal(c[2].granted, 150);
    assert_int_equal(c[3].granted, 150);
    assert_int_equal(c[4].granted, 100);
    /* Too little for the promises: as much less for each. */
    struct share d[] = {
        {.parent = -1, .weight = 1, .limit = NONE, .reservation = 300, .demand = 1000},
        {.parent = -1, .weight = 9, .limit = NONE, .reservation = 100, .demand = 1000}};
    shares_divide(d, 2, 200, false);
    assert_int_equal(d[0].granted, 150);
    assert_int_equal(d[1].granted, 50);
}

static int admit(struct share *s, unsigned n, unsigned node, uint64_t capacity)
{
    shares_claim(s, n);
    return shares_admit(s, n, node, capacity);
}

static void promises_are_bounded(void **state)
{
    struct share s[] = {
        {.parent = -1, .pool = true, .weight = 1, .limit = NONE, .reservation = 100},
        {.parent = 0, .pool = true, .weight = 1, .limit = 150, .expandable = true},
        {.parent = 1, .weight = 1, .limit = NONE, .reservation = 60, .claims = true},
        {.parent = 1, .weight = 1, .limit = NONE, .reservation = 60}};
    assert_int_equal(admit(s, 4, 2, 100), SHARES_FITS);
    assert_int_equal(s[1].used, 60);
    assert_int_equal(s[0].claimed, 100);
    s[3].claims = true; /* 120: the outer pool has 100, and may not take more of the host's */
    assert_int_equal(admit(s, 4, 3, 1000), 0);
    s[0].expandable = true;
    assert_int_equal(admit(s, 4, 3, 1000), SHARES_FITS);
    assert_int_equal(admit(s, 4, 3, 119), SHARES_HOST);
    assert_int_equal(shares_claim(s, 4), 120);
    s[3].reservation = 100; /* beyond the inner pool's limit */
    assert_int_equal(admit(s, 4, 3, 1000), 1);
    s[3].reservation =
        10; /* what the outer pool has reserved is enough, however full the host is */
    assert_int_equal(admit(s, 4, 3, 0), SHARES_FITS);
    s[0].reservation = 500; /* but a pool that wants more needs it of the host */
    assert_int_equal(admit(s, 4, 0, 499), SHARES_HOST);
    assert_int_equal(admit(s, 4, 0, 500), SHARES_FITS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_tree_is_divided_by_the_rules),
        cmocka_unit_test(what_was_promised_is_kept),
        cmocka_unit_test(limits_hold_until_somebody_looks_again),
        cmocka_unit_test(small_cases),
        cmocka_unit_test(promises_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
