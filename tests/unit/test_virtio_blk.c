/* The virtio block device over a real raw image, driven as a guest's driver would. */
#include "virtio_driver.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_blk.h>
#include <stdio.h>
#include <unistd.h>

#include "image/block.h"
#include "image/file.h"

#define DISK_SIZE (4u << 20)
#define SECTORS (DISK_SIZE / 512)
#define ALL (~0ull)
#define HEADER DRV_DATA
#define STATUS (DRV_DATA + 0x100)
#define BUFFER (DRV_DATA + 0x10000)

struct fixture {
    struct drv drv; /* must be first */
    char path[32];
    struct mull_block *block;
    int fault;     /* what writes and flushes fail with, 0: nothing */
    bool hold;     /* requests that fail are held */
    unsigned held; /* times the owner was told */
    struct mull_file_observer observer;
};

static int inject(void *opaque, const struct mull_file *file, enum mull_file_event event,
                  uint64_t offset, uint64_t length, const struct iovec *iov, int niov)
{
    return event == MULL_FILE_READ ? 0 : ((struct fixture *)opaque)->fault;
}

static void tell_held(void *opaque, const struct mull_block_request *request, int error)
{
    ((struct fixture *)opaque)->held++;
}

static void create(struct fixture *f, bool readonly)
{
    struct mull_error err = {0};
    f->observer = (struct mull_file_observer){inject, f};
    const struct mull_block_options options = {.path = f->path,
                                               .format = "raw",
                                               .readonly = readonly,
                                               .on_error =
                                                   f->hold ? MULL_BLOCK_HOLD : MULL_BLOCK_REPORT,
                                               .held = tell_held,
                                               .opaque = f,
                                               .observer = f->hold ? &f->observer : NULL};
    assert_int_equal(mull_block_open(&options, &f->block, &err), 0);
    assert_int_equal(mull_block_start(f->block, f->drv.loop, &err), 0);
    const struct mull_virtio_blk_config cfg = {.name = "virtio-blk.0",
                                               .devfn = -1,
                                               .block = f->block,
                                               .queues = 2,
                                               .serial = "serial-0123456789xyz"};
    assert_int_equal(mull_virtio_blk_create(&f->drv.env, f->drv.bus, &cfg, &f->drv.device, &err),
                     0);
    drv_find(&f->drv);
}

static int setup_disk(void **state, bool readonly, bool hold)
{
    struct fixture *f = calloc(1, sizeof(*f));
    f->hold = hold;
    drv_init(&f->drv);
    strcpy(f->path, "/tmp/mull-blk-XXXXXX");
    int fd = mkstemp(f->path);
    assert_int_equal(ftruncate(fd, DISK_SIZE), 0);
    for (unsigned i = 0; i < 64; i++) {
        char sector[512];
        memset(sector, 'A' + (int)(i % 26), sizeof(sector));
        assert_int_equal(pwrite(fd, sector, 512, 512 * i), 512);
    }
    close(fd);
    create(f, readonly);
    *state = f;
    return 0;
}

static int setup(void **state)
{
    return setup_disk(state, false, false);
}

static int setup_readonly(void **state)
{
    return setup_disk(state, true, false);
}

static int setup_hold(void **state)
{
    return setup_disk(state, false, true);
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    struct mull_device *device = f->drv.device;
    device->ops->quiesce(device);
    device->ops->destroy(device);
    f->drv.device = NULL;
    mull_block_close(f->block);
    drv_fini(&f->drv);
    unlink(f->path);
    free(f);
    return 0;
}

static void put_header(struct drv *d, uint64_t gpa, uint32_t type, uint64_t sector)
{
    struct virtio_blk_outhdr header = {.type = type, .sector = sector};
    assert_int_equal(mull_mem_write(d->memory, gpa, &header, sizeof(header)), 0);
}

/* One request with up to one data buffer. @return the status; *len: what the device says it wrote
 */
