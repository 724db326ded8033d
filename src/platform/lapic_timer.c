/*
 * The local APIC's timer: one-shot, periodic and TSC-deadline (Intel SDM volume 3A, "APIC Timer").
 * It is armed in the loop by guest time. Knows only its own local APIC.
 */
#include <errno.h>

#include "platform/lapic_internal.h"

/* The shortest time between two ticks of a periodic timer, so that a guest cannot starve the loop:
 * ticks in between are skipped, the phase is kept. */
#define PERIOD_MIN_NS 20000u

static unsigned divide_shift(const struct lapic *l)
{
    return (((l->timer_divide & 8) >> 1 | (l->timer_divide & 3)) + 1) & 7;
}

static uint64_t period_ns(const struct lapic *l)
{
    return (uint64_t)l->timer_initial << divide_shift(l);
}

static bool deadline_mode(const struct lapic *l)
{
    return (l->lvt[LVT_TIMER] & LVT_TIMER_MODE) == LVT_TIMER_DEADLINE;
}

/* Guest time at which it is certainly due, the lock held. Nanoseconds of a TSC value are rounded
 * down, so the deadline has passed only in the next one. */
static uint64_t due_ns(const struct lapic *l)
{
    if (!deadline_mode(l))
        return l->timer_due;
    uint64_t ns = mull_clock_tsc_to_ns(l->set->config.clock, l->tsc_deadline);
    return ns == UINT64_MAX ? ns : ns + 1;
}

static void arm_at(struct lapic *l, uint64_t ns)
{
    mull_timer_arm(l->timer, mull_clock_deadline(l->set->config.clock, ns));
}

static void disarm(struct lapic *l)
{
    if (l->timer_armed) {
        l->timer_armed = false;
        mull_timer_cancel(l->timer);
    }
}

/* Has it come? If so, set it up for the next time. The lock is held. */
static bool take_tick(struct lapic *l)
{
    const struct mull_clock *clock = l->set->config.clock;

    if (!l->timer_armed)
        return false;
    if (deadline_mode(l)) {
        if (mull_clock_tsc(clock) < l->tsc_deadline) {
            arm_at(l, due_ns(l));
            return false;
        }
        l->timer_armed = false;
        return true;
    }
    uint64_t now = mull_clock_now(clock), period = period_ns(l);
    if (now < l->timer_due) {
        arm_at(l, l->timer_due);
        return false;
    }
    if (!(l->lvt[LVT_TIMER] & LVT_TIMER_PERIODIC) || !period) {
        l->timer_armed = false;
        return true;
    }
    l->timer_due += ((now - l->timer_due) / period + 1) * period;
    arm_at(l, l->timer_due > now + PERIOD_MIN_NS ? l->timer_due : now + PERIOD_MIN_NS);
    return true;
}

static void fired(void *opaque)
{
    struct lapic *l = opaque;

    pthread_mutex_lock(&l->timer_lock);
    bool tick = take_tick(l);
    pthread_mutex_unlock(&l->timer_lock);
    if (tick)
        lapic_local(l, LVT_TIMER);
}

bool lapic_timer_catch_up(struct lapic *l)
{
    fired(l);
    pthread_mutex_lock(&l->timer_lock);
    bool armed = l->timer_armed;
    pthread_mutex_unlock(&l->timer_lock);
    return armed;
}

int lapic_timer_init(struct lapic *l)
{
    pthread_mutex_init(&l->timer_lock, NULL);
    l->timer = mull_timer_create(l->set->config.loop, fired, l);
    return l->timer ? 0 : -ENOMEM;
}

void lapic_timer_fini(struct lapic *l)
{
    if (!l->set) /* not reached by a creation that failed */
        return;
    mull_timer_destroy(l->timer);
    pthread_mutex_destroy(&l->timer_lock);
}

void lapic_timer_reset(struct lapic *l)
{
    pthread_mutex_lock(&l->timer_lock);
    disarm(l);
    l->timer_initial = 0;
    l->timer_divide = 0;
    pthread_mutex_unlock(&l->timer_lock);
}

void lapic_timer_lvt(struct lapic *l, uint32_t value)
{
    pthread_mutex_lock(&l->timer_lock);
    uint32_t changed = l->lvt[LVT_TIMER] ^ value;
    if (changed & LVT_TIMER_DEADLINE) { /* "APIC Timer", TSC-deadline mode: disarms */
        disarm(l);
        l->timer_initial = 0;
    }
    l->lvt[LVT_TIMER] = value;
    pthread_mutex_unlock(&l->timer_lock);
}

