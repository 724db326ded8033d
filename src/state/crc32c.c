/*
 * CRC32C (Castagnoli): with the processor's instruction where there is one, else by table.
 */
#include <nmmintrin.h>

#include "state/internal.h"

/* The polynomial 1EDC6F41h reflected, one entry a nibble. */
static const uint32_t nibbles[16] = {
    0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3, 0x61c69362, 0x7198540d,
    0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9, 0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75,
};

static uint32_t by_table(uint32_t crc, const uint8_t *p, size_t size)
{
    for (; size; size--, p++) {
        crc ^= *p;
        crc = crc >> 4 ^ nibbles[crc & 15];
        crc = crc >> 4 ^ nibbles[crc & 15];
    }
    return crc;
}

__attribute__((target("sse4.2"))) static uint32_t by_instruction(uint32_t crc, const uint8_t *p,
                                                                 size_t size)
{
    uint64_t word, c = crc;

    for (; size >= 8; size -= 8, p += 8) {
        memcpy(&word, p, 8);
        c = _mm_crc32_u64(c, word);
    }
    crc = (uint32_t)c;
    for (; size; size--, p++)
        crc = _mm_crc32_u8(crc, *p);
    return crc;
}

uint32_t mull_state_crc32c(uint32_t crc, const void *data, size_t size)
{
    crc = ~crc;
    crc = __builtin_cpu_supports("sse4.2") ? by_instruction(crc, data, size)
                                           : by_table(crc, data, size);
    return ~crc;
}
