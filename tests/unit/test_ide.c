/* The IDE controller, driven as a driver would: PIO, bus-master DMA, packets, resets, a state saved
 * in the middle of a transfer. */
#include "storage_world.h"

#include "device/storage/ide.h"

#define PRD 0x10000ull
#define DATA 0x20000ull
#define PRIMARY 0x1f0u
#define SECONDARY 0x170u
#define CONTROL 0x206u

static unsigned channel; /* the first port of the one in use */

static uint32_t in(unsigned port, unsigned size)
{
    return (uint32_t)mull_space_read(world.env.memory, MULL_SPACE_PORT, 0, port, size);
}

static void out(unsigned port, unsigned size, uint32_t value)
{
    mull_space_write(world.env.memory, MULL_SPACE_PORT, 0, port, size, value);
}

static unsigned bm(void)
{
    return STORAGE_PORTS + (channel == PRIMARY ? 0 : 8);
}

static int setup(void **state)
{
    struct mull_ide_config cfg = {.name = "ide.0"};

    storage_make();
    for (unsigned i = 0; i < 2; i++)
        cfg.irq[i] = world_irq(&world, 14 + i);
    cfg.drive[0] = (struct mull_drive){.present = true, .block = disk, .serial = "SN1"};
    cfg.drive[2] =
        (struct mull_drive){.present = true, .cdrom = true, .readonly = true, .block = cd};
    assert_int_equal(mull_ide_create(&world.env, bus, &cfg, &device, NULL), 0);
    assert_int_equal(mull_pci_bus_assign(bus, NULL), 0);
    channel = PRIMARY;
    return 0;
}

static int teardown(void **state)
{
    storage_free();
    return 0;
}

static void command(uint8_t code, uint32_t lba, uint8_t count)
{
    out(channel + 6, 1, 0xe0 | (lba >> 24 & 15));
    out(channel + 2, 1, count);
    for (unsigned i = 0; i < 3; i++)
        out(channel + 3 + i, 1, lba >> 8 * i & 0xff);
    out(channel + 7, 1, code);
    settle();
}

static bool *line(void)
{
    return &world.line[channel == PRIMARY ? 14 : 15];
}

static void test_identify(void **state)
{
    uint16_t id[256];

    assert_int_equal(in(PRIMARY + 7, 1), 0x50);
    assert_int_equal(in(PRIMARY + 2, 1), 1);
    out(PRIMARY + 6, 1, 0xf0); /* nobody there */
    assert_int_equal(in(PRIMARY + 7, 1), 0);
    command(0xec, 0, 0);
    assert_int_equal(in(PRIMARY + CONTROL, 1), 0x58);
    assert_true(*line());
    assert_int_equal(in(PRIMARY + 7, 1), 0x58);
    assert_false(*line());
    for (unsigned i = 0; i < 256; i++)
        id[i] = (uint16_t)in(PRIMARY, 2);
    assert_int_equal(in(PRIMARY + 7, 1), 0x50);
    assert_int_equal(id[10], 'S' << 8 | 'N');
    assert_int_equal(id[60], STORAGE_SECTORS);
    assert_int_equal(id[76], 0);
}

static void test_pio(void **state)
{
    command(0x20, 100, 3);
    for (unsigned s = 0; s < 3; s++) {
        assert_true(*line()); /* one interrupt a sector */
        assert_int_equal(in(PRIMARY + 7, 1) & 8, 8);
        for (unsigned i = 0; i < 128; i++)
            assert_int_equal(in(PRIMARY, 4), (100 + s) * 0x01010101u);
    }
    assert_false(*line());
    assert_int_equal(in(PRIMARY + 7, 1), 0x50);
    /* More than the buffer holds, written and read again by MULTIPLE with 48-bit addresses. */
    out(PRIMARY + 6, 1, 0xe0);
    out(PRIMARY + 2, 1, 0);
    out(PRIMARY + 2, 1, 40);
    for (unsigned i = 3; i < 6; i++) {
        out(PRIMARY + i, 1, 0);
        out(PRIMARY + i, 1, i == 3 ? 200 : 0);
    }
    out(PRIMARY + 7, 1, 0x34);
    settle();
    assert_false(*line()); /* the first is wanted unasked */
    for (unsigned s = 0; s < 40; s++) {
        assert_int_equal(in(PRIMARY + CONTROL, 1) & 8, 8);
        for (unsigned i = 0; i < 256; i++)
            out(PRIMARY, 2, 0x4000 + s);
        settle();
        assert_true(*line());
        in(PRIMARY + 7, 1);
    }
    assert_int_equal(in(PRIMARY + 7, 1), 0x50);
    command(0xc4, 200, 40);
    for (unsigned s = 0; s < 40; s++) {
        assert_int_equal(in(PRIMARY + CONTROL, 1) & 8, 8);
        for (unsigned i = 0; i < 256; i++)
            assert_int_equal(in(PRIMARY, 2), 0x4000 + s);
        settle();
    }
    assert_int_equal(in(PRIMARY + 7, 1), 0x50);
}

