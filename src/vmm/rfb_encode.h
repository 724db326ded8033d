/*
 * Pixels for a client of the display server: its pixel format, raw and ZRLE encoding (RFC 6143,
 * 7.7.1 and 7.7.6).
 */
#ifndef MULL_VMM_RFB_ENCODE_H
#define MULL_VMM_RFB_ENCODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <zlib.h>

#define RFB_RAW 0
#define RFB_ZRLE 16

struct rfb_format {
    uint8_t bytes; /* 1, 2 or 4 a pixel */
    bool big_endian;
    uint8_t compact;   /* ZRLE: 3 where three bytes are enough, else as bytes */
    bool compact_high; /* ... and they are the upper three */
    uint16_t max[3];
    uint8_t shift[3];
};

/** A buffer that grows; on lack of memory it fails and stays failed. */
struct rfb_buffer {
    uint8_t *data;
    size_t size, room;
    bool failed;
};

void rfb_put(struct rfb_buffer *b, const void *data, size_t size);
void rfb_put8(struct rfb_buffer *b, uint8_t value);
void rfb_put16(struct rfb_buffer *b, uint16_t value);
void rfb_put32(struct rfb_buffer *b, uint32_t value);

/** Read a SetPixelFormat's 16 bytes. @return false: one that is not spoken here */
bool rfb_format_parse(const uint8_t wire[16], struct rfb_format *out);

/** Append a rectangle's pixels. @param pixels  of its upper left corner; @param stride  pixels */
void rfb_raw(struct rfb_buffer *b, const struct rfb_format *f, const uint32_t *pixels,
             unsigned stride, unsigned width, unsigned height);
/** @param stream  an initialized deflate stream, the client's for all rectangles */
void rfb_zrle(struct rfb_buffer *b, const struct rfb_format *f, z_stream *stream,
              const uint32_t *pixels, unsigned stride, unsigned width, unsigned height);

#endif
