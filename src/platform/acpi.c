/*
 * ACPI tables (ACPI 6.4, chapter 5), laid out one behind the other in the area the machine keeps
 * for them: the root pointer first.
 */
#include "platform/acpi.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "platform/acpi_hotplug.h"
#include "platform/acpi_pm.h"
#include "platform/aml.h"
#include "platform/platform.h"
#include "platform/vmgenid.h"

#define TABLE_MAX 32768

struct table {
    uint8_t data[TABLE_MAX];
    size_t size;
};

struct layout {
    struct mull_memory *memory; /* NULL: into blobs */
    struct mull_acpi_blobs *blobs;
    unsigned commands; /* in blobs->loader */
    uint64_t next, end;
    struct mull_error *err;
};

static void put(struct table *t, uint64_t v, unsigned bytes)
{
    for (unsigned i = 0; i < bytes && t->size < TABLE_MAX; i++)
        t->data[t->size++] = (uint8_t)(v >> 8 * i);
}

static void put_text(struct table *t, const char *text, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        put(t, *text ? (uint8_t)*text++ : ' ', 1);
}

static uint8_t checksum(const uint8_t *data, size_t size)
{
    uint8_t sum = 0;
    while (size--)
        sum = (uint8_t)(sum + *data++);
    return (uint8_t)-sum;
}

/* The header of a system description table (5.2.6); its length and checksum come at the end. */
static void begin(struct table *t, const char *signature, uint8_t revision)
{
    t->size = 0;
    put_text(t, signature, 4);
    put(t, 0, 4);
    put(t, revision, 1);
    put(t, 0, 1);
    put_text(t, "MULLN", 6);
    put_text(t, "MULLION", 8);
    put(t, 1, 4);
    put_text(t, "MULL", 4);
    put(t, 1, 4);
}

/* Write bytes at the next place. @return its address, 0: no room or no RAM. */
static uint64_t place(struct layout *l, const void *data, size_t size, unsigned align)
{
    uint64_t at = (l->next + align - 1) & ~(uint64_t)(align - 1);

    if (at > l->end || l->end - at < size) {
        mull_fail(l->err, ENOSPC, "ACPI tables: the area ends at %#llx: no room for %zu bytes more",
                  (unsigned long long)l->end, size);
        return 0;
    }
    if (l->blobs) {
        memcpy(l->blobs->tables + at, data, size);
    } else if (mull_mem_load(l->memory, at, data, size) < 0) {
        mull_fail(l->err, EFAULT, "ACPI tables: no RAM at %#llx", (unsigned long long)at);
        return 0;
    }
    l->next = at + size;
    return at;
}

static uint64_t finish(struct layout *l, struct table *t)
{
    uint32_t length = (uint32_t)t->size;
    memcpy(t->data + 4, &length, 4);
    t->data[9] = 0;
    t->data[9] = checksum(t->data, t->size);
    return place(l, t->data, t->size, 64);
}

/* ---- DSDT ---- */

static void isa_device(struct mull_aml *a, const char *name, const char *hid, unsigned uid,
                       uint16_t port, uint8_t ports, int irq)
{
    mull_aml_device(a, name);
    mull_aml_name(a, "_HID");
    mull_aml_eisaid(a, hid);
    mull_aml_name(a, "_UID");
    mull_aml_int(a, uid);
    mull_aml_resources(a, "_CRS");
    mull_aml_res_io(a, port, ports);
    if (irq >= 0)
        mull_aml_res_irq(a, (unsigned)irq);
    mull_aml_resources_end(a);
    mull_aml_end(a);
}

static void pci_routing(struct mull_aml *a, const struct mull_acpi_config *c)
{
    mull_aml_name(a, "_PRT");
    mull_aml_package(a, 31 * 4);
    for (unsigned slot = 1; slot < 32; slot++) {
        for (unsigned pin = 0; pin < 4; pin++) {
            mull_aml_package(a, 4);
            mull_aml_int(a, slot << 16 | 0xffff);
            mull_aml_int(a, pin);
            mull_aml_int(a, 0);
            mull_aml_int(a, c->intx[mull_pci_intx_line(slot, pin + 1)]);
            mull_aml_end(a);
        }
    }
    mull_aml_end(a);
}

