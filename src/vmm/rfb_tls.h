/*
 * TLS for the display server (VeNCrypt): credentials, and sessions over sockets that do not wait.
 */
#ifndef MULL_VMM_RFB_TLS_H
#define MULL_VMM_RFB_TLS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

struct rfb_credentials;
struct rfb_channel;

/** @param directory  with server-cert.pem and server-key.pem; NULL: anonymous (no certificate) */
int rfb_credentials_create(const char *directory, struct rfb_credentials **out,
                           struct mull_error *err);
void rfb_credentials_free(struct rfb_credentials *c);

/** A server's session on a connected socket. @return NULL: no memory */
struct rfb_channel *rfb_channel_create(struct rfb_credentials *c, int fd);
void rfb_channel_free(struct rfb_channel *c);

/** Go on with the handshake. @return 1: done, 0: later (*writing: when the socket takes more), -1:
 *  it has failed */
int rfb_channel_handshake(struct rfb_channel *c, bool *writing);

/** Send and receive like send() and recv(): bytes, -1 with EAGAIN or another errno. After EAGAIN
 *  rfb_channel_send() must be called again with the same bytes, or more of them. */
ssize_t rfb_channel_send(struct rfb_channel *c, const uint8_t *data, size_t size);
ssize_t rfb_channel_receive(struct rfb_channel *c, uint8_t *data, size_t size);

/** Is something here that the socket no longer shows? */
bool rfb_channel_pending(const struct rfb_channel *c);

#endif
