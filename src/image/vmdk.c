/*
 * VMDK: hosted sparse, ESX sparse (vmfsSparse), SE sparse (read), flat and streamOptimized extents,
 * one or many, with a descriptor inside or beside. Spec: VMware, "Virtual Disk Format 5.0".
 */
#include "image/vmdk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define META_CACHE (16u << 20)
#define DIRTY_MAX (8u << 20)
#define PLACE_MAX (4u << 20)
#define ZEROED_GTE 1u

static int vmdk_probe(const uint8_t *head, size_t len, const uint8_t *tail, const char *path)
{
    if (len >= 4 && (!memcmp(head, "KDMV", 4) || !memcmp(head, "COWD", 4)))
        return 100;
    if (len >= 8 && mull_le64(head) == 0xcafebabe)
        return 90;
    /* A descriptor is text that begins with its name in a comment. */
    size_t at = 0;
    while (at < len && (head[at] == ' ' || head[at] == '\n' || head[at] == '\r'))
        at++;
    static const char first[] = "# Disk DescriptorFile";
    return len - at >= sizeof(first) - 1 &&
                   !strncasecmp((const char *)head + at, first, sizeof(first) - 1)
               ? 100
               : 0;
}

static int bad(const struct vmdk_extent *e, struct mull_error *err, const char *field,
               uint64_t value)
{
    return mull_fail(err, EINVAL, "%s: VMDK header: %s is %llu", e->file->path, field,
                     (unsigned long long)value);
}

static int make_meta(struct vmdk_extent *e, struct mull_error *err)
{
    e->meta = mull_meta_create(e->file, 512, META_CACHE);
    return e->meta ? 0 : mull_fail(err, ENOMEM, "%s: out of memory", e->file->path);
}

/* Sizes that every kind of sparse extent must have right. */
static int check_geometry(struct vmdk_extent *e, uint64_t capacity, uint64_t grain,
                          uint64_t gt_entries, struct mull_error *err)
{
    uint64_t size = atomic_load(&e->file->size);

    if (!grain || grain & (grain - 1) || grain > 131072)
        return bad(e, err, "grain size", grain);
    if (!gt_entries || gt_entries > 65536)
        return bad(e, err, "entries in a grain table", gt_entries);
    if (!capacity || capacity > MULL_IMAGE_SIZE_MAX / VMDK_SECTOR)
        return bad(e, err, "capacity", capacity);
    e->grain = grain * VMDK_SECTOR;
    e->gt_entries = (uint32_t)gt_entries;
    if (!e->length)
        e->length = capacity * VMDK_SECTOR;
    if (e->length > capacity * VMDK_SECTOR)
        return bad(e, err, "capacity (less than the descriptor says)", capacity);
    uint64_t covered = e->grain * gt_entries;
    e->gd_entries = (e->length + covered - 1) / covered;
    if (e->gd_entries > UINT32_MAX / 4)
        return bad(e, err, "number of grain tables", e->gd_entries);
    e->end = (size + e->grain - 1) / e->grain * e->grain;
    return 0;
}

/* Spec, "Hosted Sparse Extents". */
static int open_hosted(struct mull_image *image, struct vmdk_extent *e, uint8_t *head,
                       struct mull_error *err)
{
    uint64_t size = atomic_load(&e->file->size);
    bool unfinished = false;

