/*
 * A client's messages: how it is let in (RFC 6143, 7.1 to 7.3; VeNCrypt 0.2), what it asks for and
 * what its keys and pointer do (7.5). Every length is bounded; nonsense ends the session.
 */
#include <errno.h>
#include <gnutls/crypto.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/types.h>

#include "device/legacy/i8042.h"
#include "vmm/rfb_internal.h"

#define ENCODINGS_MAX 1024u
#define FENCE_MAX 64u
#define FENCE_REQUEST 0x80000000u
#define FENCE_KNOWN 7u /* block before, block after, sync next: all is done in order here */
#define CUT_LENGTH_MAX (1u << 24)

/* Security types. */
enum { SECURITY_NONE = 1, SECURITY_VNC = 2, SECURITY_VENCRYPT = 19 };
/* VeNCrypt's subtypes are a kind of TLS and what comes inside. */
enum { INSIDE_NONE, INSIDE_VNC, INSIDE_PLAIN };
#define SUBTYPE_TLS 257u
#define SUBTYPE_X509 260u
#define VNC_PASSWORD_MAX 8u /* characters of a password that DES takes */

static const uint8_t native_format[16] = {32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0};

/* ---- Being let in ---- */

static void security_result(struct rfb_session *s, bool ok)
{
    rfb_put32(&s->out, !ok);
    if (!ok && s->minor >= 8) {
        static const char why[] = "wrong password";
        rfb_put32(&s->out, sizeof(why) - 1);
        rfb_put(&s->out, why, sizeof(why) - 1);
    }
    s->phase = ok ? RFB_PHASE_INIT : RFB_PHASE_DENIED;
}

static void begin_none(struct rfb_session *s)
{
    if (s->minor >= 8)
        security_result(s, true);
    s->phase = RFB_PHASE_INIT;
}

static void begin_challenge(struct rfb_session *s)
{
    if (getrandom(s->challenge, sizeof(s->challenge), 0) != sizeof(s->challenge))
        s->out.failed = true;
    rfb_put(&s->out, s->challenge, sizeof(s->challenge));
    s->phase = RFB_PHASE_CHALLENGE;
}

static uint8_t security_type(const struct rfb_session *s)
{
    const struct rfb_security *c = s->host->security;

    if (c->tls != RFB_TLS_NONE)
        return SECURITY_VENCRYPT;
    return c->has_password ? SECURITY_VNC : SECURITY_NONE;
}

static void begin_security(struct rfb_session *s, unsigned type)
{
    if (type == SECURITY_VENCRYPT) {
        rfb_put16(&s->out, 2); /* version 0.2 */
        s->phase = RFB_PHASE_VENCRYPT;
    } else if (type == SECURITY_VNC) {
        begin_challenge(s);
    } else {
        begin_none(s);
    }
}

static ssize_t version(struct rfb_session *s, const uint8_t *m, size_t have)
{
    static const char old[] = "TLS is needed, which RFB 3.3 has not";
    uint8_t type = security_type(s);

    if (have < 12)
        return 0;
    if (memcmp(m, "RFB 003.", 8) || m[11] != '\n')
        return -1;
    unsigned minor = 0;
    for (unsigned i = 8; i < 11; i++)
        minor = m[i] >= '0' && m[i] <= '9' ? minor * 10 + m[i] - '0' : 0;
    s->minor = minor >= 8 ? 8 : minor == 7 ? 7 : 3;
    if (s->minor == 3 && type == SECURITY_VENCRYPT) {
        rfb_put32(&s->out, 0);
        rfb_put32(&s->out, sizeof(old) - 1);
        rfb_put(&s->out, old, sizeof(old) - 1);
        s->phase = RFB_PHASE_DENIED;
    } else if (s->minor == 3) {
        rfb_put32(&s->out, type);
        begin_security(s, type);
    } else {
        rfb_put8(&s->out, 1);
        rfb_put8(&s->out, type);
        s->phase = RFB_PHASE_SECURITY;
    }
    return 12;
}

/* The subtypes offered: TLS without a certificate or with one, and inside it nothing, or the
 * password. One that DES would cut off is asked for as text, which needs a user's name: any. */
