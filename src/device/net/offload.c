/*
 * Checksums and TCP segmentation. See offload.h.
 */
#include "device/net/offload.h"

#include <arpa/inet.h>
#include <net/ethernet.h>
#include <netinet/in.h>
#include <string.h>

#define IPV6_HEADER 40
#define UDP_HEADER 8
#define TCP_HEADER 20
#define TCP_FIN 0x01
#define TCP_PSH 0x08
#define TCP_CWR 0x80

static uint16_t get16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

static uint32_t get32(const uint8_t *p)
{
    return (uint32_t)get16(p) << 16 | get16(p + 2);
}

static void put16(uint8_t *p, uint32_t value)
{
    p[0] = (uint8_t)(value >> 8);
    p[1] = (uint8_t)value;
}

static void put32(uint8_t *p, uint32_t value)
{
    put16(p, value >> 16);
    put16(p + 2, value);
}

/* ---- Headers ---- */

static void parse_l4(const uint8_t *frame, struct mull_net_headers *h, uint32_t at,
                     uint8_t protocol)
{
    uint32_t room = h->end - at;

    if (h->fragment)
        return;
    if (protocol == IPPROTO_UDP && room >= UDP_HEADER) {
        h->payload = (uint16_t)(at + UDP_HEADER);
    } else if (protocol == IPPROTO_TCP && room >= TCP_HEADER) {
        uint32_t header = 4u * (frame[at + 12] >> 4);
        if (header < TCP_HEADER || header > room)
            return;
        h->payload = (uint16_t)(at + header);
    } else {
        return;
    }
    h->l4 = (uint16_t)at;
    h->protocol = protocol;
}

/* An IP packet whose stated length does not fit (a segmented one may say 0) goes on to the frame's
 * end. */
static uint32_t packet_end(uint32_t at, uint32_t total, uint32_t least, uint32_t len)
{
    return total < least || total > len - at ? len : at + total;
}

static void parse_ipv4(const uint8_t *frame, uint32_t len, uint32_t at, struct mull_net_headers *h)
{
    if (len - at < 20 || frame[at] >> 4 != 4)
        return;
    uint32_t header = 4u * (frame[at] & 15);
    if (header < 20 || header > len - at)
        return;
    h->ipv4 = true;
    h->l3 = (uint16_t)at;
    h->end = packet_end(at, get16(frame + at + 2), header, len);
    h->fragment = get16(frame + at + 6) & 0x3fff; /* more fragments, or an offset */
    parse_l4(frame, h, at + header, frame[at + 9]);
}

static void parse_ipv6(const uint8_t *frame, uint32_t len, uint32_t at, struct mull_net_headers *h)
{
    if (len - at < IPV6_HEADER || frame[at] >> 4 != 6)
        return;
    h->ipv6 = true;
    h->l3 = (uint16_t)at;
    uint32_t total = get16(frame + at + 4);
    h->end = packet_end(at, total ? total + IPV6_HEADER : 0, IPV6_HEADER, len);
    uint32_t next = at + IPV6_HEADER;
    uint8_t protocol = frame[at + 6];
    /* Hop-by-hop options, routing and destination options (RFC 8200, 4). */
    for (unsigned i = 0; i < 4 && h->end - next >= 8; i++) {
        if (protocol != IPPROTO_HOPOPTS && protocol != IPPROTO_ROUTING &&
            protocol != IPPROTO_DSTOPTS)
            break;
        uint32_t size = 8u * (frame[next + 1] + 1u);
        if (size > h->end - next)
            return;
        protocol = frame[next];
        next += size;
    }
    h->fragment = protocol == IPPROTO_FRAGMENT;
    parse_l4(frame, h, next, protocol);
}

void mull_net_parse(const uint8_t *frame, uint32_t len, struct mull_net_headers *out)
{
    uint32_t at = MULL_ETH_HEADER;

    memset(out, 0, sizeof(*out));
    out->end = len;
    if (len < at)
        return;
    uint16_t type = get16(frame + 12);
    if (type == ETHERTYPE_VLAN && len >= at + 4) {
        out->vlan = true;
        out->tci = get16(frame + 14);
        type = get16(frame + 16);
        at += 4;
    }
    if (type == ETHERTYPE_IP)
        parse_ipv4(frame, len, at, out);
    else if (type == ETHERTYPE_IPV6)
        parse_ipv6(frame, len, at, out);
}

/* ---- Checksums ---- */

