/*
 * The virtqueue: what both layouts share, and the split one. See virtqueue.h; section numbers are
 * those of virtio 1.2.
 */
#include <endian.h>
#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <string.h>

#include "device/virtio/virtio.h"
#include "device/virtio/virtqueue_internal.h"

#define DESC_SIZE sizeof(struct vring_desc)
/* Offsets in the two rings (2.7.6, 2.7.8). */
#define RING_FLAGS 0
#define RING_IDX 2
#define RING_ENTRIES 4

static struct mull_memory *memory_of(const struct mull_virtqueue *q)
{
    return q->device->env.memory;
}

static uint64_t used_event_gpa(const struct mull_virtqueue *q)
{
    return q->avail + RING_ENTRIES + 2ull * q->size;
}

static uint64_t avail_event_gpa(const struct mull_virtqueue *q)
{
    return q->used + RING_ENTRIES + 8ull * q->size;
}

bool mull_virtqueue_live(const struct mull_virtqueue *q)
{
    return q->enabled && !q->resetting && mull_virtio_running(q->device);
}

bool virtqueue_range_ok(uint64_t gpa, uint64_t align, uint64_t len)
{
    return gpa % align == 0 && gpa <= UINT64_MAX - len;
}

static bool split_enable(struct mull_virtqueue *q)
{
    if (!q->size || q->size > q->max_size || (q->size & (q->size - 1)))
        return false;
    if (!virtqueue_range_ok(q->desc, 16, DESC_SIZE * q->size) ||
        !virtqueue_range_ok(q->avail, 2, RING_ENTRIES + 2ull * q->size + 2) ||
        !virtqueue_range_ok(q->used, 4, RING_ENTRIES + 8ull * q->size + 2))
        return false;
    return true;
}

bool mull_virtqueue_enable(struct mull_virtqueue *q)
{
    q->packed = mull_virtio_has(q->device, VIRTIO_F_RING_PACKED);
    if (!(q->packed ? packed_enable(q) : split_enable(q)))
        return false;
    q->next_avail = q->next_used = q->signalled_used = 0;
    q->signalled_valid = q->pushed = false;
    q->enabled = true;
    return true;
}

void mull_virtqueue_clear(struct mull_virtqueue *q)
{
    q->size = q->max_size;
    q->vector = MULL_VIRTIO_NO_VECTOR;
    q->enabled = q->resetting = q->packed = false;
    q->avail_wrap = q->used_wrap = false;
    q->desc = q->avail = q->used = 0;
    q->next_avail = q->next_used = q->signalled_used = 0;
    q->signalled_valid = q->pushed = false;
    q->budget = UINT32_MAX;
    q->exhausted = false;
}

/* ---- Taking chains ---- */

int virtqueue_broken(struct mull_virtqueue *q, const char *why)
{
    mull_virtio_broken(q->device, why);
    return 0;
}

const char *virtqueue_add_segment(struct mull_chain *c, uint64_t gpa, uint32_t len, uint16_t flags)
{
    bool in = flags & VRING_DESC_F_WRITE;

    if (!in && c->nin)
        return "a readable descriptor follows a writable one"; /* 2.7.4.2 */
    if ((uint64_t)c->out_len + c->in_len + len > UINT32_MAX)
        return "a chain of 4 GiB or more"; /* 2.7.5 */
    if (gpa > UINT64_MAX - len)
        return "a descriptor wraps around the end of memory";
    if (!len)
        return NULL; /* allowed, and of no consequence */
    c->segments[c->nout + c->nin] = (struct mull_segment){gpa, len};
    if (in) {
        c->nin++;
        c->in_len += len;
    } else {
        c->nout++;
        c->out_len += len;
    }
    return NULL;
}

/* Follow a chain through @table (@size entries) from @index: the queue's own descriptors, or an
 * indirect table that was copied. Ends after @size steps: a longer chain is a loop. */
