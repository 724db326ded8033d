/*
 * See vdagent.h. The protocol is the one of spice-protocol's vd_agent.h: chunks of at most 2 KiB
 * that carry messages; the clipboard is offered ("grab"), asked for, and sent.
 */
#include "vmm/vdagent.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_MAX (1u << 20)
#define CHUNK_MAX 2048u
#define PORT_CLIENT 1u
#define PROTOCOL 1u
#define UTF8_TEXT 1u

enum { CLIPBOARD = 4, CAPABILITIES = 6, GRAB = 7, REQUEST = 8, RELEASE = 9 };
#define CAP_CLIPBOARD_BY_DEMAND (1u << 5)

struct chunk {
    uint32_t port, size;
} __attribute__((packed));

struct message {
    uint32_t protocol, type;
    uint64_t opaque;
    uint32_t size;
} __attribute__((packed));

struct vmm_vdagent {
    void (*cut)(void *opaque, const char *text, size_t len);
    void *opaque;
    struct rfb_buffer out;
    /* The chunk and the message that are coming. */
    uint8_t head[sizeof(struct chunk)];
    size_t head_have;
    uint32_t chunk_left;
    uint8_t message[sizeof(struct message)];
    size_t message_have;
    uint8_t *body;
    uint32_t body_size, body_have;
    bool there; /* the agent has said what it can */
    bool asked; /* it was asked for its clipboard */
    char *text; /* ours */
    size_t text_len;
};

/* ---- To the agent ---- */

static void send(struct vmm_vdagent *a, uint32_t type, const void *head, uint32_t head_size,
                 const void *data, uint32_t size)
{
    const struct message m = {htole32(PROTOCOL), htole32(type), 0, htole32(head_size + size)};
    struct rfb_buffer whole = {0};

    rfb_put(&whole, &m, sizeof(m));
    rfb_put(&whole, head, head_size);
    rfb_put(&whole, data, size);
    for (size_t at = 0; at < whole.size && !whole.failed;) {
        size_t part = whole.size - at < CHUNK_MAX ? whole.size - at : CHUNK_MAX;
        const struct chunk c = {htole32(PORT_CLIENT), htole32((uint32_t)part)};
        rfb_put(&a->out, &c, sizeof(c));
        rfb_put(&a->out, whole.data + at, part);
        at += part;
    }
    rfb_buffer_free(&whole);
}

static void send_capabilities(struct vmm_vdagent *a, bool request)
{
    const uint32_t body[2] = {htole32(request), htole32(CAP_CLIPBOARD_BY_DEMAND)};

    send(a, CAPABILITIES, body, sizeof(body), NULL, 0);
}

static void send_type(struct vmm_vdagent *a, uint32_t type, const void *data, size_t size)
{
    const uint32_t text = htole32(UTF8_TEXT);

    send(a, type, &text, sizeof(text), data, (uint32_t)size);
}

void vmm_vdagent_cut(struct vmm_vdagent *a, const char *text, size_t len)
{
    char *copy = len <= TEXT_MAX ? malloc(len + 1) : NULL;

    if (!copy)
        return;
    memcpy(copy, text, len);
    free(a->text);
    a->text = copy;
    a->text_len = len;
    if (a->there)
        send_type(a, GRAB, NULL, 0);
}

/* ---- From the agent ---- */

static uint32_t word(const struct vmm_vdagent *a, unsigned index)
{
    uint32_t value = 0;

    if (a->body_size / 4 > index)
        memcpy(&value, a->body + 4ul * index, 4);
    return le32toh(value);
}

static void capabilities(struct vmm_vdagent *a)
{
    bool request = word(a, 0), was = a->there;

    a->there = word(a, 1) & CAP_CLIPBOARD_BY_DEMAND;
    if (request)
        send_capabilities(a, false);
    if (a->there && !was && a->text)
        send_type(a, GRAB, NULL, 0);
}

static void grab(struct vmm_vdagent *a)
{
    for (unsigned i = 0; i < a->body_size / 4; i++)
        if (word(a, i) == UTF8_TEXT && !a->asked) {
            a->asked = true;
            send_type(a, REQUEST, NULL, 0);
        }
}

