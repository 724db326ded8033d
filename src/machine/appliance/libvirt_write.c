/*
 * From a machine's description to libvirt's domain XML, for its QEMU driver.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "machine/appliance/internal.h"

struct writer {
    const struct mull_appliance_write *w;
    struct mull_xml_writer x;
    bool per_device; /* the boot order is said at each device */
};

/* The place of a device in the boot order, or 0. */
static unsigned boot_order(const struct writer *o, enum mull_boot_device device, unsigned index)
{
    const struct mull_machine_config *c = o->w->config;
    unsigned n = 0;
    for (unsigned i = 0; o->per_device && i < c->boot_count; i++) {
        const struct mull_boot_entry *e = &c->boot[i];
        unsigned count = e->device == MULL_BOOT_DISK      ? c->disk_count
                         : e->device == MULL_BOOT_CDROM   ? c->cdrom_count
                         : e->device == MULL_BOOT_NETWORK ? c->network_count
                                                          : 0;
        if (e->device == device && (e->index < 0 || e->index == (int)index))
            return n + 1 + (e->index < 0 ? index : 0);
        n += e->index < 0 ? count : 1;
    }
    return 0;
}

static void put_order(struct writer *o, enum mull_boot_device device, unsigned index)
{
    unsigned order = boot_order(o, device, index);
    if (!order)
        return;
    mull_xml_start(&o->x, "boot");
    mull_xml_put_number(&o->x, "order", order);
    mull_xml_end(&o->x, "boot");
}

static void put_os(struct writer *o)
{
    static const char *const devices[] = {"hd", "cdrom", "network", "fd"};
    const struct mull_machine_config *c = o->w->config;
    struct mull_xml_writer *x = &o->x;
    bool uefi = c->firmware && !strcmp(c->firmware, "uefi");
    mull_xml_start(x, "os");
    if (uefi)
        mull_xml_put(x, "firmware", "efi");
    mull_xml_start(x, "type");
    mull_xml_put(x, "arch", "x86_64");
    mull_xml_put(x, "machine", "q35");
    mull_xml_text(x, "hvm");
    mull_xml_end(x, "type");
    if (c->secure_boot) {
        mull_xml_start(x, "loader");
        mull_xml_put(x, "secure", "yes");
        mull_xml_end(x, "loader");
    }
    if (o->w->nvram)
        mull_xml_element(x, "nvram", o->w->nvram);
    mull_xml_element(x, "kernel", c->kernel);
    mull_xml_element(x, "initrd", c->initrd);
    if (c->kernel)
        mull_xml_element(x, "cmdline", c->cmdline);
    for (unsigned i = 0; !o->per_device && i < c->boot_count; i++) {
        mull_xml_start(x, "boot");
        mull_xml_put(x, "dev", devices[c->boot[i].device]);
        mull_xml_end(x, "boot");
    }
    if (c->boot_menu) {
        mull_xml_start(x, "bootmenu");
        mull_xml_put(x, "enable", "yes");
        mull_xml_end(x, "bootmenu");
    }
    mull_xml_end(x, "os");
    if (c->firmware && !uefi && strcmp(c->firmware, "bios"))
        mull_report_add(o->w->report, MULL_NOTE_CHANGED, "firmware", "%s becomes bios",
                        c->firmware);
}

/* ---- Drives ---- */

struct drive {
    const char *device, *prefix;
    unsigned letter; /* of its name, sda, sdb, ... */
    enum mull_bus bus;
    int controller, unit;
    const struct mull_appliance_disk *file;
};

static const char *bus_of(enum mull_bus bus)
{
    static const char *const buses[MULL_BUSES] = {"virtio", "scsi", "nvme", "sata",
                                                  "sata",   "scsi", "usb"};
    return bus == MULL_BUS_NVME ? "virtio" : buses[bus];
}

static void put_target(struct writer *o, const struct drive *d)
{
    struct mull_xml_writer *x = &o->x;
    char name[16];
    snprintf(name, sizeof(name), "%s%c", d->prefix, (char)('a' + d->letter % 26));
    mull_xml_start(x, "target");
    mull_xml_put(x, "dev", name);
    mull_xml_put(x, "bus", bus_of(d->bus));
    mull_xml_end(x, "target");
}

