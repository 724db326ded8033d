/* Files that were compressed whole: opened, then read forwards and backwards. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "image/source.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t buf[4096];
    struct mull_source_options source = {.max_size = 8 << 20};
    struct mull_error err = {0};
    struct mull_file *below = NULL, *file = NULL;
    char path[64];
    int fd = memfd_create("packed", MFD_CLOEXEC);

    if (fd < 0)
        return 0;
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    struct mull_file_options o = {
        .path = path, .readonly = true, .no_lock = true, .source = &source};
    if (write(fd, data, size) == (ssize_t)size && !mull_file_open(&o, &below, &err)) {
        if (mull_source_unpack(&o, below, &file, &err) || !file) {
            mull_file_close(below);
        } else {
            uint64_t end = atomic_load(&file->size);
            mull_file_read(file, buf, sizeof(buf), 0);
            mull_file_read(file, buf, sizeof(buf), end > sizeof(buf) ? end - sizeof(buf) : 0);
            mull_file_read(file, buf, sizeof(buf), end / 2);
            mull_file_close(file);
        }
    }
    close(fd);
    return 0;
}
