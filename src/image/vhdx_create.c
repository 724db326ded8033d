/* Making VHDX images: dynamic, fixed and differencing. Spec: [MS-VHDX]. */
#include "image/vhdx.h"

#include "image/utf16.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define LOG_AT VHDX_MB
#define METADATA_AT (2 * VHDX_MB)
#define BAT_AT (3 * VHDX_MB)
#define BLOCK_DEFAULT (32u << 20)

struct plan {
    uint32_t block, sector;
    uint64_t blocks, ratio, entries, bat_length, end;
    bool fixed;
    uint8_t parent_guid[16];
    uint32_t parent_block;
};

static int read_parent(const struct mull_create_options *o, struct plan *p, struct mull_error *err)
{
    struct mull_image *parent;
    int ret = mull_image_open_parent(o, &mull_format_vhdx, &parent, err);
    if (ret)
        return ret;
    struct vhdx *v = parent->state;
    memcpy(p->parent_guid, v->header.data_guid, 16);
    p->parent_block = v->block;
    p->sector = v->sector;
    if (parent->size != o->size)
        ret = mull_fail(err, EINVAL, "%s: a differencing VHDX is as large as its parent", o->path);
    mull_image_close(parent);
    return ret;
}

static int make_plan(const struct mull_create_options *o, struct plan *p, struct mull_error *err)
{
    p->sector = 512;
    if (o->subformat && strcmp(o->subformat, "dynamic") && strcmp(o->subformat, "fixed"))
        return mull_fail(err, EINVAL, "%s: VHDX subformat '%s' is not dynamic or fixed", o->path,
                         o->subformat);
    p->fixed = o->subformat && !strcmp(o->subformat, "fixed");
    if (p->fixed && o->backing)
        return mull_fail(err, EINVAL, "%s: a fixed VHDX has no parent", o->path);
    if (o->backing) {
        int ret = read_parent(o, p, err);
        if (ret)
            return ret;
    }
    p->block = o->unit ? o->unit : p->parent_block ? p->parent_block : BLOCK_DEFAULT;
    if (p->block < VHDX_MB || p->block > 256 * VHDX_MB || p->block & (p->block - 1))
        return mull_fail(err, EINVAL,
                         "%s: VHDX block size %u is not a power of two from 1M to 256M", o->path,
                         p->block);
    if (!o->size || o->size > VHDX_SIZE_MAX || o->size % p->sector)
        return mull_fail(err, EINVAL, "%s: VHDX disk size %llu", o->path,
                         (unsigned long long)o->size);
    p->ratio = (UINT64_C(1) << 23) * p->sector / p->block;
    p->blocks = (o->size + p->block - 1) / p->block;
    /* With a parent there is an entry for the last chunk's bitmap too (2.5). */
    p->entries = o->backing ? (p->blocks + p->ratio - 1) / p->ratio * (p->ratio + 1)
                            : p->blocks + (p->blocks - 1) / p->ratio;
    p->bat_length = (p->entries * 8 + VHDX_MB - 1) & ~(VHDX_MB - 1);
    p->end = BAT_AT + p->bat_length + (p->fixed ? p->blocks * p->block : 0);
    return 0;
}

static void put_region(uint8_t *e, const uint8_t *guid, uint64_t offset, uint64_t length)
{
    memcpy(e, guid, 16);
    mull_put_le64(e + 16, offset);
    mull_put_le32(e + 24, (uint32_t)length);
    mull_put_le32(e + 28, 1);
}

static int write_regions(struct mull_file *file, const struct plan *p)
{
    uint8_t *t = calloc(1, 65536);
    if (!t)
        return -ENOMEM;
    memcpy(t, "regi", 4);
    mull_put_le32(t + 8, 2);
    put_region(t + 16, vhdx_guid_bat, BAT_AT, p->bat_length);
    put_region(t + 48, vhdx_guid_metadata, METADATA_AT, VHDX_MB);
    mull_put_le32(t + 4, mull_crc32c(t, 65536));
    int ret = mull_file_write(file, t, 65536, VHDX_REGION1);
    if (!ret)
        ret = mull_file_write(file, t, 65536, VHDX_REGION2);
    free(t);
    return ret;
}

#define LOCATOR_MAX 4096u

/* 2.6.2.6: the linkage (@guid2: or that one; NULL: none) and where the parent lies. @return its
 * length. */
