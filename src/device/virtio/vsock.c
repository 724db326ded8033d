/*
 * The virtio socket device (virtio 1.2, 5.10), streams only, with Unix sockets as the host's side:
 * who connects to PATH and writes "CONNECT PORT\n" reaches that port of the guest and reads "OK
 * PORT\n"; what the guest connects to on the host (CID 2) at port N is the socket PATH_N. Memory
 * for each connection is what its credit says, and the number of connections is bounded.
 */
#include <endian.h>
#include <errno.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_vsock.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/listen.h"
#include "device/devices.h"
#include "device/net/opener.h"
#include "device/virtio/virtio.h"

enum { RX, TX, EVENT };
#define QUEUE_SIZE 128
#define HOST_CID 2
#define FIRST_CID 3 /* those below are reserved (5.10.4) */
#define CONNECTIONS 256
#define RESETS 128
#define BUFFER (64u << 10) /* the credit we give */
#define CHUNK 16384u
#define TURN_PACKETS 1024
#define HDR sizeof(struct virtio_vsock_hdr)
#define LINE_MAX_SIZE 20 /* "CONNECT 4294967295\n" */
#define FIRST_HOST_PORT 0x40000000u
#define PCI_CLASS_OTHER 0x078000
#define SHUT_BOTH (VIRTIO_VSOCK_SHUTDOWN_RCV | VIRTIO_VSOCK_SHUTDOWN_SEND)

_Static_assert(sizeof(struct virtio_vsock_hdr) == 44, "virtio 1.2, 5.10.6");

enum state {
    FREE,
    GREETING,   /* from the host: which port does it want? */
    REQUESTED,  /* from the host: the guest has not answered */
    CONNECTING, /* from the guest: the socket is being connected */
    OPEN,
};

struct connection {
    struct vsock *owner;
    enum state state;
    uint32_t id; /* of the connecting; never the same again soon */
    int fd;
    struct mull_source *source;
    uint32_t guest_port, host_port;
    uint32_t due;      /* bit n: packet of operation n is to be sent */
    bool readable;     /* there may be bytes, or the end, to be read from fd */
    bool host_ended;   /* it will write no more */
    bool hung;         /* it will read no more either: what the guest sends is thrown away */
    bool asked;        /* for credit, since the guest last gave some */
    uint32_t shutdown; /* what the guest will no more do */
    /* Credit (5.10.6.3), counting bytes modulo 2^32. */
    uint32_t peer_alloc, peer_fwd, sent, forwarded, told;
    uint8_t *out; /* for the host: BUFFER bytes */
    uint32_t out_first, out_len;
    char line[LINE_MAX_SIZE + 1];
    unsigned line_len;
};

struct vsock {
    struct mull_virtio v;
    uint64_t cid;
    char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
    int listen_fd;
    bool deaf; /* no descriptor was left for who connects: until one is given back */
    struct mull_source *listen_source, *opener_source;
    struct mull_opener opener;
    uint32_t ids, ports;
    bool reset_due; /* restored: connections are gone, and the guest is to be told (5.10.6.7) */
    unsigned top;   /* connections from here on are free */
    struct connection connection[CONNECTIONS];
    unsigned resets;
    struct {
        uint32_t guest_port, host_port;
    } reset[RESETS]; /* to be answered with RST: nobody is there */
    struct mull_chain chain;
    uint8_t chunk[CHUNK];
};

/* ---- Connections ---- */

static void connection_ready(void *opaque, uint32_t events);

static void drop(struct connection *c)
{
    struct vsock *s = c->owner;

    mull_source_remove(c->source);
    if (c->fd >= 0)
        close(c->fd);
    free(c->out);
    *c = (struct connection){.owner = s, .fd = -1};
    while (s->top && s->connection[s->top - 1].state == FREE)
        s->top--;
    if (s->deaf) {
        s->deaf = false;
        mull_source_modify(s->listen_source, EPOLLIN);
    }
}

