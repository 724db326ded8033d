/*
 * A FUSE server (linux/fuse.h, protocol 7.31 and later, as virtio 1.2, 5.11 carries it) over a
 * tree. Node numbers are those of the tree and are dropped only as often as they were given;
 * handles are numbers of a table. Knows no transport.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fuse.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "share/server.h"

#define MINOR_MIN 31
#define VALID_SECONDS                                                                              \
    1 /* how long the guest may trust what it was told: the host changes files, too */
#define DIRENTS 32768
#define WANTED_FLAGS                                                                               \
    (FUSE_ASYNC_READ | FUSE_ATOMIC_O_TRUNC | FUSE_BIG_WRITES | FUSE_AUTO_INVAL_DATA |              \
     FUSE_PARALLEL_DIROPS | FUSE_MAX_PAGES)

struct share_fuse {
    struct share_tree *tree;
    bool ready;                /* FUSE_INIT has come */
    int handle[SHARE_HANDLES]; /* descriptors; -1: free */
    unsigned first_free;       /* none below it is free */
    /* The request. */
    struct fuse_in_header header;
    const uint8_t *in;
    size_t in_len;
    /* The answer: what lies behind its header. */
    uint8_t *out;
    size_t room, len;
    char target[PATH_MAX];
};

/* ---- Requests and answers ---- */

/* Take a structure off the front. */
static int take(struct share_fuse *s, void *to, size_t size)
{
    if (s->in_len < size)
        return -EINVAL;
    memcpy(to, s->in, size);
    s->in += size;
    s->in_len -= size;
    return 0;
}

/* Take a string with its NUL. @return NULL: none */
static const char *take_string(struct share_fuse *s)
{
    const uint8_t *end = memchr(s->in, '\0', s->in_len);
    const char *text = (const char *)s->in;
    if (!end)
        return NULL;
    s->in_len -= (size_t)(end + 1 - s->in);
    s->in = end + 1;
    return text;
}

static int give(struct share_fuse *s, const void *from, size_t size)
{
    if (size > s->room - s->len)
        return -EMSGSIZE;
    memcpy(s->out + s->len, from, size);
    s->len += size;
    return 0;
}

static struct share_node *node_of(struct share_fuse *s)
{
    return share_node_by_id(s->tree, s->header.nodeid);
}

/* ---- Handles ---- */

/* Takes @fd. @return 0 or -ENFILE */
static int handle_add(struct share_fuse *s, int fd, uint64_t *out)
{
    for (unsigned i = s->first_free; i < SHARE_HANDLES; i++) {
        if (s->handle[i] >= 0)
            continue;
        s->handle[i] = fd;
        s->first_free = i + 1;
        *out = i;
        return 0;
    }
    close(fd);
    return -ENFILE;
}

static int handle_fd(const struct share_fuse *s, uint64_t handle)
{
    return handle < SHARE_HANDLES && s->handle[handle] >= 0 ? s->handle[handle] : -EBADF;
}

static void handle_drop(struct share_fuse *s, uint64_t handle)
{
    close(s->handle[handle]);
    s->handle[handle] = -1;
    if (handle < s->first_free)
        s->first_free = (unsigned)handle;
}

static void forget(struct share_fuse *s, struct share_node *node, uint64_t n)
{
    if (n > node->lookups)
        n = node->lookups;
    node->lookups -= n;
    if (n)
        share_put(s->tree, node, n);
}

/* As after a mount: nothing is open, the guest knows no node. */
static void forget_all(struct share_fuse *s)
{
    for (unsigned i = 0; i < SHARE_HANDLES; i++)
        if (s->handle[i] >= 0)
            handle_drop(s, i);
    for (uint64_t id = 1; id <= s->tree->count; id++) {
        struct share_node *node = share_node_by_id(s->tree, id);
        if (node)
            forget(s, node, UINT64_MAX);
    }
}

/* ---- Attributes ---- */

