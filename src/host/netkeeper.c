/*
 * See netkeeper.h. Two locks: `sync` lets one thread at a time work on the kernel and is taken
 * first; the host's guards what others see: ports, and how networks are.
 */
#include "host/netkeeper.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "device/net/netdev.h"
#include "host/events.h"
#include "host/networks.h"
#include "host/store/store.h"
#include "host/supervisor.h"
#include "net/dnsmasq.h"
#include "net/link.h"
#include "net/process.h"
#include "net/rules.h"

#define PORTS "ports" /* of a machine's runtime folder: what a new daemon finds */
#define FORWARDING "/proc/sys/net/ipv4/ip_forward"

/* How a network is. */
struct state {
    char id[HOST_ID_MAX];
    bool known, seen;
    char reason[256]; /* empty: up */
    char *conf;       /* that its dnsmasq runs with; NULL: none runs */
    struct state *next;
};

struct netkeeper {
    pthread_mutex_t sync;
    char instance[7], table[24];
    char unable[128]; /* or empty */
    char *rules;      /* that are in place */
    struct state *states;
    struct host_port *ports;
    size_t count, room;
};

/* A network as it is to be: what the kernel's side needs of its row. */
struct plan {
    char id[HOST_ID_MAX];
    bool ours, user_bridge;
    char bridge[16];
    unsigned mtu;
    bool services; /* a dnsmasq */
    struct net_rules_network rules;
    struct net_dnsmasq dnsmasq;
    struct net_dnsmasq_host *hosts;
    char *leases, *log, *reason;
    bool guard;
};

struct work {
    struct plan *plan;
    size_t count;
    struct net_rules_port *ports;
    size_t port_count;
    char (*taps)[16];
    size_t tap_count;
};

/* ---- Names ---- */

void netkeeper_bridge(struct host *host, const char *network_id, char out[16])
{
    snprintf(out, 16, "ml%.6sb%.6s", host->netkeeper ? host->netkeeper->instance : "000000",
             network_id);
}

char *netkeeper_leases(struct host *host, const char *network_id)
{
    return host_path(host->places.data, "networks/%s.leases", network_id);
}

static char *conf_file(struct host *host, const char *id, const char *ending)
{
    return host_path(host->places.runtime, "networks/%s%s", id, ending);
}

static char *conf_argument(struct host *host, const char *id)
{
    char *out = NULL;
    return asprintf(&out, "--conf-file=%s/networks/%s", host->places.runtime, id) < 0 ? NULL : out;
}

/* ---- How networks are ---- */

static struct state *state_of(struct netkeeper *k, const char *id)
{
    struct state *s = k->states;
    while (s && strcmp(s->id, id))
        s = s->next;
    if (s)
        return s;
    s = calloc(1, sizeof(*s));
    if (!s)
        return NULL;
    snprintf(s->id, sizeof(s->id), "%s", id);
    snprintf(s->reason, sizeof(s->reason), "not set up yet");
    s->next = k->states;
    k->states = s;
    return s;
}

const char *netkeeper_unable(struct host *host)
{
    if (!host->netkeeper)
        return "networks are not kept here";
    return *host->netkeeper->unable ? host->netkeeper->unable : NULL;
}

const char *netkeeper_reason(struct host *host, const char *network_id)
{
    struct netkeeper *k = host->netkeeper;
    if (netkeeper_unable(host))
        return netkeeper_unable(host);
    struct state *s = state_of(k, network_id);
    if (!s)
        return "no memory";
    return *s->reason ? s->reason : NULL;
}

/* Lock held. */
static void tell(struct host *host, const char *id, const char *reason)
{
    struct state *s = state_of(host->netkeeper, id);
    json_t *doc = store_get(host->store, KIND_NETWORK, id);
    if (!s || (s->known && !strcmp(s->reason, reason)))
        return;
    bool was_up = s->known && !*s->reason;
    s->known = true;
    snprintf(s->reason, sizeof(s->reason), "%s", reason);
    if (!doc)
        return;
    json_object_set_new(doc, "_version", json_integer((json_int_t)++host->store->version));
    host_changed(host, KIND_NETWORK, id);
    if (*reason || was_up) {
        char object[HOST_ID_MAX + 16];
        snprintf(object, sizeof(object), "network:%s", id);
        host_event(host, "network.down", object, host_text(doc, "name"), NULL, "error", NULL,
                   "network %s is down: %s", host_text(doc, "name"), reason);
    }
}

