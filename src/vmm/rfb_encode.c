/*
 * See rfb_encode.h. ZRLE tiles are solid, a palette of up to 16 colours, or raw.
 */
#include "vmm/rfb_encode.h"

#include <stdlib.h>
#include <string.h>

#define TILE 64u
#define PALETTE_MAX 16u

void rfb_buffer_free(struct rfb_buffer *b)
{
    free(b->data);
    *b = (struct rfb_buffer){0};
}

uint8_t *rfb_reserve(struct rfb_buffer *b, size_t size)
{
    if (size > RFB_BUFFER_MAX - b->size)
        b->failed = true;
    if (!b->failed && b->size + size > b->room) {
        size_t room = (b->size + size) * 2 + 4096;
        uint8_t *new = realloc(b->data, room);
        if (new) {
            b->data = new;
            b->room = room;
        } else {
            b->failed = true;
        }
    }
    if (b->failed)
        return NULL;
    b->size += size;
    return b->data + b->size - size;
}

void rfb_put(struct rfb_buffer *b, const void *data, size_t size)
{
    uint8_t *to = rfb_reserve(b, size);

    if (to && size)
        memcpy(to, data, size);
}

void rfb_put8(struct rfb_buffer *b, uint8_t value)
{
    rfb_put(b, &value, 1);
}

void rfb_put16(struct rfb_buffer *b, uint16_t value)
{
    const uint8_t bytes[2] = {(uint8_t)(value >> 8), (uint8_t)value};
    rfb_put(b, bytes, 2);
}

void rfb_put32(struct rfb_buffer *b, uint32_t value)
{
    rfb_put16(b, (uint16_t)(value >> 16));
    rfb_put16(b, (uint16_t)value);
}

bool rfb_format_parse(const uint8_t w[16], struct rfb_format *f)
{
    uint32_t used = 0;

    if ((w[0] != 8 && w[0] != 16 && w[0] != 32) || !w[3])
        return false;
    f->bytes = w[0] / 8;
    f->big_endian = w[2] != 0;
    for (unsigned i = 0; i < 3; i++) {
        f->max[i] = (uint16_t)(w[4 + 2 * i] << 8 | w[5 + 2 * i]);
        f->shift[i] = w[10 + i];
        if (f->shift[i] >= w[0])
            return false;
        used |= (uint32_t)f->max[i] << f->shift[i];
    }
    f->rgb = f->bytes == 4 && w[1] == 24;
    for (unsigned i = 0; i < 3; i++)
        f->rgb &= f->max[i] == 255;
    f->native = f->rgb && !f->big_endian && f->shift[0] == 16 && f->shift[1] == 8 && !f->shift[2];
    f->compact = f->bytes;
    f->compact_high = false;
    if (f->bytes == 4 && w[1] <= 24 && !(used >> 24)) {
        f->compact = 3;
    } else if (f->bytes == 4 && w[1] <= 24 && !(used & 0xff)) {
        f->compact = 3;
        f->compact_high = true;
    }
    return true;
}

static uint32_t convert(const struct rfb_format *f, uint32_t p)
{
    uint32_t value = 0;

    for (unsigned i = 0; i < 3; i++)
        value |= ((p >> (16 - 8 * i) & 0xff) * f->max[i] / 255) << f->shift[i];
    return value;
}

void rfb_put_pixels(struct rfb_buffer *b, const struct rfb_format *f, const uint32_t *pixels,
                    unsigned n, unsigned bytes)
{
    uint8_t *to = rfb_reserve(b, (size_t)n * bytes);
    unsigned down = bytes == 3 && f->compact_high ? 8 : 0;

    if (!to)
        return;
    if (f->native && bytes == 4) {
        memcpy(to, pixels, 4ul * n);
        return;
    }
    for (unsigned i = 0; i < n; i++) {
        uint32_t value = f->native ? pixels[i] : convert(f, pixels[i]) >> down;
        for (unsigned j = 0; j < bytes; j++)
            *to++ = (uint8_t)(value >> 8 * (f->big_endian ? bytes - 1 - j : j));
    }
}

void rfb_raw(struct rfb_buffer *b, const struct rfb_format *f, const struct rfb_pixels *p)
{
    for (unsigned y = 0; y < p->height; y++)
        rfb_put_pixels(b, f, p->data + (size_t)y * p->stride, p->width, f->bytes);
}

