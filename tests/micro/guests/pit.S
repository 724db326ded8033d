/* The 8254 and port 61h before a CPU: channel 0 through the 8259A, channel 2 with its gate, by polling. What each
 * mode does at which tick is in tests/unit/test_timers.c. */
#define IRQ_HANDLER
#include "micro.inc"
.macro OUT8 port, value
    mov $\value, %al
    outb %al, $\port
.endm
.macro LOAD_COUNT channel, control, count
    OUT8 0x43, \control
    OUT8 0x40+\channel, (\count)&0xff
    OUT8 0x40+\channel, (\count)>>8
.endm
.macro OPEN on
    OUT8 0x61, \on
.endm
/* Wait until OUT of channel 2 is as said. */
.macro UNTIL out
9:  inb $0x61, %al
    shr $5, %al
    and $1, %al
    cmp $\out, %al
    jne 9b
.endm
.macro OUT_IS value
    inb $0x61, %al
    shr $5, %al
    and $1, %eax
    CHECK %rax, \value
.endm
/* The count of channel 2 into AX. */
.macro LATCH
    OUT8 0x43, 0x80
    inb $0x42, %al
    mov %al, %dl
    inb $0x42, %al
    mov %al, %ah
    mov %dl, %al
    movzwl %ax, %eax
.endm
.macro STATUS value
    OUT8 0x43, 0xe8
    inb $0x42, %al
    and $0x7f, %eax
    CHECK %rax, \value
.endm
PRELUDE
main:
    OUT8 0x20, 0x11
    OUT8 0x21, 0x30
    OUT8 0x21, 0x04
    OUT8 0x21, 0x01
    OUT8 0x21, 0xfe
    /* Channel 0: a period of a millisecond, in mode 2 and in mode 3. */
    LOAD_COUNT 0, 0x34, 1193
    LET_IN 3
    MOVE
    LET_IN 6
    LOAD_COUNT 0, 0x36, 1193
    LET_IN 9
    OUT8 0x43, 0x30              /* mode 0: nothing more without a count */
    mov $5000, %ecx              /* one may be on its way */
    sti
1:  dec %ecx
    jnz 1b
    cli
    movl $0, count
    OUT8 0x40, 0x00
    OUT8 0x40, 0x10
    MOVE
    LET_IN 1
    mov $20000, %ecx             /* once */
    sti
1:  dec %ecx
    jnz 1b
    cli
    CHECK count, 1

    /* Channel 2, mode 0: only while the gate is open. */
    OPEN 0
    LOAD_COUNT 2, 0xb0, 0x2000
    STATUS 0x30
    LATCH
    CHECK %rax, 0x2000
    mov $1000, %ecx
1:  pause
    dec %ecx
    jnz 1b
    LATCH
    CHECK %rax, 0x2000
    OUT_IS 0
    OPEN 1
1:  LATCH
    cmp $0x2000, %eax
    je 1b
    MOVE
    UNTIL 1
    OUT_IS 1
    inb $0x61, %al
    and $3, %eax
    CHECK %rax, 1
    /* Mode 1: a shot for each opening. */
    OPEN 0
    LOAD_COUNT 2, 0xb2, 0x800
    STATUS 0x72                  /* not loaded before the trigger */
    OUT_IS 1
    OPEN 1
    STATUS 0x32
    UNTIL 1
    OPEN 0
    OUT_IS 1
    /* Modes 2 and 3: high while the gate is shut; mode 3 goes both ways when it is open. */
    LOAD_COUNT 2, 0xb6, 0x400
    OUT_IS 1
    OPEN 1
    UNTIL 0
    UNTIL 1
    UNTIL 0
    OPEN 0
    OUT_IS 1
    LOAD_COUNT 2, 0xb4, 0xffff
    LATCH
    CHECK %rax, 0xffff
    OPEN 1
    LATCH
    mov %eax, %ebx
1:  LATCH
    cmp %ebx, %eax
    je 1b
    setb %al
    movzbl %al, %eax
    CHECK %rax, 1                /* downwards */
    /* A latched count stays until it is read. */
    OUT8 0x43, 0x80
    inb $0x42, %al
    mov %al, %bl
    OUT8 0x43, 0x80
    inb $0x42, %al
    mov %al, %bh
    OUT8 0x43, 0xd8              /* read-back of the count */
    inb $0x42, %al
    mov %al, %dl
    inb $0x42, %al
    mov %al, %dh
    cmp %bx, %dx
    setbe %al
    movzbl %al, %eax
    CHECK %rax, 1
    DONE

irq_handler:
    push %rax
    incl count
    mov $0x20, %al
    outb %al, $0x20
    pop %rax
    add $16, %rsp
    iretq
    .balign 8
count: .quad 0
