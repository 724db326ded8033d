/* Each device saved in the middle of its work and restored into another machine, which goes on
 * with it; and states that a device must refuse. */
#include "virtio_driver.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_net.h>
#include <stdio.h>
#include <unistd.h>

#include "state/state.h"

#define ALL (~0ull)
#define BUFFER(i) (DRV_DATA + 0x1000u * (i))

/* Save @from, load into @to (the same device in another machine), RAM and rings included. */
static void move(struct drv *from, struct drv *to)
{
    struct mull_state_writer *writer;
    struct mull_state_reader *reader;
    struct mull_state_section section;
    struct mull_error err = {0};
    size_t size;

    from->device->ops->quiesce(from->device);
    assert_int_equal(mull_state_writer_buffer(&writer, &err), 0);
    assert_int_equal(mull_state_write_ram(writer, from->memory, &err), 0);
    assert_int_equal(mull_state_write(writer, from->device->name, 0, from->device->ops->state,
                                      from->device->object, &err),
                     0);
    assert_int_equal(mull_state_write_end(writer, &err), 0);
    const uint8_t *data = mull_state_writer_data(writer, &size);

    to->device->ops->quiesce(to->device);
    assert_int_equal(mull_state_reader_buffer(data, size, &reader, &err), 0);
    while (mull_state_next(reader, &section, &err) == 1) {
        if (section.kind == MULL_STATE_RAM)
            assert_int_equal(mull_state_read_ram(reader, to->memory, &err), 0);
        else if (mull_state_read(reader, to->device->ops->state, to->device->object, &err))
            fail_msg("%s", err.message);
    }
    mull_state_reader_destroy(reader);
    mull_state_writer_destroy(writer);
    memcpy(to->queues, from->queues, sizeof(to->queues));
    to->features = from->features;
    to->device->ops->resume(to->device);
    drv_turn(to);
}

static struct mull_device *make_console(struct drv *d, struct mull_chardev *chardev)
{
    struct mull_device *device;
    const struct mull_virtio_console_config cfg = {
        .name = "virtio-console.0", .devfn = -1, .chardev = chardev};
    assert_int_equal(mull_virtio_console_create(&d->env, d->bus, &cfg, &device, NULL), 0);
    return device;
}

static void test_console_in_mid_sentence(void **state)
{
    struct drv d[2];
    struct mull_chardev *chardev[2];
    const struct drv_seg seg = {BUFFER(0), 11, false};
    char text[16] = "";
    uint32_t id, len;

    for (int i = 0; i < 2; i++) {
        drv_init(&d[i]);
        assert_int_equal(mull_chardev_memory_create(i ? 100 : 6, &chardev[i], NULL), 0);
        d[i].device = make_console(&d[i], chardev[i]);
        drv_find(&d[i]);
    }
    drv_start(&d[0], ALL, 2, 16);
    mull_mem_write(d[0].memory, BUFFER(0), "hello world", 11);
    drv_add(&d[0], 1, &seg, 1);
    drv_kick(&d[0], 1);
    assert_false(drv_used(&d[0], 1, &id, &len));
    move(&d[0], &d[1]);
    assert_int_equal(drv_common_read(&d[1], device_status), 0xf);
    assert_true(drv_used(&d[1], 1, &id, &len));
    assert_int_equal(mull_chardev_memory_take(chardev[1], text, sizeof(text)), 5);
    assert_string_equal(text, "world");
    assert_int_equal(d[1].messages[2], 1); /* MSI-X came along */
    for (int i = 0; i < 2; i++) {
        d[i].device->ops->destroy(d[i].device);
        d[i].device = NULL;
        mull_chardev_destroy(chardev[i]);
        drv_fini(&d[i]);
    }
}

