/*
 * The 82574L's rings: frames out of the transmit ring (legacy, context and data descriptors) and
 * into the receive ring (legacy, extended, packet split). Each descriptor is read once and bounded
 * before use. Sections are those of the 82574 datasheet.
 */
#include <libdeflate.h>
#include <netinet/in.h>
#include <string.h>

#include "device/net/e1000e_internal.h"

#define DESC_SIZE 16
#define SPLIT_SIZE 32
#define MAX_DESC 128    /* of one packet */
#define TURN_BUDGET 256 /* packets before everybody else has a turn */
#define FCS 4
#define SHORT_MAX 1518 /* with a VLAN tag, without FCS */

#define TCTL_EN 2u
#define RCTL_EN 0x00000002u
#define RCTL_UPE 0x00000008u
#define RCTL_MPE 0x00000010u
#define RCTL_LPE 0x00000020u
#define RCTL_BAM 0x00008000u
#define RCTL_VFE 0x00040000u
#define RCTL_BSEX 0x02000000u
#define RCTL_SECRC 0x04000000u
#define RFCTL_EXTEN 0x00008000u
#define RXCSUM_IPOFL 0x100u
#define RXCSUM_TUOFL 0x200u

/* Transmit descriptors (7.2.10): the command is the high byte of the third word. */
#define CMD_EOP 0x01u
#define CMD_IC 0x04u  /* legacy: insert a checksum */
#define CMD_TSE 0x04u /* data: segment */
#define CMD_RS 0x08u
#define CMD_DEXT 0x20u
#define CMD_VLE 0x40u
#define TUCMD_IPV4 0x02u
#define POPTS_IP 0x1u
#define POPTS_TCP 0x2u

/* Status and errors of received frames (7.1.5.2). */
#define RX_DD 0x01u
#define RX_EOP 0x02u
#define RX_IXSM 0x04u
#define RX_VP 0x08u
#define RX_UDPCS 0x10u
#define RX_TCPCS 0x20u
#define RX_IPCS 0x40u
#define RX_TCPE 0x20000000u
#define RX_IPE 0x40000000u

static uint64_t base_of(const struct e1000e *e, unsigned low)
{
    return e1000e_get(e, low) | (uint64_t)e1000e_get(e, low + 4) << 32;
}

