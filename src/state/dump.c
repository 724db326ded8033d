/*
 * A save stream for a person or a script: JSON made from what the stream says of itself, without
 * any description. Numbers beyond 2^53 are strings, since many JSON readers would round them.
 */
#include <errno.h>
#include <inttypes.h>

#include "state/internal.h"

static void indent(FILE *out, unsigned depth)
{
    fprintf(out, "\n%*s", (int)(2 * depth), "");
}

static void dump_uint(FILE *out, uint64_t value)
{
    if (value >> 53)
        fprintf(out, "\"%#" PRIx64 "\"", value);
    else
        fprintf(out, "%" PRIu64, value);
}

static void dump_bytes(FILE *out, const uint8_t *at, size_t size)
{
    fputc('"', out);
    for (size_t i = 0; i < size; i++)
        fprintf(out, "%02x", at[i]);
    fputc('"', out);
}

static bool dump_record(FILE *out, struct state_cursor c, unsigned depth, unsigned nesting);

static bool dump_elements(FILE *out, struct state_field *f, unsigned depth, unsigned nesting)
{
    for (uint32_t i = 0; i < f->count && !f->data.failed; i++) {
        if (i)
            fputs(", ", out);
        if (f->kind == MULL_FIELD_UINT) {
            dump_uint(out, state_take_uint(&f->data, f->size));
        } else if (f->kind == MULL_FIELD_BYTES) {
            const uint8_t *at = state_take(&f->data, f->size);

            dump_bytes(out, at, at ? f->size : 0);
            if (!f->size) /* else a hostile count would go on for long */
                break;
        } else {
            size_t size = (size_t)state_take_uint(&f->data, 4);

            if (!dump_record(out, state_take_part(&f->data, size), depth, nesting + 1))
                return false;
        }
    }
    return !f->data.failed;
}

/* {"@description": name, "@version": n, field: value, ...} */
static bool dump_record(FILE *out, struct state_cursor c, unsigned depth, unsigned nesting)
{
    struct state_record record;
    struct state_field field;
    bool ok;

    mull_state_take_record(&c, &record);
    if (c.failed || nesting >= STATE_DEPTH_MAX) {
        fputs("{}", out);
        return false;
    }
    fprintf(out, "{\"@description\": \"%s\", \"@version\": %u", record.desc, record.version);
    ok = true;
    for (unsigned i = 0; i < record.fields && ok; i++) {
        mull_state_take_field(&record.body, &field);
        if (record.body.failed) {
            ok = false;
            break;
        }
        fputc(',', out);
        indent(out, depth + 1);
        fprintf(out, "\"%s\": ", field.name);
        if (field.count != 1)
            fputc('[', out);
        ok = dump_elements(out, &field, depth + 1, nesting);
        if (field.count != 1)
            fputc(']', out);
    }
    indent(out, depth);
    fputc('}', out);
    return ok && record.body.at == record.body.end;
}

static void dump_blob(FILE *out, const uint8_t *at, size_t size)
{
    bool text = true;

    for (size_t i = 0; i < size; i++)
        if ((at[i] < ' ' && at[i] != '\n' && at[i] != '\t') || at[i] > '~')
            text = false;
    if (!text) {
        dump_bytes(out, at, size);
        return;
    }
    fputc('"', out);
    for (size_t i = 0; i < size; i++) {
        if (at[i] == '\n')
            fputs("\\n", out);
        else if (at[i] == '\t')
            fputs("\\t", out);
        else if (at[i] == '"' || at[i] == '\\')
            fprintf(out, "\\%c", at[i]);
        else
            fputc(at[i], out);
    }
    fputc('"', out);
}

static void dump_ram(FILE *out, struct state_cursor c, uint32_t tag)
{
    if (tag == STATE_TAG_RANGES) {
        uint32_t count = (uint32_t)state_take_uint(&c, 4);

        fputs("[", out);
        for (uint32_t i = 0; i < count; i++) {
            uint64_t gpa = state_take_uint(&c, 8), size = state_take_uint(&c, 8);
            bool readonly = state_take_uint(&c, 1);

            if (c.failed)
                break;
            fprintf(out, "%s{\"address\": \"%#" PRIx64 "\", \"size\": %" PRIu64 "%s}",
                    i ? ", " : "", gpa, size, readonly ? ", \"readonly\": true" : "");
        }
        fputs("]", out);
    } else {
        uint64_t gpa = state_take_uint(&c, 8);
        uint32_t count = (uint32_t)state_take_uint(&c, 4);

        fprintf(out, "{\"address\": \"%#" PRIx64 "\", \"pages\": %u, \"bytes\": %zu}", gpa, count,
                (size_t)(c.end - c.at));
    }
}

static bool dump_section(FILE *out, const struct mull_state_section *s,
                         const struct mull_state_reader *reader)
{
    static const char *const kinds[] = {"object", "blob", "ram"};
    uint32_t tag;
    struct state_cursor c = mull_state_current(reader, &tag);
    bool ok = true;

    fprintf(out, "{\"kind\": \"%s\", \"name\": \"%s\", \"id\": %u, \"value\": ", kinds[s->kind],
            s->name, s->id);
    if (s->kind == MULL_STATE_OBJECT)
        ok = dump_record(out, c, 2, 0);
    else if (s->kind == MULL_STATE_BLOB)
        dump_blob(out, c.at, (size_t)(c.end - c.at));
    else
        dump_ram(out, c, tag);
    fputc('}', out);
    return ok;
}

int mull_state_dump(struct mull_state_reader *reader, FILE *out, struct mull_error *err)
{
    struct mull_state_section section;
    bool first = true;
    int r;

    fprintf(out, "{\"version\": %u, \"sections\": [", STATE_VERSION);
    while ((r = mull_state_next(reader, &section, err)) > 0) {
        if (!first)
            fputc(',', out);
        first = false;
        indent(out, 1);
        if (!dump_section(out, &section, reader)) {
            r = mull_fail(err, EPROTO, "state: %s %u: malformed", section.name, section.id);
            break;
        }
    }
    fprintf(out, "\n], \"complete\": %s}\n", r ? "false" : "true");
    if (!r && ferror(out))
        r = mull_fail(err, EIO, "state: the output cannot be written");
    return r;
}
