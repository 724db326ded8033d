/*
 * Exporting: a machine as an OVA, as a folder with an OVF, VMX or libvirt description, or one of
 * its disks in any format. The result appears whole or not at all; the machine is only read.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "image/image.h"
#include "image/ovf/tar.h"
#include "machine/appliance/folder.h"
#include "machine/appliance/internal.h"

struct job {
    struct mull_export *export;
    const struct mull_machine_config *config;
    char *folder; /* temporary */
    struct mull_appliance_disk disk[MULL_CONFIG_DISKS], cdrom[MULL_CONFIG_CDROMS];
    bool nvram;
    struct mull_error *err;
};

/* How disks are written where nobody says otherwise. */
static const struct {
    const char *format, *disk, *subformat;
} kinds[] = {
    {"ova", "vmdk", "streamOptimized"},
    {"ovf", "vmdk", "streamOptimized"},
    {"vmx", "vmdk", "monolithicSparse"},
    {"libvirt", "qcow2", NULL},
};

static int no_memory(struct job *j)
{
    return mull_fail(j->err, ENOMEM, "%s: out of memory", j->export->target);
}

static int file_size(const char *path, uint64_t *out, struct mull_error *err)
{
    struct stat st;
    if (stat(path, &st))
        return mull_fail(err, errno, "%s: %s", path, strerror(errno));
    *out = (uint64_t)st.st_size;
    return 0;
}

/* ---- Files of the package ---- */

static int put_disk(struct job *j, unsigned i, const char *format, const char *subformat)
{
    const struct mull_disk_config *disk = &j->config->disk[i];
    char *name = NULL, *to = NULL;
    if (asprintf(&name, "%s-disk%u.%s", j->config->name, i,
                 !strcmp(format, "raw") ? "img" : format) < 0)
        return no_memory(j);
    j->disk[i].name = name;
    j->disk[i].format = format;
    to = folder_join(j->folder, name, j->err);
    struct folder_disk convert = {.from = disk->path,
                                  .from_format = disk->format,
                                  .to = to,
                                  .to_format = format,
                                  .subformat = subformat,
                                  .progress = {j->export->progress, j->export->opaque, name},
                                  .log = j->export->log};
    int ret = to ? folder_convert(&convert, j->err) : -ENOMEM;
    j->disk[i].capacity = convert.capacity;
    uint64_t size = 0;
    if (!ret)
        ret = file_size(to, &size, j->err);
    j->disk[i].size = size;
    free(to);
    return ret;
}

static int put_copy(struct job *j, const char *from, const char *name,
                    struct mull_appliance_disk *out)
{
    uint64_t size = 0;
    char *to = folder_join(j->folder, name, j->err);
    struct folder_progress progress = {j->export->progress, j->export->opaque, name};
    int ret = to ? file_size(from, &size, j->err) : -ENOMEM;
    if (!ret)
        ret = folder_copy(from, 0, size, to, &progress, j->err);
    if (!ret && out) {
        out->size = out->capacity = size;
        out->format = "raw";
    }
    free(to);
    return ret;
}

/* The disc that tells a guest its properties: whoever imports an OVF makes his own. */
static bool is_environment(const struct mull_machine_config *c, const char *path)
{
    const char *slash = strrchr(path, '/');
    return json_object_get(c->appliance, "properties") &&
           !strcmp(slash ? slash + 1 : path, MULL_ENVIRONMENT_DISC);
}

static int put_files(struct job *j, const char *format, const char *subformat, bool ovf)
{
    const struct mull_machine_config *c = j->config;
    int ret = 0;
    for (unsigned i = 0; i < c->disk_count && !ret; i++)
        ret = put_disk(j, i, format, subformat);
    for (unsigned i = 0; i < c->cdrom_count && !ret; i++) {
        char *name = NULL;
        if (!c->cdrom[i].path || (ovf && is_environment(c, c->cdrom[i].path)))
            continue;
        if (asprintf(&name, "%s-cdrom%u.iso", c->name, i) < 0)
            return no_memory(j);
        j->cdrom[i].name = name;
        ret = put_copy(j, c->cdrom[i].path, name, &j->cdrom[i]);
    }
    return ret;
}

/* ---- Descriptions ---- */

static struct mull_appliance_write writing(struct job *j)
{
    return (struct mull_appliance_write){.config = j->config,
                                         .disk = j->disk,
                                         .cdrom = j->cdrom,
                                         .nvram = j->nvram ? "nvram.fd" : NULL,
                                         .ovf_version = j->export->ovf_version,
                                         .report = &j->export->report};
}

