/* Network boot in front of a back end: DHCP answers with a boot file, and a TFTP server that a
 * client reads a folder from, asks wrongly, and leaves. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "device/net/netdev.h"
#include "device/net/offload.h"

#define PAYLOAD 42
#define BIG (3 * 1468 + 7)

struct net {
    struct mull_loop *loop;
    struct mull_netdev inner, *front_end;
    struct mull_netdev_frontend below; /* what the inner one was given */
    char folder[64];
    unsigned passed;   /* frames that went on to the inner one */
    uint8_t got[2000]; /* the last frame the guest got */
    size_t got_len;
    unsigned frames;
    bool full;
};

static struct net *of(struct mull_netdev *netdev)
{
    return (struct net *)((char *)netdev - offsetof(struct net, inner));
}

static int inner_send(struct mull_netdev *netdev, const struct iovec *iov, int niov, size_t len)
{
    of(netdev)->passed++;
    return 0;
}

static void inner_attach(struct mull_netdev *netdev, const struct mull_netdev_frontend *front)
{
    of(netdev)->below = front ? *front : (struct mull_netdev_frontend){0};
}

static void inner_resume(struct mull_netdev *netdev) {}
static void inner_destroy(struct mull_netdev *netdev) {}

static const struct mull_netdev_ops inner_ops = {
    .send = inner_send, .attach = inner_attach, .resume = inner_resume, .destroy = inner_destroy};

static bool receive(void *opaque, const uint8_t *frame, size_t len)
{
    struct net *n = opaque;

    if (n->full)
        return false;
    assert_true(len <= sizeof(n->got));
    memcpy(n->got, frame, len);
    n->got_len = len;
    n->frames++;
    return true;
}

static void received(void *opaque) {}

static void put_file(struct net *n, const char *name, size_t size)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/%s", n->folder, name);
    int fd = open(path, O_CREAT | O_WRONLY | O_TRUNC, 0644);
    assert_true(fd >= 0);
    for (size_t i = 0; i < size; i++) {
        uint8_t byte = (uint8_t)(i * 31 >> 3);
        assert_int_equal(write(fd, &byte, 1), 1);
    }
    close(fd);
}

static int setup(void **state)
{
    struct net *n = calloc(1, sizeof(*n));
    char path[128];

    strcpy(n->folder, "/tmp/mullion-tftp-XXXXXX");
    assert_non_null(mkdtemp(n->folder));
    put_file(n, "big", BIG);
    put_file(n, "even", 1024);
    snprintf(path, sizeof(path), "%s/away", n->folder);
    assert_int_equal(symlink("/etc/passwd", path), 0);
    snprintf(path, sizeof(path), "%s/near", n->folder);
    assert_int_equal(symlink("big", path), 0);
    snprintf(path, sizeof(path), "%s/pipe", n->folder);
    assert_int_equal(mkfifo(path, 0644), 0);
    assert_int_equal(mull_loop_create(&n->loop, NULL), 0);
    n->inner.ops = &inner_ops;
    n->inner.caps.mtu = 65520;
    assert_int_equal(
        mull_netboot_create(n->loop, &n->inner, n->folder, "boot/file", &n->front_end, NULL), 0);
    assert_int_equal(n->front_end->caps.mtu, 65520);
    const struct mull_netdev_frontend front = {
        .opaque = n, .receive = receive, .received = received};
    mull_netdev_attach(n->front_end, &front);
    *state = n;
    return 0;
}

static int teardown(void **state)
{
    static const char *const names[] = {"big", "even", "away", "near", "pipe"};
    struct net *n = *state;
    char path[128];

    mull_netdev_destroy(n->front_end);
    mull_loop_destroy(n->loop);
    for (unsigned i = 0; i < 5; i++) {
        snprintf(path, sizeof(path), "%s/%s", n->folder, names[i]);
        unlink(path);
    }
    rmdir(n->folder);
    free(n);
    return 0;
}

static void stop(void *loop)
{
    mull_loop_stop(loop);
}

/* Let the loop run until the guest has got @frames frames in all, at least (60 s at most). */
static void wait_frames(struct net *n, unsigned frames)
{
    uint64_t deadline = mull_now_ns() + 60000000000ull;
    struct mull_timer *turn = mull_timer_create(n->loop, stop, n->loop);

    while (n->frames < frames && mull_now_ns() < deadline) {
        mull_timer_arm(turn, mull_now_ns() + 2000000);
        mull_loop_run(n->loop);
    }
    mull_timer_destroy(turn);
    assert_true(n->frames >= frames);
}

