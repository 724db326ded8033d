/*
 * virtio over PCI, modern devices only (virtio 1.2, 4.1): the capabilities, the registers in one
 * BAR, MSI-X with INTx as the fallback. Translates register accesses to the common part; knows no
 * device type.
 */
#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <stddef.h>
#include <string.h>

#include "device/virtio/virtio.h"

#define VENDOR 0x1af4
#define DEVICE_BASE 0x1040 /* plus the virtio device ID (4.1.2) */
#define REVISION 1
#define PCI_CAP_VENDOR 0x09

#define REGISTER_BAR 0
#define MSIX_BAR 2
/* The same where another device lies in the function. */
#define INLAID_REGISTER_BAR 2
#define INLAID_MSIX_BAR 4
#define INLAY_SIZE 0x1000u

/* The BAR: a page for each structure, so that one can get an ioeventfd or be mapped. */
#define COMMON_OFFSET 0x0000
#define ISR_OFFSET 0x1000
#define DEVICE_OFFSET 0x2000
#define NOTIFY_OFFSET 0x3000
#define BAR_SIZE 0x4000
#define NOTIFY_MULTIPLIER 4

#define ISR_QUEUE 0x01
#define ISR_CONFIG 0x02

/* 4.1.4.3, with the fields that 1.2 added. */
struct common_config {
    uint32_t device_feature_select;
    uint32_t device_feature;
    uint32_t driver_feature_select;
    uint32_t driver_feature;
    uint16_t config_msix_vector;
    uint16_t num_queues;
    uint8_t device_status;
    uint8_t config_generation;
    uint16_t queue_select;
    uint16_t queue_size;
    uint16_t queue_msix_vector;
    uint16_t queue_enable;
    uint16_t queue_notify_off;
    uint64_t queue_desc;
    uint64_t queue_driver;
    uint64_t queue_device;
    uint16_t queue_notify_data;
    uint16_t queue_reset;
} __attribute__((packed));

_Static_assert(sizeof(struct common_config) == 0x3c, "virtio 1.2, 4.1.4.3");

#define AT(field) offsetof(struct common_config, field)

static struct mull_virtqueue *selected_queue(struct mull_virtio *v)
{
    return v->pci.queue_select < v->nqueues ? &v->queues[v->pci.queue_select] : NULL;
}

/* ---- Interrupts ---- */

static void raise_isr(struct mull_virtio *v, uint8_t bits)
{
    pthread_mutex_lock(&v->pci.isr_lock);
    v->pci.isr |= bits;
    mull_pci_intx(&v->pci.function, true);
    pthread_mutex_unlock(&v->pci.isr_lock);
}

static uint8_t read_isr(struct mull_virtio *v)
{
    pthread_mutex_lock(&v->pci.isr_lock);
    uint8_t isr = v->pci.isr;
    v->pci.isr = 0;
    mull_pci_intx(&v->pci.function, false);
    pthread_mutex_unlock(&v->pci.isr_lock);
    return isr;
}

/* 4.1.4.5.1: the ISR bits stand for INTx only. */
static void interrupt(struct mull_virtio *v, uint16_t vector, uint8_t isr)
{
    if (mull_pci_msix_enabled(&v->pci.function))
        mull_pci_msix_send(&v->pci.function, vector);
    else
        raise_isr(v, isr);
}

static void queue_interrupt(struct mull_virtio *v, uint16_t vector)
{
    interrupt(v, vector, ISR_QUEUE);
}

static void config_interrupt(struct mull_virtio *v, uint16_t vector)
{
    interrupt(v, vector, ISR_CONFIG);
}

static void pci_reset(struct mull_virtio *v)
{
    v->pci.device_feature_select = v->pci.driver_feature_select = 0;
    v->pci.queue_select = 0;
    read_isr(v);
}

static const struct mull_virtio_transport pci_transport = {
    .queue_interrupt = queue_interrupt, .config_interrupt = config_interrupt, .reset = pci_reset};

/* ---- The common configuration structure ---- */

