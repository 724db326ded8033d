/*
 * See stores.h.
 */
#include "host/stores.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "host/disks.h"
#include "host/events.h"
#include "host/store/store.h"

#define FILES_MAX 10000

static const char *const folders[] = {"machines", "images", "isos", "templates", "exports"};

static int make_folders(const char *path, struct mull_error *err)
{
    for (unsigned i = 0; i < sizeof(folders) / sizeof(folders[0]); i++) {
        char *folder = host_path(path, "%s", folders[i]);
        int ret = folder ? host_make_folder(folder, 0700) : -ENOMEM;
        if (ret)
            mull_fail(err, -ret, "%s/%s: %s", path, folders[i], strerror(-ret));
        free(folder);
        if (ret)
            return ret;
    }
    return 0;
}

int stores_open(struct host *host, struct mull_error *err)
{
    char id[HOST_ID_MAX];
    int ret = 0;
    if (!json_object_size(store_all(host->store, KIND_DATASTORE))) {
        char *path = host_path(host->places.data, "datastores/default");
        host_uuid(id);
        ret = path ? make_folders(path, err) : -ENOMEM;
        if (!ret)
            ret = store_put(host->store, KIND_DATASTORE, id,
                            json_pack("{s:s, s:s, s:s, s:b}", "id", id, "name", "default", "path",
                                      path, "default", 1),
                            err);
        free(path);
    }
    if (!ret && !json_object_size(store_all(host->store, KIND_NETWORK))) {
        host_uuid(id);
        ret = store_put(host->store, KIND_NETWORK, id,
                        json_pack("{s:s, s:s, s:s, s:n, s:n, s:n, s:b, s:b}", "id", id, "name",
                                  "default", "type", "user", "bridge", "vlan", "subnet", "dhcp", 1,
                                  "dns", 1),
                        err);
    }
    return ret;
}

/* ---- Datastores ---- */

json_t *datastore_find(struct host *host, const char *name)
{
    const char *id;
    json_t *doc;
    if (name) {
        doc = store_get(host->store, KIND_DATASTORE, name);
        return doc ? doc : store_find(host->store, KIND_DATASTORE, "name", name);
    }
    json_object_foreach(store_all(host->store, KIND_DATASTORE), id, doc)
    {
        if (json_is_true(json_object_get(doc, "default")))
            return doc;
    }
    return NULL;
}

static unsigned users_of(struct host *host, enum host_kind kind, const char *member,
                         const char *value)
{
    unsigned n = 0;
    const char *id;
    json_t *doc;
    json_object_foreach(store_all(host->store, kind), id, doc)
    {
        n += !strcmp(host_text(doc, member), value);
    }
    return n;
}

json_t *datastore_render(struct host *host, json_t *doc)
{
    struct statvfs fs;
    json_int_t total = 0, free_bytes = 0;
    if (!statvfs(host_text(doc, "path"), &fs)) {
        total = (json_int_t)(fs.f_blocks * fs.f_frsize);
        free_bytes = (json_int_t)(fs.f_bavail * fs.f_frsize);
    }
    const char *id = host_text(doc, "id");
    return json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:i, s:O}", "id", id, "name",
                     host_text(doc, "name"), "path", host_text(doc, "path"), "total", total, "used",
                     total - free_bytes, "free", free_bytes, "machines",
                     (int)users_of(host, KIND_MACHINE, "datastore", id), "default",
                     json_object_get(doc, "default"));
}

json_t *datastore_create(struct host *host, const char *name, const char *path,
                         struct host_problem *p)
{
    char real[PATH_MAX], id[HOST_ID_MAX];
    struct mull_error err = {0};
    struct stat st;
    if (!host_name_valid(name))
        host_problem(p, HOST_INVALID, "/name", "must be 1 to 63 letters, digits, '-', '_', '.'");
    else if (store_find(host->store, KIND_DATASTORE, "name", name))
        host_problem(p, HOST_CONFLICT, "/name", "datastore %s: is there already", name);
    else if (*path != '/' || !realpath(path, real) || stat(real, &st) || !S_ISDIR(st.st_mode))
        host_problem(p, HOST_INVALID, "/path", "%s: must be the absolute path of a folder", path);
    else if (store_find(host->store, KIND_DATASTORE, "path", real))
        host_problem(p, HOST_CONFLICT, "/path", "%s: is a datastore already", real);
    else if (make_folders(real, &err))
        host_problem(p, HOST_INVALID, "/path", "%s", err.message);
    else {
        host_uuid(id);
        if (!store_put(host->store, KIND_DATASTORE, id,
                       json_pack("{s:s, s:s, s:s, s:b}", "id", id, "name", name, "path", real,
                                 "default", 0),
                       &err)) {
            host_changed(host, KIND_DATASTORE, id);
            return store_get(host->store, KIND_DATASTORE, id);
        }
        host_problem_from(p, &err);
    }
    return NULL;
}

