/*
 * VMX files: an ordered dictionary of `name = "value"` lines. Names are compared without case, as
 * VMware does. Knows the text, not what a name means.
 */
#ifndef MULL_IMAGE_OVF_VMX_H
#define MULL_IMAGE_OVF_VMX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/error.h"

#define MULL_VMX_BYTES_MAX (1u << 20)
#define MULL_VMX_ENTRIES_MAX 8192u

struct mull_vmx_entry {
    char *name, *value; /* UTF-8, unescaped */
    bool used;          /* a reader's own mark */
};

struct mull_vmx {
    uint32_t count;
    struct mull_vmx_entry *entry;
};

/** @param what  the file's name, for messages. A name that is there twice is an error. */
int mull_vmx_parse(const char *what, const char *text, size_t length, struct mull_vmx *out,
                   struct mull_error *err);
void mull_vmx_free(struct mull_vmx *vmx);

/** The value, or NULL; marks it as used. */
const char *mull_vmx_get(struct mull_vmx *vmx, const char *name);
/** The same for a printf-formatted name. */
const char *mull_vmx_getf(struct mull_vmx *vmx, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/** Whether it is "TRUE" (any case) or a number but 0. */
bool mull_vmx_true(const char *value);

/** Set a value, replacing an old one. @return 0 or -ENOMEM */
int mull_vmx_set(struct mull_vmx *vmx, const char *name, const char *value);
int mull_vmx_setf(struct mull_vmx *vmx, const char *value, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/** Write all of it; errors show in ferror(). */
void mull_vmx_write(const struct mull_vmx *vmx, FILE *out);

#endif
