/* Unit tests of the PCI root and its functions: configuration space, BARs, INTx, MSI and MSI-X. */
#include "platform_world.h"

#include <errno.h>

#include "platform/pci.h"

#define ECAM 0xe0000000ull
#define MMIO 0xc0000000ull
#define MMIO64 0x200000000ull

static struct world world;
static struct mull_pci_bus *bus;
static struct mull_pci_function function[3];
static unsigned bar_reads, resets;
static unsigned hook_offset;

static uint64_t bar_read(void *opaque, unsigned cpu, uint64_t offset, unsigned size)
{
    bar_reads++;
    return 0x1234 + offset;
}

static void bar_write(void *opaque, unsigned cpu, uint64_t offset, unsigned size, uint64_t value) {}

static const struct mull_region_ops bar_ops = {bar_read, bar_write, 1, 4};

static void config_written(struct mull_pci_function *f, unsigned offset, unsigned size)
{
    hook_offset = offset;
    mull_pci_msix_send(f, 0); /* no lock is held */
}

static const struct mull_pci_ops hooks = {.config_written = config_written};

static void on_reset(void *opaque)
{
    resets++;
}

static int setup(void **state)
{
    struct mull_pci_config config = {
        .ecam_base = ECAM,
        .mmio_base = MMIO,
        .mmio_size = 0x20000000,
        .mmio64_base = MMIO64,
        .mmio64_size = 1ull << 34,
        .io_base = 0xc000,
        .io_size = 0x3000,
        .msi = {.send = world_msi, .opaque = &world},
        .reset = on_reset,
    };

    world_make(&world);
    config.memory = world.env.memory;
    for (unsigned i = 0; i < 4; i++)
        config.intx[i] = world_irq(&world, 16 + i);
    bar_reads = resets = 0;
    assert_int_equal(mull_pci_bus_create(&config, &bus, NULL), 0);
    memset(function, 0, sizeof(function));
    for (unsigned i = 0; i < 3; i++) {
        struct mull_pci_function *f = &function[i];
        mull_pci_function_init(f, i == 2 ? &hooks : NULL, 0x1af4, (uint16_t)(0x1041 + i), 0x1af4, 7,
                               0x020000, 1);
        f->intx_pin = 1;
        assert_int_equal(mull_pci_add_bar(f, 0, 5000, false, true, false, &bar_ops, f, "a",
                                          world.env.memory, NULL),
                         0);
        assert_int_equal(mull_pci_add_bar(f, 2, 100, true, false, false, &bar_ops, f, "b",
                                          world.env.memory, NULL),
                         0);
        assert_int_equal(mull_pci_add_msix(f, 4, 8, world.env.memory, NULL), 0);
        assert_int_equal(mull_pci_add_msi(f, NULL), 0);
        assert_int_equal(mull_pci_bus_attach(bus, f, i == 1 ? 5 << 3 : -1, NULL), 0);
    }
    assert_int_equal(function[0].devfn, 1 << 3);
    assert_int_equal(function[2].devfn, 2 << 3);
    *state = &world;
    return 0;
}

static int teardown(void **state)
{
    for (unsigned i = 0; i < 3; i++)
        mull_pci_function_fini(&function[i]);
    mull_pci_bus_destroy(bus);
    world_free(&world);
    return 0;
}

static uint32_t cfg(struct world *w, unsigned devfn, unsigned offset, unsigned size)
{
    return (uint32_t)world_read(w, ECAM + (devfn << 12) + offset, size);
}

static void set_cfg(struct world *w, unsigned devfn, unsigned offset, unsigned size, uint32_t value)
{
    world_write(w, ECAM + (devfn << 12) + offset, size, value);
}

