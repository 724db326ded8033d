/*
 * What network cards other than virtio's have in common: a PCI function in front of a network back
 * end, a lock, work that vCPUs leave to the loop, and offloads that every back end can do (a tap
 * by its virtio-net header, others in here). Knows neither registers nor rings.
 *
 * Threads: vCPUs access registers, the loop's thread handles rings; both under one lock.
 */
#ifndef MULL_DEVICE_NET_NIC_H
#define MULL_DEVICE_NET_NIC_H

#include <pthread.h>

#include "device/devices.h"
#include "device/net/offload.h"

struct mull_nic;

/** A received frame, its checksums completed. */
struct mull_nic_frame {
    uint8_t *data; /* may be changed by who receives it */
    uint32_t len;
    struct mull_net_headers headers;
    bool ip_good, l4_good; /* verified (where there is such a header) */
    uint16_t mss;          /* of TCP segments that were put together; else 0 */
};

/** All of these: locked. */
struct mull_nic_ops {
    /* A frame came. Loop's thread. @return false: no room now */
    bool (*receive)(struct mull_nic *nic, const struct mull_nic_frame *frame);
    /* A burst of them has ended. Loop's thread. */
    void (*received)(struct mull_nic *nic);
    /* mull_nic_post() was called, or the back end takes frames again. Loop's thread. */
    void (*work)(struct mull_nic *nic);
    /* nic->link_up has changed. Loop's thread. */
    void (*link)(struct mull_nic *nic);
};

/** The head of each card's own struct. */
struct mull_nic {
    struct mull_device device; /* must be first */
    const struct mull_nic_ops *ops;
    struct mull_pci_function pci;
    struct mull_device_env env;
    struct mull_netdev *netdev; /* NULL: no cable */
    pthread_mutex_t lock;
    uint8_t permanent_mac[6];
    bool link_up;
    bool paused;   /* quiesced */
    bool posted;   /* run_work() is posted */
    bool starved;  /* frames wait for room: the retry timer looks again */
    uint64_t wait; /* before it does, ns: longer each time in vain */
    uint32_t sent; /* segments of the packet in hand that have gone */
    unsigned complaints;
    struct mull_timer *retry;
    uint8_t *out;     /* the packet in hand: MULL_NET_HDR_SIZE bytes of room, then the frame */
    uint8_t *in;      /* a copy of a frame that has come */
    uint8_t *segment; /* scratch */
};

/** What the driver wants done to a frame it sends. */
struct mull_nic_offload {
    bool ip_sum; /* of the IPv4 header at [ip_start, ip_end), into ip_at */
    uint32_t ip_start, ip_end, ip_at;
    bool sum; /* of [sum_start, sum_end), into sum_at; sum_end 0: to the frame's end */
    uint32_t sum_start, sum_end, sum_at;
    uint32_t mss; /* segment a TCP packet; 0: do not */
};

/**
 * Set a card up (zeroed before); then add BARs to nic->pci and attach it.
 *
 * @param device_ops  of the card
 */
int mull_nic_init(struct mull_nic *nic, const struct mull_device_env *env,
                  const struct mull_nic_config *cfg, const struct mull_device_ops *device_ops,
                  const struct mull_nic_ops *ops, struct mull_error *err);

/** Put it on the bus and connect the back end; the last step. */
int mull_nic_attach(struct mull_nic *nic, struct mull_pci_bus *bus,
                    const struct mull_nic_config *cfg, struct mull_error *err);

/** Free what the above made, not the struct itself. */
void mull_nic_fini(struct mull_nic *nic);

/** Have ops->work called soon. Any thread, locked. */
void mull_nic_post(struct mull_nic *nic);

/** There is room for received frames again. Loop's thread, not locked; or use mull_nic_refilled()
 *  from elsewhere. */
void mull_nic_refilled(struct mull_nic *nic);

/**
 * Send the frame in nic->out + MULL_NET_HDR_SIZE. Loop's thread, locked.
 *
 * @return false: the back end is full; ops->work is called when it is not, to send the same again
 */
bool mull_nic_send(struct mull_nic *nic, uint32_t len, const struct mull_nic_offload *offload);

/** A burst of sends has ended. Loop's thread, locked. */
void mull_nic_flush(struct mull_nic *nic);

/** May received frames be TCP segments put together (LRO)? Loop's thread, locked. */
void mull_nic_set_lro(struct mull_nic *nic, bool on);

/** The parts of a card's reset, quiesce and resume that are the same for all. Not locked. */
void mull_nic_quiesce(struct mull_device *device);
void mull_nic_resume(struct mull_device *device);

#endif
