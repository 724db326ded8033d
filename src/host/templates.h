/*
 * Templates: a machine's description with copies of its disks, without what makes it one machine
 * (its name, UUID, MAC addresses, TPM), to make others from. A row says `creating` until its files
 * are there and `deleting` until they are gone, as a machine's does. Lock held, but where it is
 * said.
 */
#ifndef MULL_HOST_TEMPLATES_H
#define MULL_HOST_TEMPLATES_H

#include "host/auth.h"
#include "host/machines.h"

/** By id or name; NULL: none, or one that @who may not see. Borrowed. */
json_t *template_find(struct host *host, const struct principal *who, const char *name);
json_t *template_render(struct host *host, json_t *doc, bool full);

/** Each begins a task: its document, borrowed, or NULL with @p. */
json_t *template_create(struct host *host, const struct principal *who, json_t *body,
                        struct host_problem *p);
json_t *template_delete(struct host *host, const struct principal *who, json_t *doc,
                        struct host_problem *p);

/** What a machine of a template begins with: its description into @config, its disks into @plan
 *  ({clone, format, stem, linked} each, in the order of config's disks). */
int template_begin(struct host *host, json_t *doc, bool linked, json_t *config, json_t *plan,
                   struct host_problem *p);

/** Its folder, malloc'ed; NULL: not known. */
char *template_folder(struct host *host, const json_t *doc);

/** Make rows and files agree, at the start. */
void templates_recover(struct host *host);

#endif
