/*
 * What the NBD server's metadata contexts say of a range (proto, "Metadata querying"; QEMU's
 * docs/interop/nbd.txt for qemu:*). Runs on workers.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "image/bitmap.h"
#include "image/nbd/server_private.h"
#include "image/status.h"

static int changes_at(struct mull_image *image, const struct nbd_context *context, uint64_t offset,
                      uint64_t length, uint64_t *part, uint32_t *flags)
{
    const struct mull_bitmap *bitmap = mull_bitmap_find(image, context->bitmap);
    uint64_t start, end;

    if (!bitmap)
        return -ENOENT;
    if (!mull_bitmap_next(image, bitmap, offset, &start, &end)) {
        *part = length;
        *flags = 0;
    } else if (start > offset) {
        *part = start - offset;
        *flags = 0;
    } else {
        *part = end - offset;
        *flags = context->kind == NBD_CONTEXT_BITMAP
                     ? NBD_STATE_DIRTY
                     : NBD_STATE_CHANGED | (bitmap->unknown ? NBD_STATE_UNKNOWN : 0);
    }
    return 0;
}

static int flags_at(struct mull_image *image, const struct nbd_context *context, uint64_t offset,
                    uint64_t length, uint64_t *part, uint32_t *flags)
{
    struct mull_status status;

    if (context->kind == NBD_CONTEXT_BITMAP || context->kind == NBD_CONTEXT_CHANGES)
        return changes_at(image, context, offset, length, part, flags);
    int ret = mull_image_status(image, offset, length, &status);
    if (ret)
        return ret;
    *part = status.length;
    if (context->kind == NBD_CONTEXT_DEPTH)
        *flags = status.hole && status.depth <= 0 ? 0 : (uint32_t)status.depth + 1;
    else
        *flags = (status.hole ? NBD_STATE_HOLE : 0) | (status.zero ? NBD_STATE_ZERO : 0);
    return 0;
}

int nbd_status_fill(struct mull_image *image, const struct nbd_context *context, uint64_t offset,
                    uint64_t length, bool one, struct nbd_extents *out)
{
    uint32_t most = one ? 1 : NBD_EXTENTS_MAX;

    out->count = 0;
    out->list = malloc(most * sizeof(*out->list));
    if (!out->list)
        return -ENOMEM;
    for (uint64_t at = 0, part; at < length; at += part) {
        uint32_t flags;
        int ret = flags_at(image, context, offset + at, length - at, &part, &flags);
        if (ret)
            return ret;
        if (!part)
            return -EIO;
        part = part < length - at ? part : length - at;
        if (out->count && out->list[out->count - 1][1] == flags) {
            out->list[out->count - 1][0] += (uint32_t)part;
        } else if (out->count == most) {
            break;
        } else {
            out->list[out->count][0] = (uint32_t)part;
            out->list[out->count++][1] = flags;
        }
    }
    return 0;
}
