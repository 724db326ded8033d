/* VMX dictionaries: reading and writing. See vmx.h. */
#include "image/ovf/vmx.h"

#include <ctype.h>
#include <errno.h>
#include <iconv.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define NAME_MAX_LENGTH 256u

static struct mull_vmx_entry *find(const struct mull_vmx *vmx, const char *name)
{
    for (uint32_t i = 0; i < vmx->count; i++)
        if (!strcasecmp(vmx->entry[i].name, name))
            return &vmx->entry[i];
    return NULL;
}

/* Take @name and @value over. */
static int append(struct mull_vmx *vmx, char *name, char *value)
{
    struct mull_vmx_entry *grown = NULL;
    if (name && value)
        grown = realloc(vmx->entry, (vmx->count + 1) * sizeof(*grown));
    if (!grown) {
        free(name);
        free(value);
        return -ENOMEM;
    }
    vmx->entry = grown;
    vmx->entry[vmx->count++] = (struct mull_vmx_entry){.name = name, .value = value};
    return 0;
}

static int hex(char c)
{
    return isdigit((unsigned char)c)    ? c - '0'
           : isxdigit((unsigned char)c) ? tolower((unsigned char)c) - 'a' + 10
                                        : -1;
}

/* "|22" is a quotation mark, "|0A" the end of a line; zero bytes are left as they were written. */
static char *unescape(const char *text, size_t length)
{
    char *out = malloc(length + 1), *to = out;
    for (size_t i = 0; out && i < length; i++) {
        int high = text[i] == '|' && length - i > 2 ? hex(text[i + 1]) : -1;
        int low = high >= 0 ? hex(text[i + 2]) : -1;
        if (low >= 0 && (high || low)) {
            *to++ = (char)(high << 4 | low);
            i += 2;
        } else {
            *to++ = text[i];
        }
    }
    if (out)
        *to = '\0';
    return out;
}

static int bad(struct mull_error *err, const char *what, unsigned line, const char *why)
{
    return mull_fail(err, EINVAL, "%s: line %u: %s", what, line, why);
}

static int parse_line(const char *what, unsigned number, const char *p, const char *end,
                      struct mull_vmx *vmx, struct mull_error *err)
{
    while (p < end && isspace((unsigned char)*p))
        p++;
    while (end > p && isspace((unsigned char)end[-1]))
        end--;
    if (p == end || *p == '#')
        return 0;
    const char *name = p;
    while (p < end && *p != '=' && !isspace((unsigned char)*p) && *p != '"')
        p++;
    size_t name_length = (size_t)(p - name);
    while (p < end && isspace((unsigned char)*p))
        p++;
    if (!name_length || name_length > NAME_MAX_LENGTH || p == end || *p++ != '=')
        return bad(err, what, number, "is not 'name = \"value\"'");
    while (p < end && isspace((unsigned char)*p))
        p++;
    if (p < end && *p == '"') {
        const char *close = memchr(p + 1, '"', (size_t)(end - p - 1));
        if (!close)
            return bad(err, what, number, "a quotation mark is missing");
        p++;
        end = close;
    }
    if (vmx->count == MULL_VMX_ENTRIES_MAX)
        return bad(err, what, number, "too many entries");
    char *copy = strndup(name, name_length);
    if (copy && find(vmx, copy)) {
        int ret = mull_fail(err, EEXIST, "%s: line %u: %s is there twice", what, number, copy);
        free(copy);
        return ret;
    }
    if (append(vmx, copy, unescape(p, (size_t)(end - p))))
        return mull_fail(err, ENOMEM, "%s: out of memory", what);
    return 0;
}

/* From the encoding that the file names. @return malloc'ed, or NULL: it cannot be */
static char *to_utf8(const char *text, const char *encoding)
{
    iconv_t cd = iconv_open("UTF-8", encoding);
    if (cd == (iconv_t)-1)
        return NULL;
    size_t in_left = strlen(text), room = in_left * 4 + 1, out_left = room - 1;
    char *out = malloc(room), *to = out, *from = (char *)(uintptr_t)text;
    if (out && iconv(cd, &from, &in_left, &to, &out_left) == (size_t)-1) {
        free(out);
        out = NULL;
    }
    if (out)
        *to = '\0';
    iconv_close(cd);
    return out;
}

