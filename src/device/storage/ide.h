/*
 * An IDE controller as a PIIX4's: two channels with two ATA or ATAPI drives each, at the legacy
 * ports and interrupts, with bus-master DMA. For the BIOS and old guests.
 */
#ifndef MULL_DEVICE_STORAGE_IDE_H
#define MULL_DEVICE_STORAGE_IDE_H

#include "device/storage/scsi.h"
#include "platform/device.h"
#include "platform/irq.h"
#include "platform/pci.h"

#define MULL_IDE_DRIVES 4

struct mull_ide_config {
    const char *name;                         /* "ide.0" */
    struct mull_irq irq[2];                   /* ISA lines 14 and 15 */
    struct mull_drive drive[MULL_IDE_DRIVES]; /* primary master and slave, secondary ones */
};

/** Create it in the next free slot; only one can have the legacy ports. The blocks stay the
 *  caller's. */
int mull_ide_create(const struct mull_device_env *env, struct mull_pci_bus *bus,
                    const struct mull_ide_config *cfg, struct mull_device **out,
                    struct mull_error *err);

#endif
