/*
 * See transfers.h. An upload is a folder UPLOADS/ID with one file, as long as what has come: the
 * file's size is the truth of the offset. Exports lie in EXPORTS/ID until they expire.
 */
#include "host/transfers.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <gnutls/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "host/disks.h"
#include "host/events.h"
#include "host/fetch.h"
#include "host/machines.h"
#include "host/networks.h"
#include "host/store/store.h"
#include "host/stores.h"
#include "machine/appliance/package.h"

#define SPARE_BYTES (64ull << 20) /* that stay free */

static char *upload_file(struct host *host, const json_t *doc)
{
    return host_path(host->places.data, "uploads/%s/%s", host_text(doc, "id"),
                     host_text(doc, "_file"));
}

static uint64_t file_size(const char *path)
{
    struct stat st;
    return path && !stat(path, &st) ? (uint64_t)st.st_size : 0;
}

static uint64_t room(const char *folder)
{
    struct statvfs fs;
    return statvfs(folder, &fs) ? 0 : (uint64_t)fs.f_bavail * fs.f_frsize;
}

json_t *transfer_expires(double hours)
{
    char text[32];
    host_time(host_now() + hours * 3600, text);
    return json_string(text);
}

/* ---- Uploads ---- */

json_t *upload_render(struct host *host, json_t *doc)
{
    char *path = upload_file(host, doc);
    json_t *o =
        json_pack("{s:O, s:O, s:I, s:O, s:O, s:O}", "id", json_object_get(doc, "id"), "name",
                  json_object_get(doc, "name"), "offset", (json_int_t)file_size(path), "size",
                  json_object_get(doc, "size"), "sha256", json_object_get(doc, "sha256"), "expires",
                  json_object_get(doc, "expires"));
    free(path);
    return o;
}

/* The name's end tells formats apart; the rest of it is a stranger's. */
static void safe_name(const char *name, char out[80])
{
    size_t n = strlen(name), at = 0;
    if (n > 60)
        name += n - 60;
    out[at++] = 'u';
    out[at++] = '-';
    for (; *name && at < 70; name++)
        out[at++] = isalnum((unsigned char)*name) || strchr("._-", *name) ? *name : '_';
    out[at] = '\0';
}

json_t *upload_create(struct host *host, const struct principal *who, json_t *body,
                      struct host_problem *p)
{
    char id[HOST_ID_MAX], file[80];
    struct mull_error err = {0};
    json_int_t size = json_integer_value(json_object_get(body, "size"));
    json_t *sha = json_object_get(body, "sha256");
    uint64_t promised = 0;
    const char *other;
    json_t *doc;
    json_object_foreach(store_all(host->store, KIND_UPLOAD), other, doc)
    {
        char *path = upload_file(host, doc);
        promised += (uint64_t)json_integer_value(json_object_get(doc, "size")) - file_size(path);
        free(path);
    }
    if (json_object_size(store_all(host->store, KIND_UPLOAD)) >= UPLOADS_MAX) {
        host_problem(p, HOST_CONFLICT, NULL, "%d uploads are under way already", UPLOADS_MAX);
        return NULL;
    }
    if ((uint64_t)size + promised + SPARE_BYTES > room(host->places.data)) {
        host_problem(p, HOST_NO_SPACE, "/size", "there is no room for %lld bytes", (long long)size);
        return NULL;
    }
    host_uuid(id);
    safe_name(host_text(body, "name"), file);
    doc =
        json_pack("{s:s, s:s, s:I, s:o, s:o, s:s, s:s}", "id", id, "name", host_text(body, "name"),
                  "size", size, "sha256", sha ? json_incref(sha) : json_null(), "expires",
                  transfer_expires(UPLOAD_HOURS), "user", who->user, "_file", file);
    char *folder = host_path(host->places.data, "uploads/%s", id);
    int ret = folder ? store_put(host->store, KIND_UPLOAD, id, doc, &err) : -ENOMEM;
    if (!ret && (ret = host_make_folder(folder, 0700))) {
        mull_fail(&err, -ret, "uploads: %s", strerror(-ret));
        store_delete(host->store, KIND_UPLOAD, id, NULL);
    }
    free(folder);
    if (ret)
        host_problem_from(p, &err);
    return ret ? NULL : store_get(host->store, KIND_UPLOAD, id);
}

