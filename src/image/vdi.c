/*
 * VDI, VirtualBox's disk image: dynamic, fixed, and differencing (read only). There is no
 * specification but VirtualBox's own source; field names follow its header, version 1.1. Blocks are
 * numbered in the order they were allocated, and the header counts them.
 */
#include "image/vdi.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define UNALLOCATED 0xffffffffu
#define ZEROED 0xfffffffeu
#define MAP_MAX (256u << 20)
#define META_CACHE (16u << 20)
#define DIRTY_MAX (8u << 20)
#define BLOCK_DEFAULT (1u << 20)

enum { TYPE_DYNAMIC = 1, TYPE_FIXED = 2, TYPE_DIFFERENCING = 4 };
enum { STAGE_COUNT, STAGE_MAP };
enum { AT_COUNT = 388 }; /* blocks allocated, in the header */

struct vdi {
    uint32_t type, block, extra, blocks, allocated;
    uint64_t map, data;
    uint8_t parent_modify[16]; /* of the parent when a differencing image was made */
};

static int vdi_probe(const uint8_t *head, size_t len, const uint8_t *tail, const char *path)
{
    return len >= 512 && mull_le32(head + 64) == VDI_MAGIC ? 100 : 0;
}

static int bad(struct mull_image *image, struct mull_error *err, const char *field, uint64_t value)
{
    return mull_fail(err, EINVAL, "%s: VDI header: %s is %llu", image->path, field,
                     (unsigned long long)value);
}

static uint64_t place_of(const struct vdi *v, uint32_t index)
{
    return v->data + (uint64_t)index * (v->block + v->extra) + v->extra;
}

static int read_map(struct mull_image *image, uint64_t block, bool cached, uint32_t *index)
{
    struct vdi *v = image->state;
    uint8_t buf[4];
    int ret = mull_meta_read(image->meta, v->map + block * 4, buf, 4, (v->blocks - block - 1) * 4,
                             cached);
    *index = mull_le32(buf);
    return ret;
}

static int write_map(struct mull_image *image, uint64_t block, uint32_t index)
{
    struct vdi *v = image->state;
    uint8_t buf[4];
    mull_put_le32(buf, index);
    return mull_meta_write(image->meta, v->map + block * 4, buf, 4, STAGE_MAP);
}

static int write_count(struct mull_image *image)
{
    struct vdi *v = image->state;
    uint8_t buf[4];
    mull_put_le32(buf, v->allocated);
    return mull_meta_write(image->meta, AT_COUNT, buf, 4, STAGE_COUNT);
}

/* Copy a block to another place in the file. */
static int copy_block(struct mull_image *image, uint32_t from, uint32_t to)
{
    struct vdi *v = image->state;
    uint8_t *buf = malloc(v->block);
    int ret = buf ? mull_file_read(image->file, buf, v->block, place_of(v, from)) : -ENOMEM;
    if (!ret)
        ret = mull_file_write(image->file, buf, v->block, place_of(v, to));
    free(buf);
    return ret;
}

/*
 * After a power cut the count may be larger than the blocks in use, with gaps where a block was
 * never linked. The last blocks move into the gaps, so that the count is true again.
 * @owner: for each place its block, UNALLOCATED for none.
 */
static int close_gaps(struct mull_image *image, uint32_t *owner, uint32_t places, uint32_t used)
{
    struct vdi *v = image->state;
    uint32_t gap = 0, last = places;
    int ret = 0;

    for (;;) {
        while (gap < used && owner[gap] != UNALLOCATED)
            gap++;
        while (last > used && owner[last - 1] == UNALLOCATED)
            last--;
        if (gap >= used || last <= used || ret)
            break;
        ret = copy_block(image, last - 1, gap);
        if (!ret)
            ret = write_map(image, owner[last - 1], gap);
        if (!ret)
            ret = mull_meta_commit(image->meta, true); /* flushes the copy first */
        owner[gap] = owner[last - 1];
        owner[--last] = UNALLOCATED;
    }
    v->allocated = used;
    if (!ret)
        ret = write_count(image);
    return ret ? ret : mull_meta_commit(image->meta, true);
}

/* Count the blocks in use; @repair makes the header agree. */
static int survey(struct mull_image *image, bool repair, struct mull_check *check,
                  struct mull_error *err)
{
    struct vdi *v = image->state;
    uint32_t *owner = malloc((size_t)v->blocks * 4 + 4), used = 0, places = 0;
    uint64_t corruptions = 0;
    int ret = owner ? 0 : -ENOMEM;

