/*
 * The virtio block device (virtio 1.2, 5.2) in front of a struct mull_block: checks requests,
 * hands guest memory to the block layer as vectors, several at a time, and reports what came of
 * them. Knows sectors, not formats.
 */
#include <endian.h>
#include <errno.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_ids.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "device/devices.h"
#include "device/virtio/virtio.h"

#define SECTOR 512u
#define QUEUE_SIZE 256
#define SEG_MAX (QUEUE_SIZE - 2) /* besides the header and the status */
#define MAX_RANGES 16            /* of one discard or write-zeroes request */
#define MAX_RANGE_SECTORS (1u << 22)
#define ID_BYTES VIRTIO_BLK_ID_BYTES
#define PCI_CLASS_STORAGE 0x018000
#define MAX_COMPLAINTS 8

struct blk {
    struct mull_virtio v;
    struct mull_block *block;
    bool readonly;
    uint8_t writeback; /* 5.2.5: as the driver set it */
    char serial[ID_BYTES + 1];
    struct request *idle;
    struct mull_chain chain; /* scratch of the loop's thread */
    unsigned complaints;
};

struct request {
    struct mull_block_request block; /* must be first */
    struct blk *blk;
    struct request *next; /* in the list of idle ones */
    uint16_t queue, head;
    uint64_t status_gpa;
    uint32_t type;
    uint32_t data_len; /* bytes a read fills */
    bool flushing;     /* the write is done, its flush is not */
    unsigned nranges, range;
    struct virtio_blk_discard_write_zeroes ranges[MAX_RANGES];
    unsigned nsegments; /* where a read goes, to tell who watches that memory */
    struct mull_segment segments[MULL_BLOCK_MAX_IOV];
};

static struct request *request_get(struct blk *b)
{
    struct request *r = b->idle;
    if (r)
        b->idle = r->next;
    else
        r = malloc(sizeof(*r)); /* at most one for each queue entry */
    if (r)
        r->blk = b;
    return r;
}

static void request_put(struct blk *b, struct request *r)
{
    r->next = b->idle;
    b->idle = r;
}

/* ---- Completion ---- */

static void finish(struct blk *b, unsigned queue, uint16_t head, uint64_t status_gpa,
                   uint8_t status, uint32_t written)
{
    struct mull_virtqueue *q = &b->v.queues[queue];

    /* After a reset the memory is the driver's again: nothing is in flight by then, so only a
     * broken device gets here without a live queue, and its status goes nowhere. */
    if (!mull_mem_write(b->v.env.memory, status_gpa, &status, 1))
        written++;
    mull_virtqueue_push(q, head, written);
    mull_virtqueue_signal(q);
}

static uint8_t status_of(struct blk *b, const struct request *r, int result)
{
    if (!result)
        return VIRTIO_BLK_S_OK;
    if (result == -EOPNOTSUPP)
        return VIRTIO_BLK_S_UNSUPP;
    if (result == -ECANCELED) /* the machine is reset or gone */
        return VIRTIO_BLK_S_IOERR;
    mull_log_limited(
        b->v.env.log, b->complaints, MAX_COMPLAINTS, MULL_LOG_WARN,
        "%s: request type %u at byte %llu, %llu bytes: %s; the guest gets an I/O error",
        b->v.device.name, r->type, (unsigned long long)r->block.offset,
        (unsigned long long)r->block.length, strerror(-result));
    return VIRTIO_BLK_S_IOERR;
}

static bool write_through(const struct blk *b)
{
    if (mull_virtio_has(&b->v, VIRTIO_BLK_F_CONFIG_WCE))
        return !b->writeback;
    return !mull_virtio_has(&b->v, VIRTIO_BLK_F_FLUSH);
}

static bool submit_range(struct blk *b, struct request *r);

static void done(struct mull_block_request *block, int result)
{
    struct request *r = (struct request *)block;
    struct blk *b = r->blk;

    mull_virtio_lock(&b->v);
    if (!result && r->type == VIRTIO_BLK_T_OUT && !r->flushing && write_through(b)) {
        r->flushing = true;
        r->block.op = MULL_BLOCK_FLUSH;
        r->block.niov = 0;
        mull_block_submit(b->block, &r->block);
    } else if (!result && r->range < r->nranges && submit_range(b, r)) {
        /* The next range of a discard is on its way. */
    } else {
        if (r->type == VIRTIO_BLK_T_IN)
            for (unsigned i = 0; i < r->nsegments; i++)
                mull_mem_wrote(b->v.env.memory, r->segments[i].gpa, r->segments[i].len);
        finish(b, r->queue, r->head, r->status_gpa, status_of(b, r, result),
               result ? 0 : r->data_len);
        request_put(b, r);
    }
    mull_virtio_unlock(&b->v);
}

