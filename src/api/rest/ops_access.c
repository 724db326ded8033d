/*
 * Logging in and out, users, groups, grants and tokens.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/rest/ops.h"
#include "host/events.h"
#include "host/store/store.h"

/* ---- Sessions ---- */

static json_t *render_session(const struct principal *who)
{
    char expires[32];
    host_time(who->expires, expires);
    return json_pack("{s:s, s:s, s:s?, s:s?}", "user", who->user, "role", role_names[who->role],
                     "csrf_token", who->session ? who->csrf : NULL, "expires",
                     who->expires > 0 ? expires : NULL);
}

/* Slow: without the lock. */
void op_login(struct request *r)
{
    struct host_problem p;
    struct principal who;
    char token[65];
    unsigned wait;
    if (!r->listener->local && !limits_login(r->rest->limits, r->who.address, &wait)) {
        r->retry_after = wait;
        reply_error(r, HOST_RATE_LIMITED, NULL, "too many logins from %s; wait %u s",
                    r->who.address, wait);
        return;
    }
    if (auth_login(r->host, host_text(r->json, "user"), host_text(r->json, "password"),
                   r->who.address, &who, token, &p)) {
        reply_problem(r, &p);
        return;
    }
    r->who = who;
    r->known = true;
    snprintf(r->cookie, sizeof(r->cookie),
             "mullion_session=%s; Path=/; HttpOnly; Secure; SameSite=Strict; Max-Age=%u", token,
             r->host->options.session_minutes * 60);
    explicit_bzero(token, sizeof(token));
    reply(r, 201, render_session(&who));
}

void op_who_am_i(struct request *r)
{
    reply(r, 200, render_session(&r->who));
}

void op_logout(struct request *r)
{
    struct mull_error err = {0};
    struct host_problem p;
    if (r->who.session && auth_logout(r->host, &r->who, &err)) {
        host_problem_from(&p, &err);
        reply_problem(r, &p);
        return;
    }
    snprintf(r->cookie, sizeof(r->cookie),
             "mullion_session=; Path=/; HttpOnly; Secure; SameSite=Strict; Max-Age=0");
    reply(r, 204, NULL);
}

/* ---- Users ---- */

static int check_groups(struct host *host, json_t *list, struct host_problem *p)
{
    size_t i;
    json_t *item;
    json_array_foreach(list, i, item)
    {
        if (!store_get(host->store, KIND_GROUP, json_string_value(item)))
            return host_problem(p, HOST_INVALID, "/groups", "group %s: there is none",
                                json_string_value(item));
    }
    return 0;
}

/* Write a user and, where @hash is not NULL, the password's. */
static int put_user(struct host *host, const char *name, json_t *doc, const char *hash,
                    struct host_problem *p)
{
    struct mull_error err = {0};
    int ret = store_begin(host->store, &err);
    if (ret) {
        json_decref(doc);
        return host_problem_from(p, &err);
    }
    if (hash)
        ret = auth_set_hash(host, name, hash, &err);
    if (ret)
        json_decref(doc);
    else
        ret = store_put(host->store, KIND_USER, name, doc, &err);
    ret = store_end(host->store, ret, &err);
    return ret ? host_problem_from(p, &err) : 0;
}

static char *hash_of(struct request *r, struct host_problem *p, bool *failed)
{
    json_t *password = json_object_get(r->json, "password");
    char *hash = password ? auth_hash(json_string_value(password), p) : NULL;
    *failed = password && !hash;
    return hash;
}

void op_create_user(struct request *r)
{
    struct host *host = r->host;
    struct host_problem p;
    const char *name = host_text(r->json, "name"), *role = host_text(r->json, "role");
    json_t *enabled = json_object_get(r->json, "enabled");
    json_t *groups = json_object_get(r->json, "groups");
    bool failed;
    char *hash = hash_of(r, &p, &failed);
    host_lock(host);
    if (failed) {
        reply_problem(r, &p);
    } else if (!host_name_valid(name) || !strcmp(name, "local") || !strcmp(name, "system")) {
        reply_error(r, HOST_INVALID, "/name", "%s: is no name for a user", name);
    } else if (store_get(host->store, KIND_USER, name)) {
        reply_error(r, HOST_CONFLICT, "/name", "user %s: is there already", name);
    } else if (check_groups(host, groups, &p) ||
               put_user(host, name,
                        json_pack("{s:s, s:s, s:s, s:o, s:b, s:n, s:o}", "name", name, "full_name",
                                  host_text(r->json, "full_name"), "role", *role ? role : "none",
                                  "groups", groups ? json_deep_copy(groups) : json_array(),
                                  "enabled", !enabled || json_is_true(enabled), "last_login",
                                  "created", host_now_json()),
                        hash, &p)) {
        reply_problem(r, &p);
    } else {
        snprintf(r->location, sizeof(r->location), "/api/v1/users/%s", name);
        host_event(host, "user.created", NULL, name, r->who.user, "info", NULL, "user %s was made",
                   name);
        reply_object(r, 201, KIND_USER, store_get(host->store, KIND_USER, name), true);
    }
    host_unlock(host);
    free(hash);
}

