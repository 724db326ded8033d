/*
 * Files that were compressed whole, read at any offset: a few decoders that each go forward, what
 * they produced lately in a cache, and places to start from where the format has them. See
 * source.h.
 */
#include "image/unpack.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "image/source.h"

#define PIECE (1u << 20)
#define CACHE_PIECES 64

static const struct unpack_codec *const codecs[] = {&unpack_gzip, &unpack_xz, &unpack_zstd,
                                                    &unpack_bzip2, NULL};

static const struct unpack_codec *codec_of(const uint8_t *head, size_t length)
{
    for (int i = 0; codecs[i]; i++)
        if (length >= codecs[i]->magic_length &&
            !memcmp(head, codecs[i]->magic, codecs[i]->magic_length))
            return codecs[i];
    return NULL;
}

const char *mull_source_packed(const uint8_t *head, size_t length)
{
    const struct unpack_codec *codec = codec_of(head, length);
    return codec ? codec->name : NULL;
}

int unpack_fill(struct unpack_source *s, struct unpack_decoder *d)
{
    uint64_t size = atomic_load(&s->below->size);
    uint64_t n = d->in < size ? size - d->in : 0;

    if (d->input_at < d->input_end)
        return 0;
    n = n < UNPACK_INPUT ? n : UNPACK_INPUT;
    d->input_at = 0;
    d->input_end = 0;
    int ret = n ? mull_file_read(s->below, d->input, n, d->in) : 0;
    if (!ret) {
        d->input_end = (uint32_t)n;
        d->in += n;
    }
    return ret;
}

int unpack_add_point(struct unpack_source *s, uint64_t in, uint64_t out, int bits,
                     const uint8_t *window)
{
    if (s->npoints && out - s->points[s->npoints - 1].out < s->span)
        return 0;
    if (s->npoints == UNPACK_POINTS) { /* half of them, twice as far apart */
        for (uint32_t i = 1; i < UNPACK_POINTS; i += 2)
            free(s->points[i].window);
        for (uint32_t i = 1; i < UNPACK_POINTS / 2; i++)
            s->points[i] = s->points[2 * (size_t)i];
        s->npoints = UNPACK_POINTS / 2;
        s->span *= 2;
    }
    struct unpack_point *p = &s->points[s->npoints];
    *p = (struct unpack_point){.in = in, .out = out, .bits = bits};
    if (window && !(p->window = malloc(32768)))
        return -ENOMEM;
    if (window)
        memcpy(p->window, window, 32768);
    s->npoints++;
    return 0;
}

const struct unpack_point *unpack_point_at(const struct unpack_source *s, uint64_t offset)
{
    uint32_t low = 0, high = s->npoints;
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (s->points[middle].out <= offset)
            low = middle;
        else
            high = middle;
    }
    return &s->points[low];
}

uint64_t unpack_nearest_point(struct unpack_source *s, uint64_t offset)
{
    return unpack_point_at(s, offset)->out;
}

int unpack_bound(const struct unpack_source *s, uint64_t size, struct mull_error *err)
{
    if (size <= s->max_size)
        return 0;
    return mull_fail(err, EFBIG,
                     "%s: unpacks to more than %llu bytes; say --max-size if that is right",
                     s->below->path, (unsigned long long)s->max_size);
}

int unpack_scan(struct unpack_source *s, struct mull_error *err)
{
    struct unpack_decoder *d = calloc(1, sizeof(*d));
    uint8_t *buf = malloc(PIECE);
    size_t got = PIECE;
    int ret = d && buf ? s->codec->start(s, d, 0) : -ENOMEM;

    while (!ret && got) {
        ret = s->codec->produce(s, d, buf, PIECE, &got);
        s->size += ret ? 0 : got;
        if (!ret && (ret = unpack_bound(s, s->size, err)))
            goto out;
    }
    if (ret)
        mull_fail(err, -ret, "%s: cannot be unpacked: %s %llu bytes into it", s->below->path,
                  ret == -EIO ? "it is damaged" : strerror(-ret), (unsigned long long)s->size);
out:
    if (d && d->started)
        s->codec->stop(d);
    free(d);
    free(buf);
    return ret;
}

/* A decoder for the piece at @offset; waits where one is on its way there. NULL: look again. */
static struct unpack_decoder *choose(struct unpack_source *s, uint64_t offset)
{
    uint64_t from = s->codec->nearest(s, offset);
    struct unpack_decoder *best = NULL, *oldest = NULL;
    uint64_t best_at = from;

    for (int i = 0; i < UNPACK_DECODERS; i++) {
        struct unpack_decoder *d = s->decoders[i];
        uint64_t at = d->busy ? d->claimed : d->out;
        if ((d->busy || d->started) && at >= from && at <= offset && (!best || at > best_at)) {
            best = d;
            best_at = at;
        }
        if (!d->busy && (!oldest || d->used < oldest->used))
            oldest = d;
    }
    if (!best)
        best = oldest;
    if (!best || best->busy) {
        pthread_cond_wait(&s->changed, &s->lock);
        return NULL;
    }
    best->busy = true;
    best->claimed = best_at;
    best->used = ++s->clock;
    return best;
}

