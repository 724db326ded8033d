/*
 * Which host a command means: --host, --context, $MULLION_HOST, $MULLION_CONTEXT, the current
 * context, else this machine's own. Contexts are kept in a file of the user's with mode 0600,
 * because they hold tokens.
 */
#ifndef MULL_CLI_API_PLACE_H
#define MULL_CLI_API_PLACE_H

#include "cli/api/api.h"

struct host_place;

/** @param host, context  what the options say, or NULL. @param out  host_place_free() */
int host_place_find(const char *host, const char *context, struct host_place **out,
                    struct mull_error *err);

/** Valid as long as the place is. */
const struct api_target *host_place_target(const struct host_place *place);

void host_place_free(struct host_place *place);

/** The path of this user's own host's socket, or of the system's where there is none. @return
 *  malloc'ed, NULL: no memory */
char *host_place_socket(void);

/** Does a host run here, or is one named in the environment? */
bool host_place_here(void);

/** {"current": NAME or null, "contexts": {NAME: {url, pin, token}}}; empty where there is no file.
 */
json_t *host_contexts_read(struct mull_error *err);

/** Replace the file as a whole. */
int host_contexts_write(json_t *contexts, struct mull_error *err);

#endif
