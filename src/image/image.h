/*
 * An opened image and what a disk format must answer about it. A format says where a range is
 * (map), gives a place for a range (place, then link once the data is there) and keeps its own
 * metadata in order; the transfers, copy-on-write and chains are done once, in image.c and block.c.
 * Knows bytes, never machines.
 */
#ifndef MULL_IMAGE_IMAGE_H
#define MULL_IMAGE_IMAGE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/uio.h>

#include "base/error.h"
#include "base/log.h"
#include "image/file.h"
#include "image/meta.h"

struct mull_image;
struct mull_format;
struct mull_bitmap_set;

/** The largest virtual disk we handle, in any format. */
#define MULL_IMAGE_SIZE_MAX (UINT64_C(1) << 60)
/** Images in one chain. */
#define MULL_IMAGE_CHAIN_MAX 128

enum mull_extent_kind {
    MULL_EXTENT_HOLE,   /* nothing here: the backing image's content, zeroes without one */
    MULL_EXTENT_ZERO,   /* reads as zeroes */
    MULL_EXTENT_DATA,   /* at `offset` of `file` */
    MULL_EXTENT_PACKED, /* compressed: format->unpack() reads it */
};

/** Where a range is. */
struct mull_extent {
    enum mull_extent_kind kind;
    uint64_t length;        /* from the guest offset asked for; at least 1 */
    struct mull_file *file; /* DATA, PACKED */
    uint64_t offset;        /* DATA: of the guest offset asked for; PACKED: of the unit's bytes */
    bool writable;          /* DATA: may be overwritten where it is */
    bool allocated;         /* ZERO: has a place reserved all the same */
    uint64_t unit_start;    /* PACKED: the guest offset of the compressed unit */
    uint32_t unit_length;   /* PACKED: its unpacked length */
    uint32_t packed_length; /* PACKED: its bytes in the file (an upper bound) */
};

/** A place for a range that has none of its own. */
struct mull_place {
    uint64_t start;  /* guest offset, at or before the one asked for */
    uint64_t length; /* whole units, or cut off at the end of the disk */
    struct mull_file *file;
    uint64_t offset;    /* where `start` goes */
    bool fresh;         /* reads as zeroes there already */
    uint64_t cookie[4]; /* the format's own */
};

/** Options shared by opening and creating. */
struct mull_image_options {
    const char *path;
    const char *format; /* NULL or "auto": detect */
    bool readonly;
    bool direct;
    bool no_lock;
    bool no_backing;      /* open only this image; holes read as zeroes */
    bool unsafe;          /* no flushes: for tools */
    bool bulk;            /* much will be written (see mull_file_options) */
    bool guest_disk;      /* a writable raw disk must be asked for as format=raw where a guest could
                             have written another format's header */
    bool repair;          /* open also what is marked corrupt or was not closed, to check it */
    bool anywhere;        /* names of extents and data files in an image may lead anywhere */
    bool plain;           /* not what was compressed: a backing file */
    bool no_parent_check; /* accept a parent that has changed since the child was made */
    const char *snapshot; /* QCOW2: read an internal snapshot (readonly only) */
    uint64_t offset, length; /* only this part of the file (length 0: all), read-only */
    const struct mull_file_observer *observer;
    const struct mull_given_files *given; /* see mull_file_options */
    const struct mull_log *log;
    const struct mull_source_options
        *source; /* for URLs, packed and encrypted files; may be NULL */
};

/** What mullion image info shows; strings belong to the image. */
struct mull_image_info {
    uint32_t unit;           /* allocation unit, 0 if none */
    char details[16][2][64]; /* format-specific name and value */
    int ndetails;
};

struct mull_create_options {
    const char *path;
    uint64_t size;
    const char *backing; /* or NULL */
    const char *backing_format;
    const char *subformat;
    uint32_t unit;           /* 0: the format's own */
    const char *compression; /* "zlib", "zstd" */
    const char *version;     /* QCOW2: "2", "3" */
    const char *data_file;
    bool lazy_refcounts;
    bool extended_l2;
    bool data_file_raw;
    int refcount_bits; /* 0: 16 */
    bool unsafe;
    const struct mull_file_observer *observer;
};

/** One finding of a check. */
struct mull_check {
    FILE *out; /* findings in words; NULL: only counted */
    bool repair;
    uint64_t corruptions, leaks, errors, fixed;
    uint64_t allocated, total; /* units */
};

