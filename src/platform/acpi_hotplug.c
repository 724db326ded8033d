/*
 * The ACPI Machine Language of hot plug: see acpi_hotplug.h. Every thing has a bit of its own in
 * each register, so that the methods are straight: no loops, no selectors, no locks.
 *
 * Names: PI05 is bit "has come" (I: insert) of PCI slot 5; R: remove, E: eject, P: present; C for
 * vCPUs, M for DIMMs. Devices are S05_ (in PCI0), C005 and M005.
 */
#include "platform/acpi_hotplug.h"

#include <stdio.h>

/* Notifications (ACPI 6.4, table 5.196). */
#define DEVICE_CHECK 1
#define EJECT_REQUEST 3

struct class
{
    char letter;
    const char *device;  /* format of the devices' paths from \_SB */
    const char *handler; /* the method that looks what has happened */
};

static const struct class classes[MULL_HOTPLUG_CLASSES] = {
    [MULL_HOTPLUG_PCI] = {'P', "\\_SB.PCI0.S%02X_", "HPP_"},
    [MULL_HOTPLUG_CPU] = {'C', "C%03X", "HPC_"},
    [MULL_HOTPLUG_DIMM] = {'M', "M%03X", "HPM_"},
};

struct name {
    char text[24];
};

/* The name of one bit, like PI05. */
static struct name bit(enum mull_hotplug_class class, char what, unsigned index)
{
    struct name n;
    snprintf(n.text, sizeof(n.text), "%c%c%02X", classes[class].letter, what, index & 0xff);
    return n;
}

static bool pluggable(const struct mull_acpi_hotplug *h, enum mull_hotplug_class class,
                      unsigned cpus, unsigned index)
{
    switch (class) {
    case MULL_HOTPLUG_PCI:
        return index < MULL_HOTPLUG_PCI_SLOTS && (h->pci_slots >> index & 1);
    case MULL_HOTPLUG_CPU:
        return h->cpus && index < cpus;
    case MULL_HOTPLUG_DIMM:
        return h->dimm_size && index < MULL_HOTPLUG_DIMM_SLOTS;
    }
    return false;
}

static bool any(const struct mull_acpi_hotplug *h, enum mull_hotplug_class class)
{
    return class == MULL_HOTPLUG_PCI   ? h->pci_slots != 0
           : class == MULL_HOTPLUG_CPU ? h->cpus
                                       : h->dimm_size != 0;
}

/* ---- Registers ---- */

static void bits(struct mull_aml *a, const struct mull_acpi_hotplug *h, unsigned cpus,
                 enum mull_hotplug_class class, char what, unsigned offset)
{
    unsigned at = 8 * ((unsigned)class * MULL_HOTPLUG_CLASS_SIZE + offset), have = 0;

    mull_aml_field(a, "HPR_");
    for (unsigned i = 0; i < 256; i++) {
        if (!pluggable(h, class, cpus, i))
            continue;
        for (unsigned skip = at + i - have; skip;) { /* a PkgLength of two bytes holds 12 bits */
            unsigned part = skip > 0xfff ? 0xfff : skip;
            mull_aml_field_skip(a, part);
            skip -= part;
        }
        mull_aml_field_unit(a, bit(class, what, i).text, 1);
        have = at + i + 1;
    }
    mull_aml_end(a);
}

/* Base, last byte and size of each DIMM: MB05, ML05, MS05. */
static void places(struct mull_aml *a)
{
    mull_aml_field(a, "HPR_");
    for (unsigned skip = 8 * MULL_HOTPLUG_DIMMS; skip;) {
        unsigned part = skip > 0xfff ? 0xfff : skip;
        mull_aml_field_skip(a, part);
        skip -= part;
    }
    for (unsigned i = 0; i < MULL_HOTPLUG_DIMM_SLOTS; i++) {
        mull_aml_field_unit(a, bit(MULL_HOTPLUG_DIMM, 'B', i).text, 64);
        mull_aml_field_unit(a, bit(MULL_HOTPLUG_DIMM, 'L', i).text, 64);
        mull_aml_field_unit(a, bit(MULL_HOTPLUG_DIMM, 'S', i).text, 64);
        mull_aml_field_skip(a, 64);
    }
    mull_aml_end(a);
}

static bool anything(const struct mull_acpi_hotplug *h)
{
    return any(h, MULL_HOTPLUG_PCI) || any(h, MULL_HOTPLUG_CPU) || any(h, MULL_HOTPLUG_DIMM);
}

