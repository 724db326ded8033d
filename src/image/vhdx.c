/*
 * VHDX: dynamic, fixed and differencing. Spec: [MS-VHDX]. Allocation changes go through the log, so
 * that the block allocation table is never torn.
 */
#include "image/vhdx.h"

#include "image/utf16.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define META_CACHE (32u << 20)
#define DIRTY_MAX (8u << 20)
#define ENTRIES_MAX 2047u

const uint8_t vhdx_guid_bat[16] = {0x66, 0x77, 0xc2, 0x2d, 0x23, 0xf6, 0x00, 0x42,
                                   0x9d, 0x64, 0x11, 0x5e, 0x9b, 0xfd, 0x4a, 0x08};
const uint8_t vhdx_guid_metadata[16] = {0x06, 0xa2, 0x7c, 0x8b, 0x90, 0x47, 0x9a, 0x4b,
                                        0xb8, 0xfe, 0x57, 0x5f, 0x05, 0x0f, 0x88, 0x6e};
const uint8_t vhdx_guid_file_parameters[16] = {0x37, 0x67, 0xa1, 0xca, 0x36, 0xfa, 0x43, 0x4d,
                                               0xb3, 0xb6, 0x33, 0xf0, 0xaa, 0x44, 0xe7, 0x6b};
const uint8_t vhdx_guid_disk_size[16] = {0x24, 0x42, 0xa5, 0x2f, 0x1b, 0xcd, 0x76, 0x48,
                                         0xb2, 0x11, 0x5d, 0xbe, 0xd8, 0x3b, 0xf4, 0xb8};
const uint8_t vhdx_guid_disk_id[16] = {0xab, 0x12, 0xca, 0xbe, 0xe6, 0xb2, 0x23, 0x45,
                                       0x93, 0xef, 0xc3, 0x09, 0xe0, 0x00, 0xc7, 0x46};
const uint8_t vhdx_guid_logical[16] = {0x1d, 0xbf, 0x41, 0x81, 0x6f, 0xa9, 0x09, 0x47,
                                       0xba, 0x47, 0xf2, 0x33, 0xa8, 0xfa, 0xab, 0x5f};
const uint8_t vhdx_guid_physical[16] = {0xc7, 0x48, 0xa3, 0xcd, 0x5d, 0x44, 0x71, 0x44,
                                        0x9c, 0xc9, 0xe9, 0x88, 0x52, 0x51, 0xc5, 0x56};
const uint8_t vhdx_guid_parent_locator[16] = {0x2d, 0x5f, 0xd3, 0xa8, 0x0b, 0xb3, 0x4d, 0x45,
                                              0xab, 0xf7, 0xd3, 0xd8, 0x48, 0x34, 0xab, 0x0c};
const uint8_t vhdx_guid_locator_type[16] = {0xb7, 0xef, 0x4a, 0xb0, 0x9e, 0xd1, 0x81, 0x4a,
                                            0xb7, 0x89, 0x25, 0xb8, 0xe9, 0x44, 0x59, 0x13};

static int vhdx_probe(const uint8_t *head, size_t len, const uint8_t *tail, const char *path)
{
    return len >= 8 && !memcmp(head, "vhdxfile", 8) ? 100 : 0;
}

void vhdx_new_guid(uint8_t *guid)
{
    (void)!getrandom(guid, 16, 0);
    guid[7] = (uint8_t)((guid[7] & 0x0f) | 0x40);
    guid[8] = (uint8_t)((guid[8] & 0x3f) | 0x80);
}

void vhdx_guid_text(const uint8_t *g, char *out, size_t room)
{
    snprintf(out, room, "{%08x-%04x-%04x-%02x%02x-%02x%02x%02x%02x%02x%02x}", mull_le32(g),
             mull_le16(g + 4), mull_le16(g + 6), g[8], g[9], g[10], g[11], g[12], g[13], g[14],
             g[15]);
}

