/*
 * Reads the options of `mullion run`. What an option means is checked here, what a value may be
 * (ranges) by the machine's configuration, so that every way in gets the same answer.
 */
#include "cli/options.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/store.h"
#include "machine/config.h"

static const char usage[] =
    "Usage: mullion run [NAME | --config FILE] [--kernel FILE] [OPTION]...\n"
    "\n"
    "Runs one virtual machine until it powers off. On a terminal, Ctrl-A x leaves, Ctrl-A c opens\n"
    "the monitor, Ctrl-A Ctrl-A sends Ctrl-A.\n"
    "\n"
    "  NAME               a machine that `mullion import` has made\n"
    "  --config FILE      a machine's description (JSON); options given as well override it, and\n"
    "                     --disk, --net and --console replace its lists\n"
    "  --print-config     write the description of what would be run, and end\n"
    "  --firmware bios|uefi|FILE\n"
    "                     what runs first (bios, where there is a disk and no kernel)\n"
    "  --nvram FILE       UEFI variables, made where there is no such file; without it they are\n"
    "                     lost at the end\n"
    "  --boot [order=disk|cdrom|network[:N]...][,menu=on]\n"
    "                     what firmware tries, in that order, like order=cdrom:disk; or by\n"
    "                     letters c, d and n, like order=n\n"
    "  --kernel FILE      Linux bzImage, ELF kernel with a PVH entry, multiboot 1 or 2 kernel\n"
    "  --initrd FILE      initial RAM disk\n"
    "  --module FILE[,args=STRING]\n"
    "                     a module of a multiboot kernel; may be repeated\n"
    "  --append STRING    kernel command line; without it the console's: 'console=ttyS0'\n"
    "  --name NAME        the machine's name (mullion)\n"
    "  --memory SIZE[,max=SIZE]\n"
    "                     RAM, with K, M, G or T; a bare number is MiB (512M); max: what it can\n"
    "                     become with mullion attach\n"
    "  --cpus N[,max=N]   virtual CPUs (1); max: as many as mullion attach can make them\n"
    "  --engine ENGINE    auto, soft or kvm (auto): see mullion engines\n"
    "  --disk FILE[,bus=virtio|scsi|nvme|sata|ide|pvscsi][,readonly=on][,format=NAME]\n"
    "         [,serial=TEXT][,direct=on][,cbt=on][,on-error=report|pause|stop]\n"
    "                     a disk; may be repeated\n"
    "  --cdrom FILE[,bus=sata|ide|scsi|pvscsi]\n"
    "                     a CD-ROM drive with that medium; may be repeated\n"
    "  --net user[,forward=PROTO:[ADDRESS:]PORT[:GUESTPORT]]...[,tftp=FOLDER[,bootfile=NAME]]\n"
    "            [,MORE]\n"
    "  --net tap=INTERFACE[,MORE]\n"
    "  --net none         a network card; may be repeated. user needs passt(1). MORE:\n"
    "                     model=virtio|e1000e|vmxnet3,mac=MAC\n"
    "  --code-cache MIB   how much translated code the soft engine keeps (64)\n"
    "  --balloon on|off   the guest can give memory back (off): see mullion balloon\n"
    "  --packed-rings on|off\n"
    "                     offer packed virtqueues to the guest's virtio drivers (off)\n"
    "  --watchdog reset|poweroff|pause|none|nmi\n"
    "                     a watchdog (i6300ESB), and what happens when the guest does not feed it\n"
    "  --tpm FOLDER       a TPM 2.0 by swtpm(8), whose state is in that folder\n"
    "  --share FOLDER,tag=NAME[,type=virtiofs|9p][,ro]\n"
    "                     a folder of the host; the guest mounts it by its tag; may be repeated\n"
    "  --vsock path=SOCKET[,cid=N]\n"
    "                     virtual sockets (AF_VSOCK): the host connects to SOCKET and writes\n"
    "                     CONNECT P to reach the guest's port P; the guest reaches SOCKET_P at\n"
    "                     the host's port P\n"
    "  --console stdio|none|unix=PATH[,device=serial|virtio|,channel=NAME]\n"
    "                     a console (stdio, on a serial port); may be repeated. A channel is\n"
    "                     for an agent in the guest, like org.qemu.guest_agent.0\n"
    "  --display none|vnc=unix:PATH|vnc=ADDRESS:PORT[,password-file=FILE]\n"
    "            [,tls-certificates=FOLDER|,tls=anonymous][,keymap=LAYOUT][,gpu=vga|virtio]\n"
    "            [,clipboard=on]\n"
    "                     serve the screen to VNC clients\n"
    "  --input tablet,keyboard\n"
    "                     USB devices: a pointer that is where the viewer's is, a keyboard\n"
    "  --no-reboot        end instead of resetting the machine\n"
    "  --control PATH     listen for JSON-RPC on a Unix socket\n"
    "  --gdb [ADDRESS:]PORT[,wait=on] | unix=PATH[,wait=on]\n"
    "                     listen for GDB; wait=on: the first instruction waits for it\n"
    "  --test-devices     what bare-metal test kernels expect: isa-debug-exit (the exit status is\n"
    "                     2 * value + 1), pc-testdev, pci-testdev, fw_cfg, debug port\n"
    "  --perf-map         tell perf(1) where translated code is: /tmp/perf-PID.map\n"
    "  --verbose          say more: the engine chosen and why\n"
    "  --no-sandbox       do not lock the machine's process in (for debuggers)\n"
    "  --help             show this text\n"
    "\n"
    "A comma in a file name is written twice. Exit status: 0 the guest powered off (or you left),\n"
    "1 the host could not do it, 2 wrong usage, 3 reset with --no-reboot, 4 triple fault, 5 "
    "kernel\n"
    "panic, 143 ended by a second SIGTERM.\n";

