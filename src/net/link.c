/*
 * See link.h. Messages are made and read with libmnl: linux/rtnetlink.h, linux/if_link.h and
 * linux/if_bridge.h say what is in them.
 */
#include "net/link.h"

#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/capability.h>
#include <linux/if_addr.h>
#include <linux/if_bridge.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#define ROOM 8192 /* of one request: a port's VLANs are the most */

struct net_link {
    struct mnl_socket *socket;
    unsigned seq, port;
    char buffer[ROOM];
};

int net_link_open(struct net_link **out, struct mull_error *err)
{
    const struct timeval patience = {.tv_sec = 10};
    struct net_link *nl = calloc(1, sizeof(*nl));
    if (!nl)
        return mull_fail(err, ENOMEM, "netlink: no memory");
    nl->socket = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC);
    if (!nl->socket || mnl_socket_bind(nl->socket, 0, MNL_SOCKET_AUTOPID)) {
        int code = errno;
        net_link_close(nl);
        return mull_fail(err, code, "netlink: %s", strerror(code));
    }
    setsockopt(mnl_socket_get_fd(nl->socket), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    nl->port = mnl_socket_get_portid(nl->socket);
    *out = nl;
    return 0;
}

void net_link_close(struct net_link *nl)
{
    if (!nl)
        return;
    if (nl->socket)
        mnl_socket_close(nl->socket);
    free(nl);
}

bool net_link_allowed(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {0};
    return !syscall(SYS_capget, &header, data) && data[0].effective >> CAP_NET_ADMIN & 1;
}

static struct nlmsghdr *request(struct net_link *nl, uint16_t type, uint16_t flags, size_t extra,
                                void **body)
{
    struct nlmsghdr *h = mnl_nlmsg_put_header(nl->buffer);
    h->nlmsg_type = type;
    h->nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags);
    h->nlmsg_seq = ++nl->seq;
    *body = mnl_nlmsg_put_extra_header(h, extra);
    return h;
}

/* Send it and read what comes. @return 0 or -errno */
static int talk(struct net_link *nl, struct nlmsghdr *h, mnl_cb_t fn, void *opaque)
{
    char answer[32768];
    if ((h->nlmsg_flags & NLM_F_DUMP) != NLM_F_DUMP) /* NLM_F_EXCL has one of its bits */
        h->nlmsg_flags |= NLM_F_ACK;
    if (mnl_socket_sendto(nl->socket, h, h->nlmsg_len) < 0)
        return -errno;
    for (;;) {
        ssize_t n = mnl_socket_recvfrom(nl->socket, answer, sizeof(answer));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        int more = mnl_cb_run(answer, (size_t)n, nl->seq, nl->port, fn, opaque);
        if (more <= MNL_CB_STOP)
            return more < 0 ? -errno : 0;
    }
}

static int ask(struct net_link *nl, struct nlmsghdr *h)
{
    return talk(nl, h, NULL, NULL);
}

static int index_of(const char *name, struct mull_error *err)
{
    unsigned i = if_nametoindex(name);
    return i ? (int)i : mull_fail(err, ENODEV, "interface %s: there is none", name);
}

int net_link_make_bridge(struct net_link *nl, const char *name, const uint8_t mac[6],
                         struct mull_error *err)
{
    struct ifinfomsg *body;
    struct nlmsghdr *h =
        request(nl, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, sizeof(*body), (void **)&body);
    mnl_attr_put_strz(h, IFLA_IFNAME, name);
    mnl_attr_put(h, IFLA_ADDRESS, 6, mac);
    struct nlattr *info = mnl_attr_nest_start(h, IFLA_LINKINFO);
    mnl_attr_put_strz(h, IFLA_INFO_KIND, "bridge");
    mnl_attr_nest_end(h, info);
    int ret = ask(nl, h);
    if (ret == -EEXIST)
        return 0;
    if (ret == -EOPNOTSUPP)
        return mull_fail(err, EOPNOTSUPP,
                         "bridge %s: the host's kernel has no bridges: load the module bridge",
                         name);
    if (ret)
        return mull_fail(err, -ret, "bridge %s: cannot be made: %s", name, strerror(-ret));
    return 0;
}

