/* Fuzzes a display server's session: a client that says anything, in any of the ways of being let
 * in, while the screen changes. The first byte chooses, the rest is what the client sends. */
#include <stdlib.h>
#include <string.h>

#include "vmm/rfb_session.h"

#define WIDTH 130u
#define HEIGHT 70u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void on_key(void *opaque, unsigned key, bool down)
{
    if (!key || key >= 512)
        abort();
}

static void on_pointer(void *opaque, unsigned x, unsigned y, unsigned width, unsigned height,
                       int wheel, unsigned buttons)
{
    if (x >= width || y >= height || wheel < -1 || wheel > 1 || buttons > 7)
        abort();
}

static unsigned on_leds(void *opaque)
{
    return *(unsigned *)opaque & 7;
}

static int on_resize(void *opaque, unsigned width, unsigned height)
{
    return 0;
}

static void on_cut(void *opaque, const char *text, size_t len)
{
    if (len && memchr(text, '\0', len))
        abort();
}

static void show(struct rfb_session *s, uint32_t *pixels, unsigned step)
{
    static const struct mull_cursor cursor = {
        .visible = true, .width = 3, .height = 2, .hot_x = 2, .x = 1, .y = -1};
    struct rfb_picture now = {.pixels = pixels,
                              .width = WIDTH - (step & 64 ? 17 : 0),
                              .height = HEIGHT + (step & 128 ? 5 : 0),
                              .changes = step + 1,
                              .cursor = step & 2 ? &cursor : NULL};

    for (unsigned i = 0; i < 200; i++)
        pixels[(step * 37 + i * (step & 15)) % (WIDTH * HEIGHT)] = step * i * 0x10305;
    if (step % 7 == 3)
        memset(pixels, (int)step, 4ul * WIDTH * (HEIGHT + 5));
    rfb_session_update(s, &now);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const maps[] = {"us", "de", "ru", "fr"};
    unsigned step = 0;
    struct rfb_security security = {.password = "pass"};
    struct rfb_host host = {.name = "fuzz",
                            .security = &security,
                            .opaque = &step,
                            .key = on_key,
                            .pointer = on_pointer,
                            .leds = on_leds,
                            .resize = on_resize,
                            .cut = on_cut};
    uint32_t *pixels = calloc(WIDTH * (HEIGHT + 5), sizeof(*pixels));

    if (!pixels || size < 2) {
        free(pixels);
        return 0;
    }
    security.has_password = data[0] & 1;
    security.tls = (enum rfb_tls)(data[0] >> 1 & 3) % 3;
    host.keymap = vmm_keymap_find(maps[data[0] >> 3 & 3]);
    struct rfb_session *s = rfb_session_create(&host, WIDTH, HEIGHT);
    if (!s)
        abort();
    for (data++, size--; size && rfb_session_state(s) != RFB_OVER; step++) {
        size_t part = size < 48 ? size : 48;
        rfb_session_input(s, data, part);
        data += part;
        size -= part;
        if (rfb_session_state(s) == RFB_WANTS_TLS)
            rfb_session_secured(s);
        if (step % 3 == 0)
            rfb_session_out(s)->size = 0;
        show(s, pixels, step);
        if (step % 5 == 0)
            rfb_session_cut(s, "text\n\xc3\xbc", 7);
    }
    rfb_session_free(s);
    free(pixels);
    return 0;
}
