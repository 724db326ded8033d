/* Clients of the NBD server: their sockets, queues, limits and deadlines. See server.h. */
#include "image/bitmap.h"
#include "image/nbd/server_private.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define MS UINT64_C(1000000)
#define SEND_IOV 32

/* How long a message of this many bytes may take: a client that is slower holds our memory. */
static uint64_t deadline(const struct nbd_client *c, uint64_t bytes)
{
    return mull_now_ns() + c->server->o.stall_ms * MS + (bytes >> 10) * 4 * MS;
}

static void arm(struct nbd_client *c)
{
    uint64_t at = c->in_deadline;
    if (c->out_deadline && (!at || c->out_deadline < at))
        at = c->out_deadline;
    if (at)
        mull_timer_arm(c->timer, at);
    else
        mull_timer_cancel(c->timer);
}

static void out_free(struct nbd_out *out)
{
    if (out->request)
        nbd_request_release(out->request);
    free(out->owned);
    free(out);
}

static void client_free(struct nbd_client *c)
{
    mull_timer_destroy(c->timer);
    free(c->option_data);
    free(c);
}

static void unlink_client(struct nbd_client *c)
{
    struct mull_nbd_server *s = c->server;
    *c->link = c->next;
    if (c->next)
        c->next->link = c->link;
    c->next = NULL;
    s->nclients--;
    if (s->o.changed && !s->closing)
        s->o.changed(s->o.opaque, s->nclients);
}

/* A dead client's memory goes once its last request and the code that is using it are done. */
void nbd_reap(struct nbd_client *c)
{
    if (c->dead && !c->in_flight && !c->in_input) {
        unlink_client(c);
        client_free(c);
    }
}

void nbd_drop(struct nbd_client *c, const char *why)
{
    if (c->dead)
        return;
    if (why)
        mull_log(c->server->o.log, MULL_LOG_INFO, "NBD client: %s; disconnected", why);
    c->dead = true;
    mull_source_remove(c->source);
    c->source = NULL;
    mull_timer_cancel(c->timer);
    mull_channel_close(&c->channel, !why);
    while (c->out) {
        struct nbd_out *out = c->out;
        c->out = out->next;
        out_free(out);
    }
    struct nbd_request *begun[2] = {c->waiting, c->writing};
    c->waiting = c->writing = NULL;
    for (int i = 0; i < 2; i++)
        if (begun[i])
            nbd_request_release(begun[i]);
}

void nbd_slow(struct nbd_client *c, uint64_t bytes)
{
    c->in_deadline = deadline(c, bytes);
}

void nbd_expect(struct nbd_client *c, enum nbd_phase phase, void *target, uint32_t want)
{
    c->phase = phase;
    c->target = target;
    c->have = 0;
    c->want = want;
    /* Between requests a client may be silent for ever; the handshake has one deadline for all. */
    if (phase == NBD_PHASE_REQUEST)
        c->in_deadline = 0;
    else if (phase == NBD_PHASE_PAYLOAD)
        nbd_slow(c, want);
}

int nbd_send(struct nbd_client *c, const void *head, uint32_t head_length, const void *data,
             uint32_t data_length, uint8_t *owned, struct nbd_request *request)
{
    struct nbd_out *out = c->dead ? NULL : calloc(1, sizeof(*out));

    if (!out || head_length > sizeof(out->head)) {
        free(out);
        free(owned);
        nbd_drop(c, "out of memory");
        return -ENOMEM;
    }
    memcpy(out->head, head, head_length);
    out->head_length = head_length;
    out->data = data;
    out->data_length = data_length;
    out->owned = owned;
    out->request = request;
    if (request)
        request->references++;
    if (!c->out)
        c->out_deadline = deadline(c, head_length + data_length);
    *c->out_tail = out;
    c->out_tail = &out->next;
    return 0;
}

