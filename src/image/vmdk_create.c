/* Making VMDK images in all the subformats that we write. Spec: see vmdk.h. */
#include "image/vmdk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#define GRAIN_SECTORS 128u
#define GT_ENTRIES 512u
#define DESCRIPTOR_SECTORS 20u
#define STREAM_OVERHEAD 128u
#define COWD_GT_ENTRIES 4096u

enum layout { MONOLITHIC, SPLIT, STREAM, ESX };

static const struct {
    const char *name;
    enum layout layout;
    enum vmdk_kind kind;
} subformats[] = {
    {"monolithicSparse", MONOLITHIC, VMDK_SPARSE},
    {"monolithicFlat", MONOLITHIC, VMDK_FLAT},
    {"twoGbMaxExtentSparse", SPLIT, VMDK_SPARSE},
    {"twoGbMaxExtentFlat", SPLIT, VMDK_FLAT},
    {"streamOptimized", STREAM, VMDK_SPARSE},
    {"vmfs", ESX, VMDK_FLAT},
    {"vmfsSparse", ESX, VMDK_COWD},
};

void vmdk_put_header(uint8_t *head, uint32_t version, uint32_t flags, uint64_t capacity,
                     uint64_t grain, uint64_t descriptor_size, uint64_t rgd, uint64_t gd,
                     uint64_t overhead)
{
    memcpy(head, "KDMV", 4);
    mull_put_le32(head + 4, version);
    mull_put_le32(head + 8, flags);
    mull_put_le64(head + 12, capacity);
    mull_put_le64(head + 20, grain);
    mull_put_le64(head + 28, descriptor_size ? 1 : 0);
    mull_put_le64(head + 36, descriptor_size);
    mull_put_le32(head + 44, GT_ENTRIES);
    mull_put_le64(head + 48, rgd);
    mull_put_le64(head + 56, gd);
    mull_put_le64(head + 64, overhead);
    memcpy(head + 73, "\n \r\n", 4);
    mull_put_le16(head + 77, flags & VMDK_FLAG_COMPRESSED ? 1 : 0);
}

static int new_file(const struct mull_create_options *o, const char *path, struct mull_file **out,
                    struct mull_error *err)
{
    struct mull_file_options fo = {
        .path = path, .create = true, .unsafe = o->unsafe, .observer = o->observer};
    return mull_file_open(&fo, out, err);
}

/* A grain directory with all its tables behind it; sectors. */
static int write_gd(struct mull_file *file, uint64_t gd, uint64_t entries, uint64_t first_gt)
{
    uint8_t *table = calloc(entries, 4);
    if (!table)
        return -ENOMEM;
    for (uint64_t i = 0; i < entries; i++)
        mull_put_le32(table + i * 4, (uint32_t)(first_gt + i * (GT_ENTRIES * 4 / VMDK_SECTOR)));
    int ret = mull_file_write(file, table, entries * 4, gd * VMDK_SECTOR);
    free(table);
    return ret;
}

/* A hosted sparse extent; @text is its embedded descriptor or NULL. */
static int make_hosted(const struct mull_create_options *o, const char *path, uint64_t sectors,
                       const char *text, bool stream, struct mull_error *err)
{
    uint64_t grains = (sectors + GRAIN_SECTORS - 1) / GRAIN_SECTORS;
    uint64_t gts = (grains + GT_ENTRIES - 1) / GT_ENTRIES;
    uint64_t gd_sectors = (gts * 4 + VMDK_SECTOR - 1) / VMDK_SECTOR;
    uint64_t gt_sectors = gts * (GT_ENTRIES * 4 / VMDK_SECTOR);
    uint64_t descriptor = text ? DESCRIPTOR_SECTORS : 0;
    uint64_t rgd = 1 + descriptor, gd = rgd + gd_sectors + gt_sectors;
    uint64_t overhead = gd + gd_sectors + gt_sectors;
    uint8_t head[512] = {0}, *area = NULL;
    struct mull_file *file;
    int ret;

    if (text && strlen(text) > DESCRIPTOR_SECTORS * VMDK_SECTOR)
        return mull_fail(err, ENAMETOOLONG, "%s: names too long for the descriptor", path);
    if (gd + overhead > UINT32_MAX)
        return mull_fail(err, EFBIG, "%s: too large for one sparse extent", path);
    overhead = (overhead + GRAIN_SECTORS - 1) / GRAIN_SECTORS * GRAIN_SECTORS;
    if (stream)
        overhead = STREAM_OVERHEAD;
    ret = new_file(o, path, &file, err);
    if (ret)
        return ret;
    area = calloc(1, DESCRIPTOR_SECTORS * VMDK_SECTOR + 1);
    ret = area ? mull_file_truncate(file, overhead * VMDK_SECTOR) : -ENOMEM;
    if (!ret && text) {
        memcpy(area, text, strlen(text));
        ret = mull_file_write(file, area, DESCRIPTOR_SECTORS * VMDK_SECTOR, VMDK_SECTOR);
    }
    if (!ret && !stream)
        ret = write_gd(file, rgd, gts, rgd + gd_sectors);
    if (!ret && !stream)
        ret = write_gd(file, gd, gts, gd + gd_sectors);
    if (!ret)
        ret = mull_file_flush(file);
    if (stream)
        vmdk_put_header(head, 3, VMDK_FLAG_NEWLINE | VMDK_FLAG_COMPRESSED | VMDK_FLAG_MARKERS,
                        sectors, GRAIN_SECTORS, descriptor, 0, VMDK_GD_AT_END, overhead);
    else
        vmdk_put_header(head, o->backing ? 2 : 1,
                        VMDK_FLAG_NEWLINE | VMDK_FLAG_REDUNDANT |
                            (o->backing ? VMDK_FLAG_ZEROED : 0),
                        sectors, GRAIN_SECTORS, descriptor, rgd, gd, overhead);
    if (!ret)
        ret = mull_file_write(file, head, sizeof(head), 0);
    if (!ret)
        ret = mull_file_flush(file);
    free(area);
    mull_file_close(file);
    return ret ? mull_fail(err, -ret, "%s: cannot write: %s", path, strerror(-ret)) : 0;
}

