/* Commit and rebase. See chain.h. */
#include "image/chain.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "image/bitmap.h"

/* The one below changes, and the one above goes on fitting it, also where this is cut off. */
static int expect_parent(struct mull_image *top, struct mull_image *below, bool done,
                         struct mull_error *err)
{
    if (!top->format->expect_parent || below->format != top->format)
        return 0;
    pthread_mutex_lock(&top->lock);
    int ret = top->format->expect_parent(top, below, done, err);
    pthread_mutex_unlock(&top->lock);
    return ret;
}

/* @top is open without its chain, so that the one below can be locked for writing. */
static int commit_into(struct mull_image *top, struct mull_image *below, int threads,
                       mull_progress progress, void *opaque, struct mull_error *err)
{
    int ret = top->format->check_parent ? top->format->check_parent(top, below, err) : 0;

    if (!ret)
        ret = expect_parent(top, below, false, err);
    if (!ret && below->size < top->size)
        ret = mull_image_resize(below, top->size, err);
    if (ret)
        return ret;
    struct mull_convert c = {.source = top,
                             .target = below,
                             .threads = threads,
                             .top_only = true,
                             .progress = progress,
                             .opaque = opaque};
    ret = mull_convert(&c, err);
    if (ret)
        return ret;
    ret = mull_image_flush(below);
    return ret ? mull_fail(err, -ret, "%s: %s", below->path, strerror(-ret))
               : expect_parent(top, below, true, err);
}

int mull_image_commit(const struct mull_image_options *options, int threads, mull_progress progress,
                      void *opaque, struct mull_error *err)
{
    struct mull_image_options o = *options;
    struct mull_image *top, *below = NULL;
    o.no_backing = true;
    int ret = mull_image_open(&o, &top, err);
    if (ret)
        return ret;
    char *path = top->backing_path ? mull_image_relative_path(top->path, top->backing_path) : NULL;
    if (path) {
        struct mull_image_options bo = {.path = path,
                                        .format = top->backing_format,
                                        .observer = options->observer,
                                        .log = options->log};
        ret = mull_image_open(&bo, &below, err);
    } else {
        ret = mull_fail(err, EINVAL, "%s: has no backing file that we can follow", top->path);
    }
    if (!ret)
        ret = commit_into(top, below, threads, progress, opaque, err);
    int closed = mull_image_close(below);
    if (!ret && closed)
        ret = mull_fail(err, -closed, "%s: could not be flushed: %s", path, strerror(-closed));
    free(path);
    closed = mull_image_close(top);
    return ret ? ret
               : (closed ? mull_fail(err, -closed, "%s: could not be flushed", options->path) : 0);
}

/* Before another backing shows: copy up what would read differently. */
static int copy_differences(struct mull_image *image, struct mull_image *fresh)
{
    const uint64_t step = image->lock_unit > 1 << 20 ? image->lock_unit : 1 << 20;
    uint8_t *a = malloc(step), *b = malloc(step);
    int ret = a && b ? 0 : -ENOMEM;

    for (uint64_t at = 0; at < image->size && !ret;) {
        uint64_t n = step < image->size - at ? step : image->size - at;
        struct mull_extent e = {0};
        pthread_mutex_lock(&image->lock);
        ret = image->format->map(image, at, n, false, &e);
        pthread_mutex_unlock(&image->lock);
        if (ret)
            break;
        n = e.length < n ? e.length : n;
        if (e.kind == MULL_EXTENT_HOLE) {
            ret = mull_image_read(image, a, n, at);
            if (!ret)
                ret = fresh ? mull_image_read(fresh, b, n, at) : (memset(b, 0, n), 0);
            if (!ret && memcmp(a, b, n))
                ret = mull_image_write(image, a, n, at);
        }
        at += n;
    }
    free(a);
    free(b);
    return ret;
}

static int open_fresh(struct mull_image *image, const char *backing, const char **format,
                      struct mull_image **fresh, struct mull_error *err)
{
    char *path = mull_image_relative_path(image->path, backing);
    struct mull_image_options o = {.path = path, .format = *format, .readonly = true};
    int ret = path ? mull_image_open(&o, fresh, err)
                   : mull_fail(err, EINVAL, "%s: not a file name", backing);
    free(path);
    if (!ret && !*format)
        *format = (*fresh)->format->name;
    return ret;
}

int mull_image_rebase(const struct mull_image_options *options, const char *backing,
                      const char *backing_format, bool unsafe, struct mull_error *err)
{
    struct mull_image_options o = *options;
    struct mull_image *image, *fresh = NULL;
    o.no_backing = unsafe;
    int ret = mull_image_open(&o, &image, err);

    if (ret)
        return ret;
    backing = backing && *backing ? backing : NULL;
    if (!image->format->rebase)
        ret = mull_fail(err, ENOTSUP, "%s: format %s has no backing files that could change",
                        image->path, image->format->name);
    if (!ret && backing)
        ret = open_fresh(image, backing, &backing_format, &fresh, err);
    if (!ret && unsafe)
        mull_image_track(image, 0, image->size); /* nobody compares what shows from below */
    if (!ret && !unsafe) {
        ret = copy_differences(image, fresh);
        if (!ret)
            ret = mull_image_flush(image);
        if (ret)
            mull_fail(err, -ret, "%s: cannot copy: %s", image->path, strerror(-ret));
    }
    if (!ret) {
        pthread_mutex_lock(&image->lock);
        ret = image->format->rebase(image, backing, backing_format, err);
        pthread_mutex_unlock(&image->lock);
    }
    mull_image_close(fresh);
    int closed = mull_image_close(image);
    return ret || !closed ? ret
                          : mull_fail(err, -closed, "%s: could not be flushed: %s", options->path,
                                      strerror(-closed));
}
