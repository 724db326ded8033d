/* Addresses and names of networks, what dnsmasq and nft are told, what leases say: src/net. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "net/address.h"
#include "net/dnsmasq.h"
#include "net/rules.h"

static void test_subnets(void **state)
{
    static const char *const bad[] = {
        "",           "10.0.0.0", "10.0.0.1/24", "10.0.0.0/33",   "10.0.0.0/",    "10.0.0.0/024",
        "10.0.0/24",  "x/24",     "10.0.0.0/-1", "10.0.0.0/24\n", " 10.0.0.0/24", "/24",
        "10.0.0.0/2 "};
    static const char *const unusable[] = {"127.0.0.0/24",    "169.254.0.0/16", "224.0.0.0/24",
                                           "0.0.0.0/16",      "10.0.0.0/8",     "10.0.0.0/30",
                                           "255.255.255.0/24"};
    struct net_cidr a, b;
    char text[NET_CIDR_TEXT];
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_not_equal(net_cidr_parse(bad[i], &a), 0);
    for (unsigned i = 0; i < sizeof(unusable) / sizeof(unusable[0]); i++) {
        assert_int_equal(net_cidr_parse(unusable[i], &a), 0);
        assert_false(net_cidr_usable(a));
    }
    assert_int_equal(net_cidr_parse("10.20.0.0/16", &a), 0);
    assert_int_equal(net_cidr_parse("10.20.30.0/24", &b), 0);
    assert_true(net_cidr_usable(a) && net_cidr_overlap(a, b) && net_cidr_overlap(b, a));
    assert_true(net_cidr_has(a, b.base) && !net_cidr_has(b, a.base));
    net_cidr_text(b, text);
    assert_string_equal(text, "10.20.30.0/24");
    assert_int_equal(net_cidr_parse("10.20.31.0/24", &a), 0);
    assert_false(net_cidr_overlap(a, b));
    assert_int_equal(net_cidr_size(a), 256);
}

static void test_prefixes(void **state)
{
    struct in6_addr p, own;
    char text[NET_IP6_TEXT];
    const uint8_t mac[6] = {0x02, 0x11, 0x22, 0x33, 0x44, 0x55};
    assert_int_equal(net_prefix6_parse("fd12:3456:789a:1::/64", &p), 0);
    own = net_ip6_host(&p, 0x105);
    net_ip6_text(&own, text);
    assert_string_equal(text, "fd12:3456:789a:1::105");
    assert_int_not_equal(net_prefix6_parse("2001:db8::/64", &p), 0); /* not a unique local one */
    assert_int_not_equal(net_prefix6_parse("fd12::1/64", &p), 0);
    assert_int_not_equal(net_prefix6_parse("fd12::/48", &p), 0);
    own = net_ip6_link_local(mac);
    net_ip6_text(&own, text);
    assert_string_equal(text, "fe80::11:22ff:fe33:4455");
}

static void test_names(void **state)
{
    char label[NET_LABEL_MAX];
    uint8_t mac[6];
    static const char *const bad[] = {"",    ".",   "a..b", "a.", "-a",       "a-", "a b",  "a\n",
                                      "a/b", "a=b", "a,b",  "a#", "\xc3\xa4", ".a", "a.-b", "a-.b"};
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_false(net_domain_valid(bad[i]));
    assert_true(net_domain_valid("lan.internal") && net_domain_valid("a") &&
                net_domain_valid("x-1.y"));
    char longer[80];
    memset(longer, 'a', sizeof(longer) - 1);
    longer[79] = '\0';
    assert_false(net_domain_valid(longer));
    net_label("Web_1.prod", label);
    assert_string_equal(label, "web-1-prod");
    net_label("___", label);
    assert_string_equal(label, "machine");
    net_label("a\nb,c", label);
    assert_string_equal(label, "a-b-c");
    net_label(longer, label);
    assert_true(strlen(label) == 63 && net_domain_valid(label));
    assert_true(net_interface_valid("br0") && net_interface_valid("enp1s0.5"));
    assert_false(net_interface_valid("") || net_interface_valid("a b") ||
                 net_interface_valid("sixteen-letters-") || net_interface_valid("..") ||
                 net_interface_valid("a/b") || net_interface_valid("a\"b"));
    assert_int_equal(net_mac_parse("02:00:00:aA:0f:01", mac), 0);
    assert_true(mac[3] == 0xaa && mac[5] == 1);
    assert_int_not_equal(net_mac_parse("01:00:00:00:00:01", mac), 0); /* a group's */
    assert_int_not_equal(net_mac_parse("02:00:00:00:00", mac), 0);
    assert_int_not_equal(net_mac_parse("02:00:00:00:00:0g", mac), 0);
    assert_int_not_equal(net_mac_parse("2:0:00:000:00:001", mac), 0);
}

struct taken {
    struct net_lease lease[8];
    unsigned count;
};

static void take(void *opaque, const struct net_lease *lease)
{
    struct taken *t = opaque;
    assert_true(t->count < 8);
    t->lease[t->count++] = *lease;
}

