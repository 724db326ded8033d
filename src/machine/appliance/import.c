/*
 * Importing: turns a package into a description, does what the user asked for, and makes the folder
 * of a machine, whole or not at all.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "image/image.h"
#include "image/iso.h"
#include "machine/appliance/folder.h"
#include "machine/appliance/internal.h"
#include "machine/appliance/source.h"

/* ---- Reading the description ---- */

static int choose_system(struct package *p, const struct mull_ovf *ovf, uint32_t *out)
{
    char ids[256] = "";
    *out = 0;
    if (ovf->system_count == 1 && !p->import->system)
        return 0;
    for (uint32_t i = 0; i < ovf->system_count; i++) {
        const char *id = ovf->system[i].id ? ovf->system[i].id : "";
        *out = i;
        if (p->import->system && !strcmp(p->import->system, id))
            return 0;
        size_t len = strlen(ids);
        snprintf(ids + len, sizeof(ids) - len, "%s%.60s", len ? ", " : "", id);
    }
    return mull_fail(p->err, EINVAL, "%s: has the virtual systems %s; choose one with --system",
                     p->path, ids);
}

static int check_sizes(struct package *p, const struct mull_ovf *ovf)
{
    for (uint32_t i = 0; i < ovf->file_count; i++) {
        const struct mull_ovf_file *f = &ovf->file[i];
        struct part part;
        if (!f->has_size || f->chunk)
            continue;
        int ret = package_find(p, f->href, &part);
        if (!ret && part.size != f->size)
            ret = mull_fail(p->err, EBADMSG,
                            "%s: '%.200s' has %llu bytes, but the descriptor says %llu: it is "
                            "damaged, or not complete",
                            p->path, f->href, (unsigned long long)part.size,
                            (unsigned long long)f->size);
        free(part.path);
        /* A file that no disk or drive uses may be missing. */
        if (ret && ret != -ENOENT)
            return ret;
        if (ret)
            *p->err = (struct mull_error){0};
    }
    return 0;
}

static int read_ovf(struct package *p)
{
    struct mull_ovf ovf = {0};
    size_t size = 0;
    uint32_t system;
    const char *slash = strrchr(p->path, '/');
    const char *name = p->kind == KIND_OVA ? p->member : slash ? slash + 1 : p->path;
    char *text = package_read(p, name, MULL_XML_BYTES_MAX, &size);
    if (!text)
        return -p->err->code;
    int ret = mull_ovf_parse(name, text, size, p->import->configuration, &ovf, p->err);
    if (!ret)
        ret = choose_system(p, &ovf, &system);
    if (!ret)
        ret = check_sizes(p, &ovf);
    if (!ret && package_ends_with(name, ".ovf"))
        ret = package_check_manifest(p, &ovf, name);
    if (!ret)
        ret = mull_appliance_from_ovf(&ovf, system, &p->import->appliance, p->err);
    mull_ovf_free(&ovf);
    free(text);
    return ret;
}

static int read_vmx(struct package *p)
{
    struct mull_vmx vmx = {0};
    size_t size = 0;
    char *text = folder_read(p->path, 0, 0, MULL_VMX_BYTES_MAX, &size, p->err);
    int ret = text ? mull_vmx_parse(p->path, text, size, &vmx, p->err) : -p->err->code;
    if (!ret)
        ret = mull_appliance_from_vmx(&vmx, p->path, &p->import->appliance, p->err);
    mull_vmx_free(&vmx);
    free(text);
    return ret;
}

static int read_libvirt(struct package *p)
{
    size_t size = 0;
    char *text = folder_read(p->path, 0, 0, MULL_XML_BYTES_MAX, &size, p->err);
    int ret = text ? mull_appliance_from_libvirt(p->path, text, size, &p->import->appliance, p->err)
                   : -p->err->code;
    free(text);
    return ret;
}