/* 2.2.2: one of the two headers. @return false: not valid. */
static bool read_header(struct mull_image *image, uint32_t at, struct vhdx_header *h)
{
    uint8_t buf[4096];
    if (mull_file_read(image->file, buf, sizeof(buf), at) || memcmp(buf, "head", 4) ||
        mull_le16(buf + 66) != 1 || mull_le16(buf + 64) != 0)
        return false;
    uint32_t sum = mull_le32(buf + 4);
    memset(buf + 4, 0, 4);
    if (mull_crc32c(buf, sizeof(buf)) != sum)
        return false;
    h->sequence = mull_le64(buf + 8);
    memcpy(h->file_guid, buf + 16, 16);
    memcpy(h->data_guid, buf + 32, 16);
    memcpy(h->log_guid, buf + 48, 16);
    h->log_length = mull_le32(buf + 68);
    h->log_offset = mull_le64(buf + 72);
    return true;
}

int vhdx_write_header(struct mull_image *image)
{
    struct vhdx *v = image->state;
    const struct vhdx_header *h = &v->header;
    uint8_t buf[4096] = {0};

    v->header.sequence++;
    memcpy(buf, "head", 4);
    mull_put_le64(buf + 8, h->sequence);
    memcpy(buf + 16, h->file_guid, 16);
    memcpy(buf + 32, h->data_guid, 16);
    memcpy(buf + 48, h->log_guid, 16);
    mull_put_le16(buf + 66, 1);
    mull_put_le32(buf + 68, h->log_length);
    mull_put_le64(buf + 72, h->log_offset);
    mull_put_le32(buf + 4, mull_crc32c(buf, sizeof(buf)));
    int ret =
        mull_file_write(image->file, buf, sizeof(buf), v->current ? VHDX_HEADER1 : VHDX_HEADER2);
    if (!ret)
        ret = mull_file_flush(image->file);
    if (!ret)
        v->current = !v->current;
    return ret;
}

/* 2.2.3: where the allocation table and the metadata are. */
static int read_regions(struct mull_image *image, struct mull_error *err)
{
    struct vhdx *v = image->state;
    uint8_t *t = malloc(65536);
    int ret = t ? 0 : mull_fail(err, ENOMEM, "%s: out of memory", image->path);

    for (int copy = 0; copy < 2 && !ret && !v->bat; copy++) {
        if (mull_file_read(image->file, t, 65536, copy ? VHDX_REGION2 : VHDX_REGION1) ||
            memcmp(t, "regi", 4))
            continue;
        uint32_t sum = mull_le32(t + 4), count = mull_le32(t + 8);
        memset(t + 4, 0, 4);
        if (mull_crc32c(t, 65536) != sum || count > ENTRIES_MAX)
            continue;
        for (uint32_t i = 0; i < count && !ret; i++) {
            const uint8_t *e = t + 16 + i * 32;
            uint64_t offset = mull_le64(e + 16), length = mull_le32(e + 24);
            if (offset < VHDX_MB || offset % VHDX_MB || !length || length % VHDX_MB ||
                offset > (uint64_t)INT64_MAX / 2)
                ret = mull_fail(err, EINVAL, "%s: VHDX region %u at %#llx", image->path, i,
                                (unsigned long long)offset);
            else if (!memcmp(e, vhdx_guid_bat, 16))
                v->bat = offset, v->bat_length = length;
            else if (!memcmp(e, vhdx_guid_metadata, 16))
                v->metadata = offset, v->metadata_length = length;
            else if (mull_le32(e + 28) & 1)
                ret =
                    mull_fail(err, ENOTSUP, "%s: needs a VHDX region we do not know", image->path);
        }
    }
    free(t);
    if (!ret && (!v->bat || !v->metadata))
        ret = mull_fail(err, EINVAL, "%s: no valid VHDX region table", image->path);
    return ret;
}

/* 2.6.2.6: key and value strings; the relative path is the one we can follow. */
static int parse_locator(struct mull_image *image, const uint8_t *p, uint32_t length,
                         struct mull_error *err)
{
    struct vhdx *v = image->state;
    char key[64], relative[1024] = "", absolute[1024] = "";