    e->flags = mull_le32(head + 8);
    if (mull_le64(head + 56) == VMDK_GD_AT_END) {
        /* Spec, "Stream-Optimized Compressed Sparse Extents": the footer is the real header. */
        uint8_t foot[1536];
        int ret = size >= 2048 ? mull_file_read(e->file, foot, sizeof(foot), size - 1536) : -EIO;
        if (!ret && mull_le32(foot + 12) == VMDK_MARKER_FOOTER && !memcmp(foot + 512, "KDMV", 4))
            memcpy(head, foot + 512, 512);
        else if (!image->readonly && size == mull_le64(head + 64) * VMDK_SECTOR)
            unfinished = true;
        else
            return mull_fail(err, EINVAL, "%s: stream without an end: is it cut off?",
                             e->file->path);
    }
    uint32_t version = mull_le32(head + 4);
    if (version < 1 || version > 3)
        return bad(e, err, "version", version);
    e->flags = mull_le32(head + 8);
    int ret =
        check_geometry(e, mull_le64(head + 12), mull_le64(head + 20), mull_le32(head + 44), err);
    if (ret)
        return ret;
    if (e->flags & VMDK_FLAG_COMPRESSED) {
        if (mull_le16(head + 77) != 1 || !(e->flags & VMDK_FLAG_MARKERS))
            return mull_fail(err, ENOTSUP, "%s: compression %u without markers", e->file->path,
                             mull_le16(head + 77));
        e->compressed = true;
    }
    if (unfinished)
        return vmdk_stream_begin(image, e);
    if (e->compressed && !image->readonly)
        return mull_fail(err, EROFS,
                         "%s: a streamOptimized image cannot be written to; convert "
                         "it, or open it read-only",
                         e->file->path);
    uint64_t gd = mull_le64(head + 56), rgd = mull_le64(head + 48);
    uint64_t most = UINT64_MAX / VMDK_SECTOR / 4;
    if (!gd || gd > most || gd * VMDK_SECTOR + e->gd_entries * 4 > size)
        return bad(e, err, "gdOffset", gd);
    e->gd = gd * VMDK_SECTOR;
    if (e->flags & VMDK_FLAG_REDUNDANT && rgd) {
        if (rgd > most || rgd * VMDK_SECTOR + e->gd_entries * 4 > size)
            return bad(e, err, "rgdOffset", rgd);
        e->rgd = rgd * VMDK_SECTOR;
    }
    ret = make_meta(e, err);
    if (!ret && head[72] && !image->readonly && e->rgd) {
        /* It was not closed: the second tables may lag behind the first. */
        ret = vmdk_mirror(image, e, NULL);
        e->marked = true;
        if (ret)
            mull_fail(err, -ret, "%s: cannot repair its redundant grain tables", e->file->path);
    }
    return ret;
}

/* Spec, "ESX Server Sparse Extents" (COWDisk_Header). */
static int open_cowd(struct vmdk_extent *e, const uint8_t *head, struct mull_error *err)
{
    if (mull_le32(head + 4) != 1)
        return bad(e, err, "version", mull_le32(head + 4));
    int ret = check_geometry(e, mull_le32(head + 12), mull_le32(head + 16), 4096, err);
    if (ret)
        return ret;
    uint64_t gd = mull_le32(head + 20), entries = mull_le32(head + 24);
    uint64_t free_sector = mull_le32(head + 28);
    if (entries < e->gd_entries)
        return bad(e, err, "numGDEntries", entries);
    if (!gd || gd * VMDK_SECTOR + e->gd_entries * 4 > atomic_load(&e->file->size))
        return bad(e, err, "gdOffset", gd);
    e->gd = gd * VMDK_SECTOR;
    if (free_sector * VMDK_SECTOR > e->end)
        e->end = free_sector * VMDK_SECTOR;
    e->marked = true; /* has no such flag */
    return make_meta(e, err);
}

/* SE sparse has no published specification; the layout is that of QEMU's block/vmdk.c comments. */
static int open_sesparse(struct mull_image *image, struct vmdk_extent *e, const uint8_t *head,
                         struct mull_error *err)
{
    uint64_t size = atomic_load(&e->file->size), gt_sectors = mull_le64(head + 32);
    uint8_t state[512];

    if (mull_le64(head + 8) != UINT64_C(0x200000001))
        return bad(e, err, "version", mull_le64(head + 8));
    if (!image->readonly)
        return mull_fail(err, EROFS, "%s: SE sparse images are only read", e->file->path);
    if (gt_sectors != 64)
        return bad(e, err, "grain table size", gt_sectors);
    int ret = check_geometry(e, mull_le64(head + 16), mull_le64(head + 24), gt_sectors * 64, err);
    if (ret)
        return ret;
    uint64_t volatile_at = mull_le64(head + 80), gd = mull_le64(head + 128);
    uint64_t gts = mull_le64(head + 144), grains = mull_le64(head + 192);
    uint64_t most = INT64_MAX / VMDK_SECTOR / 4;
    if (volatile_at > most || gd > most || gts > most || grains > most ||
        gd * VMDK_SECTOR + e->gd_entries * 8 > size)
        return bad(e, err, "an offset", gd);
    ret = mull_file_read(e->file, state, sizeof(state), volatile_at * VMDK_SECTOR);
    if (ret || mull_le64(state) != 0xcafecafe)
        return bad(e, err, "volatile header magic", mull_le64(state));
    if (mull_le64(state + 24))
        return mull_fail(err, EUCLEAN, "%s: its journal must be replayed on ESXi first",
                         e->file->path);
    e->gd = gd * VMDK_SECTOR;
    e->gts = gts * VMDK_SECTOR;
    e->grains = grains * VMDK_SECTOR;
    return make_meta(e, err);
}

