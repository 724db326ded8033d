/*
 * Changed-block tracking: what was written is found again in every format, and where a change may
 * be missing (a crash, somebody else's write, a damaged file) everything counts as changed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "image/bitmap.h"
#include "vmhi/image.h"

#define SIZE (UINT64_C(8) << 20)
#define UNIT 65536u

static const struct {
    const char *format, *subformat, *version;
    bool beside;
} kinds[] = {
    {"raw", NULL, NULL, true},
    {"qcow2", NULL, NULL, false},
    {"qcow2", NULL, "2", true},
    {"vmdk", NULL, NULL, true},
    {"vmdk", "twoGbMaxExtentFlat", NULL, true},
    {"vmdk", "vmfsSparse", NULL, true},
    {"vhdx", NULL, NULL, true},
    {"vhd", NULL, NULL, true},
    {"vhd", "fixed", NULL, true},
    {"vdi", NULL, NULL, true},
};
#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

static char folder[64];

static char *in_folder(const char *name)
{
    static char path[128];
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    return path;
}

static int setup(void **state)
{
    strcpy(folder, "/tmp/mull-bitmap-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int teardown(void **state)
{
    char command[128];
    snprintf(command, sizeof(command), "rm -rf %s", folder);
    return system(command);
}

static struct mull_image *open_it(const char *format, bool readonly)
{
    struct mull_image_options o = {
        .path = in_folder("disk"), .format = format, .readonly = readonly};
    struct mull_error err = {0};
    struct mull_image *image = NULL;
    if (mull_image_open(&o, &image, &err))
        fail_msg("%s", err.message);
    if (mull_bitmaps_get(image, &err))
        fail_msg("%s", err.message);
    return image;
}

static void make(size_t kind)
{
    struct mull_create_options c = {.path = in_folder("disk"),
                                    .size = SIZE,
                                    .subformat = kinds[kind].subformat,
                                    .version = kinds[kind].version};
    struct mull_error err = {0};
    unlink(in_folder("disk.cbt"));
    c.path = in_folder("disk");
    if (mull_format_find(kinds[kind].format)->create(&c, &err))
        fail_msg("%s", err.message);
}

static void add(const char *format, const char *name, uint32_t granularity)
{
    struct mull_image *image = open_it(format, false);
    struct mull_error err = {0};
    if (mull_bitmap_add(image, name, granularity, &err))
        fail_msg("%s", err.message);
    assert_int_equal(mull_image_close(image), 0);
}

/* "known 65536+65536 ..." of a bitmap on the disk. */
static void expect(const char *format, const char *name, const char *want)
{
    struct mull_image *image = open_it(format, true);
    struct mull_error err = {0};
    struct mull_bitmap *b = mull_bitmap_find(image, name);
    char got[512] = "none";
    if (b) {
        assert_int_equal(mull_bitmap_load(image, b, &err), 0);
        int n = snprintf(got, sizeof(got), "%s", b->unknown ? "unknown" : "known");
        for (uint64_t at = 0, s, e; mull_bitmap_next(image, b, at, &s, &e); at = e)
            n += snprintf(got + n, sizeof(got) - (size_t)n, " %llu+%llu", (unsigned long long)s,
                          (unsigned long long)(e - s));
    }
    mull_image_close(image);
    if (strcmp(got, want))
        fail_msg("%s: '%s', not '%s'", format, got, want);
}

static const char everything[] = "unknown 0+8388608";

static void put(struct mull_image *image, uint64_t offset, uint64_t length, int byte)
{
    uint8_t *buf = malloc(length);
    memset(buf, byte, length);
    assert_int_equal(mull_image_write(image, buf, length, offset), 0);
    free(buf);
}

static void finds_changes_again(void **state)
{
    for (size_t i = 0; i < KINDS; i++) {
        const char *f = kinds[i].format;
        struct mull_error err = {0};
        make(i);
        add(f, "a", 0);
        expect(f, "a", "known");
        struct mull_image *image = open_it(f, false);
        put(image, 3 * UNIT + 512, 512, 1);
        put(image, 10 * UNIT - 1024, 2048, 2);
        assert_int_equal(mull_image_zero(image, 20 * UNIT, UNIT, true), 0);
        assert_int_equal(mull_image_discard(image, 30 * UNIT, 2 * UNIT), 0);
        assert_int_equal(mull_image_close(image), 0);
        expect(f, "a", "known 196608+65536 589824+131072 1310720+65536 1966080+131072");
        assert_int_equal(access(in_folder("disk.cbt"), F_OK) == 0, kinds[i].beside);

        image = open_it(f, false);
        assert_int_equal(mull_bitmap_add(image, "b", 4096, &err), 0);
        assert_int_not_equal(mull_bitmap_add(image, "b", 4096, &err), 0);
        assert_int_equal(mull_bitmap_clear(image, "a", &err), 0);
        put(image, SIZE - 512, 512, 3);
        assert_int_equal(mull_image_close(image), 0);
        expect(f, "a", "known 8323072+65536");
        expect(f, "b", "known 8384512+4096");

        image = open_it(f, false);
        assert_int_equal(mull_bitmap_clear(image, "b", &err), 0);
        put(image, 0, 4096, 4);
        assert_int_equal(mull_bitmap_merge(image, "a", "b", &err), 0);
        assert_int_equal(mull_bitmap_remove(image, "b", &err), 0);
        assert_int_not_equal(mull_bitmap_remove(image, "b", &err), 0);
        assert_int_equal(mull_image_close(image), 0);
        expect(f, "a", "known 0+65536 8323072+65536");
        expect(f, "b", "none");
    }
}

