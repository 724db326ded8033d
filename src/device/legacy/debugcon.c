/*
 * The debug port at 402h: firmware and boot loaders write what they do to it, a character at a
 * time; each line goes to the machine's log. Knows nothing of who writes.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "device/devices.h"

#define PORT 0x402u
#define PRESENT 0xe9u /* what a read gives where the port is there */
#define LINE_MAX_BYTES 200u

struct debugcon {
    struct mull_device device;
    const struct mull_log *log;
    pthread_mutex_t lock;
    char line[LINE_MAX_BYTES + 1];
    uint32_t have;
    struct mull_region *region;
};

static uint64_t port_read(void *opaque, unsigned cpu, uint64_t offset, unsigned size)
{
    return PRESENT;
}

static void put(struct debugcon *d, char c)
{
    if (c >= ' ' && c <= '~')
        d->line[d->have++] = c;
    if ((c != '\n' || !d->have) && d->have < LINE_MAX_BYTES)
        return;
    d->line[d->have] = '\0';
    mull_log(d->log, MULL_LOG_INFO, "firmware: %s", d->line);
    d->have = 0;
}

static void port_write(void *opaque, unsigned cpu, uint64_t offset, unsigned size, uint64_t value)
{
    struct debugcon *d = opaque;

    pthread_mutex_lock(&d->lock);
    put(d, (char)value);
    pthread_mutex_unlock(&d->lock);
}

static const struct mull_region_ops port_ops = {port_read, port_write, 1, 1};

static void reset(struct mull_device *device)
{
    struct debugcon *d = (struct debugcon *)device;

    pthread_mutex_lock(&d->lock);
    d->have = 0;
    pthread_mutex_unlock(&d->lock);
}

static void destroy(struct mull_device *device)
{
    struct debugcon *d = (struct debugcon *)device;

    mull_region_remove(d->region);
    pthread_mutex_destroy(&d->lock);
    free(d);
}

static int after_load(void *object, uint32_t version, struct mull_error *err)
{
    struct debugcon *d = object;

    if (d->have >= LINE_MAX_BYTES)
        d->have = 0;
    return 0;
}

static const struct mull_field fields[] = {
    MULL_FIELD_BLOB(struct debugcon, line),
    MULL_FIELD(struct debugcon, have),
    MULL_FIELDS_END,
};
static const struct mull_state_desc desc = {
    .name = "debugcon", .version = 1, .oldest = 1, .fields = fields, .after_load = after_load};
static const struct mull_device_ops ops = {.state = &desc, .reset = reset, .destroy = destroy};

int mull_debugcon_create(const struct mull_device_env *env, struct mull_device **out,
                         struct mull_error *err)
{
    struct debugcon *d = calloc(1, sizeof(*d));

    if (!d)
        return mull_fail(err, ENOMEM, "debug port: no memory");
    d->device = (struct mull_device){.ops = &ops, .name = "debugcon", .object = d};
    d->log = env->log;
    pthread_mutex_init(&d->lock, NULL);
    int code = mull_region_add(env->memory, MULL_SPACE_PORT, PORT, 1, &port_ops, d, "debug port",
                               &d->region, err);
    if (code < 0) {
        destroy(&d->device);
        return code;
    }
    *out = &d->device;
    return 0;
}
