/*
 * Keeps what the inventory says of shares, reservations and limits true while machines run: every
 * two seconds, and whenever something changes, a thread asks each machine's process what it takes,
 * divides what there is (shares.h) and tells each what it may take from now on.
 */
#ifndef MULL_HOST_BALANCE_H
#define MULL_HOST_BALANCE_H

#include "host/supervisor.h"

int balance_open(struct host *host, struct mull_error *err);
void balance_close(struct host *host);

/** Do it now: something has changed. Lock held. */
void balance_now(struct host *host);

/** In a unit's control process, after the daemon's end: give back what it has divided.
 *  @return 0, also where there is nothing to do; or a negative errno */
int balance_release(struct mull_error *err);

/** A machine's process has just been started, and nothing by it yet. Lock held. */
void balance_started(struct vm *vm);
/** A machine's process has gone. Lock held. */
void balance_ended(struct vm *vm);

/** What a running machine may take now, as callers see it: {cpu, memory, disk, network}, null where
 *  there is no limit; null: it does not run. A new reference. Lock held. */
json_t *balance_granted(const struct vm *vm);

/** Set each machine's memory target (reclaim.c). Lock held. @return whether memory is short */
bool reclaim_divide(struct host *host);

#endif