/* ---- What is to be: the lock is held ---- */

static void plan_hosts(struct plan *n, json_t *doc)
{
    json_t *all = json_object_get(doc, "_addresses"), *entry;
    const char *mac;
    n->hosts = calloc(json_object_size(all) + 1, sizeof(*n->hosts));
    if (!n->hosts)
        return;
    json_object_foreach(all, mac, entry)
    {
        struct net_dnsmasq_host *h = &n->hosts[n->dnsmasq.count];
        json_int_t number = json_integer_value(json_object_get(entry, "number"));
        if (net_mac_parse(mac, h->mac) || number < 2)
            continue;
        snprintf(h->label, sizeof(h->label), "%s", host_text(entry, "label"));
        h->address = n->dnsmasq.subnet.base + (uint32_t)number;
        n->dnsmasq.count++;
    }
    n->dnsmasq.hosts = n->hosts;
}

static void plan_network(struct host *host, struct plan *n, json_t *doc)
{
    struct net_rules_network *r = &n->rules;
    struct net_dnsmasq *d = &n->dnsmasq;
    snprintf(n->id, sizeof(n->id), "%s", host_text(doc, "id"));
    n->ours = network_is_ours(doc);
    n->mtu = (unsigned)json_integer_value(json_object_get(doc, "mtu"));
    n->guard = !json_is_false(json_object_get(doc, "guard"));
    if (!n->ours) {
        snprintf(n->bridge, sizeof(n->bridge), "%s", host_text(doc, "bridge"));
        return;
    }
    netkeeper_bridge(host, n->id, n->bridge);
    snprintf(r->bridge, sizeof(r->bridge), "%s", n->bridge);
    r->nat = !strcmp(host_text(doc, "type"), "nat");
    if (!net_cidr_parse(host_text(doc, "subnet"), &r->subnet)) {
        r->gateway = r->subnet.base + 1;
        r->dhcp = json_is_true(json_object_get(doc, "dhcp"));
        r->dns = json_is_true(json_object_get(doc, "dns"));
        r->has6 = !net_prefix6_parse(host_text(doc, "subnet6"), &r->prefix6);
        r->gateway6 = net_ip6_host(&r->prefix6, 1);
    }
    n->services = r->dhcp || r->dns;
    *d = (struct net_dnsmasq){.dhcp = r->dhcp,
                              .dns = r->dns,
                              .nat = r->nat,
                              .subnet = r->subnet,
                              .gateway = r->gateway,
                              .has6 = r->has6,
                              .prefix6 = r->prefix6,
                              .mtu = n->mtu};
    snprintf(d->bridge, sizeof(d->bridge), "%s", n->bridge);
    snprintf(d->domain, sizeof(d->domain), "%s", host_text(doc, "domain"));
    d->leases = n->leases = netkeeper_leases(host, n->id);
    d->log = n->log = conf_file(host, n->id, ".log");
    plan_hosts(n, doc);
}

static void bridge_mac(const char *network_id, uint8_t mac[6])
{
    char hash[65];
    unsigned v = 0;
    host_sha256_hex(network_id, strlen(network_id), hash);
    mac[0] = 0x06; /* locally administered, and not of the pool for cards */
    for (unsigned i = 1; i < 6 && sscanf(hash + 2 * i, "%2x", &v) == 1; i++)
        mac[i] = (uint8_t)v;
}

static struct plan *plan_of(struct work *w, const char *id)
{
    for (size_t i = 0; i < w->count; i++)
        if (!strcmp(w->plan[i].id, id))
            return &w->plan[i];
    return NULL;
}

static void plan_port(struct work *w, const struct host_port *port)
{
    struct plan *n = plan_of(w, port->network);
    struct net_rules_port *r = &w->ports[w->port_count];
    snprintf(w->taps[w->tap_count++], 16, "%s", port->tap);
    if (!n || !n->guard)
        return;
    w->port_count++;
    snprintf(r->tap, sizeof(r->tap), "%s", port->tap);
    memcpy(r->mac, port->mac, 6);
    r->managed = n->ours;
    r->trunk = port->vlan_count > 0;
    r->address = port->address;
    if (!n->ours || !n->rules.subnet.prefix)
        return;
    r->gateway = n->rules.gateway;
    if (n->rules.has6) {
        uint8_t mac[6];
        bridge_mac(n->id, mac);
        r->gateway6[0] = n->rules.gateway6;
        r->gateway6[1] = net_ip6_link_local(mac);
        if (port->address)
            r->address6 = net_ip6_host(&n->rules.prefix6, port->address - n->rules.subnet.base);
    }
}

