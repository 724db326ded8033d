/* See templates.h. */
#include "host/templates.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "host/clone.h"
#include "host/disks.h"
#include "host/events.h"
#include "host/seed.h"
#include "host/store/store.h"
#include "host/stores.h"
#include "host/supervisor.h"
#include "machine/config.h"

json_t *template_find(struct host *host, const struct principal *who, const char *name)
{
    json_t *doc = store_get(host->store, KIND_TEMPLATE, name);
    if (!doc)
        doc = store_find(host->store, KIND_TEMPLATE, "name", name);
    return doc && auth_sees(host, who, KIND_TEMPLATE, host_text(doc, "id")) ? doc : NULL;
}

char *template_folder(struct host *host, const json_t *doc)
{
    json_t *datastore = store_get(host->store, KIND_DATASTORE, host_text(doc, "datastore"));
    return datastore ? host_path(host_text(datastore, "path"), "templates/%s", host_text(doc, "id"))
                     : NULL;
}

/* Who stands on its disks, or is just being copied of them. @return a name, borrowed, or NULL */
static const char *user_of(struct host *host, const char *id, unsigned *linked)
{
    const char *name = NULL, *other;
    json_t *machine;
    json_object_foreach(store_all(host->store, KIND_MACHINE), other, machine)
    {
        bool base = !strcmp(host_text(machine, "_base"), id);
        bool made = !strcmp(host_text(machine, "_source"), id) &&
                    !strcmp(host_text(machine, "_lifecycle"), "creating");
        *linked += base;
        if (base || made)
            name = host_text(machine, "name");
    }
    return name;
}

json_t *template_render(struct host *host, json_t *doc, bool full)
{
    static const char *const copied[] = {"id",        "name",  "description", "created",
                                         "datastore", "state", "size"};
    json_t *o = json_object(), *config = json_object_get(doc, "config");
    json_t *cpus = json_object_get(config, "cpus"), *memory = json_object_get(config, "memory");
    unsigned linked = 0;
    user_of(host, host_text(doc, "id"), &linked);
    for (unsigned i = 0; i < sizeof(copied) / sizeof(copied[0]); i++)
        json_object_set(o, copied[i], json_object_get(doc, copied[i]));
    const char *os = host_text(config, "os");
    json_object_set_new(o, "os", *os ? json_string(os) : json_null());
    json_object_set_new(o, "cpus", json_integer(cpus ? json_integer_value(cpus) : 1));
    json_object_set_new(
        o, "memory",
        json_integer(memory ? json_integer_value(memory) : (json_int_t)MULL_MEMORY_DEFAULT));
    json_object_set_new(o, "linked", json_integer(linked));
    if (full)
        json_object_set(o, "config", config);
    return o;
}

/* ---- Making ---- */

/* A description without what makes it one machine. @return was there a seed? */
static bool strip(json_t *config)
{
    static const char *const own[] = {"uuid", "name", "tpm_state", "consoles", "display"};
    json_t *item, *disks = json_object_get(config, "disks"), *extra;
    const char *key;
    void *next;
    bool seeded = false;
    for (unsigned i = 0; i < sizeof(own) / sizeof(own[0]); i++)
        json_object_del(config, own[i]);
    size_t i;
    json_array_foreach(json_object_get(config, "networks"), i, item)
    {
        json_object_del(item, "mac");
        json_object_del(item, "forward"); /* a port of the host is one machine's */
    }
    for (i = json_array_size(disks); i-- > 0;) {
        if (!strcmp(host_text(json_array_get(disks, i), "path"), MACHINE_SEED)) {
            json_array_remove(disks, i);
            seeded = true;
        }
    }
    /* What another program has kept of the machine's identity: uuid.bios, ethernet0.address, ... */
    json_object_foreach_safe(json_object_get(config, "extra"), next, key, extra)
    {
        if (strcasestr(key, "uuid") || strcasestr(key, "ddress"))
            json_object_del(json_object_get(config, "extra"), key);
    }
    return seeded;
}

static uint64_t size_of(const char *path)
{
    struct stat st;
    return path && !stat(path, &st) ? (uint64_t)st.st_blocks * 512 : 0;
}

/* Copy the disks and write their new names into @config. */
static int copy_disks(struct task *task, json_t *config, const char *from, const char *to,
                      uint64_t *size, struct mull_error *err)
{
    json_t *disk;
    size_t i;
    int ret = 0;
    json_array_foreach(json_object_get(config, "disks"), i, disk)
    {
        char stem[32];
        const char *path = host_text(disk, "path");
        char *source = *path == '/' ? strdup(path) : host_path(from, "%s", path);
        snprintf(stem, sizeof(stem), "disk%zu", i);
        json_t *made =
            source ? clone_disk(task, source, json_string_value(json_object_get(disk, "format")),
                                to, stem, false, err)
                   : NULL;
        free(source);
        if (!made) {
            ret = err->code ? -err->code : mull_fail(err, ENOMEM, "no memory");
            break;
        }
        json_object_update(disk, made);
        char *target = host_path(to, "%s", host_text(made, "path"));
        *size += size_of(target);
        free(target);
        json_decref(made);
    }
    return ret ? ret : clone_others(task, config, from, to, err);
}