int upload_open(struct host *host, json_t *doc, uint64_t offset, struct host_problem *p)
{
    char *path = upload_file(host, doc);
    int fd = path ? open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600) : -1;
    free(path);
    if (fd < 0)
        return host_problem_from(p, &(struct mull_error){.code = errno});
    struct stat st;
    if (flock(fd, LOCK_EX | LOCK_NB)) {
        close(fd);
        return host_problem(p, HOST_CONFLICT, NULL, "somebody is at this upload");
    }
    if (fstat(fd, &st) || (uint64_t)st.st_size != offset) {
        close(fd);
        return host_problem(p, HOST_CONFLICT, NULL, "Upload-Offset: %lld bytes are here",
                            (long long)st.st_size);
    }
    lseek(fd, 0, SEEK_END);
    return fd;
}

void upload_close(struct host *host, const char *id, int fd)
{
    close(fd);
    json_t *old = store_get(host->store, KIND_UPLOAD, id);
    if (!old)
        return;
    json_t *doc = json_deep_copy(old);
    json_object_set_new(doc, "expires", transfer_expires(UPLOAD_HOURS));
    store_put_memory(host->store, KIND_UPLOAD, id, doc);
}

int upload_delete(struct host *host, json_t *doc, struct host_problem *p)
{
    struct mull_error err = {0};
    char *folder = host_path(host->places.data, "uploads/%s", host_text(doc, "id"));
    int ret = folder ? host_remove_tree(folder) : -ENOMEM;
    char id[HOST_ID_MAX];
    snprintf(id, sizeof(id), "%s", host_text(doc, "id"));
    free(folder);
    if (ret)
        return host_problem(p, HOST_INTERNAL, NULL, "upload: %s", strerror(-ret));
    return store_delete(host->store, KIND_UPLOAD, id, &err) ? host_problem_from(p, &err) : 0;
}

char *export_folder(struct host *host, const char *id)
{
    return host_path(host->places.data, "exports/%s", id);
}

static void expire_kind(struct host *host, enum host_kind kind)
{
    json_t *all = json_copy(store_all(host->store, kind)), *doc;
    const char *id;
    struct host_problem p;
    json_object_foreach(all, id, doc)
    {
        if (host_time_parse(host_text(doc, "expires")) > host_now() ||
            json_is_true(json_object_get(doc, "_busy")))
            continue;
        if (kind == KIND_UPLOAD) {
            upload_delete(host, doc, &p);
            continue;
        }
        char *folder = export_folder(host, id);
        if (folder && !host_remove_tree(folder))
            store_delete(host->store, kind, id, NULL);
        free(folder);
    }
    json_decref(all);
}

void transfers_expire(struct host *host)
{
    expire_kind(host, KIND_UPLOAD);
    expire_kind(host, KIND_DOWNLOAD);
}

/* ---- Imports ---- */

int transfer_step(void *opaque, const char *what, uint64_t done, uint64_t total)
{
    return task_progress(opaque, what, done, total);
}

