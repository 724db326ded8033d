/*
 * See address.h.
 */
#include "net/address.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>

int net_ip4_parse(const char *text, uint32_t *out)
{
    struct in_addr a;
    if (inet_pton(AF_INET, text, &a) != 1)
        return -EINVAL;
    *out = ntohl(a.s_addr);
    return 0;
}

void net_ip4_text(uint32_t address, char out[NET_IP4_TEXT])
{
    snprintf(out, NET_IP4_TEXT, "%u.%u.%u.%u", address >> 24, address >> 16 & 255,
             address >> 8 & 255, address & 255);
}

static uint32_t mask_of(unsigned prefix)
{
    return prefix ? 0xffffffffu << (32 - prefix) : 0;
}

int net_cidr_parse(const char *text, struct net_cidr *out)
{
    char address[NET_IP4_TEXT];
    const char *slash = strchr(text, '/');
    size_t n = slash ? (size_t)(slash - text) : 0;
    unsigned prefix = 0;
    if (!n || n >= sizeof(address) || !isdigit((unsigned char)slash[1]) || strlen(slash) > 3)
        return -EINVAL;
    for (const char *p = slash + 1; *p; p++) {
        if (!isdigit((unsigned char)*p))
            return -EINVAL;
        prefix = prefix * 10 + (unsigned)(*p - '0');
    }
    memcpy(address, text, n);
    address[n] = '\0';
    if (prefix > 32 || net_ip4_parse(address, &out->base) || out->base & ~mask_of(prefix))
        return -EINVAL;
    out->prefix = prefix;
    return 0;
}

void net_cidr_text(struct net_cidr cidr, char out[NET_CIDR_TEXT])
{
    char address[NET_IP4_TEXT];
    net_ip4_text(cidr.base, address);
    snprintf(out, NET_CIDR_TEXT, "%s/%u", address, cidr.prefix & 63);
}

bool net_cidr_overlap(struct net_cidr a, struct net_cidr b)
{
    uint32_t mask = mask_of(a.prefix < b.prefix ? a.prefix : b.prefix);
    return (a.base & mask) == (b.base & mask);
}

bool net_cidr_has(struct net_cidr cidr, uint32_t address)
{
    return (address & mask_of(cidr.prefix)) == cidr.base;
}

uint64_t net_cidr_size(struct net_cidr cidr)
{
    return 1ull << (32 - cidr.prefix);
}

bool net_cidr_usable(struct net_cidr cidr)
{
    static const struct net_cidr others[] = {
        {0x00000000, 8},  /* "this network": RFC 1122, section 3.2.1.3 */
        {0x7f000000, 8},  /* loopback */
        {0xa9fe0000, 16}, /* link-local: RFC 3927 */
        {0xe0000000, 3},  /* multicast and what is reserved */
    };
    for (unsigned i = 0; i < sizeof(others) / sizeof(others[0]); i++)
        if (net_cidr_overlap(cidr, others[i]))
            return false;
    return cidr.prefix >= 16 && cidr.prefix <= 29;
}

int net_prefix6_parse(const char *text, struct in6_addr *out)
{
    char address[NET_IP6_TEXT];
    const char *slash = strchr(text, '/');
    size_t n = slash ? (size_t)(slash - text) : 0;
    if (!n || n >= sizeof(address) || strcmp(slash, "/64"))
        return -EINVAL;
    memcpy(address, text, n);
    address[n] = '\0';
    if (inet_pton(AF_INET6, address, out) != 1 || out->s6_addr[0] != 0xfd)
        return -EINVAL;
    for (unsigned i = 8; i < 16; i++)
        if (out->s6_addr[i])
            return -EINVAL;
    return 0;
}

void net_ip6_text(const struct in6_addr *address, char out[NET_IP6_TEXT])
{
    if (!inet_ntop(AF_INET6, address, out, NET_IP6_TEXT))
        *out = '\0';
}

struct in6_addr net_ip6_host(const struct in6_addr *prefix, uint32_t host)
{
    struct in6_addr a = *prefix;
    uint32_t low = htonl(host);
    memcpy(a.s6_addr + 12, &low, 4);
    return a;
}

struct in6_addr net_ip6_link_local(const uint8_t mac[6])
{
    struct in6_addr a = {.s6_addr = {0xfe, 0x80, 0, 0, 0, 0, 0, 0, mac[0] ^ 2, mac[1], mac[2], 0xff,
                                     0xfe, mac[3], mac[4], mac[5]}};
    return a;
}

void net_mac_text(const uint8_t mac[6], char out[NET_MAC_TEXT])
{
    snprintf(out, NET_MAC_TEXT, "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3],
             mac[4], mac[5]);
}

int net_mac_parse(const char *text, uint8_t out[6])
{
    unsigned v[6];
    int end = 0;
    if (strlen(text) != NET_MAC_TEXT - 1 ||
        strspn(text, "0123456789abcdefABCDEF:") != NET_MAC_TEXT - 1 ||
        sscanf(text, "%2x:%2x:%2x:%2x:%2x:%2x%n", &v[0], &v[1], &v[2], &v[3], &v[4], &v[5], &end) !=
            6 ||
        end != NET_MAC_TEXT - 1 || v[0] & 1)
        return -EINVAL;
    for (unsigned i = 0; i < 6; i++)
        out[i] = (uint8_t)v[i];
    return 0;
}

bool net_domain_valid(const char *text)
{
    size_t n = strlen(text), label = 0;
    if (!n || n >= NET_DOMAIN_MAX)
        return false;
    for (size_t i = 0; i < n; i++) {
        bool hyphen = text[i] == '-';
        if (text[i] == '.') {
            if (!label || text[i - 1] == '-')
                return false;
            label = 0;
            continue;
        }
        if (!(text[i] >= 'a' && text[i] <= 'z') && !(text[i] >= 'A' && text[i] <= 'Z') &&
            !(text[i] >= '0' && text[i] <= '9') && !(hyphen && label))
            return false;
        if (++label >= NET_LABEL_MAX)
            return false;
    }
    return label && text[n - 1] != '-';
}

void net_label(const char *name, char out[NET_LABEL_MAX])
{
    size_t n = 0;
    for (; *name && n + 1 < NET_LABEL_MAX; name++) {
        char c = *name;
        if (c >= 'A' && c <= 'Z')
            c = (char)(c + 32);
        else if (!(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9'))
            c = '-';
        if (c != '-' || n)
            out[n++] = c;
    }
    while (n && out[n - 1] == '-')
        n--;
    out[n] = '\0';
    if (!n)
        strcpy(out, "machine");
}

bool net_interface_valid(const char *name)
{
    size_t n = strlen(name);
    return n && n < IF_NAMESIZE && strcmp(name, ".") && strcmp(name, "..") &&
           strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == n;
}
