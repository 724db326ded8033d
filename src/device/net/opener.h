/*
 * A child process that opens files below one folder, read-only, or connects Unix sockets of one
 * name, for a parent that may not do so itself once it is locked in. It holds nothing else of the
 * parent's, and cannot be led out of the folder: neither by "..", nor by links.
 */
#ifndef MULL_DEVICE_NET_OPENER_H
#define MULL_DEVICE_NET_OPENER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

#define MULL_OPENER_NAME_MAX 255

struct mull_opener {
    int socket; /* readable when there is an answer; -1: not started */
    pid_t pid;
    int pidfd; /* -1: the kernel has none */
};

/** Start one. @param root  the folder; must be there */
int mull_opener_start(const char *root, struct mull_opener *out, struct mull_error *err);

/** Start one that connects to the Unix socket PATH_NAME; NAMEs are numbers. */
int mull_opener_start_sockets(const char *path, struct mull_opener *out, struct mull_error *err);

/** End it. One that was never started is allowed. */
void mull_opener_stop(struct mull_opener *o);

/** Ask for a file. Never waits. @return false: it is not possible now */
bool mull_opener_ask(struct mull_opener *o, uint32_t id, const char *name);

/** Take an answer. @param fd  a regular file or a socket, the caller's; or a negative errno
 *  @return false: there is none */
bool mull_opener_answer(struct mull_opener *o, uint32_t *id, int *fd, uint64_t *size);

#endif
