/*
 * The virtio network device (virtio 1.2, 5.1) with one or more queue pairs and a control queue, in
 * front of a struct mull_netdev. Offloads are offered where the back end carries the virtio-net
 * header. Knows frames and their addresses, not where they go.
 */
#include <endian.h>
#include <errno.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_net.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "device/devices.h"
#include "device/net/offload.h"
#include "device/virtio/net_rss.h"
#include "device/virtio/virtio.h"

#define MAX_PAIRS ((MULL_VIRTIO_MAX_QUEUES - 1) / 2)
#define FLOWS 256 /* remembered, for the choice of a receive queue */
#define QUEUE_SIZE 256
#define CTRL_QUEUE_SIZE 64
#define HDR_SIZE MULL_NET_HDR_SIZE
#define HASH_HDR_SIZE sizeof(struct virtio_net_hdr_v1_hash)
#define ETH_HEADER 14
#define MAX_ADDRESSES 64 /* of each filter table; more turn the filter off */
#define MAX_VECTORS 256
#define PCI_CLASS_ETHERNET 0x020000

_Static_assert(sizeof(struct virtio_net_hdr_v1) == HDR_SIZE, "virtio 1.2, 5.1.6");

/* What the driver wants to receive (5.1.6.5.1, 5.1.6.5.2). */
struct filter {
    uint8_t promisc, allmulti, alluni, nomulti, nouni, nobcast;
    uint8_t nunicast, nmulticast;
    uint8_t unicast[MAX_ADDRESSES][6], multicast[MAX_ADDRESSES][6];
};

struct net {
    struct mull_virtio v;
    struct mull_netdev *netdev;
    uint8_t permanent_mac[6];
    uint16_t mtu;
    uint16_t max_pairs, pairs; /* there are, the driver uses */
    bool link_up;
    uint8_t mac[6];
    uint8_t announce;  /* the driver was asked to, and has not acknowledged */
    bool announce_due; /* restored: ask it when the device goes on */
    struct filter filter;
    struct mull_rss rss;
    struct mull_chain first, chain; /* scratch of the loop's thread */
    uint8_t flow[FLOWS];            /* by hash: the pair that last sent of that flow; not saved */
    struct {
        uint16_t head;
        uint32_t written;
    } rx[QUEUE_SIZE];
};

/* ---- Queues (5.1.2) ---- */

static struct mull_virtqueue *rx_queue(struct net *n, unsigned pair)
{
    return &n->v.queues[2 * pair];
}

static unsigned ctrl_index(const struct net *n)
{
    return mull_virtio_has(&n->v, VIRTIO_NET_F_MQ) ? 2u * n->max_pairs : 2;
}

/* A number that is the same for both directions of a flow: addresses and ports added up. */
static unsigned flow_of(const uint8_t *frame, size_t len)
{
    struct mull_net_headers h;
    uint64_t sum = 0;

    mull_net_parse(frame, (uint32_t)len, &h);
    if (h.l3)
        sum = mull_net_sum(frame + h.l3 + (h.ipv4 ? 12 : 8), h.ipv4 ? 8 : 32, sum);
    if (h.l4)
        sum = mull_net_sum(frame + h.l4, 4, sum);
    uint16_t folded = mull_net_fold(sum);
    return (folded ^ folded >> 8) % FLOWS;
}

/* Of each frame in a ring: with VIRTIO_NET_F_HASH_REPORT it has the hash behind it (5.1.6). */
static uint32_t header_size(const struct net *n)
{
    return mull_virtio_has(&n->v, VIRTIO_NET_F_HASH_REPORT) ? HASH_HDR_SIZE : HDR_SIZE;
}

/* By the driver's table (5.1.6.5.6), or else the driver reads a flow's frames where it sends the
 * flow's others (5.1.6.5.5). @header  gets the hash */
static struct mull_virtqueue *steer(struct net *n, const uint8_t *frame, size_t len,
                                    struct virtio_net_hdr_v1_hash *header)
{
    uint32_t hash;
    uint16_t report = mull_rss_hash(&n->rss, frame, (uint32_t)len, &hash);

