/*
 * User networking through passt(1): frames go over a Unix stream socket, each behind its length
 * as four big-endian bytes (the protocol of QEMU's stream back end). What passt sends is parsed
 * with bounds; partial reads and writes are the normal case. Knows frames, neither rings nor
 * guests.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <net/ethernet.h>
#include <netinet/if_ether.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "device/net/netdev.h"
#include "device/net/offload.h"
#include "device/net/passt_child.h"

#define PREFIX 4
#define RX_SIZE (4 * (PREFIX + MULL_NET_FRAME_MAX))
#define TX_SIZE (4 * (PREFIX + MULL_NET_FRAME_MAX))
/* Frames up to this size are gathered for one system call. */
#define GATHER_MAX 4096
#define READS_AT_ONCE 16
#define MAX_VECTORS 300
#define READY_MS 5000
#define STARTED_MS 200
/* What passt tells by DHCP: the largest MTU of Ethernet over a stream, in 32-bit words (passt(1),
 * --mtu). There is no wire that would want less, and each frame costs a trip through the guest. */
#define PASST_MTU 65520

/* A DHCP answer: BOOTP behind UDP behind an IPv4 header without options (RFC 2131, 2). */
#define IP_AT ETH_HLEN
#define UDP_AT (IP_AT + 20)
#define BOOTP_AT (UDP_AT + 8)
#define BOOTP_FLAGS 10
#define BOOTP_FLAG_BROADCAST 0x80
#define DHCP_SERVER_PORT 67
#define DHCP_CLIENT_PORT 68

struct passt {
    struct mull_netdev base;
    struct mull_loop *loop;
    const struct mull_log *log;
    struct mull_netdev_frontend frontend;
    struct mull_passt_child child;
    struct mull_source *source, *messages_source, *pidfd_source;
    bool posted;  /* pump() is posted */
    bool starved; /* send() said -EAGAIN */
    bool full;    /* the frontend had no room */
    bool down;
    uint32_t rx_first, rx_len, tx_first, tx_len;
    uint8_t rx[RX_SIZE], tx[TX_SIZE];
};

/* ---- Out ---- */

/* Write what is queued. @return true: all of it has gone */
static bool write_queued(struct passt *p)
{
    while (p->tx_len && !p->down) {
        ssize_t n =
            send(p->child.socket, p->tx + p->tx_first, p->tx_len, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return false;
        if (n < 0) {
            p->tx_len = 0; /* it has gone; the loop hears of it by the hang-up */
            break;
        }
        p->tx_first += (uint32_t)n;
        p->tx_len -= (uint32_t)n;
    }
    p->tx_first = 0;
    return true;
}

/* Append vectors to the queue, all but their first @skip bytes. The caller made sure of the room.
 */
static void queue_vectors(struct passt *p, const struct iovec *iov, int niov, size_t skip)
{
    if (p->tx_first) {
        memmove(p->tx, p->tx + p->tx_first, p->tx_len);
        p->tx_first = 0;
    }
    for (int i = 0; i < niov; i++) {
        if (skip >= iov[i].iov_len) {
            skip -= iov[i].iov_len;
            continue;
        }
        memcpy(p->tx + p->tx_len, (const uint8_t *)iov[i].iov_base + skip, iov[i].iov_len - skip);
        p->tx_len += (uint32_t)(iov[i].iov_len - skip);
        skip = 0;
    }
}

static int passt_send(struct mull_netdev *netdev, const struct iovec *iov, int niov, size_t len)
{
    struct passt *p = (struct passt *)netdev;
    uint32_t prefix = htonl((uint32_t)len);
    struct iovec all[MAX_VECTORS] = {{&prefix, PREFIX}};
    size_t sent = 0;

    if (p->down || len < ETH_HLEN || len > MULL_NET_FRAME_MAX || niov >= MAX_VECTORS)
        return 0;
    memcpy(all + 1, iov, (size_t)niov * sizeof(*iov));
    if (PREFIX + len > TX_SIZE - p->tx_len && !write_queued(p) &&
        PREFIX + len > TX_SIZE - p->tx_len) {
        p->starved = true;
        return -EAGAIN;
    }
    if (len > GATHER_MAX && (!p->tx_len || write_queued(p))) {
        const struct msghdr msg = {.msg_iov = all, .msg_iovlen = (size_t)niov + 1};
        ssize_t n = sendmsg(p->child.socket, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN && errno != EINTR)
            return 0;
        sent = n < 0 ? 0 : (size_t)n;
    }
    queue_vectors(p, all, niov + 1, sent);
    return 0;
}

static void passt_flush(struct mull_netdev *netdev)
{
    write_queued((struct passt *)netdev); /* the rest goes when EPOLLOUT comes */
}

/* ---- In ---- */

static void pump(void *opaque);

static void post_pump(struct passt *p)
{
    if (!p->posted && !mull_loop_post(p->loop, pump, p))
        p->posted = true;
}

static void go_down(struct passt *p, const char *why)
{
    char line[256] = "";

    if (p->down)
        return;
    p->down = true;
    mull_passt_child_messages(&p->child, p->log, line, sizeof(line));
    mull_log(p->log, MULL_LOG_WARN, "passt: %s%s%s; the guest's link is down", why,
             line[0] ? ": " : "", line);
    mull_source_modify(p->source, 0);
    if (p->frontend.link)
        p->frontend.link(p->frontend.opaque, false);
}

/* Length of the frame at the front of the buffer if it is complete, 0: not yet, -1: nonsense. */
static int64_t front_frame(const struct passt *p)
{
    uint32_t prefix;

    if (p->rx_len < PREFIX)
        return 0;
    memcpy(&prefix, p->rx + p->rx_first, PREFIX);
    uint32_t len = ntohl(prefix);
    if (len < ETH_HLEN || len > MULL_NET_FRAME_MAX)
        return -1;
    return p->rx_len - PREFIX < len ? 0 : (int64_t)len;
}

static void drop_front(struct passt *p, uint32_t len)
{
    p->rx_first += PREFIX + len;
    p->rx_len -= PREFIX + len;
}

static uint16_t get16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

/* passt sends DHCP answers to the address that they offer, also to clients that cannot hear it yet
 * and have asked for a broadcast (RFC 2131, 4.1): UEFI's. */
static void broadcast_dhcp(uint8_t *f, size_t len)
{
    struct mull_net_headers h;

    if (len < BOOTP_AT + BOOTP_FLAGS + 2 || get16(f + 12) != ETHERTYPE_IP || f[IP_AT] != 0x45 ||
        f[IP_AT + 9] != IPPROTO_UDP || get16(f + UDP_AT) != DHCP_SERVER_PORT ||
        get16(f + UDP_AT + 2) != DHCP_CLIENT_PORT ||
        !(f[BOOTP_AT + BOOTP_FLAGS] & BOOTP_FLAG_BROADCAST))
        return;
    mull_net_parse(f, (uint32_t)len, &h);
    uint16_t size = get16(f + UDP_AT + 4);
    if (h.protocol != IPPROTO_UDP || h.fragment || size < 8 || size != h.end - UDP_AT)
        return;
    memset(f, 0xff, ETH_ALEN);
    memset(f + IP_AT + 16, 0xff, 4);
    memset(f + IP_AT + 10, 0, 2);
    uint16_t sum = mull_net_fold(mull_net_sum(f + IP_AT, UDP_AT - IP_AT, 0));
    memcpy(f + IP_AT + 10, &sum, 2);
    memset(f + UDP_AT + 6, 0, 2);
    sum = mull_net_fold(mull_net_sum(f + UDP_AT, size, mull_net_pseudo(f, &h)));
    sum = sum ? sum : 0xffff; /* RFC 768 */
    memcpy(f + UDP_AT + 6, &sum, 2);
}

/* Hand complete frames on. @return false: stop reading */
static bool deliver(struct passt *p)
{
    int64_t len;

    while ((len = front_frame(p)) > 0) {
        broadcast_dhcp(p->rx + p->rx_first + PREFIX, (size_t)len);
        if (!p->frontend.receive(p->frontend.opaque, p->rx + p->rx_first + PREFIX, (size_t)len)) {
            p->full = true;
            return false; /* until mull_netdev_resume() */
        }
        drop_front(p, (uint32_t)len);
    }
    if (len < 0)
        go_down(p, "its stream is out of step");
    return !len;
}

/* Read more behind what is there. @return true: there may be yet more */
static bool read_some(struct passt *p)
{
    if (p->rx_first) {
        memmove(p->rx, p->rx + p->rx_first, p->rx_len);
        p->rx_first = 0;
    }
    ssize_t n;
    do
        n = recv(p->child.socket, p->rx + p->rx_len, RX_SIZE - p->rx_len, MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (n < 0 && errno == EAGAIN)
        return false;
    if (n <= 0) {
        go_down(p, n ? strerror(errno) : "it has ended");
        return false;
    }
    p->rx_len += (uint32_t)n;
    return true;
}

static void pump(void *opaque)
{
    struct passt *p = opaque;

    p->posted = p->full = false;
    if (!p->frontend.receive || p->down)
        return;
    for (int i = 0;; i++) {
        if (!deliver(p))
            break;
        if (i == READS_AT_ONCE) {
            post_pump(p); /* others have their turn */
            break;
        }
        if (!read_some(p))
            break;
    }
    p->frontend.received(p->frontend.opaque);
}

static void ready(void *opaque, uint32_t events)
{
    struct passt *p = opaque;

    if ((events & EPOLLOUT) && write_queued(p) && p->starved) {
        p->starved = false;
        if (p->frontend.writable)
            p->frontend.writable(p->frontend.opaque);
    }
    if ((events & ~(uint32_t)EPOLLOUT) && !p->full)
        pump(p);
}

static void messages_ready(void *opaque, uint32_t events)
{
    struct passt *p = opaque;
    mull_passt_child_messages(&p->child, p->log, NULL, 0);
    if (events & (EPOLLHUP | EPOLLERR))
        mull_source_modify(p->messages_source, 0);
}

static void child_ended(void *opaque, uint32_t events)
{
    struct passt *p = opaque;
    mull_source_modify(p->pidfd_source, 0);
    if (mull_passt_child_ended(&p->child))
        go_down(p, "it has ended");
}

/* ---- Life ---- */

static void passt_attach(struct mull_netdev *netdev, const struct mull_netdev_frontend *frontend)
{
    struct passt *p = (struct passt *)netdev;
    p->frontend = frontend ? *frontend : (struct mull_netdev_frontend){0};
    if (frontend)
        post_pump(p);
}

static void passt_resume(struct mull_netdev *netdev)
{
    struct passt *p = (struct passt *)netdev;
    if (p->full)
        post_pump(p);
}

static void passt_destroy(struct mull_netdev *netdev)
{
    struct passt *p = (struct passt *)netdev;
    mull_source_remove(p->source);
    mull_source_remove(p->messages_source);
    mull_source_remove(p->pidfd_source);
    mull_passt_child_stop(&p->child);
    free(p);
}

static const struct mull_netdev_ops passt_ops = {.send = passt_send,
                                                 .flush = passt_flush,
                                                 .attach = passt_attach,
                                                 .resume = passt_resume,
                                                 .destroy = passt_destroy};

/* Ask for any address, as a host does that looks whether it is taken (RFC 5227, 2.1.1): passt
 * answers once it is set up. The address it learns for the guest is replaced by the guest's first
 * frame. */
static void send_probe(struct passt *p)
{
    static const uint8_t source[ETH_ALEN] = {0x52, 0x54, 0x00, 0x4d, 0x75, 0x6c};
    struct {
        struct ether_header eth;
        struct ether_arp arp;
    } __attribute__((packed)) frame = {0};

    memset(frame.eth.ether_dhost, 0xff, ETH_ALEN);
    memcpy(frame.eth.ether_shost, source, ETH_ALEN);
    frame.eth.ether_type = htons(ETHERTYPE_ARP);
    frame.arp.arp_hrd = htons(ARPHRD_ETHER);
    frame.arp.arp_pro = htons(ETHERTYPE_IP);
    frame.arp.arp_hln = ETH_ALEN;
    frame.arp.arp_pln = 4;
    frame.arp.arp_op = htons(ARPOP_REQUEST);
    memcpy(frame.arp.arp_sha, source, ETH_ALEN);
    memcpy(frame.arp.arp_tpa, (const uint8_t[]){192, 0, 0, 8}, 4); /* RFC 7600: a dummy */
    const struct iovec iov = {&frame, sizeof(frame)};
    passt_send(&p->base, &iov, 1, sizeof(frame));
    passt_flush(&p->base);
}

/* Wait until passt answers, so that what keeps it from starting is told now and not to a guest
 * without a network. One that stays silent (no IPv4 on the host) but lives is taken as it is. */
static int wait_ready(struct passt *p, struct mull_error *err)
{
    uint64_t end = mull_now_ns() + READY_MS * 1000000ull, now;
    char line[256] = "it ended without a message";

    send_probe(p);
    while ((now = mull_now_ns()) < end) {
        struct pollfd fds[] = {{.fd = p->child.socket, .events = POLLIN}};
        if (poll(fds, 1, (int)((end - now) / 1000000) + 1) <= 0)
            continue;
        ssize_t n = recv(p->child.socket, p->rx + p->rx_len, RX_SIZE - p->rx_len, MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            continue;
        if (n <= 0) {
            mull_passt_child_messages(&p->child, p->log, line, sizeof(line));
            return mull_fail(err, EIO,
                             "passt cannot start: %s; mend that, or use --net none or --net "
                             "tap=IF",
                             line);
        }
        p->rx_len += (uint32_t)n;
        int64_t len = front_frame(p);
        if (len < 0)
            return mull_fail(err, EPROTO,
                             "passt speaks another protocol than expected; use "
                             "passt 2023_03 or later");
        if (len > 0) {
            drop_front(p, (uint32_t)len);
            return 0;
        }
    }
    mull_log(p->log, MULL_LOG_WARN, "passt does not answer within %d s; going on", READY_MS / 1000);
    return 0;
}

static int watch(struct passt *p, struct mull_error *err)
{
    int rc = mull_loop_watch(p->loop, p->child.socket, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
                             ready, p, &p->source, err);
    if (!rc && p->child.messages >= 0)
        rc = mull_loop_watch(p->loop, p->child.messages, EPOLLIN, messages_ready, p,
                             &p->messages_source, err);
    if (!rc && p->child.pidfd >= 0)
        rc = mull_loop_watch(p->loop, p->child.pidfd, EPOLLIN, child_ended, p, &p->pidfd_source,
                             err);
    return rc;
}

int mull_passt_create(struct mull_loop *loop, const struct mull_passt_config *config,
                      const struct mull_log *log, struct mull_netdev **out, struct mull_error *err)
{
    struct passt *p = calloc(1, sizeof(*p));
    if (!p)
        return mull_fail(err, ENOMEM, "passt: out of memory");
    p->base.ops = &passt_ops;
    p->base.caps.mtu = PASST_MTU;
    p->loop = loop;
    p->log = log;
    int rc = mull_passt_child_start(config, &p->child, err);
    if (rc) {
        free(p);
        return rc;
    }
    rc = wait_ready(p, err);
    if (!rc)
        rc = watch(p, err);
    if (rc) {
        passt_destroy(&p->base);
        return rc;
    }
    *out = &p->base;
    return 0;
}

int mull_passt_adopt(struct mull_loop *loop, int socket, int messages, const struct mull_log *log,
                     struct mull_netdev **out, struct mull_error *err)
{
    struct passt *p = calloc(1, sizeof(*p));
    if (!p) {
        close(socket);
        if (messages >= 0)
            close(messages);
        return mull_fail(err, ENOMEM, "passt: out of memory");
    }
    p->base.ops = &passt_ops;
    p->base.caps.mtu = PASST_MTU;
    p->loop = loop;
    p->log = log;
    p->child = (struct mull_passt_child){.pidfd = -1, .socket = socket, .messages = messages};
    int rc = watch(p, err);
    if (rc) {
        passt_destroy(&p->base);
        return rc;
    }
    *out = &p->base;
    return 0;
}

int mull_passt_start(const struct mull_passt_config *config, int *socket, int *messages,
                     struct mull_error *err)
{
    struct mull_passt_config lasting = *config;
    struct mull_passt_child child;
    lasting.outlives = true;
    int rc = mull_passt_child_start(&lasting, &child, err);
    if (rc)
        return rc;
    /* What keeps it from starting shows soon. */
    struct pollfd p = {.fd = child.pidfd, .events = POLLIN};
    if (child.pidfd >= 0 && poll(&p, 1, STARTED_MS) == 1) {
        char line[256] = "it ended without a message";
        mull_passt_child_messages(&child, NULL, line, sizeof(line));
        mull_passt_child_stop(&child);
        return mull_fail(err, EIO, "passt cannot start: %s", line);
    }
    if (child.pidfd >= 0)
        close(child.pidfd);
    *socket = child.socket;
    *messages = child.messages;
    return 0;
}
