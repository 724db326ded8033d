/*
 * Idempotency: what a POST with an Idempotency-Key was answered is kept for a day, by who asked and
 * the key; the same request gets it again.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/rest/rest.h"
#include "host/store/store.h"

#define KEPT_SECONDS 86400
#define KEPT_MAX "10000"

static bool names(struct request *r, char key[65], char request[65])
{
    const char *given = header(r, "Idempotency-Key");
    if (!given || !*given || strcmp(r->method, "POST") || r->route->op->flags & OP_SECRET)
        return false;
    char *text = NULL;
    int n = asprintf(&text, "%s\n%s", r->who.user, given);
    if (n < 0)
        return false;
    host_sha256_hex(text, (size_t)n, key);
    free(text);
    char body[65];
    host_sha256_hex(r->body ? r->body : "", r->body_len, body);
    n = asprintf(&text, "%s\n%s", r->path, body);
    if (n < 0)
        return false;
    host_sha256_hex(text, (size_t)n, request);
    free(text);
    return true;
}

struct kept {
    struct request *r;
    const char *request;
    bool found;
};

static bool take(void *opaque, sqlite3_stmt *row)
{
    struct kept *k = opaque;
    k->found = true;
    if (strcmp((const char *)sqlite3_column_text(row, 0), k->request)) {
        reply_error(k->r, HOST_INVALID, NULL,
                    "Idempotency-Key: was used for another request; take a new one");
        return false;
    }
    json_t *body = json_loads((const char *)sqlite3_column_text(row, 3), JSON_DECODE_ANY, NULL);
    reply(k->r, sqlite3_column_int(row, 1), body);
    /* The location; behind it, since answers have ETags, the object's version. */
    const char *headers = (const char *)sqlite3_column_text(row, 2);
    size_t n = strcspn(headers, "\n");
    snprintf(k->r->location, sizeof(k->r->location), "%.*s", (int)n, headers);
    k->r->version = headers[n] ? strtoull(headers + n + 1, NULL, 10) : 0;
    if (k->r->status >= 400)
        k->r->type = "application/problem+json";
    return false;
}

bool answers_replay(struct request *r)
{
    char key[65], request[65], now[32];
    if (!names(r, key, request))
        return false;
    struct kept k = {.r = r, .request = request};
    snprintf(now, sizeof(now), "%.0f", host_now());
    store_query(r->host->store, NULL, take, &k,
                "SELECT request, status, headers, body FROM answers WHERE key = ?1 AND "
                "expires > ?2",
                key, now, NULL);
    return k.found;
}

void answers_keep(struct request *r)
{
    char key[65], request[65], expires[32], now[32], status[16], headers[192];
    if (r->status >= 500 || r->status == 429 || !names(r, key, request))
        return;
    char *body = r->out ? json_dumps(r->out, JSON_COMPACT | JSON_ENCODE_ANY) : strdup("null");
    snprintf(expires, sizeof(expires), "%.0f", host_now() + KEPT_SECONDS);
    snprintf(now, sizeof(now), "%.0f", host_now());
    snprintf(status, sizeof(status), "%d", r->status);
    snprintf(headers, sizeof(headers), "%s\n%llu", r->location, (unsigned long long)r->version);
    store_run(r->host->store, NULL, "DELETE FROM answers WHERE expires < ?", now, NULL);
    store_run(r->host->store, NULL,
              "DELETE FROM answers WHERE rowid NOT IN (SELECT rowid FROM answers ORDER BY "
              "expires DESC LIMIT " KEPT_MAX ")",
              NULL);
    store_run(r->host->store, NULL, "INSERT OR REPLACE INTO answers VALUES(?,?,?,?,?,?)", key,
              request, expires, status, headers, body, NULL);
    free(body);
}