/* ---- Requests ---- */

/* May [sector, sector + count) be accessed? */
static bool in_range(const struct blk *b, uint64_t sector, uint64_t count)
{
    uint64_t capacity = mull_block_size(b->block) / SECTOR;
    return sector <= capacity && count <= capacity - sector;
}

static void prepare(struct request *r, enum mull_block_op op, uint64_t offset, uint64_t length)
{
    r->block.op = op;
    r->block.offset = offset;
    r->block.length = length;
    r->block.niov = 0;
    r->block.may_unmap = false;
    r->block.done = done;
}

/* Reads and writes. @return a status, or -1: submitted */
static int start_transfer(struct blk *b, struct request *r, uint64_t sector)
{
    const struct mull_chain *c = &b->chain;
    bool in = r->type == VIRTIO_BLK_T_IN;
    uint32_t skip = in ? 0 : sizeof(struct virtio_blk_outhdr);
    uint32_t len = in ? c->in_len - 1 : c->out_len - skip;

    if (len % SECTOR || !in_range(b, sector, len / SECTOR) || (!in && b->readonly))
        return VIRTIO_BLK_S_IOERR;
    prepare(r, in ? MULL_BLOCK_READ : MULL_BLOCK_WRITE, sector * SECTOR, len);
    int n = mull_chain_iov(c, in, skip, len, r->block.iov, MULL_BLOCK_MAX_IOV);
    if (n < 0)
        return VIRTIO_BLK_S_IOERR;
    r->block.niov = n;
    if (in) {
        if (c->nin > MULL_BLOCK_MAX_IOV)
            return VIRTIO_BLK_S_IOERR;
        r->data_len = len;
        r->nsegments = c->nin;
        memcpy(r->segments, c->segments + c->nout, c->nin * sizeof(r->segments[0]));
    }
    mull_block_submit(b->block, &r->block);
    return -1;
}

static uint8_t start_get_id(struct blk *b, struct request *r)
{
    uint32_t len = b->chain.in_len - 1 < ID_BYTES ? b->chain.in_len - 1 : ID_BYTES;
    if (mull_chain_write(&b->chain, 0, b->serial, len))
        return VIRTIO_BLK_S_IOERR;
    r->data_len = len;
    return VIRTIO_BLK_S_OK;
}

/* Submit range number r->range. @return false: there is no range left to submit */
static bool submit_range(struct blk *b, struct request *r)
{
    bool zero = r->type == VIRTIO_BLK_T_WRITE_ZEROES;

    while (r->range < r->nranges) {
        const struct virtio_blk_discard_write_zeroes *range = &r->ranges[r->range++];
        uint64_t sectors = le32toh(range->num_sectors);
        if (!sectors)
            continue;
        prepare(r, zero ? MULL_BLOCK_ZERO : MULL_BLOCK_DISCARD, le64toh(range->sector) * SECTOR,
                sectors * SECTOR);
        r->block.may_unmap = le32toh(range->flags) & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;
        mull_block_submit(b->block, &r->block);
        return true;
    }
    return false;
}

/* Discard and write zeroes (5.2.6). @return a status, or -1: submitted */
static int start_ranges(struct blk *b, struct request *r)
{
    bool zero = r->type == VIRTIO_BLK_T_WRITE_ZEROES;
    uint32_t len = b->chain.out_len - (uint32_t)sizeof(struct virtio_blk_outhdr);

    if (!mull_virtio_has(&b->v, zero ? VIRTIO_BLK_F_WRITE_ZEROES : VIRTIO_BLK_F_DISCARD))
        return VIRTIO_BLK_S_UNSUPP;
    if (!len || len % sizeof(r->ranges[0]) || len > sizeof(r->ranges) || b->readonly)
        return VIRTIO_BLK_S_IOERR;
    if (mull_chain_read(&b->chain, sizeof(struct virtio_blk_outhdr), r->ranges, len))
        return VIRTIO_BLK_S_IOERR;
    r->nranges = len / (uint32_t)sizeof(r->ranges[0]);
    for (unsigned i = 0; i < r->nranges; i++) {
        uint32_t flags = le32toh(r->ranges[i].flags), sectors = le32toh(r->ranges[i].num_sectors);
        if (flags & ~(zero ? VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP : 0u))
            return VIRTIO_BLK_S_UNSUPP;
        if (sectors > MAX_RANGE_SECTORS || !in_range(b, le64toh(r->ranges[i].sector), sectors))
            return VIRTIO_BLK_S_IOERR;
    }
    return submit_range(b, r) ? -1 : VIRTIO_BLK_S_OK;
}

