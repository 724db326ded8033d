/* Split queues, the common part and virtio over PCI, driven as a guest's driver would and as none
 * should. The device here notes each chain and gives it back at once, or when it is told to. */
#include <pthread.h>

#include "virtio_echo.h"

#define ALL_FEATURES (~0ull)
#define NO_EVENTS (~(1ull << VIRTIO_RING_F_EVENT_IDX))
#define RESET_RING (1ull << 40)

static const struct drv_seg pair[2] = {{DRV_DATA, 16, false}, {DRV_DATA + 0x1000, 32, true}};

/* ---- What a good driver sees ---- */

static void test_registers(void **state)
{
    struct drv *d = *state;
    assert_int_equal(drv_config_read(d, 2, 2), 0x1044);
    assert_int_equal(drv_config_read(d, 8, 4), 0xff000001);
    assert_int_equal(drv_common_read(d, num_queues), 2);
    assert_int_equal(drv_common_read(d, queue_size), 64);
    assert_int_equal(drv_common_read(d, queue_msix_vector), 0xffff);
    assert_int_equal(drv_common_read(d, msix_config), 0xffff);
    drv_common_write(d, queue_select, 1);
    assert_int_equal(drv_common_read(d, queue_notify_off), 1);
    drv_common_write(d, queue_select, 2);
    assert_int_equal(drv_common_read(d, queue_size), 0);
    assert_int_equal(drv_offered(d), RESET_RING | 1ull << 32 | 1ull << 28 | 1ull << 29 | 1ull << 5);
    drv_common_write(d, device_feature_select, 2);
    assert_int_equal(drv_common_read(d, device_feature), 0);
    /* A vector that does not exist. */
    drv_common_write(d, msix_config, 3);
    assert_int_equal(drv_common_read(d, msix_config), 0xffff);
    drv_common_write(d, msix_config, 2);
    assert_int_equal(drv_common_read(d, msix_config), 2);
    assert_int_equal(drv_read(d, d->config, 4), 0x666e6f63);
    assert_int_equal(drv_read(d, d->config + 4, 4), 0); /* beyond the end */
    assert_int_equal(drv_read(d, d->config + 4, 2), 0x6769);
    drv_write(d, d->config + 5, 1, 'x');
    assert_int_equal(echo_of(d)->config_writes, 1);
    drv_write(d, d->config + 4, 4, 0);
    assert_int_equal(echo_of(d)->config_writes, 1);
}

static void test_features_need_version_1(void **state)
{
    struct drv *d = *state;
    drv_common_write(d, device_status, 3);
    drv_common_write(d, device_status, 0xb);
    assert_int_equal(drv_common_read(d, device_status), 3);
    drv_common_write(d, guest_feature_select, 1);
    drv_common_write(d, guest_feature, 1 | 1 << 2); /* bit 34: packed, not offered */
    drv_common_write(d, device_status, 0xb);
    assert_int_equal(drv_common_read(d, device_status), 3);
    drv_common_write(d, device_status, 0xf); /* no DRIVER_OK without FEATURES_OK */
    assert_int_equal(drv_common_read(d, device_status), 3);
    drv_common_write(d, guest_feature, 1);
    drv_common_write(d, device_status, 0xb);
    assert_int_equal(drv_common_read(d, device_status), 0xb);
    drv_common_write(d, guest_feature, 0); /* too late */
    assert_int_equal(drv_common_read(d, guest_feature), 1);
}

static void echo_once(struct drv *d, bool indirect)
{
    uint32_t id, len;
    assert_int_equal(mull_mem_write(d->memory, DRV_DATA, "0123456789abcdef", 16), 0);
    mull_mem_set(d->memory, DRV_DATA + 0x1000, 0, 32);
    uint16_t head =
        indirect ? drv_add_indirect(d, 0, DRV_DATA + 0x2000, pair, 2) : drv_add(d, 0, pair, 2);
    drv_kick(d, 0);
    assert_true(drv_used(d, 0, &id, &len));
    assert_int_equal(id, head);
    assert_int_equal(len, 16);
    assert_int_equal(drv_peek8(d, DRV_DATA + 0x100f), 'f');
    assert_false(drv_used(d, 0, &id, &len));
}

