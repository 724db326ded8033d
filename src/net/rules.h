/*
 * The host's packet filter for networks of machines, as one nftables ruleset that is put in place
 * whole: NAT, what keeps networks apart, what a port may send. Knows no inventory.
 */
#ifndef MULL_NET_RULES_H
#define MULL_NET_RULES_H

#include "base/error.h"
#include "net/address.h"

/** A network whose bridge is ours. */
struct net_rules_network {
    char bridge[16];
    bool nat; /* else isolated */
    bool dhcp, dns;
    struct net_cidr subnet; /* prefix 0: none */
    uint32_t gateway;
    bool has6;
    struct in6_addr prefix6, gateway6;
};

/** What one tap may send. */
struct net_rules_port {
    char tap[16];
    uint8_t mac[6];
    bool managed;                /* on a bridge of ours: IPv4, IPv6 and ARP only */
    bool trunk;                  /* frames with VLAN tags are let through */
    uint32_t address, gateway;   /* 0: not known */
    struct in6_addr address6;    /* all zero: not known */
    struct in6_addr gateway6[2]; /* where managed: the global one, the link-local one */
};

/** The ruleset, malloc'ed; NULL: no memory. @param table  its tables' name: our instance */
char *net_rules_text(const char *table, const struct net_rules_network *networks, unsigned count,
                     const struct net_rules_port *ports, unsigned port_count);
/** A ruleset that removes those tables. */
char *net_rules_removal(const char *table);
/** Put a ruleset in place, all or nothing, through nft(8). */
int net_rules_apply(const char *text, struct mull_error *err);

#endif