static int gather(const struct nbd_client *c, struct iovec *iov)
{
    int n = 0;
    for (const struct nbd_out *o = c->out; o && n + 2 <= SEND_IOV; o = o->next) {
        uint32_t sent = o->sent, in_head = sent < o->head_length ? o->head_length - sent : 0;
        if (in_head)
            iov[n++] = (struct iovec){(void *)(uintptr_t)(o->head + sent), in_head};
        uint32_t in_data = in_head ? 0 : sent - o->head_length;
        if (o->data_length > in_data)
            iov[n++] =
                (struct iovec){(void *)(uintptr_t)(o->data + in_data), o->data_length - in_data};
    }
    return n;
}

static void sent(struct nbd_client *c, size_t n)
{
    while (c->out) {
        struct nbd_out *o = c->out;
        size_t left = (size_t)o->head_length + o->data_length - o->sent;
        if (n < left) {
            o->sent += (uint32_t)n;
            return;
        }
        n -= left;
        c->out = o->next;
        if (!c->out)
            c->out_tail = &c->out;
        out_free(o);
        c->out_deadline =
            c->out ? deadline(c, c->out->head_length + (uint64_t)c->out->data_length) : 0;
    }
}

/* Send what waits. */
static void output(struct nbd_client *c)
{
    while (!c->dead && c->out) {
        struct iovec iov[SEND_IOV];
        int n = gather(c, iov);
        ssize_t done = mull_channel_send(&c->channel, iov, n);
        if (done == -EAGAIN)
            return;
        if (done < 0)
            nbd_drop(c, strerror((int)-done));
        else
            sent(c, (size_t)done);
    }
    if (!c->dead && c->phase == NBD_PHASE_CLOSING && !c->in_flight)
        nbd_drop(c, NULL);
}

/* More of the message that is being read. @return false: nothing there now */
static bool take(struct nbd_client *c)
{
    uint32_t staged = c->staged_to - c->staged_from;
    uint64_t need = c->skip ? c->skip : c->want - c->have;
    ssize_t n;

    if (staged) {
        uint32_t part = need < staged ? (uint32_t)need : staged;
        if (!c->skip)
            memcpy(c->target + c->have, c->staging + c->staged_from, part);
        c->staged_from += part;
        if (c->skip) {
            c->skip -= part;
            if (!c->skip)
                c->in_deadline = 0;
        } else {
            c->have += part;
        }
        return true;
    }
    bool direct = !c->skip && need >= NBD_STAGING;
    n = mull_channel_receive(&c->channel, direct ? c->target + c->have : c->staging,
                             direct ? need : NBD_STAGING);
    if (n == -EAGAIN)
        return false;
    if (n <= 0) {
        /* Between requests it is no more than bad manners. */
        nbd_drop(c, n < 0 ? strerror((int)-n) : c->have || c->skip ? "left in a message" : NULL);
        return false;
    }
    if (direct) {
        c->have += (uint32_t)n;
    } else {
        c->staged_from = 0;
        c->staged_to = (uint32_t)n;
    }
    return true;
}

static void got(struct nbd_client *c)
{
    switch (c->phase) {
    case NBD_PHASE_FLAGS:
        nbd_got_flags(c);
        break;
    case NBD_PHASE_OPTION:
        nbd_got_option(c);
        break;
    case NBD_PHASE_OPTION_DATA:
        nbd_got_option_data(c);
        break;
    case NBD_PHASE_REQUEST:
        nbd_got_request(c);
        break;
    case NBD_PHASE_PAYLOAD:
        nbd_got_payload(c);
        break;
    case NBD_PHASE_TLS:
    case NBD_PHASE_CLOSING:
        break;
    }
}

static bool reading(const struct nbd_client *c)
{
    return !c->dead && !c->waiting && c->phase != NBD_PHASE_CLOSING && c->phase != NBD_PHASE_TLS;
}

static void input(struct nbd_client *c)
{
    while (reading(c)) {
        if (!c->skip && c->have == c->want) {
            got(c);
            continue;
        }
        if (!take(c))
            return;
        /* Slow in the middle of a header is slow all the same. */
        if (c->phase == NBD_PHASE_REQUEST && c->have && !c->in_deadline)
            nbd_slow(c, c->want);
    }
}

