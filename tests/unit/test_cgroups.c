/* The control groups of machines, in a tree of plain files that stands for the kernel's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host/cgroups.h"
#include "host/host.h"

#define ID "01234567-89ab-4cde-8f01-23456789abcd"

static char base[64];

static void write_file(const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof(path), "%s/%s", base, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void assert_file(const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof(path), "%s/%s", base, name);
    char *got = host_read_file(path, 4096, NULL, NULL);
    assert_non_null(got);
    assert_string_equal(got, text);
    free(got);
}

static int make(void **state)
{
    strcpy(base, "/tmp/mull-cgroup-XXXXXX");
    assert_non_null(mkdtemp(base));
    return 0;
}

static int clean(void **state)
{
    return host_remove_tree(base);
}

static void assert_found(const char *cgroup, const char *mountinfo, const char *expected)
{
    char *got = cgroups_find(cgroup, mountinfo);
    if (expected) {
        assert_non_null(got);
        assert_string_equal(got, expected);
    } else {
        assert_null(got);
    }
    free(got);
}

static void finds_what_is_handed_over(void **state)
{
    static const char mounts[] =
        "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        "30 22 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
    assert_found("0::/system.slice/mulliond.service/daemon\n", mounts,
                 "/sys/fs/cgroup/system.slice/mulliond.service");
    assert_found("12:cpu:/x\n0::/a/daemon", mounts, "/sys/fs/cgroup/a");
    assert_found("0::/system.slice/mulliond.service\n", mounts, NULL);
    assert_found("0::/daemon\n", mounts, NULL); /* the host's own root is nobody's to take */
    assert_found("0::/../x/daemon\n", mounts, NULL);
    assert_found("4:cpu:/a/daemon\n", mounts, NULL);
    assert_found("0::/a/daemon\n", "30 22 0:26 /sub /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
                 NULL); /* a part of it is mounted: paths would be wrong */
    assert_found("0::/a/daemon\n", "30 22 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n",
                 NULL);
    assert_found("", "", NULL);
    assert_found("0::", "- cgroup2 ", NULL);
}

static void finds_the_unit(void **state)
{
    static const char mounts[] =
        "30 22 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
    static const struct {
        const char *cgroup, *unit;
    } rows[] = {{"0::/system.slice/a.service\n", "/sys/fs/cgroup/system.slice/a.service"},
                {"0::/system.slice/a.service/.control\n", "/sys/fs/cgroup/system.slice/a.service"},
                {"0::/\n", NULL},
                {"0::a\n", NULL},
                {"0::/../a\n", NULL},
                {"4:cpu:/a\n", NULL}};
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char *got = cgroups_unit(rows[i].cgroup, mounts);
        if (rows[i].unit)
            assert_string_equal(got, rows[i].unit);
        else
            assert_null(got);
        free(got);
    }
    assert_null(cgroups_delegated("0::/nobody/has/handed/this/over\n", mounts));
}

static void settles_in_a_unit(void **state)
{
    struct mull_error err = {0};
    char path[256];
    assert_int_equal(cgroups_settle(base, &err), -ENOENT); /* no control group */
    write_file("cgroup.procs", "12\n345\n");
    snprintf(path, sizeof(path), "%s/daemon", base);
    assert_int_equal(cgroups_settle(base, &err),
                     -ENOENT); /* the kernel would have made the file in it */
    assert_int_equal(access(path, F_OK), 0);
    write_file("daemon/cgroup.procs", "");
    assert_int_equal(cgroups_settle(base, &err), 0);
    assert_file("daemon/cgroup.procs", "345"); /* one a write */
    write_file("cgroup.procs", "");
    assert_int_equal(cgroups_settle(base, &err), 0);

    assert_int_equal(cgroups_release(base, &err), 0); /* nothing is divided */
    write_file("cgroup.subtree_control", "cpu memory io\n");
    assert_int_equal(cgroups_release(base, &err), 0);
    assert_file("cgroup.subtree_control", "-io"); /* the last of three */
}

