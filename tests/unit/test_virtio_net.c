/* The virtio NIC in front of a network of our own, driven as a guest's driver would. */
#include "virtio_driver.h"

#include <errno.h>
#include <linux/virtio_net.h>

#define ALL (~0ull)
#define HASH_REPORT (1ull << VIRTIO_NET_F_HASH_REPORT)
enum { RX, TX, CTRL };
#define BUFFER(i) (DRV_DATA + 0x1000u * (i))

struct net {
    struct drv drv; /* must be first */
    struct mull_netdev netdev;
    struct mull_netdev_frontend front;
    unsigned sent, flushes, resumes;
    bool full;
    uint64_t offloads;
    uint8_t last[70000];
    size_t last_len;
};

static struct net *of(struct mull_netdev *netdev)
{
    return (struct net *)((char *)netdev - offsetof(struct net, netdev));
}

static int net_send(struct mull_netdev *netdev, const struct iovec *iov, int niov, size_t len)
{
    struct net *n = of(netdev);
    if (n->full)
        return -EAGAIN;
    n->last_len = 0;
    for (int i = 0; i < niov; i++) {
        memcpy(n->last + n->last_len, iov[i].iov_base, iov[i].iov_len);
        n->last_len += iov[i].iov_len;
    }
    assert_int_equal(n->last_len, len);
    n->sent++;
    return 0;
}

static void net_flush(struct mull_netdev *netdev)
{
    of(netdev)->flushes++;
}

static void net_attach(struct mull_netdev *netdev, const struct mull_netdev_frontend *front)
{
    of(netdev)->front = front ? *front : (struct mull_netdev_frontend){0};
}

static void net_resume(struct mull_netdev *netdev)
{
    of(netdev)->resumes++;
}

static void net_offloads(struct mull_netdev *netdev, uint64_t features)
{
    of(netdev)->offloads = features;
}

static const struct mull_netdev_ops netdev_ops = {.send = net_send,
                                                  .flush = net_flush,
                                                  .attach = net_attach,
                                                  .resume = net_resume,
                                                  .set_offloads = net_offloads};

static const uint8_t mac[6] = {0x52, 0x54, 0, 0x12, 0x34, 0x56};

static int setup_pairs(void **state, bool vnet_hdr, uint16_t pairs)
{
    struct net *n = calloc(1, sizeof(*n));
    struct mull_error err = {0};
    drv_init(&n->drv);
    n->netdev.ops = &netdev_ops;
    n->netdev.caps.vnet_hdr = vnet_hdr;
    struct mull_nic_config cfg = {.name = "virtio-net.0",
                                  .devfn = -1,
                                  .netdev = &n->netdev,
                                  .mtu = 9000,
                                  .queue_pairs = pairs};
    assert_int_equal(mull_virtio_net_create(&n->drv.env, n->drv.bus, &cfg, &n->drv.device, &err),
                     -EINVAL); /* no MAC address */
    memcpy(cfg.mac, mac, 6);
    assert_int_equal(mull_virtio_net_create(&n->drv.env, n->drv.bus, &cfg, &n->drv.device, &err),
                     0);
    drv_find(&n->drv);
    *state = n;
    return 0;
}

static int setup(void **state)
{
    return setup_pairs(state, false, 1);
}

static int setup_mq(void **state)
{
    return setup_pairs(state, false, 3);
}

static int setup_vnet(void **state)
{
    return setup_pairs(state, true, 1);
}

static int teardown(void **state)
{
    drv_fini(*state);
    free(*state);
    return 0;
}

static void give_buffers(struct net *n, unsigned count, uint32_t size)
{
    for (unsigned i = 0; i < count; i++) {
        const struct drv_seg seg = {BUFFER(i), size, true};
        drv_add(&n->drv, RX, &seg, 1);
    }
}

/* A frame for @to, numbered bytes after the addresses. */
static bool arrive(struct net *n, const uint8_t *to, size_t len)
{
    static uint8_t frame[70000];
    memcpy(frame, to, 6);
    for (size_t i = 6; i < len; i++)
        frame[i] = (uint8_t)i;
    bool taken = n->front.receive(n->front.opaque, frame, len);
    n->front.received(n->front.opaque);
    return taken;
}

