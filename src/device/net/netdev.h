/*
 * A network back end: where a NIC's Ethernet frames go to and come from. Knows frames, neither
 * rings nor guests. Everything runs in the loop's thread unless said otherwise.
 */
#ifndef MULL_DEVICE_NET_NETDEV_H
#define MULL_DEVICE_NET_NETDEV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/bucket.h"
#include "base/error.h"
#include "base/log.h"
#include "base/loop.h"

/** The largest frame either way: a 64 KiB segment with its Ethernet and VLAN header. */
#define MULL_NET_FRAME_MAX (65536 + 18)
/** The header of frames where the back end has offloads: struct virtio_net_hdr_v1. */
#define MULL_NET_HDR_SIZE 12

struct mull_netdev;

/** The NIC's side. None of these is called from inside a mull_netdev_*() call. */
struct mull_netdev_frontend {
    void *opaque;
    /* One frame. @return false: no room now, the back end keeps it and waits for
     * mull_netdev_resume(). With vnet_hdr it begins with MULL_NET_HDR_SIZE bytes of header. */
    bool (*receive)(void *opaque, const uint8_t *frame, size_t len);
    /* A burst of receive() calls has ended. */
    void (*received)(void *opaque);
    /* send() can take frames again after -EAGAIN. */
    void (*writable)(void *opaque);
    /* The link's state has changed (the peer process ended); may be NULL. */
    void (*link)(void *opaque, bool up);
};

/** What a back end can do, fixed at creation. */
struct mull_netdev_caps {
    bool vnet_hdr; /* frames carry a virtio-net header; checksum and TSO offloads work */
    uint16_t mtu;  /* 0: unknown */
};

struct mull_netdev_ops {
    int (*send)(struct mull_netdev *netdev, const struct iovec *iov, int niov, size_t len);
    void (*flush)(struct mull_netdev *netdev);
    void (*attach)(struct mull_netdev *netdev, const struct mull_netdev_frontend *frontend);
    void (*resume)(struct mull_netdev *netdev);
    void (*set_offloads)(struct mull_netdev *netdev, uint64_t guest_features);
    void (*destroy)(struct mull_netdev *netdev);
};

/** The head of each back end's own struct. */
struct mull_netdev {
    const struct mull_netdev_ops *ops;
    struct mull_netdev_caps caps;
};

/**
 * Send one frame (with vnet_hdr: header first). The vectors may be guest memory: they are only
 * handed to the kernel or copied.
 *
 * @return 0 (sent or dropped for good), or -EAGAIN: try the same frame again after writable()
 */
int mull_netdev_send(struct mull_netdev *netdev, const struct iovec *iov, int niov, size_t len);

/** A burst of sends has ended: whatever was held together for one system call goes out. */
void mull_netdev_flush(struct mull_netdev *netdev);

/** Connect the NIC (copied), or disconnect it with NULL. Also while the loop does not run. */
void mull_netdev_attach(struct mull_netdev *netdev, const struct mull_netdev_frontend *frontend);

/** receive() would succeed again. */
void mull_netdev_resume(struct mull_netdev *netdev);

/** The guest's negotiated VIRTIO_NET_F_GUEST_* bits: what received frames may look like. */
void mull_netdev_set_offloads(struct mull_netdev *netdev, uint64_t guest_features);

/** Free the back end. The loop does not run any more. NULL is allowed. */
void mull_netdev_destroy(struct mull_netdev *netdev);

/* ---- Back ends ---- */

/** An existing or new tap interface. @param ifname  e.g. "tap0" */
int mull_tap_create(struct mull_loop *loop, const char *ifname, const struct mull_log *log,
                    struct mull_netdev **out, struct mull_error *err);

/** A tap that somebody else has opened and set up: mull_tap_open(). @param fd  the back end's from
 *  now on, also after an error */
int mull_tap_adopt(struct mull_loop *loop, int fd, const struct mull_log *log,
                   struct mull_netdev **out, struct mull_error *err);

