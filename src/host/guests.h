/*
 * What goes on inside running guests, by their agents (agent.h): commands, files, addresses. A
 * thread asks now and then which addresses they have.
 */
#ifndef MULL_HOST_GUESTS_H
#define MULL_HOST_GUESTS_H

#include "host/host.h"
#include "host/vix_wire.h"

#define GUESTS_FILE_MAX (64u << 20) /* bytes of a file to or from a guest */

int guests_open(struct host *host, struct mull_error *err);
void guests_close(struct host *host);

/* Lock not held; they block. Two guests at a time are spoken to for callers: -1 with @p where more
 * ask. @user is one of the guest's, whom open-vm-tools ask for; NULL: qemu-guest-agent, which asks
 * for none. */

/** Run a command in a guest. @param body  {command: [..], stdin, timeout}. @param out  {status,
 * stdout, stderr}; bytes that are no UTF-8 become U+FFFD */
int guest_exec(struct host *host, const char *id, const struct vix_user *user, const json_t *body,
               json_t **out, struct host_problem *p);

/** A guest's file. @param fd  a new descriptor of its bytes, at their start */
int guest_read_file(struct host *host, const char *id, const struct vix_user *user,
                    const char *path, int *fd, struct host_problem *p);

/** Write a guest's file. @param data  @length bytes, GUESTS_FILE_MAX at most */
int guest_write_file(struct host *host, const char *id, const struct vix_user *user,
                     const char *path, const void *data, size_t length, struct host_problem *p);

/** Ask a guest's agent to shut it down; its power button is another way. @return 0: it was asked */
int guest_shutdown(struct host *host, const char *id);

#endif
