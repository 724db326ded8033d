/* One CPU changes an instruction and then says so; the other, which may be on its way to it already,
 * hears of it, serializes, and must execute the new one (SDM volume 3, "Handling Self- and
 * Cross-Modifying Code"). */
#include "micro.inc"
#define ROUNDS 4000
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
    mov $1, %ecx
2:  mov %ecx, changed-4          /* the immediate, in one aligned store */
    mov %ecx, told
    inc %ecx
    cmp $ROUNDS, %ecx
    jbe 2b
3:  pause
    cmpl $0, seen
    je 3b
    CHECK seen, ROUNDS
    DONE

    AP_TRAMPOLINE
    movl $1, up
    /* Much that serializes, so that the change often comes in the middle. */
1:  .rept 8
    xor %eax, %eax
    cpuid
    .endr
    mov told, %esi
    xor %eax, %eax
    cpuid
    .balign 4
    nopl (%rax)
    mov $0, %edi
changed:
    cmp %esi, %edi
    jb 2f
    cmp $ROUNDS, %esi
    jne 1b
    jmp 3f
2:  or $0x80000000, %edi         /* an old instruction was executed */
3:  mov %edi, seen
4:  pause
    jmp 4b
    .balign 8
up: .quad 0
told: .quad 0
seen: .quad 0
