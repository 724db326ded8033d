/* The memory balloon, driven as a guest's driver would. */
#include "virtio_driver.h"

#include <errno.h>
#include <linux/virtio_balloon.h>
#include <sys/mman.h>

#include "device/virtio/balloon.h"

#define ALL (~0ull)
enum { INFLATE, DEFLATE, STATS, REPORTING };
#define LIST DRV_DATA
#define PAGES (DRV_DATA + 0x100000u) /* what is given away */

static int setup(void **state)
{
    struct drv *d = calloc(1, sizeof(*d));
    struct mull_error err = {0};
    drv_init(d);
    const struct mull_virtio_balloon_config cfg = {.name = "virtio-balloon.0", .devfn = -1};
    assert_int_equal(mull_virtio_balloon_create(&d->env, d->bus, &cfg, &d->device, &err), 0);
    drv_find(d);
    *state = d;
    return 0;
}

static int teardown(void **state)
{
    struct drv *d = *state;
    drv_fini(d);
    free(d);
    return 0;
}

/* Of the pages from PAGES on, is number @page in the host's memory? */
static bool resident(struct drv *d, unsigned page)
{
    unsigned char in = 0;
    unsigned count;
    const struct mull_ram *ram = mull_memory_ram(d->memory, &count);
    uint8_t *at = ram->host + PAGES - ram->gpa + page * 4096u;
    assert_int_equal(mincore(at, 4096, &in), 0);
    return in & 1;
}

static void fill(struct drv *d, unsigned pages)
{
    for (unsigned i = 0; i < pages; i++)
        mull_mem_set(d->memory, PAGES + 4096u * i, (uint8_t)(i + 1), 4096);
}

static void send_list(struct drv *d, unsigned queue, const uint32_t *pfns, unsigned count)
{
    const struct drv_seg seg = {LIST, count * 4, false};
    uint32_t id, len;
    mull_mem_write(d->memory, LIST, pfns, count * 4);
    drv_add(d, queue, &seg, 1);
    drv_kick(d, queue);
    assert_true(drv_used(d, queue, &id, &len));
    assert_int_equal(len, 0);
}

static void test_inflate_gives_memory_back(void **state)
{
    struct drv *d = *state;
    const uint32_t base = PAGES >> 12;
    /* Downwards, as Linux does, with a hole, a page twice and one that is not RAM. */
    const uint32_t pfns[] = {base + 5, base + 4, base + 3, base + 1, base + 1, 0xfffffff0, ~0u};
    struct mull_balloon_info info;
    drv_start(d, ALL, 4, 16);
    fill(d, 8);
    send_list(d, INFLATE, pfns, 7);
    drv_assert_fine(d);
    for (unsigned i = 0; i < 8; i++) {
        bool given = i == 1 || (i >= 3 && i <= 5);
        assert_int_equal(resident(d, i), !given);
        assert_int_equal(drv_peek8(d, PAGES + 4096u * i + 7), given ? 0 : i + 1);
    }
    drv_write(d, d->config + 4, 4, 4); /* actual */
    mull_balloon_info(d->device, &info);
    assert_int_equal(info.actual, 4 * 4096);
    /* The guest takes one back: it is there as soon as it is touched. */
    send_list(d, DEFLATE, pfns, 1);
    mull_mem_set(d->memory, PAGES + 5 * 4096, 7, 4096);
    assert_true(resident(d, 5));
}

static void test_more_pages_than_fit_at_once(void **state)
{
    struct drv *d = *state;
    static uint32_t pfns[1000];
    drv_start(d, ALL, 4, 16);
    fill(d, 1000);
    for (unsigned i = 0; i < 1000; i++)
        pfns[i] = (PAGES >> 12) + 999 - i;
    send_list(d, INFLATE, pfns, 1000);
    for (unsigned i = 0; i < 1000; i++)
        assert_false(resident(d, i));
}

static void test_writes_are_seen(void **state)
{
    struct drv *d = *state;
    const uint32_t pfn = PAGES >> 12;
    static uint8_t bitmap[DRV_RAM / 4096 / 8];
    unsigned count;
    drv_start(d, ALL, 4, 16);
    fill(d, 1);
    mull_memory_dirty_start(d->memory);
    send_list(d, INFLATE, &pfn, 1);
    mull_memory_dirty_fetch(d->memory, mull_memory_ram(d->memory, &count), bitmap);
    assert_true(bitmap[pfn / 8] & 1 << pfn % 8);
    mull_memory_dirty_stop(d->memory);
}

