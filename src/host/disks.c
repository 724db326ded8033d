/*
 * See disks.h.
 */
#include "host/disks.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <vmhi/image.h>

#include "host/events.h"
#include "host/store/store.h"
#include "host/stores.h"
#include "machine/config.h"

static int take(struct mull_error *err, int ret, const struct vmhi_error *why)
{
    return ret ? mull_fail(err, -ret, "%s", *why->message ? why->message : strerror(-ret)) : 0;
}

struct copying {
    struct task *task;
    const char *what;
};

static int copied(void *opaque, uint64_t done, uint64_t total)
{
    struct copying *c = opaque;
    return c->task ? task_progress(c->task, c->what, done, total) : 0;
}

int disk_make(struct task *task, const char *path, const char *format, uint64_t capacity,
              const char *from, const char *from_format, struct mull_error *err)
{
    struct vmhi_error why = {0};
    struct vmhi_image_options to = {
        .size = sizeof(to), .path = path, .format = format, .disk_size = capacity};
    if (!from)
        return take(err, vmhi_image_create(&to, &why), &why);
    struct vmhi_image_options source = {
        .size = sizeof(source), .path = from, .format = from_format, .flags = VMHI_IMAGE_READONLY};
    struct vmhi_image *image = NULL;
    int ret = vmhi_image_open(&source, &image, &why);
    struct vmhi_image_info info = {.size = sizeof(info)};
    if (!ret)
        ret = vmhi_image_get_info(image, &info);
    struct copying c = {task, "copying the disk"};
    if (!ret) {
        to.disk_size = info.disk_size;
        ret = vmhi_image_convert(image, &to, 0, copied, &c, &why);
    }
    if (image)
        vmhi_image_close(image);
    if (!ret && capacity > info.disk_size) {
        struct vmhi_image_options grown = {.size = sizeof(grown), .path = path, .format = format};
        ret = vmhi_image_open(&grown, &image, &why);
        if (!ret) {
            ret = vmhi_image_resize(image, capacity, &why);
            int closed = vmhi_image_close(image);
            ret = ret ? ret : closed;
        }
    }
    return take(err, ret, &why);
}

json_t *disk_describe(const char *path, const char *format, bool alone, struct mull_error *err)
{
    struct vmhi_error why = {0};
    struct vmhi_image_options options = {.size = sizeof(options),
                                         .path = path,
                                         .format = format,
                                         .flags = VMHI_IMAGE_READONLY | VMHI_IMAGE_NO_LOCK};
    if (alone)
        options.flags |= VMHI_IMAGE_NO_BACKING;
    struct vmhi_image_info info = {.size = sizeof(info)};
    struct vmhi_image *image = NULL;
    struct stat st = {0};
    json_t *out = NULL;
    if (!strstr(path, "://") && stat(path, &st)) {
        mull_fail(err, errno, "%s: %s", path, strerror(errno));
        return NULL;
    }
    int ret = vmhi_image_open(&options, &image, &why);
    if (!ret)
        ret = vmhi_image_get_info(image, &info);
    if (!ret && alone && info.backing)
        ret = mull_fail(err, EINVAL,
                        "the image stands on another one, %s, which is not there; flatten it first",
                        info.backing);
    else if (ret)
        take(err, ret, &why);
    if (!ret)
        out = json_pack("{s:s, s:I, s:I}", "format", info.format, "capacity",
                        (json_int_t)info.disk_size, "size", (json_int_t)st.st_blocks * 512);
    if (image)
        vmhi_image_close(image);
    return out;
}

/* ---- A machine's disks ---- */

static char *disk_path(struct host *host, json_t *machine, json_t *disk)
{
    const char *path = host_text(disk, "path");
    return *path == '/' ? strdup(path) : machine_file(host, host_text(machine, "id"), path);
}

static json_t *disk_of(json_t *machine, int index)
{
    return json_array_get(json_object_get(json_object_get(machine, "config"), "disks"),
                          (size_t)index);
}

int disk_index(json_t *machine, const char *name)
{
    int index;
    char end;
    if (sscanf(name, "disk%d%c", &index, &end) != 1 || index < 0 || !disk_of(machine, index))
        return -1;
    return index;
}

