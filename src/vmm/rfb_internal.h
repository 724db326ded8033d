/*
 * The inside of a client's session, shared by rfb_session.c (messages), rfb_update.c (pictures) and
 * rfb_clipboard.c.
 */
#ifndef MULL_VMM_RFB_INTERNAL_H
#define MULL_VMM_RFB_INTERNAL_H

#include "vmm/rfb_session.h"

/* Pseudo-encodings (RFC 6143, 7.8; the RFB community's registry). */
#define RFB_DESKTOP_SIZE -223
#define RFB_CURSOR -239
#define RFB_LEVEL_LOW -256 /* Tight's compression levels, to -247 */
#define RFB_EXTENDED_KEYS -258
#define RFB_LED_STATE -261
#define RFB_EXTENDED_DESKTOP_SIZE -308
#define RFB_FENCE -312
#define RFB_CONTINUOUS -313
#define RFB_CURSOR_ALPHA -314
#define RFB_EXTENDED_CLIPBOARD ((int32_t)0xc0a1e5ce)

#define RFB_SCREEN_ID 1u

enum rfb_phase {
    RFB_PHASE_VERSION,
    RFB_PHASE_SECURITY,
    RFB_PHASE_VENCRYPT,
    RFB_PHASE_SUBTYPE,
    RFB_PHASE_TLS,
    RFB_PHASE_CHALLENGE,
    RFB_PHASE_PLAIN,
    RFB_PHASE_INIT,
    RFB_PHASE_NORMAL,
    RFB_PHASE_DENIED,
    RFB_PHASE_OVER,
};

struct rfb_rect {
    unsigned x, y, right, bottom;
};

struct rfb_session {
    const struct rfb_host *host;
    enum rfb_phase phase;
    unsigned minor; /* of the protocol's version */
    uint32_t subtype;
    uint8_t challenge[16];
    uint8_t in[8192];
    size_t have;
    uint64_t skip; /* bytes of a message that are not looked at */
    uint8_t *cut;  /* a clipboard that is coming, cut_size bytes of which cut_have are here */
    size_t cut_size, cut_have;
    bool cut_extended;
    struct rfb_buffer out;
    struct rfb_format format;
    struct rfb_streams streams;
    /* What it understands. */
    int32_t encoding;
    bool resizable, extended_size, cursor, cursor_alpha, extended_keys, leds, fence, continuous;
    bool clipboard;
    /* What it has to be told with the next update. */
    bool tell_size, tell_keys, tell_leds;
    unsigned tell_reason, tell_status;
    bool wants;              /* an update was asked for */
    bool streaming;          /* updates come unasked */
    struct rfb_rect refresh; /* to be sent whether it has changed or not */
    unsigned width, height;  /* as it knows them */
    uint32_t *shown;         /* what it has seen */
    uint64_t changes;        /* of the screen when it was drawn for it */
    uint64_t cursor_serial;
    bool cursor_shown, cursor_sent;
    int cursor_x, cursor_y; /* as drawn into its picture */
    unsigned led_state;
    /* Its keys and pointer. */
    uint8_t held[64]; /* a bit a key */
    uint8_t mask;     /* its buttons */
    /* The guest's clipboard, for when it asks. */
    char *text;
    size_t text_len;
    uint32_t clipboard_flags; /* what it can take */
};

static inline unsigned rfb_get16(const uint8_t *b)
{
    return (unsigned)b[0] << 8 | b[1];
}

static inline uint32_t rfb_get32(const uint8_t *b)
{
    return (uint32_t)rfb_get16(b) << 16 | rfb_get16(b + 2);
}

/** Everything has to be sent again. */
void rfb_refresh_all(struct rfb_session *s);

/** The client knows another size. @return false: no memory */
bool rfb_set_size(struct rfb_session *s, unsigned width, unsigned height);

/* rfb_clipboard.c */

/** It has said that it speaks of clipboards: tell it what is spoken here. */
void rfb_clipboard_begin(struct rfb_session *s);

/** s->cut is complete. @return false: nonsense */
bool rfb_clipboard_received(struct rfb_session *s);

#endif
