/*
 * An NBD client: a server's export as a file. Requests of all threads share one connection and are
 * under way at once; whichever thread waits longest reads the replies for all. The server is an
 * adversary: every length it names is checked against what was asked. Knows bytes, never formats.
 */
#ifndef MULL_IMAGE_NBD_CLIENT_H
#define MULL_IMAGE_NBD_CLIENT_H

#include "image/source.h"

/** Open nbd://[user@]host[:port]/export, nbd+unix:///export?socket=PATH, or nbds... with TLS
 *  (doc/uri.md). Query parameters tls-certificates, tls-psk-file and tls-hostname go before
 *  options->source. Options with `create` need a server that lets us write. */
int mull_nbd_open(const struct mull_file_options *options, struct mull_file **out,
                  struct mull_error *err);

struct mull_channel;

/** The same over a connected socket, which is closed in any case in the end (for tests). */
int mull_nbd_open_channel(const struct mull_file_options *options, struct mull_channel *channel,
                          const char *export_name, struct mull_file **out, struct mull_error *err);

#endif