static void dma(uint8_t code, uint32_t lba, uint8_t count)
{
    const uint32_t prd[4] = {(uint32_t)DATA, 0x200, (uint32_t)DATA + 0x1000, 0x80000e00};

    mull_mem_write(world.env.memory, PRD, prd, sizeof(prd));
    out(bm() + 2, 1, 6);
    out(bm() + 4, 4, (uint32_t)PRD);
    command(code, lba, count);
    out(bm(), 1, 9);
    settle();
}

static void test_dma(void **state)
{
    dma(0xc8, 7, 8);
    assert_true(*line());
    assert_int_equal(in(bm() + 2, 1) & 7, 4);
    assert_int_equal(in(PRIMARY + 7, 1), 0x50);
    assert_false(*line());
    out(bm(), 1, 0);
    assert_int_equal(byte_at(DATA), 7);
    assert_int_equal(byte_at(DATA + 0x1000), 8);
    assert_int_equal(byte_at(DATA + 0x1dff), 14);
    mull_mem_set(world.env.memory, DATA, 0x77, 0x200);
    dma(0xca, 300, 1);
    out(bm(), 1, 0);
    command(0xe7, 0, 0);
    assert_int_equal(in(PRIMARY + 7, 1), 0x50);
    dma(0xc8, 300, 1);
    out(bm(), 1, 0);
    assert_int_equal(byte_at(DATA + 511), 0x77);
    /* More than the buffers hold, and beyond the end. */
    dma(0xc8, 0, 9);
    assert_int_equal(in(PRIMARY + 7, 1) & 1, 1);
    assert_int_equal(in(bm() + 2, 1) & 3, 2);
    out(bm(), 1, 0);
    dma(0xc8, STORAGE_SECTORS - 1, 2);
    assert_int_equal(in(PRIMARY + 7, 1) & 1, 1);
    assert_int_equal(in(PRIMARY + 1, 1), 0x10);
    out(bm(), 1, 0);
    command(0x77, 0, 0);
    assert_int_equal(in(PRIMARY + 7, 1), 0x51);
    assert_int_equal(in(PRIMARY + 1, 1), 4);
}

static void test_chs(void **state)
{
    out(PRIMARY + 6, 1, 0xa1); /* cylinder 0, head 1, sector 2 */
    out(PRIMARY + 2, 1, 1);
    out(PRIMARY + 3, 1, 2);
    out(PRIMARY + 4, 1, 0);
    out(PRIMARY + 5, 1, 0);
    out(PRIMARY + 7, 1, 0x20);
    settle();
    assert_int_equal(in(PRIMARY, 2) & 0xff, 64);
    out(PRIMARY + CONTROL, 1, 4); /* a reset in the middle */
    assert_int_equal(in(PRIMARY + 7, 1), 0x80);
    out(PRIMARY + CONTROL, 1, 0);
    assert_int_equal(in(PRIMARY + 7, 1), 0x50);
    assert_int_equal(in(PRIMARY, 2), 0);
    command(0x20, 5, 1);
    assert_int_equal(in(PRIMARY, 2) & 0xff, 5);
}

static void packet(const uint8_t bytes[12], unsigned limit)
{
    out(channel + 6, 1, 0xa0);
    out(channel + 1, 1, 0);
    out(channel + 4, 1, limit & 0xff);
    out(channel + 5, 1, limit >> 8);
    out(channel + 7, 1, 0xa0);
    assert_int_equal(in(channel + 7, 1) & 0x88, 8);
    assert_int_equal(in(channel + 2, 1), 1);
    for (unsigned i = 0; i < 6; i++)
        out(channel, 2, bytes[2 * i] | bytes[2 * i + 1] << 8);
    settle();
}

