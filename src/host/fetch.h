/*
 * Files from web servers, for tasks, whole and with their SHA-256. Knows HTTP by libcurl, not what
 * is fetched.
 */
#ifndef MULL_HOST_FETCH_H
#define MULL_HOST_FETCH_H

#include <stdint.h>

#include "host/tasks.h"

/**
 * Fetch a file. Waits for the network: without the host's lock.
 *
 * @param task    is told how far it is, and may be cancelled
 * @param what    is done, in its words
 * @param url     http: or https:; redirections (5) lead to these only, from https: to https: only
 * @param to      where it is written, made new, readable by this user alone; it is gone where this
 * fails
 * @param most    bytes that it may have
 * @param sha256  its digest in hexadecimal digits
 * @return 0 or -errno: -ENOENT (404, 410), -EFBIG, -ECANCELED, -ETIMEDOUT (no byte for a minute),
 * -EIO, ...
 */
int host_fetch(struct task *task, const char *what, const char *url, const char *to, uint64_t most,
               char sha256[65], struct mull_error *err);

#endif
