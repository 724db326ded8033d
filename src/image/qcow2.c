/*
 * QCOW2, versions 2 and 3: where clusters are, places for new ones, zeroes and compressed clusters.
 * Spec: "The QCOW2 image format" (QEMU's docs/interop/qcow2.txt).
 */
#include "image/qcow2.h"

#include "image/source.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define META_CACHE (32u << 20)
#define PLACE_MAX (4u << 20)

static int qcow2_probe(const uint8_t *head, size_t len, const uint8_t *tail, const char *path)
{
    return len >= 8 && mull_be32(head) == QCOW2_MAGIC && mull_be32(head + 4) >= 2 ? 100 : 0;
}

int qcow2_corrupt(struct mull_image *image, const char *what, uint64_t where)
{
    struct qcow2 *q = image->state;
    mull_log(image->log, MULL_LOG_ERROR, "%s: corrupt: %s %#llx; run mullion image check",
             image->path, what, (unsigned long long)where);
    /* What is written must not make it worse: the next open asks for a repair. */
    if (!image->readonly && q->version >= 3 && !(q->incompatible & QCOW2_INCOMPAT_CORRUPT)) {
        q->incompatible |= QCOW2_INCOMPAT_CORRUPT;
        qcow2_header_write(image);
        mull_file_flush(image->file);
    }
    image->failed = true;
    return -EIO;
}

static void qcow2_close(struct mull_image *image)
{
    struct qcow2 *q = image->state;
    mull_file_close(q->clear);
    mull_file_close(q->data_file);
    mull_packer_destroy(q->packer);
    free(q->data_file_name);
    free(q->snapshots);
    free(q->frees);
    free(q->rt);
    free(q->l1);
    free(q);
    image->state = NULL;
}

/* crypt_method 2: sectors are numbered by their place in the file. */
static int open_clear(struct mull_image *image, const struct mull_image_options *o,
                      struct mull_error *err)
{
    struct qcow2 *q = image->state;
    struct mull_file_options fo = {.path = image->path, .readonly = true, .source = o->source};

    if (!q->encrypted)
        return 0;
    if (!q->luks_header || q->luks_header >= atomic_load(&image->file->size))
        return mull_fail(err, EINVAL, "%s: LUKS header is at %#llx", image->path,
                         (unsigned long long)q->luks_header);
    int ret =
        mull_source_decrypt_clusters(&fo, image->file, q->luks_header,
                                     q->data_file ? q->data_file : image->file, &q->clear, err);
    if (!ret && !image->readonly)
        ret = mull_fail(err, ENOTSUP,
                        "%s: is encrypted: it can only be read; convert it to write to it",
                        image->path);
    return ret;
}

static int open_data_file(struct mull_image *image, const struct mull_image_options *o,
                          struct mull_error *err)
{
    struct qcow2 *q = image->state;
    if (!q->data_file_name)
        return mull_fail(err, EINVAL, "%s: has an external data file without a name", image->path);
    int ret = mull_image_open_named(image, o, q->data_file_name, "data file", &q->data_file, err);
    if (ret)
        return ret;
    q->data_file_raw = q->autoclear & QCOW2_AUTOCLEAR_RAW_DATA;
    return mull_meta_depend(image->meta, q->data_file);
}

int qcow2_read_l1(struct mull_image *image, uint64_t offset, uint32_t size, uint64_t **out)
{
    uint64_t *l1 = calloc(size ? size : 1, 8);
    if (!l1)
        return -ENOMEM;
    int ret = mull_file_read(image->file, l1, (uint64_t)size * 8, offset);
    for (uint32_t i = 0; i < size; i++)
        l1[i] = mull_be64(&l1[i]);
    if (ret) {
        free(l1);
        return ret;
    }
    *out = l1;
    return 0;
}

