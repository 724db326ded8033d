/*
 * Moves the data of storage commands; see dma.h. Each description of a guest's buffer is asked for
 * once, and what it names is bounded by the memory API.
 */
#include "device/storage/dma.h"

#include <errno.h>
#include <string.h>

#define MAX_COMPLAINTS 8

void mull_dma_begin(struct mull_dma *d, const struct mull_dma_ops *ops, struct mull_memory *memory,
                    struct mull_block *disk)
{
    d->ops = ops;
    d->memory = memory;
    d->disk = disk;
    d->then = NULL;
    d->to_guest = d->durable = d->cancelled = false;
    d->offset = d->left = d->done_bytes = 0;
    d->gpa = 0;
    d->len = 0;
    d->staging = NULL;
    d->pattern = NULL;
    d->staging_size = 0;
    d->segments = 0;
}

/* Is there something left of the current buffer, or of the next that is not empty? */
static bool have_buffer(struct mull_dma *d)
{
    while (!d->len)
        if (!d->ops->next(d, &d->gpa, &d->len))
            return false;
    return true;
}

static void used(struct mull_dma *d, uint32_t bytes)
{
    d->gpa += bytes;
    d->len -= bytes;
}

static uint32_t copy(struct mull_dma *d, uint8_t *data, uint32_t len, bool out)
{
    uint32_t done = 0;

    while (done < len && have_buffer(d)) {
        uint32_t n = d->len < len - done ? d->len : len - done;
        int ret = out ? mull_mem_write(d->memory, d->gpa, data + done, n)
                      : mull_mem_read(d->memory, d->gpa, data + done, n);
        if (ret)
            break;
        used(d, n);
        done += n;
    }
    d->done_bytes += done;
    return done;
}

uint32_t mull_dma_copy_out(struct mull_dma *d, const void *data, uint32_t len)
{
    d->to_guest = true;
    if (d->staging) {
        uint32_t n = len < d->staging_size ? len : d->staging_size;
        memcpy(d->staging, data, n);
        d->done_bytes += n;
        return n;
    }
    return copy(d, (uint8_t *)(uintptr_t)data, len, true);
}

uint32_t mull_dma_copy_in(struct mull_dma *d, void *data, uint32_t len)
{
    return d->staging ? 0 : copy(d, data, len, false);
}

/* Vectors for the next part of a transfer. @return its bytes, 0: no buffer, or not RAM */
static uint64_t gather(struct mull_dma *d)
{
    uint64_t total = 0;

    d->block.niov = 0;
    d->segments = 0;
    while (total < d->left && d->segments < MULL_DMA_SEGMENTS && have_buffer(d)) {
        uint32_t piece = d->len < d->left - total ? d->len : (uint32_t)(d->left - total);
        int n = mull_mem_iov(d->memory, d->gpa, piece, d->to_guest, d->block.iov + d->block.niov,
                             MULL_BLOCK_MAX_IOV - d->block.niov);
        if (n == -E2BIG)
            break;
        if (n < 0)
            return 0;
        d->block.niov += n;
        d->segment[d->segments].gpa = d->gpa;
        d->segment[d->segments++].len = piece;
        used(d, piece);
        total += piece;
    }
    return total;
}

static uint32_t staged_bytes(const struct mull_dma *d)
{
    return d->left < d->staging_size ? (uint32_t)d->left : d->staging_size;
}

/* Vectors that are all of the pattern. @return their bytes */
static uint64_t repeat(struct mull_dma *d)
{
    uint64_t total = 0;

    for (d->block.niov = 0; total < d->left && d->block.niov < MULL_BLOCK_MAX_IOV;
         d->block.niov++) {
        uint64_t n = d->left - total < MULL_DMA_PATTERN ? d->left - total : MULL_DMA_PATTERN;
        d->block.iov[d->block.niov] = (struct iovec){(void *)(uintptr_t)d->pattern, n};
        total += n;
    }
    d->segments = 0;
    return total;
}

static void finish(struct mull_dma *d, int result);
static void piece_done(struct mull_block_request *block, int result);

