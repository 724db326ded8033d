/*
 * The two virtio devices that give a guest a folder of the host: 9P (virtio-9p: feature
 * VIRTIO_9P_MOUNT_TAG, linux/virtio_9p.h) and file system (virtio 1.2, 5.11). What the guest asks
 * is neither read nor understood here: each chain is one request and room for its answer, carried
 * to and from mullion-share, a process that can reach the folder and nothing else.
 */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/virtio_9p.h>
#include <linux/virtio_fs.h>
#include <linux/virtio_ids.h>
#include <poll.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "device/child.h"
#include "device/devices.h"
#include "device/virtio/virtio.h"
#include "share/message.h"

#define QUEUE_SIZE 256
#define FS_QUEUES 2 /* high priority, requests */
#define PCI_CLASS_OTHER 0xff0000
#define READY_MS 10000
#define DRAIN_MS 10000 /* a folder on a host file system that hangs */
#define END_MS 1000
#define HEAD 16 /* of a request: what an error answer repeats */
#define MAX_VECTORS 1000

struct share {
    struct mull_virtio v;
    bool fuse;
    unsigned drain_ms;
    bool down; /* mullion-share has gone */
    struct mull_child child;
    int socket;
    struct mull_source *source;
    struct request *idle, *all;
    unsigned waiting; /* requests that wait for their answers */
    /* The unsent rest of a request: while there is one, no chain is taken. */
    uint8_t *out;
    uint32_t out_at, out_len;
    /* The answer that comes in. */
    struct share_message answer;
    uint32_t answer_have; /* bytes of its header, then of its body behind that */
    struct request *answered;
    struct iovec iov[MAX_VECTORS];
    uint8_t scratch[4096]; /* for what cannot go where it should */
};

struct request {
    struct request *next;     /* idle */
    struct request *next_all; /* all there are */
    uint32_t tag;
    bool busy;
    uint8_t head[HEAD];
    struct mull_chain chain;
};

/* ---- Requests ---- */

static struct request *request_get(struct share *s)
{
    struct request *r = s->idle;
    if (r) {
        s->idle = r->next;
    } else {
        r = calloc(1, sizeof(*r)); /* at most one for each queue entry */
        if (!r)
            return NULL;
        r->tag = s->all ? s->all->tag + 1 : 1;
        r->next_all = s->all;
        s->all = r;
    }
    return r;
}

static void request_put(struct share *s, struct request *r)
{
    r->busy = false;
    r->next = s->idle;
    s->idle = r;
}

static struct request *request_find(struct share *s, uint32_t tag)
{
    struct request *r = s->all;
    while (r && r->tag != tag)
        r = r->next_all;
    return r && r->busy ? r : NULL;
}

static void finish(struct share *s, struct request *r, uint32_t written)
{
    if (r->busy)
        s->waiting--;
    mull_virtqueue_push(r->chain.queue, r->chain.head, written);
    mull_virtqueue_signal(r->chain.queue);
    request_put(s, r);
}

/* Answer with EIO in the request's own protocol. */
static void finish_failed(struct share *s, struct request *r)
{
    uint8_t text[16] = {0};
    uint32_t len, code;

    if (s->fuse) { /* struct fuse_out_header: len, error, unique */
        len = htole32(16);
        code = htole32((uint32_t)-EIO);
        memcpy(text, &len, 4);
        memcpy(text + 4, &code, 4);
        memcpy(text + 8, r->head + 8, 8);
    } else { /* Rlerror: size[4] 7 tag[2] ecode[4] */
        len = htole32(11);
        code = htole32(EIO);
        memcpy(text, &len, 4);
        text[4] = 7;
        memcpy(text + 5, r->head + 5, 2);
        memcpy(text + 7, &code, 4);
    }
    len = le32toh(len);
    finish(s, r, mull_chain_write(&r->chain, 0, text, len) ? 0 : len);
}

/* ---- The process has gone ---- */

static void go_down(struct share *s, const char *why)
{
    char line[256] = "";

    if (s->down)
        return;
    s->down = true;
    s->out_len = s->out_at = 0;
    s->answered = NULL;
    mull_child_messages(&s->child, s->v.env.log, line, sizeof(line));
    mull_log(s->v.env.log, MULL_LOG_WARN,
             "%s: %s%s%s; the guest gets I/O errors until the machine is started again",
             s->v.device.name, why, *line ? ": " : "", line);
    mull_source_modify(s->source, 0);
    for (struct request *r = s->all; r; r = r->next_all)
        if (r->busy)
            finish_failed(s, r);
}

