/*
 * VMware's paravirtual SCSI adapter, as its drivers in Linux (vmw_pvscsi), OVMF and SeaBIOS know
 * it: a ring of requests and a ring of completions, whose indices are on a page that both sides
 * write. What a command does is scsi.c's. Guests write registers from their vCPUs' threads;
 * requests are carried out in the loop's thread.
 */
#include "device/storage/pvscsi.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BAR_SIZE 0x8000u
#define REG_COMMAND 0x0000u
#define REG_COMMAND_DATA 0x0004u
#define REG_COMMAND_STATUS 0x0008u
#define REG_INTR_STATUS 0x100cu
#define REG_INTR_MASK 0x2010u
#define REG_KICK_NON_RW 0x3014u
#define REG_KICK_RW 0x4018u

#define CMD_ADAPTER_RESET 1u
#define CMD_SETUP_RINGS 3u
#define CMD_RESET_BUS 4u
#define CMD_RESET_DEVICE 5u
#define CMD_ABORT 6u
#define COMMAND_DONE 0u
#define COMMAND_FAILED 0xffffffffu
#define COMMAND_MORE 0xfffffffeu /* not all of its data has come */

#define INTR_COMPLETION 0x1u
#define INTR_ALL 0xfu

#define MAX_PAGES 32u
#define SETUP_DWORDS 132u /* 2 numbers, the state's page, 32 pages of each ring */
#define PAGE 4096u
#define REQUEST_SIZE 128u
#define COMPLETION_SIZE 32u

/* Indices on the shared page. */
#define STATE_REQ_PROD 0u
#define STATE_REQ_CONS 4u
#define STATE_REQ_LOG2 8u
#define STATE_CMP_PROD 12u
#define STATE_CMP_LOG2 20u

#define FLAG_SG_LIST 0x1u
#define FLAG_CDB_ELSEWHERE 0x2u
#define SG_CHAIN 0x1u
#define SG_CHAINS 256u /* in a row, without data between them */

/* Status of the adapter. */
#define HOST_OK 0x00u
#define HOST_SELECTION_TIMEOUT 0x11u
#define HOST_DATA_RUN 0x12u
#define HOST_INVALID 0x1au
#define HOST_ABORTED 0x26u

struct descriptor {
    uint64_t context, data, data_len, sense;
    uint32_t sense_len, flags;
    uint8_t cdb[16], cdb_len, lun[8], tag, bus, target;
    uint16_t cpu_hint;
    uint8_t unused[58];
};
_Static_assert(sizeof(struct descriptor) == REQUEST_SIZE, "layout");

struct pvscsi;

struct request {
    struct mull_scsi_request scsi; /* must be first */
    struct pvscsi *adapter;
    struct request *next; /* in the list of idle or of active ones */
    struct descriptor d;
    uint32_t generation; /* of the adapter when it began */
    uint64_t sg;         /* the next element */
    uint64_t left;       /* bytes not described yet */
};

struct ring {
    uint32_t pages;
    uint64_t page[MAX_PAGES]; /* guest addresses */
};

struct pvscsi {
    struct mull_device device;
    struct mull_pci_function pci;
    struct mull_device_env env;
    pthread_mutex_t lock;
    struct mull_scsi_unit unit[MULL_PVSCSI_TARGETS];
    bool present[MULL_PVSCSI_TARGETS];
    bool posted, paused;
    unsigned complaints;
    struct request *idle, *active;
    uint32_t generation; /* counts resets: what began before is not told any more */

    /* State. */
    uint32_t command, data_count, status;
    uint32_t data[SETUP_DWORDS];
    uint32_t intr_status, intr_mask;
    bool ready; /* the rings are set up */
    uint64_t state;
    struct ring req, cmp;
    uint32_t req_log2, cmp_log2, req_cons, cmp_prod;
};

/* ---- Interrupts ---- */

