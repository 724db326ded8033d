/* The UART as a driver sees it: registers, FIFOs, interrupts, loopback and back-pressure. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "device/devices.h"

#define PORT 0x3f8

struct fixture {
    struct mull_memory *memory;
    struct mull_chardev *chardev;
    struct mull_device *device;
    bool line;
    unsigned edges;
};

static void set_line(void *opaque, unsigned line, bool level)
{
    struct fixture *f = opaque;
    assert_int_equal(line, 4);
    if (level && !f->line)
        f->edges++;
    f->line = level;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct mull_error err;
    assert_int_equal(mull_memory_create(NULL, &f->memory, &err), 0);
    assert_int_equal(mull_chardev_memory_create(64, &f->chardev, &err), 0);
    const struct mull_device_env env = {.memory = f->memory};
    const struct mull_serial_config cfg = {
        .port = PORT, .irq = {set_line, f, 4}, .chardev = f->chardev};
    assert_int_equal(mull_serial_create(&env, &cfg, &f->device, &err), 0);
    assert_string_equal(f->device->name, "serial.3f8");
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    f->device->ops->destroy(f->device);
    mull_chardev_destroy(f->chardev);
    mull_memory_destroy(f->memory);
    free(f);
    return 0;
}

static uint8_t in(struct fixture *f, unsigned reg)
{
    return (uint8_t)mull_space_read(f->memory, MULL_SPACE_PORT, 0, PORT + reg, 1);
}

static void out(struct fixture *f, unsigned reg, uint8_t value)
{
    mull_space_write(f->memory, MULL_SPACE_PORT, 0, PORT + reg, 1, value);
}

static void assert_output(struct fixture *f, const char *text)
{
    char buf[128];
    size_t n = mull_chardev_memory_take(f->chardev, buf, sizeof(buf));
    assert_int_equal(n, strlen(text));
    assert_memory_equal(buf, text, n);
}

static void test_power_on(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(in(f, 1), 0);
    assert_int_equal(in(f, 2), 0x01);
    assert_int_equal(in(f, 5), 0x60);
    assert_int_equal(in(f, 6), 0xb0);
    assert_false(f->line);
}

static void test_divisor_is_kept(void **state)
{
    struct fixture *f = *state;
    out(f, 3, 0x83);
    out(f, 0, 0x0c);
    out(f, 1, 0x02);
    assert_int_equal(in(f, 0), 0x0c);
    assert_int_equal(in(f, 1), 0x02);
    out(f, 3, 0x03);
    assert_int_equal(in(f, 1), 0);
    assert_output(f, "");
    out(f, 7, 0x5a);
    assert_int_equal(in(f, 7), 0x5a);
}

static void test_polled_output(void **state)
{
    struct fixture *f = *state;
    for (const char *p = "hello"; *p; p++) {
        assert_int_equal(in(f, 5) & 0x20, 0x20);
        out(f, 0, (uint8_t)*p);
    }
    assert_output(f, "hello");
}

static void test_thre_interrupt(void **state)
{
    struct fixture *f = *state;
    out(f, 4, 0x08);
    out(f, 1, 0x02);
    assert_true(f->line);
    assert_int_equal(in(f, 2), 0x02);
    assert_false(f->line);
    assert_int_equal(in(f, 2), 0x01);
    out(f, 0, 'a');
    out(f, 0, 'b');
    assert_true(f->line);
    assert_int_equal(f->edges, 2);
    /* OUT2 gates the line. */
    out(f, 4, 0);
    assert_false(f->line);
    assert_output(f, "ab");
}

static void test_input_waits_for_a_driver(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(mull_chardev_memory_give(f->chardev, "x", 1), 0);
    out(f, 1, 0x0f); /* as Linux does to find out what UART this is */
    assert_int_equal(mull_chardev_memory_give(f->chardev, "x", 1), 0);
    out(f, 1, 0x01);
    out(f, 4, 0x08);
    assert_int_equal(mull_chardev_memory_give(f->chardev, "xy", 2), 1); /* no FIFO */
    assert_true(f->line);
    assert_int_equal(in(f, 2), 0x04);
    assert_int_equal(in(f, 5) & 1, 1);
    assert_int_equal(in(f, 0), 'x');
    assert_int_equal(in(f, 5) & 1, 0);
    assert_false(f->line);
}

static void test_input_for_a_polling_guest(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < 16; i++)
        assert_int_equal(in(f, 5), 0x60);
    assert_int_equal(mull_chardev_memory_give(f->chardev, "q", 1), 1);
    assert_int_equal(in(f, 5), 0x61);
    assert_int_equal(in(f, 0), 'q');
}

