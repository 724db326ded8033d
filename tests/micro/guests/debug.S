/* Debug registers: an execution breakpoint, a write and a read-write watch, DR6, DR7.GD, and DR4. */
#include "micro.inc"
PRELUDE
main:
    mov $target, %eax
    mov %rax, %dr0
    mov $watched, %eax
    mov %rax, %dr1
    add $8, %rax
    mov %rax, %dr2
    /* DR0: execute. A fault: the RIP is the instruction's own. */
    mov $0x402, %eax
    mov %rax, %dr7
    lea 1f(%rip), %r15
    jmp target
target:
    nop
1:  EXPECT_FAULT DB, 0, target
    mov %dr6, %rax
    and $0xf, %eax
    CHECK %rax, 1
    xor %eax, %eax
    mov %rax, %dr6
    MOVE
    /* RFLAGS.RF lets one instruction pass. */
    mov $SEL_DATA, %eax
    pushq %rax
    pushq $STACK
    pushq $0x10002
    pushq $SEL_CODE
    pushq $3f
    mov $3f, %eax
    mov %rax, %dr0
    iretq
3:  nop
    pushfq
    popq %rax
    CHECK %rax, 2
    mov %dr6, %rax
    and $0xf, %eax
    CHECK %rax, 0
    mov $target, %eax
    mov %rax, %dr0
    /* DR1: 8 bytes written. A trap: the instruction is done. */
    mov $0x00900408, %eax            /* G1, RW1 = 1, LEN1 = 8 */
    mov %rax, %dr7
    mov watched, %rax                /* a read is none */
    lea 2f(%rip), %r15
    movq $0x1234, watched
1:  nop
2:  EXPECT_FAULT DB, 0, 1b
    xor %eax, %eax
    mov %rax, %dr7
    CHECK watched, 0x1234
    mov %dr6, %rax
    and $0xf, %eax
    CHECK %rax, 2
    xor %eax, %eax
    mov %rax, %dr6
    /* DR2: 4 bytes read or written; one byte of them is enough, the next byte is not. */
    mov $0x0f000420, %eax
    mov %rax, %dr7
    movb $1, watched+12
    lea 2f(%rip), %r15
    movb watched+11, %bl
1:  nop
2:  EXPECT_FAULT DB, 0, 1b
    xor %eax, %eax
    mov %rax, %dr7
    mov %dr6, %rax
    and $0xf, %eax
    CHECK %rax, 4
    /* What is read back. */
    mov %dr0, %rax
    CHECK %rax, target
    mov %dr7, %rax
    CHECK %rax, 0x400
    /* DR4 is DR6 until CR4.DE. */
    mov %cr4, %rax
    or $8, %rax
    mov %rax, %cr4
    FAULTING UD, 0, mov %db4, %rax
    movabs $0x100000400, %rax
    FAULTING GP, 0, mov %rax, %dr7
    /* DR7.GD: even reading is a fault, and switches it off. */
    mov $0x2400, %eax
    mov %rax, %dr7
    lea 1f(%rip), %r15
2:  mov %dr3, %rax
1:  EXPECT_FAULT DB, 0, 2b
    mov %dr7, %rax
    CHECK %rax, 0x400
    DONE
    .balign 16
watched: .quad 0, 0