static json_t *render(struct host *host, json_t *machine, json_t *disk, size_t index)
{
    char name[32];
    char *path = disk_path(host, machine, disk);
    const char *format = json_string_value(json_object_get(disk, "format"));
    const char *bus = json_string_value(json_object_get(disk, "bus"));
    json_t *what = path ? disk_describe(path, format, true, NULL) : NULL;
    /* One that has a backing file is described all the same. */
    if (path && !what)
        what = disk_describe(path, format, false, NULL);
    struct stat st = {0};
    if (path)
        stat(path, &st);
    snprintf(name, sizeof(name), "disk%zu", index);
    json_t *capacity = json_object_get(what, "capacity");
    json_t *o = json_pack(
        "{s:s, s:s, s:O, s:s, s:s, s:I, s:I, s:b, s:b, s:b}", "name", name, "path",
        host_text(disk, "path"), "datastore", json_object_get(machine, "datastore"), "format",
        what     ? host_text(what, "format")
        : format ? format
                 : "raw",
        "bus", bus ? bus : "virtio", "capacity",
        capacity ? json_integer_value(capacity) : (json_int_t)0, "allocated",
        (json_int_t)st.st_blocks * 512, "readonly", json_is_true(json_object_get(disk, "readonly")),
        "cbt", json_is_true(json_object_get(disk, "cbt")), "bootable",
        !*host_text(json_object_get(machine, "config"), "kernel"));
    json_decref(what);
    free(path);
    return o;
}

json_t *disks_list(struct host *host, json_t *machine)
{
    json_t *out = json_array(), *disk;
    size_t i;
    json_array_foreach(json_object_get(json_object_get(machine, "config"), "disks"), i, disk)
        json_array_append_new(out, render(host, machine, disk, i));
    return out;
}

/* ---- Tasks ---- */

static int must_be_stopped(struct host *host, json_t *machine, struct host_problem *p)
{
    if (machine_is_free(host, machine, p))
        return -1;
    if (vm_runs(vm_of(host, host_text(machine, "id"))))
        return host_problem(p, HOST_CONFLICT, NULL, "machine %s: runs; stop it first",
                            host_text(machine, "name"));
    return 0;
}

static void append_disk(json_t *doc, void *opaque)
{
    json_t *config = json_object_get(doc, "config"), *disks = json_object_get(config, "disks");
    if (!disks) {
        disks = json_array();
        json_object_set_new(config, "disks", disks);
    }
    json_array_append(disks, opaque);
    json_object_set_new(doc, "changed", host_now_json());
}

static int add_task(struct task *task, struct host_problem *p)
{
    struct host *host = task->host;
    struct mull_error err = {0};
    json_t *disk = json_object_get(task->args, "disk");
    host_lock(host);
    char *path = machine_file(host, task->object_id, host_text(disk, "path"));
    host_unlock(host);
    /* A file of that name is nobody's: the row comes after it. */
    int ret = path
                  ? disk_make(task, path, host_text(disk, "format"),
                              (uint64_t)json_integer_value(json_object_get(task->args, "capacity")),
                              NULL, NULL, &err)
                  : -ENOENT;
    if (ret) {
        host_problem_from(p, &err);
    } else {
        host_lock(host);
        ret = disk_append(host, task->object_id, disk, p);
        host_unlock(host);
    }
    if (ret && path)
        unlink(path);
    free(path);
    return ret;
}

int disk_append(struct host *host, const char *id, json_t *disk, struct host_problem *p)
{
    return machine_update(host, id, append_disk, disk, p);
}

json_t *disk_new(struct host *host, json_t *machine, const char *format, const char *bus,
                 struct host_problem *p)
{
    json_t *disks = json_object_get(json_object_get(machine, "config"), "disks");
    char file[64], tail[9];
    if (must_be_stopped(host, machine, p))
        return NULL;
    if (json_array_size(disks) >= MULL_CONFIG_DISKS) {
        host_problem(p, HOST_CONFLICT, NULL, "a machine has at most %d disks", MULL_CONFIG_DISKS);
        return NULL;
    }
    host_random_hex(tail, 4);
    snprintf(file, sizeof(file), "disk-%s.%s", tail, format);
    json_t *disk = json_pack("{s:s, s:s}", "path", file, "format", format);
    if (*bus)
        json_object_set_new(disk, "bus", json_string(bus));
    return disk;
}