static void queue_reset(struct vsock *s, uint32_t guest_port, uint32_t host_port)
{
    if (s->resets == RESETS)
        return; /* the guest's connection times out instead */
    s->reset[s->resets].guest_port = guest_port;
    s->reset[s->resets++].host_port = host_port;
}

/* End a connection that the guest knows of. */
static void end(struct vsock *s, struct connection *c)
{
    queue_reset(s, c->guest_port, c->host_port);
    drop(c);
}

/* A free place; or that of whoever has connected and not said for longest where it wants to go. */
static struct connection *room(struct vsock *s)
{
    struct connection *oldest = NULL;

    for (unsigned i = 0; i < CONNECTIONS; i++) {
        struct connection *c = &s->connection[i];
        if (c->state == FREE)
            return c;
        if (c->state == GREETING && (!oldest || (int32_t)(c->id - oldest->id) < 0))
            oldest = c;
    }
    if (oldest)
        drop(oldest);
    return oldest;
}

/* @return NULL: there is no room; @fd stays the caller's */
static struct connection *place(struct vsock *s, int fd, enum state state)
{
    struct connection *c = room(s);
    uint8_t *out = c ? malloc(BUFFER) : NULL;

    if (!out)
        return NULL;
    *c = (struct connection){.owner = s, .state = state, .fd = fd, .id = ++s->ids, .out = out};
    if (s->top <= (unsigned)(c - s->connection))
        s->top = (unsigned)(c - s->connection) + 1;
    return c;
}

static struct connection *find(struct vsock *s, uint32_t guest_port, uint32_t host_port)
{
    for (unsigned i = 0; i < s->top; i++) {
        struct connection *c = &s->connection[i];
        if (c->state > GREETING && c->guest_port == guest_port && c->host_port == host_port)
            return c;
    }
    return NULL;
}

/* Edge-triggered: `readable` keeps that there is something until it has been read. */
static bool watch(struct vsock *s, struct connection *c)
{
    return !mull_loop_watch(s->v.env.loop, c->fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
                            connection_ready, c, &c->source, NULL);
}

/* ---- To the host ---- */

/* Nobody reads any more. What the host has sent before is still there for the guest. */
static void hang_up(struct connection *c)
{
    c->hung = true;
    c->readable = !c->host_ended;
    c->forwarded += c->out_len;
    c->out_len = 0;
}

/* Write what the guest has sent. */
static void flush(struct connection *c)
{
    while (c->out_len) {
        uint32_t n = BUFFER - c->out_first < c->out_len ? BUFFER - c->out_first : c->out_len;
        ssize_t done = send(c->fd, c->out + c->out_first, n, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0 && errno == EAGAIN)
            break;
        if (done < 0) {
            hang_up(c);
            break;
        }
        c->out_first = (c->out_first + (uint32_t)done) % BUFFER;
        c->out_len -= (uint32_t)done;
        c->forwarded += (uint32_t)done;
    }
    /* Half of the credit is used up as far as the guest knows: tell. */
    if (c->forwarded - c->told >= BUFFER / 2)
        c->due |= 1u << VIRTIO_VSOCK_OP_CREDIT_UPDATE;
    if (!c->out_len && (c->shutdown & VIRTIO_VSOCK_SHUTDOWN_SEND))
        shutdown(c->fd, SHUT_WR);
}

/* Has the guest ended it in both directions, and is nothing left to be written? */
static bool finished(const struct connection *c)
{
    return c->shutdown == SHUT_BOTH && !c->out_len;
}

/* Bytes of the guest's packet behind those that wait already; there is room. */
static bool queue_out(struct connection *c, const struct mull_chain *chain, uint32_t len)
{
    uint32_t at = (c->out_first + c->out_len) % BUFFER;
    uint32_t first = BUFFER - at < len ? BUFFER - at : len;

    if (mull_chain_read(chain, HDR, c->out + at, first) ||
        mull_chain_read(chain, HDR + first, c->out, len - first))
        return false;
    c->out_len += len;
    return true;
}

/* ---- To the guest ---- */

static uint32_t credit(const struct connection *c)
{
    uint32_t in_flight = c->sent - c->peer_fwd;
    return in_flight < c->peer_alloc ? c->peer_alloc - in_flight : 0;
}

