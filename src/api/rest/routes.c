/*
 * The table of routes, made of openapi.json when the server opens: its paths, methods, roles, query
 * parameters and bodies, each with the handler of its operationId.
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/rest/rest.h"
#include "openapi_sum.h"

#define PREFIX "/api/v1"

/* The document itself. */
__asm__(".section .rodata\n"
        ".global rest_document_start, rest_document_end\n"
        "rest_document_start:\n"
        ".incbin \"" OPENAPI_JSON "\"\n"
        "rest_document_end:\n"
        ".byte 0\n"
        ".previous\n");
extern const char rest_document_start[], rest_document_end[];

static const struct operation *find_operation(const char *id)
{
    for (const struct operation *op = rest_operations; op->id; op++)
        if (!strcmp(op->id, id))
            return op;
    return NULL;
}

/* A parameter may be a reference to "#/components/parameters/NAME". */
static json_t *parameter(struct rest *rest, json_t *p)
{
    const char *ref = json_string_value(json_object_get(p, "$ref"));
    json_t *all = json_object_get(json_object_get(rest->document, "components"), "parameters");
    return ref ? json_object_get(all, strrchr(ref, '/') + 1) : p;
}

static json_t *body_schema(json_t *operation)
{
    json_t *content = json_object_get(json_object_get(operation, "requestBody"), "content");
    return json_object_get(json_object_get(content, "application/json"), "schema");
}

static void split(struct route *route, const char *path)
{
    static const char empty[] = "";
    char *copy = strdup(path), *save = NULL;
    for (char *part = copy ? strtok_r(copy, "/", &save) : NULL; part && route->parts < 8;
         part = strtok_r(NULL, "/", &save))
        route->part[route->parts++] = *part == '{' ? NULL : strdup(part);
    free(copy);
    if (!route->parts) /* "/" itself */
        route->part[route->parts++] = strdup(empty);
}

static int add_route(struct rest *rest, const char *path, const char *method, json_t *operation,
                     struct mull_error *err)
{
    struct route *route = &rest->routes[rest->route_count];
    const char *id = host_text(operation, "operationId");
    const char *role = host_text(operation, "x-role");
    json_t *p;
    size_t i;
    route->op = find_operation(id);
    if (!route->op)
        return mull_fail(err, ENOENT, "openapi.json: %s: nothing serves it", id);
    route->method = method;
    route->anybody = !strcmp(role, "anybody");
    route->role = role_parse(role) > 0 ? (enum role)role_parse(role) : ROLE_NONE;
    route->schema = body_schema(operation);
    route->body_optional =
        !json_is_true(json_object_get(json_object_get(operation, "requestBody"), "required"));
    route->query = json_object();
    json_array_foreach(json_object_get(operation, "parameters"), i, p)
    {
        p = parameter(rest, p);
        if (!strcmp(host_text(p, "in"), "query"))
            json_object_set(route->query, host_text(p, "name"), json_object_get(p, "schema"));
    }
    split(route, path);
    rest->route_count++;
    return 0;
}

int rest_routes_open(struct rest *rest, struct mull_error *err)
{
    rest->document_text = rest_document_start;
    rest->document_size = (size_t)(rest_document_end - rest_document_start);
    rest->document = json_loadb(rest->document_text, rest->document_size, 0, NULL);
    json_t *paths = json_object_get(rest->document, "paths"), *item, *operation;
    const char *path, *method;
    int ret = 0;
    rest->routes = calloc(5 * json_object_size(paths) + 1, sizeof(*rest->routes));
    if (!paths || !rest->routes)
        return mull_fail(err, EINVAL, "openapi.json: makes no sense");
    json_object_foreach(paths, path, item)
    {
        json_object_foreach(item, method, operation)
        {
            if (!ret && strcmp(method, "parameters"))
                ret = add_route(rest, path, method, operation, err);
        }
    }
    return ret;
}

void rest_routes_close(struct rest *rest)
{
    for (unsigned i = 0; rest->routes && i < rest->route_count; i++) {
        for (unsigned part = 0; part < rest->routes[i].parts; part++)
            free((char *)rest->routes[i].part[part]);
        json_decref(rest->routes[i].query);
    }
    free(rest->routes);
    json_decref(rest->document);
}

/* ---- Finding ---- */

/* The path's parts, cut in place. @return how many, or 0: too many or an empty one */
static unsigned cut(char *path, char *part[8])
{
    unsigned n = 0;
    for (char *p = path; n < 8; p++) {
        part[n++] = p;
        p += strcspn(p, "/");
        if (!*p)
            return n;
        *p = '\0';
    }
    return 0;
}

static bool fits(const struct route *route, char *part[8], unsigned parts)
{
    if (route->parts != parts)
        return false;
    for (unsigned i = 0; i < parts; i++)
        if (route->part[i] ? strcmp(route->part[i], part[i]) != 0 : !*part[i])
            return false;
    return true;
}

bool rest_find_route(struct request *r)
{
    struct rest *rest = r->rest;
    char *part[8];
    bool other_method = false;
    r->parts = strdup(r->path + sizeof(PREFIX) - 1);
    unsigned parts = r->parts && *r->parts == '/' ? cut(r->parts + 1, part) : 0;
    const char *method = strcmp(r->method, "HEAD") ? r->method : "GET";
    for (unsigned i = 0; parts && i < rest->route_count; i++) {
        const struct route *route = &rest->routes[i];
        if (!fits(route, part, parts))
            continue;
        if (strcasecmp(route->method, method)) {
            other_method = true;
            continue;
        }
        r->route = route;
        unsigned n = 0;
        for (unsigned j = 0; j < parts; j++)
            if (!route->part[j] && n < REST_PARAMS)
                r->param[n++] = part[j];
        return true;
    }
    if (other_method)
        reply_error(r, HOST_BAD_METHOD, NULL, "%s: not here; see /api/v1/openapi.json", r->method);
    else
        reply_error(r, HOST_NOT_FOUND, NULL, "there is no such path; see /api/v1/openapi.json");
    return false;
}

/* ---- Query parameters ---- */

struct queries {
    struct request *r;
    struct host_problem p;
    bool bad;
};

static enum MHD_Result check_one(void *opaque, enum MHD_ValueKind kind, const char *key,
                                 const char *value)
{
    struct queries *q = opaque;
    json_t *schema = json_object_get(q->r->route->query, key), *json;
    char *end = NULL;
    if (!schema) {
        host_problem(&q->p, HOST_BAD_REQUEST, NULL, "%.60s: is no query parameter here", key);
        q->bad = true;
        return MHD_NO;
    }
    if (!strcmp(host_text(schema, "type"), "integer")) {
        long long n = value ? strtoll(value, &end, 10) : 0;
        json = value && *value && end && !*end && !isspace((unsigned char)*value) ? json_integer(n)
                                                                                  : json_null();
    } else {
        json = json_string(value ? value : "");
    }
    if (!json || schema_check(q->r->rest->document, schema, json, &q->p)) {
        char why[256];
        snprintf(why, sizeof(why), "%.200s", json ? q->p.detail : "is not UTF-8");
        host_problem(&q->p, HOST_BAD_REQUEST, NULL, "%.60s: %s", key, why);
        q->bad = true;
    }
    json_decref(json);
    return q->bad ? MHD_NO : MHD_YES;
}

bool rest_check_query(struct request *r)
{
    struct queries q = {.r = r};
    MHD_get_connection_values(r->connection, MHD_GET_ARGUMENT_KIND, check_one, &q);
    if (q.bad)
        reply_problem(r, &q.p);
    return !q.bad;
}
