/*
 * A folder of the host as a tree of nodes. See tree.h.
 */
#include "share/tree.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#define OPEN_FLAGS (O_ACCMODE | O_APPEND | O_TRUNC | O_DSYNC | O_SYNC | O_DIRECTORY | O_NOATIME)
#define XATTR_PREFIX "user."

/* ---- Nodes ---- */

static struct share_node **bucket(struct share_tree *t, dev_t dev, ino_t ino)
{
    return &t->hash[(ino * 0x9e3779b97f4a7c15ull ^ dev) >> 7 & (SHARE_HASH - 1)];
}

static struct share_node *node_alloc(struct share_tree *t)
{
    struct share_node *node = t->free;
    if (node) {
        t->free = node->next;
        return node;
    }
    if (t->count == t->max)
        return NULL;
    if (!(t->count & (t->count - 1))) { /* room is doubled at each power of two */
        size_t room = t->count ? 2ull * t->count : 1;
        struct share_node **nodes = realloc(t->nodes, room * sizeof(*nodes));
        if (!nodes)
            return NULL;
        t->nodes = nodes;
    }
    node = calloc(1, sizeof(*node));
    if (!node)
        return NULL;
    t->nodes[t->count++] = node;
    node->id = t->count;
    return node;
}

/* Find the node of an open O_PATH descriptor, or make it one. Takes @fd. */
static int node_of(struct share_tree *t, struct share_node *parent, int fd, struct share_node **out)
{
    struct stat st;
    if (fstat(fd, &st)) {
        int code = errno;
        close(fd);
        return -code;
    }
    struct share_node **head = bucket(t, st.st_dev, st.st_ino);
    for (struct share_node *n = *head; n; n = n->next) {
        if (n->dev == st.st_dev && n->ino == st.st_ino && n->type == (st.st_mode & S_IFMT)) {
            close(fd);
            n->refs++;
            *out = n;
            return 0;
        }
    }
    struct share_node *n = node_alloc(t);
    if (!n) {
        close(fd);
        return -ENFILE;
    }
    n->parent = parent;
    if (parent)
        parent->refs++;
    n->refs = 1;
    n->lookups = 0;
    n->generation = ++t->generation;
    n->dev = st.st_dev;
    n->ino = st.st_ino;
    n->type = st.st_mode & S_IFMT;
    n->fd = fd;
    n->next = *head;
    *head = n;
    *out = n;
    return 0;
}

int share_tree_init(struct share_tree *t, int root, bool readonly, unsigned max)
{
    memset(t, 0, sizeof(*t));
    t->readonly = readonly;
    t->max = max;
    return node_of(t, NULL, root, &t->root);
}

void share_tree_fini(struct share_tree *t)
{
    for (unsigned i = 0; i < t->count; i++) {
        if (t->nodes[i]->refs)
            close(t->nodes[i]->fd);
        free(t->nodes[i]);
    }
    free(t->nodes);
    memset(t, 0, sizeof(*t));
}

struct share_node *share_node_by_id(const struct share_tree *t, uint64_t id)
{
    return id && id <= t->count && t->nodes[id - 1]->refs ? t->nodes[id - 1] : NULL;
}

void share_get(struct share_node *node)
{
    node->refs++;
}

static void unhash(struct share_tree *t, struct share_node *node)
{
    struct share_node **at = bucket(t, node->dev, node->ino);
    while (*at != node)
        at = &(*at)->next;
    *at = node->next;
}

void share_put(struct share_tree *t, struct share_node *node, uint64_t n)
{
    while (node) {
        node->refs -= n;
        if (node->refs)
            return;
        struct share_node *parent = node->parent;
        unhash(t, node);
        close(node->fd);
        node->parent = NULL;
        node->next = t->free;
        t->free = node;
        node = parent;
        n = 1;
    }
}

/* ---- Names ---- */

bool share_name_ok(const char *name, size_t len)
{
    return len && len <= NAME_MAX && !memchr(name, '/', len) && !memchr(name, '\0', len) &&
           !(len == 1 && name[0] == '.') && !(len == 2 && name[0] == '.' && name[1] == '.');
}

static int check(const struct share_tree *t, const struct share_node *parent, const char *name,
                 bool write)
{
    if (!S_ISDIR(parent->type))
        return -ENOTDIR;
    if (!share_name_ok(name, strlen(name)))
        return strlen(name) > NAME_MAX ? -ENAMETOOLONG : -EINVAL;
    return write && t->readonly ? -EROFS : 0;
}

