/* Two CPUs: the second is started with INIT and SIPI, comes up from real mode, and both count under
 * a spin lock, hand a ball to and fro, and send each other interrupts. */
#define IRQ_HANDLER
#include "micro.inc"
#define ROUNDS 2000
PRELUDE
main:
    COPY_TRAMPOLINE
    mov $1, %al
    outb %al, $PORT_INIT
    mov $(TRAMPOLINE>>12)<<8|1, %eax
    outw %ax, $PORT_SIPI
1:  pause
    cmpl $1, up
    jne 1b
    CHECK up, 1
    CHECK ap_number, 1
    movl $1, go
    call work
2:  pause
    cmpl $2, done
    jne 2b
    CHECK counter, 2*ROUNDS
    CHECK ball, 40
    /* XADD and CMPXCHG without the lock. */
    CHECK tickets, 2*ROUNDS
    /* A second SIPI is ignored; INIT and SIPI start it again. */
    outw %ax, $PORT_SIPI
    mov $1, %al
    outb %al, $PORT_INIT
    mov $(TRAMPOLINE>>12)<<8|1, %eax
    outw %ax, $PORT_SIPI
3:  pause
    cmpl $2, up
    jne 3b
    CHECK up, 2
    DONE

/* Both. EBX: 0 or 1. */
work:
    inb $PORT_CPU, %al
    movzbl %al, %ebx
    mov $ROUNDS, %ecx
1:  mov $1, %eax
    xchg %eax, lock_word
    test %eax, %eax
    jz 2f
    pause
    jmp 1b
2:  mov counter, %rax
    inc %rax
    mov %rax, counter
    movl $0, lock_word
    mov $1, %eax
    lock xadd %rax, tickets
    dec %ecx
    jnz 1b
    /* The ball: even is 0's, odd is 1's. */
3:  mov ball, %eax
    cmp $40, %eax
    jae 4f
    and $1, %eax
    cmp %eax, %ebx
    jne 5f
    incl ball
5:  pause
    jmp 3b
4:  lock incl done
    ret

irq_handler:
    add $16, %rsp
    iretq

ap_main:
    inb $PORT_CPU, %al
    movzbl %al, %eax
    mov %rax, ap_number
    lock incl up
1:  pause
    cmpl $1, go
    jne 1b
    cmpl $2, up
    jae 2f
    call work
2:  cli
    hlt
    jmp 2b

    AP_TRAMPOLINE
    jmp ap_main
    .balign 8
lock_word: .quad 0
counter: .quad 0
tickets: .quad 0
ball: .quad 0
up: .quad 0
go: .quad 0
done: .quad 0
ap_number: .quad 0
