/*
 * Every writable format behind the block device: many requests in flight on both asynchronous
 * engines against a model; and writes that fail below the format (disk full, I/O errors).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "image/block.h"
#include "image/convert.h"
#include "image/image.h"

#define SIZE (24u << 20)
#define SECTORS (SIZE / 512)
#define DEPTH 48
#define MOST 96 /* sectors of one request */

static const struct {
    const char *format;
    struct mull_create_options create;
} kinds[] = {
    {"raw", {.size = SIZE}},
    {"qcow2", {.size = SIZE}},
    {"qcow2", {.size = SIZE, .unit = 4096}},
    {"qcow2", {.size = SIZE, .unit = 16384, .extended_l2 = true}},
    {"vmdk", {.size = SIZE}},
    {"vmdk", {.size = SIZE, .subformat = "vmfsSparse"}},
    {"vhdx", {.size = SIZE, .unit = 1u << 20}},
    {"vhd", {.size = SIZE, .unit = 65536}},
    {"vdi", {.size = SIZE}},
};

static char dir[64];

static const char *path_of(const char *format)
{
    static char path[128];
    snprintf(path, sizeof(path), "%s/disk.%s", dir, format);
    return path;
}

static void remove_all(void)
{
    char command[128];
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    assert_int_equal(system(command), 0);
}

static int make_dir(void **state)
{
    /* In memory: what is tested is not the disk. */
    snprintf(dir, sizeof(dir), "%s/mull-image-XXXXXX",
             access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
    return mkdtemp(dir) ? 0 : -1;
}

static int drop_dir(void **state)
{
    remove_all();
    return 0;
}

static void create(size_t k)
{
    struct mull_create_options c = kinds[k].create;
    struct mull_error err = {0};
    c.path = path_of(kinds[k].format);
    int ret = mull_format_find(kinds[k].format)->create(&c, &err);
    if (ret)
        print_message("%s\n", err.message);
    assert_int_equal(ret, 0);
}

static uint64_t rng = 88172645463325252u;

static uint32_t rnd(uint32_t below)
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return (uint32_t)(rng >> 20) % below;
}

struct slot {
    struct mull_block_request request;
    uint8_t buf[MOST * 512];
    bool busy;
    uint32_t first, count;
    struct bench *bench;
};

struct bench {
    struct mull_loop *loop;
    struct mull_block *block;
    struct slot slots[DEPTH];
    uint8_t *model; /* a value a sector; 0xff: forgotten, anything of before or zeroes */
    int left, in_flight;
};

static bool overlaps(struct bench *b, uint32_t first, uint32_t count)
{
    for (int i = 0; i < DEPTH; i++)
        if (b->slots[i].busy && first < b->slots[i].first + b->slots[i].count &&
            b->slots[i].first < first + count)
            return true;
    return false;
}

static void verify(const struct bench *b, const uint8_t *buf, uint32_t first, uint32_t count)
{
    for (uint32_t s = 0; s < count; s++) {
        uint8_t want = b->model[first + s];
        for (int i = 0; i < 512 && want != 0xff; i++)
            if (buf[s * 512 + (uint32_t)i] != want)
                fail_msg("sector %u holds %u, not %u", first + s, buf[s * 512 + (uint32_t)i], want);
    }
}

static void submit_one(struct bench *b, struct slot *slot);

static void done(struct mull_block_request *r, int result)
{
    struct slot *slot = r->opaque;
    struct bench *b = slot->bench;

    assert_int_equal(result, 0);
    if (r->op == MULL_BLOCK_READ)
        verify(b, slot->buf, slot->first, slot->count);
    slot->busy = false;
    b->in_flight--;
    if (b->left > 0)
        submit_one(b, slot);
    else if (!b->in_flight)
        mull_loop_stop(b->loop);
}

static void submit_one(struct bench *b, struct slot *slot)
{
    struct mull_block_request *r = &slot->request;
    uint32_t what = rnd(100), count = 1 + rnd(MOST), first;

    do {
        first = rnd(3) ? rnd(SECTORS - MOST) : rnd(4096);
        first = rnd(2) ? first & ~7u : first;
    } while (overlaps(b, first, count));
    slot->first = first;
    slot->count = count;
    slot->busy = true;
    *r = (struct mull_block_request){
        .offset = first * UINT64_C(512), .length = count * 512u, .done = done, .opaque = slot};
    /* In two uneven pieces. */
    r->iov[0] = (struct iovec){slot->buf, 512};
    r->iov[1] = (struct iovec){slot->buf + 512, r->length - 512};
    r->niov = count > 1 ? 2 : 1;
    if (what < 50) {
        uint8_t value = (uint8_t)(1 + rnd(250));
        r->op = MULL_BLOCK_WRITE;
        memset(slot->buf, value, r->length);
        memset(b->model + first, value, count);
    } else if (what < 85) {
        r->op = MULL_BLOCK_READ;
    } else if (what < 91) {
        r->op = MULL_BLOCK_ZERO;
        r->may_unmap = what & 1;
        memset(b->model + first, 0, count);
    } else if (what < 96) {
        r->op = MULL_BLOCK_DISCARD;
        memset(b->model + first, 0xff, count);
    } else {
        r->op = MULL_BLOCK_FLUSH;
    }
    b->left--;
    b->in_flight++;
    mull_block_submit(b->block, r);
}

