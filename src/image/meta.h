/*
 * A write-back cache of a format's metadata (tables, bitmaps, refcounts), written in stages: what a
 * later stage points at is on the disk before the pointer is. A format says at which stage each
 * change must go; between two stages everything written so far is made durable. Knows bytes and
 * order, never formats.
 */
#ifndef MULL_IMAGE_META_H
#define MULL_IMAGE_META_H

#include <stdbool.h>
#include <stdint.h>

#include "image/file.h"

struct mull_meta;

#define MULL_META_STAGES 6

/**
 * Create a cache over one file.
 *
 * @param page   bytes of a page, a power of two from 512 to 65536: structures and data never share
 *               one
 * @param limit  bytes of clean pages to keep
 */
struct mull_meta *mull_meta_create(struct mull_file *file, uint32_t page, uint64_t limit);

/** Free it; what is dirty is lost. NULL is allowed. */
void mull_meta_destroy(struct mull_meta *meta);

/** Another file whose data must be durable before any pointer to it is (up to 1024). */
int mull_meta_depend(struct mull_meta *meta, struct mull_file *file);

/** A dirty page on its way to the file. */
struct mull_meta_page {
    uint64_t offset;
    const uint8_t *data;
};

/** Journal instead of stages: all data is durable, then @write makes up to @most pages durable in
 *  the format's own log, then they go to their places. Twice written, they may be torn there. */
void mull_meta_journal(struct mull_meta *meta, uint32_t most,
                       int (*write)(void *opaque, const struct mull_meta_page *pages,
                                    uint32_t count),
                       void *opaque);

/**
 * Read metadata. May read ahead up to @ahead bytes of the same structure.
 * @param cached  -EAGAIN where it would have to touch the file
 */
int mull_meta_read(struct mull_meta *meta, uint64_t offset, void *buf, uint32_t length,
                   uint64_t ahead, bool cached);

/** Change metadata; it goes to the file at @stage of the next commit. */
int mull_meta_write(struct mull_meta *meta, uint64_t offset, const void *buf, uint32_t length,
                    int stage);

/** Set a range to zero without reading it first. Whole pages only. */
int mull_meta_clear(struct mull_meta *meta, uint64_t offset, uint64_t length, int stage);

/** Forget a range (freed, or changed behind the cache): dirty pages too. Whole pages only. */
void mull_meta_forget(struct mull_meta *meta, uint64_t offset, uint64_t length);

/** Whether a commit would be no more than a flush of the one file. */
bool mull_meta_is_plain(const struct mull_meta *meta);

/** Bytes of dirty pages. */
uint64_t mull_meta_dirty(const struct mull_meta *meta);

/** Write all dirty pages, stage by stage, with flushes between; the last one only if @flush.
 *  After an error the pages stay dirty and a later commit tries again. */
int mull_meta_commit(struct mull_meta *meta, bool flush);

#endif
