/*
 * A client of a machine's control socket, found by the machine's name or the socket's path.
 */
#ifndef MULL_CLI_CLIENT_H
#define MULL_CLI_CLIENT_H

#include <jansson.h>
#include <stdbool.h>

#include "base/rpc.h"

struct client {
    struct mull_rpc rpc;
};

/** @param machine  a name, a PID of `mullion run`, or a path (with a slash). Says itself what is
 *  wrong. @return -1: connected; else the exit status */
int client_connect(struct client *c, const char *machine);

/** Does a machine of `mullion run` have this name, PID or path? Silent. */
bool client_knows(const char *machine);

/** Connect to one socket, silently. @return false: nobody listens there */
bool client_open(struct client *c, const char *path);

/** Call a method without parameters and wait for its result, 10 s at most. Says itself what is
 *  wrong. @return the result, to be released; NULL: none */
json_t *client_call(struct client *c, const char *method);

/** The same with parameters, an object; takes the reference. */
json_t *client_call_with(struct client *c, const char *method, json_t *params);

#define CLIENT_FDS_MAX MULL_RPC_FDS_MAX

/** The same with descriptors, which stay the caller's. */
json_t *client_call_handing(struct client *c, const char *method, json_t *params, const int *fds,
                            unsigned count);

void client_close(struct client *c);

#endif
