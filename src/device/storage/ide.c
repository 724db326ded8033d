/*
 * The IDE controller's registers and life (ATA/ATAPI-7 volume 2; Bus Master IDE 1.0; Intel 82371AB
 * PIIX4 data sheet, chapter 5). Guests access registers from their vCPUs' threads.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device/storage/ide_internal.h"

#define REG_IDETIM 0x40u /* decoding of the channels, timing */

/* ---- The task file ---- */

static bool there(const struct ide_channel *c)
{
    return c->drive[ide_selected(c)].present;
}

static uint32_t task_read(struct ide_channel *c, unsigned offset)
{
    const struct ide_registers *r = &c->reg[ide_selected(c)];
    unsigned which = c->control & CONTROL_HOB ? 1 : 0;

    if (!there(c))
        return 0;
    switch (offset) {
    case 1:
        return r->error;
    case 2:
        return r->count[which];
    case 3:
        return r->low[which];
    case 4:
        return r->mid[which];
    case 5:
        return r->high[which];
    case 6:
        return c->device | 0xa0;
    default:
        c->irq = false;
        ide_update_line(c);
        return r->status;
    }
}

/* Both drives see what is written. */
static void put(struct ide_channel *c, size_t field, uint8_t value)
{
    for (unsigned i = 0; i < 2; i++) {
        uint8_t *p = (uint8_t *)&c->reg[i] + field;
        p[1] = p[0];
        p[0] = value;
    }
}

static void task_write(struct ide_channel *c, unsigned offset, uint8_t value)
{
    c->control &= ~CONTROL_HOB;
    switch (offset) {
    case 1:
        put(c, offsetof(struct ide_registers, features), value);
        break;
    case 2:
        put(c, offsetof(struct ide_registers, count), value);
        break;
    case 3:
        put(c, offsetof(struct ide_registers, low), value);
        break;
    case 4:
        put(c, offsetof(struct ide_registers, mid), value);
        break;
    case 5:
        put(c, offsetof(struct ide_registers, high), value);
        break;
    case 6:
        if (c->phase == IDE_IDLE) /* else the selected drive is busy */
            c->device = value;
        break;
    default:
        ide_command(c, value);
    }
}

static uint64_t command_read(void *opaque, unsigned cpu, uint64_t offset, unsigned size)
{
    struct ide_channel *c = opaque;
    uint64_t value = 0;

    pthread_mutex_lock(&c->ide->lock);
    if (!offset)
        value = ide_data_read(c, size);
    else
        for (unsigned i = 0; i < size && offset + i < 8; i++)
            value |= (uint64_t)task_read(c, (unsigned)offset + i) << 8 * i;
    pthread_mutex_unlock(&c->ide->lock);
    return value;
}

static void command_write(void *opaque, unsigned cpu, uint64_t offset, unsigned size,
                          uint64_t value)
{
    struct ide_channel *c = opaque;

    pthread_mutex_lock(&c->ide->lock);
    if (!offset)
        ide_data_write(c, size, (uint32_t)value);
    else
        for (unsigned i = 0; i < size && offset + i < 8; i++)
            task_write(c, (unsigned)offset + i, (uint8_t)(value >> 8 * i));
    pthread_mutex_unlock(&c->ide->lock);
}

/* The alternate status: reading it leaves the interrupt alone. */
static uint64_t control_read(void *opaque, unsigned cpu, uint64_t offset, unsigned size)
{
    struct ide_channel *c = opaque;

    pthread_mutex_lock(&c->ide->lock);
    uint8_t value = there(c) ? c->reg[ide_selected(c)].status : 0;
    pthread_mutex_unlock(&c->ide->lock);
    return value;
}

