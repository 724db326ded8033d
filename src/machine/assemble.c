/*
 * Puts a machine together from its configuration and takes it apart again: memory, clock, engine,
 * platform, devices, kernel. Knows what a machine is made of, not how it lives.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "machine/internal.h"

#define EBDA_BASE 0x9fc00ull /* where a BIOS keeps its data: not given to the guest as RAM */

static int make_memory(struct mull_machine *m, const struct mull_machine_config *config,
                       struct mull_error *err)
{
    m->memory_size = config->memory;
    m->ram_low = config->memory < MULL_RAM_LOW_MAX ? config->memory : MULL_RAM_LOW_MAX;
    if (m->firmware && m->ram_low > MULL_FIRMWARE_LOW_LIMIT)
        m->ram_low = MULL_FIRMWARE_LOW_MAX;
    m->ram_high = config->memory - m->ram_low;
    int ret = mull_memory_create(m->log, &m->memory, err);
    if (!ret && m->firmware)
        ret = machine_firmware_memory(m, err);
    else if (!ret)
        ret = mull_memory_add_ram(m->memory, 0, m->ram_low, false, err);
    if (!ret && m->ram_high)
        ret = mull_memory_add_ram(m->memory, MULL_RAM_HIGH_BASE, m->ram_high, false, err);
    if (!ret && m->dimms)
        mull_memory_reserve_hot(m->memory);
    if (ret)
        return mull_fail_in(err, "--memory %llu MiB", (unsigned long long)config->memory >> 20);
    return 0;
}

static int make_cpus(struct mull_machine *m, struct mull_error *err)
{
    struct mull_vm_config vm = {
        .memory = m->memory,
        .clock = m->clock,
        .bus = mull_platform_bus(m->platform),
        .log = m->log,
        .cpus = m->cpus,
        .code_cache = m->code_cache,
        .trace = m->perf_map ? mull_perf_map_trace(m->perf_map) : NULL,
    };
    int ret = m->engine->vm_create(&vm, &m->vm, err);
    if (ret)
        return ret;
    struct mull_cpuid *cpuid = calloc(1, sizeof(*cpuid));
    if (!cpuid)
        return mull_fail(err, ENOMEM, "vCPUs: no memory");
    struct mull_vcpu *all[MULL_MAX_CPUS];
    for (unsigned i = 0; i < m->cpus && !ret; i++) {
        ret = mull_platform_cpuid(m->platform, i, cpuid, err);
        if (!ret)
            ret = m->engine->vcpu_create(m->vm, i, cpuid, &m->vcpu[i].vcpu, err);
        m->vcpu[i].machine = m;
        m->vcpu[i].index = i;
        m->vcpu[i].there = mull_hotplug_present(mull_platform_hotplug(m->platform),
                                                MULL_HOTPLUG_CPU, i);
        all[i] = m->vcpu[i].vcpu;
    }
    free(cpuid);
    if (!ret)
        mull_platform_connect(m->platform, m->vm, all);
    return ret;
}

void machine_add_device(struct mull_machine *m, struct mull_device *device)
{
    struct mull_device **end = &m->devices;
    while (*end)
        end = &(*end)->next;
    device->next = NULL;
    *end = device;
}

/* A locally administered address (IEEE 802): the same for the same machine name, else random. */
static void make_mac(const char *name, unsigned i, uint8_t mac[6])
{
    uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a */
    if (!strcmp(name, "mullion") &&
        getrandom(&hash, sizeof(hash), GRND_NONBLOCK) != sizeof(hash))
        hash ^= mull_now_ns();
    for (const char *p = name; *p; p++)
        hash = (hash ^ (uint8_t)*p) * 0x100000001b3u;
    hash = (hash ^ i) * 0x100000001b3u;
    mac[0] = 0x02;
    for (unsigned j = 1; j < 6; j++)
        mac[j] = (uint8_t)(hash >> (8 * j));
}

enum mull_nic machine_nic_model(const struct mull_network_config *net)
{
    return net->model < MULL_NICS_THERE ? net->model : MULL_NIC_E1000E;
}