static int check_digest(struct task *task, const char *path, const char *wanted,
                        struct host_problem *p)
{
    gnutls_hash_hd_t hash;
    uint8_t digest[32];
    char have[65], *buf = malloc(1u << 20);
    uint64_t done = 0, total = file_size(path);
    int fd = open(path, O_RDONLY | O_CLOEXEC), ret = 0;
    if (fd < 0 || !buf || gnutls_hash_init(&hash, GNUTLS_DIG_SHA256)) {
        if (fd >= 0)
            close(fd);
        free(buf);
        return host_problem(p, HOST_INTERNAL, NULL, "%s: cannot be read", path);
    }
    ssize_t n;
    while (!ret && (n = read(fd, buf, 1u << 20)) > 0) {
        gnutls_hash(hash, buf, (size_t)n);
        done += (uint64_t)n;
        ret = task_progress(task, "checking the digest", done, total);
    }
    gnutls_hash_deinit(hash, digest);
    close(fd);
    free(buf);
    host_hex(digest, sizeof(digest), have);
    if (ret)
        return host_problem(p, HOST_CONFLICT, NULL, "cancelled");
    if (strcasecmp(have, wanted))
        return host_problem(p, HOST_INVALID, "/upload",
                            "its SHA-256 is %s, not what was promised: upload it again", have);
    return 0;
}

struct imported {
    json_t *config;
    const char *name;
};

static void take_import(json_t *doc, void *opaque)
{
    struct imported *i = opaque;
    json_object_set_new(i->config, "name", json_string(host_text(doc, "name")));
    json_object_set(i->config, "uuid", json_object_get(doc, "id"));
    json_object_del(i->config, "consoles");
    json_object_del(i->config, "display");
    json_object_set(doc, "config", i->config);
    json_object_set_new(doc, "_lifecycle", json_string("ready"));
}

json_t *transfer_report(const struct mull_report *r)
{
    json_t *list = json_array();
    for (unsigned i = 0; i < r->count; i++) {
        json_t *note = json_pack("{s:s, s:s, s:s}", "kind", mull_note_name(r->note[i].kind), "item",
                                 r->note[i].item, "text", r->note[i].text);
        if (note)
            json_array_append_new(list, note);
    }
    return list;
}

/* The cards of what comes from elsewhere go to the network that was asked for. */
static void connect_cards(json_t *config, const char *network)
{
    json_t *card;
    size_t i;
    json_array_foreach(json_object_get(config, "networks"), i, card)
    {
        json_object_set_new(card, "type", json_string("user"));
        json_object_set_new(card, "name", json_string(network));
        json_object_del(card, "interface");
    }
}

static int import_appliance(struct task *task, const char *source, struct host_problem *p)
{
    struct host *host = task->host;
    struct mull_error err = {0};
    const char *id = host_text(task->args, "machine");
    host_lock(host);
    char *own = machine_file(host, id, "");
    host_unlock(host);
    char *into = own ? strdup(own) : NULL, *text = NULL;
    if (into)
        *strrchr(into, '/') = '\0';
    struct mull_import *import = calloc(1, sizeof(*import));
    int ret = -1;
    if (!import || !into) {
        host_problem(p, HOST_INTERNAL, NULL, "no memory");
    } else {
        *import = (struct mull_import){
            .source = source,
            .into = into,
            .name = id,
            .accept_licences = json_is_true(json_object_get(task->args, "accept_licences")),
            .progress = transfer_step,
            .opaque = task,
            .log = &host->log};
        ret = mull_import(import, &err);
        if (ret == -EACCES && import->appliance.licence_count)
            host_problem(p, HOST_CONFLICT, "/accept_licences",
                         "the appliance has a licence to accept first: %.300s",
                         import->appliance.licence[0]);
        else if (ret)
            host_problem_from(p, &err);
    }
    if (!ret) {
        text = host_read_file(import->config_path, 1u << 20, NULL, &err);
        struct imported made = {.config = text ? json_loads(text, 0, NULL) : NULL};
        connect_cards(made.config, host_text(task->args, "network"));
        host_lock(host);
        ret = made.config ? network_complete_cards(host, made.config, id, true, p)
                          : host_problem(p, HOST_INTERNAL, NULL, "%s", err.message);
        if (!ret)
            ret = machine_update(host, id, take_import, &made, p);
        json_t *doc = store_get(host->store, KIND_MACHINE, id);
        host_event(host, "machine.imported", NULL, host_text(doc, "name"), task->user, "info", NULL,
                   "%s was imported", host_text(doc, "name"));
        host_unlock(host);
        char object[HOST_NAME_MAX + 16];
        snprintf(object, sizeof(object), "machine:%s", id);
        task->result = json_pack("{s:s, s:b, s:o}", "object", object, "verified", import->verified,
                                 "report", transfer_report(&import->appliance.report));
        json_decref(made.config);
    }
    if (import)
        mull_import_free(import);
    free(import);
    free(text);
    if (ret && own)
        host_remove_tree(own);
    if (ret) {
        host_lock(host);
        if (!store_delete(host->store, KIND_MACHINE, id, NULL))
            vm_forget(host, id);
        host_changed(host, KIND_MACHINE, id);
        host_unlock(host);
    }
    free(own);
    free(into);
    return ret;
}

