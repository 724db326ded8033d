/*
 * A 9P2000.L server (the protocol of Linux's v9fs: 9P2000 with the messages of diod's protocol.md)
 * over a tree. A fid is a node and, once opened, a descriptor; what a message names is looked up
 * and checked each time. Knows no transport.
 */
#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "share/server.h"

#define HEADER 7 /* size[4] type[1] tag[2] */
#define MSIZE_MIN 4096u
#define IO_HEADER 24u /* what a client keeps free beside the data of a transfer */
#define WALK_MAX 16
#define FID_HASH 256
#define NO_FID UINT32_MAX
#define DIRENTS 32768

enum type {
    RLERROR = 7,
    TSTATFS = 8,
    TLOPEN = 12,
    TLCREATE = 14,
    TSYMLINK = 16,
    TMKNOD = 18,
    TRENAME = 20,
    TREADLINK = 22,
    TGETATTR = 24,
    TSETATTR = 26,
    TXATTRWALK = 30,
    TXATTRCREATE = 32,
    TREADDIR = 40,
    TFSYNC = 50,
    TLOCK = 52,
    TGETLOCK = 54,
    TLINK = 70,
    TMKDIR = 72,
    TRENAMEAT = 74,
    TUNLINKAT = 76,
    TVERSION = 100,
    TATTACH = 104,
    TFLUSH = 108,
    TWALK = 110,
    TREAD = 116,
    TWRITE = 118,
    TCLUNK = 120,
    TREMOVE = 122,
};

enum xattr_use { XATTR_NONE, XATTR_READ, XATTR_WRITE };

struct fid {
    struct fid *next;
    uint32_t number;
    struct share_node *node; /* holds a reference */
    char *name;              /* what it was walked to by, for remove and rename; NULL: the root */
    int fd;                  /* -1: not open */
    enum xattr_use xattr;
    char xattr_name[XATTR_NAME_MAX + 1];
    int xattr_flags;
    uint8_t *value; /* of the attribute: what is read, or gathered to be set */
    size_t size, have;
};

struct share_p9 {
    struct share_tree *tree;
    uint32_t msize;
    bool versioned;
    unsigned fids;
    struct fid *fid[FID_HASH];
    /* The request. */
    const uint8_t *in;
    size_t in_len, at;
    bool short_in; /* more was asked of it than there is */
    /* The answer. */
    uint8_t *out;
    size_t room, len;
    bool full; /* more was put into it than it holds */
    char name[2][NAME_MAX + 1];
    char target[PATH_MAX];
};

/* ---- Messages: little-endian numbers, strings with a length of 16 bits ---- */

static uint64_t get(struct share_p9 *s, unsigned bytes)
{
    uint64_t value = 0;
    if (s->in_len - s->at < bytes) {
        s->short_in = true;
        return 0;
    }
    memcpy(&value, s->in + s->at, bytes);
    s->at += bytes;
    return le64toh(value);
}

static uint32_t get32(struct share_p9 *s)
{
    return (uint32_t)get(s, 4);
}

/* @return 0 or -EINVAL, -ENAMETOOLONG; the string is in @to, which holds @room bytes */
static int get_string(struct share_p9 *s, char *to, size_t room)
{
    size_t len = (size_t)get(s, 2);
    *to = '\0';
    if (s->short_in || len > s->in_len - s->at) {
        s->short_in = true;
        return -EINVAL;
    }
    const uint8_t *from = s->in + s->at;
    s->at += len;
    if (len >= room)
        return -ENAMETOOLONG;
    if (memchr(from, '\0', len))
        return -EINVAL;
    memcpy(to, from, len);
    to[len] = '\0';
    return 0;
}

static void *put_room(struct share_p9 *s, size_t bytes)
{
    if (bytes > s->room - s->len) {
        s->full = true;
        return NULL;
    }
    s->len += bytes;
    return s->out + s->len - bytes;
}

