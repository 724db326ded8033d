/*
 * Hostile images: good ones with one lie in them, a table for each format. Opening must fail with a
 * message that names the field, or reading or the check must find it; nothing may take long, or
 * much memory, and nothing may be made worse by opening for writing.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "image/crc32c.h"
#include "image/image.h"

#define SIZE (UINT64_C(4) << 20)
#define NOWHERE UINT64_MAX

static char folder[64];

static const char *in_folder(const char *name)
{
    static char paths[4][128];
    static unsigned next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof(paths[0]), "%s/%s", folder, name);
    return path;
}

static int setup(void **state)
{
    strcpy(folder, "/tmp/mull-hostile-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int teardown(void **state)
{
    char command[128];
    snprintf(command, sizeof(command), "rm -rf %s", folder);
    return system(command);
}

/* ---- Good images ---- */

struct content {
    uint8_t *data;
    size_t size;
};

static struct content load(const char *path)
{
    struct stat st;
    struct content c;
    int fd = open(path, O_RDONLY);
    assert_true(fd >= 0 && !fstat(fd, &st));
    c.size = (size_t)st.st_size;
    c.data = malloc(c.size + 1);
    assert_int_equal(read(fd, c.data, c.size), st.st_size);
    close(fd);
    return c;
}

static void save(const char *path, const uint8_t *data, size_t size)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, size), (ssize_t)size);
    close(fd);
}

static void make(const char *format, const char *subformat, uint32_t unit, const char *backing)
{
    struct mull_create_options c = {.path = in_folder("good"),
                                    .size = SIZE,
                                    .subformat = subformat,
                                    .unit = unit,
                                    .backing = backing,
                                    .backing_format = backing ? format : NULL};
    struct mull_image_options o = {.path = c.path, .format = format};
    struct mull_error err = {0};
    struct mull_image *image;
    uint8_t buf[65536];

    if (mull_format_find(format)->create(&c, &err) || mull_image_open(&o, &image, &err))
        fail_msg("%s", err.message);
    memset(buf, 0x77, sizeof(buf));
    for (uint64_t at = 0; at < SIZE; at += SIZE / 4)
        assert_int_equal(mull_image_write(image, buf, sizeof(buf), at), 0);
    assert_int_equal(mull_image_close(image), 0);
}

/* ---- Lies ---- */

/* A number somewhere in the file. Width: bytes; big-endian if `big`. */
struct patch {
    uint64_t at;
    unsigned width;
    uint64_t value;
};

enum found { AT_OPEN, BY_CHECK, BY_READ, HARMLESS };

struct lie {
    const char *what;
    enum found found;
    const char *want; /* AT_OPEN: in the message */
    struct patch patch[3];
    uint64_t cut; /* the file's new length, 0: as it is */
};

static void put(uint8_t *at, unsigned width, uint64_t value, bool big)
{
    for (unsigned i = 0; i < width; i++)
        at[big ? width - 1 - i : i] = (uint8_t)(value >> (8 * i));
}

static int read_all(struct mull_image *image)
{
    uint8_t *buf = malloc(65536);
    int ret = 0;
    for (uint64_t at = 0; at < image->size && at < 4 * SIZE && !ret;) {
        uint64_t n = image->size - at < 65536 ? image->size - at : 65536;
        ret = mull_image_read(image, buf, n, at);
        at += n;
    }
    free(buf);
    return ret;
}

static void write_some(struct mull_image *image)
{
    uint8_t buf[4096] = {1};
    for (uint64_t i = 0; i < 8; i++) {
        uint64_t at = image->size / 8 * i & ~UINT64_C(4095);
        if (image->size - at < sizeof(buf))
            continue;
        mull_image_write(image, buf, sizeof(buf), at);
        mull_image_zero(image, at, 4096, true);
    }
    mull_image_flush(image);
}

static enum found try(const char *format, bool readonly, struct mull_error *err)
{
    struct mull_image_options o = {
        .path = in_folder("bad"), .format = format, .readonly = readonly};
    struct mull_check check = {0};
    struct mull_image *image;
    enum found found = HARMLESS;

    if (mull_image_open(&o, &image, err))
        return AT_OPEN;
    if (read_all(image))
        found = BY_READ;
    if (!readonly)
        write_some(image);
    if (image->format->check) {
        pthread_mutex_lock(&image->lock);
        if (image->format->check(image, &check, err) || check.corruptions)
            found = BY_CHECK;
        pthread_mutex_unlock(&image->lock);
    }
    mull_image_abandon(image);
    return found;
}

