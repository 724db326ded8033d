/*
 * zstd (RFC 8878), of one or more frames: decoding starts at a frame. Where all frames tell their
 * size, as they do unless they were made from a pipe, the sizes are found without decoding.
 */
#include "image/unpack.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "image/image.h"

#define FRAME_MAGIC 0xfd2fb528u
#define SKIPPABLE_MAGIC 0x184d2a50u
#define WINDOW_LOG_MAX 27

struct zstd {
    ZSTD_DCtx *z;
    bool scanning, inside;
};

static int zstd_start(struct unpack_source *s, struct unpack_decoder *d, uint64_t offset)
{
    struct zstd *x = calloc(1, sizeof(*x));
    const struct unpack_point *p = s->npoints ? unpack_point_at(s, offset) : NULL;

    if (!x || !(x->z = ZSTD_createDCtx())) {
        free(x);
        return -ENOMEM;
    }
    ZSTD_DCtx_setParameter(x->z, ZSTD_d_windowLogMax, WINDOW_LOG_MAX);
    x->scanning = !p;
    d->in = p ? p->in : 0;
    d->out = p ? p->out : 0;
    d->input_at = d->input_end = 0;
    d->state = x;
    d->started = true;
    return p ? 0 : unpack_add_point(s, 0, 0, 0, NULL);
}

static void zstd_stop(struct unpack_decoder *d)
{
    struct zstd *x = d->state;
    ZSTD_freeDCtx(x->z);
    free(x);
    d->state = NULL;
}

static int zstd_produce(struct unpack_source *s, struct unpack_decoder *d, uint8_t *buf,
                        size_t room, size_t *got)
{
    struct zstd *x = d->state;
    int ret = 0;

    *got = 0;
    while (*got < room && !d->end && !ret) {
        ret = unpack_fill(s, d);
        if (ret)
            break;
        ZSTD_inBuffer in = {d->input, d->input_end, d->input_at};
        ZSTD_outBuffer out = {buf, room, *got};
        bool dry = d->input_at == d->input_end;
        if (dry && !x->inside) {
            d->end = true;
            break;
        }
        size_t code = ZSTD_decompressStream(x->z, &out, &in);
        size_t made = out.pos - *got;
        d->input_at = (uint32_t)in.pos;
        *got = out.pos;
        d->out += made;
        x->inside = code != 0;
        if (ZSTD_isError(code))
            ret = -EIO;
        else if (!code && x->scanning)
            ret = unpack_add_point(s, d->in - (d->input_end - d->input_at), d->out, 0, NULL);
        else if (dry && !made)
            ret = -EIO;
    }
    return ret;
}

/* A cursor over the file for the walk. */
static int get(struct unpack_source *s, struct unpack_decoder *d, uint64_t at, void *out,
               uint32_t length)
{
    uint64_t start = d->in - d->input_end;
    if (at < start || at + length > d->in) {
        d->in = at;
        d->input_at = d->input_end = 0;
        int ret = unpack_fill(s, d);
        if (ret)
            return ret;
        start = at;
        if (d->input_end < length)
            return -EIO;
    }
    memcpy(out, d->input + (at - start), length);
    return 0;
}

/* The header of a frame (RFC 8878, section 3.1.1.1). @return its length, 0: it tells no size, or
 * -errno */
static int frame_header(struct unpack_source *s, struct unpack_decoder *d, uint64_t at,
                        uint64_t *content, bool *checksum)
{
    static const uint8_t dictionary[] = {0, 1, 2, 4}, sizes[] = {0, 2, 4, 8};
    uint8_t descriptor, field[8] = {0};
    int ret = get(s, d, at + 4, &descriptor, 1);

    if (ret)
        return ret;
    bool single = descriptor & 0x20;
    unsigned flag = descriptor >> 6, size = flag ? sizes[flag] : single;
    unsigned header = 5 + !single + dictionary[descriptor & 3];
    if (!size)
        return 0;
    ret = get(s, d, at + header, field, size);
    *content = mull_le64(field) + (size == 2 ? 256 : 0);
    *checksum = descriptor & 4;
    return ret ? ret : (int)(header + size);
}

/* The bytes a frame takes: its blocks (section 3.1.1.2) by their headers. */
static int walk_frame(struct unpack_source *s, struct unpack_decoder *d, uint64_t at,
                      unsigned header, bool checksum, uint64_t *end)
{
    uint64_t size = atomic_load(&s->below->size);
    uint8_t b[3];

    at += header;
    do {
        int ret = get(s, d, at, b, 3);
        if (ret)
            return ret;
        uint32_t block = (uint32_t)(b[0] | b[1] << 8 | b[2] << 16);
        if ((block >> 1 & 3) == 3)
            return -EIO;
        at += 3 + ((block >> 1 & 3) == 1 ? 1 : block >> 3);
    } while (!(b[0] & 1) && at < size);
    *end = at + (checksum ? 4 : 0);
    return !(b[0] & 1) || *end > size ? -EIO : 0;
}

/* Sizes by headers alone. @return 1: a frame does not tell its own */
static int walk(struct unpack_source *s, struct unpack_decoder *d)
{
    uint64_t size = atomic_load(&s->below->size), at = 0, out = 0, content = 0, end = 0;

    while (at < size) {
        uint8_t b[8];
        bool checksum = false;
        int ret = get(s, d, at, b, 8);
        if (ret)
            return ret;
        if ((mull_le32(b) & 0xfffffff0u) == SKIPPABLE_MAGIC) {
            at += 8 + (uint64_t)mull_le32(b + 4);
            continue;
        }
        ret = mull_le32(b) == FRAME_MAGIC ? frame_header(s, d, at, &content, &checksum) : -EIO;
        if (ret <= 0)
            return ret ? ret : 1;
        ret = walk_frame(s, d, at, (unsigned)ret, checksum, &end);
        if (!ret)
            ret = unpack_add_point(s, at, out, 0, NULL);
        if (ret || content > INT64_MAX - out)
            return ret ? ret : -EFBIG;
        at = end;
        out += content;
    }
    s->size = out;
    return at == size ? 0 : -EIO;
}

static int zstd_index(struct unpack_source *s, struct mull_error *err)
{
    struct unpack_decoder *d = calloc(1, sizeof(*d));
    int ret = d ? walk(s, d) : -ENOMEM;

    free(d);
    if (ret <= 0)
        return ret ? mull_fail(err, -ret, "%s: its zstd frames cannot be followed: %s",
                               s->below->path,
                               ret == -EIO ? "it is damaged, or cut off" : strerror(-ret))
                   : 0;
    s->npoints = 0;
    s->size = 0;
    return unpack_scan(s, err);
}

const struct unpack_codec unpack_zstd = {
    .name = "zstd",
    .magic = "\x28\xb5\x2f\xfd",
    .magic_length = 4,
    .index = zstd_index,
    .nearest = unpack_nearest_point,
    .start = zstd_start,
    .produce = zstd_produce,
    .stop = zstd_stop,
};