/* @return the packet's size, -1: the chain does not take it */
static int put_packet(struct vsock *s, struct connection *c, uint16_t op, uint32_t flags,
                      const uint8_t *data, uint32_t len)
{
    const struct virtio_vsock_hdr h = {
        .src_cid = htole64(HOST_CID),
        .dst_cid = htole64(s->cid),
        .src_port = htole32(c->host_port),
        .dst_port = htole32(c->guest_port),
        .len = htole32(len),
        .type = htole16(VIRTIO_VSOCK_TYPE_STREAM),
        .op = htole16(op),
        .flags = htole32(flags),
        .buf_alloc = htole32(BUFFER),
        .fwd_cnt = htole32(c->forwarded),
    };
    c->told = c->forwarded;
    if (mull_chain_write(&s->chain, 0, &h, HDR) ||
        (len && mull_chain_write(&s->chain, HDR, data, len)))
        return -1;
    return (int)(HDR + len);
}

/* The host has sent all it will. It may still read, unless it has gone. */
static void end_of_data(struct connection *c)
{
    c->readable = false;
    c->host_ended = true;
    c->due |= 1u << VIRTIO_VSOCK_OP_SHUTDOWN;
}

/* Bytes from the host into the chain. @return the packet's size, 0: there are none now, -1: the
 * chain does not take it */
static int put_data(struct vsock *s, struct connection *c)
{
    uint32_t space = s->chain.in_len - (uint32_t)HDR, n = credit(c);

    n = n < space ? n : space;
    n = n < CHUNK ? n : CHUNK;
    if (!n)
        return -1; /* has_data() has seen credit */
    ssize_t got = recv(c->fd, s->chunk, n, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
        c->readable = errno == EINTR;
        return 0;
    }
    if (got < 0)
        hang_up(c);
    if (got <= 0) {
        end_of_data(c);
        return 0;
    }
    c->sent += (uint32_t)got;
    c->asked = false;
    return put_packet(s, c, VIRTIO_VSOCK_OP_RW, 0, s->chunk, (uint32_t)got);
}

static bool may_read(const struct connection *c)
{
    return c->state == OPEN && c->readable && !(c->shutdown & VIRTIO_VSOCK_SHUTDOWN_RCV);
}

/* Is there something to be sent, and not only data that wait for credit? */
static bool wants(struct connection *c)
{
    if (c->state <= GREETING)
        return false;
    if (may_read(c) && !credit(c) && !c->asked) {
        c->asked = true;
        c->due |= 1u << VIRTIO_VSOCK_OP_CREDIT_REQUEST;
    }
    return c->due || (may_read(c) && credit(c));
}

/* The next packet of a connection into s->chain. @return as put_data() */
static int put_next(struct vsock *s, struct connection *c)
{
    static const uint8_t order[] = {VIRTIO_VSOCK_OP_REQUEST, VIRTIO_VSOCK_OP_RESPONSE,
                                    VIRTIO_VSOCK_OP_CREDIT_UPDATE, VIRTIO_VSOCK_OP_CREDIT_REQUEST};

    for (unsigned i = 0; i < sizeof(order); i++) {
        if (!(c->due >> order[i] & 1))
            continue;
        c->due &= ~(1u << order[i]);
        return put_packet(s, c, order[i], 0, NULL, 0);
    }
    if (may_read(c) && credit(c)) {
        int size = put_data(s, c);
        if (size)
            return size;
    }
    if (c->due >> VIRTIO_VSOCK_OP_SHUTDOWN & 1) {
        c->due = 0;
        return put_packet(s, c, VIRTIO_VSOCK_OP_SHUTDOWN,
                          c->hung ? SHUT_BOTH : VIRTIO_VSOCK_SHUTDOWN_SEND, NULL, 0);
    }
    return 0;
}

static int put_reset(struct vsock *s)
{
    struct connection gone = {.guest_port = s->reset[s->resets - 1].guest_port,
                              .host_port = s->reset[s->resets - 1].host_port};
    s->resets--;
    return put_packet(s, &gone, VIRTIO_VSOCK_OP_RST, 0, NULL, 0);
}

