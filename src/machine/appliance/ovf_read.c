/*
 * From an OVF descriptor to a machine's description. What VMware adds as ExtraConfig are settings
 * of a VMX file, and read as such.
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "machine/appliance/internal.h"

struct reader {
    const struct mull_ovf *ovf;
    const struct mull_ovf_system *system;
    struct mull_appliance *a;
    struct mull_error *err;
};

static bool same(const char *a, const char *b)
{
    return a && !strcasecmp(a, b);
}

static int no_memory(struct reader *r)
{
    return mull_fail(r->err, ENOMEM, "%s: out of memory", r->ovf->what);
}

static const struct mull_ovf_item *item_of(const struct reader *r, const char *id)
{
    for (uint32_t i = 0; id && i < r->system->item_count; i++)
        if (!strcmp(r->system->item[i].id, id))
            return &r->system->item[i];
    return NULL;
}

static const char *name_of(const struct mull_ovf_item *item)
{
    return item->name && *item->name ? item->name : item->id;
}

static int small_number(const char *text, int without)
{
    if (!text || !isdigit((unsigned char)*text) || strlen(text) > 3)
        return without;
    int n = atoi(text);
    return n <= 255 ? n : without;
}

/* ---- Drives ---- */

/* How many controllers of its kind stand before it: writers often leave the address out. */
static int controller_number(const struct reader *r, const struct mull_ovf_item *controller,
                             bool (*kin)(const struct mull_ovf_item *))
{
    int before = 0;
    for (const struct mull_ovf_item *i = r->system->item; i != controller; i++)
        before += kin(i);
    int said = small_number(controller->address, -1);
    return said >= 0 && said < 4 ? said : before;
}

static bool is_ide(const struct mull_ovf_item *item)
{
    return item->type == MULL_OVF_IDE;
}

static bool is_scsi(const struct mull_ovf_item *item)
{
    return item->type == MULL_OVF_SCSI;
}

static bool has(const char *text, const char *word)
{
    return text && strcasestr(text, word);
}

static bool is_nvme(const struct mull_ovf_item *item)
{
    return item->type == MULL_OVF_STORAGE && has(item->subtype, "nvme");
}

static bool is_sata(const struct mull_ovf_item *item)
{
    return item->type == MULL_OVF_STORAGE &&
           (has(item->subtype, "ahci") || has(item->subtype, "sata"));
}

/* Where a drive sits, by the controller it names. */
static int read_place(struct reader *r, const struct mull_ovf_item *item, enum mull_bus *bus,
                      char **adapter, int *controller, int *unit)
{
    const struct mull_ovf_item *parent = item_of(r, item->parent);
    const char *subtype = NULL;
    *bus = MULL_BUS_VIRTIO;
    *controller = *unit = -1;
    if (!parent) {
        mull_report_add(&r->a->report, MULL_NOTE_CHANGED, name_of(item),
                        "is on no controller; virtio is taken");
        return 0;
    }
    *unit = small_number(item->place, -1);
    if (is_ide(parent)) {
        *bus = MULL_BUS_IDE;
        *controller = controller_number(r, parent, is_ide);
    } else if (is_nvme(parent)) {
        *bus = MULL_BUS_NVME;
        *controller = controller_number(r, parent, is_nvme);
    } else if (is_sata(parent)) {
        *bus = MULL_BUS_SATA;
        *controller = controller_number(r, parent, is_sata);
    } else if (is_scsi(parent)) {
        *controller = controller_number(r, parent, is_scsi);
        *bus = MULL_BUS_SCSI;
        if (same(parent->subtype, "VirtualSCSI") || same(parent->subtype, "pvscsi"))
            *bus = MULL_BUS_PVSCSI;
        else if (same(parent->subtype, "lsilogicsas") || same(parent->subtype, "lsisas1068"))
            subtype = "lsisas1068";
        else if (same(parent->subtype, "buslogic"))
            subtype = "buslogic";
        else if (!same(parent->subtype, "virtio-scsi"))
            subtype = "lsilogic";
    } else {
        mull_report_add(&r->a->report, MULL_NOTE_CHANGED, name_of(item),
                        "is on a controller of type %u (%.60s); virtio is taken", parent->type,
                        parent->subtype ? parent->subtype : "");
        *unit = -1;
    }
    return subtype && appliance_set(adapter, subtype) ? no_memory(r) : 0;
}

