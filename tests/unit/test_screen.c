/* VGA (registers, text, planes, linear modes) and the keyboard controller with keyboard and mouse.
 */
#include "platform_world.h"

#include <stdlib.h>

#include "device/display/vga.h"
#include "device/legacy/i8042.h"

static struct world world;
static struct mull_pci_bus *bus;
static struct mull_vga *vga;
static struct mull_i8042 *keyboard;
static unsigned resets;

static void on_reset(void *opaque)
{
    resets++;
}

static int setup(void **state)
{
    const struct mull_vga_config vga_config = {0};
    struct mull_pci_config config = {
        .ecam_base = 0xe0000000, .mmio_base = 0xc0000000, .mmio_size = 0x20000000};
    struct mull_i8042_config keys = {.reset = on_reset};

    world_make(&world);
    config.memory = world.env.memory;
    resets = 0;
    keys.keyboard = world_irq(&world, 1);
    keys.mouse = world_irq(&world, 12);
    assert_int_equal(mull_pci_bus_create(&config, &bus, NULL), 0);
    assert_int_equal(mull_vga_create(&world.env, bus, &vga_config, &vga, NULL), 0);
    assert_int_equal(mull_i8042_create(&world.env, &keys, &keyboard, NULL), 0);
    assert_int_equal(mull_pci_bus_assign(bus, NULL), 0);
    *state = &world;
    return 0;
}

static int teardown(void **state)
{
    mull_vga_device(vga)->ops->destroy(mull_vga_device(vga));
    mull_i8042_device(keyboard)->ops->destroy(mull_i8042_device(keyboard));
    mull_pci_bus_destroy(bus);
    world_free(&world);
    return 0;
}

/* ---- VGA ---- */

static void indexed(struct world *w, uint16_t port, uint8_t index, uint8_t value)
{
    world_out(w, port, 2, (uint32_t)(value << 8 | index));
}

/* As a BIOS sets mode 3 up, as far as it shows. */
static void text_mode(struct world *w)
{
    world_out(w, 0x3c2, 1, 0x67);
    indexed(w, 0x3c4, 1, 0x01); /* 8 dots */
    indexed(w, 0x3c4, 2, 0x03);
    indexed(w, 0x3c4, 4, 0x02);
    indexed(w, 0x3ce, 5, 0x10);
    indexed(w, 0x3ce, 6, 0x0e);
    indexed(w, 0x3d4, 0x11, 0);
    indexed(w, 0x3d4, 1, 79);
    indexed(w, 0x3d4, 9, 15);
    indexed(w, 0x3d4, 7, 0x02);
    indexed(w, 0x3d4, 0x12, 0x8f);
    indexed(w, 0x3d4, 0x13, 40);
    indexed(w, 0x3d4, 0x0a, 0x20);
    world_in(w, 0x3da, 1);
    for (unsigned i = 0; i < 16; i++) {
        world_out(w, 0x3c0, 1, i);
        world_out(w, 0x3c0, 1, i);
    }
    world_out(w, 0x3c0, 1, 0x20); /* the screen is on */
    world_out(w, 0x3c8, 1, 7);
    for (unsigned i = 0; i < 3; i++)
        world_out(w, 0x3c9, 1, 42);
}

static void put_text(struct world *w, unsigned cell, const char *text)
{
    for (; *text; text++, cell++)
        world_write(w, 0xb8000 + 2 * cell, 2, 0x0700u | (uint8_t)*text);
}

