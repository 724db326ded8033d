/*
 * Where files are: datastores (folders), images and ISOs in them. Lock held.
 */
#ifndef MULL_HOST_STORES_H
#define MULL_HOST_STORES_H

#include "host/auth.h"
#include "host/host.h"
#include "host/tasks.h"

/** Make the default datastore and network where there are none. */
int stores_open(struct host *host, struct mull_error *err);
/** Remove what unfinished imports have left. */
void stores_recover(struct host *host);

/** By id or name; NULL: the default one. Borrowed. */
json_t *datastore_find(struct host *host, const char *name);
json_t *datastore_render(struct host *host, json_t *doc);
json_t *datastore_create(struct host *host, const char *name, const char *path,
                         struct host_problem *p);
int datastore_change(struct host *host, json_t *doc, json_t *body, struct host_problem *p);
int datastore_delete(struct host *host, json_t *doc, struct host_problem *p);

/** A folder's entries as callers see them, or a file's path with @file set (malloc'ed).
 *  @param inside  a relative path from a stranger */
json_t *datastore_files(struct host *host, json_t *doc, const char *inside, struct host_problem *p);
char *datastore_file(struct host *host, json_t *doc, const char *inside, struct host_problem *p);
int datastore_delete_file(struct host *host, json_t *doc, const char *inside,
                          struct host_problem *p);

/** An image's file, malloc'ed. */
char *image_path(struct host *host, json_t *doc);
/** Move a file into the images of its datastore and write its row. */
int image_adopt(struct host *host, const char *name, const char *kind, const char *from,
                const char *datastore, const char *os, struct host_problem *p);
int image_delete(struct host *host, json_t *doc, struct host_problem *p);

#endif
