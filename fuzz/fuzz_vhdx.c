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

#define PAGE 4096u
#define PAGES (6u * 256u)

static int lay_out(int fd, const uint8_t *data, size_t size)
{
    static uint8_t file[PAGES * PAGE];
    static const uint8_t zeroes[PAGE];
    static uint8_t used[PAGES];
    int ok = ftruncate(fd, sizeof(file)) == 0;

    for (size_t at = 0; at + 4 <= size;) {
        size_t page = mull_le16(data + at) % PAGES, n = mull_le16(data + at + 2) % (PAGE + 1);
        at += 4;
        n = n < size - at ? n : size - at;
        memcpy(file + page * PAGE, data + at, n);
        used[page] = 1;
        at += n;
    }
    seal(file, VHDX_HEADER1, PAGE);
    seal(file, VHDX_HEADER2, PAGE);
    seal(file, VHDX_REGION1, 65536);
    seal(file, VHDX_REGION2, 65536);
    used[VHDX_HEADER1 / PAGE] = used[VHDX_HEADER2 / PAGE] = 1;
    used[VHDX_REGION1 / PAGE] = used[VHDX_REGION2 / PAGE] = 1;
    /* Only what is there: 6 MiB each time would be most of the work. */
    for (size_t i = 0; i < PAGES; i++) {
        if (!used[i])
            continue;
        used[i] = 0;
        if (ok && memcmp(file + i * PAGE, zeroes, PAGE))
            ok = pwrite(fd, file + i * PAGE, PAGE, (off_t)(i * PAGE)) == PAGE;
        memset(file + i * PAGE, 0, PAGE);
    }
    return ok ? 0 : -1;
}
