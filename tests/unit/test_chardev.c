/* Character devices over pipes, files and Unix sockets, in a real loop of its own thread. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "device/chardev.h"

struct fixture {
    struct mull_loop *loop;
    pthread_t thread;
    bool running;
    struct mull_chardev *chardev;
    pthread_mutex_t lock;
    char input[256];
    _Atomic size_t input_len;
    _Atomic size_t room;
    _Atomic unsigned writable, closed;
    _Atomic bool connected;
};

static size_t can_receive(void *opaque)
{
    return ((struct fixture *)opaque)->room;
}

static void receive(void *opaque, const uint8_t *bytes, size_t len)
{
    struct fixture *f = opaque;
    if (len > f->room || f->input_len + len > sizeof(f->input))
        abort();
    memcpy(f->input + f->input_len, bytes, len);
    f->room -= len;
    f->input_len += len;
}

static void writable(void *opaque)
{
    ((struct fixture *)opaque)->writable++;
}

static void connected(void *opaque, bool is)
{
    ((struct fixture *)opaque)->connected = is;
}

static void closed(void *opaque)
{
    ((struct fixture *)opaque)->closed++;
}

/* Drops 'X', as an escape key would be. */
static size_t filter(void *opaque, uint8_t *bytes, size_t len)
{
    size_t kept = 0;
    for (size_t i = 0; i < len; i++) {
        if (bytes[i] == 'X')
            closed(opaque);
        else
            bytes[kept++] = bytes[i];
    }
    return kept;
}

static void *run(void *loop)
{
    mull_loop_run(loop);
    return NULL;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    signal(SIGPIPE, SIG_IGN);
    assert_int_equal(mull_loop_create(&f->loop, NULL), 0);
    f->room = sizeof(f->input);
    *state = f;
    return 0;
}

static void start(struct fixture *f)
{
    const struct mull_chardev_frontend frontend = {f, can_receive, receive, writable, connected};
    mull_chardev_attach(f->chardev, &frontend);
    assert_int_equal(pthread_create(&f->thread, NULL, run, f->loop), 0);
    f->running = true;
}

static void stop(struct fixture *f)
{
    if (!f->running)
        return;
    mull_loop_stop(f->loop);
    pthread_join(f->thread, NULL);
    f->running = false;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    stop(f);
    mull_chardev_destroy(f->chardev);
    mull_loop_destroy(f->loop);
    free(f);
    return 0;
}

#define wait_for(condition)                                                                        \
    do {                                                                                           \
        for (int tries = 0; tries < 5000 && !(condition); tries++)                                 \
            usleep(1000);                                                                          \
        assert_true(condition);                                                                    \
    } while (0)

static void test_pipe_pair(void **state)
{
    struct fixture *f = *state;
    int to[2], from[2];
    char buf[64];
    assert_int_equal(pipe(to), 0);
    assert_int_equal(pipe(from), 0);
    const struct mull_chardev_fd_config config = {
        .in_fd = to[0], .out_fd = from[1], .closed = closed, .opaque = f};
    assert_int_equal(mull_chardev_fd_create(f->loop, &config, &f->chardev, NULL), 0);
    /* The caller's own descriptors stay blocking. */
    assert_false(fcntl(to[0], F_GETFL) & O_NONBLOCK);
    assert_false(fcntl(from[1], F_GETFL) & O_NONBLOCK);
    start(f);
    assert_true(mull_chardev_connected(f->chardev));
    assert_int_equal(mull_chardev_write(f->chardev, (const uint8_t *)"out", 3), 3);
    assert_int_equal(read(from[0], buf, sizeof(buf)), 3);
    assert_memory_equal(buf, "out", 3);

    f->room = 2;
    assert_int_equal(write(to[1], "abcde", 5), 5);
    wait_for(f->input_len == 2);
    usleep(5000);
    assert_int_equal(f->input_len, 2);
    f->room = 10;
    mull_chardev_resume(f->chardev);
    wait_for(f->input_len == 5);
    assert_memory_equal(f->input, "abcde", 5);
    close(to[1]);
    wait_for(f->closed == 1);
    stop(f);
    close(to[0]);
    close(from[0]);
    close(from[1]);
}