/* ---- NAME=VALUE lists ---- */

#define PARTS_MAX 40

struct parts {
    char *text; /* owns the strings below */
    unsigned count;
    char *part[PARTS_MAX];
};

/* Split at single commas; a double one is a comma. @return false: too many, or no memory */
static bool split(const char *text, struct parts *p)
{
    p->count = 0;
    p->text = malloc(strlen(text) + 1);
    if (!p->text)
        return false;
    char *to = p->text;
    p->part[p->count++] = to;
    for (const char *from = text; *from; from++) {
        if (*from == ',' && from[1] == ',') {
            *to++ = *from++;
        } else if (*from == ',') {
            if (p->count == PARTS_MAX)
                return false;
            *to++ = '\0';
            p->part[p->count++] = to;
        } else {
            *to++ = *from;
        }
    }
    *to = '\0';
    return true;
}

/* The value of "key=value", or NULL where it is another key. */
static const char *value_of(const char *part, const char *key)
{
    size_t len = strlen(key);
    return !strncmp(part, key, len) && part[len] == '=' ? part + len + 1 : NULL;
}

/* "on" and "off" as JSON, or NULL. */
static json_t *on_off(const char *value)
{
    if (!strcmp(value, "on") || !strcmp(value, "true"))
        return json_true();
    return !strcmp(value, "off") || !strcmp(value, "false") ? json_false() : NULL;
}

static int wrong(const char *option, const char *part, const char *want)
{
    return cli_fail(VMM_STATUS_USAGE, "%s: '%s': %s; see mullion run --help", option, part, want);
}

/* json_string() refuses what is not UTF-8, as file names may be. */
static bool set_string(json_t *object, const char *key, const char *value)
{
    return !json_object_set_new(object, key, json_string(value));
}

/* ---- Options ---- */

#define DISK_BUSES "virtio, scsi, nvme, sata, ide or pvscsi"
#define CDROM_BUSES "sata, ide, scsi or pvscsi"

/* Is @name one of those in @list, like "sata or ide"? */
static bool is_bus_of(const char *list, const char *name)
{
    size_t len = strlen(name);

    for (const char *p = list; len && (p = strstr(p, name)); p += len)
        if ((p == list || p[-1] == ' ') && (!p[len] || p[len] == ',' || p[len] == ' '))
            return strcmp(name, "or") != 0;
    return false;
}

static int parse_disk_part(json_t *disk, const char *part)
{
    static const char *const flags[] = {"readonly", "direct", "cbt", NULL};
    const char *value;
    for (unsigned i = 0; flags[i]; i++) {
        if (!(value = value_of(part, flags[i])))
            continue;
        json_t *flag = on_off(value);
        if (!flag)
            return wrong("--disk", part, "must be on or off");
        json_object_set_new(disk, flags[i], flag);
        return -1;
    }
    if ((value = value_of(part, "on-error"))) {
        if (strcmp(value, "report") && strcmp(value, "pause") && strcmp(value, "stop"))
            return wrong("--disk", part, "must be report, pause or stop");
        return set_string(disk, "on_error", value) ? -1 : wrong("--disk", part, "not UTF-8");
    }
    if ((value = value_of(part, "format")))
        return set_string(disk, "format", value) ? -1 : wrong("--disk", part, "not UTF-8");
    if ((value = value_of(part, "serial")))
        return set_string(disk, "serial", value) ? -1 : wrong("--disk", part, "not UTF-8");
    if ((value = value_of(part, "bus")))
        return is_bus_of(DISK_BUSES, value) && set_string(disk, "bus", value)
                   ? -1
                   : wrong("--disk", part, "no such bus; give " DISK_BUSES);
    return wrong("--disk", part, "no such property (a comma in a file name is written twice)");
}

