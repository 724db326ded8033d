/*
 * What strangers send to the host's API, as far as it is parsed by code of ours: a path is looked up,
 * a body is checked against the schema of the route found, merged into a description. The input is
 * "METHOD PATH\nBODY".
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/rest/rest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct rest *rest;

static void check_body(const struct route *route, const char *body, size_t len)
{
    struct host_problem p;
    json_t *value = json_loadb(body, len, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, NULL);
    if (value && route->schema && !schema_check(rest->document, route->schema, value, &p)) {
        json_t *target = json_object();
        host_merge_patch(target, json_object_get(value, "config"));
        json_decref(target);
    } else if (value && route->schema) {
        json_decref(host_problem_json(&p));
    }
    json_decref(value);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mull_error err = {0};
    const char *text = (const char *)data, *line = memchr(data, '\n', size);
    const char *space = line ? memchr(data, ' ', (size_t)(line - text)) : NULL;
    if (!rest) {
        rest = calloc(1, sizeof(*rest));
        if (!rest || rest_routes_open(rest, &err))
            abort();
    }
    if (!space || space - text > 7)
        return 0;
    struct request r = {.rest = rest, .fd = -1};
    memcpy(r.method, text, (size_t)(space - text));
    char *path = strndup(space + 1, (size_t)(line - space - 1));
    if (path && asprintf(&r.path, "/api/v1%s", path) > 0) {
        if (rest_find_route(&r))
            check_body(r.route, line + 1, size - (size_t)(line + 1 - text));
        json_decref(r.out);
        free(r.parts);
        free(r.path);
    }
    free(path);
    return 0;
}
