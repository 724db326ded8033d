/*
 * See notify.h.
 */
#include "host/notify.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

char *host_notify_take(void)
{
    const char *value = getenv("NOTIFY_SOCKET");
    char *to = value && *value ? strdup(value) : NULL;
    unsetenv("NOTIFY_SOCKET");
    return to;
}

int host_notify(const char *to, const char *lines)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t n = to ? strlen(to) : 0;
    if (!n)
        return 0;
    /* A path, or a name in the abstract namespace with "@" in the place of its first byte. */
    if ((*to != '/' && *to != '@') || n < 2 || n >= sizeof(address.sun_path))
        return -EINVAL;
    memcpy(address.sun_path, to, n);
    if (*to == '@')
        address.sun_path[0] = '\0';
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n + (*to == '/'));
    ssize_t sent =
        sendto(fd, lines, strlen(lines), MSG_NOSIGNAL, (struct sockaddr *)&address, size);
    int ret = sent < 0 ? -errno : 0;
    close(fd);
    return ret;
}
