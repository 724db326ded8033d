/*
 * See resources.h.
 */
#include "host/resources.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "host/stats.h"
#include "host/store/store.h"
#include "host/supervisor.h"
#include "machine/config.h"

enum resource { CPU, MEMORY, DISK, NETWORK, RESOURCES };
static const char *const resource_names[RESOURCES] = {"cpu", "memory", "disk", "network"};

/* The limit of each dimension, and the least that makes sense of it. A reservation is of the first.
 */
static const struct {
    enum resource resource;
    const char *limit;
    json_int_t least;
    bool first;
} dims[DIMENSIONS] = {
    [DIM_CPU] = {CPU, "limit", 5, true},
    [DIM_MEMORY] = {MEMORY, "limit", (json_int_t)MULL_MEMORY_MIN, true},
    [DIM_DISK] = {DISK, "limit", 4096, true},
    [DIM_DISK_READ] = {DISK, "read_limit", 4096, false},
    [DIM_DISK_WRITE] = {DISK, "write_limit", 4096, false},
    [DIM_IOPS] = {DISK, "iops_limit", 1, false},
    [DIM_IOPS_READ] = {DISK, "read_iops_limit", 1, false},
    [DIM_IOPS_WRITE] = {DISK, "write_iops_limit", 1, false},
    [DIM_NETWORK] = {NETWORK, "limit", 1024, true},
    [DIM_NETWORK_IN] = {NETWORK, "in_limit", 1024, false},
    [DIM_NETWORK_OUT] = {NETWORK, "out_limit", 1024, false},
};

/* Levels of shares. A machine's grow with its size: those of processors and memory are for each
 * vCPU and MiB. */
static const char *const levels[] = {"low", "normal", "high"};
static const struct {
    uint32_t machine[3], pool[3];
} level_shares[RESOURCES] = {
    [CPU] = {{500, 1000, 2000}, {2000, 4000, 8000}},
    [MEMORY] = {{5, 10, 20}, {81920, 163840, 327680}},
    [DISK] = {{500, 1000, 2000}, {500, 1000, 2000}},
    [NETWORK] = {{500, 1000, 2000}, {500, 1000, 2000}},
};

static bool has_expandable(enum resource r)
{
    return r == CPU || r == MEMORY;
}

/* ---- What callers say ---- */

static int level_of(const json_t *shares)
{
    for (int i = 0; i < 3; i++)
        if (json_is_string(shares) && !strcmp(json_string_value(shares), levels[i]))
            return i;
    return -1;
}

static json_t *defaults(enum resource r, bool pool)
{
    json_t *o = json_pack("{s:s, s:i}", "shares", "normal", "reservation", 0);
    for (unsigned d = 0; d < DIMENSIONS; d++)
        if (dims[d].resource == r)
            json_object_set_new(o, dims[d].limit, json_null());
    if (pool && has_expandable(r))
        json_object_set_new(o, "expandable", json_true());
    return o;
}

static int wrong(struct host_problem *p, enum resource r, const char *member, const char *what)
{
    char field[64];
    snprintf(field, sizeof(field), "/%s/%s", resource_names[r], member);
    return host_problem(p, HOST_INVALID, field, "%s: %s", field, what);
}

static int check_member(enum resource r, const char *name, const json_t *value,
                        struct host_problem *p)
{
    char text[128];
    json_int_t n = json_integer_value(value);
    if (!strcmp(name, "expandable"))
        return json_is_boolean(value) ? 0 : wrong(p, r, name, "must be true or false");
    if (!strcmp(name, "shares"))
        return level_of(value) >= 0 ||
                       (json_is_integer(value) && n >= 1 && n <= (json_int_t)SHARES_WEIGHT_MOST)
                   ? 0
                   : wrong(p, r, name, "must be low, normal, high or a number from 1 to 16777216");
    if (!json_is_integer(value) || n < 0 || n > (json_int_t)SHARES_MOST)
        return wrong(p, r, name, "must be a number, not below 0");
    for (unsigned d = 0; d < DIMENSIONS; d++) {
        if (dims[d].resource != r || strcmp(dims[d].limit, name) || n >= dims[d].least)
            continue;
        snprintf(text, sizeof(text), "must be at least %lld, or null for no limit",
                 (long long)dims[d].least);
        return wrong(p, r, name, text);
    }
    return 0;
}

