/*
 * ATA disks (ATA8-ACS): what a driver needs of the command set. Everything else is aborted, as the
 * standard wants it. CD-ROM drives get their packets through scsi.c.
 */
#include "device/storage/ata.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define MAX_MULTIPLE 16u

/* ATA strings: two characters a word, the first one high, padded with spaces. */
static void put_string(uint16_t *id, unsigned first, unsigned words, const char *text)
{
    for (unsigned i = 0; i < words; i++) {
        uint8_t a = *text ? (uint8_t)*text++ : ' ';
        uint8_t b = *text ? (uint8_t)*text++ : ' ';
        id[first + i] = (uint16_t)(a << 8 | b);
    }
}

static void identify_common(const struct mull_ata_drive *p, uint16_t id[256])
{
    put_string(id, 10, 10, p->unit.serial);
    put_string(id, 23, 4, "1.0");
    put_string(id, 27, 20, p->unit.cdrom ? "MULLION CD-ROM" : "MULLION DISK");
    id[48] = 1;
    id[49] = 0x0f00; /* DMA, LBA, IORDY */
    id[50] = 0x4000;
    id[53] = 7;
    id[63] = 0x0007; /* multiword DMA modes */
    id[64] = 0x0003;
    id[65] = id[66] = id[67] = id[68] = 120;
    if (p->sata)
        id[76] = 0x0006 | (p->unit.cdrom ? 0 : 1u << 8); /* 1.5 and 3 Gb/s, NCQ */
    id[80] = 0x01f0;                                     /* ATA-4 to ATA8 */
    id[88] = 0x203f;                                     /* Ultra DMA 5 */
}

static void fill_identify(const struct mull_ata_drive *p, uint16_t id[256])
{
    memset(id, 0, 512);
    identify_common(p, id);
    if (p->unit.cdrom) {
        id[0] = 0x8580; /* ATAPI, CD-ROM, removable, 12-byte packets */
        id[82] = 0x4010;
        id[83] = 0x4000;
        id[84] = 0x4000;
        return;
    }
    uint64_t cylinders = p->unit.blocks / (16 * 63);
    uint32_t small = p->unit.blocks > 0x0fffffff ? 0x0fffffff : (uint32_t)p->unit.blocks;
    id[0] = 0x0040;
    id[1] = id[54] = (uint16_t)(cylinders > 16383 ? 16383 : cylinders);
    id[3] = id[55] = 16;
    id[6] = id[56] = 63;
    id[47] = 0x8000 | MAX_MULTIPLE;
    id[59] = (uint16_t)(0x0100 | p->multiple);
    id[57] = (uint16_t)small;
    id[58] = (uint16_t)(small >> 16);
    id[60] = (uint16_t)small;
    id[61] = (uint16_t)(small >> 16);
    id[75] = p->sata ? ATA_TAGS - 1 : 0;
    id[93] = p->sata ? 0 : 0x6001; /* 80-wire cable, passed its diagnostics */
    id[82] = 0x4020;               /* write cache */
    id[83] = 0x7400;               /* 48-bit addresses, FLUSH CACHE (EXT) */
    id[84] = 0x4000;
    id[85] = 0x4020;
    id[86] = 0x3400;
    id[87] = 0x4000;
    for (unsigned i = 0; i < 4; i++)
        id[100 + i] = (uint16_t)(p->unit.blocks >> 16 * i);
    id[106] = 0x6003; /* 4 KiB of physical sector */
    id[105] = 1;      /* TRIM, one block of ranges */
    id[169] = 1;
    id[217] = 1; /* not rotating */
}

static void abort_command(struct mull_ata_request *r)
{
    r->finish(r, ATA_GOOD | ATA_ERR, ATA_ABORTED);
}

static void data_done(struct mull_dma *d, int result)
{
    struct mull_ata_request *r = (struct mull_ata_request *)d;

    if (!result)
        r->finish(r, ATA_GOOD, 0);
    else if (result == -EFAULT)
        abort_command(r);
    else {
        r->scsi.host_error = result;
        r->finish(r, ATA_GOOD | ATA_ERR,
                  d->block.op == MULL_BLOCK_FLUSH ? ATA_ABORTED : ATA_UNCORRECTABLE);
    }
}

static void transfer(struct mull_ata_request *r, bool to_guest, uint64_t lba, uint32_t count)
{
    const struct mull_ata_drive *p = r->drive;

    if (lba > p->unit.blocks || count > p->unit.blocks - lba) {
        r->finish(r, ATA_GOOD | ATA_ERR, ATA_NOT_FOUND);
        return;
    }
    if (!to_guest && p->unit.readonly) {
        abort_command(r);
        return;
    }
    mull_dma_transfer(&r->scsi.dma, to_guest, lba * ATA_SECTOR, (uint64_t)count * ATA_SECTOR,
                      data_done);
}