static void put(struct share_p9 *s, uint64_t value, unsigned bytes)
{
    void *to = put_room(s, bytes);
    value = htole64(value);
    if (to)
        memcpy(to, &value, bytes);
}

static void put_string(struct share_p9 *s, const char *text, size_t len)
{
    put(s, len, 2);
    void *to = put_room(s, len);
    if (to)
        memcpy(to, text, len);
}

static void put_qid(struct share_p9 *s, const struct stat *st)
{
    put(s, S_ISDIR(st->st_mode) ? 0x80 : S_ISLNK(st->st_mode) ? 0x02 : 0, 1);
    put(s, (uint64_t)st->st_mtim.tv_nsec ^ (uint64_t)st->st_mtim.tv_sec << 8, 4);
    put(s, st->st_ino, 8);
}

static int put_node_qid(struct share_p9 *s, const struct share_node *node)
{
    struct stat st;
    if (fstat(node->fd, &st))
        return -errno;
    put_qid(s, &st);
    return 0;
}

/* ---- Fids ---- */

static struct fid *find(const struct share_p9 *s, uint32_t number)
{
    struct fid *f = s->fid[number % FID_HASH];
    while (f && f->number != number)
        f = f->next;
    return f;
}

/* Takes the caller's reference to @node, also after an error. */
static int add_fid(struct share_p9 *s, uint32_t number, struct share_node *node, const char *name,
                   struct fid **out)
{
    struct fid *f = NULL;
    int ret = 0;
    if (number == NO_FID || find(s, number))
        ret = -EBADF;
    else if (s->fids == SHARE_HANDLES)
        ret = -ENFILE;
    else if (!(f = calloc(1, sizeof(*f))) || (name && !(f->name = strdup(name))))
        ret = -ENOMEM;
    if (ret) {
        free(f);
        share_put(s->tree, node, 1);
        return ret;
    }
    f->number = number;
    f->node = node;
    f->fd = -1;
    f->next = s->fid[number % FID_HASH];
    s->fid[number % FID_HASH] = f;
    s->fids++;
    *out = f;
    return 0;
}

static void drop_fid(struct share_p9 *s, struct fid *f)
{
    struct fid **at = &s->fid[f->number % FID_HASH];
    while (*at != f)
        at = &(*at)->next;
    *at = f->next;
    s->fids--;
    if (f->fd >= 0)
        close(f->fd);
    share_put(s->tree, f->node, 1);
    free(f->name);
    free(f->value);
    free(f);
}

static void drop_all(struct share_p9 *s)
{
    for (unsigned i = 0; i < FID_HASH; i++)
        while (s->fid[i])
            drop_fid(s, s->fid[i]);
}

/* The fid that the message names next. */
static int get_fid(struct share_p9 *s, struct fid **out)
{
    *out = find(s, get32(s));
    return *out ? 0 : -EBADF;
}

/* ---- Session ---- */

static int do_version(struct share_p9 *s)
{
    char version[16];
    uint32_t msize = get32(s);
    int ret = get_string(s, version, sizeof(version));
    if (s->short_in || msize < MSIZE_MIN)
        return -EINVAL;
    drop_all(s); /* a new session (version(5)) */
    s->msize = msize < SHARE_IO_MAX ? msize : SHARE_IO_MAX;
    s->versioned = !ret && !strcmp(version, "9P2000.L");
    put(s, s->msize, 4);
    put_string(s, s->versioned ? "9P2000.L" : "unknown", s->versioned ? 8 : 7);
    return 0;
}

static int do_attach(struct share_p9 *s)
{
    uint32_t number = get32(s);
    struct fid *f;
    share_get(s->tree->root);
    int ret = add_fid(s, number, s->tree->root, NULL, &f);
    return ret ? ret : put_node_qid(s, f->node);
}

/* One step of a walk; takes no reference of @from, gives one of *out. */
static int step(struct share_p9 *s, struct share_node *from, const char *name,
                struct share_node **out)
{
    if (strcmp(name, "..") && strcmp(name, "."))
        return share_lookup(s->tree, from, name, out);
    if (!S_ISDIR(from->type))
        return -ENOTDIR;
    *out = strcmp(name, ".") && from->parent ? from->parent : from;
    share_get(*out);
    return 0;
}

