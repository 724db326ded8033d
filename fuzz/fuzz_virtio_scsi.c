/* Fuzzes the virtio SCSI host with a disk and a CD-ROM drive over files in memory. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "device/storage/virtio_scsi.h"
#include "fuzz_virtio.h"

struct disks {
    struct mull_block *block[2];
};

static struct mull_block *open_block(struct fuzz_guest *g, bool readonly)
{
    char path[64];
    int fd = memfd_create("disk", 0);
    struct mull_block_options options = {
        .path = path, .format = "raw", .readonly = readonly, .no_lock = true, .aio = "threads"};
    struct mull_block *block;

    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    if (fd < 0 || ftruncate(fd, 1 << 20) || mull_block_open(&options, &block, NULL) ||
        mull_block_start(block, g->loop, NULL))
        abort();
    close(fd);
    return block;
}

static void settle(struct fuzz_guest *g)
{
    struct disks *d = g->opaque;

    mull_block_drain(d->block[0]);
    mull_block_drain(d->block[1]);
}

static void event(struct fuzz_guest *g, uint32_t arg)
{
    struct disks *d = g->opaque;
    struct mull_drive drive = {.present = true, .block = d->block[0]};

    if (arg & 1)
        mull_virtio_scsi_unplug(g->device, arg >> 8 & 15);
    else
        mull_virtio_scsi_plug(g->device, arg >> 8 & 15, &drive, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_guest g;
    struct disks disks;
    struct mull_virtio_scsi_config cfg = {.name = "virtio-scsi.0", .queues = 2};

    fuzz_guest_init(&g);
    disks.block[0] = open_block(&g, false);
    disks.block[1] = open_block(&g, true);
    cfg.drive[0] = (struct mull_drive){.present = true, .block = disks.block[0], .serial = "SN"};
    cfg.drive[1] = (struct mull_drive){
        .present = true, .cdrom = true, .readonly = true, .block = disks.block[1]};
    if (mull_virtio_scsi_create(&g.env, g.bus, &cfg, &g.device, NULL))
        abort();
    g.queues = 4;
    g.event = event;
    g.settle = settle;
    g.opaque = &disks;
    fuzz_guest_run(&g, data, size);
    if (g.device) /* before its blocks, and they before the loop */
        g.device->ops->destroy(g.device);
    g.device = NULL;
    mull_block_close(disks.block[0]);
    mull_block_close(disks.block[1]);
    fuzz_guest_fini(&g);
    return 0;
}