/* What the client said before the handshake and did not protect is not to be believed. */
static void tls_forget(struct nbd_client *c)
{
    c->structured = false;
    c->ncontexts = 0;
    c->context_export = NULL;
}

static void tls_step(struct nbd_client *c)
{
    struct mull_error err = {0};
    int ret;

    if (c->out)
        return; /* the acknowledgement is still in clear */
    if (!c->channel.session) {
        if (c->staged_from != c->staged_to) {
            nbd_drop(c, "sent something before its TLS handshake");
            return;
        }
        if (mull_channel_secure(&c->channel, c->server->o.tls, NULL, &err)) {
            nbd_drop(c, err.message);
            return;
        }
    }
    ret = mull_channel_handshake(&c->channel, &err);
    if (ret == -EAGAIN)
        return;
    if (ret) {
        nbd_drop(c, err.message);
        return;
    }
    tls_forget(c);
    nbd_expect(c, NBD_PHASE_OPTION, c->header, 16);
}

static void watch(struct nbd_client *c)
{
    uint32_t events = reading(c) ? EPOLLIN : 0;
    if (c->out)
        events |= EPOLLOUT;
    if (c->phase == NBD_PHASE_TLS)
        events |= mull_channel_wants_write(&c->channel) ? EPOLLOUT : EPOLLIN;
    if (events != c->watching)
        mull_source_modify(c->source, events);
    c->watching = events;
    arm(c);
}

/* Do all that can be done for a client now. */
void nbd_serve(struct nbd_client *c)
{
    if (c->in_input)
        return;
    c->in_input = true;
    for (;;) {
        output(c);
        if (c->dead)
            break;
        if (c->waiting)
            nbd_try_waiting(c);
        enum nbd_phase before = c->phase;
        if (c->phase == NBD_PHASE_TLS)
            tls_step(c);
        input(c);
        output(c);
        /* TLS may hold bytes that epoll does not see; a new phase may have its first ones staged.
         */
        if (c->dead || (c->phase == before && !(reading(c) && mull_channel_pending(&c->channel))))
            break;
    }
    c->in_input = false;
    if (!c->dead)
        watch(c);
    nbd_reap(c);
}

static void on_socket(void *opaque, uint32_t events)
{
    struct nbd_client *c = opaque;

    /* A peer that is gone shows even while nothing is read from it. */
    if (events & EPOLLERR || (events & EPOLLHUP && !(events & EPOLLIN))) {
        nbd_drop(c, "connection lost");
        nbd_reap(c);
        return;
    }
    nbd_serve(c);
}

static void on_timer(void *opaque)
{
    struct nbd_client *c = opaque;
    uint64_t now = mull_now_ns();

    if (c->dead)
        return;
    if ((c->in_deadline && now >= c->in_deadline) || (c->out_deadline && now >= c->out_deadline)) {
        nbd_drop(c, c->phase < NBD_PHASE_REQUEST ? "took too long over the handshake"
                                                 : "too slow in the middle of a message");
        nbd_reap(c);
    } else {
        arm(c);
    }
}

void nbd_go_on(struct mull_nbd_server *server)
{
    /* Serving one client may free another: begin anew until nobody can move. */
    for (bool again = true; again;) {
        again = false;
        for (struct nbd_client *c = server->clients; c && !again; c = c->next)
            if (c->waiting && !c->in_input) {
                nbd_try_waiting(c);
                if (!c->waiting) {
                    nbd_serve(c);
                    again = true;
                }
            }
    }
}