static int open_network(struct mull_machine *m, unsigned i, const struct mull_network_config *net,
                        struct mull_error *err)
{
    if (net->kind == MULL_NETWORK_HOST)
        return mull_fail(err, ENOTSUP,
                         "network %s: only mulliond connects a machine to a network of the host; "
                         "use the type user or tap",
                         net->name);
    if (net->kind == MULL_NETWORK_TAP && net->fd)
        return mull_tap_adopt(m->loop, net->fd, m->log, &m->netdev[i], err);
    if (net->kind == MULL_NETWORK_TAP)
        return mull_tap_create(m->loop, net->interface, m->log, &m->netdev[i], err);
    struct mull_passt_config passt = {0};
    int ret = 0;
    for (unsigned j = 0; j < net->forward_count && !ret; j++)
        ret = mull_passt_parse_forward(&passt, net->forward[j], err);
    if (!ret)
        ret = mull_passt_create(m->loop, &passt, m->log, &m->netdev[i], err);
    if (!ret && net->tftp)
        ret = mull_netboot_create(m->loop, m->netdev[i], net->tftp, net->bootfile, &m->netdev[i],
                                  err);
    return ret;
}

int machine_network_card(struct mull_machine *m, const struct mull_device_env *env, unsigned i,
                         const struct mull_network_config *net, struct mull_error *err)
{
    static int (*const create[MULL_NICS_THERE])(
        const struct mull_device_env *, struct mull_pci_bus *, const struct mull_nic_config *,
        struct mull_device **,
        struct mull_error *) = {mull_virtio_net_create, mull_e1000e_create, mull_vmxnet3_create};
    struct mull_pci_bus *bus = mull_platform_pci(m->platform);
    enum mull_nic model = machine_nic_model(net);
    char name[32];
    snprintf(name, sizeof(name), "%s%s.%u", mull_nic_names[model],
             model == MULL_NIC_VIRTIO ? "-net" : "", i);
    struct mull_nic_config cfg = {.name = name,
                                  .devfn = -1,
                                  .queue_pairs = (uint16_t)m->cpus,
                                  .netdev = m->netdev[i],
                                  .mtu = m->netdev[i]->caps.mtu,
                                  .rom = m->net_rom[model].data,
                                  .rom_size = m->net_rom[model].size};
    /* iPXE makes its buffers as large as the MTU, and cannot have many of 64 KiB. What runs after it
     * is told by DHCP. */
    if (cfg.rom)
        cfg.mtu = 0;
    if (net->has_mac)
        memcpy(cfg.mac, net->mac, 6);
    else
        make_mac(m->name, i, cfg.mac);
    struct mull_device *device;
    unsigned slot = mull_pci_bus_free_slot(bus);
    machine_boot_path_add(m, MULL_BOOT_NETWORK, i, "ethernet", slot, "/ethernet-phy@0");
    int ret = create[model](env, bus, &cfg, &device, err);
    if (ret)
        return ret;
    machine_add_device(m, device);
    machine_part_add(m, MACHINE_PART_NETWORK, i, slot, device);
    return 0;
}

static int make_network(struct mull_machine *m, const struct mull_device_env *env, unsigned i,
                        const struct mull_machine_config *config, struct mull_error *err)
{
    const struct mull_network_config *net = &config->network[i];
    if (net->kind == MULL_NETWORK_NONE)
        return 0;
    int ret = open_network(m, i, net, err);
    if (!ret)
        ret = machine_limit_network(m, i, err);
    return ret ? ret : machine_network_card(m, env, i, net, err);
}

static int make_chardev(struct mull_machine *m, const struct mull_console_config *console,
                        struct mull_chardev **out, struct mull_error *err)
{
    struct mull_chardev_fd_config fds = {.in_fd = console->in_fd, .out_fd = console->out_fd};
    switch (console->kind) {
    case MULL_CONSOLE_FD:
        return mull_chardev_fd_create(m->loop, &fds, out, err);
    case MULL_CONSOLE_UNIX:
        return mull_chardev_unix_create(m->loop, console->path, m->log, out, err);
    case MULL_CONSOLE_NONE:
    case MULL_CONSOLE_STDIO:
    case MULL_CONSOLE_FILE:
    case MULL_CONSOLE_TCP:
        break;
    }
    return mull_chardev_null_create(out, err);
}

