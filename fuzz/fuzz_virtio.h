/*
 * A guest that does anything: runs the fuzzer's input as a program of register accesses, writes to
 * ring memory and kicks against one virtio device on a PCI bus of its own.
 */
#ifndef MULL_FUZZ_VIRTIO_H
#define MULL_FUZZ_VIRTIO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "device/devices.h"

#define FUZZ_RAM (1u << 20)

struct fuzz_guest {
    struct mull_memory *memory;
    struct mull_loop *loop;
    struct mull_pci_bus *bus;
    struct mull_device_env env;
    struct mull_device *device;
    unsigned queues;
    /* Where a driver of packed rings (env.packed_rings) goes on, by queue, and its wrap counters.
     */
    uint16_t place[16], size;
    bool wrap[16];
    /* What the outside world does to the device now; @arg is the fuzzer's. May be NULL. */
    void (*event)(struct fuzz_guest *g, uint32_t arg);
    /* Complete everything that is in flight. May be NULL. */
    void (*settle)(struct fuzz_guest *g);
    void *opaque;
};

/** Memory, loop, bus. */
void fuzz_guest_init(struct fuzz_guest *g);

/** Run the program, then check that the device still resets. */
void fuzz_guest_run(struct fuzz_guest *g, const uint8_t *data, size_t size);

/** Destroys the device too, if it is still there. */
void fuzz_guest_fini(struct fuzz_guest *g);

/** Let the loop handle what is ready. */
void fuzz_guest_turn(struct fuzz_guest *g);

#endif
