/*
 * The high-precision event timer (IA-PC HPET specification 1.0a; section numbers are its). The main
 * counter is the machine's clock divided by ten. Knows nothing of interrupt controllers but lines.
 */
#include "platform/hpet.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#define TICK_NS 10u
/* The shortest time between two interrupts of a periodic timer, so that a guest cannot starve the
 * loop: ticks in between are skipped, the phase is kept. */
#define PERIOD_MIN_NS 20000u

#define CONFIG_ENABLE 1u
#define CONFIG_LEGACY 2u

#define TIMER_LEVEL 0x2u
#define TIMER_ENABLE 0x4u
#define TIMER_PERIODIC 0x8u
#define TIMER_PERIODIC_CAP 0x10u
#define TIMER_64_CAP 0x20u
#define TIMER_SET 0x40u /* the next write to the comparator sets it in periodic mode */
#define TIMER_32 0x100u
#define TIMER_ROUTE_SHIFT 9
#define TIMER_ROUTE 0x3e00u
#define TIMER_FSB 0x4000u
#define TIMER_FSB_CAP 0x8000u
#define TIMER_WRITABLE 0x7f4eull
/* Pins 2, 8 and 20 to 23: those that no PCI function uses. */
#define ROUTES 0x00f00104u

struct timer {
    uint64_t config;
    uint64_t comparator;
    uint64_t period;
    uint64_t fsb; /* low: value, high: address */
    /* Derived. */
    struct mull_hpet *hpet;
    struct mull_timer *timer;
    unsigned index;
    bool armed;
    uint64_t due; /* in ticks of the machine's clock */
};

struct mull_hpet {
    struct mull_device device;
    struct mull_hpet_config config;
    const struct mull_clock *clock;
    pthread_mutex_t lock;
    uint64_t general; /* configuration */
    uint64_t status;
    uint64_t counter; /* while halted: the counter; else what to add to the clock's ticks */
    struct timer timer[MULL_HPET_TIMERS];
    struct mull_region *region;
};

static bool enabled(const struct mull_hpet *h)
{
    return h->general & CONFIG_ENABLE;
}

static uint64_t clock_ticks(const struct mull_hpet *h)
{
    return mull_clock_now(h->clock) / TICK_NS;
}

static uint64_t counter(const struct mull_hpet *h)
{
    return enabled(h) ? clock_ticks(h) + h->counter : h->counter;
}

static bool is32(const struct timer *t)
{
    return t->config & TIMER_32;
}

/* Only timer 0 can be periodic. */
static bool periodic(const struct timer *t)
{
    return t->config & TIMER_PERIODIC;
}

static bool legacy(const struct timer *t)
{
    return (t->hpet->general & CONFIG_LEGACY) && t->index < 2;
}

/* ---- Interrupts ---- */

static struct mull_irq *line(struct timer *t)
{
    return legacy(t) ? &t->hpet->config.legacy[t->index]
                     : &t->hpet->config.irq[(t->config & TIMER_ROUTE) >> TIMER_ROUTE_SHIFT];
}

static bool routed(const struct timer *t)
{
    return legacy(t) || ROUTES >> ((t->config & TIMER_ROUTE) >> TIMER_ROUTE_SHIFT) & 1;
}

static void interrupt(struct timer *t)
{
    struct mull_hpet *h = t->hpet;

    if (t->config & TIMER_LEVEL)
        h->status |= 1u << t->index;
    if (!(t->config & TIMER_ENABLE))
        return;
    if ((t->config & TIMER_FSB) && !legacy(t)) {
        h->config.msi.send(h->config.msi.opaque, t->fsb >> 32, (uint32_t)t->fsb);
    } else if (!routed(t)) {
        return;
    } else if (t->config & TIMER_LEVEL) {
        mull_irq_set(line(t), true);
    } else {
        mull_irq_set(line(t), false);
        mull_irq_set(line(t), true);
        mull_irq_set(line(t), false);
    }
}

static void lower(struct timer *t)
{
    if (routed(t))
        mull_irq_set(line(t), false);
}

/* ---- Comparators ---- */

static void arm(struct timer *t, uint64_t soonest_ns)
{
    uint64_t ns = t->due > UINT64_MAX / TICK_NS ? UINT64_MAX : t->due * TICK_NS;

    mull_timer_arm(t->timer,
                   mull_clock_deadline(t->hpet->clock, ns > soonest_ns ? ns : soonest_ns));
}

