/* The devices for bare-metal test kernels: registers, counters, and their state. */
#include "platform_world.h"

#include <errno.h>

#include "device/testdev.h"
#include "state/state.h"

static struct world w;
static struct mull_device *device;
static uint32_t ended;

static void on_exit_value(void *opaque, uint32_t value)
{
    ended = value;
}

static int setup(void **state)
{
    struct mull_testdev_config cfg = {.exit = on_exit_value};

    world_make(&w);
    for (unsigned i = 0; i < MULL_TESTDEV_LINES; i++)
        cfg.irq[i] = world_irq(&w, i);
    ended = 0;
    return mull_testdev_create(&w.env, &cfg, &device, NULL);
}

static int teardown(void **state)
{
    device->ops->destroy(device);
    world_free(&w);
    return 0;
}

static void test_registers(void **state)
{
    world_out(&w, 0xf4, 1, 0x2a);
    assert_int_equal(ended, 0x2a);
    world_out(&w, 0xe0, 4, 0x11223344);
    world_out(&w, 0xe3, 1, 0xaa);
    assert_int_equal(world_in(&w, 0xe0, 4), 0xaa223344);
    world_out(&w, 0x2017, 1, 1);
    assert_true(w.line[23]);
    assert_int_equal(world_in(&w, 0x2017, 1), 1);
    world_write(&w, 0xff00fff8, 8, 0x0102030405060708);
    assert_int_equal(world_read(&w, 0xff00fffc, 4), 0x01020304);

    /* Saved, changed, loaded again. */
    struct mull_state_writer *writer;
    struct mull_state_reader *reader;
    struct mull_state_section section;
    size_t size;
    assert_int_equal(mull_state_writer_buffer(&writer, NULL), 0);
    assert_int_equal(
        mull_state_write(writer, device->name, 0, device->ops->state, device->object, NULL), 0);
    assert_int_equal(mull_state_write_end(writer, NULL), 0);
    const uint8_t *data = mull_state_writer_data(writer, &size);
    device->ops->reset(device);
    assert_false(w.line[23]);
    assert_int_equal(world_in(&w, 0xe0, 4), 0);
    assert_int_equal(mull_state_reader_buffer(data, size, &reader, NULL), 0);
    assert_int_equal(mull_state_next(reader, &section, NULL), 1);
    assert_int_equal(mull_state_read(reader, device->ops->state, device->object, NULL), 0);
    mull_state_reader_destroy(reader);
    mull_state_writer_destroy(writer);
    assert_true(w.line[23]);
    assert_int_equal(world_in(&w, 0xe0, 4), 0xaa223344);
    assert_int_equal(world_read(&w, 0xff00fffc, 4), 0x01020304);
}

static void test_pci(void **state)
{
    struct mull_pci_config pci = {.memory = w.env.memory,
                                  .ecam_base = 0xe0000000,
                                  .mmio_base = 0xc0000000,
                                  .mmio_size = 0x100000,
                                  .io_base = 0xc000,
                                  .io_size = 0x1000};
    struct mull_pci_bus *bus;
    struct mull_device *test;

    assert_int_equal(mull_pci_bus_create(&pci, &bus, NULL), 0);
    assert_int_equal(mull_pci_testdev_create(&w.env, bus, &test, NULL), 0);
    assert_int_equal(mull_pci_bus_assign(bus, NULL), 0);
    assert_int_equal(world_read(&w, 0xc0000001, 1), 0); /* nothing chosen */
    world_write(&w, 0xc0000000, 1, 2);
    uint64_t at = 0xc0000000 + world_read(&w, 0xc0000004, 4);
    world_write(&w, at, 1, world_read(&w, 0xc0000008, 4));
    world_write(&w, at, 1, 0); /* not the value that it waits for */
    world_write(&w, at, 4, world_read(&w, 0xc0000008, 4));
    assert_int_equal(world_read(&w, 0xc000000c, 4), 1);
    assert_int_equal(world_read(&w, 0xc0000010, 4), 0x6f696d6d); /* "mmio" */
    world_write(&w, 0xc0000000, 1, 200);
    assert_int_equal(world_read(&w, 0xc0000001, 1), 0);
    for (unsigned i = 0; i < 256; i++)
        world_out(&w, (uint16_t)(0xc000 + i), 1, i);
    test->ops->reset(test);
    test->ops->destroy(test);
    mull_pci_bus_destroy(bus);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {T(test_registers), T(test_pci)};
    return cmocka_run_group_tests_name("testdev", tests, NULL, NULL);
}
