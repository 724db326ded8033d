/*
 * The database (SQLite in WAL mode): the truth of what exists. Objects of every kind are JSON
 * documents, kept in memory, too, for reading; what is not an object (passwords, sessions,
 * events, statistics, answers to repeat) has a table of its own. All functions: lock held, but for
 * opening and closing. A change reaches the database first: where that fails, nothing has changed.
 */
#ifndef MULL_HOST_STORE_STORE_H
#define MULL_HOST_STORE_STORE_H

#include <sqlite3.h>

#include "host/host.h"

/** The newest schema that this version knows (user_version). */
#define STORE_VERSION 3

struct store {
    sqlite3 *db;
    sqlite3_stmt *put, *delete;  /* of objects */
    json_t *objects[HOST_KINDS]; /* id -> document */
    uint64_t version;            /* of the last change */
    unsigned depth;              /* of begin */
    bool failed;                 /* one of the nested ones */
    bool touched;                /* an object, since the outermost began */
    const struct mull_log *log;
};

/** Open or make the database, migrate it, read the objects. -EPROTO: it is a newer version's. */
int store_open(const char *path, const struct mull_log *log, struct store **out,
               struct mull_error *err);
void store_close(struct store *store);

/** Make the schema of an older version (tests) or the newest. */
int store_migrate(sqlite3 *db, int to, struct mull_error *err);

/** A document; members that begin with "_" are nobody else's business. Borrowed, or NULL. */
json_t *store_get(struct store *store, enum host_kind kind, const char *id);
/** All of a kind: id -> document, in the order in which they were made. Borrowed. */
json_t *store_all(struct store *store, enum host_kind kind);
/** The first whose string @member is @value. Borrowed, or NULL. */
json_t *store_find(struct store *store, enum host_kind kind, const char *member, const char *value);

/** Write a document (takes the reference, also on failure) and give it a new `_version`. */
int store_put(struct store *store, enum host_kind kind, const char *id, json_t *doc,
              struct mull_error *err);
/** The same in memory alone, for what need not survive. */
void store_put_memory(struct store *store, enum host_kind kind, const char *id, json_t *doc);
int store_delete(struct store *store, enum host_kind kind, const char *id, struct mull_error *err);

/** Several changes that happen together; they nest. */
int store_begin(struct store *store, struct mull_error *err);
/** End them. @param ret  not 0: take all of it back, in memory, too. @return @ret, or why the
 *  database refused: nothing has changed then. */
int store_end(struct store *store, int ret, struct mull_error *err);

/** All changes so far survive a power cut, too: before files go that a row has named. Any change
 *  survives the end of the process. */
int store_sync(struct store *store, struct mull_error *err);

/** Run one statement with text parameters (NULL: SQL's). @return 0 or -errno */
int store_run(struct store *store, struct mull_error *err, const char *sql, ...)
    __attribute__((sentinel));
/** The first column of the first row as text, malloc'ed; NULL: no row, or a failure. */
char *store_value(struct store *store, const char *sql, ...) __attribute__((sentinel));
/** Call @fn for each row until it returns false. */
int store_query(struct store *store, struct mull_error *err,
                bool (*fn)(void *opaque, sqlite3_stmt *row), void *opaque, const char *sql, ...)
    __attribute__((sentinel));

/** What SQLite says is wrong, as an error. */
int store_fail(struct store *store, struct mull_error *err, const char *what);

#endif
