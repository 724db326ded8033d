/*
 * Copying whole images, a piece at a time on every core. Pieces are read, searched for zeroes and
 * packed side by side, and written in order by whoever comes by while nobody else writes: a file's
 * writers exclude each other in the kernel, and one that finds another at work can read meanwhile.
 * See convert.h.
 */
#include "image/convert.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "image/convert_scan.h"

/* As much as a core's own cache holds: what is read is still there when it is written. */
#define PIECE (1u << 20)
#define PIECES_A_THREAD 4
#define THREADS_MAX 64
#define SKIP_MOST 4096
#define HUGE_PAGE (UINT64_C(2) << 20)

struct packed {
    uint32_t length; /* 0: zero; UINT32_MAX: does not shrink */
    uint32_t at;
};

/* Part of the disk on its way. */
struct piece {
    uint64_t number; /* in the order of writing */
    uint64_t offset, length;
    uint8_t *buf, *out;
    struct packed *units;
    struct scan scan;
    struct piece *next;
};

struct work {
    struct mull_convert *c;
    uint64_t size, chunk;
    bool skip_zero;

    pthread_mutex_t take_lock;
    uint64_t at;    /* everything below is taken */
    uint64_t taken; /* pieces */

    pthread_mutex_t lock;
    pthread_cond_t change;
    struct piece *free; /* used last, taken first: its buffer is in the cache */
    struct piece **ready;
    unsigned pieces, waiting;
    uint64_t written; /* pieces */
    bool writing, exhausted;
    unsigned reading;
    int result;

    struct piece *all;
    uint8_t *arena;
    size_t arena_length;
};

uint64_t mull_convert_chunk(const struct mull_image *target)
{
    uint64_t unit = target->unit ? target->unit : 1;
    return unit >= PIECE ? unit : PIECE - PIECE % unit;
}

/* Go on to the next part that has to be copied; in steps, so that a huge hole can be left, too. */
static int skip(struct work *w, struct scan_source *source)
{
    struct scan_part part;
    int ret = 0;

    for (int i = 0; i < SKIP_MOST && w->at < w->size && !ret; i++) {
        ret = mull_scan_part(source, w->at, w->size - w->at, &part);
        if (ret || part.kind == SCAN_DATA || (part.kind == SCAN_ZERO && !w->skip_zero))
            break;
        w->at += part.length;
    }
    return ret;
}

/* Give a piece the next part of the disk. @return 1: there is none left. */
static int take(struct work *w, struct piece *p, struct scan_source *source)
{
    int ret = 0;

    pthread_mutex_lock(&w->take_lock);
    if (w->skip_zero || source->top_only)
        ret = skip(w, source);
    w->at = w->at < w->size ? w->at - w->at % w->chunk : w->size;
    p->offset = w->at;
    p->length = w->size - w->at < w->chunk ? w->size - w->at : w->chunk;
    w->at += p->length;
    if (!p->length && !ret)
        ret = 1;
    if (!ret)
        p->number = w->taken++;
    pthread_mutex_unlock(&w->take_lock);
    return ret;
}

/* Pack a piece's units. */
static int pack(struct work *w, struct piece *p, struct scan_source *source)
{
    struct mull_image *target = w->c->target;
    uint32_t unit = target->unit, used = 0;
    bool any;
    int ret = mull_scan_whole(source, p->offset, p->length, p->buf, &any);

    if (!ret && p->length % unit)
        memset(p->buf + p->length, 0, unit - p->length % unit);
    for (uint64_t at = 0, i = 0; at < p->length && !ret; at += unit, i++) {
        p->units[i] = (struct packed){0, used};
        if (!any || mull_is_zero(p->buf + at, unit))
            continue;
        int64_t n = target->format->pack(target, p->offset + at, p->buf + at, unit, p->out + used,
                                         unit + 4096);
        if (n < 0)
            ret = (int)n;
        p->units[i].length = n > 0 ? (uint32_t)n : UINT32_MAX;
        used += n > 0 ? (uint32_t)n : 0;
    }
    return ret;
}

static int write_packed(struct work *w, const struct piece *p)
{
    struct mull_image *target = w->c->target;
    uint32_t unit = target->unit;
    int ret = 0;

    for (uint64_t at = 0, i = 0; at < p->length && !ret; at += unit, i++) {
        uint64_t n = unit < p->length - at ? unit : p->length - at;
        if (p->units[i].length == UINT32_MAX)
            ret = mull_image_write(target, p->buf + at, n, p->offset + at);
        else if (p->units[i].length)
            ret = mull_image_write_packed(target, p->offset + at, p->out + p->units[i].at,
                                          p->units[i].length);
    }
    return ret;
}

static int write_piece(struct work *w, const struct piece *p)
{
    struct mull_image *target = w->c->target;
    int ret = 0;

    if (w->c->compress)
        return write_packed(w, p);
    for (size_t i = 0; i < p->scan.nparts && !ret; i++) {
        const struct scan_part *part = &p->scan.parts[i];
        if (part->kind == SCAN_DATA)
            ret = mull_image_write(target, p->buf + part->offset, part->length,
                                   p->offset + part->offset);
        else if (part->kind == SCAN_ZERO && !w->c->target_zero)
            ret = mull_image_zero(target, p->offset + part->offset, part->length, true);
    }
    return ret;
}

static void tell(struct work *w)
{
    if (w->waiting)
        pthread_cond_broadcast(&w->change);
}