void acpi_hotplug_registers(struct mull_aml *a, const struct mull_acpi_hotplug *h, unsigned cpus)
{
    if (!anything(h))
        return;
    mull_aml_region(a, "HPR_", MULL_HOTPLUG_BASE, MULL_HOTPLUG_SIZE);
    for (unsigned c = 0; c < MULL_HOTPLUG_CLASSES; c++) {
        enum mull_hotplug_class class = (enum mull_hotplug_class)c;
        if (!any(h, class))
            continue;
        if (class != MULL_HOTPLUG_PCI)
            bits(a, h, cpus, class, 'P', MULL_HOTPLUG_PRESENT);
        bits(a, h, cpus, class, 'I', MULL_HOTPLUG_COME);
        bits(a, h, cpus, class, 'R', MULL_HOTPLUG_GO);
        bits(a, h, cpus, class, 'E', MULL_HOTPLUG_EJECT);
    }
    if (any(h, MULL_HOTPLUG_DIMM))
        places(a);
    mull_aml_field(a, "HPR_");
    mull_aml_field_skip(a, 8 * MULL_HOTPLUG_OST);
    mull_aml_field_unit(a, "HPST", 32);
    mull_aml_end(a);

    /* HOST(class << 24 | index << 16, event, status) */
    mull_aml_method(a, "HOST", 3);
    mull_aml_store(a);
    mull_aml_op(a, MULL_AML_OR);
    mull_aml_arg(a, 0);
    mull_aml_op(a, MULL_AML_OR);
    mull_aml_op(a, MULL_AML_SHIFT_LEFT);
    mull_aml_op(a, MULL_AML_AND);
    mull_aml_arg(a, 1);
    mull_aml_int(a, 0xff);
    mull_aml_no_target(a);
    mull_aml_int(a, 8);
    mull_aml_no_target(a);
    mull_aml_op(a, MULL_AML_AND);
    mull_aml_arg(a, 2);
    mull_aml_int(a, 0xff);
    mull_aml_no_target(a);
    mull_aml_no_target(a);
    mull_aml_no_target(a);
    mull_aml_path(a, "HPST");
    mull_aml_end(a);
}

/* ---- Devices ---- */

/* _EJ0 and _OST (ACPI 6.4, 6.3.3 and 6.3.5). */
static void eject_and_status(struct mull_aml *a, enum mull_hotplug_class class, unsigned index)
{
    mull_aml_method(a, "_EJ0", 1);
    mull_aml_store(a);
    mull_aml_int(a, 1);
    mull_aml_path(a, bit(class, 'E', index).text);
    mull_aml_end(a);
    mull_aml_method(a, "_OST", 3);
    mull_aml_path(a, "HOST");
    mull_aml_int(a, (uint64_t) class << 24 | index << 16);
    mull_aml_arg(a, 0);
    mull_aml_arg(a, 1);
    mull_aml_end(a);
}

/* _STA: present, enabled, shown, functioning; or nothing. */
static void presence(struct mull_aml *a, enum mull_hotplug_class class, unsigned index)
{
    mull_aml_method(a, "_STA", 0);
    mull_aml_if(a);
    mull_aml_path(a, bit(class, 'P', index).text);
    mull_aml_return(a);
    mull_aml_int(a, 15);
    mull_aml_end(a);
    mull_aml_return(a);
    mull_aml_int(a, 0);
    mull_aml_end(a);
}

void acpi_hotplug_slots(struct mull_aml *a, const struct mull_acpi_hotplug *h)
{
    for (unsigned i = 0; i < MULL_HOTPLUG_PCI_SLOTS; i++) {
        if (!pluggable(h, MULL_HOTPLUG_PCI, 0, i))
            continue;
        char name[8];
        snprintf(name, sizeof(name), "S%02X_", i);
        mull_aml_device(a, name);
        mull_aml_name(a, "_ADR");
        mull_aml_int(a, (uint64_t)i << 16);
        mull_aml_name(a, "_SUN");
        mull_aml_int(a, i);
        eject_and_status(a, MULL_HOTPLUG_PCI, i);
        mull_aml_end(a);
    }
}