/* 28-bit commands have four more address bits in the device register. */
static void transfer28(struct mull_ata_request *r, const struct mull_ata_command *c, bool to_guest)
{
    uint32_t count = c->count & 0xff ? c->count & 0xff : 256;
    transfer(r, to_guest, (c->lba & 0xffffff) | (uint64_t)(c->device & 15) << 24, count);
}

static void transfer48(struct mull_ata_request *r, const struct mull_ata_command *c, bool to_guest)
{
    transfer(r, to_guest, c->lba, c->count ? c->count : 65536);
}

/* NCQ: the count is in the features, the tag in the count; the slot is free for CI at once. */
static void transfer_queued(struct mull_ata_request *r, const struct mull_ata_command *c,
                            bool to_guest)
{
    if (!r->drive->sata || c->count >> 3 != r->tag) {
        abort_command(r);
        return;
    }
    r->queued = true;
    r->accepted(r);
    transfer(r, to_guest, c->lba, c->features ? c->features : 65536);
}

static void send(struct mull_ata_request *r, const void *data, uint32_t len)
{
    if (mull_dma_copy_out(&r->scsi.dma, data, len) == len)
        r->finish(r, ATA_GOOD, 0);
    else
        abort_command(r);
}

static void identify(struct mull_ata_request *r)
{
    uint16_t id[256];

    fill_identify(r->drive, id);
    send(r, id, sizeof(id));
}

/* The log of the last failed queued command (page 10h). */
static void read_log(struct mull_ata_request *r, const struct mull_ata_command *c)
{
    struct mull_ata_drive *p = r->drive;
    uint8_t page[512] = {0};

    if ((c->lba & 0xff) != 0x10 || c->count != 1) {
        abort_command(r);
        return;
    }
    page[0] = p->error_tag;
    page[2] = p->error_status;
    page[3] = p->error_error;
    for (unsigned i = 0; i < 511; i++)
        page[511] = (uint8_t)(page[511] - page[i]);
    send(r, page, sizeof(page));
}

static void set_multiple(struct mull_ata_request *r, uint8_t count)
{
    if (count > MAX_MULTIPLE || (count & (count - 1))) {
        abort_command(r);
        return;
    }
    r->drive->multiple = count;
    r->finish(r, ATA_GOOD, 0);
}

/* DATA SET MANAGEMENT, TRIM: up to 64 ranges of LBA and, in the top 16 bits, count. */
static void trim_next(struct mull_dma *d, int result)
{
    struct mull_ata_request *r = (struct mull_ata_request *)d;
    uint64_t lba = 0, count = 0;

    for (; !result && !count && r->range < r->ranges; r->range++) {
        lba = r->range_list[r->range] & 0xffffffffffffull;
        count = r->range_list[r->range] >> 48;
    }
    if (result || !count)
        data_done(d, result == -EOPNOTSUPP ? 0 : result); /* it is only a hint */
    else
        mull_dma_submit(d, MULL_BLOCK_DISCARD, lba * ATA_SECTOR, count * ATA_SECTOR, true,
                        trim_next);
}

static void trim(struct mull_ata_request *r, const struct mull_ata_command *c)
{
    const struct mull_ata_drive *p = r->drive;
    const uint32_t size = sizeof(r->range_list);

    if (c->features != 1 || c->count != 1 || p->unit.readonly ||
        mull_dma_copy_in(&r->scsi.dma, r->range_list, size) != size) {
        abort_command(r);
        return;
    }
    r->ranges = size / 8;
    for (unsigned i = 0; i < r->ranges; i++) {
        uint64_t lba = r->range_list[i] & 0xffffffffffffull, count = r->range_list[i] >> 48;
        if (lba > p->unit.blocks || count > p->unit.blocks - lba) {
            r->finish(r, ATA_GOOD | ATA_ERR, ATA_ABORTED | ATA_NOT_FOUND);
            return;
        }
    }
    trim_next(&r->scsi.dma, 0);
}

bool mull_ata_is_pio(uint8_t code)
{
    static const uint8_t list[] = {0x20, 0x21, 0x24, 0x29, 0x2f, 0x30, 0x31,
                                   0x34, 0x39, 0xa1, 0xc4, 0xc5, 0xec};
    return memchr(list, code, sizeof(list));
}