static uint8_t request(struct drv *d, uint32_t type, uint64_t sector, uint64_t gpa, uint32_t bytes,
                       uint32_t *written)
{
    bool in = type == VIRTIO_BLK_T_IN || type == VIRTIO_BLK_T_GET_ID;
    const struct drv_seg segs[3] = {{HEADER, 16, false},
                                    {bytes ? gpa : STATUS, bytes ? bytes : 1, bytes ? in : true},
                                    {STATUS, 1, true}};
    uint32_t id, len;
    put_header(d, HEADER, type, sector);
    mull_mem_set(d->memory, STATUS, 0xcc, 1);
    uint16_t head = drv_add(d, 0, segs, bytes ? 3 : 2);
    drv_kick(d, 0);
    drv_wait_used(d, 0, &id, &len);
    assert_int_equal(id, head);
    if (written)
        *written = len;
    return drv_peek8(d, STATUS);
}

static void test_config(void **state)
{
    struct drv *d = *state;
    assert_int_equal(drv_config_read(d, 2, 2), 0x1042);
    assert_int_equal(drv_read(d, d->config, 4), SECTORS);
    assert_int_equal(drv_read(d, d->config + 4, 4), 0);
    assert_int_equal(drv_read(d, d->config + 12, 4), 254);
    assert_int_equal(drv_read(d, d->config + 20, 4), 512);
    assert_int_equal(drv_read(d, d->config + 32, 1), 1);
    uint64_t offered = drv_offered(d);
    assert_true(offered & 1 << VIRTIO_BLK_F_FLUSH);
    assert_true(offered & 1 << VIRTIO_BLK_F_DISCARD);
    assert_false(offered & 1 << VIRTIO_BLK_F_RO);
}

static void test_read_and_write(void **state)
{
    struct drv *d = *state;
    uint32_t len;
    drv_start(d, ALL, 1, 16);
    assert_int_equal(request(d, VIRTIO_BLK_T_IN, 1, BUFFER, 1024, &len), 0);
    assert_int_equal(len, 1025);
    assert_int_equal(drv_peek8(d, BUFFER), 'B');
    assert_int_equal(drv_peek8(d, BUFFER + 1023), 'C');
    mull_mem_set(d->memory, BUFFER, 'z', 4096);
    assert_int_equal(request(d, VIRTIO_BLK_T_OUT, SECTORS - 8, BUFFER, 4096, &len), 0);
    assert_int_equal(len, 1);
    assert_int_equal(request(d, VIRTIO_BLK_T_FLUSH, 0, 0, 0, &len), 0);
    assert_int_equal(request(d, VIRTIO_BLK_T_IN, SECTORS - 8, BUFFER + 8192, 4096, &len), 0);
    assert_int_equal(drv_peek8(d, BUFFER + 8192), 'z');
    assert_int_equal(drv_peek8(d, BUFFER + 12287), 'z');
    assert_true(d->messages[1] > 0);
    int fd = open(((struct fixture *)d)->path, O_RDONLY);
    char c;
    assert_int_equal(pread(fd, &c, 1, DISK_SIZE - 1), 1);
    assert_int_equal(c, 'z');
    close(fd);
}

/* Each queue's requests end in that queue, with its own message. */
static void test_two_queues(void **state)
{
    struct drv *d = *state;
    const struct drv_seg segs[3] = {{HEADER, 16, false}, {BUFFER, 512, true}, {STATUS, 1, true}};
    uint32_t id, len;

    assert_true(drv_offered(d) & 1 << VIRTIO_BLK_F_MQ);
    assert_int_equal(drv_read(d, d->config + 34, 2), 2);
    drv_start(d, ALL, 2, 16);
    for (unsigned queue = 0; queue < 2; queue++) {
        put_header(d, HEADER, VIRTIO_BLK_T_IN, 3 + queue);
        uint16_t head = drv_add(d, queue, segs, 3);
        drv_kick(d, queue);
        drv_wait_used(d, queue, &id, &len);
        assert_int_equal(id, head);
        assert_int_equal(drv_peek8(d, BUFFER), 'D' + queue);
        assert_false(drv_used(d, !queue, &id, &len));
        assert_true(d->messages[1 + queue] > 0);
    }
}

