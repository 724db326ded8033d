/*
 * Local APICs for engines without their own: xAPIC page, x2APIC MSRs, timers, inter-processor
 * interrupts and the decoding of message-signalled interrupts (Intel SDM volume 3, chapter "APIC").
 * Knows the clock and the loop; the engine, the 8259A and the I/O APIC only as callbacks.
 *
 * APIC IDs are vCPU indices. The vCPU's own thread makes all accesses to its local APIC; senders on
 * other threads touch only IRR and TMR, by atomic operations, and then signal the vCPU.
 */
#ifndef MULL_PLATFORM_LAPIC_H
#define MULL_PLATFORM_LAPIC_H

#include <stdint.h>

#include "base/log.h"
#include "base/loop.h"
#include "engine/engine.h"
#include "memory/memory.h"

/** The rate at which the local APIC timer counts before its divider. As in KVM. */
#define MULL_LAPIC_TIMER_HZ 1000000000u

struct mull_lapics;

struct mull_lapics_config {
    struct mull_memory *memory;
    struct mull_loop *loop;
    struct mull_clock *clock;
    unsigned cpus;
    void *opaque;
    /* Tell vCPU @cpu; any thread, also with locks held: must not call back. */
    void (*signal)(void *opaque, unsigned cpu, enum mull_signal signal, unsigned arg);
    /* A level-triggered vector has ended: for I/O APICs. */
    void (*eoi)(void *opaque, uint8_t vector);
    /* The vector the 8259A would give now, or -1: lock-free. */
    int (*extint_pending)(void *opaque);
    /* The 8259A's interrupt acknowledge: the vector, or -1. */
    int (*extint_accept)(void *opaque);
};

/** Create the local APICs and their MMIO page. */
int mull_lapics_create(const struct mull_lapics_config *config, struct mull_lapics **out,
                       struct mull_error *err);
void mull_lapics_destroy(struct mull_lapics *set);

/* For struct mull_engine_bus: see engine.h. From the vCPU's own thread. */
int mull_lapic_pending(struct mull_lapics *set, unsigned cpu);
int mull_lapic_accept(struct mull_lapics *set, unsigned cpu);
uint8_t mull_lapic_cr8(struct mull_lapics *set, unsigned cpu);
void mull_lapic_set_cr8(struct mull_lapics *set, unsigned cpu, uint8_t value);

/** MSRs 1Bh, 6E0h, 800h-8FFh. @return 0; -1: #GP. */
int mull_lapic_msr_read(struct mull_lapics *set, unsigned cpu, uint32_t msr, uint64_t *value);
int mull_lapic_msr_write(struct mull_lapics *set, unsigned cpu, uint32_t msr, uint64_t value);

/** The vCPU's TSC is the clock's TSC plus @offset: for TSC deadlines. */
void mull_lapic_tsc_offset(struct mull_lapics *set, unsigned cpu, uint64_t offset);

/** Power-on: as INIT, and the APIC base MSR too. The vCPU does not run. */
void mull_lapic_reset(struct mull_lapics *set, unsigned cpu);
/** INIT reached the vCPU (SDM volume 3, "Local APIC State After It Receives an INIT-Reset"). */
void mull_lapic_init(struct mull_lapics *set, unsigned cpu);

/** Canonical state in and out. A page without a version register (0x30) means power-on state. */
void mull_lapic_state_get(struct mull_lapics *set, unsigned cpu, struct mull_cpu_state *s);
void mull_lapic_state_set(struct mull_lapics *set, unsigned cpu, const struct mull_cpu_state *s);

/** The clock runs again after a pause: arm the timers anew. */
void mull_lapics_resume(struct mull_lapics *set);

/** Deliver a message-signalled interrupt. Any thread. */
void mull_lapics_msi(struct mull_lapics *set, uint64_t address, uint32_t data);

/** The 8259A's INTR line, which is LINT0 of every local APIC, changed. Any thread. */
void mull_lapics_lint0(struct mull_lapics *set, bool level);

/** Pulse LINT1 (NMI) of every local APIC. Any thread. */
void mull_lapics_lint1(struct mull_lapics *set);

#endif