struct mull_snapshot {
    char id[32];
    char name[256];
    uint64_t size;
    uint64_t vm_state_size;
    uint64_t date_s;
    uint32_t date_ns;
    uint64_t vm_clock_ns;
};

/**
 * A disk format. Everything but `name`, `probe`, `open`, `close` and `map` may be NULL.
 * All but open and close are called with the image's lock held, unless said otherwise.
 */
struct mull_format {
    const char *name;
    const char *const *aliases; /* other names, e.g. "vpc"; ends with NULL */
    /* 0: no; else how sure (100: a magic number). @head holds the first @len bytes. */
    int (*probe)(const uint8_t *head, size_t len, const uint8_t *tail, const char *path);
    /* image->file is open; sets image->size, unit, state, backing_path. */
    int (*open)(struct mull_image *image, const struct mull_image_options *options,
                struct mull_error *err);
    /* Free `state`. Everything is flushed, or lost. */
    void (*close)(struct mull_image *image);
    /* Mark a clean close (after the last flush). */
    int (*close_clean)(struct mull_image *image);
    /* Where the range is: fills @out for a first part of it. @cached: give -EAGAIN rather than
     * touch the file. */
    int (*map)(struct mull_image *image, uint64_t offset, uint64_t length, bool cached,
               struct mull_extent *out);
    /* A place for at least the unit that holds @offset. Only where map() said not writable. */
    int (*place)(struct mull_image *image, uint64_t offset, uint64_t length,
                 struct mull_place *out);
    /* The data is at its place: make it reachable (after the next flush at the latest). */
    int (*link)(struct mull_image *image, const struct mull_place *place);
    /* The data could not be written: give the place back. */
    void (*unplace)(struct mull_image *image, const struct mull_place *place);
    /* Make whole units read as zeroes; -EOPNOTSUPP: zeroes must be written. */
    int (*zero)(struct mull_image *image, uint64_t offset, uint64_t length, bool may_unmap);
    /* Forget whole units; they read as zeroes afterwards, never as the backing's content. */
    int (*discard)(struct mull_image *image, uint64_t offset, uint64_t length);
    /* Bring all metadata to the file in order, and make everything durable. */
    int (*flush)(struct mull_image *image);
    /* Unpack a PACKED extent's whole unit. Called without the lock, from any thread. */
    int (*unpack)(struct mull_image *image, const struct mull_extent *extent, void *out);
    /* Pack one unit of data: @return its packed length, 0 if it does not shrink, or -errno.
     * Called without the lock, from any thread. */
    int64_t (*pack)(struct mull_image *image, uint64_t offset, const void *data, uint32_t length,
                    void *out, uint32_t room);
    /* Write a packed unit. */
    int (*write_packed)(struct mull_image *image, uint64_t offset, const void *packed,
                        uint32_t length);

    int (*create)(const struct mull_create_options *options, struct mull_error *err);
    int (*resize)(struct mull_image *image, uint64_t size, bool preallocate,
                  struct mull_error *err);
    int (*check)(struct mull_image *image, struct mull_check *check, struct mull_error *err);
    void (*info)(struct mull_image *image, struct mull_image_info *info);
    int (*snapshot_list)(struct mull_image *image, struct mull_snapshot **out, uint32_t *count);
    int (*snapshot_create)(struct mull_image *image, const char *name, struct mull_error *err);
    int (*snapshot_apply)(struct mull_image *image, const char *name, struct mull_error *err);
    int (*snapshot_delete)(struct mull_image *image, const char *name, struct mull_error *err);
    /* Whether the parent is still the one the image was made on. */
    int (*check_parent)(struct mull_image *image, struct mull_image *parent,
                        struct mull_error *err);
    /* For formats that note how often the parent was written: the parent, which is open for
     * writing and not yet changed, is about to change without the image reading differently. First
     * (@done false) both its old and its new state become the right one, durably; in the end
     * (@done) only the one it has. */
    int (*expect_parent)(struct mull_image *image, struct mull_image *parent, bool done,
                         struct mull_error *err);
    /* Record another backing file (NULL path: none). */
    int (*rebase)(struct mull_image *image, const char *path, const char *format,
                  struct mull_error *err);
    /* The files the image has besides image->file; NULL: no more. */
    struct mull_file *(*part)(struct mull_image *image, uint32_t index);
    /* A number that whoever writes to the image changes. */
    uint64_t (*generation)(struct mull_image *image);
    /* Why the disk cannot be made so small or so large: fails if it must not be done. */
    int (*may_resize)(struct mull_image *image, uint64_t size, struct mull_error *err);
};