static int clear_default(struct host *host, struct mull_error *err)
{
    json_t *old = datastore_find(host, NULL), *doc = old ? json_deep_copy(old) : NULL;
    if (!doc)
        return 0;
    json_object_set_new(doc, "default", json_false());
    return store_put(host->store, KIND_DATASTORE, host_text(doc, "id"), doc, err);
}

int datastore_change(struct host *host, json_t *old, json_t *body, struct host_problem *p)
{
    struct mull_error err = {0};
    const char *name = host_text(body, "name");
    json_t *other = *name ? store_find(host->store, KIND_DATASTORE, "name", name) : NULL;
    json_t *is_default = json_object_get(body, "default");
    if (*name && !host_name_valid(name))
        return host_problem(p, HOST_INVALID, "/name", "is no name");
    if (other && other != old)
        return host_problem(p, HOST_CONFLICT, "/name", "datastore %s: is there already", name);
    if (json_is_false(is_default) && json_is_true(json_object_get(old, "default")))
        return host_problem(p, HOST_INVALID, "/default", "make another one the default");
    json_t *doc = json_deep_copy(old);
    json_object_update(doc, body);
    int ret = store_begin(host->store, &err);
    if (!ret) {
        if (json_is_true(is_default))
            ret = clear_default(host, &err);
        if (!ret)
            ret = store_put(host->store, KIND_DATASTORE, host_text(doc, "id"), json_incref(doc),
                            &err);
        ret = store_end(host->store, ret, &err);
    }
    if (!ret)
        host_changed(host, KIND_DATASTORE, host_text(doc, "id"));
    json_decref(doc);
    return ret ? host_problem_from(p, &err) : 0;
}

int datastore_delete(struct host *host, json_t *doc, struct host_problem *p)
{
    struct mull_error err = {0};
    char id[HOST_ID_MAX];
    snprintf(id, sizeof(id), "%s", host_text(doc, "id"));
    if (json_is_true(json_object_get(doc, "default")))
        return host_problem(p, HOST_CONFLICT, NULL, "the default datastore cannot be deleted");
    if (users_of(host, KIND_MACHINE, "datastore", id) ||
        users_of(host, KIND_IMAGE, "datastore", id) ||
        users_of(host, KIND_TEMPLATE, "datastore", id))
        return host_problem(p, HOST_CONFLICT, NULL, "machines, images or templates are on it");
    if (store_delete(host->store, KIND_DATASTORE, id, &err))
        return host_problem_from(p, &err);
    host_changed(host, KIND_DATASTORE, id);
    return 0;
}

/* ---- Files ---- */

/* Below the datastore whatever a stranger says: no part is "..", none is a symbolic link. */
static char *inside_path(json_t *doc, const char *inside, struct host_problem *p)
{
    char real[PATH_MAX];
    const char *root = host_text(doc, "path");
    size_t n = strlen(root);
    while (*inside == '/')
        inside++;
    char *path = *inside ? host_path(root, "%s", inside) : strdup(root);
    if (path && realpath(path, real) && !strncmp(real, root, n) &&
        (real[n] == '\0' || real[n] == '/')) {
        free(path);
        return strdup(real);
    }
    free(path);
    host_problem(p, HOST_NOT_FOUND, NULL, "there is no such file in datastore %s",
                 host_text(doc, "name"));
    return NULL;
}

static json_t *used_by(struct host *host, json_t *doc, const char *path)
{
    const char *relative = path + strlen(host_text(doc, "path")), *id;
    char text[128];
    json_t *image;
    if (!strncmp(relative, "/machines/", 10)) {
        snprintf(text, sizeof(text), "machine:%.36s", relative + 10);
        if (strlen(relative) >= 46 && store_get(host->store, KIND_MACHINE, text + 8))
            return json_string(text);
    }
    if (!strncmp(relative, "/templates/", 11)) {
        snprintf(text, sizeof(text), "template:%.36s", relative + 11);
        if (strlen(relative) >= 47 && store_get(host->store, KIND_TEMPLATE, text + 9))
            return json_string(text);
    }
    json_object_foreach(store_all(host->store, KIND_IMAGE), id, image)
    {
        char *own = image_path(host, image);
        bool same = own && !strcmp(own, path);
        free(own);
        if (same) {
            snprintf(text, sizeof(text), "image:%s", id);
            return json_string(text);
        }
    }
    return json_null();
}

