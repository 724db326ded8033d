/* VMware's SCSI adapter, driven as a driver would, and with it the commands of SCSI disks and
 * CD-ROM drives. */
#include "storage_world.h"

#include "device/storage/pvscsi.h"
#include "rom/rom.h"

#define STATE 0x10000ull
#define REQ 0x11000ull
#define CMP 0x12000ull
#define SG 0x13000ull
#define SENSE 0x14000ull
#define DATA 0x20000ull
#define DISK 0
#define CDROM 3

struct descriptor {
    uint64_t context, data, data_len, sense;
    uint32_t sense_len, flags;
    uint8_t cdb[16], cdb_len, lun[8], tag, bus, target;
    uint16_t cpu;
    uint8_t unused[58];
};

struct completion {
    uint64_t context, data_len;
    uint32_t sense_len;
    uint16_t host_status, scsi_status;
    uint32_t pad[2];
};

static uint32_t prod, cons;

static uint32_t reg(unsigned offset)
{
    return (uint32_t)world_read(&world, STORAGE_BARS + offset, 4);
}

static void set(unsigned offset, uint32_t value)
{
    world_write(&world, STORAGE_BARS + offset, 4, value);
}

static void put_setup(const uint32_t *words)
{
    set(0, 3);
    for (unsigned i = 0; i < 132; i++) {
        assert_int_equal(reg(8), 0xfffffffe);
        set(4, words[i]);
    }
}

static void setup_rings(void)
{
    uint32_t words[132] = {1, 1, STATE >> 12, 0};

    words[4] = REQ >> 12;
    words[68] = CMP >> 12;
    put_setup(words);
    assert_int_equal(reg(8), 0);
    set(0x2010, 3);
    prod = cons = 0;
}

static int setup(void **state)
{
    struct mull_pvscsi_config cfg = {.name = "pvscsi.0"};

    storage_make();
    cfg.drive[DISK] = (struct mull_drive){.present = true, .block = disk, .serial = "SN1"};
    cfg.drive[CDROM] =
        (struct mull_drive){.present = true, .cdrom = true, .readonly = true, .block = cd};
    assert_int_equal(mull_pvscsi_create(&world.env, bus, &cfg, &device, NULL), 0);
    assert_int_equal(mull_pci_bus_assign(bus, NULL), 0);
    setup_rings();
    return 0;
}

static int teardown(void **state)
{
    storage_free();
    return 0;
}

static void submit(const struct descriptor *d)
{
    mull_mem_write(world.env.memory, REQ + 128ull * (prod % 32), d, sizeof(*d));
    mull_mem_write32(world.env.memory, STATE, ++prod);
    set(0x4018, 0);
}

static struct completion completion(void)
{
    struct completion c;
    uint32_t count;

    settle();
    mull_mem_read32(world.env.memory, STATE + 12, &count);
    assert_int_equal(count, cons + 1);
    mull_mem_read(world.env.memory, CMP + 32ull * (cons++ % 128), &c, sizeof(c));
    assert_int_equal(reg(0x100c) & 1, 1);
    assert_true(world.line[17]);
    set(0x100c, 1);
    assert_false(world.line[17]);
    return c;
}

static struct completion run(unsigned target, const uint8_t *cdb, uint64_t len)
{
    struct descriptor d = {.context = 0x1234500000000000ull + prod,
                           .data = DATA,
                           .data_len = len,
                           .sense = SENSE,
                           .sense_len = 18,
                           .cdb_len = 16,
                           .target = (uint8_t)target};

    memcpy(d.cdb, cdb, 16);
    submit(&d);
    struct completion c = completion();
    assert_int_equal(c.context, d.context);
    return c;
}

#define CDB(...) ((const uint8_t[16]){__VA_ARGS__})

/* A command that is to succeed with @len bytes of data. */
static void good(unsigned target, const uint8_t *cdb, uint64_t len)
{
    struct completion c = run(target, cdb, len);
    assert_int_equal(c.scsi_status, 0);
    assert_int_equal(c.host_status, 0);
    assert_int_equal(c.data_len, len);
}

