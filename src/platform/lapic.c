/*
 * Local APICs: delivery, priorities, registers, inter-processor interrupts. The timer is in
 * lapic_timer.c. Section numbers are of the Intel SDM volume 3A (the chapter "Advanced Programmable
 * Interrupt Controller"). Knows no engine, 8259A or I/O APIC but through callbacks.
 */
#include "platform/lapic.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "platform/lapic_internal.h"
#include "platform/platform.h"

#define VERSION 0x00050014u /* integrated, six LVT entries, no EOI-broadcast suppression */

#define ESR_SEND_VECTOR 0x20u
#define ESR_RECEIVE_VECTOR 0x40u
#define ESR_REGISTER 0x80u

/* ---- Vectors ---- */

static int highest(const _Atomic uint64_t bits[4])
{
    for (int i = 3; i >= 0; i--) {
        uint64_t word = atomic_load_explicit(&bits[i], memory_order_acquire);
        if (word)
            return i * 64 + 63 - __builtin_clzll(word);
    }
    return -1;
}

static bool get_bit(const _Atomic uint64_t bits[4], unsigned vector)
{
    return atomic_load_explicit(&bits[vector / 64], memory_order_acquire) >> (vector % 64) & 1;
}

/* @return what the bit was. */
static bool set_bit(_Atomic uint64_t bits[4], unsigned vector)
{
    return atomic_fetch_or(&bits[vector / 64], 1ull << (vector % 64)) >> (vector % 64) & 1;
}

static void clear_bit(_Atomic uint64_t bits[4], unsigned vector)
{
    atomic_fetch_and(&bits[vector / 64], ~(1ull << (vector % 64)));
}

static struct lapic *get(struct mull_lapics *set, unsigned cpu)
{
    return &set->lapic[cpu < set->config.cpus ? cpu : 0];
}

static void signal_irq(struct lapic *l)
{
    l->set->config.signal(l->set->config.opaque, l->index, MULL_SIGNAL_IRQ, 0);
}

static bool hardware_enabled(const struct lapic *l)
{
    return l->base & BASE_ENABLE;
}

static bool x2apic(const struct lapic *l)
{
    return l->base & BASE_X2APIC;
}

/* Processor priority (10.8.3.1), cached because it is asked for at every interrupt window. */
static void update_ppr(struct lapic *l)
{
    uint32_t tpr = l->tpr;
    int in_service = highest(l->isr);

    if (in_service >= 0 && (uint32_t)in_service >> 4 > tpr >> 4)
        tpr = (uint32_t)in_service & 0xf0;
    l->ppr = tpr;
}

/* LINT0 passes the 8259A's interrupts if its LVT entry says ExtINT, or past a disabled APIC of the
 * boot processor (10.4.3). */
static void update_extint(struct lapic *l)
{
    uint32_t lvt = l->lvt[LVT_LINT0];

    if (!hardware_enabled(l))
        l->takes_extint = l->index == 0;
    else
        l->takes_extint = !(lvt & LVT_MASKED) && (lvt & LVT_MODE) == LVT_MODE_EXTINT;
}

static int pending_fixed(const struct lapic *l)
{
    int vector = highest(l->irr);

    return vector >= 0 && (uint32_t)vector >> 4 > l->ppr >> 4 ? vector : -1;
}

int mull_lapic_pending(struct mull_lapics *set, unsigned cpu)
{
    const struct lapic *l = get(set, cpu);

    if (l->takes_extint || l->extint_message) {
        int vector = set->config.extint_pending(set->config.opaque);
        if (vector >= 0)
            return vector;
    }
    return pending_fixed(l);
}

int mull_lapic_accept(struct mull_lapics *set, unsigned cpu)
{
    struct lapic *l = get(set, cpu);

    if ((l->takes_extint || l->extint_message) &&
        set->config.extint_pending(set->config.opaque) >= 0) {
        l->extint_message = false;
        int vector = set->config.extint_accept(set->config.opaque);
        if (vector >= 0)
            return vector;
    }
    int vector = pending_fixed(l);
    if (vector < 0)
        return -1;
    clear_bit(l->irr, (unsigned)vector);
    set_bit(l->isr, (unsigned)vector);
    update_ppr(l);
    return vector;
}

/* The own vCPU has lowered its priority: make it look for what had to wait. */
static void recheck(struct lapic *l)
{
    if (pending_fixed(l) >= 0)
        signal_irq(l);
}

