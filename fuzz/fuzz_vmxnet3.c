/* Fuzzes VMXNET3. */
#include "fuzz_nic.h"

#define AREA 0x1000
#define QUEUES 0x2000
#define RINGS 0x4000

/* A transmit and a receive queue with 32 descriptors each. */
static void start(struct fuzz_nic *n)
{
    const uint32_t magic = 3133079265u, mode = 0x1f;
    const uint64_t features = 0xf, table = QUEUES;
    const uint8_t queues[2] = {1, 1}, intr[3] = {1, 2, 0};
    const uint64_t tx[3] = {RINGS, 0, RINGS + 0x1000};
    const uint64_t rx[3] = {RINGS + 0x2000, RINGS + 0x3000, RINGS + 0x4000};
    const uint32_t size[3] = {32, 32, 32};

    mull_mem_write(n->memory, AREA, &magic, 4);
    mull_mem_write(n->memory, AREA + 24, &features, 8);
    mull_mem_write(n->memory, AREA + 40, &table, 8);
    mull_mem_write(n->memory, AREA + 62, queues, 2);
    mull_mem_write(n->memory, AREA + 80, intr, 3);
    mull_mem_write(n->memory, AREA + 120, &mode, 4);
    mull_mem_write(n->memory, QUEUES + 16, tx, sizeof(tx));
    mull_mem_write(n->memory, QUEUES + 56, size, sizeof(size));
    mull_mem_write(n->memory, QUEUES + 256 + 16, rx, sizeof(rx));
    mull_mem_write(n->memory, QUEUES + 256 + 56, size, sizeof(size));
    for (unsigned i = 0; i < 32; i++) {
        const uint32_t send[4] = {0x10000 + 0x1000 * i, 0, 0x4000 | 200 | 100u << 18,
                                  (i & 1) << 12 | (i & 2) << 12 | (i & 12) << 8 | 54};
        const uint32_t head[4] = {0x40000 + 0x800 * i, 0, 0x80000000 | 1536, 0};
        const uint32_t body[4] = {0x60000 + 0x1000 * i, 0, 0x80004000 | 4096, 0};
        mull_mem_write(n->memory, RINGS + 16 * i, send, 16);
        mull_mem_write(n->memory, RINGS + 0x2000 + 16 * i, head, 16);
        mull_mem_write(n->memory, RINGS + 0x3000 + 16 * i, body, 16);
    }
    nic_write(n, 1, 0x00, 2);
    nic_write(n, 1, 0x10, AREA);
    nic_write(n, 1, 0x20, 0xcafe0000);
    for (unsigned i = 0; i < 3; i++)
        nic_write(n, 0, 8 * i, 0);
    nic_write(n, 0, 0x600, 8);
    nic_turn(n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_nic_run(mull_vmxnet3_create, start, data, size);
    return 0;
}
