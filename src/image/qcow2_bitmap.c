/*
 * QCOW2 persistent dirty bitmaps (Spec, "Bitmaps extension"): where bitmap.h's bitmaps are kept.
 * Those that record are loaded when the image is opened for writing and marked in use, so that
 * after a crash nobody believes them; a clean close stores them and takes the mark away. A
 * directory that changes gets a new place, and the header names it in one write of its first
 * sector.
 */
#include "image/qcow2.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "image/bitmap.h"

#define BITMAPS_MAX 65535u
#define DIRECTORY_MAX (64u << 20)
#define ENTRY 24u
#define FLAG_IN_USE 1u
#define FLAG_AUTO 2u
#define TABLE_MAX 0x8000000u
#define ALL_ONES UINT64_C(1)
#define TYPE_DIRTY 1u
#define NOWHERE UINT64_MAX

/* What the file has of a bitmap. */
struct own {
    uint64_t entry_at; /* in the directory; NOWHERE: not there yet */
    uint64_t table_offset;
    uint32_t table_size;
    uint32_t flags;
    uint8_t type;
    uint64_t *table;
    uint8_t *extra; /* kept as it is */
    uint32_t extra_length;
};

/* Places of removed bitmaps: free once the directory without them is named. */
struct removed {
    size_t count;
    struct {
        uint64_t offset, bytes;
    } runs[];
};

static const struct mull_bitmap_store store;

static int bad(struct mull_image *image, struct mull_error *err, const char *what)
{
    return mull_fail(err, EINVAL, "%s: bitmap directory: %s", image->path, what);
}

/* One entry (Spec, "Bitmap directory"). */
static int parse_entry(struct mull_image *image, const uint8_t *dir, uint64_t *at,
                       struct mull_error *err)
{
    struct qcow2 *q = image->state;
    const uint8_t *p = dir + *at;

    if (*at + ENTRY > q->bitmap_dir_length)
        return bad(image, err, "is cut off");
    uint32_t name = mull_be16(p + 18), extra = mull_be32(p + 20);
    uint64_t length = (ENTRY + (uint64_t)name + extra + 7) & ~UINT64_C(7);
    uint64_t table_offset = mull_be64(p);
    uint32_t table_size = mull_be32(p + 8);
    if (length > q->bitmap_dir_length - *at)
        return bad(image, err, "is cut off");
    if (table_size > TABLE_MAX / 8 || table_offset & (q->cluster_size - 1) ||
        table_offset > INT64_MAX / 2 ||
        table_offset + (uint64_t)table_size * 8 > atomic_load(&image->file->size))
        return bad(image, err, "a bitmap's table is not possible");
    if (p[17] < 9 || p[17] > 31)
        return bad(image, err, "a bitmap's granularity is not possible");
    if (!name || name > MULL_BITMAP_NAME_MAX || memchr(p + ENTRY + extra, 0, name))
        return bad(image, err, "a bitmap's name is not possible");
    struct own *own = calloc(1, sizeof(*own));
    struct mull_bitmap *b =
        own ? mull_bitmaps_append(image, (const char *)p + ENTRY + extra, name, p[17]) : NULL;
    if (!b) {
        free(own);
        return mull_fail(err, ENOMEM, "%s: out of memory", image->path);
    }
    b->own = own;
    own->entry_at = *at;
    own->table_offset = table_offset;
    own->table_size = table_size;
    own->flags = mull_be32(p + 12);
    own->type = p[16];
    own->extra_length = extra;
    if (extra && !(own->extra = malloc(extra)))
        return mull_fail(err, ENOMEM, "%s: out of memory", image->path);
    if (extra)
        memcpy(own->extra, p + ENTRY, extra);
    b->unknown = own->flags & FLAG_IN_USE || own->type != TYPE_DIRTY;
    b->recording = own->flags & FLAG_AUTO && own->type == TYPE_DIRTY;
    *at += length;
    int ret = qcow2_read_l1(image, own->table_offset, own->table_size, &own->table);
    return ret ? mull_fail(err, -ret, "%s: cannot read a bitmap's table", image->path) : 0;
}

