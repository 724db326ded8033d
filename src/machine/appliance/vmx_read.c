/*
 * From a VMX file to a machine's description. What the description has no word for stays in its
 * "extra" part, so that writing a VMX file gives it back.
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "machine/appliance/internal.h"

static bool present(struct mull_vmx *vmx, const char *device, unsigned i)
{
    return mull_vmx_true(mull_vmx_getf(vmx, "%s%u.present", device, i));
}

/* "56 4d 1c ... - ..": sixteen bytes in hexadecimal. */
static bool uuid_of(const char *text, char out[37])
{
    char digits[37];
    unsigned n = 0;
    for (const char *p = text; *p; p++) {
        if (*p == ' ' || *p == '-')
            continue;
        if (!isxdigit((unsigned char)*p) || n == 36)
            return false;
        if (n == 8 || n == 13 || n == 18 || n == 23)
            digits[n++] = '-';
        digits[n++] = *p;
    }
    digits[n] = '\0';
    return n == 36 && !mull_uuid_parse(digits, out);
}

/* ---- Drives ---- */

/* The numbers of a device that is there. */
static bool drive_present(struct mull_vmx *vmx, const char *family, unsigned c, unsigned u)
{
    return mull_vmx_true(mull_vmx_getf(vmx, "%s%u:%u.present", family, c, u));
}

static int read_cdrom(struct mull_appliance *a, struct mull_vmx *vmx, const char *what,
                      const char *key, const char *type, enum mull_bus bus, const char *adapter,
                      unsigned c, unsigned u, struct mull_error *err)
{
    struct mull_cdrom_config *cdrom = appliance_add_cdrom(a, what, err);
    if (!cdrom)
        return -E2BIG;
    unsigned index = a->config.cdrom_count - 1;
    const char *file = mull_vmx_getf(vmx, "%s.fileName", key);
    const char *start = mull_vmx_getf(vmx, "%s.startConnected", key);
    bool connected = !start || mull_vmx_true(start);
    cdrom->bus = bus;
    cdrom->controller = (int)c;
    cdrom->unit = (int)u;
    int ret = bus == MULL_BUS_SCSI ? appliance_set(&cdrom->adapter, adapter) : 0;
    if (!ret && !strcasecmp(type, "cdrom-image") && file && *file && appliance_medium(a, file, key))
        ret = appliance_set(&a->cdrom[index].name, file);
    else if (strcasecmp(type, "cdrom-image") && connected)
        mull_report_add(&a->report, MULL_NOTE_LOST, key,
                        "the host's drive is not passed on; the drive is empty");
    return ret ? mull_fail(err, ENOMEM, "%s: out of memory", what) : 0;
}

static int read_disk(struct mull_appliance *a, struct mull_vmx *vmx, const char *what,
                     const char *key, enum mull_bus bus, const char *adapter, unsigned c,
                     unsigned u, struct mull_error *err)
{
    const char *file = mull_vmx_getf(vmx, "%s.fileName", key);
    const char *mode = mull_vmx_getf(vmx, "%s.mode", key);
    if (!file || !*file)
        return mull_fail(err, EINVAL, "%s: %s.fileName is missing", what, key);
    struct mull_disk_config *disk = appliance_add_disk(a, what, err);
    if (!disk)
        return -E2BIG;
    disk->bus = bus;
    disk->controller = (int)c;
    disk->unit = (int)u;
    int ret = appliance_set(&a->disk[a->config.disk_count - 1].name, file);
    if (!ret && bus == MULL_BUS_SCSI)
        ret = appliance_set(&disk->adapter, adapter);
    if (ret)
        return mull_fail(err, ENOMEM, "%s: out of memory", what);
    if (mode && strcasecmp(mode, "persistent") && strcasecmp(mode, "independent-persistent")) {
        mull_report_add(&a->report, MULL_NOTE_CHANGED, key,
                        "mode %.40s becomes persistent: what the guest writes stays", mode);
    }
    if (mode) {
        char full[64];
        snprintf(full, sizeof(full), "%s.mode", key);
        ret = appliance_keep_vmx(&a->config, full, mode);
    }
    return ret ? mull_fail(err, -ret, "%s: %s.mode", what, key) : 0;
}