int transfer_take_disk(struct task *task, const char *source, const char *made, bool iso,
                       struct host_problem *p)
{
    struct mull_error err = {0};
    json_t *what = disk_describe(source, NULL, true, &err);
    int ret = what ? disk_make(task, made, iso ? "raw" : "qcow2", 0, source,
                               iso ? "raw" : host_text(what, "format"), &err)
                   : -1;
    json_decref(what);
    if (ret)
        unlink(made);
    return ret ? host_problem_from(p, &err) : 0;
}

static int import_image(struct task *task, const char *source, struct host_problem *p)
{
    struct host *host = task->host;
    const char *name = host_text(task->args, "name"), *kind = host_text(task->args, "kind");
    bool iso = !strcmp(kind, "iso");
    host_lock(host);
    json_t *datastore = store_get(host->store, KIND_DATASTORE, host_text(task->args, "datastore"));
    char *made = datastore ? host_path(host_text(datastore, "path"), ".%s.%s", task->id,
                                       iso ? "iso" : "qcow2")
                           : NULL;
    host_unlock(host);
    int ret = made ? 0 : host_problem(p, HOST_NOT_FOUND, NULL, "the datastore is gone");
    if (!ret)
        ret = transfer_take_disk(task, source, made, iso, p);
    if (!ret) {
        host_lock(host);
        ret = image_adopt(host, name, iso ? "iso" : "image", made, host_text(datastore, "id"),
                          host_text(task->args, "os"), p);
        if (!ret)
            host_event(host, "image.imported", NULL, name, task->user, "info", NULL,
                       "%s %s was imported", kind, name);
        host_unlock(host);
        char object[160];
        snprintf(object, sizeof(object), "image:%s", name);
        task->result = json_pack("{s:s}", "object", object);
    }
    if (ret && made)
        unlink(made);
    free(made);
    return ret;
}

/* A disk of a machine's own: the row comes after the file, which is nobody's until then. */
static int import_disk(struct task *task, const char *source, struct host_problem *p)
{
    struct host *host = task->host;
    json_t *disk = json_object_get(task->args, "disk");
    host_lock(host);
    char *path = machine_file(host, task->object_id, host_text(disk, "path"));
    json_t *machine = store_get(host->store, KIND_MACHINE, task->object_id);
    json_t *datastore = store_get(host->store, KIND_DATASTORE, host_text(machine, "datastore"));
    char *made = datastore ? host_path(host_text(datastore, "path"), ".%s.qcow2", task->id) : NULL;
    host_unlock(host);
    int ret = path && made ? transfer_take_disk(task, source, made, false, p)
                           : host_problem(p, HOST_NOT_FOUND, NULL, "the machine is gone");
    if (!ret && rename(made, path)) {
        ret = host_problem_from(p, &(struct mull_error){.code = errno});
        unlink(made);
    }
    free(made);
    if (!ret) {
        host_lock(host);
        ret = disk_append(host, task->object_id, disk, p);
        host_unlock(host);
        if (ret)
            unlink(path);
        char object[HOST_NAME_MAX + 16];
        snprintf(object, sizeof(object), "machine:%s", task->object_id);
        task->result =
            json_pack("{s:s, s:s}", "object", object, "disk", host_text(task->args, "name"));
    }
    free(path);
    return ret;
}

