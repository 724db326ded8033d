/* A guest's virtio-pci driver for tests. See virtio_driver.h. */
#include "virtio_driver.h"

#include <unistd.h>

#define ECAM 0xe0000000ull
#define MMIO 0xc0000000ull
#define MMIO64 0x800000000ull

static void send_msi(void *opaque, uint64_t address, uint32_t data)
{
    struct drv *d = opaque;
    assert_int_equal(address, 0xfee00000);
    assert_in_range(data, 0, 63);
    d->messages[data]++;
}

static void set_intx(void *opaque, unsigned line, bool level)
{
    ((struct drv *)opaque)->intx = level;
}

void drv_init(struct drv *d)
{
    struct mull_error err = {0};
    static const struct mull_log silent = {.level = MULL_LOG_ERROR};

    memset(d, 0, sizeof(*d));
    assert_int_equal(mull_memory_create(NULL, &d->memory, &err), 0);
    assert_int_equal(mull_memory_add_ram(d->memory, 0, DRV_RAM, false, &err), 0);
    assert_int_equal(mull_loop_create(&d->loop, &err), 0);
    struct mull_pci_config config = {
        .memory = d->memory,
        .ecam_base = ECAM,
        .mmio_base = MMIO,
        .mmio_size = 0x20000000,
        .mmio64_base = MMIO64,
        .mmio64_size = 0x100000000ull,
        .io_base = 0xc000,
        .io_size = 0x1000,
        .msi = {send_msi, d},
    };
    for (int i = 0; i < 4; i++)
        config.intx[i] = (struct mull_irq){set_intx, d, (unsigned)i};
    assert_int_equal(mull_pci_bus_create(&config, &d->bus, &err), 0);
    d->env = (struct mull_device_env){.memory = d->memory, .loop = d->loop, .log = &silent};
#ifdef DRV_PACKED
    d->env.packed_rings = true;
#endif
}

void drv_fini(struct drv *d)
{
    if (d->device)
        d->device->ops->destroy(d->device);
    mull_pci_bus_destroy(d->bus);
    mull_loop_destroy(d->loop);
    mull_memory_destroy(d->memory);
}

/* ---- Registers ---- */

uint32_t drv_read(struct drv *d, uint64_t address, unsigned size)
{
    return (uint32_t)mull_space_read(d->memory, MULL_SPACE_MMIO, 0, address, size);
}

void drv_write(struct drv *d, uint64_t address, unsigned size, uint32_t value)
{
    mull_space_write(d->memory, MULL_SPACE_MMIO, 0, address, size, value);
}

uint32_t drv_config_read(struct drv *d, unsigned offset, unsigned size)
{
    return drv_read(d, ECAM + (d->slot << 15) + offset, size);
}

void drv_config_write(struct drv *d, unsigned offset, unsigned size, uint32_t value)
{
    drv_write(d, ECAM + (d->slot << 15) + offset, size, value);
}

static uint64_t bar_address(struct drv *d, unsigned bar)
{
    uint32_t low = drv_config_read(d, 0x10 + 4 * bar, 4);
    uint64_t address = low & ~0xfu;
    assert_int_equal(low & 1, 0);
    if ((low & 6) == 4)
        address |= (uint64_t)drv_config_read(d, 0x14 + 4 * bar, 4) << 32;
    assert_int_not_equal(address, 0);
    return address;
}

static void found_capability(struct drv *d, unsigned at)
{
    unsigned type = drv_config_read(d, at + 3, 1);
    if (type == VIRTIO_PCI_CAP_PCI_CFG) {
        d->cfg_capability = at;
        return;
    }
    uint64_t address =
        bar_address(d, drv_config_read(d, at + 4, 1)) + drv_config_read(d, at + 8, 4);
    if (type == VIRTIO_PCI_CAP_COMMON_CFG)
        d->common = address;
    else if (type == VIRTIO_PCI_CAP_ISR_CFG)
        d->isr = address;
    else if (type == VIRTIO_PCI_CAP_DEVICE_CFG)
        d->config = address;
    else if (type == VIRTIO_PCI_CAP_NOTIFY_CFG) {
        d->notify = address;
        d->notify_multiplier = drv_config_read(d, at + 16, 4);
    }
}

