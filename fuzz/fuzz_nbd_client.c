/* What an NBD server may send to the client: the input is all it says, in one go. */
#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "image/nbd/channel.h"
#include "image/nbd/client.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mull_file_options o = {.path = "nbd://fuzz/"};
    struct mull_error err = {0};
    struct mull_file *file;
    static uint8_t buf[600 << 10];
    uint64_t start, end;
    int fds[2];

    if (size > 65536 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds))
        return 0;
    (void)!send(fds[0], data, size, MSG_NOSIGNAL | MSG_DONTWAIT);
    shutdown(fds[0], SHUT_WR);
    struct mull_channel channel = {.fd = fds[1]};
    if (!mull_nbd_open_channel(&o, &channel, "", &file, &err)) {
        mull_file_next_data(file, 0, &start, &end);
        mull_file_read(file, buf, 5000, 100);
        mull_file_zero(file, 0, 512, true);
        mull_file_read(file, buf, sizeof(buf), 0);
        mull_file_write(file, buf, 512, 0);
        mull_file_flush(file);
        mull_file_next_data(file, 4096, &start, &end);
        mull_file_close(file);
    }
    close(fds[0]);
    return 0;
}
