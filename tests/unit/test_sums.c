/*
 * The sums of an image server: which file an image's name means, and what is not taken for a line.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
/* cmocka.h wants the headers above */
#include <cmocka.h>

#include "host/sums.h"

#define A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define B "BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB"

static void finds_by_name(void **state)
{
    static const char sums[] = A "  web.raw\n" B " *web.qcow2\r\n" A "  web\n" B "  web-2.vmdk";
    char file[128], sum[65];

    assert_true(sums_find(sums, "web", file, sum)); /* qcow2 before raw */
    assert_string_equal(file, "web.qcow2");
    assert_string_equal(sum, B);
    assert_true(sums_find(sums, "web-2", file, sum)); /* no new line at the end */
    assert_string_equal(file, "web-2.vmdk");
    assert_false(sums_find(sums, "we", file, sum));
    assert_false(sums_find(sums, "eb", file, sum));
    assert_false(sums_find("", "web", file, sum));
    assert_false(sums_find("\n\n", "web", file, sum));
}

static void takes_no_other_lines(void **state)
{
    static const char *const wrong[] = {
        "aaaa  web.raw\n",
        A " web.raw\n",
        A "x  web.raw\n",
        A "--web.raw\n",
        A "  ../web.raw\n",
        A "  web.raw.xz\n",
        "g" A "  web.raw\n",
        A,
        A "  ",
        A "  \n",
    };
    char file[128], sum[65], long_line[400];

    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        if (sums_find(wrong[i], "web", file, sum))
            fail_msg("taken: %s", wrong[i]);
    memset(long_line, 'w', sizeof(long_line));
    memcpy(long_line, A "  ", 66);
    long_line[sizeof(long_line) - 1] = '\0';
    assert_false(sums_find(long_line, "web", file, sum));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_by_name),
        cmocka_unit_test(takes_no_other_lines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
