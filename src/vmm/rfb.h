/*
 * A display server: the RFB protocol (rfb_session.h) on a Unix socket or a TCP port, with TLS where
 * it is asked for. Shows the machine's screen, brings it keys and the pointer.
 */
#ifndef MULL_VMM_RFB_H
#define MULL_VMM_RFB_H

#include "base/log.h"
#include "machine/machine.h"

struct vmm_rfb;

struct vmm_rfb_config {
    struct mull_machine *machine; /* has a screen */
    const struct mull_log *log;
    const char *listen;        /* "unix:PATH" or "HOST:PORT" */
    const char *password_file; /* its first line; NULL: none */
    const char *certificates;  /* folder with server-cert.pem and server-key.pem; NULL: none */
    bool anonymous;            /* TLS without a certificate */
    const char *keymap;        /* the guest's layout; NULL: "us" */
    int agent; /* a socket to the guest's agent (vdagent.h), the caller's; -1: none */
};

/** Listen and serve in the machine's loop. What is not of this host gets in by TLS and a password
 *  only. @param out  owned by the caller */
int vmm_rfb_create(const struct vmm_rfb_config *config, struct vmm_rfb **out,
                   struct mull_error *err);

/** Its Unix socket; NULL: none. */
const char *vmm_rfb_path(const struct vmm_rfb *r);

/** After mull_machine_halt(). NULL is allowed. */
void vmm_rfb_destroy(struct vmm_rfb *r);

#endif
