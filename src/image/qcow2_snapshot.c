/*
 * QCOW2 internal snapshots (Spec, "Snapshots"): reading the table, and taking, applying and
 * deleting one. While refcounts and COPIED flags change in many places the image is marked dirty,
 * so that the next open after a power cut repairs them; what the header names is swapped in one
 * write.
 */
#include "image/qcow2.h"

#include "image/bitmap.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static uint64_t l1_clusters(const struct qcow2 *q, uint32_t size)
{
    return ((uint64_t)size * 8 + q->cluster_size - 1) >> q->cluster_bits;
}

static int parse_snapshot(struct mull_image *image, const uint8_t *table, uint64_t room,
                          uint64_t *at, struct qcow2_snap *s, struct mull_error *err)
{
    struct qcow2 *q = image->state;
    const uint8_t *p = table + *at;

    if (*at + 40 > room)
        return mull_fail(err, EINVAL, "%s: snapshot table is cut off", image->path);
    uint16_t id = mull_be16(p + 12), name = mull_be16(p + 14);
    uint32_t extra = mull_be32(p + 36);
    if (extra > 65536 || *at + 40 + extra + id + name > room)
        return mull_fail(err, EINVAL, "%s: snapshot table is cut off", image->path);
    s->l1_offset = mull_be64(p);
    s->l1_size = mull_be32(p + 8);
    s->info.date_s = mull_be32(p + 16);
    s->info.date_ns = mull_be32(p + 20);
    s->info.vm_clock_ns = mull_be64(p + 24);
    s->info.vm_state_size = mull_be32(p + 32);
    s->disk_size = image->size;
    if (extra >= 8)
        s->info.vm_state_size = mull_be64(p + 40);
    if (extra >= 16)
        s->disk_size = mull_be64(p + 48);
    if (extra >= 24) {
        s->icount = mull_be64(p + 56);
        s->has_icount = true;
    }
    s->info.size = s->disk_size;
    snprintf(s->info.id, sizeof(s->info.id), "%.*s", id, (const char *)p + 40 + extra);
    snprintf(s->info.name, sizeof(s->info.name), "%.*s", name, (const char *)p + 40 + extra + id);
    if (s->l1_offset & (q->cluster_size - 1) || s->l1_size > QCOW2_L1_MAX / 8 ||
        s->l1_offset > INT64_MAX - QCOW2_L1_MAX || s->disk_size > MULL_IMAGE_SIZE_MAX)
        return mull_fail(err, EINVAL, "%s: snapshot '%s' has an impossible L1 table", image->path,
                         s->info.name);
    *at += (40 + (uint64_t)extra + id + name + 7) & ~UINT64_C(7);
    return 0;
}

int qcow2_snapshots_read(struct mull_image *image, struct mull_error *err)
{
    struct qcow2 *q = image->state;
    uint64_t at = 0, size = atomic_load(&image->file->size);
    int ret = 0;

    if (!q->nsnapshots)
        return 0;
    if (q->snapshots_offset >= size)
        return mull_fail(err, EINVAL, "%s: snapshot table lies behind the file", image->path);
    uint64_t room = size - q->snapshots_offset;
    if (room > QCOW2_SNAPSHOT_TABLE_MAX)
        room = QCOW2_SNAPSHOT_TABLE_MAX;
    if (room / 40 < q->nsnapshots)
        return mull_fail(err, EINVAL, "%s: snapshot table is cut off", image->path);
    /* Tables are small; what a name may be long is read only where the count asks for it. */
    uint64_t likely = (uint64_t)q->nsnapshots * 2048;
    if (likely < room)
        room = likely;
    uint8_t *table = malloc(room);
    q->snapshots = calloc(q->nsnapshots, sizeof(*q->snapshots));
    if (!table || !q->snapshots)
        ret = mull_fail(err, ENOMEM, "%s: out of memory", image->path);
    else if ((ret = mull_file_read(image->file, table, room, q->snapshots_offset)))
        mull_fail(err, -ret, "%s: cannot read the snapshot table", image->path);
    for (uint32_t i = 0; i < q->nsnapshots && !ret; i++)
        ret = parse_snapshot(image, table, room, &at, &q->snapshots[i], err);
    q->snapshots_length = at;
    free(table);
    return ret;
}

