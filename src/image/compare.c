/* Comparing two images on all cores, skipping what both know to be zeroes. See convert.h. */
#include "image/convert.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "image/convert_scan.h"

#define CHUNK (1u << 20)
#define THREADS_MAX 64

struct work {
    struct mull_image *a, *b;
    uint64_t size;
    pthread_mutex_t lock;
    uint64_t next, done; /* chunks taken, finished */
    int result;
    uint64_t where;
    mull_progress progress;
    void *opaque;
};

static int compare_chunk(struct work *w, uint64_t offset, struct scan_source *a,
                         struct scan_source *b, uint8_t *x, uint8_t *y)
{
    uint64_t length = w->size - offset < CHUNK ? w->size - offset : CHUNK, at = 0;
    bool any_x, any_y;
    int ret = mull_scan_whole(a, offset, length, x, &any_x);

    if (!ret)
        ret = mull_scan_whole(b, offset, length, y, &any_y);
    if (ret || (!any_x && !any_y) || !memcmp(x, y, length))
        return ret;
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
    struct scan_source a = {.image = w->a, .unit = 1}, b = {.image = w->b, .unit = 1};
    uint64_t chunks = (w->size + CHUNK - 1) / CHUNK;
    uint8_t *buf = NULL;
    int ret = posix_memalign((void **)&buf, 4096, 2 * (size_t)CHUNK) ? -ENOMEM : 0;

    pthread_mutex_lock(&w->lock);
    while (!ret && !w->result && w->next < chunks) {
        uint64_t offset = w->next++ * CHUNK;
        pthread_mutex_unlock(&w->lock);
        ret = compare_chunk(w, offset, &a, &b, buf, buf + CHUNK);
        pthread_mutex_lock(&w->lock);
        w->done++;
        if (!ret && w->progress && !w->result && w->progress(w->opaque, w->done, chunks))
            w->result = -ECANCELED;
    }
    if (ret && !w->result)
        w->result = ret;
    pthread_mutex_unlock(&w->lock);
    free(buf);
    return NULL;
}

int mull_compare(struct mull_image *a, struct mull_image *b, int threads, uint64_t *where,
                 mull_progress progress, void *opaque, struct mull_error *err)
{
    struct work w = {.a = a,
                     .b = b,
                     .size = a->size > b->size ? a->size : b->size,
                     .where = UINT64_MAX,
                     .progress = progress,
                     .opaque = opaque};
    pthread_t thread[THREADS_MAX];
    int n = 0;

    if (threads <= 0)
        threads = (int)sysconf(_SC_NPROCESSORS_ONLN);
    pthread_mutex_init(&w.lock, NULL);
    while (n < threads - 1 && n < THREADS_MAX && (uint64_t)(n + 1) * CHUNK < w.size &&
           !pthread_create(&thread[n], NULL, run, &w))
        n++;
    run(&w);
    while (n)
        pthread_join(thread[--n], NULL);
    pthread_mutex_destroy(&w.lock);
    *where = w.where;
    if (w.result < 0)
        return mull_fail(err, -w.result, "comparing %s and %s: %s", a->path, b->path,
                         strerror(-w.result));
    return w.result;
}
