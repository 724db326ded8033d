/* 32-bit protected mode: faults, their handlers in 32-bit gates, IRET; BCD and other things of old. */
#include "micro.inc"
    .code32
    .globl _start
_start:
    mov $STACK, %esp
    movl $((small - _start + LOAD) & 0xffff) << 16 | 0xf, gdt+SEL_SPARE
    movl $((small - _start + LOAD) >> 16) | 0x409300, gdt+SEL_SPARE+4
    lgdt gdtr32
    ljmp $SEL_CODE32, $1f
1:  mov $SEL_DATA, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    lidt idtr32
    mov $SEL_SPARE, %eax
    mov %eax, %fs
    lea 1f, %ebp
2:  mov %fs:0xd, %eax            /* the limit is 0fh: four bytes do not fit */
1:  EXPECT FAULT_MARK+(GP<<32)
    EXPECT 2b
    lea 1f, %ebp
2:  movl %eax, %cs:0x8000        /* code cannot be written */
1:  EXPECT FAULT_MARK+(GP<<32)
    EXPECT 2b
    lea 1f, %ebp
2:  ud2
1:  EXPECT FAULT_MARK+(UD<<32)
    EXPECT 2b
    mov $0x19, %al
    add $0x28, %al
    daa
    movzbl %al, %eax
    CHECK32 %eax, 0x47
    mov $0x35, %al
    sub $0x17, %al
    das
    movzbl %al, %eax
    CHECK32 %eax, 0x18
    mov $0x0009, %ax
    add $8, %al
    aaa
    movzwl %ax, %eax
    CHECK32 %eax, 0x0107
    stc
    .byte 0xd6                   /* SALC */
    movzbl %al, %eax
    CHECK32 %eax, 0xff
    mov $0x20, %ecx
    bound %ecx, bounds
    lea 1f, %ebp
    mov $0x40, %ecx
2:  bound %ecx, bounds
1:  EXPECT FAULT_MARK+(5<<32)
    EXPECT 2b
    lea table, %ebx
    mov $2, %al
    xlatb
    movzbl %al, %eax
    CHECK32 %eax, 0x30
    MOVE
    outb %al, $PORT_DONE
2:  hlt
    jmp 2b

/* 32-bit handlers for #UD and #GP: log as the others do, go on at EBP. */
fault_br:
    push $0
    push $5
    jmp 1f
fault_ud:
    push $0
    push $UD
    jmp 1f
fault_gp:
    push $GP
1:  push %eax
    mov 8(%esp), %eax            /* error code */
    outl %eax, $PORT_LOG_LOW
    mov 4(%esp), %eax
    or $0xfa170000, %eax
    outl %eax, $PORT_LOG_HIGH
    mov 12(%esp), %eax
    outl %eax, $PORT_LOG
    mov %ebp, 12(%esp)
    pop %eax
    add $8, %esp
    iret

    .balign 8
small: .long 0, 0x89abcdef, 0, 0
bounds: .long 0x10, 0x3f
table: .byte 0x10, 0x20, 0x30, 0x40
    .balign 8
gdtr32:
    .word gdt_end - gdt - 1
    .long gdt
idtr32:
    .word 32 * 8 - 1
    .long idt32
    .balign 8
idt32:
    .set v, 0
    .rept 32
    .if v == 5
    .word (fault_br - _start + LOAD) & 0xffff, SEL_CODE32, 0x8e00, (fault_br - _start + LOAD) >> 16
    .elseif v == UD
    .word (fault_ud - _start + LOAD) & 0xffff, SEL_CODE32, 0x8e00, (fault_ud - _start + LOAD) >> 16
    .elseif v == GP
    .word (fault_gp - _start + LOAD) & 0xffff, SEL_CODE32, 0x8e00, (fault_gp - _start + LOAD) >> 16
    .else
    .quad 0
    .endif
    .set v, v + 1
    .endr

    .code64
unused:
    PRELUDE_TABLES
main:
    DONE
