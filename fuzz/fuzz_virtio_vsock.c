/* Fuzzes virtual sockets between a guest that does anything and hosts that connect, talk, stop
 * reading and go. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "fuzz_virtio.h"

#define PEERS 8

struct hosts {
    struct sockaddr_un address;
    socklen_t size;
    int fd[PEERS];
};

static void begin(struct hosts *h, int *fd, unsigned port)
{
    char line[32];
    int n = snprintf(line, sizeof(line), "CONNECT %u\n", port);
    *fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (*fd >= 0 && !connect(*fd, (struct sockaddr *)&h->address, h->size))
        n = (int)send(*fd, line, (size_t)n, MSG_NOSIGNAL);
}

static void event(struct fuzz_guest *g, uint32_t arg)
{
    struct hosts *h = g->opaque;
    int *fd = &h->fd[arg & 7];
    char bytes[1024] = {0};
    ssize_t n = 0;
    if (*fd < 0) {
        begin(h, fd, arg >> 16);
        return;
    }
    switch (arg >> 3 & 3) {
    case 0:
        n = send(*fd, bytes, arg >> 22, MSG_NOSIGNAL);
        break;
    case 1:
        n = recv(*fd, bytes, sizeof(bytes), 0);
        break;
    case 2:
        shutdown(*fd, arg & 32 ? SHUT_RD : SHUT_WR);
        break;
    case 3:
        close(*fd);
        *fd = -1;
    }
    (void)n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct hosts h = {.address = {.sun_family = AF_UNIX}, .size = sizeof(h.address)};
    struct fuzz_guest g;
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    for (unsigned i = 0; i < PEERS; i++)
        h.fd[i] = -1;
    /* A name of the kernel's choice (unix(7), autobind). */
    if (bind(listener, (struct sockaddr *)&h.address, sizeof(h.address.sun_family)) ||
        listen(listener, PEERS) || getsockname(listener, (struct sockaddr *)&h.address, &h.size))
        abort();
    fuzz_guest_init(&g);
    const struct mull_virtio_vsock_config cfg = {
        .name = "virtio-vsock.0", .devfn = -1, .cid = 3, .socket = listener};
    if (mull_virtio_vsock_create(&g.env, g.bus, &cfg, &g.device, NULL))
        abort();
    g.queues = 3;
    g.event = event;
    g.opaque = &h;
    fuzz_guest_run(&g, data, size);
    fuzz_guest_fini(&g);
    for (unsigned i = 0; i < PEERS; i++)
        if (h.fd[i] >= 0)
            close(h.fd[i]);
    return 0;
}