static unsigned other_administrators(struct host *host, const char *name)
{
    unsigned n = 0;
    const char *id;
    json_t *doc;
    json_object_foreach(store_all(host->store, KIND_USER), id, doc)
    {
        n += strcmp(id, name) && !strcmp(host_text(doc, "role"), "administrator") &&
             json_is_true(json_object_get(doc, "enabled"));
    }
    return n;
}

/* Who is no administrator changes their own password and full name, nothing else. */
static int may_change_user(struct request *r, json_t *doc, bool knows_password,
                           struct host_problem *p)
{
    const char *name = host_text(doc, "name"), *key;
    json_t *value, *role = json_object_get(r->json, "role");
    json_t *enabled = json_object_get(r->json, "enabled");
    bool loses =
        (role && strcmp(json_string_value(role), "administrator")) || json_is_false(enabled);
    if (r->who.role == ROLE_ADMINISTRATOR) {
        if (!strcmp(host_text(doc, "role"), "administrator") && loses &&
            !other_administrators(r->host, name))
            return host_problem(p, HOST_CONFLICT, NULL, "user %s: is the last administrator", name);
        return check_groups(r->host, json_object_get(r->json, "groups"), p);
    }
    if (strcmp(name, r->who.user))
        return host_problem(p, HOST_FORBIDDEN, NULL, "this needs the role administrator");
    json_object_foreach(r->json, key, value)
    {
        if (strcmp(key, "password") && strcmp(key, "current_password") && strcmp(key, "full_name"))
            return host_problem(p, HOST_FORBIDDEN, NULL, "this needs the role administrator");
    }
    if (json_object_get(r->json, "password") && !knows_password)
        return host_problem(p, HOST_FORBIDDEN, "/current_password",
                            "one's own password is needed to change it");
    return 0;
}

void op_change_user(struct request *r)
{
    static const char *const members[] = {"full_name", "role", "groups", "enabled"};
    struct host *host = r->host;
    struct host_problem p;
    const char *name = r->param[0];
    json_t *current = json_object_get(r->json, "current_password");
    bool failed, knows = current && auth_check_password(host, name, json_string_value(current));
    char *hash = hash_of(r, &p, &failed);
    host_lock(host);
    json_t *old = store_get(host->store, KIND_USER, name);
    if (failed) {
        reply_problem(r, &p);
    } else if (!old || !auth_sees(host, &r->who, KIND_USER, name)) {
        reply_error(r, HOST_NOT_FOUND, NULL, "there is no user of that name");
    } else if (!has_changed(r, old)) {
        json_t *doc = json_deep_copy(old);
        for (unsigned i = 0; i < 4; i++) {
            json_t *value = json_object_get(r->json, members[i]);
            if (value)
                json_object_set(doc, members[i], value);
        }
        if (may_change_user(r, old, knows, &p)) {
            json_decref(doc);
            reply_problem(r, &p);
        } else if (put_user(host, name, doc, hash, &p)) {
            reply_problem(r, &p);
        } else {
            /* Whoever knew the old password is out. */
            if (hash || json_is_false(json_object_get(r->json, "enabled")))
                auth_end_sessions(host, name, r->who.session_hash, NULL);
            host_event(host, "user.changed", NULL, name, r->who.user, "info", NULL,
                       "user %s was changed", name);
            reply_object(r, 200, KIND_USER, store_get(host->store, KIND_USER, name), true);
        }
    }
    host_unlock(host);
    free(hash);
}

void op_delete_user(struct request *r)
{
    struct host_problem p;
    if (has_changed(r, r->object))
        return;
    if (auth_delete_user(r->host, r->param[0], &p)) {
        reply_problem(r, &p);
        return;
    }
    host_event(r->host, "user.deleted", NULL, r->param[0], r->who.user, "info", NULL,
               "user %s was deleted", r->param[0]);
    reply(r, 204, NULL);
}

/* ---- Groups: who is in them is written at the users ---- */

