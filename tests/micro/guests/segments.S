/* Segments in 64-bit mode: null selectors, LAR, LSL, VERR, far returns, SGDT, the LDT, conforming
 * code, STR. */
#include "micro.inc"
PRELUDE
main:
    xor %eax, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %fs
    mov %ds, %eax
    CHECK %rax, 0
    CHECK main_number, 0x1234        /* a null DS is no obstacle */
    mov %eax, %ss                    /* nor a null SS in ring 0 */
    push %rax
    pop %rax
    mov $SEL_DATA, %eax
    mov %eax, %ss
    mov $SEL_CODE, %ecx
    xor %eax, %eax
    lar %ecx, %eax
    CHECK_FLAGS 0x44
    CHECK %rax, 0x00af9b00
    lsl %ecx, %eax
    CHECK %rax, 0xffffffff
    mov $0x1230, %ecx
    lar %ecx, %eax
    CHECK_FLAGS 4                    /* beyond the table: ZF clear */
    CHECK %rax, 0xffffffff
    mov $SEL_TSS, %ecx
    lar %ecx, %eax
    CHECK %rax, 0x00008b00           /* busy */
    mov $SEL_DATA, %ecx
    verr %cx
    CHECK_FLAGS 0x44
    verw %cx
    CHECK_FLAGS 0x44
    mov $SEL_CODE, %ecx
    verw %cx
    CHECK_FLAGS 4
    str %eax
    CHECK %rax, SEL_TSS
    sldt %eax
    CHECK %rax, 0
    smsw %eax
    CHECK %rax, 0x80010033
    sgdt FREE
    CHECK FREE+2, gdt
    movzwl FREE, %eax
    CHECK %rax, gdt_end-gdt-1
    sidt FREE
    CHECK FREE+2, idt
    /* Far return and far call. */
    push $SEL_CODE
    push $1f
    lretq
1:  CHECK %rsp, STACK
    lcall *far(%rip)
    CHECK %rsp, STACK
    CHECK %rax, 0xfa5
    push $SEL_DATA
    push $1f
    FAULTING GP, SEL_DATA, lretq     /* not code */
    add $16, %rsp
1:
    /* IRETQ to a wrong selector faults in the instruction itself. */
    pushq $SEL_DATA
    pushq $STACK
    pushq $2
    pushq $0x1230
    pushq $1f
    FAULTING GP, 0x1230, iretq
1:  mov $STACK, %rsp
    /* An LDT of one entry. */
    movl $((ldt - _start + LOAD) & 0xffff) << 16 | 7, gdt+SEL_SPARE
    movl $((ldt - _start + LOAD) >> 16) | 0x8200, gdt+SEL_SPARE+4
    mov $SEL_SPARE, %eax
    lldt %ax
    sldt %eax
    CHECK %rax, SEL_SPARE
    mov $4, %eax
    mov %eax, %fs
    MOVE
    mov %fs:0, %eax
    CHECK %rax, 0x1234
    mov $12, %eax
    FAULTING GP, 12, mov %eax, %fs   /* beyond the LDT */
    xor %eax, %eax
    lldt %ax
    mov $4, %eax
    FAULTING GP, 4, mov %eax, %fs
    DONE
far_target:
    mov $0xfa5, %eax
    lretl                            /* LCALL pushed 32-bit halves */
    .balign 8
far: .long far_target, SEL_CODE
main_number: .quad 0x1234
ldt: .word 0xffff, (main_number - _start + LOAD) & 0xffff
    .byte (main_number - _start + LOAD) >> 16, 0xf3, 0xcf, 0
