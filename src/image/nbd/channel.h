/*
 * The bytes between two NBD peers, over a socket, plain or under TLS, blocking or not as the socket
 * is; and the credentials TLS needs. Knows sockets and GnuTLS, never NBD messages.
 */
#ifndef MULL_IMAGE_NBD_CHANNEL_H
#define MULL_IMAGE_NBD_CHANNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "base/error.h"

struct mull_tls; /* credentials */

struct mull_channel {
    int fd;
    void *session; /* gnutls_session_t, NULL: plain */
    bool handshaken;
    bool resend; /* TLS: the last send was taken and waits inside GnuTLS */
    size_t resend_length;
};

/**
 * Load credentials.
 *
 * @param server     for a server: server-cert.pem and server-key.pem, else client-cert.pem and
 *                   client-key.pem where they exist
 * @param directory  with ca-cert.pem (and ca-crl.pem where it exists) and those; or NULL
 * @param psk_file   instead of certificates: "user:hexkey" lines
 * @param user       client with psk_file: whose key; NULL: the first
 * @param verify     server: clients must show a certificate of ca-cert.pem's
 */
int mull_tls_load(bool server, const char *directory, const char *psk_file, const char *user,
                  bool verify, struct mull_tls **out, struct mull_error *err);
/** Free credentials no channel uses any more. NULL is allowed. */
void mull_tls_free(struct mull_tls *tls);

/** Put a TLS session on a channel. @hostname: a client checks the server's name (NULL: only whose
 *  authority signed). The credentials must outlive it. */
int mull_channel_secure(struct mull_channel *channel, struct mull_tls *tls, const char *hostname,
                        struct mull_error *err);
/** One step of the handshake. @return 0: done; -EAGAIN: call again when the socket is ready (see
 *  mull_channel_wants_write); or failed. */
int mull_channel_handshake(struct mull_channel *channel, struct mull_error *err);
/** Whether TLS waits until the socket can be written. */
bool mull_channel_wants_write(const struct mull_channel *channel);

/** @return bytes, 0: the peer has closed, -EAGAIN, or -errno. */
ssize_t mull_channel_receive(struct mull_channel *channel, void *buf, size_t length);
/** @return bytes of the iov taken (at least 1), -EAGAIN (then repeat with the same data), or
 * -errno. */
ssize_t mull_channel_send(struct mull_channel *channel, const struct iovec *iov, int niov);
/** Whether bytes wait inside TLS that no poll of the socket shows. */
bool mull_channel_pending(const struct mull_channel *channel);
/** End the session (@polite: say good-bye, without waiting) and close the socket. */
void mull_channel_close(struct mull_channel *channel, bool polite);

#endif