    header->hash_value = htole32(hash);
    header->hash_report = htole16(report);
    if (n->rss.steering)
        return rx_queue(n, mull_rss_pair(&n->rss, report, hash));
    unsigned pair = n->pairs > 1 ? n->flow[flow_of(frame, len)] : 0;
    return rx_queue(n, pair < n->pairs ? pair : 0);
}

/* ---- Receiving ---- */

static bool in_table(const uint8_t table[][6], unsigned count, const uint8_t *mac)
{
    for (unsigned i = 0; i < count; i++)
        if (!memcmp(table[i], mac, 6))
            return true;
    return false;
}

static bool is_broadcast(const uint8_t *mac)
{
    static const uint8_t all[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    return !memcmp(mac, all, 6);
}

/* Does the driver want a frame for @mac? */
static bool wanted(const struct net *n, const uint8_t *mac)
{
    const struct filter *f = &n->filter;

    if (f->promisc)
        return true;
    if (is_broadcast(mac))
        return !f->nobcast;
    if (mac[0] & 1)
        return !f->nomulti && (f->allmulti || in_table(f->multicast, f->nmulticast, mac));
    if (f->nouni)
        return false;
    return f->alluni || !memcmp(mac, n->mac, 6) || in_table(f->unicast, f->nunicast, mac);
}

/* Put the frame into as many buffers as it takes and note them in n->rx[]. @return how many; 0:
 * the *seen ones are too few; negative: that many were taken, and it does not fit into them */
static int fill_buffers(struct net *n, struct mull_virtqueue *q, const uint8_t *frame, uint32_t len,
                        unsigned *seen)
{
    const uint32_t header = header_size(n);
    uint32_t done = 0, total = header + len;
    bool mergeable = mull_virtio_has(&n->v, VIRTIO_NET_F_MRG_RXBUF);
    int count = 0;

    while (done < total) {
        struct mull_chain *c = count ? &n->chain : &n->first;
        if (count == q->size)
            return -count; /* more there cannot be */
        if (!mull_virtqueue_pop(q, c)) {
            *seen = (unsigned)count;
            while (count--)
                mull_virtqueue_unpop(q);
            return 0;
        }
        n->rx[count].head = c->head;
        n->rx[count].written = 0;
        uint32_t n_bytes = c->in_len < total - done ? c->in_len : total - done;
        uint32_t skip = count ? 0 : header;
        count++;
        if (c->in_len < header || (n_bytes < total && !mergeable))
            return -count; /* no header fits, or there is no second buffer */
        if (mull_chain_write(c, skip, frame + done + skip - header, n_bytes - skip))
            return -count;
        n->rx[count - 1].written = n_bytes;
        done += n_bytes;
    }
    return count;
}

/* Give the buffers back, the header written last: only then is their number known. */
static void publish_buffers(struct net *n, struct mull_virtqueue *q,
                            const struct virtio_net_hdr_v1_hash *header, int count)
{
    struct virtio_net_hdr_v1_hash h = *header;

    h.hdr.num_buffers = htole16((uint16_t)count);
    mull_chain_write(&n->first, 0, &h, header_size(n));
    for (int i = 0; i < count; i++)
        mull_virtqueue_fill(q, (unsigned)i, n->rx[i].head, n->rx[i].written);
    mull_virtqueue_publish(q, (unsigned)count);
}

/* Put one frame into the ring. @return false: no buffers now */
static bool receive_locked(struct net *n, const uint8_t *frame, size_t len)
{
    struct virtio_net_hdr_v1_hash header = {0};

    if (n->netdev->caps.vnet_hdr) {
        if (len < HDR_SIZE)
            return true;
        memcpy(&header.hdr, frame, HDR_SIZE);
        frame += HDR_SIZE;
        len -= HDR_SIZE;
    }
    if (len < ETH_HEADER || len > MULL_NET_FRAME_MAX || !wanted(n, frame))
        return true;
    struct mull_virtqueue *q = steer(n, frame, len, &header);
    if (!mull_virtqueue_live(q))
        return n->v.paused ? false : true; /* nobody listens: frames get lost */
    for (;;) {
        unsigned seen = 0;
        int count = fill_buffers(n, q, frame, (uint32_t)len, &seen);
        if (count > 0) {
            publish_buffers(n, q, &header, count);
            return true;
        }
        if (count < 0) { /* drop the frame, not the driver's buffers */
            while (count++)
                mull_virtqueue_unpop(q);
            return true;
        }
        if (!mull_virtqueue_listen_beyond(q, seen))
            return !mull_virtqueue_live(q); /* broken meanwhile? */
        mull_virtqueue_quiet(q);
    }
}

static bool net_receive(void *opaque, const uint8_t *frame, size_t len)
{
    struct net *n = opaque;
    mull_virtio_lock(&n->v);
    bool taken = receive_locked(n, frame, len);
    mull_virtio_unlock(&n->v);
    return taken;
}

static void net_received(void *opaque)
{
    struct net *n = opaque;
    mull_virtio_lock(&n->v);
    for (unsigned i = 0; i < n->pairs; i++)
        mull_virtqueue_signal(rx_queue(n, i));
    mull_virtio_unlock(&n->v);
}

/* ---- Sending ---- */

/* Send the frame in n->chain. @return false: the back end is full */
static bool transmit(struct net *n)
{
    const struct mull_chain *c = &n->chain;
    bool header = n->netdev && n->netdev->caps.vnet_hdr;
    struct virtio_net_hdr_v1 h;
    struct iovec iov[MAX_VECTORS + 1] = {{&h, HDR_SIZE}};
    const uint32_t skip = header_size(n);

    if (!n->netdev || c->out_len < skip + ETH_HEADER || c->out_len > skip + MULL_NET_FRAME_MAX ||
        mull_chain_read(c, 0, &h, HDR_SIZE))
        return true; /* dropped */
    h.num_buffers = 0;
    uint32_t len = c->out_len - skip;
    int count = mull_chain_iov(c, false, skip, len, iov + 1, MAX_VECTORS);
    if (count < 0)
        return true;
    if (header)
        return mull_netdev_send(n->netdev, iov, count + 1, len + HDR_SIZE) != -EAGAIN;
    return mull_netdev_send(n->netdev, iov + 1, count, len) != -EAGAIN;
}

/* Remember which pair the flow of the frame in n->chain is sent by. */
static void learn(struct net *n, unsigned pair)
{
    uint8_t head[128];
    const uint32_t skip = header_size(n);
    uint32_t len = n->chain.out_len - skip;

    if (n->chain.out_len < skip + ETH_HEADER)
        return;
    len = len < sizeof(head) ? len : sizeof(head);
    if (!mull_chain_read(&n->chain, skip, head, len))
        n->flow[flow_of(head, len)] = (uint8_t)pair;
}

static void kick_tx(struct net *n, unsigned pair)
{
    struct mull_virtqueue *q = &n->v.queues[2 * pair + 1];
    bool full = false, sent = false;

    do {
        mull_virtqueue_quiet(q);
        while (!full && mull_virtqueue_pop(q, &n->chain)) {
            full = !transmit(n);
            if (full) {
                mull_virtqueue_unpop(q); /* until the back end is writable */
                break;
            }
            if (n->pairs > 1 && !n->rss.steering)
                learn(n, pair);
            sent = true;
            mull_virtqueue_push(q, n->chain.head, 0);
        }
    } while (!full && mull_virtqueue_listen(q));
    if (n->netdev && sent)
        mull_netdev_flush(n->netdev);
    mull_virtqueue_signal(q);
}

static void net_writable(void *opaque)
{
    struct net *n = opaque;
    for (unsigned i = 0; i < n->max_pairs; i++)
        mull_virtio_kick(&n->v, 2 * i + 1);
}

/* ---- Control queue (5.1.6.5) ---- */

static bool ctrl_rx(struct net *n, uint8_t command)
{
    struct filter *f = &n->filter;
    uint8_t *const flags[] = {
        [VIRTIO_NET_CTRL_RX_PROMISC] = &f->promisc, [VIRTIO_NET_CTRL_RX_ALLMULTI] = &f->allmulti,
        [VIRTIO_NET_CTRL_RX_ALLUNI] = &f->alluni,   [VIRTIO_NET_CTRL_RX_NOMULTI] = &f->nomulti,
        [VIRTIO_NET_CTRL_RX_NOUNI] = &f->nouni,     [VIRTIO_NET_CTRL_RX_NOBCAST] = &f->nobcast,
    };
    uint8_t on;

    if (command >= sizeof(flags) / sizeof(flags[0]) || mull_chain_read(&n->chain, 2, &on, 1))
        return false;
    *flags[command] = on != 0;
    return true;
}

/* One of the two tables: a count, then that many addresses. @offset moves behind it. */
static bool read_table(struct net *n, uint64_t *offset, uint8_t table[][6], uint8_t *count,
                       bool *overflow)
{
    uint32_t entries;

    if (mull_chain_read(&n->chain, *offset, &entries, sizeof(entries)))
        return false;
    entries = le32toh(entries);
    *offset += sizeof(entries);
    if (entries > (n->chain.out_len - *offset) / 6)
        return false;
    *overflow = entries > MAX_ADDRESSES;
    *count = *overflow ? 0 : (uint8_t)entries;
    if (mull_chain_read(&n->chain, *offset, table, 6ull * *count))
        return false;
    *offset += 6ull * entries;
    return true;
}

static bool ctrl_mac(struct net *n, uint8_t command)
{
    struct filter f = n->filter;
    uint64_t offset = 2;
    bool uni_overflow, multi_overflow;

    if (command == VIRTIO_NET_CTRL_MAC_ADDR_SET) {
        uint8_t mac[6];
        if (mull_chain_read(&n->chain, offset, mac, sizeof(mac)))
            return false;
        memcpy(n->mac, mac, sizeof(mac));
        memcpy(n->v.config + offsetof(struct virtio_net_config, mac), mac, sizeof(mac));
        return true;
    }
    if (command != VIRTIO_NET_CTRL_MAC_TABLE_SET ||
        !read_table(n, &offset, f.unicast, &f.nunicast, &uni_overflow) ||
        !read_table(n, &offset, f.multicast, &f.nmulticast, &multi_overflow))
        return false;
    n->filter = f;
    /* Receiving too much is allowed, too little is not. */
    n->filter.alluni |= uni_overflow;
    n->filter.allmulti |= multi_overflow;
    return true;
}

static void set_status(struct net *n)
{
    uint16_t status = htole16((n->link_up ? VIRTIO_NET_S_LINK_UP : 0) |
                              (n->announce ? VIRTIO_NET_S_ANNOUNCE : 0));
    memcpy(n->v.config + offsetof(struct virtio_net_config, status), &status, sizeof(status));
}

static bool ctrl_pairs(struct net *n)
{
    uint16_t pairs;

    if (!mull_virtio_has(&n->v, VIRTIO_NET_F_MQ) ||
        mull_chain_read(&n->chain, 2, &pairs, sizeof(pairs)))
        return false;
    pairs = le16toh(pairs);
    if (!pairs || pairs > n->max_pairs)
        return false;
    n->pairs = pairs;
    n->rss.steering = false; /* the last command counts (5.1.6.5.5) */
    return true;
}

/* VIRTIO_NET_CTRL_MQ: how frames find their queue. */
static bool ctrl_mq(struct net *n, uint8_t command)
{
    uint8_t body[MULL_RSS_COMMAND_MAX];
    uint32_t len = n->chain.out_len - 2;

    if (command == VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET)
        return ctrl_pairs(n);
    if (len > sizeof(body) || mull_chain_read(&n->chain, 2, body, len))
        return false;
    if (command == VIRTIO_NET_CTRL_MQ_RSS_CONFIG)
        return mull_virtio_has(&n->v, VIRTIO_NET_F_RSS) &&
               mull_rss_configure(&n->rss, body, len, n->max_pairs, &n->pairs);
    return command == VIRTIO_NET_CTRL_MQ_HASH_CONFIG &&
           mull_virtio_has(&n->v, VIRTIO_NET_F_HASH_REPORT) &&
           mull_rss_configure_hash(&n->rss, body, len);
}

static bool control(struct net *n)
{
    uint8_t header[2]; /* class, command */

    if (mull_chain_read(&n->chain, 0, header, sizeof(header)))
        return false;
    switch (header[0]) {
    case VIRTIO_NET_CTRL_RX:
        return ctrl_rx(n, header[1]);
    case VIRTIO_NET_CTRL_MAC:
        return ctrl_mac(n, header[1]);
    case VIRTIO_NET_CTRL_MQ:
        return ctrl_mq(n, header[1]);
    case VIRTIO_NET_CTRL_ANNOUNCE:
        if (header[1] != VIRTIO_NET_CTRL_ANNOUNCE_ACK)
            return false;
        n->announce = 0;
        set_status(n);
        return true;
    default:
        return false;
    }
}

static void kick_ctrl(struct net *n)
{
    struct mull_virtqueue *q = &n->v.queues[ctrl_index(n)];

    do {
        mull_virtqueue_quiet(q);
        while (mull_virtqueue_pop(q, &n->chain)) {
            uint8_t ack = control(n) ? VIRTIO_NET_OK : VIRTIO_NET_ERR;
            bool told = !mull_chain_write(&n->chain, 0, &ack, 1);
            mull_virtqueue_push(q, n->chain.head, told);
        }
        mull_virtqueue_signal(q);
    } while (mull_virtqueue_listen(q));
}

/* ---- The device ---- */

static void net_kick(struct mull_virtio *v, unsigned queue)
{
    struct net *n = (struct net *)v;

    if (queue == ctrl_index(n)) {
        kick_ctrl(n);
    } else if (queue > ctrl_index(n)) {
        return; /* what a driver without VIRTIO_NET_F_MQ does not know of */
    } else if (queue & 1) {
        kick_tx(n, queue / 2);
    } else if (n->netdev) {
        mull_virtqueue_quiet(&v->queues[queue]);
        mull_netdev_resume(n->netdev);
    }
}

static void net_start(struct mull_virtio *v)
{
    struct net *n = (struct net *)v;
    if (n->netdev)
        mull_netdev_set_offloads(n->netdev, v->driver_features);
}

static void net_link(void *opaque, bool up)
{
    struct net *n = opaque;
    mull_virtio_lock(&n->v);
    n->link_up = up;
    set_status(n);
    mull_virtio_config_changed(&n->v);
    mull_virtio_unlock(&n->v);
}

static void net_reset(struct mull_virtio *v)
{
    struct net *n = (struct net *)v;
    struct virtio_net_config c = {0};

    memset(&n->filter, 0, sizeof(n->filter));
    n->filter.promisc = 1; /* a driver without the control queue gets everything */
    n->announce = 0;
    n->pairs = 1;
    memset(n->flow, 0, sizeof(n->flow));
    memset(&n->rss, 0, sizeof(n->rss));
    memcpy(n->mac, n->permanent_mac, sizeof(n->mac));
    memcpy(c.mac, n->mac, sizeof(c.mac));
    c.max_virtqueue_pairs = htole16(n->max_pairs);
    c.mtu = htole16(n->mtu);
    c.speed = htole32(~0u); /* unknown, and not offered: what lies in front of what is */
    c.duplex = 0xff;
    c.rss_max_key_size = MULL_RSS_KEY;
    c.rss_max_indirection_table_length = htole16(MULL_RSS_TABLE);
    c.supported_hash_types = htole32(MULL_RSS_TYPES);
    v->config_size = n->max_pairs > 1 ? sizeof(c) : offsetof(struct virtio_net_config, speed);
    memcpy(v->config, &c, v->config_size);
    set_status(n);
}

static const struct mull_virtio_ops net_virtio_ops = {
    .kick = net_kick, .start = net_start, .reset = net_reset};

/* A restored or moved guest tells the network where it is now (5.1.6.5.4). */
static void net_resume(struct mull_device *device)
{
    struct net *n = (struct net *)device;

    mull_virtio_lock(&n->v);
    bool ask = n->announce_due && mull_virtio_has(&n->v, VIRTIO_NET_F_GUEST_ANNOUNCE);
    bool started = n->v.started;
    n->announce_due = false;
    if (ask) {
        n->announce = 1;
        set_status(n);
        mull_virtio_config_changed(&n->v);
    }
    mull_virtio_unlock(&n->v);
    if (started)
        net_start(&n->v);
    mull_virtio_device_resume(device);
    if (n->netdev)
        mull_netdev_resume(n->netdev);
}

static void net_destroy(struct mull_device *device)
{
    struct net *n = (struct net *)device;
    if (n->netdev)
        mull_netdev_attach(n->netdev, NULL);
    mull_virtio_fini(&n->v);
    free(n);
}

static int filter_loaded(void *object, uint32_t version, struct mull_error *err)
{
    struct filter *f = object;
    if (f->nunicast > MAX_ADDRESSES || f->nmulticast > MAX_ADDRESSES)
        return mull_fail(err, EINVAL,
                         "virtio-net: saved filter with %u and %u addresses; at most "
                         "%d are valid",
                         f->nunicast, f->nmulticast, MAX_ADDRESSES);
    return 0;
}

static int net_loaded(void *object, uint32_t version, struct mull_error *err)
{
    struct net *n = object;
    if (version < 2)
        n->pairs = 1;
    if (version < 3)
        memset(&n->rss, 0, sizeof(n->rss));
    if (!n->pairs || n->pairs > n->max_pairs || !mull_rss_fits(&n->rss, n->max_pairs))
        return mull_fail(err, ENOTSUP,
                         "virtio-net: the saved machine uses %u queue pairs; this one has %u",
                         n->pairs, n->max_pairs);
    memcpy(n->v.config + offsetof(struct virtio_net_config, mac), n->mac, sizeof(n->mac));
    set_status(n);
    n->announce_due = true;
    return 0;
}

static const struct mull_state_desc filter_desc = {
    .name = "virtio-net-filter",
    .version = 1,
    .oldest = 1,
    .fields =
        (const struct mull_field[]){
            MULL_FIELD(struct filter, promisc), MULL_FIELD(struct filter, allmulti),
            MULL_FIELD(struct filter, alluni), MULL_FIELD(struct filter, nomulti),
            MULL_FIELD(struct filter, nouni), MULL_FIELD(struct filter, nobcast),
            MULL_FIELD(struct filter, nunicast), MULL_FIELD(struct filter, nmulticast),
            MULL_FIELD_BLOB(struct filter, unicast), MULL_FIELD_BLOB(struct filter, multicast),
            MULL_FIELDS_END},
    .after_load = filter_loaded,
};

static const struct mull_field net_fields[] = {
    MULL_FIELD_NESTED(struct net, v, &mull_virtio_desc),
    MULL_FIELD_BLOB(struct net, mac),
    MULL_FIELD(struct net, announce),
    MULL_FIELD_NESTED(struct net, filter, &filter_desc),
    MULL_FIELD_SINCE(2, struct net, pairs),
    {.name = "rss",
     .kind = MULL_FIELD_STRUCT,
     .offset = offsetof(struct net, rss),
     .size = sizeof(struct mull_rss),
     .count = 1,
     .since = 3,
     .nested = &mull_rss_desc},
    MULL_FIELDS_END,
};
static const struct mull_state_desc net_desc = {
    .name = "virtio-net",
    .version = 3,
    .oldest = 1,
    .fields = net_fields,
    .after_load = net_loaded,
};

static const struct mull_device_ops net_ops = {
    .state = &net_desc,
    .reset = mull_virtio_device_reset,
    .quiesce = mull_virtio_device_quiesce,
    .resume = net_resume,
    .destroy = net_destroy,
};

static uint64_t net_features(const struct net *n)
{
    uint64_t f = MULL_BIT(VIRTIO_NET_F_MAC) | MULL_BIT(VIRTIO_NET_F_STATUS) |
                 MULL_BIT(VIRTIO_NET_F_MRG_RXBUF) | MULL_BIT(VIRTIO_NET_F_CTRL_VQ) |
                 MULL_BIT(VIRTIO_NET_F_CTRL_RX) | MULL_BIT(VIRTIO_NET_F_CTRL_RX_EXTRA) |
                 MULL_BIT(VIRTIO_NET_F_CTRL_MAC_ADDR) | MULL_BIT(VIRTIO_NET_F_GUEST_ANNOUNCE);

    if (n->max_pairs > 1)
        f |= MULL_BIT(VIRTIO_NET_F_MQ) | MULL_BIT(VIRTIO_NET_F_RSS) |
             MULL_BIT(VIRTIO_NET_F_HASH_REPORT);
    if (n->mtu)
        f |= MULL_BIT(VIRTIO_NET_F_MTU);
    if (n->netdev && n->netdev->caps.vnet_hdr)
        f |= MULL_BIT(VIRTIO_NET_F_CSUM) | MULL_BIT(VIRTIO_NET_F_GUEST_CSUM) |
             MULL_BIT(VIRTIO_NET_F_HOST_TSO4) | MULL_BIT(VIRTIO_NET_F_HOST_TSO6) |
             MULL_BIT(VIRTIO_NET_F_HOST_ECN) | MULL_BIT(VIRTIO_NET_F_GUEST_TSO4) |
             MULL_BIT(VIRTIO_NET_F_GUEST_TSO6) | MULL_BIT(VIRTIO_NET_F_GUEST_ECN);
    return f;
}

int mull_virtio_net_create(const struct mull_device_env *env, struct mull_pci_bus *bus,
                           const struct mull_nic_config *cfg, struct mull_device **out,
                           struct mull_error *err)
{
    if ((cfg->mac[0] & 1) || !memcmp(cfg->mac, (const uint8_t[6]){0}, 6))
        return mull_fail(err, EINVAL, "%s: the MAC address must be a unicast one", cfg->name);
    if (cfg->mtu && cfg->mtu < 68)
        return mull_fail(err, EINVAL, "%s: MTU %u; it must be at least 68", cfg->name, cfg->mtu);
    struct net *n = calloc(1, sizeof(*n));
    if (!n)
        return mull_fail(err, ENOMEM, "%s: out of memory", cfg->name);
    n->netdev = cfg->netdev;
    n->link_up = cfg->netdev;
    n->mtu = cfg->mtu;
    n->max_pairs = cfg->queue_pairs ? cfg->queue_pairs : 1;
    if (n->max_pairs > MAX_PAIRS)
        n->max_pairs = MAX_PAIRS;
    memcpy(n->permanent_mac, cfg->mac, sizeof(n->permanent_mac));
    n->v.device.ops = &net_ops;

    int rc = mull_virtio_init(&n->v, env, cfg->name, VIRTIO_ID_NET, net_features(n),
                              &net_virtio_ops, err);
    if (!rc) {
        for (unsigned i = 0; i < 2u * n->max_pairs; i++)
            mull_virtio_add_queue(&n->v, QUEUE_SIZE);
        mull_virtio_add_queue(&n->v, CTRL_QUEUE_SIZE);
        net_reset(&n->v);
        n->v.rom = cfg->rom;
        n->v.rom_size = cfg->rom_size;
        rc = mull_virtio_pci_attach(&n->v, bus, cfg->devfn, PCI_CLASS_ETHERNET, err);
    }
    if (rc) {
        net_destroy(&n->v.device);
        return rc;
    }
    if (n->netdev) {
        const struct mull_netdev_frontend frontend = {.opaque = n,
                                                      .receive = net_receive,
                                                      .received = net_received,
                                                      .writable = net_writable,
                                                      .link = net_link};
        mull_netdev_attach(n->netdev, &frontend);
    }
    *out = &n->v.device;
    return 0;
}