int net_link_delete(struct net_link *nl, const char *name, struct mull_error *err)
{
    struct ifinfomsg *body;
    struct nlmsghdr *h = request(nl, RTM_DELLINK, 0, sizeof(*body), (void **)&body);
    mnl_attr_put_strz(h, IFLA_IFNAME, name);
    int ret = ask(nl, h);
    if (!ret || ret == -ENODEV)
        return 0;
    return mull_fail(err, -ret, "interface %s: cannot be removed: %s", name, strerror(-ret));
}

int net_link_up(struct net_link *nl, const char *name, unsigned mtu, struct mull_error *err)
{
    struct ifinfomsg *body;
    int index = index_of(name, err);
    if (index < 0)
        return index;
    struct nlmsghdr *h = request(nl, RTM_NEWLINK, 0, sizeof(*body), (void **)&body);
    body->ifi_index = index;
    body->ifi_flags = body->ifi_change = IFF_UP;
    if (mtu)
        mnl_attr_put_u32(h, IFLA_MTU, mtu);
    int ret = ask(nl, h);
    return ret ? mull_fail(err, -ret, "interface %s: cannot be set up: %s", name, strerror(-ret))
               : 0;
}

static int address(struct net_link *nl, uint16_t type, uint16_t flags, const char *name, int family,
                   const void *bytes, unsigned prefix, struct mull_error *err)
{
    struct ifaddrmsg *body;
    int index = index_of(name, err);
    size_t size = family == AF_INET ? 4 : 16;
    if (index < 0)
        return index;
    struct nlmsghdr *h = request(nl, type, flags, sizeof(*body), (void **)&body);
    body->ifa_family = (uint8_t)family;
    body->ifa_prefixlen = (uint8_t)prefix;
    body->ifa_index = (uint32_t)index;
    if (family == AF_INET6)
        body->ifa_flags = IFA_F_NODAD; /* nobody else has it, and it is wanted at once */
    mnl_attr_put(h, IFA_LOCAL, size, bytes);
    mnl_attr_put(h, IFA_ADDRESS, size, bytes);
    int ret = ask(nl, h);
    if (ret == -EEXIST || (type == RTM_DELADDR && ret == -EADDRNOTAVAIL))
        ret = 0;
    return ret ? mull_fail(err, -ret, "interface %s: its address cannot be changed: %s", name,
                           strerror(-ret))
               : 0;
}

int net_link_add_ip4(struct net_link *nl, const char *name, uint32_t ip, unsigned prefix,
                     struct mull_error *err)
{
    uint32_t wire = htonl(ip);
    return address(nl, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, name, AF_INET, &wire, prefix, err);
}

int net_link_remove_ip4(struct net_link *nl, const char *name, uint32_t ip, unsigned prefix,
                        struct mull_error *err)
{
    uint32_t wire = htonl(ip);
    return address(nl, RTM_DELADDR, 0, name, AF_INET, &wire, prefix, err);
}

int net_link_add_ip6(struct net_link *nl, const char *name, const struct in6_addr *ip,
                     unsigned prefix, struct mull_error *err)
{
    return address(nl, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, name, AF_INET6, ip, prefix, err);
}

int net_link_remove_ip6(struct net_link *nl, const char *name, const struct in6_addr *ip,
                        unsigned prefix, struct mull_error *err)
{
    return address(nl, RTM_DELADDR, 0, name, AF_INET6, ip, prefix, err);
}