static unsigned subtypes(const struct rfb_session *s, uint32_t list[2])
{
    const struct rfb_security *c = s->host->security;
    uint32_t base = c->tls == RFB_TLS_X509 ? SUBTYPE_X509 : SUBTYPE_TLS;
    unsigned n = 0;

    if (!c->has_password) {
        list[n++] = base + INSIDE_NONE;
        return n;
    }
    if (strlen(c->password) <= VNC_PASSWORD_MAX)
        list[n++] = base + INSIDE_VNC;
    list[n++] = base + INSIDE_PLAIN;
    return n;
}

static ssize_t vencrypt_version(struct rfb_session *s, const uint8_t *m, size_t have)
{
    uint32_t list[2];

    if (have < 2)
        return 0;
    if (m[0] != 0 || m[1] != 2) {
        rfb_put8(&s->out, 0xff);
        s->phase = RFB_PHASE_DENIED;
        return 2;
    }
    unsigned n = subtypes(s, list);
    rfb_put8(&s->out, 0);
    rfb_put8(&s->out, (uint8_t)n);
    for (unsigned i = 0; i < n; i++)
        rfb_put32(&s->out, list[i]);
    s->phase = RFB_PHASE_SUBTYPE;
    return 2;
}

static ssize_t vencrypt_subtype(struct rfb_session *s, const uint8_t *m, size_t have)
{
    uint32_t list[2];
    bool offered = false;

    if (have < 4)
        return 0;
    s->subtype = rfb_get32(m);
    for (unsigned n = subtypes(s, list); n--;)
        offered |= list[n] == s->subtype;
    rfb_put8(&s->out, offered);
    s->phase = offered ? RFB_PHASE_TLS : RFB_PHASE_DENIED;
    return 4;
}

void rfb_session_secured(struct rfb_session *s)
{
    if (s->phase != RFB_PHASE_TLS)
        return;
    switch ((s->subtype - SUBTYPE_TLS) % 3) {
    case INSIDE_NONE:
        begin_none(s);
        break;
    case INSIDE_VNC:
        begin_challenge(s);
        break;
    default:
        s->phase = RFB_PHASE_PLAIN;
    }
}

/* The challenge, each half encrypted with the password as a DES key, the bits of each byte the
 * other way round (7.2.2). */
static bool password_right(const struct rfb_session *s, const uint8_t *answer)
{
    const char *password = s->host->security->password;
    uint8_t bits[8] = {0}, iv[8] = {0}, want[16], differs = 0;
    gnutls_datum_t key = {.data = bits, .size = 8}, zero = {.data = iv, .size = 8};
    bool done = true;

    for (unsigned i = 0; i < VNC_PASSWORD_MAX && password[i]; i++)
        for (unsigned bit = 0; bit < 8; bit++)
            bits[i] |= (uint8_t)(((uint8_t)password[i] >> bit & 1) << (7 - bit));
    for (unsigned i = 0; i < 16 && done; i += 8) {
        gnutls_cipher_hd_t cipher;
        done = !gnutls_cipher_init(&cipher, GNUTLS_CIPHER_DES_CBC, &key, &zero);
        if (!done)
            break;
        done = !gnutls_cipher_encrypt2(cipher, s->challenge + i, 8, want + i, 8);
        gnutls_cipher_deinit(cipher);
    }
    explicit_bzero(bits, sizeof(bits));
    for (unsigned i = 0; i < 16 && done; i++)
        differs |= want[i] ^ answer[i];
    return done && !differs;
}

/* A user's name, which may be any, and the password, in time that does not tell what is right. */
static ssize_t plain(struct rfb_session *s, const uint8_t *m, size_t have)
{
    const char *password = s->host->security->password;
    size_t length = strlen(password);

    if (have < 8)
        return 0;
    uint32_t user = rfb_get32(m), size = rfb_get32(m + 4);
    if (user > 1024 || size > 1024)
        return -1;
    if (have < 8ul + user + size)
        return 0;
    uint8_t differs = size != length;
    for (uint32_t i = 0; i < size; i++)
        differs |= m[8 + user + i] ^ (uint8_t)password[i < length ? i : 0];
    security_result(s, !differs);
    return 8 + (ssize_t)user + (ssize_t)size;
}