static const char *walk(struct mull_chain *c, const struct vring_desc *table, uint64_t gpa,
                        uint32_t size, uint32_t index, struct vring_desc *indirect)
{
    struct mull_virtqueue *q = c->queue;
    struct vring_desc d;

    for (uint32_t steps = 0; steps < size; steps++) {
        if (index >= size)
            return "a descriptor index is out of range";
        if (table)
            d = table[index];
        else if (mull_mem_read(memory_of(q), gpa + DESC_SIZE * index, &d, sizeof(d)))
            return "the descriptor table is not in RAM";
        uint16_t flags = le16toh(d.flags);
        if (flags & VRING_DESC_F_INDIRECT) {
            /* Only the queue's table may refer to another, and only at the end (2.7.5.3). */
            if (!indirect || !mull_virtio_has(q->device, VIRTIO_RING_F_INDIRECT_DESC) ||
                (flags & VRING_DESC_F_NEXT))
                return "an indirect descriptor where none may be";
            *indirect = d;
            return NULL;
        }
        const char *why = virtqueue_add_segment(c, le64toh(d.addr), le32toh(d.len), flags);
        if (why)
            return why;
        if (!(flags & VRING_DESC_F_NEXT))
            return NULL;
        index = le16toh(d.next);
    }
    return "a descriptor chain loops";
}

static const char *walk_indirect(struct mull_chain *c, const struct vring_desc *d)
{
    struct vring_desc table[MULL_VIRTQUEUE_MAX_CHAIN];
    uint32_t len = le32toh(d->len);

    if (!len || len % DESC_SIZE)
        return "an indirect table's length is no multiple of 16";
    if (len / DESC_SIZE + c->nout + c->nin > MULL_VIRTQUEUE_MAX_CHAIN)
        return "an indirect table is too long";
    if (mull_mem_read(memory_of(c->queue), le64toh(d->addr), table, len))
        return "an indirect table is not in RAM";
    return walk(c, table, 0, len / DESC_SIZE, 0, NULL);
}

int mull_virtqueue_pop(struct mull_virtqueue *q, struct mull_chain *c)
{
    struct mull_memory *mem = memory_of(q);
    struct vring_desc indirect = {0};
    uint16_t idx, head;

    if (!mull_virtqueue_live(q))
        return 0;
    if (q->packed)
        return packed_pop(q, c);
    if (mull_mem_read16(mem, q->avail + RING_IDX, &idx))
        return virtqueue_broken(q, "the available ring is not in RAM");
    uint16_t waiting = idx - q->next_avail;
    if (!waiting)
        return 0;
    if (waiting > q->size)
        return virtqueue_broken(q, "the available index jumped");
    if (!q->budget) {
        q->exhausted = true;
        return 0;
    }
    if (mull_mem_read16(mem, q->avail + RING_ENTRIES + 2ull * (q->next_avail & (q->size - 1)),
                        &head))
        return virtqueue_broken(q, "the available ring is not in RAM");
    if (head >= q->size)
        return virtqueue_broken(q, "a chain's head is out of range");

    c->queue = q;
    c->head = head;
    c->nout = c->nin = 0;
    c->out_len = c->in_len = 0;
    const char *why = walk(c, NULL, q->desc, q->size, head, &indirect);
    if (!why && indirect.flags)
        why = walk_indirect(c, &indirect);
    if (why)
        return virtqueue_broken(q, why);
    q->next_avail++;
    q->in_flight++;
    q->budget--;
    return 1;
}

void mull_virtqueue_unpop(struct mull_virtqueue *q)
{
    if (q->packed) {
        packed_unpop(q);
        return;
    }
    q->next_avail--;
    q->in_flight--;
}

/* ---- Giving chains back ---- */

bool virtqueue_may_complete(const struct mull_virtqueue *q)
{
    return q->enabled && !q->resetting && mull_virtio_driver_ok(q->device);
}

void mull_virtqueue_fill(struct mull_virtqueue *q, unsigned index, uint16_t head, uint32_t written)
{
    if (q->packed) {
        packed_fill(q, index, head, written);
        return;
    }
    struct vring_used_elem elem = {htole32(head), htole32(written)};
    uint16_t slot = (uint16_t)(q->next_used + index) & (q->size - 1);

    if (virtqueue_may_complete(q) &&
        mull_mem_write(memory_of(q), q->used + RING_ENTRIES + 8ull * slot, &elem, sizeof(elem)))
        virtqueue_broken(q, "the used ring is not in RAM");
}

void mull_virtqueue_publish(struct mull_virtqueue *q, unsigned count)
{
    uint16_t next = (uint16_t)(q->next_used + count);

    if (q->packed) {
        packed_publish(q, count);
        return;
    }
    q->in_flight -= count;
    if (!virtqueue_may_complete(q))
        return;
    /* After the elements (2.7.8.2): mull_mem_write16() has release order. */
    if (mull_mem_write16(memory_of(q), q->used + RING_IDX, next)) {
        virtqueue_broken(q, "the used ring is not in RAM");
        return;
    }
    q->next_used = next;
    q->pushed = true;
}

