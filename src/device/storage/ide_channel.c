/*
 * A channel's commands (ATA8-APT, chapter 9 of ATA/ATAPI-7 volume 2): by PIO through a buffer, or
 * by the bus master (Programming Interface for Bus Master IDE Controller 1.0). Registers are
 * accessed by vCPUs; whatever reaches a disk happens in the loop's thread.
 */
#include <string.h>

#include "device/storage/ide_internal.h"

#define CODE_DEVICE_RESET 0x08u
#define CODE_DIAGNOSTIC 0x90u
#define CODE_PACKET 0xa0u
#define CODE_IDENTIFY 0xecu
#define PACKET_SIZE 12u

static struct ide_registers *regs(struct ide_channel *c)
{
    return &c->reg[ide_selected(c)];
}

static struct mull_ata_drive *drive(struct ide_channel *c)
{
    return &c->drive[ide_selected(c)];
}

/* ---- Interrupts ---- */

void ide_update_line(struct ide_channel *c)
{
    mull_irq_set(&c->line, c->irq && !(c->control & CONTROL_NIEN));
}

static void interrupt(struct ide_channel *c)
{
    c->irq = true;
    if (!(c->control & CONTROL_NIEN))
        c->bm_status |= BM_INTERRUPT;
    ide_update_line(c);
}

static void run_posted(void *opaque)
{
    struct ide_channel *c = opaque;

    pthread_mutex_lock(&c->ide->lock);
    c->posted = false;
    ide_channel_run(c);
    pthread_mutex_unlock(&c->ide->lock);
}

static void post(struct ide_channel *c)
{
    if (!c->posted)
        c->posted = !mull_loop_post(c->ide->env.loop, run_posted, c);
}

/* ---- The end of a command ---- */

static void set_signature(struct ide_channel *c, unsigned i)
{
    struct ide_registers *r = &c->reg[i];
    bool packet = c->drive[i].unit.cdrom;
    uint32_t signature = packet ? ATA_SIGNATURE_PACKET : ATA_SIGNATURE_DISK;

    r->count[0] = (uint8_t)signature;
    r->low[0] = (uint8_t)(signature >> 8);
    r->mid[0] = (uint8_t)(signature >> 16);
    r->high[0] = (uint8_t)(signature >> 24);
}

static void end(struct ide_channel *c, uint8_t status, uint8_t error, bool tell)
{
    struct ide_registers *r = regs(c);

    c->phase = IDE_IDLE;
    r->status = status;
    r->error = error;
    c->bm_status &= ~BM_ACTIVE;
    if (c->command == CODE_PACKET)
        r->count[0] = REASON_COMMAND | REASON_TO_HOST;
    if (tell)
        interrupt(c);
}

/* ---- PIO ---- */

/* The next block of the buffer is the guest's. */
static void begin_block(struct ide_channel *c)
{
    struct ide_registers *r = regs(c);
    uint32_t left = c->staged - c->at, size = left < c->block ? left : c->block;

    c->phase = IDE_DATA;
    c->block_end = c->at + size;
    r->status = ATA_GOOD | ATA_DRQ;
    if (c->command == CODE_PACKET) {
        r->count[0] = c->to_guest ? REASON_TO_HOST : 0;
        r->mid[0] = (uint8_t)size;
        r->high[0] = (uint8_t)(size >> 8);
    }
    if (!c->first)
        interrupt(c);
    c->first = false;
}

static void begin_buffer(struct ide_channel *c, uint32_t bytes, bool to_guest)
{
    c->staged = bytes;
    c->to_guest = to_guest;
    c->at = 0;
    begin_block(c);
}

static void stage(struct mull_dma *d, uint32_t bytes)
{
    struct ide_request *r = (struct ide_request *)d;

    if (r->forgotten) { /* nobody will empty it: end the request */
        d->cancelled = true;
        mull_dma_staged(d);
        return;
    }
    r->channel->streamed = true;
    begin_buffer(r->channel, bytes, d->to_guest);
}

