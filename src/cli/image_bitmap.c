/*
 * `mullion image bitmap` and `mullion image changes`: changed-block tracking from the command line.
 */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/image.h"
#include "image/bitmap.h"

enum { OPT_FROM = 256, OPT_FORMAT, OPT_GRANULARITY, OPT_SINCE };

struct args {
    const char *from, *since;
    uint64_t granularity;
    bool json;
};

static int parse(int argc, char **argv, struct args *a)
{
    static const struct option options[] = {
        {"from", required_argument, NULL, OPT_FROM},
        {"format", required_argument, NULL, OPT_FORMAT},
        {"granularity", required_argument, NULL, OPT_GRANULARITY},
        {"since", required_argument, NULL, OPT_SINCE},
        {0},
    };
    int opt;

    while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (opt == OPT_FROM)
            a->from = optarg;
        else if (opt == OPT_SINCE)
            a->since = optarg;
        else if (opt == OPT_GRANULARITY &&
                 (!image_parse_size(optarg, &a->granularity) || a->granularity > UINT32_MAX))
            return image_fail(-1, "--granularity %s: not a size", optarg);
        else if (opt == '?' || (opt == OPT_FORMAT && !image_parse_output(optarg, &a->json)))
            return -1;
    }
    return 0;
}

static int open_image(const char *path, const struct args *a, bool readonly,
                      struct mull_image **out)
{
    struct mull_error err = {0};
    struct mull_image_options o = {.path = path,
                                   .format = a->from,
                                   .readonly = readonly,
                                   .log = &image_log,
                                   .source = image_source()};
    int ret = mull_image_open(&o, out, &err);
    if (!ret && (ret = mull_bitmaps_get(*out, &err))) {
        mull_image_abandon(*out);
        *out = NULL;
    }
    return ret ? image_fail(-1, "%s", err.message) : 0;
}

static int list(const char *path, const struct args *a)
{
    struct mull_error err = {0};
    struct mull_image *image;
    if (open_image(path, a, true, &image))
        return 1;
    json_t *all = json_array();
    int ret = 0;

    if (!a->json)
        printf("%-24s %-12s %-10s %-9s %s\n", "NAME", "GRANULARITY", "STATE", "RECORDS", "CHANGED");
    for (struct mull_bitmap *b = image->bitmaps->first; b && !ret; b = b->next) {
        ret = mull_bitmap_load(image, b, &err);
        if (ret) {
            image_fail(1, "%s", err.message);
            break;
        }
        uint64_t count = mull_bitmap_count(image, b);
        if (a->json)
            json_array_append_new(all,
                                  json_pack("{s:s, s:I, s:s, s:b, s:I}", "name", b->name,
                                            "granularity", (json_int_t)1 << b->granularity_bits,
                                            "state", b->unknown ? "unknown" : "known", "recording",
                                            b->recording, "changed-bytes", (json_int_t)count));
        else
            printf("%-24s %-12llu %-10s %-9s %llu\n", b->name, 1ull << b->granularity_bits,
                   b->unknown ? "unknown" : "known", b->recording ? "yes" : "no",
                   (unsigned long long)count);
    }
    if (!ret && a->json) {
        json_dumpf(all, stdout, JSON_INDENT(2));
        putchar('\n');
    }
    json_decref(all);
    mull_image_close(image);
    return ret ? 1 : 0;
}

static int change(const char *verb, char **words, const struct args *a)
{
    struct mull_error err = {0};
    struct mull_image *image;
    int ret = open_image(words[0], a, false, &image);

    if (ret)
        return 1;
    if (!strcmp(verb, "add"))
        ret = mull_bitmap_add(image, words[1], (uint32_t)a->granularity, &err);
    else if (!strcmp(verb, "remove"))
        ret = mull_bitmap_remove(image, words[1], &err);
    else if (!strcmp(verb, "clear"))
        ret = mull_bitmap_clear(image, words[1], &err);
    else
        ret = mull_bitmap_merge(image, words[1], words[2], &err);
    int closed = mull_image_close(image);
    if (ret)
        return image_fail(1, "%s", err.message);
    return closed ? image_fail(1, "%s: %s", words[0], strerror(-closed)) : 0;
}