/** Open a tap interface for a machine in another process. @return the descriptor or a negative
 *  errno */
int mull_tap_open(const char *ifname, struct mull_error *err);

#define MULL_PASST_FORWARDS 32

/** One forwarded port (or range of ports) of the host. */
struct mull_passt_forward {
    bool udp;
    char address[46]; /* host address to listen on; empty: all */
    uint16_t host_first, host_last;
    uint16_t guest_first;
};

struct mull_passt_config {
    const char *program; /* NULL: "passt" from PATH */
    const char *mac;     /* NULL: passt's choice */
    bool outlives;       /* it may live longer than the process that starts it */
    unsigned nforwards;
    struct mull_passt_forward forwards[MULL_PASST_FORWARDS];
};

/**
 * Parse one forward and append it to @config: `tcp:[ADDRESS:]PORT[-LAST][:GUESTPORT]` or udp:,
 * e.g. "tcp:2222:22", "tcp:127.0.0.1:8080:80", "udp:5000-5010", "tcp:[::1]:2222:22".
 */
int mull_passt_parse_forward(struct mull_passt_config *config, const char *text,
                             struct mull_error *err);

/** User networking without privileges through passt(1), run as a child process of its own. */
int mull_passt_create(struct mull_loop *loop, const struct mull_passt_config *config,
                      const struct mull_log *log, struct mull_netdev **out, struct mull_error *err);

/** A passt that another process has started with mull_passt_start(). @param socket, messages  the
 *  back end's from now on, also after an error; messages may be -1 */
int mull_passt_adopt(struct mull_loop *loop, int socket, int messages, const struct mull_log *log,
                     struct mull_netdev **out, struct mull_error *err);

/** Start passt for a machine in another process: it lives until its socket's last holder has closed
 *  it. @return 0, with two descriptors to hand over; or a negative errno */
int mull_passt_start(const struct mull_passt_config *config, int *socket, int *messages,
                     struct mull_error *err);

/* ---- Limits ---- */

/** How fast the network cards of one machine may be, in bytes a second. "In" is to the guest. */
enum mull_netlimit_kind { MULL_NETLIMIT_BOTH, MULL_NETLIMIT_IN, MULL_NETLIMIT_OUT, MULL_NETLIMITS };

/** What the cards of one machine share; zeroed: no limits. Outlives its back ends. */
struct mull_netlimit {
    struct mull_bucket bucket[MULL_NETLIMITS];
    struct mull_netdev *members; /* by limit.c */
};

/** Units a second, by enum mull_netlimit_kind; 0: no limit. Loop's thread. */
void mull_netlimit_set(struct mull_netlimit *limit, const uint64_t rate[MULL_NETLIMITS]);

/** What has passed. */
struct mull_netlimit_counts {
    uint64_t in_bytes, in_packets, out_bytes, out_packets;
    uint64_t waited; /* packets that came too early for their limit */
};

/** Put limits and counters in front of @inner, which is *out's from now on (unless there is an
 *  error). */
int mull_netlimit_create(struct mull_loop *loop, struct mull_netdev *inner,
                         struct mull_netlimit *limit, struct mull_netdev **out,
                         struct mull_error *err);

/** Of one that mull_netlimit_create() has made. Loop's thread. */
void mull_netlimit_counts(const struct mull_netdev *netdev, struct mull_netlimit_counts *out);

/** The longest boot file's name that a DHCP answer has room for. */
#define MULL_NETBOOT_FILE_MAX 127

/**
 * In front of @inner (which has no virtio-net header): serve the files below a folder by TFTP, and
 * tell clients of DHCP to boot one.
 *
 * @param inner     owned by *out, unless there is an error
 * @param root      the folder
 * @param bootfile  below it; NULL: DHCP answers stay as they are
 */
int mull_netboot_create(struct mull_loop *loop, struct mull_netdev *inner, const char *root,
                        const char *bootfile, struct mull_netdev **out, struct mull_error *err);

#endif