static void write_tpr(struct lapic *l, uint32_t value)
{
    l->tpr = value & 0xff;
    update_ppr(l);
    recheck(l);
}

uint8_t mull_lapic_cr8(struct mull_lapics *set, unsigned cpu)
{
    return (uint8_t)(get(set, cpu)->tpr >> 4);
}

void mull_lapic_set_cr8(struct mull_lapics *set, unsigned cpu, uint8_t value)
{
    write_tpr(get(set, cpu), (uint32_t)(value & 15) << 4);
}

static void end_of_interrupt(struct lapic *l)
{
    int vector = highest(l->isr);

    if (vector < 0)
        return;
    clear_bit(l->isr, (unsigned)vector);
    update_ppr(l);
    if (get_bit(l->tmr, (unsigned)vector))
        l->set->config.eoi(l->set->config.opaque, (uint8_t)vector);
    recheck(l);
}

/* ---- Delivery ---- */

static void error(struct lapic *l, uint32_t bit)
{
    /* The error interrupt is only for errors that are new since the guest last wrote ESR, so an LVT
     * entry with an illegal vector cannot recurse. */
    if (!(atomic_fetch_or(&l->esr_new, bit) & bit))
        lapic_local(l, LVT_ERROR);
}

static void accept_fixed(struct lapic *l, unsigned vector, bool level)
{
    if (!(l->svr & SVR_ENABLE))
        return;
    if (vector < 16) {
        error(l, ESR_RECEIVE_VECTOR);
        return;
    }
    if (level)
        set_bit(l->tmr, vector);
    else if (get_bit(l->tmr, vector))
        clear_bit(l->tmr, vector);
    if (!set_bit(l->irr, vector))
        signal_irq(l);
}

static void accept_message(struct lapic *l, enum lapic_mode mode, unsigned vector, bool level)
{
    const struct mull_lapics_config *c = &l->set->config;

    if (!hardware_enabled(l))
        return;
    switch (mode) {
    case MODE_FIXED:
    case MODE_LOWEST:
        accept_fixed(l, vector, level);
        break;
    case MODE_NMI:
        c->signal(c->opaque, l->index, MULL_SIGNAL_NMI, 0);
        break;
    case MODE_INIT:
        c->signal(c->opaque, l->index, MULL_SIGNAL_INIT, 0);
        break;
    case MODE_SIPI:
        c->signal(c->opaque, l->index, MULL_SIGNAL_SIPI, vector);
        break;
    case MODE_EXTINT:
        l->extint_message = true;
        signal_irq(l);
        break;
    case MODE_SMI: /* no system-management mode */
    case MODE_RESERVED:
        break;
    }
}

void lapic_local(struct lapic *l, unsigned entry)
{
    uint32_t lvt = l->lvt[entry];

    if (!hardware_enabled(l) || (lvt & LVT_MASKED))
        return;
    /* 10.5.1: the timer and the error entry are always fixed; NMI and ExtINT make sense for the
     * rest, INIT for the pins. */
    enum lapic_mode mode = entry == LVT_TIMER || entry == LVT_ERROR
                               ? MODE_FIXED
                               : (enum lapic_mode)((lvt & LVT_MODE) >> 8);
    bool level = entry == LVT_LINT0 && mode == MODE_FIXED && (lvt & LVT_LEVEL);
    if (mode == MODE_EXTINT)
        signal_irq(l); /* update_extint() has arranged the rest */
    else
        accept_message(l, mode, lvt & 0xff, level);
}

void mull_lapics_lint0(struct mull_lapics *set, bool level)
{
    if (!level)
        return;
    for (unsigned i = 0; i < set->config.cpus; i++) {
        struct lapic *l = &set->lapic[i];
        if (l->takes_extint)
            signal_irq(l);
        else
            lapic_local(l, LVT_LINT0);
    }
}

void mull_lapics_lint1(struct mull_lapics *set)
{
    for (unsigned i = 0; i < set->config.cpus; i++)
        lapic_local(&set->lapic[i], LVT_LINT1);
}