static int merge_one(enum resource r, json_t *into, const json_t *patch, bool pool,
                     struct host_problem *p)
{
    json_t *known = defaults(r, pool), *value;
    const char *name;
    int ret = patch && !json_is_object(patch) ? wrong(p, r, "", "must be an object") : 0;
    json_object_foreach((json_t *)patch, name, value)
    {
        json_t *otherwise = json_object_get(known, name);
        if (!ret && !otherwise)
            ret = wrong(p, r, name, "is not known");
        else if (!ret && json_is_null(value))
            json_object_set(into, name, otherwise);
        else if (!ret && !(ret = check_member(r, name, value, p)))
            json_object_set(into, name, value);
    }
    json_decref(known);
    json_t *limit = json_object_get(into, "limit");
    if (!ret && json_is_integer(limit) &&
        json_integer_value(json_object_get(into, "reservation")) > json_integer_value(limit))
        ret = wrong(p, r, "reservation", "cannot be more than the limit");
    return ret;
}

json_t *resources_merge(const json_t *old, json_t *patch, bool pool, struct host_problem *p)
{
    json_t *out = json_object();
    int ret = 0;
    for (unsigned r = 0; r < RESOURCES && !ret; r++) {
        json_t *one = defaults(r, pool), *said = json_object_get(patch, resource_names[r]);
        json_t *before = json_object_get(old, resource_names[r]);
        if (before)
            json_object_update_existing(one, before);
        if (json_is_null(said)) { /* all of it as at first */
            json_decref(one);
            one = defaults(r, pool);
            said = NULL;
        }
        ret = merge_one(r, one, said, pool, p);
        json_object_set_new(out, resource_names[r], one);
    }
    if (!ret)
        return out;
    json_decref(out);
    return NULL;
}

static json_int_t number_of(const json_t *config, const char *member, json_int_t otherwise)
{
    json_t *value = json_object_get(config, member);
    return json_is_integer(value) ? json_integer_value(value) : otherwise;
}

static json_int_t memory_of(const json_t *config)
{
    return number_of(config, "memory", (json_int_t)MULL_MEMORY_DEFAULT);
}

int resources_check(const json_t *resources, json_t *config, struct host_problem *p)
{
    json_int_t cpus = number_of(config, "cpus", 1), memory = memory_of(config);
    if (number_of(json_object_get(resources, "cpu"), "reservation", 0) > 100 * cpus)
        return host_problem(p, HOST_INVALID, "/resources/cpu/reservation",
                            "the machine has %lld vCPUs: it can use %lld %% at most",
                            (long long)cpus, (long long)(100 * cpus));
    if (number_of(json_object_get(resources, "memory"), "reservation", 0) > memory)
        return host_problem(p, HOST_INVALID, "/resources/memory/reservation",
                            "the machine has %lld bytes of memory: it cannot keep more",
                            (long long)memory);
    return 0;
}

/* ---- The tree ---- */

uint64_t resources_limit(const json_t *doc, enum dimension dim)
{
    json_t *limit =
        json_object_get(json_object_get(doc, resource_names[dims[dim].resource]), dims[dim].limit);
    return json_is_integer(limit) ? (uint64_t)json_integer_value(limit) : SHARES_NONE;
}

static uint32_t weight_of(enum resource r, const json_t *amounts, const json_t *config)
{
    json_t *shares = json_object_get(amounts, "shares");
    int level = level_of(shares);
    uint64_t weight;
    if (json_is_integer(shares))
        weight = (uint64_t)json_integer_value(shares);
    else if (!config)
        weight = level_shares[r].pool[level < 0 ? 1 : level];
    else {
        weight = level_shares[r].machine[level < 0 ? 1 : level];
        if (r == CPU)
            weight *= (uint64_t)number_of(config, "cpus", 1);
        else if (r == MEMORY)
            weight *= (uint64_t)memory_of(config) >> 20;
    }
    if (weight > SHARES_WEIGHT_MOST)
        weight = SHARES_WEIGHT_MOST;
    return weight ? (uint32_t)weight : 1;
}