static void test_echo(void **state)
{
    struct drv *d = *state;
    drv_start(d, NO_EVENTS, 2, 16);
    assert_int_equal(echo_of(d)->starts, 1);
    for (unsigned i = 0; i < 100; i++) {
        echo_once(d, i & 1);
        assert_int_equal(d->messages[1], i + 1);
    }
    assert_int_equal(d->messages[0], 0);
    /* VRING_AVAIL_F_NO_INTERRUPT */
    drv_poke16(d, d->queues[0].avail, 1);
    echo_once(d, false);
    assert_int_equal(d->messages[1], 100);
    drv_assert_fine(d);
}

static void test_event_index(void **state)
{
    struct drv *d = *state;
    struct drv_queue *q = &d->queues[0];
    drv_start(d, ALL_FEATURES, 2, 16);
    uint64_t used_event = q->avail + 4 + 2 * 16, avail_event = q->used + 4 + 8 * 16;
    echo_once(d, false); /* used_event 0: tell of the first */
    assert_int_equal(d->messages[1], 1);
    assert_int_equal(drv_peek16(d, avail_event), 1);
    echo_once(d, false);
    assert_int_equal(d->messages[1], 1);
    drv_poke16(d, used_event, 4);
    echo_once(d, false);
    echo_once(d, false);
    assert_int_equal(d->messages[1], 1);
    echo_once(d, false); /* the fifth is number 4 */
    assert_int_equal(d->messages[1], 2);
    assert_int_equal(drv_peek16(d, avail_event), 5);
    /* Around the end of the index. */
    for (unsigned i = 5; i < 65534; i++) {
        uint32_t id, len;
        drv_add(d, 0, pair, 2);
        if (i % 8 == 0 || i == 65533) {
            drv_kick(d, 0);
            while (drv_used(d, 0, &id, &len))
                ;
        }
    }
    assert_int_equal(d->messages[1], 2);
    drv_poke16(d, used_event, 1);
    for (unsigned i = 0; i < 4; i++) {
        echo_once(d, false);
        assert_int_equal(d->messages[1], i < 3 ? 2 : 3);
    }
    drv_assert_fine(d);
}

static void test_kicks_are_coalesced_and_bounded(void **state)
{
    struct drv *d = *state;
    uint32_t id, len;
    drv_start(d, ALL_FEATURES, 2, 16);
    for (int i = 0; i < 5; i++)
        drv_add(d, 0, pair, 2);
    for (int i = 0; i < 10; i++)
        drv_notify(d, 0);
    drv_notify(d, 7); /* nobody */
    drv_write(d, d->notify + 0xff0, 4, 0);
    assert_int_equal(echo_of(d)->chains, 0); /* a vCPU's write only signals */
    drv_turn(d);
    assert_int_equal(echo_of(d)->chains, 5);
    for (int i = 0; i < 5; i++)
        assert_true(drv_used(d, 0, &id, &len));
    assert_int_equal(d->messages[1], 1);
}

static void test_a_driver_that_never_stops(void **state)
{
    struct drv *d = *state;
    struct echo *e = echo_of(d);
    drv_start(d, ALL_FEATURES, 2, 16);
    e->refill = d;
    drv_add(d, 0, pair, 2);
    drv_kick(d, 0);
    assert_in_range(e->chains, 1, 1000); /* then others have their turn */
    unsigned chains = e->chains;
    drv_turn(d); /* and it goes on without another kick */
    assert_in_range(e->chains, chains + 1, 2 * chains);
    e->refill = NULL;
    drv_turn(d);
    drv_turn(d);
    chains = e->chains;
    drv_turn(d);
    assert_int_equal(e->chains, chains);
    drv_assert_fine(d);
}

static void test_kick_in_place(void **state)
{
    struct drv *d = *state;
    struct echo *e = echo_of(d);
    uint32_t id, len;
    e->v.queues[0].in_place = true;
    drv_start(d, ALL_FEATURES, 2, 16);
    drv_add(d, 0, pair, 2);
    drv_notify(d, 0);
    assert_int_equal(e->chains, 1); /* without a turn of the loop */
    assert_true(drv_used(d, 0, &id, &len));
    assert_int_equal(d->messages[1], 1);
}

