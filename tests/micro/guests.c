/*
 * The list of micro-guests and what each needs. Their code is in guests/, assembled by the build
 * (their names are in meson.build, too).
 */
#include "micro.h"

#define GUESTS(X)                                                                                  \
    X(a20, .start = MICRO_REAL, .pc = true, .needs = MICRO_NEEDS_A20)                              \
    X(arith, .start = MICRO_LONG)                                                                  \
    X(avx, .needs = MICRO_NEEDS_XSAVE | MICRO_NEEDS_AVX)                                           \
    X(cells, .start = MICRO_LONG)                                                                  \
    X(compat, .start = MICRO_LONG)                                                                 \
    X(cpuid, .cpuid = true, .needs = MICRO_NEEDS_HARDWARE)                                         \
    X(crossing, .needs = MICRO_NEEDS_HARDWARE)                                                     \
    X(crossmod, .cpus = 2, .loose = true)                                                          \
    X(deadline, .loose = true, .needs = MICRO_NEEDS_HARDWARE)                                      \
    X(debug, .needs = MICRO_NEEDS_HARDWARE)                                                        \
    X(debug32, .start = MICRO_PVH, .needs = MICRO_NEEDS_HARDWARE) \
    X(dma, .start = MICRO_LONG)                                                                    \
    X(doublefault, .loose = true)                                                                  \
    X(exceptions, .start = MICRO_LONG)                                                             \
    X(fetch, .start = MICRO_LONG)                                                                  \
    X(frame, .frame = true, .cpus = 2, .loose = true, .needs = MICRO_NEEDS_HARDWARE)               \
    X(fsgsbase, .needs = MICRO_NEEDS_FSGSBASE)                                                     \
    X(gigapages, .needs = MICRO_NEEDS_GIGAPAGES)                                                   \
    X(interrupts, .loose = true)                                                                   \
    X(invpcid, .needs = MICRO_NEEDS_INVPCID)                                                       \
    X(io, .start = MICRO_LONG)                                                                     \
    X(lapic, .loose = true, .needs = MICRO_NEEDS_HARDWARE)                                         \
    X(ioapic, .pc = true, .loose = true, .needs = MICRO_NEEDS_HARDWARE)                            \
    X(largepages, .start = MICRO_LONG)                                                             \
    X(limits32, .start = MICRO_PVH, .needs = MICRO_NEEDS_HARDWARE) \
    X(locked, .cpus = 2, .loose = true)                                                            \
    X(loops, .start = MICRO_LONG)                                                                  \
    X(msr, .start = MICRO_LONG)                                                                    \
    X(mwait, .cpus = 2, .loose = true, .needs = MICRO_NEEDS_MONITOR)                               \
    X(nmi, .loose = true)                                                                          \
    X(nowhere, .start = MICRO_LONG)                                                                \
    X(paging, .start = MICRO_LONG)                                                                 \
    X(paging32, .start = MICRO_PVH, .needs = MICRO_NEEDS_HARDWARE) \
    X(pcid, .needs = MICRO_NEEDS_PCID)                                                             \
    X(pic, .pc = true, .loose = true, .needs = MICRO_NEEDS_HARDWARE)                               \
    X(pit, .pc = true, .loose = true, .needs = MICRO_NEEDS_HARDWARE)                               \
    X(preempt, .loose = true)                                                                      \
    X(protected, .start = MICRO_PVH, .needs = MICRO_NEEDS_HARDWARE)                                \
    X(pvh, .start = MICRO_PVH)                                                                     \
    X(real, .start = MICRO_REAL)                                                                   \
    X(returns, .start = MICRO_LONG)                                                                \
    X(ring3, .start = MICRO_LONG)                                                                  \
    X(ring3io, .needs = MICRO_NEEDS_HARDWARE)                                                      \
    X(segments, .needs = MICRO_NEEDS_HARDWARE)                                                     \
    X(shadow, .needs = MICRO_NEEDS_HARDWARE)                                                       \
    X(shootdown, .cpus = 2, .loose = true)                                                         \
    X(smap, .needs = MICRO_NEEDS_SMAP)                                                             \
    X(smc, .start = MICRO_LONG)                                                                    \
    X(smep, .needs = MICRO_NEEDS_SMEP)                                                             \
    X(smp, .cpus = 2, .loose = true)                                                               \
    X(sse, .start = MICRO_LONG)                                                                    \
    X(strings, .start = MICRO_LONG)                                                                \
    X(syscall, .needs = MICRO_NEEDS_HARDWARE)                                                      \
    X(task32, .start = MICRO_PVH, .needs = MICRO_NEEDS_HARDWARE) \
    X(timer, .loose = true)                                                                        \
    X(traps, .needs = MICRO_NEEDS_HARDWARE)                                                        \
    X(triple, .end = MICRO_SHUTDOWN)                                                               \
    X(tsc, .loose = true, .needs = MICRO_NEEDS_HARDWARE)                                           \
    X(tscadjust, .loose = true, .needs = MICRO_NEEDS_HARDWARE | MICRO_NEEDS_TSC_ADJUST)            \
    X(umip, .needs = MICRO_NEEDS_HARDWARE | MICRO_NEEDS_UMIP)                                      \
    X(unreal, .start = MICRO_REAL, .needs = MICRO_NEEDS_HARDWARE) \
    X(vm86, .start = MICRO_PVH, .needs = MICRO_NEEDS_HARDWARE) \
    X(wide, .cpus = 2, .loose = true, .needs = MICRO_NEEDS_HARDWARE)                               \
    X(x2apic, .cpus = 2, .loose = true)                                                            \
    X(xsave, .needs = MICRO_NEEDS_XSAVE)

#define DECLARE(n, ...)                                                                            \
    extern const uint8_t micro_##n##_code[];                                                       \
    extern const size_t micro_##n##_code_size;                                                     \
    extern const uint64_t micro_##n##_expect[];                                                    \
    extern const size_t micro_##n##_expect_count;

#define ENTRY(n, ...)                                                                              \
    {.name = #n,                                                                                   \
     .code = micro_##n##_code,                                                                     \
     .code_size = &micro_##n##_code_size,                                                          \
     .expect = micro_##n##_expect,                                                                 \
     .expect_count = &micro_##n##_expect_count,                                                    \
     __VA_ARGS__},

GUESTS(DECLARE)

const struct micro_guest micro_guests[] = {GUESTS(ENTRY)};
const unsigned micro_guest_count = sizeof(micro_guests) / sizeof(micro_guests[0]);
