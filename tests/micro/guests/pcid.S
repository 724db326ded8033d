/* Process-context identifiers: CR3 with and without flush, INVPCID. */
#include "micro.inc"
#define PAGE 0x50000
#define PTE PT0+(PAGE>>12)*8
PRELUDE
main:
    mov $PML4+1, %eax
    mov %cr4, %rbx
    or $0x20000, %rbx
    mov %rbx, %cr4                   /* CR3's PCID is zero now */
    mov %rax, %cr3
    mov %cr3, %rax
    CHECK %rax, PML4+1
    /* Two address spaces that differ in one page. */
    movq $0x1111, PAGE
    movq $0x2222, PAGE+0x1000
    mov $PML4, %esi
    mov $FREE_TABLES, %edi
    mov $0x3000/8, %ecx              /* PML4, PDPT, PT0 */
    rep movsq
    mov $FREE_TABLES+0x3000, %edi
    mov $PD0, %esi
    mov $0x1000/8, %ecx
    rep movsq
    movq $FREE_TABLES+0x1007, FREE_TABLES
    movq $FREE_TABLES+0x3007, FREE_TABLES+0x1000
    movq $FREE_TABLES+0x2007, FREE_TABLES+0x3000
    movq $PAGE+0x1063, FREE_TABLES+0x2000+(PAGE>>12)*8
    CHECK PAGE, 0x1111
    mov $FREE_TABLES+2, %eax
    mov %rax, %cr3
    CHECK PAGE, 0x2222
    MOVE
    mov $PML4+1, %eax
    bts $63, %rax                    /* no flush */
    mov %rax, %cr3
    mov %cr3, %rax
    CHECK %rax, PML4+1               /* bit 63 is not kept */
    CHECK PAGE, 0x1111
    mov $FREE_TABLES+2, %eax
    mov %rax, %cr3
    CHECK PAGE, 0x2222
    /* PCIDs only in 64-bit mode with CR3[11:0] clear at the time they are switched on. */
    mov %cr4, %rbx
    and $~0x20000, %rbx
    mov %rbx, %cr4
    or $0x20000, %rbx
    mov $PML4, %eax
    mov %rax, %cr3
    mov %rbx, %cr4
    DONE