    if (owner)
        memset(owner, 0xff, (size_t)v->blocks * 4 + 4);
    for (uint32_t i = 0; i < v->blocks && !ret; i++) {
        uint32_t index;
        ret = read_map(image, i, false, &index);
        if (ret || index >= ZEROED)
            continue;
        used++;
        bool outside = index >= v->blocks || place_of(v, index) >= atomic_load(&image->file->size);
        if (outside || owner[index] != UNALLOCATED) {
            if (corruptions++ < 1000 && check && check->out)
                fprintf(check->out, "ERROR: block %u is at place %u, which is %s\n", i, index,
                        outside ? "outside of the image" : "another's");
            continue;
        }
        owner[index] = i;
        places = index >= places ? index + 1 : places;
    }
    if (!ret && !corruptions && (used != v->allocated || places != used)) {
        if (check) {
            check->leaks++;
            if (check->out)
                fprintf(check->out, "%u blocks are in use, the header says %u\n", used,
                        v->allocated);
        }
        if (repair && v->type == TYPE_DYNAMIC) {
            ret = close_gaps(image, owner, places, used);
            if (check && !ret)
                check->fixed++;
        } else if (v->allocated < places) {
            v->allocated = places;
        }
    }
    free(owner);
    if (check) {
        check->corruptions += corruptions;
        check->allocated = used;
        check->total = v->blocks;
    } else if (!ret && corruptions && !image->readonly) {
        return mull_fail(err, EUCLEAN, "%s: its block map is corrupt; open it read-only",
                         image->path);
    }
    return ret ? mull_fail(err, -ret, "%s: cannot go through the block map: %s", image->path,
                           strerror(-ret))
               : 0;
}

static int open_differencing(struct mull_image *image, const struct mull_image_options *o,
                             const uint8_t *h, struct mull_error *err)
{
    struct vdi *v = image->state;
    char uuid[37];

    if (!image->readonly)
        return mull_fail(err, ENOTSUP, "%s: a differencing VDI is only read; convert it first",
                         image->path);
    memcpy(v->parent_modify, h + VDI_AT_PARENT_MODIFY, sizeof(v->parent_modify));
    if (o->no_backing)
        return 0;
    mull_vdi_uuid_text(h + VDI_AT_UUID_PARENT, uuid);
    if (!image->file->ops)
        image->backing_path = mull_vdi_find_parent(image->path, h + VDI_AT_UUID_PARENT);
    image->backing_format = strdup("vdi");
    return image->backing_path && image->backing_format
               ? 0
               : mull_fail(err, ENOENT,
                           "%s: its parent, the VDI with UUID %s, is neither beside it nor one "
                           "folder up",
                           image->path, uuid);
}

/* Whether the parent was written to since. */
static int vdi_check_parent(struct mull_image *image, struct mull_image *parent,
                            struct mull_error *err)
{
    static const uint8_t none[16];
    struct vdi *v = image->state;
    uint8_t modify[16];

    if (v->type != TYPE_DIFFERENCING || !memcmp(v->parent_modify, none, sizeof(none)))
        return 0;
    int ret = mull_file_read(parent->file, modify, sizeof(modify), VDI_AT_UUID_MODIFY);
    if (!ret && memcmp(modify, v->parent_modify, sizeof(modify)))
        return mull_fail(err, ESTALE, "%s: its parent %s has changed since it was made",
                         image->path, parent->path);
    return ret ? mull_fail(err, -ret, "%s: cannot read its header", parent->path) : 0;
}

static int vdi_open(struct mull_image *image, const struct mull_image_options *o,
                    struct mull_error *err)
{
    struct vdi *v = calloc(1, sizeof(*v));
    uint8_t h[512];

