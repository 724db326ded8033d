/* Returns that do not go where the call was made, and that do although what is there has changed: the
 * return address counted up, taken off the stack, on another stack; the code behind the call rewritten
 * or its page exchanged by the function called. Each many times, with the plain case in between. */
#include "micro.inc"
#define PAGE 0x50000
#define PTE PT0+(PAGE>>12)*8
#define OTHER_STACK 0x78000
.macro REPEAT
    mov $200, %ecx
    xor %eax, %eax
.endm
.macro AGAIN label
    dec %ecx
    jnz \label
.endm
PRELUDE
main:
    /* A function that calls two. */
    REPEAT
1:  call outer
    AGAIN 1b
    CHECK %rax, 200*(1+2+10)
    /* One round in four goes on 4 bytes further. */
    REPEAT
1:  mov %ecx, %edx
    and $3, %edx
    call further
    .byte 0x48, 0x83, 0xc0, 0x01 /* add $1, %rax */
    add $100, %rax
    AGAIN 1b
    CHECK %rax, 200*100+150
    /* One in four does not come back: its caller's caller goes on. */
    REPEAT
1:  mov %ecx, %edx
    and $3, %edx
    call middle
    AGAIN 1b
    CHECK %rax, 50*1000+150
    /* On another stack. */
    REPEAT
1:  call elsewhere
    AGAIN 1b
    CHECK %rax, 200*3
    mov %rsp, %rdx
    CHECK %rdx, STACK
    /* What is behind the call is written by the function called. */
    REPEAT
1:  call writer
2:  add $0, %rax
    AGAIN 1b
    CHECK %rax, 100*201-73*256  /* 73 of them are negative */
    MOVE
    /* Its page is another one when it comes back. */
    lea twin(%rip), %rsi
    mov $FREE, %edi
    mov $twin_end-twin, %ecx
    rep movsb
    lea twin(%rip), %rsi
    mov $FREE+0x1000, %edi
    mov $twin_end-twin, %ecx
    rep movsb
    movb $50, FREE+0x1000+twin_number-twin
    REPEAT
1:  movq $FREE+0x63, PTE
    invlpg PAGE
    mov $PAGE, %ebx
    call *%rbx
    AGAIN 1b
    CHECK %rax, 200*50
    REPEAT
1:  movq $FREE+0x63, PTE
    invlpg PAGE
    mov %ecx, %ebp               /* one in two changes it */
    mov $PAGE, %ebx
    call *%rbx
    AGAIN 1b
    CHECK %rax, 100*50+100*7
    DONE

outer:
    push %rbx
    push %rdx
    call one
    sub $24, %rsp
    call two
    add $24, %rsp
    add $10, %rax
    pop %rdx
    pop %rbx
    ret
one:
    add $1, %rax
    ret
two:
    push %rax
    pop %rdx
    lea 2(%rdx), %rax
    ret $0
further:
    cmp $0, %edx
    jne 1f
    addq $4, (%rsp)
1:  ret
middle:
    call leaves
    add $1, %rax
    ret
leaves:
    cmp $0, %edx
    jne 1f
    lea 8(%rsp), %rsp
    add $1000, %rax
1:  ret
elsewhere:
    pop %rdx
    mov %rsp, %rsi
    mov $OTHER_STACK, %esp
    push %rdx
    call onwards
    ret
onwards:
    add $3, %rax
    pop %rdx
    lea 3f(%rip), %rdi
    push %rdi
    push %rdx
    ret                          /* to `ret` in elsewhere, which returns to 3 */
3:  sub $8, %rsi
    mov %rsi, %rsp
    ret
writer:
    mov %cl, 2b+3
    ret

    /* Copied to two pages; RBP: exchange them. */
twin:
    push %rbp
    call twin_exchange
    .byte 0x48, 0x83, 0xc0       /* add $7, %rax */
twin_number:
    .byte 7
    pop %rbp
    ret
twin_exchange:
    test $1, %ebp
    jnz 1f
    movq $FREE+0x1063, PTE
    invlpg PAGE
1:  ret
twin_end:
