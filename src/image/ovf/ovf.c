/*
 * Reads OVF descriptors into structures. See ovf.h. Section and clause numbers are those of
 * DSP0243 2.1.1.
 */
#include "image/ovf/ovf.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "image/ovf/tar.h"

#define SYSTEMS_MAX 64u

struct reader {
    struct mull_ovf *ovf;
    const char *configuration;
    struct mull_error *err;
};

static int bad(struct reader *r, const struct mull_xml *node, const char *why)
{
    return mull_fail(r->err, EINVAL, "%s: line %u: %s: %s", r->ovf->what, node->line, node->name,
                     why);
}

/* One more entry of a list. */
static int grow(struct reader *r, void *list, uint32_t *count, size_t size, uint32_t max,
                const struct mull_xml *node)
{
    void **at = list;
    if (*count == max)
        return mull_fail(r->err, E2BIG, "%s: line %u: more than %u of %s", r->ovf->what, node->line,
                         max, node->name);
    void *grown = realloc(*at, (*count + 1) * size);
    if (!grown)
        return mull_fail(r->err, ENOMEM, "%s: out of memory", r->ovf->what);
    *at = grown;
    memset((char *)grown + *count * size, 0, size);
    (*count)++;
    return 0;
}

static bool number(const char *text, uint64_t *out)
{
    char *end;
    if (!text || *text < '0' || *text > '9')
        return false;
    errno = 0;
    *out = strtoull(text, &end, 10);
    return !errno && !*end;
}

static bool truth(const char *text, bool without)
{
    return text ? !strcasecmp(text, "true") || !strcmp(text, "1") : without;
}

