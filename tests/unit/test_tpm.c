/* The TPM's command response buffer, as a driver uses it; behind it sits a stand-in for swtpm. */
#include "platform_world.h"

#include <endian.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "device/legacy/tpm_crb.h"
#include "platform/acpi.h"

enum { LOC_STATE = 0, LOC_CTRL = 8, CTRL_REQ = 0x40, CTRL_STS = 0x44, START = 0x4c, BUFFER = 0x80 };
#define ROOM (MULL_TPM_SIZE - BUFFER)

struct fixture {
    struct world world; /* must be first */
    struct mull_device *device;
    int control, data; /* swtpm's ends */
    pthread_t thread;
    unsigned inits, stops, loaded; /* what the stand-in was told */
    uint32_t bad_size;             /* of a state blob; 0: a good one */
};

static bool take(int fd, void *to, size_t len)
{
    return recv(fd, to, len, MSG_WAITALL) == (ssize_t)len;
}

static void give(int fd, const uint32_t *words, unsigned count)
{
    uint32_t out[8];
    for (unsigned i = 0; i < count; i++)
        out[i] = htobe32(words[i]);
    ssize_t n = send(fd, out, 4 * count, MSG_NOSIGNAL);
    (void)n;
}

/* The control channel (man swtpm_ioctls), as far as the device uses it. */
static void *serve(void *opaque)
{
    struct fixture *f = opaque;
    uint32_t command, args[3];
    while (take(f->control, &command, 4)) {
        switch (be32toh(command)) {
        case 2:
            take(f->control, args, 4);
            f->inits++;
            give(f->control, (const uint32_t[]){0}, 1);
            break;
        case 12: /* a blob: its type, in two bytes */
            take(f->control, args, 12);
            give(f->control, (const uint32_t[]){0, 7, f->bad_size ? f->bad_size : 4, 4}, 4);
            send(f->control, &args[1], 4, MSG_NOSIGNAL);
            break;
        case 13: {
            uint32_t data;
            take(f->control, args, 12);
            take(f->control, &data, 4);
            f->loaded += data == args[1] && be32toh(args[0]) == 7;
            give(f->control, (const uint32_t[]){0}, 1);
            break;
        }
        case 14:
            f->stops++;
            give(f->control, (const uint32_t[]){0}, 1);
            break;
        case 17:
            take(f->control, args, 4);
            give(f->control, (const uint32_t[]){0, be32toh(args[0]), 1, 4096}, 4);
            break;
        default:
            give(f->control, (const uint32_t[]){1}, 1);
        }
    }
    return NULL;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct mull_error err = {0};
    int control[2], data[2];
    world_make(&f->world);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, control), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, data), 0);
    f->control = control[1];
    f->data = data[1];
    assert_int_equal(pthread_create(&f->thread, NULL, serve, f), 0);
    const struct mull_tpm_config cfg = {.control = control[0], .data = data[0]};
    assert_int_equal(mull_tpm_crb_create(&f->world.env, &cfg, &f->device, &err), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    f->device->ops->destroy(f->device);
    pthread_join(f->thread, NULL);
    close(f->control);
    if (f->data >= 0)
        close(f->data);
    world_free(&f->world);
    free(f);
    return 0;
}

static uint32_t rd(struct fixture *f, unsigned offset)
{
    return (uint32_t)world_read(&f->world, MULL_TPM_BASE + offset, 4);
}

static void wr(struct fixture *f, unsigned offset, uint32_t value)
{
    world_write(&f->world, MULL_TPM_BASE + offset, 4, value);
}

/* Put a command of @size bytes, by its own word @says, into the buffer and start it. */
static void command(struct fixture *f, uint32_t size, uint32_t says)
{
    uint8_t text[64] = {
        0x80, 1, (uint8_t)(says >> 24), (uint8_t)(says >> 16), (uint8_t)(says >> 8), (uint8_t)says};
    wr(f, LOC_CTRL, 1);
    wr(f, CTRL_REQ, 1);
    for (uint32_t i = 0; i < size; i++)
        world_write(&f->world, MULL_TPM_BASE + BUFFER + i, 1, text[i]);
    wr(f, START, 1);
}

static const uint8_t answer[12] = {0x80, 1, 0, 0, 0, 12, 0, 0, 0, 0, 0xaa, 0xbb};

