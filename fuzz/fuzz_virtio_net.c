/* Fuzzes the virtio NIC over a network whose frames come when the fuzzer says. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz_virtio.h"

struct network {
    struct mull_netdev netdev;
    struct mull_netdev_frontend front;
    bool full;
    uint8_t sum;
};

static int net_send(struct mull_netdev *netdev, const struct iovec *iov, int niov, size_t len)
{
    struct network *n = (struct network *)netdev;
    size_t total = 0;

    if (n->full)
        return -EAGAIN;
    for (int i = 0; i < niov; i++) {
        for (size_t j = 0; j < iov[i].iov_len; j += 64)
            n->sum ^= ((const uint8_t *)iov[i].iov_base)[j];
        total += iov[i].iov_len;
    }
    if (total != len || len > MULL_NET_HDR_SIZE + MULL_NET_FRAME_MAX)
        abort();
    return 0;
}

static void net_attach(struct mull_netdev *netdev, const struct mull_netdev_frontend *front)
{
    ((struct network *)netdev)->front = front ? *front : (struct mull_netdev_frontend){0};
}

static void net_resume(struct mull_netdev *netdev) {}

static void event(struct fuzz_guest *g, uint32_t arg)
{
    static uint8_t frame[MULL_NET_HDR_SIZE + MULL_NET_FRAME_MAX + 8];
    struct network *n = g->opaque;

    switch (arg % 8) {
    case 0:
        n->full = true;
        return;
    case 1:
        n->full = false;
        n->front.writable(n->front.opaque);
        return;
    case 2:
        n->front.link(n->front.opaque, arg & 8);
        return;
    default:
        memset(frame, (int)(arg >> 24), 64);
        if (arg & 8) { /* an IPv4 packet, or one of IPv6 */
            uint8_t *f = frame + (n->netdev.caps.vnet_hdr ? MULL_NET_HDR_SIZE : 0);
            memcpy(f + 12, arg & 0x10 ? "\x86\xdd\x60" : "\x08\x00\x45", 3);
            f[arg & 0x10 ? 20 : 23] = arg & 0x20 ? 6 : 17;
        }
        n->front.receive(n->front.opaque, frame, (arg >> 4) % sizeof(frame));
        n->front.received(n->front.opaque);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct mull_netdev_ops ops = {
        .send = net_send, .attach = net_attach, .resume = net_resume};
    struct network n = {.netdev = {.ops = &ops}};
    struct fuzz_guest g;

    n.netdev.caps.vnet_hdr = size && data[0] & 0x40;
    const struct mull_nic_config cfg = {.name = "virtio-net.0",
                                        .devfn = -1,
                                        .netdev = &n.netdev,
                                        .mac = {2, 0, 0, 0, 0, 1},
                                        .queue_pairs = size > 3 && !(data[3] & 0x20) ? 3 : 1};
    fuzz_guest_init(&g);
    if (mull_virtio_net_create(&g.env, g.bus, &cfg, &g.device, NULL))
        abort();
    g.queues = cfg.queue_pairs * 2u + 1;
    g.event = event;
    g.opaque = &n;
    fuzz_guest_run(&g, data, size);
    fuzz_guest_fini(&g);
    return 0;
}
