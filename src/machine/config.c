/*
 * Reads a machine's configuration from JSON and checks it. Each error names the member, its value
 * and what would be right; nothing is opened or created here.
 */
#include "machine/config.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>

#include "engine/engine.h"

/* Where in the document we are, for messages, and where errors go. */
struct reader {
    struct mull_error *err;
    char place[64];
};

static int bad(struct reader *r, const char *key, const char *want)
{
    return mull_fail(r->err, EINVAL, "configuration: %s%s%s: %s", r->place, *r->place ? "." : "",
                     key, want);
}

static int read_string(struct reader *r, json_t *object, const char *key, char **out)
{
    json_t *value = json_object_get(object, key);
    if (!value || json_is_null(value))
        return 0;
    /* A string with a NUL inside would be cut silently. */
    if (!json_is_string(value) || strlen(json_string_value(value)) != json_string_length(value))
        return bad(r, key, "must be a string");
    *out = strdup(json_string_value(value));
    return *out ? 0 : mull_fail(r->err, ENOMEM, "configuration: no memory");
}

static int read_bool(struct reader *r, json_t *object, const char *key, bool *out)
{
    json_t *value = json_object_get(object, key);
    if (!value)
        return 0;
    if (!json_is_boolean(value))
        return bad(r, key, "must be true or false");
    *out = json_is_true(value);
    return 0;
}

static int read_number(struct reader *r, json_t *object, const char *key, int64_t min, int64_t max,
                       int64_t *out)
{
    json_t *value = json_object_get(object, key);
    if (!value)
        return 0;
    if (!json_is_integer(value) || json_integer_value(value) < min ||
        json_integer_value(value) > max) {
        char want[80];
        snprintf(want, sizeof(want), "must be a whole number from %lld to %lld", (long long)min,
                 (long long)max);
        return bad(r, key, want);
    }
    *out = json_integer_value(value);
    return 0;
}

static int check_members(struct reader *r, json_t *object, const char *const *known)
{
    const char *key;
    json_t *value;
    if (!json_is_object(object))
        return bad(r, "", "must be an object");
    json_object_foreach(object, key, value)
    {
        const char *const *k = known;
        while (*k && strcmp(*k, key))
            k++;
        if (!*k)
            return bad(r, key, "no such member");
    }
    return 0;
}

static int read_disk(struct reader *r, json_t *object, struct mull_disk_config *disk)
{
    static const char *const known[] = {"path", "format", "readonly", "direct", "serial", NULL};
    char *serial = NULL;
    int ret = check_members(r, object, known);
    if (!ret)
        ret = read_string(r, object, "path", &disk->path);
    if (!ret)
        ret = read_string(r, object, "format", &disk->format);
    if (!ret)
        ret = read_bool(r, object, "readonly", &disk->readonly);
    if (!ret)
        ret = read_bool(r, object, "direct", &disk->direct);
    if (!ret)
        ret = read_string(r, object, "serial", &serial);
    if (!ret && serial && strlen(serial) >= sizeof(disk->serial))
        ret = bad(r, "serial", "must have at most 20 characters");
    if (!ret && serial)
        strcpy(disk->serial, serial);
    if (!ret && !disk->path)
        ret = bad(r, "path", "is missing");
    free(serial);
    return ret;
}

static int read_forwards(struct reader *r, json_t *object, struct mull_network_config *net)
{
    json_t *list = json_object_get(object, "forward"), *item;
    size_t i;
    if (!list)
        return 0;
    if (!json_is_array(list) || json_array_size(list) > MULL_CONFIG_FORWARDS)
        return bad(r, "forward", "must be a list of at most 32 strings");
    json_array_foreach(list, i, item)
    {
        if (!json_is_string(item))
            return bad(r, "forward", "must be a list of strings");
        net->forward[i] = strdup(json_string_value(item));
        if (!net->forward[i])
            return mull_fail(r->err, ENOMEM, "configuration: no memory");
        net->forward_count++;
    }
    return 0;
}

int mull_mac_parse(const char *text, uint8_t mac[6])
{
    unsigned b[6];
    int end = 0;
    if (strlen(text) != 17 ||
        sscanf(text, "%2x:%2x:%2x:%2x:%2x:%2x%n", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5], &end) !=
            6 ||
        end != 17 || (b[0] & 1))
        return -EINVAL;
    for (unsigned i = 0; i < 6; i++)
        mac[i] = (uint8_t)b[i];
    return 0;
}

static int read_network(struct reader *r, json_t *object, struct mull_network_config *net)
{
    static const char *const known[] = {"type", "interface", "mac", "forward", NULL};
    char *type = NULL, *mac = NULL;
    int ret = check_members(r, object, known);
    if (!ret)
        ret = read_string(r, object, "type", &type);
    if (!ret)
        ret = read_string(r, object, "interface", &net->interface);
    if (!ret)
        ret = read_string(r, object, "mac", &mac);
    if (!ret)
        ret = read_forwards(r, object, net);
    if (!ret && type && !strcmp(type, "tap"))
        net->kind = MULL_NETWORK_TAP;
    else if (!ret && (!type || strcmp(type, "user")))
        ret = bad(r, "type", "must be \"user\" or \"tap\"");
    if (!ret && net->kind == MULL_NETWORK_TAP && (!net->interface || !*net->interface))
        ret = bad(r, "interface", "is missing: a tap network needs the interface's name");
    if (!ret && mac) {
        net->has_mac = true;
        if (mull_mac_parse(mac, net->mac))
            ret = bad(r, "mac", "must be a unicast address like 02:00:00:00:00:01");
    }
    free(type);
    free(mac);
    return ret;
}

static int read_console(struct reader *r, json_t *object, struct mull_console_config *console)
{
    static const char *const known[] = {"type", "device", "in", "out", "path", NULL};
    char *type = NULL, *device = NULL;
    int64_t in = -1, out = -1;
    int ret = check_members(r, object, known);
    if (!ret)
        ret = read_string(r, object, "type", &type);
    if (!ret)
        ret = read_string(r, object, "device", &device);
    if (!ret)
        ret = read_string(r, object, "path", &console->path);
    if (!ret)
        ret = read_number(r, object, "in", -1, 1 << 20, &in);
    if (!ret)
        ret = read_number(r, object, "out", -1, 1 << 20, &out);
    console->in_fd = (int)in;
    console->out_fd = (int)out;
    if (!ret) {
        if (type && !strcmp(type, "fd"))
            console->kind = MULL_CONSOLE_FD;
        else if (type && !strcmp(type, "unix"))
            console->kind = MULL_CONSOLE_UNIX;
        else if (!type || strcmp(type, "none"))
            ret = bad(r, "type", "must be \"none\", \"fd\" or \"unix\"");
    }
    if (!ret && console->kind == MULL_CONSOLE_UNIX && (!console->path || !*console->path))
        ret = bad(r, "path", "is missing: where shall the socket be?");
    if (!ret && device) {
        if (!strcmp(device, "virtio"))
            console->device = MULL_CONSOLE_VIRTIO;
        else if (strcmp(device, "serial"))
            ret = bad(r, "device", "must be \"serial\" or \"virtio\"");
    }
    free(type);
    free(device);
    return ret;
}

/* Read a list of objects: @one is called for each with its place noted for messages. */
static int read_list(struct reader *r, json_t *root, const char *key, unsigned max, unsigned *count,
                     struct mull_machine_config *config,
                     int (*one)(struct reader *r, json_t *object,
                                struct mull_machine_config *config, unsigned i))
{
    json_t *list = json_object_get(root, key), *item;
    size_t i;
    if (!list)
        return 0;
    if (!json_is_array(list))
        return bad(r, key, "must be a list");
    if (json_array_size(list) > max) {
        char want[64];
        snprintf(want, sizeof(want), "has %zu entries; at most %u are possible",
                 json_array_size(list), max);
        return bad(r, key, want);
    }
    json_array_foreach(list, i, item)
    {
        snprintf(r->place, sizeof(r->place), "%s[%zu]", key, i);
        *count = (unsigned)i + 1;
        int ret = one(r, item, config, (unsigned)i);
        if (ret)
            return ret;
    }
    r->place[0] = '\0';
    return 0;
}

static int one_disk(struct reader *r, json_t *o, struct mull_machine_config *c, unsigned i)
{
    return read_disk(r, o, &c->disk[i]);
}

static int one_network(struct reader *r, json_t *o, struct mull_machine_config *c, unsigned i)
{
    return read_network(r, o, &c->network[i]);
}

static int one_console(struct reader *r, json_t *o, struct mull_machine_config *c, unsigned i)
{
    return read_console(r, o, &c->console[i]);
}

