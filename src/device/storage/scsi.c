/*
 * What SCSI disks and CD-ROM drives have in common (SPC-4): status, sense data, INQUIRY and REPORT
 * LUNS. Each target has one logical unit, number 0.
 */
#include "device/storage/scsi.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void mull_scsi_unit_init(struct mull_scsi_unit *u, const struct mull_drive *drive)
{
    *u = (struct mull_scsi_unit){.block = drive->block,
                                 .cdrom = drive->cdrom,
                                 .readonly = drive->readonly,
                                 .block_size = drive->cdrom ? MULL_CD_SECTOR : 512};
    memcpy(u->serial, drive->serial, sizeof(u->serial));
    u->serial[sizeof(u->serial) - 1] = '\0';
    if (u->block) {
        u->blocks = mull_block_size(u->block) / u->block_size;
        u->readonly |= mull_block_readonly(u->block);
    }
}

void mull_scsi_unit_reset(struct mull_scsi_unit *u)
{
    u->ejected = u->medium_changed = false;
    u->sense_key = u->sense_code = u->sense_qualifier = 0;
}

static const struct mull_field unit_fields[] = {
    MULL_FIELD(struct mull_scsi_unit, ejected),
    MULL_FIELD(struct mull_scsi_unit, medium_changed),
    MULL_FIELD(struct mull_scsi_unit, sense_key),
    MULL_FIELD(struct mull_scsi_unit, sense_code),
    MULL_FIELD(struct mull_scsi_unit, sense_qualifier),
    MULL_FIELDS_END,
};
const struct mull_state_desc mull_scsi_unit_desc = {
    .name = "scsi-unit", .version = 1, .oldest = 1, .fields = unit_fields};

/* ---- The end of a command ---- */

static void complete(struct mull_scsi_request *r)
{
    free(r->pattern);
    r->pattern = NULL;
    r->complete(r);
}

void scsi_good(struct mull_scsi_request *r)
{
    r->status = MULL_SCSI_GOOD;
    r->unit->sense_key = r->unit->sense_code = r->unit->sense_qualifier = 0;
    complete(r);
}

/* Fixed format (SPC-4, 4.5.3). */
static void fill_sense(uint8_t sense[MULL_SCSI_SENSE], uint8_t key, uint8_t code, uint8_t qualifier)
{
    memset(sense, 0, MULL_SCSI_SENSE);
    sense[0] = 0x70;
    sense[2] = key;
    sense[7] = MULL_SCSI_SENSE - 8;
    sense[12] = code;
    sense[13] = qualifier;
}

void scsi_fail(struct mull_scsi_request *r, uint8_t key, uint16_t code)
{
    r->status = MULL_SCSI_CHECK_CONDITION;
    fill_sense(r->sense, key, (uint8_t)(code >> 8), (uint8_t)code);
    if (!r->autosense) {
        r->unit->sense_key = key;
        r->unit->sense_code = (uint8_t)(code >> 8);
        r->unit->sense_qualifier = (uint8_t)code;
    }
    complete(r);
}

void scsi_answer(struct mull_scsi_request *r, const void *data, uint32_t len, uint32_t wanted)
{
    mull_dma_copy_out(&r->dma, data, len < wanted ? len : wanted);
    scsi_good(r);
}

void scsi_data_done(struct mull_dma *d, int result)
{
    struct mull_scsi_request *r = (struct mull_scsi_request *)d;

    if (!result) {
        scsi_good(r);
        return;
    }
    if (result == -EFAULT) {
        scsi_fail(r, SENSE_ABORTED, ASC_DATA_PHASE);
        return;
    }
    r->host_error = result;
    scsi_fail(r, SENSE_MEDIUM_ERROR, d->to_guest ? ASC_READ_ERROR : ASC_WRITE_ERROR);
}

/* ---- INQUIRY (6.6) and its pages of vital product data (7.8) ---- */

struct page {
    uint8_t data[128];
    unsigned size;
};

static void page_serial(const struct mull_scsi_unit *u, struct page *p)
{
    size_t len = strlen(u->serial);

    memcpy(p->data + 4, u->serial, len);
    p->size += (unsigned)len;
}

/* One designator: T10 vendor identification, then what is unique. */
static void page_identification(const struct mull_scsi_unit *u, struct page *p)
{
    size_t len = strlen(u->serial);

    p->data[4] = 2; /* ASCII */
    p->data[5] = 1; /* T10 vendor ID, of the logical unit */
    p->data[7] = (uint8_t)(8 + len);
    memcpy(p->data + 8, "MULLION ", 8);
    memcpy(p->data + 16, u->serial, len);
    p->size += 12 + (unsigned)len;
}

