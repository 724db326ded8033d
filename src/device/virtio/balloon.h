/*
 * What a machine's owner does with the balloon (virtio 1.2, 5.5): how much memory the guest shall
 * keep, and what the guest says of its memory.
 */
#ifndef MULL_DEVICE_VIRTIO_BALLOON_H
#define MULL_DEVICE_VIRTIO_BALLOON_H

#include <stdbool.h>
#include <stdint.h>

#include "platform/device.h"

/** The guest's own numbers (5.5.6.3), by their tags; MULL_BALLOON_UNKNOWN: not told. */
#define MULL_BALLOON_STATS 16
#define MULL_BALLOON_UNKNOWN UINT64_MAX

struct mull_balloon_info {
    bool driver;       /* the guest has a driver, and it runs */
    uint64_t target;   /* bytes that the guest shall give back ... */
    uint64_t actual;   /* ... and those it has */
    uint64_t reported; /* bytes of free pages given back besides, since power-on: adds up */
    uint64_t hinted;   /* bytes that mull_balloon_end_hints() has given back: adds up */
    bool asked;        /* mull_balloon_ask_hints() has not been ended */
    bool fresh;        /* the numbers below have come since mull_balloon_refresh() */
    uint64_t stats[MULL_BALLOON_STATS]; /* bytes, but for counts of events */
};

/** Names of the guest's numbers, by tag. */
extern const char *const mull_balloon_stat_names[MULL_BALLOON_STATS];

/** Let the guest give back @bytes (whole pages; more than it has: as much as it can). Any thread.
 */
void mull_balloon_set(struct mull_device *balloon, uint64_t bytes);

/** Ask the guest for its numbers anew. Any thread. */
void mull_balloon_refresh(struct mull_device *balloon);

/**
 * Ask the guest for hints which pages are free (5.5.6.7): cfg->hinted is called when it has told
 * all. Dirty tracking runs from now to the end. No vCPU runs.
 *
 * @return 0, -ENOTSUP: it has no driver for that; -EBUSY: it was asked already; -ENOMEM
 */
int mull_balloon_ask_hints(struct mull_device *balloon, struct mull_error *err);

/** Give back to the host what is still free of it, and let the guest use it again. No vCPU runs,
 * all devices are quiet. */
void mull_balloon_end_hints(struct mull_device *balloon);

void mull_balloon_info(struct mull_device *balloon, struct mull_balloon_info *out);

#endif
