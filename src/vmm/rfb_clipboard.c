/*
 * The clipboard: plain cut text in Latin-1 (RFC 6143, 7.5.6 and 7.6.4), and the extended clipboard
 * (the RFB community's "Extended Clipboard Pseudo-Encoding") for UTF-8 that is sent when asked for.
 */
#include <stdlib.h>
#include <string.h>

#include "vmm/rfb_internal.h"

#define FORMAT_TEXT 1u
#define ACTION_CAPS (1u << 24)
#define ACTION_REQUEST (1u << 25)
#define ACTION_PEEK (1u << 26)
#define ACTION_NOTIFY (1u << 27)
#define ACTION_PROVIDE (1u << 28)

static void put_header(struct rfb_session *s, uint32_t length)
{
    rfb_put32(&s->out, 3u << 24);
    rfb_put32(&s->out, length);
}

static void put_action(struct rfb_session *s, uint32_t flags)
{
    put_header(s, -4u);
    rfb_put32(&s->out, flags);
}

void rfb_clipboard_begin(struct rfb_session *s)
{
    put_header(s, -8u);
    rfb_put32(&s->out, ACTION_CAPS | ACTION_REQUEST | ACTION_PEEK | ACTION_NOTIFY | ACTION_PROVIDE |
                           FORMAT_TEXT);
    rfb_put32(&s->out, RFB_CUT_MAX);
    s->clipboard_flags = ACTION_REQUEST | ACTION_NOTIFY | ACTION_PROVIDE; /* until it says */
}

/* ---- To the client ---- */

static void put_latin1(struct rfb_session *s)
{
    size_t at = s->out.size, n = 0;

    put_header(s, 0);
    for (size_t i = 0; i < s->text_len;) {
        uint8_t c = (uint8_t)s->text[i++], more = c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : c >= 0xc0;
        if (more == 1 && c < 0xc4 && i < s->text_len)
            c = (uint8_t)(c << 6 | (s->text[i] & 0x3f));
        else if (more)
            c = '?';
        for (; more && i < s->text_len; more--)
            i++;
        rfb_put8(&s->out, c);
        n++;
    }
    for (unsigned i = 0; i < 4 && !s->out.failed; i++)
        s->out.data[at + 4 + i] = (uint8_t)(n >> (24 - 8 * i));
}

/* Lengths and texts, compressed by themselves; a text's lines end in CR LF, and it in NUL. */
static void put_provide(struct rfb_session *s)
{
    struct rfb_buffer text = {0};
    uLongf size;

    rfb_put32(&text, 0);
    for (size_t i = 0; i < s->text_len; i++) {
        if (s->text[i] == '\n' && (!i || s->text[i - 1] != '\r'))
            rfb_put8(&text, '\r');
        rfb_put8(&text, (uint8_t)s->text[i]);
    }
    rfb_put8(&text, 0);
    size = compressBound(text.size);
    uint8_t *packed = text.failed ? NULL : malloc(size);
    for (unsigned i = 0; i < 4 && packed; i++)
        text.data[i] = (uint8_t)((text.size - 4) >> (24 - 8 * i));
    if (packed && compress(packed, &size, text.data, text.size) == Z_OK) {
        put_header(s, (uint32_t) - (int64_t)(4 + size));
        rfb_put32(&s->out, ACTION_PROVIDE | FORMAT_TEXT);
        rfb_put(&s->out, packed, size);
    }
    free(packed);
    rfb_buffer_free(&text);
}

void rfb_session_cut(struct rfb_session *s, const char *text, size_t len)
{
    if (s->phase != RFB_PHASE_NORMAL || len > RFB_CUT_MAX)
        return;
    free(s->text);
    s->text = malloc(len + 1);
    s->text_len = s->text ? len : 0;
    if (!s->text)
        return;
    memcpy(s->text, text, len);
    if (!s->clipboard)
        put_latin1(s);
    else if (s->clipboard_flags & ACTION_NOTIFY)
        put_action(s, ACTION_NOTIFY | FORMAT_TEXT);
    else if (s->clipboard_flags & ACTION_PROVIDE)
        put_provide(s);
}

/* ---- From the client ---- */

/* @return what was compressed, RFB_CUT_MAX at most; NULL: nonsense */
static uint8_t *unpack(const uint8_t *data, size_t size, size_t *out)
{
    uint8_t *text = malloc(RFB_CUT_MAX);
    z_stream z = {.next_in = (uint8_t *)(uintptr_t)data, .avail_in = (uInt)size};

    if (!text || inflateInit(&z) != Z_OK) {
        free(text);
        return NULL;
    }
    z.next_out = text;
    z.avail_out = RFB_CUT_MAX;
    int ret = inflate(&z, Z_SYNC_FLUSH);
    *out = RFB_CUT_MAX - z.avail_out;
    inflateEnd(&z);
    if (ret != Z_OK && ret != Z_STREAM_END && ret != Z_BUF_ERROR) {
        free(text);
        return NULL;
    }
    return text;
}

/* Give a text to the host: as UTF-8, lines ending in LF, up to a NUL. */
static void give(struct rfb_session *s, const uint8_t *text, size_t size, bool latin1)
{
    struct rfb_buffer clean = {0};

    for (size_t i = 0; i < size && text[i]; i++) {
        if (text[i] == '\r' && i + 1 < size && text[i + 1] == '\n')
            continue;
        if (latin1 && text[i] >= 0x80) {
            rfb_put8(&clean, (uint8_t)(0xc0 | text[i] >> 6));
            rfb_put8(&clean, 0x80 | (text[i] & 0x3f));
        } else {
            rfb_put8(&clean, text[i]);
        }
    }
    if (!clean.failed && s->host->cut)
        s->host->cut(s->host->opaque, (const char *)clean.data, clean.size);
    rfb_buffer_free(&clean);
}

static bool provided(struct rfb_session *s)
{
    size_t size;
    uint8_t *text = unpack(s->cut + 4, s->cut_size - 4, &size);

    if (!text)
        return false;
    uint32_t length = size >= 4 ? rfb_get32(text) : 0;
    if (length > size - 4 || size < 4)
        length = size < 4 ? 0 : (uint32_t)size - 4;
    if (length)
        give(s, text + 4, length, false);
    free(text);
    return true;
}

bool rfb_clipboard_received(struct rfb_session *s)
{
    if (!s->cut_extended) {
        give(s, s->cut, s->cut_size, true);
        return true;
    }
    uint32_t flags = rfb_get32(s->cut);
    if (flags & ACTION_CAPS) {
        s->clipboard_flags = flags;
        return true;
    }
    bool text = flags & FORMAT_TEXT;
    if (flags & ACTION_PROVIDE)
        return !text || provided(s);
    if ((flags & ACTION_NOTIFY) && text) /* it has something: we want it */
        put_action(s, ACTION_REQUEST | FORMAT_TEXT);
    else if ((flags & ACTION_REQUEST) && text && s->text)
        put_provide(s);
    else if (flags & ACTION_PEEK)
        put_action(s, ACTION_NOTIFY | (s->text ? FORMAT_TEXT : 0));
    return true;
}
