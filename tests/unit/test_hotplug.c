/* The registers of hot plug as the ACPI methods use them, what a guest may not do with them, and
 * RAM that comes and goes. */
#include "platform_world.h"

#include <errno.h>

#include "engine/engine.h"
#include "platform/hotplug.h"
#include "state/state.h"

#define REG(class, offset) (MULL_HOTPLUG_BASE + (class) * MULL_HOTPLUG_CLASS_SIZE + (offset))
#define SCI 9

static struct world w;
static struct mull_acpi_pm *pm;
static struct mull_hotplug *h;
static unsigned ejected[MULL_HOTPLUG_CLASSES], last;

static void on_eject(void *opaque, enum mull_hotplug_class class, unsigned index)
{
    ejected[class]++;
    last = index;
}

static int setup(void **state)
{
    const struct mull_hotplug_config config = {.eject = on_eject};
    struct mull_hotplug_config with_pm = config;

    world_make(&w);
    assert_int_equal(mull_acpi_pm_create(&w.env, world_irq(&w, SCI), NULL, NULL, &pm, NULL), 0);
    with_pm.pm = pm;
    assert_int_equal(mull_hotplug_create(&w.env, &with_pm, &h, NULL), 0);
    memset(ejected, 0, sizeof(ejected));
    world_out(&w, MULL_PM_GPE0_PORT + 2, 2, 0xffff);
    return 0;
}

static int teardown(void **state)
{
    mull_hotplug_device(h)->ops->destroy(mull_hotplug_device(h));
    mull_acpi_pm_device(pm)->ops->destroy(mull_acpi_pm_device(pm));
    world_free(&w);
    return 0;
}

static uint32_t in(unsigned class, unsigned offset)
{
    return (uint32_t)world_read(&w, REG(class, offset), 4);
}

static void out(unsigned class, unsigned offset, uint32_t value)
{
    world_write(&w, REG(class, offset), 4, value);
}

/* What the handler of an event and _EJ0 do. */
static void test_comes_and_goes(void **state)
{
    mull_hotplug_come(h, MULL_HOTPLUG_CPU, 33);
    assert_true(w.line[SCI]);
    assert_int_equal(world_in(&w, MULL_PM_GPE0_PORT, 2),
                     1u << (MULL_HOTPLUG_EVENT + MULL_HOTPLUG_CPU));
    world_out(&w, MULL_PM_GPE0_PORT, 2, 0xffff);
    assert_false(w.line[SCI]);
    assert_int_equal(in(MULL_HOTPLUG_CPU, MULL_HOTPLUG_PRESENT), 0);
    assert_int_equal(in(MULL_HOTPLUG_CPU, MULL_HOTPLUG_PRESENT + 4), 2);
    assert_int_equal(in(MULL_HOTPLUG_CPU, MULL_HOTPLUG_COME + 4), 2);
    out(MULL_HOTPLUG_CPU, MULL_HOTPLUG_COME + 4, 2);
    assert_int_equal(in(MULL_HOTPLUG_CPU, MULL_HOTPLUG_COME + 4), 0);

    mull_hotplug_ask(h, MULL_HOTPLUG_CPU, 33);
    assert_true(w.line[SCI]);
    assert_int_equal(mull_hotplug_asked(h, MULL_HOTPLUG_CPU, 33, NULL), MULL_HOTPLUG_ASKED);
    assert_int_equal(in(MULL_HOTPLUG_CPU, MULL_HOTPLUG_GO + 4), 2);
    out(MULL_HOTPLUG_CPU, MULL_HOTPLUG_GO + 4, 2);
    out(MULL_HOTPLUG_CPU, MULL_HOTPLUG_EJECT + 4, 2);
    assert_int_equal(ejected[MULL_HOTPLUG_CPU], 1);
    assert_int_equal(last, 33);
    assert_false(mull_hotplug_present(h, MULL_HOTPLUG_CPU, 33));
    assert_int_equal(mull_hotplug_asked(h, MULL_HOTPLUG_CPU, 33, NULL), MULL_HOTPLUG_IDLE);
}

