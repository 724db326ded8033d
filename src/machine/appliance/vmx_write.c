/*
 * From a machine's description to a VMX file. What was kept of an earlier one goes first, so that
 * what the description says wins.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "machine/appliance/internal.h"

/* Remembers the first failure, so that callers need not ask each time. */
struct out {
    struct mull_vmx *vmx;
    int ret;
};

static void put(struct out *o, const char *value, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static void put(struct out *o, const char *value, const char *fmt, ...)
{
    char name[256];
    va_list args;
    va_start(args, fmt);
    vsnprintf(name, sizeof(name), fmt, args);
    va_end(args);
    int ret = value ? mull_vmx_set(o->vmx, name, value) : 0;
    if (!o->ret)
        o->ret = ret;
}

static void put_number(struct out *o, uint64_t value, const char *name)
{
    char text[24];
    snprintf(text, sizeof(text), "%llu", (unsigned long long)value);
    put(o, text, "%s", name);
}

static void put_drives(struct out *o, const struct mull_appliance_write *w,
                       const struct placement *p)
{
    const struct mull_machine_config *c = w->config;
    for (unsigned i = 0; i < c->disk_count + c->cdrom_count; i++) {
        bool cdrom = i >= c->disk_count;
        const struct place *at = cdrom ? &p->cdrom[i - c->disk_count] : &p->disk[i];
        const char *family = place_names[at->family];
        const char *file = cdrom ? w->cdrom[i - c->disk_count].name : w->disk[i].name;
        if (at->family != PLACE_IDE)
            put(o, "TRUE", "%s%u.present", family, at->controller);
        if (at->family == PLACE_SCSI)
            put(o, at->adapter, "scsi%u.virtualDev", at->controller);
        put(o, "TRUE", "%s%u:%u.present", family, at->controller, at->unit);
        put(o, file ? file : "auto detect", "%s%u:%u.fileName", family, at->controller, at->unit);
        if (cdrom) {
            put(o, file ? "cdrom-image" : "cdrom-raw", "%s%u:%u.deviceType", family, at->controller,
                at->unit);
            put(o, file ? NULL : "FALSE", "%s%u:%u.startConnected", family, at->controller,
                at->unit);
        } else if (at->family == PLACE_SCSI) {
            put(o, "scsi-hardDisk", "%s%u:%u.deviceType", family, at->controller, at->unit);
        }
    }
}

static void put_networks(struct out *o, const struct mull_appliance_write *w)
{
    static const char *const models[MULL_NICS] = {"vmxnet3", "e1000e", "vmxnet3",
                                                  "e1000",   "vlance", "e1000"};
    static const char *const types[] = {"nat", "bridged", "hostonly", NULL};
    for (unsigned i = 0; i < w->config->network_count; i++) {
        const struct mull_network_config *net = &w->config->network[i];
        char item[32], mac[18];
        snprintf(item, sizeof(item), "ethernet%u", i);
        if (net->model == MULL_NIC_VIRTIO || net->model == MULL_NIC_RTL8139)
            mull_report_add(w->report, MULL_NOTE_CHANGED, item, "%s becomes %s",
                            mull_nic_names[net->model], models[net->model]);
        put(o, "TRUE", "%s.present", item);
        put(o, models[net->model], "%s.virtualDev", item);
        const char *name = net->name                       ? net->name
                           : net->kind == MULL_NETWORK_TAP ? "bridged"
                                                           : "nat";
        if (mull_name_index(types, name) >= 0) {
            put(o, name, "%s.connectionType", item);
        } else if (!strncasecmp(name, "vmnet", 5) || !strncasecmp(name, "/dev/vmnet", 10)) {
            put(o, "custom", "%s.connectionType", item);
            put(o, name, "%s.vnet", item);
        } else {
            put(o, name, "%s.networkName", item);
        }
        if (net->kind == MULL_NETWORK_NONE)
            put(o, "FALSE", "%s.startConnected", item);
        if (net->has_mac) {
            snprintf(mac, sizeof(mac), "%02x:%02x:%02x:%02x:%02x:%02x", net->mac[0], net->mac[1],
                     net->mac[2], net->mac[3], net->mac[4], net->mac[5]);
            /* VMware makes the addresses of 00:0c:29 itself, and refuses them as static. */
            bool own = !strncmp(mac, "00:0c:29", 8);
            put(o, own ? "generated" : "static", "%s.addressType", item);
            put(o, mac, own ? "%s.generatedAddress" : "%s.address", item);
        } else {
            put(o, "generated", "%s.addressType", item);
        }
        if (net->forward_count)
            mull_report_add(w->report, MULL_NOTE_LOST, item, "%u port forwardings",
                            net->forward_count);
    }
}

static void put_serial(struct out *o, const struct mull_appliance_write *w)
{
    const struct mull_machine_config *c = w->config;
    unsigned n = 0;
    for (unsigned i = 0; i < c->console_count; i++) {
        const struct mull_console_config *console = &c->console[i];
        if (console->device != MULL_CONSOLE_SERIAL) {
            mull_report_add(w->report, MULL_NOTE_LOST, "console",
                            console->device == MULL_CONSOLE_CHANNEL ? "a channel for an agent"
                                                                    : "a virtio console");
            continue;
        }
        /* The terminal of `mullion run` is a port that nothing is connected to elsewhere. */
        static const struct {
            const char *type, *end;
        } kinds[] = {
            [MULL_CONSOLE_NONE] = {"device", NULL},   [MULL_CONSOLE_FD] = {"device", NULL},
            [MULL_CONSOLE_UNIX] = {"pipe", "server"}, [MULL_CONSOLE_STDIO] = {"pipe", "server"},
            [MULL_CONSOLE_FILE] = {"file", NULL},     [MULL_CONSOLE_TCP] = {"network", NULL}};
        const char *path = console->path;
        const char *slash = path && console->kind != MULL_CONSOLE_TCP ? strrchr(path, '/') : NULL;
        char name[32];
        path = slash ? slash + 1 : path; /* beside the description, as our own is */
        if (console->kind == MULL_CONSOLE_STDIO) {
            snprintf(name, sizeof(name), "serial%u", n);
            path = name;
            mull_report_add(w->report, MULL_NOTE_CHANGED, name,
                            "the terminal becomes the pipe '%s'", path);
        }
        put(o, "TRUE", "serial%u.present", n);
        put(o, kinds[console->kind].type, "serial%u.fileType", n);
        put(o, path ? path : "auto detect", "serial%u.fileName", n);
        put(o, kinds[console->kind].end, "serial%u.pipe.endPoint", n);
        if (console->kind == MULL_CONSOLE_NONE || console->kind == MULL_CONSOLE_FD)
            put(o, "FALSE", "serial%u.startConnected", n);
        n++;
    }
}

static void put_boot(struct out *o, const struct mull_machine_config *c, const struct placement *p)
{
    static const char *const words[] = {"hdd", "cdrom", "ethernet", "floppy"};
    char order[256] = "", disks[256] = "";
    for (unsigned i = 0; i < c->boot_count; i++) {
        const struct mull_boot_entry *e = &c->boot[i];
        char word[32];
        snprintf(word, sizeof(word), "%s", words[e->device]);
        if (e->device == MULL_BOOT_NETWORK)
            snprintf(word, sizeof(word), "ethernet%d", e->index < 0 ? 0 : e->index);
        if (e->device == MULL_BOOT_DISK && e->index >= 0 && e->index < (int)c->disk_count && p) {
            const struct place *at = &p->disk[e->index];
            size_t len = strlen(disks);
            snprintf(disks + len, sizeof(disks) - len, "%s%s%u:%u", len ? "," : "",
                     place_names[at->family], at->controller, at->unit);
        }
        if (strstr(order, word))
            continue;
        size_t len = strlen(order);
        snprintf(order + len, sizeof(order) - len, "%s%s", len ? "," : "", word);
    }
    put(o, *order ? order : NULL, "bios.bootOrder");
    put(o, *disks ? disks : NULL, "bios.hddOrder");
}

static void put_uuid(struct out *o, const char *uuid)
{
    char text[64];
    unsigned n = 0, digits = 0;
    for (const char *p = uuid; *p; p++) {
        if (*p == '-')
            continue;
        text[n++] = *p;
        if (++digits % 2 == 0 && digits < 32)
            text[n++] = digits == 16 ? '-' : ' ';
    }
    text[n] = '\0';
    if (digits == 32)
        put(o, text, "uuid.bios");
}

static void put_screen(struct out *o, const struct mull_appliance_write *w)
{
    const struct mull_machine_config *c = w->config;
    if (c->video.model) {
        if (strcmp(c->video.model, "vmware"))
            mull_report_add(w->report, MULL_NOTE_CHANGED, "video", "%s becomes vmware",
                            c->video.model);
        put(o, "TRUE", "svga.present");
        if (c->video.memory)
            put_number(o, c->video.memory, "svga.vramSize");
        if (c->video.heads)
            put_number(o, c->video.heads, "svga.numDisplays");
    }
    if (c->display != MULL_DISPLAY_VNC)
        return;
    const char *listen = c->display_listen;
    const char *colon = listen && strncmp(listen, "unix:", 5) ? strrchr(listen, ':') : NULL;
    if (!colon) {
        mull_report_add(w->report, MULL_NOTE_LOST, "display", "VNC on %s",
                        listen ? listen : "a place chosen at the start");
        return;
    }
    char host[128];
    snprintf(host, sizeof(host), "%.*s", (int)(colon - listen), listen);
    put(o, "TRUE", "RemoteDisplay.vnc.enabled");
    put(o, colon + 1, "RemoteDisplay.vnc.port");
    put(o, *host && strcmp(host, "127.0.0.1") ? host : NULL, "RemoteDisplay.vnc.ip");
}

/* What VMware has no word for. */
static void report_lost(const struct mull_appliance_write *w)
{
    const struct mull_machine_config *c = w->config;
    if (c->kernel)
        mull_report_add(w->report, MULL_NOTE_LOST, "kernel",
                        "%s: this format cannot name a kernel; the disk needs a boot loader",
                        c->kernel);
    if (c->no_reboot)
        mull_report_add(w->report, MULL_NOTE_LOST, "no_reboot", "a reset restarts the machine");
    if (c->localtime)
        mull_report_add(w->report, MULL_NOTE_LOST, "clock", "localtime");
    if (c->boot_menu)
        mull_report_add(w->report, MULL_NOTE_LOST, "boot.menu", "the boot menu");
    if (c->threads > 1)
        mull_report_add(w->report, MULL_NOTE_CHANGED, "topology", "%u threads a core become cores",
                        c->threads);
    for (unsigned i = 0; i < c->disk_count; i++) {
        char item[32];
        snprintf(item, sizeof(item), "disk %u", i);
        if (c->disk[i].readonly)
            mull_report_add(w->report, MULL_NOTE_LOST, item, "that it is read-only");
        if (*c->disk[i].serial)
            mull_report_add(w->report, MULL_NOTE_LOST, item, "its serial number '%s'",
                            c->disk[i].serial);
        if (c->disk[i].direct)
            mull_report_add(w->report, MULL_NOTE_LOST, item, "direct");
    }
}

int appliance_put_settings(const struct mull_appliance_write *w, struct mull_vmx *out)
{
    const struct mull_machine_config *c = w->config;
    struct out o = {out, 0};
    put_uuid(&o, c->uuid);
    put_serial(&o, w);
    put_screen(&o, w);
    if (c->usb) {
        put(&o, "TRUE", "usb.present");
        put(&o, *c->usb > '1' ? "TRUE" : NULL, "ehci.present");
        put(&o, *c->usb > '2' ? "TRUE" : NULL, "usb_xhci.present");
    }
    if (c->sound) {
        put(&o, "TRUE", "sound.present");
        put(&o, c->sound, "sound.virtualDev");
    }
    put(&o, c->tpm ? "TRUE" : NULL, "vtpm.present");
    report_lost(w);
    return o.ret;
}

static void put_names(struct out *o, const struct mull_appliance_write *w)
{
    const struct mull_machine_config *c = w->config;
    json_t *kept = json_object_get(c->extra, "vmx"), *value;
    const char *key;
    put(o, "UTF-8", ".encoding");
    put(o, "8", "config.version");
    put(o, "13", "virtualHW.version");
    json_object_foreach(kept, key, value) put(o, json_string_value(value), "%s", key);
    /* The name as it was, if the machine's is made from it. */
    const char *title = json_string_value(json_object_get(kept, "displayName"));
    char *plain = title ? mull_machine_name(title) : NULL;
    put(o, plain && !strcmp(plain, c->name) ? title : c->name, "displayName");
    free(plain);
    put(o, c->annotation, "annotation");
    put(o, c->os ? c->os : "other-64", "guestOS");
    put(o, c->vmware_tools ? NULL : "FALSE", APPLIANCE_VMX_TOOLS);
    put(o, c->firmware && !strcmp(c->firmware, "uefi") ? "efi" : "bios", "firmware");
    put(o, c->secure_boot ? "TRUE" : NULL, "uefi.secureBoot.enabled");
    put(o, w->nvram, "nvram");
    if (c->firmware && strcmp(c->firmware, "uefi") && strcmp(c->firmware, "bios"))
        mull_report_add(w->report, MULL_NOTE_CHANGED, "firmware", "%s becomes bios", c->firmware);
    put_number(o, c->memory >> 20, "memsize");
    if (c->memory & ((1u << 20) - 1))
        mull_report_add(w->report, MULL_NOTE_CHANGED, "memory", "rounded down to whole MiB");
    put_number(o, c->cpus, "numvcpus");
    if (c->cores)
        put_number(o, (uint64_t)c->cores * (c->threads ? c->threads : 1), "cpuid.coresPerSocket");
}

int mull_appliance_to_vmx(const struct mull_appliance_write *w, struct mull_vmx *out,
                          struct mull_error *err)
{
    struct placement p;
    struct out o = {out, 0};
    *out = (struct mull_vmx){0};
    int ret = appliance_place(w, &p, err);
    if (ret)
        return ret;
    put_names(&o, w);
    put_drives(&o, w, &p);
    put_networks(&o, w);
    put_boot(&o, w->config, &p);
    ret = appliance_put_settings(w, out);
    if (!ret)
        ret = o.ret;
    if (ret)
        mull_vmx_free(out);
    return ret ? mull_fail(err, -ret, "VMX: %s", strerror(-ret)) : 0;
}