static void put_address(struct writer *o, const struct drive *d)
{
    struct mull_xml_writer *x = &o->x;
    if (d->controller < 0 || d->unit < 0 ||
        (d->bus != MULL_BUS_SCSI && d->bus != MULL_BUS_PVSCSI && d->bus != MULL_BUS_SATA))
        return;
    mull_xml_start(x, "address");
    mull_xml_put(x, "type", "drive");
    mull_xml_put_number(x, "controller", (unsigned)d->controller);
    mull_xml_put(x, "bus", "0");
    mull_xml_put(x, "target", "0");
    mull_xml_put_number(x, "unit", (unsigned)d->unit);
    mull_xml_end(x, "address");
}

static void put_drive_head(struct writer *o, const struct drive *d, const char *type, bool direct)
{
    struct mull_xml_writer *x = &o->x;
    mull_xml_start(x, "disk");
    mull_xml_put(x, "type", "file");
    mull_xml_put(x, "device", d->device);
    mull_xml_start(x, "driver");
    mull_xml_put(x, "name", "qemu");
    mull_xml_put(x, "type", type);
    if (direct)
        mull_xml_put(x, "cache", "none");
    mull_xml_end(x, "driver");
    if (!d->file->name)
        return;
    mull_xml_start(x, "source");
    mull_xml_put(x, "file", d->file->name);
    mull_xml_end(x, "source");
}

static void report_bus(struct writer *o, const char *item, enum mull_bus bus)
{
    if (bus == MULL_BUS_NVME || bus == MULL_BUS_IDE)
        mull_report_add(o->w->report, MULL_NOTE_CHANGED, item, "%s becomes %s", mull_bus_names[bus],
                        bus_of(bus));
}

static void put_drives(struct writer *o)
{
    const struct mull_machine_config *c = o->w->config;
    unsigned virtio = 0, other = 0;
    char item[32];
    for (unsigned i = 0; i < c->disk_count; i++) {
        const struct mull_disk_config *disk = &c->disk[i];
        const char *format = o->w->disk[i].format;
        bool is_virtio = !strcmp(bus_of(disk->bus), "virtio");
        struct drive d = {.device = "disk",
                          .prefix = is_virtio ? "vd" : "sd",
                          .letter = is_virtio ? virtio++ : other++,
                          .bus = disk->bus,
                          .controller = disk->controller,
                          .unit = disk->unit,
                          .file = &o->w->disk[i]};
        snprintf(item, sizeof(item), "disk %u", i);
        report_bus(o, item, disk->bus);
        put_drive_head(o, &d, !strcmp(format, "vhd") ? "vpc" : format, disk->direct);
        put_target(o, &d);
        if (disk->readonly) {
            mull_xml_start(&o->x, "readonly");
            mull_xml_end(&o->x, "readonly");
        }
        if (*disk->serial)
            mull_xml_element(&o->x, "serial", disk->serial);
        put_order(o, MULL_BOOT_DISK, i);
        put_address(o, &d);
        mull_xml_end(&o->x, "disk");
    }
    for (unsigned i = 0; i < c->cdrom_count; i++) {
        const struct mull_cdrom_config *cdrom = &c->cdrom[i];
        enum mull_bus bus = cdrom->bus == MULL_BUS_VIRTIO ? MULL_BUS_SATA : cdrom->bus;
        struct drive d = {.device = "cdrom",
                          .prefix = "sd",
                          .letter = other++,
                          .bus = bus == MULL_BUS_NVME ? MULL_BUS_SATA : bus,
                          .controller = cdrom->controller,
                          .unit = cdrom->unit,
                          .file = &o->w->cdrom[i]};
        snprintf(item, sizeof(item), "CD-ROM %u", i);
        report_bus(o, item, bus);
        put_drive_head(o, &d, "raw", false);
        put_target(o, &d);
        mull_xml_start(&o->x, "readonly");
        mull_xml_end(&o->x, "readonly");
        put_order(o, MULL_BOOT_CDROM, i);
        put_address(o, &d);
        mull_xml_end(&o->x, "disk");
    }
}

