/*
 * State has one description: a versioned table of the fields of a struct. Saving, restoring,
 * migrating and inspecting a device, controller or CPU all work from it (src/state does the work).
 * Knows nothing of machines; a device needs only this header to describe itself.
 */
#ifndef MULL_BASE_FIELDS_H
#define MULL_BASE_FIELDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum mull_field_kind {
    MULL_FIELD_UINT,   /* unsigned integer of 1, 2, 4 or 8 bytes; stored little-endian */
    MULL_FIELD_BYTES,  /* opaque bytes, stored as they are */
    MULL_FIELD_STRUCT, /* nested struct, described by `nested` */
    MULL_FIELD_BOOL,   /* a bool: stored as UINT, loaded only if 0 or 1 */
};

struct mull_state_desc;

/** One field. `count` > 1 makes an array of elements `size` bytes each. */
struct mull_field {
    const char *name;
    enum mull_field_kind kind;
    uint32_t offset;
    uint32_t size;
    uint32_t count;
    uint32_t since; /* the description's version that brought the field */
    const struct mull_state_desc *nested;
    /* BYTES: not 0: the member is a pointer, and the uint32_t at this offset says to how many bytes;
     * both are the object's own and not loaded. */
    uint32_t length_at;
};

/** The description of one kind of state. Static and constant. */
struct mull_state_desc {
    const char *name;                /* stable, e.g. "virtio-blk", "lapic" */
    uint32_t version;                /* what this code writes */
    uint32_t oldest;                 /* the oldest version this code still reads */
    const struct mull_field *fields; /* ends with a field whose name is NULL */
    /* Bring the struct up to date before it is written (may be NULL). */
    void (*before_save)(void *object);
    /* Validate and derive after a load: everything read is untrusted (may be NULL). */
    int (*after_load)(void *object, uint32_t version, struct mull_error *err);
};

/* The macros below tell bool from other integers by themselves. */
#define MULL_FIELD_KIND_OF(value)                                                                  \
    _Generic((value), bool : MULL_FIELD_BOOL, default : MULL_FIELD_UINT)

#define MULL_FIELD(type, member)                                                                   \
    {                                                                                              \
        .name = #member, .kind = MULL_FIELD_KIND_OF(((type *)0)->member),                          \
        .offset = offsetof(type, member), .size = sizeof(((type *)0)->member), .count = 1,         \
        .since = 1                                                                                 \
    }
/* A field that version @v of the description brought. */
#define MULL_FIELD_SINCE(v, type, member)                                                          \
    {                                                                                              \
        .name = #member, .kind = MULL_FIELD_KIND_OF(((type *)0)->member),                          \
        .offset = offsetof(type, member), .size = sizeof(((type *)0)->member), .count = 1,         \
        .since = (v)                                                                               \
    }
#define MULL_FIELD_ARRAY(type, member)                                                             \
    {                                                                                              \
        .name = #member, .kind = MULL_FIELD_KIND_OF(((type *)0)->member[0]),                       \
        .offset = offsetof(type, member), .size = sizeof(((type *)0)->member[0]),                  \
        .count = sizeof(((type *)0)->member) / sizeof(((type *)0)->member[0]), .since = 1          \
    }
#define MULL_FIELD_BLOB(type, member)                                                              \
    {                                                                                              \
        .name = #member, .kind = MULL_FIELD_BYTES, .offset = offsetof(type, member),               \
        .size = sizeof(((type *)0)->member), .count = 1, .since = 1                                \
    }
/* Bytes behind a pointer, which came with version @v. The struct's first member is something else. */
#define MULL_FIELD_BEHIND(v, type, member, length)                                                 \
    {                                                                                              \
        .name = #member, .kind = MULL_FIELD_BYTES, .offset = offsetof(type, member), .count = 1,   \
        .since = (v), .length_at = offsetof(type, length)                                          \
    }
#define MULL_FIELD_NESTED(type, member, desc)                                                      \
    {                                                                                              \
        .name = #member, .kind = MULL_FIELD_STRUCT, .offset = offsetof(type, member),              \
        .size = sizeof(((type *)0)->member), .count = 1, .since = 1, .nested = (desc)              \
    }
#define MULL_FIELD_NESTED_ARRAY(type, member, desc)                                                \
    {                                                                                              \
        .name = #member, .kind = MULL_FIELD_STRUCT, .offset = offsetof(type, member),              \
        .size = sizeof(((type *)0)->member[0]),                                                    \
        .count = sizeof(((type *)0)->member) / sizeof(((type *)0)->member[0]), .since = 1,         \
        .nested = (desc)                                                                           \
    }
#define MULL_FIELDS_END                                                                            \
    {                                                                                              \
        .name = NULL                                                                               \
    }

#endif
