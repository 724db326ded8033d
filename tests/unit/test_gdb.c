/*
 * The GDB remote protocol against a fake machine: framing, registers, memory, breakpoints, threads.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "gdb_fake.h"
#include "vmm/gdb_registers.h"

struct fixture {
    struct fake fake;
    struct gdb_target target;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    f->target = fake_target;
    f->target.opaque = &f->fake;
    f->fake.held = true;
    for (unsigned i = 0; i < FAKE_CPUS; i++)
        mull_cpu_state_reset(&f->fake.state[i], i, i == 0);
    f->fake.session = gdb_session_create(&f->target);
    assert_non_null(f->fake.session);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    gdb_session_destroy(f->fake.session);
    free(f);
    return 0;
}

/* Send a packet. @return whether the conversation goes on */
static bool tell(struct fixture *f, const char *packet)
{
    static char text[65536];
    uint8_t sum = 0;

    for (const char *p = packet; *p; p++)
        sum = (uint8_t)(sum + (uint8_t)*p);
    int n = snprintf(text, sizeof(text), "$%s#%02x", packet, sum);
    f->fake.said_len = 0;
    f->fake.said[0] = '\0';
    return gdb_session_input(f->fake.session, text, (size_t)n);
}

/* The answer without its frame, which is checked. */
static const char *heard(struct fixture *f)
{
    char *p = f->fake.said;
    uint8_t sum = 0;

    if (*p == '+')
        p++;
    if (!*p)
        return NULL;
    assert_int_equal(*p, '$');
    char *end = strchr(p, '#');
    assert_non_null(end);
    for (char *c = p + 1; c < end; c++)
        sum = (uint8_t)(sum + (uint8_t)*c);
    assert_int_equal(strtoul(end + 1, NULL, 16), sum);
    *end = '\0';
    return p + 1;
}

static const char *ask(struct fixture *f, const char *packet)
{
    assert_true(tell(f, packet));
    return heard(f);
}

static void test_framing(void **state)
{
    struct fixture *f = *state;
    struct gdb_session *s = f->fake.session;

    assert_true(gdb_session_input(s, "+$qC#b", 6)); /* a packet in pieces */
    assert_int_equal(f->fake.said_len, 0);
    assert_true(gdb_session_input(s, "4", 1));
    assert_string_equal(f->fake.said, "+$QC1#c5");
    f->fake.said_len = 0;
    assert_true(gdb_session_input(s, "-", 1)); /* once more */
    assert_string_equal(f->fake.said, "$QC1#c5");
    f->fake.said_len = 0;
    assert_true(gdb_session_input(s, "$qC#00", 6)); /* a wrong sum */
    assert_string_equal(f->fake.said, "-");
    assert_string_equal(ask(f, "QStartNoAckMode"), "OK");
    assert_string_equal(ask(f, "qC"), "QC1");
    assert_int_equal(f->fake.said[0], '$');
    assert_string_equal(ask(f, "vMustReplyEmpty"), "");
    assert_string_equal(ask(f, ""), "");
    assert_false(gdb_session_input(s, "GET / HTTP/1.1", 14));
}

static void test_too_long(void **state)
{
    struct fixture *f = *state;
    static char junk[70000];

    memset(junk, 'm', sizeof(junk));
    junk[0] = '$';
    assert_false(gdb_session_input(f->fake.session, junk, sizeof(junk)));
}

