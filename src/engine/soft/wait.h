/*
 * Waiting: how long a vCPU that has nothing to do looks for an event before it sleeps (wait.c).
 */
#ifndef MULL_SOFT_WAIT_H
#define MULL_SOFT_WAIT_H

#include "engine/soft/soft.h"

static inline uint64_t soft_host_tsc(void)
{
    uint32_t lo, hi;

    __asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi));
    return (uint64_t)hi << 32 | lo;
}

/** Begin a wait: it polls for as long as that was not in vain the last times. */
void soft_wait_begin(struct soft_cpu *cpu, struct soft_wait *wait);

/** Go on polling, with PAUSE; now and then others may have the CPU. Vectors may be live.
 *  @return false: it is time to sleep */
bool soft_wait_more(struct soft_cpu *cpu, struct soft_wait *wait);

/** What was waited for came at @when (of the host's TSC): poll longer or shorter the next time. */
void soft_wait_end(struct soft_cpu *cpu, const struct soft_wait *wait, uint64_t when);

/** Sleep until a signal comes, or something bumps `wake` (@seen: what it was before the caller
 * looked for that), or @ns have passed (0: no limit). Parks the vectors. */
void soft_wait_sleep(struct soft_cpu *cpu, uint32_t seen, uint64_t ns);

/** HLT, wait-for-SIPI: until a signal comes. */
void soft_wait_for_signal(struct soft_cpu *cpu);

/** Wake a vCPU out of soft_wait_sleep(). Any thread. */
void soft_wait_wake(struct soft_cpu *cpu);

#endif