static void drop_text(json_t *list, const char *text)
{
    for (size_t i = json_array_size(list); i-- > 0;)
        if (!strcmp(json_string_value(json_array_get(list, i)), text))
            json_array_remove(list, i);
}

static bool has_text(json_t *list, const char *text)
{
    size_t i;
    json_t *item;
    json_array_foreach(list, i, item)
    {
        if (json_is_string(item) && !strcmp(json_string_value(item), text))
            return true;
    }
    return false;
}

/* @param members  NULL: as they are */
static int put_group(struct host *host, const char *name, json_t *doc, json_t *members,
                     struct host_problem *p)
{
    struct mull_error err = {0};
    size_t i;
    json_t *item, *user;
    const char *id;
    json_array_foreach(members, i, item)
    {
        if (!store_get(host->store, KIND_USER, json_string_value(item))) {
            json_decref(doc);
            return host_problem(p, HOST_INVALID, "/members", "user %s: there is none",
                                json_string_value(item));
        }
    }
    int ret = store_begin(host->store, &err);
    if (ret) {
        json_decref(doc);
        return host_problem_from(p, &err);
    }
    ret = doc ? store_put(host->store, KIND_GROUP, name, doc, &err)
              : store_delete(host->store, KIND_GROUP, name, &err);
    json_t *users = json_copy(store_all(host->store, KIND_USER));
    json_object_foreach(users, id, user)
    {
        bool is = has_text(json_object_get(user, "groups"), name), should = has_text(members, id);
        if (ret || !members || is == should)
            continue;
        json_t *changed = json_deep_copy(user);
        if (should)
            json_array_append_new(json_object_get(changed, "groups"), json_string(name));
        else
            drop_text(json_object_get(changed, "groups"), name);
        ret = store_put(host->store, KIND_USER, id, changed, &err);
    }
    json_decref(users);
    ret = store_end(host->store, ret, &err);
    return ret ? host_problem_from(p, &err) : 0;
}

void op_create_group(struct request *r)
{
    struct host_problem p;
    const char *name = host_text(r->json, "name");
    if (!host_name_valid(name)) {
        reply_error(r, HOST_INVALID, "/name", "%s: is no name for a group", name);
        return;
    }
    if (store_get(r->host->store, KIND_GROUP, name)) {
        reply_error(r, HOST_CONFLICT, "/name", "group %s: is there already", name);
        return;
    }
    json_t *doc =
        json_pack("{s:s, s:s}", "name", name, "description", host_text(r->json, "description"));
    if (put_group(r->host, name, doc, json_object_get(r->json, "members"), &p)) {
        reply_problem(r, &p);
        return;
    }
    snprintf(r->location, sizeof(r->location), "/api/v1/groups/%s", name);
    reply_object(r, 201, KIND_GROUP, store_get(r->host->store, KIND_GROUP, name), true);
}

void op_change_group(struct request *r)
{
    struct host_problem p;
    json_t *description = json_object_get(r->json, "description");
    if (has_changed(r, r->object))
        return;
    json_t *doc = json_deep_copy(r->object);
    if (description)
        json_object_set(doc, "description", description);
    if (put_group(r->host, r->param[0], doc, json_object_get(r->json, "members"), &p))
        reply_problem(r, &p);
    else
        reply_object(r, 200, KIND_GROUP, store_get(r->host->store, KIND_GROUP, r->param[0]), true);
}

void op_delete_group(struct request *r)
{
    struct host_problem p;
    json_t *nobody = json_array();
    char subject[HOST_NAME_MAX + 8];
    if (!has_changed(r, r->object)) {
        snprintf(subject, sizeof(subject), "group:%s", r->param[0]);
        if (put_group(r->host, r->param[0], NULL, nobody, &p)) {
            reply_problem(r, &p);
        } else {
            json_t *grant;
            while ((grant = store_find(r->host->store, KIND_GRANT, "subject", subject)) &&
                   !store_delete(r->host->store, KIND_GRANT, host_text(grant, "id"), NULL))
                ;
            reply(r, 204, NULL);
        }
    }
    json_decref(nobody);
}

void op_list_roles(struct request *r)
{
    reply_list(r,
               json_pack("[{s:s, s:[sssss]}, {s:s, s:[sss]}, {s:s, s:[s]}, {s:s, s:[]}]", "name",
                         "administrator", "permissions", "view", "operate", "configure", "users",
                         "audit", "name", "operator", "permissions", "view", "operate", "configure",
                         "name", "viewer", "permissions", "view", "name", "none", "permissions"),
               "name");
}