static bool matches_logical(const struct lapic *l, uint32_t destination)
{
    uint32_t ldr = l->ldr;

    if (x2apic(l)) /* 10.12.10.2: cluster in the high half, one bit a member in the low half */
        return ldr >> 16 == destination >> 16 && (ldr & destination & 0xffff);
    ldr >>= 24;
    if (l->dfr >> 28 == 0xf) /* flat model, 10.6.2.2 */
        return ldr & destination;
    return ldr >> 4 == destination >> 4 && (ldr & destination & 15);
}

static uint64_t all_cpus(const struct mull_lapics *set)
{
    return set->config.cpus == 64 ? ~0ull : (1ull << set->config.cpus) - 1;
}

/* The vCPUs that a destination names. @wide: 32 bits, from an x2APIC. */
static uint64_t destinations(const struct mull_lapics *set, uint32_t destination, bool wide,
                             bool logical)
{
    if (destination == (wide ? 0xffffffffu : 0xffu))
        return all_cpus(set);
    if (!logical)
        return destination < set->config.cpus ? 1ull << destination : 0;
    uint64_t mask = 0;
    for (unsigned i = 0; i < set->config.cpus; i++)
        if (matches_logical(&set->lapic[i], destination))
            mask |= 1ull << i;
    return mask;
}

/* Lowest-priority arbitration (10.6.2.4): the least processor priority; among equals in turn. */
static uint64_t arbitrate(struct mull_lapics *set, uint64_t mask)
{
    unsigned turn = atomic_fetch_add_explicit(&set->turn, 1, memory_order_relaxed);
    unsigned best = MULL_MAX_CPUS;

    for (unsigned n = 0; n < set->config.cpus; n++) {
        unsigned i = (turn + n) % set->config.cpus;
        const struct lapic *l = &set->lapic[i];
        if (!(mask >> i & 1) || !hardware_enabled(l) || !(l->svr & SVR_ENABLE))
            continue;
        if (best == MULL_MAX_CPUS || l->ppr >> 4 < set->lapic[best].ppr >> 4)
            best = i;
    }
    return best == MULL_MAX_CPUS ? 0 : 1ull << best;
}

static void deliver(struct mull_lapics *set, uint64_t mask, enum lapic_mode mode, unsigned vector,
                    bool level)
{
    if (mode == MODE_LOWEST && (mask & (mask - 1)))
        mask = arbitrate(set, mask);
    for (; mask; mask &= mask - 1)
        accept_message(&set->lapic[__builtin_ctzll(mask)], mode, vector, level);
}

/* Message address and data formats: 10.11.1 and 10.11.2. */
void mull_lapics_msi(struct mull_lapics *set, uint64_t address, uint32_t data)
{
    enum lapic_mode mode = (enum lapic_mode)(data >> 8 & 7);
    bool logical = address & 4;
    bool level = data & 0x8000;

    if (address >> 20 != MULL_LAPIC_BASE >> 20 || (level && !(data & 0x4000)))
        return;
    if (mode == MODE_FIXED && logical && (address & 8))
        mode = MODE_LOWEST; /* redirection hint */
    deliver(set, destinations(set, address >> 12 & 0xff, false, logical), mode, data & 0xff, level);
}

/* Interrupt command register, 10.6.1. */
static void send_ipi(struct lapic *l, uint32_t low, uint32_t destination)
{
    struct mull_lapics *set = l->set;
    enum lapic_mode mode = (enum lapic_mode)(low >> 8 & 7);
    uint64_t self = 1ull << l->index, mask;

    switch (low >> 18 & 3) {
    case 0:
        mask = destinations(set, destination, x2apic(l), low & ICR_LOGICAL);
        break;
    case 1:
        mask = self;
        break;
    case 2:
        mask = all_cpus(set);
        break;
    default:
        mask = all_cpus(set) & ~self;
    }
    if ((mode == MODE_FIXED || mode == MODE_LOWEST) && (low & 0xff) < 16) {
        error(l, ESR_SEND_VECTOR);
        return;
    }
    /* INIT level de-assert only synchronized arbitration IDs on buses of old. */
    if (mode == MODE_INIT && (low & ICR_LEVEL) && !(low & ICR_ASSERT))
        return;
    if (mode == MODE_EXTINT)
        return; /* not to be sent by an ICR */
    deliver(set, mask, mode, low & 0xff, false);
}

/* ---- Registers ---- */

static uint32_t read_vector_register(const _Atomic uint64_t bits[4], unsigned offset)
{
    unsigned word = offset >> 4 & 7;
    return (uint32_t)(atomic_load(&bits[word / 2]) >> (word % 2 * 32));
}

