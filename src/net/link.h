/*
 * The host's interfaces, addresses and routes through rtnetlink (rtnetlink(7)): bridges, their
 * ports and VLANs. Knows no networks of machines.
 */
#ifndef MULL_NET_LINK_H
#define MULL_NET_LINK_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "net/address.h"

#define NET_VLANS_MAX 64

struct net_link;

/** A netlink socket; one thread at a time. */
int net_link_open(struct net_link **out, struct mull_error *err);
void net_link_close(struct net_link *nl);

/** May this process change the host's network (CAP_NET_ADMIN)? */
bool net_link_allowed(void);

/** Make a bridge of that MAC; one that is there is taken. @return 0 or -errno */
int net_link_make_bridge(struct net_link *nl, const char *name, const uint8_t mac[6],
                         struct mull_error *err);
/** Remove an interface; none is well. */
int net_link_delete(struct net_link *nl, const char *name, struct mull_error *err);
/** Set it up, with an MTU (0: as it is). */
int net_link_up(struct net_link *nl, const char *name, unsigned mtu, struct mull_error *err);
/** Give it an address; one that is there is well. */
int net_link_add_ip4(struct net_link *nl, const char *name, uint32_t address, unsigned prefix,
                     struct mull_error *err);
int net_link_add_ip6(struct net_link *nl, const char *name, const struct in6_addr *address,
                     unsigned prefix, struct mull_error *err);
int net_link_remove_ip4(struct net_link *nl, const char *name, uint32_t address, unsigned prefix,
                        struct mull_error *err);
int net_link_remove_ip6(struct net_link *nl, const char *name, const struct in6_addr *address,
                        unsigned prefix, struct mull_error *err);

/** Make an interface a port of a bridge. */
int net_link_join(struct net_link *nl, const char *port, const char *bridge,
                  struct mull_error *err);

/** The VLANs of a port: untagged frames are of @pvid (0: they are not let in), @tagged go as they
 *  are. The bridge must filter VLANs. */
int net_link_vlans(struct net_link *nl, const char *port, unsigned pvid, const uint16_t *tagged,
                   unsigned count, struct mull_error *err);

struct net_link_info {
    char name[16], kind[16]; /* kind: "bridge", "tun", ...; or empty */
    int index, master;
    bool up, vlan_filtering;
    uint8_t mac[6];
    uint64_t rx_bytes, tx_bytes, rx_packets, tx_packets, rx_dropped, tx_dropped;
};

/** Call for each interface. */
int net_link_each(struct net_link *nl, void (*fn)(void *opaque, const struct net_link_info *),
                  void *opaque, struct mull_error *err);
/** One by its name. @return 0, -ENODEV, or another errno */
int net_link_find(struct net_link *nl, const char *name, struct net_link_info *out,
                  struct mull_error *err);

/** Call for each IPv4 route of the main table that is not the default route. */
int net_link_routes(struct net_link *nl, void (*fn)(void *opaque, struct net_cidr to, int index),
                    void *opaque, struct mull_error *err);

#endif