static int do_walk(struct share_p9 *s)
{
    struct fid *from, *to;
    uint16_t done = 0;
    int ret = get_fid(s, &from);
    uint32_t number = get32(s);
    unsigned count = (unsigned)get(s, 2);
    if (ret || s->short_in || count > WALK_MAX)
        return ret ? ret : -EINVAL;
    if (from->xattr != XATTR_NONE || (number == from->number && from->fd >= 0))
        return -EBADF;
    size_t count_at = s->len;
    put(s, 0, 2);
    struct share_node *node = from->node;
    const char *name = from->name;
    share_get(node);
    while (done < count) {
        struct share_node *next;
        ret = get_string(s, s->name[done & 1], sizeof(s->name[0]));
        if (!ret)
            ret = step(s, node, s->name[done & 1], &next);
        if (ret)
            break;
        share_put(s->tree, node, 1);
        node = next;
        name = s->name[done & 1];
        ret = put_node_qid(s, node);
        if (ret)
            break;
        done++;
    }
    if (ret || s->full) {
        share_put(s->tree, node, 1);
        if (!done || s->full)
            return ret;
        s->out[count_at] = (uint8_t)done; /* as far as it went; no new fid (walk(5)) */
        return 0;
    }
    s->out[count_at] = (uint8_t)done;
    if (number == from->number) {
        char *copy = name ? strdup(name) : NULL;
        if (name && !copy) {
            share_put(s->tree, node, 1);
            return -ENOMEM;
        }
        share_put(s->tree, from->node, 1);
        free(from->name);
        from->node = node;
        from->name = copy;
        return 0;
    }
    return add_fid(s, number, node, name, &to);
}

static int finish_xattr(struct share_p9 *s, struct fid *f)
{
    if (f->xattr != XATTR_WRITE)
        return 0;
    if (f->have != f->size)
        return -EIO;
    return f->size
               ? share_setxattr(s->tree, f->node, f->xattr_name, f->value, f->size, f->xattr_flags)
               : share_removexattr(s->tree, f->node, f->xattr_name);
}

static int do_clunk(struct share_p9 *s)
{
    struct fid *f;
    int ret = get_fid(s, &f);
    if (ret)
        return ret;
    ret = finish_xattr(s, f);
    drop_fid(s, f); /* also after an error (clunk(5)) */
    return ret;
}

/* ---- Attributes ---- */

static int do_statfs(struct share_p9 *s)
{
    struct statfs st;
    struct fid *f;
    int ret = get_fid(s, &f);
    if (ret)
        return ret;
    if (fstatfs(f->node->fd, &st))
        return -errno;
    put(s, 0x01021997, 4); /* V9FS_MAGIC */
    put(s, (uint64_t)st.f_bsize, 4);
    put(s, st.f_blocks, 8);
    put(s, st.f_bfree, 8);
    put(s, st.f_bavail, 8);
    put(s, st.f_files, 8);
    put(s, st.f_ffree, 8);
    put(s, 0, 8);
    put(s, (uint64_t)st.f_namelen, 4);
    return 0;
}

static int do_getattr(struct share_p9 *s)
{
    struct stat st;
    struct fid *f;
    int ret = get_fid(s, &f);
    if (ret)
        return ret;
    if (fstat(f->node->fd, &st))
        return -errno;
    put(s, 0x7ff, 8); /* P9_GETATTR_BASIC */
    put_qid(s, &st);
    put(s, st.st_mode, 4);
    put(s, st.st_uid, 4);
    put(s, st.st_gid, 4);
    put(s, st.st_nlink, 8);
    put(s, st.st_rdev, 8);
    put(s, (uint64_t)st.st_size, 8);
    put(s, (uint64_t)st.st_blksize, 8);
    put(s, (uint64_t)st.st_blocks, 8);
    const struct timespec times[4] = {st.st_atim, st.st_mtim, st.st_ctim, {0}};
    for (unsigned i = 0; i < 4; i++) {
        put(s, (uint64_t)times[i].tv_sec, 8);
        put(s, (uint64_t)times[i].tv_nsec, 8);
    }
    put(s, 0, 8); /* generation */
    put(s, 0, 8); /* data version */
    return 0;
}

