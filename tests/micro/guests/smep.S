/* The kernel must not execute (SMEP) what is the user's. */
#include "micro.inc"
PRELUDE
main:
    movb $0xc3, 0x50000
    USER_PAGE 0x50000
    mov $0x50000, %ebx
    call *%rbx
    mov %cr4, %rax
    or $0x100000, %rax
    mov %rax, %cr4
    lea 1f(%rip), %r15
    jmp *%rbx
1:  EXPECT_PF 0x11, 0x50000, 0x50000
    MOVE
    mov (%rbx), %al                  /* reading is not forbidden */
    movzbl %al, %eax
    CHECK %rax, 0xc3
    lea 1f(%rip), %r15
    jmp *%rbx
1:  EXPECT_PF 0x11, 0x50000, 0x50000
    mov %cr4, %rax
    and $~0x100000, %rax
    mov %rax, %cr4
    call *%rbx
    CHECK %rsp, STACK
    DONE
