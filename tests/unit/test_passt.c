/* The passt back end against a passt of our own: this program run as its child, which echoes
 * frames, splits them, sends nonsense or dies, as the MAC address it is given says. */
#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "device/net/netdev.h"
#include "device/net/offload.h"

/* ---- The child ---- */

static bool read_all(void *buf, size_t len)
{
    for (size_t done = 0; done < len;) {
        ssize_t n = read(3, (char *)buf + done, len - done);
        if (n <= 0)
            return false;
        done += (size_t)n;
    }
    return true;
}

static void write_all(const void *buf, size_t len, size_t piece)
{
    for (size_t done = 0; done < len;) {
        size_t n = len - done < piece ? len - done : piece;
        if (write(3, (const char *)buf + done, n) != (ssize_t)n)
            _exit(1);
        done += n;
        if (piece < len)
            usleep(500);
    }
}

static int fake_passt(const char *mode)
{
    static uint8_t frame[4 + 70000];
    uint32_t prefix;

    if (!strcmp(mode, "dies")) {
        fprintf(stderr, "Don't run as root.\nExternal interface not usable\n");
        return 1;
    }
    for (int i = 0;; i++) {
        if (!read_all(frame, 4))
            return 0;
        memcpy(&prefix, frame, 4);
        if (ntohl(prefix) > 70000 || !read_all(frame + 4, ntohl(prefix)))
            return 2;
        if (i && !strcmp(mode, "nonsense")) {
            memset(frame, 0xff, 8);
            write_all(frame, 8, 8);
            pause();
        }
        if (i && !strcmp(mode, "leaves"))
            return 0;
        write_all(frame, 4 + ntohl(prefix), i && !strcmp(mode, "pieces") ? 7 : 100000);
    }
}

/* ---- The test ---- */

struct fixture {
    struct mull_loop *loop;
    struct mull_netdev *netdev;
    pthread_t thread;
    bool running;
    _Atomic unsigned frames, bursts, writable, downs;
    _Atomic size_t bytes;
    _Atomic bool refuse;
    uint8_t last[70000];
    _Atomic size_t last_len;
    _Atomic bool wrong;
};

static bool receive(void *opaque, const uint8_t *frame, size_t len)
{
    struct fixture *f = opaque;
    if (f->refuse)
        return false;
    memcpy(f->last, frame, len);
    f->last_len = len;
    for (size_t i = 14; i < len; i++)
        if (frame[i] != (uint8_t)(i + len))
            f->wrong = true;
    f->bytes += len;
    f->frames++;
    return true;
}

static void received(void *opaque)
{
    ((struct fixture *)opaque)->bursts++;
}

static void writable(void *opaque)
{
    ((struct fixture *)opaque)->writable++;
}

