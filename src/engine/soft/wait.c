/*
 * Waiting for another vCPU or a device: polling for a bounded time that follows from how long the
 * last waits took, then sleeping. Waking a thread takes longer than many a wait, but a vCPU that
 * polls takes a core away from somebody. Knows of signals and of a word to sleep on, not of what
 * the guest waits for.
 */
#include "engine/soft/wait.h"

#include "engine/soft/cache.h"

#define POLL_MIN_NS 10000u
#define POLL_MAX_NS 60000u

/* While polling: between two looks at the time; between two offers of the CPU to others; and how
 * long such an offer takes if somebody took it. */
#define PAUSES_AT_ONCE 8
#define YIELD_US 4u
#define TAKEN_US 10u

#define IDLE_WINDOW_US 4000000u
#define IDLE_PERCENT 3

void soft_wait_begin(struct soft_cpu *cpu, struct soft_wait *wait)
{
    wait->start = soft_host_tsc();
    wait->end = wait->start + (uint64_t)cpu->poll_ns * cpu->tsc_us / 1000;
    wait->yield = wait->start + YIELD_US * cpu->tsc_us;
    wait->crowded = false;
}

bool soft_wait_more(struct soft_cpu *cpu, struct soft_wait *wait)
{
    for (unsigned i = 0; i < PAUSES_AT_ONCE / 4; i++)
        __builtin_ia32_pause();
    uint64_t now = soft_host_tsc();
    if (now >= wait->end)
        return false;
    if (now < wait->yield)
        return true;
    soft_yield(); /* who has work comes first */
    uint64_t back = soft_host_tsc();
    wait->yield = back + YIELD_US * cpu->tsc_us;
    wait->crowded = back - now > TAKEN_US * cpu->tsc_us;
    return !wait->crowded;
}

void soft_wait_end(struct soft_cpu *cpu, const struct soft_wait *wait, uint64_t when)
{
    uint32_t poll = cpu->poll_ns;

    if (wait->crowded)
        cpu->poll_ns = 0;
    else if (when - wait->start > (uint64_t)POLL_MAX_NS * cpu->tsc_us / 1000)
        cpu->poll_ns = poll > POLL_MIN_NS ? poll / 2 : 0;
    else if (poll < POLL_MAX_NS)
        cpu->poll_ns = poll < POLL_MIN_NS ? POLL_MIN_NS : poll * 2;
}

/* A guest that does next to nothing needs few of its translations: see soft_cache_idle(). */
static void watch_idleness(struct soft_cpu *cpu)
{
    uint64_t now = soft_host_tsc(), window = (uint64_t)IDLE_WINDOW_US * cpu->tsc_us;

    cpu->awake += now - cpu->woken;
    if (now - cpu->idle_since < window)
        return;
    if (cpu->awake < (now - cpu->idle_since) / 100 * IDLE_PERCENT)
        soft_cache_idle(cpu);
    cpu->idle_since = now;
    cpu->awake = 0;
}

void soft_wait_sleep(struct soft_cpu *cpu, uint32_t seen, uint64_t ns)
{
    struct timespec limit = {.tv_sec = (time_t)(ns / 1000000000u),
                             .tv_nsec = (long)(ns % 1000000000u)};

    soft_vectors_park(cpu);
    watch_idleness(cpu);
    atomic_store(&cpu->sleeping, true);
    if (!atomic_load(&cpu->signals))
        soft_futex_wait(&cpu->wake, seen, ns ? &limit : NULL);
    atomic_store(&cpu->sleeping, false);
    cpu->woken = soft_host_tsc();
}

void soft_wait_wake(struct soft_cpu *cpu)
{
    atomic_store_explicit(&cpu->called, soft_host_tsc(), memory_order_relaxed);
    atomic_fetch_add(&cpu->wake, 1);
    if (atomic_load(&cpu->sleeping))
        soft_futex_wake(&cpu->wake, 1);
}

void soft_wait_for_signal(struct soft_cpu *cpu)
{
    uint32_t seen = atomic_load(&cpu->wake);
    struct soft_wait wait;

    soft_wait_begin(cpu, &wait);
    bool come;
    do
        come = atomic_load_explicit(&cpu->signals, memory_order_relaxed);
    while (!come && soft_wait_more(cpu, &wait));
    if (!come)
        soft_wait_sleep(cpu, seen, 0);
    soft_wait_end(cpu, &wait,
                  come ? soft_host_tsc()
                       : atomic_load_explicit(&cpu->called, memory_order_relaxed));
}
