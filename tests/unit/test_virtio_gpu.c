/* The virtio GPU, driven as a guest's driver would: pictures, what is on the screen, the pointer,
 * another size, and a VGA in the same function. */
#include "virtio_driver.h"

#include <errno.h>
#include <linux/virtio_gpu.h>

#include "device/display/vga.h"
#include "state/state.h"

#define ALL (~0ull)
enum { CONTROL, CURSOR };
#define COMMAND DRV_DATA
#define RESPONSE (DRV_DATA + 0x10000u)
#define BACKING (DRV_DATA + 0x100000u)
#define WIDTH 20u
#define HEIGHT 10u

struct fixture {
    struct drv drv; /* must be first */
    struct mull_vga *vga;
    const struct mull_screen *screen;
};

static uint32_t pixels[MULL_SCREEN_MAX_WIDTH * MULL_SCREEN_MAX_HEIGHT];

static void make(struct fixture *f, bool with_vga)
{
    struct mull_error err = {0};
    const struct mull_vga_config vga = {.inlaid = true};
    struct mull_virtio_gpu_config cfg = {.name = "virtio-gpu.0", .devfn = -1};

    drv_init(&f->drv);
    if (with_vga)
        assert_int_equal(mull_vga_create(&f->drv.env, f->drv.bus, &vga, &f->vga, &err), 0);
    cfg.vga = f->vga;
    assert_int_equal(mull_virtio_gpu_create(&f->drv.env, f->drv.bus, &cfg, &f->drv.device, &err),
                     0);
    f->screen = mull_virtio_gpu_screen(f->drv.device);
    drv_find(&f->drv);
}

static void unmake(struct fixture *f)
{
    f->drv.device->ops->destroy(f->drv.device);
    f->drv.device = NULL;
    if (f->vga)
        mull_vga_device(f->vga)->ops->destroy(mull_vga_device(f->vga));
    drv_fini(&f->drv);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    make(f, false);
    *state = f;
    return 0;
}

static int setup_vga(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    make(f, true);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    unmake(*state);
    free(*state);
    return 0;
}

/* Send a command. @return the response's type */
static uint32_t send(struct drv *d, unsigned queue, const void *command, size_t size)
{
    const struct drv_seg segs[2] = {{COMMAND, (uint32_t)size, false}, {RESPONSE, 0x800, true}};
    struct virtio_gpu_ctrl_hdr hdr;
    uint32_t id, len;

    mull_mem_write(d->memory, COMMAND, command, size);
    mull_mem_set(d->memory, RESPONSE, 0xee, 0x800);
    drv_add(d, queue, segs, 2);
    drv_kick(d, queue);
    assert_true(drv_used(d, queue, &id, &len));
    assert_in_range(len, sizeof(hdr), 0x800);
    mull_mem_read(d->memory, RESPONSE, &hdr, sizeof(hdr));
    return hdr.type;
}

#define SEND(d, queue, ...)                                                                        \
    ({                                                                                             \
        const __VA_ARGS__;                                                                         \
        send(d, queue, &command_, sizeof(command_));                                               \
    })
#define create(d, id, fmt, w, h)                                                                   \
    SEND(d, CONTROL,                                                                               \
         struct virtio_gpu_resource_create_2d command_ = {.hdr.type =                              \
                                                              VIRTIO_GPU_CMD_RESOURCE_CREATE_2D,   \
                                                          .resource_id = (id),                     \
                                                          .format = (fmt),                         \
                                                          .width = (w),                            \
                                                          .height = (h)})
#define unref(d, kind, id)                                                                         \
    SEND(d, CONTROL,                                                                               \
         struct virtio_gpu_resource_unref command_ = {.hdr.type = (kind), .resource_id = (id)})
#define scanout(d, id, ...)                                                                        \
    SEND(d, CONTROL,                                                                               \
         struct virtio_gpu_set_scanout command_ = {                                                \
             .hdr.type = VIRTIO_GPU_CMD_SET_SCANOUT, .resource_id = (id), .r = {__VA_ARGS__}})
