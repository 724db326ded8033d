/*
 * Images that this host gets by a name alone: from its image server, or built of packages, by
 * recipes: programs that lie beside mullion-vmm, in mullion/images (src/host/images/ says how they
 * are called).
 */
#ifndef MULL_HOST_BUILDER_H
#define MULL_HOST_BUILDER_H

#include "host/host.h"

/** Fetch or build an image in a task. Lock held. @return the task's document, borrowed; NULL with
 * @p */
json_t *image_build(struct host *host, const char *user, const char *name, struct host_problem *p);

/** Remove what a build left that a crash has ended. Lock held. */
void builder_recover(struct host *host);

#endif
