/* Unit tests of the 8259A pair and the I/O APIC: priorities, edges and levels, EOI, masking. */
#include "platform_world.h"

#include "platform/ioapic.h"
#include "platform/pic.h"

#define IOAPIC 0xfec00000ull

struct chips {
    struct world w;
    struct mull_pic *pic;
    struct mull_ioapic *ioapic;
    bool intr;
    unsigned outputs;
    uint64_t level_vectors[4];
};

static void on_output(void *opaque, bool level)
{
    struct chips *c = opaque;

    c->intr = level;
    c->outputs++;
}

static void on_level_vectors(void *opaque, const uint64_t vectors[4])
{
    memcpy(((struct chips *)opaque)->level_vectors, vectors, 32);
}

/* As Linux and BIOSes do it: vectors 30h and 38h. */
static void init_pics(struct chips *c, uint8_t icw4)
{
    static const uint8_t icw[2][3] = {{0x11, 0x30, 4}, {0x11, 0x38, 2}};

    for (unsigned i = 0; i < 2; i++) {
        uint16_t port = i ? 0xa0 : 0x20;
        world_out(&c->w, port, 1, icw[i][0]);
        world_out(&c->w, port + 1, 1, icw[i][1]);
        world_out(&c->w, port + 1, 1, icw[i][2]);
        world_out(&c->w, port + 1, 1, icw4);
        world_out(&c->w, port + 1, 1, 0);
    }
}

static int setup(void **state)
{
    static struct chips c;

    memset(&c, 0, sizeof(c));
    world_make(&c.w);
    const struct mull_pic_config pic = {
        .memory = c.w.env.memory, .opaque = &c, .output = on_output};
    const struct mull_ioapic_config ioapic = {
        .memory = c.w.env.memory,
        .base = IOAPIC,
        .msi = {.send = world_msi, .opaque = &c.w},
        .opaque = &c,
        .level_vectors = on_level_vectors,
    };
    assert_int_equal(mull_pic_create(&pic, &c.pic, NULL), 0);
    assert_int_equal(mull_ioapic_create(&ioapic, &c.ioapic, NULL), 0);
    *state = &c;
    return 0;
}

static int teardown(void **state)
{
    struct chips *c = *state;
    struct mull_device *pic = mull_pic_device(c->pic), *io = mull_ioapic_device(c->ioapic);

    pic->ops->destroy(pic);
    io->ops->destroy(io);
    world_free(&c->w);
    return 0;
}

static void test_pic_priorities(void **state)
{
    struct chips *c = *state;

    mull_pic_set(c->pic, 4, true);
    assert_int_equal(mull_pic_pending(c->pic), -1); /* masked after reset */
    mull_pic_set(c->pic, 4, false);
    init_pics(c, 1);
    assert_int_equal(mull_pic_accept(c->pic), -1);
    mull_pic_set(c->pic, 4, true);
    assert_true(c->intr);
    mull_pic_set(c->pic, 3, true);
    mull_pic_set(c->pic, 2, true); /* the cascade is not an input */
    assert_int_equal(mull_pic_accept(c->pic), 0x33);
    assert_false(c->intr);         /* 4 has to wait for 3 */
    mull_pic_set(c->pic, 9, true); /* through the cascade: before 3 */
    assert_int_equal(mull_pic_pending(c->pic), 0x39);
    assert_int_equal(mull_pic_accept(c->pic), 0x39);
    mull_pic_set(c->pic, 0, true);
    assert_int_equal(mull_pic_accept(c->pic), 0x30);
    world_out(&c->w, 0x20, 1, 0x0b); /* read ISR */
    assert_int_equal(world_in(&c->w, 0x20, 1), 0x0d);
    world_out(&c->w, 0x20, 1, 0x0a);
    assert_int_equal(world_in(&c->w, 0x20, 1), 0x10);
    world_out(&c->w, 0x20, 1, 0x20); /* EOI of 0, then of 2 */
    world_out(&c->w, 0xa0, 1, 0x20);
    world_out(&c->w, 0x20, 1, 0x20);
    assert_int_equal(mull_pic_pending(c->pic), -1);
    world_out(&c->w, 0x20, 1, 0x63); /* specific, of 3 */
    assert_int_equal(mull_pic_accept(c->pic), 0x34);
    world_out(&c->w, 0x20, 1, 0x20);
    assert_int_equal(mull_pic_pending(c->pic), -1); /* an edge, though still high */
}

