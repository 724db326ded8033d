/* The NBD client's transmission phase, and opening. See client.h. */
#include "image/nbd/client.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "image/nbd/client_private.h"
#include "image/url.h"

/* A server may take its time over a flush, not over a greeting. */
#define HANDSHAKE_SECONDS 20
#define TRANSMISSION_SECONDS 300
#define STATUS_PIECE (1u << 30)

/* A request under way, on the stack of the thread that waits for it. */
struct nbd_call {
    uint64_t handle;
    uint16_t type;
    uint64_t offset;
    uint32_t length;
    uint8_t *data; /* READ: where its bytes go */
    uint32_t got;  /* READ: bytes that have come */
    struct nbd_remote *remote;
    int result;
    bool done;
    struct nbd_call *next;
};

int nbd_read_all(struct mull_channel *channel, void *buf, size_t length)
{
    for (size_t at = 0; at < length;) {
        ssize_t n = mull_channel_receive(channel, (char *)buf + at, length - at);
        if (n == 0)
            return -ECONNRESET;
        if (n < 0)
            return (int)n;
        at += (size_t)n;
    }
    return 0;
}

int nbd_write_all(struct mull_channel *channel, struct iovec *iov, int niov)
{
    while (niov) {
        ssize_t n = mull_channel_send(channel, iov, niov);
        if (n < 0)
            return (int)n;
        while (niov && (size_t)n >= iov->iov_len) {
            n -= (ssize_t)iov->iov_len;
            iov++;
            niov--;
        }
        if (niov) {
            iov->iov_base = (char *)iov->iov_base + n;
            iov->iov_len -= (size_t)n;
        }
    }
    return 0;
}

static int error_of(uint32_t code)
{
    switch (code) {
    case 0:
        return 0;
    case NBD_EPERM:
        return -EPERM;
    case NBD_ENOMEM:
        return -ENOMEM;
    case NBD_EINVAL:
        return -EINVAL;
    case NBD_ENOSPC:
        return -ENOSPC;
    case NBD_EOVERFLOW:
        return -EOVERFLOW;
    case NBD_ENOTSUP:
        return -EOPNOTSUPP;
    default:
        return -EIO;
    }
}

/* Read and forget. */
static int skip(struct nbd_remote *r, uint32_t length)
{
    uint8_t buf[4096];
    int ret = 0;
    while (length && !ret) {
        uint32_t n = length < sizeof(buf) ? length : sizeof(buf);
        ret = nbd_read_all(&r->channel, buf, n);
        length -= n;
    }
    return ret;
}

static int take_data(struct nbd_remote *r, struct nbd_call *call, uint32_t length, bool hole)
{
    uint8_t head[12];
    int ret;

    if (call->type != NBD_CMD_READ || length < 9 || (hole && length != 12))
        return -EPROTO;
    ret = nbd_read_all(&r->channel, head, hole ? 12 : 8);
    if (ret)
        return ret;
    uint64_t at = mull_be64(head) - call->offset;
    uint32_t n = hole ? mull_be32(head + 8) : length - 8;
    if (mull_be64(head) < call->offset || at > call->length || n > call->length - at || !n)
        return -EPROTO;
    /* Chunks that overlap would let the count lie: more than was asked for is refused. */
    if (n > call->length - call->got)
        return -EPROTO;
    call->got += n;
    if (!hole)
        return nbd_read_all(&r->channel, call->data + at, n);
    memset(call->data + at, 0, n);
    return 0;
}

static int take_error(struct nbd_remote *r, struct nbd_call *call, uint32_t length)
{
    uint8_t head[6];
    int ret =
        length < 6 || length > NBD_NAME_MAX + 64 ? -EPROTO : nbd_read_all(&r->channel, head, 6);
    if (ret)
        return ret;
    call->result = error_of(mull_be32(head));
    if (!call->result)
        call->result = -EIO;
    return mull_be16(head + 4) > length - 6 ? -EPROTO : skip(r, length - 6);
}