static void fill_attr(const struct stat *st, struct fuse_attr *a)
{
    *a = (struct fuse_attr){
        .ino = st->st_ino,
        .size = (uint64_t)st->st_size,
        .blocks = (uint64_t)st->st_blocks,
        .atime = (uint64_t)st->st_atim.tv_sec,
        .mtime = (uint64_t)st->st_mtim.tv_sec,
        .ctime = (uint64_t)st->st_ctim.tv_sec,
        .atimensec = (uint32_t)st->st_atim.tv_nsec,
        .mtimensec = (uint32_t)st->st_mtim.tv_nsec,
        .ctimensec = (uint32_t)st->st_ctim.tv_nsec,
        .mode = st->st_mode,
        .nlink = (uint32_t)st->st_nlink,
        .uid = st->st_uid,
        .gid = st->st_gid,
        .rdev = (uint32_t)st->st_rdev,
        .blksize = (uint32_t)st->st_blksize,
    };
}

static int give_attr(struct share_fuse *s, const struct share_node *node)
{
    struct fuse_attr_out out = {.attr_valid = VALID_SECONDS};
    struct stat st;
    if (fstat(node->fd, &st))
        return -errno;
    fill_attr(&st, &out.attr);
    return give(s, &out, sizeof(out));
}

/* Give an entry; the guest has the caller's reference then. */
static int give_entry(struct share_fuse *s, struct share_node *node)
{
    struct fuse_entry_out out = {.nodeid = node->id,
                                 .generation = node->generation,
                                 .entry_valid = VALID_SECONDS,
                                 .attr_valid = VALID_SECONDS};
    struct stat st;
    int ret = fstat(node->fd, &st) ? -errno : 0;
    if (!ret) {
        fill_attr(&st, &out.attr);
        ret = give(s, &out, sizeof(out));
    }
    if (ret)
        share_put(s->tree, node, 1);
    else
        node->lookups++;
    return ret;
}

static int entry_of(struct share_fuse *s, struct share_node *parent, const char *name)
{
    struct share_node *node;
    int ret = share_lookup(s->tree, parent, name, &node);
    return ret ? ret : give_entry(s, node);
}

static int do_init(struct share_fuse *s, struct share_node *node)
{
    struct fuse_init_in in = {0};
    /* Older kernels send less: up to flags at least. */
    if (s->in_len < 16)
        return -EINVAL;
    memcpy(&in, s->in, s->in_len < sizeof(in) ? s->in_len : sizeof(in));
    forget_all(s);
    s->ready = in.major == FUSE_KERNEL_VERSION && in.minor >= MINOR_MIN;
    struct fuse_init_out out = {
        .major = FUSE_KERNEL_VERSION,
        .minor = in.minor < FUSE_KERNEL_MINOR_VERSION ? in.minor : FUSE_KERNEL_MINOR_VERSION,
        .max_readahead = in.max_readahead,
        .flags = in.flags & WANTED_FLAGS,
        .max_background = 64,
        .congestion_threshold = 48,
        .max_write = SHARE_IO_MAX,
        .time_gran = 1,
        .max_pages = SHARE_IO_MAX / 4096,
    };
    if (in.major != FUSE_KERNEL_VERSION)
        out.minor = FUSE_KERNEL_MINOR_VERSION; /* the guest asks again if it can (fuse.h) */
    else if (!s->ready)
        return -EPROTO;
    return give(s, &out, sizeof(out));
}

static int do_destroy(struct share_fuse *s, struct share_node *node)
{
    forget_all(s);
    s->ready = false;
    return 0;
}

static int do_lookup(struct share_fuse *s, struct share_node *node)
{
    const char *name = take_string(s);
    return name ? entry_of(s, node, name) : -EINVAL;
}

static int do_getattr(struct share_fuse *s, struct share_node *node)
{
    return give_attr(s, node);
}

static void set_time(struct timespec *t, uint32_t valid, uint32_t set, uint32_t now,
                     uint64_t seconds, uint32_t nanoseconds)
{
    t->tv_sec = (time_t)seconds;
    t->tv_nsec = !(valid & set) ? UTIME_OMIT : valid & now ? UTIME_NOW : nanoseconds % 1000000000;
}