/* ---- The guest's side ---- */

/* A patient client: on a busy host nothing comes twice. */
#define PATIENT "timeout\000255\0"

static void udp(struct net *n, uint16_t from, uint16_t to, const void *data, size_t len)
{
    uint8_t f[1600] = {0x52, 0x55, 0, 0, 0, 2, 0x52, 0x54, 0, 0, 0, 1, 8, 0, 0x45};

    f[16] = (uint8_t)((28 + len) >> 8);
    f[17] = (uint8_t)(28 + len);
    f[22] = 64;
    f[23] = IPPROTO_UDP;
    memcpy(f + 26, (const uint8_t[]){10, 0, 2, 15, 10, 0, 2, 2}, 8);
    const uint16_t ports[3] = {htons(from), htons(to), htons((uint16_t)(8 + len))};
    memcpy(f + 34, ports, sizeof(ports));
    memcpy(f + PAYLOAD, data, len);
    /* In two pieces, as a card may give it. */
    const struct iovec iov[2] = {{f, 20}, {f + 20, PAYLOAD + len - 20}};
    mull_netdev_send(n->front_end, iov, 2, PAYLOAD + len);
}

static uint16_t at16(const struct net *n, unsigned at)
{
    return (uint16_t)(n->got[at] << 8 | n->got[at + 1]);
}

/* What came is a good UDP packet to @port. @return its sender's port */
static uint16_t expect_udp(const struct net *n, uint16_t port)
{
    struct mull_net_headers h;

    mull_net_parse(n->got, (uint32_t)n->got_len, &h);
    assert_true(mull_net_ip_sum_good(n->got, &h));
    assert_true(mull_net_l4_sum_good(n->got, &h));
    assert_int_equal(at16(n, 36), port);
    assert_memory_equal(n->got, ((const uint8_t[]){0x52, 0x54, 0, 0, 0, 1}), 6);
    return at16(n, 34);
}

#define RRQ(name, options) "\0\1" name "\0octet\0" options

static uint16_t ask(struct net *n, uint16_t port, const void *packet, size_t len)
{
    unsigned before = n->frames;
    udp(n, port, 69, packet, len);
    wait_frames(n, before + 1);
    return expect_udp(n, port);
}

static void ack(struct net *n, uint16_t port, uint16_t server, uint16_t block)
{
    const uint8_t packet[4] = {0, 4, (uint8_t)(block >> 8), (uint8_t)block};
    udp(n, port, server, packet, 4);
}

static void expect_error(const struct net *n, uint16_t code)
{
    assert_int_equal(at16(n, PAYLOAD), 5);
    assert_int_equal(at16(n, PAYLOAD + 2), code);
    assert_int_equal(n->got[n->got_len - 1], 0);
}

static void test_whole_file_with_options(void **state)
{
    static const char request[] =
        RRQ("big", "blksize\0001468\0tsize\0000\0windowsize\0004\0" PATIENT);
    struct net *n = *state;

    uint16_t server = ask(n, 2000, request, sizeof(request) - 1);
    assert_int_equal(at16(n, PAYLOAD), 6); /* an OACK, without what is not known here */
    const char expected[] = "blksize\0001468\0tsize\0004411\0timeout\000255";
    assert_int_equal(n->got_len, PAYLOAD + 2 + sizeof(expected));
    assert_memory_equal(n->got + PAYLOAD + 2, expected, sizeof(expected));
    size_t total = 0;
    for (uint16_t block = 0; block < 4; block++) {
        unsigned before = n->frames;
        ack(n, 2000, server, block);
        wait_frames(n, before + 1);
        assert_int_equal(expect_udp(n, 2000), server);
        assert_int_equal(at16(n, PAYLOAD), 3);
        assert_int_equal(at16(n, PAYLOAD + 2), block + 1);
        for (size_t i = PAYLOAD + 4; i < n->got_len; i++, total++)
            assert_int_equal(n->got[i], (uint8_t)(total * 31 >> 3));
    }
    assert_int_equal(total, BIG);
    ack(n, 2000, server, 4);
    ack(n, 2000, server, 4); /* the transfer has ended */
    wait_frames(n, n->frames + 1);
    expect_error(n, 5);
    assert_int_equal(n->passed, 0);
}

