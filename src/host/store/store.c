/*
 * See store.h: opening, objects, and the statements that the other files run.
 */
#include "host/store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOG_RESERVE (8 << 20) /* of the write-ahead log, which is emptied at 4 MiB */
#define GROWTH (1 << 20)

int store_fail(struct store *store, struct mull_error *err, const char *what)
{
    int code = sqlite3_errcode(store->db) & 0xff;
    return mull_fail(err,
                     code == SQLITE_FULL   ? ENOSPC
                     : code == SQLITE_BUSY ? EBUSY
                                           : EIO,
                     "database: %s: %s", what, sqlite3_errmsg(store->db));
}

static int kind_of(const char *name)
{
    for (int i = 0; host_kind_names[i]; i++)
        if (!strcmp(host_kind_names[i], name))
            return i;
    return -1;
}

static int read_objects(struct store *store, struct mull_error *err)
{
    sqlite3_stmt *s = NULL;
    int code;
    if (sqlite3_prepare_v2(store->db, "SELECT kind, id, doc FROM objects ORDER BY rowid", -1, &s,
                           NULL) != SQLITE_OK)
        return store_fail(store, err, "objects");
    while ((code = sqlite3_step(s)) == SQLITE_ROW) {
        const char *kind_name = (const char *)sqlite3_column_text(s, 0);
        const char *id = (const char *)sqlite3_column_text(s, 1);
        json_t *doc = json_loads((const char *)sqlite3_column_text(s, 2), 0, NULL);
        int kind = kind_name ? kind_of(kind_name) : -1;
        if (kind < 0 || !json_is_object(doc)) {
            json_decref(doc);
            mull_log(store->log, MULL_LOG_ERROR, "database: object %s %s makes no sense", kind_name,
                     id);
            continue;
        }
        uint64_t version = (uint64_t)json_integer_value(json_object_get(doc, "_version"));
        if (version > store->version)
            store->version = version;
        json_object_set_new(store->objects[kind], id, doc);
    }
    sqlite3_finalize(s);
    return code == SQLITE_DONE ? 0 : store_fail(store, err, "objects");
}

/* The write-ahead log, which SQLite locks nothing in: closing it again costs it no lock. */
static int open_log(struct store *store)
{
    return open(sqlite3_filename_wal(sqlite3_db_filename(store->db, "main")),
                O_RDWR | O_CLOEXEC | O_NOFOLLOW);
}

/* Room that is kept for changes while the disk is full: without it nobody could delete anything to
 * make some. A file system that knows no such thing goes without. */
static void reserve_room(struct store *store)
{
    int growth = GROWTH, keep = 1;
    struct stat st;
    sqlite3_file_control(store->db, "main", SQLITE_FCNTL_CHUNK_SIZE, &growth);
    if (!stat(sqlite3_db_filename(store->db, "main"), &st)) {
        sqlite3_int64 size = st.st_size + growth;
        sqlite3_file_control(store->db, "main", SQLITE_FCNTL_SIZE_HINT, &size);
    }
    sqlite3_file_control(store->db, "main", SQLITE_FCNTL_PERSIST_WAL, &keep);
    int fd = open_log(store);
    if (fd < 0)
        return;
    if (fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, LOG_RESERVE))
        mull_log(store->log, MULL_LOG_INFO, "database: no room is kept for it: %s",
                 strerror(errno));
    close(fd);
}