static void pci_root(struct mull_aml *a, const struct mull_acpi_config *c)
{
    mull_aml_device(a, "PCI0");
    mull_aml_name(a, "_HID");
    mull_aml_eisaid(a, "PNP0A08"); /* PCI Express root */
    mull_aml_name(a, "_CID");
    mull_aml_eisaid(a, "PNP0A03");
    mull_aml_name(a, "_SEG");
    mull_aml_int(a, 0);
    mull_aml_name(a, "_UID");
    mull_aml_int(a, 0);
    mull_aml_name(a, "_BBN");
    mull_aml_int(a, 0);
    mull_aml_resources(a, "_CRS");
    mull_aml_res_bus_range(a, 0, 255);
    mull_aml_res_io(a, 0xcf8, 8);
    mull_aml_res_io_range(a, 0, 0xcf7);
    mull_aml_res_io_range(a, 0xd00, 0xffff);
    if (c->pc)
        mull_aml_res_memory_range(a, 0xa0000, 0xbffff);
    if (c->mmio32_size)
        mull_aml_res_memory_range(a, c->mmio32_base, c->mmio32_base + c->mmio32_size - 1);
    if (c->upper32_size)
        mull_aml_res_memory_range(a, c->upper32_base, c->upper32_base + c->upper32_size - 1);
    if (c->mmio64_size)
        mull_aml_res_memory_range(a, c->mmio64_base, c->mmio64_base + c->mmio64_size - 1);
    mull_aml_resources_end(a);
    pci_routing(a, c);
    acpi_hotplug_slots(a, &c->hotplug);
    mull_aml_end(a);
}

static void keyboard_and_mouse(struct mull_aml *a)
{
    mull_aml_device(a, "KBD_");
    mull_aml_name(a, "_HID");
    mull_aml_eisaid(a, "PNP0303");
    mull_aml_resources(a, "_CRS");
    mull_aml_res_io(a, 0x60, 1);
    mull_aml_res_io(a, 0x64, 1);
    mull_aml_res_irq(a, 1);
    mull_aml_resources_end(a);
    mull_aml_end(a);

    mull_aml_device(a, "MOU_");
    mull_aml_name(a, "_HID");
    mull_aml_eisaid(a, "PNP0F13");
    mull_aml_resources(a, "_CRS");
    mull_aml_res_irq(a, 12);
    mull_aml_resources_end(a);
    mull_aml_end(a);
}

static void motherboard(struct mull_aml *a, const struct mull_acpi_config *c)
{
    mull_aml_device(a, "MBRD");
    mull_aml_name(a, "_HID");
    mull_aml_eisaid(a, "PNP0C02"); /* reserved: nobody else may use these */
    mull_aml_name(a, "_UID");
    mull_aml_int(a, 0);
    mull_aml_resources(a, "_CRS");
    if (c->ecam_base)
        mull_aml_res_memory32(a, (uint32_t)c->ecam_base, (uint32_t)MULL_ECAM_SIZE, true);
    mull_aml_res_io(a, MULL_PM1_EVENT_PORT, 0x10);
    mull_aml_res_io(a, MULL_PM_GPE0_PORT, MULL_PM_GPE0_SIZE);
    mull_aml_res_memory32(a, (uint32_t)MULL_HOTPLUG_BASE, MULL_HOTPLUG_SIZE, true);
    mull_aml_resources_end(a);
    mull_aml_end(a);

    mull_aml_device(a, "HPET");
    mull_aml_name(a, "_HID");
    mull_aml_eisaid(a, "PNP0103");
    mull_aml_name(a, "_UID");
    mull_aml_int(a, 0);
    mull_aml_resources(a, "_CRS");
    mull_aml_res_memory32(a, (uint32_t)MULL_HPET_BASE, 0x400, false);
    mull_aml_resources_end(a);
    mull_aml_end(a);

    isa_device(a, "RTC0", "PNP0B00", 0, 0x70, 2, 8);
    if (c->com_ports & 1)
        isa_device(a, "COM1", "PNP0501", 1, 0x3f8, 8, 4);
    if (c->com_ports & 2)
        isa_device(a, "COM2", "PNP0501", 2, 0x2f8, 8, 3);
    if (c->pc)
        keyboard_and_mouse(a);
    if (c->fw_cfg_port)
        isa_device(a, "FWCF", "QEMU0002", 0, c->fw_cfg_port, 12, -1);
    if (c->pvpanic_port) {
        mull_aml_device(a, "PEVT");
        mull_aml_name(a, "_HID");
        mull_aml_string(a, "QEMU0001"); /* the identifier guests know pvpanic by */
        mull_aml_name(a, "_STA");
        mull_aml_int(a, 15);
        mull_aml_resources(a, "_CRS");
        mull_aml_res_io(a, c->pvpanic_port, 1);
        mull_aml_resources_end(a);
        mull_aml_end(a);
    }
}

