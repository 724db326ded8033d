/* The display server's sessions: how clients are let in, encodings (decoded again), keys in
 * layouts, the clipboard, and nonsense. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <gnutls/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/rfb_session.h"

#define WIDTH 150u
#define HEIGHT 70u

static struct rfb_security security;
static struct rfb_host host;
static struct rfb_session *session;
static char keys[4096], clipboard[256];
static unsigned lights, pointer[6], resized[2];
static struct rfb_streams inflated;

static void on_key(void *opaque, unsigned key, bool down)
{
    size_t len = strlen(keys);
    snprintf(keys + len, sizeof(keys) - len, "%c%x ", down ? '+' : '-', key);
}

static void on_pointer(void *opaque, unsigned x, unsigned y, unsigned width, unsigned height,
                       int wheel, unsigned buttons)
{
    const unsigned now[6] = {x, y, width, height, (unsigned)wheel, buttons};
    memcpy(pointer, now, sizeof(now));
}

static unsigned on_leds(void *opaque)
{
    return lights;
}

static int on_resize(void *opaque, unsigned width, unsigned height)
{
    resized[0] = width;
    resized[1] = height;
    return width > 2000 ? -EINVAL : 0;
}

static void on_cut(void *opaque, const char *text, size_t len)
{
    snprintf(clipboard, sizeof(clipboard), "%.*s", (int)len, text);
}

static int setup(void **state)
{
    memset(&security, 0, sizeof(security));
    host = (struct rfb_host){.name = "test",
                             .security = &security,
                             .keymap = vmm_keymap_find("us"),
                             .key = on_key,
                             .pointer = on_pointer,
                             .leds = on_leds,
                             .resize = on_resize,
                             .cut = on_cut};
    *keys = *clipboard = '\0';
    lights = 0;
    session = NULL;
    return 0;
}

static int teardown(void **state)
{
    rfb_session_free(session);
    for (unsigned i = 0; i < 5; i++)
        if (inflated.live >> i & 1)
            inflateEnd(i ? &inflated.tight[i - 1] : &inflated.zrle);
    memset(&inflated, 0, sizeof(inflated));
    return 0;
}

static void in(const void *data, size_t size)
{
    rfb_session_input(session, data, size);
}

#define IN(...)                                                                                    \
    do {                                                                                           \
        const uint8_t bytes_[] = {__VA_ARGS__};                                                    \
        in(bytes_, sizeof(bytes_));                                                                \
    } while (0)

/* Everything that is to be sent, to be freed. */
static struct rfb_buffer take(void)
{
    struct rfb_buffer *out = rfb_session_out(session), copy = *out;
    assert_false(out->failed);
    *out = (struct rfb_buffer){0};
    return copy;
}

static void expect_out(const void *data, size_t size)
{
    struct rfb_buffer out = take();
    assert_int_equal(out.size, size);
    assert_memory_equal(out.data, data, size);
    free(out.data);
}

static void drop_out(void)
{
    struct rfb_buffer out = take();
    free(out.data);
}

static void greet(void)
{
    session = rfb_session_create(&host, WIDTH, HEIGHT);
    assert_non_null(session);
    expect_out("RFB 003.008\n", 12);
    in("RFB 003.008\n", 12);
}

static void let_in(void)
{
    greet();
    expect_out("\1\1", 2);
    IN(1);
    expect_out("\0\0\0\0", 4);
    IN(1);
    assert_int_equal(rfb_session_state(session), RFB_SERVED);
    struct rfb_buffer out = take();
    assert_int_equal(out.size, 24 + 4);
    assert_memory_equal(out.data, "\0\x96\0\x46", 4);
    assert_memory_equal(out.data + 24, "test", 4);
    free(out.data);
}

/* ---- Being let in ---- */

