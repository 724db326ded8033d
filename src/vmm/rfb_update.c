/*
 * What a client is sent of the screen (RFC 6143, 7.6.1): tiles that differ from what it has seen,
 * side by side in one rectangle, the pointer, and what it has to be told of the size and the keys.
 */
#include <stdlib.h>
#include <string.h>

#include "vmm/rfb_internal.h"

#define TILE_WIDTH 64u
#define TILE_HEIGHT 32u

static void put_rect(struct rfb_session *s, unsigned x, unsigned y, unsigned width, unsigned height,
                     int32_t encoding)
{
    rfb_put16(&s->out, (uint16_t)x);
    rfb_put16(&s->out, (uint16_t)y);
    rfb_put16(&s->out, (uint16_t)width);
    rfb_put16(&s->out, (uint16_t)height);
    rfb_put32(&s->out, (uint32_t)encoding);
}

void rfb_refresh_all(struct rfb_session *s)
{
    s->refresh = (struct rfb_rect){0, 0, s->width, s->height};
}

bool rfb_set_size(struct rfb_session *s, unsigned width, unsigned height)
{
    uint32_t *shown = calloc((size_t)width * height, sizeof(*shown));

    if (!shown)
        return false;
    free(s->shown);
    s->shown = shown;
    s->width = width;
    s->height = height;
    rfb_refresh_all(s);
    return true;
}

bool rfb_session_waits(const struct rfb_session *s)
{
    return s->phase == RFB_PHASE_NORMAL && (s->wants || s->streaming) && !s->out.size;
}

/* ---- Pixels ---- */

/* The picture of a client that cannot follow a new size: cut, or with black around it. */
static void fit(const struct rfb_session *s, const struct rfb_picture *from, uint32_t *to)
{
    unsigned width = from->width < s->width ? from->width : s->width;

    if (from->width < s->width || from->height < s->height)
        memset(to, 0, (size_t)s->width * s->height * sizeof(*to));
    for (unsigned y = 0; y < from->height && y < s->height; y++)
        memcpy(to + (size_t)y * s->width, from->pixels + (size_t)y * from->width,
               width * sizeof(*to));
}

static uint32_t blend(uint32_t below, uint32_t above)
{
    uint32_t rest = 255 - (above >> 24), result = 0;

    for (unsigned shift = 0; shift < 24; shift += 8) {
        uint32_t sum = (above >> shift & 0xff) + (below >> shift & 0xff) * rest / 255;
        result |= (sum < 255 ? sum : 255) << shift;
    }
    return result;
}

static void draw_cursor(const struct rfb_session *s, const struct mull_cursor *c, uint32_t *to)
{
    for (unsigned row = 0; c->visible && row < c->height; row++)
        for (unsigned column = 0; column < c->width; column++) {
            int64_t x = (int64_t)c->x - c->hot_x + column, y = (int64_t)c->y - c->hot_y + row;
            if (x < 0 || y < 0 || x >= s->width || y >= s->height)
                continue;
            uint32_t *pixel = to + (size_t)y * s->width + (size_t)x;
            *pixel = blend(*pixel, c->pixels[row * c->width + column]);
        }
}

static bool tile_differs(const struct rfb_session *s, const uint32_t *now, unsigned x, unsigned y,
                         unsigned width, unsigned height)
{
    const struct rfb_rect *r = &s->refresh;

    if (x < r->right && x + width > r->x && y < r->bottom && y + height > r->y)
        return true;
    for (unsigned i = 0; i < height; i++)
        if (memcmp(now + (size_t)(y + i) * s->width + x, s->shown + (size_t)(y + i) * s->width + x,
                   width * sizeof(*now)))
            return true;
    return false;
}

static void put_pixels(struct rfb_session *s, const uint32_t *now, unsigned x, unsigned y,
                       unsigned width, unsigned height)
{
    const struct rfb_pixels part = {.data = now + (size_t)y * s->width + x,
                                    .stride = s->width,
                                    .width = width,
                                    .height = height};

    put_rect(s, x, y, width, height, s->encoding);
    if (s->encoding == RFB_ZRLE)
        rfb_zrle(&s->out, &s->format, &s->streams, &part);
    else if (s->encoding == RFB_TIGHT)
        rfb_tight(&s->out, &s->format, &s->streams, &part);
    else
        rfb_raw(&s->out, &s->format, &part);
}

/* Rectangles of what differs in a row of tiles. @return how many */
static unsigned put_row(struct rfb_session *s, const uint32_t *now, unsigned y, unsigned height)
{
    unsigned count = 0, start = 0, run = 0;

    for (unsigned x = 0; x < s->width; x += TILE_WIDTH) {
        unsigned width = s->width - x < TILE_WIDTH ? s->width - x : TILE_WIDTH;
        bool differs = tile_differs(s, now, x, y, width, height);
        if (run && (!differs || run + width > RFB_TIGHT_WIDTH)) {
            put_pixels(s, now, start, y, run, height);
            count++;
            run = 0;
        }
        if (differs) {
            start = run ? start : x;
            run += width;
        }
    }
    if (run) {
        put_pixels(s, now, start, y, run, height);
        count++;
    }
    return count;
}

