/*
 * Pixels for a client of the display server: its pixel format, and rectangles in raw, ZRLE and
 * Tight encoding (RFC 6143, 7.7.1 and 7.7.6; the RFB community's protocol description for Tight).
 */
#ifndef MULL_VMM_RFB_ENCODE_H
#define MULL_VMM_RFB_ENCODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <zlib.h>

#define RFB_RAW 0
#define RFB_TIGHT 7
#define RFB_ZRLE 16

#define RFB_TIGHT_WIDTH 2048u /* the widest rectangle of Tight */

struct rfb_format {
    uint8_t bytes; /* 1, 2 or 4 a pixel */
    bool big_endian;
    bool native;       /* as our own pictures are */
    bool rgb;          /* Tight: a pixel is three bytes, red, green, blue */
    uint8_t compact;   /* ZRLE: 3 where three bytes are enough, else as bytes */
    bool compact_high; /* ... and they are the upper three */
    uint16_t max[3];
    uint8_t shift[3];
};

/** A buffer that grows, up to RFB_BUFFER_MAX; beyond and on lack of memory it fails and stays so.
 */
struct rfb_buffer {
    uint8_t *data;
    size_t size, room;
    bool failed;
};
#define RFB_BUFFER_MAX (64u << 20)

void rfb_put(struct rfb_buffer *b, const void *data, size_t size);
void rfb_put8(struct rfb_buffer *b, uint8_t value);
void rfb_put16(struct rfb_buffer *b, uint16_t value);
void rfb_put32(struct rfb_buffer *b, uint32_t value);

void rfb_buffer_free(struct rfb_buffer *b);

/** Room for @size bytes, which count as put. @return NULL: the buffer has failed */
uint8_t *rfb_reserve(struct rfb_buffer *b, size_t size);

/** A client's compressors, made when first used. */
struct rfb_streams {
    z_stream zrle, tight[4];
    uint8_t live;            /* bit 0: zrle, 1 to 4: tight */
    uint8_t level;           /* 1 to 9 */
    struct rfb_buffer plain; /* scratch */
};

void rfb_streams_free(struct rfb_streams *s);

/** A part of a picture. */
struct rfb_pixels {
    const uint32_t *data; /* of its upper left corner */
    unsigned stride;      /* pixels from a row to the next */
    unsigned width, height;
};

/** Read a SetPixelFormat's 16 bytes. @return false: one that is not spoken here */
bool rfb_format_parse(const uint8_t wire[16], struct rfb_format *out);

/** Append a rectangle's pixels. */
void rfb_raw(struct rfb_buffer *b, const struct rfb_format *f, const struct rfb_pixels *p);
void rfb_zrle(struct rfb_buffer *b, const struct rfb_format *f, struct rfb_streams *s,
              const struct rfb_pixels *p);
/** At most RFB_TIGHT_WIDTH wide. */
void rfb_tight(struct rfb_buffer *b, const struct rfb_format *f, struct rfb_streams *s,
               const struct rfb_pixels *p);

/* ---- For encodings ---- */

/** Append @n pixels of @bytes each, the client's way round. */
void rfb_put_pixels(struct rfb_buffer *b, const struct rfb_format *f, const uint32_t *pixels,
                    unsigned n, unsigned bytes);

/** Append @plain as the next part of stream @index (0: zrle, 1 to 4: tight). */
void rfb_compress(struct rfb_buffer *b, struct rfb_streams *s, unsigned index,
                  const struct rfb_buffer *plain);

#endif