/* Remember what the server told of the map; what came before is forgotten. */
static int take_status(struct nbd_remote *r, struct nbd_call *call, uint32_t length)
{
    uint8_t head[8];
    uint64_t at = call->offset, end = call->offset + call->length;
    int ret;

    if (call->type != NBD_CMD_BLOCK_STATUS || length < 12 || length % 8 != 4)
        return -EPROTO;
    ret = nbd_read_all(&r->channel, head, 4);
    if (ret || mull_be32(head) != r->allocation_id)
        return ret ? ret : -EPROTO;
    r->nknown = 0;
    for (uint32_t left = length - 4; left; left -= 8) {
        ret = nbd_read_all(&r->channel, head, 8);
        uint64_t n = ret ? 0 : mull_be32(head);
        if (ret || !n)
            return ret ? ret : -EPROTO;
        bool zero = mull_be32(head + 4) & NBD_STATE_ZERO;
        if (at < end && r->nknown < NBD_KNOWN_MAX) {
            struct nbd_known *last = r->nknown ? &r->known[r->nknown - 1] : NULL;
            n = n < end - at ? n : end - at;
            if (last && last->zero == zero)
                last->end += n;
            else
                r->known[r->nknown++] = (struct nbd_known){at, at + n, zero};
        }
        at += n;
    }
    call->got = 1;
    return 0;
}

static struct nbd_call *find_call(struct nbd_remote *r, uint64_t handle)
{
    struct nbd_call *call;
    pthread_mutex_lock(&r->lock);
    for (call = r->calls; call && call->handle != handle; call = call->next)
        ;
    pthread_mutex_unlock(&r->lock);
    return call;
}

static int take_simple(struct nbd_remote *r, const uint8_t *head, struct nbd_call **finished)
{
    struct nbd_call *call = find_call(r, mull_be64(head + 8));
    uint32_t code = mull_be32(head + 4);

    /* "Structured replies": a read must then be answered by one, unless it failed at once. */
    if (!call || (!code && r->structured && call->type == NBD_CMD_READ))
        return -EPROTO;
    *finished = call;
    call->result = error_of(code);
    if (call->result || call->type != NBD_CMD_READ)
        return 0;
    call->got = call->length;
    return nbd_read_all(&r->channel, call->data, call->length);
}

static int take_chunk(struct nbd_remote *r, uint8_t *head, struct nbd_call **finished)
{
    int ret = nbd_read_all(&r->channel, head + NBD_SIMPLE_REPLY_SIZE,
                           NBD_CHUNK_SIZE - NBD_SIMPLE_REPLY_SIZE);
    if (ret)
        return ret;
    uint16_t type = mull_be16(head + 6);
    uint32_t length = mull_be32(head + 16);
    struct nbd_call *call = find_call(r, mull_be64(head + 8));
    if (!call || !r->structured)
        return -EPROTO;
    switch (type) {
    case NBD_CHUNK_NONE:
        ret = length ? -EPROTO : 0;
        break;
    case NBD_CHUNK_OFFSET_DATA:
    case NBD_CHUNK_OFFSET_HOLE:
        ret = take_data(r, call, length, type == NBD_CHUNK_OFFSET_HOLE);
        break;
    case NBD_CHUNK_BLOCK_STATUS:
        ret = take_status(r, call, length);
        break;
    default:
        ret = type & 0x8000 ? take_error(r, call, length) : -EPROTO;
        break;
    }
    if (mull_be16(head + 4) & NBD_CHUNK_DONE)
        *finished = call;
    return ret;
}

/* Read one message from the server. *finished: the call it ends. */
static int read_reply(struct nbd_remote *r, struct nbd_call **finished)
{
    uint8_t head[NBD_CHUNK_SIZE];
    int ret = nbd_read_all(&r->channel, head, NBD_SIMPLE_REPLY_SIZE);

    if (ret)
        return ret;
    if (mull_be32(head) == NBD_SIMPLE_REPLY_MAGIC)
        return take_simple(r, head, finished);
    return mull_be32(head) == NBD_CHUNK_MAGIC ? take_chunk(r, head, finished) : -EPROTO;
}

static void unlink_call(struct nbd_remote *r, struct nbd_call *call)
{
    for (struct nbd_call **link = &r->calls; *link; link = &(*link)->next)
        if (*link == call) {
            *link = call->next;
            return;
        }
}

