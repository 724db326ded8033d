/*
 * Character devices over descriptors: a pair of them (a terminal, a pipe) and a Unix socket that
 * one client at a time connects to. Output goes through a bounded ring that the loop writes out;
 * a vCPU's write never waits for anybody. Knows descriptors, not who is at the machine's side.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include "device/chardev.h"

#define OUT_SIZE 65536u
#define IN_SIZE 4096u
/* Bytes that follow each other faster than this go out together. */
#define GATHER_NS 1000000u
#define DRAIN_MS 1000

struct stream {
    struct mull_chardev base;
    struct mull_loop *loop;
    const struct mull_log *log;
    struct mull_chardev_frontend frontend;
    struct mull_chardev_fd_config config; /* hooks of an fd pair */

    pthread_mutex_t lock; /* the output ring and the four below */
    uint8_t out[OUT_SIZE];
    uint32_t out_first, out_len;
    bool flush_due; /* a flush is posted, timed or waits for the descriptor */
    bool starved;   /* a write was short */
    bool connected; /* somebody is there; without, a socket keeps the newest output */
    bool discard;   /* nobody ever will be: output vanishes */
    uint64_t flushed_ns;

    /* The loop's thread only. */
    int in_fd, out_fd; /* non-blocking, ours if own_*; -1: none */
    bool own_in, own_out;
    bool in_polled; /* epoll tells when there is input; else it always may be read */
    struct mull_source *in_source, *out_source;
    struct mull_timer *gather;
    uint8_t in[IN_SIZE];
    uint32_t in_first, in_len;
    _Atomic bool in_waits; /* input waits for mull_chardev_resume() */
    _Atomic bool pump_posted;

    /* Unix sockets. */
    int listen_fd;
    struct mull_source *listen_source;
    char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
};

static void close_peer(struct stream *s);
static void accept_peer(struct stream *s);

static ssize_t no_intr_read(int fd, void *buf, size_t len)
{
    ssize_t n;
    do
        n = read(fd, buf, len);
    while (n < 0 && errno == EINTR);
    return n;
}

