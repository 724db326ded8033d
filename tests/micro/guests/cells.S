/* Accesses of ring 3 that remember a page each (the soft engine's cells): whatever changes about the
 * page between two times they run, they see it. Few instructions, run again and again, at one page
 * first and then at something else. */
#include "micro.inc"
#define PAGE 0x50000
#define PTE PT0+(PAGE>>12)*8
#define MANY 0x60000             /* 16 pages */
/* An address that is not canonical, of the page that empty cells are made to miss. */
#define NOT_CANONICAL 0x4000000000000010

/* Run `site` in ring 3 100 times, with RBX and RBP where it shall look. */
.macro RUN site
    lea 9100f(%rip), %r12
    mov $100, %ecx
    TO_USER \site
9100:
.endm
.macro RUN_FAULTING site
    lea back(%rip), %r15
    RUN \site
.endm
/* The same of 32-bit code, which cannot say itself where the kernel goes on. */
.macro RUN32 site
    lea 9100f(%rip), %r14
    mov $100, %ecx
    TO_USER \site, SEL_USER32
9100:
.endm
.macro RUN32_FAULTING site
    mov $back32, %r15d
    RUN32 \site
.endm
/* Another page, or none, at PAGE. */
.macro MAP bits:vararg
    movq $\bits, PTE
    invlpg PAGE
.endm

PRELUDE
main:
    USER_PAGES
    movq $0x11, PAGE
    movq $0x22, PAGE+0x1000
    mov $PAGE, %ebx
    mov $PAGE, %ebp
    /* Another page, made known by INVLPG and by MOV to CR3. */
    MAP PAGE+0x67
    RUN read_site
    CHECK %rax, 0x11
    MAP PAGE+0x1067
    RUN read_site
    CHECK %rax, 0x22
    movq $PAGE+0x67, PTE
    mov %cr3, %rax
    mov %rax, %cr3
    RUN read_site
    CHECK %rax, 0x11
    /* No page; a page of the kernel's; the kernel's page beside. */
    MAP 0
    RUN_FAULTING read_site
    EXPECT_PF 4, read_site, PAGE
    MAP PAGE+0x67
    RUN read_site
    CHECK %rax, 0x11
    MAP PAGE+0x63
    RUN_FAULTING read_site
    EXPECT_PF 5, read_site, PAGE
    MAP PAGE+0x67
    RUN read_site
    mov $PAGE+0x1000, %ebx
    RUN_FAULTING read_site
    EXPECT_PF 5, read_site, PAGE+0x1000
    mov $PAGE, %ebx
    /* Not to be written any more; dirty bits. */
    mov $0x33, %eax
    MAP PAGE+0x67
    RUN write_site
    CHECK PAGE, 0x33
    mov $0x44, %eax
    MAP PAGE+0x65
    RUN_FAULTING write_site
    EXPECT_PF 7, write_site, PAGE
    CHECK PAGE, 0x33
    MAP PAGE+0x27
    RUN read_site
    CHECK PTE, PAGE+0x27
    mov $0x55, %eax
    RUN write_site
    CHECK PTE, PAGE+0x67
    CHECK PAGE, 0x55
    /* The end of the page, and across it. */
    movq $0x67+PAGE+0x3000, PTE+8
    invlpg PAGE+0x1000
    movl $0x66666666, PAGE+0x3000
    movl $0x77777777, PAGE+0xffc
    mov $PAGE+0xff8, %ebx
    RUN read_site
    mov $PAGE+0xffc, %ebx
    RUN read_site
    CHECK %rax, 0x6666666677777777
    movq $0x63+PAGE+0x1000, PTE+8
    invlpg PAGE+0x1000
    RUN_FAULTING read_site
    EXPECT_PF 5, read_site, PAGE+0x1000
    /* No address at all, while the page is known and after it was forgotten. */
    .rept 2
    mov $PAGE, %ebx
    RUN read_site
    RUN write_site
    RUN stack_site
    mov $NOT_CANONICAL, %rbx
    mov $NOT_CANONICAL, %rbp
    RUN_FAULTING read_site
    EXPECT_FAULT GP, 0, read_site
    RUN_FAULTING write_site
    EXPECT_FAULT GP, 0, write_site
    RUN_FAULTING stack_site
    EXPECT_FAULT SSF, 0, stack_site
    mov $PAGE, %ebp
    MAP PAGE+0x67
    mov $NOT_CANONICAL, %rbx
    mov $NOT_CANONICAL, %rbp
    RUN_FAULTING read_site
    EXPECT_FAULT GP, 0, read_site
    RUN_FAULTING write_site
    EXPECT_FAULT GP, 0, write_site
    RUN_FAULTING stack_site
    EXPECT_FAULT SSF, 0, stack_site
    mov $PAGE, %ebp
    .endr
    MOVE
    mov $PAGE, %ebx
    RUN read_site
    /* Code on the page that is written to: 100 times another number. */
    movl $0x000000b8, PAGE       /* mov $n, %eax; ret */
    movl $0xc300, PAGE+4
    xor %edx, %edx
    RUN code_site
    CHECK %rdx, 5050
    xor %edx, %edx
    RUN code_site
    CHECK %rdx, 5050
    /* 32-bit code: another page, none, the kernel's, one not to be written, code on it. */
    movq $0x11, PAGE
    movq $0x22, PAGE+0x1000
    mov $PAGE, %ebx
    MAP PAGE+0x67
    RUN32 set_read32
    CHECK %rax, 0x11
    MAP PAGE+0x1067
    RUN32 set_read32
    CHECK %rax, 0x22
    MAP 0
    RUN32_FAULTING set_read32
    EXPECT_PF 4, read32, PAGE
    MAP PAGE+0x63
    RUN32_FAULTING set_read32
    EXPECT_PF 5, read32, PAGE
    MAP PAGE+0x67
    RUN32 set_read32
    CHECK %rax, 0x11
    mov $0x33, %edx
    RUN32 set_write32
    CHECK PAGE, 0x33
    mov $0x44, %edx
    MAP PAGE+0x65
    RUN32_FAULTING set_write32
    EXPECT_PF 7, write32, PAGE
    CHECK PAGE, 0x33
    MAP PAGE+0x67
    mov $PAGE+0x100, %ebp
    MAP PAGE+0x63
    RUN32_FAULTING set_stack32
    EXPECT_PF 7, stack32, PAGE+0xfc
    MAP PAGE+0x67
    RUN32 set_stack32
    movl $0x000000b8, PAGE       /* mov $n, %eax; ret */
    movl $0xc300, PAGE+4
    xor %edx, %edx
    RUN32 set_code32
    CHECK %rdx, 5050
    /* From page to page, again and again. */
    mov $MANY, %ebx
