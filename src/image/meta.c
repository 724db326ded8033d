/* The metadata cache with ordered writes. See meta.h. */
#include "image/meta.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define FILES_MAX 1024
#define WRITE_MAX (1u << 20)

struct page {
    uint64_t number;
    int stage; /* -1: clean */
    struct page *hash_next;
    struct page *newer, *older; /* least recently used order, clean and dirty */
    uint8_t data[];
};

struct mull_meta {
    struct mull_file *file;
    uint32_t page_size;
    uint64_t limit;
    struct page **table;
    uint32_t buckets;
    uint64_t pages, dirty_pages;
    struct page *newest, *oldest;
    struct page *last; /* the page used last: most look-ups hit it */
    struct mull_file **others;
    int nothers;
    uint32_t journal_most; /* 0: no journal */
    int (*journal)(void *opaque, const struct mull_meta_page *pages, uint32_t count);
    void *journal_opaque;
};

struct mull_meta *mull_meta_create(struct mull_file *file, uint32_t page, uint64_t limit)
{
    struct mull_meta *meta = calloc(1, sizeof(*meta));
    if (!meta)
        return NULL;
    meta->file = file;
    meta->page_size = page;
    meta->limit = limit;
    meta->buckets = 1024;
    meta->table = calloc(meta->buckets, sizeof(*meta->table));
    if (!meta->table) {
        free(meta);
        return NULL;
    }
    return meta;
}

void mull_meta_destroy(struct mull_meta *meta)
{
    if (!meta)
        return;
    for (struct page *p = meta->newest, *next; p; p = next) {
        next = p->older;
        free(p);
    }
    free(meta->table);
    free(meta->others);
    free(meta);
}

int mull_meta_depend(struct mull_meta *meta, struct mull_file *file)
{
    if (meta->nothers >= FILES_MAX)
        return -E2BIG;
    struct mull_file **grown = realloc(meta->others, (size_t)(meta->nothers + 1) * sizeof(*grown));
    if (!grown)
        return -ENOMEM;
    meta->others = grown;
    grown[meta->nothers++] = file;
    return 0;
}

static uint32_t bucket_of(const struct mull_meta *meta, uint64_t number)
{
    return (uint32_t)(number * UINT64_C(0x9E3779B97F4A7C15) >> 33) & (meta->buckets - 1);
}

static void lru_remove(struct mull_meta *meta, struct page *p)
{
    if (p->newer)
        p->newer->older = p->older;
    else
        meta->newest = p->older;
    if (p->older)
        p->older->newer = p->newer;
    else
        meta->oldest = p->newer;
}

static void lru_add(struct mull_meta *meta, struct page *p)
{
    p->newer = NULL;
    p->older = meta->newest;
    if (meta->newest)
        meta->newest->newer = p;
    else
        meta->oldest = p;
    meta->newest = p;
}

static struct page *find(struct mull_meta *meta, uint64_t number)
{
    if (meta->last && meta->last->number == number)
        return meta->last;
    for (struct page *p = meta->table[bucket_of(meta, number)]; p; p = p->hash_next) {
        if (p->number != number)
            continue;
        if (meta->newest != p) {
            lru_remove(meta, p);
            lru_add(meta, p);
        }
        meta->last = p;
        return p;
    }
    return NULL;
}

static void drop(struct mull_meta *meta, struct page *p)
{
    struct page **link = &meta->table[bucket_of(meta, p->number)];
    while (*link != p)
        link = &(*link)->hash_next;
    *link = p->hash_next;
    lru_remove(meta, p);
    if (meta->last == p)
        meta->last = NULL;
    if (p->stage >= 0)
        meta->dirty_pages--;
    meta->pages--;
    free(p);
}

static void grow_table(struct mull_meta *meta)
{
    struct page **old = meta->table;
    uint32_t n = meta->buckets;
    struct page **table = calloc((size_t)n * 4, sizeof(*table));
    if (!table)
        return; /* only slower */
    meta->table = table;
    meta->buckets = n * 4;
    for (uint32_t i = 0; i < n; i++)
        for (struct page *p = old[i], *next; p; p = next) {
            next = p->hash_next;
            struct page **head = &table[bucket_of(meta, p->number)];
            p->hash_next = *head;
            *head = p;
        }
    free(old);
}

static void evict(struct mull_meta *meta)
{
    struct page *p = meta->oldest;
    while (p && (meta->pages - meta->dirty_pages) * meta->page_size > meta->limit) {
        struct page *newer = p->newer;
        if (p->stage < 0)
            drop(meta, p);
        p = newer;
    }
}

