/*
 * The disks of an imported machine: checked for names of other files, unpacked where they are
 * packed or divided, and converted, or left where they are.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "image/image.h"
#include "machine/appliance/folder.h"
#include "machine/appliance/internal.h"
#include "machine/appliance/source.h"

#define UNPACK_MAX (UINT64_C(1) << 40)
#define CHUNKS_MAX 100000u

/* QCOW2's external data file (its specification, "incompatible features", bit 2) can be any file.
 */
static int refuse_data_file(struct package *p, const struct part *part, const char *name)
{
    uint8_t head[104] = {0};
    int fd = open(part->path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? pread(fd, head, sizeof(head), (off_t)part->offset) : -1;
    if (fd >= 0)
        close(fd);
    if (n < 80 || memcmp(head, "QFI\xfb", 4) || mull_be32(head + 4) < 3 || p->import->outside ||
        !(mull_be64(head + 72) & 4))
        return 0;
    return mull_fail(p->err, EPERM,
                     "'%.200s' has its data in another file; say --outside if you "
                     "trust it",
                     name);
}

/* A disk in a folder may be a difference to others there, not to files elsewhere. */
static int check_chain(struct package *p, const struct part *part, const char *format)
{
    char *path = strdup(part->path);
    int ret = path ? 0 : package_no_memory(p);
    for (unsigned depth = 0; !ret && depth < MULL_IMAGE_CHAIN_MAX; depth++) {
        struct mull_image_options o = {.path = path,
                                       .format = depth ? NULL : format,
                                       .readonly = true,
                                       .no_backing = true,
                                       .log = p->import->log};
        struct mull_image *image = NULL;
        struct part at = {.path = path}, below = {0};
        ret = refuse_data_file(p, &at, path);
        if (!ret)
            ret = mull_image_open(&o, &image, p->err);
        char *next = !ret && image->backing_path
                         ? mull_image_relative_path(image->path, image->backing_path)
                         : NULL;
        bool more = !ret && image->backing_path;
        if (more)
            ret = next ? package_file(p, next, &below)
                       : mull_fail(p->err, EPERM, "%s: has a backing file that we do not follow",
                                   path);
        mull_image_close(image);
        free(next);
        free(path);
        path = below.path;
        if (!more)
            break;
    }
    free(path);
    return ret;
}

/* Bring a packed or divided file into one piece in the machine's folder. */
static int unpack(struct package *p, const struct mull_appliance_file *file, const char *to)
{
    uint64_t max = file->capacity ? file->capacity + file->capacity / 8 + (64u << 20) : UNPACK_MAX;
    int ret = 0;
    char name[MULL_TAR_NAME_MAX + 16];
    for (unsigned i = 0; !ret && i < CHUNKS_MAX; i++) {
        struct part part;
        snprintf(name, sizeof(name), file->chunk ? "%.1000s.%09u" : "%.1000s", file->name, i);
        ret = package_find(p, name, &part);
        if (ret == -ENOENT && i) {
            *p->err = (struct mull_error){0};
            return 0;
        }
        bool last = !file->chunk || part.size < file->chunk;
        if (!ret && part.size > file->chunk && file->chunk)
            ret = mull_fail(p->err, EBADMSG, "'%.200s' is larger than the chunkSize", name);
        if (!ret && file->gzip && !file->chunk)
            ret = folder_gunzip(part.path, part.offset, part.size, to, max, p->err);
        else if (!ret)
            ret = folder_append(part.path, part.offset, part.size, to, p->err);
        free(part.path);
        if (last)
            break;
    }
    return ret;
}

static int unpack_whole(struct package *p, const struct mull_appliance_file *file,
                        const char *folder, struct part *out)
{
    struct part packed = {0};
    int ret = 0;
    *out = (struct part){0};
    out->path = folder_join(folder, "unpacked.tmp", p->err);
    if (!out->path)
        return -ENOMEM;
    ret = unpack(p, file, out->path);
    if (!ret && file->gzip && file->chunk) {
        /* The parts are those of the packed file (DSP0243, 7.1). */
        packed.path = folder_join(folder, "packed.tmp", p->err);
        if (!packed.path || rename(out->path, packed.path))
            ret = mull_fail(p->err, packed.path ? errno : ENOMEM, "%s", out->path);
        struct stat st;
        if (!ret && !stat(packed.path, &st))
            ret = folder_gunzip(packed.path, 0, (uint64_t)st.st_size, out->path,
                                file->capacity ? file->capacity * 2 : UNPACK_MAX, p->err);
        if (packed.path)
            unlink(packed.path);
        free(packed.path);
    }
    return ret;
}

/* A disk that a machine writes to must be in a format that can be written in any order. */
static int refuse_stream(struct package *p, const struct part *part, const char *format)
{
    struct mull_image_options o = {.path = part->path,
                                   .format = format,
                                   .readonly = true,
                                   .no_backing = true,
                                   .log = p->import->log};
    struct mull_image_info info = {0};
    struct mull_image *image = NULL;
    int ret = mull_image_open(&o, &image, p->err);
    if (!ret && image->format->info)
        image->format->info(image, &info);
    for (int i = 0; i < info.ndetails && !ret; i++)
        if (!strcmp(info.details[i][1], "streamOptimized"))
            ret = mull_fail(p->err, ENOTSUP,
                            "--in-place: %s is streamOptimized, which is only read; leave the "
                            "option out",
                            part->path);
    mull_image_close(image);
    return ret;
}

static const char *ending_of(const char *format)
{
    return !strcmp(format, "raw") ? "img" : format;
}

int package_make_disk(struct package *p, unsigned i, const char *folder)
{
    struct mull_import *import = p->import;
    struct mull_disk_config *disk = &import->appliance.config.disk[i];
    struct mull_appliance_file *file = &import->appliance.disk[i];
    const char *format = import->disk_format ? import->disk_format : "qcow2";
    struct part part = {0};
    char name[32];
    bool packed = file->gzip || file->chunk;
    int ret = 0;
    if (file->name)
        ret = packed ? unpack_whole(p, file, folder, &part) : package_find(p, file->name, &part);
    if (!ret && file->name)
        ret = part.inside || packed ? refuse_data_file(p, &part, file->name)
                                    : check_chain(p, &part, file->format);
    if (!ret && import->in_place) {
        if (!file->name || part.inside || packed || p->fetched)
            ret = mull_fail(p->err, ENOTSUP,
                            "--in-place: disk %u is inside an archive, packed, fetched or empty; "
                            "leave the option out",
                            i);
        else
            ret = refuse_stream(p, &part, file->format);
        if (!ret)
            ret = appliance_set(&disk->path, part.path) ? package_no_memory(p) : 0;
        if (!ret && file->format)
            ret = appliance_set(&disk->format, file->format) ? package_no_memory(p) : 0;
        free(part.path);
        return ret;
    }
    snprintf(name, sizeof(name), "disk%u.%s", i, ending_of(format));
    char *to = ret ? NULL : folder_join(folder, name, p->err);
    struct folder_disk convert = {
        .from = part.path,
        .from_format = file->format,
        .offset = part.offset,
        .length = part.inside ? part.size : 0,
        .no_backing = part.inside || packed,
        .to = to,
        .to_format = format,
        .size = file->capacity,
        .progress = {import->progress, import->opaque, file->name ? file->name : name},
        .log = import->log,
    };
    if (!ret && part.inside && !part.size)
        ret = mull_fail(p->err, EINVAL, "'%.200s' is empty", file->name);
    if (!ret)
        ret = to ? folder_convert(&convert, p->err) : -ENOMEM;
    if (!ret && file->capacity && file->name && convert.capacity > file->capacity + 511)
        mull_report_add(&import->appliance.report, MULL_NOTE_CHANGED, name,
                        "has %llu bytes, more than the descriptor says (%llu)",
                        (unsigned long long)convert.capacity, (unsigned long long)file->capacity);
    if (!ret)
        ret = appliance_set(&disk->path, name) || appliance_set(&disk->format, format)
                  ? package_no_memory(p)
                  : 0;
    if (packed && part.path)
        unlink(part.path);
    free(part.path);
    free(to);
    return ret ? mull_fail_in(p->err, "disk %u", i) : 0;
}

/* Copy a file that belongs to the machine (a CD image, variables, a kernel). @return 1: it is not
 * there, and that may be */
