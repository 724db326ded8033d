/* The AHCI adapter, driven as a driver would: identify, DMA and queued transfers, errors, packets.
 */
#include "platform_world.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "device/storage/ahci.h"

#define ABAR 0xc0000000ull
#define CLB 0x10000ull
#define FIS 0x11000ull
#define TABLE 0x12000ull
#define DATA 0x20000ull
#define SECTORS 2048u

static struct world world;
static struct mull_pci_bus *bus;
static struct mull_block *disk, *cd;
static struct mull_device *ahci;
static char path[] = "/tmp/mullion-ahci-XXXXXX";

static struct mull_block *open_block(struct world *w, bool readonly)
{
    const struct mull_block_options options = {
        .path = path, .format = "raw", .readonly = readonly, .no_lock = true};
    struct mull_block *block;

    assert_int_equal(mull_block_open(&options, &block, NULL), 0);
    assert_int_equal(mull_block_start(block, w->env.loop, NULL), 0);
    return block;
}

static uint32_t reg(struct world *w, unsigned offset)
{
    return (uint32_t)world_read(w, ABAR + offset, 4);
}

static void set(struct world *w, unsigned offset, uint32_t value)
{
    world_write(w, ABAR + offset, 4, value);
}

static int setup(void **state)
{
    struct mull_pci_config config = {
        .ecam_base = 0xe0000000, .mmio_base = ABAR, .mmio_size = 0x20000000};
    struct mull_ahci_config ahci_config = {.name = "ahci.0"};
    uint8_t byte[512];

    world_make(&world);
    assert_int_equal(mull_memory_add_ram(world.env.memory, 0, 4 << 20, false, NULL), 0);
    strcpy(path, "/tmp/mullion-ahci-XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    for (unsigned i = 0; i < SECTORS; i++) {
        memset(byte, (int)(i & 0xff), sizeof(byte));
        assert_int_equal(write(fd, byte, sizeof(byte)), sizeof(byte));
    }
    close(fd);
    disk = open_block(&world, false);
    cd = open_block(&world, true);
    config.memory = world.env.memory;
    for (unsigned i = 0; i < 4; i++)
        config.intx[i] = world_irq(&world, 16 + i);
    assert_int_equal(mull_pci_bus_create(&config, &bus, NULL), 0);
    ahci_config.drive[0] =
        (struct mull_drive){.present = true, .block = disk, .serial = "SN1"};
    ahci_config.drive[1] =
        (struct mull_drive){.present = true, .cdrom = true, .readonly = true, .block = cd};
    assert_int_equal(mull_ahci_create(&world.env, bus, &ahci_config, &ahci, NULL), 0);
    assert_int_equal(mull_pci_bus_assign(bus, NULL), 0);
    set(&world, 4, 0x80000002);
    for (unsigned port = 0; port < 2; port++) {
        unsigned base = 0x100 + 0x80 * port;
        set(&world, base, CLB);
        set(&world, base + 8, FIS);
        set(&world, base + 0x14, 0x7dc000ff);
        set(&world, base + 0x18, 0x17);
    }
    *state = &world;
    return 0;
}

static int teardown(void **state)
{
    ahci->ops->destroy(ahci);
    mull_pci_bus_destroy(bus);
    mull_block_close(disk);
    mull_block_close(cd);
    unlink(path);
    world_free(&world);
    return 0;
}

struct command {
    uint8_t code;
    uint64_t lba;
    uint16_t count, features;
    bool write;
    const uint8_t *packet;
};

static void settle(struct world *w)
{
    world_drain(w);
    ahci->ops->quiesce(ahci); /* and what it started */
}