int options_disk(json_t *list, const char *text)
{
    struct parts p;
    json_t *disk = json_object();
    int ret = -1;
    if (!split(text, &p) || !*p.part[0])
        ret = wrong("--disk", text, "give FILE[,readonly=on][,format=NAME]");
    else if (!set_string(disk, "path", p.part[0]))
        ret = cli_fail(VMM_STATUS_HOST_ERROR, "--disk: file names must be UTF-8");
    for (unsigned i = 1; i < p.count && ret < 0; i++)
        ret = parse_disk_part(disk, p.part[i]);
    free(p.text);
    json_array_append_new(list, disk);
    return ret;
}

static int parse_cdrom(json_t *config, const char *text)
{
    struct parts p;
    json_t *list = json_object_get(config, "cdroms");
    json_t *cdrom = json_pack("{s:s}", "bus", "sata");
    int ret = -1;

    if (!list) {
        list = json_array();
        json_object_set_new(config, "cdroms", list);
    }
    if (!split(text, &p) || !*p.part[0])
        ret = wrong("--cdrom", text, "give FILE[,bus=NAME]");
    else if (!set_string(cdrom, "path", p.part[0]))
        ret = cli_fail(VMM_STATUS_HOST_ERROR, "--cdrom: file names must be UTF-8");
    for (unsigned i = 1; i < p.count && ret < 0; i++) {
        const char *bus = value_of(p.part[i], "bus");
        if (!bus)
            ret = wrong("--cdrom", p.part[i],
                        "no such property (a comma in a file name is written twice)");
        else if (!is_bus_of(CDROM_BUSES, bus) || !set_string(cdrom, "bus", bus))
            ret = wrong("--cdrom", p.part[i], "no such bus; give " CDROM_BUSES);
    }
    free(p.text);
    json_array_append_new(list, cdrom);
    return ret;
}

static int parse_display_part(json_t *config, json_t *display, const char *part)
{
    static const char *const names[][2] = {{"keymap", "keymap"},
                                           {"password-file", "password_file"},
                                           {"tls-certificates", "tls_certificates"}};
    const char *value;

    if ((value = value_of(part, "tls"))) {
        if (strcmp(value, "anonymous"))
            return wrong("--display", part, "give tls=anonymous, or tls-certificates=FOLDER");
        json_object_set_new(display, "tls_anonymous", json_true());
        return -1;
    }
    if ((value = value_of(part, "clipboard"))) {
        if (strcmp(value, "on") && strcmp(value, "off"))
            return wrong("--display", part, "give clipboard=on or clipboard=off");
        json_object_set_new(display, "clipboard", json_boolean(!strcmp(value, "on")));
        return -1;
    }
    if ((value = value_of(part, "gpu"))) {
        if (strcmp(value, "vga") && strcmp(value, "virtio"))
            return wrong("--display", part, "give gpu=vga or gpu=virtio");
        json_object_set_new(config, "video", json_pack("{s:s}", "model", value));
        return -1;
    }
    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if ((value = value_of(part, names[i][0])))
            return set_string(display, names[i][1], value) ? -1
                                                           : wrong("--display", part, "not UTF-8");
    return wrong("--display", part, "no such property");
}

static int parse_input(json_t *config, const char *text)
{
    struct parts p;
    json_t *input = json_object();
    int ret = split(text, &p) ? -1 : wrong("--input", text, "too many devices");
    json_object_set_new(config, "input", input);
    for (unsigned i = 0; i < p.count && ret < 0; i++)
        ret = strcmp(p.part[i], "tablet") && strcmp(p.part[i], "keyboard")
                  ? wrong("--input", p.part[i], "give tablet or keyboard")
                  : (json_object_set_new(input, p.part[i], json_true()), -1);
    free(p.text);
    return ret;
}

static int parse_display(json_t *config, const char *text)
{
    struct parts p;
    json_t *display = json_object();
    const char *value;
    int ret = -1;
    json_object_set_new(config, "display", display);
    if (!split(text, &p))
        ret = wrong("--display", text, "too many properties");
    else if (!strcmp(p.part[0], "none"))
        set_string(display, "type", "none");
    else if (!(value = value_of(p.part[0], "vnc")) || !*value ||
             !set_string(display, "type", "vnc") || !set_string(display, "listen", value))
        ret = wrong("--display", text, "give none, vnc=unix:PATH or vnc=ADDRESS:PORT");
    for (unsigned i = 1; i < p.count && ret < 0; i++)
        ret = parse_display_part(config, display, p.part[i]);
    free(p.text);
    return ret;
}

