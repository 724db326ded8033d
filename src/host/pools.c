/*
 * See pools.h.
 */
#include "host/pools.h"

#include <string.h>

#include "host/balance.h"
#include "host/events.h"
#include "host/resources.h"
#include "host/store/store.h"

#define DEPTH_MAX 16
#define POOLS_MAX 1000

static json_int_t count_in(struct host *host, enum host_kind kind, const char *member,
                           const char *id)
{
    json_t *doc;
    const char *key;
    json_int_t n = 0;
    json_object_foreach(store_all(host->store, kind), key, doc)
    {
        n += !strcmp(host_text(doc, member), id);
    }
    return n;
}

json_t *pool_render(struct host *host, json_t *doc)
{
    json_t *o = json_object(), *value;
    const char *key;
    json_object_foreach(doc, key, value)
    {
        if (*key != '_')
            json_object_set(o, key, value);
    }
    json_object_set_new(o, "machines",
                        json_integer(count_in(host, KIND_MACHINE, "pool", host_text(doc, "id"))));
    json_object_set_new(o, "pools",
                        json_integer(count_in(host, KIND_POOL, "parent", host_text(doc, "id"))));
    return o;
}

json_t *pool_find(struct host *host, const char *name)
{
    json_t *doc = store_get(host->store, KIND_POOL, name);
    return doc ? doc : store_find(host->store, KIND_POOL, "name", name);
}

bool pool_holds(struct host *host, const char *id, const char *inner)
{
    for (unsigned depth = 0; *inner && depth <= DEPTH_MAX; depth++) {
        if (!strcmp(id, inner))
            return true;
        inner = host_text(store_get(host->store, KIND_POOL, inner), "parent");
    }
    return false;
}

static unsigned depth_of(struct host *host, const char *id)
{
    unsigned depth = 0;
    for (; *id && depth <= DEPTH_MAX; depth++)
        id = host_text(store_get(host->store, KIND_POOL, id), "parent");
    return depth;
}

/* How many levels are in a pool, itself included. */
static unsigned height_of(struct host *host, const char *id, unsigned depth)
{
    json_t *doc;
    const char *key;
    unsigned most = 0;
    json_object_foreach(store_all(host->store, KIND_POOL), key, doc)
    {
        if (depth <= DEPTH_MAX && !strcmp(host_text(doc, "parent"), id)) {
            unsigned n = height_of(host, key, depth + 1);
            most = n > most ? n : most;
        }
    }
    return most + 1;
}

static int take_name(struct host *host, json_t *doc, json_t *body, struct host_problem *p)
{
    json_t *name = json_object_get(body, "name");
    if (!name)
        return 0;
    json_t *other = store_find(host->store, KIND_POOL, "name", json_string_value(name));
    if (!host_name_valid(json_string_value(name)))
        return host_problem(p, HOST_INVALID, "/name",
                            "must be 1 to 63 letters, digits, '-', '_', '.', no dot first");
    if (other && strcmp(host_text(other, "id"), host_text(doc, "id")))
        return host_problem(p, HOST_CONFLICT, "/name", "pool %s: is there already",
                            json_string_value(name));
    json_object_set(doc, "name", name);
    return 0;
}

static int take_parent(struct host *host, json_t *doc, json_t *body, struct host_problem *p)
{
    json_t *value = json_object_get(body, "parent");
    const char *id = host_text(doc, "id");
    if (!value)
        return 0;
    if (json_is_null(value)) {
        json_object_set(doc, "parent", value);
        return 0;
    }
    json_t *parent = pool_find(host, json_string_value(value));
    if (!parent)
        return host_problem(p, HOST_INVALID, "/parent", "pool %s: there is none",
                            json_string_value(value));
    const char *above = host_text(parent, "id");
    if (pool_holds(host, id, above))
        return host_problem(p, HOST_CONFLICT, "/parent", "a pool cannot be within itself");
    if (depth_of(host, above) + height_of(host, id, 0) > DEPTH_MAX)
        return host_problem(p, HOST_CONFLICT, "/parent", "pools are at most %d deep", DEPTH_MAX);
    json_object_set(doc, "parent", json_object_get(parent, "id"));
    return 0;
}

/* Take over what a body says into @doc, and see whether it can be kept. */
static int take(struct host *host, json_t *doc, json_t *body, struct host_problem *p)
{
    if (take_name(host, doc, body, p) || take_parent(host, doc, body, p))
        return -1;
    json_t *amounts = resources_merge(doc, body, true, p);
    if (!amounts)
        return -1;
    json_object_update(doc, amounts);
    json_decref(amounts);
    return resources_admit(host, &(struct resources_change){.kind = KIND_POOL, .doc = doc}, p);
}

json_t *pool_create(struct host *host, json_t *body, struct host_problem *p)
{
    struct mull_error err = {0};
    char id[HOST_ID_MAX];
    if (json_object_size(store_all(host->store, KIND_POOL)) >= POOLS_MAX) {
        host_problem(p, HOST_CONFLICT, NULL, "there are %d pools, the most there can be",
                     POOLS_MAX);
        return NULL;
    }
    host_uuid(id);
    json_t *doc = json_pack("{s:s, s:s, s:n}", "id", id, "name", "", "parent");
    if (take(host, doc, body, p)) {
        json_decref(doc);
        return NULL;
    }
    if (store_put(host->store, KIND_POOL, id, doc, &err)) {
        host_problem_from(p, &err);
        return NULL;
    }
    host_changed(host, KIND_POOL, id);
    return store_get(host->store, KIND_POOL, id);
}

int pool_change(struct host *host, json_t *old, json_t *body, struct host_problem *p)
{
    struct mull_error err = {0};
    char id[HOST_ID_MAX];
    json_t *doc = json_deep_copy(old);
    snprintf(id, sizeof(id), "%s", host_text(old, "id"));
    if (take(host, doc, body, p)) {
        json_decref(doc);
        return -1;
    }
    if (store_put(host->store, KIND_POOL, id, doc, &err))
        return host_problem_from(p, &err);
    host_changed(host, KIND_POOL, id);
    balance_now(host);
    return 0;
}

int pool_delete(struct host *host, json_t *doc, struct host_problem *p)
{
    struct mull_error err = {0};
    char id[HOST_ID_MAX];
    snprintf(id, sizeof(id), "%s", host_text(doc, "id"));
    json_int_t machines = count_in(host, KIND_MACHINE, "pool", id);
    json_int_t pools = count_in(host, KIND_POOL, "parent", id);
    if (machines || pools)
        return host_problem(p, HOST_CONFLICT, NULL,
                            "pool %s: %lld machines and %lld pools are in it; move them first",
                            host_text(doc, "name"), (long long)machines, (long long)pools);
    if (store_delete(host->store, KIND_POOL, id, &err))
        return host_problem_from(p, &err);
    host_changed(host, KIND_POOL, id);
    return 0;
}