static void update_line(struct pvscsi *p)
{
    mull_pci_intx(&p->pci, p->intr_status & p->intr_mask);
}

static void interrupt(struct pvscsi *p, uint32_t bits)
{
    p->intr_status |= bits;
    if ((p->intr_status & p->intr_mask) && mull_pci_msi_enabled(&p->pci))
        mull_pci_msi_send(&p->pci);
    update_line(p);
}

/* ---- Completions ---- */

static uint64_t entry_address(const struct ring *ring, uint32_t index, uint32_t log2, uint32_t size)
{
    uint32_t per_page = PAGE / size, at = index & ((1u << log2) - 1);

    return ring->page[at / per_page] + (uint64_t)(at % per_page) * size;
}

static void put_completion(struct pvscsi *p, const struct request *r, uint32_t sense_len,
                           uint16_t host_status)
{
    struct {
        uint64_t context, data_len;
        uint32_t sense_len;
        uint16_t host_status, scsi_status;
        uint32_t pad[2];
    } entry = {.context = r->d.context,
               .data_len = r->scsi.dma.done_bytes,
               .sense_len = sense_len,
               .host_status = host_status,
               .scsi_status = r->scsi.status};

    mull_mem_write(p->env.memory, entry_address(&p->cmp, p->cmp_prod, p->cmp_log2, COMPLETION_SIZE),
                   &entry, sizeof(entry));
    p->cmp_prod++;
    mull_mem_write32(p->env.memory, p->state + STATE_CMP_PROD, p->cmp_prod);
    interrupt(p, INTR_COMPLETION);
}

static void put_idle(struct request *r)
{
    struct pvscsi *p = r->adapter;
    struct request **at = &p->active;

    while (*at != r)
        at = &(*at)->next;
    *at = r->next;
    r->next = p->idle;
    p->idle = r;
}

static void end(struct request *r, uint16_t host_status)
{
    struct pvscsi *p = r->adapter;
    uint32_t sense_len = 0;

    if (r->generation == p->generation && p->ready) {
        if (r->scsi.status == MULL_SCSI_CHECK_CONDITION) {
            sense_len = r->d.sense_len < MULL_SCSI_SENSE ? r->d.sense_len : MULL_SCSI_SENSE;
            mull_mem_write(p->env.memory, r->d.sense, r->scsi.sense, sense_len);
        } else if (host_status == HOST_OK && r->scsi.dma.done_bytes < r->d.data_len) {
            host_status = HOST_DATA_RUN;
        }
        put_completion(p, r, sense_len, host_status);
    }
    put_idle(r);
}

static void complete(struct mull_scsi_request *scsi)
{
    struct request *r = (struct request *)scsi;
    struct pvscsi *p = r->adapter;

    if (scsi->host_error)
        mull_dma_complain(&scsi->dma, p->env.log, &p->complaints, p->device.name, scsi->host_error);
    if (scsi->dma.cancelled)
        scsi->status = MULL_SCSI_GOOD; /* the adapter's status says it */
    end(r, scsi->dma.cancelled ? HOST_ABORTED : HOST_OK);
}

/* ---- Requests ---- */

/* The next element of the list; one of the flag CHAIN leads to where the list goes on. */
static bool next_element(struct request *r, uint64_t *gpa, uint32_t *len)
{
    struct {
        uint64_t address;
        uint32_t length, flags;
    } e;

    for (unsigned i = 0; i < SG_CHAINS; i++) {
        if (mull_mem_read(r->scsi.dma.memory, r->sg, &e, sizeof(e)))
            return false;
        r->sg += sizeof(e);
        if (e.flags & SG_CHAIN) {
            r->sg = e.address;
        } else if (e.length) {
            *gpa = e.address;
            *len = e.length;
            return true;
        }
    }
    return false;
}