/* FILE[,args=STRING]: the string is all the rest, commas and all. */
static int parse_module(json_t *config, const char *text)
{
    struct parts p;
    json_t *list = json_object_get(config, "modules"), *module = json_object();
    const char *args = strstr(text, ",args=");
    char *file = strndup(text, args ? (size_t)(args - text) : strlen(text));
    int ret = -1;

    if (!list) {
        list = json_array();
        json_object_set_new(config, "modules", list);
    }
    p.text = NULL;
    if (!file || !split(file, &p) || p.count != 1 || !*p.part[0])
        ret = wrong("--module", text, "give FILE or FILE,args=STRING");
    else if (!set_string(module, "path", p.part[0]) ||
             (args && !set_string(module, "args", args + strlen(",args="))))
        ret = cli_fail(VMM_STATUS_HOST_ERROR, "--module: must be UTF-8");
    free(p.text);
    free(file);
    json_array_append_new(list, module);
    return ret;
}

/* QEMU's letters: disk (c), CD-ROM (d), network (n). @return whether @text is made of them */
static bool parse_letters(json_t *order, const char *text)
{
    if (!*text || text[strspn(text, "cdn")])
        return false;
    for (; *text; text++)
        json_array_append_new(
            order, json_string(*text == 'c' ? "disk" : *text == 'd' ? "cdrom" : "network"));
    return true;
}

/* "order=cdrom:disk": names with colons between them. */
static int parse_order(json_t *boot, const char *value)
{
    json_t *order = json_array();
    json_object_set_new(boot, "order", order);
    if (parse_letters(order, value))
        return -1;
    while (*value) {
        size_t len = strcspn(value, ":");
        /* "disk:1" is the second disk. */
        if (value[len] && strspn(value + len + 1, "0123456789") &&
            strchr(":", value[len + 1 + strspn(value + len + 1, "0123456789")]))
            len += 1 + strspn(value + len + 1, "0123456789");
        json_array_append_new(order, json_stringn(value, len));
        value += len + (value[len] == ':');
    }
    return -1;
}

static int parse_boot(json_t *config, const char *text)
{
    struct parts p;
    json_t *boot = json_object();
    int ret = -1;
    json_object_set_new(config, "boot", boot);
    if (!split(text, &p))
        ret = wrong("--boot", text, "too many properties");
    for (unsigned i = 0; i < p.count && ret < 0; i++) {
        const char *value;
        json_t *flag;
        if ((value = value_of(p.part[i], "order")))
            ret = parse_order(boot, value);
        else if ((value = value_of(p.part[i], "menu")) && (flag = on_off(value)))
            json_object_set_new(boot, "menu", flag);
        else
            ret = wrong("--boot", p.part[i], "give order=disk:cdrom:network or menu=on");
    }
    free(p.text);
    return ret;
}

static int parse_net_part(json_t *net, bool user, const char *part)
{
    const char *value;
    if ((value = value_of(part, "mac"))) {
        uint8_t mac[6];
        if (mull_mac_parse(value, mac))
            return wrong("--net", part, "a unicast address looks like 02:00:00:00:00:01");
        set_string(net, "mac", value);
        return -1;
    }
    if ((value = value_of(part, "model"))) {
        int model = mull_name_index(mull_nic_names, value);
        if (model < 0 || model >= MULL_NICS_THERE)
            return wrong("--net", part, "give model=virtio, model=e1000e or model=vmxnet3");
        set_string(net, "model", value);
        return -1;
    }
    if (user && ((value = value_of(part, "tftp")) || (value = value_of(part, "bootfile")))) {
        if (!*value || !set_string(net, *part == 't' ? "tftp" : "bootfile", value))
            return wrong("--net", part, "give tftp=FOLDER,bootfile=NAME");
        return -1;
    }
    if (user && (value = value_of(part, "forward"))) {
        json_t *forward = json_object_get(net, "forward");
        if (!forward) {
            forward = json_array();
            json_object_set_new(net, "forward", forward);
        }
        if (json_array_append_new(forward, json_string(value)))
            return wrong("--net", part, "not UTF-8");
        return -1;
    }
    return wrong("--net", part, "no such property");
}

int options_net(json_t *list, const char *text)
{
    struct parts p;
    if (!strcmp(text, "none"))
        return -1;
    if (!split(text, &p)) {
        free(p.text);
        return wrong("--net", text, "too many properties");
    }
    json_t *net = json_object();
    const char *tap = value_of(p.part[0], "tap");
    bool user = !strcmp(p.part[0], "user");
    int ret = -1;
    set_string(net, "type", tap ? "tap" : "user");
    if (tap && !set_string(net, "interface", tap))
        ret = wrong("--net", text, "not UTF-8");
    else if (!tap && !user)
        ret = wrong("--net", text, "give user, tap=INTERFACE or none");
    for (unsigned i = 1; i < p.count && ret < 0; i++)
        ret = parse_net_part(net, user, p.part[i]);
    free(p.text);
    json_array_append_new(list, net);
    return ret;
}