static void test_config(void **state)
{
    struct net *n = *state;
    struct drv *d = &n->drv;
    assert_int_equal(drv_config_read(d, 2, 2), 0x1041);
    for (unsigned i = 0; i < 6; i++)
        assert_int_equal(drv_read(d, d->config + i, 1), mac[i]);
    assert_int_equal(drv_read(d, d->config + 6, 2), VIRTIO_NET_S_LINK_UP);
    assert_int_equal(drv_read(d, d->config + 10, 2), 9000);
    assert_int_equal(drv_common_read(d, num_queues), 3);
    assert_false(drv_offered(d) & (1u << VIRTIO_NET_F_CSUM | 1u << VIRTIO_NET_F_GUEST_TSO4));
    drv_start(d, ALL, 3, 16);
    n->front.link(n->front.opaque, false);
    assert_int_equal(drv_read(d, d->config + 6, 2), 0);
    assert_int_equal(d->messages[0], 1);
}

static void test_transmit(void **state)
{
    struct net *n = *state;
    struct drv *d = &n->drv;
    const struct drv_seg segs[3] = {
        {BUFFER(0), 20, false}, {BUFFER(1), 0x1000, false}, {BUFFER(3), 100, false}};
    uint32_t id, len;
    drv_start(d, ALL, 3, 16);
    assert_int_equal(n->offloads, d->features);
    mull_mem_set(d->memory, BUFFER(0), 1, 0x4000);
    drv_add(d, TX, segs, 3);
    drv_add_indirect(d, TX, BUFFER(8), segs, 2);
    drv_kick(d, TX);
    assert_int_equal(n->sent, 2);
    assert_int_equal(n->flushes, 1);
    assert_int_equal(n->last_len, 8 + 0x1000);
    assert_true(drv_used(d, TX, &id, &len));
    assert_int_equal(len, 0);
    assert_true(drv_used(d, TX, &id, &len));
    /* Too short, too long and unreadable ones are dropped, without harm. */
    const struct drv_seg bad[4] = {{BUFFER(0), 12 + 13, false},
                                   {0, 12 + MULL_NET_FRAME_MAX + 1, false},
                                   {DRV_RAM - 20, 40, false},
                                   {BUFFER(0), 100, true}};
    for (unsigned i = 0; i < 4; i++) {
        drv_add(d, TX, &bad[i], 1);
        drv_kick(d, TX);
        assert_true(drv_used(d, TX, &id, &len));
    }
    assert_int_equal(n->sent, 2);
    drv_assert_fine(d);
}

static void test_transmit_back_pressure(void **state)
{
    struct net *n = *state;
    struct drv *d = &n->drv;
    const struct drv_seg seg = {BUFFER(0), 112, false};
    uint32_t id, len;
    drv_start(d, ALL, 3, 16);
    n->full = true;
    for (unsigned i = 0; i < 4; i++)
        drv_add(d, TX, &seg, 1);
    drv_kick(d, TX);
    assert_false(drv_used(d, TX, &id, &len));
    n->full = false;
    n->front.writable(n->front.opaque);
    drv_turn(d);
    assert_int_equal(n->sent, 4);
    for (unsigned i = 0; i < 4; i++)
        assert_true(drv_used(d, TX, &id, &len));
    /* And a reset while it waits. */
    n->full = true;
    drv_add(d, TX, &seg, 1);
    drv_kick(d, TX);
    drv_common_write(d, device_status, 0);
    assert_int_equal(drv_common_read(d, device_status), 0);
    n->full = false;
    n->front.writable(n->front.opaque);
    drv_turn(d);
    assert_int_equal(n->sent, 4);
}

static void test_receive(void **state)
{
    struct net *n = *state;
    struct drv *d = &n->drv;
    struct virtio_net_hdr_v1 header;
    uint32_t id, len;
    assert_true(arrive(n, mac, 60)); /* nobody listens yet */
    drv_start(d, ALL, 3, 16);
    give_buffers(n, 2, 1526);
    assert_true(arrive(n, mac, 1000));
    assert_true(drv_used(d, RX, &id, &len));
    assert_int_equal(len, 1012);
    mull_mem_read(d->memory, BUFFER(0), &header, sizeof(header));
    assert_int_equal(header.num_buffers, 1);
    assert_int_equal(header.flags, 0);
    assert_int_equal(drv_peek8(d, BUFFER(0) + 12), mac[0]);
    assert_int_equal(drv_peek8(d, BUFFER(0) + 1011), (uint8_t)999);
    assert_int_equal(d->messages[1], 1);
    assert_true(arrive(n, mac, 60));
    assert_false(arrive(n, mac, 60)); /* no buffer: the back end keeps it */
    unsigned resumes = n->resumes;
    give_buffers(n, 1, 1526);
    drv_kick(d, RX);
    assert_true(n->resumes > resumes);
    assert_true(arrive(n, mac, 60));
    /* Nonsense from the back end. */
    give_buffers(n, 1, 1526);
    assert_true(arrive(n, mac, 13));
    assert_true(arrive(n, mac, MULL_NET_FRAME_MAX + 1));
    drv_used(d, RX, &id, &len);
    drv_used(d, RX, &id, &len);
    assert_false(drv_used(d, RX, &id, &len));
}

