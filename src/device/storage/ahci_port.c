/*
 * A port's command list (AHCI 1.3.1, chapters 4 and 5): fetches commands, finds
 * the guest's buffers for their data, and posts the FISes that tell the guest of the end. All in
 * the loop's thread, with the adapter's lock held.
 */
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
    p->sig = p->drive.unit.cdrom ? ATA_SIGNATURE_PACKET : ATA_SIGNATURE_DISK;
    uint8_t status = p->drive.unit.cdrom ? ATA_SEEK : ATA_GOOD;
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
    uint32_t bit = 1u << r->ata.tag;

    p->tfd = (uint32_t)error << 8 | status;
    if (status & ATA_ERR) {
        p->drive.error_tag = (uint8_t)r->ata.tag;
        p->drive.error_status = status;
        p->drive.error_error = error;
        p->failed = true;
        post_set_bits(p, 0, status, error);
        ahci_port_interrupt(p, PORT_TFES | PORT_SDBS);
        return;
    }
    p->sact &= ~bit;
    post_set_bits(p, bit, status, error);
    ahci_port_interrupt(p, PORT_SDBS);
}

static void finish_listed(struct ahci_request *r, uint8_t status, uint8_t error)
{
    struct ahci_port *p = r->port;
    uint32_t bytes = (uint32_t)r->ata.scsi.dma.done_bytes;
    bool pio = r->ata.pio && r->ata.scsi.dma.to_guest && !(status & ATA_ERR);

    mull_mem_write32(memory(p), header_address(p, r->ata.tag) + 4, bytes);
    p->tfd = (uint32_t)error << 8 | status;
    if (pio)
        post_pio_setup(p, status, true, bytes);
    else
        post_d2h(p, status, error, false);
    if (status & ATA_ERR) {
        p->failed = true;
        ahci_port_interrupt(p, PORT_TFES | PORT_DHRS);
    } else {
        p->ci &= ~(1u << r->ata.tag);
        ahci_port_interrupt(p, pio ? PORT_PSS : PORT_DHRS);
    }
}

static void finish(struct mull_ata_request *ata, uint8_t status, uint8_t error)
{
    struct ahci_request *r = (struct ahci_request *)ata;
    struct ahci_port *p = r->port;

    r->active = false;
    p->in_flight--;
    if (ata->scsi.host_error)
        mull_dma_complain(&ata->scsi.dma, p->hba->env.log, &p->hba->complaints, p->hba->device.name,
                          ata->scsi.host_error);
    if (r->generation == p->generation) { /* else a reset has made it forgotten */
        p->started &= ~(1u << ata->tag);
        if (ata->queued)
            finish_queued(r, status, error);
        else
            finish_listed(r, status, error);
    }
    note_end(p);
}

static void accepted(struct mull_ata_request *ata)
{
    struct ahci_port *p = ((struct ahci_request *)ata)->port;
    p->ci &= ~(1u << ata->tag);
}

void ahci_port_forget(struct ahci_port *p)
{
    p->generation++;
    for (unsigned i = 0; i < AHCI_SLOTS; i++)
        if (p->request[i] && p->request[i]->active)
            p->request[i]->ata.scsi.dma.cancelled = true;
}

void ahci_port_stop(struct ahci_port *p)
{
    p->stopping = true;
    ahci_port_forget(p);
    p->started = 0;
    p->ci = p->sact = 0;
    note_end(p);
}

/* ---- Data ---- */

static bool next_buffer(struct mull_dma *d, uint64_t *gpa, uint32_t *len)
{
    struct ahci_request *r = (struct ahci_request *)d;
    struct {
        uint64_t address;
        uint32_t reserved, control;
    } prd;

    if (r->entry == r->entries ||
        mull_mem_read(d->memory, r->prdt + (uint64_t)PRD_SIZE * r->entry, &prd, sizeof(prd)))
        return false;
    r->entry++;
    *gpa = prd.address & ~1ull;
    *len = (prd.control & 0x3fffff) + 1;
    return true;
}

static void enter(struct mull_dma *d)
{
    pthread_mutex_lock(&((struct ahci_request *)d)->port->hba->lock);
}

static void leave(struct mull_dma *d)
{
    struct ahci_port *p = ((struct ahci_request *)d)->port;

    ahci_port_run(p);
    pthread_mutex_unlock(&p->hba->lock);
}

static const struct mull_dma_ops dma_ops = {.next = next_buffer, .enter = enter, .leave = leave};

/* ---- Fetching commands ---- */

static struct ahci_request *get_request(struct ahci_port *p, unsigned slot)
{
    if (!p->request[slot])
        p->request[slot] = calloc(1, sizeof(*p->request[slot]));
    struct ahci_request *r = p->request[slot];
    if (!r || r->active)
        return NULL;
    mull_dma_begin(&r->ata.scsi.dma, &dma_ops, memory(p), p->drive.unit.block);
    r->ata.drive = &p->drive;
    r->ata.tag = slot;
    r->ata.queued = r->ata.pio = false;
    r->ata.scsi.host_error = 0;
    r->ata.accepted = accepted;
    r->ata.finish = finish;
    r->port = p;
    r->active = true;
    r->entry = r->entries = 0;
    r->generation = p->generation;
    return r;
}

static void decode(const uint8_t fis[64], struct mull_ata_command *c)
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

    p->ci &= ~(1u << r->ata.tag);
    p->started &= ~(1u << r->ata.tag);
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
    struct mull_ata_command c = {0};
    struct ahci_request *r = get_request(p, slot);

    if (!r)
        return; /* one of before a reset is still on its way: later */
    p->started |= 1u << slot;
    p->in_flight++;
    if (mull_mem_read(memory(p), header_address(p, slot), &header, sizeof(header)) ||
        mull_mem_read(memory(p), header.table & ~0x7full, fis, sizeof(fis)) || fis[0] != FIS_H2D ||
        mull_mem_read(memory(p), (header.table & ~0x7full) + 0x40, c.packet, sizeof(c.packet))) {
        finish(&r->ata, ATA_GOOD | ATA_ERR, ATA_ABORTED);
        return;
    }
    if (!(fis[1] & 0x80)) {
        control(r, fis[15]);
        return;
    }
    r->prdt = (header.table & ~0x7full) + PRDT_OFFSET;
    r->entries = header.flags >> 16;
    decode(fis, &c);
    if (p->drive.unit.cdrom && c.code == 0x08) { /* DEVICE RESET */
        ahci_port_signature(p);
        finish(&r->ata, ATA_SEEK, 1);
    } else {
        mull_ata_start(&r->ata, &c);
    }
}

void ahci_port_run(struct ahci_port *p)
{
    if (!(p->cmd & CMD_ST) || !p->drive.present)
        return;
    for (unsigned slot = 0; slot < AHCI_SLOTS && !p->failed; slot++)
        if ((p->ci >> slot & 1) && !(p->started >> slot & 1))
            begin(p, slot);
}
