/* The kernel must not touch (SMAP) what is the user's, but with EFLAGS.AC. */
#include "micro.inc"
PRELUDE
main:
    movq $0x1234, 0x50000
    USER_PAGE 0x50000
    CHECK 0x50000, 0x1234
    mov %cr4, %rax
    or $0x200000, %rax
    mov %rax, %cr4
    PAGE_FAULTING 1, 0x50000, mov 0x50000, %rax
    PAGE_FAULTING 3, 0x50000, mov %rax, 0x50000
    stac
    mov 0x50000, %rbx
    MOVE
    addq $1, 0x50000
    clac
    CHECK %rbx, 0x1234
    PAGE_FAULTING 1, 0x50000, mov 0x50000, %rax
    pushfq
    orq $0x40000, (%rsp)
    popfq
    mov 0x50000, %rbx
    clac
    CHECK %rbx, 0x1235
    /* Off again. */
    mov %cr4, %rax
    and $~0x200000, %rax
    mov %rax, %cr4
    CHECK 0x50000, 0x1235
    DONE