/* One that is to fail with that sense. */
static void bad(unsigned target, const uint8_t *cdb, uint64_t len, unsigned key, unsigned code)
{
    struct completion c = run(target, cdb, len);
    assert_int_equal(c.scsi_status, 2);
    assert_int_equal(c.sense_len, 18);
    assert_int_equal(byte_at(SENSE + 2), key);
    assert_int_equal(byte_at(SENSE + 12) << 8 | byte_at(SENSE + 13), code);
}

static void test_inquiry(void **state)
{
    good(DISK, CDB(0x12, 0, 0, 0, 36), 36);
    assert_int_equal(byte_at(DATA), 0);
    assert_int_equal(byte_at(DATA + 8), 'M');
    good(CDROM, CDB(0x12, 0, 0, 0, 36), 36);
    assert_int_equal(byte_at(DATA), 5);
    assert_int_equal(byte_at(DATA + 1), 0x80);
    static const uint8_t pages[] = {0x00, 0x80, 0x83, 0xb0, 0xb1, 0xb2};
    for (unsigned i = 0; i < sizeof(pages); i++) {
        struct completion c = run(DISK, CDB(0x12, 1, pages[i], 0, 252), 252);
        assert_int_equal(c.scsi_status, 0);
        assert_int_equal(c.host_status, 0x12); /* less than there was room for */
        assert_int_equal(byte_at(DATA + 1), pages[i]);
        assert_int_equal(c.data_len, 4u + byte_at(DATA + 3));
    }
    bad(DISK, CDB(0x12, 1, 0x55, 0, 252), 252, 5, 0x2400);
    good(DISK, CDB(0x25), 8);
    assert_int_equal(byte_at(DATA + 2) << 8 | byte_at(DATA + 3), STORAGE_SECTORS - 1);
    good(DISK, CDB(0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32), 32);
    assert_int_equal(byte_at(DATA + 14), 0x80);
    good(DISK, CDB(0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 16), 16);
    assert_int_equal(byte_at(DATA + 3), 8);
    good(DISK, CDB(0x1a, 0, 8, 0, 24), 24);
    assert_int_equal(byte_at(DATA + 6), 4); /* a write cache */
    good(DISK, CDB(0), 0);
    bad(DISK, CDB(0xee), 0, 5, 0x2000);
    assert_int_equal(run(7, CDB(0), 0).host_status, 0x11); /* nobody there */
    struct descriptor d = {.cdb = {0x12, 0, 0, 0, 36}, .lun = {0, 1}, .data = DATA, .data_len = 36};
    submit(&d);
    assert_int_equal(completion().scsi_status, 0);
    assert_int_equal(byte_at(DATA), 0x7f); /* another logical unit */
    d.cdb[0] = 0;
    submit(&d);
    assert_int_equal(completion().scsi_status, 2);
}

static void test_transfers(void **state)
{
    good(DISK, CDB(0x08, 0, 0, 100, 1), 512);
    assert_int_equal(byte_at(DATA + 511), 100);
    good(DISK, CDB(0x28, 0, 0, 0, 0, 7, 0, 0, 8), 4096);
    assert_int_equal(byte_at(DATA), 7);
    assert_int_equal(byte_at(DATA + 4095), 14);
    good(DISK, CDB(0xa8, 0, 0, 0, 0, 9, 0, 0, 0, 1), 512);
    assert_int_equal(byte_at(DATA), 9);
    good(DISK, CDB(0x88, 0, 0, 0, 0, 0, 0, 0, 0, 11, 0, 0, 0, 1), 512);
    assert_int_equal(byte_at(DATA), 11);
    mull_mem_set(world.env.memory, DATA, 0xee, 1024);
    good(DISK, CDB(0x2a, 8, 0, 0, 0, 200, 0, 0, 1), 512); /* FUA */
    good(DISK, CDB(0x8a, 0, 0, 0, 0, 0, 0, 0, 0, 201, 0, 0, 0, 1), 512);
    good(DISK, CDB(0x35), 0);
    mull_mem_set(world.env.memory, DATA, 0, 1024);
    good(DISK, CDB(0x28, 0, 0, 0, 0, 200, 0, 0, 2), 1024);
    assert_int_equal(byte_at(DATA), 0xee);
    assert_int_equal(byte_at(DATA + 1023), 0xee);
    bad(DISK, CDB(0x28, 0, 0, 0, 8, 0, 0, 0, 1), 512, 5, 0x2100);
    bad(DISK, CDB(0x88, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1), 512, 5,
        0x2100);
    bad(DISK, CDB(0x28, 0, 0, 0, 0, 0, 0, 0, 8), 512, 11, 0x4b00); /* too little room */
}

