/*
 * The screen as text and as rows of pixels, and keys by name. A picture comes in pieces, because an
 * answer has to fit into a socket's buffer; a guest that draws between them gives a mixture.
 */
#include "vmm/screen.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "device/display/screen.h"
#include "device/input.h"
#include "vmm/keys.h"

#define TEXT_MAX 65536
#define ROWS_BYTES 49152u /* of pixels in one answer */
#define KEYS_MAX 8

static const struct mull_screen *screen(struct mull_machine *m, struct mull_error *err)
{
    const struct mull_screen *s = mull_machine_screen(m);

    if (!s)
        mull_fail(err, ENODEV, "this machine has no screen; give it firmware or --display");
    return s;
}

json_t *vmm_screen_text(struct mull_machine *m, json_t *params, struct mull_error *err)
{
    const struct mull_screen *s = screen(m, err);
    unsigned width, height;
    char *text = malloc(TEXT_MAX);
    json_t *result = NULL;

    if (s && text) {
        s->ops->size(s->opaque, &width, &height);
        bool is_text = s->ops->text(s->opaque, text, TEXT_MAX) >= 0;
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
    const struct mull_screen *s = screen(m, err);
    json_int_t row = json_integer_value(json_object_get(params, "row"));
    json_int_t wanted = json_integer_value(json_object_get(params, "rows"));
    const size_t max = (size_t)MULL_SCREEN_MAX_WIDTH * MULL_SCREEN_MAX_HEIGHT;
    json_t *result = NULL;

    if (!s)
        return NULL;
    if (row < 0 || wanted < 0 || row > MULL_SCREEN_MAX_HEIGHT) {
        mull_fail(err, EINVAL, "row and rows: must be numbers from 0 on");
        return NULL;
    }
    uint32_t *pixels = malloc(max * sizeof(*pixels));
    unsigned width, height,
        rows = wanted > MULL_SCREEN_MAX_HEIGHT ? MULL_SCREEN_MAX_HEIGHT : (unsigned)wanted;
    if (pixels && s->ops->render(s->opaque, pixels, max, &width, &height)) {
        char *text = rows_text(pixels, width, height, (unsigned)row, &rows);
        if (text)
            result = json_pack("{s:i, s:i, s:i, s:s}", "width", (int)width, "height", (int)height,
                               "rows", (int)rows, "data", text);
        free(text);
    }
    free(pixels);
    return result;
}

/* ---- Keys ---- */

/* "ctrl-alt-delete": down in this order, up the other way round. */
static int press(struct mull_input *keyboard, const char *chord, struct mull_error *err)
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
        mull_input_key(keyboard, key[i], true);
    while (n--)
        mull_input_key(keyboard, key[n], false);
    return 0;
}

static int press_all(struct mull_input *keyboard, json_t *list, struct mull_error *err)
{
    json_t *item;
    size_t i;

    if (!json_is_array(list))
        return mull_fail(err, EINVAL, "keys: must be a list of strings");
    json_array_foreach(list, i, item)
    {
        const char *chord = json_string_value(item);
        int ret = chord ? press(keyboard, chord, err)
                        : mull_fail(err, EINVAL, "keys: must be a list of strings");
        if (ret)
            return ret;
    }
    return 0;
}

/* A character of UTF-8 that Jansson has checked. @return its bytes */
static unsigned decode(const char *text, uint32_t *character)
{
    const uint8_t *t = (const uint8_t *)text;
    unsigned more = *t >= 0xf0 ? 3 : *t >= 0xe0 ? 2 : *t >= 0xc0 ? 1 : 0;

    *character = more ? *t & (0x3fu >> more) : *t;
    for (unsigned i = 1; i <= more; i++)
        *character = *character << 6 | (t[i] & 0x3f);
    return more + 1;
}

static void type_key(struct mull_input *keyboard, unsigned key, unsigned level)
{
    if (level & VMM_LEVEL_SHIFT)
        mull_input_key(keyboard, VMM_KEY_SHIFT, true);
    if (level & VMM_LEVEL_ALTGR)
        mull_input_key(keyboard, VMM_KEY_ALTGR, true);
    mull_input_key(keyboard, key, true);
    mull_input_key(keyboard, key, false);
    if (level & VMM_LEVEL_ALTGR)
        mull_input_key(keyboard, VMM_KEY_ALTGR, false);
    if (level & VMM_LEVEL_SHIFT)
        mull_input_key(keyboard, VMM_KEY_SHIFT, false);
}

/* Type a character if the keyboard has room: a BIOS keeps 15 keys and loses the rest, so whoever
 * calls waits between them. Nothing is typed of a text that the layout has not all characters of.
 * @return {"typed": bytes} */
static json_t *type_text(struct mull_input *keyboard, const char *text, const char *layout,
                         struct mull_error *err)
{
    const struct vmm_keymap *map = vmm_keymap_find(layout);
    uint32_t character;
    unsigned level, typed = 0;

    if (!map) {
        mull_fail(err, EINVAL, "there is no keyboard layout '%s'", layout);
        return NULL;
    }
    for (const char *p = text; *p;) {
        unsigned len = decode(p, &character);
        if (!vmm_key_of_character(map, character, &level)) {
            mull_fail(err, EINVAL, "'%.*s' (U+%04X) is on no key of the layout", (int)len, p,
                      character);
            return NULL;
        }
        p += len;
    }
    if (*text && mull_input_ready(keyboard)) {
        typed = decode(text, &character);
        unsigned key = vmm_key_of_character(map, character, &level);
        type_key(keyboard, key, level);
    }
    return json_pack("{s:i}", "typed", (int)typed);
}

json_t *vmm_screen_keys(struct mull_machine *m, json_t *params, struct mull_error *err)
{
    struct mull_input *keyboard = mull_machine_input(m);
    json_t *text = json_object_get(params, "text"), *layout = json_object_get(params, "keymap");

    if (!keyboard) {
        mull_fail(err, ENODEV, "this machine has no keyboard; give it firmware or --display");
        return NULL;
    }
    if (json_is_string(text))
        return type_text(keyboard, json_string_value(text), json_string_value(layout), err);
    return press_all(keyboard, json_object_get(params, "keys"), err) ? NULL : json_object();
}
