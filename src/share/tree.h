/*
 * A folder of the host as a tree of nodes, for the two protocols that serve it to a guest. Every
 * node is an open descriptor (O_PATH), found one name at a time without following a link, so that
 * no name, link or race leads out of the folder; devices, sockets and pipes are seen but never
 * opened. Knows no protocol and no guest.
 */
#ifndef MULL_SHARE_TREE_H
#define MULL_SHARE_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

struct share_node {
    struct share_node *next; /* of the same hash, or the next free one */
    struct share_node *parent;
    uint64_t refs;    /* 0: free. A child holds one of its parent */
    uint64_t lookups; /* of refs, those that the guest holds and may drop (FUSE) */
    uint64_t id;      /* its number, from 1 (the root) on */
    uint64_t generation;
    dev_t dev;
    ino_t ino;
    mode_t type; /* S_IFMT bits */
    int fd;      /* O_PATH */
};

#define SHARE_HASH 1024

struct share_tree {
    bool readonly;
    unsigned count, max; /* nodes ever made, and how many there may be */
    uint64_t generation;
    struct share_node **nodes; /* by id - 1 */
    struct share_node *free;
    struct share_node *hash[SHARE_HASH];
    struct share_node *root;
};

/**
 * @param root   descriptor of the folder (O_PATH); the tree's from now on, also after an error
 * @param max    the most nodes, each of which takes a descriptor
 * @return 0 or a negative errno
 *
 * The process's working directory must be /proc/self/fd: that is how a node is opened again.
 */
int share_tree_init(struct share_tree *t, int root, bool readonly, unsigned max);
void share_tree_fini(struct share_tree *t);

/** May @name (@len bytes, without NUL) be one component of a path? Neither "." nor "..". */
bool share_name_ok(const char *name, size_t len);

/** Find @name in @parent. @return 0 and *out with a reference, or a negative errno */
int share_lookup(struct share_tree *t, struct share_node *parent, const char *name,
                 struct share_node **out);

/** The node with this number, or NULL. Takes no reference. */
struct share_node *share_node_by_id(const struct share_tree *t, uint64_t id);

void share_get(struct share_node *node);
/** Drop @n references that the caller holds. NULL is allowed. */
void share_put(struct share_tree *t, struct share_node *node, uint64_t n);

/** Open a file or folder for I/O. @param flags  those of open(2); all but access mode, O_APPEND,
 *  O_TRUNC, O_DSYNC, O_SYNC, O_DIRECTORY and O_NOATIME are dropped
 *  @return a descriptor or a negative errno; -EACCES: neither a file nor a folder */
int share_open(const struct share_tree *t, const struct share_node *node, int flags);

/** Create a regular file and open it. @return a descriptor; *out has a reference */
int share_create(struct share_tree *t, struct share_node *parent, const char *name, int flags,
                 mode_t mode, struct share_node **out);

/* Each returns 0 or a negative errno. Modes lose their set-ID bits on anything but folders: a guest
 * shall not leave programs on the host that run as somebody else. */
int share_mkdir(struct share_tree *t, struct share_node *parent, const char *name, mode_t mode);
/** Regular files, sockets and pipes; -EPERM for devices. */
int share_mknod(struct share_tree *t, struct share_node *parent, const char *name, mode_t mode);
int share_symlink(struct share_tree *t, struct share_node *parent, const char *name,
                  const char *target);
int share_link(struct share_tree *t, const struct share_node *node, struct share_node *parent,
               const char *name);
int share_unlink(struct share_tree *t, struct share_node *parent, const char *name, bool folder);
/** @param flags  RENAME_NOREPLACE, RENAME_EXCHANGE */
int share_rename(struct share_tree *t, struct share_node *from, const char *name,
                 struct share_node *to, const char *new_name, unsigned flags);

/** What of a node to change. */
struct share_change {
    bool mode_set, uid_set, gid_set, size_set, times_set;
    mode_t mode;
    uid_t uid;
    gid_t gid;
    uint64_t size;
    struct timespec times[2]; /* access, modification; UTIME_NOW, UTIME_OMIT */
};
int share_change(struct share_tree *t, const struct share_node *node,
                 const struct share_change *change);

/** Extended attributes of a file or folder: names beginning with "user." only. As getxattr(2) and
 *  its kin; @return bytes, or a negative errno */
ssize_t share_getxattr(const struct share_node *node, const char *name, void *value, size_t size);
ssize_t share_listxattr(const struct share_node *node, char *list, size_t size);
int share_setxattr(struct share_tree *t, const struct share_node *node, const char *name,
                   const void *value, size_t size, int flags);
int share_removexattr(struct share_tree *t, const struct share_node *node, const char *name);

#endif
