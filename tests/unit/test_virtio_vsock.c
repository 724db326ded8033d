/* The virtio socket device between a guest's driver and Unix sockets, both of which break rules. */
#include "virtio_driver.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_vsock.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "state/state.h"

#define ALL (~0ull)
enum { RX, TX, EVENT };
#define CID 7
#define HDR sizeof(struct virtio_vsock_hdr)
#define BUFFERS 16
#define RX_BUFFER(i) (DRV_DATA + 0x2000u * (i))
#define RX_SIZE 0x1000u
#define OUT (DRV_DATA + 0x100000u)
#define CREDIT (64u << 10)
#define OP(name) VIRTIO_VSOCK_OP_##name

struct fixture {
    struct drv drv; /* must be first */
    char folder[32], path[64];
    uint32_t buffer_of[256];
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct mull_error err = {0};
    drv_init(&f->drv);
    strcpy(f->folder, "/tmp/vsock.XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    snprintf(f->path, sizeof(f->path), "%s/v", f->folder);
    const struct mull_virtio_vsock_config cfg = {
        .name = "virtio-vsock.0", .devfn = -1, .cid = CID, .path = f->path};
    assert_int_equal(mull_virtio_vsock_create(&f->drv.env, f->drv.bus, &cfg, &f->drv.device, &err),
                     0);
    drv_find(&f->drv);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    char socket_path[80];
    f->drv.device->ops->destroy(f->drv.device);
    f->drv.device = NULL;
    drv_fini(&f->drv);
    snprintf(socket_path, sizeof(socket_path), "%s_4321", f->path);
    unlink(socket_path);
    assert_int_equal(rmdir(f->folder), 0); /* its socket has gone with it */
    free(f);
    return 0;
}

static void give_buffer(struct fixture *f, unsigned i, uint32_t size)
{
    const struct drv_seg seg = {RX_BUFFER(i), size, true};
    f->buffer_of[drv_add(&f->drv, RX, &seg, 1) & 0xff] = i;
}

static void start(struct fixture *f)
{
    drv_start(&f->drv, ALL, 3, 64);
    for (unsigned i = 0; i < BUFFERS; i++)
        give_buffer(f, i, RX_SIZE);
    drv_kick(&f->drv, RX);
}

/* The next packet from the device. @return false: none */
static bool next(struct fixture *f, struct virtio_vsock_hdr *h, uint8_t *bytes)
{
    uint32_t id, len;
    drv_turn(&f->drv);
    if (!drv_used(&f->drv, RX, &id, &len))
        return false;
    unsigned buffer = f->buffer_of[id & 0xff];
    assert_true(len >= HDR);
    assert_int_equal(mull_mem_read(f->drv.memory, RX_BUFFER(buffer), h, HDR), 0);
    assert_int_equal(len, HDR + h->len);
    assert_int_equal(h->src_cid, 2);
    assert_int_equal(h->dst_cid, CID);
    assert_int_equal(h->type, VIRTIO_VSOCK_TYPE_STREAM);
    if (bytes)
        mull_mem_read(f->drv.memory, RX_BUFFER(buffer) + HDR, bytes, h->len);
    give_buffer(f, buffer, RX_SIZE);
    drv_notify(&f->drv, RX);
    return true;
}

/* The same, which must come (10 s at most), and what it must be. */
static struct virtio_vsock_hdr expect_packet(struct fixture *f, uint16_t op, uint8_t *bytes)
{
    struct virtio_vsock_hdr h = {0};
    time_t end = time(NULL) + 10;
    while (!next(f, &h, bytes)) {
        assert_true(time(NULL) <= end);
        usleep(1000);
    }
    assert_int_equal(h.op, op);
    return h;
}

static void send_raw(struct fixture *f, struct virtio_vsock_hdr h, const void *bytes, uint32_t len)
{
    const struct drv_seg segs[2] = {{OUT, HDR, false}, {OUT + 0x1000, len, false}};
    uint32_t id, used;
    mull_mem_write(f->drv.memory, OUT, &h, HDR);
    if (len)
        mull_mem_write(f->drv.memory, OUT + 0x1000, bytes, len);
    drv_add(&f->drv, TX, segs, len ? 2 : 1);
    drv_kick(&f->drv, TX);
    drv_wait_used(&f->drv, TX, &id, &used);
}

static struct virtio_vsock_hdr header(uint32_t guest_port, uint32_t host_port, uint16_t op)
{
    return (struct virtio_vsock_hdr){.src_cid = CID,
                                     .dst_cid = 2,
                                     .src_port = guest_port,
                                     .dst_port = host_port,
                                     .type = VIRTIO_VSOCK_TYPE_STREAM,
                                     .op = op,
                                     .buf_alloc = 1 << 20};
}

static void send_op(struct fixture *f, uint32_t guest_port, uint32_t host_port, uint16_t op)
{
    send_raw(f, header(guest_port, host_port, op), NULL, 0);
}

static void send_data(struct fixture *f, uint32_t guest_port, uint32_t host_port, const void *bytes,
                      uint32_t len)
{
    struct virtio_vsock_hdr h = header(guest_port, host_port, OP(RW));
    h.len = len;
    send_raw(f, h, bytes, len);
}

static int host_socket(struct fixture *f, const char *suffix, bool listens)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    snprintf(a.sun_path, sizeof(a.sun_path), "%s%s", f->path, suffix);
    assert_int_equal(listens ? bind(fd, (struct sockaddr *)&a, sizeof(a))
                             : connect(fd, (struct sockaddr *)&a, sizeof(a)),
                     0);
    if (listens)
        assert_int_equal(listen(fd, 8), 0);
    return fd;
}

