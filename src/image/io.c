/* The asynchronous engine: io_uring, or threads where it is forbidden. See io.h. */
#include "image/io.h"

#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/threads.h"

#define RING_ENTRIES 256
#define WORKERS_WITH_RING 4
#define WORKERS_ALONE 8
#define SPIN_NS 40000 /* about what going to sleep and being woken costs a virtual processor */
#define SKIP_MOST 63
#define AT_ONCE 256 /* completions before the loop's other sources have a turn */

struct queue {
    struct mull_io_op *head, **tail;
};

struct mull_io {
    bool ring_used;
    struct io_uring ring;
    unsigned ring_in_flight;
    struct queue waiting; /* for a place in the ring; loop's thread only, as are these: */
    struct queue ready;   /* completed without anything to wait for */
    bool reaping;
    unsigned with_workers, brief_ones; /* of which so many are brief */
    unsigned skip, skip_next;          /* times not to spin, for spinning was in vain */
    int event_fd;
    struct mull_source *source;
    pthread_mutex_t lock;
    pthread_cond_t work;
    struct queue jobs;
    struct queue finished;
    atomic_bool any_finished; /* for whoever has not the lock */
    bool stop;
    pthread_t threads[WORKERS_ALONE];
    int nthreads;
};

static void queue_init(struct queue *q)
{
    q->head = NULL;
    q->tail = &q->head;
}

static void queue_push(struct queue *q, struct mull_io_op *op)
{
    op->next = NULL;
    *q->tail = op;
    q->tail = &op->next;
}

static struct mull_io_op *queue_pop(struct queue *q)
{
    struct mull_io_op *op = q->head;
    if (op) {
        q->head = op->next;
        if (!q->head)
            q->tail = &q->head;
    }
    return op;
}

static void wake_loop(struct mull_io *io)
{
    uint64_t one = 1;
    ssize_t n;
    do
        n = write(io->event_fd, &one, sizeof(one));
    while (n < 0 && errno == EINTR);
}

static int run_blocking(struct mull_io_op *op)
{
    ssize_t n = 0;
    switch (op->kind) {
    case MULL_IO_JOB:
        return op->run(op);
    case MULL_IO_READ:
        n = preadv(op->fd, op->iov, op->niov, (off_t)op->offset);
        break;
    case MULL_IO_WRITE:
        n = pwritev(op->fd, op->iov, op->niov, (off_t)op->offset);
        break;
    case MULL_IO_SYNC:
        n = fdatasync(op->fd);
        break;
    case MULL_IO_DONE:
        return op->result;
    }
    return n < 0 ? -errno : (int)n;
}

static void *worker(void *opaque)
{
    struct mull_io *io = opaque;

    pthread_mutex_lock(&io->lock);
    for (;;) {
        struct mull_io_op *op = queue_pop(&io->jobs);
        if (!op) {
            if (io->stop)
                break;
            pthread_cond_wait(&io->work, &io->lock);
            continue;
        }
        pthread_mutex_unlock(&io->lock);
        op->result = run_blocking(op);
        pthread_mutex_lock(&io->lock);
        bool first = !io->finished.head;
        queue_push(&io->finished, op);
        atomic_store_explicit(&io->any_finished, true, memory_order_release);
        if (!first)
            continue;
        /* Whoever wakes up must not find the lock held. */
        pthread_mutex_unlock(&io->lock);
        wake_loop(io);
        pthread_mutex_lock(&io->lock);
    }
    pthread_mutex_unlock(&io->lock);
    return NULL;
}

/* Whoever submits from a completion's done() is reaping: what is ready is seen without a wake-up.
 */
static void finish_soon(struct mull_io *io, struct mull_io_op *op)
{
    bool first = !io->ready.head;
    queue_push(&io->ready, op);
    if (first && !io->reaping)
        wake_loop(io);
}

/* Whether the one thing that a worker does will probably be done sooner than this thread could go
 * to sleep and be woken. */
static bool worth_spinning(const struct mull_io *io)
{
    return io->with_workers == 1 && io->brief_ones == 1 && !io->skip;
}

static void give_to_worker(struct mull_io *io, struct mull_io_op *op)
{
    io->with_workers++;
    io->brief_ones += op->brief;
    pthread_mutex_lock(&io->lock);
    queue_push(&io->jobs, op);
    pthread_mutex_unlock(&io->lock);
    pthread_cond_signal(&io->work);
    if (!io->reaping && worth_spinning(io))
        wake_loop(io);
}

