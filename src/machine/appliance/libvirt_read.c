/*
 * From libvirt's domain XML (https://libvirt.org/formatdomain.html) to a machine's description.
 * Elements that it does not use are reported one by one.
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "image/ovf/tar.h"
#include "machine/appliance/internal.h"

struct reader {
    const char *what;
    struct mull_appliance *a;
    struct mull_error *err;
    int order[MULL_CONFIG_DISKS + MULL_CONFIG_CDROMS + MULL_CONFIG_NETWORKS];
    struct mull_boot_entry ordered[MULL_CONFIG_DISKS + MULL_CONFIG_CDROMS + MULL_CONFIG_NETWORKS];
    unsigned ordered_count;
};

static bool same(const char *a, const char *b)
{
    return a && !strcmp(a, b);
}

static int check(struct reader *r, int ret)
{
    return ret ? mull_fail(r->err, -ret, "%s: %s", r->what, strerror(-ret)) : 0;
}

static void note(struct reader *r, enum mull_note_kind kind, const struct mull_xml *node,
                 const char *text)
{
    mull_report_add(&r->a->report, kind, node->name, "line %u: %s", node->line, text);
}

/* A size with its unit attribute (memory is in KiB without one). */
static bool memory_of(const struct mull_xml *node, uint64_t *out)
{
    static const struct {
        const char *name;
        uint64_t factor;
    } units[] = {{"b", 1},
                 {"bytes", 1},
                 {"KB", 1000},
                 {"k", 1024},
                 {"KiB", 1024},
                 {"MB", 1000000},
                 {"M", 1 << 20},
                 {"MiB", 1 << 20},
                 {"GB", 1000000000},
                 {"G", 1 << 30},
                 {"GiB", 1 << 30},
                 {"T", UINT64_C(1) << 40},
                 {"TiB", UINT64_C(1) << 40}};
    const char *unit = mull_xml_attribute(node, "unit");
    uint64_t factor = unit ? 0 : 1024, n;
    for (unsigned i = 0; unit && i < sizeof(units) / sizeof(units[0]); i++)
        if (!strcmp(units[i].name, unit))
            factor = units[i].factor;
    if (!factor || !appliance_number(node->text, MULL_MEMORY_MAX, &n) ||
        n > MULL_MEMORY_MAX / factor)
        return false;
    *out = n * factor;
    return true;
}

/* ---- Names, memory, CPUs ---- */

static int read_names(struct reader *r, const struct mull_xml *root)
{
    struct mull_machine_config *c = &r->a->config;
    const char *title = mull_xml_child_text(root, "name");
    const char *uuid = mull_xml_child_text(root, "uuid");
    char *plain = mull_machine_name(title && *title ? title : r->what);
    int ret = plain ? appliance_set(&c->name, plain) : -ENOMEM;
    if (title && plain && strcmp(title, plain))
        mull_report_add(&r->a->report, MULL_NOTE_CHANGED, "name", "'%.100s' becomes '%s'", title,
                        plain);
    free(plain);
    if (!ret)
        ret = appliance_set(&c->annotation, mull_xml_child_text(root, "description"));
    if (uuid && *uuid && mull_uuid_parse(uuid, c->uuid))
        mull_report_add(&r->a->report, MULL_NOTE_LOST, "uuid", "'%.60s' is no UUID", uuid);
    const struct mull_xml *meta = mull_xml_child(root, "metadata");
    const char *uri =
        mull_xml_attribute(mull_xml_child(mull_xml_child(meta, "libosinfo"), "os"), "id");
    char os[64];
    if (!ret && uri && appliance_os_from_uri(uri, os))
        ret = appliance_set(&c->os, os);
    else if (uri)
        mull_report_add(&r->a->report, MULL_NOTE_LOST, "libosinfo:os", "'%.100s' is not known",
                        uri);
    return check(r, ret);
}

