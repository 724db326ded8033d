/*
 * A monitor's description for the virtio GPU: VESA Enhanced EDID 1.4, one block.
 */
#include <string.h>

#include "device/virtio/gpu_internal.h"

/* Blanking as of reduced blanking (VESA CVT 1.2, 5.4). */
#define H_BLANK 160u
#define H_FRONT 48u
#define H_SYNC 32u
#define V_BLANK 40u
#define V_FRONT 3u
#define V_SYNC 6u
#define REFRESH 60u
#define DOTS_PER_INCH 96u

static unsigned millimetres(unsigned pixels)
{
    return pixels * 254 / (DOTS_PER_INCH * 10);
}

/* 3.10.2: the preferred mode. */
static void detailed_timing(uint8_t *d, unsigned width, unsigned height)
{
    unsigned clock = (width + H_BLANK) * (height + V_BLANK) / 100 * REFRESH / 100; /* of 10 kHz */
    unsigned mm_width = millimetres(width), mm_height = millimetres(height);

    d[0] = (uint8_t)clock;
    d[1] = (uint8_t)(clock >> 8);
    d[2] = (uint8_t)width;
    d[3] = (uint8_t)H_BLANK;
    d[4] = (uint8_t)(width >> 8 << 4 | H_BLANK >> 8);
    d[5] = (uint8_t)height;
    d[6] = (uint8_t)V_BLANK;
    d[7] = (uint8_t)(height >> 8 << 4 | V_BLANK >> 8);
    d[8] = (uint8_t)H_FRONT;
    d[9] = (uint8_t)H_SYNC;
    d[10] = (uint8_t)(V_FRONT << 4 | V_SYNC);
    d[12] = (uint8_t)mm_width;
    d[13] = (uint8_t)mm_height;
    d[14] = (uint8_t)(mm_width >> 8 << 4 | mm_height >> 8);
    d[17] = 0x1a; /* digital separate sync, horizontal positive */
}

void gpu_edid(uint8_t edid[GPU_EDID_SIZE], unsigned width, unsigned height)
{
    static const uint8_t head[] = {
        0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0,  0x36, 0xac, /* "MUL" */
        1, 0,    1,    0,    0,    0,    1,    36, /* product, serial number, week, year */
        1, 4,    0xa0,                             /* version 1.4; digital, 8 bits a colour */
    };
    static const uint8_t colours[] = {/* sRGB */
                                      0xee, 0x91, 0xa3, 0x54, 0x4c, 0x99, 0x26, 0x0f, 0x50, 0x54};
    static const uint8_t range[] = {0,  0, 0,  0xfd, 0,   24,  75,  15,  160,
                                    30, 1, 10, ' ',  ' ', ' ', ' ', ' ', ' '};
    uint8_t sum = 0;

    memset(edid, 0, GPU_EDID_SIZE);
    memcpy(edid, head, sizeof(head));
    edid[21] = (uint8_t)(millimetres(width) / 10);
    edid[22] = (uint8_t)(millimetres(height) / 10);
    edid[23] = 120;  /* gamma 2.2 */
    edid[24] = 0x06; /* sRGB; the preferred mode is the native one */
    memcpy(edid + 25, colours, sizeof(colours));
    memset(edid + 38, 1, 16); /* no standard timings */
    detailed_timing(edid + 54, width, height);
    memcpy(edid + 72, range, sizeof(range));
    memcpy(edid + 90, "\0\0\0\xfc\0Mullion\n     ", 18);
    edid[108 + 3] = 0x10; /* nothing */
    for (unsigned i = 0; i < GPU_EDID_SIZE - 1; i++)
        sum = (uint8_t)(sum + edid[i]);
    edid[GPU_EDID_SIZE - 1] = (uint8_t)-sum;
}
