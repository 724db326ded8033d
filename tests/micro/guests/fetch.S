/* Instructions that lie across two pages: the second missing, elsewhere in memory, changed; the same
 * address with other code after a remap. */
#include "micro.inc"
#define A 0x50000                /* virtual: two pages */
#define B 0x51000
#define PTE(va) PT0+((va)>>12)*8
PRELUDE
main:
    /* mov $0x44332211, %eax; ret: opcode at the end of A, the rest in B. */
    movb $0xb8, A+0xffe
    movb $0x11, A+0xfff
    movl $0xc3443322, B
    mov $A+0xffe, %ebx
    call *%rbx
    CHECK %rax, 0x44332211
    /* B missing. */
    andq $~1, PTE(B)
    invlpg B
    lea 1f(%rip), %r15
    call *%rbx
1:  EXPECT_PF 0x10, A+0xffe, B
    pop %rax
    CHECK %rsp, STACK
    /* B elsewhere. */
    movl $0xc3887766, FREE
    movq $FREE+0x63, PTE(B)
    invlpg B
    call *%rbx
    CHECK %rax, 0x88776611
    MOVE
    call *%rbx
    CHECK %rax, 0x88776611
    /* B's bytes change, through another address. */
    movb $0x99, FREE+2
    call *%rbx
    CHECK %rax, 0x99776611
    movb $0x55, A+0xfff
    call *%rbx
    CHECK %rax, 0x99776655
    /* Back to the first B: no INVLPG would do, it was never forgotten; so with it. */
    movq $B+0x63, PTE(B)
    invlpg B
    call *%rbx
    CHECK %rax, 0x44332255
    /* A whole page of other code at one address, in turn, many times. */
    movl $0x000001b8, FREE+0x1000    /* mov $1, %eax; ret */
    movw $0xc300, FREE+0x1004
    movl $0x000002b8, FREE+0x2000
    movw $0xc300, FREE+0x2004
    mov $100, %ecx
    xor %edx, %edx
    mov $A, %ebx
2:  movq $FREE+0x1063, PTE(A)
    invlpg A
    call *%rbx
    add %eax, %edx
    movq $FREE+0x2063, PTE(A)
    invlpg A
    call *%rbx
    add %eax, %edx
    dec %ecx
    jnz 2b
    CHECK %rdx, 300
    /* The same by CR3. */
    mov $PML4, %esi
    mov $FREE_TABLES, %edi
    mov $0x4000/8, %ecx              /* PML4, PDPT, PT0, PD0 */
    rep movsq
    movq $FREE_TABLES+0x1007, FREE_TABLES
    movq $FREE_TABLES+0x3007, FREE_TABLES+0x1000
    movq $FREE_TABLES+0x2007, FREE_TABLES+0x3000
    movq $FREE+0x1063, FREE_TABLES+0x2000+(A>>12)*8
    mov $100, %ecx
    xor %edx, %edx
    mov $FREE_TABLES, %esi
    mov $PML4, %edi
3:  mov %rsi, %cr3
    call *%rbx
    add %eax, %edx
    mov %rdi, %cr3
    call *%rbx
    add %eax, %edx
    dec %ecx
    jnz 3b
    CHECK %rdx, 300
    /* An instruction longer than 15 bytes. */
    lea 2f(%rip), %r15
1:  .fill 15, 1, 0x66
    nop
2:  EXPECT_FAULT GP, 0, 1b
    DONE
