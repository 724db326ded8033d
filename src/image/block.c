/*
 * The block device over an image: requests whose place is known go straight to the asynchronous
 * engine from the loop's thread; everything that must read or change metadata runs on a worker.
 * See block.h.
 */
#include "image/block.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "image/bitmap.h"
#include "image/image.h"
#include "image/io.h"
#include "image/source.h"
#include "image/throttle.h"

#define PARTS 8

struct task;

/* One contiguous transfer of a request. */
struct part {
    struct mull_io_op op;
    struct task *task;
    struct mull_file *file;
    uint64_t offset, length;
    struct iovec *own_iov;
};

struct task {
    struct mull_io_op job;
    struct mull_block *block;
    struct mull_block_request *request;
    struct mull_range range;
    bool held;
    bool alone;    /* must have the range for itself, and run on a worker */
    bool again;    /* a part was cut short: do it over on a worker */
    bool sensible; /* in range, and allowed */
    int pending, result, nparts;
    struct part parts[PARTS];
    struct task *next;
};

struct mull_block {
    struct mull_image *image;
    struct mull_io *io;
    struct mull_loop *loop;
    char *aio;
    bool started;
    unsigned in_flight;
    struct task *spare;                   /* loop's thread only, as are these: */
    struct task *blocked, **blocked_tail; /* wait for a range that others hold, in order */
    enum mull_block_on_error on_error;
    void (*on_hold)(void *opaque, const struct mull_block_request *request, int error);
    void *opaque;
    struct mull_block_request *held, **held_tail; /* failed, and wait to be tried again */
    struct mull_throttle_member limit;
    struct mull_block_counts counts;
};

/* Changes are tracked from now on, unless a bitmap does so already. */
static int start_tracking(struct mull_image *image, struct mull_error *err)
{
    if (image->marking)
        return 0;
    int ret = mull_bitmaps_get(image, err);
    if (!ret && mull_bitmap_find(image, "cbt"))
        ret = mull_bitmap_remove(image, "cbt", err); /* one that was stopped */
    return ret ? ret : mull_bitmap_add(image, "cbt", 0, err);
}

int mull_block_open(const struct mull_block_options *o, struct mull_block **out,
                    struct mull_error *err)
{
    struct mull_image_options io = {.path = o->path,
                                    .format = o->format,
                                    .readonly = o->readonly,
                                    .direct = o->direct,
                                    .no_lock = o->no_lock,
                                    .guest_disk = true,
                                    .observer = o->observer,
                                    .given = o->given,
                                    .snapshot = o->snapshot,
                                    .source = o->source,
                                    .log = o->log};
    struct mull_block *block = calloc(1, sizeof(*block));
    if (!block)
        return mull_fail(err, ENOMEM, "%s: out of memory", o->path);
    if (mull_source_is_url(o->path) && !o->source) {
        free(block);
        return mull_fail(err, ENOTSUP,
                         "%s: a machine's disk is a file; make one with mullion image convert",
                         o->path);
    }
    if (o->aio && !(block->aio = strdup(o->aio))) {
        free(block);
        return mull_fail(err, ENOMEM, "%s: out of memory", o->path);
    }
    block->on_error = o->on_error;
    block->on_hold = o->held;
    block->opaque = o->opaque;
    block->held_tail = &block->held;
    int ret = mull_image_open(&io, &block->image, err);
    if (!ret && o->cbt && !o->readonly && (ret = start_tracking(block->image, err)))
        mull_image_abandon(block->image);
    if (ret) {
        free(block->aio);
        free(block);
        return ret;
    }
    if (block->image->raw_guessed)
        mull_log(o->log, MULL_LOG_WARN,
                 "%s: taken for raw; say format=raw to let the guest write any first sector",
                 o->path);
    *out = block;
    return 0;
}

void mull_block_close(struct mull_block *block)
{
    if (!block)
        return;
    if (block->io) {
        mull_block_drain(block);
        mull_block_cancel(block);
    }
    mull_throttle_leave(&block->limit);
    mull_io_destroy(block->io);
    while (block->spare) {
        struct task *task = block->spare;
        block->spare = task->next;
        free(task);
    }
    const struct mull_log *log = block->image->log;
    char *path = strdup(block->image->path);
    int ret = mull_image_close(block->image);
    if (ret)
        mull_log(log, MULL_LOG_ERROR, "%s: could not be flushed on closing: %s", path ? path : "",
                 strerror(-ret));
    free(path);
    free(block->aio);
    free(block);
}

