/*
 * The 8254 interval timer (Intel data sheet 231164) and port 61h. Counters are never stepped: what
 * a channel shows follows from when it was loaded and the machine's clock. Only channel 0 has a
 * line, so only it needs a timer.
 */
#include "platform/pit.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#define NS 1000000000ull
/* The shortest time between two interrupts of channel 0, so that a guest cannot starve the loop:
 * edges in between are skipped, the phase is kept. */
#define EDGE_MIN_NS 20000u

/* More than any that is counted in the life of a machine, and far from an overflow. */
#define TICKS_MAX (1ull << 60)

enum { RW_LATCH, RW_LOW, RW_HIGH, RW_BOTH };

struct channel {
    uint8_t mode; /* 0 to 5 */
    uint8_t rw;   /* RW_LOW.. */
    uint8_t bcd;
    uint8_t gate;
    uint8_t null_count; /* the count register is not loaded yet */
    uint8_t write_high; /* RW_BOTH: the next byte written is the high one */
    uint8_t read_high;  /* ... read */
    uint8_t low;        /* RW_BOTH: the low byte that was written */
    uint8_t latched;    /* bytes of the latched count that are left to read */
    uint8_t status_latched, status;
    uint16_t latch;
    uint32_t count;    /* 1 to 65536 (10000 in BCD) */
    uint8_t running;   /* a count was loaded and the trigger came */
    uint64_t start_ns; /* guest time of the load, trigger or opening of the gate */
    uint64_t phase;    /* ticks counted before that */
    uint8_t stopped;   /* by the gate; phase says where */
    /* Written but not used yet: from tick next_at on (modes 2 and 3), from the trigger on (1 and
     * 5). 0: none. */
    uint32_t next_count;
    uint64_t next_at;
};

struct mull_pit {
    struct mull_device device;
    const struct mull_clock *clock;
    struct mull_irq irq;
    struct mull_timer *timer;
    pthread_mutex_t lock;
    struct channel channel[3];
    uint8_t speaker;    /* port 61h bits 0 and 1 */
    uint64_t next_edge; /* guest time when channel 0's output rises next; 0: not armed */
    struct mull_region *region[2];
};

static uint64_t ns_to_ticks(uint64_t ns)
{
    return (uint64_t)((unsigned __int128)ns * MULL_PIT_HZ / NS);
}

/* The first nanosecond at which ns_to_ticks() gives @ticks. */
static uint64_t ticks_to_ns(uint64_t ticks)
{
    return (uint64_t)(((unsigned __int128)ticks * NS + MULL_PIT_HZ - 1) / MULL_PIT_HZ);
}

/* Ticks since the channel was loaded, without those while its gate stopped it. */
static uint64_t elapsed(const struct mull_pit *pit, const struct channel *c)
{
    uint64_t now = mull_clock_now(pit->clock);

    if (c->stopped)
        return c->phase;
    return c->phase + (now > c->start_ns ? ns_to_ticks(now - c->start_ns) : 0);
}

/* It has counted @ticks, now. */
static void count_from(const struct mull_pit *pit, struct channel *c, uint64_t ticks)
{
    c->start_ns = mull_clock_now(pit->clock);
    c->phase = ticks;
}

static bool periodic(const struct channel *c)
{
    return c->mode == 2 || c->mode == 3;
}

static bool triggered(const struct channel *c)
{
    return c->mode == 1 || c->mode == 5;
}

/* Where mode 3 goes from high to low. */
static uint32_t half(uint32_t count)
{
    return (count + 1) / 2;
}

/* A count that was written while another ran is used from the end of the period on, in mode 3 of
 * its half (data sheet, "Mode 2", "Mode 3"). */
static void settle(const struct mull_pit *pit, struct channel *c)
{
    if (!c->next_count || !periodic(c) || c->stopped || elapsed(pit, c) < c->next_at)
        return;
    bool low = c->mode == 3 && c->next_at % c->count;
    c->start_ns += ticks_to_ns(c->next_at > c->phase ? c->next_at - c->phase : 0);
    c->count = c->next_count;
    c->phase = low ? half(c->count) : 0;
    c->next_count = 0;
    c->null_count = 0;
}

