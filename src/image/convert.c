/* Copying and comparing whole images, a chunk at a time on every core. See convert.h. */
#include "image/convert.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHUNK (2u << 20)
#define SPARSE 4096u
#define THREADS_MAX 64

bool mull_is_zero(const void *buf, size_t length)
{
    const unsigned char *p = buf;
    size_t n = length < 16 ? length : 16;

    for (size_t i = 0; i < n; i++)
        if (p[i])
            return false;
    /* The rest equals what lies 16 bytes before it: memcmp does it at memory speed. */
    return length <= 16 || !memcmp(p, p + 16, length - 16);
}

struct work {
    struct mull_convert *c;
    struct mull_image *a, *b; /* compare */
    uint64_t size, chunk, chunks;
    pthread_mutex_t lock;
    pthread_cond_t turn;
    uint64_t next;     /* chunk to take */
    uint64_t written;  /* streams: chunk whose turn it is to write */
    uint64_t done;     /* chunks finished */
    uint8_t *finished; /* a byte a chunk */
    uint64_t whole;    /* all chunks below are finished */
    int result;
    uint64_t where;
    mull_progress progress;
    void *opaque;
};

uint64_t mull_convert_chunk(const struct mull_image *target)
{
    uint64_t unit = target->lock_unit > target->unit ? target->lock_unit : target->unit;
    if (unit < 1)
        unit = 1;
    return unit >= CHUNK ? unit : CHUNK - CHUNK % unit;
}

/* What part of [offset, +length) reads as zeroes for sure, from here on; else what part may not. */
static int next_part(struct mull_image *image, uint64_t offset, uint64_t length, bool top_only,
                     bool *zero, bool *skip, uint64_t *part)
{
    struct mull_extent e = {0};
    int ret, depth = 0;

    *skip = false;
    if (offset >= image->size) {
        *zero = true;
        *part = length;
        return 0;
    }
    ret = mull_image_locate(image, offset, length, false, &e, NULL, &depth);
    if (ret)
        return ret;
    *part = e.length;
    *zero = e.kind == MULL_EXTENT_ZERO;
    if (top_only) {
        /* What this image itself does not say is left alone. */
        pthread_mutex_lock(&image->lock);
        struct mull_extent own = {0};
        uint64_t n = *part < image->size - offset ? *part : image->size - offset;
        ret = image->format->map(image, offset, n, false, &own);
        pthread_mutex_unlock(&image->lock);
        *skip = !ret && own.kind == MULL_EXTENT_HOLE;
        if (own.length < *part)
            *part = own.length;
        if (ret || *skip)
            return ret;
    }
    if (e.kind == MULL_EXTENT_DATA && !e.file->block_device) {
        uint64_t start, end;
        ret = mull_file_next_data(e.file, e.offset, &start, &end);
        if (ret == -ENXIO || start >= e.offset + e.length) {
            *zero = true;
        } else if (!ret && start > e.offset) {
            *zero = true;
            *part = start - e.offset;
        } else if (!ret && end < e.offset + e.length) {
            *part = end - e.offset;
        }
    }
    return 0;
}

/* Fill a buffer with a chunk; *any: something in it is not known to be zero. */
static int read_chunk(struct mull_image *image, uint64_t offset, uint64_t length, uint8_t *buf,
                      bool *any)
{
    *any = false;
    for (uint64_t at = 0; at < length;) {
        bool zero, skip;
        uint64_t n;
        int ret = next_part(image, offset + at, length - at, false, &zero, &skip, &n);
        if (!ret && !zero)
            ret = mull_image_read(image, buf + at, n, offset + at);
        if (ret)
            return ret;
        if (zero)
            memset(buf + at, 0, n);
        else
            *any = true;
        at += n;
    }
    return 0;
}

static uint64_t sparse_unit(const struct mull_image *target)
{
    return target->unit > SPARSE ? target->unit : SPARSE;
}

/* Write the parts of a buffer that are not zero. */
static int write_data(struct mull_convert *c, uint64_t offset, uint64_t length, const uint8_t *buf)
{
    uint64_t unit = sparse_unit(c->target);
    int ret = 0;

    for (uint64_t at = 0; at < length && !ret;) {
        uint64_t n = unit - (offset + at) % unit;
        n = n < length - at ? n : length - at;
        bool zero = mull_is_zero(buf + at, n);
        uint64_t run = n;
        while (at + run < length) {
            n = unit < length - at - run ? unit : length - at - run;
            if (mull_is_zero(buf + at + run, n) != zero)
                break;
            run += n;
        }
        if (!zero)
            ret = mull_image_write(c->target, buf + at, run, offset + at);
        else if (!c->target_zero)
            ret = mull_image_zero(c->target, offset + at, run, true);
        at += run;
    }
    return ret;
}