/* What the host can read, within 10 s. */
static ssize_t host_read(struct fixture *f, int fd, void *buf, size_t size)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    time_t end = time(NULL) + 10;
    do {
        assert_true(time(NULL) <= end);
        drv_turn(&f->drv);
    } while (poll(&p, 1, 1) < 1);
    return read(fd, buf, size);
}

static void host_expect(struct fixture *f, int fd, const char *text)
{
    char got[256] = "";
    assert_int_equal(host_read(f, fd, got, sizeof(got) - 1), (ssize_t)strlen(text));
    assert_string_equal(got, text);
}

static void host_expect_end(struct fixture *f, int fd)
{
    char byte;
    assert_true(host_read(f, fd, &byte, 1) <= 0);
    close(fd);
}

/* The host connects to port 99 of the guest. @return its socket; *port: the host's port */
static int open_from_host(struct fixture *f, uint32_t credit, uint32_t *port)
{
    char want[32];
    int fd = host_socket(f, "", false);
    assert_int_equal(write(fd, "CONNECT 99\n", 11), 11);
    struct virtio_vsock_hdr h = expect_packet(f, OP(REQUEST), NULL);
    assert_int_equal(h.dst_port, 99);
    assert_int_equal(h.buf_alloc, CREDIT);
    *port = h.src_port;
    h = header(99, *port, OP(RESPONSE));
    h.buf_alloc = credit;
    send_raw(f, h, NULL, 0);
    snprintf(want, sizeof(want), "OK %u\n", *port);
    host_expect(f, fd, want);
    return fd;
}

/* The guest connects to port 4321 of the host. @return the host's end */
static int open_from_guest(struct fixture *f, int listener, uint32_t guest_port)
{
    send_op(f, guest_port, 4321, OP(REQUEST));
    struct virtio_vsock_hdr h = expect_packet(f, OP(RESPONSE), NULL);
    assert_int_equal(h.src_port, 4321);
    assert_int_equal(h.dst_port, guest_port);
    return accept4(listener, NULL, NULL, SOCK_CLOEXEC);
}

