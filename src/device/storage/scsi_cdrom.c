/*
 * CD-ROM drives (MMC-6), behind ATAPI and SCSI adapters. One data track, one session; the medium
 * can be ejected and loaded again by the guest.
 */
#include <string.h>

#include "device/storage/scsi.h"

static bool loaded(const struct mull_scsi_unit *u)
{
    return u->block && !u->ejected;
}

/* @return false: the command has failed, because there is no medium or a new one */
static bool ready(struct mull_scsi_request *r)
{
    struct mull_scsi_unit *u = r->unit;

    if (!loaded(u)) {
        scsi_fail(r, SENSE_NOT_READY, ASC_NO_MEDIUM);
        return false;
    }
    if (u->medium_changed) {
        u->medium_changed = false;
        scsi_fail(r, SENSE_UNIT_ATTENTION, ASC_MEDIUM_CHANGED);
        return false;
    }
    return true;
}

static void read_sectors(struct mull_scsi_request *r, uint32_t lba, uint32_t count)
{
    const struct mull_scsi_unit *u = r->unit;

    if (lba > u->blocks || count > u->blocks - lba)
        scsi_fail(r, SENSE_ILLEGAL_REQUEST, ASC_OUT_OF_RANGE);
    else
        mull_dma_transfer(&r->dma, true, (uint64_t)lba * MULL_CD_SECTOR,
                          (uint64_t)count * MULL_CD_SECTOR, scsi_data_done);
}

static void mode_sense(struct mull_scsi_request *r, const uint8_t *packet)
{
    bool ten = packet[0] == 0x5a;
    unsigned head = ten ? 8 : 4, size;
    uint8_t data[8 + 22] = {0}, *p = data + head;
    uint8_t page = packet[2] & 0x3f, medium = loaded(r->unit) ? 1 : 0x70;

    if ((packet[2] >> 6) == 3 || (page != 0x2a && page != 0x3f && page != 0x01)) {
        scsi_fail(r, SENSE_ILLEGAL_REQUEST, ASC_INVALID_FIELD);
        return;
    }
    if (page == 0x01) { /* error recovery */
        p[0] = 0x01;
        p[1] = 6;
        size = head + 8;
    } else { /* capabilities */
        p[0] = 0x2a;
        p[1] = 20;
        p[6] = 0x29; /* tray, eject, lock */
        scsi_put16(p + 8, 706);
        scsi_put16(p + 14, 706);
        size = head + 22;
    }
    if (ten) {
        scsi_put16(data, size - 2);
        data[2] = medium;
    } else {
        data[0] = (uint8_t)(size - 1);
        data[1] = medium;
    }
    scsi_answer(r, data, size, ten ? scsi_get16(packet + 7) : packet[4]);
}

static void read_capacity(struct mull_scsi_request *r)
{
    uint8_t data[8];

    if (!ready(r))
        return;
    scsi_put32(data, (uint32_t)(r->unit->blocks ? r->unit->blocks - 1 : 0));
    scsi_put32(data + 4, MULL_CD_SECTOR);
    scsi_answer(r, data, sizeof(data), sizeof(data));
}

static void put_address(uint8_t *to, uint32_t lba, bool msf)
{
    if (!msf) {
        scsi_put32(to, lba);
        return;
    }
    lba += 150;
    to[0] = 0;
    to[1] = (uint8_t)(lba / 75 / 60);
    to[2] = (uint8_t)(lba / 75 % 60);
    to[3] = (uint8_t)(lba % 75);
}