/* The guest has moved a block's last byte. */
static void block_done(struct ide_channel *c)
{
    struct mull_dma *d = &c->request.ata.scsi.dma;

    if (c->at < c->staged) {
        begin_block(c);
    } else if (!c->streamed) { /* it was an answer, and has been read */
        end(c, c->end_status, c->end_error, c->command == CODE_PACKET);
    } else if (c->to_guest && !d->left) {
        c->phase = IDE_RUNNING;
        mull_dma_staged(d); /* nothing more to do: not only in the loop's thread */
    } else {
        c->phase = IDE_DATA_DONE;
        regs(c)->status = ATA_BUSY;
        post(c);
    }
}

static void start_packet(struct ide_channel *c)
{
    c->phase = IDE_WAITING;
    regs(c)->status = ATA_BUSY;
    post(c);
}

uint32_t ide_data_read(struct ide_channel *c, unsigned size)
{
    uint32_t value = 0;

    if (c->phase != IDE_DATA || !c->to_guest)
        return 0;
    uint32_t n = c->block_end - c->at < size ? c->block_end - c->at : size;
    memcpy(&value, c->buffer + c->at, n);
    c->at += n;
    if (c->at == c->block_end)
        block_done(c);
    return value;
}

void ide_data_write(struct ide_channel *c, unsigned size, uint32_t value)
{
    if (c->phase == IDE_PACKET) {
        uint32_t n = PACKET_SIZE - c->at < size ? PACKET_SIZE - c->at : size;
        memcpy(c->packet + c->at, &value, n);
        c->at += n;
        if (c->at == PACKET_SIZE)
            start_packet(c);
        return;
    }
    if (c->phase != IDE_DATA || c->to_guest)
        return;
    uint32_t n = c->block_end - c->at < size ? c->block_end - c->at : size;
    memcpy(c->buffer + c->at, &value, n);
    c->at += n;
    if (c->at == c->block_end)
        block_done(c);
}

/* ---- Bus master ---- */

static bool next_buffer(struct mull_dma *d, uint64_t *gpa, uint32_t *len)
{
    struct ide_request *r = (struct ide_request *)d;
    struct {
        uint32_t address;
        uint16_t count, flags;
    } prd;

    if (r->prd_end || mull_mem_read(d->memory, r->prd, &prd, sizeof(prd)))
        return false;
    r->prd += sizeof(prd);
    r->prd_end = prd.flags & 0x8000;
    *gpa = prd.address & ~1u;
    *len = prd.count & 0xfffe ? prd.count & 0xfffe : 65536;
    return true;
}

void ide_bus_master(struct ide_channel *c, bool start)
{
    if (start) {
        c->bm_status |= BM_ACTIVE;
        if (c->phase == IDE_WAITING)
            post(c);
    } else {
        c->bm_status &= ~BM_ACTIVE;
        if (c->phase == IDE_RUNNING)
            c->request.ata.scsi.dma.cancelled = true;
    }
}

/* ---- Requests ---- */

static void enter(struct mull_dma *d)
{
    pthread_mutex_lock(&((struct ide_request *)d)->channel->ide->lock);
}

static void leave(struct mull_dma *d)
{
    struct ide_channel *c = ((struct ide_request *)d)->channel;

    ide_channel_run(c);
    pthread_mutex_unlock(&c->ide->lock);
}

static const struct mull_dma_ops dma_ops = {
    .next = next_buffer, .enter = enter, .leave = leave, .stage = stage};