static void test_pic_masks_levels_modes(void **state)
{
    struct chips *c = *state;

    init_pics(c, 1);
    world_out(&c->w, 0x21, 1, 0x20);
    assert_int_equal(world_in(&c->w, 0x21, 1), 0x20);
    mull_pic_set(c->pic, 5, true);
    assert_int_equal(mull_pic_pending(c->pic), -1);
    world_out(&c->w, 0x21, 1, 0);
    assert_int_equal(mull_pic_pending(c->pic), 0x35);
    mull_pic_set(c->pic, 5, false);
    assert_int_equal(mull_pic_accept(c->pic), 0x35); /* latched */
    world_out(&c->w, 0x20, 1, 0x20);

    world_out(&c->w, 0x4d0, 1, 0xff);
    world_out(&c->w, 0x4d1, 1, 0xff);
    assert_int_equal(world_in(&c->w, 0x4d0, 2), 0xdef8);
    mull_pic_set(c->pic, 10, true);
    assert_int_equal(mull_pic_accept(c->pic), 0x3a);
    world_out(&c->w, 0xa0, 1, 0x20);
    world_out(&c->w, 0x20, 1, 0x20);
    assert_int_equal(mull_pic_pending(c->pic), 0x3a); /* still asserted */
    mull_pic_set(c->pic, 10, false);
    assert_int_equal(mull_pic_pending(c->pic), -1);

    world_out(&c->w, 0x20, 1, 0xc3); /* 3 has the lowest priority: 4 comes first */
    mull_pic_set(c->pic, 3, true);
    mull_pic_set(c->pic, 4, true);
    assert_int_equal(mull_pic_pending(c->pic), 0x34);
    world_out(&c->w, 0x20, 1, 0x0c); /* poll */
    assert_int_equal(world_in(&c->w, 0x20, 1), 0x84);
    world_out(&c->w, 0x20, 1, 0x20);
    mull_pic_set(c->pic, 4, false);

    init_pics(c, 3); /* automatic EOI */
    mull_pic_set(c->pic, 0, true);
    assert_int_equal(mull_pic_accept(c->pic), 0x30);
    world_out(&c->w, 0x20, 1, 0x0b);
    assert_int_equal(world_in(&c->w, 0x20, 1), 0);
}

static void entry(struct chips *c, unsigned pin, uint64_t value)
{
    world_write(&c->w, IOAPIC, 4, 0x11 + 2 * pin);
    world_write(&c->w, IOAPIC + 0x10, 4, value >> 32);
    world_write(&c->w, IOAPIC, 4, 0x10 + 2 * pin);
    world_write(&c->w, IOAPIC + 0x10, 4, (uint32_t)value);
}

static uint32_t low(struct chips *c, unsigned pin)
{
    world_write(&c->w, IOAPIC, 4, 0x10 + 2 * pin);
    return (uint32_t)world_read(&c->w, IOAPIC + 0x10, 4);
}