/* Write "NAME.ENDING" into the folder. @param out  its name, malloc'ed; NULL: not wanted */
static int put_text(struct job *j, const char *ending, const char *text, char **out)
{
    char *name = NULL;
    if (asprintf(&name, "%s.%s", j->config->name, ending) < 0)
        return no_memory(j);
    char *path = folder_join(j->folder, name, j->err);
    int ret = path ? folder_write(path, text, strlen(text), j->err) : -ENOMEM;
    free(path);
    if (out && !ret)
        *out = name;
    else
        free(name);
    return ret;
}

static int put_vmx(struct job *j)
{
    struct mull_appliance_write w = writing(j);
    struct mull_vmx vmx;
    char *text = NULL;
    size_t size;
    int ret = mull_appliance_to_vmx(&w, &vmx, j->err);
    if (ret)
        return ret;
    FILE *out = open_memstream(&text, &size);
    if (out)
        mull_vmx_write(&vmx, out);
    if (!out || fclose(out))
        ret = no_memory(j);
    if (!ret)
        ret = put_text(j, "vmx", text, NULL);
    mull_vmx_free(&vmx);
    free(text);
    return ret;
}

/* libvirt wants absolute names: those that the files will have. @return "FOLDER/", malloc'ed */
static char *final_folder(struct job *j)
{
    const char *place = j->export->place;
    char folder[PATH_MAX], *out = NULL;
    if (place) {
        if (asprintf(&out, "%s%s", place, *place ? "/" : "") < 0)
            no_memory(j);
        return out;
    }
    char *parent = strdup(j->export->target), *slash = parent ? strrchr(parent, '/') : NULL;
    if (slash)
        slash[slash == parent] = '\0';
    const char *last = strrchr(j->export->target, '/');
    last = last ? last + 1 : j->export->target;
    if (!parent || !realpath(slash ? parent : ".", folder))
        mull_fail(j->err, errno, "%s: %s", j->export->target, strerror(errno));
    else if (asprintf(&out, "%s/%s/", strcmp(folder, "/") ? folder : "", last) < 0)
        no_memory(j);
    free(parent);
    return out;
}

static int put_libvirt(struct job *j)
{
    struct mull_appliance_write w = writing(j);
    struct mull_appliance_disk disk[MULL_CONFIG_DISKS], cdrom[MULL_CONFIG_CDROMS];
    struct mull_machine_config config = *j->config;
    char *names[MULL_CONFIG_DISKS + MULL_CONFIG_CDROMS + 3] = {0};
    unsigned count = 0;
    char *folder = final_folder(j);
    if (!folder)
        return -ENOMEM;
    memcpy(disk, j->disk, sizeof(disk));
    memcpy(cdrom, j->cdrom, sizeof(cdrom));
    int ret = 0;
    for (unsigned i = 0; i < MULL_CONFIG_DISKS + MULL_CONFIG_CDROMS; i++) {
        struct mull_appliance_disk *d =
            i < MULL_CONFIG_DISKS ? &disk[i] : &cdrom[i - MULL_CONFIG_DISKS];
        if (!d->name)
            continue;
        if (asprintf(&names[count], "%s%s", folder, d->name) < 0)
            ret = no_memory(j);
        else
            d->name = names[count++];
    }
    char **files[3] = {&config.kernel, &config.initrd, NULL};
    static const char *const as[2] = {"kernel", "initrd"};
    for (unsigned i = 0; i < 2 && !ret; i++) {
        if (!*files[i])
            continue;
        ret = put_copy(j, *files[i], as[i], NULL);
        if (!ret && asprintf(&names[count], "%s%s", folder, as[i]) < 0)
            ret = no_memory(j);
        else if (!ret)
            *files[i] = names[count++];
    }
    char *nvram = NULL;
    if (!ret && w.nvram && asprintf(&nvram, "%snvram.fd", folder) < 0)
        ret = no_memory(j);
    w.disk = disk;
    w.cdrom = cdrom;
    w.config = &config;
    w.nvram = nvram;
    char *text = NULL;
    if (!ret)
        ret = mull_appliance_to_libvirt(&w, &text, j->err);
    if (!ret)
        ret = put_text(j, "xml", text, NULL);
    free(text);
    free(folder);
    free(nvram);
    for (unsigned i = 0; i < count; i++)
        free(names[i]);
    return ret;
}

/* ---- OVF: descriptor, manifest, signature ---- */

