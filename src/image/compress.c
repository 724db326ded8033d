/* Compression with libdeflate and libzstd. See compress.h. */
#include "image/compress.h"

#include <errno.h>
#include <libdeflate.h>
#include <pthread.h>
#include <stdlib.h>
#include <zstd.h>

#define IDLE_MAX 64

struct mull_packer {
    enum mull_codec codec;
    int level;
    pthread_mutex_t lock;
    void *idle[IDLE_MAX];
    int nidle;
};

struct mull_packer *mull_packer_create(enum mull_codec codec, int level)
{
    struct mull_packer *p = calloc(1, sizeof(*p));
    if (!p)
        return NULL;
    p->codec = codec;
    p->level = level ? level : codec == MULL_CODEC_ZSTD ? 3 : 6;
    pthread_mutex_init(&p->lock, NULL);
    return p;
}

static void free_one(const struct mull_packer *p, void *compressor)
{
    if (p->codec == MULL_CODEC_ZSTD)
        ZSTD_freeCCtx(compressor);
    else
        libdeflate_free_compressor(compressor);
}

void mull_packer_destroy(struct mull_packer *p)
{
    if (!p)
        return;
    while (p->nidle)
        free_one(p, p->idle[--p->nidle]);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

int64_t mull_pack(struct mull_packer *p, const void *in, uint32_t length, void *out, uint32_t room)
{
    void *c = NULL;
    size_t n = 0;

    pthread_mutex_lock(&p->lock);
    if (p->nidle)
        c = p->idle[--p->nidle];
    pthread_mutex_unlock(&p->lock);
    if (!c)
        c = p->codec == MULL_CODEC_ZSTD ? (void *)ZSTD_createCCtx()
                                        : (void *)libdeflate_alloc_compressor(p->level);
    if (!c)
        return -ENOMEM;
    switch (p->codec) {
    case MULL_CODEC_DEFLATE:
        n = libdeflate_deflate_compress(c, in, length, out, room);
        break;
    case MULL_CODEC_ZLIB:
        n = libdeflate_zlib_compress(c, in, length, out, room);
        break;
    case MULL_CODEC_ZSTD:
        n = ZSTD_compressCCtx(c, out, room, in, length, p->level);
        if (ZSTD_isError(n))
            n = 0;
        break;
    }
    pthread_mutex_lock(&p->lock);
    if (p->nidle < IDLE_MAX) {
        p->idle[p->nidle++] = c;
        c = NULL;
    }
    pthread_mutex_unlock(&p->lock);
    if (c)
        free_one(p, c);
    return (int64_t)n;
}

static int unpack_zstd(const void *in, uint32_t length, void *out, uint32_t want)
{
    ZSTD_DCtx *d = ZSTD_createDCtx();
    if (!d)
        return -ENOMEM;
    ZSTD_inBuffer from = {in, length, 0};
    ZSTD_outBuffer to = {out, want, 0};
    int ret = 0;
    while (to.pos < to.size && !ret) {
        size_t in_before = from.pos, out_before = to.pos;
        size_t n = ZSTD_decompressStream(d, &to, &from);
        if (ZSTD_isError(n) || (from.pos == in_before && to.pos == out_before))
            ret = -EIO;
    }
    ZSTD_freeDCtx(d);
    return ret;
}

int mull_unpack(enum mull_codec codec, const void *in, uint32_t length, void *out, uint32_t want)
{
    size_t used, got = 0;
    enum libdeflate_result result;

    if (codec == MULL_CODEC_ZSTD)
        return unpack_zstd(in, length, out, want);
    struct libdeflate_decompressor *d = libdeflate_alloc_decompressor();
    if (!d)
        return -ENOMEM;
    if (codec == MULL_CODEC_DEFLATE)
        result = libdeflate_deflate_decompress_ex(d, in, length, out, want, &used, &got);
    else
        result = libdeflate_zlib_decompress_ex(d, in, length, out, want, &used, &got);
    libdeflate_free_decompressor(d);
    return result == LIBDEFLATE_SUCCESS && got == want ? 0 : -EIO;
}