static void fill_common(struct mull_virtio *v, struct common_config *c)
{
    const struct mull_virtqueue *q = selected_queue(v);

    *c = (struct common_config){
        .device_feature_select = v->pci.device_feature_select,
        .driver_feature_select = v->pci.driver_feature_select,
        .config_msix_vector = v->config_vector,
        .num_queues = (uint16_t)v->nqueues,
        .device_status = mull_virtio_get_status(v),
        .config_generation = v->config_generation,
        .queue_select = v->pci.queue_select,
    };
    if (c->device_feature_select < 2)
        c->device_feature = (uint32_t)(v->device_features >> (32 * c->device_feature_select));
    if (c->driver_feature_select < 2)
        c->driver_feature = (uint32_t)(v->driver_features >> (32 * c->driver_feature_select));
    c->queue_msix_vector = MULL_VIRTIO_NO_VECTOR;
    if (!q)
        return; /* queue_size 0: there is no such queue */
    c->queue_size = q->size;
    c->queue_msix_vector = q->vector;
    c->queue_enable = q->enabled && !q->resetting;
    c->queue_notify_off = c->queue_notify_data = v->pci.queue_select;
    c->queue_desc = q->desc;
    c->queue_driver = q->avail;
    c->queue_device = q->used;
    c->queue_reset = q->resetting;
}

static uint32_t read_common(struct mull_virtio *v, uint64_t offset, unsigned size)
{
    struct common_config c;
    uint32_t value = 0;

    if (offset >= sizeof(c) || size > sizeof(c) - offset)
        return 0;
    mull_virtio_lock(v);
    fill_common(v, &c);
    mull_virtio_unlock(v);
    memcpy(&value, (const uint8_t *)&c + offset, size);
    return value;
}

/* A vector that does not exist is answered with NO_VECTOR (4.1.5.1.2.1). */
static uint16_t checked_vector(const struct mull_virtio *v, uint32_t vector)
{
    return vector < v->pci.function.msix_count ? (uint16_t)vector : MULL_VIRTIO_NO_VECTOR;
}

static void set_half(uint64_t *address, bool high, uint32_t value)
{
    *address = high ? (*address & 0xffffffff) | (uint64_t)value << 32
                    : (*address & ~0xffffffffull) | value;
}

static void write_queue(struct mull_virtio *v, struct mull_virtqueue *q, uint64_t offset,
                        uint32_t value)
{
    switch (offset) {
    case AT(queue_msix_vector):
        q->vector = checked_vector(v, value);
        return;
    case AT(queue_reset):
        if (value == 1 && mull_virtio_has(v, VIRTIO_F_RING_RESET))
            mull_virtio_reset_queue(v, v->pci.queue_select);
        return;
    }
    if (q->enabled) /* 4.1.4.3.2: everything else is fixed by then */
        return;
    switch (offset) {
    case AT(queue_size):
        q->size = (uint16_t)value;
        break;
    case AT(queue_enable):
        if (value == 1 && !mull_virtqueue_enable(q))
            mull_virtio_broken(v, "a queue's size or address is not valid");
        else if (value == 1)
            mull_virtio_kick(v, v->pci.queue_select); /* after a queue reset it may be full */
        break;
    case AT(queue_desc):
    case AT(queue_desc) + 4:
        set_half(&q->desc, offset != AT(queue_desc), value);
        break;
    case AT(queue_driver):
    case AT(queue_driver) + 4:
        set_half(&q->avail, offset != AT(queue_driver), value);
        break;
    case AT(queue_device):
    case AT(queue_device) + 4:
        set_half(&q->used, offset != AT(queue_device), value);
        break;
    }
}

/* Widths of the registers a driver writes (4.1.3.1: only naturally sized accesses count). */
static unsigned common_width(uint64_t offset)
{
    if (offset < AT(config_msix_vector))
        return 4;
    if (offset == AT(device_status) || offset == AT(config_generation))
        return 1;
    return offset >= AT(queue_desc) && offset < AT(queue_notify_data) ? 4 : 2;
}