static ssize_t init(struct rfb_session *s, const uint8_t *m)
{
    if (!m[0] && s->host->alone)
        s->host->alone(s->host->opaque);
    rfb_format_parse(native_format, &s->format);
    rfb_put16(&s->out, (uint16_t)s->width);
    rfb_put16(&s->out, (uint16_t)s->height);
    rfb_put(&s->out, native_format, sizeof(native_format));
    rfb_put32(&s->out, (uint32_t)strlen(s->host->name));
    rfb_put(&s->out, s->host->name, strlen(s->host->name));
    s->phase = RFB_PHASE_NORMAL;
    return 1;
}

/* ---- Keys and pointer ---- */

static void press(struct rfb_session *s, unsigned key, bool down)
{
    if (key / 8 >= sizeof(s->held))
        return;
    if (down)
        s->held[key / 8] |= (uint8_t)(1u << (key & 7));
    else
        s->held[key / 8] &= (uint8_t) ~(1u << (key & 7));
    s->host->key(s->host->opaque, key, down);
}

static bool held(const struct rfb_session *s, unsigned key)
{
    return s->held[key / 8] >> (key & 7) & 1;
}

static bool letter(uint32_t symbol)
{
    symbol |= 0x20;
    return (symbol >= 'a' && symbol <= 'z') || (symbol >= 0xe0 && symbol <= 0xfe && symbol != 0xf7);
}

/* A key goes up that is not down: what the client pressed was another one before its own modifiers
 * changed. Nothing but modifiers stays down then. */
static void release_characters(struct rfb_session *s)
{
    for (unsigned key = 2; key <= VMM_KEY_SPACE; key++)
        if (held(s, key) && key != 0x1d && key != VMM_KEY_SHIFT && key != VMM_KEY_SHIFT_RIGHT &&
            key != 0x38)
            press(s, key, false);
}

/* A symbol whose level in the guest's layout is not what the client's own keys say: the modifiers
 * are put right around it. */
static void key_event(struct rfb_session *s, bool down, uint32_t symbol)
{
    const struct rfb_host *h = s->host;
    unsigned level, key = vmm_key_of_symbol(h->keymap, symbol, &level);
    bool character = (symbol > ' ' && symbol < 0xfe00) || symbol >> 24 == 1 ||
                     (symbol >= 0xfe50 && symbol <= 0xfe93);

    if (!down && character && !(key && held(s, key))) {
        release_characters(s);
        return;
    }
    if (!key)
        return;
    if (!down || !character) {
        press(s, key, down);
        return;
    }
    bool left = held(s, VMM_KEY_SHIFT), right = held(s, VMM_KEY_SHIFT_RIGHT);
    bool shift = level & VMM_LEVEL_SHIFT, altgr = level & VMM_LEVEL_ALTGR;
    if (letter(symbol) && h->leds && h->leds(h->opaque) & 4)
        shift = !shift;
    bool add = shift && !left && !right, drop = !shift && (left || right);
    bool add_altgr = altgr && !held(s, VMM_KEY_ALTGR);
    if (add)
        h->key(h->opaque, VMM_KEY_SHIFT, true);
    if (drop && left)
        h->key(h->opaque, VMM_KEY_SHIFT, false);
    if (drop && right)
        h->key(h->opaque, VMM_KEY_SHIFT_RIGHT, false);
    if (add_altgr)
        h->key(h->opaque, VMM_KEY_ALTGR, true);
    press(s, key, true);
    if (add_altgr)
        h->key(h->opaque, VMM_KEY_ALTGR, false);
    if (drop && right)
        h->key(h->opaque, VMM_KEY_SHIFT_RIGHT, true);
    if (drop && left)
        h->key(h->opaque, VMM_KEY_SHIFT, true);
    if (add)
        h->key(h->opaque, VMM_KEY_SHIFT, false);
}

/* QEMU's extended key event: set 1, bit 7 for those after E0h. No layout is needed. */
static void extended_key_event(struct rfb_session *s, bool down, uint32_t symbol, uint32_t code)
{
    unsigned key = (code & 0x7f) | (code & 0x80 ? MULL_KEY_EXTENDED : 0);

    if (!code || code > 0xff)
        key_event(s, down, symbol);
    else
        press(s, code == 0xc6 ? MULL_KEY_PAUSE : key, down);
}