/* The models of SCSI controllers that are not libvirt's own choice. */
static void put_controllers(struct writer *o)
{
    const struct mull_machine_config *c = o->w->config;
    const char *model[16] = {0};
    for (unsigned i = 0; i < c->disk_count + c->cdrom_count; i++) {
        bool cdrom = i >= c->disk_count;
        const struct mull_cdrom_config *d = cdrom ? &c->cdrom[i - c->disk_count] : NULL;
        enum mull_bus bus = cdrom ? d->bus : c->disk[i].bus;
        const char *adapter = cdrom ? d->adapter : c->disk[i].adapter;
        int at = cdrom ? d->controller : c->disk[i].controller;
        at = at < 0 || at > 15 ? 0 : at;
        if (bus == MULL_BUS_PVSCSI)
            model[at] = "vmpvscsi";
        else if (bus == MULL_BUS_SCSI)
            model[at] = adapter ? adapter : "virtio-scsi";
    }
    for (unsigned i = 0; i < 16; i++) {
        if (!model[i])
            continue;
        mull_xml_start(&o->x, "controller");
        mull_xml_put(&o->x, "type", "scsi");
        mull_xml_put_number(&o->x, "index", i);
        mull_xml_put(&o->x, "model", model[i]);
        mull_xml_end(&o->x, "controller");
    }
    if (!c->usb)
        return;
    mull_xml_start(&o->x, "controller");
    mull_xml_put(&o->x, "type", "usb");
    mull_xml_put(&o->x, "index", "0");
    mull_xml_put(&o->x, "model",
                 *c->usb == '3'   ? "qemu-xhci"
                 : *c->usb == '2' ? "ehci"
                                  : "piix3-uhci");
    mull_xml_end(&o->x, "controller");
}

/* ---- Other devices ---- */

static void put_interface(struct writer *o, unsigned i)
{
    const struct mull_network_config *net = &o->w->config->network[i];
    struct mull_xml_writer *x = &o->x;
    char mac[18], item[32];
    snprintf(item, sizeof(item), "network card %u", i);
    mull_xml_start(x, "interface");
    if (net->name) {
        mull_xml_put(x, "type", "network");
    } else if (net->kind == MULL_NETWORK_TAP) {
        mull_xml_put(x, "type", "ethernet");
    } else {
        mull_xml_put(x, "type", "user");
    }
    if (net->has_mac) {
        snprintf(mac, sizeof(mac), "%02x:%02x:%02x:%02x:%02x:%02x", net->mac[0], net->mac[1],
                 net->mac[2], net->mac[3], net->mac[4], net->mac[5]);
        mull_xml_start(x, "mac");
        mull_xml_put(x, "address", mac);
        mull_xml_end(x, "mac");
    }
    if (net->name) {
        mull_xml_start(x, "source");
        mull_xml_put(x, "network", net->name);
        mull_xml_end(x, "source");
    } else if (net->kind == MULL_NETWORK_TAP) {
        mull_xml_start(x, "target");
        mull_xml_put(x, "dev", net->interface);
        mull_xml_put(x, "managed", "no");
        mull_xml_end(x, "target");
    }
    mull_xml_start(x, "model");
    mull_xml_put(x, "type", mull_nic_names[net->model]);
    mull_xml_end(x, "model");
    if (net->kind == MULL_NETWORK_NONE) {
        mull_xml_start(x, "link");
        mull_xml_put(x, "state", "down");
        mull_xml_end(x, "link");
    }
    put_order(o, MULL_BOOT_NETWORK, i);
    mull_xml_end(x, "interface");
    if (net->forward_count)
        mull_report_add(o->w->report, MULL_NOTE_LOST, item, "%u port forwardings",
                        net->forward_count);
    if (net->name && net->kind == MULL_NETWORK_TAP)
        mull_report_add(o->w->report, MULL_NOTE_LOST, item, "its host interface %s",
                        net->interface);
}

static void put_console(struct writer *o, unsigned i, unsigned port)
{
    const struct mull_console_config *console = &o->w->config->console[i];
    struct mull_xml_writer *x = &o->x;
    static const char *const types[] = {"null", "null", "unix", "pty", "file", "tcp"};
    bool channel = console->device == MULL_CONSOLE_CHANNEL;
    bool virtio = channel || console->device == MULL_CONSOLE_VIRTIO;
    const char *element = channel ? "channel" : virtio ? "console" : "serial";
    mull_xml_start(x, element);
    mull_xml_put(x, "type", types[console->kind]);
    if (console->kind == MULL_CONSOLE_UNIX || console->kind == MULL_CONSOLE_FILE) {
        mull_xml_start(x, "source");
        if (console->kind == MULL_CONSOLE_UNIX)
            mull_xml_put(x, "mode", "bind");
        mull_xml_put(x, "path", console->path);
        mull_xml_end(x, "source");
    } else if (console->kind == MULL_CONSOLE_TCP) {
        const char *colon = strrchr(console->path, ':');
        char host[128];
        snprintf(host, sizeof(host), "%.*s", (int)(colon ? colon - console->path : 0),
                 console->path);
        mull_xml_start(x, "source");
        mull_xml_put(x, "mode", "bind");
        mull_xml_put(x, "host", *host ? host : "127.0.0.1");
        mull_xml_put(x, "service", colon ? colon + 1 : console->path);
        mull_xml_end(x, "source");
    }
    mull_xml_start(x, "target");
    if (virtio)
        mull_xml_put(x, "type", "virtio");
    if (channel)
        mull_xml_put(x, "name", console->name);
    else
        mull_xml_put_number(x, "port", port);
    mull_xml_end(x, "target");
    mull_xml_end(x, element);
}

