/* Two CPUs, started through the local APIC: interrupts across, a page that one remaps while the other
 * reads it, code that one changes while the other runs it, and INIT and SIPI from the guest. */
#define IRQ_HANDLER
#define NMI_HANDLER
#include "micro.inc"
#define APIC 0xfee00000
#define PAGE 0x50000
#define PTE PT0+(PAGE>>12)*8
#define ROUNDS 40
PRELUDE
main:
    COPY_TRAMPOLINE
    mov $APIC, %ebx
    movl $0x1ff, 0xf0(%rbx)
    movl $1<<24, 0x310(%rbx)     /* to APIC ID 1 */
    movl $0x4500, 0x300(%rbx)    /* INIT */
    movl $1<<24, 0x310(%rbx)
    movl $0x4600|(TRAMPOLINE>>12), 0x300(%rbx)
1:  pause
    cmpl $1, up
    jne 1b
    CHECK up, 1

    /* Remap, tell the other, wait until it has forgotten the old page: it must never again read the
     * old number. */
    mov $ROUNDS, %ecx
2:  mov %ecx, %eax
    and $1, %eax
    shl $12, %eax
    lea PAGE+0x1063(%rax), %rdx  /* one of two pages */
    mov %rcx, -0x63(%rdx)        /* the number of the round is on it */
    mov %rdx, PTE
    invlpg PAGE
    movl $0, flushed
    movl $1<<24, 0x310(%rbx)
    movl $0x4041, 0x300(%rbx)
3:  pause
    cmpl $1, flushed
    jne 3b
    mov %rcx, expected
    movl $1, ask
4:  pause
    cmpl $0, ask
    jne 4b
    cmp %rcx, answer
    jne 5f
    dec %ecx
    jnz 2b
5:  CHECK %rcx, 0

    /* Code: the other calls f when asked; f is rewritten in between. */
    mov $ROUNDS, %ecx
6:  mov %ecx, f+1
    movl $2, ask
7:  pause
    cmpl $0, ask
    jne 7b
    cmp %rcx, answer
    jne 8f
    dec %ecx
    jnz 6b
8:  CHECK %rcx, 0
    /* A broadcast that leaves out the sender; then the other halts and wakes up by one. */
    movl $0, flushed
    movl $3, ask
9:  cmpl $0, ask
    jne 9b
    movl $0xc4041, 0x300(%rbx)
1:  pause
    cmpl $1, flushed
    jne 1b
    CHECK flushed, 1
    /* An NMI to the other. */
    movl $1<<24, 0x310(%rbx)
    movl $0x4400, 0x300(%rbx)
2:  pause
    cmpl $0x22220002, nmi_seen
    jne 2b
    CHECK nmi_seen, 0x22220002
    DONE

f:  mov $0, %eax
    ret

ap_main:
    mov $APIC, %ebx
    movl $0x1ff, 0xf0(%rbx)
    sti
    lock incl up
1:  pause
    mov ask, %eax
    cmp $1, %eax
    jb 1b
    je 2f
    cmp $2, %eax
    je 3f
    /* 3: sleep until something comes. */
    cli
    movl $0, ask
    sti
    hlt
    jmp 1b
2:  mov PAGE, %rax
    mov %rax, answer
    movl $0, ask
    jmp 1b
3:  call f
    mov %rax, answer
    movl $0, ask
    jmp 1b

irq_handler:
    invlpg PAGE
    movl $1, flushed
    movl $0, 0xb0(%rbx)
    add $16, %rsp
    iretq

    AP_TRAMPOLINE
    mov $SEL_SPARE, %eax         /* a TSS of its own: the NMI's stack is in it */
    movl $((ap_tss - _start + LOAD) & 0xffff) << 16 | 0x67, gdt+SEL_SPARE
    movl $((ap_tss - _start + LOAD) >> 16) | 0x8900, gdt+SEL_SPARE+4
    ltr %ax
    jmp ap_main

nmi_handler:
    add $16, %rsp
    movl $0x22220002, nmi_seen
    iretq
    .balign 8
up: .quad 0
ask: .quad 0
answer: .quad 0
expected: .quad 0
flushed: .quad 0
nmi_seen: .quad 0
ap_tss:
    .long 0
    .quad 0x68000, 0, 0, 0, 0x66000, 0x64000, 0, 0, 0, 0, 0
    .long 0
    .long 0x680000