void drv_find(struct drv *d)
{
    struct mull_error err = {0};
    assert_int_equal(mull_pci_bus_assign(d->bus, &err), 0);
    for (d->slot = 1; d->slot < 32; d->slot++)
        if (drv_config_read(d, 0, 2) == 0x1af4)
            break;
    assert_in_range(d->slot, 1, 31);
    assert_in_range(drv_config_read(d, 2, 2), 0x1041, 0x107f);
    assert_int_equal(drv_config_read(d, 6, 2) & 0x10, 0x10);
    unsigned guard = 0;
    for (unsigned at = drv_config_read(d, 0x34, 1); at; at = drv_config_read(d, at + 1, 1)) {
        assert_in_range(guard++, 0, 47);
        unsigned id = drv_config_read(d, at, 1);
        if (id == 0x09)
            found_capability(d, at);
        else if (id == 0x11)
            d->msix = at;
    }
    assert_true(d->common && d->notify && d->isr && d->cfg_capability && d->msix);
    /* Memory decoding and bus mastering. */
    drv_config_write(d, 4, 2, drv_config_read(d, 4, 2) | 6);
}

void drv_msix_enable(struct drv *d)
{
    unsigned count = (drv_config_read(d, (unsigned)d->msix + 2, 2) & 0x7ff) + 1;
    uint32_t table = drv_config_read(d, (unsigned)d->msix + 4, 4);
    uint64_t address = bar_address(d, table & 7) + (table & ~7u);
    for (unsigned i = 0; i < count; i++) {
        drv_write(d, address + 16 * i, 4, 0xfee00000);
        drv_write(d, address + 16 * i + 4, 4, 0);
        drv_write(d, address + 16 * i + 8, 4, i);
        drv_write(d, address + 16 * i + 12, 4, 0);
    }
    drv_config_write(d, (unsigned)d->msix + 2, 2, 0x8000);
    drv_common_write(d, msix_config, 0);
    assert_int_equal(drv_common_read(d, msix_config), 0);
}

/* ---- Setting up ---- */

uint64_t drv_offered(struct drv *d)
{
    drv_common_write(d, device_feature_select, 0);
    uint64_t offered = drv_common_read(d, device_feature);
    drv_common_write(d, device_feature_select, 1);
    return offered | (uint64_t)drv_common_read(d, device_feature) << 32;
}