static void test_receive_into_many_buffers(void **state)
{
    struct net *n = *state;
    struct drv *d = &n->drv;
    uint32_t id, len, total = 0;
    drv_start(d, ALL, 3, 64);
    give_buffers(n, 16, 0x1000);
    assert_false(arrive(n, mac, MULL_NET_FRAME_MAX)); /* one too few, and none is lost */
    assert_false(drv_used(d, RX, &id, &len));
    const struct drv_seg more[2] = {{BUFFER(16), 0x1000, true}, {BUFFER(17), 0x1000, true}};
    drv_add(d, RX, &more[0], 1);
    drv_add(d, RX, &more[1], 1);
    assert_true(arrive(n, mac, 65536));
    for (unsigned i = 0; i < 17; i++) {
        assert_true(drv_used(d, RX, &id, &len));
        assert_int_equal(id, i);
        total += len;
    }
    assert_int_equal(total, 65548);
    assert_int_equal(drv_peek16(d, BUFFER(0) + 10), 17);
    assert_int_equal(drv_peek8(d, BUFFER(1)), (uint8_t)(0x1000 - 12));
    assert_int_equal(drv_peek8(d, BUFFER(16) + 11), 0xff);
    assert_true(arrive(n, mac, 100));
    assert_true(drv_used(d, RX, &id, &len));
    assert_int_equal(id, 17);
    assert_false(drv_used(d, RX, &id, &len));
    drv_assert_fine(d);
}

static void test_receive_without_merging(void **state)
{
    struct net *n = *state;
    struct drv *d = &n->drv;
    uint32_t id, len;
    drv_start(d, ~(1ull << VIRTIO_NET_F_MRG_RXBUF), 3, 16);
    give_buffers(n, 3, 1526);
    assert_true(arrive(n, mac, 1600)); /* cannot fit: dropped, the buffers stay */
    assert_false(drv_used(d, RX, &id, &len));
    assert_true(arrive(n, mac, 1514));
    assert_true(drv_used(d, RX, &id, &len));
    assert_int_equal(id, 0);
    assert_int_equal(len, 1526);
    /* A buffer that cannot even hold the header, or is not in RAM. */
    drv_start(d, ALL, 3, 16);
    const struct drv_seg bad[2] = {{BUFFER(0), 11, true}, {DRV_RAM - 64, 1526, true}};
    drv_add(d, RX, &bad[0], 1);
    assert_true(arrive(n, mac, 60));
    drv_start(d, ALL, 3, 16);
    drv_add(d, RX, &bad[1], 1);
    assert_true(arrive(n, mac, 60));
    drv_assert_fine(d);
}

/* A control command. @return the device's answer */
static uint8_t control(struct net *n, const void *command, uint32_t bytes)
{
    struct drv *d = &n->drv;
    const struct drv_seg segs[2] = {{BUFFER(100), bytes, false}, {BUFFER(101), 1, true}};
    uint32_t id, len;
    mull_mem_write(d->memory, BUFFER(100), command, bytes);
    mull_mem_set(d->memory, BUFFER(101), 0xcc, 1);
    drv_add(d, CTRL, segs, 2);
    drv_kick(d, CTRL);
    assert_true(drv_used(d, CTRL, &id, &len));
    assert_int_equal(len, 1);
    return drv_peek8(d, BUFFER(101));
}

static unsigned count_received(struct net *n)
{
    uint32_t id, len;
    unsigned count = 0;
    while (drv_used(&n->drv, RX, &id, &len))
        count++;
    return count;
}

static void test_receive_filter(void **state)
{
    struct net *n = *state;
    static const uint8_t other[6] = {2, 2, 2, 2, 2, 2}, group[6] = {1, 0, 0x5e, 1, 2, 3},
                         everyone[6] = {255, 255, 255, 255, 255, 255};
    drv_start(&n->drv, ALL, 3, 64);
    give_buffers(n, 32, 1526);
#define accepts(to) (arrive(n, to, 60), count_received(n))
    assert_int_equal(accepts(other), 1); /* promiscuous until told otherwise */
    assert_int_equal(control(n, "\0\0\0", 3), 0);
    assert_int_equal(accepts(other), 0);
    assert_int_equal(accepts(group), 0);
    assert_int_equal(accepts(mac), 1);
    assert_int_equal(accepts(everyone), 1);
    assert_int_equal(control(n, "\0\1\1", 3), 0); /* all multicast */
    assert_int_equal(accepts(group), 1);
    assert_int_equal(control(n, "\0\1\0", 3), 0);
    assert_int_equal(control(n, "\1\0\1\0\0\0\2\2\2\2\2\2\1\0\0\0\1\0\x5e\1\2\3", 22), 0);
    assert_int_equal(accepts(group), 1);
    assert_int_equal(accepts(other), 1);
    assert_int_equal(control(n, "\0\3\1", 3), 0); /* no multicast */
    assert_int_equal(accepts(group), 0);
    assert_int_equal(control(n, "\0\4\1", 3), 0); /* no unicast */
    assert_int_equal(accepts(mac), 0);
    assert_int_equal(control(n, "\0\5\1", 3), 0); /* no broadcast */
    assert_int_equal(accepts(everyone), 0);
    assert_int_equal(control(n, "\0\0\1", 3), 0); /* promiscuous */
    assert_int_equal(accepts(everyone), 1);
    assert_int_equal(control(n, "\1\1\2\0\0\0\0\7", 8), 0); /* a new address */
    assert_int_equal(drv_read(&n->drv, n->drv.config + 5, 1), 7);
    /* What makes no sense is refused. */
    assert_int_equal(control(n, "\0", 1), 1);
    assert_int_equal(control(n, "\0\0", 2), 1);
    assert_int_equal(control(n, "\0\6\1", 3), 1);
    assert_int_equal(control(n, "\1\0\2\0\0\0\2\2\2\2\2\2\0\0\0\0", 16), 1);
    assert_int_equal(control(n, "\1\0\xff\xff\xff\xff", 6), 1);
    assert_int_equal(control(n, "\1\0\0\0\0\0", 6), 1);
    assert_int_equal(control(n, "\1\1\2\0", 4), 1);
    assert_int_equal(control(n, "\4\0\1\0", 4), 1);
    assert_int_equal(control(n, "\3\1", 2), 1);
    /* A table that is too long turns the filter off instead of losing frames. */
    static uint8_t table[2 + 4 + 6 * 65 + 4] = {1, 0, 65};
    assert_int_equal(control(n, "\0\0\0", 3), 0);
    assert_int_equal(control(n, "\0\4\0", 3), 0);
    assert_int_equal(control(n, table, sizeof(table)), 0);
    assert_int_equal(accepts(other), 1);
    drv_assert_fine(&n->drv);
}

static void test_offloads(void **state)
{
    struct net *n = *state;
    struct drv *d = &n->drv;
    struct virtio_net_hdr_v1 header = {.flags = 1,
                                       .gso_type = 1,
                                       .gso_size = 1448,
                                       .csum_start = 34,
                                       .csum_offset = 16,
                                       .hdr_len = 54,
                                       .num_buffers = 99};
    uint64_t wanted = 1ull << VIRTIO_NET_F_CSUM | 1ull << VIRTIO_NET_F_HOST_TSO4 |
                      1ull << VIRTIO_NET_F_GUEST_CSUM | 1ull << VIRTIO_NET_F_GUEST_TSO6;
    uint32_t id, len;
    assert_int_equal(drv_offered(d) & wanted, wanted);
    drv_start(d, ALL, 3, 16);
    assert_int_equal(n->offloads & wanted, wanted);
    const struct drv_seg seg = {BUFFER(0), 3000, false};
    mull_mem_write(d->memory, BUFFER(0), &header, sizeof(header));
    drv_add(d, TX, &seg, 1);
    drv_kick(d, TX);
    assert_int_equal(n->last_len, 3000);
    header.num_buffers = 0;
    assert_memory_equal(n->last, &header, sizeof(header));

    static uint8_t frame[12 + 60];
    memcpy(frame, &header, sizeof(header));
    give_buffers(n, 1, 1526);
    assert_true(n->front.receive(n->front.opaque, frame, sizeof(frame)));
    assert_true(n->front.receive(n->front.opaque, frame, 11));
    assert_true(n->front.receive(n->front.opaque, frame, 20));
    assert_true(drv_used(d, RX, &id, &len));
    assert_int_equal(len, 72);
    struct virtio_net_hdr_v1 got;
    mull_mem_read(d->memory, BUFFER(0), &got, sizeof(got));
    header.num_buffers = 1;
    assert_memory_equal(&got, &header, sizeof(header));
    assert_false(drv_used(d, RX, &id, &len));
}

