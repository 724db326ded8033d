/* Loops over arrays in ring 3, which the soft engine translates several rounds at once with one
 * check for all of an array's accesses: across pages, where a page in the middle is another, may not
 * be written, is not there, is nobody's or is the loop itself. */
#include "micro.inc"
#define SRC 0x50000              /* 4 pages; each byte of page n is n + 1 */
#define DST 0x58000
#define OTHER 0x60000            /* each byte is 5 */
#define LENGTH 0x3000
#define SRC_PTE PT0+((SRC>>12)+1)*8
#define DST_PTE PT0+((DST>>12)+1)*8
#define NOT_CANONICAL 0x4000000000000010

/* For each qword at SRC + from: twice that is added to the one at DST + from. */
.macro RUN from
    mov $DST, %edi
    xor %eax, %eax
    mov $0x4000/8, %ecx
    rep stosq
    mov $SRC+\from, %ebx
    mov $DST+\from, %ebp
    GO sum_site, LENGTH
.endm
.macro GO site, length
    xor %eax, %eax
    mov $\length, %ecx
    lea 9100f(%rip), %r12
    TO_USER \site
9100:
.endm
.macro RUN_FAULTING from
    lea back(%rip), %r15
    RUN \from
.endm
.macro MAP pte, va, bits:vararg
    movq $\bits, \pte
    invlpg \va
.endm
.macro CHECK_ALL second, third, fourth
    CHECK DST+4, 0x0202020202020202
    CHECK DST+0xff4, 0x0202020202020202
    CHECK DST+0xffc, \second
    CHECK DST+0x1004, \third
    CHECK DST+0x1ff4, \third
    CHECK DST+0x1ffc, \fourth
    CHECK DST+0x2004, 0x0606060606060606
    CHECK DST+0x2ffc, 0x0808080806060606
    CHECK DST+0x3004, 0
.endm

PRELUDE
main:
    USER_PAGES
    xor %edx, %edx
    mov $SRC, %ebx
1:  orq $4, SRC_PTE-8(,%rdx,8)
    orq $4, DST_PTE-8(,%rdx,8)
    inc %edx
    mov %ebx, %edi
    mov %edx, %eax
    mov $0x1000, %ecx
    rep stosb
    mov %edi, %ebx
    cmp $4, %edx
    jne 1b
    mov $OTHER, %edi
    mov $5, %eax
    mov $0x1000, %ecx
    rep stosb
    mov %cr3, %rax
    mov %rax, %cr3

    .rept 2
    RUN 4
    CHECK_ALL 0x0404040402020202, 0x0404040404040404, 0x0606060604040404
    RUN 0
    CHECK DST+0xff8, 0x0202020202020202
    CHECK DST+0x1000, 0x0404040404040404
    .endr
    /* Another page in the middle, told by INVLPG and by MOV to CR3. */
    MAP SRC_PTE, SRC+0x1000, OTHER+0x67
    RUN 4
    CHECK_ALL 0x0a0a0a0a02020202, 0x0a0a0a0a0a0a0a0a, 0x060606060a0a0a0a
    movq $SRC+0x1067, SRC_PTE
    mov %cr3, %rax
    mov %rax, %cr3
    RUN 4
    CHECK_ALL 0x0404040402020202, 0x0404040404040404, 0x0606060604040404
    MOVE
    /* Nobody's page. */
    mov $NOWHERE+0x67, %eax
    mov %rax, SRC_PTE
    invlpg SRC+0x1000
    RUN 4
    CHECK_ALL 0xfffffffe02020202, 0xfffffffffffffffe, 0x06060607fffffffe
    /* None, by the page's first address and by one that begins in the page before. */
    MAP SRC_PTE, SRC+0x1000, 0
    RUN_FAULTING 4
    EXPECT_PF 4, sum_site, SRC+0x1000
    CHECK %rax, 0xff8
    CHECK DST+0xff4, 0x0202020202020202
    CHECK DST+0xffc, 0
    RUN_FAULTING 0
    EXPECT_PF 4, sum_site, SRC+0x1000
    CHECK %rax, 0x1000
    CHECK DST+0xff8, 0x0202020202020202
    MAP SRC_PTE, SRC+0x1000, SRC+0x1067
    /* Not to be written. */
    RUN 4
    MAP DST_PTE, DST+0x1000, DST+0x1065
    lea back(%rip), %r15
    mov $SRC+4, %ebx
    mov $DST+4, %ebp
    GO sum_site, LENGTH
    EXPECT_PF 7, sum_store, DST+0x1000
    CHECK %rax, 0xff8
    CHECK DST+0xff4, 0x0404040404040404
    CHECK DST+0xffc, 0x0404040402020202
    lea back(%rip), %r15
    mov $SRC, %ebx
    mov $DST, %ebp
    GO sum_site, LENGTH
    EXPECT_PF 7, sum_store, DST+0x1000
    CHECK %rax, 0x1000
    CHECK DST+0x1004, 0x0404040404040404
    /* Dirty bits. */
    MAP DST_PTE, DST+0x1000, DST+0x1067
    RUN 0
    MAP DST_PTE, DST+0x1000, DST+0x1027
    mov $SRC, %ebx
    mov $DST, %ebp
    GO sum_site, LENGTH
    CHECK DST_PTE, DST+0x1067
    CHECK DST+0x1000, 0x0808080808080808
    /* No address at all. */
    lea back(%rip), %r15
    mov $NOT_CANONICAL, %rbx
    GO sum_site, LENGTH
    EXPECT_FAULT GP, 0, sum_site
    CHECK %rax, 0
    /* A loop that rewrites itself: it adds 1, 2, ... 100. */
    mov $number_site+3, %ebx
    xor %edx, %edx
    GO number_site, 100
    CHECK %rdx, 5050
    /* Pointers that move, and a loop that is left in each of its rounds. */
    .irp n, 400, 401, 402, 403
    mov $SRC+3, %ebx
    xor %edx, %edx
    GO walk_site, \n
    CHECK %rdx, \n*2
    .endr
    mov $SRC+0xf01, %ebx         /* 85 in the first page, 15 in the second */
    xor %edx, %edx
    GO walk_site, 100
    CHECK %rdx, 230
    DONE

    .balign 4096
user_start:
sum_site:
    mov (%rbx,%rax), %r9
    add %r9, %r9
sum_store:
    add %r9, (%rbp,%rax)
    add $8, %rax
    cmp %rcx, %rax
    jne sum_site
back:
    mov %r12, %r14
    ud2
number_site:
    add $1, %rdx
    addb $1, (%rbx,%rax)
    sub $1, %ecx
    jnz number_site
    jmp back
/* The sum of twice the low bytes of RCX words that are 3 bytes apart. */
walk_site:
    movzbl (%rbx), %r10d
    cmpb $0, 1(%rbx)
    je back
    add %r10, %r10
    add $3, %rbx
    add %r10, %rdx
    sub $1, %ecx
    jnz walk_site
    jmp back
    .balign 4096
user_end:
