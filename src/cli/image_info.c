/*
 * `mullion image` commands that only read: info, check, compare, map, measure.
 */
#include "cli/image.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum {
    OPT_FROM = 256,
    OPT_FROM_B,
    OPT_FORMAT,
    OPT_CHAIN,
    OPT_REPAIR,
    OPT_TO,
    OPT_SNAPSHOT,
    OPT_ANYWHERE
};

struct args {
    const char *from, *from_b, *snapshot;
    char *to;
    bool json, chain, repair, anywhere;
};

static int parse(int argc, char **argv, int files, const char *names, struct args *a)
{
    static const struct option options[] = {
        {"from", required_argument, NULL, OPT_FROM},
        {"from-b", required_argument, NULL, OPT_FROM_B},
        {"format", required_argument, NULL, OPT_FORMAT},
        {"to", required_argument, NULL, OPT_TO},
        {"snapshot", required_argument, NULL, OPT_SNAPSHOT},
        {"chain", no_argument, NULL, OPT_CHAIN},
        {"repair", no_argument, NULL, OPT_REPAIR},
        {"anywhere", no_argument, NULL, OPT_ANYWHERE},
        {0},
    };
    int opt;

    while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (opt == OPT_FROM)
            a->from = optarg;
        else if (opt == OPT_FROM_B)
            a->from_b = optarg;
        else if (opt == OPT_TO)
            a->to = optarg;
        else if (opt == OPT_SNAPSHOT)
            a->snapshot = optarg;
        else if (opt == OPT_CHAIN)
            a->chain = true;
        else if (opt == OPT_REPAIR)
            a->repair = true;
        else if (opt == OPT_ANYWHERE)
            a->anywhere = true;
        else if (opt != OPT_FORMAT || !image_parse_output(optarg, &a->json))
            return -1;
    }
    if (argc - optind != files)
        return image_fail(-1, "%s: give %s", argv[0], names);
    return 0;
}

static int open_readonly(const char *path, const char *format, const struct args *a,
                         bool no_backing, struct mull_image **out)
{
    struct mull_error err = {0};
    struct mull_image_options o = {.path = path,
                                   .format = format,
                                   .readonly = true,
                                   .snapshot = a->snapshot,
                                   .anywhere = a->anywhere,
                                   .no_backing = no_backing,
                                   .repair = true,
                                   .log = &image_log,
                                   .source = image_source()};
    int ret = mull_image_open(&o, out, &err);
    if (ret)
        image_fail(1, "%s", err.message);
    return ret;
}

static uint64_t disk_usage(const struct mull_image *image)
{
    struct stat st;
    return fstat(image->file->fd, &st) ? 0 : (uint64_t)st.st_blocks * 512;
}

static json_t *info_json(struct mull_image *image)
{
    struct mull_image_info info = {0};
    json_t *o = json_pack("{s:s, s:s, s:I, s:I}", "filename", image->path, "format",
                          image->format->name, "virtual-size", (json_int_t)image->size,
                          "actual-size", (json_int_t)disk_usage(image));
    if (image->format->info)
        image->format->info(image, &info);
    if (info.unit)
        json_object_set_new(o, "cluster-size", json_integer(info.unit));
    if (image->backing_path)
        json_object_set_new(o, "backing-filename", json_string_nocheck(image->backing_path));
    if (image->backing_format)
        json_object_set_new(o, "backing-filename-format",
                            json_string_nocheck(image->backing_format));
    json_t *details = json_object();
    for (int i = 0; i < info.ndetails; i++)
        json_object_set_new(details, info.details[i][0], json_string_nocheck(info.details[i][1]));
    json_object_set_new(o, "format-specific", details);
    if (image->format->snapshot_list) {
        struct mull_snapshot *list;
        uint32_t count = 0;
        json_t *all = json_array();
        if (!image->format->snapshot_list(image, &list, &count)) {
            for (uint32_t i = 0; i < count; i++)
                json_array_append_new(all, json_pack("{s:s, s:s, s:I}", "id", list[i].id, "name",
                                                     list[i].name, "vm-state-size",
                                                     (json_int_t)list[i].vm_state_size));
            free(list);
        }
        if (count)
            json_object_set(o, "snapshots", all);
        json_decref(all);
    }
    return o;
}

static void human(uint64_t n, char *out, size_t room)
{
    static const char *units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double v = (double)n;
    int u = 0;
    while (v >= 1024 && u < 6) {
        v /= 1024;
        u++;
    }
    snprintf(out, room, v < 10 && u ? "%.2f %s" : "%.4g %s", v, units[u]);
}

