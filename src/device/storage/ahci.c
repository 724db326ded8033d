/*
 * The registers of the host bus adapter (Serial ATA AHCI 1.3.1, chapter 3) as an ICH9's on PCI.
 * Guests write them from their vCPUs' threads; commands are carried out in the loop's thread.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device/storage/ahci_internal.h"

#define GHC_RESET 1u
#define GHC_IE 2u
#define GHC_AE 0x80000000u
/* 64-bit addresses, queued commands, 3 Gb/s, AHCI only, 32 slots, 6 ports. */
#define CAP (0x80000000u | 0x40000000u | 2u << 20 | 1u << 18 | 31u << 8 | (MULL_AHCI_PORTS - 1))
#define VERSION 0x00010300u

#define CMD_ST 0x01u
#define CMD_FRE 0x10u
#define CMD_CLO 0x08u
#define CMD_FR 0x4000u
#define CMD_CR 0x8000u
#define CMD_ATAPI 0x01000000u
#define CMD_WRITABLE 0x0f000017u /* ICC is not kept */

static void update_line(struct ahci *h)
{
    mull_pci_intx(&h->pci, h->is && (h->ghc & GHC_IE));
}

void ahci_port_interrupt(struct ahci_port *p, uint32_t bits)
{
    struct ahci *h = p->hba;

    p->is |= bits;
    if (!(p->is & p->ie))
        return;
    h->is |= 1u << p->index;
    update_line(h);
    if (h->ghc & GHC_IE)
        mull_pci_msi_send(&h->pci);
}

/* ---- Ports ---- */

static uint32_t port_get(const struct ahci_port *p, unsigned reg)
{
    switch (reg) {
    case 0x00:
        return (uint32_t)p->clb;
    case 0x04:
        return (uint32_t)(p->clb >> 32);
    case 0x08:
        return (uint32_t)p->fb;
    case 0x0c:
        return (uint32_t)(p->fb >> 32);
    case 0x10:
        return p->is;
    case 0x14:
        return p->ie;
    case 0x18:
        return p->cmd;
    case 0x20:
        return p->tfd;
    case 0x24:
        return p->sig;
    case 0x28:
        return p->ssts;
    case 0x2c:
        return p->sctl;
    case 0x30:
        return p->serr;
    case 0x34:
        return p->sact;
    case 0x38:
        return p->ci;
    default:
        return 0;
    }
}

static void run_posted(void *opaque)
{
    struct ahci_port *p = opaque;

    pthread_mutex_lock(&p->hba->lock);
    ahci_port_run(p);
    pthread_mutex_unlock(&p->hba->lock);
}

static void set_cmd(struct ahci_port *p, uint32_t value)
{
    uint32_t was = p->cmd;

    if (value & CMD_CLO)
        p->tfd &= ~(ATA_BUSY | ATA_DRQ);
    p->cmd = (p->cmd & ~CMD_WRITABLE) | (value & CMD_WRITABLE);
    p->cmd = p->cmd & CMD_FRE ? p->cmd | CMD_FR : p->cmd & ~CMD_FR;
    if (!(was & CMD_FRE) && (p->cmd & CMD_FRE) && p->drive.present && !(was & CMD_ST))
        ahci_port_signature(p);
    if ((value & CMD_ST) && !(was & CMD_ST)) {
        p->cmd |= CMD_CR;
        p->failed = p->stopping = false;
    } else if (!(value & CMD_ST) && (was & CMD_ST)) {
        ahci_port_stop(p);
    }
}

/* COMRESET (SControl.DET 1, then 0): the link is up again at once. */
static void set_sctl(struct ahci_port *p, uint32_t value)
{
    bool end = (p->sctl & 15) == 1 && (value & 15) == 0;

    p->sctl = value & 0xfff;
    if ((value & 15) == 1) {
        ahci_port_forget(p);
        p->ssts = 0;
        p->tfd = ATA_BUSY;
    } else if ((value & 15) == 4) {
        p->ssts = 4;
    } else if (end && p->drive.present) {
        p->ssts = 0x123;
        p->serr |= 1u << 26 | 1u << 16; /* exchanged, PhyRdy changed */
        ahci_port_signature(p);
    }
}

static void port_set(struct ahci_port *p, unsigned reg, uint32_t value)
{
    switch (reg) {
    case 0x00:
        p->clb = (p->clb & ~0xffffffffull) | (value & ~0x3ffu);
        break;
    case 0x04:
        p->clb = (uint32_t)p->clb | (uint64_t)value << 32;
        break;
    case 0x08:
        p->fb = (p->fb & ~0xffffffffull) | (value & ~0xffu);
        break;
    case 0x0c:
        p->fb = (uint32_t)p->fb | (uint64_t)value << 32;
        break;
    case 0x10:
        p->is &= ~value;
        break;
    case 0x14:
        p->ie = value & 0xfdc000ffu;
        ahci_port_interrupt(p, 0);
        break;
    case 0x18:
        set_cmd(p, value);
        break;
    case 0x2c:
        set_sctl(p, value);
        break;
    case 0x30:
        p->serr &= ~value;
        break;
    case 0x34:
        p->sact |= value;
        break;
    case 0x38:
        if (!(p->cmd & CMD_ST) || !(value & ~p->ci))
            break;
        p->ci |= value;
        mull_loop_post(p->hba->env.loop, run_posted, p);
        break;
    default:
        break;
    }
}

