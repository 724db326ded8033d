/*
 * A read-only view of part of another image, as a format: for partial copies. The image lies below
 * it; the view answers with the other's extents, moved.
 */
#include "image/formats.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct window {
    struct mull_image *below;
    uint64_t offset;
};

static int window_map(struct mull_image *image, uint64_t offset, uint64_t length, bool cached,
                      struct mull_extent *out)
{
    struct window *w = image->state;
    struct mull_image *owner;
    int ret = mull_image_locate(w->below, w->offset + offset, length, cached, out, &owner, NULL);
    out->writable = false;
    if (ret || out->kind != MULL_EXTENT_PACKED)
        return ret;
    /* Unpacking needs the owner: such ranges are read through it, byte for byte. */
    out->unit_start = offset;
    out->unit_length = (uint32_t)out->length;
    out->offset = offset;
    return 0;
}

static int window_unpack(struct mull_image *image, const struct mull_extent *e, void *out)
{
    struct window *w = image->state;
    return mull_image_read(w->below, out, e->unit_length, w->offset + e->unit_start);
}

static void window_close(struct mull_image *image)
{
    struct window *w = image->state;
    mull_image_abandon(w->below);
    free(w);
    image->state = NULL;
}

static const struct mull_format window_format = {
    .name = "window",
    .close = window_close,
    .map = window_map,
    .unpack = window_unpack,
};

int mull_image_window(struct mull_image *image, uint64_t offset, uint64_t length,
                      struct mull_image **out, struct mull_error *err)
{
    if (offset > image->size)
        return mull_fail(err, EINVAL, "%s: offset %llu lies behind its end", image->path,
                         (unsigned long long)offset);
    struct mull_image *view = calloc(1, sizeof(*view));
    struct window *w = calloc(1, sizeof(*w));
    char *path = strdup(image->path);
    if (!view || !w || !path) {
        free(view);
        free(w);
        free(path);
        return mull_fail(err, ENOMEM, "%s: out of memory", image->path);
    }
    *w = (struct window){image, offset};
    pthread_mutex_init(&view->lock, NULL);
    pthread_mutex_init(&view->range_lock, NULL);
    pthread_mutex_init(&view->unpack_lock, NULL);
    view->format = &window_format;
    view->state = w;
    view->path = path;
    view->size = length < image->size - offset ? length : image->size - offset;
    view->readonly = true;
    view->unit = 1;
    view->lock_unit = 1;
    view->unpacked_at = UINT64_MAX;
    *out = view;
    return 0;
}
