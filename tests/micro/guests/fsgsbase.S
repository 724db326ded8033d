/* RDFSBASE and its family: only with CR4.FSGSBASE; in ring 3, too. */
#include "micro.inc"
PRELUDE
main:
    FAULTING UD, 0, rdfsbase %rax
    mov %cr4, %rax
    or $0x10000, %rax
    mov %rax, %cr4
    mov $FREE, %eax
    wrfsbase %rax
    movq $0x77, FREE+8
    CHECK %fs:8, 0x77
    movabs $0xffff800012345678, %rax
    wrgsbase %rax
    xor %eax, %eax
    MOVE
    rdgsbase %rax
    CHECK %rax, 0xffff800012345678
    rdgsbase %eax
    CHECK %rax, 0x12345678
    movabs $0x8000000000000000, %rax
    FAULTING GP, 0, wrfsbase %rax
    rdfsbase %rax
    CHECK %rax, FREE
    mov $-1, %rax
    wrfsbase %eax
    rdfsbase %rax
    CHECK %rax, 0xffffffff
    mov $SEL_DATA, %eax
    mov %eax, %gs                    /* a selector loads its base */
    rdgsbase %rax
    CHECK %rax, 0
    DONE