/* A periodic comparator that the counter has left behind goes on from where it would be. */
static void catch_up(struct timer *t, uint64_t behind)
{
    t->comparator += (behind / t->period + 1) * t->period;
    if (is32(t))
        t->comparator = (uint32_t)t->comparator;
}

/* Work out when the counter next meets the comparator. @written: the guest has just set it; then a
 * moment that went by while it did counts as now, so that no guest waits for the counter to wrap.
 */
static void schedule(struct timer *t, bool written)
{
    struct mull_hpet *h = t->hpet;
    uint64_t now = counter(h), ahead = t->comparator - now;
    bool missed = is32(t) ? (int32_t)ahead < 0 : (int64_t)ahead < 0;

    if (t->armed)
        mull_timer_cancel(t->timer);
    t->armed = false;
    if (!enabled(h) || !(t->config & (TIMER_ENABLE | TIMER_LEVEL)))
        return;
    if (missed && periodic(t) && t->period) {
        catch_up(t, is32(t) ? (uint32_t)-ahead : -ahead);
        ahead = t->comparator - now;
    } else if (missed && written) {
        ahead = 0;
    }
    if (is32(t))
        ahead = (uint32_t)ahead;
    t->due = clock_ticks(h) + ahead;
    t->armed = t->due >= ahead; /* else millennia away */
    if (t->armed)
        arm(t, 0);
}

static void fired(void *opaque)
{
    struct timer *t = opaque;
    struct mull_hpet *h = t->hpet;

    pthread_mutex_lock(&h->lock);
    uint64_t now = clock_ticks(h);
    if (!t->armed || !enabled(h)) {
        /* cancelled meanwhile */
    } else if (now < t->due) {
        arm(t, 0);
    } else {
        interrupt(t);
        uint64_t step = 0; /* to the next time */
        if (periodic(t) && t->period) {
            step = ((now - t->due) / t->period + 1) * t->period;
            catch_up(t, now - t->due);
        } else if (is32(t)) { /* a 32-bit one-shot comes again when the counter wraps */
            step = (((now - t->due) >> 32) + 1) << 32;
        }
        t->due += step;
        t->armed = step && t->due >= step;
        if (t->armed)
            arm(t, mull_clock_now(h->clock) + PERIOD_MIN_NS);
    }
    pthread_mutex_unlock(&h->lock);
}

static void schedule_all(struct mull_hpet *h)
{
    for (unsigned i = 0; i < MULL_HPET_TIMERS; i++)
        schedule(&h->timer[i], false);
}

/* ---- Registers ---- */

static uint64_t read_register(struct mull_hpet *h, unsigned offset)
{
    if (offset >= 0x100 && offset < 0x100 + 0x20 * MULL_HPET_TIMERS) {
        const struct timer *t = &h->timer[(offset - 0x100) / 0x20];
        switch (offset & 0x18) {
        case 0x00:
            return t->config;
        case 0x08:
            return t->comparator;
        case 0x10:
            return t->fsb;
        default:
            return 0;
        }
    }
    switch (offset) {
    case 0x00: /* 2.3.4: vendor 8086h, legacy, 64 bits, number of timers - 1, revision 1 */
        return (uint64_t)MULL_HPET_PERIOD_FS << 32 | MULL_HPET_ID;
    case 0x10:
        return h->general;
    case 0x20:
        return h->status;
    case 0xf0:
        return counter(h);
    default:
        return 0;
    }
}

static void write_general(struct mull_hpet *h, uint64_t value)
{
    uint64_t was = h->general, now = counter(h);

    value &= CONFIG_ENABLE | CONFIG_LEGACY;
    if ((was ^ value) & CONFIG_LEGACY) {
        for (unsigned i = 0; i < 2; i++)
            lower(&h->timer[i]);
        h->config.legacy_mode(h->config.opaque, value & CONFIG_LEGACY);
    }
    h->general = value;
    if ((was ^ value) & CONFIG_ENABLE)
        h->counter = enabled(h) ? now - clock_ticks(h) : now;
    schedule_all(h);
}

static void write_status(struct mull_hpet *h, uint64_t value)
{
    for (unsigned i = 0; i < MULL_HPET_TIMERS; i++)
        if (h->status & value & (1u << i)) {
            h->status &= ~(1ull << i);
            lower(&h->timer[i]);
        }
}

