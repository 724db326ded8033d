/*
 * The event loop: epoll for descriptors, one timerfd over a binary heap for timers, one eventfd for
 * posts and stop. A mutex guards the heap, the posts and the lists; callbacks run without it.
 * Knows nothing of machines.
 */
#include "base/loop.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define EVENTS_AT_ONCE 64
#define NOT_IN_HEAP SIZE_MAX
#define NEVER UINT64_MAX

struct mull_source {
    struct mull_loop *loop;
    int fd;
    uint32_t events;
    bool registered; /* in the epoll set */
    atomic_bool dead;
    void (*fn)(void *opaque, uint32_t events);
    void *opaque;
    struct mull_source *next, **link; /* the loop's list of live, or of dead sources */
};

struct mull_timer {
    struct mull_loop *loop;
    void (*fn)(void *opaque);
    void *opaque;
    uint64_t deadline;
    uint64_t sequence; /* timers with one deadline fire in the order they were armed */
    size_t slot;       /* in the heap, or NOT_IN_HEAP */
    struct mull_timer *due_next, **due_link; /* in the batch being fired; due_link NULL: not */
    struct mull_timer *next, **link;
};

struct post {
    void (*fn)(void *opaque);
    void *opaque;
    struct post *next;
};

struct mull_loop {
    int epoll, timerfd, eventfd;
    atomic_bool stop;
    pthread_mutex_t lock; /* everything below */
    struct mull_source *sources, *dead;
    struct mull_timer *timers;
    struct mull_timer *due; /* taken from the heap, about to fire */
    struct mull_timer **heap;
    size_t timer_count, heap_count, heap_room;
    uint64_t programmed; /* what the timerfd is set to, NEVER: disarmed */
    uint64_t sequence;
    struct post *posts, **posts_end;
};

uint64_t mull_now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* ---- Timers ---- */

static bool earlier(const struct mull_timer *a, const struct mull_timer *b)
{
    return a->deadline != b->deadline ? a->deadline < b->deadline : a->sequence < b->sequence;
}

static void heap_put(struct mull_loop *loop, size_t slot, struct mull_timer *timer)
{
    loop->heap[slot] = timer;
    timer->slot = slot;
}

static void heap_up(struct mull_loop *loop, size_t slot, struct mull_timer *timer)
{
    while (slot > 0 && earlier(timer, loop->heap[(slot - 1) / 2])) {
        heap_put(loop, slot, loop->heap[(slot - 1) / 2]);
        slot = (slot - 1) / 2;
    }
    heap_put(loop, slot, timer);
}

static void heap_down(struct mull_loop *loop, size_t slot, struct mull_timer *timer)
{
    for (;;) {
        size_t child = 2 * slot + 1;
        if (child >= loop->heap_count)
            break;
        if (child + 1 < loop->heap_count && earlier(loop->heap[child + 1], loop->heap[child]))
            child++;
        if (!earlier(loop->heap[child], timer))
            break;
        heap_put(loop, slot, loop->heap[child]);
        slot = child;
    }
    heap_put(loop, slot, timer);
}

static void heap_insert(struct mull_loop *loop, struct mull_timer *timer)
{
    timer->sequence = loop->sequence++;
    heap_up(loop, loop->heap_count++, timer); /* mull_timer_create() has made room */
}

static void heap_remove(struct mull_loop *loop, struct mull_timer *timer)
{
    size_t slot = timer->slot;

    timer->slot = NOT_IN_HEAP;
    struct mull_timer *last = loop->heap[--loop->heap_count];
    if (last == timer)
        return;
    if (slot > 0 && earlier(last, loop->heap[(slot - 1) / 2]))
        heap_up(loop, slot, last);
    else
        heap_down(loop, slot, last);
}