/* Wait for a call; whoever waits while nobody reads reads for all. */
static int wait_call(struct nbd_remote *r, struct nbd_call *call)
{
    pthread_mutex_lock(&r->lock);
    while (!call->done && !r->broken) {
        if (r->reading) {
            pthread_cond_wait(&r->changed, &r->lock);
            continue;
        }
        r->reading = true;
        pthread_mutex_unlock(&r->lock);
        struct nbd_call *finished = NULL;
        int ret = read_reply(r, &finished);
        pthread_mutex_lock(&r->lock);
        r->reading = false;
        if (finished) {
            finished->done = true;
            unlink_call(r, finished);
        }
        if (ret)
            r->broken = ret == -EAGAIN ? -ETIMEDOUT : ret;
        pthread_cond_broadcast(&r->changed);
    }
    /* A reader may be filling this call's buffer: it ends, as the connection is broken. */
    while (!call->done && r->reading)
        pthread_cond_wait(&r->changed, &r->lock);
    int ret = call->done && !r->broken ? call->result : r->broken;
    if (!call->done)
        unlink_call(r, call);
    pthread_mutex_unlock(&r->lock);
    if (!ret && call->type == NBD_CMD_READ && call->got != call->length)
        return -EPROTO;
    return ret;
}

static int send_call(struct nbd_remote *r, struct nbd_call *call, unsigned flags,
                     const struct iovec *data, int ndata)
{
    uint8_t head[NBD_REQUEST_SIZE];
    struct iovec iov[MULL_FILE_IOV + 1];
    int ret;

    call->remote = r;
    pthread_mutex_lock(&r->lock);
    ret = r->broken;
    call->handle = ++r->next_handle;
    call->next = r->calls;
    if (!ret)
        r->calls = call;
    pthread_mutex_unlock(&r->lock);
    if (ret)
        return ret;
    mull_put_be32(head, NBD_REQUEST_MAGIC);
    mull_put_be16(head + 4, (uint16_t)flags);
    mull_put_be16(head + 6, call->type);
    mull_put_be64(head + 8, call->handle);
    mull_put_be64(head + 16, call->offset);
    mull_put_be32(head + 24, call->length);
    iov[0] = (struct iovec){head, sizeof(head)};
    for (int i = 0; i < ndata; i++)
        iov[i + 1] = data[i];
    pthread_mutex_lock(&r->send_lock);
    ret = nbd_write_all(&r->channel, iov, ndata + 1);
    pthread_mutex_unlock(&r->send_lock);
    if (ret) {
        /* The peer has half a message: nothing can follow it. Readers see the socket's end. */
        shutdown(r->channel.fd, SHUT_RDWR);
        pthread_mutex_lock(&r->lock);
        r->broken = r->broken ? r->broken : ret == -EAGAIN ? -ETIMEDOUT : ret;
        while (r->reading)
            pthread_cond_wait(&r->changed, &r->lock);
        unlink_call(r, call);
        pthread_cond_broadcast(&r->changed);
        pthread_mutex_unlock(&r->lock);
    }
    return ret;
}

/* One request without data, from start to end. */
static int simple_call(struct nbd_remote *r, uint16_t type, unsigned flags, uint64_t offset,
                       uint32_t length)
{
    struct nbd_call call = {.type = type, .offset = offset, .length = length};
    int ret = send_call(r, &call, flags, NULL, 0);
    return ret ? ret : wait_call(r, &call);
}

#define AT_ONCE 8

/* Read [offset, +length), aligned as the server wants it, into one buffer: several requests at
 * once. */
static int read_flat(struct nbd_remote *r, uint8_t *buf, uint64_t offset, uint64_t length)
{
    struct nbd_call calls[AT_ONCE];
    uint32_t piece = r->payload < NBD_PIECE ? r->payload : NBD_PIECE;
    int ret = 0;

    for (uint64_t at = 0; at < length && !ret;) {
        int n = 0;
        while (n < AT_ONCE && at < length && !ret) {
            uint32_t part = length - at < piece ? (uint32_t)(length - at) : piece;
            calls[n] = (struct nbd_call){
                .type = NBD_CMD_READ, .offset = offset + at, .length = part, .data = buf + at};
            ret = send_call(r, &calls[n], 0, NULL, 0);
            if (!ret)
                n++;
            at += part;
        }
        for (int i = 0; i < n; i++) {
            int one = wait_call(r, &calls[i]);
            ret = ret ? ret : one;
        }
    }
    return ret;
}