static void test_block_that_ends_even(void **state)
{
    static const char request[] = RRQ("/near/../even", "");
    struct net *n = *state;

    /* "near" is a file: no way through it; then the file itself, plainly. */
    ask(n, 2000, request, sizeof(request) - 1);
    expect_error(n, 1);
    static const char plain[] = RRQ("even", "");
    ask(n, 1999, plain, sizeof(plain) - 1);
    assert_int_equal(n->got_len, PAYLOAD + 4 + 512);
    ack(n, 1999, at16(n, 34), 7);             /* no such block yet: no answer */
    udp(n, 1999, at16(n, 34), "\0\5\0\0", 4); /* and it gives up */
    static const char patient[] = RRQ("even", PATIENT);
    uint16_t server = ask(n, 2000, patient, sizeof(patient) - 1);
    ack(n, 2000, server, 0);
    wait_frames(n, n->frames + 1);
    ack(n, 2000, server, 1);
    wait_frames(n, n->frames + 1);
    ack(n, 2000, server, 2);
    wait_frames(n, n->frames + 1);
    assert_int_equal(n->got_len, PAYLOAD + 4); /* an empty one says that this was all */
    ack(n, 2000, server, 3);
    /* What is not acknowledged comes again. */
    ask(n, 2001, plain, sizeof(plain) - 1);
    wait_frames(n, n->frames + 1);
    expect_udp(n, 2001);
    assert_int_equal(at16(n, PAYLOAD + 2), 1);
}

static void test_refusals(void **state)
{
    struct net *n = *state;
    static const struct {
        const char *packet;
        size_t len;
        uint16_t code;
    } bad[] = {
#define BAD(text, code) {text, sizeof(text) - 1, code}
        BAD(RRQ("nosuch", ""), 1),     BAD(RRQ("../../../../etc/passwd", ""), 2),
        BAD(RRQ("away", ""), 2),       BAD(RRQ("pipe", ""), 2),
        BAD(RRQ(".", ""), 2),          BAD(RRQ("", ""), 4),
        BAD(RRQ("/", ""), 1),          BAD(RRQ("big\n", ""), 4),
        BAD("\0\1big\0netascii\0", 0), BAD("\0\1big", 4),
        BAD("\0\2big\0octet\0", 2),    BAD("\0\7big\0octet\0", 4),
    };
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        ask(n, (uint16_t)(3000 + i), bad[i].packet, bad[i].len);
        expect_error(n, bad[i].code);
    }
    static const char link[] = RRQ("near", "");
    ask(n, 2000, link, sizeof(link) - 1); /* a link that stays inside is fine */
    assert_int_equal(at16(n, PAYLOAD), 3);
    udp(n, 2000, 53, "x", 1); /* not ours */
    assert_int_equal(n->passed, 1);
}

/* More clients than there are places: the one that was silent for longest goes. */
static void test_many_clients(void **state)
{
    static const char request[] = RRQ("even", PATIENT);
    struct net *n = *state;
    uint16_t server[20];

    for (uint16_t i = 0; i < 20; i++) {
        server[i] = ask(n, (uint16_t)(2000 + i), request, sizeof(request) - 1);
        assert_int_equal(at16(n, PAYLOAD), 6);
    }
    ack(n, 2000, server[0], 0);
    wait_frames(n, n->frames + 1);
    expect_error(n, 5);
    ack(n, 2019, server[19], 0);
    wait_frames(n, n->frames + 1);
    assert_int_equal(at16(n, PAYLOAD), 3);
    assert_int_equal(at16(n, PAYLOAD + 2), 1);
}

static void test_full_guest(void **state)
{
    static const char request[] = RRQ("even", "");
    struct net *n = *state;

    n->full = true;
    udp(n, 2000, 69, request, sizeof(request) - 1);
    struct mull_timer *turn = mull_timer_create(n->loop, stop, n->loop);
    for (unsigned i = 0; i < 20; i++) {
        mull_timer_arm(turn, mull_now_ns() + 2000000);
        mull_loop_run(n->loop);
    }
    mull_timer_destroy(turn);
    assert_int_equal(n->frames, 0);
    n->full = false;
    mull_netdev_resume(n->front_end);
    wait_frames(n, 1);
    assert_int_equal(at16(n, PAYLOAD), 3);
}