static void put_screen(struct writer *o)
{
    const struct mull_machine_config *c = o->w->config;
    struct mull_xml_writer *x = &o->x;
    if (c->display == MULL_DISPLAY_VNC) {
        const char *listen = c->display_listen;
        const char *colon = listen ? strrchr(listen, ':') : NULL;
        bool unix_path = listen && !strncmp(listen, "unix:", 5);
        char host[128] = "";
        if (colon)
            snprintf(host, sizeof(host), "%.*s", (int)(colon - listen), listen);
        mull_xml_start(x, "graphics");
        mull_xml_put(x, "type", "vnc");
        if (unix_path)
            mull_xml_put(x, "socket", listen + 5);
        else
            mull_xml_put(x, "port", colon ? colon + 1 : "-1");
        if (*host && !unix_path)
            mull_xml_put(x, "listen", host);
        mull_xml_end(x, "graphics");
    }
    if (c->video.model) {
        static const char *const known[] = {"vga",    "cirrus", "vmvga", "qxl",
                                            "virtio", "bochs",  "ramfb", NULL};
        const char *model = !strcmp(c->video.model, "vmware") ? "vmvga" : c->video.model;
        if (mull_name_index(known, model) < 0) {
            mull_report_add(o->w->report, MULL_NOTE_CHANGED, "video", "%s becomes vga", model);
            model = "vga";
        }
        mull_xml_start(x, "video");
        mull_xml_start(x, "model");
        mull_xml_put(x, "type", model);
        if (c->video.memory)
            mull_xml_put_number(x, "vram", c->video.memory >> 10);
        if (c->video.heads)
            mull_xml_put_number(x, "heads", c->video.heads);
        mull_xml_end(x, "model");
        mull_xml_end(x, "video");
    }
}

static void put_devices(struct writer *o)
{
    const struct mull_machine_config *c = o->w->config;
    struct mull_xml_writer *x = &o->x;
    unsigned serial = 0, virtio = 0;
    mull_xml_start(x, "devices");
    put_drives(o);
    put_controllers(o);
    for (unsigned i = 0; i < c->network_count; i++)
        put_interface(o, i);
    for (unsigned i = 0; i < c->console_count; i++)
        put_console(o, i, c->console[i].device == MULL_CONSOLE_SERIAL ? serial++ : virtio++);
    put_screen(o);
    if (c->sound) {
        static const char *const known[] = {"ac97",  "es1370", "ich6", "ich7", "ich9",
                                            "pcspk", "sb16",   "usb",  NULL};
        const char *model = !strncmp(c->sound, "hda", 3)            ? "ich9"
                            : mull_name_index(known, c->sound) >= 0 ? c->sound
                                                                    : "es1370";
        if (strcmp(model, c->sound))
            mull_report_add(o->w->report, MULL_NOTE_CHANGED, "sound", "%s becomes %s", c->sound,
                            model);
        mull_xml_start(x, "sound");
        mull_xml_put(x, "model", model);
        mull_xml_end(x, "sound");
    }
    if (c->tpm) {
        mull_xml_start(x, "tpm");
        mull_xml_put(x, "model", "tpm-crb");
        mull_xml_start(x, "backend");
        mull_xml_put(x, "type", "emulator");
        mull_xml_put(x, "version", "2.0");
        mull_xml_end(x, "backend");
        mull_xml_end(x, "tpm");
    }
    mull_xml_start(x, "rng");
    mull_xml_put(x, "model", "virtio");
    mull_xml_start(x, "backend");
    mull_xml_put(x, "model", "random");
    mull_xml_text(x, "/dev/urandom");
    mull_xml_end(x, "backend");
    mull_xml_end(x, "rng");
    mull_xml_end(x, "devices");
}

