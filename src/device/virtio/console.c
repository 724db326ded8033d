/*
 * The virtio console (virtio 1.2, 5.3): a console port, and named ports for agents in the guest,
 * each in front of a chardev; emergency output for a guest whose driver is not up yet. Knows
 * bytes, not terminals.
 */
#include <endian.h>
#include <errno.h>
#include <linux/virtio_console.h>
#include <linux/virtio_ids.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device/devices.h"
#include "device/virtio/virtio.h"

/* Queues (5.3.2): two of port 0, two for control messages, two of each port from 1 on. */
enum { RX0, TX0, CTRL_RX, CTRL_TX, RX1, TX1 };
#define MAX_PORTS (1 + MULL_VIRTIO_CONSOLE_CHANNELS)
#define QUEUE_SIZE 64
#define CHUNK 4096u
/* Bytes printed in one turn before everybody else has one. */
#define TURN_BYTES (256u << 10)
#define NAME_SIZE 32
#define PCI_CLASS_COMMUNICATION 0x078000

/* Control messages that a port still has to send: bits, in the order they are sent. */
enum {
    SEND_ADD = 1 << 0,
    SEND_CONSOLE = 1 << 1,
    SEND_NAME = 1 << 2,
    SEND_OPEN = 1 << 3,
    SEND_ALL = SEND_ADD | SEND_CONSOLE | SEND_NAME | SEND_OPEN
};

struct port {
    struct console *console;
    struct mull_chardev *chardev;
    char name[NAME_SIZE];
    bool host_open;     /* somebody is at our side */
    bool ready;         /* the guest's driver knows the port */
    bool guest_open;    /* somebody is at the guest's side */
    uint8_t pending;    /* SEND_* */
    uint32_t tx_offset; /* bytes of the next chain that the back end has taken already */
};

struct console {
    struct mull_virtio v;
    unsigned nports;
    struct port ports[MAX_PORTS];
    struct mull_chain chain; /* scratch, under the lock */
};

static bool multiport(const struct console *c)
{
    return mull_virtio_has(&c->v, VIRTIO_CONSOLE_F_MULTIPORT);
}

static unsigned rx_queue(const struct port *p)
{
    unsigned index = (unsigned)(p - p->console->ports);
    return index ? RX1 + 2 * (index - 1) : RX0;
}

/* ---- Output ---- */

enum outcome { DONE, FULL, LATER };

/* Write what is left of c->chain, at most *budget bytes of it. */
static enum outcome transmit(struct port *p, uint32_t *budget)
{
    const struct mull_chain *c = &p->console->chain;
    uint8_t bytes[CHUNK];

    while (p->tx_offset < c->out_len) {
        uint32_t left = c->out_len - p->tx_offset;
        uint32_t len = left < CHUNK ? left : CHUNK;
        if (!*budget)
            return LATER;
        if (mull_chain_read(c, p->tx_offset, bytes, len))
            break; /* not in RAM: nothing to print */
        uint32_t taken = p->chardev ? (uint32_t)mull_chardev_write(p->chardev, bytes, len) : len;
        p->tx_offset += taken;
        *budget -= taken < *budget ? taken : *budget;
        if (taken < len)
            return FULL;
    }
    p->tx_offset = 0;
    return DONE;
}

static void kick_tx(struct port *p)
{
    struct console *c = p->console;
    unsigned index = rx_queue(p) + 1;
    struct mull_virtqueue *q = &c->v.queues[index];
    uint32_t budget = TURN_BYTES;

    do {
        mull_virtqueue_quiet(q);
        while (mull_virtqueue_pop(q, &c->chain)) {
            enum outcome outcome = transmit(p, &budget);
            if (outcome == DONE) {
                mull_virtqueue_push(q, c->chain.head, 0);
                continue;
            }
            mull_virtqueue_unpop(q); /* until the back end is writable, or until the next turn */
            mull_virtqueue_signal(q);
            if (outcome == LATER)
                mull_virtio_kick(&c->v, index);
            return;
        }
        mull_virtqueue_signal(q);
    } while (mull_virtqueue_listen(q));
}

static void port_writable(void *opaque)
{
    struct port *p = opaque;
    mull_virtio_kick(&p->console->v, rx_queue(p) + 1);
}

