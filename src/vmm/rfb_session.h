/*
 * One client of the display server: RFB 3.3 to 3.8 (RFC 6143) with the extensions that clients of
 * today speak. Bytes come in, bytes go out, events go to a host; knows no sockets, no TLS and no
 * machine, so that tests and fuzzers can be the world around it. One thread at a time.
 */
#ifndef MULL_VMM_RFB_SESSION_H
#define MULL_VMM_RFB_SESSION_H

#include "device/display/screen.h"
#include "vmm/keys.h"
#include "vmm/rfb_encode.h"

#define RFB_PASSWORD_MAX 128
#define RFB_CUT_MAX (1u << 20) /* bytes of a clipboard's text */

enum rfb_tls { RFB_TLS_NONE, RFB_TLS_ANONYMOUS, RFB_TLS_X509 };

/** Who is let in, and how. With TLS nothing else is offered. */
struct rfb_security {
    enum rfb_tls tls;
    bool has_password;
    char password[RFB_PASSWORD_MAX];
};

/** What a session needs of the world. */
struct rfb_host {
    const char *name; /* of the desktop */
    const struct rfb_security *security;
    const struct vmm_keymap *keymap;
    void *opaque;
    void (*key)(void *opaque, unsigned key, bool down);
    void (*pointer)(void *opaque, unsigned x, unsigned y, unsigned width, unsigned height,
                    int wheel, unsigned buttons);
    unsigned (*leds)(void *opaque);
    /* As mull_screen_ops.resize; NULL: the screen cannot. */
    int (*resize)(void *opaque, unsigned width, unsigned height);
    /* The client has a new clipboard (UTF-8, no NUL in it). NULL: nobody wants it. */
    void (*cut)(void *opaque, const char *text, size_t len);
    /* The client wants to be alone. */
    void (*alone)(void *opaque);
};

/** What is seen now. */
struct rfb_picture {
    const uint32_t *pixels;
    unsigned width, height;
    uint64_t changes;
    const struct mull_cursor *cursor; /* NULL: the guest draws it */
};

struct rfb_session;

enum rfb_state {
    RFB_GREETING,  /* not yet let in */
    RFB_WANTS_TLS, /* send what is in out, then make a TLS session and call rfb_session_secured() */
    RFB_SERVED,
    RFB_DENIED, /* a wrong password: drop it after a while, so that guessing is slow */
    RFB_OVER,   /* nonsense, or the buffer failed: drop it */
};

/** Says hello into its buffer. @param host  stays the caller's. @return NULL: no memory */
struct rfb_session *rfb_session_create(const struct rfb_host *host, unsigned width,
                                       unsigned height);
/** Lets go of keys that are held. NULL is allowed. */
void rfb_session_free(struct rfb_session *s);

/** Bytes have come. */
void rfb_session_input(struct rfb_session *s, const uint8_t *data, size_t size);

enum rfb_state rfb_session_state(const struct rfb_session *s);

/** TLS is there: what comes and goes from now on is inside. */
void rfb_session_secured(struct rfb_session *s);

/** What is to be sent; the caller takes it away and sets size to 0. */
struct rfb_buffer *rfb_session_out(struct rfb_session *s);

/** Does it wait for a change? The caller looks at the screen only then. */
bool rfb_session_waits(const struct rfb_session *s);

/** Has it seen all there is, with the screen's number of changes at @changes? */
bool rfb_session_seen(const struct rfb_session *s, uint64_t changes);

/** Put an update into the buffer if there is something new. When the last one has been sent only.
 */
void rfb_session_update(struct rfb_session *s, const struct rfb_picture *now);

/** The guest has a new clipboard (UTF-8). */
void rfb_session_cut(struct rfb_session *s, const char *text, size_t len);

#endif
