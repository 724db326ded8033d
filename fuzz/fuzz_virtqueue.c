/* Fuzzes the virtqueue, split or (with FUZZ_PACKED) packed, and virtio over PCI, under a device that echoes what it reads. */
#include <stdlib.h>

#include "device/virtio/virtio.h"
#include "fuzz_virtio.h"

struct echo {
    struct mull_virtio v;
    struct mull_chain chain;
    uint16_t held[64];
    unsigned nheld;
};

static void echo_kick(struct mull_virtio *v, unsigned queue)
{
    struct echo *e = (struct echo *)v;
    struct mull_virtqueue *q = &v->queues[queue];
    struct iovec iov[8];
    uint8_t bytes[512];

    do {
        mull_virtqueue_quiet(q);
        while (mull_virtqueue_pop(q, &e->chain)) {
            const struct mull_chain *c = &e->chain;
            if (queue == 1 && e->nheld < 64) {
                e->held[e->nheld++] = c->head;
                continue;
            }
            uint32_t n = c->out_len < sizeof(bytes) ? c->out_len : sizeof(bytes);
            uint32_t w = n < c->in_len ? n : c->in_len;
            if (mull_chain_read(c, 0, bytes, n) || mull_chain_write(c, c->in_len - w, bytes, w))
                w = 0;
            if (mull_chain_iov(c, true, 0, c->in_len, iov, 8) > 0)
                mull_chain_wrote(c, 0, c->in_len);
            mull_virtqueue_push(q, c->head, w);
        }
        mull_virtqueue_signal(q);
    } while (mull_virtqueue_listen(q));
}

static void release(struct fuzz_guest *g)
{
    struct echo *e = (struct echo *)g->device;
    mull_virtio_lock(&e->v);
    for (unsigned i = 0; i < e->nheld; i++)
        mull_virtqueue_push(&e->v.queues[1], e->held[i], 0);
    e->nheld = 0;
    mull_virtqueue_signal(&e->v.queues[1]);
    mull_virtio_unlock(&e->v);
}

static void event(struct fuzz_guest *g, uint32_t arg)
{
    if (arg & 1)
        release(g);
}

static void drain(struct mull_virtio *v)
{
    struct fuzz_guest g = {.device = &v->device};
    release(&g);
}

static void echo_destroy(struct mull_device *device)
{
    mull_virtio_fini((struct mull_virtio *)device);
    free(device);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct mull_virtio_ops ops = {.kick = echo_kick, .drain = drain};
    static const struct mull_device_ops device_ops = {.state = &mull_virtio_desc,
                                                      .reset = mull_virtio_device_reset,
                                                      .quiesce = mull_virtio_device_quiesce,
                                                      .resume = mull_virtio_device_resume,
                                                      .destroy = echo_destroy};
    struct fuzz_guest g;
    struct echo *e = calloc(1, sizeof(*e));

    fuzz_guest_init(&g);
#ifdef FUZZ_PACKED
    g.env.packed_rings = true;
#endif
    if (!e || mull_virtio_init(&e->v, &g.env, "echo", 4, 0, &ops, NULL))
        abort();
    mull_virtio_add_queue(&e->v, 64);
    mull_virtio_add_queue(&e->v, 64);
    e->v.config_size = 8;
    e->v.device.ops = &device_ops;
    if (mull_virtio_pci_attach(&e->v, g.bus, -1, 0xff0000, NULL))
        abort();
    g.device = &e->v.device;
    g.queues = 2;
    g.event = event;
    g.settle = release;
    fuzz_guest_run(&g, data, size);
    fuzz_guest_fini(&g);
    return 0;
}
