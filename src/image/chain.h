/*
 * Operations on two images of a chain: copying what an overlay holds into the image below it
 * (commit), and putting an overlay on another image (rebase). Neither changes what the overlay's
 * disk reads as, not even when the power fails in the middle. Knows formats through image.h.
 */
#ifndef MULL_IMAGE_CHAIN_H
#define MULL_IMAGE_CHAIN_H

#include "image/convert.h"

/** Copy what the image of @top holds into the one below it. Opens both itself, for writing.
 *  @threads: 0: one a core; @progress may be NULL. */
int mull_image_commit(const struct mull_image_options *top, int threads, mull_progress progress,
                      void *opaque, struct mull_error *err);

/** Put the image of @options on @backing (NULL or "": none), as a name relative to it. What would
 *  read differently is copied first, unless @unsafe. */
int mull_image_rebase(const struct mull_image_options *options, const char *backing,
                      const char *backing_format, bool unsafe, struct mull_error *err);

#endif
