/*
 * `mullion image convert` and `mullion image copy`: whole disks into new images, resumable, and
 * parts of disks into images there are.
 */
#include "cli/image.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "image/resume.h"
#include "image/status.h"

#define COPY_CHUNK (1u << 20)

enum {
    OPT_TO = 256,
    OPT_FROM,
    OPT_THREADS,
    OPT_SNAPSHOT,
    OPT_SYNC,
    OPT_RESUME,
    OPT_ANYWHERE,
    OPT_OFFSET,
    OPT_LENGTH,
    OPT_TO_OFFSET,
    OPT_TARGET_FORMAT,
    OPT_INTERVAL,
};

struct convert_args {
    const char *source, *target, *from, *snapshot;
    struct image_target to;
    int threads;
    bool sync, resume, anywhere;
    uint64_t offset, length, interval_ns;
};

static int parse_convert(int argc, char **argv, struct convert_args *a)
{
    static const struct option options[] = {
        {"to", required_argument, NULL, OPT_TO},
        {"from", required_argument, NULL, OPT_FROM},
        {"threads", required_argument, NULL, OPT_THREADS},
        {"snapshot", required_argument, NULL, OPT_SNAPSHOT},
        {"sync", no_argument, NULL, OPT_SYNC},
        {"resume", no_argument, NULL, OPT_RESUME},
        {"anywhere", no_argument, NULL, OPT_ANYWHERE},
        {"resume-interval", required_argument, NULL, OPT_INTERVAL},
        {"offset", required_argument, NULL, OPT_OFFSET},
        {"length", required_argument, NULL, OPT_LENGTH},
        {0},
    };
    int opt;

    a->length = UINT64_MAX;
    a->interval_ns = UINT64_C(2000000000);
    while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (opt) {
        case OPT_TO:
            if (!image_parse_target(optarg, &a->to))
                return 1;
            break;
        case OPT_FROM:
            a->from = optarg;
            break;
        case OPT_THREADS:
            a->threads = atoi(optarg);
            break;
        case OPT_SNAPSHOT:
            a->snapshot = optarg;
            break;
        case OPT_SYNC:
            a->sync = true;
            break;
        case OPT_RESUME:
            a->resume = true;
            break;
        case OPT_ANYWHERE:
            a->anywhere = true;
            break;
        case OPT_INTERVAL: {
            char *end;
            unsigned long seconds = strtoul(optarg, &end, 10);
            if (*optarg < '0' || *optarg > '9' || *end || seconds > 86400)
                return image_fail(1, "convert: --resume-interval takes seconds");
            a->interval_ns = seconds * UINT64_C(1000000000);
            break;
        }
        case OPT_OFFSET:
        case OPT_LENGTH:
            if (!image_parse_size(optarg, opt == OPT_OFFSET ? &a->offset : &a->length))
                return image_fail(1, "convert: '%s' is not a size", optarg);
            break;
        default:
            return 1;
        }
    }
    if (argc - optind != 2 || !a->to.format)
        return image_fail(1, "convert: give SOURCE, TARGET and --to FORMAT");
    a->source = argv[optind];
    a->target = argv[optind + 1];
    return 0;
}

/* All that makes this conversion another one than the next. */
static char *settings_of(const struct convert_args *a)
{
    const struct mull_create_options *c = &a->to.create;
    char *text = NULL;
    int n = asprintf(&text, "%s %s %u %s %s %d %d %d %d %s %d %s %s %llu %llu", a->to.format->name,
                     c->subformat ? c->subformat : "-", c->unit, c->version ? c->version : "-",
                     c->compression ? c->compression : "-", a->to.compress, c->lazy_refcounts,
                     c->extended_l2, c->refcount_bits, c->data_file ? c->data_file : "-",
                     c->data_file_raw, a->snapshot ? a->snapshot : "-", a->from ? a->from : "-",
                     (unsigned long long)a->offset, (unsigned long long)a->length);
    if (n < 0)
        return NULL;
    for (char *p = text; *p; p++)
        if (*p == '\n')
            *p = '?';
    return text;
}

static int open_target(const struct convert_args *a, struct mull_image **out,
                       struct mull_error *err)
{
    struct mull_image_options o = {.path = a->target,
                                   .format = a->to.format->name,
                                   .unsafe = !a->sync,
                                   .bulk = true,
                                   .log = &image_log,
                                   .source = image_source()};
    return mull_image_open(&o, out, err);
}

/* A target that was begun: open and free of what the interruption left in its tables, or NULL. */
static struct mull_image *reopen_target(const struct convert_args *a, uint64_t size,
                                        struct mull_error *err)
{
    struct mull_image *target;
    struct mull_check check = {.repair = true};

