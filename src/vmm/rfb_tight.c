/*
 * The Tight encoding (the RFB community's protocol description, "Tight Encoding"): one colour, a
 * palette, or all colours, each with a compressor of its own. No JPEG: screens of machines are
 * texts and windows, and stay exact.
 */
#include <string.h>

#include "vmm/rfb_encode.h"

#define PALETTE_MAX 256u
#define BUCKETS 1024u
#define SMALL 12u /* what is shorter is not compressed */

/* Compression control byte: what follows, and which stream. */
enum { CONTROL_FILL = 0x80, CONTROL_FILTER = 0x40 };
enum { STREAM_FULL, STREAM_TWO, STREAM_PALETTE };
enum { FILTER_PALETTE = 1 };

struct palette {
    unsigned count;
    uint32_t colour[PALETTE_MAX];
    uint16_t bucket[BUCKETS]; /* index + 1; 0: free */
};

static unsigned hash(uint32_t colour)
{
    return (colour * 0x9e3779b1u) >> 22;
}

/* @return the colour's index, PALETTE_MAX: there is no room */
static unsigned palette_index(struct palette *p, uint32_t colour)
{
    unsigned at = hash(colour);

    while (p->bucket[at]) {
        if (p->colour[p->bucket[at] - 1] == colour)
            return p->bucket[at] - 1u;
        at = (at + 1) % BUCKETS;
    }
    if (p->count == PALETTE_MAX)
        return PALETTE_MAX;
    p->colour[p->count++] = colour;
    p->bucket[at] = (uint16_t)p->count;
    return p->count - 1;
}

/* @return false: there are too many */
static bool collect(struct palette *p, const struct rfb_pixels *from)
{
    p->count = 0;
    memset(p->bucket, 0, sizeof(p->bucket));
    for (unsigned y = 0; y < from->height; y++) {
        const uint32_t *row = from->data + (size_t)y * from->stride;
        for (unsigned x = 0; x < from->width; x++)
            if ((!x || row[x] != row[x - 1]) && palette_index(p, row[x]) == PALETTE_MAX)
                return false;
    }
    return true;
}

/* "TPIXEL": three bytes, red first, where a pixel has 24 bits of depth. */
static void put_tpixels(struct rfb_buffer *b, const struct rfb_format *f, const uint32_t *pixels,
                        unsigned n)
{
    if (!f->rgb) {
        rfb_put_pixels(b, f, pixels, n, f->bytes);
        return;
    }
    uint8_t *to = rfb_reserve(b, 3ul * n);
    for (unsigned i = 0; to && i < n; i++) {
        *to++ = (uint8_t)(pixels[i] >> 16);
        *to++ = (uint8_t)(pixels[i] >> 8);
        *to++ = (uint8_t)pixels[i];
    }
}

/* Seven bits a byte, the lowest first, at most three bytes. */
static void put_length(struct rfb_buffer *b, size_t length)
{
    if (length < 0x80) {
        rfb_put8(b, (uint8_t)length);
    } else if (length < 0x4000) {
        rfb_put8(b, (uint8_t)(length | 0x80));
        rfb_put8(b, (uint8_t)(length >> 7));
    } else {
        rfb_put8(b, (uint8_t)(length | 0x80));
        rfb_put8(b, (uint8_t)(length >> 7 | 0x80));
        rfb_put8(b, (uint8_t)(length >> 14));
    }
}

static void put_data(struct rfb_buffer *b, struct rfb_streams *s, unsigned index,
                     const struct rfb_buffer *plain)
{
    struct rfb_buffer packed = {0};

    if (plain->size < SMALL) {
        rfb_put(b, plain->data, plain->size);
        b->failed |= plain->failed;
        return;
    }
    rfb_compress(&packed, s, 1 + index, plain);
    if (packed.size >= 1u << 22)
        packed.failed = true; /* 22 bits tell the length; rfb_tight() cuts before */
    put_length(b, packed.size);
    rfb_put(b, packed.data, packed.size);
    b->failed |= packed.failed;
    rfb_buffer_free(&packed);
}

static void put_indices(struct rfb_buffer *plain, struct palette *p, const struct rfb_pixels *from)
{
    for (unsigned y = 0; y < from->height; y++) {
        const uint32_t *row = from->data + (size_t)y * from->stride;
        uint8_t *to = rfb_reserve(plain, p->count == 2 ? (from->width + 7) / 8 : from->width);
        if (!to)
            return;
        if (p->count > 2) {
            for (unsigned x = 0; x < from->width; x++)
                to[x] = (uint8_t)palette_index(p, row[x]);
            continue;
        }
        memset(to, 0, (from->width + 7) / 8);
        for (unsigned x = 0; x < from->width; x++)
            if (row[x] != p->colour[0])
                to[x / 8] |= (uint8_t)(0x80 >> (x & 7));
    }
}

void rfb_tight(struct rfb_buffer *b, const struct rfb_format *f, struct rfb_streams *s,
               const struct rfb_pixels *from)
{
    struct palette p;
    unsigned bytes = f->rgb ? 3 : f->bytes;
    bool few = collect(&p, from);

    s->plain.size = 0;
    if (few && p.count == 1) {
        rfb_put8(b, CONTROL_FILL);
        put_tpixels(b, f, p.colour, 1);
    } else if (few && (p.count == 2 || bytes > 1)) {
        unsigned index = p.count == 2 ? STREAM_TWO : STREAM_PALETTE;
        rfb_put8(b, (uint8_t)(CONTROL_FILTER | index << 4));
        rfb_put8(b, FILTER_PALETTE);
        rfb_put8(b, (uint8_t)(p.count - 1));
        put_tpixels(b, f, p.colour, p.count);
        put_indices(&s->plain, &p, from);
        put_data(b, s, index, &s->plain);
    } else {
        rfb_put8(b, STREAM_FULL << 4);
        for (unsigned y = 0; y < from->height; y++)
            put_tpixels(&s->plain, f, from->data + (size_t)y * from->stride, from->width);
        put_data(b, s, STREAM_FULL, &s->plain);
    }
}
