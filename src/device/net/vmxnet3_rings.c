/*
 * VMXNET3's rings: frames out of transmit rings and into receive rings, with completions. Each
 * descriptor is read once and bounded before use.
 */
#include <netinet/in.h>
#include <stdatomic.h>
#include <string.h>

#include "device/net/vmxnet3_internal.h"

#define DESC_SIZE 16
#define MAX_TX_DESC 64  /* of one packet: 64 KiB in pages, and some */
#define MAX_RX_PARTS 24 /* of one frame */
#define TURN_BUDGET 256 /* packets before everybody else has a turn */

#define F_RXCSUM 1u
#define F_RXVLAN 4u

/* Of a transmit descriptor's third and fourth word. */
#define TX_LEN(w) ((w)&0x3fff ? (w)&0x3fff : 0x4000u)
#define TX_GEN(w) ((w) >> 14 & 1)
#define TX_MSSCOF(w) ((w) >> 18)
#define TX_HLEN(w) ((w)&0x3ff)
#define TX_OM(w) ((w) >> 10 & 3)
#define TX_EOP 0x1000u
#define TX_CQ 0x2000u
#define TX_TI 0x8000u
#define OM_CSUM 2
#define OM_TSO 3

/* Of a receive descriptor's third word. */
#define RX_LEN(w) ((w)&0x3fff ? (w)&0x3fff : 0x4000u)
#define RX_BODY 0x4000u
#define RX_GEN(w) ((w) >> 31)

/* Of a receive completion. */
#define DONE_EOP 0x4000u
#define DONE_SOP 0x8000u
#define DONE_NO_SUM 0x40000000u
#define DONE_STRIPPED 0x8000u
#define DONE_L4_GOOD 0x10000u
#define DONE_UDP 0x20000u
#define DONE_TCP 0x40000u
#define DONE_IP_GOOD 0x80000u
#define DONE_V6 0x100000u
#define DONE_V4 0x200000u
#define DONE_FRAGMENT 0x400000u
#define DONE_FCS 0x800000u
#define DONE_RX (3u << 24)
#define DONE_LRO (4u << 24)

#define MODE_UCAST 1u
#define MODE_MCAST 2u
#define MODE_BCAST 4u
#define MODE_ALL_MULTI 8u
#define MODE_PROMISC 16u

enum { STAT_TSO, STAT_TSO_BYTES, STAT_UCAST, STAT_MCAST = 4, STAT_BCAST = 6 };

struct tx_desc {
    uint64_t address;
    uint32_t word2, word3;
};

static bool ring_valid(const struct vmxnet3_ring *r, uint32_t max)
{
    return r->size && r->size <= max && r->next < r->size && r->gen <= 1 &&
           r->base <= UINT64_MAX - (uint64_t)max * DESC_SIZE;
}

bool vmxnet3_tx_valid(const struct vmxnet3_tx *q)
{
    return ring_valid(&q->ring, VMXNET3_RING_MAX) && ring_valid(&q->done, VMXNET3_RING_MAX) &&
           q->intr < VMXNET3_INTRS;
}

bool vmxnet3_rx_valid(const struct vmxnet3_rx *q)
{
    return ring_valid(&q->ring[0], VMXNET3_RING_MAX) &&
           (!q->ring[1].size || ring_valid(&q->ring[1], VMXNET3_RING_MAX)) &&
           ring_valid(&q->done, VMXNET3_DONE_MAX) && q->intr < VMXNET3_INTRS;
}

static void advance(struct vmxnet3_ring *r)
{
    if (++r->next == r->size) {
        r->next = 0;
        r->gen ^= 1;
    }
}

/* A completion: its generation bit, in the last word, goes last. */
static void complete(struct vmxnet3 *v, struct vmxnet3_ring *done, uint32_t w0, uint32_t w1,
                     uint32_t w2, uint32_t w3)
{
    const uint32_t words[3] = {w0, w1, w2};
    uint64_t at = done->base + (uint64_t)done->next * DESC_SIZE;

    mull_mem_write(v->nic.env.memory, at, words, sizeof(words));
    mull_mem_write32(v->nic.env.memory, at + 12, w3 | (uint32_t)done->gen << 31);
    advance(done);
}

