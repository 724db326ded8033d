/*
 * ACPI fixed hardware (ACPI 6.4, 4.8.3 and 4.8.4): the machine is always in ACPI mode, so SCI_EN is
 * always set and there is no SMI command port. The PM timer is the machine's clock.
 */
#include "platform/acpi_pm.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#define NS 1000000000ull

#define STS_TIMER 0x0001u
#define STS_GLOBAL 0x0020u
#define STS_POWER_BUTTON 0x0100u
#define STS_SLEEP_BUTTON 0x0200u
#define STS_RTC 0x0400u
#define STS_WAKE 0x8000u
#define STS_ALL (STS_TIMER | STS_GLOBAL | STS_POWER_BUTTON | STS_SLEEP_BUTTON | STS_RTC | STS_WAKE)
#define EN_ALL (STS_TIMER | STS_GLOBAL | STS_POWER_BUTTON | STS_SLEEP_BUTTON | STS_RTC)

#define CNT_SCI_EN 0x0001u
#define CNT_SLEEP_TYPE 0x1c00u
#define CNT_SLEEP_EN 0x2000u
#define CNT_WRITABLE (0x0002u | CNT_SLEEP_TYPE)

struct mull_acpi_pm {
    struct mull_device device;
    const struct mull_clock *clock;
    struct mull_irq sci;
    void (*poweroff)(void *opaque);
    void *opaque;
    struct mull_timer *timer;
    pthread_mutex_t lock;
    uint16_t status, enable, control;
    uint16_t gpe_status, gpe_enable;
    uint64_t overflow; /* half periods of the timer that were counted into STS_TIMER */
    struct mull_region *region[2];
};

static uint64_t ticks(const struct mull_acpi_pm *pm)
{
    return (uint64_t)((unsigned __int128)mull_clock_now(pm->clock) * MULL_PM_TIMER_HZ / NS);
}

/* Set TMR_STS when the counter's top bit has changed (4.8.3.3), set the SCI line, and wait for the
 * next change if the guest wants to know of it. The lock is held. */
static void update(struct mull_acpi_pm *pm)
{
    uint64_t halves = ticks(pm) >> 31;

    if (halves != pm->overflow) {
        pm->overflow = halves;
        pm->status |= STS_TIMER;
    }
    mull_irq_set(&pm->sci, (pm->status & pm->enable & EN_ALL) || (pm->gpe_status & pm->gpe_enable));
    if ((pm->enable & STS_TIMER) && !(pm->status & STS_TIMER)) {
        /* Rounded up; clocks stop far below what overflows (mull_clock_set()). */
        unsigned __int128 ns = ((unsigned __int128)(halves + 1) << 31) * NS;
        mull_timer_arm(pm->timer,
                       mull_clock_deadline(pm->clock, (uint64_t)(ns / MULL_PM_TIMER_HZ) + 1));
    } else {
        mull_timer_cancel(pm->timer);
    }
}

static void fired(void *opaque)
{
    struct mull_acpi_pm *pm = opaque;

    pthread_mutex_lock(&pm->lock);
    update(pm);
    pthread_mutex_unlock(&pm->lock);
}

void mull_acpi_pm_power_button(struct mull_acpi_pm *pm)
{
    pthread_mutex_lock(&pm->lock);
    pm->status |= STS_POWER_BUTTON;
    update(pm);
    pthread_mutex_unlock(&pm->lock);
}

void mull_acpi_pm_event(struct mull_acpi_pm *pm, unsigned event)
{
    if (event > 15)
        return;
    pthread_mutex_lock(&pm->lock);
    pm->gpe_status |= 1u << event;
    update(pm);
    pthread_mutex_unlock(&pm->lock);
}

/* ---- Ports: byte by byte, so that every width works ---- */

static uint8_t read_byte(const struct mull_acpi_pm *pm, unsigned offset, uint32_t timer)
{
    switch (offset) {
    case 0:
    case 1:
        return (uint8_t)(pm->status >> offset * 8);
    case 2:
    case 3:
        return (uint8_t)(pm->enable >> (offset - 2) * 8);
    case 4:
    case 5:
        return (uint8_t)(pm->control >> (offset - 4) * 8);
    case 8:
    case 9:
    case 10:
    case 11:
        return (uint8_t)(timer >> (offset - 8) * 8);
    default:
        return 0;
    }
}

static uint64_t pm_read(void *opaque, unsigned cpu, uint64_t offset, unsigned size)
{
    struct mull_acpi_pm *pm = opaque;
    uint64_t value = 0;

    if (offset == 8 && size == 4) /* the timer: no lock */
        return (uint32_t)ticks(pm);
    pthread_mutex_lock(&pm->lock);
    update(pm);
    uint32_t timer = (uint32_t)ticks(pm);
    for (unsigned i = 0; i < size; i++)
        value |= (uint64_t)read_byte(pm, (unsigned)offset + i, timer) << i * 8;
    pthread_mutex_unlock(&pm->lock);
    return value;
}

static void merge(uint16_t *reg, unsigned byte, uint8_t value)
{
    *reg = (uint16_t)((*reg & ~(0xffu << byte * 8)) | (unsigned)value << byte * 8);
}

static void write_byte(struct mull_acpi_pm *pm, unsigned offset, uint8_t value, bool *sleep)
{
    switch (offset) {
    case 0: /* status: write one to clear */
    case 1:
        pm->status &= (uint16_t) ~(value << offset * 8);
        break;
    case 2:
    case 3:
        merge(&pm->enable, offset - 2, value);
        pm->enable &= EN_ALL;
        break;
    case 4:
    case 5:
        if (offset == 5 && (value << 8 & CNT_SLEEP_EN)) /* write only */
            *sleep = true;
        merge(&pm->control, offset - 4, value);
        pm->control = (pm->control & CNT_WRITABLE) | CNT_SCI_EN;
        break;
    default:
        break;
    }
}

