/*
 * See machines.h: reading, checking and changing machines; machine_tasks.c does the work.
 */
#include "host/machines.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/balance.h"
#include "host/events.h"
#include "host/networks.h"
#include "host/pools.h"
#include "host/resources.h"
#include "host/seed.h"
#include "host/store/store.h"
#include "host/stores.h"
#include "host/templates.h"
#include "machine/config.h"

char *machine_file(struct host *host, const char *id, const char *name)
{
    json_t *doc = store_get(host->store, KIND_MACHINE, id);
    json_t *datastore =
        doc ? store_get(host->store, KIND_DATASTORE, host_text(doc, "datastore")) : NULL;
    if (!datastore)
        return NULL;
    return *name ? host_path(host_text(datastore, "path"), "machines/%s/%s", id, name)
                 : host_path(host_text(datastore, "path"), "machines/%s", id);
}

/* ---- As callers see it ---- */

static const char *state_of(const struct vm *vm, const json_t *doc)
{
    const char *lifecycle = host_text(doc, "_lifecycle");
    return strcmp(lifecycle, "ready") ? lifecycle : vm_state_names[vm->state];
}

static json_t *text_or_null(const char *text)
{
    return *text ? json_string(text) : json_null();
}

/* Each once; cards that are not connected are on none. */
static json_t *networks_of(json_t *config)
{
    json_t *names = json_array(), *card, *other;
    size_t i, j;
    json_array_foreach(json_object_get(config, "networks"), i, card)
    {
        const char *name = host_text(card, "name");
        bool fresh = *name && strcmp(host_text(card, "type"), "none");
        json_array_foreach(names, j, other) fresh = fresh && strcmp(json_string_value(other), name);
        if (fresh)
            json_array_append(names, json_object_get(card, "name"));
    }
    return names;
}

json_t *machine_render(struct host *host, json_t *doc, bool full)
{
    static const char *const copied[] = {"id",      "name",      "description", "folder",
                                         "tags",    "autostart", "datastore",   "created",
                                         "changed", "started"};
    struct vm *vm = vm_of(host, host_text(doc, "id"));
    json_t *o = json_object(), *config = json_object_get(doc, "config");
    json_t *pending = json_object_get(doc, "pending_config");
    if (!vm || !o)
        return o;
    for (unsigned i = 0; i < sizeof(copied) / sizeof(copied[0]); i++) {
        json_t *value = json_object_get(doc, copied[i]);
        json_object_set(o, copied[i], value ? value : json_null());
    }
    bool runs = vm->pidfd >= 0;
    double uptime = vm->uptime;
    if (vm->state == VM_RUNNING)
        uptime += (double)(mull_now_ns() - vm->uptime_ns) / 1e9;
    json_t *cpus = json_object_get(config, "cpus"), *memory = json_object_get(config, "memory");
    json_object_set_new(o, "state", json_string(state_of(vm, doc)));
    json_object_set_new(o, "state_reason", text_or_null(vm->reason));
    json_object_set_new(o, "pending", json_boolean(json_is_object(pending)));
    json_t *pool = json_object_get(doc, "pool");
    json_object_set(o, "pool", pool ? pool : json_null());
    json_object_set_new(o, "networks", networks_of(config));
    json_object_set_new(o, "os", text_or_null(host_text(config, "os")));
    json_object_set_new(o, "cpus", json_integer(cpus ? json_integer_value(cpus) : 1));
    json_object_set_new(
        o, "memory",
        json_integer(memory ? json_integer_value(memory) : (json_int_t)MULL_MEMORY_DEFAULT));
    json_object_set_new(o, "engine", text_or_null(vm->engine));
    json_object_set_new(o, "uptime", runs ? json_real(uptime) : json_null());
    json_object_set(o, "guest", vm->guest ? vm->guest : json_null());
    json_object_set_new(o, "addresses", vm->addresses ? json_incref(vm->addresses) : json_array());
    json_object_set_new(o, "usage",
                        json_pack("{s:f, s:I}", "cpu", runs ? vm->cpu : 0.0, "memory",
                                  (json_int_t)(runs ? vm->memory : 0)));
    json_object_set_new(o, "task", text_or_null(vm->task));
    if (full) {
        json_object_set(o, "config", config);
        json_object_set(o, "pending_config", json_is_object(pending) ? pending : json_null());
        json_object_set_new(o, "resources",
                            resources_merge(json_object_get(doc, "resources"), NULL, false, NULL));
        json_object_set_new(o, "granted", balance_granted(vm));
    }
    return o;
}

