/*
 * `mullion image` commands that write: create, resize, snapshot, commit, rebase.
 */
#include "cli/image.h"
#include "image/formats.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "image/chain.h"

enum {
    OPT_TO = 256,
    OPT_FROM,
    OPT_BACKING,
    OPT_BACKING_FORMAT,
    OPT_SHRINK,
    OPT_FORMAT,
    OPT_UNSAFE,
    OPT_PATHS,
};

static int open_image(const char *path, const char *format, bool readonly, bool unsafe,
                      struct mull_image **out)
{
    struct mull_error err = {0};
    struct mull_image_options o = {.path = path,
                                   .format = format,
                                   .readonly = readonly,
                                   .unsafe = unsafe,
                                   .log = &image_log,
                                   .source = image_source()};
    int ret = mull_image_open(&o, out, &err);
    if (ret)
        image_fail(1, "%s", err.message);
    return ret;
}

/* The size of a backing file, and its format where it was not said. */
static int look_at_backing(struct mull_create_options *c, bool size_given)
{
    struct mull_image *backing;
    char *path = mull_image_relative_path(c->path, c->backing);
    if (!path)
        return image_fail(-1, "%s: not a file name", c->backing);
    int ret = open_image(path, c->backing_format, true, false, &backing);
    free(path);
    if (ret)
        return -1;
    if (!size_given)
        c->size = backing->size;
    if (!c->backing_format)
        /* A disc below is raw to whoever reads the overlay. */
        c->backing_format = backing->format == &mull_format_iso ? "raw" : backing->format->name;
    mull_image_close(backing);
    return 0;
}

int image_create(int argc, char **argv)
{
    static const struct option options[] = {
        {"to", required_argument, NULL, OPT_TO},
        {"backing", required_argument, NULL, OPT_BACKING},
        {"backing-format", required_argument, NULL, OPT_BACKING_FORMAT},
        {0},
    };
    char raw[] = "raw";
    struct image_target t;
    const char *backing = NULL, *backing_format = NULL;
    struct mull_error err = {0};
    int opt;

    image_parse_target(raw, &t);
    while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (opt == OPT_TO && !image_parse_target(optarg, &t))
            return 1;
        if (opt == OPT_BACKING)
            backing = optarg;
        if (opt == OPT_BACKING_FORMAT)
            backing_format = optarg;
        if (opt == '?')
            return 1;
    }
    int given = argc - optind;
    if (given < 1 || given > 2 || (given == 1 && !backing))
        return image_fail(1, "create: give a FILE and a SIZE (or --backing)");
    t.create.path = argv[optind];
    t.create.backing = backing;
    t.create.backing_format = backing_format;
    if (given == 2 && !image_parse_size(argv[optind + 1], &t.create.size))
        return image_fail(1, "create: '%s' is not a size", argv[optind + 1]);
    if (backing && look_at_backing(&t.create, given == 2))
        return 1;
    if (t.create.size % 512)
        t.create.size += 512 - t.create.size % 512;
    if (t.format->create(&t.create, &err))
        return image_fail(1, "%s", err.message);
    return 0;
}

/* What lies behind a new end and is not zeroes: bytes in blocks of 64 KiB, and where it begins. */
static int would_lose(struct mull_image *image, uint64_t size, uint64_t *lost, uint64_t *first)
{
    const uint64_t step = 65536;
    uint8_t *buf = malloc(step);
    int ret = buf ? 0 : -ENOMEM;

    *lost = 0;
    for (uint64_t at = size; at < image->size && !ret;) {
        struct mull_extent e;
        ret = mull_image_locate(image, at, image->size - at, false, &e, NULL, NULL);
        if (ret)
            break;
        uint64_t n = e.length, start, end;
        if (e.kind == MULL_EXTENT_DATA && !e.file->block_device) {
            int r = mull_file_next_data(e.file, e.offset, &start, &end);
            if (r == -ENXIO || start >= e.offset + e.length)
                e.kind = MULL_EXTENT_ZERO; /* a hole */
            else if (start > e.offset) {
                e.kind = MULL_EXTENT_ZERO;
                n = start - e.offset;
            }
        }
        if (e.kind != MULL_EXTENT_ZERO) {
            n = n < step ? n : step;
            ret = mull_image_read(image, buf, n, at);
            if (!ret && !mull_is_zero(buf, n)) {
                *first = *lost ? *first : at;
                *lost += n;
            }
        }
        at += n;
    }
    free(buf);
    return ret;
}