static int do_setattr(struct share_fuse *s, struct share_node *node)
{
    struct fuse_setattr_in in;
    int ret = take(s, &in, sizeof(in));
    if (ret)
        return ret;
    struct share_change c = {
        .mode_set = in.valid & FATTR_MODE,
        .uid_set = in.valid & FATTR_UID,
        .gid_set = in.valid & FATTR_GID,
        .size_set = in.valid & FATTR_SIZE,
        .times_set = in.valid & (FATTR_ATIME | FATTR_MTIME),
        .mode = in.mode,
        .uid = in.uid,
        .gid = in.gid,
        .size = in.size,
    };
    set_time(&c.times[0], in.valid, FATTR_ATIME, FATTR_ATIME_NOW, in.atime, in.atimensec);
    set_time(&c.times[1], in.valid, FATTR_MTIME, FATTR_MTIME_NOW, in.mtime, in.mtimensec);
    ret = share_change(s->tree, node, &c);
    return ret ? ret : give_attr(s, node);
}

static int do_statfs(struct share_fuse *s, struct share_node *node)
{
    struct statfs st;
    if (fstatfs(node->fd, &st))
        return -errno;
    const struct fuse_statfs_out out = {.st = {.blocks = st.f_blocks,
                                               .bfree = st.f_bfree,
                                               .bavail = st.f_bavail,
                                               .files = st.f_files,
                                               .ffree = st.f_ffree,
                                               .bsize = (uint32_t)st.f_bsize,
                                               .namelen = (uint32_t)st.f_namelen,
                                               .frsize = (uint32_t)st.f_frsize}};
    return give(s, &out, sizeof(out));
}

static int do_readlink(struct share_fuse *s, struct share_node *node)
{
    ssize_t n = readlinkat(node->fd, "", s->target, sizeof(s->target));
    return n < 0 ? -errno : give(s, s->target, (size_t)n);
}

/* ---- Names ---- */

static int do_symlink(struct share_fuse *s, struct share_node *node)
{
    const char *name = take_string(s), *target = take_string(s);
    if (!name || !target)
        return -EINVAL;
    int ret = share_symlink(s->tree, node, name, target);
    return ret ? ret : entry_of(s, node, name);
}

static int do_mknod(struct share_fuse *s, struct share_node *node)
{
    struct fuse_mknod_in in;
    int ret = take(s, &in, sizeof(in));
    const char *name = ret ? NULL : take_string(s);
    if (!name)
        return -EINVAL;
    ret = share_mknod(s->tree, node, name, in.mode & ~in.umask);
    return ret ? ret : entry_of(s, node, name);
}

static int do_mkdir(struct share_fuse *s, struct share_node *node)
{
    struct fuse_mkdir_in in;
    int ret = take(s, &in, sizeof(in));
    const char *name = ret ? NULL : take_string(s);
    if (!name)
        return -EINVAL;
    ret = share_mkdir(s->tree, node, name, in.mode & ~in.umask);
    return ret ? ret : entry_of(s, node, name);
}

static int do_unlink(struct share_fuse *s, struct share_node *node)
{
    const char *name = take_string(s);
    return name ? share_unlink(s->tree, node, name, s->header.opcode == FUSE_RMDIR) : -EINVAL;
}

static int do_rename(struct share_fuse *s, struct share_node *node)
{
    struct fuse_rename2_in in = {0};
    bool flags = s->header.opcode == FUSE_RENAME2;
    int ret = take(s, &in, flags ? sizeof(in) : sizeof(struct fuse_rename_in));
    const char *from = ret ? NULL : take_string(s), *to = from ? take_string(s) : NULL;
    struct share_node *into = share_node_by_id(s->tree, in.newdir);
    if (!to || !into)
        return to ? -ESTALE : -EINVAL;
    return share_rename(s->tree, node, from, into, to, flags ? in.flags : 0);
}

static int do_link(struct share_fuse *s, struct share_node *node)
{
    struct fuse_link_in in;
    int ret = take(s, &in, sizeof(in));
    const char *name = ret ? NULL : take_string(s);
    struct share_node *old = ret ? NULL : share_node_by_id(s->tree, in.oldnodeid);
    if (!name || !old)
        return name ? -ESTALE : -EINVAL;
    ret = share_link(s->tree, old, node, name);
    return ret ? ret : entry_of(s, node, name);
}

/* ---- Files ---- */

static int give_open(struct share_fuse *s, int fd)
{
    struct fuse_open_out out = {0};
    int ret = handle_add(s, fd, &out.fh);
    if (!ret && (ret = give(s, &out, sizeof(out))))
        handle_drop(s, out.fh);
    return ret;
}

