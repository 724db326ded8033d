/* Making VHD images. Spec: see vhd.h. */
#include "image/vhd.h"

#include "image/utf16.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#define EPOCH 946684800 /* of VHD time stamps: 2000-01-01 */

/* Spec, appendix "CHS Calculation". */
void vhd_put_geometry(uint8_t *out, uint64_t sectors)
{
    uint64_t heads, track, cylinder_heads;

    if (sectors > UINT64_C(65535) * 16 * 255)
        sectors = UINT64_C(65535) * 16 * 255;
    if (sectors >= UINT64_C(65535) * 16 * 63) {
        track = 255;
        heads = 16;
        cylinder_heads = sectors / track;
    } else {
        track = 17;
        cylinder_heads = sectors / track;
        heads = (cylinder_heads + 1023) / 1024;
        if (heads < 4)
            heads = 4;
        if (cylinder_heads >= heads * 1024 || heads > 16) {
            track = 31;
            heads = 16;
            cylinder_heads = sectors / track;
        }
        if (cylinder_heads >= heads * 1024) {
            track = 63;
            heads = 16;
            cylinder_heads = sectors / track;
        }
    }
    mull_put_be16(out, (uint16_t)(cylinder_heads / heads));
    out[2] = (uint8_t)heads;
    out[3] = (uint8_t)track;
}

static void make_footer(uint8_t *f, uint64_t size, uint32_t type)
{
    memset(f, 0, 512);
    memcpy(f, "conectix", 8);
    mull_put_be32(f + 8, 2);
    mull_put_be32(f + 12, 0x00010000);
    mull_put_be64(f + 16, type == VHD_FIXED ? UINT64_MAX : 512);
    mull_put_be32(f + 24, (uint32_t)(time(NULL) - EPOCH));
    /* Readers tell by the creator whether the size or the geometry counts; "win " says the size. */
    memcpy(f + 28, "win ", 4);
    mull_put_be32(f + 32, 0x000a0000);
    memcpy(f + 36, "Wi2k", 4);
    mull_put_be64(f + 40, size);
    mull_put_be64(f + 48, size);
    vhd_put_geometry(f + 56, size / VHD_SECTOR);
    mull_put_be32(f + 60, type);
    (void)!getrandom(f + 68, 16, 0);
    mull_put_be32(f + 64, vhd_checksum(f, 512, 64));
}

/* The parent's ID and name; the relative locator's data goes to @locator_at. */
static int put_parent(const struct mull_create_options *o, uint8_t *head, uint8_t *locator,
                      uint64_t locator_at, struct mull_error *err)
{
    struct mull_image *parent;
    int ret = mull_image_open_parent(o, &mull_format_vhd, &parent, err);
    if (ret)
        return ret;
    if (parent->size != o->size)
        ret = mull_fail(err, EINVAL, "%s: a differencing VHD is as large as its parent", o->path);
    else
        memcpy(head + 40, ((struct vhd *)parent->state)->footer + 68, 16);
    mull_image_close(parent);
    const char *slash = strrchr(o->backing, '/');
    mull_put_be32(head + 56, (uint32_t)(time(NULL) - EPOCH));
    mull_utf16_write(head + 64, 510, slash ? slash + 1 : o->backing, true);
    uint32_t length = mull_utf16_write(locator, 510, o->backing, false);
    uint8_t *e = head + 576;
    mull_put_be32(e, 0x57327275); /* W2ru */
    mull_put_be32(e + 4, 512);
    mull_put_be32(e + 8, length);
    mull_put_be64(e + 16, locator_at);
    return ret;
}

static int write_dynamic(struct mull_file *file, const uint8_t *footer, const uint8_t *head,
                         const uint8_t *locator, uint64_t bat, uint64_t bat_length)
{
    uint8_t *table = malloc(bat_length);
    if (!table)
        return -ENOMEM;
    memset(table, 0xff, bat_length);
    int ret = mull_file_write(file, table, bat_length, bat);
    free(table);
    if (!ret)
        ret = mull_file_write(file, locator, 512, bat + bat_length);
    if (!ret)
        ret = mull_file_write(file, head, 1024, 512);
    if (!ret)
        ret = mull_file_write(file, footer, 512, bat + bat_length + 512);
    if (!ret)
        ret = mull_file_flush(file);
    return ret ? ret : mull_file_write(file, footer, 512, 0);
}

int vhd_create(const struct mull_create_options *o, struct mull_error *err)
{
    uint32_t block = o->unit ? o->unit : VHD_BLOCK_DEFAULT;
    uint8_t footer[512], head[1024] = {0}, locator[512] = {0};
    struct mull_file *file;
    bool fixed = o->subformat && !strcmp(o->subformat, "fixed");

    if (o->subformat && !fixed && strcmp(o->subformat, "dynamic"))
        return mull_fail(err, EINVAL, "%s: VHD subformat '%s' is not dynamic or fixed", o->path,
                         o->subformat);
    if (!o->size || o->size % 512 || (!fixed && o->size > VHD_SIZE_MAX))
        return mull_fail(err, EFBIG, "%s: a VHD holds up to 2040 GiB in sectors of 512 bytes",
                         o->path);
    if (block < 4096 || block > 256u << 20 || block & (block - 1))
        return mull_fail(err, EINVAL, "%s: VHD block size %u", o->path, block);
    if (fixed && o->backing)
        return mull_fail(err, EINVAL, "%s: a fixed VHD has no parent", o->path);
    if (o->backing && strlen(o->backing) > 250)
        return mull_fail(err, ENAMETOOLONG, "%s: parent's name is too long", o->path);
    uint64_t entries = (o->size + block - 1) / block;
    uint64_t bat = 1536, bat_length = (entries * 4 + 511) & ~UINT64_C(511);
    make_footer(footer, o->size, fixed ? VHD_FIXED : o->backing ? VHD_DIFFERENCING : VHD_DYNAMIC);
    memcpy(head, "cxsparse", 8);
    mull_put_be64(head + 8, UINT64_MAX);
    mull_put_be64(head + 16, bat);
    mull_put_be32(head + 24, 0x00010000);
    mull_put_be32(head + 28, (uint32_t)entries);
    mull_put_be32(head + 32, block);
    int ret = o->backing ? put_parent(o, head, locator, bat + bat_length, err) : 0;
    if (ret)
        return ret;
    mull_put_be32(head + 36, vhd_checksum(head, 1024, 36));
    struct mull_file_options fo = {
        .path = o->path, .create = true, .unsafe = o->unsafe, .observer = o->observer};
    ret = mull_file_open(&fo, &file, err);
    if (ret)
        return ret;
    ret = fixed ? mull_file_write(file, footer, 512, o->size)
                : write_dynamic(file, footer, head, locator, bat, bat_length);
    if (!ret)
        ret = mull_file_flush(file);
    mull_file_close(file);
    return ret ? mull_fail(err, -ret, "%s: cannot write: %s", o->path, strerror(-ret)) : 0;
}