uint64_t mull_block_size(const struct mull_block *block)
{
    return block->image->size;
}

bool mull_block_readonly(const struct mull_block *block)
{
    return block->image->readonly;
}

struct mull_image *mull_block_image(const struct mull_block *block)
{
    return block->image;
}

const char *mull_block_format(const struct mull_block *block)
{
    return block->image->format->name;
}

const char *mull_block_aio(const struct mull_block *block)
{
    return block->io ? mull_io_mode(block->io) : NULL;
}

int mull_block_start(struct mull_block *block, struct mull_loop *loop, struct mull_error *err)
{
    if (block->started)
        return mull_fail(err, EBUSY, "%s: already attached to an event loop", block->image->path);
    int ret = mull_io_create(loop, block->aio, &block->io, err);
    if (ret)
        return ret;
    block->loop = loop;
    block->blocked_tail = &block->blocked;
    block->started = true;
    return 0;
}

static struct task *task_get(struct mull_block *block)
{
    struct task *task = block->spare;
    if (task)
        block->spare = task->next;
    else
        task = malloc(sizeof(*task));
    return task;
}

static void submit_now(struct mull_block *block, struct mull_block_request *request);
static void release(struct task *task);
static void go_on(struct mull_block *block);

/* Whether trying again later may help: the host's disk failed, not the request. */
static bool is_host_error(int result)
{
    return result < 0 && result != -EINVAL && result != -EPERM && result != -EOPNOTSUPP;
}

static void task_finish(struct task *task, int result)
{
    struct mull_block *block = task->block;
    struct mull_block_request *request = task->request;

    for (int i = 0; i < task->nparts; i++)
        free(task->parts[i].own_iov);
    release(task);
    task->next = block->spare;
    block->spare = task;
    block->in_flight--;
    bool hold = block->on_error == MULL_BLOCK_HOLD && task->sensible && is_host_error(result);
    if (hold) {
        request->next = NULL;
        *block->held_tail = request;
        block->held_tail = &request->next;
    }
    go_on(block);
    if (!hold)
        request->done(request, result);
    else if (block->on_hold)
        block->on_hold(block->opaque, request, result);
}

static struct mull_block_request *take_held(struct mull_block *block)
{
    struct mull_block_request *list = block->held;
    block->held = NULL;
    block->held_tail = &block->held;
    return list;
}

void mull_block_retry(struct mull_block *block)
{
    for (struct mull_block_request *r = take_held(block), *next; r; r = next) {
        next = r->next;
        submit_now(block, r);
    }
}

void mull_block_cancel(struct mull_block *block)
{
    /* A device may submit what waited behind a request that completes: that goes, too. */
    while (block->held) {
        for (struct mull_block_request *r = take_held(block), *next; r; r = next) {
            next = r->next;
            r->done(r, -ECANCELED);
        }
        mull_block_drain(block);
    }
}

/* The blocking way, on a worker. */
static int run_job(struct mull_io_op *op)
{
    struct task *task = (struct task *)((char *)op - offsetof(struct task, job));
    struct mull_image *image = task->block->image;
    struct mull_block_request *r = task->request;
    int ret = -EINVAL;

    switch (r->op) {
    case MULL_BLOCK_READ:
        ret = mull_image_readv(image, r->iov, r->niov, r->offset, r->length);
        break;
    case MULL_BLOCK_WRITE:
        ret = mull_image_writev(image, r->iov, r->niov, r->offset, r->length);
        break;
    case MULL_BLOCK_DISCARD:
        ret = mull_image_discard(image, r->offset, r->length);
        break;
    case MULL_BLOCK_ZERO:
        ret = r->fast ? mull_image_zero_fast(image, r->offset, r->length, r->may_unmap)
                      : mull_image_zero(image, r->offset, r->length, r->may_unmap);
        break;
    case MULL_BLOCK_FLUSH:
        ret = mull_image_flush(image);
        break;
    case MULL_BLOCK_CALL:
        ret = r->call(r, image);
        break;
    }
    return ret;
}

