/*
 * See networks.h.
 */
#include "host/networks.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "host/events.h"
#include "host/netkeeper.h"
#include "host/store/store.h"
#include "host/supervisor.h"
#include "net/dnsmasq.h"
#include "net/link.h"

#define MTU_MIN 1280 /* IPv6's: RFC 8200, section 5 */
#define MTU_MAX 9216
#define LEASES_MAX (4u << 20)

json_t *network_find(struct host *host, const char *name)
{
    json_t *doc = store_get(host->store, KIND_NETWORK, name);
    return doc ? doc : store_find(host->store, KIND_NETWORK, "name", name);
}

bool network_is_ours(const json_t *doc)
{
    const char *type = host_text(doc, "type");
    return !strcmp(type, "nat") || !strcmp(type, "isolated");
}

/* ---- Who is on it ---- */

static bool names(json_t *config, const char *name)
{
    json_t *card;
    size_t i;
    json_array_foreach(json_object_get(config, "networks"), i, card)
    {
        if (!strcmp(host_text(card, "name"), name) && strcmp(host_text(card, "type"), "none"))
            return true;
    }
    return false;
}

/* Also where a change that waits for the next start names it. @param first  one of them, or "" */
static unsigned machines_on(struct host *host, const char *name, char first[HOST_NAME_MAX])
{
    unsigned n = 0;
    const char *id;
    json_t *doc;
    *first = '\0';
    json_object_foreach(store_all(host->store, KIND_MACHINE), id, doc)
    {
        if (!names(json_object_get(doc, "config"), name) &&
            !names(json_object_get(doc, "pending_config"), name))
            continue;
        if (!n++)
            snprintf(first, HOST_NAME_MAX, "%s", host_text(doc, "name"));
    }
    return n;
}

/* ---- As callers see it ---- */

static void put_default(json_t *o, const char *key, json_t *value)
{
    if (json_object_get(o, key))
        json_decref(value);
    else
        json_object_set_new(o, key, value);
}

static json_t *gateway_of(const json_t *doc)
{
    struct net_cidr subnet;
    char text[NET_IP4_TEXT];
    if (!network_is_ours(doc) || net_cidr_parse(host_text(doc, "subnet"), &subnet))
        return json_null();
    net_ip4_text(subnet.base + 1, text);
    return json_string(text);
}

static bool passt_is_there(void)
{
    static const char *const places[] = {"/usr/bin/passt", "/usr/local/bin/passt", "/bin/passt"};
    for (unsigned i = 0; i < 3; i++)
        if (!access(places[i], X_OK))
            return true;
    return false;
}

json_t *network_render(struct host *host, json_t *doc)
{
    json_t *o = json_object();
    const char *key, *type = host_text(doc, "type"), *reason;
    char bridge[16], first[HOST_NAME_MAX];
    json_t *value;
    json_object_foreach(doc, key, value)
    {
        if (*key != '_')
            json_object_set(o, key, value);
    }
    put_default(o, "vlans", json_array());
    put_default(o, "subnet6", json_null());
    put_default(o, "domain", json_null());
    put_default(o, "mtu", json_integer(1500));
    put_default(o, "guard", json_boolean(strcmp(type, "user") != 0));
    put_default(o, "reservations", json_object());
    json_object_set_new(o, "gateway", gateway_of(doc));
    netkeeper_bridge(host, host_text(doc, "id"), bridge);
    if (network_is_ours(doc))
        json_object_set_new(o, "interface", json_string(bridge));
    else
        json_object_set(o, "interface", json_object_get(doc, "bridge"));
    json_object_set_new(o, "machines",
                        json_integer(machines_on(host, host_text(doc, "name"), first)));
    if (!strcmp(type, "user"))
        reason = passt_is_there() ? NULL : "passt is not installed";
    else
        reason = netkeeper_reason(host, host_text(doc, "id"));
    json_object_set_new(o, "state", json_string(reason ? "down" : "up"));
    json_object_set_new(o, "reason", reason ? json_string(reason) : json_null());
    return o;
}

/* ---- What a body says ---- */

static int check_name(struct host *host, const char *name, json_t *own, struct host_problem *p)
{
    json_t *other = store_find(host->store, KIND_NETWORK, "name", name);
    if (!host_name_valid(name))
        return host_problem(p, HOST_INVALID, "/name", "is no name");
    if (other && other != own)
        return host_problem(p, HOST_CONFLICT, "/name", "network %s: is there already", name);
    return 0;
}

