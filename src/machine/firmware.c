/*
 * A machine that starts with firmware: its memory below 4 GiB, the firmware configuration device
 * and what firmware finds there, the flash with UEFI variables. Knows what firmware wants to be
 * told; how devices work is theirs.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device/legacy/fw_cfg.h"
#include "device/testdev.h"
#include "machine/internal.h"
#include "platform/smbios.h"

#define HOLE_BASE 0xa0000ull /* VGA */
#define CMOS_BOOT_FLAGS 0x38u
#define CMOS_BOOT_ORDER 0x3du
#define BOOT_PATH_MAX 96

int machine_firmware_open(struct mull_machine *m, const struct mull_machine_config *config,
                          struct mull_error *err)
{
    const char *which = config->firmware ? config->firmware : "bios";

    m->acpi = calloc(1, sizeof(*m->acpi));
    if (!m->acpi)
        return mull_fail(err, ENOMEM, "firmware: no memory");
    return mull_firmware_open(which, config->nvram, &m->firmware, err);
}

int machine_firmware_memory(struct mull_machine *m, struct mull_error *err)
{
    int ret = mull_memory_add_ram(m->memory, 0, HOLE_BASE, false, err);
    if (!ret)
        ret = mull_memory_add_ram(m->memory, MULL_SHADOW_BASE, m->ram_low - MULL_SHADOW_BASE, false,
                                  err);
    if (!ret)
        ret = mull_memory_add_ram(m->memory, (1ull << 32) - m->firmware->rom_size,
                                  m->firmware->rom_size, true, err);
    return ret;
}

/* ---- What firmware is told ---- */

enum acpi_part { ACPI_TABLES, ACPI_RSDP, ACPI_LOADER };

/* The guest begins to read one of the ACPI files: PCI is set up by now. */
static void fill_acpi(struct mull_machine *m, enum acpi_part part, uint8_t *data, uint32_t size)
{
    struct mull_error err = {0};
    const uint8_t *from[] = {m->acpi->tables, m->acpi->rsdp, m->acpi->loader};

    if (mull_platform_acpi(m->platform, m->acpi, &err))
        mull_log(m->log, MULL_LOG_ERROR, "firmware: %s", err.message);
    else
        memcpy(data, from[part], size);
}

static void select_tables(void *opaque, uint8_t *data, uint32_t size)
{
    fill_acpi(opaque, ACPI_TABLES, data, size);
}

static void select_rsdp(void *opaque, uint8_t *data, uint32_t size)
{
    fill_acpi(opaque, ACPI_RSDP, data, size);
}

static void select_loader(void *opaque, uint8_t *data, uint32_t size)
{
    fill_acpi(opaque, ACPI_LOADER, data, size);
}

static int add_acpi(struct mull_machine *m, struct mull_fw_cfg *f, struct mull_error *err)
{
    int ret = mull_fw_cfg_add_file(f, "etc/acpi/tables", m->acpi->tables, MULL_ACPI_TABLES_SIZE,
                                   select_tables, m, err);
    if (!ret)
        ret = mull_fw_cfg_add_file(f, "etc/acpi/rsdp", m->acpi->rsdp, MULL_ACPI_RSDP_SIZE,
                                   select_rsdp, m, err);
    if (!ret)
        ret = mull_fw_cfg_add_file(f, "etc/table-loader", m->acpi->loader, MULL_ACPI_LOADER_SIZE,
                                   select_loader, m, err);
    return ret;
}

static int add_memory_map(struct mull_machine *m, struct mull_fw_cfg *f, struct mull_error *err)
{
    struct {
        uint64_t base, size;
        uint32_t type;
    } __attribute__((packed)) map[2] = {{0, m->ram_low, 1}, {MULL_RAM_HIGH_BASE, m->ram_high, 1}};

    return mull_fw_cfg_add_file(f, "etc/e820", map, sizeof(map[0]) * (m->ram_high ? 2 : 1), NULL,
                                NULL, err);
}