static void run_kind(size_t k, const char *aio)
{
    struct bench *b = calloc(1, sizeof(*b));
    struct mull_error err = {0};
    struct mull_block_options o = {
        .path = path_of(kinds[k].format), .format = kinds[k].format, .aio = aio};

    create(k);
    b->model = calloc(SECTORS, 1);
    b->left = 3000;
    assert_int_equal(mull_loop_create(&b->loop, &err), 0);
    assert_int_equal(mull_block_open(&o, &b->block, &err), 0);
    int ret = mull_block_start(b->block, b->loop, &err);
    if (ret && aio) { /* io_uring is forbidden here */
        mull_block_close(b->block);
        mull_loop_destroy(b->loop);
        free(b->model);
        free(b);
        return;
    }
    assert_int_equal(ret, 0);
    for (int i = 0; i < DEPTH; i++) {
        b->slots[i].bench = b;
        submit_one(b, &b->slots[i]);
    }
    mull_loop_run(b->loop);
    mull_block_close(b->block);
    mull_loop_destroy(b->loop);

    assert_int_equal(mull_block_open(&o, &b->block, &err), 0);
    uint8_t *all = malloc(SIZE);
    assert_int_equal(mull_block_read(b->block, 0, all, SIZE), 0);
    verify(b, all, 0, SECTORS);
    free(all);
    mull_block_close(b->block);
    struct mull_image_options io = {.path = o.path, .format = o.format, .readonly = true};
    struct mull_image *image;
    struct mull_check check = {.out = stdout};
    assert_int_equal(mull_image_open(&io, &image, &err), 0);
    if (image->format->check)
        assert_int_equal(image->format->check(image, &check, &err), 0);
    assert_int_equal(check.corruptions + check.leaks, 0);
    mull_image_close(image);
    free(b->model);
    free(b);
}

static void many_requests_with_threads(void **state)
{
    for (size_t k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++)
        run_kind(k, "threads");
}

static void many_requests_with_io_uring(void **state)
{
    for (size_t k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++)
        run_kind(k, "io_uring");
}

/* Every n-th change below the format fails. */
struct faults {
    uint32_t every, count;
    int error;
    bool on;
};

static int inject(void *opaque, const struct mull_file *file, enum mull_file_event event,
                  uint64_t offset, uint64_t length, const struct iovec *iov, int niov)
{
    struct faults *f = opaque;
    if (!f->on || event == MULL_FILE_READ || (f->error == -ENOSPC && event == MULL_FILE_FLUSH))
        return 0;
    return ++f->count % f->every == 0 ? f->error : 0;
}

/* A disk that is full for a while: requests fail, and nothing else is lost. */
static void full_disk(size_t k, int error)
{
    struct faults faults = {.every = 7, .error = error};
    struct mull_file_observer observer = {inject, &faults};
    struct mull_image_options o = {
        .path = path_of(kinds[k].format), .format = kinds[k].format, .observer = &observer};
    struct mull_error err = {0};
    struct mull_image *image;
    uint8_t *model = calloc(SECTORS, 1), buf[8 * 512];
    bool broken = false;

    create(k);
    assert_int_equal(mull_image_open(&o, &image, &err), 0);
    for (int i = 0; i < 800; i++) {
        uint32_t first = rnd(SECTORS - 8), count = 1 + rnd(8);
        uint8_t value = (uint8_t)(1 + rnd(250));
        faults.on = i > 100 && i < 600;
        memset(buf, value, sizeof(buf));
        int ret = rnd(10) ? mull_image_write(image, buf, count * 512u, first * UINT64_C(512))
                          : mull_image_flush(image);
        if (ret == -EIO && error == -EIO)
            broken = true;
        else
            assert_true(ret == 0 || ret == error);
        /* What failed may be there or not. */
        memset(model + first, ret ? 0xff : value, count);
    }
    faults.on = false;
    int closed = mull_image_close(image);
    /* A failed flush makes the image refuse further changes: that is said, not hidden. */
    assert_true(closed == 0 || broken);
    o.observer = NULL;
    assert_int_equal(mull_image_open(&o, &image, &err), 0);
    struct mull_check check = {0}; /* leaks are what errors may cost */
    if (image->format->check)
        assert_int_equal(image->format->check(image, &check, &err), 0);
    assert_int_equal(check.corruptions, 0);
    mull_image_close(image);
    free(model);
}

