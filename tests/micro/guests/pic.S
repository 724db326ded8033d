/* Both 8259As (data sheet 231468) before a CPU: the initialization words, priorities and the cascade,
 * EOIs, rotation, special mask, automatic EOI, poll, levels. */
#define IRQ_HANDLER
#include "micro.inc"
.macro OUT8 port, value
    mov $\value, %al
    outb %al, $\port
.endm
.macro IN8 port
    inb $\port, %al
    movzbl %al, %eax
.endm
.macro LINE n, level
    OUT8 PORT_LINE, \n|\level<<7
.endm
.macro PULSE n
    LINE \n, 1
    LINE \n, 0
.endm
.macro INIT icw4
    OUT8 0x20, 0x11
    OUT8 0x21, 0x30
    OUT8 0x21, 0x04
    OUT8 0x21, \icw4
    OUT8 0xa0, 0x11
    OUT8 0xa1, 0x38
    OUT8 0xa1, 0x02
    OUT8 0xa1, 1
    OUT8 0x21, 0
    OUT8 0xa1, 0
.endm
.macro READ_IRR port
    OUT8 \port, 0x0a
    IN8 \port
.endm
.macro READ_ISR port
    OUT8 \port, 0x0b
    IN8 \port
.endm
#define EOI OUT8 0x20, 0x20
#define EOI_BOTH OUT8 0xa0, 0x20; OUT8 0x20, 0x20
PRELUDE
main:
    INIT 1
    IN8 0x21
    CHECK %rax, 0
    OUT8 0x21, 0xa5
    IN8 0x21
    CHECK %rax, 0xa5
    OUT8 0x21, 0

    /* An edge in IRR, then in ISR; the next of the same waits for the EOI. */
    PULSE 4
    READ_IRR 0x20
    CHECK %rax, 0x10
    MOVE
    LET_IN 1
    EXPECT 0x34
    READ_ISR 0x20
    CHECK %rax, 0x10
    PULSE 4
    NOTHING 1
    READ_IRR 0x20
    CHECK %rax, 0x10
    EOI
    LET_IN 2
    EXPECT 0x34
    EOI
    READ_ISR 0x20
    CHECK %rax, 0

    /* Priorities, nested; the slave's between 1 and 3. */
    PULSE 5
    LET_IN 3
    EXPECT 0x35
    PULSE 6
    NOTHING 3
    PULSE 3
    PULSE 12
    PULSE 8
    LET_IN 4
    EXPECT 0x38                 /* 8 before 12 before 3 */
    READ_ISR 0xa0
    CHECK %rax, 0x01
    READ_ISR 0x20
    CHECK %rax, 0x24
    NOTHING 4
    EOI_BOTH
    LET_IN 5
    EXPECT 0x3c
    EOI_BOTH
    LET_IN 6
    EXPECT 0x33
    EOI                         /* of 3 */
    EOI                         /* of 5 */
    LET_IN 7
    EXPECT 0x36
    EOI

    /* Masks: kept until they go. The master's bit 2 masks the slave. */
    OUT8 0x21, 0x04
    PULSE 9
    NOTHING 7
    OUT8 0x21, 0
    LET_IN 8
    EXPECT 0x39
    OUT8 0xa0, 0x61             /* specific EOIs */
    OUT8 0x20, 0x62
    READ_ISR 0xa0
    CHECK %rax, 0
    READ_ISR 0x20
    CHECK %rax, 0

    /* Special mask: what is in service and masked holds nothing back. */
    PULSE 3
    LET_IN 9
    EXPECT 0x33
    OUT8 0x21, 0x08
    OUT8 0x20, 0x68
    PULSE 6
    LET_IN 10
    EXPECT 0x36
    OUT8 0x20, 0x20             /* a non-specific EOI does not see what is masked */
    READ_ISR 0x20
    CHECK %rax, 0x08
    OUT8 0x20, 0x48
    OUT8 0x21, 0
    EOI

    /* Rotation: on EOI, and set. */
    PULSE 0
    LET_IN 11
    EXPECT 0x30
    OUT8 0x20, 0xa0             /* 0 is the lowest now */
    PULSE 0
    PULSE 7
    LET_IN 12
    EXPECT 0x37
    OUT8 0x20, 0x20
    LET_IN 13
    EXPECT 0x30
    OUT8 0x20, 0x20
    OUT8 0x20, 0xc4             /* 4 is, 5 the highest */
    PULSE 4
    PULSE 5
    PULSE 1
    LET_IN 14
    EXPECT 0x35
    OUT8 0x20, 0xe5             /* a specific EOI; 5 is the lowest */
    LET_IN 15
    EXPECT 0x31
    EOI
    LET_IN 16
    EXPECT 0x34
    EOI
    OUT8 0x20, 0xc7

    /* Poll: an acknowledge by reading. */
    PULSE 6
    OUT8 0x20, 0x0c
    IN8 0x20
    CHECK %rax, 0x86
    READ_ISR 0x20
    CHECK %rax, 0x40
    NOTHING 16
    EOI
    OUT8 0x20, 0x0c
    IN8 0x20
    and $0x80, %eax
    CHECK %rax, 0
    PULSE 13
    OUT8 0x20, 0x0c
    IN8 0x20
    CHECK %rax, 0x82
    OUT8 0xa0, 0x0c
    IN8 0xa0
    CHECK %rax, 0x85
    EOI_BOTH

    /* Levels, by ELCR. */
    mov $0x4d0, %edx
    mov $0x20, %al
    outb %al, %dx
    LINE 5, 1
    LET_IN 17
    EXPECT 0x35
    NOTHING 17
    EOI
    LET_IN 18                   /* still there */
    EXPECT 0x35
    LINE 5, 0
    EOI
    NOTHING 18
    mov $0x4d0, %edx
    xor %eax, %eax
    outb %al, %dx

    /* ICW1 forgets edges, masks and what is in service; a line must rise anew. */
    LINE 3, 1
    OUT8 0x21, 0xff
    INIT 1
    IN8 0x21
    CHECK %rax, 0
    READ_IRR 0x20
    CHECK %rax, 0
    NOTHING 18
    LINE 3, 0
    PULSE 3
    LET_IN 19
    EXPECT 0x33
    EOI

    /* Automatic EOI: nothing stays in service. */
    INIT 3
    PULSE 1
    LET_IN 20
    EXPECT 0x31
    READ_ISR 0x20
    CHECK %rax, 0
    PULSE 1
    LET_IN 21
    EXPECT 0x31

    /* Special fully nested: a higher one of the slave's comes through while one is in service. */
    INIT 1
    PULSE 12
    LET_IN 22
    EXPECT 0x3c
    PULSE 8
    NOTHING 22
    EOI_BOTH
    LET_IN 23
    EXPECT 0x38
    EOI_BOTH
    INIT 0x11
    PULSE 12
    LET_IN 24
    EXPECT 0x3c
    PULSE 8
    LET_IN 25
    EXPECT 0x38
    READ_ISR 0xa0
    CHECK %rax, 0x11
    OUT8 0xa0, 0x20
    OUT8 0xa0, 0x20
    EOI

    /* One chip alone: no ICW3, nor ICW4 where ICW1 does not announce it. */
    OUT8 0x20, 0x12
    OUT8 0x21, 0x40
    OUT8 0x21, 0                /* a mask already */
    PULSE 6
    LET_IN 26
    EXPECT 0x46
    EOI
    DONE

irq_handler:
    push %rax
    incl count
    mov 8(%rsp), %eax
    LOG %rax
    pop %rax
    add $16, %rsp
    iretq
    .balign 8
count: .quad 0
