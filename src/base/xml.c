/* Reading XML with libexpat into a bounded tree, and writing it. See xml.h. */
#include "base/xml.h"

#include <errno.h>
#include <expat.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK (64u << 10)
#define STEP (64u << 10)
/* Between a name's namespace and itself: not allowed in either. */
#define SEPARATOR '\n'

struct block {
    struct block *next;
    size_t used, room;
    char bytes[];
};

struct mull_xml_document {
    struct block *blocks;
    struct mull_xml *root;
};

struct parse {
    struct mull_xml_document *doc;
    XML_Parser parser;
    struct mull_xml *at;
    unsigned depth, nodes;
    char *text[MULL_XML_DEPTH_MAX]; /* of the open elements */
    size_t text_len[MULL_XML_DEPTH_MAX], text_room[MULL_XML_DEPTH_MAX];
    const char *wrong; /* why we stopped */
    int code;
};

/* ---- Memory: everything of a document goes at once ---- */

static void *take(struct mull_xml_document *doc, size_t size)
{
    size = (size + 15) & ~(size_t)15;
    struct block *b = doc->blocks;
    if (!b || b->room - b->used < size) {
        size_t room = size > BLOCK ? size : BLOCK;
        b = malloc(sizeof(*b) + room);
        if (!b)
            return NULL;
        *b = (struct block){.next = doc->blocks, .room = room};
        doc->blocks = b;
    }
    void *p = b->bytes + b->used;
    b->used += size;
    return p;
}

static char *keep(struct mull_xml_document *doc, const char *text, size_t len)
{
    char *copy = take(doc, len + 1);
    if (copy) {
        memcpy(copy, text, len);
        copy[len] = '\0';
    }
    return copy;
}

static void stop(struct parse *p, int code, const char *why)
{
    if (!p->wrong) {
        p->wrong = why;
        p->code = code;
    }
    XML_StopParser(p->parser, XML_FALSE);
}

/* "namespace\nname" apart. */
static bool split(struct parse *p, const char *full, const char **space, const char **name)
{
    const char *at = strchr(full, SEPARATOR);
    *space = at ? keep(p->doc, full, (size_t)(at - full)) : "";
    at = at ? at + 1 : full;
    *name = keep(p->doc, at, strlen(at));
    return *space && *name;
}

/* ---- libexpat's calls ---- */

static void XMLCALL on_start(void *opaque, const char *name, const char **attributes)
{
    struct parse *p = opaque;
    if (p->wrong)
        return;
    if (p->depth == MULL_XML_DEPTH_MAX)
        return stop(p, E2BIG, "elements are nested too deeply");
    if (++p->nodes > MULL_XML_NODES_MAX)
        return stop(p, E2BIG, "too many elements");
    struct mull_xml *node = take(p->doc, sizeof(*node));
    unsigned count = 0;
    while (attributes[2 * count])
        count++;
    if (count > MULL_XML_ATTRIBUTES_MAX)
        return stop(p, E2BIG, "too many attributes");
    struct mull_xml_attribute *list = take(p->doc, (count + 1) * sizeof(*list));
    if (!node || !list)
        return stop(p, ENOMEM, "out of memory");
    *node = (struct mull_xml){.text = "",
                              .line = (unsigned)XML_GetCurrentLineNumber(p->parser),
                              .parent = p->at,
                              .attribute = list,
                              .attribute_count = count};
    if (!split(p, name, &node->space, &node->name))
        return stop(p, ENOMEM, "out of memory");
    for (unsigned i = 0; i < count; i++) {
        const char *value = attributes[2 * i + 1];
        list[i].value = keep(p->doc, value, strlen(value));
        if (!list[i].value || !split(p, attributes[2 * i], &list[i].space, &list[i].name))
            return stop(p, ENOMEM, "out of memory");
    }
    if (!p->at)
        p->doc->root = node;
    else if (p->at->last)
        p->at->last->next = node;
    else
        p->at->first = node;
    if (p->at)
        p->at->last = node;
    p->at = node;
    p->text_len[p->depth++] = 0;
}