    if (open_target(a, &target, err))
        return NULL;
    int ret = 0;
    if (target->format->check) {
        pthread_mutex_lock(&target->lock);
        ret = target->format->check(target, &check, err);
        pthread_mutex_unlock(&target->lock);
    }
    if (ret || check.corruptions || check.errors || target->size != size || target->stream) {
        if (!ret)
            mull_fail(err, ESTALE, "%s: is not as it was left", a->target);
        mull_image_abandon(target);
        return NULL;
    }
    return target;
}

/* Shown, and noted, as the conversion goes. */
struct progress {
    struct image_bar bar;
    struct mull_resume *resume;
    struct mull_convert *convert;
};

static int on_progress(void *opaque, uint64_t done, uint64_t total)
{
    struct progress *p = opaque;
    /* What the target says here, it says again where it is written to. */
    (void)mull_resume_note(p->resume, p->convert->target, p->convert->finished, false);
    return image_bar_step(&p->bar, done, total);
}

static struct mull_image *prepare_target(struct convert_args *a, struct mull_image *source,
                                         struct mull_resume *resume, uint64_t *start)
{
    struct mull_error err = {0};
    struct mull_image *target = NULL;

    *start = a->resume ? mull_resume_start(resume, &err) : 0;
    if (*start)
        target = reopen_target(a, source->size, &err);
    if (target)
        return target;
    if (a->resume && err.code != ENOENT)
        image_fail(0, "from the start: %s", err.message);
    *start = 0;
    mull_resume_forget(resume);
    a->to.create.path = a->target;
    a->to.create.size = source->size;
    a->to.create.unsafe = true;
    memset(&err, 0, sizeof(err));
    if (a->to.format->create(&a->to.create, &err) || open_target(a, &target, &err)) {
        image_fail(1, "%s", err.message);
        return NULL;
    }
    return target;
}

static int convert_into(struct convert_args *a, struct mull_image *source,
                        struct mull_resume *resume)
{
    struct mull_error err = {0};
    uint64_t start;
    struct mull_image *target = prepare_target(a, source, resume, &start);

    if (!target)
        return 1;
    struct mull_convert c = {.source = source,
                             .target = target,
                             .compress = a->to.compress,
                             .target_zero = !target->file->fixed_size,
                             .threads = a->threads,
                             .start = start,
                             .progress = on_progress};
    struct progress p = {.resume = resume, .convert = &c};
    c.opaque = &p;
    image_bar_begin(&p.bar, a->target);
    int ret = mull_convert(&c, &err);
    image_bar_end(&p.bar);
    if (ret == -ECANCELED) {
        bool resumable = !target->stream && !mull_resume_note(resume, target, c.finished, true);
        mull_image_close(target);
        image_fail(1, "%s%s", err.message, resumable ? "; run again with --resume to go on" : "");
    } else if (ret) {
        image_fail(1, "%s", err.message);
        mull_image_abandon(target);
    } else {
        ret = mull_image_close(target);
        if (ret)
            image_fail(1, "%s: %s", a->target, strerror(-ret));
        else
            mull_resume_forget(resume);
    }
    return ret ? 1 : 0;
}

int image_convert(int argc, char **argv)
{
    struct convert_args a = {0};
    struct mull_error err = {0};
    struct mull_image *source;
    struct mull_resume *resume = NULL;

    if (parse_convert(argc, argv, &a))
        return 1;
    struct mull_image_options o = {.path = a.source,
                                   .format = a.from,
                                   .readonly = true,
                                   .snapshot = a.snapshot,
                                   .anywhere = a.anywhere,
                                   .log = &image_log,
                                   .source = image_source()};
    if (mull_image_open(&o, &source, &err))
        return image_fail(1, "%s", err.message);
    char *settings = settings_of(&a);
    struct mull_resume_options ro = {.source = source,
                                     .target = a.target,
                                     .settings = settings ? settings : "",
                                     .interval_ns = a.interval_ns};
    int status = settings ? 0 : image_fail(1, "out of memory");
    if (!status && mull_resume_open(&ro, &resume, &err))
        status = image_fail(1, "%s", err.message);
    if (!status && (a.offset || a.length != UINT64_MAX)) {
        struct mull_image *part;
        if (mull_image_window(source, a.offset, a.length, &part, &err))
            status = image_fail(1, "%s", err.message);
        else
            source = part;
    }
    if (!status)
        status = convert_into(&a, source, resume);
    mull_resume_close(resume);
    free(settings);
    mull_image_close(source);
    return status;
}