/* ---- Out ---- */

/* Send what is left of a request. @return false: the socket is full */
static bool send_rest(struct share *s)
{
    while (s->out_len && !s->down) {
        ssize_t n = send(s->socket, s->out + s->out_at, s->out_len, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN) {
            mull_source_modify(s->source, EPOLLIN | EPOLLOUT);
            return false;
        }
        if (n < 0) {
            go_down(s, "mullion-share has ended");
            break;
        }
        s->out_at += (uint32_t)n;
        s->out_len -= (uint32_t)n;
    }
    s->out_at = 0;
    if (!s->down)
        mull_source_modify(s->source, EPOLLIN);
    return true;
}

/* Keep what sendmsg() has not taken: @sent bytes of header and request have gone. */
static void keep_rest(struct share *s, const struct request *r, const struct share_message *m,
                      size_t sent)
{
    size_t head = sent < sizeof(*m) ? sizeof(*m) - sent : 0;
    size_t skip = sent < sizeof(*m) ? 0 : sent - sizeof(*m);

    memcpy(s->out, (const uint8_t *)m + sizeof(*m) - head, head);
    /* The chain was all RAM a moment ago, and RAM does not go away. */
    if (mull_chain_read(&r->chain, skip, s->out + head, m->len - skip))
        memset(s->out + head, 0, m->len - skip);
    s->out_at = 0;
    s->out_len = (uint32_t)(head + m->len - skip);
}

