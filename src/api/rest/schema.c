/*
 * Checks JSON against the part of JSON Schema (2020-12) that openapi.json uses. A schema of our own
 * cannot nest without end; a value's depth is bounded by the parser.
 */
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/rest/rest.h"

struct check {
    json_t *document;
    struct host_problem *p;
    char at[128]; /* JSON pointer */
};

static int check(struct check *c, json_t *schema, json_t *value);

static int bad(struct check *c, const char *what)
{
    return host_problem(c->p, HOST_INVALID, *c->at ? c->at : NULL, "%s: %s",
                        *c->at ? c->at : "the body", what);
}

static json_t *resolve(struct check *c, json_t *schema)
{
    const char *ref = json_string_value(json_object_get(schema, "$ref"));
    for (unsigned depth = 0; ref && depth < 16; depth++) {
        /* "#/components/schemas/NAME" */
        const char *name = strrchr(ref, '/');
        json_t *all = json_object_get(json_object_get(c->document, "components"), "schemas");
        schema = name ? json_object_get(all, name + 1) : NULL;
        ref = json_string_value(json_object_get(schema, "$ref"));
    }
    return schema;
}

static bool is_type(const json_t *value, const char *type)
{
    if (!strcmp(type, "object"))
        return json_is_object(value);
    if (!strcmp(type, "array"))
        return json_is_array(value);
    if (!strcmp(type, "string"))
        return json_is_string(value);
    if (!strcmp(type, "integer"))
        return json_is_integer(value);
    if (!strcmp(type, "number"))
        return json_is_number(value);
    if (!strcmp(type, "boolean"))
        return json_is_boolean(value);
    return !strcmp(type, "null") && json_is_null(value);
}

static int check_type(struct check *c, json_t *type, json_t *value)
{
    char what[96];
    size_t i;
    json_t *one;
    if (json_is_string(type)) {
        if (is_type(value, json_string_value(type)))
            return 0;
        snprintf(what, sizeof(what), "must be of type %s", json_string_value(type));
        return bad(c, what);
    }
    json_array_foreach(type, i, one)
    {
        if (is_type(value, json_string_value(one)))
            return 0;
    }
    return type ? bad(c, "is of the wrong type") : 0;
}

static int check_enum(struct check *c, json_t *list, json_t *value)
{
    char what[256] = "must be one of";
    size_t i;
    json_t *one;
    json_array_foreach(list, i, one)
    {
        if (json_equal(one, value))
            return 0;
        size_t n = strlen(what);
        if (json_is_string(one))
            snprintf(what + n, sizeof(what) - n, "%s %s", i ? "," : "", json_string_value(one));
    }
    return list ? bad(c, what) : 0;
}

static int check_string(struct check *c, json_t *schema, json_t *value)
{
    const char *text = json_string_value(value);
    json_t *min = json_object_get(schema, "minLength"), *max = json_object_get(schema, "maxLength");
    const char *pattern = json_string_value(json_object_get(schema, "pattern"));
    const char *format = json_string_value(json_object_get(schema, "format"));
    if (strlen(text) != json_string_length(value))
        return bad(c, "must not hold a zero character");
    if (min && strlen(text) < (size_t)json_integer_value(min))
        return bad(c, "is too short");
    if (max && strlen(text) > (size_t)json_integer_value(max))
        return bad(c, "is too long");
    if (pattern) {
        regex_t re;
        bool good = !regcomp(&re, pattern, REG_EXTENDED | REG_NOSUB);
        if (good) {
            good = !regexec(&re, text, 0, NULL, 0);
            regfree(&re);
        }
        if (!good)
            return bad(c, "holds what it must not: see its pattern in openapi.json");
    }
    if (format && !strcmp(format, "uuid") && strlen(text) != 36)
        return bad(c, "must be a UUID");
    if (format && !strcmp(format, "date-time") && host_time_parse(text) <= 0)
        return bad(c, "must be a time like 2026-01-31T12:00:00Z");
    return 0;
}

