/* `mullion network`: what machines are connected to. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/api/groups.h"
#include "cli/api/simple.h"

/* ---- network ---- */

static bool put_number(struct host_call *call, json_t *body, const char *option, int64_t min,
                       int64_t max)
{
    const char *value = host_option(call, option);
    json_t *number = value ? host_number(option, value, min, max) : NULL;

    return !value || (number && !json_object_set_new(body, option, number));
}

/* "20,30,40", or "none" */
static bool put_vlans(struct host_call *call, json_t *body)
{
    const char *value = host_option(call, "vlans");
    char copy[512], *save = NULL, *part;
    json_t *list;

    if (!value)
        return true;
    list = json_array();
    snprintf(copy, sizeof(copy), "%s", strcmp(value, "none") ? value : "");
    for (part = strtok_r(copy, ",", &save); part; part = strtok_r(NULL, ",", &save)) {
        json_t *number = host_number("vlans", part, 1, 4094);

        if (!number) {
            json_decref(list);
            return false;
        }
        json_array_append_new(list, number);
    }
    return !json_object_set_new(body, "vlans", list);
}

/* "NAME=ADDRESS", or "NAME=none" */
static bool put_reservations(struct host_call *call, json_t *body)
{
    json_t *all = json_object();
    const char *value;
    unsigned at = 0;

    while ((value = host_option_next(call, "reserve", &at))) {
        char name[128];
        const char *equals = strchr(value, '=');

        if (!equals || (size_t)(equals - value) >= sizeof(name)) {
            json_decref(all);
            host_fail(API_USAGE, "--reserve %s: give MACHINE=ADDRESS, or MACHINE=none", value);
            return false;
        }
        snprintf(name, sizeof(name), "%.*s", (int)(equals - value), value);
        json_object_set_new(all, name,
                            strcmp(equals + 1, "none") ? json_string(equals + 1) : json_null());
    }
    if (json_object_size(all))
        return !json_object_set_new(body, "reservations", all);
    json_decref(all);
    return true;
}

static bool put_network(struct host_call *call, json_t *body)
{
    const char *subnet6 = host_option(call, "subnet6");

    if (subnet6 &&
        json_object_set_new(body, "subnet6",
                            strcmp(subnet6, "none") ? json_string(subnet6) : json_null()))
        return false;
    return put_number(call, body, "vlan", 1, 4094) && put_number(call, body, "mtu", 1280, 9216) &&
           put_vlans(call, body) && put_reservations(call, body) &&
           simple_put_text(call, body, "domain", "domain") &&
           simple_put_switch(call, body, "guard", "guard") &&
           simple_put_text(call, body, "type", "type") &&
           simple_put_text(call, body, "bridge", "bridge") &&
           simple_put_text(call, body, "subnet", "subnet") &&
           simple_put_switch(call, body, "dhcp", "dhcp") &&
           simple_put_switch(call, body, "dns", "dns");
}

static const struct column network_columns[] = {
    {"NAME", "name", COLUMN_TEXT},
    {"TYPE", "type", COLUMN_TEXT},
    {"STATE", "state", COLUMN_TEXT},
    {"BRIDGE", "bridge", COLUMN_TEXT},
    {"VLAN", "vlan", COLUMN_TEXT},
    {"SUBNET", "subnet", COLUMN_TEXT},
    {"DHCP", "dhcp", COLUMN_YES},
    {"DNS", "dns", COLUMN_YES},
    {"MACHINES", "machines", COLUMN_TEXT},
    {"REASON", "reason", COLUMN_TEXT},
    {0},
};

static const struct column network_details[] = {
    {"NAME", "name", COLUMN_TEXT},
    {"TYPE", "type", COLUMN_TEXT},
    {"STATE", "state", COLUMN_TEXT},
    {"REASON", "reason", COLUMN_TEXT},
    {"INTERFACE", "interface", COLUMN_TEXT},
    {"VLAN", "vlan", COLUMN_TEXT},
    {"VLANS", "vlans", COLUMN_LIST},
    {"SUBNET", "subnet", COLUMN_TEXT},
    {"SUBNET6", "subnet6", COLUMN_TEXT},
    {"GATEWAY", "gateway", COLUMN_TEXT},
    {"DHCP", "dhcp", COLUMN_YES},
    {"DNS", "dns", COLUMN_YES},
    {"DOMAIN", "domain", COLUMN_TEXT},
    {"MTU", "mtu", COLUMN_TEXT},
    {"GUARD", "guard", COLUMN_YES},
    {"MACHINES", "machines", COLUMN_TEXT},
    {0},
};

