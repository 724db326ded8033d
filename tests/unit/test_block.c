/* The block layer over raw files: transfers in both asynchronous engines, locks, sizes, O_DIRECT.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "image/block.h"

struct fixture {
    char path[64];
};

static char *make_file(struct fixture *f, off_t size)
{
    strcpy(f->path, "/tmp/mull-block-XXXXXX");
    int fd = mkstemp(f->path);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, size), 0);
    close(fd);
    return f->path;
}

static struct mull_block *open_block(const char *path, const char *format, bool readonly,
                                     bool direct, const char *aio)
{
    struct mull_block_options o = {
        .path = path, .format = format, .readonly = readonly, .direct = direct, .aio = aio};
    struct mull_block *block = NULL;
    struct mull_error err = {0};
    int ret = mull_block_open(&o, &block, &err);
    if (ret)
        print_message("%s\n", err.message);
    assert_int_equal(ret, 0);
    return block;
}

static void blocking_round_trip(void **state)
{
    struct fixture f;
    char buf[5000], back[5000];
    struct mull_block *block = open_block(make_file(&f, 1 << 20), "raw", false, false, NULL);

    assert_int_equal(mull_block_size(block), 1 << 20);
    memset(buf, 0x5a, sizeof(buf));
    assert_int_equal(mull_block_write(block, 777, buf, sizeof(buf)), 0);
    assert_int_equal(mull_block_read(block, 777, back, sizeof(back)), 0);
    assert_memory_equal(buf, back, sizeof(buf));
    assert_int_equal(mull_block_zero(block, 1000, 1000, true), 0);
    assert_int_equal(mull_block_read(block, 777, back, sizeof(back)), 0);
    memset(buf + 223, 0, 1000);
    assert_memory_equal(buf, back, sizeof(buf));
    assert_int_equal(mull_block_discard(block, 0, 1 << 20), 0);
    assert_int_equal(mull_block_flush(block), 0);
    assert_int_equal(mull_block_write(block, (1 << 20) - 1, buf, 2), -EINVAL);
    assert_int_equal(mull_block_read(block, UINT64_MAX, back, 2), -EINVAL);
    mull_block_close(block);
    unlink(f.path);
}

static void odd_size_rounds_up(void **state)
{
    struct fixture f;
    uint8_t buf[512], zero[512] = {0};
    struct stat st;
    struct mull_block *block = open_block(make_file(&f, 1000), "raw", false, false, NULL);

    assert_int_equal(mull_block_size(block), 1024);
    memset(buf, 1, sizeof(buf));
    assert_int_equal(mull_block_read(block, 512, buf, 512), 0);
    assert_memory_equal(buf, zero, 512);
    memset(buf, 7, sizeof(buf));
    assert_int_equal(mull_block_write(block, 512, buf, 512), 0);
    mull_block_close(block);
    assert_int_equal(stat(f.path, &st), 0);
    assert_int_equal(st.st_size, 1024);
    unlink(f.path);
}

static void writers_exclude(void **state)
{
    struct fixture f;
    struct mull_error err;
    struct mull_block *other;
    struct mull_block *block = open_block(make_file(&f, 4096), "raw", false, false, NULL);
    struct mull_block_options o = {.path = f.path, .format = "raw"};

    assert_int_equal(mull_block_open(&o, &other, &err), -EAGAIN);
    assert_non_null(strstr(err.message, "in use"));
    o.readonly = true;
    assert_int_equal(mull_block_open(&o, &other, &err), -EAGAIN);
    o.no_lock = true;
    assert_int_equal(mull_block_open(&o, &other, &err), 0);
    mull_block_close(other);
    mull_block_close(block);

    block = open_block(f.path, "raw", true, false, NULL);
    other = open_block(f.path, "raw", true, false, NULL);
    o.no_lock = o.readonly = false;
    struct mull_block *third;
    assert_int_equal(mull_block_open(&o, &third, &err), -EAGAIN);
    mull_block_close(block);
    mull_block_close(other);
    unlink(f.path);
}

static void refuses_what_is_no_disk(void **state)
{
    struct mull_error err;
    struct mull_block *block;
    struct mull_block_options o = {.path = "/dev/zero", .readonly = true};
    assert_int_equal(mull_block_open(&o, &block, &err), -EINVAL);
    o.path = "/nonexistent/disk";
    assert_int_equal(mull_block_open(&o, &block, &err), -ENOENT);
    o.path = "/tmp";
    assert_int_equal(mull_block_open(&o, &block, &err), -EINVAL);
}

struct run {
    struct mull_loop *loop;
    struct mull_block *block;
    int left, failed;
};

static void one_done(struct mull_block_request *r, int result)
{
    struct run *run = r->opaque;
    if (result)
        run->failed = result;
    if (--run->left == 0)
        mull_loop_stop(run->loop);
}

/* Many requests at once, split over odd iovs, mixed with flushes, zeroes and discards. */
static void asynchronous(const char *aio, bool direct)
{
    enum { COUNT = 600, STEP = 8192 };
    struct fixture f;
    struct run run = {0};
    struct mull_error err = {0};
    struct mull_block_request *r = calloc(COUNT, sizeof(*r));
    uint8_t *data = NULL, *back = NULL;

    assert_int_equal(posix_memalign((void **)&data, 4096, COUNT * STEP), 0);
    assert_int_equal(posix_memalign((void **)&back, 4096, COUNT * STEP), 0);
    for (int i = 0; i < COUNT * STEP; i++)
        data[i] = (uint8_t)(i * 31 + i / 509);
    make_file(&f, COUNT * STEP);
    assert_int_equal(mull_loop_create(&run.loop, &err), 0);
    run.block = open_block(f.path, "raw", false, direct, aio);
    assert_int_equal(mull_block_start(run.block, run.loop, &err), 0);
    if (aio)
        assert_string_equal(mull_block_aio(run.block), aio);

    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < COUNT; i++) {
            uint8_t *at = (pass ? back : data) + i * STEP;
            r[i] = (struct mull_block_request){.op = pass ? MULL_BLOCK_READ : MULL_BLOCK_WRITE,
                                               .offset = (uint64_t)i * STEP,
                                               .length = STEP,
                                               .iov = {{at, 1}, {at + 1, 4095}, {at + 4096, 4096}},
                                               .niov = 3,
                                               .done = one_done,
                                               .opaque = &run};
            if (i % 3 == 0) {
                r[i].iov[0] = (struct iovec){at, STEP};
                r[i].niov = 1;
            }
        }
        run.left = COUNT + 1;
        struct mull_block_request flush = {
            .op = MULL_BLOCK_FLUSH, .done = one_done, .opaque = &run};
        for (int i = 0; i < COUNT; i++)
            mull_block_submit(run.block, &r[i]);
        mull_block_submit(run.block, &flush);
        assert_int_equal(run.left, COUNT + 1); /* done() is never called by submit() */
        mull_loop_run(run.loop);
        assert_int_equal(run.failed, 0);
    }
    assert_memory_equal(data, back, COUNT * STEP);

    struct mull_block_request z[4] = {
        {.op = MULL_BLOCK_ZERO, .offset = 4096, .length = 8192, .may_unmap = true},
        {.op = MULL_BLOCK_ZERO, .offset = 100 * STEP, .length = 512},
        {.op = MULL_BLOCK_DISCARD, .offset = 200 * STEP, .length = STEP},
        {.op = MULL_BLOCK_READ,
         .offset = COUNT * (uint64_t)STEP,
         .length = 512,
         .iov = {{back, 512}},
         .niov = 1},
    };
    run.left = 4;
    for (int i = 0; i < 4; i++) {
        z[i].done = one_done;
        z[i].opaque = &run;
        mull_block_submit(run.block, &z[i]);
    }
    mull_block_drain(run.block);
    assert_int_equal(run.left, 0);
    assert_int_equal(run.failed, -EINVAL); /* the read behind the end */
    mull_block_close(run.block);

    FILE *in = fopen(f.path, "r");
    assert_int_equal(fread(back, 1, COUNT * STEP, in), COUNT * STEP);
    fclose(in);
    memset(data + 4096, 0, 8192);
    memset(data + 100 * STEP, 0, 512);
    memset(data + 200 * STEP, 0, STEP);
    memset(back + 200 * STEP, 0, STEP);
    assert_memory_equal(data, back, COUNT * STEP);
    mull_loop_destroy(run.loop);
    unlink(f.path);
    free(data);
    free(back);
    free(r);
}

