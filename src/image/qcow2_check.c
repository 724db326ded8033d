/*
 * Checking QCOW2: counts every reference in the file anew and compares with the refcounts and
 * COPIED flags on the disk. Repairing makes those say what was counted; it never guesses at tables.
 */
#include "image/qcow2.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define CLUSTERS_MAX (UINT64_C(1) << 28)

struct counter {
    struct mull_image *image;
    struct mull_check *check;
    uint32_t *refs;
    uint64_t clusters;
};

static void say(const struct mull_check *check, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

static void say(const struct mull_check *check, const char *fmt, ...)
{
    va_list ap;
    if (!check->out || check->corruptions + check->leaks > 1000)
        return;
    va_start(ap, fmt);
    vfprintf(check->out, fmt, ap);
    va_end(ap);
    fputc('\n', check->out);
}

/* Count [offset, +length) once more. What lies behind the file is a corruption. */
static int count(struct counter *c, const char *what, uint64_t offset, uint64_t length)
{
    struct qcow2 *q = c->image->state;
    if (!length)
        return 0;
    uint64_t first = offset >> q->cluster_bits, last = (offset + length - 1) >> q->cluster_bits;
    if (offset >= atomic_load(&c->image->file->size)) {
        c->check->corruptions++;
        say(c->check, "ERROR: %s at %#llx lies behind the end of the file", what,
            (unsigned long long)offset);
        return 0;
    }
    for (uint64_t i = first; i <= last; i++) {
        if (i >= c->clusters) {
            c->check->corruptions++;
            say(c->check, "ERROR: %s at %#llx reaches behind the end of the file", what,
                (unsigned long long)offset);
            return 0;
        }
        if (c->refs[i] < UINT32_MAX)
            c->refs[i]++;
    }
    return 0;
}

static int count_bitmap(void *opaque, uint64_t offset, uint64_t length)
{
    return count(opaque, "bitmap", offset, length);
}

static int count_l2(struct counter *c, uint64_t l2, bool active)
{
    struct qcow2 *q = c->image->state;
    uint64_t entries = UINT64_C(1) << q->l2_bits;
    uint8_t *table = malloc(q->cluster_size);
    int ret = table ? mull_meta_read(c->image->meta, l2, table, (uint32_t)q->cluster_size, 0, false)
                    : -ENOMEM;

    for (uint64_t i = 0; i < entries && !ret; i++) {
        uint64_t entry = mull_be64(table + i * q->entry_size);
        if (active && (entry & QCOW2_COMPRESSED || qcow2_has_cluster(q, entry)))
            c->check->allocated++;
        if (entry & QCOW2_COMPRESSED) {
            uint64_t offset, length;
            qcow2_packed_place(q, entry, &offset, &length);
            if (entry & QCOW2_COPIED) {
                c->check->corruptions++;
                say(c->check, "ERROR: compressed cluster %#llx has the COPIED flag",
                    (unsigned long long)offset);
            }
            count(c, "compressed cluster", offset, length);
        } else if (entry & QCOW2_OFFSET && !q->data_file) {
            uint64_t offset = entry & QCOW2_OFFSET;
            if (offset & (q->cluster_size - 1)) {
                c->check->corruptions++;
                say(c->check, "ERROR: data cluster %#llx is not at a cluster boundary",
                    (unsigned long long)offset);
            } else {
                count(c, "data cluster", offset, q->cluster_size);
            }
        }
    }
    free(table);
    return ret;
}

static int count_l1(struct counter *c, const uint64_t *l1, uint64_t offset, uint32_t size,
                    bool active)
{
    struct qcow2 *q = c->image->state;
    int ret = count(c, "L1 table", offset, (uint64_t)size * 8);

    for (uint32_t i = 0; i < size && !ret; i++) {
        uint64_t l2 = l1[i] & QCOW2_OFFSET;
        if (!l2)
            continue;
        if (l2 & (q->cluster_size - 1) || l2 >> q->cluster_bits >= c->clusters) {
            c->check->corruptions++;
            say(c->check, "ERROR: L2 table offset %#llx is not possible", (unsigned long long)l2);
            continue;
        }
        count(c, "L2 table", l2, q->cluster_size);
        ret = count_l2(c, l2, active);
    }
    return ret;
}

static int count_all(struct counter *c)
{
    struct qcow2 *q = c->image->state;
    int ret = count(c, "header", 0, q->cluster_size);

    count(c, "refcount table", q->rt_offset, (uint64_t)q->rt_clusters << q->cluster_bits);
    for (uint64_t i = 0; i < q->rt_entries; i++)
        if (q->rt[i])
            count(c, "refcount block", q->rt[i], q->cluster_size);
    if (!ret)
        ret = count_l1(c, q->l1, q->l1_offset, q->l1_size, true);
    if (q->snapshots_length)
        count(c, "snapshot table", q->snapshots_offset, q->snapshots_length);
    for (uint32_t i = 0; i < q->nsnapshots && !ret; i++) {
        uint64_t *l1;
        ret = qcow2_read_l1(c->image, q->snapshots[i].l1_offset, q->snapshots[i].l1_size, &l1);
        if (ret)
            break;
        ret = count_l1(c, l1, q->snapshots[i].l1_offset, q->snapshots[i].l1_size, false);
        free(l1);
    }
    return ret ? ret : qcow2_bitmaps_clusters(c->image, count_bitmap, c);
}

/* A refcount block for a cluster that has none, behind everything that is in use. */
static int make_block(struct counter *c, uint64_t cluster)
{
    struct qcow2 *q = c->image->state;
    uint64_t block = cluster >> q->block_bits, n = 1, first;
    uint8_t entry[8];
    bool fresh;

    if (block < q->rt_entries && q->rt[block])
        return 0;
    q->hint = q->top = q->top > c->clusters ? q->top : c->clusters;
    int ret = qcow2_alloc(c->image, &n, true, &first, &fresh);
    if (ret || (block < q->rt_entries && q->rt[block]))
        return ret;
    if (block >= q->rt_entries)
        return -EFBIG;
    q->rt[block] = first << q->cluster_bits;
    mull_put_be64(entry, q->rt[block]);
    ret = mull_meta_clear(c->image->meta, q->rt[block], q->cluster_size, QCOW2_STAGE_REFCOUNT);
    if (!ret)
        ret = mull_meta_write(c->image->meta, q->rt_offset + block * 8, entry, 8,
                              QCOW2_STAGE_REFTABLE);
    return ret;
}

/* @raise: counts that are too low; else those that are too high. */
static int compare(struct counter *c, bool raise)
{
    struct qcow2 *q = c->image->state;
    uint64_t most =
        q->refcount_order == 6 ? UINT64_MAX : (UINT64_C(1) << (1u << q->refcount_order)) - 1;
    int ret = 0;

    for (uint64_t i = 0; i < c->clusters && !ret; i++) {
        uint64_t have, block = i >> q->block_bits;
        /* Where no block of refcounts is, all are 0: a file with holes may be very long. */
        if (block >= q->rt_entries || !q->rt[block]) {
            if (!raise)
                i |= (UINT64_C(1) << q->block_bits) - 1;
            if (!raise || !c->refs[i])
                continue;
        }
        ret = qcow2_refcount_get(c->image, i, &have);
        if (ret || (raise ? have >= c->refs[i] : have <= c->refs[i]))
            continue;
        if (raise)
            c->check->corruptions++;
        else
            c->check->leaks++;
        say(c->check, "%s cluster %llu refcount=%llu reference=%u", raise ? "ERROR" : "Leaked",
            (unsigned long long)i, (unsigned long long)have, c->refs[i]);
        if (!c->check->repair || c->refs[i] > most)
            continue;
        if (raise)
            ret = make_block(c, i);
        if (!ret)
            ret = qcow2_refcount_set(c->image, i, c->refs[i]);
        if (!ret)
            c->check->fixed++;
    }
    return ret;
}

static int fix_flag(struct counter *c, uint64_t *entry, uint64_t cluster, uint64_t at, int stage)
{
    uint64_t have = 0;
    uint8_t buf[8];

    if (cluster >= c->clusters)
        return 0;
    /* Spec: the flag says that the refcount is one. A count that is too high, which is a leak, may
     * be younger or older than the flag: what fits the references is no harm. */
    int ret = qcow2_refcount_get(c->image, cluster, &have);
    bool flag = *entry & QCOW2_COPIED;
    if (ret || (have == 1) == flag || (c->refs[cluster] == 1) == flag)
        return ret;
    /* Without the flag a cluster is copied that need not be: version 2 has no mark that would let
     * the next open repair what a power cut left so. */
    c->check->leaks += !flag;
    c->check->corruptions += flag;
    say(c->check, "%s: COPIED flag of cluster %llu does not fit its refcount %llu",
        flag ? "ERROR" : "Unshared", (unsigned long long)cluster, (unsigned long long)have);
    if (!c->check->repair)
        return 0;
    c->check->fixed++;
    *entry ^= QCOW2_COPIED;
    mull_put_be64(buf, *entry);
    return mull_meta_write(c->image->meta, at, buf, 8, stage);
}

static int check_copied(struct counter *c)
{
    struct qcow2 *q = c->image->state;
    uint64_t entries = UINT64_C(1) << q->l2_bits;
    int ret = 0;

    for (uint32_t i = 0; i < q->l1_size && !ret; i++) {
        uint64_t l2 = q->l1[i] & QCOW2_OFFSET;
        if (!l2 || l2 & (q->cluster_size - 1) || l2 >> q->cluster_bits >= c->clusters)
            continue;
        ret = fix_flag(c, &q->l1[i], l2 >> q->cluster_bits, q->l1_offset + i * UINT64_C(8),
                       QCOW2_STAGE_L1);
        for (uint64_t j = 0; j < entries && !ret && !q->data_file; j++) {
            uint64_t entry, bitmap;
            ret = qcow2_read_entry(c->image, l2, j, false, &entry, &bitmap);
            if (!ret && !(entry & QCOW2_COMPRESSED) && entry & QCOW2_OFFSET)
                ret = fix_flag(c, &entry, (entry & QCOW2_OFFSET) >> q->cluster_bits,
                               l2 + j * q->entry_size, QCOW2_STAGE_L2);
        }
    }
    return ret;
}

int qcow2_check(struct mull_image *image, struct mull_check *check, struct mull_error *err)
{
    struct qcow2 *q = image->state;
    uint64_t size = atomic_load(&image->file->size);
    struct counter c = {.image = image, .check = check};
    int ret = image->readonly ? 0 : qcow2_commit(image, true);

    if (!ret && !image->readonly)
        ret = mull_meta_commit(image->meta, true);
    if (ret)
        return mull_fail(err, -ret, "%s: cannot flush", image->path);
    size = atomic_load(&image->file->size);
    c.clusters = (size + q->cluster_size - 1) >> q->cluster_bits;
    if (c.clusters < q->top)
        c.clusters = q->top;
    if (c.clusters > CLUSTERS_MAX)
        return mull_fail(err, EFBIG, "%s: too many clusters to count", image->path);
    c.refs = calloc(c.clusters ? c.clusters : 1, sizeof(*c.refs));
    if (!c.refs)
        return mull_fail(err, ENOMEM, "%s: out of memory", image->path);
    check->total = (image->size + q->cluster_size - 1) >> q->cluster_bits;
    ret = count_all(&c);
    if (!ret)
        ret = compare(&c, true);
    if (!ret && check->repair)
        ret = mull_meta_commit(image->meta, true);
    if (!ret)
        ret = compare(&c, false);
    if (!ret)
        ret = check_copied(&c);
    free(c.refs);
    if (!ret && check->repair && !image->readonly) {
        ret = mull_meta_commit(image->meta, true);
        if (!ret && check->fixed >= check->corruptions &&
            q->incompatible & (QCOW2_INCOMPAT_DIRTY | QCOW2_INCOMPAT_CORRUPT)) {
            q->incompatible &= ~(QCOW2_INCOMPAT_DIRTY | QCOW2_INCOMPAT_CORRUPT);
            ret = qcow2_header_write(image);
            if (!ret)
                ret = mull_file_flush(image->file);
        }
    }
    if (ret) {
        check->errors++;
        return mull_fail(err, -ret, "%s: check failed: %s", image->path, strerror(-ret));
    }
    return 0;
}
