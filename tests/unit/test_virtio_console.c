/* The virtio console and the entropy device, driven as a guest's drivers would. */
#include "virtio_driver.h"

#include <errno.h>
#include <linux/virtio_console.h>
#include <unistd.h>

#define ALL (~0ull)
enum { RX, TX };
#define BUFFER(i) (DRV_DATA + 0x4000u * (i))

struct fixture {
    struct drv drv; /* must be first */
    struct mull_chardev *chardev;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct mull_error err = {0};
    drv_init(&f->drv);
    assert_int_equal(mull_chardev_memory_create(6000, &f->chardev, &err), 0);
    const struct mull_virtio_console_config cfg = {
        .name = "virtio-console.0", .devfn = -1, .chardev = f->chardev};
    assert_int_equal(
        mull_virtio_console_create(&f->drv.env, f->drv.bus, &cfg, &f->drv.device, &err), 0);
    drv_find(&f->drv);
    *state = f;
    return 0;
}

static int setup_rng(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct mull_error err = {0};
    drv_init(&f->drv);
    const struct mull_virtio_rng_config cfg = {
        .name = "virtio-rng.0", .devfn = -1, .bytes_per_second = 20000};
    assert_int_equal(mull_virtio_rng_create(&f->drv.env, f->drv.bus, &cfg, &f->drv.device, &err),
                     0);
    drv_find(&f->drv);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    f->drv.device->ops->destroy(f->drv.device);
    f->drv.device = NULL;
    mull_chardev_destroy(f->chardev);
    drv_fini(&f->drv);
    free(f);
    return 0;
}

static void test_output(void **state)
{
    struct fixture *f = *state;
    struct drv *d = &f->drv;
    const struct drv_seg segs[2] = {{BUFFER(0), 5, false}, {BUFFER(1), 6, false}};
    char text[16] = "";
    uint32_t id, len;
    drv_start(d, ALL, 2, 16);
    mull_mem_write(d->memory, BUFFER(0), "hello", 5);
    mull_mem_write(d->memory, BUFFER(1), " world", 6);
    drv_add(d, TX, segs, 2);
    drv_kick(d, TX);
    assert_true(drv_used(d, TX, &id, &len));
    assert_int_equal(mull_chardev_memory_take(f->chardev, text, sizeof(text)), 11);
    assert_string_equal(text, "hello world");
    const struct drv_seg lost = {DRV_RAM, 5, false};
    drv_add(d, TX, &lost, 1);
    drv_kick(d, TX);
    assert_true(drv_used(d, TX, &id, &len));
    drv_assert_fine(d);
}

static void test_output_waits_for_the_back_end(void **state)
{
    struct fixture *f = *state;
    struct drv *d = &f->drv;
    const struct drv_seg seg = {BUFFER(0), 16000, false};
    static uint8_t got[16000];
    uint32_t id, len;
    size_t total = 0;
    drv_start(d, ALL, 2, 16);
    for (unsigned i = 0; i < 16000; i += 2)
        drv_poke16(d, BUFFER(0) + i, (uint16_t)i);
    drv_add(d, TX, &seg, 1);
    drv_kick(d, TX);
    assert_false(drv_used(d, TX, &id, &len));
    for (unsigned i = 0; i < 10 && total < sizeof(got); i++) {
        total += mull_chardev_memory_take(f->chardev, got + total, sizeof(got) - total);
        drv_turn(d);
    }
    assert_int_equal(total, 16000);
    assert_true(drv_used(d, TX, &id, &len));
    for (unsigned i = 0; i < 16000; i += 2)
        assert_int_equal(got[i] | got[i + 1] << 8, i);
    /* What was printed half is forgotten by a reset. */
    drv_add(d, TX, &seg, 1);
    drv_kick(d, TX);
    drv_start(d, ALL, 2, 16);
    mull_chardev_memory_take(f->chardev, got, sizeof(got));
    mull_mem_write(d->memory, BUFFER(0), "x", 1);
    const struct drv_seg one = {BUFFER(0), 1, false};
    drv_add(d, TX, &one, 1);
    drv_kick(d, TX);
    assert_int_equal(mull_chardev_memory_take(f->chardev, got, sizeof(got)), 1);
    assert_int_equal(got[0], 'x');
}