static int make_work(struct host *host, struct work *w)
{
    struct netkeeper *k = host->netkeeper;
    json_t *all = store_all(host->store, KIND_NETWORK), *doc;
    const char *id;
    memset(w, 0, sizeof(*w));
    w->plan = calloc(json_object_size(all) + 1, sizeof(*w->plan));
    w->ports = calloc(k->count + 1, sizeof(*w->ports));
    w->taps = calloc(k->count + 1, sizeof(*w->taps));
    if (!w->plan || !w->ports || !w->taps)
        return -ENOMEM;
    json_object_foreach(all, id, doc)
    {
        if (strcmp(host_text(doc, "type"), "user"))
            plan_network(host, &w->plan[w->count++], doc);
    }
    for (size_t i = 0; i < k->count; i++)
        plan_port(w, &k->ports[i]);
    return 0;
}

static void free_work(struct work *w)
{
    for (size_t i = 0; i < w->count; i++) {
        free(w->plan[i].hosts);
        free(w->plan[i].leases);
        free(w->plan[i].log);
        free(w->plan[i].reason);
    }
    free(w->plan);
    free(w->ports);
    free(w->taps);
}

/* ---- Making it so: the lock is not held, `sync` is ---- */

struct found {
    struct netkeeper *k;
    struct work *w;
    char (*stray)[16];
    size_t count, room;
};

static bool is_wanted(const struct work *w, const char *name)
{
    for (size_t i = 0; i < w->count; i++)
        if (w->plan[i].ours && !strcmp(w->plan[i].bridge, name))
            return true;
    for (size_t i = 0; i < w->tap_count; i++)
        if (!strcmp(w->taps[i], name))
            return true;
    return false;
}

static void look_at_link(void *opaque, const struct net_link_info *info)
{
    struct found *f = opaque;
    char prefix[9];
    snprintf(prefix, sizeof(prefix), "ml%.6s", f->k->instance);
    if (strncmp(info->name, prefix, 8) || is_wanted(f->w, info->name))
        return;
    if (f->count == f->room) {
        void *more = realloc(f->stray, (f->room + 16) * sizeof(*f->stray));
        if (!more)
            return;
        f->stray = more;
        f->room += 16;
    }
    snprintf(f->stray[f->count++], 16, "%s", info->name);
}

static void remove_stray(struct host *host, struct net_link *nl, struct work *w)
{
    struct found f = {.k = host->netkeeper, .w = w};
    struct mull_error err = {0};
    if (net_link_each(nl, look_at_link, &f, &err))
        mull_log(&host->log, MULL_LOG_WARN, "%s", err.message);
    for (size_t i = 0; i < f.count; i++)
        if (net_link_delete(nl, f.stray[i], &err))
            mull_log(&host->log, MULL_LOG_WARN, "%s", err.message);
    free(f.stray);
}