static struct page *add(struct mull_meta *meta, uint64_t number)
{
    struct page *p = malloc(sizeof(*p) + meta->page_size);
    if (!p)
        return NULL;
    if (meta->pages > meta->buckets)
        grow_table(meta);
    p->number = number;
    p->stage = -1;
    struct page **head = &meta->table[bucket_of(meta, number)];
    p->hash_next = *head;
    *head = p;
    lru_add(meta, p);
    meta->pages++;
    meta->last = p;
    return p;
}

/* Get a page, reading it and as much as @ahead bytes behind it. */
static int load(struct mull_meta *meta, uint64_t number, uint64_t ahead, struct page **out)
{
    struct page *p = find(meta, number);
    if (p) {
        *out = p;
        return 0;
    }

    uint64_t count = 1 + ahead / meta->page_size, max = 65536 / meta->page_size;
    if (count > max)
        count = max;
    uint8_t *buf = NULL;
    int ret = 0;
    if (count > 1) {
        buf = malloc(count * meta->page_size);
        if (!buf)
            return -ENOMEM;
        ret = mull_file_read(meta->file, buf, count * meta->page_size, number * meta->page_size);
        for (uint64_t i = count; i-- > 0 && !ret;) {
            if (find(meta, number + i))
                continue;
            p = add(meta, number + i);
            if (!p)
                ret = -ENOMEM;
            else
                memcpy(p->data, buf + i * meta->page_size, meta->page_size);
        }
        free(buf);
        if (ret)
            return ret;
        p = find(meta, number);
    } else {
        p = add(meta, number);
        if (!p)
            return -ENOMEM;
        ret = mull_file_read(meta->file, p->data, meta->page_size, number * meta->page_size);
        if (ret) {
            drop(meta, p);
            return ret;
        }
    }
    evict(meta);
    /* evict() begins with the oldest: the page just used goes only where the limit is no page. */
    *out = find(meta, number);
    return *out ? 0 : -ENOMEM;
}

int mull_meta_read(struct mull_meta *meta, uint64_t offset, void *buf, uint32_t length,
                   uint64_t ahead, bool cached)
{
    uint8_t *out = buf;
    while (length) {
        uint64_t number = offset / meta->page_size;
        uint32_t skip = (uint32_t)(offset % meta->page_size);
        uint32_t n = meta->page_size - skip < length ? meta->page_size - skip : length;
        struct page *p = find(meta, number);
        if (!p) {
            if (cached)
                return -EAGAIN;
            uint64_t want = length - n > ahead ? length - n : ahead;
            int ret = load(meta, number, want, &p);
            if (ret)
                return ret;
        }
        memcpy(out, p->data + skip, n);
        out += n;
        offset += n;
        length -= n;
    }
    return 0;
}

static void make_dirty(struct mull_meta *meta, struct page *p, int stage)
{
    if (p->stage < 0)
        meta->dirty_pages++;
    if (p->stage < stage)
        p->stage = stage;
}

int mull_meta_write(struct mull_meta *meta, uint64_t offset, const void *buf, uint32_t length,
                    int stage)
{
    const uint8_t *in = buf;
    while (length) {
        uint64_t number = offset / meta->page_size;
        uint32_t skip = (uint32_t)(offset % meta->page_size);
        uint32_t n = meta->page_size - skip < length ? meta->page_size - skip : length;
        struct page *p;
        int ret = 0;
        if (n == meta->page_size) {
            p = find(meta, number);
            if (!p && !(p = add(meta, number)))
                ret = -ENOMEM;
        } else {
            ret = load(meta, number, 0, &p);
        }
        if (ret)
            return ret;
        memcpy(p->data + skip, in, n);
        make_dirty(meta, p, stage);
        in += n;
        offset += n;
        length -= n;
    }
    return 0;
}

int mull_meta_clear(struct mull_meta *meta, uint64_t offset, uint64_t length, int stage)
{
    for (; length; offset += meta->page_size, length -= meta->page_size) {
        struct page *p = find(meta, offset / meta->page_size);
        if (!p && !(p = add(meta, offset / meta->page_size)))
            return -ENOMEM;
        memset(p->data, 0, meta->page_size);
        make_dirty(meta, p, stage);
    }
    return 0;
}

void mull_meta_forget(struct mull_meta *meta, uint64_t offset, uint64_t length)
{
    uint64_t first = offset / meta->page_size, count = length / meta->page_size;
    if (count > meta->pages) {
        for (struct page *p = meta->newest, *next; p; p = next) {
            next = p->older;
            if (p->number - first < count)
                drop(meta, p);
        }
        return;
    }
    for (uint64_t i = 0; i < count; i++) {
        struct page *p = find(meta, first + i);
        if (p)
            drop(meta, p);
    }
}

