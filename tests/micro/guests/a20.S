/* The A20 gate by port 92h, from real mode: addresses wrap at 1 MiB while it is off (as HIMEM.SYS and
 * Linux look for), for data, strings, code and odd megabytes; devices see no gate. */
#include "micro.inc"
#define PORT_92 0x92
#define LOW 0x8100             /* of segment 0; FFFFh:8110h is 1 MiB above */
#define HIGH 0x8110
#define CODE_LOW 0x8200
#define CODE_HIGH 0x8210
.macro GATE_IS on
    mov $\on*2, %al
    outb %al, $PORT_92
.endm
    .code16
    .globl _start
_start:
    cld
    xor %ax, %ax
    mov %ax, %ds
    mov %ax, %ss
    mov $0x8000, %sp
    mov $0xffff, %ax
    mov %ax, %es
    inb $PORT_92, %al
    and $3, %ax
    CHECK16 %ax, 2             /* on at first */
    movw $0x1111, LOW
    movw $0x2222, %es:HIGH
    mov LOW, %ax
    CHECK16 %ax, 0x1111
    /* Off: from the next instruction on. */
    GATE_IS 0
    mov %es:HIGH, %bx
    CHECK16 %bx, 0x1111
    inb $PORT_92, %al
    and $3, %ax
    CHECK16 %ax, 0
    movw $0x3333, %es:HIGH
    mov LOW, %ax
    CHECK16 %ax, 0x3333
    /* Saved and loaded it is off. */
    MOVE
    mov %es:HIGH, %ax
    CHECK16 %ax, 0x3333
    /* A device's access does not wrap. */
    mov $0x100000+LOW, %eax
    outl %eax, $PORT_DMA
    mov LOW, %ax
    CHECK16 %ax, 0x3333
    /* A word across the end, a string across it: the last 8 bytes of the first MiB, then its first. */
    movl $0, 0
    movw $0xaabb, %es:0xf
    movzbw 0, %ax
    CHECK16 %ax, 0xaa
    movw $0, LOW+0x20
    mov $LOW+0x20, %di
    mov $8, %cx
1:  mov %cx, (%di)
    add $2, %di
    loop 1b
    mov $LOW+0x20, %si
    mov $8, %di
    mov $8, %cx
    rep movsw
    mov %es:8, %ax
    CHECK16 %ax, 8
    mov 0, %ax
    CHECK16 %ax, 4
    mov 6, %ax
    CHECK16 %ax, 1
    /* On again. */
    GATE_IS 1
    mov %es:HIGH, %ax
    CHECK16 %ax, 0x2223        /* and one that the device has added */
    inb $PORT_92, %al
    and $3, %ax
    CHECK16 %ax, 2

    /* Code at the same address, with and without: MOV AX, n; RETF. */
    movl $0xcb0077b8, CODE_LOW
    movl $0xcb0088b8, %es:CODE_HIGH
    mov $20, %bp
2:  GATE_IS 0
    lcall $0xffff, $CODE_HIGH
    cmp $0x77, %ax
    jne wrong
    GATE_IS 1
    lcall $0xffff, $CODE_HIGH
    cmp $0x88, %ax
    jne wrong
    dec %bp
    jnz 2b
    CHECK16 %ax, 0x88
    /* What is written to the low place while the gate is off changes the code there. */
    GATE_IS 0
    movb $0x66, %es:CODE_HIGH+1
    lcall $0xffff, $CODE_HIGH
    CHECK16 %ax, 0x66
    GATE_IS 1
    lcall $0xffff, $CODE_HIGH
    CHECK16 %ax, 0x88
    lcall $0, $CODE_LOW
    CHECK16 %ax, 0x66

    /* Unreal mode: FS reaches 4 GiB. Every odd MiB is the even one below. */
    mov %cs, %ax
    mov %ax, %ds
    lgdtl gdtr - _start
    xor %ax, %ax
    mov %ax, %ds
    mov %cr0, %eax
    or $1, %al
    mov %eax, %cr0
    mov $SEL_DATA, %bx
    mov %bx, %fs
    and $0xfe, %al
    mov %eax, %cr0
    mov $0x200000, %ebx
    mov $0x300000, %ecx
    movl $0x20, %fs:(%ebx)
    movl $0x30, %fs:(%ecx)
    GATE_IS 0
    mov %fs:(%ecx), %eax
    CHECK16 %ax, 0x20
    movl $0x44, %fs:(%ecx)
    GATE_IS 1
    mov %fs:(%ecx), %eax
    CHECK16 %ax, 0x30
    mov %fs:(%ebx), %eax
    CHECK16 %ax, 0x44
    DONE
wrong:
    mov $0xdead, %ax
    outw %ax, $PORT_LOG
    DONE

    .code64
    PRELUDE_TABLES
main:
    hlt
