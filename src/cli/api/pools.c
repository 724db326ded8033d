/* `mullion pool`, and the options that say what machines and pools may take of the host. */
#include <string.h>

#include "cli/api/groups.h"
#include "cli/api/resources.h"
#include "cli/api/simple.h"

/* ---- Amounts ---- */

enum amount { SHARES, NUMBER, SIZE, SWITCH };

static const struct {
    const char *option, *resource, *member;
    enum amount amount;
} amounts[] = {
    {"cpu-shares", "cpu", "shares", SHARES},
    {"cpu-reservation", "cpu", "reservation", NUMBER},
    {"cpu-limit", "cpu", "limit", NUMBER},
    {"cpu-expandable", "cpu", "expandable", SWITCH},
    {"memory-shares", "memory", "shares", SHARES},
    {"memory-reservation", "memory", "reservation", SIZE},
    {"memory-limit", "memory", "limit", SIZE},
    {"memory-expandable", "memory", "expandable", SWITCH},
    {"disk-shares", "disk", "shares", SHARES},
    {"disk-reservation", "disk", "reservation", SIZE},
    {"disk-limit", "disk", "limit", SIZE},
    {"disk-read-limit", "disk", "read_limit", SIZE},
    {"disk-write-limit", "disk", "write_limit", SIZE},
    {"iops-limit", "disk", "iops_limit", NUMBER},
    {"read-iops-limit", "disk", "read_iops_limit", NUMBER},
    {"write-iops-limit", "disk", "write_iops_limit", NUMBER},
    {"network-shares", "network", "shares", SHARES},
    {"network-reservation", "network", "reservation", SIZE},
    {"network-limit", "network", "limit", SIZE},
    {"network-in-limit", "network", "in_limit", SIZE},
    {"network-out-limit", "network", "out_limit", SIZE},
};

static json_t *value_of(const char *option, enum amount amount, const char *text)
{
    if (amount != SHARES && amount != SWITCH && !strcmp(text, "none"))
        return json_null();
    switch (amount) {
    case SHARES:
        if (!strcmp(text, "low") || !strcmp(text, "normal") || !strcmp(text, "high"))
            return json_string(text);
        return host_number(option, text, 1, 1 << 24);
    case NUMBER:
        return host_number(option, text, 0, 1l << 50);
    case SIZE:
        return host_size(option, text);
    case SWITCH:
        return json_boolean(!strcmp(text, "on"));
    }
    return NULL;
}

bool resources_put(struct host_call *call, json_t *into)
{
    for (unsigned i = 0; i < sizeof(amounts) / sizeof(amounts[0]); i++) {
        const char *text = host_option(call, amounts[i].option);
        json_t *value = text ? value_of(amounts[i].option, amounts[i].amount, text) : NULL;
        json_t *resource = json_object_get(into, amounts[i].resource);

        if (!text)
            continue;
        if (!value)
            return false;
        if (!resource)
            json_object_set_new(into, amounts[i].resource, resource = json_object());
        if (json_object_set_new(resource, amounts[i].member, value))
            return false;
    }
    return true;
}

/* ---- Pools ---- */

static bool put_pool(struct host_call *call, json_t *body)
{
    const char *parent = host_option(call, "parent"), *name = host_option(call, "name");

    if (parent && json_object_set_new(body, "parent",
                                      strcmp(parent, "none") ? json_string(parent) : json_null()))
        return false;
    if (name && json_object_set_new(body, "name", json_string(name)))
        return false;
    return resources_put(call, body);
}

static const struct column pool_columns[] = {
    {"NAME", "name", COLUMN_TEXT},
    {"CPU SHARES", "cpu.shares", COLUMN_TEXT},
    {"RESERVED", "cpu.reservation", COLUMN_TEXT},
    {"LIMIT", "cpu.limit", COLUMN_TEXT},
    {"MEMORY SHARES", "memory.shares", COLUMN_TEXT},
    {"RESERVED", "memory.reservation", COLUMN_SIZE},
    {"LIMIT", "memory.limit", COLUMN_SIZE},
    {"MACHINES", "machines", COLUMN_TEXT},
    {"POOLS", "pools", COLUMN_TEXT},
    {0},
};