static void test_intx(void **state)
{
    struct drv *d = *state;
    drv_negotiate(d, NO_EVENTS);
    drv_queue(d, 0, 16);
    drv_driver_ok(d);
    echo_once(d, false);
    assert_true(d->intx);
    assert_int_equal(drv_read(d, d->isr, 1), 1);
    assert_false(d->intx);
    assert_int_equal(drv_read(d, d->isr, 1), 0);
    struct echo *e = echo_of(d);
    mull_virtio_lock(&e->v);
    mull_virtio_config_changed(&e->v);
    mull_virtio_unlock(&e->v);
    assert_true(d->intx);
    assert_int_equal(drv_common_read(d, config_generation), 1);
    assert_int_equal(drv_read(d, d->isr, 1), 2);
    assert_false(d->intx);
    echo_once(d, false);
    assert_true(d->intx);
    drv_common_write(d, device_status, 0);
    assert_false(d->intx);
}

static void test_configuration_window(void **state)
{
    struct drv *d = *state;
    unsigned cap = d->cfg_capability;
    drv_config_write(d, cap + 4, 1, 0);
    drv_config_write(d, cap + 8, 4, 0x12); /* num_queues */
    drv_config_write(d, cap + 12, 4, 2);
    assert_int_equal(drv_config_read(d, cap + 16, 2), 2);
    drv_config_write(d, cap + 8, 4, 0x16); /* queue_select */
    drv_config_write(d, cap + 16, 2, 1);
    assert_int_equal(drv_common_read(d, queue_select), 1);
    assert_int_equal(drv_config_read(d, cap + 16, 2), 1);
    /* Windows that are none. */
    static const uint32_t bad[][3] = {{1, 0x16, 2}, {0, 0x17, 2},      {0, 0x16, 3},
                                      {0, 0x16, 0}, {0, 0x4000, 2},    {0, 0xfffffffe, 2},
                                      {0, 0x16, 8}, {5, 0x10000016, 2}};
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        drv_config_write(d, cap + 4, 1, bad[i][0]);
        drv_config_write(d, cap + 8, 4, bad[i][1]);
        drv_config_write(d, cap + 12, 4, bad[i][2]);
        drv_config_write(d, cap + 16, 2, 0);
        drv_config_read(d, cap + 16, 4);
        assert_int_equal(drv_common_read(d, queue_select), 1);
    }
}

static void test_reset_waits_for_chains_in_flight(void **state)
{
    struct drv *d = *state;
    struct echo *e = echo_of(d);
    drv_start(d, ALL_FEATURES, 2, 16);
    e->hold = true;
    drv_add(d, 0, pair, 2);
    drv_add(d, 0, pair, 2);
    drv_kick(d, 0);
    assert_int_equal(e->nheld, 2);
    unsigned resets = e->resets;
    drv_common_write(d, device_status, 0);
    assert_int_not_equal(drv_common_read(d, device_status), 0);
    drv_common_write(d, device_status, 1); /* too early */
    assert_int_equal(e->resets, resets);
    mull_mem_set(d->memory, d->queues[0].used, 0xaa, 64);
    release(e);
    assert_int_equal(drv_common_read(d, device_status), 0);
    assert_int_equal(e->resets, resets + 1);
    assert_int_equal(drv_peek16(d, d->queues[0].used + 2), 0xaaaa); /* untouched */
    assert_int_equal(d->messages[1], 0);
    e->hold = false;
    drv_start(d, ALL_FEATURES, 2, 32);
    echo_once(d, true);
}

