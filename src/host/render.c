/*
 * See render.h.
 */
#include "host/render.h"

#include <string.h>

#include "host/machines.h"
#include "host/pools.h"
#include "host/store/store.h"
#include "host/networks.h"
#include "host/stores.h"
#include "host/templates.h"
#include "host/transfers.h"

/* What callers see of a document: all but what begins with "_". */
static json_t *visible(json_t *doc)
{
    json_t *o = json_object(), *value;
    const char *key;
    json_object_foreach(doc, key, value)
    {
        if (*key != '_')
            json_object_set(o, key, value);
    }
    return o;
}

static bool holds(const json_t *list, const char *text)
{
    size_t i;
    json_t *item;
    json_array_foreach((json_t *)list, i, item)
    {
        if (json_is_string(item) && !strcmp(json_string_value(item), text))
            return true;
    }
    return false;
}

static json_t *render_group(struct host *host, json_t *doc)
{
    json_t *o = visible(doc), *members = json_array(), *user;
    const char *name;
    json_object_foreach(store_all(host->store, KIND_USER), name, user)
    {
        if (holds(json_object_get(user, "groups"), host_text(doc, "name")))
            json_array_append_new(members, json_string(name));
    }
    json_object_set_new(o, "members", members);
    return o;
}

static json_t *render_user(json_t *doc)
{
    json_t *o = visible(doc);
    json_object_del(o, "created");
    return o;
}

json_t *host_render(struct host *host, enum host_kind kind, json_t *doc, bool full)
{
    switch (kind) {
    case KIND_MACHINE:
        return machine_render(host, doc, full);
    case KIND_DATASTORE:
        return datastore_render(host, doc);
    case KIND_NETWORK:
        return network_render(host, doc);
    case KIND_POOL:
        return pool_render(host, doc);
    case KIND_GROUP:
        return render_group(host, doc);
    case KIND_USER:
        return render_user(doc);
    case KIND_TEMPLATE:
        return template_render(host, doc, full);
    case KIND_UPLOAD:
        return upload_render(host, doc);
    default:
        return visible(doc);
    }
}