static bool have_uring(void)
{
    struct fixture f;
    struct mull_loop *loop;
    struct mull_error err = {0};
    assert_int_equal(mull_loop_create(&loop, &err), 0);
    struct mull_block *block = open_block(make_file(&f, 4096), "raw", false, false, "io_uring");
    bool have = mull_block_start(block, loop, &err) == 0;
    mull_block_close(block);
    mull_loop_destroy(loop);
    unlink(f.path);
    return have;
}

static void with_threads(void **state)
{
    asynchronous("threads", false);
}
static void with_threads_direct(void **state)
{
    asynchronous("threads", true);
}
static void with_the_default(void **state)
{
    asynchronous(NULL, false);
}

static void with_uring(void **state)
{
    if (!have_uring())
        skip();
    asynchronous("io_uring", false);
    asynchronous("io_uring", true);
}

static void unknown_engine_is_an_error(void **state)
{
    struct fixture f;
    struct mull_loop *loop;
    struct mull_error err = {0};
    assert_int_equal(mull_loop_create(&loop, &err), 0);
    struct mull_block *block = open_block(make_file(&f, 4096), "raw", false, false, "magic");
    assert_int_equal(mull_block_start(block, loop, &err), -EINVAL);
    mull_block_close(block);
    mull_loop_destroy(loop);
    unlink(f.path);
}

static void direct_unaligned(void **state)
{
    struct fixture f;
    uint8_t buf[10000], back[10000];
    struct stat st;
    struct mull_block *block = open_block(make_file(&f, 100000), "raw", false, true, NULL);

    for (size_t i = 0; i < sizeof(buf); i++)
        buf[i] = (uint8_t)(i * 7);
    assert_int_equal(mull_block_size(block), 100352);
    assert_int_equal(mull_block_write(block, 90352, buf, sizeof(buf)), 0);
    assert_int_equal(mull_block_write(block, 3, buf, 5000), 0);
    assert_int_equal(mull_block_read(block, 90352, back, sizeof(back)), 0);
    assert_memory_equal(buf, back, sizeof(buf));
    assert_int_equal(mull_block_read(block, 3, back, 5000), 0);
    assert_memory_equal(buf, back, 5000);
    mull_block_close(block);
    assert_int_equal(stat(f.path, &st), 0);
    assert_int_equal(st.st_size, 100352);
    unlink(f.path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocking_round_trip),
        cmocka_unit_test(odd_size_rounds_up),
        cmocka_unit_test(writers_exclude),
        cmocka_unit_test(refuses_what_is_no_disk),
        cmocka_unit_test(with_threads),
        cmocka_unit_test(with_threads_direct),
        cmocka_unit_test(with_the_default),
        cmocka_unit_test(with_uring),
        cmocka_unit_test(unknown_engine_is_an_error),
        cmocka_unit_test(direct_unaligned),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
