/*
 * ATA disks (ATA8-ACS): what a driver needs of the command set. Everything else is aborted, as the
 * standard wants it.
 */
#include <string.h>

#include "device/storage/ahci_internal.h"

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

static void identify_common(const struct ahci_port *p, uint16_t id[256])
{
    put_string(id, 10, 10, p->drive.serial);
    put_string(id, 23, 4, "1.0");
    put_string(id, 27, 20, p->drive.cdrom ? "MULLION CD-ROM" : "MULLION DISK");
    id[48] = 1;
    id[49] = 0x0f00; /* DMA, LBA, IORDY */
    id[50] = 0x4000;
    id[53] = 7;
    id[63] = 0x0007; /* multiword DMA modes */
    id[64] = 0x0003;
    id[65] = id[66] = id[67] = id[68] = 120;
    id[76] = 0x0006 | (p->drive.cdrom ? 0 : 1u << 8); /* 1.5 and 3 Gb/s, NCQ */
    id[80] = 0x01f0;                                  /* ATA-4 to ATA8 */
    id[88] = 0x203f;                                  /* Ultra DMA 5 */
}

void ahci_identify(const struct ahci_port *p, uint16_t id[256])
{
    memset(id, 0, 512);
    identify_common(p, id);
    if (p->drive.cdrom) {
        id[0] = 0x8580; /* ATAPI, CD-ROM, removable, 12-byte packets */
        id[82] = 0x4010;
        id[83] = 0x4000;
        id[84] = 0x4000;
        return;
    }
    uint64_t cylinders = p->sectors / (16 * 63);
    uint32_t small = p->sectors > 0x0fffffff ? 0x0fffffff : (uint32_t)p->sectors;
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
    id[75] = AHCI_SLOTS - 1;
    id[82] = 0x4020; /* write cache */
    id[83] = 0x7400; /* 48-bit addresses, FLUSH CACHE (EXT) */
    id[84] = 0x4000;
    id[85] = 0x4020;
    id[86] = 0x3400;
    id[87] = 0x4000;
    for (unsigned i = 0; i < 4; i++)
        id[100 + i] = (uint16_t)(p->sectors >> 16 * i);
    id[106] = 0x6003; /* 4 KiB of physical sector */
    id[217] = 1;      /* not rotating */
}

static void abort_command(struct ahci_request *r)
{
    ahci_finish(r, ATA_GOOD | ATA_ERR, ATA_ABORTED);
}

static void transfer(struct ahci_request *r, bool to_guest, uint64_t lba, uint32_t count)
{
    const struct ahci_port *p = r->port;

    if (lba > p->sectors || count > p->sectors - lba) {
        ahci_finish(r, ATA_GOOD | ATA_ERR, ATA_NOT_FOUND);
        return;
    }
    if (!to_guest && p->drive.readonly) {
        abort_command(r);
        return;
    }
    ahci_transfer(r, to_guest, lba * ATA_SECTOR, (uint64_t)count * ATA_SECTOR);
}

/* 28-bit commands have four more address bits in the device register. */
static void transfer28(struct ahci_request *r, const struct ahci_command *c, bool to_guest)
{
    uint32_t count = c->count & 0xff ? c->count & 0xff : 256;
    transfer(r, to_guest, (c->lba & 0xffffff) | (uint64_t)(c->device & 15) << 24, count);
}

static void transfer48(struct ahci_request *r, const struct ahci_command *c, bool to_guest)
{
    transfer(r, to_guest, c->lba, c->count ? c->count : 65536);
}

/* NCQ: the count is in the features, the tag in the count; the slot is free for CI at once. */
static void transfer_queued(struct ahci_request *r, const struct ahci_command *c, bool to_guest)
{
    struct ahci_port *p = r->port;

    if (c->count >> 3 != r->slot) {
        abort_command(r);
        return;
    }
    r->queued = true;
    p->ci &= ~(1u << r->slot);
    transfer(r, to_guest, c->lba, c->features ? c->features : 65536);
}

static void send(struct ahci_request *r, const void *data, uint32_t len)
{
    r->pio = true;
    if (ahci_copy_out(r, data, len) == len)
        ahci_finish(r, ATA_GOOD, 0);
    else
        abort_command(r);
}

static void identify(struct ahci_request *r)
{
    uint16_t id[256];

    ahci_identify(r->port, id);
    send(r, id, sizeof(id));
}

/* The log of the last failed queued command (page 10h). */
static void read_log(struct ahci_request *r, const struct ahci_command *c)
{
    struct ahci_port *p = r->port;
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

static void set_multiple(struct ahci_request *r, uint8_t count)
{
    if (count > MAX_MULTIPLE || (count & (count - 1))) {
        abort_command(r);
        return;
    }
    r->port->multiple = count;
    ahci_finish(r, ATA_GOOD, 0);
}

void ahci_ata_command(struct ahci_request *r, const struct ahci_command *c)
{
    switch (c->code) {
    case 0xec:
        identify(r);
        break;
    case 0x20: /* READ SECTORS, MULTIPLE: the same to a guest that looks at memory only */
    case 0x21:
    case 0xc4:
        r->pio = true;
        transfer28(r, c, true);
        break;
    case 0x24:
    case 0x29:
        r->pio = true;
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
    case 0xe7:
    case 0xea:
        ahci_flush(r);
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
            ahci_finish(r, ATA_GOOD, 0);
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
        ahci_finish(r, ATA_GOOD, 0);
        break;
    default:
        abort_command(r);
    }
}
