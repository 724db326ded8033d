/*
 * The TFTP server. See tftp.h; section numbers are those of RFC 1350.
 */
#include "device/net/tftp.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

enum { RRQ = 1, WRQ, DATA, ACK, ERROR, OACK };
enum { NOT_DEFINED, NOT_FOUND, ACCESS_VIOLATION, ILLEGAL = 4, UNKNOWN_TID, BAD_OPTION = 8 };

#define BLOCK_USUAL 512
#define TRIES 6
#define SECOND 1000000000ull

struct session {
    bool used, opening;
    struct mull_tftp_peer peer;
    uint32_t id;
    int fd;
    uint64_t size;
    uint64_t block; /* the last one sent; 0: the OACK */
    uint16_t block_size;
    bool asked_block_size, asked_size, asked_timeout;
    uint8_t timeout; /* seconds */
    unsigned tries;
    uint64_t deadline;
    uint64_t last_heard;
};

struct mull_tftp {
    struct mull_tftp_ops ops;
    void *opaque;
    uint32_t ids;
    unsigned generation; /* of ports */
    struct session session[MULL_TFTP_SESSIONS];
};

static void put16(uint8_t *p, uint16_t value)
{
    p[0] = (uint8_t)(value >> 8);
    p[1] = (uint8_t)value;
}

static uint16_t get16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

static void send_error(struct mull_tftp *t, const struct mull_tftp_peer *peer, uint16_t code,
                       const char *text)
{
    uint8_t packet[128];

    put16(packet, ERROR);
    put16(packet + 2, code);
    int n = snprintf((char *)packet + 4, sizeof(packet) - 4, "%s", text);
    t->ops.send(t->opaque, peer, packet, 4 + (size_t)n + 1);
}

static void end(struct session *s)
{
    if (s->fd >= 0)
        close(s->fd);
    *s = (struct session){.fd = -1};
}

static void fail(struct mull_tftp *t, struct session *s, uint16_t code, const char *text)
{
    send_error(t, &s->peer, code, text);
    end(s);
}

/* ---- Sending ---- */

static uint64_t last_block(const struct session *s)
{
    return s->size / s->block_size + 1; /* one that is not full ends the transfer (6) */
}

static void send_oack(struct mull_tftp *t, struct session *s)
{
    uint8_t packet[128];
    size_t n = 2;

    put16(packet, OACK);
    if (s->asked_block_size)
        n += (size_t)snprintf((char *)packet + n, 40, "blksize%c%u", 0, s->block_size) + 1;
    if (s->asked_size)
        n += (size_t)snprintf((char *)packet + n, 40, "tsize%c%llu", 0,
                              (unsigned long long)s->size) +
             1;
    if (s->asked_timeout)
        n += (size_t)snprintf((char *)packet + n, 40, "timeout%c%u", 0, s->timeout) + 1;
    t->ops.send(t->opaque, &s->peer, packet, n);
}

