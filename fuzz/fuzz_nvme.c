/* The NVMe controller: see fuzz_storage.c. It begins enabled, with its admin queue in memory. */
#include <stdlib.h>

#include "device/storage/nvme.h"
#include "fuzz_storage.h"

void fuzz_storage_create(struct fuzz_storage *f)
{
    struct mull_nvme_config cfg = {.name = "nvme.0", .drive = f->disk};

    if (mull_nvme_create(&f->env, f->bus, &cfg, &f->device, NULL))
        abort();
}

void fuzz_storage_prepare(struct fuzz_storage *f)
{
    static const uint32_t set[][2] = {
        {0x24, 0x001f001f}, {0x28, 0x10000}, {0x30, 0x11000}, {0x14, 0x00460001}, {0x1000, 2}};
    /* Create queues 1 at 12000h and 13000h. */
    static const uint32_t commands[2][16] = {
        {5, 0, 0, 0, 0, 0, 0x12000, 0, 0, 0, 0x1f0001, 3},
        {1, 0, 0, 0, 0, 0, 0x13000, 0, 0, 0, 0x1f0001, 0x10001}};

    mull_mem_write(f->env.memory, 0x10000, commands, sizeof(commands));
    for (unsigned i = 0; i < 5; i++)
        mull_space_write(f->env.memory, MULL_SPACE_MMIO, 0, f->base + set[i][0], 4, set[i][1]);
}
