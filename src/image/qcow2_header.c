/*
 * QCOW2 headers (Spec, "Header", "Header extensions"): reading one with suspicion, writing it so
 * that a power cut leaves the old or the new one, creating images, and changing what only the
 * header says.
 */
#include "image/qcow2.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int bad(struct mull_image *image, struct mull_error *err, const char *field, uint64_t value)
{
    return mull_fail(err, EINVAL, "%s: QCOW2 header: %s is %llu", image->path, field,
                     (unsigned long long)value);
}

/* One name out of the header, at most @max bytes, without NUL bytes inside. */
static char *take_string(const uint8_t *at, uint32_t length)
{
    if (memchr(at, 0, length))
        return NULL;
    return strndup((const char *)at, length);
}

static int parse_extensions(struct mull_image *image, const uint8_t *head, uint32_t room,
                            struct mull_error *err)
{
    struct qcow2 *q = image->state;
    uint64_t at = q->header_length;
    uint64_t backing_at = mull_be64(head + 8);
    uint64_t end = backing_at && backing_at < room ? backing_at : room;

    while (at + 8 <= end) {
        uint32_t type = mull_be32(head + at), length = mull_be32(head + at + 4);
        const uint8_t *data = head + at + 8;
        if (type == QCOW2_EXT_END)
            break;
        if (length > end - at - 8)
            return bad(image, err, "length of a header extension", length);
        switch (type) {
        case QCOW2_EXT_BACKING_FORMAT:
            free(image->backing_format);
            image->backing_format = take_string(data, length);
            break;
        case QCOW2_EXT_DATA_FILE:
            free(q->data_file_name);
            q->data_file_name = take_string(data, length);
            break;
        case QCOW2_EXT_LUKS:
            if (length < 16)
                return bad(image, err, "length of the encryption extension", length);
            q->luks_header = mull_be64(data);
            break;
        case QCOW2_EXT_BITMAPS:
            if (length < 24)
                return bad(image, err, "length of the bitmaps extension", length);
            q->nbitmaps = mull_be32(data);
            q->bitmap_dir_length = mull_be64(data + 8);
            q->bitmap_dir_offset = mull_be64(data + 16);
            q->bitmap_ext_at = (uint32_t)at + 8;
            break;
        default:
            break; /* unknown ones may be ignored */
        }
        at += 8 + (((uint64_t)length + 7) & ~UINT64_C(7));
    }
    return 0;
}

static int parse_backing_name(struct mull_image *image, const uint8_t *head, uint64_t cluster,
                              struct mull_error *err)
{
    uint64_t offset = mull_be64(head + 8);
    uint32_t length = mull_be32(head + 16);
    char name[1024];

    if (!offset || !length)
        return 0;
    if (length > 1023)
        return bad(image, err, "backing file name length", length);
    if (offset > cluster - length || length > cluster)
        return bad(image, err, "backing file name offset", offset);
    int ret = mull_file_read(image->file, name, length, offset);
    if (ret)
        return mull_fail(err, -ret, "%s: cannot read the backing file name", image->path);
    image->backing_path = take_string((uint8_t *)name, length);
    return image->backing_path ? 0 : bad(image, err, "a byte of the backing file name", 0);
}

static int parse_v3(struct mull_image *image, const uint8_t *head, bool repair,
                    struct mull_error *err)
{
    struct qcow2 *q = image->state;

    q->incompatible = mull_be64(head + 72);
    q->compatible = mull_be64(head + 80);
    q->autoclear = mull_be64(head + 88);
    q->refcount_order = mull_be32(head + 96);
    q->header_length = mull_be32(head + 100);
    if (q->incompatible & ~QCOW2_INCOMPAT_KNOWN)
        return mull_fail(err, ENOTSUP, "%s: needs QCOW2 features we do not know (bits %#llx)",
                         image->path,
                         (unsigned long long)(q->incompatible & ~QCOW2_INCOMPAT_KNOWN));
    if (q->incompatible & QCOW2_INCOMPAT_CORRUPT && !image->readonly && !repair)
        return mull_fail(err, EUCLEAN, "%s: is marked corrupt; run mullion image check --repair",
                         image->path);
    if (q->refcount_order > 6)
        return bad(image, err, "refcount_order", q->refcount_order);
    if (q->header_length < 104 || q->header_length & 7 || q->header_length > q->cluster_size)
        return bad(image, err, "header_length", q->header_length);
    q->codec = MULL_CODEC_DEFLATE;
    uint8_t type = q->header_length > 104 ? head[104] : 0;
    if (q->incompatible & QCOW2_INCOMPAT_COMPRESSION) {
        if (type > 1)
            return bad(image, err, "compression_type", type);
        q->codec = type ? MULL_CODEC_ZSTD : MULL_CODEC_DEFLATE;
    } else if (type) {
        return bad(image, err, "compression_type without its feature bit", type);
    }
    q->extended = q->incompatible & QCOW2_INCOMPAT_EXTENDED_L2;
    return 0;
}