int store_open(const char *path, const struct mull_log *log, struct store **out,
               struct mull_error *err)
{
    struct store *store = calloc(1, sizeof(*store));
    if (!store)
        return mull_fail(err, ENOMEM, "database: no memory");
    store->log = log;
    for (unsigned i = 0; i < HOST_KINDS; i++)
        store->objects[i] = json_object();
    int ret = 0;
    if (sqlite3_open_v2(path, &store->db,
                        SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX |
                            SQLITE_OPEN_NOFOLLOW,
                        NULL) != SQLITE_OK ||
        sqlite3_exec(store->db,
                     "PRAGMA busy_timeout=5000; PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"
                     "PRAGMA cache_size=-4096; PRAGMA trusted_schema=OFF",
                     NULL, NULL, NULL) != SQLITE_OK)
        ret = store_fail(store, err, path);
    if (!ret)
        ret = store_migrate(store->db, STORE_VERSION, err);
    if (!ret && (sqlite3_prepare_v2(store->db,
                                    "INSERT INTO objects(kind, id, doc) VALUES(?1, ?2, ?3)"
                                    " ON CONFLICT(kind, id) DO UPDATE SET doc=?3",
                                    -1, &store->put, NULL) != SQLITE_OK ||
                 sqlite3_prepare_v2(store->db, "DELETE FROM objects WHERE kind=?1 AND id=?2", -1,
                                    &store->delete, NULL) != SQLITE_OK))
        ret = store_fail(store, err, "objects");
    if (!ret)
        ret = read_objects(store, err);
    if (!ret)
        reserve_room(store);
    if (ret) {
        store_close(store);
        return ret;
    }
    *out = store;
    return 0;
}

void store_close(struct store *store)
{
    if (!store)
        return;
    for (unsigned i = 0; i < HOST_KINDS; i++)
        json_decref(store->objects[i]);
    sqlite3_finalize(store->put);
    sqlite3_finalize(store->delete);
    sqlite3_close(store->db);
    free(store);
}

json_t *store_get(struct store *store, enum host_kind kind, const char *id)
{
    return json_object_get(store->objects[kind], id);
}

json_t *store_all(struct store *store, enum host_kind kind)
{
    return store->objects[kind];
}

json_t *store_find(struct store *store, enum host_kind kind, const char *member, const char *value)
{
    const char *id;
    json_t *doc;
    json_object_foreach(store->objects[kind], id, doc)
    {
        if (!strcmp(host_text(doc, member), value))
            return doc;
    }
    return NULL;
}

void store_put_memory(struct store *store, enum host_kind kind, const char *id, json_t *doc)
{
    json_object_set_new(doc, "_version", json_integer((json_int_t)++store->version));
    json_object_set_new(store->objects[kind], id, doc);
}

int store_put(struct store *store, enum host_kind kind, const char *id, json_t *doc,
              struct mull_error *err)
{
    json_object_set_new(doc, "_version", json_integer((json_int_t)++store->version));
    char *text = json_dumps(doc, JSON_COMPACT);
    int ret = text ? 0 : mull_fail(err, ENOMEM, "database: no memory");
    if (!ret) {
        sqlite3_bind_text(store->put, 1, host_kind_names[kind], -1, SQLITE_STATIC);
        sqlite3_bind_text(store->put, 2, id, -1, SQLITE_STATIC);
        sqlite3_bind_text(store->put, 3, text, -1, SQLITE_STATIC);
        if (sqlite3_step(store->put) != SQLITE_DONE)
            ret = store_fail(store, err, host_kind_names[kind]);
        sqlite3_reset(store->put);
        sqlite3_clear_bindings(store->put);
    }
    free(text);
    if (!ret)
        json_object_set(store->objects[kind], id, doc);
    store->touched = true;
    json_decref(doc);
    return ret;
}

int store_delete(struct store *store, enum host_kind kind, const char *id, struct mull_error *err)
{
    int ret = 0;
    sqlite3_bind_text(store->delete, 1, host_kind_names[kind], -1, SQLITE_STATIC);
    sqlite3_bind_text(store->delete, 2, id, -1, SQLITE_TRANSIENT);
    if (sqlite3_step(store->delete) != SQLITE_DONE)
        ret = store_fail(store, err, host_kind_names[kind]);
    sqlite3_reset(store->delete);
    sqlite3_clear_bindings(store->delete);
    if (!ret)
        json_object_del(store->objects[kind], id);
    store->touched = true;
    return ret;
}

int store_begin(struct store *store, struct mull_error *err)
{
    if (store->depth++)
        return 0;
    store->touched = false;
    if (sqlite3_exec(store->db, "BEGIN IMMEDIATE", NULL, NULL, NULL) == SQLITE_OK)
        return 0;
    store->depth--;
    return store_fail(store, err, "begin");
}

int store_end(struct store *store, int ret, struct mull_error *err)
{
    store->failed |= ret != 0;
    if (--store->depth)
        return ret;
    if (!store->failed && sqlite3_exec(store->db, "COMMIT", NULL, NULL, NULL) == SQLITE_OK)
        return 0;
    if (!ret)
        ret = store_fail(store, err, "commit");
    store->failed = false;
    sqlite3_exec(store->db, "ROLLBACK", NULL, NULL, NULL);
    if (!store->touched)
        return ret;
    /* What memory holds of it goes, too. */
    for (unsigned i = 0; i < HOST_KINDS; i++)
        json_object_clear(store->objects[i]);
    read_objects(store, NULL);
    return ret;
}

int store_sync(struct store *store, struct mull_error *err)
{
    /* Whatever is in the log is written, and both files are synced. */
    int code = sqlite3_wal_checkpoint_v2(store->db, NULL, SQLITE_CHECKPOINT_FULL, NULL, NULL);
    if (code == SQLITE_OK)
        return 0;
    if ((code & 0xff) != SQLITE_FULL)
        return store_fail(store, err, "checkpoint");
    /* No room to grow into: what is in the log, and synced, is on the disk as well. */
    int fd = open_log(store);
    int ret = fd < 0 || fdatasync(fd)
                  ? mull_fail(err, errno, "database: its log: %s", strerror(errno))
                  : 0;
    if (fd >= 0)
        close(fd);
    return ret;
}

static sqlite3_stmt *prepare(struct store *store, const char *sql, va_list args)
{
    sqlite3_stmt *s = NULL;
    if (sqlite3_prepare_v2(store->db, sql, -1, &s, NULL) != SQLITE_OK)
        return NULL;
    /* As many parameters as the statement has: NULL is a value, the sentinel ends the list. */
    for (int i = 1; i <= sqlite3_bind_parameter_count(s); i++)
        sqlite3_bind_text(s, i, va_arg(args, const char *), -1, SQLITE_TRANSIENT);
    return s;
}

int store_run(struct store *store, struct mull_error *err, const char *sql, ...)
{
    va_list args;
    va_start(args, sql);
    sqlite3_stmt *s = prepare(store, sql, args);
    va_end(args);
    int code = s ? sqlite3_step(s) : SQLITE_ERROR;
    while (code == SQLITE_ROW)
        code = sqlite3_step(s);
    int ret = code == SQLITE_DONE ? 0 : store_fail(store, err, "statement");
    sqlite3_finalize(s);
    return ret;
}

char *store_value(struct store *store, const char *sql, ...)
{
    va_list args;
    va_start(args, sql);
    sqlite3_stmt *s = prepare(store, sql, args);
    va_end(args);
    char *value = NULL;
    if (s && sqlite3_step(s) == SQLITE_ROW) {
        const char *text = (const char *)sqlite3_column_text(s, 0);
        value = text ? strdup(text) : NULL;
    }
    sqlite3_finalize(s);
    return value;
}

int store_query(struct store *store, struct mull_error *err,
                bool (*fn)(void *opaque, sqlite3_stmt *row), void *opaque, const char *sql, ...)
{
    va_list args;
    va_start(args, sql);
    sqlite3_stmt *s = prepare(store, sql, args);
    va_end(args);
    int code = s ? sqlite3_step(s) : SQLITE_ERROR;
    while (code == SQLITE_ROW && fn(opaque, s))
        code = sqlite3_step(s);
    int ret = code == SQLITE_DONE || code == SQLITE_ROW ? 0 : store_fail(store, err, "query");
    sqlite3_finalize(s);
    return ret;
}