int mull_nbd_server_add(struct mull_nbd_server *s, int fd)
{
    struct mull_error err = {0};
    struct nbd_client *c = s->nclients < s->o.max_clients ? calloc(1, sizeof(*c)) : NULL;
    int one = 1;

    if (!c) {
        mull_log_limited(s->o.log, s->refused, 10, MULL_LOG_WARN,
                         "NBD: a client was refused: there are %u already", s->nclients);
        close(fd);
        return -EMFILE;
    }
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
    c->server = s;
    c->channel.fd = fd;
    c->out_tail = &c->out;
    c->timer = mull_timer_create(s->o.loop, on_timer, c);
    c->watching = EPOLLIN;
    if (!c->timer || mull_loop_watch(s->o.loop, fd, EPOLLIN, on_socket, c, &c->source, &err)) {
        close(fd);
        client_free(c);
        return -ENOMEM;
    }
    c->next = s->clients;
    c->link = &s->clients;
    if (c->next)
        c->next->link = &c->next;
    s->clients = c;
    s->nclients++;
    c->in_deadline = mull_now_ns() + s->o.handshake_ms * MS;
    if (s->o.changed)
        s->o.changed(s->o.opaque, s->nclients);
    nbd_greet(c);
    nbd_serve(c);
    return 0;
}

static void on_listener(void *opaque, uint32_t events)
{
    struct mull_nbd_server *s = opaque;

    for (int i = 0; i < s->nlisteners; i++) {
        int fd = accept4(s->listener_fds[i], NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0)
            mull_nbd_server_add(s, fd);
    }
}

int mull_nbd_server_listen(struct mull_nbd_server *s, int fd, struct mull_error *err)
{
    int n = s->nlisteners;

    if (n == (int)(sizeof(s->listeners) / sizeof(s->listeners[0])))
        return mull_fail(err, EMFILE, "NBD: too many listening sockets");
    int ret = mull_loop_watch(s->o.loop, fd, EPOLLIN, on_listener, s, &s->listeners[n], err);
    if (ret)
        return ret;
    s->listener_fds[n] = fd;
    s->nlisteners++;
    return 0;
}

/* Bits that contexts will tell of: no request is in flight yet. */
static int load_bitmaps(const struct mull_nbd_export *e, struct mull_error *err)
{
    struct mull_image *image = mull_block_image(e->block);
    int ret = e->bitmaps && e->bitmaps[0] ? mull_bitmaps_get(image, err) : 0;

    for (int i = 0; !ret && e->bitmaps && e->bitmaps[i]; i++) {
        struct mull_bitmap *bitmap = mull_bitmap_find(image, e->bitmaps[i]);
        ret = bitmap ? mull_bitmap_load(image, bitmap, err)
                     : mull_fail(err, ENOENT, "%s: there is no bitmap '%.100s'", image->path,
                                 e->bitmaps[i]);
    }
    return ret;
}

int mull_nbd_server_create(const struct mull_nbd_options *options, struct mull_nbd_server **out,
                           struct mull_error *err)
{
    struct mull_nbd_server *s = calloc(1, sizeof(*s));

    if (!s)
        return mull_fail(err, ENOMEM, "NBD: out of memory");
    s->o = *options;
    s->o.max_clients = s->o.max_clients ? s->o.max_clients : 16;
    s->o.memory = s->o.memory ? s->o.memory : UINT64_C(128) << 20;
    /* One request of the largest size must always fit. */
    if (s->o.memory < NBD_PAYLOAD_MAX)
        s->o.memory = NBD_PAYLOAD_MAX;
    s->o.handshake_ms = s->o.handshake_ms ? s->o.handshake_ms : 20000;
    s->o.stall_ms = s->o.stall_ms ? s->o.stall_ms : 30000;
    for (int i = 0; i < s->o.nexports; i++) {
        int ret = load_bitmaps(&s->o.exports[i], err);
        if (ret) {
            free(s);
            return ret;
        }
    }
    *out = s;
    return 0;
}

void mull_nbd_server_destroy(struct mull_nbd_server *s)
{
    if (!s)
        return;
    s->closing = true;
    for (int i = 0; i < s->nlisteners; i++)
        mull_source_remove(s->listeners[i]);
    for (struct nbd_client *c = s->clients, *next; c; c = next) {
        next = c->next;
        nbd_drop(c, NULL);
        nbd_reap(c);
    }
    for (int i = 0; i < s->o.nexports; i++)
        mull_block_drain(s->o.exports[i].block);
    free(s);
}
