/* Large pages: 2 MiB and 1 GiB, split and joined, with their accessed and dirty bits and the user
 * and write bits of all levels. */
#include "micro.inc"
#define VA 0x40000000            /* PDPT entry 1 */
#define PDE FREE_TABLES
#define PT FREE_TABLES+0x1000
PRELUDE
main:
    movq $0x1111, FREE
    movq $0x2222, FREE+0x1000
    movq $0x3333, FREE+0x1ff000
    movq $PDE+7, PDPT+8
    mov %cr3, %rax
    mov %rax, %cr3
    /* 2 MiB. */
    movq $FREE+0x83, PDE
    mov $VA, %ebx
    CHECK (%rbx), 0x1111
    CHECK 0x1ff000(%rbx), 0x3333
    CHECK PDE, FREE+0xa3
    movq $0x4444, 0x1ff000(%rbx)
    CHECK PDE, FREE+0xe3
    CHECK FREE+0x1ff000, 0x4444
    PAGE_FAULTING 0, VA+0x200000, mov 0x200000(%rbx), %rax
    /* Split into small ones, the first two exchanged. */
    movq $FREE+0x1063, PT
    movq $FREE+0x63, PT+8
    movq $PT+7, PDE
    invlpg (%rbx)
    invlpg 0x1000(%rbx)
    MOVE
    CHECK (%rbx), 0x2222
    CHECK 0x1000(%rbx), 0x1111
    PAGE_FAULTING 0, VA+0x2000, mov 0x2000(%rbx), %rax
    /* Joined again, read-only at a higher level. */
    movq $FREE+0x83, PDE
    mov %cr3, %rax
    mov %rax, %cr3
    CHECK 0x1000(%rbx), 0x2222
    andq $~2, PDPT+8
    mov %cr3, %rax
    mov %rax, %cr3
    CHECK (%rbx), 0x1111
    PAGE_FAULTING 3, VA+8, mov %rax, 8(%rbx)
    orq $2, PDPT+8
    /* No execution at a higher level. */
    movb $0xc3, FREE+0x10
    btsq $63, PDPT+8
    mov %cr3, %rax
    mov %rax, %cr3
    lea 0x10(%rbx), %rcx
    lea 1f(%rip), %r15
    jmp *%rcx
1:  EXPECT_PF 0x11, VA+0x10, VA+0x10
    btrq $63, PDPT+8
    mov %cr3, %rax
    mov %rax, %cr3
    call *%rcx
    CHECK %rsp, STACK
    /* A reserved bit of a large entry: bits 13 to 20 must be zero. */
    movq $FREE+0x2083, PDE
    invlpg (%rbx)
    PAGE_FAULTING 9, VA, mov (%rbx), %rax
    DONE
