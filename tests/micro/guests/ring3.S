/* Ring 3: IRETQ, exceptions with a change of stack, what is forbidden there. */
#include "micro.inc"
#define MSR_GS_BASE 0xc0000101
PRELUDE
main:
    USER_PAGES
    mov $MSR_GS_BASE, %ecx
    mov $user_gs, %eax
    xor %edx, %edx
    wrmsr
    mov $0x1234, %ebx
    TO_USER user_start

    .balign 4096
user_start:
    mov %cs, %eax
    UCHECK %rax, SEL_USER
    mov %ss, %eax
    UCHECK %rax, SEL_USER_DATA
    UCHECK %rsp, USER_STACK
    UCHECK %rbx, 0x1234
    movq $0x4321, user_data
    UCHECK %gs:8, 0x77
    /* A loop that only computes. */
    mov $100000, %ecx
    xor %eax, %eax
1:  add %rcx, %rax
    dec %ecx
    jnz 1b
    UCHECK %rax, 5000050000
    /* What is forbidden. */
    FAULTING GP, 0, hlt
    FAULTING GP, 0, cli
    FAULTING GP, 0, mov %cr0, %rax
    FAULTING GP, 0, mov %rax, %cr3
    FAULTING GP, 0, lgdt gdtr
    FAULTING GP, 0, wrmsr
    FAULTING GP, 0, rdmsr
    FAULTING GP, 0, invlpg (%rsp)
    FAULTING GP, 0, swapgs
    FAULTING GP, 0, sysretq
    FAULTING GP, 0, clts
    FAULTING GP, 0, inb $0x80, %al
    FAULTING GP, 0, outl %eax, %dx
    FAULTING UD, 0, ud2
    PAGE_FAULTING 5, FREE, mov FREE, %rax
    PAGE_FAULTING 7, FREE, mov %rax, FREE
    mov $main, %ebx
    lea 1f(%rip), %r15
    jmp *%rbx
1:  EXPECT_PF 0x15, main, main
    movabs $0x8000000000000000, %rbx
    FAULTING GP, 0, mov (%rbx), %eax
    xor %edx, %edx
    xor %ecx, %ecx
    FAULTING DE, 0, div %ecx
    /* INT3 has a gate of ring 3. */
    lea 1f(%rip), %r15
    int3
1:  EXPECT_FAULT BP, 0, 1b
    UCHECK %rsp, USER_STACK
    xor %eax, %eax
    mov %eax, %ds
    mov $SEL_USER_DATA, %eax
    mov %eax, %es
    mov %es, %eax
    UCHECK %rax, SEL_USER_DATA
    mov %ds, %eax
    UCHECK %rax, 0
    mov $SEL_DATA, %eax
    FAULTING GP, SEL_DATA, mov %eax, %ds /* of ring 0 */
    TO_KERNEL after_user
    .balign 8
user_data: .quad 0
user_gs: .quad 0, 0x77
    .balign 4096
user_end:

after_user:
    mov %cs, %eax
    CHECK %rax, SEL_CODE
    CHECK %rsp, STACK
    /* User pages are the kernel's, too, without SMAP. */
    CHECK user_data, 0x4321
    DONE
