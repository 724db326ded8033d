/*
 * The MC146818A real-time clock (Motorola data sheet) with 128 bytes of CMOS memory. Its time is
 * the host's wall clock plus an offset that the guest sets; flags are computed when somebody looks,
 * and a timer runs only while an enabled interrupt is still to come.
 */
#include "platform/rtc.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#define NS 1000000000ll

enum {
    SECONDS,
    SECONDS_ALARM,
    MINUTES,
    MINUTES_ALARM,
    HOURS,
    HOURS_ALARM,
    WEEKDAY,
    DAY,
    MONTH,
    YEAR,
    REG_A,
    REG_B,
    REG_C,
    REG_D
};

#define A_UIP 0x80u
#define A_RATE 0x0fu
#define B_SET 0x80u
#define B_PIE 0x40u
#define B_AIE 0x20u
#define B_UIE 0x10u
#define B_BINARY 0x04u
#define B_24H 0x02u
#define C_IRQF 0x80u
#define C_PF 0x40u
#define C_AF 0x20u
#define C_UF 0x10u
#define D_VALID 0x80u

#define ALARM_ANY 0xc0u  /* an alarm byte from C0h on matches everything */
#define UPDATE_NS 244000 /* how long UIP announces an update */
#define NEVER INT64_MAX

struct mull_rtc {
    struct mull_device device;
    const struct mull_clock *clock;
    struct mull_irq irq;
    struct mull_timer *timer;
    pthread_mutex_t lock;
    uint8_t cmos[128]; /* clock registers hold the time only while it stands still */
    uint8_t index;
    _Atomic uint8_t nmi_masked;
    uint64_t offset_ns; /* signed: the guest's time minus the host's */
    uint64_t looked_ns; /* up to here the flags are computed (rtc time) */
    struct mull_region *region;
};

/* ---- Time ---- */

/* The clock's time, ns since 1970. */
static int64_t rtc_now(const struct mull_rtc *rtc)
{
    return (int64_t)(mull_clock_boot_wall_ns(rtc->clock) + mull_clock_now(rtc->clock) +
                     rtc->offset_ns);
}

static int64_t floor_div(int64_t a, int64_t b)
{
    return a / b - (a % b < 0);
}

static bool divider_held(const struct mull_rtc *rtc)
{
    return (rtc->cmos[REG_A] >> 4 & 6) == 6;
}

static bool running(const struct mull_rtc *rtc)
{
    return !(rtc->cmos[REG_B] & B_SET) && !divider_held(rtc);
}

static uint8_t encode(const struct mull_rtc *rtc, int value)
{
    return (uint8_t)(rtc->cmos[REG_B] & B_BINARY ? value : value / 10 << 4 | value % 10);
}

static int decode(const struct mull_rtc *rtc, uint8_t value)
{
    return rtc->cmos[REG_B] & B_BINARY ? value : (value >> 4) * 10 + (value & 15);
}

static uint8_t encode_hour(const struct mull_rtc *rtc, int hour)
{
    if (rtc->cmos[REG_B] & B_24H)
        return encode(rtc, hour);
    return (uint8_t)(encode(rtc, hour % 12 ? hour % 12 : 12) | (hour >= 12 ? 0x80 : 0));
}

static int decode_hour(const struct mull_rtc *rtc, uint8_t value)
{
    if (rtc->cmos[REG_B] & B_24H)
        return decode(rtc, value);
    return decode(rtc, value & 0x7f) % 12 + (value & 0x80 ? 12 : 0);
}

/* Put a time into the clock registers. */
static void show(struct mull_rtc *rtc, int64_t ns)
{
    time_t seconds = (time_t)floor_div(ns, NS);
    struct tm t;

    if (!gmtime_r(&seconds, &t))
        return;
    int year = t.tm_year + 1900;
    rtc->cmos[SECONDS] = encode(rtc, t.tm_sec > 59 ? 59 : t.tm_sec);
    rtc->cmos[MINUTES] = encode(rtc, t.tm_min);
    rtc->cmos[HOURS] = encode_hour(rtc, t.tm_hour);
    rtc->cmos[WEEKDAY] = encode(rtc, t.tm_wday + 1);
    rtc->cmos[DAY] = encode(rtc, t.tm_mday);
    rtc->cmos[MONTH] = encode(rtc, t.tm_mon + 1);
    rtc->cmos[YEAR] = encode(rtc, ((year % 100) + 100) % 100);
    rtc->cmos[MULL_RTC_CENTURY] = encode(rtc, year / 100 % 100);
}

