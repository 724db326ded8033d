/* vmhi/image.h over the internal interfaces: changed blocks, snapshots, chains. */
#include "vmhi/image.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "image/bitmap.h"
#include "image/chain.h"
#include "image/vmhi_image.h"

/* As much as the caller knows of. */
static int give_out(void *out, size_t theirs, void *ours, size_t size)
{
    if (theirs < sizeof(size_t))
        return -EINVAL;
    size_t n = theirs < size ? theirs : size;
    memcpy(ours, &n, sizeof(n));
    memcpy(out, ours, n);
    return 0;
}

int vmhi_image_get_bitmap(struct vmhi_image *image, unsigned index, struct vmhi_image_bitmap *out,
                          struct vmhi_error *error)
{
    struct mull_image *i = image->image;
    struct mull_error err = {0};
    int ret = mull_bitmaps_get(i, &err);
    struct mull_bitmap *b = ret ? NULL : i->bitmaps->first;

    while (b && index--)
        b = b->next;
    if (ret || !b)
        return ret ? vmhi_give_error(error, &err, ret) : -ENOENT;
    ret = mull_bitmap_load(i, b, &err);
    if (ret)
        return vmhi_give_error(error, &err, ret);
    struct vmhi_image_bitmap bitmap = {.name = b->name,
                                       .granularity = UINT64_C(1) << b->granularity_bits,
                                       .changed_bytes = mull_bitmap_count(i, b),
                                       .recording = b->recording,
                                       .unknown = b->unknown};
    return give_out(out, out->size, &bitmap, sizeof(bitmap));
}

int vmhi_image_add_bitmap(struct vmhi_image *image, const char *name, uint32_t granularity,
                          struct vmhi_error *error)
{
    struct mull_error err = {0};
    return vmhi_give_error(error, &err, mull_bitmap_add(image->image, name, granularity, &err));
}

int vmhi_image_remove_bitmap(struct vmhi_image *image, const char *name, struct vmhi_error *error)
{
    struct mull_error err = {0};
    return vmhi_give_error(error, &err, mull_bitmap_remove(image->image, name, &err));
}

int vmhi_image_clear_bitmap(struct vmhi_image *image, const char *name, struct vmhi_error *error)
{
    struct mull_error err = {0};
    return vmhi_give_error(error, &err, mull_bitmap_clear(image->image, name, &err));
}

int vmhi_image_merge_bitmap(struct vmhi_image *image, const char *into, const char *from,
                            struct vmhi_error *error)
{
    struct mull_error err = {0};
    return vmhi_give_error(error, &err, mull_bitmap_merge(image->image, into, from, &err));
}

int vmhi_image_next_change(struct vmhi_image *image, const char *name, uint64_t offset,
                           struct vmhi_image_change *out, struct vmhi_error *error)
{
    const struct mull_bitmap nobody = {.unknown = true, .granularity_bits = 9};
    struct mull_image *i = image->image;
    struct mull_error err = {0};
    uint64_t start, end;
    int ret = mull_bitmaps_get(i, &err);
    struct mull_bitmap *b = ret ? NULL : mull_bitmap_find(i, name);

    if (b)
        ret = mull_bitmap_load(i, b, &err);
    if (ret)
        return vmhi_give_error(error, &err, ret);
    if (!mull_bitmap_next(i, b ? b : &nobody, offset, &start, &end))
        return -ENOENT;
    struct vmhi_image_change change = {
        .offset = start, .length = end - start, .unknown = !b || b->unknown};
    return give_out(out, out->size, &change, sizeof(change));
}

static int no_snapshots(const struct mull_image *i, struct mull_error *err)
{
    return mull_fail(err, ENOTSUP, "%s: format %s has no internal snapshots", i->path,
                     i->format->name);
}

int vmhi_image_get_snapshot(struct vmhi_image *image, unsigned index,
                            struct vmhi_image_snapshot *out, struct vmhi_error *error)
{
    struct mull_image *i = image->image;
    struct mull_error err = {0};
    struct mull_snapshot *list;
    uint32_t count;

    if (!i->format->snapshot_list)
        return vmhi_give_error(error, &err, no_snapshots(i, &err));
    int ret = i->format->snapshot_list(i, &list, &count);
    if (ret)
        return vmhi_give_error(error, &err, ret);
    struct vmhi_image_snapshot s = {0};
    if (index < count) {
        snprintf(s.id, sizeof(s.id), "%s", list[index].id);
        snprintf(s.name, sizeof(s.name), "%s", list[index].name);
        s.disk_size = list[index].size;
        s.date_s = list[index].date_s;
    }
    free(list);
    return index < count ? give_out(out, out->size, &s, sizeof(s)) : -ENOENT;
}

static int change_snapshot(struct vmhi_image *image,
                           int (*fn)(struct mull_image *image, const char *name,
                                     struct mull_error *err),
                           const char *name, struct vmhi_error *error)
{
    struct mull_image *i = image->image;
    struct mull_error err = {0};
    int ret;

    if (!fn)
        return vmhi_give_error(error, &err, no_snapshots(i, &err));
    if (i->readonly)
        return vmhi_give_error(error, &err,
                               mull_fail(&err, EROFS, "%s: is open read-only", i->path));
    pthread_mutex_lock(&i->lock);
    ret = fn(i, name, &err);
    pthread_mutex_unlock(&i->lock);
    return vmhi_give_error(error, &err, ret);
}

int vmhi_image_create_snapshot(struct vmhi_image *image, const char *name, struct vmhi_error *error)
{
    return change_snapshot(image, image->image->format->snapshot_create, name, error);
}

int vmhi_image_apply_snapshot(struct vmhi_image *image, const char *name, struct vmhi_error *error)
{
    return change_snapshot(image, image->image->format->snapshot_apply, name, error);
}

int vmhi_image_delete_snapshot(struct vmhi_image *image, const char *name, struct vmhi_error *error)
{
    return change_snapshot(image, image->image->format->snapshot_delete, name, error);
}

int vmhi_image_commit(const struct vmhi_image_options *options, vmhi_progress progress,
                      void *opaque, struct vmhi_error *error)
{
    struct mull_error err = {0};
    struct vmhi_image_options o;
    int ret = vmhi_take_options(options, &o, &err);
    if (!ret) {
        struct mull_image_options io = {.path = o.path, .format = o.format};
        ret = mull_image_commit(&io, 0, progress, opaque, &err);
    }
    return vmhi_give_error(error, &err, ret);
}

int vmhi_image_rebase(const struct vmhi_image_options *options, struct vmhi_error *error)
{
    struct mull_error err = {0};
    struct vmhi_image_options o;
    int ret = vmhi_take_options(options, &o, &err);
    if (!ret) {
        struct mull_image_options io = {.path = o.path, .format = o.format};
        ret = mull_image_rebase(&io, o.backing, o.backing_format, false, &err);
    }
    return vmhi_give_error(error, &err, ret);
}
