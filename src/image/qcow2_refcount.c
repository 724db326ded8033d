/*
 * QCOW2 refcounts: which host clusters are used (Spec, "Host cluster management"), finding free
 * ones, and dropping references only after nothing durable points at them.
 */
#include "image/qcow2.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Clusters behind the end of the file that are looked at. */
#define BEHIND_MAX 65536u
#define ONE_BLOCK(q) (UINT64_C(1) << (q)->block_bits)

int qcow2_refcount_open(struct mull_image *image, struct mull_error *err)
{
    struct qcow2 *q = image->state;
    uint64_t bytes = (uint64_t)q->rt_clusters << q->cluster_bits;

    if (!q->rt_clusters || bytes > QCOW2_REFTABLE_MAX)
        return mull_fail(err, EINVAL, "%s: refcount table of %u clusters", image->path,
                         q->rt_clusters);
    if (q->rt_offset & (q->cluster_size - 1) || q->rt_offset >= atomic_load(&image->file->size))
        return mull_fail(err, EINVAL, "%s: refcount table at offset %#llx", image->path,
                         (unsigned long long)q->rt_offset);
    q->block_bits = q->cluster_bits + 3 - q->refcount_order;
    q->rt_entries = bytes / 8;
    q->rt = malloc(bytes);
    if (!q->rt)
        return mull_fail(err, ENOMEM, "%s: out of memory", image->path);
    int ret = mull_file_read(image->file, q->rt, bytes, q->rt_offset);
    if (ret)
        return mull_fail(err, -ret, "%s: cannot read the refcount table", image->path);
    for (uint64_t i = 0; i < q->rt_entries; i++) {
        q->rt[i] = mull_be64(&q->rt[i]) & ~UINT64_C(511);
        if (q->rt[i] & (q->cluster_size - 1) && !q->reading_snapshot)
            return mull_fail(err, EINVAL, "%s: refcount block %llu is not at a cluster boundary",
                             image->path, (unsigned long long)i);
        if (q->rt[i])
            q->top = (i + 1) << q->block_bits;
    }
    uint64_t end = (atomic_load(&image->file->size) + q->cluster_size - 1) >> q->cluster_bits;
    q->fresh = end;
    /* Find the last cluster in use. What lies far behind the file is no cluster, whatever a
     * refcount says of it. */
    if (q->top > end + BEHIND_MAX)
        q->top = end + BEHIND_MAX;
    while (q->top > end && q->top) {
        uint64_t count;
        ret = qcow2_refcount_get(image, q->top - 1, &count);
        if (ret)
            return mull_fail(err, -ret, "%s: cannot read refcounts", image->path);
        if (count)
            break;
        q->top--;
    }
    return 0;
}

/* Where a refcount is: its byte, and its place in the byte if it is smaller. */
static uint64_t refcount_at(const struct qcow2 *q, uint64_t cluster, uint32_t *shift)
{
    uint64_t index = cluster & (ONE_BLOCK(q) - 1), bit = index << q->refcount_order;
    *shift = (uint32_t)(bit & 7);
    return bit >> 3;
}

int qcow2_refcount_get(struct mull_image *image, uint64_t cluster, uint64_t *out)
{
    struct qcow2 *q = image->state;
    uint64_t block = cluster >> q->block_bits;
    uint32_t shift, width = 1u << q->refcount_order, bytes = width < 8 ? 1 : width / 8;
    uint8_t buf[8];

    *out = 0;
    if (block >= q->rt_entries || !q->rt[block])
        return 0;
    uint64_t at = refcount_at(q, cluster, &shift);
    int ret = mull_meta_read(image->meta, q->rt[block] + at, buf, bytes, 0, false);
    if (ret)
        return ret;
    if (width < 8) {
        *out = buf[0] >> shift & ((1u << width) - 1);
    } else {
        for (uint32_t i = 0; i < bytes; i++)
            *out = *out << 8 | buf[i];
    }
    return 0;
}

int qcow2_refcount_set(struct mull_image *image, uint64_t cluster, uint64_t value)
{
    struct qcow2 *q = image->state;
    uint64_t block = cluster >> q->block_bits;
    uint32_t shift, width = 1u << q->refcount_order, bytes = width < 8 ? 1 : width / 8;
    uint8_t buf[8];

    if (width < 64 && value >> width)
        return -ERANGE;
    if (block >= q->rt_entries || !q->rt[block])
        return -EIO;
    uint64_t at = q->rt[block] + refcount_at(q, cluster, &shift);
    if (width < 8) {
        int ret = mull_meta_read(image->meta, at, buf, 1, 0, false);
        if (ret)
            return ret;
        buf[0] = (uint8_t)((buf[0] & ~(((1u << width) - 1) << shift)) | value << shift);
    } else {
        for (uint32_t i = 0; i < bytes; i++)
            buf[i] = (uint8_t)(value >> 8 * (bytes - 1 - i));
    }
    if (value && cluster >= q->top)
        q->top = cluster + 1;
    return mull_meta_write(image->meta, at, buf, bytes, QCOW2_STAGE_REFCOUNT);
}

int qcow2_refcount_add(struct mull_image *image, uint64_t cluster, int64_t delta)
{
    uint64_t count;
    int ret = qcow2_refcount_get(image, cluster, &count);
    if (ret)
        return ret;
    if (delta < 0 && count < (uint64_t)-delta)
        return qcow2_corrupt(image, "refcount below zero for cluster", cluster);
    return qcow2_refcount_set(image, cluster, count + (uint64_t)delta);
}

static bool block_missing(const struct qcow2 *q, uint64_t block)
{
    return block >= q->rt_entries || !q->rt[block];
}

/* Blocks (of @bits clusters each) that [first, first + count) lacks. */
static uint64_t missing_blocks(const struct qcow2 *q, uint64_t first, uint64_t count)
{
    uint64_t n = 0;
    for (uint64_t b = first >> q->block_bits; b <= (first + count - 1) >> q->block_bits; b++)
        n += block_missing(q, b);
    return n;
}

/* A larger refcount table at @first; the old one's clusters are dropped. */
static int move_table(struct mull_image *image, uint64_t first, uint64_t clusters)
{
    struct qcow2 *q = image->state;
    uint64_t entries = (clusters << q->cluster_bits) / 8;
    uint64_t *rt = calloc(entries, 8), *disk = calloc(entries, 8);
    uint64_t old = q->rt_offset >> q->cluster_bits, old_clusters = q->rt_clusters;

    if (!rt || !disk) {
        free(rt);
        free(disk);
        return -ENOMEM;
    }
    memcpy(rt, q->rt, q->rt_entries * 8);
    for (uint64_t i = 0; i < entries; i++)
        mull_put_be64(&disk[i], rt[i]);
    free(q->rt);
    q->rt = rt;
    q->rt_entries = entries;
    int ret = mull_file_write(image->file, disk, entries * 8, first << q->cluster_bits);
    free(disk);
    if (ret)
        return ret;
    mull_meta_forget(image->meta, q->rt_offset, old_clusters << q->cluster_bits);
    mull_meta_forget(image->meta, first << q->cluster_bits, clusters << q->cluster_bits);
    q->rt_offset = first << q->cluster_bits;
    q->rt_clusters = (uint32_t)clusters;
    return qcow2_free_later(image, old, old_clusters);
}

/* Count everything from @first on, where blocks (and perhaps the table) have to be made for it:
 * they go behind the @count clusters asked for. All of it is free: it lies at or behind `top`. */
