/*
 * From a machine's description to an OVF 1.1 descriptor (DSP0243 1.1.0) as VMware writes and reads
 * them, or to an OVF 2 descriptor (DSP0243 2.1.1). Elements of an Item are in the alphabetical
 * order that the schema wants.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "machine/appliance/internal.h"

struct writer {
    const struct mull_appliance_write *w;
    struct mull_xml_writer x;
    unsigned next; /* InstanceID */
    struct placement place;
    unsigned controller[4][4]; /* InstanceID of each, 0: none yet */
};

/* What an Item says; NULL and 0: nothing. */
struct item {
    unsigned type;
    const char *subtype, *name, *description, *address, *host_resource, *connection, *units;
    unsigned id, parent, place;
    bool has_place, detached;
    uint64_t quantity;
};

/* OVF 2 has elements and namespaces of their own for drives and network cards (DSP0243 2.1.1, 8.1).
 */
static const struct kind {
    const char *element, *prefix;
} kinds[] = {{"Item", "rasd"}, {"StorageItem", "sasd"}, {"EthernetPortItem", "epasd"}};

static const struct kind *kind_of(const struct writer *o, unsigned type)
{
    if (o->w->ovf_version < 2)
        return &kinds[0];
    return &kinds[type == MULL_OVF_DISK || type == MULL_OVF_CD ? 1
                  : type == MULL_OVF_ETHERNET                  ? 2
                                                               : 0];
}

static void put(struct writer *o, const struct kind *kind, const char *name, const char *value)
{
    char full[64];
    snprintf(full, sizeof(full), "%s:%s", kind->prefix, name);
    mull_xml_element(&o->x, full, value);
}

static void put_number(struct writer *o, const struct kind *kind, const char *name, uint64_t value)
{
    char text[24];
    snprintf(text, sizeof(text), "%llu", (unsigned long long)value);
    put(o, kind, name, text);
}

static void put_item(struct writer *o, const struct item *i)
{
    const struct kind *k = kind_of(o, i->type);
    put(o, k, "Address", i->address);
    if (i->has_place)
        put_number(o, k, "AddressOnParent", i->place);
    put(o, k, "AllocationUnits", i->units);
    if (i->connection || i->detached)
        put(o, k, "AutomaticAllocation", i->detached ? "false" : "true");
    put(o, k, "Connection", i->connection);
    put(o, k, "Description", i->description);
    put(o, k, "ElementName", i->name);
    put(o, k, "HostResource", i->host_resource);
    put_number(o, k, "InstanceID", i->id);
    if (i->parent)
        put_number(o, k, "Parent", i->parent);
    put(o, k, "ResourceSubType", i->subtype);
    put_number(o, k, "ResourceType", i->type);
    if (i->quantity)
        put_number(o, k, "VirtualQuantity", i->quantity);
}

static void config(struct writer *o, const char *element, const char *key, const char *value)
{
    mull_xml_start(&o->x, element);
    mull_xml_put(&o->x, "ovf:required", "false");
    mull_xml_put(&o->x, "vmw:key", key);
    mull_xml_put(&o->x, "vmw:value", value);
    mull_xml_end(&o->x, element);
}

static void item(struct writer *o, struct item i)
{
    if (!i.id)
        i.id = o->next++;
    mull_xml_start(&o->x, kind_of(o, i.type)->element);
    put_item(o, &i);
    mull_xml_end(&o->x, kind_of(o, i.type)->element);
}

/* ---- What stands before the system ---- */

static const char *format_uri(const char *format)
{
    if (!strcmp(format, "vmdk"))
        return "http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized";
    if (!strcmp(format, "qcow2"))
        return "http://www.gnome.org/~markmc/qcow-image-format.html";
    if (!strcmp(format, "vhd"))
        return "http://go.microsoft.com/fwlink/?LinkId=137171";
    return NULL;
}