json_t *disk_add(struct host *host, const char *user, json_t *machine, json_t *body,
                 struct host_problem *p)
{
    json_int_t capacity = json_integer_value(json_object_get(body, "capacity"));
    const char *format = *host_text(body, "format") ? host_text(body, "format") : "qcow2";
    if (capacity % 512 || capacity > (json_int_t)1 << 46) {
        host_problem(p, HOST_INVALID, "/capacity", "must be a multiple of 512, at most 64 TiB");
        return NULL;
    }
    json_t *disk = disk_new(host, machine, format, host_text(body, "bus"), p);
    if (!disk)
        return NULL;
    return machine_task(host, user, machine, "disk.add", false,
                        json_pack("{s:o, s:I}", "disk", disk, "capacity", capacity), add_task, p);
}

/* Open one disk of a stopped machine for writing. */
static int open_disk(struct task *task, struct vmhi_image **out, struct host_problem *p)
{
    struct host *host = task->host;
    struct vmhi_error why = {0};
    host_lock(host);
    json_t *machine = store_get(host->store, KIND_MACHINE, task->object_id);
    json_t *disk =
        machine ? disk_of(machine, (int)json_integer_value(json_object_get(task->args, "disk")))
                : NULL;
    char *path = disk ? disk_path(host, machine, disk) : NULL;
    char *format = disk && *host_text(disk, "format") ? strdup(host_text(disk, "format")) : NULL;
    host_unlock(host);
    struct vmhi_image_options options = {.size = sizeof(options), .path = path, .format = format};
    int ret = path ? vmhi_image_open(&options, out, &why) : -ENOENT;
    if (ret)
        host_problem_from(p, &(struct mull_error){.code = -ret});
    if (ret && *why.message)
        snprintf(p->detail, sizeof(p->detail), "%s", why.message);
    free(path);
    free(format);
    return ret;
}

static int close_disk(struct vmhi_image *image, int ret, const struct vmhi_error *why,
                      struct host_problem *p)
{
    struct mull_error err = {0};
    int closed = vmhi_image_close(image);
    if (!ret && closed)
        ret = mull_fail(&err, -closed, "%s", strerror(-closed));
    else if (ret)
        take(&err, ret, why);
    return ret ? host_problem_from(p, &err) : 0;
}

static int grow_task(struct task *task, struct host_problem *p)
{
    struct vmhi_image *image;
    struct vmhi_error why = {0};
    if (open_disk(task, &image, p))
        return -1;
    struct vmhi_image_info info = {.size = sizeof(info)};
    uint64_t capacity = (uint64_t)json_integer_value(json_object_get(task->args, "capacity"));
    int ret = vmhi_image_get_info(image, &info);
    if (!ret && capacity < info.disk_size) {
        vmhi_image_close(image);
        return host_problem(p, HOST_INVALID, "/capacity",
                            "the disk has %llu bytes; it can only grow",
                            (unsigned long long)info.disk_size);
    }
    if (!ret)
        ret = vmhi_image_resize(image, capacity, &why);
    return close_disk(image, ret, &why, p);
}

json_t *disk_grow(struct host *host, const char *user, json_t *machine, int disk, uint64_t capacity,
                  struct host_problem *p)
{
    if (must_be_stopped(host, machine, p))
        return NULL;
    if (capacity % 512 || capacity > 1ull << 46) {
        host_problem(p, HOST_INVALID, "/capacity", "must be a multiple of 512, at most 64 TiB");
        return NULL;
    }
    return machine_task(host, user, machine, "disk.grow", false,
                        json_pack("{s:i, s:I}", "disk", disk, "capacity", (json_int_t)capacity),
                        grow_task, p);
}