    if (!v)
        return mull_fail(err, ENOMEM, "%s: out of memory", image->path);
    image->state = v;
    int ret = mull_file_read(image->file, h, sizeof(h), 0);
    if (ret || mull_le32(h + 64) != VDI_MAGIC)
        return mull_fail(err, ret ? -ret : EINVAL, "%s: is not a VDI image", image->path);
    if (mull_le32(h + 68) >> 16 != 1 || mull_le32(h + 72) < 0x180)
        return bad(image, err, "version", mull_le32(h + 68));
    v->type = mull_le32(h + 76);
    v->map = mull_le32(h + 340);
    v->data = mull_le32(h + 344);
    image->size = mull_le64(h + 368);
    v->block = mull_le32(h + 376);
    v->extra = mull_le32(h + 380);
    v->blocks = mull_le32(h + 384);
    v->allocated = mull_le32(h + AT_COUNT);
    if (v->type != TYPE_DYNAMIC && v->type != TYPE_FIXED && v->type != TYPE_DIFFERENCING)
        return bad(image, err, "type", v->type);
    if (v->block < 4096 || v->block > 256u << 20 || v->block & (v->block - 1))
        return bad(image, err, "block size", v->block);
    if (v->extra > 1u << 20 || v->extra % 512)
        return bad(image, err, "extra bytes of a block", v->extra);
    if (!image->size || image->size > (uint64_t)v->blocks * v->block)
        return bad(image, err, "disk size", image->size);
    if (v->map % 512 || v->map < 512 || (uint64_t)v->blocks * 4 > MAP_MAX ||
        v->map + (uint64_t)v->blocks * 4 > atomic_load(&image->file->size))
        return bad(image, err, "block map offset", v->map);
    if (v->data % 512 || v->data < v->map + (uint64_t)v->blocks * 4)
        return bad(image, err, "data offset", v->data);
    if (v->allocated > v->blocks)
        return bad(image, err, "number of allocated blocks", v->allocated);
    image->meta = mull_meta_create(image->file, 512, META_CACHE);
    if (!image->meta)
        return mull_fail(err, ENOMEM, "%s: out of memory", image->path);
    image->size &= ~UINT64_C(511);
    image->unit = 512;
    image->lock_unit = v->block;
    ret = v->type == TYPE_DIFFERENCING ? open_differencing(image, o, h, err) : 0;
    return ret || image->readonly || o->repair ? ret : survey(image, true, NULL, err);
}

static void vdi_close(struct mull_image *image)
{
    free(image->state);
    image->state = NULL;
}

static int map_block(struct mull_image *image, uint64_t offset, bool cached,
                     struct mull_extent *out)
{
    struct vdi *v = image->state;
    uint32_t index;
    int ret = read_map(image, offset / v->block, cached, &index);

    out->length = v->block - offset % v->block;
    out->kind = MULL_EXTENT_ZERO;
    if (!ret && index == UNALLOCATED && v->type == TYPE_DIFFERENCING)
        out->kind = MULL_EXTENT_HOLE;
    if (ret || index >= ZEROED)
        return ret;
    if (index >= v->blocks)
        return -EIO;
    out->kind = MULL_EXTENT_DATA;
    out->file = image->file;
    out->offset = place_of(v, index) + offset % v->block;
    out->writable = !image->readonly;
    return 0;
}

static int vdi_map(struct mull_image *image, uint64_t offset, uint64_t length, bool cached,
                   struct mull_extent *out)
{
    int ret = map_block(image, offset, cached, out);
    while (!ret && out->length < length) {
        struct mull_extent next = {0};
        if (map_block(image, offset + out->length, cached, &next) || next.kind != out->kind ||
            (next.kind == MULL_EXTENT_DATA && next.offset != out->offset + out->length))
            break;
        out->length += next.length;
    }
    return ret;
}

static int vdi_place(struct mull_image *image, uint64_t offset, uint64_t length,
                     struct mull_place *p)
{
    struct vdi *v = image->state;

    if (v->allocated >= v->blocks)
        return -EIO; /* more blocks in use than there are: not without a corrupt map */
    uint32_t index = v->allocated++;
    int ret = write_count(image);
    p->start = offset - offset % v->block;
    p->length = v->block < image->size - p->start ? v->block : image->size - p->start;
    p->file = image->file;
    p->offset = place_of(v, index);
    p->fresh = p->offset >= atomic_load(&image->file->size);
    p->cookie[0] = index;
    return ret;
}

static int vdi_link(struct mull_image *image, const struct mull_place *p)
{
    struct vdi *v = image->state;
    int ret = write_map(image, p->start / v->block, (uint32_t)p->cookie[0]);
    if (!ret && mull_meta_dirty(image->meta) > DIRTY_MAX)
        ret = mull_meta_commit(image->meta, false);
    return ret;
}

static void vdi_unplace(struct mull_image *image, const struct mull_place *p)
{
    struct vdi *v = image->state;
    if (p->cookie[0] + 1 == v->allocated) {
        v->allocated--;
        write_count(image);
    }
}

static int zero_range(struct mull_image *image, uint64_t offset, uint64_t length, bool unmap)
{
    while (length) {
        struct mull_extent x = {0};
        int ret = map_block(image, offset, false, &x);
        uint64_t n = x.length < length ? x.length : length;
        if (!ret && x.kind == MULL_EXTENT_DATA)
            ret = mull_file_zero(image->file, x.offset, n, unmap);
        if (ret)
            return ret;
        offset += n;
        length -= n;
    }
    return 0;
}

