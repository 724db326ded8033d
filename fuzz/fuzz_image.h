/*
 * A disk image of FUZZ_FORMAT from the fuzzer: opened for reading and walked, checked, then opened
 * for writing and written. Include after defining FUZZ_FORMAT.
 */
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "image/image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#ifdef FUZZ_LAYOUT
/* Makes the file from the input. */
static int FUZZ_LAYOUT(int fd, const uint8_t *data, size_t size);
#else
#define FUZZ_LAYOUT as_it_is
static int as_it_is(int fd, const uint8_t *data, size_t size)
{
    return write(fd, data, size) == (ssize_t)size ? 0 : -1;
}
#endif

static void read_some(struct mull_image *image)
{
    uint8_t *buf = malloc(1 << 20);
    uint64_t at = 0;
    for (int i = 0; i < 200 && at < image->size && buf; i++) {
        struct mull_extent e;
        struct mull_image *owner;
        if (mull_image_locate(image, at, image->size - at, false, &e, &owner, NULL))
            break;
        uint64_t n = e.length < 1 << 20 ? e.length : 1 << 20;
        mull_image_read(image, buf, n, at);
        at += e.length;
    }
    free(buf);
}

static void write_some(struct mull_image *image)
{
    uint8_t buf[8192];
    memset(buf, 0x5a, sizeof(buf));
    for (uint64_t i = 0; i < 8; i++) {
        uint64_t at = image->size / 8 * i;
        uint64_t n = image->size - at < sizeof(buf) ? image->size - at : sizeof(buf);
        mull_image_write(image, buf, n, at);
        mull_image_zero(image, at / 2, n, i & 1);
        mull_image_discard(image, at / 3, n);
    }
    mull_image_flush(image);
}

static void use(const char *path, bool readonly)
{
    struct mull_image_options o = {.path = path, .format = FUZZ_FORMAT, .readonly = readonly,
                                   .no_lock = true, .no_backing = true, .unsafe = true};
    struct mull_error err = {0};
    struct mull_check check = {0};
    struct mull_image *image;

    if (mull_image_open(&o, &image, &err))
        return;
    read_some(image);
    if (!readonly)
        write_some(image);
    if (image->format->check) {
        check.repair = !readonly;
        pthread_mutex_lock(&image->lock);
        image->format->check(image, &check, &err);
        pthread_mutex_unlock(&image->lock);
    }
    if (image->format->snapshot_create && !readonly) {
        pthread_mutex_lock(&image->lock);
        if (!image->format->snapshot_create(image, "s", &err))
            image->format->snapshot_delete(image, "s", &err);
        pthread_mutex_unlock(&image->lock);
    }
    mull_image_close(image);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[64];
    int fd = memfd_create("image", MFD_CLOEXEC);
    if (fd < 0)
        return 0;
    if (FUZZ_LAYOUT(fd, data, size)) {
        close(fd);
        return 0;
    }
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    use(path, true);
    use(path, false);
    close(fd);
    return 0;
}
