/* Virtual-8086 mode: what is sensitive to IOPL, segments, the way in and out; then with CR4.VME:
 * interrupts that stay inside, and a virtual IF. */
#include "micro32.inc"
#define V86_STACK 0x1000
#define EFLAGS_VM 0x20000
    PRELUDE32

/* Enter at a label in 1000h:, EFLAGS | VM. The monitor comes back at EBP in ring 0. */
.macro TO_V86 label, flags
    mov $0x2000, %eax
    push %eax                    /* GS, FS, DS, ES */
    push %eax
    push $0x1000
    push %eax
    push $0x3000                 /* SS:SP */
    push $V86_STACK
    push $EFLAGS_VM|\flags|2
    push $0x1000
    push $\label-_start
    iret
.endm
/* The handlers log and resume in virtual-8086 mode at BP. */
.macro V86_FAULTING vector, error, insn:vararg
    mov $9002f-_start, %ebp
9001: \insn
9002: EXPECT_FAULT32 \vector, \error, 9001b-_start
.endm

main:
    movl $vector_60-_start+0x10000000, 0x60*4
    movw $0x1234, 0x20010
    TO_V86 v86, 0
    .code16
v86:
    mov %cs, %ax
    CHECK16 %ax, 0x1000
    mov %ss, %ax
    CHECK16 %ax, 0x3000
    mov %es:0x10, %ax
    CHECK16 %ax, 0x1234
    mov $0x1fff, %ax
    mov %ax, %es
    mov %es:0x20, %ax
    CHECK16 %ax, 0x1234
    push $0x77
    pop %ax
    CHECK16 %ax, 0x77
    mov $100, %cx
    xor %ax, %ax
1:  add %cx, %ax
    loop 1b
    CHECK16 %ax, 5050
    lcall $0x1000, $far-_start
    CHECK16 %ax, 0x8765
    /* IOPL 0: these belong to the monitor. */
    V86_FAULTING GP, 0, cli
    V86_FAULTING GP, 0, sti
    V86_FAULTING GP, 0, pushf
    V86_FAULTING GP, 0, popf
    V86_FAULTING GP, 0, int $0x60
    V86_FAULTING GP, 0, iret
    V86_FAULTING GP, 0, hlt
    V86_FAULTING GP, 0, mov %cr0, %eax
    V86_FAULTING UD, 0, lar %ax, %bx
    V86_FAULTING GP, 0, movl %es:0xfffe, %eax
    V86_FAULTING UD, 0, .byte 0xc5, 0xf8, 0x58, 0xc0 /* a VEX prefix is LDS of a register */
    mov $9002f-_start, %ebp
9001: int3                       /* not IOPL-sensitive, and a trap */
    nop
9002: EXPECT_FAULT32 BP, 0, 9001b-_start+1
    mov $RING0, %edi
    mov $with_vme, %ebp
9001: int3
    EXPECT_FAULT32 BP, 0, 9001b-_start+1
far:
    mov $0x8765, %ax
    lret
vector_60:                       /* flags, CS, IP are on the stack */
    push %bp
    mov %sp, %bp
    mov 6(%bp), %ax
    pop %bp
    and $0x3200, %ax
    LOG16 %ax          /* IF as VIF says, IOPL 3 */
    pushf
    pop %ax
    and $0x200, %ax
    LOG16 %ax               /* VIF is off in the handler */
    mov $0x6060, %ax
    iret

    .code32
with_vme:
    mov %cr4, %eax
    or $1, %eax
    mov %eax, %cr4
    orb $2, redirection+0x61/8   /* 61h goes to the monitor */
    TO_V86 vme, 0
    .code16
vme:
    pushf
    pop %ax
    and $0x3200, %ax
    CHECK16 %ax, 0x3000          /* VIF is 0; IOPL reads as 3 */
    sti
    pushf
    pop %ax
    and $0x3200, %ax
    CHECK16 %ax, 0x3200
    int $0x60
    EXPECT 0x3200
    EXPECT 0
    CHECK16 %ax, 0x6060
    pushf
    pop %ax
    and $0x3200, %ax
    CHECK16 %ax, 0x3200          /* IRET brought VIF back */
    V86_FAULTING GP, 0, int $0x61
    cli
    pushf
    pop %ax
    and $0x3200, %ax
    CHECK16 %ax, 0x3000
    pushf
    pop %ax
    or $0x200, %ax
    push %ax
    popf
    pushf
    pop %ax
    and $0x3200, %ax
    CHECK16 %ax, 0x3200
    or $0x100, %ax               /* TF cannot be had so */
    push %ax
    V86_FAULTING GP, 0, popf
    mov $RING0, %edi
    mov $pending, %ebp
9001: int3
    EXPECT_FAULT32 BP, 0, 9001b-_start+1
    .code32
pending:
    /* A virtual interrupt is pending: STI is for the monitor. */
    TO_V86 vip, 0x100000
    .code16
vip:
    V86_FAULTING GP, 0, sti
    mov $RING0, %edi
    mov $iopl3, %ebp
9001: int3
    EXPECT_FAULT32 BP, 0, 9001b-_start+1
    .code32
iopl3:
    TO_V86 free, 0x3000
    .code16
free:
    cli
    sti
    pushf
    pop %ax
    and $0x3200, %ax
    CHECK16 %ax, 0x3200
    mov $RING0, %edi
    mov $end, %ebp
9001: int $0x61
    EXPECT_FAULT32 0x61, 0, 9001b-_start+2
    .code32
end:
    MOVE
    outb %al, $PORT_DONE
    hlt