/* ---- The adapter ---- */

static void reset_port(struct ahci_port *p)
{
    p->clb = p->fb = 0;
    p->is = p->ie = p->serr = p->sact = p->ci = p->sctl = 0;
    p->cmd = 6u | (p->drive.unit.cdrom ? CMD_ATAPI : 0);
    p->tfd = 0x7f;
    p->sig = 0xffffffff;
    p->ssts = 0;
    p->started = 0;
    ahci_port_forget(p);
    p->stopping = p->failed = false;
    mull_ata_drive_reset(&p->drive);
    if (p->drive.present) {
        p->ssts = 0x123;
        ahci_port_signature(p);
    }
}

static void reset_adapter(struct ahci *h)
{
    h->ghc = GHC_AE;
    h->is = 0;
    for (unsigned i = 0; i < MULL_AHCI_PORTS; i++)
        reset_port(&h->port[i]);
    update_line(h);
}

static uint64_t reg_read(void *opaque, unsigned cpu, uint64_t offset, unsigned size)
{
    struct ahci *h = opaque;
    uint32_t value = 0;

    pthread_mutex_lock(&h->lock);
    if (offset >= 0x100 && offset < 0x100 + 0x80 * MULL_AHCI_PORTS)
        value = port_get(&h->port[(offset - 0x100) / 0x80], (unsigned)offset & 0x7c);
    else if (offset == 0)
        value = CAP;
    else if (offset == 4)
        value = h->ghc;
    else if (offset == 8)
        value = h->is;
    else if (offset == 0xc)
        value = h->ports;
    else if (offset == 0x10)
        value = VERSION;
    pthread_mutex_unlock(&h->lock);
    return value;
}

static void reg_write(void *opaque, unsigned cpu, uint64_t offset, unsigned size, uint64_t value)
{
    struct ahci *h = opaque;

    pthread_mutex_lock(&h->lock);
    if (offset >= 0x100 && offset < 0x100 + 0x80 * MULL_AHCI_PORTS) {
        port_set(&h->port[(offset - 0x100) / 0x80], (unsigned)offset & 0x7c, (uint32_t)value);
    } else if (offset == 4) {
        if (value & GHC_RESET)
            reset_adapter(h);
        else
            h->ghc = (value & GHC_IE) | GHC_AE;
        update_line(h);
    } else if (offset == 8) {
        h->is &= ~(uint32_t)value;
        for (unsigned i = 0; i < MULL_AHCI_PORTS; i++) /* what is still there comes back */
            if (h->port[i].is & h->port[i].ie)
                ahci_port_interrupt(&h->port[i], 0);
        update_line(h);
    }
    pthread_mutex_unlock(&h->lock);
}

static const struct mull_region_ops reg_ops = {reg_read, reg_write, 4, 4};

/* ---- Life ---- */

static struct ahci *of(struct mull_device *device)
{
    return (struct ahci *)device;
}

static void drain(struct ahci *h)
{
    for (unsigned i = 0; i < MULL_AHCI_PORTS; i++)
        if (h->port[i].drive.unit.block)
            mull_block_drain(h->port[i].drive.unit.block);
}

/* Held requests would move bytes from or to memory that is used anew. */
static void cancel(struct ahci *h)
{
    drain(h);
    for (unsigned i = 0; i < MULL_AHCI_PORTS; i++)
        if (h->port[i].drive.unit.block)
            mull_block_cancel(h->port[i].drive.unit.block);
}

static void reset(struct mull_device *device)
{
    struct ahci *h = of(device);

    cancel(h);
    mull_pci_function_reset(&h->pci);
    pthread_mutex_lock(&h->lock);
    reset_adapter(h);
    pthread_mutex_unlock(&h->lock);
}

static void quiesce(struct mull_device *device)
{
    drain(of(device));
}

static void resume(struct mull_device *device)
{
    struct ahci *h = of(device);

    pthread_mutex_lock(&h->lock);
    for (unsigned i = 0; i < MULL_AHCI_PORTS; i++)
        ahci_port_run(&h->port[i]);
    update_line(h);
    pthread_mutex_unlock(&h->lock);
}