static void enter_ring(struct mull_io *io)
{
    int ret;
    do
        ret = io_uring_submit(&io->ring);
    while (ret == -EINTR);
    /* -EAGAIN, -EBUSY: the entries stay in the ring and go with the next submit. */
    if (ret < 0)
        wake_loop(io);
}

static bool give_to_ring(struct mull_io *io, struct mull_io_op *op)
{
    struct io_uring_sqe *sqe;

    /* No more in flight than the completion queue holds: it never overflows. */
    if (io->ring_in_flight >= RING_ENTRIES || !(sqe = io_uring_get_sqe(&io->ring)))
        return false;
    if (op->kind == MULL_IO_READ)
        io_uring_prep_readv(sqe, op->fd, op->iov, (unsigned)op->niov, op->offset);
    else if (op->kind == MULL_IO_WRITE)
        io_uring_prep_writev(sqe, op->fd, op->iov, (unsigned)op->niov, op->offset);
    else
        io_uring_prep_fsync(sqe, op->fd, IORING_FSYNC_DATASYNC);
    io_uring_sqe_set_data(sqe, op);
    io->ring_in_flight++;
    if (!io->reaping) /* else once for all that what has completed brings */
        enter_ring(io);
    return true;
}

void mull_io_submit(struct mull_io *io, struct mull_io_op *op)
{
    if (op->kind == MULL_IO_DONE) {
        finish_soon(io, op);
    } else if (op->kind == MULL_IO_JOB || op->brief || !io->ring_used) {
        give_to_worker(io, op);
    } else if (io->waiting.head || !give_to_ring(io, op)) {
        queue_push(&io->waiting, op);
    }
}

static struct mull_io_op *next_of_ring(struct mull_io *io)
{
    struct io_uring_cqe *cqe;

    if (!io->ring_in_flight || io_uring_peek_cqe(&io->ring, &cqe))
        return NULL;
    struct mull_io_op *op = io_uring_cqe_get_data(cqe);
    op->result = cqe->res;
    io_uring_cqe_seen(&io->ring, cqe);
    io->ring_in_flight--;
    return op;
}

/* One thing that has completed, or NULL. */
static struct mull_io_op *next_finished(struct mull_io *io)
{
    struct mull_io_op *op = queue_pop(&io->ready);

    if (!op)
        op = next_of_ring(io);
    if (!op && io->ring_in_flight && io_uring_sq_ready(&io->ring)) {
        /* What was cached is there when this returns. */
        enter_ring(io);
        op = next_of_ring(io);
    }
    if (op)
        return op;
    if (!atomic_load_explicit(&io->any_finished, memory_order_acquire))
        return NULL;
    pthread_mutex_lock(&io->lock);
    op = queue_pop(&io->finished);
    if (!io->finished.head)
        atomic_store_explicit(&io->any_finished, false, memory_order_relaxed);
    pthread_mutex_unlock(&io->lock);
    if (op) {
        io->with_workers--;
        io->brief_ones -= op->brief;
    }
    return op;
}

/* Wait a moment for a worker; seldom, where that was in vain. */
static struct mull_io_op *spin(struct mull_io *io)
{
    if (!worth_spinning(io)) {
        io->skip -= io->skip != 0;
        return NULL;
    }
    uint64_t end = mull_now_ns() + SPIN_NS;
    while (!atomic_load_explicit(&io->any_finished, memory_order_acquire))
        if (mull_now_ns() >= end) {
            io->skip = io->skip_next =
                io->skip_next < SKIP_MOST ? 2 * io->skip_next + 1 : SKIP_MOST;
            return NULL;
        }
    io->skip_next = 0;
    return next_finished(io);
}

static void reap(struct mull_io *io)
{
    struct mull_io_op *op = NULL;

    io->reaping = true;
    for (int n = 0; n < AT_ONCE && ((op = next_finished(io)) || (op = spin(io))); n++)
        op->done(op, op->result);
    io->reaping = false;
    if (op) /* the loop's other sources have their turn first */
        wake_loop(io);
    if (!io->ring_used)
        return;
    while (io->waiting.head && io->ring_in_flight < RING_ENTRIES) {
        op = queue_pop(&io->waiting);
        if (!give_to_ring(io, op)) {
            op->next = io->waiting.head;
            io->waiting.head = op;
            if (!op->next)
                io->waiting.tail = &op->next;
            break;
        }
    }
    if (io_uring_sq_ready(&io->ring))
        enter_ring(io);
}

static void on_event(void *opaque, uint32_t events)
{
    struct mull_io *io = opaque;
    uint64_t count;
    /* Empty the eventfd first: what completes during reap() raises it again. */
    (void)!read(io->event_fd, &count, sizeof(count));
    reap(io);
}

