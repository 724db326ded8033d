/* The builder of ACPI Machine Language: see aml.h. */
#include "platform/aml.h"

#include <string.h>

static void put8(struct mull_aml *a, uint8_t v)
{
    if (a->size < a->max)
        a->data[a->size++] = v;
    else
        a->failed = true;
}

static void put(struct mull_aml *a, uint64_t v, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        put8(a, (uint8_t)(v >> 8 * i));
}

/* NameSeg: four characters (20.2.2). */
static const char *put_segment(struct mull_aml *a, const char *s)
{
    unsigned n = 0;
    for (; n < 4 && *s && *s != '.'; n++)
        put8(a, (uint8_t)*s++);
    for (; n < 4; n++)
        put8(a, '_');
    return *s == '.' ? s + 1 : s;
}

static void put_path(struct mull_aml *a, const char *name)
{
    unsigned segments = 1;

    if (*name == '\\')
        put8(a, (uint8_t)*name++);
    for (const char *s = name; *s; s++)
        segments += *s == '.';
    if (segments == 2) {
        put8(a, 0x2e); /* DualNamePrefix */
    } else if (segments > 2) {
        put8(a, 0x2f); /* MultiNamePrefix */
        put8(a, (uint8_t)segments);
    }
    while (segments--)
        name = put_segment(a, name);
}

/* PkgLength (20.2.4) is written when the object ends: up to four bytes are put in then. */
static void open_object(struct mull_aml *a)
{
    if (a->depth == MULL_AML_DEPTH) {
        a->failed = true;
        return;
    }
    a->open[a->depth++] = a->size;
}

void mull_aml_end(struct mull_aml *a)
{
    if (a->failed || a->depth == 0) {
        a->failed = true;
        return;
    }
    size_t at = a->open[--a->depth];
    size_t length = a->size - at;
    unsigned bytes = length + 1 < 0x40       ? 1
                     : length + 2 < 0x1000   ? 2
                     : length + 3 < 0x100000 ? 3
                                             : 4;

    if (a->max - a->size < bytes) {
        a->failed = true;
        return;
    }
    memmove(a->data + at + bytes, a->data + at, length);
    a->size += bytes;
    length += bytes;
    if (bytes == 1) {
        a->data[at] = (uint8_t)length;
        return;
    }
    a->data[at] = (uint8_t)((bytes - 1) << 6 | (length & 15));
    for (unsigned i = 1; i < bytes; i++)
        a->data[at + i] = (uint8_t)(length >> (4 + 8 * (i - 1)));
}

void mull_aml_begin(struct mull_aml *a, uint8_t *data, size_t max)
{
    *a = (struct mull_aml){.data = data, .max = max};
}

void mull_aml_scope(struct mull_aml *a, const char *name)
{
    put8(a, 0x10);
    open_object(a);
    put_path(a, name);
}

void mull_aml_device(struct mull_aml *a, const char *name)
{
    put(a, 0x825b, 2);
    open_object(a);
    put_path(a, name);
}

void mull_aml_method(struct mull_aml *a, const char *name, unsigned args)
{
    put8(a, 0x14);
    open_object(a);
    put_path(a, name);
    put8(a, (uint8_t)(args & 7));
}

void mull_aml_method_serialized(struct mull_aml *a, const char *name, unsigned args)
{
    mull_aml_method(a, name, args);
    if (a->size)
        a->data[a->size - 1] |= 8;
}

void mull_aml_if(struct mull_aml *a)
{
    put8(a, 0xa0);
    open_object(a);
}

void mull_aml_package(struct mull_aml *a, unsigned elements)
{
    put8(a, 0x12);
    open_object(a);
    put8(a, (uint8_t)elements);
}

void mull_aml_name(struct mull_aml *a, const char *name)
{
    put8(a, 0x08);
    put_path(a, name);
}

void mull_aml_int(struct mull_aml *a, uint64_t value)
{
    if (value <= 1) {
        put8(a, (uint8_t)value); /* ZeroOp, OneOp */
    } else if (value <= 0xff) {
        put8(a, 0x0a);
        put(a, value, 1);
    } else if (value <= 0xffff) {
        put8(a, 0x0b);
        put(a, value, 2);
    } else if (value <= 0xffffffff) {
        put8(a, 0x0c);
        put(a, value, 4);
    } else {
        put8(a, 0x0e);
        put(a, value, 8);
    }
}

void mull_aml_string(struct mull_aml *a, const char *text)
{
    put8(a, 0x0d);
    while (*text)
        put8(a, (uint8_t)*text++);
    put8(a, 0);
}

static unsigned hex(char c)
{
    return c >= 'A' ? (unsigned)(c - 'A' + 10) : (unsigned)(c - '0');
}

/* Three compressed letters, four hexadecimal digits, big-endian (19.3.4). */
void mull_aml_eisaid(struct mull_aml *a, const char *id)
{
    uint32_t v = (uint32_t)(id[0] - '@') << 26 | (uint32_t)(id[1] - '@') << 21 |
                 (uint32_t)(id[2] - '@') << 16 | hex(id[3]) << 12 | hex(id[4]) << 8 |
                 hex(id[5]) << 4 | hex(id[6]);
    put8(a, 0x0c);
    put(a, __builtin_bswap32(v), 4);
}

void mull_aml_return(struct mull_aml *a)
{
    put8(a, 0xa4);
}