struct making {
    json_t *config;
    uint64_t size;
};

static int put_ready(struct host *host, const char *id, const struct making *m,
                     struct host_problem *p)
{
    struct mull_error err = {0};
    json_t *old = store_get(host->store, KIND_TEMPLATE, id), *doc = old ? json_copy(old) : NULL;
    if (!doc)
        return host_problem(p, HOST_NOT_FOUND, NULL, "the template is gone");
    json_object_set(doc, "config", m->config);
    json_object_set_new(doc, "size", json_integer((json_int_t)m->size));
    json_object_set_new(doc, "state", json_string("ready"));
    if (store_put(host->store, KIND_TEMPLATE, id, doc, &err))
        return host_problem_from(p, &err);
    host_changed(host, KIND_TEMPLATE, id);
    return 0;
}

/* Remove a template's files and its row. Lock not held. */
static int forget(struct host *host, const char *id, struct host_problem *p)
{
    struct mull_error err = {0};
    host_lock(host);
    json_t *doc = store_get(host->store, KIND_TEMPLATE, id);
    char *folder = doc ? template_folder(host, doc) : NULL;
    int ret = store_sync(host->store, &err);
    host_unlock(host);
    if (ret || (folder && (ret = host_remove_tree(folder)))) {
        if (!err.code)
            mull_fail(&err, -ret, "%s: %s", folder, strerror(-ret));
        free(folder);
        return host_problem_from(p, &err);
    }
    free(folder);
    host_lock(host);
    ret = store_delete(host->store, KIND_TEMPLATE, id, &err);
    if (!ret)
        host_changed(host, KIND_TEMPLATE, id);
    host_unlock(host);
    return ret ? host_problem_from(p, &err) : 0;
}

static int create_task(struct task *task, struct host_problem *p)
{
    struct host *host = task->host;
    struct mull_error err = {0};
    const char *id = host_text(task->args, "template");
    host_lock(host);
    json_t *machine = store_get(host->store, KIND_MACHINE, task->object_id);
    json_t *doc = store_get(host->store, KIND_TEMPLATE, id);
    char *from = machine ? machine_file(host, task->object_id, "") : NULL;
    char *to = doc ? template_folder(host, doc) : NULL;
    struct making m = {.config = doc ? json_deep_copy(json_object_get(doc, "config")) : NULL};
    char name[HOST_NAME_MAX];
    snprintf(name, sizeof(name), "%s", host_text(doc, "name"));
    host_unlock(host);
    int ret = from && to && m.config ? host_make_folder(to, 0700) : -ENOENT;
    if (ret)
        mull_fail(&err, -ret, "%s: %s", to ? to : "the template", strerror(-ret));
    else
        ret = copy_disks(task, m.config, from, to, &m.size, &err);
    if (!ret)
        ret = machine_write_description(to, m.config, &err);
    if (ret) {
        host_problem_from(p, &err);
    } else {
        host_lock(host);
        ret = put_ready(host, id, &m, p);
        if (!ret)
            host_event(host, "template.created", NULL, name, task->user, "info", NULL,
                       "template %s was made of %s", name,
                       host_text(store_get(host->store, KIND_MACHINE, task->object_id), "name"));
        host_unlock(host);
    }
    if (ret) {
        struct host_problem ignored;
        forget(host, id, &ignored);
    } else {
        char object[HOST_NAME_MAX + 16];
        snprintf(object, sizeof(object), "template:%s", id);
        task->result = json_pack("{s:s}", "object", object);
    }
    json_decref(m.config);
    free(from);
    free(to);
    return ret ? -1 : 0;
}

json_t *template_create(struct host *host, const struct principal *who, json_t *body,
                        struct host_problem *p)
{
    char id[HOST_ID_MAX];
    struct mull_error err = {0};
    const char *name = host_text(body, "name"), *wanted = host_text(body, "machine");
    json_t *machine = store_get(host->store, KIND_MACHINE, wanted);
    if (!machine || auth_role_on(host, who, KIND_MACHINE, machine) < ROLE_OPERATOR) {
        host_problem(p, HOST_INVALID, "/machine", "machine %s: there is none", wanted);
        return NULL;
    }
    if (!host_name_valid(name)) {
        host_problem(p, HOST_INVALID, "/name",
                     "must be 1 to 63 letters, digits, '-', '_', '.', no dot first");
        return NULL;
    }
    if (store_find(host->store, KIND_TEMPLATE, "name", name)) {
        host_problem(p, HOST_CONFLICT, "/name", "template %s: is there already", name);
        return NULL;
    }
    if (machine_is_free(host, machine, p))
        return NULL;
    if (vm_runs(vm_of(host, wanted))) {
        host_problem(p, HOST_CONFLICT, NULL, "machine %s: runs; stop it first",
                     host_text(machine, "name"));
        return NULL;
    }
    json_t *config = json_deep_copy(json_object_get(machine, "config"));
    bool seeded = strip(config);
    host_uuid(id);
    json_t *doc = json_pack("{s:s, s:s, s:s, s:o, s:s, s:s, s:i, s:o, s:b}", "id", id, "name", name,
                            "description", host_text(body, "description"), "created",
                            host_now_json(), "datastore", host_text(machine, "datastore"), "state",
                            "creating", "size", 0, "config", config, "_seeded", seeded);
    if (!doc || store_put(host->store, KIND_TEMPLATE, id, doc, &err)) {
        host_problem_from(p, &err);
        return NULL;
    }
    json_t *task = machine_task(host, who->user, machine, "template.create", true,
                                json_pack("{s:s}", "template", id), create_task, p);
    if (!task)
        store_delete(host->store, KIND_TEMPLATE, id, NULL);
    host_changed(host, KIND_TEMPLATE, id);
    return task;
}