static void test_input(void **state)
{
    struct fixture *f = *state;
    struct drv *d = &f->drv;
    const struct drv_seg small = {BUFFER(0), 3, true}, empty = {BUFFER(1), 0, true},
                         large = {BUFFER(1), 100, true};
    uint32_t id, len;
    assert_int_equal(mull_chardev_memory_give(f->chardev, "early", 5), 0);
    drv_start(d, ALL, 2, 16);
    assert_int_equal(mull_chardev_memory_give(f->chardev, "early", 5), 0);
    drv_add(d, RX, &small, 1);
    drv_add(d, RX, &empty, 1);
    drv_add(d, RX, &large, 1);
    assert_int_equal(mull_chardev_memory_give(f->chardev, "keys!", 5), 5);
    assert_true(drv_used(d, RX, &id, &len));
    assert_int_equal(len, 3);
    assert_int_equal(drv_peek8(d, BUFFER(0) + 2), 'y');
    assert_true(drv_used(d, RX, &id, &len));
    assert_int_equal(len, 0);
    assert_true(drv_used(d, RX, &id, &len));
    assert_int_equal(len, 2);
    assert_int_equal(drv_peek8(d, BUFFER(1)), 's');
    assert_true(d->messages[1] > 0);
    assert_int_equal(mull_chardev_memory_give(f->chardev, "more", 4), 0);
    if (d->queues[RX].packed)
        return; /* heads are those of split rings */
    drv_offer(d, RX, 77);
    assert_int_equal(mull_chardev_memory_give(f->chardev, "more", 4), 0);
    drv_assert_broken(d);
}

static void test_emergency_write(void **state)
{
    struct fixture *f = *state;
    struct drv *d = &f->drv;
    char text[8] = "";
    assert_true(drv_offered(d) & 1 << 2);
    drv_write(d, d->config + 8, 4, 'P');
    drv_write(d, d->config + 8, 4, 0x100 + '!');
    drv_write(d, d->config + 4, 4, 99);
    assert_int_equal(mull_chardev_memory_take(f->chardev, text, sizeof(text)), 2);
    assert_string_equal(text, "P!");
    assert_int_equal(drv_read(d, d->config + 4, 4), 1);
    assert_int_equal(drv_read(d, d->config + 8, 4), 0);
}

/* ---- Named ports ---- */

enum { CTRL_RX = 2, CTRL_TX, RX1, TX1 };

static int setup_channels(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct mull_error err = {0};
    drv_init(&f->drv);
    assert_int_equal(mull_chardev_memory_create(6000, &f->chardev, &err), 0);
    struct mull_virtio_console_config cfg = {
        .name = "virtio-console.0", .devfn = -1, .nchannels = 2};
    cfg.channels[0].name = "org.example.agent";
    cfg.channels[0].chardev = f->chardev;
    cfg.channels[1].name = "";
    assert_int_equal(
        mull_virtio_console_create(&f->drv.env, f->drv.bus, &cfg, &f->drv.device, &err), -EINVAL);
    cfg.channels[1].name = "org.example.other";
    assert_int_equal(
        mull_virtio_console_create(&f->drv.env, f->drv.bus, &cfg, &f->drv.device, &err), 0);
    drv_find(&f->drv);
    *state = f;
    return 0;
}

static void tell(struct drv *d, uint32_t id, uint16_t event, uint16_t value)
{
    const struct virtio_console_control message = {id, event, value};
    const struct drv_seg seg = {BUFFER(40), sizeof(message), false};
    uint32_t used, len;
    mull_mem_write(d->memory, BUFFER(40), &message, sizeof(message));
    drv_add(d, CTRL_TX, &seg, 1);
    drv_kick(d, CTRL_TX);
    assert_true(drv_used(d, CTRL_TX, &used, &len));
}

/* The next control message the device has sent; @text gets what follows it. */
static void assert_told(struct drv *d, uint32_t id, uint16_t event, uint16_t value,
                        const char *text)
{
    struct virtio_console_control message;
    char name[64] = "";
    uint32_t head, len;
    assert_true(drv_used(d, CTRL_RX, &head, &len));
    mull_mem_read(d->memory, BUFFER(50) + 64 * head, &message, sizeof(message));
    mull_mem_read(d->memory, BUFFER(50) + 64 * head + 8, name, len - 8);
    assert_int_equal(message.id, id);
    assert_int_equal(message.event, event);
    assert_int_equal(message.value, value);
    assert_string_equal(name, text);
}