static uint16_t to_bcd(uint32_t v)
{
    v %= 10000;
    return (uint16_t)(v / 1000 << 12 | v / 100 % 10 << 8 | v / 10 % 10 << 4 | v % 10);
}

static uint32_t from_bcd(uint16_t v)
{
    return ((v >> 12) * 1000u + (v >> 8 & 15) * 100u + (v >> 4 & 15) * 10u + (v & 15)) % 10000u;
}

/* The counting element as a read shows it. */
static uint16_t counter(const struct mull_pit *pit, const struct channel *c)
{
    uint32_t modulus = c->bcd ? 10000 : 65536;
    uint32_t left = c->count;

    if (c->running) {
        uint64_t ticks = elapsed(pit, c);
        if (c->mode == 2)
            left = c->count - (uint32_t)(ticks % c->count);
        else if (c->mode == 3) /* counts by twos, twice a period */
            left = (c->count - (uint32_t)(2 * (ticks % c->count) % c->count)) & ~1u;
        else
            left = (uint32_t)((c->count + modulus - ticks % modulus) % modulus);
    }
    return c->bcd ? to_bcd(left) : (uint16_t)left;
}

static bool output(const struct mull_pit *pit, const struct channel *c)
{
    uint64_t ticks = elapsed(pit, c);

    switch (c->mode) {
    case 0:
        return c->running && ticks >= c->count;
    case 1:
        return !c->running || ticks >= c->count;
    case 2:
        return !c->running || !c->gate || ticks % c->count != c->count - 1;
    case 3:
        return !c->running || !c->gate || ticks % c->count < half(c->count);
    default:
        return !c->running || ticks != c->count;
    }
}

/* ---- Channel 0's line ---- */

static void arm(struct mull_pit *pit, uint64_t soonest_ns)
{
    uint64_t due = pit->next_edge > soonest_ns ? pit->next_edge : soonest_ns;

    mull_timer_arm(pit->timer, mull_clock_deadline(pit->clock, due));
}

/* When channel 0's output rises next, 0: there is no rise to come. */
static uint64_t next_edge(const struct mull_pit *pit)
{
    const struct channel *c = &pit->channel[0];
    uint64_t ticks = elapsed(pit, c), edge;

    if (!c->running)
        return 0;
    if (c->next_count && periodic(c)) /* in mode 3 perhaps after a low half of the new count */
        edge = c->next_at + (c->mode == 3 && c->next_at % c->count ? c->next_count / 2 : 0);
    else if (periodic(c))
        edge = (ticks / c->count + 1) * c->count;
    else /* in modes 4 and 5 the strobe ends, and so rises, a tick later */
        edge = c->count + (c->mode >= 4);
    if (edge <= ticks)
        return 0;
    return c->start_ns + ticks_to_ns(edge - c->phase);
}

static void schedule(struct mull_pit *pit)
{
    mull_timer_cancel(pit->timer);
    mull_irq_set(&pit->irq, output(pit, &pit->channel[0]));
    pit->next_edge = next_edge(pit);
    if (pit->next_edge)
        arm(pit, 0);
}

static void fired(void *opaque)
{
    struct mull_pit *pit = opaque;

    pthread_mutex_lock(&pit->lock);
    if (!pit->next_edge) {
        /* cancelled meanwhile */
    } else if (mull_clock_now(pit->clock) < pit->next_edge) {
        arm(pit, 0);
    } else {
        settle(pit, &pit->channel[0]);
        mull_irq_set(&pit->irq, false);
        mull_irq_set(&pit->irq, true);
        pit->next_edge = next_edge(pit);
        if (pit->next_edge)
            arm(pit, mull_clock_now(pit->clock) + EDGE_MIN_NS);
    }
    pthread_mutex_unlock(&pit->lock);
}

/* ---- Ports ---- */

/* Start to count, or wait for the gate. */
static void start(const struct mull_pit *pit, struct channel *c)
{
    c->running = 1;
    c->null_count = 0;
    c->next_count = 0;
    c->stopped = !c->gate && !triggered(c);
    count_from(pit, c, 0);
}

