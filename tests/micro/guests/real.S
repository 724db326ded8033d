/* Real mode: segments, the interrupt table, 16-bit arithmetic and strings; then to 64-bit mode in
 * one go. Runs at 1000:0000. */
#include "micro.inc"
    .code16
    .globl _start
_start:
    cld
    mov $0x1000, %ax
    mov %ax, %ds
    mov %cs, %ax
    CHECK16 %ax, 0x1000
    xor %ax, %ax
    mov %ax, %ss
    mov $0x8000, %sp
    /* 20-bit addresses. */
    mov $0x2000, %ax
    mov %ax, %es
    movw $0x1234, %es:0x10
    mov $0x1fff, %ax
    mov %ax, %fs
    mov %fs:0x20, %ax
    CHECK16 %ax, 0x1234
    /* 16-bit arithmetic; 32-bit registers with a prefix. */
    mov $0xffff, %ax
    add $2, %ax
    CHECK16 %ax, 1
    mov $0x12345678, %eax
    shr $16, %eax
    CHECK16 %ax, 0x1234
    mov $0x8000, %ax
    cwd
    CHECK16 %dx, 0xffff
    mov $7, %bx
    mov $100, %ax
    xor %dx, %dx
    div %bx
    CHECK16 %ax, 14
    CHECK16 %dx, 2
    mov $5, %cx
    xor %ax, %ax
1:  add %cx, %ax
    loop 1b
    CHECK16 %ax, 15
    call near
    CHECK16 %ax, 0x4321
    lcall $0x1000, $far - _start
    CHECK16 %ax, 0x8765
    push $0x99
    pop %ax
    CHECK16 %ax, 0x99
    /* Strings, across the end of nothing. */
    mov $text - _start, %si
    mov $0x100, %di
    mov $8, %cx
    rep movsb
    mov %es:0x106, %ax
    CHECK16 %ax, 0x0807
    /* A software interrupt, a division fault. */
    xor %ax, %ax
    mov %ax, %fs
    movw $handler - _start, %fs:0x60*4
    movw $0x1000, %fs:0x60*4+2
    movw $divide - _start, %fs:0
    movw $0x1000, %fs:2
    int $0x60
    CHECK16 %ax, 0x6060
    xor %bx, %bx
    mov $1, %ax
2:  div %bx
after_div:
    EXPECT 0xde
    EXPECT 2b - _start
    CHECK16 %ax, 1
    /* A20 is on; 64 KiB limits are not checked here. Off to long mode: CR4, CR3, EFER, then PE and
     * PG at once. */
    mov $0x620, %eax
    mov %eax, %cr4
    mov $PML4, %eax
    mov %eax, %cr3
    mov $0xc0000080, %ecx
    mov $0x901, %eax
    xor %edx, %edx
    wrmsr
    lgdtl gdtr - _start
    mov $0x80010033, %eax
    mov %eax, %cr0
    ljmpl $SEL_CODE, $long_mode
near:
    mov $0x4321, %ax
    ret
far:
    mov $0x8765, %ax
    lret
handler:
    mov $0x6060, %ax
    iret
divide:
    push %ax
    push %bp
    mov %sp, %bp
    mov $0xde, %ax
    outw %ax, $PORT_LOG
    mov 4(%bp), %ax
    outw %ax, $PORT_LOG
    movw $after_div - _start, 4(%bp)
    pop %bp
    pop %ax
    iret
text: .byte 1, 2, 3, 4, 5, 6, 7, 8

    .code64
long_mode:
    PRELUDE_TABLES
main:
    MOVE
    movabs $0x123456789abcdef0, %rax
    CHECK %rax, 0x123456789abcdef0
    FAULTING UD, 0, ud2
    DONE
