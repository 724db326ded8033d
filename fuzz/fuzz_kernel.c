/*
 * Fuzz target: an arbitrary file given as a kernel to the direct boot loader. The first byte
 * decides how much memory the machine has; the rest is the kernel.
 */
#include <stdint.h>
#include <stdlib.h>

#include "boot/boot.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct mull_memory *mem;
    static struct mull_cpu_state cpu;
    if (!mem && (mull_memory_create(NULL, &mem, NULL) ||
                 mull_memory_add_ram(mem, 0, 64ull << 20, false, NULL)))
        abort();
    if (!size)
        return 0;
    uint64_t top = (1ull + data[0] % 64) << 20;
    struct mull_boot_map map = {
        .count = 2,
        .range = {{0, 0x9fc00, MULL_BOOT_RAM}, {0x100000, top - 0x100000, MULL_BOOT_RAM}},
    };
    struct mull_boot *boot;
    struct mull_error err = {0};
    if (mull_boot_open_bytes(data + 1, size - 1, data, size < 4096 ? size : 4096, "console=ttyS0",
                             &boot, &err))
        return 0;
    mull_boot_load(boot, mem, &map, 0xe0000, &cpu, &err);
    mull_boot_close(boot);
    return 0;
}
