/*
 * RFB 3.3 to 3.8 (RFC 6143). All in the loop's thread: peers are read and written without waiting,
 * a peer that does not read gets no further updates, one that sends nonsense is dropped. A peer
 * asks for updates; what has changed since its last one is found by comparing pictures, thirty
 * times a second at most and only when the guest has drawn.
 */
#include "vmm/rfb.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <gnutls/crypto.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "device/display/vga.h"
#include "device/legacy/i8042.h"
#include "vmm/keys.h"
#include "vmm/listen.h"
#include "vmm/rfb_encode.h"

#define PEERS_MAX 4
#define IN_MAX 8192u
#define ENCODINGS_MAX 1024u
#define FRAME_NS 33000000ull
#define TILE_WIDTH 64u
#define TILE_HEIGHT 32u
#define PIXELS_MAX ((size_t)MULL_VGA_MAX_WIDTH * MULL_VGA_MAX_HEIGHT)
#define DESKTOP_SIZE -223

enum phase { VERSION, SECURITY, CHALLENGE, INIT, NORMAL };

struct peer {
    struct vmm_rfb *server;
    int fd; /* -1: free */
    struct mull_source *source;
    enum phase phase;
    unsigned minor; /* of the protocol's version */
    uint8_t challenge[16];
    uint8_t in[IN_MAX];
    size_t have;
    uint64_t skip; /* bytes of a message that are not looked at */
    struct rfb_buffer out;
    size_t sent;
    struct rfb_format format;
    bool zrle, resizable;
    z_stream stream;
    bool wants;             /* an update was asked for */
    bool whole;             /* ... of everything */
    unsigned width, height; /* as the peer knows it */
    uint32_t *shown;        /* what it has seen, width * height */
    uint64_t changes;       /* of the screen when it was drawn for it */
    unsigned x, y;          /* of its pointer */
    bool shift;             /* it holds a shift key */
};

struct vmm_rfb {
    struct mull_machine *machine;
    const struct mull_log *log;
    struct mull_vga *vga;
    struct mull_i8042 *keyboard;
    int listener;
    struct mull_source *listener_source;
    char *path; /* of the Unix socket; NULL: TCP */
    bool has_password;
    uint8_t key[8]; /* of the password, for DES */
    struct mull_timer *timer;
    bool armed;
    uint32_t *frame;
    struct peer peer[PEERS_MAX];
};

static const uint8_t native_format[16] = {32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0};

/* ---- Peers ---- */

static void drop(struct peer *p)
{
    if (p->fd < 0)
        return;
    mull_source_remove(p->source);
    close(p->fd);
    free(p->out.data);
    free(p->shown);
    deflateEnd(&p->stream);
    struct vmm_rfb *server = p->server;
    memset(p, 0, sizeof(*p));
    p->server = server;
    p->fd = -1;
}