static int lvt_entry(unsigned offset)
{
    return offset >= REG_LVT_TIMER && offset <= REG_LVT_ERROR ? (int)(offset - REG_LVT_TIMER) >> 4
                                                              : -1;
}

static uint32_t id_register(const struct lapic *l)
{
    return x2apic(l) ? l->index : l->index << 24;
}

/* One register by its offset in the xAPIC page. @return false: there is none. */
static bool read_register(struct lapic *l, unsigned offset, uint32_t *value)
{
    int entry = lvt_entry(offset);

    *value = 0;
    if (offset >= REG_ISR && offset < REG_ISR + 0x80)
        *value = read_vector_register(l->isr, offset);
    else if (offset >= REG_TMR && offset < REG_TMR + 0x80)
        *value = read_vector_register(l->tmr, offset);
    else if (offset >= REG_IRR && offset < REG_IRR + 0x80)
        *value = read_vector_register(l->irr, offset);
    else if (entry >= 0)
        *value = l->lvt[entry];
    else
        switch (offset) {
        case REG_ID:
            *value = id_register(l);
            break;
        case REG_VERSION:
            *value = VERSION;
            break;
        case REG_TPR:
            *value = l->tpr;
            break;
        case REG_APR: /* arbitration priority: not on these processors; reads as zero */
        case REG_EOI:
        case REG_RRD:
            break;
        case REG_PPR:
            *value = l->ppr;
            break;
        case REG_LDR:
            *value = l->ldr;
            break;
        case REG_DFR:
            *value = l->dfr;
            break;
        case REG_SVR:
            *value = l->svr;
            break;
        case REG_ESR:
            *value = l->esr;
            break;
        case REG_ICR:
            *value = (uint32_t)l->icr;
            break;
        case REG_ICR_HIGH:
            *value = (uint32_t)(l->icr >> 32);
            break;
        case REG_TIMER_INITIAL:
            *value = lapic_timer_initial(l);
            break;
        case REG_TIMER_CURRENT:
            *value = lapic_timer_current(l);
            break;
        case REG_TIMER_DIVIDE:
            *value = l->timer_divide;
            break;
        default:
            return false;
        }
    return true;
}

static const uint32_t lvt_writable[LVT_COUNT] = {
    [LVT_TIMER] = 0x700ff, [LVT_THERMAL] = 0x107ff, [LVT_PERF] = 0x107ff,
    [LVT_LINT0] = 0x1a7ff, [LVT_LINT1] = 0x1a7ff,   [LVT_ERROR] = 0x100ff,
};

static void write_lvt(struct lapic *l, unsigned entry, uint32_t value)
{
    value &= lvt_writable[entry];
    if (!(l->svr & SVR_ENABLE))
        value |= LVT_MASKED; /* 10.4.7.2 */
    if (entry == LVT_TIMER)
        lapic_timer_lvt(l, value);
    else
        l->lvt[entry] = value;
    if (entry == LVT_LINT0) {
        update_extint(l);
        if (l->takes_extint)
            signal_irq(l);
    }
}

static void write_svr(struct lapic *l, uint32_t value)
{
    l->svr = value & 0x3ff;
    if (!(value & SVR_ENABLE))
        for (unsigned i = 0; i < LVT_COUNT; i++)
            write_lvt(l, i, l->lvt[i]);
}

/* @return false: there is no such register to write. */
static bool write_register(struct lapic *l, unsigned offset, uint32_t value)
{
    int entry = lvt_entry(offset);

    if (entry >= 0) {
        write_lvt(l, (unsigned)entry, value);
        return true;
    }
    switch (offset) {
    case REG_ID: /* fixed, as on current processors */
    case REG_VERSION:
    case REG_PPR:
        break;
    case REG_TPR:
        write_tpr(l, value);
        break;
    case REG_EOI:
        end_of_interrupt(l);
        break;
    case REG_LDR:
        l->ldr = value & 0xff000000;
        break;
    case REG_DFR:
        l->dfr = value | 0x0fffffff;
        break;
    case REG_SVR:
        write_svr(l, value);
        break;
    case REG_ESR: /* 10.5.3: a write shows what came up since the last one */
        l->esr = atomic_exchange(&l->esr_new, 0);
        break;
    case REG_ICR:
        l->icr = (l->icr & 0xffffffff00000000) | (value & ICR_WRITABLE);
        send_ipi(l, value, (uint32_t)(l->icr >> 56));
        break;
    case REG_ICR_HIGH:
        l->icr = (uint32_t)l->icr | (uint64_t)(value & 0xff000000) << 32;
        break;
    case REG_TIMER_INITIAL:
        lapic_timer_start(l, value);
        break;
    case REG_TIMER_DIVIDE:
        lapic_timer_set_divide(l, value & 11);
        break;
    default:
        return false;
    }
    return true;
}

