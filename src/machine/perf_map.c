/*
 * One line a translation, written at once: perf reads the file when the process has ended, however
 * it did. When the code cache was flushed addresses are used again; the later line is the right one
 * then, as in every perf map.
 */
#include "machine/perf_map.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct mull_perf_map {
    int fd;
    struct mull_code_trace trace;
};

static void translated(void *opaque, const void *host, size_t size, uint64_t guest,
                       const char *kind)
{
    const struct mull_perf_map *map = opaque;
    char line[128];
    int n = guest == UINT64_MAX ? snprintf(line, sizeof(line), "%llx %zx %s\n",
                                           (unsigned long long)(uintptr_t)host, size, kind)
                                : snprintf(line, sizeof(line), "%llx %zx %s:%llx\n",
                                           (unsigned long long)(uintptr_t)host, size, kind,
                                           (unsigned long long)guest);

    if (n > 0 && write(map->fd, line, (size_t)n) < 0)
        return; /* a full disk: the map ends here */
}

int mull_perf_map_create(struct mull_perf_map **out, struct mull_error *err)
{
    char path[64];
    struct mull_perf_map *map = calloc(1, sizeof(*map));

    if (!map)
        return mull_fail(err, ENOMEM, "perf map: no memory");
    snprintf(path, sizeof(path), "/tmp/perf-%d.map", (int)getpid());
    /* Whoever put something else there under this name does not get us to write into it. */
    unlink(path);
    map->fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (map->fd < 0) {
        int e = errno;
        free(map);
        return mull_fail(err, e, "perf map %s: %s", path, strerror(e));
    }
    map->trace = (struct mull_code_trace){.opaque = map, .translated = translated};
    *out = map;
    return 0;
}

const struct mull_code_trace *mull_perf_map_trace(struct mull_perf_map *map)
{
    return &map->trace;
}

void mull_perf_map_destroy(struct mull_perf_map *map)
{
    if (!map)
        return;
    close(map->fd);
    free(map);
}
