/*
 * Fuzz a storage controller: registers with any value and size, guest memory with what it reads
 * there, resets, saved states. The input is a list of accesses of 8 bytes.
 */
#include "fuzz_storage.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "state/state.h"

#define MMIO 0xc0000000ull

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void stop(void *opaque)
{
    mull_loop_stop(opaque);
}

static void run(struct fuzz_storage *f)
{
    mull_loop_post(f->env.loop, stop, f->env.loop);
    mull_loop_run(f->env.loop);
    f->device->ops->quiesce(f->device);
    f->device->ops->resume(f->device);
}

static struct mull_block *open_block(struct fuzz_storage *f, bool readonly)
{
    char path[64];
    int fd = memfd_create("disk", 0);
    struct mull_block_options options = {
        .path = path, .format = "raw", .readonly = readonly, .no_lock = true, .aio = "threads"};
    struct mull_block *block;

    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    if (fd < 0 || ftruncate(fd, 1 << 20) || mull_block_open(&options, &block, NULL) ||
        mull_block_start(block, f->env.loop, NULL))
        abort();
    close(fd);
    return block;
}

static void make(struct fuzz_storage *f)
{
    static struct mull_clock *clock; /* made once: it measures the host's */
    struct mull_pci_config pci = {.mmio_base = MMIO,
                                  .mmio_size = 0x20000000,
                                  .ecam_base = 0xe0000000,
                                  .io_base = 0xc000,
                                  .io_size = 0x1000};

    memset(f, 0, sizeof(*f));
    if (mull_memory_create(NULL, &f->env.memory, NULL) ||
        mull_memory_add_ram(f->env.memory, 0, 1 << 20, false, NULL) ||
        mull_loop_create(&f->env.loop, NULL) || (!clock && mull_clock_create(&clock, NULL)))
        abort();
    f->env.clock = clock;
    pci.memory = f->env.memory;
    f->disk = (struct mull_drive){.present = true, .block = open_block(f, false), .serial = "SN"};
    f->cdrom = (struct mull_drive){
        .present = true, .cdrom = true, .readonly = true, .block = open_block(f, true)};
    if (mull_pci_bus_create(&pci, &f->bus, NULL))
        abort();
    f->base = MMIO;
    fuzz_storage_create(f);
    if (mull_pci_bus_assign(f->bus, NULL))
        abort();
    fuzz_storage_prepare(f);
}

static void destroy(struct fuzz_storage *f)
{
    f->device->ops->destroy(f->device);
    mull_pci_bus_destroy(f->bus);
    mull_block_close(f->disk.block);
    mull_block_close(f->cdrom.block);
    mull_loop_destroy(f->env.loop);
    mull_memory_destroy(f->env.memory);
}

/* Save and load; one byte may be changed on the way. */
static void reload(struct fuzz_storage *f, uint32_t at, uint8_t change)
{
    struct mull_state_writer *writer;
    struct mull_state_reader *reader;
    struct mull_state_section section;
    struct mull_error err;
    size_t size;

    f->device->ops->quiesce(f->device);
    if (mull_state_writer_buffer(&writer, &err) ||
        mull_state_write(writer, "d", 0, f->device->ops->state, f->device->object, &err) ||
        mull_state_write_end(writer, &err))
        abort();
    uint8_t *data = (uint8_t *)(uintptr_t)mull_state_writer_data(writer, &size);
    if (at < size)
        data[at] ^= change;
    f->device->ops->reset(f->device);
    if (!mull_state_reader_buffer(data, size, &reader, &err)) {
        if (mull_state_next(reader, &section, &err) == 1 &&
            mull_state_read(reader, f->device->ops->state, f->device->object, &err))
            f->device->ops->reset(f->device);
        mull_state_reader_destroy(reader);
    }
    mull_state_writer_destroy(writer);
    f->device->ops->resume(f->device);
}

/* One access: kind and size, address, value. */
static void step(struct fuzz_storage *f, const uint8_t *b)
{
    struct mull_memory *m = f->env.memory;
    unsigned size = 1u << (b[0] >> 4 & 3), port_size = size > 4 ? 4 : size;
    uint32_t at = b[1] | (uint32_t)b[2] << 8 | (uint32_t)(b[3] & 1) << 16,
             value = b[4] | (uint32_t)b[5] << 8 | (uint32_t)b[6] << 16 | (uint32_t)b[7] << 24;
    uint16_t port = f->port_count ? (uint16_t)(f->ports[b[1] % f->port_count] + (b[2] & 15)) : 0;

    switch (b[0] & 7) {
    case 0:
        mull_space_write(m, MULL_SPACE_MMIO, 0, f->base + at, size, value * 0x100000001ull);
        break;
    case 1:
        mull_space_read(m, MULL_SPACE_MMIO, 0, f->base + at, size);
        break;
    case 2:
        if (port)
            mull_space_write(m, MULL_SPACE_PORT, 0, port, port_size, value);
        break;
    case 3:
        if (port)
            mull_space_read(m, MULL_SPACE_PORT, 0, port, port_size);
        break;
    case 4:
    case 5:
        mull_mem_write(m, 0x10000 + (at & 0x7fff), &value, 4);
        break;
    case 6:
        run(f);
        break;
    default:
        if (b[1] & 1)
            reload(f, value >> 8, b[2]);
        else if (b[1] & 2)
            f->device->ops->reset(f->device);
        else /* many commands at once */
            for (unsigned i = 0; i < 16; i++)
                mull_space_write(m, MULL_SPACE_MMIO, 0, f->base + at, 4, value + i);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_storage f;

    if (size > 2048)
        return 0;
    make(&f);
    for (; size >= 8; data += 8, size -= 8)
        step(&f, data);
    run(&f);
    destroy(&f);
    return 0;
}