    if (length < 20 || memcmp(p, vhdx_guid_locator_type, 16))
        return mull_fail(err, ENOTSUP, "%s: its parent locator is of a kind we do not know",
                         image->path);
    uint32_t count = mull_le16(p + 18);
    for (uint32_t i = 0; i < count; i++) {
        const uint8_t *e = p + 20 + i * 12;
        if (20 + (i + 1) * 12 > length)
            return mull_fail(err, EINVAL, "%s: parent locator is cut off", image->path);
        uint64_t key_at = mull_le32(e), value_at = mull_le32(e + 4);
        uint32_t key_length = mull_le16(e + 8), value_length = mull_le16(e + 10);
        if (key_at + key_length > length || value_at + value_length > length)
            return mull_fail(err, EINVAL, "%s: parent locator is cut off", image->path);
        mull_utf16_read(p + key_at, key_length, false, key, sizeof(key));
        if (!strcmp(key, "parent_linkage"))
            mull_utf16_read(p + value_at, value_length, false, v->parent_linkage,
                            sizeof(v->parent_linkage));
        else if (!strcmp(key, "parent_linkage2"))
            mull_utf16_read(p + value_at, value_length, false, v->parent_linkage2,
                            sizeof(v->parent_linkage2));
        else if (!strcmp(key, "relative_path"))
            mull_utf16_read(p + value_at, value_length, false, relative, sizeof(relative));
        else if (!strcmp(key, "absolute_win32_path"))
            mull_utf16_read(p + value_at, value_length, false, absolute, sizeof(absolute));
    }
    /* "C:/disks/base.vhdx" of another machine: what lies beside us under that name. */
    const char *name = *relative                ? relative
                       : strrchr(absolute, '/') ? strrchr(absolute, '/') + 1
                                                : absolute;
    if (!*name)
        return mull_fail(err, EINVAL, "%s: its parent locator names no file", image->path);
    image->backing_path = strdup(name);
    image->backing_format = strdup("vhdx");
    return image->backing_path && image->backing_format
               ? 0
               : mull_fail(err, ENOMEM, "%s: out of memory", image->path);
}

static int read_item(struct mull_image *image, uint64_t at, void *buf, uint32_t length)
{
    return mull_meta_read(image->meta, at, buf, length, 0, false);
}

/* 2.6: the metadata table and its items. */
static int read_metadata(struct mull_image *image, struct mull_error *err)
{
    struct vhdx *v = image->state;
    uint8_t *t = malloc(65536), *locator = NULL;
    uint8_t item[16];
    uint32_t locator_length = 0;
    int ret = t ? read_item(image, v->metadata, t, 65536) : -ENOMEM;

    if (!ret && (memcmp(t, "metadata", 8) || mull_le16(t + 10) > ENTRIES_MAX))
        ret = -EINVAL;
    for (uint32_t i = 0; !ret && i < mull_le16(t + 10); i++) {
        const uint8_t *e = t + 32 + i * 32;
        uint64_t offset = mull_le32(e + 16), length = mull_le32(e + 20);
        uint64_t at = v->metadata + offset;
        bool locates = !memcmp(e, vhdx_guid_parent_locator, 16);
        if (!locates && offset + length <= v->metadata_length && offset + length > v->items_end)
            v->items_end = (uint32_t)(offset + length);
        if (length > VHDX_MB || offset < 65536 || offset + length > v->metadata_length) {
            ret = length ? -EINVAL : 0;
        } else if (!memcmp(e, vhdx_guid_file_parameters, 16) && length >= 8) {
            ret = read_item(image, at, item, 8);
            v->block = mull_le32(item);
            v->has_parent = mull_le32(item + 4) & 2;
        } else if (!memcmp(e, vhdx_guid_disk_size, 16) && length >= 8) {
            ret = read_item(image, at, item, 8);
            image->size = mull_le64(item);
            v->size_at = at;
        } else if (!memcmp(e, vhdx_guid_logical, 16) && length >= 4) {
            ret = read_item(image, at, item, 4);
            v->sector = mull_le32(item);
        } else if (locates) {
            free(locator);
            v->locator = (uint32_t)offset;
            v->locator_length = (uint32_t)length;
            v->locator_entry_at = v->metadata + 32 + i * UINT64_C(32);
            locator = malloc(length ? length : 1);
            locator_length = (uint32_t)length;
            ret = locator ? read_item(image, at, locator, locator_length) : -ENOMEM;
        } else if (memcmp(e, vhdx_guid_disk_id, 16) && memcmp(e, vhdx_guid_physical, 16) &&
                   mull_le32(e + 24) & 4) {
            ret = -ENOTSUP;
        }
    }
    free(t);
    if (ret)
        ret = mull_fail(err, -ret, "%s: VHDX metadata: %s", image->path, strerror(-ret));
    else if (v->has_parent && !locator)
        ret = mull_fail(err, EINVAL, "%s: has a parent but no parent locator", image->path);
    else if (v->has_parent)
        ret = parse_locator(image, locator, locator_length, err);
    free(locator);
    return ret;
}

