/*
 * Sockets, TLS and time around rfb_session.c, all in the loop's thread: clients are read and
 * written without waiting, one that does not read gets no further updates. What has changed is
 * found by comparing pictures, thirty times a second at most, and only while somebody waits for it.
 */
#include "vmm/rfb.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/listen.h"
#include "device/display/screen.h"
#include "device/input.h"
#include "vmm/keys.h"
#include "vmm/rfb_session.h"
#include "vmm/rfb_tls.h"
#include "vmm/vdagent.h"

#define PEERS_MAX 8
#define FRAME_NS 33000000ull
#define TIDY_NS 1000000000ull
#define GREETING_NS 30000000000ull /* for being let in */
#define DENIED_NS 1000000000ull    /* a wrong password costs this */
#define PIXELS_MAX ((size_t)MULL_SCREEN_MAX_WIDTH * MULL_SCREEN_MAX_HEIGHT)

struct peer {
    struct vmm_rfb *server;
    int fd; /* -1: free */
    struct mull_source *source;
    struct rfb_session *session;
    struct rfb_channel *tls; /* NULL: none */
    bool handshake;
    size_t sent;
    uint64_t deadline; /* to be let in, or to go */
    bool denied;
};

struct vmm_rfb {
    struct mull_machine *machine;
    const struct mull_log *log;
    const struct mull_screen *screen;
    struct mull_input *input;
    struct mull_machine_info info;
    int listener;
    struct mull_source *listener_source;
    char *path; /* of the Unix socket; NULL: TCP */
    struct rfb_security security;
    struct rfb_credentials *credentials;
    struct rfb_host host;
    struct mull_timer *timer, *tidy;
    bool armed, tidying;
    uint32_t *frame;
    struct mull_cursor cursor;
    struct vmm_vdagent *agent; /* NULL: no clipboard */
    int agent_fd;
    struct mull_source *agent_source;
    size_t agent_sent;
    struct peer *current; /* whose bytes are being handled */
    struct peer peer[PEERS_MAX];
};

/* ---- Peers ---- */

static void drop(struct peer *p)
{
    if (p->fd < 0)
        return;
    mull_source_remove(p->source);
    rfb_channel_free(p->tls);
    rfb_session_free(p->session);
    close(p->fd);
    *p = (struct peer){.server = p->server, .fd = -1};
}

static void arm(struct vmm_rfb *s)
{
    if (!s->armed)
        mull_timer_arm(s->timer, mull_now_ns() + FRAME_NS);
    s->armed = true;
}