/* Image formats by the URIs of DiskSection; what is not here is told from the content. */
static const char *format_of(const char *uri)
{
    if (has(uri, "vmdk"))
        return "vmdk";
    return NULL;
}

static int set_file(struct reader *r, const char *id, struct mull_appliance_file *out)
{
    const struct mull_ovf_file *f = mull_ovf_file(r->ovf, id);
    if (!f)
        return mull_fail(r->err, EINVAL, "%s: there is no file '%.100s' in the References",
                         r->ovf->what, id);
    out->gzip = f->gzip;
    out->chunk = f->chunk;
    out->size = f->has_size ? f->size : 0;
    return appliance_set(&out->name, f->href) ? no_memory(r) : 0;
}

/* "ovf:/disk/vmdisk1", "/disk/vmdisk1" (1.0), "ovf:/file/file2". */
static const char *resource(const char *text, const char *kind)
{
    if (!text)
        return NULL;
    if (!strncmp(text, "ovf:", 4))
        text += 4;
    size_t n = strlen(kind);
    return *text == '/' && !strncmp(text + 1, kind, n) && text[n + 1] == '/' ? text + n + 2 : NULL;
}

static int read_disk(struct reader *r, const struct mull_ovf_item *item)
{
    const char *disk_id = resource(item->host_resource, "disk");
    const char *file_id = resource(item->host_resource, "file");
    const struct mull_ovf_disk *d = disk_id ? mull_ovf_disk(r->ovf, disk_id) : NULL;
    if (!d && !file_id)
        return mull_fail(r->err, EINVAL, "%s: line %u: disk '%.60s' has no '%.60s'", r->ovf->what,
                         item->node->line, name_of(item),
                         item->host_resource ? item->host_resource : "HostResource");
    if (d && d->parent)
        return mull_fail(r->err, ENOTSUP,
                         "%s: disk '%.60s' is a difference to '%.60s'; export it whole",
                         r->ovf->what, d->id, d->parent);
    struct mull_disk_config *disk = appliance_add_disk(r->a, r->ovf->what, r->err);
    if (!disk)
        return -E2BIG;
    struct mull_appliance_file *file = &r->a->disk[r->a->config.disk_count - 1];
    int ret = read_place(r, item, &disk->bus, &disk->adapter, &disk->controller, &disk->unit);
    if (!ret && d) {
        file->capacity = d->capacity;
        file->format = format_of(d->format);
        file_id = d->file;
    }
    return !ret && file_id ? set_file(r, file_id, file) : ret;
}

static int read_cdrom(struct reader *r, const struct mull_ovf_item *item)
{
    struct mull_cdrom_config *cdrom = appliance_add_cdrom(r->a, r->ovf->what, r->err);
    if (!cdrom)
        return -E2BIG;
    struct mull_appliance_file *file = &r->a->cdrom[r->a->config.cdrom_count - 1];
    int ret = read_place(r, item, &cdrom->bus, &cdrom->adapter, &cdrom->controller, &cdrom->unit);
    const char *id = resource(item->host_resource, "file");
    const char *disk_id = resource(item->host_resource, "disk");
    const struct mull_ovf_disk *d = disk_id ? mull_ovf_disk(r->ovf, disk_id) : NULL;
    if (!id && d)
        id = d->file;
    return !ret && id ? set_file(r, id, file) : ret;
}

/* ---- Other hardware ---- */

