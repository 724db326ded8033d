/*
 * The virtio SCSI host: disks and CD-ROM drives as targets, each with one logical unit.
 */
#ifndef MULL_DEVICE_STORAGE_VIRTIO_SCSI_H
#define MULL_DEVICE_STORAGE_VIRTIO_SCSI_H

#include "device/storage/scsi.h"
#include "platform/device.h"
#include "platform/pci.h"

#define MULL_VIRTIO_SCSI_TARGETS 16

struct mull_virtio_scsi_config {
    const char *name; /* "virtio-scsi.0" */
    unsigned queues;  /* of requests, 0: one */
    struct mull_drive drive[MULL_VIRTIO_SCSI_TARGETS];
};

/** Create it in the next free slot. The blocks stay the caller's. */
int mull_virtio_scsi_create(const struct mull_device_env *env, struct mull_pci_bus *bus,
                            const struct mull_virtio_scsi_config *cfg, struct mull_device **out,
                            struct mull_error *err);

/** A target comes; the guest is told. Loop's thread. @return 0 or -EBUSY */
int mull_virtio_scsi_plug(struct mull_device *device, unsigned target,
                          const struct mull_drive *drive, struct mull_error *err);

/** A target goes; the guest is told, and nothing is in flight to its block when this returns.
 *  Loop's thread. */
void mull_virtio_scsi_unplug(struct mull_device *device, unsigned target);

#endif