static int remote_readv(struct mull_file *file, const struct iovec *iov, int niov, uint64_t offset,
                        uint64_t length)
{
    struct nbd_remote *r = file->opaque;
    uint64_t start = offset & ~(uint64_t)(r->minimum - 1);
    uint64_t end = (offset + length + r->minimum - 1) & ~(uint64_t)(r->minimum - 1);
    uint8_t *buf;

    if (!length)
        return 0;
    if (niov == 1 && start == offset && end == offset + length)
        return read_flat(r, iov->iov_base, offset, length);
    buf = malloc(end - start);
    if (!buf)
        return -ENOMEM;
    /* The export may end inside a block: then its last bytes are read as they are. */
    int ret = read_flat(r, buf, start, (end < r->size ? end : r->size) - start);
    if (!ret)
        mull_iov_fill(iov, niov, 0, buf + (offset - start), length);
    free(buf);
    return ret;
}

/* What was told of the map holds no more. */
static void forget_map(struct nbd_remote *r)
{
    pthread_mutex_lock(&r->map_lock);
    r->nknown = 0;
    pthread_mutex_unlock(&r->map_lock);
}

static int remote_writev(struct mull_file *file, const struct iovec *iov, int niov, uint64_t offset,
                         uint64_t length)
{
    struct nbd_remote *r = file->opaque;
    uint32_t piece = r->payload < NBD_PIECE * 4 ? r->payload : NBD_PIECE * 4;
    int ret = 0;

    if ((offset | length) & (r->minimum - 1))
        return -EINVAL;
    forget_map(r);
    for (uint64_t at = 0; at < length && !ret;) {
        struct iovec part[MULL_FILE_IOV];
        int n = mull_iov_slice(iov, niov, at, length - at < piece ? length - at : piece, part,
                               MULL_FILE_IOV);
        struct nbd_call call = {.type = NBD_CMD_WRITE,
                                .offset = offset + at,
                                .length = (uint32_t)mull_iov_length(part, n)};
        if (call.length & (r->minimum - 1))
            return -EINVAL;
        at += call.length;
        ret = send_call(r, &call, 0, part, n);
        if (!ret)
            ret = wait_call(r, &call);
    }
    return ret;
}

static int remote_flush(struct mull_file *file)
{
    struct nbd_remote *r = file->opaque;
    return r->flags & NBD_FLAG_SEND_FLUSH ? simple_call(r, NBD_CMD_FLUSH, 0, 0, 0) : 0;
}

/* TRIM and WRITE_ZEROES: whole blocks, in pieces a server will take. */
static int in_pieces(struct nbd_remote *r, uint16_t type, unsigned flags, uint64_t offset,
                     uint64_t length)
{
    int ret = 0;

    forget_map(r);
    while (length && !ret) {
        uint32_t n = length < STATUS_PIECE ? (uint32_t)length : STATUS_PIECE;
        ret = simple_call(r, type, flags, offset, n);
        offset += n;
        length -= n;
    }
    return ret;
}

static int remote_discard(struct mull_file *file, uint64_t offset, uint64_t length)
{
    struct nbd_remote *r = file->opaque;
    uint64_t mask = r->minimum - 1, end = (offset + length) & ~mask;

    offset = (offset + mask) & ~mask;
    if (!(r->flags & NBD_FLAG_SEND_TRIM) || offset >= end)
        return 0;
    return in_pieces(r, NBD_CMD_TRIM, 0, offset, end - offset);
}

static int remote_zero(struct mull_file *file, uint64_t offset, uint64_t length, bool may_unmap)
{
    struct nbd_remote *r = file->opaque;

    if (!(r->flags & NBD_FLAG_SEND_WRITE_ZEROES) || (offset | length) & (r->minimum - 1))
        return -EOPNOTSUPP;
    return in_pieces(r, NBD_CMD_WRITE_ZEROES, may_unmap ? 0 : NBD_CMD_FLAG_NO_HOLE, offset, length);
}

