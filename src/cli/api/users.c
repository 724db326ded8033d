/* `mullion user`, `group`, `grant`, `token`: who may do what. */
#include <stdlib.h>
#include <string.h>

#include "cli/api/groups.h"
#include "cli/api/simple.h"

/* Every value of an option as an array under @member; nothing where it was not given. */
static bool put_list(struct host_call *call, json_t *body, const char *option, const char *member)
{
    const char *value;
    unsigned at = 0;
    json_t *list = NULL;

    while ((value = host_option_next(call, option, &at))) {
        if (!list)
            json_object_set_new(body, member, list = json_array());
        if (json_array_append_new(list, json_string(value)))
            return false;
    }
    return true;
}

static bool put_password(json_t *body, const char *user)
{
    char prompt[128];

    snprintf(prompt, sizeof(prompt), "New password of %.64s", user);
    char *secret = host_secret(prompt);
    bool good = secret && *secret && !json_object_set_new(body, "password", json_string(secret));

    if (!good)
        host_fail(API_USAGE, "no password was given");
    free(secret);
    return good;
}

/* ---- user ---- */

static bool put_user(struct host_call *call, json_t *body)
{
    return simple_put_text(call, body, "role", "role") &&
           simple_put_text(call, body, "full-name", "full_name") &&
           simple_put_switch(call, body, "enabled", "enabled") &&
           put_list(call, body, "group", "groups");
}

static bool put_new_user(struct host_call *call, json_t *body)
{
    return put_user(call, body) && put_password(body, call->argument[0]);
}

static const struct column user_columns[] = {
    {"NAME", "name", COLUMN_TEXT},
    {"FULL NAME", "full_name", COLUMN_TEXT},
    {"ROLE", "role", COLUMN_TEXT},
    {"GROUPS", "groups", COLUMN_LIST},
    {"ENABLED", "enabled", COLUMN_YES},
    {"LAST LOGIN", "last_login", COLUMN_TIME},
    {0},
};

static const struct simple_kind user = {
    .list = "/users", .what = "user", .by_name = true, .columns = user_columns, .put = put_user};
static const struct simple_kind new_user = {
    .list = "/users", .what = "user", .by_name = true, .put = put_new_user};

static int user_list(struct host_call *call)
{
    return simple_list(call, &user);
}

static int user_create(struct host_call *call)
{
    return simple_create(call, &new_user);
}

static int user_edit(struct host_call *call)
{
    return simple_edit(call, &user);
}

static int user_password(struct host_call *call)
{
    int status;
    json_t *body = json_object();

    if (!put_password(body, call->argument[0])) {
        json_decref(body);
        return API_USAGE;
    }
    json_t *done = host_send(call, "PATCH", api_path(call->api, "/users/%s", call->argument[0]),
                             body, &status);
    json_decref(done);
    return status;
}

static int user_delete(struct host_call *call)
{
    return simple_delete(call, &user);
}

/* ---- group ---- */

static bool put_group(struct host_call *call, json_t *body)
{
    return simple_put_text(call, body, "description", "description") &&
           put_list(call, body, "member", "members");
}

static const struct column group_columns[] = {
    {"NAME", "name", COLUMN_TEXT},
    {"DESCRIPTION", "description", COLUMN_TEXT},
    {"MEMBERS", "members", COLUMN_LIST},
    {0},
};

static const struct simple_kind group = {.list = "/groups",
                                         .what = "group",
                                         .by_name = true,
                                         .columns = group_columns,
                                         .put = put_group};

static int group_list(struct host_call *call)
{
    return simple_list(call, &group);
}

static int group_create(struct host_call *call)
{
    return simple_create(call, &group);
}

static int group_edit(struct host_call *call)
{
    return simple_edit(call, &group);
}

static int group_delete(struct host_call *call)
{
    return simple_delete(call, &group);
}

/* ---- grant ---- */

static const struct column grant_columns[] = {
    {"ID", "id", COLUMN_TEXT},
    {"WHO", "subject", COLUMN_TEXT},
    {"ROLE", "role", COLUMN_TEXT},
    {"ON", "object", COLUMN_TEXT},
    {0},
};

static const struct simple_kind grant = {
    .list = "/grants", .what = "grant", .by_name = true, .columns = grant_columns};

static int grant_list(struct host_call *call)
{
    return simple_list(call, &grant);
}

/* "machine:NAME" as the API wants it: with an id; folders are their own. */
static char *object_of(struct host_call *call, const char *text, int *status)
{
    static const struct {
        const char *kind, *list;
    } kinds[] = {{"machine", "/machines"},
                 {"pool", "/pools"},
                 {"datastore", "/datastores"},
                 {"network", "/networks"}};
    char *object = NULL;

    if (!strncmp(text, "folder:/", 8))
        return strdup(text);
    for (unsigned i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        size_t n = strlen(kinds[i].kind);

        if (strncmp(text, kinds[i].kind, n) || text[n] != ':')
            continue;
        char *id = host_find(call, kinds[i].list, kinds[i].kind, text + n + 1, status);
        if (id && asprintf(&object, "%s:%s", kinds[i].kind, id) < 0)
            object = NULL;
        free(id);
        return object;
    }
    *status = host_fail(API_USAGE,
                        "%s: give machine:NAME, pool:NAME, datastore:NAME, network:NAME or "
                        "folder:/PATH",
                        text);
    return NULL;
}