/* An image that was not closed has refcounts that lag behind; one of ours only snapshots' ones. */
static int recover(struct mull_image *image, struct mull_error *err)
{
    struct mull_check check = {.repair = true};
    int ret = qcow2_check(image, &check, err);
    if (ret)
        return ret;
    if (check.errors || check.corruptions > check.fixed)
        return mull_fail(err, EUCLEAN,
                         "%s: was not closed and cannot be repaired on opening; run "
                         "mullion image check --repair",
                         image->path);
    return 0;
}

static int qcow2_open(struct mull_image *image, const struct mull_image_options *o,
                      struct mull_error *err)
{
    struct qcow2 *q = calloc(1, sizeof(*q));
    int ret;

    if (!q)
        return mull_fail(err, ENOMEM, "%s: out of memory", image->path);
    image->state = q;
    q->codec = MULL_CODEC_DEFLATE;
    q->punch = !o->unsafe;
    ret = qcow2_header_parse(image, o, err);
    if (ret)
        return ret;
    image->meta = mull_meta_create(
        image->file, q->cluster_size < 4096 ? (uint32_t)q->cluster_size : 4096, META_CACHE);
    q->packer = mull_packer_create(q->codec, 0);
    if (!image->meta || !q->packer)
        return mull_fail(err, ENOMEM, "%s: out of memory", image->path);
    ret = qcow2_refcount_open(image, err);
    if (ret)
        return ret;
    ret = qcow2_read_l1(image, q->l1_offset, q->l1_size, &q->l1);
    if (ret)
        return mull_fail(err, -ret, "%s: cannot read the L1 table", image->path);
    ret = qcow2_snapshots_read(image, err);
    if (!ret && q->incompatible & QCOW2_INCOMPAT_DATA_FILE)
        ret = open_data_file(image, o, err);
    if (!ret)
        ret = open_clear(image, o, err);
    if (!ret)
        ret = qcow2_bitmaps_read(image, err);
    if (ret)
        return ret;
    image->unit = (uint32_t)q->subcluster;
    image->lock_unit = q->cluster_size;
    if (o->snapshot)
        return qcow2_snapshot_load(image, o->snapshot, err);
    if (!image->readonly && q->version >= 3) {
        /* Features we do not know stop being true with our first write. */
        uint64_t known = QCOW2_AUTOCLEAR_BITMAPS | QCOW2_AUTOCLEAR_RAW_DATA;
        if (q->autoclear & ~known) {
            q->autoclear &= known;
            ret = qcow2_header_write(image);
        }
        if (!ret && q->incompatible & QCOW2_INCOMPAT_DIRTY && !o->repair)
            return recover(image, err);
    }
    return ret ? mull_fail(err, -ret, "%s: cannot update the header", image->path) : 0;
}

void qcow2_packed_place(const struct qcow2 *q, uint64_t entry, uint64_t *offset, uint64_t *length)
{
    /* Spec, "Compressed Clusters Descriptor". */
    uint32_t x = 62 - (q->cluster_bits - 8);
    uint64_t sectors = ((entry & (QCOW2_COMPRESSED - 1)) >> x) + 1;
    *offset = entry & ((UINT64_C(1) << x) - 1);
    *length = sectors * 512 - (*offset & 511);
}

int qcow2_read_entry(struct mull_image *image, uint64_t l2_offset, uint64_t index, bool cached,
                     uint64_t *entry, uint64_t *bitmap)
{
    struct qcow2 *q = image->state;
    uint8_t buf[16];
    uint64_t at = index * q->entry_size;
    int ret = mull_meta_read(image->meta, l2_offset + at, buf, q->entry_size,
                             q->cluster_size - at - q->entry_size, cached);
    if (ret)
        return ret;
    *entry = mull_be64(buf);
    *bitmap = q->extended ? mull_be64(buf + 8) : 0;
    return 0;
}

static int write_entry(struct mull_image *image, uint64_t l2_offset, uint64_t index, uint64_t entry,
                       uint64_t bitmap)
{
    struct qcow2 *q = image->state;
    uint8_t buf[16];
    mull_put_be64(buf, entry);
    mull_put_be64(buf + 8, bitmap);
    return mull_meta_write(image->meta, l2_offset + index * q->entry_size, buf, q->entry_size,
                           QCOW2_STAGE_L2);
}

