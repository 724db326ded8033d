/* Reports, names and what all readers do alike. See appliance.h. */
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "image/ovf/tar.h"
#include "machine/appliance/internal.h"

const char *mull_note_name(enum mull_note_kind kind)
{
    static const char *const names[] = {"lost", "changed", "kept"};
    return names[kind];
}

void mull_report_add(struct mull_report *r, enum mull_note_kind kind, const char *item,
                     const char *fmt, ...)
{
    if (r->count == MULL_NOTES_MAX) {
        r->failed = true;
        return;
    }
    struct mull_note *grown = realloc(r->note, (r->count + 1) * sizeof(*grown));
    char *text = NULL, *copy = strdup(item);
    va_list args;
    va_start(args, fmt);
    if (vasprintf(&text, fmt, args) < 0)
        text = NULL;
    va_end(args);
    if (grown)
        r->note = grown;
    if (!grown || !text || !copy) {
        free(text);
        free(copy);
        r->failed = true;
        return;
    }
    r->note[r->count++] = (struct mull_note){kind, copy, text};
}

void mull_report_free(struct mull_report *r)
{
    for (unsigned i = 0; i < r->count; i++) {
        free(r->note[i].item);
        free(r->note[i].text);
    }
    free(r->note);
    *r = (struct mull_report){0};
}

int mull_appliance_init(struct mull_appliance *a)
{
    memset(a, 0, sizeof(*a));
    return mull_machine_config_init(&a->config);
}

void mull_appliance_free(struct mull_appliance *a)
{
    mull_machine_config_free(&a->config);
    for (unsigned i = 0; i < MULL_CONFIG_DISKS; i++)
        free(a->disk[i].name);
    for (unsigned i = 0; i < MULL_CONFIG_CDROMS; i++)
        free(a->cdrom[i].name);
    free(a->nvram.name);
    for (unsigned i = 0; i < a->licence_count; i++)
        free(a->licence[i]);
    free(a->licence);
    mull_report_free(&a->report);
    memset(a, 0, sizeof(*a));
}

char *mull_machine_name(const char *text)
{
    char name[64];
    size_t n = 0;
    for (const char *p = text; *p && n < sizeof(name) - 1; p++) {
        bool good = isalnum((unsigned char)*p) || *p == '-' || *p == '_' || *p == '.';
        if (good && (n || *p != '.'))
            name[n++] = *p;
        else if (n && name[n - 1] != '-')
            name[n++] = '-';
    }
    while (n && (name[n - 1] == '-' || name[n - 1] == '.'))
        n--;
    name[n] = '\0';
    return strdup(n ? name : "machine");
}

/* ---- Adding ---- */

struct mull_disk_config *appliance_add_disk(struct mull_appliance *a, const char *what,
                                            struct mull_error *err)
{
    struct mull_machine_config *c = &a->config;
    if (c->disk_count == MULL_CONFIG_DISKS) {
        mull_fail(err, E2BIG, "%s: more than %d disks", what, MULL_CONFIG_DISKS);
        return NULL;
    }
    struct mull_disk_config *disk = &c->disk[c->disk_count++];
    disk->controller = disk->unit = -1;
    return disk;
}

struct mull_cdrom_config *appliance_add_cdrom(struct mull_appliance *a, const char *what,
                                              struct mull_error *err)
{
    struct mull_machine_config *c = &a->config;
    if (c->cdrom_count == MULL_CONFIG_CDROMS) {
        mull_fail(err, E2BIG, "%s: more than %d CD-ROM drives", what, MULL_CONFIG_CDROMS);
        return NULL;
    }
    struct mull_cdrom_config *cdrom = &c->cdrom[c->cdrom_count++];
    cdrom->controller = cdrom->unit = -1;
    return cdrom;
}

