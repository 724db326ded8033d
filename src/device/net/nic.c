/*
 * The common part of network cards. See nic.h.
 */
#include "device/net/nic.h"

#include <errno.h>
#include <linux/virtio_net.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HDR MULL_NET_HDR_SIZE
#define FRAME_ROOM (HDR + MULL_NET_FRAME_MAX)
#define FRAME_MIN 60     /* without the checksum */
/* How long to wait for a driver that refills without telling. */
#define RETRY_NS 1000000
#define RETRY_MAX_NS 128000000
#define TCP_FLAGS 13     /* offset in the header */
#define TCP_CWR 0x80

_Static_assert(sizeof(struct virtio_net_hdr_v1) == HDR, "virtio 1.2, 5.1.6");

/* ---- Work for the loop ---- */

static void run_work(void *opaque)
{
    struct mull_nic *nic = opaque;

    pthread_mutex_lock(&nic->lock);
    nic->posted = false;
    bool look = !nic->paused && nic->starved;
    nic->starved = nic->starved && !look;
    if (!nic->paused)
        nic->ops->work(nic);
    pthread_mutex_unlock(&nic->lock);
    if (look && nic->netdev)
        mull_netdev_resume(nic->netdev);
}

void mull_nic_post(struct mull_nic *nic)
{
    if (!nic->posted && !mull_loop_post(nic->env.loop, run_work, nic))
        nic->posted = true;
}

void mull_nic_refilled(struct mull_nic *nic)
{
    if (nic->starved)
        mull_nic_post(nic);
}

/* ---- Sending ---- */

static int hand_on(struct mull_nic *nic, uint8_t *data, uint32_t len)
{
    const struct iovec iov = {data, len};
    return mull_netdev_send(nic->netdev, &iov, 1, len);
}

/* Sums that no back end does for us. The second one may be left to a virtio-net header. */
static void insert_sums(uint8_t *frame, uint32_t len, const struct mull_nic_offload *o, bool both)
{
    if (o->ip_sum && o->ip_at + 2 <= len && o->ip_at >= o->ip_start) {
        memset(frame + o->ip_at, 0, 2);
        mull_net_insert_sum(frame, len, o->ip_start, o->ip_end ? o->ip_end : len, o->ip_at);
    }
    if (o->sum && both)
        mull_net_insert_sum(frame, len, o->sum_start, o->sum_end ? o->sum_end : len, o->sum_at);
}

/* A TCP packet to segment: is it one? */
static bool prepare_segments(uint8_t *frame, uint32_t len, uint32_t mss, struct mull_net_headers *h)
{
    mull_net_parse(frame, len, h);
    if (h->protocol != IPPROTO_TCP || mss < 8 || h->payload > MULL_NET_FRAME_MAX / 2)
        return false;
    mull_net_prepare_tcp(frame, len, h);
    return true;
}

static bool send_with_header(struct mull_nic *nic, uint32_t len, const struct mull_nic_offload *o)
{
    uint8_t *frame = nic->out + HDR;
    struct virtio_net_hdr_v1 v = {0};
    struct mull_net_headers h;

    if (o->mss) {
        if (!prepare_segments(frame, len, o->mss, &h))
            return true;
        v.gso_type = h.ipv4 ? VIRTIO_NET_HDR_GSO_TCPV4 : VIRTIO_NET_HDR_GSO_TCPV6;
        if (frame[h.l4 + TCP_FLAGS] & TCP_CWR)
            v.gso_type |= VIRTIO_NET_HDR_GSO_ECN;
        v.gso_size = (uint16_t)o->mss;
        v.hdr_len = h.payload;
        v.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
        v.csum_start = h.l4;
        v.csum_offset = 16;
        if (len - h.payload <= o->mss)
            v.gso_type = VIRTIO_NET_HDR_GSO_NONE;
    } else {
        bool partial = o->sum && o->sum_start < o->sum_at && o->sum_at + 2 <= len &&
                       (!o->sum_end || o->sum_end >= len);
        insert_sums(frame, len, o, !partial);
        if (partial) {
            v.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
            v.csum_start = (uint16_t)o->sum_start;
            v.csum_offset = (uint16_t)(o->sum_at - o->sum_start);
        }
    }
    memcpy(nic->out, &v, HDR);
    return hand_on(nic, nic->out, HDR + len) != -EAGAIN;
}

