/*
 * A token bucket: how much of something may pass in a time, on average and at once. Arithmetic
 * alone: whoever asks says what time it is. Knows neither requests nor timers.
 */
#ifndef MULL_BASE_BUCKET_H
#define MULL_BASE_BUCKET_H

#include <stdint.h>

/** Zeroed: without a limit. */
struct mull_bucket {
    uint64_t rate;  /* units a second; 0: no limit */
    uint64_t burst; /* ns: so much of the rate may be taken ahead */
    uint64_t due;   /* when all that was taken has been paid for */
    uint64_t part;  /* and how much later, in 1/rate ns */
};

/** Another rate. What was taken before is paid for at the new one. @param burst  ns */
void mull_bucket_set(struct mull_bucket *b, uint64_t rate, uint64_t burst, uint64_t now);

/** When something may be taken. @return 0: now; else the time, ns */
uint64_t mull_bucket_ready(const struct mull_bucket *b, uint64_t now);

/** Take @units, as much as it may be: what is too much delays those who come after. */
void mull_bucket_take(struct mull_bucket *b, uint64_t units, uint64_t now);

#endif
