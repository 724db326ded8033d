/*
 * What has happened (events) and who did what (audit). Events are told to listeners at once and
 * written within a second, or together with the next change of an object. Lock held everywhere.
 */
#ifndef MULL_HOST_EVENTS_H
#define MULL_HOST_EVENTS_H

#include "host/host.h"

#define EVENTS_KEPT 20000
#define AUDIT_KEPT 50000

int events_open(struct host *host, struct mull_error *err);
void events_close(struct host *host);

/** Something happened. @param object "KIND:ID" or NULL. @param data  taken; may be NULL */
void host_event(struct host *host, const char *type, const char *object, const char *name,
                const char *user, const char *severity, json_t *data, const char *fmt, ...)
    __attribute__((format(printf, 8, 9)));

/** An object is new or other than before: listeners get its summary; nothing is written. */
void host_changed(struct host *host, enum host_kind kind, const char *id);

/** What a listener is told first: from here on it hears everything. A new reference. */
json_t *events_greeting(struct host *host);

/** Who gets each event (borrowed) as it happens; one listener. */
void events_listen(struct host *host, void (*fn)(void *opaque, json_t *event), void *opaque);

/** A request that changed something, or was refused. */
void host_audit(struct host *host, const char *user, const char *address, const char *method,
                const char *path, int status);

/** Write what is not written yet. */
void events_flush(struct host *host);

struct events_filter {
    uint64_t after, before; /* ids; 0: none */
    bool ascending;
    unsigned limit;
    const char *q;                        /* part of an event's text, of a request's path */
    const char *type, *object, *severity; /* events */
    const char *user, *path, *method;     /* audit */
};

/** Pages of events and of the audit log: a new array of at most limit + 1. */
json_t *events_list(struct host *host, const struct events_filter *filter);
json_t *audit_list(struct host *host, const struct events_filter *filter);
/** How many there are in all, whatever the limit. */
uint64_t events_count(struct host *host, bool audit, const struct events_filter *filter);

#endif
