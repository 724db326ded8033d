/*
 * The agent inside a guest, by the protocol of qemu-guest-agent (QEMU, "QEMU Guest Agent Protocol
 * Reference") over the socket of its channel. The guest is an adversary: every answer is bounded in
 * size and time. Blocks; one thread a connection.
 */
#ifndef MULL_HOST_AGENT_H
#define MULL_HOST_AGENT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

#define HOST_AGENT_CHANNEL "org.qemu.guest_agent.0"

struct host_agent;

/**
 * Connect and synchronize with the agent.
 *
 * @param path        the channel's Unix socket
 * @param timeout_ms  how long an agent that is there may take to answer
 * @return 0; -ETIMEDOUT: nobody answers (no agent runs); -ENOENT, -ECONNREFUSED: no such channel
 */
int host_agent_open(const char *path, int timeout_ms, struct host_agent **out,
                    struct mull_error *err);

/** NULL is allowed. */
void host_agent_close(struct host_agent *agent);

/** One command. @param arguments  taken, or NULL. @return its "return", a new reference; NULL: @err
 */
json_t *host_agent_call(struct host_agent *agent, const char *command, json_t *arguments,
                        int timeout_ms, struct mull_error *err);

/** What a command in the guest has done. Outputs may hold any bytes; malloc'ed, with a 0 behind. */
struct host_agent_result {
    int status; /* its exit status, or 128 + the signal that ended it */
    char *output, *errors;
    size_t output_length, errors_length;
    bool truncated; /* there was more than the agent keeps */
};

/** Run a command and wait for it. @param command  an array of strings, the first a path or a name.
 *  @param input  for its standard input, or NULL. @return 0, or -ETIMEDOUT: it goes on in the guest
 */
int host_agent_exec(struct host_agent *agent, const json_t *command, const void *input,
                    size_t input_length, int timeout_ms, struct host_agent_result *out,
                    struct mull_error *err);
void host_agent_result_free(struct host_agent_result *result);

/** A file of the guest, piece by piece. @param piece  returns 0 to go on */
int host_agent_read_file(struct host_agent *agent, const char *path,
                         int (*piece)(void *opaque, const void *data, size_t length), void *opaque,
                         struct mull_error *err);

/** Make or replace a file of the guest. */
int host_agent_write_file(struct host_agent *agent, const char *path, const void *data,
                          size_t length, struct mull_error *err);

/** The guest's addresses, without those of its loopback. @return an array of strings, or NULL */
json_t *host_agent_addresses(struct host_agent *agent, struct mull_error *err);

/** Ask for a power-off or a reboot. The agent of a guest that does it may not answer: that is
 * success. */
int host_agent_shutdown(struct host_agent *agent, bool reboot, struct mull_error *err);

#endif