static bool next_buffer(struct mull_dma *d, uint64_t *gpa, uint32_t *len)
{
    struct request *r = (struct request *)d;

    if (!r->left)
        return false;
    if (r->d.flags & FLAG_SG_LIST) {
        if (!next_element(r, gpa, len))
            return false;
    } else {
        *gpa = r->d.data + (r->d.data_len - r->left);
        *len = r->left < 0x80000000u ? (uint32_t)r->left : 0x80000000u;
    }
    if (*len > r->left)
        *len = (uint32_t)r->left;
    r->left -= *len;
    return true;
}

static void run(struct pvscsi *p);

static void enter(struct mull_dma *d)
{
    pthread_mutex_lock(&((struct request *)d)->adapter->lock);
}

static void leave(struct mull_dma *d)
{
    struct pvscsi *p = ((struct request *)d)->adapter;

    run(p);
    pthread_mutex_unlock(&p->lock);
}

static const struct mull_dma_ops dma_ops = {.next = next_buffer, .enter = enter, .leave = leave};

static void start(struct request *r)
{
    struct pvscsi *p = r->adapter;
    const struct descriptor *d = &r->d;
    bool there = d->bus == 0 && d->target < MULL_PVSCSI_TARGETS && p->present[d->target];

    mull_dma_begin(&r->scsi.dma, &dma_ops, p->env.memory, there ? p->unit[d->target].block : NULL);
    r->sg = d->data;
    r->left = d->data_len;
    r->scsi.status = MULL_SCSI_GOOD;
    if (!there || (d->flags & FLAG_CDB_ELSEWHERE)) {
        end(r, there ? HOST_INVALID : HOST_SELECTION_TIMEOUT);
        return;
    }
    r->scsi.unit = &p->unit[d->target];
    r->scsi.lun = d->lun[1];
    r->scsi.autosense = true;
    r->scsi.complete = complete;
    memset(r->scsi.cdb, 0, sizeof(r->scsi.cdb));
    memcpy(r->scsi.cdb, d->cdb, sizeof(d->cdb));
    mull_scsi_start(&r->scsi);
}

static struct request *get_request(struct pvscsi *p)
{
    struct request *r = p->idle;

    if (r)
        p->idle = r->next;
    else
        r = malloc(sizeof(*r)); /* at most as many as a ring has entries, and those of before */
    if (!r)
        return NULL;
    r->adapter = p;
    r->generation = p->generation;
    r->next = p->active;
    p->active = r;
    return r;
}

static unsigned active_count(const struct pvscsi *p)
{
    unsigned n = 0;

    for (const struct request *r = p->active; r; r = r->next)
        n++;
    return n;
}

/* Begin what waits in the ring: at most one ring full, whatever the guest's index says. */
static void run(struct pvscsi *p)
{
    uint32_t entries = 1u << p->req_log2, prod;

    if (!p->ready || p->paused || mull_mem_read32(p->env.memory, p->state + STATE_REQ_PROD, &prod))
        return;
    if (prod - p->req_cons > entries)
        prod = p->req_cons + entries;
    for (unsigned n = active_count(p); p->ready && p->req_cons != prod && n < 2 * entries; n++) {
        struct request *r = get_request(p);
        if (!r)
            return;
        uint64_t at = entry_address(&p->req, p->req_cons, p->req_log2, REQUEST_SIZE);
        if (mull_mem_read(p->env.memory, at, &r->d, sizeof(r->d)))
            memset(&r->d, 0xff, sizeof(r->d)); /* no such target */
        p->req_cons++;
        mull_mem_write32(p->env.memory, p->state + STATE_REQ_CONS, p->req_cons);
        start(r);
    }
}

static void run_posted(void *opaque)
{
    struct pvscsi *p = opaque;

    pthread_mutex_lock(&p->lock);
    p->posted = false;
    run(p);
    pthread_mutex_unlock(&p->lock);
}

/* ---- Commands to the adapter ---- */

static void forget(struct pvscsi *p)
{
    p->generation++;
    p->ready = false;
    for (struct request *r = p->active; r; r = r->next)
        r->scsi.dma.cancelled = true;
}

