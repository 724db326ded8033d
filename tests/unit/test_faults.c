/*
 * Every path that writes, with a disk below that fails: the n-th operation alone, or all from the
 * n-th on, with I/O errors, no space left or read-only media. Whatever the caller was told, the
 * image opens again, its check finds nothing, and what was not touched is as it was.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "image/bitmap.h"
#include "image/chain.h"
#include "image/image.h"

#define SIZE (UINT64_C(2) << 20)
#define BLOCK 65536u
#define BLOCKS (SIZE / BLOCK)
#define POSITIONS 8 /* at which an error begins, of each kind and scenario */

static const struct {
    const char *format;
    struct mull_create_options create;
    bool chain;
} kinds[] = {
    {"raw", {.size = SIZE}, false},
    {"qcow2", {.size = SIZE}, false},
    {"qcow2", {.size = SIZE, .unit = 4096, .extended_l2 = false}, true},
    {"qcow2", {.size = SIZE, .version = "2"}, false},
    {"qcow2", {.size = SIZE, .lazy_refcounts = true}, false},
    {"vmdk", {.size = SIZE}, false},
    {"vmdk", {.size = SIZE}, true},
    {"vmdk", {.size = SIZE, .subformat = "twoGbMaxExtentFlat"}, false},
    {"vmdk", {.size = SIZE, .subformat = "twoGbMaxExtentSparse"}, false},
    {"vmdk", {.size = SIZE, .subformat = "vmfsSparse"}, true},
    {"vhdx", {.size = SIZE, .unit = 1u << 20}, false},
    {"vhdx", {.size = SIZE, .unit = 1u << 20}, true},
    {"vhd", {.size = SIZE, .unit = 65536}, false},
    {"vhd", {.size = SIZE, .unit = 65536}, true},
    {"vhd", {.size = SIZE, .subformat = "fixed"}, false},
    {"vdi", {.size = SIZE, .unit = 65536}, false},
};
#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

static char folder[64];

static char *in_folder(const char *name)
{
    static char paths[4][384];
    static unsigned next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof(paths[0]), "%s/%s", folder, name);
    return path;
}

static void clean(void)
{
    DIR *files = opendir(folder);
    struct dirent *entry;
    while (files && (entry = readdir(files)))
        if (entry->d_name[0] != '.')
            unlink(in_folder(entry->d_name));
    closedir(files);
}