#define transfer(d, id, at, ...)                                                                   \
    SEND(d, CONTROL,                                                                               \
         struct virtio_gpu_transfer_to_host_2d command_ = {.hdr.type =                             \
                                                               VIRTIO_GPU_CMD_TRANSFER_TO_HOST_2D, \
                                                           .resource_id = (id),                    \
                                                           .offset = (at),                         \
                                                           .r = {__VA_ARGS__}})

static uint32_t attach(struct drv *d, uint32_t id, const struct virtio_gpu_mem_entry *entries,
                       uint32_t count, uint32_t said)
{
    struct {
        struct virtio_gpu_resource_attach_backing head;
        struct virtio_gpu_mem_entry entry[8];
    } command = {.head = {.hdr.type = VIRTIO_GPU_CMD_RESOURCE_ATTACH_BACKING,
                          .resource_id = id,
                          .nr_entries = said}};
    for (uint32_t i = 0; i < count; i++)
        command.entry[i] = entries[i];
    return send(d, CONTROL, &command, sizeof(command.head) + count * sizeof(*entries));
}

/* Picture 1 with a backing in two pieces that end in the middle of a pixel, and known content. */
static void make_picture(struct drv *d, uint32_t format)
{
    const struct virtio_gpu_mem_entry entries[2] = {{BACKING + 0x2000, 0x102, 0},
                                                    {BACKING, 4 * WIDTH * HEIGHT - 0x102, 0}};
    uint32_t content[WIDTH * HEIGHT];

    for (uint32_t i = 0; i < WIDTH * HEIGHT; i++)
        content[i] = i * 0x01010203u + 0x80000000u;
    mull_mem_write(d->memory, BACKING + 0x2000, content, 0x102);
    mull_mem_write(d->memory, BACKING, (uint8_t *)content + 0x102, sizeof(content) - 0x102);
    assert_int_equal(create(d, 1, format, WIDTH, HEIGHT), VIRTIO_GPU_RESP_OK_NODATA);
    assert_int_equal(attach(d, 1, entries, 2, 2), VIRTIO_GPU_RESP_OK_NODATA);
}

static void expect_picture(struct fixture *f, unsigned x, unsigned y, unsigned width,
                           unsigned height)
{
    unsigned w, h;
    assert_true(f->screen->ops->render(f->screen->opaque, pixels, sizeof(pixels) / 4, &w, &h));
    assert_int_equal(w, width);
    assert_int_equal(h, height);
    for (unsigned row = 0; row < h; row++)
        for (unsigned column = 0; column < w; column++) {
            uint32_t i = (y + row) * WIDTH + x + column;
            assert_int_equal(pixels[row * w + column], (i * 0x01010203u + 0x80000000u) & 0xffffff);
        }
}

static void test_show(void **state)
{
    struct fixture *f = *state;
    struct drv *d = &f->drv;
    unsigned width, height;

    f->screen->ops->size(f->screen->opaque, &width, &height);
    assert_int_equal(width, 1280);
    assert_int_equal(height, 800);
    drv_start(d, ALL, 2, 16);
    make_picture(d, VIRTIO_GPU_FORMAT_B8G8R8X8_UNORM);
    uint64_t before = f->screen->ops->changes(f->screen->opaque);
    assert_int_equal(transfer(d, 1, 0, 0, 0, WIDTH, HEIGHT), VIRTIO_GPU_RESP_OK_NODATA);
    assert_int_equal(f->screen->ops->changes(f->screen->opaque), before);
    assert_int_equal(scanout(d, 1, 2, 3, 11, 5), VIRTIO_GPU_RESP_OK_NODATA);
    assert_true(f->screen->ops->changes(f->screen->opaque) > before);
    expect_picture(f, 2, 3, 11, 5);
    assert_int_equal(f->screen->ops->text(f->screen->opaque, (char[16]){0}, 16), -1);
    /* A part of it anew; then all without a backing: nothing to read. */
    uint32_t white = 0xffffffff;
    mull_mem_write(d->memory, BACKING + 0x2000 + 4 * (3 * WIDTH + 2), &white, 4);
    assert_int_equal(transfer(d, 1, 4 * (3 * WIDTH + 2), 2, 3, 1, 1), VIRTIO_GPU_RESP_OK_NODATA);
    f->screen->ops->render(f->screen->opaque, pixels, sizeof(pixels) / 4, &width, &height);
    assert_int_equal(pixels[0], 0xffffff);
    assert_int_equal(pixels[1], ((3 * WIDTH + 3) * 0x01010203u + 0x80000000u) & 0xffffff);
    assert_int_equal(unref(d, VIRTIO_GPU_CMD_RESOURCE_DETACH_BACKING, 1),
                     VIRTIO_GPU_RESP_OK_NODATA);
    assert_int_equal(transfer(d, 1, 0, 0, 0, 1, 1), VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER);
    /* Gone from the screen with its picture. */
    assert_int_equal(unref(d, VIRTIO_GPU_CMD_RESOURCE_UNREF, 1), VIRTIO_GPU_RESP_OK_NODATA);
    f->screen->ops->size(f->screen->opaque, &width, &height);
    assert_int_equal(width, 1280);
    drv_assert_fine(d);
}