struct overlap {
    struct host *host;
    struct net_cidr subnet, found;
    bool is;
};

static void look_at_route(void *opaque, struct net_cidr to, int index)
{
    struct overlap *o = opaque;
    if (o->is || !net_cidr_overlap(o->subnet, to))
        return;
    o->found = to;
    o->is = true;
}

/* With the host's routes, or another network's subnet. */
static int check_free(struct host *host, struct net_cidr subnet, struct host_problem *p)
{
    struct overlap o = {.host = host, .subnet = subnet};
    struct mull_error err = {0};
    struct net_link *nl = NULL;
    char text[NET_CIDR_TEXT];
    const char *id;
    json_t *doc;
    json_object_foreach(store_all(host->store, KIND_NETWORK), id, doc)
    {
        struct net_cidr other;
        if (network_is_ours(doc) && !net_cidr_parse(host_text(doc, "subnet"), &other) &&
            net_cidr_overlap(subnet, other))
            return host_problem(p, HOST_CONFLICT, "/subnet", "overlaps %s of the network %s",
                                host_text(doc, "subnet"), host_text(doc, "name"));
    }
    int ret = net_link_open(&nl, &err);
    if (!ret)
        ret = net_link_routes(nl, look_at_route, &o, &err);
    net_link_close(nl);
    if (ret)
        return host_problem_from(p, &err);
    net_cidr_text(o.found, text);
    return o.is ? host_problem(p, HOST_CONFLICT, "/subnet", "overlaps the host's own route to %s",
                               text)
                : 0;
}

static int choose_subnet(struct host *host, json_t *doc, const char *wanted, struct host_problem *p)
{
    struct net_cidr subnet;
    struct host_problem ignored;
    char text[NET_CIDR_TEXT];
    if (*wanted) {
        if (net_cidr_parse(wanted, &subnet))
            return host_problem(p, HOST_INVALID, "/subnet",
                                "must be a subnet like 10.20.0.0/24, without bits of a host");
        if (!net_cidr_usable(subnet))
            return host_problem(p, HOST_INVALID, "/subnet",
                                "must have a length from /16 to /29, and be neither loopback, "
                                "link-local nor multicast");
        if (check_free(host, subnet, p))
            return -1;
    } else {
        unsigned i = 0;
        do
            subnet = (struct net_cidr){0x0a400000u + (i << 8), 24}; /* 10.64.0.0/24 and on */
        while (check_free(host, subnet, &ignored) && ++i < 4096);
        if (i == 4096)
            return host_problem(p, HOST_CONFLICT, "/subnet",
                                "no subnet of 10.64.0.0/12 is free; say one");
    }
    net_cidr_text(subnet, text);
    json_object_set_new(doc, "subnet", json_string(text));
    return 0;
}

static int choose_prefix6(json_t *doc, json_t *wanted, struct host_problem *p)
{
    struct in6_addr prefix;
    char text[NET_IP6_TEXT + 4];
    if (json_is_null(wanted)) {
        json_object_set_new(doc, "subnet6", json_null());
        return 0;
    }
    if (wanted) {
        if (net_prefix6_parse(json_string_value(wanted), &prefix))
            return host_problem(p, HOST_INVALID, "/subnet6",
                                "must be a unique local prefix like fd12:3456:789a:1::/64");
    } else { /* RFC 4193, section 3.2: 40 random bits, and a subnet */
        char hex[15];
        unsigned v;
        memset(&prefix, 0, sizeof(prefix));
        host_random_hex(hex, 7);
        prefix.s6_addr[0] = 0xfd;
        for (unsigned i = 0; i < 7 && sscanf(hex + 2 * i, "%2x", &v) == 1; i++)
            prefix.s6_addr[i + 1] = (uint8_t)v;
    }
    net_ip6_text(&prefix, text);
    strcat(text, "/64");
    json_object_set_new(doc, "subnet6", json_string(text));
    return 0;
}