static int decode(const char *what, struct mull_vmx *vmx, struct mull_error *err)
{
    const struct mull_vmx_entry *e = find(vmx, ".encoding");
    if (!e || !strcasecmp(e->value, "UTF-8"))
        return 0;
    char *encoding = strdup(e->value);
    for (uint32_t i = 0; encoding && i < vmx->count; i++) {
        char *value = to_utf8(vmx->entry[i].value, encoding);
        if (!value) {
            int ret = mull_fail(err, EILSEQ, "%s: %s is not text in '%.40s'", what,
                                vmx->entry[i].name, encoding);
            free(encoding);
            return ret;
        }
        free(vmx->entry[i].value);
        vmx->entry[i].value = value;
    }
    free(encoding);
    return mull_vmx_set(vmx, ".encoding", "UTF-8");
}

int mull_vmx_parse(const char *what, const char *text, size_t length, struct mull_vmx *out,
                   struct mull_error *err)
{
    *out = (struct mull_vmx){0};
    if (length > MULL_VMX_BYTES_MAX)
        return mull_fail(err, E2BIG, "%s: more than 1 MiB; is this a VMX file?", what);
    if (memchr(text, 0, length))
        return mull_fail(err, EINVAL, "%s: has zero bytes; is this a VMX file?", what);
    int ret = 0;
    unsigned number = 1;
    for (size_t at = 0; at < length && !ret; number++) {
        const char *newline = memchr(text + at, '\n', length - at);
        size_t n = newline ? (size_t)(newline - (text + at)) : length - at;
        ret = parse_line(what, number, text + at, text + at + n, out, err);
        at += n + 1;
    }
    if (!ret && !out->count)
        ret = mull_fail(err, EINVAL, "%s: an empty VMX file", what);
    if (!ret)
        ret = decode(what, out, err);
    if (ret)
        mull_vmx_free(out);
    return ret;
}

void mull_vmx_free(struct mull_vmx *vmx)
{
    for (uint32_t i = 0; i < vmx->count; i++) {
        free(vmx->entry[i].name);
        free(vmx->entry[i].value);
    }
    free(vmx->entry);
    *vmx = (struct mull_vmx){0};
}

const char *mull_vmx_get(struct mull_vmx *vmx, const char *name)
{
    struct mull_vmx_entry *e = find(vmx, name);
    if (!e)
        return NULL;
    e->used = true;
    return e->value;
}

const char *mull_vmx_getf(struct mull_vmx *vmx, const char *fmt, ...)
{
    char name[NAME_MAX_LENGTH];
    va_list args;
    va_start(args, fmt);
    vsnprintf(name, sizeof(name), fmt, args);
    va_end(args);
    return mull_vmx_get(vmx, name);
}

bool mull_vmx_true(const char *value)
{
    return value && (!strcasecmp(value, "true") || !strcasecmp(value, "yes") ||
                     strtol(value, NULL, 10) != 0);
}

int mull_vmx_set(struct mull_vmx *vmx, const char *name, const char *value)
{
    struct mull_vmx_entry *e = find(vmx, name);
    char *copy = strdup(value);
    if (!e)
        return append(vmx, strdup(name), copy);
    if (!copy)
        return -ENOMEM;
    free(e->value);
    e->value = copy;
    return 0;
}

int mull_vmx_setf(struct mull_vmx *vmx, const char *value, const char *fmt, ...)
{
    char name[NAME_MAX_LENGTH];
    va_list args;
    va_start(args, fmt);
    vsnprintf(name, sizeof(name), fmt, args);
    va_end(args);
    return mull_vmx_set(vmx, name, value);
}

void mull_vmx_write(const struct mull_vmx *vmx, FILE *out)
{
    for (uint32_t i = 0; i < vmx->count; i++) {
        fprintf(out, "%s = \"", vmx->entry[i].name);
        for (const char *p = vmx->entry[i].value; *p; p++) {
            if (*p == '"' || *p == '|' || (unsigned char)*p < ' ')
                fprintf(out, "|%02X", (unsigned char)*p);
            else
                fputc(*p, out);
        }
        fputs("\"\n", out);
    }
}
