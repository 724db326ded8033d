/*
 * SCSI disks (SBC-3) with 512-byte blocks, thin: reads and writes of all sizes, flushes, and the
 * commands that give space back.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "device/storage/scsi.h"

static bool in_range(const struct mull_scsi_unit *u, uint64_t lba, uint64_t count)
{
    return lba <= u->blocks && count <= u->blocks - lba;
}

/* @return false: the command has failed */
static bool check(struct mull_scsi_request *r, uint64_t lba, uint64_t count, bool writes)
{
    if (writes && r->unit->readonly)
        scsi_fail(r, SENSE_DATA_PROTECT, ASC_WRITE_PROTECTED);
    else if (!in_range(r->unit, lba, count))
        scsi_fail(r, SENSE_ILLEGAL_REQUEST, ASC_OUT_OF_RANGE);
    else
        return true;
    return false;
}

static uint64_t bytes(const struct mull_scsi_request *r, uint64_t blocks)
{
    return blocks * r->unit->block_size;
}

/* Block address and count by the CDB's size; each group has them elsewhere. */
static void address(const uint8_t *cdb, uint64_t *lba, uint32_t *count)
{
    switch (mull_scsi_cdb_length(cdb[0])) {
    case 6:
        *lba = scsi_get32(cdb) & 0x1fffff;
        *count = cdb[4] ? cdb[4] : 256;
        break;
    case 10:
        *lba = scsi_get32(cdb + 2);
        *count = scsi_get16(cdb + 7);
        break;
    case 12:
        *lba = scsi_get32(cdb + 2);
        *count = scsi_get32(cdb + 6);
        break;
    default:
        *lba = scsi_get64(cdb + 2);
        *count = scsi_get32(cdb + 10);
    }
}

static void transfer(struct mull_scsi_request *r, bool to_guest)
{
    uint64_t lba;
    uint32_t count;

    address(r->cdb, &lba, &count);
    if (r->cdb[0] >= 0x20 && (r->cdb[1] & 0xe0)) { /* protection information */
        scsi_fail(r, SENSE_ILLEGAL_REQUEST, ASC_INVALID_FIELD);
        return;
    }
    if (!check(r, lba, count, !to_guest))
        return;
    r->dma.durable = !to_guest && r->cdb[0] >= 0x20 && (r->cdb[1] & 8); /* FUA */
    mull_dma_transfer(&r->dma, to_guest, bytes(r, lba), bytes(r, count), scsi_data_done);
}

/* Nothing to compare with: what is there can be read, as far as we know. */
static void verify(struct mull_scsi_request *r)
{
    uint64_t lba;
    uint32_t count;

    address(r->cdb, &lba, &count);
    if (r->cdb[1] & 6)
        scsi_fail(r, SENSE_ILLEGAL_REQUEST, ASC_INVALID_FIELD);
    else if (check(r, lba, count, false))
        scsi_good(r);
}

static void synchronize(struct mull_scsi_request *r)
{
    uint64_t lba;
    uint32_t count;

    address(r->cdb, &lba, &count);
    if (check(r, lba, count, false))
        mull_dma_submit(&r->dma, MULL_BLOCK_FLUSH, 0, 0, false, scsi_data_done);
}

/* ---- UNMAP and WRITE SAME ---- */

static void unmap_next(struct mull_dma *d, int result)
{
    struct mull_scsi_request *r = (struct mull_scsi_request *)d;

    while (!result && r->range < r->ranges && !r->unmap[r->range].count)
        r->range++;
    if (result || r->range == r->ranges) {
        scsi_data_done(d, result == -EOPNOTSUPP ? 0 : result); /* it is only a hint */
        return;
    }
    unsigned i = r->range++;
    mull_dma_submit(d, MULL_BLOCK_DISCARD, bytes(r, r->unmap[i].lba), bytes(r, r->unmap[i].count),
                    true, unmap_next);
}

static void unmap(struct mull_scsi_request *r)
{
    uint8_t list[8 + 16 * MULL_SCSI_UNMAP_RANGES];
    uint32_t length = scsi_get16(r->cdb + 7);

    if (!length) {
        scsi_good(r);
        return;
    }
    if (length < 8 || length > sizeof(list) || mull_dma_copy_in(&r->dma, list, length) != length) {
        scsi_fail(r, SENSE_ILLEGAL_REQUEST, ASC_LIST_LENGTH);
        return;
    }
    uint32_t descriptors = scsi_get16(list + 2);
    if (descriptors % 16 || descriptors > length - 8) {
        scsi_fail(r, SENSE_ILLEGAL_REQUEST, ASC_INVALID_PARAMETER);
        return;
    }
    for (unsigned i = 0; i < descriptors / 16; i++) {
        const uint8_t *p = list + 8 + (size_t)16 * i;
        r->unmap[i].lba = scsi_get64(p);
        r->unmap[i].count = scsi_get32(p + 8);
        if (!check(r, r->unmap[i].lba, r->unmap[i].count, true))
            return;
    }
    r->ranges = descriptors / 16;
    unmap_next(&r->dma, 0);
}

static bool all_zero(const uint8_t *data, size_t len)
{
    return !data[0] && !memcmp(data, data + 1, len - 1);
}

