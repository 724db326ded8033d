/*
 * VMware's VMXNET3, revisions 1 and 2 (the second tells of received segments put together), as the
 * drivers of Linux, iPXE and VMware's tools know it: two BARs of registers, commands, an area that
 * the driver shares. What the area says is read when a command says so and bounded then; the rings
 * are handled in vmxnet3_rings.c.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "device/net/vmxnet3_internal.h"

#define VENDOR 0x15ad
#define DEVICE 0x07b0
#define PCI_REVISION 1
#define PCI_CLASS_ETHERNET 0x020000
#define BAR_SIZE 4096
#define MSIX_BAR 2

/* BAR 0. */
#define REG_IMR 0x000
#define REG_TXPROD 0x600
#define REG_RXPROD 0x800
#define REG_RXPROD2 0xa00

/* BAR 1. */
enum {
    REG_VRRS = 0x00,
    REG_UVRS = 0x08,
    REG_DSAL = 0x10,
    REG_DSAH = 0x18,
    REG_CMD = 0x20,
    REG_MACL = 0x28,
    REG_MACH = 0x30,
    REG_ICR = 0x38,
    REG_ECR = 0x40,
};

enum {
    CMD_ACTIVATE = 0xcafe0000,
    CMD_QUIESCE,
    CMD_RESET,
    CMD_UPDATE_RX_MODE,
    CMD_UPDATE_MAC_FILTERS,
    CMD_UPDATE_VLAN_FILTERS,
    CMD_UPDATE_RSSIDT,
    CMD_UPDATE_IML,
    CMD_UPDATE_PMCFG,
    CMD_UPDATE_FEATURE,
    CMD_GET_QUEUE_STATUS = 0xf00d0000,
    CMD_GET_STATS,
    CMD_GET_LINK,
    CMD_GET_PERM_MAC_LO,
    CMD_GET_PERM_MAC_HI,
    CMD_GET_DID_LO,
    CMD_GET_DID_HI,
    CMD_GET_DEV_EXTRA_INFO,
    CMD_GET_CONF_INTR,
};

#define MAGIC 3133079265u
#define REVISIONS 3u /* bit n: revision n + 1 */
#define LINK_10G (10000u << 16 | 1)
#define CONF_INTR_AUTO 0u /* any kind, masked by the device when sent */

/* The shared area. */
#define AREA_MAGIC 0
#define AREA_FEATURES 24
#define AREA_QUEUES 40
#define AREA_MTU 56
#define AREA_MAX_SG 60
#define AREA_NTX 62
#define AREA_NRX 63
#define AREA_AUTOMASK 80
#define AREA_NINTR 81
#define AREA_EVENT_INTR 82
#define AREA_RX_MODE 120
#define AREA_MCAST_LEN 124
#define AREA_MCAST 128
#define AREA_VLANS 136
#define AREA_ECR 696
#define AREA_SIZE 720

/* A queue's descriptor in the table that the area names. */
#define QUEUE_SIZE 256
#define QUEUE_CONF 16
#define QUEUE_STATUS 80
#define QUEUE_STATS 88

#define F_LRO 8u
#define MAX_COMPLAINTS 8

static uint64_t area_get(const uint8_t *area, unsigned at, unsigned size)
{
    uint64_t value = 0;
    memcpy(&value, area + at, size);
    return value;
}

/* ---- Interrupts ---- */

static void update_line(struct vmxnet3 *v)
{
    mull_pci_intx(&v->nic.pci, v->line);
}

void vmxnet3_interrupt(struct vmxnet3 *v, unsigned index)
{
    if (index >= VMXNET3_INTRS)
        return;
    if (v->masked[index]) {
        v->pending[index] = 1;
        return;
    }
    v->pending[index] = 0;
    if (v->automask)
        v->masked[index] = 1;
    if (mull_pci_msix_enabled(&v->nic.pci)) {
        mull_pci_msix_send(&v->nic.pci, index);
    } else if (mull_pci_msi_enabled(&v->nic.pci)) {
        mull_pci_msi_send(&v->nic.pci);
    } else {
        v->line = true;
        update_line(v);
    }
}

