/* The local APIC through its page: own interrupts, priorities, TPR and CR8, messages with their EOIs;
 * then through x2APIC. The timer is in timer.S. */
#define IRQ_HANDLER
#include "micro.inc"
#define APIC 0xfee00000
#define ID 0x20
#define VERSION 0x30
#define TPR 0x80
#define PPR 0xa0
#define EOI 0xb0
#define SVR 0xf0
#define ISR 0x100
#define IRR 0x200
#define ICR 0x300
#define ICR_HIGH 0x310
#define LVT_LINT0 0x350
#define SELF 0x40000
.macro WRITE reg, value
    movl $\value, \reg(%rbx)
.endm
PRELUDE
main:
    mov $APIC, %ebx
    mov ID(%rbx), %eax
    CHECK %rax, 0
    mov VERSION(%rbx), %eax
    and $0xff00ff, %eax
    CHECK %rax, 0x50014
    WRITE LVT_LINT0, 0x10000
    WRITE SVR, 0x1ff
    /* To itself, held by CLI, seen in IRR. */
    WRITE ICR, SELF|0x61
    mov IRR+0x30(%rbx), %eax
    CHECK %rax, 2
    MOVE
    mov IRR+0x30(%rbx), %eax
    CHECK %rax, 2
    LET_IN 1
    EXPECT 0x61
    EXPECT 0x2                     /* ISR in the handler */
    EXPECT 0x60                  /* PPR */
    mov IRR+0x30(%rbx), %eax
    CHECK %rax, 0
    mov ISR+0x30(%rbx), %eax
    CHECK %rax, 0
    /* The higher one first. */
    WRITE ICR, SELF|0x71
    WRITE ICR, SELF|0x91
    WRITE ICR, SELF|0x81
    LET_IN 4
    EXPECT 0x91
    EXPECT 0x20000
    EXPECT 0x90
    EXPECT 0x81
    EXPECT 0x2
    EXPECT 0x80
    EXPECT 0x71
    EXPECT 0x20000
    EXPECT 0x70
    /* The task priority holds what is not above it; CR8 is the same register. */
    WRITE TPR, 0x70
    mov %cr8, %rax
    CHECK %rax, 7
    WRITE ICR, SELF|0x71
    WRITE ICR, SELF|0x81
    LET_IN 5
    EXPECT 0x81
    EXPECT 0x2
    EXPECT 0x80
    mov $2000, %ecx
    sti
1:  dec %ecx
    jnz 1b
    cli
    CHECK count, 5
    MOVE
    mov $6, %eax
    mov %rax, %cr8
    mov TPR(%rbx), %eax
    CHECK %rax, 0x60
    LET_IN 6
    EXPECT 0x71
    EXPECT 0x20000
    EXPECT 0x70
    xor %eax, %eax
    mov %rax, %cr8
    /* Messages: an edge, a level whose end is told. */
    mov $0x41, %eax
    outl %eax, $PORT_MSI
    LET_IN 7
    EXPECT 0x41
    EXPECT 0x2
    EXPECT 0x40
    mov $0xc052, %eax
    outl %eax, $PORT_MSI
    LET_IN 8
    EXPECT 0x52
    EXPECT 0x40000
    EXPECT 0x50
    EXPECT EOI_MARK+0x52
    /* A level one that is moved between its delivery and its end. */
    movl $0x53, move_at
    mov $0xc053, %eax
    outl %eax, $PORT_MSI
    LET_IN 9
    EXPECT 0x53
    EXPECT 0x80000
    EXPECT 0x50
    EXPECT EOI_MARK+0x53

    /* x2APIC. */
    mov $0x1b, %ecx
    rdmsr
    CHECK %rax, APIC+0x900
    or $0x400, %eax
    wrmsr
    mov $0x802, %ecx
    rdmsr
    CHECK %rax, 0
    movl $1, x2apic
    mov $0x830, %ecx             /* ICR: one MSR */
    mov $SELF|0x62, %eax
    xor %edx, %edx
    wrmsr
    MOVE
    LET_IN 10
    EXPECT 0x62
    EXPECT 0x4
    EXPECT 0x60
    mov $0x83f, %ecx             /* self IPI */
    mov $0x63, %eax
    wrmsr
    LET_IN 11
    EXPECT 0x63
    EXPECT 0x8
    EXPECT 0x60
    mov $0x80f, %ecx
    rdmsr
    CHECK %rax, 0x1ff
    mov $0x80b, %ecx
    mov $1, %eax
    FAULTING GP, 0, wrmsr        /* only zero may be written to EOI */
    mov $0x802, %ecx
    FAULTING GP, 0, wrmsr        /* the ID cannot be written */
    mov $0xc054, %eax
    outl %eax, $PORT_MSI
    LET_IN 12
    EXPECT 0x54
    EXPECT 0x100000
    EXPECT 0x50
    EXPECT EOI_MARK+0x54
    /* From x2APIC there is no way straight back to xAPIC. */
    mov $0x1b, %ecx
    rdmsr
    and $~0x400, %eax
    xor %edx, %edx
    FAULTING GP, 0, wrmsr
    DONE

/* Stack: vector, zero, RIP... Logs the vector, the ISR word of it, PPR; ends it. */
irq_handler:
    push %rax
    push %rcx
    push %rdx
    incl count
    mov 24(%rsp), %eax
    LOG %rax
    cmpl $0, x2apic
    jne 3f
    shr $5, %eax
    shl $4, %eax
    mov ISR(%rbx,%rax), %eax
    LOG %rax
    mov PPR(%rbx), %eax
    LOG %rax
    mov 24(%rsp), %eax
    cmp %eax, move_at
    jne 2f
    MOVE
2:  cmpl $0, x2apic
    jne 4f
    movl $0, EOI(%rbx)
    jmp 5f
3:  shr $5, %eax
    lea 0x810(%rax), %ecx
    rdmsr
    LOG %rax
    mov $0x80a, %ecx
    rdmsr
    LOG %rax
4:  mov $0x80b, %ecx
    xor %eax, %eax
    xor %edx, %edx
    wrmsr
5:  pop %rdx
    pop %rcx
    pop %rax
    add $16, %rsp
    iretq
    .balign 8
count: .quad 0
x2apic: .quad 0
move_at: .quad 0
