/*
 * The virtio SCSI host (virtio 1.2, 5.6): targets with one logical unit each, several request
 * queues, task management, and events when a target comes or goes. What a command does is scsi.c's.
 */
#include <endian.h>
#include <errno.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_scsi.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "device/storage/virtio_scsi.h"
#include "device/virtio/virtio.h"

#define QUEUE_SIZE 256
#define SEG_MAX (QUEUE_SIZE - 2) /* besides the request and the response */
#define SEGMENTS (QUEUE_SIZE + 8)
#define SENSE_SIZE 96u
#define CDB_SIZE 32u
#define CONTROL_QUEUE 0u
#define EVENT_QUEUE 1u
#define FIRST_REQUEST_QUEUE 2u
#define TASKS 8 /* task management functions that wait */
#define PCI_CLASS_SCSI 0x010000
#define FUNCTION_COMPLETE 0 /* 5.6.6.2; the same as VIRTIO_SCSI_S_OK */

struct target {
    bool present;
    struct mull_scsi_unit unit;
    uint32_t in_flight; /* not saved: a quiet device has none */
};

/* A task management function that waits for its target's commands. */
struct task {
    bool used;
    uint16_t head;
    uint64_t response; /* guest address */
    uint8_t target;
};

struct host {
    struct mull_virtio v;
    unsigned complaints;
    struct request *idle;
    struct mull_chain chain; /* scratch of the loop's thread */
    struct task task[TASKS];
    struct target target[MULL_VIRTIO_SCSI_TARGETS];
    bool missed;                   /* an event had no buffer */
    uint32_t sense_size, cdb_size; /* as the driver set them */
};

struct request {
    struct mull_scsi_request scsi; /* must be first */
    struct host *host;
    struct request *next; /* in the list of idle ones */
    struct target *target;
    uint16_t queue, head;
    uint32_t sense_size;
    uint32_t data_len; /* bytes of data that the driver has room or values for */
    /* The chain, and where the data is taken from. */
    unsigned nout, nin;
    struct mull_segment segment[SEGMENTS];
    unsigned at, end;
    uint32_t skip;
};

/* ---- Answers ---- */

/* Write to the beginning of what the device may write. */
static void respond(struct request *r, const void *data, uint32_t len)
{
    const uint8_t *from = data;

    for (unsigned i = r->nout; len && i < r->nout + r->nin; i++) {
        uint32_t n = r->segment[i].len < len ? r->segment[i].len : len;
        if (mull_mem_write(r->host->v.env.memory, r->segment[i].gpa, from, n))
            return;
        from += n;
        len -= n;
    }
}

static void give_back(struct host *h, unsigned queue, uint16_t head, uint32_t written)
{
    struct mull_virtqueue *q = &h->v.queues[queue];

    mull_virtqueue_push(q, head, written);
    mull_virtqueue_signal(q);
}

static void put_idle(struct request *r)
{
    r->next = r->host->idle;
    r->host->idle = r;
}

static void finish(struct request *r, uint8_t response)
{
    const struct mull_scsi_request *scsi = &r->scsi;
    uint8_t bytes[sizeof(struct virtio_scsi_cmd_resp)] = {0};
    struct virtio_scsi_cmd_resp answer = {.response = response};
    uint64_t moved = response == VIRTIO_SCSI_S_OK ? scsi->dma.done_bytes : 0;
    uint32_t size = offsetof(struct virtio_scsi_cmd_resp, sense) + r->sense_size;

    answer.resid = htole32(moved < r->data_len ? r->data_len - (uint32_t)moved : 0);
    if (response == VIRTIO_SCSI_S_OK) {
        answer.status = scsi->status;
        if (scsi->status == MULL_SCSI_CHECK_CONDITION) {
            uint32_t len = r->sense_size < MULL_SCSI_SENSE ? r->sense_size : MULL_SCSI_SENSE;
            answer.sense_len = htole32(len);
            memcpy(answer.sense, scsi->sense, len);
        }
    }
    memcpy(bytes, &answer, sizeof(bytes));
    respond(r, bytes, size < sizeof(bytes) ? size : sizeof(bytes));
    give_back(r->host, r->queue, r->head, size + (scsi->dma.to_guest ? (uint32_t)moved : 0));
    put_idle(r);
}

/* ---- Task management (5.6.6.2) ---- */