int qcow2_snapshot_list(struct mull_image *image, struct mull_snapshot **out, uint32_t *count)
{
    struct qcow2 *q = image->state;
    *out = calloc(q->nsnapshots ? q->nsnapshots : 1, sizeof(**out));
    if (!*out)
        return -ENOMEM;
    for (uint32_t i = 0; i < q->nsnapshots; i++)
        (*out)[i] = q->snapshots[i].info;
    *count = q->nsnapshots;
    return 0;
}

static struct qcow2_snap *find_snapshot(struct qcow2 *q, const char *name)
{
    for (int by_name = 0; by_name < 2; by_name++)
        for (uint32_t i = 0; i < q->nsnapshots; i++)
            if (!strcmp(by_name ? q->snapshots[i].info.name : q->snapshots[i].info.id, name))
                return &q->snapshots[i];
    return NULL;
}

int qcow2_snapshot_load(struct mull_image *image, const char *name, struct mull_error *err)
{
    struct qcow2 *q = image->state;
    struct qcow2_snap *s = find_snapshot(q, name);
    uint64_t *l1;

    if (!image->readonly)
        return mull_fail(err, EINVAL, "%s: a snapshot can only be opened read-only", image->path);
    if (!s)
        return mull_fail(err, ENOENT, "%s: has no snapshot '%s'", image->path, name);
    int ret = qcow2_read_l1(image, s->l1_offset, s->l1_size, &l1);
    if (ret)
        return mull_fail(err, -ret, "%s: cannot read the L1 table of snapshot '%s'", image->path,
                         name);
    free(q->l1);
    q->l1 = l1;
    q->l1_size = s->l1_size;
    q->l1_offset = s->l1_offset;
    q->reading_snapshot = true;
    image->size = s->disk_size;
    return 0;
}

/* The table as bytes. */
static uint8_t *build_table(const struct qcow2 *q, uint64_t *length)
{
    uint64_t room = 0, at = 0;
    for (uint32_t i = 0; i < q->nsnapshots; i++)
        room += 40 + 24 + sizeof(q->snapshots[i].info.id) + sizeof(q->snapshots[i].info.name) + 8;
    uint8_t *t = calloc(1, room + q->cluster_size);
    for (uint32_t i = 0; i < q->nsnapshots && t; i++) {
        const struct qcow2_snap *s = &q->snapshots[i];
        uint32_t id = (uint32_t)strlen(s->info.id), name = (uint32_t)strlen(s->info.name);
        uint32_t extra = s->has_icount ? 24 : 16;
        uint8_t *p = t + at;
        mull_put_be64(p, s->l1_offset);
        mull_put_be32(p + 8, s->l1_size);
        mull_put_be16(p + 12, (uint16_t)id);
        mull_put_be16(p + 14, (uint16_t)name);
        mull_put_be32(p + 16, (uint32_t)s->info.date_s);
        mull_put_be32(p + 20, s->info.date_ns);
        mull_put_be64(p + 24, s->info.vm_clock_ns);
        mull_put_be32(p + 32, s->info.vm_state_size >> 32 ? 0 : (uint32_t)s->info.vm_state_size);
        mull_put_be32(p + 36, extra);
        mull_put_be64(p + 40, s->info.vm_state_size);
        mull_put_be64(p + 48, s->disk_size);
        if (s->has_icount)
            mull_put_be64(p + 56, s->icount);
        memcpy(p + 40 + extra, s->info.id, id);
        memcpy(p + 40 + extra + id, s->info.name, name);
        at += (40 + extra + id + name + 7) & ~UINT64_C(7);
    }
    *length = at;
    return t;
}

