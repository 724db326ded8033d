/* NMIs: not held by IF, one at a time until IRET, on a stack of their own, out of HLT. */
#define NMI_HANDLER
#include "micro.inc"
PRELUDE
main:
    xor %eax, %eax
    xor %ebx, %ebx
    outb %al, $PORT_NMI
1:  cmpl $1, count
    jne 1b
    CHECK %rbx, 0
    /* A second one waits for the handler's IRET: the handler sends it, and sees none inside. */
    movl $1, again
    xor %eax, %eax
    outb %al, $PORT_NMI
2:  cmpl $3, count
    jne 2b
    CHECK nested, 0
    /* Moved inside the handler; then HLT with IF clear wakes up. */
    xor %eax, %eax
    outb %al, $PORT_NMI_LATER
sleep:
    hlt                          /* see the handler */
    CHECK count, 4
    CHECK stack, 0x78000
    DONE

nmi_handler:
    push %rax
    cmpl $0, inside
    je 1f
    incl nested
1:  incl inside
    lea 24+40(%rsp), %rax
    mov %rax, stack
    incl count
    cmpl $0, again
    je 2f
    decl again
    xor %eax, %eax
    outb %al, $PORT_NMI
    mov $1000, %eax
3:  dec %eax
    jnz 3b
    MOVE
2:  cmpq $sleep, 24(%rsp)        /* it came before HLT: nobody else would wake that */
    jne 4f
    incq 24(%rsp)
4:  decl inside
    pop %rax
    add $16, %rsp
    iretq
    .balign 8
count: .quad 0
again: .quad 0
inside: .quad 0
nested: .quad 0
stack: .quad 0