/* Abort what @target has on its way (all targets: -1), or the one command of @context. */
static void abort_requests(struct pvscsi *p, int target, const uint64_t *context)
{
    for (struct request *r = p->active; r; r = r->next)
        if ((target < 0 || r->d.target == target) && (!context || r->d.context == *context))
            r->scsi.dma.cancelled = true;
}

static bool take_ring(struct ring *ring, uint32_t pages, const uint32_t *numbers)
{
    if (!pages || pages > MAX_PAGES)
        return false;
    ring->pages = pages;
    for (unsigned i = 0; i < pages; i++)
        ring->page[i] = (numbers[2 * i] | (uint64_t)numbers[2 * i + 1] << 32) << 12;
    return true;
}

/* The largest power of two of entries that the pages hold: rings are no larger. */
static uint32_t log2_of(uint32_t pages, uint32_t per_page)
{
    uint32_t log2 = 0;

    while (2u << log2 <= pages * per_page)
        log2++;
    return log2;
}

static uint32_t setup_rings(struct pvscsi *p)
{
    const uint32_t *d = p->data;

    forget(p);
    p->state = (d[2] | (uint64_t)d[3] << 32) << 12;
    if (!take_ring(&p->req, d[0], d + 4) || !take_ring(&p->cmp, d[1], d + 4 + 2 * MAX_PAGES))
        return COMMAND_FAILED;
    p->req_log2 = log2_of(p->req.pages, PAGE / REQUEST_SIZE);
    p->cmp_log2 = log2_of(p->cmp.pages, PAGE / COMPLETION_SIZE);
    p->req_cons = p->cmp_prod = 0;
    if (mull_mem_write32(p->env.memory, p->state + STATE_REQ_LOG2, p->req_log2) ||
        mull_mem_write32(p->env.memory, p->state + STATE_CMP_LOG2, p->cmp_log2))
        return COMMAND_FAILED;
    p->ready = true;
    return COMMAND_DONE;
}

static void reset_adapter(struct pvscsi *p)
{
    forget(p);
    p->intr_status = p->intr_mask = 0;
    update_line(p);
}

static uint32_t carry_out(struct pvscsi *p)
{
    uint64_t context = p->data[0] | (uint64_t)p->data[1] << 32;

    switch (p->command) {
    case CMD_ADAPTER_RESET:
        reset_adapter(p);
        return COMMAND_DONE;
    case CMD_SETUP_RINGS:
        return setup_rings(p);
    case CMD_RESET_BUS:
        abort_requests(p, -1, NULL);
        return COMMAND_DONE;
    case CMD_RESET_DEVICE:
        abort_requests(p, (int)(p->data[0] & 0xff), NULL);
        return COMMAND_DONE;
    default:
        abort_requests(p, (int)(p->data[2] & 0xff), &context);
        return COMMAND_DONE;
    }
}

/* Dwords of data that a command has; -1: there is no such command. */
static int data_of(uint32_t command)
{
    switch (command) {
    case CMD_ADAPTER_RESET:
    case CMD_RESET_BUS:
        return 0;
    case CMD_SETUP_RINGS:
        return SETUP_DWORDS;
    case CMD_RESET_DEVICE:
        return 3;
    case CMD_ABORT:
        return 4;
    default: /* the ring of messages, configuration pages, ... are optional */
        return -1;
    }
}

static void look_at_command(struct pvscsi *p)
{
    int wanted = data_of(p->command);

    if (wanted < 0) {
        p->status = COMMAND_FAILED;
    } else if (p->data_count < (uint32_t)wanted) {
        p->status = COMMAND_MORE;
    } else {
        p->status = carry_out(p);
        p->command = p->data_count = 0;
    }
}

/* ---- Registers ---- */

