/*
 * swtpm(8), a TPM 2.0 in a process of its own: started, told what it needs on its control channel
 * (man swtpm_ioctls), and given commands on its data channel. Knows its two sockets, not what is in
 * a command.
 */
#ifndef MULL_DEVICE_LEGACY_SWTPM_H
#define MULL_DEVICE_LEGACY_SWTPM_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "device/child.h"

/** What the TPM keeps, besides what is in its folder: permanent, volatile, saved by the guest. */
#define MULL_SWTPM_BLOBS 3
#define MULL_SWTPM_BLOB_MAX 65536u

struct mull_swtpm_blob {
    uint32_t flags, length;
    uint8_t data[MULL_SWTPM_BLOB_MAX];
};

struct mull_swtpm {
    struct mull_child child;
    int control, data; /* sockets; data does not block */
};

/**
 * Start it with its state in @folder (made where there is none), ready for commands of at most
 * @buffer bytes. Before the process locks itself in.
 */
int mull_swtpm_start(struct mull_swtpm *t, const char *folder, uint32_t buffer,
                     struct mull_error *err);

/** Over sockets that somebody else serves; they are @t's from now on. */
int mull_swtpm_adopt(struct mull_swtpm *t, int control, int data, uint32_t buffer,
                     struct mull_error *err);

/** As at power-on. No command is on its way. */
int mull_swtpm_reset(struct mull_swtpm *t, uint32_t buffer, struct mull_error *err);

/** Copy out and put back what it holds. No command is on its way. @param blobs  MULL_SWTPM_BLOBS */
int mull_swtpm_save(struct mull_swtpm *t, struct mull_swtpm_blob *blobs, struct mull_error *err);
int mull_swtpm_load(struct mull_swtpm *t, const struct mull_swtpm_blob *blobs, uint32_t buffer,
                    struct mull_error *err);

/** Let it write its state and end it. */
void mull_swtpm_stop(struct mull_swtpm *t);

#endif
