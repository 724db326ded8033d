/* Partition tables: the input is a disk. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "image/partition.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct mull_partition_table table;
    struct mull_error err = {0};
    struct mull_image *image;
    char path[64];
    int fd = memfd_create("disk", MFD_CLOEXEC);

    if (fd < 0)
        return 0;
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    struct mull_image_options o = {
        .path = path, .format = "raw", .readonly = true, .no_lock = true};
    if (write(fd, data, size) == (ssize_t)size && !mull_image_open(&o, &image, &err)) {
        mull_partitions_read(image, &table);
        mull_image_close(image);
    }
    close(fd);
    return 0;
}