1:  mov %rbx, (%rbx)
    mov %ebx, %eax
    shr $12, %eax
    orq $4, PT0(,%rax,8)
    invlpg (%rbx)
    add $0x1000, %ebx
    cmp $MANY+0x10000, %ebx
    jne 1b
    mov $20, %ebp
    xor %edx, %edx
2:  RUN roaming_site
    dec %ebp
    jnz 2b
    CHECK %rdx, 20*25*(MANY*16+0x78000)
    DONE

    .balign 4096
user_start:
read_site:
    mov (%rbx), %rax
    sub $1, %ecx
    jnz read_site
back:
    mov %r12, %r14
    ud2
write_site:
    mov %rax, (%rbx)
    sub $1, %ecx
    jnz write_site
    jmp back
stack_site:
    mov (%rbp), %rdx
    sub $1, %ecx
    jnz stack_site
    jmp back
code_site:
    mov %ecx, 1(%rbx)
    xor %eax, %eax               /* the flags are dead where it writes */
    call *%rbx
    add %rax, %rdx
    sub $1, %ecx
    jnz code_site
    jmp back
/* 25 times over all of them: RCX has 100, each round takes 4. */
roaming_site:
    mov $MANY, %ebx
1:  add (%rbx), %rdx
    add $0x1000, %ebx
    cmp $MANY+0x10000, %ebx
    jne 1b
    sub $4, %ecx
    jnz roaming_site
    jmp back
    .code32
.macro FLAT32
    mov $SEL_USER_DATA, %esi
    mov %esi, %ds
    mov %esi, %es
.endm
set_read32:
    FLAT32
read32:
    mov (%ebx), %eax
    sub $1, %ecx
    jnz read32
back32:
    ud2
set_write32:
    FLAT32
write32:
    mov %edx, (%ebx)
    sub $1, %ecx
    jnz write32
    ud2
set_stack32:
    FLAT32
1:  mov %ebp, %esp
stack32:
    push %edx
    push %ecx
    pop %esi
    pop %esi
    sub $1, %ecx
    jnz 1b
    ud2
set_code32:
    FLAT32
1:  mov %ecx, 1(%ebx)
    xor %eax, %eax
    call *%ebx
    add %eax, %edx
    sub $1, %ecx
    jnz 1b
    ud2
    .code64
    .balign 4096
user_end:
