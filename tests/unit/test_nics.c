/* The network cards that are none of virtio's, driven as their drivers would: offloads, rings,
 * interrupts, filters, saved state, and rings full of nonsense. */
#include "platform_world.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/virtio_net.h>
#include <netinet/in.h>
#include <stdlib.h>

#include "device/devices.h"
#include "device/net/offload.h"
#include "state/state.h"

#define BAR0 0xc0000000ull
#define ECAM 0xe0000000ull
#define RAM (8u << 20)
#define TX_RING 0x10000ull
#define RX_RING 0x20000ull
#define DONE_RING 0x30000ull
#define BUFFERS 0x100000ull
#define SENT_MAX 128

static const uint8_t mac[6] = {0x52, 0x54, 0, 0x12, 0x34, 0x56};

struct nic {
    struct world w;
    struct mull_pci_bus *bus;
    struct mull_device *device;
    struct mull_netdev netdev;
    struct mull_netdev_frontend front;
    uint64_t offloads;
    unsigned resumes, sent, full_after; /* full_after: so many frames may yet go; ~0: all */
    uint8_t last[MULL_NET_HDR_SIZE + MULL_NET_FRAME_MAX];
    size_t last_len, lengths[SENT_MAX], total;
    uint64_t bar[2];
};

static struct nic *of(struct mull_netdev *netdev)
{
    return (struct nic *)((char *)netdev - offsetof(struct nic, netdev));
}