static int copy_chunk(struct mull_convert *c, uint64_t offset, uint64_t length, uint8_t *buf)
{
    uint64_t align = sparse_unit(c->target);

    for (uint64_t at = 0; at < length;) {
        bool zero, skip;
        uint64_t n;
        int ret = next_part(c->source, offset + at, length - at, c->top_only, &zero, &skip, &n);
        if (ret)
            return ret;
        if (!zero && !skip && n < length - at && !c->top_only) {
            /* Whole units of the target at a time: read on to the end of this one. */
            uint64_t end = (offset + at + n + align - 1) / align * align - offset;
            n = (end < length ? end : length) - at;
        }
        if (skip)
            ret = 0;
        else if (!zero && !(ret = mull_image_read(c->source, buf, n, offset + at)))
            ret = write_data(c, offset + at, n, buf);
        else if (zero && !c->target_zero)
            ret = mull_image_zero(c->target, offset + at, n, true);
        if (ret)
            return ret;
        at += n;
    }
    return 0;
}

struct packed {
    uint32_t length; /* 0: zero; the unit's length: stored as it is */
    uint32_t at;
};

/* Pack a chunk's units into @out. */
static int pack_chunk(struct work *w, uint64_t offset, uint64_t length, uint8_t *buf, uint8_t *out,
                      struct packed *units)
{
    struct mull_convert *c = w->c;
    uint32_t unit = c->target->unit, used = 0;
    bool any;
    int ret = read_chunk(c->source, offset, length, buf, &any);

    if (!ret && length % unit)
        memset(buf + length, 0, unit - length % unit);
    for (uint64_t at = 0, i = 0; at < length && !ret; at += unit, i++) {
        units[i] = (struct packed){0, used};
        if (!any || mull_is_zero(buf + at, unit))
            continue;
        int64_t n = c->target->format->pack(c->target, offset + at, buf + at, unit, out + used,
                                            unit + 4096);
        if (n < 0)
            ret = (int)n;
        units[i].length = n > 0 ? (uint32_t)n : UINT32_MAX;
        used += n > 0 ? (uint32_t)n : 0;
    }
    return ret;
}

static int write_packed_chunk(struct work *w, uint64_t offset, uint64_t length, uint8_t *buf,
                              uint8_t *out, struct packed *units)
{
    struct mull_convert *c = w->c;
    uint32_t unit = c->target->unit;
    int ret = 0;

    for (uint64_t at = 0, i = 0; at < length && !ret; at += unit, i++) {
        uint64_t n = unit < length - at ? unit : length - at;
        if (!units[i].length)
            continue;
        if (units[i].length == UINT32_MAX)
            ret = mull_image_write(c->target, buf + at, n, offset + at);
        else
            ret =
                mull_image_write_packed(c->target, offset + at, out + units[i].at, units[i].length);
    }
    return ret;
}

/* Streams are written in order: wait for our turn. */
static int wait_turn(struct work *w, uint64_t chunk)
{
    pthread_mutex_lock(&w->lock);
    while (w->written != chunk && !w->result)
        pthread_cond_wait(&w->turn, &w->lock);
    int ret = w->result;
    pthread_mutex_unlock(&w->lock);
    return ret;
}

static int do_chunk(struct work *w, uint64_t chunk, uint8_t *buf, uint8_t *out,
                    struct packed *units)
{
    struct mull_convert *c = w->c;
    uint64_t offset = chunk * w->chunk;
    uint64_t length = w->size - offset < w->chunk ? w->size - offset : w->chunk;

    if (!c->compress)
        return copy_chunk(c, offset, length, buf);
    int ret = pack_chunk(w, offset, length, buf, out, units);
    /* In order: a stream must be, and any other reads faster so. */
    if (!ret)
        ret = wait_turn(w, chunk);
    if (!ret)
        ret = write_packed_chunk(w, offset, length, buf, out, units);
    return ret;
}

static int compare_chunk(struct work *w, uint64_t chunk, uint8_t *x, uint8_t *y)
{
    uint64_t offset = chunk * w->chunk;
    uint64_t length = w->size - offset < w->chunk ? w->size - offset : w->chunk;
    bool any_x, any_y;
    int ret = read_chunk(w->a, offset, length, x, &any_x);

    if (!ret)
        ret = read_chunk(w->b, offset, length, y, &any_y);
    if (ret || (!any_x && !any_y) || !memcmp(x, y, length))
        return ret;
    uint64_t at = 0;
    while (x[at] == y[at])
        at++;
    pthread_mutex_lock(&w->lock);
    if (offset + at < w->where)
        w->where = offset + at;
    pthread_mutex_unlock(&w->lock);
    return 1;
}