/* What must have a digest is fetched whole before anything of it is used.
 * @return the file, malloc'ed; NULL with @p */
static char *fetch_source(struct task *task, const char *url, const char *wanted,
                          struct host_problem *p)
{
    struct host *host = task->host;
    struct mull_error err = {0};
    char have[65];
    host_lock(host);
    json_t *datastore = datastore_find(host, host_text(task->args, "datastore"));
    char *to = datastore ? host_path(host_text(datastore, "path"), ".%s.fetched", task->id) : NULL;
    host_unlock(host);
    if (!to) {
        host_problem(p, HOST_NOT_FOUND, NULL, "the datastore is gone");
        return NULL;
    }
    int ret = host_fetch(task, "fetching it", url, to, INT64_MAX, have, &err);
    if (ret) {
        host_problem_from(p, &err);
    } else if (strcasecmp(have, wanted)) {
        ret = host_problem(p, HOST_CONFLICT, NULL,
                           "%s: its SHA-256 is %s, not what was asked for: nothing of it is kept",
                           url, have);
        unlink(to);
    }
    if (ret) {
        free(to);
        return NULL;
    }
    return to;
}

static int import_task(struct task *task, struct host_problem *p)
{
    struct host *host = task->host;
    const char *upload = host_text(task->args, "upload"), *sha = host_text(task->args, "sha256");
    const char *source = host_text(task->args, "source"), *kind = host_text(task->args, "kind");
    bool appliance = !strcmp(kind, "appliance"), disk = !strcmp(kind, "disk");
    char *fetched = *sha && !*upload ? fetch_source(task, source, sha, p) : NULL;
    int ret = *upload && *sha ? check_digest(task, source, sha, p) : *sha && !fetched ? -1 : 0;
    if (fetched)
        source = fetched;
    if (ret && appliance) {
        host_lock(host);
        if (!store_delete(host->store, KIND_MACHINE, host_text(task->args, "machine"), NULL))
            host_changed(host, KIND_MACHINE, host_text(task->args, "machine"));
        host_unlock(host);
    }
    if (!ret)
        ret = appliance ? import_appliance(task, source, p)
              : disk    ? import_disk(task, source, p)
                        : import_image(task, source, p);
    if (*upload) {
        host_lock(host);
        json_t *doc = store_get(host->store, KIND_UPLOAD, upload);
        struct host_problem ignored;
        if (doc && !ret)
            upload_delete(host, doc, &ignored);
        else if (doc)
            json_object_del(doc, "_busy");
        host_unlock(host);
    }
    if (fetched)
        unlink(fetched);
    free(fetched);
    return ret;
}