static void test_text(void **state)
{
    struct world *w = *state;
    static uint32_t pixels[640 * 400];
    char text[8192];
    unsigned width, height;

    text_mode(w);
    for (unsigned i = 0; i < 80 * 25; i++)
        world_write(w, 0xb8000 + 2 * i, 2, 0x0720);
    put_text(w, 0, "Hello");
    put_text(w, 80 * 24 + 70, "\xc9\xcd\xbb and out");
    assert_int_equal(world_read(w, 0xb8000, 4), 0x07650748);
    mull_vga_size(vga, &width, &height);
    assert_int_equal(width, 640);
    assert_int_equal(height, 400);
    assert_true(mull_vga_text(vga, text, sizeof(text)) > 0);
    assert_memory_equal(text, "Hello\n\n\n", 8);
    assert_non_null(strstr(text, "\u2554\u2550\u2557 and ou"));
    /* A character's dots come from plane 2. */
    indexed(w, 0x3c4, 2, 0x04);
    indexed(w, 0x3c4, 4, 0x06);
    indexed(w, 0x3ce, 5, 0x00);
    indexed(w, 0x3ce, 6, 0x04);
    indexed(w, 0x3ce, 8, 0xff);
    world_write(w, 0xa0000 + 32 * 'H', 1, 0x81);
    indexed(w, 0x3ce, 6, 0x0e);
    uint64_t before = mull_vga_changes(vga);
    assert_true(mull_vga_render(vga, pixels, sizeof(pixels) / 4, &width, &height));
    assert_int_equal(pixels[0], 0xaaaaaa);
    assert_int_equal(pixels[1], 0);
    assert_int_equal(pixels[7], 0xaaaaaa);
    assert_int_equal(mull_vga_changes(vga), before);
    assert_false(mull_vga_render(vga, pixels, 100, &width, &height));
    char small[10];
    assert_true(mull_vga_text(vga, small, sizeof(small)) < 10);
}

static void dispi(struct world *w, unsigned index, unsigned value)
{
    world_out(w, 0x1ce, 2, index);
    world_out(w, 0x1cf, 2, value);
}

static unsigned dispi_get(struct world *w, unsigned index)
{
    world_out(w, 0x1ce, 2, index);
    return world_in(w, 0x1cf, 2);
}

static void test_linear(void **state)
{
    struct world *w = *state;
    static uint32_t pixels[800 * 600];
    unsigned width, height;
    uint64_t memory = world_read(w, 0xe0000000 + (1 << 15) + 0x10, 4) & ~15u;
    uint64_t registers = world_read(w, 0xe0000000 + (1 << 15) + 0x18, 4) & ~15u;

    assert_int_equal(dispi_get(w, 0), 0xb0c5);
    assert_int_equal(dispi_get(w, 10), 256);
    dispi(w, 4, 2);
    assert_int_equal(dispi_get(w, 1), MULL_VGA_MAX_WIDTH);
    dispi(w, 4, 0);
    dispi(w, 1, 800);
    dispi(w, 2, 600);
    dispi(w, 3, 32);
    dispi(w, 4, 0x41);
    mull_vga_size(vga, &width, &height);
    assert_int_equal(width, 800);
    assert_int_equal(height, 600);
    world_write(w, memory + 4 * (800 * 2 + 3), 4, 0xff123456);
    assert_true(mull_vga_render(vga, pixels, 800 * 600, &width, &height));
    assert_int_equal(pixels[800 * 2 + 3], 0x123456);
    dispi(w, 9, 2); /* panned down */
    assert_true(mull_vga_render(vga, pixels, 800 * 600, &width, &height));
    assert_int_equal(pixels[3], 0x123456);
    assert_int_equal(world_read(w, registers + 0x502, 2), 800);
    assert_int_equal(mull_vga_text(vga, (char[16]){0}, 16), -1);
    /* What does not fit is bounded. */
    dispi(w, 4, 0);
    dispi(w, 1, 0xffff);
    dispi(w, 2, 0xffff);
    dispi(w, 4, 1);
    dispi(w, 6, 0xffff);
    dispi(w, 8, 0xffff);
    dispi(w, 9, 0xffff);
    mull_vga_size(vga, &width, &height);
    assert_int_equal(width, MULL_VGA_MAX_WIDTH);
    assert_int_equal(height, MULL_VGA_MAX_HEIGHT);
    uint32_t *large = malloc(4ul * width * height);
    assert_true(mull_vga_render(vga, large, (size_t)width * height, &width, &height));
    free(large);
}