static void a_crash_makes_all_unknown(void **state)
{
    for (size_t i = 0; i < KINDS; i++) {
        const char *f = kinds[i].format;
        struct mull_error err = {0};
        make(i);
        add(f, "a", 0);
        mull_image_abandon(open_it(f, false));
        expect(f, "a", everything);
        /* and stays so until it is cleared */
        struct mull_image *image = open_it(f, false);
        put(image, 0, 512, 1);
        assert_int_equal(mull_image_close(image), 0);
        expect(f, "a", everything);
        image = open_it(f, false);
        assert_int_equal(mull_bitmap_clear(image, "a", &err), 0);
        assert_int_equal(mull_image_close(image), 0);
        expect(f, "a", "known");
    }
}

static void another_writer_is_noticed(void **state)
{
    for (size_t i = 0; i < KINDS; i++) {
        if (!kinds[i].beside)
            continue;
        make(i);
        add(kinds[i].format, "a", 0);
        /* At once, without growing: only the time tells. */
        bool flat = kinds[i].subformat && !strcmp(kinds[i].subformat, "twoGbMaxExtentFlat");
        int fd = open(in_folder(flat ? "disk-f001.vmdk" : "disk"), O_RDWR);
        char byte;
        assert_true(fd >= 0);
        assert_int_equal(pread(fd, &byte, 1, 100), 1);
        assert_int_equal(pwrite(fd, &byte, 1, 100), 1);
        close(fd);
        expect(kinds[i].format, "a", everything);
    }
}

/* Block 5 has changed, or nobody knows. */
static void unknown_or_right(void)
{
    struct mull_image *image = open_it("raw", true);
    struct mull_bitmap *b = mull_bitmap_find(image, "a");
    struct mull_error err = {0};
    uint64_t start, end;
    if (b && !b->unknown) { /* what was damaged is padding */
        assert_int_equal(mull_bitmap_load(image, b, &err), 0);
        assert_true(mull_bitmap_next(image, b, 0, &start, &end));
        assert_int_equal(start, 5 * UNIT);
        assert_int_equal(end, 6 * UNIT);
    }
    mull_image_close(image);
}

static void a_damaged_file_is_never_believed(void **state)
{
    make(0);
    add("raw", "a", 0);
    struct mull_image *image = open_it("raw", false);
    put(image, 5 * UNIT, 512, 1);
    assert_int_equal(mull_image_close(image), 0);

    struct stat st;
    assert_int_equal(stat(in_folder("disk.cbt"), &st), 0);
    uint8_t *good = malloc((size_t)st.st_size);
    int fd = open(in_folder("disk.cbt"), O_RDWR);
    assert_int_equal(pread(fd, good, (size_t)st.st_size, 0), st.st_size);
    for (off_t at = 0; at < st.st_size; at += at < 560 ? 1 : 1021) {
        uint8_t wrong = (uint8_t)(good[at] ^ 0x40);
        assert_int_equal(pwrite(fd, &wrong, 1, at), 1);
        unknown_or_right();
        assert_int_equal(pwrite(fd, &good[at], 1, at), 1);
    }
    for (off_t length = 0; length < st.st_size; length += 700) {
        assert_int_equal(ftruncate(fd, length), 0);
        unknown_or_right();
        assert_int_equal(pwrite(fd, good, (size_t)st.st_size, 0), st.st_size);
    }
    close(fd);
    free(good);
}

static void the_name_must_not_lead_elsewhere(void **state)
{
    struct mull_error err = {0};
    struct mull_image *image = NULL;
    make(0);
    assert_int_equal(symlink("/etc/hostname", in_folder("disk.cbt")), 0);
    struct mull_image_options o = {.path = in_folder("disk"), .format = "raw"};
    assert_int_not_equal(mull_image_open(&o, &image, &err), 0);
    assert_non_null(strstr(err.message, "regular file"));
    unlink(in_folder("disk.cbt"));

    /* Nor is somebody else's file overwritten. */
    int fd = open(in_folder("disk.cbt"), O_WRONLY | O_CREAT, 0600);
    assert_int_equal(write(fd, "comics", 6), 6);
    close(fd);
    image = open_it("raw", false);
    assert_int_not_equal(mull_bitmap_add(image, "a", 0, &err), 0);
    mull_image_close(image);
    struct stat st;
    assert_int_equal(stat(in_folder("disk.cbt"), &st), 0);
    assert_int_equal(st.st_size, 6);
}

static void bits_follow_the_size(void **state)
{
    for (size_t i = 0; i < KINDS; i++) {
        const struct mull_format *f = mull_format_find(kinds[i].format);
        struct mull_error err = {0};
        if (!f->resize)
            continue;
        make(i);
        add(f->name, "a", 0);
        struct mull_image *image = open_it(f->name, false);
        if (mull_image_resize(image, SIZE + (1 << 20), &err))
            fail_msg("%s", err.message);
        assert_int_equal(mull_image_close(image), 0);
        expect(f->name, "a", "known 8388608+1048576");
        image = open_it(f->name, false);
        if (mull_image_resize(image, SIZE / 2, &err) ||
            mull_image_resize(image, SIZE / 2 + UNIT, &err))
            fail_msg("%s", err.message);
        assert_int_equal(mull_image_close(image), 0);
        expect(f->name, "a", "known 4194304+65536");
    }
}

/* The same from outside. */
static void through_vmhi(void **state)
{
    struct vmhi_image_options o = {
        .size = sizeof(o), .path = in_folder("disk"), .format = "vhdx", .disk_size = SIZE};
    struct vmhi_image_bitmap b = {.size = sizeof(b)};
    struct vmhi_image_change c = {.size = sizeof(c)};
    struct vmhi_image_snapshot snap = {.size = sizeof(snap)};
    struct vmhi_error err = {0};
    struct vmhi_image *image;
    uint8_t buf[512] = {1};

    assert_int_equal(vmhi_image_create(&o, &err), 0);
    assert_int_equal(vmhi_image_open(&o, &image, &err), 0);
    assert_int_equal(vmhi_image_get_bitmap(image, 0, &b, &err), -ENOENT);
    assert_int_equal(vmhi_image_add_bitmap(image, "day", 0, &err), 0);
    assert_int_equal(vmhi_image_add_bitmap(image, "day", 0, &err), -EEXIST);
    assert_non_null(strstr(err.message, "day"));
    assert_int_equal(vmhi_image_write(image, 5 * UNIT, buf, sizeof(buf)), 0);
    assert_int_equal(vmhi_image_add_bitmap(image, "hour", 4096, &err), 0);
    assert_int_equal(vmhi_image_merge_bitmap(image, "hour", "day", &err), 0);
    assert_int_equal(vmhi_image_clear_bitmap(image, "day", &err), 0);
    assert_int_equal(vmhi_image_close(image), 0);
    o.flags = VMHI_IMAGE_READONLY;
    assert_int_equal(vmhi_image_open(&o, &image, &err), 0);
    assert_int_equal(vmhi_image_get_bitmap(image, 1, &b, &err), 0);
    assert_string_equal(b.name, "hour");
    assert_int_equal(b.granularity, 4096);
    assert_int_equal(b.changed_bytes, UNIT);
    assert_true(b.recording && !b.unknown);
    assert_int_equal(vmhi_image_next_change(image, "hour", 0, &c, &err), 0);
    assert_true(c.offset == 5 * UNIT && c.length == UNIT && !c.unknown);
    assert_int_equal(vmhi_image_next_change(image, "hour", c.offset + c.length, &c, &err), -ENOENT);
    assert_int_equal(vmhi_image_next_change(image, "day", 0, &c, &err), -ENOENT);
    assert_int_equal(vmhi_image_next_change(image, "lost", 0, &c, &err), 0);
    assert_true(c.length == SIZE && c.unknown);
    assert_int_equal(vmhi_image_remove_bitmap(image, "day", &err), -EROFS);
    assert_int_equal(vmhi_image_create_snapshot(image, "s", &err), -ENOTSUP);
    vmhi_image_close(image);

    o.format = "qcow2";
    o.flags = 0;
    assert_int_equal(vmhi_image_create(&o, &err), 0);
    assert_int_equal(vmhi_image_open(&o, &image, &err), 0);
    assert_int_equal(vmhi_image_create_snapshot(image, "s", &err), 0);
    assert_int_equal(vmhi_image_write(image, 0, buf, sizeof(buf)), 0);
    assert_int_equal(vmhi_image_get_snapshot(image, 0, &snap, &err), 0);
    assert_string_equal(snap.name, "s");
    assert_int_equal(snap.disk_size, SIZE);
    assert_int_equal(vmhi_image_get_snapshot(image, 1, &snap, &err), -ENOENT);
    assert_int_equal(vmhi_image_apply_snapshot(image, "s", &err), 0);
    assert_int_equal(vmhi_image_read(image, 0, buf, sizeof(buf)), 0);
    assert_int_equal(buf[0], 0);
    assert_int_equal(vmhi_image_delete_snapshot(image, "s", &err), 0);
    assert_int_equal(vmhi_image_delete_snapshot(image, "s", &err), -ENOENT);
    assert_int_equal(vmhi_image_close(image), 0);

    struct vmhi_image_options top = {.size = sizeof(top),
                                     .path = in_folder("disk"),
                                     .format = "qcow2",
                                     .disk_size = SIZE,
                                     .backing = "below",
                                     .backing_format = "raw"};
    char below[128];
    snprintf(below, sizeof(below), "%s/below", folder);
    struct vmhi_image_options raw = {.size = sizeof(raw), .path = below, .disk_size = SIZE};
    top.path = in_folder("disk");
    assert_int_equal(vmhi_image_create(&raw, &err), 0);
    assert_int_equal(vmhi_image_create(&top, &err), 0);
    assert_int_equal(vmhi_image_open(&top, &image, &err), 0);
    buf[0] = 7;
    assert_int_equal(vmhi_image_write(image, 0, buf, sizeof(buf)), 0);
    assert_int_equal(vmhi_image_close(image), 0);
    if (vmhi_image_commit(&top, NULL, NULL, &err))
        fail_msg("%s", err.message);
    raw.flags = VMHI_IMAGE_READONLY;
    raw.format = "raw";
    assert_int_equal(vmhi_image_open(&raw, &image, &err), 0);
    assert_int_equal(vmhi_image_read(image, 0, buf, sizeof(buf)), 0);
    assert_int_equal(buf[0], 7);
    assert_int_equal(vmhi_image_close(image), 0);
    top.backing = NULL;
    assert_int_equal(vmhi_image_rebase(&top, &err), 0);
}