static int check_geometry(struct mull_image *image, struct mull_error *err)
{
    struct vhdx *v = image->state;

    if (v->block < VHDX_MB || v->block > 256 * VHDX_MB || v->block & (v->block - 1))
        return mull_fail(err, EINVAL, "%s: VHDX block size is %u", image->path, v->block);
    if (v->sector != 512 && v->sector != 4096)
        return mull_fail(err, EINVAL, "%s: VHDX logical sector size is %u", image->path, v->sector);
    if (!image->size || image->size > VHDX_SIZE_MAX || image->size % v->sector)
        return mull_fail(err, EINVAL, "%s: VHDX disk size is %llu", image->path,
                         (unsigned long long)image->size);
    v->ratio = (UINT64_C(1) << 23) * v->sector / v->block;
    uint64_t blocks = (image->size + v->block - 1) / v->block;
    uint64_t chunks = (blocks + v->ratio - 1) / v->ratio;
    uint64_t entries = v->has_parent ? chunks * (v->ratio + 1) : blocks + (blocks - 1) / v->ratio;
    if (entries * 8 > v->bat_length)
        return mull_fail(err, EINVAL, "%s: VHDX allocation table is too short for the disk",
                         image->path);
    return 0;
}

static void vhdx_close(struct mull_image *image)
{
    free(image->state);
    image->state = NULL;
}

/* 2.2.2.1, "before the first change": new GUIDs, so that children and crashes are told apart. */
void vhdx_begin(struct mull_image *image, bool data)
{
    static const uint8_t any[16];
    struct vhdx *v = image->state;

    if (v->opened && (v->changed || !data))
        return;
    if (!v->opened) {
        vhdx_new_guid(v->header.file_guid);
        vhdx_new_guid(v->header.log_guid);
    }
    if (data && memcmp(v->next_guid, any, 16))
        memcpy(v->header.data_guid, v->next_guid, 16);
    else if (data)
        vhdx_new_guid(v->header.data_guid);
    if (vhdx_write_header(image)) {
        mull_log(image->log, MULL_LOG_ERROR, "%s: cannot write its header", image->path);
        image->failed = true;
    }
    v->opened = true;
    __atomic_store_n(&v->changed, v->changed || data, __ATOMIC_RELEASE);
}

void vhdx_track(struct mull_image *image, uint64_t offset, uint64_t length)
{
    struct vhdx *v = image->state;
    if (__atomic_load_n(&v->changed, __ATOMIC_ACQUIRE))
        return;
    pthread_mutex_lock(&image->lock);
    vhdx_begin(image, true);
    pthread_mutex_unlock(&image->lock);
}

static int vhdx_open(struct mull_image *image, const struct mull_image_options *o,
                     struct mull_error *err)
{
    struct vhdx *v = calloc(1, sizeof(*v));
    struct vhdx_header h[2];

    if (!v)
        return mull_fail(err, ENOMEM, "%s: out of memory", image->path);
    image->state = v;
    image->meta = mull_meta_create(image->file, VHDX_SECTOR, META_CACHE);
    if (!image->meta)
        return mull_fail(err, ENOMEM, "%s: out of memory", image->path);
    bool first = read_header(image, VHDX_HEADER1, &h[0]);
    bool second = read_header(image, VHDX_HEADER2, &h[1]);
    if (!first && !second)
        return mull_fail(err, EINVAL, "%s: no valid VHDX header", image->path);
    v->current = second && (!first || h[1].sequence > h[0].sequence);
    v->header = h[v->current];
    int ret = vhdx_log_replay(image, err);
    if (!ret)
        ret = read_regions(image, err);
    if (!ret)
        ret = read_metadata(image, err);
    if (!ret)
        ret = check_geometry(image, err);
    if (ret)
        return ret;
    uint64_t size = atomic_load(&image->file->size);
    v->end = (size + VHDX_MB - 1) & ~(VHDX_MB - 1);
    image->unit = v->sector;
    image->lock_unit = v->block;
    if (!image->readonly) {
        mull_meta_journal(image->meta, vhdx_log_most(v), vhdx_log_write, image);
        image->track = vhdx_track;
    }
    return 0;
}

