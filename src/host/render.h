/*
 * Objects as callers see them: the stored document without what is nobody else's business, and with
 * what is only known now. Lock held.
 */
#ifndef MULL_HOST_RENDER_H
#define MULL_HOST_RENDER_H

#include "host/host.h"

/** @param full  all of it, not the summary that lists hold. @return a new reference */
json_t *host_render(struct host *host, enum host_kind kind, json_t *doc, bool full);

#endif