static const struct nbd_known *known_at(const struct nbd_remote *r, uint64_t offset)
{
    for (uint32_t i = 0; i < r->nknown; i++)
        if (offset >= r->known[i].start && offset < r->known[i].end)
            return &r->known[i];
    return NULL;
}

static int remote_next_data(struct mull_file *file, uint64_t offset, uint64_t *start, uint64_t *end)
{
    struct nbd_remote *r = file->opaque;
    int ret = 0;

    *start = offset;
    *end = r->size;
    if (!r->allocation)
        return 0;
    pthread_mutex_lock(&r->map_lock);
    while (!ret && offset < r->size) {
        const struct nbd_known *k = known_at(r, offset);
        if (!k) {
            uint64_t mask = r->minimum - 1, from = offset & ~mask;
            uint64_t n = r->size - from < STATUS_PIECE ? r->size - from : STATUS_PIECE;
            r->nknown = 0;
            ret = simple_call(r, NBD_CMD_BLOCK_STATUS, 0, from, (uint32_t)n);
            if (!ret && !known_at(r, offset))
                ret = -EPROTO;
            continue;
        }
        if (!k->zero) {
            *start = offset;
            *end = k->end;
            break;
        }
        offset = k->end;
    }
    pthread_mutex_unlock(&r->map_lock);
    if (ret) { /* it may refuse to say: then all is data */
        *end = r->size;
        return r->broken ? r->broken : 0;
    }
    return offset >= r->size ? -ENXIO : 0;
}

static void remote_free(struct nbd_remote *r)
{
    mull_channel_close(&r->channel, !r->broken);
    mull_tls_free(r->tls);
    pthread_mutex_destroy(&r->send_lock);
    pthread_mutex_destroy(&r->lock);
    pthread_mutex_destroy(&r->map_lock);
    pthread_cond_destroy(&r->changed);
    free(r->name);
    free(r);
}

static void remote_close(struct mull_file *file)
{
    struct nbd_remote *r = file->opaque;
    struct nbd_call bye = {.type = NBD_CMD_DISC};

    if (!r->broken)
        send_call(r, &bye, 0, NULL, 0);
    remote_free(r);
}

static const struct mull_file_ops remote_ops = {
    .readv = remote_readv,
    .writev = remote_writev,
    .flush = remote_flush,
    .discard = remote_discard,
    .zero = remote_zero,
    .next_data = remote_next_data,
    .close = remote_close,
};

static void set_timeout(int fd, int seconds)
{
    struct timeval tv = {.tv_sec = seconds};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));
}

static int connect_unix(const char *path, struct mull_error *err)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    size_t n = strlen(path);

    if (n >= sizeof(sa.sun_path))
        return mull_fail(err, ENAMETOOLONG, "%s: too long for a socket's path", path);
    memcpy(sa.sun_path, path, n + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return mull_fail(err, errno, "socket: %s", strerror(errno));
    set_timeout(fd, HANDSHAKE_SECONDS);
    if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0) {
        int code = errno;
        close(fd);
        return mull_fail(err, code, "%s: cannot connect: %s", path, strerror(code));
    }
    return fd;
}

static int connect_tcp(const char *host, uint16_t port, struct mull_error *err)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *all;
    char service[8];
    int fd = -1, code = 0, one = 1;

    snprintf(service, sizeof(service), "%u", port ? port : NBD_PORT);
    int found = getaddrinfo(*host ? host : "localhost", service, &hints, &all);
    if (found)
        return mull_fail(err, EHOSTUNREACH, "%s: %s", host, gai_strerror(found));
    for (struct addrinfo *a = all; a && fd < 0; a = a->ai_next) {
        fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0) {
            code = errno;
            continue;
        }
        set_timeout(fd, HANDSHAKE_SECONDS);
        if (connect(fd, a->ai_addr, a->ai_addrlen) < 0) {
            code = errno == EINPROGRESS ? ETIMEDOUT : errno;
            close(fd);
            fd = -1;
        }
    }
    freeaddrinfo(all);
    if (fd < 0)
        return mull_fail(err, code, "%s port %s: cannot connect: %s", host, service,
                         strerror(code));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
    return fd;
}

