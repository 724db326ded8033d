/*
 * What the parts of VMXNET3 share: vmxnet3.c (registers, commands, state) and vmxnet3_rings.c
 * (frames).
 */
#ifndef MULL_DEVICE_NET_VMXNET3_INTERNAL_H
#define MULL_DEVICE_NET_VMXNET3_INTERNAL_H

#include "device/net/nic.h"

#define VMXNET3_TX_QUEUES 8
#define VMXNET3_RX_QUEUES 16
#define VMXNET3_INTRS 25
#define VMXNET3_MULTICAST 256
#define VMXNET3_RING_MAX 4096
#define VMXNET3_DONE_MAX 8192
#define VMXNET3_STATS 10

#define VMXNET3_EVENT_RQERR 1u
#define VMXNET3_EVENT_TQERR 2u
#define VMXNET3_EVENT_LINK 4u

/** A ring of 16-byte descriptors; an entry is the device's (or, of completions, the driver's)
 *  while its generation bit is @gen, which turns over with the ring. */
struct vmxnet3_ring {
    uint64_t base;
    uint32_t size;
    uint32_t next;
    uint8_t gen;
};

struct vmxnet3_tx {
    struct vmxnet3_ring ring, done;
    uint8_t intr;
    bool stopped; /* after nonsense, until the driver resets */
};

struct vmxnet3_rx {
    struct vmxnet3_ring ring[2], done;
    uint8_t intr;
    bool stopped;
    bool told;  /* something was put into the ring in this burst */
    bool asked; /* the driver is to tell when it has refilled */
};

struct vmxnet3 {
    struct mull_nic nic; /* must be first */
    uint64_t area;       /* the shared area */
    uint64_t queues;     /* the table of queues */
    uint32_t answer;     /* what the command register reads */
    uint32_t events, features, rx_mode;
    uint16_t max_sg;
    uint8_t revision; /* 1 or 2 (as the register has it) */
    uint8_t ntx, nrx, event_intr;
    bool active, automask, line;
    bool multicast_overflow; /* more addresses than we keep: take all */
    bool offloads_due;       /* the back end is to hear of new features */
    uint32_t kicks;          /* bit n: transmit queue n */
    uint8_t mac[6];
    uint8_t masked[VMXNET3_INTRS], pending[VMXNET3_INTRS];
    uint16_t nmulticast;
    uint8_t multicast[VMXNET3_MULTICAST][6];
    uint32_t vlans[128];
    struct vmxnet3_tx tx[VMXNET3_TX_QUEUES];
    struct vmxnet3_rx rx[VMXNET3_RX_QUEUES];
    uint64_t tx_stats[VMXNET3_TX_QUEUES][VMXNET3_STATS];
    uint64_t rx_stats[VMXNET3_RX_QUEUES][VMXNET3_STATS];
};

/* All of these: locked. */

/** Send interrupt @index, or keep it until it is unmasked. */
void vmxnet3_interrupt(struct vmxnet3 *v, unsigned index);

/** The driver broke the rules: a queue stopped. */
void vmxnet3_queue_failed(struct vmxnet3 *v, bool tx, unsigned index);

/* vmxnet3_rings.c */

/** Are sizes, positions and interrupts possible? */
bool vmxnet3_tx_valid(const struct vmxnet3_tx *q);
bool vmxnet3_rx_valid(const struct vmxnet3_rx *q);

/** Send what is in a transmit ring. Loop's thread. */
void vmxnet3_transmit(struct vmxnet3 *v, unsigned index);

/** See struct mull_nic_ops. */
bool vmxnet3_receive(struct mull_nic *nic, const struct mull_nic_frame *frame);
void vmxnet3_received(struct mull_nic *nic);

#endif
