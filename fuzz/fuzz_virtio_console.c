/* Fuzzes the virtio console with two named ports over chardevs that fill up and type. */
#include <stdlib.h>
#include <string.h>

#include "fuzz_virtio.h"

static void event(struct fuzz_guest *g, uint32_t arg)
{
    struct mull_chardev **chardev = g->opaque;
    uint8_t buf[256];

    memset(buf, (int)(arg >> 24), sizeof(buf));
    if (arg & 1)
        mull_chardev_memory_give(chardev[arg >> 1 & 1], buf, arg >> 8 & 0xff);
    else
        mull_chardev_memory_take(chardev[arg >> 1 & 1], buf, arg >> 8 & 0xff);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mull_chardev *chardev[2];
    struct fuzz_guest g;

    fuzz_guest_init(&g);
    for (int i = 0; i < 2; i++)
        if (mull_chardev_memory_create(100, &chardev[i], NULL))
            abort();
    struct mull_virtio_console_config cfg = {.name = "virtio-console.0",
                                             .devfn = -1,
                                             .chardev = chardev[0],
                                             .nchannels = 2,
                                             .channels = {{"one", chardev[1]}, {"two", NULL}}};
    if (mull_virtio_console_create(&g.env, g.bus, &cfg, &g.device, NULL))
        abort();
    g.queues = 8;
    g.event = event;
    g.opaque = chardev;
    fuzz_guest_run(&g, data, size);
    g.device->ops->destroy(g.device);
    g.device = NULL;
    mull_chardev_destroy(chardev[0]);
    mull_chardev_destroy(chardev[1]);
    fuzz_guest_fini(&g);
    return 0;
}
