/*
 * Guest RAM in the save stream: its ranges, then chunks of pages, each with a map that says which
 * are zero. Holes of the memfd are not even looked at, so that saving does not commit them.
 */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "state/internal.h"

#define RANGES_MAX 8 /* as memory.h */

static bool page_is_zero(const uint8_t *page)
{
    uint64_t head;

    memcpy(&head, page, sizeof(head));
    return !head && !memcmp(page, page + sizeof(head), MULL_PAGE_SIZE - sizeof(head));
}

/* ---- Writing ---- */

/* Pages [first, first + count) of a range, those that `wanted` names (NULL: all that are not zero).
 */
static int write_chunk(struct mull_state_writer *w, const struct mull_ram *ram, uint64_t first,
                       unsigned count, const uint8_t *wanted, uint64_t *pages,
                       struct mull_error *err)
{
    uint8_t there[STATE_CHUNK_PAGES / 8] = {0}, zero[STATE_CHUNK_PAGES / 8] = {0};
    struct state_buffer b = {0};
    unsigned some = 0;
    int r = 0;

    for (unsigned i = 0; i < count; i++) {
        const uint8_t *page = ram->host + (first + i) * MULL_PAGE_SIZE;
        bool empty;

        if (wanted && !(wanted[(first + i) / 8] >> ((first + i) % 8) & 1))
            continue;
        empty = page_is_zero(page);
        if (empty && !wanted)
            continue;
        (empty ? zero : there)[i / 8] |= (uint8_t)(1u << (i % 8));
        some++;
    }
    if (!some)
        return 0;
    state_put_uint(&b, ram->gpa + first * MULL_PAGE_SIZE, 8);
    state_put_uint(&b, count, 4);
    state_put(&b, there, (count + 7) / 8);
    state_put(&b, zero, (count + 7) / 8);
    for (unsigned i = 0; i < count; i++)
        if (there[i / 8] >> (i % 8) & 1)
            state_put(&b, ram->host + (first + i) * MULL_PAGE_SIZE, MULL_PAGE_SIZE);
    r = mull_state_send(w, STATE_TAG_PAGES, &b, err);
    mull_state_buffer_free(&b);
    if (pages)
        *pages += some;
    return r;
}

int mull_state_write_pages(struct mull_state_writer *w, const struct mull_memory *memory,
                           const struct mull_ram *ram, const uint8_t *bitmap, uint64_t *pages,
                           struct mull_error *err)
{
    uint64_t total = ram->size / MULL_PAGE_SIZE;
    int r = 0;

    for (uint64_t i = 0; !r && i < total; i += STATE_CHUNK_PAGES) {
        uint64_t left = total - i;

        r = write_chunk(w, ram, i, left < STATE_CHUNK_PAGES ? (unsigned)left : STATE_CHUNK_PAGES,
                        bitmap, pages, err);
    }
    return r;
}

static int write_range(struct mull_state_writer *w, const struct mull_memory *memory,
                       const struct mull_ram *ram, struct mull_error *err)
{
    uint64_t total = ram->size / MULL_PAGE_SIZE;
    int r = 0;

    for (uint64_t i = 0; !r; i += STATE_CHUNK_PAGES) {
        uint64_t left;

        i = mull_memory_next_data(memory, ram, i);
        if (i >= total)
            break;
        left = total - i;
        r = write_chunk(w, ram, i, left < STATE_CHUNK_PAGES ? (unsigned)left : STATE_CHUNK_PAGES,
                        NULL, NULL, err);
    }
    return r;
}

/* Ranges that hold something: memory that can be plugged is saved where it is. */
static unsigned plugged(const struct mull_ram *ram, unsigned count)
{
    unsigned n = 0;

    for (unsigned i = 0; i < count; i++)
        n += ram[i].size != 0;
    return n;
}

int mull_state_write_ram(struct mull_state_writer *w, const struct mull_memory *memory,
                         struct mull_error *err)
{
    struct state_buffer b = {0};
    unsigned count;
    const struct mull_ram *ram = mull_memory_ram(memory, &count);
    int r;