int vmdk_open_sparse(struct mull_image *image, struct vmdk_extent *e,
                     const struct mull_image_options *options, struct mull_error *err)
{
    uint8_t head[512];
    int ret = mull_file_read(e->file, head, sizeof(head), 0);
    if (ret)
        return mull_fail(err, -ret, "%s: cannot read the header", e->file->path);
    if (!memcmp(head, "KDMV", 4) && e->kind == VMDK_SPARSE)
        return open_hosted(image, e, head, err);
    if (!memcmp(head, "COWD", 4) && e->kind == VMDK_COWD)
        return open_cowd(e, head, err);
    if (mull_le64(head) == 0xcafebabe && e->kind == VMDK_SESPARSE)
        return open_sesparse(image, e, head, err);
    return mull_fail(err, EINVAL, "%s: is not the kind of extent its descriptor says",
                     e->file->path);
}

static void vmdk_close(struct mull_image *image)
{
    struct vmdk *v = image->state;
    for (uint32_t i = 0; i < v->nextents; i++) {
        vmdk_stream_free(&v->extents[i]);
        mull_meta_destroy(v->extents[i].meta);
        if (v->extents[i].own_file)
            mull_file_close(v->extents[i].file);
    }
    mull_packer_destroy(v->packer);
    pthread_mutex_destroy(&v->cid_lock);
    free(v->extents);
    free(v->descriptor);
    free(v);
    image->state = NULL;
}

/* A sparse extent opened by itself. */
static int open_single(struct mull_image *image, enum vmdk_kind kind,
                       const struct mull_image_options *o, struct mull_error *err)
{
    struct vmdk *v = image->state;
    v->extents = calloc(1, sizeof(*v->extents));
    if (!v->extents)
        return mull_fail(err, ENOMEM, "%s: out of memory", image->path);
    v->nextents = 1;
    v->extents[0].kind = kind;
    v->extents[0].file = image->file;
    v->parent_cid = VMDK_NO_PARENT;
    int ret = vmdk_open_sparse(image, &v->extents[0], o, err);
    image->size = v->extents[0].length;
    return ret;
}

static int load_descriptor(struct mull_image *image, uint64_t at, uint64_t length,
                           struct mull_error *err)
{
    struct vmdk *v = image->state;
    if (length > VMDK_DESCRIPTOR_MAX)
        return mull_fail(err, EINVAL, "%s: descriptor of %llu bytes", image->path,
                         (unsigned long long)length);
    v->descriptor = calloc(1, length + 1);
    v->descriptor_at = at;
    int ret = v->descriptor ? mull_file_read(image->file, v->descriptor, length, at) : -ENOMEM;
    return ret ? mull_fail(err, -ret, "%s: cannot read the descriptor", image->path) : 0;
}

/* Told of every write: the first changes the content ID. */
static void track(struct mull_image *image, uint64_t offset, uint64_t length)
{
    struct vmdk *v = image->state;
    if (!atomic_load(&v->cid_changed) && vmdk_change_cid(image))
        mull_log(image->log, MULL_LOG_ERROR, "%s: cannot write a new content ID", image->path);
}

static int set_units(struct mull_image *image, struct mull_error *err)
{
    struct vmdk *v = image->state;
    uint64_t unit = 1;

    for (uint32_t i = 0; i < v->nextents; i++)
        if (v->extents[i].grain > unit)
            unit = v->extents[i].grain;
    image->unit = (uint32_t)unit;
    image->lock_unit = unit;
    for (uint32_t i = 0; i < v->nextents; i++) {
        const struct vmdk_extent *e = &v->extents[i];
        if (e->grain && (e->start % unit || e->grain != unit))
            image->lock_unit = image->size; /* grains lie askew: one allocation at a time */
    }
    return 0;
}

static int vmdk_open(struct mull_image *image, const struct mull_image_options *o,
                     struct mull_error *err)
{
    struct vmdk *v = calloc(1, sizeof(*v));
    uint64_t size = atomic_load(&image->file->size);
    uint8_t head[512] = {0};
    int ret;

