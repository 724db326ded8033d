/* The host without its server: users, sessions, tokens and grants; tasks; what is small. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "host/auth.h"
#include "host/daemon.h"
#include "host/events.h"
#include "host/machines.h"
#include "host/store/store.h"
#include "host/tasks.h"

static char folder[64];

static void say_nothing(void *opaque, enum mull_log_level level, const char *line) {}

static int setup(void **state)
{
    struct host *host = calloc(1, sizeof(*host));
    struct mull_error err = {0};
    strcpy(folder, "/tmp/mullion-host-XXXXXX");
    if (!host || !mkdtemp(folder))
        return -1;
    host->log.sink = say_nothing;
    host->lock_fd = -1;
    host->places.data = host_path(folder, "data");
    host->places.runtime = host_path(folder, "run");
    host->options.vmm = strdup("/bin/false");
    host->options.sessions_max = 2;
    host->options.session_minutes = 10;
    if (host_open(host, &err)) {
        print_error("%s\n", err.message);
        return -1;
    }
    *state = host;
    return 0;
}

static int teardown(void **state)
{
    struct host *host = *state;
    tasks_close(host);
    host_close(host);
    host_options_free(&host->options);
    host_places_free(&host->places);
    host_remove_tree(folder);
    free(host);
    return 0;
}

static void add_user(struct host *host, const char *name, const char *role, const char *password)
{
    struct host_problem p;
    char *hash = auth_hash(password, &p);
    assert_non_null(hash);
    assert_memory_equal(hash, "$y$", 3); /* yescrypt */
    host_lock(host);
    assert_int_equal(auth_set_hash(host, name, hash, NULL), 0);
    assert_int_equal(store_put(host->store, KIND_USER, name,
                               json_pack("{s:s, s:s, s:b, s:[s]}", "name", name, "role", role,
                                         "enabled", 1, "groups", "team"),
                               NULL),
                     0);
    host_unlock(host);
    free(hash);
}

static void test_first_password(void **state)
{
    struct host *host = *state;
    char *path = host_path(host->places.data, "initial-password"), token[65];
    char *password = host_read_file(path, 100, NULL, NULL);
    struct principal who;
    struct host_problem p;
    assert_non_null(password);
    password[strcspn(password, "\n")] = '\0';
    assert_int_equal(auth_login(host, "admin", password, "here", &who, token, &p), 0);
    assert_int_equal(who.role, ROLE_ADMINISTRATOR);
    assert_int_equal(auth_login(host, "admin", "other", "here", &who, token, &p), -1);
    assert_int_equal(p.kind, HOST_UNAUTHENTICATED);
    /* Another password, and the file is gone. */
    char *hash = auth_hash("something else", &p);
    host_lock(host);
    auth_set_hash(host, "admin", hash, NULL);
    host_unlock(host);
    assert_int_equal(access(path, F_OK), -1);
    free(hash);
    free(password);
    free(path);
}

static void test_sessions_end(void **state)
{
    struct host *host = *state;
    struct principal who;
    struct host_problem p;
    char token[3][65];
    add_user(host, "eve", "viewer", "a password");
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(auth_login(host, "eve", "a password", "here", &who, token[i], &p), 0);
        /* Which session is the oldest is told by its time. */
        nanosleep(&(struct timespec){0, 5000000}, NULL);
    }
    host_lock(host);
    assert_int_equal(auth_session(host, token[0], &who), -1); /* two are allowed */
    assert_int_equal(auth_session(host, token[1], &who), 0);
    assert_int_equal(auth_session(host, token[2], &who), 0);
    assert_int_equal(who.role, ROLE_VIEWER);
    assert_true(auth_still_good(host, &who));
    assert_int_equal(auth_logout(host, &who, NULL), 0);
    assert_false(auth_still_good(host, &who));
    assert_int_equal(auth_session(host, token[2], &who), -1);
    assert_int_equal(auth_session(host, "short", &who), -1);
    /* Nothing of a token is in the database. */
    char *found =
        store_value(host->store, "SELECT hash FROM sessions WHERE hash = ?", token[1], NULL);
    assert_null(found);
    host_unlock(host);
}

static void test_tokens_are_capped(void **state)
{
    struct host *host = *state;
    struct principal who;
    struct host_problem p;
    char secret[72], old[72];
    add_user(host, "op", "operator", "a password");
    host_lock(host);
    assert_non_null(auth_make_token(host, "op", ROLE_VIEWER, "t", 0, secret, &p));
    assert_int_equal(auth_token(host, secret, &who), 0);
    assert_int_equal(who.role, ROLE_VIEWER);
    assert_true(who.capped);
    assert_non_null(auth_make_token(host, "op", ROLE_OPERATOR, "t", host_now() - 1, old, &p));
    assert_int_equal(auth_token(host, old, &who), -1);
    assert_int_equal(auth_delete_user(host, "op", &p), 0);
    assert_int_equal(auth_token(host, secret, &who), -1);
    assert_int_equal(json_object_size(store_all(host->store, KIND_TOKEN)), 0);
    host_unlock(host);
}

