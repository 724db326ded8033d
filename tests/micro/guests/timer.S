/* The local APIC's timer in its three modes, also moved while it counts. */
#define IRQ_HANDLER
#include "micro.inc"
#define APIC 0xfee00000
#define EOI 0xb0
#define SVR 0xf0
#define LVT_TIMER 0x320
#define LVT_LINT0 0x350
#define COUNT 0x380
#define CURRENT 0x390
#define DIVIDE 0x3e0
.macro WRITE reg, value
    movl $\value, \reg(%rbx)
.endm
PRELUDE
main:
    mov $APIC, %ebx
    WRITE LVT_LINT0, 0x10000
    WRITE SVR, 0x1ff
    /* The timer: once. */
    WRITE DIVIDE, 0xb            /* by one */
    WRITE LVT_TIMER, 0x31
    WRITE COUNT, 2000000
    mov CURRENT(%rbx), %eax
    test %eax, %eax
    setnz %al
    movzbl %al, %eax
    CHECK %rax, 1
    sti
    hlt
    cli
    EXPECT 0x31
    mov CURRENT(%rbx), %eax
    CHECK %rax, 0
    /* Again, moved while it counts. */
    WRITE LVT_TIMER, 0x32
    WRITE COUNT, 3000000
    MOVE
    sti
    hlt
    cli
    EXPECT 0x32
    CHECK count, 2
    /* Masked it does not interrupt. */
    WRITE LVT_TIMER, 0x10033
    WRITE COUNT, 1000
1:  mov CURRENT(%rbx), %eax
    test %eax, %eax
    jnz 1b
    CHECK count, 2
    /* Periodic: three times. */
    movl $1, quiet
    WRITE LVT_TIMER, 0x20034
    WRITE COUNT, 1000000
2:  sti
    hlt
    cli
    cmpl $5, count
    jb 2b
    WRITE LVT_TIMER, 0x30034
    WRITE COUNT, 0
    mov $5000, %ecx              /* one may still be on its way */
1:  sti
    nop
    cli
    cmpl $0, 0x210(%rbx)         /* its word of IRR */
    jne 1b
    dec %ecx
    jnz 1b
    movl $5, count
    movl $0, quiet
    /* TSC deadline. */
    WRITE LVT_TIMER, 0x40035
    mov $0x6e0, %ecx
    rdtsc
    add $3000000, %eax
    adc $0, %edx
    wrmsr
    MOVE
    sti
    hlt
    cli
    EXPECT 0x35
    CHECK count, 6
    mov $0x6e0, %ecx
    rdmsr
    or %rdx, %rax
    CHECK %rax, 0
    rdtsc                        /* in the past: at once */
    sub $1000, %eax
    sbb $0, %edx
    wrmsr
    LET_IN 7
    EXPECT 0x35
    DONE

irq_handler:
    push %rax
    incl count
    cmpl $0, quiet
    jne 1f
    mov 8(%rsp), %eax
    LOG %rax
1:  movl $0, EOI(%rbx)
    pop %rax
    add $16, %rsp
    iretq
    .balign 8
count: .quad 0
quiet: .quad 0
