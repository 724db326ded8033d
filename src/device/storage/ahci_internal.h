/*
 * What the parts of the AHCI adapter share: ahci.c (registers), ahci_port.c (command lists and
 * transfers), ahci_ata.c (disks) and ahci_atapi.c (CD-ROM drives).
 */
#ifndef MULL_DEVICE_STORAGE_AHCI_INTERNAL_H
#define MULL_DEVICE_STORAGE_AHCI_INTERNAL_H

#include <pthread.h>

#include "device/storage/ahci.h"

#define AHCI_SLOTS 32
#define AHCI_SEGMENTS MULL_BLOCK_MAX_IOV
#define ATA_SECTOR 512u
#define CD_SECTOR 2048u

/* ATA status and error registers. */
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

/* Port interrupts. */
#define PORT_DHRS 0x01u /* device to host register FIS */
#define PORT_PSS 0x02u  /* PIO setup FIS */
#define PORT_SDBS 0x08u /* set device bits FIS */
#define PORT_TFES 0x40000000u

struct ahci;
struct ahci_port;

/* A command on its way. */
struct ahci_request {
    struct mull_block_request block; /* must be first */
    struct ahci_port *port;
    unsigned slot;
    bool queued;   /* NCQ: completes by tag */
    bool to_guest; /* the direction of the data */
    bool pio;
    bool active;
    uint64_t offset, left; /* bytes of the transfer that are still to be submitted */
    uint64_t done_bytes;
    uint64_t prdt; /* guest address of the table, and how far it is used */
    uint32_t entries, entry, entry_done;
    uint32_t generation; /* of the port when it began */
    unsigned segments;
    struct {
        uint64_t gpa;
        uint32_t len;
    } segment[AHCI_SEGMENTS];
};

/* What a command FIS says, checked for nothing. */
struct ahci_command {
    uint8_t code, device;
    uint16_t features, count;
    uint64_t lba;
    bool atapi, write;
    uint8_t packet[16];
};

struct ahci_port {
    struct ahci *hba;
    unsigned index;
    struct mull_ahci_drive drive;
    uint64_t sectors; /* of the drive's sector size */
    /* Registers. */
    uint64_t clb, fb;
    uint32_t is, ie, cmd, tfd, sig, ssts, sctl, serr, sact, ci;
    uint32_t started;    /* slots whose command has begun */
    uint32_t generation; /* counts resets: what began before is not told any more */
    uint32_t in_flight;
    bool stopping; /* ST is 0, commands are still on their way */
    bool failed;   /* no command begins until ST is toggled */
    uint8_t multiple;
    /* The last error of a queued command, for its log. */
    uint8_t error_tag, error_status, error_error;
    /* ATAPI. */
    uint8_t sense_key, sense_code, sense_qualifier;
    bool ejected, medium_changed;
    struct ahci_request *request[AHCI_SLOTS]; /* allocated when first needed */
};

struct ahci {
    struct mull_device device;
    struct mull_pci_function pci;
    struct mull_device_env env;
    pthread_mutex_t lock;
    uint32_t ghc, is;
    uint32_t ports; /* bit i: port i is implemented */
    unsigned complaints;
    struct ahci_port port[MULL_AHCI_PORTS];
};

/* ahci.c; the lock is held in all of these. */

/** Raise port interrupts. */
void ahci_port_interrupt(struct ahci_port *p, uint32_t bits);

/* ahci_port.c */

/** The device's answer to a reset: its signature. */
void ahci_port_signature(struct ahci_port *p);

/** Begin the commands that wait in the list. Loop's thread. */
void ahci_port_run(struct ahci_port *p);

/** The command list stops: CR falls when nothing is on its way. */
void ahci_port_stop(struct ahci_port *p);

/** End a command that moved no data, or all of it: @status, @error go to the task file. */
void ahci_finish(struct ahci_request *r, uint8_t status, uint8_t error);

/** Copy to (from) the guest's buffers of a command: at most what they hold. @return bytes */
uint32_t ahci_copy_out(struct ahci_request *r, const void *data, uint32_t len);
uint32_t ahci_copy_in(struct ahci_request *r, void *data, uint32_t len);

/** Transfer [offset, offset + length) between block and guest, then finish. */
void ahci_transfer(struct ahci_request *r, bool to_guest, uint64_t offset, uint64_t length);

/** Flush, then finish. */
void ahci_flush(struct ahci_request *r);

/* ahci_ata.c, ahci_atapi.c: carry out a command; ends in ahci_finish(), now or later. */
void ahci_ata_command(struct ahci_request *r, const struct ahci_command *c);
void ahci_atapi_command(struct ahci_request *r, const struct ahci_command *c);
/** IDENTIFY (PACKET) DEVICE. */
void ahci_identify(const struct ahci_port *p, uint16_t id[256]);

#endif
