/* One host file below a disk format: opening, locks, whole transfers, holes. See file.h. */
#include "image/file.h"

#include "image/source.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define DIRECT_ALIGN 4096u
#define BOUNCE_MAX (1u << 20)
#define ZEROES_MAX (256u << 10)
#define RESERVE_LEAST (64u << 10)

/*
 * Byte-range locks, in the layout QEMU's tools use, so that both keep out of each other's way: byte
 * LOCK_USED + p is held by whoever uses permission p, byte LOCK_UNSHARED + p by whoever does not
 * let others use it. All are shared locks; who is there is found by asking for an exclusive one.
 */
enum { LOCK_USED = 100, LOCK_UNSHARED = 200 };
enum { PERM_READ = 0, PERM_WRITE = 1, PERM_WRITE_UNCHANGED = 2, PERM_RESIZE = 3, PERMS = 4 };

static int lock_byte(int fd, uint64_t byte)
{
    struct flock lock = {
        .l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = (off_t)byte, .l_len = 1};
    return fcntl(fd, F_OFD_SETLK, &lock) < 0 ? -errno : 0;
}

static int byte_is_free(int fd, uint64_t byte)
{
    struct flock lock = {
        .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = (off_t)byte, .l_len = 1};
    if (fcntl(fd, F_OFD_GETLK, &lock) < 0)
        return -errno;
    return lock.l_type == F_UNLCK ? 0 : -EAGAIN;
}

/* Writers exclude everybody, readers exclude writers. */
static int lock_file(int fd, bool readonly)
{
    const unsigned use =
        readonly ? 1u << PERM_READ : 1u << PERM_READ | 1u << PERM_WRITE | 1u << PERM_RESIZE;
    const unsigned unshared = readonly ? 1u << PERM_WRITE | 1u << PERM_RESIZE : (1u << PERMS) - 1;
    int ret = 0;

    for (unsigned p = 0; p < PERMS && !ret; p++) {
        if (use & 1u << p)
            ret = lock_byte(fd, LOCK_USED + p);
        if (!ret && (unshared & 1u << p))
            ret = lock_byte(fd, LOCK_UNSHARED + p);
    }
    for (unsigned p = 0; p < PERMS && !ret; p++) {
        if (use & 1u << p)
            ret = byte_is_free(fd, LOCK_UNSHARED + p);
        if (!ret && (unshared & 1u << p))
            ret = byte_is_free(fd, LOCK_USED + p);
    }
    /* A file system without locks (some network ones) is used without. */
    return ret == -ENOLCK || ret == -EOPNOTSUPP || ret == -EINVAL ? 0
           : ret == -EACCES                                       ? -EAGAIN
                                                                  : ret;
}

static int file_size(int fd, const struct stat *st, uint64_t *size)
{
    if (!S_ISBLK(st->st_mode)) {
        *size = (uint64_t)st->st_size;
        return 0;
    }
    return ioctl(fd, BLKGETSIZE64, size) < 0 ? -errno : 0;
}

static int open_given(const struct mull_given_files *given, const char *path)
{
    for (unsigned i = 0; i < given->count; i++)
        if (!strcmp(given->file[i].path, path))
            return fcntl(given->file[i].fd, F_DUPFD_CLOEXEC, 0);
    errno = ENOENT;
    return -1;
}

int mull_file_open(const struct mull_file_options *o, struct mull_file **out,
                   struct mull_error *err)
{
    /* O_NONBLOCK: a FIFO must not hang us before we have looked at what it is. */
    int flags = O_CLOEXEC | O_NOCTTY | O_NONBLOCK | (o->readonly ? O_RDONLY : O_RDWR) |
                (o->direct ? O_DIRECT : 0) | (o->create ? O_CREAT : 0);
    struct stat st;
    uint64_t size = 0;
    int ret;

