/* Token buckets against a clock of the test's own, and the limits of disks and networks that are
 * made of them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bucket.h"
#include "base/loop.h"
#include "device/net/netdev.h"
#include "image/block.h"
#include "image/throttle.h"

#define SECOND 1000000000ull
#define MS 1000000ull

/* ---- Buckets ---- */

static uint64_t random_next(uint64_t *state)
{
    *state ^= *state << 13; /* xorshift64 */
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* Whoever always has something to send gets the rate, however large its pieces are and however late
 * it is called, as long as that is within the burst; and never more than the rate and the burst. */
static void buckets_keep_the_rate(void **state)
{
    uint64_t seed = 88172645463325252ull;
    for (unsigned round = 0; round < 300; round++) {
        struct mull_bucket b = {0};
        uint64_t rate = 1 + random_next(&seed) % (1ull << (10 + random_next(&seed) % 25));
        uint64_t largest = 1 + rate / 20, burst = 100 * MS, begin = 5 * SECOND, now = begin;
        uint64_t total = 0;
        mull_bucket_set(&b, rate, burst, now);
        for (unsigned turn = 0; now < begin + 10 * SECOND && turn < 100000; turn++) {
            uint64_t at = mull_bucket_ready(&b, now);
            if (at) {
                assert_true(at > now);
                now = at + random_next(&seed) % (burst / 2); /* a timer is never early */
                assert_int_equal(mull_bucket_ready(&b, now), 0);
            }
            uint64_t units = 1 + random_next(&seed) % largest;
            mull_bucket_take(&b, units, now);
            total += units;
            now += random_next(&seed) % 1000;
            double most = (double)rate * (double)(now - begin + burst) / 1e9 + (double)largest + 1;
            assert_true((double)total <= most);
        }
        double ideal = (double)rate * (double)(now - begin) / 1e9;
        if (now >= begin + 10 * SECOND && ideal >= 1000)
            assert_true((double)total >= 0.95 * ideal && (double)total <= 1.05 * ideal);
    }
}

static void buckets_that_were_idle_owe_one_burst(void **state)
{
    struct mull_bucket b = {0};
    uint64_t now = SECOND, n = 0;
    mull_bucket_set(&b, 1000, 100 * MS, now);
    now += 3600 * SECOND; /* an hour's quiet does not add up */
    for (; !mull_bucket_ready(&b, now); n++)
        mull_bucket_take(&b, 1, now);
    assert_in_range(n, 100, 102);
}

static void buckets_take_another_rate(void **state)
{
    struct mull_bucket b = {0};
    assert_int_equal(mull_bucket_ready(&b, 1), 0); /* without a limit */
    mull_bucket_take(&b, UINT64_MAX, 1);
    assert_int_equal(mull_bucket_ready(&b, 1), 0);
    mull_bucket_set(&b, 10, 0, SECOND);
    mull_bucket_take(&b, 100, SECOND);
    assert_int_equal(mull_bucket_ready(&b, SECOND), 11 * SECOND);
    mull_bucket_set(&b, 100, 0, SECOND); /* what was to be paid is paid faster */
    assert_int_equal(mull_bucket_ready(&b, SECOND), 2 * SECOND);
    mull_bucket_take(&b, UINT64_MAX, SECOND); /* no overflow: for ever */
    assert_true(mull_bucket_ready(&b, SECOND) > SECOND << 20);
    mull_bucket_set(&b, 1, 0, SECOND);
    assert_true(mull_bucket_ready(&b, SECOND) > SECOND << 20);
    mull_bucket_set(&b, 0, 0, SECOND);
    assert_int_equal(mull_bucket_ready(&b, SECOND), 0);
}

/* ---- Disks ---- */

#define DEPTH 16

struct disk {
    char path[64];
    struct mull_loop *loop;
    struct mull_throttle *throttle;
    struct mull_block *block;
    struct job {
        struct mull_block_request r;
        struct disk *disk;
        uint8_t data[65536];
    } job[DEPTH];
    unsigned left; /* still to be submitted */
    unsigned running;
    unsigned done;
};

static void open_disk(struct disk *d, const uint64_t rates[MULL_THROTTLE_LIMITS])
{
    struct mull_error err = {0};
    struct mull_block_options o = {.path = d->path, .format = "raw"};
    strcpy(d->path, "/tmp/mull-limit-XXXXXX");
    int fd = mkstemp(d->path);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, 1 << 20), 0);
    close(fd);
    assert_int_equal(mull_loop_create(&d->loop, &err), 0);
    assert_int_equal(mull_throttle_create(d->loop, &d->throttle, &err), 0);
    assert_int_equal(mull_block_open(&o, &d->block, &err), 0);
    mull_block_limit(d->block, d->throttle);
    assert_int_equal(mull_block_start(d->block, d->loop, &err), 0);
    mull_throttle_set(d->throttle, rates);
}