struct copy_args {
    const char *from, *target_format;
    uint64_t offset, length, to_offset;
    bool sync;
};

static int parse_copy(int argc, char **argv, struct copy_args *a)
{
    static const struct option options[] = {
        {"from", required_argument, NULL, OPT_FROM},
        {"target-format", required_argument, NULL, OPT_TARGET_FORMAT},
        {"offset", required_argument, NULL, OPT_OFFSET},
        {"length", required_argument, NULL, OPT_LENGTH},
        {"to-offset", required_argument, NULL, OPT_TO_OFFSET},
        {"sync", no_argument, NULL, OPT_SYNC},
        {0},
    };
    int opt;

    a->length = UINT64_MAX;
    while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
        uint64_t *size = opt == OPT_OFFSET   ? &a->offset
                         : opt == OPT_LENGTH ? &a->length
                                             : &a->to_offset;
        if (opt == OPT_FROM)
            a->from = optarg;
        else if (opt == OPT_TARGET_FORMAT)
            a->target_format = optarg;
        else if (opt == OPT_SYNC)
            a->sync = true;
        else if (opt == '?')
            return 1;
        else if (!image_parse_size(optarg, size))
            return image_fail(1, "copy: '%s' is not a size", optarg);
    }
    return argc - optind == 2 ? 0 : image_fail(1, "copy: give SOURCE and TARGET");
}

static int copy_range(const struct copy_args *a, struct mull_image *source,
                      struct mull_image *target, struct image_bar *bar)
{
    void *buf;
    int ret = 0;

    if (posix_memalign(&buf, 4096, COPY_CHUNK))
        return -ENOMEM;
    for (uint64_t at = 0; at < a->length && !ret;) {
        struct mull_status status;
        ret = mull_image_status(source, a->offset + at, a->length - at, &status);
        if (ret)
            break;
        uint64_t n = status.length < a->length - at ? status.length : a->length - at;
        if (status.zero) {
            ret = mull_image_zero(target, a->to_offset + at, n, true);
        } else {
            n = n < COPY_CHUNK ? n : COPY_CHUNK;
            ret = mull_image_read(source, buf, n, a->offset + at);
            if (!ret)
                ret = mull_image_write(target, buf, n, a->to_offset + at);
        }
        at += n;
        if (!ret && image_bar_step(bar, at, a->length))
            ret = -EINTR;
    }
    free(buf);
    return ret;
}

int image_copy(int argc, char **argv)
{
    struct copy_args a = {0};
    struct mull_error err = {0};
    struct mull_image *source = NULL, *target = NULL;
    struct image_bar bar;

    if (parse_copy(argc, argv, &a))
        return 1;
    struct mull_image_options so = {.path = argv[optind],
                                    .format = a.from,
                                    .readonly = true,
                                    .log = &image_log,
                                    .source = image_source()};
    /* A raw disk stays one whatever is copied into it, unless somebody says that it is raw. */
    struct mull_image_options to = {.path = argv[optind + 1],
                                    .format = a.target_format,
                                    .guest_disk = true,
                                    .log = &image_log,
                                    .source = image_source()};
    if (mull_image_open(&so, &source, &err))
        return image_fail(1, "%s", err.message);
    int ret = mull_image_open(&to, &target, &err);
    if (!ret && a.offset > source->size)
        ret = mull_fail(&err, EINVAL, "%s: --offset lies behind its end", so.path);
    if (!ret && a.length > source->size - a.offset) {
        if (a.length != UINT64_MAX)
            ret = mull_fail(&err, EINVAL, "%s: ends before --offset and --length do", so.path);
        a.length = source->size - a.offset;
    }
    if (!ret && (a.to_offset > target->size || a.length > target->size - a.to_offset))
        ret = mull_fail(&err, ENOSPC, "%s: ends before the copy would", to.path);
    if (!ret) {
        image_bar_begin(&bar, to.path);
        ret = copy_range(&a, source, target, &bar);
        image_bar_end(&bar);
        if (ret)
            mull_fail(&err, -ret, "copying %s to %s: %s", so.path, to.path, strerror(-ret));
    }
    if (!ret && a.sync && (ret = mull_image_flush(target)))
        mull_fail(&err, -ret, "%s: %s", to.path, strerror(-ret));
    int closed = target ? mull_image_close(target) : 0;
    mull_image_close(source);
    if (ret)
        return image_fail(1, "%s", err.message);
    return closed ? image_fail(1, "%s: %s", to.path, strerror(-closed)) : 0;
}