static void pm_write(void *opaque, unsigned cpu, uint64_t offset, unsigned size, uint64_t value)
{
    struct mull_acpi_pm *pm = opaque;
    bool sleep = false;

    pthread_mutex_lock(&pm->lock);
    update(pm);
    for (unsigned i = 0; i < size; i++)
        write_byte(pm, (unsigned)offset + i, (uint8_t)(value >> i * 8), &sleep);
    update(pm);
    if (sleep && (pm->control & CNT_SLEEP_TYPE) >> 10 == MULL_PM_S5_TYPE && pm->poweroff)
        pm->poweroff(pm->opaque);
    pthread_mutex_unlock(&pm->lock);
}

static uint64_t gpe_read(void *opaque, unsigned cpu, uint64_t offset, unsigned size)
{
    struct mull_acpi_pm *pm = opaque;

    pthread_mutex_lock(&pm->lock);
    uint32_t all = (uint32_t)pm->gpe_enable << 16 | pm->gpe_status;
    pthread_mutex_unlock(&pm->lock);
    return all >> offset * 8;
}

static void gpe_write(void *opaque, unsigned cpu, uint64_t offset, unsigned size, uint64_t value)
{
    struct mull_acpi_pm *pm = opaque;

    pthread_mutex_lock(&pm->lock);
    for (unsigned i = 0; i < size; i++) {
        unsigned at = (unsigned)offset + i;
        uint8_t byte = (uint8_t)(value >> i * 8);
        if (at < 2)
            pm->gpe_status &= (uint16_t) ~(byte << at * 8);
        else
            merge(&pm->gpe_enable, at - 2, byte);
    }
    update(pm);
    pthread_mutex_unlock(&pm->lock);
}

static const struct mull_region_ops pm_ops = {pm_read, pm_write, 1, 4};
static const struct mull_region_ops gpe_ops = {gpe_read, gpe_write, 1, 4};

/* ---- Life ---- */

static void reset(struct mull_device *device)
{
    struct mull_acpi_pm *pm = device->object;

    pthread_mutex_lock(&pm->lock);
    pm->enable = pm->gpe_status = pm->gpe_enable = 0;
    pm->control = CNT_SCI_EN;
    update(pm);
    pm->status = 0;
    pthread_mutex_unlock(&pm->lock);
}

static void resume(struct mull_device *device)
{
    fired(device->object);
}

static int after_load(void *object, uint32_t version, struct mull_error *err)
{
    struct mull_acpi_pm *pm = object;

    pm->status &= STS_ALL;
    pm->enable &= EN_ALL;
    pm->control = (pm->control & CNT_WRITABLE) | CNT_SCI_EN;
    return 0;
}

static const struct mull_field fields[] = {
    MULL_FIELD(struct mull_acpi_pm, status),
    MULL_FIELD(struct mull_acpi_pm, enable),
    MULL_FIELD(struct mull_acpi_pm, control),
    MULL_FIELD(struct mull_acpi_pm, gpe_status),
    MULL_FIELD(struct mull_acpi_pm, gpe_enable),
    MULL_FIELD(struct mull_acpi_pm, overflow),
    MULL_FIELDS_END,
};
static const struct mull_state_desc desc = {
    .name = "acpi-pm", .version = 1, .oldest = 1, .fields = fields, .after_load = after_load};

static void destroy(struct mull_device *device)
{
    struct mull_acpi_pm *pm = device->object;

    for (unsigned i = 0; i < 2; i++)
        mull_region_remove(pm->region[i]);
    mull_timer_destroy(pm->timer);
    pthread_mutex_destroy(&pm->lock);
    free(pm);
}

static const struct mull_device_ops ops = {
    .state = &desc, .reset = reset, .resume = resume, .destroy = destroy};

struct mull_device *mull_acpi_pm_device(struct mull_acpi_pm *pm)
{
    return &pm->device;
}

int mull_acpi_pm_create(const struct mull_device_env *env, struct mull_irq sci,
                        void (*poweroff)(void *opaque), void *opaque, struct mull_acpi_pm **out,
                        struct mull_error *err)
{
    struct mull_acpi_pm *pm = calloc(1, sizeof(*pm));
    int code;

    *out = NULL;
    if (!pm)
        return mull_fail(err, ENOMEM, "ACPI PM: no memory");
    pm->device = (struct mull_device){.ops = &ops, .name = "acpi-pm", .object = pm};
    pm->clock = env->clock;
    pm->sci = sci;
    pm->poweroff = poweroff;
    pm->opaque = opaque;
    pthread_mutex_init(&pm->lock, NULL);
    pm->timer = mull_timer_create(env->loop, fired, pm);
    if (!pm->timer) {
        destroy(&pm->device);
        return mull_fail(err, ENOMEM, "ACPI PM: no memory for its timer");
    }
    reset(&pm->device);
    if ((code = mull_region_add(env->memory, MULL_SPACE_PORT, MULL_PM1_EVENT_PORT, 12, &pm_ops, pm,
                                "ACPI PM", &pm->region[0], err)) < 0 ||
        (code = mull_region_add(env->memory, MULL_SPACE_PORT, MULL_PM_GPE0_PORT, MULL_PM_GPE0_SIZE,
                                &gpe_ops, pm, "ACPI GPE0", &pm->region[1], err)) < 0) {
        destroy(&pm->device);
        return code;
    }
    *out = pm;
    return 0;
}
