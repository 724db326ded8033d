/*
 * Fuzzes the vhdx format: see fuzz_image.h. An input is records of {page number, length, bytes} (both
 * 16 bits, little-endian; pages of 4 KiB), for the format spreads few bytes over megabytes; the
 * checksums of headers and region tables are made right, so that what they cover is reached.
 */
#define FUZZ_FORMAT "vhdx"
#define FUZZ_LAYOUT lay_out
#include "fuzz_image.h"

#include "image/vhdx.h"

static void seal(uint8_t *file, uint32_t at, uint32_t length)
{
    mull_put_le32(file + at + 4, 0);
    mull_put_le32(file + at + 4, mull_crc32c(file + at, length));
}

static int lay_out(int fd, const uint8_t *data, size_t size)
{
    static const size_t room = 6u << 20;
    uint8_t *file = calloc(1, room);
    if (!file)
        return -1;
    for (size_t at = 0; at + 4 <= size;) {
        size_t page = mull_le16(data + at), n = mull_le16(data + at + 2) % 4097;
        at += 4;
        n = n < size - at ? n : size - at;
        memcpy(file + page % (room / 4096) * 4096, data + at, n);
        at += n;
    }
    seal(file, VHDX_HEADER1, 4096);
    seal(file, VHDX_HEADER2, 4096);
    seal(file, VHDX_REGION1, 65536);
    seal(file, VHDX_REGION2, 65536);
    int ok = write(fd, file, room) == (ssize_t)room;
    free(file);
    return ok ? 0 : -1;
}