static void program(struct mull_loop *loop, uint64_t deadline)
{
    struct itimerspec spec = {0};

    loop->programmed = deadline;
    if (deadline != NEVER) {
        if (deadline == 0)
            deadline = 1; /* zero would disarm */
        spec.it_value.tv_sec = (time_t)(deadline / 1000000000u);
        spec.it_value.tv_nsec = (long)(deadline % 1000000000u);
    }
    timerfd_settime(loop->timerfd, TFD_TIMER_ABSTIME, &spec, NULL);
}

static void disarm(struct mull_loop *loop, struct mull_timer *timer)
{
    if (timer->slot != NOT_IN_HEAP)
        heap_remove(loop, timer);
    if (timer->due_link) {
        *timer->due_link = timer->due_next;
        if (timer->due_next)
            timer->due_next->due_link = timer->due_link;
        timer->due_link = NULL;
    }
}

/* Move what is due from the heap to the batch, in order. */
static void take_due(struct mull_loop *loop, uint64_t now)
{
    struct mull_timer **end = &loop->due;

    while (loop->heap_count && loop->heap[0]->deadline <= now) {
        struct mull_timer *timer = loop->heap[0];
        heap_remove(loop, timer);
        timer->due_next = NULL;
        timer->due_link = end;
        *end = timer;
        end = &timer->due_next;
    }
}

/* Fire what is due. Each timer gets one turn: one that arms itself in the past again comes with the
 * next batch, so that it starves neither the other timers nor the descriptors. */
static void run_timers(struct mull_loop *loop)
{
    pthread_mutex_lock(&loop->lock);
    take_due(loop, mull_now_ns());
    while (loop->due) {
        struct mull_timer *timer = loop->due;
        void (*fn)(void *opaque) = timer->fn;
        void *opaque = timer->opaque;
        disarm(loop, timer);
        pthread_mutex_unlock(&loop->lock);
        fn(opaque); /* may free the timer, or others of the batch */
        pthread_mutex_lock(&loop->lock);
    }
    /* Setting the timerfd also makes it unreadable until it expires again. */
    program(loop, loop->heap_count ? loop->heap[0]->deadline : NEVER);
    pthread_mutex_unlock(&loop->lock);
}

struct mull_timer *mull_timer_create(struct mull_loop *loop, void (*fn)(void *opaque), void *opaque)
{
    struct mull_timer *timer = calloc(1, sizeof(*timer));

    if (!timer)
        return NULL;
    timer->loop = loop;
    timer->fn = fn;
    timer->opaque = opaque;
    timer->slot = NOT_IN_HEAP;

    pthread_mutex_lock(&loop->lock);
    if (loop->timer_count == loop->heap_room) {
        size_t room = loop->heap_room ? 2 * loop->heap_room : 16;
        struct mull_timer **heap = reallocarray(loop->heap, room, sizeof(struct mull_timer *));
        if (!heap) {
            pthread_mutex_unlock(&loop->lock);
            free(timer);
            return NULL;
        }
        loop->heap = heap;
        loop->heap_room = room;
    }
    loop->timer_count++;
    timer->next = loop->timers;
    timer->link = &loop->timers;
    if (timer->next)
        timer->next->link = &timer->next;
    loop->timers = timer;
    pthread_mutex_unlock(&loop->lock);
    return timer;
}

void mull_timer_arm(struct mull_timer *timer, uint64_t deadline_ns)
{
    struct mull_loop *loop = timer->loop;

    pthread_mutex_lock(&loop->lock);
    disarm(loop, timer);
    timer->deadline = deadline_ns;
    heap_insert(loop, timer);
    /* Only an earlier deadline costs a system call; after a later one the loop wakes up once in
     * vain and sets the timerfd anew. */
    if (loop->heap[0]->deadline < loop->programmed)
        program(loop, loop->heap[0]->deadline);
    pthread_mutex_unlock(&loop->lock);
}

void mull_timer_cancel(struct mull_timer *timer)
{
    pthread_mutex_lock(&timer->loop->lock);
    disarm(timer->loop, timer);
    pthread_mutex_unlock(&timer->loop->lock);
}

