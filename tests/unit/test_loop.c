/* Unit tests of the event loop: timers, posts, descriptors, and removal from inside callbacks. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/loop.h"

struct world {
    struct mull_loop *loop;
    char trace[64];
    struct mull_timer *timer[8];
    struct mull_source *source[2];
    int fd[2];
    unsigned count;
    uint64_t deadline, fired_at;
};

static int setup(void **state)
{
    static struct world w;

    memset(&w, 0, sizeof(w));
    assert_int_equal(mull_loop_create(&w.loop, NULL), 0);
    *state = &w;
    return 0;
}

static int teardown(void **state)
{
    mull_loop_destroy(((struct world *)*state)->loop);
    return 0;
}

static void add(struct world *w, char c)
{
    w->trace[strlen(w->trace)] = c;
}

static void on_a(void *opaque)
{
    add(opaque, 'a');
}

static void on_b(void *opaque)
{
    add(opaque, 'b');
}

static void on_c(void *opaque)
{
    add(opaque, 'c');
}

static void on_stop(void *opaque)
{
    mull_loop_stop(((struct world *)opaque)->loop);
}

static void test_timer_order(void **state)
{
    struct world *w = *state;
    uint64_t soon = mull_now_ns() + 2000000;
    struct mull_timer *a = mull_timer_create(w->loop, on_a, w);
    struct mull_timer *b = mull_timer_create(w->loop, on_b, w);
    struct mull_timer *c = mull_timer_create(w->loop, on_c, w);
    struct mull_timer *never = mull_timer_create(w->loop, on_c, w);
    struct mull_timer *end = mull_timer_create(w->loop, on_stop, w);

    mull_timer_arm(never, soon);
    mull_timer_arm(end, soon + 30);
    mull_timer_arm(c, 5);
    mull_timer_arm(c, soon + 20); /* later than before */
    mull_timer_arm(b, soon + 10);
    mull_timer_arm(a, soon + 10); /* the same moment: after b */
    mull_timer_cancel(never);
    mull_timer_cancel(never);
    mull_loop_run(w->loop);
    assert_string_equal(w->trace, "bac");
    mull_timer_destroy(b);
    mull_timer_destroy(NULL);
}

static void on_fired(void *opaque)
{
    struct world *w = opaque;

    w->fired_at = mull_now_ns();
    mull_loop_stop(w->loop);
}

static void test_timer_never_early(void **state)
{
    struct world *w = *state;
    struct mull_timer *t = mull_timer_create(w->loop, on_fired, w);

    for (int i = 0; i < 20; i++) {
        w->deadline = mull_now_ns() + 100000u * (unsigned)i + 7;
        mull_timer_arm(t, w->deadline);
        mull_loop_run(w->loop);
        assert_true(w->fired_at >= w->deadline);
    }
}

/* One that re-arms itself in the past must not keep the loop from the rest. */
static void on_greedy(void *opaque)
{
    struct world *w = opaque;

    w->count++;
    mull_timer_arm(w->timer[0], 0);
    if (w->count == 1000)
        assert_int_equal(mull_loop_post(w->loop, on_stop, w), 0);
}

static void test_greedy_timer(void **state)
{
    struct world *w = *state;

    w->timer[0] = mull_timer_create(w->loop, on_greedy, w);
    mull_timer_arm(w->timer[0], 0);
    mull_loop_run(w->loop);
    assert_true(w->count >= 1000 && w->count < 1010);
}

/* ... nor from other timers that are due. */
static void test_greedy_timer_and_others(void **state)
{
    struct world *w = *state;

    w->timer[0] = mull_timer_create(w->loop, on_greedy, w);
    w->timer[1] = mull_timer_create(w->loop, on_stop, w);
    mull_timer_arm(w->timer[0], 0);
    mull_timer_arm(w->timer[1], mull_now_ns());
    mull_loop_run(w->loop);
    assert_true(w->count < 1000);
}

static void on_cancel_others(void *opaque)
{
    struct world *w = opaque;

    w->count++;
    for (unsigned i = 0; i < 8; i++)
        mull_timer_cancel(w->timer[i]); /* due in the same batch: they must not fire */
    mull_timer_arm(w->timer[7], mull_now_ns());
    mull_loop_stop(w->loop);
}

static void test_cancel_in_callback(void **state)
{
    struct world *w = *state;

    for (unsigned i = 0; i < 8; i++) {
        w->timer[i] = mull_timer_create(w->loop, on_cancel_others, w);
        mull_timer_arm(w->timer[i], 1);
    }
    mull_loop_run(w->loop);
    assert_int_equal(w->count, 1);
    mull_loop_run(w->loop); /* the one that was armed again */
    assert_int_equal(w->count, 2);
}

static void on_destroy_all(void *opaque)
{
    struct world *w = opaque;

    w->count++;
    for (unsigned i = 0; i < 8; i++) {
        mull_timer_destroy(w->timer[i]); /* also the one that runs */
        w->timer[i] = NULL;
    }
    mull_loop_stop(w->loop);
}

static void test_destroy_in_callback(void **state)
{
    struct world *w = *state;

    for (unsigned i = 0; i < 8; i++) {
        w->timer[i] = mull_timer_create(w->loop, on_destroy_all, w);
        mull_timer_arm(w->timer[i], 1);
    }
    mull_loop_run(w->loop);
    mull_loop_post(w->loop, on_stop, w);
    mull_loop_run(w->loop);
    assert_int_equal(w->count, 1);
}

/* Many random arms and cancels against a plain list: the heap keeps its order. */
struct random_timer {
    struct world *w;
    uint64_t deadline;
    bool armed;
};

