/* What firmware finds: fw_cfg with DMA, flash, ACPI tables and their loader, SMBIOS, shadow RAM. */
#include "platform_world.h"

#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "boot/firmware.h"
#include "device/devices.h"
#include "device/legacy/fw_cfg.h"
#include "platform/acpi.h"
#include "platform/lpc.h"
#include "platform/pci.h"
#include "platform/smbios.h"

static struct world world;

static int setup(void **state)
{
    world_make(&world);
    assert_int_equal(mull_memory_add_ram(world.env.memory, 0, 0xa0000, false, NULL), 0);
    assert_int_equal(mull_memory_add_ram(world.env.memory, 0xc0000, 0x100000, false, NULL), 0);
    *state = &world;
    return 0;
}

static int teardown(void **state)
{
    world_free(&world);
    return 0;
}

static void destroy(struct mull_device *device)
{
    device->ops->destroy(device);
}

/* ---- fw_cfg ---- */

static unsigned selections;

static void on_select(void *opaque, uint8_t *data, uint32_t size)
{
    selections++;
    memset(data, 'x', size);
}

static uint16_t find_file(struct world *w, const char *name)
{
    world_out(w, 0x510, 2, 0x19);
    uint32_t count = 0;
    for (unsigned i = 0; i < 4; i++)
        count = count << 8 | world_in(w, 0x511, 1);
    for (unsigned k = 0; k < count; k++) {
        uint8_t entry[64];
        for (unsigned i = 0; i < 64; i++)
            entry[i] = (uint8_t)world_in(w, 0x511, 1);
        if (!strcmp((char *)entry + 8, name))
            return (uint16_t)(entry[4] << 8 | entry[5]);
    }
    return 0;
}

static uint32_t dma(struct world *w, uint32_t control, uint32_t length, uint64_t address)
{
    struct {
        uint32_t control, length;
        uint64_t address;
    } access = {htobe32(control), htobe32(length), htobe64(address)};
    assert_int_equal(mull_mem_write(w->env.memory, 0x1000, &access, sizeof(access)), 0);
    world_out(w, 0x514, 4, 0);
    world_out(w, 0x518, 4, htobe32(0x1000));
    assert_int_equal(mull_mem_read(w->env.memory, 0x1000, &access, 4), 0);
    return be32toh(access.control);
}

static void test_fw_cfg(void **state)
{
    struct world *w = *state;
    struct mull_fw_cfg *f;
    char text[8] = "";

    selections = 0;
    assert_int_equal(mull_fw_cfg_create(&w->env, &f, NULL), 0);
    assert_int_equal(mull_fw_cfg_add_file(f, "etc/one", "hello", 5, NULL, NULL, NULL), 0);
    assert_int_equal(mull_fw_cfg_add_file(f, "etc/two", "abc", 3, on_select, NULL, NULL), 0);
    assert_int_equal(mull_fw_cfg_add(f, MULL_FW_CFG_CPUS, "\2", 2, NULL), 0);
    assert_int_equal(mull_fw_cfg_add(f, MULL_FW_CFG_CPUS, "\2", 2, NULL), -EINVAL);
    world_out(w, 0x510, 2, 0);
    for (unsigned i = 0; i < 4; i++)
        text[i] = (char)world_in(w, 0x511, 1);
    assert_string_equal(text, "QEMU");
    assert_int_equal(world_in(w, 0x511, 1), 0); /* behind the end */
    assert_int_equal(world_in(w, 0x514, 4), htobe32(0x51454d55));

    uint16_t one = find_file(w, "etc/one"), two = find_file(w, "etc/two");
    assert_true(one >= 0x20 && two == one + 1);
    assert_int_equal(dma(w, (uint32_t)one << 16 | 8 | 2, 4, 0x2000), 0);
    assert_int_equal(mull_mem_read(w->env.memory, 0x2000, text, 4), 0);
    assert_memory_equal(text, "hell", 4);
    assert_int_equal(dma(w, 2, 4, 0x2000), 0); /* goes on; zeroes behind the end */
    assert_int_equal(mull_mem_read(w->env.memory, 0x2000, text, 4), 0);
    assert_memory_equal(text, "o\0\0\0", 4);
    assert_int_equal(selections, 0);
    assert_int_equal(dma(w, (uint32_t)two << 16 | 8 | 2, 3, 0x2000), 0);
    assert_int_equal(mull_mem_read(w->env.memory, 0x2000, text, 3), 0);
    assert_memory_equal(text, "xxx", 3);
    assert_int_equal(selections, 1);
    assert_int_equal(dma(w, (uint32_t)one << 16 | 8 | 4, 4, 0), 0); /* select, skip */
    world_in(w, 0x510, 2);
    assert_int_equal(world_in(w, 0x511, 1), 'o');
    /* Not RAM, writes, nonsense. */
    assert_int_equal(dma(w, (uint32_t)one << 16 | 8 | 2, 64, 0xa0000), 1);
    assert_int_equal(dma(w, (uint32_t)one << 16 | 8 | 16, 1, 0x2000), 1);
    assert_int_equal(dma(w, 0xffff0000 | 8 | 2, 0xffffffff, 0x90000), 1);
    destroy(mull_fw_cfg_device(f));
}

