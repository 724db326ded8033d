/* Fuzzes the devices that carry a shared folder's requests, with a peer that answers as it likes.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fuzz_virtio.h"
#include "share/message.h"

struct peer {
    int fd;
    uint32_t tags;
};

static void answer(struct peer *p, uint32_t tag, uint32_t len)
{
    uint8_t bytes[sizeof(struct share_message) + 256] = {0};
    const struct share_message m = {.len = len & 0xff, .tag = tag};
    __builtin_memcpy(bytes, &m, sizeof(m));
    ssize_t n = send(p->fd, bytes, sizeof(m) + m.len, MSG_NOSIGNAL | MSG_DONTWAIT);
    (void)n;
}

static void event(struct fuzz_guest *g, uint32_t arg)
{
    struct peer *p = g->opaque;
    uint8_t buf[4096];
    if (arg & 1)
        while (read(p->fd, buf, sizeof(buf)) > 0)
            ;
    else
        answer(p, arg >> 16 & 0x3f, arg >> 8);
}

/* The folder's process ends: whatever waits is answered. */
static void settle(struct fuzz_guest *g)
{
    struct peer *p = g->opaque;
    shutdown(p->fd, SHUT_RDWR);
    fuzz_guest_turn(g);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_guest g;
    struct peer peer = {0};
    int pair[2];

    if (!size)
        return 0;
    fuzz_guest_init(&g);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) ||
        fcntl(pair[1], F_SETFL, O_NONBLOCK))
        abort();
    peer.fd = pair[1];
    const struct mull_virtio_share_config cfg = {.name = "virtio-share.0",
                                                 .devfn = -1,
                                                 .type = data[0] & 1 ? MULL_SHARE_9P
                                                                     : MULL_SHARE_VIRTIOFS,
                                                 .tag = "work",
                                                 .socket = pair[0],
                                                 .drain_ms = 1};
    if (mull_virtio_share_create(&g.env, g.bus, &cfg, &g.device, NULL))
        abort();
    g.queues = data[0] & 1 ? 1 : 2;
    g.event = event;
    g.settle = settle;
    g.opaque = &peer;
    /* A drain would wait for answers: none come but from events. */
    fuzz_guest_run(&g, data + 1, size - 1);
    fuzz_guest_fini(&g);
    close(peer.fd);
    return 0;
}