static int parse_share_part(json_t *share, const char *part)
{
    const char *value;
    if ((value = value_of(part, "tag")))
        return set_string(share, "tag", value) ? -1 : wrong("--share", part, "not UTF-8");
    if ((value = value_of(part, "type"))) {
        if (strcmp(value, "virtiofs") && strcmp(value, "9p"))
            return wrong("--share", part, "must be virtiofs or 9p");
        set_string(share, "type", value);
        return -1;
    }
    value = value_of(part, "ro");
    json_t *flag = strcmp(part, "ro") ? value ? on_off(value) : NULL : json_true();
    if (!flag)
        return wrong("--share", part, "no such property (a comma in a name is written twice)");
    json_object_set_new(share, "readonly", flag);
    return -1;
}

static int parse_share(json_t *config, const char *text)
{
    struct parts p;
    json_t *list = json_object_get(config, "shares"), *share = json_object();
    int ret = -1;
    if (!list) {
        list = json_array();
        json_object_set_new(config, "shares", list);
    }
    json_array_append_new(list, share);
    if (!split(text, &p) || !*p.part[0])
        ret = wrong("--share", text, "give FOLDER,tag=NAME");
    else if (!set_string(share, "path", p.part[0]))
        ret = cli_fail(VMM_STATUS_HOST_ERROR, "--share: file names must be UTF-8");
    for (unsigned i = 1; i < p.count && ret < 0; i++)
        ret = parse_share_part(share, p.part[i]);
    if (ret < 0 && !json_object_get(share, "tag"))
        ret = wrong("--share", text, "give tag=NAME, by which the guest mounts it");
    free(p.text);
    return ret;
}

static int parse_vsock(json_t *config, const char *text)
{
    struct parts p;
    json_t *vsock = json_object();
    int ret = split(text, &p) ? -1 : wrong("--vsock", text, "too many properties");
    for (unsigned i = 0; ret < 0 && i < p.count; i++) {
        const char *path = value_of(p.part[i], "path"), *cid = value_of(p.part[i], "cid");
        char *end = NULL;
        if (path && !set_string(vsock, "path", path))
            ret = wrong("--vsock", path, "file names must be UTF-8");
        else if (cid)
            json_object_set_new(vsock, "cid", json_integer(strtoll(cid, &end, 10)));
        if (cid && (!*cid || *end))
            ret = wrong("--vsock", p.part[i], "must be a whole number");
        if (!path && !cid)
            ret = wrong("--vsock", p.part[i], "no such property; give path=SOCKET[,cid=N]");
    }
    if (ret < 0 && !json_object_get(vsock, "path"))
        ret = wrong("--vsock", text, "give path=SOCKET");
    free(p.text);
    json_object_set_new(config, "vsock", vsock);
    return ret;
}

/* An option that is on or off. */
static int parse_switch(json_t *config, const char *option, const char *key, const char *text)
{
    json_t *flag = on_off(text);
    if (!flag)
        return wrong(option, text, "must be on or off");
    json_object_set_new(config, key, flag);
    return -1;
}

static int parse_console(struct run_options *o, json_t *list, const char *text)
{
    struct parts p;
    if (!split(text, &p)) {
        free(p.text);
        return wrong("--console", text, "too many properties");
    }
    json_t *console = json_object();
    const char *value;
    int ret = -1;
    if (!strcmp(p.part[0], "stdio")) {
        if (o->stdio)
            ret = wrong("--console", text, "stdio can be used once");
        o->stdio = true;
        set_string(console, "type", "stdio");
    } else if (!strcmp(p.part[0], "none")) {
        set_string(console, "type", "none");
    } else if ((value = value_of(p.part[0], "unix"))) {
        set_string(console, "type", "unix");
        if (!*value || !set_string(console, "path", value))
            ret = wrong("--console", text, "give unix=PATH");
    } else {
        ret = wrong("--console", text, "give stdio, none or unix=PATH");
    }
    for (unsigned i = 1; i < p.count && ret < 0; i++) {
        if ((value = value_of(p.part[i], "channel"))) {
            set_string(console, "device", "channel");
            set_string(console, "name", value);
            continue;
        }
        value = value_of(p.part[i], "device");
        if (!value || (strcmp(value, "serial") && strcmp(value, "virtio")))
            ret =
                wrong("--console", p.part[i], "give device=serial, device=virtio or channel=NAME");
        else
            set_string(console, "device", value);
    }
    free(p.text);
    json_array_append_new(list, console);
    return ret;
}

