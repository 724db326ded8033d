/*
 * See picture.h.
 */
#include "vmm/picture.h"

#include <gnutls/gnutls.h>
#include <png.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "device/display/screen.h"

#define ROWS_ASKED 4096 /* it gives as many as fit into an answer */
#define RESTARTS_MAX 8

json_t *vmm_picture_params(const struct vmm_picture *p)
{
    return json_pack("{s:i, s:i}", "row", (int)p->rows, "rows", ROWS_ASKED);
}

/* Exactly @size bytes, or none. */
static bool decode(const json_t *text, uint8_t *to, size_t size)
{
    gnutls_datum_t out = {0}, in = {(unsigned char *)json_string_value(text),
                                    (unsigned)json_string_length(text)};

    if (!in.size || gnutls_base64_decode2(&in, &out))
        return false;
    if (out.size == size)
        memcpy(to, out.data, size);
    bool whole = out.size == size;
    gnutls_free(out.data);
    return whole;
}

static enum vmm_picture_state begin(struct vmm_picture *p, unsigned width, unsigned height)
{
    vmm_picture_free(p);
    p->width = width;
    p->height = height;
    p->rgb = calloc((size_t)width * height, 3);
    return p->rgb ? VMM_PICTURE_MORE : VMM_PICTURE_BROKEN;
}

enum vmm_picture_state vmm_picture_add(struct vmm_picture *p, const json_t *answer)
{
    json_int_t width = json_integer_value(json_object_get(answer, "width"));
    json_int_t height = json_integer_value(json_object_get(answer, "height"));
    json_int_t rows = json_integer_value(json_object_get(answer, "rows"));
    enum vmm_picture_state state = VMM_PICTURE_MORE;

    if (width <= 0 || height <= 0 || width > MULL_SCREEN_MAX_WIDTH ||
        height > MULL_SCREEN_MAX_HEIGHT || rows < 0)
        return VMM_PICTURE_BROKEN;
    if (!p->rgb || width != p->width || height != p->height) {
        bool anew = p->rows > 0; /* these rows are not the first ones */
        if (p->rgb && ++p->restarts > RESTARTS_MAX)
            return VMM_PICTURE_BROKEN;
        state = begin(p, (unsigned)width, (unsigned)height);
        if (anew || state == VMM_PICTURE_BROKEN)
            return state;
    }
    size_t line = 3 * (size_t)width;
    if (!rows || rows > p->height - p->rows ||
        !decode(json_object_get(answer, "data"), p->rgb + p->rows * line, (size_t)rows * line))
        return VMM_PICTURE_BROKEN;
    p->rows += (unsigned)rows;
    return p->rows < p->height ? VMM_PICTURE_MORE : VMM_PICTURE_WHOLE;
}

void *vmm_picture_png(const struct vmm_picture *p, size_t *size)
{
    png_image image = {.version = PNG_IMAGE_VERSION,
                       .width = p->width,
                       .height = p->height,
                       .format = PNG_FORMAT_RGB,
                       .flags = PNG_IMAGE_FLAG_FAST}; /* screens gain little from filters */
    png_alloc_size_t n = PNG_IMAGE_PNG_SIZE_MAX(image);
    void *png = malloc(n);

    if (!png || !png_image_write_to_memory(&image, png, &n, 0, p->rgb, 0, NULL)) {
        free(png);
        return NULL;
    }
    *size = n;
    return png;
}

void vmm_picture_free(struct vmm_picture *p)
{
    free(p->rgb);
    p->rgb = NULL;
    p->width = p->height = p->rows = 0;
}