static void write_config(struct timer *t, uint64_t value)
{
    uint64_t writable = TIMER_WRITABLE;

    if (t->index != 0)
        writable &= ~(uint64_t)(TIMER_PERIODIC | TIMER_SET);
    lower(t); /* by the old route */
    if ((t->config ^ value) & TIMER_LEVEL)
        t->hpet->status &= ~(1ull << t->index);
    t->config = (t->config & ~writable) | (value & writable);
    if (!periodic(t))
        t->config &= ~(uint64_t)TIMER_SET;
    if (is32(t)) {
        t->comparator = (uint32_t)t->comparator;
        t->period = (uint32_t)t->period;
    }
    if ((t->config & TIMER_LEVEL) && (t->hpet->status >> t->index & 1) &&
        (t->config & TIMER_ENABLE) && routed(t))
        mull_irq_set(line(t), true);
    schedule(t, false);
}

/* 2.3.9.2.2: in periodic mode a write sets the period, and the comparator too if asked to. */
static void write_comparator(struct timer *t, uint64_t value)
{
    if (is32(t))
        value = (uint32_t)value;
    if (!periodic(t) || (t->config & TIMER_SET))
        t->comparator = value;
    if (periodic(t))
        t->period = value;
    t->config &= ~(uint64_t)TIMER_SET;
    schedule(t, true);
}

static void write_register(struct mull_hpet *h, unsigned offset, uint64_t value)
{
    if (offset >= 0x100 && offset < 0x100 + 0x20 * MULL_HPET_TIMERS) {
        struct timer *t = &h->timer[(offset - 0x100) / 0x20];
        switch (offset & 0x18) {
        case 0x00:
            write_config(t, value);
            break;
        case 0x08:
            write_comparator(t, value);
            break;
        case 0x10:
            t->fsb = value;
            break;
        default:
            break;
        }
        return;
    }
    switch (offset) {
    case 0x10:
        write_general(h, value);
        break;
    case 0x20:
        write_status(h, value);
        break;
    case 0xf0: /* 2.3.7: only while halted */
        if (!enabled(h))
            h->counter = value;
        break;
    default:
        break;
    }
}

static uint64_t mmio_read(void *opaque, unsigned cpu, uint64_t offset, unsigned size)
{
    struct mull_hpet *h = opaque;

    pthread_mutex_lock(&h->lock);
    uint64_t value = read_register(h, (unsigned)offset & ~7u);
    pthread_mutex_unlock(&h->lock);
    return offset & 4 ? value >> 32 : value;
}

/* Half a register keeps the other half, but for the status, where a zero changes nothing, and the
 * comparator: halves of a period must not mix with halves of a comparator. */
static void mmio_write(void *opaque, unsigned cpu, uint64_t offset, unsigned size, uint64_t value)
{
    struct mull_hpet *h = opaque;
    unsigned reg = (unsigned)offset & ~7u;

    pthread_mutex_lock(&h->lock);
    if (size == 4 && reg != 0x20) {
        uint64_t old = read_register(h, reg);
        unsigned which = (reg - 0x100) / 0x20;
        if (reg >= 0x100 && which < MULL_HPET_TIMERS && (reg & 0x18) == 8 &&
            periodic(&h->timer[which]) && !(h->timer[which].config & TIMER_SET))
            old = h->timer[which].period;
        value = offset & 4 ? (uint32_t)old | value << 32
                           : (old & 0xffffffff00000000u) | (uint32_t)value;
    } else if (size == 4 && (offset & 4)) {
        value <<= 32;
    }
    write_register(h, reg, value);
    pthread_mutex_unlock(&h->lock);
}

static const struct mull_region_ops mmio_ops = {mmio_read, mmio_write, 4, 8};

/* ---- Life ---- */

static void reset(struct mull_device *device)
{
    struct mull_hpet *h = device->object;

    pthread_mutex_lock(&h->lock);
    bool was_legacy = h->general & CONFIG_LEGACY;
    for (unsigned i = 0; i < MULL_HPET_TIMERS; i++) {
        struct timer *t = &h->timer[i];
        if (t->config)
            lower(t);
        mull_timer_cancel(t->timer);
        t->armed = false;
        t->config = (uint64_t)ROUTES << 32 | TIMER_FSB_CAP | TIMER_64_CAP |
                    (i == 0 ? TIMER_PERIODIC_CAP : 0);
        t->comparator = UINT64_MAX;
        t->period = 0;
        t->fsb = 0;
    }
    h->general = 0;
    h->status = 0;
    h->counter = 0;
    if (was_legacy)
        h->config.legacy_mode(h->config.opaque, false);
    pthread_mutex_unlock(&h->lock);
}