static void test_formats(void **state)
{
    struct fixture *f = *state;
    struct drv *d = &f->drv;
    static const struct {
        uint32_t format, memory;
    } formats[] = {
        {VIRTIO_GPU_FORMAT_B8G8R8A8_UNORM, 0x00112233},
        {VIRTIO_GPU_FORMAT_A8R8G8B8_UNORM, 0x33221100},
        {VIRTIO_GPU_FORMAT_R8G8B8A8_UNORM, 0x00332211},
        {VIRTIO_GPU_FORMAT_X8B8G8R8_UNORM, 0x11223300},
    };
    unsigned w, h;

    drv_start(d, ALL, 2, 16);
    for (unsigned i = 0; i < 4; i++) {
        const struct virtio_gpu_mem_entry entry = {BACKING, 4, 0};
        mull_mem_write(d->memory, BACKING, &formats[i].memory, 4);
        assert_int_equal(create(d, 9, formats[i].format, 1, 1), VIRTIO_GPU_RESP_OK_NODATA);
        assert_int_equal(attach(d, 9, &entry, 1, 1), VIRTIO_GPU_RESP_OK_NODATA);
        assert_int_equal(transfer(d, 9, 0, 0, 0, 1, 1), VIRTIO_GPU_RESP_OK_NODATA);
        assert_int_equal(scanout(d, 9, 0, 0, 1, 1), VIRTIO_GPU_RESP_OK_NODATA);
        assert_true(f->screen->ops->render(f->screen->opaque, pixels, 1, &w, &h));
        assert_int_equal(pixels[0], 0x112233);
        assert_int_equal(unref(d, VIRTIO_GPU_CMD_RESOURCE_UNREF, 9), VIRTIO_GPU_RESP_OK_NODATA);
    }
}