static void test_fifo_trigger_and_timeout(void **state)
{
    struct fixture *f = *state;
    out(f, 4, 0x08);
    out(f, 2, 0x81); /* FIFOs on, trigger at 8 */
    out(f, 1, 0x01);
    assert_int_equal(in(f, 2), 0xc1);
    assert_int_equal(mull_chardev_memory_give(f->chardev, "abc", 3), 3);
    assert_int_equal(in(f, 2), 0xcc);
    assert_int_equal(mull_chardev_memory_give(f->chardev, "defghijklmnopqrst", 17), 13);
    assert_int_equal(in(f, 2), 0xc4);
    for (int i = 0; i < 9; i++)
        assert_int_equal(in(f, 0), 'a' + i);
    assert_int_equal(in(f, 2), 0xcc);
    out(f, 2, 0x83); /* clear the receiver */
    assert_int_equal(in(f, 5) & 1, 0);
    assert_int_equal(in(f, 2), 0xc1);
    assert_false(f->line);
}

static void test_turning_fifos_on_keeps_input(void **state)
{
    struct fixture *f = *state;
    out(f, 4, 0x08);
    out(f, 1, 0x01);
    assert_int_equal(mull_chardev_memory_give(f->chardev, "k", 1), 1);
    out(f, 2, 0x01);
    assert_int_equal(in(f, 0), 'k');
    assert_int_equal(mull_chardev_memory_give(f->chardev, "l", 1), 1);
    out(f, 2, 0x00);
    assert_int_equal(in(f, 5) & 1, 0);
}

static void test_back_pressure(void **state)
{
    struct fixture *f = *state;
    out(f, 2, 0x01);
    out(f, 4, 0x08);
    for (int i = 0; i < 64; i++)
        out(f, 0, 'x');
    assert_int_equal(in(f, 5) & 0x60, 0x60);
    out(f, 0, 'y');
    assert_int_equal(in(f, 5) & 0x60, 0);
    out(f, 1, 0x02);
    assert_false(f->line);
    for (int i = 0; i < 40; i++) /* 15 more fit, the rest is lost */
        out(f, 0, 'z');
    char buf[64];
    assert_int_equal(mull_chardev_memory_take(f->chardev, buf, 64), 64);
    assert_true(f->line);
    assert_int_equal(in(f, 5) & 0x60, 0x60);
    assert_output(f, "yzzzzzzzzzzzzzzz");
}

static void test_loopback(void **state)
{
    struct fixture *f = *state;
    out(f, 2, 0x01);
    out(f, 4, 0x1f);
    assert_int_equal(in(f, 6) & 0xf0, 0xf0);
    out(f, 4, 0x10);
    assert_int_equal(in(f, 6), 0x0f); /* all four lines fell */
    assert_int_equal(in(f, 6), 0x00);
    for (int i = 0; i < 17; i++)
        out(f, 0, (uint8_t)i);
    assert_int_equal(in(f, 5), 0x63); /* data and overrun */
    assert_int_equal(in(f, 5), 0x61);
    for (int i = 0; i < 16; i++)
        assert_int_equal(in(f, 0), i);
    assert_int_equal(in(f, 5), 0x60);
    assert_output(f, "");
}

static void test_line_status_comes_first(void **state)
{
    struct fixture *f = *state;
    out(f, 1, 0x0f);
    out(f, 4, 0x10);
    assert_int_equal(in(f, 2), 0x02);
    out(f, 0, 'a');
    assert_int_equal(in(f, 2), 0x04);
    out(f, 0, 'b'); /* no FIFO: overrun */
    assert_int_equal(in(f, 2), 0x06);
    in(f, 5);
    assert_int_equal(in(f, 2), 0x04);
    in(f, 0);
    assert_int_equal(in(f, 2), 0x02);
    assert_int_equal(in(f, 2), 0x00); /* the modem lines changed */
    in(f, 6);
    assert_int_equal(in(f, 2), 0x01);
}

static void test_reset_drops_everything(void **state)
{
    struct fixture *f = *state;
    out(f, 2, 0x01);
    out(f, 4, 0x08);
    out(f, 1, 0x03);
    mull_chardev_memory_give(f->chardev, "abc", 3);
    assert_true(f->line);
    f->device->ops->reset(f->device);
    assert_false(f->line);
    assert_int_equal(in(f, 1), 0);
    assert_int_equal(in(f, 2), 0x01);
    assert_int_equal(in(f, 5), 0x60);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(test_power_on),
        T(test_divisor_is_kept),
        T(test_polled_output),
        T(test_thre_interrupt),
        T(test_input_waits_for_a_driver),
        T(test_input_for_a_polling_guest),
        T(test_fifo_trigger_and_timeout),
        T(test_turning_fifos_on_keeps_input),
        T(test_back_pressure),
        T(test_loopback),
        T(test_line_status_comes_first),
        T(test_reset_drops_everything),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