static int result(int ret)
{
    return ret < 0 ? -errno : 0;
}

int share_lookup(struct share_tree *t, struct share_node *parent, const char *name,
                 struct share_node **out)
{
    int ret = check(t, parent, name, false);
    if (ret)
        return ret;
    int fd = openat(parent->fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    return fd < 0 ? -errno : node_of(t, parent, fd, out);
}

/* ---- Files ---- */

/* A node's name in the working directory, /proc/self/fd. */
struct fd_name {
    char text[16];
};

static struct fd_name fd_name(const struct share_node *node)
{
    struct fd_name name;
    snprintf(name.text, sizeof(name.text), "%d", node->fd);
    return name;
}

int share_open(const struct share_tree *t, const struct share_node *node, int flags)
{
    bool write = (flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC);
    if (!S_ISREG(node->type) && !S_ISDIR(node->type))
        return S_ISLNK(node->type) ? -ELOOP : -EACCES;
    if (write && t->readonly)
        return -EROFS;
    if ((flags & O_ACCMODE) == O_ACCMODE)
        return -EINVAL;
    flags = (flags & OPEN_FLAGS) | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
    int fd = openat(AT_FDCWD, fd_name(node).text, flags);
    if (fd < 0 && errno == EPERM && (flags & O_NOATIME)) /* for owners only */
        fd = openat(AT_FDCWD, fd_name(node).text, flags & ~O_NOATIME);
    return fd < 0 ? -errno : fd;
}

int share_create(struct share_tree *t, struct share_node *parent, const char *name, int flags,
                 mode_t mode, struct share_node **out)
{
    int ret = check(t, parent, name, true);
    if (ret)
        return ret;
    /* What is there already may be anything: it is opened as a node. */
    int fd = openat(parent->fd, name,
                    O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC | (flags & OPEN_FLAGS), mode & 0777);
    if (fd < 0 && (errno != EEXIST || (flags & O_EXCL)))
        return -errno;
    ret = share_lookup(t, parent, name, out);
    if (ret) {
        if (fd >= 0)
            close(fd);
        return ret;
    }
    struct stat st;
    if (fd >= 0 && !fstat(fd, &st) && st.st_dev == (*out)->dev && st.st_ino == (*out)->ino)
        return fd;
    if (fd >= 0) /* somebody on the host was faster */
        close(fd);
    fd = share_open(t, *out, flags);
    if (fd < 0)
        share_put(t, *out, 1);
    return fd;
}

int share_mkdir(struct share_tree *t, struct share_node *parent, const char *name, mode_t mode)
{
    int ret = check(t, parent, name, true);
    return ret ? ret : result(mkdirat(parent->fd, name, mode & 01777));
}

int share_mknod(struct share_tree *t, struct share_node *parent, const char *name, mode_t mode)
{
    mode_t type = mode & S_IFMT ? mode & S_IFMT : S_IFREG;
    int ret = check(t, parent, name, true);
    if (ret)
        return ret;
    if (type != S_IFREG && type != S_IFIFO && type != S_IFSOCK)
        return -EPERM;
    return result(mknodat(parent->fd, name, type | (mode & 0777), 0));
}

int share_symlink(struct share_tree *t, struct share_node *parent, const char *name,
                  const char *target)
{
    int ret = check(t, parent, name, true);
    return ret ? ret : result(symlinkat(target, parent->fd, name));
}

int share_link(struct share_tree *t, const struct share_node *node, struct share_node *parent,
               const char *name)
{
    int ret = check(t, parent, name, true);
    if (ret)
        return ret;
    if (S_ISDIR(node->type))
        return -EPERM;
    return result(linkat(AT_FDCWD, fd_name(node).text, parent->fd, name, AT_SYMLINK_FOLLOW));
}

int share_unlink(struct share_tree *t, struct share_node *parent, const char *name, bool folder)
{
    int ret = check(t, parent, name, true);
    return ret ? ret : result(unlinkat(parent->fd, name, folder ? AT_REMOVEDIR : 0));
}

/* A folder that we know has moved: its ".." is another one now. */
static void moved(struct share_tree *t, struct share_node *parent, const char *name)
{
    struct stat st;
    if (fstatat(parent->fd, name, &st, AT_SYMLINK_NOFOLLOW) || !S_ISDIR(st.st_mode))
        return;
    for (struct share_node *n = *bucket(t, st.st_dev, st.st_ino); n; n = n->next) {
        if (n->dev != st.st_dev || n->ino != st.st_ino || n->parent == parent || n == parent)
            continue;
        struct share_node *old = n->parent;
        parent->refs++;
        n->parent = parent;
        share_put(t, old, 1);
        return;
    }
}

int share_rename(struct share_tree *t, struct share_node *from, const char *name,
                 struct share_node *to, const char *new_name, unsigned flags)
{
    int ret = check(t, from, name, true);
    if (!ret)
        ret = check(t, to, new_name, true);
    if (!ret && (flags & ~(unsigned)(RENAME_NOREPLACE | RENAME_EXCHANGE)))
        ret = -EINVAL;
    if (!ret)
        ret = result(renameat2(from->fd, name, to->fd, new_name, flags));
    if (!ret)
        moved(t, to, new_name);
    if (!ret && (flags & RENAME_EXCHANGE))
        moved(t, from, name);
    return ret;
}

/* ---- Attributes ---- */

static int set_size(struct share_tree *t, const struct share_node *node, uint64_t size)
{
    if (S_ISDIR(node->type))
        return -EISDIR;
    if (size > INT64_MAX)
        return -EFBIG;
    int fd = share_open(t, node, O_WRONLY);
    if (fd < 0)
        return fd;
    int ret = result(ftruncate(fd, (off_t)size));
    close(fd);
    return ret;
}

int share_change(struct share_tree *t, const struct share_node *node, const struct share_change *c)
{
    struct fd_name name = fd_name(node);
    bool link = S_ISLNK(node->type);
    int ret = t->readonly ? -EROFS : 0;

    if (!ret && c->mode_set && !S_ISDIR(node->type) && (c->mode & (S_ISUID | S_ISGID)))
        ret = -EPERM;
    if (!ret && c->mode_set)
        ret = link ? -EOPNOTSUPP : result(fchmodat(AT_FDCWD, name.text, c->mode & 07777, 0));
    if (!ret && (c->uid_set || c->gid_set))
        ret = result(fchownat(node->fd, "", c->uid_set ? c->uid : (uid_t)-1,
                              c->gid_set ? c->gid : (gid_t)-1, AT_EMPTY_PATH));
    if (!ret && c->size_set)
        ret = set_size(t, node, c->size);
    if (!ret && c->times_set)
        ret = link ? result(utimensat(node->fd, "", c->times, AT_EMPTY_PATH))
                   : result(utimensat(AT_FDCWD, name.text, c->times, 0));
    return ret;
}

/* Other name spaces are the host's own: capabilities, access control, labels. */
static int check_xattr(const struct share_node *node, const char *name)
{
    if (!S_ISREG(node->type) && !S_ISDIR(node->type))
        return -EOPNOTSUPP;
    return name && strncmp(name, XATTR_PREFIX, strlen(XATTR_PREFIX)) ? -EOPNOTSUPP : 0;
}

ssize_t share_getxattr(const struct share_node *node, const char *name, void *value, size_t size)
{
    int ret = check_xattr(node, name);
    if (ret)
        return ret;
    ssize_t n = getxattr(fd_name(node).text, name, value, size);
    return n < 0 ? -errno : n;
}

ssize_t share_listxattr(const struct share_node *node, char *list, size_t size)
{
    char all[XATTR_LIST_MAX];
    size_t have = 0;
    int ret = check_xattr(node, NULL);
    if (ret)
        return ret == -EOPNOTSUPP ? 0 : ret;
    ssize_t n = listxattr(fd_name(node).text, all, sizeof(all));
    if (n < 0)
        return -errno;
    for (const char *name = all; name < all + n; name += strlen(name) + 1) {
        size_t len = strlen(name) + 1;
        if (check_xattr(node, name))
            continue;
        if (size && len > size - have)
            return -ERANGE;
        if (size)
            memcpy(list + have, name, len);
        have += len;
    }
    return (ssize_t)have;
}

int share_setxattr(struct share_tree *t, const struct share_node *node, const char *name,
                   const void *value, size_t size, int flags)
{
    int ret = t->readonly ? -EROFS : check_xattr(node, name);
    return ret ? ret : result(setxattr(fd_name(node).text, name, value, size, flags));
}

int share_removexattr(struct share_tree *t, const struct share_node *node, const char *name)
{
    int ret = t->readonly ? -EROFS : check_xattr(node, name);
    return ret ? ret : result(removexattr(fd_name(node).text, name));
}