static uint64_t bat_at(const struct vhdx *v, uint64_t block)
{
    return v->bat + (block + block / v->ratio) * 8;
}

static uint64_t bitmap_entry_at(const struct vhdx *v, uint64_t block)
{
    return v->bat + (block / v->ratio * (v->ratio + 1) + v->ratio) * 8;
}

static int read_entry(struct mull_image *image, uint64_t at, bool cached, uint64_t *out)
{
    struct vhdx *v = image->state;
    uint8_t buf[8];
    int ret = mull_meta_read(image->meta, at, buf, 8, v->bat + v->bat_length - at - 8, cached);
    *out = mull_le64(buf);
    return ret;
}

static int write_entry(struct mull_image *image, uint64_t at, uint64_t entry)
{
    uint8_t buf[8];
    mull_put_le64(buf, entry);
    return mull_meta_write(image->meta, at, buf, 8, 0);
}

/* Where the sector bits of a block are; *at 0: there is no bitmap. */
static int find_bitmap(struct mull_image *image, uint64_t block, bool cached, uint64_t *at)
{
    struct vhdx *v = image->state;
    uint64_t entry;
    int ret = read_entry(image, bitmap_entry_at(v, block), cached, &entry);

    *at = 0;
    if (!ret && VHDX_STATE(entry) == VHDX_FULL && VHDX_OFFSET(entry) <= INT64_MAX / 2)
        *at = VHDX_OFFSET(entry) + block % v->ratio * (v->block / v->sector / 8);
    return ret;
}

/* 2.5.1.2: which sectors of a partly present block are here. */
static int map_partial(struct mull_image *image, uint64_t offset, uint64_t length, bool cached,
                       uint64_t entry, struct mull_extent *out)
{
    struct vhdx *v = image->state;
    uint64_t in = offset % v->block, first = in / v->sector, bitmap, n = 0;
    uint64_t most = (in % v->sector + length + v->sector - 1) / v->sector;
    uint64_t left = v->block / v->sector - first;
    uint8_t bits[512] = {0};
    int ret = find_bitmap(image, offset / v->block, cached, &bitmap);

    if (ret)
        return ret;
    most = most < left ? most : left;
    uint64_t byte = first / 8, bytes = (first + most + 7) / 8 - byte;
    if (bytes > sizeof(bits)) {
        bytes = sizeof(bits);
        most = bytes * 8 - first % 8;
    }
    if (bitmap &&
        (ret = mull_meta_read(image->meta, bitmap + byte, bits, (uint32_t)bytes, 0, cached)))
        return ret;
    uint32_t shift = (uint32_t)(first % 8);
    bool here = bits[0] >> shift & 1;
    while (n < most && (bits[(shift + n) / 8] >> ((shift + n) % 8) & 1) == here)
        n++;
    out->length = n * v->sector - in % v->sector;
    if (here) {
        out->kind = MULL_EXTENT_DATA;
        out->file = image->file;
        out->offset = VHDX_OFFSET(entry) + in;
        out->writable = !image->readonly;
    } else {
        out->kind = MULL_EXTENT_HOLE;
    }
    return 0;
}

static int map_block(struct mull_image *image, uint64_t offset, uint64_t length, bool cached,
                     struct mull_extent *out)
{
    struct vhdx *v = image->state;
    uint64_t entry;
    int ret = read_entry(image, bat_at(v, offset / v->block), cached, &entry);

    if (ret)
        return ret;
    out->length = v->block - offset % v->block;
    if ((VHDX_STATE(entry) == VHDX_FULL || VHDX_STATE(entry) == VHDX_PARTIAL) &&
        (VHDX_OFFSET(entry) < VHDX_MB || VHDX_OFFSET(entry) > INT64_MAX / 2))
        return -EIO;
    switch (VHDX_STATE(entry)) {
    case VHDX_NOT_PRESENT:
        out->kind = v->has_parent ? MULL_EXTENT_HOLE : MULL_EXTENT_ZERO;
        return 0;
    case VHDX_UNDEFINED:
    case VHDX_ZERO:
    case VHDX_UNMAPPED:
        out->kind = MULL_EXTENT_ZERO;
        return 0;
    case VHDX_FULL:
        out->kind = MULL_EXTENT_DATA;
        out->file = image->file;
        out->offset = VHDX_OFFSET(entry) + offset % v->block;
        out->writable = !image->readonly;
        return 0;
    case VHDX_PARTIAL:
        if (v->has_parent)
            return map_partial(image, offset, length, cached, entry, out);
        return -EIO;
    default:
        return -EIO;
    }
}