/* @return the number of colours, PALETTE_MAX + 1: too many */
static unsigned find_colours(const uint32_t *pixels, unsigned stride, unsigned width,
                             unsigned height, uint32_t palette[PALETTE_MAX])
{
    unsigned n = 0;

    for (unsigned y = 0; y < height; y++)
        for (unsigned x = 0; x < width; x++) {
            uint32_t p = pixels[(size_t)y * stride + x];
            unsigned i = 0;
            while (i < n && palette[i] != p)
                i++;
            if (i < n)
                continue;
            if (n == PALETTE_MAX)
                return PALETTE_MAX + 1;
            palette[n++] = p;
        }
    return n;
}

static void put_packed(struct rfb_buffer *b, const uint32_t *row, unsigned width,
                       const uint32_t *palette, unsigned bits)
{
    unsigned have = 0;
    uint8_t byte = 0;

    for (unsigned x = 0; x < width; x++) {
        unsigned i = 0;
        while (palette[i] != row[x])
            i++;
        byte = (uint8_t)(byte << bits | i);
        have += bits;
        if (have == 8) {
            rfb_put8(b, byte);
            have = byte = 0;
        }
    }
    if (have)
        rfb_put8(b, (uint8_t)(byte << (8 - have)));
}

static void put_tile(struct rfb_buffer *b, const struct rfb_format *f, const uint32_t *pixels,
                     unsigned stride, unsigned width, unsigned height)
{
    uint32_t palette[PALETTE_MAX];
    unsigned colours = find_colours(pixels, stride, width, height, palette);

    if (colours > PALETTE_MAX) {
        rfb_put8(b, 0);
        for (unsigned y = 0; y < height; y++)
            rfb_put_pixels(b, f, pixels + (size_t)y * stride, width, f->compact);
        return;
    }
    rfb_put8(b, (uint8_t)colours);
    rfb_put_pixels(b, f, palette, colours, f->compact);
    for (unsigned y = 0; y < height && colours > 1; y++)
        put_packed(b, pixels + (size_t)y * stride, width, palette,
                   colours == 2   ? 1
                   : colours <= 4 ? 2
                                  : 4);
}

static z_stream *stream(struct rfb_streams *s, unsigned index)
{
    z_stream *z = index ? &s->tight[index - 1] : &s->zrle;

    if (!(s->live >> index & 1)) {
        memset(z, 0, sizeof(*z));
        if (deflateInit(z, s->level ? s->level : 4) != Z_OK)
            return NULL;
        s->live |= (uint8_t)(1u << index);
    }
    return z;
}

void rfb_streams_free(struct rfb_streams *s)
{
    for (unsigned i = 0; i < 5; i++)
        if (s->live >> i & 1)
            deflateEnd(i ? &s->tight[i - 1] : &s->zrle);
    rfb_buffer_free(&s->plain);
    memset(s, 0, sizeof(*s));
}

void rfb_compress(struct rfb_buffer *b, struct rfb_streams *s, unsigned index,
                  const struct rfb_buffer *plain)
{
    z_stream *z = stream(s, index);
    uint8_t out[16384];

    if (!z || plain->failed) {
        b->failed = true;
        return;
    }
    z->next_in = plain->data;
    z->avail_in = (uInt)plain->size;
    do {
        z->next_out = out;
        z->avail_out = sizeof(out);
        if (deflate(z, Z_SYNC_FLUSH) == Z_STREAM_ERROR)
            b->failed = true;
        rfb_put(b, out, sizeof(out) - z->avail_out);
    } while (!z->avail_out && !b->failed);
}

void rfb_zrle(struct rfb_buffer *b, const struct rfb_format *f, struct rfb_streams *s,
              const struct rfb_pixels *p)
{
    s->plain.size = 0;
    for (unsigned y = 0; y < p->height; y += TILE)
        for (unsigned x = 0; x < p->width; x += TILE)
            put_tile(&s->plain, f, p->data + (size_t)y * p->stride + x, p->stride,
                     p->width - x < TILE ? p->width - x : TILE,
                     p->height - y < TILE ? p->height - y : TILE);
    size_t at = b->size;
    rfb_put32(b, 0);
    rfb_compress(b, s, 0, &s->plain);
    if (b->failed)
        return;
    size_t length = b->size - at - 4;
    for (unsigned i = 0; i < 4; i++)
        b->data[at + i] = (uint8_t)(length >> (24 - 8 * i));
}
