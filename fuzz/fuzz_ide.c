/* The IDE controller: see fuzz_storage.c. */
#include <stdlib.h>

#include "device/storage/ide.h"
#include "fuzz_storage.h"

void fuzz_storage_create(struct fuzz_storage *f)
{
    static const uint16_t ports[] = {0x1f0, 0x170, 0x3f6, 0x376, 0xc000};
    struct mull_ide_config cfg = {.name = "ide.0"};

    cfg.drive[0] = f->disk;
    cfg.drive[2] = f->cdrom;
    f->ports = ports;
    f->port_count = sizeof(ports) / sizeof(ports[0]);
    if (mull_ide_create(&f->env, f->bus, &cfg, &f->device, NULL))
        abort();
}

void fuzz_storage_prepare(struct fuzz_storage *f)
{
    static const uint32_t prd[] = {0x20000, 0x200, 0x21000, 0x80001000};

    mull_mem_write(f->env.memory, 0x10000, prd, sizeof(prd));
    mull_space_write(f->env.memory, MULL_SPACE_PORT, 0, 0xc004, 4, 0x10000);
    mull_space_write(f->env.memory, MULL_SPACE_PORT, 0, 0xc00c, 4, 0x10000);
}