static int read_drive(struct mull_appliance *a, struct mull_vmx *vmx, const char *what,
                      const char *key, enum mull_bus bus, const char *adapter, unsigned c,
                      unsigned u, struct mull_error *err)
{
    const char *type = mull_vmx_getf(vmx, "%s.deviceType", key);
    if (!type)
        type = bus == MULL_BUS_IDE ? "ata-hardDisk" : "scsi-hardDisk";
    if (!strncasecmp(type, "cdrom", 5) || !strcasecmp(type, "atapi-cdrom"))
        return read_cdrom(a, vmx, what, key, type, bus, adapter, c, u, err);
    if (!strcasecmp(type, "scsi-passthru") || !strcasecmp(type, "rawDisk")) {
        mull_report_add(&a->report, MULL_NOTE_LOST, key, "a device of the host (%.40s)", type);
        return 0;
    }
    return read_disk(a, vmx, what, key, bus, adapter, c, u, err);
}

static int read_drives(struct mull_appliance *a, struct mull_vmx *vmx, const char *what,
                       struct mull_error *err)
{
    static const struct {
        const char *name;
        unsigned controllers, units;
        enum mull_bus bus;
    } families[] = {{"scsi", 4, 16, MULL_BUS_SCSI},
                    {"sata", 4, 30, MULL_BUS_SATA},
                    {"nvme", 4, 64, MULL_BUS_NVME},
                    {"ide", 2, 2, MULL_BUS_IDE}};
    int ret = 0;
    for (unsigned f = 0; f < 4; f++)
        for (unsigned c = 0; c < families[f].controllers && !ret; c++) {
            enum mull_bus bus = families[f].bus;
            const char *adapter = mull_vmx_getf(vmx, "%s%u.virtualDev", families[f].name, c);
            unsigned drives = a->config.disk_count + a->config.cdrom_count;
            bool said = present(vmx, families[f].name, c);
            if (bus == MULL_BUS_SCSI) {
                adapter = adapter && *adapter ? adapter : "buslogic"; /* what VMware takes then */
                if (!strcasecmp(adapter, "pvscsi"))
                    bus = MULL_BUS_PVSCSI;
            }
            for (unsigned u = 0; u < families[f].units && !ret; u++) {
                char key[32];
                snprintf(key, sizeof(key), "%s%u:%u", families[f].name, c, u);
                if (drive_present(vmx, families[f].name, c, u))
                    ret = read_drive(a, vmx, what, key, bus, adapter, c, u, err);
            }
            if (said && drives == a->config.disk_count + a->config.cdrom_count) {
                char key[32];
                snprintf(key, sizeof(key), "%s%u", families[f].name, c);
                mull_report_add(&a->report, MULL_NOTE_LOST, key, "a controller without a drive");
            }
        }
    return ret;
}

/* ---- Network cards ---- */

static int read_network(struct mull_appliance *a, struct mull_vmx *vmx, const char *what,
                        unsigned i, struct mull_error *err)
{
    char item[32];
    struct mull_network_config *net = appliance_add_network(a, what, err);
    if (!net)
        return -E2BIG;
    snprintf(item, sizeof(item), "ethernet%u", i);
    const char *model = mull_vmx_getf(vmx, "%s.virtualDev", item);
    const char *type = mull_vmx_getf(vmx, "%s.connectionType", item);
    const char *name = mull_vmx_getf(vmx, "%s.networkName", item);
    const char *vnet = mull_vmx_getf(vmx, "%s.vnet", item);
    const char *kind = mull_vmx_getf(vmx, "%s.addressType", item);
    const char *mac = mull_vmx_getf(vmx, "%s.address", item);
    const char *generated = mull_vmx_getf(vmx, "%s.generatedAddress", item);
    const char *connected = mull_vmx_getf(vmx, "%s.startConnected", item);
    if (!mac || !*mac || (kind && strcasecmp(kind, "static") && generated && *generated))
        mac = generated;
    net->kind = connected && !mull_vmx_true(connected) ? MULL_NETWORK_NONE : MULL_NETWORK_USER;
    if (!model || !*model || !strcasecmp(model, "vlance"))
        net->model = MULL_NIC_PCNET; /* VMware's own when nothing is said */
    else if (!strcasecmp(model, "vmxnet3"))
        net->model = MULL_NIC_VMXNET3;
    else if (!strcasecmp(model, "e1000e"))
        net->model = MULL_NIC_E1000E;
    else if (!strcasecmp(model, "e1000"))
        net->model = MULL_NIC_E1000;
    else {
        net->model = MULL_NIC_VMXNET3;
        mull_report_add(&a->report, MULL_NOTE_CHANGED, item, "%.40s becomes vmxnet3", model);
    }
    if (!name || !*name)
        name = vnet && *vnet ? vnet : type && *type ? type : NULL;
    if (mac && *mac) {
        net->has_mac = !mull_mac_parse(mac, net->mac);
        if (!net->has_mac)
            mull_report_add(&a->report, MULL_NOTE_LOST, item, "'%.40s' is no unicast MAC address",
                            mac);
    }
    if (appliance_set(&net->name, name))
        return mull_fail(err, ENOMEM, "%s: out of memory", what);
    return 0;
}

