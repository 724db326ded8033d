/*
 * What lets a guest and its host work together beside disks, networks and consoles: shared folders,
 * memory given back, virtual sockets, a watchdog, a TPM.
 */
#include <errno.h>
#include <stdio.h>

#include "device/legacy/i6300esb.h"
#include "device/legacy/tpm_crb.h"
#include "device/virtio/balloon.h"
#include "device/vmware/tools.h"
#include "machine/internal.h"
#include "platform/lapic.h"

static int make_share(struct mull_machine *m, const struct mull_device_env *env, unsigned i,
                      const struct mull_share_config *share, struct mull_error *err)
{
    struct mull_device *device;
    char name[32];
    snprintf(name, sizeof(name), "virtio-share.%u", i);
    const struct mull_virtio_share_config cfg = {
        .name = name,
        .devfn = -1,
        .type = share->plan9 ? MULL_SHARE_9P : MULL_SHARE_VIRTIOFS,
        .tag = share->tag,
        .path = share->path,
        .readonly = share->readonly,
        .socket = -1,
    };
    int ret = mull_virtio_share_create(env, mull_platform_pci(m->platform), &cfg, &device, err);
    if (!ret)
        machine_add_device(m, device);
    return ret;
}

/* The guest has not fed its watchdog. Loop's thread. */
static void watchdog_expired(void *opaque)
{
    struct mull_machine *m = opaque;
    mull_log(m->log, MULL_LOG_WARN, "guest: it has not fed its watchdog; action: %s",
             mull_watchdog_names[m->watchdog]);
    switch (m->watchdog) {
    case MULL_WATCHDOG_RESET:
        machine_event_reset(m);
        break;
    case MULL_WATCHDOG_POWEROFF:
        machine_event_poweroff(m);
        break;
    case MULL_WATCHDOG_PAUSE:
        machine_event_pause(m);
        break;
    case MULL_WATCHDOG_NMI:
        for (unsigned i = 0; i < m->cpus; i++)
            if (m->vcpu[i].vcpu)
                m->engine->vcpu_signal(m->vcpu[i].vcpu, MULL_SIGNAL_NMI, 0);
        break;
    case MULL_WATCHDOG_OFF:
    case MULL_WATCHDOG_NONE:
        break;
    }
}

static int make_watchdog(struct mull_machine *m, const struct mull_device_env *env,
                         enum mull_watchdog action, struct mull_error *err)
{
    const struct mull_watchdog_config cfg = {
        .name = "i6300esb.0", .devfn = -1, .opaque = m, .expired = watchdog_expired};
    struct mull_device *device;
    m->watchdog = action;
    int ret = mull_i6300esb_create(env, mull_platform_pci(m->platform), &cfg, &device, err);
    if (!ret)
        machine_add_device(m, device);
    return ret;
}

static int make_tpm(struct mull_machine *m, const struct mull_device_env *env, const char *folder,
                    struct mull_error *err)
{
    const struct mull_tpm_config cfg = {.folder = folder};
    struct mull_device *device;
    int ret = mull_tpm_crb_create(env, &cfg, &device, err);
    if (!ret)
        machine_add_device(m, device);
    return ret;
}

/* The guest has told which pages are free, or has gone. Loop's thread. */
static void balloon_hinted(void *opaque)
{
    struct mull_machine *m = opaque;
    bool running = m->state == MULL_MACHINE_RUNNING;
    if (running) {
        machine_hold_vcpus(m);
        machine_devices(m, MACHINE_QUIESCE);
    }
    mull_balloon_end_hints(m->balloon);
    if (running) {
        machine_devices(m, MACHINE_RESUME);
        machine_release_vcpus(m);
    }
}

int mull_machine_trim(struct mull_machine *m, struct mull_error *err)
{
    if (!m->balloon)
        return mull_fail(err, ENODEV, "this machine has no balloon; start it with --balloon on");
    if (m->state != MULL_MACHINE_RUNNING)
        return mull_fail(err, EINVAL, "machine %s: not running; resume it first", m->name);
    machine_hold_vcpus(m);
    int ret = mull_balloon_ask_hints(m->balloon, err);
    machine_release_vcpus(m);
    return ret;
}

static int make_balloon(struct mull_machine *m, const struct mull_device_env *env,
                        struct mull_error *err)
{
    const struct mull_virtio_balloon_config cfg = {
        .name = "virtio-balloon.0", .devfn = -1, .opaque = m, .hinted = balloon_hinted};
    struct mull_device *device;
    int ret = mull_virtio_balloon_create(env, mull_platform_pci(m->platform), &cfg, &device, err);
    if (ret)
        return ret;
    machine_add_device(m, device);
    m->balloon = device;
    return 0;
}

static int make_vsock(struct mull_machine *m, const struct mull_device_env *env,
                      const struct mull_machine_config *config, struct mull_error *err)
{
    const struct mull_virtio_vsock_config cfg = {.name = "virtio-vsock.0",
                                                 .devfn = -1,
                                                 .cid = config->vsock_cid,
                                                 .path = config->vsock_path};
    struct mull_device *device;
    int ret = mull_virtio_vsock_create(env, mull_platform_pci(m->platform), &cfg, &device, err);
    if (!ret)
        machine_add_device(m, device);
    return ret;
}

static void tools_call(void *opaque, uint64_t gpr[16])
{
    mull_tools_call(opaque, gpr);
}

static void parse_uuid(const char *text, uint8_t out[16])
{
    for (unsigned i = 0; text && i < 16; i++) {
        unsigned value;
        if (*text == '-')
            text++;
        if (sscanf(text, "%2x", &value) != 1)
            return;
        out[i] = (uint8_t)value;
        text += 2;
    }
}

static int make_tools(struct mull_machine *m, const struct mull_device_env *env,
                      const struct mull_machine_config *config, struct mull_error *err)
{
    struct mull_tools_config cfg = {.memory = config->memory, .lapic_hz = MULL_LAPIC_TIMER_HZ};
    parse_uuid(config->uuid, cfg.uuid);
    int ret = mull_tools_create(env, &cfg, &m->tools, err);
    if (ret)
        return ret;
    machine_add_device(m, m->tools);
    mull_platform_set_call(m->platform, MULL_BACKDOOR_PORT, MULL_BACKDOOR_MAGIC, tools_call,
                           m->tools);
    return 0;
}

int machine_interface_devices(struct mull_machine *m, const struct mull_device_env *env,
                              const struct mull_machine_config *config, struct mull_error *err)
{
    int ret = 0;
    for (unsigned i = 0; i < config->share_count && !ret; i++)
        ret = make_share(m, env, i, &config->share[i], err);
    if (!ret && config->balloon)
        ret = make_balloon(m, env, err);
    if (!ret && config->vmware_tools)
        ret = make_tools(m, env, config, err);
    if (!ret && config->vsock_path)
        ret = make_vsock(m, env, config, err);
    if (!ret && config->tpm && config->tpm_state)
        ret = make_tpm(m, env, config->tpm_state, err);
    if (!ret && config->watchdog != MULL_WATCHDOG_OFF)
        ret = make_watchdog(m, env, config->watchdog, err);
    return ret;
}