static int read_root(struct reader *r, json_t *root, struct mull_machine_config *c)
{
    static const char *const known[] = {"name",   "kernel",   "initrd",   "cmdline",
                                        "memory", "cpus",     "engine",   "no_reboot",
                                        "disks",  "networks", "consoles", NULL};
    int64_t memory = (int64_t)MULL_MEMORY_DEFAULT, cpus = 1;
    int ret = check_members(r, root, known);
    if (!ret)
        ret = read_string(r, root, "name", &c->name);
    if (!ret)
        ret = read_string(r, root, "kernel", &c->kernel);
    if (!ret)
        ret = read_string(r, root, "initrd", &c->initrd);
    if (!ret)
        ret = read_string(r, root, "cmdline", &c->cmdline);
    if (!ret)
        ret = read_string(r, root, "engine", &c->engine);
    if (!ret)
        ret = read_number(r, root, "memory", 0, INT64_MAX, &memory);
    if (!ret)
        ret = read_number(r, root, "cpus", 0, UINT32_MAX, &cpus);
    if (!ret)
        ret = read_bool(r, root, "no_reboot", &c->no_reboot);
    if (!ret)
        ret = read_list(r, root, "disks", MULL_CONFIG_DISKS, &c->disk_count, c, one_disk);
    if (!ret)
        ret =
            read_list(r, root, "networks", MULL_CONFIG_NETWORKS, &c->network_count, c, one_network);
    if (!ret)
        ret =
            read_list(r, root, "consoles", MULL_CONFIG_CONSOLES, &c->console_count, c, one_console);
    c->memory = (uint64_t)memory;
    c->cpus = (unsigned)cpus;
    if (!ret && !c->name && !(c->name = strdup("mullion")))
        ret = mull_fail(r->err, ENOMEM, "configuration: no memory");
    if (!ret && !c->engine && !(c->engine = strdup("auto")))
        ret = mull_fail(r->err, ENOMEM, "configuration: no memory");
    return ret;
}

int mull_machine_config_parse(const char *json, struct mull_machine_config *out,
                              struct mull_error *err)
{
    memset(out, 0, sizeof(*out));
    json_error_t where;
    json_t *root = json_loads(json, JSON_REJECT_DUPLICATES, &where);
    if (!root)
        return mull_fail(err, EINVAL, "configuration: line %d, column %d: %s", where.line,
                         where.column, where.text);
    struct reader r = {.err = err};
    int ret = read_root(&r, root, out);
    json_decref(root);
    return ret ? ret : mull_machine_config_check(out, err);
}

static int check_memory(uint64_t memory, struct mull_error *err)
{
    struct sysinfo host;
    if (memory < MULL_MEMORY_MIN || memory > MULL_MEMORY_MAX)
        return mull_fail(
            err, ERANGE, "--memory: %llu MiB is out of range; give %llu MiB to %llu GiB",
            (unsigned long long)memory >> 20, MULL_MEMORY_MIN >> 20, MULL_MEMORY_MAX >> 30);
    if (memory & (MULL_PAGE_SIZE - 1))
        return mull_fail(err, EINVAL, "--memory: %llu bytes are not whole pages of 4 KiB",
                         (unsigned long long)memory);
    if (!sysinfo(&host)) {
        uint64_t total = ((uint64_t)host.totalram + host.totalswap) * host.mem_unit;
        if (memory > total)
            return mull_fail(err, ERANGE,
                             "--memory: %llu MiB is more than the host has (%llu MiB with swap); "
                             "give less",
                             (unsigned long long)memory >> 20, (unsigned long long)total >> 20);
    }
    return 0;
}

int mull_machine_config_check(const struct mull_machine_config *c, struct mull_error *err)
{
    if (!c->kernel || !*c->kernel)
        return mull_fail(err, EINVAL, "--kernel: nothing to boot; give a bzImage or a vmlinux");
    if (!c->name || !*c->name || strlen(c->name) > 63)
        return mull_fail(err, EINVAL, "--name: a name has 1 to 63 characters");
    for (const char *p = c->name; *p; p++)
        if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.", *p))
            return mull_fail(err, EINVAL,
                             "--name: '%s': use letters, digits, '-', '_' and '.' only", c->name);
    int ret = check_memory(c->memory, err);
    if (ret)
        return ret;
    if (c->cpus < 1 || c->cpus > MULL_MAX_CPUS)
        return mull_fail(err, ERANGE, "--cpus: %u is out of range; give 1 to %d", c->cpus,
                         MULL_MAX_CPUS);
    unsigned serial = 0;
    for (unsigned i = 0; i < c->console_count; i++)
        serial += c->console[i].device == MULL_CONSOLE_SERIAL;
    if (serial > 2)
        return mull_fail(err, EINVAL, "--console: %u serial ports; a machine has two at most",
                         serial);
    return 0;
}

void mull_machine_config_free(struct mull_machine_config *c)
{
    for (unsigned i = 0; i < c->disk_count; i++) {
        free(c->disk[i].path);
        free(c->disk[i].format);
    }
    for (unsigned i = 0; i < c->network_count; i++) {
        free(c->network[i].interface);
        for (unsigned j = 0; j < c->network[i].forward_count; j++)
            free(c->network[i].forward[j]);
    }
    for (unsigned i = 0; i < c->console_count; i++)
        free(c->console[i].path);
    free(c->name);
    free(c->kernel);
    free(c->initrd);
    free(c->cmdline);
    free(c->engine);
    memset(c, 0, sizeof(*c));
}