static void load(struct mull_pit *pit, unsigned which, uint16_t value)
{
    struct channel *c = &pit->channel[which];
    uint32_t count = c->bcd ? from_bcd(value) : value;

    if (count == 0)
        count = c->bcd ? 10000 : 65536;
    if (count == 1 && periodic(c)) /* illegal there */
        count = 2;
    if (triggered(c)) { /* the next trigger loads it */
        c->next_count = count;
        c->null_count = 1;
        return;
    }
    if (periodic(c) && c->running && !c->stopped) {
        uint64_t ticks = elapsed(pit, c), into = ticks % c->count;
        uint64_t end = c->mode == 3 && into < half(c->count) ? half(c->count) : c->count;
        c->next_count = count;
        c->next_at = ticks - into + end;
        c->null_count = 1;
    } else {
        c->count = count;
        start(pit, c);
    }
    if (which == 0)
        schedule(pit);
}

static void write_count(struct mull_pit *pit, unsigned which, uint8_t value)
{
    struct channel *c = &pit->channel[which];

    switch (c->rw) {
    case RW_LOW:
        load(pit, which, value);
        break;
    case RW_HIGH:
        load(pit, which, (uint16_t)(value << 8));
        break;
    default:
        c->write_high = !c->write_high;
        if (c->write_high) {
            c->low = value;
            if (c->mode == 0) { /* the first byte stops the counting */
                c->running = 0;
                if (which == 0)
                    schedule(pit);
            }
        } else {
            load(pit, which, (uint16_t)(c->low | value << 8));
        }
    }
}

static uint8_t read_count(struct mull_pit *pit, unsigned which)
{
    struct channel *c = &pit->channel[which];
    uint16_t value;

    if (c->status_latched) {
        c->status_latched = 0;
        return c->status;
    }
    if (c->latched) {
        c->latched--;
        return (uint8_t)(c->rw == RW_HIGH || (c->rw == RW_BOTH && !c->latched) ? c->latch >> 8
                                                                               : c->latch);
    }
    value = counter(pit, c);
    if (c->rw == RW_BOTH) {
        c->read_high = !c->read_high;
        return (uint8_t)(c->read_high ? value : value >> 8);
    }
    return (uint8_t)(c->rw == RW_HIGH ? value >> 8 : value);
}

static void latch_count(const struct mull_pit *pit, struct channel *c)
{
    if (c->latched) /* the first latch stays until it is read */
        return;
    c->latch = counter(pit, c);
    c->latched = c->rw == RW_BOTH ? 2 : 1;
}

static void latch_status(const struct mull_pit *pit, struct channel *c)
{
    if (c->status_latched)
        return;
    c->status =
        (uint8_t)(output(pit, c) << 7 | c->null_count << 6 | c->rw << 4 | c->mode << 1 | c->bcd);
    c->status_latched = 1;
}

static void write_control(struct mull_pit *pit, uint8_t value)
{
    unsigned which = value >> 6;

    if (which == 3) { /* read-back command */
        for (unsigned i = 0; i < 3; i++) {
            if (!(value >> (i + 1) & 1))
                continue;
            if (!(value & 0x20))
                latch_count(pit, &pit->channel[i]);
            if (!(value & 0x10))
                latch_status(pit, &pit->channel[i]);
        }
        return;
    }
    struct channel *c = &pit->channel[which];
    if ((value >> 4 & 3) == RW_LATCH) {
        latch_count(pit, c);
        return;
    }
    uint8_t mode = value >> 1 & 7;
    *c = (struct channel){
        .mode = mode > 5 ? mode - 4 : mode, /* bit 2 counts in modes 4 and 5 only */
        .rw = value >> 4 & 3,
        .bcd = value & 1,
        .gate = c->gate,
        .null_count = 1,
        .count = c->count,
    };
    if (which == 0)
        schedule(pit);
}