static void add_machine(struct host *host, const char *id, const char *in)
{
    store_put(host->store, KIND_MACHINE, id,
              json_pack("{s:s, s:s, s:s, s:s, s:{}, s:s}", "id", id, "name", id, "folder", in,
                        "datastore", "d", "config", "_lifecycle", "ready"),
              NULL);
}

static void grant(struct host *host, const char *id, const char *subject, const char *role,
                  const char *object)
{
    store_put(host->store, KIND_GRANT, id,
              json_pack("{s:s, s:s, s:s, s:s}", "id", id, "subject", subject, "role", role,
                        "object", object),
              NULL);
}

static void test_grants(void **state)
{
    struct host *host = *state;
    struct principal who = {.user = "eve", .role = ROLE_NONE};
    add_user(host, "eve", "none", "a password");
    host_lock(host);
    add_machine(host, "m1", "/a/b");
    add_machine(host, "m2", "/ab");
    json_t *m1 = store_get(host->store, KIND_MACHINE, "m1");
    assert_false(auth_sees(host, &who, KIND_MACHINE, "m1"));
    grant(host, "g1", "user:eve", "viewer", "folder:/a");
    assert_int_equal(auth_role_on(host, &who, KIND_MACHINE, m1), ROLE_VIEWER);
    assert_false(auth_sees(host, &who, KIND_MACHINE, "m2"));
    grant(host, "g2", "group:team", "operator", "machine:m1");
    assert_int_equal(auth_role_on(host, &who, KIND_MACHINE, m1), ROLE_OPERATOR);
    grant(host, "g3", "user:adam", "administrator", "machine:m1");
    grant(host, "g4", "group:other", "administrator", "machine:m1");
    assert_int_equal(auth_role_on(host, &who, KIND_MACHINE, m1), ROLE_OPERATOR);
    who.capped = true;
    assert_int_equal(auth_role_on(host, &who, KIND_MACHINE, m1), ROLE_NONE);
    host_unlock(host);
}

/* ---- Tasks ---- */

static int good(struct task *t, struct host_problem *p)
{
    task_progress(t, "half", 1, 2);
    t->result = json_pack("{s:s}", "object", "image:x");
    return 0;
}

static int bad(struct task *t, struct host_problem *p)
{
    return host_problem(p, HOST_NO_SPACE, "/x", "no room");
}

static int endless(struct task *t, struct host_problem *p)
{
    while (!task_progress(t, "going on", 0, 0))
        nanosleep(&(struct timespec){0, 1000000}, NULL);
    return host_problem(p, HOST_CONFLICT, NULL, "stopped");
}

static char *begin(struct host *host, int (*fn)(struct task *, struct host_problem *))
{
    struct host_problem p;
    struct task_request r = {.type = "test", .user = "me", .cancellable = true, .fn = fn};
    json_t *task = task_start(host, &r, &p);
    assert_non_null(task);
    return strdup(host_text(task, "id"));
}

/* Lock held. */
static const char *wait_for(struct host *host, const char *id)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += 60;
    for (;;) {
        json_t *task = store_get(host->store, KIND_TASK, id);
        const char *state = host_text(task, "state");
        if (strcmp(state, "queued") && strcmp(state, "running"))
            return state;
        assert_int_not_equal(pthread_cond_timedwait(&host->changed, &host->lock, &until),
                             ETIMEDOUT);
    }
}

static void test_tasks_end(void **state)
{
    struct host *host = *state;
    host_lock(host);
    char *one = begin(host, good), *two = begin(host, bad), *three = begin(host, endless);
    assert_string_equal(wait_for(host, one), "succeeded");
    json_t *task = store_get(host->store, KIND_TASK, one);
    assert_string_equal(host_text(json_object_get(task, "result"), "object"), "image:x");
    assert_int_equal(json_integer_value(json_object_get(task, "progress")), 100);
    assert_string_equal(wait_for(host, two), "failed");
    task = store_get(host->store, KIND_TASK, two);
    assert_string_equal(host_text(json_object_get(task, "error"), "field"), "/x");
    assert_int_equal(task_cancel(host, three, NULL), 0);
    assert_string_equal(wait_for(host, three), "cancelled");
    struct host_problem p;
    assert_int_equal(task_cancel(host, three, &p), -1);
    assert_int_equal(p.kind, HOST_CONFLICT);
    assert_int_equal(task_cancel(host, "nothing", &p), -1);
    assert_int_equal(p.kind, HOST_NOT_FOUND);
    host_unlock(host);
    free(one);
    free(two);
    free(three);
}