/* A packet of @c, NULL: a reset. @return false: there is no buffer for it */
static bool send_one(struct vsock *s, struct connection *c)
{
    struct mull_virtqueue *q = &s->v.queues[RX];

    if (!mull_virtqueue_pop(q, &s->chain))
        return false;
    int size = s->chain.in_len <= HDR ? -1 : c ? put_next(s, c) : put_reset(s);
    if (size < 0)
        mull_virtio_broken(&s->v, "a receive buffer is too small or not in memory");
    if (size)
        mull_virtqueue_push(q, s->chain.head, size < 0 ? 0 : (uint32_t)size);
    else
        mull_virtqueue_unpop(q);
    return true;
}

/* Fill receive buffers in turn as long as there are some, and something to put into them; the loop
 * has others to serve, too. */
static void pump(struct vsock *s)
{
    struct mull_virtqueue *q = &s->v.queues[RX];
    unsigned turn = TURN_PACKETS;
    bool more = true;

    while (more && mull_virtqueue_live(q)) {
        more = false;
        for (unsigned i = 0; i <= s->top; i++) {
            struct connection *c = i < s->top ? &s->connection[i] : NULL;
            if (c ? !wants(c) : !s->resets)
                continue;
            more = true;
            if (!turn--) {
                mull_virtqueue_signal(q);
                mull_virtio_kick(&s->v, RX);
                return;
            }
            if (send_one(s, c))
                continue;
            mull_virtqueue_signal(q);
            if (!mull_virtqueue_listen(q))
                return; /* until the driver gives more */
            mull_virtqueue_quiet(q);
        }
    }
    mull_virtqueue_signal(q);
}

/* ---- From the guest ---- */

static void request(struct vsock *s, uint32_t guest_port, uint32_t host_port,
                    const struct virtio_vsock_hdr *h)
{
    char port[16];
    struct connection *c = place(s, -1, CONNECTING);

    snprintf(port, sizeof(port), "%u", host_port);
    if (!c || !mull_opener_ask(&s->opener, c->id, port)) {
        if (c)
            drop(c);
        queue_reset(s, guest_port, host_port);
        return;
    }
    c->guest_port = guest_port;
    c->host_port = host_port;
    c->peer_alloc = le32toh(h->buf_alloc);
    c->peer_fwd = le32toh(h->fwd_cnt);
}

/* The guest has accepted: tell who asked. */
static void response(struct vsock *s, struct connection *c)
{
    char line[32];
    int n = snprintf(line, sizeof(line), "OK %u\n", c->host_port);

    c->state = OPEN;
    c->readable = true;
    if (send(c->fd, line, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL) != n)
        end(s, c);
}

static void data(struct vsock *s, struct connection *c, uint32_t len)
{
    /* More than its credit is against the rules (5.10.6.3.1). */
    if (c->state != OPEN || len > BUFFER - c->out_len ||
        (c->shutdown & VIRTIO_VSOCK_SHUTDOWN_SEND) || !queue_out(c, &s->chain, len)) {
        end(s, c);
        return;
    }
    if (c->hung)
        hang_up(c);
    flush(c);
}

static void shut(struct vsock *s, struct connection *c, uint32_t flags)
{
    c->shutdown |= flags & SHUT_BOTH;
    if (c->state != OPEN) {
        end(s, c);
        return;
    }
    if (flags & VIRTIO_VSOCK_SHUTDOWN_RCV)
        shutdown(c->fd, SHUT_RD);
    flush(c);
    if (finished(c) || (c->hung && (c->shutdown & VIRTIO_VSOCK_SHUTDOWN_RCV)))
        end(s, c);
}

