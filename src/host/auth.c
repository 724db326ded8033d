/*
 * See auth.h: roles, sessions, tokens, grants. Passwords are in password.c.
 */
#include "host/auth.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/events.h"
#include "host/pools.h"
#include "host/store/store.h"

const char *const role_names[5] = {"none", "viewer", "operator", "administrator", NULL};

int role_parse(const char *name)
{
    for (int i = 0; name && role_names[i]; i++)
        if (!strcmp(role_names[i], name))
            return i;
    return -1;
}

static enum role role_of(const json_t *doc)
{
    int role = role_parse(host_text(doc, "role"));
    return role < 0 ? ROLE_NONE : (enum role)role;
}

static json_t *enabled_user(struct host *host, const char *name)
{
    json_t *user = store_get(host->store, KIND_USER, name);
    return user && json_is_true(json_object_get(user, "enabled")) ? user : NULL;
}

/* ---- Sessions ---- */

struct session_row {
    char user[HOST_NAME_MAX], csrf[65];
    double expires;
    bool found;
};

static bool read_session(void *opaque, sqlite3_stmt *row)
{
    struct session_row *s = opaque;
    snprintf(s->user, sizeof(s->user), "%s", (const char *)sqlite3_column_text(row, 0));
    snprintf(s->csrf, sizeof(s->csrf), "%s", (const char *)sqlite3_column_text(row, 1));
    s->expires = sqlite3_column_double(row, 2);
    s->found = true;
    return false;
}

static int make_session(struct host *host, const char *user, struct principal *who, char token[65],
                        struct host_problem *p)
{
    struct mull_error err = {0};
    char expires[32], now[32], kept[16];
    host_random_hex(token, 32);
    host_random_hex(who->csrf, 32);
    host_sha256_hex(token, 64, who->session_hash);
    who->expires = host_now() + host->options.session_minutes * 60.0;
    snprintf(expires, sizeof(expires), "%.3f", who->expires);
    snprintf(now, sizeof(now), "%.3f", host_now());
    snprintf(kept, sizeof(kept), "%u", host->options.sessions_max - 1);
    /* The oldest sessions of a user who has too many end. */
    int ret = store_begin(host->store, &err);
    if (!ret) {
        ret = store_run(host->store, &err, "DELETE FROM sessions WHERE expires < ?", now, NULL);
        if (!ret)
            ret = store_run(host->store, &err,
                            "DELETE FROM sessions WHERE user = ?1 AND rowid NOT IN (SELECT rowid "
                            "FROM sessions WHERE user = ?1 ORDER BY expires DESC LIMIT ?2)",
                            user, kept, NULL);
        if (!ret)
            ret = store_run(host->store, &err, "INSERT INTO sessions VALUES(?,?,?,?)",
                            who->session_hash, user, who->csrf, expires, NULL);
        ret = store_end(host->store, ret, &err);
    }
    return ret ? host_problem_from(p, &err) : 0;
}

static void note_login(struct host *host, const char *name)
{
    json_t *user = store_get(host->store, KIND_USER, name);
    json_t *doc = user ? json_deep_copy(user) : NULL;
    if (!doc)
        return;
    json_object_set_new(doc, "last_login", host_now_json());
    store_put(host->store, KIND_USER, name, doc, NULL);
}

int auth_login(struct host *host, const char *user, const char *password, const char *address,
               struct principal *who, char token[65], struct host_problem *p)
{
    memset(who, 0, sizeof(*who));
    bool good = auth_check_password(host, user, password);
    host_lock(host);
    json_t *doc = good ? enabled_user(host, user) : NULL;
    int ret = -1;
    if (!doc) {
        host_event(host, "login.failed", NULL, NULL, NULL, "warning", NULL,
                   "a login from %s failed", address);
        host_problem(p, HOST_UNAUTHENTICATED, NULL, "user or password is wrong");
    } else {
        snprintf(who->user, sizeof(who->user), "%s", user);
        who->role = role_of(doc);
        who->session = true;
        snprintf(who->address, sizeof(who->address), "%s", address);
        ret = make_session(host, user, who, token, p);
        if (!ret) {
            note_login(host, user);
            host_event(host, "login", NULL, NULL, who->user, "info", NULL, "%s logged in from %s",
                       who->user, address);
        }
    }
    host_unlock(host);
    return ret;
}

int auth_session(struct host *host, const char *token, struct principal *who)
{
    struct session_row s = {0};
    memset(who, 0, sizeof(*who));
    if (strlen(token) != 64)
        return -1;
    host_sha256_hex(token, 64, who->session_hash);
    store_query(host->store, NULL, read_session, &s,
                "SELECT user, csrf, expires FROM sessions WHERE hash = ?", who->session_hash, NULL);
    json_t *user = s.found && s.expires > host_now() ? enabled_user(host, s.user) : NULL;
    if (!user)
        return -1;
    snprintf(who->user, sizeof(who->user), "%s", s.user);
    snprintf(who->csrf, sizeof(who->csrf), "%s", s.csrf);
    who->expires = s.expires;
    who->role = role_of(user);
    who->session = true;
    return 0;
}