static ssize_t transmit(struct peer *p, const uint8_t *data, size_t size)
{
    return p->tls ? rfb_channel_send(p->tls, data, size)
                  : send(p->fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* Send what can be sent. @return false: the peer is gone */
static bool flush(struct peer *p)
{
    struct rfb_buffer *out = rfb_session_out(p->session);

    while (!out->failed && p->sent < out->size) {
        ssize_t n = transmit(p, out->data + p->sent, out->size - p->sent);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            break;
        if (n <= 0) {
            drop(p);
            return false;
        }
        p->sent += (size_t)n;
    }
    if (out->failed) {
        drop(p);
        return false;
    }
    bool done = p->sent == out->size;
    if (done)
        out->size = p->sent = 0;
    mull_source_modify(p->source, done ? EPOLLIN : EPOLLIN | EPOLLOUT);
    if (done && rfb_session_waits(p->session))
        arm(p->server);
    return true;
}

/* ---- Updates ---- */

/* @return false: not now */
static bool look(struct vmm_rfb *s, struct rfb_picture *now)
{
    *now = (struct rfb_picture){.pixels = s->frame};
    now->changes = s->screen->ops->changes(s->screen->opaque);
    if (!s->screen->ops->render(s->screen->opaque, s->frame, PIXELS_MAX, &now->width, &now->height))
        return false;
    if (s->screen->ops->cursor && s->screen->ops->cursor(s->screen->opaque, &s->cursor))
        now->cursor = &s->cursor;
    return true;
}

static void frame_due(void *opaque)
{
    struct vmm_rfb *s = opaque;
    struct rfb_picture now;
    bool seen = false, waiting = false;

    s->armed = false;
    for (unsigned i = 0; i < PEERS_MAX; i++) {
        struct peer *p = &s->peer[i];
        if (p->fd < 0 || !rfb_session_waits(p->session))
            continue;
        if (!rfb_session_seen(p->session, s->screen->ops->changes(s->screen->opaque))) {
            if (!seen && !look(s, &now))
                break;
            seen = true;
            rfb_session_update(p->session, &now);
        }
        if (rfb_session_out(p->session)->size && !flush(p))
            continue;
        waiting |= rfb_session_waits(p->session);
    }
    if (waiting)
        arm(s);
}

/* ---- Bytes from peers ---- */

/* @return 1: go on, 0: the handshake is not over, -1: the peer is gone */
static int secure(struct peer *p)
{
    bool writing;

    if (!p->handshake) {
        /* The answer before TLS goes out first; it is a byte on an empty socket. */
        if (!flush(p))
            return -1;
        if (p->sent < rfb_session_out(p->session)->size)
            return 0;
        p->tls = rfb_channel_create(p->server->credentials, p->fd);
        p->handshake = p->tls != NULL;
    }
    int ret = p->tls ? rfb_channel_handshake(p->tls, &writing) : -1;
    if (ret < 0) {
        drop(p);
        return -1;
    }
    mull_source_modify(p->source, !ret && writing ? EPOLLIN | EPOLLOUT : EPOLLIN);
    if (ret) {
        p->handshake = false;
        rfb_session_secured(p->session);
    }
    return ret;
}

/* A wrong password has been said: listen no longer, and go in a while. */
static void deny(struct peer *p)
{
    if (p->denied)
        return;
    p->denied = true;
    p->deadline = mull_now_ns() + DENIED_NS;
    if (flush(p))
        mull_source_modify(p->source, 0);
}

static ssize_t receive(struct peer *p, uint8_t *data, size_t size)
{
    return p->tls ? rfb_channel_receive(p->tls, data, size) : recv(p->fd, data, size, MSG_DONTWAIT);
}

/* @return false: no more now, or the peer is gone */
static bool read_some(struct peer *p)
{
    uint8_t data[4096];
    ssize_t n = receive(p, data, sizeof(data));

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    if (n <= 0) {
        drop(p);
        return false;
    }
    p->server->current = p;
    rfb_session_input(p->session, data, (size_t)n);
    p->server->current = NULL;
    switch (rfb_session_state(p->session)) {
    case RFB_OVER:
        drop(p);
        return false;
    case RFB_DENIED:
        deny(p);
        return false;
    case RFB_WANTS_TLS:
        if (secure(p) <= 0)
            return false;
        break;
    default:
        break;
    }
    if (rfb_session_out(p->session)->size && !flush(p))
        return false;
    if (rfb_session_waits(p->session))
        arm(p->server);
    return p->tls && rfb_channel_pending(p->tls);
}

static void peer_ready(void *opaque, uint32_t events)
{
    struct peer *p = opaque;

    if (p->denied) {
        drop(p); /* it has hung up */
        return;
    }
    if (rfb_session_state(p->session) == RFB_WANTS_TLS) {
        if (secure(p) > 0 && flush(p))
            while (rfb_channel_pending(p->tls) && read_some(p))
                ;
        return;
    }
    if ((events & EPOLLOUT) && !flush(p))
        return;
    while (read_some(p))
        ;
}

/* ---- Coming and going ---- */

static void tidy(void *opaque)
{
    struct vmm_rfb *s = opaque;
    uint64_t now = mull_now_ns();

    s->tidying = false;
    for (unsigned i = 0; i < PEERS_MAX; i++) {
        struct peer *p = &s->peer[i];
        if (p->fd < 0 || rfb_session_state(p->session) == RFB_SERVED)
            continue;
        if (now >= p->deadline)
            drop(p);
        else
            s->tidying = true;
    }
    if (s->tidying)
        mull_timer_arm(s->tidy, now + TIDY_NS);
}

/* A place for one more: a free one, or that of whoever has knocked for longest without getting in.
 */
static struct peer *find_place(struct vmm_rfb *s)
{
    struct peer *oldest = NULL;

    for (unsigned i = 0; i < PEERS_MAX; i++) {
        struct peer *p = &s->peer[i];
        if (p->fd < 0)
            return p;
        if (!p->denied && rfb_session_state(p->session) != RFB_SERVED &&
            (!oldest || p->deadline < oldest->deadline))
            oldest = p;
    }
    if (oldest)
        drop(oldest);
    return oldest;
}

static void listener_ready(void *opaque, uint32_t events)
{
    struct vmm_rfb *s = opaque;
    int fd = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK), on = 1;
    unsigned width, height;

    if (fd < 0)
        return;
    struct peer *p = find_place(s);
    if (!p) {
        close(fd);
        return;
    }
    if (!s->path) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    }
    s->screen->ops->size(s->screen->opaque, &width, &height);
    p->session = rfb_session_create(&s->host, width, height);
    if (!p->session || mull_loop_watch(mull_machine_loop(s->machine), fd, EPOLLIN, peer_ready, p,
                                       &p->source, NULL)) {
        rfb_session_free(p->session);
        p->session = NULL;
        close(fd);
        return;
    }
    p->fd = fd;
    p->deadline = mull_now_ns() + GREETING_NS;
    flush(p);
    if (!s->tidying)
        mull_timer_arm(s->tidy, mull_now_ns() + TIDY_NS);
    s->tidying = true;
}