/* The L2 table for an offset; *l2_offset 0: none. */
static int find_l2(struct mull_image *image, uint64_t offset, uint64_t *l2_offset, uint64_t *index)
{
    struct qcow2 *q = image->state;
    uint64_t l1_index = offset >> (q->cluster_bits + q->l2_bits);

    *index = offset >> q->cluster_bits & ((UINT64_C(1) << q->l2_bits) - 1);
    *l2_offset = l1_index < q->l1_size ? q->l1[l1_index] & QCOW2_OFFSET : 0;
    if (*l2_offset & (q->cluster_size - 1))
        return qcow2_corrupt(image, "L2 table not at a cluster boundary:", *l2_offset);
    return 0;
}

/* What one entry says of the (sub)cluster at @offset. */
static int decode(struct mull_image *image, uint64_t offset, uint64_t entry, uint64_t bitmap,
                  struct mull_extent *e)
{
    struct qcow2 *q = image->state;
    uint64_t in = offset & (q->cluster_size - 1);
    uint32_t sub = (uint32_t)(in / q->subcluster);
    bool has_cluster = qcow2_has_cluster(q, entry);

    e->length = q->subcluster - (in & (q->subcluster - 1));
    if (entry & QCOW2_COMPRESSED) {
        uint64_t length;
        e->kind = MULL_EXTENT_PACKED;
        qcow2_packed_place(q, entry, &e->offset, &length);
        e->file = image->file;
        e->packed_length = (uint32_t)length;
        e->unit_start = offset - in;
        e->unit_length = (uint32_t)q->cluster_size;
        e->length = q->cluster_size - in;
        return q->data_file ? qcow2_corrupt(image, "compressed cluster with a data file at", offset)
                            : 0;
    }
    if (has_cluster && entry & QCOW2_OFFSET & (q->cluster_size - 1))
        return qcow2_corrupt(image,
                             "data cluster not at a cluster boundary:", entry & QCOW2_OFFSET);
    bool zero = q->extended ? bitmap >> (32 + sub) & 1 : q->version >= 3 && entry & QCOW2_ZERO;
    bool data = q->extended ? has_cluster && (bitmap >> sub & 1) : has_cluster;
    if (q->extended && zero && bitmap >> sub & 1)
        return qcow2_corrupt(image, "subcluster both allocated and zero at", offset);
    if (q->extended && !has_cluster && bitmap >> sub & 1)
        return qcow2_corrupt(image, "subcluster allocated without a cluster at", offset);
    if (zero) {
        e->kind = MULL_EXTENT_ZERO;
        e->allocated = has_cluster;
    } else if (data) {
        e->kind = MULL_EXTENT_DATA;
        e->file = q->clear ? q->clear : q->data_file ? q->data_file : image->file;
        e->offset = (entry & QCOW2_OFFSET) + in;
        e->writable = entry & QCOW2_COPIED && !q->reading_snapshot;
    } else {
        e->kind = MULL_EXTENT_HOLE;
    }
    return 0;
}

static bool continues(const struct mull_extent *a, const struct mull_extent *b)
{
    if (a->kind != b->kind || a->writable != b->writable || a->allocated != b->allocated)
        return false;
    return a->kind != MULL_EXTENT_DATA || b->offset == a->offset + a->length;
}

static int qcow2_map(struct mull_image *image, uint64_t offset, uint64_t length, bool cached,
                     struct mull_extent *out)
{
    struct qcow2 *q = image->state;
    uint64_t l2, index, entry, bitmap;
    uint64_t span = UINT64_C(1) << (q->cluster_bits + q->l2_bits);
    uint64_t left = span - (offset & (span - 1));