json_t *datastore_files(struct host *host, json_t *doc, const char *inside, struct host_problem *p)
{
    char *path = inside_path(doc, inside, p), modified[32];
    DIR *dir = path ? opendir(path) : NULL;
    struct dirent *e;
    if (!dir) {
        if (path)
            host_problem(p, HOST_NOT_FOUND, NULL, "there is no such folder in datastore %s",
                         host_text(doc, "name"));
        free(path);
        return NULL;
    }
    json_t *out = json_array();
    while (json_array_size(out) < FILES_MAX && (e = readdir(dir))) {
        struct stat st;
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..") ||
            fstatat(dirfd(dir), e->d_name, &st, AT_SYMLINK_NOFOLLOW) ||
            (!S_ISDIR(st.st_mode) && !S_ISREG(st.st_mode)))
            continue;
        char *own = host_path(path, "%s", e->d_name);
        host_time((double)st.st_mtim.tv_sec, modified);
        json_t *entry = json_pack("{s:s, s:s, s:I, s:s, s:o}", "name", e->d_name, "kind",
                                  S_ISDIR(st.st_mode) ? "folder" : "file", "size",
                                  (json_int_t)(S_ISDIR(st.st_mode) ? 0 : st.st_size), "modified",
                                  modified, "used_by", own ? used_by(host, doc, own) : json_null());
        if (entry) /* else: a name that is not UTF-8 */
            json_array_append_new(out, entry);
        free(own);
    }
    closedir(dir);
    free(path);
    return out;
}

char *datastore_file(struct host *host, json_t *doc, const char *inside, struct host_problem *p)
{
    char *path = inside_path(doc, inside, p);
    struct stat st;
    if (path && (stat(path, &st) || !S_ISREG(st.st_mode))) {
        host_problem(p, HOST_NOT_FOUND, NULL, "%s: is no file", inside);
        free(path);
        return NULL;
    }
    return path;
}

int datastore_delete_file(struct host *host, json_t *doc, const char *inside,
                          struct host_problem *p)
{
    char *path = datastore_file(host, doc, inside, p);
    if (!path)
        return -1;
    json_t *user = used_by(host, doc, path);
    int ret = 0;
    if (json_is_string(user))
        ret = host_problem(p, HOST_CONFLICT, NULL, "%s: belongs to %s", inside,
                           json_string_value(user));
    else if (unlink(path))
        ret = host_problem(p, HOST_CONFLICT, NULL, "%s: %s", inside, strerror(errno));
    json_decref(user);
    free(path);
    return ret;
}

/* ---- Images ---- */

char *image_path(struct host *host, json_t *doc)
{
    json_t *datastore = store_get(host->store, KIND_DATASTORE, host_text(doc, "datastore"));
    if (!datastore)
        return NULL;
    return host_path(host_text(datastore, "path"), "%s/%s",
                     strcmp(host_text(doc, "kind"), "iso") ? "images" : "isos",
                     host_text(doc, "_file"));
}

/* A copy of @doc with what its file is. */
static json_t *described(struct host *host, json_t *doc, struct mull_error *err)
{
    char *path = image_path(host, doc);
    json_t *what = path ? disk_describe(path, NULL, true, err) : NULL;
    json_t *ready = what ? json_deep_copy(doc) : NULL;
    if (ready) {
        json_object_update(ready, what);
        json_object_set_new(ready, "state", json_string("ready"));
    }
    json_decref(what);
    free(path);
    return ready;
}