static void link_change(void *opaque, bool up)
{
    if (!up)
        ((struct fixture *)opaque)->downs++;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    assert_int_equal(mull_loop_create(&f->loop, NULL), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    if (f->running) {
        mull_loop_stop(f->loop);
        pthread_join(f->thread, NULL);
    }
    mull_netdev_destroy(f->netdev);
    mull_loop_destroy(f->loop);
    free(f);
    return 0;
}

static void *run(void *loop)
{
    mull_loop_run(loop);
    return NULL;
}

static int open_netdev(struct fixture *f, const char *mode, struct mull_error *err)
{
    const struct mull_passt_config config = {.program = "/proc/self/exe", .mac = mode};
    const struct mull_log quiet = {.level = MULL_LOG_ERROR};
    static struct mull_log log;
    log = quiet;
    return mull_passt_create(f->loop, &config, &log, &f->netdev, err);
}

static void start(struct fixture *f)
{
    const struct mull_netdev_frontend frontend = {.opaque = f,
                                                  .receive = receive,
                                                  .received = received,
                                                  .writable = writable,
                                                  .link = link_change};
    mull_netdev_attach(f->netdev, &frontend);
}

/* From here on the loop runs; before, this thread may send. */
static void go(struct fixture *f)
{
    assert_int_equal(pthread_create(&f->thread, NULL, run, f->loop), 0);
    f->running = true;
}

#define wait_for(condition)                                                                        \
    do {                                                                                           \
        for (int tries = 0; tries < 10000 && !(condition); tries++)                                \
            usleep(1000);                                                                          \
        assert_true(condition);                                                                    \
    } while (0)

static int send_frame(struct fixture *f, size_t len)
{
    uint8_t *frame = malloc(len);
    for (size_t i = 0; i < len; i++)
        frame[i] = (uint8_t)(i + len);
    const struct iovec iov[3] = {
        {frame, len / 3}, {frame + len / 3, 0}, {frame + len / 3, len - len / 3}};
    int rc = mull_netdev_send(f->netdev, iov, 3, len);
    free(frame);
    return rc;
}

static void test_echo(void **state)
{
    struct fixture *f = *state;
    static const size_t sizes[] = {14, 60, 1514, 4096, 4097, 65534, MULL_NET_FRAME_MAX};
    size_t total = 0;
    assert_int_equal(open_netdev(f, "echo", NULL), 0);
    start(f);
    for (size_t i = 0; i < 7; i++) {
        total += sizes[i];
        assert_int_equal(send_frame(f, sizes[i]), 0);
    }
    /* Too short and too long ones vanish here. */
    assert_int_equal(send_frame(f, 13), 0);
    assert_int_equal(send_frame(f, MULL_NET_FRAME_MAX + 1), 0);
    mull_netdev_flush(f->netdev);
    go(f);
    wait_for(f->frames == 7);
    assert_int_equal(f->bytes, total);
    assert_int_equal(f->last_len, MULL_NET_FRAME_MAX);
    assert_false(f->wrong);
    wait_for(f->bursts > 0);
    assert_int_equal(f->downs, 0);
}

struct later {
    struct mull_netdev *netdev;
    const struct iovec *iov;
};

static void send_and_flush(void *opaque)
{
    struct later *l = opaque;
    mull_netdev_send(l->netdev, l->iov, 1, l->iov->iov_len);
    mull_netdev_flush(l->netdev);
}

/* An answer of DHCP to a client that has asked for a broadcast, and one to a client that has not
 * (RFC 2131, 4.1), which stays as it is. */
static void test_dhcp_broadcast(void **state)
{
    struct fixture *f = *state;
    uint8_t frame[342] = {2, 1, 2, 3, 4, 5, 2, 5, 4, 3, 2, 1, 8, 0, 0x45, 0, 1, 0x48};
    static const uint8_t addresses[8] = {192, 0, 2, 1, 192, 0, 2, 2};
    static const uint8_t udp[6] = {0, 67, 0, 68, 1, 0x34},
                         everyone[6] = {255, 255, 255, 255, 255, 255};
    struct mull_net_headers h;

    assert_int_equal(open_netdev(f, "echo", NULL), 0);
    start(f);
    frame[22] = 64;
    frame[23] = 17;
    memcpy(frame + 26, addresses, 8);
    memcpy(frame + 34, udp, 6);
    frame[42] = 2;
    const struct iovec iov = {frame, sizeof(frame)};
    assert_int_equal(mull_netdev_send(f->netdev, &iov, 1, sizeof(frame)), 0);
    mull_netdev_flush(f->netdev);
    go(f);
    wait_for(f->frames == 1);
    assert_memory_equal(f->last, frame, sizeof(frame));
    frame[52] = 0x80;
    mull_loop_post(f->loop, send_and_flush, &(struct later){f->netdev, &iov});
    wait_for(f->frames == 2);
    assert_memory_equal(f->last, everyone, 6);
    assert_memory_equal(f->last + 26, addresses, 4);
    assert_memory_equal(f->last + 30, everyone, 4);
    mull_net_parse(f->last, sizeof(frame), &h);
    assert_true(mull_net_ip_sum_good(f->last, &h) && mull_net_l4_sum_good(f->last, &h));
    assert_memory_equal(f->last + 42, frame + 42, 300);
}

static void test_pieces(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(open_netdev(f, "pieces", NULL), 0);
    start(f);
    assert_int_equal(send_frame(f, 100), 0);
    assert_int_equal(send_frame(f, 30), 0);
    mull_netdev_flush(f->netdev);
    go(f);
    wait_for(f->frames == 2);
    assert_int_equal(f->bytes, 130);
    assert_false(f->wrong);
}

static void test_refused_frames_wait(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(open_netdev(f, "echo", NULL), 0);
    start(f);
    f->refuse = true;
    for (int i = 0; i < 10; i++)
        assert_int_equal(send_frame(f, 1000), 0);
    mull_netdev_flush(f->netdev);
    go(f);
    wait_for(f->bursts > 1);
    assert_int_equal(f->frames, 0);
    f->refuse = false;
    mull_loop_post(f->loop, (void (*)(void *))mull_netdev_resume, f->netdev);
    wait_for(f->frames == 10);
    assert_false(f->wrong);
}

static void test_back_pressure(void **state)
{
    struct fixture *f = *state;
    unsigned sent = 0;
    assert_int_equal(open_netdev(f, "echo", NULL), 0);
    start(f);
    f->refuse = true; /* until everything is stuck: here, in both sockets, in the child */
    for (; sent < 1000; sent++)
        if (send_frame(f, 60000) == -EAGAIN)
            break;
    assert_in_range(sent, 4, 100);
    assert_int_equal(send_frame(f, 60000), -EAGAIN);
    f->refuse = false;
    go(f);
    wait_for(f->frames == sent);
    wait_for(f->writable > 0);
    assert_false(f->wrong);
}

static void test_nonsense_takes_the_link_down(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(open_netdev(f, "nonsense", NULL), 0);
    start(f);
    assert_int_equal(send_frame(f, 100), 0);
    mull_netdev_flush(f->netdev);
    go(f);
    wait_for(f->downs == 1);
    assert_int_equal(f->frames, 0);
}

static void test_death_takes_the_link_down(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(open_netdev(f, "leaves", NULL), 0);
    start(f);
    assert_int_equal(send_frame(f, 100), 0);
    mull_netdev_flush(f->netdev);
    go(f);
    wait_for(f->downs == 1);
    usleep(20000);
    assert_int_equal(f->downs, 1);
}

static void test_errors_at_start(void **state)
{
    struct fixture *f = *state;
    struct mull_error err = {0};
    assert_int_equal(open_netdev(f, "dies", &err), -EIO);
    assert_non_null(strstr(err.message, "External interface not usable"));
    const struct mull_passt_config missing = {.program = "no-such-passt"};
    assert_int_equal(mull_passt_create(f->loop, &missing, NULL, &f->netdev, &err), -ENOENT);
    assert_non_null(strstr(err.message, "install passt or use --net none"));
    const struct mull_passt_config directory = {.program = "/tmp"};
    assert_int_equal(mull_passt_create(f->loop, &directory, NULL, &f->netdev, &err), -EACCES);
}

static void test_port_in_use(void **state)
{
    struct fixture *f = *state;
    struct mull_error err = {0};
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t len = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, len), 0);
    assert_int_equal(listen(fd, 1), 0);
    getsockname(fd, (struct sockaddr *)&address, &len);
    char text[64];
    struct mull_passt_config config = {.program = "/proc/self/exe"};
    snprintf(text, sizeof(text), "tcp:127.0.0.1:%u:22", ntohs(address.sin_port));
    assert_int_equal(mull_passt_parse_forward(&config, text, &err), 0);
    assert_int_equal(mull_passt_create(f->loop, &config, NULL, &f->netdev, &err), -EADDRINUSE);
    assert_non_null(strstr(err.message, "another port"));
    close(fd);
}