static unsigned put_changes(struct rfb_session *s, const uint32_t *now)
{
    unsigned count = 0;

    for (unsigned y = 0; y < s->height; y += TILE_HEIGHT)
        count += put_row(s, now, y, s->height - y < TILE_HEIGHT ? s->height - y : TILE_HEIGHT);
    return count;
}

/* ---- What is no picture ---- */

/* ExtendedDesktopSize: why, how it went, and the one screen there is. */
static void put_size(struct rfb_session *s)
{
    put_rect(s, s->tell_reason, s->tell_status, s->width, s->height, RFB_EXTENDED_DESKTOP_SIZE);
    rfb_put32(&s->out, 1u << 24);
    rfb_put32(&s->out, RFB_SCREEN_ID);
    rfb_put32(&s->out, 0);
    rfb_put16(&s->out, (uint16_t)s->width);
    rfb_put16(&s->out, (uint16_t)s->height);
    rfb_put32(&s->out, 0);
    s->tell_size = false;
    s->tell_reason = s->tell_status = 0;
}

/* The pointer for a client that draws it: with alpha, or with a mask (7.8.1). */
static void put_cursor(struct rfb_session *s, const struct mull_cursor *c)
{
    unsigned width = c->visible ? c->width : 0, height = c->visible ? c->height : 0;

    put_rect(s, width ? c->hot_x : 0, width ? c->hot_y : 0, width, height,
             s->cursor_alpha ? RFB_CURSOR_ALPHA : RFB_CURSOR);
    if (s->cursor_alpha) {
        rfb_put32(&s->out, RFB_RAW);
        for (unsigned i = 0; i < width * height; i++) { /* red, green, blue, alpha */
            const uint32_t p = c->pixels[i];
            const uint8_t rgba[4] = {(uint8_t)(p >> 16), (uint8_t)(p >> 8), (uint8_t)p,
                                     (uint8_t)(p >> 24)};
            rfb_put(&s->out, rgba, 4);
        }
        return;
    }
    rfb_put_pixels(&s->out, &s->format, c->pixels, width * height, s->format.bytes);
    for (unsigned y = 0; y < height; y++) {
        uint8_t *mask = rfb_reserve(&s->out, (width + 7) / 8);
        if (!mask)
            return;
        memset(mask, 0, (width + 7) / 8);
        for (unsigned x = 0; x < width; x++)
            if (c->pixels[y * width + x] >> 31)
                mask[x / 8] |= (uint8_t)(0x80 >> (x & 7));
    }
}

/* @return how many rectangles */
static unsigned put_news(struct rfb_session *s, const struct rfb_picture *now)
{
    unsigned count = 0;

    if (s->tell_size) {
        put_size(s);
        count++;
    }
    if (s->tell_keys) {
        put_rect(s, 0, 0, 0, 0, RFB_EXTENDED_KEYS);
        s->tell_keys = false;
        count++;
    }
    unsigned leds = s->host->leds ? s->host->leds(s->host->opaque) : 0;
    if (s->leds && (s->tell_leds || leds != s->led_state)) {
        put_rect(s, 0, 0, 0, 0, RFB_LED_STATE);
        rfb_put8(&s->out, (uint8_t)leds);
        s->tell_leds = false;
        s->led_state = leds;
        count++;
    }
    const struct mull_cursor *c = now->cursor;
    if (c && (s->cursor || s->cursor_alpha) &&
        (!s->cursor_sent || c->serial != s->cursor_serial || c->visible != s->cursor_shown)) {
        put_cursor(s, c);
        s->cursor_sent = true;
        s->cursor_serial = c->serial;
        s->cursor_shown = c->visible;
        count++;
    }
    return count;
}

bool rfb_session_seen(const struct rfb_session *s, uint64_t changes)
{
    return s->changes == changes && s->refresh.x >= s->refresh.right && !s->tell_size &&
           !s->tell_keys && !s->tell_leds &&
           (!s->leds || !s->host->leds || s->host->leds(s->host->opaque) == s->led_state);
}

void rfb_session_update(struct rfb_session *s, const struct rfb_picture *now)
{
    bool resized =
        (s->resizable || s->extended_size) && (now->width != s->width || now->height != s->height);
    unsigned count = 0;

    if (!rfb_session_waits(s) || rfb_session_seen(s, now->changes))
        return;
    if (resized && !rfb_set_size(s, now->width, now->height)) {
        s->phase = RFB_PHASE_OVER;
        return;
    }
    uint32_t *picture = malloc((size_t)s->width * s->height * sizeof(*picture));
    if (!picture)
        return; /* later, perhaps */
    s->changes = now->changes;
    fit(s, now, picture);
    if (now->cursor && !s->cursor && !s->cursor_alpha)
        draw_cursor(s, now->cursor, picture);
    rfb_put32(&s->out, 0); /* FramebufferUpdate, and how many */
    if (resized && s->extended_size) {
        s->tell_size = true;
    } else if (resized) {
        put_rect(s, 0, 0, s->width, s->height, RFB_DESKTOP_SIZE);
        count++;
    }
    count += put_news(s, now);
    count += put_changes(s, picture);
    free(s->shown);
    s->shown = picture;
    s->refresh = (struct rfb_rect){0};
    if (!count) {
        s->out.size = 0;
        return;
    }
    s->wants = false;
    if (!s->out.failed) {
        s->out.data[2] = (uint8_t)(count >> 8);
        s->out.data[3] = (uint8_t)count;
    }
}