uint32_t lapic_timer_initial(struct lapic *l)
{
    pthread_mutex_lock(&l->timer_lock);
    uint32_t value = l->timer_initial;
    pthread_mutex_unlock(&l->timer_lock);
    return value;
}

static uint32_t current(const struct lapic *l)
{
    uint64_t now = mull_clock_now(l->set->config.clock);
    uint64_t period = period_ns(l);

    if (!l->timer_armed || deadline_mode(l))
        return 0;
    uint64_t left = l->timer_due > now ? l->timer_due - now : 0;
    if (!left && (l->lvt[LVT_TIMER] & LVT_TIMER_PERIODIC) && period)
        left = period - (now - l->timer_due) % period; /* the tick is on its way */
    uint64_t count = left >> divide_shift(l);
    if (!count) /* zero only once it has fired: a saved count must not lose that */
        count = 1;
    return count > l->timer_initial ? l->timer_initial : (uint32_t)count;
}

uint32_t lapic_timer_current(struct lapic *l)
{
    pthread_mutex_lock(&l->timer_lock);
    uint32_t count = current(l);
    pthread_mutex_unlock(&l->timer_lock);
    return count;
}

/* Count down from @count, the lock held. */
static void start(struct lapic *l, uint32_t count)
{
    l->timer_due = mull_clock_now(l->set->config.clock) + ((uint64_t)count << divide_shift(l));
    l->timer_armed = true;
    arm_at(l, l->timer_due);
}

void lapic_timer_start(struct lapic *l, uint32_t count)
{
    pthread_mutex_lock(&l->timer_lock);
    if (!deadline_mode(l)) {
        disarm(l);
        l->timer_initial = count;
        if (count)
            start(l, count);
    }
    pthread_mutex_unlock(&l->timer_lock);
}

void lapic_timer_set_divide(struct lapic *l, uint32_t value)
{
    pthread_mutex_lock(&l->timer_lock);
    uint32_t left = current(l);
    bool running = l->timer_armed && !deadline_mode(l);
    l->timer_divide = value;
    if (running)
        start(l, left);
    pthread_mutex_unlock(&l->timer_lock);
}

uint64_t lapic_timer_deadline(struct lapic *l)
{
    pthread_mutex_lock(&l->timer_lock);
    uint64_t tsc = l->timer_armed && deadline_mode(l) ? l->tsc_deadline + l->tsc_offset : 0;
    pthread_mutex_unlock(&l->timer_lock);
    return tsc;
}

void lapic_timer_set_deadline(struct lapic *l, uint64_t tsc)
{
    bool tick = false;

    pthread_mutex_lock(&l->timer_lock);
    if (deadline_mode(l)) {
        if (tsc == 0) {
            disarm(l);
        } else {
            l->tsc_deadline = tsc < l->tsc_offset && (int64_t)l->tsc_offset > 0
                                  ? 0 /* before the clock began */
                                  : tsc - l->tsc_offset;
            l->timer_armed = true;
            if (mull_clock_tsc(l->set->config.clock) >= l->tsc_deadline) {
                disarm(l);
                tick = true;
            } else {
                arm_at(l, due_ns(l));
            }
        }
    }
    pthread_mutex_unlock(&l->timer_lock);
    if (tick)
        lapic_local(l, LVT_TIMER);
}

void mull_lapic_tsc_offset(struct mull_lapics *set, unsigned cpu, uint64_t offset)
{
    if (cpu >= set->config.cpus)
        return;
    struct lapic *l = &set->lapic[cpu];
    pthread_mutex_lock(&l->timer_lock);
    /* An armed deadline is a value of the guest's TSC, so it moves the other way. */
    if (l->timer_armed && deadline_mode(l)) {
        l->tsc_deadline += l->tsc_offset - offset;
        arm_at(l, due_ns(l));
    }
    l->tsc_offset = offset;
    pthread_mutex_unlock(&l->timer_lock);
}

void lapic_timer_load(struct lapic *l, uint32_t divide, uint32_t initial, uint32_t left,
                      uint64_t deadline)
{
    pthread_mutex_lock(&l->timer_lock);
    l->timer_divide = divide;
    l->timer_initial = initial;
    bool counting = !deadline_mode(l) && initial && left;
    if (counting)
        start(l, left > initial ? initial : left);
    pthread_mutex_unlock(&l->timer_lock);
    if (deadline && deadline_mode(l))
        lapic_timer_set_deadline(l, deadline);
}

void lapic_timer_rearm(struct lapic *l)
{
    pthread_mutex_lock(&l->timer_lock);
    if (l->timer_armed)
        arm_at(l, due_ns(l));
    pthread_mutex_unlock(&l->timer_lock);
}