static void count_kind(struct e1000e *e, const uint8_t *mac, unsigned multicast, unsigned broadcast)
{
    static const uint8_t all[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

    if (!memcmp(mac, all, 6))
        e1000e_count(e, broadcast, 1);
    else if (mac[0] & 1)
        e1000e_count(e, multicast, 1);
}

/* ---- Sending ---- */

struct packet {
    uint32_t len, descriptors;
    struct e1000e_context context; /* as the packet's own context descriptors leave it */
    uint8_t command, options;      /* of the first data descriptor */
    uint8_t css, cso;              /* legacy: where to sum from, and to */
    uint16_t tci;
    bool legacy, tag, begun, bad;
    uint8_t report[MAX_DESC / 8]; /* bit n: write descriptor n's status back */
};

static void read_context(struct e1000e_context *c, uint64_t low, uint64_t high)
{
    *c = (struct e1000e_context){
        .ipcss = (uint8_t)low,
        .ipcso = (uint8_t)(low >> 8),
        .ipcse = (uint16_t)(low >> 16),
        .tucss = (uint8_t)(low >> 32),
        .tucso = (uint8_t)(low >> 40),
        .tucse = (uint16_t)(low >> 48),
        .command = (uint8_t)(high >> 24),
        .header = (uint8_t)(high >> 40),
        .mss = (uint16_t)(high >> 48),
    };
}

/* A descriptor with data. @return whether it is the packet's last */
static bool add_data(struct e1000e *e, struct packet *p, uint64_t address, uint64_t high)
{
    uint8_t *frame = e->nic.out + MULL_NET_HDR_SIZE, command = (uint8_t)(high >> 24);
    bool legacy = !(command & CMD_DEXT);
    uint32_t n = (uint32_t)high & (legacy ? 0xffff : 0xfffff);

    if (!p->begun) {
        p->begun = true;
        p->legacy = legacy;
        p->command = command;
        p->options = (uint8_t)(high >> 40);
        p->css = (uint8_t)(high >> 40);
        p->cso = (uint8_t)(high >> 16);
    }
    /* Four bytes stay free for a VLAN tag. */
    p->bad = p->bad || n > MULL_NET_FRAME_MAX - 4 - p->len ||
             (n && mull_mem_read(e->nic.env.memory, address, frame + p->len, n));
    p->len += p->bad ? 0 : n;
    if (!(command & CMD_EOP))
        return false;
    p->tag = (command & CMD_VLE) && (e1000e_get(e, E1000E_CTRL) & E1000E_CTRL_VME);
    p->tci = (uint16_t)(high >> 48);
    return true;
}

/* Gather the packet at [head, tail). @return whether it is all there */
static bool gather(struct e1000e *e, uint32_t head, uint32_t tail, uint32_t count, struct packet *p)
{
    *p = (struct packet){.context = e->context};
    while (head != tail) {
        uint64_t at = base_of(e, E1000E_TDBAL) + (uint64_t)head * DESC_SIZE, words[2];
        unsigned n = p->descriptors++;
        if (mull_mem_read(e->nic.env.memory, at, words, sizeof(words))) {
            p->bad = true;
            return true;
        }
        uint8_t command = (uint8_t)(words[1] >> 24);
        if (command & CMD_RS)
            p->report[n / 8] |= (uint8_t)(1u << n % 8);
        if ((command & CMD_DEXT) && !(words[1] >> 20 & 15))
            read_context(&p->context, words[0], words[1]);
        else if (add_data(e, p, words[0], words[1]))
            return true;
        if (p->descriptors == MAX_DESC) {
            p->bad = true; /* more than any packet takes: dropped as far as it goes */
            return true;
        }
        head = head + 1 == count ? 0 : head + 1;
    }
    /* Context descriptors alone are done with; parts of a packet wait for the rest. */
    return !p->begun && p->descriptors;
}

static uint32_t shifted(uint32_t offset, uint32_t by)
{
    return offset ? offset + by : 0;
}

static void offloads_of(const struct packet *p, uint32_t by, struct mull_nic_offload *o)
{
    const struct e1000e_context *c = &p->context;

    *o = (struct mull_nic_offload){0};
    if (p->legacy) {
        o->sum = p->command & CMD_IC;
        o->sum_start = p->css + by;
        o->sum_at = p->cso + by;
        return;
    }
    if ((p->command & CMD_TSE) && c->mss) {
        o->mss = c->mss;
        return;
    }
    o->ip_sum = (p->options & POPTS_IP) && (c->command & TUCMD_IPV4);
    o->ip_start = c->ipcss + by;
    o->ip_at = c->ipcso + by;
    o->ip_end = c->ipcse ? shifted(c->ipcse, by) + 1 : 0; /* ipcse is inclusive (7.2.6.2) */
    o->sum = p->options & POPTS_TCP;
    o->sum_start = c->tucss + by;
    o->sum_at = c->tucso + by;
    o->sum_end = c->tucse ? shifted(c->tucse, by) + 1 : 0;
}

/* @return false: the back end is full */
static bool send_packet(struct e1000e *e, struct packet *p)
{
    uint8_t *frame = e->nic.out + MULL_NET_HDR_SIZE;
    struct mull_nic_offload offload;
    uint32_t by = 0;

    if (p->bad || p->len < MULL_ETH_HEADER)
        return true;
    if (p->tag) {
        const uint8_t tag[4] = {0x81, 0x00, (uint8_t)(p->tci >> 8), (uint8_t)p->tci};
        memmove(frame + 16, frame + 12, p->len - 12);
        memcpy(frame + 12, tag, sizeof(tag));
        p->len += by = sizeof(tag);
    }
    offloads_of(p, by, &offload);
    if (!mull_nic_send(&e->nic, p->len, &offload))
        return false;
    if (offload.mss)
        e1000e_count(e, E1000E_TSCTC, 1);
    e1000e_count(e, E1000E_GPTC, 1);
    e1000e_count(e, E1000E_TPT, 1);
    e1000e_count64(e, E1000E_GOTC, p->len + FCS);
    e1000e_count64(e, E1000E_TOT, p->len + FCS);
    count_kind(e, frame, E1000E_MPTC, E1000E_BPTC);
    return true;
}

/* The descriptors from @head on are done. @return whether the driver wants to hear of one */
static bool write_back(struct e1000e *e, const struct packet *p, uint32_t head, uint32_t count)
{
    const uint8_t done = 1;
    bool told = false;

    for (uint32_t i = 0; i < p->descriptors; i++) {
        if (p->report[i / 8] >> i % 8 & 1) {
            mull_mem_write(e->nic.env.memory,
                           base_of(e, E1000E_TDBAL) + (uint64_t)head * DESC_SIZE + 12, &done, 1);
            told = true;
        }
        head = head + 1 == count ? 0 : head + 1;
    }
    return told;
}

void e1000e_transmit(struct e1000e *e)
{
    uint32_t count = e1000e_get(e, E1000E_TDLEN) / DESC_SIZE, causes = 0;
    struct packet p;

    if (!(e1000e_get(e, E1000E_TCTL) & TCTL_EN) || e1000e_get(e, E1000E_TDH) >= count ||
        e1000e_get(e, E1000E_TDT) >= count)
        return;
    for (unsigned i = 0;; i++) {
        uint32_t head = e1000e_get(e, E1000E_TDH), tail = e1000e_get(e, E1000E_TDT);
        if (i == TURN_BUDGET) {
            e->kicked = true;
            mull_nic_post(&e->nic);
            break;
        }
        if (head == tail || !gather(e, head, tail, count, &p))
            break;
        if (!send_packet(e, &p)) {
            e->kicked = true; /* when the back end is writable */
            break;
        }
        e->context = p.context;
        if (write_back(e, &p, head, count))
            causes |= E1000E_TXDW | E1000E_TXQ0;
        e->reg[E1000E_TDH / 4] = (head + p.descriptors) % count;
        if (e->reg[E1000E_TDH / 4] == tail)
            causes |= E1000E_TXQE;
    }
    if (causes)
        e1000e_raise(e, causes);
}

/* ---- Receiving ---- */

static bool in_addresses(const struct e1000e *e, const uint8_t *mac)
{
    uint32_t low = mac[0] | (uint32_t)mac[1] << 8 | (uint32_t)mac[2] << 16 | (uint32_t)mac[3] << 24;
    uint32_t high = 0x80000000u | mac[4] | (uint32_t)mac[5] << 8;

    for (unsigned i = 0; i < 16; i++)
        if (e1000e_get(e, E1000E_RA + 8 * i) == low &&
            (e1000e_get(e, E1000E_RA + 8 * i + 4) & 0x8000ffffu) == high)
            return true;
    return false;
}

/* The multicast hash: twelve bits of the address (10.2.5.23; RCTL.MO says which). */
static bool in_hash(const struct e1000e *e, const uint8_t *mac)
{
    static const uint8_t shift[4] = {4, 3, 2, 0};
    unsigned mo = e1000e_get(e, E1000E_RCTL) >> 12 & 3;
    uint32_t hash = ((uint32_t)mac[4] | (uint32_t)mac[5] << 8) >> shift[mo] & 0xfff;

    return e1000e_get(e, E1000E_MTA + hash / 32 * 4) >> (hash & 31) & 1;
}

/* Does the driver want this frame (7.1.1)? */
static bool wanted(const struct e1000e *e, const struct mull_nic_frame *f)
{
    static const uint8_t all[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    uint32_t rctl = e1000e_get(e, E1000E_RCTL);
    uint16_t vid = f->headers.tci & 0xfff;

    if (!(rctl & RCTL_EN) || (!(rctl & RCTL_LPE) && f->len > SHORT_MAX))
        return false;
    if ((rctl & RCTL_VFE) && f->headers.vlan &&
        !(e1000e_get(e, E1000E_VFTA + vid / 32 * 4u) >> (vid & 31) & 1))
        return false;
    if (!memcmp(f->data, all, 6) && (rctl & RCTL_BAM))
        return true;
    if (in_addresses(e, f->data))
        return true;
    if (f->data[0] & 1)
        return (rctl & RCTL_MPE) || in_hash(e, f->data);
    return (rctl & RCTL_UPE) != 0;
}

static uint32_t buffer_size(uint32_t rctl)
{
    static const uint16_t small[4] = {2048, 1024, 512, 256};
    uint32_t code = rctl >> 16 & 3, flexible = rctl >> 27 & 15;

    if (flexible)
        return flexible * 1024;
    return (rctl & RCTL_BSEX) && code ? small[code] * 16u : small[code];
}

struct part {
    uint64_t address;
    uint32_t len;
};

struct layout {
    bool split, extended;
    uint32_t size;      /* of a descriptor */
    uint32_t count;     /* descriptors in the ring */
    uint32_t buffer[4]; /* a descriptor's buffers; 0: no such one */
};

static void find_layout(const struct e1000e *e, struct layout *l)
{
    uint32_t rctl = e1000e_get(e, E1000E_RCTL), psrctl = e1000e_get(e, E1000E_PSRCTL);

    *l = (struct layout){.extended = e1000e_get(e, E1000E_RFCTL) & RFCTL_EXTEN,
                         .split = (rctl >> 10 & 3) == 1,
                         .size = DESC_SIZE,
                         .buffer = {buffer_size(rctl)}};
    if (l->split) { /* 10.2.5.4 */
        l->size = SPLIT_SIZE;
        l->buffer[0] = (psrctl & 0x7f) * 128;
        for (unsigned i = 1; i < 4; i++)
            l->buffer[i] = (psrctl >> 8 * i & 0x3f) * 1024;
    }
    l->count = e1000e_get(e, E1000E_RDLEN) / l->size;
}

/* What the descriptor at @at can take of @left bytes. @return false: it is not in RAM */
static bool read_buffers(struct e1000e *e, const struct layout *l, uint64_t at, uint32_t left,
                         struct part parts[4])
{
    uint64_t address[4] = {0};

    if (mull_mem_read(e->nic.env.memory, at, address, l->split ? SPLIT_SIZE : 8))
        return false;
    for (unsigned i = 0; i < 4; i++) {
        uint32_t n = l->buffer[i] < left ? l->buffer[i] : left;
        parts[i] = (struct part){address[i], n};
        left -= n;
    }
    return true;
}

static uint32_t describe(const struct e1000e *e, const struct mull_nic_frame *f, bool stripped)
{
    uint32_t rxcsum = e1000e_get(e, E1000E_RXCSUM), status = stripped ? RX_VP : 0;

    if (!f->headers.l3)
        return status | RX_IXSM;
    if ((rxcsum & RXCSUM_IPOFL) && f->headers.ipv4)
        status |= RX_IPCS | (f->ip_good ? 0 : RX_IPE);
    if ((rxcsum & RXCSUM_TUOFL) && f->headers.l4)
        status |= RX_TCPCS | (f->headers.protocol == IPPROTO_UDP ? RX_UDPCS : 0) |
                  (f->l4_good ? 0 : RX_TCPE);
    return status;
}

/* Write a descriptor back; what says that it is done goes last. */
static void finish(struct e1000e *e, const struct layout *l, uint64_t at,
                   const struct part parts[4], uint32_t status, uint16_t tci)
{
    struct mull_memory *m = e->nic.env.memory;

    if (l->split) { /* 7.1.5.3 */
        const uint16_t rest[8] = {
            (uint16_t)parts[0].len, tci, 0, (uint16_t)parts[1].len, (uint16_t)parts[2].len,
            (uint16_t)parts[3].len, 0,   0};
        mull_mem_set(m, at, 0, 8);
        mull_mem_write(m, at + 12, rest, sizeof(rest));
        mull_mem_write32(m, at + 8, status);
    } else if (l->extended) { /* 7.1.5.2 */
        const uint16_t rest[2] = {(uint16_t)parts[0].len, tci};
        mull_mem_set(m, at, 0, 8);
        mull_mem_write(m, at + 12, rest, sizeof(rest));
        mull_mem_write32(m, at + 8, status);
    } else { /* 7.1.5.1 */
        mull_mem_write32(m, at + 8, parts[0].len);
        mull_mem_write32(m, at + 12, (status & 0xff) | (status >> 24) << 8 | (uint32_t)tci << 16);
    }
}

static void fill(struct e1000e *e, const struct mull_nic_frame *f, const struct layout *l,
                 uint32_t head, uint32_t status, uint16_t tci)
{
    uint32_t done = 0;

    while (done < f->len) {
        uint64_t at = base_of(e, E1000E_RDBAL) + (uint64_t)head * l->size;
        struct part parts[4] = {0};
        bool good = read_buffers(e, l, at, f->len - done, parts);
        for (unsigned i = 0; i < 4 && good; i++) {
            mull_mem_write(e->nic.env.memory, parts[i].address, f->data + done, parts[i].len);
            done += parts[i].len;
        }
        if (!good)
            done = f->len; /* a ring outside RAM: the frame is lost */
        finish(e, l, at, parts, done < f->len ? RX_DD : status | RX_DD | RX_EOP, tci);
        head = head + 1 == l->count ? 0 : head + 1;
    }
    e->reg[E1000E_RDH / 4] = head;
}

static void count_received(struct e1000e *e, const struct mull_nic_frame *f)
{
    e1000e_count(e, E1000E_GPRC, 1);
    e1000e_count(e, E1000E_TPR, 1);
    e1000e_count64(e, E1000E_GORC, f->len + FCS);
    e1000e_count64(e, E1000E_TOR, f->len + FCS);
    count_kind(e, f->data, E1000E_MPRC, E1000E_BPRC);
}

static void append_fcs(struct mull_nic_frame *f)
{
    uint32_t crc = libdeflate_crc32(0, f->data, f->len);

    memcpy(f->data + f->len, &crc, FCS);
    f->len += FCS;
}

bool e1000e_receive(struct mull_nic *nic, const struct mull_nic_frame *frame)
{
    struct e1000e *e = (struct e1000e *)nic;
    struct mull_nic_frame f = *frame;
    struct layout l;
    uint16_t tci = 0;

    if (!wanted(e, &f))
        return true;
    find_layout(e, &l);
    uint32_t room = l.buffer[0] + l.buffer[1] + l.buffer[2] + l.buffer[3];
    uint32_t head = e1000e_get(e, E1000E_RDH), tail = e1000e_get(e, E1000E_RDT);
    if (head >= l.count || tail >= l.count || !room)
        return true;
    bool strip = f.headers.vlan && (e1000e_get(e, E1000E_CTRL) & E1000E_CTRL_VME);
    if (strip) {
        memmove(f.data + 4, f.data, 12);
        f.data += 4;
        f.len -= 4;
        tci = f.headers.tci;
    }
    uint32_t needed =
        (f.len + (e1000e_get(e, E1000E_RCTL) & RCTL_SECRC ? 0 : FCS) + room - 1) / room;
    uint32_t free = (tail + l.count - head) % l.count;
    if (needed >= l.count)
        return true; /* it never fits */
    if (needed > free) {
        e->received |= E1000E_RXDMT0;
        return false;
    }
    count_received(e, &f);
    uint32_t status = describe(e, &f, strip);
    if (!(e1000e_get(e, E1000E_RCTL) & RCTL_SECRC))
        append_fcs(&f);
    fill(e, &f, &l, head, status, tci);
    e->received |= E1000E_RXT0 | E1000E_RXQ0;
    if (free - needed <= l.count >> (1 + (e1000e_get(e, E1000E_RCTL) >> 8 & 3)))
        e->received |= E1000E_RXDMT0;
    return true;
}

void e1000e_received(struct mull_nic *nic)
{
    struct e1000e *e = (struct e1000e *)nic;
    uint32_t causes = e->received;

    e->received = 0;
    if (causes)
        e1000e_raise(e, causes);
}