static int check_number(struct check *c, json_t *schema, json_t *value)
{
    json_t *min = json_object_get(schema, "minimum"), *max = json_object_get(schema, "maximum");
    char what[96];
    if (min && json_number_value(value) < json_number_value(min)) {
        snprintf(what, sizeof(what), "must be at least %.0f", json_number_value(min));
        return bad(c, what);
    }
    if (max && json_number_value(value) > json_number_value(max)) {
        snprintf(what, sizeof(what), "must be at most %.0f", json_number_value(max));
        return bad(c, what);
    }
    return 0;
}

static int check_below(struct check *c, const char *name, json_t *schema, json_t *value)
{
    size_t n = strlen(c->at);
    snprintf(c->at + n, sizeof(c->at) - n, "/%.60s", name);
    int ret = check(c, schema, value);
    if (!ret)
        c->at[n] = '\0';
    return ret;
}

static int check_array(struct check *c, json_t *schema, json_t *value)
{
    json_t *items = json_object_get(schema, "items"), *item;
    json_t *min = json_object_get(schema, "minItems"), *max = json_object_get(schema, "maxItems");
    size_t i, limit = max ? (size_t)json_integer_value(max) : 1000;
    int ret = 0;
    if (json_array_size(value) > limit)
        return bad(c, "has too many items");
    if (min && json_array_size(value) < (size_t)json_integer_value(min))
        return bad(c, "has too few items");
    json_array_foreach(value, i, item)
    {
        char name[24];
        snprintf(name, sizeof(name), "%zu", i);
        if (!ret && items)
            ret = check_below(c, name, items, item);
    }
    return ret;
}

static int check_object(struct check *c, json_t *schema, json_t *value)
{
    json_t *properties = json_object_get(schema, "properties"), *item, *name;
    bool closed = json_is_false(json_object_get(schema, "additionalProperties"));
    const char *key;
    size_t i;
    int ret = 0;
    json_array_foreach(json_object_get(schema, "required"), i, name)
    {
        if (!ret && !json_object_get(value, json_string_value(name))) {
            size_t n = strlen(c->at);
            snprintf(c->at + n, sizeof(c->at) - n, "/%s", json_string_value(name));
            ret = bad(c, "is missing");
        }
    }
    json_object_foreach(value, key, item)
    {
        json_t *known = json_object_get(properties, key);
        if (ret)
            break;
        if (known) {
            ret = check_below(c, key, known, item);
        } else if (closed) {
            size_t n = strlen(c->at);
            snprintf(c->at + n, sizeof(c->at) - n, "/%.60s", key);
            ret = bad(c, "is not known");
        }
    }
    return ret;
}

static int check(struct check *c, json_t *schema, json_t *value)
{
    json_t *choices, *one;
    size_t i;
    schema = resolve(c, schema);
    choices = json_object_get(schema, "oneOf");
    /* Of what we write, oneOf is "this or null". */
    json_array_foreach(choices, i, one)
    {
        const char *type = json_string_value(json_object_get(one, "type"));
        if (type && !strcmp(type, "null") ? json_is_null(value) : !json_is_null(value))
            return check(c, one, value);
    }
    json_array_foreach(json_object_get(schema, "allOf"), i, one)
    {
        if (check(c, one, value))
            return -1;
    }
    if (check_type(c, json_object_get(schema, "type"), value) ||
        check_enum(c, json_object_get(schema, "enum"), value))
        return -1;
    switch (json_typeof(value)) {
    case JSON_STRING:
        return check_string(c, schema, value);
    case JSON_INTEGER:
    case JSON_REAL:
        return check_number(c, schema, value);
    case JSON_ARRAY:
        return check_array(c, schema, value);
    case JSON_OBJECT:
        return check_object(c, schema, value);
    default:
        return 0;
    }
}

int schema_check(json_t *document, json_t *schema, json_t *value, struct host_problem *p)
{
    struct check c = {.document = document, .p = p};
    return check(&c, schema, value);
}
