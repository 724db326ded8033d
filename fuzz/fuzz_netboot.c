/* Fuzzes what network boot reads: DHCP answers from below, TFTP from the guest. One instance serves
 * all inputs, because it has a process of its own; files are opened in between as the fuzzer asks.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "device/net/netdev.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct mull_netdev_frontend below;
static bool full;

static int inner_send(struct mull_netdev *netdev, const struct iovec *iov, int niov, size_t len)
{
    return 0;
}

static void inner_attach(struct mull_netdev *netdev, const struct mull_netdev_frontend *front)
{
    below = front ? *front : (struct mull_netdev_frontend){0};
}

static void inner_resume(struct mull_netdev *netdev) {}
static void inner_destroy(struct mull_netdev *netdev) {}

static bool receive(void *opaque, const uint8_t *frame, size_t len)
{
    static volatile uint8_t sum;

    if (len < 14 || len > MULL_NET_FRAME_MAX)
        abort();
    for (size_t i = 0; i < len; i++)
        sum ^= frame[i];
    return !full;
}

static void received(void *opaque) {}

static void stop(void *loop)
{
    mull_loop_stop(loop);
}

static struct mull_netdev *make(struct mull_loop **loop)
{
    static const struct mull_netdev_ops ops = {.send = inner_send,
                                               .attach = inner_attach,
                                               .resume = inner_resume,
                                               .destroy = inner_destroy};
    static struct mull_netdev inner = {.ops = &ops};
    static const struct mull_netdev_frontend front = {.receive = receive, .received = received};
    char folder[] = "/tmp/mullion-fuzz-XXXXXX";
    struct mull_netdev *out;

    if (!mkdtemp(folder) || mull_loop_create(loop, NULL) ||
        mull_netboot_create(*loop, &inner, folder, "boot", &out, NULL))
        abort();
    rmdir(folder); /* there is nothing in it to be found */
    mull_netdev_attach(out, &front);
    return out;
}

/* Frames, each behind a byte that says where it comes from and two with its length. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct mull_loop *loop;
    static struct mull_netdev *netdev;

    if (!netdev)
        netdev = make(&loop);
    while (size > 3) {
        size_t len = (size_t)(data[1] | data[2] << 8) % 2000;
        uint8_t how = data[0];
        data += 3;
        size -= 3;
        len = len < size ? len : size;
        full = how & 4;
        if (len >= 14) {
            uint8_t *frame = malloc(len);
            memcpy(frame, data, len);
            const struct iovec iov = {frame, len};
            if (how & 1)
                below.receive(below.opaque, frame, len);
            else
                mull_netdev_send(netdev, &iov, 1, len);
            free(frame);
        }
        data += len;
        size -= len;
        if (how & 2 && !mull_loop_post(loop, stop, loop))
            mull_loop_run(loop);
    }
    full = false;
    mull_netdev_resume(netdev);
    if (!mull_loop_post(loop, stop, loop))
        mull_loop_run(loop);
    return 0;
}
