/*
 * A virtqueue, split or packed (virtio 1.2, 2.7 and 2.8), from the device's side: take descriptor
 * chains, give them back. Every field of the guest's rings is read once and bounded before use; a
 * ring that breaks the rules stops its whole device until the driver resets it. Knows rings,
 * neither transports nor what a chain is for.
 */
#ifndef MULL_DEVICE_VIRTIO_VIRTQUEUE_H
#define MULL_DEVICE_VIRTIO_VIRTQUEUE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/fields.h"
#include "memory/memory.h"

#define MULL_VIRTQUEUE_MAX_SIZE 1024
/** The longest chain: a direct one has at most queue-size descriptors; tables of Linux may have
 *  more than that. */
#define MULL_VIRTQUEUE_MAX_CHAIN 1024

struct mull_virtio;

/** A chain of a packed ring that the device has: what giving it back takes. */
struct mull_packed_chain {
    uint16_t id, count; /* the driver's number for it, and its descriptors in the ring */
};

struct mull_virtqueue {
    struct mull_virtio *device;
    uint16_t max_size; /* what the device offers */
    bool in_place;     /* a kick is handled by the vCPU that makes it: see mull_virtio_notified() */

    /* Set by the driver. */
    uint16_t size;
    uint16_t vector;
    bool enabled;
    bool resetting; /* queue_reset was written; chains are still in flight */
    uint64_t desc, avail, used;

    /* Progress. */
    uint16_t next_avail;     /* the next entry of the available ring to look at */
    uint16_t next_used;      /* the next entry of the used ring to fill */
    uint16_t signalled_used; /* next_used when we last thought of an interrupt */
    bool signalled_valid;
    bool pushed; /* chains were given back since we last thought of an interrupt */

    /* Chains that may yet be taken in this turn: a driver that never stops must not keep the loop
     * from everything else. Not saved. */
    uint32_t budget;
    bool exhausted;

    /* A packed ring (virtqueue_packed.c): next_avail and next_used are places in it. */
    bool packed;
    bool avail_wrap, used_wrap; /* the wrap counters that belong to them */
    uint16_t first_flags;       /* of a chain that is filled in and not published */
    uint32_t filled;            /* descriptors of the chains that are filled in */
    /* Chains that the device has, by mull_chain.head, and which of these are free: a stack. Not
     * saved. */
    uint16_t nidle;
    uint16_t idle[MULL_VIRTQUEUE_MAX_SIZE];
    struct mull_packed_chain chains[MULL_VIRTQUEUE_MAX_SIZE];

    uint32_t in_flight; /* chains taken and not given back; not saved: a quiet device has none */
};

extern const struct mull_state_desc mull_virtqueue_desc;

struct mull_segment {
    uint64_t gpa;
    uint32_t len;
};

/** A descriptor chain: what the device reads, then what it writes. `head` is the device's handle of
 * it, below the queue's size, and its own while the device has the chain. */
struct mull_chain {
    struct mull_virtqueue *queue;
    uint16_t head;
    uint16_t nout, nin;       /* segments to read, then to write */
    uint32_t out_len, in_len; /* their bytes; together below 4 GiB (2.7.5) */
    struct mull_segment segments[MULL_VIRTQUEUE_MAX_CHAIN];
};

/* All functions: the device's lock is held. */

/** Take the next chain. @return 1: it is in *chain; 0: none is there, or the device is broken or
 *  its queue not running. Each chain taken must be given back. */
int mull_virtqueue_pop(struct mull_virtqueue *queue, struct mull_chain *chain);

/** Give a chain back without a trace, as if it had not been taken: only the last one taken. */
void mull_virtqueue_unpop(struct mull_virtqueue *queue);

/** Give a chain back. @param written  bytes the device wrote. Tells the driver nothing yet. A
 *  queue that was stopped meanwhile only counts it. */
void mull_virtqueue_push(struct mull_virtqueue *queue, uint16_t head, uint32_t written);

/** Several chains that the driver must see all at once (5.1.6.4): put each into the used ring as
 *  number @index from 0 on, then publish all @count of them. */
void mull_virtqueue_fill(struct mull_virtqueue *queue, unsigned index, uint16_t head,
                         uint32_t written);
void mull_virtqueue_publish(struct mull_virtqueue *queue, unsigned count);

/** After a burst of pushes: interrupt the driver if it wants to hear of them. */
void mull_virtqueue_signal(struct mull_virtqueue *queue);

/** The driver need not kick: we are looking. */
void mull_virtqueue_quiet(struct mull_virtqueue *queue);

/** The driver must kick from now on. @return true: more chains came meanwhile, look again */
bool mull_virtqueue_listen(struct mull_virtqueue *queue);

/** The same where the driver has offered @seen chains that are not enough: is there one more? */
bool mull_virtqueue_listen_beyond(struct mull_virtqueue *queue, unsigned seen);

/** May the queue be used: enabled by a running driver, not broken? */
bool mull_virtqueue_live(const struct mull_virtqueue *queue);

/** Validate what the driver set, and enable. @return false: it breaks the rules */
bool mull_virtqueue_enable(struct mull_virtqueue *queue);

/** Back to the state before the driver touched it. */
void mull_virtqueue_clear(struct mull_virtqueue *queue);

/* ---- The bytes of a chain ---- */

/** Copy from the readable part at @offset. @return 0, or -EFAULT: not that many bytes, or not in
 *  RAM */
int mull_chain_read(const struct mull_chain *chain, uint64_t offset, void *buf, uint64_t len);

/** Copy into the writable part at @offset. */
int mull_chain_write(const struct mull_chain *chain, uint64_t offset, const void *buf,
                     uint64_t len);

/**
 * Vectors over a part of the chain, for bulk transfers (see mull_mem_iov).
 *
 * @param in  the writable part; else the readable one
 * @return how many vectors, -EFAULT or -E2BIG
 */
int mull_chain_iov(const struct mull_chain *chain, bool in, uint64_t offset, uint64_t len,
                   struct iovec *iov, int max);

/** Bytes of the writable part were filled through vectors. */
void mull_chain_wrote(const struct mull_chain *chain, uint64_t offset, uint64_t len);

#endif