static void disk_command(struct mull_ata_request *r, const struct mull_ata_command *c)
{
    switch (c->code) {
    case 0xec:
        identify(r);
        break;
    case 0x20: /* READ SECTORS, MULTIPLE: the same to a guest that looks at memory only */
    case 0x21:
    case 0xc4:
        transfer28(r, c, true);
        break;
    case 0x24:
    case 0x29:
        transfer48(r, c, true);
        break;
    case 0xc8:
        transfer28(r, c, true);
        break;
    case 0x25:
        transfer48(r, c, true);
        break;
    case 0x30:
    case 0x31:
    case 0xc5:
    case 0xca:
        transfer28(r, c, false);
        break;
    case 0x34:
    case 0x39:
    case 0x35:
        transfer48(r, c, false);
        break;
    case 0x60:
    case 0x61:
        transfer_queued(r, c, c->code == 0x60);
        break;
    case 0x06:
        trim(r, c);
        break;
    case 0xe7:
    case 0xea:
        mull_dma_submit(&r->scsi.dma, MULL_BLOCK_FLUSH, 0, 0, false, data_done);
        break;
    case 0x2f:
    case 0x47:
        read_log(r, c);
        break;
    case 0xc6:
        set_multiple(r, (uint8_t)c->count);
        break;
    case 0xef: /* SET FEATURES: transfer modes, write cache, look-ahead: accepted, nothing to do */
        if ((uint8_t)c->features == 0x03 || (uint8_t)c->features == 0x02 ||
            (uint8_t)c->features == 0xaa || (uint8_t)c->features == 0x55)
            r->finish(r, ATA_GOOD, 0);
        else
            abort_command(r);
        break;
    case 0x10: /* RECALIBRATE, READ VERIFY, INITIALIZE DEVICE PARAMETERS, power modes */
    case 0x40:
    case 0x42:
    case 0x91:
    case 0xe0:
    case 0xe1:
    case 0xe2:
    case 0xe3:
    case 0xe6:
        r->finish(r, ATA_GOOD, 0);
        break;
    default:
        abort_command(r);
    }
}

/* ---- ATAPI ---- */

static void packet_done(struct mull_scsi_request *scsi)
{
    struct mull_ata_request *r = (struct mull_ata_request *)scsi;

    if (scsi->status == MULL_SCSI_GOOD)
        r->finish(r, ATA_GOOD, 0);
    else
        r->finish(r, ATA_GOOD | ATA_ERR, (uint8_t)(scsi->sense[2] << 4 | ATA_ABORTED));
}

static void packet_command(struct mull_ata_request *r, const struct mull_ata_command *c)
{
    struct mull_scsi_request *scsi = &r->scsi;

    r->packet = true;
    memset(scsi->cdb, 0, sizeof(scsi->cdb));
    memcpy(scsi->cdb, c->packet, sizeof(c->packet));
    scsi->unit = &r->drive->unit;
    scsi->lun = 0;
    scsi->autosense = false;
    scsi->complete = packet_done;
    mull_scsi_start(scsi);
}

static void drive_command(struct mull_ata_request *r, const struct mull_ata_command *c)
{
    switch (c->code) {
    case 0xa0:
        packet_command(r, c);
        break;
    case 0xa1:
        identify(r);
        break;
    case 0xe0:
    case 0xe1:
    case 0xe6:
        r->finish(r, ATA_GOOD, 0);
        break;
    case 0xef: /* transfer modes */
        if ((uint8_t)c->features == 0x03)
            r->finish(r, ATA_GOOD, 0);
        else
            abort_command(r);
        break;
    default:
        abort_command(r);
    }
}

void mull_ata_start(struct mull_ata_request *r, const struct mull_ata_command *c)
{
    r->queued = r->packet = false;
    r->pio = mull_ata_is_pio(c->code);
    r->ranges = r->range = 0;
    r->scsi.host_error = 0;
    if (r->drive->unit.cdrom)
        drive_command(r, c);
    else
        disk_command(r, c);
}

void mull_ata_restore(struct mull_ata_request *r, bool packet, bool to_guest, uint64_t offset,
                      uint64_t left)
{
    struct mull_dma *d = &r->scsi.dma;

    r->queued = false;
    r->packet = packet;
    r->pio = true;
    r->scsi.host_error = 0;
    r->scsi.pattern = NULL;
    r->scsi.unit = &r->drive->unit;
    r->scsi.autosense = false;
    r->scsi.complete = packet_done;
    d->then = packet ? scsi_data_done : data_done;
    d->to_guest = to_guest;
    d->offset = offset;
    d->left = left;
}

void mull_ata_drive_init(struct mull_ata_drive *drive, const struct mull_drive *config, bool sata)
{
    drive->present = config->present;
    drive->sata = sata;
    mull_scsi_unit_init(&drive->unit, config);
}

void mull_ata_drive_reset(struct mull_ata_drive *drive)
{
    drive->multiple = 16;
    drive->error_tag = drive->error_status = drive->error_error = 0;
    mull_scsi_unit_reset(&drive->unit);
}
