/* Packed queues, driven as a guest's driver would and as none should; every device's own tests run
 * over them, too (virtio_blk_packed and so on). */
#include "virtio_echo.h"

#include "base/fields.h"

#define ALL_FEATURES (~0ull)
#define NO_EVENTS (~(1ull << VIRTIO_RING_F_EVENT_IDX))
#define AVAIL(wrap) ((wrap) ? 0x80 : 0)
#define USED(wrap) ((wrap) ? 0x8000 : 0)
/* The event suppression structures (2.8.14): the driver's and the device's. */
#define DRIVER_EVENT(d) ((d)->queues[0].avail)
#define DEVICE_EVENT(d) ((d)->queues[0].used)
enum { ENABLE, DISABLE, DESC };

static const struct drv_seg pair[2] = {{DRV_DATA, 16, false}, {DRV_DATA + 0x1000, 32, true}};

static void once(struct drv *d, unsigned count)
{
    uint32_t id, len;
    uint16_t head = drv_add(d, 0, pair + (count == 1), count);
    drv_kick(d, 0);
    assert_true(drv_used(d, 0, &id, &len));
    assert_int_equal(id, head);
    assert_int_equal(len, count == 1 ? 0 : 16);
    assert_false(drv_used(d, 0, &id, &len));
}

static void test_around_the_ring(void **state)
{
    struct drv *d = *state;
    /* A size that is no power of two; chains of one and two descriptors, many times around. */
    drv_start(d, NO_EVENTS, 2, 7);
    assert_true(d->queues[0].packed);
    for (unsigned i = 0; i < 500; i++)
        once(d, 1 + i % 2);
    assert_int_equal(d->messages[1], 500);
    drv_assert_fine(d);
}

static void test_indirect(void **state)
{
    struct drv *d = *state;
    uint32_t id, len;
    drv_start(d, ALL_FEATURES, 2, 4);
    for (unsigned i = 0; i < 20; i++) {
        uint16_t head = drv_add_indirect(d, 0, DRV_DATA + 0x4000, pair, 2);
        drv_kick(d, 0);
        assert_true(drv_used(d, 0, &id, &len));
        assert_int_equal(id, head);
        assert_int_equal(len, 16);
    }
}

/* Given back in another order, and all at once. */
static void test_out_of_order(void **state)
{
    struct drv *d = *state;
    struct echo *e = echo_of(d);
    uint32_t id, len;
    uint16_t ids[4];
    drv_start(d, NO_EVENTS, 2, 8);
    e->hold = true;
    for (unsigned i = 0; i < 4; i++)
        ids[i] = drv_add(d, 0, pair, 1 + i % 2);
    drv_kick(d, 0);
    assert_int_equal(e->nheld, 4);
    mull_virtio_lock(&e->v);
    mull_virtqueue_push(&e->v.queues[0], e->held[2], 3);
    mull_virtqueue_fill(&e->v.queues[0], 0, e->held[1], 1);
    mull_virtqueue_fill(&e->v.queues[0], 1, e->held[3], 2);
    mull_virtio_unlock(&e->v);
    assert_true(drv_used(d, 0, &id, &len));
    assert_true(id == ids[2] && len == 3);
    assert_false(drv_used(d, 0, &id, &len)); /* not published */
    mull_virtio_lock(&e->v);
    mull_virtqueue_publish(&e->v.queues[0], 2);
    mull_virtio_unlock(&e->v);
    assert_true(drv_used(d, 0, &id, &len));
    assert_true(id == ids[1] && len == 1);
    assert_true(drv_used(d, 0, &id, &len));
    assert_true(id == ids[3] && len == 2);
    /* The driver has five descriptors again; the first chain is still out. */
    e->nheld = 1;
    e->hold = false;
    for (unsigned i = 0; i < 30; i++) {
        drv_add(d, 0, pair, 2);
        drv_kick(d, 0);
        assert_true(drv_used(d, 0, &id, &len));
    }
    release(e);
    assert_true(drv_used(d, 0, &id, &len));
    assert_int_equal(id, ids[0]);
    drv_assert_fine(d);
}

static void test_take_and_put_back(void **state)
{
    struct drv *d = *state;
    struct echo *e = echo_of(d);
    struct mull_virtqueue *q = &e->v.queues[0];
    static struct mull_chain chain;
    uint32_t id, len;
    drv_start(d, ALL_FEATURES, 2, 4);
    for (unsigned turn = 0; turn < 9; turn++) {
        drv_add(d, 0, pair, 2);
        drv_add(d, 0, pair, 1);
        mull_virtio_lock(&e->v);
        for (unsigned i = 0; i < 3; i++) { /* wraps around the ring's end at any place */
            assert_int_equal(mull_virtqueue_pop(q, &chain), 1);
            assert_int_equal(chain.nin, 1);
            assert_int_equal(mull_virtqueue_pop(q, &chain), 1);
            assert_int_equal(chain.nin, 0);
            assert_int_equal(mull_virtqueue_pop(q, &chain), 0);
            mull_virtqueue_unpop(q);
            mull_virtqueue_unpop(q);
        }
        assert_true(mull_virtqueue_listen_beyond(q, 1));
        assert_false(mull_virtqueue_listen_beyond(q, 2));
        mull_virtio_unlock(&e->v);
        drv_kick(d, 0);
        assert_true(drv_used(d, 0, &id, &len));
        assert_true(drv_used(d, 0, &id, &len));
    }
}

