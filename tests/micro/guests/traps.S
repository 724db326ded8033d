/* Software interrupts of ring 0, missing gates, and other refusals. */
#include "micro.inc"
PRELUDE
main:
    /* INT3 and INT n are traps: the RIP is the next instruction's. */
    lea 1f(%rip), %r15
    int3
1:  EXPECT_FAULT BP, 0, 1b
    lea 1f(%rip), %r15
    int $3
1:  EXPECT_FAULT BP, 0, 1b
    int $0x55
    EXPECT 0x1200055
    MOVE
    mov $0x123, %r12d
    int $0x20
    EXPECT 0x1200020
    CHECK %r12, 0x123
    /* A gate that is not there: its number, with the bit that says IDT. */
    andb $0x7f, idt+0x56*16+5
    FAULTING NP, (0x56<<3)+2, int $0x56
    mov $0x44, %eax
    FAULTING GP, 0x44, ltr %ax
    /* #UD without a gate: #NP is contributory, #UD is not, so #NP is delivered; external. */
    movb $0x0e, idt+UD*16+5
    FAULTING NP, (UD<<3)+3, ud2
    movb $0, idt+UD*16+5             /* not even a gate */
    FAULTING GP, (UD<<3)+3, ud2
    movb $0x8e, idt+UD*16+5
    FAULTING GP, 0, movaps main_data+4, %xmm0 /* not aligned */
    movl $0x10000, main_data
    FAULTING GP, 0, ldmxcsr main_data /* a reserved bit */
    /* PAT has no type 2. */
    mov $0x277, %ecx
    mov $0x00070102, %eax
    mov $0x00070406, %edx
    FAULTING GP, 0, wrmsr
    DONE
    .balign 16
main_data: .fill 32