static int read_size(struct reader *r, const struct mull_xml *root)
{
    struct mull_machine_config *c = &r->a->config;
    const struct mull_xml *memory = mull_xml_child(root, "memory");
    const struct mull_xml *vcpu = mull_xml_child(root, "vcpu");
    uint64_t n = 1, part[3] = {1, 1, 1};
    if (!memory || !memory_of(memory, &c->memory))
        return mull_fail(r->err, EINVAL, "%s: memory: no size we can use", r->what);
    c->memory &= ~UINT64_C(4095);
    if (vcpu && (!appliance_number(vcpu->text, 4096, &n) || !n))
        return mull_fail(r->err, EINVAL, "%s: line %u: vcpu: no number we can use", r->what,
                         vcpu->line);
    c->cpus = (unsigned)n;
    const struct mull_xml *cpu = mull_xml_child(root, "cpu");
    const struct mull_xml *topology = mull_xml_child(cpu, "topology");
    if (topology && appliance_number(mull_xml_attribute(topology, "sockets"), 4096, &part[0]) &&
        appliance_number(mull_xml_attribute(topology, "cores"), 4096, &part[1]) &&
        appliance_number(mull_xml_attribute(topology, "threads"), 4096, &part[2]) &&
        part[0] * part[1] * part[2] == n) {
        c->sockets = (unsigned)part[0];
        c->cores = (unsigned)part[1];
        c->threads = (unsigned)part[2];
    }
    for (const struct mull_xml *f = cpu ? cpu->first : NULL; f; f = f->next)
        if (strcmp(f->name, "topology"))
            note(r, MULL_NOTE_LOST, f, "the CPU is the host's, as far as the engine has it");
    return 0;
}

/* A file of the host that the description names: only one beside the XML file is taken. */
static int own_file(struct reader *r, const struct mull_xml *node, char **out)
{
    if (mull_tar_name_is_safe(node->text))
        return check(r, appliance_set(out, node->text));
    note(r, MULL_NOTE_LOST, node, "a file outside the machine's folder");
    return 0;
}

static int read_os(struct reader *r, const struct mull_xml *os)
{
    struct mull_machine_config *c = &r->a->config;
    static const struct {
        const char *dev;
        enum mull_boot_device device;
    } devices[] = {{"hd", MULL_BOOT_DISK},
                   {"cdrom", MULL_BOOT_CDROM},
                   {"network", MULL_BOOT_NETWORK},
                   {"fd", MULL_BOOT_FLOPPY}};
    const char *arch = mull_xml_attribute(mull_xml_child(os, "type"), "arch");
    const char *firmware = mull_xml_attribute(os, "firmware");
    if (arch && strcmp(arch, "x86_64") && strcmp(arch, "i686"))
        return mull_fail(r->err, ENOTSUP, "%s: a machine of architecture %.40s; we have x86 only",
                         r->what, arch);
    int ret = appliance_set(&c->firmware, same(firmware, "efi") ? "uefi" : "bios");
    for (const struct mull_xml *n = os ? os->first : NULL; n && !ret; n = n->next) {
        if (!strcmp(n->name, "loader")) {
            /* Files of the firmware are the host's: ours takes their place. */
            bool efi = same(mull_xml_attribute(n, "type"), "pflash") || strstr(n->text, "OVMF");
            c->secure_boot |= same(mull_xml_attribute(n, "secure"), "yes");
            if (efi)
                ret = appliance_set(&c->firmware, "uefi");
        } else if (!strcmp(n->name, "nvram")) {
            if (mull_tar_name_is_safe(n->text))
                ret = appliance_set(&r->a->nvram.name, n->text);
            else
                note(r, MULL_NOTE_LOST, n, "the UEFI variables: they start afresh");
        } else if (!strcmp(n->name, "kernel")) {
            ret = own_file(r, n, &c->kernel);
        } else if (!strcmp(n->name, "initrd")) {
            ret = own_file(r, n, &c->initrd);
        } else if (!strcmp(n->name, "cmdline")) {
            ret = appliance_set(&c->cmdline, n->text);
        } else if (!strcmp(n->name, "bootmenu")) {
            c->boot_menu = same(mull_xml_attribute(n, "enable"), "yes");
        } else if (!strcmp(n->name, "boot")) {
            for (unsigned i = 0; i < 4; i++)
                if (same(mull_xml_attribute(n, "dev"), devices[i].dev) &&
                    c->boot_count < MULL_CONFIG_BOOT)
                    c->boot[c->boot_count++] = (struct mull_boot_entry){devices[i].device, -1};
        } else if (strcmp(n->name, "type")) {
            note(r, MULL_NOTE_LOST, n, "not known");
        }
    }
    return check(r, ret);
}

/* ---- Drives ---- */

