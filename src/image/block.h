/*
 * A block device as everything above sees it: a size, and asynchronous requests on byte ranges.
 * A format (raw, QCOW2, VMDK, ...) sits behind it. Knows bytes, never machines.
 */
#ifndef MULL_IMAGE_BLOCK_H
#define MULL_IMAGE_BLOCK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/error.h"
#include "base/log.h"
#include "base/loop.h"

struct mull_block;
struct mull_file_observer;
struct mull_given_files;
struct mull_block_request;
struct mull_image;
struct mull_source_options;
struct mull_throttle;

enum mull_block_op {
    MULL_BLOCK_READ,
    MULL_BLOCK_WRITE,
    MULL_BLOCK_FLUSH,   /* all completed writes are durable when it completes */
    MULL_BLOCK_DISCARD, /* the range's content no longer matters */
    MULL_BLOCK_ZERO,    /* the range reads as zeroes */
    MULL_BLOCK_CALL,    /* call() on a worker, holding the range as a READ does */
};

#define MULL_BLOCK_MAX_IOV 256

/** One request; owned by the caller, must stay in place until done() is called. */
struct mull_block_request {
    enum mull_block_op op;
    uint64_t offset; /* bytes; need not be sector aligned */
    uint64_t length; /* bytes; for READ and WRITE the sum of iov */
    struct iovec iov[MULL_BLOCK_MAX_IOV];
    int niov;
    bool may_unmap; /* ZERO: the range may become a hole */
    bool fast;      /* ZERO: -EOPNOTSUPP rather than writing zeroes */
    int (*call)(struct mull_block_request *request, struct mull_image *image); /* CALL */
    /* Called once, in the thread of the loop given to mull_block_start(). @result: 0 or -errno. */
    void (*done)(struct mull_block_request *request, int result);
    void *opaque;
    struct mull_block_request *next; /* the block's own, until done() */
};

/** What becomes of a request that the host's disk failed (not one that made no sense). */
enum mull_block_on_error {
    MULL_BLOCK_REPORT, /* it completes with the error */
    MULL_BLOCK_HOLD,   /* it waits for mull_block_retry(); the owner is told */
};

struct mull_block_options {
    const char *path;
    const char *format; /* NULL or "auto": detect */
    bool readonly;
    bool direct;                              /* O_DIRECT */
    bool no_lock;                             /* do not lock the file against other writers */
    const char *snapshot;                     /* an internal snapshot (readonly only) */
    const struct mull_source_options *source; /* for URLs; or NULL */
    const struct mull_log *log;
    const char *aio; /* NULL: the best there is; "io_uring" or "threads" to insist on one */
    bool cbt;        /* begin to track changes, in a bitmap "cbt", unless one records already */
    enum mull_block_on_error on_error;
    /* HOLD: told in the loop's thread of each request that is held; must not submit or retry. */
    void (*held)(void *opaque, const struct mull_block_request *request, int error);
    void *opaque;
    const struct mull_file_observer *observer; /* for tests; see file.h */
    const struct mull_given_files *given;      /* see file.h */
};

/** Open an image (with all it is chained to). A writable image is locked against other writers, a
 *  read-only one against writers: -EAGAIN where somebody else holds it. Blocks. */
int mull_block_open(const struct mull_block_options *options, struct mull_block **out,
                    struct mull_error *err);

/** Flush and close. No request may be in flight. NULL is allowed. */
void mull_block_close(struct mull_block *block);

uint64_t mull_block_size(const struct mull_block *block);
bool mull_block_readonly(const struct mull_block *block);
/** The image below; for what no request is for. It stays the block's. */
struct mull_image *mull_block_image(const struct mull_block *block);
const char *mull_block_format(const struct mull_block *block);

/** How requests are carried out, "io_uring" or "threads"; NULL before mull_block_start(). */
const char *mull_block_aio(const struct mull_block *block);

/** What was asked of a block since it was opened; of requests that made sense. */
struct mull_block_counts {
    uint64_t reads, writes, flushes, discards; /* requests */
    uint64_t read_bytes, written_bytes;
    uint64_t waited; /* requests that came too early for their limit */
};

/** From the loop's thread. */
void mull_block_counts(const struct mull_block *block, struct mull_block_counts *out);

/** Share limits (throttle.h) with others; before the first submit. @param throttle  outlives the
 *  block */
void mull_block_limit(struct mull_block *block, struct mull_throttle *throttle);

/** Attach to the loop in whose thread requests complete. Once, before the first submit. */
int mull_block_start(struct mull_block *block, struct mull_loop *loop, struct mull_error *err);

/** Start a request. Out of range or write to read-only: completes with -EINVAL, -EROFS. From the
 *  loop's thread. Never calls done() before it returns. */
void mull_block_submit(struct mull_block *block, struct mull_block_request *request);

/** Wait until no request is in flight (requests complete meanwhile). Those that wait for their limit
 *  start at once; those that are held after an error are not waited for. From the loop's thread. */
void mull_block_drain(struct mull_block *block);

/** Start all held requests again. From the loop's thread. */
void mull_block_retry(struct mull_block *block);

/** Complete all held requests with -ECANCELED, before this returns: for a device that is reset or
 *  goes. From the loop's thread, or where it does not run any more. */
void mull_block_cancel(struct mull_block *block);

/** Blocking forms, for tools; not to be mixed with a started block. @return 0 or -errno. */
int mull_block_read(struct mull_block *block, uint64_t offset, void *buf, uint64_t len);
int mull_block_write(struct mull_block *block, uint64_t offset, const void *buf, uint64_t len);
int mull_block_flush(struct mull_block *block);
int mull_block_discard(struct mull_block *block, uint64_t offset, uint64_t len);
int mull_block_zero(struct mull_block *block, uint64_t offset, uint64_t len, bool may_unmap);

#endif