void mull_io_wait(struct mull_io *io)
{
    struct pollfd p = {.fd = io->event_fd, .events = POLLIN};
    if (io->ring_used && io_uring_sq_ready(&io->ring))
        enter_ring(io); /* called from a completion, which left it for later */
    if (io->ready.head || poll(&p, 1, 100) >= 0)
        on_event(io, 0);
}

/* A ring can open files and connect sockets where a filter of system calls would refuse it: ours
 * does what give_to_ring() asks for and nothing else, from its beginning to its end (Linux 5.10).
 */
static int restrict_ring(struct io_uring *ring)
{
    struct io_uring_restriction only[] = {
        {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_READV},
        {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_WRITEV},
        {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_FSYNC},
    };
    unsigned count = sizeof(only) / sizeof(only[0]);
    /* Not by liburing's functions for these, which Debian 12's library does not have. */
    if (syscall(SYS_io_uring_register, ring->ring_fd, IORING_REGISTER_RESTRICTIONS, only, count) ||
        syscall(SYS_io_uring_register, ring->ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0))
        return -errno;
    return 0;
}

static int start_ring(struct mull_io *io)
{
    int ret =
        io_uring_queue_init(RING_ENTRIES, &io->ring, IORING_SETUP_CLAMP | IORING_SETUP_R_DISABLED);
    if (ret < 0)
        return ret;
    ret = io_uring_register_eventfd(&io->ring, io->event_fd);
    if (!ret)
        ret = restrict_ring(&io->ring);
    if (ret < 0) {
        io_uring_queue_exit(&io->ring);
        return ret;
    }
    io->ring_used = true;
    return 0;
}

static int start_workers(struct mull_io *io, int count)
{
    sigset_t all, old;
    int ret = 0;

    /* Signals are for the threads that expect them. */
    sigfillset(&all);
    sigdelset(&all, MULL_EVERY_THREAD);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    while (io->nthreads < count && !ret) {
        ret = pthread_create(&io->threads[io->nthreads], NULL, worker, io);
        if (!ret)
            io->nthreads++;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return io->nthreads ? 0 : -ret;
}

int mull_io_create(struct mull_loop *loop, const char *mode, struct mull_io **out,
                   struct mull_error *err)
{
    bool insist = mode && !strcmp(mode, "io_uring");
    int ret = 0;

    if (mode && !insist && strcmp(mode, "threads"))
        return mull_fail(err, EINVAL, "disk I/O engine '%s': use io_uring or threads", mode);
    struct mull_io *io = calloc(1, sizeof(*io));
    if (!io)
        return mull_fail(err, ENOMEM, "out of memory for the disk I/O engine");
    queue_init(&io->waiting);
    queue_init(&io->ready);
    queue_init(&io->jobs);
    queue_init(&io->finished);
    pthread_mutex_init(&io->lock, NULL);
    pthread_cond_init(&io->work, NULL);
    io->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (io->event_fd < 0)
        ret = mull_fail(err, errno, "eventfd for the disk I/O engine: %s", strerror(errno));
    if (!ret && (!mode || insist)) {
        ret = start_ring(io);
        if (ret < 0 && insist)
            mull_fail(err, -ret, "io_uring is not available (%s); use threads", strerror(-ret));
        else
            ret = 0;
    }
    if (!ret) {
        ret = start_workers(io, io->ring_used ? WORKERS_WITH_RING : WORKERS_ALONE);
        if (ret < 0)
            mull_fail(err, -ret, "threads for the disk I/O engine: %s", strerror(-ret));
    }
    if (!ret)
        ret = mull_loop_watch(loop, io->event_fd, EPOLLIN, on_event, io, &io->source, err);
    if (ret < 0) {
        mull_io_destroy(io);
        return ret;
    }
    *out = io;
    return 0;
}

void mull_io_destroy(struct mull_io *io)
{
    if (!io)
        return;
    mull_source_remove(io->source);
    pthread_mutex_lock(&io->lock);
    io->stop = true;
    pthread_cond_broadcast(&io->work);
    pthread_mutex_unlock(&io->lock);
    for (int i = 0; i < io->nthreads; i++)
        pthread_join(io->threads[i], NULL);
    if (io->ring_used)
        io_uring_queue_exit(&io->ring);
    if (io->event_fd >= 0)
        close(io->event_fd);
    pthread_cond_destroy(&io->work);
    pthread_mutex_destroy(&io->lock);
    free(io);
}

const char *mull_io_mode(const struct mull_io *io)
{
    return io->ring_used ? "io_uring" : "threads";
}