/* ---- Flash ---- */

#define FLASH 0xffc00000ull

static void test_pflash(void **state)
{
    struct world *w = *state;
    static uint8_t data[0x4000];
    char path[] = "/tmp/mullion-pflash-XXXXXX";
    int fd = mkstemp(path);
    struct mull_device *flash;
    uint8_t byte;

    unlink(path);
    memset(data, 0xff, sizeof(data));
    data[5] = 0x3c;
    const struct mull_pflash_config cfg = {
        .base = FLASH, .data = data, .size = sizeof(data), .fd = fd};
    assert_int_equal(ftruncate(fd, sizeof(data)), 0);
    assert_int_equal(mull_pflash_create(&w->env, &cfg, &flash, NULL), 0);
    assert_int_equal(world_read(w, FLASH + 4, 2), 0x3cff);
    /* How firmware tells flash from ROM and RAM. */
    world_write(w, FLASH + 5, 1, 0x50);
    assert_int_equal(world_read(w, FLASH + 5, 1), 0x3c);
    world_write(w, FLASH + 5, 1, 0x70);
    assert_int_equal(world_read(w, FLASH + 5, 1), 0);
    world_write(w, FLASH + 5, 1, 0xff);
    /* Programming clears bits only, and reaches the file at once. */
    world_write(w, FLASH + 5, 1, 0x10);
    world_write(w, FLASH + 5, 1, 0x96);
    assert_int_equal(world_read(w, FLASH, 1), 0x80); /* status */
    world_write(w, FLASH, 1, 0xff);
    assert_int_equal(world_read(w, FLASH + 5, 1), 0x3c & 0x96);
    assert_int_equal(pread(fd, &byte, 1, 5), 1);
    assert_int_equal(byte, 0x3c & 0x96);
    /* Erase a block; without its confirmation nothing happens but an error. */
    world_write(w, FLASH + 5, 1, 0x20);
    world_write(w, FLASH + 5, 1, 0x11);
    assert_int_equal(world_read(w, FLASH, 1), 0xb0);
    world_write(w, FLASH + 5, 1, 0x20);
    world_write(w, FLASH + 5, 1, 0xd0);
    world_write(w, FLASH, 1, 0xff);
    assert_int_equal(world_read(w, FLASH + 5, 1), 0xff);
    assert_int_equal(pread(fd, &byte, 1, 5), 1);
    assert_int_equal(byte, 0xff);
    /* A buffer of three bytes at the end of the chip. */
    world_write(w, FLASH + 0x3ff0, 1, 0xe8);
    world_write(w, FLASH + 0x3ff0, 1, 2);
    for (unsigned i = 0; i < 3; i++)
        world_write(w, FLASH + 0x3ffd + i, 1, i);
    world_write(w, FLASH + 0x3ff0, 1, 0xd0);
    world_write(w, FLASH, 1, 0xff);
    assert_int_equal(world_read(w, FLASH + 0x3ffc, 4), 0x020100ff);
    destroy(flash);
    close(fd);
}

