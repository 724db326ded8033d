/* What the fuzz targets of storage controllers share. */
#ifndef FUZZ_STORAGE_H
#define FUZZ_STORAGE_H

#include "device/storage/scsi.h"
#include "platform/device.h"
#include "platform/pci.h"

struct fuzz_storage {
    struct mull_device_env env;
    struct mull_pci_bus *bus;
    struct mull_device *device;
    struct mull_drive disk, cdrom;
    /* Where accesses go: the controller's BARs, or its ports. */
    uint64_t base;
    const uint16_t *ports;
    unsigned port_count;
};

/** Of the target: create f->device with f->disk and f->cdrom; set the ports, if it has any. */
void fuzz_storage_create(struct fuzz_storage *f);

/** Of the target: bring the guest's driver to where commands can be given. */
void fuzz_storage_prepare(struct fuzz_storage *f);

#endif