static void test_many_in_flight(void **state)
{
    struct drv *d = *state;
    uint32_t id, len;
    bool seen[60] = {false};
    drv_start(d, ALL, 1, 256);
    for (unsigned i = 0; i < 60; i++) {
        const struct drv_seg segs[4] = {{HEADER + 16 * i, 16, false},
                                        {BUFFER + 1024 * i, 100, true},
                                        {BUFFER + 1024 * i + 512, 412, true},
                                        {STATUS + 0x1000 + i, 1, true}};
        put_header(d, HEADER + 16 * i, VIRTIO_BLK_T_IN, i);
        mull_mem_set(d->memory, STATUS + 0x1000 + i, 0xcc, 1);
        drv_add_indirect(d, 0, DRV_DATA + 0x100000 + 0x100 * i, segs, 4);
    }
    drv_kick(d, 0);
    for (unsigned i = 0; i < 60; i++) {
        drv_wait_used(d, 0, &id, &len);
        assert_in_range(id, 0, 59);
        assert_false(seen[id]);
        seen[id] = true;
        assert_int_equal(len, 513);
    }
    for (unsigned i = 0; i < 60; i++) {
        assert_int_equal(drv_peek8(d, STATUS + 0x1000 + i), 0);
        assert_int_equal(drv_peek8(d, BUFFER + 1024 * i), 'A' + i % 26);
        assert_int_equal(drv_peek8(d, BUFFER + 1024 * i + 923), 'A' + i % 26);
    }
}

static void test_reset_with_requests_in_flight(void **state)
{
    struct drv *d = *state;
    for (unsigned round = 0; round < 20; round++) {
        drv_start(d, ALL, 1, 256);
        for (unsigned i = 0; i < 32; i++) {
            const struct drv_seg segs[3] = {{HEADER + 16 * i, 16, false},
                                            {BUFFER + 65536 * i, 65536, true},
                                            {STATUS + 0x1000 + i, 1, true}};
            put_header(d, HEADER + 16 * i, VIRTIO_BLK_T_IN, 0);
            drv_add(d, 0, segs, 3);
        }
        drv_kick(d, 0);
        drv_common_write(d, device_status, 0);
        for (int i = 0; i < 10000 && drv_common_read(d, device_status); i++) {
            drv_turn(d);
            usleep(100);
        }
        assert_int_equal(drv_common_read(d, device_status), 0);
        /* From now on the memory is ours alone. */
        mull_mem_set(d->memory, BUFFER, 0x11, 32 * 65536);
        drv_turn(d);
        usleep(1000);
        drv_turn(d);
        for (unsigned i = 0; i < 32 * 65536; i += 4096)
            assert_int_equal(drv_peek8(d, BUFFER + i), 0x11);
    }
}

static void test_get_id(void **state)
{
    struct drv *d = *state;
    char id[21] = "";
    uint32_t len;
    drv_start(d, ALL, 1, 16);
    assert_int_equal(request(d, VIRTIO_BLK_T_GET_ID, 0, BUFFER, 20, &len), 0);
    assert_int_equal(len, 21);
    mull_mem_read(d->memory, BUFFER, id, 20);
    assert_string_equal(id, "serial-0123456789xyz");
    mull_mem_set(d->memory, BUFFER, 0, 20);
    assert_int_equal(request(d, VIRTIO_BLK_T_GET_ID, 0, BUFFER, 3, &len), 0);
    assert_int_equal(len, 4);
    assert_int_equal(drv_peek8(d, BUFFER + 3), 0);
}

static uint8_t ranges(struct drv *d, uint32_t type,
                      const struct virtio_blk_discard_write_zeroes *list, unsigned count)
{
    uint32_t bytes = count * (uint32_t)sizeof(*list);
    if (bytes)
        mull_mem_write(d->memory, BUFFER, list, bytes);
    return request(d, type, 0, BUFFER, bytes, NULL);
}

