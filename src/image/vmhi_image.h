/* What the files behind vmhi/image.h share. */
#ifndef MULL_IMAGE_VMHI_IMAGE_H
#define MULL_IMAGE_VMHI_IMAGE_H

#include "image/image.h"
#include "vmhi/image.h"

struct vmhi_image {
    struct mull_image *image;
};

/** Tell the caller of an error, if @ret is one. @return @ret */
int vmhi_give_error(struct vmhi_error *out, const struct mull_error *err, int ret);

/** The caller's options, with zeroes for what it does not know of. */
int vmhi_take_options(const struct vmhi_image_options *in, struct vmhi_image_options *out,
                      struct mull_error *err);

#endif