static int vhdx_map(struct mull_image *image, uint64_t offset, uint64_t length, bool cached,
                    struct mull_extent *out)
{
    int ret = map_block(image, offset, length, cached, out);

    while (!ret && out->length < length) {
        struct mull_extent next = {0};
        if (map_block(image, offset + out->length, length - out->length, cached, &next) ||
            next.kind != out->kind ||
            (next.kind == MULL_EXTENT_DATA && next.offset != out->offset + out->length))
            break;
        out->length += next.length;
    }
    return ret;
}

/* Bytes at the end of the file, all zeroes; the file covers them from now on. */
static int extend(struct mull_image *image, uint64_t length, uint64_t *at)
{
    struct vhdx *v = image->state;
    if (image->file->fixed_size && v->end + length > atomic_load(&image->file->size))
        return -ENOSPC;
    int ret = mull_file_truncate(image->file, v->end + length);
    if (ret)
        return ret;
    *at = v->end;
    v->end += length;
    return 0;
}

enum { PLACE_BLOCK, PLACE_SECTORS_NEW, PLACE_SECTORS };

static int vhdx_place(struct mull_image *image, uint64_t offset, uint64_t length,
                      struct mull_place *p)
{
    struct vhdx *v = image->state;
    uint64_t block = offset / v->block, start = block * v->block, at, entry;
    int ret = read_entry(image, bat_at(v, block), false, &entry);

    if (ret)
        return ret;
    uint32_t state = VHDX_STATE(entry);
    p->file = image->file;
    if (state == VHDX_PARTIAL) {
        at = VHDX_OFFSET(entry);
        p->cookie[0] = PLACE_SECTORS;
    } else {
        ret = extend(image, v->block, &at);
        if (ret)
            return ret;
        p->fresh = !image->file->fixed_size;
        p->cookie[0] = state == VHDX_NOT_PRESENT && v->has_parent ? PLACE_SECTORS_NEW : PLACE_BLOCK;
    }
    p->cookie[1] = at;
    p->start = start;
    p->offset = at;
    p->length = v->block;
    if (p->cookie[0] != PLACE_BLOCK) {
        /* Only the sectors that are written; the bitmap says which. */
        uint64_t end = offset + length < start + v->block ? offset + length : start + v->block;
        p->start = offset - offset % v->sector;
        end = (end + v->sector - 1) / v->sector * v->sector;
        p->offset = at + (p->start - start);
        p->length = end - p->start;
    }
    if (p->length > image->size - p->start)
        p->length = image->size - p->start;
    return 0;
}

static int set_bits(struct mull_image *image, uint64_t start, uint64_t length)
{
    struct vhdx *v = image->state;
    uint64_t block = start / v->block, bitmap;
    uint64_t first = start % v->block / v->sector, end = first + length / v->sector;
    int ret = find_bitmap(image, block, false, &bitmap);

    if (!ret && !bitmap) {
        uint64_t at;
        ret = extend(image, VHDX_MB, &at);
        if (!ret)
            ret = write_entry(image, bitmap_entry_at(v, block), at | VHDX_FULL);
        if (!ret)
            ret = find_bitmap(image, block, false, &bitmap);
    }
    for (uint64_t byte = first / 8; !ret && byte <= (end - 1) / 8; byte++) {
        uint8_t bits;
        ret = mull_meta_read(image->meta, bitmap + byte, &bits, 1, 0, false);
        for (uint64_t bit = byte * 8; bit < byte * 8 + 8; bit++)
            if (bit >= first && bit < end)
                bits |= (uint8_t)(1u << (bit % 8));
        if (!ret)
            ret = mull_meta_write(image->meta, bitmap + byte, &bits, 1, 0);
    }
    return ret;
}