static void test_ioapic_edge(void **state)
{
    struct chips *c = *state;

    world_write(&c->w, IOAPIC, 4, 1);
    assert_int_equal(world_read(&c->w, IOAPIC + 0x10, 4), 0x00170020);
    assert_int_equal(low(c, 3), 0x10000);
    entry(c, 3, 0x10041);
    mull_ioapic_set(c->ioapic, 3, true); /* masked: lost */
    entry(c, 3, 5ull << 56 | 0x41);
    assert_int_equal(c->w.msis, 0);
    mull_ioapic_set(c->ioapic, 3, true); /* no edge */
    assert_int_equal(c->w.msis, 0);
    mull_ioapic_set(c->ioapic, 3, false);
    mull_ioapic_set(c->ioapic, 3, true);
    assert_int_equal(c->w.msis, 1);
    assert_int_equal(c->w.msi_address, 0xfee05000);
    assert_int_equal(c->w.msi_data, 0x41);
    entry(c, 4, 0xfull << 56 | 0x900 | 0x42); /* logical, lowest priority */
    mull_ioapic_set(c->ioapic, 4, true);
    assert_int_equal(c->w.msi_address, 0xfee0f004);
    assert_int_equal(c->w.msi_data, 0x142);
    mull_ioapic_set(c->ioapic, 24, true); /* no such pin */
    assert_int_equal(c->w.msis, 2);
    assert_true((c->level_vectors[0] | c->level_vectors[1]) == 0);
}

static void test_ioapic_level(void **state)
{
    struct chips *c = *state;

    entry(c, 17, 0x8000 | 0x61);
    assert_true(c->level_vectors[1] == 1ull << 33);
    mull_ioapic_set(c->ioapic, 17, true);
    assert_int_equal(c->w.msis, 1);
    assert_int_equal(c->w.msi_data, 0xc061);
    assert_int_equal(low(c, 17) & 0x4000, 0x4000); /* remote IRR */
    mull_ioapic_set(c->ioapic, 17, false);
    mull_ioapic_set(c->ioapic, 17, true);
    assert_int_equal(c->w.msis, 1); /* until the EOI */
    mull_ioapic_eoi(c->ioapic, 0x62);
    assert_int_equal(c->w.msis, 1);
    mull_ioapic_eoi(c->ioapic, 0x61);
    assert_int_equal(c->w.msis, 2); /* still asserted */
    mull_ioapic_set(c->ioapic, 17, false);
    world_write(&c->w, IOAPIC + 0x40, 4, 0x61); /* directed EOI */
    assert_int_equal(c->w.msis, 2);
    assert_int_equal(low(c, 17) & 0x4000, 0);
    entry(c, 17, 0x18000 | 0x61);
    mull_ioapic_set(c->ioapic, 17, true);
    assert_int_equal(c->w.msis, 2);
    entry(c, 17, 0x8000 | 0x61); /* unmasked while asserted: levels are not lost */
    assert_int_equal(c->w.msis, 3);
    entry(c, 17, 0x10061); /* an edge now: remote IRR goes */
    assert_int_equal(low(c, 17), 0x10061);
    assert_true(c->level_vectors[1] == 0);
}

static void test_bad_state(void **state)
{
    struct chips *c = *state;
    struct mull_device *pic = mull_pic_device(c->pic), *io = mull_ioapic_device(c->ioapic);

    /* Whatever a saved file held, what comes of it is a state the chip can be in. */
    for (const struct mull_field *f = io->ops->state->fields; f->name; f++)
        memset((char *)io->object + f->offset, 0xff, (size_t)f->size * f->count);
    assert_int_equal(io->ops->state->after_load(io->object, 1, NULL), 0);
    assert_int_equal(low(c, 0) & 0x1000, 0);
    mull_ioapic_set(c->ioapic, 0, false);
    mull_ioapic_eoi(c->ioapic, 0xff);
    for (const struct mull_field *f = pic->ops->state->fields; f->name; f++)
        memset((char *)pic->object + f->offset, 0xff, (size_t)f->size * f->count);
    assert_int_equal(pic->ops->state->after_load(pic->object, 1, NULL), 0);
    mull_pic_accept(c->pic);
    init_pics(c, 1);
    mull_pic_set(c->pic, 1, false);
    mull_pic_set(c->pic, 1, true);
    assert_int_equal(mull_pic_accept(c->pic), 0x31);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_pic_priorities), T(test_pic_masks_levels_modes),
        T(test_ioapic_edge),    T(test_ioapic_level),
        T(test_bad_state),
    };
    return cmocka_run_group_tests_name("irqchip", tests, NULL, NULL);
}