/* With the lock held, as are the two below: write the piece whose turn it is. */
static void write_next(struct work *w)
{
    struct piece **slot = &w->ready[w->written % w->pieces], *p = *slot;

    *slot = NULL;
    w->writing = true;
    pthread_mutex_unlock(&w->lock);
    int ret = write_piece(w, p);
    pthread_mutex_lock(&w->lock);
    w->writing = false;
    w->written++;
    if (ret && !w->result)
        w->result = ret;
    if (!w->result)
        w->c->finished = p->offset + p->length;
    p->next = w->free;
    w->free = p;
    if (!w->result && w->c->progress &&
        w->c->progress(w->c->opaque, p->offset + p->length, w->size))
        w->result = -ECANCELED;
    tell(w);
}

static void read_next(struct work *w, struct scan_source *source)
{
    struct piece *p = w->free;

    w->free = p->next;
    w->reading++;
    pthread_mutex_unlock(&w->lock);
    int ret = take(w, p, source);
    if (!ret)
        ret = w->c->compress ? pack(w, p, source)
                             : mull_scan(source, p->offset, p->length, p->buf, &p->scan);
    pthread_mutex_lock(&w->lock);
    w->reading--;
    if (!ret) {
        w->ready[p->number % w->pieces] = p;
    } else {
        p->next = w->free;
        w->free = p;
        if (ret > 0)
            w->exhausted = true;
        else if (!w->result)
            w->result = ret;
    }
    tell(w);
}

static void *run(void *opaque)
{
    struct work *w = opaque;
    struct scan_source source = {
        .image = w->c->source, .top_only = w->c->top_only, .unit = w->c->target->unit};

    pthread_mutex_lock(&w->lock);
    while (!w->result) {
        if (!w->writing && w->ready[w->written % w->pieces]) {
            write_next(w);
        } else if (!w->exhausted && w->free) {
            read_next(w, &source);
        } else if (w->exhausted && !w->writing && !w->reading) {
            break;
        } else {
            w->waiting++;
            pthread_cond_wait(&w->change, &w->lock);
            w->waiting--;
        }
    }
    tell(w);
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

/* All buffers lie in one mapping, of huge pages where the host has them. */
static int make_pieces(struct work *w, unsigned count)
{
    uint64_t unit = w->c->target->unit ? w->c->target->unit : 1, units = w->chunk / unit + 1;
    uint64_t buf = (w->chunk + unit + 4095) & ~UINT64_C(4095);
    uint64_t out = w->c->compress ? (w->chunk + units * 4096 + 4095) & ~UINT64_C(4095) : 0;

    if (!w->c->compress)
        buf = (w->chunk + 4095) & ~UINT64_C(4095);
    w->arena_length = (count * (buf + out) + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1);
    w->arena =
        mmap(NULL, w->arena_length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    w->all = calloc(count, sizeof(*w->all));
    w->ready = calloc(count, sizeof(struct piece *));
    if (w->arena == MAP_FAILED || !w->all || !w->ready)
        return -ENOMEM;
    madvise(w->arena, w->arena_length, MADV_HUGEPAGE);
    w->pieces = count;
    for (unsigned i = count; i-- > 0;) {
        struct piece *p = &w->all[i];
        p->buf = w->arena + i * (buf + out);
        p->out = p->buf + buf;
        p->units = w->c->compress ? calloc(units, sizeof(*p->units)) : NULL;
        if (w->c->compress && !p->units)
            return -ENOMEM;
        p->next = w->free;
        w->free = p;
    }
    return 0;
}

static void free_pieces(struct work *w)
{
    for (unsigned i = 0; i < w->pieces; i++) {
        free(w->all[i].units);
        mull_scan_free(&w->all[i].scan);
    }
    if (w->arena && w->arena != MAP_FAILED)
        munmap(w->arena, w->arena_length);
    free(w->all);
    free(w->ready);
}

static int run_all(struct work *w)
{
    pthread_t thread[THREADS_MAX];
    int n = 0, threads = w->c->threads;

    if (threads <= 0)
        threads = (int)sysconf(_SC_NPROCESSORS_ONLN);
    if (threads > THREADS_MAX)
        threads = THREADS_MAX;
    pthread_mutex_init(&w->take_lock, NULL);
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->change, NULL);
    int ret = make_pieces(w, (unsigned)threads * PIECES_A_THREAD);
    if (!ret) {
        while (n < threads - 1 && (uint64_t)(n + 1) * w->chunk < w->size &&
               !pthread_create(&thread[n], NULL, run, w))
            n++;
        run(w);
        while (n)
            pthread_join(thread[--n], NULL);
        ret = w->result;
    }
    free_pieces(w);
    pthread_cond_destroy(&w->change);
    pthread_mutex_destroy(&w->lock);
    pthread_mutex_destroy(&w->take_lock);
    return ret;
}

int mull_convert(struct mull_convert *c, struct mull_error *err)
{
    struct work w = {.c = c, .size = c->source->size, .chunk = mull_convert_chunk(c->target)};
    const struct mull_format *f = c->target->format;

    if (c->target->size < w.size)
        return mull_fail(err, ENOSPC, "%s: is smaller than %s", c->target->path, c->source->path);
    if (c->target->stream)
        c->compress = true;
    if (c->compress && (!f->pack || !f->write_packed))
        return mull_fail(err, ENOTSUP, "%s: format %s has no compression", c->target->path,
                         f->name);
    w.skip_zero = c->target_zero || c->compress;
    w.at = c->finished = c->start - c->start % w.chunk;
    int ret = run_all(&w);
    if (ret == -ECANCELED)
        return mull_fail(err, ECANCELED, "%s: stopped at %llu of %llu bytes", c->target->path,
                         (unsigned long long)c->finished, (unsigned long long)w.size);
    if (ret)
        return mull_fail(err, -ret, "copying %s to %s: %s", c->source->path, c->target->path,
                         strerror(-ret));
    c->finished = w.size;
    if (c->progress)
        c->progress(c->opaque, w.size, w.size); /* what is left of it is zeroes */
    return 0;
}
