/* Unit tests of the ACPI tables: found as a guest finds them, sums, cross-references, and what
 * Intel's compiler makes of the DSDT where it is installed. */
#include "platform_world.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "platform/acpi.h"
#include "platform/platform.h"

static const struct mull_acpi_config config = {
    .area_base = MULL_ACPI_AREA_BASE,
    .area_size = MULL_ACPI_AREA_SIZE,
    .cpus = 64,
    .com_ports = 3,
    .sci = 9,
    .intx = {16, 17, 18, 19},
    .reset_port = 0xcf9,
    .reset_value = 14,
    .pvpanic_port = 0x505,
    .ecam_base = MULL_ECAM_BASE,
    .mmio32_base = MULL_MMIO32_BASE,
    .mmio32_size = MULL_MMIO32_SIZE,
    .mmio64_base = 1ull << 33,
    .mmio64_size = 1ull << 34,
};

static struct mull_memory *memory;
static uint8_t area[MULL_ACPI_AREA_SIZE];
static uint64_t rsdp;

static int setup(void **state)
{
    assert_int_equal(mull_memory_create(NULL, &memory, NULL), 0);
    assert_int_equal(mull_memory_add_ram(memory, 0, 1 << 20, false, NULL), 0);
    assert_int_equal(mull_acpi_write(memory, &config, &rsdp, NULL), 0);
    assert_int_equal(mull_mem_read(memory, MULL_ACPI_AREA_BASE, area, sizeof(area)), 0);
    return 0;
}

static int teardown(void **state)
{
    mull_memory_destroy(memory);
    return 0;
}

static uint64_t get(const uint8_t *p, unsigned size)
{
    uint64_t value = 0;
    memcpy(&value, p, size);
    return value;
}

static uint8_t sum(const uint8_t *p, size_t length)
{
    uint8_t all = 0;
    while (length--)
        all = (uint8_t)(all + *p++);
    return all;
}

/* The bytes at a guest address, of which there must be @length. */
static const uint8_t *at(uint64_t address, uint64_t length)
{
    assert_true(address >= MULL_ACPI_AREA_BASE && length <= sizeof(area) &&
                address - MULL_ACPI_AREA_BASE <= sizeof(area) - length);
    return area + (address - MULL_ACPI_AREA_BASE);
}

static const uint8_t *table(uint64_t address, const char *signature, uint32_t *length)
{
    const uint8_t *p = at(address, 36);

    *length = (uint32_t)get(p + 4, 4);
    at(address, *length);
    assert_memory_equal(p, signature, 4);
    assert_int_equal(sum(p, *length), 0);
    return p;
}

static const uint8_t *find(const char *signature, uint32_t *length)
{
    uint32_t size;
    const uint8_t *xsdt = table(get(at(rsdp, 36) + 24, 8), "XSDT", &size);

    for (uint32_t i = 36; i + 8 <= size; i += 8) {
        uint64_t address = get(xsdt + i, 8);
        if (memcmp(at(address, 4), signature, 4) == 0)
            return table(address, signature, length);
    }
    fail_msg("%s is not listed", signature);
    return NULL;
}

static void test_root(void **state)
{
    const uint8_t *p = at(rsdp, 36);

    assert_int_equal(rsdp % 16, 0);
    assert_memory_equal(p, "RSD PTR ", 8);
    assert_int_equal(sum(p, 20), 0);
    assert_int_equal(sum(p, 36), 0);
    assert_int_equal(p[15], 2);
}

static void test_fadt(void **state)
{
    uint32_t length, dsdt;
    const uint8_t *p = find("FACP", &length);

    assert_int_equal(length, 276);
    assert_int_equal(get(p + 46, 2), 9);
    assert_int_equal(get(p + 56, 4), 0x600);
    assert_int_equal(get(p + 64, 4), 0x604);
    assert_int_equal(get(p + 76, 4), 0x608);
    assert_int_equal(get(p + 80, 4), 0x620);
    assert_int_equal(p[108], 0x32);
    assert_int_equal(get(p + 112, 4) & (1u << 20), 0); /* not hardware-reduced */
    assert_int_equal(get(p + 120, 8), 0xcf9);
    assert_int_equal(p[128], 14);
    assert_int_equal(get(p + 36, 4) % 64, 0);
    assert_memory_equal(at(get(p + 36, 4), 64), "FACS", 4);
    assert_int_equal(get(p + 40, 4), get(p + 140, 8));
    table(get(p + 140, 8), "DSDT", &dsdt);
}

