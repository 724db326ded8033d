/*
 * The queues of the NVMe controller (NVM Express 1.4, chapter 4): commands come from submission
 * queues, wherever the guest has put them, and end in completion queues. All in the loop's thread,
 * with the controller's lock held.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "device/storage/nvme_internal.h"

#define BURST 64 /* commands of one queue before the others get their turn */

/* ---- Interrupts ---- */

/* Without MSI-X, vector n is bit n of INTMS, and all share one line (7.5.1.1). */
static void update_line(struct nvme *n)
{
    bool level = false;

    for (unsigned i = 0; i < NVME_QUEUES; i++) {
        const struct nvme_cq *cq = &n->cq[i];
        level |= cq->valid && cq->interrupts && cq->head != cq->tail &&
                 !(n->interrupt_mask >> (cq->vector & 31) & 1);
    }
    mull_pci_intx(&n->pci, level);
}

void nvme_interrupts(struct nvme *n)
{
    bool msix = mull_pci_msix_enabled(&n->pci);

    for (unsigned i = 0; i < NVME_QUEUES; i++) {
        struct nvme_cq *cq = &n->cq[i];
        if (cq->due && msix && cq->interrupts)
            mull_pci_msix_send(&n->pci, cq->vector);
        cq->due = false;
    }
    if (!msix)
        update_line(n);
}

/* ---- Completions ---- */

static uint32_t waiting(const struct nvme_cq *cq)
{
    return (cq->tail + cq->size - cq->head) % cq->size;
}

/* Is there room for one more command whose completion goes there? */
static bool room(const struct nvme_cq *cq)
{
    return waiting(cq) + cq->in_flight < cq->size - 1;
}

static void put_completion(struct nvme *n, unsigned sq, uint16_t id, uint16_t status,
                           uint32_t result)
{
    struct nvme_cq *cq = &n->cq[n->sq[sq].cq];
    struct {
        uint32_t result, reserved;
        uint16_t sq_head, sq, id, status;
    } entry = {result,       0,  (uint16_t)n->sq[sq].head,
               (uint16_t)sq, id, (uint16_t)(status << 1 | cq->phase)};
    uint64_t at = cq->base + (uint64_t)sizeof(entry) * cq->tail;

    /* The phase, in the last four bytes, must not be seen before the rest. */
    if (mull_mem_write(n->env.memory, at, &entry, 12) ||
        mull_mem_write32(n->env.memory, at + 12, (uint32_t)entry.status << 16 | entry.id)) {
        n->csts |= CSTS_FATAL;
        return;
    }
    if (++cq->tail == cq->size) {
        cq->tail = 0;
        cq->phase = !cq->phase;
    }
    cq->due = true;
}

static void put_idle(struct nvme_request *r)
{
    struct nvme *n = r->controller;

    r->next = n->idle;
    n->idle = r;
    n->in_flight--;
}

/* The last command of a queue that is being deleted has ended. */
static void end_deletion(struct nvme *n, struct nvme_sq *q)
{
    struct nvme_request *deleter = q->deleter;

    if (!deleter || q->in_flight)
        return;
    memset(q, 0, sizeof(*q));
    nvme_complete(deleter, NVME_OK, 0);
}

static void end_stop(struct nvme *n)
{
    if (n->stopping && !n->in_flight) {
        n->stopping = false;
        n->csts &= ~CSTS_READY;
    }
}

/* The command is no longer on its way. */
static void uncount(struct nvme_request *r)
{
    struct nvme *n = r->controller;

    n->sq[r->sq].in_flight--;
    n->cq[n->sq[r->sq].cq].in_flight--;
}

void nvme_complete(struct nvme_request *r, uint16_t status, uint32_t result)
{
    struct nvme *n = r->controller;

    if (r->generation == n->generation) {
        uncount(r);
        if (status)
            nvme_note_error(n, r, status);
        put_completion(n, r->sq, r->command.id, status, result);
        end_deletion(n, &n->sq[r->sq]);
    }
    put_idle(r);
    end_stop(n);
}

void nvme_take_back(struct nvme_request *r)
{
    uncount(r);
    put_idle(r);
}

bool nvme_complete_id(struct nvme *n, uint16_t id, uint16_t status, uint32_t result)
{
    if (!n->cq[0].valid || !room(&n->cq[0]))
        return false;
    put_completion(n, 0, id, status, result);
    return true;
}

