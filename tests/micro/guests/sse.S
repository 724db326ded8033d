/* x87 and SSE2 in ring 3, kept across faults, across other work of the kernel, and across a move. */
#include "micro.inc"
PRELUDE
main:
    USER_PAGES
    TO_USER user_start

kernel:
    MOVE
    TO_USER user_2

    .balign 4096
user_start:
    fninit
    movsd a(%rip), %xmm1
    movsd b(%rip), %xmm2
    movapd %xmm1, %xmm3
    mulsd %xmm2, %xmm3
    movq %xmm3, %rax
    UCHECK %rax, 0x4008000000000000 /* 1.5 * 2 = 3 */
    sqrtsd %xmm2, %xmm4
    movq %xmm4, %rax
    UCHECK %rax, 0x3ff6a09e667f3bcd
    cvttsd2si %xmm3, %rax
    UCHECK %rax, 3
    fldl a(%rip)
    fldl b(%rip)
    faddp
    fstpl c(%rip)
    UCHECK c(%rip), 0x400c000000000000 /* 3.5 */
    fldpi
    pcmpeqd %xmm15, %xmm15
    movdqu numbers(%rip), %xmm8
    paddd %xmm8, %xmm8
    FAULTING UD, 0, ud2
    movhlps %xmm8, %xmm9
    movq %xmm9, %rax
    UCHECK %rax, 0x0000000800000006
    TO_KERNEL kernel
user_2:
    movq %xmm15, %rax
    UCHECK %rax, -1
    movq %xmm8, %rax
    UCHECK %rax, 0x0000000400000002
    movq %xmm3, %rax
    UCHECK %rax, 0x4008000000000000
    fstpl c(%rip)
    UCHECK c(%rip), 0x400921fb54442d18
    fnstcw c(%rip)
    movzwl c(%rip), %eax
    UCHECK %rax, 0x37f
    /* FXSAVE and FXRSTOR. */
    fxsave area
    pxor %xmm8, %xmm8
    fxrstor area
    movq %xmm8, %rax
    UCHECK %rax, 0x0000000400000002
    UCHECK area+160+8*16, 0x0000000400000002
    /* A division by zero that is not masked. */
    movl $0x1d80, c(%rip)
    ldmxcsr c(%rip)
    xorpd %xmm5, %xmm5
    FAULTING XM, 0, divsd %xmm5, %xmm1
    stmxcsr c(%rip)
    mov c(%rip), %eax
    UCHECK %rax, 0x1d84
    movl $0x1f80, c(%rip)
    ldmxcsr c(%rip)
    divsd %xmm5, %xmm1
    movq %xmm1, %rax
    UCHECK %rax, 0x7ff0000000000000
    movntdq %xmm8, numbers
    UCHECK numbers, 0x0000000400000002
    TO_KERNEL end
    .balign 16
numbers: .long 1, 2, 3, 4
a: .double 1.5
b: .double 2.0
c: .quad 0
    .balign 16
area: .fill 512
    .balign 4096
user_end:

end:
    DONE
