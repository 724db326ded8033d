/* SYSCALL and SYSRET: what they load, save and mask; SWAPGS. */
#include "micro.inc"
#define MSR_STAR 0xc0000081
#define MSR_LSTAR 0xc0000082
#define MSR_SFMASK 0xc0000084
#define MSR_GS_BASE 0xc0000101
#define MSR_KERNEL_GS_BASE 0xc0000102
.macro WRITE_MSR msr, low, high=0
    mov $\msr, %ecx
    mov $\low, %eax
    mov $\high, %edx
    wrmsr
.endm
PRELUDE
main:
    USER_PAGES
    WRITE_MSR MSR_STAR, 0, 0x00230010
    WRITE_MSR MSR_LSTAR, syscall_entry
    WRITE_MSR MSR_SFMASK, 0x44700 /* AC NT DF IF TF */
    WRITE_MSR MSR_KERNEL_GS_BASE, FREE
    WRITE_MSR MSR_GS_BASE, user_gs
    movq $0x99, FREE+8
    TO_USER user_start

syscall_entry:
    swapgs
    LOG %gs:8
    LOG %rcx
    LOG %r11
    pushfq
    popq %rax
    LOG %rax
    mov %cs, %eax
    LOG %rax
    mov %ss, %eax
    LOG %rax
    LOG %rsp
    MOVE
    swapgs
    sysretq

    .balign 4096
user_start:
    mov $2, %edi
    pushfq
    orq $0x400, (%rsp)           /* DF: SFMASK clears it in the kernel */
    popfq
    syscall
1:  EXPECT 0x99
    EXPECT 1b
    EXPECT 0x402
    EXPECT 2
    EXPECT SEL_CODE
    EXPECT SEL_DATA
    EXPECT USER_STACK
    pushfq
    popq %rax
    UCHECK %rax, 0x402
    cld
    mov %rcx, %rbp
    mov %cs, %eax
    UCHECK %rax, SEL_USER
    mov %ss, %eax
    UCHECK %rax, SEL_USER_DATA
    UCHECK %gs:8, 0x77
    TO_KERNEL after_user
    .balign 8
user_gs: .quad 0, 0x77
    .balign 4096
user_end:

after_user:
    /* Without EFER.SCE there is no SYSCALL. */
    mov $0xc0000080, %ecx
    rdmsr
    and $~1, %eax
    wrmsr
    FAULTING UD, 0, syscall
    FAULTING UD, 0, sysretq
    or $1, %eax
    wrmsr
    DONE
