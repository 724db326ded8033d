/*
 * The NVMe controller's registers and life (NVM Express 1.4, chapter 3). Guests write registers
 * from their vCPUs' threads; commands are carried out in the loop's thread.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device/storage/nvme_internal.h"

/* Memory page size 4 KiB only, NVM command set, 10 s to become ready, contiguous queues. */
#define CAP (1ull << 37 | 20ull << 24 | 1ull << 16 | (NVME_MAX_ENTRIES - 1))
#define VERSION 0x00010400u
#define CC_WRITABLE 0x00fffff1u
#define CC_SETTINGS 0x00003ff0u /* command set, page size, arbitration: all 0 */
#define DOORBELLS 0x1000u
#define BAR_SIZE 0x4000u

/* ---- Enabling and disabling (7.3, 7.6) ---- */

static void enable(struct nvme *n)
{
    uint32_t sq = (n->aqa & 0xfff) + 1, cq = (n->aqa >> 16 & 0xfff) + 1;

    n->csts &= ~CSTS_SHUT;
    if ((n->cc & CC_SETTINGS) || sq < 2 || sq > NVME_MAX_ENTRIES || cq < 2 ||
        cq > NVME_MAX_ENTRIES) {
        n->csts |= CSTS_FATAL;
        return;
    }
    n->sq[0] = (struct nvme_sq){.valid = true, .base = n->asq, .size = sq};
    n->cq[0] = (struct nvme_cq){
        .valid = true, .interrupts = true, .phase = true, .base = n->acq, .size = cq};
    n->csts |= CSTS_READY;
}

static void disable(struct nvme *n)
{
    nvme_forget(n);
    nvme_admin_reset(n);
    n->interrupt_mask = 0;
    n->csts &= ~CSTS_FATAL;
    n->stopping = n->in_flight > 0; /* not ready: when the last of them has ended */
    if (!n->stopping)
        n->csts &= ~CSTS_READY;
    nvme_interrupts(n);
}

static void set_cc(struct nvme *n, uint32_t value)
{
    uint32_t was = n->cc;

    n->cc = value & CC_WRITABLE;
    if (n->stopping) /* a driver has to wait until it is not ready any more */
        n->cc &= ~CC_ENABLE;
    if ((n->cc & CC_ENABLE) && !(was & CC_ENABLE))
        enable(n);
    else if (!(n->cc & CC_ENABLE) && (was & CC_ENABLE))
        disable(n);
    if ((n->cc & CC_SHUTDOWN) && !(n->csts & CSTS_SHUT)) {
        n->csts |= CSTS_SHUT_BUSY;
        nvme_post(n);
    }
}

/* ---- Registers ---- */

static uint64_t reg_read(void *opaque, unsigned cpu, uint64_t offset, unsigned size)
{
    struct nvme *n = opaque;
    uint32_t value = 0;

    pthread_mutex_lock(&n->lock);
    switch (offset) {
    case 0x00:
        value = (uint32_t)CAP;
        break;
    case 0x04:
        value = (uint32_t)(CAP >> 32);
        break;
    case 0x08:
        value = VERSION;
        break;
    case 0x0c:
    case 0x10:
        value = n->interrupt_mask;
        break;
    case 0x14:
        value = n->cc;
        break;
    case 0x1c:
        value = n->csts;
        break;
    case 0x24:
        value = n->aqa;
        break;
    case 0x28:
        value = (uint32_t)n->asq;
        break;
    case 0x2c:
        value = (uint32_t)(n->asq >> 32);
        break;
    case 0x30:
        value = (uint32_t)n->acq;
        break;
    case 0x34:
        value = (uint32_t)(n->acq >> 32);
        break;
    default:
        break;
    }
    pthread_mutex_unlock(&n->lock);
    return value;
}

static void set_half(uint64_t *reg, bool high, uint32_t value)
{
    if (high)
        *reg = (uint32_t)*reg | (uint64_t)value << 32;
    else
        *reg = (*reg & ~0xffffffffull) | (value & ~(NVME_PAGE - 1));
}

static void reg_write(void *opaque, unsigned cpu, uint64_t offset, unsigned size, uint64_t value)
{
    struct nvme *n = opaque;
    uint32_t v = (uint32_t)value;

    pthread_mutex_lock(&n->lock);
    if (offset >= DOORBELLS) {
        if (n->csts & CSTS_READY)
            nvme_doorbell(n, (unsigned)(offset - DOORBELLS) / 4, v);
    } else if (offset == 0x0c || offset == 0x10) {
        n->interrupt_mask = offset == 0x0c ? n->interrupt_mask | v : n->interrupt_mask & ~v;
        nvme_interrupts(n);
    } else if (offset == 0x14) {
        set_cc(n, v);
    } else if (offset == 0x24) {
        n->aqa = v & 0x0fff0fff;
    } else if (offset == 0x28 || offset == 0x2c) {
        set_half(&n->asq, offset & 4, v);
    } else if (offset == 0x30 || offset == 0x34) {
        set_half(&n->acq, offset & 4, v);
    }
    pthread_mutex_unlock(&n->lock);
}

