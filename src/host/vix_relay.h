/*
 * A way for VIX messages to a guest: the control channel of its machine's process, whose methods
 * `tools.send` and `tools.receive` hand them to open-vm-tools. Knows nothing of what they mean.
 */
#ifndef MULL_HOST_VIX_RELAY_H
#define MULL_HOST_VIX_RELAY_H

#include "base/rpc.h"
#include "host/vix.h"

struct vix_relay {
    struct mull_rpc rpc;
};

/** @param path  the control channel's socket. @param channel  what vix_open() takes; it lasts as
 *  long as @relay. @return 0 or -errno */
int vix_relay_open(struct vix_relay *relay, const char *path, struct vix_channel *channel,
                   struct mull_error *err);
void vix_relay_close(struct vix_relay *relay);

#endif