    if (length > left)
        length = left;
    int ret = find_l2(image, offset, &l2, &index);
    if (ret)
        return ret;
    if (!l2) {
        out->kind = MULL_EXTENT_HOLE;
        out->length = length;
        return 0;
    }
    ret = qcow2_read_entry(image, l2, index, cached, &entry, &bitmap);
    if (!ret)
        ret = decode(image, offset, entry, bitmap, out);
    if (ret || out->kind == MULL_EXTENT_PACKED)
        return ret;
    uint64_t have = index;
    while (out->length < length) {
        struct mull_extent next = {0};
        uint64_t at = offset + out->length, n;
        n = at >> q->cluster_bits & ((UINT64_C(1) << q->l2_bits) - 1);
        if (n != have && qcow2_read_entry(image, l2, n, cached, &entry, &bitmap))
            break; /* the next call says what is wrong */
        have = n;
        if (decode(image, at, entry, bitmap, &next) || !continues(out, &next))
            break;
        out->length += next.length;
    }
    return 0;
}

/* An L2 table that may be changed: a new one, or a copy of one that a snapshot shares. */
static int own_l2(struct mull_image *image, uint64_t offset, uint64_t *l2_offset, uint64_t *index)
{
    struct qcow2 *q = image->state;
    uint64_t l1_index = offset >> (q->cluster_bits + q->l2_bits), count = 1, first;
    uint8_t entry[8];
    bool fresh;
    int ret = find_l2(image, offset, l2_offset, index);

    if (ret || (*l2_offset && q->l1[l1_index] & QCOW2_COPIED))
        return ret;
    if (l1_index >= q->l1_size)
        return -EINVAL;
    ret = qcow2_alloc(image, &count, true, &first, &fresh);
    if (ret)
        return ret;
    uint64_t at = first << q->cluster_bits;
    if (*l2_offset) {
        uint8_t *table = malloc(q->cluster_size);
        ret = table ? mull_meta_read(image->meta, *l2_offset, table, (uint32_t)q->cluster_size, 0,
                                     false)
                    : -ENOMEM;
        if (!ret)
            ret =
                mull_meta_write(image->meta, at, table, (uint32_t)q->cluster_size, QCOW2_STAGE_L2);
        free(table);
        if (!ret)
            ret = qcow2_free_later(image, *l2_offset >> q->cluster_bits, 1);
    } else {
        ret = mull_meta_clear(image->meta, at, q->cluster_size, QCOW2_STAGE_L2);
    }
    mull_put_be64(entry, at | QCOW2_COPIED);
    if (!ret)
        ret = mull_meta_write(image->meta, q->l1_offset + l1_index * 8, entry, 8, QCOW2_STAGE_L1);
    if (ret) {
        qcow2_alloc_undo(image, first, 1);
        return ret;
    }
    q->l1[l1_index] = at | QCOW2_COPIED;
    *l2_offset = at;
    return 0;
}

/* How a place is filled in later; mull_place.cookie[0]. */
enum { PLACE_NEW, PLACE_RESERVED, PLACE_SUBCLUSTERS };

/* How many clusters from @offset on need a place of their own in the same way. */
static uint64_t run_without_place(struct mull_image *image, uint64_t l2, uint64_t index,
                                  uint64_t want)
{
    struct qcow2 *q = image->state;
    uint64_t most = (UINT64_C(1) << q->l2_bits) - index, n = 1;

    want = want < most ? want : most;
    if (!l2)
        return want;
    for (; n < want; n++) {
        uint64_t entry, bitmap;
        if (qcow2_read_entry(image, l2, index + n, false, &entry, &bitmap))
            break;
        if (qcow2_has_cluster(q, entry) && entry & QCOW2_COPIED)
            break; /* overwritten in place, or reserved for it */
    }
    return n;
}

static int qcow2_place(struct mull_image *image, uint64_t offset, uint64_t length,
                       struct mull_place *p)
{
    struct qcow2 *q = image->state;
    uint64_t start = offset & ~(q->cluster_size - 1), l2, index, entry = 0, bitmap = 0;
    int ret = find_l2(image, offset, &l2, &index);