int qcow2_header_parse(struct mull_image *image, const struct mull_image_options *options,
                       struct mull_error *err)
{
    struct qcow2 *q = image->state;
    uint8_t head[112] = {0};
    int ret = mull_file_read(image->file, head, sizeof(head), 0);

    if (ret)
        return mull_fail(err, -ret, "%s: cannot read the header: %s", image->path, strerror(-ret));
    if (mull_be32(head) != QCOW2_MAGIC)
        return mull_fail(err, EINVAL, "%s: is not a QCOW2 image", image->path);
    q->version = mull_be32(head + 4);
    if (q->version != 2 && q->version != 3)
        return mull_fail(err, ENOTSUP, "%s: QCOW2 version %u is not 2 or 3", image->path,
                         q->version);
    q->cluster_bits = mull_be32(head + 20);
    if (q->cluster_bits < 9 || q->cluster_bits > 21)
        return bad(image, err, "cluster_bits", q->cluster_bits);
    q->cluster_size = UINT64_C(1) << q->cluster_bits;
    image->size = mull_be64(head + 24);
    if (image->size > MULL_IMAGE_SIZE_MAX)
        return bad(image, err, "size", image->size);
    if (mull_be32(head + 32) > 2)
        return bad(image, err, "crypt_method", mull_be32(head + 32));
    if (mull_be32(head + 32) == 1)
        return mull_fail(err, ENOTSUP,
                         "%s: is encrypted with QCOW2's own AES, which is broken: convert it with "
                         "an old qemu-img",
                         image->path);
    q->encrypted = mull_be32(head + 32) == 2;
    q->l1_size = mull_be32(head + 36);
    q->l1_offset = mull_be64(head + 40);
    q->rt_offset = mull_be64(head + 48);
    q->rt_clusters = mull_be32(head + 56);
    q->nsnapshots = mull_be32(head + 60);
    q->snapshots_offset = mull_be64(head + 64);
    q->refcount_order = 4;
    q->header_length = 72;
    if (q->version == 3 && (ret = parse_v3(image, head, options->repair, err)))
        return ret;
    if (q->extended && q->cluster_bits < 14)
        return bad(image, err, "cluster_bits with subclusters", q->cluster_bits);

    q->entry_size = q->extended ? 16 : 8;
    q->l2_bits = q->cluster_bits - (q->extended ? 4 : 3);
    q->subcluster = q->extended ? q->cluster_size / 32 : q->cluster_size;
    uint32_t shift = q->cluster_bits + q->l2_bits;
    uint64_t need = (image->size + (UINT64_C(1) << shift) - 1) >> shift;
    if (q->l1_size > QCOW2_L1_MAX / 8 || q->l1_size < need)
        return bad(image, err, "l1_size", q->l1_size);
    if (q->l1_offset & (q->cluster_size - 1) || q->l1_offset > INT64_MAX - QCOW2_L1_MAX)
        return bad(image, err, "l1_table_offset", q->l1_offset);
    uint64_t end = atomic_load(&image->file->size);
    if (q->l1_size &&
        (q->l1_offset >= end || q->l1_offset + q->l1_size * UINT64_C(8) > end + q->cluster_size))
        return bad(image, err, "l1_table_offset (behind the file)", q->l1_offset);
    if (q->nsnapshots > QCOW2_SNAPSHOTS_MAX)
        return bad(image, err, "nb_snapshots", q->nsnapshots);
    if (q->snapshots_offset & (q->cluster_size - 1))
        return bad(image, err, "snapshots_offset", q->snapshots_offset);