static uint32_t put_locator(uint8_t *out, const char *backing, const uint8_t *guid,
                            const uint8_t *guid2)
{
    char linkage[64], linkage2[64];
    const char *pairs[3][2] = {
        {"parent_linkage", linkage}, {"relative_path", backing}, {"parent_linkage2", linkage2}};
    uint32_t count = guid2 ? 3 : 2, at = 20 + count * 12;

    vhdx_guid_text(guid, linkage, sizeof(linkage));
    if (guid2)
        vhdx_guid_text(guid2, linkage2, sizeof(linkage2));
    memcpy(out, vhdx_guid_locator_type, 16);
    mull_put_le16(out + 18, (uint16_t)count);
    for (uint32_t i = 0; i < count; i++) {
        uint8_t *e = out + 20 + i * 12;
        uint32_t key = mull_utf16_write(out + at, LOCATOR_MAX - at, pairs[i][0], false);
        mull_put_le32(e, at);
        mull_put_le16(e + 8, (uint16_t)key);
        at += key;
        uint32_t value = mull_utf16_write(out + at, LOCATOR_MAX - at, pairs[i][1], false);
        mull_put_le32(e + 4, at);
        mull_put_le16(e + 10, (uint16_t)value);
        at += value;
    }
    return at;
}

static void put_item(uint8_t *table, int index, const uint8_t *guid, uint32_t offset,
                     uint32_t length, uint32_t flags)
{
    uint8_t *e = table + 32 + index * 32;
    memcpy(e, guid, 16);
    mull_put_le32(e + 16, offset);
    mull_put_le32(e + 20, length);
    mull_put_le32(e + 24, flags);
    mull_put_le16(table + 10, (uint16_t)(index + 1));
}

static int write_metadata(struct mull_file *file, const struct mull_create_options *o,
                          const struct plan *p)
{
    uint8_t *t = calloc(1, 131072), *items = t + 65536;
    if (!t)
        return -ENOMEM;
    memcpy(t, "metadata", 8);
    mull_put_le32(items, p->block);
    mull_put_le32(items + 4, (p->fixed ? 1 : 0) | (o->backing ? 2 : 0));
    mull_put_le64(items + 8, o->size);
    vhdx_new_guid(items + 16);
    mull_put_le32(items + 32, p->sector);
    mull_put_le32(items + 36, 4096);
    put_item(t, 0, vhdx_guid_file_parameters, 65536, 8, 4);
    put_item(t, 1, vhdx_guid_disk_size, 65536 + 8, 8, 6);
    put_item(t, 2, vhdx_guid_disk_id, 65536 + 16, 16, 6);
    put_item(t, 3, vhdx_guid_logical, 65536 + 32, 4, 6);
    put_item(t, 4, vhdx_guid_physical, 65536 + 36, 4, 6);
    if (o->backing)
        put_item(t, 5, vhdx_guid_parent_locator, 65536 + 4096,
                 put_locator(items + 4096, o->backing, p->parent_guid, NULL), 4);
    int ret = mull_file_write(file, t, 131072, METADATA_AT);
    free(t);
    return ret;
}

static int write_bat(struct mull_file *file, const struct plan *p)
{
    uint64_t bytes = (p->entries * 8 + 4095) & ~UINT64_C(4095);
    uint8_t *bat = p->fixed ? calloc(1, bytes) : NULL;
    if (!p->fixed)
        return 0;
    if (!bat)
        return -ENOMEM;
    for (uint64_t i = 0; i < p->blocks; i++)
        mull_put_le64(bat + (i + i / p->ratio) * 8,
                      (BAT_AT + p->bat_length + i * p->block) | VHDX_FULL);
    int ret = mull_file_write(file, bat, bytes, BAT_AT);
    free(bat);
    return ret;
}

static int write_headers(struct mull_file *file)
{
    uint8_t id[512 + 8] = "vhdxfile", head[4096] = {0};
    mull_utf16_write(id + 8, 512, "Mullion", false);
    memcpy(head, "head", 4);
    vhdx_new_guid(head + 16);
    vhdx_new_guid(head + 32);
    mull_put_le16(head + 66, 1);
    mull_put_le32(head + 68, VHDX_MB);
    mull_put_le64(head + 72, LOG_AT);
    int ret = 0;
    for (uint64_t i = 0; i < 2 && !ret; i++) {
        mull_put_le64(head + 8, i + 1);
        mull_put_le32(head + 4, 0);
        mull_put_le32(head + 4, mull_crc32c(head, sizeof(head)));
        ret = mull_file_write(file, head, sizeof(head), i ? VHDX_HEADER2 : VHDX_HEADER1);
    }
    return ret ? ret : mull_file_write(file, id, sizeof(id), 0);
}