static void get_time(struct share_p9 *s, uint32_t valid, uint32_t set, uint32_t given,
                     struct timespec *out)
{
    out->tv_sec = (time_t)get(s, 8);
    out->tv_nsec = (long)(get(s, 8) % 1000000000u);
    if (!(valid & set))
        out->tv_nsec = UTIME_OMIT;
    else if (!(valid & given))
        out->tv_nsec = UTIME_NOW;
}

static int do_setattr(struct share_p9 *s)
{
    struct share_change c = {0};
    struct fid *f;
    int ret = get_fid(s, &f);
    uint32_t valid = get32(s);
    c.mode = get32(s);
    c.uid = get32(s);
    c.gid = get32(s);
    c.size = get(s, 8);
    get_time(s, valid, 1 << 4, 1 << 7, &c.times[0]);
    get_time(s, valid, 1 << 5, 1 << 8, &c.times[1]);
    if (ret || s->short_in)
        return ret ? ret : -EINVAL;
    c.mode_set = valid & 1 << 0;
    c.uid_set = valid & 1 << 1;
    c.gid_set = valid & 1 << 2;
    c.size_set = valid & 1 << 3;
    c.times_set = valid & (1 << 4 | 1 << 5);
    return share_change(s->tree, f->node, &c);
}

static int do_readlink(struct share_p9 *s)
{
    struct fid *f;
    int ret = get_fid(s, &f);
    if (ret)
        return ret;
    ssize_t n = readlinkat(f->node->fd, "", s->target, sizeof(s->target));
    if (n < 0)
        return -errno;
    put_string(s, s->target, (size_t)n);
    return 0;
}

static int do_xattrwalk(struct share_p9 *s)
{
    char name[XATTR_NAME_MAX + 1];
    struct fid *f, *x;
    int ret = get_fid(s, &f);
    uint32_t number = get32(s);
    if (!ret)
        ret = get_string(s, name, sizeof(name));
    if (ret)
        return ret;
    ssize_t n = *name ? share_getxattr(f->node, name, NULL, 0) : share_listxattr(f->node, NULL, 0);
    if (n < 0)
        return (int)n;
    uint8_t *value = malloc((size_t)n + 1);
    if (!value)
        return -ENOMEM;
    n = !n      ? 0
        : *name ? share_getxattr(f->node, name, value, (size_t)n)
                : share_listxattr(f->node, (char *)value, (size_t)n);
    if (n >= 0) {
        share_get(f->node);
        ret = add_fid(s, number, f->node, NULL, &x);
    } else {
        ret = (int)n;
    }
    if (ret) {
        free(value);
        return ret;
    }
    x->xattr = XATTR_READ;
    x->value = value;
    x->size = (size_t)n;
    put(s, (uint64_t)n, 8);
    return 0;
}

static int do_xattrcreate(struct share_p9 *s)
{
    struct fid *f;
    int ret = get_fid(s, &f);
    if (!ret && (f->fd >= 0 || f->xattr != XATTR_NONE))
        ret = -EBADF;
    if (ret)
        return ret;
    ret = get_string(s, f->xattr_name, sizeof(f->xattr_name));
    uint64_t size = get(s, 8);
    uint32_t flags = get32(s);
    if (ret || s->short_in)
        return ret ? ret : -EINVAL;
    if (size > XATTR_SIZE_MAX || (flags & ~(uint32_t)(XATTR_CREATE | XATTR_REPLACE)))
        return -E2BIG;
    f->value = malloc(size + 1);
    if (!f->value)
        return -ENOMEM;
    f->xattr = XATTR_WRITE;
    f->xattr_flags = (int)flags;
    f->size = size;
    f->have = 0;
    return 0;
}