/** A range that a request holds. */
struct mull_range {
    uint64_t start, end;
    bool exclusive;
    struct mull_range *next, **link;
};

struct mull_image {
    const struct mull_format *format;
    void *state;
    struct mull_file *file;
    struct mull_meta *meta; /* may be NULL */
    struct mull_image *backing;
    char *path;
    char *backing_path; /* as recorded in the image */
    char *backing_format;
    uint64_t size;
    uint32_t unit;      /* what zero() and discard() work on; 1: any byte */
    uint64_t lock_unit; /* requests that allocate exclude others in this many bytes */
    bool readonly;
    bool unsafe;
    bool raw_guessed; /* nobody said format=raw: see mull_image_guard() */
    bool stream;      /* every unit must be written packed, in order */
    bool failed;      /* metadata could not be written: no more changes */
    const struct mull_log *log;
    pthread_mutex_t lock; /* the metadata */
    pthread_mutex_t range_lock;
    struct mull_range *ranges;
    /* Told of every range before it changes, from any thread (the format's own); may be NULL. Call
     * mull_image_track() of bitmap.h, which tells the bitmaps too. */
    void (*track)(struct mull_image *image, uint64_t offset, uint64_t length);
    struct mull_bitmap_set *bitmaps; /* see bitmap.h; NULL: none, or not looked for */
    bool marking;                    /* one of them records */
    pthread_mutex_t unpack_lock;     /* one unpacked unit is kept */
    uint8_t *unpacked;
    uint32_t unpacked_room;
    uint64_t unpacked_at;   /* its guest offset, UINT64_MAX: none */
    uint64_t unpacked_from; /* and its place in the file */
};

/** Bytes at the start and end of a file that probing looks at. */
#define MULL_PROBE_HEAD 4096u
#define MULL_PROBE_TAIL 512u

/** All formats, ends with NULL. */
extern const struct mull_format *const mull_formats[];

/** Find a format by name or alias. NULL: none. */
const struct mull_format *mull_format_find(const char *name);

/** The format of these first and last bytes (@tail may be NULL); NULL: none that we know. */
const struct mull_format *mull_format_of(const uint8_t *head, size_t len, const uint8_t *tail,
                                         const char *path);

/** Tell the format of an open file from its content. Never fails: what is nothing else is raw. */
const struct mull_format *mull_format_probe(struct mull_file *file, const char *path);

/** Open an image and what it is chained to. */
int mull_image_open(const struct mull_image_options *options, struct mull_image **out,
                    struct mull_error *err);

/** Flush and close, with the chain. @return the flush's result. NULL is allowed. */
int mull_image_close(struct mull_image *image);

/** Close without flushing: what is not flushed is lost, as in a power cut. */
void mull_image_abandon(struct mull_image *image);

/** Resolve a range through the chain. @depth: how many images down (may be NULL). HOLE never comes
 *  out: at the bottom it is ZERO. @owner: the image that has it (for unpack). */
int mull_image_locate(struct mull_image *image, uint64_t offset, uint64_t length, bool cached,
                      struct mull_extent *out, struct mull_image **owner, int *depth);

/** Blocking transfers. The caller keeps other requests off the range (mull_range_try). */
int mull_image_readv(struct mull_image *image, const struct iovec *iov, int niov, uint64_t offset,
                     uint64_t length);
int mull_image_writev(struct mull_image *image, const struct iovec *iov, int niov, uint64_t offset,
                      uint64_t length);
int mull_image_read(struct mull_image *image, void *buf, uint64_t length, uint64_t offset);
int mull_image_write(struct mull_image *image, const void *buf, uint64_t length, uint64_t offset);
int mull_image_zero(struct mull_image *image, uint64_t offset, uint64_t length, bool may_unmap);
/** -EOPNOTSUPP where the format can do no better than to write zeroes. */
int mull_image_zero_fast(struct mull_image *image, uint64_t offset, uint64_t length,
                         bool may_unmap);
int mull_image_discard(struct mull_image *image, uint64_t offset, uint64_t length);
int mull_image_flush(struct mull_image *image);
/** Write one unit that format->pack() has packed. */
int mull_image_write_packed(struct mull_image *image, uint64_t offset, const void *packed,
                            uint32_t length);

/** Change the size; what is new reads as zeroes, whatever lies in a backing file. No request may be
 *  in flight. */
int mull_image_resize(struct mull_image *image, uint64_t size, struct mull_error *err);

