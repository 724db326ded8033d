/* Fuzzes the i6300ESB watchdog: any register access, time that passes, resets. */
#include <stdlib.h>

#include "device/legacy/i6300esb.h"
#include "fuzz_virtio.h"

#define SLOT (0xe0000000ull + (1u << 15))

static void expired(void *opaque)
{
    ++*(unsigned *)opaque;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct mull_clock *clock; /* made once: it measures the host's */
    struct fuzz_guest g;
    unsigned times = 0;
    uint64_t now = 0;

    fuzz_guest_init(&g);
    if (!clock && mull_clock_create(&clock, NULL))
        abort();
    g.env.clock = clock;
    mull_clock_pause(clock);
    mull_clock_set(clock, 0, 0);
    const struct mull_watchdog_config cfg = {
        .name = "i6300esb.0", .devfn = -1, .opaque = &times, .expired = expired};
    if (mull_i6300esb_create(&g.env, g.bus, &cfg, &g.device, NULL) ||
        mull_pci_bus_assign(g.bus, NULL))
        abort();
    uint64_t bar = mull_space_read(g.memory, MULL_SPACE_MMIO, 0, SLOT + 0x10, 4) & ~15u;
    for (size_t i = 0; i + 3 < size && i < 1024; i += 4) {
        uint32_t value = data[i + 2] | (uint32_t)data[i + 3] << 8;
        unsigned width = 1u << (data[i] >> 4) % 3;
        switch (data[i] & 7) {
        case 0:
            mull_space_read(g.memory, MULL_SPACE_MMIO, 0, bar + data[i + 1] % 32, width);
            break;
        case 1:
        case 2:
            mull_space_write(g.memory, MULL_SPACE_MMIO, 0, bar + data[i + 1] % 32, width, value);
            break;
        case 3:
            mull_space_write(g.memory, MULL_SPACE_MMIO, 0, SLOT + data[i + 1], width, value);
            break;
        case 4: /* what unlocks the next write */
            mull_space_write(g.memory, MULL_SPACE_MMIO, 0, bar + 0xc, 2, 0x80);
            mull_space_write(g.memory, MULL_SPACE_MMIO, 0, bar + 0xc, 2, 0x86);
            break;
        case 5:
            now += (uint64_t)value << data[i + 1] % 32;
            mull_clock_set(g.env.clock, now, now * 3);
            g.device->ops->quiesce(g.device);
            g.device->ops->resume(g.device);
            fuzz_guest_turn(&g);
            break;
        case 6:
            g.device->ops->reset(g.device);
            break;
        default:
            fuzz_guest_turn(&g);
        }
    }
    g.device->ops->destroy(g.device);
    g.device = NULL;
    fuzz_guest_fini(&g);
    return 0;
}
