/*
 * The packed virtqueue (virtio 1.2, 2.8): one ring of descriptors that both sides write, each turn
 * around it marked by a wrap counter. See virtqueue.h; section numbers are those of virtio 1.2.
 */
#include <endian.h>
#include <linux/virtio_config.h>
#include <stdatomic.h>
#include <stddef.h>

#include "device/virtio/virtio.h"
#include "device/virtio/virtqueue_internal.h"

#define DESC_SIZE sizeof(struct vring_packed_desc)
#define DESC_LEN offsetof(struct vring_packed_desc, len)
#define DESC_FLAGS offsetof(struct vring_packed_desc, flags)
#define F_AVAIL (1u << VRING_PACKED_DESC_F_AVAIL)
#define F_USED (1u << VRING_PACKED_DESC_F_USED)
/* The event suppression structures (2.8.14). */
#define EVENT_OFF_WRAP 0
#define EVENT_FLAGS 2
#define EVENT_SIZE 4

static struct mull_memory *memory_of(const struct mull_virtqueue *q)
{
    return q->device->env.memory;
}

/* A place in the ring, and the turn around it that it belongs to. */
struct place {
    uint32_t at;
    bool wrap;
};

static struct place behind(const struct mull_virtqueue *q, struct place p, uint32_t count)
{
    p.at += count;
    if (p.at >= q->size) {
        p.at -= q->size;
        p.wrap = !p.wrap;
    }
    return p;
}

static struct place next_avail(const struct mull_virtqueue *q)
{
    return (struct place){q->next_avail, q->avail_wrap};
}

static void set_next_avail(struct mull_virtqueue *q, struct place p)
{
    q->next_avail = (uint16_t)p.at;
    q->avail_wrap = p.wrap;
}

static uint64_t desc_gpa(const struct mull_virtqueue *q, uint32_t at)
{
    return q->desc + DESC_SIZE * at;
}

bool packed_enable(struct mull_virtqueue *q)
{
    if (!q->size || q->size > q->max_size ||
        !virtqueue_range_ok(q->desc, 16, DESC_SIZE * q->size) ||
        !virtqueue_range_ok(q->avail, 4, EVENT_SIZE) || !virtqueue_range_ok(q->used, 4, EVENT_SIZE))
        return false;
    q->avail_wrap = q->used_wrap = true;
    for (unsigned i = 0; i < q->size; i++)
        q->idle[i] = (uint16_t)(q->size - 1 - i);
    q->nidle = q->size;
    return true;
}

bool packed_positions_ok(const struct mull_virtqueue *q)
{
    return q->next_avail < q->size && q->next_used < q->size;
}

/* ---- Taking chains ---- */

/* 2.8.1: available, where the driver's bit is this turn's and the device's is not.
 * @return -1: not in RAM */
static int is_available(const struct mull_virtqueue *q, struct place p, uint16_t *flags)
{
    if (mull_mem_read16(memory_of(q), desc_gpa(q, p.at) + DESC_FLAGS, flags))
        return -1;
    return !!(*flags & F_AVAIL) == p.wrap && !!(*flags & F_USED) != p.wrap;
}

/* Read the chain that begins at next_avail; its first flags were read already. */
static const char *walk(struct mull_chain *c, uint16_t flags, uint16_t *id, uint16_t *count,
                        struct vring_packed_desc *indirect)
{
    struct mull_virtqueue *q = c->queue;
    struct place p = next_avail(q);
    struct vring_packed_desc d;