int machine_is_free(struct host *host, json_t *doc, struct host_problem *p)
{
    struct vm *vm = vm_of(host, host_text(doc, "id"));
    const char *lifecycle = host_text(doc, "_lifecycle");
    if (!vm)
        return host_problem(p, HOST_INTERNAL, NULL, "no memory");
    if (*vm->task)
        return host_problem(p, HOST_CONFLICT, NULL,
                            "machine %s: task %s is at work on it; wait for it or cancel it",
                            host_text(doc, "name"), vm->task);
    if (strcmp(lifecycle, "ready"))
        return host_problem(p, HOST_CONFLICT, NULL, "machine %s: %s", host_text(doc, "name"),
                            lifecycle);
    return 0;
}

json_t *machine_task(struct host *host, const char *user, json_t *doc, const char *type,
                     bool cancellable, json_t *args,
                     int (*fn)(struct task *, struct host_problem *), struct host_problem *p)
{
    struct vm *vm = vm_of(host, host_text(doc, "id"));
    struct task_request request = {.type = type,
                                   .kind = KIND_MACHINE,
                                   .object_id = host_text(doc, "id"),
                                   .object_name = host_text(doc, "name"),
                                   .user = user,
                                   .cancellable = cancellable,
                                   .args = args,
                                   .fn = fn};
    json_t *task = task_start(host, &request, p);
    if (task && vm) {
        snprintf(vm->task, sizeof(vm->task), "%s", host_text(task, "id"));
        host_changed(host, KIND_MACHINE, vm->id);
    }
    return task;
}

void machine_task_over(struct host *host, const char *id, const char *task)
{
    json_t *doc = *id ? store_get(host->store, KIND_MACHINE, id) : NULL;
    struct vm *vm = doc ? vm_of(host, id) : NULL;
    if (!vm || strcmp(vm->task, task))
        return;
    *vm->task = '\0';
    json_object_set_new(doc, "_version", json_integer((json_int_t)++host->store->version));
    host_changed(host, KIND_MACHINE, id);
}

int machine_update(struct host *host, const char *id, void (*fn)(json_t *doc, void *opaque),
                   void *opaque, struct host_problem *p)
{
    struct mull_error err = {0};
    json_t *old = store_get(host->store, KIND_MACHINE, id);
    json_t *doc = old ? json_deep_copy(old) : NULL;
    if (!doc)
        return host_problem(p, HOST_NOT_FOUND, NULL, "machine %s: there is none", id);
    fn(doc, opaque);
    if (store_put(host->store, KIND_MACHINE, id, doc, &err))
        return host_problem_from(p, &err);
    host_changed(host, KIND_MACHINE, id);
    return 0;
}

/* ---- Checking a configuration ---- */

/* Is this one of the inventory's files? */
static bool is_known_file(struct host *host, const char *path)
{
    const char *id;
    json_t *doc;
    json_object_foreach(store_all(host->store, KIND_IMAGE), id, doc)
    {
        char *own = image_path(host, doc);
        bool same = own && !strcmp(own, path);
        free(own);
        if (same)
            return true;
    }
    return false;
}

static int check_path(struct host *host, const char *own, const char *path, const char *field,
                      struct host_problem *p)
{
    size_t n = strlen(own);
    if (!path || !strcmp(path, "bios") || !strcmp(path, "uefi"))
        return 0;
    bool inside = *path != '/' || (!strncmp(path, own, n) && path[n] == '/');
    if (inside && !strstr(path, "..") && !strstr(path, "://"))
        return 0;
    if (is_known_file(host, path))
        return 0;
    return host_problem(p, HOST_FORBIDDEN, field,
                        "%s: only administrators may name files of the host; use an image, an ISO "
                        "or a file of the machine's own folder",
                        path);
}