static void test_planes(void **state)
{
    struct world *w = *state;

    world_out(w, 0x3c2, 1, 0x67);
    indexed(w, 0x3ce, 6, 0x05);
    indexed(w, 0x3c4, 2, 0x0f);
    indexed(w, 0x3ce, 8, 0xff);
    indexed(w, 0x3ce, 5, 2); /* write mode 2: a colour */
    world_write(w, 0xa0000, 1, 0x0a);
    indexed(w, 0x3ce, 5, 0);
    for (unsigned i = 0; i < 4; i++) {
        indexed(w, 0x3ce, 4, (uint8_t)i);
        assert_int_equal(world_read(w, 0xa0000, 1), 0x0a >> i & 1 ? 0xff : 0);
    }
    indexed(w, 0x3ce, 5, 8); /* read mode 1: where is colour 10? */
    indexed(w, 0x3ce, 2, 0x0a);
    indexed(w, 0x3ce, 7, 0x0f);
    assert_int_equal(world_read(w, 0xa0000, 1), 0xff);
    indexed(w, 0x3ce, 5, 0);
    indexed(w, 0x3ce, 3, 0x18); /* XOR with the latches */
    world_read(w, 0xa0000, 1);
    world_write(w, 0xa0000, 1, 0xf0);
    indexed(w, 0x3ce, 4, 1);
    assert_int_equal(world_read(w, 0xa0000, 1), 0x0f);
}

/* ---- Keyboard controller ---- */

static unsigned next(struct world *w)
{
    return world_in(w, 0x64, 1) & 1 ? world_in(w, 0x60, 1) : 0x1000;
}

static void test_keyboard(void **state)
{
    struct world *w = *state;

    world_out(w, 0x64, 1, 0xaa);
    assert_int_equal(next(w), 0x55);
    world_out(w, 0x64, 1, 0x60);
    world_out(w, 0x60, 1, 0x45); /* interrupts, translation */
    world_out(w, 0x60, 1, 0xff);
    assert_true(w->line[1]);
    assert_int_equal(next(w), 0xfa);
    assert_int_equal(next(w), 0xaa);
    assert_int_equal(next(w), 0x1000);
    assert_false(w->line[1]);
    mull_i8042_key(keyboard, 0x1e, true);
    mull_i8042_key(keyboard, 0x148, false);
    assert_int_equal(next(w), 0x1e);
    assert_int_equal(next(w), 0xe0);
    assert_int_equal(next(w), 0xc8);
    mull_i8042_key(keyboard, MULL_KEY_PAUSE, true);
    static const uint8_t pause[] = {0xe1, 0x1d, 0x45, 0xe1, 0x9d, 0xc5};
    for (unsigned i = 0; i < sizeof(pause); i++)
        assert_int_equal(next(w), pause[i]);
    /* Without translation the guest sees set 2. */
    world_out(w, 0x64, 1, 0x60);
    world_out(w, 0x60, 1, 0x05);
    mull_i8042_key(keyboard, 0x1e, true);
    mull_i8042_key(keyboard, 0x1e, false);
    assert_int_equal(next(w), 0x1c);
    assert_int_equal(next(w), 0xf0);
    assert_int_equal(next(w), 0x1c);
    /* More keys than fit are lost, whole ones. */
    for (unsigned i = 0; i < 100; i++)
        mull_i8042_key(keyboard, 0x14b, true);
    unsigned bytes = 0;
    while (next(w) != 0x1000)
        bytes++;
    assert_int_equal(bytes % 2, 0);
    world_out(w, 0x60, 1, 0x33);
    assert_int_equal(next(w), 0xfe);
    world_out(w, 0x64, 1, 0xfe);
    assert_int_equal(resets, 1);
}