static void run(const char *format, const struct content *good, bool big, const struct lie *lies,
                size_t count, void (*settle)(uint8_t *data, size_t size))
{
    static const char *const names[] = {"on opening", "by the check", "by reading", "nowhere"};

    for (size_t i = 0; i < count; i++) {
        const struct lie *l = &lies[i];
        uint8_t *data = malloc(good->size);
        size_t size = l->cut ? l->cut : good->size;
        memcpy(data, good->data, good->size);
        for (size_t p = 0; p < 3 && l->patch[p].width; p++) {
            assert_true(l->patch[p].at + l->patch[p].width <= good->size);
            put(data + l->patch[p].at, l->patch[p].width, l->patch[p].value, big);
        }
        if (settle)
            settle(data, good->size);
        for (int readonly = 1; readonly >= 0; readonly--) {
            struct mull_error err = {0};
            clock_t start = clock();
            save(in_folder("bad"), data, size);
            enum found found = try(format, readonly, &err);
            double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
            if (seconds > 20)
                fail_msg("%s: %s: takes %.1f s", format, l->what, seconds);
            if (!readonly && l->found != AT_OPEN)
                continue; /* what writing does to it is its own affair, as long as it ends */
            if (found != l->found)
                fail_msg("%s: %s: found %s (%s), not %s", format, l->what, names[found],
                         err.message, names[l->found]);
            if (found == AT_OPEN && !strstr(err.message, l->want))
                fail_msg("%s: %s: says '%s', not of '%s'", format, l->what, err.message, l->want);
        }
        free(data);
    }
    unlink(in_folder("bad"));
}
#define COUNT(list) (sizeof(list) / sizeof((list)[0]))

/* ---- QCOW2 ---- */

