/*
 * Reads a machine's description from JSON. Each error names the member, its value and what would be
 * right; nothing is opened or created here, and whether it can be run is config.c's to say.
 */
#include "machine/config.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device/net/netdev.h"

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

/* One of a list of names. */
static int read_choice(struct reader *r, json_t *object, const char *key, const char *const *names,
                       int *out)
{
    json_t *value = json_object_get(object, key);
    if (!value)
        return 0;
    int i = json_is_string(value) ? mull_name_index(names, json_string_value(value)) : -1;
    if (i >= 0) {
        *out = i;
        return 0;
    }
    char want[160] = "must be one of";
    for (unsigned n = 0; names[n]; n++) {
        size_t len = strlen(want);
        snprintf(want + len, sizeof(want) - len, "%s %s", n ? "," : "", names[n]);
    }
    return bad(r, key, want);
}

/* A part of the description that this floor only keeps. */
static int read_kept(struct reader *r, json_t *object, const char *key, json_t **out)
{
    json_t *value = json_object_get(object, key);
    if (!value)
        return 0;
    if (!json_is_object(value))
        return bad(r, key, "must be an object");
    *out = json_incref(value);
    return 0;
}

/* Where a drive sits: bus, adapter, controller, unit. */
static int read_place(struct reader *r, json_t *object, enum mull_bus *bus, char **adapter,
                      int *controller, int *unit)
{
    int64_t c = -1, u = -1;
    int b = MULL_BUS_VIRTIO;
    int ret = read_choice(r, object, "bus", mull_bus_names, &b);
    if (!ret)
        ret = read_string(r, object, "adapter", adapter);
    if (!ret && *adapter && b != MULL_BUS_SCSI)
        ret = bad(r, "adapter", "only a disk on the scsi bus has one");
    if (!ret)
        ret = read_number(r, object, "controller", 0, 255, &c);
    if (!ret)
        ret = read_number(r, object, "unit", 0, 255, &u);
    *bus = (enum mull_bus)b;
    *controller = (int)c;
    *unit = (int)u;
    return ret;
}

