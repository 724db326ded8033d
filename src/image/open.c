/*
 * Opening: finding the format, then the chain of images below. Names found inside an image are
 * untrusted: they reach regular files and block devices only, loops and endless chains are refused.
 */
#include "image/formats.h"
#include "image/part.h"
#include "image/source.h"
#include "image/url.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "image/bitmap.h"

const struct mull_format *const mull_formats[] = {
    &mull_format_raw,       &mull_format_qcow2,
    &mull_format_vmdk,      &mull_format_vhdx,
    &mull_format_vhd,       &mull_format_vdi,
    &mull_format_parallels, &mull_format_foreign,
    &mull_format_iso,       NULL,
};

const struct mull_format *mull_format_find(const char *name)
{
    for (int i = 0; mull_formats[i]; i++) {
        if (!strcmp(mull_formats[i]->name, name))
            return mull_formats[i];
        for (const char *const *a = mull_formats[i]->aliases; a && *a; a++)
            if (!strcmp(*a, name))
                return mull_formats[i];
    }
    return NULL;
}

const struct mull_format *mull_format_of(const uint8_t *head, size_t len, const uint8_t *tail,
                                         const char *path)
{
    const struct mull_format *best = NULL;
    int score = 0;

    for (int i = 0; mull_formats[i]; i++) {
        int s = mull_formats[i]->probe ? mull_formats[i]->probe(head, len, tail, path) : 0;
        if (s > score) {
            score = s;
            best = mull_formats[i];
        }
    }
    return best;
}

const struct mull_format *mull_format_probe(struct mull_file *file, const char *path)
{
    uint8_t head[MULL_PROBE_HEAD], tail[MULL_PROBE_TAIL];
    uint64_t size = atomic_load(&file->size);
    const struct mull_format *format = NULL;

    if (!mull_file_read(file, head, sizeof(head), 0) &&
        !mull_file_read(file, tail, sizeof(tail), size > sizeof(tail) ? size - sizeof(tail) : 0))
        format = mull_format_of(head, size < sizeof(head) ? size : sizeof(head), tail, path);
    return format ? format : &mull_format_raw;
}

static void image_free(struct mull_image *image)
{
    if (!image)
        return;
    mull_bitmaps_free(image);
    if (image->state)
        image->format->close(image);
    mull_meta_destroy(image->meta);
    mull_file_close(image->file);
    pthread_mutex_destroy(&image->lock);
    pthread_mutex_destroy(&image->range_lock);
    pthread_mutex_destroy(&image->unpack_lock);
    free(image->unpacked);
    free(image->path);
    free(image->backing_path);
    free(image->backing_format);
    free(image);
}

void mull_image_abandon(struct mull_image *image)
{
    while (image) {
        struct mull_image *backing = image->backing;
        image_free(image);
        image = backing;
    }
}

int mull_image_close(struct mull_image *image)
{
    int ret = 0;
    if (image && !image->readonly) {
        ret = mull_image_flush(image);
        if (!ret && image->format->close_clean) {
            pthread_mutex_lock(&image->lock);
            ret = image->format->close_clean(image);
            pthread_mutex_unlock(&image->lock);
        }
        if (!ret)
            ret = mull_bitmap_file_close(image);
    }
    mull_image_abandon(image);
    return ret;
}

/* A file that was compressed or encrypted whole shows what is in it. */
static int unpack_file(const struct mull_file_options *fo, struct mull_image *image,
                       struct mull_error *err)
{
    struct mull_file *view = NULL;
    int ret = mull_source_is_disk(fo->path) ? 0 : mull_source_unpack(fo, image->file, &view, err);

    if (!ret && view)
        image->file = view;
    if (!ret && !mull_source_is_disk(fo->path) && mull_source_encrypted(image->file)) {
        ret = mull_source_decrypt(fo, image->file, &view, err);
        if (!ret)
            image->file = view;
    }
    return ret;
}

static int open_one(const struct mull_image_options *o, struct mull_image **out,
                    struct mull_error *err)
{
    const struct mull_format *format = NULL;
    bool explicit_format = o->format && strcmp(o->format, "auto");

    if (explicit_format && !(format = mull_format_find(o->format)))
        return mull_fail(err, EINVAL, "%s: unknown image format '%s'", o->path, o->format);

