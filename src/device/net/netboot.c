/*
 * What a guest needs to boot by network, in front of a back end that has only addresses to give:
 * adds server and file name to the DHCP answers that pass (RFC 2131, 2132), and answers TFTP
 * itself. Knows frames without a virtio-net header, IPv4 only.
 */
#include <errno.h>
#include <net/ethernet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "device/net/netdev.h"
#include "device/net/offload.h"
#include "device/net/opener.h"
#include "device/net/tftp.h"

#define IP_AT MULL_ETH_HEADER
#define IP_SIZE 20
#define UDP_AT (IP_AT + IP_SIZE)
#define PAYLOAD_AT (UDP_AT + 8)
#define REQUEST_MAX 700 /* what a client sends is short: the fast path does not look at more */
#define OUTBOX 16
#define FRAME_SIZE (PAYLOAD_AT + MULL_TFTP_PACKET_MAX)

/* BOOTP's fields and DHCP's options (RFC 2131, 2; RFC 2132, 9). */
#define BOOTP_SIZE 236
#define BOOTP_SIADDR 20
#define BOOTP_SNAME 44
#define BOOTP_FILE 108
#define BOOTP_FILE_SIZE 128
#define DHCP_COOKIE "\x63\x82\x53\x63"
#define OPT_PAD 0
#define OPT_OVERLOAD 52
#define OPT_SERVER_ID 54
#define OPT_TFTP_NAME 66
#define OPT_BOOTFILE 67
#define OPT_END 255
#define DHCP_SERVER_PORT 67
#define DHCP_CLIENT_PORT 68
#define DHCP_MAX 1400

struct netboot {
    struct mull_netdev base;
    struct mull_loop *loop;
    struct mull_netdev *inner; /* ours */
    struct mull_netdev_frontend frontend;
    char bootfile[MULL_NETBOOT_FILE_MAX + 1];
    struct mull_opener opener;
    struct mull_source *opener_source;
    struct mull_timer *timer;
    struct mull_tftp *tftp;
    bool known; /* what the server's address is: a DHCP answer has said it */
    uint8_t server[4];
    bool posted; /* pump() is posted */
    unsigned first, count;
    struct {
        uint32_t len;
        uint8_t data[FRAME_SIZE];
    } out[OUTBOX]; /* for the guest */
};

static uint16_t get16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

static void put16(uint8_t *p, uint32_t value)
{
    p[0] = (uint8_t)(value >> 8);
    p[1] = (uint8_t)value;
}

/* ---- To the guest ---- */

/* Hand on what is in the outbox. @return false: the guest has no room */
static bool deliver(struct netboot *n)
{
    while (n->count && n->frontend.receive) {
        if (!n->frontend.receive(n->frontend.opaque, n->out[n->first].data, n->out[n->first].len))
            return false;
        n->first = (n->first + 1) % OUTBOX;
        n->count--;
    }
    return true;
}

static void pump(void *opaque)
{
    struct netboot *n = opaque;

    n->posted = false;
    if (!n->frontend.receive)
        return;
    deliver(n);
    n->frontend.received(n->frontend.opaque);
}

static void post_pump(struct netboot *n)
{
    if (!n->posted && !mull_loop_post(n->loop, pump, n))
        n->posted = true;
}

/* Lengths and checksums of an IPv4 packet without options, with UDP in it. */
static void finish_udp(uint8_t *frame, size_t payload)
{
    struct mull_net_headers h;
    uint32_t len = (uint32_t)(PAYLOAD_AT + payload);

    put16(frame + IP_AT + 2, len - IP_AT);
    put16(frame + IP_AT + 10, 0);
    uint16_t sum = mull_net_fold(mull_net_sum(frame + IP_AT, IP_SIZE, 0));
    memcpy(frame + IP_AT + 10, &sum, 2);
    put16(frame + UDP_AT + 4, len - UDP_AT);
    put16(frame + UDP_AT + 6, 0);
    mull_net_parse(frame, len, &h);
    sum = mull_net_fold(mull_net_sum(frame + UDP_AT, len - UDP_AT, mull_net_pseudo(frame, &h)));
    sum = sum ? sum : 0xffff; /* RFC 768 */
    memcpy(frame + UDP_AT + 6, &sum, 2);
}

static void tftp_send(void *opaque, const struct mull_tftp_peer *peer, const uint8_t *data,
                      size_t len)
{
    struct netboot *n = opaque;

    if (n->count == OUTBOX || len > MULL_TFTP_PACKET_MAX)
        return; /* it will be asked for again */
    uint8_t *f = n->out[(n->first + n->count) % OUTBOX].data;
    memset(f, 0, PAYLOAD_AT);
    memcpy(f, peer->client_mac, 6);
    memcpy(f + 6, peer->server_mac, 6);
    put16(f + 12, ETHERTYPE_IP);
    f[IP_AT] = 0x45;
    f[IP_AT + 8] = 64;
    f[IP_AT + 9] = IPPROTO_UDP;
    memcpy(f + IP_AT + 12, peer->server_ip, 4);
    memcpy(f + IP_AT + 16, peer->client_ip, 4);
    put16(f + UDP_AT, peer->server_port);
    put16(f + UDP_AT + 2, peer->client_port);
    memcpy(f + PAYLOAD_AT, data, len);
    finish_udp(f, len);
    n->out[(n->first + n->count) % OUTBOX].len = (uint32_t)(PAYLOAD_AT + len);
    n->count++;
    post_pump(n);
}

/* ---- TFTP ---- */

static void set_timer(struct netboot *n)
{
    uint64_t next = mull_tftp_tick(n->tftp, mull_now_ns());

    if (next)
        mull_timer_arm(n->timer, next);
    else
        mull_timer_cancel(n->timer);
}

static void tick(void *opaque)
{
    set_timer(opaque);
}

static bool tftp_open(void *opaque, uint32_t id, const char *name)
{
    struct netboot *n = opaque;
    return mull_opener_ask(&n->opener, id, name);
}

static const struct mull_tftp_ops tftp_ops = {.send = tftp_send, .open = tftp_open};

static void opener_ready(void *opaque, uint32_t events)
{
    struct netboot *n = opaque;
    uint32_t id;
    uint64_t size;
    int fd;
    bool answered = false;

    while (mull_opener_answer(&n->opener, &id, &fd, &size)) {
        mull_tftp_opened(n->tftp, id, fd, size, mull_now_ns());
        answered = true;
    }
    if (!answered && (events & (EPOLLHUP | EPOLLERR)))
        mull_source_modify(n->opener_source, 0); /* it has died; requests are refused */
    set_timer(n);
}

/* Is this frame of the guest's for us? */
static bool is_ours(const struct netboot *n, const uint8_t *f, size_t len, struct mull_tftp_peer *p)
{
    if (len < PAYLOAD_AT || get16(f + 12) != ETHERTYPE_IP || f[IP_AT] != 0x45 ||
        f[IP_AT + 9] != IPPROTO_UDP || (get16(f + IP_AT + 6) & 0x3fff))
        return false;
    uint16_t port = get16(f + UDP_AT + 2), size = get16(f + UDP_AT + 4);
    if ((port != MULL_TFTP_PORT &&
         (port < MULL_TFTP_FIRST_PORT || port >= MULL_TFTP_FIRST_PORT + MULL_TFTP_PORTS)) ||
        size < 8 || size > len - UDP_AT || (n->known && memcmp(f + IP_AT + 16, n->server, 4)))
        return false;
    memcpy(p->server_mac, f, 6);
    memcpy(p->client_mac, f + 6, 6);
    memcpy(p->client_ip, f + IP_AT + 12, 4);
    memcpy(p->server_ip, f + IP_AT + 16, 4);
    p->client_port = get16(f + UDP_AT);
    p->server_port = port;
    return true;
}

static int netboot_send(struct mull_netdev *netdev, const struct iovec *iov, int niov, size_t len)
{
    struct netboot *n = (struct netboot *)netdev;
    uint8_t frame[REQUEST_MAX];
    struct mull_tftp_peer peer;
    size_t done = 0;

    if (len <= sizeof(frame)) {
        for (int i = 0; i < niov && iov[i].iov_len <= sizeof(frame) - done; i++) {
            memcpy(frame + done, iov[i].iov_base, iov[i].iov_len);
            done += iov[i].iov_len;
        }
        if (done == len && is_ours(n, frame, len, &peer)) {
            mull_tftp_receive(n->tftp, &peer, frame + PAYLOAD_AT, get16(frame + UDP_AT + 4) - 8u,
                              mull_now_ns());
            set_timer(n);
            return 0;
        }
    }
    return mull_netdev_send(n->inner, iov, niov, len);
}

/* ---- DHCP ---- */

/* Where the options end, before OPT_END. @return 0: they are not well formed, or use other fields
 * for more options */
static size_t options_end(const uint8_t *d, size_t len, const uint8_t **server)
{
    size_t at = BOOTP_SIZE + 4;

    while (at < len && d[at] != OPT_END) {
        if (d[at] == OPT_PAD) {
            at++;
            continue;
        }
        if (at + 2 > len || d[at + 1] > len - at - 2 || d[at] == OPT_OVERLOAD)
            return 0;
        if (d[at] == OPT_SERVER_ID && d[at + 1] == 4)
            *server = d + at + 2;
        at += 2u + d[at + 1];
    }
    return at < len ? at : 0;
}

static size_t add_option(uint8_t *d, size_t at, uint8_t code, const char *text)
{
    size_t len = strlen(text);

    d[at] = code;
    d[at + 1] = (uint8_t)len;
    memcpy(d + at + 2, text, len);
    return at + 2 + len;
}

/* Is it a DHCP server's answer? Then write one with a boot file into @out. @return its length, 0:
 * no
 */
static size_t with_bootfile(struct netboot *n, const uint8_t *f, size_t len, uint8_t *out)
{
    const uint8_t *d = f + PAYLOAD_AT, *server = f + IP_AT + 12;

    if (len < PAYLOAD_AT + BOOTP_SIZE + 5 || len > DHCP_MAX - 2 * MULL_NETBOOT_FILE_MAX ||
        get16(f + 12) != ETHERTYPE_IP || f[IP_AT] != 0x45 || f[IP_AT + 9] != IPPROTO_UDP ||
        get16(f + UDP_AT) != DHCP_SERVER_PORT || get16(f + UDP_AT + 2) != DHCP_CLIENT_PORT ||
        d[0] != 2 || memcmp(d + BOOTP_SIZE, DHCP_COOKIE, 4))
        return 0;
    size_t at = options_end(d, len - PAYLOAD_AT, &server);
    if (!at)
        return 0;
    char name[16];
    snprintf(name, sizeof(name), "%u.%u.%u.%u", server[0], server[1], server[2], server[3]);
    memcpy(n->server, server, 4);
    n->known = true;
    memcpy(out, f, PAYLOAD_AT + at);
    uint8_t *o = out + PAYLOAD_AT;
    memcpy(o + BOOTP_SIADDR, n->server, 4);
    memset(o + BOOTP_FILE, 0, BOOTP_FILE_SIZE);
    memcpy(o + BOOTP_FILE, n->bootfile, strlen(n->bootfile));
    at = add_option(o, at, OPT_TFTP_NAME, name);
    at = add_option(o, at, OPT_BOOTFILE, n->bootfile);
    o[at++] = OPT_END;
    finish_udp(out, at);
    return PAYLOAD_AT + at;
}

/* ---- Between back end and card ---- */

static bool inner_receive(void *opaque, const uint8_t *frame, size_t len)
{
    struct netboot *n = opaque;
    uint8_t answer[DHCP_MAX];

    if (!n->frontend.receive || !deliver(n))
        return false; /* ours come first, and keep their order */
    size_t changed = *n->bootfile ? with_bootfile(n, frame, len, answer) : 0;
    if (changed)
        return n->frontend.receive(n->frontend.opaque, answer, changed);
    return n->frontend.receive(n->frontend.opaque, frame, len);
}

static void inner_received(void *opaque)
{
    struct netboot *n = opaque;
    if (n->frontend.received)
        n->frontend.received(n->frontend.opaque);
}

static void inner_writable(void *opaque)
{
    struct netboot *n = opaque;
    if (n->frontend.writable)
        n->frontend.writable(n->frontend.opaque);
}

static void inner_link(void *opaque, bool up)
{
    struct netboot *n = opaque;
    if (n->frontend.link)
        n->frontend.link(n->frontend.opaque, up);
}

static void netboot_attach(struct mull_netdev *netdev, const struct mull_netdev_frontend *frontend)
{
    struct netboot *n = (struct netboot *)netdev;
    const struct mull_netdev_frontend between = {.opaque = n,
                                                 .receive = inner_receive,
                                                 .received = inner_received,
                                                 .writable = inner_writable,
                                                 .link = inner_link};

    n->frontend = frontend ? *frontend : (struct mull_netdev_frontend){0};
    mull_netdev_attach(n->inner, frontend ? &between : NULL);
}

static void netboot_flush(struct mull_netdev *netdev)
{
    mull_netdev_flush(((struct netboot *)netdev)->inner);
}

static void netboot_resume(struct mull_netdev *netdev)
{
    struct netboot *n = (struct netboot *)netdev;
    if (n->count)
        post_pump(n);
    mull_netdev_resume(n->inner);
}

static void netboot_offloads(struct mull_netdev *netdev, uint64_t features)
{
    mull_netdev_set_offloads(((struct netboot *)netdev)->inner, features);
}

static void netboot_destroy(struct mull_netdev *netdev)
{
    struct netboot *n = (struct netboot *)netdev;

    mull_source_remove(n->opener_source);
    mull_opener_stop(&n->opener);
    mull_timer_destroy(n->timer);
    mull_tftp_destroy(n->tftp);
    mull_netdev_destroy(n->inner);
    free(n);
}

static const struct mull_netdev_ops netboot_ops = {.send = netboot_send,
                                                   .flush = netboot_flush,
                                                   .attach = netboot_attach,
                                                   .resume = netboot_resume,
                                                   .set_offloads = netboot_offloads,
                                                   .destroy = netboot_destroy};

int mull_netboot_create(struct mull_loop *loop, struct mull_netdev *inner, const char *root,
                        const char *bootfile, struct mull_netdev **out, struct mull_error *err)
{
    if (bootfile && strlen(bootfile) > MULL_NETBOOT_FILE_MAX)
        return mull_fail(err, EINVAL, "bootfile=%s: at most %d characters", bootfile,
                         MULL_NETBOOT_FILE_MAX);
    if (inner->caps.vnet_hdr)
        return mull_fail(err, EINVAL, "tftp=%s: only for --net user", root);
    struct netboot *n = calloc(1, sizeof(*n));
    if (!n)
        return mull_fail(err, ENOMEM, "tftp=%s: out of memory", root);
    n->base.ops = &netboot_ops;
    n->base.caps = inner->caps;
    n->loop = loop;
    n->opener.socket = -1;
    if (bootfile)
        memcpy(n->bootfile, bootfile, strlen(bootfile));
    n->timer = mull_timer_create(loop, tick, n);
    n->tftp = mull_tftp_create(&tftp_ops, n);
    int ret = n->timer && n->tftp ? mull_opener_start(root, &n->opener, err)
                                  : mull_fail(err, ENOMEM, "tftp=%s: out of memory", root);
    if (!ret)
        ret = mull_loop_watch(loop, n->opener.socket, EPOLLIN, opener_ready, n, &n->opener_source,
                              err);
    if (ret) {
        netboot_destroy(&n->base); /* with the inner one still the caller's */
        return ret;
    }
    n->inner = inner;
    *out = &n->base;
    return 0;
}