/* The page at FEE00000h: each vCPU sees its own APIC. */
static uint64_t mmio_read(void *opaque, unsigned cpu, uint64_t offset, unsigned size)
{
    struct mull_lapics *set = opaque;
    uint32_t value;

    if (cpu >= set->config.cpus)
        return ~0ull;
    struct lapic *l = &set->lapic[cpu];
    if (!hardware_enabled(l) || x2apic(l))
        return ~0ull;
    if ((offset & 15) >= 4)
        return 0;
    if (!read_register(l, (unsigned)offset & 0xff0, &value))
        error(l, ESR_REGISTER);
    return value >> (offset & 3) * 8;
}

static void mmio_write(void *opaque, unsigned cpu, uint64_t offset, unsigned size, uint64_t value)
{
    struct mull_lapics *set = opaque;

    if (cpu >= set->config.cpus || (offset & 15) || size != 4)
        return;
    struct lapic *l = &set->lapic[cpu];
    if (!hardware_enabled(l) || x2apic(l))
        return;
    if (!write_register(l, (unsigned)offset, (uint32_t)value))
        error(l, ESR_REGISTER);
}

static const struct mull_region_ops mmio_ops = {
    .read = mmio_read,
    .write = mmio_write,
    .min_size = 4,
    .max_size = 4,
};

/* ---- MSRs ---- */

/* Allowed: disabled <-> xAPIC -> x2APIC -> disabled (figure 10-27). */
static int write_base(struct lapic *l, uint64_t value)
{
    uint64_t mode = value & (BASE_ENABLE | BASE_X2APIC);
    uint64_t now = l->base & (BASE_ENABLE | BASE_X2APIC);

    if ((value & BASE_ADDRESS) != MULL_LAPIC_BASE ||
        (value & ~(BASE_ADDRESS | BASE_BSP | BASE_ENABLE | BASE_X2APIC)))
        return -1; /* the page does not move */
    if (mode == now)
        return 0;
    if (mode == BASE_X2APIC || (mode == (BASE_ENABLE | BASE_X2APIC) && now == 0) ||
        (mode == BASE_ENABLE && now == (BASE_ENABLE | BASE_X2APIC)))
        return -1;
    if (mode == 0) {
        l->base = l->base & ~(BASE_ENABLE | BASE_X2APIC);
        mull_lapic_init(l->set, l->index);
    } else {
        l->base = (l->base & ~(BASE_ENABLE | BASE_X2APIC)) | mode;
        if (mode & BASE_X2APIC) {
            l->ldr = LDR_X2APIC(l->index);
            l->icr = (uint32_t)l->icr;
        }
    }
    update_extint(l);
    return 0;
}

int mull_lapic_msr_read(struct mull_lapics *set, unsigned cpu, uint32_t msr, uint64_t *value)
{
    struct lapic *l = get(set, cpu);
    uint32_t low;

    *value = 0;
    if (msr == MSR_APIC_BASE) {
        *value = l->base;
        return 0;
    }
    if (msr == MSR_TSC_DEADLINE) {
        *value = lapic_timer_deadline(l);
        return 0;
    }
    if (msr < MSR_X2APIC || msr > MSR_X2APIC + 0xff || !x2apic(l))
        return -1;
    unsigned offset = (msr - MSR_X2APIC) << 4;
    if (offset == REG_ICR) {
        *value = l->icr;
        return 0;
    }
    /* Table 10-6: these are write-only or not there. */
    if (offset == REG_EOI || offset == REG_SELF_IPI || offset == REG_DFR ||
        offset == REG_ICR_HIGH || offset == REG_APR || offset == REG_RRD ||
        !read_register(l, offset, &low))
        return -1;
    *value = low;
    return 0;
}