int net_link_join(struct net_link *nl, const char *port, const char *bridge, struct mull_error *err)
{
    struct ifinfomsg *body;
    int index = index_of(port, err), master = index_of(bridge, err);
    if (index < 0 || master < 0)
        return index < 0 ? index : master;
    struct nlmsghdr *h = request(nl, RTM_NEWLINK, 0, sizeof(*body), (void **)&body);
    body->ifi_index = index;
    mnl_attr_put_u32(h, IFLA_MASTER, (uint32_t)master);
    int ret = ask(nl, h);
    return ret ? mull_fail(err, -ret, "bridge %s: %s cannot join it: %s", bridge, port,
                           strerror(-ret))
               : 0;
}

/* ---- VLANs ---- */

static int vlan(struct net_link *nl, uint16_t type, int index, unsigned vid, uint16_t flags)
{
    struct ifinfomsg *body;
    struct bridge_vlan_info info = {.flags = flags, .vid = (uint16_t)vid};
    struct nlmsghdr *h = request(nl, type, 0, sizeof(*body), (void **)&body);
    body->ifi_family = AF_BRIDGE;
    body->ifi_index = index;
    struct nlattr *spec = mnl_attr_nest_start(h, IFLA_AF_SPEC);
    mnl_attr_put(h, IFLA_BRIDGE_VLAN_INFO, sizeof(info), &info);
    mnl_attr_nest_end(h, spec);
    return ask(nl, h);
}

int net_link_vlans(struct net_link *nl, const char *port, unsigned pvid, const uint16_t *tagged,
                   unsigned count, struct mull_error *err)
{
    int index = index_of(port, err), ret = 0;
    if (index < 0)
        return index;
    if (pvid != 1) /* that is what a new port begins with */
        ret = vlan(nl, RTM_DELLINK, index, 1, 0);
    if (ret == -ENOENT)
        ret = 0;
    if (pvid && !ret)
        ret = vlan(nl, RTM_SETLINK, index, pvid, BRIDGE_VLAN_INFO_PVID | BRIDGE_VLAN_INFO_UNTAGGED);
    for (unsigned i = 0; i < count && !ret; i++)
        if (tagged[i] != pvid)
            ret = vlan(nl, RTM_SETLINK, index, tagged[i], 0);
    return ret ? mull_fail(err, -ret, "interface %s: its VLANs cannot be set: %s", port,
                           strerror(-ret))
               : 0;
}

/* ---- What is there ---- */

struct walk {
    void (*link)(void *opaque, const struct net_link_info *info);
    void (*route)(void *opaque, struct net_cidr to, int index);
    void *opaque;
};

static bool holds(const struct nlattr *a, size_t size)
{
    return mnl_attr_get_payload_len(a) >= size;
}

static void read_bridge(const struct nlattr *data, struct net_link_info *info)
{
    const struct nlattr *a;
    mnl_attr_for_each_nested(a, data)
    {
        if (mnl_attr_get_type(a) == IFLA_BR_VLAN_FILTERING && holds(a, 1))
            info->vlan_filtering = mnl_attr_get_u8(a);
    }
}

static void read_kind(const struct nlattr *nest, struct net_link_info *info)
{
    const struct nlattr *a, *data = NULL;
    mnl_attr_for_each_nested(a, nest)
    {
        if (mnl_attr_get_type(a) == IFLA_INFO_KIND)
            snprintf(info->kind, sizeof(info->kind), "%.*s", (int)mnl_attr_get_payload_len(a),
                     (const char *)mnl_attr_get_payload(a));
        else if (mnl_attr_get_type(a) == IFLA_INFO_DATA)
            data = a;
    }
    if (data && !strcmp(info->kind, "bridge"))
        read_bridge(data, info);
}