static void test_leases(void **state)
{
    static const char text[] = "1700000000 02:00:00:00:00:01 10.20.0.5 web-1 01:02\n"
                               "duid 00:01:00:01\n"
                               "0 123456 fd12::5 * 00:01\n"
                               "nonsense\n\n"
                               "1700000000 02:00:00:00:00:01 10.20.0.999 x 01\n"
                               "1700000000 zz 10.20.0.5 x 01\n"
                               "99999999999999999999 02:00:00:00:00:01 10.20.0.5 x 01\n"
                               "1700000000 02:00:00:00:00:02 10.20.0.6 <script>.x 01\n"
                               "1700000000 02:00:00:00:00:03 10.20.0.7 last";
    struct taken t = {.count = 0};
    net_leases_parse(text, strlen(text), take, &t);
    assert_int_equal(t.count, 4);
    assert_string_equal(t.lease[0].address, "10.20.0.5");
    assert_string_equal(t.lease[0].name, "web-1");
    assert_true(t.lease[0].has_mac && t.lease[0].mac[5] == 1 && t.lease[0].expires == 1700000000);
    assert_true(t.lease[1].is6 && !t.lease[1].has_mac && !t.lease[1].expires);
    assert_string_equal(t.lease[1].name, "");
    assert_string_equal(t.lease[2].name, ""); /* a name that is none is not told */
    assert_string_equal(t.lease[3].name, "last");
    t.count = 0;
    net_leases_parse("1 02:00:00:00:00:01\0 10.0.0.1 a 1\n", 35, take, &t);
    assert_int_equal(t.count, 0);
}

static void test_dnsmasq(void **state)
{
    struct net_dnsmasq_host host = {.mac = {2, 0, 0, 0, 0, 1}, .label = "web-1"};
    struct net_dnsmasq d = {.bridge = "ml0",
                            .leases = "/l",
                            .log = "/g",
                            .domain = "lan.internal",
                            .dhcp = true,
                            .dns = true,
                            .nat = true,
                            .has6 = true,
                            .mtu = 1400,
                            .hosts = &host,
                            .count = 1};
    assert_int_equal(net_cidr_parse("10.20.0.0/24", &d.subnet), 0);
    assert_int_equal(net_prefix6_parse("fd12::/64", &d.prefix6), 0);
    d.gateway = d.subnet.base + 1;
    host.address = d.subnet.base + 5;
    char *text = net_dnsmasq_text(&d);
    assert_non_null(strstr(text, "\ndhcp-host=02:00:00:00:00:01,10.20.0.5,[fd12::5],web-1,12h\n"));
    assert_non_null(strstr(text, "\nhost-record=web-1.lan.internal,web-1,10.20.0.5,fd12::5\n"));
    assert_non_null(strstr(text, "\ndhcp-option=option:mtu,1400\n"));
    assert_null(strstr(text, "no-resolv"));
    assert_null(strstr(text, "option:router"));
    free(text);
    d.nat = d.dns = d.has6 = false;
    text = net_dnsmasq_text(&d);
    assert_non_null(strstr(text, "\nport=0\n"));
    assert_non_null(strstr(text, "\ndhcp-option=option:router\n"));
    assert_null(strstr(text, "host-record"));
    assert_null(strstr(text, "fd12"));
    free(text);
}

static void test_rules(void **state)
{
    struct net_rules_network n[2] = {{.bridge = "mlA", .nat = true, .dhcp = true},
                                     {.bridge = "mlB"}};
    struct net_rules_port p[2] = {{.tap = "t0", .mac = {2, 0, 0, 0, 0, 1}, .managed = true},
                                  {.tap = "t1", .mac = {2, 0, 0, 0, 0, 2}, .trunk = true}};
    assert_int_equal(net_cidr_parse("10.20.0.0/24", &n[0].subnet), 0);
    n[0].gateway = n[0].subnet.base + 1;
    p[0].address = n[0].subnet.base + 5;
    char *text = net_rules_text("t", n, 2, p, 2);
    assert_non_null(strstr(text, "ip saddr 10.20.0.0/24 oifname != \"mlA\" masquerade"));
    assert_non_null(strstr(text,
                           "chain from_mlA {\n    oifname \"mlA\" accept\n    oifname \"mlB\" "
                           "drop\n"));
    assert_non_null(strstr(text, "chain port_t0 {\n    ether saddr != 02:00:00:00:00:01 drop\n"));
    assert_non_null(strstr(text, "arp saddr ip != { 0.0.0.0, 10.20.0.5 } drop"));
    assert_null(strstr(text, "0x8100")); /* t0 has no use for VLANs at all, t1 may tag */
    assert_null(strstr(text, "udp dport 53"));
    free(text);
    text = net_rules_removal("t");
    assert_string_equal(text, "add table inet t\ndelete table inet t\n"
                              "add table bridge t\ndelete table bridge t\n");
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_subnets), cmocka_unit_test(test_prefixes),
        cmocka_unit_test(test_names),   cmocka_unit_test(test_leases),
        cmocka_unit_test(test_dnsmasq), cmocka_unit_test(test_rules),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