static void test_cdrom(void **state)
{
    static const uint8_t read[12] = {0x28, 0, 0, 0, 0, 3, 0, 0, 5}, ready[12] = {0},
                         beyond[12] = {0x28, 0, 0, 0, 2, 0, 0, 0, 1}, sense[12] = {3, 0, 0, 0, 18},
                         inquiry[12] = {0x12, 0, 0, 0, 36};

    channel = SECONDARY;
    assert_int_equal(in(channel + 4, 1), 0x14);
    assert_int_equal(in(channel + 5, 1), 0xeb);
    command(0xec, 0, 0); /* aborted, with the signature */
    assert_int_equal(in(channel + 7, 1) & 1, 1);
    assert_int_equal(in(channel + 4, 1), 0x14);
    packet(ready, 0);
    assert_int_equal(in(channel + 7, 1), 0x50);
    assert_int_equal(in(channel + 2, 1), 3);
    packet(inquiry, 0xfffe);
    assert_true(*line());
    assert_int_equal(in(channel + 4, 1), 36);
    assert_int_equal(in(channel + 2, 1), 2);
    char answer[36];
    for (unsigned i = 0; i < 36; i += 2) {
        uint16_t word = (uint16_t)in(channel, 2);
        memcpy(answer + i, &word, 2);
    }
    assert_int_equal(answer[0], 5);
    assert_memory_equal(answer + 8, "MULLION CD-ROM", 14);
    packet(read, 2048);
    for (unsigned s = 0; s < 5; s++) {
        assert_int_equal(in(channel + 7, 1) & 8, 8);
        assert_int_equal(in(channel + 5, 1), 8); /* 2048 bytes */
        for (unsigned i = 0; i < 512; i++)
            assert_int_equal(in(channel, 4), (12 + 4 * s + i / 128) * 0x01010101u);
        settle();
    }
    assert_int_equal(in(channel + 7, 1), 0x50);
    /* A reset in the middle of the data: the next command is carried out. */
    packet(read, 2048);
    assert_int_equal(in(channel, 4), 12 * 0x01010101u);
    out(channel + 7, 1, 0x08);
    assert_int_equal(in(channel + 7, 1), 0);
    assert_int_equal(in(channel + 4, 1), 0x14);
    packet(read, 2048);
    assert_int_equal(in(channel, 4), 12 * 0x01010101u);
    out(channel + 7, 1, 0x08);
    packet(beyond, 2048);
    assert_int_equal(in(channel + 7, 1), 0x51);
    assert_int_equal(in(channel + 1, 1), 0x54);
    packet(sense, 18);
    uint16_t data[9];
    for (unsigned i = 0; i < 9; i++)
        data[i] = (uint16_t)in(channel, 2);
    assert_int_equal(data[1] & 0xff, 5);
    assert_int_equal(data[6] & 0xff, 0x21);
}

static void test_state(void **state)
{
    command(0x20, 100, 40); /* more than the buffer holds */
    for (unsigned i = 0; i < 100; i++)
        in(PRIMARY, 4);
    save_and_load();
    for (unsigned i = 100; i < 40 * 128; i++) {
        assert_int_equal(in(PRIMARY, 4), (100 + i / 128) * 0x01010101u);
        if (i % 128 == 127)
            settle();
    }
    assert_int_equal(in(PRIMARY + 7, 1), 0x50);
    /* An answer, and a write. */
    command(0xec, 0, 0);
    in(PRIMARY, 2);
    save_and_load();
    for (unsigned i = 1; i < 256; i++)
        in(PRIMARY, 2);
    assert_int_equal(in(PRIMARY + 7, 1), 0x50);
    command(0x30, 9, 1);
    for (unsigned i = 0; i < 255; i++)
        out(PRIMARY, 2, 0x5555);
    save_and_load();
    out(PRIMARY, 2, 0x5555);
    settle();
    assert_int_equal(in(PRIMARY + 7, 1), 0x50);
    command(0x20, 9, 1);
    assert_int_equal(in(PRIMARY, 2), 0x5555);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {T(test_identify), T(test_pio),   T(test_dma),
                                       T(test_chs),      T(test_cdrom), T(test_state)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
