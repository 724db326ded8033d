/*
 * The common part of every virtio device. See virtio.h; section numbers are those of virtio 1.2.
 */
#include "device/virtio/virtio.h"

#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#ifndef VIRTIO_F_RING_RESET
#define VIRTIO_F_RING_RESET 40
#endif

#define COMMON_FEATURES                                                                            \
    (MULL_BIT(VIRTIO_F_VERSION_1) | MULL_BIT(VIRTIO_RING_F_EVENT_IDX) |                            \
     MULL_BIT(VIRTIO_RING_F_INDIRECT_DESC) | MULL_BIT(VIRTIO_F_RING_RESET))
#define STATUS_MASK                                                                                \
    (VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_DRIVER_OK |            \
     VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_NEEDS_RESET | VIRTIO_CONFIG_S_FAILED)
#define MAX_COMPLAINTS 8
#define TURN_BUDGET 512 /* chains of one queue before everybody else has a turn */

/* A bit of kicks beside those of the queues: DRIVER_OK was set. */
#define KICK_START MULL_BIT(31)

bool mull_virtio_driver_ok(const struct mull_virtio *v)
{
    return (v->status & VIRTIO_CONFIG_S_DRIVER_OK) && !(v->status & VIRTIO_CONFIG_S_NEEDS_RESET) &&
           !v->resetting;
}

bool mull_virtio_running(const struct mull_virtio *v)
{
    return mull_virtio_driver_ok(v) && v->started && !v->paused;
}

/* ---- Kicks ---- */

static void wake(struct mull_virtio *v, uint32_t bits)
{
    uint64_t one = 1;
    if (atomic_fetch_or(&v->kicks, bits))
        return; /* the loop is on its way */
    ssize_t n;
    do
        n = write(v->kick_fd, &one, sizeof(one));
    while (n < 0 && errno == EINTR);
}

void mull_virtio_kick(struct mull_virtio *v, unsigned queue)
{
    if (queue < v->nqueues)
        wake(v, 1u << queue);
}

static void run_queue(struct mull_virtio *v, unsigned index)
{
    struct mull_virtqueue *q = &v->queues[index];

    if (!mull_virtqueue_live(q))
        return;
    q->budget = TURN_BUDGET;
    v->ops->kick(v, index);
    q->budget = UINT32_MAX;
    if (q->exhausted) {
        q->exhausted = false;
        mull_virtio_kick(v, index);
    }
}

void mull_virtio_notified(struct mull_virtio *v, unsigned queue)
{
    if (queue >= v->nqueues)
        return;
    if (!v->queues[queue].in_place) {
        mull_virtio_kick(v, queue);
        return;
    }
    mull_virtio_lock(v);
    run_queue(v, queue);
    mull_virtio_unlock(v);
}

static void kicked(void *opaque, uint32_t events)
{
    struct mull_virtio *v = opaque;
    uint64_t count;
    ssize_t n = read(v->kick_fd, &count, sizeof(count));
    (void)n;
    uint32_t bits = atomic_exchange(&v->kicks, 0);

    if (atomic_load(&v->pci.doorbells.armed) || !bits)
        bits = ~0u; /* an engine's event does not say which queue */

    mull_virtio_lock(v);
    if (mull_virtio_driver_ok(v) && !v->started && !v->paused) {
        v->started = true;
        bits = ~0u; /* a driver may fill its queues before DRIVER_OK */
        if (v->ops->start)
            v->ops->start(v);
    }
    for (unsigned i = 0; i < v->nqueues; i++)
        if (bits >> i & 1)
            run_queue(v, i);
    mull_virtio_unlock(v);
}

/* ---- The lock, and what waits for its end ---- */

void mull_virtio_lock(struct mull_virtio *v)
{
    pthread_mutex_lock(&v->lock);
}

static void finish_reset(struct mull_virtio *v)
{
    v->resetting = false;
    v->started = false;
    v->status = 0;
    v->driver_features = 0;
    v->config_vector = MULL_VIRTIO_NO_VECTOR;
    v->due_queues = 0;
    v->due_config = false;
    for (unsigned i = 0; i < v->nqueues; i++)
        mull_virtqueue_clear(&v->queues[i]);
    if (v->ops->reset)
        v->ops->reset(v);
    if (v->transport)
        v->transport->reset(v);
}