static int hash_file(struct job *j, const char *name, FILE *out)
{
    struct mull_hasher *hasher = NULL;
    uint8_t digest[MULL_DIGEST_MAX];
    char *path = folder_join(j->folder, name, j->err), *buf = malloc(1u << 20);
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    int ret = fd < 0 || !buf ? mull_fail(j->err, fd < 0 ? errno : ENOMEM, "%s", name)
                             : mull_hasher_create(j->export->digest, &hasher, j->err);
    ssize_t n = 1;
    while (!ret && n) {
        n = read(fd, buf, 1u << 20);
        if (n < 0)
            ret = mull_fail(j->err, errno, "%s: %s", path, strerror(errno));
        else
            mull_hasher_update(hasher, buf, (size_t)n);
    }
    mull_hasher_finish(hasher, ret ? NULL : digest);
    if (!ret) {
        fprintf(out, "%s(%s)= ", mull_digest_name(j->export->digest), name);
        for (unsigned i = 0; i < mull_digest_size(j->export->digest); i++)
            fprintf(out, "%02x", digest[i]);
        fputc('\n', out);
    }
    if (fd >= 0)
        close(fd);
    free(path);
    free(buf);
    return ret;
}

static int put_manifest(struct job *j, const char *descriptor, char **manifest, char **cert)
{
    char *text = NULL, *signature = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    if (!out)
        return no_memory(j);
    int ret = hash_file(j, descriptor, out);
    for (unsigned i = 0; i < j->config->disk_count && !ret; i++)
        ret = hash_file(j, j->disk[i].name, out);
    for (unsigned i = 0; i < j->config->cdrom_count && !ret; i++)
        if (j->cdrom[i].name)
            ret = hash_file(j, j->cdrom[i].name, out);
    if (fclose(out) && !ret)
        ret = no_memory(j);
    if (!ret)
        ret = put_text(j, "mf", text, manifest);
    if (!ret && j->export->key_file)
        ret = mull_manifest_sign(*manifest, text, size, j->export->digest, j->export->key_file,
                                 j->export->cert_file, &signature, j->err);
    if (!ret && signature)
        ret = put_text(j, "cert", signature, cert);
    free(text);
    free(signature);
    return ret;
}

/* The order that DSP0243, clause 5.3, wants: descriptor, manifest, certificate, then the files as
 * the References name them. */
static int put_member(struct job *j, int fd, const char *name)
{
    uint64_t size = 0;
    char *path = folder_join(j->folder, name, j->err);
    int ret = path ? file_size(path, &size, j->err) : -ENOMEM, in = -1;
    if (!ret && (ret = mull_tar_put_header(fd, name, size, (uint64_t)time(NULL))))
        mull_fail(j->err, -ret, "%s: %s", j->export->target, strerror(-ret));
    if (!ret && (in = open(path, O_RDONLY | O_CLOEXEC)) < 0)
        ret = mull_fail(j->err, errno, "%s: %s", path, strerror(errno));
    for (uint64_t left = size; left && !ret;) {
        ssize_t n = copy_file_range(in, NULL, fd, NULL, left < (64u << 20) ? left : 64u << 20, 0);
        if (n < 0 &&
            (errno == EXDEV || errno == EINVAL || errno == ENOSYS || errno == EOPNOTSUPP)) {
            char buf[65536];
            n = read(in, buf, sizeof(buf) < left ? sizeof(buf) : left);
            for (ssize_t at = 0; at < n;) {
                ssize_t wrote = write(fd, buf + at, (size_t)(n - at));
                if (wrote < 0) {
                    n = -1;
                    break;
                }
                at += wrote;
            }
        }
        if (n <= 0)
            ret = mull_fail(j->err, n ? errno : EIO, "%s: %s", j->export->target,
                            strerror(n ? errno : EIO));
        else
            left -= (uint64_t)n;
        if (!ret && j->export->progress &&
            j->export->progress(j->export->opaque, j->export->target, size - left, size))
            ret = mull_fail(j->err, ECANCELED, "%s: stopped", j->export->target);
    }
    if (!ret && (ret = mull_tar_pad(fd, size)))
        mull_fail(j->err, -ret, "%s: %s", j->export->target, strerror(-ret));
    if (in >= 0)
        close(in);
    /* It is in the archive now: do not need the room twice. */
    if (!ret)
        unlink(path);
    free(path);
    return ret;
}

static int put_archive(struct job *j, const char *descriptor, const char *manifest,
                       const char *cert)
{
    char *path = folder_join(j->folder, "archive.ova", j->err);
    int fd = path ? open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666) : -1;
    int ret = fd < 0 ? mull_fail(j->err, errno, "%s: %s", j->export->target, strerror(errno))
                     : put_member(j, fd, descriptor);
    if (!ret && manifest)
        ret = put_member(j, fd, manifest);
    if (!ret && cert)
        ret = put_member(j, fd, cert);
    for (unsigned i = 0; i < j->config->disk_count && !ret; i++)
        ret = put_member(j, fd, j->disk[i].name);
    for (unsigned i = 0; i < j->config->cdrom_count && !ret; i++)
        if (j->cdrom[i].name)
            ret = put_member(j, fd, j->cdrom[i].name);
    int code = 0;
    if (!ret && ((code = mull_tar_finish(fd)) || fsync(fd)))
        ret = mull_fail(j->err, code ? -code : errno, "%s: %s", j->export->target,
                        strerror(code ? -code : errno));
    if (fd >= 0 && close(fd) && !ret)
        ret = mull_fail(j->err, errno, "%s: %s", j->export->target, strerror(errno));
    if (!ret)
        ret = folder_commit(path, j->export->target, j->err);
    free(path);
    return ret;
}

