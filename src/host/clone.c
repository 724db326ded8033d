/* See clone.h. */
#include "host/clone.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <vmhi/image.h>

#include "host/disks.h"

#define PIECE (16ull << 20)

/* ---- Files ---- */

struct copying {
    struct task *task;
    const char *what;
    int in, out;
    uint64_t total;
    char *buffer; /* once the kernel could not copy by itself */
};

/* Copy up to @want bytes at @at. @return how many, 0: there is no more, or -errno */
static ssize_t copy_piece(struct copying *c, uint64_t at, size_t want)
{
    if (!c->buffer) {
        loff_t from = (loff_t)at, to = (loff_t)at;
        ssize_t n = copy_file_range(c->in, &from, c->out, &to, want, 0);
        if (n >= 0)
            return n;
        if (errno == EINTR)
            return 0;
        if (errno != EXDEV && errno != ENOSYS && errno != EOPNOTSUPP && errno != EINVAL)
            return -errno;
        if (!(c->buffer = malloc(PIECE)))
            return -ENOMEM;
    }
    ssize_t got = pread(c->in, c->buffer, want, (off_t)at), done = 0;
    while (done < got) {
        ssize_t n = pwrite(c->out, c->buffer + done, (size_t)(got - done), (off_t)at + done);
        if (n < 0 && errno != EINTR)
            return -errno;
        done += n > 0 ? n : 0;
    }
    return got < 0 ? -errno : got;
}

static int copy_range(struct copying *c, uint64_t at, uint64_t end)
{
    while (at < end) {
        int ret = task_progress(c->task, c->what, at, c->total);
        ssize_t n = ret ? ret : copy_piece(c, at, (size_t)(end - at < PIECE ? end - at : PIECE));
        if (n < 0)
            return (int)n;
        if (n == 0 && (uint64_t)lseek(c->in, 0, SEEK_END) <= at)
            return -EIO; /* it became shorter meanwhile */
        at += (uint64_t)n;
    }
    return 0;
}

/* What is data, as far as the file system tells it. */
static int copy_data(struct copying *c)
{
    uint64_t at = 0;
    int ret = ftruncate(c->out, (off_t)c->total) ? -errno : 0;
    while (!ret && at < c->total) {
        off_t data = lseek(c->in, (off_t)at, SEEK_DATA);
        if (data < 0 && errno == ENXIO)
            break; /* the rest is a hole */
        off_t hole = data < 0 ? -1 : lseek(c->in, data, SEEK_HOLE);
        if (data < 0 || hole < 0) {
            data = (off_t)at;
            hole = (off_t)c->total;
        }
        uint64_t end = (uint64_t)hole < c->total ? (uint64_t)hole : c->total;
        ret = copy_range(c, (uint64_t)data, end);
        at = end;
    }
    return ret;
}

int clone_file(struct task *task, const char *from, const char *to, const char *what,
               struct mull_error *err)
{
    struct copying c = {.task = task, .what = what, .out = -1};
    struct stat st;
    c.in = open(from, O_RDONLY | O_CLOEXEC);
    int ret = c.in < 0 || fstat(c.in, &st) ? mull_fail(err, errno, "%s: %s", from, strerror(errno))
              : !S_ISREG(st.st_mode)       ? mull_fail(err, EINVAL, "%s: is no file", from)
                                           : 0;
    if (!ret && (c.out = open(to, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600)) < 0)
        ret = mull_fail(err, errno, "%s: %s", to, strerror(errno));
    if (!ret && ioctl(c.out, FICLONE, c.in)) {
        c.total = (uint64_t)st.st_size;
        ret = copy_data(&c);
        if (!ret && fsync(c.out))
            ret = -errno;
        if (ret)
            mull_fail(err, -ret, "%s: %s", to, strerror(-ret));
    }
    if (c.in >= 0)
        close(c.in);
    if (c.out >= 0)
        close(c.out);
    if (ret && c.out >= 0)
        unlink(to);
    free(c.buffer);
    return ret;
}

/* ---- Disks ---- */