/* A back end that takes any IP packet (a proxy of TCP) gets the whole one. */
static bool send_plain(struct mull_nic *nic, uint32_t len, const struct mull_nic_offload *o)
{
    uint8_t *frame = nic->out + HDR;
    struct mull_net_headers h;
    uint32_t mss = o->mss, size;

    if (!mss) {
        insert_sums(frame, len, o, true);
        return hand_on(nic, frame, len) != -EAGAIN;
    }
    if (!prepare_segments(frame, len, mss, &h))
        return true;
    if (nic->netdev->caps.mtu && len - h.l3 <= nic->netdev->caps.mtu)
        mss = len; /* one is enough */
    for (uint32_t all = mull_net_segments(len, &h, mss); nic->sent < all; nic->sent++) {
        size = mull_net_segment(frame, len, &h, mss, nic->sent, nic->segment);
        if (hand_on(nic, nic->segment, size) == -EAGAIN)
            return false;
    }
    nic->sent = 0;
    return true;
}

bool mull_nic_send(struct mull_nic *nic, uint32_t len, const struct mull_nic_offload *offload)
{
    if (!nic->netdev || !nic->link_up || len < MULL_ETH_HEADER || len > MULL_NET_FRAME_MAX) {
        nic->sent = 0;
        return true;
    }
    if (nic->netdev->caps.vnet_hdr)
        return send_with_header(nic, len, offload);
    return send_plain(nic, len, offload);
}

void mull_nic_flush(struct mull_nic *nic)
{
    if (nic->netdev)
        mull_netdev_flush(nic->netdev);
}

void mull_nic_set_lro(struct mull_nic *nic, bool on)
{
    /* Sums that are not made yet we make here, which costs less than what the sender would. */
    uint64_t features = 1ull << VIRTIO_NET_F_GUEST_CSUM;

    if (on)
        features |= 1ull << VIRTIO_NET_F_GUEST_TSO4 | 1ull << VIRTIO_NET_F_GUEST_TSO6 |
                    1ull << VIRTIO_NET_F_GUEST_ECN;
    if (nic->netdev)
        mull_netdev_set_offloads(nic->netdev, features);
}

/* ---- Receiving ---- */

static bool describe(struct mull_nic *nic, const uint8_t *frame, size_t len,
                     struct mull_nic_frame *f)
{
    struct virtio_net_hdr_v1 v = {0};

    if (nic->netdev->caps.vnet_hdr) {
        if (len < HDR)
            return false;
        memcpy(&v, frame, HDR);
        frame += HDR;
        len -= HDR;
    }
    if (len < MULL_ETH_HEADER || len > MULL_NET_FRAME_MAX)
        return false;
    *f = (struct mull_nic_frame){.data = nic->in, .len = (uint32_t)len};
    memcpy(f->data, frame, len);
    if (f->len < FRAME_MIN) { /* what a wire would have done */
        memset(f->data + f->len, 0, FRAME_MIN - f->len);
        f->len = FRAME_MIN;
    }
    if (v.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM)
        mull_net_insert_sum(f->data, f->len, v.csum_start, f->len,
                            (uint32_t)v.csum_start + v.csum_offset);
    mull_net_parse(f->data, f->len, &f->headers);
    f->ip_good = mull_net_ip_sum_good(f->data, &f->headers);
    f->l4_good = v.flags & (VIRTIO_NET_HDR_F_NEEDS_CSUM | VIRTIO_NET_HDR_F_DATA_VALID)
                     ? f->headers.l4 != 0
                     : mull_net_l4_sum_good(f->data, &f->headers);
    uint8_t gso = v.gso_type & (uint8_t)~VIRTIO_NET_HDR_GSO_ECN;
    if (gso == VIRTIO_NET_HDR_GSO_TCPV4 || gso == VIRTIO_NET_HDR_GSO_TCPV6)
        f->mss = v.gso_size;
    return true;
}

