/*
 * The virtio console (virtio 1.2, 5.3) with one port, in front of a chardev, and emergency output
 * for a guest whose driver is not up yet. Knows bytes, not terminals.
 */
#include <endian.h>
#include <errno.h>
#include <linux/virtio_console.h>
#include <linux/virtio_ids.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "device/devices.h"
#include "device/virtio/virtio.h"

enum { RX, TX };
#define QUEUE_SIZE 64
#define CHUNK 4096u
/* Bytes printed in one turn before everybody else has one. */
#define TURN_BYTES (256u << 10)
#define PCI_CLASS_COMMUNICATION 0x078000

struct console {
    struct mull_virtio v;
    struct mull_chardev *chardev;
    uint32_t tx_offset;      /* bytes of the next chain that the back end has taken already */
    struct mull_chain chain; /* scratch of the loop's thread */
};

/* ---- Output ---- */

enum outcome { DONE, FULL, LATER };

/* Write what is left of c->chain, at most *budget bytes of it. */
static enum outcome transmit(struct console *c, uint32_t *budget)
{
    uint8_t bytes[CHUNK];

    while (c->tx_offset < c->chain.out_len) {
        uint32_t left = c->chain.out_len - c->tx_offset;
        uint32_t len = left < CHUNK ? left : CHUNK;
        if (!*budget)
            return LATER;
        if (mull_chain_read(&c->chain, c->tx_offset, bytes, len))
            break; /* not in RAM: nothing to print */
        uint32_t taken = c->chardev ? (uint32_t)mull_chardev_write(c->chardev, bytes, len) : len;
        c->tx_offset += taken;
        *budget -= taken < *budget ? taken : *budget;
        if (taken < len)
            return FULL;
    }
    c->tx_offset = 0;
    return DONE;
}

static void kick_tx(struct console *c)
{
    struct mull_virtqueue *q = &c->v.queues[TX];
    uint32_t budget = TURN_BYTES;

    do {
        mull_virtqueue_quiet(q);
        while (mull_virtqueue_pop(q, &c->chain)) {
            enum outcome outcome = transmit(c, &budget);
            if (outcome == DONE) {
                mull_virtqueue_push(q, c->chain.head, 0);
                continue;
            }
            mull_virtqueue_unpop(q); /* until the back end is writable, or until the next turn */
            mull_virtqueue_signal(q);
            if (outcome == LATER)
                mull_virtio_kick(&c->v, TX);
            return;
        }
        mull_virtqueue_signal(q);
    } while (mull_virtqueue_listen(q));
}

static void console_writable(void *opaque)
{
    mull_virtio_kick(&((struct console *)opaque)->v, TX);
}

/* ---- Input ---- */

/* Take the next buffer that holds anything. @return false: there is none; a kick will tell */
static bool next_buffer(struct console *c)
{
    struct mull_virtqueue *q = &c->v.queues[RX];

    do {
        while (mull_virtqueue_pop(q, &c->chain)) {
            if (c->chain.in_len)
                return true;
            mull_virtqueue_push(q, c->chain.head, 0);
        }
    } while (mull_virtqueue_listen(q));
    return false;
}

static size_t console_can_receive(void *opaque)
{
    struct console *c = opaque;
    size_t room = 0;

    mull_virtio_lock(&c->v);
    if (next_buffer(c)) {
        room = c->chain.in_len;
        mull_virtqueue_unpop(&c->v.queues[RX]);
    }
    mull_virtio_unlock(&c->v);
    return room;
}

static void console_receive(void *opaque, const uint8_t *bytes, size_t len)
{
    struct console *c = opaque;
    struct mull_virtqueue *q = &c->v.queues[RX];

    mull_virtio_lock(&c->v);
    /* The buffers are in guest memory: they may be others than a moment ago. */
    while (len && next_buffer(c)) {
        uint32_t n = len < c->chain.in_len ? (uint32_t)len : c->chain.in_len;
        if (mull_chain_write(&c->chain, 0, bytes, n))
            n = 0;
        mull_virtqueue_push(q, c->chain.head, n);
        if (!n)
            break;
        bytes += n;
        len -= n;
    }
    mull_virtqueue_signal(q);
    mull_virtio_unlock(&c->v);
}