static void test_scatter(void **state)
{
    /* Two pieces, the second behind a link. */
    const struct {
        uint64_t address;
        uint32_t length, flags;
    } list[] = {{DATA, 0x200, 0}, {SG + 0x100, 0, 1}}, rest = {DATA + 0x3000, 0xe00, 0},
      circle = {SG, 0, 1};
    struct descriptor d = {.data = SG,
                           .data_len = 4096,
                           .sense = SENSE,
                           .sense_len = 18,
                           .flags = 1,
                           .cdb = {0x28, 0, 0, 0, 0, 20, 0, 0, 8}};

    mull_mem_write(world.env.memory, SG, list, sizeof(list));
    mull_mem_write(world.env.memory, SG + 0x100, &rest, sizeof(rest));
    submit(&d);
    assert_int_equal(completion().scsi_status, 0);
    assert_int_equal(byte_at(DATA), 20);
    assert_int_equal(byte_at(DATA + 0x3000), 21);
    assert_int_equal(byte_at(DATA + 0x3dff), 27);
    mull_mem_write(world.env.memory, SG, &circle, sizeof(circle)); /* leads to itself */
    submit(&d);
    assert_int_equal(completion().scsi_status, 2);
    d.flags = 0;
    d.data = 0xf0000000; /* not RAM */
    submit(&d);
    assert_int_equal(completion().scsi_status, 2);
}

static void test_thin(void **state)
{
    const uint8_t list[24] = {0, 22, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 8};

    mull_mem_write(world.env.memory, DATA, list, sizeof(list));
    good(DISK, CDB(0x42, 0, 0, 0, 0, 0, 0, 0, 24), 24);
    good(DISK, CDB(0x28, 0, 0, 0, 1, 0, 0, 0, 1), 512);
    assert_int_equal(byte_at(DATA), 0);
    bad(DISK, CDB(0x42, 0, 0, 0, 0, 0, 0, 0, 4), 4, 5, 0x1a00);
    /* WRITE SAME: zeroes, a pattern, no data. */
    mull_mem_set(world.env.memory, DATA, 0, 512);
    good(DISK, CDB(0x41, 8, 0, 0, 2, 0, 0, 0, 16), 512);
    mull_mem_set(world.env.memory, DATA, 0x5a, 512);
    good(DISK, CDB(0x93, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0x03, 0xe8), 512); /* 1000 blocks */
    good(DISK, CDB(0x28, 0, 0, 0, 2, 15, 0, 0, 2), 1024);
    assert_int_equal(byte_at(DATA), 0);
    assert_int_equal(byte_at(DATA + 512), (0x200 + 16) & 0xff);
    good(DISK, CDB(0x28, 0, 0, 0, 6, 0xe7, 0, 0, 2), 1024);
    assert_int_equal(byte_at(DATA + 511), 0x5a);
    assert_int_equal(byte_at(DATA + 512), (0x300 + 1000) & 0xff);
    good(DISK, CDB(0x93, 1, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 1), 0);
    good(DISK, CDB(0x28, 0, 0, 0, 3, 0, 0, 0, 1), 512);
    assert_int_equal(byte_at(DATA), 0);
}

