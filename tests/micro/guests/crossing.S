/* Accesses across two pages of which one is missing or read-only: all or nothing. */
#include "micro.inc"
#define PAGE(n) (0x50000+(n)*0x1000)
#define PTE(n) (PT0+(PAGE(n)>>12)*8)
PRELUDE
main:
    /* An access across two pages of which the second is missing writes nothing. */
    movq $0, PAGE(4)+0xff8
    andq $~1, PTE(5)
    invlpg PAGE(5)
    movabs $0x3333333333333333, %rax
    PAGE_FAULTING 2, PAGE(5), mov %rax, PAGE(4)+0xffc
    CHECK PAGE(4)+0xff8, 0
    PAGE_FAULTING 0, PAGE(5), mov PAGE(4)+0xffc, %rax
    orq $1, PTE(5)
    invlpg PAGE(5)
    MOVE
    mov %rax, PAGE(4)+0xffc
    CHECK PAGE(4)+0xffc, 0x3333333333333333

    /* The first page missing: its address, not the second's. */
    andq $~1, PTE(4)
    invlpg PAGE(4)
    PAGE_FAULTING 2, PAGE(4)+0xffc, mov %rax, PAGE(4)+0xffc
    orq $1, PTE(4)
    invlpg PAGE(4)
    /* Read-modify-write into a read-only second page. */
    andq $~2, PTE(5)
    invlpg PAGE(5)
    PAGE_FAULTING 3, PAGE(5), incq PAGE(4)+0xffd
    PAGE_FAULTING 3, PAGE(5), lock incq PAGE(4)+0xffd
    CHECK PAGE(4)+0xffd, 0x0033333333333333
    orq $2, PTE(5)
    invlpg PAGE(5)
    lock incq PAGE(4)+0xffd
    CHECK PAGE(4)+0xffd, 0x0033333333333334
    DONE