uint64_t mull_net_sum(const void *data, uint32_t len, uint64_t sum)
{
    const uint8_t *p = data;

    /* The sum of 16-bit words is the same, folded, as that of wider ones (RFC 1071, 2). */
    for (; len >= 4; p += 4, len -= 4) {
        uint32_t word;
        memcpy(&word, p, 4);
        sum += word;
    }
    if (len >= 2) {
        uint16_t word;
        memcpy(&word, p, 2);
        sum += word;
        p += 2;
        len -= 2;
    }
    if (len) {
        const uint8_t last[2] = {*p, 0};
        uint16_t word;
        memcpy(&word, last, 2);
        sum += word;
    }
    return sum;
}

uint16_t mull_net_fold(uint64_t sum)
{
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)~sum;
}

uint64_t mull_net_pseudo(const uint8_t *frame, const struct mull_net_headers *h)
{
    const uint8_t *ip = frame + h->l3;
    uint64_t sum = h->ipv4 ? mull_net_sum(ip + 12, 8, 0) : mull_net_sum(ip + 8, 32, 0);

    return sum + htons(h->protocol) + htonl(h->end - h->l4);
}

void mull_net_insert_sum(uint8_t *frame, uint32_t len, uint32_t start, uint32_t end, uint32_t at)
{
    if (end > len)
        end = len;
    if (start >= end || at < start || at + 2 > end)
        return;
    uint16_t sum = mull_net_fold(mull_net_sum(frame + start, end - start, 0));
    memcpy(frame + at, &sum, sizeof(sum));
}

bool mull_net_ip_sum_good(const uint8_t *frame, const struct mull_net_headers *h)
{
    uint32_t header = 4u * (frame[h->l3] & 15);

    return h->ipv4 && !mull_net_fold(mull_net_sum(frame + h->l3, header, 0));
}

bool mull_net_l4_sum_good(const uint8_t *frame, const struct mull_net_headers *h)
{
    if (!h->l4)
        return false;
    if (h->protocol == IPPROTO_UDP) {
        uint32_t length = get16(frame + h->l4 + 4);
        if (length != h->end - h->l4)
            return false;
        if (h->ipv4 && !get16(frame + h->l4 + 6))
            return true; /* RFC 768: the sender made none */
    }
    return !mull_net_fold(mull_net_sum(frame + h->l4, h->end - h->l4, mull_net_pseudo(frame, h)));
}

/* ---- Segmentation ---- */

static void put_ip_lengths(uint8_t *frame, uint32_t end, const struct mull_net_headers *h)
{
    uint8_t *ip = frame + h->l3;

    if (h->ipv4) {
        uint32_t header = 4u * (ip[0] & 15);
        put16(ip + 2, end - h->l3);
        put16(ip + 10, 0);
        uint16_t sum = mull_net_fold(mull_net_sum(ip, header, 0));
        memcpy(ip + 10, &sum, 2);
    } else {
        put16(ip + 4, end - h->l3 - IPV6_HEADER);
    }
}

void mull_net_prepare_tcp(uint8_t *frame, uint32_t len, const struct mull_net_headers *h)
{
    struct mull_net_headers whole = *h;

    whole.end = len;
    put_ip_lengths(frame, len, h);
    uint16_t sum = (uint16_t)~mull_net_fold(mull_net_pseudo(frame, &whole));
    memcpy(frame + h->l4 + 16, &sum, sizeof(sum));
}

uint32_t mull_net_segments(uint32_t len, const struct mull_net_headers *h, uint32_t mss)
{
    uint32_t payload = len - h->payload;
    return payload ? (payload + mss - 1) / mss : 1;
}

uint32_t mull_net_segment(const uint8_t *frame, uint32_t len, const struct mull_net_headers *h,
                          uint32_t mss, uint32_t index, uint8_t *out)
{
    struct mull_net_headers part = *h;
    uint32_t offset = mss * index, left = len - h->payload - offset;
    uint32_t size = left < mss ? left : mss;
    uint8_t *tcp = out + h->l4;

    memcpy(out, frame, h->payload);
    memcpy(out + h->payload, frame + h->payload + offset, size);
    part.end = h->payload + size;
    if (h->ipv4)
        put16(out + h->l3 + 4, get16(frame + h->l3 + 4) + index);
    put_ip_lengths(out, part.end, h);
    put32(tcp + 4, get32(tcp + 4) + offset);
    if (size < left)
        tcp[13] &= (uint8_t) ~(TCP_FIN | TCP_PSH);
    if (index)
        tcp[13] &= (uint8_t)~TCP_CWR;
    put16(tcp + 16, 0);
    uint16_t sum = mull_net_fold(mull_net_sum(tcp, part.end - h->l4, mull_net_pseudo(out, &part)));
    memcpy(tcp + 16, &sum, sizeof(sum));
    return part.end;
}
