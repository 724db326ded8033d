/* Real mode's corners: limits of 64 KiB that fault through the interrupt table, then unreal mode
 * (segments that keep the limits protected mode gave them), 16-bit protected mode, the way back. */
#define EXTRA
#include "micro32.inc"
.macro EXTRA_DESCRIPTORS
    DESCRIPTOR LOAD, 0xffff, 0x9b, 0                   /* 50: code, 16 bits */
.endm
    .code16
    .globl _start
_start:
    cli
    cld
    mov $0x1000, %ax
    mov %ax, %ds
    xor %ax, %ax
    mov %ax, %ss
    mov %ax, %es
    mov $0x8000, %sp
    movl $fault-_start+0x10000000, %es:GP*4
    movl $stack_fault-_start+0x10000000, %es:SSF*4
    movl $bound_fault-_start+0x10000000, %es:BR*4
    /* 32-bit offsets beyond 64 KiB, and words that straddle its end. */
    mov $0x10000, %ebx
    mov $9002f-_start, %bp
9001: mov (%ebx), %al
9002: EXPECT 0xfa17000d
    EXPECT 9001b-_start
    mov $9002f-_start, %bp
    mov $0xffff, %bx
9001: mov (%bx), %ax
9002: EXPECT 0xfa17000d
    EXPECT 9001b-_start
    mov $9002f-_start, %bp
9001: addl $1, -1(%bx)
9002: EXPECT 0xfa17000d
    EXPECT 9001b-_start
    mov (%bx), %al               /* the last byte is there */
    /* Offsets wrap at 64 KiB: [BX+SI] with FFFFh + 2 is 1. */
    mov $2, %si
    mov (%bx,%si), %al
    xor %ah, %ah
    CHECK16 %ax, 0xfc            /* CLD, the second instruction */
    /* Pushes wrap, too. */
    mov %sp, %di
    mov $2, %sp
    push $0x1111
    push $0x2222
    CHECK16 %sp, 0xfffc          /* the macro pushes, too */
    pop %ax
    CHECK16 %ax, 0x2222
    pop %ax
    CHECK16 %ax, 0x1111
    mov %di, %sp
    mov $9002f-_start, %bp
    mov $5, %ax
9001: bound %ax, limits-_start
9002: EXPECT 0xfa170005
    EXPECT 9001b-_start
    /* Into protected mode with 16-bit code, a flat DS, and back: DS keeps 4 GiB. */
    lgdtl gdtr32-_start
    mov %cr0, %eax
    or $1, %al
    mov %eax, %cr0
    ljmp $0x50, $1f-_start
1:  mov $SEL_DATA, %cx
    mov %cx, %ds
    mov %cx, %es
    mov %cs, %cx
    CHECK16 %cx, 0x50
    mov $0x200000, %ebx
    movl $0x12345678, (%ebx)
    mov %cr0, %eax
    and $0xfe, %al
    mov %eax, %cr0
    ljmp $0x1000, $1f-_start
1:  xor %ax, %ax
    mov %ax, %ds                 /* a new base, not a new limit */
    mov %ax, %es
    mov $0x200000, %ebx
    mov (%ebx), %eax
    shr $16, %eax
    CHECK16 %ax, 0x1234
    mov $0x200000, %esi
    mov $0x210000, %edi
    mov $4, %ecx
    addr32 rep movsb
    mov %es:2(%edi), %ax
    mov %es:-2(%edi), %ax
    CHECK16 %ax, 0x1234
    mov $0x1000, %ax
    mov %ax, %ds
    mov $9002f-_start, %bp       /* SS never had more than 64 KiB */
9001: mov %ss:0xffff, %ax
9002: EXPECT 0xfa17000c
    EXPECT 9001b-_start
    mov $100, %cx
    xor %ax, %ax
1:  add %cx, %ax
    loop 1b
    CHECK16 %ax, 5050
    mov $0x1f, %al
    .byte 0xd5, 0x0a             /* AAD */
    mov $0x49, %al
    aam
    CHECK16 %ax, 0x0703
    pushal
    mov $0, %esi
    popal
    jmp on
fault:
    push %ax
    mov $0xd, %al
    jmp 1f
stack_fault:
    push %ax
    mov $0xc, %al
    jmp 1f
bound_fault:
    push %ax
    mov $5, %al
1:  push %bp                     /* BP, AX, IP, CS, flags: no error code */
    mov %sp, %bp
    movzbl %al, %eax
    or $0xfa170000, %eax
    outl %eax, $PORT_LOG
    mov 4(%bp), %ax
    outw %ax, $PORT_LOG
    mov (%bp), %ax
    mov %ax, 4(%bp)
    pop %bp
    pop %ax
    iret
limits: .word 0, 4
on:
    mov %cr0, %eax
    or $1, %al
    mov %eax, %cr0
    ljmpl $SEL_CODE32, $protected
    .code32
protected:
    mov $SEL_DATA, %eax
    mov %eax, %ss
    mov %eax, %ds
    PRELUDE32_TABLES
main:
    MOVE
    FAULTING32 UD, 0, ud2
    outb %al, $PORT_DONE
    hlt
