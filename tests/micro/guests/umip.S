/* User-mode instruction prevention (SDM volume 3, CR4.UMIP): ring 3 may read the places of the kernel's
 * tables, the task and LDT selectors and CR0 unless CR4 forbids it; ring 0 may always. */
#include "micro.inc"
/* All five, in memory and, where there is such a form, in a register. */
.macro ALL do:vararg
    \do sgdt place
    \do sidt place
    \do sldt place
    \do sldt %eax
    \do str place
    \do str %eax
    \do smsw place
    \do smsw %eax
.endm
.macro ALLOWED insn:vararg
    \insn
.endm
.macro FORBIDDEN insn:vararg
    FAULTING GP, 0, \insn
.endm
PRELUDE
main:
    USER_PAGES
    ALL ALLOWED
    TO_USER free

    .balign 4096
user_start:                    /* ring 0 runs here, too: what is logged is in this order */
free:
    ALL ALLOWED
    str %eax
    movzwl %ax, %eax
    UCHECK %rax, SEL_TSS
    smsw %eax
    and $0x1, %eax
    UCHECK %rax, 1
    incl good
    TO_KERNEL forbid
forbid:
    mov %cr4, %rax
    or $0x800, %rax
    mov %rax, %cr4
    MOVE
    mov %cr4, %rax
    and $0x800, %eax
    CHECK %rax, 0x800
    ALL ALLOWED                /* ring 0 */
    str %eax
    movzwl %ax, %eax
    CHECK %rax, SEL_TSS
    TO_USER held
held:
    ALL FORBIDDEN
    TO_KERNEL allow
allow:
    mov %cr4, %rax
    and $~0x800, %rax
    mov %rax, %cr4
    TO_USER free_again
free_again:
    ALL ALLOWED
    incl good
    TO_KERNEL end
end:
    CHECK good, 2
    DONE
    .balign 16
place: .quad 0, 0
good: .quad 0
    .balign 4096
user_end:
