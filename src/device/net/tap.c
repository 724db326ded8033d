/*
 * A tap interface of the host as a network back end (Documentation/networking/tuntap.rst), with
 * the kernel's virtio-net header so that checksums and segmentation stay undone between guest and
 * host. Knows frames, neither rings nor guests.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "device/net/netdev.h"

/* Frames in one turn of the loop before others get theirs. */
#define BURST 64

struct tap {
    struct mull_netdev base;
    struct mull_loop *loop;
    const struct mull_log *log;
    struct mull_netdev_frontend frontend;
    int fd;
    struct mull_source *source;
    bool posted;  /* pump() is posted */
    bool starved; /* send() said -EAGAIN */
    bool down;    /* reading failed: the interface was deleted */
    size_t held;  /* bytes of a frame that the frontend had no room for */
    uint8_t frame[MULL_NET_HDR_SIZE + MULL_NET_FRAME_MAX];
};

static void pump(void *opaque);

static void post_pump(struct tap *t)
{
    if (!t->posted && !mull_loop_post(t->loop, pump, t))
        t->posted = true;
}

static void link_down(struct tap *t, int error)
{
    mull_log(t->log, MULL_LOG_WARN, "tap: reading failed: %s; the guest's link is down",
             strerror(error));
    t->down = true;
    mull_source_modify(t->source, 0);
    if (t->frontend.link)
        t->frontend.link(t->frontend.opaque, false);
}

/* Hand frames to the frontend until there is none, or no room, or others have their turn. */
static void deliver(struct tap *t)
{
    for (int i = 0; i < BURST; i++) {
        if (!t->held) {
            ssize_t n = read(t->fd, t->frame, sizeof(t->frame));
            if (n < 0 && errno == EINTR)
                continue;
            if (n < 0 && errno != EAGAIN)
                link_down(t, errno);
            if (n <= 0)
                return;
            t->held = (size_t)n;
        }
        if (!t->frontend.receive(t->frontend.opaque, t->frame, t->held))
            return; /* until mull_netdev_resume() */
        t->held = 0;
    }
    post_pump(t);
}

static void pump(void *opaque)
{
    struct tap *t = opaque;
    t->posted = false;
    if (!t->frontend.receive || t->down)
        return;
    deliver(t);
    t->frontend.received(t->frontend.opaque);
}

static void ready(void *opaque, uint32_t events)
{
    struct tap *t = opaque;
    if ((events & EPOLLOUT) && t->starved) {
        t->starved = false;
        if (t->frontend.writable)
            t->frontend.writable(t->frontend.opaque);
    }
    if (events & ~(uint32_t)EPOLLOUT)
        pump(t);
}

static int tap_send(struct mull_netdev *netdev, const struct iovec *iov, int niov, size_t len)
{
    struct tap *t = (struct tap *)netdev;
    ssize_t n;
    do
        n = writev(t->fd, iov, niov);
    while (n < 0 && errno == EINTR);
    if (n < 0 && errno == EAGAIN) {
        t->starved = true;
        return -EAGAIN;
    }
    return 0; /* whatever else is wrong with it: a network may drop frames */
}

static void tap_attach(struct mull_netdev *netdev, const struct mull_netdev_frontend *frontend)
{
    struct tap *t = (struct tap *)netdev;
    t->frontend = frontend ? *frontend : (struct mull_netdev_frontend){0};
    if (frontend)
        post_pump(t);
}

static void tap_resume(struct mull_netdev *netdev)
{
    post_pump((struct tap *)netdev);
}

static bool has(uint64_t features, unsigned bit)
{
    return features >> bit & 1;
}

static void tap_set_offloads(struct mull_netdev *netdev, uint64_t features)
{
    struct tap *t = (struct tap *)netdev;
    unsigned flags = 0;

    if (has(features, VIRTIO_NET_F_GUEST_CSUM)) {
        flags |= TUN_F_CSUM;
        if (has(features, VIRTIO_NET_F_GUEST_TSO4))
            flags |= TUN_F_TSO4;
        if (has(features, VIRTIO_NET_F_GUEST_TSO6))
            flags |= TUN_F_TSO6;
        if ((flags & (TUN_F_TSO4 | TUN_F_TSO6)) && has(features, VIRTIO_NET_F_GUEST_ECN))
            flags |= TUN_F_TSO_ECN;
    }
    if (ioctl(t->fd, TUNSETOFFLOAD, flags))
        mull_log(t->log, MULL_LOG_WARN, "tap: setting offloads 0x%x failed: %s", flags,
                 strerror(errno));
}

static void tap_destroy(struct mull_netdev *netdev)
{
    struct tap *t = (struct tap *)netdev;
    mull_source_remove(t->source);
    if (t->fd >= 0)
        close(t->fd);
    free(t);
}

static const struct mull_netdev_ops tap_ops = {.send = tap_send,
                                               .attach = tap_attach,
                                               .resume = tap_resume,
                                               .set_offloads = tap_set_offloads,
                                               .destroy = tap_destroy};

static int open_interface(struct tap *t, const char *ifname, struct mull_error *err)
{
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
    int header = MULL_NET_HDR_SIZE;

    t->fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (t->fd < 0)
        return mull_fail(err, errno,
                         "tap %s: cannot open /dev/net/tun: %s; load the module tun (in a "
                         "container: pass the device in), or use --net user",
                         ifname, strerror(errno));
    memcpy(request.ifr_name, ifname, strlen(ifname)); /* the caller bounded it */
    if (ioctl(t->fd, TUNSETIFF, &request)) {
        int code = errno;
        if (code == EPERM)
            return mull_fail(err, code,
                             "tap %s: not permitted; let its owner create it once with "
                             "`ip tuntap add dev %s mode tap user NAME`, or use --net user",
                             ifname, ifname);
        if (code == EBUSY)
            return mull_fail(err, code, "tap %s: another process uses it; give another interface",
                             ifname);
        return mull_fail(err, code, "tap %s: cannot attach: %s; is it a tap interface?", ifname,
                         strerror(code));
    }
    if (ioctl(t->fd, TUNSETVNETHDRSZ, &header) || ioctl(t->fd, TUNSETOFFLOAD, 0))
        return mull_fail(err, errno, "tap %s: the kernel lacks virtio-net headers: %s", ifname,
                         strerror(errno));
    return 0;
}

static int check_name(const char *ifname, struct mull_error *err)
{
    if (!*ifname || strlen(ifname) >= IFNAMSIZ || strpbrk(ifname, "/%"))
        return mull_fail(err, EINVAL,
                         "tap \"%s\": an interface name has 1 to %d characters, no / "
                         "and no %%",
                         ifname, IFNAMSIZ - 1);
    return 0;
}

int mull_tap_open(const char *ifname, struct mull_error *err)
{
    struct tap t = {.fd = -1};
    int rc = check_name(ifname, err);
    if (!rc)
        rc = open_interface(&t, ifname, err);
    if (rc && t.fd >= 0)
        close(t.fd);
    return rc ? rc : t.fd;
}

int mull_tap_adopt(struct mull_loop *loop, int fd, const struct mull_log *log,
                   struct mull_netdev **out, struct mull_error *err)
{
    struct tap *t = calloc(1, sizeof(*t));
    if (!t) {
        close(fd);
        return mull_fail(err, ENOMEM, "tap: out of memory");
    }
    t->base.ops = &tap_ops;
    t->base.caps.vnet_hdr = true;
    t->loop = loop;
    t->log = log;
    t->fd = fd;
    int rc = mull_loop_watch(loop, t->fd, EPOLLIN | EPOLLOUT | EPOLLET, ready, t, &t->source, err);
    if (rc) {
        tap_destroy(&t->base);
        return rc;
    }
    *out = &t->base;
    return 0;
}

int mull_tap_create(struct mull_loop *loop, const char *ifname, const struct mull_log *log,
                    struct mull_netdev **out, struct mull_error *err)
{
    int fd = mull_tap_open(ifname, err);
    return fd < 0 ? fd : mull_tap_adopt(loop, fd, log, out, err);
}