static void clipboard(struct vmm_vdagent *a)
{
    const char *text = (const char *)a->body + 4;
    size_t len = a->body_size >= 4 ? strnlen(text, a->body_size - 4) : 0;

    if (a->asked && word(a, 0) == UTF8_TEXT && len)
        a->cut(a->opaque, text, len);
    a->asked = false;
}

static void handle(struct vmm_vdagent *a, uint32_t type)
{
    switch (type) {
    case CAPABILITIES:
        capabilities(a);
        break;
    case GRAB:
        grab(a);
        break;
    case REQUEST: /* what we have not is answered with nothing: the asker waits for it */
        send(a, CLIPBOARD, a->body_size >= 4 ? a->body : NULL, a->body_size >= 4 ? 4 : 0,
             word(a, 0) == UTF8_TEXT ? a->text : NULL,
             word(a, 0) == UTF8_TEXT ? (uint32_t)a->text_len : 0);
        break;
    case CLIPBOARD:
        clipboard(a);
        break;
    default:
        break;
    }
}

/* Begin a message. One that is too long is read over. */
static void begin_body(struct vmm_vdagent *a)
{
    struct message m;

    memcpy(&m, a->message, sizeof(m));
    a->body_size = le32toh(m.size);
    a->body_have = 0;
    a->body = a->body_size <= TEXT_MAX + 4 ? malloc(a->body_size + 1ul) : NULL;
}

static void end_body(struct vmm_vdagent *a)
{
    struct message m;

    memcpy(&m, a->message, sizeof(m));
    if (a->body && le32toh(m.protocol) == PROTOCOL)
        handle(a, le32toh(m.type));
    free(a->body);
    a->body = NULL;
    a->message_have = 0;
}

/* Bytes of messages, chunks taken off. @return how many were used */
static size_t message_input(struct vmm_vdagent *a, const uint8_t *data, size_t size)
{
    size_t part = sizeof(a->message) - a->message_have;

    if (part) {
        part = part < size ? part : size;
        memcpy(a->message + a->message_have, data, part);
        a->message_have += part;
        if (a->message_have < sizeof(a->message))
            return part;
        begin_body(a);
    } else {
        part = a->body_size - a->body_have < size ? a->body_size - a->body_have : size;
        if (a->body)
            memcpy(a->body + a->body_have, data, part);
        a->body_have += (uint32_t)part;
    }
    if (a->body_have == a->body_size)
        end_body(a);
    return part;
}

void vmm_vdagent_input(struct vmm_vdagent *a, const uint8_t *data, size_t size)
{
    while (size) {
        size_t part;
        if (a->chunk_left) {
            part = message_input(a, data, size < a->chunk_left ? size : a->chunk_left);
            a->chunk_left -= (uint32_t)part;
        } else {
            part = sizeof(a->head) - a->head_have < size ? sizeof(a->head) - a->head_have : size;
            memcpy(a->head + a->head_have, data, part);
            a->head_have += part;
            if (a->head_have == sizeof(a->head)) {
                struct chunk c;
                memcpy(&c, a->head, sizeof(c));
                a->chunk_left = le32toh(c.size);
                a->head_have = 0;
            }
        }
        data += part;
        size -= part;
    }
}

/* ---- Life ---- */

struct vmm_vdagent *vmm_vdagent_create(void (*cut)(void *opaque, const char *text, size_t len),
                                       void *opaque)
{
    struct vmm_vdagent *a = calloc(1, sizeof(*a));

    if (!a)
        return NULL;
    a->cut = cut;
    a->opaque = opaque;
    send_capabilities(a, true);
    return a;
}

void vmm_vdagent_free(struct vmm_vdagent *a)
{
    if (!a)
        return;
    rfb_buffer_free(&a->out);
    free(a->body);
    free(a->text);
    free(a);
}

struct rfb_buffer *vmm_vdagent_out(struct vmm_vdagent *a)
{
    return &a->out;
}
