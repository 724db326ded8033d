/*
 * Fuzz target: an arbitrary tar archive. Whatever index it gives stays inside the archive.
 */
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "image/ovf/tar.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mull_tar tar;
    struct mull_error err = {0};
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size)
        abort();
    if (!mull_tar_open(fd, "fuzz.ova", &tar, &err)) {
        for (uint32_t i = 0; i < tar.count; i++) {
            const struct mull_tar_member *m = &tar.member[i];
            if (m->offset > size || m->size > size - m->offset || !mull_tar_name_is_safe(m->name) ||
                mull_tar_find(&tar, m->name) != m)
                abort();
        }
        mull_tar_close(&tar);
    } else if (!*err.message) {
        abort();
    }
    close(fd);
    return 0;
}