void nvme_forget(struct nvme *n)
{
    n->generation++;
    for (unsigned i = 0; i < NVME_QUEUES; i++)
        if (n->sq[i].deleter)
            put_idle(n->sq[i].deleter);
    memset(n->sq, 0, sizeof(n->sq));
    memset(n->cq, 0, sizeof(n->cq));
}

/* ---- The guest's pages ---- */

void nvme_expect(struct nvme_request *r, uint32_t bytes)
{
    r->left = bytes;
    r->page = 0;
    r->list = 0;
}

/* The next entry of the list; the last one of a page leads to the next page if there is more. */
static bool next_entry(struct nvme_request *r, uint64_t *entry)
{
    struct mull_memory *m = r->controller->env.memory;

    if (r->list & 7 || mull_mem_read64(m, r->list, entry))
        return false;
    if ((r->list & (NVME_PAGE - 1)) == NVME_PAGE - 8 && r->left > NVME_PAGE) {
        if ((*entry & (NVME_PAGE - 1)) || !*entry) {
            r->error = NVME_INVALID_PRP;
            return false;
        }
        r->list = *entry;
        if (mull_mem_read64(m, r->list, entry))
            return false;
    }
    r->list += 8;
    return true;
}

static bool next_buffer(struct mull_dma *d, uint64_t *gpa, uint32_t *len)
{
    struct nvme_request *r = (struct nvme_request *)d;
    const struct nvme_command *c = &r->command;
    uint32_t offset = 0;

    if (!r->left)
        return false;
    if (r->page == 0) {
        *gpa = c->prp1;
        offset = (uint32_t)c->prp1 & (NVME_PAGE - 1);
    } else if (r->page == 1 && r->left <= NVME_PAGE) {
        *gpa = c->prp2;
    } else {
        if (r->page == 1)
            r->list = c->prp2;
        if (!next_entry(r, gpa))
            return false;
    }
    if (*gpa & (r->page ? NVME_PAGE - 1 : 3)) {
        r->error = NVME_INVALID_PRP;
        return false;
    }
    *len = r->left < NVME_PAGE - offset ? r->left : NVME_PAGE - offset;
    r->left -= *len;
    r->page++;
    return true;
}

static void enter(struct mull_dma *d)
{
    pthread_mutex_lock(&((struct nvme_request *)d)->controller->lock);
}

static void leave(struct mull_dma *d)
{
    struct nvme *n = ((struct nvme_request *)d)->controller;

    nvme_run(n);
    pthread_mutex_unlock(&n->lock);
}

static const struct mull_dma_ops dma_ops = {.next = next_buffer, .enter = enter, .leave = leave};

void nvme_answer(struct nvme_request *r, const void *data, uint32_t len)
{
    nvme_expect(r, len);
    if (mull_dma_copy_out(&r->dma, data, len) == len)
        nvme_complete(r, NVME_OK, 0);
    else
        nvme_complete(r, r->error ? r->error : NVME_TRANSFER_ERROR, 0);
}

static uint16_t status_of(const struct nvme_request *r, int result)
{
    if (!result)
        return NVME_OK;
    if (result == -EFAULT)
        return r->error ? r->error : NVME_TRANSFER_ERROR;
    if (result == -ECANCELED)
        return NVME_ABORTED;
    if (result == -ENOSPC)
        return NVME_CAPACITY;
    return r->dma.block.op == MULL_BLOCK_READ ? NVME_READ_ERROR : NVME_WRITE_FAULT;
}

void nvme_data_done(struct mull_dma *d, int result)
{
    struct nvme_request *r = (struct nvme_request *)d;
    struct nvme *n = r->controller;

    if (result)
        mull_dma_complain(d, n->env.log, &n->complaints, n->device.name, result);
    nvme_complete(r, status_of(r, result), 0);
}

/* ---- Submissions ---- */

static struct nvme_request *get_request(struct nvme *n)
{
    struct nvme_request *r = n->idle;