    struct mull_image *image = calloc(1, sizeof(*image));
    if (!image)
        return mull_fail(err, ENOMEM, "%s: out of memory", o->path);
    pthread_mutex_init(&image->lock, NULL);
    pthread_mutex_init(&image->range_lock, NULL);
    pthread_mutex_init(&image->unpack_lock, NULL);
    image->unpacked_at = UINT64_MAX;
    image->lock_unit = 1;
    image->unit = 1;
    image->readonly = o->readonly;
    image->unsafe = o->unsafe;
    image->log = o->log;

    struct mull_file_options fo = {.path = o->path,
                                   .readonly = o->readonly,
                                   .direct = o->direct,
                                   .no_lock = o->no_lock,
                                   .unsafe = o->unsafe,
                                   .bulk = o->bulk,
                                   .observer = o->observer,
                                   .given = o->given,
                                   .source = o->source};
    image->path = strdup(o->path);
    int ret = image->path ? mull_file_open(&fo, &image->file, err)
                          : mull_fail(err, ENOMEM, "%s: out of memory", o->path);
    if (!ret && o->length) {
        struct mull_file *whole = image->file;
        image->file = NULL;
        ret = mull_file_part(&fo, o->offset, o->length, whole, &image->file, err);
    }
    /* Only what is read, and not said to be raw, which a guest may have begun with anything. */
    if (!ret && o->readonly && !o->guest_disk && !o->plain && format != &mull_format_raw)
        ret = unpack_file(&fo, image, err);
    if (!ret) {
        /* An export is a disk's content, in which a guest may have written any header. */
        if (!format && mull_source_is_disk(o->path))
            format = &mull_format_raw;
        image->format = format ? format : mull_format_probe(image->file, o->path);
        bool bare = !explicit_format && image->format == &mull_format_raw && o->readonly &&
                    !o->guest_disk && !mull_source_is_disk(o->path);
        if (bare && mull_raw_is_iso(image->file))
            image->format = &mull_format_iso;
        image->raw_guessed =
            !explicit_format && image->format == &mull_format_raw && !o->readonly && o->guest_disk;
        ret = image->format->open(image, o, err);
    }
    if (!ret && image->lock_unit < image->file->align)
        image->lock_unit = image->file->align;
    if (ret) {
        image_free(image);
        return ret;
    }
    *out = image;
    return 0;
}

int mull_image_open_part(const struct mull_image *image, const struct mull_image_options *options,
                         const char *path, struct mull_file **out, struct mull_error *err)
{
    if (options->length)
        return mull_fail(err, EPERM, "%s: an image inside a file names another one, '%.200s'",
                         image->path, path);
    struct mull_file_options fo = {.path = path,
                                   .readonly = image->readonly,
                                   .direct = options->direct,
                                   .no_lock = options->no_lock,
                                   .unsafe = options->unsafe,
                                   .bulk = options->bulk,
                                   .observer = options->observer,
                                   .given = options->given,
                                   .source = options->source};
    return mull_file_open(&fo, out, err);
}

/* A name inside an image: beside it or below. */
static bool name_is_safe(const char *name)
{
    if (!*name || *name == '/' || strchr(name, '\\'))
        return false;
    for (const char *p = name; p; p = strchr(p, '/')) {
        p += *p == '/';
        if (!strncmp(p, "..", 2) && (p[2] == '/' || !p[2]))
            return false;
    }
    return true;
}

int mull_image_open_named(const struct mull_image *image, const struct mull_image_options *options,
                          const char *name, const char *what, struct mull_file **out,
                          struct mull_error *err)
{
    struct stat st;
    char *path = mull_image_relative_path(image->path, name);
    int ret = 0;

    if (!path)
        return mull_fail(err, EINVAL, "%s: %s name '%.200s' is not one we can follow", image->path,
                         what, name);
    if (!options->anywhere && !name_is_safe(name))
        ret = mull_fail(err, EPERM, "%s: %s '%.200s' lies outside the image's folder", image->path,
                        what, name);
    else if (!options->anywhere && !lstat(path, &st) && !S_ISREG(st.st_mode))
        ret =
            mull_fail(err, EPERM, "%s: %s '%.200s' is not a regular file", image->path, what, name);
    if (!ret && (ret = mull_image_open_part(image, options, path, out, err)))
        mull_fail_in(err, "%s of %s", what, image->path);
    free(path);
    return ret;
}

