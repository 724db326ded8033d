/*
 * The traditional memory balloon (virtio 1.2, 5.5): pages that the guest gives up, and free pages
 * that it reports, go back to the host at once. The guest takes them again by touching them. Knows
 * guest physical memory, nothing of what is in it.
 */
#include "device/virtio/balloon.h"

#include <endian.h>
#include <errno.h>
#include <linux/virtio_balloon.h>
#include <linux/virtio_ids.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "device/devices.h"
#include "device/virtio/balloon_hints.h"
#include "device/virtio/virtio.h"

#define QUEUE_SIZE 128
#define PCI_CLASS_OTHER 0xff0000
#define PFN_SHIFT VIRTIO_BALLOON_PFN_SHIFT
#define FIRST_HINT_COMMAND 0x80000000u /* any but those with a name (5.5.4) */
#define PFNS 256                       /* taken from a chain at a time */

struct balloon {
    struct mull_virtio v;
    uint32_t target, actual; /* pages */
    uint64_t reported;
    /* The statistics queue: its one buffer stays in the ring until new numbers are wanted. */
    bool stats_wanted; /* give the buffer back, for the driver to fill it anew */
    bool stats_read;   /* the buffer in the ring has been read */
    bool stats_fresh;
    uint64_t stats[MULL_BALLOON_STATS];
    /* Free page hints: the number of the question, which the driver repeats when it begins. */
    uint32_t hint_command, questions;
    bool hinting, hints_told;
    struct balloon_hints *hints; /* NULL: it was not asked */
    uint64_t hinted;
    void (*when_hinted)(void *opaque);
    void *opaque;
    struct mull_chain chain;
};

const char *const mull_balloon_stat_names[MULL_BALLOON_STATS] = {
    "swap_in",        "swap_out",       "major_faults",    "minor_faults",
    "free",           "total",          "available",       "caches",
    "huge_allocated", "huge_failed",    "oom_kills",       "alloc_stalls",
    "async_scanned",  "direct_scanned", "async_reclaimed", "direct_reclaimed"};

/* ---- Which queue is which: optional ones are numbered without gaps, as drivers do it ---- */

enum role { INFLATE, DEFLATE, STATS, HINTS, REPORTING, NONE };

static enum role role_of(const struct balloon *b, unsigned queue)
{
    if (queue < 2)
        return (enum role)queue;
    queue -= 2;
    if (mull_virtio_has(&b->v, VIRTIO_BALLOON_F_STATS_VQ) && !queue--)
        return STATS;
    if (mull_virtio_has(&b->v, VIRTIO_BALLOON_F_FREE_PAGE_HINT) && !queue--)
        return HINTS;
    if (mull_virtio_has(&b->v, VIRTIO_BALLOON_F_REPORTING) && !queue)
        return REPORTING;
    return NONE;
}

static unsigned stats_queue(void)
{
    return 2;
}

/* ---- Memory ---- */

/* Give the whole pages of RAM within a range back to the host. @return the bytes given back */
static uint64_t give_back(struct balloon *b, uint64_t gpa, uint64_t len)
{
    struct mull_memory *mem = b->v.env.memory;
    uint64_t end = gpa + len, total = 0;

    if (end < gpa)
        return 0;
    gpa = (gpa + MULL_PAGE_SIZE - 1) & MULL_PAGE_MASK;
    end &= MULL_PAGE_MASK;
    while (gpa < end) {
        const struct mull_ram *ram = mull_memory_find_ram(mem, gpa);
        if (!ram || ram->readonly)
            return total;
        uint64_t room = ram->size - (gpa - ram->gpa), n = end - gpa < room ? end - gpa : room;
        if (!mull_memory_discard(mem, ram, gpa - ram->gpa, n))
            total += n;
        /* They read as zeroes now: whoever watches them must know. */
        mull_mem_wrote(mem, gpa, n);
        gpa += n;
    }
    return total;
}

static int compare_pfns(const void *a, const void *b)
{
    uint32_t x = le32toh(*(const uint32_t *)a), y = le32toh(*(const uint32_t *)b);
    return x < y ? -1 : x > y;
}