/* ---- Grants ---- */

static bool is_object(struct host *host, const char *object)
{
    static const enum host_kind kinds[] = {KIND_MACHINE, KIND_POOL, KIND_DATASTORE,
                                           KIND_NETWORK};
    if (!strncmp(object, "folder:/", 8))
        return true;
    for (unsigned i = 0; i < 4; i++) {
        size_t n = strlen(host_kind_names[kinds[i]]);
        if (!strncmp(object, host_kind_names[kinds[i]], n) && object[n] == ':' &&
            store_get(host->store, kinds[i], object + n + 1))
            return true;
    }
    return false;
}

void op_create_grant(struct request *r)
{
    struct host *host = r->host;
    struct mull_error err = {0};
    struct host_problem p;
    char id[HOST_ID_MAX];
    const char *subject = host_text(r->json, "subject"), *object = host_text(r->json, "object");
    bool user = !strncmp(subject, "user:", 5), group = !strncmp(subject, "group:", 6);
    if (!(user && store_get(host->store, KIND_USER, subject + 5)) &&
        !(group && store_get(host->store, KIND_GROUP, subject + 6))) {
        reply_error(r, HOST_INVALID, "/subject", "must be user:NAME or group:NAME of one there is");
        return;
    }
    if (!is_object(host, object)) {
        reply_error(r, HOST_INVALID, "/object",
                    "must be machine:UUID, pool:UUID, datastore:UUID, network:UUID of one there "
                    "is, or folder:/a/b");
        return;
    }
    host_uuid(id);
    json_t *doc = json_pack("{s:s, s:s, s:s, s:s}", "id", id, "subject", subject, "role",
                            host_text(r->json, "role"), "object", object);
    if (store_put(host->store, KIND_GRANT, id, doc, &err)) {
        host_problem_from(&p, &err);
        reply_problem(r, &p);
        return;
    }
    snprintf(r->location, sizeof(r->location), "/api/v1/grants/%s", id);
    reply_object(r, 201, KIND_GRANT, store_get(host->store, KIND_GRANT, id), true);
}

void op_delete_grant(struct request *r)
{
    struct mull_error err = {0};
    struct host_problem p;
    if (store_delete(r->host->store, KIND_GRANT, r->param[0], &err)) {
        host_problem_from(&p, &err);
        reply_problem(r, &p);
        return;
    }
    reply(r, 204, NULL);
}

/* ---- Tokens ---- */

void op_create_token(struct request *r)
{
    struct host *host = r->host;
    struct host_problem p;
    const char *user = host_text(r->json, "user"), *role = host_text(r->json, "role");
    const char *expires = host_text(r->json, "expires");
    char secret[72];
    if (!*user)
        user = r->who.local ? "admin" : r->who.user;
    json_t *owner = store_get(host->store, KIND_USER, user);
    int most = role_parse(host_text(owner, "role"));
    if (strcmp(user, r->who.user) && r->who.role != ROLE_ADMINISTRATOR) {
        reply_error(r, HOST_FORBIDDEN, "/user", "only administrators make tokens of others");
        return;
    }
    if (!owner) {
        reply_error(r, HOST_INVALID, "/user", "user %s: there is none", user);
        return;
    }
    /* A token makes no token that may do more than it. */
    if (r->who.capped && (int)r->who.role < most)
        most = (int)r->who.role;
    int wanted = *role ? role_parse(role) : most;
    if (wanted > most) {
        reply_error(r, HOST_FORBIDDEN, "/role", "at most %s", role_names[most < 0 ? 0 : most]);
        return;
    }
    double until = *expires ? host_time_parse(expires) : 0;
    if (*expires && until <= host_now()) {
        reply_error(r, HOST_INVALID, "/expires", "must be in the future");
        return;
    }
    json_t *doc = auth_make_token(host, user, (enum role)wanted, host_text(r->json, "name"), until,
                                  secret, &p);
    if (!doc) {
        reply_problem(r, &p);
        return;
    }
    snprintf(r->location, sizeof(r->location), "/api/v1/tokens/%s", host_text(doc, "id"));
    reply_object(r, 201, KIND_TOKEN, doc, true);
    json_object_set_new(r->out, "token", json_string(secret));
    explicit_bzero(secret, sizeof(secret));
}

void op_delete_token(struct request *r)
{
    struct mull_error err = {0};
    struct host_problem p;
    if (auth_delete_token(r->host, r->param[0], &err)) {
        host_problem_from(&p, &err);
        reply_problem(r, &p);
        return;
    }
    reply(r, 204, NULL);
}