/* The controller itself, as it is also without anything plugged in. */
static void check_controller(struct world *w, unsigned resets_before)
{
    world_out(w, 0x64, 1, 0xaa); /* self-test, configuration byte */
    assert_int_equal(world_in(w, 0x64, 1) & 1, 1);
    assert_int_equal(world_in(w, 0x60, 1), 0x55);
    assert_int_equal(world_in(w, 0x64, 1) & 1, 0);
    world_out(w, 0x64, 1, 0x60);
    world_out(w, 0x60, 1, 0x30); /* both ports off */
    world_out(w, 0x64, 1, 0x20);
    assert_int_equal(next(w), 0x30);
    world_out(w, 0x64, 1, 0xd2); /* loops pass those all the same */
    world_out(w, 0x60, 1, 0x5a);
    assert_int_equal(world_in(w, 0x64, 1) & 0x21, 0x01);
    assert_int_equal(next(w), 0x5a);
    world_out(w, 0x64, 1, 0xd3);
    world_out(w, 0x60, 1, 0xa5);
    assert_int_equal(world_in(w, 0x64, 1) & 0x21, 0x21);
    assert_int_equal(next(w), 0xa5);
    /* The A20 gate, by each of its commands. */
    world_out(w, 0x64, 1, 0xd0);
    assert_int_equal(next(w), 0x03);
    world_out(w, 0x64, 1, 0xd1);
    world_out(w, 0x60, 1, 0xdd);
    assert_false(mull_memory_a20(w->env.memory));
    world_out(w, 0x64, 1, 0xd0);
    assert_int_equal(next(w), 0xdd);
    world_out(w, 0x64, 1, 0xd1);
    world_out(w, 0x60, 1, 0xdf);
    assert_true(mull_memory_a20(w->env.memory));
    world_out(w, 0x64, 1, 0xdd);
    assert_false(mull_memory_a20(w->env.memory));
    world_out(w, 0x64, 1, 0xdf);
    assert_true(mull_memory_a20(w->env.memory));
    assert_int_equal(resets, resets_before);
    world_out(w, 0x64, 1, 0xd1);
    world_out(w, 0x60, 1, 0xde);
    assert_int_equal(resets, resets_before + 1);
    world_out(w, 0x64, 1, 0xfe);
    assert_int_equal(resets, resets_before + 2);
}

static void test_controller(void **state)
{
    struct world *w = *state;
    struct mull_i8042_config bare = {.bare = true, .reset = on_reset};
    struct mull_i8042 *k;

    check_controller(w, resets);
    assert_int_equal(mull_i8042_create(&w->env, &bare, &k, NULL), 0); /* over the other one */
    check_controller(w, resets);
    world_out(w, 0x64, 1, 0x60);
    world_out(w, 0x60, 1, 0x47);
    world_out(w, 0x60, 1, 0xff); /* nobody answers */
    assert_int_equal(next(w), 0x1000);
    world_out(w, 0x64, 1, 0xd4);
    world_out(w, 0x60, 1, 0xff);
    assert_int_equal(next(w), 0x1000);
    mull_i8042_device(k)->ops->destroy(mull_i8042_device(k));
}

static void to_mouse(struct world *w, uint8_t byte)
{
    world_out(w, 0x64, 1, 0xd4);
    world_out(w, 0x60, 1, byte);
    assert_int_equal(world_in(w, 0x64, 1) & 0x21, 0x21);
    assert_int_equal(next(w), 0xfa);
}

static void test_mouse(void **state)
{
    struct world *w = *state;
    static const uint8_t knock[] = {200, 100, 80};

    world_out(w, 0x64, 1, 0x60);
    world_out(w, 0x60, 1, 0x47);
    to_mouse(w, 0xf4);
    mull_i8042_mouse(keyboard, 5, 3, 0, 1);
    assert_true(w->line[12]);
    assert_int_equal(next(w), 0x29);
    assert_int_equal(next(w), 5);
    assert_int_equal(next(w), 0xfd); /* up is positive */
    assert_int_equal(next(w), 0x1000);
    for (unsigned i = 0; i < 3; i++) {
        to_mouse(w, 0xf3);
        to_mouse(w, knock[i]);
    }
    to_mouse(w, 0xf2);
    assert_int_equal(next(w), 3); /* a wheel */
    mull_i8042_mouse(keyboard, 0, 0, 1, 1);
    assert_int_equal(next(w), 0x09);
    next(w);
    next(w);
    assert_int_equal(next(w), 1);
    for (unsigned i = 0; i < 1000; i++)
        mull_i8042_mouse(keyboard, 30000, -30000, 100, i);
    while (next(w) != 0x1000)
        ;
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_text),     T(test_linear),     T(test_planes),
        T(test_keyboard), T(test_controller), T(test_mouse),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