static void answer(const char *password, const uint8_t *challenge, uint8_t out[16])
{
    uint8_t bits[8] = {0}, iv[8] = {0};
    gnutls_datum_t key = {.data = bits, .size = 8}, zero = {.data = iv, .size = 8};
    for (unsigned i = 0; i < 8 && password[i]; i++)
        for (unsigned bit = 0; bit < 8; bit++)
            bits[i] |= (uint8_t)((password[i] >> bit & 1) << (7 - bit));
    for (unsigned i = 0; i < 16; i += 8) {
        gnutls_cipher_hd_t cipher;
        assert_int_equal(gnutls_cipher_init(&cipher, GNUTLS_CIPHER_DES_CBC, &key, &zero), 0);
        gnutls_cipher_encrypt2(cipher, challenge + i, 8, out + i, 8);
        gnutls_cipher_deinit(cipher);
    }
}

static void test_password(void **state)
{
    uint8_t reply[16];

    security.has_password = true;
    strcpy(security.password, "secret1");
    for (unsigned wrong = 0; wrong < 2; wrong++) {
        greet();
        expect_out("\1\2", 2); /* and no way without */
        IN(2);
        struct rfb_buffer out = take();
        assert_int_equal(out.size, 16);
        answer(wrong ? "secret2" : "secret1", out.data, reply);
        free(out.data);
        in(reply, 16);
        if (wrong) {
            assert_int_equal(rfb_session_state(session), RFB_DENIED);
            expect_out("\0\0\0\1\0\0\0\16wrong password", 22);
            IN(1); /* nothing is listened to any more */
            assert_int_not_equal(rfb_session_state(session), RFB_SERVED);
        } else {
            expect_out("\0\0\0\0", 4);
            rfb_session_free(session);
            session = NULL;
        }
    }
    rfb_session_free(session);
    greet();
    drop_out();
    IN(1); /* not offered */
    assert_int_equal(rfb_session_state(session), RFB_OVER);
}

static void begin_tls(const void *subtypes, size_t size, uint8_t chosen)
{
    greet();
    expect_out("\1\x13", 2);
    IN(19);
    expect_out("\0\2", 2);
    IN(0, 2);
    expect_out(subtypes, size);
    IN(0, 0, 1, chosen);
    expect_out("\1", 1);
    assert_int_equal(rfb_session_state(session), RFB_WANTS_TLS);
    rfb_session_secured(session);
}

static void test_vencrypt(void **state)
{
    security.tls = RFB_TLS_X509;
    begin_tls("\0\1\0\0\1\4", 6, 4); /* X509None */
    expect_out("\0\0\0\0", 4);
    rfb_session_free(session);
    security.has_password = true;
    strcpy(security.password, "short");
    begin_tls("\0\2\0\0\1\5\0\0\1\6", 10, 5); /* X509Vnc, X509Plain */
    struct rfb_buffer out = take();
    assert_int_equal(out.size, 16);
    free(out.data);
    rfb_session_free(session);
    security.tls = RFB_TLS_ANONYMOUS;
    strcpy(security.password, "longer than DES takes");
    begin_tls("\0\1\0\0\1\3", 6, 3); /* TLSPlain */
    IN(0, 0, 0, 1, 0, 0, 0, 21, 'u');
    in("longer than DES takes", 21);
    expect_out("\0\0\0\0", 4);
    rfb_session_free(session);
    begin_tls("\0\1\0\0\1\3", 6, 3);
    IN(0, 0, 0, 0, 0, 0, 0, 8);
    in("longer t", 8);
    assert_int_equal(rfb_session_state(session), RFB_DENIED);
    rfb_session_free(session);
    /* What comes before TLS is there is not believed. */
    greet();
    drop_out();
    IN(19, 0, 2, 0, 0, 1, 3, 0, 0, 0, 0);
    assert_int_equal(rfb_session_state(session), RFB_OVER);
    rfb_session_free(session);
    /* RFB 3.3 and a subtype that is not offered. */
    session = rfb_session_create(&host, WIDTH, HEIGHT);
    in("RFB 003.003\n", 12);
    assert_int_equal(rfb_session_state(session), RFB_DENIED);
    rfb_session_free(session);
    greet();
    IN(19, 0, 2, 0, 0, 1, 0);
    assert_int_equal(rfb_session_state(session), RFB_DENIED);
}