uint64_t mull_ovf_units(const char *units)
{
    static const struct {
        const char *name;
        unsigned shift;
    } words[] = {{"bytes", 0},      {"byte", 0}, {"kilobytes", 10}, {"kb", 10},
                 {"megabytes", 20}, {"mb", 20},  {"gigabytes", 30}, {"gb", 30},
                 {"terabytes", 40}, {"tb", 40}};
    if (!units || !*units)
        return 1;
    for (unsigned i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        if (!strcasecmp(units, words[i].name))
            return UINT64_C(1) << words[i].shift;
    /* byte * 2^30, byte*10^9 (DSP0004, Annex C). */
    unsigned base = 0, power = 0;
    char star = 0;
    const char *p = units;
    if (strncasecmp(p, "byte", 4))
        return 0;
    p += 4 + strspn(p + 4, " ");
    if (sscanf(p, "%c %3u ^ %3u", &star, &base, &power) != 3 || star != '*')
        return 0;
    if (base == 2 && power < 60)
        return UINT64_C(1) << power;
    if (base != 10 || power > 18)
        return 0;
    uint64_t factor = 1;
    while (power--)
        factor *= 10;
    return factor;
}

/* ---- References, disks, networks (clauses 7.1, 9.1, 9.2) ---- */

static int read_file(struct reader *r, const struct mull_xml *node)
{
    struct mull_ovf *ovf = r->ovf;
    int ret = grow(r, &ovf->file, &ovf->file_count, sizeof(*ovf->file), MULL_OVF_FILES_MAX, node);
    if (ret)
        return ret;
    struct mull_ovf_file *f = &ovf->file[ovf->file_count - 1];
    const char *compression = mull_xml_attribute(node, "compression");
    const char *size = mull_xml_attribute(node, "size"), *chunk;
    const char *id = mull_xml_attribute(node, "id");
    f->href = mull_xml_attribute(node, "href");
    if (!id || !*id || !f->href)
        return bad(r, node, "needs an id and an href");
    f->id = NULL;
    if (mull_ovf_file(ovf, id))
        return mull_fail(r->err, EEXIST, "%s: line %u: two files have the id '%.100s'", ovf->what,
                         node->line, id);
    f->id = id;
    f->has_size = size != NULL;
    if (size && !number(size, &f->size))
        return bad(r, node, "its size is no number");
    if (compression && *compression && strcmp(compression, "identity")) {
        if (strcmp(compression, "gzip"))
            return bad(r, node, "is compressed by a method other than gzip");
        f->gzip = true;
    }
    if ((chunk = mull_xml_attribute(node, "chunkSize")) && (!number(chunk, &f->chunk) || !f->chunk))
        return bad(r, node, "its chunkSize is no number");
    return 0;
}

static int read_disk(struct reader *r, const struct mull_xml *node)
{
    struct mull_ovf *ovf = r->ovf;
    int ret = grow(r, &ovf->disk, &ovf->disk_count, sizeof(*ovf->disk), MULL_OVF_FILES_MAX, node);
    if (ret)
        return ret;
    struct mull_ovf_disk *d = &ovf->disk[ovf->disk_count - 1];
    const char *id = mull_xml_attribute(node, "diskId");
    uint64_t capacity = 0,
             factor = mull_ovf_units(mull_xml_attribute(node, "capacityAllocationUnits"));
    if (!id || !*id)
        return bad(r, node, "needs a diskId");
    d->id = NULL;
    if (mull_ovf_disk(ovf, id))
        return mull_fail(r->err, EEXIST, "%s: line %u: two disks have the id '%.100s'", ovf->what,
                         node->line, id);
    d->id = id;
    d->file = mull_xml_attribute(node, "fileRef");
    d->format = mull_xml_attribute(node, "format");
    d->parent = mull_xml_attribute(node, "parentRef");
    if (!factor)
        return bad(r, node, "its capacityAllocationUnits are not known");
    if (!number(mull_xml_attribute(node, "capacity"), &capacity) ||
        capacity > (UINT64_C(1) << 60) / factor)
        return bad(r, node, "its capacity is no number we can use");
    d->capacity = capacity * factor;
    if (d->file && !mull_ovf_file(ovf, d->file))
        return bad(r, node, "its fileRef names no file of the References");
    return 0;
}

static int read_network(struct reader *r, const struct mull_xml *node)
{
    struct mull_ovf *ovf = r->ovf;
    int ret = grow(r, &ovf->network, &ovf->network_count, sizeof(*ovf->network), MULL_OVF_FILES_MAX,
                   node);
    if (ret)
        return ret;
    ovf->network[ovf->network_count - 1] =
        (struct mull_ovf_network){.name = mull_xml_attribute(node, "name"),
                                  .description = mull_xml_child_text(node, "Description")};
    return mull_xml_attribute(node, "name") ? 0 : bad(r, node, "needs a name");
}

static int read_configuration(struct reader *r, const struct mull_xml *node)
{
    struct mull_ovf *ovf = r->ovf;
    int ret = grow(r, &ovf->configuration, &ovf->configuration_count, sizeof(*ovf->configuration),
                   64, node);
    if (ret)
        return ret;
    const char *id = mull_xml_attribute(node, "id");
    ovf->configuration[ovf->configuration_count - 1] = (struct mull_ovf_configuration){
        .id = id,
        .label = mull_xml_child_text(node, "Label"),
        .description = mull_xml_child_text(node, "Description"),
        .preferred = truth(mull_xml_attribute(node, "default"), false)};
    return id && *id ? 0 : bad(r, node, "needs an id");
}

static int each(struct reader *r, const struct mull_xml *section, const char *name,
                int (*one)(struct reader *, const struct mull_xml *))
{
    int ret = 0;
    for (const struct mull_xml *node = mull_xml_child(section, name); node && !ret;
         node = mull_xml_again(node))
        ret = one(r, node);
    return ret;
}

/* The deployment option (clause 9.8): the one asked for, the default, or the first. */
static int choose_configuration(struct reader *r, const struct mull_xml *section)
{
    struct mull_ovf *ovf = r->ovf;
    int ret = each(r, section, "Configuration", read_configuration);
    if (ret)
        return ret;
    const char *wanted = r->configuration;
    r->configuration = NULL;
    for (uint32_t i = 0; i < ovf->configuration_count; i++) {
        const struct mull_ovf_configuration *c = &ovf->configuration[i];
        if (wanted ? !strcmp(c->id, wanted) : c->preferred || (!i && !r->configuration))
            r->configuration = c->id;
    }
    if (wanted && !r->configuration)
        return mull_fail(r->err, EINVAL, "%s: has no deployment option '%s'", ovf->what, wanted);
    return 0;
}

/* ---- Virtual hardware (clause 8) ---- */

/* Is @word one of the blank-separated words of @list? */
static bool has_word(const char *list, const char *word)
{
    size_t n = strlen(word);
    for (const char *p = list; *p;) {
        size_t len = strcspn(p, " \t\n");
        if (len == n && !memcmp(p, word, n))
            return true;
        p += len + strspn(p + len, " \t\n");
    }
    return false;
}

/* Items may be for some deployment options only, or say the range of a value (8.3, 8.4). */
static bool item_counts(const struct reader *r, const struct mull_xml *node)
{
    const char *only = mull_xml_attribute(node, "configuration");
    const char *bound = mull_xml_attribute(node, "bound");
    if (bound && *bound && strcmp(bound, "normal"))
        return false;
    return !only || (r->configuration && has_word(only, r->configuration));
}

static int add_setting(struct reader *r, struct mull_ovf_system *s, const struct mull_xml *node,
                       const struct mull_xml *item)
{
    const char *key = mull_xml_attribute(node, "key"), *value = mull_xml_attribute(node, "value");
    if (!key || !*key)
        return 0;
    int ret = grow(r, &s->setting, &s->setting_count, sizeof(*s->setting), 4096, node);
    if (!ret)
        s->setting[s->setting_count - 1] =
            (struct mull_ovf_setting){.key = key, .value = value ? value : "", .item = item};
    return ret;
}

static int read_settings(struct reader *r, struct mull_ovf_system *s, const struct mull_xml *item)
{
    int ret = 0;
    for (const struct mull_xml *node = item->first; node && !ret; node = node->next)
        if (!strcmp(node->name, "Config") || !strcmp(node->name, "ExtraConfig"))
            ret = add_setting(r, s, node, item);
    return ret;
}

static int read_item(struct reader *r, struct mull_ovf_system *s, const struct mull_xml *node)
{
    uint64_t type = 0;
    struct mull_ovf_item item = {
        .subtype = mull_xml_child_text(node, "ResourceSubType"),
        .id = mull_xml_child_text(node, "InstanceID"),
        .parent = mull_xml_child_text(node, "Parent"),
        .address = mull_xml_child_text(node, "Address"),
        .place = mull_xml_child_text(node, "AddressOnParent"),
        .name = mull_xml_child_text(node, "ElementName"),
        .description = mull_xml_child_text(node, "Description"),
        .host_resource = mull_xml_child_text(node, "HostResource"),
        .connection = mull_xml_child_text(node, "Connection"),
        .detached = !truth(mull_xml_child_text(node, "AutomaticAllocation"), true),
        .required = truth(mull_xml_attribute(node, "required"), true),
        .node = node,
    };
    if (!item.id)
        item.id = mull_xml_child_text(node, "InstanceId"); /* OVF 0.9 and some 1.0 writers */
    if (!number(mull_xml_child_text(node, "ResourceType"), &type) || type > 0xffff)
        return bad(r, node, "has no ResourceType we can read");
    if (!item.id || !*item.id)
        return bad(r, node, "has no InstanceID");
    item.type = (unsigned)type;
    const char *quantity = mull_xml_child_text(node, "VirtualQuantity");
    if (quantity) {
        uint64_t factor = type == MULL_OVF_MEMORY
                              ? mull_ovf_units(mull_xml_child_text(node, "AllocationUnits"))
                              : 1;
        /* Without units, memory counts MiB as every writer means it. */
        if (type == MULL_OVF_MEMORY && !mull_xml_child_text(node, "AllocationUnits"))
            factor = 1 << 20;
        if (!factor)
            return bad(r, node, "its AllocationUnits are not known");
        if (!number(quantity, &item.quantity) || item.quantity > (UINT64_C(1) << 60) / factor)
            return bad(r, node, "its VirtualQuantity is no number we can use");
        item.quantity *= factor;
        item.has_quantity = true;
    }
    /* The same instance again: for this deployment option (8.3); else a lie. */
    struct mull_ovf_item *place = NULL;
    for (uint32_t i = 0; i < s->item_count; i++)
        if (!strcmp(s->item[i].id, item.id))
            place = &s->item[i];
    if (place && !mull_xml_attribute(node, "configuration") &&
        !mull_xml_attribute(place->node, "configuration"))
        return mull_fail(r->err, EEXIST, "%s: line %u: two items have the InstanceID '%.40s'",
                         r->ovf->what, node->line, item.id);
    int ret = 0;
    if (!place) {
        ret = grow(r, &s->item, &s->item_count, sizeof(*s->item), MULL_OVF_ITEMS_MAX, node);
        place = ret ? NULL : &s->item[s->item_count - 1];
    }
    if (place && (!place->node || mull_xml_attribute(node, "configuration")))
        *place = item;
    return ret ? ret : read_settings(r, s, node);
}

static int read_hardware(struct reader *r, struct mull_ovf_system *s, const struct mull_xml *node)
{
    const struct mull_xml *system = mull_xml_child(node, "System");
    s->hardware = mull_xml_child_text(system, "VirtualSystemType");
    s->transport = mull_xml_attribute(node, "transport");
    int ret = read_settings(r, s, node);
    for (const struct mull_xml *item = node->first; item && !ret; item = item->next) {
        /* OVF 2 has elements of their own for disks and networks (8.2). */
        bool is = !strcmp(item->name, "Item") || !strcmp(item->name, "StorageItem") ||
                  !strcmp(item->name, "EthernetPortItem");
        if (is && item_counts(r, item))
            ret = read_item(r, s, item);
    }
    return ret;
}

/* ---- Other sections of a virtual system ---- */

static int read_product(struct reader *r, struct mull_ovf_system *s, const struct mull_xml *node)
{
    int ret = grow(r, &s->product, &s->product_count, sizeof(*s->product), 64, node);
    if (ret)
        return ret;
    const char *class = mull_xml_attribute(node, "class");
    const char *instance = mull_xml_attribute(node, "instance");
    s->product[s->product_count - 1] = (struct mull_ovf_product){
        .class = class,
        .instance = instance,
        .name = mull_xml_child_text(node, "Product"),
        .vendor = mull_xml_child_text(node, "Vendor"),
        .version = mull_xml_child_text(node, "Version"),
        .full_version = mull_xml_child_text(node, "FullVersion"),
        .url = mull_xml_child_text(node, "ProductUrl"),
        .vendor_url = mull_xml_child_text(node, "VendorUrl"),
    };
    const char *category = NULL;
    for (const struct mull_xml *p = node->first; p && !ret; p = p->next) {
        if (!strcmp(p->name, "Category"))
            category = p->text;
        if (strcmp(p->name, "Property"))
            continue;
        ret = grow(r, &s->property, &s->property_count, sizeof(*s->property), 1024, p);
        if (ret)
            break;
        struct mull_ovf_property property = {
            .class = class,
            .instance = instance,
            .key = mull_xml_attribute(p, "key"),
            .type = mull_xml_attribute(p, "type"),
            .value = mull_xml_attribute(p, "value"),
            .qualifiers = mull_xml_attribute(p, "qualifiers"),
            .label = mull_xml_child_text(p, "Label"),
            .description = mull_xml_child_text(p, "Description"),
            .category = category,
            .configurable = truth(mull_xml_attribute(p, "userConfigurable"), false),
            .password = truth(mull_xml_attribute(p, "password"), false),
        };
        /* A value for this deployment option (9.5.1). */
        for (const struct mull_xml *v = mull_xml_child(p, "Value"); v; v = mull_xml_again(v)) {
            const char *only = mull_xml_attribute(v, "configuration");
            if (!only || (r->configuration && has_word(only, r->configuration)))
                property.value = mull_xml_attribute(v, "value");
        }
        if (!property.key || !*property.key)
            return bad(r, p, "needs a key");
        s->property[s->property_count - 1] = property;
    }
    return ret;
}

static int read_licence(struct reader *r, struct mull_ovf_system *s, const struct mull_xml *node)
{
    int ret = grow(r, &s->licence, &s->licence_count, sizeof(*s->licence), 64, node);
    const char *text = mull_xml_child_text(node, "License");
    if (!ret)
        s->licence[s->licence_count - 1] = text ? text : "";
    return ret;
}

static void read_os(struct mull_ovf_system *s, const struct mull_xml *node)
{
    uint64_t id = 0;
    if (number(mull_xml_attribute(node, "id"), &id) && id <= 0xffff)
        s->os_id = (unsigned)id;
    s->os_type = mull_xml_attribute(node, "osType");
    s->os_version = mull_xml_attribute(node, "version");
    s->os_description = mull_xml_child_text(node, "Description");
}

/* A section of a kind we do not know: to be ignored unless it says otherwise (clause 7.4). */
static int note_unknown(struct reader *r, const struct mull_xml *node)
{
    struct mull_ovf *ovf = r->ovf;
    if (truth(mull_xml_attribute(node, "required"), true) &&
        (!strcmp(node->name, "Section") || strstr(node->name, "Section")))
        return bad(r, node, "is required and of a kind that we do not know");
    int ret = grow(r, &ovf->unknown, &ovf->unknown_count, sizeof(*ovf->unknown), 1024, node);
    if (!ret)
        ovf->unknown[ovf->unknown_count - 1] = node->name;
    return ret;
}

static bool is(const struct mull_xml *node, const char *name)
{
    if (!strcmp(node->name, name))
        return true;
    /* OVF 0.9 has <Section xsi:type="ovf:NetworkSection_Type">. */
    const char *type = strcmp(node->name, "Section") ? NULL : mull_xml_attribute(node, "type");
    const char *colon = type ? strchr(type, ':') : NULL;
    size_t n = strlen(name);
    type = colon ? colon + 1 : type;
    return type && !strncmp(type, name, n) && !strcmp(type + n, "_Type");
}

static int read_system_section(struct reader *r, struct mull_ovf_system *s,
                               const struct mull_xml *node)
{
    if (is(node, "VirtualHardwareSection")) {
        /* Alternatives for other platforms may follow: the first is taken (clause 8.1). */
        return s->item_count ? note_unknown(r, node) : read_hardware(r, s, node);
    }
    if (is(node, "OperatingSystemSection")) {
        read_os(s, node);
    } else if (is(node, "AnnotationSection")) {
        s->annotation = mull_xml_child_text(node, "Annotation");
    } else if (is(node, "ProductSection")) {
        return read_product(r, s, node);
    } else if (is(node, "EulaSection")) {
        return read_licence(r, s, node);
    } else if (!strcmp(node->name, "Name")) {
        s->name = node->text;
    } else if (!strcmp(node->name, "Machine")) { /* VirtualBox */
        s->machine_uuid = mull_xml_attribute(node, "uuid");
        return note_unknown(r, node);
    } else if (strcmp(node->name, "Info") && !is(node, "InstallSection")) {
        return note_unknown(r, node);
    }
    return 0;
}

static int read_system(struct reader *r, const struct mull_xml *node)
{
    struct mull_ovf *ovf = r->ovf;
    int ret = grow(r, &ovf->system, &ovf->system_count, sizeof(*ovf->system), SYSTEMS_MAX, node);
    if (ret)
        return ret;
    struct mull_ovf_system *s = &ovf->system[ovf->system_count - 1];
    const char *id = mull_xml_attribute(node, "id");
    for (uint32_t i = 0; i + 1 < ovf->system_count && id; i++)
        if (ovf->system[i].id && !strcmp(ovf->system[i].id, id))
            return mull_fail(r->err, EEXIST, "%s: line %u: two systems have the id '%.100s'",
                             ovf->what, node->line, id);
    s->id = id;
    for (const struct mull_xml *section = node->first; section && !ret; section = section->next)
        ret = read_system_section(r, s, section);
    return ret;
}

/* Collections hold systems and collections (clause 7.3); all their systems are taken. */
static int read_content(struct reader *r, const struct mull_xml *node)
{
    if (!strcmp(node->name, "VirtualSystem"))
        return read_system(r, node);
    if (!strcmp(node->name, "Content")) /* OVF 0.9 */
        return read_system(r, node);
    if (strcmp(node->name, "VirtualSystemCollection"))
        return 0;
    int ret = 0;
    for (const struct mull_xml *child = node->first; child && !ret; child = child->next)
        ret = read_content(r, child); /* as deep as the XML may be */
    return ret;
}

static int read_envelope(struct reader *r, const struct mull_xml *root)
{
    struct mull_ovf *ovf = r->ovf;
    if (strcmp(root->name, "Envelope"))
        return bad(r, root, "the outermost element must be an OVF Envelope");
    ovf->vmware = mull_xml_attribute(root, "buildId") != NULL; /* vmw:buildId */
    int ret = each(r, mull_xml_child(root, "References"), "File", read_file);
    for (const struct mull_xml *node = root->first; node && !ret; node = node->next) {
        if (is(node, "DiskSection"))
            ret = each(r, node, "Disk", read_disk);
        else if (is(node, "NetworkSection"))
            ret = each(r, node, "Network", read_network);
        else if (is(node, "DeploymentOptionSection"))
            ret = choose_configuration(r, node);
        else if (strcmp(node->name, "References") && strcmp(node->name, "VirtualSystem") &&
                 strcmp(node->name, "VirtualSystemCollection") && strcmp(node->name, "Content") &&
                 strcmp(node->name, "Strings"))
            ret = note_unknown(r, node);
    }
    if (!ret && r->configuration && !ovf->configuration_count)
        ret = mull_fail(r->err, EINVAL, "%s: has no deployment options", ovf->what);
    for (const struct mull_xml *node = root->first; node && !ret; node = node->next)
        ret = read_content(r, node);
    if (!ret && !ovf->system_count)
        ret = mull_fail(r->err, EINVAL, "%s: describes no virtual system", ovf->what);
    return ret;
}

int mull_ovf_parse(const char *what, const void *text, size_t length, const char *configuration,
                   struct mull_ovf *out, struct mull_error *err)
{
    *out = (struct mull_ovf){.what = what};
    struct reader r = {.ovf = out, .configuration = configuration, .err = err};
    int ret = mull_xml_parse(what, text, length, &out->document, err);
    if (!ret)
        ret = read_envelope(&r, mull_xml_root(out->document));
    if (ret)
        mull_ovf_free(out);
    return ret;
}

void mull_ovf_free(struct mull_ovf *ovf)
{
    for (uint32_t i = 0; i < ovf->system_count; i++) {
        struct mull_ovf_system *s = &ovf->system[i];
        free(s->item);
        free(s->setting);
        free(s->product);
        free(s->property);
        free(s->licence);
    }
    free(ovf->file);
    free(ovf->disk);
    free(ovf->network);
    free(ovf->configuration);
    free(ovf->system);
    free(ovf->unknown);
    mull_xml_free(ovf->document);
    *ovf = (struct mull_ovf){0};
}

const struct mull_ovf_file *mull_ovf_file(const struct mull_ovf *ovf, const char *id)
{
    for (uint32_t i = 0; i < ovf->file_count; i++)
        if (ovf->file[i].id && !strcmp(ovf->file[i].id, id))
            return &ovf->file[i];
    return NULL;
}

const struct mull_ovf_disk *mull_ovf_disk(const struct mull_ovf *ovf, const char *id)
{
    for (uint32_t i = 0; i < ovf->disk_count; i++)
        if (ovf->disk[i].id && !strcmp(ovf->disk[i].id, id))
            return &ovf->disk[i];
    return NULL;
}
