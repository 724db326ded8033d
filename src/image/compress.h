/*
 * Compressing and unpacking the units of compressed images. What is unpacked is untrusted: output
 * never grows past the room given. Knows bytes, never formats.
 */
#ifndef MULL_IMAGE_COMPRESS_H
#define MULL_IMAGE_COMPRESS_H

#include <stdbool.h>
#include <stdint.h>

enum mull_codec {
    MULL_CODEC_DEFLATE, /* raw deflate, RFC 1951 */
    MULL_CODEC_ZLIB,    /* with zlib's header, RFC 1950 */
    MULL_CODEC_ZSTD,    /* RFC 8878 */
};

struct mull_packer;

/** A pool of compressors and decompressors of one kind, for any number of threads. @level 0: the
 *  usual one. */
struct mull_packer *mull_packer_create(enum mull_codec codec, int level);
void mull_packer_destroy(struct mull_packer *packer);

/** Compress. @return bytes written, 0 if they would not fit in @room, or -ENOMEM. */
int64_t mull_pack(struct mull_packer *packer, const void *in, uint32_t length, void *out,
                  uint32_t room);

/** Unpack exactly @want bytes (bytes behind the end of the stream are ignored).
 *  @return 0 or -EIO, -ENOMEM. */
int mull_unpack(struct mull_packer *packer, const void *in, uint32_t length, void *out,
                uint32_t want);

#endif
