/*
 * Writing a save stream: records from state descriptions, and sections with their CRC. RAM is in
 * ram.c.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "state/internal.h"

struct mull_state_writer {
    int fd; /* -1: to `out` */
    struct state_buffer out;
    uint32_t sections;
    bool failed; /* a write went wrong: the stream is torn */
};

uint8_t *mull_state_buffer_add(struct state_buffer *b, size_t size)
{
    if (b->failed)
        return NULL;
    if (size > b->room - b->size) {
        size_t room = b->room ? b->room : 4096;
        uint8_t *data;

        while (room - b->size < size && room <= SIZE_MAX / 2)
            room *= 2;
        data = room - b->size < size ? NULL : realloc(b->data, room);
        if (!data) {
            b->failed = true;
            return NULL;
        }
        b->data = data;
        b->room = room;
    }
    b->size += size;
    return b->data + b->size - size;
}

void mull_state_buffer_free(struct state_buffer *b)
{
    free(b->data);
    *b = (struct state_buffer){0};
}

/* ---- Output ---- */

static int output(struct mull_state_writer *w, const void *data, size_t size,
                  struct mull_error *err)
{
    const uint8_t *p = data;

    if (w->failed)
        return mull_fail(err, EIO, "state: an earlier write failed");
    if (w->fd < 0) {
        state_put(&w->out, data, size);
        if (!w->out.failed)
            return 0;
        w->failed = true;
        return mull_fail(err, ENOMEM, "state: no memory for %zu more bytes", size);
    }
    while (size) {
        ssize_t n = write(w->fd, p, size);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            int code = n ? errno : EIO;

            w->failed = true;
            return mull_fail(err, code, "state: write: %s", strerror(code));
        }
        p += n;
        size -= (size_t)n;
    }
    return 0;
}

int mull_state_send(struct mull_state_writer *w, uint32_t tag, struct state_buffer *payload,
                    struct mull_error *err)
{
    struct state_buffer head = {0}, tail = {0};
    int r;

    if (payload->failed || payload->size > MULL_STATE_SECTION_MAX)
        return mull_fail(err, EMSGSIZE,
                         "state: a section has a name of more than %u bytes, is "
                         "larger than %u MiB, or there is no memory",
                         MULL_STATE_NAME_MAX, MULL_STATE_SECTION_MAX >> 20);
    state_put_uint(&head, tag, 4);
    state_put_uint(&head, payload->size, 4);
    if (head.failed)
        return mull_fail(err, ENOMEM, "state: no memory");
    state_put_uint(
        &tail,
        mull_state_crc32c(mull_state_crc32c(0, head.data, head.size), payload->data, payload->size),
        4);
    r = tail.failed ? mull_fail(err, ENOMEM, "state: no memory")
                    : output(w, head.data, head.size, err);
    if (!r)
        r = output(w, payload->data, payload->size, err);
    if (!r)
        r = output(w, tail.data, tail.size, err);
    if (!r)
        w->sections++;
    mull_state_buffer_free(&head);
    mull_state_buffer_free(&tail);
    return r;
}

/* ---- Records ---- */

static void put_record(struct state_buffer *b, const struct mull_state_desc *desc, void *object,
                       unsigned depth);

static uint64_t load_uint(const uint8_t *at, unsigned size)
{
    uint64_t value = 0;

    memcpy(&value, at, size); /* the host is little-endian, as the stream is */
    return value;
}