static int check_paths(struct host *host, const struct mull_machine_config *c, const char *own,
                       struct host_problem *p)
{
    const struct {
        const char *path, *field;
    } files[] = {{c->kernel, "/config/kernel"},
                 {c->initrd, "/config/initrd"},
                 {c->firmware, "/config/firmware"},
                 {c->nvram, "/config/nvram"},
                 {c->tpm_state, "/config/tpm_state"},
                 {c->display_password_file, "/config/display/password_file"}};
    int ret = 0;
    for (unsigned i = 0; i < sizeof(files) / sizeof(files[0]) && !ret; i++)
        ret = check_path(host, own, files[i].path, files[i].field, p);
    for (unsigned i = 0; i < c->disk_count && !ret; i++)
        ret = check_path(host, own, c->disk[i].path, "/config/disks", p);
    for (unsigned i = 0; i < c->cdrom_count && !ret; i++)
        ret = check_path(host, own, c->cdrom[i].path, "/config/cdroms", p);
    if (c->share_count && !ret)
        ret = host_problem(p, HOST_FORBIDDEN, "/config/shares",
                           "only administrators may give a guest folders of the host");
    if (c->vsock_path && !ret)
        ret = host_problem(p, HOST_FORBIDDEN, "/config/vsock",
                           "only administrators may give a guest sockets of the host");
    for (unsigned i = 0; i < c->network_count && !ret; i++)
        if (c->network[i].kind == MULL_NETWORK_TAP)
            ret = host_problem(p, HOST_FORBIDDEN, "/config/networks",
                               "only administrators may connect a machine to a tap interface");
    return ret;
}

int machine_check_config(struct host *host, const struct principal *who, json_t *config,
                         const char *own, struct host_problem *p)
{
    struct mull_machine_config parsed;
    struct mull_error err = {0};
    if (json_object_get(config, "consoles") || json_object_get(config, "display"))
        return host_problem(p, HOST_INVALID, "/config",
                            "consoles and display are the host's to say: leave them out");
    char *text = json_dumps(config, JSON_COMPACT);
    int ret = text ? mull_machine_config_read(text, &parsed, &err) : -ENOMEM;
    if (ret) {
        host_problem(p, HOST_INVALID, "/config", "%s", err.message);
        if (!text)
            return -1;
        mull_machine_config_free(&parsed);
        free(text);
        return -1;
    }
    free(text);
    if (parsed.memory < MULL_MEMORY_MIN || parsed.memory > MULL_MEMORY_MAX || parsed.memory % 4096)
        ret = host_problem(p, HOST_INVALID, "/memory", "must be whole pages, from 16 MiB to 1 TiB");
    else if (parsed.cpus < 1 || parsed.cpus > 64)
        ret = host_problem(p, HOST_INVALID, "/cpus", "must be 1 to 64");
    else if (who->role != ROLE_ADMINISTRATOR)
        ret = check_paths(host, &parsed, own, p);
    for (unsigned i = 0; i < parsed.network_count && !ret; i++)
        if (parsed.network[i].fd)
            ret = host_problem(p, HOST_INVALID, "/config/networks",
                               "fd: is the host's to say: leave it out");
    mull_machine_config_free(&parsed);
    return ret;
}

/* ---- What a body says ---- */