static void test_identity(void **state)
{
    struct fixture *f = *state;
    struct mull_error err = {0};
    struct mull_device *other;
    struct stat st;
    assert_int_equal(drv_read(&f->drv, f->drv.config, 4), CID);
    assert_int_equal(drv_read(&f->drv, f->drv.config + 4, 4), 0);
    assert_int_equal(stat(f->path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    const struct mull_virtio_vsock_config wrong[] = {
        {.name = "v.1", .devfn = -1, .cid = CID, .path = f->path}, /* in use */
        {.name = "v.1", .devfn = -1, .cid = 2, .path = "/tmp/unused"},
        {.name = "v.1", .devfn = -1, .cid = UINT32_MAX, .path = "/tmp/unused"},
        {.name = "v.1", .devfn = -1, .cid = CID, .path = ""},
        {.name = "v.1", .devfn = -1, .cid = CID, .path = "/tmp/no/such/folder/v"}};
    for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        assert_true(mull_virtio_vsock_create(&f->drv.env, f->drv.bus, &wrong[i], &other, &err) < 0);
        assert_non_null(strstr(err.message, "--vsock"));
    }
    assert_int_equal(stat(f->path, &st), 0); /* the failed one has not taken it away */
}

static void test_from_the_host(void **state)
{
    struct fixture *f = *state;
    uint8_t got[RX_SIZE];
    uint32_t port;
    start(f);
    int fd = open_from_host(f, 1 << 20, &port);
    send_data(f, 99, port, "hello", 5);
    host_expect(f, fd, "hello");
    assert_int_equal(write(fd, "answer", 6), 6);
    assert_int_equal(expect_packet(f, OP(RW), got).len, 6);
    assert_memory_equal(got, "answer", 6);
    /* It ends half: more may still come from the guest. */
    shutdown(fd, SHUT_WR);
    assert_int_equal(expect_packet(f, OP(SHUTDOWN), NULL).flags, VIRTIO_VSOCK_SHUTDOWN_SEND);
    send_data(f, 99, port, "more", 4);
    host_expect(f, fd, "more");
    struct virtio_vsock_hdr h = header(99, port, OP(SHUTDOWN));
    h.flags = VIRTIO_VSOCK_SHUTDOWN_RCV | VIRTIO_VSOCK_SHUTDOWN_SEND;
    send_raw(f, h, NULL, 0);
    expect_packet(f, OP(RST), NULL);
    host_expect_end(f, fd);
}

static void test_from_the_guest(void **state)
{
    struct fixture *f = *state;
    start(f);
    send_op(f, 1000, 4321, OP(REQUEST)); /* nobody listens */
    assert_int_equal(expect_packet(f, OP(RST), NULL).dst_port, 1000);
    int listener = host_socket(f, "_4321", true);
    int fd = open_from_guest(f, listener, 1000), second = open_from_guest(f, listener, 1001);
    send_data(f, 1001, 4321, "two", 3);
    send_data(f, 1000, 4321, "one", 3);
    host_expect(f, fd, "one");
    host_expect(f, second, "two");
    /* Who goes with the last word still delivers it. */
    assert_int_equal(write(fd, "last", 4), 4);
    close(fd);
    assert_int_equal(expect_packet(f, OP(RW), NULL).len, 4);
    assert_int_equal(expect_packet(f, OP(SHUTDOWN), NULL).flags,
                     VIRTIO_VSOCK_SHUTDOWN_RCV | VIRTIO_VSOCK_SHUTDOWN_SEND);
    send_data(f, 1000, 4321, "too late", 8);
    drv_assert_fine(&f->drv);
    send_op(f, 1000, 4321, OP(RST));
    send_op(f, 1001, 4321, OP(RST));
    host_expect_end(f, second);
    close(listener);
}

static void test_credit(void **state)
{
    struct fixture *f = *state;
    static uint8_t bytes[5000];
    uint8_t got[RX_SIZE];
    struct virtio_vsock_hdr h;
    uint32_t port, seen = 0;
    start(f);
    int fd = open_from_host(f, 1000, &port);
    for (unsigned i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)(i * 7);
    assert_int_equal(write(fd, bytes, sizeof(bytes)), sizeof(bytes));
    while (seen < sizeof(bytes)) {
        h = expect_packet(f, OP(RW), got);
        assert_true(h.len <= 1000);
        assert_memory_equal(got, bytes + seen, h.len);
        seen += h.len;
        if (seen == sizeof(bytes))
            break;
        expect_packet(f, OP(CREDIT_REQUEST), NULL);
        assert_false(next(f, &h, NULL)); /* it asks once */
        h = header(99, port, OP(CREDIT_UPDATE));
        h.buf_alloc = 1000;
        h.fwd_cnt = seen;
        send_raw(f, h, NULL, 0);
    }
    /* Credit that goes down, or counts more than was sent, gives nothing. */
    h = header(99, port, OP(CREDIT_UPDATE));
    h.buf_alloc = 10;
    h.fwd_cnt = seen + 1000;
    send_raw(f, h, NULL, 0);
    assert_int_equal(write(fd, bytes, 100), 100);
    expect_packet(f, OP(CREDIT_REQUEST), NULL);
    assert_false(next(f, &h, NULL));
    close(fd);
}

/* The host does not read: the guest gets no more credit; what it sends beyond ends the connection.
 */
static void test_full(void **state)
{
    struct fixture *f = *state;
    static uint8_t bytes[4096];
    struct virtio_vsock_hdr h = {0};
    int small = 4096;
    start(f);
    int listener = host_socket(f, "_4321", true);
    int fd = open_from_guest(f, listener, 1);
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
    uint32_t sent = 0, forwarded = 0;
    while (sent - forwarded + sizeof(bytes) <= CREDIT && sent < (16u << 20)) {
        send_data(f, 1, 4321, bytes, sizeof(bytes));
        sent += sizeof(bytes);
        while (next(f, &h, NULL)) {
            assert_int_equal(h.op, OP(CREDIT_UPDATE));
            forwarded = h.fwd_cnt;
        }
    }
    assert_true(sent < (16u << 20));
    size_t total = 0;
    do
        total += (size_t)host_read(f, fd, bytes, sizeof(bytes));
    while (total < sent);
    assert_int_equal(total, sent);
    h = expect_packet(f, OP(CREDIT_UPDATE), NULL);
    assert_true(sent - h.fwd_cnt < CREDIT / 2);
    while (next(f, &h, NULL))
        ;
    for (unsigned i = 0; i < 256 && !next(f, &h, NULL); i++)
        send_data(f, 1, 4321, bytes, sizeof(bytes)); /* as if there were no credit */
    while (h.op == OP(CREDIT_UPDATE))
        if (!next(f, &h, NULL))
            send_data(f, 1, 4321, bytes, sizeof(bytes));
    assert_int_equal(h.op, OP(RST));
    close(fd);
    close(listener);
}

static void test_bad_packets(void **state)
{
    struct fixture *f = *state;
    struct virtio_vsock_hdr h;
    uint32_t port;
    start(f);
    send_op(f, 5, 6, OP(RST)); /* of nothing: no answer */
    send_op(f, 5, 6, OP(RW));
    assert_int_equal(expect_packet(f, OP(RST), NULL).dst_port, 5);
    struct virtio_vsock_hdr bad[5];
    for (unsigned i = 0; i < 5; i++)
        bad[i] = header(99, 0, OP(RW));
    bad[0].src_cid = CID + 1;
    bad[1].dst_cid = 3;
    bad[2].type = VIRTIO_VSOCK_TYPE_SEQPACKET;
    bad[3].len = 1 << 20; /* more than is there */
    bad[4].op = 77;
    for (unsigned i = 0; i < 5; i++) {
        int fd = open_from_host(f, 1000, &port);
        bad[i].dst_port = port;
        send_raw(f, bad[i], NULL, 0);
        expect_packet(f, OP(RST), NULL);
        host_expect_end(f, fd);
    }
    const struct drv_seg tiny = {OUT, 10, false};
    uint32_t id, len;
    drv_add(&f->drv, TX, &tiny, 1);
    drv_kick(&f->drv, TX);
    drv_wait_used(&f->drv, TX, &id, &len);
    assert_false(next(f, &h, NULL));
    drv_assert_fine(&f->drv);
    /* More refusals than there are buffers to say so. */
    for (unsigned i = 0; i < 400; i++) {
        const struct drv_seg seg = {OUT, HDR, false};
        h = header(i, i, OP(RW));
        mull_mem_write(f->drv.memory, OUT, &h, HDR);
        drv_add(&f->drv, TX, &seg, 1);
        drv_kick(&f->drv, TX);
        drv_wait_used(&f->drv, TX, &id, &len);
    }
    while (next(f, &h, NULL))
        assert_int_equal(h.op, OP(RST));
    int fd = open_from_host(f, 1000, &port);
    close(fd);
}

static void test_bad_buffer(void **state)
{
    struct fixture *f = *state;
    drv_start(&f->drv, ALL, 3, 64);
    give_buffer(f, 0, HDR);
    drv_kick(&f->drv, RX);
    send_op(f, 5, 6, OP(RW));
    drv_turn(&f->drv);
    drv_assert_broken(&f->drv);
}

/* Who connects and says nothing, or nonsense, keeps nobody else out. */
static void test_bad_hosts(void **state)
{
    static const char *const nonsense[] = {
        "CONNECT\n",    "CONNECT -1\n",       "CONNECT 4294967296\n",
        "CONNECT 1 \n", "GET / HTTP/1.1\r\n", "CONNECT 00000000000000000000000001\n"};
    struct fixture *f = *state;
    int silent[300];
    uint32_t port;
    start(f);
    for (unsigned i = 0; i < sizeof(nonsense) / sizeof(nonsense[0]); i++) {
        int fd = host_socket(f, "", false);
        assert_true(write(fd, nonsense[i], strlen(nonsense[i])) > 0);
        host_expect_end(f, fd);
    }
    for (unsigned i = 0; i < 300; i++) {
        silent[i] = host_socket(f, "", false);
        drv_turn(&f->drv);
    }
    int fd = open_from_host(f, 1000, &port);
    host_expect_end(f, silent[0]); /* the first to be forgotten */
    for (unsigned i = 1; i < 300; i++)
        close(silent[i]);
    send_data(f, 99, port, "still", 5);
    host_expect(f, fd, "still");
    /* One that goes before the guest has answered. */
    int gone = host_socket(f, "", false);
    assert_int_equal(write(gone, "CONNECT 98\n", 11), 11);
    struct virtio_vsock_hdr h = expect_packet(f, OP(REQUEST), NULL);
    close(gone);
    assert_int_equal(expect_packet(f, OP(RST), NULL).src_port, h.src_port);
    /* Without a driver there is nobody to talk to. */
    drv_common_write(&f->drv, device_status, 0);
    host_expect_end(f, fd);
    fd = host_socket(f, "", false);
    assert_int_equal(write(fd, "CONNECT 98\n", 11), 11);
    host_expect_end(f, fd);
}

static void test_restored(void **state)
{
    struct fixture *f = *state;
    struct virtio_vsock_event event = {~0u};
    const struct drv_seg seg = {OUT, sizeof(event), true};
    uint32_t id, len;
    start(f);
    drv_add(&f->drv, EVENT, &seg, 1);
    drv_kick(&f->drv, EVENT);
    assert_false(drv_used(&f->drv, EVENT, &id, &len));
    struct mull_error err = {0};
    const struct mull_state_desc *desc = f->drv.device->ops->state;
    f->drv.device->ops->quiesce(f->drv.device);
    assert_int_equal(desc->after_load(f->drv.device->object, desc->version, &err), 0);
    f->drv.device->ops->resume(f->drv.device);
    drv_turn(&f->drv);
    drv_wait_used(&f->drv, EVENT, &id, &len);
    assert_int_equal(len, sizeof(event));
    mull_mem_read(f->drv.memory, OUT, &event, sizeof(event));
    assert_int_equal(event.id, VIRTIO_VSOCK_EVENT_TRANSPORT_RESET);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_identity, setup, teardown),
        cmocka_unit_test_setup_teardown(test_from_the_host, setup, teardown),
        cmocka_unit_test_setup_teardown(test_from_the_guest, setup, teardown),
        cmocka_unit_test_setup_teardown(test_credit, setup, teardown),
        cmocka_unit_test_setup_teardown(test_full, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_packets, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_buffer, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_hosts, setup, teardown),
        cmocka_unit_test_setup_teardown(test_restored, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