/* Whether a smaller disk is what the user wants. @return an exit status */
static int may_shrink(struct mull_image *image, uint64_t size, bool shrink)
{
    uint64_t lost, first = 0;
    int ret = shrink ? 0 : would_lose(image, size, &lost, &first);

    if (ret)
        return image_fail(1, "resize: cannot read what would be cut off: %s", strerror(-ret));
    if (!shrink && lost)
        return image_fail(1,
                          "resize: this would cut off about %llu KiB of data, from byte %llu on; "
                          "say --shrink if you mean it",
                          (unsigned long long)((lost + 1023) / 1024), (unsigned long long)first);
    return 0;
}

int image_resize(int argc, char **argv)
{
    static const struct option options[] = {
        {"shrink", no_argument, NULL, OPT_SHRINK},
        {"from", required_argument, NULL, OPT_FROM},
        {0},
    };
    struct mull_error err = {0};
    struct mull_image *image;
    const char *from = NULL;
    bool shrink = false;
    uint64_t size;
    int opt, ret;

    /* "-1G" is a size, not an option. */
    char *relative = NULL;
    for (int i = 1; i < argc; i++)
        if ((argv[i][0] == '-' || argv[i][0] == '+') && argv[i][1] >= '0' && argv[i][1] <= '9') {
            relative = argv[i];
            memmove(&argv[i], &argv[i + 1], (size_t)(argc - i) * sizeof(*argv));
            argc--;
            break;
        }
    while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (opt == OPT_SHRINK)
            shrink = true;
        else if (opt == OPT_FROM)
            from = optarg;
        else
            return 1;
    }
    if (argc - optind != (relative ? 1 : 2))
        return image_fail(1, "resize: give a FILE and a SIZE");
    if (!image_parse_size(relative ? relative + 1 : argv[optind + 1], &size))
        return image_fail(1, "resize: '%s' is not a size", relative ? relative : argv[optind + 1]);
    if (open_image(argv[optind], from, false, false, &image))
        return 1;
    if (relative && *relative == '+')
        size += image->size;
    else if (relative)
        size = size < image->size ? image->size - size : 0;
    if (size % 512)
        size += 512 - size % 512;
    if (size < image->size && may_shrink(image, size, shrink)) {
        mull_image_close(image);
        return 1;
    }
    ret = mull_image_resize(image, size, &err);
    int closed = mull_image_close(image);
    if (ret)
        return image_fail(1, "%s", err.message);
    return closed ? image_fail(1, "%s: %s", argv[optind], strerror(-closed)) : 0;
}

static void print_snapshots(const struct mull_snapshot *list, uint32_t count, bool json)
{
    if (json) {
        json_t *all = json_array();
        for (uint32_t i = 0; i < count; i++)
            json_array_append_new(all, json_pack("{s:s, s:s, s:I, s:I, s:I}", "id", list[i].id,
                                                 "name", list[i].name, "vm-state-size",
                                                 (json_int_t)list[i].vm_state_size, "date-sec",
                                                 (json_int_t)list[i].date_s, "virtual-size",
                                                 (json_int_t)list[i].size));
        json_dumpf(all, stdout, JSON_INDENT(2));
        putchar('\n');
        json_decref(all);
        return;
    }
    printf("%-6s %-24s %-12s %-20s\n", "ID", "NAME", "VM STATE", "DATE");
    for (uint32_t i = 0; i < count; i++) {
        time_t t = (time_t)list[i].date_s;
        struct tm tm;
        char date[32] = "";
        if (localtime_r(&t, &tm))
            strftime(date, sizeof(date), "%Y-%m-%d %H:%M:%S", &tm);
        printf("%-6s %-24s %-12llu %-20s\n", list[i].id, list[i].name,
               (unsigned long long)list[i].vm_state_size, date);
    }
}

