/* Fuzzes the memory balloon, whose owner changes its mind. */
#include <stdlib.h>

#include "device/virtio/balloon.h"
#include "fuzz_virtio.h"

static void hinted(void *opaque)
{
    struct fuzz_guest *g = opaque;
    mull_balloon_end_hints(g->device);
}

static void event(struct fuzz_guest *g, uint32_t arg)
{
    struct mull_balloon_info info;
    if (arg & 1)
        mull_balloon_set(g->device, (uint64_t)arg << 8);
    else if (arg & 2)
        mull_balloon_ask_hints(g->device, NULL);
    else if (arg & 4)
        mull_balloon_end_hints(g->device);
    else
        mull_balloon_refresh(g->device);
    mull_balloon_info(g->device, &info);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_guest g;

    fuzz_guest_init(&g);
    const struct mull_virtio_balloon_config cfg = {
        .name = "virtio-balloon.0", .devfn = -1, .opaque = &g, .hinted = hinted};
    if (mull_virtio_balloon_create(&g.env, g.bus, &cfg, &g.device, NULL))
        abort();
    g.queues = 5;
    g.event = event;
    fuzz_guest_run(&g, data, size);
    fuzz_guest_fini(&g);
    return 0;
}