/* ---- Encodings ---- */

struct reader {
    const uint8_t *at, *end;
};

static const uint8_t *get(struct reader *r, size_t n)
{
    assert_true((size_t)(r->end - r->at) >= n);
    r->at += n;
    return r->at - n;
}

static unsigned get16(struct reader *r)
{
    const uint8_t *b = get(r, 2);
    return (unsigned)b[0] << 8 | b[1];
}

static uint32_t get32(struct reader *r)
{
    unsigned high = get16(r);
    return (uint32_t)high << 16 | get16(r);
}

static void unpack(unsigned index, const uint8_t *data, size_t size, uint8_t *to, size_t want)
{
    z_stream *z = index ? &inflated.tight[index - 1] : &inflated.zrle;
    if (!(inflated.live >> index & 1))
        assert_int_equal(inflateInit(z), Z_OK);
    inflated.live |= (uint8_t)(1u << index);
    z->next_in = (uint8_t *)(uintptr_t)data;
    z->avail_in = (uInt)size;
    z->next_out = to;
    z->avail_out = (uInt)want;
    int ret = inflate(z, Z_SYNC_FLUSH);
    assert_true(ret == Z_OK || ret == Z_BUF_ERROR);
    assert_int_equal(z->avail_out, 0);
    assert_int_equal(z->avail_in, 0);
}

/* Tight's data: short ones are as they are. */
static void tight_data(struct reader *r, unsigned index, uint8_t *to, size_t want)
{
    if (want < 12) {
        memcpy(to, get(r, want), want);
        return;
    }
    size_t size = *get(r, 1);
    if (size & 0x80)
        size = (size & 0x7f) | (size_t)*get(r, 1) << 7;
    if (size & 0x4000)
        size = (size & 0x3fff) | (size_t)*get(r, 1) << 14;
    unpack(index + 1, get(r, size), size, to, want);
}

static uint32_t rgb(const uint8_t *b)
{
    return (uint32_t)b[0] << 16 | (uint32_t)b[1] << 8 | b[2];
}

/* One rectangle of 32 bits a pixel. */
static void tight_rect(struct reader *r, uint32_t *to, unsigned width, unsigned height)
{
    uint8_t control = *get(r, 1);
    size_t count = (size_t)width * height;
    if (control == 0x80) {
        uint32_t colour = rgb(get(r, 3));
        for (size_t i = 0; i < count; i++)
            to[i] = colour;
        return;
    }
    assert_int_equal(control & 0x8f, 0);
    uint8_t *data = malloc(3 * count + 1);
    if (control & 0x40) {
        assert_int_equal(*get(r, 1), 1);
        unsigned n = *get(r, 1) + 1u;
        const uint8_t *palette = get(r, 3 * n);
        size_t line = n == 2 ? (width + 7) / 8 : width;
        tight_data(r, control >> 4 & 3, data, line * height);
        for (size_t i = 0; i < count; i++) {
            const uint8_t *row = data + i / width * line;
            unsigned x = (unsigned)(i % width);
            unsigned index = n == 2 ? row[x / 8] >> (7 - x % 8) & 1 : row[x];
            assert_true(index < n);
            to[i] = rgb(palette + 3 * index);
        }
    } else {
        tight_data(r, control >> 4 & 3, data, 3 * count);
        for (size_t i = 0; i < count; i++)
            to[i] = rgb(data + 3 * i);
    }
    free(data);
}

static void cpixels(struct reader *r, uint32_t *to, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        const uint8_t *b = get(r, 3);
        to[i] = (uint32_t)b[2] << 16 | (uint32_t)b[1] << 8 | b[0];
    }
}

