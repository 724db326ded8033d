/* Files, folders and disks of packages. See folder.h. */
#include "machine/appliance/folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "base/file.h"
#include "image/convert.h"

#define STEP (1u << 20)

char *folder_read(const char *path, uint64_t offset, uint64_t length, size_t max, size_t *size,
                  struct mull_error *err)
{
    struct stat st;
    char *text = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), code = 0;
    if (fd < 0 || fstat(fd, &st))
        code = errno;
    else if (!S_ISREG(st.st_mode))
        code = EINVAL;
    else if (!length)
        length = (uint64_t)st.st_size;
    if (!code && length > max)
        code = E2BIG;
    if (!code && !(text = malloc(length + 1)))
        code = ENOMEM;
    *size = 0;
    while (!code && *size < length) {
        ssize_t n = pread(fd, text + *size, length - *size, (off_t)(offset + *size));
        if (n < 0 && errno != EINTR)
            code = errno;
        if (n == 0)
            break;
        *size += n > 0 ? (size_t)n : 0;
    }
    if (fd >= 0)
        close(fd);
    if (code) {
        free(text);
        mull_fail(err, code, "%s: %s", path, code == E2BIG ? "too large" : strerror(code));
        return NULL;
    }
    text[*size] = '\0';
    return text;
}

char *folder_join(const char *folder, const char *name, struct mull_error *err)
{
    char *path = NULL;
    if (asprintf(&path, "%s/%s", folder, name) >= 0)
        return path;
    mull_fail(err, ENOMEM, "%s: out of memory", name);
    return NULL;
}

int folder_make(const char *path, struct mull_error *err)
{
    char *copy = strdup(path);
    if (!copy)
        return mull_fail(err, ENOMEM, "%s: out of memory", path);
    int ret = 0;
    for (char *p = copy + 1; !ret; p++) {
        char c = *p;
        if (c && c != '/')
            continue;
        *p = '\0';
        if (mkdir(copy, 0777) && errno != EEXIST)
            ret = mull_fail(err, errno, "%s: %s", copy, strerror(errno));
        *p = c;
        if (!c)
            break;
    }
    free(copy);
    return ret;
}

/* The folder that holds @path, malloc'ed. */
static char *parent_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    return !slash          ? strdup(".")
           : slash == path ? strdup("/")
                           : strndup(path, (size_t)(slash - path));
}

/* A file or a folder. */
static int sync_path(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int ret = fsync(fd) ? -errno : 0;
    close(fd);
    return ret;
}

int folder_temporary(const char *target, char **out, struct mull_error *err)
{
    struct stat st;
    *out = NULL;
    if (!lstat(target, &st))
        return mull_fail(err, EEXIST, "%s: is there already; give another name, or remove it",
                         target);
    char *parent = parent_of(target), *path = NULL;
    const char *last = strrchr(target, '/');
    int n = parent ? asprintf(&path, "%s/.%s.XXXXXX", parent, last ? last + 1 : target) : -1;
    int ret = n < 0 ? mull_fail(err, ENOMEM, "%s: out of memory", target) : 0;
    if (!ret && !mkdtemp(path))
        ret = mull_fail(err, errno, "%s: cannot make a folder: %s", path, strerror(errno));
    free(parent);
    if (ret) {
        free(n < 0 ? NULL : path);
        return ret;
    }
    /* mkdtemp() lets only the owner in; a machine's folder is as any other. */
    mode_t mask = umask(0);
    umask(mask);
    chmod(path, 0777 & ~mask);
    *out = path;
    return 0;
}

int folder_commit(const char *temporary, const char *target, struct mull_error *err)
{
    char *parent = parent_of(target);
    int ret = parent ? sync_path(temporary) : -ENOMEM;
    if (!ret && renameat2(AT_FDCWD, temporary, AT_FDCWD, target, RENAME_NOREPLACE)) {
        ret = -errno;
        /* A file system that cannot do so at once: nobody else makes this name, we hope. */
        struct stat st;
        if (ret == -EINVAL && lstat(target, &st) && errno == ENOENT)
            ret = rename(temporary, target) ? -errno : 0;
    }
    if (!ret)
        ret = sync_path(parent);
    free(parent);
    return ret ? mull_fail(err, -ret, "%s: %s", target, strerror(-ret)) : 0;
}