static int read_network(struct reader *r, const struct mull_ovf_item *item)
{
    struct mull_network_config *net = appliance_add_network(r->a, r->ovf->what, r->err);
    if (!net)
        return -E2BIG;
    const char *type = item->subtype ? item->subtype : "";
    net->kind = item->detached ? MULL_NETWORK_NONE : MULL_NETWORK_USER;
    if (has(type, "vmxnet3"))
        net->model = MULL_NIC_VMXNET3;
    else if (has(type, "e1000e"))
        net->model = MULL_NIC_E1000E;
    else if (has(type, "e1000"))
        net->model = MULL_NIC_E1000;
    else if (has(type, "pcnet"))
        net->model = MULL_NIC_PCNET;
    else if (has(type, "virtio"))
        net->model = MULL_NIC_VIRTIO;
    else
        mull_report_add(&r->a->report, MULL_NOTE_CHANGED, name_of(item),
                        "network card %.60s becomes virtio", *type ? type : "of no type");
    char mac[18];
    const char *said = item->address;
    if (said && strlen(said) == 12) { /* without colons (VirtualBox) */
        snprintf(mac, sizeof(mac), "%.2s:%.2s:%.2s:%.2s:%.2s:%.2s", said, said + 2, said + 4,
                 said + 6, said + 8, said + 10);
        said = mac;
    }
    if (said && *said) {
        net->has_mac = !mull_mac_parse(said, net->mac);
        if (!net->has_mac)
            mull_report_add(&r->a->report, MULL_NOTE_LOST, name_of(item),
                            "'%.40s' is no unicast MAC address", said);
    }
    return item->connection && appliance_set(&net->name, item->connection) ? no_memory(r) : 0;
}

static int read_cpus(struct reader *r, const struct mull_ovf_item *item)
{
    if (!item->has_quantity || !item->quantity || item->quantity > 4096)
        return mull_fail(r->err, EINVAL, "%s: line %u: a number of processors we cannot use",
                         r->ovf->what, item->node->line);
    r->a->config.cpus = (unsigned)item->quantity;
    const char *cores = mull_xml_child_text(item->node, "CoresPerSocket");
    if (cores)
        appliance_set_cores(&r->a->config, (unsigned)small_number(cores, 0));
    return 0;
}

static int read_memory(struct reader *r, const struct mull_ovf_item *item)
{
    if (!item->has_quantity || !item->quantity)
        return mull_fail(r->err, EINVAL, "%s: line %u: an amount of memory we cannot use",
                         r->ovf->what, item->node->line);
    r->a->config.memory = (item->quantity + 4095) & ~UINT64_C(4095);
    return 0;
}

static int read_graphics(struct reader *r, const struct mull_ovf_item *item)
{
    const char *model = has(item->subtype, "vmware") || !item->subtype ? "vmware" : item->subtype;
    for (uint32_t i = 0; i < r->system->setting_count; i++) {
        const struct mull_ovf_setting *s = &r->system->setting[i];
        if (s->item != item->node)
            continue;
        if (!strcmp(s->key, "videoRamSizeInKB"))
            r->a->config.video.memory = strtoull(s->value, NULL, 10) % (1u << 30) << 10;
        if (!strcmp(s->key, "numDisplays"))
            r->a->config.video.heads = (unsigned)small_number(s->value, 0) % 65;
    }
    return appliance_set(&r->a->config.video.model, model) ? no_memory(r) : 0;
}

static int read_usb(struct reader *r, const struct mull_ovf_item *item)
{
    const char *now = r->a->config.usb;
    const char *version = has(item->subtype, "xhci")   ? "3.0"
                          : has(item->subtype, "ehci") ? "2.0"
                                                       : "1.1";
    if (now && strcmp(now, version) >= 0)
        return 0;
    return appliance_set(&r->a->config.usb, version) ? no_memory(r) : 0;
}

static int read_sound(struct reader *r, const struct mull_ovf_item *item)
{
    const char *model = has(item->subtype, "hda") || has(item->subtype, "hdaudio") ? "hdaudio"
                        : has(item->subtype, "soundblaster")                       ? "sb16"
                                                                                   : "es1371";
    return appliance_set(&r->a->config.sound, model) ? no_memory(r) : 0;
}

static int read_serial(struct reader *r, const struct mull_ovf_item *item)
{
    /* What it is connected to is ExtraConfig's, if it is said at all. */
    for (uint32_t i = 0; i < r->system->setting_count; i++)
        if (!strncasecmp(r->system->setting[i].key, "serial", 6))
            return 0;
    struct mull_console_config *console = appliance_add_console(r->a);
    if (!console)
        mull_report_add(&r->a->report, MULL_NOTE_LOST, name_of(item),
                        "more serial ports than a machine has");
    return 0;
}

