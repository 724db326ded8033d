/* AVX: state across a move, what writes to XMM do to the upper half, XSAVE of it. */
#include "micro.inc"
PRELUDE
main:
    FAULTING UD, 0, vpxor %ymm0, %ymm0, %ymm0 /* not without OSXSAVE and XCR0 */
    mov %cr4, %rax
    or $0x40000, %rax
    mov %rax, %cr4
    FAULTING UD, 0, vpxor %ymm0, %ymm0, %ymm0
    xor %ecx, %ecx
    mov $7, %eax
    xor %edx, %edx
    xsetbv
    vmovdqu numbers(%rip), %ymm3
    vpaddd %ymm3, %ymm3, %ymm4
    vmovdqa %ymm4, %ymm14
    MOVE
    vextracti128 $1, %ymm14, %xmm5
    vmovq %xmm5, %rax
    CHECK %rax, 0x0000000c0000000a
    paddd %xmm3, %xmm3               /* legacy SSE keeps the upper half */
    vextracti128 $1, %ymm3, %xmm5
    vmovq %xmm5, %rax
    CHECK %rax, 0x0000000600000005
    vpaddd %xmm3, %xmm3, %xmm3       /* VEX clears it */
    vextracti128 $1, %ymm3, %xmm5
    vmovq %xmm5, %rax
    CHECK %rax, 0
    mov $4, %eax
    xor %edx, %edx
    xsave FREE
    mov FREE+512, %rax
    and $4, %eax
    CHECK %rax, 4
    CHECK FREE+576+14*16, 0x0000000c0000000a
    vzeroall
    mov $4, %eax
    xrstor FREE
    vextracti128 $1, %ymm14, %xmm5
    vmovq %xmm5, %rax
    CHECK %rax, 0x0000000c0000000a
    mov $3, %eax
    xor %ecx, %ecx
    xor %edx, %edx
    xsetbv
    FAULTING UD, 0, vpxor %ymm0, %ymm0, %ymm0
    DONE
    .balign 32
numbers: .long 1, 2, 3, 4, 5, 6, 7, 8
