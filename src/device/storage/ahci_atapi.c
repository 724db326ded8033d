/*
 * CD-ROM drives: SCSI commands in packets (MMC-5, SPC-3). One data track, one session; the medium
 * can be ejected and loaded again by the guest.
 */
#include <string.h>

#include "device/storage/ahci_internal.h"

#define SENSE_NONE 0u
#define SENSE_NOT_READY 2u
#define SENSE_ILLEGAL_REQUEST 5u
#define SENSE_UNIT_ATTENTION 6u

static uint32_t be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static uint16_t be16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

static void put32(uint8_t *p, uint32_t v)
{
    for (unsigned i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> (24 - 8 * i));
}

static void put16(uint8_t *p, unsigned v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static void fail(struct ahci_request *r, uint8_t key, uint8_t code, uint8_t qualifier)
{
    struct ahci_port *p = r->port;

    p->sense_key = key;
    p->sense_code = code;
    p->sense_qualifier = qualifier;
    ahci_finish(r, ATA_GOOD | ATA_ERR, (uint8_t)(key << 4 | ATA_ABORTED));
}

static void good(struct ahci_request *r)
{
    r->port->sense_key = r->port->sense_code = r->port->sense_qualifier = 0;
    ahci_finish(r, ATA_GOOD, 0);
}

/* Answer with at most as much as was asked for. */
static void answer(struct ahci_request *r, const uint8_t *data, uint32_t len, uint32_t wanted)
{
    ahci_copy_out(r, data, len < wanted ? len : wanted);
    good(r);
}

static bool loaded(const struct ahci_port *p)
{
    return p->drive.block && !p->ejected;
}

/* @return false: the command has failed, because there is no medium or a new one */
static bool ready(struct ahci_request *r)
{
    struct ahci_port *p = r->port;

    if (!loaded(p)) {
        fail(r, SENSE_NOT_READY, 0x3a, 0);
        return false;
    }
    if (p->medium_changed) {
        p->medium_changed = false;
        fail(r, SENSE_UNIT_ATTENTION, 0x28, 0);
        return false;
    }
    return true;
}

static void read_sectors(struct ahci_request *r, uint32_t lba, uint32_t count)
{
    const struct ahci_port *p = r->port;

    if (lba > p->sectors || count > p->sectors - lba)
        fail(r, SENSE_ILLEGAL_REQUEST, 0x21, 0);
    else
        ahci_transfer(r, true, (uint64_t)lba * CD_SECTOR, (uint64_t)count * CD_SECTOR);
}

static void inquiry(struct ahci_request *r, const uint8_t *packet)
{
    uint8_t data[36] = {5, 0x80, 5, 0x32, 31};

    if (packet[1] & 1) {
        fail(r, SENSE_ILLEGAL_REQUEST, 0x24, 0);
        return;
    }
    memcpy(data + 8, "MULLION CD-ROM          1.0 ", 28);
    answer(r, data, sizeof(data), be16(packet + 3));
}

static void request_sense(struct ahci_request *r, const uint8_t *packet)
{
    struct ahci_port *p = r->port;
    uint8_t data[18] = {0x70};

    data[2] = p->sense_key;
    data[7] = 10;
    data[12] = p->sense_code;
    data[13] = p->sense_qualifier;
    answer(r, data, sizeof(data), packet[4]);
}

static void mode_sense(struct ahci_request *r, const uint8_t *packet)
{
    uint8_t data[8 + 22] = {0};
    uint8_t page = packet[2] & 0x3f;

    if ((packet[2] >> 6) == 3 || (page != 0x2a && page != 0x3f && page != 0x01)) {
        fail(r, SENSE_ILLEGAL_REQUEST, 0x24, 0);
        return;
    }
    unsigned size = 8;
    if (page == 0x01) { /* error recovery */
        data[8] = 0x01;
        data[9] = 6;
        size += 8;
    } else { /* capabilities */
        data[8] = 0x2a;
        data[9] = 20;
        data[14] = 0x29; /* tray, eject, lock */
        put16(data + 16, 706);
        put16(data + 22, 706);
        size += 22;
    }
    put16(data, size - 2);
    data[2] = loaded(r->port) ? 1 : 0x70;
    answer(r, data, size, be16(packet + 7));
}

static void read_capacity(struct ahci_request *r)
{
    uint8_t data[8];

    if (!ready(r))
        return;
    put32(data, (uint32_t)(r->port->sectors ? r->port->sectors - 1 : 0));
    put32(data + 4, CD_SECTOR);
    answer(r, data, sizeof(data), sizeof(data));
}

static void put_address(uint8_t *to, uint32_t lba, bool msf)
{
    if (!msf) {
        put32(to, lba);
        return;
    }
    lba += 150;
    to[0] = 0;
    to[1] = (uint8_t)(lba / 75 / 60);
    to[2] = (uint8_t)(lba / 75 % 60);
    to[3] = (uint8_t)(lba % 75);
}

static void read_toc(struct ahci_request *r, const uint8_t *packet)
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
        put_address(data + 16, (uint32_t)r->port->sectors, msf);
        size = 20;
    } else if (format == 0 && packet[6] == 0xaa) {
        data[6] = 0xaa;
        put_address(data + 8, (uint32_t)r->port->sectors, msf);
    } else if (format == 1) { /* sessions */
        data[6] = 1;
        put_address(data + 8, 0, msf);
    } else {
        fail(r, SENSE_ILLEGAL_REQUEST, 0x24, 0);
        return;
    }
    put16(data, size - 2);
    answer(r, data, size, be16(packet + 7));
}