/* Write the table to a new place and name it in the header. */
static int write_table(struct mull_image *image)
{
    struct qcow2 *q = image->state;
    uint64_t length, first = 0, old = q->snapshots_offset, old_length = q->snapshots_length;
    bool fresh;
    uint8_t *table = build_table(q, &length);
    uint64_t count = (length + q->cluster_size - 1) >> q->cluster_bits;
    int ret = table ? 0 : -ENOMEM;

    if (!ret && count) {
        ret = qcow2_alloc(image, &count, true, &first, &fresh);
        if (!ret)
            ret = mull_file_write(image->file, table, count << q->cluster_bits,
                                  first << q->cluster_bits);
    }
    free(table);
    if (!ret)
        ret = mull_meta_commit(image->meta, true);
    if (ret)
        return ret;
    q->snapshots_offset = first << q->cluster_bits;
    q->snapshots_length = length;
    ret = qcow2_header_write(image);
    if (!ret)
        ret = mull_file_flush(image->file);
    if (!ret && old_length)
        ret = qcow2_free_later(image, old >> q->cluster_bits,
                               (old_length + q->cluster_size - 1) >> q->cluster_bits);
    return ret;
}

/* Add to the refcount of all that an L1 table reaches (not of the table itself). */
static int count_tree(struct mull_image *image, const uint64_t *l1, uint32_t size, int delta)
{
    struct qcow2 *q = image->state;
    uint64_t entries = UINT64_C(1) << q->l2_bits;
    int ret = 0;

    for (uint32_t i = 0; i < size && !ret; i++) {
        uint64_t l2 = l1[i] & QCOW2_OFFSET;
        if (!l2)
            continue;
        if (l2 & (q->cluster_size - 1))
            return qcow2_corrupt(image, "L2 table not at a cluster boundary:", l2);
        for (uint64_t j = 0; j < entries && !ret; j++) {
            uint64_t entry, bitmap, first, count = 0;
            ret = qcow2_read_entry(image, l2, j, false, &entry, &bitmap);
            if (ret)
                break;
            if (delta < 0) {
                ret = qcow2_free_entry(image, entry);
                continue;
            }
            if (entry & QCOW2_COMPRESSED) {
                uint64_t offset, length;
                qcow2_packed_place(q, entry, &offset, &length);
                first = offset >> q->cluster_bits;
                count = ((offset + length - 1) >> q->cluster_bits) - first + 1;
            } else if (!q->data_file && (entry & QCOW2_OFFSET)) {
                first = (entry & QCOW2_OFFSET) >> q->cluster_bits;
                count = 1;
            }
            for (uint64_t c = 0; c < count && !ret; c++)
                ret = qcow2_refcount_add(image, first + c, 1);
        }
        if (!ret)
            ret = delta < 0 ? qcow2_free_later(image, l2 >> q->cluster_bits, 1)
                            : qcow2_refcount_add(image, l2 >> q->cluster_bits, 1);
    }
    return ret;
}

/* Make the COPIED flags of the active tables say what the refcounts say. */
static int fix_copied(struct mull_image *image)
{
    struct qcow2 *q = image->state;
    uint64_t entries = UINT64_C(1) << q->l2_bits, refs;
    uint8_t buf[8];
    int ret = 0;

    for (uint32_t i = 0; i < q->l1_size && !ret; i++) {
        uint64_t l2 = q->l1[i] & QCOW2_OFFSET;
        if (!l2)
            continue;
        ret = qcow2_refcount_get(image, l2 >> q->cluster_bits, &refs);
        uint64_t want = l2 | (refs == 1 ? QCOW2_COPIED : 0);
        if (!ret && want != q->l1[i]) {
            q->l1[i] = want;
            mull_put_be64(buf, want);
            ret = mull_meta_write(image->meta, q->l1_offset + i * UINT64_C(8), buf, 8,
                                  QCOW2_STAGE_L1);
        }
        for (uint64_t j = 0; j < entries && !ret; j++) {
            uint64_t entry, bitmap;
            ret = qcow2_read_entry(image, l2, j, false, &entry, &bitmap);
            if (ret || entry & QCOW2_COMPRESSED || !(entry & QCOW2_OFFSET) || q->data_file)
                continue;
            ret = qcow2_refcount_get(image, (entry & QCOW2_OFFSET) >> q->cluster_bits, &refs);
            want = (entry & ~QCOW2_COPIED) | (refs == 1 ? QCOW2_COPIED : 0);
            if (ret || want == entry)
                continue;
            mull_put_be64(buf, want);
            ret = mull_meta_write(image->meta, l2 + j * q->entry_size, buf, 8, QCOW2_STAGE_L2);
        }
    }
    return ret;
}