static const char *scsi_model(const struct mull_xml *devices, int index)
{
    for (const struct mull_xml *n = mull_xml_child(devices, "controller"); n;
         n = mull_xml_again(n)) {
        const char *at = mull_xml_attribute(n, "index");
        if (same(mull_xml_attribute(n, "type"), "scsi") && (at ? atoi(at) : 0) == index)
            return mull_xml_attribute(n, "model");
    }
    return NULL;
}

static int read_place(struct reader *r, const struct mull_xml *node, const struct mull_xml *devices,
                      enum mull_bus *bus, char **adapter, int *controller, int *unit)
{
    static const struct {
        const char *name;
        enum mull_bus bus;
    } buses[] = {{"virtio", MULL_BUS_VIRTIO}, {"scsi", MULL_BUS_SCSI}, {"sata", MULL_BUS_SATA},
                 {"ide", MULL_BUS_IDE},       {"usb", MULL_BUS_USB},   {"nvme", MULL_BUS_NVME}};
    const char *said = mull_xml_attribute(mull_xml_child(node, "target"), "bus");
    const struct mull_xml *address = mull_xml_child(node, "address");
    uint64_t n;
    *bus = MULL_BUS_VIRTIO;
    *controller = *unit = -1;
    bool known = !said;
    for (unsigned i = 0; said && i < 6; i++)
        if (!strcmp(buses[i].name, said)) {
            *bus = buses[i].bus;
            known = true;
        }
    if (!known)
        note(r, MULL_NOTE_CHANGED, node, "its bus is not known; virtio is taken");
    if (same(mull_xml_attribute(address, "type"), "drive") && *bus != MULL_BUS_VIRTIO) {
        uint64_t channel = 0;
        if (*bus == MULL_BUS_IDE) /* libvirt's controller has two channels */
            appliance_number(mull_xml_attribute(address, "bus"), 1, &channel);
        if (appliance_number(mull_xml_attribute(address, "controller"), 255, &n))
            *controller = (int)(n + channel);
        if (appliance_number(mull_xml_attribute(address, "unit"), 255, &n))
            *unit = (int)n;
    }
    const char *model =
        *bus == MULL_BUS_SCSI ? scsi_model(devices, *controller < 0 ? 0 : *controller) : NULL;
    if (same(model, "vmpvscsi"))
        *bus = MULL_BUS_PVSCSI;
    else if (model && strcmp(model, "virtio-scsi") && strcmp(model, "auto"))
        return check(r, appliance_set(adapter, model));
    return 0;
}

static void read_order(struct reader *r, const struct mull_xml *node, enum mull_boot_device device,
                       unsigned index)
{
    uint64_t order;
    if (!appliance_number(mull_xml_attribute(mull_xml_child(node, "boot"), "order"), 1000, &order))
        return;
    unsigned at = r->ordered_count++;
    while (at && r->order[at - 1] > (int)order) {
        r->order[at] = r->order[at - 1];
        r->ordered[at] = r->ordered[at - 1];
        at--;
    }
    r->order[at] = (int)order;
    r->ordered[at] = (struct mull_boot_entry){device, (int)index};
}

static int read_cdrom(struct reader *r, const struct mull_xml *node, const struct mull_xml *devices,
                      const char *file)
{
    struct mull_cdrom_config *cdrom = appliance_add_cdrom(r->a, r->what, r->err);
    if (!cdrom)
        return -E2BIG;
    unsigned index = r->a->config.cdrom_count - 1;
    int ret = read_place(r, node, devices, &cdrom->bus, &cdrom->adapter, &cdrom->controller,
                         &cdrom->unit);
    if (!ret && file && appliance_medium(r->a, file, "cdrom"))
        ret = check(r, appliance_set(&r->a->cdrom[index].name, file));
    read_order(r, node, MULL_BOOT_CDROM, index);
    return ret;
}

