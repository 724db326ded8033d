/*
 * Addresses, subnets and names of networks as text and numbers, checked. Knows no interfaces.
 */
#ifndef MULL_NET_ADDRESS_H
#define MULL_NET_ADDRESS_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NET_IP4_TEXT 16
#define NET_IP6_TEXT 46
#define NET_CIDR_TEXT 20
#define NET_MAC_TEXT 18
#define NET_LABEL_MAX 64 /* RFC 1035, section 2.3.4, and its end */
#define NET_DOMAIN_MAX 128

/** An IPv4 subnet; addresses are numbers in the host's order. */
struct net_cidr {
    uint32_t base;
    unsigned prefix;
};

/** "10.20.0.0/24": no bits of hosts set. @return 0 or -EINVAL */
int net_cidr_parse(const char *text, struct net_cidr *out);
void net_cidr_text(struct net_cidr cidr, char out[NET_CIDR_TEXT]);
bool net_cidr_overlap(struct net_cidr a, struct net_cidr b);
bool net_cidr_has(struct net_cidr cidr, uint32_t address);
/** How many addresses it has. */
uint64_t net_cidr_size(struct net_cidr cidr);
/** May a network of machines have it: /16 to /29, of the unicast addresses that are no host's own?
 */
bool net_cidr_usable(struct net_cidr cidr);

/** "10.20.0.5". @return 0 or -EINVAL */
int net_ip4_parse(const char *text, uint32_t *out);
void net_ip4_text(uint32_t address, char out[NET_IP4_TEXT]);

/** "fd12:3456:789a:1::/64": a unique local prefix (RFC 4193). @return 0 or -EINVAL */
int net_prefix6_parse(const char *text, struct in6_addr *out);
void net_ip6_text(const struct in6_addr *address, char out[NET_IP6_TEXT]);
/** The address of a host in a /64. */
struct in6_addr net_ip6_host(const struct in6_addr *prefix, uint32_t host);
/** The link-local address of a MAC (RFC 4291, appendix A). */
struct in6_addr net_ip6_link_local(const uint8_t mac[6]);

void net_mac_text(const uint8_t mac[6], char out[NET_MAC_TEXT]);
/** A unicast address, xx:xx:xx:xx:xx:xx. @return 0 or -EINVAL */
int net_mac_parse(const char *text, uint8_t out[6]);

/** A DNS name of letters, digits and hyphens (RFC 1123, section 2.1), with or without dots. */
bool net_domain_valid(const char *text);
/** What a machine of that name is called in DNS: small letters, digits, hyphens. Never empty. */
void net_label(const char *name, char out[NET_LABEL_MAX]);
/** May an interface of the host be called so? */
bool net_interface_valid(const char *name);

#endif
