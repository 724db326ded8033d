/*
 * passt(1) as a child process: its command line, its start and its end. Internal to the passt
 * back end.
 */
#ifndef MULL_DEVICE_NET_PASST_CHILD_H
#define MULL_DEVICE_NET_PASST_CHILD_H

#include <sys/types.h>

#include "device/net/netdev.h"

struct mull_passt_child {
    pid_t pid;
    int pidfd;    /* readable when it has ended; -1: the kernel has none */
    int socket;   /* our end of the frame stream, non-blocking */
    int messages; /* what it writes to standard error, non-blocking */
};

/** Start it: check the ports it shall forward, fork and execute. It may still fail soon after. */
int mull_passt_child_start(const struct mull_passt_config *config, struct mull_passt_child *child,
                           struct mull_error *err);

/** Read what it has said on standard error; each line goes to the log at debug level and the last
 *  one that tells something to @line (may be NULL, else @size bytes; unchanged if there is none).
 */
void mull_passt_child_messages(const struct mull_passt_child *child, const struct mull_log *log,
                               char *line, size_t size);

/** Has it ended? Reaps it, and pid is 0 from then on. */
bool mull_passt_child_ended(struct mull_passt_child *child);

/** Close its socket, upon which it ends; kill it after a second. Closes the descriptors. */
void mull_passt_child_stop(struct mull_passt_child *child);

#endif
