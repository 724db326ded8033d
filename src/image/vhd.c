/*
 * VHD: fixed, dynamic and differencing. Spec: Microsoft, "Virtual Hard Disk Image Format
 * Specification". The footer at the end moves with every new block; its copy at the start is what a
 * power cut leaves.
 */
#include "image/vhd.h"

#include "image/utf16.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define META_CACHE (16u << 20)
#define DIRTY_MAX (8u << 20)
#define BAT_MAX (64u << 20)

static int vhd_probe(const uint8_t *head, size_t len, const uint8_t *tail, const char *path)
{
    if (len >= 8 && !memcmp(head, "conectix", 8))
        return 100;
    return tail && !memcmp(tail, "conectix", 8) ? 90 : 0;
}

uint32_t vhd_checksum(const uint8_t *data, size_t length, size_t at)
{
    uint32_t sum = 0;
    for (size_t i = 0; i < length; i++)
        if (i < at || i >= at + 4)
            sum += data[i];
    return ~sum;
}

static bool footer_valid(const uint8_t *f)
{
    return !memcmp(f, "conectix", 8) && mull_be32(f + 64) == vhd_checksum(f, 512, 64);
}

static int read_footer(struct mull_image *image, struct mull_error *err)
{
    struct vhd *v = image->state;
    uint64_t size = atomic_load(&image->file->size);
    uint8_t head[512];
    bool tail_valid = size >= 512 && !mull_file_read(image->file, v->footer, 512, size - 512) &&
                      footer_valid(v->footer);
    bool head_valid = !mull_file_read(image->file, head, 512, 0) && footer_valid(head);

    v->end = tail_valid ? size - 512 : (size + 511) & ~UINT64_C(511);
    if (!tail_valid && !head_valid)
        return mull_fail(err, EINVAL, "%s: no valid VHD footer", image->path);
    /* Of a fixed disk the start is data, whatever it looks like. */
    if (!tail_valid ||
        (head_valid && mull_be32(head + 60) != VHD_FIXED && mull_be32(v->footer + 60) != VHD_FIXED))
        memcpy(v->footer, head, 512);
    v->footer_due = !tail_valid;
    v->type = mull_be32(v->footer + 60);
    if (v->type < VHD_FIXED || v->type > VHD_DIFFERENCING)
        return mull_fail(err, ENOTSUP, "%s: VHD disk type %u", image->path, v->type);
    if (mull_be32(v->footer + 12) >> 16 != 1)
        return mull_fail(err, ENOTSUP, "%s: VHD version %#x", image->path,
                         mull_be32(v->footer + 12));
    image->size = mull_be64(v->footer + 48);
    if (!memcmp(v->footer + 28, "vpc ", 4)) {
        /* Virtual PC shows its guests the geometry's size. */
        uint64_t chs = (uint64_t)mull_be16(v->footer + 56) * v->footer[58] * v->footer[59] * 512;
        if (chs && chs < image->size && chs != UINT64_C(65535) * 16 * 255 * 512)
            image->size = chs;
    }
    if (!image->size || image->size > MULL_IMAGE_SIZE_MAX || image->size % 512)
        return mull_fail(err, EINVAL, "%s: VHD footer: current size is %llu", image->path,
                         (unsigned long long)image->size);
    return 0;
}

/* Spec, "Parent Locator Entries": a relative name if there is one, else the bare name. */
static int find_parent(struct mull_image *image, const uint8_t *head, struct mull_error *err)
{
    char name[1024] = "", full[1024] = "";
    uint8_t data[1024];

    for (int i = 0; i < 8 && !*name; i++) {
        const uint8_t *e = head + 576 + i * 24;
        uint32_t length = mull_be32(e + 8);
        uint64_t offset = mull_be64(e + 16);
        if (mull_be32(e) != 0x57327275 /* W2ru */ || !length || length > sizeof(data) ||
            offset > (uint64_t)INT64_MAX - length)
            continue;
        if (!mull_file_read(image->file, data, length, offset))
            mull_utf16_read(data, length, false, name, sizeof(name));
    }
    if (!*name) {
        mull_utf16_read(head + 64, 512, true, full, sizeof(full));
        const char *slash = strrchr(full, '/');
        snprintf(name, sizeof(name), "%s", slash ? slash + 1 : full);
    }
    if (!*name)
        return mull_fail(err, EINVAL, "%s: names no parent", image->path);
    image->backing_path = strdup(name);
    image->backing_format = strdup("vhd");
    return image->backing_path && image->backing_format
               ? 0
               : mull_fail(err, ENOMEM, "%s: out of memory", image->path);
}

