/*
 * A guest that does anything to a network card that is none of virtio's: registers of all BARs,
 * memory (a sane driver's rings to begin with), configuration space, frames that come, a back end
 * that is full, saved states. A target gives the card and its driver's first steps.
 */
#ifndef FUZZ_NIC_H
#define FUZZ_NIC_H

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "device/devices.h"

#define NIC_RAM (1u << 20)
#define NIC_ECAM 0xe0000000ull
#define NIC_MMIO 0xc0000000ull
#define NIC_SLOT (1u << 15)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct fuzz_nic {
    struct mull_memory *memory;
    struct mull_loop *loop;
    struct mull_pci_bus *bus;
    struct mull_device *device;
    struct mull_netdev netdev;
    struct mull_netdev_frontend front;
    bool full;
    uint8_t sum;
    uint64_t bar[4]; /* where the memory BARs are; 0: no such one */
    const uint8_t *data;
    size_t size;
};

static uint32_t nic_take(struct fuzz_nic *n, unsigned bytes)
{
    uint32_t value = 0;
    for (unsigned i = 0; i < bytes && n->size; i++, n->data++, n->size--)
        value |= (uint32_t)*n->data << 8 * i;
    return value;
}

static int nic_send(struct mull_netdev *netdev, const struct iovec *iov, int niov, size_t len)
{
    struct fuzz_nic *n = (struct fuzz_nic *)((char *)netdev - offsetof(struct fuzz_nic, netdev));
    size_t total = 0;

    if (n->full)
        return -EAGAIN;
    for (int i = 0; i < niov; i++) {
        for (size_t j = 0; j < iov[i].iov_len; j += 64)
            n->sum ^= ((const uint8_t *)iov[i].iov_base)[j];
        total += iov[i].iov_len;
    }
    if (total != len || len > MULL_NET_HDR_SIZE + MULL_NET_FRAME_MAX)
        abort();
    return 0;
}

static void nic_netdev_attach(struct mull_netdev *netdev, const struct mull_netdev_frontend *front)
{
    struct fuzz_nic *n = (struct fuzz_nic *)((char *)netdev - offsetof(struct fuzz_nic, netdev));
    n->front = front ? *front : (struct mull_netdev_frontend){0};
}

static void nic_netdev_resume(struct mull_netdev *netdev) {}
static void nic_netdev_offloads(struct mull_netdev *netdev, uint64_t features) {}
static void nic_msi(void *opaque, uint64_t address, uint32_t data) {}
static void nic_line(void *opaque, unsigned line, bool level) {}
static void nic_stop(void *loop)
{
    mull_loop_stop(loop);
}

static void nic_turn(struct fuzz_nic *n)
{
    if (!mull_loop_post(n->loop, nic_stop, n->loop))
        mull_loop_run(n->loop);
}

static void nic_write(struct fuzz_nic *n, unsigned bar, unsigned offset, uint32_t value)
{
    if (n->bar[bar])
        mull_space_write(n->memory, MULL_SPACE_MMIO, 0, n->bar[bar] + offset, 4, value);
}

static void nic_find_bars(struct fuzz_nic *n)
{
    if (mull_pci_bus_assign(n->bus, NULL))
        abort();
    mull_space_write(n->memory, MULL_SPACE_MMIO, 0, NIC_ECAM + NIC_SLOT + 4, 2, 7);
    for (unsigned i = 0; i < 4; i++) {
        uint64_t at = NIC_ECAM + NIC_SLOT + 0x10 + 4 * i;
        uint32_t bar = (uint32_t)mull_space_read(n->memory, MULL_SPACE_MMIO, 0, at, 4);
        n->bar[i] = bar & 1 ? 0 : bar & ~15u;
    }
}

/* A frame whose head is the fuzzer's, now and then an IPv4 or IPv6 one. */
static void nic_arrive(struct fuzz_nic *n, uint32_t arg)
{
    static uint8_t frame[MULL_NET_HDR_SIZE + MULL_NET_FRAME_MAX + 8];
    size_t head = n->netdev.caps.vnet_hdr ? MULL_NET_HDR_SIZE : 0;

    for (unsigned i = 0; i < 80; i++)
        frame[i] = (uint8_t)nic_take(n, 1);
    if (arg & 1)
        memset(frame + head, 0xff, 6);
    if (arg & 2)
        memcpy(frame + head + 12, "\x08\x00\x45", 3);
    else if (arg & 4)
        memcpy(frame + head + 12, "\x86\xdd\x60", 3);
    n->front.receive(n->front.opaque, frame, (arg >> 4) % sizeof(frame));
    n->front.received(n->front.opaque);
}