static void set_mask(struct vmxnet3 *v, unsigned index, bool masked)
{
    if (index >= VMXNET3_INTRS)
        return;
    v->masked[index] = masked;
    if (!masked && v->pending[index])
        vmxnet3_interrupt(v, index);
}

static void raise_event(struct vmxnet3 *v, uint32_t event)
{
    if (!v->active)
        return;
    v->events |= event;
    mull_mem_write32(v->nic.env.memory, v->area + AREA_ECR, v->events);
    vmxnet3_interrupt(v, v->event_intr);
}

void vmxnet3_queue_failed(struct vmxnet3 *v, bool tx, unsigned index)
{
    uint64_t at = v->queues + QUEUE_SIZE * (tx ? index : v->ntx + index) + QUEUE_STATUS;
    const uint32_t status[2] = {1, 0x80000007u}; /* stopped; descriptor invalid */

    mull_log_limited(v->nic.env.log, v->nic.complaints, MAX_COMPLAINTS, MULL_LOG_WARN,
                     "%s: the guest's driver has put nonsense into %s queue %u; it stops until the "
                     "driver resets the device",
                     v->nic.device.name, tx ? "transmit" : "receive", index);
    mull_mem_write(v->nic.env.memory, at, status, sizeof(status));
    raise_event(v, tx ? VMXNET3_EVENT_TQERR : VMXNET3_EVENT_RQERR);
}

/* ---- What the shared area says ---- */

static void read_rx_mode(struct vmxnet3 *v)
{
    uint32_t mode = 0;

    mull_mem_read32(v->nic.env.memory, v->area + AREA_RX_MODE, &mode);
    v->rx_mode = mode & 0x1f;
}

static void read_multicast(struct vmxnet3 *v)
{
    uint16_t len = 0;
    uint64_t table = 0;

    mull_mem_read16(v->nic.env.memory, v->area + AREA_MCAST_LEN, &len);
    mull_mem_read64(v->nic.env.memory, v->area + AREA_MCAST, &table);
    v->nmulticast = 0;
    v->multicast_overflow = len / 6u > VMXNET3_MULTICAST; /* too much is allowed, too little not */
    if (!v->multicast_overflow &&
        !mull_mem_read(v->nic.env.memory, table, v->multicast, len / 6u * 6u))
        v->nmulticast = (uint16_t)(len / 6u);
}

static void read_vlans(struct vmxnet3 *v)
{
    mull_mem_read(v->nic.env.memory, v->area + AREA_VLANS, v->vlans, sizeof(v->vlans));
}

static void read_features(struct vmxnet3 *v)
{
    uint64_t features = 0;

    mull_mem_read64(v->nic.env.memory, v->area + AREA_FEATURES, &features);
    v->features = (uint32_t)features & 0xf;
    mull_nic_post(&v->nic); /* the back end hears of it in the loop's thread */
    v->offloads_due = true;
}

static bool read_tx_queue(struct vmxnet3 *v, unsigned index)
{
    struct vmxnet3_tx *q = &v->tx[index];
    uint8_t conf[64];

    if (mull_mem_read(v->nic.env.memory, v->queues + QUEUE_SIZE * index + QUEUE_CONF, conf,
                      sizeof(conf)))
        return false;
    memset(q, 0, sizeof(*q));
    q->ring = (struct vmxnet3_ring){area_get(conf, 0, 8), (uint32_t)area_get(conf, 40, 4), 0, 1};
    q->done = (struct vmxnet3_ring){area_get(conf, 16, 8), (uint32_t)area_get(conf, 48, 4), 0, 1};
    q->intr = conf[56];
    return vmxnet3_tx_valid(q);
}

static bool read_rx_queue(struct vmxnet3 *v, unsigned index)
{
    struct vmxnet3_rx *q = &v->rx[index];
    uint8_t conf[64];

    if (mull_mem_read(v->nic.env.memory, v->queues + QUEUE_SIZE * (v->ntx + index) + QUEUE_CONF,
                      conf, sizeof(conf)))
        return false;
    memset(q, 0, sizeof(*q));
    for (unsigned i = 0; i < 2; i++)
        q->ring[i] = (struct vmxnet3_ring){area_get(conf, 8 * i, 8),
                                           (uint32_t)area_get(conf, 40 + 4 * i, 4), 0, 1};
    q->done = (struct vmxnet3_ring){area_get(conf, 16, 8), (uint32_t)area_get(conf, 48, 4), 0, 1};
    q->intr = conf[56];
    return vmxnet3_rx_valid(q);
}

