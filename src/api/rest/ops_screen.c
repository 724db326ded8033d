/*
 * What machines show, as a picture and as text, and keys for them. The machine's process may be
 * under attack by its guest: what it answers is checked.
 */
#include <png.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "api/rest/ops.h"
#include "host/supervisor.h"
#include "vmm/status.h"

#define TYPE_PAUSE_NS 10000000 /* between characters: as a fast typist */
#define TYPE_WAITS 500u        /* a guest may be slow to read its keyboard */

/* ---- The picture, without the lock ---- */

struct picture {
    unsigned width, height, rows;
    unsigned char *rgb;
};

static int digit(char c)
{
    return c >= 'A' && c <= 'Z'   ? c - 'A'
           : c >= 'a' && c <= 'z' ? c - 'a' + 26
           : c >= '0' && c <= '9' ? c - '0' + 52
           : c == '+'             ? 62
           : c == '/'             ? 63
                                  : -1;
}

static size_t decode(const char *text, unsigned char *out, size_t room)
{
    size_t n = 0;
    uint32_t bits = 0;
    unsigned have = 0;
    for (; *text && digit(*text) >= 0; text++) {
        bits = bits << 6 | (uint32_t)digit(*text);
        have += 6;
        if (have >= 8 && n < room) {
            have -= 8;
            out[n++] = (unsigned char)(bits >> have);
        }
    }
    return n;
}

static int fetch(struct request *r, struct picture *p, struct host_problem *why)
{
    while (!p->rgb || p->rows < p->height) {
        json_t *answer = NULL;
        if (vm_call(r->host, r->param[0], "screenshot",
                    json_pack("{s:i, s:i}", "row", (int)p->rows, "rows", 4096), &answer, why))
            return -1;
        json_int_t width = json_integer_value(json_object_get(answer, "width"));
        json_int_t height = json_integer_value(json_object_get(answer, "height"));
        json_int_t rows = json_integer_value(json_object_get(answer, "rows"));
        bool good = width > 0 && height > 0 && width <= 8192 && height <= 8192 && rows > 0;
        if (good && (!p->rgb || width != p->width || height != p->height)) {
            p->rows = p->rgb ? 0 : p->rows; /* another mode meanwhile: from the beginning */
            free(p->rgb);
            p->width = (unsigned)width;
            p->height = (unsigned)height;
            p->rgb = calloc((size_t)width * (size_t)height, 3);
            if (p->rows == 0 && p->rgb) {
                decode(host_text(answer, "data"), p->rgb, 3u * (size_t)width * (size_t)height);
                p->rows = (unsigned)rows;
            }
        } else if (good) {
            size_t at = (size_t)p->rows * p->width * 3, all = (size_t)p->height * p->width * 3;
            decode(host_text(answer, "data"), p->rgb + at, all - at);
            p->rows += (unsigned)rows;
        }
        json_decref(answer);
        if (!good || !p->rgb)
            return host_problem(why, HOST_CONFLICT, NULL, "the screen cannot be read now");
    }
    return 0;
}

void op_screenshot(struct request *r)
{
    struct picture p = {0};
    struct host_problem why = {0};
    if (fetch(r, &p, &why)) {
        reply_problem(r, &why);
    } else {
        png_image image = {.version = PNG_IMAGE_VERSION,
                           .width = p.width,
                           .height = p.height,
                           .format = PNG_FORMAT_RGB};
        png_alloc_size_t size = PNG_IMAGE_PNG_SIZE_MAX(image);
        r->text = malloc(size);
        if (r->text && png_image_write_to_memory(&image, r->text, &size, 0, p.rgb, 0, NULL)) {
            r->text_len = size;
            r->type = "image/png";
            r->status = 200;
        } else {
            free(r->text);
            r->text = NULL;
            reply_error(r, HOST_INTERNAL, NULL, "the picture cannot be made");
        }
    }
    free(p.rgb);
}

/* ---- The text ---- */

void op_screen_text(struct request *r)
{
    struct host_problem p = {0};
    json_t *answer = NULL;
    if (vm_call(r->host, r->param[0], "screen", NULL, &answer, &p)) {
        reply_problem(r, &p);
        return;
    }
    const char *text = json_string_value(json_object_get(answer, "text"));
    if (text)
        reply(r, 200, json_pack("{s:s}", "text", text));
    else
        reply_error(r, HOST_CONFLICT, NULL,
                    "the machine shows graphics, not text; ask for a screenshot");
    json_decref(answer);
}

/* ---- The keyboard ---- */

/* A character after the other, as the guest reads them. */
static int type_text(struct request *r, const char *text, const char *keymap,
                     struct host_problem *p)
{
    unsigned waited = 0;
    while (*text && waited < TYPE_WAITS) {
        json_t *result = NULL;
        json_t *params = json_pack("{s:s, s:s*}", "text", text, "keymap", keymap);
        if (vm_call(r->host, r->param[0], "sendkey", params, &result, p))
            return -1;
        json_int_t typed = json_integer_value(json_object_get(result, "typed"));
        json_decref(result);
        waited = typed > 0 ? 0 : waited + 1;
        text += typed <= 0 ? 0 : (size_t)typed < strlen(text) ? (size_t)typed : strlen(text);
        if (*text)
            nanosleep(&(struct timespec){0, TYPE_PAUSE_NS}, NULL);
    }
    if (*text)
        return host_problem(p, HOST_CONFLICT, NULL, "the guest does not read its keyboard");
    return 0;
}

void op_keys(struct request *r)
{
    json_t *keys = json_object_get(r->json, "keys");
    const char *text = host_text(r->json, "text");
    struct host_problem p = {0};
    if (!keys == !*text) {
        reply_error(r, HOST_INVALID, NULL, "give either keys or text");
        return;
    }
    int ret =
        keys ? vm_call(r->host, r->param[0], "sendkey", json_pack("{s:O}", "keys", keys), NULL, &p)
             : type_text(r, text, json_string_value(json_object_get(r->json, "keymap")), &p);
    if (ret)
        reply_problem(r, &p);
    else
        reply(r, 204, NULL);
}