/* ---- Serial ports, screen, boot order: also what OVF has as vmw:ExtraConfig ---- */

static int read_serial(struct mull_appliance *a, struct mull_vmx *vmx, unsigned i)
{
    char item[32];
    snprintf(item, sizeof(item), "serial%u", i);
    const char *type = mull_vmx_getf(vmx, "%s.fileType", item);
    const char *file = mull_vmx_getf(vmx, "%s.fileName", item);
    mull_vmx_getf(vmx, "%s.pipe.endPoint", item);
    mull_vmx_getf(vmx, "%s.network.endPoint", item);
    mull_vmx_getf(vmx, "%s.startConnected", item);
    struct mull_console_config *console = appliance_add_console(a);
    if (!console) {
        mull_report_add(&a->report, MULL_NOTE_LOST, item, "more serial ports than a machine has");
        return 0;
    }
    console->kind = MULL_CONSOLE_NONE;
    if (type && file && *file && !strcasecmp(type, "pipe")) {
        console->kind = MULL_CONSOLE_UNIX;
        return appliance_set_console_path(a, console, file, item);
    }
    if (type && file && *file && !strcasecmp(type, "file")) {
        console->kind = MULL_CONSOLE_FILE;
        return appliance_set_console_path(a, console, file, item);
    }
    if (type && file && *file && !strcasecmp(type, "network")) {
        console->kind = MULL_CONSOLE_TCP;
        return appliance_set(&console->path, file);
    }
    mull_report_add(&a->report, MULL_NOTE_LOST, item, "what it is connected to (%.40s)",
                    type ? type : "a device of the host");
    return 0;
}

/* "scsi0:1" among the disks. */
static int disk_at(const struct mull_appliance *a, const char *word, size_t n)
{
    static const char *const families[] = {"?",   "scsi", "nvme", "sata",
                                           "ide", "scsi", "?"}; /* by enum mull_bus */
    for (unsigned i = 0; i < a->config.disk_count; i++) {
        const struct mull_disk_config *d = &a->config.disk[i];
        char key[32];
        snprintf(key, sizeof(key), "%s%d:%d", families[d->bus], d->controller, d->unit);
        if (strlen(key) == n && !strncasecmp(key, word, n))
            return (int)i;
    }
    return -1;
}

static void add_boot(struct mull_machine_config *c, enum mull_boot_device device, int index)
{
    if (c->boot_count < MULL_CONFIG_BOOT)
        c->boot[c->boot_count++] = (struct mull_boot_entry){device, index};
}

static void read_disk_order(struct mull_appliance *a, const char *order)
{
    unsigned before = a->config.boot_count;
    for (const char *p = order; p && *p;) {
        size_t n = strcspn(p, ", ");
        int i = n ? disk_at(a, p, n) : -1;
        if (i >= 0)
            add_boot(&a->config, MULL_BOOT_DISK, i);
        p += n + strspn(p + n, ", ");
    }
    if (a->config.boot_count == before)
        add_boot(&a->config, MULL_BOOT_DISK, -1);
}

static void read_boot(struct mull_appliance *a, struct mull_vmx *vmx)
{
    const char *order = mull_vmx_get(vmx, "bios.bootOrder");
    const char *disks = mull_vmx_get(vmx, "bios.hddOrder");
    if (!order && disks)
        read_disk_order(a, disks);
    for (const char *p = order; p && *p;) {
        size_t n = strcspn(p, ", ");
        if (n >= 8 && !strncasecmp(p, "ethernet", 8))
            add_boot(&a->config, MULL_BOOT_NETWORK, n > 8 ? atoi(p + 8) % 100 : -1);
        else if (n == 3 && !strncasecmp(p, "hdd", n))
            read_disk_order(a, disks);
        else if (n == 5 && !strncasecmp(p, "cdrom", n))
            add_boot(&a->config, MULL_BOOT_CDROM, -1);
        else if (n == 6 && !strncasecmp(p, "floppy", n))
            add_boot(&a->config, MULL_BOOT_FLOPPY, -1);
        else if (n)
            mull_report_add(&a->report, MULL_NOTE_LOST, "bios.bootOrder", "'%.*s'",
                            (int)(n < 40 ? n : 40), p);
        p += n + strspn(p + n, ", ");
    }
}