static void finish(struct mull_ata_request *ata, uint8_t status, uint8_t error)
{
    struct ide_request *r = (struct ide_request *)ata;
    struct ide_channel *c = r->channel;
    struct mull_dma *d = &ata->scsi.dma;
    bool failed = status & ATA_ERR;

    r->active = false;
    if (ata->scsi.host_error)
        mull_dma_complain(d, c->ide->env.log, &c->ide->complaints, c->ide->device.name,
                          ata->scsi.host_error);
    if (r->forgotten)
        return;
    if (d->staging && d->to_guest && d->done_bytes && !c->streamed && !failed) {
        c->end_status = status;
        c->end_error = error;
        begin_buffer(c, (uint32_t)d->done_bytes, true);
        return;
    }
    if (failed && c->command == CODE_IDENTIFY && drive(c)->unit.cdrom)
        set_signature(c, ide_selected(c));
    if (failed && !d->staging)
        c->bm_status |= BM_ERROR;
    /* The last block of a disk's PIO read is not followed by another interrupt. */
    end(c, status, error,
        failed || !d->staging || !d->to_guest || !c->streamed || c->command == CODE_PACKET);
}

static bool is_dma(const struct ide_channel *c)
{
    static const uint8_t list[] = {0x06, 0x25, 0x35, 0xc8, 0xca};

    if (c->command == CODE_PACKET)
        return c->reg[ide_selected(c)].features[0] & 1;
    return memchr(list, c->command, sizeof(list));
}

/* The block address: LBA of 28 or 48 bits, or cylinder, head and sector of the geometry that
 * IDENTIFY tells. */
static uint64_t address(const struct ide_channel *c, const struct ide_registers *r)
{
    uint64_t lba = r->low[0] | (uint32_t)r->mid[0] << 8 | (uint32_t)r->high[0] << 16;

    if (!(c->device & 0x40)) {
        uint32_t cylinder = r->mid[0] | (uint32_t)r->high[0] << 8;
        lba = ((uint64_t)cylinder * 16 + (c->device & 15)) * 63 + r->low[0] - 1;
        return lba & 0xfffffff;
    }
    return lba | (uint64_t)r->low[1] << 24 | (uint64_t)r->mid[1] << 32 | (uint64_t)r->high[1] << 40;
}

static void decode(const struct ide_channel *c, struct mull_ata_command *out)
{
    const struct ide_registers *r = &c->reg[ide_selected(c)];

    out->code = c->command;
    out->device = c->device;
    out->features = (uint16_t)(r->features[0] | r->features[1] << 8);
    out->count = (uint16_t)(r->count[0] | r->count[1] << 8);
    out->lba = address(c, r);
    if (!(c->device & 0x40))
        out->device = (uint8_t)((c->device & 0xf0) | (out->lba >> 24 & 15));
    memcpy(out->packet, c->packet, sizeof(out->packet));
}

/* Bytes between two interrupts. */
static uint32_t block_size(const struct ide_channel *c)
{
    const struct ide_registers *r = &c->reg[ide_selected(c)];
    const struct mull_ata_drive *d = &c->drive[ide_selected(c)];
    uint32_t limit = (r->mid[0] | (uint32_t)r->high[0] << 8) & 0xfffe;

    if (c->command == CODE_PACKET)
        return limit && limit < IDE_BUFFER ? limit : IDE_BUFFER;
    if ((c->command == 0xc4 || c->command == 0xc5 || c->command == 0x29 || c->command == 0x39) &&
        d->multiple)
        return d->multiple * ATA_SECTOR;
    return ATA_SECTOR;
}

/* The request that carries the command out, as far as the command itself does not matter. */
static void set_up_request(struct ide_channel *c, bool dma)
{
    struct ide_request *r = &c->request;
    struct mull_dma *d = &r->ata.scsi.dma;

    mull_dma_begin(d, &dma_ops, c->ide->env.memory, drive(c)->unit.block);
    if (!dma) {
        d->staging = c->buffer;
        d->staging_size = IDE_BUFFER;
    }
    r->ata.drive = drive(c);
    r->ata.tag = 0;
    r->ata.accepted = NULL;
    r->ata.finish = finish;
    r->channel = c;
    r->active = true;
    r->forgotten = false;
    r->prd = c->bm_table;
    r->prd_end = false;
}