static void test_broken_rings(void **state)
{
    struct net *n = *state;
    struct drv *d = &n->drv;
    drv_start(d, ALL, 3, 16);
    if (d->queues[RX].packed)
        return; /* what follows is written for split rings */
    drv_desc(d, d->queues[RX].desc, 0, BUFFER(0), 1526, VRING_DESC_F_WRITE | VRING_DESC_F_NEXT, 0);
    drv_offer(d, RX, 0);
    assert_true(arrive(n, mac, 60));
    drv_assert_broken(d);
    assert_true(arrive(n, mac, 60));
    drv_start(d, ALL, 3, 16);
    drv_offer(d, TX, 999);
    drv_kick(d, TX);
    drv_assert_broken(d);
    drv_start(d, ALL, 3, 16);
    give_buffers(n, 1, 1526);
    assert_true(arrive(n, mac, 60));
    assert_int_equal(count_received(n), 1);
}

/* Send a command to the control queue @queue. @return the device's answer */
static uint8_t command(struct net *n, unsigned queue, uint8_t class, uint8_t what, uint16_t value)
{
    const uint8_t bytes[4] = {class, what, (uint8_t)value, (uint8_t)(value >> 8)};
    const struct drv_seg segs[2] = {{BUFFER(900), 4, false}, {BUFFER(901), 1, true}};
    uint32_t id, len;

    mull_mem_write(n->drv.memory, BUFFER(900), bytes, sizeof(bytes));
    drv_add(&n->drv, queue, segs, 2);
    drv_kick(&n->drv, queue);
    drv_wait_used(&n->drv, queue, &id, &len);
    return drv_peek8(&n->drv, BUFFER(901));
}

/* An Ethernet frame with an IPv4 UDP packet of one flow, either way. */
static size_t flow_frame(uint8_t *f, bool to_guest)
{
    memset(f, 0, 60);
    memcpy(f + (to_guest ? 0 : 6), mac, 6);
    f[to_guest ? 6 : 0] = 2;
    memcpy(f + 12, (const uint8_t[]){8, 0, 0x45, 0, 0, 46}, 6);
    f[23] = 17;
    memcpy(f + 26, (const uint8_t[]){10, 0, 0, 1, 10, 0, 0, 99}, 8);
    memcpy(f + 34, (const uint8_t[]){0x12, 0x34, 0, 80}, 4);
    if (to_guest) {
        memcpy(f + 26, (const uint8_t[]){10, 0, 0, 99, 10, 0, 0, 1}, 8);
        memcpy(f + 34, (const uint8_t[]){0, 80, 0x12, 0x34}, 4);
    }
    return 60;
}

static void test_queue_pairs(void **state)
{
    struct net *n = *state;
    uint8_t frame[60];
    uint32_t id, len;

    assert_int_equal(drv_read(&n->drv, n->drv.config + 8, 2), 3);
    drv_start(&n->drv, ALL & ~HASH_REPORT, 7, 16);
    for (unsigned pair = 0; pair < 3; pair++) {
        const struct drv_seg seg = {BUFFER(100 + pair), 2048, true};
        drv_add(&n->drv, 2 * pair, &seg, 1);
    }
    assert_int_equal(command(n, 6, VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, 0),
                     VIRTIO_NET_ERR);
    assert_int_equal(command(n, 6, VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, 4),
                     VIRTIO_NET_ERR);
    assert_int_equal(command(n, 6, VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, 3),
                     VIRTIO_NET_OK);
    /* What is sent by the third pair is answered there. */
    const struct drv_seg seg = {BUFFER(0), 12 + 60, false};
    flow_frame(frame, false);
    mull_mem_set(n->drv.memory, BUFFER(0), 0, 12);
    mull_mem_write(n->drv.memory, BUFFER(0) + 12, frame, 60);
    drv_add(&n->drv, 5, &seg, 1);
    drv_kick(&n->drv, 5);
    assert_int_equal(n->sent, 1);
    flow_frame(frame, true);
    assert_true(n->front.receive(n->front.opaque, frame, 60));
    n->front.received(n->front.opaque);
    assert_true(drv_used(&n->drv, 4, &id, &len));
    assert_false(drv_used(&n->drv, 0, &id, &len));
    /* With one pair again, it comes to the first. */
    assert_int_equal(command(n, 6, VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, 1),
                     VIRTIO_NET_OK);
    assert_true(n->front.receive(n->front.opaque, frame, 60));
    n->front.received(n->front.opaque);
    assert_true(drv_used(&n->drv, 0, &id, &len));
}

