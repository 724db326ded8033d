/* What the files of the NBD client share. */
#ifndef MULL_IMAGE_NBD_CLIENT_PRIVATE_H
#define MULL_IMAGE_NBD_CLIENT_PRIVATE_H

#include <pthread.h>

#include "image/image.h"
#include "image/nbd/channel.h"
#include "image/nbd/client.h"
#include "image/nbd/protocol.h"

/* The longest single transfer; longer ones are several under way at once. */
#define NBD_PIECE (256u << 10)
#define NBD_KNOWN_MAX 1024

struct nbd_call;

/* A stretch of the map, as the server told it. */
struct nbd_known {
    uint64_t start, end;
    bool zero;
};

struct nbd_remote {
    struct mull_channel channel;
    struct mull_tls *tls;
    char *name; /* the URL, for messages */
    uint64_t size;
    unsigned flags;
    bool structured;
    bool allocation; /* base:allocation was agreed on */
    uint32_t allocation_id;
    uint32_t minimum, payload; /* sizes the server wants */

    pthread_mutex_t send_lock; /* one message goes out whole */
    pthread_mutex_t lock;      /* the calls */
    pthread_cond_t changed;
    struct nbd_call *calls;
    uint64_t next_handle;
    bool reading; /* somebody reads replies */
    int broken;   /* -errno: nothing more can be said on this connection */

    pthread_mutex_t map_lock;
    struct nbd_known known[NBD_KNOWN_MAX];
    uint32_t nknown;
};

/** Move all of it. @return 0, or -errno (-ECONNRESET where the server hung up). */
int nbd_read_all(struct mull_channel *channel, void *buf, size_t length);
int nbd_write_all(struct mull_channel *channel, struct iovec *iov, int niov);

/** Agree on an export (client_handshake.c). */
int nbd_handshake(struct nbd_remote *remote, const char *export_name, bool tls,
                  const char *hostname, struct mull_error *err);

#endif