/* Amounts are for those who manage the host; a pool is open to who may work with what is in it. */
static int may_place(struct host *host, const struct principal *who, json_t *doc, json_t *body,
                     struct host_problem *p)
{
    json_t *pool = json_object_get(body, "pool");
    json_t *inside = json_is_string(pool) ? pool_find(host, json_string_value(pool)) : NULL;
    enum role role = doc ? auth_role_on(host, who, KIND_MACHINE, doc) : who->role;
    if (json_is_string(pool) &&
        (!inside || !auth_sees(host, who, KIND_POOL, host_text(inside, "id"))))
        return host_problem(p, HOST_INVALID, "/pool", "pool %s: there is none",
                            json_string_value(pool));
    if (inside && auth_role_on(host, who, KIND_POOL, inside) < ROLE_OPERATOR)
        return host_problem(p, HOST_FORBIDDEN, "/pool", "this needs the role operator on the pool");
    if (pool && !json_equal(pool, json_object_get(doc, "pool")) && !inside && doc &&
        role < ROLE_OPERATOR)
        return host_problem(p, HOST_FORBIDDEN, "/pool", "this needs the role operator");
    if (json_object_get(body, "resources") && role < ROLE_ADMINISTRATOR)
        return host_problem(p, HOST_FORBIDDEN, "/resources", "this needs the role administrator");
    return 0;
}

/* What a body says of pool and resources, into @doc, which has its configuration. */
static int place(struct host *host, json_t *doc, json_t *body, bool starts, struct host_problem *p)
{
    json_t *pool = json_object_get(body, "pool"), *patch = json_object_get(body, "resources");
    if (json_is_string(pool))
        json_object_set(doc, "pool",
                        json_object_get(pool_find(host, json_string_value(pool)), "id"));
    else if (pool)
        json_object_set_new(doc, "pool", json_null());
    json_t *old = json_is_null(patch) ? NULL : json_object_get(doc, "resources");
    json_t *amounts = resources_merge(old, json_is_null(patch) ? NULL : patch, false, p);
    if (!amounts) {
        char field[sizeof(p->field)];
        snprintf(field, sizeof(field), "/resources%.100s", p->field);
        memcpy(p->field, field, sizeof(field));
        return -1;
    }
    json_object_set_new(doc, "resources", amounts);
    if (resources_check(amounts, json_object_get(doc, "config"), p))
        return -1;
    return resources_admit(
        host, &(struct resources_change){.kind = KIND_MACHINE, .doc = doc, .starts = starts}, p);
}

static int check_folder(const char *folder, struct host_problem *p)
{
    size_t n = strlen(folder);
    if (*folder != '/' || (n > 1 && folder[n - 1] == '/') || strstr(folder, "//"))
        return host_problem(p, HOST_INVALID, "/folder",
                            "must be / or like /a/b, without a slash at the end");
    return 0;
}

static int check_name(struct host *host, const char *name, const char *own_id,
                      struct host_problem *p)
{
    json_t *other = store_find(host->store, KIND_MACHINE, "name", name);
    if (!host_name_valid(name))
        return host_problem(p, HOST_INVALID, "/name",
                            "must be 1 to 63 letters, digits, '-', '_', '.', no dot first");
    if (other && (!own_id || strcmp(own_id, host_text(other, "id"))))
        return host_problem(p, HOST_CONFLICT, "/name", "machine %s: is there already", name);
    return 0;
}

static int add_networks(struct host *host, json_t *body, json_t *config, struct host_problem *p)
{
    json_t *list = json_object_get(body, "networks"), *item, *out = json_array();
    size_t i;
    if (!list) { /* one card on the default network, where there is one */
        if (network_find(host, "default"))
            json_array_append_new(out, json_pack("{s:s, s:s}", "type", "user", "name", "default"));
    }
    json_array_foreach(list, i, item)
    {
        const char *name = host_text(item, "network");
        json_t *network = network_find(host, *name ? name : "default");
        json_t *card;
        if (!network) {
            char field[64];
            snprintf(field, sizeof(field), "/networks/%zu/network", i);
            json_decref(out);
            return host_problem(p, HOST_INVALID, field, "network %s: there is none", name);
        }
        card = json_deep_copy(item);
        json_object_del(card, "network");
        json_object_set_new(card, "type", json_string("user"));
        json_object_set(card, "name", json_object_get(network, "name"));
        json_array_append_new(out, card);
    }
    json_object_set_new(config, "networks", out);
    return 0;
}