static int make_flat(const struct mull_create_options *o, const char *path, uint64_t sectors,
                     struct mull_error *err)
{
    struct mull_file *file;
    int ret = new_file(o, path, &file, err);
    if (ret)
        return ret;
    ret = mull_file_truncate(file, sectors * VMDK_SECTOR);
    mull_file_close(file);
    return ret ? mull_fail(err, -ret, "%s: cannot set the size: %s", path, strerror(-ret)) : 0;
}

/* Spec, "ESX Server Sparse Extents". */
static int make_cowd(const struct mull_create_options *o, const char *path, uint64_t sectors,
                     struct mull_error *err)
{
    uint8_t head[2048] = {0};
    uint64_t gts = (sectors + COWD_GT_ENTRIES - 1) / COWD_GT_ENTRIES;
    uint64_t free_sector = 4 + (gts * 4 + VMDK_SECTOR - 1) / VMDK_SECTOR;
    struct mull_file *file;

    if (sectors > UINT32_MAX)
        return mull_fail(err, EFBIG, "%s: vmfsSparse holds 2 TiB at most", path);
    int ret = new_file(o, path, &file, err);
    if (ret)
        return ret;
    memcpy(head, "COWD", 4);
    mull_put_le32(head + 4, 1);
    mull_put_le32(head + 8, 3);
    mull_put_le32(head + 12, (uint32_t)sectors);
    mull_put_le32(head + 16, 1);
    mull_put_le32(head + 20, 4);
    mull_put_le32(head + 24, (uint32_t)gts);
    mull_put_le32(head + 28, (uint32_t)free_sector);
    ret = mull_file_truncate(file, free_sector * VMDK_SECTOR);
    if (!ret)
        ret = mull_file_write(file, head, sizeof(head), 0);
    if (!ret)
        ret = mull_file_flush(file);
    mull_file_close(file);
    return ret ? mull_fail(err, -ret, "%s: cannot write: %s", path, strerror(-ret)) : 0;
}

