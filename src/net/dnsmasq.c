/*
 * See dnsmasq.h.
 */
#include "net/dnsmasq.h"

#include <arpa/inet.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net/process.h"

#define LEASE_TIME "12h"
#define LINE_MAX_LEN 512

static void dhcp(FILE *f, const struct net_dnsmasq *d)
{
    char a[NET_IP4_TEXT], p6[NET_IP6_TEXT], mac[NET_MAC_TEXT];
    if (!d->dhcp)
        return;
    net_ip4_text(d->subnet.base, a);
    /* static: who is not known gets nothing; who is known gets what the port lets it send from. */
    fprintf(f, "dhcp-range=%s,static," LEASE_TIME "\ndhcp-leasefile=%s\ndhcp-authoritative\n", a,
            d->leases);
    fprintf(f, "dhcp-lease-max=65536\ndhcp-option=option:mtu,%u\n", d->mtu);
    if (!d->nat)
        fputs("dhcp-option=option:router\n", f); /* there is no way out to tell of */
    if (!d->dns)
        fputs("dhcp-option=option:dns-server\n", f);
    if (d->has6) {
        net_ip6_text(&d->prefix6, p6);
        fprintf(f, "dhcp-range=%s,static,64," LEASE_TIME "\nenable-ra\n", p6);
        /* RFC 4861, section 4.2: a router lifetime of 0 is no default router. */
        fprintf(f, "ra-param=%s,mtu:%u,60,%s\n", d->bridge, d->mtu, d->nat ? "1800" : "0");
        if (!d->dns)
            fputs("dhcp-option=option6:dns-server\n", f);
    }
    for (size_t i = 0; i < d->count; i++) {
        const struct net_dnsmasq_host *h = &d->hosts[i];
        net_mac_text(h->mac, mac);
        net_ip4_text(h->address, a);
        fprintf(f, "dhcp-host=%s,%s", mac, a);
        if (d->has6) {
            struct in6_addr own = net_ip6_host(&d->prefix6, h->address - d->subnet.base);
            net_ip6_text(&own, p6);
            fprintf(f, ",[%s]", p6);
        }
        fprintf(f, ",%s," LEASE_TIME "\n", h->label);
    }
}

static void dns(FILE *f, const struct net_dnsmasq *d)
{
    char a[NET_IP4_TEXT], p6[NET_IP6_TEXT];
    if (!d->dns) {
        fputs("port=0\n", f);
        return;
    }
    if (!d->nat)
        fputs("no-resolv\n", f); /* nothing of an isolated network leaves it, not as a question */
    fprintf(f, "local=/%s/\ndomain-needed\nbogus-priv\nstop-dns-rebind\n", d->domain);
    for (size_t i = 0; i < d->count; i++) {
        const struct net_dnsmasq_host *h = &d->hosts[i];
        net_ip4_text(h->address, a);
        fprintf(f, "host-record=%s.%s,%s,%s", h->label, d->domain, h->label, a);
        if (d->has6) {
            struct in6_addr own = net_ip6_host(&d->prefix6, h->address - d->subnet.base);
            net_ip6_text(&own, p6);
            fprintf(f, ",%s", p6);
        }
        fputc('\n', f);
    }
}

char *net_dnsmasq_text(const struct net_dnsmasq *d)
{
    char *text = NULL;
    size_t size;
    FILE *f = open_memstream(&text, &size);
    if (!f)
        return NULL;
    fprintf(f,
            "# Written by mulliond.\n"
            "interface=%s\nexcept-interface=lo\nbind-dynamic\nno-hosts\npid-file\n"
            "log-facility=%s\nquiet-dhcp\nquiet-dhcp6\nquiet-ra\n",
            d->bridge, d->log);
    if (*d->domain)
        fprintf(f, "domain=%s\n", d->domain);
    dhcp(f, d);
    dns(f, d);
    if (fclose(f)) {
        free(text);
        return NULL;
    }
    return text;
}

int net_dnsmasq_start(const char *argument, struct mull_error *err)
{
    const char *const argv[] = {"dnsmasq", argument, NULL};
    /* Ports below 1024; router advertisements; the neighbor tables of those who ask by DHCP. */
    return net_process_run(
        argv, "", 1ull << CAP_NET_ADMIN | 1ull << CAP_NET_BIND_SERVICE | 1ull << CAP_NET_RAW, err);
}

/* ---- Leases ---- */

/* "1700000000 02:00:00:00:00:01 10.20.0.5 web-1 01:02:..."; behind a line "duid ..." with IPv6: the
 * second field is the IAID. */
static bool parse_line(char *line, struct net_lease *lease)
{
    char *field[4], *save = NULL;
    struct in_addr a4;
    struct in6_addr a6;
    memset(lease, 0, sizeof(*lease));
    for (unsigned i = 0; i < 4; i++) {
        field[i] = strtok_r(i ? NULL : line, " ", &save);
        if (!field[i])
            return false;
    }
    size_t digits = strspn(field[0], "0123456789");
    if (!digits || digits > 12 || field[0][digits])
        return false;
    lease->expires = strtod(field[0], NULL);
    lease->is6 = inet_pton(AF_INET6, field[2], &a6) == 1;
    if (!lease->is6 && inet_pton(AF_INET, field[2], &a4) != 1)
        return false;
    snprintf(lease->address, sizeof(lease->address), "%s", field[2]);
    lease->has_mac = !lease->is6 && !net_mac_parse(field[1], lease->mac);
    if (!lease->is6 && !lease->has_mac)
        return false;
    if (strchr(field[3], '.') || !net_domain_valid(field[3])) /* "*": none */
        return true;
    snprintf(lease->name, sizeof(lease->name), "%.63s", field[3]);
    return true;
}

void net_leases_parse(const char *text, size_t len,
                      void (*fn)(void *opaque, const struct net_lease *lease), void *opaque)
{
    while (len) {
        const char *end = memchr(text, '\n', len);
        size_t n = end ? (size_t)(end - text) : len;
        char line[LINE_MAX_LEN];
        struct net_lease lease;
        if (n < sizeof(line) && !memchr(text, '\0', n)) {
            memcpy(line, text, n);
            line[n] = '\0';
            if (parse_line(line, &lease))
                fn(opaque, &lease);
        }
        text += n + (end != NULL);
        len -= n + (end != NULL);
    }
}