static int vdi_zero(struct mull_image *image, uint64_t offset, uint64_t length, bool may_unmap)
{
    return zero_range(image, offset, length, may_unmap);
}

static int vdi_discard(struct mull_image *image, uint64_t offset, uint64_t length)
{
    return zero_range(image, offset, length, true);
}

static int vdi_flush(struct mull_image *image)
{
    return mull_meta_commit(image->meta, true);
}

/* Other readers want the last block whole, and the file as long as it would be. */
static int vdi_close_clean(struct mull_image *image)
{
    struct vdi *v = image->state;
    uint64_t end = place_of(v, v->allocated) - v->extra;
    if (image->file->block_device || atomic_load(&image->file->size) >= end)
        return 0;
    int ret = mull_file_truncate(image->file, end);
    return ret ? ret : mull_file_flush(image->file);
}

static int vdi_check(struct mull_image *image, struct mull_check *check, struct mull_error *err)
{
    int ret = image->readonly ? 0 : vdi_flush(image);
    return ret ? ret : survey(image, check->repair && !image->readonly, check, err);
}

static void vdi_info(struct mull_image *image, struct mull_image_info *info)
{
    struct vdi *v = image->state;
    info->unit = v->block;
    mull_info_add(info, "subformat", v->type == TYPE_FIXED ? "fixed" : "dynamic");
    mull_info_add(info, "allocated blocks", "%u", v->allocated);
}

static int vdi_create(const struct mull_create_options *o, struct mull_error *err)
{
    uint32_t block = o->unit ? o->unit : BLOCK_DEFAULT;
    bool fixed = o->subformat && !strcmp(o->subformat, "fixed");
    uint64_t blocks = (o->size + block - 1) / block, bytes = (blocks * 4 + 511) & ~UINT64_C(511);
    uint64_t data = (512 + bytes + (1 << 20) - 1) & ~((UINT64_C(1) << 20) - 1);
    uint8_t h[512] = "<<< Mullion Virtual Disk Image >>>\n";
    struct mull_file *file;

    if (o->subformat && !fixed && strcmp(o->subformat, "dynamic"))
        return mull_fail(err, EINVAL, "%s: VDI subformat '%s' is not dynamic or fixed", o->path,
                         o->subformat);
    if (o->backing)
        return mull_fail(err, ENOTSUP, "%s: a VDI names its parent by ID only; use qcow2 or vmdk",
                         o->path);
    if (block < 4096 || block > 256u << 20 || block & (block - 1))
        return mull_fail(err, EINVAL, "%s: VDI block size %u", o->path, block);
    if (!o->size || bytes > MAP_MAX || data > UINT32_MAX)
        return mull_fail(err, EFBIG, "%s: VDI disk of %llu bytes", o->path,
                         (unsigned long long)o->size);
    mull_put_le32(h + 64, VDI_MAGIC);
    mull_put_le32(h + 68, 0x00010001);
    mull_put_le32(h + 72, 0x190);
    mull_put_le32(h + 76, fixed ? TYPE_FIXED : TYPE_DYNAMIC);
    mull_put_le32(h + 340, 512);
    mull_put_le32(h + 344, (uint32_t)data);
    mull_put_le32(h + 360, 512);
    mull_put_le64(h + 368, o->size);
    mull_put_le32(h + 376, block);
    mull_put_le32(h + 384, (uint32_t)blocks);
    mull_put_le32(h + AT_COUNT, fixed ? (uint32_t)blocks : 0);
    (void)!getrandom(h + 392, 32, 0); /* the image's ID and that of its last change */
    uint8_t *map = malloc(bytes);
    if (!map)
        return mull_fail(err, ENOMEM, "%s: out of memory", o->path);
    memset(map, 0xff, bytes);
    for (uint64_t i = 0; i < blocks && fixed; i++)
        mull_put_le32(map + i * 4, (uint32_t)i);
    struct mull_file_options fo = {
        .path = o->path, .create = true, .unsafe = o->unsafe, .observer = o->observer};
    int ret = mull_file_open(&fo, &file, err);
    if (!ret) {
        ret = mull_file_truncate(file, data + (fixed ? blocks * block : 0));
        if (!ret)
            ret = mull_file_write(file, map, bytes, 512);
        if (!ret)
            ret = mull_file_flush(file);
        if (!ret)
            ret = mull_file_write(file, h, sizeof(h), 0);
        if (!ret)
            ret = mull_file_flush(file);
        if (ret)
            mull_fail(err, -ret, "%s: cannot write: %s", o->path, strerror(-ret));
        mull_file_close(file);
    }
    free(map);
    return ret;
}