static bool activate(struct vmxnet3 *v)
{
    uint8_t area[AREA_SIZE];

    if (v->active || mull_mem_read(v->nic.env.memory, v->area, area, sizeof(area)) ||
        area_get(area, AREA_MAGIC, 4) != MAGIC)
        return false;
    v->queues = area_get(area, AREA_QUEUES, 8);
    v->max_sg = (uint16_t)area_get(area, AREA_MAX_SG, 2);
    v->ntx = area[AREA_NTX];
    v->nrx = area[AREA_NRX];
    v->automask = area[AREA_AUTOMASK] != 0;
    v->event_intr = area[AREA_EVENT_INTR];
    if (!v->ntx || v->ntx > VMXNET3_TX_QUEUES || !v->nrx || v->nrx > VMXNET3_RX_QUEUES ||
        v->event_intr >= VMXNET3_INTRS)
        return false;
    for (unsigned i = 0; i < v->ntx; i++)
        if (!read_tx_queue(v, i))
            return false;
    for (unsigned i = 0; i < v->nrx; i++)
        if (!read_rx_queue(v, i))
            return false;
    read_rx_mode(v);
    read_multicast(v);
    read_vlans(v);
    read_features(v);
    v->active = true;
    mull_nic_refilled(&v->nic);
    return true;
}

static void deactivate(struct vmxnet3 *v)
{
    v->active = false;
    v->events = 0;
    v->nic.sent = 0;
    v->line = false;
    memset(v->pending, 0, sizeof(v->pending));
    memset(v->masked, 1, sizeof(v->masked));
    update_line(v);
}

static void reset_registers(struct vmxnet3 *v)
{
    deactivate(v);
    v->area = v->queues = 0;
    v->answer = 0;
    v->revision = 1;
    v->features = 0;
    v->offloads_due = false;
    memcpy(v->mac, v->nic.permanent_mac, sizeof(v->mac));
}

/* ---- Commands ---- */

static void write_stats(struct vmxnet3 *v)
{
    for (unsigned i = 0; v->active && i < v->ntx; i++)
        mull_mem_write(v->nic.env.memory, v->queues + QUEUE_SIZE * i + QUEUE_STATS, v->tx_stats[i],
                       sizeof(v->tx_stats[i]));
    for (unsigned i = 0; v->active && i < v->nrx; i++)
        mull_mem_write(v->nic.env.memory, v->queues + QUEUE_SIZE * (v->ntx + i) + QUEUE_STATS,
                       v->rx_stats[i], sizeof(v->rx_stats[i]));
}

static uint32_t mac_part(const uint8_t *mac, bool high)
{
    return high ? mac[4] | (uint32_t)mac[5] << 8
                : mac[0] | (uint32_t)mac[1] << 8 | (uint32_t)mac[2] << 16 | (uint32_t)mac[3] << 24;
}

static uint32_t command(struct vmxnet3 *v, uint32_t code)
{
    switch (code) {
    case CMD_ACTIVATE:
        return activate(v) ? 0 : 1;
    case CMD_QUIESCE:
        deactivate(v);
        return 0;
    case CMD_RESET:
        reset_registers(v);
        return 0;
    case CMD_UPDATE_RX_MODE:
        read_rx_mode(v);
        return 0;
    case CMD_UPDATE_MAC_FILTERS:
        read_multicast(v);
        return 0;
    case CMD_UPDATE_VLAN_FILTERS:
        read_vlans(v);
        return 0;
    case CMD_UPDATE_FEATURE:
        read_features(v);
        return 0;
    case CMD_GET_STATS:
        write_stats(v);
        return 0;
    case CMD_GET_LINK:
        return v->nic.link_up ? LINK_10G : 0;
    case CMD_GET_PERM_MAC_LO:
    case CMD_GET_PERM_MAC_HI:
        return mac_part(v->nic.permanent_mac, code == CMD_GET_PERM_MAC_HI);
    case CMD_GET_DID_LO:
        return DEVICE;
    case CMD_GET_CONF_INTR:
        return CONF_INTR_AUTO;
    default: /* the queues' status is always up to date; what is not known has no effect */
        return 0;
    }
}