static void answer_task(struct host *h, struct task *t, uint8_t response)
{
    mull_mem_write(h->v.env.memory, t->response, &response, 1);
    give_back(h, CONTROL_QUEUE, t->head, 1);
    t->used = false;
}

static void look_at_tasks(struct host *h)
{
    for (unsigned i = 0; i < TASKS; i++)
        if (h->task[i].used && !h->target[h->task[i].target].in_flight)
            answer_task(h, &h->task[i], FUNCTION_COMPLETE);
}

/* A target and unit number by the first addressing method of 5.6.6.1. @return -1: no such target */
static int find_target(const struct host *h, const uint8_t lun[8], uint64_t *unit)
{
    *unit = (uint64_t)(lun[2] & 0x3f) << 8 | lun[3];
    if (lun[0] != 1 || lun[1] >= MULL_VIRTIO_SCSI_TARGETS || !h->target[lun[1]].present)
        return -1;
    return lun[1];
}

/* The functions that abort commands: they are answered when all of the target's have ended. */
static void manage(struct host *h, uint64_t response)
{
    struct virtio_scsi_ctrl_tmf_req request;
    struct task now = {.head = h->chain.head, .response = response};
    uint64_t unit;
    uint8_t answer = VIRTIO_SCSI_S_FUNCTION_REJECTED;

    if (mull_chain_read(&h->chain, 0, &request, sizeof(request))) {
        answer_task(h, &now, answer);
        return;
    }
    int target = find_target(h, request.lun, &unit);
    uint32_t subtype = le32toh(request.subtype);
    if (target < 0) {
        answer = VIRTIO_SCSI_S_BAD_TARGET;
    } else if (unit) {
        answer = VIRTIO_SCSI_S_INCORRECT_LUN;
    } else if (subtype == VIRTIO_SCSI_T_TMF_QUERY_TASK ||
               subtype == VIRTIO_SCSI_T_TMF_QUERY_TASK_SET ||
               subtype == VIRTIO_SCSI_T_TMF_CLEAR_ACA) {
        answer = FUNCTION_COMPLETE;
    } else if (subtype <= VIRTIO_SCSI_T_TMF_LOGICAL_UNIT_RESET) {
        for (unsigned i = 0; i < TASKS; i++)
            if (!h->task[i].used) {
                h->task[i] = now;
                h->task[i].used = true;
                h->task[i].target = (uint8_t)target;
                look_at_tasks(h);
                return;
            }
    }
    answer_task(h, &now, answer);
}

static void handle_control(struct host *h)
{
    struct mull_chain *c = &h->chain;
    struct virtio_scsi_ctrl_an_resp nothing = {.response = VIRTIO_SCSI_S_OK};
    __virtio32 type = 0;

    if (c->out_len < sizeof(type) || !c->in_len || mull_chain_read(c, 0, &type, sizeof(type))) {
        give_back(h, CONTROL_QUEUE, c->head, 0);
        return;
    }
    if (le32toh(type) == VIRTIO_SCSI_T_TMF) {
        manage(h, c->segments[c->nout].gpa);
        return;
    }
    /* Asynchronous notification: there are no such events. */
    uint32_t len = c->in_len < sizeof(nothing) ? c->in_len : sizeof(nothing);
    if (mull_chain_write(c, 0, &nothing, len))
        len = 0;
    give_back(h, CONTROL_QUEUE, c->head, len);
}

/* ---- Requests (5.6.6.1) ---- */

/* Take the data from @offset of segments [first, last) on. */
static void aim(struct request *r, unsigned first, unsigned last, uint32_t offset)
{
    r->at = first;
    r->end = last;
    r->skip = offset;
}

static bool next_buffer(struct mull_dma *d, uint64_t *gpa, uint32_t *len)
{
    struct request *r = (struct request *)d;

    for (; r->at < r->end; r->at++) {
        const struct mull_segment *s = &r->segment[r->at];
        if (r->skip >= s->len) {
            r->skip -= s->len;
            continue;
        }
        *gpa = s->gpa + r->skip;
        *len = s->len - r->skip;
        r->skip = 0;
        r->at++;
        return true;
    }
    return false;
}

static void enter(struct mull_dma *d)
{
    mull_virtio_lock(&((struct request *)d)->host->v);
}

static void leave(struct mull_dma *d)
{
    mull_virtio_unlock(&((struct request *)d)->host->v);
}

static const struct mull_dma_ops dma_ops = {.next = next_buffer, .enter = enter, .leave = leave};