static void test_full_pipe_pushes_back(void **state)
{
    struct fixture *f = *state;
    int from[2];
    static uint8_t block[4096];
    assert_int_equal(pipe(from), 0);
    const struct mull_chardev_fd_config config = {.in_fd = -1, .out_fd = from[1]};
    assert_int_equal(mull_chardev_fd_create(f->loop, &config, &f->chardev, NULL), 0);
    start(f);
    size_t sent = 0, got = 0, n;
    for (int i = 0; i < 1000; i++) { /* 4 MB: more than pipe and ring hold */
        sent += n = mull_chardev_write(f->chardev, block, sizeof(block));
        if (n < sizeof(block))
            break;
    }
    assert_true(sent < 1000 * sizeof(block));
    assert_int_equal(mull_chardev_write(f->chardev, block, 1), 0);
    while (got < sent)
        got += (size_t)read(from[0], block, sizeof(block));
    assert_int_equal(got, sent);
    wait_for(f->writable > 0);
    assert_int_equal(mull_chardev_write(f->chardev, block, 1), 1);
    /* A reader that has gone takes everything. */
    close(from[0]);
    for (int i = 0; i < 100; i++) {
        wait_for(mull_chardev_write(f->chardev, block, sizeof(block)) > 0);
    }
    stop(f);
    close(from[1]);
}

static void test_read_ahead_and_filter(void **state)
{
    struct fixture *f = *state;
    int to[2];
    static char many[10000];
    assert_int_equal(pipe(to), 0);
    const struct mull_chardev_fd_config config = {
        .in_fd = to[0], .out_fd = -1, .read_ahead = true, .filter = filter, .opaque = f};
    assert_int_equal(mull_chardev_fd_create(f->loop, &config, &f->chardev, NULL), 0);
    f->room = 0;
    start(f);
    memset(many, 'k', sizeof(many));
    many[sizeof(many) - 1] = 'X';
    assert_int_equal(write(to[1], many, sizeof(many)), sizeof(many));
    wait_for(f->closed == 1); /* the escape was seen though nobody listens */
    assert_int_equal(f->input_len, 0);
    f->room = 100;
    mull_chardev_resume(f->chardev);
    wait_for(f->input_len == 100);
    /* Output without a descriptor vanishes. */
    assert_int_equal(mull_chardev_write(f->chardev, (const uint8_t *)many, 10000), 10000);
    stop(f);
    close(to[0]);
    close(to[1]);
}

static void test_regular_files(void **state)
{
    struct fixture *f = *state;
    char in_name[] = "/tmp/mull-chardev-XXXXXX", out_name[] = "/tmp/mull-chardev-XXXXXX", buf[16];
    int in = mkstemp(in_name), out = mkstemp(out_name);
    unlink(in_name);
    unlink(out_name);
    assert_int_equal(write(in, "script", 6), 6);
    lseek(in, 0, SEEK_SET);
    const struct mull_chardev_fd_config config = {
        .in_fd = in, .out_fd = out, .closed = closed, .opaque = f};
    assert_int_equal(mull_chardev_fd_create(f->loop, &config, &f->chardev, NULL), 0);
    start(f);
    wait_for(f->closed == 1);
    assert_int_equal(f->input_len, 6);
    assert_int_equal(mull_chardev_write(f->chardev, (const uint8_t *)"log", 3), 3);
    stop(f);
    mull_chardev_destroy(f->chardev); /* writes out what is left */
    f->chardev = NULL;
    assert_int_equal(pread(out, buf, sizeof(buf), 0), 3);
    assert_memory_equal(buf, "log", 3);
    close(in);
    close(out);
}

static void test_bad_descriptor(void **state)
{
    struct fixture *f = *state;
    struct mull_error err = {0};
    const struct mull_chardev_fd_config config = {.in_fd = 12345, .out_fd = -1};
    assert_int_equal(mull_chardev_fd_create(f->loop, &config, &f->chardev, &err), -EBADF);
    assert_non_null(strstr(err.message, "console input"));
}