static int check_reservations(json_t *doc, struct host_problem *p)
{
    json_t *all = json_object_get(doc, "reservations"), *value, *other;
    const char *name, *second;
    struct net_cidr subnet = {0};
    bool ours = network_is_ours(doc) && !net_cidr_parse(host_text(doc, "subnet"), &subnet);
    if (json_object_size(all) > NETWORK_RESERVATIONS_MAX)
        return host_problem(p, HOST_INVALID, "/reservations", "are more than %d",
                            NETWORK_RESERVATIONS_MAX);
    json_object_foreach(all, name, value)
    {
        uint32_t a, b;
        const char *text = json_string_value(value);
        if (!host_name_valid(name))
            return host_problem(p, HOST_INVALID, "/reservations", "\"%.80s\" is no machine's name",
                                name);
        if (!text || net_ip4_parse(text, &a))
            return host_problem(p, HOST_INVALID, "/reservations", "%s: must be an IPv4 address",
                                name);
        if (ours && (!net_cidr_has(subnet, a) || a - subnet.base < 2 ||
                     a - subnet.base >= net_cidr_size(subnet) - 1))
            return host_problem(p, HOST_INVALID, "/reservations",
                                "%s: %s is no address for a machine of %s", name, text,
                                host_text(doc, "subnet"));
        json_object_foreach(all, second, other)
        {
            if (second != name && json_is_string(other) &&
                !net_ip4_parse(json_string_value(other), &b) && a == b)
                return host_problem(p, HOST_INVALID, "/reservations", "%s and %s: have one address",
                                    name, second);
        }
    }
    return 0;
}

static int check_common(json_t *doc, struct host_problem *p)
{
    json_int_t mtu = json_integer_value(json_object_get(doc, "mtu"));
    if (mtu < MTU_MIN || mtu > MTU_MAX)
        return host_problem(p, HOST_INVALID, "/mtu", "must be %d to %d", MTU_MIN, MTU_MAX);
    if (network_is_ours(doc) && !net_domain_valid(host_text(doc, "domain")))
        return host_problem(p, HOST_INVALID, "/domain",
                            "must be a DNS name of letters, digits, hyphens and dots");
    return check_reservations(doc, p);
}

/* The host's own bridge, made by its administrator. */
static int check_bridge(struct host *host, json_t *doc, struct host_problem *p)
{
    const char *bridge = host_text(doc, "bridge");
    json_t *vlans = json_object_get(doc, "vlans");
    struct net_link_info info;
    struct mull_error err = {0};
    struct net_link *nl = NULL;
    char ours[16];
    if (!net_interface_valid(bridge))
        return host_problem(p, HOST_INVALID, "/bridge", "must be the name of a bridge of the host");
    netkeeper_bridge(host, "00000000", ours);
    if (!strncmp(bridge, ours, 9))
        return host_problem(p, HOST_INVALID, "/bridge", "%s is another network's", bridge);
    int ret = net_link_open(&nl, &err);
    if (!ret)
        ret = net_link_find(nl, bridge, &info, &err);
    net_link_close(nl);
    if (ret == -ENODEV)
        return host_problem(p, HOST_INVALID, "/bridge",
                            "%s: there is no such bridge; make it first (docs/networks.md)",
                            bridge);
    if (ret)
        return host_problem_from(p, &err);
    if (strcmp(info.kind, "bridge"))
        return host_problem(p, HOST_INVALID, "/bridge", "%s is no bridge", bridge);
    if ((json_integer_value(json_object_get(doc, "vlan")) || json_array_size(vlans)) &&
        !info.vlan_filtering)
        return host_problem(p, HOST_CONFLICT, "/vlan",
                            "the bridge %s does not filter VLANs: ip link set %s type bridge "
                            "vlan_filtering 1",
                            bridge, bridge);
    return 0;
}

/* What the type has no use for is refused, not forgotten. */
static int check_members(json_t *body, const char *type, struct host_problem *p)
{
    static const struct {
        const char *member, *types;
    } only[] = {{"bridge", "bridge"},
                {"vlan", "bridge"},
                {"vlans", "bridge"},
                {"subnet", "nat isolated"},
                {"subnet6", "nat isolated"},
                {"domain", "nat isolated"},
                {"mtu", "nat isolated bridge"},
                {"reservations", "nat isolated bridge"}};
    for (unsigned i = 0; i < sizeof(only) / sizeof(only[0]); i++) {
        json_t *value = json_object_get(body, only[i].member);
        char field[32];
        snprintf(field, sizeof(field), "/%s", only[i].member);
        if (value && !json_is_null(value) && !strstr(only[i].types, type))
            return host_problem(p, HOST_INVALID, field, "a network of type %s has none", type);
    }
    return 0;
}

static bool flag(json_t *body, const char *key, bool otherwise)
{
    json_t *value = json_object_get(body, key);
    return value ? json_is_true(value) : otherwise;
}

