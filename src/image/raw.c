/*
 * Raw images: the disk's bytes, one after the other, in a file or block device. Holes of a sparse
 * file are its unallocated space. Knows nothing but its file.
 */
#include "image/formats.h"

#include <errno.h>
#include <string.h>

static int raw_open(struct mull_image *image, const struct mull_image_options *options,
                    struct mull_error *err)
{
    uint64_t size = atomic_load(&image->file->size);

    if (size > MULL_IMAGE_SIZE_MAX)
        return mull_fail(err, EFBIG, "%s: larger than the largest disk (1 EiB)", image->path);
    /* Disks end on a sector: what a file lacks of its last one reads as zeroes, and comes into
     * being when it is written. */
    image->size = (size + 511) & ~UINT64_C(511);
    image->unit = 1;
    image->lock_unit = image->file->align;
    return 0;
}

static void raw_close(struct mull_image *image) {}

static int raw_map(struct mull_image *image, uint64_t offset, uint64_t length, bool cached,
                   struct mull_extent *out)
{
    out->kind = MULL_EXTENT_DATA;
    out->length = length;
    out->file = image->file;
    out->offset = offset;
    out->writable = true;
    return 0;
}

static int raw_zero(struct mull_image *image, uint64_t offset, uint64_t length, bool may_unmap)
{
    return mull_file_zero(image->file, offset, length, may_unmap);
}

static int raw_discard(struct mull_image *image, uint64_t offset, uint64_t length)
{
    return mull_file_discard(image->file, offset, length);
}

static int raw_create(const struct mull_create_options *o, struct mull_error *err)
{
    struct mull_file *file;
    struct mull_file_options fo = {
        .path = o->path, .create = true, .unsafe = o->unsafe, .observer = o->observer};

    if (o->backing)
        return mull_fail(err, EINVAL,
                         "%s: a raw image has no backing file; use qcow2, vmdk, vhd "
                         "or vhdx",
                         o->path);
    int ret = mull_file_open(&fo, &file, err);
    if (ret)
        return ret;
    ret = mull_file_truncate(file, o->size);
    if (ret)
        mull_fail(err, -ret, "%s: cannot set the size to %llu bytes: %s", o->path,
                  (unsigned long long)o->size, strerror(-ret));
    mull_file_close(file);
    return ret;
}

static int raw_may_resize(struct mull_image *image, uint64_t size, struct mull_error *err)
{
    return image->file->fixed_size
               ? mull_fail(err, ENOTSUP, "%s: a device keeps its size", image->path)
               : 0;
}

static int raw_resize(struct mull_image *image, uint64_t size, bool preallocate,
                      struct mull_error *err)
{
    /* Durable at once: a later write behind the old end must not make up a size of its own. */
    int ret = mull_file_truncate(image->file, size);
    if (!ret)
        ret = mull_file_flush(image->file);
    if (ret)
        return mull_fail(err, -ret, "%s: cannot set the size: %s", image->path, strerror(-ret));
    image->size = size;
    return 0;
}

const struct mull_format mull_format_raw = {
    .name = "raw",
    .open = raw_open,
    .close = raw_close,
    .map = raw_map,
    .zero = raw_zero,
    .discard = raw_discard,
    .create = raw_create,
    .may_resize = raw_may_resize,
    .resize = raw_resize,
};

/* A disc's file system (ECMA-119): its first descriptor is in sector 16 of 2048 bytes. */
#define ISO_DESCRIPTOR 32768u

bool mull_raw_is_iso(struct mull_file *file)
{
    uint8_t id[6];
    return atomic_load(&file->size) > ISO_DESCRIPTOR &&
           !mull_file_read(file, id, sizeof(id), ISO_DESCRIPTOR) && !memcmp(id, "\1CD001", 6);
}

static int iso_open(struct mull_image *image, const struct mull_image_options *options,
                    struct mull_error *err)
{
    if (!image->readonly)
        return mull_fail(err, EROFS, "%s: an ISO image is only read; say raw to write to it",
                         image->path);
    if (!mull_raw_is_iso(image->file))
        return mull_fail(err, EINVAL, "%s: is not an ISO image (no CD001 in sector 16)",
                         image->path);
    return raw_open(image, options, err);
}

static void iso_info(struct mull_image *image, struct mull_image_info *info)
{
    char label[33] = "";

    /* Volume identifier, 8.4.7, padded with blanks. */
    if (mull_file_read(image->file, label, 32, ISO_DESCRIPTOR + 40))
        return;
    for (int i = 31; i >= 0 && label[i] == ' '; i--)
        label[i] = 0;
    for (char *p = label; *p; p++)
        if (*p < ' ' || *p > '~')
            *p = '?';
    mull_info_add(info, "volume", "%s", label);
}

const struct mull_format mull_format_iso = {
    .name = "iso",
    .open = iso_open,
    .close = raw_close,
    .map = raw_map,
    .info = iso_info,
};
