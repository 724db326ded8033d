/*
 * gzip (RFC 1952, of one or more members). Decoding can start at any block of its deflate data
 * (RFC 1951) with the 32 KiB before it: the first pass keeps those every few MiB, and checks all
 * CRCs.
 */
#include "image/unpack.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

struct gzip {
    z_stream z;
    bool raw;      /* inside a member, without its header: the trailer is skipped by us */
    bool scanning; /* the first pass: adds points */
    uint32_t skip; /* trailer bytes to come */
    bool between;  /* a member has ended */
};

static int gzip_start(struct unpack_source *s, struct unpack_decoder *d, uint64_t offset)
{
    struct gzip *g = calloc(1, sizeof(*g));
    const struct unpack_point *p = s->npoints ? unpack_point_at(s, offset) : NULL;
    int ret;

    if (!g)
        return -ENOMEM;
    g->scanning = !p;
    g->raw = p && p->window;
    d->in = p ? p->in : 0;
    d->out = p ? p->out : 0;
    d->input_at = d->input_end = 0;
    if (inflateInit2(&g->z, g->raw ? -15 : 31) != Z_OK) {
        free(g);
        return -ENOMEM;
    }
    d->state = g;
    d->started = true;
    if (!p)
        return unpack_add_point(s, 0, 0, 0, NULL);
    if (p->bits) {
        uint8_t byte;
        ret = mull_file_read(s->below, &byte, 1, p->in - 1);
        if (ret)
            return ret;
        inflatePrime(&g->z, p->bits, byte >> (8 - p->bits));
    }
    if (g->raw)
        inflateSetDictionary(&g->z, p->window, 32768);
    return 0;
}

static void gzip_stop(struct unpack_decoder *d)
{
    struct gzip *g = d->state;
    inflateEnd(&g->z);
    free(g);
    d->state = NULL;
}

/* At the end of a block: a place to start from. */
static int add_point(struct unpack_source *s, struct unpack_decoder *d, struct gzip *g)
{
    uint8_t window[32768];
    unsigned length = sizeof(window);
    int bits = g->z.data_type & 7;

    if (d->out - s->points[s->npoints - 1].out < s->span)
        return 0;
    if (inflateGetDictionary(&g->z, window, &length) != Z_OK || length != sizeof(window))
        return 0;
    return unpack_add_point(s, d->in - (d->input_end - d->input_at), d->out, bits, window);
}

/* Between members: another one, or nothing but zeroes to the end. */
static int next_member(struct unpack_source *s, struct unpack_decoder *d, struct gzip *g)
{
    int ret = 0;

    while (!ret && !(ret = unpack_fill(s, d)) && d->input_at < d->input_end) {
        if (g->skip) {
            g->skip--;
            d->input_at++;
        } else if (d->input[d->input_at] == 0x1f) {
            g->between = g->raw = false;
            if (g->scanning)
                ret = unpack_add_point(s, d->in - (d->input_end - d->input_at), d->out, 0, NULL);
            return ret ? ret : inflateReset2(&g->z, 31) == Z_OK ? 0 : -EIO;
        } else if (d->input[d->input_at++]) {
            return -EIO;
        }
    }
    d->end = !ret;
    return g->skip && !ret ? -EIO : ret;
}

static int gzip_produce(struct unpack_source *s, struct unpack_decoder *d, uint8_t *buf,
                        size_t room, size_t *got)
{
    struct gzip *g = d->state;
    int ret = 0;

    *got = 0;
    while (*got < room && !d->end && !ret) {
        if (g->between) {
            ret = next_member(s, d, g);
            continue;
        }
        ret = unpack_fill(s, d);
        if (ret)
            break;
        if (d->input_at == d->input_end)
            return -EIO; /* it ends in the middle */
        g->z.next_in = d->input + d->input_at;
        g->z.avail_in = d->input_end - d->input_at;
        g->z.next_out = buf + *got;
        g->z.avail_out = (unsigned)(room - *got);
        int code = inflate(&g->z, g->scanning ? Z_BLOCK : Z_NO_FLUSH);
        size_t made = room - *got - g->z.avail_out;
        d->input_at = d->input_end - g->z.avail_in;
        *got += made;
        d->out += made;
        if (code == Z_STREAM_END) {
            g->between = true;
            g->skip = g->raw ? 8 : 0; /* CRC32 and ISIZE */
        } else if (code != Z_OK && code != Z_BUF_ERROR) {
            ret = code == Z_MEM_ERROR ? -ENOMEM : -EIO;
        } else if (g->scanning && g->z.data_type & 128 && !(g->z.data_type & 64)) {
            ret = add_point(s, d, g);
        }
    }
    return ret;
}

const struct unpack_codec unpack_gzip = {
    .name = "gzip",
    .magic = "\x1f\x8b\x08",
    .magic_length = 3,
    .index = unpack_scan,
    .nearest = unpack_nearest_point,
    .start = gzip_start,
    .produce = gzip_produce,
    .stop = gzip_stop,
};
