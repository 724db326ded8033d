/* When exactly an interrupt comes: after the instruction behind STI, or behind a load of SS. */
#define IRQ_HANDLER
#include "micro.inc"
PRELUDE
main:
    mov $0x31, %al
    outb %al, $PORT_IRQ
    xor %ebx, %ebx
    sti
    inc %ebx
    inc %ebx
    cli
    CHECK count, 1
    CHECK seen_rbx, 1
    /* A load of SS holds interrupts for one instruction, too. */
    mov $0x32, %al
    outb %al, $PORT_IRQ
    xor %ebx, %ebx
    mov %ss, %ecx
    pushfq
    orq $0x200, (%rsp)
    sti
    mov %ecx, %ss
    inc %ebx
    inc %ebx
    cli
    popfq
    CHECK count, 2
    CHECK seen_rbx, 1
    cli
    /* POPF that sets IF has no shadow. */
    mov $0x33, %al
    outb %al, $PORT_IRQ
    xor %ebx, %ebx
    pushfq
    orq $0x200, (%rsp)
    popfq
    inc %ebx
    cli
    CHECK count, 3
    CHECK seen_rbx, 0
    DONE

irq_handler:
    add $16, %rsp
    mov %rbx, seen_rbx
    incl count
    iretq
    .balign 8
count: .quad 0
seen_rbx: .quad 0
