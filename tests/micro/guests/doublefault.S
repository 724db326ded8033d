/* A fault while a fault is delivered: the double fault, on a stack of its own (IST). */
#include "micro.inc"
PRELUDE
main:
    /* The gate of #PF is not there: #NP on top of #PF makes #DF. */
    movb $0x0e, idt+PF*16+5
    andq $~1, PT0+(0x50000>>12)*8
    invlpg 0x50000
    lea 1f(%rip), %r15
2:  mov 0x50000, %rax
1:  EXPECT_FAULT DF, 0, 2b
    movb $0x8e, idt+PF*16+5
    PAGE_FAULTING 0, 0x50000, mov 0x50000, %rax
    /* A page fault whose handler has no stack: #PF on top of #PF. */
    MOVE
    andq $~1, PT0+(0x51000>>12)*8
    invlpg 0x51000
    mov $0x52000, %esp
    mov $1f, %r15d
    mov %cr2, %rax
2:  mov 0x50008, %rax
1:  EXPECT_FAULT DF, 0, 2b
    mov $STACK, %rsp
    DONE
