/*
 * What the tests of the platform's controllers share: a machine's surroundings, accesses to ports
 * and MMIO, lines that remember what came, and time that only moves when the test says so (a paused
 * clock that is set).
 */
#ifndef TESTS_PLATFORM_WORLD_H
#define TESTS_PLATFORM_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "platform/device.h"
#include "platform/irq.h"

struct world {
    struct mull_device_env env;
    bool line[32];
    unsigned edges[32]; /* rising ones */
    uint64_t msi_address;
    uint32_t msi_data;
    unsigned msis;
};

static inline void world_line(void *opaque, unsigned line, bool level)
{
    struct world *w = opaque;

    if (level && !w->line[line])
        w->edges[line]++;
    w->line[line] = level;
}

static inline struct mull_irq world_irq(struct world *w, unsigned line)
{
    return (struct mull_irq){.set = world_line, .opaque = w, .line = line};
}

static inline void world_msi(void *opaque, uint64_t address, uint32_t data)
{
    struct world *w = opaque;

    w->msi_address = address;
    w->msi_data = data;
    w->msis++;
}

/* Guest time is now @ns (never back); the TSC runs at 3 GHz as far as the guest can see. */
static inline void world_set_time(struct world *w, uint64_t ns)
{
    mull_clock_set(w->env.clock, ns, ns * 3);
}

static inline void world_stop(void *opaque)
{
    mull_loop_stop(opaque);
}

/* Run the loop until every timer that is due has fired. */
static inline void world_drain(struct world *w)
{
    struct mull_timer *last = mull_timer_create(w->env.loop, world_stop, w->env.loop);

    mull_timer_arm(last, mull_now_ns() + 1000000);
    mull_loop_run(w->env.loop);
    mull_timer_destroy(last);
}

/* Guest time passes: timers were armed for the paused clock, so arm them anew. */
static inline void world_advance(struct world *w, struct mull_device *device, uint64_t ns)
{
    world_set_time(w, ns);
    device->ops->resume(device);
    world_drain(w);
}

static inline void world_make(struct world *w)
{
    memset(w, 0, sizeof(*w));
    assert_int_equal(mull_memory_create(NULL, &w->env.memory, NULL), 0);
    assert_int_equal(mull_loop_create(&w->env.loop, NULL), 0);
    assert_int_equal(mull_clock_create(&w->env.clock, NULL), 0);
    mull_clock_pause(w->env.clock);
    world_set_time(w, 0);
}

static inline void world_free(struct world *w)
{
    mull_clock_destroy(w->env.clock);
    mull_loop_destroy(w->env.loop);
    mull_memory_destroy(w->env.memory);
}

static inline uint32_t world_in(struct world *w, uint16_t port, unsigned size)
{
    return (uint32_t)mull_space_read(w->env.memory, MULL_SPACE_PORT, 0, port, size);
}

static inline void world_out(struct world *w, uint16_t port, unsigned size, uint32_t value)
{
    mull_space_write(w->env.memory, MULL_SPACE_PORT, 0, port, size, value);
}

static inline uint64_t world_read(struct world *w, uint64_t address, unsigned size)
{
    return mull_space_read(w->env.memory, MULL_SPACE_MMIO, 0, address, size);
}

static inline void world_write(struct world *w, uint64_t address, unsigned size, uint64_t value)
{
    mull_space_write(w->env.memory, MULL_SPACE_MMIO, 0, address, size, value);
}

#endif