/* ---- The device ---- */

static void console_kick(struct mull_virtio *v, unsigned queue)
{
    struct console *c = (struct console *)v;

    if (queue == TX)
        kick_tx(c);
    else if (c->chardev)
        mull_chardev_resume(c->chardev);
}

static void console_queue_reset(struct mull_virtio *v, unsigned queue)
{
    if (queue == TX)
        ((struct console *)v)->tx_offset = 0;
}

static void console_reset(struct mull_virtio *v)
{
    console_queue_reset(v, TX);
}

/* Emergency write (5.3.4): a character without a queue. */
static void console_config_written(struct mull_virtio *v, unsigned offset, unsigned size)
{
    struct console *c = (struct console *)v;
    const unsigned at = offsetof(struct virtio_console_config, emerg_wr);
    uint8_t byte = v->config[at];

    memset(v->config, 0, v->config_size); /* nothing here is the driver's to change */
    if (offset == at && c->chardev)
        mull_chardev_write(c->chardev, &byte, 1);
}

static const struct mull_virtio_ops console_virtio_ops = {.kick = console_kick,
                                                          .reset = console_reset,
                                                          .queue_reset = console_queue_reset,
                                                          .config_written = console_config_written};

static void console_destroy(struct mull_device *device)
{
    struct console *c = (struct console *)device;
    if (c->chardev)
        mull_chardev_attach(c->chardev, NULL);
    mull_virtio_fini(&c->v);
    free(c);
}

static const struct mull_state_desc console_desc = {
    .name = "virtio-console",
    .version = 1,
    .oldest = 1,
    .fields = (const struct mull_field[]){MULL_FIELD_NESTED(struct console, v, &mull_virtio_desc),
                                          MULL_FIELD(struct console, tx_offset), MULL_FIELDS_END},
};

static const struct mull_device_ops console_ops = {
    .state = &console_desc,
    .reset = mull_virtio_device_reset,
    .quiesce = mull_virtio_device_quiesce,
    .resume = mull_virtio_device_resume,
    .destroy = console_destroy,
};

int mull_virtio_console_create(const struct mull_device_env *env, struct mull_pci_bus *bus,
                               const struct mull_virtio_console_config *cfg,
                               struct mull_device **out, struct mull_error *err)
{
    struct console *c = calloc(1, sizeof(*c));
    if (!c)
        return mull_fail(err, ENOMEM, "%s: out of memory", cfg->name);
    c->v.device.ops = &console_ops;

    int rc = mull_virtio_init(&c->v, env, cfg->name, VIRTIO_ID_CONSOLE,
                              MULL_BIT(VIRTIO_CONSOLE_F_EMERG_WRITE), &console_virtio_ops, err);
    if (!rc) {
        mull_virtio_add_queue(&c->v, QUEUE_SIZE);
        mull_virtio_add_queue(&c->v, QUEUE_SIZE);
        c->v.queues[TX].in_place = true; /* Linux spins until its console's output is used */
        c->v.config_size = sizeof(struct virtio_console_config);
        rc = mull_virtio_pci_attach(&c->v, bus, cfg->devfn, PCI_CLASS_COMMUNICATION, err);
    }
    if (rc) {
        console_destroy(&c->v.device);
        return rc;
    }
    if (cfg->chardev) {
        const struct mull_chardev_frontend frontend = {.opaque = c,
                                                       .can_receive = console_can_receive,
                                                       .receive = console_receive,
                                                       .writable = console_writable};
        c->chardev = cfg->chardev;
        mull_chardev_attach(c->chardev, &frontend);
    }
    *out = &c->v.device;
    return 0;
}