static int do_snapshot(struct mull_image *image, const char *verb, const char *name, bool json)
{
    const struct mull_format *f = image->format;
    struct mull_error err = {0};
    int ret;

    if (!f->snapshot_list)
        return image_fail(1, "%s: format %s has no internal snapshots", image->path, f->name);
    if (!strcmp(verb, "list")) {
        struct mull_snapshot *list;
        uint32_t count;
        ret = f->snapshot_list(image, &list, &count);
        if (!ret)
            print_snapshots(list, count, json);
        if (!ret)
            free(list);
        return ret ? 1 : 0;
    }
    pthread_mutex_lock(&image->lock);
    if (!strcmp(verb, "create"))
        ret = f->snapshot_create(image, name, &err);
    else if (!strcmp(verb, "apply"))
        ret = f->snapshot_apply(image, name, &err);
    else
        ret = f->snapshot_delete(image, name, &err);
    pthread_mutex_unlock(&image->lock);
    return ret ? image_fail(1, "%s", err.message) : 0;
}

int image_snapshot(int argc, char **argv)
{
    static const struct option options[] = {
        {"format", required_argument, NULL, OPT_FORMAT},
        {0},
    };
    struct mull_image *image;
    bool json = false;
    int opt;

    while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1)
        if (opt != OPT_FORMAT || !image_parse_output(optarg, &json))
            return 1;
    const char *verb = optind < argc ? argv[optind] : "";
    bool list = !strcmp(verb, "list");
    if (!list && strcmp(verb, "create") && strcmp(verb, "apply") && strcmp(verb, "delete"))
        return image_fail(1, "snapshot: say list, create, apply or delete");
    if (argc - optind != (list ? 2 : 3))
        return image_fail(1, "snapshot %s: give a FILE%s", verb, list ? "" : " and a NAME");
    if (open_image(argv[optind + 1], NULL, list, false, &image))
        return 1;
    int status = do_snapshot(image, verb, list ? NULL : argv[optind + 2], json);
    int ret = mull_image_close(image);
    return status ? status : ret ? image_fail(1, "%s", strerror(-ret)) : 0;
}

int image_commit(int argc, char **argv)
{
    static const struct option options[] = {
        {"from", required_argument, NULL, OPT_FROM},
        {0},
    };
    struct mull_error err = {0};
    struct image_bar bar;
    const char *from = NULL;
    int opt, ret;

    while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (opt != OPT_FROM)
            return 1;
        from = optarg;
    }
    if (argc - optind != 1)
        return image_fail(1, "commit: give a FILE");
    struct mull_image_options o = {
        .path = argv[optind], .format = from, .log = &image_log, .source = image_source()};
    image_bar_begin(&bar, "commit");
    ret = mull_image_commit(&o, 0, image_bar_step, &bar, &err);
    image_bar_end(&bar);
    return ret ? image_fail(1, "%s", err.message) : 0;
}

int image_rebase(int argc, char **argv)
{
    static const struct option options[] = {
        {"backing", required_argument, NULL, OPT_BACKING},
        {"backing-format", required_argument, NULL, OPT_BACKING_FORMAT},
        {"unsafe", no_argument, NULL, OPT_UNSAFE},
        {0},
    };
    const char *backing = NULL, *format = NULL;
    struct mull_error err = {0};
    bool unsafe = false;
    int opt;

    while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (opt == OPT_BACKING)
            backing = optarg;
        else if (opt == OPT_BACKING_FORMAT)
            format = optarg;
        else if (opt == OPT_UNSAFE)
            unsafe = true;
        else
            return 1;
    }
    if (argc - optind != 1)
        return image_fail(1, "rebase: give a FILE");
    struct mull_image_options o = {.path = argv[optind], .log = &image_log};
    return mull_image_rebase(&o, backing, format, unsafe, &err) ? image_fail(1, "%s", err.message)
                                                                : 0;
}