static void complete(struct mull_scsi_request *scsi)
{
    struct request *r = (struct request *)scsi;
    struct host *h = r->host;

    if (scsi->host_error)
        mull_dma_complain(&scsi->dma, h->v.env.log, &h->complaints, h->v.device.name,
                          scsi->host_error);
    r->target->in_flight--;
    finish(r, VIRTIO_SCSI_S_OK);
    look_at_tasks(h);
}

static struct request *get_request(struct host *h)
{
    struct request *r = h->idle;

    if (r)
        h->idle = r->next;
    else
        r = malloc(sizeof(*r)); /* at most one for each queue entry */
    if (r)
        r->host = h;
    return r;
}

static void start(struct host *h, struct request *r, const struct virtio_scsi_cmd_req *header,
                  uint32_t cdb_size, uint32_t head_out)
{
    const struct mull_chain *c = &h->chain;
    uint32_t head_in = offsetof(struct virtio_scsi_cmd_resp, sense) + r->sense_size;
    uint32_t out = c->out_len - head_out, in = c->in_len - head_in;
    uint64_t unit;
    int target = find_target(h, header->lun, &unit);

    mull_dma_begin(&r->scsi.dma, &dma_ops, h->v.env.memory, NULL);
    r->data_len = in ? in : out;
    if (in)
        aim(r, r->nout, r->nout + r->nin, head_in);
    else
        aim(r, 0, r->nout, head_out);
    if (in && out) { /* VIRTIO_SCSI_F_INOUT is not offered */
        finish(r, VIRTIO_SCSI_S_FAILURE);
        return;
    }
    if (target < 0) {
        finish(r, VIRTIO_SCSI_S_BAD_TARGET);
        return;
    }
    r->target = &h->target[target];
    r->target->in_flight++;
    r->scsi.dma.disk = r->target->unit.block;
    r->scsi.unit = &r->target->unit;
    r->scsi.lun = unit;
    r->scsi.autosense = true;
    r->scsi.complete = complete;
    memset(r->scsi.cdb, 0, sizeof(r->scsi.cdb));
    memcpy(r->scsi.cdb, header->cdb, cdb_size);
    mull_scsi_start(&r->scsi);
}

/* @return false: the device is broken */
static bool handle_request(struct host *h, unsigned queue)
{
    struct mull_chain *c = &h->chain;
    struct virtio_scsi_cmd_req header = {0};
    uint32_t cdb_size = h->cdb_size, sense_size = h->sense_size;
    uint32_t head_out = offsetof(struct virtio_scsi_cmd_req, cdb) + cdb_size;

    if (c->out_len < head_out ||
        c->in_len < offsetof(struct virtio_scsi_cmd_resp, sense) + sense_size ||
        mull_chain_read(c, 0, &header, head_out)) {
        mull_virtio_broken(&h->v, "a request without room for command or response");
        return false;
    }
    struct request *r = c->nout + c->nin <= SEGMENTS ? get_request(h) : NULL;
    if (!r) {
        struct virtio_scsi_cmd_resp busy = {.response = VIRTIO_SCSI_S_FAILURE};
        mull_chain_write(c, 0, &busy, offsetof(struct virtio_scsi_cmd_resp, sense));
        give_back(h, queue, c->head, offsetof(struct virtio_scsi_cmd_resp, sense));
        return true;
    }
    r->queue = (uint16_t)queue;
    r->head = c->head;
    r->sense_size = sense_size;
    r->nout = c->nout;
    r->nin = c->nin;
    memcpy(r->segment, c->segments, (c->nout + c->nin) * sizeof(r->segment[0]));
    start(h, r, &header, cdb_size, head_out);
    return true;
}

static void kick(struct mull_virtio *v, unsigned queue)
{
    struct host *h = (struct host *)v;
    struct mull_virtqueue *q = &v->queues[queue];

    if (queue == EVENT_QUEUE) /* its buffers wait there until something happens */
        return;
    do {
        mull_virtqueue_quiet(q);
        while (mull_virtqueue_pop(q, &h->chain) == 1) {
            if (queue == CONTROL_QUEUE) {
                handle_control(h);
            } else if (!handle_request(h, queue)) {
                mull_virtqueue_push(q, h->chain.head, 0); /* only counts it */
                return;
            }
        }
    } while (mull_virtqueue_listen(q));
}

