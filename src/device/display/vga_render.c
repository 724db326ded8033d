/*
 * What a VGA shows: text modes with the guest's own font and cursor, 16 and 256 colours, and the
 * linear modes of the Bochs extension. Reads registers under the lock and memory as it is: a guest
 * that draws meanwhile gives a picture of that moment.
 */
#include <string.h>

#include "device/display/vga_internal.h"

/* ---- Sizes ---- */

static unsigned display_end(const struct mull_vga *v)
{
    return (v->cr[0x12] | (v->cr[7] & 2u) << 7 | (v->cr[7] & 0x40u) << 3) + 1;
}

static unsigned char_height(const struct mull_vga *v)
{
    return (v->cr[9] & 31u) + 1;
}

static bool graphics(const struct mull_vga *v)
{
    return v->gr[6] & 1;
}

static unsigned dots(const struct mull_vga *v)
{
    return v->seq[1] & 1 ? 8 : 9;
}

static unsigned min(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

static void text_size(const struct mull_vga *v, unsigned *columns, unsigned *rows)
{
    *columns = min(v->cr[1] + 1u, 160);
    *rows = min(display_end(v) / char_height(v), 100);
}

/* Scan lines shown for each line of memory. */
static unsigned repeat(const struct mull_vga *v)
{
    return ((v->cr[9] & 31u) + 1) * (v->cr[9] & 0x80 ? 2 : 1);
}

static void size(const struct mull_vga *v, unsigned *width, unsigned *height)
{
    if (!vga_linear(v) && !v->cr[1] && !v->cr[0x12]) { /* nobody has set a mode yet: blank */
        *width = 720;
        *height = 400;
    } else if (vga_linear(v)) {
        *width = v->dispi[DISPI_XRES];
        *height = v->dispi[DISPI_YRES];
    } else if (graphics(v)) {
        *width = (v->cr[1] + 1u) * (v->gr[5] & 0x40 ? 4 : 8);
        *height = display_end(v) / repeat(v);
    } else {
        unsigned columns, rows;
        text_size(v, &columns, &rows);
        *width = columns * dots(v);
        *height = rows * char_height(v);
    }
    *width = min(*width ? *width : 1, MULL_VGA_MAX_WIDTH);
    *height = min(*height ? *height : 1, MULL_VGA_MAX_HEIGHT);
}

void mull_vga_size(struct mull_vga *v, unsigned *width, unsigned *height)
{
    pthread_mutex_lock(&v->lock);
    size(v, width, height);
    pthread_mutex_unlock(&v->lock);
}

/* ---- Colours ---- */

static uint32_t dac(const struct mull_vga *v, uint8_t index)
{
    const uint8_t *p = v->palette + 3 * (index & v->dac_mask);

    if (v->dispi[DISPI_ENABLE] & DISPI_8BIT_DAC)
        return (uint32_t)p[0] << 16 | (uint32_t)p[1] << 8 | p[2];
    return (uint32_t)(p[0] << 2 | p[0] >> 4) << 16 | (uint32_t)(p[1] << 2 | p[1] >> 4) << 8 |
           (uint32_t)(p[2] << 2 | p[2] >> 4);
}

/* One of 16 colours through the attribute controller. */
static uint32_t colour(const struct mull_vga *v, unsigned index)
{
    uint8_t entry = v->ar[index & 15] & 0x3f;

    if (v->ar[0x10] & 0x80)
        entry = (uint8_t)((entry & 15) | (v->ar[0x14] & 15) << 4);
    else
        entry = (uint8_t)(entry | (v->ar[0x14] & 12) << 4);
    return dac(v, entry);
}

static uint8_t memory_at(const struct mull_vga *v, uint64_t at)
{
    return v->memory[at & (VGA_MEMORY - 1)];
}

/* ---- Text ---- */

static unsigned start_address(const struct mull_vga *v)
{
    return (unsigned)v->cr[0x0c] << 8 | v->cr[0x0d];
}

/* Character (plane 0) and attribute (plane 1) of a cell. In odd/even mode a cell is two addresses
 * in the window, so that cells are 8 bytes apart. */
static void cell_at(const struct mull_vga *v, unsigned column, unsigned row, uint8_t *character,
                    uint8_t *attribute)
{
    uint64_t cell = start_address(v) + (uint64_t)row * v->cr[0x13] * 2 + column;

    *character = memory_at(v, cell * 8);
    *attribute = memory_at(v, cell * 8 + 1);
}

static unsigned font_base(const struct mull_vga *v, uint8_t attribute)
{
    static const uint16_t base[8] = {0x0000, 0x4000, 0x8000, 0xc000,
                                     0x2000, 0x6000, 0xa000, 0xe000};
    uint8_t map = v->seq[3];

    /* Bit 3 of the attribute chooses between two fonts. */
    return base[attribute & 8 ? (map >> 2 & 3) | (map >> 3 & 4) : (map & 3) | (map >> 2 & 4)];
}

static bool cursor_at(const struct mull_vga *v, unsigned column, unsigned row)
{
    unsigned at = (unsigned)v->cr[0x0e] << 8 | v->cr[0x0f];

    return !(v->cr[0x0a] & 0x20) &&
           at == ((start_address(v) + row * v->cr[0x13] * 2 + column) & 0xffff);
}

static void draw_cell(const struct mull_vga *v, uint32_t *to, unsigned stride, unsigned column,
                      unsigned row)
{
    unsigned height = char_height(v), width = dots(v);
    uint8_t character, attribute;

    cell_at(v, column, row, &character, &attribute);
    bool cursor = cursor_at(v, column, row);
    unsigned font = font_base(v, attribute);
    uint32_t ink = colour(v, attribute), paper = colour(v, attribute >> 4 & 7);
    for (unsigned y = 0; y < height; y++) {
        uint8_t bits = memory_at(v, (font + 32ull * character + y) * 4 + 2);
        if (cursor && y >= (v->cr[0x0a] & 31u) && y <= (v->cr[0x0b] & 31u))
            bits = 0xff;
        for (unsigned x = 0; x < width; x++) {
            /* The ninth dot repeats the eighth of the line-drawing characters. */
            bool on = x < 8 ? bits >> (7 - x) & 1
                            : (bits & 1) && (character & 0xe0) == 0xc0 && (v->ar[0x10] & 4);
            to[y * stride + x] = on ? ink : paper;
        }
    }
}

static void render_text(const struct mull_vga *v, uint32_t *to, unsigned width)
{
    unsigned columns, rows;

    text_size(v, &columns, &rows);
    for (unsigned row = 0; row < rows; row++)
        for (unsigned column = 0; column < columns; column++)
            if (row * char_height(v) + char_height(v) <= MULL_VGA_MAX_HEIGHT)
                draw_cell(v, to + row * char_height(v) * width + column * dots(v), width, column,
                          row);
}

/* Code page 437's characters from 80h on, in Unicode. */
static const uint16_t cp437[128] = {
    0xc7,   0xfc,   0xe9,   0xe2,   0xe4,   0xe0,   0xe5,   0xe7,   0xea,   0xeb,   0xe8,   0xef,
    0xee,   0xec,   0xc4,   0xc5,   0xc9,   0xe6,   0xc6,   0xf4,   0xf6,   0xf2,   0xfb,   0xf9,
    0xff,   0xd6,   0xdc,   0xa2,   0xa3,   0xa5,   0x20a7, 0x192,  0xe1,   0xed,   0xf3,   0xfa,
    0xf1,   0xd1,   0xaa,   0xba,   0xbf,   0x2310, 0xac,   0xbd,   0xbc,   0xa1,   0xab,   0xbb,
    0x2591, 0x2592, 0x2593, 0x2502, 0x2524, 0x2561, 0x2562, 0x2556, 0x2555, 0x2563, 0x2551, 0x2557,
    0x255d, 0x255c, 0x255b, 0x2510, 0x2514, 0x2534, 0x252c, 0x251c, 0x2500, 0x253c, 0x255e, 0x255f,
    0x255a, 0x2554, 0x2569, 0x2566, 0x2560, 0x2550, 0x256c, 0x2567, 0x2568, 0x2564, 0x2565, 0x2559,
    0x2558, 0x2552, 0x2553, 0x256b, 0x256a, 0x2518, 0x250c, 0x2588, 0x2584, 0x258c, 0x2590, 0x2580,
    0x3b1,  0xdf,   0x393,  0x3c0,  0x3a3,  0x3c3,  0xb5,   0x3c4,  0x3a6,  0x398,  0x3a9,  0x3b4,
    0x221e, 0x3c6,  0x3b5,  0x2229, 0x2261, 0xb1,   0x2265, 0x2264, 0x2320, 0x2321, 0xf7,   0x2248,
    0xb0,   0x2219, 0xb7,   0x221a, 0x207f, 0xb2,   0x25a0, 0xa0};

static size_t put_utf8(char *to, unsigned c)
{
    if (c < 0x80) {
        to[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        to[0] = (char)(0xc0 | c >> 6);
        to[1] = (char)(0x80 | (c & 63));
        return 2;
    }
    to[0] = (char)(0xe0 | c >> 12);
    to[1] = (char)(0x80 | (c >> 6 & 63));
    to[2] = (char)(0x80 | (c & 63));
    return 3;
}

int mull_vga_text(struct mull_vga *v, char *out, size_t room)
{
    unsigned columns, rows;
    size_t len = 0;

    pthread_mutex_lock(&v->lock);
    if (vga_linear(v) || graphics(v)) {
        pthread_mutex_unlock(&v->lock);
        return -1;
    }
    text_size(v, &columns, &rows);
    for (unsigned row = 0; row < rows; row++) {
        size_t end = len; /* behind the last visible character */
        for (unsigned column = 0; column < columns && len + 5 < room; column++) {
            uint8_t c, attribute;
            cell_at(v, column, row, &c, &attribute);
            len += put_utf8(out + len, c >= 0x80 ? cp437[c - 0x80] : c > 32 && c < 127 ? c : ' ');
            if (c > 32)
                end = len;
        }
        len = end;
        if (len + 1 < room)
            out[len++] = '\n';
    }
    pthread_mutex_unlock(&v->lock);
    out[len] = '\0';
    return (int)len;
}

/* ---- Graphics ---- */

static void render_graphics(const struct mull_vga *v, uint32_t *to, unsigned width, unsigned height)
{
    uint64_t start = start_address(v), line = v->cr[0x13] * 2ull;

    for (unsigned y = 0; y < height; y++)
        for (unsigned x = 0; x < width; x++) {
            if (v->gr[5] & 0x40) { /* 256 colours: each plane has every fourth pixel */
                uint64_t at = v->seq[4] & 8 ? start * 4 + y * line * 4 + x
                                            : (start + y * line + x / 4) * 4 + (x & 3);
                *to++ = dac(v, memory_at(v, at));
                continue;
            }
            unsigned index = 0;
            for (unsigned plane = 0; plane < 4; plane++)
                index |=
                    (memory_at(v, (start + y * line + x / 8) * 4 + plane) >> (7 - (x & 7)) & 1u)
                    << plane;
            *to++ = colour(v, index & v->ar[0x12]);
        }
}

static uint32_t linear_pixel(const struct mull_vga *v, uint64_t at, unsigned bpp)
{
    uint8_t p[4];

    for (unsigned i = 0; i < 4; i++)
        p[i] = memory_at(v, at + i);
    unsigned word = p[0] | (unsigned)p[1] << 8;
    switch (bpp) {
    case 8:
        return dac(v, p[0]);
    case 15:
        return (word >> 10 & 31) << 19 | (word >> 5 & 31) << 11 | (word & 31) << 3;
    case 16:
        return (word >> 11 & 31) << 19 | (word >> 5 & 63) << 10 | (word & 31) << 3;
    default:
        return (uint32_t)p[2] << 16 | (uint32_t)p[1] << 8 | p[0];
    }
}

static void render_linear(const struct mull_vga *v, uint32_t *to, unsigned width, unsigned height)
{
    unsigned bpp = v->dispi[DISPI_BPP], bytes = (bpp + 7) / 8;
    uint64_t line = (uint64_t)v->dispi[DISPI_VIRT_WIDTH] * bytes;
    uint64_t start = v->dispi[DISPI_Y_OFFSET] * line + (uint64_t)v->dispi[DISPI_X_OFFSET] * bytes;

    for (unsigned y = 0; y < height; y++) {
        uint64_t at = start + y * line;
        if (bpp == 32 && at + 4ull * width <= VGA_MEMORY) {
            memcpy(to, v->memory + at, 4ull * width);
            for (unsigned x = 0; x < width; x++)
                to[x] &= 0xffffff;
            to += width;
            continue;
        }
        for (unsigned x = 0; x < width; x++)
            *to++ = linear_pixel(v, at + (uint64_t)x * bytes, bpp);
    }
}

bool mull_vga_render(struct mull_vga *v, uint32_t *pixels, size_t max, unsigned *width,
                     unsigned *height)
{
    pthread_mutex_lock(&v->lock);
    size(v, width, height);
    bool fits = (size_t)*width * *height <= max;
    if (fits) {
        memset(pixels, 0, (size_t)*width * *height * sizeof(*pixels));
        if (vga_linear(v))
            render_linear(v, pixels, *width, *height);
        else if (v->ar_index & 0x20) { /* else the screen is blanked */
            if (graphics(v))
                render_graphics(v, pixels, *width, *height);
            else if (*width >= 8 && *height >= char_height(v))
                render_text(v, pixels, *width);
        }
    }
    pthread_mutex_unlock(&v->lock);
    return fits;
}