static void put_domain(struct writer *o)
{
    const struct mull_machine_config *c = o->w->config;
    struct mull_xml_writer *x = &o->x;
    char uri[96];
    mull_xml_start(x, "domain");
    mull_xml_put(x, "type", c->engine && !strcmp(c->engine, "soft") ? "qemu" : "kvm");
    mull_xml_element(x, "name", c->name);
    mull_xml_element(x, "uuid", *c->uuid ? c->uuid : NULL);
    mull_xml_element(x, "description", c->annotation);
    if (c->os && appliance_os_to_uri(c->os, uri)) {
        mull_xml_start(x, "metadata");
        mull_xml_start(x, "libosinfo:libosinfo");
        mull_xml_put(x, "xmlns:libosinfo", "http://libosinfo.org/xmlns/libvirt/domain/1.0");
        mull_xml_start(x, "libosinfo:os");
        mull_xml_put(x, "id", uri);
        mull_xml_end(x, "libosinfo:os");
        mull_xml_end(x, "libosinfo:libosinfo");
        mull_xml_end(x, "metadata");
    } else if (c->os) {
        mull_report_add(o->w->report, MULL_NOTE_LOST, "os", "%s", c->os);
    }
    mull_xml_start(x, "memory");
    mull_xml_put(x, "unit", "KiB");
    char text[24];
    snprintf(text, sizeof(text), "%llu", (unsigned long long)c->memory >> 10);
    mull_xml_text(x, text);
    mull_xml_end(x, "memory");
    mull_xml_element_number(x, "vcpu", c->cpus);
    put_os(o);
    mull_xml_start(x, "features");
    mull_xml_start(x, "acpi");
    mull_xml_end(x, "acpi");
    mull_xml_start(x, "apic");
    mull_xml_end(x, "apic");
    if (c->secure_boot) {
        mull_xml_start(x, "smm");
        mull_xml_put(x, "state", "on");
        mull_xml_end(x, "smm");
    }
    mull_xml_end(x, "features");
    if (c->cores) {
        mull_xml_start(x, "cpu");
        mull_xml_start(x, "topology");
        mull_xml_put_number(x, "sockets", c->sockets);
        mull_xml_put_number(x, "cores", c->cores);
        mull_xml_put_number(x, "threads", c->threads);
        mull_xml_end(x, "topology");
        mull_xml_end(x, "cpu");
    }
    mull_xml_start(x, "clock");
    mull_xml_put(x, "offset", c->localtime ? "localtime" : "utc");
    mull_xml_end(x, "clock");
    mull_xml_element(x, "on_reboot", c->no_reboot ? "destroy" : NULL);
    put_devices(o);
    mull_xml_end(x, "domain");
}

static void report_lost(const struct mull_appliance_write *w)
{
    const struct mull_machine_config *c = w->config;
    if (json_object_get(c->extra, "vmx"))
        mull_report_add(w->report, MULL_NOTE_LOST, "extra.vmx", "%zu settings of VMware's",
                        json_object_size(json_object_get(c->extra, "vmx")));
    if (json_object_get(c->appliance, "properties"))
        mull_report_add(w->report, MULL_NOTE_LOST, "appliance", "%zu properties",
                        json_array_size(json_object_get(c->appliance, "properties")));
    if (json_object_get(c->appliance, "products"))
        mull_report_add(w->report, MULL_NOTE_LOST, "appliance", "what product it is");
}

int mull_appliance_to_libvirt(const struct mull_appliance_write *w, char **out,
                              struct mull_error *err)
{
    struct writer o = {.w = w};
    size_t size;
    for (unsigned i = 0; i < w->config->boot_count; i++)
        o.per_device |= w->config->boot[i].index >= 0;
    FILE *file = open_memstream(out, &size);
    if (!file)
        return mull_fail(err, ENOMEM, "libvirt XML: out of memory");
    mull_xml_begin(&o.x, file);
    put_domain(&o);
    report_lost(w);
    bool broken = ferror(file);
    if (fclose(file) || broken) {
        free(*out);
        *out = NULL;
        return mull_fail(err, ENOMEM, "libvirt XML: out of memory");
    }
    return 0;
}