/* ---- Input ---- */

/* Take the next buffer that holds anything. @return false: there is none; a kick will tell */
static bool next_buffer(struct console *c, struct mull_virtqueue *q)
{
    do {
        while (mull_virtqueue_pop(q, &c->chain)) {
            if (c->chain.in_len)
                return true;
            mull_virtqueue_push(q, c->chain.head, 0);
        }
    } while (mull_virtqueue_listen(q));
    return false;
}

static size_t port_can_receive(void *opaque)
{
    struct port *p = opaque;
    struct console *c = p->console;
    size_t room = 0;

    mull_virtio_lock(&c->v);
    struct mull_virtqueue *q = &c->v.queues[rx_queue(p)];
    if ((p->guest_open || !multiport(c)) && next_buffer(c, q)) {
        room = c->chain.in_len;
        mull_virtqueue_unpop(q);
    }
    mull_virtio_unlock(&c->v);
    return room;
}

static void port_receive(void *opaque, const uint8_t *bytes, size_t len)
{
    struct port *p = opaque;
    struct console *c = p->console;

    mull_virtio_lock(&c->v);
    struct mull_virtqueue *q = &c->v.queues[rx_queue(p)];
    /* The buffers are in guest memory: they may be others than a moment ago. */
    while (len && next_buffer(c, q)) {
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

/* ---- Control messages (5.3.6.2) ---- */

/* Send the first of the port's pending messages into c->chain. @return the bytes written */
static uint32_t send_message(struct console *c, struct port *p)
{
    unsigned first = p->pending & -(unsigned)p->pending;
    uint8_t bytes[sizeof(struct virtio_console_control) + NAME_SIZE];
    struct virtio_console_control message = {.id = htole32((uint32_t)(p - c->ports)),
                                             .value = htole16(1)};
    uint32_t len = sizeof(message);

    p->pending &= (uint8_t)~first;
    switch (first) {
    case SEND_ADD:
        message.event = htole16(VIRTIO_CONSOLE_PORT_ADD);
        break;
    case SEND_CONSOLE:
        message.event = htole16(VIRTIO_CONSOLE_CONSOLE_PORT);
        break;
    case SEND_NAME:
        message.event = htole16(VIRTIO_CONSOLE_PORT_NAME);
        memcpy(bytes + len, p->name, strlen(p->name));
        len += (uint32_t)strlen(p->name);
        break;
    default:
        message.event = htole16(VIRTIO_CONSOLE_PORT_OPEN);
        message.value = htole16(p->host_open);
        break;
    }
    memcpy(bytes, &message, sizeof(message));
    if (len > c->chain.in_len)
        len = c->chain.in_len;
    return mull_chain_write(&c->chain, 0, bytes, len) ? 0 : len;
}

static void send_messages(struct console *c)
{
    struct mull_virtqueue *q = &c->v.queues[CTRL_RX];

    if (c->nports == 1 || !multiport(c))
        return;
    for (struct port *p = c->ports; p < c->ports + c->nports; p++)
        while (p->pending && next_buffer(c, q)) {
            uint32_t written = send_message(c, p);
            mull_virtqueue_push(q, c->chain.head, written);
        }
    mull_virtqueue_signal(q);
}

static void resume_input(struct port *p)
{
    if (p->chardev)
        mull_chardev_resume(p->chardev);
}

static void handle_message(struct console *c, const struct virtio_console_control *message)
{
    uint32_t id = le32toh(message->id);
    uint16_t event = le16toh(message->event), value = le16toh(message->value);

    if (event == VIRTIO_CONSOLE_DEVICE_READY) {
        for (unsigned i = 0; i < c->nports && value; i++)
            c->ports[i].pending |= SEND_ADD;
        return;
    }
    if (id >= c->nports)
        return;
    struct port *p = &c->ports[id];
    if (event == VIRTIO_CONSOLE_PORT_READY) {
        p->ready = value != 0;
        if (p->ready)
            p->pending |= (id ? 0 : SEND_CONSOLE) | (p->name[0] ? SEND_NAME : 0) | SEND_OPEN;
    } else if (event == VIRTIO_CONSOLE_PORT_OPEN) {
        p->guest_open = value != 0;
        resume_input(p);
    }
}

static void kick_control(struct console *c)
{
    struct mull_virtqueue *q = &c->v.queues[CTRL_TX];
    struct virtio_console_control message;

    do {
        mull_virtqueue_quiet(q);
        while (mull_virtqueue_pop(q, &c->chain)) {
            bool whole = !mull_chain_read(&c->chain, 0, &message, sizeof(message));
            mull_virtqueue_push(q, c->chain.head, 0);
            if (whole)
                handle_message(c, &message);
        }
        mull_virtqueue_signal(q);
    } while (mull_virtqueue_listen(q));
    send_messages(c);
}

/* A client came or went. */
static void port_connected(void *opaque, bool connected)
{
    struct port *p = opaque;
    struct console *c = p->console;

    mull_virtio_lock(&c->v);
    p->host_open = connected;
    if (p->ready) {
        p->pending |= SEND_OPEN;
        send_messages(c);
    }
    mull_virtio_unlock(&c->v);
}

/* ---- The device ---- */

/* The port that queue @queue belongs to. */
static struct port *port_of(struct console *c, unsigned queue)
{
    return &c->ports[queue < CTRL_RX ? 0 : (queue - CTRL_RX) / 2];
}

static void console_kick(struct mull_virtio *v, unsigned queue)
{
    struct console *c = (struct console *)v;

    if (queue == CTRL_RX)
        send_messages(c);
    else if (queue == CTRL_TX)
        kick_control(c);
    else if (queue & 1)
        kick_tx(port_of(c, queue));
    else
        resume_input(port_of(c, queue));
}

static void console_queue_reset(struct mull_virtio *v, unsigned queue)
{
    struct console *c = (struct console *)v;
    if ((queue & 1) && queue != CTRL_TX)
        port_of(c, queue)->tx_offset = 0;
}

static void console_reset(struct mull_virtio *v)
{
    struct console *c = (struct console *)v;
    for (unsigned i = 0; i < c->nports; i++) {
        c->ports[i].tx_offset = 0;
        c->ports[i].pending = 0;
        c->ports[i].ready = c->ports[i].guest_open = false;
    }
}

static void fill_config(struct console *c)
{
    const struct virtio_console_config config = {.max_nr_ports = htole32(c->nports)};
    memcpy(c->v.config, &config, sizeof(config));
    c->v.config_size = sizeof(config);
}

/* Emergency write (5.3.4): a character without a queue. */
static void console_config_written(struct mull_virtio *v, unsigned offset, unsigned size)
{
    struct console *c = (struct console *)v;
    const unsigned at = offsetof(struct virtio_console_config, emerg_wr);
    uint8_t byte = v->config[at];

    fill_config(c); /* nothing here is the driver's to change */
    if (offset == at && c->ports[0].chardev)
        mull_chardev_write(c->ports[0].chardev, &byte, 1);
}

static const struct mull_virtio_ops console_virtio_ops = {.kick = console_kick,
                                                          .reset = console_reset,
                                                          .queue_reset = console_queue_reset,
                                                          .config_written = console_config_written};

static void console_destroy(struct mull_device *device)
{
    struct console *c = (struct console *)device;
    for (unsigned i = 0; i < c->nports; i++)
        if (c->ports[i].chardev)
            mull_chardev_attach(c->ports[i].chardev, NULL);
    mull_virtio_fini(&c->v);
    free(c);
}

/* A restored guest believes what the saved machine's clients were; ours are others. */
static void console_resume(struct mull_device *device)
{
    struct console *c = (struct console *)device;

    mull_virtio_device_resume(device);
    mull_virtio_lock(&c->v);
    for (unsigned i = 0; i < c->nports; i++)
        if (c->ports[i].ready)
            c->ports[i].pending |= SEND_OPEN;
    mull_virtio_unlock(&c->v);
    for (unsigned i = 0; i < c->nports; i++)
        resume_input(&c->ports[i]);
}

static int port_loaded(void *object, uint32_t version, struct mull_error *err)
{
    struct port *p = object;
    p->pending &= SEND_ALL;
    return 0;
}

static const struct mull_state_desc port_desc = {
    .name = "virtio-console-port",
    .version = 1,
    .oldest = 1,
    .fields = (const struct mull_field[]){MULL_FIELD(struct port, ready),
                                          MULL_FIELD(struct port, guest_open),
                                          MULL_FIELD(struct port, pending),
                                          MULL_FIELD(struct port, tx_offset), MULL_FIELDS_END},
    .after_load = port_loaded,
};

static const struct mull_state_desc console_desc = {
    .name = "virtio-console",
    .version = 1,
    .oldest = 1,
    .fields =
        (const struct mull_field[]){MULL_FIELD_NESTED(struct console, v, &mull_virtio_desc),
                                    MULL_FIELD_NESTED_ARRAY(struct console, ports, &port_desc),
                                    MULL_FIELDS_END},
};

static const struct mull_device_ops console_ops = {
    .state = &console_desc,
    .reset = mull_virtio_device_reset,
    .quiesce = mull_virtio_device_quiesce,
    .resume = console_resume,
    .destroy = console_destroy,
};

static void connect_port(struct port *p, struct mull_chardev *chardev)
{
    const struct mull_chardev_frontend frontend = {.opaque = p,
                                                   .can_receive = port_can_receive,
                                                   .receive = port_receive,
                                                   .writable = port_writable,
                                                   .connected = port_connected};
    if (!chardev)
        return;
    p->host_open = mull_chardev_connected(chardev);
    p->chardev = chardev;
    mull_chardev_attach(chardev, &frontend);
}

static int name_ports(struct console *c, const struct mull_virtio_console_config *cfg,
                      struct mull_error *err)
{
    for (unsigned i = 0; i < c->nports; i++)
        c->ports[i].console = c;
    for (unsigned i = 0; i < cfg->nchannels; i++) {
        const char *name = cfg->channels[i].name;
        if (!name || !*name || strlen(name) >= NAME_SIZE)
            return mull_fail(err, EINVAL, "%s: channel %u: its name must have 1 to %d characters",
                             cfg->name, i, NAME_SIZE - 1);
        strcpy(c->ports[1 + i].name, name);
    }
    return 0;
}

static void add_queues(struct console *c)
{
    unsigned count = c->nports == 1 ? 2 : 2 + 2 * c->nports;

    for (unsigned i = 0; i < count; i++) {
        mull_virtio_add_queue(&c->v, QUEUE_SIZE);
        /* Linux spins until its console's output is used. */
        c->v.queues[i].in_place = (i & 1) && i != CTRL_TX;
    }
}

int mull_virtio_console_create(const struct mull_device_env *env, struct mull_pci_bus *bus,
                               const struct mull_virtio_console_config *cfg,
                               struct mull_device **out, struct mull_error *err)
{
    if (cfg->nchannels > MULL_VIRTIO_CONSOLE_CHANNELS)
        return mull_fail(err, E2BIG, "%s: %u channels; at most %d are possible", cfg->name,
                         cfg->nchannels, MULL_VIRTIO_CONSOLE_CHANNELS);
    struct console *c = calloc(1, sizeof(*c));
    if (!c)
        return mull_fail(err, ENOMEM, "%s: out of memory", cfg->name);
    c->nports = 1 + cfg->nchannels;
    c->v.device.ops = &console_ops;
    int rc = name_ports(c, cfg, err);
    if (rc) {
        free(c);
        return rc;
    }

    uint64_t features = MULL_BIT(VIRTIO_CONSOLE_F_EMERG_WRITE) |
                        (c->nports > 1 ? MULL_BIT(VIRTIO_CONSOLE_F_MULTIPORT) : 0);
    rc = mull_virtio_init(&c->v, env, cfg->name, VIRTIO_ID_CONSOLE, features, &console_virtio_ops,
                          err);
    if (!rc) {
        add_queues(c);
        fill_config(c);
        rc = mull_virtio_pci_attach(&c->v, bus, cfg->devfn, PCI_CLASS_COMMUNICATION, err);
    }
    if (rc) {
        console_destroy(&c->v.device);
        return rc;
    }
    connect_port(&c->ports[0], cfg->chardev);
    for (unsigned i = 0; i < cfg->nchannels; i++)
        connect_port(&c->ports[1 + i], cfg->channels[i].chardev);
    *out = &c->v.device;
    return 0;
}