/* Send what can be sent. @return false: the peer is gone */
static bool flush(struct peer *p)
{
    while (!p->out.failed && p->sent < p->out.size) {
        ssize_t n =
            send(p->fd, p->out.data + p->sent, p->out.size - p->sent, MSG_DONTWAIT | MSG_NOSIGNAL);
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
    if (p->out.failed) {
        drop(p);
        return false;
    }
    bool done = p->sent == p->out.size;
    if (done)
        p->out.size = p->sent = 0;
    mull_source_modify(p->source, done ? EPOLLIN : EPOLLIN | EPOLLOUT);
    return true;
}

static void arm(struct vmm_rfb *s)
{
    if (!s->armed)
        mull_timer_arm(s->timer, mull_now_ns() + FRAME_NS);
    s->armed = true;
}

/* ---- Updates ---- */

static void put_rect(struct peer *p, unsigned x, unsigned y, unsigned width, unsigned height,
                     int32_t encoding)
{
    rfb_put16(&p->out, (uint16_t)x);
    rfb_put16(&p->out, (uint16_t)y);
    rfb_put16(&p->out, (uint16_t)width);
    rfb_put16(&p->out, (uint16_t)height);
    rfb_put32(&p->out, (uint32_t)encoding);
}

/* The picture of a peer that cannot follow a new size: cut, or with black around it. */
static void fit(const struct peer *p, const uint32_t *frame, unsigned width, unsigned height,
                uint32_t *to)
{
    memset(to, 0, (size_t)p->width * p->height * sizeof(*to));
    for (unsigned y = 0; y < height && y < p->height; y++)
        memcpy(to + (size_t)y * p->width, frame + (size_t)y * width,
               (width < p->width ? width : p->width) * sizeof(*to));
}

static bool tile_differs(const struct peer *p, const uint32_t *now, unsigned x, unsigned y,
                         unsigned width, unsigned height)
{
    for (unsigned i = 0; i < height; i++)
        if (memcmp(now + (size_t)(y + i) * p->width + x, p->shown + (size_t)(y + i) * p->width + x,
                   width * sizeof(*now)))
            return true;
    return false;
}

static void put_pixels(struct peer *p, const uint32_t *now, unsigned x, unsigned y, unsigned width,
                       unsigned height)
{
    const uint32_t *from = now + (size_t)y * p->width + x;

    put_rect(p, x, y, width, height, p->zrle ? RFB_ZRLE : RFB_RAW);
    if (p->zrle)
        rfb_zrle(&p->out, &p->format, &p->stream, from, p->width, width, height);
    else
        rfb_raw(&p->out, &p->format, from, p->width, width, height);
}

/* Rectangles of what differs, tiles side by side in one. @return how many */
static unsigned put_changes(struct peer *p, const uint32_t *now)
{
    unsigned count = 0;

    for (unsigned y = 0; y < p->height; y += TILE_HEIGHT) {
        unsigned height = p->height - y < TILE_HEIGHT ? p->height - y : TILE_HEIGHT;
        unsigned start = 0, run = 0;
        for (unsigned x = 0; x < p->width; x += TILE_WIDTH) {
            unsigned width = p->width - x < TILE_WIDTH ? p->width - x : TILE_WIDTH;
            if (p->whole || tile_differs(p, now, x, y, width, height)) {
                start = run ? start : x;
                run += width;
            } else if (run) {
                put_pixels(p, now, start, y, run, height);
                count++;
                run = 0;
            }
        }
        if (run) {
            put_pixels(p, now, start, y, run, height);
            count++;
        }
    }
    return count;
}

/* @return false: no memory */
static bool resize(struct peer *p, unsigned width, unsigned height)
{
    uint32_t *shown = calloc((size_t)width * height, sizeof(*shown));

    if (!shown)
        return false;
    free(p->shown);
    p->shown = shown;
    p->width = width;
    p->height = height;
    p->whole = true;
    return true;
}

static void update(struct peer *p, unsigned width, unsigned height)
{
    struct vmm_rfb *s = p->server;
    bool resized = p->resizable && (width != p->width || height != p->height);
    unsigned count = 0;

    if (resized && !resize(p, width, height)) {
        drop(p);
        return;
    }
    uint32_t *now = malloc((size_t)p->width * p->height * sizeof(*now));
    if (!now)
        return;
    fit(p, s->frame, width, height, now);
    size_t at = p->out.size;
    rfb_put16(&p->out, 0); /* FramebufferUpdate */
    rfb_put16(&p->out, 0);
    if (resized) {
        put_rect(p, 0, 0, width, height, DESKTOP_SIZE);
        count++;
    }
    count += put_changes(p, now);
    free(p->shown);
    p->shown = now;
    if (!count) {
        p->out.size = at;
        return;
    }
    p->wants = p->whole = false;
    if (!p->out.failed) {
        p->out.data[at + 2] = (uint8_t)(count >> 8);
        p->out.data[at + 3] = (uint8_t)count;
    }
    flush(p);
}

static void frame_due(void *opaque)
{
    struct vmm_rfb *s = opaque;
    uint64_t changes = mull_vga_changes(s->vga);
    unsigned width, height;
    bool drawn = false, waiting = false;

    s->armed = false;
    for (unsigned i = 0; i < PEERS_MAX; i++) {
        struct peer *p = &s->peer[i];
        if (p->fd < 0 || p->phase != NORMAL || !p->wants || p->out.size)
            continue;
        if (p->whole || p->changes != changes) {
            if (!drawn && !mull_vga_render(s->vga, s->frame, PIXELS_MAX, &width, &height))
                continue;
            drawn = true;
            p->changes = changes;
            update(p, width, height);
        }
        waiting |= p->fd >= 0 && p->wants;
    }
    if (waiting)
        arm(s);
}

/* ---- Messages ---- */

static unsigned get16(const uint8_t *b)
{
    return (unsigned)b[0] << 8 | b[1];
}

static uint32_t get32(const uint8_t *b)
{
    return (uint32_t)get16(b) << 16 | get16(b + 2);
}

static void key_event(struct peer *p, bool down, uint32_t symbol)
{
    bool shift;
    unsigned key = vmm_key_of_symbol(symbol, &shift);
    struct mull_i8042 *keyboard = p->server->keyboard;

    if (symbol == 0xffe1 || symbol == 0xffe2)
        p->shift = down;
    if (!key)
        return;
    /* A symbol of the upper level from somebody who holds no shift key. */
    bool help = down && shift && !p->shift;
    if (help)
        mull_i8042_key(keyboard, 0x2a, true);
    mull_i8042_key(keyboard, key, down);
    if (help)
        mull_i8042_key(keyboard, 0x2a, false);
}

static void pointer_event(struct peer *p, uint8_t mask, unsigned x, unsigned y)
{
    unsigned buttons = (mask & 1) | (mask >> 1 & 2) | (mask << 1 & 4);

    if (x >= MULL_VGA_MAX_WIDTH || y >= MULL_VGA_MAX_HEIGHT)
        return;
    mull_i8042_mouse(p->server->keyboard, (int)x - (int)p->x, (int)y - (int)p->y,
                     mask & 8    ? -1
                     : mask & 16 ? 1
                                 : 0,
                     buttons);
    p->x = x;
    p->y = y;
}

static void set_encodings(struct peer *p, const uint8_t *list, unsigned count)
{
    p->zrle = p->resizable = false;
    for (unsigned i = 0; i < count; i++) {
        int32_t encoding = (int32_t)get32(list + 4 * i);
        p->zrle |= encoding == RFB_ZRLE;
        p->resizable |= encoding == DESKTOP_SIZE;
    }
}

static void request(struct peer *p, bool incremental)
{
    p->wants = true;
    p->whole |= !incremental;
    arm(p->server);
}

/* One message of a peer that has been let in. @return its bytes, 0: more has to come, -1: nonsense
 */
static ssize_t message(struct peer *p, const uint8_t *m, size_t have)
{
    static const uint8_t sizes[] = {20, 0, 4, 10, 8, 6, 8};

    if (m[0] >= sizeof(sizes) || !sizes[m[0]])
        return -1;
    if (have < sizes[m[0]])
        return 0;
    switch (m[0]) {
    case 0:
        if (!rfb_format_parse(m + 4, &p->format))
            return -1;
        p->whole = true;
        break;
    case 2:
        if (get16(m + 2) > ENCODINGS_MAX)
            return -1;
        if (have < 4 + 4ul * get16(m + 2))
            return 0;
        set_encodings(p, m + 4, get16(m + 2));
        return (ssize_t)(4 + 4ul * get16(m + 2));
    case 3:
        request(p, m[1] != 0);
        break;
    case 4:
        key_event(p, m[1] != 0, get32(m + 4));
        break;
    case 5:
        pointer_event(p, m[1], get16(m + 2), get16(m + 4));
        break;
    default: /* cut text: there is nobody to give it to */
        if (get32(m + 4) > 1 << 24)
            return -1;
        p->skip = get32(m + 4);
    }
    return sizes[m[0]];
}

/* ---- Being let in ---- */

static void security_result(struct peer *p, bool ok)
{
    rfb_put32(&p->out, !ok);
    if (!ok && p->minor >= 8) {
        static const char why[] = "wrong password";
        rfb_put32(&p->out, sizeof(why) - 1);
        rfb_put(&p->out, why, sizeof(why) - 1);
    }
    p->phase = INIT;
}

static void begin_security(struct peer *p, unsigned type)
{
    if (type == 1) {
        if (p->minor >= 8)
            security_result(p, true);
        p->phase = INIT;
        return;
    }
    if (getrandom(p->challenge, sizeof(p->challenge), 0) != sizeof(p->challenge))
        p->out.failed = true;
    rfb_put(&p->out, p->challenge, sizeof(p->challenge));
    p->phase = CHALLENGE;
}

static ssize_t version(struct peer *p, const uint8_t *m, size_t have)
{
    unsigned type = p->server->has_password ? 2 : 1;

    if (have < 12)
        return 0;
    if (memcmp(m, "RFB 003.", 8) || m[11] != '\n')
        return -1;
    p->minor = m[10] == '8' ? 8 : m[10] == '7' ? 7 : 3;
    if (p->minor == 3) {
        rfb_put32(&p->out, type);
        begin_security(p, type);
    } else {
        rfb_put8(&p->out, 1);
        rfb_put8(&p->out, (uint8_t)type);
        p->phase = SECURITY;
    }
    return 12;
}

/* The challenge, each half encrypted with the password as a DES key (7.2.2). */
static bool password_right(const struct peer *p, const uint8_t *answer)
{
    uint8_t iv[8] = {0}, want[16], differs = 0;
    gnutls_datum_t key = {.data = (uint8_t *)(uintptr_t)p->server->key, .size = 8};
    gnutls_datum_t zero = {.data = iv, .size = 8};

    for (unsigned i = 0; i < 16; i += 8) {
        gnutls_cipher_hd_t cipher;
        if (gnutls_cipher_init(&cipher, GNUTLS_CIPHER_DES_CBC, &key, &zero))
            return false;
        int ret = gnutls_cipher_encrypt2(cipher, p->challenge + i, 8, want + i, 8);
        gnutls_cipher_deinit(cipher);
        if (ret)
            return false;
    }
    for (unsigned i = 0; i < 16; i++)
        differs |= want[i] ^ answer[i];
    return !differs;
}

static ssize_t init(struct peer *p)
{
    struct mull_machine_info info;

    mull_machine_info(p->server->machine, &info);
    mull_vga_size(p->server->vga, &p->width, &p->height);
    if (!resize(p, p->width, p->height))
        return -1;
    rfb_format_parse(native_format, &p->format);
    rfb_put16(&p->out, (uint16_t)p->width);
    rfb_put16(&p->out, (uint16_t)p->height);
    rfb_put(&p->out, native_format, sizeof(native_format));
    rfb_put32(&p->out, (uint32_t)strlen(info.name));
    rfb_put(&p->out, info.name, strlen(info.name));
    p->phase = NORMAL;
    return 1;
}

static ssize_t handle(struct peer *p, const uint8_t *m, size_t have)
{
    switch (p->phase) {
    case VERSION:
        return version(p, m, have);
    case SECURITY:
        if (m[0] != (p->server->has_password ? 2 : 1))
            return -1;
        begin_security(p, m[0]);
        return 1;
    case CHALLENGE:
        if (have < 16)
            return 0;
        bool ok = password_right(p, m);
        security_result(p, ok);
        if (!ok) {
            flush(p); /* it may have gone by this */
            return -1;
        }
        return 16;
    case INIT:
        return init(p);
    default:
        return message(p, m, have);
    }
}

static void peer_ready(void *opaque, uint32_t events)
{
    struct peer *p = opaque;

    if ((events & EPOLLOUT) && !flush(p))
        return;
    ssize_t n = recv(p->fd, p->in + p->have, IN_MAX - p->have, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        drop(p);
        return;
    }
    p->have += (size_t)n;
    size_t at = 0;
    while (at < p->have) {
        if (p->skip) {
            size_t part = p->have - at < p->skip ? p->have - at : (size_t)p->skip;
            at += part;
            p->skip -= part;
            continue;
        }
        ssize_t used = handle(p, p->in + at, p->have - at);
        if (used < 0) {
            drop(p);
            return;
        }
        if (!used)
            break;
        at += (size_t)used;
    }
    p->have -= at;
    memmove(p->in, p->in + at, p->have);
    if (p->out.size)
        flush(p);
    if (p->fd >= 0 && p->phase == NORMAL && p->wants)
        arm(p->server);
}

static void listener_ready(void *opaque, uint32_t events)
{
    struct vmm_rfb *s = opaque;
    int fd = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (fd < 0)
        return;
    for (unsigned i = 0; i < PEERS_MAX; i++) {
        struct peer *p = &s->peer[i];
        if (p->fd >= 0)
            continue;
        if (deflateInit(&p->stream, 4) != Z_OK)
            break;
        if (mull_loop_watch(mull_machine_loop(s->machine), fd, EPOLLIN, peer_ready, p, &p->source,
                            NULL)) {
            deflateEnd(&p->stream);
            break;
        }
        p->fd = fd;
        rfb_put(&p->out, "RFB 003.008\n", 12);
        flush(p);
        return;
    }
    close(fd); /* there are too many */
}

/* ---- Life ---- */

static int listen_tcp(struct vmm_rfb *s, const char *where, struct mull_error *err)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const char *colon = strrchr(where, ':');
    char host[64] = "";
    int on = 1;

    if (!colon || colon - where >= (ptrdiff_t)sizeof(host) || atoi(colon + 1) < 0 ||
        atoi(colon + 1) > 65535)
        return mull_fail(err, EINVAL, "--display vnc=%s: give unix:PATH or HOST:PORT", where);
    memcpy(host, where, (size_t)(colon - where));
    a.sin_port = htons((uint16_t)atoi(colon + 1));
    if (*host && strcmp(host, "localhost") &&
        (inet_pton(AF_INET, host, &a.sin_addr) != 1 || (ntohl(a.sin_addr.s_addr) >> 24) != 127))
        return mull_fail(
            err, EINVAL,
            "--display vnc=%s: only addresses of this host (127.0.0.1), because nothing "
            "is encrypted; use unix:PATH and ssh from elsewhere",
            where);
    if (!s->has_password)
        return mull_fail(
            err, EINVAL,
            "--display vnc=%s: a TCP port needs a password: password-file=FILE; or use "
            "unix:PATH",
            where);
    s->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (s->listener < 0 || setsockopt(s->listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) ||
        bind(s->listener, (const struct sockaddr *)&a, sizeof(a)) || listen(s->listener, 8))
        return mull_fail(err, errno, "--display vnc=%s: %s", where, strerror(errno));
    return 0;
}

/* DES takes the bits of each byte the other way round. */
static int read_password(struct vmm_rfb *s, const char *path, struct mull_error *err)
{
    char text[64];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
    int saved = errno;

    if (fd >= 0)
        close(fd);
    if (n < 0)
        return mull_fail(err, saved, "--display: password file %s: %s", path, strerror(saved));
    text[n] = '\0';
    text[strcspn(text, "\r\n")] = '\0';
    if (!*text)
        return mull_fail(err, EINVAL, "--display: password file %s: its first line is empty", path);
    for (unsigned i = 0; i < 8 && text[i]; i++)
        for (unsigned bit = 0; bit < 8; bit++)
            s->key[i] |= (uint8_t)((text[i] >> bit & 1) << (7 - bit));
    explicit_bzero(text, sizeof(text));
    s->has_password = true;
    return 0;
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
    s->vga = mull_machine_vga(config->machine);
    s->keyboard = mull_machine_keyboard(config->machine);
    s->listener = -1;
    for (unsigned i = 0; i < PEERS_MAX; i++)
        s->peer[i] = (struct peer){.server = s, .fd = -1};
    s->frame = malloc(PIXELS_MAX * sizeof(*s->frame));
    s->timer = mull_timer_create(mull_machine_loop(s->machine), frame_due, s);
    if (!s->frame || !s->timer)
        ret = mull_fail(err, ENOMEM, "--display: no memory");
    else if (!s->vga || !s->keyboard)
        ret = mull_fail(err, ENODEV,
                        "--display: a machine with --kernel has no screen; use --firmware");
    if (!ret && config->password_file)
        ret = read_password(s, config->password_file, err);
    if (!ret && !strncmp(config->listen, "unix:", 5)) {
        s->path = strdup(config->listen + 5);
        ret = s->path ? vmm_listen_unix(s->path, "--display vnc=unix:", 8, &s->listener, err)
                      : mull_fail(err, ENOMEM, "--display: no memory");
    } else if (!ret) {
        ret = listen_tcp(s, config->listen, err);
    }
    if (!ret)
        ret = mull_loop_watch(mull_machine_loop(s->machine), s->listener, EPOLLIN, listener_ready,
                              s, &s->listener_source, err);
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
    mull_source_remove(s->listener_source);
    if (s->listener >= 0) {
        close(s->listener);
        if (s->path)
            unlink(s->path);
    }
    mull_timer_destroy(s->timer);
    explicit_bzero(s->key, sizeof(s->key));
    free(s->path);
    free(s->frame);
    free(s);
}