static int read_link(const struct nlmsghdr *h, void *opaque)
{
    const struct walk *w = opaque;
    const struct ifinfomsg *body = mnl_nlmsg_get_payload(h);
    struct net_link_info info = {.index = body->ifi_index, .up = body->ifi_flags & IFF_UP};
    struct rtnl_link_stats64 stats;
    const struct nlattr *a;
    mnl_attr_for_each(a, h, sizeof(*body))
    {
        switch (mnl_attr_get_type(a)) {
        case IFLA_IFNAME:
            snprintf(info.name, sizeof(info.name), "%.*s", (int)mnl_attr_get_payload_len(a),
                     (const char *)mnl_attr_get_payload(a));
            break;
        case IFLA_MASTER:
            if (holds(a, 4))
                info.master = (int)mnl_attr_get_u32(a);
            break;
        case IFLA_ADDRESS:
            if (mnl_attr_get_payload_len(a) == 6)
                memcpy(info.mac, mnl_attr_get_payload(a), 6);
            break;
        case IFLA_LINKINFO:
            read_kind(a, &info);
            break;
        case IFLA_STATS64:
            if (holds(a, sizeof(stats))) {
                memcpy(&stats, mnl_attr_get_payload(a), sizeof(stats));
                info.rx_bytes = stats.rx_bytes;
                info.tx_bytes = stats.tx_bytes;
                info.rx_packets = stats.rx_packets;
                info.tx_packets = stats.tx_packets;
                info.rx_dropped = stats.rx_dropped;
                info.tx_dropped = stats.tx_dropped;
            }
            break;
        default:
            break;
        }
    }
    w->link(w->opaque, &info);
    return MNL_CB_OK;
}

int net_link_each(struct net_link *nl, void (*fn)(void *opaque, const struct net_link_info *),
                  void *opaque, struct mull_error *err)
{
    struct walk w = {.link = fn, .opaque = opaque};
    struct ifinfomsg *body;
    struct nlmsghdr *h = request(nl, RTM_GETLINK, NLM_F_DUMP, sizeof(*body), (void **)&body);
    int ret = talk(nl, h, read_link, &w);
    return ret ? mull_fail(err, -ret, "netlink: interfaces: %s", strerror(-ret)) : 0;
}

struct wanted {
    const char *name;
    struct net_link_info *out;
    bool found;
};

static void take_wanted(void *opaque, const struct net_link_info *info)
{
    struct wanted *w = opaque;
    if (strcmp(info->name, w->name))
        return;
    *w->out = *info;
    w->found = true;
}

int net_link_find(struct net_link *nl, const char *name, struct net_link_info *out,
                  struct mull_error *err)
{
    struct wanted w = {.name = name, .out = out};
    int ret = net_link_each(nl, take_wanted, &w, err);
    if (!ret && !w.found)
        ret = mull_fail(err, ENODEV, "interface %s: there is none", name);
    return ret;
}

static int read_route(const struct nlmsghdr *h, void *opaque)
{
    const struct walk *w = opaque;
    const struct rtmsg *body = mnl_nlmsg_get_payload(h);
    struct net_cidr to = {.prefix = body->rtm_dst_len};
    const struct nlattr *a;
    int index = 0;
    bool has = false;
    if (body->rtm_table != RT_TABLE_MAIN || body->rtm_family != AF_INET)
        return MNL_CB_OK;
    mnl_attr_for_each(a, h, sizeof(*body))
    {
        if (mnl_attr_get_type(a) == RTA_DST && holds(a, 4)) {
            to.base = ntohl(mnl_attr_get_u32(a));
            has = true;
        } else if (mnl_attr_get_type(a) == RTA_OIF && holds(a, 4)) {
            index = (int)mnl_attr_get_u32(a);
        }
    }
    if (has && to.prefix && to.prefix <= 32)
        w->route(w->opaque, to, index);
    return MNL_CB_OK;
}

int net_link_routes(struct net_link *nl, void (*fn)(void *opaque, struct net_cidr to, int index),
                    void *opaque, struct mull_error *err)
{
    struct walk w = {.route = fn, .opaque = opaque};
    struct rtmsg *body;
    struct nlmsghdr *h = request(nl, RTM_GETROUTE, NLM_F_DUMP, sizeof(*body), (void **)&body);
    body->rtm_family = AF_INET;
    int ret = talk(nl, h, read_route, &w);
    return ret ? mull_fail(err, -ret, "netlink: routes: %s", strerror(-ret)) : 0;
}
