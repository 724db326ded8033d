/*
 * Fuzz the test devices: a list of accesses to their ports, memory and PCI registers.
 */
#include <stdlib.h>
#include <string.h>

#include "device/testdev.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void no_line(void *opaque, unsigned line, bool level) {}

static void access_one(struct mull_memory *m, const uint8_t *b)
{
    static const uint64_t bases[] = {0xe0, 0xf4, 0x2000, 0xc000, 0xff000000, 0xc0000000};
    unsigned where = b[1] % 6, size = 1u << (b[2] & 3);
    enum mull_space space = where < 4 ? MULL_SPACE_PORT : MULL_SPACE_MMIO;
    uint64_t at = bases[where] + (where < 4 ? b[3] : b[3] | (unsigned)b[4] << 8);
    uint32_t value;

    memcpy(&value, b + 4, 4);
    if (space == MULL_SPACE_PORT && size > 4)
        size = 4;
    if (b[0] & 1)
        mull_space_write(m, space, 0, at, size, value * 0x100000001ull);
    else
        mull_space_read(m, space, 0, at, size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct mull_clock *clock; /* made once: it measures the host's */
    struct mull_device_env env = {0};
    struct mull_testdev_config cfg = {0};
    struct mull_pci_bus *bus;
    struct mull_device *device, *pci;

    for (unsigned i = 0; i < MULL_TESTDEV_LINES; i++)
        cfg.irq[i] = (struct mull_irq){.set = no_line, .line = i};
    if (mull_memory_create(NULL, &env.memory, NULL) || mull_loop_create(&env.loop, NULL) ||
        (!clock && mull_clock_create(&clock, NULL)))
        abort();
    env.clock = clock;
    struct mull_pci_config root = {.memory = env.memory,
                                   .ecam_base = 0xe0000000,
                                   .mmio_base = 0xc0000000,
                                   .mmio_size = 0x100000,
                                   .io_base = 0xc000,
                                   .io_size = 0x1000};
    if (mull_pci_bus_create(&root, &bus, NULL) || mull_testdev_create(&env, &cfg, &device, NULL) ||
        mull_pci_testdev_create(&env, bus, &pci, NULL) || mull_pci_bus_assign(bus, NULL))
        abort();
    for (; size >= 8; data += 8, size -= 8)
        access_one(env.memory, data);
    device->ops->reset(device);
    device->ops->destroy(device);
    pci->ops->destroy(pci);
    mull_pci_bus_destroy(bus);
    mull_loop_destroy(env.loop);
    mull_memory_destroy(env.memory);
    return 0;
}