static void drop_disk(json_t *doc, void *opaque)
{
    json_array_remove(json_object_get(json_object_get(doc, "config"), "disks"),
                      (size_t) * (int *)opaque);
    json_object_set_new(doc, "changed", host_now_json());
}

/* The row goes first: a file without one is found, a row without a file could not run. */
static int remove_task(struct task *task, struct host_problem *p)
{
    struct host *host = task->host;
    int index = (int)json_integer_value(json_object_get(task->args, "disk"));
    host_lock(host);
    json_t *machine = store_get(host->store, KIND_MACHINE, task->object_id);
    json_t *disk = machine ? disk_of(machine, index) : NULL;
    char *path = disk && *host_text(disk, "path") != '/' ? disk_path(host, machine, disk) : NULL;
    int ret = disk ? machine_update(host, task->object_id, drop_disk, &index, p)
                   : host_problem(p, HOST_NOT_FOUND, NULL, "the disk is gone");
    host_unlock(host);
    if (!ret && path && unlink(path) && errno != ENOENT)
        ret = host_problem(p, HOST_INTERNAL, NULL, "%s: %s", path, strerror(errno));
    free(path);
    return ret;
}

json_t *disk_remove(struct host *host, const char *user, json_t *machine, int disk,
                    struct host_problem *p)
{
    if (must_be_stopped(host, machine, p))
        return NULL;
    return machine_task(host, user, machine, "disk.remove", false, json_pack("{s:i}", "disk", disk),
                        remove_task, p);
}

/* ---- Snapshots of the disk's own format ---- */

static int snapshot_task(struct task *task, struct host_problem *p)
{
    struct vmhi_image *image;
    struct vmhi_error why = {0};
    const char *name = host_text(task->args, "name");
    if (open_disk(task, &image, p))
        return -1;
    int ret;
    switch ((enum snapshot_action)json_integer_value(json_object_get(task->args, "action"))) {
    case SNAPSHOT_CREATE:
        ret = vmhi_image_create_snapshot(image, name, &why);
        break;
    case SNAPSHOT_APPLY:
        ret = vmhi_image_apply_snapshot(image, name, &why);
        break;
    default:
        ret = vmhi_image_delete_snapshot(image, name, &why);
    }
    return close_disk(image, ret, &why, p);
}

json_t *disk_snapshot(struct host *host, const char *user, json_t *machine, int disk,
                      enum snapshot_action action, const char *name, struct host_problem *p)
{
    static const char *const types[] = {"snapshot.create", "snapshot.apply", "snapshot.delete"};
    if (must_be_stopped(host, machine, p))
        return NULL;
    return machine_task(
        host, user, machine, types[action], false,
        json_pack("{s:i, s:i, s:s}", "disk", disk, "action", (int)action, "name", name),
        snapshot_task, p);
}

json_t *disk_snapshots(struct host *host, json_t *machine, int index, struct host_problem *p)
{
    json_t *disk = disk_of(machine, index), *out = json_array();
    char *path = disk_path(host, machine, disk), date[32];
    struct vmhi_error why = {0};
    struct vmhi_image *image = NULL;
    struct vmhi_image_options options = {
        .size = sizeof(options),
        .path = path,
        .format = json_string_value(json_object_get(disk, "format")),
        .flags = VMHI_IMAGE_READONLY | VMHI_IMAGE_NO_LOCK | VMHI_IMAGE_NO_BACKING};
    struct vmhi_image_snapshot s = {.size = sizeof(s)};
    if (!path || vmhi_image_open(&options, &image, &why)) {
        host_problem(p, HOST_CONFLICT, NULL, "%s", why.message);
        free(path);
        json_decref(out);
        return NULL;
    }
    for (unsigned i = 0; i < 1000 && !vmhi_image_get_snapshot(image, i, &s, &why); i++) {
        host_time((double)s.date_s, date);
        json_array_append_new(out, json_pack("{s:s, s:s, s:I}", "name", s.name, "created", date,
                                             "size", (json_int_t)s.disk_size));
    }
    vmhi_image_close(image);
    free(path);
    return out;
}
