/* Exceptions of 64-bit kernel mode: vector, error code, and the RIP that is pushed. */
#include "micro.inc"
PRELUDE
main:
    xor %edx, %edx
    xor %ecx, %ecx
    mov $5, %eax
    FAULTING DE, 0, div %ecx
    CHECK %rax, 5
    mov $-1, %rdx
    mov $1, %ecx
    FAULTING DE, 0, idiv %rcx        /* the quotient does not fit */
    FAULTING UD, 0, ud2
    FAULTING UD, 0, .byte 0x06       /* PUSH ES: not in 64-bit mode */
    FAULTING UD, 0, .byte 0xf0; nop  /* LOCK */
    movabs $0x8000000000000000, %rbx
    FAULTING GP, 0, mov (%rbx), %rax /* not canonical */
    FAULTING GP, 0, mov %rax, (%rbx)
    mov %rsp, %rdi
    mov %rbx, %rbp
    FAULTING SSF, 0, mov (%rbp), %rax
    mov $0x38, %eax
    FAULTING NP, 0x38, mov %eax, %ds
    mov $0x1238, %eax
    FAULTING GP, 0x1238, mov %eax, %es /* beyond the GDT */
    mov $SEL_CODE, %eax
    FAULTING GP, SEL_CODE, mov %eax, %ss
    movabs $0x100000000, %rax
    FAULTING GP, 0, mov %rax, %cr4
    FAULTING GP, 0, mov %rax, %cr0
    MOVE
    /* Single step: the trap comes after the instruction that follows POPFQ. */
    lea 2f(%rip), %r15
    pushfq
    orq $0x100, (%rsp)
    popfq
    nop
1:  nop
2:  EXPECT_FAULT DB, 0, 1b
    mov %dr6, %rax
    and $0x4000, %eax
    CHECK %rax, 0x4000
    /* x87 and SSE with CR0.TS. */
    mov %cr0, %rax
    or $8, %rax
    mov %rax, %cr0
    FAULTING NM, 0, fninit
    clts
    mov %cr0, %rax
    CHECK %rax, 0x80010033
    DONE
