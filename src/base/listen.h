/*
 * Listening on a Unix socket that only its owner may connect to.
 */
#ifndef MULL_BASE_LISTEN_H
#define MULL_BASE_LISTEN_H

#include "base/error.h"

/**
 * Bind and listen. A socket file that nobody listens on, left over from a crash, is replaced. As
 * many connections as the system allows wait to be accepted: a client that connects without
 * blocking is refused (EAGAIN) where no more may wait, and many of them do not try again.
 *
 * @param path  to be unlinked by the caller when *fd was closed
 * @param what  the option that named it, for errors
 * @return 0 and *fd, or a negative errno
 */
int mull_listen_unix(const char *path, const char *what, int *fd, struct mull_error *err);

#endif
