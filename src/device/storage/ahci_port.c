/*
 * A port's command list (AHCI 1.3.1, chapters 4 and 5): fetches commands, moves their data between
 * guest memory and the block device in pieces that fit a request, and posts the FISes that tell the
 * guest of the end. All in the loop's thread, with the adapter's lock held.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "device/storage/ahci_internal.h"

#define CMD_ST 0x01u
#define CMD_FRE 0x10u
#define CMD_CR 0x8000u

#define FIS_H2D 0x27u
#define FIS_D2H 0x34u
#define FIS_SET_BITS 0xa1u
#define FIS_PIO_SETUP 0x5fu
#define RFIS_PIO 0x20u
#define RFIS_D2H 0x40u
#define RFIS_SET_BITS 0x58u
#define FIS_INTERRUPT 0x40u

#define HEADER_SIZE 32u
#define PRDT_OFFSET 0x80u
#define PRD_SIZE 16u

static struct mull_memory *memory(const struct ahci_port *p)
{
    return p->hba->env.memory;
}

/* ---- FISes to the guest ---- */

static void post(struct ahci_port *p, unsigned offset, const void *fis, unsigned size)
{
    if (p->cmd & CMD_FRE)
        mull_mem_write(memory(p), p->fb + offset, fis, size);
}

static void post_d2h(struct ahci_port *p, uint8_t status, uint8_t error, bool signature)
{
    uint8_t fis[20] = {FIS_D2H, FIS_INTERRUPT, status, error};

    if (signature) {
        fis[4] = (uint8_t)(p->sig >> 8);
        fis[5] = (uint8_t)(p->sig >> 16);
        fis[6] = (uint8_t)(p->sig >> 24);
        fis[12] = (uint8_t)p->sig;
    }
    post(p, RFIS_D2H, fis, sizeof(fis));
}

static void post_pio_setup(struct ahci_port *p, uint8_t status, bool to_guest, uint32_t bytes)
{
    uint8_t fis[20] = {FIS_PIO_SETUP, (uint8_t)(FIS_INTERRUPT | (to_guest ? 0x20 : 0)),
                       ATA_GOOD | ATA_DRQ};

    fis[15] = status;
    fis[16] = (uint8_t)bytes;
    fis[17] = (uint8_t)(bytes >> 8);
    post(p, RFIS_PIO, fis, sizeof(fis));
}

static void post_set_bits(struct ahci_port *p, uint32_t bits, uint8_t status, uint8_t error)
{
    uint8_t fis[8] = {FIS_SET_BITS, FIS_INTERRUPT, status & 0x77, error};

    memcpy(fis + 4, &bits, 4);
    post(p, RFIS_SET_BITS, fis, sizeof(fis));
}

void ahci_port_signature(struct ahci_port *p)
{
    p->sig = p->drive.cdrom ? 0xeb140101 : 0x00000101;
    uint8_t status = p->drive.cdrom ? ATA_SEEK : ATA_GOOD;
    p->tfd = 0x100u | status;
    post_d2h(p, status, 1, true);
}

/* ---- The end of a command ---- */

static uint64_t header_address(const struct ahci_port *p, unsigned slot)
{
    return p->clb + HEADER_SIZE * slot;
}

static void note_end(struct ahci_port *p)
{
    if (!p->stopping || p->in_flight)
        return;
    p->stopping = false;
    p->cmd &= ~CMD_CR;
    p->ci = p->sact = p->started = 0;
}

static void finish_queued(struct ahci_request *r, uint8_t status, uint8_t error)
{
    struct ahci_port *p = r->port;
    uint32_t bit = 1u << r->slot;

    p->tfd = (uint32_t)error << 8 | status;
    if (status & ATA_ERR) {
        p->error_tag = (uint8_t)r->slot;
        p->error_status = status;
        p->error_error = error;
        p->failed = true;
        post_set_bits(p, 0, status, error);
        ahci_port_interrupt(p, PORT_TFES | PORT_SDBS);
        return;
    }
    p->sact &= ~bit;
    post_set_bits(p, bit, status, error);
    ahci_port_interrupt(p, PORT_SDBS);
}

void ahci_finish(struct ahci_request *r, uint8_t status, uint8_t error)
{
    struct ahci_port *p = r->port;
    uint32_t bit = 1u << r->slot;
    bool mine = r->generation == p->generation; /* else a reset has made it forgotten */

    r->active = false;
    p->in_flight--;
    if (mine && r->queued) {
        p->started &= ~bit;
        finish_queued(r, status, error);
    } else if (mine) {
        p->started &= ~bit;
        mull_mem_write32(memory(p), header_address(p, r->slot) + 4, (uint32_t)r->done_bytes);
        p->tfd = (uint32_t)error << 8 | status;
        bool pio = r->pio && r->to_guest && !(status & ATA_ERR);
        if (pio)
            post_pio_setup(p, status, true, (uint32_t)r->done_bytes);
        else
            post_d2h(p, status, error, false);
        if (status & ATA_ERR) {
            p->failed = true;
            ahci_port_interrupt(p, PORT_TFES | PORT_DHRS);
        } else {
            p->ci &= ~bit;
            ahci_port_interrupt(p, pio ? PORT_PSS : PORT_DHRS);
        }
    }
    note_end(p);
}