/* The machine's UUID, or one from its name (RFC 9562, version 8: our own way to make it). */
static void make_uuid(const struct mull_machine_config *config, uint8_t uuid[16], char text[37])
{
    uint64_t hash[2] = {0xcbf29ce484222325u, 0x84222325cbf29ce4u}; /* FNV-1a */

    for (unsigned i = 0; i < 2; i++)
        for (const char *p = config->name; *p; p++)
            hash[i] = (hash[i] ^ (uint8_t)*p) * 0x100000001b3u;
    memcpy(uuid, hash, 16);
    uuid[6] = (uuid[6] & 0x0f) | 0x80;
    uuid[8] = (uuid[8] & 0x3f) | 0x80;
    for (unsigned i = 0, n = 0; *config->uuid && i < 36; i++) {
        unsigned value;
        if (config->uuid[i] != '-' && sscanf(config->uuid + i, "%2x", &value) == 1) {
            uuid[n++ & 15] = (uint8_t)value;
            i++;
        }
    }
    char *p = text;
    for (unsigned i = 0; i < 16; i++)
        p += sprintf(p, i == 4 || i == 6 || i == 8 || i == 10 ? "-%02x" : "%02x", uuid[i]);
}

static int add_smbios(struct mull_machine *m, struct mull_fw_cfg *f,
                      const struct mull_machine_config *config, struct mull_error *err)
{
    char serial[37];
    struct mull_smbios_config cfg = {
        .name = m->name, .serial = serial, .cpus = m->cpus, .memory = m->memory_size};
    struct mull_smbios *tables = malloc(sizeof(*tables));

    if (!tables)
        return mull_fail(err, ENOMEM, "SMBIOS tables: no memory");
    make_uuid(config, cfg.uuid, serial);
    int ret = mull_smbios_build(&cfg, tables, err);
    if (!ret)
        ret = mull_fw_cfg_add(f, MULL_FW_CFG_UUID, cfg.uuid, sizeof(cfg.uuid), err);
    if (!ret)
        ret = mull_fw_cfg_add_file(f, "etc/smbios/smbios-tables", tables->tables,
                                   (uint32_t)tables->size, NULL, NULL, err);
    if (!ret)
        ret = mull_fw_cfg_add_file(f, "etc/smbios/smbios-anchor", tables->anchor,
                                   sizeof(tables->anchor), NULL, NULL, err);
    free(tables);
    return ret;
}

/* ---- Boot order: OpenFirmware paths, as both firmwares know them ---- */

static bool wanted(const struct mull_boot_entry *entry, const struct machine_boot_path *path)
{
    return path->device == entry->device &&
           (entry->index < 0 || (unsigned)entry->index == path->index);
}

static size_t append_order(const struct mull_machine *m, const struct mull_boot_entry *entry,
                           char *text, size_t len, size_t room)
{
    for (unsigned i = 0; i < m->boot_paths; i++) {
        const struct machine_boot_path *path = &m->boot_path[i];
        if (wanted(entry, path) && len + strlen(path->path) + 2 < room)
            len += (size_t)sprintf(text + len, "%s\n", path->path);
    }
    return len;
}

