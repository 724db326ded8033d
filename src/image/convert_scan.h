/*
 * Reading an image with an eye on zeroes: which parts of a range hold data, by the image's tables,
 * by the holes of its files and by the bytes themselves. Knows images only through image.h.
 */
#ifndef MULL_IMAGE_CONVERT_SCAN_H
#define MULL_IMAGE_CONVERT_SCAN_H

#include "image/image.h"

enum scan_kind {
    SCAN_DATA,
    SCAN_ZERO,
    SCAN_SKIP, /* the image itself says nothing of it (top_only) */
};

struct scan_part {
    enum scan_kind kind;
    uint64_t offset, length;
};

/** What is found in a range; offsets count from its start. */
struct scan {
    struct scan_part *parts;
    size_t nparts, room;
};

/** An image as one thread reads it. */
struct scan_source {
    struct mull_image *image;
    bool top_only;
    uint32_t unit; /* zeroes are looked for in units of this (4096 at least) */
    /* The run of data or the hole of a file that was found last. */
    struct mull_file *file;
    uint64_t from, until;
    bool hole;
};

/** What the tables say of a first part of [offset, +length); @out->offset is @offset.
 *  @return 0 or -errno */
int mull_scan_part(struct scan_source *source, uint64_t offset, uint64_t length,
                   struct scan_part *out);

/** Read what is not zero of [offset, +length) to its place in @buf. @return 0 or -errno */
int mull_scan(struct scan_source *source, uint64_t offset, uint64_t length, uint8_t *buf,
              struct scan *out);

/** Read all of a range, zeroes too; *any: part of it is not known to be zero. */
int mull_scan_whole(struct scan_source *source, uint64_t offset, uint64_t length, uint8_t *buf,
                    bool *any);

void mull_scan_free(struct scan *scan);

#endif