static void test_command(void **state)
{
    struct fixture *f = *state;
    uint8_t got[64];
    assert_int_equal(f->inits, 1);
    assert_int_equal(rd(f, LOC_STATE) & 0x82, 0x80);
    assert_int_equal(rd(f, CTRL_STS), 2); /* idle */
    assert_int_equal(rd(f, 0x58), ROOM);
    assert_int_equal(rd(f, 0x5c), MULL_TPM_BASE + BUFFER);
    command(f, 12, 12);
    assert_int_equal(rd(f, LOC_STATE) & 0x82, 0x82);
    assert_int_equal(rd(f, START), 1);
    assert_int_equal(recv(f->data, got, sizeof(got), 0), 12);
    assert_int_equal(got[5], 12);
    wr(f, BUFFER, 0x11111111); /* the buffer is the TPM's now */
    wr(f, CTRL_REQ, 2);
    assert_int_equal(rd(f, CTRL_STS), 0);
    assert_int_equal(send(f->data, answer, 7, 0), 7); /* in two pieces */
    world_drain(&f->world);
    assert_int_equal(rd(f, START), 1);
    assert_int_equal(send(f->data, answer + 7, 5, 0), 5);
    world_drain(&f->world);
    assert_int_equal(rd(f, START), 0);
    for (unsigned i = 0; i < sizeof(answer); i++)
        assert_int_equal(world_read(&f->world, MULL_TPM_BASE + BUFFER + i, 1), answer[i]);
    wr(f, CTRL_REQ, 2);
    assert_int_equal(rd(f, CTRL_STS), 2);
    wr(f, START, 1); /* not while it is idle */
    assert_int_equal(rd(f, START), 0);
    wr(f, LOC_CTRL, 2);
    assert_int_equal(rd(f, LOC_STATE) & 0x82, 0x80);
}

static void test_bad_commands(void **state)
{
    struct fixture *f = *state;
    const uint32_t sizes[] = {0, 9, ROOM + 1, ~0u};
    uint8_t got[16];
    for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        command(f, 10, sizes[i]);
        assert_int_equal(rd(f, START), 0);
        assert_int_equal(world_read(&f->world, MULL_TPM_BASE + BUFFER + 9, 1), 0x42);
        assert_int_equal(recv(f->data, got, sizeof(got), MSG_DONTWAIT), -1);
    }
    /* Beyond the page there is nothing; odd accesses do no harm. */
    world_write(&f->world, MULL_TPM_BASE + MULL_TPM_SIZE - 2, 4, ~0u);
    for (unsigned i = 0; i < BUFFER; i++)
        world_read(&f->world, MULL_TPM_BASE + i, 2);
}

static void test_swtpm_ends(void **state)
{
    struct fixture *f = *state;
    command(f, 12, 12);
    close(f->data);
    f->data = -1;
    world_drain(&f->world);
    assert_int_equal(rd(f, START), 0);
    assert_int_equal(rd(f, CTRL_STS) & 1, 1);
    command(f, 12, 12);
    assert_int_equal(rd(f, START), 0);
    f->device->ops->reset(f->device);
}

static void test_swtpm_talks_nonsense(void **state)
{
    struct fixture *f = *state;
    const uint8_t huge[10] = {0x80, 1, 0x7f};
    command(f, 12, 12);
    assert_int_equal(send(f->data, huge, sizeof(huge), 0), 10);
    world_drain(&f->world);
    assert_int_equal(rd(f, CTRL_STS) & 1, 1);
}

static void test_reset_and_state(void **state)
{
    struct fixture *f = *state;
    const struct mull_state_desc *desc = f->device->ops->state;
    struct mull_error err = {0};
    /* A reset waits for the answer, then the TPM begins anew. */
    command(f, 12, 12);
    assert_int_equal(send(f->data, answer, sizeof(answer), 0), 12);
    f->device->ops->reset(f->device);
    assert_true(f->stops == 1 && f->inits == 2);
    assert_int_equal(rd(f, START), 0);
    assert_int_equal(rd(f, BUFFER), 0);
    f->device->ops->quiesce(f->device);
    desc->before_save(f->device->object);
    assert_int_equal(desc->after_load(f->device->object, 1, &err), 0);
    assert_int_equal(f->loaded, 3);
    assert_int_equal(f->inits, 3);
    /* A blob that is too large is not read: the TPM fails, and nothing else does. */
    f->bad_size = 1 << 20;
    desc->before_save(f->device->object);
    assert_int_equal(rd(f, CTRL_STS) & 1, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_command, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_commands, setup, teardown),
        cmocka_unit_test_setup_teardown(test_swtpm_ends, setup, teardown),
        cmocka_unit_test_setup_teardown(test_swtpm_talks_nonsense, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reset_and_state, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