void mull_aml_buffer(struct mull_aml *a, const uint8_t *bytes, uint8_t count)
{
    put8(a, 0x11);
    open_object(a);
    mull_aml_int(a, count);
    for (unsigned i = 0; i < count; i++)
        put8(a, bytes[i]);
    mull_aml_end(a);
}

/* ---- Expressions and statements (20.2.5) ---- */

void mull_aml_path(struct mull_aml *a, const char *name)
{
    put_path(a, name);
}

void mull_aml_arg(struct mull_aml *a, unsigned index)
{
    put8(a, (uint8_t)(0x68 + index));
}

void mull_aml_op(struct mull_aml *a, enum mull_aml_op op)
{
    put8(a, (uint8_t)op);
}

void mull_aml_no_target(struct mull_aml *a)
{
    put8(a, 0);
}

void mull_aml_store(struct mull_aml *a)
{
    put8(a, 0x70);
}

void mull_aml_notify(struct mull_aml *a, const char *object, uint64_t value)
{
    put8(a, 0x86);
    put_path(a, object);
    mull_aml_int(a, value);
}

void mull_aml_create_qword(struct mull_aml *a, const char *buffer, unsigned offset,
                           const char *name)
{
    put8(a, 0x8f);
    put_path(a, buffer);
    mull_aml_int(a, offset);
    put_path(a, name);
}

/* ---- Registers (20.2.5.2) ---- */

void mull_aml_region(struct mull_aml *a, const char *name, uint64_t base, uint32_t size)
{
    put(a, 0x805b, 2);
    put_path(a, name);
    put8(a, 0); /* SystemMemory */
    mull_aml_int(a, base);
    mull_aml_int(a, size);
}

void mull_aml_field(struct mull_aml *a, const char *region)
{
    put(a, 0x815b, 2);
    open_object(a);
    put_path(a, region);
    put8(a, 0x43); /* DWordAcc, NoLock, WriteAsZeros */
}

/* The number of bits, encoded as a PkgLength. */
static void put_bits(struct mull_aml *a, unsigned bits)
{
    if (bits < 0x40) {
        put8(a, (uint8_t)bits);
        return;
    }
    put8(a, (uint8_t)(0x40 | (bits & 15)));
    put8(a, (uint8_t)(bits >> 4));
    a->failed |= bits > 0xfff;
}

void mull_aml_field_unit(struct mull_aml *a, const char *name, unsigned bits)
{
    put_path(a, name);
    put_bits(a, bits);
}

void mull_aml_field_skip(struct mull_aml *a, unsigned bits)
{
    put8(a, 0); /* ReservedField */
    put_bits(a, bits);
}

/* Name(name, Buffer(n) {...}): the size is a word constant, filled in at the end. */
void mull_aml_resources(struct mull_aml *a, const char *name)
{
    mull_aml_name(a, name);
    put8(a, 0x11);
    open_object(a);
    put8(a, 0x0b);
    put(a, 0, 2);
}

void mull_aml_resources_end(struct mull_aml *a)
{
    put(a, 0x0079, 2); /* end tag; checksum 0: not computed */
    if (a->failed || a->depth == 0)
        return;
    size_t at = a->open[a->depth - 1];
    size_t length = a->size - at - 3;
    a->data[at + 1] = (uint8_t)length;
    a->data[at + 2] = (uint8_t)(length >> 8);
    mull_aml_end(a);
}

void mull_aml_res_io(struct mull_aml *a, uint16_t base, uint8_t length)
{
    put(a, 0x0147, 2); /* I/O port descriptor, decodes 16 bits */
    put(a, base, 2);
    put(a, base, 2);
    put8(a, 1);
    put8(a, length);
}

void mull_aml_res_irq(struct mull_aml *a, unsigned irq)
{
    put8(a, 0x22); /* IRQ descriptor without flags: edge, active high, exclusive */
    put(a, 1u << (irq & 15), 2);
}

void mull_aml_res_memory32(struct mull_aml *a, uint32_t base, uint32_t length, bool writable)
{
    put8(a, 0x86); /* 32-bit fixed memory range descriptor */
    put(a, 9, 2);
    put8(a, writable);
    put(a, base, 4);
    put(a, length, 4);
}

/* Word, double word and quad word address space descriptors (6.4.3.5): fixed, positive decode. */
static void address_space(struct mull_aml *a, uint8_t tag, unsigned bytes, uint8_t type,
                          uint8_t type_flags, uint64_t first, uint64_t last)
{
    put8(a, tag);
    put(a, 3 + 5 * bytes, 2);
    put8(a, type);
    put8(a, 0x0c); /* minimum and maximum are fixed; produced for what lies behind */
    put8(a, type_flags);
    put(a, 0, bytes); /* granularity */
    put(a, first, bytes);
    put(a, last, bytes);
    put(a, 0, bytes); /* translation */
    put(a, last - first + 1, bytes);
}

void mull_aml_res_bus_range(struct mull_aml *a, uint16_t first, uint16_t last)
{
    address_space(a, 0x88, 2, 2, 0, first, last);
}

void mull_aml_res_io_range(struct mull_aml *a, uint16_t first, uint16_t last)
{
    address_space(a, 0x88, 2, 1, 3, first, last); /* the entire range */
}

void mull_aml_res_memory_range(struct mull_aml *a, uint64_t first, uint64_t last)
{
    bool wide = last > 0xffffffff;
    address_space(a, wide ? 0x8a : 0x87, wide ? 8 : 4, 0, 1, first, last); /* read-write */
}