/* ---- Registers ---- */

static uint64_t bar0_read(void *opaque, unsigned cpu, uint64_t offset, unsigned size)
{
    struct vmxnet3 *v = opaque;
    uint64_t value = 0;

    pthread_mutex_lock(&v->nic.lock);
    if (offset < 8 * VMXNET3_INTRS && !(offset & 7))
        value = v->masked[offset / 8];
    pthread_mutex_unlock(&v->nic.lock);
    return value;
}

static void bar0_write(void *opaque, unsigned cpu, uint64_t offset, unsigned size, uint64_t value)
{
    struct vmxnet3 *v = opaque;

    pthread_mutex_lock(&v->nic.lock);
    if (offset < 8 * VMXNET3_INTRS && !(offset & 7)) {
        set_mask(v, (unsigned)offset / 8, value & 1);
    } else if (offset >= REG_TXPROD && offset < REG_TXPROD + 8 * VMXNET3_TX_QUEUES) {
        v->kicks |= 1u << (offset - REG_TXPROD) / 8;
        mull_nic_post(&v->nic);
    } else if (offset >= REG_RXPROD && offset < REG_RXPROD2 + 8 * VMXNET3_RX_QUEUES) {
        mull_nic_refilled(&v->nic);
    }
    pthread_mutex_unlock(&v->nic.lock);
}

static uint32_t bar1_get(struct vmxnet3 *v, uint64_t offset)
{
    uint32_t value;

    switch (offset) {
    case REG_VRRS:
        return REVISIONS;
    case REG_UVRS:
        return 1;
    case REG_DSAL:
        return (uint32_t)v->area;
    case REG_DSAH:
        return (uint32_t)(v->area >> 32);
    case REG_CMD:
        return v->answer;
    case REG_MACL:
    case REG_MACH:
        return mac_part(v->mac, offset == REG_MACH);
    case REG_ICR: /* whose interrupt is it? */
        value = v->line;
        v->line = false;
        update_line(v);
        return value;
    default:
        return 0;
    }
}

static void bar1_set(struct vmxnet3 *v, uint64_t offset, uint32_t value)
{
    switch (offset) {
    case REG_VRRS:
        if (value && !(value & (value - 1)) && (value & REVISIONS))
            v->revision = (uint8_t)value;
        break;
    case REG_DSAL:
        v->area = (v->area & ~0xffffffffull) | value;
        break;
    case REG_DSAH:
        v->area = (uint32_t)v->area | (uint64_t)value << 32;
        break;
    case REG_CMD:
        v->answer = command(v, value);
        break;
    case REG_MACL:
        memcpy(v->mac, &value, 4);
        break;
    case REG_MACH:
        memcpy(v->mac + 4, &value, 2);
        break;
    case REG_ECR:
        v->events &= ~value;
        if (v->active)
            mull_mem_write32(v->nic.env.memory, v->area + AREA_ECR, v->events);
        break;
    default:
        break;
    }
}

static uint64_t bar1_read(void *opaque, unsigned cpu, uint64_t offset, unsigned size)
{
    struct vmxnet3 *v = opaque;

    pthread_mutex_lock(&v->nic.lock);
    uint64_t value = bar1_get(v, offset);
    pthread_mutex_unlock(&v->nic.lock);
    return value;
}

static void bar1_write(void *opaque, unsigned cpu, uint64_t offset, unsigned size, uint64_t value)
{
    struct vmxnet3 *v = opaque;

    pthread_mutex_lock(&v->nic.lock);
    bar1_set(v, offset, (uint32_t)value);
    pthread_mutex_unlock(&v->nic.lock);
}

