/*
 * A command of a storage controller on its way: moves bytes between a block device and the guest's
 * buffers, which the controller describes one after the other, in pieces that fit a block request;
 * or through a buffer of the controller's own (PIO). Knows neither commands nor registers.
 *
 * All functions and hooks run with the controller's lock held; the block device's completions come
 * in the loop's thread and take it by ops->enter().
 */
#ifndef MULL_DEVICE_STORAGE_DMA_H
#define MULL_DEVICE_STORAGE_DMA_H

#include "base/log.h"
#include "image/block.h"
#include "memory/memory.h"

#define MULL_DMA_SEGMENTS MULL_BLOCK_MAX_IOV
#define MULL_DMA_PATTERN 4096u

struct mull_dma;

/** What a controller does for the commands it carries out. */
struct mull_dma_ops {
    /* The guest's next buffer. @return false: there is none, or what describes it is not in RAM */
    bool (*next)(struct mull_dma *d, uint64_t *gpa, uint32_t *len);
    /* Around what happens when the block device has done its part: take the lock, give it back. */
    void (*enter)(struct mull_dma *d);
    void (*leave)(struct mull_dma *d);
    /* With a staging buffer: @bytes of it were read, or are to be filled by the guest, now; then
     * mull_dma_staged() is to be called. NULL: there is never one. */
    void (*stage)(struct mull_dma *d, uint32_t bytes);
};

struct mull_dma {
    struct mull_block_request block; /* must be first */
    const struct mull_dma_ops *ops;
    struct mull_memory *memory;
    struct mull_block *disk;
    void (*then)(struct mull_dma *d, int result);
    bool to_guest;         /* the direction of the data */
    bool durable;          /* a write ends with a flush */
    bool cancelled;        /* ends after the piece that is on its way */
    uint64_t offset, left; /* what is still to be submitted, bytes */
    uint64_t done_bytes;   /* moved so far, also by copies */
    uint64_t gpa;          /* what is left of the current buffer */
    uint32_t len;
    uint8_t *staging; /* the data goes through here, not to the guest's buffers; or NULL */
    uint32_t staging_size;
    const uint8_t *pattern; /* what is written again and again; or NULL */
    unsigned segments;      /* where a read goes, to tell who watches that memory */
    struct {
        uint64_t gpa;
        uint32_t len;
    } segment[MULL_DMA_SEGMENTS];
};

/** Set up for a new command. @param disk  may be NULL: then only copies are possible */
void mull_dma_begin(struct mull_dma *d, const struct mull_dma_ops *ops, struct mull_memory *memory,
                    struct mull_block *disk);

/** Copy to (from) the guest's buffers. @return bytes: less than @len if they hold no more */
uint32_t mull_dma_copy_out(struct mull_dma *d, const void *data, uint32_t len);
uint32_t mull_dma_copy_in(struct mull_dma *d, void *data, uint32_t len);

/**
 * Move [offset, offset + length) of the disk to (from) the guest, then call @then, perhaps before
 * this returns. The caller has checked the range. Loop's thread.
 *
 * @param then  result 0 or -errno; -EFAULT: the guest's buffers are too short, or not RAM;
 *              -ECANCELED: cancelled
 */
void mull_dma_transfer(struct mull_dma *d, bool to_guest, uint64_t offset, uint64_t length,
                       void (*then)(struct mull_dma *d, int result));

/** The guest has emptied or filled the staging buffer: go on. Loop's thread. */
void mull_dma_staged(struct mull_dma *d);

/** Write MULL_DMA_PATTERN bytes again and again. @param pattern  the caller's, until @then */
void mull_dma_fill(struct mull_dma *d, const uint8_t *pattern, uint64_t offset, uint64_t length,
                   void (*then)(struct mull_dma *d, int result));

/** Flush, discard or zero, then call @then. Loop's thread. */
void mull_dma_submit(struct mull_dma *d, enum mull_block_op op, uint64_t offset, uint64_t length,
                     bool may_unmap, void (*then)(struct mull_dma *d, int result));

/** Say in the log that the host failed a command, a few times at most (@count). */
void mull_dma_complain(const struct mull_dma *d, const struct mull_log *log, unsigned *count,
                       const char *device, int result);

#endif
