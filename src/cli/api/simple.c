/* See simple.h. */
#include "cli/api/simple.h"

#include <stdlib.h>
#include <string.h>

int simple_list(struct host_call *call, const struct simple_kind *kind)
{
    struct mull_error err = {0};
    json_t *items = api_list(call->api, kind->list, &err);
    int status = items ? output_list(call, items, kind->columns) : host_failed(call, &err);

    json_decref(items);
    return status;
}

char *simple_path(struct host_call *call, const struct simple_kind *kind, const char *name,
                  int *status)
{
    char *id = kind->by_name ? strdup(name) : host_find(call, kind->list, kind->what, name, status);
    char *tail = id ? api_path(call->api, "/%s", id) : NULL, *path = NULL;

    if (tail && asprintf(&path, "%s%s", kind->list, tail) < 0)
        path = NULL;
    if (id && !path)
        *status = host_fail(API_FAILED, "no memory");
    free(id);
    free(tail);
    return path;
}

int simple_info(struct host_call *call, const struct simple_kind *kind)
{
    int status;
    char *path = simple_path(call, kind, call->argument[0], &status);
    json_t *object = path ? host_send(call, "GET", path, NULL, &status) : NULL;

    if (object)
        status = output_object(call, object, kind->details ? kind->details : kind->columns);
    json_decref(object);
    return status;
}

int simple_create(struct host_call *call, const struct simple_kind *kind)
{
    int status;
    json_t *body = json_pack("{s:s}", "name", call->argument[0]);

    if (kind->put && !kind->put(call, body)) {
        json_decref(body);
        return API_USAGE;
    }
    json_t *made = host_send(call, "POST", strdup(kind->list), body, &status);
    json_decref(made);
    return status;
}

int simple_edit(struct host_call *call, const struct simple_kind *kind)
{
    int status;
    json_t *body = json_object();

    if (!kind->put(call, body) || !json_object_size(body)) {
        json_decref(body);
        return host_fail(API_USAGE, "%s %s: say what to change; see mullion %s --help", kind->what,
                         call->argument[0], call->command->words);
    }
    char *path = simple_path(call, kind, call->argument[0], &status);
    json_t *changed = path ? host_send(call, "PATCH", path, json_incref(body), &status) : NULL;
    json_decref(changed);
    json_decref(body);
    return status;
}

int simple_delete(struct host_call *call, const struct simple_kind *kind)
{
    int status = API_DONE;

    for (unsigned i = 0; i < call->arguments; i++) {
        int one;
        char *path = simple_path(call, kind, call->argument[i], &one);
        json_t *done = path ? host_send(call, "DELETE", path, NULL, &one) : NULL;

        json_decref(done);
        status = status ? status : one;
    }
    return status;
}

bool simple_put_text(struct host_call *call, json_t *body, const char *option, const char *member)
{
    const char *value = host_option(call, option);

    return !value || !json_object_set_new(body, member, json_string(value));
}

bool simple_put_switch(struct host_call *call, json_t *body, const char *option, const char *member)
{
    const char *value = host_option(call, option);

    return !value || !json_object_set_new(body, member, json_boolean(!strcmp(value, "on")));
}