static void test_named_ports(void **state)
{
    struct fixture *f = *state;
    struct drv *d = &f->drv;
    char text[16] = "";
    uint32_t id, len;

    assert_int_equal(drv_common_read(d, num_queues), 8);
    assert_int_equal(drv_read(d, d->config + 4, 4), 3);
    drv_start(d, ALL, 8, 16);
    for (unsigned i = 0; i < 16; i++) {
        const struct drv_seg seg = {BUFFER(50) + 64 * i, 64, true};
        drv_add(d, CTRL_RX, &seg, 1);
    }
    drv_kick(d, CTRL_RX);
    tell(d, 0xffffffff, VIRTIO_CONSOLE_DEVICE_READY, 1);
    for (uint32_t i = 0; i < 3; i++)
        assert_told(d, i, VIRTIO_CONSOLE_PORT_ADD, 1, "");
    tell(d, 0, VIRTIO_CONSOLE_PORT_READY, 1);
    assert_told(d, 0, VIRTIO_CONSOLE_CONSOLE_PORT, 1, "");
    assert_told(d, 0, VIRTIO_CONSOLE_PORT_OPEN, 0, "");
    tell(d, 1, VIRTIO_CONSOLE_PORT_READY, 1);
    assert_told(d, 1, VIRTIO_CONSOLE_PORT_NAME, 1, "org.example.agent");
    assert_told(d, 1, VIRTIO_CONSOLE_PORT_OPEN, 1, "");
    /* What makes no sense is ignored. */
    tell(d, 3, VIRTIO_CONSOLE_PORT_READY, 1);
    tell(d, 0xffffffff, VIRTIO_CONSOLE_PORT_OPEN, 1);
    tell(d, 1, 77, 1);
    assert_false(drv_used(d, CTRL_RX, &id, &len));

    /* Input waits until somebody in the guest has opened the port. */
    const struct drv_seg in = {BUFFER(0), 100, true}, out = {BUFFER(1), 5, false};
    drv_add(d, RX1, &in, 1);
    drv_kick(d, RX1);
    assert_int_equal(mull_chardev_memory_give(f->chardev, "ping", 4), 0);
    tell(d, 1, VIRTIO_CONSOLE_PORT_OPEN, 1);
    assert_int_equal(mull_chardev_memory_give(f->chardev, "ping", 4), 4);
    assert_true(drv_used(d, RX1, &id, &len));
    assert_int_equal(len, 4);
    assert_int_equal(drv_peek8(d, BUFFER(0) + 3), 'g');
    mull_mem_write(d->memory, BUFFER(1), "pong!", 5);
    drv_add(d, TX1, &out, 1);
    drv_kick(d, TX1);
    assert_int_equal(mull_chardev_memory_take(f->chardev, text, sizeof(text)), 5);
    assert_string_equal(text, "pong!");
    drv_assert_fine(d);
}

static void test_control_messages_wait_for_buffers(void **state)
{
    struct fixture *f = *state;
    struct drv *d = &f->drv;
    const struct drv_seg seg = {BUFFER(50), 64, true}, tiny = {BUFFER(50) + 64, 3, true};
    uint32_t id, len;

    drv_start(d, ALL, 8, 16);
    tell(d, 0, VIRTIO_CONSOLE_DEVICE_READY, 1);
    assert_false(drv_used(d, CTRL_RX, &id, &len));
    drv_add(d, CTRL_RX, &seg, 1);
    drv_kick(d, CTRL_RX);
    assert_told(d, 0, VIRTIO_CONSOLE_PORT_ADD, 1, "");
    drv_add(d, CTRL_RX, &tiny, 1);
    drv_kick(d, CTRL_RX);
    assert_true(drv_used(d, CTRL_RX, &id, &len));
    assert_int_equal(len, 3);
    for (unsigned i = 0; i < 100; i++) { /* nothing piles up */
        tell(d, 1, VIRTIO_CONSOLE_PORT_READY, 1);
        tell(d, 0, VIRTIO_CONSOLE_DEVICE_READY, 1);
    }
    drv_assert_fine(d);
}

static void test_entropy(void **state)
{
    struct drv *d = *state;
    const struct drv_seg small = {BUFFER(0), 64, true}, large = {BUFFER(1), 10000, true},
                         wrong = {BUFFER(0), 64, false};
    uint32_t id, len;
    unsigned zeroes = 0;
    drv_start(d, ALL, 1, 16);
    drv_add(d, 0, &small, 1);
    drv_kick(d, 0);
    assert_true(drv_used(d, 0, &id, &len));
    assert_int_equal(len, 64);
    for (unsigned i = 0; i < 64; i++)
        zeroes += !drv_peek8(d, BUFFER(0) + i);
    assert_in_range(zeroes, 0, 8);
    drv_add(d, 0, &wrong, 1);
    drv_add(d, 0, &large, 1);
    drv_kick(d, 0);
    assert_true(drv_used(d, 0, &id, &len));
    assert_int_equal(len, 0);
    assert_true(drv_used(d, 0, &id, &len));
    assert_int_equal(len, 4096); /* fewer than asked for */
    drv_assert_fine(d);
}

static void test_entropy_is_rationed(void **state)
{
    struct drv *d = *state;
    const struct drv_seg page = {BUFFER(1), 4096, true};
    uint32_t id, len;
    unsigned count = 0;
    drv_start(d, ALL, 1, 16);
    uint64_t start = mull_now_ns();
    for (unsigned i = 0; i < 7; i++)
        drv_add(d, 0, &page, 1);
    drv_kick(d, 0);
    while (drv_used(d, 0, &id, &len))
        count++;
    assert_in_range(count, 4, 6); /* 20,000 bytes at once, more on a slow host */
    for (; count < 7; count++) {
        drv_wait_used(d, 0, &id, &len);
        assert_int_equal(len, 4096);
    }
    assert_true(mull_now_ns() - start > 300000000u); /* 28,672 bytes: 0.43 s */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(test_output),
        T(test_output_waits_for_the_back_end),
        T(test_input),
        T(test_emergency_write),
        cmocka_unit_test_setup_teardown(test_named_ports, setup_channels, teardown),
        cmocka_unit_test_setup_teardown(test_control_messages_wait_for_buffers, setup_channels,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_entropy, setup_rng, teardown),
        cmocka_unit_test_setup_teardown(test_entropy_is_rationed, setup_rng, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
