/* CRC-32C with the instruction that every x86-64 of the last fifteen years has. See crc32c.h. */
#include "image/crc32c.h"

#include <string.h>

__attribute__((target("sse4.2"))) uint32_t mull_crc32c(const void *data, uint64_t length)
{
    const uint8_t *p = data;
    uint64_t crc = UINT32_MAX;
    for (; length >= 8; length -= 8, p += 8) {
        uint64_t v;
        memcpy(&v, p, 8);
        crc = __builtin_ia32_crc32di(crc, v);
    }
    for (; length; length--, p++)
        crc = __builtin_ia32_crc32qi((uint32_t)crc, *p);
    return ~(uint32_t)crc;
}