    if (!v)
        return mull_fail(err, ENOMEM, "%s: out of memory", image->path);
    image->state = v;
    pthread_mutex_init(&v->cid_lock, NULL);
    v->packer = mull_packer_create(MULL_CODEC_ZLIB, 0);
    if (!v->packer)
        return mull_fail(err, ENOMEM, "%s: out of memory", image->path);
    ret = mull_file_read(image->file, head, sizeof(head), 0);
    if (ret)
        return mull_fail(err, -ret, "%s: cannot read", image->path);
    if (!memcmp(head, "COWD", 4)) {
        ret = open_single(image, VMDK_COWD, o, err);
    } else if (mull_le64(head) == 0xcafebabe) {
        ret = open_single(image, VMDK_SESPARSE, o, err);
    } else if (!memcmp(head, "KDMV", 4)) {
        uint64_t at = mull_le64(head + 28), sectors = mull_le64(head + 36);
        if (!at || !sectors) {
            ret = open_single(image, VMDK_SPARSE, o, err);
        } else if (at > size / VMDK_SECTOR || sectors > VMDK_DESCRIPTOR_MAX / VMDK_SECTOR) {
            ret = mull_fail(err, EINVAL, "%s: VMDK header: descriptor at sector %llu, %llu long",
                            image->path, (unsigned long long)at, (unsigned long long)sectors);
        } else {
            ret = load_descriptor(image, at * VMDK_SECTOR, sectors * VMDK_SECTOR, err);
            v->descriptor_room = sectors * VMDK_SECTOR;
            /* Its one extent is this file, whatever the text calls it. */
            if (!ret)
                ret = vmdk_parse_descriptor(image, o, err);
        }
    } else {
        ret = load_descriptor(image, 0, size, err);
        if (!ret)
            ret = vmdk_parse_descriptor(image, o, err);
    }
    if (ret)
        return ret;
    if (!image->readonly && v->descriptor)
        image->track = track;
    return set_units(image, err);
}

static struct vmdk_extent *find_extent(struct vmdk *v, uint64_t offset)
{
    uint32_t low = 0, high = v->nextents;
    while (high - low > 1) {
        uint32_t mid = (low + high) / 2;
        if (v->extents[mid].start <= offset)
            low = mid;
        else
            high = mid;
    }
    return &v->extents[low];
}

int vmdk_read32(struct vmdk_extent *e, uint64_t offset, uint64_t ahead, bool cached, uint32_t *out)
{
    uint8_t buf[4];
    int ret = mull_meta_read(e->meta, offset, buf, 4, ahead, cached);
    *out = mull_le32(buf);
    return ret;
}

/* Where the grain tables of an offset are. *gt 0: there is none. */
static int find_gt(struct vmdk_extent *e, uint64_t grain, bool cached, uint64_t *gt, uint64_t *rgt)
{
    uint64_t index = grain / e->gt_entries, left = (e->gd_entries - index - 1) * 4;
    uint32_t sector;
    int ret = vmdk_read32(e, e->gd + index * 4, left, cached, &sector);

    *gt = sector * VMDK_SECTOR;
    if (!rgt || ret)
        return ret;
    *rgt = 0;
    if (e->rgd && !(ret = vmdk_read32(e, e->rgd + index * 4, left, cached, &sector)))
        *rgt = sector * VMDK_SECTOR;
    return ret;
}

static int map_sesparse(struct vmdk_extent *e, uint64_t in, bool cached, struct mull_extent *out)
{
    uint64_t grain = in / e->grain, entry;
    uint8_t buf[8];
    int ret = mull_meta_read(e->meta, e->gd + grain / e->gt_entries * 8, buf, 8, 0, cached);

    if (ret)
        return ret;
    entry = mull_le64(buf);
    out->kind = MULL_EXTENT_HOLE;
    if (!entry) {
        uint64_t span = e->grain * e->gt_entries;
        out->length = span - in % span;
        return 0;
    }
    if (entry >> 32 != 0x10000000)
        return -EIO;
    uint64_t gt = e->gts + (entry & UINT32_MAX) * e->gt_entries * 8;
    uint64_t index = grain % e->gt_entries;
    ret = mull_meta_read(e->meta, gt + index * 8, buf, 8, (e->gt_entries - index - 1) * 8, cached);
    if (ret)
        return ret;
    entry = mull_le64(buf);
    switch (entry >> 60) {
    case 0:
        break;
    case 1:
    case 2:
        out->kind = MULL_EXTENT_ZERO;
        break;
    case 3: {
        uint64_t n = (entry & UINT64_C(0x0fff000000000000)) >> 48 |
                     (entry & UINT64_C(0x0000ffffffffffff)) << 12;
        if (n > MULL_IMAGE_SIZE_MAX / e->grain)
            return -EIO;
        out->kind = MULL_EXTENT_DATA;
        out->file = e->file;
        out->offset = e->grains + n * e->grain + in % e->grain;
        break;
    }
    default:
        return -EIO;
    }
    out->length = e->grain - in % e->grain;
    return 0;
}

