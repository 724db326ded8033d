/*
 * How much of its host a machine may take: disks and networks by the limits in front of their back
 * ends, processors by a duty cycle: the process's CPU time is measured, and vCPUs stay out of the
 * engine until what they have used beyond their share has been paid for. Needs nothing of the host.
 */
#include <errno.h>
#include <pthread.h>
#include <time.h>

#include "machine/internal.h"

#define TICK_NS 10000000ull  /* between two looks at the CPU time */
#define BURST_NS 20000000ull /* so much of the share may be used ahead */

_Static_assert(sizeof(((struct mull_machine_limits *)0)->disk) / 8 == MULL_THROTTLE_LIMITS, "");
_Static_assert(sizeof(((struct mull_machine_limits *)0)->network) / 8 == MULL_NETLIMITS, "");

static uint64_t cpu_time(void)
{
    struct timespec t = {0};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Does not wait until they have come out: they do so within microseconds. */
static void hold(struct mull_machine *m, uint64_t now)
{
    pthread_mutex_lock(&m->lock);
    m->cpu_hold = true;
    pthread_mutex_unlock(&m->lock);
    m->limits.held_since = now;
    for (unsigned i = 0; i < m->cpus; i++)
        if (m->vcpu[i].started)
            m->engine->vcpu_signal(m->vcpu[i].vcpu, MULL_SIGNAL_STOP, 0);
}

static void let_go(struct mull_machine *m, uint64_t now)
{
    pthread_mutex_lock(&m->lock);
    m->cpu_hold = false;
    pthread_cond_broadcast(&m->changed);
    pthread_mutex_unlock(&m->lock);
    m->limits.held_ns += now - m->limits.held_since;
}

static void tick(void *opaque)
{
    struct mull_machine *m = opaque;
    struct machine_limits *l = &m->limits;
    uint64_t now = mull_now_ns(), used = cpu_time();

    mull_bucket_take(&l->cpu, used - l->cpu_seen, now);
    l->cpu_seen = used;
    uint64_t at = mull_bucket_ready(&l->cpu, now);
    if (at && !m->cpu_hold)
        hold(m, now);
    else if (!at && m->cpu_hold)
        let_go(m, now);
    if (l->cpu.rate)
        mull_timer_arm(l->timer, at ? at : now + TICK_NS);
}

int machine_limits_open(struct mull_machine *m, struct mull_error *err)
{
    m->limits.timer = mull_timer_create(m->loop, tick, m);
    if (!m->limits.timer)
        return mull_fail(err, ENOMEM, "limits: no memory");
    return mull_throttle_create(m->loop, &m->limits.disk, err);
}

void machine_limits_close(struct mull_machine *m)
{
    mull_timer_destroy(m->limits.timer);
    mull_throttle_destroy(m->limits.disk);
}

int machine_limit_network(struct mull_machine *m, unsigned i, struct mull_error *err)
{
    return mull_netlimit_create(m->loop, m->netdev[i], &m->limits.network, &m->netdev[i], err);
}

void mull_machine_limit(struct mull_machine *m, const struct mull_machine_limits *limits)
{
    uint64_t now = mull_now_ns();

    mull_throttle_set(m->limits.disk, limits->disk);
    mull_netlimit_set(&m->limits.network, limits->network);
    if (!m->limits.cpu.rate)
        m->limits.cpu_seen = cpu_time();
    mull_bucket_set(&m->limits.cpu, limits->cpu * 10000000ull, BURST_NS, now);
    tick(m);
}

int mull_machine_merge(struct mull_machine *m, bool on)
{
    int ret = mull_memory_merge(m->memory, on);
    if (!ret)
        m->limits.merging = on;
    return ret;
}

void mull_machine_usage(struct mull_machine *m, struct mull_machine_usage *out)
{
    const struct machine_limits *l = &m->limits;

    *out = (struct mull_machine_usage){
        .cpu_ns = cpu_time(),
        .cpu_held_ns = l->held_ns + (m->cpu_hold ? mull_now_ns() - l->held_since : 0),
        .merging = l->merging};
}

void mull_machine_io(struct mull_machine *m,
                     void (*fn)(void *opaque, const struct mull_machine_io *io), void *opaque)
{
    struct mull_block_counts b;
    struct mull_netlimit_counts n;

    for (unsigned i = 0; i < MULL_CONFIG_DISKS + MULL_CONFIG_CDROMS; i++) {
        bool disk = i < MULL_CONFIG_DISKS;
        unsigned index = disk ? i : i - MULL_CONFIG_DISKS;
        const struct mull_block *block = disk ? m->block[index] : m->cdrom_block[index];
        if (!block)
            continue;
        mull_block_counts(block, &b);
        const struct mull_machine_io io = {.kind = disk ? MULL_IO_OF_DISK : MULL_IO_OF_CDROM,
                                           .index = index,
                                           .in_bytes = b.read_bytes,
                                           .in_count = b.reads,
                                           .out_bytes = b.written_bytes,
                                           .out_count = b.writes,
                                           .flushes = b.flushes,
                                           .waited = b.waited};
        fn(opaque, &io);
    }
    for (unsigned i = 0; i < MULL_CONFIG_NETWORKS; i++) {
        if (!m->netdev[i])
            continue;
        mull_netlimit_counts(m->netdev[i], &n);
        const struct mull_machine_io io = {.kind = MULL_IO_OF_NETWORK,
                                           .index = i,
                                           .in_bytes = n.in_bytes,
                                           .in_count = n.in_packets,
                                           .out_bytes = n.out_bytes,
                                           .out_count = n.out_packets,
                                           .waited = n.waited};
        fn(opaque, &io);
    }
}