static int make_serial(struct mull_machine *m, const struct mull_device_env *env, unsigned number,
                       struct mull_chardev *chardev, struct mull_device **out,
                       struct mull_error *err)
{
    static const struct {
        uint16_t port;
        unsigned irq;
    } com[2] = {{0x3f8, 4}, {0x2f8, 3}};
    struct mull_serial_config cfg = {
        .port = com[number].port,
        .irq = mull_platform_irq(m->platform, com[number].irq),
        .chardev = chardev,
    };
    return mull_serial_create(env, &cfg, out, err);
}

/* The first virtio console has the channels too. @param chardev  NULL: channels only */
static int make_virtio_console(struct mull_machine *m, const struct mull_device_env *env,
                               const struct mull_machine_config *config, unsigned number,
                               struct mull_chardev *chardev, struct mull_device **out,
                               struct mull_error *err)
{
    char name[32];
    snprintf(name, sizeof(name), "virtio-console.%u", number);
    struct mull_virtio_console_config cfg = {.name = name, .devfn = -1, .chardev = chardev};
    for (unsigned i = 0; !number && i < config->console_count; i++)
        if (config->console[i].device == MULL_CONSOLE_CHANNEL) {
            cfg.channels[cfg.nchannels].name = config->console[i].name;
            cfg.channels[cfg.nchannels++].chardev = m->chardev[i];
        }
    return mull_virtio_console_create(env, mull_platform_pci(m->platform), &cfg, out, err);
}

static int make_consoles(struct mull_machine *m, const struct mull_device_env *env,
                         const struct mull_machine_config *config, struct mull_error *err)
{
    unsigned serial = 0, virtio = 0;
    bool channels = false;
    struct mull_device *device = NULL;
    int ret = 0;
    for (unsigned i = 0; i < config->console_count && !ret; i++) {
        channels = channels || config->console[i].device == MULL_CONSOLE_CHANNEL;
        ret = make_chardev(m, &config->console[i], &m->chardev[i], err);
    }
    for (unsigned i = 0; i < config->console_count && !ret; i++) {
        if (config->console[i].device == MULL_CONSOLE_CHANNEL)
            continue;
        if (config->console[i].device == MULL_CONSOLE_VIRTIO)
            ret = make_virtio_console(m, env, config, virtio++, m->chardev[i], &device, err);
        else
            ret = make_serial(m, env, serial++, m->chardev[i], &device, err);
        if (!ret)
            machine_add_device(m, device);
    }
    if (!ret && channels && !virtio) {
        ret = make_virtio_console(m, env, config, 0, NULL, &device, err);
        if (!ret)
            machine_add_device(m, device);
    }
    return ret;
}

static int make_devices(struct mull_machine *m, const struct mull_machine_config *config,
                        struct mull_error *err)
{
    struct mull_device_env env = {.memory = m->memory,
                                  .loop = m->loop,
                                  .clock = m->clock,
                                  .log = m->log,
                                  .packed_rings = config->packed_rings};
    int ret = make_consoles(m, &env, config, err);
    if (!ret)
        ret = machine_storage_devices(m, &env, config, err);
    if (!ret && m->firmware)
        machine_firmware_net_rom(m, config);
    for (unsigned i = 0; i < config->network_count && !ret; i++)
        ret = make_network(m, &env, i, config, err);
    if (ret)
        return ret;
    struct mull_virtio_rng_config rng = {.name = "virtio-rng.0", .devfn = -1};
    struct mull_device *device;
    ret = mull_virtio_rng_create(&env, mull_platform_pci(m->platform), &rng, &device, err);
    if (ret)
        return ret;
    machine_add_device(m, device);
    ret = machine_interface_devices(m, &env, config, err);
    if (!ret && m->firmware)
        ret = machine_firmware_devices(m, &env, config, err);
    if (!ret && config->test_devices)
        ret = machine_test_devices(m, &env, config, err);
    if (!ret)
        ret = machine_screen_devices(m, &env, config, err);
    if (!ret)
        ret = machine_usb_devices(m, &env, config, err);
    machine_hotplug_finish(m);
    return ret;
}