static void XMLCALL on_text(void *opaque, const char *text, int len)
{
    struct parse *p = opaque;
    if (p->wrong || !p->depth)
        return;
    unsigned d = p->depth - 1;
    size_t want = p->text_len[d] + (size_t)len;
    if (want > p->text_room[d]) {
        size_t room = want < 256 ? 256 : want * 2;
        char *grown = realloc(p->text[d], room);
        if (!grown)
            return stop(p, ENOMEM, "out of memory");
        p->text[d] = grown;
        p->text_room[d] = room;
    }
    memcpy(p->text[d] + p->text_len[d], text, (size_t)len);
    p->text_len[d] = want;
}

static bool blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static void XMLCALL on_end(void *opaque, const char *name)
{
    struct parse *p = opaque;
    if (p->wrong || !p->depth)
        return;
    unsigned d = --p->depth;
    const char *text = p->text[d];
    size_t len = p->text_len[d];
    while (len && blank(*text)) {
        text++;
        len--;
    }
    while (len && blank(text[len - 1]))
        len--;
    if (len && !(p->at->text = keep(p->doc, text, len)))
        return stop(p, ENOMEM, "out of memory");
    p->at = p->at->parent;
}

/* Without a document type there are no entities to expand and nothing to fetch. */
static void XMLCALL on_doctype(void *opaque, const char *name, const char *system_id,
                               const char *public_id, int internal)
{
    stop(opaque, EPERM, "a document type declaration; such documents are refused");
}

static int feed(struct parse *p, const char *what, const char *data, size_t length,
                struct mull_error *err)
{
    for (size_t at = 0;;) {
        size_t n = length - at < STEP ? length - at : STEP;
        bool last = at + n == length;
        enum XML_Status status = XML_Parse(p->parser, data + at, (int)n, last);
        unsigned long line = XML_GetCurrentLineNumber(p->parser);
        if (p->wrong)
            return mull_fail(err, p->code, "%s: line %lu: %s", what, line, p->wrong);
        if (status != XML_STATUS_OK)
            return mull_fail(err, EINVAL, "%s: line %lu: %s", what, line,
                             XML_ErrorString(XML_GetErrorCode(p->parser)));
        if (last)
            return 0;
        at += n;
    }
}

int mull_xml_parse(const char *what, const void *data, size_t length,
                   struct mull_xml_document **out, struct mull_error *err)
{
    *out = NULL;
    if (length > MULL_XML_BYTES_MAX)
        return mull_fail(err, E2BIG, "%s: more than %u MiB of XML", what, MULL_XML_BYTES_MAX >> 20);
    struct parse *p = calloc(1, sizeof(*p));
    struct mull_xml_document *doc = calloc(1, sizeof(*doc));
    XML_Parser parser = XML_ParserCreateNS(NULL, SEPARATOR);
    int ret = 0;
    if (!p || !doc || !parser) {
        ret = mull_fail(err, ENOMEM, "%s: out of memory", what);
    } else {
        p->doc = doc;
        p->parser = parser;
        XML_SetUserData(parser, p);
        XML_SetElementHandler(parser, on_start, on_end);
        XML_SetCharacterDataHandler(parser, on_text);
        XML_SetStartDoctypeDeclHandler(parser, on_doctype);
        ret = feed(p, what, data, length, err);
    }
    if (parser)
        XML_ParserFree(parser);
    for (unsigned i = 0; p && i < MULL_XML_DEPTH_MAX; i++)
        free(p->text[i]);
    free(p);
    if (ret) {
        mull_xml_free(doc);
        return ret;
    }
    *out = doc;
    return 0;
}

void mull_xml_free(struct mull_xml_document *doc)
{
    if (!doc)
        return;
    while (doc->blocks) {
        struct block *b = doc->blocks;
        doc->blocks = b->next;
        free(b);
    }
    free(doc);
}

const struct mull_xml *mull_xml_root(const struct mull_xml_document *doc)
{
    return doc->root;
}

const struct mull_xml *mull_xml_child(const struct mull_xml *node, const char *name)
{
    const struct mull_xml *child = node ? node->first : NULL;
    while (child && strcmp(child->name, name))
        child = child->next;
    return child;
}

const struct mull_xml *mull_xml_again(const struct mull_xml *node)
{
    const char *name = node->name;
    do
        node = node->next;
    while (node && strcmp(node->name, name));
    return node;
}

