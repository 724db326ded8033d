/*
 * Fuzzes the xHCI with a tablet and a keyboard: after what a sane driver does first, the input is a
 * list of register accesses, writes to the rings and contexts, and events, eight bytes each.
 */
#include <stdlib.h>
#include <string.h>

#include "device/usb/xhci.h"
#include "fuzz_virtio.h"

#define ECAM 0xe0000000ull
#define SLOT (1u << 15)
#define OPERATIONAL 0x40u
#define INTERRUPTER 0x1020u

/* As in RAM of 1 MiB. */
#define COMMANDS 0x1000u
#define EVENTS 0x2000u
#define TABLE 0x3000u
#define DCBAA 0x4000u
#define OUTPUT(slot) (0x5000u + 0x400u * (slot))
#define INPUT 0x6000u
#define RING(slot, index) (0x8000u + 0x2000u * (slot) + 0x400u * (index))

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint64_t bar;

static void set(struct fuzz_guest *g, uint32_t offset, uint32_t value)
{
    mull_space_write(g->memory, MULL_SPACE_MMIO, 0, bar + offset, 4, value);
}

static void put(struct fuzz_guest *g, uint32_t at, uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
    const uint32_t words[4] = {a, b, c, d};
    mull_mem_write(g->memory, at, words, sizeof(words));
}

/* Both devices have addresses and an endpoint for reports. */
static void set_up(struct fuzz_guest *g)
{
    put(g, TABLE, EVENTS, 0, 64, 0);
    for (uint32_t slot = 1; slot < 3; slot++) {
        uint32_t input = INPUT + 0x400 * (slot - 1), at = COMMANDS + 16 * 3 * (slot - 1);
        put(g, DCBAA + 8 * slot, OUTPUT(slot), 0, 0, 0);
        put(g, input, 0, 3 | 8, 0, 0);
        put(g, input + 32, 3u << 27 | 1u << 20, slot << 16, 0, 0);
        put(g, input + 64, 0, 4u << 3 | 64u << 16, RING(slot, 1) | 1, 0);
        put(g, input + 128, 0, 7u << 3 | 8u << 16, RING(slot, 3) | 1, 0);
        put(g, input + 0x200, 0, 1 | 8, 0, 0);
        put(g, input + 0x200 + 32, 3u << 27 | 1u << 20, slot << 16, 0, 0);
        put(g, input + 0x200 + 128, 0, 7u << 3 | 8u << 16, RING(slot, 3) | 1, 0);
        put(g, at, 0, 0, 0, 9u << 10 | 1);
        put(g, at + 16, input, 0, 0, 11u << 10 | slot << 24 | 1);
        put(g, at + 32, input + 0x200, 0, 0, 12u << 10 | slot << 24 | 1);
        /* A descriptor asked for, and a report. */
        put(g, RING(slot, 1), 0x02000680, 34u << 16, 8, 2u << 10 | 0x41 | 3u << 16);
        put(g, RING(slot, 1) + 16, 0x10000, 0, 34, 3u << 10 | 1 | 1u << 16);
        put(g, RING(slot, 1) + 32, 0, 0, 0, 4u << 10 | 0x21);
        put(g, RING(slot, 1) + 48, 0x00010900, 0, 8, 2u << 10 | 0x41);
        put(g, RING(slot, 1) + 64, 0, 0, 0, 4u << 10 | 0x21);
        put(g, RING(slot, 3), 0x11000, 0, 8, 1u << 10 | 0x25);
    }
    set(g, OPERATIONAL + 0x38, 8);
    set(g, OPERATIONAL + 0x30, DCBAA);
    set(g, OPERATIONAL + 0x18, COMMANDS | 1);
    set(g, INTERRUPTER + 8, 1);
    set(g, INTERRUPTER + 0x18, EVENTS);
    set(g, INTERRUPTER + 0x10, TABLE);
    set(g, INTERRUPTER + 0x14, 0);
    set(g, INTERRUPTER, 2);
    set(g, OPERATIONAL, 5);
    set(g, 0x440, 0x210);
    set(g, 0x450, 0x210);
    set(g, 0x2000, 0);
    for (uint32_t slot = 1; slot < 3; slot++) {
        set(g, 0x2000 + 4 * slot, 1);
        set(g, 0x2000 + 4 * slot, 3);
    }
}

static void step(struct fuzz_guest *g, struct mull_input *input, const uint8_t *b)
{
    uint32_t at = b[2] | (uint32_t)b[3] << 8;
    uint32_t value = b[4] | (uint32_t)b[5] << 8 | (uint32_t)b[6] << 16 | (uint32_t)b[7] << 24;

    switch (b[0] & 7) {
    case 0:
        mull_space_write(g->memory, MULL_SPACE_MMIO, 0, bar + (at & 0x3fff), 1u << (b[1] & 3),
                         value * 0x100000001ull);
        break;
    case 1:
        mull_space_read(g->memory, MULL_SPACE_MMIO, 0, bar + (at & 0x3fff), 1u << (b[1] & 3));
        break;
    case 2: /* registers that matter */
        set(g, (b[1] & 1 ? OPERATIONAL : INTERRUPTER) + (at & 0x3c), value);
        break;
    case 3:
        set(g, 0x2000 + 4 * (b[1] & 15), at & 31);
        break;
    case 4:
        mull_input_pointer(input, at, value & 0xffff, 1000, 1000, (int8_t)b[1], b[6]);
        break;
    case 5:
        mull_input_key(input, at & 0x1ff, b[1] & 1);
        break;
    case 6: /* the guest has seen all events */
        set(g, INTERRUPTER + 0x18, EVENTS + (at & 0x3f0) + 8);
        set(g, INTERRUPTER + 0x1c, 0);
        break;
    default:
        mull_mem_write(g->memory, at, &value, 4);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct mull_xhci_config cfg = {.name = "xhci",
                                         .port = {MULL_HID_TABLET, MULL_HID_KEYBOARD}};
    struct mull_input input;
    struct fuzz_guest g;

    fuzz_guest_init(&g);
    mull_input_init(&input);
    if (mull_xhci_create(&g.env, g.bus, &cfg, &input, &g.device, NULL) ||
        mull_pci_bus_assign(g.bus, NULL))
        abort();
    mull_space_write(g.memory, MULL_SPACE_MMIO, 0, ECAM + SLOT + 4, 2, 6);
    bar = mull_space_read(g.memory, MULL_SPACE_MMIO, 0, ECAM + SLOT + 0x10, 4) & ~15u;
    bar |= mull_space_read(g.memory, MULL_SPACE_MMIO, 0, ECAM + SLOT + 0x14, 4) << 32;
    set_up(&g);
    for (; size >= 8; data += 8, size -= 8)
        step(&g, &input, data);
    g.device->ops->reset(g.device);
    g.device->ops->destroy(g.device);
    g.device = NULL;
    mull_input_fini(&input);
    fuzz_guest_fini(&g);
    return 0;
}