static void zrle_tile(struct reader *r, uint32_t *to, unsigned stride, unsigned w, unsigned h)
{
    unsigned kind = *get(r, 1);
    uint32_t palette[16], row[64];
    if (!kind) {
        for (unsigned y = 0; y < h; y++)
            cpixels(r, to + (size_t)y * stride, w);
        return;
    }
    assert_true(kind <= 16);
    cpixels(r, palette, kind);
    unsigned bits = kind == 1 ? 0 : kind == 2 ? 1 : kind <= 4 ? 2 : 4;
    for (unsigned y = 0; y < h; y++) {
        const uint8_t *line = get(r, (w * bits + 7) / 8);
        for (unsigned x = 0; x < w; x++)
            row[x] =
                palette[bits ? line[x * bits / 8] >> (8 - bits - x * bits % 8) & ((1u << bits) - 1)
                             : 0];
        memcpy(to + (size_t)y * stride, row, w * sizeof(*to));
    }
}

static void zrle_rect(struct reader *r, uint32_t *to, unsigned width, unsigned height)
{
    size_t size = get32(r), room = (size_t)width * height * 3 + 1024, used;
    uint8_t *data = malloc(room);
    if (!(inflated.live & 1))
        assert_int_equal(inflateInit(&inflated.zrle), Z_OK);
    inflated.live |= 1;
    inflated.zrle.next_in = (uint8_t *)(uintptr_t)get(r, size);
    inflated.zrle.avail_in = (uInt)size;
    inflated.zrle.next_out = data;
    inflated.zrle.avail_out = (uInt)room;
    assert_int_equal(inflate(&inflated.zrle, Z_SYNC_FLUSH), Z_OK);
    used = room - inflated.zrle.avail_out;
    struct reader tiles = {data, data + used};
    for (unsigned y = 0; y < height; y += 64)
        for (unsigned x = 0; x < width; x += 64)
            zrle_tile(&tiles, to + (size_t)y * width + x, width, width - x < 64 ? width - x : 64,
                      height - y < 64 ? height - y : 64);
    assert_ptr_equal(tiles.at, tiles.end);
    free(data);
}

static void raw_rect(struct reader *r, uint32_t *to, unsigned width, unsigned height)
{
    memcpy(to, get(r, 4ul * width * height), 4ul * width * height);
}

/* Put an update into a picture. @return how many rectangles of pixels there were */
static unsigned decode(uint32_t *picture, unsigned stride, int32_t want)
{
    struct rfb_buffer out = take();
    struct reader r = {out.data, out.data + out.size};
    unsigned pixels = 0;
    assert_int_equal(get16(&r), 0);
    for (unsigned count = get16(&r); count; count--) {
        unsigned x = get16(&r), y = get16(&r), width = get16(&r), height = get16(&r);
        int32_t encoding = (int32_t)get32(&r);
        assert_int_equal(encoding, want);
        uint32_t *part = malloc(4ul * width * height);
        if (encoding == RFB_TIGHT)
            tight_rect(&r, part, width, height);
        else if (encoding == RFB_ZRLE)
            zrle_rect(&r, part, width, height);
        else
            raw_rect(&r, part, width, height);
        for (unsigned row = 0; row < height; row++)
            memcpy(picture + (size_t)(y + row) * stride + x, part + (size_t)row * width,
                   4ul * width);
        free(part);
        pixels++;
    }
    assert_ptr_equal(r.at, r.end);
    free(out.data);
    return pixels;
}

/* Pictures that need each way to encode: one colour, two, some, many. */
static void paint(uint32_t *picture, unsigned kind)
{
    for (unsigned i = 0; i < WIDTH * HEIGHT; i++)
        picture[i] = kind == 0   ? 0x123456
                     : kind == 1 ? (i * 7 / 5 & 1 ? 0xffffff : 0x0000aa)
                     : kind == 2 ? (i * 13 % 11) * 0x10203
                     : kind == 3 ? (i * 13 % 200) * 0x10203
                                 : i * 0x9e3779b1u >> 8;
}