static const struct column port_columns[] = {
    {"MACHINE", "name", COLUMN_TEXT},
    {"CARD", "card", COLUMN_TEXT},
    {"MAC", "mac", COLUMN_TEXT},
    {"ADDRESSES", "addresses", COLUMN_LIST},
    {"VLAN", "vlan", COLUMN_TEXT},
    {"INTERFACE", "interface", COLUMN_TEXT},
    {0},
};

static const struct column lease_columns[] = {
    {"ADDRESS", "address", COLUMN_TEXT},
    {"MAC", "mac", COLUMN_TEXT},
    {"NAME", "name", COLUMN_TEXT},
    {"MACHINE", "machine_name", COLUMN_TEXT},
    {"RESERVED", "reserved", COLUMN_YES},
    {"EXPIRES", "expires", COLUMN_TEXT},
    {0},
};

static const struct simple_kind network = {.list = "/networks",
                                           .what = "network",
                                           .columns = network_columns,
                                           .details = network_details,
                                           .put = put_network};

static int network_table(struct host_call *call, const char *what, const struct column *columns)
{
    int status;
    char *path = simple_path(call, &network, call->argument[0], &status), *whole = NULL;
    struct mull_error err = {0};

    if (!path)
        return status;
    json_t *items =
        asprintf(&whole, "%s/%s", path, what) < 0 ? NULL : api_list(call->api, whole, &err);
    status = items ? output_list(call, items, columns) : host_failed(call, &err);
    json_decref(items);
    free(whole);
    free(path);
    return status;
}

static int network_ports(struct host_call *call)
{
    return network_table(call, "ports", port_columns);
}

static int network_leases(struct host_call *call)
{
    return network_table(call, "leases", lease_columns);
}

static int network_list(struct host_call *call)
{
    return simple_list(call, &network);
}

static int network_info(struct host_call *call)
{
    return simple_info(call, &network);
}

static int network_create(struct host_call *call)
{
    return simple_create(call, &network);
}

static int network_edit(struct host_call *call)
{
    return simple_edit(call, &network);
}

static int network_delete(struct host_call *call)
{
    return simple_delete(call, &network);
}

/* ---- The table ---- */

#define CHANGED_OPTIONS                                                                            \
    {"vlan", "N", "bridge: the VLAN of what guests send untagged", HOST_TEXT, false},              \
        {"vlans", "N,N...", "bridge: VLANs that cards may be given, or tag themselves", HOST_TEXT, \
         false},                                                                                   \
        {"dhcp", "on|off", "whether guests are given addresses", HOST_TEXT, false},                \
        {"dns", "on|off", "whether guests are found by their names", HOST_TEXT, false},            \
        {"domain", "NAME", "the domain of those names (NETWORK.internal)", HOST_TEXT, false},      \
        {"mtu", "BYTES", "the largest packet (1500)", HOST_TEXT, false},                           \
        {"guard", "on|off", "whether guests may send from their own addresses only (on)",          \
         HOST_TEXT, false},                                                                        \
        {"reserve", "MACHINE=ADDRESS", "an address for a machine; none takes it back", HOST_TEXT,  \
         true},                                                                                    \
    {                                                                                              \
        0                                                                                          \
    }

static const struct host_option network_options[] = {
    {"type", "user|nat|bridge|isolated", "how it reaches the world", HOST_TEXT, false},
    {"bridge", "INTERFACE", "bridge: the host's bridge", HOST_TEXT, false},
    {"subnet", "CIDR", "nat, isolated: its addresses, like 10.20.0.0/24", HOST_TEXT, false},
    {"subnet6", "PREFIX|none", "nat, isolated: of its IPv6 addresses, like fd12:3456::/64",
     HOST_TEXT, false},
    CHANGED_OPTIONS,
};

static const struct host_option change_options[] = {CHANGED_OPTIONS};

const struct host_command host_network_commands[] = {
    {"network list", "", "list the networks", NULL, NULL, 0, 0, HOST_TEXT, HOST_LISTS,
     network_list},
    {"network info", "NETWORK", "show a network", NULL, NULL, 1, 1, HOST_NETWORK, HOST_LISTS,
     network_info},
    {"network create", "NAME", "make a network", NULL, network_options, 1, 1, HOST_TEXT, 0,
     network_create},
    {"network edit", "NETWORK", "change a network", NULL, change_options, 1, 1, HOST_NETWORK, 0,
     network_edit},
    {"network ports", "NETWORK", "list the cards of running machines on a network", NULL, NULL, 1,
     1, HOST_NETWORK, HOST_LISTS, network_ports},
    {"network leases", "NETWORK", "list the addresses that guests were given", NULL, NULL, 1, 1,
     HOST_NETWORK, HOST_LISTS, network_leases},
    {"network delete", "NETWORK...", "delete networks", NULL, NULL, 1, HOST_ARGUMENTS_MAX,
     HOST_NETWORK, 0, network_delete},
    {0},
};