static int net_send(struct mull_netdev *netdev, const struct iovec *iov, int niov, size_t len)
{
    struct nic *n = of(netdev);

    if (!n->full_after)
        return -EAGAIN;
    n->full_after -= n->full_after != ~0u;
    n->last_len = 0;
    for (int i = 0; i < niov; i++) {
        memcpy(n->last + n->last_len, iov[i].iov_base, iov[i].iov_len);
        n->last_len += iov[i].iov_len;
    }
    assert_int_equal(n->last_len, len);
    assert_true(n->sent < SENT_MAX);
    n->lengths[n->sent++] = len;
    n->total += len;
    return 0;
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

static const struct mull_netdev_ops netdev_ops = {
    .send = net_send, .attach = net_attach, .resume = net_resume, .set_offloads = net_offloads};

typedef int create_fn(const struct mull_device_env *, struct mull_pci_bus *,
                      const struct mull_nic_config *, struct mull_device **, struct mull_error *);

static struct nic *make(create_fn *create, bool vnet_hdr)
{
    struct nic *n = calloc(1, sizeof(*n));
    struct mull_pci_config config = {.ecam_base = ECAM,
                                     .mmio_base = BAR0,
                                     .mmio_size = 0x10000000,
                                     .io_base = 0xc000,
                                     .io_size = 0x1000};

    world_make(&n->w);
    assert_int_equal(mull_memory_add_ram(n->w.env.memory, 0, RAM, false, NULL), 0);
    config.memory = n->w.env.memory;
    config.msi = (struct mull_msi_sink){world_msi, &n->w};
    for (unsigned i = 0; i < 4; i++)
        config.intx[i] = world_irq(&n->w, 16 + i);
    assert_int_equal(mull_pci_bus_create(&config, &n->bus, NULL), 0);
    n->netdev = (struct mull_netdev){&netdev_ops, {.vnet_hdr = vnet_hdr}};
    n->full_after = ~0u;
    struct mull_nic_config cfg = {.name = "nic.0", .devfn = -1, .netdev = &n->netdev};
    assert_int_equal(create(&n->w.env, n->bus, &cfg, &n->device, NULL), -EINVAL); /* no MAC */
    memcpy(cfg.mac, mac, 6);
    assert_int_equal(create(&n->w.env, n->bus, &cfg, &n->device, NULL), 0);
    assert_int_equal(mull_pci_bus_assign(n->bus, NULL), 0);
    world_write(&n->w, ECAM + 0x8004, 2, 7);
    for (unsigned i = 0; i < 2; i++)
        n->bar[i] = world_read(&n->w, ECAM + 0x8010 + 4 * i, 4) & ~15ull;
    return n;
}

static void unmake(struct nic *n)
{
    n->device->ops->destroy(n->device);
    mull_pci_bus_destroy(n->bus);
    world_free(&n->w);
    free(n);
}

static uint32_t get(struct nic *n, unsigned bar, unsigned offset)
{
    return (uint32_t)world_read(&n->w, n->bar[bar] + offset, 4);
}

static void set(struct nic *n, unsigned bar, unsigned offset, uint32_t value)
{
    world_write(&n->w, n->bar[bar] + offset, 4, value);
}

static void poke(struct nic *n, uint64_t at, const void *data, size_t len)
{
    assert_int_equal(mull_mem_write(n->w.env.memory, at, data, len), 0);
}

static void peek(struct nic *n, uint64_t at, void *data, size_t len)
{
    assert_int_equal(mull_mem_read(n->w.env.memory, at, data, len), 0);
}

static bool arrive(struct nic *n, const uint8_t *frame, size_t len)
{
    bool taken = n->front.receive(n->front.opaque, frame, len);
    n->front.received(n->front.opaque);
    return taken;
}

/* Turn MSI-X on with vector i's data i. */
static void enable_msix(struct nic *n, unsigned bar, unsigned vectors)
{
    uint64_t table = world_read(&n->w, ECAM + 0x8010 + 4 * bar, 4) & ~15ull;
    unsigned cap = (unsigned)world_read(&n->w, ECAM + 0x8034, 1);

    while (world_read(&n->w, ECAM + 0x8000 + cap, 1) != 0x11)
        cap = (unsigned)world_read(&n->w, ECAM + 0x8000 + cap + 1, 1);
    for (unsigned i = 0; i < vectors; i++) {
        world_write(&n->w, table + 16 * i, 4, 0xfee00000);
        world_write(&n->w, table + 16 * i + 8, 4, i);
        world_write(&n->w, table + 16 * i + 12, 4, 0);
    }
    world_write(&n->w, ECAM + 0x8000 + cap + 2, 2, 0x8000);
}

/* A TCP packet over IPv4 with @payload numbered bytes; its checksums are left out. */
static size_t tcp_packet(uint8_t *f, size_t payload)
{
    size_t ip = 20 + 20 + payload;

    memset(f, 0, 54);
    memcpy(f, (const uint8_t[]){2, 0, 0, 0, 0, 1}, 6);
    memcpy(f + 6, mac, 6);
    f[12] = 8;
    f[14] = 0x45;
    f[16] = (uint8_t)(ip >> 8);
    f[17] = (uint8_t)ip;
    f[22] = 64;
    f[23] = IPPROTO_TCP;
    memcpy(f + 26, (const uint8_t[]){10, 0, 0, 1, 10, 0, 0, 2}, 8);
    f[46] = 0x50;
    f[47] = 0x19; /* ACK, PSH, FIN */
    for (size_t i = 0; i < payload; i++)
        f[54 + i] = (uint8_t)(i * 7);
    return 54 + payload;
}

static void expect_good_sums(const uint8_t *frame, size_t len)
{
    struct mull_net_headers h;
    mull_net_parse(frame, (uint32_t)len, &h);
    assert_true(h.ipv4 && h.l4);
    assert_true(mull_net_ip_sum_good(frame, &h));
    assert_true(mull_net_l4_sum_good(frame, &h));
}

/* ---- Offloads ---- */

static void test_offload_sums_and_segments(void **state)
{
    static uint8_t frame[70000], out[70000];
    /* RFC 1071, 3. */
    const uint8_t example[8] = {0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7};
    assert_int_equal(ntohs((uint16_t)~mull_net_fold(mull_net_sum(example, 8, 0))), 0xddf2);

    size_t len = tcp_packet(frame, 10000);
    struct mull_net_headers h;
    mull_net_parse(frame, (uint32_t)len, &h);
    assert_int_equal(h.payload, 54);
    assert_false(mull_net_l4_sum_good(frame, &h));
    mull_net_prepare_tcp(frame, (uint32_t)len, &h);
    assert_int_equal(mull_net_segments((uint32_t)len, &h, 1460), 7);
    size_t payload = 0;
    for (uint32_t i = 0; i < 7; i++) {
        uint32_t n = mull_net_segment(frame, (uint32_t)len, &h, 1460, i, out);
        expect_good_sums(out, n);
        assert_memory_equal(out + 54, frame + 54 + payload, n - 54);
        assert_int_equal(out[47] & 9, i == 6 ? 9 : 0); /* PSH and FIN at the end only */
        assert_int_equal(out[40] << 8 | out[41], payload & 0xffff);
        assert_int_equal(out[19], i); /* the ID counts */
        payload += n - 54;
    }
    assert_int_equal(payload, 10000);
}

static void test_parse_refuses_what_is_short(void **state)
{
    uint8_t f[200];
    struct mull_net_headers h;
    size_t len = tcp_packet(f, 20);

    for (size_t n = 0; n < len; n++) { /* whatever is cut off is not looked at */
        uint8_t *exact = malloc(n ? n : 1);
        memcpy(exact, f, n);
        mull_net_parse(exact, (uint32_t)n, &h);
        assert_true(h.payload <= n && h.end <= n);
        free(exact);
    }
    f[46] = 0xf0; /* a TCP header longer than the packet */
    mull_net_parse(f, 60, &h);
    assert_int_equal(h.l4, 0);
    f[14] = 0x43; /* an IP header shorter than one */
    mull_net_parse(f, 60, &h);
    assert_int_equal(h.l3, 0);
}

/* ---- 82574L ---- */

enum {
    CTRL = 0,
    STATUS = 8,
    EERD = 0x14,
    CTRL_EXT = 0x18,
    MDIC = 0x20,
    ICR = 0xc0,
    ITR = 0xc4,
    ICS = 0xc8,
    IMS = 0xd0,
    IMC = 0xd8,
    EIAC = 0xdc,
    IAM = 0xe0,
    IVAR = 0xe4,
    RCTL = 0x100,
    TCTL = 0x400,
    RDBAL = 0x2800,
    RDLEN = 0x2808,
    RDH = 0x2810,
    RDT = 0x2818,
    TDBAL = 0x3800,
    TDLEN = 0x3808,
    TDH = 0x3810,
    TDT = 0x3818,
    GPRC = 0x4074,
    RFCTL = 0x5008,
    MTA = 0x5200,
    RAL = 0x5400,
};

/* Rings of 16, buffers of 2 KiB, extended receive descriptors. */
static void start_e1000e(struct nic *n)
{
    set(n, 0, TDBAL, TX_RING);
    set(n, 0, TDLEN, 256);
    set(n, 0, TCTL, 2);
    for (unsigned i = 0; i < 16; i++) {
        const uint64_t desc[2] = {BUFFERS + 0x10000 + 0x800 * i, 0};
        poke(n, RX_RING + 16 * i, desc, 16);
    }
    set(n, 0, RDBAL, RX_RING);
    set(n, 0, RDLEN, 256);
    set(n, 0, RFCTL, 0x8000);
    set(n, 0, RCTL, 0x04008002); /* on, broadcasts, no FCS */
    set(n, 0, RDT, 15);
}

static void test_e1000e_identity(void **state)
{
    struct nic *n = make(mull_e1000e_create, false);
    uint16_t sum = 0, words[64];

    for (unsigned i = 0; i < 64; i++) {
        set(n, 0, EERD, i << 2 | 1);
        uint32_t value = get(n, 0, EERD);
        assert_true(value & 2);
        words[i] = (uint16_t)(value >> 16);
        sum = (uint16_t)(sum + words[i]);
    }
    assert_int_equal(sum, 0xbaba);
    assert_memory_equal(words, mac, 6);
    assert_int_equal(get(n, 0, RAL), 0x12005452);
    assert_int_equal(get(n, 0, RAL + 4), 0x80005634);
    assert_int_equal(get(n, 0, STATUS) & 2, 2);
    set(n, 0, MDIC, 2u << 26 | 1u << 21 | 2u << 16);
    assert_int_equal(get(n, 0, MDIC) & 0x5000ffff, 0x10000141);
    set(n, 0, MDIC, 2u << 26 | 2u << 21); /* no such PHY */
    assert_true(get(n, 0, MDIC) & 0x40000000);
    /* A link that goes and comes back. */
    set(n, 0, IMS, 4);
    n->front.link(n->front.opaque, false);
    assert_int_equal(get(n, 0, STATUS) & 2, 0);
    assert_true(n->w.line[17]);
    assert_int_equal(get(n, 0, ICR), 0x80000004);
    assert_false(n->w.line[17]);
    unmake(n);
}

static void test_e1000e_sends(void **state)
{
    struct nic *n = make(mull_e1000e_create, false);
    uint8_t frame[9000];

    start_e1000e(n);
    set(n, 0, IMS, 1);
    size_t len = tcp_packet(frame, 100);
    poke(n, BUFFERS, frame, len);
    /* A context, then two data descriptors with both sums. */
    const uint64_t ring[6] = {14ull | 24ull << 8 | 33ull << 16 | 34ull << 32 | 50ull << 40,
                              0x23000000ull, /* DEXT, IPv4, TCP */
                              BUFFERS,
                              50 | 1ull << 20 | 0x20000000ull | 3ull << 40,
                              BUFFERS + 50,
                              (len - 50) | 1ull << 20 | 0x29000000ull};
    /* The driver leaves the pseudo header's sum there. */
    struct mull_net_headers h;
    mull_net_parse(frame, (uint32_t)len, &h);
    uint16_t pseudo = (uint16_t)~mull_net_fold(mull_net_pseudo(frame, &h));
    poke(n, BUFFERS + 50, &pseudo, 2);
    poke(n, TX_RING, ring, sizeof(ring));
    set(n, 0, TDT, 3);
    assert_int_equal(n->sent, 0); /* not in the vCPU's thread */
    world_drain(&n->w);
    assert_int_equal(n->sent, 1);
    assert_int_equal(n->last_len, len);
    expect_good_sums(n->last, len);
    assert_int_equal(get(n, 0, TDH), 3);
    uint8_t status;
    peek(n, TX_RING + 2 * 16 + 12, &status, 1);
    assert_int_equal(status & 1, 1);
    assert_true(n->w.line[17]);
    assert_true(get(n, 0, ICR) & 1);

    /* Segmentation, the back end full in the middle: it goes on where it was. */
    len = tcp_packet(frame, 5000);
    poke(n, BUFFERS, frame, len);
    const uint64_t tso[4] = {14ull | 24ull << 8 | 33ull << 16 | 34ull << 32 | 50ull << 40,
                             0x27000000ull | 54ull << 40 | 1460ull << 48, BUFFERS,
                             len | 1ull << 20 | 0x2d000000ull | 3ull << 40};
    poke(n, TX_RING + 3 * 16, tso, sizeof(tso));
    n->sent = 0;
    n->full_after = 2;
    set(n, 0, TDT, 5);
    world_drain(&n->w);
    assert_int_equal(n->sent, 2);
    assert_int_equal(get(n, 0, TDH), 3);
    n->full_after = ~0u;
    n->front.writable(n->front.opaque);
    assert_int_equal(n->sent, 4);
    assert_int_equal(n->lengths[0], 1514);
    assert_int_equal(n->lengths[3], 54 + 5000 - 3 * 1460);
    expect_good_sums(n->last, n->last_len);
    assert_int_equal(get(n, 0, TDH), 5);
    unmake(n);
}

static void test_e1000e_leaves_segments_to_a_tap(void **state)
{
    struct nic *n = make(mull_e1000e_create, true);
    uint8_t frame[9000];

    start_e1000e(n);
    size_t len = tcp_packet(frame, 5000);
    frame[16] = frame[17] = 0; /* as drivers leave it */
    poke(n, BUFFERS, frame, len);
    const uint64_t tso[4] = {34ull << 32 | 50ull << 40, 0x27000000ull | 1460ull << 48, BUFFERS,
                             len | 1ull << 20 | 0x2d000000ull | 3ull << 40};
    poke(n, TX_RING, tso, sizeof(tso));
    set(n, 0, TDT, 2);
    world_drain(&n->w);
    assert_int_equal(n->sent, 1);
    struct virtio_net_hdr_v1 v;
    memcpy(&v, n->last, sizeof(v));
    assert_int_equal(v.gso_type, VIRTIO_NET_HDR_GSO_TCPV4);
    assert_int_equal(v.gso_size, 1460);
    assert_int_equal(v.hdr_len, 54);
    assert_int_equal(v.csum_start, 34);
    assert_int_equal(v.flags, VIRTIO_NET_HDR_F_NEEDS_CSUM);
    const uint8_t *ip = n->last + sizeof(v) + 14;
    assert_int_equal(ip[2] << 8 | ip[3], len - 14);
    unmake(n);
}

static void test_e1000e_receives(void **state)
{
    struct nic *n = make(mull_e1000e_create, false);
    uint8_t frame[2000], got[2000];
    uint32_t words[4];

    start_e1000e(n);
    set(n, 0, IMS, 0x80);
    size_t len = tcp_packet(frame, 300);
    memcpy(frame, mac, 6);
    struct mull_net_headers h;
    mull_net_parse(frame, (uint32_t)len, &h);
    mull_net_prepare_tcp(frame, (uint32_t)len, &h);
    uint8_t whole[2000];
    assert_int_equal(mull_net_segment(frame, (uint32_t)len, &h, 1460, 0, whole), len);
    assert_true(arrive(n, whole, len));
    peek(n, RX_RING, words, 16);
    assert_int_equal(words[2], 0x63); /* done, end, both sums are good */
    assert_int_equal(words[3], len);
    peek(n, BUFFERS + 0x10000, got, len);
    assert_memory_equal(got, whole, len);
    assert_int_equal(get(n, 0, RDH), 1);
    assert_true(n->w.line[17]);
    whole[60] ^= 1;
    assert_true(arrive(n, whole, len));
    peek(n, RX_RING + 16, words, 16);
    assert_int_equal(words[2], 0x20000063); /* a bad TCP sum is told */
    /* Somebody else's, a multicast before and after it is asked for, a short one. */
    whole[0] = 2;
    assert_true(arrive(n, whole, len));
    memcpy(whole, (const uint8_t[]){1, 0, 0x5e, 0, 0, 1}, 6);
    assert_true(arrive(n, whole, len));
    assert_int_equal(get(n, 0, RDH), 2);
    unsigned hash = (0u | 1u << 8) >> 4 & 0xfff;
    set(n, 0, MTA + hash / 32 * 4, 1u << (hash & 31));
    assert_true(arrive(n, whole, len));
    assert_int_equal(get(n, 0, RDH), 3);
    memset(whole, 0xff, 6);
    assert_true(arrive(n, whole, 20));
    peek(n, RX_RING + 3 * 16, words, 16);
    assert_int_equal(words[3], 60);
    assert_int_equal(get(n, 0, GPRC), 4);
    assert_int_equal(get(n, 0, GPRC), 0); /* read, cleared */
    /* A full ring keeps the frame until the driver gives more. */
    while (arrive(n, whole, 60))
        ;
    assert_int_equal(get(n, 0, RDH), 15);
    unsigned before = n->resumes;
    set(n, 0, RDT, 5);
    world_drain(&n->w);
    assert_true(n->resumes > before);
    assert_true(arrive(n, whole, 60));
    unmake(n);
}

static void test_e1000e_msix(void **state)
{
    struct nic *n = make(mull_e1000e_create, false);
    uint8_t frame[60];

    start_e1000e(n);
    enable_msix(n, 3, 5);
    set(n, 0, IVAR, 0x000a0908); /* RxQ0: 0, TxQ0: 1, other: 2 */
    set(n, 0, CTRL_EXT, 0x01000000);
    set(n, 0, IAM, ~0u);
    set(n, 0, EIAC, 0x01500000);
    set(n, 0, IMS, 0x01500004);
    memset(frame, 0xff, sizeof(frame));
    assert_true(arrive(n, frame, 60));
    assert_int_equal(n->w.msis, 1);
    assert_int_equal(n->w.msi_data, 0);
    assert_int_equal(get(n, 0, IMS) & 0x00100000, 0); /* masked by being sent */
    assert_true(arrive(n, frame, 60));
    assert_int_equal(n->w.msis, 1);
    set(n, 0, IMS, 0x00100000);
    assert_int_equal(n->w.msis, 2);
    n->front.link(n->front.opaque, false);
    assert_int_equal(n->w.msis, 3);
    assert_int_equal(n->w.msi_data, 2);
    unmake(n);
}

static void test_e1000e_throttles(void **state)
{
    struct nic *n = make(mull_e1000e_create, false);

    set(n, 0, ITR, 0xffff); /* 16.8 ms */
    set(n, 0, IMS, 1);
    for (bool slow = true; slow;) { /* a host that stands still in between proves nothing */
        uint64_t start = mull_now_ns();
        set(n, 0, ICS, 1);
        assert_true(n->w.line[17]);
        get(n, 0, ICR);
        set(n, 0, ICS, 1);
        bool early = n->w.line[17];
        slow = mull_now_ns() - start > 16000000;
        assert_true(slow || !early);
        if (slow) {
            get(n, 0, ICR);
            set(n, 0, CTRL, 1u << 26); /* a reset forgets */
            set(n, 0, ITR, 0xffff);
            set(n, 0, IMS, 1);
        }
    }
    uint64_t end = mull_now_ns() + 60000000000ull;
    while (!n->w.line[17] && mull_now_ns() < end)
        world_drain(&n->w);
    assert_true(n->w.line[17]);
    unmake(n);
}

/* ---- VMXNET3 ---- */

enum { IMR = 0, TXPROD = 0x600, RXPROD = 0x800 };
enum { VRRS = 0, DSAL = 0x10, CMD = 0x20, MACL = 0x28, MACH = 0x30, V_ICR = 0x38, ECR = 0x40 };
#define AREA 0x1000ull
#define QUEUES 0x2000ull
#define RX_RING2 0x28000ull
#define TX_DONE 0x38000ull

static void start_vmxnet3(struct nic *n, uint64_t features)
{
    const uint32_t magic = 3133079265u, mode = 5;
    const uint8_t queues[2] = {1, 1}, intr[3] = {1, 2, 0};
    const uint64_t table = QUEUES;

    poke(n, AREA, &magic, 4);
    poke(n, AREA + 24, &features, 8);
    poke(n, AREA + 40, &table, 8);
    poke(n, AREA + 62, queues, 2);
    poke(n, AREA + 80, intr, 3);
    poke(n, AREA + 120, &mode, 4);
    const uint64_t tx[3] = {TX_RING, 0, TX_DONE}, rx[3] = {RX_RING, RX_RING2, DONE_RING};
    const uint32_t tx_size[3] = {32, 0, 32}, rx_size[3] = {32, 32, 64};
    const uint8_t intr_tx = 0, intr_rx = 1;
    poke(n, QUEUES + 16, tx, sizeof(tx));
    poke(n, QUEUES + 56, tx_size, sizeof(tx_size));
    poke(n, QUEUES + 72, &intr_tx, 1);
    poke(n, QUEUES + 256 + 16, rx, sizeof(rx));
    poke(n, QUEUES + 256 + 56, rx_size, sizeof(rx_size));
    poke(n, QUEUES + 256 + 72, &intr_rx, 1);
    for (unsigned i = 0; i < 32; i++) {
        const uint64_t head[2] = {BUFFERS + 0x10000 + 0x800 * i, 1536 | 0x80000000ull};
        const uint64_t body[2] = {BUFFERS + 0x40000 + 0x1000 * i, 4096 | 0x4000 | 0x80000000ull};
        poke(n, RX_RING + 16 * i, head, 16);
        poke(n, RX_RING2 + 16 * i, body, 16);
    }
    assert_int_equal(get(n, 1, VRRS), 3);
    set(n, 1, VRRS, 2);
    set(n, 1, DSAL, AREA);
    set(n, 1, CMD, 0xcafe0000);
    assert_int_equal(get(n, 1, CMD), 0);
    for (unsigned i = 0; i < 2; i++)
        set(n, 0, IMR + 8 * i, 0);
    world_drain(&n->w);
}

static void tx_desc(struct nic *n, unsigned i, uint64_t at, uint32_t word2, uint32_t word3)
{
    const uint32_t words[4] = {(uint32_t)at, 0, word2 | 0x4000, word3};
    poke(n, TX_RING + 16 * i, words, sizeof(words));
}

static void test_vmxnet3_sends(void **state)
{
    struct nic *n = make(mull_vmxnet3_create, false);
    uint8_t frame[9000];
    uint32_t words[4];

    assert_int_equal(get(n, 1, MACL), 0x12005452);
    assert_int_equal(get(n, 1, MACH), 0x5634);
    start_vmxnet3(n, 0);
    enable_msix(n, 2, 3);
    size_t len = tcp_packet(frame, 5000);
    poke(n, BUFFERS, frame, len);
    /* Two pieces, to be segmented. */
    tx_desc(n, 0, BUFFERS, 100 | 1460u << 18, 54 | 3u << 10);
    tx_desc(n, 1, BUFFERS + 100, (uint32_t)len - 100, 0x3000);
    set(n, 0, TXPROD, 2);
    world_drain(&n->w);
    assert_int_equal(n->sent, 4);
    expect_good_sums(n->last, n->last_len);
    peek(n, TX_DONE, words, sizeof(words));
    assert_int_equal(words[0], 1);
    assert_int_equal(words[3] >> 31, 1);
    assert_int_equal(n->w.msis, 1);
    assert_int_equal(get(n, 0, IMR), 1); /* masked by being sent */
    /* A checksum and a VLAN tag. */
    len = tcp_packet(frame, 10);
    struct mull_net_headers h;
    mull_net_parse(frame, (uint32_t)len, &h);
    uint16_t sum = mull_net_fold(mull_net_sum(frame + 14, 20, 0));
    memcpy(frame + 24, &sum, 2);
    uint16_t pseudo = (uint16_t)~mull_net_fold(mull_net_pseudo(frame, &h));
    memcpy(frame + 50, &pseudo, 2);
    poke(n, BUFFERS, frame, len);
    tx_desc(n, 2, BUFFERS, (uint32_t)len | 50u << 18, 34 | 2u << 10 | 0x3000 | 0x8000 | 5u << 16);
    set(n, 0, TXPROD, 3);
    world_drain(&n->w);
    assert_int_equal(n->last_len, len + 4);
    assert_memory_equal(n->last + 12, ((const uint8_t[]){0x81, 0, 0, 5}), 4);
    expect_good_sums(n->last, n->last_len);
    assert_int_equal(n->w.msis, 1);
    set(n, 0, IMR, 0); /* what came meanwhile is told now */
    assert_int_equal(n->w.msis, 2);
    /* A ring that is no RAM stops its queue, and says so. */
    const uint64_t nowhere = 1ull << 40;
    set(n, 1, CMD, 0xcafe0001);
    poke(n, QUEUES + 16, &nowhere, 8);
    set(n, 1, CMD, 0xcafe0000);
    assert_int_equal(get(n, 1, CMD), 0);
    set(n, 0, TXPROD, 1);
    world_drain(&n->w);
    peek(n, AREA + 696, words, 4);
    assert_int_equal(words[0], 2);
    peek(n, QUEUES + 80, words, 8);
    assert_int_equal(words[0], 1);
    set(n, 1, ECR, 2);
    peek(n, AREA + 696, words, 4);
    assert_int_equal(words[0], 0);
    unmake(n);
}

static void test_vmxnet3_receives(void **state)
{
    struct nic *n = make(mull_vmxnet3_create, true);
    static uint8_t with_header[70000], got[70000];
    uint8_t *frame = with_header + MULL_NET_HDR_SIZE;
    uint32_t words[4];

    start_vmxnet3(n, 0xd); /* checksums, VLAN stripping, LRO */
    assert_true(n->offloads >> VIRTIO_NET_F_GUEST_TSO4 & 1);
    set(n, 0, IMR + 8, 0);
    size_t len = tcp_packet(frame, 20000);
    memcpy(frame, mac, 6);
    struct mull_net_headers h;
    mull_net_parse(frame, (uint32_t)len, &h);
    mull_net_prepare_tcp(frame, (uint32_t)len, &h);
    struct virtio_net_hdr_v1 v = {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
                                  .gso_type = VIRTIO_NET_HDR_GSO_TCPV4,
                                  .gso_size = 1460,
                                  .csum_start = 34,
                                  .csum_offset = 16};
    memcpy(with_header, &v, sizeof(v));
    assert_true(arrive(n, with_header, len + sizeof(v)));
    /* A head of 1536 bytes, five bodies. */
    for (unsigned i = 0; i < 6; i++) {
        peek(n, DONE_RING + 16 * i, words, sizeof(words));
        assert_int_equal(words[0] >> 16 & 0x3ff, i ? 1 : 0);
        assert_int_equal(words[0] & 0xc000, i == 0 ? 0x8000 : i == 5 ? 0x4000 : 0);
        assert_int_equal(words[1] & 0xff, 14);
        assert_int_equal(words[3], 0x84ad0000u | 1460);
    }
    peek(n, BUFFERS + 0x10000, got, 1536);
    peek(n, BUFFERS + 0x40000, got + 1536, 4096 * 5);
    expect_good_sums(got, len);
    assert_memory_equal(got + 54, frame + 54, 20000);
    assert_true(n->w.line[17]);
    assert_int_equal(get(n, 1, V_ICR), 1);
    assert_false(n->w.line[17]);
    /* A tag is stripped, where the driver has asked for that VLAN. */
    memset(with_header, 0, sizeof(v));
    memmove(frame + 16, frame + 12, 100);
    memcpy(frame + 12, (const uint8_t[]){0x81, 0, 0, 7}, 4);
    assert_true(arrive(n, with_header, 120 + sizeof(v)));
    peek(n, DONE_RING + 16 * 6, words, sizeof(words));
    assert_int_equal(words[3] >> 31, 0);
    uint32_t vlans = 1u << 7;
    poke(n, AREA + 136, &vlans, 4);
    set(n, 1, CMD, 0xcafe0005);
    assert_true(arrive(n, with_header, 120 + sizeof(v)));
    peek(n, DONE_RING + 16 * 6, words, sizeof(words));
    assert_int_equal(words[2], 116 | 0x8000 | 7u << 16);
    /* Without buffers it waits, and asks to be told. */
    memset(frame, 0xff, 6);
    memset(frame + 12, 0, 2);
    while (arrive(n, with_header, 60 + sizeof(v)))
        ;
    uint8_t told;
    peek(n, QUEUES + 256, &told, 1);
    assert_int_equal(told, 1);
    const uint64_t again[2] = {BUFFERS + 0x10000, 1536}; /* the ring has turned over */
    poke(n, RX_RING, again, 16);
    unsigned before = n->resumes;
    set(n, 0, RXPROD, 1);
    world_drain(&n->w);
    assert_true(n->resumes > before);
    assert_true(arrive(n, with_header, 60 + sizeof(v)));
    peek(n, QUEUES + 256, &told, 1);
    assert_int_equal(told, 0);
    unmake(n);
}

static void test_vmxnet3_refuses_nonsense(void **state)
{
    struct nic *n = make(mull_vmxnet3_create, false);

    set(n, 1, DSAL, 0xfffff000);
    set(n, 1, CMD, 0xcafe0000);
    assert_int_equal(get(n, 1, CMD), 1);
    start_vmxnet3(n, 0);
    set(n, 1, CMD, 0xcafe0002);
    set(n, 1, DSAL, AREA);
    const struct {
        uint64_t at;
        uint32_t value;
    } bad[] = {{AREA, 1},          {AREA + 60, 0x00000000},  {AREA + 60, 0x01090000},
               {QUEUES + 56, 0},   {QUEUES + 56, 5000},      {QUEUES + 72, 25},
               {QUEUES + 20, ~0u}, {QUEUES + 256 + 64, 9000}};
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        uint32_t kept, second = ~0u;
        peek(n, bad[i].at, &kept, 4);
        poke(n, bad[i].at, &bad[i].value, 4);
        if (bad[i].at == QUEUES + 20)
            poke(n, QUEUES + 16, &second, 4);
        set(n, 1, CMD, 0xcafe0000);
        assert_int_equal(get(n, 1, CMD), 1);
        poke(n, bad[i].at, &kept, 4);
        if (bad[i].at == QUEUES + 20)
            poke(n, QUEUES + 16, &(uint32_t){TX_RING}, 4);
    }
    set(n, 1, CMD, 0xcafe0000);
    assert_int_equal(get(n, 1, CMD), 0);
    unmake(n);
}