static void divides_what_can_be_divided(void **state)
{
    struct cgroups c;
    struct mull_error err = {0};
    const struct cgroup_amounts amounts = {
        .cpu_weight = 250, .cpu_max = 20, .io_weight = 9, .memory_min = 1048576};
    struct cgroup_amounts free_of_limits = amounts;
    char path[256];
    assert_int_equal(cgroups_open(&c, base, &err), -ENOTSUP); /* a plain folder */
    assert_non_null(strstr(err.message, "no control group"));
    write_file("cgroup.controllers", "cpuset cpu io pids\n");
    write_file("cgroup.subtree_control", "");
    assert_int_equal(cgroups_open(&c, base, &err), 0);
    assert_true(c.cpu && c.io && !c.memory && cgroups_any(&c));
    assert_int_equal(cgroups_place(&c, ID, 1234),
                     -ENOENT); /* the kernel would have made the file */
    write_file("vm-" ID "/cgroup.procs", "");
    write_file("vm-" ID "/cpu.weight", "100\n");
    write_file("vm-" ID "/cpu.max", "max 100000\n");
    write_file("vm-" ID "/io.weight", "default 100\n");
    write_file("vm-" ID "/memory.min", "0\n");
    assert_int_equal(cgroups_place(&c, ID, 1234), 0);
    assert_file("vm-" ID "/cgroup.procs", "1234");
    assert_int_equal(cgroups_set(&c, ID, &amounts), 0);
    assert_file("vm-" ID "/cpu.weight", "250");
    assert_file("vm-" ID "/cpu.max", "20000 100000");
    assert_file("vm-" ID "/io.weight", "default 9");
    assert_file("vm-" ID "/memory.min", "0\n"); /* not ours to divide here */
    assert_int_equal(cgroups_set(&c, "nobody", &amounts), -ENOENT);
    free_of_limits.cpu_max = 0;
    assert_int_equal(cgroups_set(&c, ID, &free_of_limits), 0);
    assert_file("vm-" ID "/cpu.max", "max 100000");
    cgroups_close(&c);
    write_file("cgroup.controllers", "memory cpuset cpu io pids\n");
    write_file("memory.min", "0");
    snprintf(path, sizeof(path), "%s/daemon", base);
    assert_int_equal(mkdir(path, 0755), 0);
    write_file("daemon/cpu.weight", "100");
    write_file("daemon/io.weight", "default 100");
    assert_int_equal(cgroups_open(&c, base, &err), 0); /* and what runs stays where it is */
    assert_true(c.memory);
    assert_file("daemon/cpu.weight", "500");
    assert_file("daemon/io.weight", "default 500");
    assert_int_equal(cgroups_set(&c, ID, &amounts), 0);
    assert_file("vm-" ID "/memory.min", "1048576");
    assert_int_equal(cgroups_set_all(&c, 7), 0);
    assert_file("memory.min", "7");
    cgroups_close(&c);
    assert_false(cgroups_any(&c));
}

static void leaves_no_empty_group(void **state)
{
    struct cgroups c;
    struct mull_error err = {0};
    char path[256], other[256];
    write_file("cgroup.controllers", "\n");
    snprintf(path, sizeof(path), "%s/vm-%s", base, ID);
    snprintf(other, sizeof(other), "%s/other", base);
    assert_int_equal(mkdir(path, 0755), 0);
    assert_int_equal(mkdir(other, 0755), 0);
    assert_int_equal(cgroups_open(&c, base, &err), 0);
    assert_false(cgroups_any(&c));
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(access(other, F_OK), 0);
    assert_int_equal(mkdir(path, 0755), 0);
    cgroups_remove(&c, ID);
    assert_int_equal(access(path, F_OK), -1);
    cgroups_close(&c);
    cgroups_remove(&c, ID); /* without any: nothing happens */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_what_is_handed_over),
        cmocka_unit_test(finds_the_unit),
        cmocka_unit_test_setup_teardown(settles_in_a_unit, make, clean),
        cmocka_unit_test_setup_teardown(divides_what_can_be_divided, make, clean),
        cmocka_unit_test_setup_teardown(leaves_no_empty_group, make, clean),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