static int do_open(struct share_fuse *s, struct share_node *node)
{
    struct fuse_open_in in;
    int ret = take(s, &in, sizeof(in));
    if (ret)
        return ret;
    bool folder = s->header.opcode == FUSE_OPENDIR;
    if (folder != S_ISDIR(node->type))
        return folder ? -ENOTDIR : -EISDIR;
    int fd = share_open(s->tree, node, folder ? O_RDONLY | O_DIRECTORY : (int)in.flags);
    return fd < 0 ? fd : give_open(s, fd);
}

static int do_create(struct share_fuse *s, struct share_node *node)
{
    struct fuse_create_in in;
    struct share_node *made;
    int ret = take(s, &in, sizeof(in));
    const char *name = ret ? NULL : take_string(s);
    if (!name)
        return -EINVAL;
    int fd = share_create(s->tree, node, name, (int)in.flags, in.mode & ~in.umask, &made);
    if (fd < 0)
        return fd;
    ret = give_entry(s, made);
    if (ret) {
        close(fd);
        return ret;
    }
    ret = give_open(s, fd);
    if (ret)
        forget(s, made, 1);
    return ret;
}

static int do_release(struct share_fuse *s, struct share_node *node)
{
    struct fuse_release_in in;
    int ret = take(s, &in, sizeof(in));
    if (!ret)
        ret = handle_fd(s, in.fh);
    if (ret < 0)
        return ret;
    handle_drop(s, in.fh);
    return 0;
}

static int do_read(struct share_fuse *s, struct share_node *node)
{
    struct fuse_read_in in;
    int ret = take(s, &in, sizeof(in));
    int fd = ret ? ret : handle_fd(s, in.fh);
    if (fd < 0)
        return fd;
    if (in.offset > INT64_MAX)
        return -EINVAL;
    size_t want = in.size < s->room ? in.size : s->room;
    ssize_t n = pread(fd, s->out, want, (off_t)in.offset);
    if (n < 0)
        return -errno;
    s->len = (size_t)n;
    return 0;
}

static int do_write(struct share_fuse *s, struct share_node *node)
{
    struct fuse_write_in in;
    int ret = take(s, &in, sizeof(in));
    int fd = ret ? ret : handle_fd(s, in.fh);
    if (fd < 0)
        return fd;
    if (in.size > s->in_len || in.offset > INT64_MAX)
        return -EINVAL;
    ssize_t n = pwrite(fd, s->in, in.size, (off_t)in.offset);
    if (n < 0)
        return -errno;
    const struct fuse_write_out out = {.size = (uint32_t)n};
    return give(s, &out, sizeof(out));
}

static int do_flush(struct share_fuse *s, struct share_node *node)
{
    return 0; /* what was written is the host's already */
}

static int do_fsync(struct share_fuse *s, struct share_node *node)
{
    struct fuse_fsync_in in;
    int ret = take(s, &in, sizeof(in));
    int fd = ret ? ret : handle_fd(s, in.fh);
    if (fd < 0)
        return fd;
    return (in.fsync_flags & FUSE_FSYNC_FDATASYNC ? fdatasync(fd) : fsync(fd)) ? -errno : 0;
}

static int do_fallocate(struct share_fuse *s, struct share_node *node)
{
    struct fuse_fallocate_in in;
    int ret = take(s, &in, sizeof(in));
    int fd = ret ? ret : handle_fd(s, in.fh);
    if (fd < 0)
        return fd;
    if (in.offset > INT64_MAX || in.length > INT64_MAX)
        return -EINVAL;
    return fallocate(fd, (int)in.mode, (off_t)in.offset, (off_t)in.length) ? -errno : 0;
}

static int do_lseek(struct share_fuse *s, struct share_node *node)
{
    struct fuse_lseek_in in;
    int ret = take(s, &in, sizeof(in));
    int fd = ret ? ret : handle_fd(s, in.fh);
    if (fd < 0)
        return fd;
    if (in.offset > INT64_MAX || (in.whence != SEEK_DATA && in.whence != SEEK_HOLE))
        return -EINVAL;
    off_t at = lseek(fd, (off_t)in.offset, (int)in.whence);
    if (at < 0)
        return -errno;
    const struct fuse_lseek_out out = {.offset = (uint64_t)at};
    return give(s, &out, sizeof(out));
}