bool auth_still_good(struct host *host, struct principal *who)
{
    if (who->local)
        return true;
    json_t *user = enabled_user(host, who->user);
    json_t *token = *who->token_id ? store_get(host->store, KIND_TOKEN, who->token_id) : NULL;
    const char *expires = host_text(token, "expires");
    if (!user || (*who->token_id && !token) || (*expires && host_time_parse(expires) <= host_now()))
        return false;
    if (who->session) {
        char *found = store_value(host->store, "SELECT expires FROM sessions WHERE hash = ?",
                                  who->session_hash, NULL);
        bool good = found && strtod(found, NULL) > host_now();
        free(found);
        if (!good)
            return false;
    }
    who->role = role_of(user);
    if (token && role_of(token) < who->role)
        who->role = role_of(token);
    return true;
}

int auth_logout(struct host *host, const struct principal *who, struct mull_error *err)
{
    return store_run(host->store, err, "DELETE FROM sessions WHERE hash = ?", who->session_hash,
                     NULL);
}

int auth_end_sessions(struct host *host, const char *user, const char *but, struct mull_error *err)
{
    return store_run(host->store, err, "DELETE FROM sessions WHERE user = ?1 AND hash <> ?2", user,
                     but ? but : "", NULL);
}

/* ---- Tokens: "mul_" and 64 digits, of which the digest is kept ---- */

int auth_token(struct host *host, const char *token, struct principal *who)
{
    char hash[65];
    memset(who, 0, sizeof(*who));
    if (strlen(token) != 68 || strncmp(token, "mul_", 4))
        return -1;
    host_sha256_hex(token, 68, hash);
    json_t *doc = store_find(host->store, KIND_TOKEN, "_hash", hash);
    json_t *user = doc ? enabled_user(host, host_text(doc, "user")) : NULL;
    const char *expires = host_text(doc, "expires");
    if (!user || (*expires && host_time_parse(expires) <= host_now()))
        return -1;
    snprintf(who->user, sizeof(who->user), "%s", host_text(doc, "user"));
    who->role = role_of(doc) < role_of(user) ? role_of(doc) : role_of(user);
    who->capped = role_of(doc) < role_of(user);
    snprintf(who->token_id, sizeof(who->token_id), "%s", host_text(doc, "id"));
    /* Not worth a write: it is there when the token's document is next written. */
    json_object_set_new(doc, "last_used", host_now_json());
    return 0;
}

json_t *auth_make_token(struct host *host, const char *user, enum role role, const char *name,
                        double expires, char secret[72], struct host_problem *p)
{
    struct mull_error err = {0};
    char id[HOST_ID_MAX], hash[65], until[32];
    strcpy(secret, "mul_");
    host_random_hex(secret + 4, 32);
    host_sha256_hex(secret, 68, hash);
    host_uuid(id);
    host_time(expires, until);
    json_t *doc =
        json_pack("{s:s, s:s, s:s, s:s, s:o, s:o, s:n, s:s}", "id", id, "name", name, "user", user,
                  "role", role_names[role], "created", host_now_json(), "expires",
                  expires > 0 ? json_string(until) : json_null(), "last_used", "_hash", hash);
    if (store_put(host->store, KIND_TOKEN, id, doc, &err)) {
        host_problem_from(p, &err);
        return NULL;
    }
    return store_get(host->store, KIND_TOKEN, id);
}

int auth_delete_token(struct host *host, const char *id, struct mull_error *err)
{
    return store_delete(host->store, KIND_TOKEN, id, err);
}

/* ---- Grants ---- */

static bool in_list(const json_t *list, const char *name)
{
    size_t i;
    json_t *item;
    json_array_foreach((json_t *)list, i, item)
    {
        if (json_is_string(item) && !strcmp(json_string_value(item), name))
            return true;
    }
    return false;
}

static bool is_subject(const char *subject, const char *name, const json_t *user)
{
    if (!strncmp(subject, "user:", 5))
        return !strcmp(subject + 5, name);
    return !strncmp(subject, "group:", 6) && in_list(json_object_get(user, "groups"), subject + 6);
}

/* "/a" holds "/a" and "/a/b", not "/ab". */
static bool folder_holds(const char *folder, const char *inner)
{
    size_t n = strlen(folder);
    if (n == 1)
        return true;
    return !strncmp(folder, inner, n) && (inner[n] == '\0' || inner[n] == '/');
}

