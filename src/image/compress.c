/* Compression with libdeflate and libzstd. See compress.h. */
#include "image/compress.h"

#include <errno.h>
#include <libdeflate.h>
#include <pthread.h>
#include <stdlib.h>
#include <zstd.h>

#define IDLE_MAX 64

/* Contexts that nobody uses just now. */
struct pool {
    void *idle[IDLE_MAX];
    int count;
};

struct mull_packer {
    enum mull_codec codec;
    int level;
    pthread_mutex_t lock;
    struct pool packers, unpackers;
};

struct mull_packer *mull_packer_create(enum mull_codec codec, int level)
{
    struct mull_packer *p = calloc(1, sizeof(*p));
    if (!p)
        return NULL;
    p->codec = codec;
    p->level = level;
    pthread_mutex_init(&p->lock, NULL);
    return p;
}

static void *new_packer(const struct mull_packer *p)
{
    if (p->codec != MULL_CODEC_ZSTD)
        return libdeflate_alloc_compressor(p->level ? p->level : 6);
    ZSTD_CCtx *c = ZSTD_createCCtx();
    if (c) {
        ZSTD_CCtx_setParameter(c, ZSTD_c_compressionLevel, p->level ? p->level : 3);
        if (!p->level) {
            /* The level's tables in full size: for units as small as ours it would take smaller
             * ones, which find less and are no faster where they are used again and again. */
            ZSTD_CCtx_setParameter(c, ZSTD_c_hashLog, 17);
            ZSTD_CCtx_setParameter(c, ZSTD_c_chainLog, 16);
        }
    }
    return c;
}

static void free_packer(const struct mull_packer *p, void *c)
{
    if (p->codec == MULL_CODEC_ZSTD)
        ZSTD_freeCCtx(c);
    else
        libdeflate_free_compressor(c);
}

static void *new_unpacker(const struct mull_packer *p)
{
    return p->codec == MULL_CODEC_ZSTD ? (void *)ZSTD_createDCtx()
                                       : (void *)libdeflate_alloc_decompressor();
}

static void free_unpacker(const struct mull_packer *p, void *d)
{
    if (p->codec == MULL_CODEC_ZSTD)
        ZSTD_freeDCtx(d);
    else
        libdeflate_free_decompressor(d);
}

void mull_packer_destroy(struct mull_packer *p)
{
    if (!p)
        return;
    while (p->packers.count)
        free_packer(p, p->packers.idle[--p->packers.count]);
    while (p->unpackers.count)
        free_unpacker(p, p->unpackers.idle[--p->unpackers.count]);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

static void *pool_get(struct mull_packer *p, struct pool *pool)
{
    pthread_mutex_lock(&p->lock);
    void *context = pool->count ? pool->idle[--pool->count] : NULL;
    pthread_mutex_unlock(&p->lock);
    return context;
}

/* @return whether there was room for it */
static bool pool_put(struct mull_packer *p, struct pool *pool, void *context)
{
    pthread_mutex_lock(&p->lock);
    bool room = pool->count < IDLE_MAX;
    if (room)
        pool->idle[pool->count++] = context;
    pthread_mutex_unlock(&p->lock);
    return room;
}

int64_t mull_pack(struct mull_packer *p, const void *in, uint32_t length, void *out, uint32_t room)
{
    void *c = pool_get(p, &p->packers);
    size_t n = 0;

    if (!c && !(c = new_packer(p)))
        return -ENOMEM;
    switch (p->codec) {
    case MULL_CODEC_DEFLATE:
        n = libdeflate_deflate_compress(c, in, length, out, room);
        break;
    case MULL_CODEC_ZLIB:
        n = libdeflate_zlib_compress(c, in, length, out, room);
        break;
    case MULL_CODEC_ZSTD:
        n = ZSTD_compress2(c, out, room, in, length);
        if (ZSTD_isError(n))
            n = 0;
        break;
    }
    if (!pool_put(p, &p->packers, c))
        free_packer(p, c);
    return (int64_t)n;
}

/* For what is not whole frames and no more. */
static int unpack_zstd_stream(ZSTD_DCtx *d, const void *in, uint32_t length, void *out,
                              uint32_t want)
{
    ZSTD_inBuffer from = {in, length, 0};
    ZSTD_outBuffer to = {out, want, 0};
    int ret = 0;

    ZSTD_DCtx_reset(d, ZSTD_reset_session_only);
    while (to.pos < to.size && !ret) {
        size_t in_before = from.pos, out_before = to.pos;
        size_t n = ZSTD_decompressStream(d, &to, &from);
        if (ZSTD_isError(n) || (from.pos == in_before && to.pos == out_before))
            ret = -EIO;
    }
    return ret;
}

static int unpack_zstd(ZSTD_DCtx *d, const void *in, uint32_t length, void *out, uint32_t want)
{
    /* One frame, most likely; bytes of a neighbour may lie behind it. */
    size_t frame = ZSTD_findFrameCompressedSize(in, length);
    if (!ZSTD_isError(frame) && ZSTD_decompressDCtx(d, out, want, in, frame) == want)
        return 0;
    return unpack_zstd_stream(d, in, length, out, want);
}

int mull_unpack(struct mull_packer *p, const void *in, uint32_t length, void *out, uint32_t want)
{
    void *d = pool_get(p, &p->unpackers);
    size_t used, got = 0;
    int ret;

    if (!d && !(d = new_unpacker(p)))
        return -ENOMEM;
    if (p->codec == MULL_CODEC_ZSTD) {
        ret = unpack_zstd(d, in, length, out, want);
    } else {
        enum libdeflate_result result =
            p->codec == MULL_CODEC_DEFLATE
                ? libdeflate_deflate_decompress_ex(d, in, length, out, want, &used, &got)
                : libdeflate_zlib_decompress_ex(d, in, length, out, want, &used, &got);
        ret = result == LIBDEFLATE_SUCCESS && got == want ? 0 : -EIO;
    }
    if (!pool_put(p, &p->unpackers, d))
        free_unpacker(p, d);
    return ret;
}
