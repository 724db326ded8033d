/* The I/O APIC (82093AA data sheet) before a CPU: edges, levels with remote IRR, masks, what comes
 * together, destinations, and changes while an interrupt is in service. */
#define IRQ_HANDLER
#include "micro.inc"
#define APIC 0xfee00000
#define IOAPIC 0xfec00000
#define LDR 0xd0
#define DFR 0xe0
#define SVR 0xf0
#define EOI 0xb0
#define LVT_LINT0 0x350
#define LEVEL 0x8000
#define MASKED 0x10000
#define LOGICAL 0x800
#define REMOTE_IRR 0x4000
.macro RTE pin, low, high=0
    movl $0x11+2*\pin, (%rbp)
    movl $\high, 0x10(%rbp)
    movl $0x10+2*\pin, (%rbp)
    movl $\low, 0x10(%rbp)
.endm
.macro READ_LOW pin
    movl $0x10+2*\pin, (%rbp)
    mov 0x10(%rbp), %eax
.endm
.macro LINE pin, level
    mov $\pin|\level<<7, %al
    outb %al, $PORT_LINE
.endm
.macro PULSE pin
    LINE \pin, 1
    LINE \pin, 0
.endm
.macro IN_HANDLER what
    movl $\what, action
.endm
PRELUDE
main:
    mov $APIC, %ebx
    mov $IOAPIC, %ebp
    movl $MASKED, LVT_LINT0(%rbx)
    movl $0x1ff, SVR(%rbx)
    /* Registers: what can be written. */
    movl $1, (%rbp)
    mov 0x10(%rbp), %eax
    CHECK %rax, 0x170020
    movl $0, (%rbp)
    movl $-1, 0x10(%rbp)
    mov 0x10(%rbp), %eax
    CHECK %rax, 0x0f000000
    movl $0, 0x10(%rbp)
    RTE 23, 0xffffffff, 0xffffffff
    READ_LOW 23
    CHECK %rax, 0x1afff        /* delivery status and remote IRR are read only */
    movl $0x3f, (%rbp)
    mov 0x10(%rbp), %eax
    CHECK %rax, 0xff000000
    RTE 23, MASKED
    movl $0x40, (%rbp)         /* no such register */
    mov 0x10(%rbp), %eax
    CHECK %rax, 0

    /* Edges: one each; two before the first is taken are one; masked ones are lost. */
    RTE 5, 0x61
    PULSE 5
    LET_IN 1
    EXPECT 0x61
    PULSE 5
    PULSE 5
    LET_IN 2
    EXPECT 0x61
    NOTHING 2
    LINE 5, 1
    LET_IN 3
    EXPECT 0x61
    LINE 5, 1
    NOTHING 3
    LINE 5, 0
    RTE 5, MASKED|0x61
    LINE 5, 1
    RTE 5, 0x61
    NOTHING 3
    MOVE                       /* nor does a line that is high rise when it is loaded */
    NOTHING 3
    LINE 5, 0
    LINE 5, 1
    LET_IN 4
    EXPECT 0x61
    LINE 5, 0

    /* A level is there until the line goes, and again after each EOI. */
    RTE 6, LEVEL|0x62
    IN_HANDLER drop
    LINE 6, 1
    LET_IN 5
    EXPECT 0x62
    EXPECT REMOTE_IRR
    NOTHING 5
    READ_LOW 6
    CHECK %rax, LEVEL|0x62
    IN_HANDLER drop_third
    LINE 6, 1
    LET_IN 8
    EXPECT 0x62
    EXPECT 0x62
    EXPECT 0x62
    NOTHING 8
    /* Rises and falls in service do not count; one that is up at the EOI does. */
    IN_HANDLER bounce
    LINE 6, 1
    LET_IN 9
    EXPECT 0x62
    NOTHING 9
    /* Held back by a mask, and not lost. */
    RTE 6, LEVEL|MASKED|0x62
    LINE 6, 1
    NOTHING 9
    IN_HANDLER drop
    RTE 6, LEVEL|0x62
    LET_IN 10
    EXPECT 0x62
    EXPECT REMOTE_IRR
    /* Moved between its delivery and its EOI. */
    IN_HANDLER moved
    LINE 6, 1
    LET_IN 11
    EXPECT 0x62
    EXPECT REMOTE_IRR
    NOTHING 11
    READ_LOW 6
    CHECK %rax, LEVEL|0x62
    /* Ended by the register, before the local APIC ends it. */
    IN_HANDLER directed
    LINE 6, 1
    LET_IN 12
    EXPECT 0x62
    EXPECT 0
    NOTHING 12
    /* Made an edge in service: remote IRR is gone. */
    IN_HANDLER to_edge
    LINE 6, 1
    LET_IN 13
    EXPECT 0x62
    NOTHING 13
    READ_LOW 6
    CHECK %rax, 0x62
    LINE 6, 0

    /* Two at once: the higher vector first, by whatever pin. */
    IN_HANDLER 0
    RTE 7, 0x71
    RTE 8, 0x91
    RTE 9, LEVEL|0x81
    PULSE 7
    PULSE 8
    IN_HANDLER drop_9
    LINE 9, 1
    LET_IN 16
    EXPECT 0x91
    EXPECT 0x81
    EXPECT 0x71
    IN_HANDLER 0

    /* Two pins with one vector: each has its own remote IRR. */
    RTE 10, LEVEL|0x82
    RTE 11, LEVEL|0x82
    IN_HANDLER drop_10
    LINE 10, 1
    LINE 11, 1
    LET_IN 18
    EXPECT 0x82                 /* for both; after the EOI pin 11 asks again */
    EXPECT 0x82
    IN_HANDLER 0
    NOTHING 18

    /* Destinations: physical, logical flat and clustered, nobody. */
    RTE 5, 0x63, 0x05000000
    PULSE 5
    NOTHING 18
    movl $0x02000000, LDR(%rbx)
    RTE 5, LOGICAL|0x64, 0x03000000
    PULSE 5
    LET_IN 19
    EXPECT 0x64
    RTE 5, LOGICAL|0x64, 0x01000000
    PULSE 5
    NOTHING 19
    movl $0x0fffffff, DFR(%rbx)
    movl $0x34000000, LDR(%rbx)
    RTE 5, LOGICAL|0x65, 0x36000000
    PULSE 5
    LET_IN 20
    EXPECT 0x65
    RTE 5, LOGICAL|0x65, 0x46000000
    PULSE 5
    NOTHING 20
    movl $0xffffffff, DFR(%rbx)
    RTE 5, 0x166, 0xff000000    /* lowest priority among all */
    PULSE 5
    LET_IN 21
    EXPECT 0x66
    /* NMI. */
    RTE 5, 0x400
    PULSE 5
    nop
    EXPECT 0x22220002
    DONE

drop:                           /* logs remote IRR, lowers the line */
    READ_LOW 6
    and $REMOTE_IRR, %eax
    LOG %rax
    LINE 6, 0
    ret
drop_third:
    cmpl $8, count
    jne 1f
    LINE 6, 0
1:  ret
bounce:
    LINE 6, 0
    LINE 6, 1
    LINE 6, 0
    ret
moved:
    MOVE
    jmp drop
directed:
    LINE 6, 0
    movl $0x62, 0x40(%rbp)
    READ_LOW 6
    and $REMOTE_IRR, %eax
    LOG %rax
    ret
to_edge:
    RTE 6, 0x62
    ret
drop_9:
    LINE 9, 0
    ret
drop_10:
    LINE 10, 0
    cmpl $18, count
    jne 1f
    LINE 11, 0
1:  ret

irq_handler:
    push %rax
    incl count
    mov 8(%rsp), %eax
    LOG %rax
    mov action, %eax
    test %eax, %eax
    jz 1f
    call *%rax
1:  movl $0, EOI(%rbx)
    pop %rax
    add $16, %rsp
    iretq
    .balign 8
count: .quad 0
action: .quad 0