int image_adopt(struct host *host, const char *name, const char *kind, const char *from,
                const char *datastore, const char *os, struct host_problem *p)
{
    struct mull_error err = {0};
    char file[HOST_NAME_MAX + 16];
    const char *dot = strrchr(from, '.');
    if (!strcmp(kind, "iso"))
        dot = ".iso";
    else if (!dot || strchr(dot, '/') || strlen(dot) > 8)
        dot = ".img";
    snprintf(file, sizeof(file), "%s%s", name, dot);
    /* The row comes first, so that the file is never nobody's. */
    json_t *doc =
        json_pack("{s:s, s:s, s:s, s:o, s:s, s:i, s:i, s:s, s:n, s:o, s:s}", "name", name, "kind",
                  kind, "state", "creating", "os", os && *os ? json_string(os) : json_null(),
                  "format", "raw", "capacity", 0, "size", 0, "datastore", datastore, "sha256",
                  "created", host_now_json(), "_file", file);
    if (!doc || store_put(host->store, KIND_IMAGE, name, doc, &err))
        return host_problem_from(p, &err);
    doc = store_get(host->store, KIND_IMAGE, name);
    char *to = image_path(host, doc);
    int ret = !to ? -ENOENT : !access(to, F_OK) ? -EEXIST : rename(from, to) ? -errno : 0;
    json_t *ready = NULL;
    if (ret)
        mull_fail(&err, -ret, "%s: %s", to ? to : name, strerror(-ret));
    else if (!(ready = described(host, doc, &err)) ||
             store_put(host->store, KIND_IMAGE, name, ready, &err)) {
        ret = -1;
        if (rename(to, from))
            unlink(to);
    }
    free(to);
    if (ret) {
        store_delete(host->store, KIND_IMAGE, name, NULL);
        return host_problem_from(p, &err);
    }
    host_changed(host, KIND_IMAGE, name);
    return 0;
}

int image_delete(struct host *host, json_t *doc, struct host_problem *p)
{
    struct mull_error err = {0};
    char name[HOST_NAME_MAX];
    char *path = image_path(host, doc);
    const char *id;
    json_t *machine;
    snprintf(name, sizeof(name), "%s", host_text(doc, "name"));
    int ret = path ? 0 : host_problem(p, HOST_CONFLICT, NULL, "its datastore is not known");
    json_object_foreach(store_all(host->store, KIND_MACHINE), id, machine)
    {
        char *config = json_dumps(json_object_get(machine, "config"), JSON_COMPACT);
        if (!ret && config && strstr(config, path))
            ret = host_problem(p, HOST_CONFLICT, NULL, "image %s: machine %s has it", name,
                               host_text(machine, "name"));
        free(config);
    }
    if (!ret) {
        json_t *leaving = json_deep_copy(doc);
        json_object_set_new(leaving, "state", json_string("deleting"));
        ret = store_put(host->store, KIND_IMAGE, name, leaving, &err);
        if (!ret && unlink(path) && errno != ENOENT)
            ret = mull_fail(&err, errno, "%s: %s", path, strerror(errno));
        if (!ret)
            ret = store_delete(host->store, KIND_IMAGE, name, &err);
        if (ret)
            host_problem_from(p, &err);
        else
            host_changed(host, KIND_IMAGE, name);
    }
    free(path);
    return ret ? -1 : 0;
}

static void remove_entry(const char *folder, const char *name)
{
    char *path = host_path(folder, "%s", name);
    if (path)
        host_remove_tree(path);
    free(path);
}

/* ".UUID.qcow2" or ".UUID.export" at a datastore's top: an import or an export that was being made.
 */
static void remove_unfinished(json_t *datastore)
{
    DIR *dir = opendir(host_text(datastore, "path"));
    struct dirent *e;
    while (dir && (e = readdir(dir))) {
        size_t n = strlen(e->d_name);
        if (e->d_name[0] == '.' && n > HOST_ID_MAX && e->d_name[9] == '-' && e->d_name[37] == '.')
            remove_entry(host_text(datastore, "path"), e->d_name);
    }
    if (dir)
        closedir(dir);
}

void stores_recover(struct host *host)
{
    const char *id;
    json_t *datastore;
    json_object_foreach(store_all(host->store, KIND_DATASTORE), id, datastore)
    {
        remove_unfinished(datastore);
    }
    json_t *all = json_copy(store_all(host->store, KIND_IMAGE)), *doc;
    const char *name;
    json_object_foreach(all, name, doc)
    {
        struct mull_error err = {0};
        const char *state = host_text(doc, "state");
        if (!strcmp(state, "ready"))
            continue;
        char *path = image_path(host, doc);
        json_t *ready = !strcmp(state, "creating") ? described(host, doc, &err) : NULL;
        int ret;
        if (ready) {
            ret = store_put(host->store, KIND_IMAGE, name, ready, &err);
        } else {
            if (path)
                unlink(path);
            ret = store_delete(host->store, KIND_IMAGE, name, &err);
        }
        if (ret)
            mull_log(&host->log, MULL_LOG_ERROR, "image %s: %s", name, err.message);
        free(path);
    }
    json_decref(all);
}