/* The time that the clock registers say, in ns since 1970: nonsense gives some time. */
static int64_t told(const struct mull_rtc *rtc)
{
    struct tm t = {
        .tm_sec = decode(rtc, rtc->cmos[SECONDS]),
        .tm_min = decode(rtc, rtc->cmos[MINUTES]),
        .tm_hour = decode_hour(rtc, rtc->cmos[HOURS]),
        .tm_mday = decode(rtc, rtc->cmos[DAY]),
        .tm_mon = decode(rtc, rtc->cmos[MONTH]) - 1,
        .tm_year =
            decode(rtc, rtc->cmos[MULL_RTC_CENTURY]) * 100 + decode(rtc, rtc->cmos[YEAR]) - 1900,
    };
    time_t seconds = timegm(&t);

    /* Two centuries either way keep all sums in range. */
    if (seconds < -6300000000ll || seconds > 6300000000ll)
        seconds = 0;
    return (int64_t)seconds * NS;
}

/* Make the clock show @ns now. */
static void set_time(struct mull_rtc *rtc, int64_t ns)
{
    rtc->offset_ns += (uint64_t)(ns - rtc_now(rtc));
    rtc->looked_ns = (uint64_t)ns;
}

/* ---- Flags and interrupts ---- */

/* Nanoseconds of the periodic interrupt, 0: none ("Periodic Interrupt Rate"). */
static int64_t period_ns(const struct mull_rtc *rtc)
{
    unsigned rate = rtc->cmos[REG_A] & A_RATE;

    if (rate == 0 || (rtc->cmos[REG_A] >> 4 & 7) != 2)
        return 0;
    if (rate < 3)
        rate += 7;
    return (NS << (rate - 1)) / 32768;
}

static bool alarm_matches(const struct mull_rtc *rtc, unsigned reg, int value)
{
    uint8_t alarm = rtc->cmos[reg];

    if (alarm >= ALARM_ANY)
        return true;
    return (reg == HOURS_ALARM ? decode_hour(rtc, alarm) : decode(rtc, alarm)) == value;
}

/* The first moment after @after at which the alarm matches, or NEVER. */
static int64_t next_alarm(const struct mull_rtc *rtc, int64_t after)
{
    int64_t first = floor_div(after, NS) + 1, t = first;

    while (t <= first + 86400) {
        int second = (int)(t - floor_div(t, 86400) * 86400);
        if (!alarm_matches(rtc, HOURS_ALARM, second / 3600))
            t += 3600 - second % 3600;
        else if (!alarm_matches(rtc, MINUTES_ALARM, second / 60 % 60))
            t += 60 - second % 60;
        else if (!alarm_matches(rtc, SECONDS_ALARM, second % 60))
            t++;
        else
            return t * NS;
    }
    return NEVER;
}

/* The first multiple of @step after @after. */
static int64_t next_step(int64_t after, int64_t step)
{
    return step ? (floor_div(after, step) + 1) * step : NEVER;
}

/* When each flag rises next after @after. */
static int64_t next_of(const struct mull_rtc *rtc, unsigned flag, int64_t after)
{
    switch (flag) {
    case C_PF:
        return next_step(after, period_ns(rtc));
    case C_UF:
        return running(rtc) ? next_step(after, NS) : NEVER;
    default:
        return running(rtc) ? next_alarm(rtc, after) : NEVER;
    }
}

static const uint8_t flags[] = {C_PF, C_AF, C_UF}; /* B's enable bits are at the same places */

/* Raise the flags of what has passed since the last look, set the line, and arm the timer for the
 * next enabled interrupt whose flag is still clear. */