/* Page numbers, in any order: neighbours go together, one system call for them all. */
static void inflate(struct balloon *b)
{
    uint32_t pfns[PFNS];
    uint32_t total = b->chain.out_len / sizeof(pfns[0]);

    for (uint32_t at = 0; at < total; at += PFNS) {
        uint32_t n = total - at < PFNS ? total - at : PFNS;
        if (mull_chain_read(&b->chain, at * sizeof(pfns[0]), pfns, n * sizeof(pfns[0])))
            return;
        qsort(pfns, n, sizeof(pfns[0]), compare_pfns);
        for (uint32_t i = 0, run; i < n; i += run) {
            uint64_t first = le32toh(pfns[i]);
            for (run = 1; i + run < n && le32toh(pfns[i + run]) == first + run;)
                run++;
            give_back(b, first << PFN_SHIFT, (uint64_t)run << PFN_SHIFT);
        }
    }
}

/* Free pages, as buffers (5.5.6.6). */
static void take_report(struct balloon *b)
{
    const struct mull_chain *c = &b->chain;
    for (unsigned i = c->nout; i < (unsigned)c->nout + c->nin; i++)
        b->reported += give_back(b, c->segments[i].gpa, c->segments[i].len);
}

/* ---- Free page hints (5.5.6.7) ---- */

/* The driver has told all it will. */
static void hints_told(struct balloon *b)
{
    b->hinting = false;
    if (b->hints && !b->hints_told) {
        b->hints_told = true;
        mull_loop_post(b->v.env.loop, b->when_hinted, b->opaque);
    }
}

/* A command begins or ends the hints; a buffer is a block of free pages. */
static void take_hint(struct balloon *b)
{
    const struct mull_chain *c = &b->chain;
    uint32_t command;

    if (c->out_len >= sizeof(command) && !mull_chain_read(c, 0, &command, sizeof(command))) {
        if (le32toh(command) == b->hint_command && b->hints && !b->hints_told)
            b->hinting = true;
        else if (b->hinting)
            hints_told(b);
    }
    for (unsigned i = c->nout; b->hinting && i < (unsigned)c->nout + c->nin; i++)
        balloon_hints_add(b->hints, c->segments[i].gpa, c->segments[i].len);
}

/* ---- Statistics ---- */

static void read_stats(struct balloon *b)
{
    struct virtio_balloon_stat stat;

    for (unsigned i = 0; i < MULL_BALLOON_STATS; i++)
        b->stats[i] = MULL_BALLOON_UNKNOWN;
    for (uint64_t at = 0; at + sizeof(stat) <= b->chain.out_len && at < 64 * sizeof(stat);
         at += sizeof(stat)) {
        if (mull_chain_read(&b->chain, at, &stat, sizeof(stat)))
            return;
        if (le16toh(stat.tag) < MULL_BALLOON_STATS)
            b->stats[le16toh(stat.tag)] = le64toh(stat.val);
    }
    b->stats_fresh = true;
}

static void stats_kick(struct balloon *b, struct mull_virtqueue *q)
{
    while (mull_virtqueue_pop(q, &b->chain)) {
        if (!b->stats_read) {
            read_stats(b);
            b->stats_read = true;
        }
        if (!b->stats_wanted) {
            /* The device keeps it until it wants new numbers; in the ring it is kept best. */
            mull_virtqueue_unpop(q);
            return;
        }
        b->stats_wanted = b->stats_read = b->stats_fresh = false;
        mull_virtqueue_push(q, b->chain.head, 0);
        mull_virtqueue_signal(q);
    }
}

/* ---- Queues ---- */

static void balloon_kick(struct mull_virtio *v, unsigned queue)
{
    struct balloon *b = (struct balloon *)v;
    struct mull_virtqueue *q = &v->queues[queue];
    enum role role = role_of(b, queue);

    if (role == STATS) {
        stats_kick(b, q);
        return;
    }
    do {
        mull_virtqueue_quiet(q);
        while (mull_virtqueue_pop(q, &b->chain)) {
            if (role == INFLATE)
                inflate(b);
            else if (role == REPORTING)
                take_report(b);
            else if (role == HINTS)
                take_hint(b);
            mull_virtqueue_push(q, b->chain.head, 0);
        }
        mull_virtqueue_signal(q);
    } while (mull_virtqueue_listen(q));
}

