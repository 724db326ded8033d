/* VMware's SCSI adapter: see fuzz_storage.c. It begins with its rings set up, and a request. */
#include <stdlib.h>

#include "device/storage/pvscsi.h"
#include "fuzz_storage.h"

void fuzz_storage_create(struct fuzz_storage *f)
{
    struct mull_pvscsi_config cfg = {.name = "pvscsi.0"};

    cfg.drive[0] = f->disk;
    cfg.drive[1] = f->cdrom;
    if (mull_pvscsi_create(&f->env, f->bus, &cfg, &f->device, NULL))
        abort();
}

void fuzz_storage_prepare(struct fuzz_storage *f)
{
    /* A read of 8 blocks to 18000h. */
    static const uint32_t request[] = {1,  0, 0x18000, 0, 4096,       0,          0x17000, 0,
                                       18, 0, 0x28,    0, 0x00000008, 0x00000000, 10};

    mull_mem_write(f->env.memory, 0x11000, request, sizeof(request));
    mull_mem_write32(f->env.memory, 0x10000, 1);
    mull_space_write(f->env.memory, MULL_SPACE_MMIO, 0, f->base, 4, 3);
    for (unsigned i = 0; i < 132; i++) {
        uint32_t word = i < 2 ? 1 : i == 2 ? 0x10 : i == 4 ? 0x11 : i == 68 ? 0x12 : 0;
        mull_space_write(f->env.memory, MULL_SPACE_MMIO, 0, f->base + 4, 4, word);
    }
    mull_space_write(f->env.memory, MULL_SPACE_MMIO, 0, f->base + 0x2010, 4, 3);
}