static void update(struct mull_rtc *rtc)
{
    int64_t now = rtc_now(rtc), looked = (int64_t)rtc->looked_ns, next = NEVER;
    uint8_t *c = &rtc->cmos[REG_C];

    if (now < looked) /* the host's clock was set back */
        looked = now;
    for (unsigned i = 0; i < sizeof(flags); i++) {
        if (*c & flags[i])
            continue;
        int64_t when = next_of(rtc, flags[i], looked);
        if (when <= now)
            *c |= flags[i];
        else if ((rtc->cmos[REG_B] & flags[i]) && when < next)
            next = when;
    }
    rtc->looked_ns = (uint64_t)now;
    bool asserted = *c & rtc->cmos[REG_B] & (C_PF | C_AF | C_UF);
    *c = (uint8_t)((*c & ~C_IRQF) | (asserted ? C_IRQF : 0));
    mull_irq_set(&rtc->irq, asserted);
    /* While the line is up nothing more can happen on it until the guest reads register C. */
    if (asserted || next == NEVER)
        mull_timer_cancel(rtc->timer);
    else
        mull_timer_arm(rtc->timer, mull_clock_deadline(rtc->clock, mull_clock_now(rtc->clock) +
                                                                       (uint64_t)(next - now)));
}

static void fired(void *opaque)
{
    struct mull_rtc *rtc = opaque;

    pthread_mutex_lock(&rtc->lock);
    update(rtc);
    pthread_mutex_unlock(&rtc->lock);
}

/* ---- Ports ---- */

static bool time_register(unsigned index)
{
    return index == MULL_RTC_CENTURY || (index <= YEAR && index != SECONDS_ALARM &&
                                         index != MINUTES_ALARM && index != HOURS_ALARM);
}

/* Registers A and B: stop and start the clock. */
static void write_control(struct mull_rtc *rtc, unsigned index, uint8_t value)
{
    bool was_running = running(rtc), was_held = divider_held(rtc);
    int64_t now = rtc_now(rtc);

    if (was_running)
        show(rtc, now);
    rtc->cmos[index] = index == REG_A ? value & ~A_UIP : value;
    if (index == REG_B && (value & B_SET))
        rtc->cmos[REG_B] &= ~B_UIE; /* SET clears it */
    if (was_running || !running(rtc))
        return;
    /* After the divider was held the first update comes half a second later; else its phase stays.
     */
    int64_t fraction = was_held ? NS / 2 : now - floor_div(now, NS) * NS;
    set_time(rtc, told(rtc) + fraction);
}

static void write_register(struct mull_rtc *rtc, unsigned index, uint8_t value)
{
    update(rtc); /* the past under the old rules */
    if (index == REG_A || index == REG_B) {
        write_control(rtc, index, value);
    } else if (index == REG_C || index == REG_D) {
        return;
    } else if (!time_register(index)) {
        rtc->cmos[index] = value;
    } else if (!running(rtc)) {
        rtc->cmos[index] = value;
    } else {
        int64_t now = rtc_now(rtc);
        show(rtc, now);
        rtc->cmos[index] = value;
        set_time(rtc, told(rtc) + (now - floor_div(now, NS) * NS));
    }
    update(rtc);
}

static uint8_t read_register(struct mull_rtc *rtc, unsigned index)
{
    uint8_t value;

    if (time_register(index)) {
        if (running(rtc))
            show(rtc, rtc_now(rtc));
        return rtc->cmos[index];
    }
    switch (index) {
    case REG_A: {
        int64_t now = rtc_now(rtc);
        bool updating = running(rtc) && next_step(now, NS) - now <= UPDATE_NS;
        return (uint8_t)(rtc->cmos[REG_A] | (updating ? A_UIP : 0));
    }
    case REG_C: /* reading clears */
        update(rtc);
        value = rtc->cmos[REG_C];
        rtc->cmos[REG_C] = 0;
        update(rtc);
        return value;
    case REG_D:
        return D_VALID;
    default:
        return rtc->cmos[index];
    }
}

static uint64_t port_read(void *opaque, unsigned cpu, uint64_t offset, unsigned size)
{
    struct mull_rtc *rtc = opaque;

    pthread_mutex_lock(&rtc->lock);
    uint8_t value = offset ? read_register(rtc, rtc->index)
                           : (uint8_t)(rtc->index | (rtc->nmi_masked ? 0x80 : 0));
    pthread_mutex_unlock(&rtc->lock);
    return value;
}

static void port_write(void *opaque, unsigned cpu, uint64_t offset, unsigned size, uint64_t value)
{
    struct mull_rtc *rtc = opaque;

    pthread_mutex_lock(&rtc->lock);
    if (offset) {
        write_register(rtc, rtc->index, (uint8_t)value);
    } else {
        rtc->index = value & 0x7f;
        rtc->nmi_masked = (value & 0x80) != 0;
    }
    pthread_mutex_unlock(&rtc->lock);
}