static int add_boot_order(struct mull_machine *m, struct mull_fw_cfg *f,
                          const struct mull_machine_config *config, struct mull_error *err)
{
    static const struct mull_boot_entry usual[] = {
        {MULL_BOOT_DISK, -1}, {MULL_BOOT_CDROM, -1}, {MULL_BOOT_NETWORK, -1}};
    const struct mull_boot_entry *order = config->boot_count ? config->boot : usual;
    unsigned count = config->boot_count ? config->boot_count : 3;
    char text[MACHINE_BOOT_PATHS * BOOT_PATH_MAX + 8];
    size_t len = 0;
    uint16_t menu = config->boot_menu, wait = 5000;

    for (unsigned i = 0; i < count; i++)
        len = append_order(m, &order[i], text, len, sizeof(text) - 8);
    int ret = 0;
    if (len) { /* the last line ends with a NUL */
        text[len - 1] = '\0';
        ret = mull_fw_cfg_add_file(f, "bootorder", text, (uint32_t)len, NULL, NULL, err);
    }
    if (!ret)
        ret = mull_fw_cfg_add(f, MULL_FW_CFG_BOOT_MENU, &menu, sizeof(menu), err);
    if (!ret && menu)
        ret = mull_fw_cfg_add_file(f, "etc/boot-menu-wait", &wait, sizeof(wait), NULL, NULL, err);
    /* The BIOS's own way, for what has no path: disk, CD-ROM, network. */
    mull_platform_set_cmos(m->platform, CMOS_BOOT_ORDER, 0x32);
    mull_platform_set_cmos(m->platform, CMOS_BOOT_FLAGS, 0x40);
    return ret;
}

void machine_boot_path_add(struct mull_machine *m, enum mull_boot_device device, unsigned index,
                           const char *node, unsigned slot, const char *tail)
{
    unsigned at = m->boot_paths;

    /* Firmware has read its list when something comes later. */
    if (at == MACHINE_BOOT_PATHS || m->state != MULL_MACHINE_CREATED)
        return;
    /* Before those of its kind that come after it. */
    for (unsigned i = 0; i < m->boot_paths; i++)
        if (m->boot_path[i].device == device && m->boot_path[i].index > index) {
            at = i;
            break;
        }
    memmove(&m->boot_path[at + 1], &m->boot_path[at],
            (m->boot_paths - at) * sizeof(m->boot_path[0]));
    struct machine_boot_path *path = &m->boot_path[at];
    m->boot_paths++;
    path->device = device;
    path->index = index;
    snprintf(path->path, sizeof(path->path), "/pci@i0cf8/%s@%x%s", node, slot, tail);
}

static void load_net_rom(struct mull_machine *m, enum mull_nic model)
{
    static const struct {
        const char *file;
        uint16_t vendor, device;
    } roms[MULL_NICS_THERE] = {{"efi-virtio.rom", 0x1af4, 0x1041},
                               {"efi-e1000e.rom", 0x8086, 0x10d3},
                               {"efi-vmxnet3.rom", 0x15ad, 0x07b0}};
    struct machine_rom *rom = &m->net_rom[model];
    struct mull_error err;

    if (rom->data)
        return;
    if (mull_firmware_rom(roms[model].file, &rom->data, &rom->size, &err)) {
        mull_log(m->log, MULL_LOG_WARN,
                 "firmware: %s; install the package ipxe-qemu to boot by network", err.message);
        rom->data = NULL;
        return;
    }
    mull_firmware_rom_for(rom->data, rom->size, roms[model].vendor, roms[model].device);
}

/* With disks and no word of the network nobody waits for it. UEFI itself drives virtio. */
void machine_firmware_net_rom(struct mull_machine *m, const struct mull_machine_config *config)
{
    bool asked = !config->disk_count && !config->cdrom_count;

    for (unsigned i = 0; i < config->boot_count; i++)
        asked |= config->boot[i].device == MULL_BOOT_NETWORK;
    for (unsigned i = 0; asked && i < config->network_count; i++) {
        enum mull_nic model = machine_nic_model(&config->network[i]);
        if (!m->firmware->vars || model != MULL_NIC_VIRTIO)
            load_net_rom(m, model);
    }
}

/* ---- Devices ---- */

static int add_numbers(struct mull_machine *m, struct mull_fw_cfg *f,
                       const struct mull_machine_config *config, bool serial,
                       struct mull_error *err)
{
    const uint64_t ram = m->memory_size;
    const uint16_t max = (uint16_t)m->cpus, graphic = 0, port = 0x3f8;
    const uint16_t cpus = (uint16_t)config->cpus;
    const uint32_t irq0 = 1;
    /* Where BARs may begin: behind memory that may come. */
    const uint64_t end = mull_platform_dimm_base(m->platform) + m->dimms;