static void write_common(struct mull_virtio *v, uint64_t offset, unsigned size, uint32_t value)
{
    if (offset >= sizeof(struct common_config) || size != common_width(offset) || offset % size)
        return;
    mull_virtio_lock(v);
    struct mull_virtqueue *q = selected_queue(v);
    switch (offset) {
    case AT(device_feature_select):
        v->pci.device_feature_select = value;
        break;
    case AT(driver_feature_select):
        v->pci.driver_feature_select = value;
        break;
    case AT(driver_feature):
        mull_virtio_set_features(v, v->pci.driver_feature_select, value);
        break;
    case AT(config_msix_vector):
        v->config_vector = checked_vector(v, value);
        break;
    case AT(device_status):
        mull_virtio_set_status(v, (uint8_t)value);
        break;
    case AT(queue_select):
        v->pci.queue_select = (uint16_t)value;
        break;
    default:
        if (q)
            write_queue(v, q, offset, value);
        break;
    }
    mull_virtio_unlock(v);
}

/* ---- The BAR ---- */

/* Where virtio's registers begin. */
static uint32_t base_of(const struct mull_virtio *v)
{
    return v->pci.inlay ? INLAY_SIZE : 0;
}

static unsigned register_bar(const struct mull_virtio *v)
{
    return v->pci.inlay ? INLAID_REGISTER_BAR : REGISTER_BAR;
}

static uint64_t bar_read(void *opaque, unsigned cpu, uint64_t offset, unsigned size)
{
    struct mull_virtio *v = opaque;
    uint32_t value = 0;

    if (offset < ISR_OFFSET)
        return read_common(v, offset - COMMON_OFFSET, size);
    if (offset == ISR_OFFSET)
        return read_isr(v);
    if (offset >= DEVICE_OFFSET && offset < NOTIFY_OFFSET) {
        mull_virtio_lock(v);
        value = mull_virtio_read_config(v, offset - DEVICE_OFFSET, size);
        mull_virtio_unlock(v);
    }
    return value;
}

static void bar_write(void *opaque, unsigned cpu, uint64_t offset, unsigned size, uint64_t value)
{
    struct mull_virtio *v = opaque;

    if (offset >= NOTIFY_OFFSET) {
        /* The offset says which queue; the value repeats it (4.1.4.4). */
        if (offset % NOTIFY_MULTIPLIER == 0)
            mull_virtio_notified(v, (unsigned)(offset - NOTIFY_OFFSET) / NOTIFY_MULTIPLIER);
    } else if (offset < ISR_OFFSET) {
        write_common(v, offset - COMMON_OFFSET, size, (uint32_t)value);
    } else if (offset >= DEVICE_OFFSET) {
        mull_virtio_lock(v);
        mull_virtio_write_config(v, offset - DEVICE_OFFSET, size, (uint32_t)value);
        mull_virtio_unlock(v);
    }
}

static const struct mull_region_ops bar_ops = {
    .read = bar_read, .write = bar_write, .min_size = 1, .max_size = 4};

static uint64_t inlaid_read(void *opaque, unsigned cpu, uint64_t offset, unsigned size)
{
    struct mull_virtio *v = opaque;
    const struct mull_virtio_inlay *inlay = v->pci.inlay;

    return offset < INLAY_SIZE ? inlay->registers->read(inlay->opaque, cpu, offset, size)
                               : bar_read(v, cpu, offset - INLAY_SIZE, size);
}

static void inlaid_write(void *opaque, unsigned cpu, uint64_t offset, unsigned size, uint64_t value)
{
    struct mull_virtio *v = opaque;
    const struct mull_virtio_inlay *inlay = v->pci.inlay;

    if (offset < INLAY_SIZE)
        inlay->registers->write(inlay->opaque, cpu, offset, size, value);
    else
        bar_write(v, cpu, offset - INLAY_SIZE, size, value);
}

static const struct mull_region_ops inlaid_ops = {
    .read = inlaid_read, .write = inlaid_write, .min_size = 1, .max_size = 4};

