/* Locked instructions across cache lines, by two CPUs at once; CMPXCHG8B. */
#include "micro.inc"
#define ROUNDS 3000
PRELUDE
main:
    COPY_TRAMPOLINE
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

    AP_TRAMPOLINE
    jmp ap_main
    .balign 8
done: .quad 0