static void test_discard_and_write_zeroes(void **state)
{
    struct drv *d = *state;
    struct virtio_blk_discard_write_zeroes r[17] = {{0, 8, 0}, {16, 0, 0}, {24, 8, 0}};
    drv_start(d, ALL, 1, 16);
    assert_int_equal(ranges(d, VIRTIO_BLK_T_WRITE_ZEROES, r, 3), 0);
    assert_int_equal(request(d, VIRTIO_BLK_T_IN, 0, BUFFER, 64 * 512, NULL), 0);
    assert_int_equal(drv_peek8(d, BUFFER), 0);
    assert_int_equal(drv_peek8(d, BUFFER + 8 * 512), 'I');
    assert_int_equal(drv_peek8(d, BUFFER + 24 * 512), 0);
    assert_int_equal(drv_peek8(d, BUFFER + 32 * 512 - 1), 0);
    assert_int_equal(drv_peek8(d, BUFFER + 32 * 512), 'G');
    r[0].flags = VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;
    assert_int_equal(ranges(d, VIRTIO_BLK_T_WRITE_ZEROES, r, 1), 0);
    assert_int_equal(ranges(d, VIRTIO_BLK_T_DISCARD, r, 1), VIRTIO_BLK_S_UNSUPP);
    r[0].flags = 0;
    assert_int_equal(ranges(d, VIRTIO_BLK_T_DISCARD, r, 3), 0);
    assert_int_equal(ranges(d, VIRTIO_BLK_T_DISCARD, r, 0), VIRTIO_BLK_S_IOERR);
    assert_int_equal(ranges(d, VIRTIO_BLK_T_DISCARD, r, 17), VIRTIO_BLK_S_IOERR);
    r[0].num_sectors = SECTORS;
    r[0].sector = 1;
    assert_int_equal(ranges(d, VIRTIO_BLK_T_DISCARD, r, 1), VIRTIO_BLK_S_IOERR);
    r[0].sector = ~0ull;
    assert_int_equal(ranges(d, VIRTIO_BLK_T_WRITE_ZEROES, r, 1), VIRTIO_BLK_S_IOERR);
    r[0] = (struct virtio_blk_discard_write_zeroes){0, 1, 6};
    assert_int_equal(ranges(d, VIRTIO_BLK_T_WRITE_ZEROES, r, 1), VIRTIO_BLK_S_UNSUPP);
    r[0] = (struct virtio_blk_discard_write_zeroes){0, 0xffffffff, 0};
    assert_int_equal(ranges(d, VIRTIO_BLK_T_WRITE_ZEROES, r, 1), VIRTIO_BLK_S_IOERR);
    mull_mem_write(d->memory, BUFFER, r, sizeof(r));
    assert_int_equal(request(d, VIRTIO_BLK_T_DISCARD, 0, BUFFER, 15, NULL), VIRTIO_BLK_S_IOERR);
}

static void test_refused_requests(void **state)
{
    struct drv *d = *state;
    uint32_t len;
    drv_start(d, ALL, 1, 16);
    assert_int_equal(request(d, VIRTIO_BLK_T_IN, SECTORS, BUFFER, 512, &len), 1);
    assert_int_equal(len, 1);
    assert_int_equal(request(d, VIRTIO_BLK_T_IN, SECTORS - 1, BUFFER, 1024, &len), 1);
    assert_int_equal(request(d, VIRTIO_BLK_T_IN, ~0ull, BUFFER, 1024, &len), 1);
    assert_int_equal(request(d, VIRTIO_BLK_T_IN, 1ull << 55, BUFFER, 512, &len), 1);
    assert_int_equal(request(d, VIRTIO_BLK_T_OUT, SECTORS, BUFFER, 512, &len), 1);
    assert_int_equal(request(d, VIRTIO_BLK_T_IN, 0, BUFFER, 511, &len), 1);
    assert_int_equal(request(d, VIRTIO_BLK_T_OUT, 0, BUFFER, 100, &len), 1);
    assert_int_equal(request(d, VIRTIO_BLK_T_IN, 0, DRV_RAM, 512, &len), 1);
    assert_int_equal(request(d, VIRTIO_BLK_T_IN, 0, DRV_RAM - 256, 512, &len), 1);
    assert_int_equal(request(d, VIRTIO_BLK_T_OUT, 0, ~0ull - 4096, 512, &len), 1);
    assert_int_equal(request(d, 99, 0, BUFFER, 512, &len), VIRTIO_BLK_S_UNSUPP);
    drv_assert_fine(d);
    assert_int_equal(request(d, VIRTIO_BLK_T_IN, 0, BUFFER, 512, &len), 0);
}