void ahci_port_stop(struct ahci_port *p)
{
    p->stopping = true;
    p->generation++; /* what is on its way ends silently */
    p->started = 0;
    p->ci = p->sact = 0;
    note_end(p);
}

/* ---- Data ---- */

/* The rest of the current buffer of a command. @return false: there is none */
static bool next_piece(struct ahci_request *r, uint64_t *gpa, uint32_t *len)
{
    while (r->entry < r->entries) {
        struct {
            uint64_t address;
            uint32_t reserved, control;
        } prd;
        if (mull_mem_read(memory(r->port), r->prdt + (uint64_t)PRD_SIZE * r->entry, &prd,
                          sizeof(prd)))
            return false;
        uint32_t size = (prd.control & 0x3fffff) + 1;
        if (r->entry_done < size) {
            *gpa = (prd.address & ~1ull) + r->entry_done;
            *len = size - r->entry_done;
            return true;
        }
        r->entry++;
        r->entry_done = 0;
    }
    return false;
}

static uint32_t copy(struct ahci_request *r, uint8_t *data, uint32_t len, bool out)
{
    uint32_t done = 0, piece;
    uint64_t gpa;

    while (done < len && next_piece(r, &gpa, &piece)) {
        uint32_t n = piece < len - done ? piece : len - done;
        int ret = out ? mull_mem_write(memory(r->port), gpa, data + done, n)
                      : mull_mem_read(memory(r->port), gpa, data + done, n);
        if (ret)
            break;
        r->entry_done += n;
        done += n;
    }
    r->done_bytes += done;
    return done;
}

uint32_t ahci_copy_out(struct ahci_request *r, const void *data, uint32_t len)
{
    r->to_guest = true;
    return copy(r, (uint8_t *)(uintptr_t)data, len, true);
}

uint32_t ahci_copy_in(struct ahci_request *r, void *data, uint32_t len)
{
    return copy(r, data, len, false);
}

/* Gather vectors for the next part of a transfer. @return its bytes, 0: no buffer, or not RAM */
static uint64_t gather(struct ahci_request *r)
{
    uint64_t total = 0, gpa;
    uint32_t piece;

    r->block.niov = 0;
    r->segments = 0;
    while (total < r->left && r->segments < AHCI_SEGMENTS && next_piece(r, &gpa, &piece)) {
        if (piece > r->left - total)
            piece = (uint32_t)(r->left - total);
        int n = mull_mem_iov(memory(r->port), gpa, piece, r->to_guest, r->block.iov + r->block.niov,
                             MULL_BLOCK_MAX_IOV - r->block.niov);
        if (n == -E2BIG)
            break;
        if (n < 0)
            return 0;
        r->block.niov += n;
        r->segment[r->segments].gpa = gpa;
        r->segment[r->segments++].len = piece;
        r->entry_done += piece;
        total += piece;
    }
    return total;
}

static void transfer_done(struct mull_block_request *block, int result);

static void submit_next(struct ahci_request *r)
{
    uint64_t length = gather(r);

    if (!length) {
        ahci_finish(r, ATA_GOOD | ATA_ERR, ATA_ABORTED);
        return;
    }
    r->block.op = r->to_guest ? MULL_BLOCK_READ : MULL_BLOCK_WRITE;
    r->block.offset = r->offset;
    r->block.length = length;
    r->block.may_unmap = false;
    r->block.done = transfer_done;
    r->offset += length;
    r->left -= length;
    mull_block_submit(r->port->drive.block, &r->block);
}

static void complain(struct ahci_request *r, int result)
{
    struct ahci *h = r->port->hba;

    mull_log_limited(h->env.log, h->complaints, 8, MULL_LOG_WARN,
                     "%s: port %u: byte %llu, %llu bytes: %s; the guest gets an I/O error",
                     h->device.name, r->port->index, (unsigned long long)r->block.offset,
                     (unsigned long long)r->block.length, strerror(-result));
}

