/*
 * From a record of the stream into an object, by the rules of mull_state_read(): first everything
 * is checked, then everything is stored, then the descriptions' after_load has its say.
 */
#include <errno.h>

#include "state/internal.h"

void mull_state_take_record(struct state_cursor *c, struct state_record *record)
{
    memset(record, 0, sizeof(*record));
    state_take_name(c, record->desc);
    record->version = (uint32_t)state_take_uint(c, 4);
    record->fields = (unsigned)state_take_uint(c, 2);
    record->body = *c;
}

void mull_state_take_field(struct state_cursor *body, struct state_field *field)
{
    uint64_t length;

    memset(field, 0, sizeof(*field));
    state_take_name(body, field->name);
    field->kind = (uint8_t)state_take_uint(body, 1);
    field->size = (uint32_t)state_take_uint(body, 4);
    field->count = (uint32_t)state_take_uint(body, 4);
    length = state_take_uint(body, 4);
    field->data = state_take_part(body, (size_t)length);
    switch (field->kind) {
    case MULL_FIELD_UINT:
        if (field->size != 1 && field->size != 2 && field->size != 4 && field->size != 8)
            body->failed = true;
        /* fall through */
    case MULL_FIELD_BYTES:
        if ((uint64_t)field->size * field->count != length)
            body->failed = true;
        break;
    case MULL_FIELD_STRUCT:
        break;
    default:
        body->failed = true;
    }
}

int mull_state_check_empty(const struct state_cursor *c, const char *what, struct mull_error *err)
{
    if (!c->failed && c->at == c->end)
        return 0;
    return mull_fail(err, EPROTO, "state: %s: malformed", what);
}

/* One struct on its way from the stream: a record, its description, where it goes. */
struct load {
    const struct mull_state_desc *desc;
    uint8_t *object;
    bool store; /* false: only check */
    unsigned depth;
};

static int load_record(const struct load *l, struct state_cursor c, struct mull_error *err);

static void store_uint(uint8_t *at, uint32_t size, uint64_t value)
{
    memcpy(at, &value, size); /* the host is little-endian */
}

static int load_uints(const struct load *l, const struct mull_field *f, struct state_field *from,
                      struct mull_error *err)
{
    for (uint32_t i = 0; i < f->count; i++) {
        uint64_t value = state_take_uint(&from->data, from->size);

        if ((f->size < 8 && value >> (8 * f->size)) || (f->kind == MULL_FIELD_BOOL && value > 1))
            return mull_fail(err, ERANGE, "state: %s.%s: the value %#llx does not fit",
                             l->desc->name, f->name, (unsigned long long)value);
        if (l->store)
            store_uint(l->object + f->offset + (size_t)i * f->size, f->size, value);
    }
    return 0;
}

static int load_field(const struct load *l, const struct mull_field *f, struct state_field *from,
                      struct mull_error *err)
{
    uint8_t kind = f->kind == MULL_FIELD_BOOL ? MULL_FIELD_UINT : (uint8_t)f->kind;
    const uint8_t *bytes;
    uint32_t size;
    uint8_t *at = state_field(f, l->object, &size);

    if (from->kind != kind || from->count != f->count ||
        (kind == MULL_FIELD_BYTES && from->size != size))
        return mull_fail(err, EPROTO,
                         "state: %s.%s: %u of %u bytes (kind %u) were saved, %u of %u (kind %u) "
                         "are expected",
                         l->desc->name, f->name, from->count, from->size, from->kind, f->count,
                         size, kind);
    switch (f->kind) {
    case MULL_FIELD_UINT:
    case MULL_FIELD_BOOL:
        return load_uints(l, f, from, err);
    case MULL_FIELD_BYTES:
        bytes = state_take(&from->data, (size_t)size * f->count);
        if (bytes && l->store)
            memcpy(at, bytes, (size_t)size * f->count);
        return 0;
    case MULL_FIELD_STRUCT:
        for (uint32_t i = 0; i < f->count; i++) {
            size_t length = (size_t)state_take_uint(&from->data, 4);
            struct state_cursor part = state_take_part(&from->data, length);
            const struct load nested = {
                .desc = f->nested,
                .object = l->object + f->offset + (size_t)i * f->size,
                .store = l->store,
                .depth = l->depth + 1,
            };
            int r = load_record(&nested, part, err);

            if (r)
                return r;
        }
        return mull_state_check_empty(&from->data, f->name, err);
    }
    return mull_fail(err, EINVAL, "state: %s.%s: unknown kind of field", l->desc->name, f->name);
}

/* Find the one field of the record that has this name. @return how many there are. */
static unsigned find_field(const struct state_record *record, const char *name,
                           struct state_field *found)
{
    struct state_cursor body = record->body;
    struct state_field field;
    unsigned count = 0;

    for (unsigned i = 0; i < record->fields; i++) {
        mull_state_take_field(&body, &field);
        if (!strcmp(field.name, name) && !count++)
            *found = field;
    }
    return count;
}

static int check_head(const struct load *l, const struct state_record *record,
                      struct mull_error *err)
{
    const struct mull_state_desc *desc = l->desc;
    struct state_cursor body = record->body;
    struct state_field field;

    if (l->depth >= STATE_DEPTH_MAX)
        return mull_fail(err, EPROTO, "state: %s: nested too deeply", desc->name);
    for (unsigned i = 0; i < record->fields && !body.failed; i++)
        mull_state_take_field(&body, &field);
    if (body.failed || body.at != body.end)
        return mull_fail(err, EPROTO, "state: %s: malformed", desc->name);
    if (strcmp(record->desc, desc->name))
        return mull_fail(err, EPROTO, "state: %s was saved where %s is expected", record->desc,
                         desc->name);
    if (record->version > desc->version)
        return mull_fail(err, EPROTO,
                         "state: %s was saved in version %u, this program reads up to %u: use a "
                         "newer one",
                         desc->name, record->version, desc->version);
    if (record->version < desc->oldest)
        return mull_fail(err, EPROTO,
                         "state: %s was saved in version %u, this program reads %u and newer: use "
                         "an older one",
                         desc->name, record->version, desc->oldest);
    return 0;
}

static int load_record(const struct load *l, struct state_cursor c, struct mull_error *err)
{
    struct state_record record;
    struct state_field field;
    int r = 0;

    mull_state_take_record(&c, &record);
    r = check_head(l, &record, err);
    for (const struct mull_field *f = l->desc->fields; !r && f->name; f++) {
        switch (find_field(&record, f->name, &field)) {
        case 0:
            if (f->since <= record.version)
                r = mull_fail(err, EPROTO, "state: %s.%s is missing", l->desc->name, f->name);
            break;
        case 1:
            r = load_field(l, f, &field, err);
            break;
        default:
            r = mull_fail(err, EPROTO, "state: %s.%s is there twice", l->desc->name, f->name);
        }
    }
    if (!r && l->store && l->desc->after_load)
        r = l->desc->after_load(l->object, record.version, err);
    return r;
}

int mull_state_read(struct mull_state_reader *reader, const struct mull_state_desc *desc,
                    void *object, struct mull_error *err)
{
    struct load l = {.desc = desc, .object = object};
    uint32_t tag;
    struct state_cursor c = mull_state_current(reader, &tag);
    int r;

    if (tag != STATE_TAG_OBJECT)
        return mull_fail(err, EPROTO, "state: %s: the section is of another kind", desc->name);
    r = load_record(&l, c, err);
    if (r)
        return r;
    l.store = true;
    return load_record(&l, c, err);
}
