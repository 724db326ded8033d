/*
 * The virtual machine generation ID. See vmgenid.h.
 */
#include "platform/vmgenid.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define ID_SIZE 16

struct mull_vmgenid {
    struct mull_device device;
    struct mull_acpi_pm *pm;
    struct mull_region *region;
    pthread_mutex_t lock; /* id */
    uint8_t id[ID_SIZE];
    bool loaded;            /* the ID is new since a load: tell the guest when it goes on */
};

static uint64_t id_read(void *opaque, unsigned cpu, uint64_t offset, unsigned size)
{
    struct mull_vmgenid *g = opaque;
    uint64_t value = 0;

    pthread_mutex_lock(&g->lock);
    if (offset < ID_SIZE && size <= ID_SIZE - offset)
        memcpy(&value, g->id + offset, size);
    pthread_mutex_unlock(&g->lock);
    return value;
}

static void id_write(void *opaque, unsigned cpu, uint64_t offset, unsigned size, uint64_t value) {}

static int new_id(struct mull_vmgenid *g)
{
    uint8_t id[ID_SIZE];
    size_t have = 0;

    while (have < sizeof(id)) {
        ssize_t n = getrandom(id + have, sizeof(id) - have, 0);
        if (n < 0 && errno != EINTR)
            return -errno;
        have += n > 0 ? (size_t)n : 0;
    }
    pthread_mutex_lock(&g->lock);
    memcpy(g->id, id, sizeof(id));
    pthread_mutex_unlock(&g->lock);
    return 0;
}

void mull_vmgenid_renew(struct mull_vmgenid *g)
{
    if (!new_id(g))
        mull_acpi_pm_event(g->pm, MULL_VMGENID_EVENT);
}

static void reset(struct mull_device *device)
{
    /* The guest begins anew and reads the ID first of all: the same machine, the same ID. */
}

static void resume(struct mull_device *device)
{
    struct mull_vmgenid *g = device->object;
    if (g->loaded)
        mull_acpi_pm_event(g->pm, MULL_VMGENID_EVENT);
    g->loaded = false;
}

static void destroy(struct mull_device *device)
{
    struct mull_vmgenid *g = device->object;
    if (g->region)
        mull_region_remove(g->region);
    pthread_mutex_destroy(&g->lock);
    free(g);
}

/* A state that is loaded has been left behind by somebody: from here on there are two. That is why
 * the ID itself is not part of it. */
static int after_load(void *object, uint32_t version, struct mull_error *err)
{
    struct mull_vmgenid *g = object;
    int ret = new_id(g);
    g->loaded = true;
    return ret ? mull_fail(err, -ret, "vmgenid: no random numbers: %s", strerror(-ret)) : 0;
}

static const struct mull_state_desc desc = {
    .name = "vmgenid",
    .version = 1,
    .oldest = 1,
    .fields = (const struct mull_field[]){MULL_FIELDS_END},
    .after_load = after_load,
};

static const struct mull_device_ops ops = {
    .state = &desc, .reset = reset, .resume = resume, .destroy = destroy};

static const struct mull_region_ops region_ops = {
    .read = id_read, .write = id_write, .min_size = 1, .max_size = 8};

int mull_vmgenid_create(const struct mull_device_env *env, struct mull_acpi_pm *pm,
                        struct mull_vmgenid **out, struct mull_error *err)
{
    struct mull_vmgenid *g = calloc(1, sizeof(*g));
    if (!g)
        return mull_fail(err, ENOMEM, "vmgenid: no memory");
    g->device = (struct mull_device){.ops = &ops, .name = "vmgenid", .object = g};
    g->pm = pm;
    pthread_mutex_init(&g->lock, NULL);
    int ret = new_id(g);
    if (ret)
        ret = mull_fail(err, -ret, "vmgenid: no random numbers: %s", strerror(-ret));
    else
        ret = mull_region_add(env->memory, MULL_SPACE_MMIO, MULL_VMGENID_BASE, MULL_VMGENID_SIZE,
                              &region_ops, g, "vmgenid", &g->region, err);
    if (ret) {
        destroy(&g->device);
        return ret;
    }
    *out = g;
    return 0;
}

struct mull_device *mull_vmgenid_device(struct mull_vmgenid *g)
{
    return &g->device;
}