/* ---- Deleting ---- */

static int delete_task(struct task *task, struct host_problem *p)
{
    struct host *host = task->host;
    if (forget(host, task->object_id, p))
        return -1;
    host_lock(host);
    host_event(host, "template.deleted", NULL, host_text(task->args, "name"), task->user, "info",
               NULL, "template %s was deleted", host_text(task->args, "name"));
    host_unlock(host);
    return 0;
}

json_t *template_delete(struct host *host, const struct principal *who, json_t *old,
                        struct host_problem *p)
{
    struct mull_error err = {0};
    char id[HOST_ID_MAX];
    unsigned linked = 0;
    snprintf(id, sizeof(id), "%s", host_text(old, "id"));
    const char *user = user_of(host, id, &linked);
    if (user) {
        host_problem(p, HOST_CONFLICT, NULL, "template %s: machine %s %s", host_text(old, "name"),
                     user, linked ? "stands on its disks" : "is being made of it");
        return NULL;
    }
    if (strcmp(host_text(old, "state"), "ready")) {
        host_problem(p, HOST_CONFLICT, NULL, "template %s: %s", host_text(old, "name"),
                     host_text(old, "state"));
        return NULL;
    }
    json_t *doc = json_copy(old);
    json_object_set_new(doc, "state", json_string("deleting"));
    if (store_put(host->store, KIND_TEMPLATE, id, doc, &err)) {
        host_problem_from(p, &err);
        return NULL;
    }
    struct task_request request = {.type = "template.delete",
                                   .kind = KIND_TEMPLATE,
                                   .object_id = id,
                                   .object_name = host_text(doc, "name"),
                                   .user = who->user,
                                   .args = json_pack("{s:s}", "name", host_text(doc, "name")),
                                   .fn = delete_task};
    json_t *task = task_start(host, &request, p);
    if (!task) {
        doc = json_copy(doc);
        json_object_set_new(doc, "state", json_string("ready"));
        store_put(host->store, KIND_TEMPLATE, id, doc, NULL);
    }
    host_changed(host, KIND_TEMPLATE, id);
    return task;
}

/* ---- Using ---- */

int template_begin(struct host *host, json_t *doc, bool linked, json_t *config, json_t *plan,
                   struct host_problem *p)
{
    json_t *copy = json_deep_copy(json_object_get(doc, "config")), *disk, *card;
    char *folder = template_folder(host, doc);
    size_t i;
    if (!folder || !copy || strcmp(host_text(doc, "state"), "ready")) {
        free(folder);
        json_decref(copy);
        return host_problem(p, HOST_CONFLICT, "/template", "template %s: is not ready",
                            host_text(doc, "name"));
    }
    json_array_foreach(json_object_get(copy, "disks"), i, disk)
    {
        char name[64], stem[32];
        const char *format = host_text(disk, "format");
        char *from = host_path(folder, "%s", host_text(disk, "path"));
        snprintf(stem, sizeof(stem), "disk%zu", i);
        json_array_append_new(plan, json_pack("{s:s, s:s, s:s, s:b}", "clone", from, "format",
                                              format, "stem", stem, "linked", linked));
        snprintf(name, sizeof(name), "%s.%s", stem, linked ? "qcow2" : format);
        json_object_set_new(disk, "path", json_string(name));
        if (linked)
            json_object_set_new(disk, "format", json_string("qcow2"));
        free(from);
    }
    /* A network that has gone meanwhile is the default one. */
    json_array_foreach(json_object_get(copy, "networks"), i, card)
    {
        const char *name = host_text(card, "name");
        if (*name && !store_find(host->store, KIND_NETWORK, "name", name))
            json_object_set_new(card, "name", json_string("default"));
    }
    json_object_update(config, copy);
    json_decref(copy);
    free(folder);
    return 0;
}

void templates_recover(struct host *host)
{
    json_t *all = json_copy(store_all(host->store, KIND_TEMPLATE)), *doc;
    const char *id;
    json_object_foreach(all, id, doc)
    {
        struct host_problem p = {0};
        if (!strcmp(host_text(doc, "state"), "ready"))
            continue;
        host_unlock(host);
        int ret = forget(host, id, &p);
        host_lock(host);
        if (ret)
            mull_log(&host->log, MULL_LOG_ERROR, "template %s: %s", id, p.detail);
    }
    json_decref(all);
}