static uint64_t reg_read(void *opaque, unsigned cpu, uint64_t offset, unsigned size)
{
    struct pvscsi *p = opaque;
    uint32_t value = 0;

    pthread_mutex_lock(&p->lock);
    if (offset == REG_COMMAND_STATUS)
        value = p->status;
    else if (offset == REG_INTR_STATUS)
        value = p->intr_status;
    else if (offset == REG_INTR_MASK)
        value = p->intr_mask;
    pthread_mutex_unlock(&p->lock);
    return value;
}

static void reg_write(void *opaque, unsigned cpu, uint64_t offset, unsigned size, uint64_t value)
{
    struct pvscsi *p = opaque;
    uint32_t v = (uint32_t)value;

    pthread_mutex_lock(&p->lock);
    switch (offset) {
    case REG_COMMAND:
        p->command = v;
        p->data_count = 0;
        look_at_command(p);
        break;
    case REG_COMMAND_DATA:
        if (data_of(p->command) > 0 && p->data_count < SETUP_DWORDS) {
            p->data[p->data_count++] = v;
            look_at_command(p);
        }
        break;
    case REG_INTR_STATUS:
        p->intr_status &= ~v;
        update_line(p);
        break;
    case REG_INTR_MASK:
        p->intr_mask = v & INTR_ALL;
        interrupt(p, 0);
        break;
    case REG_KICK_NON_RW:
    case REG_KICK_RW:
        if (!p->posted)
            p->posted = !mull_loop_post(p->env.loop, run_posted, p);
        break;
    default:
        break;
    }
    pthread_mutex_unlock(&p->lock);
}

static const struct mull_region_ops reg_ops = {reg_read, reg_write, 4, 4};

/* ---- Life ---- */

static struct pvscsi *of(struct mull_device *device)
{
    return (struct pvscsi *)device;
}

static void drain(struct pvscsi *p, bool cancel)
{
    for (unsigned i = 0; i < MULL_PVSCSI_TARGETS; i++) {
        if (!p->unit[i].block)
            continue;
        mull_block_drain(p->unit[i].block);
        if (cancel) /* held requests would move bytes from or to memory that is used anew */
            mull_block_cancel(p->unit[i].block);
    }
}

static void reset(struct mull_device *device)
{
    struct pvscsi *p = of(device);

    pthread_mutex_lock(&p->lock);
    reset_adapter(p);
    p->command = p->data_count = p->status = 0;
    for (unsigned i = 0; i < MULL_PVSCSI_TARGETS; i++)
        mull_scsi_unit_reset(&p->unit[i]);
    pthread_mutex_unlock(&p->lock);
    drain(p, true);
    mull_pci_function_reset(&p->pci);
}

static void quiesce(struct mull_device *device)
{
    struct pvscsi *p = of(device);

    pthread_mutex_lock(&p->lock);
    p->paused = true;
    pthread_mutex_unlock(&p->lock);
    drain(p, false);
}

static void resume(struct mull_device *device)
{
    struct pvscsi *p = of(device);

    pthread_mutex_lock(&p->lock);
    p->paused = false;
    run(p);
    update_line(p);
    pthread_mutex_unlock(&p->lock);
}

static void destroy(struct mull_device *device)
{
    struct pvscsi *p = of(device);

    pthread_mutex_lock(&p->lock);
    forget(p);
    pthread_mutex_unlock(&p->lock);
    drain(p, true);
    mull_pci_function_fini(&p->pci);
    while (p->idle) {
        struct request *next = p->idle->next;
        free(p->idle);
        p->idle = next;
    }
    pthread_mutex_destroy(&p->lock);
    free(p);
}

static bool ring_makes_sense(const struct ring *ring, uint32_t log2, uint32_t size)
{
    return ring->pages && ring->pages <= MAX_PAGES && log2 == log2_of(ring->pages, PAGE / size);
}