/* Microsoft, "Virtual Machine Generation ID": ADDR says where it is, in two halves. */
static void generation_id(struct mull_aml *a, const struct mull_acpi_config *c)
{
    if (!c->vmgenid_base)
        return;
    mull_aml_device(a, "VGEN");
    mull_aml_name(a, "_HID");
    mull_aml_string(a, "MULL0001");
    mull_aml_name(a, "_CID");
    mull_aml_string(a, "VM_Gen_Counter");
    mull_aml_name(a, "_DDN");
    mull_aml_string(a, "VM_Gen_Counter");
    mull_aml_name(a, "ADDR");
    mull_aml_package(a, 2);
    mull_aml_int(a, (uint32_t)c->vmgenid_base);
    mull_aml_int(a, c->vmgenid_base >> 32);
    mull_aml_end(a);
    mull_aml_end(a);
}

static void tpm(struct mull_aml *a)
{
    mull_aml_device(a, "TPM0");
    mull_aml_name(a, "_HID");
    mull_aml_string(a, "MSFT0101");
    mull_aml_name(a, "_STA");
    mull_aml_int(a, 15);
    mull_aml_resources(a, "_CRS");
    mull_aml_res_memory32(a, (uint32_t)MULL_TPM_BASE, MULL_TPM_SIZE, true);
    mull_aml_resources_end(a);
    mull_aml_end(a);
}

static void generation_id_event(struct mull_aml *a, const struct mull_acpi_config *c)
{
    char name[8];
    if (!c->vmgenid_base)
        return;
    snprintf(name, sizeof(name), "_E%02X", MULL_VMGENID_EVENT);
    mull_aml_scope(a, "\\_GPE");
    mull_aml_method(a, name, 0);
    mull_aml_notify(a, "\\_SB.VGEN", 0x80);
    mull_aml_end(a);
    mull_aml_end(a);
}

static void processors(struct mull_aml *a, const struct mull_acpi_config *c)
{
    for (unsigned i = 0; i < c->cpus; i++) {
        char name[5];
        snprintf(name, sizeof(name), "C%03X", i & 0xfff);
        mull_aml_device(a, name);
        mull_aml_name(a, "_HID");
        mull_aml_string(a, "ACPI0007");
        mull_aml_name(a, "_UID");
        mull_aml_int(a, i);
        if (c->hotplug.cpus)
            acpi_hotplug_cpu(a, i);
        mull_aml_end(a);
    }
}