/* ---- State ---- */

static void move(struct nic *from, struct nic *to)
{
    struct mull_state_writer *writer;
    struct mull_state_reader *reader;
    struct mull_state_section section;
    struct mull_error err = {0};
    size_t size;

    from->device->ops->quiesce(from->device);
    assert_int_equal(mull_state_writer_buffer(&writer, &err), 0);
    assert_int_equal(mull_state_write_ram(writer, from->w.env.memory, &err), 0);
    assert_int_equal(mull_state_write(writer, from->device->name, 0, from->device->ops->state,
                                      from->device->object, &err),
                     0);
    assert_int_equal(mull_state_write_end(writer, &err), 0);
    const uint8_t *data = mull_state_writer_data(writer, &size);
    to->device->ops->quiesce(to->device);
    assert_int_equal(mull_state_reader_buffer(data, size, &reader, &err), 0);
    while (mull_state_next(reader, &section, &err) == 1) {
        if (section.kind == MULL_STATE_RAM)
            assert_int_equal(mull_state_read_ram(reader, to->w.env.memory, &err), 0);
        else if (mull_state_read(reader, to->device->ops->state, to->device->object, &err))
            fail_msg("%s", err.message);
    }
    mull_state_reader_destroy(reader);
    mull_state_writer_destroy(writer);
    to->device->ops->resume(to->device);
    world_drain(&to->w);
}

/* Saved with a frame that could not be sent: whoever goes on sends it. */
static void test_moved_while_sending(void **state)
{
    for (unsigned model = 0; model < 2; model++) {
        create_fn *create = model ? mull_vmxnet3_create : mull_e1000e_create;
        struct nic *a = make(create, false), *b = make(create, false);
        uint8_t frame[200];
        size_t len = tcp_packet(frame, 100);

        if (model)
            start_vmxnet3(a, 0);
        else
            start_e1000e(a);
        poke(a, BUFFERS, frame, len);
        a->full_after = 0;
        if (model) {
            tx_desc(a, 0, BUFFERS, (uint32_t)len, 0x3000);
            set(a, 0, TXPROD, 1);
        } else {
            const uint64_t desc[2] = {BUFFERS, len | 0x09000000};
            poke(a, TX_RING, desc, 16);
            set(a, 0, TDT, 1);
        }
        world_drain(&a->w);
        assert_int_equal(a->sent, 0);
        move(a, b);
        assert_int_equal(b->sent, 1);
        assert_memory_equal(b->last, frame, len);
        uint8_t broadcast[60];
        memset(broadcast, 0xff, sizeof(broadcast));
        assert_true(arrive(b, broadcast, 60));
        uint32_t word;
        peek(b, model ? DONE_RING + 8 : RX_RING + 12, &word, 4);
        assert_int_equal(word & 0x3fff, 60);
        unmake(a);
        unmake(b);
    }
}