static void put_field(struct state_buffer *b, const struct mull_field *f, uint8_t *object,
                      unsigned depth)
{
    uint32_t size;
    uint8_t *at = state_field(f, object, &size);
    bool nested = f->kind == MULL_FIELD_STRUCT;
    size_t length_at;
    uint32_t length;

    state_put_name(b, f->name);
    state_put_uint(b, f->kind == MULL_FIELD_BOOL ? MULL_FIELD_UINT : f->kind, 1);
    state_put_uint(b, nested ? 0 : size, 4);
    state_put_uint(b, f->count, 4);
    length_at = b->size;
    state_put_uint(b, 0, 4);
    for (uint32_t i = 0; i < f->count; i++, at += size) {
        switch (f->kind) {
        case MULL_FIELD_UINT:
        case MULL_FIELD_BOOL:
            state_put_uint(b, load_uint(at, size), size);
            break;
        case MULL_FIELD_BYTES:
            state_put(b, at, size);
            break;
        case MULL_FIELD_STRUCT: {
            size_t record_at = b->size;

            state_put_uint(b, 0, 4);
            put_record(b, f->nested, at, depth + 1);
            if (b->failed)
                return;
            length = (uint32_t)(b->size - record_at - 4);
            memcpy(b->data + record_at, &length, 4);
            break;
        }
        }
    }
    if (b->failed || b->size - length_at - 4 > MULL_STATE_SECTION_MAX) {
        b->failed = true;
        return;
    }
    length = (uint32_t)(b->size - length_at - 4);
    memcpy(b->data + length_at, &length, 4);
}

static void put_record(struct state_buffer *b, const struct mull_state_desc *desc, void *object,
                       unsigned depth)
{
    unsigned count = 0;

    if (depth >= STATE_DEPTH_MAX) {
        b->failed = true;
        return;
    }
    if (desc->before_save)
        desc->before_save(object);
    while (desc->fields[count].name)
        count++;
    state_put_name(b, desc->name);
    state_put_uint(b, desc->version, 4);
    state_put_uint(b, count, 2);
    for (unsigned i = 0; i < count; i++)
        put_field(b, &desc->fields[i], object, depth);
}

int mull_state_write(struct mull_state_writer *w, const char *name, uint32_t id,
                     const struct mull_state_desc *desc, void *object, struct mull_error *err)
{
    struct state_buffer b = {0};
    int r;

    state_put_name(&b, name);
    state_put_uint(&b, id, 4);
    put_record(&b, desc, object, 0);
    r = mull_state_send(w, STATE_TAG_OBJECT, &b, err);
    mull_state_buffer_free(&b);
    return r ? mull_fail_in(err, "%s %u", name, id) : 0;
}

int mull_state_write_blob(struct mull_state_writer *w, const char *name, const void *data,
                          size_t size, struct mull_error *err)
{
    struct state_buffer b = {0};
    int r;

    state_put_name(&b, name);
    state_put(&b, data, size);
    r = mull_state_send(w, STATE_TAG_BLOB, &b, err);
    mull_state_buffer_free(&b);
    return r ? mull_fail_in(err, "%s", name) : 0;
}

/* ---- Life ---- */

int mull_state_write_end(struct mull_state_writer *w, struct mull_error *err)
{
    struct state_buffer b = {0};
    int r;

    state_put_uint(&b, w->sections, 4);
    r = mull_state_send(w, STATE_TAG_END, &b, err);
    mull_state_buffer_free(&b);
    return r;
}

static int create(int fd, struct mull_state_writer **out, struct mull_error *err)
{
    struct mull_state_writer *w = calloc(1, sizeof(*w));
    const uint8_t version[4] = {STATE_VERSION};
    int r;

    if (!w)
        return mull_fail(err, ENOMEM, "state: no memory");
    w->fd = fd;
    r = output(w, STATE_MAGIC, STATE_MAGIC_SIZE, err);
    if (!r)
        r = output(w, version, sizeof(version), err);
    if (r) {
        mull_state_writer_destroy(w);
        return r;
    }
    *out = w;
    return 0;
}

int mull_state_writer_fd(int fd, struct mull_state_writer **out, struct mull_error *err)
{
    return create(fd, out, err);
}

int mull_state_writer_buffer(struct mull_state_writer **out, struct mull_error *err)
{
    return create(-1, out, err);
}

void mull_state_writer_destroy(struct mull_state_writer *w)
{
    if (!w)
        return;
    mull_state_buffer_free(&w->out);
    free(w);
}

const uint8_t *mull_state_writer_data(const struct mull_state_writer *w, size_t *size)
{
    *size = w->out.size;
    return w->out.data;
}