static void test_forwards(void **state)
{
    struct mull_passt_config c = {0};
    struct mull_error err;
    static const char *const bad[] = {"",
                                      "2222:22",
                                      "tcp:",
                                      "tcp:0",
                                      "tcp:65536",
                                      "tcp:22:",
                                      "tcp:22:0",
                                      "tcp:22:1:2",
                                      "tcp:300.1.1.1:22",
                                      "tcp:[::1:22",
                                      "tcp:[::1]22",
                                      "tcp:[::g]:22",
                                      "tcp:30-20",
                                      "tcp:20-",
                                      "tcp:65000-65010:65530",
                                      "tcp:-5",
                                      "tcp:22:80-90",
                                      "sctp:22",
                                      "tcp: 22",
                                      "tcp:1.2.3.4",
                                      "tcp:[1.2.3.4",
                                      "udp:22x",
                                      "tcp:[]:22"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        err.code = 0;
        assert_int_equal(mull_passt_parse_forward(&c, bad[i], &err), -EINVAL);
        assert_int_equal(err.code, EINVAL);
    }
    assert_int_equal(c.nforwards, 0);
    assert_int_equal(mull_passt_parse_forward(&c, "tcp:2222:22", &err), 0);
    assert_int_equal(mull_passt_parse_forward(&c, "udp:5000-5010", &err), 0);
    assert_int_equal(mull_passt_parse_forward(&c, "tcp:127.0.0.1:8080:80", &err), 0);
    assert_int_equal(mull_passt_parse_forward(&c, "tcp:[::1]:2222:22", &err), 0);
    assert_int_equal(mull_passt_parse_forward(&c, "tcp:1-2:3", &err), 0);
    assert_int_equal(c.nforwards, 5);
    assert_false(c.forwards[0].udp);
    assert_int_equal(c.forwards[0].host_first, 2222);
    assert_int_equal(c.forwards[0].host_last, 2222);
    assert_int_equal(c.forwards[0].guest_first, 22);
    assert_string_equal(c.forwards[0].address, "");
    assert_true(c.forwards[1].udp);
    assert_int_equal(c.forwards[1].host_last, 5010);
    assert_int_equal(c.forwards[1].guest_first, 5000);
    assert_string_equal(c.forwards[2].address, "127.0.0.1");
    assert_string_equal(c.forwards[3].address, "::1");
    while (c.nforwards < MULL_PASST_FORWARDS)
        assert_int_equal(mull_passt_parse_forward(&c, "tcp:1", &err), 0);
    assert_int_equal(mull_passt_parse_forward(&c, "tcp:1", &err), -E2BIG);
}