static void test_refused(void **state)
{
    struct fixture *f = *state;
    struct drv *d = &f->drv;
    const struct virtio_gpu_mem_entry far = {DRV_RAM, 4096, 0}, wrap = {~0ull - 3, 4096, 0};
    uint32_t format = VIRTIO_GPU_FORMAT_B8G8R8X8_UNORM, made = 0;

    drv_start(d, ALL, 2, 16);
    assert_int_equal(create(d, 0, format, 1, 1), VIRTIO_GPU_RESP_ERR_INVALID_RESOURCE_ID);
    assert_int_equal(create(d, 1, 77, 1, 1), VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER);
    assert_int_equal(create(d, 1, format, 0, 1), VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER);
    assert_int_equal(create(d, 1, format, ~0u, 2), VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER);
    make_picture(d, format);
    assert_int_equal(create(d, 1, format, 1, 1), VIRTIO_GPU_RESP_ERR_INVALID_RESOURCE_ID);
    assert_int_equal(attach(d, 1, &far, 1, 1), VIRTIO_GPU_RESP_ERR_UNSPEC);
    assert_int_equal(transfer(d, 1, 0, 1, 0, WIDTH, 1), VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER);
    assert_int_equal(transfer(d, 1, 0, ~0u, 0, 2, 1), VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER);
    assert_int_equal(transfer(d, 1, 4, 0, 0, WIDTH, HEIGHT), VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER);
    assert_int_equal(transfer(d, 1, ~0ull, 0, 0, 1, 1), VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER);
    assert_int_equal(transfer(d, 2, 0, 0, 0, 1, 1), VIRTIO_GPU_RESP_ERR_INVALID_RESOURCE_ID);
    assert_int_equal(scanout(d, 1, 0, 0, WIDTH + 1, 1), VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER);
    assert_int_equal(scanout(d, 5, 0, 0, 1, 1), VIRTIO_GPU_RESP_ERR_INVALID_RESOURCE_ID);
    assert_int_equal(create(d, 2, format, 8, 8), VIRTIO_GPU_RESP_OK_NODATA);
    assert_int_equal(attach(d, 2, &far, 1, 2000), VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER);
    assert_int_equal(attach(d, 2, &far, 1, ~0u), VIRTIO_GPU_RESP_ERR_OUT_OF_MEMORY);
    assert_int_equal(attach(d, 2, &far, 1, 1), VIRTIO_GPU_RESP_OK_NODATA);
    assert_int_equal(transfer(d, 2, 0, 0, 0, 8, 8), VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER);
    assert_int_equal(unref(d, VIRTIO_GPU_CMD_RESOURCE_DETACH_BACKING, 2),
                     VIRTIO_GPU_RESP_OK_NODATA);
    assert_int_equal(attach(d, 2, &wrap, 1, 1), VIRTIO_GPU_RESP_OK_NODATA);
    assert_int_equal(transfer(d, 2, 8, 0, 0, 8, 8), VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER);
    /* The first one's ranges were not moved by all that. */
    assert_int_equal(transfer(d, 1, 0, 0, 0, WIDTH, HEIGHT), VIRTIO_GPU_RESP_OK_NODATA);
    scanout(d, 1, 0, 0, WIDTH, HEIGHT);
    expect_picture(f, 0, 0, WIDTH, HEIGHT);
    /* A guest that takes all it can get. */
    while (create(d, 100 + made, format, 2000, 2000) == VIRTIO_GPU_RESP_OK_NODATA)
        made++;
    assert_in_range(made, 1, 8);
    for (made = 0; create(d, 1000 + made, format, 1, 1) == VIRTIO_GPU_RESP_OK_NODATA;)
        made++;
    assert_in_range(made, 100, 256);
    assert_int_equal(SEND(d, CONTROL, struct virtio_gpu_ctrl_hdr command_ = {.type = 0x208}),
                     VIRTIO_GPU_RESP_ERR_UNSPEC);
    assert_int_equal(SEND(d, CONTROL, struct virtio_gpu_ctrl_hdr command_ = {.type = 0x101}),
                     VIRTIO_GPU_RESP_ERR_UNSPEC);
    drv_assert_fine(d);
    drv_common_write(d, device_status, 0);
    drv_start(d, ALL, 2, 16);
    assert_int_equal(create(d, 1, format, 2000, 2000), VIRTIO_GPU_RESP_OK_NODATA);
}