static int put_ovf(struct job *j, bool archive)
{
    struct mull_appliance_write w = writing(j);
    char *text = NULL, *descriptor = NULL, *manifest = NULL, *cert = NULL;
    int ret = mull_appliance_to_ovf(&w, &text, j->err);
    if (!ret)
        ret = put_text(j, "ovf", text, &descriptor);
    if (!ret && !j->export->no_manifest)
        ret = put_manifest(j, descriptor, &manifest, &cert);
    if (!ret && archive)
        ret = put_archive(j, descriptor, manifest, cert);
    free(text);
    free(descriptor);
    free(manifest);
    free(cert);
    return ret;
}

/* ---- The whole ---- */

static int export_package(struct job *j, unsigned kind)
{
    struct mull_export *e = j->export;
    const char *format = e->disk_format ? e->disk_format : kinds[kind].disk;
    const char *subformat = strcmp(format, kinds[kind].disk) ? NULL : kinds[kind].subformat;
    if (kind < 2 && strcmp(format, "vmdk"))
        mull_report_add(&e->report, MULL_NOTE_CHANGED, "disks",
                        "%s is not what others expect in an OVF package", format);
    int ret = put_files(j, format, subformat, kind < 2);
    if (!ret && j->config->nvram && kind >= 2) {
        ret = put_copy(j, j->config->nvram, "nvram.fd", NULL);
        j->nvram = !ret;
    } else if (!ret && j->config->nvram) {
        mull_report_add(&e->report, MULL_NOTE_LOST, "nvram", "the UEFI variables");
    }
    if (ret)
        return ret;
    if (kind < 2)
        return put_ovf(j, kind == 0);
    return kind == 2 ? put_vmx(j) : put_libvirt(j);
}

static int export_disk(struct job *j)
{
    struct mull_export *e = j->export;
    const struct mull_machine_config *c = j->config;
    int i = e->disk < 0 && c->disk_count == 1 ? 0 : e->disk;
    if (i < 0 || i >= (int)c->disk_count)
        return mull_fail(j->err, EINVAL, "%s: the machine has %u disks; choose one with --disk N",
                         c->name, c->disk_count);
    char *path = NULL;
    if (asprintf(&path, "%s/disk", j->folder) < 0)
        return no_memory(j);
    struct folder_disk convert = {.from = c->disk[i].path,
                                  .from_format = c->disk[i].format,
                                  .to = path,
                                  .to_format = e->format,
                                  .progress = {e->progress, e->opaque, e->target},
                                  .log = e->log};
    int ret = folder_convert(&convert, j->err);
    if (!ret)
        ret = folder_commit(path, e->target, j->err);
    free(path);
    return ret;
}

static void free_names(struct job *j)
{
    for (unsigned i = 0; i < MULL_CONFIG_DISKS; i++)
        free((char *)(uintptr_t)j->disk[i].name);
    for (unsigned i = 0; i < MULL_CONFIG_CDROMS; i++)
        free((char *)(uintptr_t)j->cdrom[i].name);
}

int mull_export(struct mull_export *e, struct mull_error *err)
{
    struct mull_error own = {0};
    struct job j = {.export = e, .config = e->config, .err = err ? err : &own};
    unsigned kind = 0, count = sizeof(kinds) / sizeof(kinds[0]);
    while (kind < count && strcmp(kinds[kind].format, e->format))
        kind++;
    const struct mull_format *format = kind < count ? NULL : mull_format_find(e->format);
    if (kind == count && (!format || !format->create))
        return mull_fail(err, EINVAL,
                         "--format %s: give ova, ovf, vmx, libvirt, or an image format that we "
                         "write",
                         e->format);
    if (!e->key_file != !e->cert_file)
        return mull_fail(err, EINVAL, "signing needs a key and a certificate");
    if (e->disk_format && (!(format = mull_format_find(e->disk_format)) || !format->create))
        return mull_fail(err, EINVAL, "--disk-format %s: no format that we write", e->disk_format);
    bool file = !kind || kind == count;
    int ret = folder_temporary(e->target, &j.folder, j.err);
    if (!ret)
        ret = kind == count ? export_disk(&j) : export_package(&j, kind);
    if (!ret && !file)
        ret = folder_commit(j.folder, e->target, j.err);
    if (ret || file)
        folder_remove(j.folder);
    free(j.folder);
    free_names(&j);
    return ret;
}