static void test_mechanisms(void **state)
{
    struct world *w = *state;

    assert_int_equal(cfg(w, 0, 0, 4), 0x29c08086);
    assert_int_equal(cfg(w, 0, 8, 4), 0x06000000);
    assert_int_equal(cfg(w, 3 << 3, 0, 4), 0xffffffff);
    assert_int_equal(world_read(w, ECAM + (1 << 20), 4), 0xffffffff); /* bus 1 */
    world_out(w, 0xcf8, 4, 0x80000800);
    assert_int_equal(world_in(w, 0xcf8, 4), 0x80000800);
    assert_int_equal(world_in(w, 0xcfc, 4), 0x10411af4);
    assert_int_equal(world_in(w, 0xcfe, 2), 0x1041);
    assert_int_equal(world_in(w, 0xcfd, 1), 0x1a);
    world_out(w, 0xcfc, 4, 0); /* read only */
    assert_int_equal(world_in(w, 0xcfc, 4), 0x10411af4);
    world_out(w, 0xcf8, 4, 0x0800); /* not enabled */
    assert_int_equal(world_in(w, 0xcfc, 4), 0xffffffff);
    world_out(w, 0xcf8, 4, 0x80010800); /* bus 1 */
    assert_int_equal(world_in(w, 0xcfc, 4), 0xffffffff);
    set_cfg(w, 8, 0x3c, 1, 0x5a);
    assert_int_equal(cfg(w, 8, 0x3c, 2), 0x015a); /* line writable, pin not */
    set_cfg(w, 8, 4, 2, 0xffff);
    assert_int_equal(cfg(w, 8, 4, 2), 0x0547);
    assert_int_equal(cfg(w, 8, 0xffc, 4), 0);
    set_cfg(w, 2 << 3, 0x40, 4, 0); /* a hook that takes the function's lock */
    assert_int_equal(hook_offset, 0x40);

    world_out(w, 0xcf9, 1, 2);
    assert_int_equal(resets, 0);
    assert_int_equal(world_in(w, 0xcf9, 1), 2);
    world_out(w, 0xcf9, 1, 6);
    assert_int_equal(resets, 1);
    world_out(w, 0xcf8, 4, 0x80000604); /* not a reset */
    assert_int_equal(resets, 1);
}

static void test_bars(void **state)
{
    struct world *w = *state;
    unsigned d = 8;

    set_cfg(w, d, 0x10, 4, 0xffffffff);
    set_cfg(w, d, 0x14, 4, 0xffffffff);
    assert_int_equal(cfg(w, d, 0x10, 4), 0xffffe004); /* 8 KiB, 64 bits */
    assert_int_equal(cfg(w, d, 0x14, 4), 0xffffffff);
    set_cfg(w, d, 0x18, 4, 0xffffffff);
    assert_int_equal(cfg(w, d, 0x18, 4), 0xffffff81); /* 128 ports */
    set_cfg(w, d, 0x1c, 4, 0xffffffff);
    assert_int_equal(cfg(w, d, 0x1c, 4), 0); /* no such BAR */

    set_cfg(w, d, 0x10, 4, MMIO + 0x10000);
    set_cfg(w, d, 0x14, 4, 0);
    assert_int_equal(world_read(w, MMIO + 0x10004, 4), 0xffffffff); /* not decoding yet */
    set_cfg(w, d, 4, 2, 2);
    assert_int_equal(world_read(w, MMIO + 0x10004, 4), 0x1238);
    assert_int_equal(world_read(w, MMIO + 0x12000, 4), 0xffffffff);
    set_cfg(w, d, 0x14, 4, MMIO64 >> 32);
    set_cfg(w, d, 0x10, 4, 0x4000);
    assert_int_equal(world_read(w, MMIO + 0x10004, 4), 0xffffffff); /* moved */
    assert_int_equal(world_read(w, MMIO64 + 0x4000, 4), 0x1234);

    /* Nothing outside the windows is decoded: not over RAM's place, not over the ECAM or the
     * interrupt controllers. */
    static const uint64_t bad[] = {0, 0x1000, 0xfee00000, 0xbfffe000, 0xe0000000, ~0ull << 13};
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        set_cfg(w, d, 0x10, 4, (uint32_t)bad[i]);
        set_cfg(w, d, 0x14, 4, (uint32_t)(bad[i] >> 32));
        unsigned before = bar_reads;
        world_read(w, bad[i] & ~0x1fffull, 4);
        assert_int_equal(bar_reads, before);
    }
    set_cfg(w, d, 0x18, 4, 0xc100);
    assert_int_equal(world_in(w, 0xc101, 1), 0xff);
    set_cfg(w, d, 4, 2, 1);
    assert_int_equal(world_in(w, 0xc101, 1), 0x35);
    set_cfg(w, d, 0x18, 4, 0x60); /* not over the chipset's ports */
    assert_int_equal(world_in(w, 0x61, 1), 0xff);
}