int qcow2_bitmaps_read(struct mull_image *image, struct mull_error *err)
{
    struct qcow2 *q = image->state;
    uint64_t at = 0, size = atomic_load(&image->file->size);
    uint32_t count = q->nbitmaps;

    if (q->version < 3)
        return 0; /* has no place for them */
    if (mull_bitmaps_create(image, &store))
        return mull_fail(err, ENOMEM, "%s: out of memory", image->path);
    if (!(q->autoclear & QCOW2_AUTOCLEAR_BITMAPS) || !q->bitmap_ext_at) {
        q->nbitmaps = 0; /* Spec: the extension's data is not to be trusted */
        q->bitmap_dir_length = 0;
        return 0;
    }
    if (count > BITMAPS_MAX || q->bitmap_dir_length > DIRECTORY_MAX ||
        q->bitmap_dir_offset & (q->cluster_size - 1) || q->bitmap_dir_offset > size ||
        q->bitmap_dir_length > size - q->bitmap_dir_offset || count > q->bitmap_dir_length / ENTRY)
        return bad(image, err, "lies behind the file or is too large");
    uint8_t *dir = malloc(q->bitmap_dir_length ? q->bitmap_dir_length : 1);
    if (!dir)
        return mull_fail(err, ENOMEM, "%s: out of memory", image->path);
    int ret = mull_file_read(image->file, dir, q->bitmap_dir_length, q->bitmap_dir_offset);
    if (ret)
        mull_fail(err, -ret, "%s: cannot read the bitmap directory", image->path);
    for (uint32_t i = 0; i < count && !ret; i++)
        ret = parse_entry(image, dir, &at, err);
    free(dir);
    return ret || image->readonly ? ret : mull_bitmaps_start(image, err);
}

static int load_bits(struct mull_image *image, struct mull_bitmap *b)
{
    struct qcow2 *q = image->state;
    const struct own *own = b->own;
    uint64_t bytes = (b->nbits + 7) / 8;
    int ret = 0;

    for (uint64_t i = 0, at = 0; own && i < own->table_size && at < bytes && !ret;
         i++, at += q->cluster_size) {
        uint64_t offset = own->table[i] & QCOW2_OFFSET;
        uint64_t n = bytes - at < q->cluster_size ? bytes - at : q->cluster_size;
        if (offset)
            ret = mull_file_read(image->file, b->bits + at, n, offset);
        else if (own->table[i] & ALL_ONES)
            memset(b->bits + at, 0xff, n);
    }
    if (b->nbits % 8)
        b->bits[bytes - 1] &= (uint8_t)((1u << (b->nbits % 8)) - 1);
    return ret;
}

static int write_flags(struct mull_image *image, const struct own *own)
{
    struct qcow2 *q = image->state;
    uint8_t flags[4];
    mull_put_be32(flags, own->flags);
    return mull_file_write(image->file, flags, 4, q->bitmap_dir_offset + own->entry_at + 12);
}

static int begin(struct mull_image *image)
{
    bool marked = false;
    int ret = 0;

    for (struct mull_bitmap *b = image->bitmaps->first; b && !ret; b = b->next) {
        struct own *own = b->own;
        if (!b->changed || !own || own->entry_at == NOWHERE || own->flags & FLAG_IN_USE)
            continue;
        own->flags |= FLAG_IN_USE;
        ret = write_flags(image, own);
        marked = true;
    }
    return ret || !marked ? ret : mull_file_flush(image->file);
}

/* Whole clusters of one value need no cluster. */
static int uniform(const uint8_t *p, uint64_t n)
{
    if (p[0] != 0 && p[0] != 0xff)
        return -1;
    return n == 1 || !memcmp(p, p + 1, n - 1) ? p[0] : -1;
}

static int alloc_run(struct mull_image *image, uint64_t bytes, uint64_t *offset)
{
    struct qcow2 *q = image->state;
    uint64_t count = (bytes + q->cluster_size - 1) >> q->cluster_bits, first;
    bool fresh;
    int ret = qcow2_alloc(image, &count, true, &first, &fresh);
    *offset = first << q->cluster_bits;
    return ret;
}

static int free_run(struct mull_image *image, uint64_t offset, uint64_t bytes)
{
    struct qcow2 *q = image->state;
    return bytes ? qcow2_free_later(image, offset >> q->cluster_bits,
                                    (bytes + q->cluster_size - 1) >> q->cluster_bits)
                 : 0;
}

/* A table of another length, in another place. */
static int move_table(struct mull_image *image, struct own *own, uint32_t entries)
{
    uint64_t *table = calloc(entries ? entries : 1, sizeof(*table));
    uint64_t old = own->table_offset, old_bytes = (uint64_t)own->table_size * 8;
    int ret = table ? 0 : -ENOMEM;

    for (uint32_t i = 0; i < own->table_size && !ret; i++) {
        if (i < entries)
            table[i] = own->table[i];
        else if (own->table[i] & QCOW2_OFFSET)
            ret = free_run(image, own->table[i] & QCOW2_OFFSET, 1);
    }
    if (!ret && entries)
        ret = alloc_run(image, (uint64_t)entries * 8, &own->table_offset);
    if (ret) {
        free(table);
        return ret;
    }
    free(own->table);
    own->table = table;
    own->table_size = entries;
    return free_run(image, old, old_bytes);
}

