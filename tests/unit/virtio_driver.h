/*
 * A guest's virtio-pci driver for tests: finds the device's capabilities in configuration space,
 * negotiates, lays rings out in a small memory and drives them through the BAR, all as a vCPU
 * would. The loop runs in the test's own thread, one turn at a time.
 */
#ifndef MULL_TESTS_VIRTIO_DRIVER_H
#define MULL_TESTS_VIRTIO_DRIVER_H

#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "device/devices.h"

#define DRV_RAM (16u << 20)
#define DRV_QUEUES 8
/* Where the driver keeps things; tests put their buffers from DRV_DATA on. */
#define DRV_RINGS 0x100000u
#define DRV_DATA 0x400000u

struct drv_queue {
    unsigned index, size;
    uint64_t desc, avail, used;
    uint16_t next_avail, seen_used, free_desc;
    /* Packed (virtio 1.2, 2.8), where that was negotiated: places in the ring and wrap counters. */
    bool packed, avail_wrap, used_wrap;
    uint16_t counts[1024]; /* descriptors of each chain, by its ID */
};

struct drv {
    struct mull_memory *memory;
    struct mull_loop *loop;
    struct mull_pci_bus *bus;
    struct mull_device_env env;
    struct mull_device *device; /* destroyed by drv_fini() */

    unsigned slot;
    uint64_t common, notify, isr, config, msix; /* addresses of the structures */
    unsigned cfg_capability;
    uint32_t notify_multiplier;
    uint64_t features; /* negotiated */
    struct drv_queue queues[DRV_QUEUES];

    unsigned messages[64]; /* MSIs received, by data */
    bool intx;
};

struct drv_seg {
    uint64_t gpa;
    uint32_t len;
    bool write;
};

/** Memory, loop and an empty PCI bus. */
void drv_init(struct drv *d);
/** d->device was created on d->bus: place it and find its structures. */
void drv_find(struct drv *d);
void drv_fini(struct drv *d);

uint32_t drv_config_read(struct drv *d, unsigned offset, unsigned size);
void drv_config_write(struct drv *d, unsigned offset, unsigned size, uint32_t value);
uint32_t drv_read(struct drv *d, uint64_t address, unsigned size);
void drv_write(struct drv *d, uint64_t address, unsigned size, uint32_t value);
#define drv_common_read(d, field)                                                                  \
    drv_read(d, (d)->common + offsetof(struct virtio_pci_common_cfg, field),                       \
             sizeof(((struct virtio_pci_common_cfg *)0)->field))
#define drv_common_write(d, field, value)                                                          \
    drv_write(d, (d)->common + offsetof(struct virtio_pci_common_cfg, field),                      \
              sizeof(((struct virtio_pci_common_cfg *)0)->field), value)
#define DRV_QUEUE_RESET 0x3a /* virtio 1.2, 4.1.4.3; younger than the host's header */

/** Reset, ACKNOWLEDGE, DRIVER, take @wanted as far as offered, FEATURES_OK. */
void drv_negotiate(struct drv *d, uint64_t wanted);
uint64_t drv_offered(struct drv *d);
/** Lay a queue out and enable it, with vector index + 1 when MSI-X is on. */
void drv_queue(struct drv *d, unsigned index, unsigned size);
/** Only write the addresses of d->queues[index] and enable. */
void drv_queue_program(struct drv *d, unsigned index);
void drv_driver_ok(struct drv *d);
/** All of it: MSI-X, features, all queues of @size, DRIVER_OK, one turn of the loop. */
void drv_start(struct drv *d, uint64_t wanted, unsigned queues, unsigned size);
void drv_msix_enable(struct drv *d);

/** Put a chain into the available ring. @return its head (packed: its ID) */
uint16_t drv_add(struct drv *d, unsigned queue, const struct drv_seg *segs, unsigned count);
/** The same through an indirect table at @table. */
uint16_t drv_add_indirect(struct drv *d, unsigned queue, uint64_t table, const struct drv_seg *segs,
                          unsigned count);
void drv_desc(struct drv *d, uint64_t table, unsigned index, uint64_t gpa, uint32_t len,
              uint16_t flags, uint16_t next);
void drv_offer(struct drv *d, unsigned queue, uint16_t head);
/** Write the notify register (no loop turn). */
void drv_notify(struct drv *d, unsigned queue);
/** Notify and let the loop run. */
void drv_kick(struct drv *d, unsigned queue);
/** Let the loop handle what is ready. */
void drv_turn(struct drv *d);
/** Take a used element. @return false: none */
bool drv_used(struct drv *d, unsigned queue, uint32_t *id, uint32_t *len);
/** Turn the loop until a used element comes (10 s at most). */
void drv_wait_used(struct drv *d, unsigned queue, uint32_t *id, uint32_t *len);

uint8_t drv_peek8(struct drv *d, uint64_t gpa);
uint16_t drv_peek16(struct drv *d, uint64_t gpa);
void drv_poke16(struct drv *d, uint64_t gpa, uint16_t value);

#define drv_assert_broken(d)                                                                       \
    assert_int_equal(drv_common_read(d, device_status) & VIRTIO_CONFIG_S_NEEDS_RESET,              \
                     VIRTIO_CONFIG_S_NEEDS_RESET)
#define drv_assert_fine(d)                                                                         \
    assert_int_equal(drv_common_read(d, device_status) & VIRTIO_CONFIG_S_NEEDS_RESET, 0)

#endif