static void close_disk(struct disk *d)
{
    mull_block_close(d->block);
    mull_throttle_destroy(d->throttle);
    mull_loop_destroy(d->loop);
    unlink(d->path);
    free(d);
}

static void job_done(struct mull_block_request *r, int result)
{
    struct job *job = r->opaque;
    struct disk *d = job->disk;
    assert_int_equal(result, 0);
    d->done++;
    if (d->left) {
        d->left--;
        mull_block_submit(d->block, r);
    } else if (!--d->running) {
        mull_loop_stop(d->loop);
    }
}

static void submit(struct disk *d, unsigned i, enum mull_block_op op, uint64_t length)
{
    struct job *job = &d->job[i];
    job->disk = d;
    job->r = (struct mull_block_request){.op = op,
                                         .offset = i * 65536ull,
                                         .length = length,
                                         .iov = {{job->data, length}},
                                         .niov = 1,
                                         .done = job_done,
                                         .opaque = job};
    d->running++;
    mull_block_submit(d->block, &job->r);
}

/* @count requests, DEPTH at a time. @return how long they took, in seconds */
static double run(struct disk *d, unsigned count, enum mull_block_op op, uint64_t length)
{
    uint64_t begin = mull_now_ns();
    d->left = count - DEPTH;
    d->done = 0;
    for (unsigned i = 0; i < DEPTH; i++)
        submit(d, i, op, length);
    mull_loop_run(d->loop);
    assert_int_equal(d->done, count);
    return (double)(mull_now_ns() - begin) / 1e9;
}

/* What @count requests of @units each at @rate a second should take: within 5 %, and the burst that
 * comes first. Slower where the machine itself is in the way: then once more. */
static void keeps(struct disk *d, unsigned count, enum mull_block_op op, uint64_t length,
                  double units, double rate)
{
    double ideal = count * units / rate, burst = MULL_THROTTLE_BURST_NS / 1e9 + units / rate;
    double took = 0;
    for (unsigned attempt = 0; attempt < 5; attempt++) {
        struct mull_block_counts before, after;
        mull_block_counts(d->block, &before);
        took = run(d, count, op, length);
        mull_block_counts(d->block, &after);
        assert_true(after.waited > before.waited);
        assert_true(took >= ideal / 1.05 - burst);
        if (took <= ideal * 1.05)
            return;
    }
    fail_msg("took %.3f s instead of %.3f s", took, ideal);
}

static void disks_keep_their_bandwidth(void **state)
{
    struct disk *d = calloc(1, sizeof(*d));
    open_disk(d, (uint64_t[MULL_THROTTLE_LIMITS]){[MULL_THROTTLE_READ_BYTES] = 32u << 20});
    keeps(d, 512, MULL_BLOCK_READ, 65536, 65536, 32u << 20); /* a second */
    close_disk(d);
}

static void disks_keep_their_operations(void **state)
{
    struct disk *d = calloc(1, sizeof(*d));
    struct mull_block_counts counts;
    open_disk(d, (uint64_t[MULL_THROTTLE_LIMITS]){[MULL_THROTTLE_OPS] = 500});
    keeps(d, 500, MULL_BLOCK_WRITE, 512, 1, 500);
    mull_block_counts(d->block, &counts);
    assert_int_equal(counts.writes % 500, 0);
    assert_int_equal(counts.written_bytes, counts.writes * 512);
    assert_int_equal(counts.reads, 0);
    close_disk(d);
}