static int vhdx_link(struct mull_image *image, const struct mull_place *p)
{
    struct vhdx *v = image->state;
    uint64_t block = p->start / v->block;
    int ret = 0;

    if (p->cookie[0] != PLACE_BLOCK)
        ret = set_bits(image, p->start, (p->length + v->sector - 1) / v->sector * v->sector);
    if (!ret && p->cookie[0] != PLACE_SECTORS)
        ret = write_entry(image, bat_at(v, block),
                          p->cookie[1] | (p->cookie[0] == PLACE_BLOCK ? VHDX_FULL : VHDX_PARTIAL));
    if (!ret && mull_meta_dirty(image->meta) > DIRTY_MAX)
        ret = mull_meta_commit(image->meta, false);
    return ret;
}

static void vhdx_unplace(struct mull_image *image, const struct mull_place *p)
{
    /* The file is longer by a block that nobody uses; it is given back to the host. */
    if (p->cookie[0] != PLACE_SECTORS)
        mull_file_discard(image->file, p->offset, p->length);
}

static int zero_range(struct mull_image *image, uint64_t offset, uint64_t length, bool unmap)
{
    struct vhdx *v = image->state;
    while (length) {
        struct mull_extent x = {0};
        int ret = map_block(image, offset, length, false, &x);
        uint64_t n = x.length < length ? x.length : length;
        if (!ret && x.kind == MULL_EXTENT_DATA) {
            ret = mull_file_zero(image->file, x.offset, n, unmap);
        } else if (!ret && x.kind == MULL_EXTENT_HOLE) {
            uint64_t entry, at = bat_at(v, offset / v->block);
            bool whole = offset % v->block == 0 && (n == v->block || offset + n == image->size);
            ret = read_entry(image, at, false, &entry);
            if (!ret && (!whole || VHDX_STATE(entry) != VHDX_NOT_PRESENT))
                return -EOPNOTSUPP;
            if (!ret)
                ret = write_entry(image, at, VHDX_ZERO);
        }
        if (ret)
            return ret;
        offset += n;
        length -= n;
    }
    return 0;
}

static int vhdx_zero(struct mull_image *image, uint64_t offset, uint64_t length, bool may_unmap)
{
    return zero_range(image, offset, length, may_unmap);
}

static int vhdx_discard(struct mull_image *image, uint64_t offset, uint64_t length)
{
    return zero_range(image, offset, length, true);
}

static int vhdx_flush(struct mull_image *image)
{
    return mull_meta_commit(image->meta, true);
}

static int vhdx_close_clean(struct mull_image *image)
{
    struct vhdx *v = image->state;
    if (!v->opened)
        return 0;
    /* All is in its place: there is nothing to replay any more. */
    int ret = mull_file_flush(image->file);
    memset(v->header.log_guid, 0, 16);
    return ret ? ret : vhdx_write_header(image);
}

static int vhdx_may_resize(struct mull_image *image, uint64_t size, struct mull_error *err)
{
    struct vhdx *v = image->state;
    uint64_t old = image->size;

    if (v->has_parent)
        return mull_fail(err, ENOTSUP, "%s: a differencing image keeps its parent's size",
                         image->path);
    image->size = size;
    int ret = check_geometry(image, err);
    image->size = old;
    return ret;
}

static int vhdx_resize(struct mull_image *image, uint64_t size, bool preallocate,
                       struct mull_error *err)
{
    struct vhdx *v = image->state;
    uint64_t old = image->size;
    uint8_t buf[8];

    image->size = size;
    int ret = check_geometry(image, err);
    if (ret) {
        image->size = old;
        return ret;
    }
    mull_put_le64(buf, size);
    vhdx_begin(image, true);
    ret = mull_meta_write(image->meta, v->size_at, buf, 8, 0);
    if (!ret)
        ret = mull_meta_commit(image->meta, true);
    return ret ? mull_fail(err, -ret, "%s: cannot write the size", image->path) : 0;
}

static int vhdx_check_parent(struct mull_image *image, struct mull_image *parent,
                             struct mull_error *err)
{
    struct vhdx *v = image->state, *p = parent->state;
    char linkage[64];