/* The end of the last block: a file that lost its footer may be longer or shorter. */
static int find_end(struct mull_image *image, struct mull_error *err)
{
    struct vhd *v = image->state;
    uint64_t bytes = (uint64_t)v->entries * 4;
    uint8_t *bat = malloc(bytes);
    int ret = bat ? mull_file_read(image->file, bat, bytes, v->bat) : -ENOMEM;

    if (v->end < v->bat + bytes)
        v->end = (v->bat + bytes + 511) & ~UINT64_C(511);
    for (uint32_t i = 0; i < v->entries && !ret; i++) {
        uint32_t sector = mull_be32(bat + i * UINT64_C(4));
        uint64_t end = (uint64_t)sector * VHD_SECTOR + v->bitmap_length + v->block;
        if (sector != VHD_UNUSED && end > v->end) {
            v->end = end;
            v->footer_due = true;
        }
    }
    free(bat);
    return ret ? mull_fail(err, -ret, "%s: cannot read the allocation table", image->path) : 0;
}

static int open_dynamic(struct mull_image *image, struct mull_error *err)
{
    struct vhd *v = image->state;
    uint8_t head[1024];
    uint64_t at = mull_be64(v->footer + 16);

    if (at > INT64_MAX / 2 || mull_file_read(image->file, head, sizeof(head), at) ||
        memcmp(head, "cxsparse", 8) || mull_be32(head + 36) != vhd_checksum(head, 1024, 36))
        return mull_fail(err, EINVAL, "%s: no valid VHD dynamic disk header", image->path);
    v->bat = mull_be64(head + 16);
    v->entries = mull_be32(head + 28);
    v->block = mull_be32(head + 32);
    if (v->block < 4096 || v->block > 256u << 20 || v->block & (v->block - 1))
        return mull_fail(err, EINVAL, "%s: VHD block size is %u", image->path, v->block);
    if (v->bat > INT64_MAX / 2 || v->bat % 512 || (uint64_t)v->entries * 4 > BAT_MAX ||
        (uint64_t)v->entries * v->block < image->size)
        return mull_fail(err, EINVAL, "%s: VHD allocation table: %u entries at %#llx", image->path,
                         v->entries, (unsigned long long)v->bat);
    if (v->bat + (uint64_t)v->entries * 4 > atomic_load(&image->file->size))
        return mull_fail(err, EINVAL, "%s: VHD allocation table at %#llx lies behind the file",
                         image->path, (unsigned long long)v->bat);
    v->bitmap_length = (v->block / VHD_SECTOR / 8 + 511) & ~511u;
    image->meta = mull_meta_create(image->file, 512, META_CACHE);
    if (!image->meta)
        return mull_fail(err, ENOMEM, "%s: out of memory", image->path);
    memcpy(v->parent_id, head + 40, 16);
    image->lock_unit = v->block;
    image->unit = VHD_SECTOR;
    int ret = find_end(image, err);
    return ret || v->type != VHD_DIFFERENCING ? ret : find_parent(image, head, err);
}

static int vhd_open(struct mull_image *image, const struct mull_image_options *o,
                    struct mull_error *err)
{
    image->state = calloc(1, sizeof(struct vhd));
    if (!image->state)
        return mull_fail(err, ENOMEM, "%s: out of memory", image->path);
    int ret = read_footer(image, err);
    if (ret)
        return ret;
    struct vhd *v = image->state;
    if (v->type != VHD_FIXED)
        return open_dynamic(image, err);
    if (image->size > v->end)
        return mull_fail(err, EINVAL, "%s: VHD file is shorter than its disk", image->path);
    image->unit = 1;
    return 0;
}

static void vhd_close(struct mull_image *image)
{
    free(image->state);
    image->state = NULL;
}