void mull_timer_destroy(struct mull_timer *timer)
{
    if (!timer)
        return;

    struct mull_loop *loop = timer->loop;
    pthread_mutex_lock(&loop->lock);
    disarm(loop, timer);
    *timer->link = timer->next;
    if (timer->next)
        timer->next->link = timer->link;
    loop->timer_count--;
    pthread_mutex_unlock(&loop->lock);
    free(timer);
}

/* ---- File descriptors ---- */

static void source_link(struct mull_source **list, struct mull_source *source)
{
    source->next = *list;
    source->link = list;
    if (source->next)
        source->next->link = &source->next;
    *list = source;
}

static void source_unlink(struct mull_source *source)
{
    *source->link = source->next;
    if (source->next)
        source->next->link = source->link;
}

/* Bring the epoll set in line with source->events. One that waits for nothing leaves the set:
 * epoll would go on reporting EPOLLHUP and EPOLLERR otherwise. */
static int source_apply(struct mull_source *source)
{
    struct epoll_event event = {.events = source->events, .data.ptr = source};
    int op;

    if (source->events)
        op = source->registered ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    else if (source->registered)
        op = EPOLL_CTL_DEL;
    else
        return 0;
    if (epoll_ctl(source->loop->epoll, op, source->fd, &event) < 0)
        return -errno;
    source->registered = source->events != 0;
    return 0;
}

int mull_loop_watch(struct mull_loop *loop, int fd, uint32_t events,
                    void (*fn)(void *opaque, uint32_t events), void *opaque,
                    struct mull_source **out, struct mull_error *err)
{
    struct mull_source *source = calloc(1, sizeof(*source));

    if (!source)
        return mull_fail(err, ENOMEM, "event loop: no memory to watch descriptor %d", fd);
    source->loop = loop;
    source->fd = fd;
    source->events = events;
    source->fn = fn;
    source->opaque = opaque;
    *out = source; /* before an event can come */

    pthread_mutex_lock(&loop->lock);
    int code = source_apply(source);
    if (code == 0)
        source_link(&loop->sources, source);
    pthread_mutex_unlock(&loop->lock);
    if (code < 0) {
        *out = NULL;
        free(source);
        return mull_fail(err, -code, "event loop: cannot watch descriptor %d: %s", fd,
                         strerror(-code));
    }
    return 0;
}

void mull_source_modify(struct mull_source *source, uint32_t events)
{
    pthread_mutex_lock(&source->loop->lock);
    source->events = events;
    source_apply(source);
    pthread_mutex_unlock(&source->loop->lock);
}

void mull_source_remove(struct mull_source *source)
{
    if (!source)
        return;

    /* The loop may hold an event for it already: the loop's thread frees it after that batch. */
    struct mull_loop *loop = source->loop;
    pthread_mutex_lock(&loop->lock);
    source->events = 0;
    source_apply(source);
    atomic_store(&source->dead, true);
    source_unlink(source);
    source_link(&loop->dead, source);
    pthread_mutex_unlock(&loop->lock);
}

static void free_dead(struct mull_loop *loop)
{
    pthread_mutex_lock(&loop->lock);
    struct mull_source *source = loop->dead;
    loop->dead = NULL;
    pthread_mutex_unlock(&loop->lock);
    while (source) {
        struct mull_source *next = source->next;
        free(source);
        source = next;
    }
}

/* ---- Posts, and the loop itself ---- */

static void wake(struct mull_loop *loop)
{
    uint64_t one = 1;
    ssize_t n;

    do
        n = write(loop->eventfd, &one, sizeof(one));
    while (n < 0 && errno == EINTR); /* EAGAIN: the counter is full, so it is readable anyway */
}