const char *mull_xml_child_text(const struct mull_xml *node, const char *name)
{
    const struct mull_xml *child = mull_xml_child(node, name);
    return child ? child->text : NULL;
}

const char *mull_xml_attribute(const struct mull_xml *node, const char *name)
{
    for (unsigned i = 0; node && i < node->attribute_count; i++)
        if (!strcmp(node->attribute[i].name, name))
            return node->attribute[i].value;
    return NULL;
}

/* ---- Writing ---- */

void mull_xml_begin(struct mull_xml_writer *w, FILE *out)
{
    *w = (struct mull_xml_writer){.out = out};
    fputs("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n", out);
}

/* Length of the UTF-8 sequence at @s of a character that XML allows (XML 1.0, 2.2), or 0. */
static unsigned character(const unsigned char *s)
{
    if (*s < 0x80)
        return *s >= 0x20 || *s == '\t' || *s == '\n' || *s == '\r';
    unsigned n = *s >= 0xf0 && *s < 0xf5 ? 4 : *s >= 0xe0 && *s < 0xf0 ? 3 : *s >= 0xc2 ? 2 : 0;
    if (*s >= 0xf5)
        return 0;
    uint32_t c = n ? *s & (0x7fu >> n) : 0;
    for (unsigned i = 1; i < n; i++) {
        if ((s[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (s[i] & 0x3fu);
    }
    static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
    bool good = n && c >= least[n] && c <= 0x10ffff && (c < 0xd800 || c > 0xdfff) && c != 0xfffe &&
                c != 0xffff;
    return good ? n : 0;
}

static void escape(FILE *out, const char *text, bool attribute)
{
    for (const unsigned char *s = (const unsigned char *)text; *s;) {
        unsigned n = character(s);
        if (*s == '&')
            fputs("&amp;", out);
        else if (*s == '<')
            fputs("&lt;", out);
        else if (*s == '>')
            fputs("&gt;", out);
        else if (*s == '\r' || (attribute && (*s == '"' || *s == '\n' || *s == '\t')))
            fprintf(out, "&#%u;", *s);
        else if (n)
            fwrite(s, 1, n, out);
        else
            fputc('?', out); /* XML has no way to say it */
        s += n ? n : 1;
    }
}

static void finish_tag(struct mull_xml_writer *w)
{
    if (w->open)
        fputs(">", w->out);
    w->open = false;
}

void mull_xml_start(struct mull_xml_writer *w, const char *name)
{
    finish_tag(w);
    fprintf(w->out, "%s%*s<%s", w->depth ? "\n" : "", (int)(2 * w->depth), "", name);
    w->depth++;
    w->open = true;
    w->inside = false;
}

void mull_xml_put(struct mull_xml_writer *w, const char *name, const char *value)
{
    if (!value)
        return;
    fprintf(w->out, " %s=\"", name);
    escape(w->out, value, true);
    fputc('"', w->out);
}

void mull_xml_put_number(struct mull_xml_writer *w, const char *name, uint64_t value)
{
    fprintf(w->out, " %s=\"%llu\"", name, (unsigned long long)value);
}

void mull_xml_text(struct mull_xml_writer *w, const char *text)
{
    finish_tag(w);
    escape(w->out, text, false);
    w->inside = true;
}

void mull_xml_end(struct mull_xml_writer *w, const char *name)
{
    w->depth--;
    if (w->open)
        fputs("/>", w->out);
    else if (w->inside)
        fprintf(w->out, "</%s>", name);
    else
        fprintf(w->out, "\n%*s</%s>", (int)(2 * w->depth), "", name);
    w->open = w->inside = false;
    if (!w->depth)
        fputc('\n', w->out);
}

void mull_xml_element(struct mull_xml_writer *w, const char *name, const char *text)
{
    if (!text)
        return;
    mull_xml_start(w, name);
    mull_xml_text(w, text);
    mull_xml_end(w, name);
}

void mull_xml_element_number(struct mull_xml_writer *w, const char *name, uint64_t value)
{
    char text[24];
    snprintf(text, sizeof(text), "%llu", (unsigned long long)value);
    mull_xml_element(w, name, text);
}