void drv_negotiate(struct drv *d, uint64_t wanted)
{
    drv_common_write(d, device_status, 0);
    assert_int_equal(drv_common_read(d, device_status), 0);
    drv_common_write(d, device_status, VIRTIO_CONFIG_S_ACKNOWLEDGE);
    drv_common_write(d, device_status, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
    d->features = wanted & drv_offered(d);
    for (uint32_t i = 0; i < 2; i++) {
        drv_common_write(d, guest_feature_select, i);
        drv_common_write(d, guest_feature, (uint32_t)(d->features >> (32 * i)));
    }
    drv_common_write(d, device_status, 0xb);
    assert_int_equal(drv_common_read(d, device_status), 0xb);
}

void drv_queue_program(struct drv *d, unsigned index)
{
    struct drv_queue *q = &d->queues[index];
    drv_common_write(d, queue_select, index);
    drv_common_write(d, queue_size, q->size);
    if (drv_config_read(d, (unsigned)d->msix + 2, 2) & 0x8000)
        drv_common_write(d, queue_msix_vector, index + 1);
    drv_common_write(d, queue_desc_lo, (uint32_t)q->desc);
    drv_common_write(d, queue_desc_hi, (uint32_t)(q->desc >> 32));
    drv_common_write(d, queue_avail_lo, (uint32_t)q->avail);
    drv_common_write(d, queue_avail_hi, (uint32_t)(q->avail >> 32));
    drv_common_write(d, queue_used_lo, (uint32_t)q->used);
    drv_common_write(d, queue_used_hi, (uint32_t)(q->used >> 32));
    drv_common_write(d, queue_enable, 1);
}

void drv_queue(struct drv *d, unsigned index, unsigned size)
{
    struct drv_queue *q = &d->queues[index];
    uint64_t base = DRV_RINGS + index * 0x10000;
    *q = (struct drv_queue){
        .index = index, .size = size, .desc = base, .avail = base + 0x8000, .used = base + 0xa000};
    q->packed = d->features >> VIRTIO_F_RING_PACKED & 1;
    q->avail_wrap = q->used_wrap = true;
    mull_mem_set(d->memory, base, 0, 0x10000);
    drv_queue_program(d, index);
    assert_int_equal(drv_common_read(d, queue_enable), 1);
}

void drv_driver_ok(struct drv *d)
{
    drv_common_write(d, device_status, 0xf);
    drv_turn(d);
}

void drv_start(struct drv *d, uint64_t wanted, unsigned queues, unsigned size)
{
    drv_negotiate(d, wanted | 1ull << VIRTIO_F_VERSION_1);
    drv_msix_enable(d);
    for (unsigned i = 0; i < queues; i++)
        drv_queue(d, i, size);
    drv_driver_ok(d);
    assert_int_equal(drv_common_read(d, device_status), 0xf);
}

/* ---- Rings ---- */

void drv_desc(struct drv *d, uint64_t table, unsigned index, uint64_t gpa, uint32_t len,
              uint16_t flags, uint16_t next)
{
    struct vring_desc desc = {gpa, len, flags, next};
    assert_int_equal(mull_mem_write(d->memory, table + 16 * index, &desc, sizeof(desc)), 0);
}

void drv_offer(struct drv *d, unsigned queue, uint16_t head)
{
    struct drv_queue *q = &d->queues[queue];
    drv_poke16(d, q->avail + 4 + 2 * (q->next_avail % q->size), head);
    drv_poke16(d, q->avail + 2, ++q->next_avail);
}

static void fill_table(struct drv *d, uint64_t table, unsigned from, unsigned size,
                       const struct drv_seg *segs, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        unsigned index = (from + i) % size, next = (from + i + 1) % size;
        uint16_t flags =
            (segs[i].write ? VRING_DESC_F_WRITE : 0) | (i + 1 < count ? VRING_DESC_F_NEXT : 0);
        drv_desc(d, table, index, segs[i].gpa, segs[i].len, flags, (uint16_t)next);
    }
}

/* ---- Packed ---- */

#define PACKED_USED(wrap) ((wrap) ? 1u << VRING_PACKED_DESC_F_USED : 0)
#define PACKED_AVAIL(wrap) ((wrap) ? 1u << VRING_PACKED_DESC_F_AVAIL : 0)

static void packed_put(struct drv *d, struct drv_queue *q, const struct drv_seg *seg, uint16_t id,
                       uint16_t flags, bool first)
{
    uint64_t at = q->desc + 16 * q->next_avail;
    const struct vring_packed_desc desc = {seg->gpa, seg->len, id, 0};
    flags |= PACKED_AVAIL(q->avail_wrap) | PACKED_USED(!q->avail_wrap);
    if (seg->write)
        flags |= VRING_DESC_F_WRITE;
    mull_mem_write(d->memory, at, &desc, 14); /* the flags apart: the first chain's come last */
    if (!first)
        drv_poke16(d, at + 14, flags);
    if (++q->next_avail == q->size) {
        q->next_avail = 0;
        q->avail_wrap = !q->avail_wrap;
    }
}

static uint16_t packed_add(struct drv *d, struct drv_queue *q, const struct drv_seg *segs,
                           unsigned count, uint16_t more)
{
    uint16_t id = (uint16_t)(q->free_desc % q->size);
    while (q->counts[id]) /* still out */
        id = (uint16_t)((id + 1) % q->size);
    q->free_desc = (uint16_t)(id + 1);
    uint64_t at = q->desc + 16 * q->next_avail + 14;
    uint16_t flags = PACKED_AVAIL(q->avail_wrap) | PACKED_USED(!q->avail_wrap) | more |
                     (segs[0].write ? VRING_DESC_F_WRITE : 0) | (count > 1 ? VRING_DESC_F_NEXT : 0);
    q->counts[id] = (uint16_t)count;
    for (unsigned i = 0; i < count; i++)
        packed_put(d, q, &segs[i], id, more | (i + 1 < count ? VRING_DESC_F_NEXT : 0), i == 0);
    drv_poke16(d, at, flags);
    return id;
}