    ret = parse_backing_name(image, head, q->cluster_size, err);
    if (ret)
        return ret;
    uint32_t room = q->cluster_size < 65536 ? (uint32_t)q->cluster_size : 65536;
    uint8_t *all = malloc(room);
    if (!all)
        return mull_fail(err, ENOMEM, "%s: out of memory", image->path);
    ret = mull_file_read(image->file, all, room, 0);
    ret = ret ? mull_fail(err, -ret, "%s: cannot read the header", image->path)
              : parse_extensions(image, all, room, err);
    free(all);
    return ret;
}

static void put_header(const struct mull_image *image, uint8_t *head)
{
    const struct qcow2 *q = image->state;

    mull_put_be64(head + 24, image->size);
    mull_put_be32(head + 36, q->l1_size);
    mull_put_be64(head + 40, q->l1_offset);
    mull_put_be64(head + 48, q->rt_offset);
    mull_put_be32(head + 56, q->rt_clusters);
    mull_put_be32(head + 60, q->nsnapshots);
    mull_put_be64(head + 64, q->snapshots_offset);
    if (q->version >= 3) {
        mull_put_be64(head + 72, q->incompatible);
        mull_put_be64(head + 80, q->compatible);
        mull_put_be64(head + 88, q->autoclear);
    }
}

static void put_bitmaps(const struct qcow2 *q, uint8_t *ext)
{
    memset(ext, 0, 24);
    mull_put_be32(ext, q->nbitmaps);
    mull_put_be64(ext + 8, q->bitmap_dir_length);
    mull_put_be64(ext + 16, q->bitmap_dir_offset);
}

int qcow2_header_write(struct mull_image *image)
{
    struct qcow2 *q = image->state;
    uint8_t head[512];
    int ret = mull_file_read(image->file, head, sizeof(head), 0);

    if (ret)
        return ret;
    put_header(image, head);
    if (q->bitmap_ext_at && q->nbitmaps) {
        uint8_t ext[24];
        put_bitmaps(q, ext);
        if (q->bitmap_ext_at + sizeof(ext) <= sizeof(head))
            memcpy(head + q->bitmap_ext_at, ext, sizeof(ext));
        else
            ret = mull_file_write(image->file, ext, sizeof(ext), q->bitmap_ext_at);
    }
    return ret ? ret : mull_file_write(image->file, head, sizeof(head), 0);
}

int qcow2_set_dirty(struct mull_image *image, bool dirty)
{
    struct qcow2 *q = image->state;
    if (q->version < 3 || dirty == !!(q->incompatible & QCOW2_INCOMPAT_DIRTY))
        return 0;
    q->incompatible ^= QCOW2_INCOMPAT_DIRTY;
    int ret = mull_file_flush(image->file);
    if (!ret)
        ret = qcow2_header_write(image);
    return ret ? ret : mull_file_flush(image->file);
}

/* Append one extension. @return false: no room. */
static bool put_extension(uint8_t *head, uint32_t *at, uint32_t room, uint32_t type,
                          const void *data, uint32_t length)
{
    uint32_t padded = (length + 7) & ~7u;
    if (*at + 8 + padded + 8 > room)
        return false;
    mull_put_be32(head + *at, type);
    mull_put_be32(head + *at + 4, length);
    if (length)
        memcpy(head + *at + 8, data, length);
    *at += 8 + padded;
    return true;
}

/* The extensions and the backing name, behind a header of @at bytes. */
static int put_names(uint8_t *head, uint32_t at, uint32_t room, const char *backing,
                     const char *format, const char *data_file, uint32_t name_at,
                     const uint8_t *bitmaps)
{
    bool fits = true;
    if (format)
        fits = put_extension(head, &at, room, QCOW2_EXT_BACKING_FORMAT, format,
                             (uint32_t)strlen(format));
    if (fits && data_file)
        fits = put_extension(head, &at, room, QCOW2_EXT_DATA_FILE, data_file,
                             (uint32_t)strlen(data_file));
    if (fits && bitmaps)
        fits = put_extension(head, &at, room, QCOW2_EXT_BITMAPS, bitmaps, 24);
    if (!fits || at + 8 > room)
        return -ENAMETOOLONG;
    memset(head + at, 0, 8);
    at += 8;
    if (backing) {
        uint32_t length = (uint32_t)strlen(backing);
        if (name_at < at)
            name_at = at;
        if (length > 1023 || name_at + length > room)
            return -ENAMETOOLONG;
        memcpy(head + name_at, backing, length);
        mull_put_be64(head + 8, name_at);
        mull_put_be32(head + 16, length);
    } else {
        mull_put_be64(head + 8, 0);
        mull_put_be32(head + 16, 0);
    }
    return 0;
}

