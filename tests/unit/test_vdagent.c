/* The clipboard's protocol with an agent in the guest, played by the test. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/vdagent.h"

enum { CLIPBOARD = 4, CAPABILITIES = 6, GRAB = 7, REQUEST = 8 };

static struct vmm_vdagent *agent;
static char *cut;
static size_t cut_len;

static void on_cut(void *opaque, const char *text, size_t len)
{
    free(cut);
    cut = malloc(len + 1);
    memcpy(cut, text, len);
    cut[len] = '\0';
    cut_len = len;
}

static int setup(void **state)
{
    cut = NULL;
    cut_len = 0;
    agent = vmm_vdagent_create(on_cut, NULL);
    return 0;
}

static int teardown(void **state)
{
    vmm_vdagent_free(agent);
    free(cut);
    return 0;
}

/* A message in chunks of @part bytes, given @step bytes at a time. */
static void say(uint32_t type, const void *body, uint32_t size, uint32_t part, size_t step)
{
    const uint32_t head[5] = {1, type, 0, 0, size};
    uint8_t *message = malloc(20 + size), *wire = malloc((20 + size) * 10ul), *to = wire;
    memcpy(message, head, 20);
    memcpy(message + 20, body, size);
    for (uint32_t at = 0; at < 20 + size; at += part) {
        const uint32_t n = 20 + size - at < part ? 20 + size - at : part, chunk[2] = {1, n};
        memcpy(to, chunk, 8);
        memcpy(to + 8, message + at, n);
        to += 8 + n;
    }
    for (uint8_t *p = wire; p < to; p += step)
        vmm_vdagent_input(agent, p, (size_t)(to - p) < step ? (size_t)(to - p) : step);
    free(wire);
    free(message);
}

/* The next message that is sent, chunks put together; @return its type, 0: none */
static uint32_t heard(uint8_t *body, uint32_t *size)
{
    static size_t at;
    struct rfb_buffer *out = vmm_vdagent_out(agent);
    uint32_t have = 0, head[5] = {0};
    uint8_t *message = malloc(out->size + 1);

    assert_false(out->failed);
    while (at < out->size && (have < 20 || have < 20 + head[4])) {
        uint32_t chunk[2];
        memcpy(chunk, out->data + at, 8);
        assert_int_equal(chunk[0], 1);
        assert_in_range(chunk[1], 1, 2048);
        memcpy(message + have, out->data + at + 8, chunk[1]);
        at += 8 + chunk[1];
        have += chunk[1];
        if (have >= 20)
            memcpy(head, message, 20);
    }
    if (have) {
        assert_int_equal(have, 20 + head[4]);
        memcpy(body, message + 20, head[4]);
        *size = head[4];
    }
    if (at == out->size)
        at = out->size = 0;
    free(message);
    return head[1];
}

static uint8_t body[3 << 20];
static uint32_t size;

static void greet(void)
{
    const uint32_t can[2] = {1, 1u << 5 | 1u << 3};

    assert_int_equal(heard(body, &size), CAPABILITIES);
    assert_int_equal(size, 8);
    assert_int_equal(body[0], 1);
    say(CAPABILITIES, can, sizeof(can), 2048, 4096);
    assert_int_equal(heard(body, &size), CAPABILITIES);
    assert_int_equal(body[0], 0);
}

static void test_to_guest(void **state)
{
    static char text[5000];
    const uint32_t want = 1, other = 2;

    memset(text, 'x', sizeof(text));
    vmm_vdagent_cut(agent, "early", 5);
    greet();
    assert_int_equal(heard(body, &size), GRAB);
    assert_int_equal(size, 4);
    vmm_vdagent_cut(agent, text, sizeof(text));
    assert_int_equal(heard(body, &size), GRAB);
    say(REQUEST, &want, 4, 2048, 4096);
    assert_int_equal(heard(body, &size), CLIPBOARD);
    assert_int_equal(size, 4 + sizeof(text));
    assert_memory_equal(body + 4, text, sizeof(text));
    say(REQUEST, &other, 4, 2048, 4096);
    assert_int_equal(heard(body, &size), CLIPBOARD);
    assert_int_equal(size, 4);
    assert_int_equal(heard(body, &size), 0);
}

static void test_from_guest(void **state)
{
    const uint32_t types[2] = {2, 1};
    static uint8_t data[4 + 9000] = {1};

    greet();
    say(CLIPBOARD, data, 10, 2048, 4096); /* not asked for */
    assert_null(cut);
    say(GRAB, types, 8, 2048, 4096);
    assert_int_equal(heard(body, &size), REQUEST);
    say(GRAB, types, 8, 2048, 4096); /* once is enough */
    assert_int_equal(heard(body, &size), 0);
    memset(data + 4, 'y', 9000);
    say(CLIPBOARD, data, sizeof(data), 2048, 1); /* byte by byte */
    assert_int_equal(cut_len, 9000);
    assert_int_equal(cut[8999], 'y');
    say(GRAB, types, 8, 7, 3); /* in small chunks */
    assert_int_equal(heard(body, &size), REQUEST);
    memcpy(data + 4, "\xc3\xbc\0z", 4);
    say(CLIPBOARD, data, 8, 1, 5);
    assert_string_equal(cut, "\xc3\xbc"); /* up to a NUL */
}

static void test_nonsense(void **state)
{
    const uint32_t huge[7] = {1, 20, 1, CLIPBOARD, 0, 0, 0xffffffff};
    static uint8_t zeros[100000];

    greet();
    say(99, "abc", 3, 2048, 4096);
    say(REQUEST, "", 0, 2048, 4096);
    assert_int_equal(heard(body, &size), CLIPBOARD);
    assert_int_equal(size, 0);
    /* A message of 4 GiB is read over, without room for it. */
    vmm_vdagent_input(agent, (const uint8_t *)huge, sizeof(huge));
    for (unsigned i = 0; i < 100; i++)
        vmm_vdagent_input(agent, zeros, sizeof(zeros));
    assert_null(cut);
    assert_int_equal(heard(body, &size), 0);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {T(test_to_guest), T(test_from_guest), T(test_nonsense)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