void acpi_hotplug_cpu(struct mull_aml *a, unsigned index)
{
    /* A local APIC entry as in the MADT, enabled: it is looked at only while the vCPU is there. */
    const uint8_t entry[8] = {0, 8, (uint8_t)index, (uint8_t)index, 1};

    presence(a, MULL_HOTPLUG_CPU, index);
    mull_aml_name(a, "_MAT");
    mull_aml_buffer(a, entry, sizeof(entry));
    if (index) /* the first one starts the others */
        eject_and_status(a, MULL_HOTPLUG_CPU, index);
}

/* _CRS of a DIMM: one memory range, filled in when it is asked for. */
static void dimm_resources(struct mull_aml *a, unsigned index)
{
    static const struct {
        const char *name;
        char what;
        unsigned offset; /* in the descriptor (6.4.3.5.1) */
    } parts[] = {{"MIN_", 'B', 14}, {"MAX_", 'L', 22}, {"LEN_", 'S', 38}};

    mull_aml_method_serialized(a, "_CRS", 0);
    mull_aml_resources(a, "RES_");
    mull_aml_res_memory_range(a, 1ull << 32, (1ull << 32) + 0xffff);
    mull_aml_resources_end(a);
    for (unsigned i = 0; i < 3; i++)
        mull_aml_create_qword(a, "RES_", parts[i].offset, parts[i].name);
    for (unsigned i = 0; i < 3; i++) {
        mull_aml_store(a);
        mull_aml_path(a, bit(MULL_HOTPLUG_DIMM, parts[i].what, index).text);
        mull_aml_path(a, parts[i].name);
    }
    mull_aml_return(a);
    mull_aml_path(a, "RES_");
    mull_aml_end(a);
}

void acpi_hotplug_dimms(struct mull_aml *a, const struct mull_acpi_hotplug *h)
{
    for (unsigned i = 0; i < MULL_HOTPLUG_DIMM_SLOTS; i++) {
        if (!pluggable(h, MULL_HOTPLUG_DIMM, 0, i))
            continue;
        char name[8];
        snprintf(name, sizeof(name), "M%03X", i);
        mull_aml_device(a, name);
        mull_aml_name(a, "_HID");
        mull_aml_eisaid(a, "PNP0C80");
        mull_aml_name(a, "_UID");
        mull_aml_int(a, i);
        mull_aml_name(a, "_PXM");
        mull_aml_int(a, 0);
        presence(a, MULL_HOTPLUG_DIMM, i);
        dimm_resources(a, i);
        eject_and_status(a, MULL_HOTPLUG_DIMM, i);
        mull_aml_end(a);
    }
}

/* ---- Events ---- */

static void handle(struct mull_aml *a, enum mull_hotplug_class class, char what, unsigned index,
                   uint64_t notification)
{
    struct name device;

    snprintf(device.text, sizeof(device.text), classes[class].device, index);
    mull_aml_if(a);
    mull_aml_path(a, bit(class, what, index).text);
    mull_aml_store(a);
    mull_aml_int(a, 1);
    mull_aml_path(a, bit(class, what, index).text);
    mull_aml_notify(a, device.text, notification);
    mull_aml_end(a);
}

void acpi_hotplug_handlers(struct mull_aml *a, const struct mull_acpi_hotplug *h, unsigned cpus)
{
    for (unsigned c = 0; c < MULL_HOTPLUG_CLASSES; c++) {
        enum mull_hotplug_class class = (enum mull_hotplug_class)c;
        if (!any(h, class))
            continue;
        mull_aml_method(a, classes[c].handler, 0);
        for (unsigned i = 0; i < 256; i++) {
            if (!pluggable(h, class, cpus, i))
                continue;
            handle(a, class, 'I', i, DEVICE_CHECK);
            if (class != MULL_HOTPLUG_CPU || i)
                handle(a, class, 'R', i, EJECT_REQUEST);
        }
        mull_aml_end(a);
    }
}

void acpi_hotplug_events(struct mull_aml *a, const struct mull_acpi_hotplug *h)
{
    if (!anything(h))
        return;
    mull_aml_scope(a, "\\_GPE");
    for (unsigned c = 0; c < MULL_HOTPLUG_CLASSES; c++) {
        if (!any(h, (enum mull_hotplug_class)c))
            continue;
        char name[8], path[16];
        snprintf(name, sizeof(name), "_E%02X", MULL_HOTPLUG_EVENT + c);
        snprintf(path, sizeof(path), "\\_SB.%s", classes[c].handler);
        mull_aml_method(a, name, 0);
        mull_aml_path(a, path);
        mull_aml_end(a);
    }
    mull_aml_end(a);
}
