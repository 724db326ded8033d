/* Fuzzes the 82574L. */
#include "fuzz_nic.h"

static void start(struct fuzz_nic *n)
{
    static const uint32_t registers[][2] = {
        {0x3800, 0x1000}, {0x3808, 0x100}, {0x400, 2},         {0x2800, 0x2000},  {0x2808, 0x100},
        {0x5008, 0x8000}, {0x2170, 0x804}, {0x100, 0x40080fe}, {0xd0, 0x1ffffff}, {0xe4, 0xa0908},
    };

    for (unsigned i = 0; i < 16; i++) {
        const uint64_t desc[2] = {0x8000 + 0x1000 * i, 0x2b100100ull | (i & 1) << 24};
        mull_mem_write(n->memory, 0x1000 + 16 * i, desc, 16);
        mull_mem_write(n->memory, 0x2000 + 16 * i, desc, 16);
    }
    for (unsigned i = 0; i < sizeof(registers) / sizeof(registers[0]); i++)
        nic_write(n, 0, registers[i][0], registers[i][1]);
    nic_write(n, 0, 0x2818, 15);
    nic_write(n, 0, 0x3818, 7);
    nic_turn(n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_nic_run(mull_e1000e_create, start, data, size);
    return 0;
}