static void pointer_event(struct rfb_session *s, uint8_t mask, unsigned x, unsigned y)
{
    unsigned buttons = (mask & 1u) | (mask >> 1 & 2u) | (mask << 1 & 4u);
    uint8_t turned = mask & (uint8_t)~s->mask;
    int wheel = turned & 8 ? -1 : turned & 16 ? 1 : 0;

    s->mask = mask;
    s->host->pointer(s->host->opaque, x < s->width ? x : s->width - 1,
                     y < s->height ? y : s->height - 1, s->width, s->height, wheel, buttons);
}

/* ---- What it wants to see ---- */

static void understand(struct rfb_session *s, int32_t encoding)
{
    switch (encoding) {
    case RFB_RAW:
    case RFB_TIGHT:
    case RFB_ZRLE:
        if (s->encoding < 0)
            s->encoding = encoding;
        break;
    case RFB_DESKTOP_SIZE:
        s->resizable = true;
        break;
    case RFB_EXTENDED_DESKTOP_SIZE:
        s->extended_size = true;
        break;
    case RFB_CURSOR:
        s->cursor = true;
        break;
    case RFB_CURSOR_ALPHA:
        s->cursor_alpha = true;
        break;
    case RFB_EXTENDED_KEYS:
        s->extended_keys = true;
        break;
    case RFB_LED_STATE:
        s->leds = true;
        break;
    case RFB_FENCE:
        s->fence = true;
        break;
    case RFB_CONTINUOUS:
        s->continuous = true;
        break;
    case RFB_EXTENDED_CLIPBOARD:
        s->clipboard = true;
        break;
    default:
        if (encoding >= RFB_LEVEL_LOW && encoding <= RFB_LEVEL_LOW + 9)
            s->streams.level = (uint8_t)(encoding - RFB_LEVEL_LOW ? encoding - RFB_LEVEL_LOW : 1);
    }
}

static void put_fence(struct rfb_session *s, uint32_t flags, const uint8_t *payload, unsigned size)
{
    rfb_put32(&s->out, 248u << 24);
    rfb_put32(&s->out, flags);
    rfb_put8(&s->out, (uint8_t)size);
    rfb_put(&s->out, payload, size);
}

/* The first encoding in the list that is spoken here is the one; the rest are told what is new. */
static void set_encodings(struct rfb_session *s, const uint8_t *list, unsigned count)
{
    bool size = s->extended_size, keys = s->extended_keys, fence = s->fence;
    bool continuous = s->continuous, leds = s->leds, clipboard = s->clipboard;

    s->encoding = -1;
    s->resizable = s->extended_size = s->cursor = s->cursor_alpha = s->extended_keys = false;
    s->leds = s->fence = s->continuous = s->clipboard = false;
    for (unsigned i = 0; i < count; i++)
        understand(s, (int32_t)rfb_get32(list + 4 * i));
    if (s->encoding < 0)
        s->encoding = RFB_RAW;
    s->clipboard &= s->host->cut != NULL;
    s->cursor_sent = false;
    if (s->extended_size && !size) {
        s->tell_size = true;
        s->tell_reason = s->tell_status = 0;
    }
    s->tell_keys |= s->extended_keys && !keys;
    s->tell_leds |= s->leds && !leds;
    if (s->fence && !fence)
        put_fence(s, FENCE_REQUEST, NULL, 0);
    if (s->continuous && !continuous)
        rfb_put8(&s->out, 150); /* EndOfContinuousUpdates: they are spoken here */
    if (!s->continuous)
        s->streaming = false;
    if (s->clipboard && !clipboard)
        rfb_clipboard_begin(s);
}

static void request(struct rfb_session *s, const uint8_t *m)
{
    unsigned x = rfb_get16(m + 2), y = rfb_get16(m + 4);
    unsigned right = x + rfb_get16(m + 6), bottom = y + rfb_get16(m + 8);
    struct rfb_rect *r = &s->refresh;

    s->wants = true;
    right = right < s->width ? right : s->width;
    bottom = bottom < s->height ? bottom : s->height;
    if (m[1] || x >= right || y >= bottom)
        return;
    if (r->x >= r->right) {
        *r = (struct rfb_rect){x, y, right, bottom};
        return;
    }
    r->x = x < r->x ? x : r->x;
    r->y = y < r->y ? y : r->y;
    r->right = right > r->right ? right : r->right;
    r->bottom = bottom > r->bottom ? bottom : r->bottom;
}