static int do_copy(struct share_fuse *s, struct share_node *node)
{
    struct fuse_copy_file_range_in in;
    int ret = take(s, &in, sizeof(in));
    int from = ret ? ret : handle_fd(s, in.fh_in), to = ret ? ret : handle_fd(s, in.fh_out);
    if (from < 0 || to < 0)
        return from < 0 ? from : to;
    if (in.off_in > INT64_MAX || in.off_out > INT64_MAX || in.flags)
        return -EINVAL;
    off_t at_in = (off_t)in.off_in, at_out = (off_t)in.off_out;
    /* Bounded: meanwhile nobody else is served. */
    size_t len = in.len < 64 * SHARE_IO_MAX ? in.len : 64 * SHARE_IO_MAX;
    ssize_t n = copy_file_range(from, &at_in, to, &at_out, len, 0);
    if (n < 0)
        return -errno;
    const struct fuse_write_out out = {.size = (uint32_t)n};
    return give(s, &out, sizeof(out));
}

/* @return false: no room */
static bool give_dirent(struct share_fuse *s, size_t end, const struct dirent64 *d)
{
    struct fuse_dirent entry = {.ino = d->d_ino,
                                .off = (uint64_t)d->d_off,
                                .namelen = (uint32_t)strlen(d->d_name),
                                .type = d->d_type};
    size_t size = FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET + entry.namelen);
    if (size > end - s->len)
        return false;
    memset(s->out + s->len, 0, size);
    memcpy(s->out + s->len, &entry, FUSE_NAME_OFFSET);
    memcpy(s->out + s->len + FUSE_NAME_OFFSET, d->d_name, entry.namelen);
    s->len += size;
    return true;
}

static int do_readdir(struct share_fuse *s, struct share_node *node)
{
    _Alignas(struct dirent64) char entries[DIRENTS];
    struct fuse_read_in in;
    int ret = take(s, &in, sizeof(in));
    int fd = ret ? ret : handle_fd(s, in.fh);
    if (fd < 0)
        return fd;
    if (in.offset > INT64_MAX || lseek(fd, (off_t)in.offset, SEEK_SET) < 0)
        return -EINVAL;
    size_t end = in.size < s->room ? in.size : s->room;
    ssize_t n;
    while ((n = getdents64(fd, entries, sizeof(entries))) > 0) {
        for (ssize_t at = 0; at < n;) {
            const struct dirent64 *d = (const void *)(entries + at);
            if (!give_dirent(s, end, d))
                return 0;
            at += d->d_reclen;
        }
    }
    return n < 0 ? -errno : 0;
}

/* ---- Extended attributes ---- */

static int do_setxattr(struct share_fuse *s, struct share_node *node)
{
    struct fuse_setxattr_in in;
    int ret = take(s, &in, FUSE_COMPAT_SETXATTR_IN_SIZE);
    const char *name = ret ? NULL : take_string(s);
    if (!name || in.size > s->in_len)
        return -EINVAL;
    return share_setxattr(s->tree, node, name, s->in, in.size, (int)in.flags);
}

static int do_getxattr(struct share_fuse *s, struct share_node *node)
{
    struct fuse_getxattr_in in;
    bool list = s->header.opcode == FUSE_LISTXATTR;
    int ret = take(s, &in, sizeof(in));
    const char *name = ret || list ? NULL : take_string(s);
    if (ret || (!name && !list))
        return -EINVAL;
    size_t room = in.size < s->room ? in.size : s->room;
    ssize_t n = list ? share_listxattr(node, (char *)s->out, in.size ? room : 0)
                     : share_getxattr(node, name, s->out, in.size ? room : 0);
    if (n < 0)
        return (int)n;
    if (in.size) {
        s->len = (size_t)n;
        return 0;
    }
    const struct fuse_getxattr_out out = {.size = (uint32_t)n};
    return give(s, &out, sizeof(out));
}

static int do_removexattr(struct share_fuse *s, struct share_node *node)
{
    const char *name = take_string(s);
    return name ? share_removexattr(s->tree, node, name) : -EINVAL;
}

/* ---- Dispatch ---- */

