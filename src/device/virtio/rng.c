/*
 * The virtio entropy device (virtio 1.2, 5.4): fills the guest's buffers from getrandom(), at a
 * bounded rate so that a guest cannot keep the host busy with it.
 */
#include <errno.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <sys/random.h>

#include "device/devices.h"
#include "device/virtio/virtio.h"

#define QUEUE_SIZE 64
#define DEFAULT_RATE (1u << 20)
/* What one buffer gets at most: fewer bytes than asked for are allowed (5.4.6.1). */
#define CHUNK 4096u
#define PCI_CLASS_OTHER 0xff0000

struct rng {
    struct mull_virtio v;
    uint32_t rate;
    uint64_t tokens;    /* bytes that may be given now, at most a second's worth */
    uint64_t filled_ns; /* when tokens were last added */
    struct mull_timer *timer;
    struct mull_chain chain;
};

static void refill(struct rng *r)
{
    uint64_t now = mull_now_ns(), passed = now - r->filled_ns;
    if (passed >= 1000000000u) {
        r->tokens = r->rate;
        r->filled_ns = now;
        return;
    }
    uint64_t earned = passed * r->rate / 1000000000u;
    if (!earned)
        return;
    r->tokens = r->tokens + earned < r->rate ? r->tokens + earned : r->rate;
    r->filled_ns = now;
}

static void wake_up(void *opaque)
{
    struct rng *r = opaque;
    mull_virtio_kick(&r->v, 0);
}

/* @return the bytes put into r->chain; 0: there is nothing to put them in, or no entropy */
static uint32_t fill(struct rng *r, uint32_t len)
{
    uint8_t bytes[CHUNK];
    ssize_t n = getrandom(bytes, len, GRND_NONBLOCK);
    if (n <= 0 || mull_chain_write(&r->chain, 0, bytes, (uint64_t)n))
        return 0;
    return (uint32_t)n;
}

static void rng_kick(struct mull_virtio *v, unsigned queue)
{
    struct rng *r = (struct rng *)v;
    struct mull_virtqueue *q = &v->queues[queue];

    do {
        mull_virtqueue_quiet(q);
        refill(r);
        while (mull_virtqueue_pop(q, &r->chain) == 1) {
            uint32_t len = r->chain.in_len < CHUNK ? r->chain.in_len : CHUNK;
            if (len > r->tokens) {
                /* Go on when enough has been earned; the driver's kicks are not needed for it. */
                mull_virtqueue_unpop(q);
                mull_virtqueue_signal(q);
                mull_timer_arm(r->timer,
                               mull_now_ns() + (len - r->tokens) * 1000000000u / r->rate + 1);
                return;
            }
            uint32_t written = fill(r, len);
            r->tokens -= written;
            mull_virtqueue_push(q, r->chain.head, written);
        }
        mull_virtqueue_signal(q);
    } while (mull_virtqueue_listen(q));
}

static const struct mull_virtio_ops rng_virtio_ops = {.kick = rng_kick};

static void rng_destroy(struct mull_device *device)
{
    struct rng *r = (struct rng *)device;
    mull_virtio_fini(&r->v);
    mull_timer_destroy(r->timer);
    free(r);
}

static const struct mull_state_desc rng_desc = {
    .name = "virtio-rng",
    .version = 1,
    .oldest = 1,
    .fields = (const struct mull_field[]){MULL_FIELD_NESTED(struct rng, v, &mull_virtio_desc),
                                          MULL_FIELDS_END},
};

static const struct mull_device_ops rng_ops = {
    .state = &rng_desc,
    .reset = mull_virtio_device_reset,
    .quiesce = mull_virtio_device_quiesce,
    .resume = mull_virtio_device_resume,
    .destroy = rng_destroy,
};

int mull_virtio_rng_create(const struct mull_device_env *env, struct mull_pci_bus *bus,
                           const struct mull_virtio_rng_config *cfg, struct mull_device **out,
                           struct mull_error *err)
{
    struct rng *r = calloc(1, sizeof(*r));
    if (!r)
        return mull_fail(err, ENOMEM, "%s: out of memory", cfg->name);
    r->v.device.ops = &rng_ops;
    r->rate = cfg->bytes_per_second ? cfg->bytes_per_second : DEFAULT_RATE;
    if (r->rate < CHUNK)
        r->rate = CHUNK; /* a whole buffer must become payable */
    r->tokens = r->rate;
    r->filled_ns = mull_now_ns();

    int rc = mull_virtio_init(&r->v, env, cfg->name, VIRTIO_ID_RNG, 0, &rng_virtio_ops, err);
    if (!rc) {
        mull_virtio_add_queue(&r->v, QUEUE_SIZE);
        r->timer = mull_timer_create(env->loop, wake_up, r);
        if (!r->timer)
            rc = mull_fail(err, ENOMEM, "%s: out of memory", cfg->name);
    }
    if (!rc)
        rc = mull_virtio_pci_attach(&r->v, bus, cfg->devfn, PCI_CLASS_OTHER, err);
    if (rc) {
        rng_destroy(&r->v.device);
        return rc;
    }
    *out = &r->v.device;
    return 0;
}