static void test_malformed_requests(void **state)
{
    struct drv *d = *state;
    static const struct drv_seg cases[][2] = {
        {{HEADER, 16, false}, {0, 0, false}},      /* no status */
        {{HEADER, 15, false}, {STATUS, 1, true}},  /* a short header */
        {{STATUS, 1, true}, {STATUS, 1, true}},    /* no header */
        {{DRV_RAM, 16, false}, {STATUS, 1, true}}, /* a header outside of RAM */
    };
    for (unsigned i = 0; i < 4; i++) {
        drv_start(d, ALL, 1, 16);
        put_header(d, HEADER, VIRTIO_BLK_T_FLUSH, 0);
        drv_add(d, 0, cases[i], cases[i][1].len ? 2 : 1);
        drv_kick(d, 0);
        drv_assert_broken(d);
    }
    /* A status byte outside of RAM gets no status, and that is all. */
    const struct drv_seg lost[2] = {{HEADER, 16, false}, {DRV_RAM, 1, true}};
    uint32_t id, len;
    drv_start(d, ALL, 1, 16);
    drv_add(d, 0, lost, 2);
    drv_kick(d, 0);
    drv_wait_used(d, 0, &id, &len);
    assert_int_equal(len, 0);
    drv_assert_fine(d);
}

static void test_cache_mode(void **state)
{
    struct drv *d = *state;
    drv_start(d, ALL, 1, 16);
    drv_write(d, d->config + 32, 1, 0);
    assert_int_equal(drv_read(d, d->config + 32, 1), 0);
    assert_int_equal(request(d, VIRTIO_BLK_T_OUT, 0, BUFFER, 512, NULL), 0);
    drv_write(d, d->config + 32, 1, 0xff);
    assert_int_equal(drv_read(d, d->config + 32, 1), 1);
    drv_write(d, d->config, 4, 0xffffffff); /* the capacity is not the driver's */
    assert_int_equal(drv_read(d, d->config, 4), SECTORS);
    drv_write(d, d->config + 32, 1, 0);
    drv_start(d, ALL & ~(1ull << VIRTIO_BLK_F_CONFIG_WCE), 1, 16);
    assert_int_equal(drv_read(d, d->config + 32, 1), 1);
    drv_write(d, d->config + 32, 1, 0);
    assert_int_equal(drv_read(d, d->config + 32, 1), 1);
    /* No FLUSH: each write is durable by itself. */
    drv_start(d, 0, 1, 16);
    assert_int_equal(request(d, VIRTIO_BLK_T_OUT, 0, BUFFER, 512, NULL), 0);
    assert_int_equal(request(d, VIRTIO_BLK_T_DISCARD, 0, BUFFER, 16, NULL), VIRTIO_BLK_S_UNSUPP);
}

static void test_readonly(void **state)
{
    struct drv *d = *state;
    assert_true(drv_offered(d) & 1 << VIRTIO_BLK_F_RO);
    assert_false(drv_offered(d) & 1 << VIRTIO_BLK_F_DISCARD);
    drv_start(d, ALL, 1, 16);
    assert_int_equal(request(d, VIRTIO_BLK_T_IN, 2, BUFFER, 512, NULL), 0);
    assert_int_equal(drv_peek8(d, BUFFER), 'C');
    assert_int_equal(request(d, VIRTIO_BLK_T_OUT, 0, BUFFER, 512, NULL), 1);
    assert_int_equal(request(d, VIRTIO_BLK_T_FLUSH, 0, 0, 0, NULL), 0);
}

