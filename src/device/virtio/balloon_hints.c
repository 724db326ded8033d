/*
 * Free page hints as bits. See balloon_hints.h. A hint is worth nothing once the page was written:
 * the guest may use a page again without a word (5.5.6.7.2), at any moment after its hint.
 */
#include "device/virtio/balloon_hints.h"

#include <stdlib.h>
#include <string.h>

struct range {
    const struct mull_ram *ram;
    uint64_t pages;
    uint8_t *free, *dirty; /* a bit a page */
};

struct balloon_hints {
    struct mull_memory *mem;
    unsigned count;
    struct range range[];
};

struct balloon_hints *balloon_hints_create(struct mull_memory *mem)
{
    unsigned count;
    const struct mull_ram *ram = mull_memory_ram(mem, &count);
    struct balloon_hints *h = calloc(1, sizeof(*h) + count * sizeof(h->range[0]));

    if (!h)
        return NULL;
    h->mem = mem;
    h->count = count;
    mull_memory_dirty_start(mem);
    for (unsigned i = 0; i < count; i++) {
        struct range *r = &h->range[i];
        *r = (struct range){.ram = &ram[i], .pages = ram[i].size >> MULL_PAGE_SHIFT};
        r->free = calloc(1, r->pages / 8 + 1);
        r->dirty = calloc(1, r->pages / 8 + 1);
        if (!r->free || !r->dirty) {
            balloon_hints_destroy(h);
            return NULL;
        }
    }
    return h;
}

static struct range *range_of(struct balloon_hints *h, uint64_t gpa)
{
    const struct mull_ram *ram = mull_memory_find_ram(h->mem, gpa);

    for (unsigned i = 0; i < h->count; i++)
        if (h->range[i].ram == ram && !ram->readonly)
            return &h->range[i];
    return NULL;
}

void balloon_hints_add(struct balloon_hints *h, uint64_t gpa, uint64_t len)
{
    uint64_t end = gpa + len;

    if (end < gpa)
        return;
    gpa = (gpa + MULL_PAGE_SIZE - 1) & MULL_PAGE_MASK;
    end &= MULL_PAGE_MASK;
    while (gpa < end) {
        struct range *r = range_of(h, gpa);
        if (!r)
            return;
        uint64_t page = (gpa - r->ram->gpa) >> MULL_PAGE_SHIFT;
        if (page >= r->pages) /* memory that was plugged meanwhile */
            return;
        for (; gpa < end && page < r->pages; page++, gpa += MULL_PAGE_SIZE)
            r->free[page / 8] |= (uint8_t)(1u << page % 8);
    }
}

/* A kernel that clears all it allocates writes to the pages before it hints at them: nobody can tell
 * whether a page of zeroes was given back. */
static bool is_zero(struct balloon_hints *h, uint64_t gpa)
{
    static const uint8_t zeroes[MULL_PAGE_SIZE];
    uint8_t page[MULL_PAGE_SIZE];

    return !mull_mem_read(h->mem, gpa, page, sizeof(page)) && !memcmp(page, zeroes, sizeof(page));
}

static bool is_free(struct balloon_hints *h, const struct range *r, uint64_t page)
{
    if (!(r->free[page / 8] >> page % 8 & 1))
        return false;
    return !(r->dirty[page / 8] >> page % 8 & 1) ||
           is_zero(h, r->ram->gpa + (page << MULL_PAGE_SHIFT));
}

static uint64_t give_back(struct balloon_hints *h, struct range *r)
{
    uint64_t total = 0, run;

    if (r->ram->size >> MULL_PAGE_SHIFT != r->pages) /* unplugged meanwhile */
        return 0;
    mull_memory_dirty_fetch(h->mem, r->ram, r->dirty);
    for (uint64_t page = 0; page < r->pages; page += run) {
        bool given = is_free(h, r, page);
        for (run = 1; page + run < r->pages && is_free(h, r, page + run) == given;)
            run++;
        if (!given)
            continue;
        uint64_t offset = page << MULL_PAGE_SHIFT, len = run << MULL_PAGE_SHIFT;
        if (!mull_memory_discard(h->mem, r->ram, offset, len))
            total += len;
        mull_mem_wrote(h->mem, r->ram->gpa + offset, len);
    }
    return total;
}

uint64_t balloon_hints_give_back(struct balloon_hints *h)
{
    uint64_t total = 0;

    for (unsigned i = 0; i < h->count; i++)
        total += give_back(h, &h->range[i]);
    return total;
}

void balloon_hints_destroy(struct balloon_hints *h)
{
    if (!h)
        return;
    mull_memory_dirty_stop(h->mem);
    for (unsigned i = 0; i < h->count; i++) {
        free(h->range[i].free);
        free(h->range[i].dirty);
    }
    free(h);
}
