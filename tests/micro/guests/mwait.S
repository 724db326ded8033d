/* MONITOR and MWAIT: what CPUID says, faults, and a CPU that sleeps until another one or a device
 * writes to a line, or an interrupt comes. A sleep ends by itself after some time, so it is looked
 * at how long the quickest one took. */
#define IRQ_HANDLER
#include "micro.inc"
#define APIC 0xfee00000
#define LINE FREE              /* the doorbell */
#define SEQ FREE+0x1000        /* how often it was rung */
#define ACK FREE+0x2000        /* how often that was noticed */
#define AWAY 0x50000           /* not mapped */
#define MSR_FS_BASE 0xc0000100
#define DELAY 3000000          /* TSC ticks, about a millisecond: long enough to fall asleep */
#define QUICK 0x6000000        /* far less than a sleep takes to end by itself */

/* R8 = the TSC. */
.macro NOW
    rdtsc
    shl $32, %rdx
    lea (%rax,%rdx), %r8
.endm

/* Ring by `store` some times, when the other has fallen asleep, until one of them was quick: others
 * may have the host's CPUs. */
.macro RING rounds, store:vararg
    mov $\rounds, %r12d
    mov $100, %r13d
    mov $-1, %r11
1:  NOW
    mov %r8, %r9
2:  pause
    NOW
    sub %r9, %r8
    cmp $DELAY, %r8
    jb 2b
    NOW
    mov %r8, %r9
    incl SEQ
    \store
3:  pause
    mov SEQ, %eax
    cmp %eax, ACK
    jne 3b
    NOW
    sub %r9, %r8
    cmp %r8, %r11
    cmova %r8, %r11
    dec %r12d
    jg 1b
    cmp $QUICK, %r11
    jb 4f
    dec %r13d
    jnz 1b
4:  call is_quick
    EXPECT 1
.endm

PRELUDE
main:
    COPY_TRAMPOLINE
    mov $1, %eax
    xor %ecx, %ecx
    cpuid
    and $8, %ecx
    CHECK %rcx, 8
    mov $5, %eax
    xor %ecx, %ecx
    cpuid
    CHECK %rax, 64
    CHECK %rbx, 64
    CHECK %rcx, 3
    CHECK %rdx, 0x10

    /* Without MONITOR there is nothing to wait for. */
    xor %ecx, %ecx
    xor %eax, %eax
    xor %edx, %edx
    mwait
    /* MONITOR: no extensions; a load of the address, which need not be aligned. */
    mov $LINE+63, %eax
    mov $1, %ecx
    FAULTING GP, 0, monitor
    movabs $1<<32, %rcx
    FAULTING GP, 0, monitor
    xor %ecx, %ecx
    movabs $0x800000000000, %rax
    FAULTING GP, 0, monitor
    movq $0, PT0+(AWAY>>12)*8
    invlpg AWAY
    mov $AWAY+8, %eax
    PAGE_FAULTING 0, AWAY+8, monitor
    movabs $0x1234567800000000+AWAY, %rax
    PAGE_FAULTING 0, AWAY, .byte 0x67, 0x0f, 0x01, 0xc8
    mov $MSR_FS_BASE, %ecx
    mov $AWAY, %eax
    xor %edx, %edx
    wrmsr
    mov $16, %eax
    xor %ecx, %ecx
    PAGE_FAULTING 0, AWAY+16, .byte 0x64, 0x0f, 0x01, 0xc8
    /* MWAIT: one extension. What faults uses nothing up. */
    mov $LINE, %eax
    monitor
    mov $2, %ecx
    FAULTING GP, 0, mwait
    movabs $1<<32, %rcx
    FAULTING GP, 0, mwait
    mov $NOWHERE, %eax           /* nothing there to monitor */
    xor %ecx, %ecx
    monitor
    mwait

    /* Another CPU sleeps. */
    mov $APIC, %ebx
    movl $0x1ff, 0xf0(%rbx)
    movl $1<<24, 0x310(%rbx)
    movl $0x4500, 0x300(%rbx)
    movl $1<<24, 0x310(%rbx)
    movl $0x4600|(TRAMPOLINE>>12), 0x300(%rbx)
    RING 10, incl LINE
    RING 5, lock incl LINE
    RING 5, incb LINE+63
    RING 5, call ring_by_device
    /* A line in a page with code. */
    movq $code_line, line
    RING 1, incl LINE
    RING 5, incl code_line

    /* An interrupt that is masked ends MWAIT if it is told so, here at once. */
    mov $-1, %r11
    cli
    movl $0, 0x310(%rbx)
    movl $0x4041, 0x300(%rbx)
    mov $100, %r12d
1:  mov $LINE, %eax
    xor %ecx, %ecx
    xor %edx, %edx
    monitor
    NOW
    mov %r8, %r9
    xor %eax, %eax
    mov $1, %ecx
    mwait
    NOW
    sub %r9, %r8
    cmp %r8, %r11
    cmova %r8, %r11
    cmp $QUICK, %r11
    jb 2f
    dec %r12d
    jnz 1b
2:  call is_quick
    EXPECT 1
    CHECK irqs, 0
    sti
    nop
    CHECK irqs, 1
    /* One that is not, from the other CPU, after it was rung. */
    movl $1, poke
    incl SEQ
    incl code_line
    mov $LINE, %edi
3:  cli
    mov %rdi, %rax
    xor %ecx, %ecx
    xor %edx, %edx
    monitor
    cmpl $2, irqs
    je 4f
    xor %eax, %eax
    sti
    mwait
    jmp 3b
4:  sti
    CHECK irqs, 2

    /* Ring 3 has neither. */
    USER_PAGES
    TO_USER user_start
back:
    DONE

/* R11 ticks: log whether that is quick. */
is_quick:
    xor %eax, %eax
    cmp $QUICK, %r11
    setb %al
    LOG %rax
    ret

ring_by_device:
    mov $LINE, %eax
    outl %eax, $PORT_DMA
    ret

ap_main:
    mov $APIC, %ebx
    movl $0x1ff, 0xf0(%rbx)
1:  mov line, %rax
    xor %ecx, %ecx
    xor %edx, %edx
    monitor
    mov SEQ, %edi
    cmp %edi, ACK
    jne 2f
    xor %eax, %eax
    mwait
    jmp 1b
2:  mov %edi, ACK
    cmpl $0, poke
    je 1b
    movl $0, poke
    movl $0, 0x310(%rbx)
    movl $0x4042, 0x300(%rbx)
    jmp 1b

    .balign 64
code_line: .fill 64

irq_handler:
    push %rax
    lock incl irqs
    mov $APIC, %eax
    movl $0, 0xb0(%rax)
    pop %rax
    add $16, %rsp
    iretq

    AP_TRAMPOLINE
    jmp ap_main
    .balign 8
line: .quad LINE
irqs: .quad 0
poke: .quad 0

    .balign 4096
user_start:
    xor %ecx, %ecx
    mov $LINE, %eax
    FAULTING UD, 0, monitor
    FAULTING UD, 0, mwait
    TO_KERNEL back
    .balign 4096
user_end:
