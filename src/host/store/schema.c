/*
 * The database's schema: one step for each version, each in a transaction of its own, so that a
 * database of any older version becomes the newest. A step that is released never changes.
 */
#include <errno.h>
#include <stdio.h>

#include "host/store/store.h"

static const char *const steps[STORE_VERSION] = {
    /* 1 */
    "CREATE TABLE objects(kind TEXT NOT NULL, id TEXT NOT NULL, doc TEXT NOT NULL,"
    "  PRIMARY KEY(kind, id));"
    "CREATE TABLE passwords(user TEXT PRIMARY KEY, hash TEXT NOT NULL);"
    "CREATE TABLE sessions(hash TEXT PRIMARY KEY, user TEXT NOT NULL, csrf TEXT NOT NULL,"
    "  expires REAL NOT NULL);"
    "CREATE TABLE events(id INTEGER PRIMARY KEY, time REAL NOT NULL, type TEXT NOT NULL,"
    "  object TEXT, severity TEXT NOT NULL, doc TEXT NOT NULL);"
    "CREATE TABLE audit(id INTEGER PRIMARY KEY, time REAL NOT NULL, user TEXT, address TEXT,"
    "  method TEXT NOT NULL, path TEXT NOT NULL, status INTEGER NOT NULL);"
    "CREATE TABLE answers(key TEXT PRIMARY KEY, request TEXT NOT NULL, expires REAL NOT NULL,"
    "  status INTEGER NOT NULL, headers TEXT NOT NULL, body TEXT NOT NULL);",
    /* 2: statistics; events are asked for by object */
    "CREATE TABLE stats(object TEXT NOT NULL, level INTEGER NOT NULL, time INTEGER NOT NULL,"
    "  n INTEGER NOT NULL, cpu REAL, memory REAL, disk_read REAL, disk_write REAL, net_rx REAL,"
    "  net_tx REAL, PRIMARY KEY(object, level, time)) WITHOUT ROWID;"
    "CREATE INDEX events_object ON events(object, id);",
    /* 3: more of them */
    "ALTER TABLE stats ADD COLUMN disk_reads REAL; ALTER TABLE stats ADD COLUMN disk_writes REAL;"
    "ALTER TABLE stats ADD COLUMN net_rx_packets REAL;"
    "ALTER TABLE stats ADD COLUMN net_tx_packets REAL; ALTER TABLE stats ADD COLUMN balloon REAL;",
};

static int version_of(sqlite3 *db)
{
    sqlite3_stmt *s = NULL;
    int version = -1;
    if (sqlite3_prepare_v2(db, "PRAGMA user_version", -1, &s, NULL) == SQLITE_OK &&
        sqlite3_step(s) == SQLITE_ROW)
        version = sqlite3_column_int(s, 0);
    sqlite3_finalize(s);
    return version;
}

int store_migrate(sqlite3 *db, int to, struct mull_error *err)
{
    int version = version_of(db);
    if (version < 0)
        return mull_fail(err, EIO, "database: %s", sqlite3_errmsg(db));
    if (version > STORE_VERSION)
        return mull_fail(err, EPROTO,
                         "database: made by a newer version (schema %d, this one knows %d); "
                         "use that version, or another data folder",
                         version, STORE_VERSION);
    for (; version < to; version++) {
        char end[64];
        snprintf(end, sizeof(end), "PRAGMA user_version=%d; COMMIT", version + 1);
        if (sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL) != SQLITE_OK ||
            sqlite3_exec(db, steps[version], NULL, NULL, NULL) != SQLITE_OK ||
            sqlite3_exec(db, end, NULL, NULL, NULL) != SQLITE_OK) {
            int full = sqlite3_errcode(db) == SQLITE_FULL;
            mull_fail(err, full ? ENOSPC : EIO, "database: migration to version %d: %s",
                      version + 1, sqlite3_errmsg(db));
            sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
            return -err->code;
        }
    }
    return 0;
}
