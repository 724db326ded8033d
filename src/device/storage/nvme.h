/*
 * An NVM Express controller (NVMe 1.4) with one namespace. Knows blocks, not formats.
 */
#ifndef MULL_DEVICE_STORAGE_NVME_H
#define MULL_DEVICE_STORAGE_NVME_H

#include "device/storage/scsi.h"
#include "platform/device.h"
#include "platform/pci.h"

struct mull_nvme_config {
    const char *name; /* "nvme.0" */
    struct mull_drive drive;
};

/** Create it in the next free slot. The block stays the caller's. */
int mull_nvme_create(const struct mull_device_env *env, struct mull_pci_bus *bus,
                     const struct mull_nvme_config *cfg, struct mull_device **out,
                     struct mull_error *err);

#endif