static void put_references(struct writer *o)
{
    const struct mull_machine_config *c = o->w->config;
    mull_xml_start(&o->x, "References");
    for (unsigned i = 0; i < c->disk_count + c->cdrom_count; i++) {
        bool cdrom = i >= c->disk_count;
        const struct mull_appliance_disk *d =
            cdrom ? &o->w->cdrom[i - c->disk_count] : &o->w->disk[i];
        char id[32];
        if (!d->name)
            continue;
        snprintf(id, sizeof(id), "file%u", i + 1);
        mull_xml_start(&o->x, "File");
        mull_xml_put(&o->x, "ovf:href", d->name);
        mull_xml_put(&o->x, "ovf:id", id);
        mull_xml_put_number(&o->x, "ovf:size", d->size);
        mull_xml_end(&o->x, "File");
    }
    mull_xml_end(&o->x, "References");
}

static void put_disks(struct writer *o)
{
    const struct mull_machine_config *c = o->w->config;
    if (!c->disk_count)
        return;
    mull_xml_start(&o->x, "DiskSection");
    mull_xml_element(&o->x, "Info", "Virtual disk information");
    for (unsigned i = 0; i < c->disk_count; i++) {
        const struct mull_appliance_disk *d = &o->w->disk[i];
        char id[32], file[32];
        snprintf(id, sizeof(id), "vmdisk%u", i + 1);
        snprintf(file, sizeof(file), "file%u", i + 1);
        mull_xml_start(&o->x, "Disk");
        mull_xml_put_number(&o->x, "ovf:capacity", d->capacity);
        mull_xml_put(&o->x, "ovf:capacityAllocationUnits", "byte");
        mull_xml_put(&o->x, "ovf:diskId", id);
        mull_xml_put(&o->x, "ovf:fileRef", file);
        mull_xml_put(&o->x, "ovf:format", format_uri(d->format));
        if (d->populated)
            mull_xml_put_number(&o->x, "ovf:populatedSize", d->populated);
        mull_xml_end(&o->x, "Disk");
    }
    mull_xml_end(&o->x, "DiskSection");
}

static const char *network_name(const struct mull_network_config *net)
{
    return net->name ? net->name : net->kind == MULL_NETWORK_TAP ? "bridged" : "nat";
}

static void put_networks(struct writer *o)
{
    const struct mull_machine_config *c = o->w->config;
    if (!c->network_count)
        return;
    mull_xml_start(&o->x, "NetworkSection");
    mull_xml_element(&o->x, "Info", "The list of logical networks");
    for (unsigned i = 0; i < c->network_count; i++) {
        const char *name = network_name(&c->network[i]);
        bool again = false;
        for (unsigned j = 0; j < i; j++)
            again |= !strcmp(name, network_name(&c->network[j]));
        if (again)
            continue;
        mull_xml_start(&o->x, "Network");
        mull_xml_put(&o->x, "ovf:name", name);
        mull_xml_element(&o->x, "Description", name);
        mull_xml_end(&o->x, "Network");
    }
    mull_xml_end(&o->x, "NetworkSection");
}

/* ---- Sections of the system ---- */