static void qcow2(void **state)
{
    make("qcow2", NULL, 65536, NULL);
    struct content good = load(in_folder("good"));
    const uint64_t l1 = mull_be64(good.data + 40), rt = mull_be64(good.data + 48);
    const uint64_t l2 = mull_be64(good.data + l1) & UINT64_C(0x00fffffffffffe00);
    const uint64_t first = mull_be64(good.data + l2) & UINT64_C(0x00fffffffffffe00);
    const uint64_t block = mull_be64(good.data + rt), copied = UINT64_C(1) << 63;
    const uint64_t ext = mull_be32(good.data + 100);
    const struct lie lies[] = {
        {"version", AT_OPEN, "version 9", {{4, 4, 9}}, 0},
        {"tiny clusters", AT_OPEN, "cluster_bits is 8", {{20, 4, 8}}, 0},
        {"clusters without end", AT_OPEN, "cluster_bits", {{20, 4, 63}}, 0},
        {"size", AT_OPEN, "size", {{24, 8, UINT64_C(1) << 62}}, 0},
        {"size that the L1 table does not cover",
         AT_OPEN,
         "l1_size",
         {{24, 8, UINT64_C(1) << 50}},
         0},
        {"encryption", AT_OPEN, "encrypted", {{32, 4, 1}}, 0},
        {"L1 table of 32 GiB", AT_OPEN, "l1_size", {{36, 4, UINT32_MAX}}, 0},
        {"no L1 table", AT_OPEN, "l1_size", {{36, 4, 0}}, 0},
        {"crooked L1 offset", AT_OPEN, "l1_table_offset", {{40, 8, l1 + 8}}, 0},
        {"L1 table behind the file", AT_OPEN, "l1_table_offset", {{40, 8, UINT64_C(1) << 40}}, 0},
        {"L1 offset that overflows", AT_OPEN, "l1_table_offset", {{40, 8, ~UINT64_C(0xffff)}}, 0},
        {"refcount table behind the file",
         AT_OPEN,
         "refcount table",
         {{48, 8, UINT64_C(1) << 40}},
         0},
        {"refcount table of 256 TiB", AT_OPEN, "refcount", {{56, 4, UINT32_MAX}}, 0},
        {"no refcount table", AT_OPEN, "refcount", {{56, 4, 0}}, 0},
        {"snapshots without end", AT_OPEN, "nb_snapshots", {{60, 4, UINT32_MAX}}, 0},
        {"snapshots behind the file",
         AT_OPEN,
         "snapshot",
         {{60, 4, 3}, {64, 8, UINT64_C(1) << 40}},
         0},
        {"unknown features", AT_OPEN, "features", {{72, 8, UINT64_C(1) << 60}}, 0},
        {"marked corrupt", HARMLESS, "", {{72, 8, 2}}, 0},
        {"refcounts of 128 bits", AT_OPEN, "refcount_order", {{96, 4, 7}}, 0},
        {"header longer than a cluster", AT_OPEN, "header_length", {{100, 4, 1u << 20}}, 0},
        {"compression without its feature", AT_OPEN, "compression_type", {{104, 1, 1}}, 0},
        {"long backing name",
         AT_OPEN,
         "backing file name length",
         {{8, 8, 4096}, {16, 4, 5000}},
         0},
        {"backing name behind the header",
         AT_OPEN,
         "backing file name offset",
         {{8, 8, UINT64_C(1) << 33}, {16, 4, 10}},
         0},
        {"endless header extension",
         AT_OPEN,
         "header extension",
         {{ext, 4, 0x12345678}, {ext + 4, 4, UINT32_MAX}},
         0},
        {"bitmaps behind the file",
         AT_OPEN,
         "bitmap",
         {{ext, 8, UINT64_C(0x2385287500000018)}, {88, 8, 1}, {ext + 8, 4, 1000}},
         0},
        {"L1 entry that is the L1 table", BY_CHECK, "", {{l1, 8, l1 | copied}}, 0},
        {"L2 table behind the file", BY_CHECK, "", {{l1, 8, (UINT64_C(1) << 40) | copied}}, 0},
        {"crooked L2 offset", BY_CHECK, "", {{l1, 8, (l2 + 512) | copied}}, 0},
        {"data that is the L2 table", BY_CHECK, "", {{l2, 8, l2 | copied}}, 0},
        {"data that is the header", BY_CHECK, "", {{l2 + 8, 8, copied | 65536}}, 0},
        {"two clusters in one place", BY_CHECK, "", {{l2 + 8, 8, first | copied}}, 0},
        {"data behind the file", BY_CHECK, "", {{l2, 8, (UINT64_C(1) << 45) | copied}}, 0},
        {"a compressed cluster of noise", BY_READ, "", {{l2, 8, (UINT64_C(1) << 62) | first}}, 0},
        {"a refcount of none", BY_CHECK, "", {{block + first / 65536 * 2, 2, 0}}, 0},
        {"a refcount of many", HARMLESS, "", {{block + 200 * 2, 2, 77}}, 0},
        {"a refcount block that is the header", BY_CHECK, "", {{rt, 8, 65536}}, 0},
        {"a refcount block behind the file", BY_CHECK, "", {{rt, 8, UINT64_C(1) << 50}}, 0},
        {"cut off in the header", AT_OPEN, "", {{0}}, 60},
        {"cut off before its tables", AT_OPEN, "", {{0}}, 70000},
        {"cut off in its data", BY_CHECK, "", {{0}}, good.size - 65536},
    };
    run("qcow2", &good, true, lies, COUNT(lies), NULL);
    free(good.data);
}

/* ---- VMDK ---- */

static void vmdk(void **state)
{
    make("vmdk", NULL, 0, NULL);
    struct content good = load(in_folder("good"));
    const uint64_t gd = mull_le64(good.data + 56),
                   gt = mull_le32(good.data + gd * 512) * UINT64_C(512);
    const uint32_t grain = mull_le32(good.data + gt);
    const struct lie lies[] = {
        {"version", AT_OPEN, "version", {{4, 4, 77}}, 0},
        {"no capacity", AT_OPEN, "capacity", {{12, 8, 0}}, 0},
        {"capacity without end", AT_OPEN, "capacity", {{12, 8, UINT64_MAX / 2}}, 0},
        {"capacity less than the descriptor's", AT_OPEN, "capacity", {{12, 8, 8}}, 0},
        {"grains of three sectors", AT_OPEN, "grain size", {{20, 8, 3}}, 0},
        {"grains without end", AT_OPEN, "grain size", {{20, 8, UINT64_C(1) << 40}}, 0},
        {"no grains", AT_OPEN, "grain size", {{20, 8, 0}}, 0},
        {"descriptor behind the file", AT_OPEN, "descriptor", {{28, 8, UINT64_C(1) << 40}}, 0},
        {"descriptor without end", AT_OPEN, "descriptor", {{36, 8, UINT64_C(1) << 40}}, 0},
        {"grain tables without entries", AT_OPEN, "grain table", {{44, 4, 0}}, 0},
        {"grain tables of millions", AT_OPEN, "grain table", {{44, 4, 1u << 30}}, 0},
        {"second directory behind the file", AT_OPEN, "rgdOffset", {{48, 8, UINT64_C(1) << 40}}, 0},
        {"no directory", AT_OPEN, "gdOffset", {{56, 8, 0}}, 0},
        {"directory behind the file", AT_OPEN, "gdOffset", {{56, 8, UINT64_C(1) << 40}}, 0},
        {"directory that overflows", AT_OPEN, "gdOffset", {{56, 8, UINT64_MAX / 512}}, 0},
        {"compressed without markers", AT_OPEN, "compression", {{8, 4, 0x10003}, {77, 2, 7}}, 0},
        {"grain table behind the file", BY_CHECK, "", {{gd * 512, 4, 0x7fffffff}}, 0},
        {"grain behind the file", BY_CHECK, "", {{gt, 4, 0x7fffffff}}, 0},
        {"two grains in one place", BY_CHECK, "", {{gt + 4, 4, grain}}, 0},
        {"tables that differ", BY_CHECK, "", {{gt + 8, 4, 0x00000000}, {gt, 4, 0}}, 0},
        {"a stream without an end", AT_OPEN, "cut off", {{56, 8, UINT64_MAX}}, 0},
        {"cut off in the header", AT_OPEN, "", {{0}}, 60},
        {"cut off in the descriptor", AT_OPEN, "", {{0}}, 600},
        {"cut off before its tables", AT_OPEN, "gdOffset", {{0}}, 12000},
        {"cut off in its data", BY_CHECK, "", {{0}}, grain * UINT64_C(512)},
    };
    run("vmdk", &good, false, lies, COUNT(lies), NULL);
    free(good.data);
}

