/* The time-stamp counter does not go back, and its MSRs move it. */
#include "micro.inc"
PRELUDE
main:
    rdtsc
    shl $32, %rdx
    or %rdx, %rax
    mov %rax, %rbx
    mov $1000, %ecx
1:  rdtsc
    shl $32, %rdx
    or %rdx, %rax
    cmp %rbx, %rax
    jb 2f
    mov %rax, %rbx
    dec %ecx
    jnz 1b
2:  CHECK %rcx, 0
    MOVE
    rdtsc
    shl $32, %rdx
    or %rdx, %rax
    sub %rbx, %rax
    shr $36, %rax                    /* not a minute later, nor before */
    CHECK %rax, 0
    /* Not for ring 3 where CR4.TSD says so: see ring 0 is free. */
    mov %cr4, %rax
    or $4, %rax
    mov %rax, %cr4
    rdtsc
    mov %cr4, %rax
    and $4, %eax
    CHECK %rax, 4
    DONE