static void test_registers(void **state)
{
    struct fixture *f = *state;
    struct mull_cpu_state *s = &f->fake.state[0];
    char *description = gdb_target_description();
    unsigned bytes = 0, number = 0;

    assert_non_null(strstr(description, "org.gnu.gdb.i386.core"));
    for (unsigned i = 0; i < gdb_register_count(); i++)
        bytes += gdb_register_size(i);
    assert_int_equal(strlen(ask(f, "g")), bytes * 2);
    s->gpr[MULL_RBX] = 0x1122334455667788;
    assert_string_equal(ask(f, "p1"), "8877665544332211"); /* GDB's order: RAX, RBX */
    assert_string_equal(ask(f, "P0=0100000000000080"), "OK");
    assert_true(s->gpr[MULL_RAX] == 0x8000000000000001ull);
    assert_string_equal(ask(f, "P10=00000000000000ff"), "E16"); /* RIP not canonical */
    assert_string_equal(ask(f, "P12=0000000000000000"), "E16"); /* CS */
    assert_string_equal(ask(f, "p999"), "E16");
    assert_string_equal(ask(f, "p"), "E16");
    assert_string_equal(ask(f, "P0=01"), "E16");
    /* Every register that can be written reads back; all others stay. */
    for (; number < gdb_register_count(); number++) {
        uint8_t in[GDB_REGISTER_BYTES], out[GDB_REGISTER_BYTES];
        struct mull_cpu_state before = *s;
        gdb_register_get(s, number, in);
        in[0] ^= 1;
        if (!gdb_register_set(s, number, in)) {
            assert_memory_equal(s, &before, sizeof(before));
            continue;
        }
        gdb_register_get(s, number, out);
        if (memcmp(in, out, gdb_register_size(number)))
            assert_int_equal(number, 34); /* the tag word also says what the registers hold */
    }
    assert_int_equal(s->xsave[512] & 3, 3); /* written components are there now */
    free(description);
}

static void test_initial_components(void **state)
{
    struct fixture *f = *state;
    struct mull_cpu_state *s = &f->fake.state[0];
    uint8_t bytes[GDB_REGISTER_BYTES];
    const unsigned st0 = 24, fctrl = 32, xmm0 = 40;

    /* What is not in XSTATE_BV is in its initial state, whatever its bytes are. */
    memset(s->xsave, 0xee, 512);
    memset(s->xsave + 512, 0, 8);
    gdb_register_get(s, fctrl, bytes);
    assert_int_equal(bytes[0] | bytes[1] << 8, 0x37f);
    gdb_register_get(s, st0, bytes);
    assert_int_equal(bytes[0], 0);
    gdb_register_get(s, xmm0, bytes);
    assert_int_equal(bytes[0], 0);
    bytes[3] = 7;
    assert_true(gdb_register_set(s, xmm0, bytes));
    gdb_register_get(s, xmm0 + 1, bytes);
    assert_int_equal(bytes[0], 0); /* not ee */
    assert_int_equal(s->xsave[512], 2);
}

static void test_memory(void **state)
{
    struct fixture *f = *state;

    assert_string_equal(ask(f, "M10,3:0102ff"), "OK");
    assert_string_equal(ask(f, "m10,3"), "0102ff");
    assert_string_equal(ask(f, "mffff,10"), "00"); /* as much as there is */
    assert_string_equal(ask(f, "m10000,1"), "E0e");
    assert_string_equal(ask(f, "M10000,1:00"), "E0e");
    assert_string_equal(ask(f, "Mffff,2:0000"), "E0e");
    assert_string_equal(ask(f, "M10,4:0102"), "E16");
    assert_string_equal(ask(f, "Mzz,1:00"), "E16");
    assert_string_equal(ask(f, "m10"), "E16");
    assert_string_equal(ask(f, "mffffffffffffffff1,1"), "E16");
    assert_string_equal(ask(f, "X20,0:"), "OK");
    assert_string_equal(ask(f, "X20,3:a}\x03z"), "OK"); /* 7d 03: 23h */
    assert_memory_equal(f->fake.memory + 0x20, "a#z", 3);
    assert_string_equal(ask(f, "X20,4:ab"), "E16");
    assert_int_equal(strlen(ask(f, "m0,ffffffff")) % 2, 0);
}

