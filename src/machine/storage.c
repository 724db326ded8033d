/*
 * A machine's disks and CD-ROM drives: opens what is behind them and puts them on their buses, one
 * controller for as many as fit.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device/storage/ahci.h"
#include "device/storage/ide.h"
#include "device/storage/nvme.h"
#include "device/storage/pvscsi.h"
#include "device/storage/virtio_scsi.h"
#include "machine/internal.h"

#define DRIVES_MAX 16 /* of one controller */

struct storage;

/* A kind of controller, and the drives that the next one will have. */
struct controller {
    enum mull_bus bus;
    const char *name;
    unsigned room;        /* drives of one controller */
    unsigned most;        /* controllers, 0: any number */
    bool no_cdrom;        /* takes disks only */
    const char *firmware; /* what firmware calls such a controller */
    /* The rest of a drive's path, as firmware knows it. */
    void (*tail)(char *text, size_t size, unsigned drive);
    int (*create)(struct storage *s, const char *name, const struct mull_drive *drives,
                  unsigned count, struct mull_device **out, struct mull_error *err);
    unsigned made;
    unsigned count;
    struct mull_drive drive[DRIVES_MAX];
    unsigned index[DRIVES_MAX]; /* among the machine's disks or CD-ROMs */
};

#define KINDS 6

struct storage {
    struct mull_machine *machine;
    const struct mull_device_env *env;
    struct controller kind[KINDS];
};

static int open_disk(struct mull_machine *m, unsigned i, const struct mull_disk_config *disk,
                     const struct mull_given_files *given, struct mull_error *err)
{
    struct mull_block_options options = {
        .path = disk->path,
        .given = given,
        .format = disk->format,
        .readonly = disk->readonly,
        .direct = disk->direct,
        .cbt = disk->cbt,
        .on_error = disk->on_error == MULL_ON_ERROR_REPORT ? MULL_BLOCK_REPORT : MULL_BLOCK_HOLD,
        .held = disk->on_error == MULL_ON_ERROR_STOP ? machine_event_disk_stop
                                                     : machine_event_disk_pause,
        .opaque = m,
        .log = m->log,
    };
    int ret = mull_block_open(&options, &m->block[i], err);
    if (!ret)
        mull_block_limit(m->block[i], m->limits.disk);
    return ret ? ret : mull_block_start(m->block[i], m->loop, err);
}

static int open_cdrom(struct mull_machine *m, unsigned i, const struct mull_cdrom_config *cdrom,
                      struct mull_error *err)
{
    struct mull_block_options options = {
        .path = cdrom->path, .format = "raw", .readonly = true, .log = m->log};

    if (!cdrom->path)
        return 0;
    int ret = mull_block_open(&options, &m->cdrom_block[i], err);
    if (!ret)
        mull_block_limit(m->cdrom_block[i], m->limits.disk);
    return ret ? ret : mull_block_start(m->cdrom_block[i], m->loop, err);
}

static void name_serial(char serial[21], const char *wanted, const char *kind, unsigned i)
{
    if (*wanted)
        snprintf(serial, 21, "%s", wanted);
    else
        snprintf(serial, 21, "%s%u", kind, i);
}

/* ---- Kinds of controllers ---- */

static struct mull_pci_bus *pci(const struct storage *s)
{
    return mull_platform_pci(s->machine->platform);
}

static int create_virtio_blk(struct storage *s, const char *name, const struct mull_drive *drives,
                             unsigned count, struct mull_device **out, struct mull_error *err)
{
    struct mull_virtio_blk_config cfg = {.name = name,
                                         .devfn = -1,
                                         .block = drives->block,
                                         .readonly = drives->readonly,
                                         .queues = s->machine->cpus};

    memcpy(cfg.serial, drives->serial, sizeof(cfg.serial));
    return mull_virtio_blk_create(s->env, pci(s), &cfg, out, err);
}

static int create_ahci(struct storage *s, const char *name, const struct mull_drive *drives,
                       unsigned count, struct mull_device **out, struct mull_error *err)
{
    struct mull_ahci_config cfg = {.name = name};

    memcpy(cfg.drive, drives, count * sizeof(*drives));
    return mull_ahci_create(s->env, pci(s), &cfg, out, err);
}

static int create_ide(struct storage *s, const char *name, const struct mull_drive *drives,
                      unsigned count, struct mull_device **out, struct mull_error *err)
{
    struct mull_ide_config cfg = {.name = name};

    for (unsigned i = 0; i < 2; i++)
        cfg.irq[i] = mull_platform_irq(s->machine->platform, 14 + i);
    memcpy(cfg.drive, drives, count * sizeof(*drives));
    return mull_ide_create(s->env, pci(s), &cfg, out, err);
}

static int create_nvme(struct storage *s, const char *name, const struct mull_drive *drives,
                       unsigned count, struct mull_device **out, struct mull_error *err)
{
    struct mull_nvme_config cfg = {.name = name, .drive = *drives};

    return mull_nvme_create(s->env, pci(s), &cfg, out, err);
}

static int create_pvscsi(struct storage *s, const char *name, const struct mull_drive *drives,
                         unsigned count, struct mull_device **out, struct mull_error *err)
{
    struct mull_pvscsi_config cfg = {.name = name};

    memcpy(cfg.drive, drives, count * sizeof(*drives));
    return mull_pvscsi_create(s->env, pci(s), &cfg, out, err);
}

static int create_virtio_scsi(struct storage *s, const char *name, const struct mull_drive *drives,
                              unsigned count, struct mull_device **out, struct mull_error *err)
{
    struct mull_virtio_scsi_config cfg = {.name = name, .queues = s->machine->cpus};

    memcpy(cfg.drive, drives, count * sizeof(*drives));
    return mull_virtio_scsi_create(s->env, pci(s), &cfg, out, err);
}

static void tail_virtio(char *text, size_t size, unsigned drive)
{
    snprintf(text, size, "/disk@0,0");
}

static void tail_ahci(char *text, size_t size, unsigned drive)
{
    snprintf(text, size, "/drive@%x/disk@0", drive);
}

static void tail_ide(char *text, size_t size, unsigned drive)
{
    snprintf(text, size, "/drive@%x/disk@%x", drive / 2, drive % 2);
}

static void tail_nvme(char *text, size_t size, unsigned drive)
{
    snprintf(text, size, "/namespace@1,0");
}

static void tail_scsi(char *text, size_t size, unsigned drive)
{
    snprintf(text, size, "/channel@0/disk@%x,0", drive);
}

static const struct controller kinds[KINDS] = {
    {.bus = MULL_BUS_VIRTIO,
     .name = "virtio-blk",
     .room = 1,
     .no_cdrom = true,
     .firmware = "scsi",
     .tail = tail_virtio,
     .create = create_virtio_blk},
    {.bus = MULL_BUS_SATA,
     .name = "ahci",
     .room = MULL_AHCI_PORTS,
     .firmware = "pci8086,2922",
     .tail = tail_ahci,
     .create = create_ahci},
    {.bus = MULL_BUS_NVME,
     .name = "nvme",
     .room = 1,
     .no_cdrom = true,
     .firmware = "pci8086,5845",
     .tail = tail_nvme,
     .create = create_nvme},
    {.bus = MULL_BUS_IDE,
     .name = "ide",
     .room = MULL_IDE_DRIVES,
     .most = 1, /* with the legacy ports */
     .firmware = "ide",
     .tail = tail_ide,
     .create = create_ide},
    {.bus = MULL_BUS_SCSI,
     .name = "virtio-scsi",
     .room = MULL_VIRTIO_SCSI_TARGETS,
     .firmware = "scsi",
     .tail = tail_scsi,
     .create = create_virtio_scsi},
    {.bus = MULL_BUS_PVSCSI,
     .name = "pvscsi",
     .room = MULL_PVSCSI_TARGETS,
     .firmware = "scsi",
     .tail = tail_scsi,
     .create = create_pvscsi},
};

/* ---- Putting them together ---- */

/* Other SCSI adapters are VMware's, like this one: its guests have a driver for it. */
static enum mull_bus bus_of(enum mull_bus bus, const char *adapter)
{
    return bus == MULL_BUS_SCSI && adapter ? MULL_BUS_PVSCSI : bus;
}

/* Create the controller that the drives so far are for. */
static int flush(struct storage *s, struct controller *c, struct mull_error *err)
{
    struct mull_device *device;
    char name[32], tail[40];
    unsigned slot = mull_pci_bus_free_slot(pci(s));

    if (!c->count)
        return 0;
    snprintf(name, sizeof(name), "%s.%u", c->name, c->room == 1 ? c->index[0] : c->made);
    c->made++;
    int ret = c->create(s, name, c->drive, c->count, &device, err);
    if (ret)
        return ret;
    machine_add_device(s->machine, device);
    for (unsigned i = 0; i < c->count; i++) {
        c->tail(tail, sizeof(tail), i);
        machine_boot_path_add(s->machine, c->drive[i].cdrom ? MULL_BOOT_CDROM : MULL_BOOT_DISK,
                              c->index[i], c->firmware, slot, tail);
    }
    if (c->room == 1)
        machine_part_add(s->machine, MACHINE_PART_DISK, c->index[0], slot, device);
    memset(c->drive, 0, sizeof(c->drive));
    c->count = 0;
    return 0;
}