static int index_of(const struct resources_tree *t, const char *id)
{
    for (unsigned i = 0; i < t->count && t->share[i].pool; i++)
        if (!strcmp(host_text(t->doc[i], "id"), id))
            return (int)i;
    return -1;
}

static void add_node(struct resources_tree *t, enum dimension dim, json_t *doc, int parent,
                     const json_t *config, bool claims)
{
    const json_t *resources = config ? json_object_get(doc, "resources") : doc;
    const char *name = resource_names[dims[dim].resource];
    const json_t *amounts = json_object_get(resources, name);
    json_t *expandable = json_object_get(amounts, "expandable");
    t->doc[t->count] = doc;
    t->share[t->count++] = (struct share){
        .parent = parent,
        .pool = !config,
        .weight = weight_of(dims[dim].resource, amounts, config),
        .reservation = dims[dim].first ? (uint64_t)number_of(amounts, "reservation", 0) : 0,
        .limit = resources_limit(resources, dim),
        .expandable = !expandable || json_is_true(expandable),
        .claims = claims,
    };
}

static json_t *changed_or(const struct resources_change *change, enum host_kind kind, json_t *doc)
{
    bool same = change && change->kind == kind &&
                !strcmp(host_text(change->doc, "id"), host_text(doc, "id"));
    return same ? change->doc : doc;
}

/* Those whose parent is there already, until no more are found: a pool cannot be within itself. */
static void add_pools(struct host *host, struct resources_tree *t, enum dimension dim,
                      const struct resources_change *change)
{
    json_t *all = store_all(host->store, KIND_POOL), *doc;
    const char *id;
    for (bool more = true; more;) {
        more = false;
        json_object_foreach(all, id, doc)
        {
            json_t *now = changed_or(change, KIND_POOL, doc);
            const char *parent = host_text(now, "parent");
            int at = *parent ? index_of(t, parent) : -1;
            if (index_of(t, id) >= 0 || (*parent && at < 0))
                continue;
            add_node(t, dim, now, at, NULL, false);
            more = true;
        }
    }
    bool is_new = change && change->kind == KIND_POOL &&
                  !store_get(host->store, KIND_POOL, host_text(change->doc, "id"));
    if (is_new)
        add_node(t, dim, change->doc, index_of(t, host_text(change->doc, "parent")), NULL, false);
}

int resources_tree(struct host *host, enum dimension dim, bool everyone,
                   const struct resources_change *change, struct resources_tree *out)
{
    json_t *all = store_all(host->store, KIND_MACHINE), *doc;
    size_t room = json_object_size(all) + json_object_size(store_all(host->store, KIND_POOL)) + 1;
    const char *id;
    *out = (struct resources_tree){.share = calloc(room, sizeof(*out->share)),
                                   .doc = calloc(room, sizeof(*out->doc))};
    if (!out->share || !out->doc) {
        resources_tree_free(out);
        return -1;
    }
    add_pools(host, out, dim, change);
    json_object_foreach(all, id, doc)
    {
        json_t *now = changed_or(change, KIND_MACHINE, doc);
        struct vm *vm = vm_of(host, id);
        bool starts = change && change->starts && change->doc == now;
        bool runs = (vm && vm_runs(vm)) || starts;
        if (everyone || runs)
            add_node(out, dim, now, index_of(out, host_text(now, "pool")),
                     json_object_get(now, "config"), runs);
    }
    return 0;
}

void resources_tree_free(struct resources_tree *tree)
{
    free(tree->share);
    free(tree->doc);
    *tree = (struct resources_tree){0};
}

/* ---- What there is ---- */

uint64_t resources_capacity(struct host *host, enum dimension dim)
{
    uint64_t total = 0, used;
    if (dim == DIM_CPU)
        return host->options.machines_cpu ? host->options.machines_cpu
                                          : 100 * (uint64_t)sysconf(_SC_NPROCESSORS_ONLN);
    if (dim != DIM_MEMORY)
        return SHARES_NONE;
    if (host->options.machines_memory)
        return (uint64_t)host->options.machines_memory << 20;
    stats_memory(&total, &used);
    return total - total / 16;
}