/* @return a status, or -1: done() will tell */
static int start_request(struct blk *b, struct request *r, uint64_t sector)
{
    switch (r->type) {
    case VIRTIO_BLK_T_IN:
    case VIRTIO_BLK_T_OUT:
        return start_transfer(b, r, sector);
    case VIRTIO_BLK_T_FLUSH:
        prepare(r, MULL_BLOCK_FLUSH, 0, 0);
        mull_block_submit(b->block, &r->block);
        return -1;
    case VIRTIO_BLK_T_GET_ID:
        return start_get_id(b, r);
    case VIRTIO_BLK_T_DISCARD:
    case VIRTIO_BLK_T_WRITE_ZEROES:
        return start_ranges(b, r);
    default:
        return VIRTIO_BLK_S_UNSUPP;
    }
}

/* Handle the chain in b->chain. @return false: the device is broken */
static bool handle_chain(struct blk *b, unsigned queue)
{
    struct mull_chain *c = &b->chain;
    struct virtio_blk_outhdr header;

    if (c->out_len < sizeof(header) || mull_chain_read(c, 0, &header, sizeof(header))) {
        mull_virtio_broken(&b->v, "a request without a header");
        return false;
    }
    if (!c->in_len) {
        mull_virtio_broken(&b->v, "a request without a status byte");
        return false;
    }
    const struct mull_segment *last = &c->segments[c->nout + c->nin - 1];
    uint64_t status_gpa = last->gpa + last->len - 1;
    struct request *r = request_get(b);
    if (!r) {
        finish(b, queue, c->head, status_gpa, VIRTIO_BLK_S_IOERR, 0);
        return true;
    }
    r->queue = (uint16_t)queue;
    r->head = c->head;
    r->status_gpa = status_gpa;
    r->type = le32toh(header.type);
    r->data_len = 0;
    r->flushing = false;
    r->nranges = r->range = r->nsegments = 0;
    int status = start_request(b, r, le64toh(header.sector));
    if (status >= 0) {
        finish(b, queue, r->head, r->status_gpa, (uint8_t)status,
               status == VIRTIO_BLK_S_OK ? r->data_len : 0);
        request_put(b, r);
    }
    return true;
}

static void blk_kick(struct mull_virtio *v, unsigned queue)
{
    struct blk *b = (struct blk *)v;
    struct mull_virtqueue *q = &v->queues[queue];

    do {
        mull_virtqueue_quiet(q);
        while (mull_virtqueue_pop(q, &b->chain) == 1) {
            if (!handle_chain(b, queue)) {
                mull_virtqueue_push(q, b->chain.head, 0); /* only counts it */
                return;
            }
        }
    } while (mull_virtqueue_listen(q));
}

/* ---- The device ---- */

static void blk_drain(struct mull_virtio *v)
{
    mull_block_drain(((struct blk *)v)->block);
}

static void set_writeback(struct blk *b, uint8_t value)
{
    b->writeback = value & 1;
    b->v.config[offsetof(struct virtio_blk_config, wce)] = b->writeback;
}

static void blk_reset(struct mull_virtio *v)
{
    set_writeback((struct blk *)v, 1);
}

static void fill_config(struct blk *b)
{
    struct virtio_blk_config c = {0};

    c.capacity = htole64(mull_block_size(b->block) / SECTOR);
    c.seg_max = htole32(SEG_MAX);
    c.blk_size = htole32(SECTOR);
    c.physical_block_exp = 3; /* 4 KiB: the host's page and file system block */
    c.opt_io_size = htole32(0);
    c.num_queues = htole16((uint16_t)b->v.nqueues);
    c.wce = b->writeback;
    c.max_discard_sectors = htole32(MAX_RANGE_SECTORS);
    c.max_discard_seg = htole32(MAX_RANGES);
    c.discard_sector_alignment = htole32(8);
    c.max_write_zeroes_sectors = htole32(MAX_RANGE_SECTORS);
    c.max_write_zeroes_seg = htole32(MAX_RANGES);
    c.write_zeroes_may_unmap = 1;
    _Static_assert(sizeof(c) <= MULL_VIRTIO_MAX_CONFIG, "configuration space");
    memcpy(b->v.config, &c, sizeof(c));
    b->v.config_size = sizeof(c);
}

