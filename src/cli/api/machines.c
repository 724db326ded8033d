/* `mullion list`, `info`, `create`, `launch`, `edit`, `rename`: what machines there are and what
 * they are made of. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/api/groups.h"
#include "cli/api/output.h"
#include "cli/api/resources.h"

static const struct column list_columns[] = {
    {"NAME", "name", COLUMN_TEXT},           {"STATE", "state", COLUMN_TEXT},
    {"CPUS", "cpus", COLUMN_TEXT},           {"MEMORY", "memory", COLUMN_SIZE},
    {"CPU", "usage.cpu", COLUMN_PERCENT},    {"UPTIME", "uptime", COLUMN_SECONDS},
    {"ADDRESSES", "addresses", COLUMN_LIST}, {"FOLDER", "folder", COLUMN_TEXT},
    {"TAGS", "tags", COLUMN_LIST},           {0},
};

static const struct column info_columns[] = {
    {"name", "name", COLUMN_TEXT},
    {"id", "id", COLUMN_TEXT},
    {"description", "description", COLUMN_TEXT},
    {"state", "state", COLUMN_TEXT},
    {"reason", "state_reason", COLUMN_TEXT},
    {"changes wait", "pending", COLUMN_YES},
    {"folder", "folder", COLUMN_TEXT},
    {"tags", "tags", COLUMN_LIST},
    {"system", "os", COLUMN_TEXT},
    {"cpus", "cpus", COLUMN_TEXT},
    {"memory", "memory", COLUMN_SIZE},
    {"engine", "engine", COLUMN_TEXT},
    {"uptime", "uptime", COLUMN_SECONDS},
    {"cpu in use", "usage.cpu", COLUMN_PERCENT},
    {"memory in use", "usage.memory", COLUMN_SIZE},
    {"addresses", "addresses", COLUMN_LIST},
    {"host name", "guest.hostname", COLUMN_TEXT},
    {"guest system", "guest.os", COLUMN_TEXT},
    {"agent", "guest.agent", COLUMN_TEXT},
    {"autostart", "autostart.enabled", COLUMN_YES},
    {"created", "created", COLUMN_TIME},
    {"started", "started", COLUMN_TIME},
    {0},
};

static const struct column disk_columns[] = {
    {"DISK", "path", COLUMN_TEXT},
    {"FORMAT", "format", COLUMN_TEXT},
    {"BUS", "bus", COLUMN_TEXT},
    {0},
};

static const struct column card_columns[] = {
    {"NETWORK", "name", COLUMN_TEXT},
    {"TYPE", "type", COLUMN_TEXT},
    {"MODEL", "model", COLUMN_TEXT},
    {"MAC", "mac", COLUMN_TEXT},
    {0},
};

/* ---- list, info ---- */

static int list(struct host_call *call)
{
    static const char *const filters[] = {"state", "tag", "folder", "sort", "q"};
    struct mull_error err = {0};
    char path[2048] = "/machines?limit=1000";

    for (unsigned i = 0; i < sizeof(filters) / sizeof(filters[0]); i++) {
        const char *value = host_option(call, filters[i]);
        char *part = value ? api_path(call->api, "=%s", value) : NULL;

        if (part && strlen(path) + strlen(part) + 16 < sizeof(path)) {
            strcat(path, "&");
            strcat(path, filters[i]);
            strcat(path, part);
        }
        free(part);
    }
    json_t *items = api_list(call->api, path, &err);
    if (!items)
        return host_failed(call, &err);
    int status = output_list(call, items, list_columns);
    json_decref(items);
    return status;
}

static int info(struct host_call *call)
{
    int status;
    char *id = host_find(call, "/machines", "machine", call->argument[0], &status);
    json_t *machine =
        id ? host_send(call, "GET", api_path(call->api, "/machines/%s", id), NULL, &status) : NULL;
    const json_t *config = json_object_get(machine, "config");
    json_t *disks = json_object_get(config, "disks"), *cards = json_object_get(config, "networks");

    free(id);
    if (!machine)
        return status;
    status = output_object(call, machine, info_columns);
    if (!status && call->format == FORMAT_TABLE && json_array_size(disks)) {
        putchar('\n');
        status = output_list(call, disks, disk_columns);
    }
    if (!status && call->format == FORMAT_TABLE && json_array_size(cards)) {
        putchar('\n');
        status = output_list(call, cards, card_columns);
    }
    json_decref(machine);
    return status;
}

/* ---- What create, launch and edit say of a machine ---- */

static bool put(json_t *body, const char *name, json_t *value)
{
    return value && !json_object_set_new(body, name, value);
}