static void ask(bool incremental)
{
    IN(3, incremental, 0, 0, 0, 0, 0, WIDTH, 0, HEIGHT);
}

static void test_encodings(void **state)
{
    static const int32_t encodings[] = {RFB_RAW, RFB_ZRLE, RFB_TIGHT};
    uint32_t picture[WIDTH * HEIGHT], seen[WIDTH * HEIGHT];

    for (unsigned e = 0; e < 3; e++) {
        struct rfb_picture now = {.pixels = picture, .width = WIDTH, .height = HEIGHT};
        let_in();
        IN(2, 0, 0, 2, 0, 0, 0, (uint8_t)encodings[e], 0xff, 0xff, 0xff, 0x06); /* level 6 */
        memset(seen, 0, sizeof(seen));
        ask(false);
        for (unsigned kind = 0; kind < 10; kind++) {
            paint(picture, kind % 5);
            now.changes++;
            assert_true(rfb_session_waits(session));
            rfb_session_update(session, &now);
            assert_false(rfb_session_waits(session));
            assert_true(decode(seen, WIDTH, encodings[e]) > 0);
            assert_memory_equal(seen, picture, sizeof(seen));
            ask(true);
        }
        /* One pixel: one tile and no more. Nothing: nothing. */
        now.changes++;
        rfb_session_update(session, &now);
        assert_int_equal(rfb_session_out(session)->size, 0);
        picture[WIDTH * 40 + 100] ^= 1;
        now.changes++;
        rfb_session_update(session, &now);
        assert_int_equal(decode(seen, WIDTH, encodings[e]), 1);
        assert_memory_equal(seen, picture, sizeof(seen));
        teardown(NULL);
        session = NULL;
    }
}

static void test_formats(void **state)
{
    uint32_t picture[WIDTH * HEIGHT];
    struct rfb_picture now = {.pixels = picture, .width = WIDTH, .height = HEIGHT};

    let_in();
    for (unsigned i = 0; i < WIDTH * HEIGHT; i++)
        picture[i] = 0xf81408;
    IN(0, 0, 0, 0, 16, 16, 1, 1, 0, 31, 0, 63, 0, 31, 11, 5, 0, 0, 0, 0); /* 5:6:5, big-endian */
    IN(2, 0, 0, 1, 0, 0, 0, RFB_TIGHT);
    ask(false);
    rfb_session_update(session, &now);
    struct rfb_buffer out = take();
    static const uint8_t want[] = {0, 0, 0, 3, 0, 0, 0, 0, 0, WIDTH, 0, 32, 0, 0, 0, 7, 0x80};
    assert_memory_equal(out.data, want, sizeof(want));
    assert_int_equal(out.data[17] << 8 | out.data[18], 30 << 11 | 4 << 5 | 0);
    free(out.data);
    IN(0, 0, 0, 0, 24, 24); /* no such pixels */
    for (unsigned i = 0; i < 14; i++)
        IN(0);
    assert_int_equal(rfb_session_state(session), RFB_OVER);
}

/* ---- Sizes, cursor, extensions ---- */