static void info_table(struct mull_image *image)
{
    struct mull_image_info info = {0};
    char size[32], used[32];

    human(image->size, size, sizeof(size));
    human(disk_usage(image), used, sizeof(used));
    printf("image: %s\nfile format: %s\nvirtual size: %s (%llu bytes)\ndisk size: %s\n",
           image->path, image->format->name, size, (unsigned long long)image->size, used);
    if (image->format->info)
        image->format->info(image, &info);
    if (info.unit)
        printf("cluster_size: %u\n", info.unit);
    if (image->backing_path)
        printf("backing file: %s\n", image->backing_path);
    if (image->backing_format)
        printf("backing file format: %s\n", image->backing_format);
    if (info.ndetails)
        printf("Format specific information:\n");
    for (int i = 0; i < info.ndetails; i++)
        printf("    %s: %s\n", info.details[i][0], info.details[i][1]);
}

int image_info(int argc, char **argv)
{
    struct args a = {0};
    struct mull_image *image;

    if (parse(argc, argv, 1, "a FILE", &a) ||
        open_readonly(argv[optind], a.from, &a, !a.chain, &image))
        return 1;
    json_t *all = a.json ? json_array() : NULL;
    for (struct mull_image *at = image; at; at = at->backing) {
        if (a.json) {
            json_array_append_new(all, info_json(at));
        } else {
            if (at != image)
                putchar('\n');
            info_table(at);
        }
    }
    if (a.json) {
        json_dumpf(a.chain ? all : json_array_get(all, 0), stdout, JSON_INDENT(4));
        putchar('\n');
        json_decref(all);
    }
    mull_image_close(image);
    return 0;
}

/* Exit status as qemu-img's: 0 fine, 1 not done, 2 corruptions, 3 leaks, 63 not supported. */
int image_check(int argc, char **argv)
{
    struct args a = {0};
    struct mull_error err = {0};
    struct mull_image *image;
    struct mull_check check = {0};

    if (parse(argc, argv, 1, "a FILE", &a))
        return 1;
    struct mull_image_options o = {.path = argv[optind],
                                   .format = a.from,
                                   .readonly = !a.repair,
                                   .anywhere = a.anywhere,
                                   .no_backing = true,
                                   .repair = true,
                                   .log = &image_log,
                                   .source = image_source()};
    if (mull_image_open(&o, &image, &err))
        return image_fail(1, "%s", err.message);
    if (!image->format->check) {
        mull_image_close(image);
        return image_fail(63, "%s: format %s has nothing to check", argv[optind],
                          image->format->name);
    }
    check.out = a.json ? NULL : stdout;
    check.repair = a.repair;
    pthread_mutex_lock(&image->lock);
    int ret = image->format->check(image, &check, &err);
    pthread_mutex_unlock(&image->lock);
    int closed = mull_image_close(image);
    if (ret || closed)
        return image_fail(1, "%s", ret ? err.message : strerror(-closed));
    if (a.json) {
        json_t *j =
            json_pack("{s:s, s:I, s:I, s:I, s:I, s:I}", "filename", argv[optind], "corruptions",
                      (json_int_t)check.corruptions, "leaks", (json_int_t)check.leaks, "fixed",
                      (json_int_t)check.fixed, "allocated-clusters", (json_int_t)check.allocated,
                      "total-clusters", (json_int_t)check.total);
        json_dumpf(j, stdout, JSON_INDENT(4));
        putchar('\n');
        json_decref(j);
    } else if (check.corruptions || check.leaks) {
        printf("%llu corruptions, %llu leaks, %llu fixed\n", (unsigned long long)check.corruptions,
               (unsigned long long)check.leaks, (unsigned long long)check.fixed);
    } else {
        puts("No errors were found on the image.");
    }
    if (a.repair && check.fixed >= check.corruptions + check.leaks)
        return 0;
    return check.corruptions ? 2 : check.leaks ? 3 : 0;
}

int image_compare(int argc, char **argv)
{
    struct args a = {0};
    struct mull_error err = {0};
    struct mull_image *x, *y;
    struct image_bar bar;
    uint64_t where;

    if (parse(argc, argv, 2, "two FILEs", &a))
        return 2;
    if (open_readonly(argv[optind], a.from, &a, false, &x))
        return 2;
    if (open_readonly(argv[optind + 1], a.from_b, &a, false, &y)) {
        mull_image_close(x);
        return 2;
    }
    image_bar_begin(&bar, "compare");
    int ret = mull_compare(x, y, 0, &where, image_bar_step, &bar, &err);
    image_bar_end(&bar);
    if (ret < 0)
        ret = image_fail(2, "%s", err.message);
    else if (ret)
        printf("Content mismatch at offset %llu\n", (unsigned long long)where);
    else if (x->size != y->size)
        puts("Sizes differ; what one has more reads as zeroes");
    else
        puts("Images are identical.");
    mull_image_close(x);
    mull_image_close(y);
    return ret;
}