int mull_loop_post(struct mull_loop *loop, void (*fn)(void *opaque), void *opaque)
{
    struct post *post = malloc(sizeof(*post));

    if (!post)
        return -ENOMEM;
    *post = (struct post){.fn = fn, .opaque = opaque};
    pthread_mutex_lock(&loop->lock);
    bool first = !loop->posts;
    *loop->posts_end = post;
    loop->posts_end = &post->next;
    pthread_mutex_unlock(&loop->lock);
    if (first)
        wake(loop);
    return 0;
}

static void run_posts(struct mull_loop *loop)
{
    uint64_t count;
    ssize_t n = read(loop->eventfd, &count, sizeof(count)); /* before the list is looked at */
    (void)n;

    pthread_mutex_lock(&loop->lock);
    struct post *post = loop->posts;
    loop->posts = NULL;
    loop->posts_end = &loop->posts;
    pthread_mutex_unlock(&loop->lock);
    while (post) {
        struct post *next = post->next;
        post->fn(post->opaque);
        free(post);
        post = next;
    }
}

int mull_loop_create(struct mull_loop **out, struct mull_error *err)
{
    struct mull_loop *loop = calloc(1, sizeof(*loop));

    *out = NULL;
    if (!loop)
        return mull_fail(err, ENOMEM, "event loop: no memory");
    loop->posts_end = &loop->posts;
    loop->programmed = NEVER;
    pthread_mutex_init(&loop->lock, NULL);
    loop->epoll = epoll_create1(EPOLL_CLOEXEC);
    loop->timerfd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    loop->eventfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

    /* Our own two descriptors are told from sources by their addresses. */
    struct epoll_event timer = {.events = EPOLLIN, .data.ptr = &loop->timerfd};
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &loop->eventfd};
    if (loop->epoll < 0 || loop->timerfd < 0 || loop->eventfd < 0 ||
        epoll_ctl(loop->epoll, EPOLL_CTL_ADD, loop->timerfd, &timer) < 0 ||
        epoll_ctl(loop->epoll, EPOLL_CTL_ADD, loop->eventfd, &event) < 0) {
        int code = errno;
        mull_loop_destroy(loop);
        return mull_fail(err, code, "event loop: cannot set up epoll, timerfd and eventfd: %s",
                         strerror(code));
    }
    *out = loop;
    return 0;
}

static void close_fd(int fd)
{
    if (fd >= 0)
        close(fd);
}

void mull_loop_destroy(struct mull_loop *loop)
{
    if (!loop)
        return;
    while (loop->sources)
        mull_source_remove(loop->sources);
    free_dead(loop);
    while (loop->timers)
        mull_timer_destroy(loop->timers);
    while (loop->posts) {
        struct post *next = loop->posts->next;
        free(loop->posts);
        loop->posts = next;
    }
    close_fd(loop->epoll);
    close_fd(loop->timerfd);
    close_fd(loop->eventfd);
    pthread_mutex_destroy(&loop->lock);
    free(loop->heap);
    free(loop);
}

static void run_batch(struct mull_loop *loop)
{
    struct epoll_event events[EVENTS_AT_ONCE];
    int n = epoll_wait(loop->epoll, events, EVENTS_AT_ONCE, -1);

    for (int i = 0; i < n; i++) {
        struct mull_source *source = events[i].data.ptr;
        if (events[i].data.ptr == &loop->timerfd)
            run_timers(loop);
        else if (events[i].data.ptr == &loop->eventfd)
            run_posts(loop);
        else if (!atomic_load(&source->dead))
            source->fn(source->opaque, events[i].events);
    }
    free_dead(loop);
}

void mull_loop_run(struct mull_loop *loop)
{
    while (!atomic_exchange(&loop->stop, false))
        run_batch(loop);
}

void mull_loop_stop(struct mull_loop *loop)
{
    int saved = errno; /* also called from signal handlers */

    atomic_store(&loop->stop, true);
    wake(loop);
    errno = saved;
}