static int complete(struct host *host, json_t *doc, json_t *body, struct host_problem *p)
{
    char label[NET_LABEL_MAX], domain[NET_DOMAIN_MAX];
    json_t *mtu = json_object_get(body, "mtu"), *vlans = json_object_get(body, "vlans");
    json_t *reserved = json_object_get(body, "reservations");
    bool ours = network_is_ours(doc);
    json_object_set_new(doc, "mtu", mtu ? json_incref(mtu) : json_integer(1500));
    json_object_set_new(doc, "guard", json_boolean(flag(body, "guard", true)));
    json_object_set_new(doc, "vlans", json_is_array(vlans) ? json_incref(vlans) : json_array());
    json_object_set_new(doc, "reservations",
                        json_is_object(reserved) ? json_deep_copy(reserved) : json_object());
    json_object_set_new(doc, "dhcp", json_boolean(ours && flag(body, "dhcp", true)));
    json_object_set_new(doc, "dns", json_boolean(ours && flag(body, "dns", true)));
    if (!ours) {
        json_object_set(doc, "bridge", json_object_get(body, "bridge"));
        if (json_object_get(body, "vlan"))
            json_object_set(doc, "vlan", json_object_get(body, "vlan"));
        return check_common(doc, p) ? -1 : check_bridge(host, doc, p);
    }
    net_label(host_text(doc, "name"), label);
    snprintf(domain, sizeof(domain), "%s.internal", label);
    json_object_set_new(
        doc, "domain",
        json_string(*host_text(body, "domain") ? host_text(body, "domain") : domain));
    bool bare = !strcmp(host_text(doc, "type"), "isolated") &&
                !json_is_true(json_object_get(doc, "dhcp")) &&
                !json_is_true(json_object_get(doc, "dns")) && !*host_text(body, "subnet");
    if (!bare && (choose_subnet(host, doc, host_text(body, "subnet"), p) ||
                  choose_prefix6(doc, json_object_get(body, "subnet6"), p)))
        return -1;
    return check_common(doc, p);
}

/* A row whose bridge's name no other network has. */
static void choose_id(struct host *host, char id[HOST_ID_MAX])
{
    bool taken;
    do {
        const char *other;
        json_t *doc;
        host_uuid(id);
        taken = false;
        json_object_foreach(store_all(host->store, KIND_NETWORK), other, doc)
        {
            taken |= !strncmp(other, id, 6);
        }
    } while (taken);
}

/* Without the lock: the kernel as the rows say. */
static void sync_now(struct host *host)
{
    host_unlock(host);
    netkeeper_sync(host);
    host_lock(host);
}

json_t *network_create(struct host *host, json_t *body, struct host_problem *p)
{
    struct mull_error err = {0};
    char id[HOST_ID_MAX];
    const char *type = host_text(body, "type"), *name = host_text(body, "name");
    bool user = !strcmp(type, "user");
    if (check_name(host, name, NULL, p) || check_members(body, type, p))
        return NULL;
    if (!user && netkeeper_unable(host)) {
        host_problem(p, HOST_CONFLICT, "/type", "%s", netkeeper_unable(host));
        return NULL;
    }
    choose_id(host, id);
    json_t *doc = json_pack("{s:s, s:s, s:s, s:n, s:n, s:n, s:b, s:b}", "id", id, "name", name,
                            "type", type, "bridge", "vlan", "subnet", "dhcp", 1, "dns", 1);
    if (!user && complete(host, doc, body, p)) {
        json_decref(doc);
        return NULL;
    }
    if (store_put(host->store, KIND_NETWORK, id, doc, &err)) {
        host_problem_from(p, &err);
        return NULL;
    }
    if (!user) {
        sync_now(host);
        const char *reason = netkeeper_reason(host, id);
        if (reason) {
            host_problem(p, HOST_CONFLICT, NULL, "network %s: %s", name, reason);
            store_delete(host->store, KIND_NETWORK, id, NULL);
            sync_now(host);
            return NULL;
        }
    }
    host_changed(host, KIND_NETWORK, id);
    return store_get(host->store, KIND_NETWORK, id);
}