static int make_platform(struct mull_machine *m, const struct mull_machine_config *config,
                         struct mull_error *err)
{
    unsigned serial = 0;
    for (unsigned i = 0; i < config->console_count; i++)
        serial += config->console[i].device == MULL_CONSOLE_SERIAL;
    struct mull_platform_config cfg = {
        .memory = m->memory,
        .loop = m->loop,
        .clock = m->clock,
        .log = m->log,
        .engine = m->engine,
        .cpus = m->cpus,
        .cpus_now = config->cpus,
        .dimms = m->dimms,
        .ram_low = m->ram_low,
        .ram_high = m->ram_high,
        .com_ports = (1u << serial) - 1,
        .firmware = m->firmware != NULL,
        .screen = machine_wants_screen(m, config),
        .tpm = config->tpm && config->tpm_state,
        .vmware = config->vmware_tools,
        .events = {.opaque = m,
                   .poweroff = machine_event_poweroff,
                   .reset = machine_event_reset,
                   .panic = machine_event_panic,
                   .eject = machine_event_eject},
    };
    return mull_platform_create(&cfg, &m->platform, err);
}

int machine_assemble(struct mull_machine *m, const struct mull_machine_config *config,
                     struct mull_error *err)
{
    m->cpus = config->cpus_max ? config->cpus_max : config->cpus;
    m->cpus_hot = m->cpus > config->cpus;
    m->dimms = config->memory_max ? config->memory_max - config->memory : 0;
    m->no_reboot = config->no_reboot;
    m->packed_rings = config->packed_rings;
    m->code_cache = config->code_cache;
    m->name = strdup(config->name);
    if (!m->name)
        return mull_fail(err, ENOMEM, "machine: no memory");
    char missing[512];
    if (mull_machine_config_missing(config, missing, sizeof(missing)))
        mull_log(m->log, MULL_LOG_WARN, "machine %s: not there yet: %s", m->name, missing);
    /* What is wrong with the command line shows first, before anything is started. */
    int ret = config->kernel
                  ? mull_boot_open(config->kernel, config->initrd, config->cmdline, &m->boot, err)
                  : machine_firmware_open(m, config, err);
    for (unsigned i = 0; i < config->module_count && config->kernel && !ret; i++)
        ret = mull_boot_add_module(m->boot, config->module[i].path, config->module[i].args, err);
    if (ret)
        return ret;
    m->engine = mull_engine_find(config->engine, m->engine_why, sizeof(m->engine_why), err);
    if (!m->engine)
        return err && err->code ? -err->code : -ENODEV;
    ret = make_memory(m, config, err);
    if (!ret)
        ret = mull_clock_create(&m->clock, err);
    if (ret)
        return ret;
    mull_clock_pause(m->clock);
    ret = mull_loop_create(&m->loop, err);
    if (!ret)
        ret = machine_limits_open(m, err);
    if (!ret)
        ret = make_platform(m, config, err);
    if (!ret && config->perf_map)
        ret = mull_perf_map_create(&m->perf_map, err);
    if (!ret)
        ret = make_cpus(m, err);
    if (!ret)
        ret = make_devices(m, config, err);
    if (!ret)
        ret = machine_load(m, err);
    return ret;
}

/* The guest's memory map (E820): RAM but for the EBDA, the VGA hole and the BIOS area with the ACPI
 * tables; the PCI Express configuration space, which PCI Firmware 3.2, 4.1.2 wants reserved. */
