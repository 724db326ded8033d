/*
 * What the tests of storage controllers share: a PCI bus, and a disk whose sector n is full of the
 * byte n.
 */
#ifndef TESTS_STORAGE_WORLD_H
#define TESTS_STORAGE_WORLD_H

#include "platform_world.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "device/storage/scsi.h"
#include "platform/pci.h"
#include "state/state.h"

#define STORAGE_SECTORS 2048u
#define STORAGE_BARS 0xc0000000ull

static struct world world;
static struct mull_pci_bus *bus;
static struct mull_device *device;
static struct mull_block *disk, *cd;
static char path[40];
/* Ports of I/O BARs begin here. */
#define STORAGE_PORTS 0xc000u

static inline struct mull_block *open_block(struct world *w, bool readonly)
{
    const struct mull_block_options options = {
        .path = path, .format = "raw", .readonly = readonly, .no_lock = true};
    struct mull_block *block;

    assert_int_equal(mull_block_open(&options, &block, NULL), 0);
    assert_int_equal(mull_block_start(block, w->env.loop, NULL), 0);
    return block;
}

/* RAM, bus, disk and medium; the test then creates `device`. */
static inline void storage_make(void)
{
    struct mull_pci_config config = {.ecam_base = 0xe0000000,
                                     .mmio_base = STORAGE_BARS,
                                     .mmio_size = 0x20000000,
                                     .io_base = 0xc000,
                                     .io_size = 0x1000,
                                     .msi = {.send = world_msi, .opaque = &world}};
    uint8_t byte[512];

    world_make(&world);
    assert_int_equal(mull_memory_add_ram(world.env.memory, 0, 4 << 20, false, NULL), 0);
    strcpy(path, "/tmp/mullion-storage-XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    for (unsigned i = 0; i < STORAGE_SECTORS; i++) {
        memset(byte, (int)(i & 0xff), sizeof(byte));
        assert_int_equal(write(fd, byte, sizeof(byte)), sizeof(byte));
    }
    close(fd);
    disk = open_block(&world, false);
    cd = open_block(&world, true);
    config.memory = world.env.memory;
    for (unsigned i = 0; i < 4; i++)
        config.intx[i] = world_irq(&world, 16 + i);
    assert_int_equal(mull_pci_bus_create(&config, &bus, NULL), 0);
}

static inline void storage_free(void)
{
    device->ops->destroy(device);
    mull_pci_bus_destroy(bus);
    mull_block_close(disk);
    mull_block_close(cd);
    unlink(path);
    world_free(&world);
}

static inline void settle(void)
{
    world_drain(&world);
    device->ops->quiesce(device); /* and what it started */
    device->ops->resume(device);
    world_drain(&world);
}

static inline uint8_t byte_at(uint64_t gpa)
{
    uint8_t byte;
    assert_int_equal(mull_mem_read(world.env.memory, gpa, &byte, 1), 0);
    return byte;
}

/* Save the device, reset it, and load it again: it goes on where it was. */
static inline void save_and_load(void)
{
    struct mull_state_writer *writer;
    struct mull_state_reader *reader;
    struct mull_state_section section;
    size_t size;

    device->ops->quiesce(device);
    assert_int_equal(mull_state_writer_buffer(&writer, NULL), 0);
    assert_int_equal(
        mull_state_write(writer, device->name, 0, device->ops->state, device->object, NULL), 0);
    assert_int_equal(mull_state_write_end(writer, NULL), 0);
    const void *data = mull_state_writer_data(writer, &size);
    device->ops->reset(device);
    assert_int_equal(mull_state_reader_buffer(data, size, &reader, NULL), 0);
    assert_int_equal(mull_state_next(reader, &section, NULL), 1);
    assert_int_equal(mull_state_read(reader, device->ops->state, device->object, NULL), 0);
    mull_state_reader_destroy(reader);
    mull_state_writer_destroy(writer);
    device->ops->resume(device);
}

#endif