    state_put_uint(&b, plugged(ram, count), 4);
    for (unsigned i = 0; i < count; i++) {
        if (!ram[i].size)
            continue;
        state_put_uint(&b, ram[i].gpa, 8);
        state_put_uint(&b, ram[i].size, 8);
        state_put_uint(&b, ram[i].readonly, 1);
    }
    r = mull_state_send(w, STATE_TAG_RANGES, &b, err);
    mull_state_buffer_free(&b);
    for (unsigned i = 0; !r && i < count; i++)
        if (ram[i].size)
            r = write_range(w, memory, &ram[i], err);
    return r ? mull_fail_in(err, "RAM") : 0;
}

/* ---- Reading ---- */

static int empty_range(struct mull_memory *memory, const struct mull_ram *ram)
{
    if (!mull_memory_discard(memory, ram, 0, ram->size))
        return 0;
    for (uint64_t at = 0; at < ram->size; at += MULL_PAGE_SIZE)
        if (!page_is_zero(ram->host + at))
            memset(ram->host + at, 0, MULL_PAGE_SIZE);
    return 0;
}

static int read_ranges(struct mull_state_reader *reader, struct state_cursor c,
                       struct mull_memory *memory, struct mull_error *err)
{
    unsigned count;
    const struct mull_ram *ram = mull_memory_ram(memory, &count);
    uint32_t saved = (uint32_t)state_take_uint(&c, 4);

    if (!c.failed && saved != plugged(ram, count))
        return mull_fail(err, EPROTO, "state: RAM: %u ranges were saved, this machine has %u",
                         saved, plugged(ram, count));
    for (unsigned i = 0; i < count && !c.failed; i++) {
        if (!ram[i].size)
            continue;
        uint64_t gpa = state_take_uint(&c, 8), size = state_take_uint(&c, 8);
        uint64_t readonly = state_take_uint(&c, 1);

        if (!c.failed && (gpa != ram[i].gpa || size != ram[i].size || readonly != ram[i].readonly))
            return mull_fail(err, EPROTO,
                             "state: RAM: %llu bytes at %#llx were saved where this machine has "
                             "%llu at %#llx",
                             (unsigned long long)size, (unsigned long long)gpa,
                             (unsigned long long)ram[i].size, (unsigned long long)ram[i].gpa);
    }
    if (mull_state_check_empty(&c, "RAM ranges", err))
        return -EPROTO;
    if (mull_state_ranges_seen(reader))
        return mull_fail(err, EPROTO, "state: RAM: the ranges are there twice");
    for (unsigned i = 0; i < count; i++)
        if (ram[i].size)
            empty_range(memory, &ram[i]);
    return 0;
}

static int read_pages(struct state_cursor c, struct mull_memory *memory, struct mull_error *err)
{
    uint64_t gpa = state_take_uint(&c, 8);
    uint32_t count = (uint32_t)state_take_uint(&c, 4);
    const uint8_t *there, *zero;
    static const uint8_t empty[MULL_PAGE_SIZE];

    if (c.failed || !count || count > STATE_CHUNK_PAGES || gpa % MULL_PAGE_SIZE ||
        gpa > UINT64_MAX - count * MULL_PAGE_SIZE)
        return mull_fail(err, EPROTO, "state: RAM pages: malformed");
    there = state_take(&c, (count + 7) / 8);
    zero = state_take(&c, (count + 7) / 8);
    for (uint32_t i = 0; i < count && !c.failed; i++) {
        bool data = there[i / 8] >> (i % 8) & 1;
        const uint8_t *page = data                         ? state_take(&c, MULL_PAGE_SIZE)
                              : zero[i / 8] >> (i % 8) & 1 ? empty
                                                           : NULL;

        if (page && mull_mem_load(memory, gpa + i * MULL_PAGE_SIZE, page, MULL_PAGE_SIZE))
            return mull_fail(err, EPROTO, "state: RAM pages: there is no RAM at %#llx",
                             (unsigned long long)(gpa + i * MULL_PAGE_SIZE));
    }
    return mull_state_check_empty(&c, "RAM pages", err);
}

int mull_state_read_ram(struct mull_state_reader *reader, struct mull_memory *memory,
                        struct mull_error *err)
{
    uint32_t tag;
    struct state_cursor c = mull_state_current(reader, &tag);

    switch (tag) {
    case STATE_TAG_RANGES:
        return read_ranges(reader, c, memory, err);
    case STATE_TAG_PAGES:
        return read_pages(c, memory, err);
    default:
        return mull_fail(err, EPROTO, "state: RAM: the section is of another kind");
    }
}
