/*
 * Answers: objects with their ETags, problems, tasks, and pages of lists.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/rest/rest.h"
#include "host/render.h"
#include "host/store/store.h"

#define PAGE 100

void reply(struct request *r, int status, json_t *out)
{
    json_decref(r->out);
    r->status = status;
    r->out = out;
    r->type = "application/json";
}

void reply_problem(struct request *r, const struct host_problem *p)
{
    enum host_problem_kind kind = p->kind == HOST_OK ? HOST_INTERNAL : p->kind;
    struct host_problem copy = *p;
    copy.kind = kind;
    reply(r, host_problem_status(kind), host_problem_json(&copy));
    r->type = "application/problem+json";
}

void reply_error(struct request *r, enum host_problem_kind kind, const char *field, const char *fmt,
                 ...)
{
    struct host_problem p;
    char text[400];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    host_problem(&p, kind, field, "%s", text);
    reply_problem(r, &p);
}

void reply_task(struct request *r, json_t *task, const struct host_problem *p)
{
    if (!task) {
        reply_problem(r, p);
        return;
    }
    snprintf(r->location, sizeof(r->location), "/api/v1/tasks/%s", host_text(task, "id"));
    reply(r, 202, host_render(r->host, KIND_TASK, task, true));
}

static uint64_t version_of(const json_t *doc)
{
    return (uint64_t)json_integer_value(json_object_get(doc, "_version"));
}

/* Leave out what was not asked for. */
static json_t *chosen(json_t *object, const char *fields)
{
    json_t *o = json_object();
    char name[64];
    while (*fields) {
        size_t n = strcspn(fields, ",");
        if (n < sizeof(name)) {
            memcpy(name, fields, n);
            name[n] = '\0';
            json_t *value = json_object_get(object, name);
            if (value)
                json_object_set(o, name, value);
        }
        fields += n + (fields[n] == ',');
    }
    return o;
}

void reply_object(struct request *r, int status, enum host_kind kind, json_t *doc, bool full)
{
    char tag[64];
    const char *known = header(r, "If-None-Match");
    const char *fields = query(r, "fields");
    r->version = version_of(doc);
    snprintf(tag, sizeof(tag), "\"%llu\"", (unsigned long long)r->version);
    if (status == 200 && known && (!strcmp(known, "*") || strstr(known, tag))) {
        reply(r, 304, NULL);
        return;
    }
    json_t *o = host_render(r->host, kind, doc, full);
    if (fields && *fields) {
        json_t *all = o;
        o = chosen(all, fields);
        json_decref(all);
    }
    reply(r, status, o);
}

bool has_changed(struct request *r, json_t *doc)
{
    char tag[64];
    const char *wanted = header(r, "If-Match");
    snprintf(tag, sizeof(tag), "\"%llu\"", (unsigned long long)version_of(doc));
    if (!wanted || !strcmp(wanted, "*") || strstr(wanted, tag))
        return false;
    reply_error(r, HOST_PRECONDITION_FAILED, NULL, "it is %s now: get it again", tag);
    return true;
}

/* ---- Requests ---- */

const char *query(struct request *r, const char *name)
{
    return MHD_lookup_connection_value(r->connection, MHD_GET_ARGUMENT_KIND, name);
}

uint64_t query_number(struct request *r, const char *name, uint64_t otherwise)
{
    const char *text = query(r, name);
    return text ? strtoull(text, NULL, 10) : otherwise;
}

const char *header(struct request *r, const char *name)
{
    return MHD_lookup_connection_value(r->connection, MHD_HEADER_KIND, name);
}

/* ---- Lists ---- */

static int rank(const json_t *v)
{
    return !v || json_is_null(v) ? 0 : json_is_boolean(v) ? 1 : json_is_number(v) ? 2 : 3;
}

static int compare_values(const json_t *a, const json_t *b)
{
    int x = rank(a), y = rank(b);
    if (x != y)
        return x < y ? -1 : 1;
    if (x == 1)
        return json_is_true(a) - json_is_true(b);
    if (x == 2) {
        double p = json_number_value(a), q = json_number_value(b);
        return p < q ? -1 : p > q;
    }
    return x == 3 && json_is_string(a) && json_is_string(b)
               ? strcmp(json_string_value(a), json_string_value(b))
               : 0;
}

struct entry {
    json_t *item; /* borrowed */
    const char *id;
    const json_t *key;
};

static const char *id_of(const json_t *item)
{
    const char *id = json_string_value(json_object_get(item, "id"));
    return id ? id : host_text(item, "name");
}

static int ascending(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    int c = compare_values(x->key, y->key);
    return c ? c : strcmp(x->id, y->id);
}

static int descending(const void *a, const void *b)
{
    return ascending(b, a);
}

/* Is the text in the name, whatever their cases? */
static bool fits_q(const json_t *item, const char *q)
{
    return !q || !*q || strcasestr(host_text(item, "name"), q);
}

static bool equals(const json_t *value, const char *text)
{
    char number[32];
    if (json_is_string(value))
        return !strcmp(json_string_value(value), text);
    if (json_is_boolean(value))
        return !strcmp(json_is_true(value) ? "true" : "false", text);
    if (json_is_integer(value)) {
        snprintf(number, sizeof(number), "%" JSON_INTEGER_FORMAT, json_integer_value(value));
        return !strcmp(number, text);
    }
    return json_is_null(value) && !strcmp(text, "null");
}