/* ---- ACPI by the loader ---- */

static uint8_t sum(const uint8_t *p, size_t n)
{
    uint8_t s = 0;
    while (n--)
        s = (uint8_t)(s + *p++);
    return s;
}

/* What firmware does with the commands, with the tables at 7f000000h. */
static void load(struct mull_acpi_blobs *b)
{
    for (unsigned at = 0; at < MULL_ACPI_LOADER_SIZE; at += 128) {
        const uint8_t *e = b->loader + at;
        uint32_t kind, offset, start, length;
        memcpy(&kind, e, 4);
        uint8_t *blob = strcmp((const char *)e + 4, "etc/acpi/rsdp") ? b->tables : b->rsdp;
        if (kind == 2) {
            uint64_t value = 0;
            memcpy(&offset, e + 4 + 112, 4);
            memcpy(&value, blob + offset, e[4 + 116]);
            assert_true(value < MULL_ACPI_TABLES_SIZE);
            value += 0x7f000000;
            memcpy(blob + offset, &value, e[4 + 116]);
        } else if (kind == 3) {
            memcpy(&offset, e + 60, 4);
            memcpy(&start, e + 64, 4);
            memcpy(&length, e + 68, 4);
            blob[offset] = (uint8_t)-sum(blob + start, length);
        }
    }
}

static void test_acpi(void **state)
{
    static struct mull_acpi_blobs b;
    const struct mull_acpi_config config = {
        .cpus = 2,
        .com_ports = 1,
        .sci = 9,
        .intx = {16, 17, 18, 19},
        .ecam_base = 0xb0000000,
        .mmio32_base = 0xc0000000,
        .mmio32_size = 0x3ec00000,
        .pc = true,
        .fw_cfg_port = 0x510,
    };
    uint64_t xsdt, entry;
    uint32_t length;

    assert_int_equal(mull_acpi_build(&config, &b, NULL), 0);
    load(&b);
    assert_memory_equal(b.rsdp, "RSD PTR ", 8);
    assert_int_equal(sum(b.rsdp, 20), 0);
    assert_int_equal(sum(b.rsdp, 36), 0);
    memcpy(&xsdt, b.rsdp + 24, 8);
    const uint8_t *table = b.tables + (xsdt - 0x7f000000);
    memcpy(&length, table + 4, 4);
    assert_memory_equal(table, "XSDT", 4);
    assert_int_equal(length, 36 + 4 * 8);
    assert_int_equal(sum(table, length), 0);
    static const char *const names[] = {"FACP", "APIC", "HPET", "MCFG"};
    for (unsigned i = 0; i < 4; i++) {
        memcpy(&entry, table + 36 + 8 * i, 8);
        const uint8_t *t = b.tables + (entry - 0x7f000000);
        memcpy(&length, t + 4, 4);
        assert_memory_equal(t, names[i], 4);
        assert_int_equal(sum(t, length), 0);
        if (i == 0) {
            uint32_t dsdt;
            memcpy(&dsdt, t + 40, 4);
            assert_memory_equal(b.tables + (dsdt - 0x7f000000), "DSDT", 4);
        }
    }
}

static void test_smbios(void **state)
{
    struct mull_smbios *s = malloc(sizeof(*s));
    const struct mull_smbios_config config = {
        .name = "web-1", .serial = "S1", .uuid = {1, 2, 3, 4}, .cpus = 3, .memory = 3ull << 30};
    unsigned types[128] = {0}, count = 0;

    assert_int_equal(mull_smbios_build(&config, s, NULL), 0);
    for (size_t at = 0; at < s->size; count++) {
        const uint8_t *p = s->tables + at;
        assert_true(p[1] >= 4 && at + p[1] < s->size);
        types[p[0] & 127]++;
        if (p[0] == 1) {
            static const uint8_t uuid[4] = {4, 3, 2, 1};
            assert_memory_equal(p + 8, uuid, 4);
        }
        at += p[1];
        while (s->tables[at] || s->tables[at + 1])
            at++;
        at += 2;
    }
    assert_int_equal(types[1], 1);
    assert_int_equal(types[4], 3);
    assert_int_equal(types[127], 1);
    assert_int_equal(s->anchor[28] | s->anchor[29] << 8, count);
    assert_int_equal(s->anchor[22] | s->anchor[23] << 8, s->size);
    free(s);
}