static void page_limits(struct page *p)
{
    scsi_put16(p->data + 6, 8);         /* optimal granularity: 4 KiB */
    scsi_put32(p->data + 8, 0xffff);    /* longest transfer */
    scsi_put32(p->data + 20, 0x3fffff); /* UNMAP: blocks, ranges, granularity */
    scsi_put32(p->data + 24, MULL_SCSI_UNMAP_RANGES);
    scsi_put32(p->data + 28, 8);
    scsi_put64(p->data + 36, 0x3fffff); /* WRITE SAME */
    p->size += 60;
}

static bool vital_page(const struct mull_scsi_unit *u, uint8_t code, struct page *p)
{
    static const uint8_t pages[] = {0x00, 0x80, 0x83, 0xb0, 0xb1, 0xb2};
    unsigned known = u->cdrom ? 3 : 6;

    p->size = 4;
    if (code == 0x00) {
        memcpy(p->data + 4, pages, known);
        p->size += known;
    } else if (code == 0x80) {
        page_serial(u, p);
    } else if (code == 0x83) {
        page_identification(u, p);
    } else if (code == 0xb0 && !u->cdrom) {
        page_limits(p);
    } else if (code == 0xb1 && !u->cdrom) {
        scsi_put16(p->data + 4, 1); /* does not rotate */
        p->size += 60;
    } else if (code == 0xb2 && !u->cdrom) {
        p->data[5] = 0xe0; /* UNMAP, WRITE SAME (16) and (10) unmap */
        p->data[6] = 2;    /* thin */
        p->size += 4;
    } else {
        return false;
    }
    p->data[0] = u->cdrom ? 5 : 0;
    p->data[1] = code;
    scsi_put16(p->data + 2, p->size - 4);
    return true;
}

static void inquiry(struct mull_scsi_request *r)
{
    const struct mull_scsi_unit *u = r->unit;
    uint16_t wanted = scsi_get16(r->cdb + 3);
    struct page page = {0};
    uint8_t data[36] = {0};

    if (r->cdb[1] & 1) {
        if (r->lun || !vital_page(u, r->cdb[2], &page))
            scsi_fail(r, SENSE_ILLEGAL_REQUEST, ASC_INVALID_FIELD);
        else
            scsi_answer(r, page.data, page.size, wanted);
        return;
    }
    if (r->cdb[2]) {
        scsi_fail(r, SENSE_ILLEGAL_REQUEST, ASC_INVALID_FIELD);
        return;
    }
    data[0] = r->lun ? 0x7f : u->cdrom ? 5 : 0;
    data[1] = u->cdrom ? 0x80 : 0;
    data[2] = u->cdrom ? 5 : 6;
    data[3] = u->cdrom ? 0x32 : 0x02; /* response format 2; ATAPI's version */
    data[4] = sizeof(data) - 5;
    data[7] = 0x02; /* several commands at a time */
    memcpy(data + 8, u->cdrom ? "MULLION CD-ROM          1.0 " : "MULLION DISK            1.0 ",
           28);
    scsi_answer(r, data, sizeof(data), wanted);
}

/* ---- What else all have ---- */

static void request_sense(struct mull_scsi_request *r)
{
    struct mull_scsi_unit *u = r->unit;
    uint8_t data[MULL_SCSI_SENSE];

    if (r->lun)
        fill_sense(data, SENSE_ILLEGAL_REQUEST, ASC_NO_SUCH_UNIT >> 8, 0);
    else
        fill_sense(data, u->sense_key, u->sense_code, u->sense_qualifier);
    scsi_answer(r, data, sizeof(data), r->cdb[4]);
}

static void report_luns(struct mull_scsi_request *r)
{
    uint8_t data[16] = {0, 0, 0, 8};

    if (scsi_get32(r->cdb + 6) < 16)
        scsi_fail(r, SENSE_ILLEGAL_REQUEST, ASC_INVALID_FIELD);
    else
        scsi_answer(r, data, sizeof(data), scsi_get32(r->cdb + 6));
}

unsigned mull_scsi_cdb_length(uint8_t operation)
{
    static const uint8_t length[8] = {6, 10, 10, 0, 16, 12, 0, 0};
    return length[operation >> 5];
}

void mull_scsi_start(struct mull_scsi_request *r)
{
    r->host_error = 0;
    r->pattern = NULL;
    r->ranges = r->range = 0;
    switch (r->cdb[0]) {
    case 0x03:
        request_sense(r);
        return;
    case 0x12:
        inquiry(r);
        return;
    case 0xa0:
        report_luns(r);
        return;
    default:
        break;
    }
    if (r->lun)
        scsi_fail(r, SENSE_ILLEGAL_REQUEST, ASC_NO_SUCH_UNIT);
    else if (r->unit->cdrom)
        scsi_cdrom_command(r);
    else
        scsi_disk_command(r);
}
