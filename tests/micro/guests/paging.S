/* Page faults: error code and CR2; accessed and dirty bits; WP and NX; remapping with INVLPG and
 * with CR3. Pages at 50000h to 5FFFFh are what is mapped this and that way. */
#include "micro.inc"
#define PAGE(n) (0x50000+(n)*0x1000)
#define PTE(n) (PT0+(PAGE(n)>>12)*8)
PRELUDE
main:
    movabs $0x1111111111111111, %rax
    mov %rax, PAGE(0)
    movabs $0x2222222222222222, %rax
    mov %rax, PAGE(1)

    /* Not present. */
    andq $~1, PTE(0)
    invlpg PAGE(0)
    PAGE_FAULTING 0, PAGE(0)+0x123, movb PAGE(0)+0x123, %al
    PAGE_FAULTING 2, PAGE(0)+0x124, movb %al, PAGE(0)+0x124
    PAGE_FAULTING 2, PAGE(0)+0x128, addl $1, PAGE(0)+0x128
    mov $PAGE(0)+8, %ebx
    lea 1f(%rip), %r15
    jmp *%rbx
1:  EXPECT_PF 0x10, PAGE(0)+8, PAGE(0)+8 /* the fault is at the target, not at the jump */
    orq $1, PTE(0)
    invlpg PAGE(0)
    CHECK PAGE(0), 0x1111111111111111

    /* Accessed and dirty. */
    andq $~0x60, PTE(1)
    invlpg PAGE(1)
    mov PAGE(1), %rax
    mov PTE(1), %rcx
    and $0x60, %ecx
    CHECK %rcx, 0x20
    mov %rax, PAGE(1)
    mov PTE(1), %rcx
    and $0x60, %ecx
    CHECK %rcx, 0x60

    /* Read-only, with and without CR0.WP. */
    andq $~2, PTE(1)
    invlpg PAGE(1)
    PAGE_FAULTING 3, PAGE(1)+16, movq $7, PAGE(1)+16
    mov %cr0, %rax
    and $~0x10000, %rax
    mov %rax, %cr0
    movq $7, PAGE(1)+16
    CHECK PAGE(1)+16, 7
    or $0x10000, %rax
    mov %rax, %cr0
    PAGE_FAULTING 3, PAGE(1)+16, movq $8, PAGE(1)+16
    CHECK PAGE(1)+16, 7
    orq $2, PTE(1)
    invlpg PAGE(1)

    /* No execution. */
    movb $0xc3, PAGE(2)
    mov $PAGE(2), %ebx
    call *%rbx
    btsq $63, PTE(2)
    invlpg PAGE(2)
    lea 1f(%rip), %r15
    jmp *%rbx
1:  EXPECT_PF 0x11, PAGE(2), PAGE(2)
    mov PAGE(2), %al
    movzbl %al, %eax
    CHECK %rax, 0xc3

    /* A reserved bit. */
    btsq $51, PTE(3)
    invlpg PAGE(3)
    PAGE_FAULTING 0x9, PAGE(3), mov PAGE(3), %eax
    btrq $51, PTE(3)
    invlpg PAGE(3)

    /* INVLPG makes a new mapping seen; so does CR3. */
    CHECK PAGE(0), 0x1111111111111111
    movq $PAGE(1)+0x63, PTE(0)
    invlpg PAGE(0)
    MOVE
    CHECK PAGE(0), 0x2222222222222222
    movq $PAGE(0)+0x63, PTE(0)
    mov %cr3, %rax
    mov %rax, %cr3
    CHECK PAGE(0), 0x1111111111111111

    /* Global pages outlive CR3, not a change of CR4.PGE. */
    mov %cr4, %rax
    or $0x80, %rax
    mov %rax, %cr4
    movq $PAGE(1)+0x163, PTE(0)
    invlpg PAGE(0)
    CHECK PAGE(0), 0x2222222222222222
    movq $PAGE(0)+0x63, PTE(0)
    mov %cr4, %rax
    and $~0x80, %rax
    mov %rax, %cr4
    CHECK PAGE(0), 0x1111111111111111

    /* The upper half: PML4 entry 511, a large page. */
    movq $FREE_TABLES+3, PML4+511*8
    movq $FREE_TABLES+0x1003, FREE_TABLES+511*8
    movq $0x83, FREE_TABLES+0x1000
    mov $0xffffffffc0000000, %rbx
    CHECK PAGE(1)(%rbx), 0x2222222222222222
    movq $0x55, FREE
    movq $FREE+0x83, FREE_TABLES+0x1000
    invlpg (%rbx)
    CHECK (%rbx), 0x55
    mov FREE_TABLES+0x1000, %rax
    CHECK %rax, FREE+0xa3
    movq $0, FREE_TABLES+0x1000
    invlpg 0x1000(%rbx)
    PAGE_FAULTING 0, 0xffffffffc0000000, mov (%rbx), %rax
    DONE