static void remove_at(int folder, const char *name, unsigned depth)
{
    if (!unlinkat(folder, name, 0) || (errno != EISDIR && errno != EPERM) || depth > 8)
        return;
    int fd = openat(folder, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    struct dirent *entry;
    while (dir && (entry = readdir(dir)))
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
            remove_at(fd, entry->d_name, depth + 1);
    if (dir)
        closedir(dir);
    unlinkat(folder, name, AT_REMOVEDIR);
}

void folder_remove(const char *path)
{
    if (path)
        remove_at(AT_FDCWD, path, 0);
}

/* Make it durable and close it; a write that fails late shows here. */
static int finish(int fd, int ret)
{
    if (!ret && fsync(fd))
        ret = -errno;
    if (close(fd) && !ret)
        ret = -errno;
    return ret;
}

int folder_write(const char *path, const void *data, size_t size, struct mull_error *err)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    int ret = fd < 0 ? -errno : finish(fd, mull_write_all(fd, data, size));
    return ret ? mull_fail(err, -ret, "%s: %s", path, strerror(-ret)) : 0;
}

/* ---- Copies ---- */

static int step(const struct folder_progress *p, uint64_t done, uint64_t total)
{
    return p && p->call && p->call(p->opaque, p->what, done, total) ? -ECANCELED : 0;
}