    for (uint32_t steps = 0; steps < q->size; steps++, p = behind(q, p, 1)) {
        if (mull_mem_read(memory_of(q), desc_gpa(q, p.at), &d, sizeof(d)))
            return "the descriptor ring is not in RAM";
        if (steps)
            flags = le16toh(d.flags);
        *id = le16toh(d.id); /* that of the last one counts (2.8.6) */
        *count = (uint16_t)(steps + 1);
        if (flags & VRING_DESC_F_INDIRECT) {
            if (!mull_virtio_has(q->device, VIRTIO_RING_F_INDIRECT_DESC) || steps ||
                (flags & VRING_DESC_F_NEXT))
                return "an indirect descriptor where none may be";
            d.flags = htole16(flags);
            *indirect = d;
            return NULL;
        }
        const char *why = virtqueue_add_segment(c, le64toh(d.addr), le32toh(d.len), flags);
        if (why)
            return why;
        if (!(flags & VRING_DESC_F_NEXT))
            return NULL;
    }
    return "a descriptor chain loops";
}

/* 2.8.7: all descriptors of the table, in order. */
static const char *walk_indirect(struct mull_chain *c, const struct vring_packed_desc *indirect)
{
    struct vring_packed_desc table[MULL_VIRTQUEUE_MAX_CHAIN];
    uint32_t len = le32toh(indirect->len);

    if (!len || len % DESC_SIZE)
        return "an indirect table's length is no multiple of 16";
    if (len > sizeof(table))
        return "an indirect table is too long";
    if (mull_mem_read(memory_of(c->queue), le64toh(indirect->addr), table, len))
        return "an indirect table is not in RAM";
    for (uint32_t i = 0; i < len / DESC_SIZE; i++) {
        const char *why = virtqueue_add_segment(c, le64toh(table[i].addr), le32toh(table[i].len),
                                                le16toh(table[i].flags));
        if (why)
            return why;
    }
    return NULL;
}

int packed_pop(struct mull_virtqueue *q, struct mull_chain *c)
{
    struct vring_packed_desc indirect = {0};
    uint16_t flags, id = 0, count = 0;

    int available = is_available(q, next_avail(q), &flags);
    if (available <= 0)
        return available ? virtqueue_broken(q, "the descriptor ring is not in RAM") : 0;
    if (!q->budget) {
        q->exhausted = true;
        return 0;
    }
    if (!q->nidle)
        return virtqueue_broken(q, "more chains are offered than the ring has descriptors");
    c->queue = q;
    c->nout = c->nin = 0;
    c->out_len = c->in_len = 0;
    const char *why = walk(c, flags, &id, &count, &indirect);
    if (!why && indirect.flags)
        why = walk_indirect(c, &indirect);
    if (why)
        return virtqueue_broken(q, why);
    c->head = q->idle[--q->nidle];
    q->chains[c->head] = (struct mull_packed_chain){id, count};
    set_next_avail(q, behind(q, next_avail(q), count));
    q->in_flight++;
    q->budget--;
    return 1;
}

/* The last chain taken is the one that lies just above the idle ones. */
void packed_unpop(struct mull_virtqueue *q)
{
    uint16_t count = q->chains[q->idle[q->nidle++]].count;
    struct place p = next_avail(q);

    if (p.at < count) {
        p.at += q->size;
        p.wrap = !p.wrap;
    }
    p.at -= count;
    set_next_avail(q, p);
    q->in_flight--;
}

/* ---- Giving chains back ---- */

static uint16_t used_flags(bool wrap, uint32_t written)
{
    return (uint16_t)((wrap ? F_AVAIL | F_USED : 0) | (written ? VRING_DESC_F_WRITE : 0));
}

/* The flags of the first one are held back until all are there: they alone make them visible. */
void packed_fill(struct mull_virtqueue *q, unsigned index, uint16_t head, uint32_t written)
{
    struct mull_memory *mem = memory_of(q);
    struct place p = {q->next_used, q->used_wrap};
    const struct {
        uint32_t len;
        uint16_t id;
    } __attribute__((packed)) used = {htole32(written), htole16(q->chains[head].id)};

    if (!index)
        q->filled = 0;
    p = behind(q, p, q->filled);
    q->filled += q->chains[head].count;
    q->idle[q->nidle++] = head;
    if (!index)
        q->first_flags = used_flags(p.wrap, written);
    if (!virtqueue_may_complete(q))
        return;
    int rc = mull_mem_write(mem, desc_gpa(q, p.at) + DESC_LEN, &used, sizeof(used));
    if (!rc && index)
        rc = mull_mem_write16(mem, desc_gpa(q, p.at) + DESC_FLAGS, used_flags(p.wrap, written));
    if (rc)
        virtqueue_broken(q, "the descriptor ring is not in RAM");
}