static void control_write(void *opaque, unsigned cpu, uint64_t offset, unsigned size,
                          uint64_t value)
{
    struct ide_channel *c = opaque;

    pthread_mutex_lock(&c->ide->lock);
    uint8_t was = c->control;
    c->control = (uint8_t)value & (CONTROL_HOB | CONTROL_SRST | CONTROL_NIEN);
    if ((c->control & CONTROL_SRST) && !(was & CONTROL_SRST)) {
        ide_channel_reset(c);
        c->reg[0].status = c->reg[1].status = ATA_BUSY;
    } else if (!(c->control & CONTROL_SRST) && (was & CONTROL_SRST)) {
        ide_channel_reset(c);
    }
    ide_update_line(c);
    pthread_mutex_unlock(&c->ide->lock);
}

static const struct mull_region_ops command_ops = {command_read, command_write, 1, 4};
static const struct mull_region_ops control_ops = {control_read, control_write, 1, 1};

/* ---- The bus master ---- */

static uint64_t bm_read(void *opaque, unsigned cpu, uint64_t offset, unsigned size)
{
    struct ide *ide = opaque;
    const struct ide_channel *c = &ide->channel[offset >> 3 & 1];
    uint8_t value = 0;

    pthread_mutex_lock(&ide->lock);
    if ((offset & 7) == 0)
        value = c->bm_command;
    else if ((offset & 7) == 2)
        value = c->bm_status;
    else if ((offset & 7) >= 4)
        value = (uint8_t)(c->bm_table >> 8 * (offset & 3));
    pthread_mutex_unlock(&ide->lock);
    return value;
}

static void bm_write(void *opaque, unsigned cpu, uint64_t offset, unsigned size, uint64_t value)
{
    struct ide *ide = opaque;
    struct ide_channel *c = &ide->channel[offset >> 3 & 1];
    uint8_t v = (uint8_t)value;

    pthread_mutex_lock(&ide->lock);
    if ((offset & 7) == 0) {
        uint8_t was = c->bm_command;
        c->bm_command = v & (BM_START | BM_TO_MEMORY);
        if ((was ^ v) & BM_START)
            ide_bus_master(c, v & BM_START);
    } else if ((offset & 7) == 2) {
        c->bm_status &= ~(v & (BM_ERROR | BM_INTERRUPT));
        c->bm_status = (uint8_t)((c->bm_status & ~BM_CAPABLE) | (v & BM_CAPABLE));
    } else if ((offset & 7) >= 4) {
        unsigned shift = 8 * (offset & 3);
        c->bm_table = (c->bm_table & ~(0xffu << shift)) | (uint32_t)v << shift;
        c->bm_table &= ~3u;
    }
    pthread_mutex_unlock(&ide->lock);
}

static const struct mull_region_ops bm_ops = {bm_read, bm_write, 1, 1};

/* ---- Life ---- */

static struct ide *of(struct mull_device *device)
{
    return (struct ide *)device;
}

static void reset_all(struct ide *ide)
{
    for (unsigned i = 0; i < IDE_CHANNELS; i++) {
        struct ide_channel *c = &ide->channel[i];
        c->control = c->command = 0;
        c->bm_command = c->bm_status = 0;
        c->bm_table = 0;
        c->at = c->block_end = c->staged = 0;
        c->streamed = false;
        for (unsigned d = 0; d < 2; d++)
            mull_ata_drive_reset(&c->drive[d]);
        ide_channel_reset(c);
    }
}

static void drain(struct ide *ide, bool cancel)
{
    for (unsigned i = 0; i < MULL_IDE_DRIVES; i++) {
        struct mull_block *block = ide->channel[i / 2].drive[i & 1].unit.block;
        if (!block)
            continue;
        mull_block_drain(block);
        if (cancel) /* held requests would move bytes from or to memory that is used anew */
            mull_block_cancel(block);
    }
}

static void reset(struct mull_device *device)
{
    struct ide *ide = of(device);

    drain(ide, true);
    mull_pci_function_reset(&ide->pci);
    pthread_mutex_lock(&ide->lock);
    reset_all(ide);
    pthread_mutex_unlock(&ide->lock);
}

static void quiesce(struct mull_device *device)
{
    struct ide *ide = of(device);

    pthread_mutex_lock(&ide->lock);
    ide->paused = true;
    pthread_mutex_unlock(&ide->lock);
    drain(ide, false);
}