static const struct mull_region_ops bar0_ops = {bar0_read, bar0_write, 4, 4};
static const struct mull_region_ops bar1_ops = {bar1_read, bar1_write, 4, 4};

/* ---- Work ---- */

static void work(struct mull_nic *nic)
{
    struct vmxnet3 *v = (struct vmxnet3 *)nic;

    if (v->offloads_due) {
        v->offloads_due = false;
        mull_nic_set_lro(nic, (v->features & F_LRO) && v->revision > 1);
    }
    if (!v->active)
        return;
    uint32_t kicks = v->kicks;
    v->kicks = 0;
    for (unsigned i = 0; i < v->ntx; i++)
        if (kicks >> i & 1)
            vmxnet3_transmit(v, i);
    mull_nic_flush(nic);
}

static void link_changed(struct mull_nic *nic)
{
    raise_event((struct vmxnet3 *)nic, VMXNET3_EVENT_LINK);
}

static const struct mull_nic_ops nic_ops = {
    .receive = vmxnet3_receive, .received = vmxnet3_received, .work = work, .link = link_changed};

/* ---- Life ---- */

static void reset(struct mull_device *device)
{
    struct vmxnet3 *v = (struct vmxnet3 *)device;

    mull_pci_function_reset(&v->nic.pci);
    pthread_mutex_lock(&v->nic.lock);
    reset_registers(v);
    memset(v->tx_stats, 0, sizeof(v->tx_stats));
    memset(v->rx_stats, 0, sizeof(v->rx_stats));
    pthread_mutex_unlock(&v->nic.lock);
}

static void resume(struct mull_device *device)
{
    struct vmxnet3 *v = (struct vmxnet3 *)device;

    pthread_mutex_lock(&v->nic.lock);
    v->kicks = ~0u;
    v->offloads_due = true;
    update_line(v);
    pthread_mutex_unlock(&v->nic.lock);
    mull_nic_resume(device);
}

static void destroy(struct mull_device *device)
{
    mull_nic_fini((struct mull_nic *)device);
    free(device);
}

static int loaded(void *object, uint32_t version, struct mull_error *err)
{
    struct vmxnet3 *v = object;
    bool good = v->ntx <= VMXNET3_TX_QUEUES && v->nrx <= VMXNET3_RX_QUEUES &&
                v->nmulticast <= VMXNET3_MULTICAST && v->event_intr < VMXNET3_INTRS &&
                (v->revision == 1 || v->revision == 2) && (!v->active || (v->ntx && v->nrx));

    for (unsigned i = 0; good && v->active && i < v->ntx; i++)
        good = vmxnet3_tx_valid(&v->tx[i]);
    for (unsigned i = 0; good && v->active && i < v->nrx; i++)
        good = vmxnet3_rx_valid(&v->rx[i]);
    if (!good)
        return mull_fail(err, EINVAL, "%s: the saved rings are not possible", v->nic.device.name);
    return 0;
}

static const struct mull_field ring_fields[] = {
    MULL_FIELD(struct vmxnet3_ring, base), MULL_FIELD(struct vmxnet3_ring, size),
    MULL_FIELD(struct vmxnet3_ring, next), MULL_FIELD(struct vmxnet3_ring, gen), MULL_FIELDS_END};
static const struct mull_state_desc ring_desc = {
    .name = "vmxnet3-ring", .version = 1, .oldest = 1, .fields = ring_fields};
static const struct mull_field tx_fields[] = {
    MULL_FIELD_NESTED(struct vmxnet3_tx, ring, &ring_desc),
    MULL_FIELD_NESTED(struct vmxnet3_tx, done, &ring_desc), MULL_FIELD(struct vmxnet3_tx, intr),
    MULL_FIELD(struct vmxnet3_tx, stopped), MULL_FIELDS_END};
static const struct mull_state_desc tx_desc = {
    .name = "vmxnet3-tx", .version = 1, .oldest = 1, .fields = tx_fields};
static const struct mull_field rx_fields[] = {
    MULL_FIELD_NESTED_ARRAY(struct vmxnet3_rx, ring, &ring_desc),
    MULL_FIELD_NESTED(struct vmxnet3_rx, done, &ring_desc), MULL_FIELD(struct vmxnet3_rx, intr),
    MULL_FIELD(struct vmxnet3_rx, stopped), MULL_FIELDS_END};