/* FORGET and BATCH_FORGET: no answer. */
static void do_forget(struct share_fuse *s)
{
    struct fuse_forget_in one;
    struct fuse_batch_forget_in batch;
    struct fuse_forget_one item;
    struct share_node *node;

    if (s->header.opcode == FUSE_FORGET) {
        if (!take(s, &one, sizeof(one)) && (node = node_of(s)))
            forget(s, node, one.nlookup);
        return;
    }
    if (take(s, &batch, sizeof(batch)))
        return;
    for (uint32_t i = 0; i < batch.count && !take(s, &item, sizeof(item)); i++)
        if ((node = share_node_by_id(s->tree, item.nodeid)))
            forget(s, node, item.nlookup);
}

static const struct {
    uint32_t opcode;
    int (*fn)(struct share_fuse *s, struct share_node *node);
} handlers[] = {
    {FUSE_LOOKUP, do_lookup},
    {FUSE_GETATTR, do_getattr},
    {FUSE_SETATTR, do_setattr},
    {FUSE_READLINK, do_readlink},
    {FUSE_SYMLINK, do_symlink},
    {FUSE_MKNOD, do_mknod},
    {FUSE_MKDIR, do_mkdir},
    {FUSE_UNLINK, do_unlink},
    {FUSE_RMDIR, do_unlink},
    {FUSE_RENAME, do_rename},
    {FUSE_RENAME2, do_rename},
    {FUSE_LINK, do_link},
    {FUSE_OPEN, do_open},
    {FUSE_OPENDIR, do_open},
    {FUSE_READ, do_read},
    {FUSE_WRITE, do_write},
    {FUSE_STATFS, do_statfs},
    {FUSE_RELEASE, do_release},
    {FUSE_RELEASEDIR, do_release},
    {FUSE_FSYNC, do_fsync},
    {FUSE_FSYNCDIR, do_fsync},
    {FUSE_SETXATTR, do_setxattr},
    {FUSE_GETXATTR, do_getxattr},
    {FUSE_LISTXATTR, do_getxattr},
    {FUSE_REMOVEXATTR, do_removexattr},
    {FUSE_FLUSH, do_flush},
    {FUSE_READDIR, do_readdir},
    {FUSE_CREATE, do_create},
    {FUSE_FALLOCATE, do_fallocate},
    {FUSE_LSEEK, do_lseek},
    {FUSE_COPY_FILE_RANGE, do_copy},
};

static int dispatch(struct share_fuse *s)
{
    if (s->header.opcode == FUSE_INIT)
        return do_init(s, NULL);
    if (!s->ready)
        return -EPROTO;
    if (s->header.opcode == FUSE_DESTROY)
        return do_destroy(s, NULL);
    for (unsigned i = 0; i < sizeof(handlers) / sizeof(handlers[0]); i++) {
        if (handlers[i].opcode != s->header.opcode)
            continue;
        struct share_node *node = node_of(s);
        return node ? handlers[i].fn(s, node) : -ESTALE;
    }
    return -ENOSYS;
}

size_t share_fuse_handle(struct share_fuse *s, const void *request, size_t len, void *answer,
                         size_t room)
{
    struct fuse_out_header out = {.len = sizeof(out)};
    s->in = request;
    s->in_len = len;
    s->len = 0;
    if (take(s, &s->header, sizeof(s->header)))
        return 0;
    if (s->header.opcode == FUSE_FORGET || s->header.opcode == FUSE_BATCH_FORGET) {
        if (s->ready)
            do_forget(s);
        return 0;
    }
    if (room < sizeof(out))
        return 0;
    s->out = (uint8_t *)answer + sizeof(out);
    s->room = room - sizeof(out);
    int ret = s->header.len != len ? -EINVAL : dispatch(s);
    if (ret)
        s->len = 0;
    out.unique = s->header.unique;
    out.error = ret;
    out.len += (uint32_t)s->len;
    memcpy(answer, &out, sizeof(out));
    return out.len;
}

struct share_fuse *share_fuse_create(struct share_tree *tree)
{
    struct share_fuse *s = calloc(1, sizeof(*s));
    if (!s)
        return NULL;
    s->tree = tree;
    for (unsigned i = 0; i < SHARE_HANDLES; i++)
        s->handle[i] = -1;
    return s;
}

void share_fuse_destroy(struct share_fuse *s)
{
    if (s)
        forget_all(s);
    free(s);
}