struct mull_network_config *appliance_add_network(struct mull_appliance *a, const char *what,
                                                  struct mull_error *err)
{
    struct mull_machine_config *c = &a->config;
    if (c->network_count == MULL_CONFIG_NETWORKS) {
        mull_fail(err, E2BIG, "%s: more than %d network cards", what, MULL_CONFIG_NETWORKS);
        return NULL;
    }
    return &c->network[c->network_count++];
}

struct mull_console_config *appliance_add_console(struct mull_appliance *a)
{
    struct mull_machine_config *c = &a->config;
    if (c->console_count == MULL_CONFIG_CONSOLES)
        return NULL;
    struct mull_console_config *console = &c->console[c->console_count++];
    console->in_fd = console->out_fd = -1;
    return console;
}

bool appliance_number(const char *text, uint64_t max, uint64_t *out)
{
    char *end;
    if (!text || !isdigit((unsigned char)*text))
        return false;
    errno = 0;
    *out = strtoull(text, &end, 10);
    return !errno && !*end && *out <= max;
}

int appliance_set(char **field, const char *text)
{
    char *copy = text ? strdup(text) : NULL;
    if (text && !copy)
        return -ENOMEM;
    free(*field);
    *field = copy;
    return 0;
}

int appliance_set_console_path(struct mull_appliance *a, struct mull_console_config *console,
                               const char *path, const char *item)
{
    const char *last = path + strlen(path);
    while (last > path && last[-1] != '/' && last[-1] != '\\')
        last--;
    if (!mull_tar_name_is_safe(last)) {
        mull_report_add(&a->report, MULL_NOTE_LOST, item, "its file '%.200s' is no file's name",
                        path);
        console->kind = MULL_CONSOLE_NONE;
        return 0;
    }
    if (last != path)
        mull_report_add(&a->report, MULL_NOTE_CHANGED, item,
                        "'%.200s' becomes '%s' in the machine's folder", path, last);
    return appliance_set(&console->path, last);
}

bool appliance_medium(struct mull_appliance *a, const char *path, const char *item)
{
    if (mull_tar_name_is_safe(path))
        return true;
    mull_report_add(&a->report, MULL_NOTE_LOST, item,
                    "its medium '%.200s' lies outside the machine's folder; the drive is empty",
                    path);
    return false;
}

void appliance_set_cores(struct mull_machine_config *c, unsigned cores)
{
    if (!cores || c->cpus % cores)
        return;
    c->sockets = c->cpus / cores;
    c->cores = cores;
    c->threads = 1;
}

int appliance_keep_vmx(struct mull_machine_config *c, const char *key, const char *value)
{
    if (!c->extra && !(c->extra = json_object()))
        return -ENOMEM;
    json_t *vmx = json_object_get(c->extra, "vmx");
    if (!vmx) {
        vmx = json_object();
        if (json_object_set_new(c->extra, "vmx", vmx))
            return -ENOMEM;
    }
    return json_object_set_new(vmx, key, json_string(value)) ? -EILSEQ : 0;
}

/* ---- Properties ---- */

/* An appliance's name for a property: class.key.instance (DSP0243, 9.5). */
static bool names_property(json_t *property, const char *key)
{
    const char *class = json_string_value(json_object_get(property, "class"));
    const char *instance = json_string_value(json_object_get(property, "instance"));
    const char *own = json_string_value(json_object_get(property, "key"));
    char full[512];
    snprintf(full, sizeof(full), "%s%s%s%s%s", class && *class ? class : "",
             class && *class ? "." : "", own ? own : "", instance && *instance ? "." : "",
             instance && *instance ? instance : "");
    return !strcmp(full, key) || (own && !strcmp(own, key));
}