static json_t *list_of(json_t *config, const char *member)
{
    json_t *list = json_object_get(config, member);
    if (!list)
        json_object_set_new(config, member, list = json_array());
    return list;
}

/* What the machine's disks will be: {file, capacity, from, format} each, in @plan. */
static int add_disks(struct host *host, json_t *body, json_t *config, json_t *plan,
                     struct host_problem *p)
{
    json_t *disks = list_of(config, "disks"), *list = json_object_get(body, "disks"), *item;
    const char *image = host_text(body, "image"), *iso = host_text(body, "iso");
    size_t i, n = json_array_size(disks); /* a template's */
    if (*image) {
        json_t *doc = store_get(host->store, KIND_IMAGE, image);
        char *path = doc && !strcmp(host_text(doc, "kind"), "image") ? image_path(host, doc) : NULL;
        if (!path || strcmp(host_text(doc, "state"), "ready")) {
            free(path);
            return host_problem(p, HOST_INVALID, "/image", "image %s: there is none", image);
        }
        /* The first of the disks, if any are said, says how large it is to be. */
        json_t *first = json_array_get(list, 0);
        json_t *capacity = json_object_get(first, "capacity");
        json_int_t wanted = capacity ? json_integer_value(capacity) : 0;
        json_int_t least = json_integer_value(json_object_get(doc, "capacity"));
        if (wanted && wanted < least) {
            free(path);
            return host_problem(p, HOST_INVALID, "/disks/0/capacity",
                                "image %s has %" JSON_INTEGER_FORMAT " bytes: give at least those",
                                image, least);
        }
        json_array_append_new(plan,
                              json_pack("{s:s, s:I, s:s, s:s}", "file", "disk0.qcow2", "capacity",
                                        wanted, "from", path, "format", host_text(doc, "format")));
        free(path);
        json_t *disk = json_pack("{s:s, s:s}", "path", "disk0.qcow2", "format", "qcow2");
        if (*host_text(first, "bus"))
            json_object_set(disk, "bus", json_object_get(first, "bus"));
        json_array_append_new(disks, disk);
        if (!*host_text(config, "os") && *host_text(doc, "os"))
            json_object_set(config, "os", json_object_get(doc, "os"));
        n = 1;
    }
    json_array_foreach(list, i, item)
    {
        char file[32];
        json_int_t capacity = json_integer_value(json_object_get(item, "capacity"));
        if (*image && i == 0)
            continue;
        if (capacity % 512 || capacity > (json_int_t)1 << 46) {
            char field[64];
            snprintf(field, sizeof(field), "/disks/%zu/capacity", i);
            return host_problem(p, HOST_INVALID, field,
                                "must be a multiple of 512, at most 64 TiB");
        }
        snprintf(file, sizeof(file), "disk%zu.qcow2", n++);
        json_array_append_new(plan, json_pack("{s:s, s:I}", "file", file, "capacity", capacity));
        json_t *disk = json_pack("{s:s, s:s}", "path", file, "format", "qcow2");
        if (*host_text(item, "bus"))
            json_object_set(disk, "bus", json_object_get(item, "bus"));
        json_array_append_new(disks, disk);
    }
    if (*iso) {
        json_t *doc = store_get(host->store, KIND_IMAGE, iso);
        char *path = doc && !strcmp(host_text(doc, "kind"), "iso") ? image_path(host, doc) : NULL;
        if (!path || strcmp(host_text(doc, "state"), "ready")) {
            free(path);
            return host_problem(p, HOST_INVALID, "/iso", "ISO %s: there is none", iso);
        }
        json_object_set_new(config, "cdroms",
                            json_pack("[{s:s, s:s}]", "path", path, "bus", "sata"));
        free(path);
    }
    return 0;
}

static void set_if(json_t *config, json_t *body, const char *member)
{
    json_t *value = json_object_get(body, member);
    if (value && !json_is_null(value))
        json_object_set(config, member, value);
    else if (value)
        json_object_del(config, member);
}