    if (mull_source_is_url(o->path))
        return mull_source_open(o, out, err);
    int fd = o->given ? open_given(o->given, o->path) : open(o->path, flags, 0666);
    if (fd < 0 && o->given && errno == ENOENT)
        return mull_fail(err, ENOENT, "%s: was not handed over with the image that needs it",
                         o->path);
    if (fd < 0 && errno == EINVAL && o->direct)
        return mull_fail(err, EINVAL, "%s: the file system does not do O_DIRECT; leave direct off",
                         o->path);
    if (fd < 0) {
        int code = errno;
        return mull_fail(err, code, "%s: cannot open for %s: %s", o->path,
                         o->readonly ? "reading" : "writing", strerror(code));
    }
    if (fstat(fd, &st) < 0) {
        ret = mull_fail(err, errno, "%s: fstat failed", o->path);
        goto fail;
    }
    if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) {
        ret = mull_fail(err, EINVAL, "%s: is not a regular file or block device", o->path);
        goto fail;
    }
    if (!o->no_lock && (ret = lock_file(fd, o->readonly)) < 0) {
        ret = ret == -EAGAIN ? mull_fail(err, EAGAIN,
                                         "%s: in use by another process; stop it, or open the "
                                         "image read-only in both",
                                         o->path)
                             : mull_fail(err, -ret, "%s: cannot lock: %s", o->path, strerror(-ret));
        goto fail;
    }
    if (o->create && S_ISREG(st.st_mode)) {
        if (ftruncate(fd, 0) < 0) {
            ret = mull_fail(err, errno, "%s: cannot truncate: %s", o->path, strerror(errno));
            goto fail;
        }
        st.st_size = 0;
    }
    ret = file_size(fd, &st, &size);
    if (ret < 0) {
        ret = mull_fail(err, -ret, "%s: cannot tell the size: %s", o->path, strerror(-ret));
        goto fail;
    }

    struct mull_file *file = calloc(1, sizeof(*file));
    if (!file || !(file->path = strdup(o->path))) {
        free(file);
        ret = mull_fail(err, ENOMEM, "%s: out of memory", o->path);
        goto fail;
    }
    file->fd = fd;
    file->given = o->given;
    file->readonly = o->readonly;
    file->direct = o->direct;
    file->unsafe = o->unsafe;
    file->align = o->direct ? DIRECT_ALIGN : 1;
    file->block_device = file->fixed_size = S_ISBLK(st.st_mode);
    file->dev = st.st_dev;
    file->ino = st.st_ino;
    file->observer = o->observer;
    atomic_store(&file->size, size);
    atomic_store(&file->bulk, o->bulk && !file->block_device && !o->observer);
    *out = file;
    return 0;

fail:
    close(fd);
    return ret;
}

int mull_file_stand_in(const struct mull_file_options *o, const struct mull_file_ops *ops,
                       void *opaque, uint64_t size, struct mull_file **out, struct mull_error *err)
{
    struct mull_file *file = calloc(1, sizeof(*file));

    if (!file || !(file->path = strdup(o->path))) {
        struct mull_file lost = {.fd = -1, .opaque = opaque};
        free(file);
        ops->close(&lost);
        return mull_fail(err, ENOMEM, "%s: out of memory", o->path);
    }
    file->fd = -1;
    file->ops = ops;
    file->opaque = opaque;
    file->readonly = o->readonly || !ops->writev;
    file->unsafe = o->unsafe;
    file->align = 1;
    file->fixed_size = true;
    /* No inode: nothing else is the same file. */
    file->dev = (dev_t)-1;
    file->ino = (ino_t)(uintptr_t)file;
    file->observer = o->observer;
    atomic_store(&file->size, size);
    *out = file;
    return 0;
}