static void decode(const struct mull_image *image, struct vmdk_extent *e, uint64_t in, uint32_t gte,
                   struct mull_extent *out)
{
    out->length = e->grain - in % e->grain;
    if (gte == 0) {
        out->kind = MULL_EXTENT_HOLE;
    } else if (gte == ZEROED_GTE && e->flags & VMDK_FLAG_ZEROED) {
        out->kind = MULL_EXTENT_ZERO;
    } else if (e->compressed) {
        out->kind = MULL_EXTENT_PACKED;
        out->file = e->file;
        out->offset = gte * VMDK_SECTOR;
        out->unit_start = e->start + in - in % e->grain;
        out->unit_length = (uint32_t)e->grain;
    } else {
        out->kind = MULL_EXTENT_DATA;
        out->file = e->file;
        out->offset = gte * VMDK_SECTOR + in % e->grain;
        out->writable = !image->readonly;
    }
}

static int map_sparse(struct mull_image *image, struct vmdk_extent *e, uint64_t in, uint64_t length,
                      bool cached, struct mull_extent *out)
{
    uint64_t grain = in / e->grain, gt, span = e->grain * e->gt_entries;
    uint32_t gte;
    int ret = find_gt(e, grain, cached, &gt, NULL);

    if (ret)
        return ret;
    if (!gt) {
        out->kind = MULL_EXTENT_HOLE;
        out->length = span - in % span;
        return 0;
    }
    uint64_t index = grain % e->gt_entries;
    ret = vmdk_read32(e, gt + index * 4, (e->gt_entries - index - 1) * 4, cached, &gte);
    if (ret)
        return ret;
    decode(image, e, in, gte, out);
    while (out->kind != MULL_EXTENT_PACKED && out->length < length && ++index < e->gt_entries) {
        struct mull_extent next = {0};
        if (vmdk_read32(e, gt + index * 4, 0, cached, &gte))
            break;
        decode(image, e, in + out->length, gte, &next);
        if (next.kind != out->kind ||
            (next.kind == MULL_EXTENT_DATA && next.offset != out->offset + out->length))
            break;
        out->length += next.length;
    }
    return 0;
}

static int vmdk_map(struct mull_image *image, uint64_t offset, uint64_t length, bool cached,
                    struct mull_extent *out)
{
    struct vmdk_extent *e = find_extent(image->state, offset);
    uint64_t in = offset - e->start, left = e->length - in;
    int ret = 0;

    if (length > left)
        length = left;
    switch (e->kind) {
    case VMDK_ZERO:
        out->kind = MULL_EXTENT_ZERO;
        out->length = length;
        break;
    case VMDK_FLAT:
        out->kind = MULL_EXTENT_DATA;
        out->file = e->file;
        out->offset = e->flat_offset + in;
        out->length = length;
        out->writable = !image->readonly;
        break;
    case VMDK_SESPARSE:
        ret = map_sesparse(e, in, cached, out);
        break;
    default:
        if (e->stream) {
            out->kind = MULL_EXTENT_HOLE;
            out->length = length;
        } else {
            ret = map_sparse(image, e, in, length, cached, out);
        }
    }
    if (out->length > length)
        out->length = length;
    return ret;
}

/* Set uncleanShutdown before the first change of a table. */
static int mark(struct vmdk_extent *e, bool unclean)
{
    uint8_t flag = unclean;
    if (e->marked == unclean)
        return 0;
    int ret = mull_file_write(e->file, &flag, 1, 72);
    if (!ret)
        e->marked = unclean;
    return ret;
}

/* New bytes at the end of an extent's file. */
static int extend(struct vmdk_extent *e, uint64_t length, uint64_t align, uint64_t *at)
{
    uint64_t start = (e->end + align - 1) / align * align;

    if (start + length > (uint64_t)UINT32_MAX * VMDK_SECTOR)
        return -EFBIG;
    e->end = start + length;
    *at = start;
    if (e->kind != VMDK_COWD)
        return mark(e, true);
    /* freeSector must never be behind a grain in use: whoever opens it next allocates there. */
    uint8_t sector[4];
    mull_put_le32(sector, (uint32_t)(e->end / VMDK_SECTOR));
    return mull_meta_write(e->meta, 28, sector, 4, VMDK_STAGE_FREE);
}

