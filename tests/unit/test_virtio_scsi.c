/* The virtio SCSI host over a real raw image, driven as a guest's driver would: requests, task
 * management, events. What the commands do is test_pvscsi.c's. */
#include "virtio_driver.h"

#include <fcntl.h>
#include <linux/virtio_scsi.h>
#include <stdio.h>
#include <unistd.h>

#include "device/storage/virtio_scsi.h"

#define DISK_SIZE (1u << 20)
#define REQUEST DRV_DATA
#define RESPONSE (DRV_DATA + 0x100)
#define EVENT (DRV_DATA + 0x200)
#define BUFFER (DRV_DATA + 0x10000)
#define CONTROL 0
#define EVENTS 1
#define REQUESTS 2
#define HEAD 51u /* of a request with a CDB of 32 bytes */
#define TAIL 108u

struct fixture {
    struct drv drv; /* must be first */
    char path[32];
    struct mull_block *block;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct mull_virtio_scsi_config cfg = {.name = "virtio-scsi.0", .queues = 2};

    drv_init(&f->drv);
    strcpy(f->path, "/tmp/mull-scsi-XXXXXX");
    int fd = mkstemp(f->path);
    assert_int_equal(ftruncate(fd, DISK_SIZE), 0);
    for (unsigned i = 0; i < 64; i++) {
        char sector[512];
        memset(sector, 'A' + (int)(i % 26), sizeof(sector));
        assert_int_equal(pwrite(fd, sector, 512, 512 * i), 512);
    }
    close(fd);
    const struct mull_block_options options = {.path = f->path, .format = "raw"};
    assert_int_equal(mull_block_open(&options, &f->block, NULL), 0);
    assert_int_equal(mull_block_start(f->block, f->drv.loop, NULL), 0);
    cfg.drive[2] = (struct mull_drive){.present = true, .block = f->block, .serial = "SN1"};
    assert_int_equal(mull_virtio_scsi_create(&f->drv.env, f->drv.bus, &cfg, &f->drv.device, NULL),
                     0);
    drv_find(&f->drv);
    drv_start(&f->drv, ~0ull, 4, 16);
    *state = f;
    return 0;
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

static void put(struct drv *d, uint64_t gpa, const void *data, size_t len)
{
    assert_int_equal(mull_mem_write(d->memory, gpa, data, len), 0);
}

static uint32_t get32(struct drv *d, uint64_t gpa)
{
    return drv_peek16(d, gpa) | (uint32_t)drv_peek16(d, gpa + 2) << 16;
}

/* @return the response; in the buffer is what was read. @to_guest: bytes, or minus those to write
 */
static unsigned run_on(struct drv *d, unsigned queue, unsigned target, const uint8_t *cdb,
                       int to_guest)
{
    struct virtio_scsi_cmd_req request = {.lun = {1, (uint8_t)target, 0x40, 0}};
    uint32_t id, len;

    memcpy(request.cdb, cdb, 16);
    put(d, REQUEST, &request, HEAD);
    struct drv_seg segs[3] = {{REQUEST, HEAD, false}};
    unsigned n = 1;
    if (to_guest < 0)
        segs[n++] = (struct drv_seg){BUFFER, (uint32_t)-to_guest, false};
    segs[n++] = (struct drv_seg){RESPONSE, TAIL, true};
    if (to_guest > 0)
        segs[n++] = (struct drv_seg){BUFFER, (uint32_t)to_guest, true};
    drv_add(d, queue, segs, n);
    drv_notify(d, queue);
    drv_wait_used(d, queue, &id, &len);
    return drv_peek8(d, RESPONSE + 11);
}

#define CDB(...) ((const uint8_t[16]){__VA_ARGS__})

static unsigned status(struct drv *d)
{
    return drv_peek8(d, RESPONSE + 10);
}

static void test_requests(void **state)
{
    struct drv *d = &((struct fixture *)*state)->drv;

    assert_int_equal(run_on(d, REQUESTS, 2, CDB(0x12, 0, 0, 0, 36), 36), 0);
    assert_int_equal(status(d), 0);
    assert_int_equal(drv_peek8(d, BUFFER + 8), 'M');
    assert_int_equal(run_on(d, REQUESTS + 1, 2, CDB(0x28, 0, 0, 0, 0, 2, 0, 0, 2), 2048), 0);
    assert_int_equal(drv_peek8(d, BUFFER), 'C');
    assert_int_equal(drv_peek8(d, BUFFER + 1023), 'D');
    assert_int_equal(get32(d, RESPONSE + 4), 1024); /* the rest of the room */
    mull_mem_set(d->memory, BUFFER, 'z', 512);
    assert_int_equal(run_on(d, REQUESTS, 2, CDB(0x2a, 0, 0, 0, 0, 5, 0, 0, 1), -512), 0);
    assert_int_equal(run_on(d, REQUESTS, 2, CDB(0x28, 0, 0, 0, 0, 5, 0, 0, 1), 512), 0);
    assert_int_equal(drv_peek8(d, BUFFER), 'z');
    /* Sense data come along. */
    assert_int_equal(run_on(d, REQUESTS, 2, CDB(0x28, 0, 0, 0x7f, 0, 5, 0, 0, 1), 512), 0);
    assert_int_equal(status(d), 2);
    assert_int_equal(get32(d, RESPONSE), 18);
    assert_int_equal(drv_peek8(d, RESPONSE + 12 + 2), 5);
    assert_int_equal(drv_peek8(d, RESPONSE + 12 + 12), 0x21);
    assert_int_equal(run_on(d, REQUESTS, 3, CDB(0), 0), VIRTIO_SCSI_S_BAD_TARGET);
    drv_assert_fine(d);
    const struct drv_seg cut[] = {{REQUEST, HEAD - 1, false}, {RESPONSE, TAIL, true}};
    drv_add(d, REQUESTS, cut, 2);
    drv_kick(d, REQUESTS);
    drv_assert_broken(d);
}

static uint8_t manage(struct drv *d, uint32_t subtype, unsigned target)
{
    struct virtio_scsi_ctrl_tmf_req request = {
        .type = VIRTIO_SCSI_T_TMF, .subtype = subtype, .lun = {1, (uint8_t)target, 0x40, 0}};
    const struct drv_seg segs[] = {{REQUEST, sizeof(request), false}, {RESPONSE, 1, true}};
    uint32_t id, len;

    put(d, REQUEST, &request, sizeof(request));
    drv_add(d, CONTROL, segs, 2);
    drv_notify(d, CONTROL);
    drv_wait_used(d, CONTROL, &id, &len);
    return drv_peek8(d, RESPONSE);
}

static void test_control(void **state)
{
    struct drv *d = &((struct fixture *)*state)->drv;

    assert_int_equal(manage(d, VIRTIO_SCSI_T_TMF_ABORT_TASK, 2), 0);
    assert_int_equal(manage(d, VIRTIO_SCSI_T_TMF_LOGICAL_UNIT_RESET, 2), 0);
    assert_int_equal(manage(d, VIRTIO_SCSI_T_TMF_QUERY_TASK, 2), 0);
    assert_int_equal(manage(d, 99, 2), VIRTIO_SCSI_S_FUNCTION_REJECTED);
    assert_int_equal(manage(d, VIRTIO_SCSI_T_TMF_ABORT_TASK, 9), VIRTIO_SCSI_S_BAD_TARGET);
    struct virtio_scsi_ctrl_an_req ask = {.type = VIRTIO_SCSI_T_AN_QUERY};
    const struct drv_seg segs[] = {{REQUEST, sizeof(ask), false},
                                   {RESPONSE, sizeof(struct virtio_scsi_ctrl_an_resp), true}};
    uint32_t id, len;
    put(d, REQUEST, &ask, sizeof(ask));
    drv_add(d, CONTROL, segs, 2);
    drv_notify(d, CONTROL);
    drv_wait_used(d, CONTROL, &id, &len);
    assert_int_equal(get32(d, RESPONSE), 0);
    assert_int_equal(drv_peek8(d, RESPONSE + 4), VIRTIO_SCSI_S_OK);
}

static void test_plugging(void **state)
{
    struct fixture *f = *state;
    struct drv *d = &f->drv;
    struct mull_drive drive = {.present = true, .block = f->block};
    const struct drv_seg event = {EVENT, sizeof(struct virtio_scsi_event), true};
    uint32_t id, len;

    assert_int_equal(mull_virtio_scsi_plug(d->device, 2, &drive, NULL), -16); /* taken */
    drv_add(d, EVENTS, &event, 1);
    drv_kick(d, EVENTS);
    mull_virtio_scsi_unplug(d->device, 2);
    drv_wait_used(d, EVENTS, &id, &len);
    assert_int_equal(get32(d, EVENT), VIRTIO_SCSI_T_TRANSPORT_RESET);
    assert_int_equal(drv_peek8(d, EVENT + 5), 2);
    assert_int_equal(get32(d, EVENT + 12), VIRTIO_SCSI_EVT_RESET_REMOVED);
    assert_int_equal(run_on(d, REQUESTS, 2, CDB(0), 0), VIRTIO_SCSI_S_BAD_TARGET);
    /* Without a buffer it is missed, and the next one says so. */
    assert_int_equal(mull_virtio_scsi_plug(d->device, 4, &drive, NULL), 0);
    drv_add(d, EVENTS, &event, 1);
    drv_kick(d, EVENTS);
    mull_virtio_scsi_unplug(d->device, 4);
    drv_wait_used(d, EVENTS, &id, &len);
    assert_int_equal(get32(d, EVENT), VIRTIO_SCSI_T_TRANSPORT_RESET | VIRTIO_SCSI_T_EVENTS_MISSED);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {T(test_requests), T(test_control), T(test_plugging)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