static const struct mull_state_desc rx_desc = {
    .name = "vmxnet3-rx", .version = 1, .oldest = 1, .fields = rx_fields};
static const struct mull_field fields[] = {
    MULL_FIELD_NESTED(struct vmxnet3, nic.pci, &mull_pci_function_desc),
    MULL_FIELD(struct vmxnet3, area),
    MULL_FIELD(struct vmxnet3, queues),
    MULL_FIELD(struct vmxnet3, answer),
    MULL_FIELD(struct vmxnet3, events),
    MULL_FIELD(struct vmxnet3, features),
    MULL_FIELD(struct vmxnet3, rx_mode),
    MULL_FIELD(struct vmxnet3, max_sg),
    MULL_FIELD(struct vmxnet3, revision),
    MULL_FIELD(struct vmxnet3, ntx),
    MULL_FIELD(struct vmxnet3, nrx),
    MULL_FIELD(struct vmxnet3, event_intr),
    MULL_FIELD(struct vmxnet3, active),
    MULL_FIELD(struct vmxnet3, automask),
    MULL_FIELD(struct vmxnet3, line),
    MULL_FIELD(struct vmxnet3, multicast_overflow),
    MULL_FIELD_BLOB(struct vmxnet3, mac),
    MULL_FIELD_BLOB(struct vmxnet3, masked),
    MULL_FIELD_BLOB(struct vmxnet3, pending),
    MULL_FIELD(struct vmxnet3, nmulticast),
    MULL_FIELD_BLOB(struct vmxnet3, multicast),
    MULL_FIELD_ARRAY(struct vmxnet3, vlans),
    MULL_FIELD_NESTED_ARRAY(struct vmxnet3, tx, &tx_desc),
    MULL_FIELD_NESTED_ARRAY(struct vmxnet3, rx, &rx_desc),
    MULL_FIELD_BLOB(struct vmxnet3, tx_stats),
    MULL_FIELD_BLOB(struct vmxnet3, rx_stats),
    MULL_FIELDS_END,
};
static const struct mull_state_desc desc = {
    .name = "vmxnet3", .version = 1, .oldest = 1, .fields = fields, .after_load = loaded};
static const struct mull_device_ops device_ops = {.state = &desc,
                                                  .reset = reset,
                                                  .quiesce = mull_nic_quiesce,
                                                  .resume = resume,
                                                  .destroy = destroy};

int mull_vmxnet3_create(const struct mull_device_env *env, struct mull_pci_bus *bus,
                        const struct mull_nic_config *cfg, struct mull_device **out,
                        struct mull_error *err)
{
    struct vmxnet3 *v = calloc(1, sizeof(*v));

    if (!v)
        return mull_fail(err, ENOMEM, "%s: out of memory", cfg->name);
    int ret = mull_nic_init(&v->nic, env, cfg, &device_ops, &nic_ops, err);
    if (!ret) {
        mull_pci_function_init(&v->nic.pci, NULL, VENDOR, DEVICE, VENDOR, DEVICE,
                               PCI_CLASS_ETHERNET, PCI_REVISION);
        v->nic.pci.intx_pin = 1;
        ret = mull_pci_add_bar(&v->nic.pci, 0, BAR_SIZE, false, false, false, &bar0_ops, v,
                               "VMXNET3", env->memory, err);
    }
    if (!ret)
        ret = mull_pci_add_bar(&v->nic.pci, 1, BAR_SIZE, false, false, false, &bar1_ops, v,
                               "VMXNET3", env->memory, err);
    if (!ret)
        ret = mull_pci_add_msix(&v->nic.pci, MSIX_BAR, VMXNET3_INTRS, env->memory, err);
    if (!ret)
        ret = mull_pci_add_msi(&v->nic.pci, err);
    if (!ret)
        ret = mull_nic_attach(&v->nic, bus, cfg, err);
    if (ret) {
        destroy(&v->nic.device);
        return ret;
    }
    reset_registers(v);
    *out = &v->nic.device;
    return 0;
}