static int dsdt(struct table *t, const struct mull_acpi_config *c, struct mull_error *err)
{
    struct mull_aml a;

    begin(t, "DSDT", 2);
    mull_aml_begin(&a, t->data + t->size, TABLE_MAX - t->size);
    mull_aml_scope(&a, "\\_SB");
    pci_root(&a, c);
    motherboard(&a, c);
    generation_id(&a, c);
    if (c->tpm)
        tpm(&a);
    acpi_hotplug_registers(&a, &c->hotplug, c->cpus);
    processors(&a, c);
    acpi_hotplug_dimms(&a, &c->hotplug);
    acpi_hotplug_handlers(&a, &c->hotplug, c->cpus);
    mull_aml_end(&a);
    acpi_hotplug_events(&a, &c->hotplug);
    generation_id_event(&a, c);

    mull_aml_name(&a, "\\_S5");
    mull_aml_package(&a, 4);
    mull_aml_int(&a, MULL_PM_S5_TYPE);
    mull_aml_int(&a, MULL_PM_S5_TYPE);
    mull_aml_int(&a, 0);
    mull_aml_int(&a, 0);
    mull_aml_end(&a);
    if (a.failed)
        return mull_fail(err, ENOSPC, "ACPI tables: the DSDT is larger than %d bytes", TABLE_MAX);
    t->size += a.size;
    return 0;
}

/* ---- The fixed tables ---- */

/* Generic address structure (5.2.3.2). */
static void put_port(struct table *t, uint16_t port, unsigned bytes)
{
    put(t, 1, 1); /* system I/O */
    put(t, 8 * bytes, 1);
    put(t, 0, 1);
    put(t, bytes == 4 ? 3 : bytes == 2 ? 2 : 1, 1);
    put(t, port, 8);
}

/* 5.2.9 */
static void fadt(struct table *t, const struct mull_acpi_config *c, uint64_t facs, uint64_t dsdt_at)
{
    begin(t, "FACP", 6);
    put(t, facs, 4);
    put(t, dsdt_at, 4);
    put(t, 0, 1);
    put(t, 1, 1); /* preferred profile: desktop */
    put(t, c->sci, 2);
    put(t, 0, 4); /* SMI_CMD: none, ACPI mode is always on */
    put(t, 0, 4); /* ACPI_ENABLE .. PSTATE_CNT */
    put(t, MULL_PM1_EVENT_PORT, 4);
    put(t, 0, 4);
    put(t, MULL_PM1_CONTROL_PORT, 4);
    put(t, 0, 4);
    put(t, 0, 4); /* PM2_CNT */
    put(t, MULL_PM_TIMER_PORT, 4);
    put(t, MULL_PM_GPE0_PORT, 4);
    put(t, 0, 4); /* GPE1 */
    put(t, 4, 1); /* PM1_EVT_LEN */
    put(t, 2, 1); /* PM1_CNT_LEN */
    put(t, 0, 1);
    put(t, 4, 1); /* PM_TMR_LEN */
    put(t, MULL_PM_GPE0_SIZE, 1);
    put(t, 0, 3);
    put(t, 0xffff, 2); /* C2 and C3 latency: not supported */
    put(t, 0xffff, 2);
    put(t, 0, 2 + 2);
    put(t, 0, 1 + 1);
    put(t, 0, 1 + 1); /* alarm */
    put(t, 0x32, 1);  /* century in CMOS */
    /* Legacy devices, no ASPM; 8042 and VGA or not. */
    put(t, 1u << 0 | 1u << 4 | (c->pc ? 1u << 1 : 1u << 2), 2);
    put(t, 0, 1);
    /* WBINVD, C1, no sleep button, no RTC wake-up, 32-bit PM timer, reset register */
    put(t, 1u << 0 | 1u << 2 | 1u << 5 | 1u << 6 | 1u << 8 | 1u << 10, 4);
    put_port(t, c->reset_port, 1);
    put(t, c->reset_value, 1);
    put(t, 0, 2);
    put(t, 4, 1); /* minor version */
    put(t, 0, 8); /* X_FIRMWARE_CTRL: the 32-bit one counts */
    put(t, dsdt_at, 8);
    put_port(t, MULL_PM1_EVENT_PORT, 4);
    put(t, 0, 8), put(t, 0, 4);
    put_port(t, MULL_PM1_CONTROL_PORT, 2);
    put(t, 0, 8), put(t, 0, 4);
    put(t, 0, 8), put(t, 0, 4); /* PM2 */
    put_port(t, MULL_PM_TIMER_PORT, 4);
    put_port(t, MULL_PM_GPE0_PORT, MULL_PM_GPE0_SIZE);
    put(t, 0, 8), put(t, 0, 4); /* GPE1 */
    put(t, 0, 8), put(t, 0, 4); /* sleep control, sleep status */
    put(t, 0, 8), put(t, 0, 4);
    put_text(t, "MULLION", 8); /* hypervisor vendor identity */
}

