/* `mullion datastore` and `mullion disk`: where bytes are kept. */
#include <stdlib.h>
#include <string.h>

#include "cli/api/groups.h"
#include "cli/api/simple.h"

/* ---- datastore ---- */

static bool put_datastore(struct host_call *call, json_t *body)
{
    return simple_put_text(call, body, "path", "path") &&
           (!host_option(call, "default") || !json_object_set_new(body, "default", json_true()));
}

static const struct column datastore_columns[] = {
    {"NAME", "name", COLUMN_TEXT},      {"PATH", "path", COLUMN_TEXT},
    {"SIZE", "total", COLUMN_SIZE},     {"USED", "used", COLUMN_SIZE},
    {"FREE", "free", COLUMN_SIZE},      {"MACHINES", "machines", COLUMN_TEXT},
    {"DEFAULT", "default", COLUMN_YES}, {0},
};

static const struct simple_kind datastore = {
    .list = "/datastores", .what = "datastore", .columns = datastore_columns, .put = put_datastore};

static int datastore_list(struct host_call *call)
{
    return simple_list(call, &datastore);
}

static int datastore_create(struct host_call *call)
{
    return simple_create(call, &datastore);
}

static int datastore_edit(struct host_call *call)
{
    return simple_edit(call, &datastore);
}

static int datastore_delete(struct host_call *call)
{
    return simple_delete(call, &datastore);
}

static const struct column file_columns[] = {
    {"NAME", "name", COLUMN_TEXT},       {"KIND", "kind", COLUMN_TEXT},
    {"SIZE", "size", COLUMN_SIZE},       {"MODIFIED", "modified", COLUMN_TIME},
    {"USED BY", "used_by", COLUMN_TEXT}, {0},
};

static int datastore_files(struct host_call *call)
{
    int status;
    char *id = host_find(call, datastore.list, datastore.what, call->argument[0], &status);
    const char *folder = call->arguments > 1 ? call->argument[1] : "";
    json_t *answer =
        id ? host_send(call, "GET", api_path(call->api, "/datastores/%s/files?path=%s", id, folder),
                       NULL, &status)
           : NULL;

    free(id);
    if (answer)
        status = output_list(call, json_object_get(answer, "items"), file_columns);
    json_decref(answer);
    return status;
}

/* ---- disk ---- */

static const struct column disk_columns[] = {
    {"NAME", "name", COLUMN_TEXT},         {"FORMAT", "format", COLUMN_TEXT},
    {"BUS", "bus", COLUMN_TEXT},           {"CAPACITY", "capacity", COLUMN_SIZE},
    {"USED", "allocated", COLUMN_SIZE},    {"DATASTORE", "datastore", COLUMN_TEXT},
    {"READ-ONLY", "readonly", COLUMN_YES}, {0},
};

static const struct column snapshot_columns[] = {
    {"NAME", "name", COLUMN_TEXT},
    {"CREATED", "created", COLUMN_TIME},
    {"SIZE", "size", COLUMN_SIZE},
    {0},
};

/* The path of machine argument[0]'s disks, or of its disk argument[1], with @tail. */
static char *disk_path(struct host_call *call, const char *tail, int *status)
{
    char *id = host_find(call, "/machines", "machine", call->argument[0], status), *path = NULL;
    char *base = !id ? NULL
                 : call->arguments > 1
                     ? api_path(call->api, "/machines/%s/disks/%s", id, call->argument[1])
                     : api_path(call->api, "/machines/%s/disks", id);

    if (base && asprintf(&path, "%s%s", base, tail) < 0)
        path = NULL;
    free(id);
    free(base);
    return path;
}

static int disk_table(struct host_call *call, const char *tail, const struct column *columns)
{
    struct mull_error err = {0};
    int status = API_FAILED;
    char *path = disk_path(call, tail, &status);
    json_t *items = path ? api_list(call->api, path, &err) : NULL;

    if (path)
        status = items ? output_list(call, items, columns) : host_failed(call, &err);
    json_decref(items);
    free(path);
    return status;
}

static int disk_list(struct host_call *call)
{
    return disk_table(call, "", disk_columns);
}

static int snapshot_list(struct host_call *call)
{
    return disk_table(call, "/snapshots", snapshot_columns);
}

static int do_disk(struct host_call *call, const char *method, const char *tail, json_t *body)
{
    int status = API_FAILED;
    char *path = disk_path(call, tail, &status);

    if (!path) {
        json_decref(body);
        return status;
    }
    json_t *task = host_send(call, method, path, body, &status);
    return task ? host_wait(call, task, NULL) : status;
}

static int disk_add(struct host_call *call)
{
    const char *bus = host_option(call, "bus");
    json_t *capacity = host_size("SIZE", call->argument[1]);

    if (!capacity)
        return API_USAGE;
    json_t *body = json_pack("{s:o, s:s*}", "capacity", capacity, "bus", bus);
    call->arguments = 1; /* what is made has no name yet */
    return do_disk(call, "POST", "", body);
}

static int disk_grow(struct host_call *call)
{
    json_t *capacity = host_size("SIZE", call->argument[2]);

    return capacity ? do_disk(call, "PATCH", "", json_pack("{s:o}", "capacity", capacity))
                    : API_USAGE;
}

static int disk_remove(struct host_call *call)
{
    char question[256];

    snprintf(question, sizeof(question), "Delete disk %.60s of %.60s AND ITS FILE?",
             call->argument[1], call->argument[0]);
    if (!host_option(call, "yes") && !host_confirm(question))
        return host_fail(API_FAILED, "not deleted; give --yes where nobody can be asked");
    return do_disk(call, "DELETE", "", NULL);
}

static int snapshot_create(struct host_call *call)
{
    return do_disk(call, "POST", "/snapshots", json_pack("{s:s}", "name", call->argument[2]));
}

static int on_snapshot(struct host_call *call, const char *method, const char *end)
{
    char *tail = api_path(call->api, "/snapshots/%s", call->argument[2]), *whole = NULL;
    int status = tail && asprintf(&whole, "%s%s", tail, end) >= 0
                     ? do_disk(call, method, whole, NULL)
                     : host_fail(API_FAILED, "no memory");

    free(tail);
    free(whole);
    return status;
}

static int snapshot_apply(struct host_call *call)
{
    return on_snapshot(call, "POST", "/apply");
}

static int snapshot_delete(struct host_call *call)
{
    return on_snapshot(call, "DELETE", "");
}

/* ---- The table ---- */

static const struct host_option datastore_options[] = {
    {"path", "FOLDER", "the folder on the host", HOST_TEXT, false},
    {"default", NULL, "what is made goes there when nothing else is said", HOST_TEXT, false},
    {0},
};

static const struct host_option disk_options[] = {
    {"bus", "virtio|scsi|nvme|sata|ide|pvscsi", "how it is connected (virtio)", HOST_TEXT, false},
    {0},
};

static const struct host_option remove_options[] = {
    {"yes", NULL, "do not ask", HOST_TEXT, false},
    {0},
};

const struct host_command host_storage_commands[] = {
    {"datastore list", "", "list the datastores", NULL, NULL, 0, 0, HOST_TEXT, HOST_LISTS,
     datastore_list},
    {"datastore create", "NAME", "make a folder of the host a datastore", NULL, datastore_options,
     1, 1, HOST_TEXT, 0, datastore_create},
    {"datastore edit", "DATASTORE", "change a datastore", NULL, datastore_options, 1, 1,
     HOST_DATASTORE, 0, datastore_edit},
    {"datastore files", "DATASTORE [FOLDER]", "list the files of a datastore", NULL, NULL, 1, 2,
     HOST_DATASTORE, HOST_LISTS, datastore_files},
    {"datastore delete", "DATASTORE...", "forget datastores; their files stay", NULL, NULL, 1,
     HOST_ARGUMENTS_MAX, HOST_DATASTORE, 0, datastore_delete},
    {"disk list", "MACHINE", "list a machine's disks", NULL, NULL, 1, 1, HOST_MACHINE, HOST_LISTS,
     disk_list},
    {"disk add", "MACHINE SIZE", "give a machine a new, empty disk", NULL, disk_options, 2, 2,
     HOST_MACHINE, HOST_WAITS, disk_add},
    {"disk grow", "MACHINE DISK SIZE", "make a disk larger", NULL, NULL, 3, 3, HOST_MACHINE,
     HOST_WAITS, disk_grow},
    {"disk remove", "MACHINE DISK", "delete a machine's disk", NULL, remove_options, 2, 2,
     HOST_MACHINE, HOST_WAITS, disk_remove},
    {"disk snapshots", "MACHINE DISK", "list a disk's own snapshots", NULL, NULL, 2, 2,
     HOST_MACHINE, HOST_LISTS, snapshot_list},
    {"disk snapshot", "MACHINE DISK NAME", "keep what a disk holds now", NULL, NULL, 3, 3,
     HOST_MACHINE, HOST_WAITS, snapshot_create},
    {"disk revert", "MACHINE DISK SNAPSHOT", "take a disk back to a snapshot", NULL, NULL, 3, 3,
     HOST_MACHINE, HOST_WAITS, snapshot_apply},
    {"disk forget", "MACHINE DISK SNAPSHOT", "delete a disk's snapshot", NULL, NULL, 3, 3,
     HOST_MACHINE, HOST_WAITS, snapshot_delete},
    {0},
};