void mull_virtqueue_push(struct mull_virtqueue *q, uint16_t head, uint32_t written)
{
    mull_virtqueue_fill(q, 0, head, written);
    mull_virtqueue_publish(q, 1);
}

/* Has the driver asked to hear of the buffers up to next_used? (2.7.7.1, 2.7.10) */
static bool driver_wants_interrupt(struct mull_virtqueue *q)
{
    uint16_t event, flags, old = q->signalled_used, now = q->next_used;
    bool valid = q->signalled_valid;

    /* The used index must be visible before the driver's wish is read: it does both the other way
     * round. */
    atomic_thread_fence(memory_order_seq_cst);
    if (q->packed)
        return packed_wants_interrupt(q);
    if (!mull_virtio_has(q->device, VIRTIO_RING_F_EVENT_IDX)) {
        if (mull_mem_read16(memory_of(q), q->avail + RING_FLAGS, &flags))
            return false;
        return !(flags & VRING_AVAIL_F_NO_INTERRUPT);
    }
    if (mull_mem_read16(memory_of(q), used_event_gpa(q), &event))
        return false;
    q->signalled_used = now;
    q->signalled_valid = true;
    return !valid || (uint16_t)(now - event - 1) < (uint16_t)(now - old);
}

void mull_virtqueue_signal(struct mull_virtqueue *q)
{
    if (!q->pushed || !virtqueue_may_complete(q))
        return;
    q->pushed = false;
    if (driver_wants_interrupt(q))
        q->device->due_queues |= 1u << (q - q->device->queues);
}

/* ---- Kicks ---- */

void mull_virtqueue_quiet(struct mull_virtqueue *q)
{
    /* With event indices the one that is set lies behind already. */
    if (!mull_virtqueue_live(q))
        return;
    if (q->packed)
        packed_quiet(q);
    else if (!mull_virtio_has(q->device, VIRTIO_RING_F_EVENT_IDX))
        mull_mem_write16(memory_of(q), q->used + RING_FLAGS, VRING_USED_F_NO_NOTIFY);
}

bool mull_virtqueue_listen(struct mull_virtqueue *q)
{
    return mull_virtqueue_listen_beyond(q, 0);
}

bool mull_virtqueue_listen_beyond(struct mull_virtqueue *q, unsigned seen)
{
    uint16_t idx, event = (uint16_t)(q->next_avail + seen);
    int rc;

    if (!mull_virtqueue_live(q) || q->exhausted)
        return false;
    if (q->packed)
        return packed_listen(q, seen);
    if (mull_virtio_has(q->device, VIRTIO_RING_F_EVENT_IDX))
        rc = mull_mem_write16(memory_of(q), avail_event_gpa(q), event);
    else
        rc = mull_mem_write16(memory_of(q), q->used + RING_FLAGS, 0);
    /* Our wish must be visible before we look a last time (2.7.10.1). */
    atomic_thread_fence(memory_order_seq_cst);
    if (rc || mull_mem_read16(memory_of(q), q->avail + RING_IDX, &idx)) {
        virtqueue_broken(q, "a ring is not in RAM");
        return false;
    }
    return idx != event;
}

/* ---- The bytes of a chain ---- */

/* Call @step for each piece of [offset, offset + len) of one side of the chain. */
typedef int (*piece_fn)(void *opaque, const struct mull_chain *c, uint64_t gpa, uint64_t len);

static int each_piece(const struct mull_chain *c, bool in, uint64_t offset, uint64_t len,
                      piece_fn step, void *opaque)
{
    uint64_t total = in ? c->in_len : c->out_len;
    const struct mull_segment *s = c->segments + (in ? c->nout : 0);
    const struct mull_segment *end = s + (in ? c->nin : c->nout);

    if (offset > total || len > total - offset)
        return -EFAULT;
    for (; len && s < end; s++) {
        if (offset >= s->len) {
            offset -= s->len;
            continue;
        }
        uint64_t n = s->len - offset < len ? s->len - offset : len;
        int rc = step(opaque, c, s->gpa + offset, n);
        if (rc)
            return rc;
        offset = 0;
        len -= n;
    }
    return 0;
}