/* Write one bitmap's bits where its table says, with new clusters where it has none. */
static int store_bits(struct mull_image *image, struct mull_bitmap *b)
{
    struct qcow2 *q = image->state;
    struct own *own = b->own;
    uint64_t bytes = (b->nbits + 7) / 8;
    uint8_t *cluster = calloc(1, q->cluster_size);
    uint64_t *disk = malloc((size_t)own->table_size * 8 + 8);
    int ret = cluster && disk ? 0 : -ENOMEM;

    for (uint64_t i = 0, at = 0; i < own->table_size && !ret; i++, at += q->cluster_size) {
        uint64_t n = bytes - at < q->cluster_size ? bytes - at : q->cluster_size;
        uint64_t offset = own->table[i] & QCOW2_OFFSET;
        int same = uniform(b->bits + at, n);
        if (same >= 0) {
            if (offset)
                ret = free_run(image, offset, 1);
            own->table[i] = same ? ALL_ONES : 0;
            continue;
        }
        if (!offset)
            ret = alloc_run(image, 1, &offset);
        memset(cluster, 0, q->cluster_size);
        memcpy(cluster, b->bits + at, n);
        if (!ret)
            ret = mull_file_write(image->file, cluster, q->cluster_size, offset);
        own->table[i] = offset;
    }
    for (uint32_t i = 0; i < own->table_size && !ret; i++)
        mull_put_be64(&disk[i], own->table[i]);
    if (!ret)
        ret = mull_meta_commit(image->meta, true); /* the refcounts of new clusters first */
    if (!ret && own->table_size)
        ret = mull_file_write(image->file, disk, (uint64_t)own->table_size * 8, own->table_offset);
    free(cluster);
    free(disk);
    return ret;
}

/* A bitmap as it is in memory; its entry is not written. @moved: its entry must change. */
static int store_one(struct mull_image *image, struct mull_bitmap *b, bool *moved)
{
    struct qcow2 *q = image->state;
    struct own *own = b->own;
    uint64_t need = ((b->nbits + 7) / 8 + q->cluster_size - 1) >> q->cluster_bits;
    int ret = 0;

    if (need > TABLE_MAX / 8)
        return -EFBIG;
    if (!own) {
        own = b->own = calloc(1, sizeof(*own));
        if (!own)
            return -ENOMEM;
        own->entry_at = NOWHERE;
        own->type = TYPE_DIRTY;
        own->flags = FLAG_IN_USE | (b->recording ? FLAG_AUTO : 0);
        *moved = true;
    }
    if (own->table_size != need || !own->table) {
        ret = move_table(image, own, (uint32_t)need);
        *moved = true;
    }
    return ret ? ret : store_bits(image, b);
}

/* The directory anew, in a place of its own; then the header names it. */
static int write_directory(struct mull_image *image)
{
    struct qcow2 *q = image->state;
    uint64_t old = q->bitmap_dir_offset, old_length = q->bitmap_dir_length, length = 0, at = 0;
    uint64_t place = 0;
    uint32_t count = 0;
    uint8_t *dir = NULL;
    int ret = 0;

    for (const struct mull_bitmap *b = image->bitmaps->first; b; b = b->next) {
        const struct own *own = b->own;
        length += (ENTRY + strlen(b->name) + own->extra_length + 7) & ~UINT64_C(7);
        count++;
    }
    if (count > BITMAPS_MAX || length > DIRECTORY_MAX)
        return -E2BIG;
    if (count) {
        ret = alloc_run(image, length, &place);
        dir = ret ? NULL : calloc(1, length);
        if (!ret && !dir)
            ret = -ENOMEM;
    }
    for (struct mull_bitmap *b = image->bitmaps->first; b && !ret; b = b->next) {
        struct own *own = b->own;
        uint32_t name = (uint32_t)strlen(b->name);
        uint8_t *p = dir + at;
        if (b->changed && !b->unknown)
            own->flags &= ~FLAG_IN_USE;
        own->entry_at = at;
        mull_put_be64(p, own->table_offset);
        mull_put_be32(p + 8, own->table_size);
        mull_put_be32(p + 12, own->flags);
        p[16] = own->type;
        p[17] = (uint8_t)b->granularity_bits;
        mull_put_be16(p + 18, (uint16_t)name);
        mull_put_be32(p + 20, own->extra_length);
        if (own->extra_length)
            memcpy(p + ENTRY, own->extra, own->extra_length);
        memcpy(p + ENTRY + own->extra_length, b->name, name);
        at += (ENTRY + name + own->extra_length + 7) & ~UINT64_C(7);
    }
    if (!ret && count)
        ret = mull_file_write(image->file, dir, length, place);
    if (!ret)
        ret = mull_meta_commit(image->meta, true);
    if (!ret)
        ret = qcow2_header_name_bitmaps(image, count, place, length);
    if (!ret)
        ret = free_run(image, old, old_length);
    struct removed *gone = image->bitmaps->state;
    for (size_t i = 0; gone && i < gone->count && !ret; i++)
        ret = free_run(image, gone->runs[i].offset, gone->runs[i].bytes);
    if (gone)
        gone->count = 0;
    free(dir);
    return ret;
}

