/*
 * Writes a machine's description as JSON, without what has its default, so that reading it gives
 * the same again (docs/configuration.md).
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "machine/config.h"

/* Text of another's file need not be UTF-8; what is not becomes '?'. */
static json_t *text_of(const char *text)
{
    json_t *value = json_string(text);
    if (value)
        return value;
    char *copy = strdup(text);
    for (char *p = copy; p && *p; p++)
        if ((unsigned char)*p >= 0x80)
            *p = '?';
    value = copy ? json_string(copy) : NULL;
    free(copy);
    return value;
}

static void put_text(json_t *object, const char *key, const char *text)
{
    if (text)
        json_object_set_new(object, key, text_of(text));
}

static void put_number(json_t *object, const char *key, uint64_t n)
{
    json_object_set_new(object, key, json_integer((json_int_t)n));
}

static void put_true(json_t *object, const char *key, bool value)
{
    if (value)
        json_object_set_new(object, key, json_true());
}

static void put_place(json_t *object, enum mull_bus bus, const char *adapter, int controller,
                      int unit)
{
    if (bus != MULL_BUS_VIRTIO)
        put_text(object, "bus", mull_bus_names[bus]);
    put_text(object, "adapter", adapter);
    if (controller >= 0)
        put_number(object, "controller", (uint64_t)controller);
    if (unit >= 0)
        put_number(object, "unit", (uint64_t)unit);
}

static json_t *write_disk(const struct mull_disk_config *disk)
{
    json_t *o = json_object();
    put_text(o, "path", disk->path);
    put_text(o, "format", disk->format);
    put_true(o, "readonly", disk->readonly);
    put_true(o, "direct", disk->direct);
    put_true(o, "cbt", disk->cbt);
    if (disk->on_error != MULL_ON_ERROR_REPORT)
        put_text(o, "on_error", mull_on_error_names[disk->on_error]);
    put_text(o, "serial", *disk->serial ? disk->serial : NULL);
    put_place(o, disk->bus, disk->adapter, disk->controller, disk->unit);
    return o;
}

static json_t *write_cdrom(const struct mull_cdrom_config *cdrom)
{
    json_t *o = json_object();
    put_text(o, "path", cdrom->path);
    put_place(o, cdrom->bus, cdrom->adapter, cdrom->controller, cdrom->unit);
    return o;
}

static json_t *write_network(const struct mull_network_config *net)
{
    static const char *const kinds[] = {"user", "tap", "none", "host"};
    json_t *o = json_object();
    put_text(o, "type", kinds[net->kind]);
    put_text(o, "interface", net->interface);
    if (net->model != MULL_NIC_VIRTIO)
        put_text(o, "model", mull_nic_names[net->model]);
    put_text(o, "name", net->name);
    put_text(o, "tftp", net->tftp);
    put_text(o, "bootfile", net->bootfile);
    if (net->has_mac) {
        char mac[18];
        snprintf(mac, sizeof(mac), "%02x:%02x:%02x:%02x:%02x:%02x", net->mac[0], net->mac[1],
                 net->mac[2], net->mac[3], net->mac[4], net->mac[5]);
        put_text(o, "mac", mac);
    }
    if (net->vlan)
        json_object_set_new(o, "vlan", json_integer(net->vlan));
    if (net->vlan_count) {
        json_t *list = json_array();
        for (unsigned i = 0; i < net->vlan_count; i++)
            json_array_append_new(list, json_integer(net->vlans[i]));
        json_object_set_new(o, "vlans", list);
    }
    if (net->forward_count) {
        json_t *list = json_array();
        for (unsigned i = 0; i < net->forward_count; i++)
            json_array_append_new(list, text_of(net->forward[i]));
        json_object_set_new(o, "forward", list);
    }
    return o;
}

static json_t *write_console(const struct mull_console_config *console)
{
    static const char *const kinds[] = {"none", "fd", "unix", "stdio", "file", "tcp"};
    json_t *o = json_object();
    put_text(o, "type", kinds[console->kind]);
    if (console->device == MULL_CONSOLE_VIRTIO)
        put_text(o, "device", "virtio");
    if (console->device == MULL_CONSOLE_CHANNEL)
        put_text(o, "device", "channel");
    put_text(o, "name", console->name);
    put_text(o, "path", console->path);
    if (console->kind == MULL_CONSOLE_FD) {
        json_object_set_new(o, "in", json_integer(console->in_fd));
        json_object_set_new(o, "out", json_integer(console->out_fd));
    }
    return o;
}

static void write_boot(json_t *root, const struct mull_machine_config *c)
{
    if (!c->boot_menu && !c->boot_count)
        return;
    json_t *boot = json_object(), *order = json_array();
    for (unsigned i = 0; i < c->boot_count; i++) {
        char text[32];
        int n = snprintf(text, sizeof(text), "%s", mull_boot_names[c->boot[i].device]);
        if (c->boot[i].index >= 0)
            snprintf(text + n, sizeof(text) - (size_t)n, ":%d", c->boot[i].index);
        json_array_append_new(order, json_string(text));
    }
    json_object_set_new(boot, "order", order);
    put_true(boot, "menu", c->boot_menu);
    json_object_set_new(root, "boot", boot);
}