static void test_queue_reset(void **state)
{
    struct drv *d = *state;
    struct echo *e = echo_of(d);
    drv_start(d, ALL_FEATURES, 2, 16);
    e->hold = true;
    drv_add(d, 0, pair, 2);
    drv_kick(d, 0);
    drv_common_write(d, queue_select, 0);
    drv_write(d, d->common + DRV_QUEUE_RESET, 2, 1);
    assert_int_equal(drv_read(d, d->common + DRV_QUEUE_RESET, 2), 1);
    drv_add(d, 0, pair, 2);
    drv_kick(d, 0);
    assert_int_equal(e->nheld, 1);
    assert_int_equal(e->queue_resets, 0);
    release(e);
    assert_int_equal(drv_read(d, d->common + DRV_QUEUE_RESET, 2), 0);
    assert_int_equal(drv_common_read(d, queue_enable), 0);
    assert_int_equal(drv_common_read(d, queue_size), 64);
    assert_int_equal(e->queue_resets, 1);
    assert_int_equal(drv_peek16(d, d->queues[0].used + 2), 0);
    e->hold = false;
    drv_queue(d, 0, 8);
    echo_once(d, false);
    drv_assert_fine(d);
}

static void test_machine_reset(void **state)
{
    struct drv *d = *state;
    drv_start(d, ALL_FEATURES, 2, 16);
    drv_add(d, 0, pair, 2);
    drv_notify(d, 0);
    d->device->ops->reset(d->device);
    drv_turn(d);
    assert_int_equal(echo_of(d)->chains, 0);
    drv_find(d);
    assert_int_equal(drv_common_read(d, device_status), 0);
    assert_int_equal(drv_config_read(d, (unsigned)d->msix + 2, 2) & 0x8000, 0);
    drv_start(d, ALL_FEATURES, 2, 16);
    echo_once(d, false);
}

static void test_quiesce_and_resume(void **state)
{
    struct drv *d = *state;
    drv_start(d, ALL_FEATURES, 2, 16);
    d->device->ops->quiesce(d->device);
    drv_add(d, 0, pair, 2);
    drv_kick(d, 0);
    assert_int_equal(echo_of(d)->chains, 0);
    d->device->ops->resume(d->device);
    drv_turn(d);
    assert_int_equal(echo_of(d)->chains, 1);
}

/* ---- What a bad driver gets ---- */

static void assert_stops(struct drv *d)
{
    uint32_t id, len;
    unsigned chains = echo_of(d)->chains, before = d->messages[0];
    drv_kick(d, 0);
    drv_assert_broken(d);
    assert_int_equal(echo_of(d)->chains, chains);
    assert_int_equal(d->messages[0], before + 1); /* the configuration interrupt */
    /* Quiet from now on... */
    drv_add(d, 1, pair, 2);
    drv_kick(d, 1);
    assert_false(drv_used(d, 1, &id, &len));
    assert_int_equal(d->messages[0], before + 1);
    /* ...until the driver resets it. */
    drv_start(d, ALL_FEATURES, 2, 16);
    echo_once(d, false);
}

static void test_bad_chains(void **state)
{
    struct drv *d = *state;
    static const struct {
        const char *what;
        struct vring_desc desc[4];
    } cases[] = {
        {"a loop", {{DRV_DATA, 1, 1, 1}, {DRV_DATA, 1, 1, 0}}},
        {"a loop of one", {{DRV_DATA, 1, 1, 0}}},
        {"a next that is out of range", {{DRV_DATA, 1, 1, 16}}},
        {"a next of 65535", {{DRV_DATA, 1, 1, 0xffff}}},
        {"readable after writable", {{DRV_DATA, 1, 3, 1}, {DRV_DATA, 1, 0, 0}}},
        {"a buffer that wraps", {{~0ull - 4, 8, 0, 0}}},
        {"4 GiB in all", {{DRV_DATA, 0xffffffff, 1, 1}, {DRV_DATA, 1, 0, 0}}},
        {"an empty indirect table", {{DRV_DATA, 0, 4, 0}}},
        {"an indirect table of odd length", {{DRV_DATA, 24, 4, 0}}},
        {"a huge indirect table", {{DRV_DATA, 0xfffffff0, 4, 0}}},
        {"an indirect table of 1025", {{DRV_DATA, 16 * 1025, 4, 0}}},
        {"an indirect table outside of RAM", {{DRV_RAM - 16, 32, 4, 0}}},
        {"an indirect table that wraps", {{~0ull - 15, 32, 4, 0}}},
        {"indirect with next", {{DRV_DATA + 0x3000, 16, 5, 1}, {DRV_DATA, 1, 0, 0}}},
        {"an indirect table in one", {{DRV_DATA + 0x3010, 16, 4, 0}}},
        {"a loop in an indirect table", {{DRV_DATA + 0x3020, 32, 4, 0}}},
        {"an indirect next out of range", {{DRV_DATA + 0x3040, 16, 4, 0}}},
    };
    drv_start(d, ALL_FEATURES, 2, 16);
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        print_message("%s\n", cases[i].what);
        uint64_t t = DRV_DATA + 0x3000;
        drv_desc(d, t, 0, DRV_DATA, 1, 0, 0);
        drv_desc(d, t, 1, t, 16, VRING_DESC_F_INDIRECT, 0);
        drv_desc(d, t, 2, DRV_DATA, 1, VRING_DESC_F_NEXT, 1);
        drv_desc(d, t, 3, DRV_DATA, 1, VRING_DESC_F_NEXT, 0);
        drv_desc(d, t, 4, DRV_DATA, 1, VRING_DESC_F_NEXT, 1);
        mull_mem_write(d->memory, d->queues[0].desc, cases[i].desc, sizeof(cases[i].desc));
        drv_offer(d, 0, 0);
        assert_stops(d);
    }
}