static const struct column pool_details[] = {
    {"name", "name", COLUMN_TEXT},
    {"id", "id", COLUMN_TEXT},
    {"parent", "parent", COLUMN_TEXT},
    {"machines", "machines", COLUMN_TEXT},
    {"pools", "pools", COLUMN_TEXT},
    {"cpu shares", "cpu.shares", COLUMN_TEXT},
    {"cpu reservation, %", "cpu.reservation", COLUMN_TEXT},
    {"cpu limit, %", "cpu.limit", COLUMN_TEXT},
    {"cpu expandable", "cpu.expandable", COLUMN_YES},
    {"memory shares", "memory.shares", COLUMN_TEXT},
    {"memory reservation", "memory.reservation", COLUMN_SIZE},
    {"memory limit", "memory.limit", COLUMN_SIZE},
    {"memory expandable", "memory.expandable", COLUMN_YES},
    {"disk shares", "disk.shares", COLUMN_TEXT},
    {"disk limit, a second", "disk.limit", COLUMN_SIZE},
    {"read limit, a second", "disk.read_limit", COLUMN_SIZE},
    {"write limit, a second", "disk.write_limit", COLUMN_SIZE},
    {"requests a second", "disk.iops_limit", COLUMN_TEXT},
    {"reads a second", "disk.read_iops_limit", COLUMN_TEXT},
    {"writes a second", "disk.write_iops_limit", COLUMN_TEXT},
    {"network shares", "network.shares", COLUMN_TEXT},
    {"network limit, a second", "network.limit", COLUMN_SIZE},
    {"in limit, a second", "network.in_limit", COLUMN_SIZE},
    {"out limit, a second", "network.out_limit", COLUMN_SIZE},
    {0},
};

static const struct simple_kind pool = {.list = "/pools",
                                        .what = "pool",
                                        .columns = pool_columns,
                                        .details = pool_details,
                                        .put = put_pool};

static int pool_list(struct host_call *call)
{
    return simple_list(call, &pool);
}

static int pool_info(struct host_call *call)
{
    return simple_info(call, &pool);
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

#define POOL_OPTIONS                                                                               \
    {"parent", "POOL", "the pool that it is a part of; none: the host", HOST_POOL, false},         \
        RESOURCE_OPTIONS,                                                                          \
        {"cpu-expandable", "on|off", "more CPU may be reserved in it, of its parent's", HOST_TEXT, \
         false},                                                                                   \
    {                                                                                              \
        "memory-expandable", "on|off", "more memory may be reserved in it, of its parent's",       \
            HOST_TEXT, false                                                                       \
    }

static const struct host_option create_options[] = {POOL_OPTIONS, {0}};
static const struct host_option edit_options[] = {
    {"name", "NAME", "another name", HOST_TEXT, false}, POOL_OPTIONS, {0}};

#define AMOUNTS_TEXT                                                                               \
    "What machines and pools in it take is divided by their shares where it is scarce; what is\n"  \
    "reserved is promised only where the host has it; a limit holds at once."

const struct host_command host_pool_commands[] = {
    {"pool list", "", "list the resource pools", NULL, NULL, 0, 0, HOST_TEXT, HOST_LISTS,
     pool_list},
    {"pool info", "POOL", "show a resource pool", NULL, NULL, 1, 1, HOST_POOL, HOST_LISTS,
     pool_info},
    {"pool create", "NAME", "make a resource pool", AMOUNTS_TEXT, create_options, 1, 1, HOST_TEXT,
     0, pool_create},
    {"pool edit", "POOL", "change a resource pool", AMOUNTS_TEXT, edit_options, 1, 1, HOST_POOL, 0,
     pool_edit},
    {"pool delete", "POOL...", "delete resource pools", NULL, NULL, 1, HOST_ARGUMENTS_MAX,
     HOST_POOL, 0, pool_delete},
    {0},
};