int mull_file_identity(struct mull_file *file, char *out, size_t room)
{
    struct stat st;
    int n;

    if (file->ops)
        return file->ops->identity ? file->ops->identity(file, out, room) : -EOPNOTSUPP;
    if (fstat(file->fd, &st) < 0)
        return -errno;
    if (file->block_device)
        return -EOPNOTSUPP;
    n = snprintf(out, room, "%llx:%llx:%llu:%lld.%09ld:%lld.%09ld", (unsigned long long)st.st_dev,
                 (unsigned long long)st.st_ino, (unsigned long long)st.st_size,
                 (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec, (long long)st.st_ctim.tv_sec,
                 st.st_ctim.tv_nsec);
    return n < 0 || (size_t)n >= room ? -ENAMETOOLONG : 0;
}

void mull_file_close(struct mull_file *file)
{
    if (!file)
        return;
    if (file->ops)
        file->ops->close(file);
    else
        close(file->fd);
    free(file->path);
    free(file);
}

static int observe(struct mull_file *file, enum mull_file_event event, uint64_t offset,
                   uint64_t length, const struct iovec *iov, int niov)
{
    if (!file->observer)
        return 0;
    return file->observer->event(file->observer->opaque, file, event, offset, length, iov, niov);
}

void mull_file_written(struct mull_file *file, uint64_t end)
{
    uint64_t size = atomic_load(&file->size);
    while (end > size && !atomic_compare_exchange_weak(&file->size, &size, end))
        ;
    atomic_store(&file->dirty, true);
}

static bool aligned(const struct mull_file *file, const struct iovec *iov, int niov,
                    uint64_t offset, uint64_t length)
{
    uint64_t mask = file->align - 1;
    if (!mask)
        return true;
    if ((offset | length) & mask)
        return false;
    for (int i = 0; i < niov; i++)
        if (((uintptr_t)iov[i].iov_base | iov[i].iov_len) & mask)
            return false;
    return true;
}

/* One preadv/pwritev loop over a private copy of the iov. @got: bytes moved before end of file. */
static int move_all(struct mull_file *file, bool write, const struct iovec *iov, int niov,
                    uint64_t offset, uint64_t length, uint64_t *got)
{
    uint64_t at = 0;
    while (at < length) {
        struct iovec part[64];
        int n = mull_iov_slice(iov, niov, at, length - at, part, 64);
        ssize_t done = write ? pwritev(file->fd, part, n, (off_t)(offset + at))
                             : preadv(file->fd, part, n, (off_t)(offset + at));
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return -errno;
        if (done == 0)
            break;
        at += (uint64_t)done;
    }
    *got = at;
    return write && at < length ? -ENOSPC : 0;
}

/* O_DIRECT with a transfer that is not aligned: through a buffer, whole blocks at a time. */
static int move_bounced(struct mull_file *file, bool write, const struct iovec *iov, int niov,
                        uint64_t offset, uint64_t length)
{
    const uint64_t mask = file->align - 1;
    uint64_t old_size = atomic_load(&file->size), at = 0, got;
    void *buf;
    int ret = 0;

    if (posix_memalign(&buf, file->align, BOUNCE_MAX))
        return -ENOMEM;
    while (at < length && !ret) {
        uint64_t start = (offset + at) & ~mask, lead = offset + at - start;
        uint64_t n = length - at < BOUNCE_MAX - lead ? length - at : BOUNCE_MAX - lead;
        uint64_t whole = (lead + n + mask) & ~mask;
        struct iovec one = {buf, whole};
        bool partial = lead || whole != n;

        if (!write || partial) {
            ret = move_all(file, false, &one, 1, start, whole, &got);
            if (ret)
                break;
            memset((char *)buf + got, 0, whole - got);
        }
        if (!write) {
            mull_iov_fill(iov, niov, at, (char *)buf + lead, n);
        } else {
            mull_iov_copy(iov, niov, at, (char *)buf + lead, n);
            ret = move_all(file, true, &one, 1, start, whole, &got);
            /* The last block may reach past the end the file should have. */
            uint64_t end = start + lead + n > old_size ? start + lead + n : old_size;
            if (!ret && !file->block_device && start + whole > end &&
                ftruncate(file->fd, (off_t)end) < 0)
                ret = -errno;
        }
        at += n;
    }
    free(buf);
    return ret;
}

/* Take the space for a large write before it: a file system that finds room for each page while it
 * is written, and once more when it goes to the disk, does twice the work. */
static void reserve(struct mull_file *file, uint64_t offset, uint64_t length)
{
    if (length >= RESERVE_LEAST &&
        fallocate(file->fd, FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)length) < 0)
        atomic_store(&file->bulk, false); /* it cannot, or is full: the write will tell */
}

static int check_range(uint64_t offset, uint64_t length)
{
    return length > INT64_MAX || offset > INT64_MAX - length ? -EFBIG : 0;
}

int mull_file_readv(struct mull_file *file, const struct iovec *iov, int niov, uint64_t offset,
                    uint64_t length)
{
    uint64_t got = 0;
    int ret = check_range(offset, length);

    if (!ret)
        ret = observe(file, MULL_FILE_READ, offset, length, NULL, 0);
    if (ret)
        return ret;
    if (offset >= atomic_load(&file->size)) {
        mull_iov_zero(iov, niov, 0, length);
        return 0;
    }
    if (file->ops) {
        uint64_t size = atomic_load(&file->size), n = length;
        if (n > size - offset) {
            n = size - offset;
            mull_iov_zero(iov, niov, n, length - n);
        }
        return file->ops->readv(file, iov, niov, offset, n);
    }
    if (!aligned(file, iov, niov, offset, length))
        return move_bounced(file, false, iov, niov, offset, length);
    ret = move_all(file, false, iov, niov, offset, length, &got);
    if (!ret && got < length)
        mull_iov_zero(iov, niov, got, length - got);
    return ret;
}

int mull_file_read(struct mull_file *file, void *buf, uint64_t length, uint64_t offset)
{
    struct iovec iov = {buf, length};
    return mull_file_readv(file, &iov, 1, offset, length);
}