static int read_piece(void *opaque, const struct mull_chain *c, uint64_t gpa, uint64_t len)
{
    uint8_t **to = opaque;
    int rc = mull_mem_read(memory_of(c->queue), gpa, *to, len);
    *to += len;
    return rc;
}

static int write_piece(void *opaque, const struct mull_chain *c, uint64_t gpa, uint64_t len)
{
    const uint8_t **from = opaque;
    int rc = mull_mem_write(memory_of(c->queue), gpa, *from, len);
    *from += len;
    return rc;
}

static int wrote_piece(void *opaque, const struct mull_chain *c, uint64_t gpa, uint64_t len)
{
    mull_mem_wrote(memory_of(c->queue), gpa, len);
    return 0;
}

struct vectors {
    bool writable;
    struct iovec *iov;
    int count, max;
};

static int iov_piece(void *opaque, const struct mull_chain *c, uint64_t gpa, uint64_t len)
{
    struct vectors *v = opaque;
    int n = mull_mem_iov(memory_of(c->queue), gpa, len, v->writable, v->iov + v->count,
                         v->max - v->count);
    if (n < 0)
        return n;
    v->count += n;
    return 0;
}

int mull_chain_read(const struct mull_chain *c, uint64_t offset, void *buf, uint64_t len)
{
    return each_piece(c, false, offset, len, read_piece, &buf);
}

int mull_chain_write(const struct mull_chain *c, uint64_t offset, const void *buf, uint64_t len)
{
    return each_piece(c, true, offset, len, write_piece, &buf);
}

int mull_chain_iov(const struct mull_chain *c, bool in, uint64_t offset, uint64_t len,
                   struct iovec *iov, int max)
{
    struct vectors v = {.writable = in, .iov = iov, .max = max};
    int rc = each_piece(c, in, offset, len, iov_piece, &v);
    return rc ? rc : v.count;
}

void mull_chain_wrote(const struct mull_chain *c, uint64_t offset, uint64_t len)
{
    each_piece(c, true, offset, len, wrote_piece, NULL);
}

/* ---- State ---- */

static int queue_loaded(void *object, uint32_t version, struct mull_error *err)
{
    struct mull_virtqueue *q = object;
    uint16_t next_avail = q->next_avail, next_used = q->next_used;
    uint16_t signalled_used = q->signalled_used;
    bool signalled_valid = q->signalled_valid;
    bool avail_wrap = q->avail_wrap, used_wrap = q->used_wrap;

    q->in_flight = 0;
    if (!q->enabled)
        return 0;
    if (!mull_virtqueue_enable(q))
        return mull_fail(err, EINVAL, "virtqueue: saved size %u or addresses are not valid",
                         q->size);
    q->next_avail = next_avail;
    q->next_used = next_used;
    q->signalled_used = signalled_used;
    q->signalled_valid = signalled_valid;
    q->avail_wrap = avail_wrap;
    q->used_wrap = used_wrap;
    if (q->packed && !packed_positions_ok(q))
        return mull_fail(err, EINVAL, "virtqueue: saved positions %u and %u are outside its ring",
                         next_avail, next_used);
    return 0;
}

const struct mull_state_desc mull_virtqueue_desc = {
    .name = "virtqueue",
    .version = 2,
    .oldest = 1,
    .fields =
        (const struct mull_field[]){
            MULL_FIELD(struct mull_virtqueue, size), MULL_FIELD(struct mull_virtqueue, vector),
            MULL_FIELD(struct mull_virtqueue, enabled),
            MULL_FIELD(struct mull_virtqueue, resetting), MULL_FIELD(struct mull_virtqueue, desc),
            MULL_FIELD(struct mull_virtqueue, avail), MULL_FIELD(struct mull_virtqueue, used),
            MULL_FIELD(struct mull_virtqueue, next_avail),
            MULL_FIELD(struct mull_virtqueue, next_used),
            MULL_FIELD(struct mull_virtqueue, signalled_used),
            MULL_FIELD(struct mull_virtqueue, signalled_valid),
            MULL_FIELD_SINCE(2, struct mull_virtqueue, avail_wrap),
            MULL_FIELD_SINCE(2, struct mull_virtqueue, used_wrap), MULL_FIELDS_END},
    .after_load = queue_loaded,
};
