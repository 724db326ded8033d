/* Fuzzes the virtio GPU, looked at and resized meanwhile. */
#include <stdlib.h>

#include "device/display/screen.h"
#include "fuzz_virtio.h"

static void event(struct fuzz_guest *g, uint32_t arg)
{
    static uint32_t pixels[MULL_SCREEN_MAX_WIDTH * MULL_SCREEN_MAX_HEIGHT];
    const struct mull_screen *s = mull_virtio_gpu_screen(g->device);
    struct mull_cursor cursor = {0};
    unsigned width, height;

    if (arg & 1)
        s->ops->resize(s->opaque, arg >> 4 & 0xfff, arg >> 16);
    if (!s->ops->render(s->opaque, pixels, sizeof(pixels) / sizeof(*pixels), &width, &height) ||
        !width || !height || width > MULL_SCREEN_MAX_WIDTH || height > MULL_SCREEN_MAX_HEIGHT)
        abort();
    if (s->ops->cursor(s->opaque, &cursor) &&
        (cursor.width > MULL_CURSOR_SIZE || cursor.height > MULL_CURSOR_SIZE))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct mull_virtio_gpu_config cfg = {.name = "virtio-gpu.0", .devfn = -1};
    struct fuzz_guest g;

    fuzz_guest_init(&g);
    if (mull_virtio_gpu_create(&g.env, g.bus, &cfg, &g.device, NULL))
        abort();
    g.queues = 2;
    g.event = event;
    fuzz_guest_run(&g, data, size);
    g.device->ops->destroy(g.device);
    g.device = NULL;
    fuzz_guest_fini(&g);
    return 0;
}