static void transfer_done(struct mull_block_request *block, int result)
{
    struct ahci_request *r = (struct ahci_request *)block;
    struct ahci_port *p = r->port;

    pthread_mutex_lock(&p->hba->lock);
    if (!result && r->to_guest)
        for (unsigned i = 0; i < r->segments; i++)
            mull_mem_wrote(memory(p), r->segment[i].gpa, r->segment[i].len);
    if (result) {
        complain(r, result);
        p->sense_key = 3; /* medium error: unrecovered read error */
        p->sense_code = 0x11;
        p->sense_qualifier = 0;
        ahci_finish(r, ATA_GOOD | ATA_ERR, p->drive.cdrom ? 3 << 4 : ATA_UNCORRECTABLE);
    } else {
        r->done_bytes += r->block.length;
        if (r->left && r->generation == p->generation)
            submit_next(r);
        else
            ahci_finish(r, ATA_GOOD, 0);
    }
    ahci_port_run(p);
    pthread_mutex_unlock(&p->hba->lock);
}

void ahci_transfer(struct ahci_request *r, bool to_guest, uint64_t offset, uint64_t length)
{
    r->to_guest = to_guest;
    r->offset = offset;
    r->left = length;
    if (length)
        submit_next(r);
    else
        ahci_finish(r, ATA_GOOD, 0);
}

static void flush_done(struct mull_block_request *block, int result)
{
    struct ahci_request *r = (struct ahci_request *)block;
    struct ahci_port *p = r->port;

    pthread_mutex_lock(&p->hba->lock);
    if (result)
        complain(r, result);
    ahci_finish(r, result ? ATA_GOOD | ATA_ERR : ATA_GOOD, result ? ATA_ABORTED : 0);
    ahci_port_run(p);
    pthread_mutex_unlock(&p->hba->lock);
}

void ahci_flush(struct ahci_request *r)
{
    r->block.op = MULL_BLOCK_FLUSH;
    r->block.offset = r->block.length = 0;
    r->block.niov = 0;
    r->block.done = flush_done;
    mull_block_submit(r->port->drive.block, &r->block);
}

/* ---- Fetching commands ---- */

static struct ahci_request *get_request(struct ahci_port *p, unsigned slot)
{
    if (!p->request[slot])
        p->request[slot] = calloc(1, sizeof(*p->request[slot]));
    struct ahci_request *r = p->request[slot];
    if (!r || r->active)
        return NULL;
    r->port = p;
    r->slot = slot;
    r->queued = r->to_guest = r->pio = false;
    r->active = true;
    r->offset = r->left = r->done_bytes = 0;
    r->entry = r->entry_done = r->segments = 0;
    r->generation = p->generation;
    return r;
}

static void decode(const uint8_t fis[64], struct ahci_command *c)
{
    c->code = fis[2];
    c->features = (uint16_t)(fis[3] | fis[11] << 8);
    c->device = fis[7];
    c->lba = fis[4] | (uint64_t)fis[5] << 8 | (uint64_t)fis[6] << 16 | (uint64_t)fis[8] << 24 |
             (uint64_t)fis[9] << 32 | (uint64_t)fis[10] << 40;
    c->count = (uint16_t)(fis[12] | fis[13] << 8);
}

/* A write of the control register: software reset. */
static void control(struct ahci_request *r, uint8_t value)
{
    struct ahci_port *p = r->port;

    p->ci &= ~(1u << r->slot);
    p->started &= ~(1u << r->slot);
    r->active = false;
    p->in_flight--;
    if (!(value & 4))
        ahci_port_signature(p);
}

static void begin(struct ahci_port *p, unsigned slot)
{
    struct {
        uint32_t flags, bytes;
        uint64_t table;
    } header;
    uint8_t fis[64];
    struct ahci_command c = {0};
    struct ahci_request *r = get_request(p, slot);

    if (!r)
        return; /* one of before a reset is still on its way: later */
    p->started |= 1u << slot;
    p->in_flight++;
    if (mull_mem_read(memory(p), header_address(p, slot), &header, sizeof(header)) ||
        mull_mem_read(memory(p), header.table & ~0x7full, fis, sizeof(fis)) || fis[0] != FIS_H2D ||
        mull_mem_read(memory(p), (header.table & ~0x7full) + 0x40, c.packet, sizeof(c.packet))) {
        ahci_finish(r, ATA_GOOD | ATA_ERR, ATA_ABORTED);
        return;
    }
    if (!(fis[1] & 0x80)) {
        control(r, fis[15]);
        return;
    }
    r->prdt = (header.table & ~0x7full) + PRDT_OFFSET;
    r->entries = header.flags >> 16;
    c.atapi = header.flags & 0x20;
    c.write = header.flags & 0x40;
    decode(fis, &c);
    if (p->drive.cdrom)
        ahci_atapi_command(r, &c);
    else
        ahci_ata_command(r, &c);
}

void ahci_port_run(struct ahci_port *p)
{
    if (!(p->cmd & CMD_ST) || !p->drive.present)
        return;
    for (unsigned slot = 0; slot < AHCI_SLOTS && !p->failed; slot++)
        if ((p->ci >> slot & 1) && !(p->started >> slot & 1))
            begin(p, slot);
}
