/*
 * Parallels disk images (.hds), read only. Layout: "Parallels Expandable Image File Format"
 * (QEMU's docs/interop/parallels.txt).
 */
#include "image/formats.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BAT_AT 64u
#define BAT_MAX (UINT64_C(1) << 30)
#define META_CACHE (16u << 20)

struct parallels {
    uint64_t cluster; /* bytes */
    uint32_t entries;
    uint64_t multiple; /* bytes that an entry counts */
};

static int parallels_probe(const uint8_t *head, size_t len, const uint8_t *tail, const char *path)
{
    return len >= 64 && mull_le32(head + 16) == 2 &&
                   (!memcmp(head, "WithoutFreeSpace", 16) || !memcmp(head, "WithouFreSpacExt", 16))
               ? 100
               : 0;
}

static int parallels_open(struct mull_image *image, const struct mull_image_options *o,
                          struct mull_error *err)
{
    struct parallels *p = calloc(1, sizeof(*p));
    uint8_t h[64];

    if (!p)
        return mull_fail(err, ENOMEM, "%s: out of memory", image->path);
    image->state = p;
    if (!image->readonly)
        return mull_fail(err, EROFS, "%s: Parallels images are only read; convert it", image->path);
    int ret = mull_file_read(image->file, h, sizeof(h), 0);
    if (ret || !parallels_probe(h, sizeof(h), NULL, NULL))
        return mull_fail(err, ret ? -ret : EINVAL, "%s: is not a Parallels image", image->path);
    bool extended = !memcmp(h, "WithouFreSpacExt", 16);
    uint32_t tracks = mull_le32(h + 28);
    uint64_t sectors = mull_le64(h + 36);
    if (!extended)
        sectors &= UINT32_MAX; /* the old magic: the upper half is not used */
    p->entries = mull_le32(h + 32);
    p->cluster = (uint64_t)tracks * 512;
    p->multiple = extended ? p->cluster : 512;
    if (!tracks || tracks > 131072)
        return mull_fail(err, EINVAL, "%s: Parallels header: %u sectors in a cluster", image->path,
                         tracks);
    if (sectors > MULL_IMAGE_SIZE_MAX / 512 || (uint64_t)p->entries * p->cluster < sectors * 512 ||
        p->entries * UINT64_C(4) > BAT_MAX)
        return mull_fail(err, EINVAL, "%s: Parallels header: %llu sectors, %u clusters",
                         image->path, (unsigned long long)sectors, p->entries);
    if (BAT_AT + p->entries * UINT64_C(4) > atomic_load(&image->file->size))
        return mull_fail(err, EINVAL,
                         "%s: Parallels header: table of %u clusters reaches behind the file",
                         image->path, p->entries);
    image->size = sectors * 512;
    image->meta = mull_meta_create(image->file, 512, META_CACHE);
    return image->meta ? 0 : mull_fail(err, ENOMEM, "%s: out of memory", image->path);
}

static void parallels_close(struct mull_image *image)
{
    free(image->state);
    image->state = NULL;
}

static int map_cluster(struct mull_image *image, uint64_t offset, bool cached,
                       struct mull_extent *out)
{
    struct parallels *p = image->state;
    uint64_t index = offset / p->cluster;
    uint8_t buf[4];
    int ret = mull_meta_read(image->meta, BAT_AT + index * 4, buf, 4, (p->entries - index - 1) * 4,
                             cached);
    uint32_t entry = mull_le32(buf);

    out->length = p->cluster - offset % p->cluster;
    out->kind = MULL_EXTENT_ZERO;
    if (ret || !entry)
        return ret;
    out->kind = MULL_EXTENT_DATA;
    out->file = image->file;
    out->offset = entry * p->multiple + offset % p->cluster;
    return 0;
}

static int parallels_map(struct mull_image *image, uint64_t offset, uint64_t length, bool cached,
                         struct mull_extent *out)
{
    int ret = map_cluster(image, offset, cached, out);
    while (!ret && out->length < length) {
        struct mull_extent next = {0};
        if (map_cluster(image, offset + out->length, cached, &next) || next.kind != out->kind ||
            (next.kind == MULL_EXTENT_DATA && next.offset != out->offset + out->length))
            break;
        out->length += next.length;
    }
    return ret;
}

static void parallels_info(struct mull_image *image, struct mull_image_info *info)
{
    struct parallels *p = image->state;
    info->unit = (uint32_t)p->cluster;
}

const struct mull_format mull_format_parallels = {
    .name = "parallels",
    .probe = parallels_probe,
    .open = parallels_open,
    .close = parallels_close,
    .map = parallels_map,
    .info = parallels_info,
};