static int loaded(void *object, uint32_t version, struct mull_error *err)
{
    struct pvscsi *p = object;

    if (p->data_count > SETUP_DWORDS ||
        (p->ready && (!ring_makes_sense(&p->req, p->req_log2, REQUEST_SIZE) ||
                      !ring_makes_sense(&p->cmp, p->cmp_log2, COMPLETION_SIZE))))
        return mull_fail(err, EINVAL, "%s: the saved state has impossible rings", p->device.name);
    p->intr_mask &= INTR_ALL;
    return 0;
}

static const struct mull_field ring_fields[] = {
    MULL_FIELD(struct ring, pages),
    MULL_FIELD_ARRAY(struct ring, page),
    MULL_FIELDS_END,
};
static const struct mull_state_desc ring_desc = {
    .name = "pvscsi-ring", .version = 1, .oldest = 1, .fields = ring_fields};
static const struct mull_field fields[] = {
    MULL_FIELD_NESTED(struct pvscsi, pci, &mull_pci_function_desc),
    MULL_FIELD_NESTED_ARRAY(struct pvscsi, unit, &mull_scsi_unit_desc),
    MULL_FIELD(struct pvscsi, command),
    MULL_FIELD(struct pvscsi, data_count),
    MULL_FIELD(struct pvscsi, status),
    MULL_FIELD_ARRAY(struct pvscsi, data),
    MULL_FIELD(struct pvscsi, intr_status),
    MULL_FIELD(struct pvscsi, intr_mask),
    MULL_FIELD(struct pvscsi, ready),
    MULL_FIELD(struct pvscsi, state),
    MULL_FIELD_NESTED(struct pvscsi, req, &ring_desc),
    MULL_FIELD_NESTED(struct pvscsi, cmp, &ring_desc),
    MULL_FIELD(struct pvscsi, req_log2),
    MULL_FIELD(struct pvscsi, cmp_log2),
    MULL_FIELD(struct pvscsi, req_cons),
    MULL_FIELD(struct pvscsi, cmp_prod),
    MULL_FIELDS_END,
};
static const struct mull_state_desc desc = {
    .name = "pvscsi", .version = 1, .oldest = 1, .fields = fields, .after_load = loaded};
static const struct mull_device_ops ops = {
    .state = &desc, .reset = reset, .quiesce = quiesce, .resume = resume, .destroy = destroy};

int mull_pvscsi_create(const struct mull_device_env *env, struct mull_pci_bus *bus,
                       const struct mull_pvscsi_config *cfg, struct mull_device **out,
                       struct mull_error *err)
{
    struct pvscsi *p = calloc(1, sizeof(*p));
    int code;

    if (!p)
        return mull_fail(err, ENOMEM, "%s: no memory", cfg->name);
    p->device = (struct mull_device){.ops = &ops, .object = p};
    snprintf(p->device.name, sizeof(p->device.name), "%s", cfg->name);
    p->env = *env;
    pthread_mutex_init(&p->lock, NULL);
    for (unsigned i = 0; i < MULL_PVSCSI_TARGETS; i++) {
        p->present[i] = cfg->drive[i].present;
        mull_scsi_unit_init(&p->unit[i], &cfg->drive[i]);
    }
    mull_pci_function_init(&p->pci, NULL, 0x15ad, 0x07c0, 0x15ad, 0x07c0, 0x010700, 2);
    p->pci.intx_pin = 1;
    if ((code = mull_pci_add_bar(&p->pci, 0, BAR_SIZE, false, false, false, &reg_ops, p, "PVSCSI",
                                 env->memory, err)) < 0 ||
        (code = mull_pci_add_msi(&p->pci, err)) < 0 ||
        (cfg->rom &&
         (code = mull_pci_add_rom(&p->pci, cfg->rom, cfg->rom_size, env->memory, err)) < 0) ||
        (code = mull_pci_bus_attach(bus, &p->pci, -1, err)) < 0) {
        destroy(&p->device);
        return code;
    }
    *out = &p->device;
    return 0;
}