static void read_toc(struct mull_scsi_request *r, const uint8_t *packet)
{
    uint8_t data[20] = {0};
    bool msf = packet[1] & 2;
    unsigned format = packet[2] & 15 ? packet[2] & 15 : packet[9] >> 6;
    unsigned size = 12;

    if (!ready(r))
        return;
    data[2] = data[3] = 1;
    data[5] = 0x14; /* data track */
    if (format == 0 && packet[6] <= 1) {
        data[6] = 1;
        put_address(data + 8, 0, msf);
        data[13] = 0x14;
        data[14] = 0xaa; /* lead-out */
        put_address(data + 16, (uint32_t)r->unit->blocks, msf);
        size = 20;
    } else if (format == 0 && packet[6] == 0xaa) {
        data[6] = 0xaa;
        put_address(data + 8, (uint32_t)r->unit->blocks, msf);
    } else if (format == 1) { /* sessions */
        data[6] = 1;
        put_address(data + 8, 0, msf);
    } else {
        scsi_fail(r, SENSE_ILLEGAL_REQUEST, ASC_INVALID_FIELD);
        return;
    }
    scsi_put16(data, size - 2);
    scsi_answer(r, data, size, scsi_get16(packet + 7));
}

static void get_configuration(struct mull_scsi_request *r, const uint8_t *packet)
{
    uint8_t data[8 + 8] = {0};

    scsi_put32(data, 12);
    scsi_put16(data + 6, loaded(r->unit) ? 8 : 0); /* current profile: CD-ROM */
    data[10] = 3;
    data[11] = 4;
    scsi_put16(data + 12, 8);
    data[14] = loaded(r->unit);
    scsi_answer(r, data, sizeof(data), scsi_get16(packet + 7));
}

static void get_event_status(struct mull_scsi_request *r, const uint8_t *packet)
{
    struct mull_scsi_unit *u = r->unit;
    uint8_t data[8] = {0, 6, 4, 0x10};

    if (!(packet[1] & 1)) {
        scsi_fail(r, SENSE_ILLEGAL_REQUEST, ASC_INVALID_FIELD);
        return;
    }
    if (!(packet[4] & 0x10)) { /* only media events are there */
        data[1] = 2;
        data[2] = 0x80;
        scsi_answer(r, data, 4, scsi_get16(packet + 7));
        return;
    }
    data[4] = u->medium_changed ? (loaded(u) ? 2 : 3) : 0;
    data[5] = (uint8_t)((loaded(u) ? 2 : 0) | (u->ejected ? 1 : 0));
    scsi_answer(r, data, sizeof(data), scsi_get16(packet + 7));
}

static void read_disc_information(struct mull_scsi_request *r, const uint8_t *packet)
{
    uint8_t data[34] = {0, 32, 0x0e, 1, 1, 1, 1, 0x20};

    if (ready(r))
        scsi_answer(r, data, sizeof(data), scsi_get16(packet + 7));
}

static void start_stop(struct mull_scsi_request *r, const uint8_t *packet)
{
    struct mull_scsi_unit *u = r->unit;

    if (packet[4] & 2) {
        bool eject = !(packet[4] & 1);
        u->medium_changed |= u->ejected != eject;
        u->ejected = eject;
    }
    scsi_good(r);
}

void scsi_cdrom_command(struct mull_scsi_request *r)
{
    const uint8_t *packet = r->cdb;

    switch (packet[0]) {
    case 0x00: /* TEST UNIT READY */
        if (ready(r))
            scsi_good(r);
        break;
    case 0x1b:
        start_stop(r, packet);
        break;
    case 0x1e: /* PREVENT MEDIUM REMOVAL, SET CD SPEED */
    case 0xbb:
        scsi_good(r);
        break;
    case 0x25:
        read_capacity(r);
        break;
    case 0x28: /* READ (10), (12) */
        if (ready(r))
            read_sectors(r, scsi_get32(packet + 2), scsi_get16(packet + 7));
        break;
    case 0xa8:
        if (ready(r))
            read_sectors(r, scsi_get32(packet + 2), scsi_get32(packet + 6));
        break;
    case 0x43:
        read_toc(r, packet);
        break;
    case 0x46:
        get_configuration(r, packet);
        break;
    case 0x4a:
        get_event_status(r, packet);
        break;
    case 0x51:
        read_disc_information(r, packet);
        break;
    case 0x1a:
    case 0x5a:
        mode_sense(r, packet);
        break;
    default:
        scsi_fail(r, SENSE_ILLEGAL_REQUEST, ASC_INVALID_COMMAND);
    }
}