static const struct mull_region_ops reg_ops = {reg_read, reg_write, 4, 4};

/* ---- Life ---- */

static struct nvme *of(struct mull_device *device)
{
    return (struct nvme *)device;
}

static void reset_controller(struct nvme *n)
{
    nvme_forget(n);
    n->cc = n->csts = n->aqa = n->interrupt_mask = 0;
    n->asq = n->acq = 0;
    n->stopping = false;
    memset(n->error, 0, sizeof(n->error));
    nvme_admin_reset(n);
    nvme_interrupts(n);
}

/* Held requests would move bytes from or to memory that is used anew. */
static void cancel(struct nvme *n)
{
    mull_block_drain(n->block);
    mull_block_cancel(n->block);
}

static void reset(struct mull_device *device)
{
    struct nvme *n = of(device);

    pthread_mutex_lock(&n->lock);
    reset_controller(n);
    pthread_mutex_unlock(&n->lock);
    cancel(n);
    mull_pci_function_reset(&n->pci);
    n->power_cycles++;
}

static void quiesce(struct mull_device *device)
{
    struct nvme *n = of(device);

    pthread_mutex_lock(&n->lock);
    n->paused = true;
    pthread_mutex_unlock(&n->lock);
    mull_block_drain(n->block);
}

static void resume(struct mull_device *device)
{
    struct nvme *n = of(device);

    pthread_mutex_lock(&n->lock);
    n->paused = false;
    nvme_run(n);
    pthread_mutex_unlock(&n->lock);
}

static void destroy(struct mull_device *device)
{
    struct nvme *n = of(device);

    pthread_mutex_lock(&n->lock);
    nvme_forget(n);
    pthread_mutex_unlock(&n->lock);
    cancel(n);
    mull_pci_function_fini(&n->pci);
    while (n->idle) {
        struct nvme_request *next = n->idle->next;
        free(n->idle);
        n->idle = next;
    }
    pthread_mutex_destroy(&n->lock);
    free(n);
}

/* ---- State ---- */

static bool queues_make_sense(const struct nvme *n)
{
    for (unsigned i = 0; i < NVME_QUEUES; i++) {
        const struct nvme_sq *sq = &n->sq[i];
        const struct nvme_cq *cq = &n->cq[i];
        if (sq->valid && (sq->size < 2 || sq->size > NVME_MAX_ENTRIES || sq->head >= sq->size ||
                          sq->tail >= sq->size || sq->cq >= NVME_QUEUES || !n->cq[sq->cq].valid))
            return false;
        if (cq->valid && (cq->size < 2 || cq->size > NVME_MAX_ENTRIES || cq->head >= cq->size ||
                          cq->tail >= cq->size || cq->vector >= NVME_QUEUES))
            return false;
    }
    return n->events <= NVME_EVENTS &&
           (!(n->csts & CSTS_READY) || (n->sq[0].valid && n->cq[0].valid));
}

static int loaded(void *object, uint32_t version, struct mull_error *err)
{
    struct nvme *n = object;

    if (!queues_make_sense(n))
        return mull_fail(err, EINVAL, "%s: the saved state has impossible queues", n->device.name);
    /* Nothing is in flight in a saved state. */
    for (unsigned i = 0; i < NVME_QUEUES; i++) {
        n->sq[i].in_flight = n->cq[i].in_flight = 0;
        n->sq[i].deleter = NULL;
        n->cq[i].due = n->cq[i].valid && n->cq[i].head != n->cq[i].tail;
    }
    n->stopping = n->shutting = false;
    return 0;
}

static const struct mull_field sq_fields[] = {
    MULL_FIELD(struct nvme_sq, valid),
    MULL_FIELD(struct nvme_sq, base),
    MULL_FIELD(struct nvme_sq, size),
    MULL_FIELD(struct nvme_sq, head),
    MULL_FIELD(struct nvme_sq, tail),
    MULL_FIELD(struct nvme_sq, cq),
    MULL_FIELDS_END,
};
static const struct mull_state_desc sq_desc = {
    .name = "nvme-sq", .version = 1, .oldest = 1, .fields = sq_fields};