static const struct mull_region_ops port_ops = {port_read, port_write, 1, 1};

/* ---- Life ---- */

void mull_rtc_set_cmos(struct mull_rtc *rtc, unsigned index, uint8_t value)
{
    if (index <= REG_D || index >= sizeof(rtc->cmos) || index == MULL_RTC_CENTURY)
        return;
    pthread_mutex_lock(&rtc->lock);
    rtc->cmos[index] = value;
    pthread_mutex_unlock(&rtc->lock);
}

bool mull_rtc_nmi_masked(const struct mull_rtc *rtc)
{
    return rtc->nmi_masked != 0;
}

/* RESET clears the interrupt enables and flags; the battery keeps the rest. */
static void reset(struct mull_device *device)
{
    struct mull_rtc *rtc = device->object;

    pthread_mutex_lock(&rtc->lock);
    rtc->cmos[REG_B] &= (uint8_t) ~(B_PIE | B_AIE | B_UIE);
    rtc->cmos[REG_C] = 0;
    rtc->index = 0;
    rtc->nmi_masked = false;
    update(rtc);
    pthread_mutex_unlock(&rtc->lock);
}

static void resume(struct mull_device *device)
{
    fired(device->object);
}

static int after_load(void *object, uint32_t version, struct mull_error *err)
{
    struct mull_rtc *rtc = object;

    rtc->index &= 0x7f;
    rtc->cmos[REG_A] &= ~A_UIP;
    rtc->cmos[REG_C] &= C_PF | C_AF | C_UF;
    if ((int64_t)rtc->offset_ns > 7000000000 * NS || (int64_t)rtc->offset_ns < -7000000000 * NS)
        rtc->offset_ns = 0;
    rtc->looked_ns = (uint64_t)rtc_now(rtc);
    return 0;
}

static const struct mull_field fields[] = {
    MULL_FIELD_BLOB(struct mull_rtc, cmos),
    MULL_FIELD(struct mull_rtc, index),
    MULL_FIELD(struct mull_rtc, nmi_masked),
    MULL_FIELD(struct mull_rtc, offset_ns),
    MULL_FIELDS_END,
};
static const struct mull_state_desc desc = {
    .name = "rtc", .version = 1, .oldest = 1, .fields = fields, .after_load = after_load};

static void destroy(struct mull_device *device)
{
    struct mull_rtc *rtc = device->object;

    mull_region_remove(rtc->region);
    mull_timer_destroy(rtc->timer);
    pthread_mutex_destroy(&rtc->lock);
    free(rtc);
}

static const struct mull_device_ops ops = {
    .state = &desc, .reset = reset, .resume = resume, .destroy = destroy};

struct mull_device *mull_rtc_device(struct mull_rtc *rtc)
{
    return &rtc->device;
}

int mull_rtc_create(const struct mull_device_env *env, struct mull_irq irq, struct mull_rtc **out,
                    struct mull_error *err)
{
    struct mull_rtc *rtc = calloc(1, sizeof(*rtc));

    *out = NULL;
    if (!rtc)
        return mull_fail(err, ENOMEM, "RTC: no memory");
    rtc->device = (struct mull_device){.ops = &ops, .name = "rtc", .object = rtc};
    rtc->clock = env->clock;
    rtc->irq = irq;
    pthread_mutex_init(&rtc->lock, NULL);
    rtc->cmos[REG_A] = 0x26; /* 32.768 kHz, 1.024 kHz: as firmware leaves it */
    rtc->cmos[REG_B] = B_24H;
    rtc->looked_ns = (uint64_t)rtc_now(rtc);
    rtc->timer = mull_timer_create(env->loop, fired, rtc);
    if (!rtc->timer) {
        destroy(&rtc->device);
        return mull_fail(err, ENOMEM, "RTC: no memory for its timer");
    }
    int code = mull_region_add(env->memory, MULL_SPACE_PORT, 0x70, 2, &port_ops, rtc, "RTC",
                               &rtc->region, err);
    if (code < 0) {
        destroy(&rtc->device);
        return code;
    }
    *out = rtc;
    return 0;
}
