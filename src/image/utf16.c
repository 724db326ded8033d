/* See utf16.h. */
#include "image/utf16.h"

#include "image/image.h"

static uint32_t unit_at(const uint8_t *in, uint32_t i, uint32_t length, bool big)
{
    if (i + 1 >= length)
        return 0;
    return big ? mull_be16(in + i) : mull_le16(in + i);
}

static size_t put_utf8(char *out, uint32_t c)
{
    static const uint8_t first[] = {0, 0xc0, 0xe0, 0xf0};
    size_t more = c < 0x80 ? 0 : c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;

    out[0] = (char)(first[more] | c >> 6 * more);
    for (size_t i = 1; i <= more; i++)
        out[i] = (char)(0x80 | (c >> 6 * (more - i) & 0x3f));
    return more + 1;
}

void mull_utf16_read(const uint8_t *in, uint32_t length, bool big, char *out, size_t room)
{
    size_t n = 0;

    for (uint32_t i = 0; n + 4 < room; i += 2) {
        uint32_t c = unit_at(in, i, length, big), low;
        if (!c)
            break;
        if (c >= 0xd800 && c < 0xdc00 && (low = unit_at(in, i + 2, length, big)) >= 0xdc00 &&
            low < 0xe000) {
            c = 0x10000 + ((c & 0x3ff) << 10 | (low & 0x3ff));
            i += 2;
        } else if (c >= 0xd800 && c < 0xe000) {
            c = '?';
        }
        n += put_utf8(out + n, c == '\\' ? '/' : c);
    }
    out[n] = 0;
}

/* The next character; *text goes on. */
static uint32_t take_utf8(const uint8_t **text)
{
    const uint8_t *p = *text;
    uint32_t c = *p++, more = c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : c >= 0xc0 ? 1 : 0, i = 0;

    while (i < more && (p[i] & 0xc0) == 0x80)
        i++;
    if (more && i == more) {
        c &= 0x3fu >> more;
        for (; i; i--)
            c = c << 6 | (*p++ & 0x3f);
    }
    *text = p;
    return c;
}

uint32_t mull_utf16_write(uint8_t *out, uint32_t room, const char *text, bool big)
{
    const uint8_t *p = (const uint8_t *)text;
    uint32_t n = 0;

    while (*p) {
        uint32_t c = take_utf8(&p), units = c >= 0x10000 ? 2 : 1;
        uint32_t unit[2] = {c == '/' ? '\\' : c, 0};
        if (units == 2) {
            unit[0] = 0xd800 | ((c - 0x10000) >> 10 & 0x3ff);
            unit[1] = 0xdc00 | (c & 0x3ff);
        }
        if (n + 2 * units > room)
            break;
        for (uint32_t i = 0; i < units; i++, n += 2)
            if (big)
                mull_put_be16(out + n, (uint16_t)unit[i]);
            else
                mull_put_le16(out + n, (uint16_t)unit[i]);
    }
    return n;
}