static void test_extensions(void **state)
{
    static uint32_t picture[400 * 300];
    struct rfb_picture now = {.pixels = picture, .width = WIDTH, .height = HEIGHT, .changes = 1};
    struct mull_cursor cursor = {.serial = 1,
                                 .visible = true,
                                 .width = 2,
                                 .height = 1,
                                 .hot_x = 1,
                                 .x = 5,
                                 .y = 5,
                                 .pixels = {0xff102030, 0x7f405060}};

    let_in();
    IN(2, 0, 0, 6, 0xff, 0xff, 0xfe, 0xcc, 0xff, 0xff, 0xfe, 0xc8, 0xff, 0xff, 0xfe, 0xc7, 0xff,
       0xff, 0xfe, 0xfe, 0xff, 0xff, 0xff, 0x11, 0xff, 0xff, 0xfe, 0xfb);
    /* A fence to be answered, and the end of continuous updates: both are spoken. */
    expect_out("\xf8\0\0\0\x80\0\0\0\0\x96", 10);
    IN(248, 0, 0, 0, 0x80, 0, 0, 0xff, 3, 'a', 'b', 'c');
    expect_out("\xf8\0\0\0\0\0\0\7\3abc", 12);
    now.cursor = &cursor;
    ask(false);
    rfb_session_update(session, &now);
    struct rfb_buffer out = take();
    /* Size, keys, lights, cursor with its mask, pixels. */
    static const uint8_t head[] = {
        0,    0,     0,    7,      0,    0,    0,    0,    0,    WIDTH, 0,    HEIGHT, 0xff, 0xff,
        0xfe, 0xcc,  1,    0,      0,    0,    0,    0,    0,    1,     0,    0,      0,    0,
        0,    WIDTH, 0,    HEIGHT, 0,    0,    0,    0,    0,    0,     0,    0,      0,    0,
        0,    0,     0xff, 0xff,   0xfe, 0xfe, 0,    0,    0,    0,     0,    0,      0,    0,
        0xff, 0xff,  0xfe, 0xfb,   0,    0,    1,    0,    0,    0,     2,    0,      1,    0xff,
        0xff, 0xff,  0x11, 0x30,   0x20, 0x10, 0xff, 0x60, 0x50, 0x40,  0x7f, 0x80};
    assert_true(out.size > sizeof(head));
    for (unsigned i = 0; i < sizeof(head); i++)
        if (i != 76 && i != 80) /* a fourth byte that means nothing */
            assert_int_equal(out.data[i], head[i]);
    free(out.data);
    /* Unasked updates, and a new size. */
    IN(150, 1, 0, 0, 0, 0, 0, WIDTH, 0, HEIGHT);
    now.width = 400;
    now.height = 300;
    now.changes++;
    rfb_session_update(session, &now);
    out = take();
    assert_memory_equal(out.data + 8, "\1\x90\1\x2c\xff\xff\xfe\xcc", 8);
    free(out.data);
    assert_true(rfb_session_waits(session));
    IN(150, 0, 0, 0, 0, 0, 0, WIDTH, 0, HEIGHT);
    expect_out("\x96", 1);
    assert_false(rfb_session_waits(session));
    /* The client asks for a size: forwarded; one out of bounds: refused. */
    IN(251, 0, 2, 0, 1, 0x80, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 2, 0, 1, 0x80, 0, 0, 0, 0);
    assert_int_equal(resized[0], 512);
    assert_int_equal(resized[1], 384);
    ask(true);
    rfb_session_update(session, &now);
    out = take();
    assert_memory_equal(out.data, "\0\0\0\1\0\1\0\4", 8);
    free(out.data);
    IN(251, 0, 0xff, 0, 1, 0x80, 0, 0);
    ask(true);
    rfb_session_update(session, &now);
    out = take();
    assert_memory_equal(out.data, "\0\0\0\1\0\1\0\3", 8);
    free(out.data);
}

/* A client that cannot draw the pointer gets it in the picture; one without resizing a cut. */
static void test_simple_client(void **state)
{
    static uint32_t picture[400 * 300], seen[WIDTH * HEIGHT];
    struct rfb_picture now = {.pixels = picture, .width = 400, .height = 300, .changes = 1};
    struct mull_cursor cursor = {.serial = 1,
                                 .visible = true,
                                 .width = 1,
                                 .height = 1,
                                 .x = 5,
                                 .y = 6,
                                 .pixels = {0xff102030}};

    let_in();
    now.cursor = &cursor;
    picture[400 * 7 + 3] = 0x777777;
    ask(false);
    rfb_session_update(session, &now);
    decode(seen, WIDTH, RFB_RAW);
    assert_int_equal(seen[6 * WIDTH + 5], 0x102030);
    assert_int_equal(seen[7 * WIDTH + 3], 0x777777);
    IN(5, 1 | 4, 0, 200, 0, 10); /* beyond its picture */
    assert_int_equal(pointer[0], WIDTH - 1);
    assert_int_equal(pointer[1], 10);
    assert_int_equal(pointer[2], WIDTH);
    assert_int_equal(pointer[5], 3);
    IN(5, 16, 0, 1, 0, 1);
    assert_int_equal(pointer[4], 1);
    IN(5, 16, 0, 2, 0, 1); /* moved with the wheel as it was */
    assert_int_equal(pointer[4], 0);
}

