/*
 * A helper program as a child process of the machine's: found beside it, started with nothing of
 * ours but what it is given, and ended with it. Knows no program in particular.
 */
#ifndef MULL_DEVICE_CHILD_H
#define MULL_DEVICE_CHILD_H

#include <limits.h>
#include <stdbool.h>
#include <sys/types.h>

#include "base/error.h"
#include "base/log.h"

/** What a child gets beside its arguments: this descriptor is number 3 there. */
#define MULL_CHILD_FD 3

struct mull_child {
    pid_t pid;    /* 0: there is none */
    int pidfd;    /* readable when it has ended; -1: the kernel has none */
    int messages; /* what it writes to standard error, non-blocking */
};

/** Where a program of Mullion's own is: beside the running one, or where `make install` puts it. */
void mull_child_path(const char *name, char path[PATH_MAX]);

/**
 * Start a program. Before the process locks itself in.
 *
 * @param argv  as for execvp(3): a name without a slash is looked for in PATH
 * @param fd    becomes MULL_CHILD_FD there; stays the caller's; -1: none
 * @param hint  what a person may do if there is no such program
 */
int mull_child_start(const char *const argv[], int fd, const char *hint, struct mull_child *child,
                     struct mull_error *err);

/** Log what it has said, each line at debug level; the last one is put into @line (@size bytes;
 *  unchanged if there is none; may be NULL). */
void mull_child_messages(const struct mull_child *child, const struct mull_log *log, char *line,
                         size_t size);

/** Send SIGKILL to a child by its pidfd, which the sandbox leaves the right to; by its PID where @pidfd
 *  is -1. @return as kill(2) */
int mull_child_kill(pid_t pid, int pidfd);

/** End it, after @grace_ms at the latest by force, and close the descriptors. */
void mull_child_stop(struct mull_child *child, int grace_ms);

#endif