static json_t *whole_autostart(json_t *given, json_t *old)
{
    json_t *o = json_pack("{s:b, s:i, s:i}", "enabled", 0, "order", 0, "delay", 0);
    if (old)
        json_object_update(o, old);
    if (given)
        json_object_update(o, given);
    return o;
}

/* The template that a body names: *out is NULL where it names none. */
static int named_template(struct host *host, const struct principal *who, json_t *body,
                          json_t **out, struct host_problem *p)
{
    const char *name = host_text(body, "template");
    *out = *name ? template_find(host, who, name) : NULL;
    if (*name && !*out)
        return host_problem(p, HOST_INVALID, "/template", "template %s: there is none", name);
    if (*name && *host_text(body, "image"))
        return host_problem(p, HOST_INVALID, "/image", "give a template or an image, not both");
    if (!*name && json_is_true(json_object_get(body, "linked")))
        return host_problem(p, HOST_INVALID, "/linked", "needs a template");
    return 0;
}

static int make_config(struct host *host, const struct principal *who, json_t *body,
                       const char *own, const char *id, json_t *config, json_t *plan,
                       struct host_problem *p)
{
    static const char *const members[] = {"name", "os", "cpus", "memory"};
    json_t *template;
    if (named_template(host, who, body, &template, p) ||
        (template && template_begin(host, template, json_is_true(json_object_get(body, "linked")),
                                    config, plan, p)))
        return -1;
    if (template && !json_object_get(body, "cloud_init") &&
        json_is_true(json_object_get(template, "_seeded"))) /* a new instance for cloud-init */
        json_object_set_new(body, "cloud_init", json_object());
    for (unsigned i = 0; i < 4; i++)
        set_if(config, body, members[i]);
    json_object_set_new(config, "uuid", json_string(id));
    json_t *setup = json_object_get(body, "cloud_init");
    struct mull_error err = {0};
    if (setup && host_seed_check(setup, &err))
        return host_problem(p, HOST_INVALID, "/cloud_init", "%s", err.message);
    if (add_disks(host, body, config, plan, p))
        return -1;
    if ((!template || json_object_get(body, "networks")) && add_networks(host, body, config, p))
        return -1;
    if (setup) /* last, so that the machine's own disks keep their names */
        json_array_append_new(
            list_of(config, "disks"),
            json_pack("{s:s, s:s, s:b}", "path", MACHINE_SEED, "format", "raw", "readonly", 1));
    json_t *patch = json_object_get(body, "config");
    if (patch && host_merge_patch(config, patch))
        return host_problem(p, HOST_INVALID, "/config", "nested too deeply");
    json_object_set(config, "name", json_object_get(body, "name"));
    return network_complete_cards(host, config, id, false, p)
               ? -1
               : machine_check_config(host, who, config, own, p);
}