static void *run(void *opaque)
{
    struct work *w = opaque;
    uint32_t unit = w->c ? w->c->target->unit : 1;
    uint64_t room = w->chunk + unit;
    uint64_t units = w->c && w->c->compress ? w->chunk / unit + 1 : 1;
    uint8_t *buf = NULL, *out = NULL;
    struct packed *packed = calloc(units, sizeof(*packed));
    int ret = packed ? 0 : -ENOMEM;

    if (posix_memalign((void **)&buf, 4096, room))
        ret = -ENOMEM;
    if (!w->c || w->c->compress)
        if (!(out = malloc(room + units * 4096)))
            ret = -ENOMEM;
    pthread_mutex_lock(&w->lock);
    while (!ret && !w->result && w->next < w->chunks) {
        uint64_t chunk = w->next++;
        pthread_mutex_unlock(&w->lock);
        ret = w->c ? do_chunk(w, chunk, buf, out, packed) : compare_chunk(w, chunk, buf, out);
        pthread_mutex_lock(&w->lock);
        if (ret)
            break;
        w->finished[chunk] = 1;
        while (w->whole < w->chunks && w->finished[w->whole])
            w->whole++;
        if (w->c && w->c->compress) {
            w->written = chunk + 1;
            pthread_cond_broadcast(&w->turn);
        }
        w->done++;
        if (w->progress && !w->result && w->progress(w->opaque, w->done, w->chunks))
            w->result = -ECANCELED;
    }
    if (ret && !w->result)
        w->result = ret;
    pthread_cond_broadcast(&w->turn);
    pthread_mutex_unlock(&w->lock);
    free(buf);
    free(out);
    free(packed);
    return NULL;
}

static int run_all(struct work *w, int threads)
{
    pthread_t thread[THREADS_MAX];
    int n = 0;

    if (threads <= 0)
        threads = (int)sysconf(_SC_NPROCESSORS_ONLN);
    if (threads > THREADS_MAX)
        threads = THREADS_MAX;
    w->chunks = (w->size + w->chunk - 1) / w->chunk;
    w->finished = calloc(w->chunks + 1, 1);
    if (!w->finished)
        return -ENOMEM;
    memset(w->finished, 1, w->next < w->chunks ? w->next : w->chunks);
    w->whole = w->written = w->done = w->next;
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->turn, NULL);
    while (n < threads - 1 && (uint64_t)n + 1 < w->chunks &&
           !pthread_create(&thread[n], NULL, run, w))
        n++;
    run(w);
    while (n)
        pthread_join(thread[--n], NULL);
    pthread_cond_destroy(&w->turn);
    pthread_mutex_destroy(&w->lock);
    free(w->finished);
    return w->result;
}

int mull_convert(struct mull_convert *c, struct mull_error *err)
{
    struct work w = {.c = c,
                     .size = c->source->size,
                     .chunk = mull_convert_chunk(c->target),
                     .progress = c->progress,
                     .opaque = c->opaque};
    const struct mull_format *f = c->target->format;

    if (c->target->size < w.size)
        return mull_fail(err, ENOSPC, "%s: is smaller than %s", c->target->path, c->source->path);
    if (c->target->stream)
        c->compress = true;
    if (c->compress && (!f->pack || !f->write_packed))
        return mull_fail(err, ENOTSUP, "%s: format %s has no compression", c->target->path,
                         f->name);
    w.next = c->start / w.chunk;
    int ret = run_all(&w, c->threads);
    c->finished = w.whole * w.chunk < w.size ? w.whole * w.chunk : w.size;
    if (ret == -ECANCELED)
        return mull_fail(err, ECANCELED, "%s: stopped at %llu of %llu bytes", c->target->path,
                         (unsigned long long)c->finished, (unsigned long long)w.size);
    if (ret)
        return mull_fail(err, -ret, "copying %s to %s: %s", c->source->path, c->target->path,
                         strerror(-ret));
    return 0;
}

int mull_compare(struct mull_image *a, struct mull_image *b, int threads, uint64_t *where,
                 mull_progress progress, void *opaque, struct mull_error *err)
{
    struct work w = {.a = a,
                     .b = b,
                     .size = a->size > b->size ? a->size : b->size,
                     .chunk = CHUNK,
                     .where = UINT64_MAX,
                     .progress = progress,
                     .opaque = opaque};
    int ret = run_all(&w, threads);
    *where = w.where;
    if (ret < 0)
        return mull_fail(err, -ret, "comparing %s and %s: %s", a->path, b->path, strerror(-ret));
    return ret;
}
