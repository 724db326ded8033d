/*
 * bzip2, of one or more streams: decoding starts at a stream (a file of pbzip2 has many, one of
 * bzip2 only one).
 */
#include "image/unpack.h"

#include <bzlib.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct bzip2 {
    bz_stream z;
    bool between, scanning;
};

static int bzip2_start(struct unpack_source *s, struct unpack_decoder *d, uint64_t offset)
{
    struct bzip2 *b = calloc(1, sizeof(*b));
    const struct unpack_point *p = s->npoints ? unpack_point_at(s, offset) : NULL;

    if (!b)
        return -ENOMEM;
    if (BZ2_bzDecompressInit(&b->z, 0, 0) != BZ_OK) {
        free(b);
        return -ENOMEM;
    }
    b->scanning = !p;
    d->in = p ? p->in : 0;
    d->out = p ? p->out : 0;
    d->input_at = d->input_end = 0;
    d->state = b;
    d->started = true;
    return p ? 0 : unpack_add_point(s, 0, 0, 0, NULL);
}

static void bzip2_stop(struct unpack_decoder *d)
{
    struct bzip2 *b = d->state;
    BZ2_bzDecompressEnd(&b->z);
    free(b);
    d->state = NULL;
}

/* Another stream, or the end. */
static int next_stream(struct unpack_source *s, struct unpack_decoder *d, struct bzip2 *b)
{
    int ret = unpack_fill(s, d);

    if (ret || d->input_at == d->input_end) {
        d->end = !ret;
        return ret;
    }
    BZ2_bzDecompressEnd(&b->z);
    memset(&b->z, 0, sizeof(b->z));
    if (BZ2_bzDecompressInit(&b->z, 0, 0) != BZ_OK)
        return -ENOMEM;
    b->between = false;
    return b->scanning ? unpack_add_point(s, d->in - (d->input_end - d->input_at), d->out, 0, NULL)
                       : 0;
}

static int bzip2_produce(struct unpack_source *s, struct unpack_decoder *d, uint8_t *buf,
                         size_t room, size_t *got)
{
    struct bzip2 *b = d->state;
    int ret = 0;

    *got = 0;
    while (*got < room && !d->end && !ret) {
        if (b->between) {
            ret = next_stream(s, d, b);
            continue;
        }
        ret = unpack_fill(s, d);
        if (ret)
            break;
        b->z.next_in = (char *)d->input + d->input_at;
        b->z.avail_in = d->input_end - d->input_at;
        b->z.next_out = (char *)buf + *got;
        b->z.avail_out = (unsigned)(room - *got);
        bool dry = !b->z.avail_in;
        int code = BZ2_bzDecompress(&b->z);
        size_t made = room - *got - b->z.avail_out;
        d->input_at = d->input_end - b->z.avail_in;
        *got += made;
        d->out += made;
        if (code == BZ_STREAM_END)
            b->between = true;
        else if (code != BZ_OK)
            ret = code == BZ_MEM_ERROR ? -ENOMEM : -EIO;
        else if (dry && !made)
            ret = -EIO; /* it ends in the middle */
    }
    return ret;
}

const struct unpack_codec unpack_bzip2 = {
    .name = "bzip2",
    .magic = "BZh",
    .magic_length = 3,
    .index = unpack_scan,
    .nearest = unpack_nearest_point,
    .start = bzip2_start,
    .produce = bzip2_produce,
    .stop = bzip2_stop,
};
