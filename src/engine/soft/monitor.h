/*
 * MONITOR and MWAIT: a vCPU that waits for a store to a line of memory (monitor.c).
 */
#ifndef MULL_SOFT_MONITOR_H
#define MULL_SOFT_MONITOR_H

#include "engine/soft/soft.h"

/** CPUID leaf 5: the size of a line, and that MWAIT can be told to wake up by masked interrupts;
 *  one state, C1. */
#define SOFT_MONITOR_LINE 64u
#define SOFT_MONITOR_ECX 3u
#define SOFT_MONITOR_EDX 0x10u

enum soft_result soft_sys_monitor(struct soft_cpu *cpu, const struct soft_insn *in);
enum soft_result soft_sys_mwait(struct soft_cpu *cpu, const struct soft_insn *in);

/** MWAIT has polled in vain (cpu->monitor.waiting): sleep until the line is written, a signal
 * comes, or some time has passed, which ends MWAIT. The vCPU is outside of translated code. */
void soft_monitor_sleep(struct soft_cpu *cpu);

/** Nothing is monitored, nothing waited for. */
void soft_monitor_reset(struct soft_cpu *cpu);

/** Does a vCPU sleep on a line of the page of @gpa? Then the page stays watched. cache->lock held.
 */
bool soft_monitor_watches(const struct soft_vm *vm, uint64_t gpa);

/** [gpa, gpa + len), inside one page, was written: wake who sleeps on that. cache->lock held. */
void soft_monitor_written(struct soft_vm *vm, uint64_t gpa, uint64_t len);

#endif