int mull_file_writev(struct mull_file *file, const struct iovec *iov, int niov, uint64_t offset,
                     uint64_t length)
{
    uint64_t got;
    int ret = file->readonly ? -EROFS : check_range(offset, length);

    if (!ret)
        ret = observe(file, MULL_FILE_WRITE, offset, length, iov, niov);
    if (ret)
        return ret;
    atomic_store(&file->dirty, true);
    if (file->ops)
        return offset + length > atomic_load(&file->size)
                   ? -ENOSPC
                   : file->ops->writev(file, iov, niov, offset, length);
    if (atomic_load_explicit(&file->bulk, memory_order_relaxed))
        reserve(file, offset, length);
    if (aligned(file, iov, niov, offset, length))
        ret = move_all(file, true, iov, niov, offset, length, &got);
    else
        ret = move_bounced(file, true, iov, niov, offset, length);
    if (!ret)
        mull_file_written(file, offset + length);
    return ret;
}

int mull_file_write(struct mull_file *file, const void *buf, uint64_t length, uint64_t offset)
{
    struct iovec iov = {(void *)(uintptr_t)buf, length};
    return mull_file_writev(file, &iov, 1, offset, length);
}

int mull_file_flush(struct mull_file *file)
{
    if (file->readonly || file->unsafe)
        return 0;
    int ret = observe(file, MULL_FILE_FLUSH, 0, 0, NULL, 0);
    if (ret)
        return ret;
    atomic_store(&file->dirty, false);
    if (file->ops) {
        ret = file->ops->flush ? file->ops->flush(file) : 0;
        if (ret)
            atomic_store(&file->dirty, true);
        return ret;
    }
    if (fdatasync(file->fd) < 0) {
        /* What failed to reach the disk may be lost from the cache too: it stays unflushed. */
        atomic_store(&file->dirty, true);
        return -errno;
    }
    return 0;
}

static bool unsupported(int code)
{
    return code == EOPNOTSUPP || code == ENOSYS || code == EINVAL || code == ENOTTY;
}

int mull_file_discard(struct mull_file *file, uint64_t offset, uint64_t length)
{
    int ret = file->readonly ? -EROFS : check_range(offset, length);
    if (ret || !length || atomic_load(&file->no_punch))
        return ret;
    ret = observe(file, MULL_FILE_PUNCH, offset, length, NULL, 0);
    if (ret)
        return ret;
    atomic_store(&file->dirty, true);
    if (file->ops)
        return file->ops->discard ? file->ops->discard(file, offset, length) : 0;
    while ((ret = fallocate(file->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset,
                            (off_t)length)) < 0 &&
           errno == EINTR)
        ;
    if (ret < 0 && unsupported(errno)) {
        if (errno != EINVAL)
            atomic_store(&file->no_punch, true);
        return 0;
    }
    return ret < 0 ? -errno : 0;
}

static int write_zeroes(struct mull_file *file, uint64_t offset, uint64_t length)
{
    void *zeroes;
    int ret = 0;

    if (posix_memalign(&zeroes, DIRECT_ALIGN, ZEROES_MAX))
        return -ENOMEM;
    memset(zeroes, 0, ZEROES_MAX);
    while (length && !ret) {
        uint64_t n = length < ZEROES_MAX ? length : ZEROES_MAX;
        ret = mull_file_write(file, zeroes, n, offset);
        offset += n;
        length -= n;
    }
    free(zeroes);
    return ret;
}

int mull_file_zero(struct mull_file *file, uint64_t offset, uint64_t length, bool may_unmap)
{
    static const int modes[2] = {FALLOC_FL_ZERO_RANGE, FALLOC_FL_PUNCH_HOLE};
    int ret = file->readonly ? -EROFS : check_range(offset, length);
    if (ret || !length)
        return ret;

    if (file->ops) {
        atomic_store(&file->dirty, true);
        ret = file->ops->zero ? file->ops->zero(file, offset, length, may_unmap) : -EOPNOTSUPP;
        return ret == -EOPNOTSUPP ? write_zeroes(file, offset, length) : ret;
    }
    for (int i = 0; i < 2; i++) {
        bool punch = may_unmap ? i == 0 : i == 1;
        atomic_bool *unable = punch ? &file->no_punch : &file->no_zero;
        if (atomic_load(unable))
            continue;
        ret = observe(file, punch ? MULL_FILE_PUNCH : MULL_FILE_ZERO, offset, length, NULL, 0);
        if (ret)
            return ret;
        atomic_store(&file->dirty, true);
        while ((ret = fallocate(file->fd, modes[punch] | FALLOC_FL_KEEP_SIZE, (off_t)offset,
                                (off_t)length)) < 0 &&
               errno == EINTR)
            ;
        if (ret == 0)
            return 0;
        if (!unsupported(errno))
            return -errno;
        if (errno != EINVAL)
            atomic_store(unable, true);
    }
    return write_zeroes(file, offset, length);
}