/* "SIZE[,bus=B]" */
static json_t *disk_of(const char *text)
{
    char *copy = strdup(text), *rest = copy ? strchr(copy, ',') : NULL;
    json_t *disk = json_object();
    bool good = copy;

    if (rest)
        *rest++ = '\0';
    good = good && put(disk, "capacity", host_size("disk", copy));
    if (good && rest && strncmp(rest, "bus=", 4)) {
        host_fail(API_USAGE, "--disk %s: give SIZE[,bus=BUS]", text);
        good = false;
    }
    good = good && (!rest || put(disk, "bus", json_string(rest + 4)));
    free(copy);
    if (good)
        return disk;
    json_decref(disk);
    return NULL;
}

/* "NAME[,model=M][,mac=A][,vlan=N]" */
static json_t *network_of(const char *text)
{
    char *copy = strdup(text), *save = NULL, *part = copy ? strtok_r(copy, ",", &save) : NULL;
    json_t *network = json_object();
    bool good = part && put(network, "network", json_string(part));

    while (good && (part = strtok_r(NULL, ",", &save))) {
        char *equals = strchr(part, '=');

        good = equals && (!strncmp(part, "model=", 6) || !strncmp(part, "mac=", 4) ||
                          !strncmp(part, "vlan=", 5));
        if (!good)
            host_fail(API_USAGE, "--network %s: give NAME[,model=MODEL][,mac=ADDRESS][,vlan=N]",
                      text);
        if (equals)
            *equals = '\0';
        good = good && put(network, part,
                           strcmp(part, "vlan") ? json_string(equals + 1)
                                                : host_number("vlan", equals + 1, 1, 4094));
    }
    free(copy);
    if (good)
        return network;
    json_decref(network);
    return NULL;
}

/* Every value of an option that may be there many times, as an array. */
static bool put_many(const struct host_call *call, json_t *body, const char *option,
                     const char *member, json_t *(*of)(const char *))
{
    const char *value;
    unsigned at = 0;

    while ((value = host_option_next(call, option, &at))) {
        json_t *list = json_object_get(body, member), *item = of(value);

        if (!list)
            json_object_set_new(body, member, list = json_array());
        if (!item || json_array_append_new(list, item))
            return false;
    }
    return true;
}

static json_t *text_of(const char *text)
{
    return json_string(text);
}

static json_t *file_of(const char *option, const char *path)
{
    char *text = NULL;
    size_t room = 0;
    FILE *f = strcmp(path, "-") ? fopen(path, "re") : stdin;
    ssize_t n = f ? getdelim(&text, &room, '\0', f) : -1;
    json_t *value = n >= 0 ? json_stringn(text, (size_t)n) : NULL;

    if (!value)
        host_fail(API_FAILED, "--%s %s: %s", option, path, errno ? strerror(errno) : "is not text");
    if (f && f != stdin)
        fclose(f);
    free(text);
    return value;
}

static json_t *key_of(const char *path)
{
    json_t *text = file_of("ssh-key", path);
    const char *line = json_string_value(text);
    json_t *key = line ? json_stringn(line, strcspn(line, "\r\n")) : NULL;

    json_decref(text);
    return key;
}

/* --forward goes to the first network. */
static bool put_forwards(const struct host_call *call, json_t *body)
{
    json_t *networks = json_object_get(body, "networks");

    if (!host_option(call, "forward"))
        return true;
    if (!networks) {
        networks = json_pack("[{}]"); /* the default network */
        json_object_set_new(body, "networks", networks);
    }
    return put_many(call, json_array_get(networks, 0), "forward", "forward", text_of);
}

static bool put_config(const struct host_call *call, json_t *body)
{
    const char *path = host_option(call, "config");
    json_error_t where;

    if (!path)
        return true;
    json_t *config =
        strcmp(path, "-") ? json_load_file(path, 0, &where) : json_loadf(stdin, 0, &where);
    if (!json_is_object(config)) {
        host_fail(API_USAGE, "--config %s: line %d: %s", path, where.line,
                  config ? "is no object" : where.text);
        json_decref(config);
        return false;
    }
    return put(body, "config", config);
}

static bool put_id(struct host_call *call, json_t *body, const char *member, const char *list,
                   const char *name)
{
    int status;
    char *id = host_find(call, list, member, name, &status);
    bool good = id && put(body, member, json_string(id));

    free(id);
    return good;
}