/* Where an extension's data is, 0: there is none. */
static uint32_t find_extension(const uint8_t *head, uint32_t at, uint32_t type)
{
    while (at + 8 <= 512 && mull_be32(head + at) != QCOW2_EXT_END) {
        if (mull_be32(head + at) == type)
            return at + 8;
        uint32_t length = mull_be32(head + at + 4);
        if (length > 512)
            break;
        at += 8 + ((length + 7) & ~7u);
    }
    return 0;
}

/* All extensions of @old but the bitmaps', and then that one, into the first sector. */
static int copy_extensions(const struct qcow2 *q, const uint8_t *old, uint32_t room, bool features,
                           uint8_t *head, uint32_t *end)
{
    uint64_t backing_at = mull_be64(old + 8), from = q->header_length;
    uint64_t limit = backing_at && backing_at < room ? backing_at : room;
    uint32_t at = q->header_length;
    uint8_t bitmaps[24];

    if (at > 512 - 8)
        return -ENAMETOOLONG;
    while (from + 8 <= limit) {
        uint32_t type = mull_be32(old + from), length = mull_be32(old + from + 4);
        if (type == QCOW2_EXT_END || length > limit - from - 8)
            break;
        if (type != QCOW2_EXT_BITMAPS && (features || type != QCOW2_EXT_FEATURES) &&
            !put_extension(head, &at, 512, type, old + from + 8, length))
            return -ENAMETOOLONG;
        from += 8 + (((uint64_t)length + 7) & ~UINT64_C(7));
    }
    put_bitmaps(q, bitmaps);
    if (q->nbitmaps && !put_extension(head, &at, 512, QCOW2_EXT_BITMAPS, bitmaps, 24))
        return -ENAMETOOLONG;
    memset(head + at, 0, 8);
    *end = at + 8;
    return 0;
}

int qcow2_header_name_bitmaps(struct mull_image *image, uint32_t count, uint64_t offset,
                              uint64_t length)
{
    struct qcow2 *q = image->state;
    uint32_t room = q->cluster_size < 65536 ? (uint32_t)q->cluster_size : 65536, end = 0;
    uint8_t *old = calloc(1, room), head[512];
    int ret = old ? mull_file_read(image->file, old, room, 0) : -ENOMEM;

    q->nbitmaps = count;
    q->bitmap_dir_offset = offset;
    q->bitmap_dir_length = length;
    q->autoclear &= ~QCOW2_AUTOCLEAR_BITMAPS;
    q->autoclear |= count ? QCOW2_AUTOCLEAR_BITMAPS : 0;
    /* The table of feature names is for messages only: it gives way. */
    for (int features = 1; features >= 0 && !ret; features--) {
        memset(head, 0, sizeof(head));
        memcpy(head, old, q->header_length < 512 ? q->header_length : 512);
        ret = copy_extensions(q, old, room, features, head, &end);
        if (!ret)
            break;
        if (features)
            ret = 0;
    }
    uint64_t name_at = ret ? 0 : mull_be64(old + 8);
    uint32_t name = ret ? 0 : mull_be32(old + 16);
    if (name_at && (name > 1023 || name_at > room - name))
        ret = -EINVAL;
    if (name_at && !ret && (name_at < end || (name_at < 512 && name_at + name > 512))) {
        /* The name goes behind all there is: into the first sector, or to where nothing was. */
        uint64_t behind = (name_at + name + 511) & ~UINT64_C(511);
        if (end + name <= 512) {
            memcpy(head + end, old + name_at, name);
            behind = end;
        } else if (behind + name <= room) {
            ret = mull_file_write(image->file, old + name_at, name, behind);
            if (!ret)
                ret = mull_file_flush(image->file);
        } else {
            ret = -ENAMETOOLONG;
        }
        mull_put_be64(head + 8, behind);
    } else if (name_at && name_at < 512 && !ret) {
        memcpy(head + name_at, old + name_at, name);
    }
    put_header(image, head);
    if (!ret)
        ret = mull_file_write(image->file, head, sizeof(head), 0);
    if (!ret)
        ret = mull_file_flush(image->file);
    if (!ret)
        q->bitmap_ext_at = find_extension(head, q->header_length, QCOW2_EXT_BITMAPS);
    free(old);
    return ret;
}