static void test_points(void **state)
{
    struct fixture *f = *state;
    char packet[64];

    assert_string_equal(ask(f, "Z0,1000,1"), "OK");
    assert_string_equal(ask(f, "Z0,1000,1"), "OK"); /* again: the same */
    assert_string_equal(ask(f, "Z4,2000,8"), "OK");
    assert_string_equal(ask(f, "Z2,2000,0"), "E16");
    assert_string_equal(ask(f, "Z2,2000,1001"), "E16");
    assert_string_equal(ask(f, "Z5,2000,1"), "");
    assert_string_equal(ask(f, "Z0"), "E16");
    assert_null(ask(f, "vCont;c"));
    assert_int_equal(f->fake.points, 2);
    assert_int_equal(f->fake.point[0].kind, MULL_DEBUG_EXEC);
    assert_int_equal(f->fake.point[1].kind, MULL_DEBUG_ACCESS);
    assert_int_equal(f->fake.point[1].length, 8);
    f->fake.held = true;
    gdb_session_stopped(f->fake.session, 1, &(struct mull_debug_hit){.point = f->fake.point[1]});
    assert_string_equal(heard(f), "T05thread:2;awatch:2000;");
    assert_string_equal(ask(f, "qC"), "QC2");
    assert_string_equal(ask(f, "z4,2000,8"), "OK");
    assert_string_equal(ask(f, "z4,2000,8"), "OK");
    for (unsigned i = 0; i < 7; i++) {
        snprintf(packet, sizeof(packet), "Z1,%x,1", 0x3000 + i);
        assert_string_equal(ask(f, packet), "OK");
    }
    assert_string_equal(ask(f, "Z1,4000,1"), "E1c"); /* the engine has no more */
}

static void test_running(void **state)
{
    struct fixture *f = *state;

    assert_string_equal(ask(f, "qfThreadInfo"), "m1,2");
    assert_string_equal(ask(f, "qsThreadInfo"), "l");
    assert_string_equal(ask(f, "Hg2"), "OK");
    assert_string_equal(ask(f, "Hg3"), "E16");
    assert_string_equal(ask(f, "T1"), "OK");
    assert_null(ask(f, "vCont;s:2"));
    assert_int_equal(f->fake.action[0], MULL_DEBUG_HOLD);
    assert_int_equal(f->fake.action[1], MULL_DEBUG_STEP);
    assert_string_equal(ask(f, "vCont;c"), "E10"); /* runs already */
    f->fake.held = true;
    gdb_session_stopped(f->fake.session, 1, &(struct mull_debug_hit){.step = true});
    assert_null(ask(f, "vCont;s:1;c")); /* after that one's answer */
    assert_int_equal(f->fake.action[0], MULL_DEBUG_STEP);
    assert_int_equal(f->fake.action[1], MULL_DEBUG_RUN);
    f->fake.said_len = 0;
    assert_true(gdb_session_input(f->fake.session, "\x03", 1));
    assert_string_equal(heard(f), "T02thread:1;");
    assert_string_equal(ask(f, "vCont;x"), "E16");
    assert_string_equal(ask(f, "vCont;c:7"), "E16");
    assert_string_equal(ask(f, "vCont"), "E16");
    assert_null(ask(f, "c123"));
    assert_true(f->fake.state[0].rip == 0x123);
    gdb_session_ended(f->fake.session, 5);
    assert_string_equal(heard(f), "W05");
}

static void test_leaving(void **state)
{
    struct fixture *f = *state;

    assert_false(tell(f, "D"));
    assert_string_equal(heard(f), "OK");
    assert_false(f->fake.killed);
    assert_false(tell(f, "vKill;1"));
}

static void test_kill(void **state)
{
    struct fixture *f = *state;

    assert_false(tell(f, "k"));
    assert_true(f->fake.killed);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_framing),   TEST(test_too_long),
        TEST(test_registers), TEST(test_initial_components),
        TEST(test_memory),    TEST(test_points),
        TEST(test_running),   TEST(test_leaving),
        TEST(test_kill),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