/* ---- Files ---- */

/* Linux's own numbers of open flags, those of generic architectures, are what x86-64 uses. */
static int open_fid(struct share_p9 *s, struct fid *f, uint32_t flags)
{
    int fd = share_open(s->tree, f->node, (int)(flags & ~(uint32_t)O_DIRECTORY));
    if (fd < 0)
        return fd;
    f->fd = fd;
    return 0;
}

static int do_lopen(struct share_p9 *s)
{
    struct fid *f;
    int ret = get_fid(s, &f);
    uint32_t flags = get32(s);
    if (!ret && (f->fd >= 0 || f->xattr != XATTR_NONE))
        ret = -EBADF;
    if (!ret)
        ret = open_fid(s, f, flags);
    if (!ret)
        ret = put_node_qid(s, f->node);
    put(s, 0, 4); /* iounit: as msize allows */
    return ret;
}

static int do_lcreate(struct share_p9 *s)
{
    struct share_node *node;
    struct fid *f;
    int ret = get_fid(s, &f);
    if (!ret)
        ret = get_string(s, s->name[0], sizeof(s->name[0]));
    uint32_t flags = get32(s), mode = get32(s);
    if (!ret && (s->short_in || f->fd >= 0 || f->xattr != XATTR_NONE))
        ret = -EBADF;
    char *name = ret ? NULL : strdup(s->name[0]);
    if (ret || !name)
        return ret ? ret : -ENOMEM;
    int fd = share_create(s->tree, f->node, s->name[0], (int)flags, mode, &node);
    if (fd < 0) {
        free(name);
        return fd;
    }
    share_put(s->tree, f->node, 1); /* the fid is the new file from now on */
    free(f->name);
    f->node = node;
    f->name = name;
    f->fd = fd;
    ret = put_node_qid(s, node);
    put(s, 0, 4);
    return ret;
}

static uint32_t bounded_count(const struct share_p9 *s, uint32_t count)
{
    uint32_t most = s->msize - IO_HEADER;
    size_t room = s->room - s->len;
    count = count < most ? count : most;
    return room < 4 ? 0 : count < room - 4 ? count : (uint32_t)(room - 4);
}

static int do_read(struct share_p9 *s)
{
    struct fid *f;
    int ret = get_fid(s, &f);
    uint64_t offset = get(s, 8);
    uint32_t count = bounded_count(s, get32(s));
    ssize_t n;
    if (ret || s->short_in || offset > INT64_MAX)
        return ret ? ret : -EINVAL;
    if (s->room - s->len < 4)
        return -ENOSPC;
    uint8_t *to = s->out + s->len + 4;
    if (f->xattr == XATTR_READ) {
        n = offset >= f->size ? 0 : (ssize_t)(f->size - offset < count ? f->size - offset : count);
        memcpy(to, f->value + (n ? offset : 0), (size_t)n);
    } else if (f->fd < 0) {
        return -EBADF;
    } else {
        n = pread(f->fd, to, count, (off_t)offset);
    }
    if (n < 0)
        return -errno;
    put(s, (uint64_t)n, 4);
    s->len += (size_t)n;
    return 0;
}

static int do_write(struct share_p9 *s)
{
    struct fid *f;
    int ret = get_fid(s, &f);
    uint64_t offset = get(s, 8);
    uint32_t count = get32(s);
    ssize_t n;
    if (ret || s->short_in || count > s->in_len - s->at || offset > INT64_MAX)
        return ret ? ret : -EINVAL;
    const uint8_t *from = s->in + s->at;
    if (f->xattr == XATTR_WRITE) {
        if (offset != f->have || count > f->size - f->have)
            return -ENOSPC;
        memcpy(f->value + f->have, from, count);
        f->have += count;
        n = count;
    } else if (f->fd < 0) {
        return -EBADF;
    } else {
        n = pwrite(f->fd, from, count, (off_t)offset);
    }
    if (n < 0)
        return -errno;
    put(s, (uint64_t)n, 4);
    return 0;
}

