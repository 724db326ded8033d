/*
 * The save stream: what a machine is saved, cloned and migrated as. A sequence of sections, each
 * with its length and CRC32C, that describe themselves: fields go by their names, so that a reader
 * can skip what it does not know and a person can look at it (mull_state_dump). docs/state.md has
 * the format. Knows state descriptions (base/fields.h) and guest memory, not machines or devices.
 */
#ifndef MULL_STATE_STATE_H
#define MULL_STATE_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/error.h"
#include "base/fields.h"
#include "memory/memory.h"

#define MULL_STATE_NAME_MAX 63             /* bytes of a section's, description's or field's name */
#define MULL_STATE_SECTION_MAX (64u << 20) /* bytes of one section's payload */

/* ---- Writing ---- */

struct mull_state_writer;

/** Write to a descriptor (file, pipe, socket), which stays the caller's. One thread. */
int mull_state_writer_fd(int fd, struct mull_state_writer **out, struct mull_error *err);

/** Write to memory; see mull_state_writer_data(). */
int mull_state_writer_buffer(struct mull_state_writer **out, struct mull_error *err);

/** NULL is allowed. */
void mull_state_writer_destroy(struct mull_state_writer *writer);

/**
 * Write the state of one object.
 *
 * @param name      which object it is, unique among those of one id: "cpu", "virtio-blk.0"
 * @param id        its number among equals (a vCPU's index), or 0
 * @param object    what @desc describes; desc->before_save is called on it
 */
int mull_state_write(struct mull_state_writer *writer, const char *name, uint32_t id,
                     const struct mull_state_desc *desc, void *object, struct mull_error *err);

/** Write bytes with a name: the machine's configuration, say. */
int mull_state_write_blob(struct mull_state_writer *writer, const char *name, const void *data,
                          size_t size, struct mull_error *err);

/** Write all RAM: its ranges, then the pages that are not zero. The machine must not run. */
int mull_state_write_ram(struct mull_state_writer *writer, const struct mull_memory *memory,
                         struct mull_error *err);

/**
 * Write some pages of one range, again (migration of a running machine).
 *
 * @param bitmap  bit i: page i of @ram, as mull_memory_dirty_fetch() fills it
 * @param pages   how many were written; may be NULL
 */
int mull_state_write_pages(struct mull_state_writer *writer, const struct mull_memory *memory,
                           const struct mull_ram *ram, const uint8_t *bitmap, uint64_t *pages,
                           struct mull_error *err);

/** The end marker; everything before it is on its way when this returns. */
int mull_state_write_end(struct mull_state_writer *writer, struct mull_error *err);

/** What a writer to memory has written; the writer's. */
const uint8_t *mull_state_writer_data(const struct mull_state_writer *writer, size_t *size);

/* ---- Reading: everything read is untrusted ---- */

struct mull_state_reader;

enum mull_state_kind {
    MULL_STATE_OBJECT, /* mull_state_read() */
    MULL_STATE_BLOB,   /* mull_state_blob() */
    MULL_STATE_RAM,    /* mull_state_read_ram() */
};

/** A section's head. */
struct mull_state_section {
    enum mull_state_kind kind;
    char name[MULL_STATE_NAME_MAX + 1];
    uint32_t id;
    char desc[MULL_STATE_NAME_MAX + 1]; /* OBJECT: name and version of the description */
    uint32_t version;
};

/** Read from a descriptor, which stays the caller's. Reads the stream's head. */
int mull_state_reader_fd(int fd, struct mull_state_reader **out, struct mull_error *err);

/** Read from memory, which stays the caller's and must outlive the reader. */
int mull_state_reader_buffer(const void *data, size_t size, struct mull_state_reader **out,
                             struct mull_error *err);

/** NULL is allowed. */
void mull_state_reader_destroy(struct mull_state_reader *reader);

/** Go on to the next section. @return 1: *section; 0: the end marker; or a negative errno (also
 *  where the stream just stops). */
int mull_state_next(struct mull_state_reader *reader, struct mull_state_section *section,
                    struct mull_error *err);

/**
 * Load the current section (an OBJECT) into @object, by field name:
 *  - a description of another name, newer than @desc->version or older than @desc->oldest is
 * refused;
 *  - a field that the section lacks keeps its value if it came later than the section's version
 *    (`since`), else the section is refused;
 *  - a field that @desc does not have is skipped;
 *  - an integer may have another size if its value fits; any other difference is refused.
 * The object is untouched if any of this fails; desc->after_load may then still refuse the values.
 */
int mull_state_read(struct mull_state_reader *reader, const struct mull_state_desc *desc,
                    void *object, struct mull_error *err);

/** The current section's (a BLOB's) bytes; valid until mull_state_next(). */
const uint8_t *mull_state_blob(const struct mull_state_reader *reader, size_t *size);

/** Load the current section (RAM) into memory of the same layout. The first RAM section empties the
 *  memory. Before the machine runs. */
int mull_state_read_ram(struct mull_state_reader *reader, struct mull_memory *memory,
                        struct mull_error *err);

/** Print what is left of a stream as JSON: one object, sections by kind, RAM summarized. */
int mull_state_dump(struct mull_state_reader *reader, FILE *out, struct mull_error *err);

#endif