static void resume(struct mull_device *device)
{
    struct mull_hpet *h = device->object;

    pthread_mutex_lock(&h->lock);
    for (unsigned i = 0; i < MULL_HPET_TIMERS; i++)
        if (h->timer[i].armed)
            arm(&h->timer[i], 0);
    pthread_mutex_unlock(&h->lock);
}

static int after_load(void *object, uint32_t version, struct mull_error *err)
{
    struct mull_hpet *h = object;

    pthread_mutex_lock(&h->lock);
    h->general &= CONFIG_ENABLE | CONFIG_LEGACY;
    h->status &= (1u << MULL_HPET_TIMERS) - 1;
    for (unsigned i = 0; i < MULL_HPET_TIMERS; i++) {
        struct timer *t = &h->timer[i];
        t->config = (uint64_t)ROUTES << 32 | TIMER_FSB_CAP | TIMER_64_CAP |
                    (i == 0 ? TIMER_PERIODIC_CAP : 0) |
                    (t->config & TIMER_WRITABLE & ~(uint64_t)(i ? TIMER_PERIODIC | TIMER_SET : 0));
    }
    h->config.legacy_mode(h->config.opaque, h->general & CONFIG_LEGACY);
    schedule_all(h);
    pthread_mutex_unlock(&h->lock);
    return 0;
}

static const struct mull_field timer_fields[] = {
    MULL_FIELD(struct timer, config),
    MULL_FIELD(struct timer, comparator),
    MULL_FIELD(struct timer, period),
    MULL_FIELD(struct timer, fsb),
    MULL_FIELDS_END,
};
static const struct mull_state_desc timer_desc = {
    .name = "hpet-timer", .version = 1, .oldest = 1, .fields = timer_fields};
static const struct mull_field fields[] = {
    MULL_FIELD(struct mull_hpet, general),
    MULL_FIELD(struct mull_hpet, status),
    MULL_FIELD(struct mull_hpet, counter),
    MULL_FIELD_NESTED_ARRAY(struct mull_hpet, timer, &timer_desc),
    MULL_FIELDS_END,
};
static const struct mull_state_desc desc = {
    .name = "hpet", .version = 1, .oldest = 1, .fields = fields, .after_load = after_load};

static void destroy(struct mull_device *device)
{
    struct mull_hpet *h = device->object;

    mull_region_remove(h->region);
    for (unsigned i = 0; i < MULL_HPET_TIMERS; i++)
        mull_timer_destroy(h->timer[i].timer);
    pthread_mutex_destroy(&h->lock);
    free(h);
}

static const struct mull_device_ops ops = {
    .state = &desc, .reset = reset, .resume = resume, .destroy = destroy};

struct mull_device *mull_hpet_device(struct mull_hpet *h)
{
    return &h->device;
}

int mull_hpet_create(const struct mull_device_env *env, const struct mull_hpet_config *config,
                     struct mull_hpet **out, struct mull_error *err)
{
    struct mull_hpet *h = calloc(1, sizeof(*h));
    int code = 0;

    *out = NULL;
    if (!h)
        return mull_fail(err, ENOMEM, "HPET: no memory");
    h->device = (struct mull_device){.ops = &ops, .name = "hpet", .object = h};
    h->config = *config;
    h->clock = env->clock;
    pthread_mutex_init(&h->lock, NULL);
    for (unsigned i = 0; i < MULL_HPET_TIMERS; i++) {
        h->timer[i].hpet = h;
        h->timer[i].index = i;
        h->timer[i].timer = mull_timer_create(env->loop, fired, &h->timer[i]);
        if (!h->timer[i].timer)
            code = mull_fail(err, ENOMEM, "HPET: no memory for its timers");
    }
    if (code == 0) {
        reset(&h->device);
        code = mull_region_add(env->memory, MULL_SPACE_MMIO, config->base, 1024, &mmio_ops, h,
                               "HPET", &h->region, err);
    }
    if (code < 0) {
        destroy(&h->device);
        return code;
    }
    *out = h;
    return 0;
}
