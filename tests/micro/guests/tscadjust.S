/* IA32_TSC and IA32_TSC_ADJUST (SDM volume 3, "Time-Stamp Counter Adjustment"): who writes one of them
 * moves the counter and the other by as much. */
#include "micro.inc"
#define MSR_TSC 0x10
#define MSR_ADJUST 0x3b
.macro TSC to
    rdtsc
    shl $32, %rdx
    or %rdx, %rax
    mov %rax, \to
.endm
.macro READ msr
    mov $\msr, %ecx
    rdmsr
    shl $32, %rdx
    or %rdx, %rax
.endm
/* From RAX. */
.macro WRITE msr
    mov $\msr, %ecx
    mov %rax, %rdx
    shr $32, %rdx
    wrmsr
.endm
/* Is the TSC from RBX on, and less than 2^40 (minutes) above? */
.macro CHECK_SOON
    TSC %rax
    sub %rbx, %rax
    shr $40, %rax
    CHECK %rax, 0
.endm
PRELUDE
main:
    READ MSR_ADJUST
    CHECK %rax, 0
    TSC %rbx
    READ MSR_TSC
    sub %rbx, %rax
    shr $40, %rax
    CHECK %rax, 0
    /* Far forward by the adjustment. */
    movabs $0x1000000000000, %r8
    TSC %rbx
    add %r8, %rbx
    mov %r8, %rax
    WRITE MSR_ADJUST
    CHECK_SOON
    MOVE
    CHECK_SOON
    READ MSR_ADJUST
    CHECK %rax, 0x1000000000000
    READ MSR_TSC
    sub %rbx, %rax
    shr $40, %rax
    CHECK %rax, 0
    /* And back, below zero: the adjustment is signed. */
    TSC %rbx
    sub %r8, %rbx
    sub $0x100000, %rbx
    movabs $-0x100000, %rax
    WRITE MSR_ADJUST
    CHECK_SOON
    READ MSR_ADJUST
    CHECK %rax, -0x100000
    xor %eax, %eax
    WRITE MSR_ADJUST
    add $0x100000, %rbx
    CHECK_SOON
    /* A write to the counter shows in the adjustment: what was written less what it was. */
    TSC %rbx
    movabs $0x2000000000000, %rax
    WRITE MSR_TSC
    READ MSR_ADJUST
    add %rbx, %rax             /* 2^49 less the time between both */
    neg %rax
    movabs $0x2000000000000, %rdx
    add %rdx, %rax
    shr $40, %rax
    CHECK %rax, 0
    mov %rdx, %rbx
    CHECK_SOON
    MOVE
    CHECK_SOON
    /* All 64 bits count, upwards through the sign. */
    movabs $0x7fffffffffffff00, %rax
    mov %rax, %rbx
    WRITE MSR_TSC
    CHECK_SOON
    DONE
