/* External interrupts: held by CLI, HLT, a busy loop, in a loop of REP. */
#define IRQ_HANDLER
#include "micro.inc"
PRELUDE
main:
    /* Held while IF is clear. */
    movl $0, count
    mov $0x31, %al
    outb %al, $PORT_IRQ
    nop
    nop
    CHECK count, 0
    sti
1:  cmpl $1, count
    jne 1b
    cli
    CHECK last, 0x31
    /* STI; CLI lets nothing in. */
    mov $0x32, %al
    outb %al, $PORT_IRQ
    sti
    cli
    CHECK count, 1
    MOVE
    CHECK count, 1
    sti
1:  cmpl $2, count
    jne 1b
    cli
    CHECK last, 0x32
    /* HLT wakes up for one that comes later. */
    mov $0x33, %al
    outb %al, $PORT_IRQ_LATER
    sti
    hlt
    cli
    CHECK count, 3
    CHECK last, 0x33
    /* In the middle of a loop that touches nothing but registers. */
    mov $0x34, %al
    outb %al, $PORT_IRQ_LATER
    sti
1:  cmpl $4, count
    jne 1b
    cli
    CHECK last, 0x34
    /* STI; HLT with one pending must not sleep. */
    mov $0x35, %al
    outb %al, $PORT_IRQ
    sti
    hlt
    cli
    CHECK count, 5
    CHECK last, 0x35
    /* Moved while it sleeps. */
    outb %al, $PORT_MOVE_LATER
    mov $0x36, %al
    outb %al, $PORT_IRQ_LATER
    sti
    hlt
    cli
    CHECK count, 6
    CHECK last, 0x36
    /* In the middle of REP STOS; it goes on where it was. */
    mov $0x37, %al
    outb %al, $PORT_IRQ_LATER
    sti
2:  mov $FREE, %edi
    mov $0x2000, %ecx
    mov $0x5a, %al
    rep stosb
    cmpl $7, count
    jne 2b
    cli
    CHECK %rdi, FREE+0x2000
    CHECK %rcx, 0
    CHECK FREE+0x1ff8, 0x5a5a5a5a5a5a5a5a
    CHECK last, 0x37
    DONE

irq_handler:
    xchg %rax, (%rsp)
    mov %rax, last
    pop %rax
    add $8, %rsp
    incl count
    iretq
    .balign 8
count: .quad 0
last: .quad 0
