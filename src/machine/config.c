/*
 * What a machine's description means: its names, its defaults, and whether this version can run it.
 * Reading and writing JSON are config_read.c and config_write.c.
 */
#include "machine/config.h"

#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>

#include "device/devices.h"
#include "engine/engine.h"

const char *const mull_bus_names[MULL_BUSES + 1] = {"virtio", "scsi",   "nvme", "sata",
                                                    "ide",    "pvscsi", "usb",  NULL};
const char *const mull_nic_names[MULL_NICS + 1] = {"virtio", "e1000e",  "vmxnet3", "e1000",
                                                   "pcnet",  "rtl8139", NULL};
const char *const mull_on_error_names[4] = {"report", "pause", "stop", NULL};
const char *const mull_boot_names[5] = {"disk", "cdrom", "network", "floppy", NULL};

const char *const mull_watchdog_names[7] = {"off",  "reset", "poweroff", "pause",
                                              "none", "nmi",   NULL};

int mull_name_index(const char *const *names, const char *text)
{
    for (int i = 0; names[i]; i++)
        if (!strcmp(names[i], text))
            return i;
    return -1;
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

int mull_uuid_parse(const char *text, char out[37])
{
    size_t len = strlen(text);
    char low[37];
    if (len == 38 && text[0] == '{' && text[37] == '}')
        text++;
    else if (len != 36)
        return -EINVAL;
    for (unsigned i = 0; i < 36; i++) {
        bool dash = i == 8 || i == 13 || i == 18 || i == 23;
        if (dash ? text[i] != '-' : !isxdigit((unsigned char)text[i]))
            return -EINVAL;
        low[i] = (char)tolower((unsigned char)text[i]);
    }
    low[36] = '\0';
    memcpy(out, low, sizeof(low));
    return 0;
}

int mull_boot_entry_parse(const char *text, struct mull_boot_entry *out)
{
    for (int i = 0; mull_boot_names[i]; i++) {
        size_t len = strlen(mull_boot_names[i]);
        if (strncmp(text, mull_boot_names[i], len))
            continue;
        int index = -1, end = 0;
        if (text[len] &&
            (sscanf(text + len, ":%3d%n", &index, &end) != 1 || text[len + end] || index < 0))
            return -EINVAL;
        *out = (struct mull_boot_entry){(enum mull_boot_device)i, index};
        return 0;
    }
    return -EINVAL;
}

int mull_machine_config_init(struct mull_machine_config *c)
{
    *c = (struct mull_machine_config){.memory = MULL_MEMORY_DEFAULT, .cpus = 1};
    c->name = strdup("mullion");
    c->engine = strdup("auto");
    return c->name && c->engine ? 0 : -ENOMEM;
}

int mull_machine_config_parse(const char *json, struct mull_machine_config *out,
                              struct mull_error *err)
{
    int ret = mull_machine_config_read(json, out, err);
    return ret ? ret : mull_machine_config_check(out, err);
}

/* ---- What is not there yet ---- */

struct list {
    char *out;
    size_t room, len;
};

static void add(struct list *l, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void add(struct list *l, const char *fmt, ...)
{
    va_list args;
    if (l->len && l->len + 2 < l->room)
        l->len += (size_t)snprintf(l->out + l->len, l->room - l->len, "; ");
    va_start(args, fmt);
    int n = vsnprintf(l->out + l->len, l->room - l->len, fmt, args);
    va_end(args);
    l->len += n > 0 ? (size_t)n : 0;
    if (l->len >= l->room)
        l->len = l->room - 1;
}

bool mull_machine_config_missing(const struct mull_machine_config *c, char *out, size_t room)
{
    struct list l = {out, room, 0};
    *out = '\0';
    for (unsigned i = 0; i < c->disk_count; i++)
        if (c->disk[i].bus == MULL_BUS_USB)
            add(&l, "disk %u is on virtio instead of usb", i);
        else if (c->disk[i].adapter)
            add(&l, "disk %u is on pvscsi instead of %s", i, c->disk[i].adapter);
    for (unsigned i = 0; i < c->network_count; i++) {
        if (c->network[i].kind == MULL_NETWORK_NONE)
            add(&l, "network card %u is left out: it is connected to nothing", i);
        else if (c->network[i].model >= MULL_NICS_THERE)
            add(&l, "network card %u is e1000e instead of %s", i,
                mull_nic_names[c->network[i].model]);
    }
    for (unsigned i = 0; i < c->console_count; i++)
        if (c->console[i].kind == MULL_CONSOLE_FILE || c->console[i].kind == MULL_CONSOLE_TCP)
            add(&l, "console %u is connected to nothing instead of %s", i, c->console[i].path);
    for (unsigned i = 0; i < c->cdrom_count; i++)
        if (c->cdrom[i].bus == MULL_BUS_USB || c->cdrom[i].bus == MULL_BUS_VIRTIO ||
            c->cdrom[i].bus == MULL_BUS_NVME)
            add(&l, "CD-ROM drive %u is on sata instead of %s", i, mull_bus_names[c->cdrom[i].bus]);
        else if (c->cdrom[i].adapter)
            add(&l, "CD-ROM drive %u is on pvscsi instead of %s", i, c->cdrom[i].adapter);
    if (c->firmware && c->kernel)
        add(&l, "no firmware %s: the kernel is loaded directly", c->firmware);
    if (c->secure_boot)
        add(&l, "no secure boot");
    if (c->display != MULL_DISPLAY_NONE && !c->display_listen)
        add(&l, "no display: it needs a place to listen");
    if (c->video.model && strcmp(c->video.model, "vga") && strcmp(c->video.model, "virtio"))
        add(&l, "the graphics adapter is vga instead of %s", c->video.model);
    if (c->tpm && !c->tpm_state)
        add(&l, "no TPM: it needs a folder for its state (tpm_state)");
    if (c->localtime)
        add(&l, "the clock shows UTC");
    if (c->usb && strcmp(c->usb, "3.0"))
        add(&l, "USB is 3.0 instead of %s", c->usb);
    if (c->sound)
        add(&l, "no sound");
    return l.len > 0;
}

/* ---- Whether it can be run ---- */

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

bool mull_machine_config_firmware(const struct mull_machine_config *c)
{
    return !c->kernel && (c->firmware || c->disk_count || c->cdrom_count);
}

int mull_machine_config_check(const struct mull_machine_config *c, struct mull_error *err)
{
    if ((!c->kernel || !*c->kernel) && !mull_machine_config_firmware(c))
        return mull_fail(err, EINVAL,
                         "--kernel: nothing to boot; give a bzImage or a vmlinux, or a --disk");
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
    if (c->cpus_max && (c->cpus_max < c->cpus || c->cpus_max > MULL_MAX_CPUS))
        return mull_fail(err, ERANGE, "--cpus: max=%u is out of range; give %u to %d", c->cpus_max,
                         c->cpus, MULL_MAX_CPUS);
    if (c->memory_max && (c->memory_max < c->memory || c->memory_max > MULL_MEMORY_MAX))
        return mull_fail(err, ERANGE, "--memory: max must be from the memory itself to %llu GiB",
                         MULL_MEMORY_MAX >> 30);
    unsigned serial = 0, channels = 0;
    for (unsigned i = 0; i < c->console_count; i++) {
        if (c->console[i].kind == MULL_CONSOLE_STDIO)
            return mull_fail(err, EINVAL,
                             "--console: stdio is there under mullion run only; give "
                             "fd, unix or none");
        serial += c->console[i].device == MULL_CONSOLE_SERIAL;
        channels += c->console[i].device == MULL_CONSOLE_CHANNEL;
    }
    if (channels > MULL_VIRTIO_CONSOLE_CHANNELS)
        return mull_fail(err, EINVAL, "--console: %u channels; a machine has %d at most", channels,
                         MULL_VIRTIO_CONSOLE_CHANNELS);
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
        free(c->disk[i].adapter);
    }
    for (unsigned i = 0; i < c->cdrom_count; i++) {
        free(c->cdrom[i].path);
        free(c->cdrom[i].adapter);
    }
    for (unsigned i = 0; i < c->network_count; i++) {
        free(c->network[i].name);
        free(c->network[i].interface);
        free(c->network[i].tftp);
        free(c->network[i].bootfile);
        for (unsigned j = 0; j < c->network[i].forward_count; j++)
            free(c->network[i].forward[j]);
    }
    for (unsigned i = 0; i < c->console_count; i++) {
        free(c->console[i].path);
        free(c->console[i].name);
    }
    for (unsigned i = 0; i < c->share_count; i++) {
        free(c->share[i].path);
        free(c->share[i].tag);
    }
    for (unsigned i = 0; i < c->module_count; i++) {
        free(c->module[i].path);
        free(c->module[i].args);
    }
    free(c->name);
    free(c->kernel);
    free(c->initrd);
    free(c->cmdline);
    free(c->engine);
    free(c->annotation);
    free(c->os);
    free(c->firmware);
    free(c->nvram);
    free(c->tpm_state);
    free(c->vsock_path);
    free(c->display_listen);
    free(c->display_password_file);
    free(c->display_certificates);
    free(c->display_keymap);
    free(c->video.model);
    free(c->usb);
    free(c->sound);
    json_decref(c->appliance);
    json_decref(c->extra);
    memset(c, 0, sizeof(*c));
}