int mull_appliance_set_property(struct mull_appliance *a, const char *key, const char *value,
                                struct mull_error *err)
{
    json_t *list = json_object_get(a->config.appliance, "properties"), *property;
    size_t i;
    json_array_foreach(list, i, property)
    {
        if (!names_property(property, key))
            continue;
        if (!json_is_true(json_object_get(property, "configurable")))
            return mull_fail(err, EPERM, "--property %s: the appliance's maker has fixed it", key);
        const char *type = json_string_value(json_object_get(property, "type"));
        if (type && !strcmp(type, "boolean") && strcasecmp(value, "true") &&
            strcasecmp(value, "false"))
            return mull_fail(err, EINVAL, "--property %s: must be true or false", key);
        bool numeric = type && (strstr(type, "int") || !strncmp(type, "real", 4));
        if (numeric && !(*value && strspn(value, "+-.0123456789eE") == strlen(value)))
            return mull_fail(err, EINVAL, "--property %s: must be a number (%s)", key, type);
        if (json_object_set_new(property, "value", json_string(value)))
            return mull_fail(err, EILSEQ, "--property %s: must be UTF-8", key);
        return 0;
    }
    return mull_fail(err, ENOENT, "--property %s: the appliance has none of that name", key);
}

void mull_appliance_open_properties(const struct mull_appliance *a, char *out, size_t room)
{
    json_t *list = json_object_get(a->config.appliance, "properties"), *property;
    size_t i, len = 0;
    *out = '\0';
    json_array_foreach(list, i, property)
    {
        const char *value = json_string_value(json_object_get(property, "value"));
        const char *key = json_string_value(json_object_get(property, "key"));
        if ((value && *value) || !key || !json_is_true(json_object_get(property, "configurable")))
            continue;
        int n = snprintf(out + len, room - len, "%s%s", len ? ", " : "", key);
        if (n < 0 || (size_t)n >= room - len)
            return;
        len += (size_t)n;
    }
}

bool mull_appliance_wants_disc(const struct mull_machine_config *c)
{
    const char *p = json_string_value(json_object_get(c->appliance, "transport"));

    if (!p || !json_object_get(c->appliance, "properties"))
        return false;
    while (*(p += strspn(p, " \t\r\n,"))) {
        size_t n = strcspn(p, " \t\r\n,");
        if (n == 3 && !memcmp(p, "iso", 3))
            return true;
        p += n;
    }
    return false;
}

char *mull_appliance_environment(const struct mull_machine_config *c)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    if (!out)
        return NULL;
    struct mull_xml_writer w;
    mull_xml_begin(&w, out);
    mull_xml_start(&w, "Environment");
    mull_xml_put(&w, "xmlns", "http://schemas.dmtf.org/ovf/environment/1");
    mull_xml_put(&w, "xmlns:oe", "http://schemas.dmtf.org/ovf/environment/1");
    mull_xml_put(&w, "oe:id", c->name);
    mull_xml_start(&w, "PlatformSection");
    mull_xml_element(&w, "Kind", "Mullion");
    mull_xml_element(&w, "Version", MULLION_VERSION);
    mull_xml_element(&w, "Vendor", "Mullion");
    mull_xml_element(&w, "Locale", "en");
    mull_xml_end(&w, "PlatformSection");
    mull_xml_start(&w, "PropertySection");
    json_t *property;
    size_t i;
    json_array_foreach(json_object_get(c->appliance, "properties"), i, property)
    {
        const char *key = json_string_value(json_object_get(property, "key"));
        const char *class = json_string_value(json_object_get(property, "class"));
        const char *instance = json_string_value(json_object_get(property, "instance"));
        const char *value = json_string_value(json_object_get(property, "value"));
        char full[512];
        if (!key)
            continue;
        snprintf(full, sizeof(full), "%s%s%s%s%s", class ? class : "", class && *class ? "." : "",
                 key, instance && *instance ? "." : "", instance ? instance : "");
        mull_xml_start(&w, "Property");
        mull_xml_put(&w, "oe:key", full);
        mull_xml_put(&w, "oe:value", value ? value : "");
        mull_xml_end(&w, "Property");
    }
    mull_xml_end(&w, "PropertySection");
    mull_xml_end(&w, "Environment");
    if (fclose(out)) {
        free(text);
        return NULL;
    }
    return text;
}
