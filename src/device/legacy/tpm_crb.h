/*
 * A TPM 2.0 behind the command response buffer interface (TCG PC Client Platform TPM
 * Profile 1.05, 6.4.2), at the address where every PC has it. The TPM itself is swtpm (swtpm.h).
 */
#ifndef MULL_DEVICE_LEGACY_TPM_CRB_H
#define MULL_DEVICE_LEGACY_TPM_CRB_H

#include "platform/device.h"

struct mull_tpm_config {
    const char *folder; /* for its state; NULL: @control and @data are sockets of a swtpm */
    int control, data;  /* the device's */
};

/** Starts a process (swtpm): before the machine's process locks itself in. */
int mull_tpm_crb_create(const struct mull_device_env *env, const struct mull_tpm_config *cfg,
                        struct mull_device **out, struct mull_error *err);

#endif