static int read_screen(struct mull_appliance *a, struct mull_vmx *vmx)
{
    struct mull_machine_config *c = &a->config;
    const char *ram = mull_vmx_get(vmx, "svga.vramSize");
    const char *heads = mull_vmx_get(vmx, "svga.numDisplays");
    const char *port = mull_vmx_get(vmx, "RemoteDisplay.vnc.port");
    const char *address = mull_vmx_get(vmx, "RemoteDisplay.vnc.ip");
    uint64_t n;
    int ret = 0;
    if (mull_vmx_true(mull_vmx_get(vmx, "svga.present")) || ram || heads)
        ret = appliance_set(&c->video.model, "vmware");
    if (appliance_number(ram, UINT64_C(1) << 40, &n))
        c->video.memory = n;
    if (appliance_number(heads, 64, &n))
        c->video.heads = (unsigned)n;
    bool vnc = mull_vmx_true(mull_vmx_get(vmx, "RemoteDisplay.vnc.enabled"));
    if (!ret && vnc) {
        char listen[128];
        c->display = MULL_DISPLAY_VNC;
        snprintf(listen, sizeof(listen), "%.64s:%.16s", address ? address : "127.0.0.1",
                 port && *port ? port : "5900");
        ret = appliance_set(&c->display_listen, listen);
    }
    return ret;
}

static int read_usb_and_sound(struct mull_appliance *a, struct mull_vmx *vmx)
{
    struct mull_machine_config *c = &a->config;
    const char *sound = mull_vmx_get(vmx, "sound.virtualDev");
    bool usb = mull_vmx_true(mull_vmx_get(vmx, "usb.present"));
    bool ehci = mull_vmx_true(mull_vmx_get(vmx, "ehci.present"));
    bool xhci = mull_vmx_true(mull_vmx_get(vmx, "usb_xhci.present"));
    int ret = 0;
    if (usb || ehci || xhci)
        ret = appliance_set(&c->usb, xhci ? "3.0" : ehci ? "2.0" : "1.1");
    if (!ret && mull_vmx_true(mull_vmx_get(vmx, "sound.present")))
        ret = appliance_set(&c->sound, sound && *sound ? sound : "es1371");
    return ret;
}

int appliance_vmx_settings(struct mull_appliance *a, struct mull_vmx *vmx, struct mull_error *err)
{
    struct mull_machine_config *c = &a->config;
    const char *firmware = mull_vmx_get(vmx, "firmware");
    const char *uuid = mull_vmx_get(vmx, "uuid.bios");
    int ret = 0;
    if (firmware)
        ret = appliance_set(&c->firmware, strcasecmp(firmware, "efi") ? "bios" : "uefi");
    if (uuid && !uuid_of(uuid, c->uuid))
        mull_report_add(&a->report, MULL_NOTE_LOST, "uuid.bios", "'%.60s' is no UUID", uuid);
    const char *tools = mull_vmx_get(vmx, APPLIANCE_VMX_TOOLS);
    if (tools)
        c->vmware_tools = mull_vmx_true(tools);
    c->secure_boot |= mull_vmx_true(mull_vmx_get(vmx, "uefi.secureBoot.enabled"));
    c->tpm |= mull_vmx_true(mull_vmx_get(vmx, "vtpm.present")) ||
              mull_vmx_true(mull_vmx_get(vmx, "managedvm.autoAddVTPM"));
    for (unsigned i = 0; i < 32 && !ret; i++)
        if (present(vmx, "serial", i))
            ret = read_serial(a, vmx, i);
    read_boot(a, vmx);
    if (!ret)
        ret = read_screen(a, vmx);
    if (!ret)
        ret = read_usb_and_sound(a, vmx);
    return ret ? mull_fail(err, -ret, "%s", strerror(-ret)) : 0;
}

/* ---- The whole ---- */

static int read_numbers(struct mull_appliance *a, struct mull_vmx *vmx, const char *what,
                        struct mull_error *err)
{
    uint64_t n;
    const char *memory = mull_vmx_get(vmx, "memsize"), *cpus = mull_vmx_get(vmx, "numvcpus");
    const char *cores = mull_vmx_get(vmx, "cpuid.coresPerSocket");
    if (!memory)
        memory = "32"; /* what VMware takes then */
    if (!appliance_number(memory, MULL_MEMORY_MAX >> 20, &n) || !n)
        return mull_fail(err, EINVAL, "%s: memsize '%.40s' is no number of MiB we can use", what,
                         memory);
    a->config.memory = n << 20;
    n = 1;
    if (cpus && (!appliance_number(cpus, 4096, &n) || !n))
        return mull_fail(err, EINVAL, "%s: numvcpus '%.40s' is no number we can use", what, cpus);
    a->config.cpus = (unsigned)n;
    if (cores && appliance_number(cores, 4096, &n))
        appliance_set_cores(&a->config, (unsigned)n);
    return 0;
}

