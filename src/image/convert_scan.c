/* Finding data and zeroes in an image while reading it. See convert_scan.h. */
#include "image/convert_scan.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "image/convert.h"

#define SPARSE 4096u

bool mull_is_zero(const void *buf, size_t length)
{
    const unsigned char *p = buf;
    size_t n = length < 16 ? length : 16;

    for (size_t i = 0; i < n; i++)
        if (p[i])
            return false;
    /* The rest equals what lies 16 bytes before it: memcmp does it at memory speed. */
    return length <= 16 || !memcmp(p, p + 16, length - 16);
}

/* Cut a part that is data by the tables to what is hole or data in the file as well. */
static void cut_at_holes(struct scan_source *s, const struct mull_extent *e, struct scan_part *out)
{
    if (e->file != s->file || e->offset < s->from || e->offset >= s->until) {
        uint64_t start, end;
        int ret = mull_file_next_data(e->file, e->offset, &start, &end);
        if (ret && ret != -ENXIO)
            return;
        s->file = e->file;
        s->from = e->offset;
        s->hole = ret == -ENXIO || start > e->offset;
        s->until = ret == -ENXIO ? UINT64_MAX : s->hole ? start : end;
    }
    if (s->hole)
        out->kind = SCAN_ZERO;
    if (s->until - e->offset < out->length)
        out->length = s->until - e->offset;
}

int mull_scan_part(struct scan_source *s, uint64_t offset, uint64_t length, struct scan_part *out)
{
    struct mull_image *image = s->image;
    struct mull_extent e = {0};

    *out = (struct scan_part){SCAN_ZERO, offset, length};
    if (offset >= image->size)
        return 0;
    int ret = mull_image_locate(image, offset, length, false, &e, NULL, NULL);
    if (ret)
        return ret;
    out->length = e.length;
    out->kind = e.kind == MULL_EXTENT_ZERO ? SCAN_ZERO : SCAN_DATA;
    if (s->top_only) {
        /* What this image itself does not say is left alone. */
        uint64_t n = e.length < image->size - offset ? e.length : image->size - offset;
        struct mull_extent own = {0};
        pthread_mutex_lock(&image->lock);
        ret = image->format->map(image, offset, n, false, &own);
        pthread_mutex_unlock(&image->lock);
        if (ret)
            return ret;
        if (own.length < out->length)
            out->length = own.length;
        if (own.kind == MULL_EXTENT_HOLE) {
            out->kind = SCAN_SKIP;
            return 0;
        }
    }
    if (e.kind == MULL_EXTENT_DATA && !e.file->block_device)
        cut_at_holes(s, &e, out);
    return 0;
}

static int add_part(struct scan *scan, enum scan_kind kind, uint64_t offset, uint64_t length)
{
    struct scan_part *last = scan->nparts ? &scan->parts[scan->nparts - 1] : NULL;

    if (last && last->kind == kind && last->offset + last->length == offset) {
        last->length += length;
        return 0;
    }
    if (scan->nparts == scan->room) {
        size_t room = scan->room ? scan->room * 2 : 64;
        struct scan_part *grown = realloc(scan->parts, room * sizeof(*grown));
        if (!grown)
            return -ENOMEM;
        scan->parts = grown;
        scan->room = room;
    }
    scan->parts[scan->nparts++] = (struct scan_part){kind, offset, length};
    return 0;
}

/* Tell the zeroes in [at, +length) of what was read from @offset on, unit by unit. */
static int find_zeroes(const struct scan_source *s, uint64_t offset, uint64_t at, uint64_t length,
                       const uint8_t *buf, struct scan *out)
{
    uint64_t unit = s->unit > SPARSE ? s->unit : SPARSE, end = at + length;
    int ret = 0;

    while (at < end && !ret) {
        uint64_t n = unit - (offset + at) % unit;
        n = n < end - at ? n : end - at;
        ret = add_part(out, mull_is_zero(buf + at, n) ? SCAN_ZERO : SCAN_DATA, at, n);
        at += n;
    }
    return ret;
}

int mull_scan(struct scan_source *s, uint64_t offset, uint64_t length, uint8_t *buf,
              struct scan *out)
{
    uint64_t unit = s->unit > SPARSE ? s->unit : SPARSE;

    out->nparts = 0;
    for (uint64_t at = 0; at < length;) {
        struct scan_part part;
        int ret = mull_scan_part(s, offset + at, length - at, &part);
        uint64_t n = part.length;
        if (!ret && part.kind == SCAN_DATA) {
            if (n < length - at && !s->top_only) {
                /* Whole units of the target at a time: read on to the end of this one. */
                uint64_t end = (offset + at + n + unit - 1) / unit * unit - offset;
                n = (end < length ? end : length) - at;
            }
            ret = mull_image_read(s->image, buf + at, n, offset + at);
            if (!ret)
                ret = find_zeroes(s, offset, at, n, buf, out);
        } else if (!ret) {
            ret = add_part(out, part.kind, at, n);
        }
        if (ret)
            return ret;
        at += n;
    }
    return 0;
}

int mull_scan_whole(struct scan_source *s, uint64_t offset, uint64_t length, uint8_t *buf,
                    bool *any)
{
    *any = false;
    for (uint64_t at = 0; at < length;) {
        struct scan_part part;
        int ret = mull_scan_part(s, offset + at, length - at, &part);
        if (!ret && part.kind == SCAN_DATA)
            ret = mull_image_read(s->image, buf + at, part.length, offset + at);
        if (ret)
            return ret;
        if (part.kind == SCAN_DATA)
            *any = true;
        else
            memset(buf + at, 0, part.length);
        at += part.length;
    }
    return 0;
}

void mull_scan_free(struct scan *scan)
{
    free(scan->parts);
    *scan = (struct scan){0};
}