static void submit(struct share *s, struct request *r)
{
    const struct mull_chain *c = &r->chain;
    struct share_message m = {.len = c->out_len,
                              .tag = r->tag,
                              .room =
                                  c->in_len < SHARE_MESSAGE_MAX ? c->in_len : SHARE_MESSAGE_MAX};
    memset(r->head, 0, sizeof(r->head));
    int rc = mull_chain_read(c, 0, r->head, m.len < HEAD ? m.len : HEAD);
    s->iov[0] = (struct iovec){&m, sizeof(m)};
    int n = m.len > SHARE_MESSAGE_MAX
                ? -E2BIG
                : mull_chain_iov(c, false, 0, m.len, s->iov + 1, MAX_VECTORS - 1);
    if (rc || n < 0 || s->down) {
        finish_failed(s, r);
        return;
    }
    const struct msghdr msg = {.msg_iov = s->iov, .msg_iovlen = (size_t)n + 1};
    ssize_t sent;
    do
        sent = sendmsg(s->socket, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    if (sent < 0 && errno != EAGAIN) {
        go_down(s, "mullion-share has ended");
        finish_failed(s, r);
        return;
    }
    if (sent < (ssize_t)(sizeof(m) + m.len))
        keep_rest(s, r, &m, sent < 0 ? 0 : (size_t)sent);
    if (!m.room) {
        finish(s, r, 0); /* no answer will come */
    } else {
        r->busy = true;
        s->waiting++;
    }
    if (s->out_len)
        send_rest(s);
}

static void share_kick(struct mull_virtio *v, unsigned queue)
{
    struct share *s = (struct share *)v;
    struct mull_virtqueue *q = &v->queues[queue];

    do {
        mull_virtqueue_quiet(q);
        while (!s->out_len) {
            struct request *r = request_get(s);
            if (!r)
                return;
            if (!mull_virtqueue_pop(q, &r->chain)) {
                request_put(s, r);
                break;
            }
            submit(s, r);
        }
        mull_virtqueue_signal(q);
    } while (!s->out_len && mull_virtqueue_listen(q));
}

/* ---- In ---- */

/* Where the next bytes of the answer go. @return the number of vectors */
static int answer_vectors(struct share *s)
{
    uint32_t body = s->answer_have - (uint32_t)sizeof(s->answer);
    if (s->answer_have < sizeof(s->answer)) {
        s->iov[0] = (struct iovec){(uint8_t *)&s->answer + s->answer_have,
                                   sizeof(s->answer) - s->answer_have};
        return 1;
    }
    int n =
        mull_chain_iov(&s->answered->chain, true, body, s->answer.len - body, s->iov, MAX_VECTORS);
    if (n > 0)
        return n;
    uint32_t left = s->answer.len - body;
    s->iov[0] = (struct iovec){s->scratch, left < sizeof(s->scratch) ? left : sizeof(s->scratch)};
    return 1;
}

/* The header has come. @return false: it is nonsense */
static bool answer_begins(struct share *s)
{
    s->answered = request_find(s, s->answer.tag);
    return s->answered && s->answer.len <= s->answered->chain.in_len;
}

static void answer_ends(struct share *s)
{
    struct request *r = s->answered;
    mull_chain_wrote(&r->chain, 0, s->answer.len);
    s->answered = NULL;
    s->answer_have = 0;
    finish(s, r, s->answer.len);
}

/* Take what has come. @return false: nothing (more) is there */
static bool receive(struct share *s)
{
    if (s->down)
        return false;
    int n = answer_vectors(s);
    ssize_t got = readv(s->socket, s->iov, n);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return errno == EINTR;
    if (got <= 0) {
        go_down(s, "mullion-share has ended");
        return false;
    }
    bool header = s->answer_have < sizeof(s->answer);
    s->answer_have += (uint32_t)got;
    if (header && s->answer_have == sizeof(s->answer) && !answer_begins(s)) {
        go_down(s, "mullion-share answers what was not asked");
        return false;
    }
    if (s->answer_have >= sizeof(s->answer) && s->answer_have - sizeof(s->answer) == s->answer.len)
        answer_ends(s);
    return true;
}

static void socket_ready(void *opaque, uint32_t events)
{
    struct share *s = opaque;

    mull_virtio_lock(&s->v);
    while (receive(s))
        ;
    if (s->out_len && send_rest(s))
        for (unsigned i = 0; i < s->v.nqueues; i++)
            mull_virtio_kick(&s->v, i);
    mull_virtio_unlock(&s->v);
}

/* ---- The device ---- */

static void share_drain(struct mull_virtio *v)
{
    struct share *s = (struct share *)v;
    uint64_t end = mull_now_ns() + s->drain_ms * 1000000ull;

    mull_virtio_lock(v);
    while (s->waiting) {
        struct pollfd p = {.fd = s->socket, .events = POLLIN | (s->out_len ? POLLOUT : 0)};
        mull_virtio_unlock(v);
        poll(&p, 1, s->drain_ms < 100 ? (int)s->drain_ms : 100);
        mull_virtio_lock(v);
        if (s->out_len)
            send_rest(s);
        while (receive(s))
            ;
        if (mull_now_ns() > end)
            go_down(s, "mullion-share does not answer");
    }
    mull_virtio_unlock(v);
}

static void share_destroy(struct mull_device *device)
{
    struct share *s = (struct share *)device;
    mull_source_remove(s->source);
    mull_virtio_fini(&s->v);
    if (s->socket >= 0)
        close(s->socket);
    mull_child_stop(&s->child, END_MS);
    while (s->all) {
        struct request *next = s->all->next_all;
        free(s->all);
        s->all = next;
    }
    free(s->out);
    free(s);
}

static const struct mull_virtio_ops share_virtio_ops = {.kick = share_kick, .drain = share_drain};

/* The session (what is open, and which numbers stand for it) is mullion-share's and is not saved:
 * after a restore the guest gets errors for what it had open, and mounts again. */
static const struct mull_state_desc share_desc = {
    .name = "virtio-share",
    .version = 1,
    .oldest = 1,
    .fields = (const struct mull_field[]){MULL_FIELD_NESTED(struct share, v, &mull_virtio_desc),
                                          MULL_FIELDS_END},
};

static const struct mull_device_ops share_ops = {
    .state = &share_desc,
    .reset = mull_virtio_device_reset,
    .quiesce = mull_virtio_device_quiesce,
    .resume = mull_virtio_device_resume,
    .destroy = share_destroy,
};

/* ---- Setting up ---- */

static int start_child(struct share *s, const struct mull_virtio_share_config *cfg,
                       struct mull_error *err)
{
    char program[PATH_MAX], line[256] = "";
    int pair[2];

    mull_child_path("mullion-share", program);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
        return mull_fail(err, errno, "%s: no socket: %s", cfg->name, strerror(errno));
    const char *argv[] = {program, "--fd",    "3",  "--type", s->fuse ? "virtiofs" : "9p",
                          "--",    cfg->path, NULL, NULL};
    if (cfg->readonly) {
        argv[5] = "--readonly";
        argv[6] = "--";
        argv[7] = cfg->path;
    }
    int rc = mull_child_start(argv, pair[1], "install Mullion anew", &s->child, err);
    close(pair[1]);
    s->socket = pair[0];
    if (rc)
        return rc;
    /* Its first message: it has opened the folder and locked itself in. */
    struct share_message ready;
    struct pollfd p = {.fd = s->socket, .events = POLLIN};
    if (poll(&p, 1, READY_MS) == 1 &&
        recv(s->socket, &ready, sizeof(ready), MSG_WAITALL) == sizeof(ready))
        return 0;
    mull_child_messages(&s->child, s->v.env.log, line, sizeof(line));
    return mull_fail(err, EIO, "--share %s: %s; give a folder that you may read", cfg->path,
                     *line ? line : "mullion-share does not start");
}

static void fill_config(struct share *s, const char *tag)
{
    size_t len = strlen(tag);
    if (s->fuse) {
        struct virtio_fs_config c = {.num_request_queues = htole32(FS_QUEUES - 1)};
        memcpy(c.tag, tag, len); /* not terminated where it fills the field (5.11.4) */
        memcpy(s->v.config, &c, sizeof(c));
        s->v.config_size = sizeof(c);
    } else {
        uint16_t tag_len = htole16((uint16_t)len);
        memcpy(s->v.config, &tag_len, sizeof(tag_len));
        memcpy(s->v.config + sizeof(tag_len), tag, len);
        s->v.config_size = (uint32_t)(sizeof(tag_len) + len);
    }
}

int mull_virtio_share_create(const struct mull_device_env *env, struct mull_pci_bus *bus,
                             const struct mull_virtio_share_config *cfg, struct mull_device **out,
                             struct mull_error *err)
{
    _Static_assert(MULL_SHARE_TAG_MAX == sizeof(((struct virtio_fs_config *)0)->tag), "5.11.4");
    if (!*cfg->tag || strlen(cfg->tag) > MULL_SHARE_TAG_MAX)
        return mull_fail(err, EINVAL, "--share %s: tag '%s': a tag has 1 to %d bytes",
                         cfg->path ? cfg->path : "", cfg->tag, MULL_SHARE_TAG_MAX);
    struct share *s = calloc(1, sizeof(*s));
    if (!s)
        return mull_fail(err, ENOMEM, "%s: out of memory", cfg->name);
    s->v.device.ops = &share_ops;
    s->fuse = cfg->type == MULL_SHARE_VIRTIOFS;
    s->socket = -1;
    s->drain_ms = cfg->drain_ms ? cfg->drain_ms : DRAIN_MS;
    s->child = (struct mull_child){.pidfd = -1, .messages = -1};
    s->out = malloc(sizeof(struct share_message) + SHARE_MESSAGE_MAX);
    int rc = mull_virtio_init(&s->v, env, cfg->name, s->fuse ? VIRTIO_ID_FS : VIRTIO_ID_9P,
                              s->fuse ? 0 : MULL_BIT(VIRTIO_9P_MOUNT_TAG), &share_virtio_ops, err);
    if (!rc && !s->out)
        rc = mull_fail(err, ENOMEM, "%s: out of memory", cfg->name);
    if (!rc && cfg->path)
        rc = start_child(s, cfg, err);
    else if (!rc)
        s->socket = cfg->socket;
    if (!rc && fcntl(s->socket, F_SETFL, O_NONBLOCK))
        rc = mull_fail(err, errno, "%s: its socket: %s", cfg->name, strerror(errno));
    if (!rc)
        rc = mull_loop_watch(env->loop, s->socket, EPOLLIN, socket_ready, s, &s->source, err);
    if (!rc) {
        for (unsigned i = 0; i < (s->fuse ? FS_QUEUES : 1u); i++)
            mull_virtio_add_queue(&s->v, QUEUE_SIZE);
        fill_config(s, cfg->tag);
        rc = mull_virtio_pci_attach(&s->v, bus, cfg->devfn, PCI_CLASS_OTHER, err);
    }
    if (rc) {
        share_destroy(&s->v.device);
        return rc;
    }
    *out = &s->v.device;
    return 0;
}