/* Looked at before it is opened: its lock would be in our own way. */
static bool in_chain(const struct mull_image *top, const char *path)
{
    struct stat st;
    if (stat(path, &st))
        return false;
    for (; top; top = top->backing)
        if (top->file->dev == st.st_dev && top->file->ino == st.st_ino)
            return true;
    return false;
}

static int open_backing(struct mull_image *top, struct mull_image *image,
                        const struct mull_image_options *o, int depth, struct mull_error *err)
{
    if (depth >= MULL_IMAGE_CHAIN_MAX)
        return mull_fail(err, ELOOP, "%s: more than %d images in the chain", top->path,
                         MULL_IMAGE_CHAIN_MAX);
    char *path = mull_image_relative_path(image->path, image->backing_path);
    if (!path)
        return mull_fail(err, EINVAL, "%s: backing file name '%.200s' is not one we can follow",
                         image->path, image->backing_path);
    struct mull_image_options bo = {.path = path,
                                    .format = image->backing_format,
                                    .readonly = true,
                                    .direct = o->direct,
                                    .no_lock = o->no_lock,
                                    .plain = true,
                                    .no_parent_check = o->no_parent_check,
                                    .anywhere = o->anywhere,
                                    .given = o->given,
                                    .log = o->log,
                                    .source = o->source};
    int ret = in_chain(top, path)
                  ? mull_fail(err, ELOOP, "%s: is its own backing file (through '%.200s')",
                              top->path, image->backing_path)
                  : open_one(&bo, &image->backing, err);
    free(path);
    if (ret)
        return ret == -ELOOP ? ret : mull_fail_in(err, "backing file of %s", image->path);
    if (image->format->check_parent && !o->no_parent_check)
        return image->format->check_parent(image, image->backing, err);
    return 0;
}

int mull_image_open(const struct mull_image_options *options, struct mull_image **out,
                    struct mull_error *err)
{
    struct mull_image *top;
    int depth = 1;
    int ret = open_one(options, &top, err);
    if (ret)
        return ret;
    if (!top->readonly && !top->bitmaps && (ret = mull_bitmap_file_open(top, err))) {
        mull_image_abandon(top);
        return ret;
    }

    for (struct mull_image *at = top; !options->no_backing && at->backing_path; at = at->backing) {
        ret = open_backing(top, at, options, depth++, err);
        if (ret) {
            mull_image_abandon(top);
            return ret;
        }
    }
    *out = top;
    return 0;
}

char *mull_image_relative_path(const char *image_path, const char *name)
{
    /* "json:{...}", "nbd:...", "https://...": other kinds of names; a colon in a file's own name
     * comes after a slash. */
    size_t word = strcspn(name, ":/");
    if (!*name || (name[word] == ':' && word > 0 && strncmp(name, "file:", 5)))
        return NULL;
    if (!strncmp(name, "file:", 5))
        name += 5;
    /* What a stranger's server holds must not name files of this host. */
    if (mull_source_is_url(image_path))
        return mull_url_beside(image_path, name);
    const char *slash = strrchr(image_path, '/');
    if (*name == '/' || !slash)
        return strdup(name);
    size_t dir = (size_t)(slash - image_path) + 1, len = strlen(name);
    char *path = malloc(dir + len + 1);
    if (path) {
        memcpy(path, image_path, dir);
        memcpy(path + dir, name, len + 1);
    }
    return path;
}

void mull_info_add(struct mull_image_info *info, const char *name, const char *fmt, ...)
{
    va_list ap;
    if (info->ndetails >= 16)
        return;
    char(*line)[64] = info->details[info->ndetails++];
    snprintf(line[0], sizeof(line[0]), "%s", name);
    va_start(ap, fmt);
    vsnprintf(line[1], sizeof(line[1]), fmt, ap);
    va_end(ap);
}

int mull_image_open_parent(const struct mull_create_options *o, const struct mull_format *format,
                           struct mull_image **out, struct mull_error *err)
{
    char *path = mull_image_relative_path(o->path, o->backing);
    struct mull_image_options io = {
        .path = path, .format = o->backing_format, .readonly = true, .no_backing = true};
    int ret = path ? mull_image_open(&io, out, err)
                   : mull_fail(err, EINVAL, "%s: not a file name", o->backing);

    free(path);
    if (ret || (*out)->format == format)
        return ret;
    ret = mull_fail(err, EINVAL, "%s: the parent of a %s image must be one, too: %s is %s", o->path,
                    format->name, (*out)->path, (*out)->format->name);
    mull_image_close(*out);
    return ret;
}