/* The real one, where the host has it and a network. */
static void test_real_passt(void **state)
{
    struct fixture *f = *state;
    struct mull_error err = {0};
    struct mull_passt_config config = {0};
    if (mull_passt_create(f->loop, &config, NULL, &f->netdev, &err)) {
        print_message("%s\n", err.message);
        skip();
    }
    uint8_t arp[42] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x52, 0x54, 0, 0x12, 0x34,
                       0x56, 0x08, 0x06, 0,    1,    8,    0,    6,    4, 0,    1,
                       0x52, 0x54, 0,    0x12, 0x34, 0x56, 0,    0,    0, 0,    0,
                       0,    0,    0,    0,    0,    192,  0,    0,    8};
    const struct iovec iov = {arp, sizeof(arp)};
    start(f);
    assert_int_equal(mull_netdev_send(f->netdev, &iov, 1, sizeof(arp)), 0);
    mull_netdev_flush(f->netdev);
    go(f);
    wait_for(f->frames >= 1);
    assert_memory_equal(f->last, arp + 6, 6);
}

int main(int argc, char **argv)
{
    for (int i = 1; i + 1 < argc; i++)
        if (!strcmp(argv[i], "--mac-addr"))
            return fake_passt(argv[i + 1]);
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(test_echo),
        T(test_dhcp_broadcast),
        T(test_pieces),
        T(test_refused_frames_wait),
        T(test_back_pressure),
        T(test_nonsense_takes_the_link_down),
        T(test_death_takes_the_link_down),
        T(test_errors_at_start),
        T(test_port_in_use),
        cmocka_unit_test(test_forwards),
        T(test_real_passt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