static uint64_t port_read(void *opaque, unsigned cpu, uint64_t offset, unsigned size)
{
    struct mull_pit *pit = opaque;
    uint8_t value = 0;

    pthread_mutex_lock(&pit->lock);
    if (offset < 3) {
        settle(pit, &pit->channel[offset]);
        value = read_count(pit, (unsigned)offset);
    }
    pthread_mutex_unlock(&pit->lock);
    return value;
}

static void port_write(void *opaque, unsigned cpu, uint64_t offset, unsigned size, uint64_t value)
{
    struct mull_pit *pit = opaque;

    pthread_mutex_lock(&pit->lock);
    for (unsigned i = 0; i < 3; i++)
        settle(pit, &pit->channel[i]);
    if (offset < 3)
        write_count(pit, (unsigned)offset, (uint8_t)value);
    else
        write_control(pit, (uint8_t)value);
    pthread_mutex_unlock(&pit->lock);
}

/* The gate of channel 2, the only one that software can move. */
static void set_gate(struct mull_pit *pit, bool level)
{
    struct channel *c = &pit->channel[2];
    bool rising = level && !c->gate, falling = !level && c->gate;
    uint64_t ticks = elapsed(pit, c);

    c->gate = level;
    if (rising && !(c->mode == 0 || c->mode == 4)) { /* a trigger: starts anew */
        if (c->null_count && !c->next_count)
            return; /* with nothing */
        if (c->next_count)
            c->count = c->next_count;
        start(pit, c);
    } else if (rising && c->stopped) {
        c->stopped = 0;
        count_from(pit, c, ticks);
    } else if (falling && c->running && !triggered(c)) {
        c->stopped = 1;
        c->phase = ticks;
    }
}

static uint64_t speaker_read(void *opaque, unsigned cpu, uint64_t offset, unsigned size)
{
    struct mull_pit *pit = opaque;

    pthread_mutex_lock(&pit->lock);
    settle(pit, &pit->channel[2]);
    /* Bit 4 toggles with each refresh of the memory, about every 15 us. */
    unsigned refresh = mull_clock_now(pit->clock) / 15085 & 1;
    uint8_t value = (uint8_t)(pit->speaker | refresh << 4 | output(pit, &pit->channel[2]) << 5);
    pthread_mutex_unlock(&pit->lock);
    return value;
}

static void speaker_write(void *opaque, unsigned cpu, uint64_t offset, unsigned size,
                          uint64_t value)
{
    struct mull_pit *pit = opaque;

    pthread_mutex_lock(&pit->lock);
    settle(pit, &pit->channel[2]);
    pit->speaker = value & 3;
    set_gate(pit, value & 1);
    pthread_mutex_unlock(&pit->lock);
}

static const struct mull_region_ops port_ops = {port_read, port_write, 1, 1};
static const struct mull_region_ops speaker_ops = {speaker_read, speaker_write, 1, 1};

/* ---- Life ---- */

static void reset(struct mull_device *device)
{
    struct mull_pit *pit = device->object;

    pthread_mutex_lock(&pit->lock);
    for (unsigned i = 0; i < 3; i++)
        pit->channel[i] = (struct channel){
            .mode = 3, .rw = RW_BOTH, .gate = i != 2, .null_count = 1, .count = 65536};
    pit->speaker = 0;
    schedule(pit);
    mull_irq_set(&pit->irq, false);
    pthread_mutex_unlock(&pit->lock);
}

static void resume(struct mull_device *device)
{
    struct mull_pit *pit = device->object;

    pthread_mutex_lock(&pit->lock);
    if (pit->next_edge)
        arm(pit, 0);
    pthread_mutex_unlock(&pit->lock);
}