/* ---- DHCP ---- */

static size_t dhcp_offer(uint8_t *f)
{
    static const uint8_t options[] = {0x63, 0x82, 0x53, 0x63, 53, 1, 2, 54, 4, 10, 0, 2, 2, 255};
    size_t len = PAYLOAD + 300;

    memset(f, 0, len);
    memcpy(f, (const uint8_t[]){0x52, 0x54, 0, 0, 0, 1, 0x52, 0x55, 0, 0, 0, 2, 8, 0, 0x45}, 15);
    f[16] = (uint8_t)((len - 14) >> 8);
    f[17] = (uint8_t)(len - 14);
    f[23] = IPPROTO_UDP;
    memcpy(f + 26, (const uint8_t[]){10, 0, 2, 2, 10, 0, 2, 15}, 8);
    f[35] = 67;
    f[37] = 68;
    f[38] = (uint8_t)((len - 34) >> 8);
    f[39] = (uint8_t)(len - 34);
    f[PAYLOAD] = 2;
    memcpy(f + PAYLOAD + 236, options, sizeof(options));
    return len;
}

static void test_dhcp_names_the_file(void **state)
{
    struct net *n = *state;
    uint8_t f[2000];
    size_t len = dhcp_offer(f);

    assert_true(n->below.receive(n->below.opaque, f, len));
    expect_udp(n, 68);
    assert_memory_equal(n->got + PAYLOAD + 20, ((const uint8_t[]){10, 0, 2, 2}), 4);
    assert_string_equal((char *)n->got + PAYLOAD + 108, "boot/file");
    const char added[] = "\x42\x08"
                         "10.0.2.2\x43\x09"
                         "boot/file\xff";
    assert_memory_equal(n->got + PAYLOAD + 236 + 13, added, sizeof(added) - 1);
    /* Now that the server's address is known, TFTP to others is theirs. */
    static const char request[] = RRQ("even", "");
    ask(n, 2000, request, sizeof(request) - 1);
    f[PAYLOAD + 236 + 12] = 9;
    assert_true(n->below.receive(n->below.opaque, f, len));
    udp(n, 2001, 69, request, sizeof(request) - 1);
    assert_int_equal(n->passed, 1);
}

static void test_dhcp_left_alone(void **state)
{
    struct net *n = *state;
    uint8_t f[2000], bad[2000];
    size_t len = dhcp_offer(f);

    for (unsigned i = 0; i < 5; i++) {
        size_t size = len;
        memcpy(bad, f, len);
        if (i == 0)
            bad[PAYLOAD] = 1; /* a request */
        else if (i == 1)
            bad[PAYLOAD + 236 + 5] = 255; /* an option longer than the packet */
        else if (i == 2)
            bad[PAYLOAD + 236 + 4] = 52; /* overloaded */
        else if (i == 3)
            size = PAYLOAD + 236 + 7; /* no end */
        else
            bad[PAYLOAD + 237] = 0; /* no DHCP */
        assert_true(n->below.receive(n->below.opaque, bad, size));
        assert_int_equal(n->got_len, size);
        assert_memory_equal(n->got, bad, size);
    }
}

static void test_bad_configuration(void **state)
{
    struct net *n = *state;
    struct mull_netdev *out;
    struct mull_error err = {0};
    char name[200];

    assert_int_equal(mull_netboot_create(n->loop, &n->inner, "/nonexistent", NULL, &out, &err),
                     -ENOENT);
    assert_non_null(strstr(err.message, "tftp=/nonexistent"));
    memset(name, 'x', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    assert_int_equal(mull_netboot_create(n->loop, &n->inner, "/tmp", name, &out, &err), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_whole_file_with_options, setup, teardown),
        cmocka_unit_test_setup_teardown(test_block_that_ends_even, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refusals, setup, teardown),
        cmocka_unit_test_setup_teardown(test_many_clients, setup, teardown),
        cmocka_unit_test_setup_teardown(test_full_guest, setup, teardown),
        cmocka_unit_test_setup_teardown(test_dhcp_names_the_file, setup, teardown),
        cmocka_unit_test_setup_teardown(test_dhcp_left_alone, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_configuration, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