static struct controller *find(struct storage *s, enum mull_bus bus, bool cdrom)
{
    for (unsigned k = 0; k < KINDS; k++)
        if (s->kind[k].bus == bus && !(cdrom && s->kind[k].no_cdrom))
            return &s->kind[k];
    return NULL;
}

static int add_drive(struct storage *s, enum mull_bus bus, unsigned index,
                     const struct mull_drive *drive, struct mull_error *err)
{
    struct controller *c = find(s, bus, drive->cdrom);
    if (!c) /* mull_machine_config_missing() has said so */
        c = find(s, drive->cdrom ? MULL_BUS_SATA : MULL_BUS_VIRTIO, drive->cdrom);
    int ret = c->count == c->room ? flush(s, c, err) : 0;
    if (ret)
        return ret;
    if (c->most && c->made == c->most)
        return mull_fail(err, ENOSPC,
                         "--disk: bus %s has room for %u drives; put the others on another bus",
                         mull_bus_names[c->bus], c->most * c->room);
    c->index[c->count] = index;
    c->drive[c->count++] = *drive;
    return 0;
}

static int add_disk(struct storage *s, unsigned i, const struct mull_disk_config *disk,
                    const struct mull_given_files *given, struct mull_error *err)
{
    int ret = open_disk(s->machine, i, disk, given, err);
    if (ret)
        return ret;
    struct mull_drive drive = {.present = true,
                               .block = s->machine->block[i],
                               .readonly =
                                   disk->readonly || mull_block_readonly(s->machine->block[i])};
    name_serial(drive.serial, disk->serial, "disk", i);
    return add_drive(s, bus_of(disk->bus, disk->adapter), i, &drive, err);
}

static int add_cdrom(struct storage *s, unsigned i, const struct mull_cdrom_config *cdrom,
                     struct mull_error *err)
{
    int ret = open_cdrom(s->machine, i, cdrom, err);
    if (ret)
        return ret;
    struct mull_drive drive = {
        .present = true, .cdrom = true, .readonly = true, .block = s->machine->cdrom_block[i]};
    name_serial(drive.serial, "", "cdrom", i);
    return add_drive(s, bus_of(cdrom->bus, cdrom->adapter), i, &drive, err);
}

static struct storage *begin(struct mull_machine *m, const struct mull_device_env *env)
{
    struct storage *s = malloc(sizeof(*s));

    if (s) {
        s->machine = m;
        s->env = env;
        memcpy(s->kind, kinds, sizeof(kinds));
    }
    return s;
}

/* A controller of its own for it, or the guest would have to find a drive on one that it has. */
int machine_storage_add(struct mull_machine *m, const struct mull_device_env *env, unsigned i,
                        const struct mull_disk_config *disk, const struct mull_given_files *given,
                        struct mull_error *err)
{
    struct storage *s = begin(m, env);
    struct controller *c = s ? find(s, disk->bus, false) : NULL;
    int ret = 0;

    if (!s)
        return mull_fail(err, ENOMEM, "disks: no memory");
    if (!c || c->room > 1)
        ret = mull_fail(err, ENOTSUP,
                        "%s: a disk on the bus %s cannot come while the machine runs; use "
                        "bus=virtio or bus=nvme",
                        disk->path, mull_bus_names[disk->bus]);
    if (!ret)
        ret = add_disk(s, i, disk, given, err);
    if (!ret)
        ret = flush(s, c, err);
    free(s);
    if (ret) {
        mull_block_close(m->block[i]);
        m->block[i] = NULL;
    }
    return ret;
}

int machine_storage_devices(struct mull_machine *m, const struct mull_device_env *env,
                            const struct mull_machine_config *config, struct mull_error *err)
{
    struct storage *s = begin(m, env);
    int ret = 0;

    if (!s)
        return mull_fail(err, ENOMEM, "disks: no memory");
    for (unsigned i = 0; i < config->disk_count && !ret; i++)
        ret = add_disk(s, i, &config->disk[i], NULL, err);
    for (unsigned i = 0; i < config->cdrom_count && !ret; i++)
        ret = add_cdrom(s, i, &config->cdrom[i], err);
    for (unsigned k = 0; k < KINDS && !ret; k++)
        ret = flush(s, &s->kind[k], err);
    free(s);
    return ret;
}