static void source_override(struct table *t, uint8_t source, uint32_t gsi, uint16_t flags)
{
    put(t, 2, 1);
    put(t, 10, 1);
    put(t, 0, 1); /* ISA */
    put(t, source, 1);
    put(t, gsi, 4);
    put(t, flags, 2);
}

/* 5.2.12 */
static void madt(struct table *t, const struct mull_acpi_config *c)
{
    begin(t, "APIC", 5);
    put(t, MULL_LAPIC_BASE, 4);
    put(t, 1, 4); /* PC/AT: there are 8259s */
    for (unsigned i = 0; i < c->cpus; i++) {
        put(t, 0, 1); /* local APIC */
        put(t, 8, 1);
        put(t, i, 1);
        put(t, i, 1);
        put(t, c->hotplug.cpus_absent >> i & 1 ? 2 : 1, 4); /* online capable, or enabled */
    }
    put(t, 1, 1); /* I/O APIC */
    put(t, 12, 1);
    put(t, 0, 2);
    put(t, MULL_IOAPIC_BASE, 4);
    put(t, 0, 4);
    source_override(t, 0, 2, 0);
    source_override(t, (uint8_t)c->sci, c->sci, 0x000d); /* active high, level */
    put(t, 4, 1);                                        /* NMI on every LINT1 */
    put(t, 6, 1);
    put(t, 0xff, 1);
    put(t, 0, 2);
    put(t, 1, 1);
}

static void srat_memory(struct table *t, uint64_t base, uint64_t size, uint32_t flags)
{
    if (!size)
        return;
    put(t, 1, 1);
    put(t, 40, 1);
    put(t, 0, 4 + 2);
    put(t, base, 8);
    put(t, size, 8);
    put(t, 0, 4);
    put(t, flags, 4);
    put(t, 0, 8);
}

/* 5.2.16: one node. It tells a guest early how far its memory may ever reach, for what it sets up
 * only once (devices that cannot address all of it). */
static void srat(struct table *t, const struct mull_acpi_config *c)
{
    const struct mull_acpi_hotplug *h = &c->hotplug;

    begin(t, "SRAT", 3);
    put(t, 1, 4);
    put(t, 0, 8);
    for (unsigned i = 0; i < c->cpus; i++) {
        put(t, 0, 1); /* local APIC affinity */
        put(t, 16, 1);
        put(t, 0, 1);
        put(t, i, 1);
        put(t, 1, 4); /* enabled */
        put(t, 0, 8);
    }
    srat_memory(t, 0, h->ram_low, 1);
    srat_memory(t, MULL_RAM_HIGH_BASE, h->ram_high, 1);
    srat_memory(t, h->dimm_base, h->dimm_size, 1 | 2); /* enabled, hot-pluggable */
}

/* IA-PC HPET specification 1.0a, 3.2.4 */
static void hpet(struct table *t)
{
    begin(t, "HPET", 1);
    put(t, 0x8086a201, 4); /* as the capabilities register's low half */
    put(t, 0, 1);          /* system memory */
    put(t, 64, 1);
    put(t, 0, 2);
    put(t, MULL_HPET_BASE, 8);
    put(t, 0, 1);
    put(t, 100, 2); /* shortest periodic interval, in ticks */
    put(t, 0, 1);
}