/* Descriptors with names and numbers that lead elsewhere. */
static void vmdk_descriptors(void **state)
{
    static const struct {
        const char *lines, *want;
    } texts[] = {
        {"RW 2 FLAT \"/etc/passwd\" 0\n", "outside"},
        {"RW 2 FLAT \"../x\" 0\n", "outside"},
        {"RW 2 FLAT \"a/../../x\" 0\n", "outside"},
        {"RW 2 FLAT \"..\\\\x\" 0\n", "outside"},
        {"RW 2 FLAT \"\" 0\n", "name"},
        {"RW 2 FLAT \"nbd:localhost:1\" 0\n", "name"},
        {"RW 2 FLAT \"link\" 0\n", "regular file"},
        {"RW 2 FLAT \"folder\" 0\n", "regular file"},
        {"RW 2 FLAT \"missing\" 0\n", "missing"},
        {"RW 18446744073709551615 FLAT \"x\" 0\n", "sectors"},
        {"RW 0 FLAT \"x\" 0\n", "sectors"},
        {"RW -5 FLAT \"x\" 0\n", "sectors"},
        {"RW 2 FLAT \"x\" 99999999999999999999\n", "sectors"},
        {"RW 2 NONSENSE \"x\" 0\n", "NONSENSE"},
        {"RW 2 FLAT \"x\n", "descriptor line"},
        {"RW 2 SPARSE \"x\"\n", "kind of extent"},
        {"", "without extents"},
        {"parentFileNameHint=\"/dev/zero\"\nparentCID=12345678\nRW 2 ZERO\n", "regular file"},
        {"parentFileNameHint=\"bad\"\nparentCID=12345678\nRW 2 ZERO\n", "its own backing file"},
    };
    char text[1024];

    assert_int_equal(symlink("/etc/passwd", in_folder("link")), 0);
    assert_int_equal(mkdir(in_folder("folder"), 0700), 0);
    save(in_folder("x"), (const uint8_t *)"hello", 5);
    for (size_t i = 0; i < COUNT(texts); i++) {
        struct mull_error err = {0};
        int n = snprintf(text, sizeof(text),
                         "# Disk DescriptorFile\nversion=1\nCID=12345678\n%s"
                         "createType=\"monolithicFlat\"\n%s",
                         strstr(texts[i].lines, "parentCID") ? "" : "parentCID=ffffffff\n",
                         texts[i].lines);
        save(in_folder("bad"), (const uint8_t *)text, (size_t)n);
        for (int readonly = 0; readonly < 2; readonly++) {
            if (try("vmdk", readonly, &err) != AT_OPEN)
                fail_msg("'%s': opened", texts[i].lines);
            if (!strstr(err.message, texts[i].want))
                fail_msg("'%s': says '%s', not of '%s'", texts[i].lines, err.message,
                         texts[i].want);
        }
    }
    /* Ten thousand lines, a megabyte of text, and more. */
    size_t room = 4u << 20, n = 0;
    char *many = malloc(room);
    n = (size_t)sprintf(many, "# Disk DescriptorFile\nCID=1\nparentCID=ffffffff\n");
    while (n < room - 100)
        n += (size_t)sprintf(many + n, "RW 2 ZERO\n");
    for (size_t length = 200000; length < room; length += 3000000) {
        struct mull_error err = {0};
        save(in_folder("bad"), (uint8_t *)many, length);
        assert_int_equal(try("vmdk", true, &err), AT_OPEN);
    }
    free(many);
}