static const struct mull_field cq_fields[] = {
    MULL_FIELD(struct nvme_cq, valid),
    MULL_FIELD(struct nvme_cq, interrupts),
    MULL_FIELD(struct nvme_cq, phase),
    MULL_FIELD(struct nvme_cq, base),
    MULL_FIELD(struct nvme_cq, size),
    MULL_FIELD(struct nvme_cq, head),
    MULL_FIELD(struct nvme_cq, tail),
    MULL_FIELD(struct nvme_cq, vector),
    MULL_FIELDS_END,
};
static const struct mull_state_desc cq_desc = {
    .name = "nvme-cq", .version = 1, .oldest = 1, .fields = cq_fields};
static const struct mull_field error_fields[] = {
    MULL_FIELD(struct nvme_error, count),
    MULL_FIELD(struct nvme_error, lba),
    MULL_FIELD(struct nvme_error, nsid),
    MULL_FIELD(struct nvme_error, sq),
    MULL_FIELD(struct nvme_error, id),
    MULL_FIELD(struct nvme_error, status),
    MULL_FIELDS_END,
};
static const struct mull_state_desc error_desc = {
    .name = "nvme-error", .version = 1, .oldest = 1, .fields = error_fields};
static const struct mull_field fields[] = {
    MULL_FIELD_NESTED(struct nvme, pci, &mull_pci_function_desc),
    MULL_FIELD(struct nvme, cc),
    MULL_FIELD(struct nvme, csts),
    MULL_FIELD(struct nvme, aqa),
    MULL_FIELD(struct nvme, interrupt_mask),
    MULL_FIELD(struct nvme, asq),
    MULL_FIELD(struct nvme, acq),
    MULL_FIELD_NESTED_ARRAY(struct nvme, sq, &sq_desc),
    MULL_FIELD_NESTED_ARRAY(struct nvme, cq, &cq_desc),
    MULL_FIELD_ARRAY(struct nvme, feature),
    MULL_FIELD_ARRAY(struct nvme, event_id),
    MULL_FIELD(struct nvme, events),
    MULL_FIELD(struct nvme, event_pending),
    MULL_FIELD(struct nvme, event_masked),
    MULL_FIELD_NESTED_ARRAY(struct nvme, error, &error_desc),
    MULL_FIELD(struct nvme, errors),
    MULL_FIELD(struct nvme, read_blocks),
    MULL_FIELD(struct nvme, written_blocks),
    MULL_FIELD(struct nvme, reads),
    MULL_FIELD(struct nvme, writes),
    MULL_FIELD(struct nvme, power_cycles),
    MULL_FIELDS_END,
};
static const struct mull_state_desc desc = {
    .name = "nvme", .version = 1, .oldest = 1, .fields = fields, .after_load = loaded};
static const struct mull_device_ops ops = {
    .state = &desc, .reset = reset, .quiesce = quiesce, .resume = resume, .destroy = destroy};

int mull_nvme_create(const struct mull_device_env *env, struct mull_pci_bus *bus,
                     const struct mull_nvme_config *cfg, struct mull_device **out,
                     struct mull_error *err)
{
    struct nvme *n = calloc(1, sizeof(*n));
    int code;

    if (!n)
        return mull_fail(err, ENOMEM, "%s: no memory", cfg->name);
    n->device = (struct mull_device){.ops = &ops, .object = n};
    snprintf(n->device.name, sizeof(n->device.name), "%s", cfg->name);
    n->env = *env;
    pthread_mutex_init(&n->lock, NULL);
    n->block = cfg->drive.block;
    n->readonly = cfg->drive.readonly || mull_block_readonly(n->block);
    n->blocks = mull_block_size(n->block) / NVME_BLOCK;
    memcpy(n->serial, cfg->drive.serial, sizeof(n->serial) - 1);
    n->power_cycles = 1;
    mull_pci_function_init(&n->pci, NULL, 0x1b36, 0x0010, 0x1af4, 0x1100, 0x010802, 2);
    n->pci.intx_pin = 1;
    if ((code = mull_pci_add_bar(&n->pci, 0, BAR_SIZE, false, true, false, &reg_ops, n, "NVMe",
                                 env->memory, err)) < 0 ||
        (code = mull_pci_add_msix(&n->pci, 4, NVME_QUEUES, env->memory, err)) < 0 ||
        (code = mull_pci_bus_attach(bus, &n->pci, -1, err)) < 0) {
        destroy(&n->device);
        return code;
    }
    reset_controller(n);
    *out = &n->device;
    return 0;
}