static void job_done(struct mull_io_op *op, int result)
{
    struct task *task = (struct task *)((char *)op - offsetof(struct task, job));
    task_finish(task, result);
}

static void submit_job(struct task *task)
{
    enum mull_block_op op = task->request->op;
    task->job.kind = MULL_IO_JOB;
    task->job.run = run_job;
    task->job.done = job_done;
    task->job.brief = op == MULL_BLOCK_READ || op == MULL_BLOCK_WRITE;
    mull_io_submit(task->block->io, &task->job);
}

static void part_done(struct mull_io_op *op, int result)
{
    struct part *part = (struct part *)((char *)op - offsetof(struct part, op));
    struct task *task = part->task;
    bool writing = op->kind == MULL_IO_WRITE;

    if (writing && result > 0)
        mull_file_written(part->file, part->offset + (uint64_t)result);
    if (result < 0 && result != -EAGAIN && result != -EINTR)
        task->result = result;
    else if (op->kind != MULL_IO_SYNC && (uint64_t)result != part->length)
        task->again = true;
    if (--task->pending)
        return;
    if (!task->result && task->again) {
        /* Cut short (end of file, a signal): the blocking way knows what to do. */
        for (int i = 0; i < task->nparts; i++)
            free(task->parts[i].own_iov);
        task->nparts = 0;
        submit_job(task);
        return;
    }
    if (op->kind == MULL_IO_SYNC && task->result)
        atomic_store(&part->file->dirty, true);
    task_finish(task, task->result);
}

static bool iov_aligned(const struct mull_file *file, const struct iovec *iov, int niov,
                        uint64_t offset, uint64_t length)
{
    uint64_t mask = file->align - 1;
    if (!mask)
        return true;
    for (int i = 0; i < niov; i++)
        if (((uintptr_t)iov[i].iov_base | iov[i].iov_len) & mask)
            return false;
    return !((offset | length) & mask);
}

static int add_part(struct task *task, const struct mull_extent *e, uint64_t at, bool writing)
{
    struct mull_block_request *r = task->request;
    struct part *part = &task->parts[task->nparts];
    const struct iovec *iov = r->iov;
    int niov = r->niov;

    if (e->file->observer || e->file->ops)
        return -EAGAIN;
    part->own_iov = NULL;
    if (e->length != r->length) {
        part->own_iov = malloc((size_t)r->niov * sizeof(*iov));
        if (!part->own_iov)
            return -EAGAIN;
        niov = mull_iov_slice(r->iov, r->niov, at, e->length, part->own_iov, r->niov);
        iov = part->own_iov;
    }
    task->nparts++;
    if (!iov_aligned(e->file, iov, niov, e->offset, e->length) || e->length > INT32_MAX)
        return -EAGAIN;
    part->task = task;
    part->file = e->file;
    part->offset = e->offset;
    part->length = e->length;
    part->op = (struct mull_io_op){.kind = writing ? MULL_IO_WRITE : MULL_IO_READ,
                                   .fd = e->file->fd,
                                   .offset = e->offset,
                                   .iov = iov,
                                   .niov = niov,
                                   .brief = writing && !e->file->direct,
                                   .done = part_done};
    return 0;
}

/* Find the places of a whole request in the cached metadata. -EAGAIN: the blocking way. */
static int plan(struct task *task)
{
    struct mull_block_request *r = task->request;
    struct mull_image *image = task->block->image;
    bool writing = r->op == MULL_BLOCK_WRITE;

    if (writing && mull_image_guarded(image, r->offset, r->length))
        return -EAGAIN;
    if (writing)
        mull_image_track(image, r->offset, r->length);
    for (uint64_t at = 0; at < r->length;) {
        struct mull_extent e;
        int ret = mull_image_locate(image, r->offset + at, r->length - at, true, &e, NULL, NULL);
        if (ret)
            return -EAGAIN;
        if (e.kind == MULL_EXTENT_DATA && (!writing || e.writable)) {
            if (task->nparts == PARTS || add_part(task, &e, at, writing))
                return -EAGAIN;
        } else if (e.kind == MULL_EXTENT_ZERO && !writing) {
            mull_iov_zero(r->iov, r->niov, at, e.length);
        } else {
            return -EAGAIN;
        }
        at += e.length;
    }
    return 0;
}

