/* Ring 3 in a loop is interrupted: by what comes while it computes; all its registers, flags and
 * vectors stay. The kernel halts in between. */
#define IRQ_HANDLER
#include "micro.inc"
#define STACK_MARK 0x5a5a
PRELUDE
main:
    USER_PAGES
    mov $0x41, %al
    outb %al, $PORT_IRQ_LATER
    TO_USER user_start, SEL_USER, 0x202

    .balign 4096
user_start:
    movabs $0x0123456789abcdef, %rax
    mov %rax, %rbx
    not %rbx
    mov %rax, %r8
    mov %rbx, %r9
    movq %rax, %xmm3
    movq %rbx, %xmm14
    mov $STACK_MARK, %r10d
    push %r10
1:  mov $100000, %ecx
2:  add $1, %rsi                 /* must stay what RDI is */
    add $1, %rdi
    stc
    jnc 9f
    cmp %rsi, %rdi
    jne 9f
    dec %ecx
    jnz 2b
    cmpl $0, user_count
    je 1b
    cmp %rax, %r8
    jne 9f
    cmp %rbx, %r9
    jne 9f
    movq %xmm3, %rdx
    cmp %rdx, %rax
    jne 9f
    movq %xmm14, %rdx
    cmp %rdx, %rbx
    jne 9f
    pop %r11
    UCHECK %r11, STACK_MARK
    TO_KERNEL kernel
9:  ULOG %rcx
    TO_KERNEL kernel
    .balign 8
user_count: .quad 0
    .balign 4096
user_end:
kernel:
    CHECK user_count, 1
    CHECK from, SEL_USER
    CHECK vector_seen, 0x41
    DONE

irq_handler:
    push %rax
    mov 8(%rsp), %rax
    mov %rax, vector_seen
    mov 32(%rsp), %rax
    mov %rax, from
    incl user_count
    pop %rax
    add $16, %rsp
    iretq
    .balign 8

from: .quad 0
vector_seen: .quad 0