/* ---- PCI configuration access to the BAR (4.1.4.9) ---- */

static struct mull_virtio *from_function(struct mull_pci_function *f)
{
    return (struct mull_virtio *)((char *)f - offsetof(struct mull_virtio, pci.function));
}

/* Where the window leads, as the driver has set it up. */
struct window {
    uint32_t offset, length;
    uint32_t value; /* pci_cfg_data */
};

static unsigned data_offset(const struct mull_virtio *v)
{
    return v->pci.cfg_capability + (unsigned)sizeof(struct virtio_pci_cap);
}

/* @return false: [offset, offset + size) does not touch pci_cfg_data, or the window leads nowhere
 */
static bool get_window(struct mull_virtio *v, unsigned offset, unsigned size, struct window *w)
{
    struct mull_pci_function *f = &v->pci.function;
    unsigned at = data_offset(v);
    struct virtio_pci_cap cap;

    if (!v->pci.cfg_capability || offset + size <= at || offset >= at + 4)
        return false;
    pthread_mutex_lock(&f->lock);
    memcpy(&cap, f->config + v->pci.cfg_capability, sizeof(cap));
    memcpy(&w->value, f->config + at, 4);
    pthread_mutex_unlock(&f->lock);
    w->offset = cap.offset - base_of(v);
    w->length = cap.length;
    return cap.bar == register_bar(v) && (cap.length == 1 || cap.length == 2 || cap.length == 4) &&
           cap.offset % cap.length == 0 && w->offset < BAR_SIZE;
}

static void config_read(struct mull_pci_function *f, unsigned offset, unsigned size)
{
    struct mull_virtio *v = from_function(f);
    struct window w;

    if (!get_window(v, offset, size, &w))
        return;
    uint32_t value = (uint32_t)bar_read(v, MULL_CPU_NONE, w.offset, w.length);
    pthread_mutex_lock(&f->lock);
    memcpy(f->config + data_offset(v), &value, w.length);
    pthread_mutex_unlock(&f->lock);
}

static void config_written(struct mull_pci_function *f, unsigned offset, unsigned size)
{
    struct mull_virtio *v = from_function(f);
    struct window w;

    if (!get_window(v, offset, size, &w))
        return;
    uint32_t mask = w.length == 4 ? ~0u : (1u << 8 * w.length) - 1;
    bar_write(v, MULL_CPU_NONE, w.offset, w.length, w.value & mask);
}

static const struct mull_pci_ops function_ops = {.config_written = config_written,
                                                 .config_read = config_read};

/* ---- Setting up ---- */

/* @return the capability's offset in configuration space, 0: no room */
static unsigned add_capability(struct mull_virtio *v, uint8_t type, uint32_t offset,
                               uint32_t length, unsigned extra)
{
    unsigned size = (unsigned)sizeof(struct virtio_pci_cap) + extra;
    unsigned at = mull_pci_add_capability(&v->pci.function, PCI_CAP_VENDOR, size);
    if (!at)
        return 0;
    struct virtio_pci_cap cap = {.cap_len = (uint8_t)size,
                                 .cfg_type = type,
                                 .bar = (uint8_t)register_bar(v),
                                 .offset = base_of(v) + offset,
                                 .length = length};
    /* Behind the header of ID and next pointer. */
    memcpy(v->pci.function.config + at + 2, (const uint8_t *)&cap + 2, sizeof(cap) - 2);
    return at;
}