static void errors_below(void **state)
{
    for (size_t k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++) {
        full_disk(k, -ENOSPC);
        full_disk(k, -EIO);
    }
}

/* A disk taken for raw stays raw: the guest cannot turn it into another format. */
static void guessed_raw_stays_raw(void **state)
{
    struct mull_error err = {0};
    struct mull_block *block;
    struct mull_block_options o = {.path = path_of("raw")};
    uint8_t buf[512] = {'Q', 'F', 'I', 0xfb, 0, 0, 0, 3};

    create(0);
    assert_int_equal(mull_block_open(&o, &block, &err), 0);
    assert_string_equal(mull_block_format(block), "raw");
    assert_int_equal(mull_block_write(block, 0, buf, 512), -EPERM);
    assert_int_equal(mull_block_write(block, 512, buf, 512), 0);
    memcpy(buf, "conectix", 8);
    assert_int_equal(mull_block_write(block, SIZE - 512, buf, 512), -EPERM);
    mull_block_close(block);
    o.format = "raw";
    assert_int_equal(mull_block_open(&o, &block, &err), 0);
    assert_int_equal(mull_block_write(block, SIZE - 512, buf, 512), 0);
    mull_block_close(block);
}

static struct mull_image *open_image(size_t k, bool readonly)
{
    struct mull_error err = {0};
    struct mull_image *image = NULL;
    struct mull_image_options o = {.path = path_of(kinds[k].format),
                                   .format = kinds[k].format,
                                   .readonly = readonly,
                                   .bulk = true};
    int ret = mull_image_open(&o, &image, &err);
    if (ret)
        print_message("%s\n", err.message);
    assert_int_equal(ret, 0);
    return image;
}

/* What is said of progress never runs back; a step that is asked to stops it. */
struct steps {
    uint64_t last;
    int left;
};

static int step(void *opaque, uint64_t done, uint64_t total)
{
    struct steps *s = opaque;
    assert_true(done >= s->last && done <= total);
    s->last = done;
    return s->left-- == 0;
}

/* Data, zeroes that are written and holes, in runs of all lengths. */
static void fill_source(struct mull_image *image)
{
    static uint8_t buf[1 << 20];
    for (uint64_t at = 0; at < SIZE;) {
        uint64_t n = (1 + rnd(rnd(8) ? 40 : 2048)) * UINT64_C(512);
        n = n < SIZE - at ? n : SIZE - at;
        n = n < sizeof(buf) ? n : sizeof(buf);
        uint32_t kind = rnd(3);
        for (uint64_t i = 0; i < n; i += 8)
            memset(buf + i, kind == 1 ? 0 : (int)rnd(256), 8);
        if (kind)
            assert_int_equal(mull_image_write(image, buf, n, at), 0);
        at += n;
    }
}

/* Raw into every other format with several threads: stopped, and gone on with where it said. */
static void conversion_stopped_and_resumed(void **state)
{
    for (size_t k = 1; k < sizeof(kinds) / sizeof(kinds[0]); k++) {
        struct mull_error err = {0};
        create(0);
        struct mull_image *source = open_image(0, false);
        fill_source(source);
        create(k);
        struct mull_image *target = open_image(k, false);
        struct steps s = {.left = 3};
        struct mull_convert c = {.source = source,
                                 .target = target,
                                 .target_zero = true,
                                 .threads = 4,
                                 .progress = step,
                                 .opaque = &s};
        assert_int_equal(mull_convert(&c, &err), -ECANCELED);
        assert_true(c.finished > 0 && c.finished < SIZE);
        assert_int_equal(c.finished % mull_convert_chunk(target), 0);
        uint64_t where;
        assert_int_equal(mull_compare(source, target, 3, &where, NULL, NULL, &err), 1);
        assert_true(where >= c.finished);
        s.left = -1;
        c.start = c.finished;
        assert_int_equal(mull_convert(&c, &err), 0);
        assert_int_equal(c.finished, SIZE);
        assert_int_equal(mull_compare(source, target, 3, &where, NULL, NULL, &err), 0);
        assert_int_equal(mull_image_close(target), 0);
        assert_int_equal(mull_image_close(source), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(conversion_stopped_and_resumed),
        cmocka_unit_test(many_requests_with_threads),
        cmocka_unit_test(many_requests_with_io_uring),
        cmocka_unit_test(errors_below),
        cmocka_unit_test(guessed_raw_stays_raw),
    };
    return cmocka_run_group_tests(tests, make_dir, drop_dir);
}