static void test_block_with_requests_queued(void **state)
{
    struct drv d[2];
    struct mull_block *block[2];
    char path[2][32];
    struct virtio_blk_outhdr header = {.type = VIRTIO_BLK_T_OUT, .sector = 3};
    const struct drv_seg segs[3] = {
        {BUFFER(0), 16, false}, {BUFFER(1), 512, false}, {BUFFER(2), 1, true}};
    uint32_t id, len;
    char byte = 0;

    for (int i = 0; i < 2; i++) {
        drv_init(&d[i]);
        strcpy(path[i], "/tmp/mull-state-XXXXXX");
        int fd = mkstemp(path[i]);
        assert_int_equal(ftruncate(fd, 1 << 20), 0);
        close(fd);
        const struct mull_block_options options = {.path = path[i], .format = "raw"};
        assert_int_equal(mull_block_open(&options, &block[i], NULL), 0);
        assert_int_equal(mull_block_start(block[i], d[i].loop, NULL), 0);
        const struct mull_virtio_blk_config cfg = {
            .name = "virtio-blk.0", .devfn = -1, .block = block[i]};
        assert_int_equal(mull_virtio_blk_create(&d[i].env, d[i].bus, &cfg, &d[i].device, NULL), 0);
        drv_find(&d[i]);
    }
    drv_start(&d[0], ALL, 1, 16);
    drv_write(&d[0], d[0].config + 32, 1, 0); /* write-through */
    mull_mem_write(d[0].memory, BUFFER(0), &header, sizeof(header));
    mull_mem_set(d[0].memory, BUFFER(1), 'W', 512);
    d[0].device->ops->quiesce(d[0].device);
    drv_add(&d[0], 0, segs, 3);
    drv_kick(&d[0], 0);
    move(&d[0], &d[1]);
    drv_wait_used(&d[1], 0, &id, &len);
    assert_int_equal(len, 1);
    assert_int_equal(drv_peek8(&d[1], BUFFER(2)), 0);
    assert_int_equal(drv_read(&d[1], d[1].config + 32, 1), 0);
    for (int i = 0; i < 2; i++) {
        d[i].device->ops->destroy(d[i].device);
        d[i].device = NULL;
        mull_block_close(block[i]);
        drv_fini(&d[i]);
        int fd = open(path[i], O_RDONLY);
        assert_int_equal(pread(fd, &byte, 1, 3 * 512), 1);
        assert_int_equal(byte, i ? 'W' : 0); /* only the second machine has written */
        close(fd);
        unlink(path[i]);
    }
}

static struct mull_device *make_net(struct drv *d, uint8_t last)
{
    struct mull_device *device;
    const struct mull_nic_config cfg = {
        .name = "virtio-net.0", .devfn = -1, .mac = {2, 0, 0, 0, 0, last}};
    assert_int_equal(mull_virtio_net_create(&d->env, d->bus, &cfg, &device, NULL), 0);
    return device;
}

static void test_net_announces_itself(void **state)
{
    struct drv d[2];
    const struct drv_seg segs[2] = {{BUFFER(0), 2, false}, {BUFFER(1), 1, true}};

    for (int i = 0; i < 2; i++) {
        drv_init(&d[i]);
        d[i].device = make_net(&d[i], (uint8_t)i);
        drv_find(&d[i]);
    }
    drv_start(&d[0], ALL, 3, 16);
    move(&d[0], &d[1]);
    assert_int_equal(drv_read(&d[1], d[1].config + 5, 1), 0); /* the address came along */
    assert_int_equal(drv_read(&d[1], d[1].config + 6, 2) & VIRTIO_NET_S_ANNOUNCE,
                     VIRTIO_NET_S_ANNOUNCE);
    assert_int_equal(d[1].messages[0], 1);
    mull_mem_write(d[1].memory, BUFFER(0), "\3", 2);
    drv_add(&d[1], 2, segs, 2);
    drv_kick(&d[1], 2);
    assert_int_equal(drv_peek8(&d[1], BUFFER(1)), 0);
    assert_int_equal(drv_read(&d[1], d[1].config + 6, 2) & VIRTIO_NET_S_ANNOUNCE, 0);
    drv_fini(&d[0]);
    drv_fini(&d[1]);
}

