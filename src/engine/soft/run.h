/*
 * Running a vCPU: the handlers behind the ways out of translated code (glue.c calls them), and what
 * they share with the dispatcher.
 */
#ifndef MULL_SOFT_RUN_H
#define MULL_SOFT_RUN_H

#include "engine/soft/soft.h"

/* Each returns the host address where translated code goes on, or NULL: leave enter(). */
void *soft_on_miss(struct soft_cpu *cpu);
void *soft_on_exec(struct soft_cpu *cpu);
void *soft_on_jump(struct soft_cpu *cpu);
void *soft_on_chain(struct soft_cpu *cpu);
void *soft_on_poll(struct soft_cpu *cpu);
void *soft_on_fault(struct soft_cpu *cpu);

/** The dispatcher: see mull_engine.vcpu_run. */
void soft_run(struct soft_cpu *cpu, struct mull_exit *exit);

/** Bytes to allocate, zeroed, for cpu->private_run. */
size_t soft_run_state_size(void);

/** See mull_engine.vcpu_signal. */
void soft_signal(struct soft_cpu *cpu, enum mull_signal signal, unsigned arg);

/** Make what INIT, SIPI and NMI signals ask for part of the state, while the vCPU does not run. */
void soft_settle(struct soft_cpu *cpu);

/** Flags in the glue's form (lahf/seto) and back. */
void soft_flags_from_glue(struct soft_cpu *cpu);
void soft_flags_to_glue(struct soft_cpu *cpu);

#define SOFT_SIGNAL_STACK (64u << 10)

/** Before a thread runs translated code, and after: the process's fault handlers (installed once)
 *  find the thread's vCPU and its alternate stack, because translated code has the guest's RSP. */
int soft_fault_enter(struct soft_cpu *cpu, struct mull_error *err);
void soft_fault_leave(struct soft_cpu *cpu);

#endif
