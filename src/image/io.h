/*
 * The asynchronous engine below a started block device: transfers through io_uring where the host
 * allows it and worker threads elsewhere; jobs that must block run on the workers in any case.
 * Completions come in the loop's thread through one eventfd. Knows file descriptors, never formats.
 */
#ifndef MULL_IMAGE_IO_H
#define MULL_IMAGE_IO_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/error.h"
#include "base/loop.h"

struct mull_io;

enum mull_io_kind {
    MULL_IO_READ,
    MULL_IO_WRITE,
    MULL_IO_SYNC,
    MULL_IO_JOB,  /* run() on a worker thread */
    MULL_IO_DONE, /* nothing to do: complete with `result` */
};

/** One operation, owned by the caller until done(). */
struct mull_io_op {
    enum mull_io_kind kind;
    int fd;
    uint64_t offset;
    const struct iovec *iov;
    int niov;
    bool brief; /* through the page cache: a worker does it, and will not need long */
    int (*run)(struct mull_io_op *op);
    /* In the loop's thread. @result: bytes moved (READ, WRITE), what run() returned, or -errno. */
    void (*done)(struct mull_io_op *op, int result);
    int result;
    struct mull_io_op *next;
};

/**
 * Start an engine on a loop.
 *
 * @param mode  NULL: the best there is; "io_uring" or "threads" to insist on one
 */
int mull_io_create(struct mull_loop *loop, const char *mode, struct mull_io **out,
                   struct mull_error *err);

/** Stop the workers. No operation may be in flight. NULL is allowed. */
void mull_io_destroy(struct mull_io *io);

/** Start an operation; done() is never called before this returns. From the loop's thread. */
void mull_io_submit(struct mull_io *io, struct mull_io_op *op);

/** Block until something has completed and call what is done. From the loop's thread. */
void mull_io_wait(struct mull_io *io);

/** "io_uring" or "threads". */
const char *mull_io_mode(const struct mull_io *io);

#endif
