/*
 * See rules.h. The text is what nft(8) reads; names in it are ours or checked interface names, so
 * that nothing in it can be anything else than a name.
 */
#include "net/rules.h"

#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net/process.h"

/* ---- What guests may ask of the host, and where they may go ---- */

static void from_guests(FILE *f, const struct net_rules_network *n)
{
    char gateway[NET_IP4_TEXT], broadcast[NET_IP4_TEXT];
    fprintf(f, "  chain in_%s {\n    ct state established,related accept\n", n->bridge);
    if (n->subnet.prefix) {
        net_ip4_text(n->gateway, gateway);
        net_ip4_text(n->subnet.base + (uint32_t)net_cidr_size(n->subnet) - 1, broadcast);
        fprintf(f, "    ip daddr != { %s, %s, 255.255.255.255 } drop\n", gateway, broadcast);
    }
    if (n->dhcp)
        fputs("    udp dport { 67, 547 } accept\n", f);
    if (n->dns)
        fputs("    meta l4proto { tcp, udp } th dport 53 accept\n", f);
    fputs("    icmp type echo-request accept\n"
          "    icmpv6 type { echo-request, nd-router-solicit, nd-neighbor-solicit,"
          " nd-neighbor-advert } accept\n"
          "    drop\n  }\n",
          f);
}

static void through_host(FILE *f, const struct net_rules_network *all, unsigned count, unsigned own)
{
    const struct net_rules_network *n = &all[own];
    char subnet[NET_CIDR_TEXT], prefix[NET_IP6_TEXT];
    /* Frames from guest to guest come here where br_netfilter is loaded. */
    fprintf(f, "  chain from_%s {\n    oifname \"%s\" accept\n", n->bridge, n->bridge);
    if (n->nat) {
        for (unsigned i = 0; i < count; i++)
            if (i != own)
                fprintf(f, "    oifname \"%s\" drop\n", all[i].bridge);
        net_cidr_text(n->subnet, subnet);
        fprintf(f, "    ip saddr != %s drop\n", subnet);
        net_ip6_text(&n->prefix6, prefix);
        if (n->has6)
            fprintf(f, "    ip6 saddr != %s/64 drop\n", prefix);
        else
            fputs("    meta nfproto ipv6 drop\n", f);
    } else {
        fputs("    drop\n", f);
    }
    fprintf(f, "  }\n  chain to_%s {\n    iifname \"%s\" accept\n", n->bridge, n->bridge);
    if (n->nat)
        fputs("    ct state established,related accept\n", f);
    fputs("    drop\n  }\n", f);
}

static void jumps(FILE *f, const char *of, const char *chain,
                  const struct net_rules_network *networks, unsigned count)
{
    fprintf(f, "    %s vmap { ", of);
    for (unsigned i = 0; i < count; i++)
        fprintf(f, "%s\"%s\" : jump %s_%s", i ? ", " : "", networks[i].bridge, chain,
                networks[i].bridge);
    fputs(" }\n", f);
}

static void hooks(FILE *f, const struct net_rules_network *networks, unsigned count)
{
    fputs("  chain input {\n    type filter hook input priority 0; policy accept;\n", f);
    jumps(f, "iifname", "in", networks, count);
    fputs("  }\n  chain forward {\n    type filter hook forward priority 0; policy accept;\n", f);
    jumps(f, "iifname", "from", networks, count);
    jumps(f, "oifname", "to", networks, count);
    fputs("  }\n", f);
}

static void addresses(FILE *f, const struct net_rules_network *networks, unsigned count)
{
    char subnet[NET_CIDR_TEXT], prefix[NET_IP6_TEXT];
    fputs("  chain postrouting {\n    type nat hook postrouting priority 100; policy accept;\n", f);
    for (unsigned i = 0; i < count; i++) {
        const struct net_rules_network *n = &networks[i];
        if (!n->nat)
            continue;
        net_cidr_text(n->subnet, subnet);
        fprintf(f, "    ip saddr %s oifname != \"%s\" masquerade\n", subnet, n->bridge);
        net_ip6_text(&n->prefix6, prefix);
        if (n->has6)
            fprintf(f, "    ip6 saddr %s/64 oifname != \"%s\" masquerade\n", prefix, n->bridge);
    }
    fputs("  }\n", f);
}

/* ---- What a port may send ---- */

static bool is_zero(const struct in6_addr *a)
{
    static const struct in6_addr zero;
    return !memcmp(a, &zero, sizeof(zero));
}

