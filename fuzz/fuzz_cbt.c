/*
 * The file of changed-block bitmaps beside an image (FILE.cbt), from the fuzzer: read, asked, then
 * taken over for writing and asked again. Its sums are made right for most inputs, or nothing
 * behind them would ever be reached.
 */
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "image/bitmap.h"
#include "image/crc32c.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void ask(struct mull_image *image)
{
    struct mull_error err = {0};
    if (mull_bitmaps_get(image, &err))
        return;
    for (struct mull_bitmap *b = image->bitmaps->first; b; b = b->next)
        if (!mull_bitmap_load(image, b, &err) && mull_bitmap_count(image, b) > image->size)
            abort(); /* more than there is */
}

static void use(const char *path, bool readonly)
{
    struct mull_image_options o = {.path = path, .format = "raw", .readonly = readonly};
    struct mull_error err = {0};
    struct mull_image *image;
    if (mull_image_open(&o, &image, &err))
        return;
    ask(image);
    if (!readonly) {
        uint8_t sector[512] = {1};
        mull_image_write(image, sector, sizeof(sector), 4096);
        mull_bitmap_add(image, "fuzz", 4096, &err);
        ask(image);
    }
    mull_image_abandon(image);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    /* Memory where there is some: what is made durable has to wait for a disk. */
    const char *place = access("/dev/shm", W_OK | X_OK) ? "/tmp" : "/dev/shm";
    char folder[64], path[80], beside[80];
    snprintf(folder, sizeof(folder), "%s/mull-fuzz-XXXXXX", place);
    if (size < 513 || size > 1 << 20 || !mkdtemp(folder))
        return 0;
    uint8_t *copy = malloc(size);
    snprintf(path, sizeof(path), "%s/d", folder);
    snprintf(beside, sizeof(beside), "%s/d.cbt", folder);
    int image = open(path, O_RDWR | O_CREAT, 0600), fd = open(beside, O_RDWR | O_CREAT, 0600);
    memcpy(copy, data, size);
    uint32_t length = mull_le32(copy + 56);
    if (copy[504] % 8 && length <= size - 512)
        mull_put_le32(copy + 60, mull_crc32c(copy + 512, length));
    if (copy[504] % 16)
        mull_put_le32(copy + 508, mull_crc32c(copy, 508));
    if (image >= 0 && fd >= 0 && !ftruncate(image, 1 << 20) &&
        write(fd, copy, size) == (ssize_t)size) {
        use(path, true);
        use(path, false);
    }
    close(image);
    close(fd);
    unlink(path);
    unlink(beside);
    rmdir(folder);
    free(copy);
    return 0;
}
