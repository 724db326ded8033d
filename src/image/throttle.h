/*
 * How fast the disks of one machine may be, together: bytes and requests a second, of reads, writes
 * and both. Requests that come too early wait here, in their order. Knows requests, neither formats
 * nor who makes them. Everything runs in the loop's thread.
 */
#ifndef MULL_IMAGE_THROTTLE_H
#define MULL_IMAGE_THROTTLE_H

#include "image/block.h"

/** What can be limited. */
enum mull_throttle_limit {
    MULL_THROTTLE_BYTES,
    MULL_THROTTLE_READ_BYTES,
    MULL_THROTTLE_WRITE_BYTES,
    MULL_THROTTLE_OPS,
    MULL_THROTTLE_READ_OPS,
    MULL_THROTTLE_WRITE_OPS,
    MULL_THROTTLE_LIMITS,
};

/** So much may be done ahead: bursts are bounded by it and by one request. */
#define MULL_THROTTLE_BURST_NS 100000000ull

struct mull_throttle;

/** One disk's part in it; the block's own, zeroed before mull_throttle_join(). */
struct mull_throttle_member {
    struct mull_throttle *throttle; /* NULL: none */
    struct mull_block *block;
    void (*submit)(struct mull_block *block, struct mull_block_request *request);
    struct mull_block_request *waiting[2], **tail[2]; /* reads, writes */
    uint64_t waited;                                  /* requests that had to wait */
    struct mull_throttle_member *next;
};

/** @param out  owned by the caller. Without limits at first. */
int mull_throttle_create(struct mull_loop *loop, struct mull_throttle **out,
                         struct mull_error *err);

/** No member is left. NULL is allowed. */
void mull_throttle_destroy(struct mull_throttle *throttle);

/** Units a second, by enum mull_throttle_limit; 0: no limit. For what waits already, too. */
void mull_throttle_set(struct mull_throttle *throttle, const uint64_t rate[MULL_THROTTLE_LIMITS]);

/** Join with block, submit and throttle filled in; submit() starts a request whose time has come.
 */
void mull_throttle_join(struct mull_throttle_member *member);

/** Leave; nothing waits. Without a throttle: nothing happens. */
void mull_throttle_leave(struct mull_throttle_member *member);

/** May it start now? @return false: it waits, and submit() is called for it later */
bool mull_throttle_pass(struct mull_throttle_member *member, struct mull_block_request *request);

/** Start all that waits at once; what comes later pays for it. */
void mull_throttle_release(struct mull_throttle_member *member);

#endif