static void test_assign(void **state)
{
    struct world *w = *state;
    struct mull_error err = {0};

    assert_int_equal(mull_pci_bus_assign(bus, &err), 0);
    for (unsigned i = 0; i < 3; i++) {
        unsigned d = function[i].devfn;
        uint64_t at = (cfg(w, d, 0x10, 4) & ~15u) | (uint64_t)cfg(w, d, 0x14, 4) << 32;
        assert_int_equal(cfg(w, d, 4, 2), 3);
        assert_int_equal(at % 8192, 0);
        assert_int_equal(world_read(w, at + 4, 4), 0x1238);
        assert_int_equal(world_in(w, (uint16_t)((cfg(w, d, 0x18, 4) & ~3u) + 1), 1), 0x35);
        for (unsigned j = 0; j < i; j++)
            assert_int_not_equal(cfg(w, function[j].devfn, 0x10, 4), cfg(w, d, 0x10, 4));
    }
    static struct mull_pci_function big[2];
    memset(big, 0, sizeof(big));
    for (unsigned i = 0; i < 2; i++) {
        mull_pci_function_init(&big[i], NULL, 1, 2, 3, 4, 0x030000, 0);
        assert_int_equal(mull_pci_add_bar(&big[i], 0, (1u << 28) + 1, false, false, false, &bar_ops,
                                          NULL, "big", w->env.memory, NULL),
                         0);
        assert_int_equal(mull_pci_bus_attach(bus, &big[i], -1, NULL), 0);
    }
    assert_int_equal(mull_pci_bus_assign(bus, &err), -ENOSPC); /* two of 512 MiB do not fit */
    assert_non_null(strstr(err.message, "no room"));
    assert_int_equal(mull_pci_add_bar(&big[0], 6, 4096, false, false, false, &bar_ops, NULL, "no",
                                      w->env.memory, NULL),
                     -EINVAL);
    assert_int_equal(mull_pci_add_bar(&big[0], 0, 4096, false, false, false, &bar_ops, NULL, "no",
                                      w->env.memory, NULL),
                     -EEXIST);
    assert_int_equal(mull_pci_add_bar(&function[0], 1, 4096, false, false, false, &bar_ops, NULL,
                                      "no", w->env.memory, NULL),
                     -EEXIST);
    mull_pci_function_fini(&big[0]);
    mull_pci_function_fini(&big[1]);
    assert_int_equal(mull_pci_bus_attach(bus, &function[0], 0, &err), -EBUSY);
}

static void test_capabilities(void **state)
{
    struct world *w = *state;
    unsigned at = cfg(w, 8, 0x34, 1), seen = 0;

    assert_true(cfg(w, 8, 6, 2) & 0x10);
    for (unsigned n = 0; at && n < 48; n++, at = cfg(w, 8, at + 1, 1))
        seen |= 1u << cfg(w, 8, at, 1);
    assert_int_equal(at, 0);
    assert_int_equal(seen, 1u << 5 | 1u << 0x11);
    unsigned count = 0;
    while (mull_pci_add_capability(&function[0], 9, 20))
        count++;
    assert_int_equal(count, (256 - 0x40 - 12 - 16) / 20);
}

static uint64_t place_msix(struct world *w, unsigned d)
{
    set_cfg(w, d, 0x20, 4, MMIO + 0x100000);
    set_cfg(w, d, 4, 2, 6);
    return MMIO + 0x100000;
}

static void test_msix(void **state)
{
    struct world *w = *state;
    struct mull_pci_function *f = &function[0];
    unsigned cap = f->msix_capability;
    uint64_t table = place_msix(w, 8);

    assert_int_equal(cfg(w, 8, cap + 2, 2), 7);
    assert_int_equal(cfg(w, 8, cap + 4, 4), 4);
    assert_int_equal(cfg(w, 8, cap + 8, 4), 0x804);
    assert_int_equal(world_read(w, table + 12, 4), 1); /* masked at first */
    mull_pci_msix_send(f, 0);
    assert_int_equal(w->msis, 0);
    world_write(w, table + 16, 8, 0xfee01003);
    world_write(w, table + 24, 4, 0x41);
    assert_int_equal(world_read(w, table + 16, 4), 0xfee01000);
    set_cfg(w, 8, cap + 2, 2, 0xffff);
    assert_int_equal(cfg(w, 8, cap + 2, 2), 0xc007);
    mull_pci_msix_send(f, 1); /* function and entry masked */
    assert_int_equal(world_read(w, table + 0x800, 8), 2);
    world_write(w, table + 28, 4, 0);
    assert_int_equal(w->msis, 0);
    set_cfg(w, 8, cap + 2, 2, 0x8000);
    assert_int_equal(w->msis, 1);
    assert_true(w->msi_address == 0xfee01000 && w->msi_data == 0x41);
    assert_int_equal(world_read(w, table + 0x800, 8), 0);
    mull_pci_msix_send(f, 1);
    assert_int_equal(w->msis, 2);
    world_write(w, table + 28, 4, 1);
    mull_pci_msix_send(f, 1);
    mull_pci_msix_send(f, 1);
    assert_int_equal(w->msis, 2);
    world_write(w, table + 24, 8, 0x42); /* data and unmask in one */
    assert_int_equal(w->msis, 3);
    assert_int_equal(w->msi_data, 0x42);
    mull_pci_msix_send(f, 8);
    mull_pci_msix_send(f, 0xffff);
    world_write(w, table + 0x800, 8, ~0ull); /* the pending bits are read only */
    assert_int_equal(world_read(w, table + 0x800, 8), 0);
    assert_int_equal(world_read(w, table + 0x7f8, 8), 0);
    set_cfg(w, 8, 4, 2, 2); /* not a bus master: no message */
    mull_pci_msix_send(f, 1);
    assert_int_equal(w->msis, 3);
}

