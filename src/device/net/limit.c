/*
 * Limits and counters in front of a network back end: frames that come too early stay where they
 * are, in the guest's ring or in the back end, as if the other side were slow. Knows frames by
 * their length only.
 */
#include <errno.h>
#include <stdlib.h>

#include "device/net/netdev.h"

/* So much may be sent ahead: bursts are bounded by it and by one frame. */
#define BURST_NS 50000000ull

struct limit {
    struct mull_netdev base;
    struct limit *next; /* of those that share limits */
    struct mull_netlimit *shared;
    struct mull_netdev *inner; /* ours */
    struct mull_netdev_frontend frontend;
    struct mull_timer *in_timer, *out_timer;
    bool in_waits, out_waits;
    struct mull_netlimit_counts counts;
};

static size_t length_of(const struct limit *l, size_t len)
{
    size_t header = l->base.caps.vnet_hdr ? MULL_NET_HDR_SIZE : 0;
    return len > header ? len - header : 0;
}

/* @return 0: it may pass now; else when */
static uint64_t ready(const struct limit *l, enum mull_netlimit_kind kind, uint64_t now)
{
    uint64_t own = mull_bucket_ready(&l->shared->bucket[kind], now);
    uint64_t both = mull_bucket_ready(&l->shared->bucket[MULL_NETLIMIT_BOTH], now);
    return own > both ? own : both;
}

static void take(struct limit *l, enum mull_netlimit_kind kind, size_t len, uint64_t now)
{
    mull_bucket_take(&l->shared->bucket[kind], len, now);
    mull_bucket_take(&l->shared->bucket[MULL_NETLIMIT_BOTH], len, now);
}

static bool limited(const struct limit *l, enum mull_netlimit_kind kind)
{
    return l->shared->bucket[kind].rate || l->shared->bucket[MULL_NETLIMIT_BOTH].rate;
}

/* ---- From the guest ---- */

static int limit_send(struct mull_netdev *netdev, const struct iovec *iov, int niov, size_t len)
{
    struct limit *l = (struct limit *)netdev;
    size_t bytes = length_of(l, len);
    bool counted = limited(l, MULL_NETLIMIT_OUT);
    uint64_t now = counted ? mull_now_ns() : 0;
    uint64_t at = counted ? ready(l, MULL_NETLIMIT_OUT, now) : 0;

    if (at) {
        l->counts.waited += !l->out_waits;
        l->out_waits = true;
        mull_timer_arm(l->out_timer, at);
        return -EAGAIN;
    }
    int ret = mull_netdev_send(l->inner, iov, niov, len);
    if (ret == -EAGAIN)
        return ret;
    if (counted)
        take(l, MULL_NETLIMIT_OUT, bytes, now);
    l->counts.out_packets++;
    l->counts.out_bytes += bytes;
    return ret;
}

static void out_time(void *opaque)
{
    struct limit *l = opaque;
    l->out_waits = false;
    if (l->frontend.writable)
        l->frontend.writable(l->frontend.opaque);
}

/* ---- To the guest ---- */

static bool inner_receive(void *opaque, const uint8_t *frame, size_t len)
{
    struct limit *l = opaque;
    size_t bytes = length_of(l, len);
    bool counted = limited(l, MULL_NETLIMIT_IN);
    uint64_t now = counted ? mull_now_ns() : 0;
    uint64_t at = counted ? ready(l, MULL_NETLIMIT_IN, now) : 0;

    if (!l->frontend.receive)
        return false;
    if (at) {
        l->counts.waited += !l->in_waits;
        l->in_waits = true;
        mull_timer_arm(l->in_timer, at);
        return false;
    }
    if (!l->frontend.receive(l->frontend.opaque, frame, len))
        return false;
    if (counted)
        take(l, MULL_NETLIMIT_IN, bytes, now);
    l->counts.in_packets++;
    l->counts.in_bytes += bytes;
    return true;
}

static void in_time(void *opaque)
{
    struct limit *l = opaque;
    l->in_waits = false;
    mull_netdev_resume(l->inner);
}

