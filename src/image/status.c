/* What a range of a disk is. See status.h. */
#include "image/status.h"

#include <errno.h>

int mull_image_status(struct mull_image *image, uint64_t offset, uint64_t length,
                      struct mull_status *out)
{
    struct mull_extent e;
    uint64_t start, end;
    int depth = 0;
    int ret = mull_image_locate(image, offset, length, false, &e, NULL, &depth);

    if (ret)
        return ret;
    *out = (struct mull_status){.length = e.length, .depth = depth};
    if (e.kind == MULL_EXTENT_ZERO) {
        out->zero = true;
        out->hole = !e.allocated;
        return 0;
    }
    if (e.kind != MULL_EXTENT_DATA || e.file->block_device)
        return 0;
    /* A sparse file's holes are zeroes too. */
    ret = mull_file_next_data(e.file, e.offset, &start, &end);
    if (ret == -ENXIO || (!ret && start >= e.offset + e.length)) {
        out->zero = out->hole = true;
    } else if (!ret && start > e.offset) {
        out->zero = out->hole = true;
        out->length = start - e.offset;
    } else if (!ret && end < e.offset + e.length) {
        out->length = end - e.offset;
    }
    return 0;
}
