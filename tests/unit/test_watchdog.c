/* The i6300ESB watchdog and the generation ID, as a guest's drivers use them. */
#include "platform_world.h"

#include <stdlib.h>

#include "device/legacy/i6300esb.h"
#include "platform/vmgenid.h"

#define ECAM 0xe0000000ull
#define MMIO 0xc0000000ull
#define SLOT (1u << 15)
#define SECOND 1000000000ull
/* One unit of a preload with the slow prescaler: 2^15 ticks of 33.3 MHz. */
#define UNIT (32768 * 1000000000ull / 33333333)

struct fixture {
    struct world world; /* must be first */
    struct mull_pci_bus *bus;
    struct mull_device *device;
    unsigned expired;
};

static void expired(void *opaque)
{
    ((struct fixture *)opaque)->expired++;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct mull_pci_config config = {.ecam_base = ECAM, .mmio_base = MMIO, .mmio_size = 0x20000000};
    world_make(&f->world);
    config.memory = f->world.env.memory;
    for (unsigned i = 0; i < 4; i++)
        config.intx[i] = world_irq(&f->world, 16 + i);
    assert_int_equal(mull_pci_bus_create(&config, &f->bus, NULL), 0);
    const struct mull_watchdog_config cfg = {
        .name = "i6300esb.0", .devfn = -1, .opaque = f, .expired = expired};
    assert_int_equal(mull_i6300esb_create(&f->world.env, f->bus, &cfg, &f->device, NULL), 0);
    assert_int_equal(mull_pci_bus_assign(f->bus, NULL), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    f->device->ops->destroy(f->device);
    mull_pci_bus_destroy(f->bus);
    world_free(&f->world);
    free(f);
    return 0;
}

static void config_write(struct fixture *f, unsigned offset, unsigned size, uint32_t value)
{
    world_write(&f->world, ECAM + SLOT + offset, size, value);
}

static uint32_t config_read(struct fixture *f, unsigned offset, unsigned size)
{
    return (uint32_t)world_read(&f->world, ECAM + SLOT + offset, size);
}

static void unlocked(struct fixture *f, unsigned offset, uint32_t value)
{
    uint64_t base = config_read(f, 0x10, 4) & ~15u;
    world_write(&f->world, base + 0xc, 2, 0x80);
    world_write(&f->world, base + 0xc, 2, 0x86);
    world_write(&f->world, base + offset, offset == 0xc ? 2 : 4, value);
}

/* As Linux starts it: both stages, no interrupt, slow. */
static void start(struct fixture *f, uint32_t units)
{
    config_write(f, 0x60, 2, 3);
    unlocked(f, 0, units);
    unlocked(f, 4, units);
    unlocked(f, 0xc, 0x100);
    config_write(f, 0x68, 1, 2);
}

static void at(struct fixture *f, uint64_t ns)
{
    world_advance(&f->world, f->device, ns);
}

static void test_expires(void **state)
{
    struct fixture *f = *state;
    uint64_t base = config_read(f, 0x10, 4) & ~15u;
    assert_int_equal(config_read(f, 0, 4), 0x25ab8086);
    start(f, 1000);
    at(f, 1000 * UNIT);
    at(f, 1003 * UNIT); /* the first stage is over */
    at(f, 1999 * UNIT);
    assert_int_equal(f->expired, 0);
    assert_int_equal(world_read(&f->world, base + 0xc, 2), 0);
    at(f, 2010 * UNIT);
    assert_int_equal(f->expired, 1);
    assert_int_equal(world_read(&f->world, base + 0xc, 2), 0x200);
    at(f, 9000 * UNIT);
    assert_int_equal(f->expired, 1);
    /* After the reset the driver can tell; it clears the bit. */
    f->device->ops->reset(f->device);
    assert_int_equal(mull_pci_bus_assign(f->bus, NULL), 0);
    assert_int_equal(world_read(&f->world, base + 0xc, 2), 0x200);
    unlocked(f, 0xc, 0x200);
    assert_int_equal(world_read(&f->world, base + 0xc, 2), 0);
    assert_int_equal(config_read(f, 0x68, 1), 0);
}

static void test_fed(void **state)
{
    struct fixture *f = *state;
    start(f, 1000);
    for (unsigned i = 1; i < 20; i++) {
        at(f, 900 * i * UNIT);
        unlocked(f, 0xc, 0x100);
    }
    assert_int_equal(f->expired, 0);
    /* Without the two writes before it nothing counts. */
    uint64_t base = config_read(f, 0x10, 4) & ~15u;
    at(f, (900 * 19 + 900) * UNIT);
    world_write(&f->world, base + 0xc, 2, 0x100);
    world_write(&f->world, base + 0xc, 2, 0x86);
    world_write(&f->world, base + 0xc, 2, 0x80);
    world_write(&f->world, base + 0xc, 2, 0x100);
    at(f, (900 * 19 + 1003) * UNIT);
    at(f, (900 * 19 + 2010) * UNIT);
    assert_int_equal(f->expired, 1);
}

static void test_stopped_and_locked(void **state)
{
    struct fixture *f = *state;
    start(f, 1000);
    config_write(f, 0x68, 1, 0);
    at(f, 3000 * UNIT);
    assert_int_equal(f->expired, 0);
    config_write(f, 0x68, 1, 3); /* enable and lock */
    config_write(f, 0x68, 1, 0);
    assert_int_equal(config_read(f, 0x68, 1), 3);
    /* The guest's time stands still in a pause, and so does the watchdog. */
    f->device->ops->quiesce(f->device);
    world_drain(&f->world);
    assert_int_equal(f->expired, 0);
    at(f, 4003 * UNIT);
    at(f, 5010 * UNIT);
    assert_int_equal(f->expired, 1);
}

static void test_no_reboot(void **state)
{
    struct fixture *f = *state;
    start(f, 10);
    config_write(f, 0x60, 2, 0x23);
    at(f, 12 * UNIT);
    at(f, 30 * UNIT);
    assert_int_equal(f->expired, 0);
    /* Free-running and fast it goes on for ever, and says so each time. */
    config_write(f, 0x68, 1, 0);
    config_write(f, 0x60, 2, 0x4);
    config_write(f, 0x68, 1, 6);
    for (unsigned i = 1; i <= 4; i++)
        at(f, 30 * UNIT + i * SECOND);
    assert_int_equal(f->expired, 2);
}

/* ---- The generation ID ---- */

static void never(void *opaque) {}

static void test_generation_id(void **state)
{
    struct world w;
    struct mull_acpi_pm *pm;
    struct mull_vmgenid *g;
    uint64_t first[2], again[2];
    world_make(&w);
    assert_int_equal(mull_acpi_pm_create(&w.env, world_irq(&w, 9), never, NULL, &pm, NULL), 0);
    assert_int_equal(mull_vmgenid_create(&w.env, pm, &g, NULL), 0);
    struct mull_device *device = mull_vmgenid_device(g);
    for (unsigned i = 0; i < 2; i++)
        first[i] = world_read(&w, MULL_VMGENID_BASE + 8 * i, 8);
    assert_true(first[0] && first[1]);
    world_write(&w, MULL_VMGENID_BASE, 8, 0); /* not the guest's to write */
    device->ops->reset(device);
    assert_int_equal(world_read(&w, MULL_VMGENID_BASE, 8), first[0]);
    assert_int_equal(world_read(&w, MULL_VMGENID_BASE + 16, 8), 0);
    /* The event is there; loading a state makes a new ID, and going on tells of it. */
    world_out(&w, MULL_PM_GPE0_PORT + 3, 1, 1);
    assert_false(world_in(&w, MULL_PM_GPE0_PORT + 1, 1) & 1);
    assert_int_equal(device->ops->state->after_load(device->object, 1, NULL), 0);
    for (unsigned i = 0; i < 2; i++)
        again[i] = world_read(&w, MULL_VMGENID_BASE + 8 * i, 8);
    assert_true(again[0] != first[0] && again[1] != first[1]);
    device->ops->resume(device);
    assert_true(world_in(&w, MULL_PM_GPE0_PORT + 1, 1) & 1);
    world_out(&w, MULL_PM_GPE0_PORT + 1, 1, 1);
    device->ops->resume(device);
    assert_false(world_in(&w, MULL_PM_GPE0_PORT + 1, 1) & 1);
    mull_vmgenid_renew(g);
    assert_true(world_in(&w, MULL_PM_GPE0_PORT + 1, 1) & 1);
    assert_true(world_read(&w, MULL_VMGENID_BASE, 8) != again[0]);
    device->ops->destroy(device);
    mull_acpi_pm_device(pm)->ops->destroy(mull_acpi_pm_device(pm));
    world_free(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_expires, setup, teardown),
        cmocka_unit_test_setup_teardown(test_fed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stopped_and_locked, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_reboot, setup, teardown),
        cmocka_unit_test(test_generation_id),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