static bool packed_used(struct drv *d, struct drv_queue *q, uint32_t *id, uint32_t *len)
{
    struct vring_packed_desc desc;
    mull_mem_read(d->memory, q->desc + 16 * q->seen_used, &desc, sizeof(desc));
    if (!(desc.flags & PACKED_AVAIL(true)) != !q->used_wrap ||
        !(desc.flags & PACKED_USED(true)) != !q->used_wrap)
        return false;
    assert_true(desc.id < q->size);
    q->seen_used += q->counts[desc.id];
    q->counts[desc.id] = 0;
    if (q->seen_used >= q->size) {
        q->seen_used -= (uint16_t)q->size;
        q->used_wrap = !q->used_wrap;
    }
    *id = desc.id;
    *len = desc.len;
    return true;
}

/* ---- Either ---- */

uint16_t drv_add(struct drv *d, unsigned queue, const struct drv_seg *segs, unsigned count)
{
    struct drv_queue *q = &d->queues[queue];
    if (q->packed)
        return packed_add(d, q, segs, count, 0);
    uint16_t head = q->free_desc;
    assert_in_range(count, 1, q->size);
    fill_table(d, q->desc, head, q->size, segs, count);
    q->free_desc = (uint16_t)((head + count) % q->size);
    drv_offer(d, queue, head);
    return head;
}

uint16_t drv_add_indirect(struct drv *d, unsigned queue, uint64_t table, const struct drv_seg *segs,
                          unsigned count)
{
    struct drv_queue *q = &d->queues[queue];
    uint16_t head = q->free_desc;
    if (q->packed) {
        for (unsigned i = 0; i < count; i++) {
            const struct vring_packed_desc desc = {segs[i].gpa, segs[i].len, 0,
                                                   segs[i].write ? VRING_DESC_F_WRITE : 0};
            mull_mem_write(d->memory, table + 16 * i, &desc, sizeof(desc));
        }
        const struct drv_seg indirect = {table, 16 * count, false};
        return packed_add(d, q, &indirect, 1, VRING_DESC_F_INDIRECT);
    }
    fill_table(d, table, 0, count + 1, segs, count);
    drv_desc(d, q->desc, head, table, 16 * count, VRING_DESC_F_INDIRECT, 0);
    q->free_desc = (uint16_t)((head + 1) % q->size);
    drv_offer(d, queue, head);
    return head;
}

void drv_notify(struct drv *d, unsigned queue)
{
    drv_write(d, d->notify + d->notify_multiplier * queue, 2, queue);
}

static void stop_loop(void *loop)
{
    mull_loop_stop(loop);
}

void drv_turn(struct drv *d)
{
    assert_int_equal(mull_loop_post(d->loop, stop_loop, d->loop), 0);
    mull_loop_run(d->loop);
}

void drv_kick(struct drv *d, unsigned queue)
{
    drv_notify(d, queue);
    drv_turn(d);
}

bool drv_used(struct drv *d, unsigned queue, uint32_t *id, uint32_t *len)
{
    struct drv_queue *q = &d->queues[queue];
    struct vring_used_elem elem;
    if (q->packed)
        return packed_used(d, q, id, len);
    if (drv_peek16(d, q->used + 2) == q->seen_used)
        return false;
    mull_mem_read(d->memory, q->used + 4 + 8 * (q->seen_used % q->size), &elem, sizeof(elem));
    q->seen_used++;
    *id = elem.id;
    *len = elem.len;
    return true;
}

void drv_wait_used(struct drv *d, unsigned queue, uint32_t *id, uint32_t *len)
{
    for (int i = 0; i < 10000; i++) {
        if (drv_used(d, queue, id, len))
            return;
        drv_turn(d);
        usleep(i ? 1000 : 0);
    }
    fail_msg("queue %u: nothing was used", queue);
}

uint8_t drv_peek8(struct drv *d, uint64_t gpa)
{
    uint8_t value = 0xee;
    assert_int_equal(mull_mem_read(d->memory, gpa, &value, 1), 0);
    return value;
}

uint16_t drv_peek16(struct drv *d, uint64_t gpa)
{
    uint16_t value = 0xeeee;
    assert_int_equal(mull_mem_read16(d->memory, gpa, &value), 0);
    return value;
}

void drv_poke16(struct drv *d, uint64_t gpa, uint16_t value)
{
    assert_int_equal(mull_mem_write16(d->memory, gpa, value), 0);
}