static int vmdk_place(struct mull_image *image, uint64_t offset, uint64_t length,
                      struct mull_place *p)
{
    struct vmdk_extent *e = find_extent(image->state, offset);
    uint64_t in = offset - e->start, grain = in / e->grain, gt, n = 1;

    if ((e->kind != VMDK_SPARSE && e->kind != VMDK_COWD) || e->compressed)
        return e->kind == VMDK_ZERO ? -EIO : -EROFS;
    uint64_t want = (in % e->grain + length + e->grain - 1) / e->grain;
    uint64_t most = e->gt_entries - grain % e->gt_entries,
             last = (e->length + e->grain - 1) / e->grain;
    if (want > most)
        want = most;
    if (want > last - grain)
        want = last - grain;
    if (want > PLACE_MAX / e->grain)
        want = PLACE_MAX / e->grain ? PLACE_MAX / e->grain : 1;
    int ret = find_gt(e, grain, false, &gt, NULL);
    for (; n < want && !ret; n++) {
        uint32_t gte;
        if (gt && (vmdk_read32(e, gt + (grain + n) % e->gt_entries * 4, 0, false, &gte) ||
                   (gte && !(gte == ZEROED_GTE && e->flags & VMDK_FLAG_ZEROED))))
            break;
    }
    if (!ret)
        ret = extend(e, n * e->grain, e->grain, &p->offset);
    if (ret)
        return ret;
    p->start = e->start + grain * e->grain;
    p->length = n * e->grain;
    if (p->length > e->start + e->length - p->start)
        p->length = e->start + e->length - p->start;
    p->file = e->file;
    p->fresh = !e->file->fixed_size;
    p->cookie[0] = (uint64_t)(e - ((struct vmdk *)image->state)->extents);
    p->cookie[1] = grain;
    p->cookie[2] = n;
    return 0;
}

static int set_gd(struct vmdk_extent *e, uint64_t gd, uint64_t index, uint64_t gt)
{
    uint8_t buf[4];
    mull_put_le32(buf, (uint32_t)(gt / VMDK_SECTOR));
    return mull_meta_write(e->meta, gd + index * 4, buf, 4, VMDK_STAGE_GD);
}

/* The grain tables for a grain, made where there are none. */
static int own_gt(struct vmdk_extent *e, uint64_t grain, uint64_t *gt, uint64_t *rgt)
{
    uint64_t bytes = e->gt_entries * UINT64_C(4);
    int ret = find_gt(e, grain, false, gt, rgt);

    bytes = (bytes + VMDK_SECTOR - 1) / VMDK_SECTOR * VMDK_SECTOR;
    for (int second = 0; second < 2 && !ret; second++) {
        uint64_t *table = second ? rgt : gt, gd = second ? e->rgd : e->gd;
        if (*table || !gd)
            continue;
        ret = extend(e, bytes, VMDK_SECTOR, table);
        if (!ret)
            ret = mull_meta_clear(e->meta, *table, bytes, VMDK_STAGE_GT);
        if (!ret)
            ret = set_gd(e, gd, grain / e->gt_entries, *table);
    }
    return ret;
}

static int set_gte(struct vmdk_extent *e, uint64_t gt, uint64_t rgt, uint64_t grain, uint32_t gte)
{
    uint64_t at = grain % e->gt_entries * 4;
    uint8_t buf[4];
    mull_put_le32(buf, gte);
    int ret = mull_meta_write(e->meta, gt + at, buf, 4, VMDK_STAGE_GT);
    if (!ret && rgt)
        ret = mull_meta_write(e->meta, rgt + at, buf, 4, VMDK_STAGE_GT);
    return ret;
}

static int vmdk_link(struct mull_image *image, const struct mull_place *p)
{
    struct vmdk *v = image->state;
    struct vmdk_extent *e = &v->extents[p->cookie[0]];
    uint64_t gt, rgt, grain = p->cookie[1];
    int ret = own_gt(e, grain, &gt, &rgt);

    for (uint64_t i = 0; i < p->cookie[2] && !ret; i++)
        ret = set_gte(e, gt, rgt, grain + i, (uint32_t)((p->offset + i * e->grain) / VMDK_SECTOR));
    e->suspect = e->suspect || ret;
    if (!ret && mull_meta_dirty(e->meta) > DIRTY_MAX)
        ret = mull_meta_commit(e->meta, false);
    return ret;
}