static void nic_step(struct fuzz_nic *n, void (*start)(struct fuzz_nic *n))
{
    uint32_t op = nic_take(n, 1), at;
    uint8_t bytes[32];

    switch (op % 11) {
    case 0:
        at = nic_take(n, 3) % NIC_RAM;
        for (unsigned i = 0; i < sizeof(bytes); i++)
            bytes[i] = (uint8_t)nic_take(n, 1);
        mull_mem_write(n->memory, at, bytes, 1 + (op >> 4) * 2);
        break;
    case 1:
    case 2:
        at = nic_take(n, 2) * 4;
        nic_write(n, op >> 4 & 3, at & 0x1ffff, nic_take(n, 4));
        break;
    case 3:
        at = nic_take(n, 2) * 4;
        if (n->bar[op >> 4 & 3])
            mull_space_read(n->memory, MULL_SPACE_MMIO, 0, n->bar[op >> 4 & 3] + (at & 0x1ffff),
                            1u << (op >> 6));
        break;
    case 4:
        at = nic_take(n, 2) % 4096;
        mull_space_write(n->memory, MULL_SPACE_MMIO, 0, NIC_ECAM + NIC_SLOT + at, 4,
                         nic_take(n, 4));
        break;
    case 5:
        n->full = op & 0x10;
        if (!n->full)
            n->front.writable(n->front.opaque);
        break;
    case 6:
        n->front.link(n->front.opaque, op & 0x10);
        break;
    case 7:
        if (op & 0x80) {
            n->device->ops->quiesce(n->device);
            nic_turn(n);
            n->device->ops->resume(n->device);
        } else if (op & 0x40) {
            n->device->ops->reset(n->device);
            nic_find_bars(n);
        } else {
            start(n);
        }
        break;
    case 8:
        nic_turn(n);
        break;
    default:
        nic_arrive(n, nic_take(n, 4));
    }
}

static void fuzz_nic_run(int (*create)(const struct mull_device_env *, struct mull_pci_bus *,
                                       const struct mull_nic_config *, struct mull_device **,
                                       struct mull_error *),
                         void (*start)(struct fuzz_nic *n), const uint8_t *data, size_t size)
{
    static const struct mull_netdev_ops ops = {.send = nic_send,
                                               .attach = nic_netdev_attach,
                                               .resume = nic_netdev_resume,
                                               .set_offloads = nic_netdev_offloads};
    static struct mull_clock *clock; /* making one takes a while */
    static const struct mull_log silent = {.level = MULL_LOG_ERROR};
    struct fuzz_nic n = {.netdev = {.ops = &ops}, .data = data, .size = size};
    struct mull_pci_config config = {.ecam_base = NIC_ECAM,
                                     .mmio_base = NIC_MMIO,
                                     .mmio_size = 0x10000000,
                                     .io_base = 0xc000,
                                     .io_size = 0x1000,
                                     .msi = {nic_msi, NULL}};
    const struct mull_nic_config cfg = {
        .name = "nic.0", .devfn = -1, .netdev = &n.netdev, .mac = {2, 0, 0, 0, 0, 1}};

    if (mull_memory_create(NULL, &n.memory, NULL) ||
        mull_memory_add_ram(n.memory, 0, NIC_RAM, false, NULL) || mull_loop_create(&n.loop, NULL) ||
        (!clock && mull_clock_create(&clock, NULL)))
        abort();
    config.memory = n.memory;
    for (unsigned i = 0; i < 4; i++)
        config.intx[i] = (struct mull_irq){nic_line, NULL, i};
    const struct mull_device_env env = {
        .memory = n.memory, .loop = n.loop, .clock = clock, .log = &silent};
    n.netdev.caps.vnet_hdr = nic_take(&n, 1) & 1;
    if (mull_pci_bus_create(&config, &n.bus, NULL) || create(&env, n.bus, &cfg, &n.device, NULL))
        abort();
    nic_find_bars(&n);
    start(&n);
    for (unsigned i = 0; i < 256 && n.size; i++)
        nic_step(&n, start);
    nic_turn(&n);
    n.device->ops->reset(n.device);
    n.device->ops->destroy(n.device);
    mull_pci_bus_destroy(n.bus);
    mull_loop_destroy(n.loop);
    mull_memory_destroy(n.memory);
}

#endif