/* PCI Firmware Specification 3.2, 4.1.2 */
static void mcfg(struct table *t, const struct mull_acpi_config *c)
{
    begin(t, "MCFG", 1);
    put(t, 0, 8);
    put(t, c->ecam_base, 8);
    put(t, 0, 2);
    put(t, 0, 1);
    put(t, 255, 1);
    put(t, 0, 4);
}

/* ---- All together ---- */

/* TCG ACPI Specification 1.4, 8.3: start method 7, a command response buffer. */
static void tpm2(struct table *t)
{
    begin(t, "TPM2", 4);
    put(t, 0, 4); /* a client platform */
    put(t, MULL_TPM_BASE + 0x40, 8);
    put(t, 7, 4);
    while (t->size < 76) /* no parameters, no log */
        put(t, 0, 1);
}

static uint64_t facs(struct layout *l)
{
    uint8_t data[64] = "FACS";
    data[4] = sizeof(data);
    data[32] = 2; /* version */
    return place(l, data, sizeof(data), 64);
}

/* 5.2.5.3 */
static void root_pointer(struct table *t, uint64_t xsdt)
{
    t->size = 0;
    put_text(t, "RSD PTR ", 8);
    put(t, 0, 1);
    put_text(t, "MULLN", 6);
    put(t, 2, 1);
    put(t, 0, 4); /* RSDT */
    put(t, MULL_ACPI_RSDP_SIZE, 4);
    put(t, xsdt, 8);
    put(t, 0, 4);
    t->data[8] = checksum(t->data, 20);
    t->data[32] = checksum(t->data, MULL_ACPI_RSDP_SIZE);
}

/* ---- Commands for firmware: 128 bytes each ---- */

enum { ALLOCATE = 1, ADD_POINTER = 2, ADD_CHECKSUM = 3 };
#define LOADER_FILE 56u
#define LOADER_ENTRY 128u
#define TABLES_FILE "etc/acpi/tables"
#define RSDP_FILE "etc/acpi/rsdp"

static uint8_t *command(struct layout *l, uint32_t kind, const char *file)
{
    uint8_t *entry = l->blobs->loader + LOADER_ENTRY * l->commands;

    if (LOADER_ENTRY * (l->commands + 1) <= MULL_ACPI_LOADER_SIZE)
        l->commands++;
    else
        mull_fail(l->err, ENOSPC, "ACPI tables: too many loader commands");
    memcpy(entry, &kind, 4);
    strcpy((char *)entry + 4, file);
    return entry + 4 + LOADER_FILE;
}

static void allocate(struct layout *l, const char *file, uint32_t align, uint8_t zone)
{
    uint8_t *p = command(l, ALLOCATE, file);
    memcpy(p, &align, 4);
    p[4] = zone;
}

/* The @size bytes at @offset of @file hold an offset in the tables: make it an address. */
static void add_pointer(struct layout *l, const char *file, uint64_t offset, uint8_t size)
{
    uint8_t *p = command(l, ADD_POINTER, file);
    uint32_t at = (uint32_t)offset;
    strcpy((char *)p, TABLES_FILE);
    memcpy(p + LOADER_FILE, &at, 4);
    p[LOADER_FILE + 4] = size;
}

static void add_checksum(struct layout *l, const char *file, uint64_t base, uint32_t offset,
                         uint32_t length)
{
    uint8_t *p = command(l, ADD_CHECKSUM, file);
    const uint32_t words[3] = {(uint32_t)base + offset, (uint32_t)base, length};
    uint8_t *blob = strcmp(file, RSDP_FILE) ? l->blobs->tables : l->blobs->rsdp;
    memcpy(p, words, sizeof(words));
    blob[words[0]] = 0;
}

