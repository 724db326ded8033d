/*
 * A machine's disks and CD-ROM drives: opens what is behind them and puts them on their buses.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device/storage/ahci.h"
#include "machine/internal.h"

static int open_disk(struct mull_machine *m, unsigned i, const struct mull_disk_config *disk,
                     struct mull_error *err)
{
    struct mull_block_options options = {
        .path = disk->path,
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
    return ret ? ret : mull_block_start(m->block[i], m->loop, err);
}

static void name_serial(char serial[21], const char *wanted, const char *kind, unsigned i)
{
    if (*wanted)
        snprintf(serial, 21, "%s", wanted);
    else
        snprintf(serial, 21, "%s%u", kind, i);
}

static int make_virtio(struct mull_machine *m, const struct mull_device_env *env, unsigned i,
                       const struct mull_disk_config *disk, struct mull_error *err)
{
    struct mull_pci_bus *bus = mull_platform_pci(m->platform);
    char name[32];
    snprintf(name, sizeof(name), "virtio-blk.%u", i);
    struct mull_virtio_blk_config cfg = {
        .name = name, .devfn = -1, .block = m->block[i], .readonly = disk->readonly};
    struct mull_device *device;

    name_serial(cfg.serial, disk->serial, "disk", i);
    machine_boot_path_add(m, MULL_BOOT_DISK, i, "scsi", mull_pci_bus_free_slot(bus), 0);
    int ret = mull_virtio_blk_create(env, bus, &cfg, &device, err);
    if (!ret)
        machine_add_device(m, device);
    return ret;
}

/* ---- SATA: six drives an adapter ---- */

struct sata {
    struct mull_machine *machine;
    const struct mull_device_env *env;
    struct mull_ahci_config config;
    unsigned drives, adapters;
};

static int flush_adapter(struct sata *s, struct mull_error *err)
{
    struct mull_device *device;
    char name[32];

    if (!s->drives)
        return 0;
    snprintf(name, sizeof(name), "ahci.%u", s->adapters++);
    s->config.name = name;
    int ret =
        mull_ahci_create(s->env, mull_platform_pci(s->machine->platform), &s->config, &device, err);
    if (!ret)
        machine_add_device(s->machine, device);
    memset(&s->config, 0, sizeof(s->config));
    s->drives = 0;
    return ret;
}

static int add_drive(struct sata *s, const struct mull_drive *drive, unsigned index,
                     struct mull_error *err)
{
    int ret = s->drives == MULL_AHCI_PORTS ? flush_adapter(s, err) : 0;
    if (ret)
        return ret;
    machine_boot_path_add(
        s->machine, drive->cdrom ? MULL_BOOT_CDROM : MULL_BOOT_DISK, index, "pci8086,2922",
        mull_pci_bus_free_slot(mull_platform_pci(s->machine->platform)), s->drives);
    s->config.drive[s->drives++] = *drive;
    return 0;
}

static int add_disk(struct sata *s, unsigned i, const struct mull_disk_config *disk,
                    struct mull_error *err)
{
    struct mull_drive drive = {.present = true,
                                    .block = s->machine->block[i],
                                    .readonly = disk->readonly ||
                                                mull_block_readonly(s->machine->block[i])};
    name_serial(drive.serial, disk->serial, "disk", i);
    return add_drive(s, &drive, i, err);
}

static int add_cdrom(struct sata *s, unsigned i, const struct mull_cdrom_config *cdrom,
                     struct mull_error *err)
{
    struct mull_machine *m = s->machine;
    struct mull_drive drive = {.present = true, .cdrom = true, .readonly = true};

    if (cdrom->path) {
        struct mull_block_options options = {
            .path = cdrom->path, .format = "raw", .readonly = true, .log = m->log};
        int ret = mull_block_open(&options, &m->cdrom_block[i], err);
        if (!ret)
            ret = mull_block_start(m->cdrom_block[i], m->loop, err);
        if (ret)
            return ret;
        drive.block = m->cdrom_block[i];
    }
    name_serial(drive.serial, "", "cdrom", i);
    return add_drive(s, &drive, i, err);
}

int machine_storage_devices(struct mull_machine *m, const struct mull_device_env *env,
                            const struct mull_machine_config *config, struct mull_error *err)
{
    struct sata s = {.machine = m, .env = env};
    int ret = 0;

    for (unsigned i = 0; i < config->disk_count && !ret; i++) {
        const struct mull_disk_config *disk = &config->disk[i];
        ret = open_disk(m, i, disk, err);
        if (!ret)
            ret = disk->bus == MULL_BUS_SATA || disk->bus == MULL_BUS_IDE
                      ? add_disk(&s, i, disk, err)
                      : make_virtio(m, env, i, disk, err);
    }
    for (unsigned i = 0; i < config->cdrom_count && !ret; i++)
        ret = add_cdrom(&s, i, &config->cdrom[i], err);
    return ret ? ret : flush_adapter(&s, err);
}
