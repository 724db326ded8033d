/*
 * The event loop: file descriptors (epoll), timers (one timerfd over a heap) and functions posted
 * from other threads (eventfd). One thread runs the loop; callbacks run in that thread.
 * Knows nothing of machines.
 */
#ifndef MULL_BASE_LOOP_H
#define MULL_BASE_LOOP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct mull_loop;
struct mull_source;
struct mull_timer;

/** Create a loop. @return 0 and *out (owned by the caller), or a negative errno. */
int mull_loop_create(struct mull_loop **out, struct mull_error *err);

/** Free a loop that is not running, with all its sources and timers. NULL is allowed. */
void mull_loop_destroy(struct mull_loop *loop);

/** Run callbacks until mull_loop_stop(). Call from the one thread that owns the loop. */
void mull_loop_run(struct mull_loop *loop);

/** Make mull_loop_run() return soon. Any thread, also a signal handler. */
void mull_loop_stop(struct mull_loop *loop);

/**
 * Watch a file descriptor.
 *
 * @param fd      stays the caller's; must stay open until the source is removed
 * @param events  EPOLLIN, EPOLLOUT, EPOLLRDHUP, EPOLLET
 * @param fn      called in the loop's thread with the events that are ready
 * @param out     the source, owned by the loop until mull_source_remove()
 * Any thread.
 */
int mull_loop_watch(struct mull_loop *loop, int fd, uint32_t events,
                    void (*fn)(void *opaque, uint32_t events), void *opaque,
                    struct mull_source **out, struct mull_error *err);

/** Change the events a source waits for (0: none for now). Any thread. */
void mull_source_modify(struct mull_source *source, uint32_t events);

/** Stop watching; its callback will not be called again once this returns if called from the
 *  loop's thread. The file descriptor is not closed. NULL is allowed. */
void mull_source_remove(struct mull_source *source);

/** Run @fn(opaque) once, soon, in the loop's thread. Any thread. @return 0 or -ENOMEM. */
int mull_loop_post(struct mull_loop *loop, void (*fn)(void *opaque), void *opaque);

/** Nanoseconds of CLOCK_MONOTONIC: the time base of the loop's timers. */
uint64_t mull_now_ns(void);

/** Create a timer, unarmed. @fn runs in the loop's thread. @return the timer or NULL (memory). */
struct mull_timer *mull_timer_create(struct mull_loop *loop, void (*fn)(void *opaque),
                                     void *opaque);

/** (Re)arm: fire once when mull_now_ns() reaches @deadline_ns. Any thread. */
void mull_timer_arm(struct mull_timer *timer, uint64_t deadline_ns);

/** Disarm; a callback already running in the loop's thread may still finish. Any thread. */
void mull_timer_cancel(struct mull_timer *timer);

/** Free a timer. Call from the loop's thread or when the loop does not run. NULL is allowed. */
void mull_timer_destroy(struct mull_timer *timer);

#endif