/** A read-only view of part of an image (cut to its end), which it then owns. */
int mull_image_window(struct mull_image *image, uint64_t offset, uint64_t length,
                      struct mull_image **out, struct mull_error *err);

/** Whether a flush is no more than an fdatasync of one file, returned in @file. */
bool mull_image_flush_is_plain(struct mull_image *image, struct mull_file **file);

/** A disk that was taken for raw because it looked like nothing else must stay so: refuse (-EPERM)
 *  a write that would make its first or last bytes another format's. */
int mull_image_guard(struct mull_image *image, const struct iovec *iov, int niov, uint64_t offset,
                     uint64_t length);
/** Whether a write is near enough to those bytes to be asked about. */
bool mull_image_guarded(const struct mull_image *image, uint64_t offset, uint64_t length);

/** Hold a range, if nobody else does; exclusive ones keep everybody else out. 0 or -EAGAIN. */
int mull_range_try(struct mull_image *image, struct mull_range *range, uint64_t offset,
                   uint64_t length, bool exclusive);
void mull_range_release(struct mull_image *image, struct mull_range *range);

/** The image that a new one is to be made on, read-only; -EINVAL where it is not of @format. */
int mull_image_open_parent(const struct mull_create_options *options,
                           const struct mull_format *format, struct mull_image **out,
                           struct mull_error *err);

/** Path of a file named inside an image: relative to that image. @return malloc'ed, or NULL. */
char *mull_image_relative_path(const char *image_path, const char *name);

/** Open a further file of the same image (an extent, a data file) that is named in it, as the image
 *  was opened. The name must not lead out of the image's folder, nor to anything but a regular
 * file, unless options->anywhere. @what: "extent", for the message. */
int mull_image_open_named(const struct mull_image *image, const struct mull_image_options *options,
                          const char *name, const char *what, struct mull_file **out,
                          struct mull_error *err);

/** Open a further file of the same image, as the image was opened. */
int mull_image_open_part(const struct mull_image *image, const struct mull_image_options *options,
                         const char *path, struct mull_file **out, struct mull_error *err);

/** Add a line to what `info` shows. */
void mull_info_add(struct mull_image_info *info, const char *name, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Big- and little-endian fields of on-disk structures. */
static inline uint16_t mull_be16(const void *p)
{
    const uint8_t *b = p;
    return (uint16_t)(b[0] << 8 | b[1]);
}
static inline uint32_t mull_be32(const void *p)
{
    return (uint32_t)mull_be16(p) << 16 | mull_be16((const uint8_t *)p + 2);
}
static inline uint64_t mull_be64(const void *p)
{
    return (uint64_t)mull_be32(p) << 32 | mull_be32((const uint8_t *)p + 4);
}
static inline uint16_t mull_le16(const void *p)
{
    const uint8_t *b = p;
    return (uint16_t)(b[1] << 8 | b[0]);
}
static inline uint32_t mull_le32(const void *p)
{
    return (uint32_t)mull_le16((const uint8_t *)p + 2) << 16 | mull_le16(p);
}
static inline uint64_t mull_le64(const void *p)
{
    return (uint64_t)mull_le32((const uint8_t *)p + 4) << 32 | mull_le32(p);
}
static inline void mull_put_be16(void *p, uint16_t v)
{
    uint8_t *b = p;
    b[0] = (uint8_t)(v >> 8);
    b[1] = (uint8_t)v;
}
static inline void mull_put_be32(void *p, uint32_t v)
{
    mull_put_be16(p, (uint16_t)(v >> 16));
    mull_put_be16((uint8_t *)p + 2, (uint16_t)v);
}
static inline void mull_put_be64(void *p, uint64_t v)
{
    mull_put_be32(p, (uint32_t)(v >> 32));
    mull_put_be32((uint8_t *)p + 4, (uint32_t)v);
}
static inline void mull_put_le16(void *p, uint16_t v)
{
    uint8_t *b = p;
    b[1] = (uint8_t)(v >> 8);
    b[0] = (uint8_t)v;
}
static inline void mull_put_le32(void *p, uint32_t v)
{
    mull_put_le16((uint8_t *)p + 2, (uint16_t)(v >> 16));
    mull_put_le16(p, (uint16_t)v);
}
static inline void mull_put_le64(void *p, uint64_t v)
{
    mull_put_le32((uint8_t *)p + 4, (uint32_t)(v >> 32));
    mull_put_le32(p, (uint32_t)v);
}

#endif
