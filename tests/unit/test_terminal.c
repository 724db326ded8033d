/*
 * The escape key, and raw mode on a pseudo-terminal: everything is as it was afterwards.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "cli/terminal.h"

static void press(struct escape *e, unsigned char key, enum escape_key want, const char *passed)
{
    unsigned char out[2];
    size_t count;
    assert_int_equal(escape_key(e, key, out, &count), want);
    assert_int_equal(count, strlen(passed));
    assert_memory_equal(out, passed, count);
}

static void test_escape(void **state)
{
    struct escape e = {0};
    press(&e, 'x', ESCAPE_NONE, "x");
    press(&e, 1, ESCAPE_NONE, "");
    press(&e, 'x', ESCAPE_QUIT, "");
    press(&e, 'c', ESCAPE_NONE, "c");
    press(&e, 1, ESCAPE_NONE, "");
    press(&e, 1, ESCAPE_NONE, "\1");
    press(&e, 'x', ESCAPE_NONE, "x");
    press(&e, 1, ESCAPE_NONE, "");
    press(&e, 'c', ESCAPE_MONITOR, "");
    press(&e, 1, ESCAPE_NONE, "");
    press(&e, 'q', ESCAPE_NONE, "\1q");
    press(&e, 1, ESCAPE_NONE, "");
    press(&e, 'h', ESCAPE_HELP, "");
}

static void test_raw(void **state)
{
    int master = posix_openpt(O_RDWR | O_NOCTTY);
    assert_true(master >= 0);
    assert_int_equal(grantpt(master) | unlockpt(master), 0);
    int slave = open(ptsname(master), O_RDWR | O_NOCTTY);
    assert_true(slave >= 0);
    struct termios before = {0}, now = {0};
    assert_int_equal(tcgetattr(slave, &before), 0);
    struct terminal t = {0};
    terminal_restore(&t); /* never raw: nothing */
    assert_int_equal(terminal_raw(&t, slave), 0);
    tcgetattr(slave, &now);
    assert_false(now.c_lflag & (ICANON | ECHO | ISIG));
    assert_false(now.c_iflag & (ICRNL | IXON));
    assert_int_equal(now.c_oflag, before.c_oflag);
    terminal_restore(&t);
    tcgetattr(slave, &now);
    assert_memory_equal(&now, &before, sizeof(now));
    close(slave);
    close(master);

    struct terminal none = {0};
    int null = open("/dev/null", O_RDWR);
    assert_false(terminal_usable(null));
    assert_true(terminal_raw(&none, null) < 0);
    close(null);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_escape),
        cmocka_unit_test(test_raw),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