    if (!ret && l2)
        ret = qcow2_read_entry(image, l2, index, false, &entry, &bitmap);
    if (ret)
        return ret;
    bool own = qcow2_has_cluster(q, entry) && entry & QCOW2_COPIED;
    p->start = start;
    p->length = q->cluster_size;
    p->file = q->data_file ? q->data_file : image->file;
    if (own || q->data_file) {
        /* The cluster is ours already, or lies where it must (Spec: "external data file"). */
        p->offset = own ? entry & QCOW2_OFFSET : start;
        p->cookie[0] = PLACE_RESERVED;
        p->cookie[1] = own;
        if (own && q->extended) {
            uint64_t end = offset + length;
            p->cookie[0] = PLACE_SUBCLUSTERS;
            p->start = offset & ~(q->subcluster - 1);
            p->offset += p->start - start;
            if (end > start + q->cluster_size)
                end = start + q->cluster_size;
            end = (end + q->subcluster - 1) & ~(q->subcluster - 1);
            p->length = end - p->start;
        }
        return 0;
    }
    uint64_t count = (offset + length - start + q->cluster_size - 1) >> q->cluster_bits, first;
    if (count > PLACE_MAX >> q->cluster_bits)
        count = PLACE_MAX >> q->cluster_bits ? PLACE_MAX >> q->cluster_bits : 1;
    count = q->extended ? 1 : run_without_place(image, l2, index, count);
    ret = qcow2_alloc(image, &count, false, &first, &p->fresh);
    if (ret)
        return ret;
    p->cookie[0] = PLACE_NEW;
    p->cookie[2] = first;
    p->cookie[3] = count;
    p->offset = first << q->cluster_bits;
    p->length = count << q->cluster_bits;
    if (q->extended && !qcow2_has_cluster(q, entry) && !(entry & QCOW2_COMPRESSED)) {
        /* A cluster of which only the subclusters written are filled. */
        uint64_t end = offset + length;
        if (end > start + q->cluster_size)
            end = start + q->cluster_size;
        p->start = offset & ~(q->subcluster - 1);
        p->offset += p->start - start;
        p->length = ((end + q->subcluster - 1) & ~(q->subcluster - 1)) - p->start;
    }
    return 0;
}

static uint64_t subcluster_mask(const struct qcow2 *q, uint64_t start, uint64_t length)
{
    uint32_t first = (uint32_t)((start & (q->cluster_size - 1)) / q->subcluster);
    uint32_t n = (uint32_t)(length / q->subcluster);
    return (n >= 32 ? UINT32_MAX : (UINT32_C(1) << n) - 1) << first & UINT32_MAX;
}

static int maybe_commit(struct mull_image *image)
{
    return mull_meta_dirty(image->meta) > QCOW2_DIRTY_MAX ? qcow2_commit(image, false) : 0;
}

static int qcow2_link(struct mull_image *image, const struct mull_place *p)
{
    struct qcow2 *q = image->state;
    uint64_t l2, index, cluster = p->offset & ~(q->cluster_size - 1);
    int ret = own_l2(image, p->start, &l2, &index);

    for (uint64_t at = 0; at < p->length && !ret; index++) {
        uint64_t entry, bitmap;
        uint64_t in = (p->start + at) & (q->cluster_size - 1), n = q->cluster_size - in;
        if (n > p->length - at)
            n = p->length - at;
        ret = qcow2_read_entry(image, l2, index, false, &entry, &bitmap);
        if (ret)
            break;
        if (q->extended) {
            uint64_t mask = subcluster_mask(q, p->start + at, n);
            if (p->cookie[0] == PLACE_NEW && entry & QCOW2_COMPRESSED)
                bitmap = 0;
            bitmap = (bitmap | mask) & ~(mask << 32);
        }
        ret = write_entry(image, l2, index, cluster | QCOW2_COPIED, bitmap);
        if (!ret && p->cookie[0] == PLACE_NEW)
            ret = qcow2_free_entry(image, entry);
        at += n;
        cluster += q->cluster_size;
    }
    return ret ? ret : maybe_commit(image);
}

