/*
 * What lets a guest and its host work together beside disks, networks and consoles: shared folders,
 * memory given back.
 */
#include <stdio.h>

#include "machine/internal.h"

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

static int make_balloon(struct mull_machine *m, const struct mull_device_env *env,
                        struct mull_error *err)
{
    const struct mull_virtio_balloon_config cfg = {.name = "virtio-balloon.0", .devfn = -1};
    struct mull_device *device;
    int ret = mull_virtio_balloon_create(env, mull_platform_pci(m->platform), &cfg, &device, err);
    if (ret)
        return ret;
    machine_add_device(m, device);
    m->balloon = device;
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
    return ret;
}