int network_change(struct host *host, json_t *old, json_t *body, struct host_problem *p)
{
    struct mull_error err = {0};
    char id[HOST_ID_MAX], first[HOST_NAME_MAX];
    const char *name = host_text(body, "name"), *type = host_text(old, "type");
    snprintf(id, sizeof(id), "%s", host_text(old, "id"));
    if (*name && check_name(host, name, old, p))
        return -1;
    if (*name && strcmp(name, host_text(old, "name")) &&
        machines_on(host, host_text(old, "name"), first))
        return host_problem(p, HOST_CONFLICT, "/name", "machines name it (%s); change them first",
                            first);
    if (check_members(body, type, p))
        return -1;
    if (!network_is_ours(old) &&
        (json_is_true(json_object_get(body, "dhcp")) || json_is_true(json_object_get(body, "dns"))))
        return host_problem(p, HOST_INVALID,
                            json_is_true(json_object_get(body, "dhcp")) ? "/dhcp" : "/dns",
                            "a network of type %s has none of mulliond", type);
    json_t *doc = json_deep_copy(old);
    if (host_merge_patch(doc, body)) {
        json_decref(doc);
        return host_problem(p, HOST_INVALID, NULL, "nested too deeply");
    }
    if (!strcmp(type, "bridge") && !json_object_get(doc, "vlan"))
        json_object_set_new(doc, "vlan", json_null());
    if (!json_object_get(doc, "vlans"))
        json_object_set_new(doc, "vlans", json_array());
    if (!json_object_get(doc, "reservations"))
        json_object_set_new(doc, "reservations", json_object());
    bool user = !strcmp(type, "user");
    if (!user && network_is_ours(doc) && !json_is_string(json_object_get(doc, "subnet")) &&
        (json_is_true(json_object_get(doc, "dhcp")) || json_is_true(json_object_get(doc, "dns")))) {
        json_decref(doc);
        return host_problem(p, HOST_CONFLICT, NULL, "the network has no subnet");
    }
    if (!user && (check_common(doc, p) || (!network_is_ours(doc) && check_bridge(host, doc, p)))) {
        json_decref(doc);
        return -1;
    }
    if (store_put(host->store, KIND_NETWORK, id, doc, &err))
        return host_problem_from(p, &err);
    if (!user)
        sync_now(host);
    host_changed(host, KIND_NETWORK, id);
    return 0;
}

int network_delete(struct host *host, json_t *doc, struct host_problem *p)
{
    struct mull_error err = {0};
    char id[HOST_ID_MAX], first[HOST_NAME_MAX];
    bool user = !strcmp(host_text(doc, "type"), "user");
    snprintf(id, sizeof(id), "%s", host_text(doc, "id"));
    unsigned n = machines_on(host, host_text(doc, "name"), first);
    if (n)
        return host_problem(p, HOST_CONFLICT, NULL,
                            n == 1 ? "the machine %s is on it; connect it elsewhere first"
                                   : "the machine %s and others are on it; connect them elsewhere "
                                     "first",
                            first);
    if (store_delete(host->store, KIND_NETWORK, id, &err))
        return host_problem_from(p, &err);
    host_changed(host, KIND_NETWORK, id);
    if (!user)
        sync_now(host);
    char *leases = netkeeper_leases(host, id);
    if (leases)
        unlink(leases);
    free(leases);
    return 0;
}

/* ---- Addresses ---- */

/* The name that nobody else on the network has. */
static void choose_label(json_t *all, const char *mac, const char *name, char out[NET_LABEL_MAX])
{
    char base[NET_LABEL_MAX];
    const char *other;
    json_t *entry;
    unsigned n = 1;
    bool taken;
    net_label(name, base);
    snprintf(out, NET_LABEL_MAX, "%s", base);
    do {
        taken = false;
        json_object_foreach(all, other, entry)
        {
            taken |= strcmp(other, mac) && !strcmp(host_text(entry, "label"), out);
        }
        if (taken)
            snprintf(out, NET_LABEL_MAX, "%.56s-%u", base, ++n);
    } while (taken);
}

static json_t *holder_of(json_t *all, json_int_t number, const char *but, const char **mac)
{
    json_t *entry;
    json_object_foreach(all, *mac, entry)
    {
        if (json_integer_value(json_object_get(entry, "number")) == number && strcmp(*mac, but))
            return entry;
    }
    return NULL;
}

static bool is_reserved(json_t *doc, struct net_cidr subnet, json_int_t number)
{
    const char *name;
    json_t *value;
    json_object_foreach(json_object_get(doc, "reservations"), name, value)
    {
        uint32_t a;
        if (json_is_string(value) && !net_ip4_parse(json_string_value(value), &a) &&
            a - subnet.base == (uint32_t)number)
            return true;
    }
    return false;
}

