/*
 * A guest that fits into a boot sector: it says hello on the screen and on the serial line, then
 * repeats on both what is typed on either; Enter ends a line with "heard". By the BIOS, 16-bit.
 */
    .code16
    .text
    .globl _start
_start:
    xor %ax, %ax
    mov %ax, %ds
    mov %ax, %ss
    mov $0x7c00, %sp
    mov $0x3fb, %dx                 /* COM1: 115200 8N1, FIFOs */
    mov $0x80, %al
    out %al, %dx
    mov $0x3f8, %dx
    mov $1, %al
    out %al, %dx
    inc %dx
    xor %al, %al
    out %al, %dx
    mov $0x3fb, %dx
    mov $3, %al
    out %al, %dx
    dec %dx
    mov $7, %al
    out %al, %dx
    mov $hello, %si
    call say
wait:
    sti
    hlt                             /* until the timer's or the keyboard's interrupt */
keyboard:
    mov $1, %ah
    int $0x16
    jz serial
    xor %ah, %ah
    int $0x16
    call heard
    jmp keyboard
serial:
    mov $0x3fd, %dx
    in %dx, %al
    test $1, %al
    jz wait
    mov $0x3f8, %dx
    in %dx, %al
    call heard
    jmp serial

heard:                              /* AL: a character that was typed */
    cmp $13, %al
    jne put
    mov $answer, %si
say:
    lodsb
    test %al, %al
    jz done
    call put
    jmp say

put:                                /* AL to both */
    mov $0x0e, %ah
    mov $7, %bx
    push %ax
    int $0x10
    mov $0x3fd, %dx
1:  in %dx, %al
    test $0x20, %al
    jz 1b
    pop %ax
    mov $0x3f8, %dx
    out %al, %dx
done:
    ret

hello:
    .asciz "Mullion's smallest guest\r\nsay something> "
answer:
    .asciz "\r\nheard\r\nsay something> "

    .org 510
    .word 0xaa55