    if (n->in_flight >= NVME_IN_FLIGHT)
        return NULL;
    if (r)
        n->idle = r->next;
    else
        r = malloc(sizeof(*r));
    if (!r)
        return NULL;
    r->controller = n;
    mull_dma_begin(&r->dma, &dma_ops, n->env.memory, n->block);
    r->generation = n->generation;
    r->error = 0;
    r->ranges = r->range = 0;
    nvme_expect(r, 0);
    n->in_flight++;
    return r;
}

/* @return false: nothing to do there, or not now */
static bool begin_one(struct nvme *n, unsigned index)
{
    struct nvme_sq *q = &n->sq[index];

    if (!q->valid || q->deleter || q->head == q->tail || !n->cq[q->cq].valid ||
        !room(&n->cq[q->cq]))
        return false;
    struct nvme_request *r = get_request(n);
    if (!r)
        return false;
    if (mull_mem_read(n->env.memory, q->base + (uint64_t)sizeof(r->command) * q->head, &r->command,
                      sizeof(r->command))) {
        n->csts |= CSTS_FATAL; /* there is no command to answer */
        put_idle(r);
        return false;
    }
    r->sq = (uint16_t)index;
    q->head = q->head + 1 == q->size ? 0 : q->head + 1;
    q->in_flight++;
    n->cq[q->cq].in_flight++;
    if (r->command.flags) /* fused, or SGLs */
        nvme_complete(r, NVME_INVALID_FIELD, 0);
    else if (index)
        nvme_io_command(r);
    else
        nvme_admin_command(r);
    return true;
}

static bool usable(const struct nvme *n)
{
    return (n->csts & CSTS_READY) && !(n->csts & CSTS_FATAL) && !n->stopping && !n->paused;
}

static void shut_down_done(struct mull_dma *d, int result)
{
    struct nvme *n = ((struct nvme_request *)d)->controller;

    n->shutting = false;
    if (n->csts & CSTS_SHUT_BUSY)
        n->csts = (n->csts & ~CSTS_SHUT) | CSTS_SHUT_DONE;
}

/* Before the guest turns the power off, what it wrote has to be durable (7.6.2). */
static void shut_down(struct nvme *n)
{
    if (!(n->csts & CSTS_SHUT_BUSY) || n->shutting || n->paused)
        return;
    n->shutting = true;
    n->shutdown.controller = n;
    mull_dma_begin(&n->shutdown.dma, &dma_ops, n->env.memory, n->block);
    mull_dma_submit(&n->shutdown.dma, MULL_BLOCK_FLUSH, 0, 0, false, shut_down_done);
}

void nvme_run(struct nvme *n)
{
    for (unsigned i = 0; i < NVME_QUEUES; i++) {
        unsigned count = 0;
        while (count < BURST && usable(n) && begin_one(n, i))
            count++;
        if (count == BURST)
            nvme_post(n); /* let the loop do something else */
    }
    shut_down(n);
    nvme_tell_events(n);
    nvme_interrupts(n);
}

static void run_posted(void *opaque)
{
    struct nvme *n = opaque;

    pthread_mutex_lock(&n->lock);
    n->posted = false;
    nvme_run(n);
    pthread_mutex_unlock(&n->lock);
}

void nvme_post(struct nvme *n)
{
    if (!n->posted)
        n->posted = !mull_loop_post(n->env.loop, run_posted, n);
}

void nvme_doorbell(struct nvme *n, unsigned index, uint32_t value)
{
    unsigned q = index / 2;
    bool completion = index & 1;
    bool known = q < NVME_QUEUES && (completion ? n->cq[q].valid : n->sq[q].valid);

    if (!known) { /* invalid doorbell register (5.2.1) */
        nvme_event(n, 0, 0, 1);
    } else if (value >= (completion ? n->cq[q].size : n->sq[q].size)) {
        nvme_event(n, 0, 1, 1);
    } else if (completion) {
        /* No further than what was given. */
        uint32_t step = (value + n->cq[q].size - n->cq[q].head) % n->cq[q].size;
        if (step > waiting(&n->cq[q])) {
            nvme_event(n, 0, 1, 1);
        } else {
            bool full = !room(&n->cq[q]);
            n->cq[q].head = value;
            if (full) /* there may be commands that waited for room */
                nvme_post(n);
        }
    } else {
        n->sq[q].tail = value;
        nvme_post(n);
    }
    if (completion && !mull_pci_msix_enabled(&n->pci))
        update_line(n);
}