/* A disk alone: a machine around it. */
static int read_disk(struct package *p)
{
    struct mull_appliance *a = &p->import->appliance;
    const char *slash = strrchr(p->path, '/');
    const char *name = slash ? slash + 1 : p->path, *dot = strrchr(name, '.');
    char *stem = strndup(name, dot && dot != name ? (size_t)(dot - name) : strlen(name));
    char *plain = stem ? mull_machine_name(stem) : NULL;
    int ret = mull_appliance_init(a);
    if (!ret)
        ret = plain ? appliance_set(&a->config.name, plain) : -ENOMEM;
    free(stem);
    free(plain);
    struct mull_disk_config *disk = ret ? NULL : appliance_add_disk(a, p->path, p->err);
    if (!ret && disk)
        ret = appliance_set(&a->disk[0].name, name);
    struct mull_network_config *net = ret ? NULL : appliance_add_network(a, p->path, p->err);
    if (!ret && (!disk || !net || appliance_set(&a->config.firmware, "bios")))
        ret = -ENOMEM;
    return ret ? package_no_memory(p) : 0;
}

static int read_description(struct package *p)
{
    switch (p->kind) {
    case KIND_OVA:
    case KIND_OVF:
        return read_ovf(p);
    case KIND_VMX:
        return read_vmx(p);
    case KIND_LIBVIRT:
        return read_libvirt(p);
    case KIND_DISK:
    case KIND_NONE:
        break;
    }
    return read_disk(p);
}

/* ---- What the user asked for ---- */

static int map_networks(struct package *p)
{
    struct mull_import *import = p->import;
    struct mull_machine_config *c = &import->appliance.config;
    for (unsigned n = 0; n < import->network_count; n++) {
        const struct mull_pair *map = &import->network[n];
        bool used = false;
        for (unsigned i = 0; i < c->network_count; i++) {
            struct mull_network_config *net = &c->network[i];
            char number[16];
            snprintf(number, sizeof(number), "%u", i);
            if (strcmp(map->key, number) && (!net->name || strcmp(map->key, net->name)))
                continue;
            used = true;
            net->kind = !strcmp(map->value, "none")       ? MULL_NETWORK_NONE
                        : !strncmp(map->value, "tap=", 4) ? MULL_NETWORK_TAP
                                                          : MULL_NETWORK_USER;
            if (net->kind == MULL_NETWORK_USER && strcmp(map->value, "user"))
                return mull_fail(p->err, EINVAL,
                                 "--network %s=%s: give user, none or tap=INTERFACE", map->key,
                                 map->value);
            if (net->kind == MULL_NETWORK_TAP &&
                (!map->value[4] || appliance_set(&net->interface, map->value + 4)))
                return mull_fail(p->err, EINVAL, "--network %s: which interface?", map->key);
        }
        if (!used)
            return mull_fail(p->err, ENOENT,
                             "--network %s: the machine has no network of that name", map->key);
    }
    return 0;
}

static int apply_options(struct package *p)
{
    struct mull_import *import = p->import;
    struct mull_appliance *a = &import->appliance;
    int ret = 0;
    if (import->name) {
        char *plain = mull_machine_name(import->name);
        bool same = plain && !strcmp(plain, import->name);
        free(plain);
        if (!same)
            return mull_fail(p->err, EINVAL,
                             "--name %s: use 1 to 63 letters, digits, '-', '_' and '.'",
                             import->name);
        if (appliance_set(&a->config.name, import->name))
            return package_no_memory(p);
    }
    for (unsigned i = 0; i < import->property_count && !ret; i++)
        ret = mull_appliance_set_property(a, import->property[i].key, import->property[i].value,
                                          p->err);
    if (!ret)
        ret = map_networks(p);
    /* A VGA console says nothing on a terminal: the first serial port is the user's. */
    if (!ret && !a->config.console_count) {
        struct mull_console_config *console = appliance_add_console(a);
        console->kind = MULL_CONSOLE_STDIO;
    }
    return ret;
}

/* ---- Making the machine ---- */