static void test_only_what_was_asked_for(void **state)
{
    mull_hotplug_there(h, MULL_HOTPLUG_PCI, 3);
    mull_hotplug_there(h, MULL_HOTPLUG_PCI, 4);
    mull_hotplug_ask(h, MULL_HOTPLUG_PCI, 4);
    out(MULL_HOTPLUG_PCI, MULL_HOTPLUG_EJECT, 0xffffffff);
    assert_int_equal(ejected[MULL_HOTPLUG_PCI], 1);
    assert_int_equal(last, 4);
    assert_true(mull_hotplug_present(h, MULL_HOTPLUG_PCI, 3));
    out(MULL_HOTPLUG_PCI, MULL_HOTPLUG_PRESENT, 0); /* read only */
    assert_true(mull_hotplug_present(h, MULL_HOTPLUG_PCI, 3));
    /* Beyond what there can be. */
    mull_hotplug_come(h, MULL_HOTPLUG_CPU, MULL_MAX_CPUS);
    mull_hotplug_come(h, MULL_HOTPLUG_DIMM, 255);
    assert_false(mull_hotplug_present(h, MULL_HOTPLUG_CPU, MULL_MAX_CPUS));
    for (unsigned at = 0; at < MULL_HOTPLUG_SIZE; at += 4) {
        world_write(&w, MULL_HOTPLUG_BASE + at, 4, 0xffffffff);
        world_read(&w, MULL_HOTPLUG_BASE + at, 8);
        world_read(&w, MULL_HOTPLUG_BASE + at + 1, 1);
    }
    assert_int_equal(ejected[MULL_HOTPLUG_PCI], 1);
}

static void test_refusal(void **state)
{
    unsigned status;

    mull_hotplug_set_dimm(h, 2, 5ull << 30, 1ull << 28);
    mull_hotplug_come(h, MULL_HOTPLUG_DIMM, 2);
    assert_int_equal(world_read(&w, MULL_HOTPLUG_BASE + MULL_HOTPLUG_DIMMS + 64, 8), 5ull << 30);
    assert_int_equal(world_read(&w, MULL_HOTPLUG_BASE + MULL_HOTPLUG_DIMMS + 72, 8),
                     (5ull << 30) + (1ull << 28) - 1);
    assert_int_equal(world_read(&w, MULL_HOTPLUG_BASE + MULL_HOTPLUG_DIMMS + 80, 8), 1ull << 28);
    out(0, MULL_HOTPLUG_OST, 2u << 24 | 2 << 16 | 3 << 8 | 0x82); /* nobody has asked */
    assert_int_equal(mull_hotplug_asked(h, MULL_HOTPLUG_DIMM, 2, &status), MULL_HOTPLUG_IDLE);
    mull_hotplug_ask(h, MULL_HOTPLUG_DIMM, 2);
    out(0, MULL_HOTPLUG_OST, 2u << 24 | 2 << 16 | 3 << 8 | 0x84); /* in progress */
    assert_int_equal(mull_hotplug_asked(h, MULL_HOTPLUG_DIMM, 2, &status), MULL_HOTPLUG_ASKED);
    out(0, MULL_HOTPLUG_OST, 2u << 24 | 2 << 16 | 3 << 8 | 0x82);
    assert_int_equal(mull_hotplug_asked(h, MULL_HOTPLUG_DIMM, 2, &status), MULL_HOTPLUG_REFUSED);
    assert_int_equal(status, 0x82);
    mull_hotplug_ask(h, MULL_HOTPLUG_DIMM, 2); /* once more */
    assert_int_equal(mull_hotplug_asked(h, MULL_HOTPLUG_DIMM, 2, &status), MULL_HOTPLUG_ASKED);
    out(0, MULL_HOTPLUG_OST, 0xffffffff);
}

static void test_save_and_load(void **state)
{
    struct mull_device *d = mull_hotplug_device(h);
    struct mull_state_writer *writer;
    struct mull_state_reader *reader;
    struct mull_state_section section;
    uint64_t base, bytes;
    size_t size;

    mull_hotplug_there(h, MULL_HOTPLUG_PCI, 7);
    mull_hotplug_ask(h, MULL_HOTPLUG_PCI, 7);
    mull_hotplug_set_dimm(h, 1, 4ull << 30, 1ull << 27);
    mull_hotplug_come(h, MULL_HOTPLUG_DIMM, 1);
    assert_int_equal(mull_state_writer_buffer(&writer, NULL), 0);
    assert_int_equal(mull_state_write(writer, d->name, 0, d->ops->state, d->object, NULL), 0);
    assert_int_equal(mull_state_write_end(writer, NULL), 0);
    const uint8_t *data = mull_state_writer_data(writer, &size);

    mull_hotplug_gone(h, MULL_HOTPLUG_PCI, 7);
    mull_hotplug_gone(h, MULL_HOTPLUG_DIMM, 1);
    mull_hotplug_set_dimm(h, 1, 0, 0);
    assert_int_equal(mull_state_reader_buffer(data, size, &reader, NULL), 0);
    assert_int_equal(mull_state_next(reader, &section, NULL), 1);
    assert_int_equal(mull_state_read(reader, d->ops->state, d->object, NULL), 0);
    mull_state_reader_destroy(reader);
    mull_state_writer_destroy(writer);
    assert_int_equal(mull_hotplug_asked(h, MULL_HOTPLUG_PCI, 7, NULL), MULL_HOTPLUG_ASKED);
    assert_int_equal(in(MULL_HOTPLUG_PCI, MULL_HOTPLUG_GO), 1u << 7);
    assert_int_equal(in(MULL_HOTPLUG_DIMM, MULL_HOTPLUG_COME), 2);
    mull_hotplug_dimm(h, 1, &base, &bytes);
    assert_int_equal(base, 4ull << 30);
    assert_int_equal(bytes, 1ull << 27);

    d->ops->reset(d); /* what is there stays, what was asked is over */
    assert_true(mull_hotplug_present(h, MULL_HOTPLUG_PCI, 7));
    assert_int_equal(mull_hotplug_asked(h, MULL_HOTPLUG_PCI, 7, NULL), MULL_HOTPLUG_IDLE);
    assert_int_equal(in(MULL_HOTPLUG_DIMM, MULL_HOTPLUG_COME), 0);
}

