/*
 * OVF descriptors (DMTF DSP0243, versions 1.0 to 2.1) as data: files, disks, networks and the
 * virtual hardware of each virtual system, as they are written. What a hardware item means for a
 * machine is not known here (machine/appliance). All strings belong to the parsed document.
 */
#ifndef MULL_IMAGE_OVF_OVF_H
#define MULL_IMAGE_OVF_OVF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/xml.h"

#define MULL_OVF_FILES_MAX 1024u
#define MULL_OVF_ITEMS_MAX 1024u

/* CIM_ResourceAllocationSettingData.ResourceType (DSP1041) as OVF uses it. */
enum mull_ovf_resource {
    MULL_OVF_OTHER = 1,
    MULL_OVF_PROCESSOR = 3,
    MULL_OVF_MEMORY = 4,
    MULL_OVF_IDE = 5,
    MULL_OVF_SCSI = 6,
    MULL_OVF_ETHERNET = 10,
    MULL_OVF_FLOPPY = 14,
    MULL_OVF_CD = 15,
    MULL_OVF_DVD = 16,
    MULL_OVF_DISK = 17,
    MULL_OVF_STORAGE = 20,
    MULL_OVF_SERIAL = 21,
    MULL_OVF_PARALLEL = 22,
    MULL_OVF_USB = 23,
    MULL_OVF_GRAPHICS = 24,
    MULL_OVF_SOUND = 35,
};

struct mull_ovf_file {
    const char *id, *href;
    bool has_size;
    uint64_t size;
    bool gzip;
    uint64_t chunk; /* bytes of each part, 0: one file */
};

struct mull_ovf_disk {
    const char *id, *file; /* file: id of a mull_ovf_file; NULL: an empty disk */
    const char *format;    /* URI */
    const char *parent;    /* id of another disk, or NULL */
    uint64_t capacity;     /* bytes */
};

struct mull_ovf_network {
    const char *name, *description;
};

/** A "key = value" of VMware's (vmw:Config, vmw:ExtraConfig). */
struct mull_ovf_setting {
    const char *key, *value;
    const struct mull_xml *item; /* the element it stands in */
};

struct mull_ovf_item {
    unsigned type;                                       /* enum mull_ovf_resource */
    const char *subtype, *id, *parent, *address, *place; /* place: AddressOnParent */
    const char *name, *description, *host_resource, *connection;
    uint64_t quantity; /* in bytes where the units say so */
    bool has_quantity;
    bool detached; /* AutomaticAllocation is false */
    bool required;
    const struct mull_xml *node;
};

struct mull_ovf_property {
    const char *class, *instance, *key, *type, *value, *label, *description, *category;
    const char *qualifiers;
    bool configurable, password;
};

struct mull_ovf_product {
    const char *class, *instance, *name, *vendor, *version, *full_version, *url, *vendor_url;
};

struct mull_ovf_configuration {
    const char *id, *label, *description;
    bool preferred;
};

struct mull_ovf_system {
    const char *id, *name, *annotation;
    unsigned os_id;                                    /* CIM_OperatingSystem.OsType */
    const char *os_type, *os_description, *os_version; /* os_type: VMware's */
    const char *hardware;                              /* vssd:VirtualSystemType */
    const char *transport;
    uint32_t item_count, setting_count, product_count, property_count, licence_count;
    struct mull_ovf_item *item;
    struct mull_ovf_setting *setting;
    struct mull_ovf_product *product;
    struct mull_ovf_property *property;
    const char **licence;
    const char *machine_uuid; /* VirtualBox's vbox:Machine, or NULL */
};

struct mull_ovf {
    struct mull_xml_document *document;
    const char *what;
    uint32_t file_count, disk_count, network_count, configuration_count, system_count;
    struct mull_ovf_file *file;
    struct mull_ovf_disk *disk;
    struct mull_ovf_network *network;
    struct mull_ovf_configuration *configuration;
    struct mull_ovf_system *system;
    bool vmware;            /* one of VMware's products says that it has made it */
    uint32_t unknown_count; /* sections we do not know, that may be ignored */
    const char **unknown;
};

/**
 * Parse a descriptor.
 *
 * @param what           its name, for messages; must outlive @out
 * @param configuration  id of the deployment option to take; NULL: the descriptor's default
 */
int mull_ovf_parse(const char *what, const void *text, size_t length, const char *configuration,
                   struct mull_ovf *out, struct mull_error *err);
void mull_ovf_free(struct mull_ovf *ovf);

const struct mull_ovf_file *mull_ovf_file(const struct mull_ovf *ovf, const char *id);
const struct mull_ovf_disk *mull_ovf_disk(const struct mull_ovf *ovf, const char *id);

/** "byte * 2^20" and the words of older writers as a factor; 0: not known (Annex C of DSP0004). */
uint64_t mull_ovf_units(const char *units);

#endif