static void qcow2_unplace(struct mull_image *image, const struct mull_place *p)
{
    struct qcow2 *q = image->state;
    uint64_t l2, index, entry, bitmap, end = p->start + p->length;

    if (p->cookie[0] != PLACE_NEW)
        return;
    /* Linked in part, it cannot be given back: a reference would be left. */
    for (uint64_t at = p->start & ~(q->cluster_size - 1); at < end; at += q->cluster_size) {
        if (find_l2(image, at, &l2, &index) || !l2)
            continue;
        if (qcow2_read_entry(image, l2, index, false, &entry, &bitmap))
            return;
        uint64_t host = (entry & QCOW2_OFFSET) >> q->cluster_bits;
        if (!(entry & QCOW2_COMPRESSED) && host >= p->cookie[2] &&
            host < p->cookie[2] + p->cookie[3])
            return;
    }
    qcow2_alloc_undo(image, p->cookie[2], p->cookie[3]);
}

/* What a cluster's entry becomes when [start, +length) of it reads as zeroes. -EAGAIN: only by
 * writing them. *keep: its host cluster stays. */
static int zeroed_entry(struct mull_image *image, uint64_t start, uint64_t length, bool unmap,
                        uint64_t *entry, uint64_t *bitmap, bool *keep)
{
    struct qcow2 *q = image->state;
    bool backed = image->backing_path != NULL;
    bool whole = length == q->cluster_size ||
                 (!(start & (q->cluster_size - 1)) && start + length >= image->size);
    bool has = qcow2_has_cluster(q, *entry);
    bool own = has && (*entry & QCOW2_COPIED || q->data_file);

    *keep = own && (!unmap || q->data_file || !whole);
    if (!whole && ((*entry & QCOW2_COMPRESSED) || (has && !own)))
        return -EAGAIN;
    if (!q->extended) {
        bool flag = q->version >= 3 && (*keep || backed);
        *entry = (*keep ? *entry & (QCOW2_OFFSET | QCOW2_COPIED) : 0) | (flag ? QCOW2_ZERO : 0);
        return 0;
    }
    uint64_t mask = whole ? UINT32_MAX : subcluster_mask(q, start, length + q->subcluster - 1);
    if (*keep || (!has && !whole)) {
        *bitmap = (*bitmap & ~mask) | (*keep || backed ? mask << 32 : 0);
    } else {
        *entry = 0;
        *bitmap = backed ? UINT64_C(0xffffffff) << 32 : 0;
    }
    return 0;
}

static int zero_cluster(struct mull_image *image, uint64_t start, uint64_t length, bool unmap)
{
    struct qcow2 *q = image->state;
    uint64_t l2, index, entry = 0, bitmap = 0;
    bool keep;
    int ret = find_l2(image, start, &l2, &index);

    if (!ret && l2)
        ret = qcow2_read_entry(image, l2, index, false, &entry, &bitmap);
    if (ret || (!l2 && !image->backing_path))
        return ret;
    uint64_t old_entry = entry, old_bitmap = bitmap;
    ret = zeroed_entry(image, start, length, unmap, &entry, &bitmap, &keep);
    if (!ret && q->data_file && keep)
        ret = mull_file_zero(q->data_file, start, length, unmap);
    if (ret || (entry == old_entry && bitmap == old_bitmap))
        return ret;
    ret = own_l2(image, start, &l2, &index);
    if (!ret)
        ret = write_entry(image, l2, index, entry, bitmap);
    if (!ret && !keep)
        ret = qcow2_free_entry(image, old_entry);
    return ret;
}