/* A driver that knows of no pairs finds the control queue where it always was. */
static void test_without_queue_pairs(void **state)
{
    struct net *n = *state;

    drv_start(&n->drv, ALL & ~(HASH_REPORT | 1ull << VIRTIO_NET_F_MQ), 3, 16);
    assert_int_equal(command(n, 2, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, 0),
                     VIRTIO_NET_OK);
    assert_int_equal(command(n, 2, VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, 1),
                     VIRTIO_NET_ERR);
}

/* ---- Receive-side scaling ---- */

/* The key and the values by which Microsoft lets implementations of the hash be verified
 * ("Verifying the RSS hash calculation"). */
static const uint8_t rss_key[40] = {0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67,
                                    0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0, 0xca, 0x2b, 0xcb,
                                    0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30,
                                    0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa};

struct known_hash {
    bool ipv6;
    uint8_t protocol;
    uint8_t from[16], to[16];
    uint16_t from_port, to_port;
    uint32_t of_addresses, of_ports;
};
static const struct known_hash known[] = {
    {false, 6, {66, 9, 149, 187}, {161, 142, 100, 80}, 2794, 1766, 0x323e8fc2, 0x51ccc178},
    {false, 17, {199, 92, 111, 2}, {65, 69, 140, 83}, 14230, 4739, 0xd718262a, 0xc626b0ea},
    {false, 6, {24, 19, 198, 95}, {12, 22, 207, 184}, 12898, 38024, 0xd2d0a5de, 0x5c2b394a},
    {true,
     6,
     {0x3f, 0xfe, 0x25, 0x01, 0x02, 0x00, 0x1f, 0xff, 0, 0, 0, 0, 0, 0, 0, 7},
     {0x3f, 0xfe, 0x25, 0x01, 0x02, 0x00, 0x00, 0x03, 0, 0, 0, 0, 0, 0, 0, 1},
     2794,
     1766,
     0x2cc18cd5,
     0x40207d3d},
};

static size_t known_frame(uint8_t *f, const struct known_hash *k)
{
    uint8_t *l3 = f + 14, *l4 = l3 + (k->ipv6 ? 40 : 20);

    memset(f, 0, 80);
    memcpy(f, mac, 6);
    f[6] = 2;
    if (k->ipv6) {
        memcpy(f + 12, (const uint8_t[]){0x86, 0xdd, 0x60, 0, 0, 0, 0, 24, k->protocol, 64}, 10);
        memcpy(l3 + 8, k->from, 16);
        memcpy(l3 + 24, k->to, 16);
    } else {
        memcpy(f + 12, (const uint8_t[]){8, 0, 0x45, 0, 0, 44}, 6);
        l3[9] = k->protocol;
        memcpy(l3 + 12, k->from, 4);
        memcpy(l3 + 16, k->to, 4);
    }
    const uint8_t ports[4] = {(uint8_t)(k->from_port >> 8), (uint8_t)k->from_port,
                              (uint8_t)(k->to_port >> 8), (uint8_t)k->to_port};
    memcpy(l4, ports, 4);
    l4[12] = 0x50; /* TCP: a header of 20 bytes */
    return 80;
}

/* VIRTIO_NET_CTRL_MQ_RSS_CONFIG with a table of @entries that counts through the pairs.
 * @return its length */
static uint32_t rss_command(uint8_t *c, uint32_t types, unsigned entries, unsigned pairs,
                            uint8_t key)
{
    uint32_t at = 0;

    memset(c, 0, 400);
    c[at++] = VIRTIO_NET_CTRL_MQ;
    c[at++] = VIRTIO_NET_CTRL_MQ_RSS_CONFIG;
    memcpy(c + at, &types, 4); /* tests run on little-endian hosts only */
    c[at + 4] = (uint8_t)(entries - 1);
    c[at + 5] = (uint8_t)((entries - 1) >> 8);
    c[at + 6] = 2; /* what is not classified */
    at += 8;
    for (unsigned i = 0; i < entries; i++, at += 2)
        c[at] = (uint8_t)(i % pairs);
    c[at] = (uint8_t)pairs;
    c[at + 2] = key;
    memcpy(c + at + 3, rss_key, sizeof(rss_key));
    return at + 3 + key;
}