static void resume(struct mull_device *device)
{
    struct ide *ide = of(device);

    pthread_mutex_lock(&ide->lock);
    ide->paused = false;
    for (unsigned i = 0; i < IDE_CHANNELS; i++) {
        ide_channel_run(&ide->channel[i]);
        ide_update_line(&ide->channel[i]);
    }
    pthread_mutex_unlock(&ide->lock);
}

static void destroy(struct mull_device *device)
{
    struct ide *ide = of(device);

    drain(ide, true);
    for (unsigned i = 0; i < 2 * IDE_CHANNELS; i++)
        mull_region_remove(ide->ports[i]);
    mull_pci_function_fini(&ide->pci);
    pthread_mutex_destroy(&ide->lock);
    free(ide);
}

/* ---- State ---- */

static void note(void *object)
{
    struct ide *ide = object;

    for (unsigned i = 0; i < IDE_CHANNELS; i++)
        ide_channel_note(&ide->channel[i]);
}

static bool makes_sense(const struct ide_channel *c)
{
    const struct mull_scsi_unit *unit = &c->drive[ide_selected(c)].unit;
    uint64_t size = unit->blocks * unit->block_size;

    if (c->phase >= IDE_PHASES || c->phase == IDE_RUNNING || c->staged > IDE_BUFFER ||
        c->block_end > c->staged || c->at > (c->phase == IDE_PACKET ? 11 : c->block_end) ||
        (c->phase == IDE_DATA && (c->at >= c->block_end || !c->block || c->block > IDE_BUFFER)))
        return false;
    if (!c->streamed || (c->phase != IDE_DATA && c->phase != IDE_DATA_DONE))
        return true;
    return unit->block && c->offset <= size && c->left <= size - c->offset;
}

static int loaded(void *object, uint32_t version, struct mull_error *err)
{
    struct ide *ide = object;

    for (unsigned i = 0; i < IDE_CHANNELS; i++) {
        struct ide_channel *c = &ide->channel[i];
        if (!makes_sense(c))
            return mull_fail(err, EINVAL, "%s: the saved state of channel %u is impossible",
                             ide->device.name, i);
        c->bm_table &= ~3u;
        ide_channel_restore(c);
    }
    return 0;
}

static const struct mull_field register_fields[] = {
    MULL_FIELD_ARRAY(struct ide_registers, features), MULL_FIELD_ARRAY(struct ide_registers, count),
    MULL_FIELD_ARRAY(struct ide_registers, low),      MULL_FIELD_ARRAY(struct ide_registers, mid),
    MULL_FIELD_ARRAY(struct ide_registers, high),     MULL_FIELD(struct ide_registers, status),
    MULL_FIELD(struct ide_registers, error),          MULL_FIELDS_END,
};
static const struct mull_state_desc register_desc = {
    .name = "ide-registers", .version = 1, .oldest = 1, .fields = register_fields};
static const struct mull_field drive_fields[] = {
    MULL_FIELD_NESTED(struct mull_ata_drive, unit, &mull_scsi_unit_desc),
    MULL_FIELD(struct mull_ata_drive, multiple),
    MULL_FIELDS_END,
};
static const struct mull_state_desc drive_desc = {
    .name = "ide-drive", .version = 1, .oldest = 1, .fields = drive_fields};
static const struct mull_field channel_fields[] = {
    MULL_FIELD_NESTED_ARRAY(struct ide_channel, drive, &drive_desc),
    MULL_FIELD_NESTED_ARRAY(struct ide_channel, reg, &register_desc),
    MULL_FIELD(struct ide_channel, device),
    MULL_FIELD(struct ide_channel, control),
    MULL_FIELD(struct ide_channel, command),
    MULL_FIELD(struct ide_channel, irq),
    MULL_FIELD(struct ide_channel, phase),
    MULL_FIELD_BLOB(struct ide_channel, packet),
    MULL_FIELD(struct ide_channel, bm_command),
    MULL_FIELD(struct ide_channel, bm_status),
    MULL_FIELD(struct ide_channel, bm_table),
    MULL_FIELD_BLOB(struct ide_channel, buffer),
    MULL_FIELD(struct ide_channel, at),
    MULL_FIELD(struct ide_channel, block_end),
    MULL_FIELD(struct ide_channel, staged),
    MULL_FIELD(struct ide_channel, block),
    MULL_FIELD(struct ide_channel, to_guest),
    MULL_FIELD(struct ide_channel, streamed),
    MULL_FIELD(struct ide_channel, first),
    MULL_FIELD(struct ide_channel, end_status),
    MULL_FIELD(struct ide_channel, end_error),
    MULL_FIELD(struct ide_channel, offset),
    MULL_FIELD(struct ide_channel, left),
    MULL_FIELDS_END,
};
static const struct mull_state_desc channel_desc = {
    .name = "ide-channel", .version = 1, .oldest = 1, .fields = channel_fields};
