/*
 * A builder of ACPI Machine Language: enough of it to describe a machine. Writes into a buffer of
 * its own; an overflow is remembered, so that only the end result has to be checked.
 * ACPI 6.4, chapter 20.
 */
#ifndef MULL_PLATFORM_AML_H
#define MULL_PLATFORM_AML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MULL_AML_DEPTH 8

struct mull_aml {
    uint8_t *data;
    size_t size, max;
    size_t open[MULL_AML_DEPTH]; /* where the PkgLength of each open object begins */
    unsigned depth;
    bool failed; /* too large or too deep */
};

/** Write into @data of @max bytes, which stays the caller's. */
void mull_aml_begin(struct mull_aml *a, uint8_t *data, size_t max);

/** Objects with a body; each ends with mull_aml_end(). Names are paths as in ASL ("\\_SB",
 *  "PCI0", "_S5"), segments padded with underscores by the builder. */
void mull_aml_scope(struct mull_aml *a, const char *name);
void mull_aml_device(struct mull_aml *a, const char *name);
void mull_aml_method(struct mull_aml *a, const char *name, unsigned args);
/** A method that makes objects of its own, and so runs once at a time. */
void mull_aml_method_serialized(struct mull_aml *a, const char *name, unsigned args);
/** If: the condition follows, then what is done. */
void mull_aml_if(struct mull_aml *a);
/** Field in a region: mull_aml_field_unit() and mull_aml_field_skip() until its end. Accessed as
 *  32 bits; writing some bits writes zeroes to the others. */
void mull_aml_field(struct mull_aml *a, const char *region);
void mull_aml_package(struct mull_aml *a, unsigned elements);
/** Buffer(){...} of resource descriptors: mull_aml_res_*() between begin and end. */
void mull_aml_resources(struct mull_aml *a, const char *name);
void mull_aml_resources_end(struct mull_aml *a);
void mull_aml_end(struct mull_aml *a);

/** Name(name, ...): the value follows as a call of its own. */
void mull_aml_name(struct mull_aml *a, const char *name);
void mull_aml_int(struct mull_aml *a, uint64_t value);
void mull_aml_string(struct mull_aml *a, const char *text);
/** EISAID("PNP0A08") */
void mull_aml_eisaid(struct mull_aml *a, const char *id);
/** Return(...): the value follows. */
void mull_aml_return(struct mull_aml *a);
/** Buffer() {...} of bytes, at most 63. */
void mull_aml_buffer(struct mull_aml *a, const uint8_t *bytes, uint8_t count);

/** A named object as a value, or a call of a method: its arguments follow. */
void mull_aml_path(struct mull_aml *a, const char *name);
/** Arg0 to Arg6. */
void mull_aml_arg(struct mull_aml *a, unsigned index);
/** Two values follow, then mull_aml_no_target(). */
enum mull_aml_op { MULL_AML_SHIFT_LEFT = 0x79, MULL_AML_AND = 0x7b, MULL_AML_OR = 0x7d };
void mull_aml_op(struct mull_aml *a, enum mull_aml_op op);
void mull_aml_no_target(struct mull_aml *a);
/** Store(value, name): the value follows, then mull_aml_path(). */
void mull_aml_store(struct mull_aml *a);
/** Notify(object, value) */
void mull_aml_notify(struct mull_aml *a, const char *object, uint64_t value);
/** CreateQWordField(buffer, offset, name) */
void mull_aml_create_qword(struct mull_aml *a, const char *buffer, unsigned offset,
                           const char *name);

/** OperationRegion(name, SystemMemory, base, size) */
void mull_aml_region(struct mull_aml *a, const char *name, uint64_t base, uint32_t size);
void mull_aml_field_unit(struct mull_aml *a, const char *name, unsigned bits);
void mull_aml_field_skip(struct mull_aml *a, unsigned bits);

/* Resource descriptors (ACPI 6.4, 6.4). */
void mull_aml_res_io(struct mull_aml *a, uint16_t base, uint8_t length);
void mull_aml_res_irq(struct mull_aml *a, unsigned irq);
void mull_aml_res_memory32(struct mull_aml *a, uint32_t base, uint32_t length, bool writable);
/** Address spaces that a bridge hands down: bus numbers, I/O, 32- and 64-bit memory. */
void mull_aml_res_bus_range(struct mull_aml *a, uint16_t first, uint16_t last);
void mull_aml_res_io_range(struct mull_aml *a, uint16_t first, uint16_t last);
void mull_aml_res_memory_range(struct mull_aml *a, uint64_t first, uint64_t last);

#endif