/* ---- VHDX ---- */

static void settle_vhdx(uint8_t *data, size_t size)
{
    for (uint32_t at = 65536; at <= 131072; at += 65536) {
        put(data + at + 4, 4, 0, false);
        put(data + at + 4, 4, mull_crc32c(data + at, 4096), false);
    }
    for (uint32_t at = 192u << 10; at <= 256u << 10; at += 65536) {
        put(data + at + 4, 4, 0, false);
        put(data + at + 4, 4, mull_crc32c(data + at, 65536), false);
    }
}

#define BOTH_HEADERS(field, width, value)                                                          \
    {                                                                                              \
        {65536 + (field), width, value},                                                           \
        {                                                                                          \
            131072 + (field), width, value                                                         \
        }                                                                                          \
    }

static void vhdx(void **state)
{
    make("vhdx", NULL, 1 << 20, NULL);
    struct content good = load(in_folder("good"));
    const uint64_t regions = 192u << 10, second = 256u << 10, metadata = 2u << 20, bat = 3u << 20;
    const uint64_t entry = mull_le64(good.data + bat);
    const struct lie lies[] = {
        {"log of 4 GiB", AT_OPEN, "log of", BOTH_HEADERS(68, 4, 0xfff00000), 0},
        {"no log", AT_OPEN, "log of", BOTH_HEADERS(68, 4, 0), 0},
        {"crooked log", AT_OPEN, "log of", BOTH_HEADERS(72, 8, 12345), 0},
        {"log in the headers", AT_OPEN, "log of", BOTH_HEADERS(72, 8, 0), 0},
        {"headers of another version", AT_OPEN, "header", BOTH_HEADERS(66, 2, 2), 0},
        {"region behind everything",
         AT_OPEN,
         "region",
         {{regions + 16 + 16, 8, UINT64_C(1) << 62}, {second + 16 + 16, 8, UINT64_C(1) << 62}},
         0},
        {"crooked region",
         AT_OPEN,
         "region",
         {{regions + 16 + 16, 8, 4096}, {second + 16 + 16, 8, 4096}},
         0},
        {"short allocation table",
         AT_OPEN,
         "region",
         {{regions + 16 + 24, 4, 0}, {second + 16 + 24, 4, 0}},
         0},
        {"regions without end",
         AT_OPEN,
         "region table",
         {{regions + 8, 4, 100000}, {second + 8, 4, 100000}},
         0},
        {"unknown region", AT_OPEN, "region", {{regions + 16, 4, 0}, {second + 16, 4, 0}}, 0},
        {"metadata without end", AT_OPEN, "metadata", {{metadata + 10, 2, 5000}}, 0},
        {"no metadata", AT_OPEN, "metadata", {{metadata, 8, 0}}, 0},
        {"item behind its region", AT_OPEN, "metadata", {{metadata + 32 + 16, 4, 0x7fffffff}}, 0},
        {"item of 4 GiB", AT_OPEN, "metadata", {{metadata + 32 + 20, 4, UINT32_MAX}}, 0},
        {"unknown item that is required", AT_OPEN, "metadata", {{metadata + 32, 4, 0}}, 0},
        {"blocks of three bytes", AT_OPEN, "block size", {{metadata + 65536, 4, 3}}, 0},
        {"blocks of 2 GiB", AT_OPEN, "block size", {{metadata + 65536, 4, 1u << 31}}, 0},
        {"a parent without a name", AT_OPEN, "parent", {{metadata + 65536 + 4, 4, 2}}, 0},
        {"disk of 8 EiB", AT_OPEN, "disk size", {{metadata + 65536 + 8, 8, UINT64_C(1) << 63}}, 0},
        {"disk of no bytes", AT_OPEN, "disk size", {{metadata + 65536 + 8, 8, 0}}, 0},
        {"disk that the table does not cover",
         AT_OPEN,
         "allocation table",
         {{metadata + 65536 + 8, 8, UINT64_C(1) << 44}},
         0},
        {"sectors of 7 bytes", AT_OPEN, "sector size", {{metadata + 65536 + 32, 4, 7}}, 0},
        {"block in the header", BY_CHECK, "", {{bat, 8, 6}}, 0},
        {"block behind the file", BY_CHECK, "", {{bat, 8, (UINT64_C(1) << 50) | 6}}, 0},
        {"two blocks in one place", BY_CHECK, "", {{bat + 8, 8, entry}}, 0},
        {"a state that is none", BY_READ, "", {{bat, 8, entry - 1}}, 0},
        {"cut off in the headers", AT_OPEN, "", {{0}}, 70000},
        {"cut off before its regions", AT_OPEN, "region", {{0}}, 190000},
        {"cut off before its metadata", AT_OPEN, "metadata", {{0}}, 2u << 20},
        {"cut off in its data", BY_CHECK, "", {{0}}, good.size - (1 << 20)},
    };
    run("vhdx", &good, false, lies, COUNT(lies), settle_vhdx);
    free(good.data);
}