static void guard4(FILE *f, const struct net_rules_port *p)
{
    char address[NET_IP4_TEXT];
    if (p->address) {
        net_ip4_text(p->address, address);
        /* 0.0.0.0: whoever asks for an address, or whether one is free (RFC 5227) */
        fprintf(f,
                "    arp saddr ip != { 0.0.0.0, %s } drop\n"
                "    ip saddr 0.0.0.0 udp dport 67 accept\n"
                "    ip saddr != %s drop\n",
                address, address);
    } else if (p->gateway) {
        net_ip4_text(p->gateway, address);
        fprintf(f, "    arp saddr ip %s drop\n    ip saddr %s drop\n", address, address);
    }
    /* Answers of DHCP servers (RFC 2131, RFC 8415). */
    fputs("    udp sport { 67, 547 } drop\n", f);
}

/* RFC 6105: router advertisements come from no guest; RFC 4861, section 4.4: the target of a
 * neighbor advertisement is behind the ICMPv6 header's 8 bytes. */
static void guard6(FILE *f, const struct net_rules_port *p)
{
    char address[NET_IP6_TEXT];
    fputs("    icmpv6 type { nd-router-advert, nd-redirect } drop\n", f);
    for (unsigned i = 0; i < 2; i++) {
        if (is_zero(&p->gateway6[i]))
            continue;
        net_ip6_text(&p->gateway6[i], address);
        fprintf(f, "    ip6 saddr %s drop\n", address);
        fputs("    icmpv6 type nd-neighbor-advert @th,64,128 0x", f);
        for (unsigned b = 0; b < 16; b++)
            fprintf(f, "%02x", p->gateway6[i].s6_addr[b]);
        fputs(" drop\n", f);
    }
    if (is_zero(&p->address6)) {
        if (p->managed) /* no IPv6 here but among neighbors */
            fputs("    ip6 saddr != { ::, fe80::/10 } drop\n", f);
        return;
    }
    net_ip6_text(&p->address6, address);
    fprintf(f, "    ip6 saddr != { ::, fe80::/10, %s } drop\n", address);
    fputs("    icmpv6 type nd-neighbor-advert @th,64,64 != 0xfe80000000000000 @th,64,128 != 0x", f);
    for (unsigned b = 0; b < 16; b++)
        fprintf(f, "%02x", p->address6.s6_addr[b]);
    fputs(" drop\n", f);
}

static void port_chain(FILE *f, const struct net_rules_port *p)
{
    char mac[NET_MAC_TEXT];
    net_mac_text(p->mac, mac);
    fprintf(f,
            "  chain port_%s {\n"
            "    ether saddr != %s drop\n"
            "    arp saddr ether != %s drop\n"
            /* Bridges talk to each other there (IEEE 802.1D, table 7-10). */
            "    ether daddr & ff:ff:ff:ff:ff:f0 == 01:80:c2:00:00:00 drop\n",
            p->tap, mac, mac);
    if (p->managed)
        fputs("    ether type != { ip, ip6, arp } drop\n", f);
    else if (!p->trunk)
        fputs("    ether type { 0x8100, 0x88a8 } drop\n", f);
    guard4(f, p);
    guard6(f, p);
    fputs("  }\n", f);
}

/* ---- All of it ---- */

static void fresh(FILE *f, const char *table)
{
    static const char *const families[] = {"inet", "bridge"};
    for (unsigned i = 0; i < 2; i++) /* "add" first: a table that is not there cannot be deleted */
        fprintf(f, "add table %s %s\ndelete table %s %s\n", families[i], table, families[i], table);
}

char *net_rules_text(const char *table, const struct net_rules_network *networks, unsigned count,
                     const struct net_rules_port *ports, unsigned port_count)
{
    char *text = NULL;
    size_t size;
    FILE *f = open_memstream(&text, &size);
    if (!f)
        return NULL;
    fresh(f, table);
    if (count) {
        fprintf(f, "table inet %s {\n", table);
        for (unsigned i = 0; i < count; i++) {
            from_guests(f, &networks[i]);
            through_host(f, networks, count, i);
        }
        hooks(f, networks, count);
        addresses(f, networks, count);
        fputs("}\n", f);
    }
    if (port_count) {
        fprintf(f, "table bridge %s {\n", table);
        for (unsigned i = 0; i < port_count; i++)
            port_chain(f, &ports[i]);
        fputs("  chain prerouting {\n"
              "    type filter hook prerouting priority -300; policy accept;\n"
              "    iifname vmap { ",
              f);
        for (unsigned i = 0; i < port_count; i++)
            fprintf(f, "%s\"%s\" : jump port_%s", i ? ", " : "", ports[i].tap, ports[i].tap);
        fputs(" }\n  }\n}\n", f);
    }
    if (fclose(f)) {
        free(text);
        return NULL;
    }
    return text;
}

char *net_rules_removal(const char *table)
{
    return net_rules_text(table, NULL, 0, NULL, 0);
}

int net_rules_apply(const char *text, struct mull_error *err)
{
    static const char *const argv[] = {"nft", "-f", "-", NULL};
    return net_process_run(argv, text, 1ull << CAP_NET_ADMIN, err);
}