static void test_target(void **state)
{
    struct drv *d = *state;
    drv_start(d, ALL, 4, 16);
    assert_int_equal(drv_read(d, d->config, 4), 0);
    unsigned messages = d->messages[0];
    mull_balloon_set(d->device, 10 << 20);
    drv_turn(d);
    assert_int_equal(drv_read(d, d->config, 4), 2560);
    assert_true(d->messages[0] > messages || d->intx);
    drv_write(d, d->config, 4, 1); /* not the driver's to write */
    assert_int_equal(drv_read(d, d->config, 4), 2560);
    mull_balloon_set(d->device, UINT64_MAX);
    assert_int_equal(drv_read(d, d->config, 4), UINT32_MAX);
    /* After a reset of the guest the owner still wants it. */
    mull_balloon_set(d->device, 4096);
    drv_write(d, d->config + 4, 4, 1);
    drv_start(d, ALL, 4, 16);
    assert_int_equal(drv_read(d, d->config, 4), 1);
    assert_int_equal(drv_read(d, d->config + 4, 4), 0);
}

static void test_reporting(void **state)
{
    struct drv *d = *state;
    /* A block, one that is no whole page at either end, one outside RAM. */
    const struct drv_seg segs[3] = {
        {PAGES, 2 * 4096, true}, {PAGES + 3 * 4096 + 1, 3 * 4096, true}, {0xfffff000, 8192, true}};
    struct mull_balloon_info info;
    uint32_t id, len;
    drv_start(d, ALL, 4, 16);
    fill(d, 8);
    drv_add(d, REPORTING, segs, 3);
    drv_kick(d, REPORTING);
    assert_true(drv_used(d, REPORTING, &id, &len));
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(resident(d, i), i == 2 || i == 3 || i >= 6);
    mull_balloon_info(d->device, &info);
    assert_int_equal(info.reported, 4 * 4096);
    drv_assert_fine(d);
}

static void put_stats(struct drv *d, uint64_t free)
{
    const struct virtio_balloon_stat stats[3] = {
        {VIRTIO_BALLOON_S_MEMFREE, free}, {VIRTIO_BALLOON_S_MEMTOT, 99}, {1000, 5}};
    mull_mem_write(d->memory, LIST, stats, sizeof(stats));
}

static void test_statistics(void **state)
{
    struct drv *d = *state;
    const struct drv_seg seg = {LIST, 3 * sizeof(struct virtio_balloon_stat), false};
    struct mull_balloon_info info;
    uint32_t id, len;
    drv_start(d, ALL, 4, 16);
    mull_balloon_info(d->device, &info);
    assert_true(info.driver && !info.fresh && info.stats[4] == MULL_BALLOON_UNKNOWN);
    put_stats(d, 11);
    drv_add(d, STATS, &seg, 1);
    drv_kick(d, STATS);
    assert_false(drv_used(d, STATS, &id, &len)); /* the device keeps it */
    mull_balloon_info(d->device, &info);
    assert_true(info.fresh && info.stats[4] == 11 && info.stats[5] == 99);
    assert_true(info.stats[0] == MULL_BALLOON_UNKNOWN);
    /* Asked again, it gives the buffer back; the driver fills it. Not stopped by a pause. */
    d->device->ops->quiesce(d->device);
    mull_balloon_refresh(d->device);
    drv_turn(d);
    assert_false(drv_used(d, STATS, &id, &len));
    d->device->ops->resume(d->device);
    drv_turn(d);
    assert_true(drv_used(d, STATS, &id, &len));
    mull_balloon_info(d->device, &info);
    assert_false(info.fresh);
    put_stats(d, 22);
    drv_add(d, STATS, &seg, 1);
    drv_kick(d, STATS);
    mull_balloon_info(d->device, &info);
    assert_true(info.fresh && info.stats[4] == 22);
    /* With the buffer in its hands the device still resets. */
    drv_start(d, ALL, 4, 16);
    assert_int_equal(drv_common_read(d, device_status) & 0x40, 0);
}

/* A driver without statistics counts its queues without a gap. */
static void test_queues_without_statistics(void **state)
{
    struct drv *d = *state;
    const struct drv_seg seg = {PAGES, 4096, true};
    uint32_t id, len;
    drv_start(d, ALL & ~(1ull << VIRTIO_BALLOON_F_STATS_VQ), 3, 16);
    fill(d, 1);
    drv_add(d, 2, &seg, 1);
    drv_kick(d, 2);
    assert_true(drv_used(d, 2, &id, &len));
    assert_false(resident(d, 0));
}

/* ---- Free page hints: queue 3 where there are statistics ---- */

static struct drv *hinting;
static unsigned told;

static void hinted(void *opaque)
{
    told++;
    hinting->device->ops->quiesce(hinting->device);
    mull_balloon_end_hints(hinting->device);
    hinting->device->ops->resume(hinting->device);
}

