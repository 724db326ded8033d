/* Receive-side scaling of the virtio NIC. See net_rss.h; sections are those of virtio 1.2. */
#include "device/virtio/net_rss.h"

#include <endian.h>
#include <errno.h>
#include <linux/virtio_net.h>
#include <netinet/in.h>
#include <string.h>

#include "device/net/offload.h"

#define PAIR_BITS 0x7fffu /* of struct rss_rq_id (5.1.6.5.6.1): bits 1 to 16 of a queue's index */

static uint16_t get16(const uint8_t *at)
{
    return (uint16_t)(at[0] | at[1] << 8);
}

static uint32_t get32(const uint8_t *at)
{
    return get16(at) | (uint32_t)get16(at + 2) << 16;
}

/* ---- Configuration ---- */

/* The key at the end of both commands. A shorter one than the longest ends in zeroes. */
static bool read_key(struct mull_rss *rss, const uint8_t *at, size_t len)
{
    if (len < 1 || at[0] > MULL_RSS_KEY || at[0] > len - 1)
        return false;
    memset(rss->key, 0, sizeof(rss->key));
    memcpy(rss->key, at + 1, at[0]);
    return true;
}

bool mull_rss_fits(const struct mull_rss *rss, uint16_t pairs)
{
    bool fits = rss->unclassified < pairs;

    for (unsigned i = 0; i <= rss->mask; i++)
        fits &= rss->table[i] < pairs;
    return fits;
}

bool mull_rss_configure(struct mull_rss *rss, const uint8_t *body, size_t len, uint16_t max_pairs,
                        uint16_t *pairs)
{
    struct mull_rss r = {.steering = true};

    if (len < 8)
        return false;
    r.types = get32(body);
    r.mask = get16(body + 4);
    r.unclassified = get16(body + 6) & PAIR_BITS;
    size_t entries = (size_t)r.mask + 1, at = 8 + 2 * entries;
    if ((r.types & ~MULL_RSS_TYPES) || entries > MULL_RSS_TABLE || (entries & r.mask) ||
        len < at + 2)
        return false;
    for (size_t i = 0; i < entries; i++)
        r.table[i] = get16(body + 8 + 2 * i) & PAIR_BITS;
    uint16_t senders = get16(body + at), used = senders;
    if (!senders || senders > max_pairs || !mull_rss_fits(&r, max_pairs) ||
        !read_key(&r, body + at + 2, len - at - 2))
        return false;
    while (!mull_rss_fits(&r, used))
        used++;
    *rss = r;
    *pairs = used;
    return true;
}

bool mull_rss_configure_hash(struct mull_rss *rss, const uint8_t *body, size_t len)
{
    struct mull_rss r = {0};

    if (len < 12)
        return false;
    r.types = get32(body);
    if ((r.types & ~MULL_RSS_TYPES) || !read_key(&r, body + 12, len - 12))
        return false;
    *rss = r;
    return true;
}

/* ---- The hash (5.1.6.4.3) ---- */

/* Toeplitz: the key, shifted by each bit's place, where a bit of the input is set. */
static uint32_t toeplitz(const uint8_t *key, uint32_t hash, unsigned at, const uint8_t *input,
                         unsigned len)
{
    for (unsigned i = 0; i < len; i++, at++) {
        uint64_t window = 0; /* 40 bits of the key from byte @at on */
        for (unsigned k = 0; k < 5; k++)
            window = window << 8 | (at + k < MULL_RSS_KEY ? key[at + k] : 0);
        for (unsigned bit = 0; bit < 8; bit++)
            if (input[i] & (0x80u >> bit))
                hash ^= (uint32_t)(window >> (8 - bit));
    }
    return hash;
}

uint16_t mull_rss_hash(const struct mull_rss *rss, const uint8_t *frame, uint32_t len,
                       uint32_t *hash)
{
    struct mull_net_headers h;

    *hash = 0;
    if (!rss->types)
        return VIRTIO_NET_HASH_REPORT_NONE;
    mull_net_parse(frame, len, &h);
    if (!h.l3)
        return VIRTIO_NET_HASH_REPORT_NONE;
    /* Types and reports of IPv6 follow those of IPv4 in the same order. */
    unsigned family = h.ipv4 ? 0 : 3, kind = 0;
    if (h.l4 && h.protocol == IPPROTO_TCP && rss->types >> (family + 1) & 1)
        kind = 1;
    else if (h.l4 && h.protocol == IPPROTO_UDP && rss->types >> (family + 2) & 1)
        kind = 2;
    else if (!(rss->types >> family & 1))
        return VIRTIO_NET_HASH_REPORT_NONE;
    unsigned addresses = h.ipv4 ? 8 : 32;
    *hash = toeplitz(rss->key, 0, 0, frame + h.l3 + (h.ipv4 ? 12 : 8), addresses);
    if (kind)
        *hash = toeplitz(rss->key, *hash, addresses, frame + h.l4, 4);
    return (uint16_t)(VIRTIO_NET_HASH_REPORT_IPv4 + family + kind);
}

unsigned mull_rss_pair(const struct mull_rss *rss, uint16_t report, uint32_t hash)
{
    return report == VIRTIO_NET_HASH_REPORT_NONE ? rss->unclassified : rss->table[hash & rss->mask];
}

/* ---- State ---- */

static int rss_loaded(void *object, uint32_t version, struct mull_error *err)
{
    struct mull_rss *rss = object;
    size_t entries = (size_t)rss->mask + 1;

    if ((rss->types & ~MULL_RSS_TYPES) || entries > MULL_RSS_TABLE || (entries & rss->mask))
        return mull_fail(err, EINVAL,
                         "virtio-net: saved receive-side scaling with hash types %#x and %zu "
                         "entries is not valid",
                         rss->types, entries);
    return 0;
}

const struct mull_state_desc mull_rss_desc = {
    .name = "virtio-net-rss",
    .version = 1,
    .oldest = 1,
    .fields = (const struct mull_field[]){MULL_FIELD(struct mull_rss, steering),
                                          MULL_FIELD(struct mull_rss, types),
                                          MULL_FIELD(struct mull_rss, mask),
                                          MULL_FIELD(struct mull_rss, unclassified),
                                          MULL_FIELD_ARRAY(struct mull_rss, table),
                                          MULL_FIELD_BLOB(struct mull_rss, key), MULL_FIELDS_END},
    .after_load = rss_loaded,
};