static int save(struct mull_image *image)
{
    struct mull_bitmap_set *set = image->bitmaps;
    bool moved = set->changed;
    int ret = 0;

    for (struct mull_bitmap *b = set->first; b && !ret; b = b->next)
        if (b->changed && (!b->unknown || !b->own) && b->bits)
            ret = store_one(image, b, &moved);
    if (!ret)
        ret = mull_file_flush(image->file);
    if (!ret && moved)
        ret = write_directory(image);
    for (struct mull_bitmap *b = moved ? NULL : set->first; b && !ret; b = b->next) {
        struct own *own = b->own;
        if (!b->changed || b->unknown || !(own->flags & FLAG_IN_USE))
            continue;
        own->flags &= ~FLAG_IN_USE;
        ret = write_flags(image, own);
    }
    if (!ret)
        ret = mull_file_flush(image->file);
    if (!ret)
        ret = qcow2_apply_frees(image);
    set->in_use = ret != 0;
    return ret;
}

static void note_removed(struct mull_image *image, uint64_t offset, uint64_t bytes)
{
    struct removed *gone = image->bitmaps->state;
    size_t n = gone ? gone->count : 0;

    if (!bytes)
        return;
    gone = realloc(gone, sizeof(*gone) + (n + 1) * sizeof(gone->runs[0]));
    if (!gone)
        return; /* leaked until the next check --repair */
    gone->runs[n].offset = offset;
    gone->runs[n].bytes = bytes;
    gone->count = n + 1;
    image->bitmaps->state = gone;
}

static void drop(struct mull_image *image, struct mull_bitmap *b, bool removed)
{
    struct own *own = b->own;

    for (uint32_t i = 0; removed && own->table && i < own->table_size; i++)
        if (own->table[i] & QCOW2_OFFSET)
            note_removed(image, own->table[i] & QCOW2_OFFSET, 1);
    if (removed)
        note_removed(image, own->table_offset, (uint64_t)own->table_size * 8);
    free(own->table);
    free(own->extra);
    free(own);
    b->own = NULL;
}

static void close_set(struct mull_image *image)
{
    free(image->bitmaps->state);
}

static const struct mull_bitmap_store store = {
    .load = load_bits,
    .begin = begin,
    .save = save,
    .drop = drop,
    .close = close_set,
};

int qcow2_bitmaps_store(struct mull_image *image)
{
    return image->bitmaps && image->bitmaps->store == &store && image->bitmaps->in_use ? save(image)
                                                                                       : 0;
}

int qcow2_bitmaps_clusters(struct mull_image *image,
                           int (*fn)(void *opaque, uint64_t offset, uint64_t length), void *opaque)
{
    struct qcow2 *q = image->state;
    int ret = q->bitmap_dir_length ? fn(opaque, q->bitmap_dir_offset, q->bitmap_dir_length) : 0;

    if (!image->bitmaps || image->bitmaps->store != &store)
        return ret;
    for (struct mull_bitmap *b = image->bitmaps->first; b && !ret; b = b->next) {
        const struct own *own = b->own;
        if (!own || !own->table)
            continue;
        ret = fn(opaque, own->table_offset, (uint64_t)own->table_size * 8);
        for (uint32_t j = 0; j < own->table_size && !ret; j++)
            if (own->table[j] & QCOW2_OFFSET)
                ret = fn(opaque, own->table[j] & QCOW2_OFFSET, q->cluster_size);
    }
    return ret;
}