struct layout {
    uint32_t version, cluster_bits, refcount_order;
    uint64_t cluster, l1_size, l1_clusters, rt_clusters, blocks, total;
};

static int lay_out(const struct mull_create_options *o, struct layout *l, struct mull_error *err)
{
    uint32_t unit = o->unit ? o->unit : 65536,
             bits = o->refcount_bits ? (uint32_t)o->refcount_bits : 16;
    l->version = 3;
    if (o->version && (!strcmp(o->version, "2") || !strcmp(o->version, "0.10")))
        l->version = 2;
    else if (o->version && strcmp(o->version, "3") && strcmp(o->version, "1.1"))
        return mull_fail(err, EINVAL, "%s: QCOW2 version '%s' is not 2 or 3", o->path, o->version);
    if (unit < 512 || unit > 2u << 20 || unit & (unit - 1))
        return mull_fail(err, EINVAL, "%s: cluster size %u is not a power of two from 512 to 2M",
                         o->path, unit);
    if (bits > 64 || bits & (bits - 1))
        return mull_fail(err, EINVAL, "%s: %u refcount bits are not a power of two up to 64",
                         o->path, bits);
    if (l->version == 2 && (bits != 16 || o->lazy_refcounts || o->extended_l2 || o->data_file ||
                            (o->compression && strcmp(o->compression, "zlib"))))
        return mull_fail(err, EINVAL, "%s: that option needs QCOW2 version 3", o->path);
    if (o->extended_l2 && unit < 16384)
        return mull_fail(err, EINVAL, "%s: extended L2 entries need clusters of 16K or more",
                         o->path);
    if (o->compression && strcmp(o->compression, "zlib") && strcmp(o->compression, "zstd"))
        return mull_fail(err, EINVAL, "%s: compression '%s' is not zlib or zstd", o->path,
                         o->compression);
    if (o->data_file && o->backing && o->data_file_raw)
        return mull_fail(err, EINVAL, "%s: a raw data file excludes a backing file", o->path);
    l->cluster_bits = (uint32_t)__builtin_ctz(unit);
    l->refcount_order = (uint32_t)__builtin_ctz(bits);
    l->cluster = unit;
    uint32_t shift = l->cluster_bits * 2 - (o->extended_l2 ? 4 : 3);
    l->l1_size = (o->size + (UINT64_C(1) << shift) - 1) >> shift;
    if (o->size > MULL_IMAGE_SIZE_MAX || l->l1_size > QCOW2_L1_MAX / 8)
        return mull_fail(err, EFBIG, "%s: %llu bytes are too many for clusters of %u", o->path,
                         (unsigned long long)o->size, unit);
    l->l1_clusters = (l->l1_size * 8 + unit - 1) / unit;
    uint64_t per_block = UINT64_C(1) << (l->cluster_bits + 3 - l->refcount_order);
    l->rt_clusters = l->blocks = 1;
    for (;;) {
        l->total = 1 + l->rt_clusters + l->blocks + l->l1_clusters;
        uint64_t blocks = (l->total + per_block - 1) / per_block;
        uint64_t rt = (blocks * 8 + unit - 1) / unit;
        if (blocks <= l->blocks && rt <= l->rt_clusters)
            return 0;
        l->blocks = blocks > l->blocks ? blocks : l->blocks;
        l->rt_clusters = rt > l->rt_clusters ? rt : l->rt_clusters;
    }
}

static int write_tables(struct mull_file *file, const struct layout *l)
{
    uint64_t rt_bytes = l->rt_clusters * l->cluster, block_bytes = l->blocks * l->cluster;
    uint8_t *rt = calloc(1, rt_bytes), *blocks = calloc(1, block_bytes);
    int ret = rt && blocks ? 0 : -ENOMEM;

    for (uint64_t i = 0; i < l->blocks && !ret; i++)
        mull_put_be64(rt + i * 8, (1 + l->rt_clusters + i) * l->cluster);
    for (uint64_t i = 0; i < l->total && !ret; i++) {
        uint32_t width = 1u << l->refcount_order;
        if (width < 8)
            blocks[(i << l->refcount_order) >> 3] |=
                (uint8_t)(1u << ((i << l->refcount_order) & 7));
        else
            blocks[(i + 1) * (width / 8) - 1] = 1;
    }
    if (!ret)
        ret = mull_file_write(file, rt, rt_bytes, l->cluster);
    if (!ret)
        ret = mull_file_write(file, blocks, block_bytes, (1 + l->rt_clusters) * l->cluster);
    free(rt);
    free(blocks);
    return ret;
}