static int do_fsync(struct share_p9 *s)
{
    struct fid *f;
    int ret = get_fid(s, &f);
    if (ret || f->fd < 0)
        return ret ? ret : -EBADF;
    /* datasync[4] came later and may be missing. */
    bool data = s->in_len - s->at >= 4 && get32(s);
    return (data ? fdatasync(f->fd) : fsync(f->fd)) ? -errno : 0;
}

static void put_entry(struct share_p9 *s, uint64_t ino, uint64_t offset, uint8_t type,
                      const char *name)
{
    put(s, type == DT_DIR ? 0x80 : type == DT_LNK ? 0x02 : 0, 1);
    put(s, 0, 4);
    put(s, ino, 8);
    put(s, offset, 8);
    put(s, type, 1);
    put_string(s, name, strlen(name));
}

static int do_readdir(struct share_p9 *s)
{
    _Alignas(struct dirent64) char entries[DIRENTS];
    struct fid *f;
    int ret = get_fid(s, &f);
    uint64_t offset = get(s, 8);
    uint32_t count = bounded_count(s, get32(s));
    if (ret || s->short_in || f->fd < 0 || offset > INT64_MAX)
        return ret ? ret : -EBADF;
    if (lseek(f->fd, (off_t)offset, SEEK_SET) < 0)
        return -errno;
    size_t count_at = s->len, room = s->room;
    put(s, 0, 4);
    size_t end = s->len + count;
    ssize_t n;
    bool done = s->full;
    while (!done && (n = getdents64(f->fd, entries, sizeof(entries))) > 0) {
        for (ssize_t at = 0; at < n && !done;) {
            const struct dirent64 *d = (const void *)(entries + at);
            done = 24 + strlen(d->d_name) > end - s->len;
            if (!done)
                put_entry(s, d->d_ino, (uint64_t)d->d_off, d->d_type, d->d_name);
            at += d->d_reclen;
        }
    }
    if (!done && n < 0)
        return -errno;
    s->room = room;
    uint32_t bytes = htole32((uint32_t)(s->len - count_at - 4));
    if (!s->full)
        memcpy(s->out + count_at, &bytes, 4);
    return 0;
}

/* ---- Locks: of the descriptor, so that the host's programs and other guests see them ---- */

enum { LOCK_SUCCESS, LOCK_BLOCKED, LOCK_ERROR };

static int get_lock(struct share_p9 *s, bool flags, struct fid **f, struct flock *lock)
{
    static const short types[] = {F_RDLCK, F_WRLCK, F_UNLCK};
    int ret = get_fid(s, f);
    unsigned type = (unsigned)get(s, 1);
    if (flags)
        get32(s);
    uint64_t start = get(s, 8), length = get(s, 8);
    if (ret || s->short_in || type > 2 || start > INT64_MAX || length > INT64_MAX || (*f)->fd < 0)
        return ret ? ret : -EINVAL;
    *lock = (struct flock){.l_type = types[type],
                           .l_whence = SEEK_SET,
                           .l_start = (off_t)start,
                           .l_len = (off_t)length};
    return 0;
}

static int do_lock(struct share_p9 *s)
{
    struct flock lock;
    struct fid *f;
    int ret = get_lock(s, true, &f, &lock);
    if (ret)
        return ret;
    if (!fcntl(f->fd, F_OFD_SETLK, &lock))
        put(s, LOCK_SUCCESS, 1);
    else
        put(s, errno == EAGAIN || errno == EACCES ? LOCK_BLOCKED : LOCK_ERROR, 1);
    return 0;
}

