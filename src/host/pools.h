/*
 * Resource pools in the inventory: a tree, with machines in it. Lock held everywhere.
 */
#ifndef MULL_HOST_POOLS_H
#define MULL_HOST_POOLS_H

#include "host/host.h"

/** As callers see it; a new reference. */
json_t *pool_render(struct host *host, json_t *doc);

/** By id or name; borrowed, or NULL. */
json_t *pool_find(struct host *host, const char *name);

/** @return the document, borrowed; NULL with @p */
json_t *pool_create(struct host *host, json_t *body, struct host_problem *p);
int pool_change(struct host *host, json_t *doc, json_t *body, struct host_problem *p);
int pool_delete(struct host *host, json_t *doc, struct host_problem *p);

/** Is @inner the pool @id, or below it? */
bool pool_holds(struct host *host, const char *id, const char *inner);

#endif