static void get_configuration(struct ahci_request *r, const uint8_t *packet)
{
    uint8_t data[8 + 8] = {0};

    put32(data, 12);
    put16(data + 6, loaded(r->port) ? 8 : 0); /* current profile: CD-ROM */
    data[10] = 3;
    data[11] = 4;
    put16(data + 12, 8);
    data[14] = loaded(r->port);
    answer(r, data, sizeof(data), be16(packet + 7));
}

static void get_event_status(struct ahci_request *r, const uint8_t *packet)
{
    struct ahci_port *p = r->port;
    uint8_t data[8] = {0, 6, 4, 0x10};

    if (!(packet[1] & 1)) {
        fail(r, SENSE_ILLEGAL_REQUEST, 0x24, 0);
        return;
    }
    if (!(packet[4] & 0x10)) { /* only media events are there */
        data[1] = 2;
        data[2] = 0x80;
        answer(r, data, 4, be16(packet + 7));
        return;
    }
    data[4] = p->medium_changed ? (loaded(p) ? 2 : 3) : 0;
    data[5] = (uint8_t)((loaded(p) ? 2 : 0) | (p->ejected ? 1 : 0));
    answer(r, data, sizeof(data), be16(packet + 7));
}

static void read_disc_information(struct ahci_request *r, const uint8_t *packet)
{
    uint8_t data[34] = {0, 32, 0x0e, 1, 1, 1, 1, 0x20};

    if (ready(r))
        answer(r, data, sizeof(data), be16(packet + 7));
}

static void start_stop(struct ahci_request *r, const uint8_t *packet)
{
    struct ahci_port *p = r->port;

    if (packet[4] & 2) {
        bool eject = !(packet[4] & 1);
        p->medium_changed = p->ejected != eject;
        p->ejected = eject;
    }
    good(r);
}

static void packet_command(struct ahci_request *r, const uint8_t *packet)
{
    switch (packet[0]) {
    case 0x00: /* TEST UNIT READY */
        if (ready(r))
            good(r);
        break;
    case 0x03:
        request_sense(r, packet);
        break;
    case 0x12:
        inquiry(r, packet);
        break;
    case 0x1b:
        start_stop(r, packet);
        break;
    case 0x1e: /* PREVENT MEDIUM REMOVAL, SET CD SPEED */
    case 0xbb:
        good(r);
        break;
    case 0x25:
        read_capacity(r);
        break;
    case 0x28: /* READ (10), (12) */
        if (ready(r))
            read_sectors(r, be32(packet + 2), be16(packet + 7));
        break;
    case 0xa8:
        if (ready(r))
            read_sectors(r, be32(packet + 2), be32(packet + 6));
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
    case 0x5a:
        mode_sense(r, packet);
        break;
    default:
        fail(r, SENSE_ILLEGAL_REQUEST, 0x20, 0);
    }
}

void ahci_atapi_command(struct ahci_request *r, const struct ahci_command *c)
{
    uint16_t id[256];

    switch (c->code) {
    case 0xa0:
        packet_command(r, c->packet);
        break;
    case 0xa1:
        ahci_identify(r->port, id);
        r->pio = true;
        ahci_finish(
            r, ahci_copy_out(r, id, sizeof(id)) == sizeof(id) ? ATA_GOOD : ATA_GOOD | ATA_ERR, 0);
        break;
    case 0x08: /* DEVICE RESET */
        ahci_port_signature(r->port);
        ahci_finish(r, ATA_SEEK, 1);
        break;
    case 0xe0:
    case 0xe1:
    case 0xe6:
        ahci_finish(r, ATA_GOOD, 0);
        break;
    case 0xef:
        ahci_finish(r, (uint8_t)c->features == 0x03 ? ATA_GOOD : ATA_GOOD | ATA_ERR,
                    (uint8_t)c->features == 0x03 ? 0 : ATA_ABORTED);
        break;
    default:
        ahci_finish(r, ATA_GOOD | ATA_ERR, ATA_ABORTED);
    }
}
