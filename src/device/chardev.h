/*
 * A character device's two sides: what carries bytes to the outside world (a terminal, a socket,
 * nothing) and the device of the machine that talks through it (a serial port, a virtio console).
 * Knows bytes, neither registers nor guests.
 */
#ifndef MULL_DEVICE_CHARDEV_H
#define MULL_DEVICE_CHARDEV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/log.h"
#include "base/loop.h"

struct mull_chardev;

/** The machine's side. Its functions run in the loop's thread, with no chardev lock held. */
struct mull_chardev_frontend {
    void *opaque;
    /* How many bytes receive() would take now; 0: wait for mull_chardev_resume(). */
    size_t (*can_receive)(void *opaque);
    /* Input; never more than can_receive() has just said. */
    void (*receive)(void *opaque, const uint8_t *bytes, size_t len);
    /* There is room again after a short mull_chardev_write(). */
    void (*writable)(void *opaque);
    /* A peer came or went; may be NULL. */
    void (*connected)(void *opaque, bool connected);
};

struct mull_chardev_ops {
    size_t (*write)(struct mull_chardev *chardev, const uint8_t *bytes, size_t len);
    void (*attach)(struct mull_chardev *chardev, const struct mull_chardev_frontend *frontend);
    void (*resume)(struct mull_chardev *chardev);
    bool (*connected)(struct mull_chardev *chardev);
    void (*destroy)(struct mull_chardev *chardev);
};

/** The head of each back end's own struct. */
struct mull_chardev {
    const struct mull_chardev_ops *ops;
};

/**
 * Queue output. Never blocks and never calls the frontend. Any thread.
 *
 * @return the bytes taken; fewer than @len when the back end's bounded buffer is full, in which
 *         case the frontend's writable() follows
 */
size_t mull_chardev_write(struct mull_chardev *chardev, const uint8_t *bytes, size_t len);

/** Connect the machine's side (copied), or disconnect it with NULL. From the loop's thread, or
 *  while the loop does not run. */
void mull_chardev_attach(struct mull_chardev *chardev,
                         const struct mull_chardev_frontend *frontend);

/** The frontend can take input again. Any thread; cheap where no input waits. */
void mull_chardev_resume(struct mull_chardev *chardev);

/** Is there anybody at the other end? Any thread. */
bool mull_chardev_connected(struct mull_chardev *chardev);

/** Write out what is queued (waiting a second at most) and free the back end. The loop does not
 *  run any more. NULL is allowed. */
void mull_chardev_destroy(struct mull_chardev *chardev);

/* ---- Back ends ---- */

/** Takes all output and throws it away; has no input. @return 0 and *out, or a negative errno. */
int mull_chardev_null_create(struct mull_chardev **out, struct mull_error *err);

struct mull_chardev_fd_config {
    int in_fd;  /* -1: no input */
    int out_fd; /* -1: output is dropped */
    /* Read ahead of the guest so that filter() sees every key at once, even while the guest does
     * not listen; what the guest is too slow for is dropped. For terminals. */
    bool read_ahead;
    /* Look at (and change in place) what was read before the guest gets it: an escape key.
     * @return how many bytes remain. Runs in the loop's thread; may be NULL. */
    size_t (*filter)(void *opaque, uint8_t *bytes, size_t len);
    /* Input has ended (end of file or an error); may be NULL. Runs in the loop's thread. */
    void (*closed)(void *opaque);
    void *opaque;
};

/**
 * A pair of descriptors: standard input and output, a pseudo-terminal, a pipe. The descriptors
 * stay the caller's and are not switched to non-blocking mode where the kernel lets us open our
 * own copy of them. The process must ignore SIGPIPE.
 */
int mull_chardev_fd_create(struct mull_loop *loop, const struct mull_chardev_fd_config *config,
                           struct mull_chardev **out, struct mull_error *err);

/**
 * Listen on a Unix socket for one client at a time (others wait). Without a client the last
 * 64 KiB of output are kept for the next one. A stale socket is replaced; the path is removed at
 * the end. Only the owner may connect (mode 0600).
 */
int mull_chardev_unix_create(struct mull_loop *loop, const char *path, const struct mull_log *log,
                             struct mull_chardev **out, struct mull_error *err);

/* ---- In memory, for tests ---- */

/** Keeps output until somebody takes it. @param capacity  more is refused (a short write) */
int mull_chardev_memory_create(size_t capacity, struct mull_chardev **out, struct mull_error *err);

/** Take output that was written; calls writable() where a write was short. @return the bytes */
size_t mull_chardev_memory_take(struct mull_chardev *chardev, void *buf, size_t len);

/** Give input to the frontend. @return the bytes it took */
size_t mull_chardev_memory_give(struct mull_chardev *chardev, const void *buf, size_t len);

#endif