int image_bitmap(int argc, char **argv)
{
    struct args a = {0};

    if (parse(argc, argv, &a))
        return 1;
    const char *verb = optind < argc ? argv[optind] : "";
    int given = argc - optind - 1;
    if (!strcmp(verb, "list"))
        return given == 1 ? list(argv[optind + 1], &a) : image_fail(1, "bitmap list: give a FILE");
    if (!strcmp(verb, "merge"))
        return given == 3 ? change(verb, argv + optind + 1, &a)
                          : image_fail(1, "bitmap merge: give a FILE, INTO and FROM");
    if (strcmp(verb, "add") && strcmp(verb, "remove") && strcmp(verb, "clear"))
        return image_fail(1, "bitmap: say add, remove, clear, merge or list");
    return given == 2 ? change(verb, argv + optind + 1, &a)
                      : image_fail(1, "bitmap %s: give a FILE and a NAME", verb);
}

/* The bitmap asked for, or the only one. */
static struct mull_bitmap *choose(struct mull_image *image, const char *since)
{
    if (since)
        return mull_bitmap_find(image, since);
    struct mull_bitmap *b = image->bitmaps->first;
    return b && !b->next ? b : NULL;
}

static void show_changes(const struct mull_image *image, const struct mull_bitmap *b,
                         const struct args *a)
{
    /* Without a bitmap nobody knows: all of it. */
    const struct mull_bitmap none = {.unknown = true, .granularity_bits = 9};
    const char *why = !b ? "no such bitmap" : b->unknown ? "changes may be missing" : NULL;
    json_t *extents = json_array();

    if (!b)
        b = &none;
    if (!a->json)
        printf("%-18s %s\n", "OFFSET", "LENGTH");
    for (uint64_t at = 0, start, end; mull_bitmap_next(image, b, at, &start, &end); at = end) {
        if (a->json)
            json_array_append_new(extents, json_pack("{s:I, s:I}", "start", (json_int_t)start,
                                                     "length", (json_int_t)(end - start)));
        else
            printf("%-18llu %llu\n", (unsigned long long)start, (unsigned long long)(end - start));
    }
    if (!a->json) {
        if (why)
            printf("all of the disk counts as changed: %s\n", why);
        json_decref(extents);
        return;
    }
    json_t *o =
        json_pack("{s:s, s:s, s:I, s:I, s:o}", "filename", image->path, "state",
                  why ? "unknown" : "known", "virtual-size", (json_int_t)image->size,
                  "changed-bytes", (json_int_t)mull_bitmap_count(image, b), "extents", extents);
    if (b->name)
        json_object_set_new(o, "bitmap", json_string_nocheck(b->name));
    if (why)
        json_object_set_new(o, "reason", json_string(why));
    else
        json_object_set_new(o, "granularity", json_integer((json_int_t)1 << b->granularity_bits));
    json_dumpf(o, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(o);
}

int image_changes(int argc, char **argv)
{
    struct mull_error err = {0};
    struct mull_image *image;
    struct args a = {0};

    if (parse(argc, argv, &a))
        return 1;
    if (argc - optind != 1)
        return image_fail(1, "changes: give a FILE");
    if (open_image(argv[optind], &a, true, &image))
        return 1;
    if (!a.since && image->bitmaps->first && image->bitmaps->first->next) {
        mull_image_close(image);
        return image_fail(1, "changes: %s has several bitmaps; say --since NAME", argv[optind]);
    }
    struct mull_bitmap *b = choose(image, a.since);
    int ret = b ? mull_bitmap_load(image, b, &err) : 0;
    if (ret)
        image_fail(1, "%s", err.message);
    else
        show_changes(image, b, &a);
    mull_image_close(image);
    return ret ? 1 : 0;
}
