/*
 * An AHCI host bus adapter with ATA disks and ATAPI CD-ROM drives. Knows sectors, not formats.
 */
#ifndef MULL_DEVICE_STORAGE_AHCI_H
#define MULL_DEVICE_STORAGE_AHCI_H

#include "device/storage/scsi.h"
#include "platform/device.h"
#include "platform/pci.h"

#define MULL_AHCI_PORTS 6

struct mull_ahci_config {
    const char *name; /* "ahci.0" */
    struct mull_drive drive[MULL_AHCI_PORTS];
};

/** Create it in the next free slot. The blocks stay the caller's. */
int mull_ahci_create(const struct mull_device_env *env, struct mull_pci_bus *bus,
                     const struct mull_ahci_config *cfg, struct mull_device **out,
                     struct mull_error *err);

#endif