/* ---- Targets that come and go (5.6.6.3) ---- */

static void tell(struct host *h, unsigned target, uint32_t reason)
{
    struct virtio_scsi_event event = {.event = htole32(VIRTIO_SCSI_T_TRANSPORT_RESET),
                                      .lun = {1, (uint8_t)target, 0x40},
                                      .reason = htole32(reason)};
    struct mull_virtqueue *q = &h->v.queues[EVENT_QUEUE];

    if (!mull_virtio_has(&h->v, VIRTIO_SCSI_F_HOTPLUG) || !mull_virtio_running(&h->v))
        return;
    if (h->missed)
        event.event |= htole32(VIRTIO_SCSI_T_EVENTS_MISSED);
    if (mull_virtqueue_pop(q, &h->chain) != 1) {
        h->missed = true;
        return;
    }
    bool fits =
        h->chain.in_len >= sizeof(event) && !mull_chain_write(&h->chain, 0, &event, sizeof(event));
    h->missed = !fits;
    give_back(h, EVENT_QUEUE, h->chain.head, fits ? sizeof(event) : 0);
}

static struct host *of(struct mull_device *device)
{
    return (struct host *)device;
}

int mull_virtio_scsi_plug(struct mull_device *device, unsigned target,
                          const struct mull_drive *drive, struct mull_error *err)
{
    struct host *h = of(device);
    int ret = 0;

    mull_virtio_lock(&h->v);
    if (target >= MULL_VIRTIO_SCSI_TARGETS || h->target[target].present) {
        ret =
            mull_fail(err, EBUSY, "%s: target %u is taken, or not possible", device->name, target);
    } else {
        mull_scsi_unit_init(&h->target[target].unit, drive);
        h->target[target].present = true;
        tell(h, target, VIRTIO_SCSI_EVT_RESET_RESCAN);
    }
    mull_virtio_unlock(&h->v);
    return ret;
}

void mull_virtio_scsi_unplug(struct mull_device *device, unsigned target)
{
    struct host *h = of(device);
    struct mull_block *block = NULL;

    if (target >= MULL_VIRTIO_SCSI_TARGETS)
        return;
    mull_virtio_lock(&h->v);
    struct target *t = &h->target[target];
    if (t->present) {
        block = t->unit.block;
        t->present = false;
        tell(h, target, VIRTIO_SCSI_EVT_RESET_REMOVED);
    }
    mull_virtio_unlock(&h->v);
    if (!block)
        return;
    mull_block_drain(block);
    mull_block_cancel(block);
    mull_virtio_lock(&h->v);
    t->unit.block = NULL; /* the caller may close it now */
    mull_virtio_unlock(&h->v);
}

/* ---- The device ---- */

static void drain(struct mull_virtio *v)
{
    struct host *h = (struct host *)v;

    for (unsigned i = 0; i < MULL_VIRTIO_SCSI_TARGETS; i++)
        if (h->target[i].unit.block)
            mull_block_drain(h->target[i].unit.block);
}

static void cancel(struct host *h)
{
    drain(&h->v);
    for (unsigned i = 0; i < MULL_VIRTIO_SCSI_TARGETS; i++)
        if (h->target[i].unit.block)
            mull_block_cancel(h->target[i].unit.block);
}

static void fill_config(struct host *h, uint32_t sense_size, uint32_t cdb_size)
{
    h->sense_size = sense_size < SENSE_SIZE ? sense_size : SENSE_SIZE;
    h->cdb_size = cdb_size < CDB_SIZE ? cdb_size : CDB_SIZE;
    struct virtio_scsi_config c = {
        .num_queues = htole32(h->v.nqueues - FIRST_REQUEST_QUEUE),
        .seg_max = htole32(SEG_MAX),
        .max_sectors = htole32(0xffff),
        .cmd_per_lun = htole32(QUEUE_SIZE / 2),
        .event_info_size = htole32(sizeof(struct virtio_scsi_event)),
        .sense_size = htole32(h->sense_size),
        .cdb_size = htole32(h->cdb_size),
        .max_channel = 0,
        .max_target = htole16(MULL_VIRTIO_SCSI_TARGETS - 1),
        .max_lun = htole32(16383),
    };

    _Static_assert(sizeof(c) <= MULL_VIRTIO_MAX_CONFIG, "configuration space");
    memcpy(h->v.config, &c, sizeof(c));
    h->v.config_size = sizeof(c);
}