static void vmdk_unplace(struct mull_image *image, const struct mull_place *p)
{
    struct vmdk *v = image->state;
    struct vmdk_extent *e = &v->extents[p->cookie[0]];
    uint64_t gt, rgt;
    uint32_t gte;

    /* Only the last thing allocated can be given back, and only while nothing points there. */
    if (e->end != p->offset + p->cookie[2] * e->grain || find_gt(e, p->cookie[1], false, &gt, &rgt))
        return;
    if (gt && (vmdk_read32(e, gt + p->cookie[1] % e->gt_entries * 4, 0, false, &gte) ||
               gte == p->offset / VMDK_SECTOR))
        return;
    /* It may be half written: it is not fresh any more. */
    mull_file_discard(e->file, p->offset, p->cookie[2] * e->grain);
}

static int zero_sparse(struct mull_image *image, struct vmdk_extent *e, uint64_t in,
                       uint64_t length, bool unmap)
{
    while (length) {
        struct mull_extent x = {0};
        uint64_t gt, rgt;
        int ret = map_sparse(image, e, in, length, false, &x);
        uint64_t n = x.length < length ? x.length : length;
        if (!ret && x.kind == MULL_EXTENT_PACKED)
            ret = -EROFS;
        else if (!ret && x.kind == MULL_EXTENT_DATA)
            ret = mull_file_zero(e->file, x.offset, n, unmap);
        else if (!ret && x.kind == MULL_EXTENT_HOLE && image->backing_path) {
            n = e->grain - in % e->grain;
            bool whole = in % e->grain == 0 && (length >= n || in + length == e->length);
            if (!whole || !(e->flags & VMDK_FLAG_ZEROED))
                return -EOPNOTSUPP;
            n = n < length ? n : length;
            ret = mark(e, true);
            if (!ret)
                ret = own_gt(e, in / e->grain, &gt, &rgt);
            if (!ret)
                ret = set_gte(e, gt, rgt, in / e->grain, ZEROED_GTE);
            e->suspect = e->suspect || ret;
        }
        if (ret)
            return ret;
        in += n;
        length -= n;
    }
    return 0;
}

static int zero_range(struct mull_image *image, uint64_t offset, uint64_t length, bool unmap,
                      bool discard)
{
    struct vmdk *v = image->state;
    int ret = 0;

    while (length && !ret) {
        struct vmdk_extent *e = find_extent(v, offset);
        uint64_t in = offset - e->start, n = e->length - in < length ? e->length - in : length;
        if (e->kind == VMDK_FLAT)
            ret = discard ? mull_file_discard(e->file, e->flat_offset + in, n)
                          : mull_file_zero(e->file, e->flat_offset + in, n, unmap);
        else if (e->kind == VMDK_SPARSE || e->kind == VMDK_COWD)
            ret = zero_sparse(image, e, in, n, unmap);
        offset += n;
        length -= n;
    }
    return ret;
}

static int vmdk_zero(struct mull_image *image, uint64_t offset, uint64_t length, bool may_unmap)
{
    return zero_range(image, offset, length, may_unmap, false);
}

static int vmdk_discard(struct mull_image *image, uint64_t offset, uint64_t length)
{
    return zero_range(image, offset, length, true, true);
}

static int vmdk_flush(struct mull_image *image)
{
    struct vmdk *v = image->state;
    int ret = 0;

    for (uint32_t i = 0; i < v->nextents && !ret; i++) {
        struct vmdk_extent *e = &v->extents[i];
        if (e->meta)
            ret = mull_meta_commit(e->meta, true);
        else if (e->file && atomic_load(&e->file->dirty))
            ret = mull_file_flush(e->file);
    }
    if (!ret && atomic_load(&image->file->dirty))
        ret = mull_file_flush(image->file);
    return ret;
}

static int vmdk_close_clean(struct mull_image *image)
{
    struct vmdk *v = image->state;
    int ret = 0;
    for (uint32_t i = 0; i < v->nextents && !ret; i++) {
        struct vmdk_extent *e = &v->extents[i];
        if (e->stream)
            ret = vmdk_stream_end(e);
        else if (e->kind == VMDK_SPARSE && !e->suspect)
            ret = mark(e, false);
        if (!ret && e->file && atomic_load(&e->file->dirty))
            ret = mull_file_flush(e->file);
    }
    return ret;
}