static void inner_received(void *opaque)
{
    struct limit *l = opaque;
    if (l->frontend.received)
        l->frontend.received(l->frontend.opaque);
}

static void inner_writable(void *opaque)
{
    struct limit *l = opaque;
    if (l->frontend.writable)
        l->frontend.writable(l->frontend.opaque);
}

static void inner_link(void *opaque, bool up)
{
    struct limit *l = opaque;
    if (l->frontend.link)
        l->frontend.link(l->frontend.opaque, up);
}

/* ---- A back end ---- */

static void limit_attach(struct mull_netdev *netdev, const struct mull_netdev_frontend *frontend)
{
    struct limit *l = (struct limit *)netdev;
    const struct mull_netdev_frontend between = {.opaque = l,
                                                 .receive = inner_receive,
                                                 .received = inner_received,
                                                 .writable = inner_writable,
                                                 .link = inner_link};

    l->frontend = frontend ? *frontend : (struct mull_netdev_frontend){0};
    mull_netdev_attach(l->inner, frontend ? &between : NULL);
}

static void limit_flush(struct mull_netdev *netdev)
{
    mull_netdev_flush(((struct limit *)netdev)->inner);
}

static void limit_resume(struct mull_netdev *netdev)
{
    struct limit *l = (struct limit *)netdev;
    if (!l->in_waits) /* the timer does it */
        mull_netdev_resume(l->inner);
}

static void limit_offloads(struct mull_netdev *netdev, uint64_t features)
{
    mull_netdev_set_offloads(((struct limit *)netdev)->inner, features);
}

static void limit_destroy(struct mull_netdev *netdev)
{
    struct limit *l = (struct limit *)netdev, **link = (struct limit **)&l->shared->members;

    while (*link && *link != l)
        link = &(*link)->next;
    if (*link)
        *link = l->next;
    mull_timer_destroy(l->in_timer);
    mull_timer_destroy(l->out_timer);
    mull_netdev_destroy(l->inner);
    free(l);
}

static const struct mull_netdev_ops limit_ops = {.send = limit_send,
                                                 .flush = limit_flush,
                                                 .attach = limit_attach,
                                                 .resume = limit_resume,
                                                 .set_offloads = limit_offloads,
                                                 .destroy = limit_destroy};

int mull_netlimit_create(struct mull_loop *loop, struct mull_netdev *inner,
                         struct mull_netlimit *shared, struct mull_netdev **out,
                         struct mull_error *err)
{
    struct limit *l = calloc(1, sizeof(*l));
    if (!l)
        return mull_fail(err, ENOMEM, "network limits: no memory");
    l->in_timer = mull_timer_create(loop, in_time, l);
    l->out_timer = mull_timer_create(loop, out_time, l);
    if (!l->in_timer || !l->out_timer) {
        mull_timer_destroy(l->in_timer);
        mull_timer_destroy(l->out_timer);
        free(l);
        return mull_fail(err, ENOMEM, "network limits: no memory");
    }
    l->base.ops = &limit_ops;
    l->base.caps = inner->caps;
    l->inner = inner;
    l->shared = shared;
    l->next = (struct limit *)shared->members;
    shared->members = &l->base;
    *out = &l->base;
    return 0;
}

void mull_netlimit_set(struct mull_netlimit *shared, const uint64_t rate[MULL_NETLIMITS])
{
    uint64_t now = mull_now_ns();
    for (unsigned i = 0; i < MULL_NETLIMITS; i++)
        mull_bucket_set(&shared->bucket[i], rate[i], BURST_NS, now);
    /* Whoever waits looks again: it may be its time now. */
    for (struct limit *l = (struct limit *)shared->members; l; l = l->next) {
        if (l->in_waits)
            mull_timer_arm(l->in_timer, now);
        if (l->out_waits)
            mull_timer_arm(l->out_timer, now);
    }
}

void mull_netlimit_counts(const struct mull_netdev *netdev, struct mull_netlimit_counts *out)
{
    *out = ((const struct limit *)netdev)->counts;
}
