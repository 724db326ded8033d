/* Hardware task switches of 32-bit mode: JMP, CALL and IRET, a task gate for an exception with an
 * error code, and the T bit of a TSS. */
#define EXTRA
#define TASK_GATE NP
#define TASK_SELECTOR 0x58
#include "micro32.inc"
.macro EXTRA_DESCRIPTORS
    DESCRIPTOR ADDRESS(tss_a), 0x67, 0x89, 0           /* 50 */
    DESCRIPTOR ADDRESS(tss_b), 0x67, 0x89, 0           /* 58: handler of #NP */
    DESCRIPTOR ADDRESS(tss_c), 0x67, 0x89, 0           /* 60: with the T bit */
    .word 0, 0x50, 0x8500, 0                           /* 68: task gate to 50 */
.endm
    PRELUDE32
main:
    /* CALL nests, IRET comes back; what was in the registers is there again. */
    mov $0x1234, %ebx
    mov $0x5678, %esi
    lcall $0x50, $0
    EXPECT 0x4000                /* NT */
    EXPECT 0x50                  /* TR */
    EXPECT SEL32_TSS             /* the link */
    CHECK32 %ebx, 0x1234
    CHECK32 %esi, 0x5678
    pushf
    pop %eax
    and $0x4000, %eax            /* NT is not ours */
    CHECK32 %eax, 0
    /* Once more, through the gate: the task goes on behind its IRET. */
    lcall $0x68, $0
    EXPECT 0xaaaa
    CHECK32 %ebx, 0x1234
    mov %cr0, %eax
    and $8, %eax                 /* TS */
    CHECK32 %eax, 8
    clts
    /* An exception through a task gate: the error code is on the new task's stack. */
    mov $SEL32_ABSENT, %eax
absent:
    mov %eax, %gs
after_absent:
    EXPECT SEL32_ABSENT
    EXPECT absent                /* where it happened */
    CHECK32 %ebx, 0x1234
    /* A busy task cannot be called. */
    FAULTING32 GP, SEL32_TSS, lcall $SEL32_TSS, $0
    /* JMP there and back. */
    ljmp $0x60, $0
    EXPECT_FAULT32 DB, 0, task_c
    CHECK32 %ebx, 0x1234
    mov %db6, %eax
    and $0x8000, %eax            /* BT */
    CHECK32 %eax, 0x8000
    MOVE
    outb %al, $PORT_DONE
    hlt

task_a:
    mov $0xaaaa, %ebx
    pushf
    pop %eax
    and $0x4000, %eax
    LOG32 %eax
    xor %eax, %eax
    str %ax
    LOG32 %eax
    mov tss_a, %eax              /* the link */
    movzwl %ax, %eax
    LOG32 %eax
    iret
    LOG32 %ebx
    iret

task_np:
    pop %eax
    LOG32 %eax
    mov tss32+0x20, %eax
    LOG32 %eax
    movl $after_absent, tss32+0x20
    iret

task_c:
                                 /* the trap is before the first instruction */
after_trap:
    mov $0xcccc, %ebx
    ljmp $SEL32_TSS, $0

.macro TASK eip, esp, trap=0, ebp=0
    .long 0, 0, 0, 0, 0, 0, 0, 0, \eip, 2, 0, 0, 0, 0, \esp, \ebp, 0, 0
    .long SEL_DATA, SEL_CODE32, SEL_DATA, SEL_DATA, 0, 0, 0
    .word \trap, 0x68
.endm
    .balign 16
tss_a: TASK task_a, 0x70000
tss_b: TASK task_np, 0x71000
tss_c: TASK task_c, 0x72000, 1, after_trap
