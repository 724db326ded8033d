/* XSAVE, XRSTOR, XSETBV, and the state they manage, in ring 0. */
#include "micro.inc"
PRELUDE
main:
    FAULTING UD, 0, xsave FREE       /* not without CR4.OSXSAVE */
    mov %cr4, %rax
    or $0x40000, %rax
    mov %rax, %cr4
    mov $1, %eax
    xor %ecx, %ecx
    cpuid
    shr $27, %ecx
    and $1, %ecx
    CHECK %rcx, 1                    /* OSXSAVE shows in CPUID */
    xor %ecx, %ecx
    xgetbv
    CHECK %rax, 1
    mov $3, %eax
    xor %edx, %edx
    xsetbv
    xgetbv
    CHECK %rax, 3
    CHECK %rdx, 0
    mov $2, %eax
    FAULTING GP, 0, xsetbv           /* x87 cannot be off */
    mov $1, %ecx
    mov $3, %eax
    FAULTING GP, 0, xsetbv           /* there is no XCR1 */
    xor %ecx, %ecx
    fninit
    movabs $0x1122334455667788, %rax
    movq %rax, %xmm7
    MOVE
    mov $3, %eax
    xor %edx, %edx
    xsave FREE
    mov FREE+512, %rax
    and $2, %eax
    CHECK %rax, 2
    CHECK FREE+520, 0
    CHECK FREE+160+7*16, 0x1122334455667788
    pxor %xmm7, %xmm7
    mov $3, %eax
    xrstor FREE
    movq %xmm7, %rax
    CHECK %rax, 0x1122334455667788
    /* A component whose bit is clear gets its initial state. */
    movq $0, FREE+512
    mov $3, %eax
    xrstor FREE
    movq %xmm7, %rax
    CHECK %rax, 0
    movabs $0x8000000000000000, %rax
    mov %rax, FREE+512
    mov $3, %eax
    FAULTING GP, 0, xrstor FREE      /* compacted, without having been asked for */
    movq $4, FREE+512
    FAULTING GP, 0, xrstor FREE      /* a component that XCR0 does not have */
    movq $3, FREE+512
    FAULTING GP, 0, xrstor FREE+8    /* not aligned */
    mov %cr0, %rax
    or $8, %rax
    mov %rax, %cr0
    mov $3, %eax
    FAULTING NM, 0, xsave FREE
    clts
    DONE