static void finish_resets(struct mull_virtio *v)
{
    uint32_t in_flight = 0;
    for (unsigned i = 0; i < v->nqueues; i++) {
        struct mull_virtqueue *q = &v->queues[i];
        in_flight += q->in_flight;
        if (q->resetting && !q->in_flight) {
            mull_virtqueue_clear(q);
            if (v->ops->queue_reset)
                v->ops->queue_reset(v, i);
        }
    }
    if (v->resetting && !in_flight)
        finish_reset(v);
}

void mull_virtio_unlock(struct mull_virtio *v)
{
    uint16_t vectors[MULL_VIRTIO_MAX_QUEUES];
    unsigned count = 0;

    finish_resets(v);
    for (unsigned i = 0; v->due_queues; i++, v->due_queues >>= 1)
        if (v->due_queues & 1)
            vectors[count++] = v->queues[i].vector;
    bool config = v->due_config;
    uint16_t config_vector = v->config_vector;
    v->due_config = false;
    pthread_mutex_unlock(&v->lock);

    for (unsigned i = 0; i < count; i++)
        v->transport->queue_interrupt(v, vectors[i]);
    if (config)
        v->transport->config_interrupt(v, config_vector);
}

/* ---- Status and features ---- */

void mull_virtio_broken(struct mull_virtio *v, const char *why)
{
    if (v->status & VIRTIO_CONFIG_S_NEEDS_RESET)
        return;
    mull_log_limited(v->env.log, v->complaints, MAX_COMPLAINTS, MULL_LOG_WARN,
                     "%s: the guest's driver broke the virtio rules: %s; the device stops until "
                     "the driver resets it",
                     v->device.name, why);
    /* 2.1.2: with DRIVER_OK the driver hears of it by a configuration change. */
    if (v->status & VIRTIO_CONFIG_S_DRIVER_OK)
        v->due_config = true;
    v->due_queues = 0;
    v->status |= VIRTIO_CONFIG_S_NEEDS_RESET;
}

void mull_virtio_config_changed(struct mull_virtio *v)
{
    v->config_generation++;
    if (mull_virtio_driver_ok(v))
        v->due_config = true;
}

uint8_t mull_virtio_get_status(const struct mull_virtio *v)
{
    return v->status;
}

void mull_virtio_set_status(struct mull_virtio *v, uint8_t status)
{
    if (v->resetting)
        return;
    if (!status) {
        /* Reads as 0 once nothing is in flight any more (4.1.4.3.1): when the lock is dropped, or
         * when the last chain is given back. */
        v->resetting = true;
        return;
    }
    /* Bits only ever get set (2.1.1); NEEDS_RESET is ours. */
    uint8_t added = status & STATUS_MASK & ~v->status & ~VIRTIO_CONFIG_S_NEEDS_RESET;
    if (added & VIRTIO_CONFIG_S_FEATURES_OK) {
        bool ok =
            !(v->driver_features & ~v->device_features) && mull_virtio_has(v, VIRTIO_F_VERSION_1);
        if (!ok)
            added &= ~VIRTIO_CONFIG_S_FEATURES_OK;
    }
    if ((added & VIRTIO_CONFIG_S_DRIVER_OK) && !((v->status | added) & VIRTIO_CONFIG_S_FEATURES_OK))
        added &= ~VIRTIO_CONFIG_S_DRIVER_OK; /* 3.1.1: not before the features are settled */
    v->status |= added;
    if (added & VIRTIO_CONFIG_S_DRIVER_OK)
        wake(v, KICK_START);
}

void mull_virtio_set_features(struct mull_virtio *v, unsigned word, uint32_t bits)
{
    if (word > 1 || (v->status & VIRTIO_CONFIG_S_FEATURES_OK))
        return;
    v->driver_features &= word ? 0xffffffffull : 0xffffffffull << 32;
    v->driver_features |= (uint64_t)bits << (32 * word);
}

void mull_virtio_reset_queue(struct mull_virtio *v, unsigned queue)
{
    if (queue < v->nqueues && v->queues[queue].enabled)
        v->queues[queue].resetting = true;
}

/* ---- The device's configuration space ---- */

uint32_t mull_virtio_read_config(struct mull_virtio *v, uint64_t offset, unsigned size)
{
    uint32_t value = 0;
    if (offset < v->config_size && size <= v->config_size - offset && size <= 4)
        memcpy(&value, v->config + offset, size);
    return value;
}

