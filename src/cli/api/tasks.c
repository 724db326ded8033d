/* `mullion task` and `mullion event`: what the host does and what has happened. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "cli/api/groups.h"
#include "cli/api/output.h"

static const struct column task_columns[] = {
    {"ID", "id", COLUMN_TEXT},
    {"TYPE", "type", COLUMN_TEXT},
    {"OBJECT", "object_name", COLUMN_TEXT},
    {"STATE", "state", COLUMN_TEXT},
    {"DONE", "progress", COLUMN_PERCENT},
    {"STEP", "step", COLUMN_TEXT},
    {"USER", "user", COLUMN_TEXT},
    {"CREATED", "created", COLUMN_TIME},
    {"ENDED", "ended", COLUMN_TIME},
    {"ERROR", "error.detail", COLUMN_TEXT},
    {0},
};

static int list(struct host_call *call)
{
    struct mull_error err = {0};
    const char *state = host_option(call, "state");
    char *path = state ? api_path(call->api, "/tasks?limit=1000&state=%s", state)
                       : strdup("/tasks?limit=1000");
    json_t *items = path ? api_list(call->api, path, &err) : NULL;
    int status = items ? output_list(call, items, task_columns) : host_failed(call, &err);

    json_decref(items);
    free(path);
    return status;
}

static int info(struct host_call *call)
{
    int status;
    json_t *task =
        host_send(call, "GET", api_path(call->api, "/tasks/%s", call->argument[0]), NULL, &status);

    if (task)
        status = output_object(call, task, task_columns);
    json_decref(task);
    return status;
}

static int cancel(struct host_call *call)
{
    int status;
    json_t *done = host_send(
        call, "POST", api_path(call->api, "/tasks/%s/cancel", call->argument[0]), NULL, &status);

    json_decref(done);
    return status;
}

static int wait_for(struct host_call *call)
{
    int status;
    json_t *task =
        host_send(call, "GET", api_path(call->api, "/tasks/%s", call->argument[0]), NULL, &status);

    call->no_wait = false;
    return task ? host_wait(call, task, NULL) : status;
}

/* ---- event ---- */

static const struct column event_columns[] = {
    {"TIME", "time", COLUMN_TIME},
    {"SEVERITY", "severity", COLUMN_TEXT},
    {"TYPE", "type", COLUMN_TEXT},
    {"OBJECT", "object_name", COLUMN_TEXT},
    {"USER", "user", COLUMN_TEXT},
    {"TEXT", "text", COLUMN_TEXT},
    {0},
};

static void print_event(void *opaque, const void *data, size_t length)
{
    const struct host_call *call = opaque;
    json_t *event = json_loadb(data, length, 0, NULL);

    if (call->format == FORMAT_JSON) { /* one a line, for programs that read as it comes */
        json_dumpf(event, stdout, JSON_COMPACT);
        putchar('\n');
    } else {
        for (unsigned i = 0; event && event_columns[i].head; i++) {
            char *text = output_text(event, &event_columns[i]);

            printf("%s%s", text && *text ? text : "-", event_columns[i + 1].head ? "  " : "\n");
            free(text);
        }
    }
    fflush(stdout);
    json_decref(event);
}

static int follow(struct host_call *call)
{
    struct api_stream *stream;
    struct mull_error err = {0};

    if (api_stream_open(call->api, "/events/stream", &stream, &err))
        return host_failed(call, &err);
    int ret = 0;
    while (!ret) {
        struct pollfd p = {.fd = api_stream_fd(stream), .events = POLLIN};

        ret = api_stream_receive(stream, print_event, call);
        if (!ret && poll(&p, 1, -1) < 0 && errno != EINTR)
            ret = -errno;
    }
    api_stream_close(stream);
    return host_fail(API_UNREACHABLE, "the host ended the stream");
}

static int events(struct host_call *call)
{
    struct mull_error err = {0};

    if (host_option(call, "follow"))
        return follow(call);
    json_t *answer = api_call(call->api, "GET", "/events?limit=1000&sort=-id", NULL, &err);
    if (!answer)
        return host_failed(call, &err);
    int status = output_list(call, json_object_get(answer, "items"), event_columns);
    json_decref(answer);
    return status;
}

static const struct host_option list_options[] = {
    {"state", "queued|running|succeeded|failed|cancelled", "only these", HOST_TEXT, false},
    {0},
};

static const struct host_option event_options[] = {
    {"follow", NULL, "print them as they come", HOST_TEXT, false},
    {0},
};

const struct host_command host_task_commands[] = {
    {"task list", "", "list the tasks", NULL, list_options, 0, 0, HOST_TEXT, HOST_LISTS, list},
    {"task info", "ID", "show a task", NULL, NULL, 1, 1, HOST_TASK, HOST_LISTS, info},
    {"task wait", "ID", "wait for a task; ends as it does", NULL, NULL, 1, 1, HOST_TASK, HOST_WAITS,
     wait_for},
    {"task cancel", "ID", "cancel a task", NULL, NULL, 1, 1, HOST_TASK, 0, cancel},
    {"event list", "", "list what has happened, the last first", NULL, event_options, 0, 0,
     HOST_TEXT, HOST_LISTS, events},
    {0},
};