static void enable_continuous(struct rfb_session *s, bool on)
{
    if (!on)
        rfb_put8(&s->out, 150);
    s->streaming = on;
}

static void set_desktop_size(struct rfb_session *s, unsigned width, unsigned height)
{
    int ret = s->host->resize ? s->host->resize(s->host->opaque, width, height) : -1;

    s->tell_size = true;
    s->tell_reason = 1; /* this client */
    /* Forwarded to the guest, out of bounds, or prohibited. */
    s->tell_status = !ret ? 4 : s->host->resize && ret == -EINVAL ? 3 : 1;
}

/* ---- Messages ---- */

static ssize_t begin_cut(struct rfb_session *s, const uint8_t *m)
{
    uint32_t size = rfb_get32(m + 4);
    bool extended = size >> 31;

    if (extended)
        size = -size;
    if (size > CUT_LENGTH_MAX || (extended && (!s->clipboard || size < 4)))
        return -1;
    if (!s->host->cut || size > RFB_CUT_MAX || !size) {
        s->skip = size;
        return 8;
    }
    s->cut = malloc(size);
    if (!s->cut)
        return -1;
    s->cut_size = size;
    s->cut_have = 0;
    s->cut_extended = extended;
    return 8;
}

static ssize_t fence(struct rfb_session *s, const uint8_t *m, size_t have)
{
    if (have < 9)
        return 0;
    if (m[8] > FENCE_MAX)
        return -1;
    if (have < 9ul + m[8])
        return 0;
    uint32_t flags = rfb_get32(m + 4);
    if (flags & FENCE_REQUEST)
        put_fence(s, flags & FENCE_KNOWN, m + 9, m[8]);
    return 9 + m[8];
}

static ssize_t desktop_size(struct rfb_session *s, const uint8_t *m, size_t have)
{
    if (have < 8 || have < 8 + 16ul * m[6])
        return 0;
    set_desktop_size(s, rfb_get16(m + 2), rfb_get16(m + 4));
    return 8 + 16 * m[6];
}

/* Bytes of each kind of message without what varies; 0: there is none. */
static unsigned message_size(uint8_t type)
{
    static const uint8_t sizes[] = {20, 0, 4, 10, 8, 6, 8};

    switch (type) {
    case 150: /* EnableContinuousUpdates */
        return 10;
    case 248: /* ClientFence */
    case 251: /* SetDesktopSize */
        return 1;
    case 255: /* QEMU's */
        return 12;
    default:
        return type < sizeof(sizes) ? sizes[type] : 0;
    }
}

/* One message of a client that has been let in. @return its bytes, 0: more has to come, -1:
 * nonsense
 */
static ssize_t message(struct rfb_session *s, const uint8_t *m, size_t have)
{
    unsigned size = message_size(m[0]);

    if (!size)
        return -1;
    if (have < size)
        return 0;
    switch (m[0]) {
    case 0:
        if (!rfb_format_parse(m + 4, &s->format))
            return -1;
        s->cursor_sent = false;
        rfb_refresh_all(s);
        break;
    case 2:
        if (rfb_get16(m + 2) > ENCODINGS_MAX)
            return -1;
        if (have < 4 + 4ul * rfb_get16(m + 2))
            return 0;
        set_encodings(s, m + 4, rfb_get16(m + 2));
        return (ssize_t)(4 + 4ul * rfb_get16(m + 2));
    case 3:
        request(s, m);
        break;
    case 4:
        key_event(s, m[1] != 0, rfb_get32(m + 4));
        break;
    case 5:
        pointer_event(s, m[1], rfb_get16(m + 2), rfb_get16(m + 4));
        break;
    case 6:
        return begin_cut(s, m);
    case 150:
        enable_continuous(s, m[1] != 0);
        break;
    case 248:
        return fence(s, m, have);
    case 251:
        return desktop_size(s, m, have);
    default:
        if (m[1] != 0)
            return -1;
        extended_key_event(s, rfb_get16(m + 2) != 0, rfb_get32(m + 4), rfb_get32(m + 8));
    }
    return size;
}