static int copy_bytes(int in, uint64_t offset, uint64_t size, int out,
                      const struct folder_progress *progress)
{
    char *buf = malloc(STEP);
    int ret = buf ? 0 : -ENOMEM;
    for (uint64_t done = 0; done < size && !ret;) {
        uint64_t want = size - done < STEP ? size - done : STEP;
        ssize_t n = pread(in, buf, want, (off_t)(offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        ret = n < 0 ? -errno : n == 0 ? -EIO : mull_write_all(out, buf, (size_t)n);
        done += n > 0 ? (uint64_t)n : 0;
        if (!ret)
            ret = step(progress, done, size);
    }
    free(buf);
    return ret;
}

static int copy_file(const char *from, uint64_t offset, uint64_t size, const char *to, int flags,
                     const struct folder_progress *progress, struct mull_error *err)
{
    struct stat st;
    int in = open(from, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (in < 0 || fstat(in, &st) || !S_ISREG(st.st_mode)) {
        int code = in < 0 ? errno : EINVAL;
        if (in >= 0)
            close(in);
        return mull_fail(err, code, "%s: %s", from, strerror(code));
    }
    int out = open(to, O_WRONLY | O_CREAT | O_CLOEXEC | flags, 0666);
    int ret = out < 0 ? -errno : finish(out, copy_bytes(in, offset, size, out, progress));
    close(in);
    return ret ? mull_fail(err, -ret, "copying %s to %s: %s", from, to, strerror(-ret)) : 0;
}

int folder_copy(const char *from, uint64_t offset, uint64_t size, const char *to,
                const struct folder_progress *progress, struct mull_error *err)
{
    return copy_file(from, offset, size, to, O_EXCL, progress, err);
}

int folder_append(const char *from, uint64_t offset, uint64_t size, const char *to,
                  struct mull_error *err)
{
    return copy_file(from, offset, size, to, O_APPEND, NULL, err);
}

int folder_fetch(struct mull_file *from, const char *to, const struct folder_progress *progress,
                 struct mull_error *err)
{
    uint64_t size = atomic_load(&from->size);
    char *buf = malloc(STEP);
    int out = buf ? open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666) : -1;
    int ret = !buf ? -ENOMEM : out < 0 ? -errno : 0;
    for (uint64_t done = 0; done < size && !ret;) {
        uint64_t n = size - done < STEP ? size - done : STEP;
        ret = mull_file_read(from, buf, n, done);
        if (!ret)
            ret = mull_write_all(out, buf, n);
        done += n;
        if (!ret)
            ret = step(progress, done, size);
    }
    if (out >= 0)
        ret = finish(out, ret);
    free(buf);
    return ret ? mull_fail(err, -ret, "fetching %s: %s", from->path, strerror(-ret)) : 0;
}

/* ---- gzip (RFC 1952), a member after the other ---- */

static int inflate_all(int in, uint64_t offset, uint64_t size, int out, uint64_t max)
{
    z_stream z = {0};
    unsigned char *from = malloc(STEP), *to = malloc(STEP);
    uint64_t read_at = 0, wrote = 0;
    bool ended = false;
    int ret = from && to && inflateInit2(&z, 15 + 16) == Z_OK ? 0 : -ENOMEM;
    bool started = !ret;
    while (!ret) {
        if (!z.avail_in && read_at < size) {
            uint64_t want = size - read_at < STEP ? size - read_at : STEP;
            ssize_t n = pread(in, from, want, (off_t)(offset + read_at));
            if (n <= 0) {
                ret = n < 0 ? -errno : -EIO;
                break;
            }
            z.next_in = from;
            z.avail_in = (unsigned)n;
            read_at += (uint64_t)n;
        }
        if (!z.avail_in && ended)
            break;
        if (!z.avail_in) {
            ret = -EIO; /* it ends in the middle */
            break;
        }
        if (ended)
            inflateReset(&z);
        ended = false;
        z.next_out = to;
        z.avail_out = STEP;
        int code = inflate(&z, Z_NO_FLUSH);
        size_t got = STEP - z.avail_out;
        wrote += got;
        if (code != Z_OK && code != Z_STREAM_END && code != Z_BUF_ERROR)
            ret = -EIO;
        else if (wrote > max)
            ret = -EFBIG;
        else
            ret = mull_write_all(out, (char *)to, got);
        ended = code == Z_STREAM_END;
    }
    if (started)
        inflateEnd(&z);
    free(from);
    free(to);
    return ret;
}

int folder_gunzip(const char *from, uint64_t offset, uint64_t size, const char *to, uint64_t max,
                  struct mull_error *err)
{
    int in = open(from, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (in < 0)
        return mull_fail(err, errno, "%s: %s", from, strerror(errno));
    int out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    int ret = out < 0 ? -errno : finish(out, inflate_all(in, offset, size, out, max));
    close(in);
    if (ret == -EFBIG)
        return mull_fail(err, EFBIG, "%s: unpacks to more than %llu bytes, which no disk of it has",
                         from, (unsigned long long)max);
    return ret ? mull_fail(err, -ret, "unpacking %s: %s", from, strerror(-ret)) : 0;
}

/* ---- Disks ---- */

static int on_convert(void *opaque, uint64_t done, uint64_t total)
{
    return step(opaque, done, total);
}

static int open_source(const struct folder_disk *d, struct mull_image **out, struct mull_error *err)
{
    struct mull_image_options o = {.path = d->from,
                                   .format = d->from_format,
                                   .readonly = true,
                                   .offset = d->offset,
                                   .length = d->length,
                                   .no_backing = d->no_backing,
                                   .log = d->log};
    int ret = mull_image_open(&o, out, err);
    if (!ret && d->no_backing && (*out)->backing_path) {
        ret = mull_fail(err, EPERM,
                        "%s: is a difference to '%.200s'; a disk in a package must stand alone",
                        d->from, (*out)->backing_path);
        mull_image_close(*out);
        *out = NULL;
    }
    return ret;
}

static int fill(struct folder_disk *d, struct mull_image *source, struct mull_error *err)
{
    struct mull_image *target = NULL;
    struct mull_image_options o = {.path = d->to, .format = d->to_format, .log = d->log};
    int ret = mull_image_open(&o, &target, err);
    if (ret)
        return ret;
    if (source) {
        struct mull_convert c = {.source = source,
                                 .target = target,
                                 .target_zero = true,
                                 .progress = on_convert,
                                 .opaque = &d->progress};
        ret = mull_convert(&c, err);
    }
    if (ret) {
        mull_image_abandon(target);
        return ret;
    }
    ret = mull_image_close(target);
    return ret ? mull_fail(err, -ret, "%s: %s", d->to, strerror(-ret)) : 0;
}

int folder_convert(struct folder_disk *d, struct mull_error *err)
{
    const struct mull_format *format = mull_format_find(d->to_format);
    struct mull_image *source = NULL;
    if (!format || !format->create)
        return mull_fail(err, EINVAL, "%s: no format that we write", d->to_format);
    int ret = d->from ? open_source(d, &source, err) : 0;
    if (ret)
        return ret;
    d->capacity = source ? source->size : 0;
    if (d->capacity < d->size)
        d->capacity = d->size;
    d->capacity = (d->capacity + 511) / 512 * 512;
    struct mull_create_options create = {
        .path = d->to, .size = d->capacity, .subformat = d->subformat};
    ret = d->capacity > MULL_IMAGE_SIZE_MAX
              ? mull_fail(err, EFBIG, "%s: a disk of %llu bytes", d->from ? d->from : d->to,
                          (unsigned long long)d->capacity)
              : format->create(&create, err);
    if (!ret)
        ret = fill(d, source, err);
    mull_image_close(source);
    return ret;
}