static void packet(struct vsock *s)
{
    struct virtio_vsock_hdr h;

    if (mull_chain_read(&s->chain, 0, &h, HDR))
        return;
    uint32_t len = le32toh(h.len), guest_port = le32toh(h.src_port),
             host_port = le32toh(h.dst_port);
    uint16_t op = le16toh(h.op);
    struct connection *c = find(s, guest_port, host_port);
    bool fine = le16toh(h.type) == VIRTIO_VSOCK_TYPE_STREAM && le64toh(h.src_cid) == s->cid &&
                le64toh(h.dst_cid) == HOST_CID && len <= s->chain.out_len - HDR;

    if (op == VIRTIO_VSOCK_OP_RST) {
        if (c)
            drop(c);
        return;
    }
    if (!fine || (!c && op != VIRTIO_VSOCK_OP_REQUEST) || (c && op == VIRTIO_VSOCK_OP_REQUEST)) {
        if (c)
            end(s, c);
        else
            queue_reset(s, guest_port, host_port);
        return;
    }
    if (c) {
        c->peer_alloc = le32toh(h.buf_alloc);
        c->peer_fwd = le32toh(h.fwd_cnt);
        c->asked = c->asked && !credit(c);
    }
    if (op == VIRTIO_VSOCK_OP_REQUEST)
        request(s, guest_port, host_port, &h);
    else if (op == VIRTIO_VSOCK_OP_RESPONSE && c->state == REQUESTED)
        response(s, c);
    else if (op == VIRTIO_VSOCK_OP_RW)
        data(s, c, len);
    else if (op == VIRTIO_VSOCK_OP_CREDIT_REQUEST)
        c->due |= 1u << VIRTIO_VSOCK_OP_CREDIT_UPDATE;
    else if (op == VIRTIO_VSOCK_OP_SHUTDOWN)
        shut(s, c, le32toh(h.flags));
    else if (op != VIRTIO_VSOCK_OP_CREDIT_UPDATE)
        end(s, c);
}

static void kick_tx(struct vsock *s)
{
    struct mull_virtqueue *q = &s->v.queues[TX];

    do {
        mull_virtqueue_quiet(q);
        while (mull_virtqueue_pop(q, &s->chain)) {
            uint16_t head = s->chain.head;
            packet(s);
            mull_virtqueue_push(q, head, 0);
            if (s->resets == RESETS)
                pump(s);
        }
        mull_virtqueue_signal(q);
    } while (mull_virtqueue_listen(q));
}

static void kick_event(struct vsock *s)
{
    const struct virtio_vsock_event event = {htole32(VIRTIO_VSOCK_EVENT_TRANSPORT_RESET)};
    struct mull_virtqueue *q = &s->v.queues[EVENT];

    if (!s->reset_due || !mull_virtqueue_pop(q, &s->chain))
        return;
    s->reset_due = mull_chain_write(&s->chain, 0, &event, sizeof(event)) != 0;
    mull_virtqueue_push(q, s->chain.head, s->reset_due ? 0 : sizeof(event));
    mull_virtqueue_signal(q);
}

static void vsock_kick(struct mull_virtio *v, unsigned queue)
{
    struct vsock *s = (struct vsock *)v;

    if (queue == TX)
        kick_tx(s);
    else if (queue == EVENT)
        kick_event(s);
    pump(s);
}

/* ---- The host's side ---- */

/* "CONNECT PORT\n": a byte at a time, so that what follows stays in the socket. @return false: end
 * it
 */
