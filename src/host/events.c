/*
 * See events.h.
 */
#include "host/events.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/render.h"
#include "host/store/store.h"

#define FLUSH_NS 1000000000ull
#define PENDING_MAX 4096
#define ID_GAP 1000 /* ids that a crash may have used without writing them */

struct events {
    uint64_t last_event, last_audit;
    json_t *pending, *pending_audit;
    struct mull_timer *timer;
    bool armed;
    unsigned written; /* since the last pruning */
    void (*listener)(void *opaque, json_t *event);
    void *opaque;
};

static void timer_fired(void *opaque)
{
    struct host *host = opaque;
    host_lock(host);
    host->events->armed = false;
    events_flush(host);
    host_unlock(host);
}

int events_open(struct host *host, struct mull_error *err)
{
    struct events *e = calloc(1, sizeof(*e));
    if (!e)
        return mull_fail(err, ENOMEM, "events: no memory");
    host->events = e;
    e->pending = json_array();
    e->pending_audit = json_array();
    char *last = store_value(host->store, "SELECT max(id) FROM events", NULL);
    e->last_event = last ? strtoull(last, NULL, 10) + ID_GAP : 0;
    free(last);
    last = store_value(host->store, "SELECT max(id) FROM audit", NULL);
    e->last_audit = last ? strtoull(last, NULL, 10) : 0;
    free(last);
    if (host->loop && !(e->timer = mull_timer_create(host->loop, timer_fired, host)))
        return mull_fail(err, ENOMEM, "events: no memory");
    return 0;
}

void events_close(struct host *host)
{
    struct events *e = host->events;
    if (!e)
        return;
    events_flush(host);
    mull_timer_destroy(e->timer);
    json_decref(e->pending);
    json_decref(e->pending_audit);
    free(e);
    host->events = NULL;
}

static void write_soon(struct host *host)
{
    struct events *e = host->events;
    if (!e->armed && e->timer) {
        e->armed = true;
        mull_timer_arm(e->timer, mull_now_ns() + FLUSH_NS);
    }
    if (json_array_size(e->pending) + json_array_size(e->pending_audit) > PENDING_MAX)
        events_flush(host);
}

static json_t *text_or_null(const char *text)
{
    return text && *text ? json_string(text) : json_null();
}

static json_t *make_event(struct host *host, const char *type, const char *object, const char *name,
                          const char *user, const char *severity, json_t *data, const char *text)
{
    return json_pack("{s:I, s:o, s:s, s:o, s:o, s:o, s:s, s:s, s:o}", "id",
                     (json_int_t)host->events->last_event, "time", host_now_json(), "type", type,
                     "object", text_or_null(object), "object_name", text_or_null(name), "user",
                     text_or_null(user), "severity", severity, "text", text, "data",
                     data ? data : json_null());
}

void host_event(struct host *host, const char *type, const char *object, const char *name,
                const char *user, const char *severity, json_t *data, const char *fmt, ...)
{
    struct events *e = host->events;
    char text[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    for (char *c = text; *c; c++)
        if ((unsigned char)*c < ' ' || (unsigned char)*c >= 0x7f)
            *c = '?';
    e->last_event++;
    json_t *event = make_event(host, type, object, name, user, severity, data, text);
    if (!event)
        return;
    if (e->listener)
        e->listener(e->opaque, event);
    json_array_append_new(e->pending, event);
    write_soon(host);
}

void host_changed(struct host *host, enum host_kind kind, const char *id)
{
    struct events *e = host->events;
    char object[160];
    if (!e || !e->listener)
        return;
    json_t *doc = store_get(host->store, kind, id);
    json_t *summary = doc ? host_render(host, kind, doc, false) : NULL;
    snprintf(object, sizeof(object), "%s:%s", host_kind_names[kind], id);
    json_t *event =
        make_event(host, doc ? "changed" : "removed", object, host_text(summary, "name"), NULL,
                   "info", summary, doc ? "changed" : "removed");
    if (event)
        e->listener(e->opaque, event);
    json_decref(event);
}

json_t *events_greeting(struct host *host)
{
    return make_event(host, "subscribed", NULL, NULL, NULL, "info", NULL, "events follow");
}

void events_listen(struct host *host, void (*fn)(void *opaque, json_t *event), void *opaque)
{
    host->events->listener = fn;
    host->events->opaque = opaque;
}

void host_audit(struct host *host, const char *user, const char *address, const char *method,
                const char *path, int status)
{
    struct events *e = host->events;
    char shown[256];
    snprintf(shown, sizeof(shown), "%s", path);
    for (char *c = shown; *c; c++)
        if ((unsigned char)*c < ' ' || (unsigned char)*c >= 0x7f)
            *c = '?';
    json_array_append_new(e->pending_audit,
                          json_pack("{s:I, s:o, s:o, s:s, s:s, s:s, s:i}", "id",
                                    (json_int_t)++e->last_audit, "time", host_now_json(), "user",
                                    text_or_null(user), "from", address, "method", method, "path",
                                    shown, "status", status));
    write_soon(host);
}

/* ---- Writing ---- */

static int write_event(struct host *host, json_t *event)
{
    char id[32], time[32];
    char *doc = json_dumps(event, JSON_COMPACT);
    snprintf(id, sizeof(id), "%" JSON_INTEGER_FORMAT,
             json_integer_value(json_object_get(event, "id")));
    snprintf(time, sizeof(time), "%.3f", host_time_parse(host_text(event, "time")));
    int ret =
        store_run(host->store, NULL, "INSERT OR REPLACE INTO events VALUES(?,?,?,?,?,?)", id, time,
                  host_text(event, "type"), json_string_value(json_object_get(event, "object")),
                  host_text(event, "severity"), doc, NULL);
    free(doc);
    return ret;
}

static int write_audit(struct host *host, json_t *entry)
{
    char id[32], time[32], status[16];
    snprintf(id, sizeof(id), "%" JSON_INTEGER_FORMAT,
             json_integer_value(json_object_get(entry, "id")));
    snprintf(time, sizeof(time), "%.3f", host_time_parse(host_text(entry, "time")));
    snprintf(status, sizeof(status), "%d",
             (int)json_integer_value(json_object_get(entry, "status")));
    return store_run(host->store, NULL, "INSERT OR REPLACE INTO audit VALUES(?,?,?,?,?,?,?)", id,
                     time, json_string_value(json_object_get(entry, "user")),
                     host_text(entry, "from"), host_text(entry, "method"), host_text(entry, "path"),
                     status, NULL);
}

static void prune(struct host *host)
{
    char event[32], audit[32];
    struct events *e = host->events;
    e->written = 0;
    snprintf(event, sizeof(event), "%lld", (long long)e->last_event - EVENTS_KEPT);
    snprintf(audit, sizeof(audit), "%lld", (long long)e->last_audit - AUDIT_KEPT);
    store_run(host->store, NULL, "DELETE FROM events WHERE id <= ?", event, NULL);
    store_run(host->store, NULL, "DELETE FROM audit WHERE id <= ?", audit, NULL);
}

void events_flush(struct host *host)
{
    struct events *e = host->events;
    struct mull_error err = {0};
    size_t i, n = json_array_size(e->pending) + json_array_size(e->pending_audit);
    json_t *item;
    if (!n)
        return;
    int ret = store_begin(host->store, &err);
    if (!ret) {
        json_array_foreach(e->pending, i, item) ret |= write_event(host, item);
        json_array_foreach(e->pending_audit, i, item) ret |= write_audit(host, item);
        e->written += (unsigned)n;
        if (e->written > 1000)
            prune(host);
        ret = store_end(host->store, ret, &err);
    }
    if (ret && n <= PENDING_MAX) /* again later: the disk may have room then */
        return;
    if (ret)
        mull_log(&host->log, MULL_LOG_ERROR, "events: %zu are lost: %s", n, err.message);
    json_array_clear(e->pending);
    json_array_clear(e->pending_audit);
}

/* ---- Reading ---- */

struct where {
    char sql[512];
    const char *value[8];
    unsigned count;
};

static void add_where(struct where *w, const char *condition, const char *value)
{
    if (!value)
        return;
    size_t n = strlen(w->sql);
    snprintf(w->sql + n, sizeof(w->sql) - n, " AND %s", condition);
    w->value[w->count++] = value;
}

static bool add_event(void *opaque, sqlite3_stmt *row)
{
    json_t *doc = json_loads((const char *)sqlite3_column_text(row, 0), 0, NULL);
    if (doc)
        json_array_append_new(opaque, doc);
    return true;
}

static bool add_audit(void *opaque, sqlite3_stmt *row)
{
    char time[32];
    host_time(sqlite3_column_double(row, 1), time);
    const char *text[5];
    for (int i = 0; i < 4; i++)
        text[i] = (const char *)sqlite3_column_text(row, i + 2);
    json_array_append_new(opaque,
                          json_pack("{s:I, s:s, s:s?, s:s, s:s, s:s, s:i}", "id",
                                    (json_int_t)sqlite3_column_int64(row, 0), "time", time, "user",
                                    text[0], "from", text[1] ? text[1] : "", "method", text[2],
                                    "path", text[3], "status", sqlite3_column_int(row, 6)));
    return true;
}

/* All that a filter says but the page. */
static void add_filter(struct where *w, bool audit, const struct events_filter *f)
{
    if (audit) {
        add_where(w, "user = ?", f->user);
        add_where(w, "path = ?", f->path);
        add_where(w, "method = ?", f->method);
        add_where(w, "instr(lower(path), lower(?)) > 0", f->q);
    } else {
        add_where(w, "type = ?", f->type);
        add_where(w, "object = ?", f->object);
        add_where(w, "severity = ?", f->severity);
        add_where(w, "instr(lower(json_extract(doc, '$.text')), lower(?)) > 0", f->q);
    }
}

static json_t *run_list(struct host *host, bool audit, const char *columns,
                        const struct events_filter *f, bool (*fn)(void *, sqlite3_stmt *))
{
    char sql[768];
    struct where w = {0};
    json_t *list = json_array();
    events_flush(host);
    add_filter(&w, audit, f);
    snprintf(sql, sizeof(sql),
             "SELECT %s FROM %s WHERE id > %llu AND id < %llu%s ORDER BY id %s LIMIT %u", columns,
             audit ? "audit" : "events", (unsigned long long)f->after,
             f->before ? (unsigned long long)f->before : (unsigned long long)INT64_MAX, w.sql,
             f->ascending ? "ASC" : "DESC", f->limit + 1);
    const char **v = w.value;
    store_query(host->store, NULL, fn, list, sql, v[0], v[1], v[2], v[3], NULL);
    return list;
}

json_t *events_list(struct host *host, const struct events_filter *f)
{
    return run_list(host, false, "doc", f, add_event);
}

json_t *audit_list(struct host *host, const struct events_filter *f)
{
    return run_list(host, true, "id, time, user, address, method, path, status", f, add_audit);
}

uint64_t events_count(struct host *host, bool audit, const struct events_filter *f)
{
    char sql[768];
    struct where w = {0};
    events_flush(host);
    add_filter(&w, audit, f);
    snprintf(sql, sizeof(sql), "SELECT count(*) FROM %s WHERE id > %llu%s",
             audit ? "audit" : "events", (unsigned long long)f->after, w.sql);
    const char **v = w.value;
    char *n = store_value(host->store, sql, v[0], v[1], v[2], v[3], NULL);
    uint64_t count = n ? strtoull(n, NULL, 10) : 0;
    free(n);
    return count;
}