    int ret = mull_fw_cfg_add(f, MULL_FW_CFG_RAM_SIZE, &ram, sizeof(ram), err);
    if (!ret)
        ret = mull_fw_cfg_add(f, MULL_FW_CFG_CPUS, &cpus, sizeof(cpus), err);
    if (!ret)
        ret = mull_fw_cfg_add(f, MULL_FW_CFG_MAX_CPUS, &max, sizeof(max), err);
    if (!ret && m->dimms)
        ret =
            mull_fw_cfg_add_file(f, "etc/reserved-memory-end", &end, sizeof(end), NULL, NULL, err);
    if (!ret)
        ret = mull_fw_cfg_add(f, MULL_FW_CFG_NOGRAPHIC, &graphic, sizeof(graphic), err);
    if (!ret)
        ret = mull_fw_cfg_add(f, MULL_FW_CFG_IRQ0_OVERRIDE, &irq0, sizeof(irq0), err);
    if (!ret && serial) /* the BIOS talks there, too */
        ret = mull_fw_cfg_add_file(f, "etc/sercon-port", &port, sizeof(port), NULL, NULL, err);
    return ret;
}

int machine_test_devices(struct mull_machine *m, const struct mull_device_env *env,
                         const struct mull_machine_config *config, struct mull_error *err)
{
    struct mull_testdev_config cfg = {.exit = machine_event_exit, .opaque = m};
    struct mull_device *device;
    int ret = 0;

    for (unsigned i = 0; i < MULL_TESTDEV_LINES; i++)
        cfg.irq[i] = mull_platform_irq(m->platform, i);
    if ((ret = mull_testdev_create(env, &cfg, &device, err)))
        return ret;
    machine_add_device(m, device);
    if ((ret = mull_pci_testdev_create(env, mull_platform_pci(m->platform), &device, err)))
        return ret;
    machine_add_device(m, device);
    if (m->firmware) /* has brought the rest */
        return 0;
    if ((ret = mull_fw_cfg_create(env, &m->fw_cfg, err)))
        return ret;
    machine_add_device(m, mull_fw_cfg_device(m->fw_cfg));
    ret = add_numbers(m, m->fw_cfg, config, false, err);
    if (!ret)
        ret = mull_debugcon_create(env, &device, err);
    if (!ret)
        machine_add_device(m, device);
    return ret;
}

int machine_firmware_devices(struct mull_machine *m, const struct mull_device_env *env,
                             const struct mull_machine_config *config, struct mull_error *err)
{
    struct mull_fw_cfg *f;
    struct mull_device *device;
    bool serial = config->display == MULL_DISPLAY_NONE && config->console_count &&
                  config->console[0].device == MULL_CONSOLE_SERIAL;

    int ret = mull_fw_cfg_create(env, &f, err);
    if (ret)
        return ret;
    machine_add_device(m, mull_fw_cfg_device(f));
    m->fw_cfg = f;
    if ((ret = add_numbers(m, f, config, serial, err)) || (ret = add_memory_map(m, f, err)) ||
        (ret = add_smbios(m, f, config, err)) || (ret = add_boot_order(m, f, config, err)) ||
        (ret = add_acpi(m, f, err)))
        return ret;
    ret = mull_debugcon_create(env, &device, err);
    if (ret)
        return ret;
    machine_add_device(m, device);
    if (!m->firmware->vars)
        return 0;
    const struct mull_pflash_config flash = {
        .base = mull_firmware_vars_base(m->firmware),
        .data = m->firmware->vars,
        .size = m->firmware->vars_size,
        .fd = m->firmware->vars_fd,
    };
    ret = mull_pflash_create(env, &flash, &device, err);
    if (!ret)
        machine_add_device(m, device);
    return ret;
}
