/*
 * ISO images (src/image/iso.c), read back by somebody else's reader: 7z, which reads the Joliet
 * tree, and by the fields of the first tree.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "image/iso.h"

static char path[] = "/tmp/mullion-iso-XXXXXX";

static void read_by_7z(const char *name, const void *expected, size_t length)
{
    char command[256];
    uint8_t *got = malloc(length + 2);

    snprintf(command, sizeof(command), "7z e -so '%s' '%s' 2>/dev/null", path, name);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    assert_int_equal(fread(got, 1, length + 2, f), length);
    assert_int_equal(pclose(f), 0);
    assert_memory_equal(got, expected, length);
    free(got);
}

static void is_read_by_7z(void **state)
{
    static uint8_t blob[300001];
    struct mull_iso_file files[] = {
        {"user-data", "#cloud-config\n", 14},
        {"meta-data", "instance-id: i\n", 15},
        {"empty", NULL, 0},
        {"a-file.with_a.rather-long-name.that-iso9660-alone-would-not-keep", blob, sizeof(blob)},
    };
    struct mull_error err = {0};

    for (size_t i = 0; i < sizeof(blob); i++)
        blob[i] = (uint8_t)(i * 2654435761u >> 13);
    assert_int_equal(mull_iso_write(path, "cidata", files, 4, &err), 0);
    if (access("/usr/bin/7z", X_OK))
        skip();
    for (unsigned i = 0; i < 4; i++)
        read_by_7z(files[i].name, files[i].data, files[i].length);
}

static void has_many_files(void **state)
{
    struct mull_iso_file files[MULL_ISO_FILES];
    char names[MULL_ISO_FILES][MULL_ISO_NAME + 1];
    struct mull_error err = {0};

    for (unsigned i = 0; i < MULL_ISO_FILES; i++) {
        snprintf(names[i], sizeof(names[i]), "%02u-%061u", (i * 7) % MULL_ISO_FILES, i);
        files[i] = (struct mull_iso_file){names[i], names[i], strlen(names[i])};
    }
    assert_int_equal(mull_iso_write(path, "MANY", files, MULL_ISO_FILES, &err), 0);
    if (access("/usr/bin/7z", X_OK))
        skip();
    read_by_7z(names[0], names[0], strlen(names[0]));
    read_by_7z(names[31], names[31], strlen(names[31]));
}

static void has_both_trees(void **state)
{
    struct mull_iso_file file = {"ovf-env.xml", "<x/>", 4};
    struct mull_error err = {0};
    uint8_t *image;
    size_t length;

    assert_int_equal(mull_iso_make("ovf_env", &file, 1, &image, &length, &err), 0);
    assert_int_equal(length % 2048, 0);
    assert_memory_equal(image + 16 * 2048, "\1CD001\1", 7);
    assert_memory_equal(image + 16 * 2048 + 40, "OVF_ENV   ", 10);
    assert_memory_equal(image + 17 * 2048 + 88, "%/E", 3);
    assert_memory_equal(image + 18 * 2048, "\377CD001\1", 7);
    /* Root folder: itself, its parent, the file. */
    const uint8_t *record = image + 24 * 2048 + 34 + 34;
    assert_int_equal(record[32], 14);
    assert_memory_equal(record + 33, "OVF_E_00.XML;1", 14);
    uint32_t sector = record[2] | record[3] << 8;
    assert_memory_equal(image + sector * 2048, "<x/>", 4);
    free(image);
}

static void refuses_what_does_not_fit(void **state)
{
    struct mull_iso_file bad[] = {{"", "", 0},         {"a/b", "", 0},
                                  {"..", "", 0},       {"a b", "", 0},
                                  {"\xc3\xa4", "", 0}, {"large", "", MULL_ISO_DATA + 1}};
    struct mull_iso_file many[MULL_ISO_FILES + 1];
    struct mull_error err = {0};
    uint8_t *image;
    size_t length;

    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_true(mull_iso_make("x", &bad[i], 1, &image, &length, &err) < 0);
    for (unsigned i = 0; i <= MULL_ISO_FILES; i++)
        many[i] = (struct mull_iso_file){"a", "", 0};
    assert_int_equal(mull_iso_make("x", many, MULL_ISO_FILES + 1, &image, &length, &err), -EFBIG);
    assert_int_equal(mull_iso_make("", many, 1, &image, &length, &err), -EINVAL);
    assert_int_equal(mull_iso_make("seventeen-letters", many, 1, &image, &length, &err), -EINVAL);
    assert_int_equal(mull_iso_write("/nonexistent/x.iso", "x", many, 1, &err), -ENOENT);
}

static int begin(void **state)
{
    int fd = mkstemp(path);

    return fd < 0 ? -1 : close(fd);
}

static int end(void **state)
{
    return unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(is_read_by_7z),
        cmocka_unit_test(has_many_files),
        cmocka_unit_test(has_both_trees),
        cmocka_unit_test(refuses_what_does_not_fit),
    };

    return cmocka_run_group_tests(tests, begin, end);
}