/* A log in which every sector claims to begin an entry of the whole log. */
static void vhdx_log_that_costs_time(void **state)
{
    make("vhdx", NULL, 1 << 20, NULL);
    struct content good = load(in_folder("good"));
    const uint64_t log = UINT64_C(64) << 20; /* its new place, behind all else */
    const uint32_t length = 32u << 20;
    struct mull_error err = {0};

    for (uint32_t at = 65536; at <= 131072; at += 65536) {
        memset(good.data + at + 48, 0x5a, 16);
        put(good.data + at + 68, 4, length, false);
        put(good.data + at + 72, 8, log, false);
    }
    settle_vhdx(good.data, good.size);
    save(in_folder("bad"), good.data, good.size);
    int fd = open(in_folder("bad"), O_WRONLY);
    assert_int_equal(ftruncate(fd, (off_t)(log + length)), 0);
    for (uint64_t at = 0; at < length; at += 4096) {
        uint8_t entry[64] = "loge";
        put(entry + 8, 4, length, false);
        put(entry + 16, 8, 1 + at / 4096, false);
        memset(entry + 32, 0x5a, 16);
        assert_int_equal(pwrite(fd, entry, sizeof(entry), (off_t)(log + at)), sizeof(entry));
    }
    close(fd);
    clock_t start = clock();
    try("vhdx", true, &err);
    double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
    if (seconds > 60)
        fail_msg("takes %.1f s", seconds);
    unlink(in_folder("bad"));
    free(good.data);
}

/* ---- VHD ---- */

static uint32_t vhd_sum(const uint8_t *data, size_t length)
{
    uint32_t sum = 0;
    for (size_t i = 0; i < length; i++)
        sum += data[i];
    return ~sum;
}

static void settle_vhd(uint8_t *data, size_t size)
{
    put(data + 64, 4, 0, true);
    put(data + 64, 4, vhd_sum(data, 512), true);
    memcpy(data + size - 512, data, 512);
    put(data + 512 + 36, 4, 0, true);
    put(data + 512 + 36, 4, vhd_sum(data + 512, 1024), true);
}

static void vhd(void **state)
{
    make("vhd", NULL, 65536, NULL);
    struct content good = load(in_folder("good"));
    const uint64_t bat = mull_be64(good.data + 512 + 16);
    const uint32_t block = mull_be32(good.data + bat);
    const struct lie lies[] = {
        {"disk type", AT_OPEN, "disk type", {{60, 4, 9}}, 0},
        {"version", AT_OPEN, "version", {{12, 4, 0x00090000}}, 0},
        {"disk of 8 EiB", AT_OPEN, "current size", {{48, 8, UINT64_C(1) << 63}}, 0},
        {"disk of no bytes", AT_OPEN, "current size", {{48, 8, 0}}, 0},
        {"disk of 7 bytes", AT_OPEN, "current size", {{48, 8, 7}}, 0},
        {"fixed, and longer than its file",
         AT_OPEN,
         "shorter than its disk",
         {{60, 4, 2}, {48, 8, UINT64_C(1) << 40}},
         0},
        {"header behind the file", AT_OPEN, "dynamic disk header", {{16, 8, UINT64_C(1) << 40}}, 0},
        {"header that overflows", AT_OPEN, "dynamic disk header", {{16, 8, UINT64_MAX}}, 0},
        {"blocks of 3 bytes", AT_OPEN, "block size", {{512 + 32, 4, 3}}, 0},
        {"blocks of 2 GiB", AT_OPEN, "block size", {{512 + 32, 4, 1u << 31}}, 0},
        {"table without entries", AT_OPEN, "allocation table", {{512 + 28, 4, 0}}, 0},
        {"table of 16 GiB", AT_OPEN, "allocation table", {{512 + 28, 4, UINT32_MAX}}, 0},
        {"table behind the file",
         AT_OPEN,
         "behind the file",
         {{512 + 16, 8, UINT64_C(1) << 40}},
         0},
        {"crooked table", AT_OPEN, "allocation table", {{512 + 16, 8, 1537}}, 0},
        {"a parent without a name", AT_OPEN, "parent", {{60, 4, 4}}, 0},
        {"block in the header", BY_CHECK, "", {{bat, 4, 0}}, 0},
        {"block in the table", BY_CHECK, "", {{bat, 4, (uint32_t)(bat / 512)}}, 0},
        {"block behind the file", BY_CHECK, "", {{bat, 4, 0xfffffff0}}, 0},
        {"two blocks in one place", BY_CHECK, "", {{bat + 4, 4, block}}, 0},
        {"blocks that overlap", BY_CHECK, "", {{bat + 4, 4, block + 1}}, 0},
        {"cut off in the header", AT_OPEN, "", {{0}}, 700},
        {"cut off before its table", AT_OPEN, "behind the file", {{0}}, 1536},
        {"cut off in its data", BY_CHECK, "", {{0}}, block * UINT64_C(512)},
    };
    run("vhd", &good, true, lies, COUNT(lies), settle_vhd);
    free(good.data);
}