static void forget_gone(struct host *host, json_t *all)
{
    const char *mac;
    json_t *entry;
    void *next;
    json_object_foreach_safe(all, next, mac, entry)
    {
        if (!store_get(host->store, KIND_MACHINE, host_text(entry, "machine")))
            json_object_del(all, mac);
    }
}

/* The address that was reserved for a machine; taken from a machine that has it but does not run.
 */
static json_int_t take_reserved(struct host *host, json_t *doc, json_t *all, struct net_cidr subnet,
                                const char *machine, const char *mac, struct host_problem *p)
{
    json_t *row = store_get(host->store, KIND_MACHINE, machine), *entry;
    json_t *value = json_object_get(json_object_get(doc, "reservations"), host_text(row, "name"));
    const char *other;
    uint32_t a;
    if (!json_is_string(value) || net_ip4_parse(json_string_value(value), &a))
        return 0;
    entry = holder_of(all, (json_int_t)(a - subnet.base), mac, &other);
    if (entry && !strcmp(host_text(entry, "machine"), machine))
        return 0; /* another card of this machine has it */
    struct vm *vm = entry ? vm_of(host, host_text(entry, "machine")) : NULL;
    if (vm && vm_runs(vm)) {
        host_problem(p, HOST_CONFLICT, NULL,
                     "network %s: %s, reserved for %s, is %s's until that is stopped",
                     host_text(doc, "name"), json_string_value(value), host_text(row, "name"),
                     host_text(entry, "label"));
        return -1;
    }
    if (entry)
        json_object_del(all, other);
    return (json_int_t)(a - subnet.base);
}

static json_int_t choose_number(json_t *doc, json_t *all, struct net_cidr subnet, const char *mac)
{
    json_int_t number = json_integer_value(json_object_get(json_object_get(all, mac), "number"));
    const char *other;
    if (number && !is_reserved(doc, subnet, number))
        return number;
    for (number = 2; number < (json_int_t)net_cidr_size(subnet) - 1; number++)
        if (!is_reserved(doc, subnet, number) && !holder_of(all, number, mac, &other))
            return number;
    return 0;
}

int network_address(struct host *host, json_t *old, const char *machine, const uint8_t mac[6],
                    uint32_t *out, struct host_problem *p)
{
    struct mull_error err = {0};
    struct net_cidr subnet;
    char text[NET_MAC_TEXT], label[NET_LABEL_MAX], id[HOST_ID_MAX];
    json_t *row = store_get(host->store, KIND_MACHINE, machine);
    json_t *reserved =
        json_object_get(json_object_get(old, "reservations"), host_text(row, "name"));
    *out = 0;
    if (!network_is_ours(old)) { /* what is reserved there is what the guest may use */
        if (json_is_string(reserved) && net_ip4_parse(json_string_value(reserved), out))
            *out = 0;
        return 0;
    }
    if (!json_is_true(json_object_get(old, "dhcp")) ||
        net_cidr_parse(host_text(old, "subnet"), &subnet))
        return 0;
    json_t *doc = json_deep_copy(old), *all = json_object_get(doc, "_addresses");
    snprintf(id, sizeof(id), "%s", host_text(old, "id"));
    if (!all)
        json_object_set_new(doc, "_addresses", all = json_object());
    forget_gone(host, all);
    net_mac_text(mac, text);
    json_int_t number = take_reserved(host, doc, all, subnet, machine, text, p);
    if (!number)
        number = choose_number(doc, all, subnet, text);
    if (number <= 0) {
        if (!number)
            host_problem(p, HOST_CONFLICT, NULL, "network %s: all addresses of %s are given out",
                         host_text(doc, "name"), host_text(doc, "subnet"));
        json_decref(doc);
        return -1;
    }
    choose_label(all, text, host_text(row, "name"), label);
    json_object_set_new(
        all, text,
        json_pack("{s:I, s:s, s:s}", "number", number, "machine", machine, "label", label));
    *out = subnet.base + (uint32_t)number;
    if (json_equal(doc, old)) {
        json_decref(doc);
        return 0;
    }
    return store_put(host->store, KIND_NETWORK, id, doc, &err) ? host_problem_from(p, &err) : 0;
}

/* ---- Ports and leases ---- */

struct listing {
    struct host *host;
    const char *network;
    json_t *doc, *list;
};

