/* A device writes into memory: data and code, also while the code runs. */
#include "micro.inc"
PRELUDE
main:
    call f
    CHECK %rax, 1
    mov $f+1, %eax
    outl %eax, $PORT_DMA         /* adds one to the 32-bit number there */
    call f
    CHECK %rax, 2
    mov $counter, %eax
    outl %eax, $PORT_DMA
    CHECK counter, 1
    MOVE
    /* The instruction behind the one that starts it, and one that serializes. */
    mov $1f+1, %eax
    outl %eax, $PORT_DMA
    xor %eax, %eax
    cpuid
1:  mov $0x10, %eax
    CHECK %rax, 0x11
    mov $50, %ecx
    xor %edx, %edx
2:  mov $f+1, %eax
    outl %eax, $PORT_DMA
    call f
    add %eax, %edx
    dec %ecx
    jnz 2b
    CHECK %rdx, 50*2+50*51/2
    DONE
    .balign 64
f:  mov $1, %eax
    ret
    .balign 8
counter: .quad 0
