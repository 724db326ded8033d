/* INVPCID in its four kinds, and what it refuses. */
#include "micro.inc"
#define PAGE 0x50000
#define PTE PT0+(PAGE>>12)*8
.macro REMAP page
    movq $\page+0x63, PTE
.endm
PRELUDE
main:
    movq $0x1111, PAGE
    movq $0x2222, PAGE+0x1000
    CHECK PAGE, 0x1111
    REMAP PAGE+0x1000
    movq $PAGE, FREE+8
    movq $0, FREE
    xor %eax, %eax
    invpcid FREE, %rax               /* one address */
    CHECK PAGE, 0x2222
    REMAP PAGE
    mov $1, %eax
    invpcid FREE, %rax               /* one context */
    CHECK PAGE, 0x1111
    REMAP PAGE+0x1000
    mov $2, %eax
    invpcid FREE, %rax               /* everything */
    CHECK PAGE, 0x2222
    REMAP PAGE
    mov $3, %eax
    invpcid FREE, %rax               /* everything but global pages */
    CHECK PAGE, 0x1111
    mov $4, %eax
    FAULTING GP, 0, invpcid FREE, %rax
    movq $0x1000, FREE
    xor %eax, %eax
    FAULTING GP, 0, invpcid FREE, %rax /* reserved bits */
    movq $0, FREE
    movabs $0x8000000000000000, %rbx
    mov %rbx, FREE+8
    FAULTING GP, 0, invpcid FREE, %rax /* not canonical */
    DONE
