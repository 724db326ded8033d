/*
 * Exports: a machine, or one of its disks, as others read it. What is one file is kept to download;
 * what is a folder (OVF, VMX, libvirt) is downloaded as a tar archive of it; both may be put into a
 * datastore instead. See transfers.h.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host/disks.h"
#include "host/events.h"
#include "host/machines.h"
#include "host/store/store.h"
#include "host/stores.h"
#include "host/transfers.h"
#include "image/ovf/tar.h"
#include "machine/appliance/package.h"

#define PIECE (1u << 20)

static bool is_folder(const char *format)
{
    return !strcmp(format, "ovf") || !strcmp(format, "vmx") || !strcmp(format, "libvirt");
}

/* ---- A folder as one file ---- */

struct packing {
    struct task *task;
    const char *folder, *top; /* what the archive's members are below */
    int fd;
    uint64_t done, total;
    char *buffer;
};

static int copy_in(struct packing *k, int in, uint64_t size)
{
    for (uint64_t left = size; left;) {
        int ret = task_progress(k->task, "packing", k->done, k->total);
        if (ret)
            return ret;
        ssize_t n = read(in, k->buffer, left < PIECE ? (size_t)left : PIECE);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n ? -errno : -EIO;
        for (ssize_t put = 0; put < n;) {
            ssize_t w = write(k->fd, k->buffer + put, (size_t)(n - put));
            if (w < 0 && errno != EINTR)
                return -errno;
            put += w > 0 ? w : 0;
        }
        left -= (uint64_t)n;
        k->done += (uint64_t)n;
    }
    return mull_tar_pad(k->fd, size);
}

/* One file, which then goes: its room is not needed twice. */
static int pack_file(struct packing *k, const char *name)
{
    char member[512];
    char *path = host_path(k->folder, "%s", name);
    int in = path ? open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW) : -1, ret = 0;
    struct stat st;
    snprintf(member, sizeof(member), "%s/%s", k->top, name);
    if (in < 0 || fstat(in, &st))
        ret = -errno;
    else if (S_ISREG(st.st_mode))
        ret = mull_tar_put_header(k->fd, member, (uint64_t)st.st_size, (uint64_t)st.st_mtime);
    if (!ret && S_ISREG(st.st_mode))
        ret = copy_in(k, in, (uint64_t)st.st_size);
    if (in >= 0)
        close(in);
    if (!ret && S_ISREG(st.st_mode))
        unlink(path);
    free(path);
    return ret;
}

static uint64_t size_of(const char *folder)
{
    uint64_t total = 0;
    DIR *dir = opendir(folder);
    struct dirent *e;
    struct stat st;
    while (dir && (e = readdir(dir)))
        if (!fstatat(dirfd(dir), e->d_name, &st, AT_SYMLINK_NOFOLLOW) && S_ISREG(st.st_mode))
            total += (uint64_t)st.st_size;
    if (dir)
        closedir(dir);
    return total;
}

static int no_dots(const struct dirent *e)
{
    return strcmp(e->d_name, ".") && strcmp(e->d_name, "..");
}

/* The files of a flat folder, by their names, into a tar archive; the folder goes. */
static int pack(struct task *task, const char *folder, const char *top, const char *target,
                struct mull_error *err)
{
    struct packing k = {.task = task,
                        .folder = folder,
                        .top = top,
                        .fd = open(target, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600),
                        .total = size_of(folder),
                        .buffer = malloc(PIECE)};
    struct dirent **list = NULL;
    int n = scandir(folder, &list, no_dots, alphasort);
    int ret = k.fd < 0 || n < 0 ? -errno : !k.buffer ? -ENOMEM : 0;
    for (int i = 0; i < n; i++) {
        if (!ret)
            ret = pack_file(&k, list[i]->d_name);
        free(list[i]);
    }
    free(list);
    if (!ret)
        ret = mull_tar_finish(k.fd);
    if (k.fd >= 0 && close(k.fd) && !ret)
        ret = -errno;
    free(k.buffer);
    if (!ret)
        ret = host_remove_tree(folder);
    return ret ? mull_fail(err, -ret, "%s: %s", target, strerror(-ret)) : 0;
}