static void test_cdrom(void **state)
{
    good(CDROM, CDB(0x25), 8);
    assert_int_equal(byte_at(DATA + 6), 8);
    good(CDROM, CDB(0x28, 0, 0, 0, 0, 3, 0, 0, 1), 2048);
    assert_int_equal(byte_at(DATA), 12);
    assert_int_equal(byte_at(DATA + 2047), 15);
    bad(CDROM, CDB(0x28, 0, 0, 0, 2, 0, 0, 0, 1), 2048, 5, 0x2100);
    bad(CDROM, CDB(0x2a, 0, 0, 0, 0, 0, 0, 0, 1), 2048, 5, 0x2000);
    good(CDROM, CDB(0x5a, 0, 0x2a, 0, 0, 0, 0, 0, 30), 30);
    good(CDROM, CDB(0x1a, 0, 0x2a, 0, 26), 26);
    good(CDROM, CDB(0x1b, 0, 0, 0, 2), 0); /* eject */
    bad(CDROM, CDB(0), 0, 2, 0x3a00);
    save_and_load();
    assert_int_equal(mull_pci_bus_assign(bus, NULL), 0);
    bad(CDROM, CDB(0), 0, 2, 0x3a00);
    good(CDROM, CDB(0x1b, 0, 0, 0, 3), 0);
    bad(CDROM, CDB(0), 0, 6, 0x2800);
    good(CDROM, CDB(0), 0);
}

static void test_commands(void **state)
{
    uint32_t words[132] = {33, 1};

    set(0, 8); /* the ring of messages: there is none */
    assert_int_equal(reg(8), 0xffffffff);
    set(0, 99);
    assert_int_equal(reg(8), 0xffffffff);
    put_setup(words); /* too many pages */
    assert_int_equal(reg(8), 0xffffffff);
    set(0x4018, 0);
    settle();
    words[0] = 1;
    words[2] = 0xf0000; /* nowhere */
    put_setup(words);
    assert_int_equal(reg(8), 0xffffffff);
    setup_rings();
    /* An index far beyond the ring: one ring full, not four billion. */
    mull_mem_set(world.env.memory, REQ, 0, 0x1000);
    mull_mem_write32(world.env.memory, STATE, 0x80000000);
    set(0x4018, 0);
    settle();
    uint32_t done;
    mull_mem_read32(world.env.memory, STATE + 4, &done);
    assert_true(done >= 32 && done < 1024);
    set(0, 1); /* reset */
    assert_int_equal(reg(8), 0);
    setup_rings();
    mull_mem_write32(world.env.memory, STATE + 4, 0);
    good(DISK, CDB(0), 0);
}

static void test_state(void **state)
{
    good(DISK, CDB(0), 0);
    save_and_load();
    assert_int_equal(mull_pci_bus_assign(bus, NULL), 0);
    good(DISK, CDB(0x28, 0, 0, 0, 0, 50, 0, 0, 1), 512);
    assert_int_equal(byte_at(DATA), 50);
}

/* What firmware and UEFI look at before they start the adapter's driver. */
static void test_rom(void **state)
{
    const uint8_t *rom = mull_rom_pvscsi;
    uint32_t pcir, pe;

    assert_true(mull_rom_pvscsi_size >= 1024 && mull_rom_pvscsi_size % 512 == 0);
    assert_int_equal(rom[0] | rom[1] << 8, 0xaa55);
    assert_int_equal(rom[2] | rom[3] << 8, mull_rom_pvscsi_size / 512);
    assert_int_equal(rom[4] | rom[5] << 8, 0x0ef1);
    assert_int_equal(rom[10] | rom[11] << 8, 0x8664);
    pcir = rom[24] | rom[25] << 8;
    assert_true(pcir % 4 == 0 && pcir < 256);
    assert_memory_equal(rom + pcir, "PCIR\xad\x15\xc0\x07", 8);
    assert_int_equal(rom[pcir + 16] | rom[pcir + 17] << 8, mull_rom_pvscsi_size / 512);
    assert_int_equal(rom[pcir + 20], 3);    /* an image for UEFI, */
    assert_int_equal(rom[pcir + 21], 0x80); /* the last one */
    pe = rom[22] | rom[23] << 8;
    assert_memory_equal(rom + pe, "MZ", 2);
    pe += rom[pe + 0x3c];
    assert_memory_equal(rom + pe, "PE\0\0\x64\x86", 6);
    assert_int_equal(rom[pe + 24 + 68], 11); /* a boot service driver */
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_inquiry), T(test_transfers), T(test_scatter), T(test_thin),
        T(test_cdrom),   T(test_commands),  T(test_state),   cmocka_unit_test(test_rom)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