static int read_names(struct mull_appliance *a, struct mull_vmx *vmx, const char *what,
                      struct mull_error *err)
{
    struct mull_machine_config *c = &a->config;
    const char *name = mull_vmx_get(vmx, "displayName");
    char *plain = mull_machine_name(name ? name : what);
    int ret = plain ? appliance_set(&c->name, plain) : -ENOMEM;
    if (!ret && name && strcmp(name, plain))
        ret = appliance_keep_vmx(c, "displayName", name);
    free(plain);
    if (!ret)
        ret = appliance_set(&c->annotation, mull_vmx_get(vmx, "annotation"));
    if (!ret)
        ret = appliance_set(&c->os, mull_vmx_get(vmx, "guestOS"));
    if (!ret)
        ret = appliance_set(&c->firmware, "bios");
    /* A guest made for VMware finds its open-vm-tools at work; what we have written says if not. */
    c->vmware_tools = true;
    /* Of the file, not of the machine: written anew each time. */
    mull_vmx_get(vmx, ".encoding");
    mull_vmx_get(vmx, "config.version");
    const char *nvram = mull_vmx_get(vmx, "nvram");
    if (!ret && nvram && *nvram)
        ret = appliance_keep_vmx(c, "nvram", nvram);
    return ret ? mull_fail(err, -ret, "%s: %s", what, strerror(-ret)) : 0;
}

/* What nobody asked for is kept. */
static int keep_rest(struct mull_appliance *a, const struct mull_vmx *vmx, const char *what,
                     struct mull_error *err)
{
    unsigned kept = 0;
    char names[256] = "";
    for (uint32_t i = 0; i < vmx->count; i++) {
        const struct mull_vmx_entry *e = &vmx->entry[i];
        if (e->used)
            continue;
        if (!strcasecmp(e->name, "checkpoint.vmState") && *e->value)
            mull_report_add(&a->report, MULL_NOTE_LOST, "checkpoint.vmState",
                            "the machine was suspended; it will start afresh");
        int ret = appliance_keep_vmx(&a->config, e->name, e->value);
        if (ret)
            return mull_fail(err, -ret, "%s: %.100s: %s", what, e->name, strerror(-ret));
        size_t len = strlen(names);
        if (len < 180)
            snprintf(names + len, sizeof(names) - len, "%s%.60s", len ? ", " : "", e->name);
        kept++;
    }
    if (kept)
        mull_report_add(&a->report, MULL_NOTE_KEPT, "VMX",
                        "%u settings that only VMware knows: "
                        "%s%s",
                        kept, names, strlen(names) >= 180 ? ", ..." : "");
    return 0;
}

static void report_unused_devices(struct mull_appliance *a, struct mull_vmx *vmx)
{
    static const char *const devices[] = {"floppy", "parallel", "pciPassthru"};
    for (unsigned d = 0; d < 3; d++)
        for (unsigned i = 0; i < 16; i++) {
            char key[32];
            snprintf(key, sizeof(key), "%s%u.present", devices[d], i);
            for (uint32_t e = 0; e < vmx->count; e++)
                if (!strcasecmp(vmx->entry[e].name, key) && mull_vmx_true(vmx->entry[e].value)) {
                    *strchr(key, '.') = '\0';
                    mull_report_add(&a->report, MULL_NOTE_KEPT, key,
                                    "a machine has no such device");
                }
        }
}

int mull_appliance_from_vmx(struct mull_vmx *vmx, const char *what, struct mull_appliance *out,
                            struct mull_error *err)
{
    if (mull_appliance_init(out))
        return mull_fail(err, ENOMEM, "%s: out of memory", what);
    if (mull_vmx_get(vmx, "encryption.keySafe") || mull_vmx_get(vmx, "encryption.data"))
        return mull_fail(err, ENOTSUP,
                         "%s: the machine is encrypted; decrypt it with VMware's tools first",
                         what);
    int ret = read_names(out, vmx, what, err);
    if (!ret)
        ret = read_numbers(out, vmx, what, err);
    if (!ret)
        ret = read_drives(out, vmx, what, err);
    for (unsigned i = 0; i < 32 && !ret; i++)
        if (present(vmx, "ethernet", i))
            ret = read_network(out, vmx, what, i, err);
    if (!ret)
        ret = appliance_vmx_settings(out, vmx, err);
    if (ret)
        return ret;
    report_unused_devices(out, vmx);
    return keep_rest(out, vmx, what, err);
}