static void test_events(void **state)
{
    struct drv *d = *state;
    drv_start(d, ALL_FEATURES, 2, 8);
    once(d, 1);
    assert_int_equal(d->messages[1], 1);
    /* The device wants to hear of what comes next: place 1 of the first turn. */
    assert_int_equal(drv_peek16(d, DEVICE_EVENT(d)), 0x8001);
    assert_int_equal(drv_peek16(d, DEVICE_EVENT(d) + 2), DESC);
    drv_poke16(d, DRIVER_EVENT(d) + 2, DISABLE);
    once(d, 1);
    assert_int_equal(d->messages[1], 1);
    drv_poke16(d, DRIVER_EVENT(d), 0x8004); /* tell of place 4 of this turn */
    drv_poke16(d, DRIVER_EVENT(d) + 2, DESC);
    once(d, 1); /* the first that is counted: it is told */
    unsigned told = d->messages[1];
    once(d, 1);
    assert_int_equal(d->messages[1], told);
    once(d, 1); /* place 4 */
    assert_int_equal(d->messages[1], told + 1);
    once(d, 1);
    assert_int_equal(d->messages[1], told + 1);
    /* Over the end: of the next turn only what was asked for, and once for the turn itself. */
    drv_poke16(d, DRIVER_EVENT(d), 0x0002);
    once(d, 2);
    assert_in_range(d->messages[1], told + 1, told + 2);
    once(d, 1);
    once(d, 1);
    told = d->messages[1];
    once(d, 1);
    assert_in_range(d->messages[1], told, told + 1);
    drv_assert_fine(d);
}

static void test_kicks_without_events(void **state)
{
    struct drv *d = *state;
    drv_start(d, NO_EVENTS, 2, 8);
    once(d, 1);
    assert_int_equal(drv_peek16(d, DEVICE_EVENT(d) + 2), ENABLE);
    drv_poke16(d, DRIVER_EVENT(d) + 2, DISABLE);
    unsigned told = d->messages[1];
    once(d, 1);
    assert_int_equal(d->messages[1], told);
}

static void put(struct drv *d, unsigned at, uint64_t gpa, uint32_t len, uint16_t flags)
{
    const struct vring_packed_desc desc = {gpa, len, 0, flags};
    mull_mem_write(d->memory, d->queues[0].desc + 16 * at, &desc, sizeof(desc));
}

static void test_bad_chains(void **state)
{
    struct drv *d = *state;
    const uint16_t there = AVAIL(1);
    const struct {
        const char *what;
        struct vring_packed_desc desc[2];
    } bad[] = {
        {"readable after writable", {{DRV_DATA, 16, 0, there | 3}, {DRV_DATA, 16, 0, there}}},
        {"a buffer that wraps", {{~7ull, 16, 0, there}}},
        {"4 GiB in all", {{0, ~0u, 0, there | 1}, {0, ~0u, 0, there}}},
        {"an empty indirect table", {{DRV_DATA, 0, 0, there | 4}}},
        {"an odd indirect table", {{DRV_DATA, 17, 0, there | 4}}},
        {"a huge indirect table", {{DRV_DATA, 16 * 1025, 0, there | 4}}},
        {"an indirect table outside of RAM", {{DRV_RAM, 32, 0, there | 4}}},
        {"indirect with next", {{DRV_DATA, 32, 0, there | 5}}},
        {"indirect behind another", {{DRV_DATA, 16, 0, there | 1}, {DRV_DATA, 32, 0, there | 4}}},
    };
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        drv_start(d, ALL_FEATURES, 2, 8);
        for (unsigned j = 2; j-- > 0;)
            put(d, j, bad[i].desc[j].addr, bad[i].desc[j].len, bad[i].desc[j].flags);
        drv_kick(d, 0);
        if (!(drv_common_read(d, device_status) & VIRTIO_CONFIG_S_NEEDS_RESET))
            fail_msg("%s", bad[i].what);
    }
    /* A chain around the whole ring that does not end. */
    drv_start(d, ALL_FEATURES, 2, 8);
    for (unsigned i = 8; i-- > 0;)
        put(d, i, DRV_DATA, 16, there | 1);
    drv_kick(d, 0);
    drv_assert_broken(d);
    /* More chains than the ring has descriptors: one is offered again while it is out. */
    drv_start(d, ALL_FEATURES, 2, 8);
    echo_of(d)->hold = true;
    for (unsigned turn = 0; turn < 4; turn++) {
        for (unsigned i = 0; i < 8; i++)
            put(d, i, DRV_DATA, 16, AVAIL(!(turn & 1)) | USED(turn & 1));
        drv_kick(d, 0);
    }
    drv_assert_broken(d);
    assert_int_equal(echo_of(d)->nheld, 8);
    release(echo_of(d));
    echo_of(d)->hold = false;
    drv_start(d, ALL_FEATURES, 2, 8);
    once(d, 2);
}