/* A copy of the given L1 table in clusters of its own. */
static int copy_l1(struct mull_image *image, const uint64_t *l1, uint32_t size, uint64_t *offset)
{
    struct qcow2 *q = image->state;
    uint64_t count = l1_clusters(q, size), first;
    bool fresh;

    *offset = 0;
    if (!count)
        return 0;
    uint64_t *disk = calloc(count, q->cluster_size);
    int ret = disk ? qcow2_alloc(image, &count, true, &first, &fresh) : -ENOMEM;
    for (uint32_t i = 0; i < size && !ret; i++)
        mull_put_be64(&disk[i], l1[i] & ~QCOW2_COPIED);
    if (!ret) {
        mull_meta_forget(image->meta, first << q->cluster_bits, count << q->cluster_bits);
        ret =
            mull_file_write(image->file, disk, count << q->cluster_bits, first << q->cluster_bits);
        *offset = first << q->cluster_bits;
    }
    free(disk);
    return ret;
}

static int begin(struct mull_image *image)
{
    int ret = qcow2_commit(image, true);
    return ret ? ret : qcow2_set_dirty(image, true);
}

static int finish(struct mull_image *image, int ret, const char *what, struct mull_error *err)
{
    if (!ret)
        ret = qcow2_commit(image, true); /* counts the frees down, */
    if (!ret)
        ret = fix_copied(image); /* which makes some clusters ours again */
    if (!ret)
        ret = qcow2_commit(image, true);
    if (!ret)
        ret = qcow2_set_dirty(image, false);
    if (!ret)
        return 0;
    image->failed = true; /* the next open repairs what was begun */
    return mull_fail(err, -ret, "%s: cannot %s the snapshot: %s", image->path, what,
                     strerror(-ret));
}

static void next_id(const struct qcow2 *q, char *id, size_t room)
{
    unsigned long max = 0;
    for (uint32_t i = 0; i < q->nsnapshots; i++) {
        unsigned long n = strtoul(q->snapshots[i].info.id, NULL, 10);
        max = n > max && n < UINT32_MAX ? n : max;
    }
    snprintf(id, room, "%lu", max + 1);
}

static int supported(struct mull_image *image, struct mull_error *err)
{
    struct qcow2 *q = image->state;
    if (image->failed)
        return mull_fail(err, EIO, "%s: an earlier change failed; open it anew", image->path);
    if (q->data_file)
        return mull_fail(err, ENOTSUP, "%s: an image with an external data file has no snapshots",
                         image->path);
    return 0;
}

