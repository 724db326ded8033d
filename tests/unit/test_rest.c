/* The API's parts that need no connection: its routes against openapi.json, bodies against schemas,
 * limits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "api/rest/rest.h"

static int setup(void **state)
{
    struct rest *rest = calloc(1, sizeof(*rest));
    struct mull_error err = {0};
    if (!rest || rest_routes_open(rest, &err)) {
        print_error("%s\n", err.message);
        return -1;
    }
    *state = rest;
    return 0;
}

static int teardown(void **state)
{
    rest_routes_close(*state);
    free(*state);
    return 0;
}

/* Every operation of the document is served, and every handler is of the document. */
static void test_routes_are_the_document(void **state)
{
    struct rest *rest = *state;
    for (const struct operation *op = rest_operations; op->id; op++) {
        unsigned found = 0;
        for (unsigned i = 0; i < rest->route_count; i++)
            found += rest->routes[i].op == op;
        if (found != 1)
            fail_msg("%s: %u times in openapi.json", op->id, found);
    }
    for (unsigned i = 0; i < rest->route_count; i++) {
        const struct route *route = &rest->routes[i];
        /* Whoever is nobody sees the name, the document and the login, and what a ticket opens. */
        if (route->anybody)
            assert_true(!strcmp(route->op->id, "about") || !strcmp(route->op->id, "openapi") ||
                        !strcmp(route->op->id, "login") || !strcmp(route->op->id, "consoleSocket"));
    }
}

static const char *find(struct rest *rest, const char *method, const char *path, int *status,
                        char *param)
{
    struct request r = {.rest = rest, .fd = -1};
    snprintf(r.method, sizeof(r.method), "%s", method);
    r.path = strdup(path);
    const char *id = rest_find_route(&r) ? r.route->op->id : NULL;
    *status = r.status;
    snprintf(param, 64, "%s", r.param[0] ? r.param[0] : "");
    json_decref(r.out);
    free(r.path);
    free(r.parts);
    return id;
}

static void test_finding(void **state)
{
    static const struct {
        const char *method, *path, *id, *param;
        int status;
    } cases[] = {
        {"GET", "/api/v1/", "about", "", 0},
        {"GET", "/api/v1/machines", "listMachines", "", 0},
        {"HEAD", "/api/v1/machines", "listMachines", "", 0},
        {"POST", "/api/v1/machines", "createMachine", "", 0},
        {"GET", "/api/v1/machines/x", "getMachine", "x", 0},
        {"POST", "/api/v1/machines/x/start", "startMachine", "x", 0},
        {"DELETE", "/api/v1/machines/x/disks/disk0/snapshots/s", "deleteSnapshot", "x", 0},
        {"GET", "/api/v1/events/stream", "eventStream", "", 0},
        {"PUT", "/api/v1/machines", NULL, "", 405},
        {"GET", "/api/v1/machines/", NULL, "", 404},
        {"GET", "/api/v1//machines", NULL, "", 404},
        {"GET", "/api/v1/machines/x/nothing", NULL, "", 404},
        {"GET", "/api/v1/a/b/c/d/e/f/g/h/i/j/k", NULL, "", 404},
        {"GET", "/api/v1", NULL, "", 404},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int status;
        char param[64];
        const char *id = find(*state, cases[i].method, cases[i].path, &status, param);
        if (cases[i].id)
            assert_string_equal(id, cases[i].id);
        else
            assert_null(id);
        assert_int_equal(status, cases[i].status);
        assert_string_equal(param, cases[i].param);
    }
}

static const char *check(struct rest *rest, const char *name, const char *text)
{
    static struct host_problem p;
    json_t *schemas = json_object_get(json_object_get(rest->document, "components"), "schemas");
    json_t *value = json_loads(text, JSON_DECODE_ANY, NULL);
    assert_non_null(value);
    memset(&p, 0, sizeof(p));
    int ret = schema_check(rest->document, json_object_get(schemas, name), value, &p);
    json_decref(value);
    return ret ? p.field : NULL;
}

static void test_bodies(void **state)
{
    static const struct {
        const char *schema, *text, *field; /* NULL: good */
    } cases[] = {
        {"MachineCreate", "{\"name\":\"x\"}", NULL},
        {"MachineCreate", "{}", "/name"},
        {"MachineCreate", "{\"name\":1}", "/name"},
        {"MachineCreate", "{\"name\":\"a b\"}", "/name"},
        {"MachineCreate", "{\"name\":\"x\",\"y\":1}", "/y"},
        {"MachineCreate", "{\"name\":\"x\",\"pool\":null}", NULL},
        {"MachineCreate", "{\"name\":\"x\",\"pool\":7}", "/pool"},
        {"MachineCreate", "{\"name\":\"x\",\"disks\":[{\"capacity\":2000000}]}", NULL},
        {"MachineCreate", "{\"name\":\"x\",\"disks\":[{\"capacity\":1}]}", "/disks/0/capacity"},
        {"MachineCreate", "{\"name\":\"x\",\"disks\":[{\"bus\":\"no\",\"capacity\":2000000}]}",
         "/disks/0/bus"},
        {"MachineCreate", "{\"name\":\"x\",\"autostart\":{\"order\":-1}}", "/autostart/order"},
        {"MachineCreate", "{\"name\":\"x\",\"config\":{\"anything\":[1,{}]}}", NULL},
        {"MachineChange", "{\"pending_config\":null}", NULL},
        {"MachineChange", "{\"pending_config\":{}}", "/pending_config"},
        {"TokenCreate", "{\"name\":\"t\",\"expires\":\"2030-01-01T00:00:00Z\"}", NULL},
        {"TokenCreate", "{\"name\":\"t\",\"expires\":\"soon\"}", "/expires"},
        {"TokenCreate", "{\"name\":\"t\",\"expires\":null}", NULL},
        {"Keys", "{\"keys\":[\"a\",1]}", "/keys/1"},
        {"Login", "[]", ""},
        {"Login", "null", ""},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const char *field = check(*state, cases[i].schema, cases[i].text);
        if (cases[i].field ? !field || strcmp(field, cases[i].field) : field != NULL)
            fail_msg("%s: %s: %s", cases[i].schema, cases[i].text, field ? field : "good");
    }
}

static void test_limits(void **state)
{
    struct host_options options = {.requests_per_second = 10, .logins_per_minute = 3};
    struct limits *l = limits_open(&options);
    unsigned wait, good = 0, logins = 0;
    char address[32];
    for (unsigned i = 0; i < 1000; i++)
        good += limits_request(l, "10.0.0.1", &wait);
    assert_in_range(good, 40, 60);
    assert_true(wait >= 1);
    for (unsigned i = 0; i < 100; i++)
        logins += limits_login(l, "10.0.0.1", &wait);
    assert_in_range(logins, 3, 4);
    assert_true(limits_request(l, "10.0.0.2", &wait)); /* others are not concerned */
    for (unsigned i = 0; i < 100000; i++) {            /* the table is bounded */
        snprintf(address, sizeof(address), "a%u", i);
        limits_request(l, address, &wait);
    }
    limits_close(l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_routes_are_the_document, setup, teardown),
        cmocka_unit_test_setup_teardown(test_finding, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bodies, setup, teardown),
        cmocka_unit_test(test_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