/* The driver writes config[]; only the cache mode is its to change, and only if negotiated. */
static void blk_config_written(struct mull_virtio *v, unsigned offset, unsigned size)
{
    struct blk *b = (struct blk *)v;
    uint8_t wce = v->config[offsetof(struct virtio_blk_config, wce)];
    fill_config(b);
    if (mull_virtio_has(v, VIRTIO_BLK_F_CONFIG_WCE))
        set_writeback(b, wce);
}

static const struct mull_virtio_ops blk_virtio_ops = {
    .kick = blk_kick, .reset = blk_reset, .config_written = blk_config_written, .drain = blk_drain};

/* Of the machine: what waits after an error would write into memory that is used anew. */
static void blk_device_reset(struct mull_device *device)
{
    struct blk *b = (struct blk *)device;
    mull_block_drain(b->block);
    mull_block_cancel(b->block);
    mull_virtio_device_reset(device);
}

static void blk_destroy(struct mull_device *device)
{
    struct blk *b = (struct blk *)device;
    if (b->v.transport)
        mull_block_cancel(b->block);
    mull_virtio_fini(&b->v);
    while (b->idle) {
        struct request *next = b->idle->next;
        free(b->idle);
        b->idle = next;
    }
    free(b);
}

static int blk_loaded(void *object, uint32_t version, struct mull_error *err)
{
    struct blk *b = object;
    set_writeback(b, b->writeback);
    return 0;
}

static const struct mull_state_desc blk_desc = {
    .name = "virtio-blk",
    .version = 1,
    .oldest = 1,
    .fields = (const struct mull_field[]){MULL_FIELD_NESTED(struct blk, v, &mull_virtio_desc),
                                          MULL_FIELD(struct blk, writeback), MULL_FIELDS_END},
    .after_load = blk_loaded,
};

static const struct mull_device_ops blk_ops = {
    .state = &blk_desc,
    .reset = blk_device_reset,
    .quiesce = mull_virtio_device_quiesce,
    .resume = mull_virtio_device_resume,
    .destroy = blk_destroy,
};

int mull_virtio_blk_create(const struct mull_device_env *env, struct mull_pci_bus *bus,
                           const struct mull_virtio_blk_config *cfg, struct mull_device **out,
                           struct mull_error *err)
{
    struct blk *b = calloc(1, sizeof(*b));
    if (!b)
        return mull_fail(err, ENOMEM, "%s: out of memory", cfg->name);
    unsigned queues = cfg->queues ? cfg->queues : 1;
    if (queues > MULL_VIRTIO_MAX_QUEUES)
        queues = MULL_VIRTIO_MAX_QUEUES;
    b->block = cfg->block;
    b->readonly = cfg->readonly || mull_block_readonly(cfg->block);
    b->writeback = 1;
    memcpy(b->serial, cfg->serial, strnlen(cfg->serial, ID_BYTES));
    b->v.device.ops = &blk_ops;

    uint64_t features = MULL_BIT(VIRTIO_BLK_F_SEG_MAX) | MULL_BIT(VIRTIO_BLK_F_BLK_SIZE) |
                        MULL_BIT(VIRTIO_BLK_F_TOPOLOGY) | MULL_BIT(VIRTIO_BLK_F_FLUSH) |
                        MULL_BIT(VIRTIO_BLK_F_CONFIG_WCE);
    if (queues > 1)
        features |= MULL_BIT(VIRTIO_BLK_F_MQ);
    features |= b->readonly ? MULL_BIT(VIRTIO_BLK_F_RO)
                            : MULL_BIT(VIRTIO_BLK_F_DISCARD) | MULL_BIT(VIRTIO_BLK_F_WRITE_ZEROES);
    int rc =
        mull_virtio_init(&b->v, env, cfg->name, VIRTIO_ID_BLOCK, features, &blk_virtio_ops, err);
    if (!rc) {
        for (unsigned i = 0; i < queues; i++)
            mull_virtio_add_queue(&b->v, QUEUE_SIZE);
        fill_config(b);
        rc = mull_virtio_pci_attach(&b->v, bus, cfg->devfn, PCI_CLASS_STORAGE, err);
    }
    if (rc) {
        blk_destroy(&b->v.device);
        return rc;
    }
    *out = &b->v.device;
    return 0;
}
