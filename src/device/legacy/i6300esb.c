/*
 * The watchdog timer of the 6300ESB. See i6300esb.h; sections are those of Intel's datasheet
 * 300641-004. Two stages count down one after the other, in the guest's time: the first may
 * interrupt (not here: no driver uses it), the second ends the machine's patience. Knows what to
 * call then, not what that does.
 */
#include "device/legacy/i6300esb.h"

#include <errno.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VENDOR 0x8086
#define DEVICE 0x25ab
#define CLASS 0x088000 /* system peripheral, other */
#define BAR_SIZE 0x1000

/* Configuration space (16.4). */
#define CONFIG 0x60
#define CONFIG_FAST (1u << 2) /* the prescaler: 1 MHz instead of 1 kHz */
#define CONFIG_NO_REBOOT (1u << 5)
#define LOCK 0x68
#define LOCK_LOCKED (1u << 0)
#define LOCK_ENABLE (1u << 1)
#define LOCK_FREE_RUN (1u << 2)

/* Memory-mapped registers (16.5). */
enum { PRELOAD1 = 0x0, PRELOAD2 = 0x4, INTERRUPT_STATUS = 0x8, RELOAD = 0xc };
#define PRELOAD_MASK 0xfffffu
#define RELOAD_RELOAD (1u << 8)
#define RELOAD_TIMEOUT (1u << 9)
#define UNLOCK1 0x80u
#define UNLOCK2 0x86u

#define PCI_HZ 33333333ull /* what the prescaler divides */
#define SHIFT_SLOW 15
#define SHIFT_FAST 5

struct watchdog {
    struct mull_device device; /* must be first */
    struct mull_device_env env;
    struct mull_pci_function function;
    struct mull_watchdog_config config;
    struct mull_timer *timer;
    pthread_mutex_t lock; /* everything below */
    uint8_t unlock;       /* how many of the two writes have been made */
    uint8_t stage;        /* 1, 2; 0: it does not count */
    bool timeout;         /* the second stage has passed; kept over the reset that follows */
    uint16_t control;     /* CONFIG */
    uint8_t locked;       /* LOCK */
    uint32_t preload[2];
    uint64_t expires; /* guest ns; of this stage */
};

/* ---- The countdown ---- */

static uint64_t stage_ns(const struct watchdog *w, unsigned stage)
{
    unsigned shift = w->control & CONFIG_FAST ? SHIFT_FAST : SHIFT_SLOW;
    /* 20 bits + 15 bits; a preload of n counts n + 1. */
    uint64_t ticks = ((uint64_t)w->preload[stage - 1] + 1) << shift;
    return (uint64_t)((unsigned __int128)ticks * 1000000000u / PCI_HZ);
}

static void arm(struct watchdog *w)
{
    if (w->stage)
        mull_timer_arm(w->timer, mull_clock_deadline(w->env.clock, w->expires));
    else
        mull_timer_cancel(w->timer);
}

static void restart(struct watchdog *w, unsigned stage)
{
    w->stage = (uint8_t)stage;
    if (stage)
        w->expires = mull_clock_now(w->env.clock) + stage_ns(w, stage);
    arm(w);
}

static void timer_fired(void *opaque)
{
    struct watchdog *w = opaque;
    bool expired = false;

    pthread_mutex_lock(&w->lock);
    if (w->stage && mull_clock_now(w->env.clock) < w->expires) {
        arm(w); /* the guest's time has stood still meanwhile */
    } else if (w->stage == 1) {
        restart(w, 2);
    } else if (w->stage == 2) {
        w->timeout = true;
        expired = !(w->control & CONFIG_NO_REBOOT);
        /* Free-running, it begins again; else it has said what it had to say. */
        restart(w, w->locked & LOCK_FREE_RUN ? 1 : 0);
    }
    pthread_mutex_unlock(&w->lock);
    if (expired)
        w->config.expired(w->config.opaque);
}

/* ---- Registers ---- */

static uint64_t bar_read(void *opaque, unsigned cpu, uint64_t offset, unsigned size)
{
    struct watchdog *w = opaque;
    uint64_t value = 0;

    pthread_mutex_lock(&w->lock);
    if (offset == RELOAD)
        value = w->timeout ? RELOAD_TIMEOUT : 0;
    pthread_mutex_unlock(&w->lock);
    return value; /* preloads are write-only (16.5.1) */
}

/* Writes count only behind the two that unlock them, and each needs its own (16.5.4). */
static void unlocked_write(struct watchdog *w, uint64_t offset, uint32_t value)
{
    switch (offset) {
    case PRELOAD1:
    case PRELOAD2:
        w->preload[offset / 4] = value & PRELOAD_MASK;
        break;
    case RELOAD:
        if (value & RELOAD_TIMEOUT)
            w->timeout = false;
        if ((value & RELOAD_RELOAD) && w->stage)
            restart(w, 1);
        break;
    }
}

static void bar_write(void *opaque, unsigned cpu, uint64_t offset, unsigned size, uint64_t value)
{
    struct watchdog *w = opaque;

    pthread_mutex_lock(&w->lock);
    if (offset == RELOAD && value == UNLOCK1) {
        w->unlock = 1;
    } else if (offset == RELOAD && value == UNLOCK2 && w->unlock == 1) {
        w->unlock = 2;
    } else {
        if (w->unlock == 2)
            unlocked_write(w, offset, (uint32_t)value);
        w->unlock = 0;
    }
    pthread_mutex_unlock(&w->lock);
}

static const struct mull_region_ops bar_ops = {
    .read = bar_read, .write = bar_write, .min_size = 2, .max_size = 4};