static void make_map(const struct mull_machine *m, struct mull_boot_map *map)
{
    map->count = 0;
    map->range[map->count++] = (struct mull_boot_range){0, EBDA_BASE, MULL_BOOT_RAM};
    map->range[map->count++] =
        (struct mull_boot_range){EBDA_BASE, 0xa0000 - EBDA_BASE, MULL_BOOT_RESERVED};
    map->range[map->count++] = (struct mull_boot_range){
        m->tables.reserved_base, m->tables.reserved_size, MULL_BOOT_RESERVED};
    map->range[map->count++] =
        (struct mull_boot_range){0x100000, m->ram_low - 0x100000, MULL_BOOT_RAM};
    map->range[map->count++] =
        (struct mull_boot_range){MULL_ECAM_BASE, MULL_ECAM_SIZE, MULL_BOOT_RESERVED};
    if (m->ram_high)
        map->range[map->count++] =
            (struct mull_boot_range){MULL_RAM_HIGH_BASE, m->ram_high, MULL_BOOT_RAM};
}

int machine_load(struct mull_machine *m, struct mull_error *err)
{
    int ret = mull_platform_finish(m->platform, &m->tables, err);
    if (ret)
        return ret;
    struct mull_cpu_state *s = aligned_alloc(64, (sizeof(*s) + 63) & ~63ul);
    if (!s)
        return mull_fail(err, ENOMEM, "vCPUs: no memory");
    struct mull_boot_map map;
    make_map(m, &map);
    if (m->firmware)
        ret = mull_firmware_load(m->firmware, m->memory, err);
    for (unsigned i = 0; i < m->cpus && !ret; i++) {
        if (m->firmware)
            mull_cpu_state_reset(s, i, i == 0);
        else if (i == 0)
            ret = mull_boot_load(m->boot, m->memory, &map, m->tables.rsdp, s, err);
        else
            mull_cpu_state_reset(s, i, false);
        if (!ret)
            ret = m->engine->vcpu_set(m->vcpu[i].vcpu, s, err);
    }
    free(s);
    return ret;
}

static void act(struct mull_device *device, enum machine_device_action action)
{
    for (; device; device = device->next) {
        if (action == MACHINE_RESET)
            device->ops->reset(device);
        else if (action == MACHINE_QUIESCE && device->ops->quiesce)
            device->ops->quiesce(device);
        else if (action == MACHINE_RESUME && device->ops->resume)
            device->ops->resume(device);
    }
}

void machine_devices(struct mull_machine *m, enum machine_device_action action)
{
    /* Devices use the platform: they stop before it and go on after it. */
    if (action == MACHINE_QUIESCE) {
        act(m->devices, action);
        act(mull_platform_devices(m->platform), action);
    } else {
        act(mull_platform_devices(m->platform), action);
        act(m->devices, action);
    }
}

void machine_disassemble(struct mull_machine *m)
{
    while (m->devices) {
        struct mull_device *device = m->devices;
        m->devices = device->next;
        device->ops->destroy(device);
    }
    for (unsigned i = 0; i < MULL_CONFIG_CONSOLES; i++)
        mull_chardev_destroy(m->chardev[i]);
    for (unsigned i = 0; i < MULL_CONFIG_NETWORKS; i++)
        mull_netdev_destroy(m->netdev[i]);
    for (unsigned i = 0; i < MULL_CONFIG_DISKS; i++)
        mull_block_close(m->block[i]);
    for (unsigned i = 0; i < MULL_CONFIG_CDROMS; i++)
        mull_block_close(m->cdrom_block[i]);
    machine_hotplug_fini(m);
    mull_platform_destroy(m->platform);
    for (unsigned i = 0; i < m->cpus; i++)
        if (m->vcpu[i].vcpu)
            m->engine->vcpu_destroy(m->vcpu[i].vcpu);
    if (m->vm)
        m->engine->vm_destroy(m->vm);
    mull_perf_map_destroy(m->perf_map);
    machine_limits_close(m);
    mull_loop_destroy(m->loop);
    mull_clock_destroy(m->clock);
    mull_memory_destroy(m->memory);
    mull_boot_close(m->boot);
    mull_firmware_close(m->firmware);
    free(m->acpi);
    free(m->vga_rom);
    for (unsigned i = 0; i < MULL_NICS_THERE; i++)
        free(m->net_rom[i].data);
    free(m->name);
}
