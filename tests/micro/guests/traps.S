/* Software interrupts of ring 0; a task register from the LDT. */
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
    DONE
