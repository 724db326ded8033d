/*
 * A display server: the RFB protocol 3.8 (RFC 6143) on a Unix socket, or with a password on a TCP
 * port of this host. Shows the machine's screen, brings it keys and the mouse.
 */
#ifndef MULL_VMM_RFB_H
#define MULL_VMM_RFB_H

#include "base/log.h"
#include "machine/machine.h"

struct vmm_rfb;

struct vmm_rfb_config {
    struct mull_machine *machine; /* has a screen */
    const struct mull_log *log;
    const char *listen;        /* "unix:PATH" or "HOST:PORT" of a loopback address */
    const char *password_file; /* its first line, 8 characters at most count; NULL: none */
};

/** Listen and serve in the machine's loop. @param out  owned by the caller */
int vmm_rfb_create(const struct vmm_rfb_config *config, struct vmm_rfb **out,
                   struct mull_error *err);

/** Its Unix socket; NULL: none. */
const char *vmm_rfb_path(const struct vmm_rfb *r);

/** After mull_machine_halt(). NULL is allowed. */
void vmm_rfb_destroy(struct vmm_rfb *r);

#endif