int qcow2_snapshot_create(struct mull_image *image, const char *name, struct mull_error *err)
{
    struct qcow2 *q = image->state;
    struct timespec now;
    int ret = supported(image, err);

    if (ret)
        return ret;
    if (q->nsnapshots >= QCOW2_SNAPSHOTS_MAX || strlen(name) >= sizeof(q->snapshots->info.name))
        return mull_fail(err, EINVAL, "%s: too many snapshots or too long a name", image->path);
    if (q->refcount_order == 0)
        return mull_fail(err, ENOTSUP, "%s: one-bit refcounts cannot hold a snapshot", image->path);
    struct qcow2_snap *grown = realloc(q->snapshots, (q->nsnapshots + 1) * sizeof(*grown));
    if (!grown)
        return mull_fail(err, ENOMEM, "%s: out of memory", image->path);
    q->snapshots = grown;
    struct qcow2_snap *s = &grown[q->nsnapshots];
    memset(s, 0, sizeof(*s));
    next_id(q, s->info.id, sizeof(s->info.id));
    strcpy(s->info.name, name);
    clock_gettime(CLOCK_REALTIME, &now);
    s->info.date_s = (uint64_t)now.tv_sec;
    s->info.date_ns = (uint32_t)now.tv_nsec;
    s->info.size = s->disk_size = image->size;
    s->l1_size = q->l1_size;

    ret = begin(image);
    if (!ret)
        ret = copy_l1(image, q->l1, q->l1_size, &s->l1_offset);
    if (!ret)
        ret = count_tree(image, q->l1, q->l1_size, 1);
    if (!ret)
        ret = fix_copied(image);
    if (!ret) {
        q->nsnapshots++;
        ret = write_table(image);
    }
    return finish(image, ret, "take", err);
}

int qcow2_snapshot_delete(struct mull_image *image, const char *name, struct mull_error *err)
{
    struct qcow2 *q = image->state;
    struct qcow2_snap *s = find_snapshot(q, name);
    uint64_t *l1 = NULL;
    int ret = supported(image, err);

    if (ret)
        return ret;
    if (!s)
        return mull_fail(err, ENOENT, "%s: has no snapshot '%s'", image->path, name);
    uint64_t offset = s->l1_offset;
    uint32_t size = s->l1_size;
    ret = begin(image);
    if (!ret)
        ret = qcow2_read_l1(image, offset, size, &l1);
    if (!ret) {
        uint32_t index = (uint32_t)(s - q->snapshots);
        memmove(s, s + 1, (q->nsnapshots - index - 1) * sizeof(*s));
        q->nsnapshots--;
        ret = write_table(image);
    }
    if (!ret)
        ret = count_tree(image, l1, size, -1);
    if (!ret && size)
        ret = qcow2_free_later(image, offset >> q->cluster_bits, l1_clusters(q, size));
    free(l1);
    return finish(image, ret, "delete", err);
}

int qcow2_snapshot_apply(struct mull_image *image, const char *name, struct mull_error *err)
{
    struct qcow2 *q = image->state;
    struct qcow2_snap *s = find_snapshot(q, name);
    uint64_t *l1 = NULL, *old_l1 = q->l1, old_offset = q->l1_offset, offset = 0;
    uint32_t old_size = q->l1_size;
    int ret = supported(image, err);

    if (ret)
        return ret;
    if (!s)
        return mull_fail(err, ENOENT, "%s: has no snapshot '%s'", image->path, name);
    /* The disk may change its size. */
    uint64_t largest = image->size > s->disk_size ? image->size : s->disk_size;
    ret = mull_bitmaps_fit(image, largest);
    if (ret)
        return mull_fail(err, -ret, "%s: cannot fit its bitmaps: %s", image->path, strerror(-ret));
    mull_image_track(image, 0, largest);
    ret = begin(image);
    if (!ret)
        ret = qcow2_read_l1(image, s->l1_offset, s->l1_size, &l1);
    if (!ret)
        ret = count_tree(image, l1, s->l1_size, 1);
    if (!ret)
        ret = copy_l1(image, l1, s->l1_size, &offset);
    if (!ret)
        ret = mull_meta_commit(image->meta, true);
    if (!ret) {
        q->l1 = l1;
        q->l1_size = s->l1_size;
        q->l1_offset = offset;
        image->size = s->disk_size;
        ret = qcow2_header_write(image);
        if (!ret)
            ret = mull_file_flush(image->file);
        if (!ret)
            ret = count_tree(image, old_l1, old_size, -1);
        if (!ret && old_size)
            ret = qcow2_free_later(image, old_offset >> q->cluster_bits, l1_clusters(q, old_size));
        free(old_l1);
    } else {
        free(l1);
    }
    if (!ret)
        ret = mull_bitmaps_fit(image, image->size);
    return finish(image, ret, "apply", err);
}
