/* Locked instructions of two CPUs that an emulator finds hard: across pages, and CMPXCHG16B. */
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
    CHECK FREE+0xffc, 2*ROUNDS       /* across two pages */
    CHECK FREE+0x1ffe, 2*ROUNDS
    CHECK FREE+0x40, 2*ROUNDS
    CHECK FREE+0x48, 0
    FAULTING GP, 0, lock cmpxchg16b FREE+8
    DONE

work:
    mov $ROUNDS, %r8d
1:  mov $1, %eax
    lock xadd %rax, FREE+0xffc
    lock addq $1, FREE+0x1ffe
    /* A counter of 128 bits. */
    mov FREE+0x40, %rax
    mov FREE+0x48, %rdx
2:  mov %rax, %rbx
    mov %rdx, %rcx
    add $1, %rbx
    adc $0, %rcx
    lock cmpxchg16b FREE+0x40
    jnz 2b
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