static int forward(struct mull_error *err)
{
    char *text = host_read_file(FORWARDING, 16, NULL, NULL);
    bool on = text && *text == '1';
    free(text);
    if (on)
        return 0;
    int fd = open(FORWARDING, O_WRONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? write(fd, "1\n", 2) : -1;
    int code = errno;
    if (fd >= 0)
        close(fd);
    return n == 2 ? 0
                  : mull_fail(err, code,
                              "the host does not forward packets, and we may not change it (%s): "
                              "sysctl -w net.ipv4.ip_forward=1",
                              strerror(code));
}

static int raise_bridge(struct net_link *nl, const struct plan *n, struct mull_error *err)
{
    uint8_t mac[6];
    bridge_mac(n->id, mac);
    int ret = net_link_make_bridge(nl, n->bridge, mac, err);
    if (!ret && n->rules.subnet.prefix)
        ret = net_link_add_ip4(nl, n->bridge, n->rules.gateway, n->rules.subnet.prefix, err);
    if (!ret)
        ret = net_link_up(nl, n->bridge, n->mtu, err);
    if (!ret && n->rules.has6 && !access("/proc/sys/net/ipv6", F_OK))
        ret = net_link_add_ip6(nl, n->bridge, &n->rules.gateway6, 64, err);
    if (!ret && n->rules.nat)
        ret = forward(err);
    return ret;
}

static int raise_network(struct net_link *nl, const struct plan *n, struct mull_error *err)
{
    struct net_link_info info;
    if (n->ours)
        return raise_bridge(nl, n, err);
    if (net_link_find(nl, n->bridge, &info, err))
        return mull_fail(err, ENODEV, "the bridge %s is gone", n->bridge);
    if (strcmp(info.kind, "bridge"))
        return mull_fail(err, ENODEV, "%s is no bridge any more", n->bridge);
    return info.up ? 0 : mull_fail(err, ENETDOWN, "the bridge %s is down", n->bridge);
}

static void end_services(struct host *host, const char *id)
{
    char *argument = conf_argument(host, id);
    pid_t pid;
    for (unsigned i = 0; argument && i < 100 && (pid = net_process_with(argument)) > 0; i++)
        net_process_end(pid, argument);
    free(argument);
}

/* One dnsmasq with what it is to do now; a new one where that has changed. */
static int serve(struct host *host, struct plan *n, struct state *s, struct mull_error *err)
{
    char *text = n->services ? net_dnsmasq_text(&n->dnsmasq) : NULL;
    char *path = conf_file(host, n->id, ".conf"), *argument = NULL;
    int ret = 0;
    if (n->services && (!text || !path || asprintf(&argument, "--conf-file=%s", path) < 0)) {
        argument = NULL;
        ret = mull_fail(err, ENOMEM, "no memory");
    }
    bool same = !ret && text && s->conf && !strcmp(text, s->conf) && net_process_with(argument) > 0;
    if (!ret && !same) {
        if (s->conf)
            end_services(host, n->id);
        free(s->conf);
        s->conf = NULL;
        if (text)
            ret = host_write_file(path, text, strlen(text), 0600, err);
        if (text && !ret)
            ret = net_dnsmasq_start(argument, err);
        if (text && !ret) {
            s->conf = text;
            text = NULL;
        }
    }
    free(text);
    free(path);
    free(argument);
    return ret;
}

static int put_rules(struct host *host, struct work *w, struct mull_error *err)
{
    struct netkeeper *k = host->netkeeper;
    struct net_rules_network *networks = calloc(w->count + 1, sizeof(*networks));
    unsigned n = 0;
    for (size_t i = 0; networks && i < w->count; i++)
        if (w->plan[i].ours)
            networks[n++] = w->plan[i].rules;
    char *text =
        networks ? net_rules_text(k->table, networks, n, w->ports, (unsigned)w->port_count) : NULL;
    free(networks);
    if (!text)
        return mull_fail(err, ENOMEM, "no memory");
    if (k->rules && !strcmp(text, k->rules)) {
        free(text);
        return 0;
    }
    int ret = net_rules_apply(text, err);
    free(k->rules);
    k->rules = ret ? NULL : text;
    if (ret)
        free(text);
    return ret;
}

static void fail_plan(struct plan *n, const char *why)
{
    if (!n->reason)
        n->reason = strdup(why);
}

static void forget_states(struct host *host, struct work *w)
{
    for (struct state **at = &host->netkeeper->states; *at;) {
        struct state *s = *at;
        if (plan_of(w, s->id)) {
            at = &s->next;
            continue;
        }
        if (s->conf)
            end_services(host, s->id);
        static const char *const endings[] = {".conf", ".log"};
        for (unsigned i = 0; i < 2; i++) {
            char *path = conf_file(host, s->id, endings[i]);
            if (path)
                unlink(path);
            free(path);
        }
        host_lock(host);
        *at = s->next;
        host_unlock(host);
        free(s->conf);
        free(s);
    }
}

/* Rules come before bridges, and before taps: nothing is let through that they do not know. */
static void do_work(struct host *host, struct work *w)
{
    struct mull_error err = {0};
    struct net_link *nl = NULL;
    int rules = 0, ret = net_link_open(&nl, &err);
    if (!ret && (w->count || host->netkeeper->rules))
        ret = rules = put_rules(host, w, &err);
    for (size_t i = 0; ret && i < w->count; i++)
        fail_plan(&w->plan[i], err.message);
    if (nl)
        remove_stray(host, nl, w);
    for (size_t i = 0; !ret && i < w->count; i++) {
        struct plan *n = &w->plan[i];
        host_lock(host);
        struct state *s = state_of(host->netkeeper, n->id);
        host_unlock(host);
        if (!s || raise_network(nl, n, &err) || serve(host, n, s, &err))
            fail_plan(n, s ? err.message : "no memory");
    }
    forget_states(host, w);
    net_link_close(nl);
}

static void sync_locked(struct host *host)
{
    struct work w;
    host_lock(host);
    int ret = netkeeper_unable(host) ? -EPERM : make_work(host, &w);
    host_unlock(host);
    if (ret == -EPERM)
        return;
    if (!ret)
        do_work(host, &w);
    host_lock(host);
    for (size_t i = 0; i < w.count; i++)
        tell(host, w.plan[i].id, w.plan[i].reason ? w.plan[i].reason : "");
    host_unlock(host);
    free_work(&w);
}

void netkeeper_sync(struct host *host)
{
    pthread_mutex_lock(&host->netkeeper->sync);
    sync_locked(host);
    pthread_mutex_unlock(&host->netkeeper->sync);
}

/* ---- Ports ---- */

void netkeeper_each_port(struct host *host, void (*fn)(void *opaque, const struct host_port *port),
                         void *opaque)
{
    for (size_t i = 0; i < host->netkeeper->count; i++)
        fn(opaque, &host->netkeeper->ports[i]);
}

void netkeeper_disconnect(struct host *host, const char *machine)
{
    struct netkeeper *k = host->netkeeper;
    size_t kept = 0;
    if (!k)
        return;
    for (size_t i = 0; i < k->count; i++)
        if (strcmp(k->ports[i].machine, machine))
            k->ports[kept++] = k->ports[i];
    k->count = kept;
}

static int add_port(struct netkeeper *k, const struct host_port *port)
{
    if (k->count == k->room) {
        size_t room = k->room ? 2 * k->room : 16;
        void *more = realloc(k->ports, room * sizeof(*k->ports));
        if (!more)
            return -ENOMEM;
        k->ports = more;
        k->room = room;
    }
    k->ports[k->count++] = *port;
    return 0;
}

static void choose_tap(struct netkeeper *k, char out[16])
{
    char hex[7];
    bool taken;
    do {
        host_random_hex(hex, 3);
        snprintf(out, 16, "ml%.6st%.6s", k->instance, hex);
        taken = false;
        for (size_t i = 0; i < k->count; i++)
            taken |= !strcmp(k->ports[i].tap, out);
    } while (taken);
}

static json_t *port_json(const struct host_port *port)
{
    char mac[NET_MAC_TEXT];
    json_t *vlans = json_array();
    net_mac_text(port->mac, mac);
    for (unsigned i = 0; i < port->vlan_count; i++)
        json_array_append_new(vlans, json_integer(port->vlans[i]));
    return json_pack("{s:s, s:i, s:s, s:s, s:I, s:i, s:o}", "network", port->network, "card",
                     (int)port->card, "tap", port->tap, "mac", mac, "address",
                     (json_int_t)port->address, "vlan", (int)port->vlan, "vlans", vlans);
}

static int take_port(struct netkeeper *k, const char *machine, json_t *o)
{
    struct host_port port = {.card = (unsigned)json_integer_value(json_object_get(o, "card")),
                             .address = (uint32_t)json_integer_value(json_object_get(o, "address")),
                             .vlan = (unsigned)json_integer_value(json_object_get(o, "vlan"))};
    json_t *vlan;
    size_t i;
    snprintf(port.machine, sizeof(port.machine), "%s", machine);
    snprintf(port.network, sizeof(port.network), "%s", host_text(o, "network"));
    snprintf(port.tap, sizeof(port.tap), "%s", host_text(o, "tap"));
    json_array_foreach(json_object_get(o, "vlans"), i, vlan)
    {
        if (i < 64)
            port.vlans[port.vlan_count++] = (uint16_t)json_integer_value(vlan);
    }
    if (!net_interface_valid(port.tap) || net_mac_parse(host_text(o, "mac"), port.mac))
        return -EINVAL;
    return add_port(k, &port);
}

/* Before its process starts: a daemon that finds it finds its ports. Lock not held. */
static int write_ports(struct host *host, const char *machine, struct mull_error *err)
{
    json_t *list = json_array();
    host_lock(host);
    for (size_t i = 0; i < host->netkeeper->count; i++)
        if (!strcmp(host->netkeeper->ports[i].machine, machine))
            json_array_append_new(list, port_json(&host->netkeeper->ports[i]));
    host_unlock(host);
    char *folder = vm_file(host, machine, ""), *path = vm_file(host, machine, PORTS);
    char *text = json_dumps(list, JSON_COMPACT);
    int ret = folder && path && text ? host_make_folder(folder, 0700) : -ENOMEM;
    if (!ret)
        ret = host_write_file(path, text, strlen(text), 0600, err);
    else
        mull_fail(err, -ret, "%s: %s", path ? path : PORTS, strerror(-ret));
    json_decref(list);
    free(folder);
    free(path);
    free(text);
    return ret;
}

static void read_ports(void *opaque, struct vm *vm)
{
    struct host *host = opaque;
    char *path = vm_file(host, vm->id, PORTS);
    char *text = path ? host_read_file(path, 65536, NULL, NULL) : NULL;
    json_t *list = text ? json_loads(text, 0, NULL) : NULL, *o;
    size_t i;
    json_array_foreach(list, i, o)
    {
        if (take_port(host->netkeeper, vm->id, o))
            mull_log(&host->log, MULL_LOG_ERROR, "%s: port %zu is not understood", path, i);
    }
    json_decref(list);
    free(text);
    free(path);
}

/* ---- Connecting a machine ---- */

/* Lock held. */
static int new_port(struct host *host, const char *machine, unsigned card, json_t *config,
                    struct host_problem *p)
{
    json_t *network = network_find(host, host_text(config, "name")), *vlan;
    struct host_port port = {.card = card};
    size_t i;
    if (!network || !strcmp(host_text(network, "type"), "user"))
        return host_problem(p, HOST_CONFLICT, NULL,
                            "network card %u: the network %s is gone; connect the card to another "
                            "one",
                            card + 1, host_text(config, "name"));
    if (netkeeper_unable(host))
        return host_problem(p, HOST_CONFLICT, NULL, "network %s: %s", host_text(network, "name"),
                            netkeeper_unable(host));
    if (net_mac_parse(host_text(config, "mac"), port.mac))
        return host_problem(p, HOST_CONFLICT, NULL, "network card %u: has no MAC address",
                            card + 1);
    snprintf(port.machine, sizeof(port.machine), "%s", machine);
    snprintf(port.network, sizeof(port.network), "%s", host_text(network, "id"));
    vlan = json_object_get(config, "vlan");
    port.vlan = (unsigned)json_integer_value(vlan ? vlan : json_object_get(network, "vlan"));
    json_array_foreach(json_object_get(config, "vlans"), i, vlan)
    {
        if (i < 64)
            port.vlans[port.vlan_count++] = (uint16_t)json_integer_value(vlan);
    }
    choose_tap(host->netkeeper, port.tap);
    if (network_address(host, network, machine, port.mac, &port.address, p))
        return -1;
    return add_port(host->netkeeper, &port) ? host_problem(p, HOST_UNAVAILABLE, NULL, "no memory")
                                            : 0;
}

struct own {
    const char *machine;
    struct host_port port[NETKEEPER_CARDS_MAX];
    unsigned count;
};

static void take_own(void *opaque, const struct host_port *port)
{
    struct own *o = opaque;
    if (!strcmp(port->machine, o->machine) && o->count < NETKEEPER_CARDS_MAX)
        o->port[o->count++] = *port;
}

/* Its network is up: the tap joins it. Lock not held. */
static int plug(struct host *host, struct net_link *nl, const struct host_port *port,
                struct host_problem *p)
{
    struct net_link_info info;
    struct mull_error err = {0};
    char bridge[16], name[HOST_NAME_MAX], reason[256];
    host_lock(host);
    json_t *network = store_get(host->store, KIND_NETWORK, port->network);
    const char *why = network ? netkeeper_reason(host, port->network) : "is gone";
    snprintf(reason, sizeof(reason), "%s", why ? why : "");
    snprintf(name, sizeof(name), "%s", host_text(network, "name"));
    unsigned mtu = (unsigned)json_integer_value(json_object_get(network, "mtu"));
    bool ours = network && network_is_ours(network);
    if (ours)
        netkeeper_bridge(host, port->network, bridge);
    else
        snprintf(bridge, sizeof(bridge), "%s", host_text(network, "bridge"));
    host_unlock(host);
    if (*reason)
        return host_problem(p, HOST_CONFLICT, NULL, "network %s: %s", name, reason);
    int ret = net_link_join(nl, port->tap, bridge, &err);
    if (!ret && (port->vlan || port->vlan_count)) {
        ret = net_link_find(nl, bridge, &info, &err);
        if (!ret && !info.vlan_filtering)
            ret =
                mull_fail(&err, EOPNOTSUPP, "the bridge %s does not filter VLANs any more", bridge);
        if (!ret)
            ret = net_link_vlans(nl, port->tap, port->vlan, port->vlans, port->vlan_count, &err);
    }
    if (!ret)
        ret = net_link_up(nl, port->tap, mtu, &err);
    return ret ? host_problem(p, HOST_CONFLICT, NULL, "network %s: %s", name, err.message) : 0;
}

static int plug_all(struct host *host, const struct own *own, int *fds, struct host_problem *p)
{
    struct mull_error err = {0};
    struct net_link *nl = NULL;
    int ret = 0;
    for (unsigned i = 0; i < own->count && !ret; i++) {
        fds[i] = mull_tap_open(own->port[i].tap, &err);
        ret = fds[i] < 0 ? host_problem_from(p, &err) : 0;
    }
    if (!ret)
        sync_locked(host);
    if (!ret && net_link_open(&nl, &err))
        ret = host_problem_from(p, &err);
    for (unsigned i = 0; i < own->count && !ret; i++)
        ret = plug(host, nl, &own->port[i], p);
    net_link_close(nl);
    return ret;
}

static void become_taps(json_t *config, const struct own *own, int first)
{
    for (unsigned i = 0; i < own->count; i++) {
        json_t *card = json_array_get(json_object_get(config, "networks"), own->port[i].card);
        json_object_set_new(card, "type", json_string("tap"));
        json_object_set_new(card, "interface", json_string(own->port[i].tap));
        json_object_set_new(card, "fd", json_integer(first + (int)i));
        json_object_del(card, "vlan");
        json_object_del(card, "vlans");
        json_object_del(card, "forward");
    }
}

static void forget_ports(struct host *host, const char *machine)
{
    char *folder = vm_file(host, machine, ""), *path = vm_file(host, machine, PORTS);
    host_lock(host);
    netkeeper_disconnect(host, machine);
    host_unlock(host);
    if (path)
        unlink(path);
    if (folder)
        rmdir(folder);
    free(folder);
    free(path);
}

int netkeeper_connect(struct host *host, const char *machine, json_t *config, int first, int *fds,
                      struct host_problem *p)
{
    struct own own = {.machine = machine};
    struct mull_error err = {0};
    json_t *card;
    size_t i;
    int ret = 0;
    for (unsigned j = 0; j < NETKEEPER_CARDS_MAX; j++)
        fds[j] = -1;
    host_lock(host);
    netkeeper_disconnect(host, machine);
    json_array_foreach(json_object_get(config, "networks"), i, card)
    {
        if (!ret && i < NETKEEPER_CARDS_MAX && !strcmp(host_text(card, "type"), "host"))
            ret = new_port(host, machine, (unsigned)i, card, p);
    }
    netkeeper_each_port(host, take_own, &own);
    host_unlock(host);
    if (!ret && !own.count)
        return 0;
    if (!ret && write_ports(host, machine, &err))
        ret = host_problem_from(p, &err);
    if (!ret) {
        pthread_mutex_lock(&host->netkeeper->sync);
        ret = plug_all(host, &own, fds, p);
        pthread_mutex_unlock(&host->netkeeper->sync);
    }
    if (!ret) {
        become_taps(config, &own, first);
        return (int)own.count;
    }
    for (unsigned j = 0; j < NETKEEPER_CARDS_MAX; j++)
        if (fds[j] >= 0)
            close(fds[j]);
    forget_ports(host, machine);
    return -1;
}

/* ---- Now and then ---- */

struct leases {
    struct host *host;
    json_t *of; /* machine -> addresses */
};

static void gather(struct leases *l)
{
    const char *id;
    json_t *doc, *lease;
    size_t i;
    json_object_foreach(store_all(l->host->store, KIND_NETWORK), id, doc)
    {
        json_t *list = network_is_ours(doc) ? network_leases(l->host, doc) : NULL;
        json_array_foreach(list, i, lease)
        {
            const char *machine = host_text(lease, "machine");
            json_t *all = json_object_get(l->of, machine);
            if (!all)
                json_object_set_new(l->of, machine, all = json_array());
            json_array_append(all, json_object_get(lease, "address"));
        }
        json_decref(list);
    }
}

/* What an agent says is better; where there is none, leases say something. */
static void tell_addresses(void *opaque, struct vm *vm)
{
    struct leases *l = opaque;
    json_t *found = json_object_get(l->of, vm->id);
    if (!found || (vm->addresses && !vm->leased) || json_equal(found, vm->addresses))
        return;
    json_decref(vm->addresses);
    vm->addresses = json_incref(found);
    vm->leased = true;
    vm_touch(vm);
}

void netkeeper_look(struct host *host)
{
    struct leases l = {host, json_object()};
    if (netkeeper_unable(host))
        return;
    netkeeper_sync(host);
    host_lock(host);
    gather(&l);
    vm_each(host, tell_addresses, &l);
    host_unlock(host);
    json_decref(l.of);
}

/* ---- Beginning and end ---- */

static void find_out(struct netkeeper *k)
{
    static const char *const programs[] = {"nft", "dnsmasq"};
    if (!net_link_allowed()) {
        snprintf(k->unable, sizeof(k->unable),
                 "mulliond may not make networks (CAP_NET_ADMIN): run it as the host's service, or "
                 "use a network of type user");
        return;
    }
    for (unsigned i = 0; i < 2; i++) {
        char *path = net_process_find(programs[i]);
        if (!path)
            snprintf(k->unable, sizeof(k->unable),
                     "%s is not installed: networks of the host need nftables and dnsmasq-base",
                     programs[i]);
        free(path);
    }
}

int netkeeper_open(struct host *host, struct mull_error *err)
{
    struct netkeeper *k = calloc(1, sizeof(*k));
    char hash[65], *folders[2] = {host_path(host->places.data, "networks"),
                                  host_path(host->places.runtime, "networks")};
    char *data = realpath(host->places.data, NULL);
    int ret = k && data && folders[0] && folders[1] ? 0 : mull_fail(err, ENOMEM, "no memory");
    for (unsigned i = 0; i < 2 && !ret; i++) {
        ret = host_make_folder(folders[i], 0700);
        if (ret)
            mull_fail(err, -ret, "%s: %s", folders[i], strerror(-ret));
    }
    if (!ret) {
        pthread_mutex_init(&k->sync, NULL);
        host_sha256_hex(data, strlen(data), hash);
        snprintf(k->instance, sizeof(k->instance), "%.6s", hash);
        snprintf(k->table, sizeof(k->table), "mullion_%.6s", hash);
        k->rules = strdup(""); /* the first sync puts its own in place */
        find_out(k);
        host->netkeeper = k;
        host_lock(host);
        vm_each(host, read_ports, host);
        host_unlock(host);
        if (!netkeeper_unable(host)) {
            end_services(host, ""); /* of the daemon before us; their leases stay */
            netkeeper_sync(host);
        }
    } else {
        free(k);
    }
    free(folders[0]);
    free(folders[1]);
    free(data);
    return ret;
}

/* Nobody is on it: it goes with us. Lock not held. */
static void lower(struct host *host, struct net_link *nl, json_t *doc)
{
    struct mull_error err = {0};
    char bridge[16];
    const char *id = host_text(doc, "id");
    for (size_t i = 0; i < host->netkeeper->count; i++)
        if (!strcmp(host->netkeeper->ports[i].network, id))
            return;
    if (!network_is_ours(doc))
        return;
    netkeeper_bridge(host, id, bridge);
    end_services(host, id);
    if (net_link_delete(nl, bridge, &err))
        mull_log(&host->log, MULL_LOG_WARN, "%s", err.message);
}

static void lower_all(struct host *host)
{
    struct netkeeper *k = host->netkeeper;
    struct mull_error err = {0};
    struct net_link *nl = NULL;
    const char *id;
    json_t *doc;
    if (net_link_open(&nl, &err))
        return;
    json_object_foreach(store_all(host->store, KIND_NETWORK), id, doc)
    {
        lower(host, nl, doc);
    }
    if (!k->count && k->rules && *k->rules) {
        char *text = net_rules_removal(k->table);
        if (!text || net_rules_apply(text, &err))
            mull_log(&host->log, MULL_LOG_WARN, "%s", err.message);
        free(text);
    }
    net_link_close(nl);
}

void netkeeper_close(struct host *host)
{
    struct netkeeper *k = host->netkeeper;
    if (!k)
        return;
    if (host->store && !netkeeper_unable(host))
        lower_all(host);
    while (k->states) {
        struct state *s = k->states;
        k->states = s->next;
        free(s->conf);
        free(s);
    }
    pthread_mutex_destroy(&k->sync);
    free(k->ports);
    free(k->rules);
    free(k);
    host->netkeeper = NULL;
}