static void write_same(struct mull_scsi_request *r)
{
    const uint32_t size = r->unit->block_size;
    bool no_data = mull_scsi_cdb_length(r->cdb[0]) == 16 && (r->cdb[1] & 1); /* NDOB */
    uint64_t lba;
    uint32_t count;

    address(r->cdb, &lba, &count);
    if ((r->cdb[1] & 0xe0) || !count || count > 0x3fffff) {
        scsi_fail(r, SENSE_ILLEGAL_REQUEST, ASC_INVALID_FIELD);
        return;
    }
    if (!check(r, lba, count, true))
        return;
    r->pattern = calloc(1, MULL_DMA_PATTERN);
    if (!r->pattern || (!no_data && mull_dma_copy_in(&r->dma, r->pattern, size) != size)) {
        scsi_fail(r, SENSE_ABORTED, ASC_DATA_PHASE);
        return;
    }
    if (all_zero(r->pattern, size)) {
        mull_dma_submit(&r->dma, MULL_BLOCK_ZERO, bytes(r, lba), bytes(r, count), r->cdb[1] & 8,
                        scsi_data_done);
        return;
    }
    for (uint32_t at = size; at < MULL_DMA_PATTERN; at += size)
        memcpy(r->pattern + at, r->pattern, size);
    mull_dma_fill(&r->dma, r->pattern, bytes(r, lba), bytes(r, count), scsi_data_done);
}

/* ---- Parameters ---- */

/* MODE SENSE (SPC-4, 6.13): the caching and control pages. */
static unsigned mode_pages(uint8_t page, bool changeable, uint8_t *data)
{
    unsigned size = 0;

    if (page == 0x08 || page == 0x3f) {
        data[size] = 0x08;
        data[size + 1] = 18;
        data[size + 2] = changeable ? 0 : 0x04; /* write cache */
        size += 20;
    }
    if (page == 0x0a || page == 0x3f) {
        data[size] = 0x0a;
        data[size + 1] = 10;
        data[size + 2] = changeable ? 0 : 0x02; /* sense data in fixed format */
        size += 12;
    }
    return size;
}

static void mode_sense(struct mull_scsi_request *r)
{
    bool ten = r->cdb[0] == 0x5a;
    uint8_t data[8 + 32] = {0};
    unsigned head = ten ? 8 : 4;
    uint8_t control = r->cdb[2] >> 6;
    /* Write protection, and that DPO and FUA are understood. */
    uint8_t specific = (uint8_t)((r->unit->readonly ? 0x80 : 0) | 0x10);

    unsigned size = mode_pages(r->cdb[2] & 0x3f, control == 1, data + head);
    if (!size || control == 3 || (r->cdb[3] && r->cdb[3] != 0xff)) {
        scsi_fail(r, SENSE_ILLEGAL_REQUEST, ASC_INVALID_FIELD);
        return;
    }
    size += head;
    if (ten) {
        scsi_put16(data, size - 2);
        data[3] = specific;
    } else {
        data[0] = (uint8_t)(size - 1);
        data[2] = specific;
    }
    scsi_answer(r, data, size, ten ? scsi_get16(r->cdb + 7) : r->cdb[4]);
}

static uint64_t last_block(const struct mull_scsi_unit *u)
{
    return u->blocks ? u->blocks - 1 : 0;
}

static void read_capacity(struct mull_scsi_request *r)
{
    uint64_t last = last_block(r->unit);
    uint8_t data[8];

    scsi_put32(data, last > 0xffffffff ? 0xffffffff : (uint32_t)last);
    scsi_put32(data + 4, r->unit->block_size);
    scsi_answer(r, data, sizeof(data), sizeof(data));
}

static void read_capacity16(struct mull_scsi_request *r)
{
    uint8_t data[32] = {0};

    if ((r->cdb[1] & 0x1f) != 0x10) {
        scsi_fail(r, SENSE_ILLEGAL_REQUEST, ASC_INVALID_FIELD);
        return;
    }
    scsi_put64(data, last_block(r->unit));
    scsi_put32(data + 8, r->unit->block_size);
    data[13] = 3;                            /* 8 logical blocks in a physical one */
    data[14] = r->unit->readonly ? 0 : 0x80; /* thin; a discarded range may read as anything */
    scsi_answer(r, data, sizeof(data), scsi_get32(r->cdb + 10));
}

void scsi_disk_command(struct mull_scsi_request *r)
{
    switch (r->cdb[0]) {
    case 0x00: /* TEST UNIT READY, START STOP UNIT, PREVENT MEDIUM REMOVAL: always ready */
    case 0x1b:
    case 0x1e:
        scsi_good(r);
        break;
    case 0x08:
    case 0x28:
    case 0xa8:
    case 0x88:
        transfer(r, true);
        break;
    case 0x0a:
    case 0x2a:
    case 0xaa:
    case 0x8a:
        transfer(r, false);
        break;
    case 0x2f:
    case 0xaf:
    case 0x8f:
        verify(r);
        break;
    case 0x35:
    case 0x91:
        synchronize(r);
        break;
    case 0x41:
    case 0x93:
        write_same(r);
        break;
    case 0x42:
        unmap(r);
        break;
    case 0x1a:
    case 0x5a:
        mode_sense(r);
        break;
    case 0x25:
        read_capacity(r);
        break;
    case 0x9e:
        read_capacity16(r);
        break;
    default:
        scsi_fail(r, SENSE_ILLEGAL_REQUEST, ASC_INVALID_COMMAND);
    }
}
