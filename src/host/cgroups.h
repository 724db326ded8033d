/*
 * A subtree of the host's control groups (cgroup v2, Documentation/admin-guide/cgroup-v2.rst) that
 * is ours, with one group a machine: the kernel divides processors and disks by weight, and keeps
 * what memory is reserved. Where there is no such subtree, everything works without; see balance.c.
 */
#ifndef MULL_HOST_CGROUPS_H
#define MULL_HOST_CGROUPS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

/** Zeroed: none. */
struct cgroups {
    char *base;           /* the folder; NULL: none */
    bool cpu, memory, io; /* what is divided in it */
};

/** What one machine's group is told. */
struct cgroup_amounts {
    uint32_t cpu_weight, io_weight; /* 1 to 10000 */
    uint32_t cpu_max;               /* percent of one CPU; 0: no limit */
    uint64_t memory_min;            /* bytes */
};

/**
 * Where our subtree is, of what the kernel says of us: the parent of our own group where that is
 * called "daemon", which is how a service manager hands one over (DelegateSubgroup=). Pure.
 *
 * @param cgroup     the text of /proc/self/cgroup
 * @param mountinfo  that of /proc/self/mountinfo
 * @return a path, malloc'ed; NULL: there is none
 */
char *cgroups_find(const char *cgroup, const char *mountinfo);

/**
 * Our own group where it was handed over whole: a unit with Delegate=, which its manager marks by
 * the attribute user.delegate (systemd 251 and later). A unit's control process is in a group
 * ".control" below it.
 *
 * @param cgroup, mountinfo  as for cgroups_find()
 * @return a path, malloc'ed; NULL: there is none
 */
char *cgroups_delegated(const char *cgroup, const char *mountinfo);
/** Its path alone, whether it was handed over or not. Pure. */
char *cgroups_unit(const char *cgroup, const char *mountinfo);

/** Go into a group "daemon" of @unit, with all that is in @unit itself: a group that divides has
 *  processes in its leaves only. @return 0 or a negative errno */
int cgroups_settle(const char *unit, struct mull_error *err);
/** Let @unit divide nothing, so that its manager can put a process into it. What machines' groups
 *  were told is lost. @return 0 or a negative errno */
int cgroups_release(const char *unit, struct mull_error *err);

/** Take a subtree: make its folder if need be, and have what it can divide divided. @return 0, also
 *  where it divides nothing; or a negative errno: it is not ours */
int cgroups_open(struct cgroups *c, const char *base, struct mull_error *err);
/** Groups and what is in them stay. */
void cgroups_close(struct cgroups *c);

/** Is there anything to be divided? */
bool cgroups_any(const struct cgroups *c);

/** Put a process into its machine's group, which is made. @return 0 or a negative errno */
int cgroups_place(const struct cgroups *c, const char *id, pid_t pid);
/** Tell the group. @return 0, or the first negative errno */
int cgroups_set(const struct cgroups *c, const char *id, const struct cgroup_amounts *amounts);
/** What all machines' groups together may keep of memory. */
int cgroups_set_all(const struct cgroups *c, uint64_t memory_min);
/** Its process has gone. */
void cgroups_remove(const struct cgroups *c, const char *id);

#endif
