/* String instructions: across pages, backwards, with flags, and a fault in the middle. */
#include "micro.inc"
#define PAGE 0x50000
#define PTE PT0+((PAGE+0x2000)>>12)*8
PRELUDE
main:
    mov $FREE, %edi
    movabs $0x0102030405060708, %rax
    mov $0x400, %ecx
    rep stosq                    /* two pages */
    CHECK %rdi, FREE+0x2000
    CHECK FREE+0x1ff8, 0x0102030405060708
    mov $FREE+3, %esi
    mov $FREE+0x3ff5, %edi       /* unaligned, across pages */
    mov $0x1003, %ecx
    rep movsb
    CHECK %rsi, FREE+0x1006
    CHECK %rdi, FREE+0x4ff8
    CHECK %rcx, 0
    CHECK FREE+0x4ff0, 0x0304050607080102
    /* Overlap: forward copy by one repeats the first byte. */
    movb $0x5a, FREE
    mov $FREE, %esi
    mov $FREE+1, %edi
    mov $0x1fff, %ecx
    rep movsb
    CHECK FREE+0x1ff8, 0x5a5a5a5a5a5a5a5a
    /* Backwards. */
    std
    mov $FREE+0x1ff8, %esi
    mov $FREE+0x2ff8, %edi
    mov $0x200, %ecx
    rep movsq
    cld
    CHECK %rsi, FREE+0xff8
    CHECK FREE+0x2000, 0x5a5a5a5a5a5a5a5a
    /* Search and compare. */
    movb $0, FREE+0x1234
    mov $FREE, %edi
    mov $-1, %rcx
    xor %eax, %eax
    repne scasb
    CHECK_FLAGS 0x44
    CHECK %rdi, FREE+0x1235
    CHECK %rcx, -0x1236
    mov $FREE, %esi
    mov $FREE+0x800, %edi
    mov $0x1000, %ecx
    repe cmpsb
    CHECK_FLAGS 4
    CHECK %rcx, 0x5cb
    mov $0, %ecx
    cmp %ecx, %ecx
    repe cmpsb                   /* none: flags stay */
    CHECK_FLAGS 0x44
    lodsw
    movzwl %ax, %eax
    CHECK %rax, 0x5a5a
    /* A missing page in the middle: the registers say how far it came, and it goes on. */
    andq $~1, PTE
    invlpg PAGE+0x2000
    mov $FREE, %esi
    mov $PAGE+0x1000, %edi
    mov $0x300, %ecx
    lea 1f(%rip), %r15
2:  rep movsq
1:  EXPECT_PF 2, 2b, PAGE+0x2000
    CHECK %rcx, 0x100
    CHECK %rdi, PAGE+0x2000
    CHECK %rsi, FREE+0x1000
    orq $1, PTE
    invlpg PAGE+0x2000
    rep movsq
    CHECK %rdi, PAGE+0x2800
    CHECK PAGE+0x27f8, 0x5a5a5a5a5a5a5a5a
    /* 32-bit addresses wrap, and clear the upper halves. */
    movabs $0xffffffff00200000, %rsi
    movabs $0xffffffff00200100, %rdi
    mov $2, %ecx
    addr32 rep movsb
    CHECK %rsi, FREE+2
    CHECK %rdi, FREE+0x102
    DONE