struct writer {
    struct mull_image *image;
    atomic_bool stop;
    atomic_uint rounds;
    int result;
};

static void *write_on(void *opaque)
{
    struct writer *w = opaque;
    uint8_t buf[512];

    memset(buf, 5, sizeof(buf));
    while (!atomic_load(&w->stop) && !w->result) {
        unsigned i = atomic_fetch_add(&w->rounds, 1);
        w->result = mull_image_write(w->image, buf, sizeof(buf), i % 128 * (SIZE / 128));
        if (!w->result && i % 16 == 0)
            w->result = mull_image_flush(w->image);
    }
    return NULL;
}

/* Bitmaps come and go while the disk is written and flushed; the one that stays misses nothing. */
static void come_and_go_beside_writes(void **state)
{
    static const char *const formats[] = {"qcow2", "raw"};

    for (size_t k = 0; k < 2; k++) {
        struct mull_create_options c = {
            .path = in_folder(formats[k]), .size = SIZE, .unsafe = true};
        struct mull_image_options o = {.path = c.path, .format = formats[k], .unsafe = true};
        struct writer w = {0};
        struct mull_error err = {0};
        pthread_t thread;

        assert_int_equal(mull_format_find(formats[k])->create(&c, &err), 0);
        assert_int_equal(mull_image_open(&o, &w.image, &err), 0);
        assert_int_equal(mull_bitmap_add(w.image, "stays", 0, &err), 0);
        assert_int_equal(pthread_create(&thread, NULL, write_on, &w), 0);
        for (unsigned i = 0; i < 300 || atomic_load(&w.rounds) < 128; i++) {
            char name[16];
            snprintf(name, sizeof(name), "b%u", i % 3);
            assert_int_equal(mull_bitmap_add(w.image, name, 512, &err), 0);
            assert_int_equal(mull_bitmap_remove(w.image, name, &err), 0);
        }
        atomic_store(&w.stop, true);
        assert_int_equal(pthread_join(thread, NULL), 0);
        assert_int_equal(w.result, 0);
        assert_int_equal(mull_bitmap_count(w.image, mull_bitmap_find(w.image, "stays")), SIZE);
        assert_int_equal(mull_image_close(w.image), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(come_and_go_beside_writes, setup, teardown),
        cmocka_unit_test_setup_teardown(finds_changes_again, setup, teardown),
        cmocka_unit_test_setup_teardown(a_crash_makes_all_unknown, setup, teardown),
        cmocka_unit_test_setup_teardown(another_writer_is_noticed, setup, teardown),
        cmocka_unit_test_setup_teardown(a_damaged_file_is_never_believed, setup, teardown),
        cmocka_unit_test_setup_teardown(the_name_must_not_lead_elsewhere, setup, teardown),
        cmocka_unit_test_setup_teardown(bits_follow_the_size, setup, teardown),
        cmocka_unit_test_setup_teardown(through_vmhi, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