static int read_bat(struct mull_image *image, uint64_t block, bool cached, uint32_t *sector)
{
    struct vhd *v = image->state;
    uint8_t buf[4];
    int ret = mull_meta_read(image->meta, v->bat + block * 4, buf, 4, (v->entries - block - 1) * 4,
                             cached);
    *sector = mull_be32(buf);
    return ret;
}

/* Spec, "Data Blocks": a bit a sector, the first in the highest bit of the first byte. */
static int map_block(struct mull_image *image, uint64_t offset, uint64_t length, bool cached,
                     struct mull_extent *out)
{
    struct vhd *v = image->state;
    uint64_t in = offset % v->block, first = in / VHD_SECTOR, n = 0;
    uint64_t most = (in % VHD_SECTOR + length + VHD_SECTOR - 1) / VHD_SECTOR;
    uint64_t left = v->block / VHD_SECTOR - first;
    uint8_t bits[512];
    uint32_t sector;
    int ret = read_bat(image, offset / v->block, cached, &sector);

    if (ret)
        return ret;
    out->kind = v->type == VHD_DIFFERENCING ? MULL_EXTENT_HOLE : MULL_EXTENT_ZERO;
    out->length = v->block - in;
    if (sector == VHD_UNUSED)
        return 0;
    most = most < left ? most : left;
    uint64_t byte = first / 8, bytes = (first + most + 7) / 8 - byte;
    if (bytes > sizeof(bits)) {
        bytes = sizeof(bits);
        most = bytes * 8 - first % 8;
    }
    ret = mull_meta_read(image->meta, (uint64_t)sector * VHD_SECTOR + byte, bits, (uint32_t)bytes,
                         0, cached);
    if (ret)
        return ret;
    uint32_t shift = (uint32_t)(first % 8);
    bool here = bits[0] >> (7 - shift) & 1;
    while (n < most) {
        /* Eight at a time where they agree. */
        if ((shift + n) % 8 == 0 && n + 8 <= most && bits[(shift + n) / 8] == (here ? 0xff : 0))
            n += 8;
        else if ((bits[(shift + n) / 8] >> (7 - (shift + n) % 8) & 1) == here)
            n++;
        else
            break;
    }
    out->length = n * VHD_SECTOR - in % VHD_SECTOR;
    if (here) {
        out->kind = MULL_EXTENT_DATA;
        out->file = image->file;
        out->offset = (uint64_t)sector * VHD_SECTOR + v->bitmap_length + in;
        out->writable = !image->readonly;
    }
    return 0;
}

static int vhd_map(struct mull_image *image, uint64_t offset, uint64_t length, bool cached,
                   struct mull_extent *out)
{
    struct vhd *v = image->state;

    if (v->type == VHD_FIXED) {
        out->kind = MULL_EXTENT_DATA;
        out->length = length;
        out->file = image->file;
        out->offset = offset;
        out->writable = !image->readonly;
        return 0;
    }
    int ret = map_block(image, offset, length, cached, out);
    while (!ret && out->length < length && out->kind != MULL_EXTENT_DATA) {
        struct mull_extent next = {0};
        if (map_block(image, offset + out->length, length - out->length, cached, &next) ||
            next.kind != out->kind)
            break;
        out->length += next.length;
    }
    return ret;
}

enum { PLACE_BLOCK, PLACE_SECTORS_NEW, PLACE_SECTORS };

static int new_block(struct mull_image *image, uint64_t *at)
{
    struct vhd *v = image->state;
    uint64_t room = (uint64_t)v->bitmap_length + v->block;

    if (v->end + room + 512 > (uint64_t)UINT32_MAX * VHD_SECTOR)
        return -EFBIG;
    if (image->file->fixed_size && v->end + room + 512 > atomic_load(&image->file->size))
        return -ENOSPC;
    *at = v->end;
    v->end += room;
    v->footer_due = true;
    return 0;
}

static int vhd_place(struct mull_image *image, uint64_t offset, uint64_t length,
                     struct mull_place *p)
{
    struct vhd *v = image->state;
    uint64_t block = offset / v->block, start = block * v->block, at;
    uint32_t sector;
    int ret = read_bat(image, block, false, &sector);

