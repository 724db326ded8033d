/* `mullion start`, `stop`, `restart`, `pause`, `resume`, `reset`, `delete`: what is done to
 * machines, several at once. */
#include <stdlib.h>
#include <string.h>

#include "cli/api/groups.h"

/* One machine; *task stays NULL where it failed, which has been said. */
static json_t *begin(struct host_call *call, const char *name, const char *action,
                     const json_t *body, int *status)
{
    char *id = host_find(call, "/machines", "machine", name, status);
    json_t *task = NULL;

    if (id)
        task = host_send(call, "POST", api_path(call->api, "/machines/%s/%s", id, action),
                         body ? json_deep_copy(body) : NULL, status);
    free(id);
    return task;
}

/* Begin them all, then wait for each: they run side by side. */
static int act_on_all(struct host_call *call, const char *action, const json_t *body)
{
    json_t *tasks[HOST_ARGUMENTS_MAX];
    int status = API_DONE;

    for (unsigned i = 0; i < call->arguments; i++) {
        int one = API_DONE;

        tasks[i] = begin(call, call->argument[i], action, body, &one);
        status = status ? status : one;
    }
    for (unsigned i = 0; i < call->arguments; i++) {
        int one = tasks[i] ? host_wait(call, tasks[i], NULL) : API_DONE;

        status = status ? status : one;
    }
    return status;
}

static int plain(struct host_call *call)
{
    return act_on_all(call, call->command->words, NULL);
}

/* Stop and restart ask the guest, and pull the plug where it does not answer. */
static int graceful(struct host_call *call)
{
    const char *seconds = host_option(call, "timeout");
    json_t *timeout = seconds ? host_number("timeout", seconds, 0, 86400) : json_integer(60);

    if (!timeout)
        return API_USAGE;
    json_t *body =
        json_pack("{s:b, s:o}", "force", host_option(call, "force") != NULL, "timeout", timeout);
    int status = act_on_all(call, call->command->words, body);
    json_decref(body);
    return status;
}

/* ---- delete ---- */

static bool has_disks(struct host_call *call, const char *id, bool *known)
{
    struct mull_error err = {0};
    char *path = api_path(call->api, "/machines/%s", id);
    json_t *machine = path ? api_call(call->api, "GET", path, NULL, &err) : NULL;
    bool has = json_array_size(json_object_get(json_object_get(machine, "config"), "disks"));

    *known = machine != NULL;
    if (!machine)
        host_failed(call, &err);
    json_decref(machine);
    free(path);
    return has;
}

static int delete_one(struct host_call *call, const char *name, const char *disks)
{
    char question[256];
    bool known;
    int status;
    char *id = host_find(call, "/machines", "machine", name, &status);

    if (!id)
        return status;
    bool has = has_disks(call, id, &known);
    if (!known) {
        free(id);
        return API_FAILED;
    }
    if (has && !disks) {
        free(id);
        return host_fail(API_USAGE,
                         "%s has disks: say what happens to them, --disks delete or --disks keep",
                         name);
    }
    snprintf(question, sizeof(question), "Delete machine %.100s%s?", name,
             !has                     ? ""
             : !strcmp(disks, "keep") ? " and keep its disks"
                                      : " AND ITS DISKS");
    if (!host_option(call, "yes") && !host_confirm(question)) {
        free(id);
        return host_fail(API_FAILED, "%s: not deleted; give --yes where nobody can be asked", name);
    }
    json_t *task = host_send(
        call, "DELETE", api_path(call->api, "/machines/%s?disks=%s", id, disks ? disks : "keep"),
        NULL, &status);
    free(id);
    return task ? host_wait(call, task, NULL) : status;
}

static int delete (struct host_call *call)
{
    int status = API_DONE;

    for (unsigned i = 0; i < call->arguments; i++) {
        int one = delete_one(call, call->argument[i], host_option(call, "disks"));

        status = status ? status : one;
    }
    return status;
}

static const struct host_option stop_options[] = {
    {"force", NULL, "pull the plug at once", HOST_TEXT, false},
    {"timeout", "SECONDS", "how long the guest may take before the plug is pulled (60)", HOST_TEXT,
     false},
    {0},
};

static const struct host_option delete_options[] = {
    {"disks", "delete|keep", "what happens to its disks", HOST_TEXT, false},
    {"yes", NULL, "do not ask", HOST_TEXT, false},
    {0},
};

#define MANY HOST_ARGUMENTS_MAX
const struct host_command host_power_commands[] = {
    {"start", "MACHINE...", "start machines", NULL, NULL, 1, MANY, HOST_MACHINE, HOST_WAITS, plain},
    {"stop", "MACHINE...", "ask guests to shut down, and pull the plug of those that do not", NULL,
     stop_options, 1, MANY, HOST_MACHINE, HOST_WAITS, graceful},
    {"restart", "MACHINE...", "stop machines and start them again", NULL, stop_options, 1, MANY,
     HOST_MACHINE, HOST_WAITS, graceful},
    {"pause", "MACHINE...", "hold machines where they are", NULL, NULL, 1, MANY, HOST_MACHINE,
     HOST_WAITS, plain},
    {"resume", "MACHINE...", "let paused machines go on", NULL, NULL, 1, MANY, HOST_MACHINE,
     HOST_WAITS, plain},
    {"reset", "MACHINE...", "press the reset button", NULL, NULL, 1, MANY, HOST_MACHINE, HOST_WAITS,
     plain},
    {"delete", "MACHINE...", "delete machines", NULL, delete_options, 1, MANY, HOST_MACHINE,
     HOST_WAITS, delete},
    {0},
};