static void test_bad_rings(void **state)
{
    struct drv *d = *state;
    drv_start(d, ALL_FEATURES, 2, 16);
    drv_offer(d, 0, 16); /* a head out of range */
    assert_stops(d);
    drv_add(d, 0, pair, 2);
    drv_poke16(d, d->queues[0].avail + 2, 17 + d->queues[0].next_avail); /* a jump */
    assert_stops(d);
    drv_poke16(d, d->queues[0].avail + 2, d->queues[0].next_avail - 1); /* backwards */
    assert_stops(d);
    drv_negotiate(d, ~(1ull << VIRTIO_RING_F_INDIRECT_DESC));
    drv_msix_enable(d);
    drv_queue(d, 0, 16);
    drv_queue(d, 1, 16);
    drv_driver_ok(d);
    drv_add_indirect(d, 0, DRV_DATA + 0x2000, pair, 2); /* not negotiated */
    assert_stops(d);
}

static void test_rings_outside_of_ram(void **state)
{
    struct drv *d = *state;
    static const unsigned which[] = {0, 1, 2};
    for (unsigned i = 0; i < 3; i++) {
        drv_negotiate(d, ALL_FEATURES);
        drv_msix_enable(d);
        drv_queue(d, 1, 16);
        drv_queue(d, 0, 16);
        drv_add(d, 0, pair, 2);
        drv_common_write(d, queue_select, 0);
        drv_write(d, d->common + DRV_QUEUE_RESET, 2, 1);
        struct drv_queue *q = &d->queues[0];
        uint64_t *address = which[i] == 0 ? &q->desc : which[i] == 1 ? &q->avail : &q->used;
        *address = DRV_RAM + 0x10000;
        drv_queue_program(d, 0);
        drv_common_write(d, device_status, 0xf);
        drv_turn(d);
        drv_assert_broken(d);
    }
    drv_start(d, ALL_FEATURES, 2, 16);
    echo_once(d, false);
}

static void test_bad_queue_setup(void **state)
{
    struct drv *d = *state;
    static const struct {
        unsigned size;
        uint64_t desc, avail, used;
    } cases[] = {
        {0, 0x1000, 0x2000, 0x3000},         {3, 0x1000, 0x2000, 0x3000},
        {128, 0x1000, 0x2000, 0x3000},       {65535, 0x1000, 0x2000, 0x3000},
        {16, 0x1008, 0x2000, 0x3000},        {16, 0x1000, 0x2001, 0x3000},
        {16, 0x1000, 0x2000, 0x3002},        {16, ~0ull & ~15ull, 0x2000, 0x3000},
        {16, 0x1000, ~0ull & ~1ull, 0x3000}, {16, 0x1000, 0x2000, ~0ull & ~3ull},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        drv_negotiate(d, ALL_FEATURES);
        d->queues[0] = (struct drv_queue){.size = cases[i].size,
                                          .desc = cases[i].desc,
                                          .avail = cases[i].avail,
                                          .used = cases[i].used};
        drv_queue_program(d, 0);
        assert_int_equal(drv_common_read(d, queue_enable), 0);
        drv_assert_broken(d);
    }
    drv_start(d, ALL_FEATURES, 2, 16);
    /* A queue that runs cannot be changed. */
    drv_common_write(d, queue_select, 0);
    drv_common_write(d, queue_size, 4);
    drv_common_write(d, queue_desc_lo, 0);
    assert_int_equal(drv_common_read(d, queue_size), 16);
    assert_int_equal(drv_common_read(d, queue_desc_lo), d->queues[0].desc);
    echo_once(d, false);
}