    if (ret)
        return ret;
    p->file = image->file;
    if (sector != VHD_UNUSED) {
        at = (uint64_t)sector * VHD_SECTOR;
        p->cookie[0] = PLACE_SECTORS;
    } else {
        ret = new_block(image, &at);
        if (ret)
            return ret;
        p->fresh = !image->file->fixed_size;
        p->cookie[0] = v->type == VHD_DIFFERENCING ? PLACE_SECTORS_NEW : PLACE_BLOCK;
    }
    p->cookie[1] = at;
    p->start = start;
    p->offset = at + v->bitmap_length;
    p->length = v->block;
    if (p->cookie[0] != PLACE_BLOCK) {
        uint64_t end = offset + length < start + v->block ? offset + length : start + v->block;
        p->start = offset - offset % VHD_SECTOR;
        p->offset += p->start - start;
        p->length = (end + VHD_SECTOR - 1) / VHD_SECTOR * VHD_SECTOR - p->start;
    }
    if (p->length > image->size - p->start)
        p->length = image->size - p->start;
    return 0;
}

static int set_bits(struct mull_image *image, uint64_t bitmap, uint64_t first, uint64_t end)
{
    int ret = 0;
    for (uint64_t byte = first / 8; !ret && byte <= (end - 1) / 8; byte++) {
        uint8_t bits;
        ret = mull_meta_read(image->meta, bitmap + byte, &bits, 1, 0, false);
        for (uint64_t bit = byte * 8; bit < byte * 8 + 8; bit++)
            if (bit >= first && bit < end)
                bits |= (uint8_t)(0x80u >> (bit % 8));
        if (!ret)
            ret = mull_meta_write(image->meta, bitmap + byte, &bits, 1, VHD_STAGE_BITMAP);
    }
    return ret;
}

static int vhd_link(struct mull_image *image, const struct mull_place *p)
{
    struct vhd *v = image->state;
    uint64_t at = p->cookie[1], first = p->start % v->block / VHD_SECTOR;
    int ret = 0;

    if (p->cookie[0] != PLACE_SECTORS)
        ret = mull_meta_clear(image->meta, at, v->bitmap_length, VHD_STAGE_NEW_BITMAP);
    if (!ret && p->cookie[0] == PLACE_BLOCK)
        ret = set_bits(image, at, 0, v->block / VHD_SECTOR);
    else if (!ret)
        ret = set_bits(image, at, first, first + (p->length + VHD_SECTOR - 1) / VHD_SECTOR);
    if (!ret && p->cookie[0] != PLACE_SECTORS) {
        uint8_t buf[4];
        mull_put_be32(buf, (uint32_t)(at / VHD_SECTOR));
        ret = mull_meta_write(image->meta, v->bat + p->start / v->block * 4, buf, 4, VHD_STAGE_BAT);
    }
    if (!ret && mull_meta_dirty(image->meta) > DIRTY_MAX)
        ret = mull_meta_commit(image->meta, false);
    return ret;
}

static void vhd_unplace(struct mull_image *image, const struct mull_place *p)
{
    /* The room at the end stays unused; it is given back to the host. */
    if (p->cookie[0] != PLACE_SECTORS)
        mull_file_discard(image->file, p->offset, p->length);
}

static int zero_range(struct mull_image *image, uint64_t offset, uint64_t length, bool unmap,
                      bool discard)
{
    struct vhd *v = image->state;
    if (v->type == VHD_FIXED)
        return discard ? mull_file_discard(image->file, offset, length)
                       : mull_file_zero(image->file, offset, length, unmap);
    while (length) {
        struct mull_extent x = {0};
        int ret = map_block(image, offset, length, false, &x);
        uint64_t n = x.length < length ? x.length : length;
        if (!ret && x.kind == MULL_EXTENT_DATA)
            ret = mull_file_zero(image->file, x.offset, n, unmap);
        else if (!ret && x.kind == MULL_EXTENT_HOLE)
            ret = -EOPNOTSUPP; /* there is no mark for zeroes above a parent */
        if (ret)
            return ret;
        offset += n;
        length -= n;
    }
    return 0;
}