static void test_more_tasks_than_threads(void **state)
{
    struct host *host = *state;
    char *id[3 * TASKS_RUNNING];
    host_lock(host);
    for (unsigned i = 0; i < 3 * TASKS_RUNNING; i++)
        id[i] = begin(host, i < TASKS_RUNNING ? endless : good);
    for (unsigned i = 0; i < TASKS_RUNNING; i++)
        task_cancel(host, id[i], NULL);
    for (unsigned i = 0; i < 3 * TASKS_RUNNING; i++) {
        assert_string_equal(wait_for(host, id[i]), i < TASKS_RUNNING ? "cancelled" : "succeeded");
        free(id[i]);
    }
    host_unlock(host);
}

/* ---- Events ---- */

static void test_events_are_kept(void **state)
{
    struct host *host = *state;
    host_lock(host);
    for (unsigned i = 0; i < 5; i++)
        host_event(host, i % 2 ? "odd" : "even", "machine:x", "x", "me", "info", NULL, "number %u",
                   i);
    host_event(host, "odd", NULL, NULL, NULL, "error", NULL, "a\nb\x1b");
    struct events_filter f = {.limit = 2, .type = "odd"};
    json_t *list = events_list(host, &f);
    assert_int_equal(json_array_size(list), 3); /* one more than asked for: there is more */
    assert_string_equal(host_text(json_array_get(list, 0), "text"), "a?b?");
    f.before = (uint64_t)json_integer_value(json_object_get(json_array_get(list, 1), "id"));
    json_decref(list);
    list = events_list(host, &f);
    assert_int_equal(json_array_size(list), 1);
    assert_string_equal(host_text(json_array_get(list, 0), "text"), "number 1");
    json_decref(list);
    host_unlock(host);
}

/* ---- Small things ---- */

static void test_merge_patch(void **state)
{
    /* RFC 7396, appendix A */
    static const char *const cases[][3] = {
        {"{\"a\":\"b\"}", "{\"a\":\"c\"}", "{\"a\":\"c\"}"},
        {"{\"a\":\"b\"}", "{\"b\":\"c\"}", "{\"a\":\"b\",\"b\":\"c\"}"},
        {"{\"a\":\"b\"}", "{\"a\":null}", "{}"},
        {"{\"a\":\"b\",\"b\":\"c\"}", "{\"a\":null}", "{\"b\":\"c\"}"},
        {"{\"a\":[\"b\"]}", "{\"a\":\"c\"}", "{\"a\":\"c\"}"},
        {"{\"a\":{\"b\":\"c\"}}", "{\"a\":{\"b\":\"d\",\"c\":null}}", "{\"a\":{\"b\":\"d\"}}"},
        {"{\"e\":null}", "{\"a\":1}", "{\"e\":null,\"a\":1}"},
        {"{}", "{\"a\":{\"bb\":{\"ccc\":null}}}", "{\"a\":{\"bb\":{}}}"},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        json_t *target = json_loads(cases[i][0], 0, NULL),
               *patch = json_loads(cases[i][1], 0, NULL);
        json_t *wanted = json_loads(cases[i][2], 0, NULL);
        assert_int_equal(host_merge_patch(target, patch), 0);
        assert_true(json_equal(target, wanted));
        json_decref(target);
        json_decref(patch);
        json_decref(wanted);
    }
}

static void test_times_and_names(void **state)
{
    char text[32];
    host_time(1700000000.25, text);
    assert_string_equal(text, "2023-11-14T22:13:20.250Z");
    assert_true(host_time_parse(text) == 1700000000.25);
    assert_true(host_time_parse("2023-11-14T23:13:20+01:00") == 1700000000);
    assert_true(host_time_parse("yesterday") == 0);
    assert_true(host_time_parse("2023-11-14T22:13:20") == 0);
    assert_true(host_name_valid("web-1.a_B"));
    static const char *const bad_names[] = {"", ".x", "a/b", "a b", "a\n", "\xc3\xa9"};
    for (unsigned i = 0; i < sizeof(bad_names) / sizeof(bad_names[0]); i++)
        assert_false(host_name_valid(bad_names[i]));
    struct host_problem p;
    struct mull_error err = {.code = ENOSPC, .message = "full"};
    assert_int_equal(host_problem_from(&p, &err), -1);
    assert_int_equal(host_problem_status(p.kind), 507);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_first_password, setup, teardown),
        cmocka_unit_test_setup_teardown(test_sessions_end, setup, teardown),
        cmocka_unit_test_setup_teardown(test_tokens_are_capped, setup, teardown),
        cmocka_unit_test_setup_teardown(test_grants, setup, teardown),
        cmocka_unit_test_setup_teardown(test_tasks_end, setup, teardown),
        cmocka_unit_test_setup_teardown(test_more_tasks_than_threads, setup, teardown),
        cmocka_unit_test_setup_teardown(test_events_are_kept, setup, teardown),
        cmocka_unit_test(test_merge_patch),
        cmocka_unit_test(test_times_and_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