static void add_port(void *opaque, const struct host_port *port)
{
    struct listing *l = opaque;
    char mac[NET_MAC_TEXT], address[NET_IP4_TEXT];
    if (strcmp(port->network, l->network))
        return;
    json_t *machine = store_get(l->host->store, KIND_MACHINE, port->machine);
    json_t *addresses = json_array(), *vlans = json_array();
    struct net_cidr subnet;
    struct in6_addr prefix;
    net_mac_text(port->mac, mac);
    if (port->address) {
        net_ip4_text(port->address, address);
        json_array_append_new(addresses, json_string(address));
        if (network_is_ours(l->doc) && !net_cidr_parse(host_text(l->doc, "subnet"), &subnet) &&
            !net_prefix6_parse(host_text(l->doc, "subnet6"), &prefix)) {
            char text[NET_IP6_TEXT];
            struct in6_addr own = net_ip6_host(&prefix, port->address - subnet.base);
            net_ip6_text(&own, text);
            json_array_append_new(addresses, json_string(text));
        }
    }
    for (unsigned i = 0; i < port->vlan_count; i++)
        json_array_append_new(vlans, json_integer(port->vlans[i]));
    json_array_append_new(
        l->list, json_pack("{s:s, s:s, s:i, s:s, s:s, s:o, s:o, s:o}", "machine", port->machine,
                           "name", host_text(machine, "name"), "card", (int)port->card, "mac", mac,
                           "interface", port->tap, "addresses", addresses, "vlan",
                           port->vlan ? json_integer(port->vlan) : json_null(), "vlans", vlans));
}

json_t *network_ports(struct host *host, json_t *doc)
{
    struct listing l = {host, host_text(doc, "id"), doc, json_array()};
    netkeeper_each_port(host, add_port, &l);
    return l.list;
}

/* By the address: DHCPv6's lines have no MAC. */
static json_t *owner_of(json_t *doc, const struct net_lease *lease, const char **mac)
{
    struct net_cidr subnet;
    struct in6_addr prefix;
    json_t *entry;
    bool has6 = !net_prefix6_parse(host_text(doc, "subnet6"), &prefix);
    if (net_cidr_parse(host_text(doc, "subnet"), &subnet))
        return NULL;
    json_object_foreach(json_object_get(doc, "_addresses"), *mac, entry)
    {
        uint32_t number = (uint32_t)json_integer_value(json_object_get(entry, "number"));
        char text[NET_IP6_TEXT];
        if (lease->is6 && has6) {
            struct in6_addr own = net_ip6_host(&prefix, number);
            net_ip6_text(&own, text);
        } else {
            net_ip4_text(subnet.base + number, text);
        }
        if (!strcmp(text, lease->address))
            return entry;
    }
    return NULL;
}

static void add_lease(void *opaque, const struct net_lease *lease)
{
    struct listing *l = opaque;
    const char *mac = "";
    char when[32];
    json_t *entry = owner_of(l->doc, lease, &mac);
    if (!entry || (lease->expires && lease->expires < host_now()))
        return;
    json_t *machine = store_get(l->host->store, KIND_MACHINE, host_text(entry, "machine"));
    json_t *reserved =
        json_object_get(json_object_get(l->doc, "reservations"), host_text(machine, "name"));
    host_time(lease->expires, when);
    json_array_append_new(
        l->list, json_pack("{s:s, s:s, s:s, s:s, s:s, s:o, s:b}", "address", lease->address, "mac",
                           mac, "name", host_text(entry, "label"), "machine",
                           host_text(entry, "machine"), "machine_name", host_text(machine, "name"),
                           "expires", lease->expires ? json_string(when) : json_null(), "reserved",
                           json_is_string(reserved) &&
                               !strcmp(json_string_value(reserved), lease->address)));
}

json_t *network_leases(struct host *host, json_t *doc)
{
    struct listing l = {host, host_text(doc, "id"), doc, json_array()};
    char *path = netkeeper_leases(host, l.network);
    size_t len = 0;
    char *text = path ? host_read_file(path, LEASES_MAX, &len, NULL) : NULL;
    if (text)
        net_leases_parse(text, len, add_lease, &l);
    free(text);
    free(path);
    return l.list;
}

/* ---- Cards ---- */

static bool mac_in(json_t *config, const char *mac, const json_t *but)
{
    json_t *card;
    size_t i;
    json_array_foreach(json_object_get(config, "networks"), i, card)
    {
        if (card != but && !strcasecmp(host_text(card, "mac"), mac))
            return true;
    }
    return false;
}

