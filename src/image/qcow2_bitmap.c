/*
 * QCOW2 persistent dirty bitmaps (Spec, "Bitmaps extension"). Those that record are loaded when the
 * image is opened for writing and marked in use, so that after a crash nobody believes them; a
 * clean close stores them and takes the mark away.
 */
#include "image/qcow2.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BITMAPS_MAX 65535u
#define DIRECTORY_MAX (64u << 20)
#define FLAG_IN_USE 1u
#define FLAG_AUTO 2u
#define TABLE_MAX 0x8000000u
#define LOAD_MAX (UINT64_C(512) << 20)

struct qcow2_bitmap {
    uint64_t entry_at; /* of the directory entry, in the directory */
    uint64_t table_offset;
    uint32_t table_size;
    uint32_t flags;
    uint8_t type, granularity_bits;
    uint64_t *table;
    uint8_t *bits; /* loaded: this one records */
    uint64_t nbits;
};

static int bad(struct mull_image *image, struct mull_error *err, const char *what)
{
    return mull_fail(err, EINVAL, "%s: bitmap directory: %s", image->path, what);
}

static int parse_entry(struct mull_image *image, const uint8_t *dir, uint64_t *at,
                       struct qcow2_bitmap *b, struct mull_error *err)
{
    struct qcow2 *q = image->state;
    const uint8_t *p = dir + *at;

    if (*at + 24 > q->bitmap_dir_length)
        return bad(image, err, "is cut off");
    uint64_t length = 24 + (uint64_t)mull_be16(p + 18) + mull_be32(p + 20);
    length = (length + 7) & ~UINT64_C(7);
    b->entry_at = *at;
    b->table_offset = mull_be64(p);
    b->table_size = mull_be32(p + 8);
    b->flags = mull_be32(p + 12);
    b->type = p[16];
    b->granularity_bits = p[17];
    if (length > q->bitmap_dir_length - *at)
        return bad(image, err, "is cut off");
    if (b->table_size > TABLE_MAX / 8 || b->table_offset & (q->cluster_size - 1) ||
        b->table_offset + (uint64_t)b->table_size * 8 > atomic_load(&image->file->size) ||
        b->table_offset > INT64_MAX / 2)
        return bad(image, err, "a bitmap's table is not possible");
    if (b->granularity_bits < 9 || b->granularity_bits > 31)
        return bad(image, err, "a bitmap's granularity is not possible");
    *at += length;
    return 0;
}

static int load_bits(struct mull_image *image, struct qcow2_bitmap *b)
{
    struct qcow2 *q = image->state;
    uint64_t bytes = (b->nbits + 7) / 8;
    int ret = 0;

    b->bits = calloc(1, (bytes / q->cluster_size + 1) * q->cluster_size);
    if (!b->bits)
        return -ENOMEM;
    for (uint64_t i = 0, at = 0; i < b->table_size && at < bytes && !ret;
         i++, at += q->cluster_size) {
        uint64_t offset = b->table[i] & QCOW2_OFFSET;
        uint64_t n = bytes - at < q->cluster_size ? bytes - at : q->cluster_size;
        if (offset)
            ret = mull_file_read(image->file, b->bits + at, n, offset);
        else if (b->table[i] & 1)
            memset(b->bits + at, 0xff, n);
    }
    return ret;
}

static int write_flags(struct mull_image *image, const struct qcow2_bitmap *b)
{
    struct qcow2 *q = image->state;
    uint8_t flags[4];
    mull_put_be32(flags, b->flags);
    return mull_file_write(image->file, flags, 4, q->bitmap_dir_offset + b->entry_at + 12);
}

/* Loop threads and workers mark bits at once: each is set atomically. */
static void track(struct mull_image *image, uint64_t offset, uint64_t length)
{
    struct qcow2 *q = image->state;
    for (uint32_t i = 0; i < q->nbitmaps; i++) {
        struct qcow2_bitmap *b = &q->bitmaps[i];
        if (!b->bits || !length)
            continue;
        uint64_t last = (offset + length - 1) >> b->granularity_bits;
        for (uint64_t bit = offset >> b->granularity_bits; bit <= last && bit < b->nbits; bit++)
            __atomic_fetch_or(&b->bits[bit / 8], (uint8_t)(1u << (bit % 8)), __ATOMIC_RELAXED);
    }
}

static int start_recording(struct mull_image *image)
{
    struct qcow2 *q = image->state;
    uint64_t total = 0;
    int ret = 0;

    for (uint32_t i = 0; i < q->nbitmaps && !ret; i++) {
        struct qcow2_bitmap *b = &q->bitmaps[i];
        if (!(b->flags & FLAG_AUTO) || b->flags & FLAG_IN_USE || b->type != 1)
            continue;
        b->nbits = (image->size + (UINT64_C(1) << b->granularity_bits) - 1) >> b->granularity_bits;
        total += b->nbits / 8;
        if (total > LOAD_MAX)
            return -EFBIG;
        ret = load_bits(image, b);
        b->flags |= FLAG_IN_USE;
        if (!ret)
            ret = write_flags(image, b);
        q->bitmaps_in_use = true;
    }
    if (!ret && q->bitmaps_in_use)
        ret = mull_file_flush(image->file);
    if (!ret && q->bitmaps_in_use)
        image->track = track;
    return ret;
}