static void submit_piece(struct mull_dma *d)
{
    uint64_t length;

    if (d->pattern) {
        length = repeat(d);
    } else if (d->staging) {
        length = staged_bytes(d);
        d->block.iov[0] = (struct iovec){d->staging, length};
        d->block.niov = 1;
        d->segments = 0;
    } else {
        length = gather(d);
    }
    if (!length) {
        finish(d, -EFAULT);
        return;
    }
    d->block.op = d->to_guest ? MULL_BLOCK_READ : MULL_BLOCK_WRITE;
    d->block.offset = d->offset;
    d->block.length = length;
    d->block.may_unmap = d->block.fast = false;
    d->block.done = piece_done;
    d->offset += length;
    d->left -= length;
    mull_block_submit(d->disk, &d->block);
}

/* The end of a transfer. */
static void finish(struct mull_dma *d, int result)
{
    if (!result && d->durable && !d->to_guest && !d->cancelled) {
        d->durable = false;
        mull_dma_submit(d, MULL_BLOCK_FLUSH, 0, 0, false, d->then);
        return;
    }
    d->then(d, result ? result : d->cancelled ? -ECANCELED : 0);
}

static void go_on(struct mull_dma *d)
{
    if (!d->left || d->cancelled)
        finish(d, 0);
    else if (d->staging && !d->to_guest && !d->pattern)
        d->ops->stage(d, staged_bytes(d));
    else
        submit_piece(d);
}

static void piece_done(struct mull_block_request *block, int result)
{
    struct mull_dma *d = (struct mull_dma *)block;

    d->ops->enter(d);
    for (unsigned i = 0; d->to_guest && i < d->segments; i++)
        mull_mem_wrote(d->memory, d->segment[i].gpa, d->segment[i].len);
    if (result) {
        finish(d, result);
    } else {
        if (!d->pattern)
            d->done_bytes += d->block.length;
        if (d->staging && d->to_guest && !d->cancelled)
            d->ops->stage(d, (uint32_t)d->block.length);
        else
            go_on(d);
    }
    d->ops->leave(d);
}

void mull_dma_staged(struct mull_dma *d)
{
    if (d->to_guest || d->cancelled)
        go_on(d);
    else
        submit_piece(d);
}

void mull_dma_transfer(struct mull_dma *d, bool to_guest, uint64_t offset, uint64_t length,
                       void (*then)(struct mull_dma *d, int result))
{
    d->to_guest = to_guest;
    d->offset = offset;
    d->left = length;
    d->then = then;
    go_on(d);
}

void mull_dma_fill(struct mull_dma *d, const uint8_t *pattern, uint64_t offset, uint64_t length,
                   void (*then)(struct mull_dma *d, int result))
{
    d->pattern = pattern;
    mull_dma_transfer(d, false, offset, length, then);
}

static void submit_done(struct mull_block_request *block, int result)
{
    struct mull_dma *d = (struct mull_dma *)block;

    d->ops->enter(d);
    d->then(d, result);
    d->ops->leave(d);
}

void mull_dma_submit(struct mull_dma *d, enum mull_block_op op, uint64_t offset, uint64_t length,
                     bool may_unmap, void (*then)(struct mull_dma *d, int result))
{
    d->then = then;
    d->block.op = op;
    d->block.offset = offset;
    d->block.length = length;
    d->block.niov = 0;
    d->block.may_unmap = may_unmap;
    d->block.fast = false;
    d->block.done = submit_done;
    mull_block_submit(d->disk, &d->block);
}

void mull_dma_complain(const struct mull_dma *d, const struct mull_log *log, unsigned *count,
                       const char *device, int result)
{
    if (result == -ECANCELED || result == -EFAULT)
        return;
    mull_log_limited(log, *count, MAX_COMPLAINTS, MULL_LOG_WARN,
                     "%s: byte %llu, %llu bytes: %s; the guest gets an I/O error", device,
                     (unsigned long long)d->block.offset, (unsigned long long)d->block.length,
                     strerror(-result));
}