static void test_option_rom(void **state)
{
    uint8_t rom[2048] = {0x55, 0xaa};

    rom[0x18] = 0x20;
    memcpy(rom + 0x20, "PCIR\x86\x80\x0e\x10", 8);
    rom[0x30] = 2; /* 1 KiB, a BIOS's, not the last */
    rom[6] = (uint8_t)-sum(rom, 1024);
    rom[1024] = 0x55;
    rom[1025] = 0xaa;
    rom[1024 + 0x18] = 0x1c;
    memcpy(rom + 1024 + 0x1c, "PCIR\x86\x80\x0e\x10", 8);
    rom[1024 + 0x1c + 0x14] = 3; /* UEFI's, the last */
    rom[1024 + 0x1c + 0x15] = 0x80;
    mull_firmware_rom_for(rom, sizeof(rom), 0x1af4, 0x1041);
    assert_memory_equal(rom + 0x24, "\xf4\x1a\x41\x10", 4);
    assert_memory_equal(rom + 1024 + 0x20, "\xf4\x1a\x41\x10", 4);
    assert_int_equal(sum(rom, 1024), 0);
    /* Torn ones stay in their bounds. */
    for (uint32_t size = 0; size < 0x60; size++)
        mull_firmware_rom_for(rom, size, 1, 2);
    rom[0x18] = rom[0x19] = 0xff;
    mull_firmware_rom_for(rom, sizeof(rom), 1, 2);
}

/* ---- Host bridge and ISA bridge ---- */

static void pci_write(struct world *w, unsigned devfn, unsigned reg, uint32_t value)
{
    world_out(w, 0xcf8, 4, 0x80000000u | devfn << 8 | reg);
    world_out(w, 0xcfc, 4, value);
}

static uint32_t pci_read(struct world *w, unsigned devfn, unsigned reg)
{
    world_out(w, 0xcf8, 4, 0x80000000u | devfn << 8 | reg);
    return world_in(w, 0xcfc, 4);
}

static bool is_rom(struct world *w, uint64_t gpa)
{
    const struct mull_ram *ram = mull_memory_find_ram(w->env.memory, gpa);
    return ram->flags[(gpa - ram->gpa) >> MULL_PAGE_SHIFT] & MULL_PAGE_ROM;
}

static void test_bridges(void **state)
{
    struct world *w = *state;
    struct mull_pci_config config = {
        .memory = w->env.memory,
        .ecam_base = 0xe0000000,
        .mmio_base = 0x80000000,
        .mmio_size = 0x7ec00000,
        .firmware = true,
    };
    struct mull_lpc_config lpc_config = {.memory = w->env.memory};
    struct mull_pci_bus *bus;
    struct mull_lpc *lpc;

    for (unsigned i = 0; i < 16; i++)
        lpc_config.isa[i] = world_irq(w, i);
    assert_int_equal(mull_pci_bus_create(&config, &bus, NULL), 0);
    assert_int_equal(mull_lpc_create(&lpc_config, bus, &lpc, NULL), 0);
    assert_int_equal(pci_read(w, 0, 0), 0x29c08086);
    assert_int_equal(pci_read(w, 0, 0x2c), 0x11001af4);
    assert_int_equal(mull_pci_bus_ecam(bus), 0);
    pci_write(w, 0, 0x60, 0xb0000001);
    assert_int_equal(mull_pci_bus_ecam(bus), 0xb0000000);
    assert_int_equal(world_read(w, 0xb0000000, 4), 0x29c08086);
    assert_int_equal(world_read(w, 0xe0000000, 4), 0xffffffff);
    /* Shadow RAM: all protected, then C0000h to C3FFFh and F0000h to FFFFFh writable. */
    assert_true(is_rom(w, 0xc0000) && is_rom(w, 0xff000) && !is_rom(w, 0x100000));
    pci_write(w, 0, 0x90, 0x00000330);
    assert_true(!is_rom(w, 0xf0000) && !is_rom(w, 0xfffff));
    assert_true(!is_rom(w, 0xc0000) && is_rom(w, 0xc4000) && is_rom(w, 0xc8000));
    mull_pci_bus_reset(bus);
    assert_true(is_rom(w, 0xf0000) && is_rom(w, 0xc0000));
    assert_int_equal(mull_pci_bus_ecam(bus), 0);
    /* PIRQ B to IRQ 11. */
    pci_write(w, 0xf8, 0x60, 0x80800b80);
    pci_write(w, 0xf8, 0x60, 0x80800b80 & ~0x8000u);
    mull_lpc_set(lpc, 1, true);
    assert_true(w->line[11]);
    mull_lpc_set(lpc, 0, true);
    assert_false(w->line[10]);
    pci_write(w, 0xf8, 0x60, 0x8080800a);
    assert_true(w->line[10] && !w->line[11]);
    mull_lpc_set(lpc, 0, false);
    assert_false(w->line[10]);
    assert_int_equal(world_in(w, 0x630, 4), 0x20); /* firmware need not set up SMM */
    destroy(mull_lpc_device(lpc));
    mull_pci_bus_destroy(bus);
}

