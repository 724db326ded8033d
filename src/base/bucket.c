/*
 * See bucket.h. The generic cell rate algorithm in its virtual scheduling form (ITU-T I.371, annex
 * A.1): one time instead of a level that had to be filled again and again, and whole numbers, so
 * that nothing is lost in the long run.
 */
#include "base/bucket.h"

#define SECOND 1000000000ull
#define FOREVER (UINT64_MAX / 4)

void mull_bucket_set(struct mull_bucket *b, uint64_t rate, uint64_t burst, uint64_t now)
{
    uint64_t ahead = b->rate && b->due > now ? b->due - now : 0;

    if (rate != b->rate) {
        unsigned __int128 owed = rate && b->rate ? (unsigned __int128)ahead * b->rate / rate : 0;
        ahead = owed < FOREVER ? (uint64_t)owed : FOREVER;
        b->part = 0;
    }
    b->rate = rate;
    b->burst = burst;
    b->due = now + ahead;
}

uint64_t mull_bucket_ready(const struct mull_bucket *b, uint64_t now)
{
    if (!b->rate || b->due <= now || b->due - now <= b->burst)
        return 0;
    return b->due - b->burst;
}

void mull_bucket_take(struct mull_bucket *b, uint64_t units, uint64_t now)
{
    if (!b->rate)
        return;
    if (b->due < now) {
        b->due = now;
        b->part = 0;
    }
    unsigned __int128 parts = (unsigned __int128)units * SECOND + b->part;
    unsigned __int128 ns = parts / b->rate;
    b->part = (uint64_t)(parts % b->rate);
    b->due += ns < FOREVER ? (uint64_t)ns : FOREVER;
    if (b->due > now + FOREVER)
        b->due = now + FOREVER;
}
