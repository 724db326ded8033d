/* What the files of the NBD server share: a client, its messages and its requests. */
#ifndef MULL_IMAGE_NBD_SERVER_PRIVATE_H
#define MULL_IMAGE_NBD_SERVER_PRIVATE_H

#include "image/image.h"
#include "image/nbd/protocol.h"
#include "image/nbd/server.h"

#define NBD_STAGING 16384u
/* Requests of one client under way, and what it may ask in the handshake. */
#define NBD_IN_FLIGHT 64
#define NBD_OPTIONS_MAX 256
#define NBD_OPTION_DATA_MAX 65536u
#define NBD_QUERIES_MAX 64
#define NBD_CONTEXTS_MAX 8
/* Descriptors of one context in one reply. */
#define NBD_EXTENTS_MAX 1024

enum nbd_context_kind {
    NBD_CONTEXT_ALLOCATION,
    NBD_CONTEXT_DEPTH,
    NBD_CONTEXT_BITMAP,  /* qemu:dirty-bitmap:NAME */
    NBD_CONTEXT_CHANGES, /* mullion:changes:NAME */
};

struct nbd_context {
    enum nbd_context_kind kind;
    const char *bitmap;
};

enum nbd_phase {
    NBD_PHASE_FLAGS,
    NBD_PHASE_OPTION,      /* an option's header */
    NBD_PHASE_OPTION_DATA, /* and its data */
    NBD_PHASE_TLS,         /* the handshake; begins once the acknowledgement is sent */
    NBD_PHASE_REQUEST,
    NBD_PHASE_PAYLOAD,
    NBD_PHASE_CLOSING, /* nothing is read any more; closed when all is sent */
};

struct nbd_client;

/* A stretch of bytes to be sent: a header of its own, then data of its request. */
struct nbd_out {
    uint8_t head[64];
    uint32_t head_length;
    uint32_t data_length;
    const uint8_t *data;
    uint32_t sent;
    uint8_t *owned;              /* or data to free */
    struct nbd_request *request; /* or NULL */
    struct nbd_out *next;
};

struct nbd_extents {
    uint32_t count;
    uint32_t (*list)[2]; /* length, flags; host order */
};

struct nbd_request {
    struct mull_block_request block; /* first */
    struct nbd_client *client;
    uint8_t handle[8];
    uint16_t type, flags;
    uint64_t offset;
    uint32_t length;
    uint8_t *data;
    uint32_t charged; /* bytes of the server's memory */
    bool flushing;    /* the write is done, its FUA flush is not */
    unsigned references;
    struct nbd_extents extents[NBD_CONTEXTS_MAX];
};

struct nbd_client {
    struct mull_nbd_server *server;
    struct nbd_client *next, **link;
    struct mull_channel channel;
    struct mull_source *source;
    struct mull_timer *timer;
    uint32_t watching; /* events */
    bool dead, in_input;
    enum nbd_phase phase;

    /* input: the message being read goes to `target` */
    uint8_t staging[NBD_STAGING];
    uint32_t staged_from, staged_to;
    uint8_t header[NBD_REQUEST_SIZE];
    uint8_t *target;
    uint32_t have, want;
    uint64_t skip;               /* payload of a refused request: read and forgotten */
    struct nbd_request *writing; /* whose payload is being read */
    struct nbd_request *waiting; /* a request that waits for memory or its turn */

    /* handshake */
    uint32_t option, options, option_length;
    uint8_t *option_data;
    bool no_zeroes, structured;
    const struct mull_nbd_export *export;         /* in transmission */
    const struct mull_nbd_export *context_export; /* whose contexts were chosen */
    struct nbd_context contexts[NBD_CONTEXTS_MAX];
    unsigned ncontexts;

    /* transmission */
    unsigned in_flight;
    uint64_t charged;
    struct nbd_out *out, **out_tail;
    uint64_t in_deadline, out_deadline; /* ns, 0: none */
};

struct mull_nbd_server {
    struct mull_nbd_options o;
    struct nbd_client *clients;
    unsigned nclients;
    struct mull_source *listeners[8];
    int listener_fds[8];
    int nlisteners;
    uint64_t charged;
    unsigned refused; /* log lines */
    bool closing;
};

/* server.c */
/** Expect @want bytes next, into @target. */
void nbd_expect(struct nbd_client *c, enum nbd_phase phase, void *target, uint32_t want);
/** @bytes are on their way in: they must come in time. */
void nbd_slow(struct nbd_client *c, uint64_t bytes);
/** Queue a message; takes @owned. On -ENOMEM the client is given up. */
int nbd_send(struct nbd_client *c, const void *head, uint32_t head_length, const void *data,
             uint32_t data_length, uint8_t *owned, struct nbd_request *request);
/** Give a client up: nothing more is read or sent. */
void nbd_drop(struct nbd_client *c, const char *why);
/** Do all that can be done for a client now: send, read, start requests. May free it. */
void nbd_serve(struct nbd_client *c);
/** Free a client that was given up and has nothing under way. */
void nbd_reap(struct nbd_client *c);
/** A request has given something back: whoever waits may go on. */
void nbd_go_on(struct mull_nbd_server *server);

/* handshake.c */
void nbd_greet(struct nbd_client *c);
void nbd_got_flags(struct nbd_client *c);
void nbd_got_option(struct nbd_client *c);
void nbd_got_option_data(struct nbd_client *c);

/* transmit.c */
void nbd_got_request(struct nbd_client *c);
void nbd_got_payload(struct nbd_client *c);
/** Try to start the request that waits. */
void nbd_try_waiting(struct nbd_client *c);
void nbd_request_release(struct nbd_request *r);
/** What a context says of a range, on a worker. @return 0 or -errno */
int nbd_status_fill(struct mull_image *image, const struct nbd_context *context, uint64_t offset,
                    uint64_t length, bool one, struct nbd_extents *out);

#endif
