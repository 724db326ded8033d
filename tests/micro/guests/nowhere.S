/* Jumps to where there is no code: no memory, a device, no canonical address, the end of RAM. */
#include "micro.inc"
PRELUDE
main:
    mov $NOWHERE+0x10, %ebx
    lea 1f(%rip), %r15
    jmp *%rbx
1:  EXPECT_FAULT UD, 0, NOWHERE+0x10 /* all ones: no instruction */
    lea 1f(%rip), %r15
    call *%rbx
1:  EXPECT_FAULT UD, 0, NOWHERE+0x10
    CHECK %rsp, STACK-8
    pop %rax
    MOVE
    movabs $0x8000000000000000, %rbx
    mov $ANY_RIP, %r13d              /* the jump's on a processor, the target's with a translator */
    lea 1f(%rip), %r15
    jmp *%rbx
1:  EXPECT FAULT_MARK+(GP<<32)
    xor %r13d, %r13d
    /* Data there: reads of all ones, writes to nobody; the page tables, too. */
    mov $NOWHERE, %ebx
    mov (%rbx), %rax
    CHECK %rax, -1
    movl $5, 4(%rbx)
    mov 4(%rbx), %eax
    CHECK %rax, 0xffffffff
    DONE