static int copy_file(struct package *p, const char *name, const char *as, const char *folder,
                     bool needed, char **field)
{
    struct part part;
    int ret = package_find(p, name, &part);
    if (ret == -ENOENT && !needed) {
        *p->err = (struct mull_error){0};
        return 1;
    }
    char *to = ret ? NULL : folder_join(folder, as, p->err);
    struct folder_progress progress = {p->import->progress, p->import->opaque, name};
    if (!ret && p->import->in_place && !part.inside)
        ret = appliance_set(field, part.path) ? package_no_memory(p) : 0;
    else if (!ret)
        ret = to ? folder_copy(part.path, part.offset, part.size, to, &progress, p->err) : -ENOMEM;
    if (!ret && !(p->import->in_place && !part.inside))
        ret = appliance_set(field, as) ? package_no_memory(p) : 0;
    free(part.path);
    free(to);
    return ret;
}

static int make_media(struct package *p, const char *folder)
{
    struct mull_appliance *a = &p->import->appliance;
    struct mull_machine_config *c = &a->config;
    int ret = 0;
    for (unsigned i = 0; i < c->cdrom_count && !ret; i++) {
        char name[32];
        if (!a->cdrom[i].name)
            continue;
        snprintf(name, sizeof(name), "cdrom%u.iso", i);
        ret = copy_file(p, a->cdrom[i].name, name, folder, false, &c->cdrom[i].path);
        if (ret == 1) {
            mull_report_add(&a->report, MULL_NOTE_LOST, name,
                            "its medium '%.200s' is not there; the drive is empty",
                            a->cdrom[i].name);
            ret = 0;
        }
    }
    if (!ret && a->nvram.name) {
        ret = copy_file(p, a->nvram.name, "nvram.fd", folder, false, &c->nvram);
        if (ret == 1) {
            mull_report_add(&a->report, MULL_NOTE_LOST, "nvram", "'%.200s' is not there",
                            a->nvram.name);
            ret = 0;
        }
    }
    char *kernel = c->kernel, *initrd = c->initrd;
    c->kernel = c->initrd = NULL;
    if (!ret && kernel)
        ret = copy_file(p, kernel, "kernel", folder, true, &c->kernel);
    if (!ret && initrd)
        ret = copy_file(p, initrd, "initrd", folder, true, &c->initrd);
    free(kernel);
    free(initrd);
    return ret;
}

static char *description_text(const struct mull_machine_config *c)
{
    json_t *json = mull_machine_config_write(c);
    char *text = json ? json_dumps(json, JSON_INDENT(2)) : NULL;
    json_decref(json);
    return text;
}

/* A disc with the properties in an empty drive, or in a new one. */
static int plan_disc(struct package *p)
{
    struct mull_appliance *a = &p->import->appliance;
    struct mull_machine_config *c = &a->config;
    struct mull_cdrom_config *drive = NULL;

    if (!json_object_get(c->appliance, "properties"))
        return 0;
    if (!mull_appliance_wants_disc(c)) {
        mull_report_add(&a->report, MULL_NOTE_KEPT, "properties",
                        "they are in ovf-env.xml in the machine's folder; the guest is not shown "
                        "them, for its descriptor does not ask for transport by iso");
        return 0;
    }
    for (unsigned i = 0; i < c->cdrom_count && !drive; i++)
        if (!c->cdrom[i].path && !a->cdrom[i].name)
            drive = &c->cdrom[i];
    if (!drive && !(drive = appliance_add_cdrom(a, p->path, p->err)))
        return -E2BIG;
    return appliance_set(&drive->path, MULL_ENVIRONMENT_DISC) ? package_no_memory(p) : 0;
}

static int write_environment(struct package *p, const char *folder)
{
    const struct mull_machine_config *c = &p->import->appliance.config;
    char *text = mull_appliance_environment(c);
    char *path = folder_join(folder, "ovf-env.xml", p->err);
    char *disc = folder_join(folder, MULL_ENVIRONMENT_DISC, p->err);
    int ret = text && path && disc ? folder_write(path, text, strlen(text), p->err)
                                   : package_no_memory(p);
    if (!ret && mull_appliance_wants_disc(c)) {
        struct mull_iso_file file = {.name = "ovf-env.xml", .data = text, .length = strlen(text)};
        ret = mull_iso_write(disc, "OVF_ENV", &file, 1, p->err);
    }
    free(text);
    free(path);
    free(disc);
    return ret;
}

