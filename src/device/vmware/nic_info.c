/*
 * What open-vm-tools tells of a guest's network cards: NicInfoV3 in XDR (RFC 4506). Only addresses
 * are kept; what lies between them is stepped over. See tools.h.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>

#include "device/vmware/tools.h"

#define VERSION 3u
#define NICS_MAX 16u
#define ITEMS_MAX 2048u
#define OPAQUE_MAX 16384u
/* InetAddressType (RFC 4001) */
#define ADDRESS_IPV4 1u
#define ADDRESS_IPV6 2u

struct xdr {
    const uint8_t *at, *end;
    bool bad;
};

static uint32_t number(struct xdr *x)
{
    if (x->end - x->at < 4) {
        x->bad = true;
        return 0;
    }
    const uint8_t *p = x->at;
    x->at += 4;
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* RFC 4506, section 4.10: a length, the bytes, and zeroes up to a multiple of four. */
static const uint8_t *opaque(struct xdr *x, uint32_t *size)
{
    uint32_t n = number(x);
    uint32_t whole = (n + 3) & ~3u;
    if (x->bad || n > OPAQUE_MAX || (size_t)(x->end - x->at) < whole) {
        x->bad = true;
        *size = 0;
        return NULL;
    }
    const uint8_t *p = x->at;
    x->at += whole;
    *size = n;
    return p;
}

static void skip_opaque(struct xdr *x)
{
    uint32_t size;
    opaque(x, &size);
}

static uint32_t count(struct xdr *x, uint32_t most)
{
    uint32_t n = number(x);
    if (n > most)
        x->bad = true;
    return x->bad ? 0 : n;
}

/* RFC 4506, section 4.19: is there one? */
static bool optional(struct xdr *x)
{
    return count(x, 1) == 1;
}

static void skip_address(struct xdr *x)
{
    number(x);
    skip_opaque(x);
}

static void skip_dns(struct xdr *x)
{
    for (unsigned i = 0; i < 2; i++) /* host and domain */
        if (optional(x))
            skip_opaque(x);
    for (uint32_t n = count(x, ITEMS_MAX); n && !x->bad; n--)
        skip_address(x);
    for (uint32_t n = count(x, ITEMS_MAX); n && !x->bad; n--)
        skip_opaque(x);
}

static void read_address(struct xdr *x, char out[MULL_TOOLS_ADDRESSES][46], unsigned *have)
{
    uint32_t type = number(x), size;
    const uint8_t *bytes = opaque(x, &size);
    number(x);                       /* prefix length */
    for (unsigned i = 0; i < 2; i++) /* origin and status */
        if (optional(x))
            number(x);
    bool known = (type == ADDRESS_IPV4 && size == 4) || (type == ADDRESS_IPV6 && size == 16);
    if (x->bad || !known || *have == MULL_TOOLS_ADDRESSES)
        return;
    if (inet_ntop(type == ADDRESS_IPV4 ? AF_INET : AF_INET6, bytes, out[*have], 46))
        (*have)++;
}

static void read_card(struct xdr *x, char out[MULL_TOOLS_ADDRESSES][46], unsigned *have)
{
    skip_opaque(x); /* MAC address */
    for (uint32_t n = count(x, ITEMS_MAX); n && !x->bad; n--)
        read_address(x, out, have);
    if (optional(x))
        skip_dns(x);
    if (optional(x)) { /* WINS */
        skip_address(x);
        skip_address(x);
    }
    for (unsigned i = 0; i < 2; i++) { /* DHCP for IPv4 and IPv6 */
        if (optional(x)) {
            number(x);
            skip_opaque(x);
        }
    }
}

int mull_tools_addresses(const uint8_t *data, size_t size, char out[MULL_TOOLS_ADDRESSES][46])
{
    struct xdr x = {data, data + size, false};
    unsigned have = 0;
    if (number(&x) != VERSION || !optional(&x))
        return -EPROTO;
    for (uint32_t n = count(&x, NICS_MAX); n && !x.bad; n--)
        read_card(&x, out, &have);
    return x.bad ? -EPROTO : (int)have;
}
