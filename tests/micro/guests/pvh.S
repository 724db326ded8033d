/* From the entry state of PVH (32-bit protected mode, no paging) through segments and 32-bit code
 * into 64-bit mode, and back into compatibility mode. */
#include "micro.inc"
    .code32
    .globl _start
_start:
    mov $STACK, %esp
    mov %cs, %eax
    CHECK32 %eax, 8
    mov %cr0, %eax
    CHECK32 %eax, 0x11
    CHECK32 %ebx, 0x9000
    /* 32-bit code: one-byte INC and DEC, PUSHA, segment prefixes, BCD. */
    xor %eax, %eax
    inc %eax
    inc %eax
    dec %eax
    CHECK32 %eax, 1
    mov $0x11111111, %ecx
    mov $0x22222222, %edx
    pusha
    xor %ecx, %ecx
    xor %edx, %edx
    popa
    CHECK32 %ecx, 0x11111111
    CHECK32 %edx, 0x22222222
    mov $0x0123, %ax
    aam $10
    movzwl %ax, %eax
    CHECK32 %eax, 0x0305
    push $0x1234
    pushw $0x5678
    popw %cx
    pop %edx
    CHECK32 %edx, 0x1234
    /* 16-bit addresses and operands. */
    movl $0x55667788, 0x8000
    mov $0x7ff0, %bx
    mov $0x10, %si
    addr16 mov (%bx,%si), %ax
    movzwl %ax, %eax
    CHECK32 %eax, 0x7788
    /* Our own GDT: a segment with a base and a limit. */
    movl $((small - _start + LOAD) & 0xffff) << 16 | 0xf, gdt+SEL_SPARE
    movl $((small - _start + LOAD) >> 16) | 0x409300, gdt+SEL_SPARE+4
    lgdt gdtr32
    ljmp $SEL_CODE32, $1f
1:  mov $SEL_DATA, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov $SEL_SPARE, %eax
    mov %eax, %fs
    mov %fs:4, %eax
    CHECK32 %eax, 0x89abcdef
    movl $0x01020304, %fs:8
    mov small+8, %eax
    CHECK32 %eax, 0x01020304
    /* PAE paging, long mode. */
    mov $PML4, %eax
    mov %eax, %cr3
    mov %cr4, %eax
    or $0x20, %eax
    mov %eax, %cr4
    mov $0xc0000080, %ecx
    rdmsr
    or $0x901, %eax              /* NXE LME SCE */
    wrmsr
    mov %cr0, %eax
    or $0x80010000, %eax
    mov %eax, %cr0
    rdmsr
    CHECK32 %eax, 0xd01          /* LMA: compatibility mode now */
    mov $0x77, %eax
    inc %eax                     /* still 32-bit code */
    CHECK32 %eax, 0x78
    ljmp $SEL_CODE, $long_mode

    .balign 8
small: .long 0, 0x89abcdef, 0, 0
gdtr32:
    .word gdt_end - gdt - 1
    .long gdt

    .code64
long_mode:
    PRELUDE_TABLES
main:
    mov %cs, %eax
    CHECK %rax, SEL_CODE
    movabs $0x123456789abcdef0, %rax
    CHECK %rax, 0x123456789abcdef0
    MOVE
    /* Back to 32-bit code under the same tables, and here again. */
    ljmpl *1f(%rip)
1:  .long 2f, SEL_CODE32
    .code32
2:  mov $5, %eax
    dec %eax
    CHECK32 %eax, 4
    ljmp $SEL_CODE, $3f
    .code64
3:  movabs $0x1122334455667788, %rax
    CHECK %rax, 0x1122334455667788
    DONE
