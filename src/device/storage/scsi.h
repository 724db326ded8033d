/*
 * A SCSI target: a disk (SBC-3) or a CD-ROM drive (MMC-6), and the commands that both have (SPC-4).
 * A host adapter brings a command and the way to the guest's buffers (dma.h) and gets back a status
 * and sense data. Knows no adapter.
 */
#ifndef MULL_DEVICE_STORAGE_SCSI_H
#define MULL_DEVICE_STORAGE_SCSI_H

#include "base/fields.h"
#include "device/storage/dma.h"

#define MULL_SCSI_CDB 32
#define MULL_SCSI_SENSE 18
#define MULL_SCSI_UNMAP_RANGES 64
#define MULL_CD_SECTOR 2048u

/* Status (SAM-5, 5.3.1). */
#define MULL_SCSI_GOOD 0x00u
#define MULL_SCSI_CHECK_CONDITION 0x02u
#define MULL_SCSI_BUSY 0x08u
#define MULL_SCSI_TASK_ABORTED 0x40u

/** A drive of a controller: what the machine says of it. */
struct mull_drive {
    bool present;
    bool cdrom;
    bool readonly;            /* also where the block is */
    struct mull_block *block; /* mull_block_start() was called with env->loop; NULL: no medium */
    char serial[21];
};

/** A logical unit. */
struct mull_scsi_unit {
    struct mull_block *block; /* NULL: no medium */
    bool cdrom, readonly;
    char serial[21];
    uint32_t block_size;
    uint64_t blocks;
    /* State, described by mull_scsi_unit_desc. */
    bool ejected, medium_changed;
    uint8_t sense_key, sense_code, sense_qualifier; /* for REQUEST SENSE, without autosense */
};

extern const struct mull_state_desc mull_scsi_unit_desc;

/** A command; embedded in the adapter's own. */
struct mull_scsi_request {
    struct mull_dma dma; /* must be first; the adapter has called mull_dma_begin() */
    struct mull_scsi_unit *unit;
    uint64_t lun; /* as a number; there is only 0 */
    uint8_t cdb[MULL_SCSI_CDB];
    bool autosense; /* sense data goes with the status; else it is kept for REQUEST SENSE */
    /* Called once, perhaps before mull_scsi_start() returns. The lock is held. */
    void (*complete)(struct mull_scsi_request *r);
    int host_error; /* the host failed it: -errno, for the log */
    uint8_t status;
    uint8_t sense[MULL_SCSI_SENSE]; /* with CHECK CONDITION */
    /* Of a command that is done in parts. */
    unsigned ranges, range;
    struct {
        uint64_t lba;
        uint32_t count;
    } unmap[MULL_SCSI_UNMAP_RANGES];
    uint8_t *pattern;
};

/** Set a unit up for a drive, at power-on. */
void mull_scsi_unit_init(struct mull_scsi_unit *u, const struct mull_drive *drive);
void mull_scsi_unit_reset(struct mull_scsi_unit *u);

/** Carry a command out. Loop's thread, the adapter's lock held. */
void mull_scsi_start(struct mull_scsi_request *r);

/** How many bytes of CDB a command has by its group, 0: not said (SPC-4, 4.2.5.1). */
unsigned mull_scsi_cdb_length(uint8_t operation);

/* ---- Between scsi.c, scsi_disk.c and scsi_cdrom.c ---- */

/* Sense keys and, as code << 8 | qualifier, additional sense (SPC-4, 4.5). */
#define SENSE_NOT_READY 2u
#define SENSE_MEDIUM_ERROR 3u
#define SENSE_ILLEGAL_REQUEST 5u
#define SENSE_UNIT_ATTENTION 6u
#define SENSE_DATA_PROTECT 7u
#define SENSE_ABORTED 11u
#define ASC_WRITE_ERROR 0x0c00u
#define ASC_READ_ERROR 0x1100u
#define ASC_LIST_LENGTH 0x1a00u
#define ASC_INVALID_COMMAND 0x2000u
#define ASC_OUT_OF_RANGE 0x2100u
#define ASC_INVALID_FIELD 0x2400u
#define ASC_NO_SUCH_UNIT 0x2500u
#define ASC_INVALID_PARAMETER 0x2600u
#define ASC_WRITE_PROTECTED 0x2700u
#define ASC_MEDIUM_CHANGED 0x2800u
#define ASC_NO_MEDIUM 0x3a00u
#define ASC_DATA_PHASE 0x4b00u

void scsi_good(struct mull_scsi_request *r);
void scsi_fail(struct mull_scsi_request *r, uint8_t key, uint16_t code);
/** Answer with at most as much as was asked for. */
void scsi_answer(struct mull_scsi_request *r, const void *data, uint32_t len, uint32_t wanted);
/** The `then` of transfers: status and sense from the result. */
void scsi_data_done(struct mull_dma *d, int result);

void scsi_disk_command(struct mull_scsi_request *r);
void scsi_cdrom_command(struct mull_scsi_request *r);

static inline uint16_t scsi_get16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

static inline uint32_t scsi_get32(const uint8_t *p)
{
    return (uint32_t)scsi_get16(p) << 16 | scsi_get16(p + 2);
}

static inline uint64_t scsi_get64(const uint8_t *p)
{
    return (uint64_t)scsi_get32(p) << 32 | scsi_get32(p + 4);
}

static inline void scsi_put16(uint8_t *p, unsigned v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static inline void scsi_put32(uint8_t *p, uint32_t v)
{
    scsi_put16(p, v >> 16);
    scsi_put16(p + 2, v & 0xffff);
}

static inline void scsi_put64(uint8_t *p, uint64_t v)
{
    scsi_put32(p, (uint32_t)(v >> 32));
    scsi_put32(p + 4, (uint32_t)v);
}

#endif