/* ---- The configuration space ---- */

static void fill_config(struct balloon *b)
{
    struct virtio_balloon_config c = {.num_pages = htole32(b->target),
                                      .actual = htole32(b->actual),
                                      .free_page_hint_cmd_id = htole32(b->hint_command)};
    /* What follows belongs to a feature that is not offered. */
    b->v.config_size = offsetof(struct virtio_balloon_config, poison_val);
    memcpy(b->v.config, &c, b->v.config_size);
}

static void balloon_config_written(struct mull_virtio *v, unsigned offset, unsigned size)
{
    struct balloon *b = (struct balloon *)v;
    uint32_t actual;
    memcpy(&actual, v->config + offsetof(struct virtio_balloon_config, actual), sizeof(actual));
    b->actual = le32toh(actual);
    fill_config(b);
}

static void balloon_reset(struct mull_virtio *v)
{
    struct balloon *b = (struct balloon *)v;
    b->actual = 0; /* a new driver has all the memory */
    b->stats_read = b->stats_fresh = b->stats_wanted = false;
    b->hint_command = VIRTIO_BALLOON_CMD_ID_STOP;
    hints_told(b);
    fill_config(b);
}

static void balloon_queue_reset(struct mull_virtio *v, unsigned queue)
{
    struct balloon *b = (struct balloon *)v;
    if (role_of(b, queue) == STATS)
        b->stats_read = b->stats_wanted = false;
}

static const struct mull_virtio_ops balloon_virtio_ops = {
    .kick = balloon_kick,
    .reset = balloon_reset,
    .queue_reset = balloon_queue_reset,
    .config_written = balloon_config_written,
};

/* ---- The owner's side ---- */

void mull_balloon_set(struct mull_device *device, uint64_t bytes)
{
    struct balloon *b = (struct balloon *)device;
    uint64_t pages = bytes >> PFN_SHIFT;
    mull_virtio_lock(&b->v);
    b->target = pages < UINT32_MAX ? (uint32_t)pages : UINT32_MAX;
    fill_config(b);
    mull_virtio_config_changed(&b->v);
    mull_virtio_unlock(&b->v);
}

void mull_balloon_refresh(struct mull_device *device)
{
    struct balloon *b = (struct balloon *)device;
    mull_virtio_lock(&b->v);
    b->stats_wanted = true;
    b->stats_fresh = false;
    mull_virtio_unlock(&b->v);
    mull_virtio_kick(&b->v, stats_queue());
}

int mull_balloon_ask_hints(struct mull_device *device, struct mull_error *err)
{
    struct balloon *b = (struct balloon *)device;
    int ret = 0;
    mull_virtio_lock(&b->v);
    if (!mull_virtio_driver_ok(&b->v) || !mull_virtio_has(&b->v, VIRTIO_BALLOON_F_FREE_PAGE_HINT))
        ret = mull_fail(err, ENOTSUP, "the guest has no driver that tells which pages are free");
    else if (b->hints)
        ret = mull_fail(err, EBUSY, "the guest is still being asked which pages are free");
    else if (!(b->hints = balloon_hints_create(b->v.env.memory)))
        ret = mull_fail(err, ENOMEM, "balloon: no memory");
    if (!ret) {
        b->hints_told = false;
        b->hint_command = FIRST_HINT_COMMAND | b->questions++;
        fill_config(b);
        mull_virtio_config_changed(&b->v);
    }
    mull_virtio_unlock(&b->v);
    return ret;
}

void mull_balloon_end_hints(struct mull_device *device)
{
    struct balloon *b = (struct balloon *)device;
    mull_virtio_lock(&b->v);
    /* A driver that was reset meanwhile has left the question unanswered. */
    if (b->hints && b->hint_command >= FIRST_HINT_COMMAND)
        b->hinted += balloon_hints_give_back(b->hints);
    balloon_hints_destroy(b->hints);
    b->hints = NULL;
    b->hinting = false;
    if (b->hint_command != VIRTIO_BALLOON_CMD_ID_STOP) {
        b->hint_command = VIRTIO_BALLOON_CMD_ID_DONE;
        fill_config(b);
        mull_virtio_config_changed(&b->v);
    }
    mull_virtio_unlock(&b->v);
}

