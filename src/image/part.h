/* A part of a file as a file of its own. */
#ifndef MULL_IMAGE_PART_H
#define MULL_IMAGE_PART_H

#include "image/file.h"

/** Bytes [@offset, @offset + @length) of @below, which then belongs to the part (also where this
 *  fails). */
int mull_file_part(const struct mull_file_options *options, uint64_t offset, uint64_t length,
                   struct mull_file *below, struct mull_file **out, struct mull_error *err);

#endif