static bool in_array(const json_t *list, const char *text)
{
    size_t i;
    json_t *item;
    json_array_foreach((json_t *)list, i, item)
    {
        if (equals(item, text))
            return true;
    }
    return false;
}

/* A filter of one word for a member that is a list. */
static const char *list_of(const char *filter)
{
    return !strcmp(filter, "tag") ? "tags" : !strcmp(filter, "network") ? "networks" : NULL;
}

/* What is no parameter of every list is a filter by a member. */
static bool fits_filters(struct request *r, const json_t *item)
{
    static const char *const others[] = {"limit", "cursor", "sort",     "q", "fields",
                                         "after", "path",   "download", NULL};
    const char *name;
    json_t *schema;
    json_object_foreach(r->route->query, name, schema)
    {
        unsigned i = 0;
        while (others[i] && strcmp(others[i], name))
            i++;
        const char *wanted = others[i] ? NULL : query(r, name);
        if (!wanted)
            continue;
        const char *list = list_of(name);
        if (list ? !in_array(json_object_get(item, list), wanted)
                 : !equals(json_object_get(item, name), wanted))
            return false;
    }
    return true;
}

/* A cursor is the last item's key and id, as hexadecimal digits of JSON. */
static char *cursor_of(const struct entry *e)
{
    json_t *pair = json_pack("[O?, s]", (json_t *)e->key, e->id);
    char *text = json_dumps(pair, JSON_COMPACT), *hex = text ? malloc(2 * strlen(text) + 1) : NULL;
    for (size_t i = 0; hex && text[i]; i++)
        sprintf(hex + 2 * i, "%02x", (unsigned char)text[i]);
    json_decref(pair);
    free(text);
    return hex;
}

static json_t *read_cursor(const char *hex)
{
    size_t n = strlen(hex) / 2;
    char *text = n < 4096 ? malloc(n + 1) : NULL;
    for (size_t i = 0; text && i < n; i++) {
        unsigned byte;
        if (sscanf(hex + 2 * i, "%2x", &byte) != 1)
            byte = ' ';
        text[i] = (char)byte;
    }
    json_t *pair = text ? json_loadb(text, n, 0, NULL) : NULL;
    free(text);
    if (json_array_size(pair) == 2 && json_is_string(json_array_get(pair, 1)))
        return pair;
    json_decref(pair);
    return NULL;
}

static size_t collect(struct request *r, json_t *all, const char *sort, struct entry *list)
{
    const char *q = query(r, "q");
    size_t i, n = 0;
    json_t *item;
    json_array_foreach(all, i, item)
    {
        if (fits_q(item, q) && fits_filters(r, item))
            list[n++] = (struct entry){item, id_of(item), json_object_get(item, sort)};
    }
    return n;
}

void reply_list(struct request *r, json_t *all, const char *sort)
{
    const char *wanted = query(r, "sort"), *fields = query(r, "fields");
    const char *from = query(r, "cursor");
    size_t limit = (size_t)query_number(r, "limit", PAGE), first = 0;
    sort = wanted && *wanted ? wanted : sort;
    bool down = *sort == '-';
    int (*order)(const void *, const void *) = down ? descending : ascending;
    struct entry *list = calloc(json_array_size(all) + 1, sizeof(*list));
    size_t n = list ? collect(r, all, sort + down, list) : 0;
    if (list)
        qsort(list, n, sizeof(*list), order);
    json_t *after = from ? read_cursor(from) : NULL;
    if (from && !after) {
        reply_error(r, HOST_BAD_REQUEST, NULL, "cursor: is none that this server gave");
    } else {
        struct entry mark = {.id = json_string_value(json_array_get(after, 1)),
                             .key = json_array_get(after, 0)};
        while (after && first < n && order(&list[first], &mark) <= 0)
            first++;
        json_t *items = json_array();
        size_t i;
        for (i = first; i < n && i - first < limit; i++)
            json_array_append_new(items, fields && *fields ? chosen(list[i].item, fields)
                                                           : json_incref(list[i].item));
        char *next = i < n && i > first ? cursor_of(&list[i - 1]) : NULL;
        reply(r, 200,
              json_pack("{s:o, s:s?, s:I}", "items", items, "next", next, "total", (json_int_t)n));
        free(next);
    }
    json_decref(after);
    free(list);
    json_decref(all);
}

void reply_page(struct request *r, json_t *got, unsigned limit, uint64_t total)
{
    const char *fields = query(r, "fields");
    char next[32] = "";
    if (json_array_size(got) > limit) {
        json_array_remove(got, limit);
        snprintf(next, sizeof(next), "%" JSON_INTEGER_FORMAT,
                 json_integer_value(json_object_get(json_array_get(got, limit - 1), "id")));
    }
    if (fields && *fields) {
        for (size_t i = 0; i < json_array_size(got); i++)
            json_array_set_new(got, i, chosen(json_array_get(got, i), fields));
    }
    reply(r, 200,
          json_pack("{s:o, s:s?, s:I}", "items", got, "next", *next ? next : NULL, "total",
                    (json_int_t)total));
}