static void test_size(void **state)
{
    struct fixture *f = *state;
    struct drv *d = &f->drv;
    struct virtio_gpu_resp_display_info info;
    struct virtio_gpu_resp_edid edid;
    uint8_t sum = 0;

    assert_int_equal(f->screen->ops->resize(f->screen->opaque, 1000, 700), -ENOTSUP);
    drv_start(d, ALL, 2, 16);
    assert_int_equal(f->screen->ops->resize(f->screen->opaque, 10000, 700), -EINVAL);
    assert_int_equal(drv_read(d, d->config, 4), 0);
    unsigned interrupts = d->messages[0];
    assert_int_equal(f->screen->ops->resize(f->screen->opaque, 1000, 700), 0);
    assert_int_equal(d->messages[0], interrupts + 1);
    assert_int_equal(drv_read(d, d->config, 4), VIRTIO_GPU_EVENT_DISPLAY);
    assert_int_equal(drv_read(d, d->config + 8, 4), 1);
    drv_write(d, d->config + 4, 4, VIRTIO_GPU_EVENT_DISPLAY);
    assert_int_equal(drv_read(d, d->config, 4), 0);
    assert_int_equal(
        SEND(d, CONTROL,
             struct virtio_gpu_ctrl_hdr command_ = {.type = VIRTIO_GPU_CMD_GET_DISPLAY_INFO,
                                                    .flags = VIRTIO_GPU_FLAG_FENCE,
                                                    .fence_id = 0x1234567890}),
        VIRTIO_GPU_RESP_OK_DISPLAY_INFO);
    mull_mem_read(d->memory, RESPONSE, &info, sizeof(info));
    assert_int_equal(info.hdr.flags, VIRTIO_GPU_FLAG_FENCE);
    assert_int_equal(info.hdr.fence_id, 0x1234567890);
    assert_int_equal(info.pmodes[0].r.width, 1000);
    assert_int_equal(info.pmodes[0].r.height, 700);
    assert_int_equal(info.pmodes[0].enabled, 1);
    assert_int_equal(info.pmodes[1].enabled, 0);
    assert_int_equal(
        SEND(d, CONTROL,
             struct virtio_gpu_cmd_get_edid command_ = {.hdr.type = VIRTIO_GPU_CMD_GET_EDID}),
        VIRTIO_GPU_RESP_OK_EDID);
    mull_mem_read(d->memory, RESPONSE, &edid, sizeof(edid));
    assert_int_equal(edid.size, 128);
    assert_memory_equal(edid.edid, "\0\xff\xff\xff\xff\xff\xff\0", 8);
    assert_int_equal(edid.edid[56] | (edid.edid[58] & 0xf0) << 4, 1000);
    assert_int_equal(edid.edid[59] | (edid.edid[61] & 0xf0) << 4, 700);
    for (unsigned i = 0; i < 128; i++)
        sum = (uint8_t)(sum + edid.edid[i]);
    assert_int_equal(sum, 0);
}

static void test_cursor(void **state)
{
    struct fixture *f = *state;
    struct drv *d = &f->drv;
    struct mull_cursor cursor;
    struct virtio_gpu_update_cursor c = {.hdr.type = VIRTIO_GPU_CMD_UPDATE_CURSOR,
                                         .pos = {.x = 30, .y = 40},
                                         .resource_id = 1,
                                         .hot_x = 3,
                                         .hot_y = 900};

    drv_start(d, ALL, 2, 16);
    make_picture(d, VIRTIO_GPU_FORMAT_B8G8R8A8_UNORM);
    transfer(d, 1, 0, 0, 0, WIDTH, HEIGHT);
    scanout(d, 1, 0, 0, WIDTH, HEIGHT);
    assert_false(f->screen->ops->cursor(f->screen->opaque, &cursor));
    assert_int_equal(send(d, CURSOR, &c, sizeof(c)), VIRTIO_GPU_RESP_OK_NODATA);
    assert_true(f->screen->ops->cursor(f->screen->opaque, &cursor));
    assert_true(cursor.visible);
    assert_int_equal(cursor.width, WIDTH);
    assert_int_equal(cursor.hot_x, 3);
    assert_int_equal(cursor.hot_y, 0);
    assert_int_equal(cursor.x, 33);
    assert_int_equal(cursor.pixels[1], 0x81010203);
    uint64_t serial = cursor.serial;
    c.hdr.type = VIRTIO_GPU_CMD_MOVE_CURSOR;
    c.pos.x = 5;
    assert_int_equal(send(d, CURSOR, &c, sizeof(c)), VIRTIO_GPU_RESP_OK_NODATA);
    assert_true(f->screen->ops->cursor(f->screen->opaque, &cursor));
    assert_int_equal(cursor.x, 8);
    assert_int_equal(cursor.serial, serial);
    c.hdr.type = VIRTIO_GPU_CMD_UPDATE_CURSOR;
    c.resource_id = 0;
    assert_int_equal(send(d, CURSOR, &c, sizeof(c)), VIRTIO_GPU_RESP_OK_NODATA);
    assert_true(f->screen->ops->cursor(f->screen->opaque, &cursor));
    assert_false(cursor.visible);
    c.pos.scanout_id = 1;
    assert_int_equal(send(d, CURSOR, &c, sizeof(c)), VIRTIO_GPU_RESP_ERR_INVALID_SCANOUT_ID);
    assert_int_equal(send(d, CONTROL, &c, sizeof(c)), VIRTIO_GPU_RESP_ERR_UNSPEC);
}