static void write_screen(json_t *root, const struct mull_machine_config *c)
{
    if (c->display != MULL_DISPLAY_NONE || c->display_listen) {
        json_t *o = json_object();
        put_text(o, "type", c->display == MULL_DISPLAY_VNC ? "vnc" : "none");
        put_text(o, "listen", c->display_listen);
        put_text(o, "password_file", c->display_password_file);
        put_text(o, "keymap", c->display_keymap);
        put_text(o, "tls_certificates", c->display_certificates);
        put_true(o, "tls_anonymous", c->display_anonymous);
        put_true(o, "clipboard", c->display_clipboard);
        json_object_set_new(root, "display", o);
    }
    if (c->video.model) {
        json_t *o = json_object();
        put_text(o, "model", c->video.model);
        if (c->video.memory)
            put_number(o, "memory", c->video.memory);
        if (c->video.heads)
            put_number(o, "heads", c->video.heads);
        json_object_set_new(root, "video", o);
    }
}

static void write_lists(json_t *root, const struct mull_machine_config *c)
{
    json_t *disks = json_array(), *cdroms = json_array(), *networks = json_array(),
           *consoles = json_array();
    for (unsigned i = 0; i < c->disk_count; i++)
        json_array_append_new(disks, write_disk(&c->disk[i]));
    for (unsigned i = 0; i < c->cdrom_count; i++)
        json_array_append_new(cdroms, write_cdrom(&c->cdrom[i]));
    for (unsigned i = 0; i < c->network_count; i++)
        json_array_append_new(networks, write_network(&c->network[i]));
    for (unsigned i = 0; i < c->console_count; i++)
        json_array_append_new(consoles, write_console(&c->console[i]));
    json_object_set_new(root, "disks", disks);
    json_object_set_new(root, "cdroms", cdroms);
    json_object_set_new(root, "networks", networks);
    json_object_set_new(root, "consoles", consoles);
    if (c->module_count) {
        json_t *modules = json_array();
        for (unsigned i = 0; i < c->module_count; i++) {
            json_t *o = json_object();
            put_text(o, "path", c->module[i].path);
            put_text(o, "args", c->module[i].args);
            json_array_append_new(modules, o);
        }
        json_object_set_new(root, "modules", modules);
    }
}

static void write_shares(json_t *root, const struct mull_machine_config *c)
{
    json_t *list = c->share_count ? json_array() : NULL;
    for (unsigned i = 0; i < c->share_count; i++) {
        const struct mull_share_config *share = &c->share[i];
        json_t *o = json_object();
        put_text(o, "path", share->path);
        put_text(o, "tag", share->tag);
        put_text(o, "type", share->plan9 ? "9p" : NULL);
        put_true(o, "readonly", share->readonly);
        json_array_append_new(list, o);
    }
    if (list)
        json_object_set_new(root, "shares", list);
}

json_t *mull_machine_config_write(const struct mull_machine_config *c)
{
    json_t *root = json_object();
    if (!root)
        return NULL;
    put_text(root, "name", c->name);
    put_text(root, "uuid", *c->uuid ? c->uuid : NULL);
    put_text(root, "annotation", c->annotation);
    put_text(root, "os", c->os);
    put_text(root, "firmware", c->firmware);
    put_text(root, "nvram", c->nvram);
    put_true(root, "secure_boot", c->secure_boot);
    put_text(root, "kernel", c->kernel);
    put_text(root, "initrd", c->initrd);
    put_text(root, "cmdline", c->cmdline);
    put_number(root, "memory", c->memory);
    if (c->memory_max)
        put_number(root, "memory_max", c->memory_max);
    put_number(root, "cpus", c->cpus);
    if (c->cpus_max)
        put_number(root, "cpus_max", c->cpus_max);
    if (c->sockets)
        json_object_set_new(root, "topology",
                            json_pack("{s:i, s:i, s:i}", "sockets", (int)c->sockets, "cores",
                                      (int)c->cores, "threads", (int)c->threads));
    if (c->engine && strcmp(c->engine, "auto"))
        put_text(root, "engine", c->engine);
    if (c->code_cache)
        put_number(root, "code_cache", c->code_cache);
    put_true(root, "no_reboot", c->no_reboot);
    put_true(root, "perf_map", c->perf_map);
    put_true(root, "test_devices", c->test_devices);
    if (c->localtime)
        put_text(root, "clock", "localtime");
    write_boot(root, c);
    write_lists(root, c);
    write_shares(root, c);
    write_screen(root, c);
    if (c->keyboard || c->tablet) {
        json_t *input = json_object();
        put_true(input, "keyboard", c->keyboard);
        put_true(input, "tablet", c->tablet);
        json_object_set_new(root, "input", input);
    }
    put_true(root, "tpm", c->tpm);
    put_text(root, "tpm_state", c->tpm_state);
    put_true(root, "balloon", c->balloon);
    put_true(root, "vmware_tools", c->vmware_tools);
    put_true(root, "packed_rings", c->packed_rings);
    if (c->watchdog != MULL_WATCHDOG_OFF)
        put_text(root, "watchdog", mull_watchdog_names[c->watchdog]);
    if (c->vsock_path) {
        json_t *vsock = json_object();
        put_number(vsock, "cid", c->vsock_cid);
        put_text(vsock, "path", c->vsock_path);
        json_object_set_new(root, "vsock", vsock);
    }
    put_text(root, "usb", c->usb);
    put_text(root, "sound", c->sound);
    if (c->appliance)
        json_object_set(root, "appliance", c->appliance);
    if (c->extra)
        json_object_set(root, "extra", c->extra);
    return root;
}
