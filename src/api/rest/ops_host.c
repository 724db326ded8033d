/*
 * The host, its tasks and events, and what every kind of object has in common.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "api/rest/ops.h"
#include "engine/engine.h"
#include "host/events.h"
#include "host/machines.h"
#include "host/netkeeper.h"
#include "host/render.h"
#include "host/resources.h"
#include "host/stats.h"
#include "host/store/store.h"
#include "host/stores.h"

void op_about(struct request *r)
{
    json_t *settings = store_get(r->host->store, KIND_SETTING, "host");
    char name[256] = "localhost";
    gethostname(name, sizeof(name) - 1);
    const char *own = host_text(settings, "name");
    reply(r, 200,
          json_pack("{s:s, s:s, s:s}", "name", *own ? own : name, "version", MULLION_VERSION, "api",
                    "v1"));
}

void op_openapi(struct request *r)
{
    r->text = strndup(r->rest->document_text, r->rest->document_size);
    r->text_len = r->text ? r->rest->document_size : 0;
    r->type = "application/json";
    r->status = 200;
}

/* ---- The host ---- */

static json_t *engines(void)
{
    json_t *list = json_array();
    bool kvm = !access("/dev/kvm", R_OK | W_OK);
    json_array_append_new(list,
                          json_pack("{s:s, s:b, s:s}", "name", "kvm", "available", kvm, "reason",
                                    kvm ? "/dev/kvm is there; each machine measures it"
                                        : "/dev/kvm is not there, or not ours to use"));
    json_array_append_new(list, json_pack("{s:s, s:b, s:s}", "name", "soft", "available", 1,
                                          "reason", "translates; needs nothing of the host"));
    return list;
}

static json_t *cpu_model(void)
{
    char *text = host_read_file("/proc/cpuinfo", 16384, NULL, NULL);
    char *at = text ? strstr(text, "model name\t: ") : NULL;
    json_t *out = json_string("unknown");
    if (at) {
        at += 13;
        at[strcspn(at, "\n")] = '\0';
        json_decref(out);
        out = json_string(at);
    }
    free(text);
    return out ? out : json_string("unknown");
}

struct running {
    uint64_t memory;
    unsigned running, paused;
};

static void count_one(void *opaque, struct vm *vm)
{
    struct running *c = opaque;
    c->memory += vm->memory;
    c->running += vm->state == VM_RUNNING || vm->state == VM_STOPPING;
    c->paused += vm->state == VM_PAUSED;
}

static void add_health(json_t *list, const char *level, const char *text)
{
    json_array_append_new(list, json_pack("{s:s, s:s}", "level", level, "text", text));
}

/* What is answered 501, or cannot be had on this host, for programs that would offer it: shrinks as
 * it comes (docs/host.md). */
static json_t *missing(struct host *host)
{
    static const char *const kinds[] = {"network-bridge", "network-isolated", "network-nat"};
    json_t *list = json_array();
    for (unsigned i = 0; i < 3 && netkeeper_unable(host); i++)
        json_array_append_new(list, json_string(kinds[i]));
    return list;
}

/* What there is for machines, and what is reserved of it. */
static json_t *capacity(struct host *host)
{
    static const struct {
        const char *name;
        enum dimension dim;
    } shown[] = {{"cpu", DIM_CPU}, {"memory", DIM_MEMORY}};
    json_t *o = json_object();
    for (unsigned i = 0; i < 2; i++)
        json_object_set_new(
            o, shown[i].name,
            json_pack("{s:I, s:I}", "total", (json_int_t)resources_capacity(host, shown[i].dim),
                      "reserved", (json_int_t)resources_reserved(host, shown[i].dim)));
    return o;
}

