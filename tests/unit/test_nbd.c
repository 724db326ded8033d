/*
 * The NBD server's deadlines and refusals, with a client on the other end of a socket pair; the
 * NBD client against a server that lies; URLs.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants those first */
#include <cmocka.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/loop.h"
#include "image/image.h"
#include "image/nbd/client.h"
#include "image/nbd/protocol.h"
#include "image/nbd/server.h"
#include "image/url.h"

#define DISK (1u << 20)

struct world {
    char path[64];
    struct mull_loop *loop;
    struct mull_block *block;
    struct mull_nbd_server *server;
    struct mull_nbd_export export;
    pthread_t thread;
    int theirs; /* the client's end */
};

static void *loop_thread(void *opaque)
{
    struct world *w = opaque;
    mull_loop_run(w->loop);
    return NULL;
}

static void world_open(struct world *w, unsigned handshake_ms, unsigned stall_ms)
{
    struct mull_error err = {0};
    int fds[2];

    memset(w, 0, sizeof(*w));
    snprintf(w->path, sizeof(w->path), "/tmp/mullion-test-nbd-XXXXXX");
    int fd = mkstemp(w->path);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, DISK), 0);
    close(fd);
    struct mull_block_options bo = {.path = w->path, .format = "raw"};
    assert_int_equal(mull_loop_create(&w->loop, &err), 0);
    assert_int_equal(mull_block_open(&bo, &w->block, &err), 0);
    assert_int_equal(mull_block_start(w->block, w->loop, &err), 0);
    w->export = (struct mull_nbd_export){.name = "", .block = w->block};
    struct mull_nbd_options so = {.loop = w->loop,
                                  .exports = &w->export,
                                  .nexports = 1,
                                  .handshake_ms = handshake_ms,
                                  .stall_ms = stall_ms};
    assert_int_equal(mull_nbd_server_create(&so, &w->server, &err), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    assert_int_equal(mull_nbd_server_add(w->server, fds[0]), 0);
    /* The server's end does not block; ours does, for as long as a busy machine may take. */
    struct timeval patience = {.tv_sec = 60};
    setsockopt(fds[1], SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    w->theirs = fds[1];
    assert_int_equal(pthread_create(&w->thread, NULL, loop_thread, w), 0);
}

static void world_close(struct world *w)
{
    mull_loop_stop(w->loop);
    pthread_join(w->thread, NULL);
    mull_nbd_server_destroy(w->server);
    mull_block_close(w->block);
    mull_loop_destroy(w->loop);
    close(w->theirs);
    unlink(w->path);
}

static void get(struct world *w, void *buf, size_t n)
{
    assert_int_equal(recv(w->theirs, buf, n, MSG_WAITALL), n);
}

static void put(struct world *w, const void *buf, size_t n)
{
    assert_int_equal(send(w->theirs, buf, n, MSG_NOSIGNAL), n);
}

static void handshake(struct world *w)
{
    uint8_t buf[64];

    get(w, buf, 18);
    mull_put_be32(buf, 3);
    put(w, buf, 4);
    mull_put_be64(buf, NBD_OPTION_MAGIC);
    mull_put_be32(buf + 8, NBD_OPT_EXPORT_NAME);
    mull_put_be32(buf + 12, 0);
    put(w, buf, 16);
    get(w, buf, 10);
    assert_int_equal(mull_be64(buf), DISK);
}

static void request(struct world *w, uint16_t type, uint64_t offset, uint32_t length)
{
    uint8_t head[NBD_REQUEST_SIZE] = {0};
    mull_put_be32(head, NBD_REQUEST_MAGIC);
    mull_put_be16(head + 6, type);
    mull_put_be64(head + 16, offset);
    mull_put_be32(head + 24, length);
    put(w, head, sizeof(head));
}

/* A read of the whole disk; the server may be gone by now. */
static void read_all(struct world *w)
{
    uint8_t head[NBD_REQUEST_SIZE] = {0};
    mull_put_be32(head, NBD_REQUEST_MAGIC);
    mull_put_be32(head + 24, DISK);
    (void)!send(w->theirs, head, sizeof(head), MSG_NOSIGNAL);
}

static void expect_end(struct world *w)
{
    uint8_t byte;
    ssize_t n = recv(w->theirs, &byte, 1, 0);
    assert_true(n == 0 || (n < 0 && errno == ECONNRESET));
}

static void test_silent_in_handshake(void **state)
{
    struct world w;
    uint8_t hello[18];

    world_open(&w, 50, 60000);
    get(&w, hello, sizeof(hello));
    expect_end(&w);
    world_close(&w);
}

static void test_slow_in_a_message(void **state)
{
    struct world w;

    world_open(&w, 60000, 50);
    handshake(&w);
    /* Silence between requests is allowed. */
    usleep(150 * 1000);
    request(&w, NBD_CMD_WRITE, 0, 512);
    (void)!send(w.theirs, "half", 4, MSG_NOSIGNAL);
    expect_end(&w);
    world_close(&w);
}

static void test_does_not_read(void **state)
{
    struct world w;

    world_open(&w, 60000, 50);
    handshake(&w);
    /* More replies than any socket holds. */
    for (int i = 0; i < 16; i++)
        read_all(&w);
    struct pollfd p = {.fd = w.theirs, .events = POLLRDHUP};
    assert_int_equal(poll(&p, 1, 60000), 1);
    world_close(&w);
}

static void test_gone_with_requests(void **state)
{
    struct world w;

    world_open(&w, 60000, 60000);
    handshake(&w);
    for (int i = 0; i < 60; i++)
        request(&w, i % 3 ? NBD_CMD_READ : NBD_CMD_FLUSH, 0, i % 3 ? 65536 : 0);
    shutdown(w.theirs, SHUT_RDWR);
    world_close(&w);
}

/* A server for the client: says what it is told to, byte for byte. */
struct liar {
    int fd;
    const uint8_t *script;
    size_t length;
};

static void *liar_thread(void *opaque)
{
    struct liar *l = opaque;
    uint8_t sink[4096];

    (void)!send(l->fd, l->script, l->length, MSG_NOSIGNAL);
    shutdown(l->fd, SHUT_WR);
    while (recv(l->fd, sink, sizeof(sink), 0) > 0)
        ;
    close(l->fd);
    return NULL;
}

/* Open what @script serves and read from it. @return what opening, then reading, gave */
static int against(const uint8_t *script, size_t length, void *buf, uint32_t n)
{
    struct mull_error err = {0};
    struct mull_file_options o = {.path = "nbd://liar/", .readonly = true};
    struct mull_file *file;
    pthread_t thread;
    int fds[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    struct liar liar = {fds[0], script, length};
    struct mull_channel channel = {.fd = fds[1]};
    assert_int_equal(pthread_create(&thread, NULL, liar_thread, &liar), 0);
    int ret = mull_nbd_open_channel(&o, &channel, "", &file, &err);
    if (ret) {
        assert_true(err.code > 0 && err.message[0]);
    } else {
        ret = mull_file_read(file, buf, n, 0);
        mull_file_close(file);
    }
    pthread_join(thread, NULL);
    return ret;
}

struct script {
    uint8_t bytes[1024];
    size_t n;
};

static void add(struct script *s, unsigned width, uint64_t value)
{
    while (width--)
        s->bytes[s->n++] = (uint8_t)(value >> (8 * width));
}

static void add_reply(struct script *s, uint32_t option, uint32_t type, uint32_t length)
{
    add(s, 8, NBD_OPTION_REPLY_MAGIC);
    add(s, 4, option);
    add(s, 4, type);
    add(s, 4, length);
}

/* A good handshake: structured replies, no contexts, an export of @size. */
static void add_handshake(struct script *s, uint64_t size)
{
    add(s, 8, NBD_MAGIC);
    add(s, 8, NBD_OPTION_MAGIC);
    add(s, 2, 3);
    add_reply(s, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ACK, 0);
    add_reply(s, NBD_OPT_SET_META_CONTEXT, NBD_REP_ACK, 0);
    add_reply(s, NBD_OPT_GO, NBD_REP_INFO, 12);
    add(s, 2, NBD_INFO_EXPORT);
    add(s, 8, size);
    add(s, 2, NBD_FLAG_HAS_FLAGS);
    add_reply(s, NBD_OPT_GO, NBD_REP_ACK, 0);
}

static void add_chunk(struct script *s, unsigned flags, unsigned type, uint64_t handle,
                      uint32_t length)
{
    add(s, 4, NBD_CHUNK_MAGIC);
    add(s, 2, flags);
    add(s, 2, type);
    add(s, 8, handle);
    add(s, 4, length);
}

static void test_client_reads(void **state)
{
    struct script s = {0};
    uint8_t buf[16];

    add_handshake(&s, 4096);
    add_chunk(&s, 0, NBD_CHUNK_OFFSET_HOLE, 1, 12);
    add(&s, 8, 8);
    add(&s, 4, 8);
    add_chunk(&s, NBD_CHUNK_DONE, NBD_CHUNK_OFFSET_DATA, 1, 16);
    add(&s, 8, 0);
    add(&s, 8, UINT64_C(0x0102030405060708));
    memset(buf, 0xff, sizeof(buf));
    assert_int_equal(against(s.bytes, s.n, buf, 16), 0);
    assert_memory_equal(buf, "\1\2\3\4\5\6\7\10\0\0\0\0\0\0\0\0", 16);
}

static void test_client_refuses_lies(void **state)
{
    static const struct {
        unsigned type;
        uint64_t handle, offset;
        uint32_t length, extra;
    } lies[] = {
        {NBD_CHUNK_OFFSET_DATA, 1, 0, 8 + 17, 0},             /* more than was asked for */
        {NBD_CHUNK_OFFSET_DATA, 1, 8, 8 + 9, 0},              /* behind its end */
        {NBD_CHUNK_OFFSET_DATA, 1, UINT64_MAX - 3, 8 + 8, 0}, /* and around the corner */
        {NBD_CHUNK_OFFSET_DATA, 2, 0, 8 + 16, 0},             /* for nobody */
        {NBD_CHUNK_OFFSET_DATA, 1, 0, 8, 0},                  /* nothing */
        {NBD_CHUNK_OFFSET_DATA, 1, 0, 8 + 8, 0},              /* too little, then the end */
        {NBD_CHUNK_OFFSET_HOLE, 1, 0, 12, 0},                 /* a hole of nothing */
        {NBD_CHUNK_OFFSET_HOLE, 1, 0, 12, 17},
        {NBD_CHUNK_OFFSET_HOLE, 1, 0, 13, 16},
        {NBD_CHUNK_BLOCK_STATUS, 1, 0, 12, 0}, /* not asked for */
        {NBD_CHUNK_NONE, 1, 0, 0, 0},          /* done without data */
        {77, 1, 0, 0, 0},
    };

    for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
        struct script s = {0};
        uint8_t buf[16];
        add_handshake(&s, 4096);
        add_chunk(&s, NBD_CHUNK_DONE, lies[i].type, lies[i].handle, lies[i].length);
        if (lies[i].length >= 8)
            add(&s, 8, lies[i].offset);
        if (lies[i].type == NBD_CHUNK_OFFSET_HOLE)
            add(&s, 4, lies[i].extra);
        else
            for (uint32_t j = 8; j < lies[i].length; j++)
                add(&s, 1, j);
        assert_true(against(s.bytes, s.n, buf, 16) < 0);
    }
}

static void test_client_refuses_handshakes(void **state)
{
    for (int i = 0; i < 7; i++) {
        struct script s = {0};
        uint8_t buf[16];
        add(&s, 8, i == 0 ? 1 : NBD_MAGIC);
        add(&s, 8, i == 1 ? UINT64_C(0x00420281861253) : NBD_OPTION_MAGIC);
        add(&s, 2, i == 2 ? 0 : 3);
        add_reply(&s, NBD_OPT_STRUCTURED_REPLY, i == 3 ? NBD_REP_SERVER : NBD_REP_ERR_UNSUP, 0);
        add_reply(&s, i == 4 ? NBD_OPT_LIST : NBD_OPT_GO, NBD_REP_INFO, i == 5 ? UINT32_MAX : 12);
        add(&s, 2, NBD_INFO_EXPORT);
        add(&s, 8, i == 6 ? UINT64_MAX : 4096);
        add(&s, 2, NBD_FLAG_HAS_FLAGS);
        add_reply(&s, NBD_OPT_GO, NBD_REP_ACK, 0);
        assert_true(against(s.bytes, s.n, buf, 16) < 0);
    }
}

static void test_urls(void **state)
{
    static const char *const bad[] = {
        "disk.qcow2",  "nbd://h:0/x",  "nbd://h:70000/", "nbd://h:x/", "nbd://h/%zz",
        "nbd://h/%00", "nbd://[::1/x", "nbd://[::1]x/",  "://x/",      "nbd://h/%2"};
    struct mull_url u;
    struct mull_error err = {0};

    assert_int_equal(mull_url_parse("nbds://al%69ce@[::1]:81/a%20b/c?socket=/x%3dy&k#f", &u, &err),
                     0);
    assert_string_equal(u.scheme, "nbds");
    assert_string_equal(u.user, "alice");
    assert_string_equal(u.host, "::1");
    assert_int_equal(u.port, 81);
    assert_string_equal(u.path, "a b/c");
    assert_string_equal(mull_url_parameter(&u, "socket"), "/x=y");
    assert_string_equal(mull_url_parameter(&u, "k"), "");
    assert_null(mull_url_parameter(&u, "none"));
    mull_url_free(&u);
    assert_int_equal(mull_url_parse("nbd+unix:///?socket=s", &u, &err), 0);
    assert_string_equal(u.host, "");
    assert_string_equal(u.path, "");
    mull_url_free(&u);
    assert_int_equal(mull_url_parse("nbd://h", &u, &err), 0);
    assert_string_equal(u.path, "");
    mull_url_free(&u);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(mull_url_parse(bad[i], &u, &err), -EINVAL);
    char *longest = malloc(MULL_URL_MAX + 16);
    memset(longest, 'a', MULL_URL_MAX + 15);
    longest[MULL_URL_MAX + 15] = 0;
    memcpy(longest, "nbd://", 6);
    assert_int_equal(mull_url_parse(longest, &u, &err), -EINVAL);
    free(longest);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_silent_in_handshake),
        cmocka_unit_test(test_slow_in_a_message),
        cmocka_unit_test(test_does_not_read),
        cmocka_unit_test(test_gone_with_requests),
        cmocka_unit_test(test_client_reads),
        cmocka_unit_test(test_client_refuses_lies),
        cmocka_unit_test(test_client_refuses_handshakes),
        cmocka_unit_test(test_urls),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
