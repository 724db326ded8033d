/*
 * Reading a save stream section by section: lengths and CRCs are checked before anything is looked
 * at, and memory is taken only for bytes that really came. What is in a section is load.c's,
 * ram.c's and dump.c's.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "state/internal.h"

#define READ_STEP 65536u /* memory is taken in such steps while a payload comes in */

struct mull_state_reader {
    int fd; /* -1: from `source` */
    struct state_cursor source;
    struct state_buffer payload;
    struct state_cursor rest; /* of the payload, behind the section's head */
    uint32_t tag;
    uint32_t sections;
    bool ended, broken, ranges_seen;
};

/* ---- Input ---- */

static int torn(struct mull_state_reader *r, struct mull_error *err)
{
    r->broken = true;
    return mull_fail(err, EPROTO, "state: the stream ends in the middle: it was not saved whole");
}

static int input(struct mull_state_reader *r, uint8_t *to, size_t size, struct mull_error *err)
{
    if (r->fd < 0) {
        const uint8_t *from = state_take(&r->source, size);

        if (!from)
            return torn(r, err);
        memcpy(to, from, size);
        return 0;
    }
    while (size) {
        ssize_t n = read(r->fd, to, size);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            r->broken = true;
            return mull_fail(err, errno, "state: read: %s", strerror(errno));
        }
        if (!n)
            return torn(r, err);
        to += n;
        size -= (size_t)n;
    }
    return 0;
}

static int input_payload(struct mull_state_reader *r, uint32_t size, struct mull_error *err)
{
    r->payload.size = 0;
    while (size) {
        uint32_t step = size < READ_STEP ? size : READ_STEP;
        uint8_t *at = mull_state_buffer_add(&r->payload, step);
        int code;

        if (!at) {
            r->broken = true;
            return mull_fail(err, ENOMEM, "state: no memory for a section");
        }
        code = input(r, at, step, err);
        if (code)
            return code;
        size -= step;
    }
    return 0;
}

/* ---- Sections ---- */

static int malformed(struct mull_state_reader *r, const char *what, struct mull_error *err)
{
    r->broken = true;
    return mull_fail(err, EPROTO, "state: section %u: %s", r->sections, what);
}

static int read_section(struct mull_state_reader *r, struct mull_error *err)
{
    uint8_t head[8], tail[4];
    struct state_cursor c = {.at = head, .end = head + sizeof(head)};
    uint32_t size, crc;
    int code = input(r, head, sizeof(head), err);

    if (code)
        return code;
    r->tag = (uint32_t)state_take_uint(&c, 4);
    size = (uint32_t)state_take_uint(&c, 4);
    if (size > MULL_STATE_SECTION_MAX)
        return malformed(r, "its length is impossible: the stream is damaged", err);
    code = input_payload(r, size, err);
    if (!code)
        code = input(r, tail, sizeof(tail), err);
    if (code)
        return code;
    c = (struct state_cursor){.at = tail, .end = tail + sizeof(tail)};
    crc = mull_state_crc32c(mull_state_crc32c(0, head, sizeof(head)), r->payload.data, size);
    if (crc != state_take_uint(&c, 4))
        return malformed(r, "its checksum is wrong: the stream is damaged", err);
    /* An empty payload may have no memory: no arithmetic on NULL. */
    uint8_t *end = size ? r->payload.data + size : r->payload.data;
    r->rest = (struct state_cursor){.at = r->payload.data, .end = end};
    return 0;
}

static void take_head(struct mull_state_reader *r, struct mull_state_section *section)
{
    struct state_record record;
    struct state_cursor ahead;

    switch (r->tag) {
    case STATE_TAG_OBJECT:
        section->kind = MULL_STATE_OBJECT;
        state_take_name(&r->rest, section->name);
        section->id = (uint32_t)state_take_uint(&r->rest, 4);
        ahead = r->rest;
        mull_state_take_record(&ahead, &record);
        if (ahead.failed)
            r->rest.failed = true;
        memcpy(section->desc, record.desc, sizeof(section->desc));
        section->version = record.version;
        break;
    case STATE_TAG_BLOB:
        section->kind = MULL_STATE_BLOB;
        state_take_name(&r->rest, section->name);
        break;
    default:
        section->kind = MULL_STATE_RAM;
        memcpy(section->name, "ram", 4);
        break;
    }
}

int mull_state_next(struct mull_state_reader *r, struct mull_state_section *section,
                    struct mull_error *err)
{
    int code;

    memset(section, 0, sizeof(*section));
    if (r->ended)
        return 0;
    if (r->broken)
        return mull_fail(err, EPROTO, "state: the stream is damaged");
    code = read_section(r, err);
    if (code)
        return code;
    switch (r->tag) {
    case STATE_TAG_END:
        if (state_take_uint(&r->rest, 4) != r->sections || r->rest.failed ||
            r->rest.at != r->rest.end)
            return malformed(r, "sections are missing before the end", err);
        r->ended = true;
        return 0;
    case STATE_TAG_OBJECT:
    case STATE_TAG_BLOB:
    case STATE_TAG_RANGES:
    case STATE_TAG_PAGES:
        take_head(r, section);
        if (r->rest.failed)
            return malformed(r, "its head is malformed", err);
        r->sections++;
        return 1;
    default:
        return malformed(r, "its kind is unknown: it was saved by a newer version", err);
    }
}

struct state_cursor mull_state_current(const struct mull_state_reader *r, uint32_t *tag)
{
    *tag = r->tag;
    return r->rest;
}

bool mull_state_ranges_seen(struct mull_state_reader *r)
{
    bool before = r->ranges_seen;

    r->ranges_seen = true;
    return before;
}

const uint8_t *mull_state_blob(const struct mull_state_reader *r, size_t *size)
{
    *size = r->tag == STATE_TAG_BLOB ? (size_t)(r->rest.end - r->rest.at) : 0;
    return r->rest.at;
}

/* ---- Life ---- */

static int create(int fd, const void *data, size_t size, struct mull_state_reader **out,
                  struct mull_error *err)
{
    struct mull_state_reader *r = calloc(1, sizeof(*r));
    uint8_t head[STATE_MAGIC_SIZE + 4];
    struct state_cursor c = {.at = head + STATE_MAGIC_SIZE, .end = head + sizeof(head)};
    uint32_t version;
    int code;

    if (!r)
        return mull_fail(err, ENOMEM, "state: no memory");
    r->fd = fd;
    if (size)
        r->source = (struct state_cursor){.at = data, .end = (const uint8_t *)data + size};
    code = input(r, head, sizeof(head), err);
    version = (uint32_t)state_take_uint(&c, 4);
    if (!code && memcmp(head, STATE_MAGIC, STATE_MAGIC_SIZE))
        code = mull_fail(err, EPROTO, "state: this is not a saved machine");
    if (!code && version != STATE_VERSION)
        code = mull_fail(err, EPROTO,
                         "state: the stream has version %u, this program reads %u: use the one "
                         "that saved it, or a newer one",
                         version, STATE_VERSION);
    if (code) {
        mull_state_reader_destroy(r);
        return code;
    }
    *out = r;
    return 0;
}

int mull_state_reader_fd(int fd, struct mull_state_reader **out, struct mull_error *err)
{
    return create(fd, NULL, 0, out, err);
}

int mull_state_reader_buffer(const void *data, size_t size, struct mull_state_reader **out,
                             struct mull_error *err)
{
    return create(-1, data, size, out, err);
}

void mull_state_reader_destroy(struct mull_state_reader *r)
{
    if (!r)
        return;
    mull_state_buffer_free(&r->payload);
    free(r);
}
