/* The tap back end in a network namespace of its own, with a packet socket at the other side.
 * Skipped where the host permits neither. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_net.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netpacket/packet.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "device/net/netdev.h"

#define HDR MULL_NET_HDR_SIZE
#define PROTOCOL 0x88b5 /* for experiments (IEEE 802) */

struct fixture {
    struct mull_loop *loop;
    struct mull_netdev *netdev;
    int socket;
    unsigned frames, bursts;
    bool refuse;
    uint8_t last[70000];
    size_t last_len;
};

static bool receive(void *opaque, const uint8_t *frame, size_t len)
{
    struct fixture *f = opaque;
    uint16_t type;
    memcpy(&type, frame + HDR + 12, 2);
    if (type != htons(PROTOCOL))
        return true; /* the kernel's own chatter */
    if (f->refuse)
        return false;
    memcpy(f->last, frame, len);
    f->last_len = len;
    f->frames++;
    return true;
}

static void received(void *opaque)
{
    ((struct fixture *)opaque)->bursts++;
}

static void writable(void *opaque) {}

static bool own_network(void)
{
    return !unshare(CLONE_NEWNET) || !unshare(CLONE_NEWUSER | CLONE_NEWNET);
}

static void bring_up(struct fixture *f, const char *name)
{
    struct ifreq request = {0};
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    strcpy(request.ifr_name, name);
    assert_int_equal(ioctl(fd, SIOCGIFFLAGS, &request), 0);
    request.ifr_flags |= IFF_UP;
    assert_int_equal(ioctl(fd, SIOCSIFFLAGS, &request), 0);
    close(fd);
    f->socket = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK, htons(PROTOCOL));
    assert_true(f->socket >= 0);
    struct sockaddr_ll address = {.sll_family = AF_PACKET,
                                  .sll_protocol = htons(PROTOCOL),
                                  .sll_ifindex = (int)if_nametoindex(name)};
    assert_int_equal(bind(f->socket, (struct sockaddr *)&address, sizeof(address)), 0);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct mull_error err = {0};
    *state = f;
    f->socket = -1;
    assert_int_equal(mull_loop_create(&f->loop, NULL), 0);
    if (!own_network()) {
        print_message("no namespaces here\n");
        return 0;
    }
    if (mull_tap_create(f->loop, "mulltap0", NULL, &f->netdev, &err)) {
        print_message("%s\n", err.message);
        f->netdev = NULL;
        return 0;
    }
    bring_up(f, "mulltap0");
    const struct mull_netdev_frontend frontend = {
        .opaque = f, .receive = receive, .received = received, .writable = writable};
    mull_netdev_attach(f->netdev, &frontend);
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    if (f->socket >= 0)
        close(f->socket);
    mull_netdev_destroy(f->netdev);
    mull_loop_destroy(f->loop);
    free(f);
    return 0;
}

static void stop_loop(void *loop)
{
    mull_loop_stop(loop);
}

static void turn(struct fixture *f)
{
    assert_int_equal(mull_loop_post(f->loop, stop_loop, f->loop), 0);
    mull_loop_run(f->loop);
}

static void make_frame(uint8_t *frame, size_t len)
{
    memset(frame, 0xff, 6);
    memcpy(frame + 6, "\2\0\0\0\0\1", 6);
    frame[12] = PROTOCOL >> 8;
    frame[13] = PROTOCOL & 0xff;
    for (size_t i = 14; i < len; i++)
        frame[i] = (uint8_t)i;
}

static void test_frames_pass(void **state)
{
    struct fixture *f = *state;
    if (!f->netdev)
        skip();
    uint8_t frame[HDR + 1000] = {0}, got[2000];
    assert_true(f->netdev->caps.vnet_hdr);
    make_frame(frame + HDR, 1000);
    const struct iovec iov[2] = {{frame, HDR + 100}, {frame + HDR + 100, 900}};
    assert_int_equal(mull_netdev_send(f->netdev, iov, 2, sizeof(frame)), 0);
    mull_netdev_flush(f->netdev);
    assert_int_equal(recv(f->socket, got, sizeof(got), 0), 1000);
    assert_memory_equal(got, frame + HDR, 1000);

    for (int i = 0; i < 100; i++) /* more than one turn of the loop takes */
        assert_int_equal(send(f->socket, frame + HDR, 500, 0), 500);
    for (int i = 0; i < 10 && f->frames < 100; i++)
        turn(f);
    assert_int_equal(f->frames, 100);
    assert_int_equal(f->last_len, HDR + 500);
    assert_memory_equal(f->last + HDR, frame + HDR, 500);
    assert_int_equal(f->last[0] | f->last[1], 0); /* no offload without the guest's word */
    assert_true(f->bursts >= 2);
}

static void test_refused_frame_is_kept(void **state)
{
    struct fixture *f = *state;
    if (!f->netdev)
        skip();
    uint8_t frame[100];
    make_frame(frame, sizeof(frame));
    f->refuse = true;
    assert_int_equal(send(f->socket, frame, 100, 0), 100);
    assert_int_equal(send(f->socket, frame, 60, 0), 60);
    turn(f);
    assert_int_equal(f->frames, 0);
    f->refuse = false;
    mull_netdev_resume(f->netdev);
    turn(f);
    turn(f);
    assert_int_equal(f->frames, 2);
    assert_int_equal(f->last_len, HDR + 60);
}

static void test_offloads_and_bad_headers(void **state)
{
    struct fixture *f = *state;
    if (!f->netdev)
        skip();
    uint8_t frame[HDR + 200] = {0};
    mull_netdev_set_offloads(f->netdev,
                             1ull << VIRTIO_NET_F_GUEST_CSUM | 1ull << VIRTIO_NET_F_GUEST_TSO4);
    mull_netdev_set_offloads(f->netdev, 0);
    /* The kernel refuses what makes no sense; for us it is a lost frame. */
    struct virtio_net_hdr_v1 header = {.flags = 0xff, .gso_type = 0x77, .csum_start = 0xffff};
    memcpy(frame, &header, sizeof(header));
    make_frame(frame + HDR, 200);
    const struct iovec iov = {frame, sizeof(frame)};
    assert_int_equal(mull_netdev_send(f->netdev, &iov, 1, sizeof(frame)), 0);
    const struct iovec tiny = {frame, 3};
    assert_int_equal(mull_netdev_send(f->netdev, &tiny, 1, 3), 0);
    uint8_t got[300];
    assert_int_equal(recv(f->socket, got, sizeof(got), 0), -1);
}

static void test_errors(void **state)
{
    struct fixture *f = *state;
    struct mull_netdev *other;
    struct mull_error err = {0};
    assert_int_equal(mull_tap_create(f->loop, "", NULL, &other, &err), -EINVAL);
    assert_int_equal(mull_tap_create(f->loop, "a-name-that-is-too-long", NULL, &other, &err),
                     -EINVAL);
    assert_int_equal(mull_tap_create(f->loop, "a/b", NULL, &other, &err), -EINVAL);
    assert_int_equal(mull_tap_create(f->loop, "tap%d", NULL, &other, &err), -EINVAL);
    if (!f->netdev)
        skip();
    assert_int_equal(mull_tap_create(f->loop, "lo", NULL, &other, &err), -EINVAL);
    assert_non_null(strstr(err.message, "tap lo"));
    assert_int_equal(mull_tap_create(f->loop, "mulltap0", NULL, &other, &err), -EBUSY);
    assert_non_null(strstr(err.message, "another process"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(test_frames_pass),
        T(test_refused_frame_is_kept),
        T(test_offloads_and_bad_headers),
        T(test_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
