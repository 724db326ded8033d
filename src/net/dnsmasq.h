/*
 * DHCP and DNS of one network by a dnsmasq(8) of its own: its configuration as text, and the file
 * in which it keeps leases. Knows no inventory.
 */
#ifndef MULL_NET_DNSMASQ_H
#define MULL_NET_DNSMASQ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "net/address.h"

/** A card that the network knows. */
struct net_dnsmasq_host {
    uint8_t mac[6];
    char label[NET_LABEL_MAX]; /* its name in DNS: net_label() */
    uint32_t address;
};

struct net_dnsmasq {
    char bridge[16];
    const char *leases, *log; /* files */
    char domain[NET_DOMAIN_MAX];
    bool dhcp, dns, nat;
    struct net_cidr subnet;
    uint32_t gateway;
    bool has6;
    struct in6_addr prefix6;
    unsigned mtu;
    const struct net_dnsmasq_host *hosts;
    size_t count;
};

/** What dnsmasq reads, malloc'ed; NULL: no memory. Every name in it has been checked, so that none
 *  brings a line of its own. */
char *net_dnsmasq_text(const struct net_dnsmasq *d);

/** Start it; it has answered for its configuration when this returns. @param argument
 * "--conf-file=PATH", by which it is found again (process.h) */
int net_dnsmasq_start(const char *argument, struct mull_error *err);

struct net_lease {
    double expires; /* seconds since 1970; 0: never */
    bool has_mac, is6;
    uint8_t mac[6];
    char address[NET_IP6_TEXT];
    char name[NET_LABEL_MAX]; /* or empty */
};

/** Read a leases file's text; lines that are none are passed over. */
void net_leases_parse(const char *text, size_t len,
                      void (*fn)(void *opaque, const struct net_lease *lease), void *opaque);

#endif
