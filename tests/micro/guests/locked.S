/* Locked instructions across cache lines, by two CPUs at once; CMPXCHG8B. */
#include "micro.inc"
#define TRAMPOLINE 0x8000
#define ROUNDS 3000
PRELUDE
main:
    lea trampoline(%rip), %rsi
    mov $TRAMPOLINE, %edi
    mov $trampoline_end - trampoline, %ecx
    rep movsb
    mov $1, %al
    outb %al, $PORT_INIT
    mov $(TRAMPOLINE>>12)<<8|1, %eax
    outw %ax, $PORT_SIPI
    call work
1:  pause
    cmpl $2, done
    jne 1b
    CHECK FREE+0x10, 2*ROUNDS        /* aligned */
    CHECK FREE+0x3c, 2*ROUNDS        /* across two lines */
    mov FREE+0x20, %eax
    CHECK %rax, 2*ROUNDS
    DONE

work:
    mov $ROUNDS, %r8d
1:  lock incq FREE+0x10
    lock incq FREE+0x3c
    mov FREE+0x20, %eax
    mov FREE+0x24, %edx
3:  lea 1(%rax), %ebx
    mov %edx, %ecx
    lock cmpxchg8b FREE+0x20
    jnz 3b
    dec %r8d
    jnz 1b
    lock incl done
    ret

ap_main:
    call work
1:  cli
    hlt
    jmp 1b

    .code16
trampoline:
    cli
    xor %ax, %ax
    mov %ax, %ds
    mov $0x20, %eax
    mov %eax, %cr4
    mov $PML4, %eax
    mov %eax, %cr3
    mov $0xc0000080, %ecx
    mov $0x901, %eax
    xor %edx, %edx
    wrmsr
    lgdtl TRAMPOLINE + ap_gdtr - trampoline
    mov $0x80010033, %eax
    mov %eax, %cr0
    ljmpl $SEL_CODE, $ap_long
ap_gdtr:
    .word gdt_end - gdt - 1
    .long gdt
trampoline_end:
    .code64
ap_long:
    mov $SEL_DATA, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov $0x70000, %rsp
    lidt idtr
    jmp ap_main
    .balign 8
done: .quad 0
