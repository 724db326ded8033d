/* `mullion network` and `mullion pool`: what machines are connected to, and what they share. */
#include <string.h>

#include "cli/api/groups.h"
#include "cli/api/simple.h"

/* ---- network ---- */

static bool put_network(struct host_call *call, json_t *body)
{
    const char *vlan = host_option(call, "vlan");
    json_t *number = vlan ? host_number("vlan", vlan, 1, 4094) : NULL;

    if (vlan && (!number || json_object_set_new(body, "vlan", number)))
        return false;
    return simple_put_text(call, body, "type", "type") &&
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

static const struct simple_kind network = {
    .list = "/networks", .what = "network", .columns = network_columns, .put = put_network};

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

/* ---- pool ---- */

/* "shares=2000,reservation=1,limit=2": of one resource. */
static bool put_resource(struct host_call *call, json_t *body, const char *option)
{
    const char *value = host_option(call, option);
    char copy[256], *save = NULL, *part;
    json_t *resource = json_object();
    bool good = true;

    if (!value) {
        json_decref(resource);
        return true;
    }
    snprintf(copy, sizeof(copy), "%s", value);
    for (part = strtok_r(copy, ",", &save); good && part; part = strtok_r(NULL, ",", &save)) {
        char *equals = strchr(part, '=');
        json_t *number = NULL;

        if (equals)
            *equals++ = '\0';
        good = equals &&
               (!strcmp(part, "shares") || !strcmp(part, "reservation") || !strcmp(part, "limit"));
        if (good && !strcmp(equals, "none"))
            number = json_null();
        else if (good)
            number = host_size(option, equals);
        else
            host_fail(API_USAGE, "--%s %s: give shares=N, reservation=N and limit=N, with commas",
                      option, value);
        good = number && !json_object_set_new(resource, part, number);
    }
    if (good)
        return !json_object_set_new(body, option, resource);
    json_decref(resource);
    return false;
}

static bool put_pool(struct host_call *call, json_t *body)
{
    return simple_put_text(call, body, "parent", "parent") && put_resource(call, body, "cpu") &&
           put_resource(call, body, "memory") && put_resource(call, body, "disk") &&
           put_resource(call, body, "network");
}

static const struct column pool_columns[] = {
    {"NAME", "name", COLUMN_TEXT},
    {"PARENT", "parent", COLUMN_TEXT},
    {"CPU SHARES", "cpu.shares", COLUMN_TEXT},
    {"RESERVED", "cpu.reservation", COLUMN_TEXT},
    {"LIMIT", "cpu.limit", COLUMN_TEXT},
    {"MEMORY SHARES", "memory.shares", COLUMN_TEXT},
    {"RESERVED", "memory.reservation", COLUMN_SIZE},
    {"LIMIT", "memory.limit", COLUMN_SIZE},
    {"MACHINES", "machines", COLUMN_TEXT},
    {0},
};

static const struct simple_kind pool = {
    .list = "/pools", .what = "pool", .columns = pool_columns, .put = put_pool};

static int pool_list(struct host_call *call)
{
    return simple_list(call, &pool);
}

static int pool_create(struct host_call *call)
{
    return simple_create(call, &pool);
}

static int pool_edit(struct host_call *call)
{
    return simple_edit(call, &pool);
}

static int pool_delete(struct host_call *call)
{
    return simple_delete(call, &pool);
}

/* ---- The table ---- */

static const struct host_option network_options[] = {
    {"type", "user|nat|bridge|isolated", "how it reaches the world", HOST_TEXT, false},
    {"bridge", "INTERFACE", "the host's bridge", HOST_TEXT, false},
    {"vlan", "N", "the VLAN on that bridge", HOST_TEXT, false},
    {"subnet", "CIDR", "its addresses, like 10.20.0.0/24", HOST_TEXT, false},
    {"dhcp", "on|off", "whether guests are given addresses", HOST_TEXT, false},
    {"dns", "on|off", "whether guests are found by their names", HOST_TEXT, false},
    {0},
};

static const struct host_option pool_options[] = {
    {"parent", "POOL", "the pool that it is a part of", HOST_POOL, false},
    {"cpu", "shares=N,reservation=N,limit=N", "in percent of one CPU", HOST_TEXT, false},
    {"memory", "shares=N,reservation=SIZE,limit=SIZE", "of the host's memory", HOST_TEXT, false},
    {"disk", "shares=N,limit=N", "bytes a second", HOST_TEXT, false},
    {"network", "shares=N,limit=N", "bytes a second", HOST_TEXT, false},
    {0},
};

const struct host_command host_network_commands[] = {
    {"network list", "", "list the networks", NULL, NULL, 0, 0, HOST_TEXT, HOST_LISTS,
     network_list},
    {"network info", "NETWORK", "show a network", NULL, NULL, 1, 1, HOST_NETWORK, HOST_LISTS,
     network_info},
    {"network create", "NAME", "make a network", NULL, network_options, 1, 1, HOST_TEXT, 0,
     network_create},
    {"network edit", "NETWORK", "change a network", NULL, network_options, 1, 1, HOST_NETWORK, 0,
     network_edit},
    {"network delete", "NETWORK...", "delete networks", NULL, NULL, 1, HOST_ARGUMENTS_MAX,
     HOST_NETWORK, 0, network_delete},
    {"pool list", "", "list the resource pools", NULL, NULL, 0, 0, HOST_TEXT, HOST_LISTS,
     pool_list},
    {"pool create", "NAME", "make a resource pool", NULL, pool_options, 1, 1, HOST_TEXT, 0,
     pool_create},
    {"pool edit", "POOL", "change a resource pool", NULL, pool_options, 1, 1, HOST_POOL, 0,
     pool_edit},
    {"pool delete", "POOL...", "delete resource pools", NULL, NULL, 1, HOST_ARGUMENTS_MAX,
     HOST_POOL, 0, pool_delete},
    {0},
};
