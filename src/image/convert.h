/*
 * Copying and comparing whole images on all cores, skipping what reads as zeroes. Knows images only
 * through image.h.
 */
#ifndef MULL_IMAGE_CONVERT_H
#define MULL_IMAGE_CONVERT_H

#include "image/image.h"

/** How far a long operation is. Called from one thread at a time; non-zero: stop (-ECANCELED). */
typedef int (*mull_progress)(void *opaque, uint64_t done, uint64_t total);

struct mull_convert {
    struct mull_image *source, *target;
    bool compress;
    bool target_zero; /* the target reads as zeroes: what is zero need not be written */
    bool top_only;    /* only what the source's own file has, not its backing (commit, rebase) */
    int threads;      /* 0: one a core */
    uint64_t start;   /* resume here; a multiple of the chunk */
    mull_progress progress;
    void *opaque;
    uint64_t finished; /* out: everything below is written (not flushed) */
};

/** Bytes of one step; resuming starts at a multiple of it. */
uint64_t mull_convert_chunk(const struct mull_image *target);

/** Copy. The target must be as large as the source, or as much larger as reads as zeroes. */
int mull_convert(struct mull_convert *c, struct mull_error *err);

/** Compare contents; what one lacks must be zeroes in the other.
 *  @return 0 same, 1 different (at *where), or -errno. */
int mull_compare(struct mull_image *a, struct mull_image *b, int threads, uint64_t *where,
                 mull_progress progress, void *opaque, struct mull_error *err);

/** Whether a buffer is all zeroes. */
bool mull_is_zero(const void *buf, size_t length);

#endif
