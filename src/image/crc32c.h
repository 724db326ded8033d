/* CRC-32C (Castagnoli), as VHDX and our own files beside images use it. Knows bytes only. */
#ifndef MULL_IMAGE_CRC32C_H
#define MULL_IMAGE_CRC32C_H

#include <stdint.h>

uint32_t mull_crc32c(const void *data, uint64_t length);

#endif
