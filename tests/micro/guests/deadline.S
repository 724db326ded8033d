/* The local APIC's timer beyond timer.S: how its counts read, what stops it, what changes of mode do, and a
 * deadline of a TSC that the guest moves (SDM volume 3, "APIC Timer"). */
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
#define MSR_TSC 0x10
#define MSR_DEADLINE 0x6e0
.macro WRITE reg, value
    movl $\value, \reg(%rbx)
.endm
/* The deadline is so many ticks from now. */
.macro DEADLINE ticks
    rdtsc
    shl $32, %rdx
    or %rdx, %rax
    movabs $\ticks, %rdx
    add %rdx, %rax
    mov %rax, %rsi
    mov %rax, %rdx
    shr $32, %rdx
    mov $MSR_DEADLINE, %ecx
    wrmsr
.endm
/* The MSR less what was written last: zero while it is armed. */
.macro READ_DEADLINE
    mov $MSR_DEADLINE, %ecx
    rdmsr
    shl $32, %rdx
    or %rdx, %rax
.endm
PRELUDE
main:
    mov $APIC, %ebx
    WRITE LVT_LINT0, 0x10000
    WRITE SVR, 0x1ff
    /* Each divisor reads as it was written; the count goes down from where it began. */
    mov $0, %r8d
1:  mov %r8d, DIVIDE(%rbx)
    mov DIVIDE(%rbx), %eax
    cmp %eax, %r8d
    jne wrong
    inc %r8d
    test $4, %r8d                /* bit 2 is reserved */
    jz 2f
    add $4, %r8d
2:  cmp $0xc, %r8d
    jb 1b
    WRITE DIVIDE, 0xa            /* by 128 */
    WRITE LVT_TIMER, 0x41
    WRITE COUNT, 0x10000000
    mov COUNT(%rbx), %eax
    CHECK %rax, 0x10000000
    mov CURRENT(%rbx), %edi
    cmp $0x10000000, %edi
    ja wrong
1:  mov CURRENT(%rbx), %eax
    cmp %edi, %eax
    ja wrong
    je 1b
    MOVE
    mov CURRENT(%rbx), %ecx
    cmp %eax, %ecx
    ja wrong
    /* A new divisor goes on from the same count; a count of zero stops. */
    WRITE DIVIDE, 0xb
    WRITE DIVIDE, 0xa
    mov CURRENT(%rbx), %eax
    cmp %ecx, %eax
    ja wrong
    WRITE COUNT, 0
    mov CURRENT(%rbx), %eax
    CHECK %rax, 0
    NOTHING 0
    /* Not in that mode the deadline is ignored. */
    DEADLINE 0
    READ_DEADLINE
    CHECK %rax, 0
    NOTHING 0

    /* In it counts are: they read as zero. */
    WRITE LVT_TIMER, 0x40042
    WRITE COUNT, 100
    mov COUNT(%rbx), %eax
    CHECK %rax, 0
    mov CURRENT(%rbx), %eax
    CHECK %rax, 0
    NOTHING 0
    DEADLINE 0x10000000000
    READ_DEADLINE
    sub %rsi, %rax
    CHECK %rax, 0
    MOVE
    READ_DEADLINE
    sub %rsi, %rax
    CHECK %rax, 0
    mov $MSR_DEADLINE, %ecx      /* zero disarms */
    xor %eax, %eax
    xor %edx, %edx
    wrmsr
    READ_DEADLINE
    CHECK %rax, 0
    NOTHING 0
    DEADLINE 2000000
    LET_IN 1
    EXPECT 0x42
    READ_DEADLINE
    CHECK %rax, 0
    /* Another mode disarms it. */
    DEADLINE 0x10000000000
    WRITE LVT_TIMER, 0x42
    WRITE LVT_TIMER, 0x40042
    READ_DEADLINE
    CHECK %rax, 0
    /* Masked, it passes unheard. */
    WRITE LVT_TIMER, 0x50043
    DEADLINE 0
1:  READ_DEADLINE
    test %rax, %rax
    jnz 1b
    WRITE LVT_TIMER, 0x40043
    NOTHING 1
    /* It is one of the guest's TSC: that may come to it in one step. */
    DEADLINE 0x10000000000
    MOVE
    mov %rsi, %rdx
    mov %esi, %eax
    shr $32, %rdx
    mov $MSR_TSC, %ecx
    wrmsr
    LET_IN 2
    EXPECT 0x43
    READ_DEADLINE
    CHECK %rax, 0
    DONE
wrong:
    LOG %rax
    DONE
irq_handler:
    push %rax
    incl count
    mov 8(%rsp), %eax
    LOG %rax
    movl $0, EOI(%rbx)
    pop %rax
    add $16, %rsp
    iretq
    .balign 8
count: .quad 0
