/*
 * XML from strangers, as a bounded tree, and XML for others. Reading refuses document type
 * declarations (so there are no entities but the five of XML itself), deep nesting and sizes beyond
 * what any description of a machine needs. Knows elements, not what they mean.
 */
#ifndef MULL_BASE_XML_H
#define MULL_BASE_XML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/error.h"

#define MULL_XML_BYTES_MAX (16u << 20)
#define MULL_XML_DEPTH_MAX 64u
#define MULL_XML_NODES_MAX 200000u
#define MULL_XML_ATTRIBUTES_MAX 64u

struct mull_xml_attribute {
    const char *space; /* namespace URI, "" if none */
    const char *name;
    const char *value;
};

/** One element. All strings and nodes belong to the document. */
struct mull_xml {
    const char *space, *name;
    const char *text; /* its own character data without surrounding white space, never NULL */
    unsigned line;
    unsigned attribute_count;
    const struct mull_xml_attribute *attribute;
    struct mull_xml *parent, *first, *last, *next;
};

struct mull_xml_document;

/**
 * Parse a whole document.
 *
 * @param what  its name, for messages
 * @param out   to be freed with mull_xml_free()
 */
int mull_xml_parse(const char *what, const void *data, size_t length,
                   struct mull_xml_document **out, struct mull_error *err);

void mull_xml_free(struct mull_xml_document *document);

/** The outermost element. */
const struct mull_xml *mull_xml_root(const struct mull_xml_document *document);

/** The first child of that name in any namespace, or NULL. @p node may be NULL. */
const struct mull_xml *mull_xml_child(const struct mull_xml *node, const char *name);

/** The next sibling of the same name, or NULL. */
const struct mull_xml *mull_xml_again(const struct mull_xml *node);

/** The text of a child; NULL where there is no such child. */
const char *mull_xml_child_text(const struct mull_xml *node, const char *name);

/** An attribute's value in any namespace, or NULL. @p node may be NULL. */
const char *mull_xml_attribute(const struct mull_xml *node, const char *name);

/* ---- Writing ---- */

/** Writes indented elements to a stream; errors show in ferror() of it. */
struct mull_xml_writer {
    FILE *out;
    unsigned depth;
    bool open;   /* the last start tag can still get attributes */
    bool inside; /* the last element has text: its end tag follows at once */
};

/** Start the document. */
void mull_xml_begin(struct mull_xml_writer *w, FILE *out);
void mull_xml_start(struct mull_xml_writer *w, const char *name);
/** An attribute of the element just started; NULL: none. */
void mull_xml_put(struct mull_xml_writer *w, const char *name, const char *value);
void mull_xml_put_number(struct mull_xml_writer *w, const char *name, uint64_t value);
void mull_xml_text(struct mull_xml_writer *w, const char *text);
void mull_xml_end(struct mull_xml_writer *w, const char *name);
/** An element with nothing but text; NULL: none. */
void mull_xml_element(struct mull_xml_writer *w, const char *name, const char *text);
void mull_xml_element_number(struct mull_xml_writer *w, const char *name, uint64_t value);

#endif