static void on_random(void *opaque)
{
    struct random_timer *t = opaque;

    assert_true(t->armed);
    assert_true(t->deadline >= t->w->deadline); /* in order */
    t->w->deadline = t->deadline;
    t->armed = false;
    t->w->count--;
}

static void test_heap(void **state)
{
    struct world *w = *state;
    static struct random_timer t[100];
    struct mull_timer *timer[100];
    uint32_t seed = 12345;

    for (unsigned i = 0; i < 100; i++) {
        t[i] = (struct random_timer){.w = w};
        timer[i] = mull_timer_create(w->loop, on_random, &t[i]);
    }
    for (unsigned i = 0; i < 10000; i++) {
        seed = seed * 1664525 + 1013904223;
        unsigned which = (seed >> 16) % 100;
        bool arm = (seed >> 8) % 3 != 0;
        if (t[which].armed)
            w->count--;
        t[which].armed = arm;
        if (arm) {
            w->count++;
            t[which].deadline = 1 + (seed >> 12) % 5000;
            mull_timer_arm(timer[which], t[which].deadline);
        } else {
            mull_timer_cancel(timer[which]);
        }
    }
    struct mull_timer *end = mull_timer_create(w->loop, on_stop, w);
    mull_timer_arm(end, 1u << 20);
    mull_loop_run(w->loop);
    assert_int_equal(w->count, 0);
}

static void *poster(void *opaque)
{
    struct world *w = opaque;

    for (unsigned i = 0; i < 1000; i++)
        assert_int_equal(mull_loop_post(w->loop, on_a, w), 0);
    return NULL;
}

static void on_count(void *opaque)
{
    struct world *w = opaque;

    if (++w->count == 4000)
        mull_loop_stop(w->loop);
}

static void *count_poster(void *opaque)
{
    struct world *w = opaque;

    for (unsigned i = 0; i < 1000; i++)
        assert_int_equal(mull_loop_post(w->loop, on_count, w), 0);
    return NULL;
}

static void test_posts_from_threads(void **state)
{
    struct world *w = *state;
    pthread_t thread[4];

    for (unsigned i = 0; i < 4; i++)
        pthread_create(&thread[i], NULL, count_poster, w);
    mull_loop_run(w->loop);
    for (unsigned i = 0; i < 4; i++)
        pthread_join(thread[i], NULL);
    assert_int_equal(w->count, 4000);
}

static void test_stop_before_run(void **state)
{
    struct world *w = *state;

    mull_loop_stop(w->loop);
    mull_loop_run(w->loop); /* returns at once */
    poster(w);              /* posts that never run are freed with the loop */
}

/* Either of two ready sources removes both: only one callback may run. */
static void on_ready(void *opaque, uint32_t events)
{
    struct world *w = opaque;

    assert_true(events & EPOLLIN);
    w->count++;
    for (unsigned i = 0; i < 2; i++) {
        mull_source_remove(w->source[i]);
        w->source[i] = NULL;
    }
    mull_loop_post(w->loop, on_stop, w);
}

static void test_remove_in_callback(void **state)
{
    struct world *w = *state;
    int other[2];

    assert_int_equal(pipe(w->fd), 0);
    assert_int_equal(pipe(other), 0);
    assert_int_equal(write(w->fd[1], "x", 1), 1);
    assert_int_equal(write(other[1], "x", 1), 1);
    assert_int_equal(mull_loop_watch(w->loop, w->fd[0], EPOLLIN, on_ready, w, &w->source[0], NULL),
                     0);
    assert_int_equal(mull_loop_watch(w->loop, other[0], EPOLLIN, on_ready, w, &w->source[1], NULL),
                     0);
    mull_loop_run(w->loop);
    assert_int_equal(w->count, 1);
    for (unsigned i = 0; i < 2; i++) {
        close(w->fd[i]);
        close(other[i]);
    }
}

static void on_hup(void *opaque, uint32_t events)
{
    struct world *w = opaque;

    w->count++;
    mull_source_modify(w->source[0], 0); /* epoll would report EPOLLHUP for ever */
    w->timer[0] = mull_timer_create(w->loop, on_stop, w);
    mull_timer_arm(w->timer[0], mull_now_ns() + 1000000);
}

static void test_modify(void **state)
{
    struct world *w = *state;
    struct mull_error err = {0};

    assert_int_equal(pipe(w->fd), 0);
    assert_int_equal(mull_loop_watch(w->loop, w->fd[0], 0, on_hup, w, &w->source[0], NULL), 0);
    close(w->fd[1]);
    mull_loop_post(w->loop, on_stop, w);
    mull_loop_run(w->loop);
    assert_int_equal(w->count, 0);
    mull_source_modify(w->source[0], EPOLLIN);
    mull_loop_run(w->loop);
    assert_int_equal(w->count, 1);
    mull_source_remove(w->source[0]);
    close(w->fd[0]);
    assert_true(mull_loop_watch(w->loop, w->fd[0], EPOLLIN, on_hup, w, &w->source[0], &err) < 0);
    assert_non_null(strstr(err.message, "cannot watch"));
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_timer_order),
        T(test_timer_never_early),
        T(test_greedy_timer),
        T(test_greedy_timer_and_others),
        T(test_cancel_in_callback),
        T(test_destroy_in_callback),
        T(test_heap),
        T(test_posts_from_threads),
        T(test_stop_before_run),
        T(test_remove_in_callback),
        T(test_modify),
    };
    return cmocka_run_group_tests_name("loop", tests, NULL, NULL);
}