static struct nbd_remote *remote_new(const char *name, int fd)
{
    struct nbd_remote *r = calloc(1, sizeof(*r));

    if (!r || !(r->name = strdup(name))) {
        free(r);
        return NULL;
    }
    r->channel.fd = fd;
    pthread_mutex_init(&r->send_lock, NULL);
    pthread_mutex_init(&r->lock, NULL);
    pthread_mutex_init(&r->map_lock, NULL);
    pthread_cond_init(&r->changed, NULL);
    return r;
}

static int finish_open(const struct mull_file_options *o, struct nbd_remote *r,
                       struct mull_file **out, struct mull_error *err)
{
    if (!o->readonly && r->flags & NBD_FLAG_READ_ONLY) {
        remote_free(r);
        return mull_fail(err, EROFS, "%s: the server lets nobody write here", o->path);
    }
    set_timeout(r->channel.fd, TRANSMISSION_SECONDS);
    return mull_file_stand_in(o, &remote_ops, r, r->size, out, err);
}

int mull_nbd_open_channel(const struct mull_file_options *o, struct mull_channel *channel,
                          const char *export_name, struct mull_file **out, struct mull_error *err)
{
    struct nbd_remote *r = remote_new(o->path, channel->fd);

    if (!r) {
        mull_channel_close(channel, false);
        return mull_fail(err, ENOMEM, "%s: out of memory", o->path);
    }
    int ret = nbd_handshake(r, export_name, false, NULL, err);
    if (ret) {
        remote_free(r);
        return ret;
    }
    return finish_open(o, r, out, err);
}

static int load_tls(const struct mull_file_options *o, const struct mull_url *url,
                    struct mull_tls **out, struct mull_error *err)
{
    const struct mull_source_options *s = o->source;
    const char *psk = mull_url_parameter(url, "tls-psk-file");
    const char *dir = mull_url_parameter(url, "tls-certificates");

    if (!psk && !dir && s) {
        psk = s->psk_file;
        dir = s->tls_dir;
    }
    if (!psk && !dir)
        return mull_fail(err, EINVAL,
                         "%s: TLS needs ?tls-certificates=DIRECTORY (with ca-cert.pem) or "
                         "?tls-psk-file=FILE",
                         o->path);
    return mull_tls_load(false, dir, psk, url->user, true, out, err);
}

int mull_nbd_open(const struct mull_file_options *o, struct mull_file **out, struct mull_error *err)
{
    struct mull_url url;
    struct mull_tls *tls = NULL;
    struct nbd_remote *r = NULL;
    int fd = -1, ret = mull_url_parse(o->path, &url, err);

    if (ret)
        return ret;
    bool local = strstr(url.scheme, "+unix"), secure = !strncmp(url.scheme, "nbds", 4);
    const char *path = mull_url_parameter(&url, "socket");
    const char *hostname = mull_url_parameter(&url, "tls-hostname");
    if (local && !path)
        ret = mull_fail(err, EINVAL, "%s: give ?socket=PATH", o->path);
    if (!ret && secure)
        ret = load_tls(o, &url, &tls, err);
    if (!ret) {
        fd = local ? connect_unix(path, err) : connect_tcp(url.host, url.port, err);
        ret = fd < 0 ? fd : 0;
    }
    if (!ret && !(r = remote_new(o->path, fd))) {
        close(fd);
        ret = mull_fail(err, ENOMEM, "%s: out of memory", o->path);
    }
    if (!ret) {
        r->tls = tls;
        tls = NULL;
        /* A server behind a local socket has no name of its own. */
        if (!hostname && !local)
            hostname = url.host;
        ret = nbd_handshake(r, url.path, secure, hostname, err);
        if (ret)
            remote_free(r);
        else
            ret = finish_open(o, r, out, err);
    }
    mull_tls_free(tls);
    mull_url_free(&url);
    return ret;
}