static const char *mac_taken(struct host *host, const char *mac, const char *own, json_t *config,
                             const json_t *card)
{
    const char *id;
    json_t *doc;
    if (mac_in(config, mac, card))
        return "another card of the machine";
    json_object_foreach(store_all(host->store, KIND_MACHINE), id, doc)
    {
        if (strcmp(id, own) && (mac_in(json_object_get(doc, "config"), mac, NULL) ||
                                mac_in(json_object_get(doc, "pending_config"), mac, NULL)))
            return host_text(doc, "name");
    }
    return NULL;
}

/* The pool: 02, three bytes of this host's own, two of the card's (IEEE 802, section 8.4: locally
 * administered), and on from there when those are used up. */
static void choose_mac(struct host *host, const char *own, json_t *config, json_t *card)
{
    char hash[65], text[NET_MAC_TEXT], hex[7];
    host_sha256_hex(host->places.data, strlen(host->places.data), hash);
    unsigned tries = 0;
    do {
        host_random_hex(hex, 3);
        snprintf(text, sizeof(text), "02:%.2s:%.2s:%.2s:%.2s:%.2s", hash,
                 tries < 65536 ? hash + 2 : hex + 4, tries < 4096 ? hash + 4 : hex + 4, hex,
                 hex + 2);
        tries++;
    } while (mac_taken(host, text, own, config, card));
    json_object_set_new(card, "mac", json_string(text));
}

static bool allows(json_t *network, json_t *vlan)
{
    json_t *other;
    size_t i;
    json_array_foreach(json_object_get(network, "vlans"), i, other)
    {
        if (json_equal(vlan, other))
            return true;
    }
    return json_equal(vlan, json_object_get(network, "vlan"));
}

/* Which VLANs cards may be in is the administrator's to say, in the network. */
static int check_vlans(json_t *network, json_t *card, const char *field, struct host_problem *p)
{
    json_t *vlan = json_object_get(card, "vlan"), *one;
    size_t i;
    if (json_is_integer(vlan) && !allows(network, vlan))
        return host_problem(p, HOST_INVALID, field, "vlan: the network %s does not allow %d",
                            host_text(network, "name"), (int)json_integer_value(vlan));
    json_array_foreach(json_object_get(card, "vlans"), i, one)
    {
        if (!allows(network, one))
            return host_problem(p, HOST_INVALID, field, "vlans: the network %s does not allow %d",
                                host_text(network, "name"), (int)json_integer_value(one));
    }
    return 0;
}

static int complete_card(struct host *host, json_t *config, size_t i, json_t *card, const char *own,
                         bool fresh, struct host_problem *p)
{
    const char *type = host_text(card, "type"), *name = host_text(card, "name");
    const char *mac = host_text(card, "mac"), *other;
    json_t *network = *name ? network_find(host, name) : NULL;
    char field[64];
    snprintf(field, sizeof(field), "/config/networks/%zu", i);
    if (network && (!*type || !strcmp(type, "user") || !strcmp(type, "host"))) {
        bool user = !strcmp(host_text(network, "type"), "user");
        json_object_set_new(card, "type", json_string(user ? "user" : "host"));
        json_object_set(card, "name", json_object_get(network, "name"));
        if (user) {
            json_object_del(card, "vlan");
            json_object_del(card, "vlans");
        } else if (check_vlans(network, card, field, p)) {
            return -1;
        }
    } else if (!strcmp(type, "host")) {
        return host_problem(p, HOST_INVALID, field, "network %s: there is none", name);
    }
    uint8_t bytes[6];
    if (*mac && net_mac_parse(mac, bytes))
        return host_problem(p, HOST_INVALID, field,
                            "mac: must be a unicast address like 02:00:00:00:00:01");
    other = *mac ? mac_taken(host, mac, own, config, card) : NULL;
    if (other && !fresh)
        return host_problem(p, HOST_CONFLICT, field, "mac: %s has %s already", other, mac);
    if (other || !*mac)
        choose_mac(host, own, config, card);
    return 0;
}

int network_complete_cards(struct host *host, json_t *config, const char *own, bool fresh,
                           struct host_problem *p)
{
    json_t *card;
    size_t i;
    json_array_foreach(json_object_get(config, "networks"), i, card)
    {
        if (json_is_object(card) && complete_card(host, config, i, card, own, fresh, p))
            return -1;
    }
    return 0;
}
