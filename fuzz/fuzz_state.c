/*
 * Feeds save streams to the reader, every kind of section to whoever reads it, and to the dump.
 * Checksums are put right first where the lengths allow, else nothing would get past them.
 */
#include <stdlib.h>

#include "engine/cpu_state.h"
#include "state/internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void repair(uint8_t *data, size_t size)
{
    uint32_t length, crc;

    for (size_t at = STATE_MAGIC_SIZE + 4; at + 12 <= size; at += 12 + (size_t)length) {
        memcpy(&length, data + at + 4, 4);
        if (length > size - at - 12)
            return;
        crc = mull_state_crc32c(0, data + at, 8 + (size_t)length);
        memcpy(data + at + 8 + length, &crc, 4);
    }
}

static void read_all(const uint8_t *data, size_t size, struct mull_memory *memory,
                     struct mull_cpu_state *cpu)
{
    struct mull_state_reader *r;
    struct mull_state_section section;
    struct mull_error err;
    volatile uint8_t sum = 0;

    if (mull_state_reader_buffer(data, size, &r, &err))
        return;
    while (mull_state_next(r, &section, &err) > 0) {
        if (section.kind == MULL_STATE_OBJECT) {
            mull_state_read(r, &mull_cpu_state_desc, cpu, &err);
        } else if (section.kind == MULL_STATE_RAM) {
            mull_state_read_ram(r, memory, &err);
        } else {
            size_t n;
            const uint8_t *blob = mull_state_blob(r, &n);

            for (size_t i = 0; i < n; i++)
                sum = (uint8_t)(sum + blob[i]);
        }
    }
    mull_state_reader_destroy(r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *copy = malloc(size ? size : 1);
    struct mull_cpu_state *cpu = calloc(1, sizeof(*cpu));
    struct mull_memory *memory = NULL;
    struct mull_state_reader *r;
    struct mull_error err;
    FILE *null = fopen("/dev/null", "w");

    if (copy && cpu && null && !mull_memory_create(NULL, &memory, &err) &&
        !mull_memory_add_ram(memory, 0, 1 << 20, false, &err)) {
        memcpy(copy, data, size);
        repair(copy, size);
        read_all(copy, size, memory, cpu);
        if (!mull_state_reader_buffer(copy, size, &r, &err)) {
            mull_state_dump(r, null, &err);
            mull_state_reader_destroy(r);
        }
    }
    if (memory)
        mull_memory_destroy(memory);
    if (null)
        fclose(null);
    free(cpu);
    free(copy);
    return 0;
}