int image_map(int argc, char **argv)
{
    struct args a = {0};
    struct mull_image *image;
    json_t *all = json_array();
    int ret = 0;

    if (parse(argc, argv, 1, "a FILE", &a) ||
        open_readonly(argv[optind], a.from, &a, false, &image)) {
        json_decref(all);
        return 1;
    }
    if (!a.json)
        printf("%-16s %-16s %-10s %-16s %s\n", "OFFSET", "LENGTH", "KIND", "MAPPED TO", "FILE");
    for (uint64_t at = 0; at < image->size && !ret;) {
        struct mull_extent e;
        int depth = 0;
        ret = mull_image_locate(image, at, image->size - at, false, &e, NULL, &depth);
        if (ret) {
            image_fail(1, "%s: cannot read the map at %llu: %s", argv[optind],
                       (unsigned long long)at, strerror(-ret));
            break;
        }
        bool zero = e.kind == MULL_EXTENT_ZERO;
        if (e.kind == MULL_EXTENT_DATA && !e.file->block_device) {
            uint64_t start, end;
            int r = mull_file_next_data(e.file, e.offset, &start, &end);
            if (r == -ENXIO || start >= e.offset + e.length)
                zero = true;
            else if (start > e.offset)
                zero = true, e.length = start - e.offset;
            else if (end < e.offset + e.length)
                e.length = end - e.offset;
        }
        if (a.json) {
            json_t *j = json_pack("{s:I, s:I, s:i, s:b, s:b, s:b}", "start", (json_int_t)at,
                                  "length", (json_int_t)e.length, "depth", depth, "zero", zero,
                                  "data", !zero, "compressed", e.kind == MULL_EXTENT_PACKED);
            if (e.kind == MULL_EXTENT_DATA)
                json_object_set_new(j, "offset", json_integer((json_int_t)e.offset));
            json_array_append_new(all, j);
        } else if (!zero) {
            printf("%#-16llx %#-16llx %-10s %#-16llx %s\n", (unsigned long long)at,
                   (unsigned long long)e.length,
                   e.kind == MULL_EXTENT_PACKED ? "compressed" : "data",
                   (unsigned long long)e.offset, e.file->path);
        }
        at += e.length;
    }
    if (a.json) {
        json_dumpf(all, stdout, JSON_INDENT(2));
        putchar('\n');
    }
    json_decref(all);
    mull_image_close(image);
    return ret ? 1 : 0;
}

/* Bytes of units with something in them, and what their tables take. */
int image_measure(int argc, char **argv)
{
    struct args a = {0};
    struct mull_image *image;
    struct image_target t;
    uint64_t data = 0, last = UINT64_MAX;

    if (parse(argc, argv, 1, "a FILE", &a))
        return 1;
    if (!a.to)
        return image_fail(1, "measure: give --to FORMAT");
    if (!image_parse_target(a.to, &t) || open_readonly(argv[optind], a.from, &a, false, &image))
        return 1;
    uint64_t unit = t.create.unit ? t.create.unit : 65536;
    for (uint64_t at = 0; at < image->size;) {
        struct mull_extent e;
        uint64_t start, end, n;
        if (mull_image_locate(image, at, image->size - at, false, &e, NULL, NULL)) {
            mull_image_close(image);
            return image_fail(1, "%s: cannot read its map", argv[optind]);
        }
        n = e.length;
        bool zero = e.kind == MULL_EXTENT_ZERO;
        if (e.kind == MULL_EXTENT_DATA && !e.file->block_device) {
            int r = mull_file_next_data(e.file, e.offset, &start, &end);
            if (r == -ENXIO || start >= e.offset + e.length)
                zero = true;
            else if (start > e.offset)
                zero = true, n = start - e.offset;
            else if (end < e.offset + e.length)
                n = end - e.offset;
        }
        if (!zero) {
            uint64_t first = at / unit, end_unit = (at + n - 1) / unit;
            data += end_unit - first + (first != last);
            last = end_unit;
        }
        at += n;
    }
    bool raw = !strcmp(t.format->name, "raw");
    uint64_t units = (image->size + unit - 1) / unit;
    uint64_t tables = raw ? 0 : units * 10 + 6 * unit;
    uint64_t required = raw ? image->size : data * unit + tables;
    uint64_t full = raw ? image->size : units * unit + tables;
    if (a.json)
        printf("{\n    \"required\": %llu,\n    \"fully-allocated\": %llu\n}\n",
               (unsigned long long)required, (unsigned long long)full);
    else
        printf("required size: %llu\nfully allocated size: %llu\n", (unsigned long long)required,
               (unsigned long long)full);
    mull_image_close(image);
    return 0;
}
