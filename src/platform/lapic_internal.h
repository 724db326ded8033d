/*
 * What lapic.c and lapic_timer.c share: one local APIC and its register numbers. Nobody else
 * includes this.
 */
#ifndef MULL_PLATFORM_LAPIC_INTERNAL_H
#define MULL_PLATFORM_LAPIC_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "platform/lapic.h"

/* Register offsets in the xAPIC page (SDM volume 3, table 10-1); the x2APIC MSR is 800h +
 * offset/16. */
#define REG_ID 0x20u
#define REG_VERSION 0x30u
#define REG_TPR 0x80u
#define REG_APR 0x90u
#define REG_PPR 0xa0u
#define REG_EOI 0xb0u
#define REG_RRD 0xc0u
#define REG_LDR 0xd0u
#define REG_DFR 0xe0u
#define REG_SVR 0xf0u
#define REG_ISR 0x100u
#define REG_TMR 0x180u
#define REG_IRR 0x200u
#define REG_ESR 0x280u
#define REG_ICR 0x300u
#define REG_ICR_HIGH 0x310u
#define REG_LVT_TIMER 0x320u
#define REG_LVT_ERROR 0x370u
#define REG_TIMER_INITIAL 0x380u
#define REG_TIMER_CURRENT 0x390u
#define REG_TIMER_DIVIDE 0x3e0u
#define REG_SELF_IPI 0x3f0u

#define MSR_APIC_BASE 0x1bu
#define MSR_TSC_DEADLINE 0x6e0u
#define MSR_X2APIC 0x800u

#define BASE_BSP 0x100ull
#define BASE_X2APIC 0x400ull
#define BASE_ENABLE 0x800ull
#define BASE_ADDRESS 0x000ffffffffff000ull

#define SVR_ENABLE 0x100u

#define ICR_LOGICAL 0x800u
#define ICR_ASSERT 0x4000u
#define ICR_LEVEL 0x8000u
#define ICR_WRITABLE 0x000ccfffu

#define LDR_X2APIC(id) (((id) >> 4 << 16) | 1u << ((id)&15))

enum { LVT_TIMER, LVT_THERMAL, LVT_PERF, LVT_LINT0, LVT_LINT1, LVT_ERROR, LVT_COUNT };
#define LVT_MODE 0x700u
#define LVT_MODE_EXTINT 0x700u
#define LVT_LEVEL 0x8000u
#define LVT_MASKED 0x10000u
#define LVT_TIMER_MODE 0x60000u
#define LVT_TIMER_PERIODIC 0x20000u
#define LVT_TIMER_DEADLINE 0x40000u

enum lapic_mode {
    MODE_FIXED,
    MODE_LOWEST,
    MODE_SMI,
    MODE_RESERVED,
    MODE_NMI,
    MODE_INIT,
    MODE_SIPI,
    MODE_EXTINT,
};

struct lapic {
    /* What senders and the question "is there an interrupt?" touch, on lines of its own. */
    _Alignas(64) _Atomic uint64_t irr[4];
    _Atomic uint64_t isr[4], tmr[4];
    _Atomic uint32_t tpr, ppr, svr, ldr, dfr;
    _Atomic bool takes_extint;   /* interrupts of the 8259A come here */
    _Atomic bool extint_message; /* one did, as a message */
    _Atomic uint32_t lvt[LVT_COUNT];
    _Atomic uint64_t base; /* MSR 1Bh */
    _Atomic uint64_t icr;
    _Atomic uint32_t esr, esr_new;

    struct mull_lapics *set;
    unsigned index;

    /* The timer: the vCPU's thread programs it, the loop's thread fires it. */
    pthread_mutex_t timer_lock;
    struct mull_timer *timer;
    bool timer_armed;
    uint32_t timer_initial, timer_divide;
    uint64_t timer_due;    /* guest ns; while armed, not in deadline mode */
    uint64_t tsc_deadline; /* the clock's TSC; while armed, in deadline mode */
    uint64_t tsc_offset;
};

struct mull_lapics {
    struct mull_lapics_config config;
    struct mull_region *region;
    _Atomic unsigned turn; /* for lowest-priority arbitration */
    struct lapic lapic[];
};

/** Deliver an LVT entry's interrupt (lapic.c). Any thread. */
void lapic_local(struct lapic *l, unsigned entry);

/* The timer (lapic_timer.c). */
int lapic_timer_init(struct lapic *l);
void lapic_timer_fini(struct lapic *l);
void lapic_timer_reset(struct lapic *l);
/** A write to the LVT's timer entry: stores it, and stops the timer on a change to or from
 *  TSC-deadline mode. */
void lapic_timer_lvt(struct lapic *l, uint32_t value);
uint32_t lapic_timer_initial(struct lapic *l);
uint32_t lapic_timer_current(struct lapic *l);
void lapic_timer_start(struct lapic *l, uint32_t count);
void lapic_timer_set_divide(struct lapic *l, uint32_t value);
/** The guest's view: its own TSC; 0: not armed. */
uint64_t lapic_timer_deadline(struct lapic *l);
void lapic_timer_set_deadline(struct lapic *l, uint64_t tsc);
/** Restore; the LVT entry is set already. */
void lapic_timer_load(struct lapic *l, uint32_t divide, uint32_t initial, uint32_t current,
                      uint64_t deadline);
void lapic_timer_rearm(struct lapic *l);
/** Let it fire now if it is due, and not only when the loop comes to it. @return whether it is (still)
 *  armed. */
bool lapic_timer_catch_up(struct lapic *l);

#endif
