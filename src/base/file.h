/*
 * What every user of plain files needs and the C library does not say in one call.
 */
#ifndef MULL_BASE_FILE_H
#define MULL_BASE_FILE_H

#include <stddef.h>

/**
 * write(2) until all is written.
 *
 * @param fd      blocking
 * @param length  in bytes
 * @return 0 or -errno; how much was written is not known then
 */
int mull_write_all(int fd, const void *data, size_t length);

#endif