static int create_data_file(const struct mull_create_options *o, struct mull_error *err)
{
    struct mull_file *file;
    struct mull_file_options fo = {.create = true, .observer = o->observer};
    char *path = mull_image_relative_path(o->path, o->data_file);
    if (!path)
        return mull_fail(err, EINVAL, "%s: data file name '%s'", o->path, o->data_file);
    fo.path = path;
    int ret = mull_file_open(&fo, &file, err);
    free(path);
    if (ret)
        return ret;
    ret = mull_file_truncate(file, o->size);
    mull_file_close(file);
    return ret ? mull_fail(err, -ret, "%s: cannot size the data file", o->path) : 0;
}

int qcow2_create(const struct mull_create_options *o, struct mull_error *err)
{
    struct layout l = {0};
    struct mull_file *file;
    int ret = lay_out(o, &l, err);
    if (!ret && o->data_file)
        ret = create_data_file(o, err);
    if (ret)
        return ret;

    uint32_t room = (uint32_t)l.cluster, length = l.version == 2 ? 72 : 112;
    uint8_t *head = calloc(1, room);
    if (!head)
        return mull_fail(err, ENOMEM, "%s: out of memory", o->path);
    bool zstd = o->compression && !strcmp(o->compression, "zstd");
    mull_put_be32(head, QCOW2_MAGIC);
    mull_put_be32(head + 4, l.version);
    mull_put_be32(head + 20, l.cluster_bits);
    mull_put_be64(head + 24, o->size);
    mull_put_be32(head + 36, (uint32_t)l.l1_size);
    mull_put_be64(head + 40, l.l1_size ? (1 + l.rt_clusters + l.blocks) * l.cluster : 0);
    mull_put_be64(head + 48, l.cluster);
    mull_put_be32(head + 56, (uint32_t)l.rt_clusters);
    if (l.version == 3) {
        mull_put_be64(head + 72, (o->data_file ? QCOW2_INCOMPAT_DATA_FILE : 0) |
                                     (zstd ? QCOW2_INCOMPAT_COMPRESSION : 0) |
                                     (o->extended_l2 ? QCOW2_INCOMPAT_EXTENDED_L2 : 0));
        mull_put_be64(head + 80, o->lazy_refcounts ? QCOW2_COMPAT_LAZY : 0);
        mull_put_be64(head + 88, o->data_file && o->data_file_raw ? QCOW2_AUTOCLEAR_RAW_DATA : 0);
        mull_put_be32(head + 96, l.refcount_order);
        mull_put_be32(head + 100, length);
        head[104] = zstd;
    }
    ret = put_names(head, length, room, o->backing, o->backing ? o->backing_format : NULL,
                    o->data_file, 0, NULL);
    if (ret) {
        free(head);
        return mull_fail(err, -ret, "%s: the names do not fit into a header of %u bytes", o->path,
                         room);
    }
    struct mull_file_options fo = {
        .path = o->path, .create = true, .unsafe = o->unsafe, .observer = o->observer};
    ret = mull_file_open(&fo, &file, err);
    if (!ret) {
        ret = mull_file_truncate(file, l.total * l.cluster);
        if (!ret)
            ret = write_tables(file, &l);
        if (!ret)
            ret = mull_file_flush(file);
        if (!ret)
            ret = mull_file_write(file, head, room, 0); /* what makes it an image comes last */
        if (!ret)
            ret = mull_file_flush(file);
        if (ret)
            mull_fail(err, -ret, "%s: cannot write: %s", o->path, strerror(-ret));
        mull_file_close(file);
    }
    free(head);
    return ret;
}

int qcow2_rebase(struct mull_image *image, const char *path, const char *format,
                 struct mull_error *err)
{
    struct qcow2 *q = image->state;
    uint32_t room = q->cluster_size < 4096 ? (uint32_t)q->cluster_size : 4096;
    uint8_t head[4096] = {0}, old[4096], bitmaps[24];
    int ret = mull_file_read(image->file, old, room, 0);