static void test_odd_register_accesses(void **state)
{
    struct drv *d = *state;
    drv_start(d, ALL_FEATURES, 2, 16);
    unsigned seed = 1;
    for (unsigned offset = 0; offset < 0x4000; offset++) {
        if (offset == 0x14)
            continue; /* the status, which would reset it */
        for (unsigned size = 1; size <= 8; size *= 2) {
            seed = seed * 1103515245 + 12345;
            drv_read(d, d->common + offset, size);
            if (offset + size <= 0x14 || offset > 0x14)
                drv_write(d, d->common + offset, size, seed >> 8);
        }
    }
    drv_turn(d);
    drv_start(d, ALL_FEATURES, 2, 16);
    echo_once(d, false);
}

static void test_zero_length_descriptors(void **state)
{
    struct drv *d = *state;
    uint32_t id, len;
    const struct drv_seg segs[4] = {
        {DRV_DATA, 0, false}, {DRV_DATA, 8, false}, {~0ull, 0, true}, {DRV_DATA + 64, 4, true}};
    drv_start(d, ALL_FEATURES, 2, 16);
    drv_add(d, 0, segs, 4);
    drv_kick(d, 0);
    assert_true(drv_used(d, 0, &id, &len));
    assert_int_equal(len, 4);
    drv_assert_fine(d);
    /* Buffers that are not in RAM are the device's own business, not the ring's. */
    const struct drv_seg out = {DRV_RAM, 8, false};
    drv_add(d, 0, &out, 1);
    drv_kick(d, 0);
    assert_true(drv_used(d, 0, &id, &len));
    drv_assert_fine(d);
}

/* A vCPU resets, reconfigures and kicks while the loop works. */
static void *hammer(void *opaque)
{
    struct drv *d = opaque;
    for (unsigned i = 0; i < 3000; i++) {
        drv_notify(d, i & 1);
        if (i % 50 == 0) {
            drv_common_write(d, device_status, 0);
            while (drv_common_read(d, device_status))
                ;
            drv_negotiate(d, ALL_FEATURES);
            drv_queue_program(d, 0);
            drv_queue_program(d, 1);
            drv_common_write(d, device_status, 0xf);
        }
        drv_poke16(d, d->queues[i & 1].avail + 2, (uint16_t)(i * 7));
    }
    mull_loop_stop(d->loop);
    return NULL;
}

static void test_reset_while_the_loop_works(void **state)
{
    struct drv *d = *state;
    pthread_t thread;
    drv_start(d, ALL_FEATURES, 2, 16);
    for (unsigned i = 0; i < 16; i++)
        drv_add(d, i & 1, pair, 1);
    assert_int_equal(pthread_create(&thread, NULL, hammer, d), 0);
    mull_loop_run(d->loop);
    pthread_join(thread, NULL);
    drv_start(d, ALL_FEATURES, 2, 16);
    echo_once(d, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(test_registers),
        T(test_features_need_version_1),
        T(test_echo),
        T(test_event_index),
        T(test_kicks_are_coalesced_and_bounded),
        T(test_a_driver_that_never_stops),
        T(test_kick_in_place),
        T(test_intx),
        T(test_configuration_window),
        T(test_reset_waits_for_chains_in_flight),
        T(test_queue_reset),
        T(test_machine_reset),
        T(test_quiesce_and_resume),
        T(test_bad_chains),
        T(test_bad_rings),
        T(test_rings_outside_of_ram),
        T(test_bad_queue_setup),
        T(test_odd_register_accesses),
        T(test_zero_length_descriptors),
        T(test_reset_while_the_loop_works),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
