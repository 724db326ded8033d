/* Code that changes itself: the next instruction, another page, through another mapping, and a loop
 * whose body changes each time round. */
#include "micro.inc"
#define PAGE 0x50000
PRELUDE
main:
    /* Executed once before, so that it is known. */
    call f
    CHECK %rax, 1
    movl $2, f+1
    call f
    CHECK %rax, 2
    /* The instruction right behind. */
    movl $0x33, 1f+1
1:  mov $0x11, %eax
    CHECK %rax, 0x33
    /* Through another mapping of the page. */
    mov $f, %eax
    and $~0xfff, %eax
    or $0x63, %eax
    mov %rax, PT0+(PAGE>>12)*8
    invlpg PAGE
    mov $f, %ebx
    and $0xfff, %ebx
    movl $3, PAGE+1(%rbx)
    call f
    CHECK %rax, 3
    MOVE
    movl $4, PAGE+1(%rbx)
    call f
    CHECK %rax, 4
    /* A loop that changes its own body. */
    xor %eax, %eax
    mov $100, %ecx
2:  .byte 0x05                   /* add $1, %eax: the number is counted up */
3:  .long 1
    incl 3b
    dec %ecx
    jnz 2b
    CHECK %rax, 5050
    /* Copied code, called, overwritten, called. */
    lea g(%rip), %rsi
    mov $FREE, %edi
    mov $16, %ecx
    rep movsb
    mov $FREE, %ebx
    call *%rbx
    CHECK %rax, 0x77
    lea h(%rip), %rsi
    mov $FREE, %edi
    mov $16, %ecx
    rep movsb
    call *%rbx
    CHECK %rax, 0x88
    /* Data beside code: written in a loop, while the code runs. */
    mov $1000, %ecx
4:  incq counter
    call f
    dec %ecx
    jnz 4b
    CHECK counter, 1000
    CHECK %rax, 4
    DONE
    .balign 4096
f:  mov $1, %eax
    ret
    .balign 8
counter: .quad 0
g:  mov $0x77, %eax
    ret
    .balign 16
h:  mov $0x88, %eax
    ret
    .balign 16