static void writers_do_not_wait_for_readers(void **state)
{
    struct disk *d = calloc(1, sizeof(*d));
    open_disk(d, (uint64_t[MULL_THROTTLE_LIMITS]){[MULL_THROTTLE_READ_OPS] = 1});
    /* The first read goes; the next ones wait for seconds. Writes and flushes pass. */
    d->running = 1; /* nothing stops the loop */
    for (unsigned i = 0; i < 3; i++)
        submit(d, i, MULL_BLOCK_READ, 512);
    for (unsigned i = 3; i < 8; i++)
        submit(d, i, MULL_BLOCK_WRITE, 512);
    submit(d, 8, MULL_BLOCK_FLUSH, 0);
    for (uint64_t end = mull_now_ns() + 60 * SECOND; d->done < 7 && mull_now_ns() < end;)
        usleep(1000), mull_loop_post(d->loop, (void (*)(void *))mull_loop_stop, d->loop),
            mull_loop_run(d->loop);
    assert_true(d->done >= 7);
    /* Without the limit they go at once. */
    mull_throttle_set(d->throttle, (uint64_t[MULL_THROTTLE_LIMITS]){0});
    mull_block_drain(d->block);
    assert_int_equal(d->done, 9);
    close_disk(d);
}

static void draining_waits_for_nobody(void **state)
{
    struct disk *d = calloc(1, sizeof(*d));
    uint64_t begin = mull_now_ns();
    open_disk(d, (uint64_t[MULL_THROTTLE_LIMITS]){[MULL_THROTTLE_BYTES] = 512});
    d->running = 1;
    for (unsigned i = 0; i < DEPTH; i++)
        submit(d, i, i % 2 ? MULL_BLOCK_READ : MULL_BLOCK_WRITE, 65536); /* half an hour */
    mull_block_drain(d->block);
    assert_int_equal(d->done, DEPTH);
    assert_true(mull_now_ns() - begin < 60 * SECOND);
    submit(d, 0, MULL_BLOCK_READ, 512); /* and whoever comes now pays */
    assert_int_equal(d->done, DEPTH);
    mull_block_drain(d->block);
    close_disk(d);
}

/* ---- Networks ---- */

struct wire {
    struct mull_netdev base;
    struct mull_netdev_frontend frontend;
    unsigned sent, resumed;
    bool full;
};

static int wire_send(struct mull_netdev *netdev, const struct iovec *iov, int niov, size_t len)
{
    struct wire *w = (struct wire *)netdev;
    if (w->full)
        return -EAGAIN;
    w->sent++;
    return 0;
}

static void wire_attach(struct mull_netdev *netdev, const struct mull_netdev_frontend *frontend)
{
    ((struct wire *)netdev)->frontend =
        frontend ? *frontend : (struct mull_netdev_frontend){.opaque = NULL};
}

static void wire_resume(struct mull_netdev *netdev)
{
    ((struct wire *)netdev)->resumed++;
}

static void wire_destroy(struct mull_netdev *netdev) {}

static const struct mull_netdev_ops wire_ops = {
    .send = wire_send, .attach = wire_attach, .resume = wire_resume, .destroy = wire_destroy};

struct card {
    struct mull_loop *loop;
    struct mull_netdev *netdev;
    unsigned received;
    uint64_t left; /* frames to send */
    bool room;
};

static bool card_receive(void *opaque, const uint8_t *frame, size_t len)
{
    struct card *c = opaque;
    c->received += c->room;
    return c->room;
}

static void card_received(void *opaque) {}

static void card_send(struct card *c)
{
    static uint8_t data[1500];
    const struct iovec iov = {data, sizeof(data)};
    while (c->left && !mull_netdev_send(c->netdev, &iov, 1, sizeof(data)))
        c->left--;
    if (!c->left)
        mull_loop_stop(c->loop);
}