static void test_madt(void **state)
{
    uint32_t length;
    const uint8_t *p = find("APIC", &length);
    unsigned kinds[16] = {0};

    assert_int_equal(get(p + 36, 4), 0xfee00000);
    for (uint32_t i = 44; i < length; i += p[i + 1]) {
        assert_true(p[i] < 16 && p[i + 1] >= 2 && i + p[i + 1] <= length);
        if (p[i] == 0)
            assert_int_equal(p[i + 3], kinds[0]); /* APIC IDs in order */
        if (p[i] == 2 && p[i + 3] == 0)
            assert_int_equal(get(p + i + 4, 4), 2);
        if (p[i] == 2 && p[i + 3] == 9)
            assert_int_equal(get(p + i + 8, 2), 13);
        kinds[p[i]]++;
    }
    assert_int_equal(kinds[0], 64);
    assert_int_equal(kinds[1], 1);
    assert_int_equal(kinds[2], 2);
    assert_int_equal(kinds[4], 1);
}

static void test_others(void **state)
{
    uint32_t length;
    const uint8_t *p = find("HPET", &length);

    assert_int_equal(length, 56);
    assert_int_equal(get(p + 44, 8), 0xfed00000);
    p = find("MCFG", &length);
    assert_int_equal(length, 60);
    assert_int_equal(get(p + 44, 8), MULL_ECAM_BASE);
    assert_int_equal(p[55], 255);
}

static void write_file(const char *folder, const char *name, const uint8_t *data, size_t length)
{
    char path[256];

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, length, f), length);
    fclose(f);
}

static int run(const char *folder, const char *command)
{
    char line[512];

    snprintf(line, sizeof(line), "cd '%s' && { %s; } > log 2>&1", folder, command);
    return system(line);
}

/* Disassemble, compile again, and get the same code back: then every length and opcode was right.
 */
static void test_dsdt(void **state)
{
    char folder[] = "/tmp/mull-acpi-XXXXXX";
    uint32_t length;
    const uint8_t *fadt = find("FACP", &length);
    const uint8_t *dsdt = table(get(fadt + 140, 8), "DSDT", &length);

    if (system("command -v iasl > /dev/null 2>&1") != 0)
        skip();
    assert_non_null(mkdtemp(folder));
    write_file(folder, "dsdt.aml", dsdt, length);
    int disassembled = run(folder, "iasl -d dsdt.aml");
    int compiled = run(folder, "iasl -oa -we -p again dsdt.dsl");
    /* But for where the disassembler breaks its lines. */
    int same = run(folder, "iasl -d again.aml && for n in dsdt again; do "
                           "sed '1,/^DefinitionBlock/d' $n.dsl | tr -d ' \\n' > $n.all; done && "
                           "test -s dsdt.all && cmp dsdt.all again.all");
    int present = run(folder, "for n in PNP0A08 PNP0C02 PNP0501 PNP0B00 PNP0103 QEMU0001 "
                              "ACPI0007 _PRT _S5 C03F; do grep -q $n dsdt.dsl || exit 1; done");
    char line[300];
    snprintf(line, sizeof(line), "rm -r '%s'", folder);
    assert_int_equal(system(line), 0);
    assert_int_equal(disassembled, 0);
    assert_int_equal(compiled, 0);
    assert_int_equal(same, 0);
    assert_int_equal(present, 0);
}

/* Everything can come and go: the methods of hot plug, checked the same way. */
static void test_hotplug(void **state)
{
    struct mull_acpi_config all = config;

    all.hotplug = (struct mull_acpi_hotplug){.pci_slots = 0xfffffffe,
                                             .cpus = true,
                                             .cpus_absent = ~1ull,
                                             .dimm_base = 1ull << 32,
                                             .dimm_size = 1ull << 30,
                                             .ram_low = 1 << 28};
    assert_int_equal(mull_acpi_write(memory, &all, &rsdp, NULL), 0);
    assert_int_equal(mull_mem_read(memory, MULL_ACPI_AREA_BASE, area, sizeof(area)), 0);
    uint32_t length;
    const uint8_t *p = find("APIC", &length);
    assert_int_equal(get(p + 44 + 4, 4), 1);     /* vCPU 0: enabled */
    assert_int_equal(get(p + 44 + 8 + 4, 4), 2); /* vCPU 1: may come */
    p = find("SRAT", &length);
    assert_int_equal(length, 48 + 64 * 16 + 2 * 40);
    p += length - 40;
    assert_int_equal(get(p + 8, 8), 1ull << 32);
    assert_int_equal(get(p + 16, 8), 1ull << 30);
    assert_int_equal(get(p + 28, 4), 3);
    test_dsdt(state);
}

static void test_no_room(void **state)
{
    struct mull_acpi_config small = config;
    struct mull_error err = {0};
    uint64_t where;

    small.area_size = 4096;
    assert_int_equal(mull_acpi_write(memory, &small, &where, &err), -ENOSPC);
    assert_true(err.message[0]);
    small = config;
    small.area_base = 0x200000;
    assert_int_equal(mull_acpi_write(memory, &small, &where, &err), -EFAULT);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_root), T(test_fadt), T(test_madt), T(test_others), T(test_dsdt), T(test_hotplug), T(test_no_room),
    };
    return cmocka_run_group_tests_name("acpi", tests, NULL, NULL);
}