static int write_description(struct package *p, const char *folder)
{
    const struct mull_machine_config *c = &p->import->appliance.config;
    char *text = description_text(c), *path = folder_join(folder, "machine.json", p->err);
    int ret = text && path ? folder_write(path, text, strlen(text), p->err) : package_no_memory(p);
    free(text);
    free(path);
    return ret || !json_object_get(c->appliance, "properties") ? ret : write_environment(p, folder);
}

/* What was written must be what a machine reads. */
static int check_description(struct package *p)
{
    struct mull_machine_config again;
    char *text = description_text(&p->import->appliance.config);
    if (!text)
        return package_no_memory(p);
    int ret = mull_machine_config_read(text, &again, p->err);
    mull_machine_config_free(&again);
    free(text);
    return ret ? mull_fail_in(p->err, "%s", p->import->source) : 0;
}

static int make_machine(struct package *p)
{
    struct mull_import *import = p->import;
    struct mull_machine_config *c = &import->appliance.config;
    char *target = NULL, *temporary = NULL;
    int ret = folder_make(import->into, p->err);
    if (!ret && !(target = folder_join(import->into, c->name, p->err)))
        ret = -ENOMEM;
    if (!ret)
        ret = folder_temporary(target, &temporary, p->err);
    for (unsigned i = 0; i < c->disk_count && !ret; i++)
        ret = package_make_disk(p, i, temporary);
    if (!ret)
        ret = make_media(p, temporary);
    if (!ret)
        ret = plan_disc(p);
    if (!ret)
        ret = check_description(p);
    if (!ret)
        ret = write_description(p, temporary);
    if (!ret)
        ret = folder_commit(temporary, target, p->err);
    if (ret)
        folder_remove(temporary);
    else if (!(import->config_path = folder_join(target, "machine.json", p->err)))
        ret = -ENOMEM;
    free(temporary);
    free(target);
    return ret;
}

int mull_import(struct mull_import *import, struct mull_error *err)
{
    struct mull_error own = {0};
    struct package p = {.import = import, .tar_fd = -1, .err = err ? err : &own};
    const struct mull_format *format =
        import->disk_format ? mull_format_find(import->disk_format) : NULL;
    if (import->disk_format && (!format || !format->create))
        return mull_fail(err, EINVAL, "--disk-format %s: no format that we write",
                         import->disk_format);
    int ret = package_open(&p);
    if (!ret)
        ret = read_description(&p);
    if (!ret && import->appliance.licence_count && !import->accept_licences && !import->dry_run)
        ret = mull_fail(p.err, EACCES, "%s: its licence must be accepted first (--accept-eula)",
                        import->source);
    if (!ret)
        ret = apply_options(&p);
    if (!ret && import->dry_run) {
        struct mull_machine_config *c = &import->appliance.config;
        for (unsigned i = 0; i < c->disk_count && !ret; i++)
            ret = appliance_set(&c->disk[i].path, import->appliance.disk[i].name
                                                      ? import->appliance.disk[i].name
                                                      : "new")
                      ? package_no_memory(&p)
                      : 0;
        for (unsigned i = 0; i < c->cdrom_count && !ret; i++)
            ret = appliance_set(&c->cdrom[i].path, import->appliance.cdrom[i].name)
                      ? package_no_memory(&p)
                      : 0;
        import->config_path = ret ? NULL : description_text(c);
        if (!ret && !import->config_path)
            ret = package_no_memory(&p);
    } else if (!ret) {
        ret = make_machine(&p);
    }
    package_close(&p);
    return ret;
}

void mull_import_free(struct mull_import *import)
{
    free(import->config_path);
    import->config_path = NULL;
    mull_appliance_free(&import->appliance);
}
