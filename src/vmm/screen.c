/*
 * The screen as text and as rows of pixels, and keys by name. A picture comes in pieces, because an
 * answer has to fit into a socket's buffer; a guest that draws between them gives a mixture.
 */
#include "vmm/screen.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "device/display/vga.h"
#include "device/legacy/i8042.h"
#include "vmm/keys.h"

#define TEXT_MAX 65536
#define ROWS_BYTES 49152u /* of pixels in one answer */
#define KEYS_MAX 8

static struct mull_vga *screen(struct mull_machine *m, struct mull_error *err)
{
    struct mull_vga *vga = mull_machine_vga(m);

    if (!vga)
        mull_fail(err, ENODEV, "this machine has no screen; it was started with --kernel");
    return vga;
}

json_t *vmm_screen_text(struct mull_machine *m, json_t *params, struct mull_error *err)
{
    struct mull_vga *vga = screen(m, err);
    unsigned width, height;
    char *text = malloc(TEXT_MAX);
    json_t *result = NULL;

    if (vga && text) {
        mull_vga_size(vga, &width, &height);
        bool is_text = mull_vga_text(vga, text, TEXT_MAX) >= 0;
        result = json_pack("{s:i, s:i}", "width", (int)width, "height", (int)height);
        if (is_text)
            json_object_set_new(result, "text", json_string(text));
    }
    free(text);
    return result;
}

static char *base64(const uint8_t *data, size_t size)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char *text = malloc((size + 2) / 3 * 4 + 1), *to = text;

    for (size_t i = 0; text && i < size; i += 3) {
        uint32_t v = (uint32_t)data[i] << 16 | (i + 1 < size ? data[i + 1] : 0u) << 8 |
                     (i + 2 < size ? data[i + 2] : 0u);
        *to++ = digits[v >> 18];
        *to++ = digits[v >> 12 & 63];
        *to++ = i + 1 < size ? digits[v >> 6 & 63] : '=';
        *to++ = i + 2 < size ? digits[v & 63] : '=';
    }
    if (text)
        *to = '\0';
    return text;
}

/* Rows [first, first + *rows) as base64 of RGB; *rows becomes what fits. */
static char *rows_text(const uint32_t *pixels, unsigned width, unsigned height, unsigned first,
                       unsigned *rows)
{
    unsigned most = ROWS_BYTES / (3 * width);

    if (first > height)
        first = height;
    if (*rows > height - first)
        *rows = height - first;
    if (*rows > most)
        *rows = most;
    size_t count = (size_t)*rows * width;
    uint8_t *rgb = malloc(3 * count + 1);
    for (size_t i = 0; rgb && i < count; i++) {
        uint32_t p = pixels[(size_t)first * width + i];
        rgb[3 * i] = (uint8_t)(p >> 16);
        rgb[3 * i + 1] = (uint8_t)(p >> 8);
        rgb[3 * i + 2] = (uint8_t)p;
    }
    char *text = rgb ? base64(rgb, 3 * count) : NULL;
    free(rgb);
    return text;
}

json_t *vmm_screen_shot(struct mull_machine *m, json_t *params, struct mull_error *err)
{
    struct mull_vga *vga = screen(m, err);
    json_int_t row = json_integer_value(json_object_get(params, "row"));
    json_int_t wanted = json_integer_value(json_object_get(params, "rows"));
    const size_t max = (size_t)MULL_VGA_MAX_WIDTH * MULL_VGA_MAX_HEIGHT;
    json_t *result = NULL;

    if (!vga)
        return NULL;
    if (row < 0 || wanted < 0 || row > MULL_VGA_MAX_HEIGHT) {
        mull_fail(err, EINVAL, "row and rows: must be numbers from 0 on");
        return NULL;
    }
    uint32_t *pixels = malloc(max * sizeof(*pixels));
    unsigned width, height,
        rows = wanted > MULL_VGA_MAX_HEIGHT ? MULL_VGA_MAX_HEIGHT : (unsigned)wanted;
    if (pixels && mull_vga_render(vga, pixels, max, &width, &height)) {
        char *text = rows_text(pixels, width, height, (unsigned)row, &rows);
        if (text)
            result = json_pack("{s:i, s:i, s:i, s:s}", "width", (int)width, "height", (int)height,
                               "rows", (int)rows, "data", text);
        free(text);
    }
    free(pixels);
    return result;
}

/* "ctrl-alt-delete": down in this order, up the other way round. */
static int press(struct mull_i8042 *keyboard, const char *chord, struct mull_error *err)
{
    unsigned key[KEYS_MAX], n = 0;

    for (const char *p = chord; *p;) {
        size_t len = strcspn(p, "-");
        if (!len) /* the minus key itself */
            len = 1;
        key[n] = vmm_key_of_name(p, len);
        if (!key[n] || ++n == KEYS_MAX)
            return mull_fail(err, EINVAL, "'%s': no such key, or too many at once", chord);
        p += len;
        p += *p == '-';
    }
    for (unsigned i = 0; i < n; i++)
        mull_i8042_key(keyboard, key[i], true);
    while (n--)
        mull_i8042_key(keyboard, key[n], false);
    return 0;
}

json_t *vmm_screen_keys(struct mull_machine *m, json_t *params, struct mull_error *err)
{
    struct mull_i8042 *keyboard = mull_machine_keyboard(m);
    json_t *list = json_object_get(params, "keys"), *item;
    size_t i;

    if (!keyboard) {
        mull_fail(err, ENODEV, "this machine has no keyboard; it was started with --kernel");
        return NULL;
    }
    if (!json_is_array(list)) {
        mull_fail(err, EINVAL, "keys: must be a list of strings");
        return NULL;
    }
    json_array_foreach(list, i, item)
    {
        const char *chord = json_string_value(item);
        if (!chord ? mull_fail(err, EINVAL, "keys: must be a list of strings")
                   : press(keyboard, chord, err))
            return NULL;
    }
    return json_object();
}