/* ---- Keys ---- */

static void key(bool down, uint32_t symbol)
{
    IN(4, down, 0, 0, (uint8_t)(symbol >> 24), (uint8_t)(symbol >> 16), (uint8_t)(symbol >> 8),
       (uint8_t)symbol);
}

static void expect_keys(const char *what)
{
    assert_string_equal(keys, what);
    *keys = '\0';
}

static void test_keys(void **state)
{
    let_in();
    key(true, 'a');
    key(false, 'a');
    expect_keys("+1e -1e ");
    key(true, 'A'); /* nobody holds a shift key */
    key(false, 'A');
    expect_keys("+2a +1e -2a -1e ");
    key(true, 0xffe1);
    key(true, '?');
    key(false, '?');
    key(true, '7'); /* the client's layout has it with shift: a French one */
    key(false, '7');
    key(false, 0xffe1);
    expect_keys("+2a +35 -35 -2a +8 +2a -8 -2a ");
    lights = 4; /* caps lock */
    key(true, 'a');
    key(false, 'a');
    expect_keys("+2a +1e -2a -1e ");
    lights = 0;
    key(true, 0xff0d);
    key(true, 0xffe3);
    key(true, 0x12345678);
    expect_keys("+1c +1d ");
    rfb_session_free(session); /* whoever goes lets go */
    session = NULL;
    expect_keys("-1c -1d ");
    host.keymap = vmm_keymap_find("de");
    let_in();
    key(true, '@');
    key(false, '@');
    key(true, 'z');
    key(false, 'z');
    key(true, 0xdf); /* sharp s */
    key(false, 0xdf);
    key(true, 0x20ac); /* euro */
    key(false, 0x20ac);
    expect_keys("+138 +10 -138 -10 +15 -15 +c -c +138 +12 -138 -12 ");
    /* By place: 'y' of whatever layout. */
    IN(255, 0, 0, 1, 0, 0, 0, 'y', 0, 0, 0, 0x15);
    IN(255, 0, 0, 0, 0, 0, 0, 'y', 0, 0, 0, 0x15);
    IN(255, 0, 0, 1, 0, 0, 0xff, 0x51, 0, 0, 0, 0xcb);
    IN(255, 0, 0, 0, 0, 0, 0xff, 0x51, 0, 0, 0, 0xcb);
    expect_keys("+15 -15 +14b -14b ");
    host.keymap = vmm_keymap_find("ru");
    key(true, 0x6c1); /* Cyrillic a */
    key(false, 0x6c1);
    key(true, 'f'); /* on the Latin layout behind it */
    key(false, 'f');
    expect_keys("+21 -21 +21 -21 ");
    assert_null(vmm_keymap_find("klingon"));
    unsigned level;
    assert_int_equal(vmm_key_of_character(vmm_keymap_find("fr"), '1', &level), 2);
    assert_int_equal(level, VMM_LEVEL_SHIFT);
    assert_int_equal(vmm_key_of_character(vmm_keymap_find("us"), 0xe9, &level), 0);
    for (unsigned i = 0; vmm_keymap_name(i); i++) {
        const struct vmm_keymap *map = vmm_keymap_find(vmm_keymap_name(i));
        assert_true(vmm_key_of_symbol(map, 'a', &level));
        assert_true(vmm_key_of_symbol(map, '/', &level));
    }
}

/* ---- Clipboard ---- */