void mull_virtio_write_config(struct mull_virtio *v, uint64_t offset, unsigned size, uint32_t value)
{
    if (!v->ops->config_written || offset >= v->config_size || size > v->config_size - offset ||
        size > 4)
        return;
    memcpy(v->config + offset, &value, size);
    v->ops->config_written(v, (unsigned)offset, size);
}

/* ---- Life ---- */

void mull_virtio_device_reset(struct mull_device *device)
{
    struct mull_virtio *v = (struct mull_virtio *)device;
    if (v->ops->drain)
        v->ops->drain(v);
    mull_virtio_lock(v);
    v->resetting = true;
    mull_virtio_unlock(v);
    if (v->transport)
        mull_pci_function_reset(&v->pci.function);
}

void mull_virtio_device_quiesce(struct mull_device *device)
{
    struct mull_virtio *v = (struct mull_virtio *)device;
    mull_virtio_lock(v);
    v->paused = true;
    mull_virtio_unlock(v);
    if (v->ops->drain)
        v->ops->drain(v);
}

void mull_virtio_device_resume(struct mull_device *device)
{
    struct mull_virtio *v = (struct mull_virtio *)device;
    mull_virtio_lock(v);
    v->paused = false;
    mull_virtio_unlock(v);
    /* Kicks may have been dropped meanwhile, and after a restore there were none. */
    wake(v, ~0u);
}

int mull_virtio_init(struct mull_virtio *v, const struct mull_device_env *env, const char *name,
                     uint16_t id, uint64_t features, const struct mull_virtio_ops *ops,
                     struct mull_error *err)
{
    v->env = *env;
    v->ops = ops;
    v->id = id;
    v->device_features = features | COMMON_FEATURES;
    if (env->packed_rings)
        v->device_features |= MULL_BIT(VIRTIO_F_RING_PACKED);
    v->config_vector = MULL_VIRTIO_NO_VECTOR;
    v->device.object = v;
    snprintf(v->device.name, sizeof(v->device.name), "%s", name);
    pthread_mutex_init(&v->lock, NULL);
    pthread_mutex_init(&v->pci.isr_lock, NULL);

    v->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (v->kick_fd < 0)
        return mull_fail(err, errno, "%s: cannot create an eventfd: %s", name, strerror(errno));
    return mull_loop_watch(env->loop, v->kick_fd, EPOLLIN, kicked, v, &v->kick_source, err);
}

void mull_virtio_add_queue(struct mull_virtio *v, uint16_t max_size)
{
    struct mull_virtqueue *q = &v->queues[v->nqueues++];
    q->device = v;
    q->max_size = max_size;
    mull_virtqueue_clear(q);
}

void mull_virtio_fini(struct mull_virtio *v)
{
    if (v->transport)
        mull_virtio_pci_detach(v);
    mull_source_remove(v->kick_source);
    if (v->kick_fd >= 0)
        close(v->kick_fd);
    pthread_mutex_destroy(&v->pci.isr_lock);
    pthread_mutex_destroy(&v->lock);
}

/* ---- State ---- */

static int virtio_loaded(void *object, uint32_t version, struct mull_error *err)
{
    struct mull_virtio *v = object;

    if (v->driver_features & ~v->device_features)
        return mull_fail(
            err, ENOTSUP,
            "%s: the saved machine uses features 0x%llx that this device does not have "
            "here; give it the same back end and options",
            v->device.name, (unsigned long long)(v->driver_features & ~v->device_features));
    v->status &= STATUS_MASK;
    /* Whatever was on its way when this was saved has long been completed. */
    v->due_queues = 0;
    v->due_config = false;
    return 0;
}

const struct mull_state_desc mull_virtio_desc = {
    .name = "virtio",
    .version = 1,
    .oldest = 1,
    .fields =
        (const struct mull_field[]){
            MULL_FIELD(struct mull_virtio, driver_features), MULL_FIELD(struct mull_virtio, status),
            MULL_FIELD(struct mull_virtio, started),
            MULL_FIELD(struct mull_virtio, config_generation),
            MULL_FIELD(struct mull_virtio, config_vector),
            MULL_FIELD_NESTED_ARRAY(struct mull_virtio, queues, &mull_virtqueue_desc),
            MULL_FIELD_NESTED(struct mull_virtio, pci, &mull_virtio_pci_desc), MULL_FIELDS_END},
    .after_load = virtio_loaded,
};
