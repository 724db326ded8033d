/*
 * Networks in the inventory: what may be asked of one, which addresses its cards have, and the
 * cards of machines: their network's kind and their MAC. Makes nothing in the kernel (netkeeper.h
 * does), but looks at it. Lock held.
 */
#ifndef MULL_HOST_NETWORKS_H
#define MULL_HOST_NETWORKS_H

#include "host/host.h"
#include "net/address.h"

#define NETWORK_RESERVATIONS_MAX 1024

/** By id or name. Borrowed, or NULL. */
json_t *network_find(struct host *host, const char *name);
/** Is its bridge mulliond's own (nat, isolated)? */
bool network_is_ours(const json_t *doc);

json_t *network_render(struct host *host, json_t *doc);
/** Make one. For what needs the kernel the lock is let go of meanwhile. Borrowed, or NULL with @p
 */
json_t *network_create(struct host *host, json_t *body, struct host_problem *p);
/** Both let go of the lock meanwhile. */
int network_change(struct host *host, json_t *doc, json_t *body, struct host_problem *p);
int network_delete(struct host *host, json_t *doc, struct host_problem *p);

/** Who is connected, and which addresses were handed out: new lists. */
json_t *network_ports(struct host *host, json_t *doc);
json_t *network_leases(struct host *host, json_t *doc);

/** The address that a card has on a network, given to it now if it has none.
 *  @param out  0: the network hands out none */
int network_address(struct host *host, json_t *doc, const char *machine, const uint8_t mac[6],
                    uint32_t *out, struct host_problem *p);

/** Complete the cards of a machine's configuration: each is of its network's kind, and has a MAC
 * that no other card of the host has.
 *  @param own  the machine, whose own cards do not count; or ""
 *  @param fresh  give a card whose MAC is taken another one (imports); else that is a problem */
int network_complete_cards(struct host *host, json_t *config, const char *own, bool fresh,
                           struct host_problem *p);

#endif
