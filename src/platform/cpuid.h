/*
 * What guests are told by CPUID beyond what the engine can execute: APIC IDs, topology, hypervisor
 * and timing leaves. One package, one thread a core.
 */
#ifndef MULL_PLATFORM_CPUID_H
#define MULL_PLATFORM_CPUID_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/engine.h"

struct mull_cpuid_policy {
    unsigned cpus;
    bool has_lapic; /* the engine's own local APIC: it says itself what that can do */
    uint64_t tsc_hz;
    uint64_t address_end;  /* nothing that the guest can address lies at or above; 0: unknown */
    uint32_t kvm_features; /* CPUID 40000001h EAX that the platform implements; ignored where the
                              engine brings that leaf itself */
    bool vmware;           /* the hypervisor is VMware's, with its timing leaf, not KVM's */
};

/** Complete @table, the engine's template, for vCPU @index. */
int mull_cpuid_apply(const struct mull_cpuid_policy *policy, unsigned index,
                     struct mull_cpuid *table, struct mull_error *err);

/** numerator / denominator with numerator <= 4294, so near to hz / 10^9 that software which
 *  computes whole kHz from CPUID 15h in 32 bits gets hz / 1000 (or the next to it). */
void mull_cpuid_tsc_ratio(uint64_t hz, uint32_t *numerator, uint32_t *denominator);

#endif