/* A command of any length to the control queue of three pairs. */
static uint8_t long_command(struct net *n, const void *bytes, uint32_t size)
{
    const struct drv_seg segs[2] = {{BUFFER(900), size, false}, {BUFFER(901), 1, true}};
    uint32_t id, len;

    mull_mem_write(n->drv.memory, BUFFER(900), bytes, size);
    drv_add(&n->drv, 6, segs, 2);
    drv_kick(&n->drv, 6);
    drv_wait_used(&n->drv, 6, &id, &len);
    return drv_peek8(&n->drv, BUFFER(901));
}

/* The pair that a frame comes to, its header in *@header. */
static int pair_of(struct net *n, const uint8_t *frame, size_t len,
                   struct virtio_net_hdr_v1_hash *header)
{
    uint32_t id, written;
    int found = -1;

    for (unsigned pair = 0; pair < 3; pair++) {
        const struct drv_seg seg = {BUFFER(100 + pair), 2048, true};
        drv_add(&n->drv, 2 * pair, &seg, 1);
    }
    assert_true(n->front.receive(n->front.opaque, frame, len));
    n->front.received(n->front.opaque);
    for (unsigned pair = 0; pair < 3; pair++)
        if (drv_used(&n->drv, 2 * pair, &id, &written)) {
            assert_int_equal(found, -1);
            assert_int_equal(written, sizeof(*header) + len);
            found = (int)pair;
            mull_mem_read(n->drv.memory, BUFFER(100 + pair), header, sizeof(*header));
            assert_int_equal(header->hdr.num_buffers, 1);
            assert_int_equal(drv_peek8(&n->drv, BUFFER(100 + pair) + 20), frame[0]);
        }
    return found;
}

static void test_rss(void **state)
{
    struct net *n = *state;
    struct virtio_net_hdr_v1_hash h;
    uint8_t c[400], frame[80];

    assert_int_equal(drv_read(&n->drv, n->drv.config + 17, 1), 40);
    assert_int_equal(drv_read(&n->drv, n->drv.config + 18, 2), 128);
    assert_int_equal(drv_read(&n->drv, n->drv.config + 20, 4), 0x3f);
    drv_start(&n->drv, ALL, 7, 64);
    assert_int_equal(long_command(n, c, rss_command(c, 0x3f, 128, 3, 40)), VIRTIO_NET_OK);
    for (unsigned i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        const struct known_hash *k = &known[i];
        size_t len = known_frame(frame, k);
        assert_int_equal(pair_of(n, frame, len, &h), (k->of_ports & 127) % 3);
        assert_int_equal(h.hash_value, k->of_ports);
        assert_int_equal(h.hash_report, (k->ipv6 ? 4 : 1) + (k->protocol == 6 ? 1 : 2));
    }
    /* A fragment has no ports. */
    known_frame(frame, &known[0]);
    frame[14 + 6] = 0x20;
    assert_int_equal(pair_of(n, frame, 80, &h), (known[0].of_addresses & 127) % 3);
    assert_int_equal(h.hash_value, known[0].of_addresses);
    assert_int_equal(h.hash_report, VIRTIO_NET_HASH_REPORT_IPv4);
    /* Types that are not asked for: addresses only, or nothing. */
    assert_int_equal(long_command(n, c, rss_command(c, 1, 64, 3, 40)), VIRTIO_NET_OK);
    for (unsigned i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        const struct known_hash *k = &known[i];
        size_t len = known_frame(frame, k);
        assert_int_equal(pair_of(n, frame, len, &h), k->ipv6 ? 2u : (k->of_addresses & 63) % 3);
        assert_int_equal(h.hash_value, k->ipv6 ? 0 : k->of_addresses);
        assert_int_equal(h.hash_report, k->ipv6 ? 0 : 1);
    }
    memset(frame + 12, 0, 2); /* no IP at all */
    assert_int_equal(pair_of(n, frame, 80, &h), 2);
    /* What is sent has the longer header, too. */
    const struct drv_seg seg = {BUFFER(0), 20 + 60, false};
    mull_mem_set(n->drv.memory, BUFFER(0), 7, 100);
    drv_add(&n->drv, 1, &seg, 1);
    drv_kick(&n->drv, 1);
    assert_int_equal(n->last_len, 60);
    /* The number of pairs ends the steering; hashes go on. */
    assert_int_equal(long_command(n, "\4\0\3\0", 4), VIRTIO_NET_OK);
    known_frame(frame, &known[0]);
    assert_int_equal(pair_of(n, frame, 80, &h), 0);
    assert_int_equal(h.hash_value, known[0].of_addresses);
    drv_assert_fine(&n->drv);
}

static void test_rss_refusals(void **state)
{
    struct net *n = *state;
    struct virtio_net_hdr_v1_hash h;
    uint8_t c[400], frame[80];
    uint32_t len;

    drv_start(&n->drv, ALL, 7, 64);
    len = rss_command(c, 0x3f, 128, 3, 40);
    for (uint32_t short_by = 1; short_by < len; short_by++)
        assert_int_equal(long_command(n, c, len - short_by), VIRTIO_NET_ERR);
    assert_int_equal(long_command(n, c, rss_command(c, 0x40, 128, 3, 40)), VIRTIO_NET_ERR);
    assert_int_equal(long_command(n, c, rss_command(c, 0x3f, 96, 3, 40)), VIRTIO_NET_ERR);
    assert_int_equal(long_command(n, c, rss_command(c, 0x3f, 2, 3, 41)), VIRTIO_NET_ERR);
    assert_int_equal(long_command(n, c, rss_command(c, 0x3f, 128, 4, 40)), VIRTIO_NET_ERR);
    len = rss_command(c, 0x3f, 128, 3, 40);
    c[2 + 4] = c[2 + 5] = 0xff; /* a table of 65,536 */
    assert_int_equal(long_command(n, c, len), VIRTIO_NET_ERR);
    len = rss_command(c, 0x3f, 128, 3, 40);
    c[2 + 6] = 3; /* a pair that is not there */
    assert_int_equal(long_command(n, c, len), VIRTIO_NET_ERR);
    len = rss_command(c, 0x3f, 128, 3, 40);
    c[2 + 8 + 256] = 0; /* nobody sends */
    assert_int_equal(long_command(n, c, len), VIRTIO_NET_ERR);
    /* Nothing of it has had an effect. */
    known_frame(frame, &known[0]);
    assert_int_equal(pair_of(n, frame, 80, &h), 0);
    assert_int_equal(h.hash_report, 0);
    /* Hashes without steering, with a key that is shorter than it could be. */
    len = rss_command(c, 0x3f, 2, 2, 12);
    c[1] = VIRTIO_NET_CTRL_MQ_HASH_CONFIG; /* its key is where that of a table of two is */
    c[2 + 12] = 12;
    memcpy(c + 2 + 13, rss_key, 12);
    assert_int_equal(long_command(n, c, 2 + 13 + 12), VIRTIO_NET_OK);
    assert_int_equal(long_command(n, c, 2 + 13 + 11), VIRTIO_NET_ERR);
    assert_int_equal(pair_of(n, frame, 80, &h), 0);
    assert_int_equal(h.hash_report, VIRTIO_NET_HASH_REPORT_TCPv4);
    assert_int_not_equal(h.hash_value, 0);
    drv_assert_fine(&n->drv);
    /* Without the features the commands are unknown. */
    drv_start(&n->drv, ALL & ~(HASH_REPORT | 1ull << VIRTIO_NET_F_RSS), 7, 64);
    assert_int_equal(long_command(n, c, 2 + 13 + 12), VIRTIO_NET_ERR);
    assert_int_equal(long_command(n, c, rss_command(c, 0x3f, 128, 3, 40)), VIRTIO_NET_ERR);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(test_config),
        T(test_transmit),
        T(test_transmit_back_pressure),
        T(test_receive),
        T(test_receive_into_many_buffers),
        T(test_receive_without_merging),
        T(test_receive_filter),
        cmocka_unit_test_setup_teardown(test_offloads, setup_vnet, teardown),
        T(test_broken_rings),
        cmocka_unit_test_setup_teardown(test_queue_pairs, setup_mq, teardown),
        cmocka_unit_test_setup_teardown(test_without_queue_pairs, setup_mq, teardown),
        cmocka_unit_test_setup_teardown(test_rss, setup_mq, teardown),
        cmocka_unit_test_setup_teardown(test_rss_refusals, setup_mq, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