static void test_clipboard(void **state)
{
    static const char text[] = "gr\xc3\xbc\xc3\x9f\nGott";

    let_in();
    IN(6, 0, 0, 0, 0, 0, 0, 4, 'a', 0xfc, '\r', '\n');
    assert_string_equal(clipboard, "a\xc3\xbc\n");
    rfb_session_cut(session, text, strlen(text));
    expect_out("\3\0\0\0\0\0\0\11gr\xfc\xdf\nGott", 17);
    /* Extended: capabilities, notify, request, provide, and back again. */
    IN(2, 0, 0, 1, 0xc0, 0xa1, 0xe5, 0xce);
    expect_out("\3\0\0\0\xff\xff\xff\xf8\x1f\0\0\1\0\x10\0\0", 16);
    rfb_session_cut(session, text, strlen(text));
    expect_out("\3\0\0\0\xff\xff\xff\xfc\x08\0\0\1", 12);
    IN(6, 0, 0, 0, 0xff, 0xff, 0xff, 0xfc, 2, 0, 0, 1);
    struct rfb_buffer out = take();
    assert_memory_equal(out.data + 8, "\x10\0\0\1", 4);
    /* What was sent, sent back. */
    out.data[0] = 6;
    *clipboard = '\0';
    in(out.data, out.size);
    assert_string_equal(clipboard, text);
    free(out.data);
    IN(6, 0, 0, 0, 0xff, 0xff, 0xff, 0xfc, 8, 0, 0, 1);
    expect_out("\3\0\0\0\xff\xff\xff\xfc\x02\0\0\1", 12);
    IN(6, 0, 0, 0, 0xff, 0xff, 0xff, 0xf8, 0x10, 0, 0, 1, 'j', 'u', 'n', 'k');
    assert_int_equal(rfb_session_state(session), RFB_OVER);
}

/* ---- Nonsense ---- */

static void test_nonsense(void **state)
{
    static const struct {
        uint8_t bytes[24];
        unsigned size;
    } bad[] = {
        {{1}, 1},                                        /* no such message */
        {{2, 0, 0xff, 0xff}, 4},                         /* too many encodings */
        {{6, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff}, 8},       /* a clipboard of 2 GiB */
        {{6, 0, 0, 0, 0xff, 0xff, 0xff, 0xfe, 0, 0}, 8}, /* one that is not spoken */
        {{6, 0, 0, 0, 0x80, 0, 0, 0}, 8},
        {{248, 0, 0, 0, 0, 0, 0, 0, 65}, 9},
        {{255, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 12},
    };
    uint8_t noise[10000];

    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        let_in();
        in(bad[i].bytes, bad[i].size);
        assert_int_equal(rfb_session_state(session), RFB_OVER);
        rfb_session_free(session);
    }
    /* A large clipboard is not looked at, and what comes after it is. */
    let_in();
    IN(6, 0, 0, 0, 0, 0xff, 0, 0);
    memset(noise, 0xff, sizeof(noise));
    for (unsigned left = 0xff0000; left; left -= left < 10000 ? left : 10000)
        in(noise, left < 10000 ? left : 10000);
    key(true, 'a');
    expect_keys("+1e ");
    /* Requests beyond the picture, byte by byte. */
    static const uint8_t huge[] = {3, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    for (unsigned i = 0; i < sizeof(huge); i++)
        in(huge + i, 1);
    assert_true(rfb_session_waits(session));
    /* Fences that nobody fetches the answers of: bounded. */
    for (unsigned i = 0; i < 2000000 && rfb_session_state(session) == RFB_SERVED; i++)
        IN(248, 0, 0, 0, 0x80, 0, 0, 0, 40, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
           0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
    assert_int_equal(rfb_session_state(session), RFB_OVER);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_password), T(test_vencrypt),   T(test_encodings),
        T(test_formats),  T(test_extensions), T(test_simple_client),
        T(test_keys),     T(test_clipboard),  T(test_nonsense),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
