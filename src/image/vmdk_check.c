/* Checking VMDK sparse extents: every grain lies in the file, once; both sets of tables agree. */
#include "image/vmdk.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define MAP_MAX (UINT64_C(256) << 20)

static void say(struct mull_check *check, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

static void say(struct mull_check *check, const char *fmt, ...)
{
    va_list ap;
    check->corruptions++;
    if (!check->out || check->corruptions > 1000)
        return;
    va_start(ap, fmt);
    vfprintf(check->out, fmt, ap);
    va_end(ap);
    fputc('\n', check->out);
}

int vmdk_mirror(struct mull_image *image, struct vmdk_extent *e, struct mull_check *check)
{
    uint32_t bytes = e->gt_entries * 4;
    uint8_t *a = malloc(bytes), *b = malloc(bytes);
    int ret = a && b ? 0 : -ENOMEM;
    uint64_t budget = atomic_load(&e->file->size) + bytes;

    for (uint64_t i = 0; i < e->gd_entries && !ret; i++) {
        uint32_t gt, rgt;
        ret = vmdk_read32(e, e->gd + i * 4, 0, false, &gt);
        if (!ret)
            ret = vmdk_read32(e, e->rgd + i * 4, 0, false, &rgt);
        if (ret || !gt || !rgt || gt == rgt)
            continue;
        /* Tables that do not overlap take no more than the file has. */
        if (budget < bytes) {
            if (check)
                say(check, "ERROR: grain tables overlap");
            ret = check ? 0 : -EUCLEAN;
            break;
        }
        budget -= bytes;
        /* Straight from the file: the cache need not hold all tables of a disk. */
        ret = mull_file_read(e->file, a, bytes, gt * VMDK_SECTOR);
        if (!ret)
            ret = mull_file_read(e->file, b, bytes, rgt * VMDK_SECTOR);
        if (ret || !memcmp(a, b, bytes))
            continue;
        if (check)
            say(check, "ERROR: redundant grain table %llu differs", (unsigned long long)i);
        if (check && !check->repair)
            continue;
        ret = mull_file_write(e->file, a, bytes, rgt * VMDK_SECTOR);
        mull_meta_forget(e->meta, rgt * VMDK_SECTOR, bytes / VMDK_SECTOR * VMDK_SECTOR);
        if (check)
            check->fixed++;
    }
    free(a);
    free(b);
    return ret;
}

/* Mark sectors in use; false: they were already. What is taken twice is not gone through: all of a
 * check costs no more than the file is long. */
static bool take(uint8_t *map, uint64_t first, uint64_t count)
{
    for (uint64_t s = first; s < first + count; s++) {
        if (map[s / 8] >> (s % 8) & 1)
            return false;
        map[s / 8] |= (uint8_t)(1u << (s % 8));
    }
    return true;
}

static int check_extent(struct mull_image *image, struct vmdk_extent *e, struct mull_check *check)
{
    uint64_t size = atomic_load(&e->file->size), sectors = (size + 511) / 512;
    uint64_t grain_sectors = e->grain / VMDK_SECTOR, map_sectors = sectors + grain_sectors;
    uint64_t grains = (e->length + e->grain - 1) / e->grain;
    uint8_t *map = map_sectors / 8 < MAP_MAX ? calloc(1, map_sectors / 8 + 1) : NULL;
    uint64_t table = e->gt_entries * UINT64_C(4), budget = size + table;
    int ret = 0;

    for (uint64_t t = 0; t < e->gd_entries && !ret; t++) {
        uint32_t gt;
        ret = vmdk_read32(e, e->gd + t * 4, 0, false, &gt);
        if (ret || !gt)
            continue;
        if (gt >= sectors) {
            say(check, "ERROR: grain table %llu lies behind the file", (unsigned long long)t);
            continue;
        }
        if (budget < table) {
            say(check, "ERROR: grain tables overlap");
            break;
        }
        budget -= table;
        for (uint64_t i = 0; i < e->gt_entries && !ret; i++) {
            uint32_t gte;
            uint64_t grain = t * e->gt_entries + i;
            if (grain >= grains)
                break;
            ret =
                vmdk_read32(e, gt * VMDK_SECTOR + i * 4, (e->gt_entries - i - 1) * 4, false, &gte);
            if (ret || !gte || (gte == 1 && e->flags & VMDK_FLAG_ZEROED))
                continue;
            check->allocated++;
            if (gte >= sectors)
                say(check, "ERROR: grain %llu lies behind the file", (unsigned long long)grain);
            else if (map && !take(map, gte, e->compressed ? 1 : grain_sectors))
                say(check, "ERROR: grain %llu shares sectors with another",
                    (unsigned long long)grain);
        }
    }
    free(map);
    check->total += grains;
    if (!ret && e->rgd)
        ret = vmdk_mirror(image, e, check);
    return ret;
}

int vmdk_check(struct mull_image *image, struct mull_check *check, struct mull_error *err)
{
    struct vmdk *v = image->state;
    int ret = image->readonly ? 0 : image->format->flush(image);

    for (uint32_t i = 0; i < v->nextents && !ret; i++)
        if (v->extents[i].kind == VMDK_SPARSE || v->extents[i].kind == VMDK_COWD)
            if (!v->extents[i].stream)
                ret = check_extent(image, &v->extents[i], check);
    if (ret) {
        check->errors++;
        return mull_fail(err, -ret, "%s: check failed: %s", image->path, strerror(-ret));
    }
    return 0;
}
