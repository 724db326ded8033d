/* VMware's backdoor and GuestRPC, as open-vm-tools use them: registers in and out. */
#include "platform_world.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "device/vmware/tools.h"
#include "engine/cpu_state.h"

#define RPCI 0xc9435052u /* with the flag for cookies */
#define TCLO 0xcf4c4354u

struct fixture {
    struct world world; /* must be first */
    struct mull_device *device;
};

struct channel {
    unsigned id;
    uint64_t cookie[2];
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    const struct mull_tools_config cfg = {
        .memory = 512u << 20, .uuid = {1, 2, 3, 4, 5}, .lapic_hz = 1000000000};
    world_make(&f->world);
    assert_int_equal(mull_tools_create(&f->world.env, &cfg, &f->device, NULL), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    f->device->ops->destroy(f->device);
    world_free(&f->world);
    free(f);
    return 0;
}

/* One IN. @return the status, in ECX's upper half */
static unsigned call(struct fixture *f, const struct channel *c, unsigned type, uint32_t value,
                     uint64_t gpr[16])
{
    memset(gpr, 0, 16 * sizeof(*gpr));
    gpr[MULL_RAX] = MULL_BACKDOOR_MAGIC;
    gpr[MULL_RBX] = value;
    gpr[MULL_RCX] = 30 | type << 16;
    gpr[MULL_RDX] = MULL_BACKDOOR_PORT | (c ? c->id << 16 : 0);
    gpr[MULL_RSI] = c ? c->cookie[0] : 0;
    gpr[MULL_RDI] = c ? c->cookie[1] : 0;
    mull_tools_call(f->device, gpr);
    return (unsigned)gpr[MULL_RCX] >> 16;
}

static bool open_channel(struct fixture *f, uint32_t protocol, struct channel *c)
{
    uint64_t gpr[16];
    unsigned status = call(f, NULL, 0, protocol, gpr);
    c->id = (unsigned)gpr[MULL_RDX] >> 16;
    c->cookie[0] = gpr[MULL_RSI];
    c->cookie[1] = gpr[MULL_RDI];
    return status & 1;
}

static bool send(struct fixture *f, const struct channel *c, const void *data, size_t size)
{
    uint64_t gpr[16];
    if (!(call(f, c, 1, (uint32_t)size, gpr) & 1))
        return false;
    for (size_t at = 0; at < size; at += 4) {
        uint32_t piece = 0;
        memcpy(&piece, (const char *)data + at, size - at < 4 ? size - at : 4);
        if (!(call(f, c, 2, piece, gpr) & 1))
            return false;
    }
    return true;
}

/* @return the message, "" where there is none */
static const char *receive(struct fixture *f, const struct channel *c, char out[2048])
{
    uint64_t gpr[16];
    unsigned status = call(f, c, 3, 0, gpr);
    *out = '\0';
    if (!(status & 2))
        return out;
    assert_int_equal(gpr[MULL_RDX] >> 16, 1);
    size_t size = gpr[MULL_RBX];
    assert_true(size < 2000);
    for (size_t at = 0; at < size; at += 4) {
        assert_int_equal(call(f, c, 4, 1, gpr) & 1, 1);
        assert_int_equal(gpr[MULL_RDX] >> 16, 2);
        uint32_t piece = (uint32_t)gpr[MULL_RBX];
        memcpy(out + at, &piece, 4);
    }
    out[size] = '\0';
    assert_int_equal(call(f, c, 5, 1, gpr) & 1, 1);
    return out;
}

static void ask(struct fixture *f, const struct channel *c, const char *text, const char *wanted)
{
    char got[2048];
    assert_true(send(f, c, text, strlen(text)));
    assert_string_equal(receive(f, c, got), wanted);
}

static void test_commands(void **state)
{
    struct fixture *f = *state;
    uint64_t gpr[16] = {[MULL_RAX] = MULL_BACKDOOR_MAGIC, [MULL_RCX] = 10};
    mull_tools_call(f->device, gpr);
    assert_int_equal(gpr[MULL_RAX], 6);
    assert_int_equal(gpr[MULL_RBX], MULL_BACKDOOR_MAGIC);
    gpr[MULL_RCX] = 20;
    mull_tools_call(f->device, gpr);
    assert_int_equal(gpr[MULL_RAX], 512);
    gpr[MULL_RCX] = 45;
    mull_tools_call(f->device, gpr);
    uint64_t hz = gpr[MULL_RBX] << 32 | gpr[MULL_RAX];
    assert_int_equal(hz, mull_clock_tsc_hz(f->world.env.clock));
    assert_int_equal(gpr[MULL_RCX], 1000000000);
    gpr[MULL_RCX] = 19;
    mull_tools_call(f->device, gpr);
    assert_int_equal(gpr[MULL_RAX], 0x04030201);
    gpr[MULL_RCX] = 46;
    mull_tools_call(f->device, gpr);
    assert_int_equal(gpr[MULL_RAX], MULL_BACKDOOR_MAGIC);
    assert_true(gpr[MULL_RDX] > 1700000000);
    gpr[MULL_RCX] = 9999;
    mull_tools_call(f->device, gpr);
    assert_int_equal(gpr[MULL_RAX], UINT32_MAX);
}

static void test_guest_info(void **state)
{
    struct fixture *f = *state;
    struct channel c, d;
    struct mull_tools_info info;
    assert_true(open_channel(f, RPCI, &c));
    ask(f, &c, "info-set guestinfo.a some words", "1 ");
    ask(f, &c, "info-get guestinfo.a", "1 some words");
    ask(f, &c, "info-get guestinfo.b", "0 No value found");
    ask(f, &c, "info-set machine.a x", "0 Unknown variable");
    ask(f, &c, "what is this", "0 Unknown command");
    ask(f, &c, "tools.set.version 12352", "1 ");
    ask(f, &c, "SetGuestInfo  1 host\x01name", "1 ");
    ask(f, &c, "SetGuestInfo  5 Debian GNU/Linux 12", "1 ");
    ask(f, &c, "SetGuestInfo  11 more", "0 Unknown type");
    ask(f, &c, "info-set guestinfo.ip no address", "1 ");
    mull_tools_info(f->device, &info);
    assert_int_equal(info.address_count, 0);
    ask(f, &c, "info-set guestinfo.ip 10.1.2.3", "1 ");
    mull_tools_info(f->device, &info);
    assert_int_equal(info.address_count, 1);
    assert_string_equal(info.address[0], "10.1.2.3");
    assert_string_equal(info.hostname, "host?name");
    assert_string_equal(info.os, "Debian GNU/Linux 12");
    assert_int_equal(info.version >> 10, 12);
    assert_false(info.running);
    /* Another program of the guest has neither the number nor the cookies. */
    uint64_t gpr[16];
    d = c;
    d.cookie[0] ^= 1;
    assert_int_equal(call(f, &d, 1, 4, gpr), 4);
    d = c;
    d.id = 7;
    assert_int_equal(call(f, &d, 1, 4, gpr), 4);
    d.id = 0xffff;
    assert_int_equal(call(f, &d, 1, 4, gpr), 4);
    assert_int_equal(call(f, &c, 6, 0, gpr), 1);
    assert_int_equal(call(f, &c, 1, 4, gpr), 4);
    f->device->ops->reset(f->device);
    mull_tools_info(f->device, &info);
    assert_string_equal(info.hostname, "");
}

static void test_bounds(void **state)
{
    struct fixture *f = *state;
    struct channel c[9];
    uint64_t gpr[16];
    char text[1100];
    for (unsigned i = 0; i < 8; i++)
        assert_true(open_channel(f, RPCI, &c[i]));
    assert_false(open_channel(f, RPCI, &c[8]));
    assert_false(open_channel(f, 0x12345678, &c[8]));
    assert_int_equal(call(f, &c[0], 1, (64u << 10) + 1, gpr) & 1, 0);
    assert_int_equal(call(f, &c[0], 1, UINT32_MAX, gpr) & 1, 0);
    assert_int_equal(call(f, &c[0], 2, 0, gpr) & 1, 0); /* a piece of nothing */
    assert_int_equal(call(f, &c[0], 4, 1, gpr) & 1, 0); /* nothing to fetch */
    assert_int_equal(call(f, &c[0], 77, 1, gpr) & 1, 0);
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    memcpy(text, "info-set guestinfo.b ", 21);
    ask(f, &c[0], text, "0 Value too long");
    for (unsigned i = 0; i < 32; i++) {
        snprintf(text, sizeof(text), "info-set guestinfo.n%u v", i);
        ask(f, &c[1], text, "1 ");
    }
    ask(f, &c[1], "info-set guestinfo.one-more v", "0 Too many variables");
    /* A message that is begun again is the new one. */
    assert_int_equal(call(f, &c[2], 1, 100, gpr) & 1, 1);
    ask(f, &c[2], "info-get guestinfo.n3", "1 v");
}

static void test_service(void **state)
{
    struct fixture *f = *state;
    struct channel c;
    struct mull_tools_info info;
    char got[2048];
    assert_int_equal(mull_tools_power(f->device, MULL_TOOLS_HALT), -ENOTCONN);
    assert_true(open_channel(f, TCLO, &c));
    assert_true(send(f, &c, "", 0));
    assert_string_equal(receive(f, &c, got), "reset");
    assert_true(send(f, &c, "OK ATR toolbox", 14));
    assert_string_equal(receive(f, &c, got), "Capabilities_Register");
    assert_true(send(f, &c, "OK ", 3));
    assert_string_equal(receive(f, &c, got), "Set_Option broadcastIP 1");
    assert_true(send(f, &c, "OK ", 3));
    assert_string_equal(receive(f, &c, got), "");
    mull_tools_info(f->device, &info);
    assert_true(info.running);
    assert_int_equal(mull_tools_power(f->device, MULL_TOOLS_REBOOT), 0);
    assert_true(send(f, &c, "", 0));
    assert_string_equal(receive(f, &c, got), "OS_Reboot");
    assert_int_equal(mull_tools_power(f->device, MULL_TOOLS_HALT), 0);
    assert_string_equal(receive(f, &c, got), "OS_Halt");
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(mull_tools_power(f->device, MULL_TOOLS_HALT), 0);
    assert_int_equal(mull_tools_power(f->device, MULL_TOOLS_HALT), -EBUSY);
    /* The tools open another channel before they have answered: it is asked again. */
    uint64_t gpr[16];
    assert_int_equal(call(f, &c, 6, 0, gpr), 1);
    assert_int_equal(mull_tools_power(f->device, MULL_TOOLS_HALT), 0);
    assert_true(open_channel(f, TCLO, &c));
    assert_string_equal(receive(f, &c, got), "reset");
    assert_true(send(f, &c, "OK ATR toolbox", 14));
    receive(f, &c, got);
    receive(f, &c, got);
    assert_string_equal(receive(f, &c, got), "OS_Halt");
    assert_true(send(f, &c, "OK ", 3));
    assert_true(send(f, &c, "OK ATR toolbox", 14));
    receive(f, &c, got);
    receive(f, &c, got);
    assert_string_equal(receive(f, &c, got), "");
}

/* A program that says it is the tools' service. */
static void serve(struct fixture *f, struct channel *c)
{
    char got[2048];
    assert_true(open_channel(f, TCLO, c));
    assert_string_equal(receive(f, c, got), "reset");
    assert_true(send(f, c, "OK ATR toolbox", 14));
    assert_string_equal(receive(f, c, got), "Capabilities_Register");
    assert_true(send(f, c, "OK ", 3));
    assert_string_equal(receive(f, c, got), "Set_Option broadcastIP 1");
    assert_true(send(f, c, "OK ", 3));
    assert_string_equal(receive(f, c, got), "");
}

static void answered(struct fixture *f, uint32_t id, const char *wanted, size_t size)
{
    uint8_t *answer = NULL;
    size_t got = 0;
    assert_int_equal(mull_tools_receive(f->device, id, &answer, &got), 0);
    assert_int_equal(got, size);
    assert_memory_equal(answer, wanted, size);
    mull_tools_wipe(answer, got);
    assert_int_equal(mull_tools_receive(f->device, id, &answer, &got), -ENOENT);
}

/* The host's own messages, bytes of any kind. */
static void test_relay(void **state)
{
    struct fixture *f = *state;
    struct channel c;
    uint32_t one, two, three;
    uint8_t *answer;
    size_t size;
    char got[2048];
    static char large[(64u << 10) + 1];
    assert_int_equal(mull_tools_send(f->device, "x", 1, &one), -ENOTCONN);
    serve(f, &c);
    assert_int_equal(mull_tools_send(f->device, "", 0, &one), -EMSGSIZE);
    assert_int_equal(mull_tools_send(f->device, large, sizeof(large), &one), -EMSGSIZE);
    assert_int_equal(mull_tools_send(f->device, "ask\0one", 7, &one), 0);
    assert_int_equal(mull_tools_send(f->device, "two", 3, &two), 0);
    assert_int_equal(mull_tools_receive(f->device, one, &answer, &size), -EAGAIN);
    assert_int_equal(mull_tools_receive(f->device, two + 1, &answer, &size), -ENOENT);
    memset(got, 0, sizeof(got));
    receive(f, &c, got);
    assert_memory_equal(got, "ask\0one", 8);
    assert_string_equal(receive(f, &c, got), ""); /* one at a time */
    assert_int_equal(mull_tools_receive(f->device, one, &answer, &size), -EAGAIN);
    assert_true(send(f, &c, "OK a\0b", 6));
    answered(f, one, "OK a\0b", 6);
    /* What we ask for ourselves goes first, and its answer is nobody else's. */
    assert_int_equal(mull_tools_power(f->device, MULL_TOOLS_HALT), 0);
    assert_string_equal(receive(f, &c, got), "OS_Halt");
    assert_true(send(f, &c, "OK ", 3));
    assert_string_equal(receive(f, &c, got), "two");
    assert_true(send(f, &c, "", 0));
    answered(f, two, "", 0);
    /* Nobody wants it any more: before it is sent, and after. */
    assert_int_equal(mull_tools_send(f->device, "one", 3, &one), 0);
    assert_int_equal(mull_tools_send(f->device, "two", 3, &two), 0);
    mull_tools_drop(f->device, one);
    assert_string_equal(receive(f, &c, got), "two");
    mull_tools_drop(f->device, two);
    assert_true(send(f, &c, "OK late", 7));
    assert_int_equal(mull_tools_receive(f->device, two, &answer, &size), -ENOENT);
    /* Answers that nobody fetches make room; questions do not. */
    for (unsigned i = 0; i < 10; i++) {
        assert_int_equal(mull_tools_send(f->device, "ask", 3, &three), 0);
        assert_string_equal(receive(f, &c, got), "ask");
        assert_true(send(f, &c, "OK ", 3));
    }
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(mull_tools_send(f->device, "ask", 3, &three), 0);
    assert_int_equal(mull_tools_send(f->device, "ask", 3, &one), -EBUSY);
}

static void test_relay_and_strangers(void **state)
{
    struct fixture *f = *state;
    struct channel c, stranger;
    uint32_t one, two;
    uint8_t *answer;
    size_t size;
    uint64_t gpr[16];
    char got[2048];
    serve(f, &c);
    assert_int_equal(mull_tools_send(f->device, "secret", 6, &one), 0);
    assert_int_equal(mull_tools_send(f->device, "secret", 6, &two), 0);
    assert_string_equal(receive(f, &c, got), "secret");
    /* A session's channel gets none. */
    assert_true(open_channel(f, TCLO, &stranger));
    receive(f, &stranger, got);
    assert_true(send(f, &stranger, "OK ATR toolbox-dnd", 18));
    assert_string_equal(receive(f, &stranger, got), "");
    /* Somebody else who says that it is the service: from then on nobody is asked. */
    assert_true(send(f, &stranger, "OK ATR toolbox", 14));
    assert_int_equal(mull_tools_send(f->device, "secret", 6, &two), -EEXIST);
    for (unsigned i = 0; i < 4; i++) {
        assert_string_not_equal(receive(f, &stranger, got), "secret");
        assert_true(send(f, &stranger, "OK ", 3));
    }
    /* The service goes: what it was asked is lost. */
    assert_int_equal(call(f, &c, 6, 0, gpr), 1);
    assert_int_equal(mull_tools_receive(f->device, one, &answer, &size), -ECONNRESET);
    assert_int_equal(mull_tools_receive(f->device, one, &answer, &size), -ENOENT);
    f->device->ops->reset(f->device);
    assert_int_equal(mull_tools_receive(f->device, two, &answer, &size), -ENOENT);
    assert_int_equal(mull_tools_send(f->device, "x", 1, &one), -ENOTCONN);
}

static void test_addresses(void **state)
{
    static const uint8_t good[] = {
        0, 0, 0, 3, 0,   0,   0,   1,   0,    0,    0, 1, /* version 3, is there, one card */
        0, 0, 0, 5, 'a', 'b', 'c', 'd', 'e',  0,    0, 0, /* MAC */
        0, 0, 0, 2,                                       /* two addresses */
        0, 0, 0, 1, 0,   0,   0,   4,   10,   0,    2, 15, 0, 0, 0, 24, /* 10.0.2.15/24 */
        0, 0, 0, 1, 0,   0,   0,   4,   0,    0,    0, 0,               /* origin, no status */
        0, 0, 0, 2, 0,   0,   0,   16,  0xfe, 0x80, 0, 0,  0, 0, 0, 0,  0, 0,
        0, 0, 0, 0, 0,   1,   0,   0,   0,    64,   0, 0,  0, 0, 0, 0,  0, 0, /* fe80::1/64 */
        0, 0, 0, 0, 0,   0,   0,   0,   0,    0,    0, 0,  0, 0, 0, 0, /* no DNS, WINS, DHCP */
    };
    char out[MULL_TOOLS_ADDRESSES][46];
    assert_int_equal(mull_tools_addresses(good, sizeof(good), out), 2);
    assert_string_equal(out[0], "10.0.2.15");
    assert_string_equal(out[1], "fe80::1");
    for (size_t n = 0; n < sizeof(good); n++)
        assert_int_equal(mull_tools_addresses(good, n, out), -EPROTO);
    uint8_t bad[sizeof(good)];
    for (size_t i = 0; i < sizeof(good); i++) { /* whatever is wrong: no crash */
        memcpy(bad, good, sizeof(good));
        bad[i] = 0xff;
        assert_true(mull_tools_addresses(bad, sizeof(bad), out) <= 2);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_commands, setup, teardown),
        cmocka_unit_test_setup_teardown(test_guest_info, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bounds, setup, teardown),
        cmocka_unit_test_setup_teardown(test_service, setup, teardown),
        cmocka_unit_test_setup_teardown(test_relay, setup, teardown),
        cmocka_unit_test_setup_teardown(test_relay_and_strangers, setup, teardown),
        cmocka_unit_test(test_addresses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