/* Give slot @slot of @port a command with two buffers that are 1000h bytes in all. */
static void issue(struct world *w, unsigned port, unsigned slot, const struct command *c)
{
    struct mull_memory *m = w->env.memory;
    uint32_t header[8] = {5u | (c->write ? 0x40 : 0) | (c->packet ? 0x20 : 0) | 2u << 16, 0,
                          (uint32_t)(TABLE + 0x1000 * slot), 0};
    uint8_t fis[20] = {0x27, 0x80, c->code, (uint8_t)c->features};
    uint32_t prd[8] = {(uint32_t)DATA, 0, 0, 0x1ff, (uint32_t)DATA + 0x200, 0, 0, 0xdff};

    for (unsigned i = 0; i < 3; i++) {
        fis[4 + i] = (uint8_t)(c->lba >> 8 * i);
        fis[8 + i] = (uint8_t)(c->lba >> (24 + 8 * i));
    }
    fis[7] = 0x40;
    fis[11] = (uint8_t)(c->features >> 8);
    fis[12] = (uint8_t)c->count;
    fis[13] = (uint8_t)(c->count >> 8);
    assert_int_equal(mull_mem_write(m, CLB + 32 * slot, header, sizeof(header)), 0);
    assert_int_equal(mull_mem_write(m, header[2], fis, sizeof(fis)), 0);
    if (c->packet)
        assert_int_equal(mull_mem_write(m, header[2] + 0x40, c->packet, 12), 0);
    assert_int_equal(mull_mem_write(m, header[2] + 0x80, prd, sizeof(prd)), 0);
    set(w, 0x100 + 0x80 * port + 0x38, 1u << slot);
    settle(w);
}

static uint8_t data_at(struct world *w, unsigned offset)
{
    uint8_t byte;
    assert_int_equal(mull_mem_read(w->env.memory, DATA + offset, &byte, 1), 0);
    return byte;
}

static void test_identify(void **state)
{
    struct world *w = *state;
    uint16_t id[256];

    assert_int_equal(reg(w, 0xc), 0x3f);
    assert_int_equal(reg(w, 0x124), 0x101);
    assert_int_equal(reg(w, 0x1a4), 0xeb140101);
    assert_int_equal(reg(w, 0x128), 0x123);
    assert_int_equal(reg(w, 0x228), 0); /* nobody at port 2 */
    issue(w, 0, 0, &(struct command){.code = 0xec});
    assert_int_equal(reg(w, 0x138), 0);
    assert_int_equal(reg(w, 0x120), 0x50);
    assert_int_equal(reg(w, 0x110) & 2, 2);
    assert_true(w->line[17]); /* slot 1, INTA */
    set(w, 0x110, ~0u);
    set(w, 8, ~0u);
    assert_false(w->line[17]);
    assert_int_equal(mull_mem_read(w->env.memory, DATA, id, sizeof(id)), 0);
    assert_int_equal(id[10], 'S' << 8 | 'N');
    assert_int_equal(id[60], SECTORS);
    uint32_t bytes;
    assert_int_equal(mull_mem_read(w->env.memory, CLB + 4, &bytes, 4), 0);
    assert_int_equal(bytes, 512);
}

static void test_transfers(void **state)
{
    struct world *w = *state;

    issue(w, 0, 3, &(struct command){.code = 0x25, .lba = 100, .count = 8});
    assert_int_equal(reg(w, 0x138), 0);
    assert_int_equal(data_at(w, 0), 100);
    assert_int_equal(data_at(w, 0x200), 101);
    assert_int_equal(data_at(w, 0xfff), 107);
    assert_int_equal(mull_mem_set(w->env.memory, DATA, 0xee, 0x1000), 0);
    issue(w, 0, 0, &(struct command){.code = 0x35, .lba = 200, .count = 8, .write = true});
    issue(w, 0, 0, &(struct command){.code = 0xea});
    assert_int_equal(mull_mem_set(w->env.memory, DATA, 0, 0x1000), 0);
    /* Queued: tag 5. */
    set(w, 0x134, 1 << 5);
    issue(w, 0, 5, &(struct command){.code = 0x60, .lba = 200, .features = 8, .count = 5 << 3});
    assert_int_equal(reg(w, 0x134) | reg(w, 0x138), 0);
    assert_int_equal(reg(w, 0x110) & 8, 8);
    assert_int_equal(data_at(w, 0), 0xee);
    assert_int_equal(data_at(w, 0xfff), 0xee);
}