static int do_getlock(struct share_p9 *s)
{
    struct flock lock;
    struct fid *f;
    char client[256];
    int ret = get_lock(s, false, &f, &lock);
    uint32_t proc = get32(s);
    if (!ret)
        ret = get_string(s, client, sizeof(client));
    if (!ret && lock.l_type == F_UNLCK)
        ret = -EINVAL;
    if (ret)
        return ret;
    if (fcntl(f->fd, F_OFD_GETLK, &lock))
        return -errno;
    put(s, lock.l_type == F_RDLCK ? 0 : lock.l_type == F_WRLCK ? 1 : 2, 1);
    put(s, (uint64_t)lock.l_start, 8);
    put(s, (uint64_t)lock.l_len, 8);
    put(s, proc, 4);
    put_string(s, client, strlen(client));
    return 0;
}

/* ---- Names ---- */

static int get_fid_and_name(struct share_p9 *s, struct fid **f, unsigned name)
{
    int ret = get_fid(s, f);
    return ret ? ret : get_string(s, s->name[name], sizeof(s->name[name]));
}

/* Put the qid of what was just made. */
static int put_made(struct share_p9 *s, struct fid *f, const char *name)
{
    struct share_node *node;
    int ret = share_lookup(s->tree, f->node, name, &node);
    if (ret)
        return ret;
    ret = put_node_qid(s, node);
    share_put(s->tree, node, 1);
    return ret;
}

static int do_symlink(struct share_p9 *s)
{
    struct fid *f;
    int ret = get_fid_and_name(s, &f, 0);
    if (!ret)
        ret = get_string(s, s->target, sizeof(s->target));
    if (!ret)
        ret = share_symlink(s->tree, f->node, s->name[0], s->target);
    return ret ? ret : put_made(s, f, s->name[0]);
}

/* Make what has nothing but a name and a mode. */
static int make_named(struct share_p9 *s,
                      int (*make)(struct share_tree *tree, struct share_node *parent,
                                  const char *name, uint32_t mode))
{
    struct fid *f;
    int ret = get_fid_and_name(s, &f, 0);
    uint32_t mode = get32(s);
    if (!ret && s->short_in)
        ret = -EINVAL;
    if (!ret)
        ret = make(s->tree, f->node, s->name[0], mode);
    return ret ? ret : put_made(s, f, s->name[0]);
}

static int do_mknod(struct share_p9 *s)
{
    return make_named(s, share_mknod);
}

static int do_mkdir(struct share_p9 *s)
{
    return make_named(s, share_mkdir);
}

static int do_link(struct share_p9 *s)
{
    struct fid *parent, *f;
    int ret = get_fid(s, &parent);
    if (!ret)
        ret = get_fid_and_name(s, &f, 0);
    return ret ? ret : share_link(s->tree, f->node, parent->node, s->name[0]);
}

static int do_unlinkat(struct share_p9 *s)
{
    struct fid *f;
    int ret = get_fid_and_name(s, &f, 0);
    uint32_t flags = get32(s);
    if (!ret && s->short_in)
        ret = -EINVAL;
    return ret ? ret : share_unlink(s->tree, f->node, s->name[0], flags & AT_REMOVEDIR);
}

static int do_renameat(struct share_p9 *s)
{
    struct fid *from, *to;
    int ret = get_fid_and_name(s, &from, 0);
    if (!ret)
        ret = get_fid_and_name(s, &to, 1);
    return ret ? ret : share_rename(s->tree, from->node, s->name[0], to->node, s->name[1], 0);
}

/* Trename and Tremove name a fid alone: its folder and name are those it was walked to by, if they
 * still lead to it. */
static int still_there(struct share_p9 *s, const struct fid *f)
{
    struct share_node *node;
    if (!f->name || !f->node->parent)
        return -EBUSY;
    int ret = share_lookup(s->tree, f->node->parent, f->name, &node);
    if (ret)
        return ret;
    bool same = node == f->node;
    share_put(s->tree, node, 1);
    return same ? 0 : -ESTALE;
}