static int zero_range(struct mull_image *image, uint64_t offset, uint64_t length, bool unmap)
{
    struct qcow2 *q = image->state;
    uint64_t end = offset + length, span = UINT64_C(1) << (q->cluster_bits + q->l2_bits);
    int ret = 0;

    if (q->version < 3 && (image->backing_path || !unmap))
        return -EOPNOTSUPP; /* Spec: version 2 has no zero flag */
    for (uint64_t at = offset; at < end && !ret;) {
        uint64_t l2, index, n = q->cluster_size - (at & (q->cluster_size - 1));
        ret = find_l2(image, at, &l2, &index);
        if (!ret && !l2 && !image->backing_path) {
            at = (at | (span - 1)) + 1;
            continue;
        }
        if (n > end - at)
            n = end - at;
        if (!ret)
            ret = zero_cluster(image, at, n, unmap);
        if (!ret)
            ret = maybe_commit(image);
        at += n;
    }
    return ret;
}

static int qcow2_zero(struct mull_image *image, uint64_t offset, uint64_t length, bool may_unmap)
{
    int ret = zero_range(image, offset, length, may_unmap);
    return ret == -EAGAIN ? -EOPNOTSUPP : ret;
}

static int qcow2_discard(struct mull_image *image, uint64_t offset, uint64_t length)
{
    int ret = zero_range(image, offset, length, true);
    return ret == -EAGAIN ? -EOPNOTSUPP : ret;
}

int qcow2_commit(struct mull_image *image, bool flush)
{
    struct qcow2 *q = image->state;
    int ret = mull_meta_commit(image->meta, flush || q->nfrees);
    if (!ret && q->nfrees)
        ret = qcow2_apply_frees(image);
    return ret;
}

static int qcow2_flush(struct mull_image *image)
{
    return qcow2_commit(image, true);
}

/* The sectors that the last compressed cluster names are there: some readers want all of them. */
static int fill_last_cluster(struct mull_image *image)
{
    const struct qcow2 *q = image->state;
    uint64_t size = atomic_load(&image->file->size), rest = size & (q->cluster_size - 1);
    if (!(size % 512) || image->file->block_device)
        return 0;
    int ret = mull_file_truncate(image->file, size - rest + q->cluster_size);
    return ret ? ret : mull_file_flush(image->file);
}

static int qcow2_close_clean(struct mull_image *image)
{
    int ret = qcow2_bitmaps_store(image);
    if (!ret)
        ret = fill_last_cluster(image);
    /* What the last commit freed is counted down now. */
    return ret ? ret : mull_meta_commit(image->meta, true);
}

static int qcow2_unpack(struct mull_image *image, const struct mull_extent *e, void *out)
{
    struct qcow2 *q = image->state;
    uint8_t *packed = malloc(e->packed_length);
    if (!packed)
        return -ENOMEM;
    int ret = mull_file_read(image->file, packed, e->packed_length, e->offset);
    if (!ret)
        ret = mull_unpack(q->packer, packed, e->packed_length, out, e->unit_length);
    free(packed);
    return ret;
}

static int64_t qcow2_pack(struct mull_image *image, uint64_t offset, const void *data,
                          uint32_t length, void *out, uint32_t room)
{
    struct qcow2 *q = image->state;
    if (length != q->cluster_size)
        return 0;
    return mull_pack(q->packer, data, length, out, room < length - 1 ? room : length - 1);
}

/* Bytes for a compressed cluster: behind the last one where there is room. */
static int alloc_packed(struct mull_image *image, uint32_t length, uint64_t *out)
{
    struct qcow2 *q = image->state;
    uint64_t mask = q->cluster_size - 1,
             room = q->pack_at & mask ? q->cluster_size - (q->pack_at & mask) : 0;
    uint64_t at = q->pack_at, limit = UINT64_C(1) << (62 - (q->cluster_bits - 8));
    uint64_t count = 1, first = 0;
    bool fresh;
    int ret = 0;

    if (q->refcount_order == 0)
        room = 0; /* one-bit refcounts cannot count a second user of a cluster */
    if (room < length) {
        ret = qcow2_alloc(image, &count, true, &first, &fresh);
        if (ret)
            return ret;
        if (!room || first << q->cluster_bits != at + room)
            at = first << q->cluster_bits;
        else
            room = q->cluster_size; /* also in the cluster before */
    }
    if (at + length > limit) {
        if (first)
            qcow2_alloc_undo(image, first, 1);
        return -EFBIG;
    }
    if (room >= length && at & mask)
        ret = qcow2_refcount_add(image, at >> q->cluster_bits, 1);
    if (ret)
        return ret;
    q->pack_at = at + length;
    *out = at;
    return 0;
}

