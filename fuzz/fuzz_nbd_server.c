/* What an NBD client may send to the server: the input is one connection, to its end. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/loop.h"
#include "image/nbd/server.h"

#define DISK (256 << 10)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct mull_loop *loop;
static struct mull_nbd_server *server;
static struct mull_nbd_export export;
static int peer;

static void on_changed(void *opaque, unsigned clients)
{
    if (!clients)
        mull_loop_stop(loop);
}

/* The other end reads whatever comes. */
static void on_peer(void *opaque, uint32_t events)
{
    static uint8_t sink[65536];
    (void)!recv(peer, sink, sizeof(sink), MSG_DONTWAIT);
}

static int set_up(void)
{
    struct mull_error err = {0};
    char path[64];
    int fd = memfd_create("disk", MFD_CLOEXEC);

    if (fd < 0 || ftruncate(fd, DISK))
        return -1;
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    struct mull_block_options bo = {.path = path, .format = "raw", .aio = "threads"};
    if (mull_loop_create(&loop, &err) || mull_block_open(&bo, &export.block, &err) ||
        mull_block_start(export.block, loop, &err))
        return -1;
    export.name = "";
    struct mull_nbd_options so = {
        .loop = loop, .exports = &export, .nexports = 1, .changed = on_changed};
    return mull_nbd_server_create(&so, &server, &err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mull_error err = {0};
    struct mull_source *source = NULL;
    int fds[2];

    if (!server && set_up())
        abort();
    if (size > 65536 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds))
        return 0;
    peer = fds[1];
    (void)!send(peer, data, size, MSG_NOSIGNAL | MSG_DONTWAIT);
    shutdown(peer, SHUT_WR);
    if (!mull_loop_watch(loop, peer, EPOLLIN, on_peer, NULL, &source, &err) &&
        !mull_nbd_server_add(server, fds[0]))
        mull_loop_run(loop);
    mull_source_remove(source);
    close(peer);
    return 0;
}