/* The driver may make sense data and CDB smaller (5.6.4). */
static void config_written(struct mull_virtio *v, unsigned offset, unsigned size)
{
    const struct virtio_scsi_config *c = (const struct virtio_scsi_config *)v->config;

    fill_config((struct host *)v, le32toh(c->sense_size), le32toh(c->cdb_size));
}

static void driver_reset(struct mull_virtio *v)
{
    struct host *h = (struct host *)v;

    fill_config(h, SENSE_SIZE, CDB_SIZE);
    h->missed = false;
}

static const struct mull_virtio_ops virtio_ops = {
    .kick = kick, .reset = driver_reset, .config_written = config_written, .drain = drain};

static void device_reset(struct mull_device *device)
{
    struct host *h = of(device);

    cancel(h); /* what waits after an error would write into memory that is used anew */
    mull_virtio_device_reset(device);
    for (unsigned i = 0; i < MULL_VIRTIO_SCSI_TARGETS; i++)
        mull_scsi_unit_reset(&h->target[i].unit);
}

static void destroy(struct mull_device *device)
{
    struct host *h = of(device);

    if (h->v.transport)
        cancel(h);
    mull_virtio_fini(&h->v);
    while (h->idle) {
        struct request *next = h->idle->next;
        free(h->idle);
        h->idle = next;
    }
    free(h);
}

static int loaded(void *object, uint32_t version, struct mull_error *err)
{
    struct host *h = object;

    fill_config(h, h->sense_size, h->cdb_size);
    memset(h->task, 0, sizeof(h->task)); /* a quiet device has answered them */
    return 0;
}

static const struct mull_field target_fields[] = {
    MULL_FIELD_NESTED(struct target, unit, &mull_scsi_unit_desc),
    MULL_FIELDS_END,
};
static const struct mull_state_desc target_desc = {
    .name = "virtio-scsi-target", .version = 1, .oldest = 1, .fields = target_fields};
static const struct mull_field fields[] = {
    MULL_FIELD_NESTED(struct host, v, &mull_virtio_desc),
    MULL_FIELD_NESTED_ARRAY(struct host, target, &target_desc),
    MULL_FIELD(struct host, missed),
    MULL_FIELD(struct host, sense_size),
    MULL_FIELD(struct host, cdb_size),
    MULL_FIELDS_END,
};
static const struct mull_state_desc desc = {
    .name = "virtio-scsi", .version = 1, .oldest = 1, .fields = fields, .after_load = loaded};
static const struct mull_device_ops ops = {.state = &desc,
                                           .reset = device_reset,
                                           .quiesce = mull_virtio_device_quiesce,
                                           .resume = mull_virtio_device_resume,
                                           .destroy = destroy};

int mull_virtio_scsi_create(const struct mull_device_env *env, struct mull_pci_bus *bus,
                            const struct mull_virtio_scsi_config *cfg, struct mull_device **out,
                            struct mull_error *err)
{
    struct host *h = calloc(1, sizeof(*h));
    unsigned queues = cfg->queues ? cfg->queues : 1;

    if (!h)
        return mull_fail(err, ENOMEM, "%s: out of memory", cfg->name);
    h->v.device.ops = &ops;
    for (unsigned i = 0; i < MULL_VIRTIO_SCSI_TARGETS; i++) {
        h->target[i].present = cfg->drive[i].present;
        mull_scsi_unit_init(&h->target[i].unit, &cfg->drive[i]);
    }
    int rc = mull_virtio_init(&h->v, env, cfg->name, VIRTIO_ID_SCSI,
                              MULL_BIT(VIRTIO_SCSI_F_HOTPLUG), &virtio_ops, err);
    if (!rc) {
        if (queues > MULL_VIRTIO_MAX_QUEUES - FIRST_REQUEST_QUEUE)
            queues = MULL_VIRTIO_MAX_QUEUES - FIRST_REQUEST_QUEUE;
        for (unsigned i = 0; i < FIRST_REQUEST_QUEUE + queues; i++)
            mull_virtio_add_queue(&h->v, QUEUE_SIZE);
        fill_config(h, SENSE_SIZE, CDB_SIZE);
        rc = mull_virtio_pci_attach(&h->v, bus, -1, PCI_CLASS_SCSI, err);
    }
    if (rc) {
        destroy(&h->v.device);
        return rc;
    }
    *out = &h->v.device;
    return 0;
}