static json_t *render_host(struct host *host)
{
    char name[256] = "localhost", text[256];
    double load[3] = {0};
    struct running running = {0};
    uint64_t total, used;
    json_int_t storage_total = 0, storage_used = 0;
    json_t *settings = store_get(host->store, KIND_SETTING, "host"), *doc;
    json_t *health = json_array();
    const char *id;
    gethostname(name, sizeof(name) - 1);
    stats_memory(&total, &used);
    if (getloadavg(load, 3) < 0)
        load[0] = 0;
    vm_each(host, count_one, &running);
    json_object_foreach(store_all(host->store, KIND_DATASTORE), id, doc)
    {
        json_t *d = datastore_render(host, doc);
        json_int_t all = json_integer_value(json_object_get(d, "total"));
        json_int_t free_bytes = json_integer_value(json_object_get(d, "free"));
        storage_total += all;
        storage_used += all - free_bytes;
        snprintf(text, sizeof(text), "datastore %s: less than a twentieth is free",
                 host_text(doc, "name"));
        if (!all || free_bytes < all / 20)
            add_health(health, "warning", text);
        json_decref(d);
    }
    if (used > total / 100 * 95)
        add_health(health, "warning", "less than a twentieth of the memory is free");
    char *up = host_read_file("/proc/uptime", 64, NULL, NULL);
    const char *own = host_text(settings, "name");
    json_t *o = json_pack(
        "{s:s, s:s, s:f, s:i, s:o, s:{s:I, s:I, s:I}, s:o, s:[fff], s:{s:i, s:i, s:i},"
        " s:{s:I, s:I}, s:o, s:b, s:o, s:o}",
        "name", *own ? own : name, "version", MULLION_VERSION, "uptime", up ? atof(up) : 0.0,
        "cpus", (int)sysconf(_SC_NPROCESSORS_ONLN), "cpu_model", cpu_model(), "memory", "total",
        (json_int_t)total, "used", (json_int_t)used, "machines", (json_int_t)running.memory,
        "engines", engines(), "load", load[0], load[1], load[2], "machines", "total",
        (int)json_object_size(store_all(host->store, KIND_MACHINE)), "running",
        (int)running.running, "paused", (int)running.paused, "storage", "total", storage_total,
        "used", storage_used, "health", health, "autostart",
        json_is_true(json_object_get(settings, "autostart")), "missing", missing(host), "capacity",
        capacity(host));
    free(up);
    return o;
}

void op_get_host(struct request *r)
{
    reply(r, 200, render_host(r->host));
}

void op_change_host(struct request *r)
{
    struct mull_error err = {0};
    struct host_problem p;
    json_t *old = store_get(r->host->store, KIND_SETTING, "host");
    json_t *doc = old ? json_deep_copy(old) : json_object();
    json_object_update(doc, r->json);
    if (store_put(r->host->store, KIND_SETTING, "host", doc, &err)) {
        host_problem_from(&p, &err);
        reply_problem(r, &p);
        return;
    }
    reply(r, 200, render_host(r->host));
}

void op_host_stats(struct request *r)
{
    const char *range = query(r, "range");
    reply(r, 200, stats_read(r->host, "host", range ? range : "hour"));
}

/* ---- Every kind ---- */

void op_list_kind(struct request *r)
{
    enum host_kind kind = r->route->op->kind;
    json_t *all = json_array(), *doc;
    const char *id;
    json_object_foreach(store_all(r->host->store, kind), id, doc)
    {
        if (auth_sees(r->host, &r->who, kind, id))
            json_array_append_new(all, host_render(r->host, kind, doc, false));
    }
    reply_list(r, all, kind == KIND_GRANT || kind == KIND_UPLOAD ? "id" : "name");
}

void op_get_kind(struct request *r)
{
    reply_object(r, 200, r->route->op->kind, r->object, true);
}

/* ---- Tasks ---- */

void op_list_tasks(struct request *r)
{
    json_t *all = json_array(), *doc;
    const char *id;
    json_object_foreach(store_all(r->host->store, KIND_TASK), id, doc)
    {
        if (auth_sees(r->host, &r->who, KIND_TASK, id))
            json_array_append_new(all, host_render(r->host, KIND_TASK, doc, false));
    }
    reply_list(r, all, "-created");
}

void op_cancel_task(struct request *r)
{
    struct host_problem p;
    bool own = !strcmp(host_text(r->object, "user"), r->who.user);
    if (!own && r->who.role < ROLE_OPERATOR)
        reply_error(r, HOST_FORBIDDEN, NULL, "the task is another's");
    else if (task_cancel(r->host, r->param[0], &p))
        reply_problem(r, &p);
    else
        reply_task(r, r->object, NULL);
}

/* ---- Events ---- */

static void list_log(struct request *r, bool audit)
{
    const char *cursor = query(r, "cursor"), *after = query(r, "after"), *sort = query(r, "sort");
    struct events_filter f = {.limit = (unsigned)query_number(r, "limit", 100),
                              .ascending = sort ? !strcmp(sort, "id") : after != NULL,
                              .q = query(r, "q"),
                              .after = query_number(r, "after", 0),
                              .type = query(r, "type"),
                              .object = query(r, "object"),
                              .severity = query(r, "severity"),
                              .user = query(r, "user"),
                              .path = audit ? query(r, "path") : NULL,
                              .method = query(r, "method")};
    uint64_t total = events_count(r->host, audit, &f);
    if (cursor && f.ascending)
        f.after = strtoull(cursor, NULL, 10);
    else if (cursor)
        f.before = strtoull(cursor, NULL, 10);
    json_t *got = audit ? audit_list(r->host, &f) : events_list(r->host, &f);
    reply_page(r, got, f.limit, total);
}

void op_list_events(struct request *r)
{
    list_log(r, false);
}

void op_list_audit(struct request *r)
{
    list_log(r, true);
}