    if (ret)
        return mull_fail(err, -ret, "%s: cannot read the header", image->path);
    /* The new name goes where the old one is not, so that the old header stays whole until its
     * first sector, with all extensions, is replaced at once. */
    uint64_t old_at = mull_be64(old + 8);
    uint32_t place = room >= 4096 ? (old_at < 2048 ? 2048 : 1024) : 0;
    memcpy(head, old, q->header_length < 512 ? q->header_length : 512);
    put_header(image, head);
    put_bitmaps(q, bitmaps);
    ret = put_names(head, q->header_length, room < 512 || place ? 512 : room, NULL, format,
                    q->data_file_name, 0, q->nbitmaps ? bitmaps : NULL);
    if (!ret)
        ret = put_names(head, q->header_length, room, path, format, q->data_file_name, place,
                        q->nbitmaps ? bitmaps : NULL);
    if (ret)
        return mull_fail(err, -ret, "%s: the name does not fit into the header", image->path);
    if (path && place) {
        uint32_t n = (uint32_t)strlen(path);
        ret = mull_file_write(image->file, head + place, n, place);
        if (!ret)
            ret = mull_file_flush(image->file);
    }
    if (!ret)
        ret = mull_file_write(image->file, head, 512, 0);
    if (!ret)
        ret = mull_file_flush(image->file);
    if (ret)
        return mull_fail(err, -ret, "%s: cannot write the header: %s", image->path, strerror(-ret));
    q->bitmap_ext_at = find_extension(head, q->header_length, QCOW2_EXT_BITMAPS);
    free(image->backing_path);
    free(image->backing_format);
    image->backing_path = path ? strdup(path) : NULL;
    image->backing_format = path && format ? strdup(format) : NULL;
    return 0;
}

/* A longer L1 table, in a place of its own; the header names it in the same write as the size. */
static int grow_l1(struct mull_image *image, uint32_t entries)
{
    struct qcow2 *q = image->state;
    uint64_t bytes = (uint64_t)entries * 8, first;
    uint64_t count = (bytes + q->cluster_size - 1) >> q->cluster_bits;
    uint64_t old = q->l1_offset, old_bytes = (uint64_t)q->l1_size * 8;
    bool fresh;

    uint64_t *l1 = calloc(count << q->cluster_bits, 1), *disk = calloc(count, q->cluster_size);
    int ret = l1 && disk ? qcow2_alloc(image, &count, true, &first, &fresh) : -ENOMEM;
    if (!ret) {
        memcpy(l1, q->l1, old_bytes);
        for (uint32_t i = 0; i < entries; i++)
            mull_put_be64(&disk[i], l1[i]);
        mull_meta_forget(image->meta, first << q->cluster_bits, count << q->cluster_bits);
        ret =
            mull_file_write(image->file, disk, count << q->cluster_bits, first << q->cluster_bits);
    }
    free(disk);
    if (ret) {
        free(l1);
        return ret;
    }
    free(q->l1);
    q->l1 = l1;
    q->l1_size = entries;
    q->l1_offset = first << q->cluster_bits;
    if (old_bytes)
        ret = qcow2_free_later(image, old >> q->cluster_bits,
                               (old_bytes + q->cluster_size - 1) >> q->cluster_bits);
    return ret;
}

int qcow2_resize(struct mull_image *image, uint64_t size, bool preallocate, struct mull_error *err)
{
    struct qcow2 *q = image->state;
    uint32_t shift = q->cluster_bits + q->l2_bits;
    uint64_t need = (size + (UINT64_C(1) << shift) - 1) >> shift;
    int ret = 0;

    if (need > QCOW2_L1_MAX / 8)
        return mull_fail(err, EFBIG, "%s: too large for clusters of %llu bytes", image->path,
                         (unsigned long long)q->cluster_size);
    if (q->data_file && size > image->size)
        ret = mull_file_truncate(q->data_file, size);
    if (!ret)
        ret = qcow2_commit(image, true);
    if (!ret && need > q->l1_size) {
        ret = grow_l1(image, (uint32_t)need);
        if (!ret)
            ret = mull_meta_commit(image->meta, true);
    }
    uint64_t old = image->size;
    image->size = size;
    if (!ret)
        ret = qcow2_header_write(image);
    if (!ret)
        ret = mull_file_flush(image->file);
    if (!ret)
        ret = qcow2_apply_frees(image);
    if (ret) {
        image->size = old;
        return mull_fail(err, -ret, "%s: cannot resize: %s", image->path, strerror(-ret));
    }
    return 0;
}