static void test_bad_rings(void **state)
{
    struct drv *d = *state;
    static const struct {
        uint64_t desc, driver, device;
        unsigned size;
    } bad[] = {{DRV_DATA + 8, DRV_DATA, DRV_DATA, 8}, {DRV_DATA, DRV_DATA + 2, DRV_DATA, 8},
               {DRV_DATA, DRV_DATA, DRV_DATA + 1, 8}, {~15ull, DRV_DATA, DRV_DATA, 8},
               {DRV_DATA, DRV_DATA, DRV_DATA, 0},     {DRV_DATA, DRV_DATA, DRV_DATA, 65}};
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        drv_negotiate(d, ALL_FEATURES);
        d->queues[0] = (struct drv_queue){.size = bad[i].size,
                                          .desc = bad[i].desc,
                                          .avail = bad[i].driver,
                                          .used = bad[i].device};
        drv_queue_program(d, 0);
        assert_int_equal(drv_common_read(d, queue_enable), 0);
        drv_assert_broken(d);
    }
    /* Aligned, and not in RAM: found when it is used. */
    drv_negotiate(d, ALL_FEATURES);
    d->queues[0] = (struct drv_queue){
        .size = 8, .desc = DRV_RAM, .avail = DRV_DATA, .used = DRV_DATA, .packed = true};
    drv_queue_program(d, 0);
    drv_driver_ok(d);
    drv_kick(d, 0);
    drv_assert_broken(d);
    drv_start(d, ALL_FEATURES, 2, 8);
    once(d, 1);
}

static void test_queue_reset(void **state)
{
    struct drv *d = *state;
    drv_start(d, ALL_FEATURES, 2, 6);
    for (unsigned i = 0; i < 4; i++)
        once(d, 2);
    drv_common_write(d, queue_select, 0);
    drv_write(d, d->common + DRV_QUEUE_RESET, 2, 1);
    assert_int_equal(drv_read(d, d->common + DRV_QUEUE_RESET, 2), 0);
    drv_queue(d, 0, 5); /* begins at the beginning again */
    for (unsigned i = 0; i < 4; i++)
        once(d, 2);
}

/* Not offered, it cannot be had. */
static void test_only_where_wanted(void **state)
{
    struct drv *d = *state;
    struct echo *e = echo_of(d);
    assert_true(drv_offered(d) >> VIRTIO_F_RING_PACKED & 1);
    e->v.device_features &= ~(1ull << VIRTIO_F_RING_PACKED);
    drv_start(d, ALL_FEATURES, 2, 8);
    assert_false(d->queues[0].packed);
    once(d, 2);
}

/* Saved positions go into the ring's end and no further. */
static void test_state(void **state)
{
    struct drv *d = *state;
    struct mull_virtqueue *q = &echo_of(d)->v.queues[0];
    struct mull_error err = {0};
    drv_start(d, ALL_FEATURES, 2, 6);
    for (unsigned i = 0; i < 4; i++)
        once(d, 2);
    bool wrap = q->avail_wrap;
    assert_int_equal(mull_virtqueue_desc.after_load(q, 2, &err), 0);
    assert_int_equal(q->avail_wrap, wrap);
    once(d, 2);
    once(d, 1);
    q->next_avail = 6;
    assert_int_not_equal(mull_virtqueue_desc.after_load(q, 2, &err), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_around_the_ring, setup, teardown),
        cmocka_unit_test_setup_teardown(test_indirect, setup, teardown),
        cmocka_unit_test_setup_teardown(test_out_of_order, setup, teardown),
        cmocka_unit_test_setup_teardown(test_take_and_put_back, setup, teardown),
        cmocka_unit_test_setup_teardown(test_events, setup, teardown),
        cmocka_unit_test_setup_teardown(test_kicks_without_events, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_chains, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_rings, setup, teardown),
        cmocka_unit_test_setup_teardown(test_queue_reset, setup, teardown),
        cmocka_unit_test_setup_teardown(test_only_where_wanted, setup, teardown),
        cmocka_unit_test_setup_teardown(test_state, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
