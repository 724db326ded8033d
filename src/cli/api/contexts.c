/*
 * `mullion context` and `mullion whoami`: the hosts a user knows. A host is trusted by its key once
 * a person has compared it, and the password becomes a token that is kept instead.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/api/groups.h"
#include "cli/api/output.h"
#include "cli/api/place.h"

static const struct column columns[] = {
    {"NAME", "name", COLUMN_TEXT},
    {"URL", "url", COLUMN_TEXT},
    {"CURRENT", "current", COLUMN_YES},
    {0},
};

static json_t *read_contexts(void)
{
    struct mull_error err = {0};
    json_t *all = host_contexts_read(&err);

    if (!all)
        host_fail(API_FAILED, "%s", err.message);
    return all;
}

static int write_contexts(json_t *all)
{
    struct mull_error err = {0};
    int ret = host_contexts_write(all, &err);

    return ret ? host_fail(API_FAILED, "%s", err.message) : API_DONE;
}

static int list(struct host_call *call)
{
    json_t *all = read_contexts(), *items = json_array(), *context;
    const char *current = json_string_value(json_object_get(all, "current")), *name;
    int status = API_FAILED;

    json_object_foreach(json_object_get(all, "contexts"), name, context) json_array_append_new(
        items, json_pack("{s:s, s:O, s:b}", "name", name, "url", json_object_get(context, "url"),
                         "current", current && !strcmp(current, name)));
    if (all)
        status = output_list(call, items, columns);
    json_decref(items);
    json_decref(all);
    return status;
}

static int use(struct host_call *call)
{
    json_t *all = read_contexts();
    const char *name = call->argument[0];
    int status;

    if (!all)
        return API_FAILED;
    if (!strcmp(name, "none"))
        json_object_set_new(all, "current", json_null());
    else if (json_object_get(json_object_get(all, "contexts"), name))
        json_object_set_new(all, "current", json_string(name));
    else {
        json_decref(all);
        return host_fail(API_NOT_FOUND, "context %s: there is none; see mullion context list",
                         name);
    }
    status = write_contexts(all);
    json_decref(all);
    return status;
}

static int drop(struct host_call *call)
{
    json_t *all = read_contexts();
    const char *name = call->argument[0];
    const char *current = json_string_value(json_object_get(all, "current"));
    int status;

    if (!all)
        return API_FAILED;
    bool was_current = current && !strcmp(current, name);
    if (json_object_del(json_object_get(all, "contexts"), name)) {
        status = host_fail(API_NOT_FOUND, "context %s: there is none", name);
    } else {
        if (was_current)
            json_object_set_new(all, "current", json_null());
        status = write_contexts(all);
    }
    json_decref(all);
    return status;
}

/* ---- add ---- */

/* The key to trust: what --pin says, or what the server shows and a person accepts. @return false:
 *  it is not trusted, which has been said */
static bool trusted_pin(struct host_call *call, const char *url, char pin[64])
{
    const char *given = host_option(call, "pin");
    struct mull_error err = {0};

    if (given) {
        snprintf(pin, 64, "%s", given);
        return true;
    }
    if (api_server_pin(url, pin, &err)) {
        host_fail(API_UNREACHABLE, "%s", err.message);
        return false;
    }
    fprintf(
        stderr,
        "%s shows the key\n  %s\nOn that host, mullion host status prints the same if it is the "
        "right one.\n",
        url, pin);
    if (host_confirm("Do you trust it?"))
        return true;
    host_fail(API_DENIED, "not trusted; give --pin where nobody can be asked");
    return false;
}

/* Log in, and make a token of it. */
static json_t *make_token(struct host_call *call, const struct api_target *target, const char *user,
                          int *status)
{
    struct mull_error err = {0};
    char host[65] = "", name[96];
    struct api *api = NULL;
    char *secret = host_secret("Password");
    json_t *session = NULL, *made = NULL;

    gethostname(host, sizeof(host) - 1);
    snprintf(name, sizeof(name), "mullion@%s", host);
    *status = API_FAILED;
    if (secret && !api_open(target, &api, &err)) {
        session = api_call(api, "POST", "/sessions",
                           json_pack("{s:s, s:s}", "user", user, "password", secret), &err);
        const char *csrf = json_string_value(json_object_get(session, "csrf_token"));
        json_t *body = json_pack("{s:s}", "name", name);
        char *text = json_dumps(body, JSON_COMPACT);

        if (csrf)
            made = api_call_session(api, csrf, "/tokens", text, &err);
        *status = api_status(api);
        free(text);
        json_decref(body);
    }
    if (!made)
        host_fail(*status, "%s", secret ? err.message : "no password was given");
    json_t *token = json_incref(json_object_get(made, "token"));
    if (secret)
        explicit_bzero(secret, strlen(secret));
    free(secret);
    json_decref(session);
    json_decref(made);
    api_close(api);
    return token;
}

static int add(struct host_call *call)
{
    const char *name = call->argument[0], *url = call->argument[1];
    const char *user = host_option(call, "user");
    char pin[64];
    int status = API_DONE;

    if (strncmp(url, "https://", 8))
        return host_fail(API_USAGE, "%s: give https://NAME:PORT", url);
    json_t *all = read_contexts();
    if (!all || !trusted_pin(call, url, pin)) {
        json_decref(all);
        return API_DENIED;
    }
    struct api_target target = {.url = url, .pin = pin};
    json_t *token = host_option(call, "token")
                        ? json_string(host_option(call, "token"))
                        : make_token(call, &target, user ? user : "admin", &status);
    if (token) {
        json_object_set_new(json_object_get(all, "contexts"), name,
                            json_pack("{s:s, s:s, s:o}", "url", url, "pin", pin, "token", token));
        if (!json_is_string(json_object_get(all, "current")))
            json_object_set_new(all, "current", json_string(name));
        status = write_contexts(all);
    }
    json_decref(all);
    return status;
}

static const struct column who_columns[] = {
    {"user", "user", COLUMN_TEXT},
    {"role", "role", COLUMN_TEXT},
    {"until", "expires", COLUMN_TIME},
    {0},
};

static int whoami(struct host_call *call)
{
    int status;
    json_t *session = host_send(call, "GET", strdup("/sessions/current"), NULL, &status);

    if (session)
        status = output_object(call, session, who_columns);
    json_decref(session);
    return status;
}

static const struct host_option add_options[] = {
    {"user", "NAME", "who logs in (admin); the password is asked for or read", HOST_TEXT, false},
    {"pin", "sha256//KEY", "the key of the host, instead of asking", HOST_TEXT, false},
    {"token", "TOKEN", "an API token, instead of logging in", HOST_TEXT, false},
    {0},
};

const struct host_command host_context_commands[] = {
    {"context list", "", "list the hosts that you know", NULL, NULL, 0, 0, HOST_TEXT,
     HOST_LISTS | HOST_OFFLINE, list},
    {"context add", "NAME URL", "get to know a host", NULL, add_options, 2, 2, HOST_TEXT,
     HOST_OFFLINE, add},
    {"context use", "NAME|none", "speak to this host from now on; none: to this machine's own",
     NULL, NULL, 1, 1, HOST_CONTEXT, HOST_OFFLINE, use},
    {"context remove", "NAME", "forget a host", NULL, NULL, 1, 1, HOST_CONTEXT, HOST_OFFLINE, drop},
    {"whoami", "", "show who the host takes you for", NULL, NULL, 0, 0, HOST_TEXT, HOST_LISTS,
     whoami},
    {0},
};
