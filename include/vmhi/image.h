/*
 * VMHI, the image interface: disk images in the formats the world has, from C and without a
 * machine: open, read and write in place, create, convert, check. docs/images.md says what each
 * format can. Version 0: it may still change until 1.0, and says so in VMHI_IMAGE_API.
 *
 * An image is used by one thread at a time, but for vmhi_image_convert() and vmhi_image_compare(),
 * which make threads of their own. Nothing here ends the process. Images are untrusted: a bad one
 * is an error that names the field.
 */
#ifndef VMHI_IMAGE_H
#define VMHI_IMAGE_H

#include <stddef.h>
#include <stdint.h>

#include "vmhi/machine.h" /* struct vmhi_error, VMHI_EXPORT */

#ifdef __cplusplus
extern "C" {
#endif

#define VMHI_IMAGE_API 0 /* 1 and on: compatible for ever after */

struct vmhi_image;

enum vmhi_image_flags {
    VMHI_IMAGE_READONLY = 1,
    VMHI_IMAGE_NO_LOCK = 2,    /* do not keep other writers out */
    VMHI_IMAGE_NO_BACKING = 4, /* this image alone: what it lacks reads as zeroes */
    VMHI_IMAGE_NO_FLUSH = 8, /* a flush does nothing: for a result that is worthless until whole */
};

/** How an image is opened or created. Set `size` to sizeof(struct vmhi_image_options) and the rest
 *  to zero but for what you want: later versions only append. */
struct vmhi_image_options {
    size_t size;
    const char *path;
    const char *format;   /* "raw", "qcow2", ...; NULL: detect (open), raw (create) */
    unsigned flags;       /* enum vmhi_image_flags */
    const char *snapshot; /* open: an internal snapshot (read-only) */
    /* create only: */
    uint64_t disk_size;    /* bytes, whole sectors of 512 */
    const char *subformat; /* "monolithicSparse", "streamOptimized", "fixed", ... */
    const char *backing;   /* the image below, relative to this one; or NULL */
    const char *backing_format;
    const char *compression; /* QCOW2: "zlib", "zstd" */
    uint32_t unit;           /* cluster or block size; 0: the format's own */
    /* open, read-only: `path` may also be a URL (nbd, nbds, nbd+unix, nbds+unix, http, https), and
     * the file compressed (gzip, xz, zstd, bzip2) or encrypted (LUKS1) as a whole */
    const char *ca_file;  /* https: authorities to trust instead of the system's (PEM); or NULL */
    const char *key_file; /* LUKS: the passphrase, all of the file; or NULL */
    uint64_t max_size;    /* bytes that a compressed file may unpack to; 0: 2 TiB */
};

/** What an image is. Set `size` before the call; strings live as long as the image. */
struct vmhi_image_info {
    size_t size;
    const char *format;
    const char *backing; /* as it is named in the image, or NULL */
    uint64_t disk_size;
    uint32_t unit; /* allocation unit in bytes, 0: none */
    int readonly;
};

enum vmhi_extent_kind {
    VMHI_EXTENT_ZERO = 0,
    VMHI_EXTENT_DATA = 1,
    VMHI_EXTENT_COMPRESSED = 2,
};

/** One piece of an image's map. Set `size` before the call. */
struct vmhi_extent {
    size_t size;
    enum vmhi_extent_kind kind;
    uint64_t length;  /* from the offset asked for */
    uint64_t offset;  /* in `file` (DATA) */
    const char *file; /* or NULL */
    int depth;        /* how many images below the top one */
};

/** What a check found. Set `size` before the call. */
struct vmhi_image_check {
    size_t size;
    uint64_t corruptions, leaks, fixed;
};

/** Told how far a long operation is; non-zero stops it (-ECANCELED). From any thread. */
typedef int (*vmhi_progress)(void *opaque, uint64_t done, uint64_t total);

/** Open an image with all it is chained to. @return 0 and *out, or a negative errno. */
VMHI_EXPORT int vmhi_image_open(const struct vmhi_image_options *options, struct vmhi_image **out,
                                struct vmhi_error *err);

/** Flush and close. @return what the flush did: an image is whole only after 0. */
VMHI_EXPORT int vmhi_image_close(struct vmhi_image *image);

/** Make an image; an existing file is overwritten unless somebody uses it. */
VMHI_EXPORT int vmhi_image_create(const struct vmhi_image_options *options, struct vmhi_error *err);

VMHI_EXPORT int vmhi_image_get_info(struct vmhi_image *image, struct vmhi_image_info *info);

/** Bytes at any offset. @return 0, -EINVAL out of range, -EROFS, or what the disk said. */
VMHI_EXPORT int vmhi_image_read(struct vmhi_image *image, uint64_t offset, void *buf,
                                uint64_t length);
VMHI_EXPORT int vmhi_image_write(struct vmhi_image *image, uint64_t offset, const void *buf,
                                 uint64_t length);
/** Make a range read as zeroes, without space where that is possible. */
VMHI_EXPORT int vmhi_image_zero(struct vmhi_image *image, uint64_t offset, uint64_t length);
/** A range's content no longer matters. */
VMHI_EXPORT int vmhi_image_discard(struct vmhi_image *image, uint64_t offset, uint64_t length);
/** All that was written is durable after 0. */
VMHI_EXPORT int vmhi_image_flush(struct vmhi_image *image);

/** Where a range is, through the chain. */
VMHI_EXPORT int vmhi_image_map(struct vmhi_image *image, uint64_t offset, uint64_t length,
                               struct vmhi_extent *extent);

/** Change the disk's size; what is new reads as zeroes. */
VMHI_EXPORT int vmhi_image_resize(struct vmhi_image *image, uint64_t disk_size,
                                  struct vmhi_error *err);

/** Copy all of @source into a new @target, on all cores. @compress: with the target's codec. */
VMHI_EXPORT int vmhi_image_convert(struct vmhi_image *source,
                                   const struct vmhi_image_options *target, int compress,
                                   vmhi_progress progress, void *opaque, struct vmhi_error *err);

/** @return 0 same content, 1 different from *where on, or a negative errno. */
VMHI_EXPORT int vmhi_image_compare(struct vmhi_image *a, struct vmhi_image *b, uint64_t *where,
                                   vmhi_progress progress, void *opaque, struct vmhi_error *err);

/** Check the metadata; @repair needs an image opened for writing. -ENOTSUP: nothing to check. */
VMHI_EXPORT int vmhi_image_run_check(struct vmhi_image *image, int repair,
                                     struct vmhi_image_check *check, struct vmhi_error *err);

/* ---- Changed-block tracking ---- */

/** A bitmap of what has changed since it was added or cleared. Set `size` before the call; the name
 *  lives until the bitmap is removed or the image closed. */
struct vmhi_image_bitmap {
    size_t size;
    const char *name;
    uint64_t granularity;   /* bytes that one bit stands for */
    uint64_t changed_bytes; /* all of the disk where it is unknown */
    int recording;
    int unknown; /* a change may be missing (a crash, another writer): everything counts as changed
                  */
};

/** A changed range. Set `size` before the call. */
struct vmhi_image_change {
    size_t size;
    uint64_t offset, length;
    int unknown; /* the whole disk, as nobody knows */
};

/** Bitmap number @index, from 0. @return 0, -ENOENT: there are no more, or a negative errno. */
VMHI_EXPORT int vmhi_image_get_bitmap(struct vmhi_image *image, unsigned index,
                                      struct vmhi_image_bitmap *bitmap, struct vmhi_error *err);

/** Begin to track changes. @granularity: a power of two from 512; 0: 64 KiB. What these four change
 *  is on the disk after vmhi_image_close(); a crash before makes the bitmaps unknown. */
VMHI_EXPORT int vmhi_image_add_bitmap(struct vmhi_image *image, const char *name,
                                      uint32_t granularity, struct vmhi_error *err);
VMHI_EXPORT int vmhi_image_remove_bitmap(struct vmhi_image *image, const char *name,
                                         struct vmhi_error *err);
VMHI_EXPORT int vmhi_image_clear_bitmap(struct vmhi_image *image, const char *name,
                                        struct vmhi_error *err);
VMHI_EXPORT int vmhi_image_merge_bitmap(struct vmhi_image *image, const char *into,
                                        const char *from, struct vmhi_error *err);

/** The next changed range at or after @offset. A bitmap that does not exist is unknown.
 *  @return 0, -ENOENT: there is none, or a negative errno. */
VMHI_EXPORT int vmhi_image_next_change(struct vmhi_image *image, const char *bitmap,
                                       uint64_t offset, struct vmhi_image_change *change,
                                       struct vmhi_error *err);

/* ---- Snapshots and chains ---- */

/** An internal snapshot. Set `size` before the call. */
struct vmhi_image_snapshot {
    size_t size;
    char id[32];
    char name[256];
    uint64_t disk_size;
    uint64_t date_s; /* since 1970 */
};

/** Snapshot number @index, from 0. @return 0, -ENOENT: there are no more, -ENOTSUP: the format has
 *  none, or a negative errno. */
VMHI_EXPORT int vmhi_image_get_snapshot(struct vmhi_image *image, unsigned index,
                                        struct vmhi_image_snapshot *snapshot,
                                        struct vmhi_error *err);
VMHI_EXPORT int vmhi_image_create_snapshot(struct vmhi_image *image, const char *name,
                                           struct vmhi_error *err);
VMHI_EXPORT int vmhi_image_apply_snapshot(struct vmhi_image *image, const char *name,
                                          struct vmhi_error *err);
VMHI_EXPORT int vmhi_image_delete_snapshot(struct vmhi_image *image, const char *name,
                                           struct vmhi_error *err);

/** Copy what an image, which nobody has open, holds into the one below it. */
VMHI_EXPORT int vmhi_image_commit(const struct vmhi_image_options *options, vmhi_progress progress,
                                  void *opaque, struct vmhi_error *err);

/** Put an image, which nobody has open, on the one that options->backing names (none: NULL),
 * copying first what would read differently. */
VMHI_EXPORT int vmhi_image_rebase(const struct vmhi_image_options *options, struct vmhi_error *err);

#ifdef __cplusplus
}
#endif

#endif