/* ---- The guest's clipboard ---- */

/* Nothing is given to an agent that does not read but what it has asked for. */
static void agent_flush(struct vmm_rfb *s)
{
    struct rfb_buffer *out = vmm_vdagent_out(s->agent);

    while (!out->failed && s->agent_sent < out->size) {
        ssize_t n = send(s->agent_fd, out->data + s->agent_sent, out->size - s->agent_sent,
                         MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n <= 0)
            break;
        s->agent_sent += (size_t)n;
    }
    bool done = out->failed || s->agent_sent == out->size;
    if (done) {
        rfb_buffer_free(out);
        s->agent_sent = 0;
    }
    mull_source_modify(s->agent_source, done ? EPOLLIN : EPOLLIN | EPOLLOUT);
}

static void agent_ready(void *opaque, uint32_t events)
{
    struct vmm_rfb *s = opaque;
    uint8_t data[4096];
    ssize_t n = recv(s->agent_fd, data, sizeof(data), MSG_DONTWAIT);

    if (n > 0)
        vmm_vdagent_input(s->agent, data, (size_t)n);
    else if (!n || (errno != EAGAIN && errno != EINTR)) {
        mull_source_remove(s->agent_source);
        s->agent_source = NULL;
        return;
    }
    agent_flush(s);
}

/* The guest has something to paste: for everybody who looks. */
static void agent_cut(void *opaque, const char *text, size_t len)
{
    struct vmm_rfb *s = opaque;

    for (unsigned i = 0; i < PEERS_MAX; i++)
        if (s->peer[i].fd >= 0) {
            rfb_session_cut(s->peer[i].session, text, len);
            if (rfb_session_out(s->peer[i].session)->size)
                flush(&s->peer[i]);
        }
}

static void host_cut(void *opaque, const char *text, size_t len)
{
    struct vmm_rfb *s = opaque;

    vmm_vdagent_cut(s->agent, text, len);
    if (s->agent_source)
        agent_flush(s);
}

static int connect_agent(struct vmm_rfb *s, int fd, struct mull_error *err)
{
    if (fd < 0)
        return 0;
    s->agent_fd = fd;
    s->agent = vmm_vdagent_create(agent_cut, s);
    if (!s->agent)
        return mull_fail(err, ENOMEM, "--display: no memory");
    s->host.cut = host_cut;
    int ret = mull_loop_watch(mull_machine_loop(s->machine), fd, EPOLLIN | EPOLLOUT, agent_ready, s,
                              &s->agent_source, err);
    return ret;
}

/* ---- What sessions want of the machine ---- */

static void host_key(void *opaque, unsigned key, bool down)
{
    mull_input_key(((struct vmm_rfb *)opaque)->input, key, down);
}