static void release(struct task *task)
{
    if (task->held)
        mull_range_release(task->block->image, &task->range);
    task->held = false;
}

/* Take the range, unless somebody holds it or has waited for it longer. */
static bool acquire(struct task *task)
{
    struct mull_block_request *r = task->request;
    struct mull_image *image = task->block->image;

    if (mull_range_try(image, &task->range, r->offset, r->length, task->alone))
        return false;
    task->held = true;
    for (struct task *t = task->block->blocked; t && t != task; t = t->next)
        if (t->range.start < task->range.end && task->range.start < t->range.end) {
            release(task);
            return false;
        }
    return true;
}

/* Start a request as far as its range is free. @return false: it must wait. */
static bool start(struct task *task)
{
    struct mull_block_request *r = task->request;

    if (!task->alone) {
        if (!acquire(task))
            return false;
        if (r->op == MULL_BLOCK_CALL) {
            submit_job(task);
            return true;
        }
        if (!plan(task)) {
            task->pending = task->nparts;
            for (int i = 0, n = task->nparts; i < n; i++)
                mull_io_submit(task->block->io, &task->parts[i].op);
            if (!task->nparts) { /* zeroes only */
                task->job.kind = MULL_IO_DONE;
                task->job.result = 0;
                task->job.done = job_done;
                mull_io_submit(task->block->io, &task->job);
            }
            return true;
        }
        for (int i = 0; i < task->nparts; i++)
            free(task->parts[i].own_iov);
        task->nparts = 0;
        if (r->op == MULL_BLOCK_READ) {
            submit_job(task);
            return true;
        }
        release(task);
        task->alone = true;
    }
    if (!acquire(task))
        return false;
    submit_job(task);
    return true;
}

/* A range has become free: whoever waited for it may start. */
static void go_on(struct mull_block *block)
{
    for (struct task **link = &block->blocked; *link;) {
        struct task *task = *link, *next = task->next;
        if (!start(task)) {
            link = &task->next;
            continue;
        }
        *link = next;
        if (!next)
            block->blocked_tail = link;
    }
}

/* Workers never wait for ranges: transfers that hold one may need a worker to finish. */
static void submit_ranged(struct task *task)
{
    struct mull_block *block = task->block;
    task->next = NULL;
    if (start(task))
        return;
    *block->blocked_tail = task;
    block->blocked_tail = &task->next;
}

static void submit_flush(struct task *task)
{
    struct mull_file *file;

    if (!mull_image_flush_is_plain(task->block->image, &file)) {
        submit_job(task);
        return;
    }
    struct part *part = &task->parts[0];
    part->own_iov = NULL;
    part->task = task;
    part->file = file;
    part->op = (struct mull_io_op){.kind = MULL_IO_SYNC, .fd = file->fd, .done = part_done};
    task->nparts = task->pending = 1;
    atomic_store(&file->dirty, false);
    mull_io_submit(task->block->io, &part->op);
}

static int validate(const struct mull_block *block, const struct mull_block_request *r)
{
    const struct mull_image *image = block->image;

    if (r->op == MULL_BLOCK_FLUSH)
        return 0;
    if ((unsigned)r->op > MULL_BLOCK_CALL || r->offset > image->size ||
        r->length > image->size - r->offset)
        return -EINVAL;
    if (r->op == MULL_BLOCK_CALL)
        return r->call ? 0 : -EINVAL;
    if (r->op != MULL_BLOCK_READ && image->readonly)
        return -EROFS;
    if (r->op == MULL_BLOCK_READ || r->op == MULL_BLOCK_WRITE) {
        if (r->niov < 0 || r->niov > MULL_BLOCK_MAX_IOV ||
            mull_iov_length(r->iov, r->niov) != r->length)
            return -EINVAL;
    }
    return 0;
}

static void fail_posted(void *opaque)
{
    struct mull_block_request *request = opaque;
    request->done(request, -ENOMEM);
}