/* A disk announces each block that it has read, but wants the first of what it writes unasked. */
static bool is_pio_write(uint8_t code)
{
    static const uint8_t list[] = {0x30, 0x31, 0x34, 0x39, 0xc5};
    return memchr(list, code, sizeof(list));
}

static void start(struct ide_channel *c)
{
    struct mull_ata_command command;
    bool dma = is_dma(c);

    if (c->request.active || (dma && !(c->bm_command & BM_START)))
        return; /* one of before a reset is still on its way; or the bus master is not ready */
    decode(c, &command);
    set_up_request(c, dma);
    c->phase = IDE_RUNNING;
    c->streamed = false;
    c->block = block_size(c);
    c->first = is_pio_write(c->command);
    mull_ata_start(&c->request.ata, &command);
}

void ide_channel_run(struct ide_channel *c)
{
    if (c->ide->paused)
        return;
    if (c->phase == IDE_WAITING) {
        start(c);
    } else if (c->phase == IDE_DATA_DONE) {
        c->phase = IDE_RUNNING;
        mull_dma_staged(&c->request.ata.scsi.dma);
    }
}

/* ---- Commands without a request ---- */

/* What waits for the guest will never be asked for; what waits for the disk ends by itself. */
static void forget_request(struct ide_channel *c)
{
    if (c->phase == IDE_DATA || c->phase == IDE_DATA_DONE)
        c->request.active = false;
    c->request.forgotten = true;
    c->request.ata.scsi.dma.cancelled = true;
    c->phase = IDE_IDLE;
}

static void diagnostic(struct ide_channel *c)
{
    c->device &= ~0x10;
    for (unsigned i = 0; i < 2; i++) {
        set_signature(c, i);
        c->reg[i].error = 1; /* both passed */
        c->reg[i].status = c->drive[i].unit.cdrom ? 0 : ATA_GOOD;
    }
    interrupt(c);
}

void ide_command(struct ide_channel *c, uint8_t code)
{
    struct ide_registers *r = regs(c);

    if (!drive(c)->present || (c->control & CONTROL_SRST))
        return;
    if (code == CODE_DEVICE_RESET && drive(c)->unit.cdrom) {
        forget_request(c);
        set_signature(c, ide_selected(c));
        r->status = 0;
        r->error = 1;
        return;
    }
    if (r->status & (ATA_BUSY | ATA_DRQ))
        return;
    c->irq = false;
    ide_update_line(c);
    c->command = code;
    r->error = 0;
    if (code == CODE_DIAGNOSTIC) {
        diagnostic(c);
    } else if (code == CODE_PACKET && drive(c)->unit.cdrom) {
        c->phase = IDE_PACKET;
        c->at = 0;
        memset(c->packet, 0, sizeof(c->packet));
        r->status = ATA_GOOD | ATA_DRQ;
        r->count[0] = REASON_COMMAND;
    } else {
        c->phase = IDE_WAITING;
        r->status = ATA_BUSY;
        post(c);
    }
}

void ide_channel_reset(struct ide_channel *c)
{
    forget_request(c);
    c->irq = false;
    c->device = 0;
    for (unsigned i = 0; i < 2; i++) {
        memset(&c->reg[i], 0, sizeof(c->reg[i]));
        set_signature(c, i);
        c->reg[i].error = 1;
        c->reg[i].status = c->drive[i].unit.cdrom ? 0 : ATA_GOOD;
        c->drive[i].multiple = 16;
    }
    ide_update_line(c);
}

/* ---- Saving ---- */

void ide_channel_note(struct ide_channel *c)
{
    const struct mull_dma *d = &c->request.ata.scsi.dma;

    c->offset = d->offset;
    c->left = d->left;
}

void ide_channel_restore(struct ide_channel *c)
{
    c->request.active = false;
    if ((c->phase != IDE_DATA && c->phase != IDE_DATA_DONE) || !c->streamed)
        return;
    set_up_request(c, false);
    mull_ata_restore(&c->request.ata, c->command == CODE_PACKET, c->to_guest, c->offset, c->left);
}