/* In the same function: the VGA is seen until there is a picture, and again after it. */
static void test_vga(void **state)
{
    struct fixture *f = *state;
    struct drv *d = &f->drv;
    unsigned width, height;
    uint64_t memory = drv_config_read(d, 0x10, 4) & ~15u;
    uint64_t registers = drv_config_read(d, 0x18, 4) & ~15u;

    registers |= (uint64_t)drv_config_read(d, 0x1c, 4) << 32;
    assert_int_equal(drv_config_read(d, 10, 2), 0x0300);
    drv_start(d, ALL, 2, 16);
    drv_write(d, registers + 0x502, 2, 800);
    drv_write(d, registers + 0x504, 2, 600);
    drv_write(d, registers + 0x508, 2, 0x41);
    drv_write(d, memory + 4, 4, 0x123456);
    f->screen->ops->size(f->screen->opaque, &width, &height);
    assert_int_equal(width, 800);
    assert_true(
        f->screen->ops->render(f->screen->opaque, pixels, sizeof(pixels) / 4, &width, &height));
    assert_int_equal(pixels[1], 0x123456);
    make_picture(d, VIRTIO_GPU_FORMAT_B8G8R8X8_UNORM);
    transfer(d, 1, 0, 0, 0, WIDTH, HEIGHT);
    scanout(d, 1, 0, 0, WIDTH, HEIGHT);
    expect_picture(f, 0, 0, WIDTH, HEIGHT);
    scanout(d, 0, 0, 0, 0, 0);
    f->screen->ops->size(f->screen->opaque, &width, &height);
    assert_int_equal(width, 800);
}

/* Saved with a picture on the screen, and restored: it is read again from the guest's memory. */
static void test_state(void **state)
{
    struct fixture *f = *state, to = {0};
    struct mull_state_writer *writer;
    struct mull_state_reader *reader;
    struct mull_state_section section;
    struct mull_error err = {0};
    struct drv *d = &f->drv;
    size_t size;

    make(&to, false);
    drv_start(d, ALL, 2, 16);
    make_picture(d, VIRTIO_GPU_FORMAT_B8G8R8X8_UNORM);
    transfer(d, 1, 0, 0, 0, WIDTH, HEIGHT);
    scanout(d, 1, 1, 1, 8, 8);
    d->device->ops->quiesce(d->device);
    assert_int_equal(mull_state_writer_buffer(&writer, &err), 0);
    assert_int_equal(mull_state_write_ram(writer, d->memory, &err), 0);
    assert_int_equal(mull_state_write(writer, d->device->name, 0, d->device->ops->state,
                                      d->device->object, &err),
                     0);
    assert_int_equal(mull_state_write_end(writer, &err), 0);
    const uint8_t *data = mull_state_writer_data(writer, &size);
    for (unsigned twice = 0; twice < 2; twice++) {
        to.drv.device->ops->quiesce(to.drv.device);
        assert_int_equal(mull_state_reader_buffer(data, size, &reader, &err), 0);
        while (mull_state_next(reader, &section, &err) == 1) {
            if (section.kind == MULL_STATE_RAM)
                assert_int_equal(mull_state_read_ram(reader, to.drv.memory, &err), 0);
            else
                assert_int_equal(
                    mull_state_read(reader, to.drv.device->ops->state, to.drv.device->object, &err),
                    0);
        }
        mull_state_reader_destroy(reader);
        to.drv.device->ops->resume(to.drv.device);
        expect_picture(&to, 1, 1, 8, 8);
    }
    mull_state_writer_destroy(writer);
    memcpy(to.drv.queues, d->queues, sizeof(d->queues));
    to.drv.features = d->features;
    assert_int_equal(scanout(&to.drv, 1, 0, 0, WIDTH, HEIGHT), VIRTIO_GPU_RESP_OK_NODATA);
    expect_picture(&to, 0, 0, WIDTH, HEIGHT);
    unmake(&to);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_show),    T(test_formats),
        T(test_refused), T(test_size),
        T(test_cursor),  cmocka_unit_test_setup_teardown(test_vga, setup_vga, teardown),
        T(test_state),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
