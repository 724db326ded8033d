/*
 * The KVM paravirtual interface for engines that do not have it from a kernel: kvmclock, wall clock
 * and steal time (Linux, Documentation/virt/kvm/x86/msr.rst). Knows guest memory and the clock.
 *
 * PV EOI is not offered here: it saves an exit, and writing the EOI register is none on the
 * software engine.
 */
#ifndef MULL_PLATFORM_KVMPV_H
#define MULL_PLATFORM_KVMPV_H

#include "engine/clock.h"
#include "engine/cpu_state.h"
#include "memory/memory.h"

/* CPUID 40000001h EAX: clock source (old and new MSRs), no I/O delay needed, steal time, and that
 * the clocks of all vCPUs agree. */
#define MULL_KVMPV_FEATURES (1u << 0 | 1u << 1 | 1u << 3 | 1u << 5 | 1u << 24)

struct mull_kvmpv;

int mull_kvmpv_create(struct mull_memory *memory, struct mull_clock *clock, unsigned cpus,
                      struct mull_kvmpv **out, struct mull_error *err);
void mull_kvmpv_destroy(struct mull_kvmpv *pv);

/** From the vCPU's own thread. @return 0; -1: not one of these MSRs, or not such a value. */
int mull_kvmpv_msr_read(struct mull_kvmpv *pv, unsigned cpu, uint32_t msr, uint64_t *value);
int mull_kvmpv_msr_write(struct mull_kvmpv *pv, unsigned cpu, uint32_t msr, uint64_t value);

/** The vCPU runs, or runs again after it did not: update its steal time now and then. From its own
 *  thread; cheap to call often. */
void mull_kvmpv_tick(struct mull_kvmpv *pv, unsigned cpu);

/** The vCPU's TSC is the clock's plus @offset. */
void mull_kvmpv_tsc_offset(struct mull_kvmpv *pv, unsigned cpu, uint64_t offset);

/** Power-on or INIT: switch everything off. */
void mull_kvmpv_reset(struct mull_kvmpv *pv, unsigned cpu);

void mull_kvmpv_state_get(struct mull_kvmpv *pv, unsigned cpu, struct mull_cpu_state *s);
void mull_kvmpv_state_set(struct mull_kvmpv *pv, unsigned cpu, const struct mull_cpu_state *s);

/** The machine was paused and runs again: tell the guests' watchdogs. No vCPU runs yet. */
void mull_kvmpv_resume(struct mull_kvmpv *pv);

#endif