static void test_reset_is_new(void **state)
{
    for (unsigned model = 0; model < 2; model++) {
        struct nic *n = make(model ? mull_vmxnet3_create : mull_e1000e_create, false);
        if (model)
            start_vmxnet3(n, 0);
        else
            start_e1000e(n);
        n->device->ops->reset(n->device);
        uint8_t broadcast[60];
        memset(broadcast, 0xff, sizeof(broadcast));
        assert_true(arrive(n, broadcast, 60)); /* nobody listens: lost */
        uint32_t word;
        peek(n, model ? DONE_RING + 12 : RX_RING + 8, &word, 4);
        assert_int_equal(word, 0);
        unmake(n);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_offload_sums_and_segments),
        cmocka_unit_test(test_parse_refuses_what_is_short),
        cmocka_unit_test(test_e1000e_identity),
        cmocka_unit_test(test_e1000e_sends),
        cmocka_unit_test(test_e1000e_leaves_segments_to_a_tap),
        cmocka_unit_test(test_e1000e_receives),
        cmocka_unit_test(test_e1000e_msix),
        cmocka_unit_test(test_e1000e_throttles),
        cmocka_unit_test(test_vmxnet3_sends),
        cmocka_unit_test(test_vmxnet3_receives),
        cmocka_unit_test(test_vmxnet3_refuses_nonsense),
        cmocka_unit_test(test_moved_while_sending),
        cmocka_unit_test(test_reset_is_new),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
