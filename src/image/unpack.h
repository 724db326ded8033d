/*
 * What the files that read compressed sources share: a codec finds places to start from, and
 * produces bytes in order from there. Private to src/image/unpack*.c.
 */
#ifndef MULL_IMAGE_UNPACK_H
#define MULL_IMAGE_UNPACK_H

#include <pthread.h>

#include "image/file.h"
#include "image/pieces.h"

#define UNPACK_INPUT 65536u
#define UNPACK_POINTS 1024
/* What a decoder may take: xz -9 needs 65 MiB, zstd --ultra -22 128 MiB. */
#define UNPACK_MEMORY (UINT64_C(256) << 20)
#define UNPACK_DECODERS 2

struct unpack_source;

/** A place to start from. */
struct unpack_point {
    uint64_t in, out;
    int bits;        /* gzip: bits of the byte before `in` that come first */
    uint8_t *window; /* gzip, inside a member: the 32 KiB before; else NULL */
};

struct unpack_decoder {
    void *state;  /* the codec's */
    uint64_t in;  /* next byte to read from the file */
    uint64_t out; /* next byte to come */
    bool started, busy, end;
    uint64_t used;    /* when */
    uint64_t claimed; /* while busy: where it was, or went to start */
    uint32_t input_at, input_end;
    uint8_t input[UNPACK_INPUT];
};

struct unpack_codec {
    const char *name;
    const char *magic;
    size_t magic_length;
    /* Find the size and places to start from. */
    int (*index)(struct unpack_source *s, struct mull_error *err);
    /* Where it would start for an offset. */
    uint64_t (*nearest)(struct unpack_source *s, uint64_t offset);
    /* Start there. */
    int (*start)(struct unpack_source *s, struct unpack_decoder *d, uint64_t offset);
    /* Produce up to @room bytes; fewer only at the end. @return 0 or -errno */
    int (*produce)(struct unpack_source *s, struct unpack_decoder *d, uint8_t *buf, size_t room,
                   size_t *got);
    void (*stop)(struct unpack_decoder *d);
    void (*close)(struct unpack_source *s); /* or NULL */
};

struct unpack_source {
    const struct unpack_codec *codec;
    struct mull_file *below;
    void *state; /* the codec's */
    uint64_t size, max_size;
    uint64_t span; /* bytes between two points, at least */
    uint32_t npoints;
    struct unpack_point points[UNPACK_POINTS];
    struct mull_pieces *pieces;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint64_t clock;
    struct unpack_decoder *decoders[UNPACK_DECODERS];
};

extern const struct unpack_codec unpack_gzip, unpack_xz, unpack_zstd, unpack_bzip2;

/** More input, if there is any: then input_at < input_end. @return 0 or -errno */
int unpack_fill(struct unpack_source *s, struct unpack_decoder *d);
/** Add a point if it is far enough from the last one. @window: 32 KiB to copy, or NULL. */
int unpack_add_point(struct unpack_source *s, uint64_t in, uint64_t out, int bits,
                     const uint8_t *window);
/** The last point at or before @offset. */
const struct unpack_point *unpack_point_at(const struct unpack_source *s, uint64_t offset);
/** A codec's nearest() where points are all there is. */
uint64_t unpack_nearest_point(struct unpack_source *s, uint64_t offset);
/** Decode everything once, for the size and, if the codec adds them meanwhile, the points. */
int unpack_scan(struct unpack_source *s, struct mull_error *err);
/** "file: unpacks to more than ..." if it does. */
int unpack_bound(const struct unpack_source *s, uint64_t size, struct mull_error *err);

#endif
