/* `mullion image list|add|build|remove`: a host's library; `mullion import` and `export` of a
 * host's machines. The other `mullion image` commands work on files without a host. */
#include <stdlib.h>
#include <string.h>

#include "cli/api/groups.h"
#include "cli/api/output.h"
#include "cli/api/transfer.h"

static const struct column columns[] = {
    {"NAME", "name", COLUMN_TEXT},         {"KIND", "kind", COLUMN_TEXT},
    {"SYSTEM", "os", COLUMN_TEXT},         {"FORMAT", "format", COLUMN_TEXT},
    {"CAPACITY", "capacity", COLUMN_SIZE}, {"SIZE", "size", COLUMN_SIZE},
    {"CREATED", "created", COLUMN_TIME},   {0},
};

static int list(struct host_call *call)
{
    struct mull_error err = {0};
    json_t *items = api_list(call->api, "/images", &err);
    int status = items ? output_list(call, items, columns) : host_failed(call, &err);

    json_decref(items);
    return status;
}

/* Where the bytes come from: a URL the host fetches, or a file that is uploaded. */
static json_t *source_of(struct host_call *call, const char *from, int *status)
{
    if (!strncmp(from, "http://", 7) || !strncmp(from, "https://", 8))
        return json_pack("{s:s}", "url", from);
    char *id = transfer_upload(call, from, status);
    json_t *body = id ? json_pack("{s:s}", "upload", id) : NULL;

    free(id);
    return body;
}

static int import_as(struct host_call *call, const char *kind, const char *name, json_t **task)
{
    static const char *const options[] = {"datastore", "network"};
    int status = API_FAILED;
    json_t *body = source_of(call, call->argument[0], &status);
    const char *value;

    if (!body)
        return status;
    json_object_set_new(body, "kind", json_string(kind));
    if (name)
        json_object_set_new(body, "name", json_string(name));
    for (unsigned i = 0; i < sizeof(options) / sizeof(options[0]); i++)
        if ((value = host_option(call, options[i])))
            json_object_set_new(body, options[i], json_string(value));
    if (host_option(call, "accept-eula"))
        json_object_set_new(body, "accept_licences", json_true());
    json_t *answer = host_send(call, "POST", strdup("/imports"), body, &status);
    return answer ? host_wait(call, answer, task) : status;
}

static int add(struct host_call *call)
{
    const char *file = call->argument[0], *dot = strrchr(file, '.');
    const char *kind = dot && !strcmp(dot, ".iso") ? "iso" : "image";

    return import_as(call, kind, host_option(call, "name"), NULL);
}

static int build(struct host_call *call)
{
    int status;
    json_t *task = host_send(call, "POST", strdup("/images"),
                             json_pack("{s:s}", "name", call->argument[0]), &status);

    return task ? host_wait(call, task, NULL) : status;
}

static int drop(struct host_call *call)
{
    int status = API_DONE;

    for (unsigned i = 0; i < call->arguments; i++) {
        int one;
        json_t *done = host_send(call, "DELETE",
                                 api_path(call->api, "/images/%s", call->argument[i]), NULL, &one);

        json_decref(done);
        status = status ? status : one;
    }
    return status;
}

/* ---- Whole machines ---- */

static int import_machine(struct host_call *call)
{
    json_t *task;
    int status = import_as(call, "appliance", host_option(call, "name"), &task);
    const char *name = json_string_value(json_object_get(task, "object_name"));

    if (!status && name && !call->no_wait)
        printf("machine %s is there; start it with: mullion start %s\n", name, name);
    json_decref(task);
    return status;
}

static int export_machine(struct host_call *call)
{
    const char *format = host_option(call, "format"), *out = host_option(call, "output");
    char name[256];
    int status;
    json_t *task = NULL;
    char *id = host_find(call, "/machines", "machine", call->argument[0], &status);

    if (!id)
        return status;
    json_t *answer = host_send(call, "POST", api_path(call->api, "/machines/%s/export", id),
                               json_pack("{s:s}", "format", format ? format : "ova"), &status);
    free(id);
    if (answer)
        status = host_wait(call, answer, &task);
    const json_t *result = json_object_get(task, "result");
    const char *path = json_string_value(json_object_get(result, "download"));
    if (path && !out)
        snprintf(name, sizeof(name), "%s.%s", call->argument[0], format ? format : "ova");
    if (path)
        status = transfer_download(call, path, out ? out : name);
    json_decref(task);
    return status;
}

static const struct host_option add_options[] = {
    {"name", "NAME", "what it is called (the file's name)", HOST_TEXT, false},
    {"datastore", "DATASTORE", "where it is kept", HOST_DATASTORE, false},
    {0},
};

static const struct host_option import_options[] = {
    {"name", "NAME", "what the machine is called (what the file says)", HOST_TEXT, false},
    {"datastore", "DATASTORE", "where its disks are", HOST_DATASTORE, false},
    {"network", "NETWORK", "what its network cards are connected to", HOST_NETWORK, false},
    {"local", NULL, "not on a host: see mullion import --local --help", HOST_TEXT, false},
    {"accept-eula", NULL, "accept the appliance's licences", HOST_TEXT, false},
    {0},
};

static const struct host_option export_options[] = {
    {"format", "ova|ovf|vmx|libvirt|qcow2|vmdk|vhdx|vhd|vdi|raw", "what it becomes (ova)",
     HOST_TEXT, false},
    {"local", NULL, "not from a host: see mullion export --local --help", HOST_TEXT, false},
    {"output", "FILE", "where to write it (NAME.FORMAT); - is standard output", HOST_FILE, false},
    {0},
};

const struct host_command host_image_commands[] = {
    {"image list", "", "list a host's images and ISOs", NULL, NULL, 0, 0, HOST_TEXT, HOST_LISTS,
     list},
    {"image add", "FILE|URL", "add a disk image or an ISO to a host's library",
     "A file is uploaded; stopped, the same command goes on. A URL is fetched by the host.",
     add_options, 1, 1, HOST_FILE, HOST_WAITS, add},
    {"image build", "NAME", "let the host build an image, like debian-12", NULL, NULL, 1, 1,
     HOST_TEXT, HOST_WAITS, build},
    {"image remove", "IMAGE...", "remove images from a host's library", NULL, NULL, 1,
     HOST_ARGUMENTS_MAX, HOST_IMAGE, 0, drop},
    {"import", "FILE|URL", "make a machine of an OVA, on a host", NULL, import_options, 1, 1,
     HOST_FILE, HOST_WAITS, import_machine},
    {"export", "MACHINE", "fetch a host's machine as a file", NULL, export_options, 1, 1,
     HOST_MACHINE, HOST_WAITS, export_machine},
    {0},
};