static bool covers(struct host *host, const char *object, enum host_kind kind, const json_t *doc)
{
    char own[160];
    snprintf(own, sizeof(own), "%s:%s", host_kind_names[kind], host_text(doc, "id"));
    if (!strcmp(object, own))
        return true;
    if (!strncmp(object, "pool:", 5) && (kind == KIND_POOL || kind == KIND_MACHINE))
        return pool_holds(host, object + 5, host_text(doc, kind == KIND_POOL ? "id" : "pool"));
    if (kind != KIND_MACHINE)
        return false;
    if (!strncmp(object, "folder:", 7))
        return folder_holds(object + 7, host_text(doc, "folder"));
    if (!strncmp(object, "datastore:", 10))
        return !strcmp(object + 10, host_text(doc, "datastore"));
    return false;
}

enum role auth_role_on(struct host *host, const struct principal *who, enum host_kind kind,
                       json_t *doc)
{
    enum role best = who->role;
    json_t *user = store_get(host->store, KIND_USER, who->user), *grant;
    const char *id;
    if (who->local || best == ROLE_ADMINISTRATOR || who->capped)
        return best;
    json_object_foreach(store_all(host->store, KIND_GRANT), id, grant)
    {
        if (role_of(grant) > best && is_subject(host_text(grant, "subject"), who->user, user) &&
            covers(host, host_text(grant, "object"), kind, doc))
            best = role_of(grant);
    }
    return best;
}

bool auth_sees(struct host *host, const struct principal *who, enum host_kind kind, const char *id)
{
    json_t *doc = store_get(host->store, kind, id);
    switch (kind) {
    case KIND_USER:
        return who->role == ROLE_ADMINISTRATOR || !strcmp(who->user, id);
    case KIND_GROUP:
    case KIND_GRANT:
    case KIND_SETTING:
        return who->role == ROLE_ADMINISTRATOR;
    case KIND_TOKEN:
    case KIND_UPLOAD:
    case KIND_DOWNLOAD:
        return who->role == ROLE_ADMINISTRATOR ||
               (doc && !strcmp(host_text(doc, "user"), who->user));
    case KIND_TASK: {
        if (who->role >= ROLE_VIEWER || (doc && !strcmp(host_text(doc, "user"), who->user)))
            return true;
        const char *object = host_text(doc, "object");
        return !strncmp(object, "machine:", 8) && auth_sees(host, who, KIND_MACHINE, object + 8);
    }
    default:
        /* What is gone is only told to those who could see all. */
        return doc ? auth_role_on(host, who, kind, doc) >= ROLE_VIEWER : who->role >= ROLE_VIEWER;
    }
}

/* ---- Users ---- */

static int delete_matching(struct host *host, enum host_kind kind, const char *member,
                           const char *value, struct mull_error *err)
{
    json_t *doc;
    int ret = 0;
    while (!ret && (doc = store_find(host->store, kind, member, value))) {
        char id[HOST_NAME_MAX];
        snprintf(id, sizeof(id), "%s", host_text(doc, "id"));
        ret = store_delete(host->store, kind, id, err);
    }
    return ret;
}

static unsigned administrators(struct host *host)
{
    unsigned n = 0;
    const char *id;
    json_t *doc;
    json_object_foreach(store_all(host->store, KIND_USER), id, doc)
    {
        n += role_of(doc) == ROLE_ADMINISTRATOR && json_is_true(json_object_get(doc, "enabled"));
    }
    return n;
}

int auth_delete_user(struct host *host, const char *user, struct host_problem *p)
{
    struct mull_error err = {0};
    json_t *doc = store_get(host->store, KIND_USER, user);
    char subject[HOST_NAME_MAX + 8];
    if (!doc)
        return host_problem(p, HOST_NOT_FOUND, NULL, "user %s: there is none", user);
    if (role_of(doc) == ROLE_ADMINISTRATOR && administrators(host) < 2)
        return host_problem(p, HOST_CONFLICT, NULL,
                            "user %s: the last administrator cannot be deleted", user);
    snprintf(subject, sizeof(subject), "user:%s", user);
    int ret = store_begin(host->store, &err);
    if (ret)
        return host_problem_from(p, &err);
    ret = delete_matching(host, KIND_TOKEN, "user", user, &err);
    if (!ret)
        ret = delete_matching(host, KIND_GRANT, "subject", subject, &err);
    if (!ret)
        ret = auth_end_sessions(host, user, NULL, &err);
    if (!ret)
        ret = store_run(host->store, &err, "DELETE FROM passwords WHERE user = ?", user, NULL);
    if (!ret)
        ret = store_delete(host->store, KIND_USER, user, &err);
    ret = store_end(host->store, ret, &err);
    return ret ? host_problem_from(p, &err) : 0;
}
