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
#include "rom/rom.h"

#define DRIVES_MAX 16 /* of one controller */
#define CONTROLLERS_MAX (MULL_CONFIG_DISKS + MULL_CONFIG_CDROMS)
#define CONTROLLERS_NAMED 4 /* that a description's `controller` can mean */

struct storage;

struct placed {
    struct mull_drive drive;
    unsigned index; /* among the machine's disks or CD-ROMs */
};

/* A kind of controller, and then with the drives of each one of it. */
struct controller_kind {
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
};

struct controller {
    struct controller_kind is;
    struct placed at[CONTROLLERS_MAX][DRIVES_MAX];
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
    const struct mull_firmware *firmware = s->machine->firmware;
    struct mull_pvscsi_config cfg = {.name = name};

    if (firmware && firmware->vars) { /* UEFI; a BIOS knows the adapter */
        cfg.rom = mull_rom_pvscsi;
        cfg.rom_size = mull_rom_pvscsi_size;
    }
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

/* What a kind of controller is; its drives are put in later. */
static const struct controller_kind kinds[KINDS] = {
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

/* Create number @n of its kind, if there are drives for it. */
static int flush(struct storage *s, const struct controller *c, unsigned n, struct mull_error *err)
{
    struct mull_drive drives[DRIVES_MAX] = {0};
    struct mull_device *device;
    char name[32], tail[40];
    unsigned slot = mull_pci_bus_free_slot(pci(s)), count = 0;

    for (unsigned u = 0; u < c->is.room; u++) {
        drives[u] = c->at[n][u].drive;
        if (drives[u].present)
            count = u + 1;
    }
    if (!count)
        return 0;
    snprintf(name, sizeof(name), "%s.%u", c->is.name, c->is.room == 1 ? c->at[n][0].index : n);
    int ret = c->is.create(s, name, drives, count, &device, err);
    if (ret)
        return ret;
    machine_add_device(s->machine, device);
    for (unsigned u = 0; u < count; u++) {
        if (!drives[u].present)
            continue;
        c->is.tail(tail, sizeof(tail), u);
        machine_boot_path_add(s->machine, drives[u].cdrom ? MULL_BOOT_CDROM : MULL_BOOT_DISK,
                              c->at[n][u].index, c->is.firmware, slot, tail);
    }
    if (c->is.room == 1)
        machine_part_add(s->machine, MACHINE_PART_DISK, c->at[n][0].index, slot, device);
    return 0;
}

static struct controller *find(struct storage *s, enum mull_bus bus, bool cdrom)
{
    for (unsigned k = 0; k < KINDS; k++)
        if (s->kind[k].is.bus == bus && !(cdrom && s->kind[k].is.no_cdrom))
            return &s->kind[k];
    return NULL;
}

/* Where a drive is to be: a description's bus, controller and unit. */
struct wish {
    enum mull_bus bus;
    int controller, unit; /* -1: not said */
};

/* The place that is meant. @return false: none is, or there is no such place here */
static bool place_of(const struct controller *c, const struct wish *w, unsigned *n, unsigned *unit)
{
    unsigned number = w->controller > 0 ? (unsigned)w->controller : 0;

    if (c->is.room == 1 || w->unit < 0)
        return false;
    *n = number;
    *unit = (unsigned)w->unit;
    if (c->is.bus == MULL_BUS_IDE) { /* two channels of two drives, in one controller */
        if (number > 1 || w->unit > 1)
            return false;
        *n = 0;
        *unit = 2 * number + (unsigned)w->unit;
    }
    return *n < CONTROLLERS_NAMED && *unit < c->is.room;
}

static bool next_free(const struct controller *c, unsigned *n, unsigned *unit)
{
    unsigned most = c->is.most ? c->is.most : CONTROLLERS_MAX;

    for (*n = 0; *n < most; ++*n)
        for (*unit = 0; *unit < c->is.room; ++*unit)
            if (!c->at[*n][*unit].drive.present)
                return true;
    return false;
}

static int add_drive(struct storage *s, const struct wish *w, unsigned index,
                     const struct mull_drive *drive, struct mull_error *err)
{
    const char *what = drive->cdrom ? "CD-ROM drive" : "disk";
    struct controller *c = find(s, w->bus, drive->cdrom);
    unsigned n, unit;

    if (!c) /* mull_machine_config_missing() has said so */
        c = find(s, drive->cdrom ? MULL_BUS_SATA : MULL_BUS_VIRTIO, drive->cdrom);
    if (!place_of(c, w, &n, &unit)) {
        if (!next_free(c, &n, &unit))
            return mull_fail(err, ENOSPC,
                             "--disk: bus %s has room for %u drives; put the others on another bus",
                             mull_bus_names[c->is.bus], c->is.most * c->is.room);
        if (w->unit >= 0 && c->is.room > 1)
            mull_log(s->machine->log, MULL_LOG_WARN,
                     "%s %u: there is no place %s %d:%d here; it is at %u:%u", what, index,
                     mull_bus_names[c->is.bus], w->controller > 0 ? w->controller : 0, w->unit, n,
                     unit);
    } else if (c->at[n][unit].drive.present) {
        return mull_fail(err, EINVAL,
                         "%s %u: %s %d:%d is another drive's place already; give it another "
                         "controller or unit",
                         what, index, mull_bus_names[c->is.bus],
                         w->controller > 0 ? w->controller : 0, w->unit);
    }
    c->at[n][unit] = (struct placed){*drive, index};
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
    const struct wish wish = {bus_of(disk->bus, disk->adapter), disk->controller, disk->unit};
    return add_drive(s, &wish, i, &drive, err);
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
    const struct wish wish = {bus_of(cdrom->bus, cdrom->adapter), cdrom->controller, cdrom->unit};
    return add_drive(s, &wish, i, &drive, err);
}

static struct storage *begin(struct mull_machine *m, const struct mull_device_env *env)
{
    struct storage *s = calloc(1, sizeof(*s));

    if (!s)
        return NULL;
    s->machine = m;
    s->env = env;
    for (unsigned k = 0; k < KINDS; k++)
        s->kind[k].is = kinds[k];
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
    if (!c || c->is.room > 1)
        ret = mull_fail(err, ENOTSUP,
                        "%s: a disk on the bus %s cannot come while the machine runs; use "
                        "bus=virtio or bus=nvme",
                        disk->path, mull_bus_names[disk->bus]);
    if (!ret)
        ret = add_disk(s, i, disk, given, err);
    if (!ret)
        ret = flush(s, c, 0, err);
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
    /* Those whose place is said come first: the others take what they leave. */
    for (unsigned pass = 0; pass < 2; pass++) {
        for (unsigned i = 0; i < config->disk_count && !ret; i++)
            if ((config->disk[i].unit < 0) == pass)
                ret = add_disk(s, i, &config->disk[i], NULL, err);
        for (unsigned i = 0; i < config->cdrom_count && !ret; i++)
            if ((config->cdrom[i].unit < 0) == pass)
                ret = add_cdrom(s, i, &config->cdrom[i], err);
    }
    for (unsigned k = 0; k < KINDS && !ret; k++)
        for (unsigned n = 0; n < CONTROLLERS_MAX && !ret; n++)
            ret = flush(s, &s->kind[k], n, err);
    free(s);
    return ret;
}