static void test_errors(void **state)
{
    struct world *w = *state;
    static const struct command wrong[] = {
        {.code = 0x25, .lba = SECTORS, .count = 1},
        {.code = 0x25, .lba = SECTORS - 1, .count = 2},
        {.code = 0x25, .lba = ~0ull, .count = 1},
        {.code = 0x77},
        {.code = 0x25, .count = 64}, /* more than the buffers hold */
        {.code = 0x60, .features = 1, .count = 9 << 3}};

    for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        issue(w, 0, 0, &wrong[i]);
        assert_int_equal(reg(w, 0x120) & 1, 1);
        assert_int_equal(reg(w, 0x110) >> 30 & 1, 1);
        assert_int_equal(reg(w, 0x138), 1); /* stays, and nothing else begins */
        set(w, 0x118, 0x16);
        settle(w);
        assert_int_equal(reg(w, 0x118) & 0x8000, 0);
        assert_int_equal(reg(w, 0x138), 0);
        set(w, 0x110, ~0u);
        set(w, 0x118, 0x17);
    }
    issue(w, 0, 0, &(struct command){.code = 0x25, .lba = 7, .count = 8});
    assert_int_equal(data_at(w, 0), 7);
    /* Lists and tables that are nowhere. */
    set(w, 0x100, 0xf0000000);
    set(w, 0x138, 0xffffffff);
    settle(w);
    assert_int_equal(reg(w, 0x120) & 1, 1);
    ahci->ops->reset(ahci);
    assert_int_equal(mull_pci_bus_assign(bus, NULL), 0);
    assert_int_equal(reg(w, 0x118) & 0xc011, 0);
}

static void packet(struct world *w, const uint8_t bytes[12])
{
    issue(w, 1, 0, &(struct command){.code = 0xa0, .packet = bytes});
}

static void test_cdrom(void **state)
{
    struct world *w = *state;
    static const uint8_t capacity[12] = {0x25}, sense[12] = {3, 0, 0, 0, 18},
                         read[12] = {0x28, 0, 0, 0, 0, 3, 0, 0, 2},
                         beyond[12] = {0x28, 0, 0, 0, 2, 0, 0, 0, 1},
                         inquiry[12] = {0x12, 0, 0, 0, 36}, eject[12] = {0x1b, 0, 0, 0, 2},
                         load[12] = {0x1b, 0, 0, 0, 3}, ready[12] = {0},
                         toc[12] = {0x43, 0, 0, 0, 0, 0, 0, 0, 20};

    packet(w, inquiry);
    assert_int_equal(data_at(w, 0), 5);
    assert_int_equal(data_at(w, 8), 'M');
    packet(w, capacity);
    assert_int_equal(data_at(w, 2) << 8 | data_at(w, 3), SECTORS / 4 - 1);
    assert_int_equal(data_at(w, 6), 8);
    packet(w, toc);
    assert_int_equal(data_at(w, 14), 0xaa);
    packet(w, read);
    assert_int_equal(data_at(w, 0), 12);
    assert_int_equal(data_at(w, 4095), 19);
    packet(w, beyond);
    assert_int_equal(reg(w, 0x1a0) & 0xf001, 0x5001);
    set(w, 0x198, 0x16);
    set(w, 0x198, 0x17);
    packet(w, sense);
    assert_int_equal(data_at(w, 2), 5);
    assert_int_equal(data_at(w, 12), 0x21);
    packet(w, eject);
    packet(w, ready);
    assert_int_equal(reg(w, 0x1a0) & 0xf001, 0x2001); /* no medium */
    set(w, 0x198, 0x16);
    set(w, 0x198, 0x17);
    packet(w, load);
    packet(w, ready);
    assert_int_equal(reg(w, 0x1a0) & 0xf001, 0x6001); /* a new one */
    set(w, 0x198, 0x16);
    set(w, 0x198, 0x17);
    packet(w, ready);
    assert_int_equal(reg(w, 0x1a0) & 1, 0);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {T(test_identify), T(test_transfers), T(test_errors),
                                       T(test_cdrom)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
