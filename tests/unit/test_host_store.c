/* The host's database: objects, transactions, migrations, and what a refused write leaves. */
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

#include "host/store/store.h"

static char path[64];
static const struct mull_log quiet = {.level = MULL_LOG_ERROR};

static int setup(void **state)
{
    strcpy(path, "/tmp/mullion-store-XXXXXX");
    int fd = mkstemp(path);
    if (fd < 0)
        return -1;
    close(fd);
    struct mull_error err = {0};
    return store_open(path, &quiet, (struct store **)state, &err);
}

static int teardown(void **state)
{
    char name[80];
    store_close(*state);
    unlink(path);
    snprintf(name, sizeof(name), "%s-wal", path);
    unlink(name);
    snprintf(name, sizeof(name), "%s-shm", path);
    unlink(name);
    return 0;
}

static void reopen(void **state)
{
    struct mull_error err = {0};
    store_close(*state);
    assert_int_equal(store_open(path, &quiet, (struct store **)state, &err), 0);
}

static int put(struct store *s, const char *id, const char *name)
{
    struct mull_error err = {0};
    return store_put(s, KIND_MACHINE, id, json_pack("{s:s, s:s}", "id", id, "name", name), &err);
}

static void test_objects_survive(void **state)
{
    assert_int_equal(put(*state, "1", "one"), 0);
    assert_int_equal(put(*state, "2", "two"), 0);
    assert_int_equal(put(*state, "1", "uno"), 0);
    assert_int_equal(store_delete(*state, KIND_MACHINE, "2", NULL), 0);
    reopen(state);
    assert_string_equal(host_text(store_get(*state, KIND_MACHINE, "1"), "name"), "uno");
    assert_null(store_get(*state, KIND_MACHINE, "2"));
    assert_null(store_get(*state, KIND_IMAGE, "1"));
    assert_ptr_equal(store_find(*state, KIND_MACHINE, "name", "uno"),
                     store_get(*state, KIND_MACHINE, "1"));
}

static void test_versions_grow(void **state)
{
    put(*state, "1", "one");
    json_int_t first =
        json_integer_value(json_object_get(store_get(*state, KIND_MACHINE, "1"), "_version"));
    put(*state, "1", "uno");
    reopen(state);
    put(*state, "2", "two");
    json_int_t second =
        json_integer_value(json_object_get(store_get(*state, KIND_MACHINE, "1"), "_version"));
    json_int_t third =
        json_integer_value(json_object_get(store_get(*state, KIND_MACHINE, "2"), "_version"));
    assert_true(first < second && second < third);
}

static void test_rollback_takes_memory_along(void **state)
{
    struct mull_error err = {0};
    put(*state, "1", "one");
    assert_int_equal(store_begin(*state, &err), 0);
    put(*state, "1", "uno");
    put(*state, "2", "two");
    assert_int_equal(store_begin(*state, &err), 0); /* they nest */
    store_delete(*state, KIND_MACHINE, "1", NULL);
    assert_int_equal(store_end(*state, -EIO, &err), -EIO);
    assert_true(store_end(*state, 0, &err) != 0); /* an inner failure is everybody's */
    assert_string_equal(host_text(store_get(*state, KIND_MACHINE, "1"), "name"), "one");
    assert_null(store_get(*state, KIND_MACHINE, "2"));
    reopen(state);
    assert_string_equal(host_text(store_get(*state, KIND_MACHINE, "1"), "name"), "one");
    assert_int_equal(json_object_size(store_all(*state, KIND_MACHINE)), 1);
}

static void test_refused_write_changes_nothing(void **state)
{
    struct store *s = *state;
    struct mull_error err = {0};
    put(s, "1", "one");
    /* As a full disk does: no page more than there are. */
    char *pages = store_value(s, "PRAGMA page_count", NULL), sql[64];
    snprintf(sql, sizeof(sql), "PRAGMA max_page_count=%s", pages);
    free(pages);
    free(store_value(s, sql, NULL));
    char *big = calloc(1, 100001);
    memset(big, 'x', 100000);
    int ret =
        store_put(s, KIND_MACHINE, "1", json_pack("{s:s, s:s}", "id", "1", "name", big), &err);
    assert_int_equal(ret, -ENOSPC);
    assert_non_null(strstr(err.message, "full"));
    assert_string_equal(host_text(store_get(s, KIND_MACHINE, "1"), "name"), "one");
    free(big);
}

static void test_values_and_parameters(void **state)
{
    struct store *s = *state;
    assert_int_equal(store_run(s, NULL, "INSERT INTO passwords VALUES(?, ?)", "it's", "a;--", NULL),
                     0);
    char *hash = store_value(s, "SELECT hash FROM passwords WHERE user = ?", "it's", NULL);
    assert_string_equal(hash, "a;--");
    free(hash);
    assert_null(store_value(s, "SELECT hash FROM passwords WHERE user = ?", "other", NULL));
    struct mull_error err = {0};
    assert_int_equal(store_run(s, &err, "INSERT INTO nowhere VALUES(1)", NULL), -EIO);
}

static void migrate_from(int version, int expected)
{
    sqlite3 *db;
    struct mull_error err = {0};
    assert_int_equal(sqlite3_open(":memory:", &db), SQLITE_OK);
    if (version > STORE_VERSION)
        sqlite3_exec(db, "PRAGMA user_version=999", NULL, NULL, NULL);
    else
        assert_int_equal(store_migrate(db, version, &err), 0);
    assert_int_equal(store_migrate(db, STORE_VERSION, &err), expected);
    if (!expected)
        assert_int_equal(
            sqlite3_exec(db, "SELECT n FROM stats; SELECT doc FROM objects", NULL, NULL, NULL),
            SQLITE_OK);
    else
        assert_non_null(strstr(err.message, "newer version"));
    sqlite3_close(db);
}

static void test_every_version_migrates(void **state)
{
    for (int version = 0; version <= STORE_VERSION; version++)
        migrate_from(version, 0);
    migrate_from(STORE_VERSION + 1, -EPROTO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_objects_survive, setup, teardown),
        cmocka_unit_test_setup_teardown(test_versions_grow, setup, teardown),
        cmocka_unit_test_setup_teardown(test_rollback_takes_memory_along, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refused_write_changes_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_values_and_parameters, setup, teardown),
        cmocka_unit_test(test_every_version_migrates),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