/* Bring a decoder to @offset: on from where it is, or from the nearest place to start. */
static int bring(struct unpack_source *s, struct unpack_decoder *d, uint64_t offset, uint8_t *buf)
{
    int ret = 0;

    if (!d->started || d->out > offset || d->out < s->codec->nearest(s, offset)) {
        if (d->started)
            s->codec->stop(d);
        d->started = d->end = false;
        ret = s->codec->start(s, d, offset);
    }
    while (!ret && d->out < offset) {
        uint64_t room = PIECE - d->out % PIECE;
        bool whole = room == PIECE;
        size_t got;
        room = offset - d->out < room ? offset - d->out : room;
        ret = s->codec->produce(s, d, buf, room, &got);
        if (!ret && !got)
            ret = -EIO;
        /* On the way: whoever reads next to us will want it. */
        if (!ret && whole && got == PIECE)
            mull_pieces_put(s->pieces, d->out / PIECE - 1, buf, PIECE);
    }
    return ret;
}

static int load(struct unpack_source *s, uint64_t index)
{
    uint64_t offset = index * PIECE;
    size_t want = s->size - offset < PIECE ? (size_t)(s->size - offset) : PIECE, got = 0;
    struct unpack_decoder *d;
    uint8_t *buf = malloc(PIECE);

    if (!buf)
        return -ENOMEM;
    pthread_mutex_lock(&s->lock);
    while (!(d = choose(s, offset)))
        ;
    pthread_mutex_unlock(&s->lock);
    int ret = bring(s, d, offset, buf);
    if (!ret)
        ret = s->codec->produce(s, d, buf, want, &got);
    /* It is not what it was, or said it was, when we looked. */
    if (!ret && got != want)
        ret = -EIO;
    if (!ret)
        ret = mull_pieces_put(s->pieces, index, buf, (uint32_t)got);
    pthread_mutex_lock(&s->lock);
    if (ret && d->started) {
        s->codec->stop(d);
        d->started = false;
    }
    d->busy = false;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
    free(buf);
    return ret;
}

static int unpack_readv(struct mull_file *file, const struct iovec *iov, int niov, uint64_t offset,
                        uint64_t length)
{
    struct unpack_source *s = file->opaque;

    for (uint64_t at = 0; at < length;) {
        uint64_t index = (offset + at) / PIECE;
        uint64_t n = mull_pieces_get(s->pieces, offset + at, iov, niov, at, length - at);
        if (!n && mull_pieces_begin(s->pieces, index, 1)) {
            int ret = load(s, index);
            mull_pieces_end(s->pieces, index, 1);
            if (ret)
                return ret;
        }
        at += n;
    }
    return 0;
}

static int unpack_identity(struct mull_file *file, char *out, size_t room)
{
    struct unpack_source *s = file->opaque;
    int n = snprintf(out, room, "%s:", s->codec->name);
    return n < 0 || (size_t)n >= room ? -ENAMETOOLONG
                                      : mull_file_identity(s->below, out + n, room - (size_t)n);
}

static void source_free(struct unpack_source *s)
{
    for (int i = 0; i < UNPACK_DECODERS; i++) {
        if (s->decoders[i] && s->decoders[i]->started)
            s->codec->stop(s->decoders[i]);
        free(s->decoders[i]);
    }
    for (uint32_t i = 0; i < s->npoints; i++)
        free(s->points[i].window);
    if (s->codec->close)
        s->codec->close(s);
    mull_pieces_destroy(s->pieces);
    mull_file_close(s->below);
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->changed);
    free(s);
}

static void unpack_close(struct mull_file *file)
{
    source_free(file->opaque);
}

static const struct mull_file_ops unpack_ops = {
    .readv = unpack_readv,
    .identity = unpack_identity,
    .close = unpack_close,
};

int mull_source_unpack(const struct mull_file_options *o, struct mull_file *below,
                       struct mull_file **out, struct mull_error *err)
{
    uint8_t head[16] = {0};
    uint64_t size = atomic_load(&below->size);
    int ret = mull_file_read(below, head, sizeof(head), 0);

    *out = NULL;
    if (ret)
        return mull_fail(err, -ret, "%s: cannot read its start: %s", o->path, strerror(-ret));
    const struct unpack_codec *codec = codec_of(head, size < sizeof(head) ? size : sizeof(head));
    if (!codec)
        return 0;
    struct unpack_source *s = calloc(1, sizeof(*s));
    if (!s)
        return mull_fail(err, ENOMEM, "%s: out of memory", o->path);
    s->codec = codec;
    s->max_size = o->source && o->source->max_size ? o->source->max_size : MULL_SOURCE_MAX_SIZE;
    s->span = UINT64_C(4) << 20;
    s->below = below;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->changed, NULL);
    s->pieces = mull_pieces_create(PIECE, CACHE_PIECES);
    for (int i = 0; i < UNPACK_DECODERS; i++)
        if (!(s->decoders[i] = calloc(1, sizeof(struct unpack_decoder))))
            ret = -ENOMEM;
    if (!s->pieces || ret)
        ret = mull_fail(err, ENOMEM, "%s: out of memory", o->path);
    if (!ret)
        ret = codec->index(s, err);
    if (!ret)
        ret = unpack_bound(s, s->size, err);
    if (!ret)
        return mull_file_stand_in(o, &unpack_ops, s, s->size, out, err);
    s->below = NULL; /* stays the caller's */
    source_free(s);
    return ret;
}
