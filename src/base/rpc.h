/*
 * A client of JSON-RPC 2.0 over a Unix stream socket, one message a line (docs/configuration.md,
 * "The control channel"). The peer may be under attack by its guest: its answers are bounded, and
 * waiting for them is, too. One thread at a time.
 */
#ifndef MULL_BASE_RPC_H
#define MULL_BASE_RPC_H

#include <jansson.h>

#include "base/error.h"

#define MULL_RPC_LINE_MAX (1u << 20)
#define MULL_RPC_FDS_MAX 16

struct mull_rpc {
    int fd;
    int id;
    char *line; /* what has come of an answer */
    size_t have;
};

/** Connect. @param timeout_s  that any call waits for the peer. @return 0 or a negative errno */
int mull_rpc_open(struct mull_rpc *rpc, const char *path, unsigned timeout_s,
                  struct mull_error *err);
void mull_rpc_close(struct mull_rpc *rpc);

/** Call a method.
 *  @param params  taken; NULL: none
 *  @param result  to be released; NULL: not wanted
 *  @return 0, or a negative errno: -EIO where the peer does not answer, -EPROTO where the method
 *  failed, with its message in @err */
int mull_rpc_call(struct mull_rpc *rpc, const char *method, json_t *params, json_t **result,
                  struct mull_error *err);

/** The same, with descriptors handed over; they stay the caller's, too. */
int mull_rpc_call_handing(struct mull_rpc *rpc, const char *method, json_t *params,
                          const int *fds, unsigned count, json_t **result,
                          struct mull_error *err);

#endif
