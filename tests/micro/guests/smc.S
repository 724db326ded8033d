/* Code that changes itself: the next instruction, another page, through another mapping, and a loop
 * whose body changes each time round; code behind a jump; code that did not read the flags and then
 * does; a page that is data for a while. */
#include "micro.inc"
#define PAGE 0x50000
.macro SAME is, should
    cmp \should, \is
    je 9f
    inc %r12
9:
.endm
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
    /* Behind a jump in the page. */
    call jumps
    CHECK %rax, 11
    movl $20, jumped+2
    call jumps
    CHECK %rax, 21
    /* Whether an access may lose the flags is another's business, and that changes. */
    mov $1, %ebx
    call flags
    CHECK %rax, 7
    movl $0x90c0920f, reader     /* setb %al; nop */
    call flags
    CHECK %rax, 0
    /* Code, then only data, then code again. */
    mov $100, %ecx
5:  movq $0, FREE(,%rcx,8)
    movq $0, FREE
    dec %ecx
    jnz 5b
    lea g(%rip), %rsi
    mov $FREE, %edi
    mov $16, %ecx
    rep movsb
    mov $FREE, %ebx
    call *%rbx
    CHECK %rax, 0x77
    /* So often that C executes it, with constants of all kinds, then often enough unchanged to be
     * translated again, and all that once more. */
    xor %r12d, %r12d
    mov $2, %r10d
6:  mov $200, %ecx
7:  mov %ecx, constants+1
    mov %cl, constants+7
    mov %ecx, %edx
    neg %edx
    mov %edx, constants+11
    mov %rcx, constants+17
    mov %cx, constants+27
    mov $-1, %rax
    mov %rax, %rbx
    mov %rax, %rsi
    mov %rax, %rdi
    mov %rax, %r8
    call constants
    SAME %rax, %rcx
    SAME %r8, %rcx
    movslq %edx, %rdx
    SAME %rdi, %rdx
    mov $-1, %rdx
    mov %cl, %dl
    SAME %rsi, %rdx
    mov $-1, %rdx
    mov %cx, %dx
    SAME %rbx, %rdx
    dec %ecx
    jnz 7b
    mov $10000, %ecx
    xor %ebp, %ebp
8:  call constants
    add %rax, %rbp
    dec %ecx
    jnz 8b
    SAME %rbp, $10000
    dec %r10d
    jnz 6b
    CHECK %r12, 0
    DONE
    .balign 4096
f:  mov $1, %eax
    ret
    .balign 8
counter: .quad 0
jumps:
    mov $1, %eax
    jmp jumped
    ud2
    .balign 16
jumped:
    .byte 0x48, 0x05             /* add $10, %rax */
    .long 10
    ret
    .balign 8
    /* More jumps than a block follows, so that it ends in front of reader. */
flags:
    mov $7, %eax
    cmp $1, %rbx                 /* no CF */
    jmp 1f
1:  jmp 2f
2:  jmp 3f
3:  mov counter, %rcx
    jmp reader
    .balign 8
reader:
    cmp $0, %eax
    nop
    ret
    .balign 4096
constants:
    .byte 0xb8                   /* mov $.., %eax */
    .long 0
    .byte 0x40, 0xb6, 0          /* mov $.., %sil */
    .byte 0x48, 0xc7, 0xc7       /* mov $.., %rdi: sign-extended */
    .long 0
    .byte 0x49, 0xb8             /* movabs $.., %r8 */
    .quad 0
    .byte 0x66, 0xbb             /* mov $.., %bx */
    .word 0
    ret
    .balign 16
g:  mov $0x77, %eax
    ret
    .balign 16
h:  mov $0x88, %eax
    ret
    .balign 16