static bool greet(struct connection *c)
{
    unsigned long port;
    char byte, tail;

    for (;;) {
        ssize_t n = recv(c->fd, &byte, 1, MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return true;
        if (n <= 0 || c->line_len == LINE_MAX_SIZE)
            return false;
        if (byte == '\n')
            break;
        c->line[c->line_len++] = byte;
    }
    c->line[c->line_len] = '\0';
    if (strncmp(c->line, "CONNECT ", 8) || c->line[8] < '0' || c->line[8] > '9' ||
        sscanf(c->line + 8, "%lu%c", &port, &tail) != 1 || port > UINT32_MAX)
        return false;
    c->guest_port = (uint32_t)port;
    do
        c->host_port = FIRST_HOST_PORT + (c->owner->ports++ & 0x3fffffff);
    while (find(c->owner, c->guest_port, c->host_port));
    c->state = REQUESTED;
    c->due = 1u << VIRTIO_VSOCK_OP_REQUEST;
    return true;
}

static void open_ready(struct vsock *s, struct connection *c, uint32_t events)
{
    if (events & (EPOLLIN | EPOLLRDHUP))
        c->readable = !c->host_ended;
    if (events & (EPOLLHUP | EPOLLERR)) {
        hang_up(c);
        if (c->host_ended) /* the guest has only been told that no more comes */
            c->due |= 1u << VIRTIO_VSOCK_OP_SHUTDOWN;
    }
    flush(c);
    if (finished(c) || (c->hung && (c->shutdown & VIRTIO_VSOCK_SHUTDOWN_RCV)))
        end(s, c);
}

static void connection_ready(void *opaque, uint32_t events)
{
    struct connection *c = opaque;
    struct vsock *s = c->owner;

    mull_virtio_lock(&s->v);
    if (c->state == GREETING) {
        if (!mull_virtio_driver_ok(&s->v) || !greet(c))
            drop(c);
    } else if (c->state == REQUESTED && (events & (EPOLLHUP | EPOLLERR))) {
        end(s, c); /* it has gone before the guest answered */
    } else if (c->state == OPEN) {
        open_ready(s, c, events);
    }
    pump(s);
    mull_virtio_unlock(&s->v);
}

static void accept_ready(void *opaque, uint32_t events)
{
    struct vsock *s = opaque;
    int fd = accept4(s->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    bool none_left = fd < 0 && (errno == EMFILE || errno == ENFILE);

    mull_virtio_lock(&s->v);
    struct connection *c = fd >= 0 ? place(s, fd, GREETING) : NULL;
    if (none_left) {
        s->deaf = true;
        mull_source_modify(s->listen_source, 0);
    } else if (fd >= 0 && !c) {
        close(fd);
    } else if (c && !watch(s, c)) {
        drop(c);
    }
    mull_virtio_unlock(&s->v);
}

/* What the guest has asked for: a socket, or none. */
static void connected(struct vsock *s, uint32_t id, int fd)
{
    struct connection *c = NULL;

    for (unsigned i = 0; i < s->top && !c; i++)
        if (s->connection[i].state == CONNECTING && s->connection[i].id == id)
            c = &s->connection[i];
    if (!c) {
        if (fd >= 0)
            close(fd);
        return;
    }
    c->fd = fd >= 0 ? fd : -1;
    if (fd < 0 || !watch(s, c)) {
        end(s, c);
        return;
    }
    c->state = OPEN;
    c->readable = true;
    c->due = 1u << VIRTIO_VSOCK_OP_RESPONSE;
}

static void opener_ready(void *opaque, uint32_t events)
{
    struct vsock *s = opaque;
    uint32_t id;
    uint64_t unused;
    int fd;
    bool answered = false;

    mull_virtio_lock(&s->v);
    while (mull_opener_answer(&s->opener, &id, &fd, &unused)) {
        connected(s, id, fd);
        answered = true;
    }
    if (!answered && (events & (EPOLLHUP | EPOLLERR))) { /* it has died: all is refused */
        mull_source_modify(s->opener_source, 0);
        for (unsigned i = s->top; i-- > 0;)
            if (s->connection[i].state == CONNECTING)
                end(s, &s->connection[i]);
    }
    pump(s);
    mull_virtio_unlock(&s->v);
}

/* ---- The device ---- */

static void drop_all(struct vsock *s)
{
    for (unsigned i = s->top; i-- > 0;)
        if (s->connection[i].state != FREE)
            drop(&s->connection[i]);
    s->resets = 0;
}

static void vsock_reset(struct mull_virtio *v)
{
    struct vsock *s = (struct vsock *)v;

    s->reset_due = false;
    drop_all(s);
}

static const struct mull_virtio_ops vsock_virtio_ops = {.kick = vsock_kick, .reset = vsock_reset};

static void vsock_destroy(struct mull_device *device)
{
    struct vsock *s = (struct vsock *)device;

    drop_all(s);
    mull_source_remove(s->listen_source);
    mull_source_remove(s->opener_source);
    if (s->listen_fd >= 0)
        close(s->listen_fd);
    if (*s->path)
        unlink(s->path);
    mull_opener_stop(&s->opener);
    mull_virtio_fini(&s->v);
    free(s);
}

static int vsock_loaded(void *object, uint32_t version, struct mull_error *err)
{
    ((struct vsock *)object)->reset_due = true;
    return 0;
}

static const struct mull_field vsock_fields[] = {
    MULL_FIELD_NESTED(struct vsock, v, &mull_virtio_desc), MULL_FIELDS_END};
static const struct mull_state_desc vsock_desc = {.name = "virtio-vsock",
                                                  .version = 1,
                                                  .oldest = 1,
                                                  .fields = vsock_fields,
                                                  .after_load = vsock_loaded};
static const struct mull_device_ops vsock_ops = {.state = &vsock_desc,
                                                 .reset = mull_virtio_device_reset,
                                                 .quiesce = mull_virtio_device_quiesce,
                                                 .resume = mull_virtio_device_resume,
                                                 .destroy = vsock_destroy};

static int listen_at(struct vsock *s, const char *path, struct mull_error *err)
{
    /* Eleven characters stay free for "_PORT". */
    if (!*path || strlen(path) + 11 >= sizeof(s->path))
        return mull_fail(err, ENAMETOOLONG, "--vsock path=%s: give 1 to %zu characters", path,
                         sizeof(s->path) - 12);
    int ret = mull_listen_unix(path, "--vsock path=", &s->listen_fd, err);
    if (ret)
        return ret;
    strcpy(s->path, path);
    ret = mull_opener_start_sockets(path, &s->opener, err);
    return ret ? ret
               : mull_loop_watch(s->v.env.loop, s->opener.socket, EPOLLIN, opener_ready, s,
                                 &s->opener_source, err);
}

static int set_up(struct vsock *s, const struct mull_device_env *env,
                  const struct mull_virtio_vsock_config *cfg, struct mull_error *err)
{
    const uint64_t cid = htole64(cfg->cid);
    int ret = mull_virtio_init(&s->v, env, cfg->name, VIRTIO_ID_VSOCK, 0, &vsock_virtio_ops, err);

    for (unsigned i = 0; i < 3; i++)
        mull_virtio_add_queue(&s->v, QUEUE_SIZE);
    memcpy(s->v.config, &cid, sizeof(cid));
    s->v.config_size = sizeof(cid);
    if (!ret && cfg->path)
        ret = listen_at(s, cfg->path, err);
    else
        s->listen_fd = cfg->socket;
    if (!ret)
        ret = mull_loop_watch(env->loop, s->listen_fd, EPOLLIN, accept_ready, s, &s->listen_source,
                              err);
    return ret;
}

int mull_virtio_vsock_create(const struct mull_device_env *env, struct mull_pci_bus *bus,
                             const struct mull_virtio_vsock_config *cfg, struct mull_device **out,
                             struct mull_error *err)
{
    if (cfg->cid < FIRST_CID || cfg->cid >= UINT32_MAX)
        return mull_fail(err, EINVAL, "--vsock cid=%llu: give 3 to 4294967294",
                         (unsigned long long)cfg->cid);
    struct vsock *s = calloc(1, sizeof(*s));
    if (!s)
        return mull_fail(err, ENOMEM, "%s: out of memory", cfg->name);
    s->listen_fd = s->opener.socket = -1;
    s->cid = cfg->cid;
    s->v.device.ops = &vsock_ops;
    for (unsigned i = 0; i < CONNECTIONS; i++)
        s->connection[i] = (struct connection){.owner = s, .fd = -1};
    int ret = set_up(s, env, cfg, err);
    if (!ret)
        ret = mull_virtio_pci_attach(&s->v, bus, cfg->devfn, PCI_CLASS_OTHER, err);
    if (ret) {
        vsock_destroy(&s->v.device);
        return ret;
    }
    *out = &s->v.device;
    return 0;
}
