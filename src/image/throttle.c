/*
 * See throttle.h.
 */
#include "image/throttle.h"

#include <errno.h>
#include <stdlib.h>

#include "base/bucket.h"

enum { READS, WRITES };

struct mull_throttle {
    struct mull_timer *timer;
    struct mull_bucket bucket[MULL_THROTTLE_LIMITS];
    struct mull_throttle_member *members; /* who is served first comes first */
    bool limited;
    unsigned turn; /* reads or writes first */
};

static unsigned direction(const struct mull_block_request *r)
{
    return r->op == MULL_BLOCK_READ ? READS : WRITES;
}

/* Bytes that the disk has to move. Holes cost it nothing. */
static uint64_t bytes_of(const struct mull_block_request *r)
{
    bool moves = r->op == MULL_BLOCK_READ || r->op == MULL_BLOCK_WRITE ||
                 (r->op == MULL_BLOCK_ZERO && !r->may_unmap && !r->fast);
    return moves ? r->length : 0;
}

/* The buckets that count for a direction: [0] of both, [1] its own; bytes, then requests. */
static void buckets(struct mull_throttle *t, unsigned dir, struct mull_bucket *out[4])
{
    out[0] = &t->bucket[MULL_THROTTLE_BYTES];
    out[1] = &t->bucket[dir == READS ? MULL_THROTTLE_READ_BYTES : MULL_THROTTLE_WRITE_BYTES];
    out[2] = &t->bucket[MULL_THROTTLE_OPS];
    out[3] = &t->bucket[dir == READS ? MULL_THROTTLE_READ_OPS : MULL_THROTTLE_WRITE_OPS];
}

static uint64_t ready(struct mull_throttle *t, unsigned dir, uint64_t now)
{
    struct mull_bucket *b[4];
    uint64_t latest = 0;
    buckets(t, dir, b);
    for (unsigned i = 0; i < 4; i++) {
        uint64_t at = mull_bucket_ready(b[i], now);
        latest = at > latest ? at : latest;
    }
    return latest;
}

static void take(struct mull_throttle *t, const struct mull_block_request *r, uint64_t now)
{
    struct mull_bucket *b[4];
    buckets(t, direction(r), b);
    for (unsigned i = 0; i < 4; i++)
        mull_bucket_take(b[i], i < 2 ? bytes_of(r) : 1, now);
}

static void start_first(struct mull_throttle_member *m, unsigned dir, uint64_t now)
{
    struct mull_block_request *r = m->waiting[dir];
    m->waiting[dir] = r->next;
    if (!r->next)
        m->tail[dir] = &m->waiting[dir];
    take(m->throttle, r, now);
    m->submit(m->block, r);
}

/* Whoever was served goes to the end. */
static void move_to_end(struct mull_throttle *t, struct mull_throttle_member *m)
{
    struct mull_throttle_member **link = &t->members;
    while (*link != m)
        link = &(*link)->next;
    *link = m->next;
    while (*link)
        link = &(*link)->next;
    *link = m;
    m->next = NULL;
}

/* @return whether something was started */
static bool start_one(struct mull_throttle *t, uint64_t now)
{
    for (struct mull_throttle_member *m = t->members; m; m = m->next)
        for (unsigned i = 0; i < 2; i++) {
            unsigned dir = t->turn ^ i;
            if (!m->waiting[dir] || ready(t, dir, now))
                continue;
            t->turn = !dir;
            move_to_end(t, m);
            start_first(m, dir, now);
            return true;
        }
    return false;
}

static void pump(void *opaque)
{
    struct mull_throttle *t = opaque;
    uint64_t now = mull_now_ns(), next = 0;

    while (start_one(t, now))
        ;
    for (struct mull_throttle_member *m = t->members; m; m = m->next)
        for (unsigned dir = 0; dir < 2; dir++) {
            uint64_t at = m->waiting[dir] ? ready(t, dir, now) : 0;
            if (at && (!next || at < next))
                next = at;
        }
    if (next)
        mull_timer_arm(t->timer, next);
}

int mull_throttle_create(struct mull_loop *loop, struct mull_throttle **out, struct mull_error *err)
{
    struct mull_throttle *t = calloc(1, sizeof(*t));
    if (t)
        t->timer = mull_timer_create(loop, pump, t);
    if (!t || !t->timer) {
        free(t);
        return mull_fail(err, ENOMEM, "disk limits: no memory");
    }
    *out = t;
    return 0;
}

void mull_throttle_destroy(struct mull_throttle *t)
{
    if (!t)
        return;
    mull_timer_destroy(t->timer);
    free(t);
}

void mull_throttle_set(struct mull_throttle *t, const uint64_t rate[MULL_THROTTLE_LIMITS])
{
    uint64_t now = mull_now_ns();
    t->limited = false;
    for (unsigned i = 0; i < MULL_THROTTLE_LIMITS; i++) {
        mull_bucket_set(&t->bucket[i], rate[i], MULL_THROTTLE_BURST_NS, now);
        t->limited |= rate[i] != 0;
    }
    pump(t);
}

void mull_throttle_join(struct mull_throttle_member *m)
{
    struct mull_throttle *t = m->throttle;
    for (unsigned dir = 0; dir < 2; dir++) {
        m->waiting[dir] = NULL;
        m->tail[dir] = &m->waiting[dir];
    }
    m->next = t->members;
    t->members = m;
}

void mull_throttle_leave(struct mull_throttle_member *m)
{
    struct mull_throttle_member **link = m->throttle ? &m->throttle->members : NULL;
    while (link && *link && *link != m)
        link = &(*link)->next;
    if (link && *link)
        *link = m->next;
    m->throttle = NULL;
}

bool mull_throttle_pass(struct mull_throttle_member *m, struct mull_block_request *r)
{
    struct mull_throttle *t = m->throttle;
    unsigned dir = direction(r);

    /* What makes writes durable moves nothing itself, and what is ours is not the guest's. */
    if (!t || !t->limited || r->op == MULL_BLOCK_FLUSH || r->op == MULL_BLOCK_CALL)
        return true;
    uint64_t now = mull_now_ns(), at = m->waiting[dir] ? 0 : ready(t, dir, now);
    if (!at && !m->waiting[dir]) {
        take(t, r, now);
        return true;
    }
    r->next = NULL;
    *m->tail[dir] = r;
    m->tail[dir] = &r->next;
    m->waited++;
    if (at)
        mull_timer_arm(t->timer, at);
    return false;
}

void mull_throttle_release(struct mull_throttle_member *m)
{
    uint64_t now = mull_now_ns();
    for (unsigned dir = 0; dir < 2 && m->throttle; dir++)
        while (m->waiting[dir])
            start_first(m, dir, now);
}