static const char *text_of(json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

static bool same_text(json_t *a, json_t *b, const char *key)
{
    const char *x = text_of(a, key), *y = text_of(b, key);
    return x && y ? !strcmp(x, y) : x == y;
}

static void put_property(struct writer *o, json_t *p)
{
    mull_xml_start(&o->x, "Property");
    mull_xml_put(&o->x, "ovf:key", text_of(p, "key"));
    mull_xml_put(&o->x, "ovf:type", text_of(p, "type") ? text_of(p, "type") : "string");
    mull_xml_put(&o->x, "ovf:qualifiers", text_of(p, "qualifiers"));
    if (json_is_true(json_object_get(p, "password")))
        mull_xml_put(&o->x, "ovf:password", "true");
    if (json_is_true(json_object_get(p, "configurable")))
        mull_xml_put(&o->x, "ovf:userConfigurable", "true");
    mull_xml_put(&o->x, "ovf:value", text_of(p, "value"));
    mull_xml_element(&o->x, "Label", text_of(p, "label"));
    mull_xml_element(&o->x, "Description", text_of(p, "description"));
    mull_xml_end(&o->x, "Property");
}

static void put_product(struct writer *o, json_t *product)
{
    json_t *p;
    size_t i;
    const char *category = NULL;
    mull_xml_start(&o->x, "ProductSection");
    mull_xml_put(&o->x, "ovf:class", text_of(product, "class"));
    mull_xml_put(&o->x, "ovf:instance", text_of(product, "instance"));
    mull_xml_element(&o->x, "Info", "Information about the installed software");
    mull_xml_element(&o->x, "Product", text_of(product, "name"));
    mull_xml_element(&o->x, "Vendor", text_of(product, "vendor"));
    mull_xml_element(&o->x, "Version", text_of(product, "version"));
    mull_xml_element(&o->x, "FullVersion", text_of(product, "full_version"));
    mull_xml_element(&o->x, "ProductUrl", text_of(product, "url"));
    mull_xml_element(&o->x, "VendorUrl", text_of(product, "vendor_url"));
    json_array_foreach(json_object_get(o->w->config->appliance, "properties"), i, p)
    {
        if (!same_text(p, product, "class") || !same_text(p, product, "instance") ||
            !text_of(p, "key"))
            continue;
        const char *next = text_of(p, "category");
        if (next && (!category || strcmp(category, next)))
            mull_xml_element(&o->x, "Category", next);
        category = next;
        put_property(o, p);
    }
    mull_xml_end(&o->x, "ProductSection");
}

static void put_appliance(struct writer *o)
{
    json_t *appliance = o->w->config->appliance, *value;
    size_t i;
    json_array_foreach(json_object_get(appliance, "products"), i, value) put_product(o, value);
    json_array_foreach(json_object_get(appliance, "licences"), i, value)
    {
        mull_xml_start(&o->x, "EulaSection");
        mull_xml_element(&o->x, "Info", "The licence of the appliance");
        mull_xml_element(&o->x, "License",
                         json_string_value(value) ? json_string_value(value) : "");
        mull_xml_end(&o->x, "EulaSection");
    }
}

static void put_os(struct writer *o)
{
    const char *os = o->w->config->os ? o->w->config->os : "other-64";
    char vim[64];
    appliance_os_to_vim(os, vim);
    mull_xml_start(&o->x, "OperatingSystemSection");
    mull_xml_put_number(&o->x, "ovf:id", appliance_os_to_cim(os));
    mull_xml_put(&o->x, "vmw:osType", vim);
    mull_xml_element(&o->x, "Info", "The kind of installed guest operating system");
    mull_xml_element(&o->x, "Description", os);
    mull_xml_end(&o->x, "OperatingSystemSection");
}

/* ---- Hardware ---- */

static void put_cpus_and_memory(struct writer *o)
{
    const struct mull_machine_config *c = o->w->config;
    char name[64];
    snprintf(name, sizeof(name), "%u virtual CPU(s)", c->cpus);
    mull_xml_start(&o->x, "Item");
    struct item cpus = {.type = MULL_OVF_PROCESSOR,
                        .name = name,
                        .description = "Number of Virtual CPUs",
                        .units = "hertz * 10^6",
                        .id = o->next++,
                        .quantity = c->cpus};
    put_item(o, &cpus);
    if (c->cores) {
        mull_xml_start(&o->x, "vmw:CoresPerSocket");
        mull_xml_put(&o->x, "ovf:required", "false");
        char cores[16];
        snprintf(cores, sizeof(cores), "%u", c->cores * (c->threads ? c->threads : 1));
        mull_xml_text(&o->x, cores);
        mull_xml_end(&o->x, "vmw:CoresPerSocket");
    }
    mull_xml_end(&o->x, "Item");
    snprintf(name, sizeof(name), "%lluMB of memory", (unsigned long long)c->memory >> 20);
    item(o, (struct item){.type = MULL_OVF_MEMORY,
                          .name = name,
                          .description = "Memory Size",
                          .units = "byte * 2^20",
                          .quantity = c->memory >> 20});
}

static void put_controller(struct writer *o, const struct place *p)
{
    static const struct {
        unsigned type;
        const char *name, *subtype;
    } controllers[] = {
        [PLACE_SCSI] = {MULL_OVF_SCSI, "SCSI controller", NULL},
        [PLACE_SATA] = {MULL_OVF_STORAGE, "SATA controller", "vmware.sata.ahci"},
        [PLACE_NVME] = {MULL_OVF_STORAGE, "NVMe controller", "vmware.nvme.controller"},
        [PLACE_IDE] = {MULL_OVF_IDE, "IDE controller", NULL}};
    unsigned *id = &o->controller[p->family][p->controller];
    if (*id)
        return;
    *id = o->next++;
    char name[64], address[16];
    snprintf(name, sizeof(name), "%s %u", controllers[p->family].name, p->controller);
    snprintf(address, sizeof(address), "%u", p->controller);
    const char *subtype = controllers[p->family].subtype;
    if (p->family == PLACE_SCSI)
        subtype = !strcmp(p->adapter, "pvscsi")       ? "VirtualSCSI"
                  : !strcmp(p->adapter, "lsisas1068") ? "lsilogicsas"
                                                      : p->adapter;
    item(o, (struct item){.type = controllers[p->family].type,
                          .name = name,
                          .description = controllers[p->family].name,
                          .subtype = subtype,
                          .address = address,
                          .id = *id});
}

static void put_controllers(struct writer *o)
{
    const struct mull_machine_config *c = o->w->config;
    for (unsigned i = 0; i < c->disk_count; i++)
        put_controller(o, &o->place.disk[i]);
    for (unsigned i = 0; i < c->cdrom_count; i++)
        put_controller(o, &o->place.cdrom[i]);
}

static void put_drives(struct writer *o)
{
    const struct mull_machine_config *c = o->w->config;
    unsigned total = c->disk_count + c->cdrom_count;
    for (unsigned i = 0; i < total; i++) {
        bool cdrom = i >= c->disk_count;
        const struct place *p = cdrom ? &o->place.cdrom[i - c->disk_count] : &o->place.disk[i];
        const char *file = cdrom ? o->w->cdrom[i - c->disk_count].name : NULL;
        char name[64], resource[64];
        if (cdrom) {
            snprintf(name, sizeof(name), "CD/DVD drive %u", i - c->disk_count + 1);
            snprintf(resource, sizeof(resource), "ovf:/file/file%u", i + 1);
        } else {
            snprintf(name, sizeof(name), "Hard disk %u", i + 1);
            snprintf(resource, sizeof(resource), "ovf:/disk/vmdisk%u", i + 1);
        }
        item(o, (struct item){.type = cdrom ? MULL_OVF_CD : MULL_OVF_DISK,
                              .subtype = cdrom ? "vmware.cdrom.iso" : NULL,
                              .name = name,
                              .host_resource = cdrom && !file ? NULL : resource,
                              .detached = cdrom && !file,
                              .parent = o->controller[p->family][p->controller],
                              .place = p->unit,
                              .has_place = true});
    }
}

static void put_cards(struct writer *o)
{
    static const char *const models[MULL_NICS] = {"VmxNet3", "E1000e",  "VmxNet3",
                                                  "E1000",   "PCNet32", "E1000"};
    const struct mull_machine_config *c = o->w->config;
    for (unsigned i = 0; i < c->network_count; i++) {
        const struct mull_network_config *net = &c->network[i];
        char name[64], mac[18];
        snprintf(name, sizeof(name), "Network adapter %u", i + 1);
        snprintf(mac, sizeof(mac), "%02x:%02x:%02x:%02x:%02x:%02x", net->mac[0], net->mac[1],
                 net->mac[2], net->mac[3], net->mac[4], net->mac[5]);
        if (net->model == MULL_NIC_VIRTIO || net->model == MULL_NIC_RTL8139)
            mull_report_add(o->w->report, MULL_NOTE_CHANGED, name, "%s becomes %s",
                            mull_nic_names[net->model], models[net->model]);
        if (net->forward_count)
            mull_report_add(o->w->report, MULL_NOTE_LOST, name, "%u port forwardings",
                            net->forward_count);
        item(o, (struct item){.type = MULL_OVF_ETHERNET,
                              .subtype = models[net->model],
                              .name = name,
                              .address = net->has_mac ? mac : NULL,
                              .connection = network_name(net),
                              .detached = net->kind == MULL_NETWORK_NONE});
    }
}

/* A display adapter, USB and sound: not required of whoever imports. */
static void put_others(struct writer *o)
{
    const struct mull_machine_config *c = o->w->config;
    char text[32];
    if (c->video.model) {
        struct item card = {.type = MULL_OVF_GRAPHICS, .name = "Video card", .id = o->next++};
        mull_xml_start(&o->x, "Item");
        mull_xml_put(&o->x, "ovf:required", "false");
        put_item(o, &card);
        snprintf(text, sizeof(text), "%llu", (unsigned long long)c->video.memory >> 10);
        if (c->video.memory)
            config(o, "vmw:Config", "videoRamSizeInKB", text);
        snprintf(text, sizeof(text), "%u", c->video.heads);
        if (c->video.heads)
            config(o, "vmw:Config", "numDisplays", text);
        mull_xml_end(&o->x, "Item");
    }
    if (c->usb) {
        struct item usb = {.type = MULL_OVF_USB,
                           .name = "USB controller",
                           .subtype = *c->usb == '3'   ? "vmware.usb.xhci"
                                      : *c->usb == '2' ? "vmware.usb.ehci"
                                                       : "vmware.usb.uhci",
                           .id = o->next++};
        mull_xml_start(&o->x, "Item");
        mull_xml_put(&o->x, "ovf:required", "false");
        put_item(o, &usb);
        mull_xml_end(&o->x, "Item");
    }
    if (c->sound) {
        struct item sound = {.type = MULL_OVF_SOUND,
                             .name = "Sound card",
                             .subtype = !strcmp(c->sound, "hdaudio") ? "vmware.soundcard.hdaudio"
                                        : !strcmp(c->sound, "sb16")
                                            ? "vmware.soundcard.soundblaster16"
                                            : "vmware.soundcard.ensoniq1371",
                             .id = o->next++};
        mull_xml_start(&o->x, "Item");
        mull_xml_put(&o->x, "ovf:required", "false");
        put_item(o, &sound);
        mull_xml_end(&o->x, "Item");
    }
}

/* What OVF has no word for, as VMware's settings. */
static int put_settings(struct writer *o)
{
    static const char *const said[] = {"usb.", "ehci.", "usb_xhci.", "sound.", "svga.", NULL};
    struct mull_vmx vmx = {0}, all = {0};
    struct mull_report silent = {0};
    struct mull_appliance_write w = *o->w;
    const struct mull_machine_config *c = w.config;
    const char *key;
    json_t *value;
    config(o, "vmw:Config", "firmware",
           c->firmware && !strcmp(c->firmware, "uefi") ? "efi" : "bios");
    if (c->secure_boot)
        config(o, "vmw:Config", "bootOptions.efiSecureBootEnabled", "true");
    json_object_foreach(json_object_get(c->extra, "vmx"), key, value)
    {
        if (strcasecmp(key, "displayName") && strcasecmp(key, "virtualHW.version") &&
            json_is_string(value))
            config(o, "vmw:ExtraConfig", key, json_string_value(value));
    }
    if (c->vmware_tools)
        config(o, "vmw:ExtraConfig", APPLIANCE_VMX_TOOLS, "TRUE");
    int ret = appliance_put_settings(&w, &vmx);
    /* The boot order is one of the settings, too; the rest of @all is said by items. */
    w.report = &silent;
    if (!ret)
        ret = mull_appliance_to_vmx(&w, &all, NULL);
    for (uint32_t i = 0; i < all.count && !ret; i++)
        if (!strncmp(all.entry[i].name, "bios.", 5))
            ret = mull_vmx_set(&vmx, all.entry[i].name, all.entry[i].value);
    for (uint32_t i = 0; i < vmx.count && !ret; i++) {
        bool item_says = false;
        for (unsigned s = 0; said[s]; s++)
            item_says |= !strncmp(vmx.entry[i].name, said[s], strlen(said[s]));
        bool kept = json_object_get(json_object_get(c->extra, "vmx"), vmx.entry[i].name) != NULL;
        if (!item_says && !kept)
            config(o, "vmw:ExtraConfig", vmx.entry[i].name, vmx.entry[i].value);
    }
    mull_vmx_free(&vmx);
    mull_vmx_free(&all);
    mull_report_free(&silent);
    return ret;
}

static int put_hardware(struct writer *o)
{
    json_t *extra = json_object_get(o->w->config->extra, "vmx");
    const char *hardware = text_of(extra, "virtualHW.version");
    char type[32];
    snprintf(type, sizeof(type), "vmx-%.8s", hardware ? hardware : "13");
    mull_xml_start(&o->x, "VirtualHardwareSection");
    mull_xml_put(&o->x, "ovf:transport", text_of(o->w->config->appliance, "transport"));
    mull_xml_element(&o->x, "Info", "Virtual hardware requirements");
    mull_xml_start(&o->x, "System");
    mull_xml_element(&o->x, "vssd:ElementName", "Virtual Hardware Family");
    mull_xml_element_number(&o->x, "vssd:InstanceID", 0);
    mull_xml_element(&o->x, "vssd:VirtualSystemIdentifier", o->w->config->name);
    mull_xml_element(&o->x, "vssd:VirtualSystemType", type);
    mull_xml_end(&o->x, "System");
    /* In OVF 2: Item, then EthernetPortItem, then StorageItem (DSP8023). */
    put_cpus_and_memory(o);
    put_controllers(o);
    put_others(o);
    put_cards(o);
    put_drives(o);
    int ret = put_settings(o);
    mull_xml_end(&o->x, "VirtualHardwareSection");
    return ret;
}

static int put_envelope(struct writer *o)
{
    bool two = o->w->ovf_version >= 2;
    const char *own =
        two ? "http://schemas.dmtf.org/ovf/envelope/2" : "http://schemas.dmtf.org/ovf/envelope/1";
    const char *const spaces[][2] = {
        {"xmlns", own},
        {"xmlns:ovf", own},
        {"xmlns:rasd", "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/"
                       "CIM_ResourceAllocationSettingData"},
        {"xmlns:vssd", "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/"
                       "CIM_VirtualSystemSettingData"},
        {"xmlns:vmw", "http://www.vmware.com/schema/ovf"},
        {"xmlns:sasd", two ? "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/"
                             "CIM_StorageAllocationSettingData"
                           : NULL},
        {"xmlns:epasd", two ? "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/"
                              "CIM_EthernetPortAllocationSettingData"
                            : NULL},
    };
    const struct mull_machine_config *c = o->w->config;
    const char *title = text_of(json_object_get(c->extra, "vmx"), "displayName");
    mull_xml_start(&o->x, "Envelope");
    for (unsigned i = 0; i < sizeof(spaces) / sizeof(spaces[0]); i++)
        mull_xml_put(&o->x, spaces[i][0], spaces[i][1]);
    put_references(o);
    put_disks(o);
    put_networks(o);
    mull_xml_start(&o->x, "VirtualSystem");
    mull_xml_put(&o->x, "ovf:id", c->name);
    mull_xml_element(&o->x, "Info", "A virtual machine");
    char *plain = title ? mull_machine_name(title) : NULL;
    mull_xml_element(&o->x, "Name", plain && !strcmp(plain, c->name) ? title : c->name);
    free(plain);
    put_os(o);
    int ret = put_hardware(o);
    if (c->annotation) {
        mull_xml_start(&o->x, "AnnotationSection");
        mull_xml_element(&o->x, "Info", "A human-readable annotation");
        mull_xml_element(&o->x, "Annotation", c->annotation);
        mull_xml_end(&o->x, "AnnotationSection");
    }
    put_appliance(o);
    mull_xml_end(&o->x, "VirtualSystem");
    mull_xml_end(&o->x, "Envelope");
    return ret;
}

int mull_appliance_to_ovf(const struct mull_appliance_write *w, char **out, struct mull_error *err)
{
    struct writer o = {.w = w, .next = 1};
    size_t size;
    *out = NULL;
    int ret = appliance_place(w, &o.place, err);
    if (ret)
        return ret;
    FILE *file = open_memstream(out, &size);
    if (!file)
        return mull_fail(err, ENOMEM, "OVF: out of memory");
    mull_xml_begin(&o.x, file);
    ret = put_envelope(&o);
    bool broken = ferror(file);
    if (fclose(file) || broken)
        ret = -ENOMEM;
    if (ret) {
        free(*out);
        *out = NULL;
        return mull_fail(err, -ret, "OVF: %s", strerror(-ret));
    }
    return 0;
}