static int read_disk(struct reader *r, const struct mull_xml *node, const struct mull_xml *devices)
{
    const char *device = mull_xml_attribute(node, "device");
    const struct mull_xml *source = mull_xml_child(node, "source");
    const struct mull_xml *driver = mull_xml_child(node, "driver");
    const char *file = mull_xml_attribute(source, "file");
    const char *type = mull_xml_attribute(driver, "type");
    const char *serial = mull_xml_child_text(node, "serial");
    static const char *const formats[] = {"raw", "qcow2", "vmdk", "vdi", "vpc", "vhdx", NULL};
    if (!file)
        file = mull_xml_attribute(source, "dev");
    if (same(device, "cdrom"))
        return read_cdrom(r, node, devices, file);
    if (device && strcmp(device, "disk") && strcmp(device, "lun")) {
        note(r, MULL_NOTE_LOST, node, "a device that a machine does not have (floppy)");
        return 0;
    }
    if (!file || !*file)
        return mull_fail(r->err, EINVAL, "%s: line %u: a disk without a file or device (%.40s)",
                         r->what, node->line,
                         mull_xml_attribute(node, "type") ? mull_xml_attribute(node, "type") : "");
    struct mull_disk_config *disk = appliance_add_disk(r->a, r->what, r->err);
    if (!disk)
        return -E2BIG;
    unsigned index = r->a->config.disk_count - 1;
    int ret =
        read_place(r, node, devices, &disk->bus, &disk->adapter, &disk->controller, &disk->unit);
    if (!ret)
        ret = check(r, appliance_set(&r->a->disk[index].name, file));
    int format = type ? mull_name_index(formats, type) : -1;
    r->a->disk[index].format = format == 4 ? "vhd" : format >= 0 ? formats[format] : NULL;
    disk->readonly = mull_xml_child(node, "readonly") != NULL;
    disk->direct = same(mull_xml_attribute(driver, "cache"), "none") ||
                   same(mull_xml_attribute(driver, "cache"), "directsync");
    if (serial && strlen(serial) < sizeof(disk->serial))
        strcpy(disk->serial, serial);
    else if (serial)
        note(r, MULL_NOTE_LOST, node, "its serial number is longer than 20 characters");
    read_order(r, node, MULL_BOOT_DISK, index);
    static const char *const used[] = {"source",   "driver", "target", "address",      "serial",
                                       "readonly", "boot",   "alias",  "backingStore", NULL};
    for (const struct mull_xml *n = node->first; n; n = n->next)
        if (mull_name_index(used, n->name) < 0)
            note(r, MULL_NOTE_LOST, n, "of a disk");
    return ret;
}

/* ---- Network cards ---- */

static int read_interface(struct reader *r, const struct mull_xml *node)
{
    struct mull_network_config *net = appliance_add_network(r->a, r->what, r->err);
    if (!net)
        return -E2BIG;
    const struct mull_xml *source = mull_xml_child(node, "source");
    const char *type = mull_xml_attribute(node, "type");
    const char *model = mull_xml_attribute(mull_xml_child(node, "model"), "type");
    const char *mac = mull_xml_attribute(mull_xml_child(node, "mac"), "address");
    const char *link = mull_xml_attribute(mull_xml_child(node, "link"), "state");
    const char *name = mull_xml_attribute(source, "network");
    if (!name)
        name = mull_xml_attribute(source, "bridge");
    if (!name)
        name = mull_xml_attribute(source, "dev");
    net->kind = same(link, "down") ? MULL_NETWORK_NONE : MULL_NETWORK_USER;
    if (type && strcmp(type, "user") && strcmp(type, "network") && net->kind == MULL_NETWORK_USER)
        mull_report_add(&r->a->report, MULL_NOTE_CHANGED, "interface",
                        "line %u: %.40s '%.60s' becomes user networking", node->line, type,
                        name ? name : "");
    int nic = model ? mull_name_index(mull_nic_names, model) : MULL_NIC_RTL8139;
    if (model && nic < 0) {
        nic = MULL_NIC_VIRTIO;
        mull_report_add(&r->a->report, MULL_NOTE_CHANGED, "interface",
                        "line %u: %.40s becomes virtio", node->line, model);
    }
    net->model = (enum mull_nic)nic;
    if (mac) {
        net->has_mac = !mull_mac_parse(mac, net->mac);
        if (!net->has_mac)
            note(r, MULL_NOTE_LOST, node, "its MAC address is no unicast one");
    }
    read_order(r, node, MULL_BOOT_NETWORK, r->a->config.network_count - 1);
    static const char *const used[] = {"source", "model", "mac",    "address", "boot",
                                       "link",   "alias", "target", NULL};
    for (const struct mull_xml *n = node->first; n; n = n->next)
        if (mull_name_index(used, n->name) < 0)
            note(r, MULL_NOTE_LOST, n, "of a network card");
    return check(r, name ? appliance_set(&net->name, name) : 0);
}

/* ---- Other devices ---- */

