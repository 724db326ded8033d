/*
 * A list of digests as sha256sum(1) of GNU coreutils writes it. Knows nothing but its text.
 */
#ifndef MULL_HOST_SUMS_H
#define MULL_HOST_SUMS_H

#include <stdbool.h>

/** Find an image by its name alone: NAME.qcow2, else .raw, .img, .vmdk, .vhdx, .vhd or .vdi.
 *  @param file  room for 128: the file's name. @param sha256  room for 65. @return is it there? */
bool sums_find(const char *sums, const char *name, char file[128], char sha256[65]);

#endif