static int setup_hints(void **state)
{
    struct drv *d = calloc(1, sizeof(*d));
    const struct mull_virtio_balloon_config cfg = {
        .name = "virtio-balloon.0", .devfn = -1, .hinted = hinted};
    drv_init(d);
    assert_int_equal(mull_virtio_balloon_create(&d->env, d->bus, &cfg, &d->device, NULL), 0);
    drv_find(d);
    *state = hinting = d;
    told = 0;
    return 0;
}

enum { HINTS = 3 };

static void send_command(struct drv *d, uint32_t command)
{
    const struct drv_seg seg = {LIST, sizeof(command), false};
    uint32_t id, len;
    mull_mem_write(d->memory, LIST, &command, sizeof(command));
    drv_add(d, HINTS, &seg, 1);
    drv_kick(d, HINTS);
    assert_true(drv_used(d, HINTS, &id, &len));
}

static void send_hint(struct drv *d, uint64_t gpa, uint32_t size)
{
    const struct drv_seg seg = {gpa, size, true};
    uint32_t id, len;
    drv_add(d, HINTS, &seg, 1);
    drv_kick(d, HINTS);
    assert_true(drv_used(d, HINTS, &id, &len));
}

static void test_hints(void **state)
{
    struct drv *d = *state;
    struct mull_balloon_info info;
    struct mull_error err = {0};
    uint32_t command, again;
    assert_int_equal(mull_balloon_ask_hints(d->device, &err), -ENOTSUP); /* no driver yet */
    drv_start(d, ALL, 5, 16);
    assert_int_equal(drv_read(d, d->config + 8, 4), VIRTIO_BALLOON_CMD_ID_STOP);
    fill(d, 8);
    assert_int_equal(mull_balloon_ask_hints(d->device, &err), 0);
    assert_int_equal(mull_balloon_ask_hints(d->device, &err), -EBUSY);
    drv_turn(d);
    command = drv_read(d, d->config + 8, 4);
    assert_true(command > VIRTIO_BALLOON_CMD_ID_DONE);
    send_hint(d, PAGES + 7 * 4096, 4096); /* before it has begun */
    send_command(d, command + 1);         /* another question's */
    send_hint(d, PAGES + 7 * 4096, 4096);
    send_command(d, command);
    send_hint(d, PAGES, 4 * 4096);
    send_hint(d, PAGES + 5 * 4096 + 1, 2 * 4096); /* one whole page of it */
    send_hint(d, 0xfffff000, 8192);
    mull_mem_set(d->memory, PAGES + 2 * 4096 + 9, 99, 1); /* it is used again */
    mull_balloon_info(d->device, &info);
    mull_mem_set(d->memory, PAGES + 3 * 4096, 0, 4096); /* by a kernel that clears all */
    assert_true(info.asked && !told && !info.hinted);
    send_command(d, VIRTIO_BALLOON_CMD_ID_STOP);
    drv_turn(d);
    assert_int_equal(told, 1);
    for (unsigned i = 0; i < 8; i++) {
        bool given = i < 2 || i == 3 || i == 6;
        assert_int_equal(resident(d, i), !given);
        assert_int_equal(drv_peek8(d, PAGES + 4096u * i + 7), given ? 0 : i + 1);
    }
    mull_balloon_info(d->device, &info);
    assert_true(!info.asked && info.hinted == 4 * 4096);
    assert_int_equal(drv_read(d, d->config + 8, 4), VIRTIO_BALLOON_CMD_ID_DONE);
    drv_assert_fine(d);
    /* Another question has another number; a driver that is reset leaves it unanswered. */
    fill(d, 8);
    assert_int_equal(mull_balloon_ask_hints(d->device, &err), 0);
    drv_turn(d);
    again = drv_read(d, d->config + 8, 4);
    assert_true(again != command);
    send_command(d, again);
    send_hint(d, PAGES, 4 * 4096);
    drv_common_write(d, device_status, 0);
    drv_turn(d);
    assert_int_equal(told, 2);
    mull_balloon_info(d->device, &info);
    assert_true(!info.asked && info.hinted == 4 * 4096);
    assert_true(resident(d, 0));
    assert_int_equal(drv_read(d, d->config + 8, 4), VIRTIO_BALLOON_CMD_ID_STOP);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_inflate_gives_memory_back, setup, teardown),
        cmocka_unit_test_setup_teardown(test_more_pages_than_fit_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_writes_are_seen, setup, teardown),
        cmocka_unit_test_setup_teardown(test_target, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reporting, setup, teardown),
        cmocka_unit_test_setup_teardown(test_statistics, setup, teardown),
        cmocka_unit_test_setup_teardown(test_queues_without_statistics, setup, teardown),
        cmocka_unit_test_setup_teardown(test_hints, setup_hints, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