static void card_writable(void *opaque)
{
    card_send(opaque);
}

static void networks_keep_their_bandwidth(void **state)
{
    struct mull_error err = {0};
    struct mull_netlimit limit = {0};
    struct wire wire = {.base.ops = &wire_ops};
    struct card card = {.room = true};
    const struct mull_netdev_frontend frontend = {.opaque = &card,
                                                  .receive = card_receive,
                                                  .received = card_received,
                                                  .writable = card_writable};
    struct mull_netlimit_counts counts;
    uint8_t frame[1000] = {0};
    double took = 0;

    assert_int_equal(mull_loop_create(&card.loop, &err), 0);
    assert_int_equal(mull_netlimit_create(card.loop, &wire.base, &limit, &card.netdev, &err), 0);
    mull_netdev_attach(card.netdev, &frontend);
    mull_netlimit_set(&limit, (uint64_t[MULL_NETLIMITS]){[MULL_NETLIMIT_OUT] = 1500000});
    for (unsigned attempt = 0; attempt < 5; attempt++) {
        uint64_t begin = mull_now_ns();
        card.left = 1000; /* a second */
        wire.sent = 0;
        card_send(&card);
        assert_true(wire.sent < 100);
        mull_loop_run(card.loop);
        took = (double)(mull_now_ns() - begin) / 1e9;
        assert_int_equal(wire.sent, 1000);
        assert_true(took >= 1 / 1.05 - 0.052);
        if (took <= 1.05)
            break;
    }
    assert_true(took <= 1.05);
    /* The other way is free. */
    for (unsigned i = 0; i < 1000; i++)
        assert_true(wire.frontend.receive(wire.frontend.opaque, frame, sizeof(frame)));
    mull_netlimit_set(&limit, (uint64_t[MULL_NETLIMITS]){[MULL_NETLIMIT_BOTH] = 1000});
    unsigned passed = 0;
    while (passed < 10 && wire.frontend.receive(wire.frontend.opaque, frame, sizeof(frame)))
        passed++;
    assert_in_range(passed, 1, 3);
    /* Until its time has come nobody asks in vain; without the limit it comes at once. */
    mull_netdev_resume(card.netdev);
    assert_int_equal(wire.resumed, 0);
    mull_netlimit_set(&limit, (uint64_t[MULL_NETLIMITS]){0});
    for (uint64_t end = mull_now_ns() + 60 * SECOND; !wire.resumed && mull_now_ns() < end;)
        mull_loop_post(card.loop, (void (*)(void *))mull_loop_stop, card.loop),
            mull_loop_run(card.loop);
    assert_int_equal(wire.resumed, 1);
    mull_netlimit_counts(card.netdev, &counts);
    assert_int_equal(counts.in_packets, 1000 + passed);
    assert_int_equal(counts.in_bytes, 1000 * (1000 + passed));
    assert_int_equal(counts.out_packets % 1000, 0);
    assert_int_equal(counts.out_bytes, counts.out_packets * 1500);
    /* What the guest has no room for is not counted, and comes again. */
    card.room = false;
    assert_false(wire.frontend.receive(wire.frontend.opaque, frame, sizeof(frame)));
    mull_netlimit_counts(card.netdev, &counts);
    assert_int_equal(counts.in_packets, 1000 + passed);
    mull_netdev_destroy(card.netdev);
    assert_null(limit.members);
    mull_loop_destroy(card.loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(buckets_keep_the_rate),
        cmocka_unit_test(buckets_that_were_idle_owe_one_burst),
        cmocka_unit_test(buckets_take_another_rate),
        cmocka_unit_test(disks_keep_their_bandwidth),
        cmocka_unit_test(disks_keep_their_operations),
        cmocka_unit_test(writers_do_not_wait_for_readers),
        cmocka_unit_test(draining_waits_for_nobody),
        cmocka_unit_test(networks_keep_their_bandwidth),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