static bool nic_receive(void *opaque, const uint8_t *frame, size_t len)
{
    struct mull_nic *nic = opaque;
    struct mull_nic_frame f;
    bool taken = true;

    pthread_mutex_lock(&nic->lock);
    if (nic->paused)
        taken = false;
    else if (describe(nic, frame, len, &f))
        taken = nic->ops->receive(nic, &f);
    if (!taken) {
        nic->starved = true;
        mull_timer_arm(nic->retry, mull_now_ns() + nic->wait);
        nic->wait = nic->wait < RETRY_MAX_NS ? 2 * nic->wait : nic->wait;
    } else {
        nic->wait = RETRY_NS;
    }
    pthread_mutex_unlock(&nic->lock);
    return taken;
}

static void nic_received(void *opaque)
{
    struct mull_nic *nic = opaque;

    pthread_mutex_lock(&nic->lock);
    nic->ops->received(nic);
    pthread_mutex_unlock(&nic->lock);
}

static void nic_writable(void *opaque)
{
    run_work(opaque);
}

static void nic_link(void *opaque, bool up)
{
    struct mull_nic *nic = opaque;

    pthread_mutex_lock(&nic->lock);
    nic->link_up = up;
    nic->ops->link(nic);
    pthread_mutex_unlock(&nic->lock);
}

/* ---- Life ---- */

void mull_nic_quiesce(struct mull_device *device)
{
    struct mull_nic *nic = (struct mull_nic *)device;

    pthread_mutex_lock(&nic->lock);
    nic->paused = true;
    nic->sent = 0; /* whoever goes on sends a packet in hand anew */
    pthread_mutex_unlock(&nic->lock);
}

void mull_nic_resume(struct mull_device *device)
{
    struct mull_nic *nic = (struct mull_nic *)device;

    pthread_mutex_lock(&nic->lock);
    nic->paused = false;
    nic->starved = true; /* what came meanwhile waits */
    mull_nic_post(nic);
    pthread_mutex_unlock(&nic->lock);
}

int mull_nic_init(struct mull_nic *nic, const struct mull_device_env *env,
                  const struct mull_nic_config *cfg, const struct mull_device_ops *device_ops,
                  const struct mull_nic_ops *ops, struct mull_error *err)
{
    pthread_mutex_init(&nic->lock, NULL);
    nic->device.ops = device_ops;
    nic->device.object = nic;
    snprintf(nic->device.name, sizeof(nic->device.name), "%s", cfg->name);
    nic->ops = ops;
    nic->env = *env;
    nic->netdev = cfg->netdev;
    nic->wait = RETRY_NS;
    nic->link_up = cfg->netdev;
    memcpy(nic->permanent_mac, cfg->mac, sizeof(nic->permanent_mac));
    if ((cfg->mac[0] & 1) || !memcmp(cfg->mac, (const uint8_t[6]){0}, 6))
        return mull_fail(err, EINVAL, "%s: the MAC address must be a unicast one", cfg->name);
    nic->out = malloc(FRAME_ROOM);
    nic->in = malloc(FRAME_ROOM);
    nic->segment = malloc(FRAME_ROOM);
    nic->retry = mull_timer_create(env->loop, run_work, nic);
    if (!nic->out || !nic->in || !nic->segment || !nic->retry)
        return mull_fail(err, ENOMEM, "%s: out of memory", cfg->name);
    return 0;
}

int mull_nic_attach(struct mull_nic *nic, struct mull_pci_bus *bus,
                    const struct mull_nic_config *cfg, struct mull_error *err)
{
    int ret = 0;

    if (cfg->rom)
        ret = mull_pci_add_rom(&nic->pci, cfg->rom, cfg->rom_size, nic->env.memory, err);
    if (!ret)
        ret = mull_pci_bus_attach(bus, &nic->pci, cfg->devfn, err);
    if (ret || !nic->netdev)
        return ret;
    const struct mull_netdev_frontend frontend = {.opaque = nic,
                                                  .receive = nic_receive,
                                                  .received = nic_received,
                                                  .writable = nic_writable,
                                                  .link = nic_link};
    mull_netdev_attach(nic->netdev, &frontend);
    mull_nic_set_lro(nic, false);
    return 0;
}

void mull_nic_fini(struct mull_nic *nic)
{
    if (nic->netdev)
        mull_netdev_attach(nic->netdev, NULL);
    mull_pci_function_fini(&nic->pci);
    mull_timer_destroy(nic->retry);
    pthread_mutex_destroy(&nic->lock);
    free(nic->out);
    free(nic->in);
    free(nic->segment);
}
