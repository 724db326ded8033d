/*
 * Statistics: a sample every 20 s, kept for an hour, and its means over five minutes for a day, two
 * hours for a month, a day for a year. A thread of its own measures.
 */
#ifndef MULL_HOST_STATS_H
#define MULL_HOST_STATS_H

#include "host/host.h"

int stats_open(struct host *host, struct mull_error *err);
void stats_close(struct host *host);

/** @param object  "host" or a machine's id. @param range  "hour", "day", "month", "year". Lock
 *  held. @return a new object, or NULL: no such range */
json_t *stats_read(struct host *host, const char *object, const char *range);
/** Forget a machine's. Lock held. */
void stats_forget(struct host *host, const char *object);

/** The host's memory, load and processors: {memory: {total, used, machines}, load, ...}. */
void stats_memory(uint64_t *total, uint64_t *used);
/** Metrics in Prometheus's text format, malloc'ed. Lock held. */
char *stats_prometheus(struct host *host);

#endif