static ssize_t handle(struct rfb_session *s, const uint8_t *m, size_t have)
{
    switch (s->phase) {
    case RFB_PHASE_VERSION:
        return version(s, m, have);
    case RFB_PHASE_SECURITY:
        if (m[0] != security_type(s))
            return -1;
        begin_security(s, m[0]);
        return 1;
    case RFB_PHASE_VENCRYPT:
        return vencrypt_version(s, m, have);
    case RFB_PHASE_SUBTYPE:
        return vencrypt_subtype(s, m, have);
    case RFB_PHASE_CHALLENGE:
        if (have < 16)
            return 0;
        security_result(s, password_right(s, m));
        return 16;
    case RFB_PHASE_PLAIN:
        return plain(s, m, have);
    case RFB_PHASE_INIT:
        return init(s, m);
    case RFB_PHASE_NORMAL:
        return message(s, m, have);
    default: /* before TLS is there and after a wrong password there is nothing to be said */
        return -1;
    }
}

/* What is not looked at, or collected. @return the bytes of it */
static size_t bulk(struct rfb_session *s, const uint8_t *data, size_t size)
{
    if (s->skip) {
        size_t part = size < s->skip ? size : (size_t)s->skip;
        s->skip -= part;
        return part;
    }
    if (!s->cut)
        return 0;
    size_t left = s->cut_size - s->cut_have, part = size < left ? size : left;
    memcpy(s->cut + s->cut_have, data, part);
    s->cut_have += part;
    if (s->cut_have == s->cut_size) {
        if (!rfb_clipboard_received(s))
            s->phase = RFB_PHASE_OVER;
        free(s->cut);
        s->cut = NULL;
    }
    return part;
}

/* Handle what is there. @return the bytes used */
static size_t consume(struct rfb_session *s, const uint8_t *data, size_t size)
{
    size_t at = 0;

    while (at < size && s->phase != RFB_PHASE_OVER && s->phase != RFB_PHASE_DENIED) {
        size_t part = bulk(s, data + at, size - at);
        at += part;
        if (part)
            continue;
        ssize_t used = handle(s, data + at, size - at);
        if (used < 0)
            s->phase = RFB_PHASE_OVER;
        if (used <= 0)
            break;
        at += (size_t)used;
    }
    return at;
}

void rfb_session_input(struct rfb_session *s, const uint8_t *data, size_t size)
{
    while (size && s->phase != RFB_PHASE_OVER) {
        size_t part = sizeof(s->in) - s->have < size ? sizeof(s->in) - s->have : size;
        memcpy(s->in + s->have, data, part);
        data += part;
        size -= part;
        s->have += part;
        size_t used = consume(s, s->in, s->have);
        if (s->phase == RFB_PHASE_DENIED)
            return;
        s->have -= used;
        memmove(s->in, s->in + used, s->have);
        if (s->have == sizeof(s->in))
            s->phase = RFB_PHASE_OVER; /* no message is that long */
    }
    if (s->out.failed)
        s->phase = RFB_PHASE_OVER;
}

/* ---- Life ---- */

struct rfb_session *rfb_session_create(const struct rfb_host *host, unsigned width, unsigned height)
{
    struct rfb_session *s = calloc(1, sizeof(*s));

    if (!s)
        return NULL;
    s->host = host;
    if (!rfb_set_size(s, width, height)) {
        free(s);
        return NULL;
    }
    rfb_put(&s->out, "RFB 003.008\n", 12);
    return s;
}

void rfb_session_free(struct rfb_session *s)
{
    if (!s)
        return;
    for (unsigned key = 0; key < 8 * sizeof(s->held); key++)
        if (held(s, key))
            s->host->key(s->host->opaque, key, false);
    rfb_streams_free(&s->streams);
    rfb_buffer_free(&s->out);
    free(s->cut);
    free(s->text);
    free(s->shown);
    free(s);
}

enum rfb_state rfb_session_state(const struct rfb_session *s)
{
    if (s->out.failed)
        return RFB_OVER;
    switch (s->phase) {
    case RFB_PHASE_TLS:
        return RFB_WANTS_TLS;
    case RFB_PHASE_NORMAL:
        return RFB_SERVED;
    case RFB_PHASE_DENIED:
        return RFB_DENIED;
    case RFB_PHASE_OVER:
        return RFB_OVER;
    default:
        return RFB_GREETING;
    }
}

struct rfb_buffer *rfb_session_out(struct rfb_session *s)
{
    return &s->out;
}
