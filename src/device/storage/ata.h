/*
 * ATA disks (ATA8-ACS) and ATAPI CD-ROM drives: their commands, whatever adapter they came over.
 * Knows no registers; the adapter brings a command and the way to the guest's buffers (dma.h), and
 * gets back the status and error registers.
 */
#ifndef MULL_DEVICE_STORAGE_ATA_H
#define MULL_DEVICE_STORAGE_ATA_H

#include "device/storage/scsi.h"

#define ATA_SECTOR 512u
#define ATA_TAGS 32

/* Status and error registers. */
#define ATA_ERR 0x01u
#define ATA_DRQ 0x08u
#define ATA_SEEK 0x10u
#define ATA_FAULT 0x20u
#define ATA_READY 0x40u
#define ATA_BUSY 0x80u
#define ATA_GOOD (ATA_READY | ATA_SEEK)
#define ATA_ABORTED 0x04u
#define ATA_NOT_FOUND 0x10u
#define ATA_UNCORRECTABLE 0x40u

/* Signatures after a reset: LBA high << 24 | mid << 16 | low << 8 | count. */
#define ATA_SIGNATURE_DISK 0x00000101u
#define ATA_SIGNATURE_PACKET 0xeb140101u

struct mull_ata_drive {
    bool present;
    bool sata; /* what IDENTIFY says of the cable */
    struct mull_scsi_unit unit;
    uint8_t multiple; /* sectors of a READ MULTIPLE's block */
    /* The last error of a queued command, for its log. */
    uint8_t error_tag, error_status, error_error;
};

/** What a command's registers say, checked for nothing. */
struct mull_ata_command {
    uint8_t code, device;
    uint16_t features, count;
    uint64_t lba;
    uint8_t packet[16];
};

/** A command on its way; embedded in the adapter's own. */
struct mull_ata_request {
    struct mull_scsi_request scsi; /* must be first; mull_dma_begin() was called */
    struct mull_ata_drive *drive;
    unsigned tag;
    bool queued; /* NCQ: completes by tag */
    bool pio;    /* the command's data goes through the data register */
    bool packet;
    /* A queued command is accepted, its data follows later. NULL: there are none. */
    void (*accepted)(struct mull_ata_request *r);
    /* The end. May be called before mull_ata_start() returns. */
    void (*finish)(struct mull_ata_request *r, uint8_t status, uint8_t error);
    unsigned ranges, range; /* of DATA SET MANAGEMENT */
    uint64_t range_list[64];
};

void mull_ata_drive_init(struct mull_ata_drive *drive, const struct mull_drive *config, bool sata);
void mull_ata_drive_reset(struct mull_ata_drive *drive);

/** Carry a command out. Loop's thread, the adapter's lock held. */
void mull_ata_start(struct mull_ata_request *r, const struct mull_ata_command *c);

/** Set a request up again that waits for the guest to fill or empty a staging buffer (a saved
 * state); mull_dma_begin() was called. The caller has checked the range. */
void mull_ata_restore(struct mull_ata_request *r, bool packet, bool to_guest, uint64_t offset,
                      uint64_t left);

/** Does a command move its data through the data register? */
bool mull_ata_is_pio(uint8_t code);

#endif
