/*
 * Who gets how much: a tree of pools with machines in them, each with shares, a reservation and a
 * limit, and the arithmetic of dividing what there is among them and of promising no more than
 * that. Pure: knows no machine, no clock and no unit.
 */
#ifndef MULL_HOST_SHARES_H
#define MULL_HOST_SHARES_H

#include <stdbool.h>
#include <stdint.h>

#define SHARES_NONE UINT64_MAX        /* no limit */
#define SHARES_MOST (1ull << 50)      /* other amounts are at most this */
#define SHARES_WEIGHT_MOST (1u << 24) /* and shares that */

/** A pool or a machine. In an array parents come before their children. */
struct share {
    int parent; /* its index; -1: the host */
    bool pool;
    uint32_t weight;      /* shares, 1 to SHARES_WEIGHT_MOST */
    uint64_t reservation; /* it gets this, if it can use it */
    uint64_t limit;       /* and never more than that; or SHARES_NONE */
    uint64_t demand;      /* machines: what it would take now */
    bool expandable;      /* pools: what its children reserve may come from its parent, too */
    bool claims;          /* machines: its reservation is to be kept: it runs */
    /* what is found: */
    uint64_t granted;           /* by shares_divide() */
    uint64_t used;              /* of pools, by shares_claim(): what is reserved in it */
    uint64_t claimed;           /* by shares_claim(): what it takes of its parent's */
    uint64_t want, least, most; /* scratch */
};

/**
 * Divide. Everybody gets its reservation if it demands as much, nobody more than its limit; what
 * there is beyond that goes by shares to those who demand it.
 *
 * @param capacity  what there is; SHARES_NONE: no end of it
 * @param all       what nobody demands is granted, too, by shares and up to the limits: for limits
 *                  that are to hold until somebody looks again
 */
void shares_divide(struct share *s, unsigned count, uint64_t capacity, bool all);

/** Add up what is reserved. @return what the host's children claim together */
uint64_t shares_claim(struct share *s, unsigned count);

#define SHARES_HOST (-1)
#define SHARES_FITS (-2)

/** After shares_claim(): may @node claim what it does? @return SHARES_FITS; else the pool above it
 * (or it itself, or SHARES_HOST) that has not so much */
int shares_admit(const struct share *s, unsigned count, unsigned node, uint64_t capacity);

#endif