static const struct mull_field fields[] = {
    MULL_FIELD_NESTED(struct ide, pci, &mull_pci_function_desc),
    MULL_FIELD_NESTED_ARRAY(struct ide, channel, &channel_desc),
    MULL_FIELDS_END,
};
static const struct mull_state_desc desc = {.name = "ide",
                                            .version = 1,
                                            .oldest = 1,
                                            .fields = fields,
                                            .before_save = note,
                                            .after_load = loaded};
static const struct mull_device_ops ops = {
    .state = &desc, .reset = reset, .quiesce = quiesce, .resume = resume, .destroy = destroy};

static int add_ports(struct ide *ide, unsigned i, struct mull_error *err)
{
    static const uint16_t base[IDE_CHANNELS] = {0x1f0, 0x170};
    struct mull_memory *m = ide->env.memory;
    struct ide_channel *c = &ide->channel[i];

    int ret = mull_region_add(m, MULL_SPACE_PORT, base[i], 8, &command_ops, c, "IDE",
                              &ide->ports[2 * i], err);
    if (!ret)
        ret = mull_region_add(m, MULL_SPACE_PORT, base[i] + 0x206u, 1, &control_ops, c,
                              "IDE control", &ide->ports[2 * i + 1], err);
    return ret;
}

int mull_ide_create(const struct mull_device_env *env, struct mull_pci_bus *bus,
                    const struct mull_ide_config *cfg, struct mull_device **out,
                    struct mull_error *err)
{
    struct ide *ide = calloc(1, sizeof(*ide));
    int code = 0;

    if (!ide)
        return mull_fail(err, ENOMEM, "%s: no memory", cfg->name);
    ide->device = (struct mull_device){.ops = &ops, .object = ide};
    snprintf(ide->device.name, sizeof(ide->device.name), "%s", cfg->name);
    ide->env = *env;
    pthread_mutex_init(&ide->lock, NULL);
    for (unsigned i = 0; i < MULL_IDE_DRIVES; i++)
        mull_ata_drive_init(&ide->channel[i / 2].drive[i & 1], &cfg->drive[i], false);
    mull_pci_function_init(&ide->pci, NULL, 0x8086, 0x7111, 0x1af4, 0x1100, 0x010180, 1);
    for (unsigned i = 0; i < IDE_CHANNELS; i++) {
        ide->channel[i].ide = ide;
        ide->channel[i].index = i;
        ide->channel[i].line = cfg->irq[i];
        ide->pci.config[REG_IDETIM + 2 * i + 1] = 0x80; /* decode */
        memset(ide->pci.wmask + REG_IDETIM + 2 * i, 0xff, 2);
        memset(ide->pci.wmask + 0x48 + 2 * i, 0xff, 2); /* UDMACTL, UDMATIM */
        if (!code)
            code = add_ports(ide, i, err);
    }
    if (code < 0 ||
        (code = mull_pci_add_bar(&ide->pci, 4, 16, true, false, false, &bm_ops, ide,
                                 "IDE bus master", env->memory, err)) < 0 ||
        (code = mull_pci_bus_attach(bus, &ide->pci, -1, err)) < 0) {
        destroy(&ide->device);
        return code;
    }
    reset_all(ide);
    *out = &ide->device;
    return 0;
}
