/* 32-bit code in ring 3 under a 64-bit kernel: what only legacy code has, segments with a base,
 * exceptions into the 64-bit kernel and back, far jumps to 64-bit code and back. */
#include "micro.inc"
#define MSR_FS_BASE 0xc0000100
PRELUDE
main:
    USER_PAGES
    /* A segment of ring 3 with a base and a limit. */
    movl $((small - _start + LOAD) & 0xffff) << 16 | 0xf, gdt+SEL_SPARE
    movl $((small - _start + LOAD) >> 16) | 0x40f300, gdt+SEL_SPARE+4
    mov $0xffffffff12345678, %rbx
    mov $0x1111, %r8d
    TO_USER user_start, SEL_USER32

    .balign 4096
    .code32
/* In 32-bit code of ring 3: log a register. UD2 with EDI = 'LOG!', since R14 is not to be had. */
.macro LOG_USER32 reg
    push %edi
    push \reg
    mov $0x21474f4c, %edi
    ud2
    pop \reg
    pop %edi
.endm
.macro CHECK_USER32 reg, value:vararg
    LOG_USER32 \reg
    EXPECT \value
.endm
/* One instruction that must fault; EBP says where to go on, EDI = 'FLT!' that it does. */
.macro FAULTING32 vector, error, insn:vararg
    lea 9002f, %ebp
    mov $0x21544c46, %edi
9001: \insn
9002: EXPECT_FAULT \vector, \error, 9001b
.endm
user_start:
    mov $SEL_USER_DATA, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %cs, %eax
    CHECK_USER32 %eax, SEL_USER32
    mov %esp, %eax
    CHECK_USER32 %eax, USER_STACK
    CHECK_USER32 %ebx, 0x12345678
    xor %eax, %eax
    inc %eax                     /* 40h */
    inc %eax
    dec %eax
    CHECK_USER32 %eax, 1
    mov $0x11111111, %ecx
    mov $0x22222222, %edx
    pusha
    xor %ecx, %ecx
    xor %edx, %edx
    popa
    CHECK_USER32 %ecx, 0x11111111
    CHECK_USER32 %edx, 0x22222222
    pushl $0x1234
    pushw $0x5678
    popw %cx
    popl %edx
    CHECK_USER32 %edx, 0x1234
    mov %esp, %eax
    CHECK_USER32 %eax, USER_STACK
    call 1f
1:  pop %eax
    CHECK_USER32 %eax, 1b
    xor %ecx, %ecx
    jecxz 3f
    ud2
3:  mov $0x10, %ecx
    xor %eax, %eax
4:  add %ecx, %eax
    loop 4b
    CHECK_USER32 %eax, 0x88
    push %cs
    popl %eax
    CHECK_USER32 %eax, SEL_USER32
    mov $SEL_SPARE|3, %eax
    mov %eax, %gs
    mov %gs:4, %eax
    CHECK_USER32 %eax, 0x89abcdef
    push %ds
    push $SEL_SPARE|3
    pop %ds
    mov 8, %ecx
    pop %ds
    CHECK_USER32 %ecx, 0x76543210
    lea table, %ebx
    mov $2, %al
    xlat
    movzbl %al, %eax
    CHECK_USER32 %eax, 0x30
    les pointer, %edx
    CHECK_USER32 %edx, 0xcafe
    mov %es, %eax
    CHECK_USER32 %eax, SEL_USER_DATA
    /* Addresses wrap at 4 GiB. */
    mov $0xfffffff0, %eax
    mov table-0xfffffff0+0x100000000(%eax), %cl
    movzbl %cl, %ecx
    CHECK_USER32 %ecx, 0x10
    /* 64-bit code and back. */
    ljmp $SEL_USER, $5f
    .code64
5:  movabs $0x1122334455667788, %r9
    UCHECK %r9, 0x1122334455667788
    UCHECK %r8, 0x1111           /* 32-bit code left it alone */
    mov %cs, %eax
    UCHECK %rax, SEL_USER
    pushq $SEL_USER32
    pushq $6f
    lretq
    .code32
6:  mov %cs, %eax
    CHECK_USER32 %eax, SEL_USER32
    /* Faults. */
    xor %ecx, %ecx
    xor %edx, %edx
    FAULTING32 DE, 0, div %ecx
    FAULTING32 GP, 0, mov %gs:0x10, %eax
    mov $FREE, %ebx
    FAULTING32 PF, 5, mov (%ebx), %eax
    EXPECT FREE
    FAULTING32 GP, 0, hlt
    ljmp $SEL_USER, $7f
    .code64
7:  TO_KERNEL after_user
    .balign 8
eight: .quad 0
table: .byte 0x10, 0x20, 0x30, 0x40
pointer:
    .long 0xcafe
    .word SEL_USER_DATA
    .balign 8
small: .long 0, 0x89abcdef, 0x76543210, 0
    .balign 4096
user_end:

after_user:
    mov %cs, %eax
    CHECK %rax, SEL_CODE
    DONE