static int extend(struct mull_image *image, uint64_t first, uint64_t count)
{
    struct qcow2 *q = image->state;
    uint64_t blocks = 0, table = 0, all;
    int ret = 0;

    for (;;) {
        all = count + blocks + table;
        uint64_t need = missing_blocks(q, first, all), need_table = 0;
        uint64_t last = (first + all - 1) >> q->block_bits;
        if (last >= q->rt_entries) {
            uint64_t bytes = (last + 1 + last / 4) * 8;
            need_table = (bytes + q->cluster_size - 1) >> q->cluster_bits;
            if (need_table << q->cluster_bits > QCOW2_REFTABLE_MAX)
                return -EFBIG;
        }
        if (need <= blocks && need_table <= table)
            break;
        blocks = need > blocks ? need : blocks;
        table = need_table > table ? need_table : table;
    }

    if (table) {
        ret = move_table(image, first + count + blocks, table);
        if (ret)
            return ret;
    }
    uint64_t at = first + count;
    for (uint64_t b = first >> q->block_bits; b <= (first + all - 1) >> q->block_bits && !ret;
         b++) {
        uint8_t entry[8];
        if (!block_missing(q, b))
            continue;
        q->rt[b] = at << q->cluster_bits;
        mull_put_be64(entry, q->rt[b]);
        ret = mull_meta_clear(image->meta, q->rt[b], q->cluster_size, QCOW2_STAGE_REFCOUNT);
        if (!ret)
            ret =
                mull_meta_write(image->meta, q->rt_offset + b * 8, entry, 8, QCOW2_STAGE_REFTABLE);
        at++;
    }
    for (uint64_t c = first + count; c < first + all && !ret; c++) {
        /* More were reckoned than used where two needs met; those stay free. */
        if (c < at || c >= first + count + blocks)
            ret = qcow2_refcount_set(image, c, 1);
    }
    if (first + all > q->fresh)
        q->fresh = first + all;
    if (!ret && table) {
        /* The header names the new table: everything in it must be there before. */
        ret = mull_meta_commit(image->meta, true);
        if (!ret)
            ret = qcow2_header_write(image);
        if (!ret)
            ret = mull_file_flush(image->file);
        if (ret)
            image->failed = true; /* which table the file names is not known */
    }
    return ret;
}

/* Clusters that are in use whatever their refcounts say: a corrupt image must not be destroyed. */
static bool hits_tables(const struct qcow2 *q, uint64_t first, uint64_t count)
{
    const struct {
        uint64_t offset, length;
    } used[] = {
        {0, q->cluster_size},
        {q->rt_offset, (uint64_t)q->rt_clusters << q->cluster_bits},
        {q->l1_offset, q->l1_size * UINT64_C(8)},
        {q->snapshots_offset, q->snapshots_length},
        {q->bitmap_dir_offset, q->bitmap_dir_length},
    };
    uint64_t start = first << q->cluster_bits, end = (first + count) << q->cluster_bits;
    for (size_t i = 0; i < sizeof(used) / sizeof(used[0]); i++)
        if (used[i].length && start < used[i].offset + used[i].length && used[i].offset < end)
            return true;
    return false;
}