static void test_features_that_are_not_here(void **state)
{
    struct drv d[2];
    struct mull_state_writer *writer;
    struct mull_state_reader *reader;
    struct mull_state_section section;
    struct mull_error err = {0};
    struct mull_device *device[2];
    size_t size;

    /* Saved with an MTU, which the other machine's device does not offer. */
    for (int i = 0; i < 2; i++) {
        drv_init(&d[i]);
        const struct mull_nic_config cfg = {
            .name = "virtio-net.0", .devfn = -1, .mac = {2, 0, 0, 0, 0, 1}, .mtu = i ? 0 : 1400};
        assert_int_equal(mull_virtio_net_create(&d[i].env, d[i].bus, &cfg, &device[i], NULL), 0);
        d[i].device = device[i];
        drv_find(&d[i]);
    }
    drv_start(&d[0], ALL, 3, 16);
    assert_int_equal(mull_state_writer_buffer(&writer, &err), 0);
    assert_int_equal(
        mull_state_write(writer, "net", 0, device[0]->ops->state, device[0]->object, &err), 0);
    assert_int_equal(mull_state_write_end(writer, &err), 0);
    const uint8_t *data = mull_state_writer_data(writer, &size);
    assert_int_equal(mull_state_reader_buffer(data, size, &reader, &err), 0);
    assert_int_equal(mull_state_next(reader, &section, &err), 1);
    assert_int_equal(mull_state_read(reader, device[1]->ops->state, device[1]->object, &err),
                     -ENOTSUP);
    assert_non_null(strstr(err.message, "virtio-net.0"));
    mull_state_reader_destroy(reader);
    mull_state_writer_destroy(writer);
    drv_fini(&d[0]);
    drv_fini(&d[1]);
}

static void set_line(void *opaque, unsigned line, bool level)
{
    *(bool *)opaque = level;
}

static void test_serial_port(void **state)
{
    struct mull_memory *memory[2];
    struct mull_chardev *chardev[2];
    struct mull_device *device[2];
    struct mull_state_writer *writer;
    struct mull_state_reader *reader;
    struct mull_state_section section;
    struct mull_error err = {0};
    bool line[2] = {false, false};
    char text[8] = "";
    size_t size;

    for (int i = 0; i < 2; i++) {
        assert_int_equal(mull_memory_create(NULL, &memory[i], &err), 0);
        assert_int_equal(mull_chardev_memory_create(i ? 64 : 1, &chardev[i], &err), 0);
        const struct mull_device_env env = {.memory = memory[i]};
        const struct mull_serial_config cfg = {
            .port = 0x3f8, .irq = {set_line, &line[i], 4}, .chardev = chardev[i]};
        assert_int_equal(mull_serial_create(&env, &cfg, &device[i], &err), 0);
    }
    mull_space_write(memory[0], MULL_SPACE_PORT, 0, 0x3fa, 1, 1);
    mull_space_write(memory[0], MULL_SPACE_PORT, 0, 0x3fc, 1, 8);
    mull_space_write(memory[0], MULL_SPACE_PORT, 0, 0x3f9, 1, 1);
    for (int i = 0; i < 4; i++)
        mull_space_write(memory[0], MULL_SPACE_PORT, 0, 0x3f8, 1, (uint64_t)('a' + i));
    assert_int_equal(mull_chardev_memory_give(chardev[0], "in", 2), 2);
    assert_int_equal(mull_state_writer_buffer(&writer, &err), 0);
    assert_int_equal(
        mull_state_write(writer, "serial", 0, device[0]->ops->state, device[0]->object, &err), 0);
    assert_int_equal(mull_state_write_end(writer, &err), 0);
    const uint8_t *data = mull_state_writer_data(writer, &size);
    assert_int_equal(mull_state_reader_buffer(data, size, &reader, &err), 0);
    assert_int_equal(mull_state_next(reader, &section, &err), 1);
    assert_int_equal(mull_state_read(reader, device[1]->ops->state, device[1]->object, &err), 0);
    device[1]->ops->resume(device[1]);
    assert_true(line[1]);
    assert_int_equal(mull_chardev_memory_take(chardev[1], text, sizeof(text)), 3);
    assert_string_equal(text, "bcd");
    assert_int_equal(mull_space_read(memory[1], MULL_SPACE_PORT, 0, 0x3f8, 1), 'i');
    assert_int_equal(mull_space_read(memory[1], MULL_SPACE_PORT, 0, 0x3f8, 1), 'n');
    assert_false(line[1]);
    mull_state_reader_destroy(reader);
    mull_state_writer_destroy(writer);
    for (int i = 0; i < 2; i++) {
        device[i]->ops->destroy(device[i]);
        mull_chardev_destroy(chardev[i]);
        mull_memory_destroy(memory[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_console_in_mid_sentence),
        cmocka_unit_test(test_block_with_requests_queued),
        cmocka_unit_test(test_net_announces_itself),
        cmocka_unit_test(test_features_that_are_not_here),
        cmocka_unit_test(test_serial_port),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
