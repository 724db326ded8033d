/*
 * See listen.h.
 */
#include "base/listen.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static bool is_stale(const struct sockaddr_un *address)
{
    struct stat st;
    if (lstat(address->sun_path, &st) || !S_ISSOCK(st.st_mode))
        return false;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool refused = fd >= 0 && connect(fd, (const struct sockaddr *)address, sizeof(*address)) < 0 &&
                   errno == ECONNREFUSED;
    if (fd >= 0)
        close(fd);
    return refused;
}

int mull_listen_unix(const char *path, const char *what, int *out, struct mull_error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(address.sun_path))
        return mull_fail(err, ENAMETOOLONG, "%s%s: longer than %zu characters; give a shorter path",
                         what, path, sizeof(address.sun_path) - 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return mull_fail(err, errno, "%s%s: %s", what, path, strerror(errno));
    strcpy(address.sun_path, path);
    if (is_stale(&address))
        unlink(path);
    mode_t old = umask(0177);
    int bound = bind(fd, (const struct sockaddr *)&address, sizeof(address));
    int saved = errno;
    umask(old);
    if (bound) {
        close(fd);
        return mull_fail(err, saved, "%s%s: %s", what, path,
                         saved == EADDRINUSE ? "in use by somebody else; give another path"
                                             : strerror(saved));
    }
    if (listen(fd, SOMAXCONN)) {
        saved = errno;
        close(fd);
        unlink(path);
        return mull_fail(err, saved, "%s%s: %s", what, path, strerror(saved));
    }
    *out = fd;
    return 0;
}