static bool put_resources(struct host_call *call, json_t *body)
{
    json_t *amounts = json_object();

    if (!resources_put(call, amounts)) {
        json_decref(amounts);
        return false;
    }
    if (json_object_size(amounts))
        return put(body, "resources", amounts);
    json_decref(amounts);
    return true;
}

/* The members that create, launch and edit have in common. */
static bool put_common(struct host_call *call, json_t *body)
{
    static const char *const texts[] = {"description", "folder", "os", "datastore"};
    const char *value;

    for (unsigned i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        if ((value = host_option(call, texts[i])) && !put(body, texts[i], json_string(value)))
            return false;
    if ((value = host_option(call, "cpus")) &&
        !put(body, "cpus", host_number("cpus", value, 1, 64)))
        return false;
    if ((value = host_option(call, "memory")) && !put(body, "memory", host_size("memory", value)))
        return false;
    if ((value = host_option(call, "autostart")) &&
        !put(body, "autostart", json_pack("{s:b}", "enabled", !strcmp(value, "on"))))
        return false;
    if ((value = host_option(call, "pool")) && !strcmp(value, "none")) {
        if (!put(body, "pool", json_null()))
            return false;
    } else if (value && !put_id(call, body, "pool", "/pools", value)) {
        return false;
    }
    if (!put_resources(call, body))
        return false;
    return put_many(call, body, "tag", "tags", text_of) && put_config(call, body);
}

static bool put_new(struct host_call *call, json_t *body)
{
    static const char *const texts[] = {"image", "iso", "template"};
    const char *value;

    for (unsigned i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        if ((value = host_option(call, texts[i])) && !put(body, texts[i], json_string(value)))
            return false;
    if (host_option(call, "start") && !put(body, "start", json_true()))
        return false;
    if (host_option(call, "linked") && !put(body, "linked", json_true()))
        return false;
    return put_common(call, body) && put_many(call, body, "disk", "disks", disk_of) &&
           put_many(call, body, "network", "networks", network_of) && put_forwards(call, body);
}

/* ---- create, launch ---- */

static bool put_seed(const struct host_call *call, json_t *body)
{
    static const char *const texts[] = {"user", "hostname"};
    json_t *seed = json_object();
    const char *value;
    char *secret = NULL;
    bool good = true;

    for (unsigned i = 0; good && i < sizeof(texts) / sizeof(texts[0]); i++)
        if ((value = host_option(call, texts[i])))
            good = put(seed, texts[i], json_string(value));
    if (good && host_option(call, "password")) {
        secret = host_secret("Password of the guest's user");
        good = secret && put(seed, "password", json_string(secret));
        free(secret);
    }
    if (good && (value = host_option(call, "user-data")))
        good = put(seed, "user_data", file_of("user-data", value));
    good = good && put_many(call, seed, "ssh-key", "ssh_keys", key_of) &&
           put_many(call, seed, "package", "packages", text_of);
    if (good && json_object_size(seed))
        return put(body, "cloud_init", seed);
    json_decref(seed);
    return good;
}

static int make(struct host_call *call, json_t *body, bool good)
{
    int status;

    if (!good) {
        json_decref(body);
        return API_USAGE;
    }
    char *name = strdup(json_string_value(json_object_get(body, "name")));
    json_t *task = host_send(call, "POST", strdup("/machines"), body, &status);
    if (task)
        status = host_wait(call, task, NULL);
    if (!status && !call->no_wait && isatty(STDOUT_FILENO))
        printf("machine %s is there%s; see mullion info %s\n", name,
               host_option(call, "start") ? " and starts" : "", name);
    free(name);
    return status;
}

static int create(struct host_call *call)
{
    json_t *body = json_pack("{s:s}", "name", call->argument[0]);

    return make(call, body, put_new(call, body));
}

/* Have the host build an image that it does not have, if it can. */
static int need_image(struct host_call *call, const char *image)
{
    struct mull_error err = {0};
    char *path = api_path(call->api, "/images/%s", image);
    json_t *there = path ? api_call(call->api, "GET", path, NULL, &err) : NULL;
    bool build = !there && api_status(call->api) == API_NOT_FOUND, wait = call->no_wait;
    int status = there || build ? API_DONE : host_failed(call, &err);

    free(path);
    json_decref(there);
    if (!build)
        return status;
    if (isatty(STDERR_FILENO))
        fprintf(stderr, "The host has no image %s: it builds one.\n", image);
    json_t *task =
        host_send(call, "POST", strdup("/images"), json_pack("{s:s}", "name", image), &status);
    call->no_wait = false;
    status = task ? host_wait(call, task, NULL) : status;
    call->no_wait = wait;
    return status;
}

static int launch(struct host_call *call)
{
    const char *image = call->argument[0];
    int status = need_image(call, image);

    if (status)
        return status;
    const char *name = call->arguments > 1 ? call->argument[1] : image;
    json_t *body = json_pack("{s:s, s:s, s:b}", "name", name, "image", image, "start", 1);

    return make(call, body, put_new(call, body) && put_seed(call, body));
}

/* ---- edit, rename ---- */

/* Let the user change the description in an editor. @return NULL: nothing changed, or *status */
static json_t *edited(json_t *config, int *status)
{
    const char *editor = getenv("VISUAL") ? getenv("VISUAL") : getenv("EDITOR");
    char path[] = "/tmp/mullion-edit-XXXXXX.json", command[512];
    json_error_t where;
    int fd = mkstemps(path, 5);
    FILE *f = fd >= 0 ? fdopen(fd, "w") : NULL;

    *status = API_FAILED;
    if (!f || json_dumpf(config, f, JSON_INDENT(2)) || fputc('\n', f) == EOF || fclose(f)) {
        host_fail(API_FAILED, "%s: %s", path, strerror(errno));
        return NULL;
    }
    snprintf(command, sizeof(command), "%s %s", editor && *editor ? editor : "vi", path);
    int ended = system(command);
    json_t *fresh = ended ? NULL : json_load_file(path, 0, &where);
    if (ended) {
        host_fail(API_FAILED, "%s: ended with status %d; nothing is changed", command,
                  WEXITSTATUS(ended));
    } else if (!fresh) {
        host_fail(API_USAGE, "line %d: %s; what you wrote is in %s", where.line, where.text, path);
        return NULL;
    }
    unlink(path);
    *status = API_DONE;
    if (fresh && json_equal(fresh, config)) {
        json_decref(fresh);
        fresh = NULL;
    }
    *status = ended ? API_FAILED : API_DONE;
    return fresh;
}

/* A merge patch (RFC 7396) that leads from one to the other. */
static json_t *difference(json_t *from, json_t *to)
{
    json_t *patch = json_object(), *value;
    const char *name;

    json_object_foreach(from, name, value) if (!json_object_get(to, name))
        json_object_set_new(patch, name, json_null());
    json_object_foreach(to, name, value)
    {
        json_t *old = json_object_get(from, name);

        if (json_is_object(value) && json_is_object(old) && !json_equal(old, value))
            json_object_set_new(patch, name, difference(old, value));
        else if (!old || !json_equal(old, value))
            json_object_set(patch, name, value);
    }
    return patch;
}

static int patch(struct host_call *call, const char *id, const char *etag, json_t *body)
{
    struct mull_error err = {0};
    char *path = api_path(call->api, "/machines/%s", id);
    json_t *machine = path ? api_call_if(call->api, "PATCH", path, etag, body, &err) : NULL;
    int status = machine ? API_DONE : host_failed(call, &err);

    free(path);
    if (machine && json_is_true(json_object_get(machine, "pending")) && isatty(STDERR_FILENO))
        fputs("It is running: what changed applies when it starts the next time.\n", stderr);
    json_decref(machine);
    return status;
}

static int edit_config(struct host_call *call, const char *id)
{
    int status;
    json_t *machine =
        host_send(call, "GET", api_path(call->api, "/machines/%s", id), NULL, &status);
    json_t *config = json_object_get(machine, "pending_config");

    if (!machine)
        return status;
    if (!json_is_object(config))
        config = json_object_get(machine, "config");
    char *etag = strdup(api_etag(call->api));
    json_t *fresh = edited(config, &status);
    if (fresh)
        status = patch(call, id, etag && *etag ? etag : NULL,
                       json_pack("{s:o}", "config", difference(config, fresh)));
    json_decref(fresh);
    json_decref(machine);
    free(etag);
    return status;
}

static int edit(struct host_call *call)
{
    int status;
    json_t *body = json_object();
    bool good = put_common(call, body);
    char *id = good ? host_find(call, "/machines", "machine", call->argument[0], &status) : NULL;

    if (!id)
        status = good ? status : API_USAGE;
    else if (json_object_size(body))
        status = patch(call, id, NULL, json_incref(body));
    else if (isatty(STDIN_FILENO))
        status = edit_config(call, id);
    else
        status = host_fail(API_USAGE, "edit: say what to change; see mullion edit --help");
    json_decref(body);
    free(id);
    return status;
}

static int rename_machine(struct host_call *call)
{
    int status;
    char *id = host_find(call, "/machines", "machine", call->argument[0], &status);

    if (id)
        status = patch(call, id, NULL, json_pack("{s:s}", "name", call->argument[1]));
    free(id);
    return status;
}

/* ---- The table ---- */

static const struct host_option list_options[] = {
    {"state", "stopped|starting|running|paused|stopping|crashed", "only these", HOST_TEXT, false},
    {"tag", "TAG", "only those with it", HOST_TEXT, false},
    {"folder", "FOLDER", "only those in it", HOST_TEXT, false},
    {"q", "TEXT", "only those whose name has it", HOST_TEXT, false},
    {"sort", "MEMBER", "by a member of the objects; -MEMBER: descending", HOST_TEXT, false},
    {0},
};

#define COMMON_OPTIONS                                                                             \
    {"cpus", "N", "virtual CPUs", HOST_TEXT, false},                                               \
        {"memory", "SIZE", "like 2G", HOST_TEXT, false},                                           \
        {"description", "TEXT", "for people", HOST_TEXT, false},                                   \
        {"folder", "FOLDER", "where it is shown, like /prod/web", HOST_TEXT, false},               \
        {"tag", "TAG", "for finding it", HOST_TEXT, true},                                         \
        {"os", "NAME", "the guest's system, like debian12-64", HOST_TEXT, false},                  \
        {"pool", "POOL", "the resource pool it belongs to; none: no pool", HOST_POOL, false},       \
        RESOURCE_OPTIONS,                                                                          \
        {"autostart", "on|off", "start it with the host", HOST_TEXT, false},                       \
    {                                                                                              \
        "config", "FILE", "more, as JSON, merged into its description; - is standard input",       \
            HOST_FILE, false                                                                       \
    }
#define NEW_OPTIONS                                                                                \
    {"datastore", "DATASTORE", "where its disks are", HOST_DATASTORE, false},                      \
        {"disk", "SIZE[,bus=BUS]", "a new, empty disk", HOST_TEXT, true},                          \
        {"network", "NAME[,model=M][,mac=A][,vlan=N]", "a network card", HOST_NETWORK, true},      \
    {                                                                                              \
        "forward", "tcp:PORT:GUESTPORT", "lead a port of the host to the guest", HOST_TEXT, true   \
    }

static const struct host_option create_options[] = {
    {"image", "IMAGE", "its first disk is a copy of this image", HOST_IMAGE, false},
    {"iso", "ISO", "what is in its CD-ROM drive", HOST_IMAGE, false},
    {"template", "TEMPLATE", "what it is made like", HOST_TEMPLATE, false},
    {"linked", NULL, "its disks stand on the template's instead of being copies", HOST_TEXT, false},
    {"start", NULL, "start it", HOST_TEXT, false},
    COMMON_OPTIONS,
    NEW_OPTIONS,
    {0},
};

static const struct host_option launch_options[] = {
    {"user", "NAME", "the user that the guest makes", HOST_TEXT, false},
    {"password", NULL, "ask for the user's password, or read it from standard input", HOST_TEXT,
     false},
    {"ssh-key", "FILE", "a public key that may log in", HOST_FILE, true},
    {"hostname", "NAME", "the guest's own name (the machine's)", HOST_TEXT, false},
    {"package", "NAME", "a package that the guest installs", HOST_TEXT, true},
    {"user-data", "FILE", "cloud-init user data, instead", HOST_FILE, false},
    COMMON_OPTIONS,
    NEW_OPTIONS,
    {0},
};

static const struct host_option edit_options[] = {COMMON_OPTIONS, {0}};

const struct host_command host_machine_commands[] = {
    {"list", "", "list the machines", NULL, list_options, 0, 0, HOST_TEXT, HOST_LISTS, list},
    {"info", "MACHINE", "show a machine", NULL, NULL, 1, 1, HOST_MACHINE, HOST_LISTS, info},
    {"create", "NAME", "make a machine", NULL, create_options, 1, 1, HOST_TEXT, HOST_WAITS, create},
    {"launch", "IMAGE [NAME]", "make a machine of an image, set it up and start it",
     "An image that the host does not have is built first, where it can be: debian-12.",
     launch_options, 1, 2, HOST_IMAGE, HOST_WAITS, launch},
    {"edit", "MACHINE", "change a machine",
     "Without an option that says what, its description is opened in $VISUAL or $EDITOR. What a\n"
     "running machine can't take now applies when it starts the next time.",
     edit_options, 1, 1, HOST_MACHINE, 0, edit},
    {"rename", "MACHINE NAME", "give a machine another name", NULL, NULL, 2, 2, HOST_MACHINE, 0,
     rename_machine},
    {0},
};
