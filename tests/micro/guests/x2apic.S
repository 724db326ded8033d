/* Two CPUs in x2APIC mode, moved together while one computes and while one sleeps: IDs, interrupts to
 * each other by ID and by cluster, the timer. */
#define IRQ_HANDLER
#include "micro.inc"
.macro WRITE_X2 reg, low, high=0
    mov $0x800+\reg, %ecx
    mov $\low, %eax
    mov $\high, %edx
    wrmsr
.endm
.macro ENABLE
    mov $0x1b, %ecx
    rdmsr
    or $0x400, %eax
    wrmsr
    WRITE_X2 0xf, 0x1ff
.endm
PRELUDE
main:
    COPY_TRAMPOLINE
    ENABLE
    WRITE_X2 0x30, 0x4500, 1
    WRITE_X2 0x30, 0x4600|(TRAMPOLINE>>12), 1
1:  pause
    cmpl $1, up
    jne 1b
    CHECK ap_id, 1
    CHECK ap_ldr, 2
    mov $0x802, %ecx
    rdmsr
    CHECK %rax, 0
    /* The other counts; it goes on doing so. */
    MOVE
    mov busy, %rax
2:  pause
    cmp busy, %rax
    je 2b
    movl $1, sleep
3:  pause
    cmpl $0, sleep
    jne 3b
    mov $0x802, %ecx
    rdmsr
    CHECK %rax, 0
    MOVE
    /* It sleeps. By its ID; it tells its ID again. */
    movl $0, ap_id
    movl $0, got
    WRITE_X2 0x30, 0x4041, 1
4:  pause
    cmpl $1, got
    jb 4b
    CHECK ap_id, 1
    CHECK got, 1
    /* By its place in the cluster. */
    WRITE_X2 0x30, 0x4842, 2
5:  pause
    cmpl $2, got
    jb 5b
    CHECK got, 2
    /* Its timer, moved while it counts. */
    WRITE_X2 0x30, 0x4043, 1
6:  pause
    cmpl $3, got
    jb 6b                        /* the timer may be quick */
    MOVE
7:  pause
    cmpl $4, got
    jb 7b
    CHECK got, 4
    DONE

ap_main:
    ENABLE
    mov $0x802, %ecx
    rdmsr
    mov %rax, ap_id
    mov $0x80d, %ecx
    rdmsr
    mov %rax, ap_ldr
    lock incl up
1:  incq busy
    cmpl $1, sleep
    jne 1b
    sti
    movl $0, sleep
2:  hlt
    jmp 2b

irq_handler:
    cmpl $0x43, (%rsp)
    jne 1f
    WRITE_X2 0x3e, 0xb
    WRITE_X2 0x32, 0x44
    WRITE_X2 0x38, 3000000
1:  mov $0x802, %ecx
    rdmsr
    mov %rax, ap_id
    WRITE_X2 0xb, 0
    lock incl got
    add $16, %rsp
    iretq

    AP_TRAMPOLINE
    jmp ap_main
    .balign 8
up: .quad 0
ap_id: .quad 0
ap_ldr: .quad 0
busy: .quad 0
sleep: .quad 0
got: .quad 0