static bool add_capabilities(struct mull_virtio *v)
{
    struct mull_pci_function *f = &v->pci.function;
    uint32_t multiplier = NOTIFY_MULTIPLIER;

    if (!add_capability(v, VIRTIO_PCI_CAP_COMMON_CFG, COMMON_OFFSET, sizeof(struct common_config),
                        0) ||
        !add_capability(v, VIRTIO_PCI_CAP_ISR_CFG, ISR_OFFSET, 1, 0))
        return false;
    if (v->config_size &&
        !add_capability(v, VIRTIO_PCI_CAP_DEVICE_CFG, DEVICE_OFFSET, v->config_size, 0))
        return false;
    unsigned notify = add_capability(v, VIRTIO_PCI_CAP_NOTIFY_CFG, NOTIFY_OFFSET,
                                     NOTIFY_MULTIPLIER * v->nqueues, sizeof(multiplier));
    unsigned access = add_capability(v, VIRTIO_PCI_CAP_PCI_CFG, 0, 0, 4);
    if (!notify || !access)
        return false;
    memcpy(f->config + notify + sizeof(struct virtio_pci_cap), &multiplier, sizeof(multiplier));
    v->pci.cfg_capability = (uint8_t)access;
    f->wmask[access + offsetof(struct virtio_pci_cap, bar)] = 0xff;
    memset(f->wmask + access + offsetof(struct virtio_pci_cap, offset), 0xff, 12);
    return true;
}

/* Kicks may come as events of the device's eventfd, but for queues that are handled in place. */
static void add_doorbells(struct mull_virtio *v)
{
    struct mull_doorbells *bells = &v->pci.doorbells;

    for (unsigned i = 0; i < v->nqueues; i++)
        if (v->queues[i].in_place)
            return;
    bells->fd = v->kick_fd;
    bells->offset = base_of(v) + NOTIFY_OFFSET;
    bells->step = NOTIFY_MULTIPLIER;
    bells->count = v->nqueues;
    mull_region_set_doorbells(v->pci.function.bar[register_bar(v)].region, bells);
}

int mull_virtio_pci_attach(struct mull_virtio *v, struct mull_pci_bus *bus, int devfn,
                           uint32_t class_code, struct mull_error *err)
{
    struct mull_pci_function *f = &v->pci.function;

    mull_pci_function_init(f, &function_ops, VENDOR, (uint16_t)(DEVICE_BASE + v->id), VENDOR,
                           (uint16_t)(DEVICE_BASE + v->id), class_code, REVISION);
    f->intx_pin = 1;
    v->transport = &pci_transport;
    if (!add_capabilities(v))
        return mull_fail(err, ENOSPC, "%s: no room for its PCI capabilities", v->device.name);
    const struct mull_virtio_inlay *inlay = v->pci.inlay;
    int rc = inlay ? inlay->add(inlay->opaque, f, err) : 0;
    if (!rc)
        rc = mull_pci_add_bar(f, register_bar(v), base_of(v) + BAR_SIZE, false, true, false,
                              inlay ? &inlaid_ops : &bar_ops, v, v->device.name, v->env.memory,
                              err);
    if (!rc)
        rc = mull_pci_add_msix(f, inlay ? INLAID_MSIX_BAR : MSIX_BAR, v->nqueues + 1,
                               v->env.memory, err);
    if (!rc && v->rom)
        rc = mull_pci_add_rom(f, v->rom, v->rom_size, v->env.memory, err);
    if (!rc)
        rc = mull_pci_bus_attach(bus, f, devfn, err);
    if (!rc)
        add_doorbells(v);
    return rc;
}

void mull_virtio_pci_detach(struct mull_virtio *v)
{
    mull_pci_function_fini(&v->pci.function);
    v->transport = NULL;
}

static int pci_loaded(void *object, uint32_t version, struct mull_error *err)
{
    struct mull_virtio_pci *p = object;
    p->isr &= ISR_QUEUE | ISR_CONFIG;
    return 0;
}

const struct mull_state_desc mull_virtio_pci_desc = {
    .name = "virtio-pci",
    .version = 1,
    .oldest = 1,
    .fields =
        (const struct mull_field[]){
            MULL_FIELD_NESTED(struct mull_virtio_pci, function, &mull_pci_function_desc),
            MULL_FIELD(struct mull_virtio_pci, isr),
            MULL_FIELD(struct mull_virtio_pci, device_feature_select),
            MULL_FIELD(struct mull_virtio_pci, driver_feature_select),
            MULL_FIELD(struct mull_virtio_pci, queue_select), MULL_FIELDS_END},
    .after_load = pci_loaded,
};
