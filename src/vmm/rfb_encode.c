/*
 * See rfb_encode.h. ZRLE tiles are solid, a palette of up to 16 colours, or raw.
 */
#include "vmm/rfb_encode.h"

#include <stdlib.h>
#include <string.h>

#define TILE 64u
#define PALETTE_MAX 16u

void rfb_put(struct rfb_buffer *b, const void *data, size_t size)
{
    if (b->size + size > b->room && !b->failed) {
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
        return;
    memcpy(b->data + b->size, data, size);
    b->size += size;
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

/* @bytes of a pixel, the client's way round. */
static void put_pixel(struct rfb_buffer *b, const struct rfb_format *f, uint32_t p, unsigned bytes)
{
    uint32_t value = convert(f, p);
    uint8_t out[4];

    if (bytes == 3 && f->compact_high)
        value >>= 8;
    for (unsigned i = 0; i < bytes; i++)
        out[i] = (uint8_t)(value >> 8 * (f->big_endian ? bytes - 1 - i : i));
    rfb_put(b, out, bytes);
}

void rfb_raw(struct rfb_buffer *b, const struct rfb_format *f, const uint32_t *pixels,
             unsigned stride, unsigned width, unsigned height)
{
    for (unsigned y = 0; y < height; y++)
        for (unsigned x = 0; x < width; x++)
            put_pixel(b, f, pixels[(size_t)y * stride + x], f->bytes);
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
            for (unsigned x = 0; x < width; x++)
                put_pixel(b, f, pixels[(size_t)y * stride + x], f->compact);
        return;
    }
    rfb_put8(b, (uint8_t)colours);
    for (unsigned i = 0; i < colours; i++)
        put_pixel(b, f, palette[i], f->compact);
    for (unsigned y = 0; y < height && colours > 1; y++)
        put_packed(b, pixels + (size_t)y * stride, width, palette,
                   colours == 2   ? 1
                   : colours <= 4 ? 2
                                  : 4);
}

static void compress_into(struct rfb_buffer *b, z_stream *stream, const struct rfb_buffer *plain)
{
    uint8_t out[16384];

    stream->next_in = plain->data;
    stream->avail_in = (uInt)plain->size;
    do {
        stream->next_out = out;
        stream->avail_out = sizeof(out);
        if (deflate(stream, Z_SYNC_FLUSH) == Z_STREAM_ERROR)
            b->failed = true;
        rfb_put(b, out, sizeof(out) - stream->avail_out);
    } while (!stream->avail_out && !b->failed);
}

void rfb_zrle(struct rfb_buffer *b, const struct rfb_format *f, z_stream *stream,
              const uint32_t *pixels, unsigned stride, unsigned width, unsigned height)
{
    struct rfb_buffer plain = {0};

    for (unsigned y = 0; y < height; y += TILE)
        for (unsigned x = 0; x < width; x += TILE)
            put_tile(&plain, f, pixels + (size_t)y * stride + x, stride,
                     width - x < TILE ? width - x : TILE, height - y < TILE ? height - y : TILE);
    size_t at = b->size;
    rfb_put32(b, 0);
    compress_into(b, stream, &plain);
    b->failed |= plain.failed;
    free(plain.data);
    if (b->failed)
        return;
    size_t length = b->size - at - 4;
    for (unsigned i = 0; i < 4; i++)
        b->data[at + i] = (uint8_t)(length >> (24 - 8 * i));
}
