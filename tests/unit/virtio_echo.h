/*
 * A device with two queues for the tests of virtqueues: notes each chain and gives it back at once,
 * or when it is told to.
 */
#ifndef MULL_TESTS_VIRTIO_ECHO_H
#define MULL_TESTS_VIRTIO_ECHO_H

#include "virtio_driver.h"

#include "device/virtio/virtio.h"

struct echo {
    struct mull_virtio v;
    bool hold;
    struct drv *refill; /* a driver that offers the chain again as soon as it is used */
    unsigned nheld;
    uint16_t held[64];
    unsigned chains, starts, resets, queue_resets, config_writes;
    struct mull_chain chain;
    uint8_t bytes[64];
};

/* Echo what is readable into what is writable. */
static void echo_kick(struct mull_virtio *v, unsigned queue)
{
    struct echo *e = (struct echo *)v;
    struct mull_virtqueue *q = &v->queues[queue];
    do {
        mull_virtqueue_quiet(q);
        while (mull_virtqueue_pop(q, &e->chain)) {
            e->chains++;
            if (e->hold) {
                e->held[e->nheld++] = e->chain.head;
                continue;
            }
            uint32_t n = e->chain.out_len < 64 ? e->chain.out_len : 64;
            uint32_t w = n < e->chain.in_len ? n : e->chain.in_len;
            if (mull_chain_read(&e->chain, 0, e->bytes, n) ||
                mull_chain_write(&e->chain, 0, e->bytes, w))
                w = 0;
            mull_virtqueue_push(q, e->chain.head, w);
            if (e->refill)
                drv_offer(e->refill, queue, e->chain.head);
        }
        mull_virtqueue_signal(q);
    } while (mull_virtqueue_listen(q));
}

static void echo_start(struct mull_virtio *v)
{
    ((struct echo *)v)->starts++;
}

static void echo_reset(struct mull_virtio *v)
{
    ((struct echo *)v)->resets++;
}

static void echo_queue_reset(struct mull_virtio *v, unsigned queue)
{
    ((struct echo *)v)->queue_resets++;
}

static void echo_config_written(struct mull_virtio *v, unsigned offset, unsigned size)
{
    ((struct echo *)v)->config_writes++;
}

static const struct mull_virtio_ops echo_ops = {.kick = echo_kick,
                                                .start = echo_start,
                                                .reset = echo_reset,
                                                .queue_reset = echo_queue_reset,
                                                .config_written = echo_config_written};

static void echo_destroy(struct mull_device *device)
{
    mull_virtio_fini((struct mull_virtio *)device);
    free(device);
}

static const struct mull_device_ops echo_device_ops = {.state = &mull_virtio_desc,
                                                       .reset = mull_virtio_device_reset,
                                                       .quiesce = mull_virtio_device_quiesce,
                                                       .resume = mull_virtio_device_resume,
                                                       .destroy = echo_destroy};

static void release(struct echo *e)
{
    mull_virtio_lock(&e->v);
    for (unsigned i = 0; i < e->nheld; i++)
        mull_virtqueue_push(&e->v.queues[0], e->held[i], 0);
    e->nheld = 0;
    mull_virtqueue_signal(&e->v.queues[0]);
    mull_virtio_unlock(&e->v);
}

static int setup(void **state)
{
    struct drv *d = malloc(sizeof(*d));
    struct echo *e = calloc(1, sizeof(*e));
    struct mull_error err = {0};
    drv_init(d);
    assert_int_equal(mull_virtio_init(&e->v, &d->env, "echo", 4, 1u << 5, &echo_ops, &err), 0);
    mull_virtio_add_queue(&e->v, 64);
    mull_virtio_add_queue(&e->v, 64);
    e->v.config_size = 6;
    memcpy(e->v.config, "config", 6);
    e->v.device.ops = &echo_device_ops;
    assert_int_equal(mull_virtio_pci_attach(&e->v, d->bus, -1, 0xff0000, &err), 0);
    d->device = &e->v.device;
    drv_find(d);
    *state = d;
    return 0;
}

static int teardown(void **state)
{
    drv_fini(*state);
    free(*state);
    return 0;
}

static struct echo *echo_of(struct drv *d)
{
    return (struct echo *)d->device;
}

#endif