bool mull_meta_is_plain(const struct mull_meta *meta)
{
    return !meta->dirty_pages && !meta->nothers;
}

uint64_t mull_meta_dirty(const struct mull_meta *meta)
{
    return meta->dirty_pages * meta->page_size;
}

static int by_number(const void *a, const void *b)
{
    const struct page *const *x = a, *const *y = b;
    return (*x)->number < (*y)->number ? -1 : (*x)->number > (*y)->number;
}

/* Write sorted pages of one stage, neighbours together. */
static int write_pages(struct mull_meta *meta, struct page **pages, size_t count)
{
    const size_t most = 64;
    for (size_t i = 0; i < count;) {
        struct iovec iov[64];
        size_t n = 0;
        while (i + n < count && n < most && n * meta->page_size < WRITE_MAX &&
               pages[i + n]->number == pages[i]->number + n) {
            iov[n] = (struct iovec){pages[i + n]->data, meta->page_size};
            n++;
        }
        int ret = mull_file_writev(meta->file, iov, (int)n, pages[i]->number * meta->page_size,
                                   n * meta->page_size);
        if (ret)
            return ret;
        i += n;
    }
    return 0;
}

static int flush_files(struct mull_meta *meta)
{
    int ret = 0;
    for (int i = 0; i < meta->nothers && !ret; i++)
        if (atomic_load(&meta->others[i]->dirty))
            ret = mull_file_flush(meta->others[i]);
    if (!ret && atomic_load(&meta->file->dirty))
        ret = mull_file_flush(meta->file);
    return ret;
}

void mull_meta_journal(struct mull_meta *meta, uint32_t most,
                       int (*write)(void *opaque, const struct mull_meta_page *pages,
                                    uint32_t count),
                       void *opaque)
{
    meta->journal_most = most;
    meta->journal = write;
    meta->journal_opaque = opaque;
}

/* Dirty pages through the journal, as many at a time as it takes. */
static int commit_journal(struct mull_meta *meta, bool flush)
{
    struct page **pages = malloc((meta->dirty_pages + 1) * sizeof(*pages));
    struct mull_meta_page *list = malloc(meta->journal_most * sizeof(*list));
    size_t n = 0;
    int ret = pages && list ? 0 : -ENOMEM;

    for (struct page *p = ret ? NULL : meta->newest; p; p = p->older)
        if (p->stage >= 0)
            pages[n++] = p;
    if (!ret)
        qsort(pages, n, sizeof(*pages), by_number);
    for (size_t at = 0; at < n && !ret;) {
        uint32_t count = n - at < meta->journal_most ? (uint32_t)(n - at) : meta->journal_most;
        for (uint32_t i = 0; i < count; i++)
            list[i] = (struct mull_meta_page){pages[at + i]->number * meta->page_size,
                                              pages[at + i]->data};
        /* What the entry before this one holds has its place too before it is overwritten. */
        ret = flush_files(meta);
        if (!ret)
            ret = meta->journal(meta->journal_opaque, list, count);
        if (!ret)
            ret = write_pages(meta, pages + at, count);
        for (uint32_t i = 0; i < count && !ret; i++) {
            pages[at + i]->stage = -1;
            meta->dirty_pages--;
        }
        at += count;
    }
    free(pages);
    free(list);
    if (!ret && flush && !n)
        ret = flush_files(meta);
    evict(meta);
    return ret;
}

int mull_meta_commit(struct mull_meta *meta, bool flush)
{
    if (meta->journal_most)
        return commit_journal(meta, flush);

    struct page **pages = NULL;
    int ret = 0;

    if (meta->dirty_pages) {
        pages = malloc(meta->dirty_pages * sizeof(*pages));
        if (!pages)
            return -ENOMEM;
    }
    for (int stage = 0; stage < MULL_META_STAGES && meta->dirty_pages && !ret; stage++) {
        size_t n = 0;
        for (struct page *p = meta->newest; p; p = p->older)
            if (p->stage == stage)
                pages[n++] = p;
        if (!n)
            continue;
        /* Stage 0 points at nothing; every other at data and earlier stages. */
        if (stage > 0)
            ret = flush_files(meta);
        qsort(pages, n, sizeof(*pages), by_number);
        if (!ret)
            ret = write_pages(meta, pages, n);
        for (size_t i = 0; i < n && !ret; i++) {
            pages[i]->stage = -1;
            meta->dirty_pages--;
        }
    }
    free(pages);
    if (!ret && flush)
        ret = flush_files(meta);
    evict(meta);
    return ret;
}