uint64_t resources_reserved(struct host *host, enum dimension dim)
{
    struct resources_tree t;
    if (resources_tree(host, dim, false, NULL, &t))
        return 0;
    uint64_t reserved = shares_claim(t.share, t.count);
    resources_tree_free(&t);
    return reserved;
}

/* ---- Admission ---- */

static const char *amount(enum dimension dim, uint64_t n, char out[32])
{
    if (dim == DIM_CPU)
        snprintf(out, 32, "%llu %%", (unsigned long long)n);
    else
        snprintf(out, 32, "%.1f MiB%s", (double)n / 1048576, dim == DIM_MEMORY ? "" : "/s");
    return out;
}

static int refuse(enum dimension dim, const struct resources_tree *t, unsigned node, int at,
                  uint64_t capacity, struct host_problem *p)
{
    const struct share *s = &t->share[node];
    const char *what = resource_names[dims[dim].resource];
    char who[128], mine[32], all[32], there[32];
    uint64_t used = 0;
    if (at >= 0)
        used = t->share[at].used;
    for (unsigned i = 0; at < 0 && i < t->count; i++)
        used += t->share[i].parent < 0 ? t->share[i].claimed : 0;
    snprintf(who, sizeof(who), "%s %s: %s: its reservation of %s cannot be kept",
             s->pool ? "pool" : "machine", host_text(t->doc[node], "name"), what,
             amount(dim, s->claimed, mine));
    amount(dim, used, all);
    if (at < 0)
        return host_problem(p, HOST_CONFLICT, NULL,
                            "%s: with it %s would be reserved, and the host has %s for machines; "
                            "lower a reservation, or stop a machine that has one",
                            who, all, amount(dim, capacity, there));
    const struct share *pool = &t->share[at];
    bool limit = used > pool->limit;
    return host_problem(p, HOST_CONFLICT, NULL,
                        limit ? "%s: with it %s would be reserved in the pool %s, whose limit is %s"
                              : "%s: with it %s would be reserved in the pool %s, which has "
                                "reserved %s and takes no more of its parent's (expandable: false)",
                        who, all, host_text(t->doc[at], "name"),
                        amount(dim, limit ? pool->limit : pool->reservation, there));
}

static unsigned node_of(const struct resources_tree *t, const json_t *doc)
{
    unsigned i = 0;
    while (i < t->count && t->doc[i] != doc)
        i++;
    return i;
}

/* What does not ask for more than before needs nobody's leave. */
static bool asks_for_more(struct host *host, enum dimension dim, const struct resources_tree *t,
                          unsigned node, const struct resources_change *change)
{
    const char *id = host_text(change->doc, "id"),
               *up = change->kind == KIND_POOL ? "parent" : "pool";
    json_t *old = store_get(host->store, change->kind, id);
    struct resources_tree before;
    bool more = true;
    if (!t->share[node].claimed)
        return false;
    if (!old || strcmp(host_text(old, up), host_text(change->doc, up)) ||
        resources_tree(host, dim, false, NULL, &before))
        return true;
    shares_claim(before.share, before.count);
    unsigned was = node_of(&before, old);
    if (was < before.count) {
        const struct share *a = &before.share[was], *b = &t->share[node];
        more = b->claimed > a->claimed || b->limit < a->limit || (a->expandable && !b->expandable);
    }
    resources_tree_free(&before);
    return more;
}

int resources_admit(struct host *host, const struct resources_change *change,
                    struct host_problem *p)
{
    int ret = 0;
    for (unsigned dim = 0; dim < DIMENSIONS && !ret; dim++) {
        struct resources_tree t;
        if (!dims[dim].first)
            continue;
        if (resources_tree(host, dim, false, change, &t))
            return host_problem(p, HOST_UNAVAILABLE, NULL, "no memory");
        unsigned node = node_of(&t, change->doc);
        uint64_t capacity = resources_capacity(host, dim);
        shares_claim(t.share, t.count);
        if (node < t.count && asks_for_more(host, dim, &t, node, change)) {
            int at = shares_admit(t.share, t.count, node, capacity);
            if (at != SHARES_FITS)
                ret = refuse(dim, &t, node, at, capacity, p);
        }
        resources_tree_free(&t);
    }
    return ret;
}
