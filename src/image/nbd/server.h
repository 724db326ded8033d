/*
 * An NBD server on an event loop: block devices for other programs, over any stream socket. Clients
 * are adversaries: their number, what they hold in memory and how long they may keep us waiting in
 * the middle of a message are limited. Knows block devices and images, never machines.
 */
#ifndef MULL_IMAGE_NBD_SERVER_H
#define MULL_IMAGE_NBD_SERVER_H

#include "image/block.h"
#include "image/nbd/channel.h"

struct mull_nbd_server;

/** One disk. Plain data that outlives the server. */
struct mull_nbd_export {
    const char *name;         /* "" is the default export */
    const char *description;  /* or NULL */
    struct mull_block *block; /* started on the server's loop; stays the caller's */
    bool readonly;
    const char *const *bitmaps; /* changed-block bitmaps to show, ends with NULL; or NULL */
};

struct mull_nbd_options {
    struct mull_loop *loop;
    const struct mull_nbd_export *exports;
    int nexports;
    struct mull_tls *tls; /* NULL: none; stays the caller's */
    bool tls_required;
    unsigned max_clients;  /* 0: 16 */
    uint64_t memory;       /* bytes of request data at once, all clients together; 0: 128 MiB */
    unsigned handshake_ms; /* 0: 20 s until a client is in transmission */
    unsigned stall_ms;     /* 0: 30 s, and 4 s a MiB, for one message to pass */
    void (*changed)(void *opaque, unsigned clients); /* told when one comes or goes; or NULL */
    void *opaque;
    const struct mull_log *log;
};

int mull_nbd_server_create(const struct mull_nbd_options *options, struct mull_nbd_server **out,
                           struct mull_error *err);

/** Accept clients of a listening socket, non-blocking, that stays the caller's. */
int mull_nbd_server_listen(struct mull_nbd_server *server, int fd, struct mull_error *err);

/** Take a connected stream socket, which then belongs to the server (closed where this fails). */
int mull_nbd_server_add(struct mull_nbd_server *server, int fd);

/** Cut off all clients, wait for their requests, free. From the loop's thread. NULL is allowed. */
void mull_nbd_server_destroy(struct mull_nbd_server *server);

#endif