/* "dir/disk.vmdk" and "-s001" make "dir/disk-s001.vmdk". @return malloc'ed. */
static char *extent_path(const char *path, const char *suffix)
{
    size_t n = strlen(path);
    char *out = NULL;
    if (n > 5 && !strcasecmp(path + n - 5, ".vmdk"))
        n -= 5;
    return asprintf(&out, "%.*s%s.vmdk", (int)n, path, suffix) < 0 ? NULL : out;
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static int find_subformat(const char *name)
{
    for (size_t i = 0; i < sizeof(subformats) / sizeof(subformats[0]); i++)
        if (!strcmp(subformats[i].name, name))
            return (int)i;
    return -1;
}

int vmdk_make_extent(const struct mull_create_options *o, uint32_t number, uint64_t sectors,
                     FILE *lines, struct mull_error *err)
{
    int which = find_subformat(o->subformat ? o->subformat : "");
    if (which < 0)
        return mull_fail(err, EINVAL, "%s: VMDK subformat", o->path);
    enum vmdk_kind kind = subformats[which].kind;
    enum layout layout = subformats[which].layout;
    char suffix[32];
    const char *word = kind == VMDK_FLAT   ? layout == ESX ? "VMFS" : "FLAT"
                       : kind == VMDK_COWD ? "VMFSSPARSE"
                                           : "SPARSE";
    int ret;

    if (layout == SPLIT)
        snprintf(suffix, sizeof(suffix), "-%c%03u", kind == VMDK_FLAT ? 'f' : 's', number);
    else
        snprintf(suffix, sizeof(suffix), kind == VMDK_COWD ? "-delta" : "-flat");
    char *path = extent_path(o->path, suffix);
    if (!path)
        return mull_fail(err, ENOMEM, "%s: out of memory", o->path);
    if (kind == VMDK_FLAT)
        ret = make_flat(o, path, sectors, err);
    else if (kind == VMDK_COWD)
        ret = make_cowd(o, path, sectors, err);
    else
        ret = make_hosted(o, path, sectors, NULL, false, err);
    fprintf(lines, "RW %llu %s \"%s\"%s\n", (unsigned long long)sectors, word, base_name(path),
            kind == VMDK_FLAT && layout != ESX ? " 0" : "");
    free(path);
    return ret;
}

static int parent_cid(const struct mull_create_options *o, uint32_t *cid, struct mull_error *err)
{
    struct mull_image *parent;
    int ret = mull_image_open_parent(o, &mull_format_vmdk, &parent, err);
    if (ret)
        return ret;
    *cid = ((struct vmdk *)parent->state)->cid;
    mull_image_close(parent);
    return ret;
}

static int write_descriptor(const struct mull_create_options *o, const char *text,
                            struct mull_error *err)
{
    struct mull_file *file;
    int ret = new_file(o, o->path, &file, err);
    if (ret)
        return ret;
    ret = mull_file_write(file, text, strlen(text), 0);
    if (!ret)
        ret = mull_file_flush(file);
    mull_file_close(file);
    return ret ? mull_fail(err, -ret, "%s: cannot write: %s", o->path, strerror(-ret)) : 0;
}

int vmdk_create(const struct mull_create_options *o, struct mull_error *err)
{
    const char *name = o->subformat ? o->subformat : "monolithicSparse";
    uint64_t sectors = o->size / VMDK_SECTOR, left = sectors, length = 0;
    uint32_t cid = 0, parent = VMDK_NO_PARENT, number = 1;
    char *text = NULL, *extents = NULL;
    int which = find_subformat(name), ret = 0;

    if (which < 0)
        return mull_fail(err, EINVAL, "%s: VMDK subformat '%s'", o->path, name);
    enum layout layout = subformats[which].layout;
    enum vmdk_kind kind = subformats[which].kind;
    if (!sectors || o->size % VMDK_SECTOR)
        return mull_fail(err, EINVAL, "%s: size %llu is not sectors of 512 bytes", o->path,
                         (unsigned long long)o->size);
    if (o->backing && (kind == VMDK_FLAT || layout == STREAM))
        return mull_fail(err, EINVAL, "%s: subformat %s has no parent", o->path, name);
    if (o->backing && (ret = parent_cid(o, &parent, err)))
        return ret;
    do
        (void)!getrandom(&cid, sizeof(cid), 0);
    while (cid >= 0xfffffffe);

    size_t unused;
    FILE *lines = open_memstream(&extents, &unused);
    if (!lines)
        return mull_fail(err, ENOMEM, "%s: out of memory", o->path);
    bool embedded = kind == VMDK_SPARSE && layout != SPLIT;
    if (embedded)
        fprintf(lines, "RW %llu SPARSE \"%s\"\n", (unsigned long long)sectors, base_name(o->path));
    while (!embedded && left && !ret) {
        length = layout == SPLIT && left > VMDK_SPLIT_SECTORS ? VMDK_SPLIT_SECTORS : left;
        ret = number > VMDK_EXTENTS_MAX ? mull_fail(err, EFBIG, "%s: too many extents", o->path)
                                        : vmdk_make_extent(o, number++, length, lines, err);
        left -= length;
    }
    fclose(lines);
    if (!ret && extents)
        text = vmdk_build_descriptor(o, name, cid, parent, extents);
    if (!ret && !text)
        ret = mull_fail(err, ENOMEM, "%s: out of memory", o->path);
    if (!ret)
        ret = embedded ? make_hosted(o, o->path, sectors, text, layout == STREAM, err)
                       : write_descriptor(o, text, err);
    free(extents);
    free(text);
    return ret;
}