void mull_balloon_info(struct mull_device *device, struct mull_balloon_info *out)
{
    struct balloon *b = (struct balloon *)device;
    mull_virtio_lock(&b->v);
    *out = (struct mull_balloon_info){
        .driver = mull_virtio_driver_ok(&b->v),
        .target = (uint64_t)b->target << PFN_SHIFT,
        .actual = (uint64_t)b->actual << PFN_SHIFT,
        .reported = b->reported,
        .hinted = b->hinted,
        .asked = b->hints != NULL,
        .fresh = b->stats_fresh,
    };
    memcpy(out->stats, b->stats, sizeof(out->stats));
    mull_virtio_unlock(&b->v);
}

/* ---- The device ---- */

static void balloon_destroy(struct mull_device *device)
{
    struct balloon *b = (struct balloon *)device;
    mull_virtio_fini(&b->v);
    balloon_hints_destroy(b->hints);
    free(b);
}

static int balloon_loaded(void *object, uint32_t version, struct mull_error *err)
{
    struct balloon *b = object;
    b->stats_read = b->stats_fresh = b->stats_wanted = false;
    /* Nobody waits here for hints: the driver is to take its pages back. */
    if (b->hint_command != VIRTIO_BALLOON_CMD_ID_STOP) {
        b->hint_command = VIRTIO_BALLOON_CMD_ID_DONE;
        mull_virtio_config_changed(&b->v);
    }
    fill_config(b);
    return 0;
}

static const struct mull_state_desc balloon_desc = {
    .name = "virtio-balloon",
    .version = 2,
    .oldest = 1,
    .fields = (const struct mull_field[]){MULL_FIELD_NESTED(struct balloon, v, &mull_virtio_desc),
                                          MULL_FIELD(struct balloon, target),
                                          MULL_FIELD(struct balloon, actual),
                                          MULL_FIELD(struct balloon, reported),
                                          MULL_FIELD_SINCE(2, struct balloon, hint_command),
                                          MULL_FIELDS_END},
    .after_load = balloon_loaded,
};

static const struct mull_device_ops balloon_ops = {
    .state = &balloon_desc,
    .reset = mull_virtio_device_reset,
    .quiesce = mull_virtio_device_quiesce,
    .resume = mull_virtio_device_resume,
    .destroy = balloon_destroy,
};

int mull_virtio_balloon_create(const struct mull_device_env *env, struct mull_pci_bus *bus,
                               const struct mull_virtio_balloon_config *cfg,
                               struct mull_device **out, struct mull_error *err)
{
    struct balloon *b = calloc(1, sizeof(*b));
    if (!b)
        return mull_fail(err, ENOMEM, "%s: out of memory", cfg->name);
    b->v.device.ops = &balloon_ops;
    for (unsigned i = 0; i < MULL_BALLOON_STATS; i++)
        b->stats[i] = MULL_BALLOON_UNKNOWN;
    uint64_t features = MULL_BIT(VIRTIO_BALLOON_F_STATS_VQ) |
                        MULL_BIT(VIRTIO_BALLOON_F_DEFLATE_ON_OOM) |
                        MULL_BIT(VIRTIO_BALLOON_F_REPORTING);
    if (cfg->hinted)
        features |= MULL_BIT(VIRTIO_BALLOON_F_FREE_PAGE_HINT);
    b->when_hinted = cfg->hinted;
    b->opaque = cfg->opaque;
    int rc = mull_virtio_init(&b->v, env, cfg->name, VIRTIO_ID_BALLOON, features,
                              &balloon_virtio_ops, err);
    if (!rc) {
        for (unsigned i = 0; i < NONE; i++)
            mull_virtio_add_queue(&b->v, QUEUE_SIZE);
        fill_config(b);
        rc = mull_virtio_pci_attach(&b->v, bus, cfg->devfn, PCI_CLASS_OTHER, err);
    }
    if (rc) {
        balloon_destroy(&b->v.device);
        return rc;
    }
    *out = &b->v.device;
    return 0;
}
