/*
 * Changed-block tracking: persistent bitmaps that note which parts of an image have changed since a
 * bitmap was added or cleared. They are kept in the image where its format has a place (QCOW2
 * version 3) and in a file beside it elsewhere (FILE.cbt, docs/images.md). A bitmap that may lack a
 * change is "unknown": all of the disk counts as changed. Knows bits, never what is in the blocks.
 *
 * Everything but mull_bitmaps_mark() belongs to tools: no request may be in flight. What they
 * change is on the disk once the image was closed; a crash before leaves the bitmaps unknown.
 */
#ifndef MULL_IMAGE_BITMAP_H
#define MULL_IMAGE_BITMAP_H

#include "image/image.h"

#define MULL_BITMAP_NAME_MAX 1023u
#define MULL_BITMAP_GRANULARITY 65536u
/** Bytes of bits that an image's bitmaps may take in memory. */
#define MULL_BITMAP_BITS_MAX (UINT64_C(512) << 20)

struct mull_bitmap {
    struct mull_bitmap *next;
    char *name;
    uint32_t granularity_bits;
    uint64_t nbits; /* for the image's size */
    uint8_t *bits;  /* NULL: not loaded */
    bool recording; /* notes writes */
    bool unknown;   /* everything counts as changed */
    bool changed;   /* differs from what is on the disk */
    void *own;      /* the store's */
};

/** Where bitmaps are kept. Called with the image's lock held. */
struct mull_bitmap_store {
    bool one_mark; /* one mark counts for all bitmaps, whether they record or not */
    /* Fill bitmap->bits (nbits of them, zeroed) from the disk. */
    int (*load)(struct mull_image *image, struct mull_bitmap *bitmap);
    /* Mark on the disk, durably, that what it says of changed bitmaps is not true any more. */
    int (*begin)(struct mull_image *image);
    /* Write everything and take the mark away: all else of the image is flushed. */
    int (*save)(struct mull_image *image);
    /* Let go of bitmap->own; @removed: and of its place on the disk. */
    void (*drop)(struct mull_image *image, struct mull_bitmap *bitmap, bool removed);
    /* NULL or: free what `state` holds. */
    void (*close)(struct mull_image *image);
};

struct mull_bitmap_set {
    const struct mull_bitmap_store *store;
    struct mull_bitmap *first;
    pthread_rwlock_t lock; /* the list and the bits' places, against those who mark */
    bool in_use;           /* the disk says so */
    bool changed;          /* bitmaps came or went */
    void *state;           /* the store's */
};

/** Note a change of a range, from any thread, before it happens. One test of a bit where the range
 *  is noted already. Call mull_image_track() instead: formats want to know of changes too. */
void mull_bitmaps_mark(struct mull_image *image, uint64_t offset, uint64_t length);

/** Whoever writes past image.c's functions tells of it here first. */
static inline void mull_image_track(struct mull_image *image, uint64_t offset, uint64_t length)
{
    if (image->track)
        image->track(image, offset, length);
    if (image->marking)
        mull_bitmaps_mark(image, offset, length);
}

/** The image's bitmaps, first to last in image->bitmaps. Reads the file beside a read-only image.
 */
int mull_bitmaps_get(struct mull_image *image, struct mull_error *err);

/** Find one by name; NULL: there is none. After mull_bitmaps_get(). */
struct mull_bitmap *mull_bitmap_find(struct mull_image *image, const char *name);

/** Begin to record. @granularity: bytes a bit stands for, a power of two from 512 to 2 GiB; 0: 64
 * KiB */
int mull_bitmap_add(struct mull_image *image, const char *name, uint32_t granularity,
                    struct mull_error *err);
int mull_bitmap_remove(struct mull_image *image, const char *name, struct mull_error *err);
/** Forget all changes; what was unknown is known again. */
int mull_bitmap_clear(struct mull_image *image, const char *name, struct mull_error *err);
/** Add the changes that @from knows to @into. */
int mull_bitmap_merge(struct mull_image *image, const char *into, const char *from,
                      struct mull_error *err);

/** Bring the bits into memory, for mull_bitmap_next(); nothing to do for those that record. */
int mull_bitmap_load(struct mull_image *image, struct mull_bitmap *bitmap, struct mull_error *err);

/** The next changed range at or after @offset. An unknown bitmap: all that is left of the disk.
 *  @return false: there is none. */
bool mull_bitmap_next(const struct mull_image *image, const struct mull_bitmap *bitmap,
                      uint64_t offset, uint64_t *start, uint64_t *end);

/** Bytes that count as changed. */
uint64_t mull_bitmap_count(const struct mull_image *image, const struct mull_bitmap *bitmap);

/* For stores, image.c and open.c: */

/** A set without bitmaps. */
int mull_bitmaps_create(struct mull_image *image, const struct mull_bitmap_store *store);
/** Append a bitmap without bits. NULL: out of memory. */
struct mull_bitmap *mull_bitmaps_append(struct mull_image *image, const char *name,
                                        size_t name_length, uint32_t granularity_bits);
/** Load all that record and mark them in use: the image was opened for writing. */
int mull_bitmaps_start(struct mull_image *image, struct mull_error *err);
/** Make all bitmaps fit a disk of @size bytes. The image's lock is held. */
int mull_bitmaps_fit(struct mull_image *image, uint64_t size);
void mull_bitmaps_free(struct mull_image *image);

/** The file beside the image; where there is none, the image has no bitmaps. */
int mull_bitmap_file_open(struct mull_image *image, struct mull_error *err);
/** On a clean close, when the image itself is done. */
int mull_bitmap_file_close(struct mull_image *image);

#endif