json_t *machine_create(struct host *host, const struct principal *who, json_t *body,
                       struct host_problem *p)
{
    char id[HOST_ID_MAX], source[HOST_ID_MAX];
    struct mull_error err = {0};
    const char *folder = host_text(body, "folder"), *wanted = host_text(body, "datastore");
    if (may_place(host, who, NULL, body, p) || check_name(host, host_text(body, "name"), NULL, p) ||
        (*folder && check_folder(folder, p)))
        return NULL;
    json_t *datastore = datastore_find(host, *wanted ? wanted : NULL);
    if (!datastore) {
        host_problem(p, HOST_INVALID, "/datastore", "datastore %s: there is none", wanted);
        return NULL;
    }
    host_uuid(id);
    char *own = host_path(host_text(datastore, "path"), "machines/%s", id);
    json_t *config = json_object(), *plan = json_array();
    int ret = own ? make_config(host, who, body, own, id, config, plan, p) : -1;
    free(own);
    if (ret) {
        json_decref(config);
        json_decref(plan);
        return NULL;
    }
    json_t *tags = json_object_get(body, "tags");
    json_t *doc = json_pack(
        "{s:s, s:s, s:s, s:s, s:o, s:o, s:s, s:o, s:o, s:n, s:o, s:n, s:s}", "id", id, "name",
        host_text(body, "name"), "description", host_text(body, "description"), "folder",
        *folder ? folder : "/", "tags", tags ? json_deep_copy(tags) : json_array(), "autostart",
        whole_autostart(json_object_get(body, "autostart"), NULL), "datastore",
        host_text(datastore, "id"), "created", host_now_json(), "changed", host_now_json(),
        "started", "config", config, "pending_config", "_lifecycle", "creating");
    json_t *template =
        *host_text(body, "template") ? template_find(host, who, host_text(body, "template")) : NULL;
    snprintf(source, sizeof(source), "%s", host_text(template, "id"));
    if (template)
        json_object_set_new(doc, "_source", json_string(source));
    if (template && json_is_true(json_object_get(body, "linked")))
        json_object_set_new(doc, "_base", json_string(source));
    if (place(host, doc, body, false, p)) {
        json_decref(doc);
        json_decref(plan);
        return NULL;
    }
    if (store_put(host->store, KIND_MACHINE, id, doc, &err)) {
        json_decref(plan);
        host_problem_from(p, &err);
        return NULL;
    }
    doc = store_get(host->store, KIND_MACHINE, id);
    json_t *args = json_pack("{s:o, s:b, s:O*, s:s}", "plan", plan, "start",
                             json_is_true(json_object_get(body, "start")), "setup",
                             json_object_get(body, "cloud_init"), "template", source);
    json_t *task =
        machine_task(host, who->user, doc, "machine.create", true, args, machine_create_task, p);
    if (!task)
        store_delete(host->store, KIND_MACHINE, id, NULL);
    else
        host_changed(host, KIND_MACHINE, id);
    return task;
}

/* ---- Changing ---- */

/* A patch replaces the whole list: a card that stays what it was keeps its MAC. */
static void keep_macs(json_t *from, json_t *to)
{
    json_t *card, *old;
    size_t i;
    json_array_foreach(json_object_get(to, "networks"), i, card)
    {
        old = json_array_get(json_object_get(from, "networks"), i);
        if (json_is_object(card) && !json_object_get(card, "mac") && json_object_get(old, "mac"))
            json_object_set(card, "mac", json_object_get(old, "mac"));
    }
}

/* What of a configuration a machine has as files and devices: a running one cannot take it. */
static int change_config(struct host *host, const struct principal *who, json_t *doc, json_t *body,
                         bool runs, struct host_problem *p)
{
    static const char *const members[] = {"os", "cpus", "memory"};
    json_t *pending = json_object_get(doc, "pending_config");
    json_t *base = json_is_object(pending) ? pending : json_object_get(doc, "config");
    json_t *config = json_deep_copy(base), *patch = json_object_get(body, "config");
    for (unsigned i = 0; i < 3; i++)
        set_if(config, body, members[i]);
    if (json_object_get(body, "name"))
        json_object_set(config, "name", json_object_get(body, "name"));
    char *own = machine_file(host, host_text(doc, "id"), "");
    int ret = patch && host_merge_patch(config, patch)
                  ? host_problem(p, HOST_INVALID, "/config", "nested too deeply")
                  : 0;
    json_object_set(config, "uuid", json_object_get(doc, "id"));
    if (!ret && strcmp(host_text(config, "name"), host_text(doc, "name")))
        ret = host_problem(p, HOST_INVALID, "/config/name", "is the machine's name: change that");
    if (!ret && patch && json_object_get(patch, "networks"))
        keep_macs(base, config);
    if (!ret)
        ret = network_complete_cards(host, config, host_text(doc, "id"), false, p);
    if (!ret)
        ret = own ? machine_check_config(host, who, config, own, p) : -1;
    free(own);
    if (ret || json_equal(config, json_object_get(doc, "config"))) {
        if (!ret)
            json_object_set_new(doc, "pending_config", json_null());
        json_decref(config);
        return ret;
    }
    json_object_set_new(doc, runs ? "pending_config" : "config", config);
    if (!runs)
        json_object_set_new(doc, "pending_config", json_null());
    return 0;
}

