/*
 * See shares.h.
 */
#include "host/shares.h"

#include <stddef.h>

typedef unsigned __int128 wide;

#define LEVEL_BITS 32 /* of a level's fraction */
#define LEVEL_MOST 88 /* bits: SHARES_MOST for a weight of one, and some more */

static uint64_t clamp(wide value, uint64_t least, uint64_t most)
{
    if (value < least)
        return least;
    return value > most ? most : (uint64_t)value;
}

static uint64_t at_most(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* ---- Filling: between least and most, by weight ---- */

struct filling {
    struct share *s;
    unsigned count;
    int parent;
    bool beyond; /* from what is granted up to the most, instead of from least to want */
    uint64_t amount;
};

static bool is_child(const struct filling *f, unsigned i)
{
    return f->s[i].parent == f->parent;
}

static uint64_t least_of(const struct filling *f, const struct share *s)
{
    return f->beyond ? s->granted : s->least;
}

static uint64_t most_of(const struct filling *f, const struct share *s)
{
    return f->beyond ? s->most : s->want;
}

static uint64_t at_level(const struct filling *f, const struct share *s, wide level)
{
    uint64_t least = least_of(f, s), most = most_of(f, s);
    return clamp((level * s->weight) >> LEVEL_BITS, at_most(least, most), most);
}

static wide sum_at(const struct filling *f, wide level)
{
    wide sum = 0;
    for (unsigned i = 0; i < f->count; i++)
        if (is_child(f, i))
            sum += at_level(f, &f->s[i], level);
    return sum;
}

/* What rounding has left: a few units. */
static void give_rest(const struct filling *f, uint64_t left)
{
    for (unsigned i = 0; i < f->count && left; i++)
        if (is_child(f, i) && f->s[i].granted < most_of(f, &f->s[i])) {
            uint64_t more = at_most(left, most_of(f, &f->s[i]) - f->s[i].granted);
            f->s[i].granted += more;
            left -= more;
        }
}

/* There is not even enough for what was promised: as much less for everybody. */
static void scale(const struct filling *f, wide promised)
{
    uint64_t left = f->amount;
    for (unsigned i = 0; i < f->count; i++)
        if (is_child(f, i)) {
            f->s[i].granted = (uint64_t)((wide)at_level(f, &f->s[i], 0) * f->amount / promised);
            left -= f->s[i].granted;
        }
    give_rest(f, left);
}

/* One level for all: who is above its most or below its least stays there ("water filling"). */
static void fill(const struct filling *f)
{
    wide low = 0, high = (wide)1 << LEVEL_MOST, promised = sum_at(f, 0);
    if (promised > f->amount) {
        scale(f, promised);
        return;
    }
    while (high - low > 1) {
        wide middle = low + (high - low) / 2;
        if (sum_at(f, middle) <= f->amount)
            low = middle;
        else
            high = middle;
    }
    uint64_t left = f->amount;
    for (unsigned i = 0; i < f->count; i++)
        if (is_child(f, i)) {
            f->s[i].granted = at_level(f, &f->s[i], low);
            left -= f->s[i].granted;
        }
    give_rest(f, left);
}

/* ---- Dividing ---- */

/* What each would take, and what it must get, from the leaves up. */
static void gather(struct share *s, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        if (s[i].pool)
            s[i].want = s[i].least = s[i].most = 0;
    for (unsigned i = count; i-- > 0;) {
        struct share *x = &s[i];
        if (!x->pool) {
            x->want = at_most(at_most(x->demand, SHARES_MOST), x->limit);
            x->least = at_most(x->reservation, x->want);
            x->most = at_most(x->limit, SHARES_MOST);
        } else {
            x->most = at_most(at_most(x->most, SHARES_MOST), x->limit);
            x->want = at_most(at_most(x->want, SHARES_MOST), x->limit);
            if (x->least < x->reservation)
                x->least = x->reservation;
            x->least = at_most(x->least, x->want);
        }
        if (x->parent >= 0) {
            s[x->parent].want += x->want;
            s[x->parent].least += x->least;
            s[x->parent].most += x->most;
        }
    }
}

static void divide_among(struct share *s, unsigned count, int parent, uint64_t amount, bool all)
{
    if (amount == SHARES_NONE) {
        for (unsigned i = 0; i < count; i++)
            if (s[i].parent == parent)
                s[i].granted = all ? s[i].limit : s[i].want;
        return;
    }
    fill(&(struct filling){s, count, parent, false, amount});
    if (all)
        fill(&(struct filling){s, count, parent, true, amount});
}

void shares_divide(struct share *s, unsigned count, uint64_t capacity, bool all)
{
    gather(s, count);
    divide_among(s, count, -1, capacity, all);
    for (unsigned i = 0; i < count; i++)
        if (s[i].pool)
            divide_among(s, count, (int)i, s[i].granted, all);
}

/* ---- Promising ---- */

uint64_t shares_claim(struct share *s, unsigned count)
{
    uint64_t host = 0;
    for (unsigned i = 0; i < count; i++)
        s[i].used = 0;
    for (unsigned i = count; i-- > 0;) {
        struct share *x = &s[i];
        if (x->pool)
            x->claimed = x->used > x->reservation ? x->used : x->reservation;
        else
            x->claimed = x->claims ? x->reservation : 0;
        *(x->parent >= 0 ? &s[x->parent].used : &host) += x->claimed;
    }
    return host;
}

int shares_admit(const struct share *s, unsigned count, unsigned node, uint64_t capacity)
{
    uint64_t host = 0;
    for (int i = (int)node; i >= 0; i = s[i].parent) {
        const struct share *x = &s[i];
        if (!x->pool)
            continue;
        if (x->used > x->limit || (!x->expandable && x->used > x->reservation))
            return i;
        if (x->used <= x->reservation && i != (int)node)
            return SHARES_FITS; /* it is within what this pool has claimed before */
    }
    for (unsigned i = 0; i < count; i++)
        if (s[i].parent < 0)
            host += s[i].claimed;
    return host > capacity ? SHARES_HOST : SHARES_FITS;
}
