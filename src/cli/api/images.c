/* `mullion image list|add|build|remove`: a host's library; `mullion import` and `export` of a
 * host's machines. The other `mullion image` commands work on files without a host. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/api/groups.h"
#include "cli/api/output.h"
#include "cli/api/transfer.h"
#include "image/ovf/tar.h"

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
    static const char *const options[] = {"datastore", "network", "sha256"};
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

static int import_disk(struct host_call *call)
{
    int status;
    char *id = host_find(call, "/machines", "machine", call->argument[1], &status);
    const char *bus = host_option(call, "bus");
    json_t *body = id ? source_of(call, call->argument[0], &status) : NULL;

    if (body) {
        json_object_set_new(body, "kind", json_string("disk"));
        json_object_set_new(body, "machine", json_string(id));
        if (bus)
            json_object_set_new(body, "bus", json_string(bus));
        json_t *task = host_send(call, "POST", strdup("/imports"), body, &status);
        if (task)
            status = host_wait(call, task, NULL);
    }
    free(id);
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

static bool is_folder(const char *format)
{
    return !strcmp(format, "ovf") || !strcmp(format, "vmx") || !strcmp(format, "libvirt");
}

static int write_member(const struct mull_tar *tar, const struct mull_tar_member *m,
                        const char *path)
{
    static char piece[1u << 16];
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666), ret = fd < 0 ? -errno : 0;

    for (uint64_t at = 0; at < m->size && !ret;) {
        size_t want = m->size - at < sizeof(piece) ? (size_t)(m->size - at) : sizeof(piece);
        ssize_t n = pread(tar->fd, piece, want, (off_t)(m->offset + at));
        ssize_t put = n > 0 ? write(fd, piece, (size_t)n) : n;

        if (put <= 0)
            ret = put ? -errno : -EIO;
        at += put > 0 ? (uint64_t)put : 0;
    }
    if (fd >= 0 && close(fd) && !ret)
        ret = -errno;
    return ret;
}

/* The folder that a downloaded archive is of, as @folder. Names in it are checked by the reader. */
static int unpack(const char *archive, const char *folder)
{
    struct mull_error err = {0};
    struct mull_tar tar;
    int fd = open(archive, O_RDONLY | O_CLOEXEC), status = API_DONE;

    if (fd < 0 || mull_tar_open(fd, archive, &tar, &err)) {
        status = host_fail(API_FAILED, "%s: %s", archive, fd < 0 ? strerror(errno) : err.message);
    } else {
        if (mkdir(folder, 0777))
            status = host_fail(API_FAILED, "%s: %s", folder, strerror(errno));
        for (unsigned i = 0; i < tar.count && !status; i++) {
            const char *slash = strrchr(tar.member[i].name, '/');
            char *path = NULL;
            int ret = asprintf(&path, "%s/%s", folder, slash ? slash + 1 : tar.member[i].name) < 0
                          ? -ENOMEM
                          : write_member(&tar, &tar.member[i], path);

            if (ret)
                status = host_fail(API_FAILED, "%s: %s", path ? path : folder, strerror(-ret));
            free(path);
        }
        mull_tar_close(&tar);
    }
    if (fd >= 0)
        close(fd);
    return status;
}

static int fetch(struct host_call *call, const char *path, const char *format, const char *out)
{
    char name[256], part[300];
    size_t n = out ? strlen(out) : 0;

    snprintf(name, sizeof(name), is_folder(format) ? "%s-%s" : "%s.%s", call->argument[0], format);
    out = out ? out : name;
    if (!is_folder(format) || !strcmp(out, "-") || (n > 4 && !strcmp(out + n - 4, ".tar")))
        return transfer_download(call, path, out);
    if (!access(out, F_OK))
        return host_fail(API_CONFLICT, "%s: is there already; choose another --output", out);
    snprintf(part, sizeof(part), "%.280s.tar.part", out);
    int status = transfer_download(call, path, part);
    if (!status)
        status = unpack(part, out);
    unlink(part);
    return status;
}

static int export_machine(struct host_call *call)
{
    const char *format = host_option(call, "format"), *out = host_option(call, "output");
    const char *datastore = host_option(call, "datastore"), *disk = host_option(call, "disk");
    int status;
    json_t *task = NULL;
    char *id = host_find(call, "/machines", "machine", call->argument[0], &status);

    if (!id)
        return status;
    format = format ? format : "ova";
    json_t *body = json_pack("{s:s, s:s*}", "format", format, "datastore", datastore);
    json_t *number = disk ? host_number("disk", disk, 0, 15) : NULL;
    if (disk && !number) {
        json_decref(body);
        free(id);
        return API_USAGE;
    }
    if (number)
        json_object_set_new(body, "disk", number);
    json_t *answer =
        host_send(call, "POST", api_path(call->api, "/machines/%s/export", id), body, &status);
    free(id);
    if (answer)
        status = host_wait(call, answer, &task);
    const json_t *result = json_object_get(task, "result");
    const char *path = json_string_value(json_object_get(result, "download"));
    const char *inside = json_string_value(json_object_get(result, "path"));
    if (path)
        status = fetch(call, path, format, out);
    else if (inside && !call->no_wait)
        printf("%s is in datastore %s\n", inside, datastore);
    json_decref(task);
    return status;
}

static const struct host_option add_options[] = {
    {"name", "NAME", "what it is called (the file's name)", HOST_TEXT, false},
    {"datastore", "DATASTORE", "where it is kept", HOST_DATASTORE, false},
    {"sha256", "DIGEST", "what a URL's bytes must have, in hexadecimal digits", HOST_TEXT, false},
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
    {"disk", "N", "which disk, where only one is exported (0)", HOST_TEXT, false},
    {"datastore", "DATASTORE", "leave it on the host, in that datastore", HOST_DATASTORE, false},
    {"output", "FILE", "where to write it (NAME.FORMAT); - is standard output", HOST_FILE, false},
    {0},
};

static const struct host_option disk_options[] = {
    {"bus", "virtio|scsi|nvme|sata|ide|pvscsi|usb", "how it is connected (virtio)", HOST_TEXT,
     false},
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
     HOST_FILE, HOST_WAITS | HOST_BOTH, import_machine},
    {"disk import", "FILE|URL MACHINE", "give a stopped machine a disk from a file",
     "In any format that Mullion reads; a file is uploaded, a URL is fetched by the host.",
     disk_options, 2, 2, HOST_FILE, HOST_WAITS, import_disk},
    {"export", "MACHINE", "fetch a host's machine as a file or a folder",
     "OVF, VMX and libvirt are folders (NAME-FORMAT); an --output that ends in .tar, or -, is a "
     "tar\n"
     "archive of it.",
     export_options, 1, 1, HOST_MACHINE, HOST_WAITS | HOST_BOTH, export_machine},
    {0},
};