/* "512M" as bytes. @return -1: *out is set; else the exit status */
static int parse_size(const char *whole, const char *text, json_int_t *out)
{
    char *end;
    errno = 0;
    unsigned long long n = strtoull(text, &end, 10);
    static const char units[] = "KMGT";
    unsigned shift = 20;
    const char *unit = *end ? strchr(units, *end & ~0x20) : NULL;
    if (unit && *unit)
        shift = 10 + 10 * (unsigned)(unit - units);
    if (*text < '0' || *text > '9' || (*end && (!unit || end[1])))
        return cli_fail(VMM_STATUS_USAGE, "--memory %s: give a number with K, M, G or T, like 512M",
                        whole);
    if (errno || n > (uint64_t)INT64_MAX >> shift)
        return cli_fail(VMM_STATUS_HOST_ERROR,
                        "--memory %s: out of range; give %llu MiB to %llu GiB", whole,
                        MULL_MEMORY_MIN >> 20, MULL_MEMORY_MAX >> 30);
    *out = (json_int_t)(n << shift);
    return -1;
}

static int parse_count(const char *whole, const char *text, json_int_t *out)
{
    char *end;
    errno = 0;
    long n = strtol(text, &end, 10);
    if (!*text || *end)
        return cli_fail(VMM_STATUS_USAGE, "--cpus %s: give a whole number", whole);
    if (errno || n < 0 || n > INT_MAX)
        n = 0; /* refused with its range by the configuration */
    *out = n;
    return -1;
}

/* VALUE[,max=VALUE] */
static int parse_limited(json_t *config, const char *option, const char *key, const char *text,
                         int (*parse)(const char *whole, const char *text, json_int_t *out))
{
    struct parts p;
    char limit[32];
    int ret = -1;
    json_int_t n;
    if (!split(text, &p) || p.count > 2)
        ret = wrong(option, text, "give one value, or VALUE,max=VALUE");
    if (ret < 0)
        ret = parse(text, p.part[0], &n);
    if (ret < 0)
        json_object_set_new(config, key, json_integer(n));
    if (ret < 0 && p.count == 2) {
        const char *max = value_of(p.part[1], "max");
        snprintf(limit, sizeof(limit), "%s_max", key);
        ret = max ? parse(text, max, &n) : wrong(option, p.part[1], "give max=VALUE");
        if (ret < 0)
            json_object_set_new(config, limit, json_integer(n));
    }
    free(p.text);
    return ret;
}

int options_memory(json_t *config, const char *text)
{
    return parse_limited(config, "--memory", "memory", text, parse_size);
}

int options_cpus(json_t *config, const char *text)
{
    return parse_limited(config, "--cpus", "cpus", text, parse_count);
}

static int parse_code_cache(json_t *config, const char *text)
{
    const long max = (long)(MULL_CODE_CACHE_MAX >> 20);
    char *end;
    errno = 0;
    long mib = strtol(text, &end, 10);
    if (!*text || *end)
        return wrong("--code-cache", text, "give a whole number of MiB");
    if (errno || mib < 1 || mib > max)
        return cli_fail(VMM_STATUS_HOST_ERROR,
                        "--code-cache: %s MiB is out of range; give 1 to %ld", text, max);
    json_object_set_new(config, "code_cache", json_integer((json_int_t)mib << 20));
    return -1;
}

static int parse_string(json_t *config, const char *key, const char *value)
{
    if (set_string(config, key, value))
        return -1;
    return cli_fail(VMM_STATUS_HOST_ERROR, "--%s: must be UTF-8", key);
}

/* Without --append: the first console the user would look at. */
static void set_default_cmdline(json_t *config)
{
    const json_t *console, *list = json_object_get(config, "consoles");
    const char *device = NULL;
    size_t i;
    json_array_foreach((json_t *)list, i, console)
    {
        device = json_string_value(json_object_get(console, "device"));
        if (!device || strcmp(device, "channel"))
            break;
    }
    set_string(config, "cmdline",
               device && !strcmp(device, "virtio") ? "console=hvc0" : "console=ttyS0");
}

enum {
    FIRMWARE = 256,
    NVRAM,
    BOOT,
    CDROM,
    DISPLAY,
    INPUT,
    KERNEL,
    INITRD,
    MODULE,
    APPEND,
    NAME,
    MEMORY,
    CPUS,
    ENGINE,
    DISK,
    NET,
    CONSOLE,
    SHARE,
    BALLOON,
    TPM,
    VSOCK,
    WATCHDOG,
    CODE_CACHE,
    PACKED_RINGS,
    NO_REBOOT,
    CONTROL,
    GDB,
    VERBOSE,
    NO_SANDBOX,
    PERF_MAP,
    TEST_DEVICES,
    CONFIG,
    PRINT_CONFIG,
    HELP
};