int qcow2_bitmaps_read(struct mull_image *image, struct mull_error *err)
{
    struct qcow2 *q = image->state;
    uint64_t at = 0, size = atomic_load(&image->file->size);
    int ret;

    if (!(q->autoclear & QCOW2_AUTOCLEAR_BITMAPS) || !q->bitmap_ext_at) {
        q->nbitmaps = 0; /* Spec: the extension's data is not to be trusted */
        q->bitmap_ext_at = 0;
        return 0;
    }
    if (q->nbitmaps > BITMAPS_MAX || q->bitmap_dir_length > DIRECTORY_MAX ||
        q->bitmap_dir_offset & (q->cluster_size - 1) || q->bitmap_dir_offset > size ||
        q->bitmap_dir_length > size - q->bitmap_dir_offset ||
        q->nbitmaps > q->bitmap_dir_length / 24)
        return bad(image, err, "lies behind the file or is too large");
    uint8_t *dir = malloc(q->bitmap_dir_length ? q->bitmap_dir_length : 1);
    q->bitmaps = calloc(q->nbitmaps ? q->nbitmaps : 1, sizeof(*q->bitmaps));
    if (!dir || !q->bitmaps) {
        free(dir);
        return mull_fail(err, ENOMEM, "%s: out of memory", image->path);
    }
    ret = mull_file_read(image->file, dir, q->bitmap_dir_length, q->bitmap_dir_offset);
    if (ret)
        mull_fail(err, -ret, "%s: cannot read the bitmap directory", image->path);
    for (uint32_t i = 0; i < q->nbitmaps && !ret; i++) {
        struct qcow2_bitmap *b = &q->bitmaps[i];
        ret = parse_entry(image, dir, &at, b, err);
        if (!ret && (ret = qcow2_read_l1(image, b->table_offset, b->table_size, &b->table)))
            mull_fail(err, -ret, "%s: cannot read a bitmap's table", image->path);
    }
    free(dir);
    if (!ret && !image->readonly && (ret = start_recording(image)))
        mull_fail(err, -ret, "%s: cannot load its bitmaps", image->path);
    return ret;
}

void qcow2_bitmaps_free(struct qcow2 *q)
{
    for (uint32_t i = 0; q->bitmaps && i < q->nbitmaps; i++) {
        free(q->bitmaps[i].table);
        free(q->bitmaps[i].bits);
    }
    free(q->bitmaps);
    q->bitmaps = NULL;
}

/* Whole clusters of one value need no cluster. */
static int uniform(const uint8_t *p, uint64_t n)
{
    if (p[0] != 0 && p[0] != 0xff)
        return -1;
    return n == 1 || !memcmp(p, p + 1, n - 1) ? p[0] : -1;
}

/* Write one bitmap's bits where its table says, with new clusters where it has none. */
static int store_one(struct mull_image *image, struct qcow2_bitmap *b)
{
    struct qcow2 *q = image->state;
    uint64_t bytes = (b->nbits + 7) / 8;
    uint64_t need = (bytes + q->cluster_size - 1) >> q->cluster_bits;
    int ret = 0;

    if (need > b->table_size)
        return -EFBIG; /* resized: stays marked in use */
    for (uint64_t i = 0, at = 0; i < need && !ret; i++, at += q->cluster_size) {
        uint64_t n = bytes - at < q->cluster_size ? bytes - at : q->cluster_size;
        uint64_t offset = b->table[i] & QCOW2_OFFSET, count = 1, first;
        int same = uniform(b->bits + at, n);
        bool fresh;
        if (!offset && same >= 0) {
            b->table[i] = same ? 1 : 0;
            continue;
        }
        if (!offset) {
            ret = qcow2_alloc(image, &count, true, &first, &fresh);
            offset = first << q->cluster_bits;
        }
        if (!ret)
            ret = mull_file_write(image->file, b->bits + at, q->cluster_size, offset);
        b->table[i] = offset;
    }
    uint64_t *disk = ret ? NULL : malloc((size_t)b->table_size * 8 + 8);
    if (!ret && !disk)
        ret = -ENOMEM;
    for (uint32_t i = 0; i < b->table_size && !ret; i++)
        mull_put_be64(&disk[i], b->table[i]);
    if (!ret)
        ret = mull_meta_commit(image->meta, true); /* the refcounts of new clusters first */
    if (!ret)
        ret = mull_file_write(image->file, disk, (uint64_t)b->table_size * 8, b->table_offset);
    free(disk);
    return ret;
}

int qcow2_bitmaps_store(struct mull_image *image)
{
    struct qcow2 *q = image->state;
    int ret = 0;

    if (!q->bitmaps_in_use)
        return 0;
    for (uint32_t i = 0; i < q->nbitmaps && !ret; i++) {
        struct qcow2_bitmap *b = &q->bitmaps[i];
        if (!b->bits)
            continue;
        ret = store_one(image, b);
        if (ret == -EFBIG) {
            ret = 0;
            continue;
        }
        if (!ret)
            ret = mull_file_flush(image->file);
        b->flags &= ~FLAG_IN_USE;
        if (!ret)
            ret = write_flags(image, b);
    }
    return ret ? ret : mull_file_flush(image->file);
}

int qcow2_bitmaps_clusters(struct mull_image *image,
                           int (*fn)(void *opaque, uint64_t offset, uint64_t length), void *opaque)
{
    struct qcow2 *q = image->state;
    int ret = 0;

    if (!q->bitmaps)
        return 0;
    ret = fn(opaque, q->bitmap_dir_offset, q->bitmap_dir_length);
    for (uint32_t i = 0; i < q->nbitmaps && !ret; i++) {
        const struct qcow2_bitmap *b = &q->bitmaps[i];
        ret = fn(opaque, b->table_offset, (uint64_t)b->table_size * 8);
        for (uint32_t j = 0; j < b->table_size && !ret; j++)
            if (b->table[j] & QCOW2_OFFSET)
                ret = fn(opaque, b->table[j] & QCOW2_OFFSET, q->cluster_size);
    }
    return ret;
}