static int grant_create(struct host_call *call)
{
    int status = API_FAILED;
    char *object = object_of(call, call->argument[2], &status);

    if (!object)
        return status;
    json_t *made = host_send(call, "POST", strdup("/grants"),
                             json_pack("{s:s, s:s, s:s}", "subject", call->argument[0], "role",
                                       call->argument[1], "object", object),
                             &status);
    const char *id = json_string_value(json_object_get(made, "id"));
    if (id)
        puts(id);
    json_decref(made);
    free(object);
    return status;
}

static int grant_delete(struct host_call *call)
{
    return simple_delete(call, &grant);
}

/* ---- token ---- */

static const struct column token_columns[] = {
    {"NAME", "name", COLUMN_TEXT},       {"ID", "id", COLUMN_TEXT},
    {"USER", "user", COLUMN_TEXT},       {"ROLE", "role", COLUMN_TEXT},
    {"CREATED", "created", COLUMN_TIME}, {"EXPIRES", "expires", COLUMN_TIME},
    {"USED", "last_used", COLUMN_TIME},  {0},
};

static const struct simple_kind token = {
    .list = "/tokens", .what = "token", .columns = token_columns};

static int token_list(struct host_call *call)
{
    return simple_list(call, &token);
}

static int token_create(struct host_call *call)
{
    int status;
    json_t *body = json_pack("{s:s}", "name", call->argument[0]);

    if (!simple_put_text(call, body, "role", "role") ||
        !simple_put_text(call, body, "expires", "expires")) {
        json_decref(body);
        return API_USAGE;
    }
    json_t *made = host_send(call, "POST", strdup("/tokens"), body, &status);
    const char *secret = json_string_value(json_object_get(made, "token"));
    if (secret)
        puts(secret);
    json_decref(made);
    return status;
}

static int token_delete(struct host_call *call)
{
    return simple_delete(call, &token);
}

/* ---- The table ---- */

static const struct host_option user_options[] = {
    {"role", "administrator|operator|viewer|none", "what the user may do everywhere", HOST_TEXT,
     false},
    {"full-name", "TEXT", "for people", HOST_TEXT, false},
    {"group", "GROUP", "a group the user is in", HOST_GROUP, true},
    {"enabled", "on|off", "whether the user may log in", HOST_TEXT, false},
    {0},
};

static const struct host_option group_options[] = {
    {"description", "TEXT", "for people", HOST_TEXT, false},
    {"member", "USER", "who is in it", HOST_USER, true},
    {0},
};

static const struct host_option token_options[] = {
    {"role", "administrator|operator|viewer", "no more than this (what its user may)", HOST_TEXT,
     false},
    {"expires", "TIME", "like 2027-01-01T00:00:00Z (never)", HOST_TEXT, false},
    {0},
};

#define MANY HOST_ARGUMENTS_MAX
const struct host_command host_user_commands[] = {
    {"user list", "", "list the users", NULL, NULL, 0, 0, HOST_TEXT, HOST_LISTS, user_list},
    {"user create", "NAME", "make a user; asks for the password", NULL, user_options, 1, 1,
     HOST_TEXT, 0, user_create},
    {"user edit", "USER", "change a user", NULL, user_options, 1, 1, HOST_USER, 0, user_edit},
    {"user password", "USER", "give a user another password", NULL, NULL, 1, 1, HOST_USER, 0,
     user_password},
    {"user delete", "USER...", "delete users", NULL, NULL, 1, MANY, HOST_USER, 0, user_delete},
    {"group list", "", "list the groups", NULL, NULL, 0, 0, HOST_TEXT, HOST_LISTS, group_list},
    {"group create", "NAME", "make a group", NULL, group_options, 1, 1, HOST_TEXT, 0, group_create},
    {"group edit", "GROUP", "change a group", NULL, group_options, 1, 1, HOST_GROUP, 0, group_edit},
    {"group delete", "GROUP...", "delete groups", NULL, NULL, 1, MANY, HOST_GROUP, 0, group_delete},
    {"grant list", "", "list who may do what on single objects", NULL, NULL, 0, 0, HOST_TEXT,
     HOST_LISTS, grant_list},
    {"grant create", "user:NAME|group:NAME ROLE KIND:OBJECT", "let somebody do more on one object",
     "KIND is machine, pool, datastore, network or folder.", NULL, 3, 3, HOST_TEXT, 0,
     grant_create},
    {"grant delete", "ID...", "take grants back", NULL, NULL, 1, MANY, HOST_TEXT, 0, grant_delete},
    {"token list", "", "list the API tokens", NULL, NULL, 0, 0, HOST_TEXT, HOST_LISTS, token_list},
    {"token create", "NAME", "make an API token and print it, once", NULL, token_options, 1, 1,
     HOST_TEXT, 0, token_create},
    {"token delete", "TOKEN...", "take tokens back", NULL, NULL, 1, MANY, HOST_TOKEN, 0,
     token_delete},
    {0},
};