static int write_x2apic(struct lapic *l, unsigned offset, uint64_t value)
{
    int entry = lvt_entry(offset);
    uint32_t writable;

    if (entry >= 0) {
        writable = lvt_writable[entry] | (entry != LVT_TIMER ? 0x5000u : 0x1000u);
    } else {
        switch (offset) {
        case REG_TPR:
        case REG_SELF_IPI:
            writable = 0xff;
            break;
        case REG_EOI:
        case REG_ESR:
            writable = 0;
            break;
        case REG_SVR:
            writable = 0x3ff;
            break;
        case REG_TIMER_INITIAL:
            writable = 0xffffffff;
            break;
        case REG_TIMER_DIVIDE:
            writable = 11;
            break;
        case REG_ICR:
            if (value & 0xffffffff & ~(uint64_t)(ICR_WRITABLE | 0x1000))
                return -1;
            l->icr = value & (0xffffffff00000000 | ICR_WRITABLE);
            send_ipi(l, (uint32_t)value, (uint32_t)(value >> 32));
            return 0;
        default:
            return -1;
        }
    }
    if (value & ~(uint64_t)writable)
        return -1;
    if (offset == REG_SELF_IPI) {
        if (value < 16)
            error(l, ESR_SEND_VECTOR);
        else
            accept_fixed(l, (unsigned)value, false);
        return 0;
    }
    return write_register(l, offset, (uint32_t)value) ? 0 : -1;
}

int mull_lapic_msr_write(struct mull_lapics *set, unsigned cpu, uint32_t msr, uint64_t value)
{
    struct lapic *l = get(set, cpu);

    if (msr == MSR_APIC_BASE)
        return write_base(l, value);
    if (msr == MSR_TSC_DEADLINE) {
        lapic_timer_set_deadline(l, value);
        return 0;
    }
    if (msr < MSR_X2APIC || msr > MSR_X2APIC + 0xff || !x2apic(l))
        return -1;
    return write_x2apic(l, (msr - MSR_X2APIC) << 4, value);
}

/* ---- Reset and state ---- */

void mull_lapic_init(struct mull_lapics *set, unsigned cpu)
{
    struct lapic *l = get(set, cpu);

    for (unsigned i = 0; i < 4; i++) {
        l->irr[i] = 0;
        l->isr[i] = 0;
        l->tmr[i] = 0;
    }
    l->tpr = 0;
    l->svr = 0xff;
    l->ldr = x2apic(l) ? LDR_X2APIC(l->index) : 0;
    l->dfr = 0xffffffff;
    l->esr = 0;
    l->esr_new = 0;
    l->icr = 0;
    l->extint_message = false;
    lapic_timer_reset(l);
    for (unsigned i = 0; i < LVT_COUNT; i++)
        l->lvt[i] = LVT_MASKED;
    /* What firmware does on the boot processor: pass the 8259A through ("virtual wire"). */
    if (l->index == 0)
        l->lvt[LVT_LINT0] = LVT_MODE_EXTINT;
    update_extint(l);
    update_ppr(l);
}

void mull_lapic_reset(struct mull_lapics *set, unsigned cpu)
{
    struct lapic *l = get(set, cpu);

    l->base = MULL_LAPIC_BASE | BASE_ENABLE | (cpu == 0 ? BASE_BSP : 0);
    mull_lapic_init(set, cpu);
}

static void put_word(uint8_t *page, unsigned offset, uint32_t value)
{
    memcpy(page + offset, &value, 4);
}

static uint32_t get_word(const uint8_t *page, unsigned offset)
{
    uint32_t value;
    memcpy(&value, page + offset, 4);
    return value;
}

void mull_lapic_state_get(struct mull_lapics *set, unsigned cpu, struct mull_cpu_state *s)
{
    struct lapic *l = get(set, cpu);
    uint32_t value;

    bool armed;

    /* The timer may fire while the registers are read: then once more, so that it is seen either
     * counting or as an interrupt. */
    do {
        armed = lapic_timer_catch_up(l);
        memset(s->lapic, 0, sizeof(s->lapic));
        for (unsigned offset = 0; offset < MULL_LAPIC_SIZE; offset += 16)
            if (read_register(l, offset, &value))
                put_word(s->lapic, offset, value);
        s->tsc_deadline = lapic_timer_deadline(l);
    } while (armed && !lapic_timer_catch_up(l));
    s->apic_base = l->base;
    s->cr8 = l->tpr >> 4;
}