static ssize_t no_intr_write(const struct stream *s, const struct iovec *iov, int niov)
{
    ssize_t n;
    do {
        if (s->listen_fd >= 0) {
            const struct msghdr msg = {.msg_iov = (struct iovec *)iov, .msg_iovlen = (size_t)niov};
            n = sendmsg(s->out_fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
        } else {
            n = writev(s->out_fd, iov, niov);
        }
    } while (n < 0 && errno == EINTR);
    return n;
}

/* ---- Output ---- */

/* Write the ring out as far as the descriptor takes it, the lock held. @return 0 or -errno:
 * -EAGAIN: the descriptor is full. */
static int write_ring(struct stream *s)
{
    while (s->out_len) {
        uint32_t to_end = OUT_SIZE - s->out_first;
        uint32_t first = s->out_len < to_end ? s->out_len : to_end;
        const struct iovec iov[2] = {{s->out + s->out_first, first}, {s->out, s->out_len - first}};
        ssize_t n = no_intr_write(s, iov, iov[1].iov_len ? 2 : 1);
        if (n < 0)
            return -errno;
        s->out_first = (s->out_first + (uint32_t)n) % OUT_SIZE;
        s->out_len -= (uint32_t)n;
    }
    return 0;
}

static void flush(void *opaque)
{
    struct stream *s = opaque;
    bool lost = false;

    pthread_mutex_lock(&s->lock);
    s->flush_due = false;
    if (s->out_fd >= 0 && s->out_len) {
        int rc = write_ring(s);
        s->flushed_ns = mull_now_ns();
        if (rc == -EAGAIN)
            s->flush_due = true; /* EPOLLOUT calls us again */
        else if (rc)
            lost = true;
    }
    if (s->discard || (lost && s->listen_fd < 0)) {
        s->discard = true;
        s->out_len = 0;
    }
    bool tell = s->starved && s->out_len <= OUT_SIZE / 2;
    if (tell)
        s->starved = false;
    pthread_mutex_unlock(&s->lock);

    if (lost && s->listen_fd >= 0)
        close_peer(s);
    if (tell && s->frontend.writable)
        s->frontend.writable(s->frontend.opaque);
}

/* Have the ring written out: at once after a silence, else with what follows it. Lock held. */
static void schedule_flush(struct stream *s)
{
    if (s->flush_due)
        return;
    s->flush_due = true;
    uint64_t now = mull_now_ns();
    if (now - s->flushed_ns >= GATHER_NS && !mull_loop_post(s->loop, flush, s))
        return;
    mull_timer_arm(s->gather, s->flushed_ns + GATHER_NS);
}

static void append(struct stream *s, const uint8_t *bytes, size_t len)
{
    uint32_t at = (s->out_first + s->out_len) % OUT_SIZE;
    size_t to_end = OUT_SIZE - at, first = len < to_end ? len : to_end;
    memcpy(s->out + at, bytes, first);
    memcpy(s->out, bytes + first, len - first);
    s->out_len += (uint32_t)len;
}

static size_t stream_write(struct mull_chardev *chardev, const uint8_t *bytes, size_t len)
{
    struct stream *s = (struct stream *)chardev;

    pthread_mutex_lock(&s->lock);
    if (s->discard) {
        pthread_mutex_unlock(&s->lock);
        return len;
    }
    if (!s->connected) {
        /* Keep the newest OUT_SIZE bytes for the next client. */
        size_t total = len, keep = len < OUT_SIZE ? len : OUT_SIZE;
        if (s->out_len + keep > OUT_SIZE) {
            uint32_t drop = (uint32_t)(s->out_len + keep - OUT_SIZE);
            s->out_first = (s->out_first + drop) % OUT_SIZE;
            s->out_len -= drop;
        }
        append(s, bytes + (total - keep), keep);
        pthread_mutex_unlock(&s->lock);
        return total;
    }
    size_t room = OUT_SIZE - s->out_len;
    if (len > room) {
        len = room;
        s->starved = true;
    }
    append(s, bytes, len);
    schedule_flush(s);
    pthread_mutex_unlock(&s->lock);
    return len;
}

static void out_ready(void *opaque, uint32_t events)
{
    flush(opaque);
}

/* ---- Input ---- */

static size_t input_room(const struct stream *s)
{
    return s->frontend.can_receive ? s->frontend.can_receive(s->frontend.opaque) : 0;
}

/* Hand what was read to the frontend. @return true: nothing is left */
static bool deliver(struct stream *s)
{
    while (s->in_len) {
        size_t room = input_room(s);
        size_t n = s->in_len < room ? s->in_len : room;
        if (!n) {
            atomic_store(&s->in_waits, true);
            /* Room may have come before in_waits was seen. */
            if (!input_room(s))
                return false;
            atomic_store(&s->in_waits, false);
            continue;
        }
        s->frontend.receive(s->frontend.opaque, s->in + s->in_first, n);
        s->in_first += (uint32_t)n;
        s->in_len -= (uint32_t)n;
    }
    s->in_first = 0;
    return true;
}

static void in_ended(struct stream *s)
{
    if (s->listen_fd >= 0) {
        close_peer(s);
        return;
    }
    mull_source_remove(s->in_source);
    s->in_source = NULL;
    if (s->own_in)
        close(s->in_fd);
    s->in_fd = -1;
    if (s->config.closed)
        s->config.closed(s->config.opaque);
}

/* Read once behind what waits, through the filter. @return false: there is nothing to read now */
static bool read_some(struct stream *s)
{
    uint8_t surplus[256]; /* where keys go that nobody takes: only the filter sees them */

    if (s->in_first) {
        memmove(s->in, s->in + s->in_first, s->in_len);
        s->in_first = 0;
    }
    bool full = s->in_len == IN_SIZE;
    uint8_t *to = full ? surplus : s->in + s->in_len;
    ssize_t n = no_intr_read(s->in_fd, to, full ? sizeof(surplus) : IN_SIZE - s->in_len);
    if (n < 0 && errno == EAGAIN)
        return false;
    if (n <= 0) {
        in_ended(s);
        return false;
    }
    size_t kept = (size_t)n;
    if (s->config.filter)
        kept = s->config.filter(s->config.opaque, to, kept);
    if (!full && kept <= (size_t)n)
        s->in_len += (uint32_t)kept;
    return true;
}

/* Has the client gone while its input waits for a guest that does not read, and another come? */
static bool outlived(struct stream *s)
{
    struct pollfd p[2] = {{.fd = s->in_fd}, {.fd = s->listen_fd, .events = POLLIN}};
    return s->listen_fd >= 0 && s->in_fd >= 0 && atomic_load(&s->in_waits) && poll(p, 2, 0) == 2 &&
           (p[0].revents & POLLHUP);
}

/* Read and deliver until the descriptor is empty or the frontend is full. Edge-triggered: what is
 * left unread waits for mull_chardev_resume(), not for epoll. */
static void pump(void *opaque)
{
    struct stream *s = opaque;

    atomic_store(&s->pump_posted, false);
    atomic_store(&s->in_waits, false);
    for (;;) {
        bool empty = deliver(s);
        if (!empty && outlived(s)) {
            close_peer(s);
            return;
        }
        if (s->in_fd < 0 || (!empty && !s->config.read_ahead))
            return;
        if (!read_some(s))
            return;
    }
}

static void in_ready(void *opaque, uint32_t events)
{
    pump(opaque);
}

static void post_pump(struct stream *s)
{
    if (!atomic_exchange(&s->pump_posted, true) && mull_loop_post(s->loop, pump, s))
        atomic_store(&s->pump_posted, false);
}

static void stream_resume(struct mull_chardev *chardev)
{
    struct stream *s = (struct stream *)chardev;
    if (atomic_load(&s->in_waits))
        post_pump(s);
}

static void stream_attach(struct mull_chardev *chardev,
                          const struct mull_chardev_frontend *frontend)
{
    struct stream *s = (struct stream *)chardev;
    s->frontend = frontend ? *frontend : (struct mull_chardev_frontend){0};
    post_pump(s);
}

static bool stream_connected(struct mull_chardev *chardev)
{
    struct stream *s = (struct stream *)chardev;
    pthread_mutex_lock(&s->lock);
    bool connected = s->connected;
    pthread_mutex_unlock(&s->lock);
    return connected;
}

static void set_connected(struct stream *s, bool connected)
{
    pthread_mutex_lock(&s->lock);
    s->connected = connected;
    s->flush_due = false;
    if (connected && s->out_len)
        schedule_flush(s);
    bool tell = !connected && s->starved;
    if (tell)
        s->starved = false;
    pthread_mutex_unlock(&s->lock);
    if (tell && s->frontend.writable)
        s->frontend.writable(s->frontend.opaque);
    if (s->frontend.connected)
        s->frontend.connected(s->frontend.opaque, connected);
}

/* ---- Life ---- */

/* The last words of a guest must not get lost with its machine. */
static void drain(struct stream *s)
{
    uint64_t end = mull_now_ns() + DRAIN_MS * 1000000ull;

    while (s->out_fd >= 0 && s->connected && s->out_len && !s->discard) {
        int rc = write_ring(s);
        if (rc && rc != -EAGAIN)
            return;
        uint64_t now = mull_now_ns();
        if (!s->out_len || now >= end)
            return;
        struct pollfd p = {.fd = s->out_fd, .events = POLLOUT};
        poll(&p, 1, (int)((end - now) / 1000000) + 1);
    }
}

static void stream_destroy(struct mull_chardev *chardev)
{
    struct stream *s = (struct stream *)chardev;

    drain(s);
    mull_source_remove(s->in_source);
    mull_source_remove(s->out_source);
    mull_source_remove(s->listen_source);
    mull_timer_destroy(s->gather);
    if (s->own_in && s->in_fd >= 0)
        close(s->in_fd);
    if (s->own_out && s->out_fd >= 0)
        close(s->out_fd);
    if (s->listen_fd >= 0) {
        unlink(s->path);
        close(s->listen_fd);
    }
    pthread_mutex_destroy(&s->lock);
    free(s);
}

static const struct mull_chardev_ops stream_ops = {.write = stream_write,
                                                   .attach = stream_attach,
                                                   .resume = stream_resume,
                                                   .connected = stream_connected,
                                                   .destroy = stream_destroy};

static struct stream *stream_new(struct mull_loop *loop, struct mull_error *err)
{
    struct stream *s = calloc(1, sizeof(*s));
    if (s) {
        s->gather = mull_timer_create(loop, flush, s);
        if (s->gather) {
            s->base.ops = &stream_ops;
            s->loop = loop;
            s->in_fd = s->out_fd = s->listen_fd = -1;
            pthread_mutex_init(&s->lock, NULL);
            return s;
        }
        free(s);
    }
    mull_fail(err, ENOMEM, "console: out of memory");
    return NULL;
}

/* ---- A pair of descriptors ---- */

/* Our own non-blocking open file for @fd: O_NONBLOCK belongs to the open file, which the shell
 * that started us shares. Regular files keep theirs for its offset. @return a descriptor or
 * -errno; *own says whether it is another than @fd */
static int own_copy(int fd, int mode, bool *own)
{
    struct stat st;
    char link[32];

    if (fstat(fd, &st))
        return -errno;
    *own = false;
    if (S_ISREG(st.st_mode) || S_ISBLK(st.st_mode))
        return fd;
    *own = true;
    if (S_ISCHR(st.st_mode) || S_ISFIFO(st.st_mode)) {
        snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
        int copy = open(link, mode | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
        if (copy >= 0)
            return copy;
    }
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (copy < 0)
        return -errno;
    int flags = fcntl(copy, F_GETFL);
    if (flags < 0 || fcntl(copy, F_SETFL, flags | O_NONBLOCK)) {
        int rc = -errno;
        close(copy);
        return rc;
    }
    return copy;
}

static int watch_in(struct stream *s, struct mull_error *err)
{
    int rc = mull_loop_watch(s->loop, s->in_fd, EPOLLIN | EPOLLRDHUP | EPOLLET, in_ready, s,
                             &s->in_source, err);
    if (rc == -EPERM) { /* a regular file or the like: always readable */
        post_pump(s);
        rc = 0;
    }
    return rc;
}

static int watch_out(struct stream *s, struct mull_error *err)
{
    int rc =
        mull_loop_watch(s->loop, s->out_fd, EPOLLOUT | EPOLLET, out_ready, s, &s->out_source, err);
    return rc == -EPERM ? 0 : rc;
}

int mull_chardev_fd_create(struct mull_loop *loop, const struct mull_chardev_fd_config *config,
                           struct mull_chardev **out, struct mull_error *err)
{
    struct stream *s = stream_new(loop, err);
    if (!s)
        return -ENOMEM;
    s->config = *config;
    s->connected = true;
    s->discard = config->out_fd < 0;

    int rc = 0;
    if (config->in_fd >= 0) {
        s->in_fd = own_copy(config->in_fd, O_RDONLY, &s->own_in);
        if (s->in_fd < 0)
            rc = mull_fail(err, -s->in_fd, "console input: %s; give an open descriptor",
                           strerror(-s->in_fd));
    }
    if (!rc && config->out_fd >= 0) {
        s->out_fd = own_copy(config->out_fd, O_WRONLY, &s->own_out);
        if (s->out_fd < 0)
            rc = mull_fail(err, -s->out_fd, "console output: %s; give an open descriptor",
                           strerror(-s->out_fd));
    }
    if (!rc && s->in_fd >= 0)
        rc = watch_in(s, err);
    if (!rc && s->out_fd >= 0)
        rc = watch_out(s, err);
    if (rc) {
        stream_destroy(&s->base);
        return rc;
    }
    *out = &s->base;
    return 0;
}

/* ---- A Unix socket ---- */

static void close_peer(struct stream *s)
{
    if (s->out_fd < 0)
        return;
    mull_source_remove(s->in_source);
    mull_source_remove(s->out_source);
    s->in_source = s->out_source = NULL;
    close(s->in_fd);
    close(s->out_fd);
    s->in_fd = s->out_fd = -1;
    s->own_in = s->own_out = false;
    s->in_len = s->in_first = 0;
    set_connected(s, false);
    accept_peer(s); /* the next one may have waited */
}

static void accept_peer(struct stream *s)
{
    if (s->out_fd >= 0)
        return;
    int fd = accept4(s->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return;
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (copy < 0) {
        close(fd);
        return;
    }
    s->in_fd = fd;
    s->out_fd = copy;
    s->own_in = s->own_out = true;
    struct mull_error err = {0};
    if (mull_loop_watch(s->loop, s->out_fd, EPOLLOUT | EPOLLET, out_ready, s, &s->out_source,
                        &err) ||
        mull_loop_watch(s->loop, s->in_fd, EPOLLIN | EPOLLRDHUP | EPOLLET, in_ready, s,
                        &s->in_source, &err)) {
        mull_log(s->log, MULL_LOG_WARN, "console %s: %s", s->path, err.message);
        close_peer(s);
        return;
    }
    set_connected(s, true);
}

static void listen_ready(void *opaque, uint32_t events)
{
    struct stream *s = opaque;
    if (outlived(s))
        close_peer(s); /* and accepts the next */
    else
        accept_peer(s);
}

/* Bind @fd to @path, replacing a socket that nobody listens on. */
static int bind_path(int fd, const struct sockaddr_un *address, struct mull_error *err)
{
    const char *path = address->sun_path;
    struct stat st;

    /* The mode of the socket file is that of the socket before bind(). */
    fchmod(fd, 0600);
    if (!bind(fd, (const struct sockaddr *)address, sizeof(*address)))
        return 0;
    if (errno != EADDRINUSE)
        return mull_fail(err, errno, "console socket %s: %s; give a path in a folder of yours",
                         path, strerror(errno));
    if (lstat(path, &st) || !S_ISSOCK(st.st_mode))
        return mull_fail(err, EEXIST,
                         "console socket %s: a file of that name exists; remove it or "
                         "give another path",
                         path);
    int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int rc = probe < 0 ? -1 : connect(probe, (const struct sockaddr *)address, sizeof(*address));
    bool stale = rc && errno == ECONNREFUSED;
    if (probe >= 0)
        close(probe);
    if (!stale)
        return mull_fail(err, EADDRINUSE,
                         "console socket %s: another process listens there; give another path",
                         path);
    if (unlink(path) || bind(fd, (const struct sockaddr *)address, sizeof(*address)))
        return mull_fail(err, errno, "console socket %s: %s", path, strerror(errno));
    return 0;
}

int mull_chardev_unix_create(struct mull_loop *loop, const char *path, const struct mull_log *log,
                             struct mull_chardev **out, struct mull_error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (!*path || strlen(path) >= sizeof(address.sun_path))
        return mull_fail(err, ENAMETOOLONG,
                         "console socket %s: the path must have 1 to %zu characters", path,
                         sizeof(address.sun_path) - 1);
    strcpy(address.sun_path, path);

    struct stream *s = stream_new(loop, err);
    if (!s)
        return -ENOMEM;
    s->log = log;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int rc = fd < 0 ? mull_fail(err, errno, "console socket %s: %s", path, strerror(errno))
                    : bind_path(fd, &address, err);
    if (!rc) {
        s->listen_fd = fd; /* from here on the path is ours to remove */
        strcpy(s->path, path);
        if (listen(fd, 4))
            rc = mull_fail(err, errno, "console socket %s: %s", path, strerror(errno));
        else
            /* Edge-triggered: whoever waits for a client to go is seen when it goes. */
            rc = mull_loop_watch(loop, fd, EPOLLIN | EPOLLET, listen_ready, s, &s->listen_source,
                                 err);
    } else if (fd >= 0) {
        close(fd);
    }
    if (rc) {
        stream_destroy(&s->base);
        return rc;
    }
    *out = &s->base;
    return 0;
}