static void add_commands(struct layout *l, uint64_t fadt_at, uint64_t xsdt_at, unsigned tables)
{
    uint32_t fadt_size;

    memcpy(&fadt_size, l->blobs->tables + fadt_at + 4, 4);
    allocate(l, RSDP_FILE, 16, 2);   /* F segment */
    allocate(l, TABLES_FILE, 64, 1); /* high memory */
    add_pointer(l, TABLES_FILE, fadt_at + 36, 4);
    add_pointer(l, TABLES_FILE, fadt_at + 40, 4);
    add_pointer(l, TABLES_FILE, fadt_at + 140, 8);
    add_checksum(l, TABLES_FILE, fadt_at, 9, fadt_size);
    for (unsigned i = 0; i < tables; i++)
        add_pointer(l, TABLES_FILE, xsdt_at + 36 + 8 * i, 8);
    add_checksum(l, TABLES_FILE, xsdt_at, 9, 36 + 8 * tables);
    add_pointer(l, RSDP_FILE, 24, 8);
    add_checksum(l, RSDP_FILE, 0, 8, 20);
    add_checksum(l, RSDP_FILE, 0, 32, MULL_ACPI_RSDP_SIZE);
}

static int write_tables(struct layout *l, const struct mull_acpi_config *config, struct table *t,
                        uint64_t *fadt_at, uint64_t *xsdt_at, unsigned *count)
{
    uint64_t tables[8];

    *count = 0;
    int r = dsdt(t, config, l->err);
    if (r < 0)
        return r;
    uint64_t dsdt_at = finish(l, t);
    uint64_t facs_at = facs(l);
    if (!dsdt_at || !facs_at)
        return -l->err->code;
    fadt(t, config, facs_at, dsdt_at);
    tables[(*count)++] = *fadt_at = finish(l, t);
    madt(t, config);
    tables[(*count)++] = finish(l, t);
    if (config->hotplug.dimm_size) {
        srat(t, config);
        tables[(*count)++] = finish(l, t);
    }
    hpet(t);
    tables[(*count)++] = finish(l, t);
    if (config->ecam_base) {
        mcfg(t, config);
        tables[(*count)++] = finish(l, t);
    }
    if (config->tpm) {
        tpm2(t);
        tables[(*count)++] = finish(l, t);
    }
    begin(t, "XSDT", 1);
    for (unsigned i = 0; i < *count; i++) {
        if (!tables[i])
            return -l->err->code;
        put(t, tables[i], 8);
    }
    *xsdt_at = finish(l, t);
    return *xsdt_at ? 0 : -l->err->code;
}

int mull_acpi_write(struct mull_memory *memory, const struct mull_acpi_config *config,
                    uint64_t *rsdp, struct mull_error *err)
{
    struct mull_error local = {0};
    struct layout l = {.memory = memory,
                       .next = config->area_base + 64,
                       .end = config->area_base + config->area_size,
                       .err = err ? err : &local};
    struct table t;
    uint64_t fadt_at, xsdt;
    unsigned count;

    int r = write_tables(&l, config, &t, &fadt_at, &xsdt, &count);
    if (r < 0)
        return r;
    *rsdp = config->area_base;
    root_pointer(&t, xsdt);
    if (mull_mem_load(memory, *rsdp, t.data, t.size) < 0)
        return mull_fail(l.err, EFAULT, "ACPI tables: no RAM at %#llx", (unsigned long long)*rsdp);
    return 0;
}

int mull_acpi_build(const struct mull_acpi_config *config, struct mull_acpi_blobs *blobs,
                    struct mull_error *err)
{
    struct mull_error local = {0};
    /* Offset 0 would look like "no table". */
    struct layout l = {
        .blobs = blobs, .next = 64, .end = MULL_ACPI_TABLES_SIZE, .err = err ? err : &local};
    struct table t;
    uint64_t fadt_at, xsdt;
    unsigned count;

    memset(blobs, 0, sizeof(*blobs));
    l.err->code = 0;
    int r = write_tables(&l, config, &t, &fadt_at, &xsdt, &count);
    if (r < 0)
        return r;
    root_pointer(&t, xsdt);
    memcpy(blobs->rsdp, t.data, MULL_ACPI_RSDP_SIZE);
    add_commands(&l, fadt_at, xsdt, count);
    return -l.err->code;
}