static void host_pointer(void *opaque, unsigned x, unsigned y, unsigned width, unsigned height,
                         int wheel, unsigned buttons)
{
    mull_input_pointer(((struct vmm_rfb *)opaque)->input, x, y, width, height, wheel, buttons);
}

static unsigned host_leds(void *opaque)
{
    return mull_input_leds(((struct vmm_rfb *)opaque)->input);
}

static int host_resize(void *opaque, unsigned width, unsigned height)
{
    const struct mull_screen *screen = ((struct vmm_rfb *)opaque)->screen;

    return screen->ops->resize(screen->opaque, width, height);
}

static void host_alone(void *opaque)
{
    struct vmm_rfb *s = opaque;

    for (unsigned i = 0; i < PEERS_MAX; i++)
        if (&s->peer[i] != s->current && s->peer[i].fd >= 0 &&
            rfb_session_state(s->peer[i].session) == RFB_SERVED)
            drop(&s->peer[i]);
}

/* ---- Life ---- */

static bool loopback(const struct sockaddr *a)
{
    if (a->sa_family == AF_INET)
        return ntohl(((const struct sockaddr_in *)a)->sin_addr.s_addr) >> 24 == 127;
    return a->sa_family == AF_INET6 &&
           IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)a)->sin6_addr);
}

static int bind_tcp(struct vmm_rfb *s, const char *where, const struct addrinfo *a,
                    struct mull_error *err)
{
    int on = 1;

    if (!s->security.has_password)
        return mull_fail(
            err, EINVAL,
            "--display vnc=%s: a TCP port needs a password: password-file=FILE; or use "
            "unix:PATH",
            where);
    if (!loopback(a->ai_addr) && s->security.tls == RFB_TLS_NONE)
        return mull_fail(err, EINVAL,
                         "--display vnc=%s: an address that others can reach needs TLS: "
                         "tls-certificates=FOLDER, or tls=anonymous",
                         where);
    s->listener = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (s->listener < 0 || setsockopt(s->listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) ||
        bind(s->listener, a->ai_addr, a->ai_addrlen) || listen(s->listener, 8))
        return mull_fail(err, errno, "--display vnc=%s: %s", where, strerror(errno));
    return 0;
}

static int listen_tcp(struct vmm_rfb *s, const char *where, struct mull_error *err)
{
    const struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV,
                                   .ai_socktype = SOCK_STREAM};
    struct addrinfo *list = NULL;
    const char *colon = strrchr(where, ':');
    char host[64] = "";

    if (!colon || colon - where >= (ptrdiff_t)sizeof(host) || strtoul(colon + 1, NULL, 10) > 65535)
        return mull_fail(err, EINVAL, "--display vnc=%s: give unix:PATH or ADDRESS:PORT", where);
    memcpy(host, where, (size_t)(colon - where));
    char *bare = host;
    size_t len = strlen(host);
    if (len > 2 && *host == '[' && host[len - 1] == ']') { /* IPv6 */
        host[len - 1] = '\0';
        bare++;
    }
    if (!*bare || !strcmp(bare, "localhost"))
        bare = strcpy(host, "127.0.0.1");
    if (getaddrinfo(bare, colon + 1, &hints, &list))
        return mull_fail(err, EINVAL, "--display vnc=%s: give unix:PATH or ADDRESS:PORT", where);
    int ret = bind_tcp(s, where, list, err);
    freeaddrinfo(list);
    return ret;
}

static int read_password(struct vmm_rfb *s, const char *path, struct mull_error *err)
{
    char *text = s->security.password;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, RFB_PASSWORD_MAX - 1);
    int saved = errno;

    if (fd >= 0)
        close(fd);
    if (n < 0)
        return mull_fail(err, saved, "--display: password file %s: %s", path, strerror(saved));
    text[n] = '\0';
    text[strcspn(text, "\r\n")] = '\0';
    if (!*text)
        return mull_fail(err, EINVAL, "--display: password file %s: its first line is empty", path);
    s->security.has_password = true;
    return 0;
}

static int set_security(struct vmm_rfb *s, const struct vmm_rfb_config *config,
                        struct mull_error *err)
{
    int ret = config->password_file ? read_password(s, config->password_file, err) : 0;