/* A request that fails is held until somebody tries again; the guest sees nothing of it. */
static void test_held_after_an_error(void **state)
{
    struct fixture *f = *state;
    struct drv *d = &f->drv;
    const struct drv_seg segs[3] = {{HEADER, 16, false}, {BUFFER, 4096, false}, {STATUS, 1, true}};
    uint32_t id, len;

    drv_start(d, ALL, 1, 16);
    mull_mem_set(d->memory, BUFFER, 'h', 4096);
    put_header(d, HEADER, VIRTIO_BLK_T_OUT, 8);
    mull_mem_set(d->memory, STATUS, 0xcc, 1);
    f->fault = -ENOSPC;
    drv_add(d, 0, segs, 3);
    drv_kick(d, 0);
    mull_block_drain(f->block);
    assert_int_equal(f->held, 1);
    assert_false(drv_used(d, 0, &id, &len));
    /* The machine is paused and resumed, too early; a request that makes no sense is not held. */
    d->device->ops->quiesce(d->device);
    d->device->ops->resume(d->device);
    mull_block_retry(f->block);
    mull_block_drain(f->block);
    assert_int_equal(f->held, 2);
    assert_false(drv_used(d, 0, &id, &len));
    f->fault = 0;
    mull_block_retry(f->block);
    drv_wait_used(d, 0, &id, &len);
    assert_int_equal(drv_peek8(d, STATUS), 0);
    assert_int_equal(request(d, VIRTIO_BLK_T_IN, 8, BUFFER + 8192, 4096, NULL), 0);
    assert_int_equal(drv_peek8(d, BUFFER + 8192 + 4095), 'h');
    assert_int_equal(request(d, VIRTIO_BLK_T_OUT, SECTORS, BUFFER, 512, NULL), 1);
    assert_int_equal(f->held, 2);

    /* The driver's reset waits for a held request; the machine's lets go of it. */
    f->fault = -EIO;
    put_header(d, HEADER, VIRTIO_BLK_T_OUT, 8);
    drv_add(d, 0, segs, 3);
    drv_kick(d, 0);
    mull_block_drain(f->block);
    assert_int_equal(f->held, 3);
    drv_common_write(d, device_status, 0);
    assert_int_not_equal(drv_common_read(d, device_status), 0);
    d->device->ops->reset(d->device);
    mull_block_retry(f->block);
    mull_block_drain(f->block);
    assert_int_equal(f->held, 3);
    f->fault = 0;
}

static bool take_bells(void *opaque, const struct mull_doorbells *bells, uint64_t gpa, bool on)
{
    *(int *)opaque = on ? bells->fd : -1;
    return true;
}

/* An engine raises the device's event instead of a call for each kick: all queues are looked at. */
static void test_doorbells(void **state)
{
    struct fixture *f = *state;
    struct drv *d = &f->drv;
    const uint64_t one = 1;
    int fd = -1;
    const struct mull_memory_watch watch = {.opaque = &fd, .doorbells = take_bells};
    uint32_t id, len;

    mull_memory_set_watch(d->memory, &watch);
    assert_true(fd >= 0);
    drv_start(d, ALL, 2, 16);
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned queue = 0; queue < 2; queue++) {
            const uint64_t at = HEADER + 0x1000 * queue;
            const struct drv_seg segs[3] = {
                {at, 16, false}, {BUFFER + 0x1000 * queue, 512, true}, {at + 0x100, 1, true}};
            put_header(d, at, VIRTIO_BLK_T_IN, round + queue);
            mull_mem_set(d->memory, at + 0x100, 0xcc, 1);
            drv_add(d, queue, segs, 3);
        }
        assert_int_equal(write(fd, &one, sizeof(one)), sizeof(one));
        for (unsigned queue = 0; queue < 2; queue++) {
            drv_wait_used(d, queue, &id, &len);
            assert_int_equal(drv_peek8(d, HEADER + 0x1000 * queue + 0x100), VIRTIO_BLK_S_OK);
            assert_int_equal(drv_peek8(d, BUFFER + 0x1000 * queue), 'A' + round + queue);
        }
    }
    mull_memory_set_watch(d->memory, NULL);
    assert_int_equal(fd, -1);
    /* As ever. */
    assert_int_equal(request(d, VIRTIO_BLK_T_IN, 5, BUFFER, 512, NULL), VIRTIO_BLK_S_OK);
    assert_int_equal(drv_peek8(d, BUFFER), 'F');
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(test_config),
        T(test_read_and_write),
        T(test_two_queues),
        T(test_many_in_flight),
        T(test_reset_with_requests_in_flight),
        T(test_get_id),
        T(test_discard_and_write_zeroes),
        T(test_refused_requests),
        T(test_malformed_requests),
        T(test_cache_mode),
        T(test_doorbells),
        cmocka_unit_test_setup_teardown(test_held_after_an_error, setup_hold, teardown),
        cmocka_unit_test_setup_teardown(test_readonly, setup_readonly, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