static int read_item(struct reader *r, const struct mull_ovf_item *item)
{
    switch (item->type) {
    case MULL_OVF_PROCESSOR:
        return read_cpus(r, item);
    case MULL_OVF_MEMORY:
        return read_memory(r, item);
    case MULL_OVF_ETHERNET:
        return read_network(r, item);
    case MULL_OVF_CD:
    case MULL_OVF_DVD:
        return read_cdrom(r, item);
    case MULL_OVF_DISK:
        return read_disk(r, item);
    case MULL_OVF_SERIAL:
        return read_serial(r, item);
    case MULL_OVF_USB:
        return read_usb(r, item);
    case MULL_OVF_GRAPHICS:
        return read_graphics(r, item);
    case MULL_OVF_SOUND:
        return read_sound(r, item);
    case MULL_OVF_IDE:
    case MULL_OVF_SCSI:
        return 0; /* its drives name it */
    case MULL_OVF_STORAGE:
        if (is_nvme(item) || is_sata(item))
            return 0;
        break;
    case MULL_OVF_OTHER:
        if (has(item->subtype, "tpm")) {
            r->a->config.tpm = true;
            return 0;
        }
        break;
    default:
        break;
    }
    if (item->required && item->type != MULL_OVF_FLOPPY && item->type != MULL_OVF_PARALLEL &&
        mull_xml_attribute(item->node, "required"))
        return mull_fail(r->err, ENOTSUP,
                         "%s: line %u: '%.60s' (type %u) is required and a machine has none",
                         r->ovf->what, item->node->line, name_of(item), item->type);
    mull_report_add(&r->a->report, MULL_NOTE_LOST, name_of(item),
                    "a device of type %u (%.60s), which a machine does not have", item->type,
                    item->subtype       ? item->subtype
                    : item->description ? item->description
                                        : "-");
    return 0;
}

/* ---- Settings of VMware's ---- */

static int read_settings(struct reader *r)
{
    struct mull_vmx vmx = {0};
    int ret = 0;
    for (uint32_t i = 0; i < r->system->setting_count && !ret; i++) {
        const struct mull_ovf_setting *s = &r->system->setting[i];
        if (!strcmp(s->key, "firmware"))
            ret = mull_vmx_set(&vmx, "firmware", s->value);
        else if (!strcmp(s->key, "bootOptions.efiSecureBootEnabled"))
            ret = mull_vmx_set(&vmx, "uefi.secureBoot.enabled", s->value);
        else if (strstr(s->item->name, "Section")) /* not those of a single device */
            ret = mull_vmx_set(&vmx, s->key, s->value);
    }
    if (!ret && !mull_vmx_get(&vmx, "firmware"))
        ret = mull_vmx_set(&vmx, "firmware", "bios");
    if (!ret)
        ret = appliance_vmx_settings(r->a, &vmx, r->err);
    unsigned kept = 0;
    for (uint32_t i = 0; i < vmx.count && !ret; i++) {
        if (vmx.entry[i].used)
            continue;
        kept++;
        ret = appliance_keep_vmx(&r->a->config, vmx.entry[i].name, vmx.entry[i].value);
    }
    if (kept)
        mull_report_add(&r->a->report, MULL_NOTE_KEPT, "VMware", "%u settings of its own", kept);
    mull_vmx_free(&vmx);
    return ret == -ENOMEM ? no_memory(r) : ret;
}

/* ---- Product, properties, licences ---- */

static void put(json_t *object, const char *key, const char *value)
{
    if (value && *value)
        json_object_set_new(object, key, json_string(value));
}

static int read_products(struct reader *r)
{
    const struct mull_ovf_system *s = r->system;
    json_t *all = json_object(), *products = json_array(), *properties = json_array();
    for (uint32_t i = 0; i < s->product_count; i++) {
        const struct mull_ovf_product *p = &s->product[i];
        json_t *o = json_object();
        put(o, "class", p->class);
        put(o, "instance", p->instance);
        put(o, "name", p->name);
        put(o, "vendor", p->vendor);
        put(o, "version", p->version);
        put(o, "full_version", p->full_version);
        put(o, "url", p->url);
        put(o, "vendor_url", p->vendor_url);
        json_array_append_new(products, o);
    }
    for (uint32_t i = 0; i < s->property_count; i++) {
        const struct mull_ovf_property *p = &s->property[i];
        json_t *o = json_object();
        put(o, "class", p->class);
        put(o, "instance", p->instance);
        put(o, "key", p->key);
        put(o, "type", p->type);
        put(o, "qualifiers", p->qualifiers);
        put(o, "label", p->label);
        put(o, "description", p->description);
        put(o, "category", p->category);
        put(o, "value", p->value);
        if (p->configurable)
            json_object_set_new(o, "configurable", json_true());
        if (p->password)
            json_object_set_new(o, "password", json_true());
        json_array_append_new(properties, o);
    }
    json_t *licences = json_array();
    for (uint32_t i = 0; i < s->licence_count; i++)
        json_array_append_new(licences, json_string(s->licence[i]));
    if (json_array_size(products))
        json_object_set(all, "products", products);
    if (json_array_size(properties))
        json_object_set(all, "properties", properties);
    if (json_array_size(licences))
        json_object_set(all, "licences", licences);
    put(all, "transport", s->transport);
    json_decref(products);
    json_decref(properties);
    json_decref(licences);
    if (json_object_size(all))
        r->a->config.appliance = all;
    else
        json_decref(all);
    return 0;
}