static int dial(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

static void test_unix_socket(void **state)
{
    struct fixture *f = *state;
    char dir[] = "/tmp/mull-chardev-XXXXXX", path[64], buf[64];
    struct stat st;
    struct mull_error err = {0};
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/console", dir);
    assert_int_equal(mull_chardev_unix_create(f->loop, path, NULL, &f->chardev, &err), 0);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    start(f);
    assert_false(mull_chardev_connected(f->chardev));
    /* Nobody there: the newest output is kept. */
    for (int i = 0; i < 3000; i++)
        assert_int_equal(
            mull_chardev_write(f->chardev, (const uint8_t *)"0123456789abcdef0123456789abcdef", 32),
            32);
    assert_int_equal(mull_chardev_write(f->chardev, (const uint8_t *)"END", 3), 3);
    int first = dial(path);
    wait_for(f->connected);
    size_t got = 0;
    static char old[65536];
    while (got < sizeof(old))
        got += (size_t)read(first, old + got, sizeof(old) - got);
    assert_memory_equal(old + sizeof(old) - 3, "END", 3);
    assert_int_equal(write(first, "hi", 2), 2);
    wait_for(f->input_len == 2);

    /* A second client waits its turn. */
    int second = dial(path);
    assert_int_equal(mull_chardev_write(f->chardev, (const uint8_t *)"one", 3), 3);
    assert_int_equal(read(first, buf, sizeof(buf)), 3);
    close(first);
    assert_int_equal(write(second, "yo", 2), 2);
    wait_for(f->input_len == 4);
    assert_int_equal(mull_chardev_write(f->chardev, (const uint8_t *)"two", 3), 3);
    assert_int_equal(read(second, buf, sizeof(buf)), 3);
    assert_memory_equal(buf, "two", 3);

    struct mull_chardev *other = NULL;
    assert_int_equal(mull_chardev_unix_create(f->loop, path, NULL, &other, &err), -EADDRINUSE);
    close(second);
    stop(f);
    mull_chardev_destroy(f->chardev);
    f->chardev = NULL;
    assert_int_equal(access(path, F_OK), -1);

    /* A stale socket is replaced, a file is not. */
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, path);
    int stale = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(stale, (struct sockaddr *)&address, sizeof(address)), 0);
    close(stale);
    assert_int_equal(mull_chardev_unix_create(f->loop, path, NULL, &f->chardev, &err), 0);
    mull_chardev_destroy(f->chardev);
    f->chardev = NULL;
    close(open(path, O_CREAT | O_WRONLY, 0600));
    assert_int_equal(mull_chardev_unix_create(f->loop, path, NULL, &f->chardev, &err), -EEXIST);
    assert_int_equal(access(path, F_OK), 0);
    unlink(path);
    rmdir(dir);
}

/* A guest that does not read: whoever has spoken to it and gone makes room for the next, and for
 * the next of many, none of whom is kept from connecting. */
static void test_client_that_went(void **state)
{
    struct fixture *f = *state;
    char dir[] = "/tmp/mull-chardev-XXXXXX", path[64];
    struct mull_error err = {0};
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/console", dir);
    assert_int_equal(mull_chardev_unix_create(f->loop, path, NULL, &f->chardev, &err), 0);
    f->room = 0;
    start(f);
    for (unsigned i = 0; i < 40; i++) {
        int fd = dial(path); /* blocks where nobody is accepted */
        assert_int_equal(write(fd, "old", 3), 3);
        close(fd);
    }
    int last = dial(path);
    assert_int_equal(write(last, "new", 3), 3);
    wait_for(f->connected);
    /* Nobody waits behind it, so what it has said stays for the guest. */
    shutdown(last, SHUT_RDWR);
    bool heard = false;
    for (unsigned i = 0; i < 30000 && !heard; i++) {
        size_t len = f->input_len;
        heard = len >= 3 && !memcmp(f->input + len - 3, "new", 3);
        f->room = sizeof(f->input) - len;
        mull_chardev_resume(f->chardev);
        usleep(1000);
    }
    stop(f);
    assert_true(heard);
    close(last);
    mull_chardev_destroy(f->chardev);
    f->chardev = NULL;
    rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(test_pipe_pair),        T(test_full_pipe_pushes_back), T(test_read_ahead_and_filter),
        T(test_regular_files),    T(test_bad_descriptor),        T(test_unix_socket),
        T(test_client_that_went),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