/* ---- The task ---- */

struct export_job {
    struct task *task;
    const char *format;
    json_t *config; /* a copy, whole names in it */
    char *own;      /* the machine's folder */
    char *work;     /* where it is made: what remains of a crash is found there */
    char *target;   /* the file or folder, in @work */
    char *into;     /* in a datastore; NULL: to download */
    char file[160]; /* its last name */
    char stem[80];  /* of a folder in an archive */
    json_t *result;
};

static void end_job(struct export_job *j)
{
    json_decref(j->config);
    free(j->own);
    free(j->work);
    free(j->target);
    free(j->into);
}

/* Where everything goes; a row for what is to be downloaded. Lock held. */
static int plan(struct export_job *j, struct mull_error *err)
{
    struct host *host = j->task->host;
    const char *id = j->task->object_id, *wanted = host_text(j->task->args, "datastore");
    json_t *doc = store_get(host->store, KIND_MACHINE, id);
    json_t *datastore = *wanted ? store_get(host->store, KIND_DATASTORE, wanted) : NULL;
    if (!doc || (*wanted && !datastore))
        return mull_fail(err, ENOENT, "the machine or the datastore is gone");
    j->config = json_deep_copy(json_object_get(doc, "config"));
    j->own = machine_file(host, id, "");
    snprintf(j->stem, sizeof(j->stem), "%s", host_text(doc, "name"));
    if (is_folder(j->format) && datastore)
        snprintf(j->file, sizeof(j->file), "%s-%s", j->stem, j->format);
    else
        snprintf(j->file, sizeof(j->file), "%s.%s%s", j->stem, j->format,
                 is_folder(j->format) ? ".tar" : "");
    j->work = datastore ? host_path(host_text(datastore, "path"), ".%s.export", j->task->id)
                        : export_folder(host, j->task->id);
    if (datastore)
        j->into = host_path(host_text(datastore, "path"), "exports/%s", j->file);
    j->target = j->work ? host_path(j->work, "%s", is_folder(j->format) ? j->stem : j->file) : NULL;
    if (!j->config || !j->own || !j->target || (datastore && !j->into) ||
        mull_machine_config_resolve(j->config, j->own))
        return mull_fail(err, ENOMEM, "no memory");
    if (datastore)
        return 0;
    return store_put(host->store, KIND_DOWNLOAD, j->task->id,
                     json_pack("{s:s, s:s, s:s, s:o}", "id", j->task->id, "file", j->file, "user",
                               j->task->user, "expires", transfer_expires(DOWNLOAD_HOURS)),
                     err);
}

static int write_package(struct export_job *j, struct mull_error *err)
{
    struct mull_machine_config config = {0};
    char *text = json_dumps(j->config, JSON_COMPACT);
    bool package = is_folder(j->format) || !strcmp(j->format, "ova");
    int ret = host_make_folder(j->work, 0700);
    if (ret)
        mull_fail(err, -ret, "%s: %s", j->work, strerror(-ret));
    else
        ret = text ? mull_machine_config_read(text, &config, err)
                   : mull_fail(err, ENOMEM, "no memory");
    if (!ret) {
        struct mull_export e = {
            .config = &config,
            .target = j->target,
            .place = j->into ? j->into : "",
            .format = j->format,
            .disk = package ? -1 : (int)json_integer_value(json_object_get(j->task->args, "disk")),
            .digest = MULL_SHA256,
            .progress = transfer_step,
            .opaque = j->task,
            .log = &j->task->host->log};
        ret = mull_export(&e, err);
        if (!ret)
            json_object_set_new(j->result, "report", transfer_report(&e.report));
        mull_report_free(&e.report);
    }
    mull_machine_config_free(&config);
    free(text);
    return ret;
}