static void destroy(struct mull_device *device)
{
    struct ahci *h = of(device);

    cancel(h);
    mull_pci_function_fini(&h->pci);
    for (unsigned i = 0; i < MULL_AHCI_PORTS; i++)
        for (unsigned k = 0; k < AHCI_SLOTS; k++)
            free(h->port[i].request[k]);
    pthread_mutex_destroy(&h->lock);
    free(h);
}

static int port_loaded(void *object, uint32_t version, struct mull_error *err)
{
    struct ahci_port *p = object;

    p->clb &= ~0x3ffull;
    p->fb &= ~0xffull;
    p->started = 0; /* nothing is in flight in a saved state */
    return 0;
}

/* A field of the drive, by the name that states give it. */
#define DRIVE_FIELD(text, member)                                                                  \
    {                                                                                              \
        .name = (text), .kind = MULL_FIELD_KIND_OF(((struct ahci_port *)0)->drive.member),         \
        .offset = offsetof(struct ahci_port, drive.member),                                        \
        .size = sizeof(((struct ahci_port *)0)->drive.member), .count = 1, .since = 1              \
    }

static const struct mull_field port_fields[] = {
    MULL_FIELD(struct ahci_port, clb),
    MULL_FIELD(struct ahci_port, fb),
    MULL_FIELD(struct ahci_port, is),
    MULL_FIELD(struct ahci_port, ie),
    MULL_FIELD(struct ahci_port, cmd),
    MULL_FIELD(struct ahci_port, tfd),
    MULL_FIELD(struct ahci_port, sig),
    MULL_FIELD(struct ahci_port, ssts),
    MULL_FIELD(struct ahci_port, sctl),
    MULL_FIELD(struct ahci_port, serr),
    MULL_FIELD(struct ahci_port, sact),
    MULL_FIELD(struct ahci_port, ci),
    MULL_FIELD(struct ahci_port, stopping),
    MULL_FIELD(struct ahci_port, failed),
    DRIVE_FIELD("multiple", multiple),
    DRIVE_FIELD("error_tag", error_tag),
    DRIVE_FIELD("error_status", error_status),
    DRIVE_FIELD("error_error", error_error),
    DRIVE_FIELD("sense_key", unit.sense_key),
    DRIVE_FIELD("sense_code", unit.sense_code),
    DRIVE_FIELD("sense_qualifier", unit.sense_qualifier),
    DRIVE_FIELD("ejected", unit.ejected),
    DRIVE_FIELD("medium_changed", unit.medium_changed),
    MULL_FIELDS_END,
};
static const struct mull_state_desc port_desc = {.name = "ahci-port",
                                                 .version = 1,
                                                 .oldest = 1,
                                                 .fields = port_fields,
                                                 .after_load = port_loaded};
static const struct mull_field fields[] = {
    MULL_FIELD_NESTED(struct ahci, pci, &mull_pci_function_desc),
    MULL_FIELD(struct ahci, ghc),
    MULL_FIELD(struct ahci, is),
    MULL_FIELD_NESTED_ARRAY(struct ahci, port, &port_desc),
    MULL_FIELDS_END,
};
static const struct mull_state_desc desc = {
    .name = "ahci", .version = 1, .oldest = 1, .fields = fields};
static const struct mull_device_ops ops = {
    .state = &desc, .reset = reset, .quiesce = quiesce, .resume = resume, .destroy = destroy};

static void set_up_port(struct ahci *h, unsigned i, const struct mull_drive *drive)
{
    struct ahci_port *p = &h->port[i];

    p->hba = h;
    p->index = i;
    mull_ata_drive_init(&p->drive, drive, true);
    h->ports |= 1u << i;
}

int mull_ahci_create(const struct mull_device_env *env, struct mull_pci_bus *bus,
                     const struct mull_ahci_config *cfg, struct mull_device **out,
                     struct mull_error *err)
{
    struct ahci *h = calloc(1, sizeof(*h));
    int code;

    if (!h)
        return mull_fail(err, ENOMEM, "%s: no memory", cfg->name);
    h->device = (struct mull_device){.ops = &ops, .object = h};
    snprintf(h->device.name, sizeof(h->device.name), "%s", cfg->name);
    h->env = *env;
    pthread_mutex_init(&h->lock, NULL);
    for (unsigned i = 0; i < MULL_AHCI_PORTS; i++)
        set_up_port(h, i, &cfg->drive[i]);
    mull_pci_function_init(&h->pci, NULL, 0x8086, 0x2922, 0x1af4, 0x1100, 0x010601, 2);
    h->pci.intx_pin = 1;
    if ((code = mull_pci_add_bar(&h->pci, 5, 4096, false, false, false, &reg_ops, h, "AHCI",
                                 env->memory, err)) < 0 ||
        (code = mull_pci_add_msi(&h->pci, err)) < 0 ||
        (code = mull_pci_bus_attach(bus, &h->pci, -1, err)) < 0) {
        destroy(&h->device);
        return code;
    }
    reset_adapter(h);
    *out = &h->device;
    return 0;
}