static int read_disk(struct reader *r, json_t *object, struct mull_disk_config *disk)
{
    static const char *const known[] = {"path",    "format",     "readonly", "direct",
                                        "serial",  "cbt",        "on_error", "bus",
                                        "adapter", "controller", "unit",     NULL};
    char *serial = NULL;
    int on_error = MULL_ON_ERROR_REPORT;
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
        ret = read_bool(r, object, "cbt", &disk->cbt);
    if (!ret)
        ret = read_choice(r, object, "on_error", mull_on_error_names, &on_error);
    disk->on_error = (enum mull_disk_on_error)on_error;
    if (!ret)
        ret = read_place(r, object, &disk->bus, &disk->adapter, &disk->controller, &disk->unit);
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

static int read_cdrom(struct reader *r, json_t *object, struct mull_cdrom_config *cdrom)
{
    static const char *const known[] = {"path", "bus", "adapter", "controller", "unit", NULL};
    int ret = check_members(r, object, known);
    if (!ret)
        ret = read_string(r, object, "path", &cdrom->path);
    if (!ret)
        ret = read_place(r, object, &cdrom->bus, &cdrom->adapter, &cdrom->controller, &cdrom->unit);
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

static int read_vlans(struct reader *r, json_t *object, struct mull_network_config *net)
{
    json_t *list = json_object_get(object, "vlans"), *item;
    int64_t vlan = 0;
    size_t i;
    int ret = read_number(r, object, "vlan", 1, 4094, &vlan);
    net->vlan = (unsigned)vlan;
    if (ret || !list)
        return ret;
    if (!json_is_array(list) || json_array_size(list) > MULL_CONFIG_VLANS)
        return bad(r, "vlans", "must be a list of at most 64 numbers");
    json_array_foreach(list, i, item)
    {
        if (!json_is_integer(item) || json_integer_value(item) < 1 ||
            json_integer_value(item) > 4094)
            return bad(r, "vlans", "must be a list of numbers from 1 to 4094");
        net->vlans[net->vlan_count++] = (uint16_t)json_integer_value(item);
    }
    return 0;
}

static int read_network(struct reader *r, json_t *object, struct mull_network_config *net)
{
    static const char *const known[] = {"type",    "model", "name",     "interface", "mac",
                                        "forward", "tftp",  "bootfile", "fd",        "vlan",
                                        "vlans",   NULL};
    static const char *const kinds[] = {"user", "tap", "none", "host", NULL};
    int64_t fd = 0;
    char *mac = NULL;
    int kind = -1, model = MULL_NIC_VIRTIO;
    int ret = check_members(r, object, known);
    if (!ret)
        ret = read_choice(r, object, "type", kinds, &kind);
    if (!ret)
        ret = read_choice(r, object, "model", mull_nic_names, &model);
    if (!ret)
        ret = read_string(r, object, "name", &net->name);
    if (!ret)
        ret = read_string(r, object, "interface", &net->interface);
    if (!ret)
        ret = read_string(r, object, "mac", &mac);
    if (!ret)
        ret = read_forwards(r, object, net);
    if (!ret)
        ret = read_string(r, object, "tftp", &net->tftp);
    if (!ret)
        ret = read_string(r, object, "bootfile", &net->bootfile);
    if (!ret)
        ret = read_number(r, object, "fd", 3, 1 << 20, &fd);
    if (!ret)
        ret = read_vlans(r, object, net);
    net->model = (enum mull_nic)model;
    net->fd = (int)fd;
    if (!ret && kind < 0)
        ret = bad(r, "type", "is missing: user, tap, host or none");
    if (!ret)
        net->kind = (enum mull_network_kind)kind;
    if (!ret && net->kind == MULL_NETWORK_TAP && (!net->interface || !*net->interface))
        ret = bad(r, "interface", "is missing: a tap network needs the interface's name");
    if (!ret && net->kind == MULL_NETWORK_HOST && (!net->name || !*net->name))
        ret = bad(r, "name", "is missing: which of the host's networks");
    if (!ret && net->fd && net->kind != MULL_NETWORK_TAP)
        ret = bad(r, "fd", "needs the type tap");
    if (!ret && (net->vlan || net->vlan_count) && net->kind != MULL_NETWORK_HOST)
        ret = bad(r, net->vlan ? "vlan" : "vlans", "needs the type host");
    if (!ret && net->tftp && (net->kind != MULL_NETWORK_USER || !*net->tftp))
        ret = bad(r, "tftp", "needs the type user and a folder's name");
    if (!ret && net->bootfile && (!net->tftp || strlen(net->bootfile) > MULL_NETBOOT_FILE_MAX))
        ret = bad(r, "bootfile", "needs tftp, and has at most 127 characters");
    if (!ret && mac) {
        net->has_mac = true;
        if (mull_mac_parse(mac, net->mac))
            ret = bad(r, "mac", "must be a unicast address like 02:00:00:00:00:01");
    }
    free(mac);
    return ret;
}

static int read_console(struct reader *r, json_t *object, struct mull_console_config *console)
{
    static const char *const known[] = {"type", "device", "in", "out", "path", "name", NULL};
    static const char *const kinds[] = {"none", "fd", "unix", "stdio", "file", "tcp", NULL};
    static const char *const devices[] = {"serial", "virtio", "channel", NULL};
    int kind = -1, device = MULL_CONSOLE_SERIAL;
    int64_t in = -1, out = -1;
    int ret = check_members(r, object, known);
    if (!ret)
        ret = read_choice(r, object, "type", kinds, &kind);
    if (!ret)
        ret = read_choice(r, object, "device", devices, &device);
    if (!ret)
        ret = read_string(r, object, "path", &console->path);
    if (!ret)
        ret = read_string(r, object, "name", &console->name);
    if (!ret)
        ret = read_number(r, object, "in", -1, 1 << 20, &in);
    if (!ret)
        ret = read_number(r, object, "out", -1, 1 << 20, &out);
    if (!ret && kind < 0)
        ret = bad(r, "type", "is missing: none, fd, unix, stdio, file or tcp");
    if (ret)
        return ret;
    console->in_fd = (int)in;
    console->out_fd = (int)out;
    console->kind = (enum mull_console_kind)kind;
    console->device = (enum mull_console_device)device;
    if ((device == MULL_CONSOLE_CHANNEL) != (console->name != NULL))
        return bad(r, "name", console->name ? "is a channel's" : "is missing: which channel?");
    if (console->name && (!*console->name || strlen(console->name) > 31))
        return bad(r, "name", "must have 1 to 31 characters");
    if ((kind == MULL_CONSOLE_UNIX || kind == MULL_CONSOLE_FILE || kind == MULL_CONSOLE_TCP) &&
        (!console->path || !*console->path))
        return bad(r, "path",
                   kind == MULL_CONSOLE_TCP ? "is missing: give [HOST]:PORT"
                                            : "is missing: where shall it be?");
    return 0;
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

static int one_cdrom(struct reader *r, json_t *o, struct mull_machine_config *c, unsigned i)
{
    return read_cdrom(r, o, &c->cdrom[i]);
}

static int one_module(struct reader *r, json_t *o, struct mull_machine_config *c, unsigned i)
{
    static const char *const known[] = {"path", "args", NULL};
    struct mull_module_config *module = &c->module[i];
    int ret = check_members(r, o, known);
    if (!ret)
        ret = read_string(r, o, "path", &module->path);
    if (!ret)
        ret = read_string(r, o, "args", &module->args);
    if (!ret && (!module->path || !*module->path))
        ret = bad(r, "path", "is missing: give a file");
    return ret;
}

static int one_share(struct reader *r, json_t *o, struct mull_machine_config *c, unsigned i)
{
    static const char *const known[] = {"path", "tag", "type", "readonly", NULL};
    static const char *const types[] = {"virtiofs", "9p", NULL};
    struct mull_share_config *share = &c->share[i];
    int type = 0;
    int ret = check_members(r, o, known);
    if (!ret)
        ret = read_string(r, o, "path", &share->path);
    if (!ret)
        ret = read_string(r, o, "tag", &share->tag);
    if (!ret)
        ret = read_choice(r, o, "type", types, &type);
    if (!ret)
        ret = read_bool(r, o, "readonly", &share->readonly);
    share->plan9 = type == 1;
    if (!ret && (!share->path || !*share->path))
        ret = bad(r, "path", "is missing: give a folder");
    if (!ret && (!share->tag || !*share->tag || strlen(share->tag) > 36))
        ret = bad(r, "tag", "must have 1 to 36 characters");
    for (unsigned j = 0; j < i && !ret; j++)
        if (!strcmp(share->tag, c->share[j].tag))
            ret = bad(r, "tag", "another share has it already");
    return ret;
}

static int read_boot(struct reader *r, json_t *root, struct mull_machine_config *c)
{
    static const char *const known[] = {"order", "menu", NULL};
    json_t *boot = json_object_get(root, "boot"), *item;
    size_t i;
    if (!boot)
        return 0;
    strcpy(r->place, "boot");
    int ret = check_members(r, boot, known);
    if (!ret)
        ret = read_bool(r, boot, "menu", &c->boot_menu);
    json_t *order = json_object_get(boot, "order");
    if (!ret && order && (!json_is_array(order) || json_array_size(order) > MULL_CONFIG_BOOT))
        ret = bad(r, "order", "must be a list of at most 16 strings");
    json_array_foreach(order, i, item)
    {
        const char *text = json_string_value(item);
        if (!ret && (!text || mull_boot_entry_parse(text, &c->boot[i])))
            ret = bad(r, "order", "each is disk, cdrom, network or floppy, like disk:0 for one");
        if (ret)
            return ret;
        c->boot_count = (unsigned)i + 1;
    }
    if (!ret)
        r->place[0] = '\0';
    return ret;
}

static int read_screen(struct reader *r, json_t *root, struct mull_machine_config *c)
{
    static const char *const display_known[] = {
        "type",   "listen",        "password_file",    "clipboard",
        "keymap", "tls_anonymous", "tls_certificates", NULL};
    static const char *const video_known[] = {"model", "memory", "heads", NULL};
    static const char *const kinds[] = {"none", "vnc", NULL};
    json_t *display = json_object_get(root, "display"), *video = json_object_get(root, "video");
    int kind = MULL_DISPLAY_NONE, ret = 0;
    int64_t memory = 0, heads = 0;
    if (display) {
        strcpy(r->place, "display");
        ret = check_members(r, display, display_known);
        if (!ret)
            ret = read_choice(r, display, "type", kinds, &kind);
        if (!ret)
            ret = read_string(r, display, "listen", &c->display_listen);
        if (!ret)
            ret = read_string(r, display, "password_file", &c->display_password_file);
        if (!ret)
            ret = read_bool(r, display, "clipboard", &c->display_clipboard);
        if (!ret)
            ret = read_string(r, display, "keymap", &c->display_keymap);
        if (!ret)
            ret = read_string(r, display, "tls_certificates", &c->display_certificates);
        if (!ret)
            ret = read_bool(r, display, "tls_anonymous", &c->display_anonymous);
        if (!ret && c->display_anonymous && c->display_certificates)
            ret = bad(r, "tls_anonymous", "and tls_certificates: give one of them");
        c->display = (enum mull_display_kind)kind;
    }
    if (!ret && video) {
        strcpy(r->place, "video");
        ret = check_members(r, video, video_known);
        if (!ret)
            ret = read_string(r, video, "model", &c->video.model);
        if (!ret && !c->video.model)
            ret = bad(r, "model", "is missing");
        if (!ret)
            ret = read_number(r, video, "memory", 0, 1ll << 40, &memory);
        if (!ret)
            ret = read_number(r, video, "heads", 0, 64, &heads);
        c->video.memory = (uint64_t)memory;
        c->video.heads = (unsigned)heads;
    }
    if (!ret)
        r->place[0] = '\0';
    return ret;
}

static int read_input(struct reader *r, json_t *root, struct mull_machine_config *c)
{
    static const char *const known[] = {"keyboard", "tablet", NULL};
    json_t *input = json_object_get(root, "input");
    if (!input)
        return 0;
    strcpy(r->place, "input");
    int ret = check_members(r, input, known);
    if (!ret)
        ret = read_bool(r, input, "keyboard", &c->keyboard);
    if (!ret)
        ret = read_bool(r, input, "tablet", &c->tablet);
    if (!ret)
        r->place[0] = '\0';
    return ret;
}

static int read_watchdog(struct reader *r, json_t *root, struct mull_machine_config *c)
{
    int action = MULL_WATCHDOG_OFF;
    int ret = read_choice(r, root, "watchdog", mull_watchdog_names, &action);
    c->watchdog = (enum mull_watchdog)action;
    return ret;
}

static int read_vsock(struct reader *r, json_t *root, struct mull_machine_config *c)
{
    static const char *const known[] = {"cid", "path", NULL};
    json_t *vsock = json_object_get(root, "vsock");
    int64_t cid = 3;
    if (!vsock)
        return 0;
    strcpy(r->place, "vsock");
    int ret = check_members(r, vsock, known);
    /* 0 to 2 are the hypervisor's, the local and the host's; 2^32 - 1 stands for any. */
    if (!ret)
        ret = read_number(r, vsock, "cid", 3, UINT32_MAX - 1, &cid);
    if (!ret)
        ret = read_string(r, vsock, "path", &c->vsock_path);
    if (!ret && (!c->vsock_path || !*c->vsock_path))
        ret = bad(r, "path", "is missing");
    c->vsock_cid = (uint64_t)cid;
    if (!ret)
        r->place[0] = '\0';
    return ret;
}

static int read_topology(struct reader *r, json_t *root, struct mull_machine_config *c)
{
    static const char *const known[] = {"sockets", "cores", "threads", NULL};
    json_t *topology = json_object_get(root, "topology");
    int64_t n[3] = {1, 1, 1};
    if (!topology)
        return 0;
    strcpy(r->place, "topology");
    int ret = check_members(r, topology, known);
    for (unsigned i = 0; i < 3 && !ret; i++)
        ret = read_number(r, topology, known[i], 1, 4096, &n[i]);
    if (!ret && n[0] * n[1] * n[2] != (int64_t)c->cpus)
        ret = bad(r, "sockets", "times cores times threads must be cpus");
    c->sockets = (unsigned)n[0];
    c->cores = (unsigned)n[1];
    c->threads = (unsigned)n[2];
    if (!ret)
        r->place[0] = '\0';
    return ret;
}

static int read_strings(struct reader *r, json_t *root, struct mull_machine_config *c)
{
    const struct {
        const char *key;
        char **out;
    } strings[] = {
        {"name", &c->name},         {"annotation", &c->annotation}, {"os", &c->os},
        {"firmware", &c->firmware}, {"nvram", &c->nvram},           {"kernel", &c->kernel},
        {"initrd", &c->initrd},     {"cmdline", &c->cmdline},       {"engine", &c->engine},
        {"sound", &c->sound},
    };
    static const char *const usb[] = {"1.1", "2.0", "3.0", NULL};
    static const char *const clock[] = {"utc", "localtime", NULL};
    char *uuid = NULL;
    int ret = 0, version = -1, zone = 0;
    for (unsigned i = 0; i < sizeof(strings) / sizeof(strings[0]) && !ret; i++)
        ret = read_string(r, root, strings[i].key, strings[i].out);
    if (!ret)
        ret = read_string(r, root, "uuid", &uuid);
    if (!ret && uuid && mull_uuid_parse(uuid, c->uuid))
        ret = bad(r, "uuid", "must look like 123e4567-e89b-12d3-a456-426614174000");
    free(uuid);
    if (!ret)
        ret = read_choice(r, root, "usb", usb, &version);
    if (!ret && version >= 0 && !(c->usb = strdup(usb[version])))
        ret = mull_fail(r->err, ENOMEM, "configuration: no memory");
    if (!ret)
        ret = read_choice(r, root, "clock", clock, &zone);
    c->localtime = zone == 1;
    if (!ret && c->firmware && !*c->firmware)
        ret = bad(r, "firmware", "must be bios, uefi or a file");
    return ret;
}

static int read_root(struct reader *r, json_t *root, struct mull_machine_config *c)
{
    static const char *const known[] = {
        /* clang-format off */
        "annotation",
        "appliance",
        "balloon",
        "boot",
        "cdroms",
        "clock",
        "cmdline",
        "code_cache",
        "consoles",
        "cpus",
        "cpus_max",
        "disks",
        "display",
        "engine",
        "extra",
        "firmware",
        "initrd",
        "input",
        "kernel",
        "memory",
        "memory_max",
        "modules",
        "name",
        "networks",
        "no_reboot",
        "nvram",
        "os",
        "packed_rings",
        "perf_map",
        "secure_boot",
        "shares",
        "sound",
        "test_devices",
        "topology",
        "tpm",
        "tpm_state",
        "usb",
        "uuid",
        "video",
        "vmware_tools",
        "vsock",
        "watchdog",
        /* clang-format on */
        NULL};
    int64_t memory = (int64_t)MULL_MEMORY_DEFAULT, cpus = 1, memory_max = 0, cpus_max = 0;
    int64_t code_cache = 0;
    int ret = check_members(r, root, known);
    if (!ret)
        ret = read_strings(r, root, c);
    if (!ret)
        ret = read_number(r, root, "memory", 0, INT64_MAX, &memory);
    if (!ret)
        ret = read_number(r, root, "cpus", 0, UINT32_MAX, &cpus);
    if (!ret)
        ret = read_number(r, root, "memory_max", 0, INT64_MAX, &memory_max);
    if (!ret)
        ret = read_number(r, root, "cpus_max", 0, UINT32_MAX, &cpus_max);
    if (!ret)
        ret = read_number(r, root, "code_cache", MULL_CODE_CACHE_MIN, MULL_CODE_CACHE_MAX,
                          &code_cache);
    c->code_cache = (uint64_t)code_cache;
    c->memory = (uint64_t)memory;
    c->memory_max = (uint64_t)memory_max;
    c->cpus = (unsigned)cpus;
    c->cpus_max = (unsigned)cpus_max;
    if (!ret)
        ret = read_bool(r, root, "no_reboot", &c->no_reboot);
    if (!ret)
        ret = read_bool(r, root, "perf_map", &c->perf_map);
    if (!ret)
        ret = read_bool(r, root, "test_devices", &c->test_devices);
    if (!ret)
        ret = read_bool(r, root, "tpm", &c->tpm);
    if (!ret)
        ret = read_string(r, root, "tpm_state", &c->tpm_state);
    if (!ret)
        ret = read_bool(r, root, "balloon", &c->balloon);
    if (!ret)
        ret = read_bool(r, root, "vmware_tools", &c->vmware_tools);
    if (!ret)
        ret = read_bool(r, root, "packed_rings", &c->packed_rings);
    if (!ret)
        ret = read_watchdog(r, root, c);
    if (!ret)
        ret = read_vsock(r, root, c);
    if (!ret)
        ret = read_bool(r, root, "secure_boot", &c->secure_boot);
    if (!ret)
        ret = read_input(r, root, c);
    if (!ret)
        ret = read_topology(r, root, c);
    if (!ret)
        ret = read_boot(r, root, c);
    if (!ret)
        ret = read_screen(r, root, c);
    if (!ret)
        ret = read_list(r, root, "disks", MULL_CONFIG_DISKS, &c->disk_count, c, one_disk);
    if (!ret)
        ret = read_list(r, root, "cdroms", MULL_CONFIG_CDROMS, &c->cdrom_count, c, one_cdrom);
    if (!ret)
        ret =
            read_list(r, root, "networks", MULL_CONFIG_NETWORKS, &c->network_count, c, one_network);
    if (!ret)
        ret =
            read_list(r, root, "consoles", MULL_CONFIG_CONSOLES, &c->console_count, c, one_console);
    if (!ret)
        ret = read_list(r, root, "modules", MULL_CONFIG_MODULES, &c->module_count, c, one_module);
    if (!ret)
        ret = read_list(r, root, "shares", MULL_CONFIG_SHARES, &c->share_count, c, one_share);
    if (!ret)
        ret = read_kept(r, root, "appliance", &c->appliance);
    if (!ret)
        ret = read_kept(r, root, "extra", &c->extra);
    if (!ret && !c->name && !(c->name = strdup("mullion")))
        ret = mull_fail(r->err, ENOMEM, "configuration: no memory");
    if (!ret && !c->engine && !(c->engine = strdup("auto")))
        ret = mull_fail(r->err, ENOMEM, "configuration: no memory");
    return ret;
}

int mull_machine_config_read(const char *json, struct mull_machine_config *out,
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
    return ret;
}