/* ---- RAM ---- */

static unsigned told[2];

static int plugged(void *opaque, unsigned index, struct mull_error *err)
{
    told[0]++;
    return told[0] == 3 ? mull_fail(err, ENOSPC, "no") : 0;
}

static void unplugged(void *opaque, unsigned index)
{
    unsigned count;
    assert_true(mull_memory_ram(opaque, &count)[index].size);
    told[1]++;
}

static void check_plugging(bool shared)
{
    struct mull_memory *m;
    uint64_t at = 1ull << 32;
    uint8_t byte = 1;
    unsigned count;

    assert_int_equal(mull_memory_create(NULL, &m, NULL), 0);
    if (shared)
        assert_int_equal(mull_memory_share(m, NULL), 0);
    assert_int_equal(mull_memory_add_ram(m, 0, 1 << 20, false, NULL), 0);
    assert_int_equal(mull_memory_plug(m, 0, at, 1 << 20, NULL), -EINVAL); /* no room was made */
    mull_memory_reserve_hot(m);
    const struct mull_memory_watch watch = {
        .opaque = m, .plugged = plugged, .unplugged = unplugged};
    mull_memory_set_watch(m, &watch);
    mull_memory_ram(m, &count);
    assert_int_equal(count, 1 + MULL_RAM_HOT);
    told[0] = told[1] = 0;
    assert_int_equal(mull_mem_write(m, at, &byte, 1), -EFAULT);
    assert_int_equal(mull_memory_plug(m, 5, at, 1 << 21, NULL), 0);
    assert_int_equal(mull_memory_plug(m, 5, at << 1, 1 << 21, NULL), -EINVAL);
    assert_int_equal(mull_memory_plug(m, 6, at + (1 << 20), 1 << 20, NULL), -EEXIST);
    assert_int_equal(mull_memory_plug(m, MULL_RAM_HOT, at << 1, 1 << 20, NULL), -EINVAL);
    assert_int_equal(mull_mem_write(m, at + (1 << 21) - 1, &byte, 1), 0);
    assert_int_equal(mull_memory_find_ram(m, at)->size, 1 << 21);
    mull_memory_unplug(m, 5);
    mull_memory_unplug(m, 5);
    assert_int_equal(told[1], 1);
    assert_int_equal(mull_mem_read(m, at + (1 << 21) - 1, &byte, 1), -EFAULT);
    /* Again, smaller: it holds nothing of before. */
    assert_int_equal(mull_memory_plug(m, 5, at, 1 << 20, NULL), 0);
    for (uint64_t i = 0; i < 1 << 20; i += 4095) {
        assert_int_equal(mull_mem_read(m, at + i, &byte, 1), 0);
        assert_int_equal(byte, 0);
    }
    /* The engine cannot: nothing is left behind. */
    assert_int_equal(mull_memory_plug(m, 6, at << 1, 1 << 20, NULL), -ENOSPC);
    assert_null(mull_memory_find_ram(m, at << 1));
    assert_int_equal(mull_memory_plug(m, 6, at << 1, 1 << 20, NULL), 0);
    mull_memory_destroy(m);
}

static void test_memory(void **state)
{
    check_plugging(false);
    check_plugging(true);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_comes_and_goes), T(test_only_what_was_asked_for), T(test_refusal),
        T(test_save_and_load),  cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests_name("hotplug", tests, NULL, NULL);
}