static int after_load(void *object, uint32_t version, struct mull_error *err)
{
    struct mull_pit *pit = object;

    for (unsigned i = 0; i < 3; i++) {
        struct channel *c = &pit->channel[i];
        uint32_t modulus = c->bcd ? 10000 : 65536;
        if (c->mode > 5 || c->rw == RW_LATCH || c->rw > RW_BOTH || c->count < 1 ||
            c->count > modulus || (periodic(c) && c->count < 2) || c->latched > 2 ||
            c->next_count > modulus || (periodic(c) && c->next_count == 1) ||
            c->phase > TICKS_MAX || c->next_at > TICKS_MAX)
            return mull_fail(err, EINVAL, "8254: channel %u of the saved state is not possible", i);
        if (c->start_ns > mull_clock_now(pit->clock))
            c->start_ns = mull_clock_now(pit->clock);
        c->gate = i == 2 ? pit->speaker & 1 : 1;
        c->bcd &= 1;
        c->null_count &= 1;
        c->stopped = !c->gate && c->running && !triggered(c);
    }
    /* An edge that is due but has not come yet must not be lost. */
    uint64_t next = next_edge(pit);
    if (version < 2 || pit->next_edge > mull_clock_now(pit->clock))
        pit->next_edge = next;
    return 0;
}

static const struct mull_field channel_fields[] = {
    MULL_FIELD(struct channel, mode),
    MULL_FIELD(struct channel, rw),
    MULL_FIELD(struct channel, bcd),
    MULL_FIELD(struct channel, gate),
    MULL_FIELD(struct channel, null_count),
    MULL_FIELD(struct channel, write_high),
    MULL_FIELD(struct channel, read_high),
    MULL_FIELD(struct channel, low),
    MULL_FIELD(struct channel, latched),
    MULL_FIELD(struct channel, status_latched),
    MULL_FIELD(struct channel, status),
    MULL_FIELD(struct channel, latch),
    MULL_FIELD(struct channel, count),
    MULL_FIELD(struct channel, running),
    MULL_FIELD(struct channel, start_ns),
    MULL_FIELD_SINCE(2, struct channel, phase),
    MULL_FIELD_SINCE(2, struct channel, next_count),
    MULL_FIELD_SINCE(2, struct channel, next_at),
    MULL_FIELDS_END,
};
static const struct mull_state_desc channel_desc = {
    .name = "8254-channel", .version = 2, .oldest = 1, .fields = channel_fields};
static const struct mull_field fields[] = {
    MULL_FIELD_NESTED_ARRAY(struct mull_pit, channel, &channel_desc),
    MULL_FIELD(struct mull_pit, speaker),
    MULL_FIELD_SINCE(2, struct mull_pit, next_edge),
    MULL_FIELDS_END,
};
static const struct mull_state_desc desc = {
    .name = "pit", .version = 2, .oldest = 1, .fields = fields, .after_load = after_load};

static void destroy(struct mull_device *device)
{
    struct mull_pit *pit = device->object;

    for (unsigned i = 0; i < 2; i++)
        mull_region_remove(pit->region[i]);
    mull_timer_destroy(pit->timer);
    pthread_mutex_destroy(&pit->lock);
    free(pit);
}

static const struct mull_device_ops ops = {
    .state = &desc, .reset = reset, .resume = resume, .destroy = destroy};

struct mull_device *mull_pit_device(struct mull_pit *pit)
{
    return &pit->device;
}

int mull_pit_create(const struct mull_device_env *env, struct mull_irq irq, struct mull_pit **out,
                    struct mull_error *err)
{
    struct mull_pit *pit = calloc(1, sizeof(*pit));
    int code;

    *out = NULL;
    if (!pit)
        return mull_fail(err, ENOMEM, "8254: no memory");
    pit->device = (struct mull_device){.ops = &ops, .name = "pit", .object = pit};
    pit->clock = env->clock;
    pit->irq = irq;
    pthread_mutex_init(&pit->lock, NULL);
    pit->timer = mull_timer_create(env->loop, fired, pit);
    if (!pit->timer) {
        destroy(&pit->device);
        return mull_fail(err, ENOMEM, "8254: no memory for its timer");
    }
    reset(&pit->device);
    if ((code = mull_region_add(env->memory, MULL_SPACE_PORT, 0x40, 4, &port_ops, pit, "8254",
                                &pit->region[0], err)) < 0 ||
        (code = mull_region_add(env->memory, MULL_SPACE_PORT, 0x61, 1, &speaker_ops, pit,
                                "speaker port", &pit->region[1], err)) < 0) {
        destroy(&pit->device);
        return code;
    }
    *out = pit;
    return 0;
}