static int vdi_may_resize(struct mull_image *image, uint64_t size, struct mull_error *err)
{
    struct vdi *v = image->state;
    uint64_t blocks = (size + v->block - 1) / v->block;

    if (!size || blocks * 4 > MAP_MAX)
        return mull_fail(err, EFBIG, "%s: VDI disk of %llu bytes", image->path,
                         (unsigned long long)size);
    if (blocks > v->blocks && v->map + blocks * 4 > v->data)
        return mull_fail(
            err, ENOSPC, "%s: its block map has room for %llu GiB; convert it to make it larger",
            image->path, (unsigned long long)((v->data - v->map) / 4 * v->block >> 30));
    return 0;
}

/* Size and number of blocks: one sector of the header. */
static int write_size(struct mull_image *image, uint64_t size, uint32_t blocks)
{
    uint8_t sector[512];
    int ret = mull_file_read(image->file, sector, sizeof(sector), 0);
    mull_put_le64(sector + 368, size);
    mull_put_le32(sector + 384, blocks);
    if (!ret)
        ret = mull_file_write(image->file, sector, sizeof(sector), 0);
    mull_meta_forget(image->meta, 0, 512);
    return ret ? ret : mull_file_flush(image->file);
}

/* New blocks in the map, before the header counts them. */
static int grow_map(struct mull_image *image, uint32_t blocks)
{
    struct vdi *v = image->state;
    bool fixed = v->type == TYPE_FIXED;
    uint32_t old = v->blocks;
    int ret = 0;

    if (fixed)
        ret = mull_file_truncate(image->file, place_of(v, blocks));
    for (uint32_t i = old; i < blocks && !ret; i++)
        ret = write_map(image, i, fixed ? i : UNALLOCATED);
    return ret ? ret : mull_meta_commit(image->meta, true);
}

/* The count is never larger than the number of blocks: growing, it comes last. */
static int set_count(struct mull_image *image, uint32_t count)
{
    struct vdi *v = image->state;
    v->allocated = count;
    int ret = write_count(image);
    return ret ? ret : mull_meta_commit(image->meta, true);
}

static int vdi_resize(struct mull_image *image, uint64_t size, bool preallocate,
                      struct mull_error *err)
{
    struct vdi *v = image->state;
    uint32_t blocks = (uint32_t)((size + v->block - 1) / v->block), old = v->blocks;
    int ret = vdi_flush(image);

    if (!ret && blocks > old)
        ret = grow_map(image, blocks);
    /* A map that is longer than the disk is no mistake. */
    if (!ret)
        ret = write_size(image, size, blocks > old ? blocks : old);
    if (!ret && blocks > old && v->type == TYPE_FIXED)
        ret = set_count(image, blocks);
    for (uint32_t i = blocks; i < old && !ret; i++)
        ret = write_map(image, i, UNALLOCATED);
    if (!ret && blocks < old) {
        ret = mull_meta_commit(image->meta, true);
        if (!ret && v->type == TYPE_DYNAMIC)
            ret = survey(image, true, NULL, err);
        if (!ret && v->type == TYPE_FIXED)
            ret = set_count(image, blocks);
        if (!ret)
            ret = write_size(image, size, blocks);
        if (!ret)
            ret = mull_file_truncate(image->file, place_of(v, v->allocated) - v->extra);
    }
    if (ret) {
        image->failed = true; /* which size the file says is not known */
        return mull_fail(err, -ret, "%s: cannot resize: %s", image->path, strerror(-ret));
    }
    v->blocks = blocks;
    image->size = size;
    return 0;
}

const struct mull_format mull_format_vdi = {
    .name = "vdi",
    .probe = vdi_probe,
    .open = vdi_open,
    .close = vdi_close,
    .close_clean = vdi_close_clean,
    .map = vdi_map,
    .place = vdi_place,
    .link = vdi_link,
    .unplace = vdi_unplace,
    .zero = vdi_zero,
    .discard = vdi_discard,
    .flush = vdi_flush,
    .create = vdi_create,
    .may_resize = vdi_may_resize,
    .resize = vdi_resize,
    .check = vdi_check,
    .check_parent = vdi_check_parent,
    .info = vdi_info,
};
