/*
 * Guest operations of open-vm-tools (VIX): commands and files in a guest, as one of its users.
 * Knows how they follow each other (vix_wire.h: their bytes), not how a message reaches the guest.
 * The guest is an adversary: every answer is bounded in size and time. Blocks; one thread a
 * session.
 */
#ifndef MULL_HOST_VIX_H
#define MULL_HOST_VIX_H

#include <jansson.h>

#include "base/error.h"
#include "host/agent.h"
#include "host/vix_wire.h"

/** How a message reaches the guest. */
struct vix_channel {
    /** Send @message and wait for what the guest answers. @param answer  room for VIX_MESSAGE_MAX
     *  @return 0 or a negative errno */
    int (*call)(void *opaque, const void *message, size_t size, int timeout_ms, void *answer,
                size_t *answer_size, struct mull_error *err);
    void *opaque;
};

struct vix;

/** Begin a session: the guest is asked whether it knows the user.
 *  @param user  copied; the copy is wiped by vix_close()
 *  @return 0; -EACCES: it does not, or the password is wrong; -ENOSYS: no guest operations there;
 *  or another -errno */
int vix_open(const struct vix_channel *channel, const struct vix_user *user, struct vix **out,
             struct mull_error *err);

/** NULL is allowed. */
void vix_close(struct vix *vix);

/** Run a command with the guest's /bin/sh and wait for it. @param command  an array of strings.
 *  @param input  for its standard input, or NULL. @return 0; -ETIMEDOUT: it was ended; -errno */
int vix_exec(struct vix *vix, const json_t *command, const void *input, size_t input_length,
             int timeout_ms, struct host_agent_result *out, struct mull_error *err);

/** A file of the guest, piece by piece. @param piece  returns 0 to go on */
int vix_read_file(struct vix *vix, const char *path,
                  int (*piece)(void *opaque, const void *data, size_t length), void *opaque,
                  struct mull_error *err);

/** Make or replace a file of the guest. */
int vix_write_file(struct vix *vix, const char *path, const void *data, size_t length,
                   struct mull_error *err);

#endif