/* ---- VDI ---- */

static void vdi(void **state)
{
    make("vdi", NULL, 65536, NULL);
    struct content good = load(in_folder("good"));
    const uint64_t data = mull_le32(good.data + 344);
    const struct lie lies[] = {
        {"version", AT_OPEN, "version", {{68, 4, 0x00090000}}, 0},
        {"type", AT_OPEN, "type", {{76, 4, 9}}, 0},
        {"map in the header", AT_OPEN, "block map offset", {{340, 4, 0}}, 0},
        {"map behind the file", AT_OPEN, "block map offset", {{340, 4, 0xfffffe00}}, 0},
        {"data in the map", AT_OPEN, "data offset", {{344, 4, 512}}, 0},
        {"disk of no bytes", AT_OPEN, "disk size", {{368, 8, 0}}, 0},
        {"disk larger than its blocks", AT_OPEN, "disk size", {{368, 8, UINT64_C(1) << 50}}, 0},
        {"blocks of 3 bytes", AT_OPEN, "block size", {{376, 4, 3}}, 0},
        {"extra bytes without end", AT_OPEN, "extra bytes", {{380, 4, 0x7ffffe00}}, 0},
        {"blocks without end", AT_OPEN, "block map", {{384, 4, UINT32_MAX}}, 0},
        {"more blocks in use than there are", AT_OPEN, "allocated", {{388, 4, 100000}}, 0},
        {"block behind the file", BY_CHECK, "", {{512, 4, 60}}, 0},
        {"block behind everything", BY_CHECK, "", {{512, 4, 0xfffffff0}}, 0},
        {"two blocks in one place", BY_CHECK, "", {{512 + 4, 4, 0}}, 0},
        {"cut off in the header", AT_OPEN, "", {{0}}, 300},
        {"cut off before its map", AT_OPEN, "block map", {{0}}, 512},
        {"cut off in its data", BY_CHECK, "", {{0}}, data + 65536},
    };
    run("vdi", &good, false, lies, COUNT(lies), NULL);
    free(good.data);
}

/* ---- Parallels: read only, so made by hand ---- */

static void parallels(void **state)
{
    struct content good = {.size = 65536 * 3};
    good.data = calloc(1, good.size);
    memcpy(good.data, "WithoutFreeSpace", 16);
    put(good.data + 16, 4, 2, false);
    put(good.data + 28, 4, 128, false);
    put(good.data + 32, 4, 64, false);
    put(good.data + 36, 8, SIZE / 512, false);
    put(good.data + 64, 4, 128, false);
    const struct lie lies[] = {
        {"nothing", HARMLESS, "", {{0}}, 0},
        {"no clusters", AT_OPEN, "cluster", {{28, 4, 0}}, 0},
        {"clusters of 2 TiB", AT_OPEN, "cluster", {{28, 4, UINT32_MAX}}, 0},
        {"table without end", AT_OPEN, "cluster", {{32, 4, UINT32_MAX}}, 0},
        {"table behind the file", AT_OPEN, "behind the file", {{32, 4, 1u << 20}}, 0},
        {"disk larger than its table", AT_OPEN, "sectors", {{36, 4, UINT32_MAX}}, 0},
        {"cut off in the header", AT_OPEN, "", {{0}}, 60},
        {"cut off in its table", AT_OPEN, "behind the file", {{0}}, 200},
    };
    for (size_t i = 0; i < COUNT(lies); i++) {
        struct mull_error err = {0};
        uint8_t *data = malloc(good.size);
        memcpy(data, good.data, good.size);
        for (size_t p = 0; p < 3 && lies[i].patch[p].width; p++)
            put(data + lies[i].patch[p].at, lies[i].patch[p].width, lies[i].patch[p].value, false);
        save(in_folder("bad"), data, lies[i].cut ? lies[i].cut : good.size);
        enum found found = try("parallels", true, &err);
        if (found != lies[i].found || (found == AT_OPEN && !strstr(err.message, lies[i].want)))
            fail_msg("%s: %d '%s'", lies[i].what, found, err.message);
        free(data);
    }
    free(good.data);
}