static void test_msi(void **state)
{
    struct world *w = *state;
    struct mull_pci_function *f = &function[0];
    unsigned cap = f->msi_capability;

    set_cfg(w, 8, 4, 2, 4);
    mull_pci_msi_send(f);
    assert_int_equal(w->msis, 0);
    set_cfg(w, 8, cap + 4, 4, 0xfee02000);
    set_cfg(w, 8, cap + 12, 2, 0x55);
    set_cfg(w, 8, cap + 2, 2, 0xffff);
    assert_int_equal(cfg(w, 8, cap + 2, 2), 0x81);
    mull_pci_msi_send(f);
    assert_int_equal(w->msis, 1);
    assert_true(w->msi_address == 0xfee02000 && w->msi_data == 0x55);
}

static void test_intx(void **state)
{
    struct world *w = *state;

    mull_pci_intx(&function[0], true); /* slot 1, INTA: line 1 */
    assert_true(w->line[17]);
    assert_true(cfg(w, 8, 6, 2) & 8);
    mull_pci_intx(&function[1], true); /* slot 5: line 1 too */
    mull_pci_intx(&function[0], false);
    assert_true(w->line[17]);
    assert_int_equal(w->edges[17], 1);
    set_cfg(w, 5 << 3, 4, 2, 0x400); /* switched off, still pending */
    assert_false(w->line[17]);
    assert_true(cfg(w, 5 << 3, 6, 2) & 8);
    set_cfg(w, 5 << 3, 4, 2, 0);
    assert_true(w->line[17]);
    set_cfg(w, 5 << 3, function[1].msix_capability + 2, 2, 0x8000); /* messages instead */
    assert_false(w->line[17]);
    set_cfg(w, 5 << 3, function[1].msix_capability + 2, 2, 0);
    assert_true(w->line[17]);
    mull_pci_function_reset(&function[1]);
    assert_false(w->line[17]);
    mull_pci_intx(&function[2], true); /* slot 2: line 2 */
    assert_true(w->line[18]);
}

static void test_reset_and_state(void **state)
{
    struct world *w = *state;
    struct mull_pci_function *f = &function[0];
    uint64_t table = place_msix(w, 8);

    set_cfg(w, 8, f->msix_capability + 2, 2, 0x8000);
    world_write(w, table, 8, 0xfee01000);
    static uint8_t config[MULL_PCI_CONFIG_SIZE];
    memcpy(config, f->config, sizeof(config));
    mull_pci_function_reset(f);
    assert_int_equal(cfg(w, 8, 4, 2), 0);
    assert_int_equal(cfg(w, 8, 0, 4), 0x10411af4);
    assert_int_equal(world_read(w, table, 8), ~0ull);
    memcpy(f->config, config, sizeof(config));
    f->msix[0].address = 0xfee01003;
    assert_int_equal(mull_pci_function_loaded(f, NULL), 0);
    assert_int_equal(world_read(w, table, 8), 0xfee01000);

    /* Whatever a saved file says: identity, sizes and structure stay what they are. */
    memset(f->config, 0xff, sizeof(f->config));
    memset(f->msix, 0xff, sizeof(f->msix));
    f->msix_pending = ~0ull;
    f->intx_level = true;
    assert_int_equal(mull_pci_function_loaded(f, NULL), 0);
    assert_int_equal(cfg(w, 8, 0, 4), 0x10411af4);
    assert_int_equal(cfg(w, 8, 0x10, 4), 0xffffe004);
    assert_int_equal(cfg(w, 8, 0x34, 1), 0x40);
    assert_int_equal(f->msix_pending, 0xff);
    assert_int_equal(f->msix[63].control, 1);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_mechanisms), T(test_bars), T(test_assign), T(test_capabilities),
        T(test_msix),       T(test_msi),  T(test_intx),   T(test_reset_and_state),
    };
    return cmocka_run_group_tests_name("pci", tests, NULL, NULL);
}