/* Spec, "Stream-Optimized Compressed Sparse Extents": a grain marker, then the bytes. */
static int vmdk_unpack(struct mull_image *image, const struct mull_extent *x, void *out)
{
    struct vmdk *v = image->state;
    uint8_t marker[12];
    int ret = mull_file_read(x->file, marker, sizeof(marker), x->offset);
    if (ret)
        return ret;
    uint32_t length = mull_le32(marker + 8);
    if (!length || length > x->unit_length * 2u + 4096)
        return -EIO;
    uint8_t *packed = malloc(length);
    if (!packed)
        return -ENOMEM;
    ret = mull_file_read(x->file, packed, length, x->offset + sizeof(marker));
    if (!ret) {
        /* The last grain may hold no more than the disk does. */
        uint64_t left = image->size - x->unit_start;
        ret = mull_unpack(v->packer, packed, length, out, x->unit_length);
        if (ret && left < x->unit_length) {
            memset(out, 0, x->unit_length);
            ret = mull_unpack(v->packer, packed, length, out, (uint32_t)left);
        }
    }
    free(packed);
    return ret;
}

static int64_t vmdk_pack(struct mull_image *image, uint64_t offset, const void *data,
                         uint32_t length, void *out, uint32_t room)
{
    struct vmdk *v = image->state;
    if (!image->stream)
        return 0;
    return mull_pack(v->packer, data, length, out, room);
}

static int vmdk_write_packed(struct mull_image *image, uint64_t offset, const void *packed,
                             uint32_t length)
{
    struct vmdk *v = image->state;
    return v->extents[0].stream ? vmdk_stream_write(&v->extents[0], offset, packed, length)
                                : -EOPNOTSUPP;
}

static int vmdk_check_parent(struct mull_image *image, struct mull_image *parent,
                             struct mull_error *err)
{
    struct vmdk *v = image->state;
    if (parent->format != image->format)
        return mull_fail(err, EINVAL, "%s: its parent %s is no VMDK", image->path, parent->path);
    struct vmdk *p = parent->state;
    if (p->descriptor && p->cid != v->parent_cid && p->cid != v->commit_cid)
        return mull_fail(err, EUCLEAN,
                         "%s: its parent %s has changed since the snapshot (CID %08x, not %08x); "
                         "use the right file, or rebase --unsafe if you know that it fits",
                         image->path, parent->path, p->cid, v->parent_cid);
    return 0;
}

static struct mull_file *vmdk_part(struct mull_image *image, uint32_t index)
{
    struct vmdk *v = image->state;
    for (uint32_t i = 0; i < v->nextents; i++)
        if (v->extents[i].own_file && !index--)
            return v->extents[i].file;
    return NULL;
}

static uint64_t vmdk_generation(struct mull_image *image)
{
    return ((struct vmdk *)image->state)->cid;
}

static void vmdk_info(struct mull_image *image, struct mull_image_info *info)
{
    struct vmdk *v = image->state;
    info->unit = image->unit > 1 ? image->unit : 0;
    mull_info_add(info, "cid", "%u", v->cid);
    mull_info_add(info, "parent cid", "%u", v->parent_cid);
    mull_info_add(info, "create type", "%s", v->create_type);
    mull_info_add(info, "extents", "%u", v->nextents);
    char tracking[48];
    if (v->descriptor && vmdk_value(v->descriptor, "changeTrackPath", tracking, sizeof(tracking)))
        mull_info_add(info, "change tracking file", "%s", tracking);
}

const struct mull_format mull_format_vmdk = {
    .name = "vmdk",
    .probe = vmdk_probe,
    .open = vmdk_open,
    .close = vmdk_close,
    .close_clean = vmdk_close_clean,
    .map = vmdk_map,
    .place = vmdk_place,
    .link = vmdk_link,
    .unplace = vmdk_unplace,
    .zero = vmdk_zero,
    .discard = vmdk_discard,
    .flush = vmdk_flush,
    .unpack = vmdk_unpack,
    .pack = vmdk_pack,
    .write_packed = vmdk_write_packed,
    .create = vmdk_create,
    .may_resize = vmdk_may_resize,
    .resize = vmdk_resize,
    .check = vmdk_check,
    .check_parent = vmdk_check_parent,
    .info = vmdk_info,
    .expect_parent = vmdk_expect_parent,
    .rebase = vmdk_rebase,
    .part = vmdk_part,
    .generation = vmdk_generation,
};