static int setup(void **state)
{
    snprintf(folder, sizeof(folder), "%s/mull-faults-XXXXXX",
             access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
    return mkdtemp(folder) ? 0 : -1;
}

static int teardown(void **state)
{
    clean();
    return rmdir(folder);
}

/* ---- The disk that fails ---- */

struct faults {
    unsigned count; /* operations so far */
    unsigned first; /* the one that fails */
    bool on_and_on; /* and all behind it */
    bool reads;     /* count and fail those too */
    int error;
};

static int inject(void *opaque, const struct mull_file *file, enum mull_file_event event,
                  uint64_t offset, uint64_t length, const struct iovec *iov, int niov)
{
    struct faults *f = opaque;
    if (event == MULL_FILE_READ && !f->reads)
        return 0;
    if (f->error == -ENOSPC && (event == MULL_FILE_FLUSH || event == MULL_FILE_PUNCH))
        return 0;
    f->count++;
    return f->count == f->first || (f->on_and_on && f->count > f->first) ? f->error : 0;
}

/* ---- What is done ---- */

static void fill(uint8_t *buf, uint64_t block, uint8_t tag)
{
    memset(buf, (int)(tag + block), BLOCK);
}

static void make(size_t k)
{
    const struct mull_format *f = mull_format_find(kinds[k].format);
    struct mull_create_options c = kinds[k].create;
    struct mull_error err = {0};
    struct mull_image *image;
    uint8_t buf[BLOCK];

    clean();
    for (int top = kinds[k].chain ? 0 : 1; top < 2; top++) {
        c.path = in_folder(top ? "disk" : "base");
        c.backing = top && kinds[k].chain ? "base" : NULL;
        c.backing_format = c.backing ? kinds[k].format : NULL;
        struct mull_image_options o = {.path = c.path, .format = kinds[k].format};
        if (f->create(&c, &err) || mull_image_open(&o, &image, &err))
            fail_msg("%s: %s", kinds[k].format, err.message);
        for (uint64_t b = 0; b < BLOCKS; b += 2) { /* half of the disk */
            fill(buf, b, 1);
            if (!c.backing || b % 4 == 0)
                assert_int_equal(mull_image_write(image, buf, BLOCK, b * BLOCK), 0);
        }
        assert_int_equal(mull_image_close(image), 0);
    }
}

enum scenario { WRITING, RESIZING, SNAPSHOTS, BITMAPS, REBASING, SCENARIOS };
static const char *const scenario_names[] = {"writing", "resizing", "snapshots", "bitmaps",
                                             "commit and rebase"};

/* Blocks 1, 2, 5, 6, 9, ... are written to. */
static bool touched(uint64_t block)
{
    return block % 4 == 1 || block % 4 == 2;
}

static void write_blocks(struct mull_image *image)
{
    uint8_t buf[BLOCK];
    for (uint64_t b = 0; b < BLOCKS && (b + 1) * BLOCK <= image->size; b++) {
        fill(buf, b, 100);
        if (!touched(b))
            continue;
        if (b % 16 == 14)
            mull_image_zero(image, b * BLOCK, BLOCK, true);
        else if (b % 16 == 10)
            mull_image_discard(image, b * BLOCK, BLOCK);
        else
            mull_image_write(image, buf, BLOCK, b * BLOCK);
        if (b % 8 == 5)
            mull_image_flush(image);
    }
}

static void snapshots(struct mull_image *image)
{
    const struct mull_format *f = image->format;
    struct mull_error err = {0};
    if (!f->snapshot_create)
        return;
    pthread_mutex_lock(&image->lock);
    f->snapshot_create(image, "s", &err);
    pthread_mutex_unlock(&image->lock);
    write_blocks(image);
    pthread_mutex_lock(&image->lock);
    f->snapshot_create(image, "t", &err);
    f->snapshot_apply(image, "s", &err);
    f->snapshot_delete(image, "s", &err);
    pthread_mutex_unlock(&image->lock);
    write_blocks(image);
}

static void act(size_t k, enum scenario scenario, struct faults *faults)
{
    const struct mull_file_observer observer = {inject, faults};
    struct mull_image_options o = {
        .path = in_folder("disk"), .format = kinds[k].format, .observer = &observer};
    struct mull_error err = {0};
    struct mull_image *image;

    if (scenario == REBASING) {
        if (!kinds[k].chain)
            return;
        mull_image_commit(&o, 1, NULL, NULL, &err);
        mull_image_rebase(&o, "base", kinds[k].format, false, &err);
        return;
    }
    if (mull_image_open(&o, &image, &err))
        return;
    if (scenario == WRITING)
        write_blocks(image);
    if (scenario == RESIZING && image->format->resize) {
        mull_image_resize(image, SIZE * 3, &err);
        mull_image_resize(image, SIZE * 2, &err);
        mull_image_resize(image, SIZE, &err);
    }
    if (scenario == SNAPSHOTS)
        snapshots(image);
    if (scenario == BITMAPS) {
        mull_bitmap_add(image, "a", 4096, &err);
        write_blocks(image);
        mull_bitmap_add(image, "b", 0, &err);
        mull_bitmap_merge(image, "b", "a", &err);
        mull_bitmap_clear(image, "a", &err);
        mull_bitmap_remove(image, "a", &err);
    }
    mull_image_close(image);
}

/* ---- What is left ---- */

static void verify(size_t k, enum scenario scenario, const struct faults *faults)
{
    struct mull_image_options o = {.path = in_folder("disk"), .format = kinds[k].format};
    struct mull_error err = {0};
    char *found = NULL;
    size_t length;
    struct mull_check check = {.out = open_memstream(&found, &length)};
    struct mull_image *image;
    uint8_t buf[BLOCK], old[BLOCK], zero[BLOCK] = {0}, new[BLOCK];
    char place[160];

    snprintf(place, sizeof(place), "%s %s%s, %s: error %d from operation %u%s", kinds[k].format,
             kinds[k].create.subformat ? kinds[k].create.subformat : "",
             kinds[k].chain ? " chain" : "", scenario_names[scenario], faults->error, faults->first,
             faults->on_and_on ? " on" : "");
    int ret = mull_image_open(&o, &image, &err);
    if (ret)
        fail_msg("%s: does not open: %s", place, err.message);
    if (image->format->check) {
        pthread_mutex_lock(&image->lock);
        ret = image->format->check(image, &check, &err);
        pthread_mutex_unlock(&image->lock);
        fflush(check.out);
        if (ret || check.corruptions)
            fail_msg("%s: %s, %llu corruptions: %.4000s", place, err.message,
                     (unsigned long long)check.corruptions, found);
    }
    fclose(check.out);
    free(found);
    bool writes = scenario == WRITING || scenario == SNAPSHOTS || scenario == BITMAPS;
    assert_true(image->size >= SIZE);
    for (uint64_t b = 0; b < BLOCKS; b++) {
        fill(old, b, 1);
        fill(new, b, 100);
        if (mull_image_read(image, buf, BLOCK, b * BLOCK))
            fail_msg("%s: block %llu cannot be read", place, (unsigned long long)b);
        if (b % 2)
            memset(old, 0, BLOCK);
        for (uint32_t s = 0; s < BLOCK; s += 512)
            if (memcmp(buf + s, old + s, 512) &&
                (!writes || !touched(b) ||
                 (memcmp(buf + s, new + s, 512) && memcmp(buf + s, zero + s, 512))))
                fail_msg("%s: block %llu is not what it may be", place, (unsigned long long)b);
    }
    /* And it can be written to again. */
    fill(buf, 0, 1);
    assert_int_equal(mull_image_write(image, buf, BLOCK, 0), 0);
    assert_int_equal(mull_image_close(image), 0);
}

static void try_all(enum scenario scenario)
{
    static const struct faults modes[] = {
        {.error = -EIO, .reads = true},        {.error = -EIO, .on_and_on = true},
        {.error = -ENOSPC, .on_and_on = true}, {.error = -ENOSPC},
        {.error = -EROFS, .on_and_on = true},
    };

    for (size_t k = 0; k < KINDS; k++) {
        for (size_t m = 0; m < sizeof(modes) / sizeof(modes[0]); m++) {
            struct faults counter = modes[m];
            make(k);
            act(k, scenario, &counter); /* how many operations there are */
            if (!counter.count)
                continue;
            verify(k, scenario, &counter);
            /* A commit changes two files in an order that matters at each place. */
            unsigned step = scenario == REBASING ? 1 : counter.count / POSITIONS + 1;
            for (unsigned first = 1 + (unsigned)(k + m) % step; first <= counter.count;
                 first += step) {
                struct faults faults = modes[m];
                faults.first = first;
                make(k);
                act(k, scenario, &faults);
                verify(k, scenario, &faults);
            }
        }
    }
}

static void writing(void **state)
{
    try_all(WRITING);
}

static void resizing(void **state)
{
    try_all(RESIZING);
}

static void taking_snapshots(void **state)
{
    try_all(SNAPSHOTS);
}

static void keeping_bitmaps(void **state)
{
    try_all(BITMAPS);
}

static void committing_and_rebasing(void **state)
{
    try_all(REBASING);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writing),
        cmocka_unit_test(resizing),
        cmocka_unit_test(taking_snapshots),
        cmocka_unit_test(keeping_bitmaps),
        cmocka_unit_test(committing_and_rebasing),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
