/*
 * What the files of src/state share: the format's numbers (docs/state.md), a buffer that grows, a
 * cursor that cannot leave its bytes, CRC32C. Everything is little-endian.
 */
#ifndef MULL_STATE_INTERNAL_H
#define MULL_STATE_INTERNAL_H

#include <string.h>

#include "state/state.h"

#define STATE_MAGIC "\x89MULL\r\n\x1a" /* 8 bytes: a text-mode transfer breaks it */
#define STATE_MAGIC_SIZE 8
#define STATE_VERSION 1u

#define STATE_TAG_OBJECT 0x314a424fu /* "OBJ1" */
#define STATE_TAG_BLOB 0x31424c42u   /* "BLB1" */
#define STATE_TAG_RANGES 0x314d4152u /* "RAM1" */
#define STATE_TAG_PAGES 0x31474150u  /* "PAG1" */
#define STATE_TAG_END 0x31444e45u    /* "END1" */

#define STATE_CHUNK_PAGES 256u /* pages of one PAGES section at most */
#define STATE_DEPTH_MAX 8      /* of nested structs */

/** CRC32C (RFC 3720, 12.1), going on from @crc; start with 0. */
uint32_t mull_state_crc32c(uint32_t crc, const void *data, size_t size);

/* ---- A buffer that grows ---- */

struct state_buffer {
    uint8_t *data;
    size_t size, room;
    bool failed; /* no memory, or over MULL_STATE_SECTION_MAX: nothing more is added */
};

/** Room for @size more bytes, or NULL. */
uint8_t *mull_state_buffer_add(struct state_buffer *b, size_t size);
void mull_state_buffer_free(struct state_buffer *b);

static inline void state_put(struct state_buffer *b, const void *data, size_t size)
{
    uint8_t *at = mull_state_buffer_add(b, size);

    if (at && size)
        memcpy(at, data, size);
}

static inline void state_put_uint(struct state_buffer *b, uint64_t value, unsigned size)
{
    uint8_t bytes[8];

    for (unsigned i = 0; i < 8; i++)
        bytes[i] = (uint8_t)(value >> (8 * i));
    state_put(b, bytes, size);
}

/** A name: its length in one byte, then itself. */
static inline void state_put_name(struct state_buffer *b, const char *name)
{
    size_t n = strlen(name);

    if (n > MULL_STATE_NAME_MAX)
        b->failed = true;
    state_put_uint(b, n, 1);
    state_put(b, name, n);
}

/* ---- A cursor that cannot leave its bytes ---- */

struct state_cursor {
    const uint8_t *at, *end;
    bool failed; /* something did not fit: every later take gives zero */
};

/** The next @size bytes, or NULL. */
static inline const uint8_t *state_take(struct state_cursor *c, size_t size)
{
    const uint8_t *at = c->at;

    if (c->failed || size > (size_t)(c->end - c->at)) {
        c->failed = true;
        return NULL;
    }
    c->at += size;
    return at;
}

/* Where a field of @object is, and the size of one of its elements. */
static inline uint8_t *state_field(const struct mull_field *f, uint8_t *object, uint32_t *size)
{
    uint8_t *at = object + f->offset;

    *size = f->size;
    if (!f->length_at)
        return at;
    memcpy(size, object + f->length_at, sizeof(*size));
    memcpy(&at, at, sizeof(at));
    return at;
}

static inline uint64_t state_take_uint(struct state_cursor *c, unsigned size)
{
    const uint8_t *at = state_take(c, size);
    uint64_t value = 0;

    for (unsigned i = 0; at && i < size; i++)
        value |= (uint64_t)at[i] << (8 * i);
    return value;
}

/** A name of printable ASCII, not empty. */
static inline void state_take_name(struct state_cursor *c, char name[MULL_STATE_NAME_MAX + 1])
{
    size_t n = (size_t)state_take_uint(c, 1);
    const uint8_t *at = n && n <= MULL_STATE_NAME_MAX ? state_take(c, n) : NULL;

    name[0] = 0;
    if (!at) {
        c->failed = true;
        return;
    }
    for (size_t i = 0; i < n; i++) {
        if (at[i] <= ' ' || at[i] > '~' || at[i] == '"' || at[i] == '\\') {
            c->failed = true;
            name[0] = 0;
            return;
        }
        name[i] = (char)at[i];
    }
    name[n] = 0;
}

/** A cursor over the next @size bytes. */
static inline struct state_cursor state_take_part(struct state_cursor *c, size_t size)
{
    const uint8_t *at = state_take(c, size);

    return at ? (struct state_cursor){.at = at, .end = at + size}
              : (struct state_cursor){.failed = true};
}

/* ---- Records: one struct's fields ---- */

/** A field as the stream has it. */
struct state_field {
    char name[MULL_STATE_NAME_MAX + 1];
    uint8_t kind;         /* enum mull_field_kind as stored: UINT, BYTES, STRUCT */
    uint32_t size, count; /* of an element, and how many */
    struct state_cursor data;
};

/** The head of a record: description name, version, field count. */
struct state_record {
    char desc[MULL_STATE_NAME_MAX + 1];
    uint32_t version;
    unsigned fields;
    struct state_cursor body;
};

/** Take a record's head off @c; the record's bytes are the rest of @c. */
void mull_state_take_record(struct state_cursor *c, struct state_record *record);

/** Take the next field off the record's body. */
void mull_state_take_field(struct state_cursor *body, struct state_field *field);

/* ---- Between writer, reader and RAM ---- */

/** Send @payload as one section. */
int mull_state_send(struct mull_state_writer *writer, uint32_t tag, struct state_buffer *payload,
                    struct mull_error *err);

/** The current section's payload behind its head, and its tag. */
struct state_cursor mull_state_current(const struct mull_state_reader *reader, uint32_t *tag);

/** The current section holds nothing more than was read, or that is an error. */
int mull_state_check_empty(const struct state_cursor *c, const char *what, struct mull_error *err);

/** Remember that RAM ranges were read. @return whether they had been before. */
bool mull_state_ranges_seen(struct mull_state_reader *reader);

#endif