static int do_rename(struct share_p9 *s)
{
    struct fid *f, *to;
    int ret = get_fid(s, &f);
    if (!ret)
        ret = get_fid_and_name(s, &to, 0);
    if (!ret)
        ret = still_there(s, f);
    char *name = ret ? NULL : strdup(s->name[0]);
    if (!ret && !name)
        ret = -ENOMEM;
    if (!ret)
        ret = share_rename(s->tree, f->node->parent, f->name, to->node, s->name[0], 0);
    if (ret) {
        free(name);
        return ret;
    }
    free(f->name);
    f->name = name;
    return 0;
}

static int do_remove(struct share_p9 *s)
{
    struct fid *f;
    int ret = get_fid(s, &f);
    if (ret)
        return ret;
    ret = still_there(s, f);
    if (!ret)
        ret = share_unlink(s->tree, f->node->parent, f->name, S_ISDIR(f->node->type));
    drop_fid(s, f); /* also after an error (remove(5)) */
    return ret;
}

static int do_flush(struct share_p9 *s)
{
    return 0; /* one request at a time: the old one has been answered */
}

/* ---- Requests ---- */

static const struct {
    uint8_t type;
    int (*fn)(struct share_p9 *s);
} handlers[] = {
    {TSTATFS, do_statfs},
    {TLOPEN, do_lopen},
    {TLCREATE, do_lcreate},
    {TSYMLINK, do_symlink},
    {TMKNOD, do_mknod},
    {TRENAME, do_rename},
    {TREADLINK, do_readlink},
    {TGETATTR, do_getattr},
    {TSETATTR, do_setattr},
    {TXATTRWALK, do_xattrwalk},
    {TXATTRCREATE, do_xattrcreate},
    {TREADDIR, do_readdir},
    {TFSYNC, do_fsync},
    {TLOCK, do_lock},
    {TGETLOCK, do_getlock},
    {TLINK, do_link},
    {TMKDIR, do_mkdir},
    {TRENAMEAT, do_renameat},
    {TUNLINKAT, do_unlinkat},
    {TVERSION, do_version},
    {TATTACH, do_attach},
    {TFLUSH, do_flush},
    {TWALK, do_walk},
    {TREAD, do_read},
    {TWRITE, do_write},
    {TCLUNK, do_clunk},
    {TREMOVE, do_remove},
};

static int dispatch(struct share_p9 *s, uint8_t type)
{
    if (type != TVERSION && !s->versioned)
        return -EPROTO;
    for (unsigned i = 0; i < sizeof(handlers) / sizeof(handlers[0]); i++)
        if (handlers[i].type == type)
            return handlers[i].fn(s);
    return -EOPNOTSUPP;
}

size_t share_p9_handle(struct share_p9 *s, const void *request, size_t len, void *answer,
                       size_t room)
{
    s->in = request;
    s->in_len = len;
    s->at = 0;
    s->out = answer;
    s->room = room;
    s->len = 0;
    s->short_in = s->full = false;
    uint32_t size = get32(s);
    uint8_t type = (uint8_t)get(s, 1);
    uint16_t tag = (uint16_t)get(s, 2);
    if (room < HEADER + 4)
        return 0;
    s->len = HEADER;
    int ret = s->short_in || size != len ? -EINVAL : dispatch(s, type);
    if (!ret && s->short_in)
        ret = -EINVAL;
    if (!ret && s->full)
        ret = -EMSGSIZE;
    if (ret) {
        type = RLERROR - 1;
        s->len = HEADER;
        s->full = false;
        put(s, (uint64_t)-ret, 4);
    }
    size_t total = s->len;
    s->len = 0;
    put(s, total, 4);
    put(s, type + 1u, 1);
    put(s, tag, 2);
    return total;
}

struct share_p9 *share_p9_create(struct share_tree *tree)
{
    struct share_p9 *s = calloc(1, sizeof(*s));
    if (s)
        s->tree = tree;
    return s;
}

void share_p9_destroy(struct share_p9 *s)
{
    if (s)
        drop_all(s);
    free(s);
}