static int read_console(struct reader *r, const struct mull_xml *node, bool virtio)
{
    const char *type = mull_xml_attribute(node, "type");
    const struct mull_xml *source = mull_xml_child(node, "source");
    const char *path = mull_xml_attribute(source, "path");
    struct mull_console_config *console = appliance_add_console(r->a);
    if (!console) {
        note(r, MULL_NOTE_LOST, node, "more consoles than a machine has");
        return 0;
    }
    console->device = virtio ? MULL_CONSOLE_VIRTIO : MULL_CONSOLE_SERIAL;
    if (same(type, "pty") || same(type, "stdio")) {
        bool taken = false;
        for (unsigned i = 0; i + 1 < r->a->config.console_count; i++)
            taken |= r->a->config.console[i].kind == MULL_CONSOLE_STDIO;
        console->kind = taken ? MULL_CONSOLE_NONE : MULL_CONSOLE_STDIO;
        if (taken)
            note(r, MULL_NOTE_CHANGED, node, "a second terminal becomes none");
        return 0;
    }
    if (path && (same(type, "unix") || same(type, "file"))) {
        console->kind = same(type, "unix") ? MULL_CONSOLE_UNIX : MULL_CONSOLE_FILE;
        return check(r, appliance_set_console_path(r->a, console, path, node->name));
    }
    const char *port = mull_xml_attribute(source, "service");
    if (same(type, "tcp") && port) {
        const char *host = mull_xml_attribute(source, "host");
        char text[128];
        console->kind = MULL_CONSOLE_TCP;
        snprintf(text, sizeof(text), "%.80s:%.16s", host ? host : "", port);
        return check(r, appliance_set(&console->path, text));
    }
    if (!same(type, "null"))
        note(r, MULL_NOTE_LOST, node, "what it is connected to");
    return 0;
}

/* A named port for an agent in the guest. */
static int read_channel(struct reader *r, const struct mull_xml *node)
{
    const struct mull_xml *target = mull_xml_child(node, "target");
    const char *name = mull_xml_attribute(target, "name");
    unsigned before = r->a->config.console_count;
    if (!same(mull_xml_attribute(target, "type"), "virtio") || !name || !*name ||
        strlen(name) > 31) {
        note(r, MULL_NOTE_LOST, node, "a channel that is no virtio port");
        return 0;
    }
    int ret = read_console(r, node, true);
    if (ret || r->a->config.console_count == before)
        return ret;
    struct mull_console_config *console = &r->a->config.console[before];
    console->device = MULL_CONSOLE_CHANNEL;
    if (console->kind == MULL_CONSOLE_STDIO)
        console->kind = MULL_CONSOLE_NONE;
    return check(r, appliance_set(&console->name, name));
}

static int read_graphics(struct reader *r, const struct mull_xml *node)
{
    const char *port = mull_xml_attribute(node, "port");
    const char *listen = mull_xml_attribute(node, "listen");
    if (!same(mull_xml_attribute(node, "type"), "vnc")) {
        note(r, MULL_NOTE_CHANGED, node, "becomes VNC");
        port = NULL;
    }
    r->a->config.display = MULL_DISPLAY_VNC;
    uint64_t n;
    if (!appliance_number(port, 65535, &n))
        return 0;
    char text[128];
    snprintf(text, sizeof(text), "%.80s:%u", listen ? listen : "127.0.0.1", (unsigned)n);
    return check(r, appliance_set(&r->a->config.display_listen, text));
}

static int read_video(struct reader *r, const struct mull_xml *node)
{
    const struct mull_xml *model = mull_xml_child(node, "model");
    const char *type = mull_xml_attribute(model, "type");
    uint64_t n;
    if (!type || !strcmp(type, "none"))
        return 0;
    if (appliance_number(mull_xml_attribute(model, "vram"), 1u << 30, &n))
        r->a->config.video.memory = n << 10;
    if (appliance_number(mull_xml_attribute(model, "heads"), 64, &n))
        r->a->config.video.heads = (unsigned)n;
    return check(
        r, appliance_set(&r->a->config.video.model, !strcmp(type, "vmvga") ? "vmware" : type));
}