/* ---- Images ---- */

static void write_image(const char *folder, const char *name, uint32_t size, uint8_t byte)
{
    char path[128];

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    for (uint32_t i = 0; i < size; i++)
        fputc(byte, f);
    fclose(f);
}

/* A file with its template beside it; a store of another size; one that cannot have any. */
static void test_variables_of_a_file(void **state)
{
    char folder[] = "/tmp/mull-firmware-XXXXXX", code[128], store[128], line[160];
    struct mull_firmware *f;
    struct mull_error err = {0};

    assert_non_null(mkdtemp(folder));
    snprintf(code, sizeof(code), "%s/MY_CODE_4M.secboot.fd", folder);
    snprintf(store, sizeof(store), "%s/store", folder);
    write_image(folder, "MY_CODE_4M.secboot.fd", 0x20000, 0xc0);
    assert_int_equal(mull_firmware_open(code, NULL, &f, &err), 0);
    assert_null(f->vars);
    mull_firmware_close(f);
    assert_int_equal(mull_firmware_open(code, store, &f, &err), -EINVAL);
    assert_non_null(strstr(err.message, "--nvram"));

    write_image(folder, "MY_VARS_4M.fd", 0x3000, 0xfa);
    assert_int_equal(mull_firmware_open(code, store, &f, &err), 0);
    assert_int_equal(f->rom_size, 0x20000);
    assert_int_equal(f->vars_size, 0x3000);
    assert_int_equal(f->vars[0x2fff], 0xfa);
    assert_int_equal(mull_firmware_vars_base(f), 0x100000000 - 0x23000);
    mull_firmware_close(f);
    write_image(folder, "MY_VARS_4M.secboot.fd", 0x4000, 0xfb); /* the nearer name */
    assert_int_equal(mull_firmware_open(code, NULL, &f, &err), 0);
    assert_int_equal(f->vars_size, 0x4000);
    mull_firmware_close(f);
    assert_int_equal(mull_firmware_open(code, store, &f, &err), -EINVAL);
    assert_non_null(strstr(err.message, "12288 bytes, this firmware's store has 16384"));
    write_image(folder, "MY_VARS_4M.secboot.fd", 0x4001, 0xfb); /* not whole pages */
    assert_int_equal(mull_firmware_open(code, NULL, &f, &err), -EINVAL);
    snprintf(line, sizeof(line), "rm -r '%s'", folder);
    assert_int_equal(system(line), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_fw_cfg, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pflash, setup, teardown),
        cmocka_unit_test(test_acpi),
        cmocka_unit_test(test_smbios),
        cmocka_unit_test(test_option_rom),
        cmocka_unit_test(test_variables_of_a_file),
        cmocka_unit_test_setup_teardown(test_bridges, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