static bool touches_config(json_t *body)
{
    static const char *const members[] = {"name", "os", "cpus", "memory", "config"};
    for (unsigned i = 0; i < 5; i++)
        if (json_object_get(body, members[i]))
            return true;
    return false;
}

int machine_change(struct host *host, const struct principal *who, json_t *old, json_t *body,
                   struct host_problem *p)
{
    static const char *const copied[] = {"name", "description", "folder", "tags"};
    struct mull_error err = {0};
    char id[HOST_ID_MAX]; /* of its own: the old document goes when the new one is put */
    snprintf(id, sizeof(id), "%s", host_text(old, "id"));
    struct vm *vm = vm_of(host, id);
    if (may_place(host, who, old, body, p) || machine_is_free(host, old, p))
        return -1;
    if (json_object_get(body, "name") && check_name(host, host_text(body, "name"), id, p))
        return -1;
    if (json_object_get(body, "folder") && check_folder(host_text(body, "folder"), p))
        return -1;
    json_t *doc = json_deep_copy(old);
    for (unsigned i = 0; i < 4; i++)
        set_if(doc, body, copied[i]);
    json_t *autostart = json_object_get(body, "autostart");
    if (autostart)
        json_object_set_new(doc, "autostart",
                            whole_autostart(autostart, json_object_get(old, "autostart")));
    json_object_set_new(doc, "changed", host_now_json());
    json_t *drop = json_object_get(body, "pending_config");
    if (drop)
        json_object_set_new(doc, "pending_config", json_null());
    if (touches_config(body) && change_config(host, who, doc, body, vm_runs(vm), p)) {
        json_decref(doc);
        return -1;
    }
    if (place(host, doc, body, false, p)) {
        json_decref(doc);
        return -1;
    }
    /* A name is what the guest sees of it at the next start; who manages it sees it now. */
    if (store_put(host->store, KIND_MACHINE, id, doc, &err))
        return host_problem_from(p, &err);
    balance_now(host);
    host_changed(host, KIND_MACHINE, id);
    host_event(host, "machine.changed", NULL, host_text(doc, "name"), who->user, "info", NULL,
               "%s was changed", host_text(doc, "name"));
    return 0;
}

json_t *machine_delete(struct host *host, const struct principal *who, json_t *old,
                       const char *disks, struct host_problem *p)
{
    struct mull_error err = {0};
    char id[HOST_ID_MAX];
    snprintf(id, sizeof(id), "%s", host_text(old, "id"));
    struct vm *vm = vm_of(host, id);
    json_t *config = json_object_get(old, "config");
    if (machine_is_free(host, old, p))
        return NULL;
    if (vm_runs(vm)) {
        host_problem(p, HOST_CONFLICT, NULL, "machine %s: runs; stop it first",
                     host_text(old, "name"));
        return NULL;
    }
    if (!disks && json_array_size(json_object_get(config, "disks"))) {
        host_problem(p, HOST_INVALID, NULL,
                     "say disks=delete, or disks=keep to make images of them");
        return NULL;
    }
    bool keep = disks && !strcmp(disks, "keep");
    json_t *doc = json_deep_copy(old);
    json_object_set_new(doc, "_lifecycle", json_string("deleting"));
    json_object_set_new(doc, "_keep", json_boolean(keep));
    if (store_put(host->store, KIND_MACHINE, id, doc, &err)) {
        host_problem_from(p, &err);
        return NULL;
    }
    doc = store_get(host->store, KIND_MACHINE, id);
    json_t *task =
        machine_task(host, who->user, doc, "machine.delete", false, NULL, machine_delete_task, p);
    if (!task) {
        doc = json_deep_copy(doc);
        json_object_set_new(doc, "_lifecycle", json_string("ready"));
        store_put(host->store, KIND_MACHINE, id, doc, NULL);
    }
    host_changed(host, KIND_MACHINE, id);
    return task;
}