static void send_block(struct mull_tftp *t, struct session *s)
{
    uint8_t packet[MULL_TFTP_PACKET_MAX];
    uint64_t offset = (s->block - 1) * s->block_size;
    size_t left = s->size > offset ? (size_t)(s->size - offset) : 0;
    size_t n = left < s->block_size ? left : s->block_size, done = 0;

    while (done < n) {
        ssize_t got = pread(s->fd, packet + 4 + done, n - done, (off_t)(offset + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0) {
            fail(t, s, NOT_DEFINED, got ? strerror(errno) : "the file has become shorter");
            return;
        }
        done += (size_t)got;
    }
    put16(packet, DATA);
    put16(packet + 2, (uint16_t)s->block);
    t->ops.send(t->opaque, &s->peer, packet, 4 + n);
}

static void send_current(struct mull_tftp *t, struct session *s, uint64_t now)
{
    s->deadline = now + s->timeout * SECOND;
    if (!s->block)
        send_oack(t, s);
    else
        send_block(t, s);
}

/* ---- Requests ---- */

/* The next string of a packet. @return NULL: it does not end */
static const char *string(const uint8_t **p, size_t *left)
{
    const char *text = (const char *)*p;
    const uint8_t *stop = memchr(*p, 0, *left);

    if (!stop)
        return NULL;
    *left -= (size_t)(stop - *p) + 1;
    *p = stop + 1;
    return text;
}

static bool number(const char *text, unsigned long long low, unsigned long long high,
                   unsigned long long *out)
{
    char *stop;

    if (*text < '0' || *text > '9')
        return false;
    errno = 0;
    *out = strtoull(text, &stop, 10);
    return !errno && !*stop && *out >= low && *out <= high;
}

/* Unknown options, and values that are not possible, are left out of the answer (RFC 2347). */
static void option(struct session *s, const char *name, const char *value)
{
    unsigned long long n;

    if (!strcasecmp(name, "blksize") && number(value, 8, 65464, &n)) {
        s->asked_block_size = true;
        s->block_size = (uint16_t)(n < MULL_TFTP_BLOCK_MAX ? n : MULL_TFTP_BLOCK_MAX);
    } else if (!strcasecmp(name, "tsize") && number(value, 0, 0, &n)) {
        s->asked_size = true;
    } else if (!strcasecmp(name, "timeout") && number(value, 1, 255, &n)) {
        s->asked_timeout = true;
        s->timeout = (uint8_t)n;
    }
}

static bool name_fine(const char *name)
{
    if (!*name || strlen(name) > MULL_TFTP_NAME_MAX)
        return false;
    for (const char *p = name; *p; p++)
        if ((unsigned char)*p < ' ' || *p == 0x7f)
            return false;
    return true;
}

static bool same_client(const struct mull_tftp_peer *a, const struct mull_tftp_peer *b)
{
    return a->client_port == b->client_port && !memcmp(a->client_ip, b->client_ip, 4);
}

/* A place for a new transfer: the client's own (it asks again), a free one, or that which has been
 * silent for longest. */
static struct session *place(struct mull_tftp *t, const struct mull_tftp_peer *peer)
{
    struct session *best = &t->session[0];

    for (unsigned i = 0; i < MULL_TFTP_SESSIONS; i++)
        if (t->session[i].used && same_client(&t->session[i].peer, peer))
            return &t->session[i];
    for (unsigned i = 0; i < MULL_TFTP_SESSIONS; i++) {
        struct session *s = &t->session[i];
        if (!s->used)
            return s;
        if (s->last_heard < best->last_heard)
            best = s;
    }
    return best;
}

static void read_request(struct mull_tftp *t, const struct mull_tftp_peer *peer,
                         const uint8_t *data, size_t len, uint64_t now)
{
    const uint8_t *p = data + 2;
    size_t left = len - 2;
    const char *name = string(&p, &left), *mode = name ? string(&p, &left) : NULL;

    if (!mode || !name_fine(name)) {
        send_error(t, peer, ILLEGAL, "not a request");
        return;
    }
    if (strcasecmp(mode, "octet")) {
        send_error(t, peer, NOT_DEFINED, "only octet mode is there");
        return;
    }
    while (*name == '/')
        name++;
    struct session *s = place(t, peer);
    end(s);
    *s = (struct session){.used = true,
                          .opening = true,
                          .peer = *peer,
                          .fd = -1,
                          .id = ++t->ids,
                          .block_size = BLOCK_USUAL,
                          .timeout = 1,
                          .last_heard = now};
    t->generation = (t->generation + 1) % (MULL_TFTP_PORTS / MULL_TFTP_SESSIONS);
    s->peer.server_port = (uint16_t)(MULL_TFTP_FIRST_PORT + t->generation * MULL_TFTP_SESSIONS +
                                     (unsigned)(s - t->session));
    for (const char *key, *value; (key = string(&p, &left)) && (value = string(&p, &left));)
        option(s, key, value);
    if (!*name || !t->ops.open(t->opaque, s->id, name))
        fail(t, s, NOT_FOUND, "no such file");
}

void mull_tftp_opened(struct mull_tftp *t, uint32_t id, int fd, uint64_t size, uint64_t now)
{
    struct session *s = NULL;

    for (unsigned i = 0; i < MULL_TFTP_SESSIONS; i++)
        if (t->session[i].used && t->session[i].opening && t->session[i].id == id)
            s = &t->session[i];
    if (!s) { /* the client has gone meanwhile */
        if (fd >= 0)
            close(fd);
        return;
    }
    s->opening = false;
    if (fd < 0) {
        if (fd == -ENOENT || fd == -ENOTDIR)
            fail(t, s, NOT_FOUND, "no such file");
        else
            fail(t, s, ACCESS_VIOLATION, strerror(-fd));
        return;
    }
    s->fd = fd;
    s->size = size;
    s->block = s->asked_block_size || s->asked_size || s->asked_timeout ? 0 : 1;
    send_current(t, s, now);
}

/* ---- Transfers ---- */

static void acknowledged(struct mull_tftp *t, struct session *s, uint16_t block, uint64_t now)
{
    if (s->opening || block != (uint16_t)s->block)
        return; /* of an older block: answering it would double every packet from here on */
    s->tries = 0;
    if (s->block == last_block(s)) {
        end(s);
        return;
    }
    s->block++;
    send_current(t, s, now);
}

void mull_tftp_receive(struct mull_tftp *t, const struct mull_tftp_peer *peer, const uint8_t *data,
                       size_t len, uint64_t now)
{
    if (len < 4)
        return;
    uint16_t code = get16(data);
    if (peer->server_port == MULL_TFTP_PORT) {
        if (code == RRQ)
            read_request(t, peer, data, len, now);
        else if (code == WRQ)
            send_error(t, peer, ACCESS_VIOLATION, "nothing can be written here");
        else if (code != ERROR)
            send_error(t, peer, ILLEGAL, "not a request");
        return;
    }
    for (unsigned i = 0; i < MULL_TFTP_SESSIONS; i++) {
        struct session *s = &t->session[i];
        if (!s->used || s->peer.server_port != peer->server_port || !same_client(&s->peer, peer))
            continue;
        s->last_heard = now;
        if (code == ACK)
            acknowledged(t, s, get16(data + 2), now);
        else if (code == ERROR)
            end(s);
        return;
    }
    if (code != ERROR)
        send_error(t, peer, UNKNOWN_TID, "no such transfer");
}

uint64_t mull_tftp_tick(struct mull_tftp *t, uint64_t now)
{
    uint64_t next = 0;

    for (unsigned i = 0; i < MULL_TFTP_SESSIONS; i++) {
        struct session *s = &t->session[i];
        if (!s->used || s->opening)
            continue;
        if (s->deadline <= now) {
            if (++s->tries == TRIES)
                end(s);
            else
                send_current(t, s, now);
        }
        if (s->used && (!next || s->deadline < next))
            next = s->deadline;
    }
    return next;
}

struct mull_tftp *mull_tftp_create(const struct mull_tftp_ops *ops, void *opaque)
{
    struct mull_tftp *t = calloc(1, sizeof(*t));

    if (!t)
        return NULL;
    t->ops = *ops;
    t->opaque = opaque;
    for (unsigned i = 0; i < MULL_TFTP_SESSIONS; i++)
        t->session[i].fd = -1;
    return t;
}

void mull_tftp_destroy(struct mull_tftp *t)
{
    for (unsigned i = 0; t && i < MULL_TFTP_SESSIONS; i++)
        end(&t->session[i]);
    free(t);
}
