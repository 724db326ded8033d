/*
 * The host as a whole: finding its places, opening and closing everything in the right order.
 */
#ifndef MULL_HOST_DAEMON_H
#define MULL_HOST_DAEMON_H

#include "host/host.h"

/** Where things are for this user, or for the service. What @data, @runtime and @config say (NULL:
 *  nothing) comes first. */
int host_places_find(struct host_places *places, bool system, const char *data, const char *runtime,
                     const char *config, struct mull_error *err);
void host_places_free(struct host_places *places);

/** Read the configuration's file; what it does not say has its default. */
int host_options_read(struct host_options *options, const struct host_places *places,
                      struct mull_error *err);
void host_options_free(struct host_options *options);

/** Open the inventory, undo and finish what a crash interrupted, adopt what runs. @host has places,
 *  options and log. -EBUSY: another daemon has this data. */
int host_open(struct host *host, struct mull_error *err);
/** Lock not held; the loop does not run any more. Machines that run go on. */
void host_close(struct host *host);

#endif