static const struct option known[] = {
    {"firmware", required_argument, NULL, FIRMWARE},
    {"nvram", required_argument, NULL, NVRAM},
    {"boot", required_argument, NULL, BOOT},
    {"cdrom", required_argument, NULL, CDROM},
    {"display", required_argument, NULL, DISPLAY},
    {"input", required_argument, NULL, INPUT},
    {"kernel", required_argument, NULL, KERNEL},
    {"initrd", required_argument, NULL, INITRD},
    {"module", required_argument, NULL, MODULE},
    {"append", required_argument, NULL, APPEND},
    {"name", required_argument, NULL, NAME},
    {"memory", required_argument, NULL, MEMORY},
    {"cpus", required_argument, NULL, CPUS},
    {"engine", required_argument, NULL, ENGINE},
    {"disk", required_argument, NULL, DISK},
    {"net", required_argument, NULL, NET},
    {"console", required_argument, NULL, CONSOLE},
    {"balloon", required_argument, NULL, BALLOON},
    {"code-cache", required_argument, NULL, CODE_CACHE},
    {"packed-rings", required_argument, NULL, PACKED_RINGS},
    {"watchdog", required_argument, NULL, WATCHDOG},
    {"tpm", required_argument, NULL, TPM},
    {"vsock", required_argument, NULL, VSOCK},
    {"share", required_argument, NULL, SHARE},
    {"no-reboot", no_argument, NULL, NO_REBOOT},
    {"control", required_argument, NULL, CONTROL},
    {"gdb", required_argument, NULL, GDB},
    {"verbose", no_argument, NULL, VERBOSE},
    {"no-sandbox", no_argument, NULL, NO_SANDBOX},
    {"config", required_argument, NULL, CONFIG},
    {"print-config", no_argument, NULL, PRINT_CONFIG},
    {"perf-map", no_argument, NULL, PERF_MAP},
    {"test-devices", no_argument, NULL, TEST_DEVICES},
    {"help", no_argument, NULL, HELP},
    {0},
};

static int parse_engine(json_t *config, const char *name)
{
    if (strcmp(name, "auto") && strcmp(name, "soft") && strcmp(name, "kvm"))
        return cli_fail(VMM_STATUS_USAGE, "--engine %s: give auto, soft or kvm", name);
    return parse_string(config, "engine", name);
}

static int parse_option(struct run_options *o, int option, const char *value)
{
    json_t *c = o->config;
    switch (option) {
    case KERNEL:
        return parse_string(c, "kernel", value);
    case INITRD:
        return parse_string(c, "initrd", value);
    case FIRMWARE:
        return parse_string(c, "firmware", value);
    case NVRAM:
        return parse_string(c, "nvram", value);
    case BOOT:
        return parse_boot(c, value);
    case DISPLAY:
        return parse_display(c, value);
    case INPUT:
        return parse_input(c, value);
    case CDROM:
        return parse_cdrom(c, value);
    case MODULE:
        return parse_module(c, value);
    case APPEND:
        return parse_string(c, "cmdline", value);
    case NAME:
        return parse_string(c, "name", value);
    case MEMORY:
        return options_memory(c, value);
    case CPUS:
        return options_cpus(c, value);
    case ENGINE:
        return parse_engine(c, value);
    case DISK:
        return options_disk(json_object_get(c, "disks"), value);
    case NET:
        return options_net(json_object_get(c, "networks"), value);
    case CONSOLE:
        return parse_console(o, json_object_get(c, "consoles"), value);
    case BALLOON:
        return parse_switch(c, "--balloon", "balloon", value);
    case WATCHDOG:
        if (mull_name_index(mull_watchdog_names, value) < 0)
            return wrong("--watchdog", value, "must be reset, poweroff, pause, none or nmi");
        return parse_string(c, "watchdog", value);
    case TPM:
        json_object_set_new(c, "tpm", json_true());
        return parse_string(c, "tpm_state", value);
    case VSOCK:
        return parse_vsock(c, value);
    case CODE_CACHE:
        return parse_code_cache(c, value);
    case PACKED_RINGS:
        return parse_switch(c, "--packed-rings", "packed_rings", value);
    case SHARE:
        return parse_share(c, value);
    case NO_REBOOT:
        json_object_set_new(c, "no_reboot", json_true());
        return -1;
    case CONTROL:
        o->control = value;
        return -1;
    case PERF_MAP:
        json_object_set_new(c, "perf_map", json_true());
        return -1;
    case TEST_DEVICES:
        json_object_set_new(c, "test_devices", json_true());
        return -1;
    case GDB:
        o->gdb = value;
        return -1;
    case VERBOSE:
        o->verbose = true;
        return -1;
    case NO_SANDBOX:
        o->no_sandbox = true;
        return -1;
    case CONFIG:
        o->config_path = value;
        return -1;
    case PRINT_CONFIG:
        o->print = true;
        return -1;
    default:
        fputs(usage, stdout);
        return 0;
    }
}

/* Put the options over a description from a file: a list that was given replaces the file's. */
static void override(json_t *base, json_t *options)
{
    const char *key;
    json_t *value;
    json_object_foreach(options, key, value)
    {
        if (!json_is_array(value) || json_array_size(value) || !json_object_get(base, key))
            json_object_set(base, key, value);
    }
}