/* To where it was wanted. */
static int deliver(struct export_job *j, struct mull_error *err)
{
    char text[256];
    int ret = 0;
    if (j->into) {
        char *folder = strndup(j->into, (size_t)(strrchr(j->into, '/') - j->into));
        ret = folder ? host_make_folder(folder, 0700) : -ENOMEM; /* older datastores have none */
        free(folder);
        if (!ret && renameat2(AT_FDCWD, j->target, AT_FDCWD, j->into, RENAME_NOREPLACE))
            ret = errno == EINVAL && access(j->into, F_OK) && !rename(j->target, j->into) ? 0
                                                                                          : -errno;
        if (!ret)
            host_remove_tree(j->work);
        snprintf(text, sizeof(text), "exports/%s", j->file);
        json_object_set_new(j->result, "path", json_string(text));
        json_object_set(j->result, "datastore", json_object_get(j->task->args, "datastore"));
        return ret ? mull_fail(err, -ret, "%s: %s", j->into, strerror(-ret)) : 0;
    }
    if (is_folder(j->format)) {
        char *archive = host_path(j->work, "%s", j->file);
        ret = archive ? pack(j->task, j->target, j->stem, archive, err)
                      : mull_fail(err, ENOMEM, "no memory");
        free(archive);
    }
    snprintf(text, sizeof(text), "/api/v1/downloads/%s", j->task->id);
    json_object_set_new(j->result, "download", json_string(text));
    return ret;
}

static int export_task(struct task *task, struct host_problem *p)
{
    struct host *host = task->host;
    struct mull_error err = {0};
    struct export_job j = {
        .task = task, .format = host_text(task->args, "format"), .result = json_object()};
    host_lock(host);
    int ret = plan(&j, &err);
    host_unlock(host);
    if (!ret)
        ret = write_package(&j, &err);
    if (!ret)
        ret = deliver(&j, &err);
    if (!ret) {
        task->result = json_incref(j.result);
    } else {
        host_problem_from(p, &err);
        if (j.work)
            host_remove_tree(j.work);
        host_lock(host);
        store_delete(host->store, KIND_DOWNLOAD, task->id, NULL);
        host_unlock(host);
    }
    json_decref(j.result);
    end_job(&j);
    return ret ? -1 : 0;
}

json_t *export_start(struct host *host, const struct principal *who, json_t *machine, json_t *body,
                     struct host_problem *p)
{
    const char *format = host_text(body, "format"), *wanted = host_text(body, "datastore");
    json_t *disks = json_object_get(json_object_get(machine, "config"), "disks");
    json_t *datastore = *wanted ? datastore_find(host, wanted) : NULL;
    json_int_t disk = json_integer_value(json_object_get(body, "disk"));
    bool package = is_folder(format) || !strcmp(format, "ova");
    if (*wanted &&
        (!datastore || !auth_sees(host, who, KIND_DATASTORE, host_text(datastore, "id")))) {
        host_problem(p, HOST_INVALID, "/datastore", "datastore %s: there is none", wanted);
        return NULL;
    }
    if (!package && (size_t)disk >= json_array_size(disks)) {
        host_problem(p, HOST_INVALID, "/disk", "the machine has %zu disks", json_array_size(disks));
        return NULL;
    }
    if (machine_is_free(host, machine, p))
        return NULL;
    if (vm_runs(vm_of(host, host_text(machine, "id")))) {
        host_problem(p, HOST_CONFLICT, NULL, "machine %s: runs; stop it first",
                     host_text(machine, "name"));
        return NULL;
    }
    return machine_task(host, who->user, machine, "machine.export", true,
                        json_pack("{s:s, s:I, s:s}", "format", format, "disk", disk, "datastore",
                                  datastore ? host_text(datastore, "id") : ""),
                        export_task, p);
}
