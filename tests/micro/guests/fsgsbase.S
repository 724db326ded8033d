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
    mov $FREE, %r10d
    stc                              /* flags stay */
    wrfsbase %r10
    sbb %rcx, %rcx
    rdfsbase %r9
    CHECK %rcx, 0xffffffffffffffff
    CHECK %r9, FREE
    movabs $0x0000800000000000, %r10 /* the first that is not canonical */
    stc
    FAULTING GP, 0, wrgsbase %r10
    mov $-1, %r10
    mov %ds, %r10d                   /* all of the register is written */
    CHECK %r10, SEL_DATA
    mov $-1, %rcx
    mov %ds, %cx
    CHECK %rcx, 0xffffffffffff0000 + SEL_DATA
    mov $SEL_DATA, %eax
    mov %eax, %gs                    /* a selector loads its base */
    rdgsbase %rax
    CHECK %rax, 0
    DONE