void mull_lapic_state_set(struct mull_lapics *set, unsigned cpu, const struct mull_cpu_state *s)
{
    struct lapic *l = get(set, cpu);

    mull_lapic_reset(set, cpu);
    mull_lapic_tsc_offset(set, cpu, s->tsc_offset);
    if (!get_word(s->lapic, REG_VERSION))
        return;
    uint64_t mode = s->apic_base & (BASE_ENABLE | BASE_X2APIC);
    if (mode == BASE_X2APIC) /* not a mode */
        mode = 0;
    l->base = MULL_LAPIC_BASE | (l->index == 0 ? BASE_BSP : 0) | mode;
    for (unsigned i = 0; i < 8; i++) {
        unsigned shift = i % 2 * 32;
        uint64_t legal = i == 0 ? 0xffff0000u : 0xffffffffu; /* no vectors below 16 */
        l->isr[i / 2] |= (get_word(s->lapic, REG_ISR + i * 16) & legal) << shift;
        l->tmr[i / 2] |= (get_word(s->lapic, REG_TMR + i * 16) & legal) << shift;
        l->irr[i / 2] |= (get_word(s->lapic, REG_IRR + i * 16) & legal) << shift;
    }
    l->tpr = get_word(s->lapic, REG_TPR) & 0xff;
    l->svr = get_word(s->lapic, REG_SVR) & 0x3ff;
    l->ldr = x2apic(l) ? LDR_X2APIC(l->index) : get_word(s->lapic, REG_LDR) & 0xff000000;
    l->dfr = get_word(s->lapic, REG_DFR) | 0x0fffffff;
    l->esr = get_word(s->lapic, REG_ESR);
    l->icr = (get_word(s->lapic, REG_ICR) & ICR_WRITABLE) |
             (uint64_t)get_word(s->lapic, REG_ICR_HIGH) << 32;
    for (unsigned i = 0; i < LVT_COUNT; i++)
        l->lvt[i] = get_word(s->lapic, REG_LVT_TIMER + i * 16) & lvt_writable[i];
    lapic_timer_load(l, get_word(s->lapic, REG_TIMER_DIVIDE) & 11,
                     get_word(s->lapic, REG_TIMER_INITIAL), get_word(s->lapic, REG_TIMER_CURRENT),
                     s->tsc_deadline);
    update_extint(l);
    update_ppr(l);
    signal_irq(l);
}

void mull_lapics_resume(struct mull_lapics *set)
{
    for (unsigned i = 0; i < set->config.cpus; i++)
        lapic_timer_rearm(&set->lapic[i]);
}

void mull_lapics_destroy(struct mull_lapics *set)
{
    if (!set)
        return;
    if (set->region)
        mull_region_remove(set->region);
    for (unsigned i = 0; i < set->config.cpus; i++)
        lapic_timer_fini(&set->lapic[i]);
    free(set);
}

int mull_lapics_create(const struct mull_lapics_config *config, struct mull_lapics **out,
                       struct mull_error *err)
{
    *out = NULL;
    if (config->cpus < 1 || config->cpus > MULL_MAX_CPUS)
        return mull_fail(err, EINVAL, "local APIC: %u vCPUs; 1 to %u are possible", config->cpus,
                         MULL_MAX_CPUS);
    size_t size = sizeof(struct mull_lapics) + config->cpus * sizeof(struct lapic);
    struct mull_lapics *set = aligned_alloc(64, (size + 63) & ~(size_t)63);
    if (!set)
        return mull_fail(err, ENOMEM, "local APIC: no memory");
    memset(set, 0, size);
    set->config = *config;
    int code = 0;
    for (unsigned i = 0; i < config->cpus && code == 0; i++) {
        set->lapic[i].set = set;
        set->lapic[i].index = i;
        code = lapic_timer_init(&set->lapic[i]);
        if (code == 0)
            mull_lapic_reset(set, i);
    }
    if (code < 0)
        code = mull_fail(err, -code, "local APIC: no memory for timers");
    else
        code = mull_region_add(config->memory, MULL_SPACE_MMIO, MULL_LAPIC_BASE, 4096, &mmio_ops,
                               set, "local APIC", &set->region, err);
    if (code < 0) {
        mull_lapics_destroy(set);
        return code;
    }
    *out = set;
    return 0;
}