static int vhd_zero(struct mull_image *image, uint64_t offset, uint64_t length, bool may_unmap)
{
    return zero_range(image, offset, length, may_unmap, false);
}

static int vhd_discard(struct mull_image *image, uint64_t offset, uint64_t length)
{
    return zero_range(image, offset, length, true, true);
}

static int vhd_flush(struct mull_image *image)
{
    struct vhd *v = image->state;
    int ret = 0;

    if (v->type == VHD_FIXED)
        return mull_file_flush(image->file);
    if (v->footer_due) {
        ret = mull_file_write(image->file, v->footer, 512, v->end);
        v->footer_due = ret != 0;
    }
    return ret ? ret : mull_meta_commit(image->meta, true);
}

static int vhd_check_parent(struct mull_image *image, struct mull_image *parent,
                            struct mull_error *err)
{
    struct vhd *v = image->state, *p = parent->state;
    if (parent->format != image->format)
        return mull_fail(err, EINVAL, "%s: its parent %s is no VHD", image->path, parent->path);
    if (memcmp(v->parent_id, p->footer + 68, 16))
        return mull_fail(err, EUCLEAN, "%s: %s is not the parent it was made on (another ID)",
                         image->path, parent->path);
    return 0;
}

struct used {
    uint32_t at, block;
};

static int by_place(const void *a, const void *b)
{
    const struct used *x = a, *y = b;
    return x->at < y->at ? -1 : x->at > y->at;
}

static void say(struct mull_check *check, uint32_t block, const char *what)
{
    if (check->corruptions++ < 1000 && check->out)
        fprintf(check->out, "ERROR: block %u %s\n", block, what);
}

static int vhd_check(struct mull_image *image, struct mull_check *check, struct mull_error *err)
{
    struct vhd *v = image->state;
    uint64_t sectors = v->end / VHD_SECTOR, block = (v->bitmap_length + v->block) / VHD_SECTOR;
    if (v->type == VHD_FIXED)
        return 0;
    uint64_t first_free = (v->bat + v->entries * UINT64_C(4) + 511) / 512;
    struct used *used = malloc(v->entries * sizeof(*used) + 1);
    uint32_t n = 0;
    int ret = used ? 0 : -ENOMEM;

    check->total = v->entries;
    for (uint32_t i = 0; i < v->entries && !ret; i++) {
        uint32_t at;
        ret = read_bat(image, i, false, &at);
        if (ret || at == VHD_UNUSED)
            continue;
        check->allocated++;
        if (at < 3 || (at < first_free && at + block > v->bat / 512) || at + block > sectors ||
            at >= (atomic_load(&image->file->size) + 511) / VHD_SECTOR)
            say(check, i, "lies outside of the data");
        else
            used[n++] = (struct used){at, i};
    }
    if (!ret)
        qsort(used, n, sizeof(*used), by_place);
    for (uint32_t i = 1; i < n && !ret; i++)
        if (used[i].at < used[i - 1].at + block)
            say(check, used[i].block, "shares space with another");
    free(used);
    return ret ? mull_fail(err, -ret, "%s: check failed: %s", image->path, strerror(-ret)) : 0;
}

static void vhd_info(struct mull_image *image, struct mull_image_info *info)
{
    static const char *const types[] = {"fixed", "dynamic", "differencing"};
    struct vhd *v = image->state;
    info->unit = v->block;
    mull_info_add(info, "subformat", "%s", types[v->type - VHD_FIXED]);
    mull_info_add(info, "creator", "%.4s", (const char *)v->footer + 28);
}

static const char *const aliases[] = {"vpc", NULL};

const struct mull_format mull_format_vhd = {
    .name = "vhd",
    .aliases = aliases,
    .probe = vhd_probe,
    .open = vhd_open,
    .close = vhd_close,
    .map = vhd_map,
    .place = vhd_place,
    .link = vhd_link,
    .unplace = vhd_unplace,
    .zero = vhd_zero,
    .discard = vhd_discard,
    .flush = vhd_flush,
    .create = vhd_create,
    .may_resize = vhd_may_resize,
    .resize = vhd_resize,
    .check = vhd_check,
    .check_parent = vhd_check_parent,
    .info = vhd_info,
};