static void submit_checked(struct mull_block *block, struct mull_block_request *request, int ret)
{
    struct task *task = task_get(block);
    if (!task) {
        /* Where even the post finds no memory, early is better than never. */
        if (mull_loop_post(block->loop, fail_posted, request))
            fail_posted(request);
        return;
    }
    memset(&task->job, 0, sizeof(task->job));
    task->block = block;
    task->request = request;
    task->held = task->again = false;
    task->alone = request->op == MULL_BLOCK_DISCARD || request->op == MULL_BLOCK_ZERO;
    task->pending = task->result = task->nparts = 0;
    block->in_flight++;

    task->sensible = !ret;
    if (ret || (!request->length && request->op != MULL_BLOCK_FLUSH) ||
        (request->op == MULL_BLOCK_FLUSH && block->image->readonly)) {
        task->job.kind = MULL_IO_DONE;
        task->job.result = ret;
        task->job.done = job_done;
        mull_io_submit(block->io, &task->job);
    } else if (request->op == MULL_BLOCK_FLUSH) {
        submit_flush(task);
    } else {
        submit_ranged(task);
    }
}

static void count(struct mull_block_counts *c, const struct mull_block_request *r)
{
    switch (r->op) {
    case MULL_BLOCK_READ:
        c->reads++;
        c->read_bytes += r->length;
        break;
    case MULL_BLOCK_WRITE:
        c->writes++;
        c->written_bytes += r->length;
        break;
    case MULL_BLOCK_FLUSH:
        c->flushes++;
        break;
    case MULL_BLOCK_DISCARD:
    case MULL_BLOCK_ZERO:
        c->discards++;
        break;
    case MULL_BLOCK_CALL:
        break;
    }
}

/* One that was found sensible before. */
static void submit_now(struct mull_block *block, struct mull_block_request *request)
{
    submit_checked(block, request, 0);
}

void mull_block_submit(struct mull_block *block, struct mull_block_request *request)
{
    int ret = validate(block, request);
    if (!ret) {
        count(&block->counts, request);
        if (!mull_throttle_pass(&block->limit, request))
            return;
    }
    submit_checked(block, request, ret);
}

void mull_block_counts(const struct mull_block *block, struct mull_block_counts *out)
{
    *out = block->counts;
    out->waited = block->limit.waited;
}

void mull_block_limit(struct mull_block *block, struct mull_throttle *throttle)
{
    block->limit.throttle = throttle;
    block->limit.block = block;
    block->limit.submit = submit_now;
    mull_throttle_join(&block->limit);
}

void mull_block_drain(struct mull_block *block)
{
    mull_throttle_release(&block->limit);
    while (block->io && block->in_flight)
        mull_io_wait(block->io);
}

static int check_blocking(const struct mull_block *block, uint64_t offset, uint64_t len, bool write)
{
    if (block->started)
        return -EBUSY;
    if (offset > block->image->size || len > block->image->size - offset)
        return -EINVAL;
    return write && block->image->readonly ? -EROFS : 0;
}

int mull_block_read(struct mull_block *block, uint64_t offset, void *buf, uint64_t len)
{
    int ret = check_blocking(block, offset, len, false);
    return ret || !len ? ret : mull_image_read(block->image, buf, len, offset);
}

int mull_block_write(struct mull_block *block, uint64_t offset, const void *buf, uint64_t len)
{
    int ret = check_blocking(block, offset, len, true);
    return ret || !len ? ret : mull_image_write(block->image, buf, len, offset);
}

int mull_block_flush(struct mull_block *block)
{
    int ret = check_blocking(block, 0, 0, false);
    return ret ? ret : mull_image_flush(block->image);
}

int mull_block_discard(struct mull_block *block, uint64_t offset, uint64_t len)
{
    int ret = check_blocking(block, offset, len, true);
    return ret || !len ? ret : mull_image_discard(block->image, offset, len);
}

int mull_block_zero(struct mull_block *block, uint64_t offset, uint64_t len, bool may_unmap)
{
    int ret = check_blocking(block, offset, len, true);
    return ret || !len ? ret : mull_image_zero(block->image, offset, len, may_unmap);
}
