/*
 * The machine's one source of time. Everything a guest can tell time by (TSC, kvmclock, HPET, PM
 * timer, PIT, RTC, LAPIC timer) is computed from the host's TSC through this clock, so that all of
 * them agree exactly; it stops while the machine is paused. Knows nothing of devices.
 */
#ifndef MULL_ENGINE_CLOCK_H
#define MULL_ENGINE_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct mull_clock;

/** Create a clock at 0 ns, running. Measures the host's TSC frequency (a few ms) unless the host
 *  tells it. Fails (-ENOTSUP) where the host's TSC is not invariant. */
int mull_clock_create(struct mull_clock **out, struct mull_error *err);
void mull_clock_destroy(struct mull_clock *clock);

/** The guest TSC's frequency in Hz: the host's. */
uint64_t mull_clock_tsc_hz(const struct mull_clock *clock);

/** Guest TSC before a vCPU's own tsc_offset: host TSC + mull_clock_tsc_offset(). */
uint64_t mull_clock_tsc(const struct mull_clock *clock);

/** What to add to the host's TSC; changes only across pause and resume. */
int64_t mull_clock_tsc_offset(const struct mull_clock *clock);

/** Guest nanoseconds since power-on (the time base of every guest timer). */
uint64_t mull_clock_now(const struct mull_clock *clock);

/** The mull_now_ns() time at which the guest clock will show @guest_ns: for arming loop timers.
 *  Saturates; a moment in the past gives a time in the past. */
uint64_t mull_clock_deadline(const struct mull_clock *clock, uint64_t guest_ns);

/** Guest TSC value to guest nanoseconds and back. */
uint64_t mull_clock_tsc_to_ns(const struct mull_clock *clock, uint64_t tsc);
uint64_t mull_clock_ns_to_tsc(const struct mull_clock *clock, uint64_t ns);

/** The multiplier and shift that give ns = (tsc * mul) >> 32 after shifting by @shift, in the
 *  form of pvclock_vcpu_time_info (Documentation/virt/kvm/x86/msr.rst). */
void mull_clock_pvclock(const struct mull_clock *clock, uint32_t *mul, int8_t *shift);

/** The moment from which guest time is computed: at guest TSC *tsc it was *ns, and every other
 * moment follows by the pvclock multiplier. Changes only in mull_clock_set(). */
void mull_clock_anchor(const struct mull_clock *clock, uint64_t *tsc, uint64_t *ns);

/** Wall-clock time (ns since 1970) at guest time 0. */
uint64_t mull_clock_boot_wall_ns(const struct mull_clock *clock);

void mull_clock_pause(struct mull_clock *clock);
void mull_clock_resume(struct mull_clock *clock);
/** Set the guest time of a paused clock (restore); at most 2^62 ns. */
void mull_clock_set(struct mull_clock *clock, uint64_t guest_ns, uint64_t guest_tsc);

#endif
