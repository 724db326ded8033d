/*
 * VMware's paravirtual SCSI adapter: disks and CD-ROM drives as targets, each with one logical
 * unit.
 */
#ifndef MULL_DEVICE_STORAGE_PVSCSI_H
#define MULL_DEVICE_STORAGE_PVSCSI_H

#include "device/storage/scsi.h"
#include "platform/device.h"
#include "platform/pci.h"

#define MULL_PVSCSI_TARGETS 16

struct mull_pvscsi_config {
    const char *name; /* "pvscsi.0" */
    struct mull_drive drive[MULL_PVSCSI_TARGETS];
    const void *rom;   /* a driver for the firmware; NULL: none. Must outlive the device */
    uint32_t rom_size; /* bytes */
};

/** Create it in the next free slot. The blocks stay the caller's. */
int mull_pvscsi_create(const struct mull_device_env *env, struct mull_pci_bus *bus,
                       const struct mull_pvscsi_config *cfg, struct mull_device **out,
                       struct mull_error *err);

#endif
