/*
 * Keeps the host's kernel as the inventory's networks say: bridges, packet filter, DHCP and DNS,
 * and the taps of running machines. What it makes carries the name of this instance, so that what
 * no row and no machine owns is found and removed. Calls that touch the kernel are made without the
 * lock.
 */
#ifndef MULL_HOST_NETKEEPER_H
#define MULL_HOST_NETKEEPER_H

#include <netinet/in.h>

#include "host/host.h"
#include "net/address.h"

#define NETKEEPER_CARDS_MAX 8

/** A card of a running machine on a network. */
struct host_port {
    char machine[HOST_ID_MAX], network[HOST_ID_MAX];
    unsigned card; /* of its configuration */
    char tap[16];
    uint8_t mac[6];
    uint32_t address; /* 0: not known */
    unsigned vlan;    /* 0: none */
    uint16_t vlans[64];
    unsigned vlan_count;
};

/** Take what runs from the daemon before, remove what nobody owns, bring networks up. Lock not
 * held, machines adopted. */
int netkeeper_open(struct host *host, struct mull_error *err);
/** Networks that no running machine is on go down; the others go on. */
void netkeeper_close(struct host *host);

/** Why this process cannot keep networks; NULL: it can. */
const char *netkeeper_unable(struct host *host);

/** Make the kernel as the rows say. Lock not held. */
void netkeeper_sync(struct host *host);

/** A bridge's name. */
void netkeeper_bridge(struct host *host, const char *network_id, char out[16]);
/** How a network is: NULL: up; else why not. Lock held. */
const char *netkeeper_reason(struct host *host, const char *network_id);

/** Connect the cards of a machine that is about to start: @config's cards of type host become taps
 *  with the descriptors that they will have in its process, from @first on. Lock not held.
 *  @param fds  NETKEEPER_CARDS_MAX, the caller's to close @return how many, or -1 with @p */
int netkeeper_connect(struct host *host, const char *machine, json_t *config, int first, int *fds,
                      struct host_problem *p);
/** A machine has ended, or was not started. Lock held. */
void netkeeper_disconnect(struct host *host, const char *machine);

/** Call for each port. Lock held. */
void netkeeper_each_port(struct host *host, void (*fn)(void *opaque, const struct host_port *port),
                         void *opaque);

/** Look after dnsmasq, tell machines' addresses: now and then. Lock not held. */
void netkeeper_look(struct host *host);

/** Where a network's leases are kept, malloc'ed. */
char *netkeeper_leases(struct host *host, const char *network_id);

#endif