/* What an image is. @param whole  is one file all of it? */
static int look_at(const char *path, const char *format, char out[16], uint64_t *capacity,
                   bool *whole, struct mull_error *err)
{
    struct vmhi_error why = {0};
    struct vmhi_image_options options = {
        .size = sizeof(options), .path = path, .format = format, .flags = VMHI_IMAGE_READONLY};
    struct vmhi_image_info info = {.size = sizeof(info)};
    struct vmhi_image *image = NULL;
    struct vmhi_extent extent = {.size = sizeof(extent)};
    int ret = vmhi_image_open(&options, &image, &why);
    if (!ret)
        ret = vmhi_image_get_info(image, &info);
    if (ret) {
        mull_fail(err, -ret, "%s", *why.message ? why.message : strerror(-ret));
    } else {
        snprintf(out, 16, "%s", info.format);
        *capacity = info.disk_size;
        *whole = !info.backing && (!strcmp(info.format, "raw") || !strcmp(info.format, "qcow2"));
        /* A QCOW2 image may keep its data in another file. */
        for (uint64_t at = 0; *whole && at < info.disk_size; at += extent.length) {
            extent.length = 0;
            if (vmhi_image_map(image, at, info.disk_size - at, &extent) || !extent.length)
                break;
            if (extent.kind == VMHI_EXTENT_DATA) {
                const char *slash = strrchr(path, '/');
                const char *name = extent.file ? strrchr(extent.file, '/') : NULL;
                name = name ? name : extent.file;
                *whole = !name || !strcmp(name + (*name == '/'), slash ? slash + 1 : path);
                break;
            }
        }
    }
    if (image)
        vmhi_image_close(image);
    return ret;
}

static int make_overlay(const char *path, const char *base, const char *base_format,
                        uint64_t capacity, struct mull_error *err)
{
    struct vmhi_error why = {0};
    struct vmhi_image_options to = {.size = sizeof(to),
                                    .path = path,
                                    .format = "qcow2",
                                    .disk_size = capacity,
                                    .backing = base,
                                    .backing_format = base_format};
    int ret = vmhi_image_create(&to, &why);
    return ret ? mull_fail(err, -ret, "%s", *why.message ? why.message : strerror(-ret)) : 0;
}

json_t *clone_disk(struct task *task, const char *from, const char *format, const char *folder,
                   const char *stem, bool linked, struct mull_error *err)
{
    char have[16], name[64];
    uint64_t capacity;
    bool whole;
    if (look_at(from, format, have, &capacity, &whole, err))
        return NULL;
    const char *becomes = whole && !linked ? have : "qcow2";
    snprintf(name, sizeof(name), "%.40s.%s", stem, becomes);
    char *to = host_path(folder, "%s", name);
    int ret = !to      ? mull_fail(err, ENOMEM, "no memory")
              : linked ? make_overlay(to, from, have, capacity, err)
              : whole  ? clone_file(task, from, to, "copying the disk", err)
                       : disk_make(task, to, "qcow2", 0, from, have, err);
    free(to);
    return ret ? NULL : json_pack("{s:s, s:s}", "path", name, "format", becomes);
}

/* ---- Other files ---- */

static int copy_named(struct task *task, const char *name, const char *from, const char *to,
                      struct mull_error *err)
{
    if (!name || !*name || *name == '/' || !strcmp(name, "bios") || !strcmp(name, "uefi"))
        return 0;
    char *source = host_path(from, "%s", name), *target = host_path(to, "%s", name);
    int ret = 0;
    if (!source || !target)
        ret = mull_fail(err, ENOMEM, "no memory");
    else if (strstr(name, "..") || strchr(name, '/'))
        ret = mull_fail(err, EINVAL, "%s: is not in the machine's own folder", name);
    else if (access(source, F_OK)) /* made when the machine starts */
        ret = 0;
    else if (!access(target, F_OK)) /* named twice */
        ret = 0;
    else
        ret = clone_file(task, source, target, "copying the machine's files", err);
    free(source);
    free(target);
    return ret;
}

int clone_others(struct task *task, const json_t *config, const char *from, const char *to,
                 struct mull_error *err)
{
    static const char *const single[] = {"kernel", "initrd", "firmware", "nvram"};
    static const char *const lists[] = {"modules", "cdroms"};
    int ret = 0;
    for (unsigned i = 0; i < 4 && !ret; i++)
        ret = copy_named(task, host_text(config, single[i]), from, to, err);
    for (unsigned i = 0; i < 2; i++) {
        json_t *item;
        size_t n;
        json_array_foreach(json_object_get(config, lists[i]), n, item)
        {
            if (!ret)
                ret = copy_named(task, host_text(item, "path"), from, to, err);
        }
    }
    return ret;
}