static int qcow2_write_packed(struct mull_image *image, uint64_t offset, const void *packed,
                              uint32_t length)
{
    struct qcow2 *q = image->state;
    uint64_t at, l2, index, entry, bitmap;

    if (q->data_file || offset & (q->cluster_size - 1) || !length || length >= q->cluster_size)
        return -EINVAL;
    int ret = alloc_packed(image, length, &at);
    if (!ret)
        ret = mull_file_write(image->file, packed, length, at);
    if (!ret)
        ret = own_l2(image, offset, &l2, &index);
    if (!ret)
        ret = qcow2_read_entry(image, l2, index, false, &entry, &bitmap);
    if (ret)
        return ret;
    uint32_t x = 62 - (q->cluster_bits - 8);
    uint64_t sectors = ((at + length - 1) >> 9) - (at >> 9);
    ret = write_entry(image, l2, index, at | sectors << x | QCOW2_COMPRESSED, 0);
    if (!ret)
        ret = qcow2_free_entry(image, entry);
    return ret ? ret : maybe_commit(image);
}

static void qcow2_info(struct mull_image *image, struct mull_image_info *info)
{
    struct qcow2 *q = image->state;
    info->unit = (uint32_t)q->cluster_size;
    mull_info_add(info, "compat", q->version == 2 ? "0.10" : "1.1");
    mull_info_add(info, "compression type", q->codec == MULL_CODEC_ZSTD ? "zstd" : "zlib");
    if (q->version < 3)
        return;
    mull_info_add(info, "lazy refcounts", q->compatible & QCOW2_COMPAT_LAZY ? "true" : "false");
    mull_info_add(info, "refcount bits", "%u", 1u << q->refcount_order);
    mull_info_add(info, "corrupt", q->incompatible & QCOW2_INCOMPAT_CORRUPT ? "true" : "false");
    mull_info_add(info, "dirty", q->incompatible & QCOW2_INCOMPAT_DIRTY ? "true" : "false");
    mull_info_add(info, "extended l2", q->extended ? "true" : "false");
    if (q->data_file_name) {
        mull_info_add(info, "data file", "%s", q->data_file_name);
        mull_info_add(info, "data file raw", q->data_file_raw ? "true" : "false");
    }
    if (q->nbitmaps)
        mull_info_add(info, "bitmaps", "%u", q->nbitmaps);
}

static struct mull_file *qcow2_part(struct mull_image *image, uint32_t index)
{
    struct qcow2 *q = image->state;
    return index ? NULL : q->data_file;
}

const struct mull_format mull_format_qcow2 = {
    .name = "qcow2",
    .probe = qcow2_probe,
    .open = qcow2_open,
    .close = qcow2_close,
    .close_clean = qcow2_close_clean,
    .map = qcow2_map,
    .place = qcow2_place,
    .link = qcow2_link,
    .unplace = qcow2_unplace,
    .zero = qcow2_zero,
    .discard = qcow2_discard,
    .flush = qcow2_flush,
    .unpack = qcow2_unpack,
    .pack = qcow2_pack,
    .write_packed = qcow2_write_packed,
    .create = qcow2_create,
    .resize = qcow2_resize,
    .check = qcow2_check,
    .info = qcow2_info,
    .snapshot_list = qcow2_snapshot_list,
    .snapshot_create = qcow2_snapshot_create,
    .snapshot_apply = qcow2_snapshot_apply,
    .snapshot_delete = qcow2_snapshot_delete,
    .rebase = qcow2_rebase,
    .part = qcow2_part,
};