static int merge_file(struct run_options *o, const char *path)
{
    struct mull_error err = {0};
    json_t *base;
    if (machine_file_read(path, &base, &err))
        return cli_fail(VMM_STATUS_HOST_ERROR, "%s", err.message);
    override(base, o->config);
    json_decref(o->config);
    o->config = base;
    unsigned stdio = 0;
    json_t *console;
    size_t i;
    json_array_foreach(json_object_get(base, "consoles"), i, console)
    {
        const char *type = json_string_value(json_object_get(console, "type"));
        stdio += type && !strcmp(type, "stdio");
    }
    if (stdio > 1)
        return cli_fail(VMM_STATUS_HOST_ERROR, "%s: stdio can be used once", path);
    o->stdio = stdio == 1;
    return -1;
}

static int merge_named(struct run_options *o, const char *name)
{
    struct mull_error err = {0};
    char *path;
    if (machine_store_find(name, &path, &err))
        return cli_fail(VMM_STATUS_HOST_ERROR, "%s", err.message);
    int ret = merge_file(o, path);
    free(path);
    return ret;
}

static int print_config(const struct run_options *o)
{
    struct mull_error err = {0};
    struct mull_machine_config config = {0};
    char *text = json_dumps(o->config, JSON_COMPACT);
    json_t *out = NULL;
    int ret =
        text ? mull_machine_config_read(text, &config, &err) : mull_fail(&err, ENOMEM, "no memory");
    if (!ret && (!(out = mull_machine_config_write(&config)) ||
                 json_dumpf(out, stdout, JSON_INDENT(2)) || putchar('\n') < 0 || fflush(stdout)))
        ret = mull_fail(&err, EIO, "configuration: cannot be written: %s", strerror(errno));
    mull_machine_config_free(&config);
    json_decref(out);
    free(text);
    return ret ? cli_fail(VMM_STATUS_HOST_ERROR, "%s", err.message) : 0;
}

static int parse_all(int argc, char **argv, struct run_options *o)
{
    opterr = 0;
    optind = 0;
    for (;;) {
        int c = getopt_long(argc, argv, ":", known, NULL);
        if (c < 0)
            return -1;
        if (c == ':')
            return cli_fail(VMM_STATUS_USAGE, "%s: needs a value; see mullion run --help",
                            argv[optind - 1]);
        if (c == '?')
            return cli_fail(VMM_STATUS_USAGE, "%s: no such option; see mullion run --help",
                            argv[optind - 1]);
        int ret = parse_option(o, c, optarg);
        if (ret >= 0)
            return ret;
    }
}

/* The description that the options go over: a file, or a machine's by its name. */
static int merge_base(int argc, char **argv, struct run_options *o)
{
    if (argc - optind > 1 || (argc > optind && o->config_path))
        return cli_fail(VMM_STATUS_USAGE, "%s: not expected; see mullion run --help",
                        argv[argc - 1]);
    if (o->config_path)
        return merge_file(o, o->config_path);
    if (argc > optind)
        return merge_named(o, argv[optind]);
    if (!o->print && !json_object_get(o->config, "kernel") &&
        !json_object_get(o->config, "firmware") && !json_object_get(o->config, "cdroms") &&
        !json_array_size(json_object_get(o->config, "disks")))
        return cli_fail(VMM_STATUS_USAGE,
                        "--kernel is missing: give a bzImage or a vmlinux, a --disk or "
                        "--firmware; see mullion run --help");
    return -1;
}

/* Channels are for agents: a user has none of them to look at. */
static bool has_console(const json_t *list)
{
    const json_t *console;
    size_t i;
    json_array_foreach((json_t *)list, i,
                       console) if (!json_object_get(console, "name")) return true;
    return false;
}

int run_options_parse(int argc, char **argv, struct run_options *o)
{
    *o = (struct run_options){.config =
                                  json_pack("{s:[], s:[], s:[]}", "disks", "networks", "consoles")};
    if (!o->config)
        return cli_fail(VMM_STATUS_HOST_ERROR, "no memory");
    int ret = parse_all(argc, argv, o);
    if (ret < 0)
        ret = merge_base(argc, argv, o);
    if (ret < 0 && !has_console(json_object_get(o->config, "consoles")))
        ret = parse_console(o, json_object_get(o->config, "consoles"), "stdio");
    if (ret < 0 && json_object_get(o->config, "kernel") && !json_object_get(o->config, "cmdline"))
        set_default_cmdline(o->config);
    if (ret < 0 && o->print)
        ret = print_config(o);
    if (ret >= 0)
        run_options_free(o);
    return ret;
}

void run_options_free(struct run_options *o)
{
    json_decref(o->config);
    o->config = NULL;
}