    if (parent->format != image->format)
        return mull_fail(err, EINVAL, "%s: its parent %s is no VHDX", image->path, parent->path);
    vhdx_guid_text(p->header.data_guid, linkage, sizeof(linkage));
    /* 2.6.2.6.3: one of the two. */
    if (strcasecmp(linkage, v->parent_linkage) && strcasecmp(linkage, v->parent_linkage2))
        return mull_fail(err, EUCLEAN,
                         "%s: its parent %s has changed since (%s, not %s); use the "
                         "right file",
                         image->path, parent->path, linkage, v->parent_linkage);
    return 0;
}

/* A block that has a place; only these take memory, for a table may be mostly holes. */
struct placed {
    uint64_t first, last; /* MB */
    uint64_t entry;
};

static int by_first(const void *a, const void *b)
{
    const struct placed *x = a, *y = b;
    return x->first < y->first ? -1 : x->first > y->first;
}

static int list_placed(struct mull_image *image, struct mull_check *check, struct placed **list,
                       uint64_t *count)
{
    struct vhdx *v = image->state;
    uint64_t blocks = (image->size + v->block - 1) / v->block, room = 0;
    uint64_t size = atomic_load(&image->file->size);

    for (uint64_t i = 0; i < blocks + blocks / v->ratio + 1; i++) {
        bool bitmap = i % (v->ratio + 1) == v->ratio;
        uint64_t entry, length = bitmap ? VHDX_MB : v->block;
        if (i * 8 + 8 > v->bat_length)
            break;
        int ret = read_entry(image, v->bat + i * 8, false, &entry);
        if (ret)
            return ret;
        if (VHDX_STATE(entry) != VHDX_FULL && VHDX_STATE(entry) != VHDX_PARTIAL)
            continue;
        check->allocated += !bitmap;
        uint64_t first = VHDX_OFFSET(entry) / VHDX_MB, last = first + length / VHDX_MB;
        if (!first || last * VHDX_MB > size) {
            check->corruptions++;
            if (check->out)
                fprintf(check->out, "ERROR: block %llu lies outside of the file\n",
                        (unsigned long long)i);
            continue;
        }
        if (*count == room) {
            room = room ? 2 * room : 256;
            struct placed *grown = realloc(*list, room * sizeof(*grown));
            if (!grown)
                return -ENOMEM;
            *list = grown;
        }
        (*list)[(*count)++] = (struct placed){first, last, i};
    }
    return 0;
}

static int vhdx_check(struct mull_image *image, struct mull_check *check, struct mull_error *err)
{
    struct vhdx *v = image->state;
    struct placed *list = NULL;
    uint64_t count = 0, end = 0;

    check->total = (image->size + v->block - 1) / v->block;
    int ret = list_placed(image, check, &list, &count);
    if (!ret && count)
        qsort(list, count, sizeof(*list), by_first);
    for (uint64_t i = 0; i < count && !ret; i++) {
        if (list[i].first < end) {
            check->corruptions++;
            if (check->out)
                fprintf(check->out, "ERROR: block %llu shares space with another\n",
                        (unsigned long long)list[i].entry);
        }
        end = list[i].last > end ? list[i].last : end;
    }
    free(list);
    return ret ? mull_fail(err, -ret, "%s: check failed: %s", image->path, strerror(-ret)) : 0;
}

static uint64_t vhdx_generation(struct mull_image *image)
{
    return mull_le64(((struct vhdx *)image->state)->header.data_guid);
}

static void vhdx_info(struct mull_image *image, struct mull_image_info *info)
{
    struct vhdx *v = image->state;
    info->unit = v->block;
    mull_info_add(info, "logical sector size", "%u", v->sector);
    if (v->has_parent)
        mull_info_add(info, "parent linkage", "%s", v->parent_linkage);
}

const struct mull_format mull_format_vhdx = {
    .name = "vhdx",
    .probe = vhdx_probe,
    .open = vhdx_open,
    .close = vhdx_close,
    .close_clean = vhdx_close_clean,
    .map = vhdx_map,
    .place = vhdx_place,
    .link = vhdx_link,
    .unplace = vhdx_unplace,
    .zero = vhdx_zero,
    .discard = vhdx_discard,
    .flush = vhdx_flush,
    .create = vhdx_create,
    .may_resize = vhdx_may_resize,
    .resize = vhdx_resize,
    .check = vhdx_check,
    .check_parent = vhdx_check_parent,
    .info = vhdx_info,
    .expect_parent = vhdx_expect_parent,
    .rebase = vhdx_rebase,
    .generation = vhdx_generation,
};