static void count(uint64_t stats[VMXNET3_STATS], const uint8_t *mac, uint32_t len)
{
    static const uint8_t all[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    unsigned kind = !(mac[0] & 1) ? STAT_UCAST : memcmp(mac, all, 6) ? STAT_MCAST : STAT_BCAST;

    stats[kind]++;
    stats[kind + 1] += len;
}

/* ---- Sending ---- */

/* @return 1: it is the device's; 0: not yet; -1: not in RAM */
static int read_tx(struct vmxnet3 *v, const struct vmxnet3_ring *r, struct tx_desc *d)
{
    uint64_t at = r->base + (uint64_t)r->next * DESC_SIZE;

    if (mull_mem_read32(v->nic.env.memory, at + 8, &d->word2))
        return -1;
    if (TX_GEN(d->word2) != r->gen)
        return 0;
    if (mull_mem_read64(v->nic.env.memory, at, &d->address) ||
        mull_mem_read32(v->nic.env.memory, at + 12, &d->word3))
        return -1;
    return 1;
}

struct packet {
    uint32_t len;
    uint32_t first2, first3; /* words of the first descriptor: what to do with the packet */
    bool bad;                /* drop it, but complete it */
    uint32_t last;           /* index of the last descriptor */
    bool wants_completion;
};

/* Gather the packet at the ring's front into nic->out; *r moves behind it.
 * @return 1, 0 (not all of it is there yet) or -1 */
static int gather(struct vmxnet3 *v, struct vmxnet3_ring *r, struct packet *p)
{
    uint8_t *frame = v->nic.out + MULL_NET_HDR_SIZE;
    struct tx_desc d;

    *p = (struct packet){0};
    for (unsigned i = 0;; i++) {
        int got = i < MAX_TX_DESC ? read_tx(v, r, &d) : -1;
        if (got <= 0)
            return got;
        if (!i) {
            p->first2 = d.word2;
            p->first3 = d.word3;
        }
        uint32_t n = TX_LEN(d.word2);
        /* Four bytes stay free for a VLAN tag. */
        p->bad = p->bad || n > MULL_NET_FRAME_MAX - 4 - p->len ||
                 mull_mem_read(v->nic.env.memory, d.address, frame + p->len, n);
        p->len += p->bad ? 0 : n;
        p->last = r->next;
        advance(r);
        if (d.word3 & TX_EOP) {
            p->wants_completion = d.word3 & TX_CQ;
            return 1;
        }
    }
}

static void insert_tag(uint8_t *frame, uint32_t *len, uint16_t tci)
{
    const uint8_t tag[4] = {0x81, 0x00, (uint8_t)(tci >> 8), (uint8_t)tci};

    memmove(frame + 16, frame + 12, *len - 12);
    memcpy(frame + 12, tag, sizeof(tag));
    *len += sizeof(tag);
}

static bool send_packet(struct vmxnet3 *v, unsigned index, struct packet *p)
{
    struct mull_nic_offload offload = {0};
    uint8_t *frame = v->nic.out + MULL_NET_HDR_SIZE;
    uint32_t shift = 0;

    if (p->bad || p->len < MULL_ETH_HEADER)
        return true;
    if (p->first3 & TX_TI) {
        insert_tag(frame, &p->len, (uint16_t)(p->first3 >> 16));
        shift = 4;
    }
    if (TX_OM(p->first3) == OM_TSO && TX_MSSCOF(p->first2)) {
        offload.mss = TX_MSSCOF(p->first2);
    } else if (TX_OM(p->first3) == OM_CSUM) {
        offload.sum = true;
        offload.sum_start = TX_HLEN(p->first3) + shift;
        offload.sum_at = TX_MSSCOF(p->first2) + shift;
    }
    uint32_t len = p->len;
    if (!mull_nic_send(&v->nic, len, &offload))
        return false;
    if (offload.mss) {
        v->tx_stats[index][STAT_TSO]++;
        v->tx_stats[index][STAT_TSO_BYTES] += len;
    } else {
        count(v->tx_stats[index], frame, len);
    }
    return true;
}

void vmxnet3_transmit(struct vmxnet3 *v, unsigned index)
{
    struct vmxnet3_tx *q = &v->tx[index];
    struct packet p;
    bool told = false;

    for (unsigned i = 0; !q->stopped; i++) {
        struct vmxnet3_ring behind = q->ring;
        if (i == TURN_BUDGET) {
            v->kicks |= 1u << index;
            mull_nic_post(&v->nic);
            break;
        }
        int got = gather(v, &behind, &p);
        if (got < 0) {
            q->stopped = true;
            vmxnet3_queue_failed(v, true, index);
        }
        if (got <= 0)
            break;
        if (!send_packet(v, index, &p)) {
            v->kicks |= 1u << index; /* when the back end is writable */
            break;
        }
        q->ring = behind;
        if (p.wants_completion) {
            complete(v, &q->done, p.last, 0, 0, 0);
            told = true;
        }
    }
    if (told)
        vmxnet3_interrupt(v, q->intr);
}

/* ---- Receiving ---- */

static bool wanted(const struct vmxnet3 *v, const struct mull_nic_frame *f)
{
    static const uint8_t all[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    const uint8_t *mac = f->data;

    if (v->rx_mode & MODE_PROMISC)
        return true;
    uint16_t vid = f->headers.tci & 0xfff;
    if (f->headers.vlan && !(v->vlans[vid / 32] >> (vid & 31) & 1))
        return false;
    if (!(mac[0] & 1))
        return (v->rx_mode & MODE_UCAST) && !memcmp(mac, v->mac, 6);
    if (!memcmp(mac, all, 6))
        return (v->rx_mode & MODE_BCAST) != 0;
    if ((v->rx_mode & MODE_ALL_MULTI) || ((v->rx_mode & MODE_MCAST) && v->multicast_overflow))
        return true;
    for (unsigned i = 0; (v->rx_mode & MODE_MCAST) && i < v->nmulticast; i++)
        if (!memcmp(mac, v->multicast[i], 6))
            return true;
    return false;
}

struct part {
    uint64_t address;
    uint32_t index, len, ring;
};

/* The descriptor at a receive ring's front, if it is the device's. */
static bool front(struct vmxnet3 *v, const struct vmxnet3_ring *r, uint32_t *word)
{
    return r->size &&
           !mull_mem_read32(v->nic.env.memory, r->base + (uint64_t)r->next * DESC_SIZE + 8, word) &&
           RX_GEN(*word) == r->gen;
}

static bool take(struct vmxnet3 *v, struct vmxnet3_ring rings[2], unsigned ring, uint32_t word,
                 uint32_t left, struct part *p)
{
    struct vmxnet3_ring *r = &rings[ring];
    uint32_t room = RX_LEN(word);

    *p = (struct part){.index = r->next, .len = room < left ? room : left, .ring = ring};
    if (mull_mem_read64(v->nic.env.memory, r->base + (uint64_t)r->next * DESC_SIZE, &p->address))
        return false;
    advance(r);
    return true;
}

/* Find buffers: a head from the first ring, then bodies behind it or from the second one.
 * @return how many, 0: too few, -1: nonsense */
static int find_parts(struct vmxnet3 *v, struct vmxnet3_ring rings[2], uint32_t len,
                      struct part parts[MAX_RX_PARTS])
{
    uint32_t word, done = 0;
    unsigned n = 0;

    /* Bodies that the frame before had no use for are passed over. */
    for (uint32_t i = 0;; i++) {
        if (i == rings[0].size)
            return -1;
        if (!front(v, &rings[0], &word))
            return 0;
        if (!(word & RX_BODY))
            break;
        advance(&rings[0]);
    }
    for (unsigned ring = 0; done < len; n++) {
        if (n == MAX_RX_PARTS || (v->max_sg && n == v->max_sg) ||
            !take(v, rings, ring, word, len - done, &parts[n]))
            return -1;
        done += parts[n].len;
        if (done == len)
            continue;
        ring = front(v, &rings[0], &word) && (word & RX_BODY) ? 0 : 1;
        if (ring && !front(v, &rings[1], &word))
            return 0;
        if (ring && !(word & RX_BODY))
            return -1;
    }
    return (int)n;
}

static uint32_t describe(const struct vmxnet3 *v, const struct mull_nic_frame *f, bool *summed)
{
    const struct mull_net_headers *h = &f->headers;
    uint32_t word = DONE_FCS | (h->ipv4 ? DONE_V4 : 0) | (h->ipv6 ? DONE_V6 : 0) |
                    (h->fragment ? DONE_FRAGMENT : 0) |
                    (h->protocol == IPPROTO_TCP ? DONE_TCP : 0) |
                    (h->protocol == IPPROTO_UDP ? DONE_UDP : 0);

    *summed = (v->features & F_RXCSUM) && h->l4;
    if (*summed && f->l4_good)
        word |= DONE_L4_GOOD;
    if (*summed && f->ip_good)
        word |= DONE_IP_GOOD;
    return word;
}

/* Write frame and completions. */
static void fill(struct vmxnet3 *v, unsigned queue, const struct mull_nic_frame *f,
                 const struct part *parts, unsigned n, bool stripped)
{
    struct vmxnet3_rx *q = &v->rx[queue];
    uint32_t done = 0, word1 = 0;
    bool summed;
    uint32_t word3 = describe(v, f, &summed);

    if (f->mss && v->revision > 1) {
        uint32_t segments = mull_net_segments(f->len, &f->headers, f->mss);
        word1 = segments < 255 ? segments : 255;
        word3 |= DONE_LRO | f->mss;
    } else {
        word3 |= DONE_RX;
    }
    for (unsigned i = 0; i < n; i++) {
        const struct part *p = &parts[i];
        uint32_t word0 = p->index | (queue + p->ring * v->nrx) << 16 | (i ? 0 : DONE_SOP) |
                         (i + 1 == n ? DONE_EOP : 0) | (summed ? 0 : DONE_NO_SUM);
        uint32_t word2 = p->len | (stripped ? DONE_STRIPPED | (uint32_t)f->headers.tci << 16 : 0);
        mull_mem_write(v->nic.env.memory, p->address, f->data + done, p->len);
        complete(v, &q->done, word0, word1, word2, word3);
        done += p->len;
    }
}

/* The driver is to write RXPROD once it has refilled; the retry timer looks, too, because a driver
 * need not order its two accesses as that would take. */
static void ask_for_refill(struct vmxnet3 *v, unsigned queue, bool ask)
{
    const uint8_t flag = ask;
    v->rx[queue].asked = ask;
    mull_mem_write(v->nic.env.memory, v->queues + 256ull * (v->ntx + queue), &flag, 1);
}

bool vmxnet3_receive(struct mull_nic *nic, const struct mull_nic_frame *frame)
{
    struct vmxnet3 *v = (struct vmxnet3 *)nic;
    struct mull_nic_frame f = *frame;
    struct part parts[MAX_RX_PARTS];
    const unsigned queue = 0; /* without RSS all traffic goes to the first one */
    struct vmxnet3_rx *q = &v->rx[queue];

    if (!v->active || q->stopped || !wanted(v, &f))
        return true;
    bool strip = f.headers.vlan && (v->features & F_RXVLAN);
    if (strip) {
        memmove(f.data + 4, f.data, 12);
        f.data += 4;
        f.len -= 4;
        f.headers.payload = (uint16_t)(f.headers.payload ? f.headers.payload - 4 : 0);
    }
    struct vmxnet3_ring rings[2] = {q->ring[0], q->ring[1]};
    int n = find_parts(v, rings, f.len, parts);
    if (!n) {
        ask_for_refill(v, queue, true);
        atomic_thread_fence(memory_order_seq_cst);
        memcpy(rings, q->ring, sizeof(rings));
        n = find_parts(v, rings, f.len, parts);
    }
    if (n && q->asked)
        ask_for_refill(v, queue, false);
    if (!n)
        return false;
    if (n < 0)
        return true; /* dropped: it does not fit into what the driver offers */
    memcpy(q->ring, rings, sizeof(rings));
    fill(v, queue, &f, parts, (unsigned)n, strip);
    count(v->rx_stats[queue], f.data, f.len);
    q->told = true;
    return true;
}

void vmxnet3_received(struct mull_nic *nic)
{
    struct vmxnet3 *v = (struct vmxnet3 *)nic;

    for (unsigned i = 0; v->active && i < v->nrx; i++) {
        if (v->rx[i].told)
            vmxnet3_interrupt(v, v->rx[i].intr);
        v->rx[i].told = false;
    }
}