/* Where it comes from: {source, upload, sha256} into @args. */
static int find_source(struct host *host, const struct principal *who, json_t *body, json_t *args,
                       struct host_problem *p)
{
    const char *upload = host_text(body, "upload"), *path = host_text(body, "path");
    const char *url = host_text(body, "url");
    json_t *file = json_object_get(body, "file");
    if ((*upload != 0) + (*path != 0) + (*url != 0) + (file != NULL) != 1)
        return host_problem(p, HOST_INVALID, NULL, "give one of upload, file, path and url");
    if (file) { /* of a datastore, which an operator may download, too */
        json_t *datastore = datastore_find(host, host_text(file, "datastore"));
        if (!datastore || !auth_sees(host, who, KIND_DATASTORE, host_text(datastore, "id")))
            return host_problem(p, HOST_INVALID, "/file/datastore", "datastore %s: there is none",
                                host_text(file, "datastore"));
        char *inside = datastore_file(host, datastore, host_text(file, "path"), p);
        if (!inside)
            return host_problem(p, HOST_INVALID, "/file/path", "there is no such file");
        json_object_set_new(args, "source", json_string(inside));
        free(inside);
        return 0;
    }
    if (!*upload) {
        if (who->role != ROLE_ADMINISTRATOR)
            return host_problem(p, HOST_FORBIDDEN, *path ? "/path" : "/url",
                                "only administrators may name files of the host and URLs");
        if (*path && *path != '/')
            return host_problem(p, HOST_INVALID, "/path", "must be absolute");
        if (*url && strncmp(url, "http://", 7) && strncmp(url, "https://", 8))
            return host_problem(p, HOST_INVALID, "/url", "must be http: or https:");
        if (*host_text(body, "sha256") && !*url)
            return host_problem(p, HOST_INVALID, "/sha256", "is for a url; an upload has its own");
        json_object_set_new(args, "source", json_string(*path ? path : url));
        json_object_set(args, "sha256", json_object_get(body, "sha256"));
        return 0;
    }
    json_t *doc = store_get(host->store, KIND_UPLOAD, upload);
    if (!doc || !auth_sees(host, who, KIND_UPLOAD, upload))
        return host_problem(p, HOST_INVALID, "/upload", "there is no such upload");
    char *name = upload_file(host, doc);
    bool whole = file_size(name) == (uint64_t)json_integer_value(json_object_get(doc, "size"));
    int ret = 0;
    if (!whole)
        ret = host_problem(p, HOST_CONFLICT, "/upload", "it is not complete");
    else if (json_is_true(json_object_get(doc, "_busy")))
        ret = host_problem(p, HOST_CONFLICT, "/upload", "it is being imported already");
    else {
        json_object_set_new(args, "source", json_string(name));
        json_object_set(args, "upload", json_object_get(doc, "id"));
        json_object_set(args, "sha256", json_object_get(doc, "sha256"));
    }
    free(name);
    return ret;
}

/* Nobody else imports or deletes it meanwhile. */
static void take_upload(struct host *host, json_t *args)
{
    json_t *upload = store_get(host->store, KIND_UPLOAD, host_text(args, "upload"));
    if (upload)
        json_object_set_new(upload, "_busy", json_true());
}

static json_t *start_task(struct host *host, const struct principal *who, const char *type,
                          enum host_kind kind, const char *id, const char *name, json_t *args,
                          struct host_problem *p)
{
    struct task_request request = {.type = type,
                                   .kind = kind,
                                   .object_id = id,
                                   .object_name = name,
                                   .user = who->user,
                                   .cancellable = true,
                                   .args = json_incref(args),
                                   .fn = import_task};
    json_t *task = task_start(host, &request, p);
    if (task)
        take_upload(host, args);
    return task;
}

/* A disk for a machine that does not run. */
static json_t *start_disk(struct host *host, const struct principal *who, json_t *body,
                          json_t *args, struct host_problem *p)
{
    const char *id = host_text(body, "machine"), *bus = host_text(body, "bus");
    json_t *machine = store_get(host->store, KIND_MACHINE, id);
    if (!machine || auth_role_on(host, who, KIND_MACHINE, machine) < ROLE_OPERATOR) {
        host_problem(p, HOST_INVALID, "/machine",
                     *id ? "machine %s: there is none" : "say which machine gets the disk%s", id);
        return NULL;
    }
    json_t *disk = disk_new(host, machine, "qcow2", bus, p);
    if (!disk)
        return NULL;
    json_object_set_new(args, "disk", disk);
    json_t *task = machine_task(host, who->user, machine, "import.disk", true, json_incref(args),
                                import_task, p);
    if (task)
        take_upload(host, args);
    return task;
}

