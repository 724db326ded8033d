/* 32-bit paging with pages of 4 KiB and 4 MiB, then PAE with 2 MiB and no-execute: faults and their
 * error codes, accessed and dirty bits, write protection, INVLPG, user pages from ring 3. */
#include "micro32.inc"
#define DIRECTORY FREE_TABLES
#define TABLE (FREE_TABLES+0x1000)
#define POINTERS (FREE_TABLES+0x2000)
#define PAE_DIRECTORY (FREE_TABLES+0x3000)
#define PAE_TABLE (FREE_TABLES+0x4000)
    PRELUDE32
main:
    /* 0 to 4 MiB by a table; 4 to 8 MiB is the same by one large page; 8 MiB is not there. */
    mov $TABLE, %edi
    mov $7, %eax
    mov $1024, %ecx
1:  stosl
    add $0x1000, %eax
    loop 1b
    movl $TABLE+7, DIRECTORY
    movl $0x83, DIRECTORY+4
    mov $DIRECTORY, %eax
    mov %eax, %cr3
    mov %cr4, %eax
    or $0x10, %eax               /* PSE */
    mov %eax, %cr4
    mov %cr0, %eax
    or $0x80010000, %eax         /* PG, WP */
    mov %eax, %cr0
    movl $0x1234, FREE
    mov FREE+0x400000, %eax
    CHECK32 %eax, 0x1234
    incl FREE+0x400000
    mov FREE, %eax
    CHECK32 %eax, 0x1235
    mov DIRECTORY+4, %eax
    and $0x60, %eax
    CHECK32 %eax, 0x60           /* accessed, dirty */
    PAGE_FAULTING32 0, 0x800010, mov 0x800010, %eax
    PAGE_FAULTING32 2, 0x800010, movb $1, 0x800010
    PAGE_FAULTING32 0, 0x800000, mov 0x7ffffe, %eax
    /* Read-only; WP is on. */
    andl $~2, TABLE+0x201*4
    invlpg FREE+0x1000
    mov FREE+0x1000, %eax
    PAGE_FAULTING32 3, FREE+0x1004, movl $1, FREE+0x1004
    PAGE_FAULTING32 3, FREE+0x1004, incl FREE+0x1004
    mov TABLE+0x201*4, %eax
    and $0x60, %eax
    CHECK32 %eax, 0x20           /* accessed, not dirty */
    PAGE_FAULTING32 3, FREE+0x1000, movl $1, FREE+0xffe
    /* Mapped elsewhere: seen after INVLPG. */
    mov FREE+0x2000, %eax
    movl $0x77, FREE+0x3000
    movl $FREE+0x3000+7, TABLE+0x202*4
    invlpg FREE+0x2000
    mov FREE+0x2000, %eax
    CHECK32 %eax, 0x77
    /* Ring 3 may not touch a supervisor's page. */
    andl $~4, TABLE+0x204*4
    mov %cr3, %eax
    mov %eax, %cr3
    pushl $SEL_USER_DATA
    pushl $USER_STACK
    pushl $2
    pushl $SEL_USER32
    pushl $user
    iret
user:
    mov $SEL_USER_DATA, %eax
    mov %eax, %ds
    mov $100, %ecx
    xor %eax, %eax
1:  add %ecx, %eax
    loop 1b
    push %eax
    pop %edx
    PAGE_FAULTING32 5, FREE+0x4000, mov FREE+0x4000, %eax
    PAGE_FAULTING32 7, FREE+0x4000, mov %eax, FREE+0x4000
    FAULTING32 GP, 0, cli
    FAULTING32 GP, 0, mov %cr0, %eax
    mov $RING0, %edi
    mov $again, %ebp
9001: ud2
    EXPECT_FAULT32 UD, 0, 9001b
again:
    CHECK32 %edx, 5050
    /* PAE: as above, with a large page of 2 MiB at 4 MiB. */
    mov %cr0, %eax
    and $0x7fffffff, %eax
    mov %eax, %cr0
    xor %eax, %eax
    mov $POINTERS, %edi
    mov $0x800, %ecx
    rep stosl
    movl $PAE_DIRECTORY+1, POINTERS
    mov $PAE_TABLE, %edi
    mov $7, %eax
    mov $512, %ecx
1:  mov %eax, (%edi)
    movl $0, 4(%edi)
    add $8, %edi
    add $0x1000, %eax
    loop 1b
    movl $PAE_TABLE+7, PAE_DIRECTORY
    movl $0x87+0x200000, PAE_DIRECTORY+8
    movl $0x83+0x200000, PAE_DIRECTORY+16
    mov $0xc0000080, %ecx
    rdmsr
    or $0x800, %eax              /* EFER.NXE */
    wrmsr
    mov $POINTERS, %eax
    mov %eax, %cr3
    mov %cr4, %eax
    or $0x20, %eax
    mov %eax, %cr4
    mov %cr0, %eax
    or $0x80000000, %eax
    mov %eax, %cr0
    movl $0x4321, FREE
    mov FREE+0x200000, %eax      /* 4 MiB is 2 MiB again */
    CHECK32 %eax, 0x4321
    PAGE_FAULTING32 0, 0x40000000, mov 0x40000000, %eax
    /* No-execute: the fault is a fetch's. */
    movb $0xc3, FREE+0x10        /* RET */
    mov $FREE+0x10, %eax
    call *%eax
    movl $0x80000000, PAE_DIRECTORY+12
    mov %cr3, %eax
    mov %eax, %cr3
    mov $2f, %ebp
    mov $FREE+0x10, %eax
1:  call *%eax
2:  EXPECT_FAULT32 PF, 0x11, FREE+0x10
    EXPECT FREE+0x10
    add $4, %esp
    movl $0, PAE_DIRECTORY+12
    mov %cr3, %eax
    mov %eax, %cr3
    /* A reserved bit. */
    orl $0x2000, PAE_DIRECTORY+16
    mov %cr3, %eax
    mov %eax, %cr3
    PAGE_FAULTING32 9, 0x400000, mov 0x400000, %eax
    MOVE
    mov FREE, %eax
    CHECK32 %eax, 0x4321
    outb %al, $PORT_DONE
    hlt
