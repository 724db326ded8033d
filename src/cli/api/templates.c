/* `mullion template`: what machines are made like. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/api/groups.h"
#include "cli/api/simple.h"

static const struct column columns[] = {
    {"NAME", "name", COLUMN_TEXT},
    {"STATE", "state", COLUMN_TEXT},
    {"SYSTEM", "os", COLUMN_TEXT},
    {"CPUS", "cpus", COLUMN_TEXT},
    {"MEMORY", "memory", COLUMN_SIZE},
    {"SIZE", "size", COLUMN_SIZE},
    {"LINKED", "linked", COLUMN_TEXT},
    {"CREATED", "created", COLUMN_TIME},
    {0},
};

static const struct column details[] = {
    {"name", "name", COLUMN_TEXT},
    {"id", "id", COLUMN_TEXT},
    {"description", "description", COLUMN_TEXT},
    {"state", "state", COLUMN_TEXT},
    {"system", "os", COLUMN_TEXT},
    {"cpus", "cpus", COLUMN_TEXT},
    {"memory", "memory", COLUMN_SIZE},
    {"size", "size", COLUMN_SIZE},
    {"machines on its disks", "linked", COLUMN_TEXT},
    {"created", "created", COLUMN_TIME},
    {0},
};

static const struct simple_kind template = {
    .list = "/templates", .what = "template", .columns = columns, .details = details};

static int list(struct host_call *call)
{
    return simple_list(call, &template);
}

static int info(struct host_call *call)
{
    return simple_info(call, &template);
}

static int create(struct host_call *call)
{
    const char *description = host_option(call, "description");
    int status;
    char *id = host_find(call, "/machines", "machine", call->argument[1], &status);
    json_t *body = id ? json_pack("{s:s, s:s, s:s*}", "name", call->argument[0], "machine", id,
                                  "description", description)
                      : NULL;
    json_t *task = body ? host_send(call, "POST", strdup("/templates"), body, &status) : NULL;
    free(id);
    if (task)
        status = host_wait(call, task, NULL);
    if (task && !status && !call->no_wait && isatty(STDOUT_FILENO))
        printf("template %s is there; make a machine of it with: mullion create NAME --template "
               "%s\n",
               call->argument[0], call->argument[0]);
    return status;
}

static int drop(struct host_call *call)
{
    int status = API_DONE;
    for (unsigned i = 0; i < call->arguments; i++) {
        int one;
        char *path = simple_path(call, &template, call->argument[i], &one);
        json_t *task = path ? host_send(call, "DELETE", path, NULL, &one) : NULL;
        if (task)
            one = host_wait(call, task, NULL);
        status = status ? status : one;
    }
    return status;
}

static const struct host_option create_options[] = {
    {"description", "TEXT", "for people", HOST_TEXT, false},
    {0},
};

const struct host_command host_template_commands[] = {
    {"template list", "", "list the templates", NULL, NULL, 0, 0, HOST_TEXT, HOST_LISTS, list},
    {"template info", "TEMPLATE", "show a template", NULL, NULL, 1, 1, HOST_TEMPLATE, HOST_LISTS,
     info},
    {"template create", "NAME MACHINE", "make a template of a stopped machine",
     "The machine stays; the template has copies of its disks, which share the host's blocks "
     "where\n"
     "its file system can. Machines are made of it with mullion create NAME --template TEMPLATE.",
     create_options, 2, 2, HOST_TEXT, HOST_WAITS, create},
    {"template delete", "TEMPLATE...", "delete templates with their disks", NULL, NULL, 1,
     HOST_ARGUMENTS_MAX, HOST_TEMPLATE, HOST_WAITS, drop},
    {0},
};