static struct watchdog *from_function(struct mull_pci_function *f)
{
    return (struct watchdog *)((char *)f - offsetof(struct watchdog, function));
}

/* Take over what the guest wrote to CONFIG and LOCK, where it may. */
static void config_written(struct mull_pci_function *f, unsigned offset, unsigned size)
{
    struct watchdog *w = from_function(f);
    uint16_t control;
    uint8_t locked;

    if (offset + size <= CONFIG || offset > LOCK)
        return;
    pthread_mutex_lock(&w->lock);
    pthread_mutex_lock(&f->lock);
    memcpy(&control, f->config + CONFIG, sizeof(control));
    locked = f->config[LOCK];
    if (w->locked & LOCK_LOCKED) { /* until a reset (16.4.6) */
        f->config[LOCK] = w->locked;
        locked = w->locked;
    }
    pthread_mutex_unlock(&f->lock);
    bool was = w->locked & LOCK_ENABLE, is = locked & LOCK_ENABLE;
    w->control = control;
    w->locked = locked;
    if (was != is)
        restart(w, is ? 1 : 0);
    pthread_mutex_unlock(&w->lock);
}

static const struct mull_pci_ops function_ops = {.config_written = config_written};

/* ---- Life ---- */

static void registers_reset(struct watchdog *w)
{
    w->unlock = 0;
    w->control = 0;
    w->locked = 0;
    w->preload[0] = w->preload[1] = PRELOAD_MASK;
    restart(w, 0);
}

static void watchdog_reset(struct mull_device *device)
{
    struct watchdog *w = (struct watchdog *)device;
    pthread_mutex_lock(&w->lock);
    registers_reset(w);
    pthread_mutex_unlock(&w->lock);
    mull_pci_function_reset(&w->function);
}

/* The guest's time stops; the timer fires at another moment of the host's. */
static void watchdog_quiesce(struct mull_device *device)
{
    mull_timer_cancel(((struct watchdog *)device)->timer);
}

static void watchdog_resume(struct mull_device *device)
{
    struct watchdog *w = (struct watchdog *)device;
    pthread_mutex_lock(&w->lock);
    arm(w);
    pthread_mutex_unlock(&w->lock);
}

static void watchdog_destroy(struct mull_device *device)
{
    struct watchdog *w = (struct watchdog *)device;
    mull_pci_function_fini(&w->function);
    mull_timer_destroy(w->timer);
    pthread_mutex_destroy(&w->lock);
    free(w);
}

static int watchdog_loaded(void *object, uint32_t version, struct mull_error *err)
{
    struct watchdog *w = object;
    w->preload[0] &= PRELOAD_MASK;
    w->preload[1] &= PRELOAD_MASK;
    if (w->stage > 2 || w->unlock > 2)
        return mull_fail(err, EINVAL, "%s: saved stage %u or lock %u", w->device.name, w->stage,
                         w->unlock);
    return 0;
}

static const struct mull_state_desc watchdog_desc = {
    .name = "i6300esb",
    .version = 1,
    .oldest = 1,
    .fields =
        (const struct mull_field[]){
            MULL_FIELD_NESTED(struct watchdog, function, &mull_pci_function_desc),
            MULL_FIELD(struct watchdog, unlock), MULL_FIELD(struct watchdog, stage),
            MULL_FIELD(struct watchdog, timeout), MULL_FIELD(struct watchdog, control),
            MULL_FIELD(struct watchdog, locked), MULL_FIELD_ARRAY(struct watchdog, preload),
            MULL_FIELD(struct watchdog, expires), MULL_FIELDS_END},
    .after_load = watchdog_loaded,
};

static const struct mull_device_ops watchdog_ops = {
    .state = &watchdog_desc,
    .reset = watchdog_reset,
    .quiesce = watchdog_quiesce,
    .resume = watchdog_resume,
    .destroy = watchdog_destroy,
};

int mull_i6300esb_create(const struct mull_device_env *env, struct mull_pci_bus *bus,
                         const struct mull_watchdog_config *cfg, struct mull_device **out,
                         struct mull_error *err)
{
    struct watchdog *w = calloc(1, sizeof(*w));
    if (!w)
        return mull_fail(err, ENOMEM, "%s: out of memory", cfg->name);
    w->device.ops = &watchdog_ops;
    w->device.object = w;
    snprintf(w->device.name, sizeof(w->device.name), "%s", cfg->name);
    w->env = *env;
    w->config = *cfg;
    w->config.name = w->device.name;
    pthread_mutex_init(&w->lock, NULL);
    mull_pci_function_init(&w->function, &function_ops, VENDOR, DEVICE, VENDOR, DEVICE, CLASS, 0);
    memset(w->function.wmask + CONFIG, 0xff, 2);
    w->function.wmask[LOCK] = LOCK_LOCKED | LOCK_ENABLE | LOCK_FREE_RUN;
    w->timer = mull_timer_create(env->loop, timer_fired, w);
    int ret = w->timer ? 0 : mull_fail(err, ENOMEM, "%s: out of memory", cfg->name);
    if (!ret) {
        registers_reset(w);
        ret = mull_pci_add_bar(&w->function, 0, BAR_SIZE, false, false, false, &bar_ops, w,
                               w->device.name, env->memory, err);
    }
    if (!ret)
        ret = mull_pci_bus_attach(bus, &w->function, cfg->devfn, err);
    if (ret) {
        watchdog_destroy(&w->device);
        return ret;
    }
    *out = &w->device;
    return 0;
}
