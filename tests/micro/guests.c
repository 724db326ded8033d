/*
 * The list of micro-guests and what each needs. Their code is in guests/, assembled by the build
 * (their names are in meson.build, too).
 */
#include "micro.h"

#define GUESTS(X)                                                                                  \
    X(arith, .start = MICRO_LONG)                                                                  \
    X(crossing, .needs = MICRO_NEEDS_HARDWARE)                                                     \
    X(exceptions, .start = MICRO_LONG)                                                             \
    X(interrupts, .start = MICRO_LONG, .loose = true)                                              \
    X(io, .start = MICRO_LONG)                                                                     \
    X(nmi, .start = MICRO_LONG)                                                                    \
    X(paging, .start = MICRO_LONG)                                                                 \
    X(ring3, .start = MICRO_LONG, .loose = true)                                                   \
    X(ring3io, .needs = MICRO_NEEDS_HARDWARE)                                                      \
    X(shadow, .needs = MICRO_NEEDS_HARDWARE)                                                       \
    X(smc, .start = MICRO_LONG)                                                                    \
    X(strings, .start = MICRO_LONG)                                                                \
    X(syscall, .needs = MICRO_NEEDS_HARDWARE)                                                      \
    X(traps, .needs = MICRO_NEEDS_HARDWARE)                                                        \
    X(triple, .end = MICRO_SHUTDOWN)

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