    if (ret || (!config->certificates && !config->anonymous))
        return ret;
    s->security.tls = config->certificates ? RFB_TLS_X509 : RFB_TLS_ANONYMOUS;
    return rfb_credentials_create(config->certificates, &s->credentials, err);
}

static int find_keymap(struct vmm_rfb *s, const char *name, struct mull_error *err)
{
    char names[256] = "";

    s->host.keymap = vmm_keymap_find(name);
    if (s->host.keymap)
        return 0;
    for (unsigned i = 0; vmm_keymap_name(i); i++) {
        strncat(names, " ", sizeof(names) - strlen(names) - 1);
        strncat(names, vmm_keymap_name(i), sizeof(names) - strlen(names) - 1);
    }
    return mull_fail(err, EINVAL, "--display: keymap=%s: there are%s", name, names);
}

static int start_listening(struct vmm_rfb *s, const char *where, struct mull_error *err)
{
    int ret;

    if (!strncmp(where, "unix:", 5)) {
        s->path = strdup(where + 5);
        ret = s->path ? mull_listen_unix(s->path, "--display vnc=unix:", &s->listener, err)
                      : mull_fail(err, ENOMEM, "--display: no memory");
    } else {
        ret = listen_tcp(s, where, err);
    }
    return ret ? ret
               : mull_loop_watch(mull_machine_loop(s->machine), s->listener, EPOLLIN,
                                 listener_ready, s, &s->listener_source, err);
}

int vmm_rfb_create(const struct vmm_rfb_config *config, struct vmm_rfb **out,
                   struct mull_error *err)
{
    struct vmm_rfb *s = calloc(1, sizeof(*s));
    int ret = 0;

    if (!s)
        return mull_fail(err, ENOMEM, "--display: no memory");
    s->machine = config->machine;
    s->log = config->log;
    s->screen = mull_machine_screen(config->machine);
    s->input = mull_machine_input(config->machine);
    s->listener = -1;
    mull_machine_info(s->machine, &s->info);
    for (unsigned i = 0; i < PEERS_MAX; i++)
        s->peer[i] = (struct peer){.server = s, .fd = -1};
    s->frame = malloc(PIXELS_MAX * sizeof(*s->frame));
    s->timer = mull_timer_create(mull_machine_loop(s->machine), frame_due, s);
    s->tidy = mull_timer_create(mull_machine_loop(s->machine), tidy, s);
    if (!s->frame || !s->timer || !s->tidy)
        ret = mull_fail(err, ENOMEM, "--display: no memory");
    else if (!s->screen)
        ret = mull_fail(err, ENODEV, "--display: this machine has no screen");
    if (!ret)
        ret = find_keymap(s, config->keymap, err);
    if (!ret)
        ret = set_security(s, config, err);
    if (!ret) {
        s->host.name = s->info.name;
        s->host.security = &s->security;
        s->host.opaque = s;
        s->host.key = host_key;
        s->host.pointer = host_pointer;
        s->host.leds = host_leds;
        s->host.resize = s->screen->ops->resize ? host_resize : NULL;
        s->host.alone = host_alone;
        ret = connect_agent(s, config->agent, err);
    }
    if (!ret)
        ret = start_listening(s, config->listen, err);
    if (ret) {
        vmm_rfb_destroy(s);
        return ret;
    }
    *out = s;
    return 0;
}

const char *vmm_rfb_path(const struct vmm_rfb *s)
{
    return s ? s->path : NULL;
}

void vmm_rfb_destroy(struct vmm_rfb *s)
{
    if (!s)
        return;
    for (unsigned i = 0; i < PEERS_MAX; i++)
        drop(&s->peer[i]);
    mull_source_remove(s->agent_source);
    vmm_vdagent_free(s->agent);
    mull_source_remove(s->listener_source);
    if (s->listener >= 0) {
        close(s->listener);
        if (s->path)
            unlink(s->path);
    }
    mull_timer_destroy(s->timer);
    mull_timer_destroy(s->tidy);
    rfb_credentials_free(s->credentials);
    explicit_bzero(&s->security, sizeof(s->security));
    free(s->path);
    free(s->frame);
    free(s);
}
