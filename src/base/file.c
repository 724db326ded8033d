/*
 * See file.h.
 */
#include "base/file.h"

#include <errno.h>
#include <unistd.h>

int mull_write_all(int fd, const void *data, size_t length)
{
    for (const char *p = data; length;) {
        ssize_t n = write(fd, p, length);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        p += n;
        length -= (size_t)n;
    }
    return 0;
}