static int read_controller(struct reader *r, const struct mull_xml *node)
{
    const char *type = mull_xml_attribute(node, "type"), *model = mull_xml_attribute(node, "model");
    if (same(type, "usb") && !same(model, "none")) {
        const char *version = !model                  ? "1.1"
                              : strstr(model, "xhci") ? "3.0"
                              : strstr(model, "ehci") ? "2.0"
                                                      : "1.1";
        const char *now = r->a->config.usb;
        if (!now || strcmp(now, version) < 0)
            return check(r, appliance_set(&r->a->config.usb, version));
    }
    return 0; /* the others are where drives say they sit, or of the platform */
}

static int read_device(struct reader *r, const struct mull_xml *n, const struct mull_xml *devices)
{
    if (!strcmp(n->name, "disk"))
        return read_disk(r, n, devices);
    if (!strcmp(n->name, "interface"))
        return read_interface(r, n);
    if (!strcmp(n->name, "serial"))
        return read_console(r, n, false);
    if (same(n->name, "channel"))
        return read_channel(r, n);
    if (!strcmp(n->name, "console")) {
        /* The first one of type serial is the first serial port again. */
        const char *type = mull_xml_attribute(mull_xml_child(n, "target"), "type");
        bool virtio = same(type, "virtio");
        return virtio || !mull_xml_child(devices, "serial") ? read_console(r, n, virtio) : 0;
    }
    if (!strcmp(n->name, "graphics"))
        return read_graphics(r, n);
    if (!strcmp(n->name, "video"))
        return read_video(r, n);
    if (!strcmp(n->name, "controller"))
        return read_controller(r, n);
    if (!strcmp(n->name, "tpm")) {
        r->a->config.tpm = true;
        return 0;
    }
    if (!strcmp(n->name, "sound")) {
        const char *model = mull_xml_attribute(n, "model");
        return check(r, appliance_set(&r->a->config.sound, !model                      ? "es1371"
                                                           : !strncmp(model, "ich", 3) ? "hdaudio"
                                                                                       : model));
    }
    if (!strcmp(n->name, "rng"))
        return 0; /* every machine has one */
    if (!strcmp(n->name, "emulator"))
        return 0;
    if (!strcmp(n->name, "memballoon") && same(mull_xml_attribute(n, "model"), "none"))
        return 0;
    if (!strcmp(n->name, "input") && same(mull_xml_attribute(n, "bus"), "ps2"))
        return 0;
    note(r, MULL_NOTE_LOST, n, "a device that a machine does not have");
    return 0;
}

static int read_root(struct reader *r, const struct mull_xml *root)
{
    static const char *const plain[] = {
        "name",  "uuid", "description", "metadata", "memory", "currentMemory", "vcpu",      "os",
        "clock", "cpu",  "devices",     "features", "title",  "on_poweroff",   "on_reboot", NULL};
    struct mull_machine_config *c = &r->a->config;
    if (strcmp(root->name, "domain"))
        return mull_fail(r->err, EINVAL, "%s: line %u: the outermost element must be a domain",
                         r->what, root->line);
    int ret = read_names(r, root);
    if (!ret)
        ret = read_size(r, root);
    if (!ret)
        ret = read_os(r, mull_xml_child(root, "os"));
    const struct mull_xml *devices = mull_xml_child(root, "devices");
    for (const struct mull_xml *n = devices ? devices->first : NULL; n && !ret; n = n->next)
        ret = read_device(r, n, devices);
    if (ret)
        return ret;
    c->localtime = same(mull_xml_attribute(mull_xml_child(root, "clock"), "offset"), "localtime");
    c->no_reboot = same(mull_xml_child_text(root, "on_reboot"), "destroy");
    for (unsigned i = 0; i < r->ordered_count && c->boot_count < MULL_CONFIG_BOOT; i++)
        c->boot[c->boot_count++] = r->ordered[i];
    for (const struct mull_xml *n = root->first; n; n = n->next)
        if (mull_name_index(plain, n->name) < 0)
            note(r, MULL_NOTE_LOST, n, "not known");
    return 0;
}

int mull_appliance_from_libvirt(const char *what, const void *text, size_t length,
                                struct mull_appliance *out, struct mull_error *err)
{
    struct mull_xml_document *doc;
    if (mull_appliance_init(out))
        return mull_fail(err, ENOMEM, "%s: out of memory", what);
    int ret = mull_xml_parse(what, text, length, &doc, err);
    if (ret)
        return ret;
    struct reader r = {.what = what, .a = out, .err = err};
    ret = read_root(&r, mull_xml_root(doc));
    mull_xml_free(doc);
    return ret;
}