static json_t *start_appliance(struct host *host, const struct principal *who, const char *name,
                               json_t *datastore, json_t *args, struct host_problem *p)
{
    char id[HOST_ID_MAX];
    struct mull_error err = {0};
    if (store_find(host->store, KIND_MACHINE, "name", name)) {
        host_problem(p, HOST_CONFLICT, "/name", "machine %s: is there already", name);
        return NULL;
    }
    host_uuid(id);
    json_object_set_new(args, "machine", json_string(id));
    json_t *doc = json_pack(
        "{s:s, s:s, s:s, s:s, s:[], s:{s:b, s:i, s:i}, s:s, s:o, s:o, s:n, s:{s:s}, s:n, s:s}",
        "id", id, "name", name, "description", "", "folder", "/", "tags", "autostart", "enabled", 0,
        "order", 0, "delay", 0, "datastore", host_text(datastore, "id"), "created", host_now_json(),
        "changed", host_now_json(), "started", "config", "name", name, "pending_config",
        "_lifecycle", "creating");
    if (!doc || store_put(host->store, KIND_MACHINE, id, doc, &err)) {
        host_problem_from(p, &err);
        return NULL;
    }
    json_t *task = start_task(host, who, "import.appliance", KIND_MACHINE, id, name, args, p);
    struct vm *vm = vm_of(host, id);
    if (task && vm)
        snprintf(vm->task, sizeof(vm->task), "%s", host_text(task, "id"));
    else if (!task)
        store_delete(host->store, KIND_MACHINE, id, NULL);
    host_changed(host, KIND_MACHINE, id);
    return task;
}

/* A name for what has none: the source's, without what names may not hold. */
static void name_of(json_t *body, const char *source, char out[HOST_NAME_MAX])
{
    const char *given = host_text(body, "name"), *slash = strrchr(source, '/');
    size_t n = 0;
    if (*given) {
        snprintf(out, HOST_NAME_MAX, "%s", given);
        return;
    }
    source = slash ? slash + 1 : source;
    if (!strncmp(source, "u-", 2))
        source += 2;
    const char *end = strrchr(source, '.');
    for (; *source && source != end && n < 60; source++)
        if (isalnum((unsigned char)*source) || (strchr("_-.", *source) && n))
            out[n++] = *source;
    out[n] = '\0';
    if (!n)
        strcpy(out, "imported");
}

json_t *import_start(struct host *host, const struct principal *who, json_t *body,
                     struct host_problem *p)
{
    char name[HOST_NAME_MAX];
    const char *kind = host_text(body, "kind"), *wanted = host_text(body, "datastore");
    const char *network = host_text(body, "network");
    json_t *datastore = datastore_find(host, *wanted ? wanted : NULL), *task = NULL;
    json_t *args = json_object();
    network = *network ? network : "default";
    if (!datastore)
        host_problem(p, HOST_INVALID, "/datastore", "datastore %s: there is none", wanted);
    else if (!store_find(host->store, KIND_NETWORK, "name", network) &&
             !store_get(host->store, KIND_NETWORK, network))
        host_problem(p, HOST_INVALID, "/network", "network %s: there is none", network);
    else if (!find_source(host, who, body, args, p)) {
        json_t *net = store_get(host->store, KIND_NETWORK, network);
        name_of(body, host_text(args, "source"), name);
        json_object_set_new(args, "name", json_string(name));
        json_object_set_new(args, "kind", json_string(kind));
        json_object_set_new(args, "network", json_string(net ? host_text(net, "name") : network));
        json_object_set(args, "datastore", json_object_get(datastore, "id"));
        if (json_is_true(json_object_get(body, "accept_licences")))
            json_object_set_new(args, "accept_licences", json_true());
        if (!host_name_valid(name))
            host_problem(p, HOST_INVALID, "/name", "is no name");
        else if (!strcmp(kind, "disk"))
            task = start_disk(host, who, body, args, p);
        else if (!strcmp(kind, "appliance"))
            task = start_appliance(host, who, name, datastore, args, p);
        else if (store_get(host->store, KIND_IMAGE, name))
            host_problem(p, HOST_CONFLICT, "/name", "image %s: is there already", name);
        else
            task = start_task(host, who, "import.image", KIND_IMAGE, name, name, args, p);
    }
    json_decref(args);
    return task;
}

/* ---- Downloads ---- */

char *download_path(struct host *host, json_t *doc, const char **name)
{
    *name = host_text(doc, "file");
    return host_path(host->places.data, "exports/%s/%s", host_text(doc, "id"), *name);
}
