/*
 * What a range of a disk is, beyond its data: whether it reads as zeroes, takes space, and how deep
 * in the chain it lies. Knows images only through image.h.
 */
#ifndef MULL_IMAGE_STATUS_H
#define MULL_IMAGE_STATUS_H

#include "image/image.h"

struct mull_status {
    uint64_t length; /* from the offset asked for; at least 1 */
    bool zero;       /* reads as zeroes, for sure */
    bool hole;       /* takes no space of its own */
    int depth;       /* images below the top one; -1: in none of them */
};

/** The status of a first part of a range inside the disk. May read metadata. @return 0 or -errno.
 */
int mull_image_status(struct mull_image *image, uint64_t offset, uint64_t length,
                      struct mull_status *out);

#endif
