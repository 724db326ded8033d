/*
 * Files from web servers, whole and with their SHA-256. Knows HTTP by libcurl, not what is fetched.
 */
#ifndef MULL_HOST_FETCH_H
#define MULL_HOST_FETCH_H

#include <stdint.h>

#include "base/error.h"

/** What a fetch tells while it goes on. @param total  0: not known. @return not 0: end it */
typedef int (*fetch_progress)(void *opaque, uint64_t done, uint64_t total);

/**
 * Fetch a file. Waits for the network: without the host's lock.
 *
 * @param url     http: or https:; redirections (5) lead to these only, from https: to https: only
 * @param to      where it is written, made new, readable by this user alone; it is gone where this
 * fails
 * @param most    bytes that it may have
 * @param sha256  its digest in hexadecimal digits
 * @param step    or NULL
 * @return 0 or -errno: -ENOENT (404, 410), -EFBIG, -ECANCELED, -ETIMEDOUT (no byte for a minute),
 * -EIO, ...
 */
int host_fetch(const char *url, const char *to, uint64_t most, char sha256[65], fetch_progress step,
               void *opaque, struct mull_error *err);

#endif