int vhdx_create(const struct mull_create_options *o, struct mull_error *err)
{
    struct plan p = {0};
    struct mull_file *file;
    struct mull_file_options fo = {
        .path = o->path, .create = true, .unsafe = o->unsafe, .observer = o->observer};
    int ret = make_plan(o, &p, err);

    if (!ret && o->backing && strlen(o->backing) > 1000)
        ret = mull_fail(err, ENAMETOOLONG, "%s: parent's name is too long", o->path);
    if (!ret)
        ret = mull_file_open(&fo, &file, err);
    if (ret)
        return ret;
    ret = mull_file_truncate(file, p.end);
    if (!ret)
        ret = write_regions(file, &p);
    if (!ret)
        ret = write_metadata(file, o, &p);
    if (!ret)
        ret = write_bat(file, &p);
    if (!ret)
        ret = mull_file_flush(file);
    if (!ret)
        ret = write_headers(file);
    if (!ret)
        ret = mull_file_flush(file);
    mull_file_close(file);
    return ret ? mull_fail(err, -ret, "%s: cannot write: %s", o->path, strerror(-ret)) : 0;
}

/* Put another locator beside the one there is, and name it in the table: one entry of the log. */
static int write_locator(struct mull_image *image, const char *path, const uint8_t *guid,
                         const uint8_t *guid2, bool data, struct mull_error *err)
{
    struct vhdx *v = image->state;
    uint8_t locator[LOCATOR_MAX] = {0}, entry[8];
    uint32_t at = (v->items_end + 7) & ~7u;

    if (strlen(path) > 1000)
        return mull_fail(err, ENAMETOOLONG, "%s: parent's name is too long", image->path);
    uint32_t length = put_locator(locator, path, guid, guid2);
    if (at < v->locator + v->locator_length && v->locator < at + length)
        at = (v->locator + v->locator_length + 7) & ~7u;
    if (at + length > v->metadata_length)
        return mull_fail(err, ENOSPC, "%s: no room for another parent locator", image->path);
    vhdx_begin(image, data);
    mull_put_le32(entry, at);
    mull_put_le32(entry + 4, length);
    int ret = mull_meta_commit(image->meta, true);
    if (!ret)
        ret = mull_meta_write(image->meta, v->metadata + at, locator, length, 0);
    if (!ret)
        ret = mull_meta_write(image->meta, v->locator_entry_at + 16, entry, sizeof(entry), 0);
    if (!ret)
        ret = mull_meta_commit(image->meta, true);
    if (ret)
        return mull_fail(err, -ret, "%s: cannot write its parent locator: %s", image->path,
                         strerror(-ret));
    v->locator = at;
    v->locator_length = length;
    vhdx_guid_text(guid, v->parent_linkage, sizeof(v->parent_linkage));
    *v->parent_linkage2 = 0;
    if (guid2)
        vhdx_guid_text(guid2, v->parent_linkage2, sizeof(v->parent_linkage2));
    return 0;
}

int vhdx_expect_parent(struct mull_image *image, struct mull_image *parent, bool done,
                       struct mull_error *err)
{
    struct vhdx *p = parent->state;

    if (!done)
        vhdx_new_guid(p->next_guid);
    return write_locator(image, image->backing_path, p->header.data_guid,
                         done ? NULL : p->next_guid, false, err);
}

int vhdx_rebase(struct mull_image *image, const char *path, const char *format,
                struct mull_error *err)
{
    struct vhdx *v = image->state;
    struct plan p = {0};

    if (!v->has_parent || !path)
        return mull_fail(err, ENOTSUP, "%s: %s; convert it instead", image->path,
                         path ? "has no parent to put another one in place of"
                              : "blocks of a differencing image are not whole without a parent");
    struct mull_create_options o = {
        .path = image->path, .size = image->size, .backing = path, .backing_format = format};
    int ret = read_parent(&o, &p, err);
    if (ret)
        return ret;
    if (p.sector != v->sector)
        return mull_fail(err, EINVAL, "%s: %s has another sector size", image->path, path);
    /* That it reads as before, or that all of it is taken for changed, is the caller's. */
    ret = write_locator(image, path, p.parent_guid, NULL, true, err);
    if (ret)
        return ret;
    char *name = strdup(path);
    if (name) {
        free(image->backing_path);
        image->backing_path = name;
    }
    return 0;
}
