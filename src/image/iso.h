/*
 * Small ISO 9660 images that carry a few files to a guest: properties of an appliance, the seed of
 * cloud-init. Knows bytes and names, not what they say.
 */
#ifndef MULL_IMAGE_ISO_H
#define MULL_IMAGE_ISO_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define MULL_ISO_FILES 32
#define MULL_ISO_NAME 64          /* characters of a file's name, at most */
#define MULL_ISO_DATA (64u << 20) /* bytes of all files together, at most */

struct mull_iso_file {
    const char *name; /* ASCII: letters, digits, '-', '_', '.'; as it is, by Joliet */
    const void *data;
    size_t length;
};

/**
 * Make an image with files in its root folder (ECMA-119, 4th edition, interchange level 1, and a
 * Joliet tree for the names as they are).
 *
 * @param volume  its label: 1 to 16 letters, digits, '_', '-'; in the ISO tree in upper case
 * @param out     malloc'ed, whole sectors of 2,048 bytes
 * @return 0, -EINVAL: a name that an image can't hold, -EFBIG: more than fits
 */
int mull_iso_make(const char *volume, const struct mull_iso_file *files, unsigned count,
                  uint8_t **out, size_t *length, struct mull_error *err);

/** The same into a new file of mode 0600, which replaces @path as a whole, durably. */
int mull_iso_write(const char *path, const char *volume, const struct mull_iso_file *files,
                   unsigned count, struct mull_error *err);

#endif