void packed_publish(struct mull_virtqueue *q, unsigned count)
{
    struct place p = {q->next_used, q->used_wrap};

    q->in_flight -= count;
    if (!virtqueue_may_complete(q))
        return;
    /* After everything else (2.8.21.2): mull_mem_write16() has release order. */
    if (mull_mem_write16(memory_of(q), desc_gpa(q, p.at) + DESC_FLAGS, q->first_flags)) {
        virtqueue_broken(q, "the descriptor ring is not in RAM");
        return;
    }
    p = behind(q, p, q->filled);
    if (p.wrap != q->used_wrap)
        q->signalled_valid = false; /* positions of two turns do not compare: interrupt once more */
    q->next_used = (uint16_t)p.at;
    q->used_wrap = p.wrap;
    q->pushed = true;
}

/* ---- Events (2.8.14) ---- */

bool packed_wants_interrupt(struct mull_virtqueue *q)
{
    uint16_t flags, off_wrap, old = q->signalled_used, now = q->next_used;
    bool valid = q->signalled_valid;

    if (mull_mem_read16(memory_of(q), q->avail + EVENT_FLAGS, &flags))
        return false;
    if (flags != VRING_PACKED_EVENT_FLAG_DESC ||
        !mull_virtio_has(q->device, VIRTIO_RING_F_EVENT_IDX))
        return flags != VRING_PACKED_EVENT_FLAG_DISABLE;
    if (mull_mem_read16(memory_of(q), q->avail + EVENT_OFF_WRAP, &off_wrap))
        return false;
    q->signalled_used = now;
    q->signalled_valid = true;
    uint16_t event = off_wrap & 0x7fff;
    if ((off_wrap >> VRING_PACKED_EVENT_F_WRAP_CTR) != q->used_wrap)
        event = (uint16_t)(event - q->size); /* of the turn before */
    return !valid || (uint16_t)(now - event - 1) < (uint16_t)(now - old);
}

void packed_quiet(struct mull_virtqueue *q)
{
    /* With event indices the one that is set lies behind already. */
    if (!mull_virtio_has(q->device, VIRTIO_RING_F_EVENT_IDX))
        mull_mem_write16(memory_of(q), q->used + EVENT_FLAGS, VRING_PACKED_EVENT_FLAG_DISABLE);
}

bool packed_listen(struct mull_virtqueue *q, unsigned seen)
{
    struct mull_memory *mem = memory_of(q);
    struct place p = next_avail(q);
    uint16_t flags = VRING_PACKED_EVENT_FLAG_ENABLE;
    int rc = 0;

    /* Chains that were taken and put back: they lie just below the top of the idle ones. */
    for (unsigned i = 0; i < seen && i < q->nidle; i++)
        p = behind(q, p, q->chains[q->idle[q->nidle - 1 - i]].count);
    if (mull_virtio_has(q->device, VIRTIO_RING_F_EVENT_IDX)) {
        flags = VRING_PACKED_EVENT_FLAG_DESC;
        rc = mull_mem_write16(mem, q->used + EVENT_OFF_WRAP,
                              (uint16_t)(p.at | (unsigned)p.wrap << VRING_PACKED_EVENT_F_WRAP_CTR));
    }
    if (!rc)
        rc = mull_mem_write16(mem, q->used + EVENT_FLAGS, flags);
    /* Our wish must be visible before we look a last time. */
    atomic_thread_fence(memory_order_seq_cst);
    int available = rc ? -1 : is_available(q, p, &flags);
    if (available < 0)
        virtqueue_broken(q, "a ring is not in RAM");
    return available > 0;
}
