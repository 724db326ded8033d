/*
 * Files of web servers, read by ranges (RFC 9110, section 14), for as long as they do not change.
 * Knows bytes, never formats.
 */
#ifndef MULL_IMAGE_HTTP_H
#define MULL_IMAGE_HTTP_H

#include "image/source.h"

/** Open http:// or https://, read-only. Certificates are verified. */
int mull_http_open(const struct mull_file_options *options, struct mull_file **out,
                   struct mull_error *err);

#endif
