/*
 * Another size for a VHD. Each step leaves an image that is whole, of the old size or the new one:
 * what is larger than it needs to be (a file, an allocation table) is no mistake. Spec: see vhd.h.
 */
#include "image/vhd.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define ENTRIES_MAX (16u << 20)

int vhd_may_resize(struct mull_image *image, uint64_t size, struct mull_error *err)
{
    const struct vhd *v = image->state;

    if (v->type == VHD_DIFFERENCING)
        return mull_fail(err, ENOTSUP, "%s: a differencing image keeps its parent's size",
                         image->path);
    if (!size || size % VHD_SECTOR || (v->type == VHD_DYNAMIC && size > VHD_SIZE_MAX))
        return mull_fail(err, EFBIG, "%s: a VHD holds up to 2040 GiB in sectors of 512 bytes",
                         image->path);
    if (v->type == VHD_DYNAMIC && (size + v->block - 1) / v->block > ENTRIES_MAX)
        return mull_fail(err, EFBIG, "%s: too large for blocks of %u bytes", image->path, v->block);
    return 0;
}

static void set_size(struct vhd *v, uint64_t size)
{
    mull_put_be64(v->footer + 48, size);
    vhd_put_geometry(v->footer + 56, size / VHD_SECTOR);
    /* Of a disk by Virtual PC the geometry counts, and that is rounded. */
    if (!memcmp(v->footer + 28, "vpc ", 4))
        memcpy(v->footer + 28, "win ", 4);
    mull_put_be32(v->footer + 64, vhd_checksum(v->footer, 512, 64));
}

static int put_footer(struct mull_image *image, uint64_t at)
{
    struct vhd *v = image->state;
    int ret = mull_file_write(image->file, v->footer, sizeof(v->footer), at);
    return ret ? ret : mull_file_flush(image->file);
}

/* The footer is at the end of the file, and only there. */
static int resize_fixed(struct mull_image *image, uint64_t size)
{
    struct vhd *v = image->state;
    uint64_t old_end = v->end;
    int ret = 0;

    if (size > old_end) {
        /* A longer file with the old size; then the old footer can go. */
        ret = put_footer(image, size);
        if (!ret)
            ret = mull_file_zero(image->file, old_end, VHD_SECTOR, false);
        if (!ret)
            ret = mull_file_flush(image->file);
        v->end = ret ? old_end : size;
    }
    if (!ret) {
        set_size(v, size);
        ret = put_footer(image, v->end);
    }
    if (!ret && size < v->end) {
        ret = put_footer(image, size);
        if (!ret)
            ret = mull_file_truncate(image->file, size + VHD_SECTOR);
        if (!ret)
            ret = mull_file_flush(image->file);
        if (!ret)
            v->end = size;
    }
    return ret;
}

/* A longer allocation table, behind all blocks; then the first sector of the dynamic disk header,
 * which has all that says where it is. */
static int move_table(struct mull_image *image, uint32_t entries)
{
    struct vhd *v = image->state;
    uint64_t old = v->entries * UINT64_C(4), at = v->end, header = mull_be64(v->footer + 16);
    uint64_t bytes = (entries * UINT64_C(4) + 511) & ~UINT64_C(511);
    uint8_t *table = malloc(bytes), head[1024];
    int ret = table ? 0 : -ENOMEM;

    if (!ret)
        memset(table, 0xff, bytes);
    if (!ret)
        ret = mull_file_read(image->file, table, old, v->bat);
    if (!ret)
        ret = mull_file_read(image->file, head, sizeof(head), header);
    if (!ret)
        ret = mull_file_write(image->file, table, bytes, at);
    if (!ret)
        ret = put_footer(image, at + bytes);
    if (!ret) {
        mull_put_be64(head + 16, at);
        mull_put_be32(head + 28, entries);
        mull_put_be32(head + 36, vhd_checksum(head, sizeof(head), 36));
        ret = mull_file_write(image->file, head, VHD_SECTOR, header);
    }
    if (!ret)
        ret = mull_file_flush(image->file);
    if (!ret) {
        v->bat = at;
        v->entries = entries;
        v->end = at + bytes;
    }
    free(table);
    return ret;
}

int vhd_resize(struct mull_image *image, uint64_t size, bool preallocate, struct mull_error *err)
{
    struct vhd *v = image->state;
    uint64_t entries = v->type == VHD_FIXED ? 0 : (size + v->block - 1) / v->block;
    int ret = image->format->flush(image);

    if (!ret && v->type == VHD_FIXED) {
        ret = resize_fixed(image, size);
    } else if (!ret) {
        if (entries > v->entries)
            ret = move_table(image, (uint32_t)entries);
        if (!ret) {
            set_size(v, size);
            ret = put_footer(image, 0);
        }
        if (!ret)
            ret = put_footer(image, v->end);
    }
    if (ret) {
        image->failed = true; /* which size the file says is not known */
        return mull_fail(err, -ret, "%s: cannot resize: %s", image->path, strerror(-ret));
    }
    image->size = size;
    return 0;
}