int mull_file_truncate(struct mull_file *file, uint64_t size)
{
    int ret = file->readonly ? -EROFS : check_range(size, 0);
    if (ret)
        return ret;
    if (file->fixed_size)
        return size <= atomic_load(&file->size) ? 0 : -ENOSPC;
    ret = observe(file, MULL_FILE_TRUNCATE, size, 0, NULL, 0);
    if (ret)
        return ret;
    atomic_store(&file->dirty, true);
    if (ftruncate(file->fd, (off_t)size) < 0)
        return -errno;
    atomic_store(&file->size, size);
    return 0;
}

int mull_file_next_data(struct mull_file *file, uint64_t offset, uint64_t *start, uint64_t *end)
{
    uint64_t size = atomic_load(&file->size);
    if (offset >= size)
        return -ENXIO;
    if (file->ops) {
        *start = offset;
        *end = size;
        return file->ops->next_data ? file->ops->next_data(file, offset, start, end) : 0;
    }
    off_t data = lseek(file->fd, (off_t)offset, SEEK_DATA);
    if (data < 0 && errno == ENXIO)
        return -ENXIO;
    if (data < 0) {
        *start = offset;
        *end = size;
        return 0;
    }
    off_t hole = lseek(file->fd, data, SEEK_HOLE);
    *start = (uint64_t)data;
    *end = hole < 0 || (uint64_t)hole > size ? size : (uint64_t)hole;
    return 0;
}

int mull_file_sync_folder(const char *path)
{
    char *folder = strdup(path);
    char *slash = folder ? strrchr(folder, '/') : NULL;
    if (!folder)
        return -ENOMEM;
    if (slash)
        slash[slash == folder] = 0;
    int fd = open(slash ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int ret = fd < 0 || fsync(fd) ? -errno : 0;
    if (fd >= 0)
        close(fd);
    free(folder);
    return ret == -EINVAL ? 0 : ret; /* not every file system syncs folders */
}

int mull_iov_slice(const struct iovec *iov, int niov, uint64_t skip, uint64_t length,
                   struct iovec *out, int max)
{
    int n = 0;
    for (int i = 0; i < niov && length && n < max; i++) {
        if (skip >= iov[i].iov_len) {
            skip -= iov[i].iov_len;
            continue;
        }
        uint64_t len = iov[i].iov_len - skip;
        if (len > length)
            len = length;
        out[n++] = (struct iovec){(char *)iov[i].iov_base + skip, len};
        length -= len;
        skip = 0;
    }
    return n;
}

/* Walk [skip, skip + length) of an iov; buf moves along. */
static void walk(const struct iovec *iov, int niov, uint64_t skip, uint64_t length, char *buf,
                 int mode)
{
    for (int i = 0; i < niov && length; i++) {
        if (skip >= iov[i].iov_len) {
            skip -= iov[i].iov_len;
            continue;
        }
        uint64_t len = iov[i].iov_len - skip;
        if (len > length)
            len = length;
        char *at = (char *)iov[i].iov_base + skip;
        if (mode == 0)
            memset(at, 0, len);
        else if (mode == 1)
            memcpy(at, buf, len);
        else
            memcpy(buf, at, len);
        if (buf)
            buf += len;
        length -= len;
        skip = 0;
    }
}

void mull_iov_zero(const struct iovec *iov, int niov, uint64_t skip, uint64_t length)
{
    walk(iov, niov, skip, length, NULL, 0);
}

void mull_iov_fill(const struct iovec *iov, int niov, uint64_t skip, const void *buf,
                   uint64_t length)
{
    walk(iov, niov, skip, length, (char *)(uintptr_t)buf, 1);
}

void mull_iov_copy(const struct iovec *iov, int niov, uint64_t skip, void *buf, uint64_t length)
{
    walk(iov, niov, skip, length, buf, 2);
}

uint64_t mull_iov_length(const struct iovec *iov, int niov)
{
    uint64_t sum = 0;
    for (int i = 0; i < niov; i++)
        if (__builtin_add_overflow(sum, (uint64_t)iov[i].iov_len, &sum))
            return UINT64_MAX;
    return sum;
}
