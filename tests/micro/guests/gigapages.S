/* Pages of 1 GiB. */
#include "micro.inc"
PRELUDE
main:
    movq $0x1111, FREE
    movq $0x83, PDPT+8
    mov %cr3, %rax
    mov %rax, %cr3
    mov $0x40000000, %ebx
    CHECK FREE(%rbx), 0x1111
    MOVE
    movq $0x2222, FREE(%rbx)
    CHECK FREE, 0x2222
    CHECK PDPT+8, 0xe3
    movq $0x2083, PDPT+8         /* a reserved bit */
    invlpg (%rbx)
    PAGE_FAULTING 9, 0x40000000, mov (%rbx), %rax
    DONE