int qcow2_alloc(struct mull_image *image, uint64_t *count, bool exact, uint64_t *first, bool *fresh)
{
    struct qcow2 *q = image->state;
    uint64_t start = q->hint, run = 0, want = *count;
    bool hole_seen = false;
    int ret;

    for (uint64_t c = q->hint; c < q->top && run < want; c++) {
        uint64_t refs;
        ret = qcow2_refcount_get(image, c, &refs);
        if (ret)
            return ret;
        bool missing = block_missing(q, c >> q->block_bits);
        if (refs || missing) {
            if (!hole_seen && refs && c == q->hint)
                q->hint = c + 1;
            if (run && !exact)
                break;
            run = 0;
            if (missing)
                c |= ONE_BLOCK(q) - 1; /* the rest of the block's clusters as well */
            start = c + 1;
            continue;
        }
        hole_seen = true;
        if (!run)
            start = c;
        run++;
    }
    if (!run && start < q->top)
        start = q->top;
    if (start + run >= q->top) {
        /* The run reaches what is not counted yet: free without end. */
        if (start > q->top)
            start = q->top;
        if (run < want && (exact || !run || missing_blocks(q, start, want) == 0))
            run = want;
    }
    if (start + run > (uint64_t)INT64_MAX >> q->cluster_bits)
        return -EFBIG;
    if (hits_tables(q, start, run))
        return qcow2_corrupt(image, "metadata counted as free, at cluster", start);
    *first = start;
    *count = run;
    *fresh = start >= q->fresh;
    if (!image->file->fixed_size && start < q->fresh && start + run > q->fresh) {
        /* Half never written, half used before: take it as used. */
        *fresh = false;
    }
    if (image->file->fixed_size && (start + run) << q->cluster_bits > image->file->size)
        return -ENOSPC;
    if (missing_blocks(q, start, run)) {
        ret = extend(image, start, run);
        if (ret)
            return ret;
    }
    for (uint64_t i = 0; i < run; i++) {
        ret = qcow2_refcount_set(image, start + i, 1);
        if (ret) {
            qcow2_alloc_undo(image, start, i);
            return ret;
        }
    }
    if (start + run > q->fresh)
        q->fresh = start + run;
    if (start <= q->hint)
        q->hint = start + run;
    return 0;
}

void qcow2_alloc_undo(struct mull_image *image, uint64_t first, uint64_t count)
{
    struct qcow2 *q = image->state;
    for (uint64_t i = 0; i < count; i++)
        qcow2_refcount_add(image, first + i, -1); /* fails: a leak, which a check gives back */
    if (first < q->hint)
        q->hint = first;
}

int qcow2_free_later(struct mull_image *image, uint64_t cluster, uint64_t count)
{
    struct qcow2 *q = image->state;
    if (q->nfrees == q->frees_room) {
        size_t room = q->frees_room ? q->frees_room * 2 : 256;
        struct qcow2_free *grown = realloc(q->frees, room * sizeof(*grown));
        if (!grown)
            return -ENOMEM;
        q->frees = grown;
        q->frees_room = room;
    }
    q->frees[q->nfrees++] = (struct qcow2_free){cluster, count};
    return 0;
}

int qcow2_free_entry(struct mull_image *image, uint64_t entry)
{
    struct qcow2 *q = image->state;
    if (entry & QCOW2_COMPRESSED) {
        uint64_t offset, length;
        qcow2_packed_place(q, entry, &offset, &length);
        uint64_t first = offset >> q->cluster_bits;
        return qcow2_free_later(image, first,
                                ((offset + length - 1) >> q->cluster_bits) - first + 1);
    }
    if (!q->data_file && (entry & QCOW2_OFFSET))
        return qcow2_free_later(image, (entry & QCOW2_OFFSET) >> q->cluster_bits, 1);
    return 0;
}

int qcow2_apply_frees(struct mull_image *image)
{
    struct qcow2 *q = image->state;
    int ret = 0;

    for (size_t i = 0; i < q->nfrees; i++) {
        for (uint64_t c = q->frees[i].cluster, n = q->frees[i].count; n; c++, n--) {
            uint64_t refs;
            int r = qcow2_refcount_get(image, c, &refs);
            if (!r)
                r = qcow2_refcount_add(image, c, -1);
            if (r) {
                ret = r;
                continue;
            }
            if (refs != 1)
                continue;
            mull_meta_forget(image->meta, c << q->cluster_bits, q->cluster_size);
            if (q->pack_at && (q->pack_at - 1) >> q->cluster_bits == c)
                q->pack_at = 0;
            if (c < q->hint)
                q->hint = c;
            if (q->punch)
                mull_file_discard(image->file, c << q->cluster_bits, q->cluster_size);
        }
    }
    q->nfrees = 0;
    return ret;
}