static int read_licences(struct reader *r)
{
    r->a->licence = calloc(r->system->licence_count + 1, sizeof(*r->a->licence));
    if (!r->a->licence)
        return no_memory(r);
    for (uint32_t i = 0; i < r->system->licence_count; i++) {
        if (!(r->a->licence[i] = strdup(r->system->licence[i])))
            return no_memory(r);
        r->a->licence_count++;
    }
    return 0;
}

static int read_names(struct reader *r)
{
    const struct mull_ovf_system *s = r->system;
    struct mull_machine_config *c = &r->a->config;
    const char *title = s->name && *s->name ? s->name : s->id ? s->id : r->ovf->what;
    char *plain = mull_machine_name(title), os[64];
    int ret = plain ? appliance_set(&c->name, plain) : -ENOMEM;
    if (!ret && strcmp(title, plain))
        ret = appliance_keep_vmx(c, "displayName", title);
    free(plain);
    if (!ret)
        ret = appliance_set(&c->annotation, s->annotation);
    const char *known = NULL;
    if (s->os_type && strlen(s->os_type) < 64) {
        appliance_os_from_vim(s->os_type, os);
        known = os;
    } else if (s->os_id) {
        known = appliance_os_from_cim(s->os_id);
    }
    if (!ret && known)
        ret = appliance_set(&c->os, known);
    else if (!ret && s->os_id)
        mull_report_add(&r->a->report, MULL_NOTE_LOST, "operating system", "type %u (%.60s)",
                        s->os_id, s->os_description ? s->os_description : "");
    /* Its guest is made for VMware, and runs open-vm-tools more often than not. */
    c->vmware_tools = r->ovf->vmware && s->hardware && !strncmp(s->hardware, "vmx-", 4);
    /* "vmx-19": VMware's hardware version. */
    if (!ret && s->hardware && !strncmp(s->hardware, "vmx-", 4) && s->hardware[4] &&
        strspn(s->hardware + 4, "0123456789") == strlen(s->hardware + 4))
        ret = appliance_keep_vmx(c, "virtualHW.version",
                                 s->hardware[4] == '0' ? s->hardware + 5 : s->hardware + 4);
    if (s->machine_uuid)
        mull_uuid_parse(s->machine_uuid, c->uuid);
    return ret ? no_memory(r) : 0;
}

int mull_appliance_from_ovf(const struct mull_ovf *ovf, uint32_t system, struct mull_appliance *out,
                            struct mull_error *err)
{
    struct reader r = {.ovf = ovf, .system = &ovf->system[system], .a = out, .err = err};
    if (mull_appliance_init(out))
        return no_memory(&r);
    int ret = read_names(&r);
    if (!ret && !r.system->item_count)
        ret = mull_fail(err, EINVAL, "%s: describes no hardware", ovf->what);
    for (uint32_t i = 0; i < r.system->item_count && !ret; i++)
        ret = read_item(&r, &r.system->item[i]);
    if (!ret)
        ret = read_settings(&r);
    if (!ret)
        ret = read_products(&r);
    if (!ret)
        ret = read_licences(&r);
    if (out->config.cpus > 0 && out->config.cores)
        appliance_set_cores(&out->config, out->config.cores);
    for (uint32_t i = 0; i < ovf->unknown_count; i++)
        mull_report_add(&out->report, MULL_NOTE_LOST, ovf->unknown[i],
                        "a section of a kind that we do not know");
    return ret;
}