/* ---- Chains ---- */

static void chains(void **state)
{
    struct mull_error err = {0};
    char name[32], below[32];
    struct mull_image *image;

    /* As long as it may be, and one more. */
    for (int i = 0; i <= MULL_IMAGE_CHAIN_MAX; i++) {
        snprintf(name, sizeof(name), "c%d", i);
        snprintf(below, sizeof(below), "c%d", i - 1);
        struct mull_create_options c = {.path = in_folder(name),
                                        .size = SIZE,
                                        .backing = i ? below : NULL,
                                        .backing_format = "qcow2"};
        assert_int_equal(mull_format_find("qcow2")->create(&c, &err), 0);
    }
    for (int top = MULL_IMAGE_CHAIN_MAX - 1; top <= MULL_IMAGE_CHAIN_MAX; top++) {
        snprintf(name, sizeof(name), "c%d", top);
        struct mull_image_options o = {.path = in_folder(name), .readonly = true};
        int ret = mull_image_open(&o, &image, &err);
        assert_int_equal(ret, top < MULL_IMAGE_CHAIN_MAX ? 0 : -ELOOP);
        if (!ret)
            mull_image_close(image);
    }
    /* A ring. */
    struct mull_create_options a = {
        .path = in_folder("a"), .size = SIZE, .backing = "b", .backing_format = "qcow2"};
    struct mull_create_options b = {
        .path = in_folder("b"), .size = SIZE, .backing = "a", .backing_format = "qcow2"};
    assert_int_equal(mull_format_find("qcow2")->create(&a, &err), 0);
    assert_int_equal(mull_format_find("qcow2")->create(&b, &err), 0);
    struct mull_image_options o = {.path = in_folder("a"), .readonly = true};
    assert_int_equal(mull_image_open(&o, &image, &err), -ELOOP);
    assert_non_null(strstr(err.message, "its own backing file"));
}

/* A data file somewhere else is somebody else's. */
static void qcow2_data_file_elsewhere(void **state)
{
    struct mull_error err = {0};
    struct mull_create_options c = {.path = in_folder("good"), .size = SIZE, .data_file = "d"};
    assert_int_equal(mull_format_find("qcow2")->create(&c, &err), 0);
    struct content good = load(in_folder("good"));
    static const char *const names[] = {"/", "."};
    for (size_t i = 0; i < COUNT(names); i++) {
        uint8_t *at = memmem(good.data, 512, "DATA", 4);
        assert_non_null(at);
        at[8] = (uint8_t)names[i][0];
        save(in_folder("bad"), good.data, good.size);
        assert_int_equal(try("qcow2", true, &err), AT_OPEN);
        assert_true(strstr(err.message, "outside") || strstr(err.message, "regular file"));
    }
    free(good.data);
}

#ifdef __has_feature
#if __has_feature(address_sanitizer)
#define SANITIZED
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#define SANITIZED
#endif

/* AddressSanitizer itself takes terabytes of addresses. */
static int bound_memory(void **state)
{
#ifndef SANITIZED
    struct rlimit limit = {UINT64_C(2) << 30, UINT64_C(2) << 30};
    return setrlimit(RLIMIT_AS, &limit);
#else
    return 0;
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(qcow2),     T(qcow2_data_file_elsewhere),
        T(vmdk),      T(vmdk_descriptors),
        T(vhdx),      T(vhdx_log_that_costs_time),
        T(vhd),       T(vdi),
        T(parallels), T(chains),
    };
    return cmocka_run_group_tests(tests, bound_memory, NULL);
}
